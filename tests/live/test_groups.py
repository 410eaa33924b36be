"""Security groups between two real guests of one subnet: a change acts on instances that run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.conftest import Deployment, Fleet, Guest, allow, eventually

pytestmark = pytest.mark.live

PORT = 8080
SOON_S = 3.0


@pytest.fixture(scope="module")
def pair(deployment: Deployment) -> Iterator[tuple[Guest, Guest]]:
    """One that asks, and one that greets at PORT whoever gets through."""
    fleet = Fleet(deployment)
    asking, serving = fleet.launch(2)
    for guest in (asking, serving):
        guest.wait_state("running")
        guest.login()
    serving.run(f"mkdir /tmp/www; echo hello >/tmp/www/greeting; httpd -p {PORT} -h /tmp/www")
    yield asking, serving
    fleet.end()


def gets_through(asking: Guest, address: str) -> bool:
    return asking.run(f"timeout 1 wget -q -O - http://{address}:{PORT}/greeting || true") == "hello\n"


def test_opened_and_closed_while_both_run(deployment: Deployment, pair: tuple[Guest, Guest]) -> None:
    asking, serving = pair
    assert asking.describe()["SubnetId"] == serving.describe()["SubnetId"]
    address = serving.private_ip
    assert not gets_through(asking, address)
    rule = {"GroupId": deployment.group, "IpPermissions": [allow("tcp", PORT, f"{asking.private_ip}/32")]}
    deployment.ec2.authorize_security_group_ingress(**rule)
    eventually(lambda: gets_through(asking, address), SOON_S, "the opened port answers")
    deployment.ec2.revoke_security_group_ingress(**rule)
    eventually(lambda: not gets_through(asking, address), SOON_S, "the closed port is silent")


def test_a_group_as_the_source(deployment: Deployment, pair: tuple[Guest, Guest]) -> None:
    asking, serving = pair
    address = serving.private_ip
    both = {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "UserIdGroupPairs": [{"GroupId": deployment.group}]}
    deployment.ec2.authorize_security_group_ingress(GroupId=deployment.group, IpPermissions=[both])
    eventually(lambda: gets_through(asking, address), SOON_S, "a member of the group gets through")
    deployment.ec2.revoke_security_group_ingress(GroupId=deployment.group, IpPermissions=[both])
    eventually(lambda: not gets_through(asking, address), SOON_S, "it does not any more")


def test_what_is_closed_on_the_way_out_stays_in(deployment: Deployment, pair: tuple[Guest, Guest]) -> None:
    asking, _ = pair
    everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    inward = {"GroupId": deployment.group, "IpPermissions": [allow("tcp", PORT)]}
    deployment.ec2.authorize_security_group_ingress(**inward)
    address = pair[1].private_ip
    eventually(lambda: gets_through(asking, address), SOON_S, "the opened port answers")
    deployment.ec2.revoke_security_group_egress(GroupId=deployment.group, IpPermissions=everything)
    eventually(lambda: not gets_through(asking, address), SOON_S, "nothing goes out")
    # What is no business of security groups goes on: metadata, and answers to who is let in.
    assert asking.http("GET", "/latest/meta-data/instance-id") == (200, asking.id)
    deployment.ec2.authorize_security_group_egress(GroupId=deployment.group, IpPermissions=everything)
    deployment.ec2.revoke_security_group_ingress(**inward)

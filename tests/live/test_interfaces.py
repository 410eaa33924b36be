"""Interfaces that come and go while a guest runs, with all their addresses, and move from one to another."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.live.conftest import Deployment, DualStack, Elastic, Fleet, Guest, eventually

pytestmark = pytest.mark.live

SOON_S = 20.0
TYPE = "t3.small"  # three interfaces, of four addresses each


@pytest.fixture(scope="module")
def trio(deployment: Deployment, dual_stack: DualStack) -> Iterator[list[Guest]]:
    """Two that the interface is given to, and one that asks whether it answers."""
    fleet = Fleet(deployment)
    guests = fleet.launch(
        3, InstanceType=TYPE, SubnetId=dual_stack.subnet, SecurityGroupIds=[dual_stack.group], Ipv6AddressCount=1
    )
    for guest in guests:
        guest.wait_state("running")
        guest.login()
    yield guests
    fleet.end()


@pytest.fixture
def elastic(deployment: Deployment, dual_stack: DualStack) -> Iterator[Elastic]:
    made = Elastic(deployment, dual_stack)
    yield made
    made.delete()


def answers(asking: Guest, address: str) -> bool:
    return asking.run(f"sudo ping -c 1 -W 1 {address} >/dev/null 2>&1 && echo yes || true") == "yes\n"


def until_all_answer(asking: Guest, elastic: Elastic) -> None:
    for address in elastic.addresses:
        eventually(partial(answers, asking, address), SOON_S, f"{address} answers")


def test_an_interface_comes_goes_and_moves(trio: list[Guest], elastic: Elastic) -> None:
    first, second, asking = trio
    before = first.links()
    assert len(elastic.addresses) == 4  # two of IPv4, one of a prefix, one of IPv6
    assert not any(answers(asking, address) for address in elastic.addresses)

    elastic.attach(first, 1)
    until_all_answer(asking, elastic)
    assert set(first.links()) - set(before) == {elastic.mac}
    eventually(lambda: elastic.attachment_state() == "attached", SOON_S, "it is attached")
    # The guest's own way out is as it was.
    assert first.run("ip route show default").split()[4] == "eth0"
    assert answers(first, asking.private_ip)

    elastic.detach()
    eventually(lambda: first.links() == before, SOON_S, "it has gone from the guest")
    eventually(lambda: elastic.state() == "available", SOON_S, "it is available")
    assert "100" not in first.run("ip rule; ip -6 rule")  # tables of their own are 1001 and after
    assert not any(answers(asking, address) for address in elastic.addresses)

    mac, addresses = elastic.mac, elastic.addresses
    elastic.attach(second, 2)
    until_all_answer(asking, elastic)
    assert elastic.mac in second.links()
    assert elastic.mac not in first.links()
    assert (elastic.mac, elastic.addresses) == (mac, addresses)


def test_it_is_there_after_a_reboot_and_after_a_stop(
    deployment: Deployment, trio: list[Guest], elastic: Elastic
) -> None:
    guest, _, asking = trio
    elastic.attach(guest, 1)
    until_all_answer(asking, elastic)
    before = guest.boot_id()
    deployment.ec2.reboot_instances(InstanceIds=[guest.id])
    eventually(lambda: guest.boot_id() != before, 60, "it has booted anew")
    until_all_answer(asking, elastic)
    guest.logout()
    deployment.ec2.stop_instances(InstanceIds=[guest.id])
    guest.wait("instance_stopped")
    deployment.ec2.start_instances(InstanceIds=[guest.id])
    guest.wait("instance_running")
    until_all_answer(asking, elastic)

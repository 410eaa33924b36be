"""What guests are told and asked by the router: addresses by DHCP, names by DNS."""

from __future__ import annotations

import os
import pwd
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.host import Dhcp, HostError
from tests.host.stage import SILENCE_S, Plan, dnsmasqs, lease, make_network, only, resolve, there, udp_socket

pytestmark = pytest.mark.host


@pytest.mark.parametrize("segment", [0, 1])
def test_dhcp_gives_the_assigned_address(plan: Plan, tmp_path: Path, segment: int) -> None:
    guest = plan.guest(77, segment=segment)
    plan.guest(78, segment=segment)
    assert lease(guest, tmp_path) == {
        "ip": guest.address,
        "mask": "20",
        "router": guest.gateway,
        "dns": "172.31.0.2",
        "mtu": "1500",
        "domain": "ec2.internal",
        "hostname": guest.port.host_name,
        "lease": "86400",
    }


def test_dhcp_knows_a_port_that_came_later_and_one_whose_address_changed(plan: Plan, tmp_path: Path) -> None:
    first = plan.guest(10)
    lease(first, tmp_path)
    second = plan.guest(11)
    assert lease(second, tmp_path)["ip"] == second.address
    plan.change(first, address="172.31.0.200", host_name="ip-172-31-0-200")
    assert lease(first, tmp_path)["ip"] == "172.31.0.200"


def test_dhcp_ignores_the_name_that_a_guest_claims(plan: Plan, tmp_path: Path) -> None:
    guest, other = plan.guest(10), plan.guest(11)
    assert lease(guest, tmp_path, "-x", "hostname:db")["hostname"] == guest.port.host_name
    assert resolve(other, "db.ec2.internal", "172.31.0.2") == []


def test_dhcp_gives_nothing_to_a_stranger(plan: Plan, tmp_path: Path) -> None:
    guest = plan.guest(10)
    stranger = plan.stranger(guest)
    stranger.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
    with pytest.raises(HostError, match="no lease"):
        lease(stranger, tmp_path, "-t", "2")


def test_dnsmasq_is_not_root_where_its_user_can_get_to_the_files(stage: ExitStack, tmp_path: Path) -> None:
    pwd.getpwnam("dnsmasq")
    run_dir = Path(stage.enter_context(tempfile.TemporaryDirectory(prefix="orctest-")))
    run_dir.chmod(0o755)
    plan = Plan(make_network(stage, run_dir), stage)
    guest = plan.guest(10)
    (process,) = dnsmasqs(run_dir)
    assert os.stat(f"/proc/{process}").st_uid == pwd.getpwnam("dnsmasq").pw_uid
    other = plan.guest(11)
    assert dnsmasqs(run_dir) == [process]
    assert lease(other, tmp_path)["ip"] == other.address
    assert resolve(guest, "ip-172-31-0-11.ec2.internal", "172.31.0.2") == ["172.31.0.11"]


@pytest.mark.parametrize("server", ["172.31.0.2", "169.254.169.253"])
def test_dns_knows_private_and_public_names(plan: Plan, server: str) -> None:
    locked = only(outbound=())  # policies do not rule what is said to the resolver
    asking = plan.guest(10, locked)
    plan.guest(20, segment=1, public="203.0.113.20")
    assert resolve(asking, "ip-172-31-16-20.ec2.internal", server) == ["172.31.16.20"]
    assert resolve(asking, "ec2-203-0-113-20.compute-1.amazonaws.com", server) == ["172.31.16.20"]
    assert resolve(asking, "20.16.31.172.in-addr.arpa", server, kind=12) == ["ip-172-31-16-20.ec2.internal"]
    assert resolve(asking, "ip-172-31-16-99.ec2.internal", server) == []
    assert resolve(asking, "example.com", server) == []


def test_a_router_without_a_resolver_answers_no_names(plan: Plan, tmp_path: Path) -> None:
    guest = plan.guest(10)
    plan.network.apply(replace(plan.router, resolver="", dhcp=Dhcp()))
    assert "dns" not in {name for name, value in lease(guest, tmp_path).items() if value}
    with pytest.raises(OSError), there(guest, udp_socket) as asking:
        asking.settimeout(SILENCE_S)
        asking.sendto(b"x" * 12, ("172.31.0.2", 53))
        asking.recv(512)

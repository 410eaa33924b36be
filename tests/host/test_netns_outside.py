"""Public addresses, the edge and the world beyond it."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.host import Allow
from orchestrator.host.command import inside
from orchestrator.host.netns import NetnsNetwork
from tests.host.stage import (
    HOST_ADDRESS,
    PATIENCE_S,
    SILENCE_S,
    SSH,
    Plan,
    batch,
    fake_resolver,
    heard_until,
    is_blocked,
    make_network,
    new_id,
    only,
    resolve,
    tcp,
    tcp_listener,
    there,
    token,
    udp,
    udp_socket,
    wire,
)

pytestmark = pytest.mark.host


def test_the_host_reaches_a_public_address(plan: Plan) -> None:
    ssh = only(replace(SSH, peer_cidr="203.0.113.1/32"))
    plan.policies = (ssh,)
    guest = plan.guest(10, ssh, public="203.0.113.10")
    with tcp_listener(guest, 22) as listener, closing(socket.create_connection(("203.0.113.10", 22), PATIENCE_S)):
        connection, (peer, _) = listener.accept()
        with connection:
            assert (peer, connection.getsockname()[0]) == (HOST_ADDRESS, guest.address)
    assert is_blocked("", guest, "203.0.113.10", 23)
    assert is_blocked("", guest, "203.0.113.11", 22)
    assert tcp(guest, "", HOST_ADDRESS, 2222) == "203.0.113.10"


def test_without_a_public_address_there_is_no_way_out(plan: Plan) -> None:
    guest, other = plan.guest(10), plan.guest(11, public="203.0.113.11")
    assert is_blocked(guest, "", HOST_ADDRESS, 2222)
    assert is_blocked(guest, other, "203.0.113.11")
    assert tcp(guest, other, other.address) == guest.address
    with wire(plan.name, "uplink") as hearing, there(guest, udp_socket) as one, there(other, udp_socket) as another:
        secret, marker = token(), token()
        one.sendto(secret, (HOST_ADDRESS, 9))
        another.sendto(marker, (HOST_ADDRESS, 9))
        assert secret not in heard_until(hearing, marker)


def test_a_hairpin_passes_the_edge(plan: Plan) -> None:
    """By public addresses, guests of one router meet as strangers: sources are public, and no policy knows a member."""
    members = new_id("sg")
    closed = only(Allow(protocol="tcp", from_port=22, to_port=22, peer_policy=members), name=members)
    by_address = only(Allow(protocol="tcp", from_port=80, to_port=80, peer_cidr="203.0.113.10/32"))
    plan.policies = (closed, by_address)
    one = plan.guest(10, closed, public="203.0.113.10")
    other = plan.guest(11, closed, by_address, public="203.0.113.11")
    assert tcp(one, other, "203.0.113.11", 80) == "203.0.113.10"
    assert is_blocked(one, other, "203.0.113.11", 22)
    assert tcp(one, other, other.address, 22) == one.address


def test_routers_meet_by_public_addresses_only(plan: Plan, network: NetnsNetwork, stage: ExitStack) -> None:
    other_plan = Plan(network, stage)
    one, other = plan.guest(10, public="203.0.113.10"), other_plan.guest(11, public="203.0.113.11")
    assert tcp(one, other, "203.0.113.11") == "203.0.113.10"
    assert is_blocked(one, other, other.address)


def test_a_public_address_can_move(plan: Plan, network: NetnsNetwork, stage: ExitStack) -> None:
    other_plan = Plan(network, stage)
    one, other = plan.guest(10, public="203.0.113.10"), other_plan.guest(11)
    with tcp_listener("", 2222) as listener:
        connection = there(one, lambda: socket.create_connection((HOST_ADDRESS, 2222), PATIENCE_S))
        far, _ = listener.accept()
        with connection, far:
            plan.change(one, public=())
            other_plan.change(other, public=((other.address, "203.0.113.10"),))
            far.settimeout(SILENCE_S)
            connection.sendall(b"as before")
            with pytest.raises(TimeoutError):  # what was begun from the address does not go on from it
                far.recv(16)
    assert tcp("", other, "203.0.113.10") == HOST_ADDRESS
    assert is_blocked("", one, "203.0.113.10")


def test_what_is_of_the_network_but_of_no_segment_stays_inside(plan: Plan, stage: ExitStack) -> None:
    guest = plan.guest(10, public="203.0.113.10")
    unknown = ("172.31.200.1", "169.254.1.1")
    with wire(plan.name, "uplink") as hearing:
        sender = stage.enter_context(there(guest, udp_socket))
        secrets_, marker = [token() for _ in unknown], token()
        for address, secret in zip(unknown, secrets_, strict=True):
            with suppress(OSError):  # the router says that there is no such host
                sender.sendto(secret, (address, 9))
        sender.sendto(marker, (HOST_ADDRESS, 9))
        heard = heard_until(hearing, marker)
    assert not any(secret in heard for secret in secrets_)


def test_a_router_without_uplink_is_alone(plan: Plan) -> None:
    guest = plan.guest(10, public="203.0.113.10")
    assert tcp("", guest, "203.0.113.10")
    plan.uplink = False
    plan.apply()
    assert is_blocked("", guest, "203.0.113.10")
    assert is_blocked(guest, "", HOST_ADDRESS, 2222)
    plan.uplink = True
    plan.apply()
    assert tcp("", guest, "203.0.113.10")


def test_egress_off_drops_what_goes_beyond(plan: Plan, internet: str) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    guest = plan.guest(10, public="203.0.113.10")
    inside(internet, lambda: batch("route add 203.0.113.0/24 via 192.0.2.1"))
    assert is_blocked(guest, internet, "192.0.2.9")
    assert is_blocked(internet, guest, "203.0.113.10")
    assert not udp(internet, guest, "203.0.113.10", 9, patience_s=SILENCE_S)
    assert is_blocked(guest, "", "192.0.2.1")  # the host, by another of its addresses


def test_egress_on_goes_out_under_the_hosts_address(stage: ExitStack, tmp_path: Path, internet: str) -> None:
    network = make_network(stage, tmp_path / "run", egress=True)
    plan = Plan(network, stage)
    guest, private = plan.guest(10, public="203.0.113.10"), plan.guest(11)
    assert tcp(guest, internet, "192.0.2.9") == "192.0.2.1"
    assert is_blocked(private, internet, "192.0.2.9")
    plan.apply()
    with fake_resolver() as question:
        assert resolve(private, "debian.example", "172.31.0.2") == ["192.0.2.77"]
        assert b"debian" in question.result()
    NetnsNetwork(network.deployment, tmp_path / "run").apply(plan.router)
    assert is_blocked(guest, internet, "192.0.2.9")
    assert resolve(private, "debian.example", "172.31.0.2") == []

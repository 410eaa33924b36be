"""What the host tells of packets: flows counted, and one packet followed through the rules."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from orchestrator.host import HostError, Probe
from orchestrator.host.command import inside, run
from orchestrator.host.links import leg_name
from tests.host.stage import SSH, Guest, Plan, is_blocked, only, pings, tcp

pytestmark = pytest.mark.host

TCP, ICMP = 6, 1


def counted(plan: Plan) -> dict[tuple[str, bool, bool, int, int], int]:
    """(port, outbound, accepted, protocol, destination port) -> packets, since the last look."""
    return {
        (flow.port, flow.outbound, flow.accepted, flow.protocol, flow.destination_port): flow.packets
        for flow in plan.network.flows(plan.router)
    }


def test_flows_are_told_once_at_both_ends_and_where_they_are_refused(plan: Plan) -> None:
    server = only(SSH)
    plan.policies = (*plan.policies, server)
    one = plan.guest(10, log=True)
    other = plan.guest(11, server, segment=1, log=True)
    assert counted(plan) == {}  # the first look of a process
    assert tcp(one, other, other.address, 22)
    assert is_blocked(one, other, other.address, 23)
    found = counted(plan)
    sender, receiver = one.port.name, other.port.name
    assert found[sender, True, True, TCP, 22] >= 3
    assert found[receiver, False, True, TCP, 22] == found[sender, True, True, TCP, 22]
    assert found[sender, True, True, TCP, 23] >= 1
    assert found[receiver, False, False, TCP, 23] == found[sender, True, True, TCP, 23]
    assert (sender, True, False, TCP, 23) not in found
    assert counted(plan) == {}
    assert pings(one, plan.segments[0].gateway)  # for the router itself: no flow of the network
    assert tcp(one, other, other.address, 22)
    assert set(counted(plan)) >= {(sender, True, True, TCP, 22), (receiver, False, True, TCP, 22)}


def test_a_router_without_logs_counts_nothing(plan: Plan) -> None:
    one, other = plan.guest(10), plan.guest(11)
    assert plan.network.flows(plan.router) == []
    assert tcp(one, other, other.address)
    assert plan.network.flows(plan.router) == []


def probe(source: Guest, destination: str, port: int = 22, protocol: str = "tcp") -> Probe:
    return Probe(
        port=source.port.name,
        source=source.address,
        destination=destination,
        protocol=protocol,
        destination_port=port,
    )


@pytest.mark.parametrize("protocol", ["tcp", "udp", "icmp"])
def test_a_packet_is_followed_to_its_verdict(plan: Plan, protocol: str) -> None:
    one, other = plan.guest(10), plan.guest(11, segment=1)
    told = plan.network.trace(plan.router, probe(one, other.address, protocol=protocol))
    assert told[0].startswith("on_forward: packet") or "packet" in told[0]
    assert any(line.startswith("on_forward:") for line in told)
    assert any("accept" in line for line in told)
    assert not any("drop" in line for line in told)


def test_the_rule_that_drops_is_named(plan: Plan) -> None:
    server = only(SSH)
    plan.policies = (*plan.policies, server)
    one, other = plan.guest(10), plan.guest(11, server, segment=1)
    told = plan.network.trace(plan.router, probe(one, other.address, port=23))
    assert any("verdict drop" in line for line in told), told
    assert "orc_trace" not in inside(plan.name, lambda: run(["nft", "list", "tables"]))


def test_only_ports_that_are_there_are_followed(plan: Plan) -> None:
    one = plan.guest(10)
    with pytest.raises(HostError, match="has no port eni-0"):
        plan.network.trace(plan.router, replace(probe(one, "172.31.0.99"), port="eni-00000000000000000"))
    gone = replace(plan.router, name="vpc-00000000000000000")
    with pytest.raises(HostError, match="is not plugged in on this host"):
        plan.network.trace(gone, probe(one, "172.31.0.99"))


def test_ipv6_is_followed_too(plan: Plan) -> None:
    plan.ipv6_cidr = "2001:db8:ec00:100::/56"
    one, other = plan.guest(10), plan.guest(11, segment=1)
    asked = replace(probe(one, other.ipv6_address), source=one.ipv6_address)
    told = plan.network.trace(plan.router, asked)
    assert any(leg_name(plan.segments[0].name) in line for line in told), told


def test_a_trace_takes_no_longer_than_it_must(plan: Plan) -> None:
    one, other = plan.guest(10), plan.guest(11)
    begin = time.monotonic()
    plan.network.trace(plan.router, probe(one, other.address))
    assert time.monotonic() - begin < 3

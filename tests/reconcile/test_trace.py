"""Traces over routers made by hand. What is expected follows from EC2's documents, not from the code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.host import (
    Acl,
    AclRule,
    AddressSet,
    Allow,
    Peering,
    Policy,
    Port,
    Probe,
    Route,
    Router,
    Segment,
    Table,
    Way,
)
from orchestrator.model.trace import Arrival, Step, Trace
from orchestrator.reconcile.trace import OUTSIDE, trace

ANYWHERE = "0.0.0.0/0"
GOOGLE = "8.8.8.8"

ALL = Allow(protocol="-1", peer_cidr=ANYWHERE)
ALL_IPV6 = Allow(protocol="-1", peer_cidr="::/0")
OPEN = Policy(name="sg-open", inbound=(ALL, ALL_IPV6), outbound=(ALL, ALL_IPV6))
WEB = Policy(
    name="sg-web", inbound=(Allow(protocol="tcp", from_port=80, to_port=80, peer_cidr=ANYWHERE),), outbound=(ALL,)
)
DB = Policy(
    name="sg-db",
    inbound=(
        Allow(protocol="tcp", from_port=5432, to_port=5432, peer_policy="sg-web"),
        Allow(protocol="icmp", from_port=8, to_port=-1, peer_set="pl-offices"),
    ),
    outbound=(),
)


def port(number: int, segment: str, *policies: str, **changes: Any) -> Port:
    """eni-NUMBER; the address ends in NUMBER, and `segment` says where: a is 10.0.1.0/24, b is 10.0.2.0/24."""
    third = {"a": 1, "b": 2}[segment[-1]]
    given: dict[str, Any] = {
        "name": f"eni-{number}",
        "segment": segment,
        "mac": f"02:00:00:00:00:{number:02x}",
        "address": f"10.0.{third}.{number}",
        "host_name": f"host-{number}",
        "policies": policies or ("sg-open",),
    }
    return Port(**{**given, **changes})


def router(*ports: Port, **changes: Any) -> Router:
    """10.0.0.0/16 with subnets a and b; a's table leads to the internet, b's does not."""
    given: dict[str, Any] = {
        "name": "vpc-1",
        "cidrs": ("10.0.0.0/16",),
        "segments": (
            Segment(name="subnet-a", cidr="10.0.1.0/24", gateway="10.0.1.1", table="rtb-a"),
            Segment(name="subnet-b", cidr="10.0.2.0/24", gateway="10.0.2.1", table="rtb-b"),
        ),
        "ports": ports,
        "policies": (OPEN, WEB, DB),
        "address_sets": (AddressSet(name="pl-offices", addresses=("10.0.1.0/28", "198.51.100.7")),),
        "tables": (
            Table(name="rtb-a", routes=(Route(destination=ANYWHERE, way=Way.UPLINK),)),
            Table(name="rtb-b", routes=()),
        ),
        "domain": "ec2.internal",
        "resolver": "10.0.0.2",
    }
    return Router(**{**given, **changes})


def ask(
    routers: Router | tuple[Router, ...],
    name: str,
    destination: str,
    number: int = 80,
    *,
    source: str = "",
    protocol: str = "tcp",
    **options: Any,
) -> Trace:
    every = routers if isinstance(routers, tuple) else (routers,)
    own = [port for one in every for port in one.ports if port.name == name]
    start = source or (own[0].ipv6_addresses[0] if ":" in destination else own[0].address)
    probe = Probe(port=name, source=start, destination=destination, protocol=protocol, destination_port=number)
    return trace({one.name: one for one in every}, probe, **options)


def last(found: Trace) -> tuple[str, str]:
    """What ended it."""
    assert not found.passed
    assert [step.passed for step in found.steps] == [True] * (len(found.steps) - 1) + [False]
    return found.steps[-1].where, found.steps[-1].decision


def decisions(found: Trace, *, answer: bool = False) -> list[tuple[str, str]]:
    return [(step.where, step.decision) for step in found.steps if step.answer is answer]


def with_acl(plan: Router, segment: str, *, inbound: tuple[AclRule, ...], outbound: tuple[AclRule, ...]) -> Router:
    acl = Acl(name=f"acl-{segment[-1]}", inbound=inbound, outbound=outbound)
    segments = tuple(replace(each, acl=acl.name) if each.name == segment else each for each in plan.segments)
    return replace(plan, segments=segments, acls=(*plan.acls, acl))


def line(number: int, accept: bool = True, protocol: str = "-1", cidr: str = ANYWHERE, **ports: int) -> AclRule:
    return AclRule(number=number, accept=accept, protocol=protocol, cidr=cidr, **ports)


# --- within a VPC ---


def test_two_of_one_subnet_ask_groups_and_no_acl() -> None:
    plan = with_acl(router(port(4, "subnet-a"), port(5, "subnet-a", "sg-web")), "subnet-a", inbound=(), outbound=())
    found = ask(plan, "eni-4", "10.0.1.5")
    assert found.passed
    assert found.arrival == Arrival(interface_id="eni-5", source="10.0.1.4", destination="10.0.1.5")
    assert decisions(found) == [
        ("eni-4", "source"),
        ("sg-open", "security group"),
        ("rtb-a", "route"),
        ("sg-web", "security group"),
        ("eni-5", "arrival"),
    ]
    assert all(step.vpc_id == "vpc-1" for step in found.steps)
    assert "tcp 80 from 0.0.0.0/0" in found.steps[3].detail


def test_a_port_that_no_group_allows_ends_at_the_receiver() -> None:
    plan = router(port(4, "subnet-a"), port(5, "subnet-a", "sg-web"))
    assert last(ask(plan, "eni-4", "10.0.1.5", 81)) == ("sg-web", "security group")
    assert last(ask(plan, "eni-4", "10.0.1.5", protocol="udp")) == ("sg-web", "security group")


def test_a_group_without_rules_lets_nothing_out() -> None:
    plan = router(port(4, "subnet-a", "sg-db"), port(5, "subnet-a"))
    found = ask(plan, "eni-4", "10.0.1.5")
    assert last(found) == ("sg-db", "security group")
    assert "outbound" in found.steps[-1].detail


def test_groups_are_stateful() -> None:
    """sg-db may send nothing of its own, and yet it answers."""
    plan = router(port(4, "subnet-a", "sg-web"), port(5, "subnet-a", "sg-db"))
    found = ask(plan, "eni-4", "10.0.1.5", 5432)
    assert found.passed
    assert "answers what passed" in next(
        step.detail for step in found.steps if step.answer and step.decision == "security group"
    )
    assert last(ask(plan, "eni-5", "10.0.1.4")) == ("sg-db", "security group")


def test_members_of_a_group_are_known_by_every_address_that_they_have() -> None:
    member = port(4, "subnet-a", "sg-web", more_addresses=("10.0.1.9", "10.0.1.32/28"), ipv6_addresses=("2001:db8::4",))
    plan = router(member, port(5, "subnet-a", "sg-db"), port(6, "subnet-a", "sg-open"))
    for source in ("10.0.1.9", "10.0.1.40"):
        assert ask(plan, "eni-4", "10.0.1.5", 5432, source=source).passed, source
    assert last(ask(plan, "eni-6", "10.0.1.5", 5432)) == ("sg-db", "security group")


def test_prefix_lists() -> None:
    plan = router(port(4, "subnet-a"), port(20, "subnet-a"), port(5, "subnet-a", "sg-db"))
    assert ask(plan, "eni-4", "10.0.1.5", protocol="icmp").passed
    assert last(ask(plan, "eni-20", "10.0.1.5", protocol="icmp")) == ("sg-db", "security group")


def test_any_one_of_several_groups_is_enough_and_names_that_are_gone_count_for_nothing() -> None:
    plan = router(port(4, "subnet-a"), port(5, "subnet-a", "sg-db", "sg-web"), port(6, "subnet-a", "sg-gone"))
    assert ask(plan, "eni-4", "10.0.1.5").passed
    assert last(ask(plan, "eni-4", "10.0.1.6")) == ("eni-6", "security group")


def test_nobody_has_the_address() -> None:
    assert last(ask(router(port(4, "subnet-a")), "eni-4", "10.0.1.77")) == ("vpc-1", "destination")
    assert last(ask(router(port(4, "subnet-a")), "eni-4", "10.0.200.77")) == ("vpc-1", "destination")


def test_a_source_that_is_plugged_into_nothing() -> None:
    probe = Probe(port="eni-9", source="10.0.1.9", destination="10.0.1.4", protocol="icmp")
    assert last(trace({"vpc-1": router(port(4, "subnet-a"))}, probe)) == ("eni-9", "source")


@pytest.mark.parametrize("address", ["224.0.0.1", "255.255.255.255"])
def test_there_is_no_broadcast_and_no_multicast(address: str) -> None:
    assert last(ask(router(port(4, "subnet-a")), "eni-4", address, protocol="udp")) == ("vpc-1", "route")


# --- source/dest check ---


def test_a_forged_source_is_dropped_first_of_all() -> None:
    plan = router(port(4, "subnet-a"), port(5, "subnet-a"))
    found = ask(plan, "eni-4", "10.0.1.5", source="10.0.1.5")
    assert last(found) == ("eni-4", "source/dest check")
    assert len(found.steps) == 2


def test_a_forged_source_passes_without_the_check_but_link_local_never() -> None:
    plan = router(port(4, "subnet-a", check_addresses=False), port(5, "subnet-a"))
    found = ask(plan, "eni-4", "10.0.1.5", source="192.168.9.9")
    assert found.arrival == Arrival(interface_id="eni-5", source="192.168.9.9", destination="10.0.1.5")
    assert last(ask(plan, "eni-4", "10.0.1.5", source="169.254.169.254")) == ("eni-4", "source/dest check")


# --- the router's own services ---


@pytest.mark.parametrize(
    ("address", "protocol", "number", "answers"),
    [
        ("169.254.169.254", "tcp", 80, True),
        ("169.254.169.254", "tcp", 81, False),
        ("169.254.169.253", "udp", 53, True),
        ("10.0.0.2", "tcp", 53, True),
        ("10.0.0.2", "tcp", 54, False),
        ("10.0.1.1", "icmp", 0, True),
        ("10.0.1.1", "tcp", 22, False),
        ("169.254.1.1", "icmp", 0, False),
    ],
)
def test_services_ask_neither_groups_nor_acls(address: str, protocol: str, number: int, answers: bool) -> None:
    plan = with_acl(router(port(4, "subnet-a", "sg-db")), "subnet-a", inbound=(), outbound=())
    found = ask(plan, "eni-4", address, number, protocol=protocol)
    assert found.passed is answers
    assert not any(step.decision in ("security group", "network ACL") for step in found.steps)


def test_services_are_for_true_sources_alone() -> None:
    plan = router(port(4, "subnet-a", check_addresses=False))
    assert last(ask(plan, "eni-4", "169.254.169.254", source="10.0.1.5")) == ("vpc-1", "destination")


# --- ACLs ---


def test_acls_are_asked_at_both_borders_in_order_of_number() -> None:
    plan = router(port(4, "subnet-a"), port(5, "subnet-b"))
    plan = with_acl(plan, "subnet-a", inbound=(line(100),), outbound=(line(200), line(90, protocol="tcp")))
    plan = with_acl(plan, "subnet-b", inbound=(line(100),), outbound=(line(100),))
    found = ask(plan, "eni-4", "10.0.2.5")
    assert found.passed
    assert [at for at, what in decisions(found) if what == "network ACL"] == ["acl-a", "acl-b"]
    assert [at for at, what in decisions(found, answer=True) if what == "network ACL"] == ["acl-b", "acl-a"]
    assert "entry 90 allows" in next(step.detail for step in found.steps if step.where == "acl-a")


@pytest.mark.parametrize(
    ("rules", "passes", "entry"),
    [
        ((line(100, protocol="tcp", from_port=80, to_port=80), line(200, False)), True, ""),
        ((line(50, False, protocol="tcp", from_port=1, to_port=100), line(100)), False, "entry 50 denies"),
        ((line(100, protocol="6", from_port=443, to_port=443),), False, "entry *"),
        ((line(100, cidr="10.0.1.0/30"),), False, "entry *"),
        ((line(100, cidr="10.0.1.4/32"), line(110, False)), True, ""),
        ((line(100, protocol="udp"),), False, "entry *"),
        ((), False, "entry *"),
    ],
)
def test_the_first_entry_that_matches_decides(rules: tuple[AclRule, ...], passes: bool, entry: str) -> None:
    plan = router(port(4, "subnet-a"), port(5, "subnet-b"))
    plan = with_acl(plan, "subnet-b", inbound=rules, outbound=(line(100),))
    found = ask(plan, "eni-4", "10.0.2.5")
    assert found.passed is passes
    if not passes:
        assert last(found) == ("acl-b", "network ACL")
        assert entry in found.steps[-1].detail


def test_the_answer_must_pass_the_acls_too() -> None:
    """ACLs remember nothing: port 80 in, and 80 alone out, leaves the answer behind."""
    plan = router(port(4, "subnet-a"), port(5, "subnet-b"))
    plan = with_acl(
        plan, "subnet-b", inbound=(line(100),), outbound=(line(100, protocol="tcp", from_port=80, to_port=80),)
    )
    found = ask(plan, "eni-4", "10.0.2.5")
    assert found.arrival is not None and found.arrival.interface_id == "eni-5"
    assert last(found) == ("acl-b", "network ACL")
    assert found.steps[-1].answer
    ephemeral = line(100, protocol="tcp", from_port=1024, to_port=65535)
    plan = replace(plan, acls=(replace(plan.acls[0], outbound=(ephemeral,)),))
    assert ask(plan, "eni-4", "10.0.2.5").passed


def test_an_echo_and_its_reply_are_two_icmp_types() -> None:
    plan = router(port(4, "subnet-a"), port(5, "subnet-b"))
    request, reply = (line(100, protocol="1", from_port=kind, to_port=-1) for kind in (8, 0))
    only_request = with_acl(plan, "subnet-b", inbound=(request,), outbound=(request,))
    assert last(ask(only_request, "eni-4", "10.0.2.5", protocol="icmp")) == ("acl-b", "network ACL")
    both = with_acl(plan, "subnet-b", inbound=(request,), outbound=(reply,))
    assert ask(both, "eni-4", "10.0.2.5", protocol="icmp").passed


# --- routes ---


def test_without_a_route_there_is_no_way_out() -> None:
    found = ask(router(port(5, "subnet-b")), "eni-5", GOOGLE)
    assert last(found) == ("rtb-b", "route")
    assert "no route" in found.steps[-1].detail


def test_the_longest_prefix_decides() -> None:
    routes = (
        Route(destination=ANYWHERE, way=Way.UPLINK),
        Route(destination="8.8.0.0/16", way=Way.NOWHERE),
        Route(destination="8.8.4.0/24", way=Way.UPLINK),
    )
    plan = router(
        port(4, "subnet-a", public=(("10.0.1.4", "203.0.113.4"),)), tables=(Table(name="rtb-a", routes=routes),)
    )
    found = ask(plan, "eni-4", GOOGLE)
    assert last(found) == ("rtb-a", "route")
    assert "8.8.0.0/16" in found.steps[-1].detail and "blackhole" in found.steps[-1].detail
    assert ask(plan, "eni-4", "8.8.4.4").passed
    assert ask(plan, "eni-4", "9.9.9.9").passed


def test_a_route_to_what_is_gone_is_a_blackhole() -> None:
    table = Table(name="rtb-b", routes=(Route(destination=ANYWHERE, way=Way.PORT, target="eni-77"),))
    assert last(ask(router(port(5, "subnet-b"), tables=(table,)), "eni-5", GOOGLE)) == ("rtb-b", "route")


# --- outside ---


def test_out_by_the_internet_gateway_under_the_public_address() -> None:
    plan = router(port(4, "subnet-a", "sg-web", public=(("10.0.1.4", "203.0.113.4"),)))
    found = ask(plan, "eni-4", GOOGLE, 443)
    assert found.passed
    assert found.arrival == Arrival(interface_id="", source="203.0.113.4", destination=GOOGLE)
    assert ("vpc-1", "internet gateway") in decisions(found)
    assert ("vpc-1", "internet gateway") in decisions(found, answer=True)


def test_each_private_address_has_a_public_one_of_its_own() -> None:
    plan = router(port(4, "subnet-a", more_addresses=("10.0.1.9",), public=(("10.0.1.9", "203.0.113.9"),)))
    assert ask(plan, "eni-4", GOOGLE, source="10.0.1.9").passed
    assert last(ask(plan, "eni-4", GOOGLE)) == ("vpc-1", "internet gateway")


def test_what_keeps_a_packet_from_leaving() -> None:
    addressed = port(4, "subnet-a", public=(("10.0.1.4", "203.0.113.4"),))
    assert last(ask(router(port(4, "subnet-a")), "eni-4", GOOGLE)) == ("vpc-1", "internet gateway")
    assert last(ask(router(addressed, uplink=False), "eni-4", GOOGLE)) == ("vpc-1", "internet gateway")
    assert last(ask(router(addressed), "eni-4", "192.168.1.1")) == ("internet", "internet gateway")
    found = ask(router(addressed), "eni-4", GOOGLE, egress=False)
    assert last(found) == ("internet", "internet gateway")
    assert "network.egress" in found.steps[-1].detail


def test_from_outside_to_a_public_address() -> None:
    plan = router(port(4, "subnet-a", "sg-web", public=(("10.0.1.4", "203.0.113.4"),)), port(5, "subnet-b"))
    found = ask(plan, OUTSIDE, "203.0.113.4", source="198.51.100.9")
    assert found.passed
    assert found.arrival == Arrival(interface_id="eni-4", source="198.51.100.9", destination="10.0.1.4")
    assert last(ask(plan, OUTSIDE, "203.0.113.4", 22, source="198.51.100.9")) == ("sg-web", "security group")
    assert last(ask(plan, OUTSIDE, "203.0.113.5", source="198.51.100.9")) == ("internet", "destination")


def test_the_answer_to_the_outside_needs_a_route_as_well() -> None:
    """A public address in a subnet whose table does not lead out: packets come in, and answers do not leave."""
    plan = router(port(5, "subnet-b", "sg-web", public=(("10.0.2.5", "203.0.113.5"),)))
    found = ask(plan, OUTSIDE, "203.0.113.5", source="198.51.100.9")
    assert found.arrival is not None
    assert last(found) == ("rtb-b", "route")


def test_an_acl_decides_on_what_comes_from_outside_and_on_its_answer() -> None:
    plan = router(port(4, "subnet-a", "sg-web", public=(("10.0.1.4", "203.0.113.4"),)))
    denied = with_acl(plan, "subnet-a", inbound=(line(1, False, cidr="198.51.100.0/24"), line(2)), outbound=(line(1),))
    assert last(ask(denied, OUTSIDE, "203.0.113.4", source="198.51.100.9")) == ("acl-a", "network ACL")
    assert ask(denied, OUTSIDE, "203.0.113.4", source="198.51.101.9").passed
    mute = with_acl(plan, "subnet-a", inbound=(line(1),), outbound=())
    found = ask(mute, OUTSIDE, "203.0.113.4", source="198.51.100.9")
    assert last(found) == ("acl-a", "network ACL") and found.steps[-1].answer


def test_two_of_one_vpc_by_public_address_go_out_and_come_back_in() -> None:
    """The receiver sees the public source: a rule for the group of the sender does not match it."""
    sender = port(4, "subnet-a", "sg-web", public=(("10.0.1.4", "203.0.113.4"),))
    plan = router(
        sender,
        port(5, "subnet-a", "sg-web", public=(("10.0.1.5", "203.0.113.5"),)),
        port(6, "subnet-a", "sg-db", public=(("10.0.1.6", "203.0.113.6"),)),
    )
    found = ask(plan, "eni-4", "203.0.113.5")
    assert found.passed
    assert found.arrival == Arrival(interface_id="eni-5", source="203.0.113.4", destination="10.0.1.5")
    assert last(ask(plan, "eni-4", "203.0.113.6", 5432)) == ("sg-db", "security group")
    assert ask(plan, "eni-4", "10.0.1.6", 5432).passed


def test_a_public_address_in_another_vpc_with_the_same_ranges() -> None:
    one = router(port(4, "subnet-a", public=(("10.0.1.4", "203.0.113.4"),)))
    other = router(
        replace(port(4, "subnet-a", "sg-web", public=(("10.0.1.4", "203.0.113.44"),)), name="eni-44"), name="vpc-2"
    )
    found = ask((one, other), "eni-4", "203.0.113.44")
    assert found.passed
    assert found.arrival == Arrival(interface_id="eni-44", source="203.0.113.4", destination="10.0.1.4")
    assert {step.vpc_id for step in found.steps} >= {"vpc-1", "vpc-2"}
    assert last(ask((one, other), "eni-4", "203.0.113.44", 22)) == ("sg-web", "security group")


# --- NAT gateways, and instances that route ---

NAT_PORT = port(9, "subnet-a", translator=True, check_addresses=False, public=(("10.0.1.9", "203.0.113.9"),))
BY_NAT = (
    Table(name="rtb-a", routes=(Route(destination=ANYWHERE, way=Way.UPLINK),)),
    Table(name="rtb-b", routes=(Route(destination=ANYWHERE, way=Way.PORT, target="eni-9"),)),
)


def test_out_by_a_nat_gateway() -> None:
    plan = router(NAT_PORT, port(5, "subnet-b", "sg-web"), tables=BY_NAT)
    found = ask(plan, "eni-5", GOOGLE, 443)
    assert found.passed
    assert found.arrival == Arrival(interface_id="", source="203.0.113.9", destination=GOOGLE)
    assert ("eni-9", "NAT gateway") in decisions(found)
    assert ("eni-9", "NAT gateway") in decisions(found, answer=True)
    assert ask(plan, "eni-5", GOOGLE, protocol="icmp").passed


def test_nobody_begins_from_outside_through_a_nat_gateway() -> None:
    plan = router(NAT_PORT, port(5, "subnet-b"), tables=BY_NAT)
    assert last(ask(plan, OUTSIDE, "203.0.113.9", source="198.51.100.9")) == ("eni-9", "NAT gateway")
    assert last(ask(plan, "eni-5", "10.0.1.9")) == ("eni-9", "NAT gateway")


def test_acls_see_the_traffic_of_a_nat_gateway_at_all_its_borders() -> None:
    plan = router(NAT_PORT, port(5, "subnet-b"), tables=BY_NAT)
    no_entry = with_acl(plan, "subnet-a", inbound=(line(1, False, cidr="10.0.2.0/24"), line(2)), outbound=(line(1),))
    assert last(ask(no_entry, "eni-5", GOOGLE)) == ("acl-a", "network ACL")
    no_answer = with_acl(plan, "subnet-a", inbound=(line(1, cidr="10.0.0.0/16"),), outbound=(line(1),))
    found = ask(no_answer, "eni-5", GOOGLE)
    assert last(found) == ("acl-a", "network ACL") and found.steps[-1].answer


def test_a_private_nat_gateway_does_not_lead_outside() -> None:
    plan = router(replace(NAT_PORT, public=()), port(5, "subnet-b"), tables=BY_NAT)
    assert last(ask(plan, "eni-5", GOOGLE)) == ("vpc-1", "internet gateway")


def test_an_instance_that_routes_needs_its_check_off() -> None:
    middle = port(9, "subnet-a", public=(("10.0.1.9", "203.0.113.9"),))
    plan = router(middle, port(5, "subnet-b"), tables=BY_NAT)
    assert last(ask(plan, "eni-5", GOOGLE)) == ("eni-9", "source/dest check")
    found = ask(replace(plan, ports=(replace(middle, check_addresses=False), plan.ports[1])), "eni-5", GOOGLE)
    assert found.passed, "taken for a NAT instance"
    assert found.arrival == Arrival(interface_id="", source="203.0.113.9", destination=GOOGLE)


def test_an_instance_that_only_sends_on_has_no_public_address_for_others() -> None:
    middle = port(9, "subnet-a", check_addresses=False, public=(("10.0.1.9", "203.0.113.9"),))
    plan = router(middle, port(5, "subnet-b"), tables=BY_NAT)
    assert last(ask(plan, "eni-5", GOOGLE, masquerades=())) == ("vpc-1", "internet gateway")
    assert ask(plan, "eni-5", GOOGLE, masquerades=("eni-9",)).passed


def test_the_groups_of_an_instance_that_routes_are_asked_both_ways() -> None:
    middle = port(9, "subnet-a", "sg-web", check_addresses=False, public=(("10.0.1.9", "203.0.113.9"),))
    plan = router(middle, port(5, "subnet-b"), tables=BY_NAT)
    assert ask(plan, "eni-5", GOOGLE, 80).passed
    assert last(ask(plan, "eni-5", GOOGLE, 443)) == ("sg-web", "security group")


def test_a_firewall_between_two_subnets() -> None:
    """More specific than local: a's packets to b pass eni-9; b answers straight."""
    tables = (
        Table(name="rtb-a", routes=(Route(destination="10.0.2.0/24", way=Way.PORT, target="eni-9"),)),
        Table(name="rtb-b", routes=()),
    )
    middle = port(9, "subnet-b", "sg-web", check_addresses=False)
    plan = router(port(4, "subnet-a"), port(5, "subnet-b"), middle, tables=tables)
    found = ask(plan, "eni-4", "10.0.2.5", masquerades=())
    assert found.passed
    assert [at for at, what in decisions(found) if what == "instance"] == ["eni-9"]
    assert not [at for at, _ in decisions(found, answer=True) if at == "eni-9"]
    assert last(ask(plan, "eni-4", "10.0.2.5", 81, masquerades=())) == ("sg-web", "security group")


def test_local_may_be_replaced_whole() -> None:
    tables = (Table(name="rtb-a", routes=(Route(destination="10.0.0.0/16", way=Way.PORT, target="eni-9"),)),)
    plan = router(port(4, "subnet-a"), port(5, "subnet-a"), port(9, "subnet-b", check_addresses=False), tables=tables)
    assert ("eni-9", "instance") in decisions(ask(plan, "eni-4", "10.0.1.5"))


def test_routes_that_lead_in_a_circle_end() -> None:
    tables = (
        Table(name="rtb-a", routes=(Route(destination="172.16.0.0/12", way=Way.PORT, target="eni-9"),)),
        Table(name="rtb-b", routes=(Route(destination="172.16.0.0/12", way=Way.PORT, target="eni-4"),)),
    )
    plan = router(port(4, "subnet-a", check_addresses=False), port(9, "subnet-b", check_addresses=False), tables=tables)
    found = ask(plan, "eni-4", "172.16.0.9")
    assert last(found)[1] == "route"
    assert "circles" in found.steps[-1].detail


# --- peering ---


def peers() -> tuple[Router, Router]:
    """vpc-1 10.0.0.0/16 and vpc-2 10.1.0.0/16, peered by pcx-1."""
    ours = router(
        port(4, "subnet-a", public=(("10.0.1.4", "203.0.113.4"),)),
        tables=(
            Table(
                name="rtb-a",
                routes=(
                    Route(destination="10.1.0.0/16", way=Way.PEER, target="pcx-1"),
                    Route(destination="10.2.0.0/16", way=Way.PEER, target="pcx-1"),
                ),
            ),
        ),
        peerings=(Peering(name="pcx-1", router="vpc-2", their_cidrs=("10.1.0.0/16",)),),
    )
    theirs = Router(
        name="vpc-2",
        cidrs=("10.1.0.0/16",),
        segments=(Segment(name="subnet-t", cidr="10.1.1.0/24", gateway="10.1.1.1", table="rtb-t"),),
        ports=(
            Port(
                name="eni-7",
                segment="subnet-t",
                mac="02:00:00:00:01:07",
                address="10.1.1.7",
                host_name="t",
                policies=("sg-theirs",),
            ),
        ),
        policies=(
            Policy(
                name="sg-theirs",
                inbound=(Allow(protocol="tcp", from_port=80, to_port=80, peer_set="sg-open@pcx-1"),),
                outbound=(ALL,),
            ),
        ),
        address_sets=(AddressSet(name="sg-open@pcx-1", addresses=("10.0.1.4",)),),
        tables=(Table(name="rtb-t", routes=(Route(destination="10.0.0.0/16", way=Way.PEER, target="pcx-1"),)),),
        peerings=(Peering(name="pcx-1", router="vpc-1", their_cidrs=("10.0.0.0/16",)),),
        domain="ec2.internal",
        resolver="10.1.0.2",
    )
    return ours, theirs


def test_over_a_peering_and_back() -> None:
    found = ask(peers(), "eni-4", "10.1.1.7")
    assert found.passed
    assert found.arrival == Arrival(interface_id="eni-7", source="10.0.1.4", destination="10.1.1.7")
    assert ("pcx-1", "peering") in decisions(found) and ("pcx-1", "peering") in decisions(found, answer=True)
    assert last(ask(peers(), "eni-4", "10.1.1.7", 81)) == ("sg-theirs", "security group")


def test_a_peering_needs_a_route_at_both_ends() -> None:
    ours, theirs = peers()
    found = ask((ours, replace(theirs, tables=())), "eni-4", "10.1.1.7")
    assert found.arrival is not None
    assert last(found) == ("subnet-t", "route")


def test_a_peering_is_no_transit() -> None:
    ours, theirs = peers()
    assert last(ask((ours, theirs), "eni-4", "10.2.0.9")) == ("pcx-1", "peering")
    unchecked = replace(ours, ports=(replace(ours.ports[0], check_addresses=False),))
    assert last(ask((unchecked, theirs), "eni-4", "10.1.1.7", source="192.168.0.5")) == ("pcx-1", "peering")


def test_a_peer_that_is_not_on_the_host() -> None:
    ours, _ = peers()
    assert last(ask(ours, "eni-4", "10.1.1.7")) == ("pcx-1", "peering")


# --- IPv6 ---


def six(way: Way) -> Router:
    base = router(
        port(4, "subnet-a", ipv6_addresses=("2001:db8:0:1::4",)),
        port(5, "subnet-b", ipv6_addresses=("2001:db8:0:2::5",)),
        cidrs=("10.0.0.0/16", "2001:db8::/56"),
        tables=(Table(name="rtb-a", routes=(Route(destination="::/0", way=way),)),),
    )
    cidrs = {"subnet-a": "2001:db8:0:1::/64", "subnet-b": "2001:db8:0:2::/64"}
    return replace(base, segments=tuple(replace(each, ipv6_cidr=cidrs[each.name]) for each in base.segments))


OUT6 = "2600:1f00::1"


def test_ipv6_is_not_translated() -> None:
    found = ask(six(Way.UPLINK), "eni-4", OUT6)
    assert found.passed
    assert found.arrival == Arrival(interface_id="", source="2001:db8:0:1::4", destination=OUT6)
    assert ask(six(Way.UPLINK), "eni-4", "2001:db8:0:2::5", protocol="icmpv6").passed


def test_an_egress_only_gateway_lets_nobody_begin_outside() -> None:
    assert ask(six(Way.OUTWARD), "eni-4", OUT6).passed
    assert last(ask(six(Way.OUTWARD), OUTSIDE, "2001:db8:0:1::4", source=OUT6)) == ("vpc-1", "egress-only gateway")
    assert ask(six(Way.UPLINK), OUTSIDE, "2001:db8:0:1::4", source=OUT6).passed


def test_ipv6_from_outside_needs_a_route_to_the_internet_gateway() -> None:
    assert last(ask(six(Way.UPLINK), OUTSIDE, "2001:db8:0:2::5", source=OUT6))[1] in ("route", "internet gateway")


def test_ipv4_rules_say_nothing_of_ipv6() -> None:
    plan = replace(six(Way.UPLINK), policies=(replace(OPEN, inbound=(ALL,)), WEB, DB))
    assert last(ask(plan, "eni-4", "2001:db8:0:2::5")) == ("sg-open", "security group")
    assert ask(plan, "eni-4", "10.0.2.5").passed


def test_a_step_says_all_that_a_person_asks() -> None:
    plan = router(port(4, "subnet-a", "sg-web"), port(5, "subnet-a", "sg-web"))
    steps = ask(plan, "eni-4", "10.0.1.5").steps
    assert steps[0] == Step(
        where="eni-4", decision="source", detail="sends tcp 10.0.1.4:49152 -> 10.0.1.5:80", vpc_id="vpc-1"
    )
    assert [step.detail for step in steps[1:4]] == [
        "outbound: all to 0.0.0.0/0 allows it",
        "10.0.0.0/16 -> local",
        "inbound: tcp 80 from 0.0.0.0/0 allows it",
    ]

"""Plans become rules and routes: what is wanted, without a kernel; and what a kernel is told, in a namespace."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.host import Dhcp, Peering, Port, Route, Router, Segment, Table, Way, dnsmasq
from orchestrator.host.command import run
from orchestrator.host.links import UPLINK, leg_name, peer_name
from orchestrator.host.routing import (
    HERE,
    MAIN,
    OWN,
    Entry,
    Forwarding,
    Rule,
    settle,
    table_number,
    turned_segments,
    wanted,
)
from tests.host.stage import batch

FRONT = Segment(
    name="subnet-0aaaaaaaaaaaaaaaa", cidr="10.0.0.0/20", gateway="10.0.0.1", ipv6_cidr="2001:db8:1::/64", table="rtb-1"
)
BACK = Segment(name="subnet-0bbbbbbbbbbbbbbbb", cidr="10.0.16.0/20", gateway="10.0.16.1", table="rtb-2")
LEGS = {leg_name(FRONT.name), leg_name(BACK.name)}
PORT = Port(
    name="eni-0123456789abcdef0",
    segment=FRONT.name,
    mac="02:00:00:00:00:01",
    address="10.0.0.9",
    ipv6_addresses=("2001:db8:1:0::9",),
    host_name="ip-10-0-0-9",
)
CABLE = "pcx-0123456789abcdef0"
ROUTER = Router(
    name="vpc-0aaaaaaaaaaaaaaaa",
    cidrs=("10.0.0.0/16", "2001:db8:1::/56"),
    segments=(FRONT, BACK),
    ports=(PORT,),
    policies=(),
    peerings=(Peering(name=CABLE, router="vpc-0bbbbbbbbbbbbbbbb", their_cidrs=("10.7.0.0/16",)),),
    domain="ec2.internal",
    resolver="10.0.0.2",
)
EDGE = "198.18.0.0"
ALL = {*LEGS, UPLINK, peer_name(CABLE)}


def ways(*routes: Route, links: set[str] = ALL, uplink: str = EDGE) -> dict[str, tuple[str, str]]:
    """Link and next hop by destination, of the first segment's table."""
    router = replace(ROUTER, tables=(Table(name="rtb-1", routes=routes),))
    found = wanted(router, links, uplink).entries
    return {each.destination: (each.link, each.via) for each in found if each.table == table_number("rtb-1")}


NOWHERE = ("", "")


@pytest.mark.parametrize(
    ("route", "way"),
    [
        (Route(destination="0.0.0.0/0", way=Way.UPLINK), (UPLINK, EDGE)),
        (Route(destination="::/0", way=Way.UPLINK), (UPLINK, "fe80::1")),
        (Route(destination="::/0", way=Way.OUTWARD), (UPLINK, "fe80::1")),
        (Route(destination="0.0.0.0/0", way=Way.OUTWARD), NOWHERE),
        (Route(destination="192.0.2.0/24", way=Way.NOWHERE), NOWHERE),
        (Route(destination="192.0.2.0/24", way=Way.PORT, target=PORT.name), (leg_name(FRONT.name), "10.0.0.9")),
        (Route(destination="64:ff9b::/96", way=Way.PORT, target=PORT.name), (leg_name(FRONT.name), "2001:db8:1::9")),
        (Route(destination="192.0.2.0/24", way=Way.PORT, target="eni-gone"), NOWHERE),
        (Route(destination="10.7.0.0/16", way=Way.PEER, target=CABLE), (peer_name(CABLE), "fe80::2")),
        (Route(destination="2001:db8:7::/56", way=Way.PEER, target=CABLE), (peer_name(CABLE), "fe80::2")),
        (Route(destination="10.7.0.0/16", way=Way.PEER, target="pcx-gone"), NOWHERE),
    ],
)
def test_a_route_leads_where_it_says(route: Route, way: tuple[str, str]) -> None:
    assert ways(route)[route.destination] == way


def test_what_has_no_link_is_dropped() -> None:
    out, peer = (
        Route(destination="0.0.0.0/0", way=Way.UPLINK),
        Route(destination="10.7.0.0/16", way=Way.PEER, target=CABLE),
    )
    found = ways(out, peer, links=LEGS, uplink="")
    assert found["0.0.0.0/0"] == found["10.7.0.0/16"] == NOWHERE


def test_every_table_is_a_whole_answer() -> None:
    assert ways() == {
        "0.0.0.0/0": NOWHERE,
        "::/0": NOWHERE,
        "10.0.0.0/16": NOWHERE,
        "2001:db8:1::/56": NOWHERE,
        "10.0.0.0/20": (leg_name(FRONT.name), ""),
        "2001:db8:1::/64": (leg_name(FRONT.name), ""),
        "10.0.16.0/20": (leg_name(BACK.name), ""),
    }


def test_segments_are_found_by_their_tables() -> None:
    tables = (Table(name="rtb-1", routes=()), Table(name="rtb-unused", routes=()))
    found = wanted(replace(ROUTER, tables=tables), ALL, EDGE)
    assert found.rules == {
        *(Rule(family, leg_name(FRONT.name), table_number("rtb-1")) for family in (4, 6)),
        *(Rule(family, "", OWN) for family in (4, 6)),
        *(Rule(family, "lo", HERE) for family in (4, 6)),
    }
    assert {entry.table for entry in found.entries} == {MAIN, OWN, HERE, table_number("rtb-1")}


UP = Route(destination="0.0.0.0/0", way=Way.UPLINK)
UP6 = Route(destination="::/0", way=Way.OUTWARD)


def test_one_table_for_all_needs_no_rules() -> None:
    tables = (Table(name="rtb-1", routes=(UP, UP6)), Table(name="rtb-2", routes=(UP6, UP)))
    found = wanted(replace(ROUTER, tables=tables), ALL, EDGE)
    assert found.rules == set()
    assert found.entries == {
        Entry(MAIN, "0.0.0.0/0", UPLINK, EDGE, onlink=True),
        Entry(MAIN, "::/0", UPLINK, "fe80::1"),
        Entry(MAIN, "10.0.0.0/16"),
        Entry(MAIN, "2001:db8:1::/56"),
        Entry(MAIN, "10.0.0.0/20", leg_name(FRONT.name), metric=1),
        Entry(MAIN, "10.0.16.0/20", leg_name(BACK.name), metric=1),
        Entry(MAIN, "2001:db8:1::/64", leg_name(FRONT.name)),
    }


@pytest.mark.parametrize(
    ("front", "back"),
    [
        ((UP,), (UP, UP6)),  # they differ
        ((UP,), None),
        ((UP6,), (UP6,)),  # the router itself has a way out by IPv4
        ((UP, Route(destination="10.7.0.0/16", way=Way.PEER, target=CABLE)),) * 2,
        ((UP, Route(destination="192.0.2.0/24", way=Way.PORT, target=PORT.name)),) * 2,
        ((Route(destination="0.0.0.0/0", way=Way.PORT, target=PORT.name),),) * 2,
        ((UP, Route(destination="10.0.128.0/17", way=Way.UPLINK)),) * 2,  # within its own range
    ],
)
def test_other_tables_need_rules(front: tuple[Route, ...], back: tuple[Route, ...] | None) -> None:
    tables = [Table(name=name, routes=each) for name, each in (("rtb-1", front), ("rtb-2", back)) if each is not None]
    found = wanted(replace(ROUTER, tables=tuple(tables)), ALL, EDGE)
    assert Rule(4, leg_name(FRONT.name), table_number("rtb-1")) in found.rules


@pytest.mark.parametrize(
    ("destination", "front", "back"),
    [
        ("10.0.0.0/16", "leg", "leg"),  # the router's own range: local, as EC2 has it
        ("10.0.0.0/8", "leg", "leg"),
        ("10.0.16.0/20", "leg", "port"),
        ("10.0.0.0/17", "port", "port"),
        ("10.0.16.128/25", "leg", "leg"),  # a part of a segment: beside its own route
    ],
)
def test_a_more_precise_route_takes_segments_away(destination: str, front: str, back: str) -> None:
    found = ways(Route(destination=destination, way=Way.PORT, target=PORT.name))

    def way(address: str) -> str:
        inside = [each for each in found if ":" not in each and ip_address(address) in ip_network(each)]
        link, via = found[max(inside, key=lambda each: ip_network(each).prefixlen)]
        return "port" if via else "leg" if link else "nowhere"

    assert (way("10.0.0.77"), way("10.0.16.77")) == (front, back)


@pytest.mark.parametrize(
    ("destination", "turned"),
    [
        ("0.0.0.0/0", set()),
        ("10.0.0.0/16", set()),
        ("10.0.16.0/20", {BACK.name}),
        ("10.0.16.128/25", {BACK.name}),
        ("10.0.0.0/17", {FRONT.name, BACK.name}),
    ],
)
def test_segments_that_are_reached_by_a_port_are_known(destination: str, turned: set[str]) -> None:
    routes = (Route(destination=destination, way=Way.PORT, target=PORT.name),)
    assert turned_segments(replace(ROUTER, tables=(Table(name="rtb-2", routes=routes),))) == turned


@given(st.permutations([FRONT, BACK]), st.permutations(["rtb-1", "rtb-2", "rtb-3"]))
def test_order_says_nothing(segments: list[Segment], names: list[str]) -> None:
    out = (Route(destination="0.0.0.0/0", way=Way.UPLINK),)
    first = replace(ROUTER, tables=tuple(Table(name=name, routes=out) for name in sorted(names)))
    other = replace(ROUTER, segments=tuple(segments), tables=tuple(Table(name=name, routes=out) for name in names))
    assert wanted(first, ALL, EDGE) == wanted(other, ALL, EDGE)


def test_numbers_of_tables_are_no_numbers_of_the_kernel() -> None:
    numbers = {table_number(f"rtb-{number:017x}") for number in range(5000)}
    assert len(numbers) == 5000
    assert min(numbers) > OWN > 255
    assert max(numbers) < 1 << 31


# --- in a namespace ------------------------------------------------------------------------------------------------


@pytest.mark.host
def test_whatever_is_there_becomes_what_is_wanted(stage: ExitStack) -> None:
    batch("link set eth0 up", "link set eth1 up", "address add 192.0.2.1/24 dev eth0")
    want = Forwarding(
        frozenset({Rule(4, "eth0", 70000), Rule(6, "eth0", 70000), Rule(4, "", OWN), Rule(6, "lo", HERE)}),
        frozenset(
            {
                Entry(70000, "0.0.0.0/0", "eth0", "192.0.2.9", onlink=True),
                Entry(70000, "10.7.0.0/16", "eth0", "fe80::2"),
                Entry(70000, "10.8.0.0/16", "eth0", "10.9.9.9", onlink=True),
                Entry(70000, "::/0", "eth0", "fe80::2"),
                Entry(70000, "2001:db8::/32"),
                Entry(MAIN, "10.6.0.0/16"),
                Entry(MAIN, "192.0.2.0/24", "eth0", metric=1),  # beside the kernel's own
            }
        ),
    )
    assert settle(want)
    assert not settle(want)
    before = told()
    for spoiling in (
        ["route replace 10.7.0.0/16 via 192.0.2.7 dev eth0 table 70000"],
        ["route add 10.7.0.0/16 via 192.0.2.7 dev eth0 table 70000 metric 7"],
        ["route replace unreachable 10.8.0.0/16 table 70000", "route add prohibit 10.5.0.0/16"],
        ["-6 route replace blackhole ::/0 table 70000", "-6 route add 2001:db8::/32 dev eth0 table 70000 metric 9"],
        ["-6 route delete 2001:db8::/32 table 70000", "route add 10.66.0.0/16 dev eth1 table 70001"],
        ["rule add fwmark 7 lookup 70000 priority 1000", "rule delete iif eth0 priority 1000"],
        ["rule add iif eth1 lookup 70000 priority 1000", "-6 rule add from 2001:db8::/32 lookup 70000"],
        ["rule flush", "-6 rule flush"],
        ["route delete 192.0.2.0/24 dev eth0 metric 1"],
        ["route flush table main", "route flush table 70000"],
    ):
        for command in spoiling:
            run(["ip", *command.split()])
        assert settle(want), spoiling
        assert not settle(want), spoiling
        if "main" not in spoiling[0]:
            assert told() == before, spoiling
    settle(Forwarding())
    assert "70000" not in "".join(told())


def told() -> list[str]:
    """Without the rule for the table that nobody uses, and what the kernel adds in its own time."""
    questions = ("rule", "-6 rule", "route show table all", "-6 route show table all")
    lines = [line for each in questions for line in sorted(run(["ip", *each.split()]).splitlines())]
    return [line for line in lines if "lookup default" not in line and "proto kernel" not in line]


def test_dnsmasq_tells_what_dhcp_options_say() -> None:
    dhcp = Dhcp(
        domain="corp.example",
        servers=("10.0.0.2", "192.0.2.53", "2001:db8::53"),
        ntp_servers=("169.254.169.123", "fd00:ec2::123"),
        netbios_servers=("10.0.0.7",),
        netbios_node_type=2,
        ipv6_lease_s=3600,
    )
    text = dnsmasq.configuration(replace(ROUTER, dhcp=dhcp), Path("/run/x"), user="dnsmasq", upstream="").splitlines()
    assert {
        "dhcp-option=option:dns-server,10.0.0.2,192.0.2.53",
        "dhcp-option=option:domain-name,corp.example",
        "dhcp-option=option:ntp-server,169.254.169.123",
        "dhcp-option=option:netbios-ns,10.0.0.7",
        "dhcp-option=option:netbios-nodetype,2",
        "dhcp-option=option6:dns-server,[fd00:ec2::253],[2001:db8::53]",
        "dhcp-option=option6:domain-search,corp.example",
        "dhcp-option=option6:ntp-server,[fd00:ec2::123]",
        f"dhcp-range=set:{leg_name(FRONT.name)},2001:db8:1::,static,off-link,64,3600",
        "enable-ra",
    } <= set(text)
    assert dnsmasq.hosts(ROUTER) == "02:00:00:00:00:01,10.0.0.9,[2001:db8:1:0::9],ip-10-0-0-9\n"
    assert dnsmasq.hosts(replace(ROUTER, ports=(replace(PORT, translator=True),))) == ""

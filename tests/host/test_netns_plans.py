"""Any plan over any other: the host is then as if only the last one had ever been there."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.host import (
    Acl,
    AclRule,
    AddressSet,
    Allow,
    Dhcp,
    Peering,
    Policy,
    Port,
    Record,
    Route,
    Router,
    Segment,
    Table,
    Way,
)
from orchestrator.host.command import inside, run
from orchestrator.host.links import edge_name, translator_name
from orchestrator.host.netns import NetnsNetwork
from tests.host.stage import ANYWHERE, make_network

pytestmark = pytest.mark.host

NAME, PEER, CABLE = "vpc-0aaaaaaaaaaaaaaaa", "vpc-0bbbbbbbbbbbbbbbb", "pcx-0cccccccccccccccc"
RANGE = IPv6Network("2001:db8:ec00::/40")
SEGMENTS = ("subnet-0000000000000000a", "subnet-1111111111111111b", "subnet-2222222222222222c")
TABLES = ("rtb-0000000000000000a", "rtb-0000000000000000b")
POLICIES = ("sg-0000000000000000a", "sg-0000000000000000b")
PORTS = tuple(f"eni-{number:011x}abcdef" for number in range(5))
DESTINATIONS = (
    ANYWHERE,
    "192.0.2.0/24",
    "192.0.2.128/25",
    "10.0.16.0/20",  # a segment
    "10.7.0.0/16",
    "::/0",
    "2001:db8:ec00:200::/56",
)

allows = st.builds(
    Allow,
    protocol=st.sampled_from(["tcp", "udp", "-1"]),
    from_port=st.just(-1),
    to_port=st.just(-1),
    peer_cidr=st.sampled_from([ANYWHERE, "10.0.0.0/16", "::/0"]),
)
routes = st.builds(
    Route,
    destination=st.sampled_from(DESTINATIONS),
    way=st.sampled_from([Way.UPLINK, Way.OUTWARD, Way.PORT, Way.PEER, Way.NOWHERE]),
    target=st.sampled_from([*PORTS, CABLE]),
)


def _has_sense(route: Route) -> bool:
    return route.way is not Way.OUTWARD or ":" in route.destination


tables = st.lists(routes.filter(_has_sense), max_size=5, unique_by=lambda route: route.destination)


@st.composite
def plans(draw: st.DrawFn) -> Router:
    count, ipv6 = draw(st.integers(1, 3)), draw(st.booleans())
    spans = list(IPv4Network("10.0.0.0/16").subnets(new_prefix=20))
    inner = list(IPv6Network("2001:db8:ec00:100::/60").subnets(new_prefix=64))
    segments = tuple(
        Segment(
            name=SEGMENTS[number],
            cidr=str(spans[number]),
            gateway=str(spans[number][1]),
            ipv6_cidr=str(inner[number]) if ipv6 else "",
            table=draw(st.sampled_from(["", *TABLES])),
            acl=draw(st.sampled_from(["", "acl-1"])),
        )
        for number in range(count)
    )
    ports = []
    for number, name in enumerate(PORTS[: draw(st.integers(0, 5))]):
        segment = draw(st.sampled_from(segments))
        own = IPv4Network(segment.cidr)
        address = str(own[10 + number])
        ports.append(
            Port(
                name=name,
                segment=segment.name,
                mac=f"02:00:00:00:00:{draw(st.integers(0, 1))}{number}",
                address=address,
                more_addresses=draw(st.sampled_from([(), (str(own[100 + number]),), (f"{own[160]}/28",)]))
                if number == 0
                else (),
                ipv6_addresses=(str(IPv6Network(segment.ipv6_cidr)[16 + number]),) if segment.ipv6_cidr else (),
                host_name=f"host-{number}",
                public=((address, f"203.0.113.{10 + number}"),) if draw(st.booleans()) else (),
                check_addresses=draw(st.booleans()),
                policies=draw(st.sampled_from([(), POLICIES[:1], POLICIES])),
                translator=draw(st.booleans()) if number >= 3 else False,
            )
        )
    return Router(
        name=NAME,
        cidrs=("10.0.0.0/16", *(["2001:db8:ec00:100::/56"] if ipv6 else [])),
        segments=segments,
        ports=tuple(ports),
        policies=tuple(
            Policy(
                name=name,
                inbound=tuple(draw(st.lists(allows, max_size=2))),
                outbound=(Allow(protocol="-1", peer_cidr=ANYWHERE),),
            )
            for name in POLICIES
        ),
        address_sets=(AddressSet(name="pl-1", addresses=("192.0.2.0/24",)),),
        acls=(
            Acl(
                name="acl-1",
                inbound=(AclRule(number=100, accept=draw(st.booleans()), protocol="-1", cidr=ANYWHERE),),
                outbound=(AclRule(number=100, accept=True, protocol="-1", cidr=ANYWHERE),),
            ),
        ),
        tables=tuple(Table(name=name, routes=tuple(draw(tables))) for name in TABLES),
        peerings=draw(st.sampled_from([(), (Peering(name=CABLE, router=PEER, their_cidrs=("10.7.0.0/16",)),)])),
        domain="ec2.internal",
        resolver=draw(st.sampled_from(["", "10.0.0.2"])),
        records=tuple(Record(name=f"{port.host_name}.ec2.internal", address=port.address) for port in ports),
        dhcp=Dhcp(servers=("10.0.0.2",)),
        uplink=draw(st.booleans()),
    )


PEER_PLAN = Router(
    name=PEER,
    cidrs=("10.7.0.0/16",),
    segments=(Segment(name="subnet-9999999999999999a", cidr="10.7.0.0/20", gateway="10.7.0.1", table="rtb-9"),),
    ports=(),
    policies=(),
    tables=(Table(name="rtb-9", routes=(Route(destination="10.0.0.0/16", way=Way.PEER, target=CABLE),)),),
    peerings=(Peering(name=CABLE, router=NAME, their_cidrs=("10.0.0.0/16",)),),
    domain="",
    resolver="",
)


# --- what is there -------------------------------------------------------------------------------------------------

_OF_THE_MOMENT = {"ifindex", "link_index", "link_netnsid", "operstate", "address", "broadcast", "link", "flags"}


def _links_and_routes() -> dict[str, Any]:
    told = {}
    for question in ("link show", "-4 rule show", "-6 rule show"):
        told[question] = json.loads(run(["ip", "-j", *question.split()]))
    for question in ("-4 route show table all", "-6 route show table all"):
        # A copy of a route in the order of its making says nothing; neither does who is a neighbour just now.
        routes = json.loads(run(["ip", "-j", *question.split()]) or "[]")
        told[question] = sorted((each for each in routes if each.get("type") != "multicast"), key=json.dumps)
    addresses = json.loads(run(["ip", "-j", "address", "show"]))
    told["addresses"] = {
        link["ifname"]: sorted(f"{each['local']}/{each['prefixlen']}" for each in link["addr_info"] if each)
        for link in addresses
    }
    told["up"] = sorted(link["ifname"] for link in addresses if "UP" in link["flags"])
    told["link show"] = sorted(
        ({key: value for key, value in each.items() if key not in _OF_THE_MOMENT} for each in told["link show"]),
        key=json.dumps,
    )
    for question in ("-4 rule show", "-6 rule show"):
        told[question] = sorted(told[question], key=json.dumps)
    for question in ("-4 route show table all", "-6 route show table all"):
        for each in told[question]:
            each["flags"] = sorted(set(each["flags"]) - {"linkdown"})
    return told


def _without_handles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_handles(each) for key, each in value.items() if key not in ("handle", "index")}
    return [_without_handles(each) for each in value] if isinstance(value, list) else value


def _rules() -> dict[str, Any]:
    """Chains in no order, and their rules in order."""
    told: dict[str, Any] = {}
    for entry in _without_handles(json.loads(run(["nft", "-j", "list", "ruleset"]))["nftables"]):
        kind, value = next(iter(entry.items()))
        if kind == "metainfo":
            continue
        if kind == "rule":
            told.setdefault(f"rules {value['family']} {value['table']} {value['chain']}", []).append(value["expr"])
            continue
        if "elem" in value:
            value["elem"] = sorted(value["elem"], key=json.dumps)
        told[f"{kind} {value['family']} {value.get('table', '')} {value['name']}"] = value
    return told


def _sysctls() -> dict[str, str]:
    found = {}
    for family in ("ipv4", "ipv6"):
        for path in sorted(Path(f"/proc/sys/net/{family}/conf").glob("*/*")):
            if path.name in (
                "proxy_arp",
                "proxy_arp_pvlan",
                "disable_ipv6",
                "forwarding",
                "send_redirects",
                "rp_filter",
            ):
                found[f"{family}/{path.parent.name}/{path.name}"] = path.read_text()
    return found


def state(network: NetnsNetwork, run_dir: Path) -> dict[str, Any]:
    def look() -> dict[str, Any]:
        return {"links": _links_and_routes(), "nft": _rules(), "sysctls": _sysctls()}

    names = sorted(name for name in os.listdir("/run/netns") if name.startswith((NAME, PEER)))
    found = {name: inside(name, look) for name in (*names, edge_name(network.deployment))}
    found["host"] = look()
    found["files"] = {
        path.name: path.read_text() for path in sorted((run_dir / NAME).iterdir()) if path.suffix != ".pid"
    }
    return found


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_the_last_plan_decides(stage: ExitStack, run_dir: Path) -> None:
    network = make_network(stage, run_dir, ipv6_range=RANGE)
    network.apply(PEER_PLAN)
    # The host speaks IPv6 with the edge from the first plan on that has it, until all are gone.
    network.apply(replace(PEER_PLAN, segments=(replace(PEER_PLAN.segments[0], ipv6_cidr="2001:db8:ec00:700::/64"),)))
    network.apply(PEER_PLAN)

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )
    @given(plans(), plans())
    def check(first: Router, second: Router) -> None:
        network.apply(first)
        network.apply(second)
        after_both = state(network, run_dir)
        network.apply(second)
        assert state(network, run_dir) == after_both
        network.remove(NAME)
        network.apply(second)
        assert state(network, run_dir) == after_both
        behind = {translator_name(NAME, port.name) for port in second.ports if port.translator}
        assert {name for name in after_both if name.startswith(f"{NAME}.")} == behind

    check()

"""From rows to a Router: what a rich VPC comes to, and what holds for any rows."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path
from pprint import pformat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.host import Allow, Peering, Rate, Record, Route, Router, Way
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import Resource
from orchestrator.model.vpc import (
    AclEntry,
    CidrAssociation,
    DhcpOptions,
    EgressOnlyInternetGateway,
    FlowLog,
    InternetGateway,
    NatGateway,
    NetworkAcl,
    NetworkInterface,
    PeeringConnection,
    PrefixEntry,
    PrefixList,
    RouteTable,
    Rule,
    SecurityGroup,
    Vpc,
    VpcEndpoint,
)
from orchestrator.model.vpc import Route as RouteRow
from orchestrator.reconcile.plan import PLUGGED, Kept, peers, plan
from tests.reconcile.rows import OWNED, Rows, group, interface, machine, peering, subnet, vpc

GOLDEN = Path(__file__).parent / "golden"
OFFICE = "198.51.100.0/24"


def rich() -> Rows:
    """Red has everything; green is its peer; blue has asked to be one."""
    red = vpc(
        "red",
        "10.0.0.0/16",
        more_cidrs=(CidrAssociation(id="vpc-cidr-assoc-1", cidr="10.9.0.0/16"),),
        ipv6_cidrs=(CidrAssociation(id="vpc-cidr-assoc-2", cidr="2001:db8:ec00::/56"),),
        enable_dns_hostnames=True,
        dhcp_options_id="dopt-red",
    )
    green = vpc("green", "10.1.0.0/16", enable_dns_hostnames=True, region="us-west-2")
    blue = vpc("blue", "10.2.0.0/16")
    front = subnet(
        "front",
        red.id,
        "10.0.1.0/24",
        ipv6_cidrs=(CidrAssociation(id="subnet-cidr-assoc-1", cidr="2001:db8:ec00:1::/64"),),
    )
    back, empty = subnet("back", red.id, "10.9.1.0/24"), subnet("empty", red.id, "10.0.3.0/24")
    far, near = subnet("far", green.id, "10.1.1.0/24"), subnet("near", blue.id, "10.2.1.0/24")
    web = group(
        "web",
        red.id,
        Rule(id="sgr-1", egress=False, protocol="tcp", from_port=80, to_port=80, cidr_ipv4="0.0.0.0/0"),
        Rule(id="sgr-2", egress=False, protocol="tcp", from_port=80, to_port=80, cidr_ipv6="::/0"),
        Rule(id="sgr-3", egress=True, protocol="-1", cidr_ipv4="0.0.0.0/0"),
    )
    db = group(
        "db",
        red.id,
        Rule(id="sgr-4", egress=False, protocol="tcp", from_port=5432, to_port=5432, group_id=web.id),
        Rule(id="sgr-5", egress=False, protocol="udp", from_port=53, to_port=53, prefix_list_id="pl-offices"),
        Rule(
            id="sgr-6", egress=False, protocol="icmp", from_port=8, to_port=-1, group_id="sg-peers", peering_id="pcx-1"
        ),
        Rule(id="sgr-7", egress=False, protocol="-1", group_id="sg-suitors"),
        Rule(id="sgr-8", egress=False, protocol="-1", group_id="sg-named"),
        Rule(id="sgr-9", egress=False, protocol="-1", group_id="sg-gone"),
    )
    router_box, router_eni = machine("router", back, "10.9.1.7", "sg-web", source_dest_check=False)
    web_box, web_eni = machine(
        "web",
        front,
        "10.0.1.10",
        "sg-web",
        "sg-gone",
        more_private_ips=("10.0.1.11", "10.0.1.12"),
        prefixes=("10.0.1.32/28",),
        ipv6_addresses=("2001:db8:ec00:1::10",),
        public_ip="203.0.113.10",
        host_name_type="resource-name",
        resource_name_a=True,
        resource_name_aaaa=True,
    )
    peer_box, peer_eni = machine(
        "peer", far, "10.1.1.5", "sg-peers", more_private_ips=("10.1.1.6",), public_ip="203.0.113.50"
    )
    return Rows(
        red,
        green,
        blue,
        *(front, back, empty, far, near),
        *(web, db),
        group("idle", red.id),
        group("named", red.id, Rule(id="sgr-10", egress=False, protocol="-1", group_id="sg-idle")),
        group("peers", green.id),
        group("suitors", blue.id),
        *(router_box, router_eni, web_box, web_eni, peer_box, peer_eni),
        interface("web2", back, "10.9.1.8", "sg-db", "sg-web", instance_id=web_box.id, device_index=1),
        *machine("db", back, "10.9.1.9", "sg-db", instance_type="t3.micro"),
        *machine("off", empty, "10.0.3.9", "sg-idle", state=State.STOPPED),
        *machine("suitor", near, "10.2.1.5", "sg-suitors"),
        interface("loose", back, "10.9.1.20", "sg-idle"),
        interface("nat", front, "10.0.1.200", interface_type="nat_gateway", requester_id="amazon-nat"),
        interface("nat-new", front, "10.0.1.201", interface_type="nat_gateway"),
        NatGateway(id="nat-1", vpc_id=red.id, subnet_id=front.id, state="available", interface_id="eni-nat", **OWNED),
        NatGateway(id="nat-2", vpc_id=red.id, subnet_id=front.id, state="pending", interface_id="eni-nat-new", **OWNED),
        *(
            ElasticIp(id=f"eipalloc-{name}", public_ip=public, interface_id=eni, private_ip=private, **OWNED)
            for name, public, eni, private in (
                ("1", "203.0.113.20", "eni-web", "10.0.1.12"),
                ("2", "203.0.113.21", "eni-nat", "10.0.1.200"),
                ("3", "203.0.113.22", "", ""),
            )
        ),
        InternetGateway(id="igw-red", vpc_id=red.id, **OWNED),
        InternetGateway(id="igw-loose", **OWNED),
        EgressOnlyInternetGateway(id="eigw-red", vpc_id=red.id, **OWNED),
        peering("1", red.id, green.id, allow_dns=True),
        peering("2", blue.id, red.id, state="pending-acceptance"),
        VpcEndpoint(id="vpce-s3", vpc_id=red.id, service="com.amazonaws.us-east-1.s3", **OWNED),
        *(
            PrefixList(
                id=f"pl-{name}",
                name=name,
                family="IPv4",
                max_entries=5,
                entries=tuple(PrefixEntry(cidr=cidr) for cidr in cidrs),
                **OWNED,
            )
            for name, cidrs in (("offices", (OFFICE, "192.0.2.0/25")), ("s3", ("192.0.2.0/24",)))
        ),
        RouteTable(
            id="rtb-main",
            vpc_id=red.id,
            main_association_id="rtbassoc-0",
            routes=(
                RouteRow(destination="10.0.0.0/16", target="local"),
                RouteRow(destination="0.0.0.0/0", target="nat-1"),
                RouteRow(destination="10.1.0.0/16", target="pcx-1"),
                RouteRow(destination="10.2.0.0/16", target="pcx-2"),
                RouteRow(destination="172.16.0.0/12", target="eni-router"),
                RouteRow(destination="2001:db8::/32", target="eni-router"),
                RouteRow(destination="::/0", target="eigw-red"),
                RouteRow(destination="pl-s3", target="vpce-s3"),
            ),
            **OWNED,
        ),
        RouteTable(
            id="rtb-front",
            vpc_id=red.id,
            associations={"rtbassoc-1": front.id},
            routes=(
                RouteRow(destination="10.0.0.0/16", target="local"),
                RouteRow(destination="pl-offices", target="nat-2"),
                RouteRow(destination="198.51.100.0/24", target="igw-red"),
                RouteRow(destination="0.0.0.0/0", target="igw-red"),
                RouteRow(destination="::/0", target="igw-red"),
                RouteRow(destination="10.8.0.0/16", target="igw-loose"),
                RouteRow(destination="10.7.0.0/16", target="eni-off"),
                RouteRow(destination="pl-gone", target="igw-red"),
            ),
            **OWNED,
        ),
        RouteTable(id="rtb-unused", vpc_id=red.id, associations={"rtbassoc-2": empty.id}, **OWNED),
        NetworkAcl(
            id="acl-default",
            vpc_id=red.id,
            is_default=True,
            entries=tuple(
                AclEntry(number=number, egress=egress, protocol="-1", action=action, cidr="0.0.0.0/0")
                for egress in (False, True)
                for number, action in ((100, "allow"), (32767, "deny"))
            ),
            associations={"aclassoc-1": back.id},
            **OWNED,
        ),
        NetworkAcl(
            id="acl-front",
            vpc_id=red.id,
            entries=(
                AclEntry(number=200, egress=False, protocol="-1", action="allow", cidr="0.0.0.0/0"),
                AclEntry(number=201, egress=False, protocol="-1", action="allow", cidr_ipv6="::/0"),
                AclEntry(
                    number=90,
                    egress=False,
                    protocol="6",
                    action="deny",
                    cidr="198.51.100.0/24",
                    from_port=22,
                    to_port=22,
                ),
                AclEntry(number=100, egress=True, protocol="-1", action="allow", cidr="0.0.0.0/0"),
                AclEntry(number=32767, egress=True, protocol="-1", action="deny", cidr="0.0.0.0/0"),
            ),
            associations={"aclassoc-2": front.id},
            **OWNED,
        ),
        DhcpOptions(
            id="dopt-red",
            options={
                "domain-name": ("example.com",),
                "domain-name-servers": ("AmazonProvidedDNS", "10.0.0.99"),
                "ntp-servers": ("169.254.169.123",),
                "netbios-name-servers": ("10.0.0.98",),
                "netbios-node-type": ("2",),
                "ipv6-address-preferred-lease-time": ("140",),
            },
            **OWNED,
        ),
        FlowLog(id="fl-1", resource_id=back.id, traffic="ALL", **OWNED),
        FlowLog(id="fl-2", resource_id="eni-nat", traffic="REJECT", **OWNED),
    )


def planned(rows: Rows, vpc_id: str = "vpc-red") -> Router:
    found = plan(rows, vpc_id)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["red", "green", "blue"])
def test_a_rich_vpc_comes_to_what_it_should(name: str) -> None:
    """Regenerate with ORC_REGENERATE=1, and read what changed."""
    text = f"{pformat(planned(rich(), f'vpc-{name}'), width=120)}\n"
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("ORC_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {"red", "green", "blue"}


# --- parts, each with what it is about -------------------------------------------------------------------------------


def test_segments_are_those_in_use_with_their_table_and_acl() -> None:
    router = planned(rich())
    assert [(each.name, each.gateway, each.table, each.acl) for each in router.segments] == [
        ("subnet-back", "10.9.1.1", "rtb-main", ""),
        ("subnet-front", "10.0.1.1", "rtb-front", "acl-front"),
    ]
    assert [table.name for table in router.tables] == ["rtb-front", "rtb-main"]
    assert [(rule.number, rule.protocol, rule.accept) for rule in router.acls[0].inbound] == [
        (90, "tcp", False),
        (200, "-1", True),
        (201, "-1", True),
    ]


def test_an_acl_that_lets_ipv4_pass_is_not_open_where_there_is_ipv6() -> None:
    rows = rich()
    acl = rows.get(NetworkAcl, "acl-default")
    assert acl is not None
    rows.put(replace(acl, associations={"aclassoc-1": "subnet-front"}))
    assert planned(rows).segments[1].acl == "acl-default"
    more = tuple(
        AclEntry(number=101, egress=egress, protocol="-1", action="allow", cidr_ipv6="::/0") for egress in (False, True)
    )
    rows.put(replace(acl, associations={"aclassoc-1": "subnet-front"}, entries=acl.entries + more))
    rows.delete(rows.all(NetworkAcl, vpc_id="vpc-red")[1])
    assert planned(rows).segments[1].acl == ""


def test_a_route_leads_where_its_target_is() -> None:
    tables = {table.name: table.routes for table in planned(rich()).tables}
    assert tables["rtb-main"] == (
        Route(destination="0.0.0.0/0", way=Way.PORT, target="eni-nat"),
        Route(destination="10.1.0.0/16", way=Way.PEER, target="pcx-1"),
        Route(destination="10.2.0.0/16", way=Way.NOWHERE),
        Route(destination="172.16.0.0/12", way=Way.PORT, target="eni-router"),
        Route(destination="192.0.2.0/24", way=Way.NOWHERE),
        Route(destination="2001:db8::/32", way=Way.NOWHERE),
        Route(destination="::/0", way=Way.OUTWARD),
    )
    assert tables["rtb-front"] == (
        Route(destination="0.0.0.0/0", way=Way.UPLINK),
        Route(destination="10.7.0.0/16", way=Way.NOWHERE),
        Route(destination="10.8.0.0/16", way=Way.NOWHERE),
        Route(destination="192.0.2.0/25", way=Way.NOWHERE),
        Route(destination="198.51.100.0/24", way=Way.UPLINK),
        Route(destination="::/0", way=Way.UPLINK),
    )


def test_policies_are_those_of_ports_and_those_that_they_name() -> None:
    router = planned(rich())
    assert [policy.name for policy in router.policies] == ["sg-db", "sg-named", "sg-web"]
    db, named, _ = router.policies
    assert db.inbound == (
        Allow(protocol="tcp", from_port=5432, to_port=5432, peer_policy="sg-web"),
        Allow(protocol="udp", from_port=53, to_port=53, peer_set="pl-offices"),
        Allow(protocol="icmp", from_port=8, to_port=-1, peer_set="sg-peers"),
        Allow(protocol="-1", peer_policy="sg-named"),
    )
    assert named.inbound == ()
    assert {each.name: each.addresses for each in router.address_sets} == {
        "pl-offices": ("192.0.2.0/25", "198.51.100.0/24"),
        "sg-peers": ("10.1.1.5", "10.1.1.6"),
    }


def test_bandwidth_is_the_instances_and_shared_by_its_interfaces() -> None:
    rates = {port.name: port.rate for port in planned(rich()).ports}
    assert rates["eni-router"] == Rate(
        baseline_bps=750_000_000, peak_bps=10_000_000_000, credit_bytes=(4 << 30) - 1
    )  # m5.large: 0.75 Gbit/s, bursts to 10
    assert rates["eni-web"] == Rate(
        baseline_bps=375_000_000, peak_bps=10_000_000_000, credit_bytes=((4 << 30) - 1) // 2
    )
    assert rates["eni-web2"] == rates["eni-web"]
    assert rates["eni-nat"] is None


def test_a_peering_is_there_while_both_sides_are() -> None:
    rows = rich()
    assert planned(rows).peerings == (Peering(name="pcx-1", router="vpc-green", their_cidrs=("10.1.0.0/16",)),)
    [theirs] = planned(rows, "vpc-green").peerings
    assert (theirs.name, theirs.router) == ("pcx-1", "vpc-red")
    assert theirs.their_cidrs == ("10.0.0.0/16", "10.9.0.0/16", "2001:db8:ec00::/56")
    box, _ = machine("peer", subnet("far", "vpc-green", "10.1.1.0/24"), "10.1.1.5", state=State.STOPPED)
    rows.put(box)
    assert plan(rows, "vpc-green") is None
    router = planned(rows)
    assert router.peerings == ()
    assert Route(destination="10.1.0.0/16", way=Way.NOWHERE) in router.tables[1].routes
    assert {each.name: each.addresses for each in router.address_sets}["sg-peers"] == ()


def test_a_peered_group_counts_only_over_an_active_peering_of_the_rules() -> None:
    rows = rich()
    ended = rows.get(PeeringConnection, "pcx-1")
    assert ended is not None
    rows.put(replace(ended, state="deleted"))
    router = planned(rows)
    assert [each.name for each in router.address_sets] == ["pl-offices"]
    assert all(allow.peer_set != "sg-peers" for policy in router.policies for allow in policy.inbound)
    rows.put(replace(ended, id="pcx-3"))
    assert [each.name for each in planned(rows).address_sets] == ["pl-offices"]


def test_names_follow_the_attributes_of_vpc_subnet_and_peering() -> None:
    rows = rich()
    names = [(record.name, record.address) for record in planned(rows).records]
    assert names[0] == ("instance-data.ec2.internal", "169.254.169.254")
    for expected in (
        ("ip-10-0-1-12.ec2.internal", "10.0.1.12"),
        ("i-web.ec2.internal", "10.0.1.10"),
        ("i-web.ec2.internal", "2001:db8:ec00:1::10"),
        ("ec2-203-0-113-20.compute-1.amazonaws.com", "10.0.1.12"),
        ("ec2-203-0-113-21.compute-1.amazonaws.com", "10.0.1.200"),
        ("ec2-203-0-113-50.us-west-2.compute.amazonaws.com", "10.1.1.5"),
    ):
        assert expected in names
    red = rows.get(Vpc, "vpc-red")
    assert red is not None
    rows.put(replace(red, enable_dns_hostnames=False), peering("1", "vpc-red", "vpc-green"))
    assert not [record for record in planned(rows).records if record.name.endswith("amazonaws.com")]
    rows.put(replace(red, enable_dns_support=False))
    router = planned(rows)
    assert (router.resolver, router.records, router.dhcp.servers) == ("", (), ("10.0.0.99",))


def test_names_for_dhcp_are_as_many_as_one_option_holds() -> None:
    """dnsmasq takes no longer one, and would not run: neither would its guests have anything else of it."""
    rows = rich()
    red = rows.get(Vpc, "vpc-red")
    assert red is not None
    options = {"domain-name": (" ".join(["example.com"] * 22),)}
    rows.put(DhcpOptions(id="dopt-long", account=red.account, created=red.created, options=options))
    rows.put(replace(red, dhcp_options_id="dopt-long"))
    assert planned(rows).dhcp.domain == " ".join(["example.com"] * 21)


def test_an_elastic_ip_resolves_back_to_the_name_that_its_owner_chose() -> None:
    rows = rich()
    address = rows.get(ElasticIp, "eipalloc-1")
    assert address is not None
    rows.put(replace(address, domain_name="mail.example.com."))
    assert Record(name="mail.example.com", address="203.0.113.20") in planned(rows).records


def test_without_an_internet_gateway_nothing_is_public() -> None:
    rows = rich()
    [gateway] = rows.all(InternetGateway, vpc_id="vpc-red")
    rows.delete(gateway)
    router = planned(rows)
    assert router.uplink  # IPv6 still has its way out
    assert all(port.public == () for port in router.ports)
    [way_out] = rows.all(EgressOnlyInternetGateway, vpc_id="vpc-red")
    rows.delete(way_out)
    assert not planned(rows).uplink


def test_nat_gateways_alone_are_not_on_the_host() -> None:
    rows = rich()
    for name, where in (("web", "front"), ("router", "back"), ("db", "back")):
        box, _ = machine(name, subnet(where, "vpc-red", "10.0.1.0/24"), "10.0.1.10", state=State.STOPPED)
        rows.put(box)
    assert plan(rows, "vpc-red") is None


def test_who_depends_on_whom() -> None:
    rows = rich()
    assert [peers(rows, f"vpc-{name}") for name in ("red", "green", "blue")] == [["vpc-green"], ["vpc-red"], []]


# --- any rows --------------------------------------------------------------------------------------------------------


def coherent(router: Router) -> None:
    """Everything that is named is there, and nothing is there twice."""
    segments, ports = {each.name for each in router.segments}, {each.name for each in router.ports}
    policies, sets = {each.name for each in router.policies}, {each.name for each in router.address_sets}
    tables, acls = {each.name for each in router.tables}, {each.name for each in router.acls}
    peerings = {each.name for each in router.peerings}
    for things in (router.segments, router.ports, router.policies, router.address_sets, router.tables, router.acls):
        names = [each.name for each in things]
        assert names == sorted(set(names))
    assert {port.segment for port in router.ports} == segments
    assert {segment.table for segment in router.segments} - {""} == tables
    assert {segment.acl for segment in router.segments} - {""} == acls
    assert router.name not in {each.router for each in router.peerings}
    for port in router.ports:
        assert set(port.policies) <= policies
        assert {private for private, _ in port.public} <= {port.address, *port.more_addresses}
        assert not (port.translator and (port.policies or port.rate or port.check_addresses))
    for policy in router.policies:
        for allow in (*policy.inbound, *policy.outbound):
            assert [bool(allow.peer_cidr), bool(allow.peer_policy), bool(allow.peer_set)].count(True) == 1
            assert not allow.peer_policy or allow.peer_policy in policies
            assert not allow.peer_set or allow.peer_set in sets
    for table in router.tables:
        destinations = [route.destination for route in table.routes]
        assert destinations == sorted(set(destinations))
        for route in table.routes:
            assert bool(route.target) is (route.way in (Way.PORT, Way.PEER))
            assert route.way is not Way.PORT or route.target in ports
            assert route.way is not Way.PEER or route.target in peerings
            assert route.way is not Way.OUTWARD or ":" in route.destination
            assert route.way not in (Way.UPLINK, Way.OUTWARD) or router.uplink
            assert not route.destination.startswith("pl-")
    for acl in router.acls:
        for rules in (acl.inbound, acl.outbound):
            assert [rule.number for rule in rules] == sorted(rule.number for rule in rules)
    addresses = {record.address for record in router.records}
    assert all({private for private, _ in port.public} <= addresses for port in router.ports) or not router.resolver


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_rows_come_to_a_plan_that_names_only_what_is_there(data: st.DataObject) -> None:
    """The rich rows, of which some are gone, some refer to others, and all come in any order."""
    rows = rich().everything()
    gone = data.draw(st.sets(st.sampled_from(range(len(rows))), max_size=12))
    kept = [_disturbed(data, row) for number, row in enumerate(rows) if number not in gone]
    shuffled = list(kept)
    random.Random(data.draw(st.integers(0, 1000))).shuffle(shuffled)
    for name in ("red", "green", "blue"):
        router = plan(Rows(*kept), f"vpc-{name}")
        assert router == plan(Rows(*shuffled), f"vpc-{name}")
        if router is not None:
            coherent(router)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_is_kept_of_a_plan_changes_nothing_of_the_next_one(data: st.DataObject) -> None:
    first = rich().everything()
    kept = {name: Kept() for name in ("red", "green", "blue")}
    for _ in range(3):
        gone = data.draw(st.sets(st.sampled_from(range(len(first))), max_size=6))
        rows = Rows(*(_disturbed(data, row) for number, row in enumerate(first) if number not in gone))
        for name, last in kept.items():
            assert plan(rows, f"vpc-{name}", last) == plan(rows, f"vpc-{name}")


def test_a_gateway_that_goes_takes_public_addresses_along_from_ports_that_are_kept() -> None:
    rows, kept = rich(), Kept()
    before = plan(rows, "vpc-red", kept)
    assert before is not None and any(port.public for port in before.ports)
    [gateway] = rows.all(InternetGateway, vpc_id="vpc-red")
    rows.delete(gateway)
    after = plan(rows, "vpc-red", kept)
    assert after == plan(rows, "vpc-red")
    assert after is not None and not any(port.public for port in after.ports)


def test_ports_whose_rows_are_as_they_were_are_used_again() -> None:
    rows, kept = rich(), Kept()
    before = plan(rows, "vpc-red", kept)
    web = rows.get(NetworkInterface, "eni-web")
    assert before is not None and web is not None
    rows.put(replace(web, source_dest_check=False))
    after = plan(rows, "vpc-red", kept)
    assert after is not None
    same = [one.name for one, other in zip(before.ports, after.ports, strict=True) if one is other]
    assert same == [port.name for port in before.ports if port.name != "eni-web"]


def _disturbed(data: st.DataObject, row: Resource) -> Any:
    if data.draw(st.integers(0, 3)) != 0:
        return row
    match row:
        case Instance():
            return replace(row, state=data.draw(st.sampled_from(State)))
        case NetworkInterface():
            groups = data.draw(st.lists(st.sampled_from(["sg-web", "sg-db", "sg-gone"]), unique=True))
            return replace(row, groups=tuple(groups), source_dest_check=data.draw(st.booleans()))
        case NatGateway():
            return replace(row, state=data.draw(st.sampled_from(["pending", "available", "deleting", "deleted"])))
        case PeeringConnection():
            return replace(row, state=data.draw(st.sampled_from(["active", "deleted", "pending-acceptance"])))
        case RouteTable():
            targets = ["igw-red", "eigw-red", "nat-1", "eni-web", "eni-loose", "pcx-1", "vpce-s3", "lgw-1"]
            places = ["0.0.0.0/0", "::/0", "10.9.1.0/24", "pl-offices", "pl-s3"]
            route = RouteRow(destination=data.draw(st.sampled_from(places)), target=data.draw(st.sampled_from(targets)))
            return replace(row, routes=(*row.routes, route))
        case SecurityGroup():
            peer = data.draw(st.sampled_from(["sg-web", "sg-peers", "sg-idle", "sg-suitors", "sg-none"]))
            return replace(row, rules=(*row.rules, Rule(id="sgr-x", egress=True, protocol="-1", group_id=peer)))
        case ElasticIp():
            return replace(row, interface_id="eni-db", private_ip=data.draw(st.sampled_from(["10.9.1.9", "1.2.3.4"])))
    return row


def test_states_in_which_a_machine_is_plugged_in() -> None:
    assert set(State) - PLUGGED == {State.STOPPED, State.TERMINATED}


def _sources(number: int, each: int) -> list[dict[str, Any]]:
    return [{"cidr_ipv4": f"10.{each}.0.0/16"}, {"group_id": f"sg-{(number + each) % 100:03}"}]


def test_a_thousand_interfaces_and_a_hundred_groups_are_quick() -> None:
    big = vpc("big", "10.0.0.0/16")
    subnets = [subnet(f"{number:02}", big.id, f"10.0.{number * 4}.0/22") for number in range(4)]
    groups = [
        group(
            f"{number:03}",
            big.id,
            *(
                Rule(id=f"sgr-{number}-{each}", egress=False, protocol="tcp", from_port=each, to_port=each, **source)
                for each in range(20)
                for source in _sources(number, each)
            ),
        )
        for number in range(100)
    ]
    rows = Rows(big, *subnets, *groups)
    for number in range(1000):
        address = f"10.0.{(number // 250) * 4 + 1}.{number % 250 + 1}"
        joined = (f"sg-{number % 100:03}", f"sg-{(number * 7 + 1) % 100:03}")
        rows.put(*machine(f"{number:04}", subnets[number // 250], address, *joined))
    took_s = []
    for _ in range(3):
        began = time.process_time()
        router = planned(rows, big.id)
        took_s.append(time.process_time() - began)
    assert (len(router.ports), len(router.policies)) == (1000, 100)
    assert Record(name="ip-10-0-1-1.ec2.internal", address="10.0.1.1") in router.records
    assert min(took_s) < 0.2

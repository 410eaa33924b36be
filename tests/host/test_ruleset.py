"""What nftables and dnsmasq are told, against files that people have read, and nftables also against the kernel.

`ORC_REGENERATE=1 pytest tests/host/test_ruleset.py` writes the files anew.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestrator.host import (
    Acl,
    AclRule,
    AddressSet,
    Allow,
    Flow,
    HostError,
    Peering,
    Policy,
    Port,
    Record,
    Route,
    Router,
    Segment,
    Table,
    Way,
    dnsmasq,
    ruleset,
)
from orchestrator.host.command import inside, run
from orchestrator.host.links import bridge_name, leg_mac, plug_name, tap_name, uplink_name
from orchestrator.host.nft import Ruleset, Set, difference
from orchestrator.host.nft_tables import Tables, _generation
from orchestrator.host.policies import lets_all_pass

GOLDEN = Path(__file__).parent / "golden" / "network"
PUBLIC = IPv4Network("203.0.113.0/24")
PUBLIC6 = IPv6Network("fd00:ec3::/48")
DIRECTORY = Path("/run/orchestrator/vpc-0a1b2c3d4e5f60718")
DEPLOYMENT = "0f3c5a7e"

WEB, DATABASE, SPARE = "sg-0aaaaaaaaaaaaaaaa", "sg-0dddddddddddddddd", "sg-0eeeeeeeeeeeeeeee"
LIST = "pl-0123456789abcdef0"
OPEN_ACL, CLOSED_ACL = "acl-0aaaaaaaaaaaaaaaa", "acl-0cccccccccccccccc"
TO_BOTH, TO_OUTSIDE = "rtb-0bbbbbbbbbbbbbbbb", "rtb-0eeeeeeeeeeeeeeee"
ANYWHERE, ANYWHERE6 = "0.0.0.0/0", "::/0"


def port(number: int, segment: str, policies: tuple[str, ...], **changes: object) -> Port:
    address = f"172.31.{16 * (segment[-1] == 'b')}.{number}"
    values: dict[str, object] = {
        "name": f"eni-{number:02d}0123456789abcde",
        "segment": segment,
        "mac": f"02:00:00:00:00:{number:02X}",
        "address": address,
        "host_name": "ip-" + address.replace(".", "-"),
        "policies": policies,
    }
    return Port(**{**values, **changes})  # type: ignore[arg-type]


FRONT, BACK = "subnet-0123456789abcdefa", "subnet-0abcdef0123456789b"
ROUTER = Router(
    name="vpc-0a1b2c3d4e5f60718",
    cidrs=("172.31.0.0/16",),
    segments=(
        Segment(name=FRONT, cidr="172.31.0.0/20", gateway="172.31.0.1"),
        Segment(name=BACK, cidr="172.31.16.0/20", gateway="172.31.16.1"),
    ),
    ports=(
        port(10, FRONT, (WEB,), public=(("172.31.0.10", "203.0.113.10"),)),
        port(11, FRONT, (WEB, DATABASE), public=(("172.31.0.11", "203.0.113.11"),)),
        port(12, BACK, (DATABASE,)),
        port(13, BACK, ()),
    ),
    policies=(
        Policy(
            name=WEB,
            inbound=(
                Allow(protocol="tcp", from_port=22, to_port=22, peer_cidr="203.0.113.0/25"),
                Allow(protocol="tcp", from_port=22, to_port=22, peer_cidr="203.0.113.128/25"),
                Allow(protocol="tcp", from_port=22, to_port=22, peer_cidr="10.1.2.3/8"),
                Allow(protocol="6", from_port=80, to_port=443, peer_cidr="10.0.0.0/8"),
                Allow(protocol="tcp", from_port=80, to_port=443, peer_cidr=ANYWHERE),
                Allow(protocol="icmp", from_port=8, to_port=-1, peer_cidr=ANYWHERE),
                Allow(protocol="icmp", from_port=3, to_port=4, peer_cidr=ANYWHERE),
                Allow(protocol="47", peer_policy=SPARE),
                Allow(protocol="-1", peer_policy=WEB),
            ),
            outbound=(Allow(protocol="-1", peer_cidr=ANYWHERE),),
        ),
        Policy(
            name=DATABASE,
            inbound=(
                Allow(protocol="tcp", from_port=5432, to_port=5432, peer_policy=WEB),
                Allow(protocol="tcp", from_port=5432, to_port=5432, peer_policy=DATABASE),
                Allow(protocol="udp", from_port=0, to_port=65535, peer_policy="sg-0ffffffffffffffff"),
            ),
            outbound=(Allow(protocol="udp", peer_cidr="172.31.0.0/16"),),
        ),
        Policy(name=SPARE, inbound=(), outbound=(Allow(protocol="icmp", peer_cidr=ANYWHERE),)),
    ),
    domain="ec2.internal",
    resolver="172.31.0.2",
    records=(
        Record(name="ip-172-31-0-10.ec2.internal", address="172.31.0.10"),
        Record(name="ec2-203-0-113-10.compute-1.amazonaws.com", address="172.31.0.10"),
    ),
)
PRIVATE = replace(ROUTER, uplink=False, resolver="", ports=(), policies=())
ALL_PASS = (
    AclRule(number=100, accept=True, protocol="-1", cidr=ANYWHERE),
    AclRule(number=101, accept=True, protocol="-1", cidr=ANYWHERE6),
)
FULL = replace(
    ROUTER,
    cidrs=("172.31.0.0/16", "100.64.0.0/16", "fd00:ec3:0:100::/56"),
    segments=(
        Segment(
            name=FRONT,
            cidr="172.31.0.0/20",
            gateway="172.31.0.1",
            ipv6_cidr="fd00:ec3:0:100::/64",
            table=TO_BOTH,
            acl=OPEN_ACL,
        ),
        Segment(
            name=BACK,
            cidr="172.31.16.0/20",
            gateway="172.31.16.1",
            ipv6_cidr="fd00:ec3:0:101::/64",
            table=TO_OUTSIDE,
            acl=CLOSED_ACL,
        ),
    ),
    ports=(
        port(
            10,
            FRONT,
            (WEB,),
            public=(("172.31.0.10", "203.0.113.10"), ("172.31.0.20", "203.0.113.20")),
            more_addresses=("172.31.0.20", "172.31.0.32/28"),
            ipv6_addresses=("fd00:ec3:0:100::10",),
            log=True,
        ),
        port(12, BACK, (DATABASE,), ipv6_addresses=("FD00:EC3:0:101:0:0:0:12",)),
        port(13, BACK, (WEB, DATABASE), check_addresses=False),
        port(14, FRONT, (), translator=True, public=(("172.31.0.14", "203.0.113.14"),)),
    ),
    policies=(
        *ROUTER.policies,
        Policy(
            name="sg-06666666666666666",
            inbound=(
                Allow(protocol="icmpv6", peer_cidr=ANYWHERE6),
                Allow(protocol="tcp", from_port=443, to_port=443, peer_cidr=ANYWHERE),
                Allow(protocol="tcp", from_port=443, to_port=443, peer_cidr=ANYWHERE6),
                Allow(protocol="udp", from_port=53, to_port=53, peer_set=LIST),
                Allow(protocol="udp", from_port=53, to_port=53, peer_cidr="2001:db8::/32"),
                Allow(protocol="udp", from_port=54, to_port=54, peer_set="pl-0ffffffffffffffff"),
            ),
            outbound=(Allow(protocol="-1", peer_cidr=ANYWHERE), Allow(protocol="-1", peer_cidr=ANYWHERE6)),
        ),
    ),
    address_sets=(AddressSet(name=LIST, addresses=("10.0.0.0/9", "10.128.0.0/9", "192.0.2.7/32", "2001:db8:1::/48")),),
    acls=(
        Acl(name=OPEN_ACL, inbound=ALL_PASS, outbound=ALL_PASS),
        Acl(
            name=CLOSED_ACL,
            inbound=(
                AclRule(number=200, accept=True, protocol="-1", cidr=ANYWHERE),
                AclRule(number=90, accept=False, protocol="tcp", cidr="172.31.0.10/32", from_port=22, to_port=22),
                AclRule(number=91, accept=False, protocol="icmp", cidr=ANYWHERE, from_port=8, to_port=-1),
                AclRule(number=92, accept=False, protocol="icmp", cidr=ANYWHERE, from_port=3, to_port=1),
                AclRule(number=93, accept=True, protocol="udp", cidr="2001:db8::/32", from_port=1024, to_port=65535),
            ),
            outbound=(
                AclRule(number=1, accept=True, protocol="47", cidr="10.0.0.0/8"),
                AclRule(number=2, accept=True, protocol="-1", cidr=ANYWHERE),
            ),
        ),
    ),
    tables=(
        Table(
            name=TO_BOTH,
            routes=(
                Route(destination=ANYWHERE, way=Way.UPLINK),
                Route(destination=ANYWHERE6, way=Way.UPLINK),
                Route(destination="8000::/1", way=Way.OUTWARD),
            ),
        ),
        Table(name=TO_OUTSIDE, routes=(Route(destination=ANYWHERE6, way=Way.OUTWARD),)),
    ),
    peerings=(
        Peering(
            name="pcx-0123456789abcdef0", router="vpc-0b", their_cidrs=("10.0.0.0/16", "10.1.0.0/16", "fd00:1::/56")
        ),
    ),
)


def guard_of(*plans: Router) -> Ruleset:
    shares = {plan.name: ruleset.guard_elements(DEPLOYMENT, plan) for plan in plans}
    return ruleset.guard(DEPLOYMENT, {name: ruleset.read_share(share) for name, share in shares.items()})


def configuration(router: Router, upstream: str = "") -> str:
    return dnsmasq.configuration(router, DIRECTORY, user="dnsmasq", upstream=upstream)


RULESETS: dict[str, Callable[[], Ruleset]] = {
    "guard.nft": lambda: guard_of(FULL),
    "guard-empty.nft": guard_of,
    "router.nft": lambda: ruleset.router(ROUTER),
    "router-full.nft": lambda: ruleset.router(FULL),
    "router-private.nft": lambda: ruleset.router(PRIVATE),
    "edge.nft": lambda: ruleset.edge(PUBLIC, egress=False),
    "edge-egress.nft": lambda: ruleset.edge(PUBLIC, egress=True, ipv6_range=PUBLIC6),
    "edge-lan.nft": lambda: ruleset.edge(PUBLIC, egress=False, ipv6_range=PUBLIC6, lan=True),
    "host-egress.nft": lambda: ruleset.host(DEPLOYMENT, PUBLIC),
    "translator.nft": lambda: ruleset.translator(FULL.ports[-1]),
}
DNSMASQ: dict[str, Callable[[], str]] = {
    "dnsmasq.conf": lambda: configuration(ROUTER),
    "dnsmasq-egress.conf": lambda: configuration(ROUTER, "203.0.113.1"),
    "dnsmasq-without-dns.conf": lambda: configuration(PRIVATE),
    "forwarder.conf": lambda: dnsmasq.forwarder("203.0.113.1", DIRECTORY, user="dnsmasq"),
    "hosts": lambda: dnsmasq.hosts(ROUTER),
    "names": lambda: dnsmasq.names(ROUTER),
}
TEXTS = (*RULESETS, *DNSMASQ)


def test_who_has_no_public_address_has_no_chains_that_translate() -> None:
    hidden = replace(ROUTER, ports=tuple(replace(each, public=()) for each in ROUTER.ports))
    assert "type nat hook" in ruleset.router(ROUTER).text()
    assert "type nat hook" not in ruleset.router(hidden).text()


def test_public_addresses_have_names_whosever_they_are() -> None:
    named = replace(ROUTER, public_name="ec2-{}.compute-1.amazonaws.com")
    text = dnsmasq.configuration(named, DIRECTORY, user="dnsmasq", upstream="", public_range=PUBLIC)
    assert f"synth-domain=compute-1.amazonaws.com,{PUBLIC},ec2-" in text.splitlines()
    silent = dnsmasq.configuration(
        replace(PRIVATE, public_name=named.public_name), DIRECTORY, user="dnsmasq", upstream="", public_range=PUBLIC
    )
    assert "synth-domain" not in silent


def text_of(name: str) -> str:
    return RULESETS[name]().text() if name in RULESETS else DNSMASQ[name]()


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_as_it_was_read(name: str) -> None:
    text, path = text_of(name), GOLDEN / name
    if os.environ.get("ORC_REGENERATE"):
        GOLDEN.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(TEXTS)


@pytest.mark.host
@pytest.mark.parametrize("name", RULESETS)
def test_nft_takes_it(name: str) -> None:
    text = text_of(name)
    checked = subprocess.run(
        ["unshare", "--net", "nft", "--check", "-f", "-"], input=text, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.host
@pytest.mark.parametrize("name", [name for name in DNSMASQ if name.endswith(".conf")])
def test_dnsmasq_takes_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text_of(name))
    command = ["dnsmasq", "--test", f"--conf-file={tmp_path / name}"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


# --- as a value ----------------------------------------------------------------------------------------------------


def test_order_of_ports_and_policies_changes_nothing() -> None:
    turned = replace(
        FULL,
        ports=FULL.ports[::-1],
        policies=FULL.policies[::-1],
        segments=FULL.segments[::-1],
        acls=FULL.acls[::-1],
        tables=FULL.tables[::-1],
    )
    assert ruleset.router(turned).text() == ruleset.router(FULL).text()
    assert ruleset.guard_elements(DEPLOYMENT, turned) == ruleset.guard_elements(DEPLOYMENT, FULL)


def test_the_difference_of_what_is_alike_is_nothing() -> None:
    assert difference(ruleset.router(FULL), ruleset.router(FULL)) == ""


def test_a_member_that_leaves_touches_elements_only() -> None:
    less = replace(ROUTER, ports=(replace(ROUTER.ports[0], policies=(SPARE,)), *ROUTER.ports[1:]))
    text = difference(ruleset.router(ROUTER), ruleset.router(less))
    assert text and all(re.match("(add|delete) element ", line) for line in text.splitlines()), text


def test_the_guards_of_two_routers_are_one() -> None:
    other = replace(ROUTER, name="vpc-0b", ports=(port(40, BACK, ()),))
    both, one = guard_of(FULL, other), guard_of(FULL)
    assert both.elements("ports") - one.elements("ports") == {'"eni-40012345678"'}
    assert guard_of(other, FULL) == both


def test_a_share_of_an_earlier_version_can_be_read() -> None:
    share = (
        'add element bridge orc_0f3c5a7e ports { "eni-1", "eni-2" }\n'
        'add element bridge orc_0f3c5a7e addresses { "eni-1" . 10.0.0.4, "eni-2" . 10.0.0.5 }\n'
        'add element bridge orc_0f3c5a7e claims { "eni-1" . 02:00:00:00:00:0a . 10.0.0.4 }\n'
    )
    assert ruleset.read_share(share) == {
        "ports": {'"eni-1"', '"eni-2"'},
        "addresses": {'"eni-1" . 10.0.0.4', '"eni-2" . 10.0.0.5'},
    }


@pytest.mark.parametrize("share", ["ports", "add element bridge orc_0f3c5a7e strangers { 1 }", "{}"])
def test_a_share_that_is_none_is_an_error(share: str) -> None:
    with pytest.raises(HostError, match="no line of a router's share"):
        ruleset.read_share(share)


def test_the_link_local_address_follows_from_the_hardware_address() -> None:
    assert ruleset.link_local("02:00:00:00:00:0A") == "fe80::ff:fe00:a"
    assert ruleset.link_local("00:25:96:12:34:56") == "fe80::225:96ff:fe12:3456"  # RFC 4291, appendix A, in kind


# --- policies ------------------------------------------------------------------------------------------------------


def inbound(*rules: Allow) -> Ruleset:
    sets = (AddressSet(name=LIST, addresses=("10.9.0.0/16", "2001:db8::/32")),)
    return ruleset.router(replace(FULL, policies=(Policy(name=WEB, inbound=rules, outbound=()),), address_sets=sets))


@pytest.mark.parametrize(
    ("rule", "lines"),
    [
        (Allow(protocol="-1", peer_cidr=ANYWHERE), ["meta nfproto ipv4 goto arrived"]),
        (Allow(protocol="-1", peer_cidr="10.1.2.3/8"), ["ip saddr { 10.0.0.0/8 } goto arrived"]),
        (
            Allow(protocol="-1", peer_policy=WEB),
            [f"{f} saddr @members{f[2:]}-{WEB} goto arrived" for f in ("ip", "ip6")],
        ),
        (
            Allow(protocol="-1", peer_set=LIST),
            [f"{f} saddr @addresses{f[2:]}-{LIST} goto arrived" for f in ("ip", "ip6")],
        ),
        (Allow(protocol="-1", peer_policy="sg-unknown"), []),
    ],
)
def test_who_may_do_everything(rule: Allow, lines: list[str]) -> None:
    assert inbound(rule).chains[f"in-{WEB}"] == tuple(lines)


def test_neighbouring_ranges_of_the_same_peers_are_one() -> None:
    rules = [Allow(protocol="tcp", from_port=at, to_port=at + 9, peer_cidr=ANYWHERE) for at in (10, 20, 25)]
    (line,) = inbound(*rules).chains[f"in-{WEB}-tcp"]
    assert re.fullmatch(r"tcp dport vmap \{ 10-34 : goto from-\w+ \}", line)


@pytest.mark.parametrize("protocol", ["sctp", "256", "", "-2", "6; accept"])
def test_a_protocol_that_is_none_is_refused(protocol: str) -> None:
    with pytest.raises(HostError, match="must be tcp, udp, icmp") as refused:
        inbound(Allow(protocol=protocol, peer_cidr=ANYWHERE))
    assert not refused.value.retryable


MEMBERS = {"172.31.0.10", "172.31.0.20", "172.31.16.13", "fd00:ec3:0:100::10"}  # of WEB in FULL, without the range
SOURCES = (*sorted(MEMBERS), "172.31.0.40", "10.9.0.1", "10.8.0.1", "192.0.2.1", "2001:db8::1", "fd00::1")

allows = st.builds(
    lambda protocol, first, length, peer: Allow(
        protocol=protocol,
        from_port=first if protocol in ("tcp", "17", "icmp", "58") else -1,
        to_port=(first + length if protocol in ("tcp", "17") else length) if first != -1 else -1,
        **peer,
    ),
    st.sampled_from(["tcp", "17", "icmp", "58", "47", "-1"]),
    st.integers(-1, 12),
    st.integers(-1, 6).filter(lambda length: length != 0) | st.just(0),
    st.sampled_from(
        [
            {"peer_cidr": cidr}
            for cidr in (ANYWHERE, ANYWHERE6, "10.8.0.0/15", "10.9.0.0/16", "192.0.2.1/32", "2001:db8::/33")
        ]
        + [{"peer_policy": WEB}, {"peer_policy": "sg-unknown"}, {"peer_set": LIST}]
    ),
).filter(lambda rule: rule.protocol not in ("tcp", "17") or rule.from_port == -1 or rule.to_port >= rule.from_port)


@given(st.lists(allows, max_size=7), st.data())
def test_a_policy_lets_in_what_one_of_its_rules_names_and_nothing_else(rules: list[Allow], data: st.DataObject) -> None:
    compiled = inbound(*rules)
    for source in SOURCES:
        protocols = [6, 17, 47, 1 if "." in source else 58]
        protocol = data.draw(st.sampled_from(protocols))
        first, second = data.draw(st.integers(0, 14)), data.draw(st.integers(0, 7))
        wanted = any(names(rule, protocol, first, second, source) for rule in rules)
        assert follow(compiled, f"in-{WEB}", protocol, first, second, source) == wanted, (
            source,
            protocol,
            first,
            second,
        )


def names(rule: Allow, protocol: int, first: int, second: int, source: str) -> bool:
    """Whether a rule names a packet: to port `first`, or of ICMP type `first` and code `second`."""
    number = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}.get(rule.protocol) or int(rule.protocol)
    if number not in (-1, protocol):
        return False
    if number in (6, 17) and rule.from_port != -1 and not rule.from_port <= first <= rule.to_port:
        return False
    if number in (1, 58) and rule.from_port != -1 and (rule.from_port != first or rule.to_port not in (-1, second)):
        return False
    address = ip_address(source)
    if rule.peer_cidr:
        return address in ip_network(rule.peer_cidr, strict=False)
    if rule.peer_policy:
        return rule.peer_policy == WEB and (source in MEMBERS or address in IPv4Network("172.31.0.32/28"))
    return address in ip_network("10.9.0.0/16") or address in ip_network("2001:db8::/32")


def follow(rules: Ruleset, chain: str, protocol: int, first: int, second: int, source: str) -> bool:
    """Whether a packet gets to `arrived`: what the kernel would do with these few kinds of rules."""
    for line in rules.chains[chain]:
        verdict = verdict_of(rules, line, protocol, first, second, source)
        if verdict is not None:
            target = verdict.removeprefix("goto ")
            return target == "arrived" or follow(rules, target, protocol, first, second, source)
    return False


def verdict_of(rules: Ruleset, line: str, protocol: int, first: int, second: int, source: str) -> str | None:
    family = "ip" if "." in source else "ip6"
    if line.startswith("goto "):
        return line
    if match := re.fullmatch(r"meta nfproto ipv([46]) (goto .+)", line):
        return match[2] if (match[1] == "4") == (family == "ip") else None
    if match := re.fullmatch(r"(ip6?) saddr (?:\{ (.+) \}|@(\S+)) (goto .+)", line):
        listed = match[2].split(", ") if match[2] else rules.sets[match[3]].elements
        inside = match[1] == family and any(ip_address(source) in ip_network(each) for each in listed)
        return match[4] if inside else None
    match = re.fullmatch(r"(.+) vmap \{ (.+) \}", line)
    assert match, line
    key = {"meta l4proto": (protocol,), "tcp dport": (first,), "udp dport": (first,)}.get(match[1], (first, second))
    found = []
    for element in match[2].split(", "):
        spans, _, verdict = element.partition(" : ")
        bounds = [span.split("-") for span in spans.split(" . ")]
        if all(int(low[0]) <= number <= int(low[-1]) for low, number in zip(bounds, key, strict=True)):
            found.append(verdict)
    assert len(found) < 2, f"{line} is not disjoint"
    return found[0] if found else None


# --- access lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "families", "passes"),
    [
        (ALL_PASS, ("ip", "ip6"), True),
        (ALL_PASS[:1], ("ip",), True),
        (ALL_PASS[:1], ("ip", "ip6"), False),
        ((), ("ip",), False),
        ((AclRule(number=1, accept=False, protocol="tcp", cidr=ANYWHERE), *ALL_PASS), ("ip",), False),
        ((AclRule(number=1, accept=False, protocol="tcp", cidr=ANYWHERE6), *ALL_PASS), ("ip",), True),
        ((*ALL_PASS, AclRule(number=200, accept=False, protocol="tcp", cidr=ANYWHERE)), ("ip", "ip6"), True),
        ((AclRule(number=1, accept=True, protocol="tcp", cidr=ANYWHERE), *ALL_PASS), ("ip",), True),
        ((AclRule(number=1, accept=True, protocol="-1", cidr="10.0.0.0/8"),), ("ip",), False),
    ],
)
def test_a_list_that_lets_all_pass_is_known(
    rules: tuple[AclRule, ...], families: tuple[str, ...], passes: bool
) -> None:
    assert lets_all_pass(rules, families) is passes


def test_a_list_that_lets_all_pass_costs_nothing() -> None:
    acls = (Acl(name=OPEN_ACL, inbound=ALL_PASS, outbound=ALL_PASS),)
    listed = replace(ROUTER, segments=tuple(replace(each, acl=OPEN_ACL) for each in ROUTER.segments), acls=acls)
    assert ruleset.router(listed) == ruleset.router(ROUTER)


def test_the_inward_ranges_are_those_whose_longest_route_works_both_ways() -> None:
    assert ruleset.router(FULL).chains[f"inward-{TO_BOTH}"] == ("ip6 saddr { ::/1 } goto arrive",)
    assert f"inward-{TO_OUTSIDE}" not in ruleset.router(FULL).chains


# --- flows ---------------------------------------------------------------------------------------------------------


def listing(name: str, *elements: tuple[list[object], int, int]) -> str:
    told = [
        {"elem": {"val": {"concat": key}, "expires": 899, "counter": {"packets": packets, "bytes": octets}}}
        for key, packets, octets in elements
    ]
    head = {"family": "inet", "name": name, "table": "orc", "handle": 4, "flags": ["timeout"], "timeout": 900}
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {**head, "elem": told}}]})


def test_flows_are_read_back() -> None:
    assert ruleset.flow_sets(ROUTER) == ()
    assert {"sent-accepted-tcp4", "received-refused-other6"} <= set(ruleset.flow_sets(FULL))
    own = 0xAC1F000A  # 172.31.0.10
    found = ruleset.read_flows(
        FULL,
        [
            listing("sent-accepted-tcp4", ([own, "172.31.0.10", "192.0.2.1", 40000, 443], 5, 900)),
            listing("received-refused-other6", ([own, "2001:db8::1", "fd00:ec3:0:100::10", 58], 1, 104)),
            listing("received-accepted-udp4", ([1, "192.0.2.1", "10.0.0.1", 53, 53], 1, 80)),  # a port that has gone
            json.dumps({"nftables": [{"set": {"name": "sent-refused-tcp4"}}]}),  # an empty one
        ],
    )
    name = FULL.ports[0].name
    tcp = {"source_port": 40000, "destination_port": 443, "packets": 5, "octets": 900}
    ping = {"source_port": 0, "destination_port": 0, "packets": 1, "octets": 104}
    assert found == [
        Flow(port=name, outbound=True, accepted=True, protocol=6, source="172.31.0.10", destination="192.0.2.1", **tcp),
        Flow(
            port=name,
            outbound=False,
            accepted=False,
            protocol=58,
            source="2001:db8::1",
            destination="fd00:ec3:0:100::10",
            **ping,
        ),
    ]


# --- the kernel ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"orctest-{secrets.token_hex(4)}"
    run(["ip", "netns", "add", name])
    yield name
    run(["ip", "netns", "delete", name])


def loaded() -> object:
    """All tables of this namespace: what does not depend on how they came to be."""
    told: list[dict[str, Any]] = json.loads(run(["nft", "-n", "-j", "list", "ruleset"]))["nftables"]
    items = [canonical(each) for each in told if "metainfo" not in each]
    rules = [each for each in items if "rule" in each]
    rules.sort(key=lambda each: (each["rule"]["family"], each["rule"]["chain"]))  # stable: their order is their meaning
    rest = sorted((each for each in items if "rule" not in each), key=lambda each: json.dumps(each, sort_keys=True))
    return rest, rules


def canonical(told: Any) -> Any:
    if isinstance(told, dict):
        return {
            key: sorted((canonical(each) for each in value), key=json.dumps)
            if key in ("elem", "set") and isinstance(value, list)
            else canonical(value)
            for key, value in told.items()
            if key not in ("handle", "expires", "packets", "bytes")
        }
    return [canonical(each) for each in told] if isinstance(told, list) else told


@st.composite
def plans(draw: st.DrawFn) -> Router:
    names = (WEB, DATABASE, SPARE)
    some = st.lists(st.sampled_from(names), unique=True, max_size=3).map(tuple)
    ipv6 = draw(st.booleans())
    ports = []
    for number in draw(st.lists(st.integers(10, 16), unique=True, max_size=4)):
        segment = draw(st.sampled_from([FRONT, BACK]))
        made = port(number, segment, draw(some))
        changes: dict[str, object] = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "more_addresses": st.sampled_from([(f"172.31.1.{number}",), (f"172.31.2.{(number - 9) * 16}/28",)]),
                    "check_addresses": st.just(False),
                    "translator": st.just(True),
                    "log": st.just(True),
                    "public": st.just(((made.address, f"203.0.113.{number}"),)),
                },
            )
        )
        changes["ipv6_addresses"] = (f"fd00:ec3:0:100::{number}",) if ipv6 and draw(st.booleans()) else ()
        ports.append(replace(made, **changes))  # type: ignore[arg-type]
    rules = st.lists(allows, max_size=3).map(tuple)
    policies = [Policy(name=name, inbound=draw(rules), outbound=draw(rules)) for name in draw(some)]
    acl = Acl(name=CLOSED_ACL, inbound=draw(st.sampled_from([ALL_PASS, FULL.acls[1].inbound])), outbound=ALL_PASS)
    addresses = draw(st.sampled_from([FULL.address_sets[0].addresses, ("10.0.0.0/8", "10.9.0.0/16"), ("10.0.0.0/9",)]))
    return replace(
        FULL,
        segments=tuple(replace(each, ipv6_cidr=each.ipv6_cidr if ipv6 else "") for each in FULL.segments),
        ports=tuple(ports),
        policies=tuple(policies),
        address_sets=(AddressSet(name=LIST, addresses=addresses),),
        acls=(acl,),
        peerings=FULL.peerings if draw(st.booleans()) else (),
        uplink=draw(st.booleans()),
    )


@pytest.mark.host
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans(), plans())
@example(ROUTER, FULL)
@example(FULL, ROUTER)
@example(FULL, PRIVATE)
def test_a_difference_leads_where_the_whole_leads(namespace: str, old: Router, new: Router) -> None:
    def compare() -> None:
        tables = Tables()
        for step in (old, new, new):
            before = _generation()
            tables.load(namespace, ruleset.router(step))
            tables.load(namespace, guard_of(step))
            changed = _generation() != before
        assert not changed, "the same again has changed something"
        by_difference = loaded()
        run(["nft", "flush", "ruleset"])
        run(["nft", "-f", "-"], ruleset.router(new).text() + guard_of(new).text())
        assert loaded() == by_difference
        run(["nft", "flush", "ruleset"])

    inside(namespace, compare)


COUNTED = Ruleset(
    "inet",
    "t",
    {
        "ports": Set("inet_service", frozenset({"22"})),
        "seen": Set("inet_service", flags="dynamic,timeout", settings=("timeout 1h", "size 9", "counter")),
    },
    {"on_output": ("type filter hook output priority filter; policy accept;", "update @seen { tcp dport }")},
)


@pytest.fixture
def stage(namespace: str) -> Iterator[Tables]:
    tables = Tables()
    inside(namespace, lambda: tables.load(namespace, COUNTED))
    yield tables
    inside(namespace, lambda: run(["nft", "flush", "ruleset"]))


def seen() -> bool:
    return "elements = { 7" in run(["nft", "list", "set", "inet", "t", "seen"])


def see() -> None:
    """A packet fills the set: nothing that nftables is told."""
    run(["ip", "link", "set", "lo", "up"])
    with socket.socket() as client:
        client.connect_ex(("127.0.0.1", 7))
    assert seen()


def with_ports(*ports: str) -> Ruleset:
    return replace(COUNTED, sets={**COUNTED.sets, "ports": Set("inet_service", frozenset(ports))})


@pytest.mark.host
def test_what_packets_have_put_into_a_set_lives_on(namespace: str, stage: Tables) -> None:
    def check() -> None:
        see()
        stage.load(namespace, with_ports("22", "80"))
        assert seen() and "80" in run(["nft", "list", "set", "inet", "t", "ports"])
        run(["nft", "add", "table", "ip", "stranger"])  # a change that is no business of ours
        stage.load(namespace, with_ports("443"))
        assert seen() and "443" in run(["nft", "list", "set", "inet", "t", "ports"])

    inside(namespace, check)


@pytest.mark.host
@pytest.mark.parametrize(
    "by_hand",
    [
        "flush table inet t",
        "delete table inet t",
        "delete element inet t ports { 22 }",
        "add element inet t ports { 23 }",
        "add rule inet t on_output accept",
        "flush ruleset",
    ],
)
def test_what_somebody_has_changed_by_hand_is_put_right(namespace: str, stage: Tables, by_hand: str) -> None:
    def check() -> None:
        before = loaded()
        run(["nft", by_hand])
        stage.load(namespace, COUNTED)
        assert loaded() == before
        run(["nft", by_hand])
        stage.load(namespace, with_ports("80"))
        run(["nft", "-f", "-"], with_ports("22").text())
        assert loaded() == before

    inside(namespace, check)


@pytest.mark.host
def test_a_large_table_that_was_changed_by_hand_is_put_right(namespace: str) -> None:
    large = Ruleset("inet", "l", {}, {f"c{number}": ("accept",) for number in range(600)})

    def check() -> None:
        tables = Tables()
        tables.load(namespace, large)
        before = loaded()
        run(["nft", "flush chain inet l c5"])  # before anybody has listed it
        tables.load(namespace, large)
        assert loaded() == before
        tables.load(namespace, large)
        run(["nft", "flush chain inet l c5"])  # after
        tables.load(namespace, large)
        assert loaded() == before
        tables.drop(namespace, large.key)

    inside(namespace, check)


def test_names_fit_and_follow_from_ids() -> None:
    segment = "subnet-0123456789abcdef0"
    assert (bridge_name(segment), plug_name(segment)) == ("sn-0123456789ab", "sl-0123456789ab")
    assert tap_name("eni-0123456789abcdef0") == "eni-0123456789a"
    assert uplink_name("vpc-0123456789abcdef0") == "vpc-0123456789a"
    assert leg_mac(segment) == leg_mac(segment) != leg_mac("subnet-0123456789abcdef1")
    assert int(leg_mac(segment)[:2], 16) & 0b11 == 0b10  # unicast, locally administered

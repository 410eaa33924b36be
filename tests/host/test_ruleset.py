"""What nftables and dnsmasq are told, against files that people have read.

`ORC_REGENERATE=1 pytest tests/host/test_ruleset.py` writes them anew.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.host import Allow, HostError, Policy, Port, Router, Segment, dnsmasq, ruleset
from orchestrator.host.links import bridge_name, leg_mac, plug_name, tap_name, uplink_name

GOLDEN = Path(__file__).parent / "golden" / "network"
PUBLIC = IPv4Network("203.0.113.0/24")
DIRECTORY = Path("/run/orchestrator/vpc-0a1b2c3d4e5f60718")

WEB, DATABASE, SPARE = "sg-0aaaaaaaaaaaaaaaa", "sg-0dddddddddddddddd", "sg-0eeeeeeeeeeeeeeee"
ANYWHERE = "0.0.0.0/0"


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
    cidr="172.31.0.0/16",
    segments=(
        Segment(name=FRONT, cidr="172.31.0.0/20", gateway="172.31.0.1"),
        Segment(name=BACK, cidr="172.31.16.0/20", gateway="172.31.16.1"),
    ),
    ports=(
        port(10, FRONT, (WEB,), public_address="203.0.113.10", public_name="ec2-203-0-113-10.compute-1.amazonaws.com"),
        port(11, FRONT, (WEB, DATABASE), public_address="203.0.113.11"),
        port(12, BACK, (DATABASE,)),
        port(13, BACK, (), check_addresses=False),
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
)
PRIVATE = replace(ROUTER, uplink=False, resolver="", ports=(), policies=())


def guard_text() -> str:
    return ruleset.guard("0f3c5a7e", [ruleset.guard_elements("0f3c5a7e", ROUTER)])


def configuration(router: Router, upstream: str = "") -> str:
    return dnsmasq.configuration(router, DIRECTORY, user="dnsmasq", upstream=upstream)


TEXTS: dict[str, Callable[[], str]] = {
    "guard.nft": guard_text,
    "guard-empty.nft": lambda: ruleset.guard("0f3c5a7e", []),
    "router.nft": lambda: ruleset.router(ROUTER),
    "router-private.nft": lambda: ruleset.router(PRIVATE),
    "edge.nft": lambda: ruleset.edge(PUBLIC, egress=False),
    "edge-egress.nft": lambda: ruleset.edge(PUBLIC, egress=True),
    "host-egress.nft": lambda: ruleset.host("0f3c5a7e", PUBLIC),
    "dnsmasq.conf": lambda: configuration(ROUTER),
    "dnsmasq-egress.conf": lambda: configuration(ROUTER, "203.0.113.1"),
    "dnsmasq-without-dns.conf": lambda: configuration(PRIVATE),
    "forwarder.conf": lambda: dnsmasq.forwarder("203.0.113.1", DIRECTORY, user="dnsmasq"),
    "hosts": lambda: dnsmasq.hosts(ROUTER),
    "names": lambda: dnsmasq.names(ROUTER),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_as_it_was_read(name: str) -> None:
    text, path = TEXTS[name](), GOLDEN / name
    if os.environ.get("ORC_REGENERATE"):
        GOLDEN.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(TEXTS)


@pytest.mark.host
@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith(".nft")])
def test_nft_takes_it(name: str) -> None:
    text = TEXTS[name]()
    checked = subprocess.run(
        ["unshare", "--net", "nft", "--check", "-f", "-"], input=text, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.host
@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith(".conf")])
def test_dnsmasq_takes_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TEXTS[name]())
    command = ["dnsmasq", "--test", f"--conf-file={tmp_path / name}"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_order_of_ports_and_policies_changes_nothing() -> None:
    turned = replace(ROUTER, ports=ROUTER.ports[::-1], policies=ROUTER.policies[::-1], segments=ROUTER.segments[::-1])
    assert ruleset.router(turned) == ruleset.router(ROUTER)
    assert ruleset.guard_elements("0f3c5a7e", turned) == ruleset.guard_elements("0f3c5a7e", ROUTER)
    assert dnsmasq.hosts(turned) == dnsmasq.hosts(ROUTER)
    assert dnsmasq.names(turned) == dnsmasq.names(ROUTER)


def rules_of(text: str, chain: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    start = lines.index(f"chain {chain} {{")
    return lines[start + 1 : lines.index("}", start)]


def inbound(*rules: Allow) -> list[str]:
    router = replace(ROUTER, policies=(Policy(name=WEB, inbound=rules, outbound=()),))
    return rules_of(ruleset.router(router), f"in-{WEB}")


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (Allow(protocol="-1", peer_cidr=ANYWHERE), "meta nfproto ipv4"),
        (Allow(protocol="tcp", from_port=22, to_port=22, peer_cidr=ANYWHERE), "tcp dport 22"),
        (Allow(protocol="udp", from_port=0, to_port=0, peer_cidr=ANYWHERE), "udp dport 0"),
        (Allow(protocol="17", from_port=5, to_port=9, peer_cidr=ANYWHERE), "udp dport 5-9"),
        (Allow(protocol="tcp", peer_cidr=ANYWHERE), "ip protocol tcp"),
        (Allow(protocol="tcp", from_port=0, to_port=65535, peer_cidr=ANYWHERE), "ip protocol tcp"),
        (Allow(protocol="icmp", peer_cidr=ANYWHERE), "ip protocol icmp"),
        (Allow(protocol="1", from_port=8, to_port=-1, peer_cidr=ANYWHERE), "icmp type 8"),
        (Allow(protocol="icmp", from_port=3, to_port=0, peer_cidr=ANYWHERE), "icmp type 3 icmp code 0"),
        (Allow(protocol="50", peer_cidr=ANYWHERE), "ip protocol 50"),
    ],
)
def test_a_rule_matches_what_it_says(rule: Allow, match: str) -> None:
    assert inbound(rule) == [f"{match} accept"]


@pytest.mark.parametrize("protocol", ["sctp", "256", "", "-2", "6; accept"])
def test_a_protocol_that_is_none_is_refused(protocol: str) -> None:
    with pytest.raises(HostError, match="must be tcp, udp, icmp") as refused:
        inbound(Allow(protocol=protocol, peer_cidr=ANYWHERE))
    assert not refused.value.retryable


@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)).map(lambda pair: IPv4Network(pair, strict=False)),
        min_size=1,
        max_size=12,
    )
)
def test_peers_are_merged_without_overlaps_and_lose_nobody(networks: list[IPv4Network]) -> None:
    rules = [Allow(protocol="udp", from_port=7, to_port=7, peer_cidr=str(network)) for network in networks]
    (rule,) = inbound(*rules)
    if rule == "udp dport 7 accept":
        merged = [IPv4Network(ANYWHERE)]
    else:
        listed = rule.partition("{")[2].partition("}")[0].split(",")
        merged = [IPv4Network(text.strip()) for text in listed]
    assert not any(one.overlaps(other) for one in merged for other in merged if one is not other)
    assert all(any(network.subnet_of(one) for one in merged) for network in networks)
    assert sum(one.num_addresses for one in merged) <= sum(network.num_addresses for network in networks)


def test_names_fit_and_follow_from_ids() -> None:
    segment = "subnet-0123456789abcdef0"
    assert (bridge_name(segment), plug_name(segment)) == ("sn-0123456789ab", "sl-0123456789ab")
    assert tap_name("eni-0123456789abcdef0") == "eni-0123456789a"
    assert uplink_name("vpc-0123456789abcdef0") == "vpc-0123456789a"
    assert leg_mac(segment) == leg_mac(segment) != leg_mac("subnet-0123456789abcdef1")
    assert int(leg_mac(segment)[:2], 16) & 0b11 == 0b10  # unicast, locally administered

"""What checks make of the host's networks, its kernel and its firewalls."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from orchestrator.host import bpf, claims, network_checks, ranges
from orchestrator.host.findings import Expectation, Standing
from tests.host.answers import Answers

# --- networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routes", "standing", "word"),
    [
        ([], Standing.OK, "free"),
        ([{"dst": "default", "dev": "eth0"}], Standing.OK, "free"),
        ([{"dst": "203.0.113.0/24", "dev": "orc-0a1b2c3d"}], Standing.OK, "free"),
        ([{"dst": "203.0.113.0/24", "dev": "orc-ffffffff"}], Standing.FAILURE, "another deployment"),
        ([{"dst": "203.0.113.128/25", "dev": "eth1"}], Standing.FAILURE, "eth1"),
        ([{"dst": "203.0.112.0/22", "dev": "wg0"}], Standing.FAILURE, "wg0"),
        ([{"type": "local", "dst": "203.0.113.7", "dev": "eth1"}], Standing.FAILURE, "eth1"),
        ([{"type": "broadcast", "dst": "203.0.113.255", "dev": "eth1"}], Standing.OK, "free"),
        ([{"type": "unreachable", "dst": "203.0.113.0/24"}], Standing.FAILURE, "203.0.113.0/24"),
        ([{"dst": "172.31.16.0/20", "dev": "eth0"}], Standing.WARNING, "172.31.16.0/20"),
    ],
)
def test_ranges_that_clash(
    ip_answers: Callable[[str], None],
    expected: Expectation,
    routes: list[dict[str, str]],
    standing: Standing,
    word: str,
) -> None:
    ip_answers(json.dumps(routes))
    finding = network_checks.check_ranges(expected)
    assert finding.standing is standing
    assert word in finding.text


@pytest.fixture
def ip_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """What `ip` prints; nothing that the host talks to is in any range."""
    monkeypatch.setattr(ranges, "_needed_addresses", dict)
    monkeypatch.setattr(claims, "PLACE", tmp_path / "ranges")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def answer(text: str) -> None:
        (tmp_path / "answer").write_text(text)
        (tmp_path / "ip").write_text(f"#!/bin/sh\ncat {tmp_path}/answer\n")
        (tmp_path / "ip").chmod(0o755)

    return answer


def test_routes_that_cannot_be_read_are_no_crash(ip_answers: Callable[[str], None], expected: Expectation) -> None:
    ip_answers("not JSON")
    assert network_checks.check_ranges(expected).standing is Standing.FAILURE


def test_a_range_that_holds_what_the_host_talks_to(
    monkeypatch: pytest.MonkeyPatch, ip_answers: Callable[[str], None], expected: Expectation
) -> None:
    ip_answers("[]")
    monkeypatch.setattr(ranges, "_needed_addresses", lambda: {IPv4Address("203.0.113.53"): "a name server"})
    finding = network_checks.check_ranges(expected)
    assert finding.standing is Standing.FAILURE and "a name server" in finding.text
    assert str(ranges.choose()) == "198.51.100.0/24"


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("nameserver 192.0.2.53", "192.0.2.53"),
        ("nameserver\t192.0.2.53 # the router", "192.0.2.53"),
        ("nameserver 127.1", "127.0.0.1"),
        ("nameserver 010.0.0.1", "8.0.0.1"),
        ("nameserver 1.2.3.4.5", None),
        ("nameserver 256.0.0.1", None),
        ("nameserver ...", None),
        ("nameserver fe80::1%eth0", None),
        ("nameserver", None),
        ("# nameserver 192.0.2.53", None),
    ],
)
def test_name_servers_are_read_as_the_c_library_reads_them(
    monkeypatch: pytest.MonkeyPatch, line: str, known: str | None
) -> None:
    text = f"search example.org\n{line}\nnameserver 198.51.100.53\n"
    monkeypatch.setattr(ranges, "_text", lambda path: text if path == Path("/etc/resolv.conf") else "")
    monkeypatch.setattr(ranges, "_ARCHIVES", ())
    found = {str(address) for address in ranges._needed_addresses()}
    assert found == {"198.51.100.53", *([known] if known else [])}


def test_an_archive_whose_name_is_none_is_left_out() -> None:
    found: dict[IPv4Address, str] = {}
    ranges._resolve("mirror..example.org", found)
    assert found == {}


def chains(*rows: tuple[str, str, str, str]) -> tuple[int, str]:
    entries = [
        {"chain": {"family": family, "table": table, "name": name, "hook": "forward", "policy": policy}}
        for family, table, name, policy in rows
    ]
    return 0, json.dumps(
        {"nftables": [{"metainfo": {}}, {"chain": {"family": "ip", "table": "x", "name": "y"}}, *entries]}
    )


DOCKER: Answers = {
    "nft -j list chains": chains(("ip", "filter", "FORWARD", "drop")),
    "iptables -S DOCKER-USER": (0, "-N DOCKER-USER"),
    "iptables -C": (1, ""),
}


def test_no_shortcuts(
    monkeypatch: pytest.MonkeyPatch,
    host_says: Callable[[Answers], list[str]],
    expected: Expectation,
    tmp_path: Path,
) -> None:
    host_says({})
    monkeypatch.setattr(bpf, "attached", lambda link: [])
    assert network_checks.check_shortcuts(expected).standing is Standing.OK

    def refuse(link: int) -> list[int]:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(bpf, "attached", refuse)
    finding = network_checks.check_shortcuts(expected)
    assert finding.standing is Standing.WARNING
    assert "br_netfilter" not in finding.text
    loaded = tmp_path / "bridge-nf-call-iptables"
    loaded.write_text("1\n")
    monkeypatch.setattr(network_checks, "_BRIDGED_FRAMES_SEE_IPTABLES", loaded)
    assert "br_netfilter" in network_checks.check_shortcuts(expected).text


@pytest.mark.parametrize(("known", "mend"), [("200", ()), ("201", ("net.ipv4.neigh.default.gc_thresh3=16384",))])
def test_room_for_neighbours(
    monkeypatch: pytest.MonkeyPatch, expected: Expectation, tmp_path: Path, known: str, mend: tuple[str, ...]
) -> None:
    """Places taken are told in hexadecimal digits, by processor; each line tells all of them."""
    monkeypatch.setattr(network_checks, "_NEIGHBOURS_KNOWN", str(tmp_path / "{}"))
    monkeypatch.setattr(network_checks, "_NEIGHBOURS_LIMIT", str(tmp_path / "{}"))
    (tmp_path / "arp_cache").write_text(f"entries  allocs\n{known} 00000000\n{known} 00000000\n")
    (tmp_path / "ipv4").write_text("1024\n")
    assert tuple(command[2] for command in network_checks.check_neighbours(expected).mend) == mend


def test_no_firewall(host_says: Callable[[Answers], list[str]], expected: Expectation) -> None:
    host_says({"nft -j list chains": chains(("ip", "filter", "FORWARD", "accept"))})
    assert network_checks.check_firewall(expected).standing is Standing.OK


def test_docker_drops_what_it_forwards(host_says: Callable[[Answers], list[str]], expected: Expectation) -> None:
    host_says(DOCKER)
    finding = network_checks.check_firewall(expected)
    assert finding.standing is Standing.WARNING
    assert [" ".join(command) for command in finding.mend] == [
        "iptables -I DOCKER-USER -s 203.0.113.0/24 -j ACCEPT",
        "iptables -I DOCKER-USER -d 203.0.113.0/24 -j ACCEPT",
    ]


def test_what_was_mended_is_not_mended_again(host_says: Callable[[Answers], list[str]], expected: Expectation) -> None:
    host_says({**DOCKER, "iptables -C DOCKER-USER -s 203.0.113.0/24": (0, "")})
    assert [command[3] for command in network_checks.check_firewall(expected).mend] == ["-d"]
    host_says({**DOCKER, "iptables -C": (0, "")})
    assert network_checks.check_firewall(expected).standing is Standing.OK


def test_egress_off_needs_no_firewall_to_let_guests_out(
    host_says: Callable[[Answers], list[str]], expected: Expectation
) -> None:
    host_says(DOCKER)
    closed = replace(expected, egress=False)
    assert network_checks.check_firewall(closed).standing is Standing.OK


def test_bridged_frames_that_docker_would_drop_leave_guests_without_a_network(
    monkeypatch: pytest.MonkeyPatch, host_says: Callable[[Answers], list[str]], expected: Expectation, tmp_path: Path
) -> None:
    (tmp_path / "on").write_text("1\n")
    host_says(DOCKER)
    monkeypatch.setattr(network_checks, "_BRIDGED_FRAMES_SEE_IPTABLES", tmp_path / "on")
    closed = replace(expected, egress=False)
    finding = network_checks.check_firewall(closed)
    assert finding.standing is Standing.FAILURE
    assert finding.mend == (("iptables", "-I", "DOCKER-USER", "-i", "sn-+", "-o", "sn-+", "-j", "ACCEPT"),)
    host_says({**DOCKER, "iptables -C": (0, "")})
    monkeypatch.setattr(network_checks, "_BRIDGED_FRAMES_SEE_IPTABLES", tmp_path / "on")
    assert network_checks.check_firewall(closed).standing is Standing.OK


def test_a_chain_of_the_hosts_own(host_says: Callable[[Answers], list[str]], expected: Expectation) -> None:
    listed = "chain forward { policy drop; ip saddr 203.0.113.0/24 accept }"
    host_says(
        {
            "nft -j list chains": chains(("inet", "filter", "forward", "drop")),
            "nft list chain inet filter forward": (0, listed),
        }
    )
    assert network_checks.check_firewall(expected).mend == (
        ("nft", "insert", "rule", "inet", "filter", "forward", "ip daddr 203.0.113.0/24", "accept"),
    )


def test_firewalld(host_says: Callable[[Answers], list[str]], expected: Expectation) -> None:
    firewalld: Answers = {"firewall-cmd --state": (0, "running"), "firewall-cmd --zone=trusted": (1, "no")}
    host_says(firewalld)
    assert "--add-source=203.0.113.0/24" in network_checks.check_firewall(expected).mend[0]
    host_says({**firewalld, "firewall-cmd --zone=trusted": (0, "yes")})
    assert network_checks.check_firewall(expected).standing is Standing.OK


def test_networking_names_the_part_that_does_not_work(
    host_says: Callable[[Answers], list[str]], expected: Expectation
) -> None:
    host_says(
        {
            "sh -c ip netns": (0, ""),
            "unshare": (0, ""),
            "unshare --net sh -c ip tuntap": (1, "open: No such file or directory\n"),
        }
    )
    finding = network_checks.check_networking(expected)
    assert finding.standing is Standing.FAILURE
    assert "/dev/net/tun" in finding.text and "No such file" in finding.text


@pytest.mark.host
def test_networking_works_here_and_leaves_nothing(expected: Expectation) -> None:
    before = subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout
    names = {link["ifname"] for link in json.loads(before)}
    assert network_checks.check_networking(expected).standing is Standing.OK
    left = {link["ifname"] for link in json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True).stdout)}
    assert not {name for name in left - names if name in ("b0", "v0", "v1", "t0")}
    assert not list(Path("/run/netns").glob("orc-try-*"))

"""Policies and access lists as chains.

A policy has one chain per direction, which a packet takes through two maps, whatever the number of rules:

    in-sg-1 --protocol--> in-sg-1-tcp --disjoint ranges of ports--> from-DIGEST: who may --> verdict
                    \\--> all else: who may do everything

Who may is one merged set of ranges, the members of other policies, and address sets: sets that change without a rule
being touched. What fits nowhere comes back to who jumped here. Ranges that allow the same peers share a chain, over all
policies. An access list is tried in the order of its numbers: it is short, and its order is its meaning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from itertools import pairwise

from orchestrator.host import Acl, AclRule, Allow, HostError

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58

_NAMED = {"icmp": ICMP, "tcp": TCP, "udp": UDP, "icmpv6": ICMPV6}
_WITH_PORTS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmpv6"}
_LAST_PORT = 65535

Chains = dict[str, tuple[str, ...]]
Span = tuple[int, int]  # the first and the last


def members_name(policy: str, family: str) -> str:
    return f"members{family[2:]}-{policy}"


def addresses_name(address_set: str, family: str) -> str:
    return f"addresses{family[2:]}-{address_set}"


def protocol_number(protocol: str) -> int | None:
    """None for all of them. Raises HostError for what is no protocol."""
    if protocol == "-1":
        return None
    if protocol in _NAMED:
        return _NAMED[protocol]
    if protocol.isdecimal() and protocol.isascii() and int(protocol) <= 255:
        return int(protocol)
    wanted = "must be tcp, udp, icmp, icmpv6, -1 or a number up to 255"
    raise HostError(f"protocol '{protocol}' {wanted}", retryable=False)


def merged(ranges: Iterable[str], family: str) -> list[str]:
    """Those of one family, without overlaps."""
    networks = [ip_network(each, strict=False) for each in ranges if (":" in each) == (family == "ip6")]
    collapsed: list[IPv4Network] | list[IPv6Network]
    if family == "ip":
        collapsed = sorted(collapse_addresses(each for each in networks if isinstance(each, IPv4Network)))
    else:
        collapsed = sorted(collapse_addresses(each for each in networks if isinstance(each, IPv6Network)))
    return [str(each.network_address) if each.prefixlen == each.max_prefixlen else str(each) for each in collapsed]


# --- policies ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peers:
    """Who may."""

    cidrs: frozenset[str] = frozenset()
    policies: frozenset[str] = frozenset()
    address_sets: frozenset[str] = frozenset()

    def __or__(self, other: Peers) -> Peers:
        return Peers(self.cidrs | other.cidrs, self.policies | other.policies, self.address_sets | other.address_sets)

    def __bool__(self) -> bool:
        return bool(self.cidrs or self.policies or self.address_sets)


@dataclass(frozen=True, slots=True)
class Direction:
    """How the rules of one direction are written."""

    prefix: str  # of a policy's chain
    shared: str  # of the chains that say who may
    field: str  # of the IP header, with the peer
    verdict: str
    families: tuple[str, ...]  # ip, and ip6 where there is any

    def who_may(self, peers: Peers) -> tuple[str, ...]:
        every = {family: f"{'0.0.0.0/0' if family == 'ip' else '::/0'}" for family in ("ip", "ip6")}
        ranges = {family: merged(peers.cidrs, family) for family in self.families}
        if all(ranges[family] == [every[family]] for family in self.families):
            return (self.verdict,) if len(self.families) == 2 else (f"meta nfproto ipv4 {self.verdict}",)
        lines: list[str] = []
        for family in self.families:
            if ranges[family] == [every[family]]:
                lines.append(f"meta nfproto {'ipv4' if family == 'ip' else 'ipv6'} {self.verdict}")
                continue
            match = f"{family} {self.field}"
            if ranges[family]:
                lines.append(f"{match} {{ {', '.join(ranges[family])} }} {self.verdict}")
            lines += [f"{match} @{members_name(each, family)} {self.verdict}" for each in sorted(peers.policies)]
            lines += [f"{match} @{addresses_name(each, family)} {self.verdict}" for each in sorted(peers.address_sets)]
        return tuple(lines)


def policy_chains(name: str, rules: Sequence[Allow], known: set[str], sets: set[str], direction: Direction) -> Chains:
    """The chain of one direction of the policy `name`, and those that it leads to. `known` are the policies that there
    are, `sets` the address sets."""
    chains: Chains = {}
    everything = Peers()
    spans: dict[int, list[tuple[Span, Peers]]] = {}
    for rule in rules:
        number, peers = protocol_number(rule.protocol), _peers(rule, known, sets)
        if number is None:
            everything |= peers
        elif peers:
            spans.setdefault(number, []).append((_span(number, rule.from_port, rule.to_port), peers))
    own = f"{direction.prefix}-{name}"

    def target(peers: Peers) -> str:
        lines = direction.who_may(peers)
        if lines == (direction.verdict,):
            return direction.verdict
        chain = f"{direction.shared}-{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:12]}"
        chains[chain] = lines
        return f"goto {chain}"

    targets = {}
    for number, wanted in sorted(spans.items()):
        disjoint = _disjoint([*wanted, ((0, _LAST_PORT), everything)])
        if [span for span, _ in disjoint] == [(0, _LAST_PORT)]:
            targets[number] = target(disjoint[0][1])
            continue
        chain = f"{own}-{_WITH_PORTS[number]}"
        chains[chain] = (_by_port(number, [(span, target(peers)) for span, peers in disjoint]),)
        targets[number] = f"goto {chain}"
    lines = [f"meta l4proto vmap {{ {', '.join(f'{each} : {to}' for each, to in targets.items())} }}"] * bool(targets)
    chains[own] = (*lines, *(direction.who_may(everything) if everything else ()))
    return chains


def _peers(rule: Allow, known: set[str], sets: set[str]) -> Peers:
    return Peers(
        frozenset([rule.peer_cidr] if rule.peer_cidr else []),
        frozenset([rule.peer_policy] if rule.peer_policy in known else []),
        frozenset([rule.peer_set] if rule.peer_set in sets else []),
    )


def _span(number: int, first: int, last: int) -> Span:
    """The ports; of ICMP, type and code as one number of 16 bits; 0 to 65535 where there are none."""
    if number not in _WITH_PORTS or first == -1:
        return 0, _LAST_PORT
    if number in (TCP, UDP):
        return first, first if last == -1 else last
    return (first * 256, first * 256 + 255) if last == -1 else (first * 256 + last, first * 256 + last)


def _disjoint(spans: Sequence[tuple[Span, Peers]]) -> list[tuple[Span, Peers]]:
    """The same peers for the same numbers, in spans that do not overlap; neighbours that are alike are joined."""
    edges = sorted({edge for (first, last), _ in spans for edge in (first, last + 1)})
    found: list[tuple[Span, Peers]] = []
    for first, after in pairwise(edges):
        peers = Peers()
        for (low, high), each in spans:
            if low <= first and after - 1 <= high:
                peers |= each
        if not peers:
            continue
        if found and found[-1][1] == peers and found[-1][0][1] == first - 1:
            found[-1] = ((found[-1][0][0], after - 1), peers)
        else:
            found.append(((first, after - 1), peers))
    return found


def _by_port(number: int, targets: Sequence[tuple[Span, str]]) -> str:
    word = _WITH_PORTS[number]
    if number in (TCP, UDP):
        return f"{word} dport vmap {{ {', '.join(f'{_range(*span)} : {to}' for span, to in targets)} }}"
    boxes = ((box, to) for span, to in targets for box in _boxes(*span))
    listed = ", ".join(f"{_range(*types)} . {_range(*codes)} : {to}" for (types, codes), to in boxes)
    return f"{word} type . {word} code vmap {{ {listed} }}"


def _boxes(first: int, last: int) -> list[tuple[Span, Span]]:
    """A span of types and codes as boxes of types by codes."""
    (low, from_code), (high, to_code) = divmod(first, 256), divmod(last, 256)
    if low == high:
        return [((low, low), (from_code, to_code))]
    boxes: list[tuple[Span, Span]] = []
    if from_code:
        boxes.append(((low, low), (from_code, 255)))
        low += 1
    tail = [((high, high), (0, to_code))] if to_code < 255 else []
    high -= len(tail)
    return [*boxes, *([((low, high), (0, 255))] if low <= high else []), *tail]


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


# --- access lists --------------------------------------------------------------------------------------------------


def lets_all_pass(rules: Iterable[AclRule], families: Iterable[str]) -> bool:
    """Whether no packet of these families can be refused."""
    return all(_opens([rule for rule in rules if (":" in rule.cidr) == (family == "ip6")]) for family in families)


def _opens(rules: Sequence[AclRule]) -> bool:
    for rule in sorted(rules, key=lambda rule: rule.number):
        if not rule.accept:
            return False
        if protocol_number(rule.protocol) is None and ip_network(rule.cidr, strict=False).prefixlen == 0:
            return True
    return False


def acl_chain(rules: Iterable[AclRule], *, field: str, refused: str) -> tuple[str, ...]:
    """First match wins: back to who jumped here, or `refused`."""
    lines = [
        f"{_acl_match(rule, field)} {'return' if rule.accept else refused}"
        for rule in sorted(rules, key=lambda rule: rule.number)
    ]
    return (*lines, refused)


def acl_directions(acl: Acl) -> tuple[tuple[str, str, tuple[AclRule, ...]], ...]:
    """Prefix of the chain, field of the header, and rules."""
    return ("acl-in", "saddr", acl.inbound), ("acl-out", "daddr", acl.outbound)


def _acl_match(rule: AclRule, field: str) -> str:
    family = "ip6" if ":" in rule.cidr else "ip"
    (network,) = merged([rule.cidr], family)
    anywhere = network in ("0.0.0.0/0", "::/0")
    match = f"meta nfproto {'ipv4' if family == 'ip' else 'ipv6'}" if anywhere else f"{family} {field} {network}"
    number = protocol_number(rule.protocol)
    if number is None:
        return match
    first, last = _span(number, rule.from_port, rule.to_port)
    if (first, last) == (0, _LAST_PORT):
        return f"{match} meta l4proto {number}"
    word = _WITH_PORTS[number]
    if number in (TCP, UDP):
        return f"{match} {word} dport {_range(first, last)}"
    code = "" if first != last else f" {word} code {last % 256}"
    return f"{match} {word} type {first // 256}{code}"

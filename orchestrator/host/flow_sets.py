"""Counting the flows of the ports that have `log`: sets that the packets themselves fill, in the router's table.

There is a set for each way, outcome, protocol and family, named

    {sent | received}-{accepted | refused}-{tcp | udp | other}{4 | 6}        sent-accepted-tcp4

with the key `mark . source . destination . source port . destination port`, the last two for tcp and udp only, and
`mark . source . destination . protocol` in the sets of other protocols. The mark names the port: it is its IPv4 address
as a number, the same whatever else the router has. Each element counts packets and octets of the whole IP packet since
it came into being, and goes when nothing has matched it for a quarter of an hour. (nft 1.0.6 can write keys of five
fields at most, hence so many sets.)

What the sender's policies or its segment's access list refuse is refused to the sender. What they let pass and the
receiving side refuses is accepted for the sender and refused to the receiver. This is how EC2 records flows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import product

from orchestrator.host import Flow, Port, Router
from orchestrator.host.nft import Set

IDLE = "15m"
LIMIT = 65536  # flows per set: those beyond are not counted

_PROTOCOLS = {"tcp": 6, "udp": 17, "other": 0}
_FAMILIES = {"4": ("ip", "ipv4_addr"), "6": ("ip6", "ipv6_addr")}


def mark(port: Port) -> int:
    """What a port is called in the keys."""
    return int(IPv4Address(port.address))


@dataclass(frozen=True, slots=True)
class _FlowSet:
    way: str
    outcome: str
    protocol: str
    family: str

    @property
    def name(self) -> str:
        return f"{self.way}-{self.outcome}-{self.protocol}{self.family}"

    @property
    def declaration(self) -> Set:
        _, kind = _FAMILIES[self.family]
        last = "inet_proto" if self.protocol == "other" else "inet_service . inet_service"
        return Set(
            f"mark . {kind} . {kind} . {last}",
            flags="dynamic,timeout",
            settings=(f"timeout {IDLE}", f"size {LIMIT}", "counter"),
        )

    @property
    def rule(self) -> str:
        header, _ = _FAMILIES[self.family]
        key = f"meta mark . {header} saddr . {header} daddr"
        if self.protocol == "other":
            return f"meta l4proto != {{ tcp, udp }} update @{self.name} {{ {key} . meta l4proto }}"
        ports = f"{self.protocol} sport . {self.protocol} dport"
        return f"update @{self.name} {{ {key} . {ports} }} return"


_ALL = tuple(_FlowSet(*each) for each in product(("sent", "received"), ("accepted", "refused"), _PROTOCOLS, _FAMILIES))


def declarations() -> dict[str, Set]:
    return {each.name: each.declaration for each in _ALL}


def counting_chains() -> dict[str, tuple[str, ...]]:
    """`count-sent-accepted` and so on: to be jumped to when the mark is set."""
    return {
        f"count-{way}-{outcome}": tuple(each.rule for each in _ALL if (each.way, each.outcome) == (way, outcome))
        for way, outcome in product(("sent", "received"), ("accepted", "refused"))
    }


def flow_sets(router: Router) -> tuple[str, ...]:
    """The sets that are there for a router, for `nft -n -j list set inet orc NAME`; none when no port has `log`."""
    return tuple(each.name for each in _ALL) if any(port.log for port in router.ports) else ()


def read_flows(router: Router, listings: Iterable[str]) -> list[Flow]:
    """What `nft -n -j list set` told of these sets. Elements of ports that the router does not have are left out; the
    counts are those since the element came into being."""
    names = {mark(port): port.name for port in router.ports}
    known = {each.name: each for each in _ALL}
    found = []
    for listing in listings:
        for told in json.loads(listing)["nftables"]:
            which = known.get(told.get("set", {}).get("name", ""))
            if which is not None:
                found += list(_flows(which, told["set"].get("elem", []), names))
    return sorted(found, key=_order)


def _flows(which: _FlowSet, elements: Iterable[dict[str, dict[str, object]]], names: dict[int, str]) -> Iterator[Flow]:
    for each in elements:
        element = each["elem"]
        key: list[object] = element["val"]["concat"]  # type: ignore[index]
        counter: dict[str, int] = element["counter"]  # type: ignore[assignment]
        number, source, destination, *rest = key
        ports = [int(str(port)) for port in rest] if which.protocol != "other" else [0, 0]
        if number in names:
            yield Flow(
                port=names[int(str(number))],
                outbound=which.way == "sent",
                accepted=which.outcome == "accepted",
                protocol=_PROTOCOLS[which.protocol] or int(str(rest[0])),
                source=str(source),
                source_port=ports[0],
                destination=str(destination),
                destination_port=ports[1],
                packets=counter["packets"],
                octets=counter["bytes"],
            )


def _order(flow: Flow) -> tuple[object, ...]:
    return flow.port, flow.source, flow.destination, flow.protocol, flow.source_port, flow.destination_port

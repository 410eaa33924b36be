"""Where a router sends packets: its plan becomes rules and routes, and the kernel is made equal to them.

    in by a segment's leg ---- ip rule: iif LEG -----> the table of that segment
    in by anything else ------ ip rule: not iif lo --> OWN: the router's segments, and nothing beyond
    from the router itself ---- ip rule: iif lo -----> HERE: the router's segments; and after that the uplink (main)

Rules cost each packet something, and most routers need none: where all segments have the same routes, and those lead to
the uplink, one table (main) says the same for all. What that table would let pass and OWN would not, from outside to
outside, the forward chain drops.

The table of a segment is a whole answer, and so is OWN: it ends in a default route, if only one that drops, so that no
lookup goes on to the next rule. Nothing hangs on the routes that the kernel makes for addresses: they may be lost when
those are not. The number of a table follows from its name, so that it stays what it was while others come and go.

`wanted` is a pure function; `settle` looks at what is there and runs what is missing, in one transaction per family.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from orchestrator.host import Router, Segment, Table, Way, netlink
from orchestrator.host.command import ip
from orchestrator.host.links import NEAR_SIDE, UPLINK, leg_name, peer_address, peer_name
from orchestrator.host.netlink import KernelRoute, KernelRule

MAIN = 254  # the kernel's number of it
OWN = 1000  # the segments of the router, for what comes from outside
HERE = 1001  # the segments of the router, for what it sends itself
_FIRST = 0x10000
_KERNELS_PLACES = {(0, 255), (32766, MAIN), (32767, 253)}  # priority and table
_KERNELS_RULES = {0: "lookup local priority 0", 32766: "lookup main priority 32766"}
_LEG_PRIORITY = 1000
_PRIORITIES = {"": 2000, "lo": 2001}
_BESIDE = 1  # the metric of routes beside those that the kernel makes for addresses
_IPV6_METRIC = 1024  # what the kernel gives a route that has none
_ANYWHERE = {4: "0.0.0.0/0", 6: "::/0"}

Range = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One line of a kernel's table: by way of `link`, and of `via` there. Without a link, it drops."""

    table: int
    destination: str  # ADDRESS/LENGTH, IPv4 or IPv6
    link: str = ""
    via: str = ""
    onlink: bool = False
    metric: int = 0  # of IPv4

    @property
    def family(self) -> int:
        return 6 if ":" in self.destination else 4

    @property
    def is_mixed(self) -> bool:
        """An IPv4 route by an IPv6 next hop."""
        return ":" in self.via and self.family == 4

    @property
    def text(self) -> str:
        """As `ip route` takes it, after the verb."""
        if not self.link:
            return f"blackhole {self.destination} table {self.table} proto static"
        hop = f" via {'inet6 ' if self.is_mixed else ''}{self.via}" if self.via else ""
        last = f"{f' metric {self.metric}' if self.metric else ''}{' onlink' if self.onlink else ''}"
        return f"{self.destination}{hop} dev {self.link} table {self.table} proto static{last}"


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """What comes in by `link` is looked up in `table`; with an empty one, whatever comes in at all."""

    family: int  # 4 | 6
    link: str
    table: int

    @property
    def text(self) -> str:
        """As `ip rule` takes it, after the verb; `ip` is told the family."""
        where = f"iif {self.link}" if self.link else "not iif lo"
        return f"{where} lookup {self.table} priority {_PRIORITIES.get(self.link, _LEG_PRIORITY)}"


@dataclass(frozen=True, slots=True)
class Forwarding:
    """All rules, and all routes but those that the kernel makes by itself."""

    rules: frozenset[Rule] = field(default_factory=frozenset)
    entries: frozenset[Entry] = field(default_factory=frozenset)

    @property
    def text(self) -> str:
        """For people."""
        lines = [
            f"ip {f'-{rule.family} ' if rule.family == 6 else ''}rule add {rule.text}" for rule in sorted(self.rules)
        ]
        return "".join(
            f"{line}\n" for line in (*lines, *(f"ip route add {each.text}" for each in sorted(self.entries)))
        )


# --- what is wanted ------------------------------------------------------------------------------------------------


def table_number(name: str) -> int:
    """The kernel's number of a table. 28 bits: that two of one router are the same is not expected."""
    return _FIRST + (int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") & 0x0FFFFFFF)


def wanted(router: Router, links: Collection[str], uplink: str) -> Forwarding:
    """`links` are those that packets can be sent by; `uplink` is the next hop on the uplink (IPv4), empty without."""
    ways = _Ways(router, links, uplink)
    tables = {table.name: table for table in router.tables}
    shared = ways.shared_table(tables)
    if shared is not None:
        return Forwarding(entries=frozenset(ways.entries(MAIN, shared)))
    rules = {Rule(family, link, table) for family in (4, 6) for link, table in (("", OWN), ("lo", HERE))}
    entries = {*ways.entries(OWN, None), *ways.own_traffic()}
    used = set()
    for segment in router.segments:
        if segment.table in tables:
            used.add(segment.table)
            rules |= {Rule(family, leg_name(segment.name), table_number(segment.table)) for family in (4, 6)}
    for name in used:
        entries |= ways.entries(table_number(name), tables[name])
    return Forwarding(frozenset(rules), frozenset(entries))


def turned_segments(router: Router) -> set[str]:
    """The segments of which some addresses are reached by way of a port, so that not all are behind the leg."""
    own = [parsed(text) for text in router.cidrs]
    spans = {parsed(route.destination) for table in router.tables for route in table.routes if route.way is Way.PORT}
    spans = {span for span in spans if any(span != each and _supernets(span, each) for each in own)}
    segments = [(parsed(segment.cidr), segment.name) for segment in router.segments]
    return {name for each, name in segments if any(_supernets(span, each) or _supernets(each, span) for span in spans)}


class _Ways:
    """Where the routes of one router lead."""

    def __init__(self, router: Router, links: Collection[str], uplink: str) -> None:
        self._router = router
        self._links = links
        self._uplink = {4: uplink, 6: NEAR_SIDE if uplink else ""}
        self._ports = {port.name: port for port in router.ports}
        self._legs = {segment.name: leg_name(segment.name) for segment in router.segments}
        self._peers = {peering.name: peer_address(peering.router, router.name) for peering in router.peerings}
        self._segments = list(_segment_ranges(router.segments))
        own = {parsed(text) for text in router.cidrs}
        own |= {each for each, _ in self._segments if not any(each in _supernets(each, known) for known in own)}
        self._own = own

    def entries(self, number: int, table: Table | None) -> set[Entry]:
        """A table of ours; without a `table`, that of the router's own segments."""
        found: dict[Range, Entry] = {}
        for destination in (*map(parsed, _ANYWHERE.values()), *self._own):
            found[destination] = Entry(number, str(destination))
        within: set[Range] = set()  # routes that are more precise than the router's own range around them
        for route in table.routes if table is not None else ():
            destination = parsed(route.destination)
            if destination not in self._own:
                found[destination] = self._entry(number, destination, route.way, route.target)
                if self._around(destination) is not None:
                    within.add(destination)
        for each, leg in self._segments:
            if leg in self._links and not (within and self._is_overruled(each, within)):
                beside = _BESIDE if number == MAIN and each.version == 4 else 0
                found[each] = Entry(number, str(each), leg, metric=beside)
        return set(found.values())

    def shared_table(self, tables: Mapping[str, Table]) -> Table | None:
        """The one that all segments could have, and the router itself: all else than its own ranges is beyond the
        uplink, or nowhere. None if theirs differ, or lead elsewhere."""
        used = [tables.get(segment.table) for segment in self._router.segments]
        first = used[0] if used else None
        if first is None or any(each is None or set(each.routes) != set(first.routes) for each in used):
            return None
        ways = {parsed(route.destination): route.way for route in first.routes}
        if any(way not in (Way.UPLINK, Way.OUTWARD) or self._around(each) is not None for each, way in ways.items()):
            return None
        return first if ways.get(parsed(_ANYWHERE[4])) is Way.UPLINK else None

    def own_traffic(self) -> Iterator[Entry]:
        """What the router itself sends."""
        yield from (Entry(HERE, str(each), leg) for each, leg in self._segments if leg in self._links)
        yield from (Entry(MAIN, str(each)) for each in self._own if all(each != known for known, _ in self._segments))
        for family, via in self._uplink.items():
            if via and UPLINK in self._links:
                yield Entry(MAIN, _ANYWHERE[family], UPLINK, via, onlink=family == 4)

    def _entry(self, number: int, destination: Range, way: Way, target: str) -> Entry:
        link, via, onlink = "", "", False
        family = destination.version
        match way:
            case Way.UPLINK:
                link, via, onlink = UPLINK, self._uplink[family], family == 4
            case Way.OUTWARD:
                link, via = UPLINK, self._uplink[6] if family == 6 else ""
            case Way.PORT if target in self._ports:
                port = self._ports[target]
                addresses = (port.address,) if family == 4 else port.ipv6_addresses
                via = str(ip_address(addresses[0])) if addresses else ""
                link, onlink = self._legs.get(port.segment, ""), True
            case Way.PEER:
                link, via = peer_name(target), self._peers.get(target, "")
        if via and link in self._links:
            return Entry(number, str(destination), link, via, onlink)
        return Entry(number, str(destination))

    def _around(self, destination: Range) -> Range | None:
        """The router's own range that holds `destination`."""
        return next((own for own in self._own if destination in _supernets(destination, own)), None)

    def _is_overruled(self, segment: Range, within: set[Range]) -> bool:
        """Whether a route that is more precise than the router's own range holds the segment as a whole."""
        own = self._around(segment)
        if own is None:
            return segment in within
        return any(
            segment.supernet(new_prefix=length) in within for length in range(own.prefixlen + 1, segment.prefixlen + 1)
        )


def _supernets(inner: Range, outer: Range) -> tuple[Range, ...]:
    """`inner` itself if `outer` holds it; else nothing. The two families do not compare."""
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return (inner,) if inner.subnet_of(outer) else ()
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return (inner,) if inner.subnet_of(outer) else ()
    return ()


def _segment_ranges(segments: Iterable[Segment]) -> Iterator[tuple[Range, str]]:
    for segment in segments:
        yield parsed(segment.cidr), leg_name(segment.name)
        if segment.ipv6_cidr:
            yield parsed(segment.ipv6_cidr), leg_name(segment.name)


@lru_cache(maxsize=16384)
def parsed(text: str) -> Range:
    return ip_network(text, strict=False)


# --- what is there -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    entry: Entry
    metric: int
    is_usual: bool  # it could be one of ours


def settle(want: Forwarding, *, scope: Callable[[Entry], bool] = lambda entry: True) -> bool:
    """Make this thread's namespace equal to `want`; whether anything had to be done.

    Only entries in `scope` are removed, and only what is not the kernel's own. Rules are ours alone.
    """
    rules: set[Rule] = set()
    strange: dict[int, list[str]] = {}
    lost: dict[int, list[str]] = {}
    found: dict[tuple[int, str], list[_Found]] = defaultdict(list)
    for family in (4, 6):
        told_rules = netlink.rules(family)
        read_rules = [_read_rule(each, family) for each in told_rules]
        kernels = {told.priority for told, read in zip(told_rules, read_rules, strict=True) if read == ""}
        lost[family] = [f"rule add {text}" for priority, text in _KERNELS_RULES.items() if priority not in kernels]
        rules |= {each for each in read_rules if isinstance(each, Rule)}
        strange[family] = [each for each in read_rules if isinstance(each, str) and each]
        for told in netlink.routes(family):
            read = _read_route(told)
            if read is not None and scope(read.entry):
                found[read.entry.table, read.entry.destination].append(read)
    routes, stale = _route_changes(want, found)
    rule_commands = {
        family: [
            *lost[family],
            *(f"rule delete {text}" for text in strange[family]),
            *(f"rule add {rule.text}" for rule in sorted(want.rules - rules) if rule.family == family),
            *(f"rule delete {rule.text}" for rule in sorted(rules - want.rules) if rule.family == family),
        ]
        for family in (4, 6)
    }
    # New routes stand before a rule leads to them, and old ones until none does.
    ip([*routes, *rule_commands[4]])
    ip(rule_commands[6], family=6)
    ip(stale)
    return bool(routes or stale or rule_commands[4] or rule_commands[6])


def _route_changes(want: Forwarding, found: dict[tuple[int, str], list[_Found]]) -> tuple[list[str], list[str]]:
    """What is to be made, and what is to go."""
    made: list[str] = []
    places = {(entry.table, entry.destination) for entry in want.entries}
    for entry in sorted(want.entries):
        present = found.get((entry.table, entry.destination), ())
        metric = _IPV6_METRIC if entry.family == 6 else entry.metric
        usual = [each for each in present if each.metric == metric and each.is_usual]
        made += [_deletion(each) for each in present if each not in usual]
        if [each.entry for each in usual] != [entry]:
            # One that leads elsewhere is replaced in one go, but only one.
            made += [_deletion(each) for each in usual[1:]]
            made.append(f"route replace {entry.text}")
    return made, [_deletion(each) for place, present in found.items() if place not in places for each in present]


def _deletion(found: _Found) -> str:
    entry = found.entry
    hop = f" via {'inet6 ' if entry.is_mixed else ''}{entry.via}" if entry.via else ""
    link = f" dev {entry.link}" if entry.link else ""
    metric = f" metric {found.metric}" if found.metric else ""
    return f"route delete {entry.destination}{hop}{link} table {entry.table}{metric}"


def _read_rule(told: KernelRule, family: int) -> Rule | str:
    """A rule such as ours; or how to delete what is none; or nothing for the kernel's own."""
    if told.is_plain and not told.link and (told.priority, told.table) in _KERNELS_PLACES:
        return ""
    link = "" if told.inverted and told.link == "lo" else told.link
    expected = _PRIORITIES.get(link, _LEG_PRIORITY)
    if told.is_plain and told.link and told.inverted == (not link) and told.priority == expected:
        return Rule(family, link, told.table)
    return f"priority {told.priority}"


def _read_route(told: KernelRoute) -> _Found | None:
    """None for what the kernel made by itself, or a router told of."""
    if told.protocol in (netlink.KERNEL, netlink.REDIRECT, netlink.ROUTER_ADVERTISEMENT):
        return None
    if told.table != MAIN and told.table < OWN:
        return None
    if told.kind != netlink.UNICAST:
        return _Found(Entry(told.table, told.destination), told.metric, told.kind == netlink.BLACKHOLE)
    metric = 0 if ":" in told.destination else told.metric
    entry = Entry(told.table, told.destination, told.link, told.via, told.onlink, metric)
    return _Found(entry, told.metric, True)

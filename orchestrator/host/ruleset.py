"""What nftables is told: plans go in, rulesets come out. Nothing here touches the host.

    guest -- tap -- guard -- bridge -- leg -- router -- uplink -- edge -- host, LAN
                    table bridge              table inet           table inet (and table ip on the host, for egress)
                    guard.py                  this module          edge_rules.py

The router knows policies and access lists and translates public addresses. The edge is the internet's side: what one
router sends to a public address of another, or to one of its own (a hairpin), passes the edge as it passes the internet
gateway on EC2, so policies see public sources.

A packet through the router's forward chain:

    on_forward --known to both ends--> pass: access lists --> accept
        | new: who sends it?
        +-- a guest ---> policies out --> admit: access list out ---+
        +-- uplink ----> from_uplink -------------------------------+--> arrive: access list in; who receives it?
        +-- cable -----> from-pcx-... ------------------------------+       |
                             uplink <-- to_uplink <-------------------------+
                             cable <--- to_cable <--------------------------+
                             guest <--- policies in <-----------------------+

Who receives is told by the next hop (`rt nexthop`): the address itself, or that of the port whose machine sends it on.
Such a packet passes twice, with the same addresses, and connection tracking takes it for one flow. So a flow remembers
in its mark which of its ends have let it pass, and only what both have (OWN_ENDS) takes the short way:

    1 the port that owns the source   2 the port that owns the destination   (uplink and cables own all else)
    4 one that is to send it on       8 one that has sent it on

Without this, a machine that sends on could answer in the name of a port that has never let the flow in.

Counting flows: see flow_sets.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from orchestrator.host import Port, Router, Way
from orchestrator.host import Table as RouteTable
from orchestrator.host.edge_rules import EDGE_TABLE, TRANSLATOR_TABLE, edge, host, host_table, translator
from orchestrator.host.flow_sets import counting_chains, declarations, flow_sets, mark, read_flows
from orchestrator.host.guard import (
    guard,
    guard_elements,
    guard_table,
    link_local,
    own_ipv4,
    own_ipv6,
    read_share,
)
from orchestrator.host.links import UPLINK, leg_name, peer_name
from orchestrator.host.nft import Ruleset, Set, Table
from orchestrator.host.policies import (
    Chains,
    Direction,
    acl_chain,
    acl_directions,
    addresses_name,
    lets_all_pass,
    members_name,
    merged,
    policy_chains,
)
from orchestrator.host.shaping import class_of
from orchestrator.host.well_known import (
    IPV6_LINK_LOCAL,
    LINK_LOCAL,
    METADATA_ADDRESS,
    METADATA_IPV6_ADDRESS,
    RESOLVER_ADDRESS,
    RESOLVER_IPV6_ADDRESS,
    SERVICES_IPV6,
    UPLINK_RANGE,
)

__all__ = [
    "EDGE_TABLE",
    "LINK_LOCAL",
    "METADATA_ADDRESS",
    "METADATA_IPV6_ADDRESS",
    "RESOLVER_ADDRESS",
    "RESOLVER_IPV6_ADDRESS",
    "ROUTER_TABLE",
    "TRANSLATOR_TABLE",
    "UPLINK_RANGE",
    "Ruleset",
    "Table",
    "edge",
    "flow_sets",
    "guard",
    "guard_elements",
    "guard_table",
    "host",
    "host_table",
    "link_local",
    "own_ipv4",
    "own_ipv6",
    "read_flows",
    "read_share",
    "router",
    "translator",
]

ROUTER_TABLE = ("inet", "orc")

_KNOWN = "ct state established,related"
_SOURCE, _DESTINATION, _TO_SEND_ON, _SENT_ON = 1, 2, 4, 8
_OWN_ENDS = _SOURCE | _DESTINATION


def router(plan: Router) -> Ruleset:
    """Policies, access lists, translation and the services of one router."""
    return _Compiler(plan).ruleset()


class _Compiler:
    def __init__(self, plan: Router) -> None:
        self.plan = plan
        self.segments = sorted(plan.segments, key=lambda segment: segment.name)
        self.ports = sorted(plan.ports, key=lambda port: port.name)
        self.policies = sorted(plan.policies, key=lambda policy: policy.name)
        self.known = {policy.name for policy in plan.policies}
        self.ipv6 = any(segment.ipv6_cidr for segment in self.segments)
        self.families = ("ip", "ip6") if self.ipv6 else ("ip",)
        self.logs = any(port.log for port in plan.ports)
        self.relays = [port for port in self.ports if port.translator or not port.check_addresses]
        self.cables = {peer_name(each.name): each for each in sorted(plan.peerings, key=lambda each: each.name)}
        self.acls = {acl.name: acl for acl in plan.acls}
        self.sets: dict[str, Set] = {}
        self.chains: Chains = {}

    def ruleset(self) -> Ruleset:
        self._services()
        leaving, entering = self._access_lists()
        self._forward(leaving, entering)
        self._ends()
        self._policies()
        if self.plan.uplink:
            self._uplink()
        self._cables()
        self._classes()
        if self.logs:
            self.sets.update(declarations())
            self.chains.update(counting_chains())
        return Ruleset(*ROUTER_TABLE, self.sets, self.chains)

    # --- the path of a packet --------------------------------------------------------------------------------------

    def _forward(self, leaving: str, entering: str) -> None:
        """`leaving` and `entering` check access lists, and are empty where there are none."""
        passing = _lines(leaving, *self._count("sent", "accepted"), entering, *self._count("received", "accepted"))
        refuse_sent, refuse_received = self._refuse("sent"), self._refuse("received")
        self.chains["on_forward"] = _lines(
            "type filter hook forward priority filter; policy drop;",
            f"{_KNOWN} {_has(_OWN_ENDS)} {'goto pass' if passing else 'accept'}",
            "ct state invalid drop",
            f'iifname "{UPLINK}" goto from_uplink' if self.plan.uplink else "",
            "iifname vmap @from_cable" if self.cables else "",
            f"{_KNOWN} jump sender_known" if self.relays else "",
            "iifname . ether saddr vmap @policies_out",
            refuse_sent if self.logs else "",
        )
        if passing:
            self.chains["pass"] = (*passing, "accept")
        self.chains["admit"] = _lines(
            f"ip daddr {LINK_LOCAL} drop",
            f"ip6 daddr {{ {IPV6_LINK_LOCAL}, {SERVICES_IPV6}, ff00::/8 }} drop" if self.ipv6 else "",
            leaving,
            *self._count("sent", "accepted"),
            "goto arrive",
        )
        to_port = [f"rt {family} nexthop vmap @policies_in{family[2:]}" for family in self.families]
        deliver = [*to_port, refuse_received]
        owned = {family: f"rt {family} nexthop . {family} daddr @owned{family[2:]}" for family in self.families}
        if self.relays:
            self.chains |= self._halfway(tuple(deliver))
            deliver = [f"{match} goto deliver" for match in owned.values()]
            deliver += [f"rt {family} nexthop @relays{family[2:]} goto hand_over" for family in self.families]
        else:
            rest = " ".join  # a packet for another address than the port's own is not handed over
            deliver = [rest((match, line)) for match, line in zip(owned.values(), to_port, strict=True)]
            if self.logs:
                deliver += [f"{match} {refuse_received}" for match in owned.values()]
        self.chains["arrive"] = _lines(
            entering,
            f'oifname "{UPLINK}" goto to_uplink' if self.plan.uplink else "",
            "oifname @cables goto to_cable" if self.cables else "",
            *deliver,
            "drop",
        )
        self.chains["arrived"] = _lines(
            f"{_KNOWN} {'goto handed_over' if self.logs else 'accept'}",
            *(f"{self._from(family)} @guests{family[2:]} {_add(_SOURCE)}" for family in self.families),
            f"iifname @outside {_add(_SOURCE)}",
            f"iifname . ether saddr @relaying {_add(_SENT_ON)}" if self.relays else "",
            f"oifname @outside {_add(_DESTINATION)}",
            *(f"{match} {_add(_DESTINATION)}" for match in owned.values()),
            *(f"rt {each} nexthop @relays{each[2:]} {_add(_TO_SEND_ON)}" for each in self.families if self.relays),
            "goto handed_over" if self.logs else "accept",
        )
        if self.logs:
            self.chains["handed_over"] = (*self._count("received", "accepted"), "accept")

    def _halfway(self, deliver: tuple[str, ...]) -> Chains:
        """For flows that one end has let pass: what it has allowed once it allows again, both ways."""
        original, reply = "ct direction original", "ct direction reply"
        return {
            "sender_known": _lines(
                *(f"{self._from(family)} @guests{family[2:]} goto owner_known" for family in self.families),
                f"{original} {_has(_SENT_ON)} goto admit",
                f"{reply} {_has(_TO_SEND_ON)} goto admit",
            ),
            "owner_known": (f"{original} {_has(_SOURCE)} goto admit", f"{reply} {_has(_DESTINATION)} goto admit"),
            "deliver": (
                f"{_KNOWN} {original} {_has(_DESTINATION)} goto arrived",
                f"{_KNOWN} {reply} {_has(_SOURCE)} goto arrived",
                *deliver,
            ),
            "hand_over": (
                f"{_KNOWN} {original} {_has(_TO_SEND_ON)} goto arrived",
                f"{_KNOWN} {reply} {_has(_SENT_ON)} goto arrived",
                *deliver,
            ),
        }

    def _from(self, family: str) -> str:
        return f"iifname . ether saddr . {family} saddr"

    def _ends(self) -> None:
        """Who is who."""
        taps = {port.name: _source(port) for port in self.ports}
        outside = [UPLINK, *self.cables] if self.plan.uplink else [*self.cables]
        self._set("outside", "ifname", (f'"{name}"' for name in outside))
        self._set(
            "guests",
            "ifname . ether_addr . ipv4_addr",
            (f"{taps[port.name]} . {own}" for port in self.ports for own in own_ipv4(port)),
        )
        self._set("owned", "ipv4_addr . ipv4_addr", (pair for port in self.ports for pair in _owned(port)))
        relays = [address for port in self.relays for address in own_ipv4(port)]
        relays6 = [address for port in self.relays for address in _all_ipv6(port)]
        if self.relays:
            self._set("relaying", "ifname . ether_addr", (taps[port.name] for port in self.relays))
            self._set("relays", "ipv4_addr", relays)
        if self.ipv6:
            self._set(
                "guests6",
                "ifname . ether_addr . ipv6_addr",
                (f"{taps[port.name]} . {own}" for port in self.ports for own in _all_ipv6(port)),
            )
            own6 = [address for port in self.ports for address in own_ipv6(port)]
            self._set("owned6", "ipv6_addr . ipv6_addr", (f"{own} . {own}" for own in own6))
            if self.relays:
                self._set("relays6", "ipv6_addr", relays6)
        if self.logs:
            logged = [port for port in self.ports if port.log]
            marks = {port.name: f"0x{mark(port):08x}" for port in logged}
            senders = (f"{taps[port.name]} : {marks[port.name]}" for port in logged)
            self._set("logged_sent", "ifname . ether_addr : mark", senders)
            receivers = (f"{own} : {marks[port.name]}" for port in logged for own in own_ipv4(port))
            self._set("logged_received", "ipv4_addr : mark", receivers)
            if self.ipv6:
                receivers = (f"{own} : {marks[port.name]}" for port in logged for own in _all_ipv6(port))
                self._set("logged_received6", "ipv6_addr : mark", receivers)

    def _count(self, way: str, outcome: str) -> tuple[str, ...]:
        if not self.logs:
            return ()
        keys = {"logged_sent": "iifname . ether saddr"}
        if way == "received":
            keys = {f"logged_received{family[2:]}": f"rt {family} nexthop" for family in self.families}
        return tuple(f"meta mark set {key} map @{name} jump count-{way}-{outcome}" for name, key in keys.items())

    def _refuse(self, way: str) -> str:
        """The end of a packet that the sender's side, or the receiver's, does not let pass."""
        if not self.logs:
            return "drop"
        self.chains[f"refuse_{way}"] = (*self._count(way, "refused"), "drop")
        return f"goto refuse_{way}"

    # --- policies and access lists ---------------------------------------------------------------------------------

    def _policies(self) -> None:
        sets = {each.name: each for each in self.plan.address_sets}
        directions = {
            "out": Direction("out", "to", "daddr", "goto admit", self.families),
            "in": Direction("in", "from", "saddr", "goto arrived", self.families),
        }
        referred: set[str] = set()
        used: set[str] = set()
        for policy in self.policies:
            for way, rules in (("out", policy.outbound), ("in", policy.inbound)):
                self.chains |= policy_chains(policy.name, rules, self.known, set(sets), directions[way])
                referred |= {rule.peer_policy for rule in rules} & self.known
                used |= {rule.peer_set for rule in rules} & sets.keys()
        members: dict[str, list[Port]] = {name: [] for name in referred}
        for port in self.ports:
            for name in set(port.policies) & referred:
                members[name].append(port)
        own = {"ip": own_ipv4, "ip6": own_ipv6}
        for family in self.families:
            kind = "ipv4_addr" if family == "ip" else "ipv6_addr"
            for name in sorted(referred):
                addresses = (address for port in members[name] for address in own[family](port))
                self._set(members_name(name, family), kind, addresses)
            for name in sorted(used):
                self._set(addresses_name(name, family), kind, merged(sets[name].addresses, family), flags="interval")
        verdicts_out = []
        verdicts_in: dict[str, list[str]] = {family: [] for family in self.families}
        for port in self.ports:
            group = self._group(port)
            to = {way: f"jump {way}-{group}" for way in directions} if group else {}
            to = {"out": "goto admit", "in": "goto arrived"} if port.translator else to
            if to:
                verdicts_out.append(f"{_source(port)} : {to['out']}")
                verdicts_in["ip"] += [f"{address} : {to['in']}" for address in own_ipv4(port)]
                if self.ipv6:
                    verdicts_in["ip6"] += [f"{address} : {to['in']}" for address in _all_ipv6(port)]
        self._set("policies_out", "ifname . ether_addr : verdict", verdicts_out)
        self._set("policies_in", "ipv4_addr : verdict", verdicts_in["ip"])
        if self.ipv6:
            self._set("policies_in6", "ipv6_addr : verdict", verdicts_in["ip6"])

    def _group(self, port: Port) -> str:
        """The chains of a port are named after its only policy, or made for the combination; names have a limit."""
        names = sorted(set(port.policies) & self.known)
        if len(names) < 2:
            return "".join(names)
        group = "all-" + hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
        for way in ("out", "in"):
            self.chains[f"{way}-{group}"] = tuple(f"jump {way}-{name}" for name in names)
        return group

    def _access_lists(self) -> tuple[str, str]:
        """The rules that check them where a packet leaves its segment, and where it enters another."""
        maps: dict[str, list[str]] = {"acl-out": [], "acl-in": []}
        refused = {"acl-out": self._refuse("sent"), "acl-in": self._refuse("received")}
        for segment in self.segments:
            acl = self.acls.get(segment.acl)
            for prefix, field, rules in acl_directions(acl) if acl is not None else ():
                if not lets_all_pass(rules, self.families):
                    chain = f"{prefix}-{segment.acl}"
                    self.chains[chain] = acl_chain(rules, field=field, refused=refused[prefix])
                    maps[prefix].append(f'"{leg_name(segment.name)}" : jump {chain}')
        if not any(maps.values()):
            return "", ""
        legs = [leg_name(segment.name) for segment in self.segments]
        self._set("within", "ifname . ifname", (f'"{leg}" . "{leg}"' for leg in legs))
        border = "iifname . oifname != @within"
        leaving = entering = ""
        if maps["acl-out"]:
            self._set("leaving", "ifname : verdict", maps["acl-out"])
            leaving = f"{border} iifname vmap @leaving"
        if maps["acl-in"]:
            self._set("entering", "ifname : verdict", maps["acl-in"])
            entering = f"{border} oifname vmap @entering"
        return leaving, entering

    # --- beyond the segments ---------------------------------------------------------------------------------------

    def _uplink(self) -> None:
        public = {outside: private for port in self.ports for private, outside in port.public}
        self._set("to_private", "ipv4_addr : ipv4_addr", (f"{outside} : {own}" for outside, own in public.items()))
        self._set("to_public", "ipv4_addr : ipv4_addr", (f"{own} : {outside}" for outside, own in public.items()))
        self._set("public_sources", "ipv4_addr", public.values())
        inward = []
        if self.ipv6:
            tables = {table.name: table for table in self.plan.tables}
            for segment in self.segments:
                ranges = _open_to_outside(tables[segment.table]) if segment.table in tables else []
                if segment.ipv6_cidr and ranges:
                    match = "" if ranges == ["::/0"] else f"ip6 saddr {{ {', '.join(ranges)} }} "
                    self.chains[f"inward-{segment.table}"] = (f"{match}goto arrive",)
                    inward.append(f'"{leg_name(segment.name)}" : goto inward-{segment.table}')
        if inward:
            self._set("inward", "ifname : verdict", inward)
        self.chains["from_uplink"] = _lines(
            "ct status dnat goto arrive",
            "meta nfproto ipv6 oifname vmap @inward" if inward else "",
            "drop",
        )
        own6 = merged((segment.ipv6_cidr for segment in self.segments if segment.ipv6_cidr), "ip6")
        self.chains["to_uplink"] = _lines(
            "ip saddr @public_sources goto arrived",
            f"ip6 saddr {{ {', '.join(own6)} }} goto arrived" if own6 else "",
            "drop",
        )
        if not public:
            return  # nothing to translate; chains of this kind cost each packet something
        self.chains["on_prerouting"] = (
            "type nat hook prerouting priority dstnat; policy accept;",
            f'iifname "{UPLINK}" dnat ip to ip daddr map @to_private',
        )
        self.chains["on_postrouting"] = (
            "type nat hook postrouting priority srcnat; policy accept;",
            f'oifname "{UPLINK}" snat ip to ip saddr map @to_public',
        )

    def _cables(self) -> None:
        if not self.cables:
            return
        everything = [*self.plan.cidrs, *(segment.ipv6_cidr for segment in self.segments if segment.ipv6_cidr)]
        own = {family: merged(everything, family) for family in self.families}
        verdicts = []
        for name, peering in self.cables.items():
            lines = [
                f"{family} saddr {{ {', '.join(theirs)} }} {family} daddr {{ {', '.join(own[family])} }} goto arrive"
                for family in self.families
                if (theirs := merged(peering.their_cidrs, family)) and own[family]
            ]
            self.chains[f"from-{peering.name}"] = (*lines, "drop")
            verdicts.append(f'"{name}" : goto from-{peering.name}')
        self._set("from_cable", "ifname : verdict", verdicts)
        self._set("cables", "ifname", (f'"{name}"' for name in self.cables))
        lines = [f"{each} saddr {{ {', '.join(own[each])} }} goto arrived" for each in self.families if own[each]]
        self.chains["to_cable"] = (*lines, "drop")

    def _classes(self) -> None:
        """The queues of the legs that hold ports to their rates: see shaping.py."""
        segments = {segment.name: segment for segment in self.plan.segments}
        held = [port for port in self.ports if port.rate is not None and port.segment in segments]
        if not held:
            return
        families = {"ip": own_ipv4, **({"ip6": _all_ipv6} if self.ipv6 else {})}
        lines = ["type filter hook postrouting priority mangle; policy accept;"]
        for family, own in families.items():
            name = f"classes{family[2:]}"
            elements = (f"{each} : {class_of(port, segments[port.segment])}" for port in held for each in own(port))
            self._set(name, f"ipv{'4' if family == 'ip' else '6'}_addr : classid", elements)
            lines.append(f"meta priority set rt {family} nexthop map @{name}")
        self.chains["on_leaving"] = tuple(lines)

    def _services(self) -> None:
        """What guests may say to the router itself. Claims of an address are checked here too, though the guard has
        done so, because metadata is given out by source address alone."""
        plan = self.plan
        self._set("legs", "ifname", (f'"{leg_name(segment.name)}"' for segment in self.segments))
        neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
        gateways = ", ".join(sorted(segment.gateway for segment in self.segments))
        resolvers = ", ".join(filter(None, (RESOLVER_ADDRESS, plan.resolver)))
        self.chains["on_input"] = _lines(
            "type filter hook input priority filter; policy drop;",
            'iifname "lo" accept',
            f"{_KNOWN} accept",
            "ct state invalid drop",
            f"iifname @outside {neighbours}",
            "iifname @legs udp sport 68 udp dport 67 accept",
            "iifname . ether saddr . ip saddr @guests goto services",
            *(self._solicitations() if self.ipv6 else ()),
        )
        self.chains["services"] = _lines(
            f"ip daddr {METADATA_ADDRESS} tcp dport 80 accept",
            f"ip daddr {{ {gateways} }} icmp type echo-request accept" if gateways else "",
            *(f"ip daddr {{ {resolvers} }} {each} dport 53 accept" for each in ("udp", "tcp") if plan.resolver),
        )
        if self.ipv6:
            resolver = f"ip6 daddr {RESOLVER_IPV6_ADDRESS}"
            self.chains["services6"] = _lines(
                "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept",
                "udp sport 546 udp dport 547 accept",
                f"ip6 daddr {METADATA_IPV6_ADDRESS} tcp dport 80 accept",
                f"ip6 daddr {IPV6_LINK_LOCAL} icmpv6 type echo-request accept",
                *(f"{resolver} {each} dport 53 accept" for each in ("udp", "tcp") if plan.resolver),
            )

    def _solicitations(self) -> tuple[str, ...]:
        """A guest that has no address yet asks for routers, and whether its address is taken."""
        return (
            "iifname . ether saddr . ip6 saddr @guests6 goto services6",
            "iifname @legs ip6 saddr :: icmpv6 type { nd-router-solicit, nd-neighbor-solicit } accept",
        )

    def _set(self, name: str, kind: str, elements: Iterable[str], *, flags: str = "") -> None:
        self.sets[name] = Set(kind, frozenset(elements), flags)


def _lines(*lines: str) -> tuple[str, ...]:
    return tuple(line for line in lines if line)


def _has(bits: int) -> str:
    return f"ct mark and {bits} == {bits}"


def _add(bit: int) -> str:
    return f"ct mark set ct mark or {bit}"


def _source(port: Port) -> str:
    return f'"{leg_name(port.segment)}" . {port.mac.lower()}'


def _owned(port: Port) -> list[str]:
    """Next hop and destination of what is for its own addresses: routes may lead to the further ones by the first."""
    own = own_ipv4(port)
    return [f"{address} . {address}" for address in own] + [f"{port.address} . {address}" for address in own]


def _all_ipv6(port: Port) -> list[str]:
    """With the one that it gives itself on the link: nothing is routed to it, but it may be a next hop."""
    own = own_ipv6(port)
    return [*own, link_local(port.mac)] if own else []


def _open_to_outside(table: RouteTable) -> list[str]:
    """The ranges outside from which connections may come in to segments of this table: those whose route is an uplink
    that works both ways, without what more precise routes take out of them."""
    routes = [(ip_network(route.destination, strict=False), route.way) for route in table.routes]
    spans: list[IPv4Network | IPv6Network] = []
    for network, way in sorted((each for each in routes if each[0].version == 6), key=lambda each: each[0].prefixlen):
        spans = [part for span in spans for part in _without(span, network)]
        spans += [network] if way is Way.UPLINK else []
    return merged(map(str, spans), "ip6")


def _without(span: IPv4Network | IPv6Network, hole: IPv4Network | IPv6Network) -> list[IPv4Network | IPv6Network]:
    if not span.overlaps(hole):
        return [span]
    if span.prefixlen >= hole.prefixlen:
        return []
    return list(span.address_exclude(hole))  # type: ignore[arg-type]

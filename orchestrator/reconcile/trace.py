"""Follows one packet through the routers, and its answer back, by the very values that the host is told to apply.

    source -> source check -> groups, outbound -> route -+-> local ------------------+-> ACLs, where a border is crossed
                                                         +-> port (NAT gateway, or   |      -> destination check
                                                         |   an instance that routes)|      -> groups, inbound
                                                         +-> peering ----------------+      -> arrived, or on from here
                                                         +-> uplink (public address) +

Groups are stateful: what passed an interface may be answered through it. ACLs are not: the answer is held against them
anew, and so it is against the routes of whoever answers. Pure: no host and no store is asked.

Sources: "Security groups", "Network ACLs", "Route tables", "NAT gateways", "VPC peering", "Internet gateways" of
Amazon's VPC user guide.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from orchestrator.host import Acl, Allow, Port, Probe, Router, Segment, Way
from orchestrator.model.trace import Arrival, Step, Trace

METADATA = ("169.254.169.254", "fd00:ec2::254")
RESOLVERS = ("169.254.169.253", "fd00:ec2::253")
SOURCE_PORT = 49152  # that a guest is taken to send from: ephemeral for every system
MAX_HOPS = 16
OUTSIDE = ""  # the port of a probe that comes from outside

_NUMBERS = {"icmp": "1", "tcp": "6", "udp": "17", "icmpv6": "58"}
_ECHO_ANSWERS = {8: 0, 128: 129}  # ICMP and ICMPv6 type of an echo request -> of its reply
_NOT_OF_THE_INTERNET = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1/128")
)


def trace(
    routers: Mapping[str, Router],
    probe: Probe,
    *,
    masquerades: Collection[str] | None = None,
    egress: bool = True,
    source_port: int = SOURCE_PORT,
) -> Trace:
    """What becomes of a first packet and of the answer to it.

    `routers` are all that matter, by name: the source's, its peers, and who else has the destination's public address.
    A probe whose port is OUTSIDE comes by the internet. Machines without a source/dest check are taken to send on what
    is not theirs; `masquerades` names those that do so under their own address, and None has it guessed: those whose
    way on is the internet gateway, where only their own address can pass. `egress` is whether the deployment lets
    anything out of the host at all.
    """
    walk = _Walk(routers, masquerades, egress)
    number = probe.destination_port
    if probe.protocol in ("icmp", "icmpv6"):
        number = 128 if probe.protocol == "icmpv6" else 8
    packet = _Packet(probe.protocol, probe.source, source_port, probe.destination, number)
    arrival: _At | None = None
    try:
        arrival = walk.begin(probe.port, packet)
        walk.answering = True
        walk.return_to(probe.port, arrival)
    except _Dropped:
        pass
    return Trace(
        steps=tuple(walk.steps),
        passed=all(step.passed for step in walk.steps),
        arrival=None
        if arrival is None
        else Arrival(
            interface_id=arrival.port.name if arrival.port else "",
            source=arrival.packet.source,
            destination=arrival.packet.destination,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Packet:
    """For ICMP there is no source port that counts, and `dport` is the type."""

    protocol: str
    source: str
    sport: int
    destination: str
    dport: int

    @property
    def is_icmp(self) -> bool:
        return self.protocol in ("icmp", "icmpv6")

    def answer(self) -> _Packet:
        if self.is_icmp:
            kind = _ECHO_ANSWERS.get(self.dport, self.dport)
            return replace(self, source=self.destination, destination=self.source, dport=kind)
        return _Packet(self.protocol, self.destination, self.dport, self.source, self.sport)

    def flow(self) -> tuple[object, ...]:
        """The same for both directions."""
        if self.is_icmp:
            return (self.protocol, *sorted((self.source, self.destination)))
        return (self.protocol, *sorted(((self.source, self.sport), (self.destination, self.dport))))

    def __str__(self) -> str:
        if self.is_icmp:
            return f"{self.protocol} type {self.dport} {self.source} -> {self.destination}"
        return f"{self.protocol} {_with_port(self.source, self.sport)} -> {_with_port(self.destination, self.dport)}"


def _with_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


@dataclass(frozen=True, slots=True)
class _At:
    """Where a packet came out: at a port, at a router itself (no port), or outside (neither)."""

    router: Router | None
    port: Port | None
    packet: _Packet


class _Dropped(Exception):
    """The last step says why."""


@dataclass(slots=True)
class _Walk:
    routers: Mapping[str, Router]
    masquerades: Collection[str] | None
    egress: bool
    steps: list[Step] = field(default_factory=list)
    answering: bool = False
    tracked: set[tuple[object, ...]] = field(default_factory=set)  # (port, outbound, flow) that groups let pass
    # (port, protocol, remote address, remote port, own port) -> whom that was translated for
    translated: dict[tuple[object, ...], tuple[str, int]] = field(default_factory=dict)

    # --- both ends ---

    def begin(self, port_name: str, packet: _Packet) -> _At:
        if port_name == OUTSIDE:
            self.note("internet", "source", f"{packet} comes from outside")
            return self.enter(packet)
        for router in self.routers.values():
            port = next((port for port in router.ports if port.name == port_name), None)
            if port is not None:
                self.note(port.name, "source", f"sends {packet}", router)
                if _has(port, packet.destination):
                    self.note(port.name, "source", f"{packet.destination} is its own: nothing leaves the machine")
                    return _At(router, port, packet)
                return self.send(router, port, packet, 0)
        raise self.drop(port_name, "source", "is plugged into nothing: no packet passes")

    def return_to(self, port_name: str, arrival: _At) -> None:
        """The answer, from where the packet came out to where it began."""
        answer = arrival.packet.answer()
        if arrival.router is None:
            self.note("internet", "answer", f"answers {answer}")
            end = self.enter(answer)
        elif arrival.port is None or arrival.port.name == port_name:
            return  # a router's own services, and a machine's talk with itself, pass no rules
        else:
            self.note(arrival.port.name, "answer", f"answers {answer}", arrival.router)
            end = self.send(arrival.router, arrival.port, answer, 0)
        came_to = end.port.name if end.port else OUTSIDE
        if came_to != port_name:
            raise self.drop(
                came_to or "internet", "answer", f"the answer ends here, not at {port_name or 'its source'}"
            )

    # --- a port sends ---

    def send(self, router: Router, port: Port, packet: _Packet, hops: int) -> _At:
        if hops > MAX_HOPS:
            raise self.drop(port.name, "route", f"after {hops} hops the packet goes round in circles", router)
        if _is_link_local(packet.source):
            raise self.drop(port.name, "source/dest check", f"{packet.source} is nobody's source", router)
        if port.check_addresses and not _has(port, packet.source):
            detail = f"on, and {packet.source} is none of its addresses"
            raise self.drop(port.name, "source/dest check", detail, router)
        if not port.check_addresses and not _has(port, packet.source):
            self.note(port.name, "source/dest check", f"off: it may send as {packet.source}", router)
        segment = _segment(router, port.segment)
        if self.is_for_router(router, packet):
            return self.ask_router(router, port, packet)
        self.group(router, port, packet, outbound=True)
        way, target, match, table = self.route(router, segment, packet)
        if way is None:
            self.note(table, "route", f"{match} -> local", router)
            return self.deliver(router, segment, packet, hops)
        if way is Way.NOWHERE:
            raise self.drop(table, "route", f"{match} is a blackhole: its target is gone", router)
        if way is Way.PORT:
            following = next((each for each in router.ports if each.name == target), None)
            if following is None:
                raise self.drop(table, "route", f"{match} -> {target}, which is not there: a blackhole", router)
            self.note(table, "route", f"{match} -> {target}", router)
            return self.receive(router, following, packet, segment, hops)
        self.note(table, "route", f"{match} -> {target or _WORDS[way]}", router)
        self.acl(router, segment, packet, outbound=True)
        if way is Way.PEER:
            return self.over_peering(router, target, packet, hops)
        return self.leave(router, port, way, packet, hops)

    def deliver(self, router: Router, segment: Segment, packet: _Packet, hops: int) -> _At:
        owner = _owner(router, packet.destination)
        if owner is None:
            raise self.drop(router.name, "destination", f"nothing that runs has {packet.destination}", router)
        return self.receive(router, owner, packet, segment, hops)

    def leave(self, router: Router, port: Port, way: Way, packet: _Packet, hops: int) -> _At:
        """By the internet gateway, or an egress-only one: to the outside, or to whoever has that public address."""
        name = _WORDS[way]
        if not router.uplink:
            raise self.drop(router.name, name, "none is attached", router)
        if _is_ipv6(packet.source):
            self.note(router.name, name, f"{packet.source} passes as it is", router)
        elif way is Way.OUTWARD:
            raise self.drop(router.name, name, f"{packet.source} is IPv4, which does not pass it", router)
        else:
            public = _public(router, packet.source)
            own = _public(router, port.address)
            if public is None and own is not None and self.masquerades is None and not _has(port, packet.source):
                detail = f"taken to masquerade, as NAT instances do: {packet.source} becomes {port.address}"
                self.note(port.name, "instance", detail, router)
                packet = self.translate(port, packet)
                self.tracked.add((port.name, True, packet.flow()))
                public = own
            if public is None:
                detail = f"{packet.source} has no public address, so it cannot pass"
                raise self.drop(router.name, name, detail, router)
            self.note(router.name, name, f"{packet.source} becomes {public}", router)
            packet = replace(packet, source=public)
        if _of_deployment(self.routers.values(), packet.destination):
            return self.enter(packet, hops)
        if any(_in(packet.destination, network) for network in _NOT_OF_THE_INTERNET):
            raise self.drop("internet", name, f"{packet.destination} is no address of the internet")
        if not self.egress:
            raise self.drop("internet", name, "egress is off (network.egress): nothing of a guest leaves the host")
        self.note("internet", "arrival", f"leaves as {packet}")
        return _At(None, None, packet)

    def enter(self, packet: _Packet, hops: int = 0) -> _At:
        """From the outside to a public address, or an IPv6 one."""
        for router in self.routers.values():
            if _is_ipv6(packet.destination):
                port = _owner(router, packet.destination)
                if port is None:
                    continue
                self.must_be_open(router, port, packet)
                return self.receive(router, port, packet, None, hops + 1)
            for port in router.ports:
                for private, public in port.public:
                    if public != packet.destination:
                        continue
                    if not router.uplink:
                        raise self.drop(router.name, "internet gateway", "none is attached", router)
                    self.note(router.name, "internet gateway", f"{public} becomes {private}", router)
                    return self.receive(router, port, replace(packet, destination=private), None, hops + 1)
        raise self.drop("internet", "destination", f"nothing that runs has {packet.destination}")

    def must_be_open(self, router: Router, port: Port, packet: _Packet) -> None:
        """IPv6 has no translation: who may begin from outside follows from the way that the answer would take."""
        if not router.uplink:
            raise self.drop(router.name, "internet gateway", "none is attached", router)
        way, _, match, table = self.route(router, _segment(router, port.segment), packet.answer())
        if way is Way.UPLINK:
            return
        if way is Way.OUTWARD:
            if (port.name, True, packet.flow()) in self.tracked:
                return
            detail = f"{table}: {match} leads to it, and it lets nobody begin from outside"
            raise self.drop(router.name, "egress-only gateway", detail, router)
        detail = f"{table} of its subnet does not lead {packet.source} to an internet gateway"
        raise self.drop(router.name, "internet gateway", detail, router)

    def over_peering(self, router: Router, name: str, packet: _Packet, hops: int) -> _At:
        ours = next((each for each in router.peerings if each.name == name), None)
        peer = self.routers.get(ours.router) if ours else None
        theirs = next((each for each in peer.peerings if each.name == name), None) if peer else None
        if ours is None or peer is None or theirs is None:
            detail = "nothing runs in the VPC at its other end" if ours is None or peer is None else "is not active"
            raise self.drop(name, "peering", detail, router)
        if not _within(packet.source, theirs.their_cidrs):
            raise self.drop(name, "peering", f"no transit: {packet.source} is not of {router.name}", router)
        if not _within(packet.destination, peer.cidrs):
            raise self.drop(name, "peering", f"no transit: {packet.destination} is not of {peer.name}", router)
        self.note(name, "peering", f"{router.name} -> {peer.name}", router)
        owner = _owner(peer, packet.destination)
        if owner is None:
            raise self.drop(peer.name, "destination", f"nothing that runs has {packet.destination}", peer)
        return self.receive(peer, owner, packet, None, hops)

    # --- a port receives ---

    def receive(self, router: Router, port: Port, packet: _Packet, origin: Segment | None, hops: int) -> _At:
        """`origin` is the segment that it comes from; None when it comes from beyond the router."""
        segment = _segment(router, port.segment)
        if origin is None:
            self.acl(router, segment, packet, outbound=False)
        elif origin.name != segment.name:
            self.acl(router, origin, packet, outbound=True)
            self.acl(router, segment, packet, outbound=False)
        if port.translator:
            return self.send_on_translated(router, port, packet, hops, "NAT gateway")
        own = _has(port, packet.destination)
        if not own and port.check_addresses:
            detail = f"on, and {packet.destination} is none of its addresses"
            raise self.drop(port.name, "source/dest check", detail, router)
        if not own:
            self.note(port.name, "source/dest check", f"off: it may receive for {packet.destination}", router)
        self.group(router, port, packet, outbound=False)
        masquerades = self.masquerades is not None and port.name in self.masquerades
        if self.reverse_key(port, packet) in self.translated or (masquerades and not own):
            return self.send_on_translated(router, port, packet, hops, "instance")
        if own:
            self.note(port.name, "arrival", f"arrives as {packet}", router)
            return _At(router, port, packet)
        self.note(port.name, "instance", "taken to send it on", router)
        return self.send(router, port, packet, hops + 1)

    def send_on_translated(self, router: Router, port: Port, packet: _Packet, hops: int, noun: str) -> _At:
        if not _has(port, packet.destination):
            if _is_ipv6(packet.destination):
                raise self.drop(port.name, noun, "IPv6 is not translated", router)
            if packet.is_icmp and packet.dport in _ECHO_ANSWERS.values():  # begins no flow: nothing to translate
                if port.translator:
                    raise self.drop(port.name, noun, f"{packet} is no answer to anything that passed it", router)
                self.note(port.name, noun, "taken to send it on as it is: it is no answer that it waits for", router)
                return self.send(router, port, packet, hops + 1)
            self.note(port.name, noun, f"{packet.source} becomes {port.address}", router)
            return self.send(router, port, self.translate(port, packet), hops + 1)
        known = self.translated.get(self.reverse_key(port, packet))
        if known is None:
            detail = f"{packet} is no answer to anything that passed it: it takes no connections"
            raise self.drop(port.name, noun, detail, router)
        self.note(port.name, noun, f"{packet.destination} becomes {known[0]} again", router)
        back = replace(packet, destination=known[0])
        return self.send(router, port, back if packet.is_icmp else replace(back, dport=known[1]), hops + 1)

    def translate(self, port: Port, packet: _Packet) -> _Packet:
        """Remembered for the answer. The port of the source is kept: nobody else has it here."""
        remote_port = 0 if packet.is_icmp else packet.dport
        own_port = 0 if packet.is_icmp else packet.sport
        key = (port.name, packet.protocol, packet.destination, remote_port, own_port)
        self.translated[key] = (packet.source, packet.sport)
        return replace(packet, source=port.address)

    @staticmethod
    def reverse_key(port: Port, packet: _Packet) -> tuple[object, ...]:
        if not _has(port, packet.destination) or (packet.is_icmp and packet.dport not in _ECHO_ANSWERS.values()):
            return ()
        ports = (0, 0) if packet.is_icmp else (packet.sport, packet.dport)
        return (port.name, packet.protocol, packet.source, *ports)

    # --- a router's own services ---

    @staticmethod
    def is_for_router(router: Router, packet: _Packet) -> bool:
        own = (router.resolver, *(each.gateway for each in router.segments))
        address = packet.destination
        return _is_link_local(address) or address in own or address in (*METADATA, *RESOLVERS)

    def ask_router(self, router: Router, port: Port, packet: _Packet) -> _At:
        """Metadata, DNS and the gateway's echo: neither groups nor ACLs are asked, as on EC2."""
        address = packet.destination
        service = ""
        if address in METADATA and (packet.protocol, packet.dport) == ("tcp", 80):
            service = "instance metadata answers"
        elif address in (*RESOLVERS, router.resolver) and packet.protocol in ("tcp", "udp") and packet.dport == 53:
            service = "the resolver answers" if router.resolver else ""
        elif address in {each.gateway for each in router.segments} and packet.is_icmp:
            service = "the router answers"
        if not _has(port, packet.source):
            detail = f"{packet.source} is none of {port.name}'s addresses, and only those are answered here"
            raise self.drop(router.name, "destination", detail, router)
        if not service:
            raise self.drop(router.name, "destination", f"nothing answers {packet} here", router)
        self.note(router.name, "arrival", f"{service}; no security group and no ACL is asked", router)
        return _At(router, None, packet)

    # --- the rules ---

    def group(self, router: Router, port: Port, packet: _Packet, *, outbound: bool) -> None:
        if port.translator:
            return
        direction = "outbound" if outbound else "inbound"
        if (port.name, not outbound, packet.flow()) in self.tracked:
            self.note(port.name, "security group", f"{direction}: answers what passed already", router)
            return
        policies = {policy.name: policy for policy in router.policies}
        asked = [policies[name] for name in port.policies if name in policies]
        for policy in asked:
            for rule in policy.outbound if outbound else policy.inbound:
                if self.allows(router, rule, packet, packet.destination if outbound else packet.source):
                    self.note(policy.name, "security group", f"{direction}: {_rule(rule, outbound)} allows it", router)
                    self.tracked.add((port.name, outbound, packet.flow()))
                    return
        listed = ", ".join(policy.name for policy in asked) or port.name
        detail = f"{direction}: no rule of {port.name}'s groups allows {packet}"
        raise self.drop(listed, "security group", detail, router)

    @staticmethod
    def allows(router: Router, rule: Allow, packet: _Packet, peer: str) -> bool:
        if not _matches(rule.protocol, rule.from_port, rule.to_port, packet):
            return False
        if rule.peer_cidr:
            return _in(peer, _network(rule.peer_cidr))
        if rule.peer_policy:
            return any(rule.peer_policy in port.policies and _has(port, peer) for port in router.ports)
        return any(each.name == rule.peer_set and _within(peer, each.addresses) for each in router.address_sets)

    def acl(self, router: Router, segment: Segment, packet: _Packet, *, outbound: bool) -> None:
        acl: Acl | None = next((each for each in router.acls if segment.acl and each.name == segment.acl), None)
        if acl is None:
            return
        direction = f"{'out of' if outbound else 'into'} {segment.name}"
        peer = packet.destination if outbound else packet.source
        for rule in sorted(acl.outbound if outbound else acl.inbound, key=lambda rule: rule.number):
            if not _in(peer, _network(rule.cidr)):
                continue
            if not _matches(rule.protocol, rule.from_port, rule.to_port, packet):
                continue
            detail = f"{direction}: entry {rule.number} {'allows' if rule.accept else 'denies'} {packet}"
            if rule.accept:
                self.note(acl.name, "network ACL", detail, router)
                return
            raise self.drop(acl.name, "network ACL", detail, router)
        raise self.drop(acl.name, "network ACL", f"{direction}: no entry is for {packet} (entry *)", router)

    def route(self, router: Router, segment: Segment, packet: _Packet) -> tuple[Way | None, str, str, str]:
        """(way, target, the range that matched, the table's name); no way for local. The longest prefix decides; of
        equals one that was set comes before local, which it replaces."""
        address = packet.destination
        if _is_broadcast(address):
            raise self.drop(
                router.name, "route", f"{address} is for many: there is no broadcast and no multicast", router
            )
        table = next((each for each in router.tables if segment.table and each.name == segment.table), None)
        best: tuple[int, Way | None, str, str] | None = None
        for cidr in (*router.cidrs, *(each.ipv6_cidr for each in router.segments if each.ipv6_cidr)):
            network = _network(cidr)
            if _in(address, network) and (best is None or network.prefixlen > best[0]):
                best = (network.prefixlen, None, "", cidr)
        for route in table.routes if table else ():
            network = _network(route.destination)
            if _in(address, network) and (best is None or network.prefixlen >= best[0]):
                best = (network.prefixlen, route.way, route.target, route.destination)
        name = table.name if table else segment.name
        if best is None:
            raise self.drop(name, "route", f"no route to {address}", router)
        return best[1], best[2], best[3], name

    # --- telling ---

    def note(self, where: str, decision: str, detail: str, router: Router | None = None, passed: bool = True) -> None:
        self.steps.append(
            Step(
                where=where,
                decision=decision,
                detail=detail,
                passed=passed,
                vpc_id=router.name if router else "",
                answer=self.answering,
            )
        )

    def drop(self, where: str, decision: str, detail: str, router: Router | None = None) -> _Dropped:
        self.note(where, decision, detail, router, passed=False)
        return _Dropped()


_WORDS = {
    Way.UPLINK: "internet gateway",
    Way.OUTWARD: "egress-only gateway",
    Way.PEER: "peering",
    Way.PORT: "interface",
}


def _segment(router: Router, name: str) -> Segment:
    found = next((segment for segment in router.segments if segment.name == name), None)
    return found or Segment(name=name, cidr="0.0.0.0/32", gateway="")


def _owner(router: Router, address: str) -> Port | None:
    return next((port for port in router.ports if _has(port, address)), None)


def _public(router: Router, private: str) -> str | None:
    pairs = (pair for port in router.ports for pair in port.public)
    return next((public for mine, public in pairs if mine == private), None)


def _of_deployment(routers: Iterable[Router], address: str) -> bool:
    if _is_ipv6(address):
        return any(_within(address, router.cidrs) or _owner(router, address) for router in routers)
    return any(address == public for router in routers for port in router.ports for _, public in port.public)


def _has(port: Port, address: str) -> bool:
    return (
        address == port.address
        or address in port.ipv6_addresses
        or _within(address, port.more_addresses)
        or _within(address, port.ipv6_addresses)
    )


def _matches(protocol: str, first: int, last: int, packet: _Packet) -> bool:
    """Of an echo the code is 0. Ports are those of the destination."""
    if protocol == "-1":
        return True
    if _NUMBERS.get(protocol, protocol) != _NUMBERS.get(packet.protocol, packet.protocol):
        return False
    if packet.is_icmp:
        return first in (-1, packet.dport) and (first == -1 or last in (-1, 0))
    return first == -1 or first <= packet.dport <= last


def _rule(rule: Allow, outbound: bool) -> str:
    ports = "" if rule.from_port == -1 else f" {rule.from_port}"
    ports += f"-{rule.to_port}" if ports and rule.to_port not in (rule.from_port, -1) else ""
    protocol = "all" if rule.protocol == "-1" else rule.protocol
    peer = rule.peer_cidr or rule.peer_policy or rule.peer_set
    return f"{protocol}{ports} {'to' if outbound else 'from'} {peer}"


@lru_cache(maxsize=4096)
def _network(cidr: str) -> IPv4Network | IPv6Network:
    return ip_network(cidr, strict=False)


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text)


def _in(address: str, network: IPv4Network | IPv6Network) -> bool:
    return _address(address) in network  # of another family: it is not


def _within(address: str, ranges: Iterable[str]) -> bool:
    return any(_in(address, _network(cidr)) for cidr in ranges)


def _is_ipv6(address: str) -> bool:
    return ":" in address


def _is_link_local(address: str) -> bool:
    return _address(address).is_link_local


def _is_broadcast(address: str) -> bool:
    return _address(address).is_multicast or address == "255.255.255.255"

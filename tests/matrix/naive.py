"""EC2's rules of the road, read straight from the rows: slow, plain, and knowing nothing of how a host does it.

A packet is carried from interface to interface. At each one the rules are read from the top, every rule, every time:

    source check -> group, outbound -> route -> ACL, outbound -> [gateway, NAT, peering] -> ACL, inbound
                 -> destination check -> group, inbound -> guest (which may send it on, or answer)

A security group remembers, per interface, what it let pass, so that the answer may come back; an ACL remembers nothing.
Sources: "Security groups", "Network ACLs", "Route tables", "NAT gateways", "VPC peering" in Amazon's VPC guide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import (
    EgressOnlyInternetGateway,
    InternetGateway,
    NatGateway,
    NetworkAcl,
    NetworkInterface,
    PeeringConnection,
    PrefixList,
    RouteTable,
    SecurityGroup,
    Subnet,
    Vpc,
)
from orchestrator.store import Store

NUMBERS = {"tcp": "6", "udp": "17", "icmp": "1", "icmpv6": "58"}
MAX_HOPS = 12


@dataclass(frozen=True)
class Packet:
    """For icmp, `sport` is nothing and `dport` is the type."""

    protocol: str  # tcp | udp | icmp | icmpv6
    source: str
    sport: int
    destination: str
    dport: int

    def answer(self) -> Packet:
        if self.protocol in ("icmp", "icmpv6"):
            back = {8: 0, 128: 129}[self.dport]
            return replace(self, source=self.destination, destination=self.source, dport=back)
        return Packet(self.protocol, self.destination, self.dport, self.source, self.sport)

    def flow(self) -> tuple[object, ...]:
        """The same for both directions."""
        ends = sorted([(self.source, self.sport), (self.destination, self.dport)])
        if self.protocol in ("icmp", "icmpv6"):
            ends = sorted([(self.source, 0), (self.destination, 0)])
        return (self.protocol, *ends)


@dataclass(frozen=True)
class Arrived:
    """At a guest, as the guest sees it."""

    interface: str
    packet: Packet


class Dropped(Exception):
    """With the reason, for whoever reads a failure."""


@dataclass
class Naive:
    """`forwards` names the interfaces whose guest sends on what is not for it; `masquerades` those that do so under
    their own address."""

    store: Store
    forwards: set[str] = field(default_factory=set)
    masquerades: set[str] = field(default_factory=set)
    passed: set[tuple[object, ...]] = field(default_factory=set)  # (interface, direction, flow) that groups remember
    translated: dict[tuple[object, ...], tuple[str, int]] = field(default_factory=dict)
    next_port: int = 50000

    # --- the two questions ---

    def ask(self, interface_id: str, packet: Packet) -> Arrived | str:
        """Where a first packet from a guest ends up, or why nowhere."""
        try:
            return self._send(self._eni(interface_id), packet, 0)
        except Dropped as reason:
            return str(reason)

    def ask_and_answer(self, interface_id: str, packet: Packet) -> tuple[Arrived | str, Arrived | str]:
        """The same, and what becomes of the answer."""
        there = self.ask(interface_id, packet)
        if isinstance(there, str):
            return there, "nothing to answer"
        try:
            return there, self._send(self._eni(there.interface), there.packet.answer(), 0)
        except Dropped as reason:
            return there, str(reason)

    # --- one interface sends ---

    def _send(self, eni: NetworkInterface, packet: Packet, hops: int) -> Arrived:
        if hops > MAX_HOPS:
            raise Dropped("goes round in circles")
        if eni.source_dest_check and not self._has(eni, packet.source):
            raise Dropped(f"{eni.id}: {packet.source} is not its own source")
        self._group(eni, packet, egress=True)
        subnet = self._subnet(eni.subnet_id)
        target, destination = self._route(subnet, packet.destination)
        if target == "local":
            receiver = self._owner(eni.vpc_id, packet.destination)
            return self._receive(receiver, packet, subnet, hops)
        if target.startswith("eni-"):
            return self._receive(self._eni(target), packet, subnet, hops)
        if target.startswith("nat-"):
            gateway = self.store.get(NatGateway, target)
            if gateway is None or gateway.state != "available":
                raise Dropped(f"{target} is not there")
            return self._receive(self._eni(gateway.interface_id), packet, subnet, hops)
        self._acl(subnet, packet, egress=True)
        if target.startswith("pcx-"):
            return self._over_peering(eni, target, packet, hops)
        if target.startswith("igw-"):
            return self._over_internet(eni, packet, hops)
        if target.startswith("eigw-"):
            return self._over_internet(eni, packet, hops)
        raise Dropped(f"the route {destination} -> {target} is a blackhole")

    def _over_peering(self, eni: NetworkInterface, target: str, packet: Packet, hops: int) -> Arrived:
        peering = self.store.get(PeeringConnection, target)
        if peering is None or peering.state != "active":
            raise Dropped(f"{target} is not active")
        here, there = self._vpc(eni.vpc_id), self._vpc(peering.other(eni.vpc_id).vpc_id)
        if not self._within(packet.source, here):
            raise Dropped(f"{target}: no transit for {packet.source}")
        if not self._within(packet.destination, there):
            raise Dropped(f"{target}: no transit to {packet.destination}")
        return self._receive(self._owner(there.id, packet.destination), packet, None, hops)

    def _over_internet(self, eni: NetworkInterface, packet: Packet, hops: int) -> Arrived:
        if ":" in packet.source:
            owners = [one for one in self.store.all(NetworkInterface) if packet.destination in one.ipv6_addresses]
            for owner in owners:
                self._reachable_from_outside(owner, packet)
                return self._receive(owner, packet, None, hops)
            raise Dropped(f"nobody has {packet.destination}")
        gateway = [one for one in self.store.all(InternetGateway) if one.vpc_id == eni.vpc_id]
        if not gateway:
            raise Dropped(f"{eni.vpc_id} has no internet gateway")
        # The gateway translates for the interface that sends, whichever it is, and only its own addresses.
        public = self._public(eni.vpc_id, packet.source)
        if public is None:
            raise Dropped(f"{packet.source} has no public address")
        outside = replace(packet, source=public)
        found = self._private(packet.destination)
        if found is None:
            raise Dropped(f"nobody has {packet.destination}")
        receiver, private = found
        if not [one for one in self.store.all(InternetGateway) if one.vpc_id == receiver.vpc_id]:
            raise Dropped(f"{receiver.vpc_id} has no internet gateway")
        return self._receive(receiver, replace(outside, destination=private), None, hops)

    def _reachable_from_outside(self, eni: NetworkInterface, packet: Packet) -> None:
        """IPv6: by the internet gateway anybody may begin; by an egress-only one nobody may."""
        target, _ = self._route(self._subnet(eni.subnet_id), packet.source)
        if target.startswith("igw-"):
            return
        if target.startswith("eigw-") and (eni.id, packet.flow()) in {(one[0], one[2]) for one in self.passed}:
            return
        raise Dropped(f"{eni.id} cannot be reached from outside")

    # --- one interface receives ---

    def _receive(self, eni: NetworkInterface, packet: Packet, source: Subnet | None, hops: int) -> Arrived:
        """`source` is the subnet that it comes from in the same VPC; None when it comes from beyond."""
        subnet = self._subnet(eni.subnet_id)
        if source is None:
            self._acl(subnet, packet, egress=False)
        elif source.id != subnet.id:
            self._acl(source, packet, egress=True)
            self._acl(subnet, packet, egress=False)
        if eni.interface_type == "nat_gateway":
            return self._translate(eni, packet, hops)
        own = self._has(eni, packet.destination)
        if not own and eni.source_dest_check:
            raise Dropped(f"{eni.id}: {packet.destination} is not its own destination")
        self._group(eni, packet, egress=False)
        if eni.id in self.masquerades and (not own or self._is_answer(eni, packet)):
            return self._translate(eni, packet, hops)
        if own:
            return Arrived(eni.id, packet)
        if eni.id in self.forwards:
            return self._send(eni, packet, hops + 1)
        raise Dropped(f"the guest of {eni.id} does not send on")

    def _is_answer(self, eni: NetworkInterface, packet: Packet) -> bool:
        return (eni.id, packet.protocol, packet.source, self._sport(packet), packet.dport) in self.translated

    @staticmethod
    def _sport(packet: Packet) -> int:
        return 0 if packet.protocol == "icmp" else packet.sport

    def _translate(self, eni: NetworkInterface, packet: Packet, hops: int) -> Arrived:
        """What a NAT gateway does, and a guest that masquerades."""
        if packet.destination == eni.private_ip:
            if packet.protocol == "icmp" and packet.dport == 0:
                key: tuple[object, ...] = (eni.id, "icmp", packet.source, 0, 0)
            else:
                key = (eni.id, packet.protocol, packet.source, packet.sport, packet.dport)
            if key not in self.translated:
                raise Dropped(f"{eni.id} was not asked for this")
            address, port = self.translated[key]
            back = replace(packet, destination=address)
            return self._send(eni, back if packet.protocol == "icmp" else replace(back, dport=port), hops + 1)
        self.next_port += 1
        if packet.protocol == "icmp" and packet.dport == 0:  # an answer to what it has not seen asked: no new flow
            if eni.interface_type == "nat_gateway":
                raise Dropped(f"{eni.id} was not asked for this")
            return self._send(eni, packet, hops + 1)
        if packet.protocol == "icmp":
            self.translated[(eni.id, "icmp", packet.destination, 0, 0)] = (packet.source, 0)
            return self._send(eni, replace(packet, source=eni.private_ip), hops + 1)
        self.translated[(eni.id, packet.protocol, packet.destination, packet.dport, self.next_port)] = (
            packet.source,
            packet.sport,
        )
        return self._send(eni, replace(packet, source=eni.private_ip, sport=self.next_port), hops + 1)

    # --- the rules ---

    def _group(self, eni: NetworkInterface, packet: Packet, *, egress: bool) -> None:
        if eni.interface_type == "nat_gateway":
            return
        if (eni.id, not egress, packet.flow()) in self.passed:
            return
        for group_id in eni.groups:
            group = self.store.get(SecurityGroup, group_id)
            assert group is not None
            for rule in group.rules:
                peer = packet.destination if egress else packet.source
                if rule.egress is not egress or not self._matches(rule.protocol, rule.from_port, rule.to_port, packet):
                    continue
                if self._is_peer(eni, rule.cidr_ipv4 or rule.cidr_ipv6, rule.prefix_list_id, rule.group_id, peer):
                    self.passed.add((eni.id, egress, packet.flow()))
                    return
        raise Dropped(f"{eni.id}: no group lets {packet} {'out' if egress else 'in'}")

    def _is_peer(self, eni: NetworkInterface, cidr: str, prefix_list: str, group: str, address: str) -> bool:
        if cidr:
            return inside(address, cidr)
        if prefix_list:
            found = self.store.get(PrefixList, prefix_list)
            return found is not None and any(inside(address, entry.cidr) for entry in found.entries)
        row = self.store.get(SecurityGroup, group)
        if row is None:
            return False
        if row.vpc_id != eni.vpc_id and not any(
            peering.state == "active" and {row.vpc_id, eni.vpc_id} == set(peering.vpc_ids)
            for peering in self.store.all(PeeringConnection)
        ):
            return False
        members = [one for one in self.store.all(NetworkInterface) if group in one.groups and self._is_up(one)]
        return any(self._has(member, address) for member in members)

    @staticmethod
    def _matches(protocol: str, first: int, last: int, packet: Packet) -> bool:
        if protocol == "-1":
            return True
        if NUMBERS.get(protocol, protocol) != NUMBERS[packet.protocol]:
            return False
        if packet.protocol in ("icmp", "icmpv6"):
            return first in (-1, packet.dport) and last in (-1, 0)
        return first == -1 or first <= packet.dport <= last

    def _acl(self, subnet: Subnet, packet: Packet, *, egress: bool) -> None:
        acl = next(one for one in self.store.all(NetworkAcl) if subnet.id in one.associations.values())
        address = packet.destination if egress else packet.source
        for entry in sorted(acl.entries, key=lambda entry: entry.number):
            if entry.egress is not egress or not inside(address, entry.cidr or entry.cidr_ipv6):
                continue
            if self._matches(entry.protocol, entry.from_port, entry.to_port, packet):
                if entry.action == "allow":
                    return
                raise Dropped(
                    f"{acl.id} entry {entry.number} denies {packet} {'out of' if egress else 'into'} {subnet.cidr}"
                )
        raise Dropped(f"{acl.id} has no entry for {packet} {'out of' if egress else 'into'} {subnet.cidr}")

    def _route(self, subnet: Subnet, address: str) -> tuple[str, str]:
        tables = self.store.all(RouteTable, vpc_id=subnet.vpc_id)
        table = next((one for one in tables if subnet.id in one.associations.values()), None)
        table = table or next(one for one in tables if one.main_association_id)
        best: tuple[int, str, str] | None = None
        for route in table.routes:
            ranges = [route.destination]
            if route.destination.startswith("pl-"):
                prefix_list = self.store.get(PrefixList, route.destination)
                ranges = [entry.cidr for entry in prefix_list.entries] if prefix_list else []
            for cidr in ranges:
                if inside(address, cidr):
                    length = ip_network(cidr).prefixlen
                    if best is None or length > best[0]:
                        best = (length, route.target, cidr)
        if best is None:
            raise Dropped(f"{table.id} has no route to {address}")
        self._must_lead_on(best[1], subnet.vpc_id)
        return best[1], best[2]

    def _must_lead_on(self, target: str, vpc_id: str) -> None:
        kind = target.partition("-")[0]
        gone: Callable[[], bool] = {
            "igw": lambda: not any(g.id == target and g.vpc_id == vpc_id for g in self.store.all(InternetGateway)),
            "eigw": lambda: not any(g.id == target for g in self.store.all(EgressOnlyInternetGateway)),
            "eni": lambda: not any(e.id == target and self._is_up(e) for e in self.store.all(NetworkInterface)),
        }.get(kind, lambda: False)
        if gone():
            raise Dropped(f"{target} is gone: a blackhole")

    # --- who is who ---

    def _eni(self, interface_id: str) -> NetworkInterface:
        found = self.store.get(NetworkInterface, interface_id)
        if found is None:
            raise Dropped(f"{interface_id} is gone")
        return found

    def _subnet(self, subnet_id: str) -> Subnet:
        found = self.store.get(Subnet, subnet_id)
        assert found is not None
        return found

    def _vpc(self, vpc_id: str) -> Vpc:
        found = self.store.get(Vpc, vpc_id)
        assert found is not None
        return found

    def _is_up(self, eni: NetworkInterface) -> bool:
        instance = self.store.get(Instance, eni.instance_id)
        return instance is not None and instance.state is State.RUNNING

    @staticmethod
    def _has(eni: NetworkInterface, address: str) -> bool:
        return address in eni.addresses or any(inside(address, prefix) for prefix in eni.prefixes)

    @staticmethod
    def _within(address: str, vpc: Vpc) -> bool:
        ranges = (*vpc.cidrs, *(each.cidr for each in vpc.ipv6_cidrs))
        return any(inside(address, cidr) for cidr in ranges)

    def _owner(self, vpc_id: str, address: str) -> NetworkInterface:
        for eni in self.store.all(NetworkInterface, vpc_id=vpc_id):
            if self._has(eni, address) and (eni.interface_type == "nat_gateway" or self._is_up(eni)):
                return eni
        raise Dropped(f"nobody in {vpc_id} has {address}")

    def _public(self, vpc_id: str, private: str) -> str | None:
        for eni in self.store.all(NetworkInterface, vpc_id=vpc_id):
            for address in self.store.all(ElasticIp):
                if address.interface_id == eni.id and address.private_ip == private:
                    return address.public_ip
            if eni.private_ip == private and eni.public_ip:
                return eni.public_ip
        return None

    def _private(self, public: str) -> tuple[NetworkInterface, str] | None:
        for address in self.store.all(ElasticIp):
            if address.public_ip == public and address.interface_id:
                return self._eni(address.interface_id), address.private_ip
        for eni in self.store.all(NetworkInterface):
            if eni.public_ip == public:
                return eni, eni.private_ip
        return None


def inside(address: str, cidr: str) -> bool:
    if not cidr or (":" in address) is not (":" in cidr):
        return False
    return ip_address(address) in ip_network(cidr)

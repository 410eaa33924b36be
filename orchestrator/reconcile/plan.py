"""Plans: a VPC's rows become one Router, the value that a host is made equal to.

    rows (Vpc, Subnet, NetworkInterface, SecurityGroup, ...) --- plan ---> Router --- Network.apply ---> the host

Pure: it reads rows and nothing else, and the same rows give the same value, in the same order. A VPC is on the host
only while machines are plugged into it, so the plan of any other is None; a peering is in the plans of its two sides
only while both are on the host. What rows refer to and is not there is left out, or leads nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from operator import attrgetter

from orchestrator.host import (
    Acl,
    AclRule,
    AddressSet,
    Allow,
    Dhcp,
    Peering,
    Policy,
    Port,
    Rate,
    Record,
    Route,
    Router,
    Segment,
    Table,
    Way,
)
from orchestrator.model import instance_type
from orchestrator.model.elastic_ip import ElasticIp, public_addresses
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import Rows
from orchestrator.model.route import LOCAL
from orchestrator.model.vpc import (
    LONGEST_DHCP_OPTION,
    AclEntry,
    DhcpOptions,
    EgressOnlyInternetGateway,
    FlowLog,
    InternetGateway,
    NatGateway,
    NetworkAcl,
    NetworkInterface,
    PeeringConnection,
    PrefixList,
    RouteTable,
    Rule,
    SecurityGroup,
    Subnet,
    Vpc,
    domain_name,
    private_dns_name,
    public_dns_name,
    resolver_address,
    resource_dns_name,
)
from orchestrator.model.vpc import Route as RouteRow

METADATA_ADDRESS = "169.254.169.254"
METADATA_IPV6_ADDRESS = "fd00:ec2::254"
PLUGGED = frozenset({State.PENDING, State.RUNNING, State.STOPPING, State.SHUTTING_DOWN})

AMAZON_DNS = "AmazonProvidedDNS"
BURST_S = 60  # how long an interface that was quiet can send at its peak
LARGEST_CREDIT_BYTES = (4 << 30) - 1
LAST_ACL_RULE = 32766  # what comes after it is EC2's own: refuse the rest

_PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6"}
_EVERYWHERE = ("0.0.0.0/0", "::/0")


def plan(rows: Rows, vpc_id: str, kept: Kept | None = None) -> Router | None:
    """The router of a VPC; None when nothing is plugged into it. What was `kept` of its last plan makes the next one
    cheaper, and changes nothing of it."""
    found = rows.get(Vpc, vpc_id)
    plugs = _plugs(rows, vpc_id) if found is not None else []
    if found is None or not plugs:
        return None
    return _Draft(rows, found, plugs, kept if kept is not None else Kept()).router()


@dataclass(frozen=True, slots=True)
class _Made:
    """A port as it was made, what it was made of besides its rows, and the names of its own."""

    plug: _Plug
    rest: tuple[object, ...]
    port: Port
    private_names: tuple[Record, ...]
    resource_names: tuple[Record, ...]


@dataclass(slots=True)
class Kept:
    """The ports of a VPC's last plan, by name: those whose rows are the very ones that they were are used again, so
    that a launch costs one port and not as many as there are. Also, two plans are compared in no time where they share
    their ports. Whoever makes plans of a VPC one after the other keeps one of these for it."""

    made: dict[str, _Made] = field(default_factory=dict)
    common: tuple[object, ...] = ()  # what all of them depend on besides


def peers(rows: Rows, vpc_id: str) -> list[str]:
    """The VPCs whose plans may depend on what is in this one."""
    active = (peering for peering in rows.all(PeeringConnection, vpc_ids=vpc_id) if peering.state == "active")
    return sorted({peering.other(vpc_id).vpc_id for peering in active} - {vpc_id})


@dataclass(frozen=True, slots=True)
class _Plug:
    """An interface that a port is made for. Without an instance it is a NAT gateway's."""

    interface: NetworkInterface
    instance: Instance | None


def _plugs(rows: Rows, vpc_id: str) -> list[_Plug]:
    """The interfaces of machines that are on the host; and if there are any, those of NAT gateways."""
    interfaces = sorted(rows.all(NetworkInterface, vpc_id=vpc_id), key=attrgetter("id"))
    found = [_Plug(each, instance) for each in interfaces if (instance := _holder(rows, each)) is not None]
    if not found:
        return []
    gateways = {gateway.interface_id for gateway in _nat_gateways(rows, vpc_id)}
    if gateways:
        found += [_Plug(each, None) for each in interfaces if each.id in gateways]
        found.sort(key=attrgetter("interface.id"))
    return found


def _holder(rows: Rows, interface: NetworkInterface) -> Instance | None:
    """The instance whose machine an interface is plugged into now."""
    instance = rows.get(Instance, interface.instance_id) if interface.attachment else None
    return instance if instance is not None and instance.state in PLUGGED else None


def _primary_of(plug: _Plug) -> Instance | None:
    """The instance that an interface is the primary one of."""
    attachment = plug.interface.attachment
    return plug.instance if attachment is not None and attachment.device_index == 0 else None


def _nat_gateways(rows: Rows, vpc_id: str) -> Iterator[NatGateway]:
    return (gateway for gateway in rows.all(NatGateway, vpc_id=vpc_id) if gateway.state == "available")


class _Draft:
    """One plan while it is made: what several of its parts ask for is found once."""

    def __init__(self, rows: Rows, vpc: Vpc, plugs: Sequence[_Plug], kept: Kept) -> None:
        self.rows = rows
        self.vpc = vpc
        self.plugs = plugs
        used = {plug.interface.subnet_id for plug in plugs}
        self.subnets = {
            subnet.id: subnet
            for subnet in sorted(rows.all(Subnet, vpc_id=vpc.id), key=lambda subnet: subnet.id)
            if subnet.id in used
        }
        self.plugs = [plug for plug in plugs if plug.interface.subnet_id in self.subnets]
        self.gateways = {gateway.id for gateway in rows.all(InternetGateway, vpc_id=vpc.id)}
        self.ways_out = {gateway.id for gateway in rows.all(EgressOnlyInternetGateway, vpc_id=vpc.id)}
        self.logged = {log.resource_id for log in rows.all(FlowLog)}
        active = [peering for peering in rows.all(PeeringConnection, vpc_ids=vpc.id) if peering.state == "active"]
        self.active = sorted(active, key=lambda peering: peering.id)
        self.addresses: dict[str, tuple[str, ...]] = {}  # of the sets that rules refer to
        self.siblings: dict[str, int] = {}  # how many interfaces share an instance's bandwidth
        for plug in self.plugs:
            if plug.instance is not None:
                self.siblings[plug.instance.id] = self.siblings.get(plug.instance.id, 0) + 1
        shared = {instance: count for instance, count in self.siblings.items() if count > 1}
        common = (vpc.region, tuple(self.groups), self.logged, shared, bool(self.gateways))
        # Public addresses are rows of their own, which may change while those of the port do not.
        alike = common == kept.common and not self.gateways
        self.made = {plug.interface.id: self._make(plug, kept.made, alike=alike) for plug in self.plugs}
        kept.made, kept.common = self.made, common

    def router(self) -> Router:
        policies = tuple(self._policies())
        segments = tuple(self._segments())
        wanted_acls = {segment.acl for segment in segments}
        return Router(
            name=self.vpc.id,
            cidrs=_ranges(self.vpc),
            segments=segments,
            ports=tuple(each.port for each in self.made.values()),
            policies=policies,
            address_sets=tuple(AddressSet(name=name, addresses=held) for name, held in sorted(self.addresses.items())),
            acls=tuple(_acl(acl) for acl in self.acls if acl.id in wanted_acls),
            tables=tuple(self._tables(segments)),
            peerings=tuple(
                Peering(name=name, router=other.id, their_cidrs=_ranges(other))
                for name, (other, _) in self.peerings.items()
            ),
            domain=domain_name(self.vpc.region),
            resolver=self._resolver,
            records=tuple(self._records()) if self.vpc.enable_dns_support else (),
            public_name=public_dns_name("{}", self.vpc.region),
            dhcp=self._dhcp(),
            uplink=bool(self.gateways or self.ways_out),
        )

    # --- segments and ports ---

    def _segments(self) -> Iterator[Segment]:
        for subnet in self.subnets.values():
            table, acl = self._table_of(subnet), self._acl_of(subnet)
            yield Segment(
                name=subnet.id,
                cidr=subnet.cidr,
                gateway=str(subnet.network.network_address + 1),
                ipv6_cidr=subnet.ipv6_cidrs[0].cidr if subnet.ipv6_cidrs else "",
                table=table.id if table else "",
                acl=acl.id if acl and not _is_open(acl, ipv6=bool(subnet.ipv6_cidrs)) else "",
            )

    def _make(self, plug: _Plug, before: Mapping[str, _Made], *, alike: bool) -> _Made:
        interface, instance = plug.interface, plug.instance
        made = before.get(interface.id)
        # Rows never change: another revision is another row.
        same_rows = made is not None and made.plug.interface is interface and made.plug.instance is instance
        if made is not None and same_rows and alike:
            return made
        rest = (
            self.vpc.region,
            self._public(interface) if self.gateways else (),
            tuple(group for group in interface.groups if group in self.groups) if instance else (),
            _rate(instance.instance_type, self.siblings[instance.id]) if instance else None,
            not self.logged.isdisjoint((interface.id, interface.subnet_id, interface.vpc_id)),
        )
        if made is not None and same_rows and made.rest == rest:
            return made
        names = (Record(name=private_dns_name(each, self.vpc.region), address=each) for each in interface.private_ips)
        port = self._port(plug, *rest[1:])
        if made is not None and made.port == port:
            port = made.port
        return _Made(plug, rest, port, tuple(names), tuple(self._resource_names(plug)))

    def _port(
        self, plug: _Plug, public: tuple[tuple[str, str], ...], policies: tuple[str, ...], rate: Rate | None, log: bool
    ) -> Port:
        interface, instance = plug.interface, plug.instance
        return Port(
            name=interface.id,
            segment=interface.subnet_id,
            mac=interface.mac,
            address=interface.private_ip,
            more_addresses=(*interface.more_private_ips, *(each for each in interface.prefixes if ":" not in each)),
            ipv6_addresses=interface.ipv6_addresses,
            host_name=self._host_name(plug),
            public=public,
            check_addresses=instance is not None and interface.source_dest_check,
            policies=policies,
            rate=rate,
            log=log,
            translator=instance is None,
        )

    def _host_name(self, plug: _Plug) -> str:
        """By DHCP. A name of the instance's own is its primary interface's alone."""
        address = plug.interface.private_ip
        primary = _primary_of(plug)
        name = primary.private_name(address) if primary else private_dns_name(address, self.vpc.region)
        return name.partition(".")[0]

    def _public(self, interface: NetworkInterface) -> tuple[tuple[str, str], ...]:
        found = public_addresses(self.rows, interface)
        return tuple((private, found[private].public_ip) for private in interface.private_ips if private in found)

    # --- policies ---

    @cached_property
    def groups(self) -> dict[str, SecurityGroup]:
        """The groups of what is plugged in, and those that these refer to, in order of their ids."""
        own = {group.id: group for group in self.rows.all(SecurityGroup, vpc_id=self.vpc.id)}
        joined = {group for plug in self.plugs if plug.instance for group in plug.interface.groups if group in own}
        named = {rule.group_id for group in joined for rule in own[group].rules if rule.group_id in own}
        return {name: own[name] for name in sorted(joined | named)}

    def _policies(self) -> Iterator[Policy]:
        for group in self.groups.values():
            allowed = [(rule.egress, allow) for rule in group.rules if (allow := self._allow(rule)) is not None]
            yield Policy(
                name=group.id,
                inbound=tuple(allow for egress, allow in allowed if not egress),
                outbound=tuple(allow for egress, allow in allowed if egress),
            )

    def _allow(self, rule: Rule) -> Allow | None:
        """None for a rule whose source or destination is not there."""
        peer: dict[str, str] = {}
        if rule.cidr_ipv4 or rule.cidr_ipv6:
            peer["peer_cidr"] = rule.cidr_ipv4 or rule.cidr_ipv6
        elif rule.prefix_list_id and self._prefixes(rule.prefix_list_id):
            peer["peer_set"] = rule.prefix_list_id
        elif rule.group_id in self.groups:
            peer["peer_policy"] = rule.group_id
        elif rule.group_id and self._peer_members(rule):
            peer["peer_set"] = rule.group_id
        else:
            return None
        return Allow(protocol=rule.protocol, from_port=rule.from_port, to_port=rule.to_port, **peer)

    def _prefixes(self, prefix_list_id: str) -> bool:
        """Whether a prefix list is there; then its ranges are a set."""
        if prefix_list_id not in self.addresses:
            found = self.rows.get(PrefixList, prefix_list_id)
            if found is None:
                return False
            self.addresses[prefix_list_id] = tuple(sorted({entry.cidr for entry in found.entries}))
        return True

    def _peer_members(self, rule: Rule) -> bool:
        """Whether a rule names a group of a VPC that this one is the peer of; then the addresses of those of its
        members that are plugged in are a set."""
        if rule.group_id not in self.addresses:
            group = self.rows.get(SecurityGroup, rule.group_id)
            if group is None or group.vpc_id == self.vpc.id:
                return False
            named = [each for each in self.active if not rule.peering_id or each.id == rule.peering_id]
            if not any(each.other(self.vpc.id).vpc_id == group.vpc_id for each in named):
                return False
            members = (plug.interface for plug in self._plugs_of(group.vpc_id) if group.id in plug.interface.groups)
            held = {address for member in members for address in (*member.addresses, *member.prefixes)}
            self.addresses[rule.group_id] = tuple(sorted(held))
        return True

    # --- routes and ACLs ---

    @cached_property
    def route_tables(self) -> list[RouteTable]:
        return sorted(self.rows.all(RouteTable, vpc_id=self.vpc.id), key=lambda table: table.id)

    @cached_property
    def acls(self) -> list[NetworkAcl]:
        return sorted(self.rows.all(NetworkAcl, vpc_id=self.vpc.id), key=lambda acl: acl.id)

    def _table_of(self, subnet: Subnet) -> RouteTable | None:
        """The one that it is associated with; without such a one, the VPC's main."""
        explicit = (table for table in self.route_tables if subnet.id in table.associations.values())
        main = (table for table in self.route_tables if table.main_association_id)
        return next(explicit, None) or next(main, None)

    def _acl_of(self, subnet: Subnet) -> NetworkAcl | None:
        return next((acl for acl in self.acls if subnet.id in acl.associations.values()), None)

    def _tables(self, segments: Sequence[Segment]) -> Iterator[Table]:
        used = {segment.table for segment in segments}
        for table in self.route_tables:
            if table.id in used:
                routes = self._routes(table)
                yield Table(name=table.id, routes=tuple(routes[destination] for destination in sorted(routes)))

    def _routes(self, table: RouteTable) -> dict[str, Route]:
        """By destination. Where a route and a prefix list both name a range, the route decides.

        Source: "Route priority" in the VPC user guide."""
        found: dict[str, Route] = {}
        for by_list in (False, True):
            for route in table.routes:
                if route.target == LOCAL or route.destination.startswith("pl-") is not by_list:
                    continue
                for destination in self._destinations(route):
                    if destination not in found:
                        found[destination] = self._route(destination, route.target)
        return found

    def _destinations(self, route: RouteRow) -> Sequence[str]:
        if not route.destination.startswith("pl-"):
            return (route.destination,)
        found = self.rows.get(PrefixList, route.destination)
        return [entry.cidr for entry in found.entries] if found else ()

    def _route(self, destination: str, target: str) -> Route:
        way, name = Way.NOWHERE, ""
        if target in self.gateways:
            way = Way.UPLINK
        elif target in self.ways_out and ":" in destination:
            way = Way.OUTWARD
        elif target in self.peerings:
            way, name = Way.PEER, target
        else:
            port = self.senders.get(target)
            if port is not None and (port.ipv6_addresses or ":" not in destination):
                way, name = Way.PORT, port.id
        return Route(destination=destination, way=way, target=name)

    @cached_property
    def senders(self) -> dict[str, NetworkInterface]:
        """What a route may name as a target and is a port: interfaces, and NAT gateways by their interface."""
        found = {plug.interface.id: plug.interface for plug in self.plugs}
        for gateway in _nat_gateways(self.rows, self.vpc.id):
            if gateway.interface_id in found:
                found[gateway.id] = found[gateway.interface_id]
        return found

    # --- peers ---

    @cached_property
    def peerings(self) -> dict[str, tuple[Vpc, PeeringConnection]]:
        """The VPC at the other end of each peering connection that can be used now."""
        found = {}
        for peering in self.active:
            other = self.rows.get(Vpc, peering.other(self.vpc.id).vpc_id)
            if other is not None and other.id != self.vpc.id and self._plugs_of(other.id):
                found[peering.id] = (other, peering)
        return found

    def _plugs_of(self, vpc_id: str) -> Sequence[_Plug]:
        if vpc_id not in self._theirs:
            self._theirs[vpc_id] = _plugs(self.rows, vpc_id)
        return self._theirs[vpc_id]

    @cached_property
    def _theirs(self) -> dict[str, Sequence[_Plug]]:
        return {}

    # --- names, and what guests are told ---

    @property
    def _resolver(self) -> str:
        return resolver_address(self.vpc.cidr) if self.vpc.enable_dns_support else ""

    def _records(self) -> Iterator[Record]:
        """Private names first: an address resolves back to the first that it has."""
        yield Record(name=f"instance-data.{domain_name(self.vpc.region)}", address=METADATA_ADDRESS)
        for each in self.made.values():
            yield from each.private_names
        for each in self.made.values():
            yield from each.resource_names
        if self.vpc.enable_dns_hostnames:
            yield from self._public_names(self.plugs, self.vpc)
        yield from self._chosen_names()
        for other, peering in self.peerings.values():
            if other.enable_dns_hostnames and peering.other(self.vpc.id).allow_dns:
                yield from self._public_names(self._plugs_of(other.id), other)

    def _resource_names(self, plug: _Plug) -> Iterator[Record]:
        instance = _primary_of(plug)
        if instance is None:
            return
        name = resource_dns_name(instance.id, self.vpc.region)
        if instance.resource_name_a:
            yield Record(name=name, address=plug.interface.private_ip)
        if instance.resource_name_aaaa and plug.interface.ipv6_addresses:
            yield Record(name=name, address=plug.interface.ipv6_addresses[0])

    def _public_names(self, plugs: Iterable[_Plug], vpc: Vpc) -> Iterator[Record]:
        """Inside, they resolve to private addresses."""
        for plug in plugs:
            for private, public in self._public(plug.interface):
                yield Record(name=public_dns_name(public, vpc.region), address=private)

    def _chosen_names(self) -> Iterator[Record]:
        """Those that owners gave to their Elastic IPs, and that these resolve back to."""
        named = [each for each in self.rows.all(ElasticIp, has_name=True) if each.interface_id in self.made]
        for address in sorted(named, key=lambda address: (address.interface_id, address.id)):
            yield Record(name=address.domain_name.rstrip("."), address=address.public_ip)

    def _dhcp(self) -> Dhcp:
        found = self.rows.get(DhcpOptions, self.vpc.dhcp_options_id)
        if found is None:
            return Dhcp()
        options = found.options
        servers = (self._resolver if each == AMAZON_DNS else each for each in options.get("domain-name-servers", ()))
        lease = _number(options.get("ipv6-address-preferred-lease-time"))
        return Dhcp(
            domain=_fitting(" ".join(options.get("domain-name", ()))),
            servers=tuple(each for each in servers if each),
            ntp_servers=options.get("ntp-servers", ()),
            netbios_servers=options.get("netbios-name-servers", ()),
            netbios_node_type=_number(options.get("netbios-node-type")),
            ipv6_lease_s=lease or Dhcp().ipv6_lease_s,
        )


def _ranges(vpc: Vpc) -> tuple[str, ...]:
    return (*vpc.cidrs, *(each.cidr for each in vpc.ipv6_cidrs))


def _fitting(names: str) -> str:
    """As many of them as one option holds: more have been taken before that was looked at."""
    return names if len(names) <= LONGEST_DHCP_OPTION else names[: LONGEST_DHCP_OPTION + 1].rpartition(" ")[0]


def _number(values: Sequence[str] | None) -> int:
    return int(values[0]) if values and values[0].isdecimal() else 0


@cache
def _rate(type_name: str, interfaces: int) -> Rate | None:
    """An interface's part of its instance's bandwidth.

    On EC2 all interfaces of an instance share what its type has. A port cannot know what others send, so each has its
    part of the baseline and of the credit, and any may burst to the peak while that lasts: together they never have
    more than the instance for long. Source: "Amazon EC2 instance network bandwidth" in the EC2 user guide.
    """
    kind = instance_type.CATALOGUE.get(type_name)
    if kind is None or not kind.network_cards:
        return None
    card = kind.network_cards[0]  # interfaces are all on the first
    baseline_bps, peak_bps = round(card.baseline_gbps * 1e9), round(card.peak_gbps * 1e9)
    credit_bytes = min((peak_bps - baseline_bps) * BURST_S // 8, LARGEST_CREDIT_BYTES)
    return Rate(
        baseline_bps=max(1, baseline_bps // interfaces), peak_bps=peak_bps, credit_bytes=credit_bytes // interfaces
    )


def _is_open(acl: NetworkAcl, *, ipv6: bool) -> bool:
    """Whether it lets everything pass, as default ones do: in both directions, by the first rule of each family."""
    for egress in (False, True):
        for everywhere in _EVERYWHERE if ipv6 else _EVERYWHERE[:1]:
            first = next((each for each in _lines(acl, egress) if (":" in _cidr(each)) == (":" in everywhere)), None)
            if first is None or (first.action, first.protocol, _cidr(first)) != ("allow", "-1", everywhere):
                return False
    return True


def _acl(acl: NetworkAcl) -> Acl:
    inbound, outbound = (tuple(_acl_rule(each) for each in _lines(acl, egress)) for egress in (False, True))
    return Acl(name=acl.id, inbound=inbound, outbound=outbound)


def _lines(acl: NetworkAcl, egress: bool) -> list[AclEntry]:
    found = [each for each in acl.entries if each.egress is egress and each.number <= LAST_ACL_RULE]
    return sorted(found, key=lambda each: each.number)


def _cidr(entry: AclEntry) -> str:
    return entry.cidr or entry.cidr_ipv6


def _acl_rule(entry: AclEntry) -> AclRule:
    return AclRule(
        number=entry.number,
        accept=entry.action == "allow",
        protocol=_PROTOCOLS.get(entry.protocol, entry.protocol),
        cidr=_cidr(entry),
        from_port=entry.from_port,
        to_port=entry.to_port,
    )

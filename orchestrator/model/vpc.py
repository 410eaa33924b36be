"""Networks: VPCs, subnets, security groups, interfaces, and what every region starts with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from typing import ClassVar

from orchestrator.model.ids import mint
from orchestrator.model.resource import Resource

DEFAULT_VPC_CIDR = "172.31.0.0/16"


@dataclass(frozen=True, slots=True, kw_only=True)
class CidrAssociation:
    """A range that a VPC or a subnet got besides its first one; all IPv6 ranges are such."""

    id: str  # vpc-cidr-assoc-... | subnet-cidr-assoc-...
    cidr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vpc(Resource):
    KIND: ClassVar[str] = "vpc"

    cidr: str
    more_cidrs: tuple[CidrAssociation, ...] = ()
    ipv6_cidrs: tuple[CidrAssociation, ...] = ()
    is_default: bool = False
    state: str = "available"
    dhcp_options_id: str = ""
    enable_dns_support: bool = True
    enable_dns_hostnames: bool = False
    enable_network_address_usage_metrics: bool = False
    tenancy: str = "default"

    @property
    def cidrs(self) -> tuple[str, ...]:
        """Its IPv4 ranges, the primary first."""
        return (self.cidr, *(each.cidr for each in self.more_cidrs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet(Resource):
    KIND: ClassVar[str] = "subnet"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_id")

    vpc_id: str
    zone: str
    cidr: str
    state: str = "available"
    default_for_zone: bool = False
    map_public_ip_on_launch: bool = False
    ipv6_cidrs: tuple[CidrAssociation, ...] = ()  # at most one, a /64
    assign_ipv6_on_creation: bool = False
    enable_dns64: bool = False
    host_name_type: str = "ip-name"  # ip-name | resource-name
    resource_name_a: bool = False  # resource names resolve to IPv4 addresses
    resource_name_aaaa: bool = False

    @property
    def network(self) -> IPv4Network:
        return IPv4Network(self.cidr)

    @property
    def ipv6_network(self) -> IPv6Network | None:
        return IPv6Network(self.ipv6_cidrs[0].cidr) if self.ipv6_cidrs else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One security group rule. Exactly one of `cidr_ipv4`, `cidr_ipv6`, `prefix_list_id`, `group_id` is set.

    Ports are -1 for all. A group of a peered VPC comes with its account and the peering connection.
    """

    id: str
    egress: bool
    protocol: str  # tcp | udp | icmp | icmpv6 | -1 | a number
    from_port: int = -1
    to_port: int = -1
    cidr_ipv4: str = ""
    cidr_ipv6: str = ""
    prefix_list_id: str = ""
    group_id: str = ""
    group_account: str = ""  # empty: that of the rule's own group
    peering_id: str = ""  # pcx-...: the group is in the VPC at its other end
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityGroup(Resource):
    KIND: ClassVar[str] = "security-group"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_id")

    name: str
    description: str
    vpc_id: str
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceAttachment:
    id: str  # eni-attach-...
    instance_id: str
    device_index: int
    state: str = "attached"  # attaching | attached | detaching
    forced: bool = False  # to be detached even if the guest does not let go
    delete_on_termination: bool = True
    attached_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInterface(Resource):
    KIND: ClassVar[str] = "network-interface"
    INDEXES: ClassVar[tuple[str, ...]] = (
        "account",
        "vpc_id",
        "subnet_id",
        "instance_id",
        "private_ip",
        "public_ip",
        "addresses",
        "prefixes",
        "groups",
    )

    vpc_id: str
    subnet_id: str
    zone: str
    mac: str
    private_ip: str
    more_private_ips: tuple[str, ...] = ()  # secondary ones
    prefixes: tuple[str, ...] = ()  # /28 ranges that it has besides
    ipv6_addresses: tuple[str, ...] = ()
    public_ip: str = ""  # auto-assigned; the guest never sees it. Elastic ones: see `elastic_ip`
    auto_public_ip: bool = False  # each start gives it a public address
    last_public_ip: str = ""  # that of the last start: the next one's is another
    description: str = ""
    groups: tuple[str, ...] = ()
    source_dest_check: bool = True
    state: str = "available"  # available | in-use
    attachment: InterfaceAttachment | None = None
    interface_type: str = "interface"  # interface | nat_gateway
    requester_id: str = ""  # who made it, where that was no user: it can be changed by nobody else

    @property
    def instance_id(self) -> str:
        return self.attachment.instance_id if self.attachment else ""

    @property
    def private_ips(self) -> tuple[str, ...]:
        """Its IPv4 addresses, the primary first, without those of its prefixes."""
        return (self.private_ip, *self.more_private_ips)

    @property
    def addresses(self) -> tuple[str, ...]:
        """All that it has, IPv4 and IPv6, without those of its prefixes."""
        return (*self.private_ips, *self.ipv6_addresses)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfacePermission(Resource):
    """Lets another account attach an interface to an instance of its own."""

    KIND: ClassVar[str] = "network-interface-permission"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "interface_id")

    interface_id: str
    granted_to: str  # an account
    permission: str  # INSTANCE-ATTACH | EIP-ASSOCIATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """`destination` is an IPv4 or IPv6 range, or a prefix list's id. Whether it is a blackhole follows from its target:
    see `route.state`."""

    destination: str
    target: str  # local | igw-... | eigw-... | nat-... | eni-... | pcx-... | vpce-...
    origin: str = ""  # CreateRouteTable | CreateRoute; empty: the first for local, else the second


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable(Resource):
    KIND: ClassVar[str] = "route-table"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_id")

    vpc_id: str
    main_association_id: str = ""
    routes: tuple[Route, ...] = ()
    associations: dict[str, str] = field(default_factory=dict)  # rtbassoc-... -> subnet id


@dataclass(frozen=True, slots=True, kw_only=True)
class InternetGateway(Resource):
    KIND: ClassVar[str] = "internet-gateway"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_id")

    vpc_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressOnlyInternetGateway(Resource):
    """The way out for IPv6 alone: answers come back, nobody outside can begin."""

    KIND: ClassVar[str] = "egress-only-internet-gateway"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_id")

    vpc_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NatAddress:
    """One address of a NAT gateway. Its Elastic IP, if any, is associated with the gateway's interface."""

    private_ip: str
    allocation_id: str = ""
    primary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NatGateway(Resource):
    """pending -> available -> deleting -> deleted (forgotten after an hour); pending -> failed -> deleting.

    It stands on an interface of its own, which goes with it.
    """

    KIND: ClassVar[str] = "natgateway"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_id", "interface_id")

    vpc_id: str
    subnet_id: str
    connectivity: str = "public"  # public | private
    state: str = "pending"
    interface_id: str
    addresses: tuple[NatAddress, ...] = ()
    failure_code: str = ""
    failure_message: str = ""
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeeringSide:
    account: str
    region: str
    vpc_id: str
    allow_dns: bool = False  # public names resolve to private addresses for the other side


@dataclass(frozen=True, slots=True, kw_only=True)
class PeeringConnection(Resource):
    """pending-acceptance -> active | rejected | expired (after a week) | deleted; active -> deleted.

    `account` and `region` are the requester's; both sides see it.
    """

    KIND: ClassVar[str] = "vpc-peering-connection"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_ids")

    requester: PeeringSide
    accepter: PeeringSide
    state: str = "pending-acceptance"
    message: str = ""
    expires: datetime | None = None
    ended_at: datetime | None = None
    accepter_tags: dict[str, str] = field(default_factory=dict)  # where the accepter is another account or region

    @property
    def vpc_ids(self) -> tuple[str, ...]:
        return self.requester.vpc_id, self.accepter.vpc_id

    def as_of(self, now: datetime) -> PeeringConnection:
        """As it is at that time: what nobody answered has expired, whether the row says so yet or not."""
        if self.state != "pending-acceptance" or self.expires is None or self.expires > now:
            return self
        return replace(self, state="expired", ended_at=self.expires)

    def other(self, vpc_id: str) -> PeeringSide:
        return self.accepter if vpc_id == self.requester.vpc_id else self.requester

    def is_of(self, account: str, region: str) -> bool:
        """Whether one of its sides is."""
        return (account, region) in ((side.account, side.region) for side in (self.requester, self.accepter))

    def tags_of(self, account: str, region: str) -> dict[str, str]:
        """Each side has tags of its own; a peering within one account and region has one set."""
        mine = (account, region) == (self.requester.account, self.requester.region)
        return self.tags if mine else self.accepter_tags

    def with_tags(self, account: str, region: str, tags: dict[str, str]) -> PeeringConnection:
        mine = (account, region) == (self.requester.account, self.requester.region)
        return replace(self, tags=tags) if mine else replace(self, accepter_tags=tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixEntry:
    cidr: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixList(Resource):
    """`account` is AWS for those that come with a region."""

    KIND: ClassVar[str] = "prefix-list"

    name: str
    family: str  # IPv4 | IPv6
    max_entries: int
    version: int = 1
    entries: tuple[PrefixEntry, ...] = ()
    earlier: dict[str, tuple[PrefixEntry, ...]] = field(default_factory=dict)  # version -> entries
    state: str = "create-complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class VpcEndpoint(Resource):
    """A gateway endpoint: a route to a service's prefix list in each of its tables."""

    KIND: ClassVar[str] = "vpc-endpoint"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_id")

    vpc_id: str
    service: str  # com.amazonaws.REGION.s3
    route_table_ids: tuple[str, ...] = ()
    policy: str = ""
    state: str = "available"


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowLog(Resource):
    """Records of what passed and what was refused at a resource's interfaces, written to a file."""

    KIND: ClassVar[str] = "vpc-flow-log"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "resource_id")

    resource_id: str  # vpc-... | subnet-... | eni-...
    traffic: str  # ACCEPT | REJECT | ALL
    destination_type: str = "s3"
    destination: str = ""
    fields: str = ""  # EC2's format string; empty: the default one
    interval_s: int = 600
    log_group: str = ""
    role: str = ""  # ARNs that delivery was asked to use; told back, and of no effect
    cross_account_role: str = ""
    file_format: str = ""  # of an s3 destination: plain-text | parquet; empty: not said
    hive_partitions: bool = False
    hourly_partitions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AclEntry:
    """Exactly one of `cidr` (IPv4) and `cidr_ipv6` is set."""

    number: int
    egress: bool
    protocol: str
    action: str  # allow | deny
    cidr: str = ""
    cidr_ipv6: str = ""
    from_port: int = -1
    to_port: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkAcl(Resource):
    KIND: ClassVar[str] = "network-acl"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_id")

    vpc_id: str
    is_default: bool = False
    entries: tuple[AclEntry, ...] = ()
    associations: dict[str, str] = field(default_factory=dict)  # aclassoc-... -> subnet id


LONGEST_DHCP_OPTION = 255  # octets (RFC 2132)


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpOptions(Resource):
    KIND: ClassVar[str] = "dhcp-options"

    options: dict[str, tuple[str, ...]] = field(default_factory=dict)


def reserved_addresses(network: IPv4Network) -> frozenset[str]:
    """The five addresses of a subnet that no interface gets: network, router, DNS, one kept back, broadcast."""
    first = int(network.network_address)
    kept = [first, first + 1, first + 2, first + 3, int(network.broadcast_address)]
    return frozenset(dotted(number) for number in kept)


def public_addresses(network: IPv4Network, begin: int) -> Iterator[str]:
    """Each address of a public range that an interface may have, from the `begin`th on and round to it again.

    The first three (the network, and two that the host keeps) and the last (broadcast) are for nobody.
    """
    first, count = int(network.network_address) + 3, network.num_addresses - 4
    for step in range(max(count, 0)):
        yield dotted(first + (begin + step) % count)


def mac_address(vpc_id: str, private_ip: str) -> str:
    """`02`, the last byte of the VPC's id, the four of the address: locally administered, and unique in the VPC."""
    octets = [2, int(vpc_id[-2:], 16), *(int(part) for part in private_ip.split("."))]
    return ":".join(f"{octet:02x}" for octet in octets)


def dotted(number: int) -> str:
    """`10.0.0.4` of a number; `str(IPv4Address(number))` takes several times as long."""
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def private_dns_name(address: str, region: str) -> str:
    """`ip-10-16-0-10.ec2.internal`, or `.REGION.compute.internal` outside us-east-1."""
    return f"ip-{address.replace('.', '-')}.{domain_name(region)}"


def resource_dns_name(instance_id: str, region: str) -> str:
    """`i-0123456789abcdef0.ec2.internal`: the name of an instance that does not tell its address."""
    return f"{instance_id}.{domain_name(region)}"


def public_dns_name(address: str, region: str) -> str:
    """`ec2-203-0-113-7.compute-1.amazonaws.com`, as us-east-1 has it; other regions carry their name."""
    zone = "compute-1" if region == "us-east-1" else f"{region}.compute"
    return f"ec2-{address.replace('.', '-')}.{zone}.amazonaws.com"


def domain_name(region: str) -> str:
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def resolver_address(cidr: str) -> str:
    """The VPC's DNS server: the base of its range plus two."""
    return dotted(int(IPv4Network(cidr).network_address) + 2)


ALL_OUTBOUND = "0.0.0.0/0"
ALL_OUTBOUND_IPV6 = "::/0"


def all_outbound_rule(cidr_ipv6: str = "") -> Rule:
    """The one rule that a new security group has; where its VPC has IPv6, there is one for that as well."""
    return Rule(
        id=mint("sgr"), egress=True, protocol="-1", cidr_ipv4="" if cidr_ipv6 else ALL_OUTBOUND, cidr_ipv6=cidr_ipv6
    )


def first_rules(vpc: Vpc) -> tuple[Rule, ...]:
    """What a new security group of the VPC allows: all outbound."""
    return (all_outbound_rule(), *((all_outbound_rule(ALL_OUTBOUND_IPV6),) if vpc.ipv6_cidrs else ()))


def default_entries(*, ipv6: bool) -> tuple[AclEntry, ...]:
    """What a VPC's default ACL has for one family: all may pass, and the last entry, which every ACL has."""
    first = 101 if ipv6 else 100
    entries: list[AclEntry] = []
    for egress in (False, True):
        last = last_entry(egress=egress, ipv6=ipv6)
        entries += [replace(last, number=first, action="allow"), last]
    return tuple(entries)


def last_entry(*, egress: bool, ipv6: bool) -> AclEntry:
    """The entry that denies what no other one decided: 32767, for IPv6 32768."""
    if ipv6:
        return AclEntry(number=32768, egress=egress, protocol="-1", action="deny", cidr_ipv6=ALL_OUTBOUND_IPV6)
    return AclEntry(number=32767, egress=egress, protocol="-1", action="deny", cidr=ALL_OUTBOUND)


def local_routes(vpc: Vpc) -> tuple[Route, ...]:
    """The routes that every table of a VPC has: to each of its own ranges."""
    return tuple(
        Route(destination=cidr, target="local") for cidr in (*vpc.cidrs, *(each.cidr for each in vpc.ipv6_cidrs))
    )


def furnish(vpc: Vpc, *, routes: Sequence[Route] = (), subnets: Sequence[Subnet] = ()) -> list[Resource]:
    """What every VPC has and keeps: its default security group, its main route table, its default ACL."""
    group_id = mint("sg")
    group = SecurityGroup(
        id=group_id,
        account=vpc.account,
        region=vpc.region,
        created=vpc.created,
        name="default",
        description="default VPC security group",
        vpc_id=vpc.id,
        rules=(Rule(id=mint("sgr"), egress=False, protocol="-1", group_id=group_id), *first_rules(vpc)),
    )
    table = RouteTable(
        id=mint("rtb"),
        account=vpc.account,
        region=vpc.region,
        created=vpc.created,
        vpc_id=vpc.id,
        main_association_id=mint("rtbassoc"),
        routes=(*local_routes(vpc), *routes),
    )
    acl = NetworkAcl(
        id=mint("acl"),
        account=vpc.account,
        region=vpc.region,
        created=vpc.created,
        vpc_id=vpc.id,
        is_default=True,
        entries=(*default_entries(ipv6=False), *(default_entries(ipv6=True) if vpc.ipv6_cidrs else ())),
        associations={mint("aclassoc"): subnet.id for subnet in subnets},
    )
    return [group, table, acl]


def default_options(region: str) -> dict[str, tuple[str, ...]]:
    """What the DHCP options that a region starts with say."""
    return {"domain-name": (domain_name(region),), "domain-name-servers": ("AmazonProvidedDNS",)}


def default_network(
    account: str, region: str, zones: Sequence[str], now: datetime, *, dhcp_options_id: str = ""
) -> list[Resource]:
    """What a region starts with: the default VPC, a /20 subnet per zone, its group, ACL, route table and gateway.

    The DHCP options come with it, unless there are some: `dhcp_options_id`.
    """

    def owned(prefix: str) -> dict[str, object]:
        return {"id": mint(prefix), "account": account, "region": region, "created": now}

    options = DhcpOptions(**owned("dopt"), options=default_options(region))  # type: ignore[arg-type]
    vpc = Vpc(
        **owned("vpc"),  # type: ignore[arg-type]
        cidr=DEFAULT_VPC_CIDR,
        is_default=True,
        dhcp_options_id=dhcp_options_id or options.id,
        enable_dns_hostnames=True,
    )
    blocks = IPv4Network(DEFAULT_VPC_CIDR).subnets(new_prefix=20)
    subnets = [
        Subnet(
            **owned("subnet"),  # type: ignore[arg-type]
            vpc_id=vpc.id,
            zone=zone,
            cidr=str(block),
            default_for_zone=True,
            map_public_ip_on_launch=True,
        )
        for zone, block in zip(zones, blocks, strict=False)
    ]
    gateway = InternetGateway(**owned("igw"), vpc_id=vpc.id)  # type: ignore[arg-type]
    group, table, acl = furnish(vpc, routes=[Route(destination=ALL_OUTBOUND, target=gateway.id)], subnets=subnets)
    kept: list[Resource] = [] if dhcp_options_id else [options]
    return [*kept, vpc, *subnets, group, gateway, table, acl]

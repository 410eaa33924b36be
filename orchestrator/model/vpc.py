"""Networks: VPCs, subnets, security groups, interfaces, and what every region starts with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Network
from typing import ClassVar

from orchestrator.model.ids import mint
from orchestrator.model.resource import Resource

DEFAULT_VPC_CIDR = "172.31.0.0/16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vpc(Resource):
    KIND: ClassVar[str] = "vpc"

    cidr: str
    is_default: bool = False
    state: str = "available"
    dhcp_options_id: str = ""
    enable_dns_support: bool = True
    enable_dns_hostnames: bool = False
    tenancy: str = "default"


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

    @property
    def network(self) -> IPv4Network:
        return IPv4Network(self.cidr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One security group rule. Exactly one of `cidr_ipv4`, `cidr_ipv6`, `group_id` is set. Ports are -1 for all."""

    id: str
    egress: bool
    protocol: str  # tcp | udp | icmp | icmpv6 | -1 | a number
    from_port: int = -1
    to_port: int = -1
    cidr_ipv4: str = ""
    cidr_ipv6: str = ""
    group_id: str = ""
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
    state: str = "attached"
    delete_on_termination: bool = True
    attached_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInterface(Resource):
    KIND: ClassVar[str] = "network-interface"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_id", "subnet_id", "instance_id", "private_ip", "public_ip")

    vpc_id: str
    subnet_id: str
    zone: str
    mac: str
    private_ip: str
    public_ip: str = ""  # auto-assigned; the guest never sees it
    auto_public_ip: bool = False  # each start gives it a public address
    last_public_ip: str = ""  # that of the last start: the next one's is another
    description: str = ""
    groups: tuple[str, ...] = ()
    source_dest_check: bool = True
    state: str = "available"  # available | in-use
    attachment: InterfaceAttachment | None = None

    @property
    def instance_id(self) -> str:
        return self.attachment.instance_id if self.attachment else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    destination: str
    target: str  # local | igw-...
    state: str = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable(Resource):
    KIND: ClassVar[str] = "route-table"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_id")

    vpc_id: str
    main_association_id: str = ""
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InternetGateway(Resource):
    KIND: ClassVar[str] = "internet-gateway"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "vpc_id")

    vpc_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AclEntry:
    number: int
    egress: bool
    protocol: str
    action: str  # allow | deny
    cidr: str
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DhcpOptions(Resource):
    KIND: ClassVar[str] = "dhcp-options"

    options: dict[str, tuple[str, ...]] = field(default_factory=dict)


def reserved_addresses(network: IPv4Network) -> frozenset[str]:
    """The five addresses of a subnet that no interface gets: network, router, DNS, one kept back, broadcast."""
    first = int(network.network_address)
    kept = [first, first + 1, first + 2, first + 3, int(network.broadcast_address)]
    return frozenset(_dotted(number) for number in kept)


def free_address(network: IPv4Network, taken: Iterable[str], *, start: int = 4) -> str | None:
    """The lowest free private address from the `start`th on, or None when the subnet is full."""
    used = set(taken) | reserved_addresses(network)
    first = int(network.network_address)
    for number in range(first + start, first + network.num_addresses):
        address = _dotted(number)
        if address not in used:
            return address
    return None


def public_addresses(network: IPv4Network, begin: int) -> Iterator[str]:
    """Each address of a public range that an interface may have, from the `begin`th on and round to it again.

    The first three (the network, and two that the host keeps) and the last (broadcast) are for nobody.
    """
    first, count = int(network.network_address) + 3, network.num_addresses - 4
    for step in range(max(count, 0)):
        yield _dotted(first + (begin + step) % count)


def mac_address(vpc_id: str, private_ip: str) -> str:
    """`02`, the last byte of the VPC's id, the four of the address: locally administered, and unique in the VPC."""
    octets = [2, int(vpc_id[-2:], 16), *(int(part) for part in private_ip.split("."))]
    return ":".join(f"{octet:02x}" for octet in octets)


def _dotted(number: int) -> str:
    return f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def private_dns_name(address: str, region: str) -> str:
    """`ip-10-16-0-10.ec2.internal`, or `.REGION.compute.internal` outside us-east-1."""
    return f"ip-{address.replace('.', '-')}.{domain_name(region)}"


def public_dns_name(address: str, region: str) -> str:
    """`ec2-203-0-113-7.compute-1.amazonaws.com`, as us-east-1 has it; other regions carry their name."""
    zone = "compute-1" if region == "us-east-1" else f"{region}.compute"
    return f"ec2-{address.replace('.', '-')}.{zone}.amazonaws.com"


def domain_name(region: str) -> str:
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def resolver_address(cidr: str) -> str:
    """The VPC's DNS server: the base of its range plus two."""
    return _dotted(int(IPv4Network(cidr).network_address) + 2)


ALL_OUTBOUND = "0.0.0.0/0"


def all_outbound_rule() -> Rule:
    """The one rule that a new security group has."""
    return Rule(id=mint("sgr"), egress=True, protocol="-1", cidr_ipv4=ALL_OUTBOUND)


def default_network(account: str, region: str, zones: Sequence[str], now: datetime) -> list[Resource]:
    """What a region starts with: the default VPC, a /20 subnet per zone, its group, ACL, route table and gateway."""

    def owned(prefix: str) -> dict[str, object]:
        return {"id": mint(prefix), "account": account, "region": region, "created": now}

    options = DhcpOptions(
        **owned("dopt"),  # type: ignore[arg-type]
        options={"domain-name": (domain_name(region),), "domain-name-servers": ("AmazonProvidedDNS",)},
    )
    vpc = Vpc(
        **owned("vpc"),  # type: ignore[arg-type]
        cidr=DEFAULT_VPC_CIDR,
        is_default=True,
        dhcp_options_id=options.id,
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
    group_id = mint("sg")
    group = SecurityGroup(
        id=group_id,
        account=account,
        region=region,
        created=now,
        name="default",
        description="default VPC security group",
        vpc_id=vpc.id,
        rules=(
            Rule(id=mint("sgr"), egress=False, protocol="-1", group_id=group_id),
            all_outbound_rule(),
        ),
    )
    gateway = InternetGateway(**owned("igw"), vpc_id=vpc.id)  # type: ignore[arg-type]
    table = RouteTable(
        **owned("rtb"),  # type: ignore[arg-type]
        vpc_id=vpc.id,
        main_association_id=mint("rtbassoc"),
        routes=(
            Route(destination=vpc.cidr, target="local"),
            Route(destination=ALL_OUTBOUND, target=gateway.id),
        ),
    )
    entries = tuple(
        AclEntry(number=number, egress=egress, protocol="-1", action=action, cidr=ALL_OUTBOUND)
        for egress in (False, True)
        for number, action in ((100, "allow"), (32767, "deny"))
    )
    acl = NetworkAcl(
        **owned("acl"),  # type: ignore[arg-type]
        vpc_id=vpc.id,
        is_default=True,
        entries=entries,
        associations={mint("aclassoc"): subnet.id for subnet in subnets},
    )
    return [options, vpc, *subnets, group, gateway, table, acl]

"""VPCs and what stands around one: route tables, internet gateways, network ACLs, DHCP options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from orchestrator.api.operation import Answer, Call, describe, operation
from orchestrator.model.errors import one_of
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.tags import tag_set
from orchestrator.model.vpc import (
    AclEntry,
    DhcpOptions,
    InternetGateway,
    NetworkAcl,
    Route,
    RouteTable,
    Vpc,
)

PROTOCOL_NUMBERS: Final = {"icmp": "1", "tcp": "6", "udp": "17", "icmpv6": "58"}
LARGEST_ROUTE_TABLE_PAGE: Final = 100


def _never(*names: str) -> dict[str, Any]:
    """Documented filters on what there is none of here: they match nothing."""
    return {name: lambda resource: None for name in names}


# --- VPCs -------------------------------------------------------------------------------------------------------------


def _association_id(vpc: Vpc) -> str:
    """Of the VPC's one range: a VPC has no row for it, so the id follows from the VPC's."""
    return "vpc-cidr-assoc-" + vpc.id.removeprefix("vpc-")


VPC_FILTERS: Final[FilterTable] = {
    **_never(
        "ipv6-cidr-block-association.ipv6-cidr-block",
        "ipv6-cidr-block-association.ipv6-pool",
        "ipv6-cidr-block-association.association-id",
        "ipv6-cidr-block-association.state",
    ),
    "cidr": lambda vpc: vpc.cidr,
    "cidr-block": lambda vpc: vpc.cidr,
    "cidrBlock": lambda vpc: vpc.cidr,
    "cidr-block-association.cidr-block": lambda vpc: vpc.cidr,
    "cidr-block-association.association-id": _association_id,
    "cidr-block-association.state": lambda vpc: "associated",
    "dhcp-options-id": lambda vpc: vpc.dhcp_options_id,
    "is-default": lambda vpc: boolean(vpc.is_default),
    "isDefault": lambda vpc: boolean(vpc.is_default),
    "owner-id": lambda vpc: vpc.account,
    "state": lambda vpc: vpc.state,
    "vpc-id": lambda vpc: vpc.id,
}


@describe("DescribeVpcs", kind=Vpc, answer="Vpcs", ids_parameter="VpcIds", prefix="vpc", filters=VPC_FILTERS)
def show_vpc(call: Call, vpc: Vpc) -> Answer:
    return {
        "VpcId": vpc.id,
        "OwnerId": vpc.account,
        "State": vpc.state,
        "CidrBlock": vpc.cidr,
        "CidrBlockAssociationSet": [
            {
                "AssociationId": _association_id(vpc),
                "CidrBlock": vpc.cidr,
                "CidrBlockState": {"State": "associated"},
            }
        ],
        "Ipv6CidrBlockAssociationSet": [],
        "DhcpOptionsId": vpc.dhcp_options_id or "default",
        "InstanceTenancy": vpc.tenancy,
        "IsDefault": vpc.is_default,
        "BlockPublicAccessStates": {"InternetGatewayBlockMode": "off"},
        "Tags": tag_set(vpc.tags),
    }


@operation("DescribeVpcAttribute")
def describe_vpc_attribute(call: Call, *, vpc_id: str, attribute: str) -> Answer:
    vpc = call.find(Vpc, "vpc", vpc_id)
    attributes = {
        "enableDnsSupport": ("EnableDnsSupport", vpc.enable_dns_support),
        "enableDnsHostnames": ("EnableDnsHostnames", vpc.enable_dns_hostnames),
        "enableNetworkAddressUsageMetrics": ("EnableNetworkAddressUsageMetrics", False),
    }
    member, value = attributes[one_of("Attribute", attribute, attributes)]
    return {"VpcId": vpc.id, member: {"Value": value}}


# --- internet gateways ------------------------------------------------------------------------------------------------

GATEWAY_FILTERS: Final[FilterTable] = {
    "attachment.state": lambda gateway: "available" if gateway.vpc_id else None,
    "attachment.vpc-id": lambda gateway: gateway.vpc_id or None,
    "internet-gateway-id": lambda gateway: gateway.id,
    "owner-id": lambda gateway: gateway.account,
}


@describe(
    "DescribeInternetGateways",
    kind=InternetGateway,
    answer="InternetGateways",
    ids_parameter="InternetGatewayIds",
    prefix="igw",
    filters=GATEWAY_FILTERS,
)
def show_internet_gateway(call: Call, gateway: InternetGateway) -> Answer:
    return {
        "InternetGatewayId": gateway.id,
        "OwnerId": gateway.account,
        "Attachments": [{"VpcId": gateway.vpc_id, "State": "available"}] if gateway.vpc_id else [],
        "Tags": tag_set(gateway.tags),
    }


# --- route tables -----------------------------------------------------------------------------------------------------

MAIN_ONLY: Final = "true"  # every association here makes a table its VPC's main one


def _origin(route: Route) -> str:
    return "CreateRouteTable" if route.target == "local" else "CreateRoute"


ROUTE_TABLE_FILTERS: Final[FilterTable] = {
    **_never(
        "association.gateway-id",
        "association.subnet-id",
        "route.destination-ipv6-cidr-block",
        "route.destination-prefix-list-id",
        "route.egress-only-internet-gateway-id",
        "route.instance-id",
        "route.nat-gateway-id",
        "route.transit-gateway-id",
        "route.vpc-peering-connection-id",
    ),
    "association.main": lambda table: MAIN_ONLY if table.main_association_id else None,
    "association.route-table-association-id": lambda table: table.main_association_id or None,
    "association.route-table-id": lambda table: table.id if table.main_association_id else None,
    "owner-id": lambda table: table.account,
    "route-table-id": lambda table: table.id,
    "route.destination-cidr-block": lambda table: [route.destination for route in table.routes],
    "route.gateway-id": lambda table: [route.target for route in table.routes],
    "route.origin": lambda table: [_origin(route) for route in table.routes],
    "route.state": lambda table: [route.state for route in table.routes],
    "vpc-id": lambda table: table.vpc_id,
}


@describe(
    "DescribeRouteTables",
    kind=RouteTable,
    answer="RouteTables",
    ids_parameter="RouteTableIds",
    prefix="rtb",
    filters=ROUTE_TABLE_FILTERS,
    largest=LARGEST_ROUTE_TABLE_PAGE,
)
def show_route_table(call: Call, table: RouteTable) -> Answer:
    associations = [
        {
            "Main": True,
            "RouteTableAssociationId": table.main_association_id,
            "RouteTableId": table.id,
            "AssociationState": {"State": "associated"},
        }
    ]
    return {
        "RouteTableId": table.id,
        "OwnerId": table.account,
        "VpcId": table.vpc_id,
        "Associations": associations if table.main_association_id else [],
        "PropagatingVgws": [],
        "Routes": [
            {
                "DestinationCidrBlock": route.destination,
                "GatewayId": route.target,
                "Origin": _origin(route),
                "State": route.state,
            }
            for route in table.routes
        ],
        "Tags": tag_set(table.tags),
    }


# --- network ACLs -----------------------------------------------------------------------------------------------------


def _ports(entry: AclEntry) -> tuple[int, int] | None:
    return (entry.from_port, entry.to_port) if entry.protocol in ("6", "17", "tcp", "udp") else None


def _icmp(entry: AclEntry) -> tuple[int, int] | None:
    """Type and code, which a rule keeps where others have ports."""
    return (entry.from_port, entry.to_port) if entry.protocol in ("1", "58", "icmp", "icmpv6") else None


def _each(acl: NetworkAcl, pairs: Any, position: int) -> Iterator[str]:
    return (str(pair[position]) for pair in map(pairs, acl.entries) if pair is not None)


ACL_FILTERS: Final[FilterTable] = {
    **_never("entry.ipv6-cidr"),
    "association.association-id": lambda acl: list(acl.associations),
    "association.network-acl-id": lambda acl: acl.id if acl.associations else None,
    "association.subnet-id": lambda acl: list(acl.associations.values()),
    "default": lambda acl: boolean(acl.is_default),
    "entry.cidr": lambda acl: [entry.cidr for entry in acl.entries],
    "entry.icmp.type": lambda acl: list(_each(acl, _icmp, 0)),
    "entry.icmp.code": lambda acl: list(_each(acl, _icmp, 1)),
    "entry.port-range.from": lambda acl: list(_each(acl, _ports, 0)),
    "entry.port-range.to": lambda acl: list(_each(acl, _ports, 1)),
    "entry.protocol": lambda acl: [PROTOCOL_NUMBERS.get(entry.protocol, entry.protocol) for entry in acl.entries],
    "entry.rule-action": lambda acl: [entry.action for entry in acl.entries],
    "entry.egress": lambda acl: [boolean(entry.egress) for entry in acl.entries],
    "entry.rule-number": lambda acl: [str(entry.number) for entry in acl.entries],
    "network-acl-id": lambda acl: acl.id,
    "owner-id": lambda acl: acl.account,
    "vpc-id": lambda acl: acl.vpc_id,
}


@describe(
    "DescribeNetworkAcls",
    kind=NetworkAcl,
    answer="NetworkAcls",
    ids_parameter="NetworkAclIds",
    prefix="acl",
    filters=ACL_FILTERS,
)
def show_network_acl(call: Call, acl: NetworkAcl) -> Answer:
    return {
        "NetworkAclId": acl.id,
        "OwnerId": acl.account,
        "VpcId": acl.vpc_id,
        "IsDefault": acl.is_default,
        "Associations": [
            {"NetworkAclAssociationId": association, "NetworkAclId": acl.id, "SubnetId": subnet_id}
            for association, subnet_id in acl.associations.items()
        ],
        "Entries": [_show_entry(entry) for entry in acl.entries],
        "Tags": tag_set(acl.tags),
    }


def _show_entry(entry: AclEntry) -> Answer:
    shown: Answer = {
        "RuleNumber": entry.number,
        "Egress": entry.egress,
        "Protocol": PROTOCOL_NUMBERS.get(entry.protocol, entry.protocol),
        "RuleAction": entry.action,
        "CidrBlock": entry.cidr,
    }
    if ports := _ports(entry):
        shown["PortRange"] = {"From": ports[0], "To": ports[1]}
    if icmp := _icmp(entry):
        shown["IcmpTypeCode"] = {"Type": icmp[0], "Code": icmp[1]}
    return shown


# --- DHCP options -----------------------------------------------------------------------------------------------------

DHCP_FILTERS: Final[FilterTable] = {
    "dhcp-options-id": lambda options: options.id,
    "key": lambda options: list(options.options),
    "value": lambda options: [value for values in options.options.values() for value in values],
    "owner-id": lambda options: options.account,
}


@describe(
    "DescribeDhcpOptions",
    kind=DhcpOptions,
    answer="DhcpOptions",
    ids_parameter="DhcpOptionsIds",
    prefix="dopt",
    filters=DHCP_FILTERS,
)
def show_dhcp_options(call: Call, options: DhcpOptions) -> Answer:
    return {
        "DhcpOptionsId": options.id,
        "OwnerId": options.account,
        "DhcpConfigurations": [
            {"Key": key, "Values": [{"Value": value} for value in values]} for key, values in options.options.items()
        ],
        "Tags": tag_set(options.tags),
    }

"""VPCs: made, changed, listed, deleted. `vpc_cidrs` changes their ranges, `default_networks` makes default ones.

A VPC comes with a default security group, a main route table and a default network ACL, and takes them with it. It
goes only when nothing else is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from orchestrator.api.ec2.security_groups import DEFAULT_NAME
from orchestrator.api.operation import Answer, Call, describe, operation
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, dependency_violation, invalid_parameter, missing_parameter, one_of
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.flow_log import delete_flow_logs
from orchestrator.model.resource import Resource
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import (
    CidrAssociation,
    DhcpOptions,
    EgressOnlyInternetGateway,
    InternetGateway,
    NatGateway,
    NetworkAcl,
    NetworkInterface,
    PeeringConnection,
    RouteTable,
    SecurityGroup,
    Subnet,
    Vpc,
    VpcEndpoint,
    default_options,
    furnish,
)
from orchestrator.model.vpc_cidr import free_ipv6_cidr, read_vpc_cidr

TENANCIES: Final = ("default", "dedicated")

# --- create -----------------------------------------------------------------------------------------------------------


@operation("CreateVpc", writes=True)
def create_vpc(
    call: Call,
    *,
    cidr_block: str | None = None,
    instance_tenancy: str | None = None,
    amazon_provided_ipv6_cidr_block: bool | None = None,
    ipv6_cidr_block_network_border_group: str | None = None,
    tag_specifications: list[Answer] | None = None,
) -> Answer:
    if not cidr_block:
        raise missing_parameter("cidrBlock")
    tags = tags_at_creation(tag_specifications, "vpc")["vpc"]
    check_border_group(call, ipv6_cidr_block_network_border_group, bool(amazon_provided_ipv6_cidr_block))
    vpc = Vpc(
        id=ids.mint("vpc"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags,
        cidr=str(read_vpc_cidr(cidr_block)),
        ipv6_cidrs=(new_ipv6_association(call),) if amazon_provided_ipv6_cidr_block else (),
        dhcp_options_id=region_options(call).id,
        tenancy=one_of("InstanceTenancy", instance_tenancy or "default", TENANCIES),
    )
    vpc = call.tx.put(vpc)
    call.tx.put_all(furnish(vpc))
    return {"Vpc": show_vpc(call, vpc)}


def check_border_group(call: Call, given: str | None, amazon_provided: bool) -> None:
    """A region is one border group here, as most of Amazon's are."""
    if given is None:
        return
    if not amazon_provided:
        message = "Ipv6CidrBlockNetworkBorderGroup needs AmazonProvidedIpv6CidrBlock"
        raise EC2Error("InvalidParameterCombination", message)
    if given != call.region:
        raise invalid_parameter("Ipv6CidrBlockNetworkBorderGroup", given, call.region)


def new_ipv6_association(call: Call) -> CidrAssociation:
    """A /56 that no VPC of the deployment has, of whatever account and region."""
    taken = [each.cidr for vpc in call.tx.all(Vpc) for each in vpc.ipv6_cidrs]
    return CidrAssociation(id=ids.mint("vpc-cidr-assoc"), cidr=free_ipv6_cidr(call.settings.ipv6_range, taken))


def region_options(call: Call) -> DhcpOptions:
    """The DHCP options that a new VPC has: those that the region began with, made again when they were deleted."""
    said = default_options(call.region)
    for options in sorted(call.mine(DhcpOptions), key=lambda options: (options.created, options.id)):
        if options.options == said:
            return options
    return call.tx.put(
        DhcpOptions(id=ids.mint("dopt"), account=call.account, region=call.region, created=call.now, options=said)
    )


# --- delete -----------------------------------------------------------------------------------------------------------


@operation("DeleteVpc", writes=True)
def delete_vpc(call: Call, *, vpc_id: str) -> Answer:
    vpc = call.find(Vpc, "vpc", vpc_id)
    left = _left_in(call, vpc)
    if left:
        raise dependency_violation(
            f"The vpc '{vpc.id}' has dependencies and cannot be deleted. Delete or detach first: {', '.join(left)}"
        )
    for kind in (SecurityGroup, RouteTable, NetworkAcl):
        for row in call.tx.all(kind, vpc_id=vpc.id):
            call.tx.delete(row)
    for peering in call.tx.all(PeeringConnection, vpc_ids=vpc.id):
        if peering.state == "pending-acceptance":
            message = f"The vpc '{vpc.id}' was deleted"
            call.tx.wake(call.tx.put(replace(peering, state="deleted", message=message, ended_at=call.now)))
    delete_flow_logs(call.tx, vpc.id)
    call.tx.delete(vpc)
    call.tx.wake(vpc)
    return {}


def _left_in(call: Call, vpc: Vpc) -> list[str]:
    """The ids of what must go before the VPC can, the first ten."""
    rows: list[Resource] = []
    kinds: tuple[type[Resource], ...] = (
        NetworkInterface,
        Subnet,
        InternetGateway,
        EgressOnlyInternetGateway,
        VpcEndpoint,
    )
    for kind in kinds:
        rows += call.tx.all(kind, vpc_id=vpc.id)
    rows += [nat for nat in call.tx.all(NatGateway, vpc_id=vpc.id) if nat.state not in ("deleted", "failed")]
    rows += [group for group in call.tx.all(SecurityGroup, vpc_id=vpc.id) if group.name != DEFAULT_NAME]
    rows += [table for table in call.tx.all(RouteTable, vpc_id=vpc.id) if not table.main_association_id]
    rows += [acl for acl in call.tx.all(NetworkAcl, vpc_id=vpc.id) if not acl.is_default]
    rows += [peering for peering in call.tx.all(PeeringConnection, vpc_ids=vpc.id) if peering.state == "active"]
    return [row.id for row in rows[:10]]


# --- change -----------------------------------------------------------------------------------------------------------


@operation("ModifyVpcAttribute", writes=True)
def modify_vpc_attribute(
    call: Call,
    *,
    vpc_id: str,
    enable_dns_support: Answer | None = None,
    enable_dns_hostnames: Answer | None = None,
    enable_network_address_usage_metrics: Answer | None = None,
) -> Answer:
    vpc = call.find(Vpc, "vpc", vpc_id)
    field, value = only_attribute(
        {
            "enable_dns_support": enable_dns_support,
            "enable_dns_hostnames": enable_dns_hostnames,
            "enable_network_address_usage_metrics": enable_network_address_usage_metrics,
        }
    )
    if field == "enable_dns_hostnames" and value and not vpc.enable_dns_support:
        raise EC2Error("InvalidParameterValue", "DNS hostnames need DNS support: set enableDnsSupport first")
    if getattr(vpc, field) != value:
        changed: dict[str, Any] = {field: value}
        wake_with_peers(call, call.tx.put(replace(vpc, **changed)))
    return {}


def only_attribute(given: Mapping[str, Answer | None]) -> tuple[str, Any]:
    """The one attribute that a request sets, of those that it may."""
    chosen = {name: value.get("Value") for name, value in given.items() if value is not None}
    if len(chosen) > 1:
        raise EC2Error(
            "InvalidParameterCombination", f"Only one attribute can be modified at a time; got {', '.join(chosen)}"
        )
    for name, value in chosen.items():
        if value is None:
            raise missing_parameter(f"{name}.Value")
        return name, value
    raise EC2Error("MissingParameter", f"The request must contain one of {', '.join(given)}")


@operation("ModifyVpcTenancy", writes=True)
def modify_vpc_tenancy(call: Call, *, vpc_id: str, instance_tenancy: str) -> Answer:
    """From dedicated to default; there is no way back."""
    vpc = call.find(Vpc, "vpc", vpc_id)
    one_of("InstanceTenancy", instance_tenancy, ["default"])
    if vpc.tenancy != "default":
        call.tx.put(replace(vpc, tenancy="default"))
    return {"ReturnValue": True}


def wake_with_peers(call: Call, vpc: Vpc) -> None:
    """What a VPC is called and where it reaches matters to those that it is peered with."""
    call.tx.wake(vpc)
    for peering in call.tx.all(PeeringConnection, vpc_ids=vpc.id):
        if peering.state == "active":
            call.wake_vpcs(peering.other(vpc.id).vpc_id)


# --- lists ------------------------------------------------------------------------------------------------------------


def primary_association_id(vpc: Vpc) -> str:
    """Of the VPC's first range: there is no row for it, so the id follows from the VPC's."""
    return "vpc-cidr-assoc-" + vpc.id.removeprefix("vpc-")


def ipv4_associations(vpc: Vpc) -> list[CidrAssociation]:
    return [CidrAssociation(id=primary_association_id(vpc), cidr=vpc.cidr), *vpc.more_cidrs]


VPC_FILTERS: Final[FilterTable] = {
    "cidr": lambda vpc: vpc.cidr,
    "cidr-block": lambda vpc: vpc.cidr,
    "cidrBlock": lambda vpc: vpc.cidr,
    "cidr-block-association.cidr-block": lambda vpc: vpc.cidrs,
    "cidr-block-association.association-id": lambda vpc: [each.id for each in ipv4_associations(vpc)],
    "cidr-block-association.state": lambda vpc: "associated",
    "dhcp-options-id": lambda vpc: vpc.dhcp_options_id or "default",
    "ipv6-cidr-block-association.ipv6-cidr-block": lambda vpc: [each.cidr for each in vpc.ipv6_cidrs],
    "ipv6-cidr-block-association.ipv6-pool": lambda vpc: "Amazon" if vpc.ipv6_cidrs else None,
    "ipv6-cidr-block-association.association-id": lambda vpc: [each.id for each in vpc.ipv6_cidrs],
    "ipv6-cidr-block-association.state": lambda vpc: "associated" if vpc.ipv6_cidrs else None,
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
        "CidrBlockAssociationSet": [show_association(each) for each in ipv4_associations(vpc)],
        "Ipv6CidrBlockAssociationSet": [show_ipv6_association(vpc, each) for each in vpc.ipv6_cidrs],
        "DhcpOptionsId": vpc.dhcp_options_id or "default",
        "InstanceTenancy": vpc.tenancy,
        "IsDefault": vpc.is_default,
        "BlockPublicAccessStates": {"InternetGatewayBlockMode": "off"},
        "Tags": tag_set(vpc.tags),
    }


def show_association(association: CidrAssociation, state: str = "associated") -> Answer:
    return {
        "AssociationId": association.id,
        "CidrBlock": association.cidr,
        "CidrBlockState": {"State": state},
    }


def show_ipv6_association(vpc: Vpc, association: CidrAssociation, state: str = "associated") -> Answer:
    return {
        "AssociationId": association.id,
        "Ipv6CidrBlock": association.cidr,
        "Ipv6CidrBlockState": {"State": state},
        "NetworkBorderGroup": vpc.region,
        "Ipv6Pool": "Amazon",
        "Ipv6AddressAttribute": "public",
        "IpSource": "amazon",
    }


@operation("DescribeVpcAttribute")
def describe_vpc_attribute(call: Call, *, vpc_id: str, attribute: str) -> Answer:
    vpc = call.find(Vpc, "vpc", vpc_id)
    attributes = {
        "enableDnsSupport": ("EnableDnsSupport", vpc.enable_dns_support),
        "enableDnsHostnames": ("EnableDnsHostnames", vpc.enable_dns_hostnames),
        "enableNetworkAddressUsageMetrics": (
            "EnableNetworkAddressUsageMetrics",
            vpc.enable_network_address_usage_metrics,
        ),
    }
    member, value = attributes[one_of("Attribute", attribute, attributes)]
    return {"VpcId": vpc.id, member: {"Value": value}}

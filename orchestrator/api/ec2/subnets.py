"""Subnets: made, changed, listed, deleted, and how many of a subnet's addresses are free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from orchestrator.api.ec2.vpcs import only_attribute
from orchestrator.api.operation import Answer, Call, describe, operation
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, dependency_violation, missing_parameter, one_of, unsupported
from orchestrator.model.filters import FilterTable, boolean, compile_filters
from orchestrator.model.flow_log import delete_flow_logs
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import (
    CidrAssociation,
    NetworkAcl,
    NetworkInterface,
    RouteTable,
    Subnet,
    Vpc,
    reserved_addresses,
)
from orchestrator.model.vpc_cidr import IPV6_OF_SUBNET, LARGEST, SMALLEST, read_cidr, read_cidr_ipv6
from orchestrator.model.zone import zone_id

MAX_SUBNETS: Final = 200  # of a VPC
HOST_NAME_TYPES: Final = ("ip-name", "resource-name")
PREFIX_ADDRESSES: Final = 16  # of a /28 that an interface has


def available_addresses(call: Call, subnet: Subnet) -> int:
    """What the five reserved ones and the interfaces' addresses and prefixes leave."""
    taken = len(reserved_addresses(subnet.network))
    for interface in call.db.all(NetworkInterface, subnet_id=subnet.id):
        taken += len(interface.private_ips) + PREFIX_ADDRESSES * len(interface.prefixes)
    return max(0, subnet.network.num_addresses - taken)


# --- create -----------------------------------------------------------------------------------------------------------


@operation("CreateSubnet", writes=True)
def create_subnet(
    call: Call,
    *,
    vpc_id: str,
    cidr_block: str | None = None,
    ipv6_cidr_block: str | None = None,
    availability_zone: str | None = None,
    availability_zone_id: str | None = None,
    ipv6_native: bool | None = None,
    tag_specifications: list[Answer] | None = None,
) -> Answer:
    """It joins the VPC's default ACL, and is routed by its main table."""
    if ipv6_native:
        raise unsupported("Subnets without IPv4 are not offered here: give a CidrBlock, and leave Ipv6Native out")
    if not cidr_block:
        raise missing_parameter("cidrBlock")
    tags = tags_at_creation(tag_specifications, "subnet")["subnet"]
    zone = check_zone(call, availability_zone, availability_zone_id) or call.zones[0]
    vpc = call.find(Vpc, "vpc", vpc_id)
    others = call.tx.all(Subnet, vpc_id=vpc.id)
    if len(others) >= MAX_SUBNETS:
        raise EC2Error("SubnetLimitExceeded", f"A VPC has at most {MAX_SUBNETS} subnets")
    subnet = Subnet(
        id=ids.mint("subnet"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags,
        vpc_id=vpc.id,
        zone=zone,
        cidr=_subnet_cidr(vpc, others, cidr_block),
        ipv6_cidrs=(_ipv6_association(vpc, others, ipv6_cidr_block),) if ipv6_cidr_block else (),
    )
    return {"Subnet": show_subnet(call, add_subnet(call, subnet))}


def add_subnet(call: Call, subnet: Subnet) -> Subnet:
    """Write a new subnet, and its place in the VPC's default ACL."""
    for acl in call.tx.all(NetworkAcl, vpc_id=subnet.vpc_id):
        if acl.is_default:
            call.tx.put(replace(acl, associations={**acl.associations, ids.mint("aclassoc"): subnet.id}))
    return call.tx.put(subnet)


def check_zone(call: Call, name: str | None, by_id: str | None) -> str | None:
    """The zone that a request names in one way or the other; None when it names none."""
    if name and by_id:
        message = "AvailabilityZone and AvailabilityZoneId may not be specified together"
        raise EC2Error("InvalidParameterCombination", message)
    if not name and not by_id:
        return None
    for zone in call.zones:
        if zone == name or zone_id(zone) == by_id:
            return zone
    parameter = "availabilityZone" if name else "availabilityZoneId"
    offered = ", ".join(call.zones if name else map(zone_id, call.zones))
    raise EC2Error(
        "InvalidParameterValue",
        f"Value ({name or by_id}) for parameter {parameter} is invalid. Subnets can currently only be created in the "
        f"following availability zones: {offered}.",
    )


def _subnet_cidr(vpc: Vpc, others: Iterable[Subnet], text: str) -> str:
    network = read_cidr(text)
    if not LARGEST <= network.prefixlen <= SMALLEST:
        raise _out_of_range(network, f"A subnet's block has a size between /{LARGEST} and /{SMALLEST}.")
    if not any(network.subnet_of(IPv4Network(cidr)) for cidr in vpc.cidrs):
        raise _out_of_range(network, f"It lies in none of the VPC's ranges: {', '.join(vpc.cidrs)}.")
    for other in others:
        if network.overlaps(other.network):
            raise EC2Error("InvalidSubnet.Conflict", f"The CIDR '{network}' conflicts with another subnet")
    return str(network)


def _ipv6_association(vpc: Vpc, others: Iterable[Subnet], text: str) -> CidrAssociation:
    network = read_cidr_ipv6(text)
    if network.prefixlen != IPV6_OF_SUBNET:
        raise _out_of_range(network, f"A subnet's IPv6 block is a /{IPV6_OF_SUBNET}.")
    if not any(network.subnet_of(IPv6Network(each.cidr)) for each in vpc.ipv6_cidrs):
        ranges = ", ".join(each.cidr for each in vpc.ipv6_cidrs) or "it has none"
        raise _out_of_range(network, f"It lies in none of the VPC's IPv6 ranges: {ranges}.")
    if any(network == other.ipv6_network for other in others):
        raise EC2Error("InvalidSubnet.Conflict", f"The CIDR '{network}' conflicts with another subnet")
    return CidrAssociation(id=ids.mint("subnet-cidr-assoc"), cidr=str(network))


def _out_of_range(network: IPv4Network | IPv6Network, why: str) -> EC2Error:
    return EC2Error("InvalidSubnet.Range", f"The CIDR '{network}' is invalid. {why}")


# --- delete -----------------------------------------------------------------------------------------------------------


@operation("DeleteSubnet", writes=True)
def delete_subnet(call: Call, *, subnet_id: str) -> Answer:
    """Its associations with a route table and an ACL go with it."""
    subnet = call.find(Subnet, "subnet", subnet_id)
    if call.tx.all(NetworkInterface, subnet_id=subnet.id):
        raise dependency_violation(f"The subnet '{subnet.id}' has dependencies and cannot be deleted.")
    for acl in call.tx.all(NetworkAcl, vpc_id=subnet.vpc_id):
        if subnet.id in acl.associations.values():
            call.tx.put(replace(acl, associations=_without(acl.associations, subnet)))
    for table in call.tx.all(RouteTable, vpc_id=subnet.vpc_id):
        if subnet.id in table.associations.values():
            call.tx.put(replace(table, associations=_without(table.associations, subnet)))
    delete_flow_logs(call.tx, subnet.id)
    call.tx.delete(subnet)
    call.wake_vpcs(subnet.vpc_id)
    return {}


def _without(associations: dict[str, str], subnet: Subnet) -> dict[str, str]:
    return {each: served for each, served in associations.items() if served != subnet.id}


# --- change -----------------------------------------------------------------------------------------------------------


@operation("ModifySubnetAttribute", writes=True)
def modify_subnet_attribute(
    call: Call,
    *,
    subnet_id: str,
    map_public_ip_on_launch: Answer | None = None,
    assign_ipv6_address_on_creation: Answer | None = None,
    enable_dns64: Answer | None = None,
    private_dns_hostname_type_on_launch: str | None = None,
    enable_resource_name_dns_a_record_on_launch: Answer | None = None,
    enable_resource_name_dns_aaaa_record_on_launch: Answer | None = None,
) -> Answer:
    """Of what a new interface gets; those that are there stay as they are."""
    subnet = call.find(Subnet, "subnet", subnet_id)
    host_name_type = private_dns_hostname_type_on_launch
    field, value = only_attribute(
        {
            "map_public_ip_on_launch": map_public_ip_on_launch,
            "assign_ipv6_on_creation": assign_ipv6_address_on_creation,
            "enable_dns64": enable_dns64,
            "host_name_type": {"Value": host_name_type} if host_name_type is not None else None,
            "resource_name_a": enable_resource_name_dns_a_record_on_launch,
            "resource_name_aaaa": enable_resource_name_dns_aaaa_record_on_launch,
        }
    )
    if field == "enable_dns64" and value:
        raise unsupported("EnableDns64 is not offered here: NAT gateways translate IPv4 alone")
    if field == "host_name_type":
        one_of("PrivateDnsHostnameTypeOnLaunch", value, HOST_NAME_TYPES)
    if field == "assign_ipv6_on_creation" and value and not subnet.ipv6_cidrs:
        raise EC2Error(
            "InvalidParameterValue",
            f"Invalid value 'true' for assignIpv6AddressOnCreation: the subnet {subnet.id} has no IPv6 CIDR block",
        )
    if getattr(subnet, field) != value:
        changed: dict[str, Any] = {field: value}
        call.tx.put(replace(subnet, **changed))
        call.wake_vpcs(subnet.vpc_id)
    return {}


@operation("AssociateSubnetCidrBlock", writes=True)
def associate_subnet_cidr_block(call: Call, *, subnet_id: str, ipv6_cidr_block: str | None = None) -> Answer:
    """It is in effect when this answers, which says `associating`, as EC2 does."""
    subnet = call.find(Subnet, "subnet", subnet_id)
    if not ipv6_cidr_block:
        raise missing_parameter("Ipv6CidrBlock")
    if subnet.ipv6_cidrs:
        raise EC2Error("CidrLimitExceeded", f"This subnet '{subnet.id}' has met its maximum number of IPv6 CIDRs: 1")
    vpc = call.find(Vpc, "vpc", subnet.vpc_id)
    association = _ipv6_association(vpc, call.tx.all(Subnet, vpc_id=vpc.id), ipv6_cidr_block)
    call.tx.put(replace(subnet, ipv6_cidrs=(association,)))
    call.tx.wake(vpc)
    return {"SubnetId": subnet.id, "Ipv6CidrBlockAssociation": _show_association(association, "associating")}


@operation("DisassociateSubnetCidrBlock", writes=True)
def disassociate_subnet_cidr_block(call: Call, *, association_id: str) -> Answer:
    ids.check("subnet-cidr-assoc", association_id)
    for subnet in call.mine(Subnet):
        for association in subnet.ipv6_cidrs:
            if association.id == association_id:
                _refuse_in_use(call, subnet, association)
                kept = tuple(each for each in subnet.ipv6_cidrs if each.id != association_id)
                call.tx.put(replace(subnet, ipv6_cidrs=kept, assign_ipv6_on_creation=False))
                call.wake_vpcs(subnet.vpc_id)
                shown = _show_association(association, "disassociating")
                return {"SubnetId": subnet.id, "Ipv6CidrBlockAssociation": shown}
    raise ids.missing("subnet-cidr-assoc", [association_id])


def _refuse_in_use(call: Call, subnet: Subnet, association: CidrAssociation) -> None:
    users = [each.id for each in call.tx.all(NetworkInterface, subnet_id=subnet.id) if each.ipv6_addresses]
    if users:
        raise dependency_violation(
            f"The subnet CIDR block with association ID {association.id} has dependencies and cannot be "
            f"disassociated: interfaces have addresses of {association.cidr}: {', '.join(sorted(users)[:10])}"
        )


# --- lists ------------------------------------------------------------------------------------------------------------


RESERVATION_FILTERS: Final[FilterTable] = {
    "reservationType": lambda reservation: None,
    "subnet-id": lambda reservation: None,
}


@operation("GetSubnetCidrReservations", listing=True)
def get_subnet_cidr_reservations(call: Call, *, subnet_id: str) -> Answer:
    """There are none: CreateSubnetCidrReservation is not offered."""
    call.find(Subnet, "subnet", subnet_id)
    compile_filters(call.params.get("Filters") or (), RESERVATION_FILTERS, lambda reservation: {})
    return {"SubnetIpv4CidrReservations": [], "SubnetIpv6CidrReservations": []}


def _arn(subnet: Subnet) -> str:
    return f"arn:aws:ec2:{subnet.region}:{subnet.account}:subnet/{subnet.id}"


# Documented filters on what no subnet here has: they match nothing.
_NEVER: Final = ("customer-owned-ipv4-pool", "enable-lni-at-device-index", "outpost-arn")
_HOST_NAMES: Final = "private-dns-name-options-on-launch"


def subnet_filters(call: Call) -> FilterTable:
    table: FilterTable = {
        **{name: lambda subnet: None for name in _NEVER},
        **dict.fromkeys(("availability-zone", "availabilityZone"), lambda subnet: subnet.zone),
        **dict.fromkeys(("availability-zone-id", "availabilityZoneId"), lambda subnet: zone_id(subnet.zone)),
        "available-ip-address-count": lambda subnet: str(available_addresses(call, subnet)),
        **dict.fromkeys(("cidr-block", "cidr", "cidrBlock"), lambda subnet: subnet.cidr),
        **dict.fromkeys(("default-for-az", "defaultForAz"), lambda subnet: boolean(subnet.default_for_zone)),
        "enable-dns64": lambda subnet: boolean(subnet.enable_dns64),
        "ipv6-cidr-block-association.ipv6-cidr-block": lambda subnet: [each.cidr for each in subnet.ipv6_cidrs],
        "ipv6-cidr-block-association.association-id": lambda subnet: [each.id for each in subnet.ipv6_cidrs],
        "ipv6-cidr-block-association.state": lambda subnet: "associated" if subnet.ipv6_cidrs else None,
        "ipv6-native": lambda subnet: "false",
        "map-customer-owned-ip-on-launch": lambda subnet: "false",
        "map-public-ip-on-launch": lambda subnet: boolean(subnet.map_public_ip_on_launch),
        "owner-id": lambda subnet: subnet.account,
        f"{_HOST_NAMES}.hostname-type": lambda subnet: subnet.host_name_type,
        f"{_HOST_NAMES}.enable-resource-name-dns-a-record": lambda subnet: boolean(subnet.resource_name_a),
        f"{_HOST_NAMES}.enable-resource-name-dns-aaaa-record": lambda subnet: boolean(subnet.resource_name_aaaa),
        "state": lambda subnet: subnet.state,
        "subnet-arn": _arn,
        "subnet-id": lambda subnet: subnet.id,
        "vpc-id": lambda subnet: subnet.vpc_id,
    }
    return table


@describe(
    "DescribeSubnets", kind=Subnet, answer="Subnets", ids_parameter="SubnetIds", prefix="subnet", filters=subnet_filters
)
def show_subnet(call: Call, subnet: Subnet) -> Answer:
    return {
        "SubnetId": subnet.id,
        "SubnetArn": _arn(subnet),
        "OwnerId": subnet.account,
        "VpcId": subnet.vpc_id,
        "State": subnet.state,
        "CidrBlock": subnet.cidr,
        "AvailableIpAddressCount": available_addresses(call, subnet),
        "AvailabilityZone": subnet.zone,
        "AvailabilityZoneId": zone_id(subnet.zone),
        "DefaultForAz": subnet.default_for_zone,
        "MapPublicIpOnLaunch": subnet.map_public_ip_on_launch,
        "MapCustomerOwnedIpOnLaunch": False,
        "AssignIpv6AddressOnCreation": subnet.assign_ipv6_on_creation,
        "Ipv6CidrBlockAssociationSet": [_show_association(each) for each in subnet.ipv6_cidrs],
        "Ipv6Native": False,
        "EnableDns64": subnet.enable_dns64,
        "PrivateDnsNameOptionsOnLaunch": {
            "HostnameType": subnet.host_name_type,
            "EnableResourceNameDnsARecord": subnet.resource_name_a,
            "EnableResourceNameDnsAAAARecord": subnet.resource_name_aaaa,
        },
        "BlockPublicAccessStates": {"InternetGatewayBlockMode": "off"},
        "Tags": tag_set(subnet.tags),
    }


def _show_association(association: CidrAssociation, state: str = "associated") -> Answer:
    return {
        "AssociationId": association.id,
        "Ipv6CidrBlock": association.cidr,
        "Ipv6CidrBlockState": {"State": state},
        "Ipv6AddressAttribute": "public",
        "IpSource": "amazon",
    }

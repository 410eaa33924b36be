"""Subnets, and how many of a subnet's addresses are free."""

from __future__ import annotations

from typing import Final

from orchestrator.api.operation import Answer, Call, describe
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.tags import tag_set
from orchestrator.model.vpc import NetworkInterface, Subnet, reserved_addresses
from orchestrator.model.zone import zone_id


def available_addresses(call: Call, subnet: Subnet) -> int:
    """What the five reserved ones and the subnet's interfaces leave."""
    kept = len(reserved_addresses(subnet.network)) + len(call.db.all(NetworkInterface, subnet_id=subnet.id))
    return max(0, subnet.network.num_addresses - kept)


def _arn(subnet: Subnet) -> str:
    return f"arn:aws:ec2:{subnet.region}:{subnet.account}:subnet/{subnet.id}"


# Documented filters on what no subnet here has: they match nothing.
_NEVER: Final = (
    "customer-owned-ipv4-pool",
    "enable-lni-at-device-index",
    "ipv6-cidr-block-association.ipv6-cidr-block",
    "ipv6-cidr-block-association.association-id",
    "ipv6-cidr-block-association.state",
    "outpost-arn",
)


def subnet_filters(call: Call) -> FilterTable:
    table: FilterTable = {
        **{name: lambda subnet: None for name in _NEVER},
        **dict.fromkeys(("availability-zone", "availabilityZone"), lambda subnet: subnet.zone),
        **dict.fromkeys(("availability-zone-id", "availabilityZoneId"), lambda subnet: zone_id(subnet.zone)),
        "available-ip-address-count": lambda subnet: str(available_addresses(call, subnet)),
        **dict.fromkeys(("cidr-block", "cidr", "cidrBlock"), lambda subnet: subnet.cidr),
        **dict.fromkeys(("default-for-az", "defaultForAz"), lambda subnet: boolean(subnet.default_for_zone)),
        "enable-dns64": lambda subnet: "false",
        "ipv6-native": lambda subnet: "false",
        "map-customer-owned-ip-on-launch": lambda subnet: "false",
        "map-public-ip-on-launch": lambda subnet: boolean(subnet.map_public_ip_on_launch),
        "owner-id": lambda subnet: subnet.account,
        "private-dns-name-options-on-launch.hostname-type": lambda subnet: "ip-name",
        "private-dns-name-options-on-launch.enable-resource-name-dns-a-record": lambda subnet: "false",
        "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": lambda subnet: "false",
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
        "AssignIpv6AddressOnCreation": False,
        "Ipv6CidrBlockAssociationSet": [],
        "Ipv6Native": False,
        "EnableDns64": False,
        "PrivateDnsNameOptionsOnLaunch": {
            "HostnameType": "ip-name",
            "EnableResourceNameDnsARecord": False,
            "EnableResourceNameDnsAAAARecord": False,
        },
        "BlockPublicAccessStates": {"InternetGatewayBlockMode": "off"},
        "Tags": tag_set(subnet.tags),
    }

"""DescribeSubnets: a /20 for each zone, and how many addresses are free."""

from __future__ import annotations

import pytest

from orchestrator.model import ids
from orchestrator.model.vpc import NetworkInterface, Subnet

from .conftest import ACCOUNT, Api


def occupy(api: Api, subnet_id: str, count: int) -> None:
    subnet = api.get(Subnet, subnet_id)
    for number in range(count):
        api.put(
            NetworkInterface(
                id=ids.mint("eni"),
                account=api.account,
                region=api.region,
                created=api.now,
                vpc_id=subnet.vpc_id,
                subnet_id=subnet.id,
                zone=subnet.zone,
                mac=f"02:00:00:00:00:{number:02x}",
                private_ip=f"172.31.0.{number + 4}",
            )
        )


def test_the_default_subnets(api: Api) -> None:
    shown = api.call("DescribeSubnets")["Subnets"]
    assert [(s["AvailabilityZone"], s["AvailabilityZoneId"], s["CidrBlock"]) for s in shown] == [
        ("us-east-1a", "use1-az1", "172.31.0.0/20"),
        ("us-east-1b", "use1-az2", "172.31.16.0/20"),
        ("us-east-1c", "use1-az3", "172.31.32.0/20"),
    ]
    subnet = api.store.all(Subnet)[0]
    assert shown[0] == {
        "SubnetId": subnet.id,
        "SubnetArn": f"arn:aws:ec2:us-east-1:{ACCOUNT}:subnet/{subnet.id}",
        "OwnerId": ACCOUNT,
        "VpcId": subnet.vpc_id,
        "State": "available",
        "CidrBlock": "172.31.0.0/20",
        "AvailableIpAddressCount": 4091,
        "AvailabilityZone": "us-east-1a",
        "AvailabilityZoneId": "use1-az1",
        "DefaultForAz": True,
        "MapPublicIpOnLaunch": True,
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
        "Tags": [],
    }


def test_addresses_in_use_are_counted(api: Api) -> None:
    first, second, _ = (subnet["SubnetId"] for subnet in api.call("DescribeSubnets")["Subnets"])
    occupy(api, first, 7)
    counts = {s["SubnetId"]: s["AvailableIpAddressCount"] for s in api.call("DescribeSubnets")["Subnets"]}
    assert (counts[first], counts[second]) == (4084, 4091)
    filters = [{"Name": "available-ip-address-count", "Values": ["4084"]}]
    assert [s["SubnetId"] for s in api.call("DescribeSubnets", Filters=filters)["Subnets"]] == [first]


@pytest.mark.parametrize(
    ("name", "value", "zones"),
    [
        ("availability-zone", "us-east-1b", "b"),
        ("availabilityZone", "us-east-1?", "abc"),
        ("availability-zone-id", "use1-az3", "c"),
        ("cidr-block", "172.31.16.0/20", "b"),
        ("cidr", "172.31.1*", "b"),
        ("default-for-az", "true", "abc"),
        ("defaultForAz", "false", ""),
        ("map-public-ip-on-launch", "true", "abc"),
        ("subnet-arn", f"arn:aws:ec2:us-east-1:{ACCOUNT}:subnet/*", "abc"),
        ("state", "pending", ""),
        ("outpost-arn", "*", ""),
    ],
)
def test_filters(api: Api, name: str, value: str, zones: str) -> None:
    found = api.call("DescribeSubnets", Filters=[{"Name": name, "Values": [value]}])["Subnets"]
    assert "".join(sorted(subnet["AvailabilityZone"][-1] for subnet in found)) == zones

"""DescribeNetworkInterfaces: attachment, groups, and what a public address adds."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.vpc import InterfaceAttachment, NetworkInterface, SecurityGroup, Subnet, Vpc

from .conftest import ACCOUNT, Api

ENI = "eni-00000000000000001"


def plug(api: Api, **fields: Any) -> NetworkInterface:
    """The primary interface of an instance, in the default VPC's first subnet."""
    api.call("DescribeVpcs")
    subnet = next(row for row in api.store.all(Subnet, account=api.account) if row.region == api.region)
    [group] = api.store.all(SecurityGroup, vpc_id=subnet.vpc_id)
    attachment = InterfaceAttachment(
        id="eni-attach-00000000000000001", instance_id="i-00000000000000001", device_index=0, attached_at=api.now
    )
    given: dict[str, Any] = {"public_ip": "203.0.113.7", "attachment": attachment, "groups": (group.id,), **fields}
    interface = NetworkInterface(
        id=ENI,
        account=api.account,
        region=api.region,
        created=api.now,
        vpc_id=subnet.vpc_id,
        subnet_id=subnet.id,
        zone=subnet.zone,
        mac="02:00:00:00:00:01",
        private_ip="172.31.0.10",
        description="Primary network interface",
        state="in-use" if given["attachment"] else "available",
        **given,
    )
    api.put(interface)
    return interface


def test_all_members(api: Api) -> None:
    interface = plug(api)
    [shown] = api.call("DescribeNetworkInterfaces")["NetworkInterfaces"]
    association = {
        "IpOwnerId": "amazon",
        "PublicDnsName": "ec2-203-0-113-7.compute-1.amazonaws.com",
        "PublicIp": "203.0.113.7",
    }
    assert shown == {
        "NetworkInterfaceId": ENI,
        "InterfaceType": "interface",
        "Status": "in-use",
        "Description": "Primary network interface",
        "OwnerId": ACCOUNT,
        "RequesterManaged": False,
        "VpcId": interface.vpc_id,
        "SubnetId": interface.subnet_id,
        "AvailabilityZone": "us-east-1a",
        "AvailabilityZoneId": "use1-az1",
        "MacAddress": "02:00:00:00:00:01",
        "PrivateIpAddress": "172.31.0.10",
        "PrivateDnsName": "ip-172-31-0-10.ec2.internal",
        "PublicDnsName": association["PublicDnsName"],
        "Association": association,
        "PrivateIpAddresses": [
            {
                "Primary": True,
                "PrivateIpAddress": "172.31.0.10",
                "PrivateDnsName": "ip-172-31-0-10.ec2.internal",
                "Association": association,
            }
        ],
        "Ipv6Addresses": [],
        "Groups": [{"GroupId": interface.groups[0], "GroupName": "default"}],
        "SourceDestCheck": True,
        "Operator": {"Managed": False},
        "TagSet": [],
        "Attachment": {
            "AttachmentId": "eni-attach-00000000000000001",
            "AttachTime": api.now,
            "DeleteOnTermination": True,
            "DeviceIndex": 0,
            "NetworkCardIndex": 0,
            "InstanceId": "i-00000000000000001",
            "InstanceOwnerId": ACCOUNT,
            "Status": "attached",
        },
    }


def test_without_public_address_or_attachment(api: Api) -> None:
    plug(api, public_ip="", attachment=None)
    [shown] = api.call("DescribeNetworkInterfaces")["NetworkInterfaces"]
    assert shown["Status"] == "available"
    assert "Association" not in shown and "Association" not in shown["PrivateIpAddresses"][0]
    assert "Attachment" not in shown and "PublicDnsName" not in shown
    for name in ("association.public-ip", "attachment.instance-id", "addresses.association.public-ip"):
        filters = [{"Name": name, "Values": ["*"]}]
        assert api.call("DescribeNetworkInterfaces", Filters=filters)["NetworkInterfaces"] == []


def test_where_the_vpc_gives_no_names(api: Api) -> None:
    interface = plug(api)
    api.change(api.get(Vpc, interface.vpc_id), enable_dns_hostnames=False)
    [shown] = api.call("DescribeNetworkInterfaces")["NetworkInterfaces"]
    assert shown["Association"]["PublicDnsName"] == "" and shown["Association"]["PublicIp"] == "203.0.113.7"


def test_names_of_another_region(api: Api) -> None:
    plug(api.within("us-west-2"))
    [shown] = api.within("us-west-2").call("DescribeNetworkInterfaces")["NetworkInterfaces"]
    assert shown["PrivateDnsName"] == "ip-172-31-0-10.us-west-2.compute.internal"
    assert shown["Association"]["PublicDnsName"] == "ec2-203-0-113-7.us-west-2.compute.amazonaws.com"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("addresses.private-ip-address", "172.31.0.10"),
        ("private-ip-address", "172.31.0.1?"),
        ("association.public-ip", "203.0.113.7"),
        ("association.public-dns-name", "ec2-203-*"),
        ("attachment.instance-id", "i-00000000000000001"),
        ("attachment.device-index", "0"),
        ("attachment.delete-on-termination", "true"),
        ("attachment.attach-time", "2026-01-02T*"),
        ("availability-zone", "us-east-1a"),
        ("group-name", "default"),
        ("mac-address", "02:00:00:00:00:01"),
        ("source-dest-check", "true"),
        ("status", "in-use"),
        ("private-dns-name", "ip-172-31-0-10.ec2.internal"),
        ("description", "Primary network interface"),
    ],
)
def test_filters(api: Api, name: str, value: str) -> None:
    plug(api)
    found = api.call("DescribeNetworkInterfaces", Filters=[{"Name": name, "Values": [value]}])["NetworkInterfaces"]
    assert [interface["NetworkInterfaceId"] for interface in found] == [ENI]
    absent = [{"Name": name, "Values": ["no" + value]}]
    assert api.call("DescribeNetworkInterfaces", Filters=absent)["NetworkInterfaces"] == []

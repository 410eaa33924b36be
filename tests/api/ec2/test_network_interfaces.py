"""Network interfaces: made, changed, deleted; how they are shown, and every filter."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, IPv6Network
from typing import Any

import pytest

from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.vpc import (
    CidrAssociation,
    FlowLog,
    InterfaceAttachment,
    InterfacePermission,
    NetworkInterface,
    SecurityGroup,
    Subnet,
    Vpc,
)

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api

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


def test_all_that_an_interface_can_have(api: Api) -> None:
    """Secondary addresses, Elastic IPs on two of them, a prefix, IPv6, a requester."""
    plug(
        api,
        more_private_ips=("172.31.0.11", "172.31.0.12"),
        prefixes=("172.31.0.32/28",),
        ipv6_addresses=("2001:db8::5", "2001:db8::6"),
        requester_id="amazon-elb",
    )
    elastic(api, "203.0.113.20", "eipalloc-00000000000000001", private_ip="172.31.0.10")
    elastic(api, "203.0.113.21", "eipalloc-00000000000000002", private_ip="172.31.0.12")
    [shown] = api.call("DescribeNetworkInterfaces")["NetworkInterfaces"]
    first = {
        "IpOwnerId": ACCOUNT,
        "PublicIp": "203.0.113.20",
        "PublicDnsName": "ec2-203-0-113-20.compute-1.amazonaws.com",
        "AllocationId": "eipalloc-00000000000000001",
        "AssociationId": "eipassoc-00000000000000001",
    }
    third = {
        **first,
        "PublicIp": "203.0.113.21",
        "PublicDnsName": "ec2-203-0-113-21.compute-1.amazonaws.com",
        "AllocationId": "eipalloc-00000000000000002",
        "AssociationId": "eipassoc-00000000000000002",
    }
    assert shown["Association"] == first  # before the auto-assigned one
    assert shown["PrivateIpAddresses"] == [
        {
            "Primary": primary,
            "PrivateIpAddress": address,
            "PrivateDnsName": f"ip-{address.replace('.', '-')}.ec2.internal",
            **({"Association": association} if association else {}),
        }
        for primary, address, association in (
            (True, "172.31.0.10", first),
            (False, "172.31.0.11", None),
            (False, "172.31.0.12", third),
        )
    ]
    assert shown["Ipv4Prefixes"] == [{"Ipv4Prefix": "172.31.0.32/28"}]
    assert [each["Ipv6Address"] for each in shown["Ipv6Addresses"]] == ["2001:db8::5", "2001:db8::6"]
    assert shown["Ipv6Address"] == "2001:db8::5"
    assert shown["RequesterId"] == "amazon-elb" and shown["RequesterManaged"] is True


def elastic(api: Api, public_ip: str, allocation_id: str, **fields: Any) -> None:
    api.put(
        ElasticIp(
            id=allocation_id,
            account=api.account,
            region=api.region,
            created=api.now,
            public_ip=public_ip,
            interface_id=ENI,
            association_id=allocation_id.replace("alloc", "assoc"),
            **fields,
        )
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("addresses.private-ip-address", "172.31.0.11"),
        ("addresses.primary", "false"),
        ("addresses.association.owner-id", ACCOUNT),
        ("addresses.association.public-ip", "203.0.113.20"),
        ("association.allocation-id", "eipalloc-00000000000000001"),
        ("association.association-id", "eipassoc-00000000000000001"),
        ("association.ip-owner-id", "amazon"),
        ("association.public-dns-name", "ec2-203-0-113-20.*"),
        ("attachment.attachment-id", "eni-attach-00000000000000001"),
        ("attachment.instance-owner-id", ACCOUNT),
        ("attachment.status", "attached"),
        ("availability-zone-id", "use1-az1"),
        ("interface-type", "interface"),
        ("ipv6-addresses.ipv6-address", "2001:db8::5"),
        ("network-interface-id", ENI),
        ("operator.managed", "false"),
        ("owner-id", ACCOUNT),
        ("requester-id", "amazon-elb"),
        ("requester-managed", "true"),
        ("tag:Name", "front"),
        ("tag-key", "Name"),
    ],
)
def test_filters_on_all_that_it_can_have(api: Api, name: str, value: str) -> None:
    plug(
        api,
        more_private_ips=("172.31.0.11",),
        ipv6_addresses=("2001:db8::5",),
        requester_id="amazon-elb",
        tags={"Name": "front"},
    )
    elastic(api, "203.0.113.20", "eipalloc-00000000000000001", private_ip="172.31.0.11")
    found = api.call("DescribeNetworkInterfaces", Filters=[{"Name": name, "Values": [value]}])["NetworkInterfaces"]
    assert [interface["NetworkInterfaceId"] for interface in found] == [ENI]
    absent = [{"Name": name, "Values": ["no" + value]}]
    assert api.call("DescribeNetworkInterfaces", Filters=absent)["NetworkInterfaces"] == []


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


# --- making -----------------------------------------------------------------------------------------------------------


def subnet_of(api: Api, zone: str = "us-east-1a", *, ipv6: bool = False, **changes: Any) -> Subnet:
    """The default subnet of a zone."""
    api.call("DescribeSubnets")
    [subnet] = [
        row for row in api.store.all(Subnet, account=api.account) if (row.region, row.zone) == (api.region, zone)
    ]
    if ipv6:
        changes["ipv6_cidrs"] = (CidrAssociation(id="subnet-cidr-assoc-00000000000000001", cidr="2001:db8:ec00::/64"),)
    return api.change(subnet, **changes) if changes else subnet


def create(api: Api, subnet: Subnet | None = None, **params: Any) -> dict[str, Any]:
    subnet_id = (subnet or subnet_of(api)).id
    shown: dict[str, Any] = api.call("CreateNetworkInterface", SubnetId=subnet_id, **params)["NetworkInterface"]
    return shown


def refused(api: Api, subnet: Subnet | None = None, **params: Any) -> str:
    return api.refused("CreateNetworkInterface", SubnetId=(subnet or subnet_of(api)).id, **params).code


def addresses_of(shown: dict[str, Any]) -> list[str]:
    return [each["PrivateIpAddress"] for each in shown["PrivateIpAddresses"]]


def test_create(api: Api) -> None:
    subnet = subnet_of(api)
    [group] = api.store.all(SecurityGroup, vpc_id=subnet.vpc_id)
    tags = [{"ResourceType": "network-interface", "Tags": [{"Key": "Name", "Value": "front"}]}]
    answer = api.call(
        "CreateNetworkInterface", SubnetId=subnet.id, Description="mine", TagSpecifications=tags, ClientToken="once"
    )
    shown = answer["NetworkInterface"]
    assert answer["ClientToken"] == "once"
    assert shown["Status"] == "available" and "Attachment" not in shown and "Association" not in shown
    assert shown["SubnetId"] == subnet.id and shown["AvailabilityZone"] == "us-east-1a"
    assert shown["Description"] == "mine" and shown["SourceDestCheck"] is True
    assert shown["TagSet"] == [{"Key": "Name", "Value": "front"}]
    assert shown["Groups"] == [{"GroupId": group.id, "GroupName": "default"}]
    assert addresses_of(shown) == ["172.31.0.4"] and shown["Ipv6Addresses"] == []
    assert api.call("DescribeNetworkInterfaces")["NetworkInterfaces"] == [shown]
    again = api.call(
        "CreateNetworkInterface", SubnetId=subnet.id, Description="mine", TagSpecifications=tags, ClientToken="once"
    )
    assert again["NetworkInterface"]["NetworkInterfaceId"] == shown["NetworkInterfaceId"]
    assert addresses_of(create(api)) == ["172.31.0.5"]
    assert refused(api, DryRun=True) == "DryRunOperation"


def test_addresses_by_name(api: Api) -> None:
    named = create(api, PrivateIpAddress="172.31.0.9")
    assert addresses_of(named) == ["172.31.0.9"] and named["MacAddress"].endswith(":ac:1f:00:09")
    listed = [{"PrivateIpAddress": "172.31.0.20"}, {"PrivateIpAddress": "172.31.0.10", "Primary": True}]
    assert addresses_of(create(api, PrivateIpAddresses=listed)) == ["172.31.0.10", "172.31.0.20"]
    both = [{"PrivateIpAddress": "172.31.0.22"}, {"PrivateIpAddress": "172.31.0.23"}]
    assert addresses_of(create(api, PrivateIpAddress="172.31.0.21", PrivateIpAddresses=both)) == [
        "172.31.0.21",
        "172.31.0.22",
        "172.31.0.23",
    ]
    for taken in ("172.31.0.10", "172.31.0.20"):  # also by a secondary one
        assert refused(api, PrivateIpAddress=taken) == "InvalidIPAddress.InUse"


def test_addresses_by_number(api: Api) -> None:
    assert addresses_of(create(api, SecondaryPrivateIpAddressCount=3)) == [f"172.31.0.{n}" for n in (4, 5, 6, 7)]
    assert addresses_of(create(api)) == ["172.31.0.8"]
    small = subnet_of(api, "us-east-1b", cidr="172.31.16.0/28")
    assert refused(api, small, SecondaryPrivateIpAddressCount=11) == "InsufficientFreeAddressesInSubnet"
    assert len(addresses_of(create(api, small, SecondaryPrivateIpAddressCount=10))) == 11
    assert refused(api, small) == "InsufficientFreeAddressesInSubnet"


def test_prefixes(api: Api) -> None:
    shown = create(api, Ipv4PrefixCount=2)
    assert shown["Ipv4Prefixes"] == [{"Ipv4Prefix": "172.31.0.16/28"}, {"Ipv4Prefix": "172.31.0.32/28"}]
    named = create(api, Ipv4Prefixes=[{"Ipv4Prefix": "172.31.1.0/28"}])
    assert named["Ipv4Prefixes"] == [{"Ipv4Prefix": "172.31.1.0/28"}]
    for address in ("172.31.0.16", "172.31.0.47", "172.31.1.9"):
        assert refused(api, PrivateIpAddress=address) == "InvalidIPAddress.InUse"
    for prefix, code in {
        "172.31.1.0/28": "InvalidIPAddress.InUse",
        "172.31.0.0/28": "InvalidIPAddress.InUse",  # the reserved ones are in it
        "172.31.1.16/27": "InvalidParameterValue",
        "172.31.1.17/28": "InvalidParameterValue",
        "172.31.16.16/28": "InvalidParameterValue",
        "somewhere": "InvalidParameterValue",
    }.items():
        assert refused(api, Ipv4Prefixes=[{"Ipv4Prefix": prefix}]) == code, prefix
    small = subnet_of(api, "us-east-1b", cidr="172.31.16.0/28")
    assert refused(api, small, Ipv4PrefixCount=1) == "InsufficientCidrBlocks"
    # Single addresses pass prefixes by.
    assert addresses_of(create(api, SecondaryPrivateIpAddressCount=10))[-1] == "172.31.0.48"


def test_ipv6(api: Api) -> None:
    assert refused(api, Ipv6AddressCount=1) == "InvalidParameterValue"  # the subnet has none
    subnet = subnet_of(api, ipv6=True)
    shown = create(api, Ipv6AddressCount=2)
    network = IPv6Network("2001:db8:ec00::/64")
    assert len({each["Ipv6Address"] for each in shown["Ipv6Addresses"]}) == 2
    assert all(IPv6Address(each["Ipv6Address"]) in network for each in shown["Ipv6Addresses"])
    named = create(api, Ipv6Addresses=[{"Ipv6Address": "2001:DB8:EC00:0::000a"}])
    assert named["Ipv6Addresses"] == [{"Ipv6Address": "2001:db8:ec00::a", "IsPrimaryIpv6": False}]
    assert create(api)["Ipv6Addresses"] == []
    for address, code in {
        "2001:db8:ec00::a": "InvalidIPAddress.InUse",
        "2001:db8:ec00::3": "InvalidParameterValue",
        "2001:db8:ec00::ffff:ffff:ffff:ffff": "InvalidParameterValue",
        "2001:db8:ec01::9": "InvalidParameterValue",
        "here": "InvalidParameterValue",
    }.items():
        assert refused(api, Ipv6Addresses=[{"Ipv6Address": address}]) == code, address
    api.change(subnet, assign_ipv6_on_creation=True)
    assert len(create(api)["Ipv6Addresses"]) == 1
    assert create(api, Ipv6AddressCount=0)["Ipv6Addresses"] == []


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"SubnetId": "subnet"}, "InvalidSubnetID.Malformed"),
        ({"SubnetId": "subnet-00000000000000000"}, "InvalidSubnetID.NotFound"),
        ({"InterfaceType": "efa"}, "UnsupportedOperation"),
        ({"EnablePrimaryIpv6": True}, "UnsupportedOperation"),
        ({"Ipv6PrefixCount": 1}, "UnsupportedOperation"),
        ({"Description": "x" * 256}, "InvalidParameterValue"),
        ({"Groups": ["sg-00000000000000000"]}, "InvalidGroup.NotFound"),
        ({"PrivateIpAddress": "172.31.0.3"}, "InvalidParameterValue"),
        ({"PrivateIpAddress": "172.31.15.255"}, "InvalidParameterValue"),
        ({"PrivateIpAddress": "172.31.16.4"}, "InvalidParameterValue"),
        ({"PrivateIpAddress": "me"}, "InvalidParameterValue"),
        ({"SecondaryPrivateIpAddressCount": -1}, "InvalidParameterValue"),
        ({"SecondaryPrivateIpAddressCount": 500}, "PrivateIpAddressLimitExceeded"),
        ({"SecondaryPrivateIpAddressCount": 1, "Ipv4PrefixCount": 1}, "InvalidParameterCombination"),
        (
            {"Ipv4Prefixes": [{"Ipv4Prefix": "172.31.0.16/28"}], "Ipv4PrefixCount": 1},
            "InvalidParameterCombination",
        ),
        (
            {"Ipv6Addresses": [{"Ipv6Address": "2001:db8::9"}], "Ipv6AddressCount": 1},
            "InvalidParameterCombination",
        ),
        (
            {"PrivateIpAddresses": [{"PrivateIpAddress": f"172.31.0.{n}", "Primary": True} for n in (8, 9)]},
            "InvalidParameterValue",
        ),
        (
            {"PrivateIpAddresses": [{"PrivateIpAddress": f"172.31.0.{n}", "Primary": False} for n in (8, 9)]},
            "InvalidParameterValue",
        ),
        (
            {
                "PrivateIpAddress": "172.31.0.8",
                "PrivateIpAddresses": [{"PrivateIpAddress": "172.31.0.9", "Primary": True}],
            },
            "InvalidParameterCombination",
        ),
        (
            {"PrivateIpAddresses": [{"PrivateIpAddress": "172.31.0.9"}, {"PrivateIpAddress": "172.31.0.9"}]},
            "InvalidIPAddress.InUse",
        ),
        ({"TagSpecifications": [{"ResourceType": "instance", "Tags": []}]}, "InvalidParameterValue"),
    ],
)
def test_what_cannot_be_made(api: Api, params: dict[str, Any], code: str) -> None:
    assert api.refused("CreateNetworkInterface", **{"SubnetId": subnet_of(api).id, **params}).code == code


def test_groups_are_of_the_subnets_vpc(api: Api) -> None:
    subnet = subnet_of(api)
    mine = {"account": api.account, "region": api.region, "created": api.now, "description": ""}
    web = SecurityGroup(id="sg-0000000000000000a", name="web", vpc_id=subnet.vpc_id, **mine)
    elsewhere = SecurityGroup(id="sg-0000000000000000b", name="web", vpc_id="vpc-00000000000000000", **mine)
    api.put(web, elsewhere)
    assert create(api, Groups=[web.id])["Groups"] == [{"GroupId": web.id, "GroupName": "web"}]
    assert refused(api, Groups=[elsewhere.id]) == "InvalidParameter"


# --- deleting ---------------------------------------------------------------------------------------------------------


def test_delete(api: Api) -> None:
    made = create(api)["NetworkInterfaceId"]
    mine = {"account": api.account, "region": api.region, "created": api.now}
    api.put(
        ElasticIp(
            id="eipalloc-00000000000000001",
            public_ip="203.0.113.9",
            interface_id=made,
            private_ip="172.31.0.4",
            association_id="eipassoc-00000000000000001",
            **mine,
        ),
        InterfacePermission(
            id="eni-perm-00000000000000001", interface_id=made, granted_to=OTHER_ACCOUNT, permission="x", **mine
        ),
        FlowLog(id="fl-00000000000000001", resource_id=made, traffic="ALL", **mine),
    )
    assert api.refused("DeleteNetworkInterface", NetworkInterfaceId=made, DryRun=True).code == "DryRunOperation"
    assert (
        api.by().refused("DeleteNetworkInterface", NetworkInterfaceId=made).code == "InvalidNetworkInterfaceID.NotFound"
    )
    api.call("DeleteNetworkInterface", NetworkInterfaceId=made)
    assert api.refused("DeleteNetworkInterface", NetworkInterfaceId=made).code == "InvalidNetworkInterfaceID.NotFound"
    freed = api.get(ElasticIp, "eipalloc-00000000000000001")
    assert (freed.interface_id, freed.private_ip, freed.association_id) == ("", "", "")
    assert api.store.all(InterfacePermission) == [] and api.store.all(FlowLog) == []
    assert addresses_of(create(api)) == ["172.31.0.4"]


def test_delete_what_is_in_use(api: Api) -> None:
    plug(api)
    error = api.refused("DeleteNetworkInterface", NetworkInterfaceId=ENI)
    assert error.code == "InvalidParameterValue" and error.message == f"Network interface '{ENI}' is currently in use."
    api.change(api.get(NetworkInterface, ENI), attachment=None)  # that of a NAT gateway is attached to no instance
    assert api.refused("DeleteNetworkInterface", NetworkInterfaceId=ENI).code == "InvalidParameterValue"


# --- attributes -------------------------------------------------------------------------------------------------------


def describe(api: Api, attribute: str) -> Any:
    answer = api.call("DescribeNetworkInterfaceAttribute", NetworkInterfaceId=ENI, Attribute=attribute)
    assert answer.pop("NetworkInterfaceId") == ENI
    [value] = answer.values()
    return value


def modify(api: Api, **params: Any) -> None:
    api.call("ModifyNetworkInterfaceAttribute", NetworkInterfaceId=ENI, **params)


def woken(api: Api) -> set[str]:
    return {resource_id for _, resource_id, _ in api.store.pending_wakes()}


def test_attributes(api: Api) -> None:
    interface = plug(api)
    group = SecurityGroup(
        id="sg-0000000000000000a",
        name="web",
        description="",
        vpc_id=interface.vpc_id,
        account=api.account,
        region=api.region,
        created=api.now,
    )
    api.put(group)
    assert describe(api, "description") == {"Value": "Primary network interface"}
    assert describe(api, "sourceDestCheck") == {"Value": True}
    assert describe(api, "associatePublicIpAddress") is False
    assert describe(api, "attachment")["AttachmentId"] == "eni-attach-00000000000000001"
    modify(api, Description={"Value": "the first"})
    modify(api, SourceDestCheck={"Value": False})
    modify(api, Groups=[group.id])
    modify(api, Attachment={"AttachmentId": "eni-attach-00000000000000001", "DeleteOnTermination": False})
    assert interface.vpc_id in woken(api)
    assert describe(api, "description") == {"Value": "the first"}
    assert describe(api, "sourceDestCheck") == {"Value": False}
    assert describe(api, "groupSet") == [{"GroupId": group.id, "GroupName": "web"}]
    assert describe(api, "attachment")["DeleteOnTermination"] is False
    api.call("ResetNetworkInterfaceAttribute", NetworkInterfaceId=ENI, SourceDestCheck="true")
    assert describe(api, "sourceDestCheck") == {"Value": True}
    modify(api, Description={"Value": ""})
    assert api.get(NetworkInterface, ENI).description == ""


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "InvalidParameterCombination"),
        ({"Description": {"Value": "x"}, "SourceDestCheck": {"Value": True}}, "InvalidParameterCombination"),
        ({"Description": {"Value": "x" * 256}}, "InvalidParameterValue"),
        ({"Groups": ["sg-00000000000000000"]}, "InvalidGroup.NotFound"),
        ({"Groups": ["web"]}, "InvalidGroupId.Malformed"),
        ({"Attachment": {"DeleteOnTermination": True}}, "MissingParameter"),
        ({"Attachment": {"AttachmentId": "eni-attach-00000000000000001"}}, "MissingParameter"),
        (
            {"Attachment": {"AttachmentId": "eni-attach-00000000000000002", "DeleteOnTermination": True}},
            "InvalidAttachmentID.NotFound",
        ),
        ({"EnablePrimaryIpv6": True}, "UnsupportedOperation"),
        ({"EnaSrdSpecification": {"EnaSrdEnabled": True}}, "UnsupportedOperation"),
        ({"Description": {"Value": "x"}, "DryRun": True}, "DryRunOperation"),
        (
            {"NetworkInterfaceId": "eni-00000000000000000", "Description": {"Value": "x"}},
            "InvalidNetworkInterfaceID.NotFound",
        ),
    ],
)
def test_attributes_that_cannot_be(api: Api, params: dict[str, Any], code: str) -> None:
    plug(api)
    assert api.refused("ModifyNetworkInterfaceAttribute", **{"NetworkInterfaceId": ENI, **params}).code == code


def test_what_attribute(api: Api) -> None:
    plug(api)
    for action, params, code in (
        ("DescribeNetworkInterfaceAttribute", {}, "MissingParameter"),
        ("DescribeNetworkInterfaceAttribute", {"Attribute": "colour"}, "InvalidParameterValue"),
        ("ResetNetworkInterfaceAttribute", {}, "MissingParameter"),
    ):
        assert api.refused(action, NetworkInterfaceId=ENI, **params).code == code
    api.change(api.get(NetworkInterface, ENI), attachment=None)
    answer = api.call("DescribeNetworkInterfaceAttribute", NetworkInterfaceId=ENI, Attribute="attachment")
    assert "Attachment" not in answer


def test_a_public_address_on_request(api: Api) -> None:
    [instance_id] = api.launch()
    [interface] = api.store.all(NetworkInterface, instance_id=instance_id)

    def associate(wanted: bool) -> str:
        api.call("ModifyNetworkInterfaceAttribute", NetworkInterfaceId=interface.id, AssociatePublicIpAddress=wanted)
        return api.get(NetworkInterface, interface.id).public_ip

    assert associate(False) == ""
    assert associate(True).startswith("203.0.113.")
    other = create(api)["NetworkInterfaceId"]
    api.call("ModifyNetworkInterfaceAttribute", NetworkInterfaceId=other, AssociatePublicIpAddress=True)
    assert api.get(NetworkInterface, other).public_ip == ""  # it is nobody's primary interface


def test_one_that_was_made_for_something_else_is_changed_by_nobody(api: Api) -> None:
    plug(api, requester_id="amazon-elb")
    for action, params in (
        ("ModifyNetworkInterfaceAttribute", {"Description": {"Value": "mine"}}),
        ("ResetNetworkInterfaceAttribute", {"SourceDestCheck": "true"}),
        ("AssignPrivateIpAddresses", {"SecondaryPrivateIpAddressCount": 1}),
        ("UnassignPrivateIpAddresses", {"PrivateIpAddresses": ["172.31.0.11"]}),
        ("AssignIpv6Addresses", {"Ipv6AddressCount": 1}),
        ("UnassignIpv6Addresses", {"Ipv6Addresses": ["2001:db8::1"]}),
        ("CreateNetworkInterfacePermission", {"AwsAccountId": OTHER_ACCOUNT, "Permission": "INSTANCE-ATTACH"}),
    ):
        assert api.refused(action, NetworkInterfaceId=ENI, **params).code == "AuthFailure", action


# --- what EC2 documents -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "action", ["DescribeNetworkInterfaces", "DescribeAddresses", "DescribeNetworkInterfacePermissions"]
)
def test_every_documented_filter_is_known(api: Api, action: str) -> None:
    text = api.world.protocol.model.operation_model(action).input_shape.members["Filters"].documentation
    names = [
        name
        for name in re.findall(r"<li>\s*<p>\s*<code>([^<]+)</code>", text)
        if name != "tag" and not name.startswith("tag:")
    ]
    assert len(names) >= 5
    plug(api)
    elastic(api, "203.0.113.20", "eipalloc-00000000000000001")
    for name in names:
        for value in ("no such value", "*"):
            api.call(action, Filters=[{"Name": name, "Values": [value]}])
    assert api.refused(action, Filters=[{"Name": "colour", "Values": ["red"]}]).code == "InvalidParameterValue"

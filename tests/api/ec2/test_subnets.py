"""Subnets: the default ones, a /20 for each zone; subnets made, changed and deleted; how many addresses are free."""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import Any

import pytest

from orchestrator.api.ec2 import subnets
from orchestrator.model import ids
from orchestrator.model.vpc import FlowLog, NetworkAcl, NetworkInterface, RouteTable, Subnet, Vpc

from .conftest import ACCOUNT, Api
from .networks import filters, forget_wakes, make_subnet, make_vpc, put_interface, put_table, woken


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


# --- made, changed, deleted -------------------------------------------------------------------------------------------


def test_a_new_subnet(api: Api) -> None:
    vpc_id = make_vpc(api)
    tags = [{"Key": "Name", "Value": "x"}]
    shown = api.call(
        "CreateSubnet",
        VpcId=vpc_id,
        CidrBlock="10.0.1.7/24",
        AvailabilityZoneId="use1-az2",
        TagSpecifications=[{"ResourceType": "subnet", "Tags": tags}],
    )["Subnet"]
    assert (shown["CidrBlock"], shown["AvailabilityZone"], shown["State"]) == ("10.0.1.0/24", "us-east-1b", "available")
    assert (shown["AvailableIpAddressCount"], shown["DefaultForAz"], shown["MapPublicIpOnLaunch"]) == (
        251,
        False,
        False,
    )
    assert shown["Tags"] == tags
    [acl] = api.store.all(NetworkAcl, vpc_id=vpc_id)
    assert list(acl.associations.values()) == [shown["SubnetId"]]
    assert api.call("DescribeSubnets", SubnetIds=[shown["SubnetId"]])["Subnets"] == [shown]
    assert api.call("GetSubnetCidrReservations", SubnetId=shown["SubnetId"]) == {
        "SubnetIpv4CidrReservations": [],
        "SubnetIpv6CidrReservations": [],
    }


@pytest.mark.parametrize(
    ("cidr", "code"),
    [
        ("10.0.0.0/15", "InvalidSubnet.Range"),
        ("10.0.0.0/29", "InvalidSubnet.Range"),
        ("10.1.0.0/24", "InvalidSubnet.Range"),
        ("10.0.0.128/25", "InvalidSubnet.Conflict"),
        ("10.0.0.0/23", "InvalidSubnet.Conflict"),
        ("10.0.1.0", "InvalidParameterValue"),
        ("", "MissingParameter"),
    ],
)
def test_ranges_that_are_refused(api: Api, cidr: str, code: str) -> None:
    vpc_id = make_vpc(api)
    make_subnet(api, vpc_id, "10.0.0.0/24")
    assert api.refused("CreateSubnet", VpcId=vpc_id, CidrBlock=cidr).code == code


def test_a_subnet_may_lie_in_any_range_of_the_vpc_and_fill_it(api: Api) -> None:
    vpc_id = make_vpc(api)
    api.call("AssociateVpcCidrBlock", VpcId=vpc_id, CidrBlock="10.1.0.0/28")
    make_subnet(api, vpc_id, "10.1.0.0/28")
    make_subnet(api, vpc_id, "10.0.0.0/16")
    assert api.refused("CreateSubnet", VpcId=vpc_id, CidrBlock="10.0.0.0/28").code == "InvalidSubnet.Conflict"


def test_zones_and_what_else_is_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    vpc_id = make_vpc(api)

    def code(**params: Any) -> str:
        return api.refused("CreateSubnet", **{"VpcId": vpc_id, "CidrBlock": "10.0.0.0/24", **params}).code

    assert code(AvailabilityZone="us-west-2a") == "InvalidParameterValue"
    assert code(AvailabilityZoneId="use1-az9") == "InvalidParameterValue"
    assert code(AvailabilityZone="us-east-1a", AvailabilityZoneId="use1-az1") == "InvalidParameterCombination"
    assert code(Ipv6Native=True) == "UnsupportedOperation"
    assert code(OutpostArn="arn:aws:outposts:x") == "UnsupportedOperation"
    assert code(VpcId="vpc-00000000000000000") == "InvalidVpcID.NotFound"
    assert code(DryRun=True) == "DryRunOperation"
    monkeypatch.setattr(subnets, "MAX_SUBNETS", 0)
    assert code() == "SubnetLimitExceeded"


def test_ipv6_ranges(api: Api) -> None:
    vpc_id = make_vpc(api, AmazonProvidedIpv6CidrBlock=True)
    block = IPv6Network(api.get(Vpc, vpc_id).ipv6_cidrs[0].cidr)
    first, second, *_ = (str(each) for each in block.subnets(new_prefix=64))
    subnet_id = make_subnet(api, vpc_id, "10.0.0.0/24", Ipv6CidrBlock=first)
    [association] = api.call("DescribeSubnets", SubnetIds=[subnet_id])["Subnets"][0]["Ipv6CidrBlockAssociationSet"]
    assert (association["Ipv6CidrBlock"], association["Ipv6CidrBlockState"]) == (first, {"State": "associated"})

    def code(text: str) -> str:
        return api.refused("CreateSubnet", VpcId=vpc_id, CidrBlock="10.0.1.0/24", Ipv6CidrBlock=text).code

    assert code(first) == "InvalidSubnet.Conflict"
    assert code(str(block)) == "InvalidSubnet.Range"
    assert code("2001:db8:ffff::/64") == "InvalidSubnet.Range"
    assert code("2001:db8::x/64") == "InvalidParameterValue"
    without = make_subnet(api, make_vpc(api), "10.0.0.0/24")
    refused = api.refused("AssociateSubnetCidrBlock", SubnetId=without, Ipv6CidrBlock=second)
    assert refused.code == "InvalidSubnet.Range"
    for name, value in (
        ("ipv6-cidr-block-association.ipv6-cidr-block", first),
        ("ipv6-cidr-block-association.association-id", association["AssociationId"]),
    ):
        [found] = api.call("DescribeSubnets", Filters=[{"Name": name, "Values": [value]}])["Subnets"]
        assert found["SubnetId"] == subnet_id


def test_an_ipv6_range_comes_and_goes(api: Api) -> None:
    vpc_id = make_vpc(api, AmazonProvidedIpv6CidrBlock=True)
    cidr = api.get(Vpc, vpc_id).ipv6_cidrs[0].cidr.replace("/56", "/64")
    subnet_id = make_subnet(api, vpc_id)
    automatic = {"SubnetId": subnet_id, "AssignIpv6AddressOnCreation": {"Value": True}}
    assert api.refused("ModifySubnetAttribute", **automatic).code == "InvalidParameterValue"
    assert api.refused("AssociateSubnetCidrBlock", SubnetId=subnet_id).code == "MissingParameter"
    forget_wakes(api)
    answer = api.call("AssociateSubnetCidrBlock", SubnetId=subnet_id, Ipv6CidrBlock=cidr)
    association = answer["Ipv6CidrBlockAssociation"]
    assert (association["Ipv6CidrBlock"], association["Ipv6CidrBlockState"]) == (cidr, {"State": "associating"})
    assert woken(api) == {vpc_id}
    again = api.refused("AssociateSubnetCidrBlock", SubnetId=subnet_id, Ipv6CidrBlock=cidr)
    assert again.code == "CidrLimitExceeded"
    api.call("ModifySubnetAttribute", **automatic)
    interface = put_interface(api, subnet_id, ipv6_addresses=(cidr.replace("/64", "5"),))
    gone = {"AssociationId": association["AssociationId"]}
    assert api.refused("DisassociateSubnetCidrBlock", **gone).code == "DependencyViolation"
    api.change(interface, ipv6_addresses=())
    shown = api.call("DisassociateSubnetCidrBlock", **gone)["Ipv6CidrBlockAssociation"]
    assert shown["Ipv6CidrBlockState"] == {"State": "disassociating"}
    subnet = api.get(Subnet, subnet_id)
    assert subnet.ipv6_cidrs == () and subnet.assign_ipv6_on_creation is False
    absent = api.refused("DisassociateSubnetCidrBlock", **gone)
    assert absent.code == "InvalidSubnetCidrBlockAssociationID.NotFound"


@pytest.mark.parametrize(
    ("given", "path", "name"),
    [
        ({"MapPublicIpOnLaunch": {"Value": True}}, "MapPublicIpOnLaunch", "map-public-ip-on-launch"),
        (
            {"EnableResourceNameDnsARecordOnLaunch": {"Value": True}},
            "PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsARecord",
            "private-dns-name-options-on-launch.enable-resource-name-dns-a-record",
        ),
        (
            {"EnableResourceNameDnsAAAARecordOnLaunch": {"Value": True}},
            "PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsAAAARecord",
            "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record",
        ),
        (
            {"PrivateDnsHostnameTypeOnLaunch": "resource-name"},
            "PrivateDnsNameOptionsOnLaunch.HostnameType",
            "private-dns-name-options-on-launch.hostname-type",
        ),
    ],
)
def test_attributes(api: Api, given: dict[str, Any], path: str, name: str) -> None:
    subnet_id = make_subnet(api, make_vpc(api))
    assert api.call("ModifySubnetAttribute", SubnetId=subnet_id, **given) == {}
    [shown] = api.call("DescribeSubnets", SubnetIds=[subnet_id])["Subnets"]
    for member in path.split("."):
        shown = shown[member]
    wanted = given.get("PrivateDnsHostnameTypeOnLaunch", True)
    assert shown == wanted
    value = "true" if wanted is True else wanted
    found = api.call("DescribeSubnets", Filters=[{"Name": name, "Values": [value]}])["Subnets"]
    assert subnet_id in {subnet["SubnetId"] for subnet in found}


def test_attributes_that_are_refused(api: Api) -> None:
    subnet_id = make_subnet(api, make_vpc(api))

    def code(**params: Any) -> str:
        return api.refused("ModifySubnetAttribute", **{"SubnetId": subnet_id, **params}).code

    on = {"Value": True}
    assert code() == "MissingParameter"
    assert code(MapPublicIpOnLaunch=on, EnableDns64=on) == "InvalidParameterCombination"
    assert code(PrivateDnsHostnameTypeOnLaunch="other") == "InvalidParameterValue"
    assert code(MapCustomerOwnedIpOnLaunch=on) == "UnsupportedOperation"
    assert code(SubnetId="subnet-00000000000000000", EnableDns64=on) == "InvalidSubnetID.NotFound"
    assert code(EnableDns64=on) == "UnsupportedOperation"


def test_delete(api: Api) -> None:
    vpc_id = make_vpc(api)
    subnet_id, other_id = make_subnet(api, vpc_id), make_subnet(api, vpc_id, "10.0.1.0/24")
    served = {"rtbassoc-00000000000000001": subnet_id, "rtbassoc-00000000000000002": other_id}
    table = api.change(put_table(api, vpc_id), associations=served)
    flow_log = {"ResourceIds": [subnet_id], "ResourceType": "Subnet", "TrafficType": "ALL", "LogGroupName": "x"}
    api.call("CreateFlowLogs", **flow_log)
    interface = put_interface(api, subnet_id)
    assert api.refused("DeleteSubnet", SubnetId=subnet_id).code == "DependencyViolation"
    with api.store.write() as tx:
        tx.delete(interface)
    assert api.call("DeleteSubnet", SubnetId=subnet_id) == {}
    assert list(api.get(RouteTable, table.id).associations.values()) == [other_id]
    [acl] = api.store.all(NetworkAcl, vpc_id=vpc_id)
    assert list(acl.associations.values()) == [other_id] and api.store.all(FlowLog) == []
    assert api.refused("DeleteSubnet", SubnetId=subnet_id).code == "InvalidSubnetID.NotFound"


def test_secondary_addresses_and_prefixes_are_counted(api: Api) -> None:
    subnet_id = make_subnet(api, make_vpc(api))
    put_interface(api, subnet_id, more_private_ips=("10.0.0.5", "10.0.0.6"), prefixes=("10.0.0.16/28",))
    [shown] = api.call("DescribeSubnets", SubnetIds=[subnet_id])["Subnets"]
    assert shown["AvailableIpAddressCount"] == 251 - 3 - 16


def test_reservations_are_asked_for_by_known_filters(api: Api) -> None:
    subnet_id = make_subnet(api, make_vpc(api))
    wrong = api.refused("GetSubnetCidrReservations", SubnetId=subnet_id, Filters=filters(colour="x"))
    assert wrong.code == "InvalidParameterValue"
    absent = api.refused("GetSubnetCidrReservations", SubnetId="subnet-00000000000000000")
    assert absent.code == "InvalidSubnetID.NotFound"

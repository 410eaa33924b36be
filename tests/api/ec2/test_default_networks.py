"""CreateDefaultVpc and CreateDefaultSubnet: what a region starts with, made again."""

from __future__ import annotations

from orchestrator.model.vpc import DhcpOptions, InternetGateway, Subnet, Vpc

from .conftest import Api
from .networks import default_vpc, filters, make_subnet


def delete_default_vpc(api: Api) -> str:
    vpc_id = default_vpc(api)
    for subnet in api.call("DescribeSubnets", Filters=filters(vpc_id=vpc_id))["Subnets"]:
        api.call("DeleteSubnet", SubnetId=subnet["SubnetId"])
    [gateway] = api.store.all(InternetGateway, vpc_id=vpc_id)
    api.call("DetachInternetGateway", InternetGatewayId=gateway.id, VpcId=vpc_id)
    api.call("DeleteInternetGateway", InternetGatewayId=gateway.id)
    api.call("DeleteVpc", VpcId=vpc_id)
    return vpc_id


def test_the_default_vpc_is_deleted_and_made_again(api: Api) -> None:
    assert api.refused("CreateDefaultVpc").code == "DefaultVpcAlreadyExists"
    old = delete_default_vpc(api)
    assert api.call("DescribeVpcs")["Vpcs"] == []
    assert api.refused("CreateDefaultSubnet", AvailabilityZone="us-east-1a").code == "DefaultVpcDoesNotExist"
    made = api.call("CreateDefaultVpc")["Vpc"]
    assert made["IsDefault"] is True and made["CidrBlock"] == "172.31.0.0/16" and made["VpcId"] != old
    assert [options.id for options in api.store.all(DhcpOptions)] == [made["DhcpOptionsId"]]
    subnets = api.call("DescribeSubnets", Filters=filters(vpc_id=made["VpcId"]))["Subnets"]
    assert [subnet["CidrBlock"] for subnet in subnets] == ["172.31.0.0/20", "172.31.16.0/20", "172.31.32.0/20"]
    assert len(api.store.all(InternetGateway, vpc_id=made["VpcId"])) == 1
    assert api.refused("CreateDefaultVpc").code == "DefaultVpcAlreadyExists"
    assert len(api.launch()) == 1


def test_a_default_subnet_is_made_again(api: Api) -> None:
    vpc_id = default_vpc(api)
    [second] = api.call("DescribeSubnets", Filters=filters(availability_zone="us-east-1b"))["Subnets"]
    taken = api.refused("CreateDefaultSubnet", AvailabilityZone="us-east-1b")
    assert taken.code == "DefaultSubnetAlreadyExistsInAvailabilityZone" and second["SubnetId"] in taken.message
    api.call("DeleteSubnet", SubnetId=second["SubnetId"])
    make_subnet(api, vpc_id, "172.31.17.0/24")
    made = api.call("CreateDefaultSubnet", AvailabilityZone="us-east-1b")["Subnet"]
    assert (made["CidrBlock"], made["DefaultForAz"], made["MapPublicIpOnLaunch"]) == ("172.31.48.0/20", True, True)
    [acl] = api.call("DescribeNetworkAcls", Filters=filters(vpc_id=vpc_id))["NetworkAcls"]
    assert made["SubnetId"] in {association["SubnetId"] for association in acl["Associations"]}


def test_what_is_refused(api: Api) -> None:
    assert api.refused("CreateDefaultSubnet").code == "MissingParameter"
    assert api.refused("CreateDefaultSubnet", AvailabilityZone="us-east-1z").code == "InvalidParameterValue"
    native = api.refused("CreateDefaultSubnet", AvailabilityZone="us-east-1a", Ipv6Native=True)
    assert native.code == "UnsupportedOperation"
    vpc_id = default_vpc(api)
    for subnet in api.store.all(Subnet, vpc_id=vpc_id):
        api.call("DeleteSubnet", SubnetId=subnet.id)
    api.change(api.get(Vpc, vpc_id), cidr="172.31.0.0/20")
    api.call("CreateDefaultSubnet", AvailabilityZoneId="use1-az1")
    assert api.refused("CreateDefaultSubnet", AvailabilityZone="us-east-1b").code == "InsufficientCidrBlocks"

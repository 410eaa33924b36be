"""NAT gateways: made, deleted, described; their addresses, interface and Elastic IPs."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.vpc import InternetGateway, NatGateway, NetworkInterface, Vpc
from orchestrator.reconcile.nat_gateway import NatGateways

from .conftest import Api
from .networks import filters, forget_wakes, make_subnet, make_vpc, woken


def allocate(api: Api) -> str:
    allocation_id = api.call("AllocateAddress")["AllocationId"]
    assert isinstance(allocation_id, str)
    return allocation_id


def make_public_subnet(api: Api) -> str:
    vpc_id = make_vpc(api)
    gateway = api.call("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
    api.call("AttachInternetGateway", InternetGatewayId=gateway, VpcId=vpc_id)
    return make_subnet(api, vpc_id)


def create(api: Api, subnet_id: str, **params: Any) -> dict[str, Any]:
    if params.get("ConnectivityType") != "private":
        params = {"AllocationId": allocate(api), **params}
    made = api.call("CreateNatGateway", SubnetId=subnet_id, **params)["NatGateway"]
    assert isinstance(made, dict)
    return made


def standing(api: Api, subnet_id: str, **params: Any) -> NatGateway:
    """One that is available, as the reconciler makes it."""
    made = create(api, subnet_id, **params)
    gateway = api.change(api.get(NatGateway, made["NatGatewayId"]), state="available")
    forget_wakes(api)
    return gateway


def describe(api: Api, gateway_id: str) -> dict[str, Any]:
    [shown] = api.call("DescribeNatGateways", NatGatewayIds=[gateway_id])["NatGateways"]
    assert isinstance(shown, dict)
    return shown


def free_addresses(api: Api, subnet_id: str) -> int:
    [subnet] = api.call("DescribeSubnets", SubnetIds=[subnet_id])["Subnets"]
    count = subnet["AvailableIpAddressCount"]
    assert isinstance(count, int)
    return count


# --- create -----------------------------------------------------------------------------------------------------------


def test_a_public_one_has_an_interface_and_its_elastic_ip(api: Api) -> None:
    subnet_id = make_public_subnet(api)
    allocation_id = allocate(api)
    forget_wakes(api)
    tags = [{"ResourceType": "natgateway", "Tags": [{"Key": "Name", "Value": "out"}]}]
    answer = api.call(
        "CreateNatGateway",
        SubnetId=subnet_id,
        AllocationId=allocation_id,
        PrivateIpAddress="10.0.0.9",
        AvailabilityMode="zonal",
        TagSpecifications=tags,
        ClientToken="once",
    )
    made = answer["NatGateway"]
    interface = api.get(NetworkInterface, made["NatGatewayAddresses"][0]["NetworkInterfaceId"])
    elastic = api.get(ElasticIp, allocation_id)
    assert answer["ClientToken"] == "once"
    assert (made["State"], made["ConnectivityType"], made["SubnetId"]) == ("pending", "public", subnet_id)
    assert made["VpcId"] == interface.vpc_id and made["CreateTime"] == api.now
    assert made["AvailabilityMode"] == "zonal" and made["Tags"] == [{"Key": "Name", "Value": "out"}]
    assert made["NatGatewayAddresses"] == [
        {
            "AllocationId": allocation_id,
            "NetworkInterfaceId": interface.id,
            "PrivateIp": "10.0.0.9",
            "PublicIp": elastic.public_ip,
            "AssociationId": elastic.association_id,
            "IsPrimary": True,
            "Status": "associating",
        }
    ]
    assert elastic.association_id.startswith("eipassoc-")
    assert (elastic.interface_id, elastic.private_ip) == (interface.id, "10.0.0.9")
    assert (interface.interface_type, interface.requester_id) == ("nat_gateway", "amazon-nat")
    assert (interface.state, interface.source_dest_check, interface.groups) == ("in-use", False, ())
    assert interface.description == f"Interface for NAT Gateway {made['NatGatewayId']}"
    assert (NatGateway.KIND, made["NatGatewayId"]) in {(kind, row) for kind, row, _ in api.store.pending_wakes()}
    assert woken(api) == {interface.vpc_id}


def test_its_interface_is_shown_and_is_nobody_elses_to_change(api: Api) -> None:
    gateway = standing(api, make_public_subnet(api))
    [shown] = api.call("DescribeNetworkInterfaces", NetworkInterfaceIds=[gateway.interface_id])["NetworkInterfaces"]
    assert (shown["InterfaceType"], shown["RequesterManaged"], shown["Status"]) == ("nat_gateway", True, "in-use")
    assert shown["Association"]["AllocationId"] == gateway.addresses[0].allocation_id
    eni = {"NetworkInterfaceId": gateway.interface_id}
    assert api.refused("DeleteNetworkInterface", **eni).code == "InvalidParameterValue"
    assert api.refused("ModifyNetworkInterfaceAttribute", Description={"Value": "x"}, **eni).code == "AuthFailure"
    assert api.refused("AssociateAddress", AllocationId=allocate(api), **eni).code == "AuthFailure"
    elastic = api.get(ElasticIp, gateway.addresses[0].allocation_id)
    assert api.refused("DisassociateAddress", AssociationId=elastic.association_id).code == "AuthFailure"
    assert api.refused("ReleaseAddress", AllocationId=elastic.id).code == "InvalidIPAddress.InUse"


def test_a_private_one_has_private_addresses_alone(api: Api) -> None:
    subnet_id = make_subnet(api, make_vpc(api))
    before = free_addresses(api, subnet_id)
    made = create(api, subnet_id, ConnectivityType="private", SecondaryPrivateIpAddressCount=2)
    shown = made["NatGatewayAddresses"]
    assert [(each["PrivateIp"], each["IsPrimary"]) for each in shown] == [
        ("10.0.0.4", True),
        ("10.0.0.5", False),
        ("10.0.0.6", False),
    ]
    assert all(each["Status"] == "assigning" and "AllocationId" not in each for each in shown)
    assert free_addresses(api, subnet_id) == before - 3
    named = create(
        api,
        subnet_id,
        ConnectivityType="private",
        PrivateIpAddress="10.0.0.20",
        SecondaryPrivateIpAddresses=["10.0.0.21"],
    )
    assert [each["PrivateIp"] for each in named["NatGatewayAddresses"]] == ["10.0.0.20", "10.0.0.21"]


def test_secondary_elastic_ips_stand_for_addresses_of_their_own(api: Api) -> None:
    subnet_id = make_public_subnet(api)
    more = [allocate(api), allocate(api)]
    chosen = create(api, subnet_id, SecondaryAllocationIds=more)["NatGatewayAddresses"]
    assert [each["AllocationId"] for each in chosen[1:]] == more
    assert [api.get(ElasticIp, each["AllocationId"]).private_ip for each in chosen] == [
        each["PrivateIp"] for each in chosen
    ]
    assert len({each["AssociationId"] for each in chosen}) == 3
    [extra] = [allocate(api)]
    named = create(api, subnet_id, SecondaryAllocationIds=[extra], SecondaryPrivateIpAddresses=["10.0.0.77"])
    assert api.get(ElasticIp, extra).private_ip == named["NatGatewayAddresses"][1]["PrivateIp"] == "10.0.0.77"


def test_an_ipv6_subnet_gives_it_no_ipv6_address(api: Api) -> None:
    vpc_id = make_vpc(api, AmazonProvidedIpv6CidrBlock=True)
    block = api.get(Vpc, vpc_id).ipv6_cidrs[0].cidr.replace("/56", "/64")
    subnet_id = make_subnet(api, vpc_id, Ipv6CidrBlock=block)
    api.call("ModifySubnetAttribute", SubnetId=subnet_id, AssignIpv6AddressOnCreation={"Value": True})
    made = create(api, subnet_id, ConnectivityType="private")
    interface = api.get(NetworkInterface, made["NatGatewayAddresses"][0]["NetworkInterfaceId"])
    assert interface.ipv6_addresses == ()


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"AllocationId": None}, "MissingParameter"),
        ({"SubnetId": None}, "MissingParameter"),
        ({"SubnetId": "subnet-00000000000000000"}, "InvalidSubnetID.NotFound"),
        ({"SubnetId": "x"}, "InvalidSubnetID.Malformed"),
        ({"AllocationId": "eipalloc-00000000000000000"}, "InvalidAllocationID.NotFound"),
        ({"ConnectivityType": "private"}, "InvalidParameterCombination"),
        ({"ConnectivityType": "other"}, "InvalidParameterValue"),
        ({"AvailabilityMode": "regional"}, "UnsupportedOperation"),
        ({"VpcId": "vpc-00000000000000000"}, "UnsupportedOperation"),
        ({"PrivateIpAddress": "10.9.0.9"}, "InvalidParameterValue"),
        ({"PrivateIpAddress": "10.0.0.1"}, "InvalidParameterValue"),
        ({"SecondaryPrivateIpAddressCount": 1}, "InvalidParameterCombination"),
        ({"SecondaryPrivateIpAddresses": ["10.0.0.9"]}, "InvalidParameterCombination"),
        ({"SecondaryAllocationIds": ["eipalloc-00000000000000000"]}, "InvalidAllocationID.NotFound"),
        ({"TagSpecifications": [{"ResourceType": "vpc", "Tags": []}]}, "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_is_refused(api: Api, params: dict[str, Any], code: str) -> None:
    wanted = {"SubnetId": make_public_subnet(api), "AllocationId": allocate(api), **params}
    given = {name: value for name, value in wanted.items() if value is not None}
    assert api.refused("CreateNatGateway", **given).code == code


def test_addresses_that_are_taken_are_refused(api: Api) -> None:
    subnet_id = make_public_subnet(api)
    first = create(api, subnet_id, PrivateIpAddress="10.0.0.9")
    used = first["NatGatewayAddresses"][0]["AllocationId"]
    free = allocate(api)
    again = api.refused("CreateNatGateway", SubnetId=subnet_id, AllocationId=used)
    assert again.code == "Resource.AlreadyAssociated" and used in again.message
    params = {"SubnetId": subnet_id, "AllocationId": free}
    assert api.refused("CreateNatGateway", PrivateIpAddress="10.0.0.9", **params).code == "InvalidIPAddress.InUse"
    assert api.refused("CreateNatGateway", SecondaryAllocationIds=[free], **params).code == "InvalidParameterValue"
    assert api.by().refused("CreateNatGateway", **params).code == "InvalidSubnetID.NotFound"


def test_a_public_one_in_a_vpc_without_an_internet_gateway_is_taken_and_fails(api: Api) -> None:
    """As in EC2: the request is fine, and the gateway says why it could not be made."""
    vpc_id = make_vpc(api)
    subnet_id = make_subnet(api, vpc_id)
    public, private = create(api, subnet_id), create(api, subnet_id, ConnectivityType="private")
    assert public["State"] == private["State"] == "pending" and "FailureCode" not in public
    reconciler = NatGateways(api.store, lambda: api.now)
    for made in (public, private):
        reconciler.step(made["NatGatewayId"])
    failed = describe(api, public["NatGatewayId"])
    assert (failed["State"], failed["FailureCode"], failed["FailureMessage"]) == (
        "failed",
        "Gateway.NotAttached",
        f"Network {vpc_id} has no Internet gateway attached",
    )
    assert describe(api, private["NatGatewayId"])["State"] == "available"
    api.call("ReleaseAddress", AllocationId=public["NatGatewayAddresses"][0]["AllocationId"])


def test_limits(api: Api) -> None:
    subnet_id = make_subnet(api, make_vpc(api))
    private = {"SubnetId": subnet_id, "ConnectivityType": "private"}
    error = api.refused("CreateNatGateway", SecondaryPrivateIpAddressCount=8, **private)
    assert error.code == "PrivateIpAddressLimitExceeded"
    made = [create(api, subnet_id, ConnectivityType="private")["NatGatewayId"] for _ in range(5)]
    assert api.refused("CreateNatGateway", **private).code == "NatGatewayLimitExceeded"
    api.change(api.get(NatGateway, made[0]), state="deleted")
    assert create(api, subnet_id, ConnectivityType="private")["State"] == "pending"


# --- delete -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["pending", "available", "failed"])
def test_deleting(api: Api, state: str) -> None:
    gateway = api.change(standing(api, make_public_subnet(api)), state=state)
    assert api.call("DeleteNatGateway", NatGatewayId=gateway.id) == {"NatGatewayId": gateway.id}
    assert describe(api, gateway.id)["State"] == "deleting"
    assert (NatGateway.KIND, gateway.id) in {(kind, row) for kind, row, _ in api.store.pending_wakes()}
    assert woken(api) == {gateway.vpc_id}


def test_deleting_it_again_changes_nothing(api: Api) -> None:
    gateway = standing(api, make_public_subnet(api))
    for state in ("deleting", "deleted"):
        api.change(gateway, state=state)
        assert api.call("DeleteNatGateway", NatGatewayId=gateway.id) == {"NatGatewayId": gateway.id}
        assert describe(api, gateway.id)["State"] == state
    assert api.store.pending_wakes() == []


def test_ids_that_are_not_there(api: Api) -> None:
    gateway = standing(api, make_public_subnet(api))
    absent = "nat-00000000000000000"
    for action in ("DeleteNatGateway", "DescribeNatGateways"):
        one = action == "DeleteNatGateway"
        for caller, gateway_id in ((api, absent), (api.by(), gateway.id), (api.within("us-west-2"), gateway.id)):
            params: dict[str, Any] = {"NatGatewayId": gateway_id} if one else {"NatGatewayIds": [gateway_id]}
            assert caller.refused(action, **params).code == "NatGatewayNotFound"
        malformed: dict[str, Any] = {"NatGatewayId": "x"} if one else {"NatGatewayIds": ["x"]}
        assert api.refused(action, **malformed).code == "NatGatewayMalformed"


def test_its_subnet_vpc_and_internet_gateway_stay_while_it_stands(api: Api) -> None:
    subnet_id = make_public_subnet(api)
    gateway = standing(api, subnet_id)
    assert api.refused("DeleteSubnet", SubnetId=subnet_id).code == "DependencyViolation"
    assert api.refused("DeleteVpc", VpcId=gateway.vpc_id).code == "DependencyViolation"
    attached = [{"Name": "attachment.vpc-id", "Values": [gateway.vpc_id]}]
    [way_out] = api.call("DescribeInternetGateways", Filters=attached)["InternetGateways"]
    way = {"InternetGatewayId": way_out["InternetGatewayId"], "VpcId": gateway.vpc_id}
    assert api.refused("DetachInternetGateway", **way).code == "DependencyViolation"


# --- describe ---------------------------------------------------------------------------------------------------------


def test_describing(api: Api) -> None:
    subnet_id = make_public_subnet(api)
    gateway = standing(api, subnet_id)
    shown = describe(api, gateway.id)
    assert shown["State"] == "available" and shown["NatGatewayAddresses"][0]["Status"] == "succeeded"
    assert not {"DeleteTime", "FailureCode", "FailureMessage"} & set(shown)
    api.change(gateway, state="failed", failure_code="Gateway.NotAttached", failure_message="no way out")
    failed = describe(api, gateway.id)
    assert (failed["FailureCode"], failed["FailureMessage"]) == ("Gateway.NotAttached", "no way out")
    assert failed["NatGatewayAddresses"][0]["Status"] == "failed"


def test_one_that_is_deleted_names_the_addresses_it_had(api: Api) -> None:
    gateway = standing(api, make_public_subnet(api))
    elastic = api.get(ElasticIp, gateway.addresses[0].allocation_id)
    api.change(elastic, interface_id="", private_ip="", association_id="")
    api.change(gateway, state="deleted", deleted_at=api.now)
    shown = describe(api, gateway.id)
    [address] = shown["NatGatewayAddresses"]
    assert shown["DeleteTime"] == api.now and address["PublicIp"] == elastic.public_ip
    assert "AssociationId" not in address
    api.call("ReleaseAddress", AllocationId=elastic.id)
    assert "PublicIp" not in describe(api, gateway.id)["NatGatewayAddresses"][0]


def test_filters_and_pages(api: Api) -> None:
    one, other = make_public_subnet(api), make_public_subnet(api)
    first, second = standing(api, one), api.get(NatGateway, create(api, other)["NatGatewayId"])
    api.call("CreateTags", Resources=[first.id], Tags=[{"Key": "Name", "Value": "x"}])

    def found(**values: str) -> list[str]:
        answer = api.call("DescribeNatGateways", Filter=filters(**values))
        return [each["NatGatewayId"] for each in answer["NatGateways"]]

    assert found(nat_gateway_id=first.id) == found(state="available") == found(subnet_id=one) == [first.id]
    assert found(vpc_id=second.vpc_id) == found(state="pend*") == [second.id]
    assert found(tag_key="Name") == [first.id]
    tagged = api.call("DescribeNatGateways", Filter=[{"Name": "tag:Name", "Values": ["x"]}])["NatGateways"]
    assert [each["Tags"] for each in tagged] == [[{"Key": "Name", "Value": "x"}]]
    assert api.refused("DescribeNatGateways", Filter=filters(colour="red")).code == "InvalidParameterValue"
    elsewhere = make_subnet(api, first.vpc_id, "10.0.1.0/24", AvailabilityZone="us-east-1b")
    for _ in range(4):
        create(api, elsewhere, ConnectivityType="private")
    page = api.call("DescribeNatGateways", MaxResults=5)
    rest = api.call("DescribeNatGateways", MaxResults=5, NextToken=page["NextToken"])
    assert len(page["NatGateways"]) == 5 and len(rest["NatGateways"]) == 1 and "NextToken" not in rest
    assert api.by().call("DescribeNatGateways")["NatGateways"] == []


# --- addresses --------------------------------------------------------------------------------------------------------


def test_elastic_ips_are_associated_and_disassociated(api: Api) -> None:
    subnet_id = make_public_subnet(api)
    gateway = standing(api, subnet_id)
    more, named = allocate(api), allocate(api)
    answer = api.call("AssociateNatGatewayAddress", NatGatewayId=gateway.id, AllocationIds=[more])
    [added] = answer["NatGatewayAddresses"]
    assert answer["NatGatewayId"] == gateway.id
    assert (added["AllocationId"], added["IsPrimary"], added["Status"]) == (more, False, "succeeded")
    assert woken(api) == {gateway.vpc_id}
    api.call(
        "AssociateNatGatewayAddress", NatGatewayId=gateway.id, AllocationIds=[named], PrivateIpAddresses=["10.0.0.50"]
    )
    shown = describe(api, gateway.id)["NatGatewayAddresses"]
    assert [each["AllocationId"] for each in shown[1:]] == [more, named]
    interface = api.get(NetworkInterface, gateway.interface_id)
    assert interface.more_private_ips == (added["PrivateIp"], "10.0.0.50")
    gone = api.call(
        "DisassociateNatGatewayAddress",
        NatGatewayId=gateway.id,
        AssociationIds=[added["AssociationId"]],
        MaxDrainDurationSeconds=60,
    )
    assert gone["NatGatewayAddresses"] == [{**added, "Status": "disassociating"}]
    assert woken(api) == {gateway.vpc_id}
    assert api.get(NetworkInterface, gateway.interface_id).more_private_ips == ("10.0.0.50",)
    assert [each["AllocationId"] for each in describe(api, gateway.id)["NatGatewayAddresses"][1:]] == [named]
    assert not api.get(ElasticIp, more).interface_id
    api.call("ReleaseAddress", AllocationId=more)


def test_elastic_ips_that_are_refused(api: Api) -> None:
    subnet_id = make_public_subnet(api)
    gateway, free = standing(api, subnet_id), allocate(api)
    primary = api.get(ElasticIp, gateway.addresses[0].allocation_id)

    def code(action: str, **params: Any) -> str:
        return api.refused(action, NatGatewayId=gateway.id, **params).code

    associate, disassociate = "AssociateNatGatewayAddress", "DisassociateNatGatewayAddress"
    assert code(associate, AllocationIds=[primary.id]) == "Resource.AlreadyAssociated"
    assert code(associate, AllocationIds=["eipalloc-00000000000000000"]) == "InvalidAllocationID.NotFound"
    two = ["10.0.0.50", "10.0.0.51"]
    assert code(associate, AllocationIds=[free], PrivateIpAddresses=two) == "InvalidParameterCombination"
    assert code(associate, AllocationIds=[free] * 8) == "InvalidParameterValue"
    many = [allocate(api) for _ in range(8)]
    assert code(associate, AllocationIds=many) == "PrivateIpAddressLimitExceeded"
    assert code(disassociate, AssociationIds=[primary.association_id]) == "InvalidParameterValue"
    assert code(disassociate, AssociationIds=["eipassoc-00000000000000000"]) == "InvalidAssociationID.NotFound"
    drain = {"AssociationIds": [primary.association_id], "MaxDrainDurationSeconds": 4001}
    assert code(disassociate, **drain) == "InvalidParameterValue"
    assert code("AssignPrivateNatGatewayAddress", PrivateIpAddressCount=1) == "UnsupportedOperation"
    api.change(gateway, state="pending")
    assert code(associate, AllocationIds=[free]) == "IncorrectState"


def test_private_addresses_are_assigned_and_unassigned(api: Api) -> None:
    subnet_id = make_subnet(api, make_vpc(api))
    gateway = standing(api, subnet_id, ConnectivityType="private")
    nat = {"NatGatewayId": gateway.id}
    counted = api.call("AssignPrivateNatGatewayAddress", PrivateIpAddressCount=1, **nat)["NatGatewayAddresses"]
    assert [(each["PrivateIp"], each["IsPrimary"], each["Status"]) for each in counted] == [
        ("10.0.0.5", False, "succeeded")
    ]
    api.call("AssignPrivateNatGatewayAddress", PrivateIpAddresses=["10.0.0.40"], **nat)
    assert woken(api) == {gateway.vpc_id}
    assert api.get(NetworkInterface, gateway.interface_id).more_private_ips == ("10.0.0.5", "10.0.0.40")
    gone = api.call("UnassignPrivateNatGatewayAddress", PrivateIpAddresses=["10.0.0.5"], **nat)
    assert [each["Status"] for each in gone["NatGatewayAddresses"]] == ["unassigning"]
    assert [each["PrivateIp"] for each in describe(api, gateway.id)["NatGatewayAddresses"]] == ["10.0.0.4", "10.0.0.40"]
    assert woken(api) == {gateway.vpc_id}

    def code(action: str, **params: Any) -> str:
        return api.refused(action, **nat, **params).code

    assign, unassign = "AssignPrivateNatGatewayAddress", "UnassignPrivateNatGatewayAddress"
    assert code(assign) == "MissingParameter"
    assert code(assign, PrivateIpAddressCount=7) == "PrivateIpAddressLimitExceeded"
    assert code(assign, PrivateIpAddresses=["10.0.0.40"]) == "InvalidIPAddress.InUse"
    assert code(assign, PrivateIpAddresses=["10.0.0.41"], PrivateIpAddressCount=1) == "InvalidParameterCombination"
    assert code(unassign, PrivateIpAddresses=["10.0.0.4"]) == "InvalidParameterValue"
    assert code(unassign, PrivateIpAddresses=["10.0.0.99"]) == "InvalidParameterValue"
    assert code("AssociateNatGatewayAddress", AllocationIds=[allocate(api)]) == "UnsupportedOperation"


def test_tags(api: Api) -> None:
    gateway = standing(api, make_subnet(api, make_vpc(api)), ConnectivityType="private")
    api.call("CreateTags", Resources=[gateway.id], Tags=[{"Key": "a", "Value": "b"}])
    [tag] = api.call("DescribeTags", Filters=filters(resource_id=gateway.id))["Tags"]
    assert tag["ResourceType"] == "natgateway"
    assert api.get(NatGateway, gateway.id).tags == {"a": "b"}


# --- with the reconciler ----------------------------------------------------------------------------------------------


def test_it_becomes_available_and_is_deleted_as_botocores_waiters_expect(api: Api) -> None:
    made = create(api, make_public_subnet(api))
    gateway_id, allocation_id = made["NatGatewayId"], made["NatGatewayAddresses"][0]["AllocationId"]
    reconciler = NatGateways(api.store, lambda: api.now)
    reconciler.step(gateway_id)
    assert describe(api, gateway_id)["State"] == "available"
    api.call("DeleteNatGateway", NatGatewayId=gateway_id)
    reconciler.step(gateway_id)
    shown = describe(api, gateway_id)
    assert shown["State"] == "deleted" and shown["DeleteTime"] == api.now
    assert api.store.get(NetworkInterface, made["NatGatewayAddresses"][0]["NetworkInterfaceId"]) is None
    api.call("ReleaseAddress", AllocationId=allocation_id)
    api.call("DeleteSubnet", SubnetId=made["SubnetId"])
    api.advance(3600)
    reconciler.step(gateway_id)
    assert api.refused("DescribeNatGateways", NatGatewayIds=[gateway_id]).code == "NatGatewayNotFound"


def test_one_whose_internet_gateway_has_gone_fails_and_can_be_deleted(api: Api) -> None:
    made = create(api, make_public_subnet(api))
    [gateway] = api.store.all(InternetGateway, vpc_id=made["VpcId"])
    api.change(gateway, vpc_id="")
    reconciler = NatGateways(api.store, lambda: api.now)
    reconciler.step(made["NatGatewayId"])
    failed = describe(api, made["NatGatewayId"])
    assert (failed["State"], failed["FailureCode"]) == ("failed", "Gateway.NotAttached")
    assert failed["NatGatewayAddresses"][0]["Status"] == "failed"
    assert api.call("DeleteNatGateway", NatGatewayId=made["NatGatewayId"]) == {"NatGatewayId": made["NatGatewayId"]}
    going = describe(api, made["NatGatewayId"])
    assert (going["State"], going["NatGatewayAddresses"][0]["Status"]) == ("deleting", "failed")
    reconciler.step(made["NatGatewayId"])
    gone = describe(api, made["NatGatewayId"])
    assert (gone["State"], gone["FailureCode"]) == ("deleted", "Gateway.NotAttached")
    assert gone["NatGatewayAddresses"][0]["Status"] == "failed"


def test_one_that_failed_has_no_part_in_what_became_of_its_place(api: Api) -> None:
    """Its address is another gateway's, its subnet and VPC are gone: it is deleted all the same, and by itself."""
    made = create(api, make_subnet(api, make_vpc(api)))
    gateway_id, [address] = made["NatGatewayId"], made["NatGatewayAddresses"]
    reconciler = NatGateways(api.store, lambda: api.now)
    reconciler.step(gateway_id)
    other = standing(api, make_public_subnet(api), AllocationId=address["AllocationId"])
    api.call("DeleteSubnet", SubnetId=made["SubnetId"])
    api.call("DeleteVpc", VpcId=made["VpcId"])
    api.call("DeleteNatGateway", NatGatewayId=gateway_id)
    reconciler.step(gateway_id)
    assert describe(api, gateway_id)["State"] == "deleted"
    elastic = api.get(ElasticIp, address["AllocationId"])
    assert (elastic.interface_id, elastic.private_ip) == (other.interface_id, other.addresses[0].private_ip)
    assert describe(api, other.id)["NatGatewayAddresses"][0]["AssociationId"] == elastic.association_id
    api.advance(3600)
    reconciler.step(gateway_id)
    assert api.refused("DescribeNatGateways", NatGatewayIds=[gateway_id]).code == "NatGatewayNotFound"

"""Elastic IPs: allocated, associated by every rule, released; and what becomes of the auto-assigned address."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import InternetGateway, NetworkInterface

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api
from .test_interface_attachments import attach, permit
from .test_network_interfaces import create, woken


def allocate(api: Api, **params: Any) -> str:
    allocation_id: str = api.call("AllocateAddress", **params)["AllocationId"]
    return allocation_id


def associate(api: Api, allocation_id: str, **params: Any) -> str:
    association_id: str = api.call("AssociateAddress", AllocationId=allocation_id, **params)["AssociationId"]
    return association_id


def row(api: Api, allocation_id: str) -> ElasticIp:
    return api.get(ElasticIp, allocation_id)


def interface_of(api: Api, instance_id: str) -> NetworkInterface:
    [interface] = api.store.all(NetworkInterface, instance_id=instance_id)
    return interface


def public_ip_of(api: Api, instance_id: str) -> str:
    """As DescribeInstances has it, everywhere the same."""
    [reservation] = api.call("DescribeInstances", InstanceIds=[instance_id])["Reservations"]
    [instance] = reservation["Instances"]
    shown: str = instance.get("PublicIpAddress", "")
    association = instance["NetworkInterfaces"][0].get("Association", {})
    assert association.get("PublicIp", "") == shown
    assert shown.replace(".", "-") in instance["PublicDnsName"]
    return shown


# --- allocating -------------------------------------------------------------------------------------------------------


def test_allocate(api: Api) -> None:
    tags = [{"ResourceType": "elastic-ip", "Tags": [{"Key": "Name", "Value": "web"}]}]
    answer = api.call("AllocateAddress", Domain="vpc", TagSpecifications=tags)
    assert answer == {
        "AllocationId": answer["AllocationId"],
        "PublicIp": answer["PublicIp"],
        "PublicIpv4Pool": "amazon",
        "NetworkBorderGroup": "us-east-1",
        "Domain": "vpc",
    }
    assert answer["AllocationId"].startswith("eipalloc-") and answer["PublicIp"].startswith("203.0.113.")
    [shown] = api.call("DescribeAddresses")["Addresses"]
    assert shown == {**answer, "Tags": [{"Key": "Name", "Value": "web"}]}


def test_a_certain_address(api: Api) -> None:
    answer = api.call("AllocateAddress", Address="203.0.113.77", NetworkBorderGroup="us-east-1")
    assert answer["PublicIp"] == "203.0.113.77"
    [instance_id] = api.launch()
    used = public_ip_of(api, instance_id)
    for address, code in {
        "203.0.113.77": "InvalidIPAddress.InUse",
        used: "InvalidIPAddress.InUse",
        "203.0.113.2": "InvalidParameterValue",
        "203.0.113.255": "InvalidParameterValue",
        "198.51.100.9": "InvalidParameterValue",
        "mine": "InvalidAddress.Malformed",
    }.items():
        assert api.refused("AllocateAddress", Address=address).code == code, address
    api.call("ReleaseAddress", AllocationId=answer["AllocationId"])
    assert api.by().call("AllocateAddress", Address="203.0.113.77")["PublicIp"] == "203.0.113.77"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"Domain": "standard"}, "InvalidParameterValue"),
        ({"PublicIpv4Pool": "ipv4pool-ec2-012345"}, "InvalidPublicIpv4PoolID.NotFound"),
        ({"NetworkBorderGroup": "us-east-1-wl1"}, "InvalidParameterValue"),
        ({"CustomerOwnedIpv4Pool": "coip"}, "UnsupportedOperation"),
        ({"TagSpecifications": [{"ResourceType": "instance", "Tags": []}]}, "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_cannot_be_allocated(api: Api, params: dict[str, Any], code: str) -> None:
    assert api.refused("AllocateAddress", **params).code == code


def test_an_account_has_so_many_in_a_region(api: Api) -> None:
    api.configure(quotas={"addresses": 2})
    allocate(api)
    allocate(api)
    assert api.refused("AllocateAddress").code == "AddressLimitExceeded"
    allocate(api.within("us-west-2"))
    allocate(api.by())


def test_instances_and_elastic_ips_share_the_range(api: Api) -> None:
    api.configure(public_range=IPv4Network("198.51.100.8/29"))  # .11 to .14
    api.launch(2)
    kept = [allocate(api), allocate(api)]
    taken = {interface.public_ip for interface in api.store.all(NetworkInterface)}
    assert taken | {row(api, each).public_ip for each in kept} == {f"198.51.100.{n}" for n in (11, 12, 13, 14)}
    assert api.refused("AllocateAddress").code == "InsufficientAddressCapacity"
    image = api.make_image()
    error = api.refused("RunInstances", ImageId=image.id, MinCount=1, MaxCount=1)
    assert error.code == "InsufficientAddressCapacity"
    api.call("ReleaseAddress", AllocationId=kept[0])
    api.launch()


# --- describing -------------------------------------------------------------------------------------------------------


def test_describe_what_is_associated(api: Api) -> None:
    [instance_id] = api.launch()
    allocation_id = allocate(api)
    association_id = associate(api, allocation_id, InstanceId=instance_id)
    interface = interface_of(api, instance_id)
    [shown] = api.call("DescribeAddresses", AllocationIds=[allocation_id])["Addresses"]
    assert shown == {
        "AllocationId": allocation_id,
        "PublicIp": row(api, allocation_id).public_ip,
        "PublicIpv4Pool": "amazon",
        "NetworkBorderGroup": "us-east-1",
        "Domain": "vpc",
        "Tags": [],
        "AssociationId": association_id,
        "InstanceId": instance_id,
        "NetworkInterfaceId": interface.id,
        "NetworkInterfaceOwnerId": ACCOUNT,
        "PrivateIpAddress": interface.private_ip,
    }
    assert api.call("DescribeAddresses", PublicIps=[shown["PublicIp"]])["Addresses"] == [shown]


def test_filters(api: Api) -> None:
    [instance_id] = api.launch()
    tags = [{"ResourceType": "elastic-ip", "Tags": [{"Key": "Name", "Value": "web"}]}]
    allocation_id = allocate(api, TagSpecifications=tags)
    allocate(api)
    association_id = associate(api, allocation_id, InstanceId=instance_id)
    interface = interface_of(api, instance_id)

    def count(name: str, value: str) -> int:
        return len(api.call("DescribeAddresses", Filters=[{"Name": name, "Values": [value]}])["Addresses"])

    for name, value in {
        "allocation-id": allocation_id,
        "association-id": association_id,
        "instance-id": instance_id,
        "network-interface-id": interface.id,
        "network-interface-owner-id": ACCOUNT,
        "private-ip-address": interface.private_ip,
        "public-ip": row(api, allocation_id).public_ip,
        "tag:Name": "web",
        "tag-key": "Name",
    }.items():
        assert (count(name, value), count(name, "no" + value)) == (1, 0), name
    assert (count("domain", "vpc"), count("network-border-group", "us-east-1")) == (2, 2)
    error = api.refused("DescribeAddresses", Filters=[{"Name": "colour", "Values": ["red"]}])
    assert error.code == "InvalidParameterValue"


def test_ids_that_are_not_there(api: Api) -> None:
    theirs = allocate(api.by())
    for params, code in (
        ({"AllocationIds": ["eipalloc"]}, "InvalidAllocationID.Malformed"),
        ({"AllocationIds": [theirs]}, "InvalidAllocationID.NotFound"),
        ({"PublicIps": [row(api, theirs).public_ip]}, "InvalidAddress.NotFound"),
        ({"PublicIps": ["there"]}, "InvalidAddress.Malformed"),
    ):
        assert api.refused("DescribeAddresses", **params).code == code
    for action in ("ReleaseAddress", "AssociateAddress"):
        assert api.refused(action, AllocationId=theirs).code == "InvalidAllocationID.NotFound"
        assert api.refused(action, PublicIp=row(api, theirs).public_ip).code == "AuthFailure"
        assert api.refused(action).code == "MissingParameter"
        both = {"AllocationId": theirs, "PublicIp": row(api, theirs).public_ip}
        assert api.refused(action, **both).code == "InvalidParameterCombination"
    assert api.call("DescribeAddresses")["Addresses"] == []


def test_pools(api: Api) -> None:
    assert api.call("DescribePublicIpv4Pools") == {"PublicIpv4Pools": []}
    assert api.call("DescribePublicIpv4Pools", Filters=[{"Name": "tag:a", "Values": ["b"]}]) == {"PublicIpv4Pools": []}
    error = api.refused("DescribePublicIpv4Pools", PoolIds=["ipv4pool-ec2-012345"])
    assert error.code == "InvalidPublicIpv4PoolID.NotFound"


# --- associating ------------------------------------------------------------------------------------------------------


def test_it_takes_the_place_of_the_auto_assigned_address(api: Api) -> None:
    [instance_id] = api.launch()
    auto = public_ip_of(api, instance_id)
    allocation_id = allocate(api)
    association_id = associate(api, allocation_id, InstanceId=instance_id)
    assert association_id.startswith("eipassoc-")
    assert public_ip_of(api, instance_id) == row(api, allocation_id).public_ip
    assert interface_of(api, instance_id).public_ip == ""
    assert interface_of(api, instance_id).vpc_id in woken(api)
    api.call("AllocateAddress", Address=auto)  # it is gone for good: another may have it
    assert associate(api, allocation_id, InstanceId=instance_id) == association_id  # asked again
    api.call("DisassociateAddress", AssociationId=association_id)
    assert public_ip_of(api, instance_id) not in ("", auto, row(api, allocation_id).public_ip)


def test_it_survives_a_stop_and_a_start(api: Api) -> None:
    [instance_id] = api.launch()
    allocation_id = allocate(api)
    associate(api, allocation_id, InstanceId=instance_id)
    mine = row(api, allocation_id).public_ip
    api.call("StopInstances", InstanceIds=[instance_id])
    api.settle(instance_id, State.STOPPED)
    assert public_ip_of(api, instance_id) == mine
    api.call("StartInstances", InstanceIds=[instance_id])
    assert public_ip_of(api, instance_id) == mine and interface_of(api, instance_id).public_ip == ""
    api.settle(instance_id, State.RUNNING)
    api.call("StopInstances", InstanceIds=[instance_id])
    api.settle(instance_id, State.STOPPED)
    api.call("DisassociateAddress", PublicIp=mine)
    assert public_ip_of(api, instance_id) == ""  # it does not run
    api.call("StartInstances", InstanceIds=[instance_id])
    assert public_ip_of(api, instance_id) not in ("", mine)


def test_no_new_address_where_the_launch_asked_for_none(api: Api) -> None:
    [instance_id] = api.launch(NetworkInterfaces=[{"DeviceIndex": 0, "AssociatePublicIpAddress": False}])
    allocation_id = allocate(api)
    associate(api, allocation_id, InstanceId=instance_id)
    api.call("DisassociateAddress", PublicIp=row(api, allocation_id).public_ip)
    assert public_ip_of(api, instance_id) == ""


def test_no_new_address_with_several_interfaces(api: Api) -> None:
    [instance_id] = api.launch()
    primary = interface_of(api, instance_id)
    other = [subnet for subnet in api.call("DescribeSubnets")["Subnets"] if subnet["SubnetId"] == primary.subnet_id]
    made = api.call("CreateNetworkInterface", SubnetId=other[0]["SubnetId"])["NetworkInterface"]
    allocation_id = allocate(api)
    associate(api, allocation_id, InstanceId=instance_id)
    attach(api, made["NetworkInterfaceId"], instance_id)
    error = api.refused("AssociateAddress", AllocationId=allocation_id, InstanceId=instance_id)
    assert error.code == "InvalidInstanceID" and "multiple interfaces" in error.message
    api.call("DisassociateAddress", PublicIp=row(api, allocation_id).public_ip)
    assert public_ip_of(api, instance_id) == ""
    api.call("StopInstances", InstanceIds=[instance_id])
    api.settle(instance_id, State.STOPPED)
    api.call("StartInstances", InstanceIds=[instance_id])
    assert public_ip_of(api, instance_id) == ""


def test_one_for_each_private_address(api: Api) -> None:
    [instance_id] = api.launch(InstanceType="t3.micro")
    auto = public_ip_of(api, instance_id)
    interface = interface_of(api, instance_id)
    assigned = api.call("AssignPrivateIpAddresses", NetworkInterfaceId=interface.id, SecondaryPrivateIpAddressCount=1)[
        "AssignedPrivateIpAddresses"
    ]
    secondary = assigned[0]["PrivateIpAddress"]
    second, first = allocate(api), allocate(api)
    associate(api, second, NetworkInterfaceId=interface.id, PrivateIpAddress=secondary)
    assert public_ip_of(api, instance_id) == auto  # the primary one keeps its own
    associate(api, first, NetworkInterfaceId=interface.id)
    assert public_ip_of(api, instance_id) == row(api, first).public_ip
    [reservation] = api.call("DescribeInstances", InstanceIds=[instance_id])["Reservations"]
    listed = reservation["Instances"][0]["NetworkInterfaces"][0]["PrivateIpAddresses"]
    assert [each["Association"]["PublicIp"] for each in listed] == [
        row(api, each).public_ip for each in (first, second)
    ]
    assert [each["Association"]["IpOwnerId"] for each in listed] == [ACCOUNT, ACCOUNT]
    api.call("DisassociateAddress", AssociationId=row(api, first).association_id)
    assert public_ip_of(api, instance_id) == ""  # not while an Elastic IP stands for its other address


def test_reassociation(api: Api) -> None:
    one, two = api.launch(2)
    allocation_id, other = allocate(api), allocate(api)
    earlier = associate(api, allocation_id, InstanceId=one)
    error = api.refused("AssociateAddress", AllocationId=allocation_id, InstanceId=two, AllowReassociation=False)
    assert error.code == "Resource.AlreadyAssociated" and earlier in error.message
    later = associate(api, allocation_id, InstanceId=two)
    assert later != earlier
    assert public_ip_of(api, two) == row(api, allocation_id).public_ip
    assert public_ip_of(api, one) not in ("", row(api, allocation_id).public_ip)  # an auto-assigned one again
    error = api.refused("AssociateAddress", AllocationId=other, InstanceId=two, AllowReassociation=False)
    assert error.code == "Resource.AlreadyAssociated" and later in error.message
    associate(api, other, InstanceId=two)
    assert public_ip_of(api, two) == row(api, other).public_ip
    left = row(api, allocation_id)  # parted, and still allocated
    assert (left.interface_id, left.private_ip, left.association_id) == ("", "", "")
    api.call("DisassociateAddress", AssociationId=later)  # has ended: no error
    assert row(api, other).interface_id


def test_by_public_ip_and_interface(api: Api) -> None:
    made = create(api)["NetworkInterfaceId"]
    answer = api.call("AllocateAddress")
    api.call("AssociateAddress", PublicIp=answer["PublicIp"], NetworkInterfaceId=made)
    assert row(api, answer["AllocationId"]).interface_id == made
    [shown] = api.call("DescribeAddresses")["Addresses"]
    assert "InstanceId" not in shown and shown["PrivateIpAddress"] == "172.31.0.4"
    api.call("DisassociateAddress", PublicIp=answer["PublicIp"])
    api.call("DisassociateAddress", PublicIp=answer["PublicIp"])
    assert row(api, answer["AllocationId"]).interface_id == ""


def test_where_it_cannot_be_associated(api: Api) -> None:
    [instance_id] = api.launch()
    interface = interface_of(api, instance_id)
    allocation_id = allocate(api)

    def refused(**params: Any) -> str:
        return api.refused("AssociateAddress", AllocationId=allocation_id, **params).code

    assert refused() == "MissingParameter"
    assert refused(InstanceId=instance_id, NetworkInterfaceId=interface.id) == "InvalidParameterCombination"
    assert refused(InstanceId="i-00000000000000000") == "InvalidInstanceID.NotFound"
    assert refused(NetworkInterfaceId="eni-00000000000000000") == "InvalidNetworkInterfaceID.NotFound"
    assert refused(NetworkInterfaceId=interface.id, PrivateIpAddress="172.31.0.99") == "InvalidParameterValue"
    assert refused(InstanceId=instance_id, DryRun=True) == "DryRunOperation"
    api.change(api.get(Instance, instance_id), state=State.PENDING)
    assert refused(InstanceId=instance_id) == "InvalidInstanceID"
    assert refused(NetworkInterfaceId=interface.id) == "IncorrectInstanceState"
    api.change(api.get(Instance, instance_id), state=State.RUNNING)
    [gateway] = api.store.all(InternetGateway, vpc_id=interface.vpc_id)
    api.change(gateway, vpc_id="")
    assert refused(InstanceId=instance_id) == "Gateway.NotAttached"
    api.change(gateway, vpc_id=interface.vpc_id)
    api.change(interface, requester_id="amazon-elb")
    assert refused(NetworkInterfaceId=interface.id) == "AuthFailure"


def test_to_another_accounts_interface_by_permission(api: Api) -> None:
    made = create(api)["NetworkInterfaceId"]
    other = api.by()
    allocation_id = allocate(other)
    error = other.refused("AssociateAddress", AllocationId=allocation_id, NetworkInterfaceId=made)
    assert error.code == "InvalidNetworkInterfaceID.NotFound"
    permit(api, made, "EIP-ASSOCIATE")
    associate(other, allocation_id, NetworkInterfaceId=made)
    [shown] = api.call("DescribeNetworkInterfaces", NetworkInterfaceIds=[made])["NetworkInterfaces"]
    assert shown["Association"]["IpOwnerId"] == OTHER_ACCOUNT
    [address] = other.call("DescribeAddresses")["Addresses"]
    assert address["NetworkInterfaceOwnerId"] == ACCOUNT


# --- parting and releasing --------------------------------------------------------------------------------------------


def test_disassociate(api: Api) -> None:
    for params, code in (
        ({}, "MissingParameter"),
        ({"AssociationId": "eipassoc"}, "InvalidAssociationID.Malformed"),
        ({"AssociationId": "eipassoc-00000000000000000"}, "InvalidAssociationID.NotFound"),
        ({"PublicIp": "203.0.113.9"}, "AuthFailure"),
        ({"PublicIp": "203.0.113.9", "AssociationId": "eipassoc-00000000000000000"}, "InvalidParameterCombination"),
    ):
        assert api.refused("DisassociateAddress", **params).code == code
    [instance_id] = api.launch()
    allocation_id = allocate(api)
    association_id = associate(api, allocation_id, InstanceId=instance_id)
    theirs = api.by().refused("DisassociateAddress", AssociationId=association_id)
    assert theirs.code == "InvalidAssociationID.NotFound"
    assert api.refused("DisassociateAddress", AssociationId=association_id, DryRun=True).code == "DryRunOperation"
    api.change(interface_of(api, instance_id), requester_id="amazon-elb")
    assert api.refused("DisassociateAddress", AssociationId=association_id).code == "AuthFailure"
    [other] = api.launch()
    assert api.refused("AssociateAddress", AllocationId=allocation_id, InstanceId=other).code == "AuthFailure"
    api.change(interface_of(api, instance_id), requester_id="")
    api.call("DisassociateAddress", AssociationId=association_id)
    api.call("DisassociateAddress", AssociationId=association_id)
    assert row(api, allocation_id).interface_id == ""


def test_release(api: Api) -> None:
    [instance_id] = api.launch()
    answer = api.call("AllocateAddress")
    allocation_id = answer["AllocationId"]
    associate(api, allocation_id, InstanceId=instance_id)
    assert api.refused("ReleaseAddress", AllocationId=allocation_id).code == "InvalidIPAddress.InUse"
    api.call("DisassociateAddress", PublicIp=answer["PublicIp"])
    wrong = api.refused("ReleaseAddress", AllocationId=allocation_id, NetworkBorderGroup="us-west-2")
    assert wrong.code == "InvalidParameterValue"
    api.call("ReleaseAddress", AllocationId=allocation_id, NetworkBorderGroup="us-east-1")
    assert api.refused("ReleaseAddress", AllocationId=allocation_id).code == "InvalidAllocationID.NotFound"
    api.call("ReleaseAddress", PublicIp=api.call("AllocateAddress")["PublicIp"])
    assert api.store.all(ElasticIp) == []


# --- reverse names ----------------------------------------------------------------------------------------------------


def test_the_name_that_an_address_resolves_to(api: Api) -> None:
    allocation_id, other = allocate(api), allocate(api)
    public_ip = row(api, allocation_id).public_ip
    assert api.call("DescribeAddressesAttribute", Attribute="domain-name")["Addresses"] == []
    named = api.call("ModifyAddressAttribute", AllocationId=allocation_id, DomainName="Mail.Example.com")["Address"]
    assert named == {"AllocationId": allocation_id, "PublicIp": public_ip, "PtrRecord": "mail.example.com."}
    assert api.call("DescribeAddressesAttribute")["Addresses"] == [named]
    assert api.call("DescribeAddressesAttribute", AllocationIds=[allocation_id])["Addresses"] == [named]
    assert api.call("DescribeAddressesAttribute", AllocationIds=[other])["Addresses"] == []
    assert api.refused("ReleaseAddress", AllocationId=allocation_id).code == "InvalidAddress.Locked"
    bare = api.call("ResetAddressAttribute", AllocationId=allocation_id, Attribute="domain-name")["Address"]
    assert bare == {"AllocationId": allocation_id, "PublicIp": public_ip}
    api.call("ReleaseAddress", AllocationId=allocation_id)
    for action, params, code in (
        ("ModifyAddressAttribute", {}, "MissingParameter"),
        ("ModifyAddressAttribute", {"DomainName": "not a name"}, "InvalidParameterValue"),
        ("ModifyAddressAttribute", {"DomainName": "single"}, "InvalidParameterValue"),
        ("ResetAddressAttribute", {"Attribute": "colour"}, "InvalidParameterValue"),
    ):
        assert api.refused(action, AllocationId=other, **params).code == code
    error = api.refused("DescribeAddressesAttribute", Attribute="colour")
    assert error.code == "InvalidParameterValue"


def test_a_new_name_wakes_the_network(api: Api) -> None:
    [instance_id] = api.launch()
    allocation_id = allocate(api)
    associate(api, allocation_id, InstanceId=instance_id)
    vpc_id = interface_of(api, instance_id).vpc_id
    for kind, resource_id, serial in api.store.pending_wakes():
        api.store.wake_done(kind, resource_id, serial)
    api.call("ModifyAddressAttribute", AllocationId=allocation_id, DomainName="mail.example.com")
    assert vpc_id in woken(api)


# --- whatever is done, a public address stands for one thing ----------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(["allocate", "associate", "part", "release", "stop", "start"]), st.integers(0, 3)),
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_public_address_belongs_to_two(api: Api, steps: list[tuple[str, int]]) -> None:
    account = api.by(f"{api.world.requests:012}")  # a fresh one for each example
    instances = account.launch(2, ImageId=api.make_image(public=True).id)
    for action, number in steps:
        kept = sorted(account.store.all(ElasticIp, account=account.account), key=lambda each: each.id)
        instance = account.get(Instance, instances[number % 2])
        if action == "allocate":
            allocate(account)
        elif action in ("stop", "start"):
            wanted = State.STOPPED if action == "stop" else State.RUNNING
            if instance.state is not wanted:
                verb = "StopInstances" if action == "stop" else "StartInstances"
                account.call(verb, InstanceIds=[instance.id])
                account.settle(instance.id, wanted)
        elif kept:
            address = kept[number % len(kept)]
            if action == "associate":
                associate(account, address.id, InstanceId=instance.id)
            elif action == "part":
                account.call("DisassociateAddress", PublicIp=address.public_ip)
            elif not address.interface_id:
                account.call("ReleaseAddress", AllocationId=address.id)
        rows = account.store.all(NetworkInterface, account=account.account)
        elastic = account.store.all(ElasticIp, account=account.account)
        public = [each.public_ip for each in rows if each.public_ip] + [each.public_ip for each in elastic]
        assert len(public) == len(set(public))
        targets = [(each.interface_id, each.private_ip) for each in elastic if each.interface_id]
        assert len(targets) == len(set(targets))
        for interface in rows:
            state = account.get(Instance, interface.instance_id).state
            has = bool(interface.public_ip) + any(each.interface_id == interface.id for each in elastic)
            assert has == 1 or (has == 0 and state is State.STOPPED)
    for instance_id in instances:
        account.settle(instance_id, State.TERMINATED)
    for address in account.store.all(ElasticIp, account=account.account):
        with account.store.write() as tx:
            tx.delete(address)

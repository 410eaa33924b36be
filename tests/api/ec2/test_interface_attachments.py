"""AttachNetworkInterface, DetachNetworkInterface and the permissions of interfaces."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import NetworkInterface

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api
from .test_network_interfaces import create, subnet_of, woken


def attach(api: Api, interface_id: str, instance_id: str, index: int = 1) -> str:
    answer = api.call(
        "AttachNetworkInterface", NetworkInterfaceId=interface_id, InstanceId=instance_id, DeviceIndex=index
    )
    assert answer["NetworkCardIndex"] == 0
    attachment_id: str = answer["AttachmentId"]
    return attachment_id


def refused(api: Api, interface_id: str, instance_id: str, **params: Any) -> str:
    given = {"NetworkInterfaceId": interface_id, "InstanceId": instance_id, "DeviceIndex": 1, **params}
    return api.refused("AttachNetworkInterface", **given).code


def new(api: Api, zone: str = "us-east-1a", **params: Any) -> str:
    made: str = create(api, subnet_of(api, zone), **params)["NetworkInterfaceId"]
    return made


def launch(api: Api, settled: State = State.RUNNING, **params: Any) -> str:
    subnet = params.pop("SubnetId", subnet_of(api).id)
    return api.launch(settled=settled, **{"InstanceType": "t3.micro", "SubnetId": subnet, **params})[0]


def row(api: Api, interface_id: str) -> NetworkInterface:
    return api.get(NetworkInterface, interface_id)


def settle(api: Api, interface_id: str) -> None:
    """As the reconciler does when the interface is plugged in."""
    interface = row(api, interface_id)
    assert interface.attachment is not None
    api.change(interface, attachment=replace(interface.attachment, state="attached"))


def detach(api: Api, attachment_id: str, **params: Any) -> None:
    api.call("DetachNetworkInterface", AttachmentId=attachment_id, **params)


def test_to_a_running_instance(api: Api) -> None:
    instance_id, interface_id = launch(api), new(api)
    attachment_id = attach(api, interface_id, instance_id)
    interface = row(api, interface_id)
    assert interface.state == "in-use" and interface.attachment is not None
    assert interface.attachment.state == "attaching" and not interface.attachment.delete_on_termination
    assert {instance_id, interface.vpc_id} <= woken(api)
    [shown] = api.call("DescribeNetworkInterfaces", NetworkInterfaceIds=[interface_id])["NetworkInterfaces"]
    assert shown["Attachment"]["Status"] == "attaching" and shown["Attachment"]["AttachmentId"] == attachment_id
    assert api.refused("DetachNetworkInterface", AttachmentId=attachment_id).code == "IncorrectState"
    settle(api, interface_id)
    detach(api, attachment_id)
    leaving = row(api, interface_id).attachment
    assert leaving is not None and leaving.state == "detaching" and not leaving.forced
    assert row(api, interface_id).state == "in-use"  # until the guest has let go
    detach(api, attachment_id, Force=True)
    assert (forced := row(api, interface_id).attachment) is not None and forced.forced
    detach(api, attachment_id)
    assert (still := row(api, interface_id).attachment) is not None and still.forced


def test_to_a_stopped_instance(api: Api) -> None:
    instance_id, interface_id = launch(api, State.STOPPED), new(api)
    before = row(api, interface_id)
    attachment_id = attach(api, interface_id, instance_id)
    interface = row(api, interface_id)
    assert interface.state == "in-use" and interface.attachment is not None
    assert interface.attachment.state == "attached" and interface.mac == before.mac
    detach(api, attachment_id)
    assert row(api, interface_id).attachment is None and row(api, interface_id).state == "available"
    assert api.refused("DetachNetworkInterface", AttachmentId=attachment_id).code == "InvalidAttachmentID.NotFound"
    other = launch(api, State.STOPPED)
    attach(api, interface_id, other)
    assert row(api, interface_id).mac == before.mac and row(api, interface_id).instance_id == other


def test_where_it_cannot_be_attached(api: Api) -> None:
    instance_id, interface_id = launch(api), new(api)  # a t3.micro has two interfaces with two addresses each
    assert refused(api, "eni-00000000000000000", instance_id) == "InvalidNetworkInterfaceID.NotFound"
    assert refused(api, interface_id, "i-00000000000000000") == "InvalidInstanceID.NotFound"
    assert refused(api, new(api, "us-east-1b"), instance_id) == "InvalidParameterValue"
    assert refused(api, interface_id, instance_id, DeviceIndex=0) == "InvalidParameterValue"
    assert refused(api, interface_id, instance_id, DeviceIndex=2) == "InvalidParameterValue"
    assert refused(api, interface_id, instance_id, DeviceIndex=-1) == "InvalidParameterValue"
    assert refused(api, interface_id, instance_id, NetworkCardIndex=1) == "UnsupportedOperation"
    assert refused(api, interface_id, instance_id, DryRun=True) == "DryRunOperation"
    many = new(api, SecondaryPrivateIpAddressCount=2)
    assert refused(api, many, instance_id) == "PrivateIpAddressLimitExceeded"
    attach(api, interface_id, instance_id)
    assert refused(api, interface_id, launch(api)) == "InvalidNetworkInterface.InUse"
    assert refused(api, new(api), instance_id) == "InvalidParameterValue"  # the index is taken
    assert refused(api, new(api), instance_id, DeviceIndex=2) == "AttachmentLimitExceeded"


@pytest.mark.parametrize("state", [State.PENDING, State.STOPPING, State.SHUTTING_DOWN, State.TERMINATED])
def test_only_instances_that_run_or_are_stopped(api: Api, state: State) -> None:
    instance_id, interface_id = launch(api), new(api)
    attachment_id = attach(api, interface_id, instance_id)
    settle(api, interface_id)
    api.change(api.get(Instance, instance_id), state=state)
    assert refused(api, new(api), instance_id) == "IncorrectInstanceState"
    assert api.refused("DetachNetworkInterface", AttachmentId=attachment_id).code == "IncorrectInstanceState"


def test_what_cannot_be_detached(api: Api) -> None:
    [primary] = api.store.all(NetworkInterface, instance_id=launch(api))
    assert primary.attachment is not None
    assert api.refused("DetachNetworkInterface", AttachmentId=primary.attachment.id).code == "OperationNotPermitted"
    theirs = api.by().refused("DetachNetworkInterface", AttachmentId=primary.attachment.id)
    assert theirs.code == "InvalidAttachmentID.NotFound"
    malformed = api.refused("DetachNetworkInterface", AttachmentId="eni-attach")
    assert malformed.code == "InvalidAttachmentID.Malformed"


# --- permissions ------------------------------------------------------------------------------------------------------


def permit(api: Api, interface_id: str, permission: str = "INSTANCE-ATTACH", account: str = OTHER_ACCOUNT) -> str:
    answer = api.call(
        "CreateNetworkInterfacePermission",
        NetworkInterfaceId=interface_id,
        AwsAccountId=account,
        Permission=permission,
    )
    assert answer["InterfacePermission"]["PermissionState"] == {"State": "granted"}
    permission_id: str = answer["InterfacePermission"]["NetworkInterfacePermissionId"]
    return permission_id


def test_another_account_attaches_by_permission(api: Api) -> None:
    other = api.by()
    instance_id = launch(other, ImageId=api.make_image(public=True).id)
    interface_id = new(api)
    assert refused(other, interface_id, instance_id) == "InvalidNetworkInterfaceID.NotFound"
    permit(api, interface_id, "EIP-ASSOCIATE")
    assert refused(other, interface_id, instance_id) == "InvalidNetworkInterfaceID.NotFound"
    permission_id = permit(api, interface_id)
    assert refused(api.by("777788889999"), interface_id, instance_id) == "InvalidInstanceID.NotFound"
    attachment_id = attach(other, interface_id, instance_id)
    [shown] = api.call("DescribeNetworkInterfaces", NetworkInterfaceIds=[interface_id])["NetworkInterfaces"]
    assert shown["OwnerId"] == ACCOUNT and shown["Attachment"]["InstanceOwnerId"] == OTHER_ACCOUNT
    reservations = other.call("DescribeInstances", InstanceIds=[instance_id])["Reservations"]
    assert reservations[0]["Instances"][0]["NetworkInterfaces"][1]["OwnerId"] == ACCOUNT
    given = {"NetworkInterfacePermissionId": permission_id}
    assert api.refused("DeleteNetworkInterfacePermission", **given).code == "OperationNotPermitted"
    assert api.call("DeleteNetworkInterfacePermission", **given, Force=True) == {"Return": True}
    settle(api, interface_id)
    detach(other, attachment_id)  # the instance is theirs


def test_the_interfaces_owner_detaches_it_as_well(api: Api) -> None:
    other = api.by()
    instance_id = launch(other, State.STOPPED, ImageId=api.make_image(public=True).id)
    interface_id = new(api)
    permit(api, interface_id)
    detach(api, attach(other, interface_id, instance_id))
    assert row(api, interface_id).attachment is None


def test_permissions(api: Api) -> None:
    interface_id = new(api)
    made = [permit(api, interface_id), permit(api, interface_id, "EIP-ASSOCIATE")]
    elsewhere = permit(api, new(api), account="777788889999")
    listed = api.call("DescribeNetworkInterfacePermissions")["NetworkInterfacePermissions"]
    assert [each["NetworkInterfacePermissionId"] for each in listed] == [*made, elsewhere]
    assert listed[0] == {
        "NetworkInterfacePermissionId": made[0],
        "NetworkInterfaceId": interface_id,
        "AwsAccountId": OTHER_ACCOUNT,
        "Permission": "INSTANCE-ATTACH",
        "PermissionState": {"State": "granted"},
    }
    for name, value, count in (
        ("network-interface-permission-id", made[1], 1),
        ("network-interface-id", interface_id, 2),
        ("aws-account-id", OTHER_ACCOUNT, 2),
        ("aws-service", "*", 0),
        ("permission", "EIP-ASSOCIATE", 1),
    ):
        filters = [{"Name": f"network-interface-permission.{name}", "Values": [value]}]
        found = api.call("DescribeNetworkInterfacePermissions", Filters=filters)["NetworkInterfacePermissions"]
        assert len(found) == count, name
    by_id = api.call("DescribeNetworkInterfacePermissions", NetworkInterfacePermissionIds=[elsewhere])
    assert len(by_id["NetworkInterfacePermissions"]) == 1
    page = api.call("DescribeNetworkInterfacePermissions", MaxResults=5)
    assert len(page["NetworkInterfacePermissions"]) == 3 and "NextToken" not in page
    assert api.by().call("DescribeNetworkInterfacePermissions")["NetworkInterfacePermissions"] == []
    given = {"NetworkInterfaceId": interface_id, "AwsAccountId": OTHER_ACCOUNT, "Permission": "INSTANCE-ATTACH"}
    for changes, code in (
        ({}, "InvalidPermission.Duplicate"),
        ({"AwsAccountId": "you"}, "InvalidParameterValue"),
        ({"Permission": "ALL"}, "InvalidParameterValue"),
        ({"NetworkInterfaceId": "eni-00000000000000000"}, "InvalidNetworkInterfaceID.NotFound"),
        ({"AwsService": "elb"}, "UnsupportedOperation"),
        ({"AwsAccountId": "777788889999", "DryRun": True}, "DryRunOperation"),
    ):
        assert api.refused("CreateNetworkInterfacePermission", **{**given, **changes}).code == code
    del given["AwsAccountId"]
    assert api.refused("CreateNetworkInterfacePermission", **given).code == "MissingParameter"
    api.call("DeleteNetworkInterfacePermission", NetworkInterfacePermissionId=made[0])
    gone = api.refused("DeleteNetworkInterfacePermission", NetworkInterfacePermissionId=made[0])
    assert gone.code == "InvalidNetworkInterfacePermissionID.NotFound"

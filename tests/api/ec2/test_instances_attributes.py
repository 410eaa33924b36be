"""Attributes and options of instances: read, changed, reset; and the console."""

from __future__ import annotations

import base64

import pytest

from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface, SecurityGroup

ATTRIBUTES = {
    "instanceType": "InstanceType",
    "kernel": "KernelId",
    "ramdisk": "RamdiskId",
    "userData": "UserData",
    "disableApiTermination": "DisableApiTermination",
    "instanceInitiatedShutdownBehavior": "InstanceInitiatedShutdownBehavior",
    "rootDeviceName": "RootDeviceName",
    "blockDeviceMapping": "BlockDeviceMappings",
    "productCodes": "ProductCodes",
    "sourceDestCheck": "SourceDestCheck",
    "groupSet": "Groups",
    "ebsOptimized": "EbsOptimized",
    "sriovNetSupport": "SriovNetSupport",
    "enaSupport": "EnaSupport",
    "enclaveOptions": "EnclaveOptions",
    "disableApiStop": "DisableApiStop",
}


@pytest.fixture
def one(api):
    return api.launch(InstanceType="t3.micro")[0]


@pytest.fixture
def read(api, one):
    def attribute(name):
        answer = api.call("DescribeInstanceAttribute", InstanceId=one, Attribute=name)
        assert answer["InstanceId"] == one
        shown = answer[ATTRIBUTES[name]]
        return shown.get("Value") if isinstance(shown, dict) and "Value" in shown else shown

    return attribute


@pytest.fixture
def modify(api, one):
    return lambda **params: api.call("ModifyInstanceAttribute", InstanceId=one, **params)


@pytest.fixture
def refused(api, one):
    return lambda **params: api.refused("ModifyInstanceAttribute", InstanceId=one, **params).code


def test_all_attributes_can_be_read(api, one, read):
    documented = api.world.protocol.model.shape_for("InstanceAttributeName").enum
    assert set(documented) == set(ATTRIBUTES)
    expected = {
        "instanceType": "t3.micro",
        "kernel": {},
        "ramdisk": {},
        "userData": {},
        "disableApiTermination": False,
        "instanceInitiatedShutdownBehavior": "stop",
        "rootDeviceName": "/dev/xvda",
        "productCodes": [],
        "sourceDestCheck": True,
        "ebsOptimized": False,
        "sriovNetSupport": "simple",
        "enaSupport": True,
        "enclaveOptions": {"Enabled": False},
        "disableApiStop": False,
    }
    assert {name: read(name) for name in expected} == expected
    assert read("blockDeviceMapping")[0]["Ebs"]["DeleteOnTermination"] is True
    assert read("groupSet")[0]["GroupName"] == "default"
    error = api.refused("DescribeInstanceAttribute", InstanceId=one, Attribute="colour")
    assert error.code == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("attribute", "member", "text", "value"),
    [
        ("disableApiTermination", "DisableApiTermination", "true", True),
        ("disableApiStop", "DisableApiStop", "True", True),
        ("sourceDestCheck", "SourceDestCheck", "false", False),
        ("instanceInitiatedShutdownBehavior", "InstanceInitiatedShutdownBehavior", "terminate", "terminate"),
    ],
)
@pytest.mark.parametrize("form", ["member", "attribute"])
@pytest.mark.parametrize("state", [State.RUNNING, State.STOPPED])
def test_changes_in_any_state(api, one, read, modify, attribute, member, text, value, form, state):
    api.settle(one, state)
    modify(**({member: {"Value": value}} if form == "member" else {"Attribute": attribute, "Value": text}))
    assert read(attribute) == value


@pytest.mark.parametrize(
    ("attribute", "params", "value"),
    [
        ("instanceType", {"InstanceType": {"Value": "m5.large"}}, "m5.large"),
        ("instanceType", {"Attribute": "instanceType", "Value": "m5.large"}, "m5.large"),
        ("userData", {"UserData": {"Value": b"#!/bin/sh\n"}}, base64.b64encode(b"#!/bin/sh\n").decode()),
        ("userData", {"Attribute": "userData", "Value": "aGVsbG8="}, "aGVsbG8="),
        ("ebsOptimized", {"EbsOptimized": {"Value": True}}, True),
        ("enaSupport", {"EnaSupport": {"Value": True}}, True),
        ("sriovNetSupport", {"SriovNetSupport": {"Value": "simple"}}, "simple"),
    ],
)
def test_changes_while_stopped(api, one, read, modify, refused, attribute, params, value):
    assert refused(**params) == "IncorrectInstanceState"
    api.settle(one, State.STOPPED)
    modify(**params)
    assert read(attribute) == value


def test_another_type_brings_its_own_processors_and_credits(api):
    (one,) = api.launch(InstanceType="c5.2xlarge", CpuOptions={"CoreCount": 2, "ThreadsPerCore": 1})
    api.settle(one, State.STOPPED)
    api.call("ModifyInstanceAttribute", InstanceId=one, InstanceType={"Value": "t3.small"})
    shown = api.call("DescribeInstances")["Reservations"][0]["Instances"][0]
    assert shown["CpuOptions"] == {"CoreCount": 1, "ThreadsPerCore": 2}
    assert api.get(Instance, one).cpu_credits == "unlimited"


def attach_another(api, instance_id, **params):
    (primary,) = api.store.all(NetworkInterface, instance_id=instance_id)
    made = api.call("CreateNetworkInterface", SubnetId=primary.subnet_id, **params)["NetworkInterface"]
    given = {"NetworkInterfaceId": made["NetworkInterfaceId"], "InstanceId": instance_id, "DeviceIndex": 1}
    api.call("AttachNetworkInterface", **given)


def test_another_type_must_hold_the_interfaces(api):
    (one,) = api.launch(InstanceType="m5.large")
    attach_another(api, one, SecondaryPrivateIpAddressCount=4)
    api.settle(one, State.STOPPED)

    def refused(name):
        return api.refused("ModifyInstanceAttribute", InstanceId=one, InstanceType={"Value": name}).code

    assert refused("t3.nano") == "PrivateIpAddressLimitExceeded"  # two interfaces with two addresses
    attach = api.call("CreateNetworkInterface", SubnetId=api.get(Instance, one).subnet_id)["NetworkInterface"]
    given = {"NetworkInterfaceId": attach["NetworkInterfaceId"], "InstanceId": one, "DeviceIndex": 2}
    api.call("AttachNetworkInterface", **given)
    assert refused("t3.nano") == "AttachmentLimitExceeded"


def test_with_several_interfaces_one_must_be_named(api, one, refused):
    attach_another(api, one)
    assert refused(SourceDestCheck={"Value": False}) == "InvalidInstanceID"
    (primary, _) = api.store.all(NetworkInterface, instance_id=one)
    assert refused(Groups=list(primary.groups)) == "InvalidInstanceID"


def test_groups(api, one, read, modify, refused):
    vpc_id = api.get(Instance, one).vpc_id
    group = SecurityGroup(
        id="sg-0000000000000000a",
        name="web",
        description="",
        vpc_id=vpc_id,
        account=api.account,
        region=api.region,
        created=api.now,
    )
    api.put(group)
    modify(Groups=[group.id])
    assert read("groupSet") == [{"GroupId": group.id, "GroupName": "web"}]
    assert ("vpc", vpc_id) in {(kind, name) for kind, name, _ in api.store.pending_wakes()}
    assert refused(Groups=["web"]) == "InvalidGroupId.Malformed"
    assert refused(Groups=["sg-00000000000000000"]) == "InvalidGroup.NotFound"
    api.change(group, vpc_id="vpc-00000000000000000")
    assert refused(Groups=[group.id]) == "InvalidParameter"


def test_delete_on_termination(api, one, modify, refused):
    def mapping(device="/dev/xvda", **ebs):
        return {"BlockDeviceMappings": [{"DeviceName": device, "Ebs": ebs}]}

    (volume,) = api.store.all(Volume, instance_id=one)
    modify(**mapping(DeleteOnTermination=False))
    assert api.get(Volume, volume.id).attachment.delete_on_termination is False
    modify(Attribute="blockDeviceMapping", **mapping(DeleteOnTermination=True, VolumeId=volume.id))
    assert api.get(Volume, volume.id).attachment.delete_on_termination is True
    assert refused(**mapping("/dev/sdb", DeleteOnTermination=True)) == "InvalidInstanceAttributeValue"
    assert refused(**mapping(VolumeId="vol-00000000000000000")) == "InvalidInstanceAttributeValue"
    assert refused(BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "NoDevice": ""}]) == "UnsupportedOperation"
    made = api.call("CreateVolume", AvailabilityZone=volume.zone, Size=1)["VolumeId"]
    api.change(api.get(Volume, made), state="available")
    api.call("AttachVolume", VolumeId=made, InstanceId=one, Device="/dev/sdf")
    both = [*mapping(DeleteOnTermination=False)["BlockDeviceMappings"]]
    both += mapping("/dev/sdf", DeleteOnTermination=True)["BlockDeviceMappings"]
    modify(BlockDeviceMappings=both)
    shown = api.call("DescribeInstanceAttribute", InstanceId=one, Attribute="blockDeviceMapping")
    assert [(d["DeviceName"], d["Ebs"]["DeleteOnTermination"]) for d in shown["BlockDeviceMappings"]] == [
        ("/dev/xvda", False),
        ("/dev/sdf", True),
    ]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "InvalidParameterCombination"),
        ({"DisableApiStop": {"Value": True}, "SourceDestCheck": {"Value": True}}, "InvalidParameterCombination"),
        ({"Attribute": "disableApiStop", "Value": "yes"}, "InvalidParameterValue"),
        ({"Attribute": "disableApiStop"}, "MissingParameter"),
        ({"Attribute": "colour", "Value": "red"}, "InvalidParameterValue"),
        ({"Attribute": "blockDeviceMapping", "Value": "/dev/xvda"}, "MissingParameter"),
        ({"InstanceInitiatedShutdownBehavior": {"Value": "hibernate"}}, "InvalidParameterValue"),
        ({"InstanceType": {"Value": "t3.gigantic"}}, "InvalidInstanceAttributeValue"),
        ({"InstanceType": {"Value": "t4g.micro"}}, "InvalidParameterValue"),
        ({"InstanceType": {"Value": "m5.metal"}}, "Unsupported"),
        ({"Attribute": "userData", "Value": "#!"}, "InvalidUserData.Malformed"),
        ({"UserData": {"Value": b"x" * 16385}}, "InvalidParameterValue"),
        ({"Kernel": {"Value": "aki-1"}}, "UnsupportedOperation"),
        ({"EnclaveOptions": {"Enabled": True}}, "UnsupportedOperation"),
        ({"EnaSupport": {"Value": False}}, "UnsupportedOperation"),
    ],
)
def test_changes_that_cannot_be(api, one, refused, params, code):
    api.settle(one, State.STOPPED)
    assert refused(**params) == code


def test_a_terminated_instance_does_not_change(api, one, refused):
    api.settle(one, State.TERMINATED)
    assert refused(DisableApiStop={"Value": True}) == "IncorrectInstanceState"
    assert refused(DisableApiStop={"Value": True}, DryRun=True) == "IncorrectInstanceState"
    options = api.refused("ModifyInstanceMetadataOptions", InstanceId=one, HttpTokens="required")
    assert options.code == "IncorrectInstanceState"
    assert api.refused("MonitorInstances", InstanceIds=[one]).code == "IncorrectInstanceState"


def test_reset(api, one, read, modify):
    modify(SourceDestCheck={"Value": False})
    api.call("ResetInstanceAttribute", InstanceId=one, Attribute="sourceDestCheck")
    assert read("sourceDestCheck") is True
    (interface,) = api.store.all(NetworkInterface, instance_id=one)
    assert interface.source_dest_check
    error = api.refused("ResetInstanceAttribute", InstanceId=one, Attribute="instanceType")
    assert error.code == "InvalidParameterValue"


# --- metadata options, credits, monitoring ----------------------------------------------------------------------------


def test_metadata_options(api, one):
    answer = api.call(
        "ModifyInstanceMetadataOptions",
        InstanceId=one,
        HttpTokens="required",
        HttpPutResponseHopLimit=2,
        InstanceMetadataTags="enabled",
    )
    expected = {
        "State": "pending",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 2,
        "HttpEndpoint": "enabled",
        "HttpProtocolIpv6": "disabled",
        "InstanceMetadataTags": "enabled",
    }
    assert answer == {"InstanceId": one, "InstanceMetadataOptions": expected}
    shown = api.call("DescribeInstances")["Reservations"][0]["Instances"][0]["MetadataOptions"]
    assert shown == {**expected, "State": "applied"}


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "MissingParameter"),
        ({"HttpTokens": "maybe"}, "InvalidParameterValue"),
        ({"HttpPutResponseHopLimit": 0}, "InvalidParameterValue"),
        ({"HttpEndpoint": "off"}, "InvalidParameterValue"),
    ],
)
def test_metadata_options_that_cannot_be(api, one, params, code):
    assert api.refused("ModifyInstanceMetadataOptions", InstanceId=one, **params).code == code


def test_credits(api, one):
    (other,) = api.launch(InstanceType="m5.large")

    def kept(**params):
        answer = api.call("DescribeInstanceCreditSpecifications", **params)
        return {item["InstanceId"]: item["CpuCredits"] for item in answer["InstanceCreditSpecifications"]}

    assert kept() == {one: "unlimited"}
    assert kept(InstanceIds=[one, other]) == {one: "unlimited", other: "standard"}
    answer = api.call(
        "ModifyInstanceCreditSpecification",
        InstanceCreditSpecifications=[
            {"InstanceId": one, "CpuCredits": "standard"},
            {"InstanceId": other, "CpuCredits": "unlimited"},
            {"InstanceId": "i-00000000000000000", "CpuCredits": "standard"},
            {"InstanceId": "one", "CpuCredits": "standard"},
        ],
    )
    assert answer["SuccessfulInstanceCreditSpecifications"] == [{"InstanceId": one}]
    assert [item["Error"]["Code"] for item in answer["UnsuccessfulInstanceCreditSpecifications"]] == [
        "InstanceCreditSpecification.NotSupported",
        "InvalidInstanceID.NotFound",
        "InvalidInstanceID.Malformed",
    ]
    assert kept() == {}
    both = api.refused("DescribeInstanceCreditSpecifications", InstanceIds=[one], MaxResults=5)
    assert both.code == "InvalidParameterCombination"


def test_monitoring(api, one):
    def state():
        return api.call("DescribeInstances")["Reservations"][0]["Instances"][0]["Monitoring"]["State"]

    answer = api.call("MonitorInstances", InstanceIds=[one])
    assert answer["InstanceMonitorings"] == [{"InstanceId": one, "Monitoring": {"State": "pending"}}]
    assert state() == "enabled"
    answer = api.call("UnmonitorInstances", InstanceIds=[one])
    assert answer["InstanceMonitorings"] == [{"InstanceId": one, "Monitoring": {"State": "disabling"}}]
    assert state() == "disabled"


# --- console ----------------------------------------------------------------------------------------------------------


def test_console_output_is_the_newest(api, one):
    api.host.allow(console=lambda name: f"{name}\n".encode() + b"x" * 70000)
    answer = api.call("GetConsoleOutput", InstanceId=one, Latest=True)
    assert answer["Timestamp"] == api.now
    assert base64.b64decode(answer["Output"]) == b"x" * 65536
    api.host.allow(console=lambda name: b"")
    assert api.call("GetConsoleOutput", InstanceId=one)["Output"] == ""
    (theirs,) = api.by().launch()
    assert api.refused("GetConsoleOutput", InstanceId=theirs).code == "InvalidInstanceID.NotFound"


def test_screenshot(api, one):
    api.host.allow(screenshot=lambda name: b"\xff\xd8" + name.encode())
    answer = api.call("GetConsoleScreenshot", InstanceId=one)
    assert base64.b64decode(answer["ImageData"]) == b"\xff\xd8" + one.encode()
    api.settle(one, State.STOPPED)
    assert api.refused("GetConsoleScreenshot", InstanceId=one).code == "IncorrectInstanceState"

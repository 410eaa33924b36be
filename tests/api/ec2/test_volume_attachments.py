"""AttachVolume and DetachVolume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.volume import Volume, VolumeAttachment

from .conftest import OTHER_ACCOUNT, Api


@pytest.fixture
def make(api: Api) -> Callable[..., str]:
    """An available volume in us-east-1a."""

    def call(zone: str = "us-east-1a") -> str:
        volume_id: str = api.call("CreateVolume", AvailabilityZone=zone, Size=1)["VolumeId"]
        api.change(api.get(Volume, volume_id), state="available")
        return volume_id

    return call


@pytest.fixture
def start(api: Api) -> Callable[..., str]:
    def call(settled: State = State.RUNNING, kind: str = "t3.micro", **params: Any) -> str:
        return api.launch(settled=settled, InstanceType=kind, Placement={"AvailabilityZone": "us-east-1a"}, **params)[0]

    return call


def attach(api: Api, volume_id: str, instance_id: str, device: str = "/dev/sdf", **params: Any) -> dict[str, Any]:
    return api.call("AttachVolume", VolumeId=volume_id, InstanceId=instance_id, Device=device, **params)


def attachment(api: Api, volume_id: str) -> VolumeAttachment:
    found = api.get(Volume, volume_id).attachment
    assert found is not None
    return found


def woken(api: Api) -> set[tuple[str, str]]:
    return {(kind, name) for kind, name, _ in api.store.pending_wakes()}


def forget_wakes(api: Api) -> None:
    for kind, name, _ in api.store.pending_wakes():
        api.store.wake_done(kind, name, api.store.wake_serial(kind, name))


@pytest.mark.parametrize(("state", "settled"), [(State.RUNNING, "attaching"), (State.STOPPED, "attached")])
def test_attach(api: Api, make: Any, start: Any, state: State, settled: str) -> None:
    volume_id, instance_id = make(), start(state)
    forget_wakes(api)
    assert attach(api, volume_id, instance_id, EbsCardIndex=0) == {
        "VolumeId": volume_id,
        "InstanceId": instance_id,
        "Device": "/dev/sdf",
        "State": "attaching",
        "AttachTime": api.now,
        "DeleteOnTermination": False,
    }
    volume = api.get(Volume, volume_id)
    assert (volume.state, attachment(api, volume_id).state) == ("in-use", settled)
    assert woken(api) == ({("instance", instance_id)} if state is State.RUNNING else set())
    (reservation,) = api.call("DescribeInstances")["Reservations"]
    devices = reservation["Instances"][0]["BlockDeviceMappings"]
    assert [(each["DeviceName"], each["Ebs"]["Status"]) for each in devices] == [
        ("/dev/xvda", "attached"),
        ("/dev/sdf", settled),
    ]


@pytest.mark.parametrize("device", ["/dev/sdf", "/dev/sdz15", "/dev/xvdb", "/dev/xvdzz", "sdh", "xvdh", "/dev/sda1"])
def test_device_names(api: Api, make: Any, start: Any, device: str) -> None:
    volume_id = make()
    attach(api, volume_id, start(), device)
    assert attachment(api, volume_id).device == device


@pytest.mark.parametrize(
    "device", ["", "/dev/sdf0", "/dev/sdf16", "/dev/xvdf1", "/dev/nvme0n1", "/dev/vdb", "disk", "/dev/SDF"]
)
def test_names_that_no_device_has(api: Api, make: Any, start: Any, device: str) -> None:
    refused = api.refused("AttachVolume", VolumeId=make(), InstanceId=start(), Device=device)
    assert refused.code == "InvalidParameterValue"


@pytest.mark.parametrize("device", ["/dev/xvda", "/dev/sda", "xvdf", "/dev/sdf"])
def test_a_device_has_one_volume(api: Api, make: Any, start: Any, device: str) -> None:
    instance_id = start()
    attach(api, make(), instance_id)
    refused = api.refused("AttachVolume", VolumeId=make(), InstanceId=instance_id, Device=device)
    assert (refused.code, "is already in use" in refused.message) == ("InvalidParameterValue", True)


def test_an_instance_store_disk_has_its_device(api: Api, make: Any, start: Any) -> None:
    mapping = [{"DeviceName": "/dev/sdg", "VirtualName": "ephemeral0"}]
    instance_id = start(kind="c3.large", BlockDeviceMappings=mapping)
    refused = api.refused("AttachVolume", VolumeId=make(), InstanceId=instance_id, Device="/dev/sdg")
    assert "is already in use" in refused.message


def test_attachments_that_cannot_be(api: Api, make: Any, start: Any) -> None:
    volume_id, instance_id = make(), start()

    def refused(**params: Any) -> str:
        given = {"VolumeId": volume_id, "InstanceId": instance_id, "Device": "/dev/sdf", **params}
        return api.refused("AttachVolume", **given).code

    assert refused(VolumeId=make("us-east-1b")) == "InvalidVolume.ZoneMismatch"
    assert refused(VolumeId="vol-00000000000000000") == "InvalidVolume.NotFound"
    assert refused(InstanceId="i-00000000000000000") == "InvalidInstanceID.NotFound"
    assert refused(EbsCardIndex=1) == "UnsupportedOperation"
    for state in (State.PENDING, State.STOPPING, State.SHUTTING_DOWN, State.TERMINATED):
        api.change(api.get(Instance, instance_id), state=state)
        assert refused() == "IncorrectState"
    api.change(api.get(Instance, instance_id), state=State.RUNNING)
    for broken in ("creating", "error", "deleting"):
        api.change(api.get(Volume, volume_id), state=broken)
        assert refused() == "IncorrectState"
    api.change(api.get(Volume, volume_id), state="available")
    attach(api, volume_id, instance_id)
    assert refused(Device="/dev/sdg") == "VolumeInUse"
    assert refused(InstanceId=start(), Device="/dev/sdg") == "VolumeInUse"
    other = api.by(OTHER_ACCOUNT).refused("AttachVolume", VolumeId=volume_id, InstanceId=instance_id, Device="/dev/sdg")
    assert other.code == "InvalidVolume.NotFound"


def names(count: int) -> list[str]:
    return [f"/dev/xvd{first}{second}" for first in "bc" for second in "abcdefghijklmnopqrstuvwxyz"][:count]


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        ("t3.micro", 27),  # of the type
        ("m7i.large", 32),  # of the machine: the type could have as many
        ("c3.large", 32),  # of the machine: its instance store disks are not mapped
        ("i3.16xlarge", 24),  # of the machine, which has eight instance store disks
    ],
)
def test_as_many_as_there_is_room_for(api: Api, make: Any, start: Any, kind: str, most: int) -> None:
    api.configure(processors=1000, memory_mib=1 << 20)
    instance_id = start(kind=kind)
    for device in names(most - 1):
        attach(api, make(), instance_id, device)
    refused = api.refused("AttachVolume", VolumeId=make(), InstanceId=instance_id, Device="/dev/sdz")
    assert refused.code == "AttachmentLimitExceeded"


def test_network_interfaces_take_the_room_of_volumes(api: Api, make: Any, start: Any) -> None:
    instance_id = start()
    (subnet,) = [s for s in api.call("DescribeSubnets")["Subnets"] if s["AvailabilityZone"] == "us-east-1a"]
    eni = api.call("CreateNetworkInterface", SubnetId=subnet["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]
    api.call("AttachNetworkInterface", NetworkInterfaceId=eni, InstanceId=instance_id, DeviceIndex=1)
    for device in names(25):
        attach(api, make(), instance_id, device)
    refused = api.refused("AttachVolume", VolumeId=make(), InstanceId=instance_id, Device="/dev/sdz")
    assert refused.code == "AttachmentLimitExceeded"


def test_a_smaller_type_must_hold_the_volumes(api: Api, make: Any, start: Any) -> None:
    instance_id = start(State.STOPPED, kind="c3.large")
    for device in names(28):
        attach(api, make(), instance_id, device)
    refused = api.refused("ModifyInstanceAttribute", InstanceId=instance_id, InstanceType={"Value": "t3.micro"})
    assert refused.code == "AttachmentLimitExceeded"


# --- detached ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(api: Api, make: Any, start: Any) -> tuple[str, str]:
    """A volume that is attached to an instance that runs."""
    volume_id, instance_id = make(), start()
    attach(api, volume_id, instance_id)
    api.settle(instance_id, State.RUNNING)
    forget_wakes(api)
    return volume_id, instance_id


@pytest.mark.parametrize("force", [False, True])
def test_detach_from_a_machine_that_runs(api: Api, pair: tuple[str, str], force: bool) -> None:
    volume_id, instance_id = pair
    assert api.call("DetachVolume", VolumeId=volume_id, Force=force)["State"] == "detaching"
    kept = attachment(api, volume_id)
    assert (kept.state, kept.forced, api.get(Volume, volume_id).state) == ("detaching", force, "in-use")
    assert woken(api) == {("instance", instance_id)}
    # Asked again, it stays so; force is only ever added.
    api.call("DetachVolume", VolumeId=volume_id, Force=True)
    api.call("DetachVolume", VolumeId=volume_id)
    assert attachment(api, volume_id).forced is True


def test_detach_from_a_stopped_instance(api: Api, pair: tuple[str, str]) -> None:
    volume_id, instance_id = pair
    api.settle(instance_id, State.STOPPED)
    answer = api.call("DetachVolume", VolumeId=volume_id, InstanceId=instance_id, Device="xvdf")
    assert (answer["InstanceId"], answer["Device"], answer["State"]) == (instance_id, "/dev/sdf", "detaching")
    volume = api.get(Volume, volume_id)
    assert (volume.state, volume.attachment) == ("available", None)
    assert api.refused("DetachVolume", VolumeId=volume_id).code == "IncorrectState"


def test_an_instance_that_is_gone_keeps_nothing(api: Api, pair: tuple[str, str]) -> None:
    volume_id, instance_id = pair
    with api.store.write() as tx:
        tx.delete(api.get(Instance, instance_id))
    api.call("DetachVolume", VolumeId=volume_id)
    assert api.get(Volume, volume_id).attachment is None


def test_the_root_leaves_a_stopped_instance_only(api: Api, pair: tuple[str, str]) -> None:
    _, instance_id = pair
    (root,) = [
        volume
        for volume in api.store.all(Volume, instance_id=instance_id)
        if attachment(api, volume.id).device == "/dev/xvda"
    ]
    for force in (False, True):
        assert api.refused("DetachVolume", VolumeId=root.id, Force=force).code == "OperationNotPermitted"
    api.settle(instance_id, State.STOPPED)
    api.call("DetachVolume", VolumeId=root.id)
    refused = api.refused("StartInstances", InstanceIds=[instance_id])
    assert (refused.code, "/dev/xvda" in refused.message) == ("InvalidParameterValue", True)
    attach(api, root.id, instance_id, "/dev/xvda")
    assert attachment(api, root.id).delete_on_termination is False
    api.call("StartInstances", InstanceIds=[instance_id])


def test_detachments_that_cannot_be(api: Api, pair: tuple[str, str], start: Any) -> None:
    volume_id, instance_id = pair

    def refused(**params: Any) -> str:
        return api.refused("DetachVolume", **{"VolumeId": volume_id, **params}).code

    assert refused(InstanceId=start()) == "InvalidAttachment.NotFound"
    assert refused(InstanceId="i-00000000000000000") == "InvalidInstanceID.NotFound"
    assert refused(Device="/dev/sdg") == "InvalidAttachment.NotFound"
    assert refused(VolumeId="vol-00000000000000000") == "InvalidVolume.NotFound"
    volume = api.get(Volume, volume_id)
    api.change(volume, attachment=replace(attachment(api, volume_id), state="attaching"))
    assert refused() == "IncorrectState"
    for state in (State.PENDING, State.STOPPING, State.SHUTTING_DOWN):
        api.change(api.get(Instance, instance_id), state=state)
        assert refused(Force=True) == "IncorrectState"

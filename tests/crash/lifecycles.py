"""Lifecycles: what people do with a resource from its beginning to its end, each as a function of a World.

They are written as if nothing could happen: the World repeats calls that were cut off, as clients do, and goes on with
another controller. An `assert` in one is a promise that was made by an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.model.image import Image
from orchestrator.model.instance import Instance
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface, Subnet
from tests.crash.world import ACCOUNT, OTHER, World

Act = Callable[[World], None]


@dataclass(frozen=True, slots=True)
class Lifecycle:
    name: str
    prepare: Act  # what there is when it begins; the controller is not ended in that
    run: Act
    network_last: bool = False
    races: bool = False  # what it comes to depends on how soon a call is made

    def __str__(self) -> str:
        return self.name


LIFECYCLES: list[Lifecycle] = []


def lifecycle(prepare: Act, *, network_last: bool = False, races: bool = False) -> Callable[[Act], Act]:
    def declare(run: Act) -> Act:
        LIFECYCLES.append(Lifecycle(run.__name__, prepare, run, network_last, races))
        return run

    return declare


# --- what there is when they begin --------------------------------------------------------------------------------


def images(w: World) -> None:
    """The deployment has come up, and knows its accounts in their regions."""
    w.enrol(ACCOUNT, OTHER)
    for account, region in ((ACCOUNT, "us-east-1"), (ACCOUNT, "us-west-2"), (OTHER, "us-east-1")):
        w.ask("DescribeVpcs", account=account, region=region)
    for name in ("debian-12", "tiny"):
        w.ask("BuildImage", service="orc", Name=name)
    w.settle()
    [debian] = w.store.all(Image, name="debian-12")
    [tiny] = w.store.all(Image, name="tiny")
    w.names |= {"debian": debian.id, "tiny": tiny.id}
    [subnet] = [each for each in w.store.all(Subnet, account=ACCOUNT) if each.zone == "us-east-1a"]
    w.names |= {"subnet": subnet.id, "vpc": subnet.vpc_id}


def launch(w: World, count: int = 1, image: str = "debian", **params: Any) -> list[str]:
    asked = {"InstanceType": "t3.micro", "SubnetId": w.names["subnet"], **params}
    if "NetworkInterfaces" in asked:
        del asked["SubnetId"]
    answer = w.ask("RunInstances", ImageId=w.names[image], MinCount=count, MaxCount=count, **asked)
    return [each["InstanceId"] for each in answer["Instances"]]


def running(w: World) -> None:
    images(w)
    [w.names["instance"]] = launch(w)
    w.settle()


def stopped(w: World) -> None:
    running(w)
    w.ask("StopInstances", InstanceIds=[w.names["instance"]])
    w.settle()


def two_disks(w: World) -> None:
    """An instance with a second volume, which stays when it goes."""
    images(w)
    second = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3, "DeleteOnTermination": False}}
    [w.names["instance"]] = launch(w, BlockDeviceMappings=[second])
    w.settle()
    w.names["root"] = volume_at(w, "/dev/xvda")
    w.names["second"] = volume_at(w, "/dev/sdf")


def with_volume(w: World) -> None:
    """A running instance, and a volume beside it."""
    running(w)
    w.names["volume"] = w.ask("CreateVolume", AvailabilityZone="us-east-1a", Size=2)["VolumeId"]
    w.settle()


def with_volume_off(w: World) -> None:
    with_volume(w)
    w.ask("StopInstances", InstanceIds=[w.names["instance"]])
    w.settle()


def volume_at(w: World, device: str) -> str:
    found = w.store.all(Volume, instance_id=w.names["instance"])
    [volume] = [each for each in found if each.attachment and each.attachment.device == device]
    return volume.id


def state(w: World, name: str = "instance") -> str:
    return str(w.get(Instance, w.names[name]).state)


# --- instances ----------------------------------------------------------------------------------------------------


@lifecycle(images)
def launch_two(w: World) -> None:
    more = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 3}}
    made = launch(w, 2, BlockDeviceMappings=[more], UserData="IyEvYmluL3NoCg==")
    w.settle()
    assert [w.get(Instance, each).state for each in made] == ["running", "running"]
    assert len(w.store.all(Instance)) == 2


@lifecycle(images, network_last=True)
def launch_with_instance_store(w: World) -> None:
    """Its disks are there before its network is."""
    [made] = launch(w, image="tiny", InstanceType="m5d.large")
    w.names["instance"] = made
    w.settle()
    assert state(w) == "running"
    w.ask("StopInstances", InstanceIds=[made])
    w.settle()
    w.ask("StartInstances", InstanceIds=[made])
    w.settle()
    assert state(w) == "running"


@lifecycle(images)
def launch_that_does_not_fit(w: World) -> None:
    w.host.compute._memory_mib = 1
    [made] = launch(w)
    w.settle()
    instance = w.get(Instance, made)
    assert (instance.state, instance.reason and instance.reason.code) == (
        "terminated",
        "Server.InsufficientInstanceCapacity",
    )
    w.passes(hours=2)
    assert w.store.all(Instance) == []


@lifecycle(running)
def stop_and_start(w: World) -> None:
    instance = w.names["instance"]
    w.ask("StopInstances", InstanceIds=[instance])
    w.settle()
    assert state(w) == "stopped"
    w.ask("ModifyInstanceAttribute", InstanceId=instance, InstanceType={"Value": "t3.small"})
    w.ask("StartInstances", InstanceIds=[instance])
    w.settle()
    assert state(w) == "running"
    assert w.host.compute.machine(instance).product_name == "t3.small"


@lifecycle(running)
def stop_of_a_deaf_guest(w: World) -> None:
    w.host.compute.ignore_power_button(w.names["instance"])
    w.ask("StopInstances", InstanceIds=[w.names["instance"]])
    w.settle()
    w.passes(seconds=30)
    w.settle()
    assert state(w) == "stopped"


@lifecycle(running)
def stop_by_force(w: World) -> None:
    w.host.compute.ignore_power_button(w.names["instance"])
    w.ask("StopInstances", InstanceIds=[w.names["instance"]])
    w.ask("StopInstances", InstanceIds=[w.names["instance"]], Force=True)
    w.settle()
    assert state(w) == "stopped"


@lifecycle(running)
def reboot(w: World) -> None:
    machine = w.host.compute.machine(w.names["instance"])
    w.ask("RebootInstances", InstanceIds=[w.names["instance"]])
    w.settle()
    assert state(w) == "running"
    assert w.host.compute.machine(w.names["instance"]) is machine, "it was started anew"


@lifecycle(running)
def reboot_of_a_deaf_guest(w: World) -> None:
    w.host.compute.ignore_power_button(w.names["instance"])
    w.ask("RebootInstances", InstanceIds=[w.names["instance"]])
    w.settle()
    w.passes(seconds=30)
    w.settle()
    assert state(w) == "running"
    assert "compute.reset" in w.points.done


@lifecycle(two_disks)
def terminate_and_forget(w: World) -> None:
    w.ask("TerminateInstances", InstanceIds=[w.names["instance"]])
    w.settle()
    assert state(w) == "terminated"
    assert w.store.get(Volume, w.names["root"]) is None
    assert w.get(Volume, w.names["second"]).state == "available"
    w.passes(hours=2)
    assert w.store.all(Instance) == []
    assert w.host.compute.console(w.names["instance"]) == b""


@lifecycle(images, races=True)
def terminate_while_it_is_launched(w: World) -> None:
    [made] = launch(w)
    w.ask("TerminateInstances", InstanceIds=[made])
    w.settle()
    assert w.get(Instance, made).state == "terminated"
    assert w.store.all(Volume) == []


@lifecycle(stopped)
def terminate_a_stopped_one(w: World) -> None:
    w.ask("TerminateInstances", InstanceIds=[w.names["instance"]])
    w.settle()
    assert state(w) == "terminated"
    assert w.store.all(Volume) == []


@lifecycle(running)
def guest_powers_off(w: World) -> None:
    w.host.compute.guest_powers_off(w.names["instance"])
    w.settle()
    assert state(w) == "stopped"


@lifecycle(running)
def machine_crashes(w: World) -> None:
    w.host.compute.crash(w.names["instance"])
    w.settle()
    assert state(w) == "running"


@lifecycle(running)
def kernel_panics(w: World) -> None:
    instance = w.names["instance"]
    w.host.compute.panic(instance)
    w.settle()
    assert state(w) == "running"
    w.host.compute.guest_resets_itself(instance)
    w.settle()
    w.passes(minutes=2)  # until its ssh has spoken, where nobody has seen it boot
    w.settle()
    row = w.get(Instance, instance)
    assert (row.state, row.instance_status, row.panicked) == ("running", "ok", False)


@lifecycle(two_disks)
def host_boots(w: World) -> None:
    w.host.lose_host()
    w.restart()
    w.settle()
    assert state(w) == "running"


@lifecycle(running)
def disk_is_full_for_a_while(w: World) -> None:
    w.host.storage._free_bytes = 0
    w.host.compute.disk_fails(w.names["instance"])
    w.passes(seconds=60)
    w.host.storage._free_bytes = 1 << 60
    w.passes(seconds=120)
    w.settle()
    assert state(w) == "running"
    assert w.get(Instance, w.names["instance"]).paused_reason == ""


# --- interfaces ---------------------------------------------------------------------------------------------------


@lifecycle(running)
def interface_of_a_running_instance(w: World) -> None:
    instance = w.names["instance"]
    made = w.ask("CreateNetworkInterface", SubnetId=w.names["subnet"], SecondaryPrivateIpAddressCount=1)
    interface = made["NetworkInterface"]["NetworkInterfaceId"]
    attached = w.ask("AttachNetworkInterface", NetworkInterfaceId=interface, InstanceId=instance, DeviceIndex=1)
    w.settle()
    assert interface in {nic.port for nic in w.host.compute.nics(instance)}
    w.ask("DetachNetworkInterface", AttachmentId=attached["AttachmentId"])
    w.settle()
    assert interface not in {nic.port for nic in w.host.compute.nics(instance)}
    assert w.get(NetworkInterface, interface).state == "available"
    w.ask("DeleteNetworkInterface", NetworkInterfaceId=interface)
    w.settle()
    assert w.store.get(NetworkInterface, interface) is None


@lifecycle(running)
def interface_that_a_guest_holds(w: World) -> None:
    instance = w.names["instance"]
    made = w.ask("CreateNetworkInterface", SubnetId=w.names["subnet"])
    interface = made["NetworkInterface"]["NetworkInterfaceId"]
    attached = w.ask("AttachNetworkInterface", NetworkInterfaceId=interface, InstanceId=instance, DeviceIndex=1)
    w.settle()
    w.host.compute.hold_on(instance)
    w.waits = True
    w.ask("DetachNetworkInterface", AttachmentId=attached["AttachmentId"], Force=True)
    w.passes(seconds=60)
    w.waits = False
    assert w.get(NetworkInterface, interface).state == "available"
    w.host.compute.guest_lets_go(instance, interface)
    w.settle()


@lifecycle(stopped)
def interface_of_a_stopped_instance(w: World) -> None:
    instance = w.names["instance"]
    made = w.ask("CreateNetworkInterface", SubnetId=w.names["subnet"])
    interface = made["NetworkInterface"]["NetworkInterfaceId"]
    attached = w.ask("AttachNetworkInterface", NetworkInterfaceId=interface, InstanceId=instance, DeviceIndex=1)
    w.ask("StartInstances", InstanceIds=[instance])
    w.settle()
    assert interface in {nic.port for nic in w.host.compute.nics(instance)}
    w.ask("StopInstances", InstanceIds=[instance])
    w.settle()
    w.ask("DetachNetworkInterface", AttachmentId=attached["AttachmentId"])
    w.settle()
    assert w.get(NetworkInterface, interface).state == "available"

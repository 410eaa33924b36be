"""The disks of a launch: the image's block devices, as the request's block device mapping changes them.

    image's device     + Ebs            its volume: larger, of another type, encrypted ...
                                        and, but for the root, of another snapshot
                       + NoDevice       left out; not the root
                       + VirtualName    an instance store disk in its place; not the root
    no such device     + Ebs            one more volume: empty, or of a snapshot
                       + VirtualName    an instance store disk
                       + NoDevice       nothing

Instance store disks that are NVMe are there without a mapping, and one has no effect on them, as on EC2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.api.ec2.launch_options import Structure, take
from orchestrator.api.ec2.new_volumes import DEFAULT_TYPE, VolumePlan, plan_volume
from orchestrator.api.ec2.snapshots import no_snapshot, serves_image, usable_snapshot
from orchestrator.api.operation import Call
from orchestrator.model.block_device import check_device, ephemeral_number, mapped_disks, place
from orchestrator.model.errors import EC2Error, missing_parameter, unsupported
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.instance_type import InstanceType
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume_type import VOLUME_TYPES

_NOTHING = BlockDevice(device="", volume_type=DEFAULT_TYPE)  # what a device that the image does not have starts from


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchDisk:
    device: str
    volume: VolumePlan
    delete_on_termination: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchDisks:
    volumes: tuple[LaunchDisk, ...]  # the root's first
    ephemeral: dict[str, str] = field(default_factory=dict)  # ephemeral0 -> its device, for disks that need a mapping


def plan_disks(call: Call, image: Image, kind: InstanceType, mappings: Sequence[Structure] | None) -> LaunchDisks:
    own = {device.device: device for device in image.block_devices}
    root = own.get(image.root_device)
    if root is None or root.virtual_name:
        raise EC2Error("InvalidAMIID.Unavailable", f"The image {image.id} has no snapshot for its root device")
    given = _by_device(image, mappings or ())
    volumes: list[LaunchDisk] = []
    ephemeral: dict[str, str] = {}
    for name in sorted({*own, *given}, key=lambda name: (name != image.root_device, name)):
        mapping, device = given.get(name, {}), own.get(name, _NOTHING)
        if "NoDevice" in mapping:
            continue
        virtual_name = mapping.get("VirtualName", "" if "Ebs" in mapping else device.virtual_name)
        if virtual_name:
            if "VirtualName" in mapping or not kind.name.startswith(
                "m3."
            ):  # M3 has those of the request only, as on EC2
                _map_ephemeral(kind, ephemeral, virtual_name, name)
            continue
        volumes.append(_plan_disk(call, image, name, device, mapping.get("Ebs") or {}))
    return LaunchDisks(volumes=tuple(volumes), ephemeral=ephemeral)


def _by_device(image: Image, mappings: Sequence[Structure]) -> Mapping[str, Structure]:
    """The request's mappings, each in a form that there is, by the name that the image has for its device."""
    names = {place(device.device): device.device for device in image.block_devices}
    found: dict[str, Structure] = {}
    for mapping in mappings:
        name = mapping.get("DeviceName")
        if not name:
            raise missing_parameter("BlockDeviceMapping.DeviceName")
        if place(name) not in names:
            names[place(name)] = check_device(name)
        name = names[place(name)]
        if name in found:
            raise EC2Error("InvalidBlockDeviceMapping", f"The device '{name}' is mapped more than once")
        if "NoDevice" not in mapping and len({"Ebs", "VirtualName"} & {*mapping}) > 1:
            raise EC2Error("InvalidBlockDeviceMapping", f"The device '{name}' is mapped to Ebs and VirtualName both")
        if name == image.root_device and {"NoDevice", "VirtualName"} & {*mapping}:
            raise EC2Error(
                "InvalidBlockDeviceMapping", f"The root device '{name}' of {image.id} must be an EBS volume of its own"
            )
        if mapping.keys() <= {"DeviceName"} and name not in {device.device for device in image.block_devices}:
            raise missing_parameter(f"Ebs, VirtualName or NoDevice for the device {name}")
        found[name] = mapping
    return found


def _map_ephemeral(kind: InstanceType, ephemeral: dict[str, str], virtual_name: str, device: str) -> None:
    """What the type does not have is ignored."""
    if virtual_name in ephemeral:
        raise EC2Error(
            "InvalidBlockDeviceMapping", f"{virtual_name} is mapped to {ephemeral[virtual_name]} and {device} both"
        )
    if ephemeral_number(virtual_name) < mapped_disks(kind):
        ephemeral[virtual_name] = device


def _plan_disk(call: Call, image: Image, name: str, device: BlockDevice, given: Structure) -> LaunchDisk:
    ebs = take(
        given,
        "BlockDeviceMapping.Ebs",
        "DeleteOnTermination",
        "EbsCardIndex",
        "Encrypted",
        "Iops",
        "KmsKeyId",
        "SnapshotId",
        "Throughput",
        "VolumeInitializationRate",
        "VolumeSize",
        "VolumeType",
    )
    if ebs.get("EbsCardIndex"):
        raise unsupported("BlockDeviceMapping.Ebs.EbsCardIndex must be 0 here: an instance has one EBS card")
    is_root = name == image.root_device
    snapshot_id = ebs.get("SnapshotId") or device.snapshot_id
    of_image = snapshot_id == device.snapshot_id
    if is_root and not of_image:
        raise EC2Error(
            "InvalidBlockDeviceMapping",
            f"The snapshot of the root device {name} cannot be changed: the image has {device.snapshot_id or 'none'}",
        )
    snapshot = _image_snapshot(call, image, snapshot_id) if of_image else usable_snapshot(call, snapshot_id)
    volume_type = ebs.get("VolumeType", device.volume_type)
    same_type = volume_type == device.volume_type
    plan = plan_volume(
        call,
        snapshot=snapshot,
        size_gib=ebs.get("VolumeSize", (device.size_gib or None) if of_image else None),
        volume_type=volume_type,
        iops=ebs.get("Iops", device.iops if same_type else None),
        throughput_mib_s=ebs.get("Throughput", device.throughput_mib_s if same_type else None),
        encrypted=ebs.get("Encrypted", True if device.encrypted else None),
        key_name=ebs.get("KmsKeyId"),
        source_key_id=device.key_id if of_image else "",
        initialization_rate_mib_s=ebs.get("VolumeInitializationRate"),
        too_small="InvalidBlockDeviceMapping",
    )
    if is_root and not VOLUME_TYPES[volume_type].bootable:
        raise EC2Error("InvalidParameterValue", f"A {volume_type} volume cannot be the root device {name}")
    return LaunchDisk(
        device=name,
        volume=plan,
        delete_on_termination=ebs.get("DeleteOnTermination", device.delete_on_termination),
    )


def _image_snapshot(call: Call, image: Image, snapshot_id: str) -> Snapshot | None:
    """Who may launch the image may use its snapshots, whoever else may."""
    if not snapshot_id:
        return None
    snapshot = call.tx.get(Snapshot, snapshot_id)
    if snapshot is None or not serves_image(call, image, snapshot):
        raise no_snapshot([snapshot_id])
    archived = snapshot.is_archived(call.now)
    if snapshot.state != "completed" or archived:
        raise EC2Error(
            "IncorrectState",
            f"The snapshot '{snapshot_id}' of {image.id} is {'archived' if archived else snapshot.state}: completed "
            "ones can be used",
        )
    return snapshot

"""The disks of a launch: the image's block devices, as the request changes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.api.ec2.launch_options import Structure, take
from orchestrator.api.operation import Call
from orchestrator.model.errors import EC2Error, missing_parameter, unsupported
from orchestrator.model.image import BlockDevice, Image, Snapshot
from orchestrator.model.volume_type import VOLUME_TYPES, Performance, performance


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchDisk:
    device: str
    snapshot: Snapshot
    size_gib: int
    volume_type: str
    performance: Performance
    delete_on_termination: bool


def plan_disks(call: Call, image: Image, mappings: Sequence[Structure] | None) -> tuple[LaunchDisk, ...]:
    """One disk for each of the image's block devices, the root's first."""
    devices = sorted(image.block_devices, key=lambda device: device.device != image.root_device)
    if not devices or devices[0].device != image.root_device:
        raise EC2Error("InvalidAMIID.Unavailable", f"The image {image.id} has no snapshot for its root device")
    changes = _by_device(image, mappings or ())
    return tuple(_plan_disk(call, image, device, changes.get(device.device, {})) for device in devices)


def _by_device(image: Image, mappings: Sequence[Structure]) -> dict[str, Structure]:
    known = [device.device for device in image.block_devices]
    found: dict[str, Structure] = {}
    for mapping in mappings:
        name = mapping.get("DeviceName")
        if not name:
            raise missing_parameter("BlockDeviceMapping.DeviceName")
        for form in ("VirtualName", "NoDevice"):
            if form in mapping:
                raise unsupported(f"BlockDeviceMapping.{form} is not supported here (device {name})")
        if name not in known:
            raise unsupported(
                f"A launch makes the image's own devices here ({', '.join(known)}); {name} cannot be added to them. "
                f"The root device of {image.id} is {image.root_device}."
            )
        if name in found:
            raise EC2Error("InvalidBlockDeviceMapping", f"The device '{name}' is mapped more than once")
        found[name] = mapping.get("Ebs") or {}
    return found


def _plan_disk(call: Call, image: Image, device: BlockDevice, given: Structure) -> LaunchDisk:
    ebs = take(
        given,
        "BlockDeviceMapping.Ebs",
        "DeleteOnTermination",
        "Encrypted",
        "Iops",
        "SnapshotId",
        "Throughput",
        "VolumeSize",
        "VolumeType",
    )
    if ebs.get("Encrypted"):
        raise unsupported("BlockDeviceMapping.Ebs.Encrypted must be false here")
    if ebs.get("SnapshotId", device.snapshot_id) != device.snapshot_id:
        raise EC2Error(
            "InvalidBlockDeviceMapping",
            f"The snapshot of {device.device} cannot be changed: the image has {device.snapshot_id}",
        )
    snapshot = call.tx.get(Snapshot, device.snapshot_id)
    if snapshot is None:
        raise EC2Error(
            "InvalidSnapshot.NotFound", f"The snapshot '{device.snapshot_id}' of {image.id} does not exist any more"
        )
    size_gib = ebs.get("VolumeSize", device.size_gib or snapshot.size_gib)
    if size_gib < snapshot.size_gib:
        raise EC2Error(
            "InvalidBlockDeviceMapping",
            f"Volume of size {size_gib}GB is smaller than snapshot '{snapshot.id}', "
            f"expect size>= {snapshot.size_gib}GB",
        )
    volume_type = ebs.get("VolumeType", device.volume_type)
    same_type = volume_type == device.volume_type
    performs = performance(
        volume_type,
        size_gib,
        ebs.get("Iops", device.iops if same_type else 0),
        ebs.get("Throughput", device.throughput_mib_s if same_type else 0),
    )
    if device.device == image.root_device and not VOLUME_TYPES[volume_type].bootable:
        raise EC2Error("InvalidParameterValue", f"A {volume_type} volume cannot be the root device {device.device}")
    return LaunchDisk(
        device=device.device,
        snapshot=snapshot,
        size_gib=size_gib,
        volume_type=volume_type,
        performance=performs,
        delete_on_termination=ebs.get("DeleteOnTermination", device.delete_on_termination),
    )

"""An image's block device mapping: what a request's BlockDeviceMappings make of it.

    mapping          becomes
    ---------------  -----------------------------------------------------------------------
    Ebs.SnapshotId   a volume of that snapshot, as large or larger, encrypted as it is
    Ebs.VolumeSize   an empty volume, encrypted when it says so
    VirtualName      ephemeral0 to ephemeral23: an instance store disk, for types that have it
    NoDevice         nothing: the device is left out

Source: "EbsBlockDevice" and "BlockDeviceMapping" in the EC2 API reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from orchestrator.api.ec2.encryption import find_key
from orchestrator.api.ec2.launch_options import Structure, take
from orchestrator.api.ec2.new_volumes import DEFAULT_TYPE
from orchestrator.api.ec2.snapshots import usable_snapshot
from orchestrator.api.operation import Call
from orchestrator.model.block_device import check_device, ephemeral_number, place
from orchestrator.model.errors import EC2Error, missing_parameter
from orchestrator.model.image import BlockDevice
from orchestrator.model.volume_type import VOLUME_TYPES, performance

EBS_MEMBERS: Final = (
    "DeleteOnTermination",
    "Encrypted",
    "Iops",
    "KmsKeyId",
    "SnapshotId",
    "Throughput",
    "VolumeSize",
    "VolumeType",
)


def by_device(mappings: Sequence[Structure] | None, known: Iterable[str] = ()) -> dict[str, Structure]:
    """A request's mappings by device, each named as in `known` if it is there; each says one thing, and once."""
    names = {place(name): name for name in known}
    found: dict[str, Structure] = {}
    for mapping in mappings or ():
        name = mapping.get("DeviceName")
        if not name:
            raise missing_parameter("BlockDeviceMapping.DeviceName")
        name = names.setdefault(place(name), check_device(name))
        if name in found:
            raise refuse(f"The device '{name}' is mapped more than once")
        forms = [form for form in ("Ebs", "VirtualName", "NoDevice") if mapping.get(form) is not None]
        if len(forms) != 1:
            raise refuse(f"The mapping of {name} must have one of Ebs, VirtualName and NoDevice; it has {len(forms)}")
        found[name] = mapping
    return found


def new_device(call: Call, name: str, mapping: Structure) -> BlockDevice | None:
    """A device that is made by its mapping alone; None for NoDevice."""
    if mapping.get("NoDevice") is not None:
        return None
    virtual_name = mapping.get("VirtualName")
    if virtual_name is not None:
        ephemeral_number(virtual_name)
        return BlockDevice(device=name, virtual_name=virtual_name)
    ebs = take(mapping["Ebs"], "BlockDeviceMapping.Ebs", *EBS_MEMBERS)
    device = _of_snapshot(call, name, ebs) if ebs.get("SnapshotId") else _empty(call, name, ebs)
    return _with_performance(device, ebs)


def _of_snapshot(call: Call, name: str, ebs: Structure) -> BlockDevice:
    snapshot = usable_snapshot(call, ebs["SnapshotId"])
    for member in ("Encrypted", "KmsKeyId"):
        if member in ebs:
            raise refuse(f"{member} must not be given for {name}: a volume is encrypted as its snapshot is")
    size_gib = ebs.get("VolumeSize", snapshot.size_gib)
    if size_gib < snapshot.size_gib:
        raise _too_small(size_gib, f"snapshot '{snapshot.id}'", snapshot.size_gib)
    return BlockDevice(
        device=name, snapshot_id=snapshot.id, size_gib=size_gib, volume_type=DEFAULT_TYPE, encrypted=snapshot.encrypted
    )


def _empty(call: Call, name: str, ebs: Structure) -> BlockDevice:
    if not ebs.get("VolumeSize"):
        raise missing_parameter(f"BlockDeviceMapping.Ebs.VolumeSize or SnapshotId for {name}")
    encrypted, named = bool(ebs.get("Encrypted")), ebs.get("KmsKeyId")
    if named and not encrypted:
        raise EC2Error("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted")
    return BlockDevice(
        device=name,
        size_gib=ebs["VolumeSize"],
        volume_type=DEFAULT_TYPE,
        encrypted=encrypted,
        key_id=find_key(call, named).id if named else "",
    )


def change_device(device: BlockDevice, mapping: Structure) -> BlockDevice | None:
    """A device of an instance's own volume, as the mapping changes it; None when the mapping leaves it out.

    Its size is the volume's, and can only grow; what it is a snapshot of, and whether that is encrypted, stay.
    """
    if mapping.get("NoDevice") is not None:
        return None
    if mapping.get("VirtualName") is not None:
        raise refuse(f"{device.device} is a volume of the instance and cannot be {mapping['VirtualName']}")
    ebs = take(mapping["Ebs"], "BlockDeviceMapping.Ebs", *EBS_MEMBERS)
    for member in ("SnapshotId", "KmsKeyId"):
        if ebs.get(member):
            raise refuse(f"{member} must not be given for {device.device}, which is a volume of the instance")
    if ebs.get("Encrypted", device.encrypted) != device.encrypted:
        raise refuse(f"Whether {device.device} is encrypted cannot be changed here: copy the image for that")
    size_gib = ebs.get("VolumeSize", device.size_gib)
    if size_gib < device.size_gib:
        raise _too_small(size_gib, f"the volume of {device.device}", device.size_gib)
    kind = ebs.get("VolumeType", device.volume_type)
    if kind != device.volume_type:
        device = replace(device, iops=0, throughput_mib_s=0)
    return _with_performance(replace(device, size_gib=size_gib, volume_type=kind), ebs)


def _with_performance(device: BlockDevice, ebs: Structure) -> BlockDevice:
    changed = replace(
        device,
        volume_type=ebs.get("VolumeType", device.volume_type),
        iops=ebs.get("Iops", device.iops),
        throughput_mib_s=ebs.get("Throughput", device.throughput_mib_s),
        delete_on_termination=ebs.get("DeleteOnTermination", device.delete_on_termination),
    )
    performance(changed.volume_type, changed.size_gib, changed.iops, changed.throughput_mib_s)
    return changed


def with_root(devices: Mapping[str, BlockDevice], root: str) -> tuple[BlockDevice, ...]:
    """A whole mapping, the root's device first: it is there, and a machine can boot from it."""
    device = devices.get(root)
    if device is None:
        raise refuse(f"The root device {root} is not in the block device mapping ({', '.join(devices) or 'empty'})")
    if device.virtual_name:
        raise refuse(f"The root device {root} cannot be an instance store disk")
    if not VOLUME_TYPES[device.volume_type].bootable:
        raise EC2Error("InvalidParameterValue", f"A {device.volume_type} volume cannot be the root device {root}")
    return (device, *(other for other in devices.values() if other.device != root))


def refuse(message: str) -> EC2Error:
    return EC2Error("InvalidBlockDeviceMapping", message)


def _too_small(size_gib: int, than: str, least_gib: int) -> EC2Error:
    return refuse(f"Volume of size {size_gib}GB is smaller than {than}, expect size>= {least_gib}GB")

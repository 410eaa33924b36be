"""ModifyVolume: another size, type, IOPS or throughput, while the volume is used; and how far that is.

    ModifyVolume ──► modifying ──(layer and machine have it)──► optimizing ──► completed
                         └── cannot be done ──► failed

The volume's own attributes are the target's at once; its newest modification keeps what they were.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from typing import Final

from orchestrator.api.ec2.volumes import MEASURED_IOPS, check_multi_attach
from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model.errors import EC2Error
from orchestrator.model.filters import FilterTable
from orchestrator.model.instance import Instance
from orchestrator.model.volume import Modification, Volume, VolumeShape
from orchestrator.model.volume_type import GP3_IOPS, VOLUME_TYPES, performance

UNDER_WAY: Final = ("modifying", "optimizing")


@operation("ModifyVolume", writes=True)
def modify_volume(
    call: Call,
    *,
    volume_id: str,
    size: int | None = None,
    volume_type: str | None = None,
    iops: int | None = None,
    throughput: int | None = None,
    multi_attach_enabled: bool | None = None,
) -> Answer:
    """What is not said stays as it is. A modification that changes nothing is completed at once."""
    volume = call.find(Volume, "vol", volume_id)
    if all(given is None for given in (size, volume_type, iops, throughput, multi_attach_enabled)):
        raise EC2Error(
            "InvalidParameterCombination", "Give at least one of Size, VolumeType, Iops, Throughput, MultiAttachEnabled"
        )
    if volume.state not in ("available", "in-use"):
        raise EC2Error(
            "IncorrectState", f"The volume '{volume.id}' is {volume.state}: available and in-use can be modified"
        )
    if volume.modification is not None and volume.modification.state in UNDER_WAY:
        raise EC2Error(
            "IncorrectModificationState",
            f"Cannot modify volume {volume.id} in modification state {volume.modification.state.upper()}",
        )
    target = _target(volume, size, volume_type, iops, throughput)
    check_multi_attach(bool(multi_attach_enabled), target.volume_type)
    _check_root(call, volume, target)
    changes = target != volume.shape
    modification = Modification(
        state="modifying" if changes else "completed",
        original=volume.shape,
        target=target,
        started_at=call.now,
        ended_at=None if changes else call.now,
        progress_percent=0 if changes else 100,
    )
    _write(call, volume, modification)
    return {"VolumeModification": _show(volume.id, modification)}


def _target(
    volume: Volume, size: int | None, volume_type: str | None, iops: int | None, throughput: int | None
) -> VolumeShape:
    size_gib = volume.size_gib if size is None else size
    if size_gib < volume.size_gib:
        raise EC2Error(
            "InvalidParameterValue",
            f"New size cannot be smaller than existing size: {volume.id} has {volume.size_gib} GiB, not {size_gib}",
        )
    kind = volume_type or volume.volume_type
    chosen_iops, chosen_throughput = iops or 0, throughput or 0
    provisioned = kind in VOLUME_TYPES and VOLUME_TYPES[kind].max_iops > 0
    if provisioned and not chosen_iops:
        chosen_iops = volume.iops if kind == volume.volume_type else GP3_IOPS
    if kind == volume.volume_type == "gp3" and not chosen_throughput:
        chosen_throughput = volume.throughput_mib_s
    speed = performance(kind, size_gib, chosen_iops, chosen_throughput)
    return VolumeShape(size_gib=size_gib, volume_type=kind, iops=speed.iops, throughput_mib_s=speed.throughput_mib_s)


def _check_root(call: Call, volume: Volume, target: VolumeShape) -> None:
    instance = call.tx.get(Instance, volume.instance_id)
    if instance is None or volume.attachment is None or volume.attachment.device != instance.root_device:
        return
    if not VOLUME_TYPES[target.volume_type].bootable:
        raise EC2Error(
            "InvalidParameterValue",
            f"A {target.volume_type} volume cannot be the root device {instance.root_device} of {instance.id}",
        )


def _write(call: Call, volume: Volume, modification: Modification) -> None:
    tx, target = call.tx, modification.target
    changed = tx.put(
        replace(
            volume,
            size_gib=target.size_gib,
            volume_type=target.volume_type,
            iops=target.iops,
            throughput_mib_s=target.throughput_mib_s,
            modification=modification,
        )
    )
    if modification.state == "completed":
        return
    tx.wake(changed)
    instance = tx.get(Instance, volume.instance_id)
    if instance is not None:
        tx.wake(instance)


# --- shown ------------------------------------------------------------------------------------------------------------


def _modification(volume: Volume) -> Modification:
    """Of one that has been modified."""
    if volume.modification is None:
        raise ValueError(f"{volume.id} has never been modified")
    return volume.modification


MODIFICATION_FILTERS: Final[FilterTable] = {
    "modification-state": lambda volume: _modification(volume).state,
    "original-iops": lambda volume: str(_modification(volume).original.iops),
    "original-size": lambda volume: str(_modification(volume).original.size_gib),
    "original-volume-type": lambda volume: _modification(volume).original.volume_type,
    "originalMultiAttachEnabled": lambda volume: "false",
    "start-time": lambda volume: (
        _modification(volume).started_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    ),
    "target-iops": lambda volume: str(_modification(volume).target.iops),
    "target-size": lambda volume: str(_modification(volume).target.size_gib),
    "target-volume-type": lambda volume: _modification(volume).target.volume_type,
    "targetMultiAttachEnabled": lambda volume: "false",
    "volume-id": lambda volume: volume.id,
}


@operation("DescribeVolumesModifications", listing=True)
def describe_volumes_modifications(call: Call, *, volume_ids: list[str] | None = None) -> Answer:
    """The newest modification of each volume that has had one."""
    if volume_ids:
        found = call.find_all(Volume, "vol", volume_ids)
        if never := [volume.id for volume in found if volume.modification is None]:
            raise EC2Error(
                "InvalidVolumeModification.NotFound", f"Modification for volume '{', '.join(never)}' does not exist."
            )
    else:
        found = [volume for volume in call.mine(Volume) if volume.modification is not None]
    return show_page(
        call,
        "VolumesModifications",
        choose(call, found, MODIFICATION_FILTERS),
        lambda volume: _show(volume.id, _modification(volume)),
        largest=500,
    )


def _show(volume_id: str, modification: Modification) -> Answer:
    shown: Answer = {
        "VolumeId": volume_id,
        "ModificationState": modification.state,
        "Progress": modification.progress_percent,
        "StartTime": modification.started_at,
        "OriginalMultiAttachEnabled": False,
        "TargetMultiAttachEnabled": False,
        **_show_shape("Original", modification.original),
        **_show_shape("Target", modification.target),
    }
    if modification.ended_at is not None:
        shown["EndTime"] = modification.ended_at
    if modification.message:
        shown["StatusMessage"] = modification.message
    return shown


def _show_shape(side: str, shape: VolumeShape) -> Answer:
    shown: Answer = {f"{side}Size": shape.size_gib, f"{side}VolumeType": shape.volume_type}
    if shape.volume_type in MEASURED_IOPS:
        shown[f"{side}Iops"] = shape.iops
    if shape.volume_type == "gp3":
        shown[f"{side}Throughput"] = shape.throughput_mib_s
    return shown

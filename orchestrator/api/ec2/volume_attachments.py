"""AttachVolume and DetachVolume.

    available ──attach──► attaching ──(plugged in)───► attached ──detach──► detaching ──(the guest let go)──► available
                              │  a stopped instance has nothing to plug: it goes straight on  │
                              └──────────────────────► attached ◄─────────────────────────────┘

An attachment in a state in between wakes the instance, whose reconciler plugs or unplugs and writes the settled state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from orchestrator.api.ec2.encryption import check_attached
from orchestrator.api.ec2.volumes import show_attachment
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import instance_type
from orchestrator.model.block_device import check_device, check_disk_count, place
from orchestrator.model.errors import EC2Error, unsupported
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.volume import Volume, VolumeAttachment
from orchestrator.model.vpc import NetworkInterface

_SETTLED: Final = (State.RUNNING, State.STOPPED)


def _check_state(instance: Instance) -> None:
    if instance.state not in _SETTLED:
        raise EC2Error(
            "IncorrectState", f"Instance '{instance.id}' is not 'running' or 'stopped': it is {instance.state}"
        )


@operation("AttachVolume", writes=True)
def attach_volume(
    call: Call, *, volume_id: str, instance_id: str, device: str, ebs_card_index: int | None = None
) -> Answer:
    """The device name is how EC2 calls it; the guest finds it by its serial, the volume's id."""
    volume = call.find(Volume, "vol", volume_id)
    instance = call.find(Instance, "i", instance_id)
    if ebs_card_index:
        raise unsupported("EbsCardIndex must be 0 here: an instance has one EBS card")
    check_device(device)
    if volume.attachment is not None:
        raise EC2Error("VolumeInUse", f"{volume.id} is already attached to {volume.instance_id}")
    if volume.state != "available":
        raise EC2Error("IncorrectState", f"The volume '{volume.id}' is {volume.state}: only available can be attached")
    check_attached(call, volume)
    _check_state(instance)
    if volume.zone != instance.zone:
        raise EC2Error(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as instance '{instance.id}': it is in "
            f"{volume.zone}, the instance in {instance.zone}",
        )
    others = call.tx.all(Volume, instance_id=instance.id)
    _check_free(instance, others, device)
    check_disk_count(
        instance_type.get(instance.instance_type),
        volumes=len(others) + 1,
        interfaces=len(call.tx.all(NetworkInterface, instance_id=instance.id)),
        mapped=len(instance.ephemeral_devices),
    )
    running = instance.state is State.RUNNING
    attachment = VolumeAttachment(
        instance_id=instance.id,
        device=device,
        state="attaching" if running else "attached",
        delete_on_termination=False,
        attached_at=call.now,
    )
    volume = call.tx.put(replace(volume, state="in-use", attachment=attachment))
    if running:
        call.tx.wake(instance)
    return {**show_attachment(volume, attachment), "State": "attaching"}


def _check_free(instance: Instance, volumes: list[Volume], device: str) -> None:
    used = {volume.attachment.device for volume in volumes if volume.attachment} | {
        *instance.ephemeral_devices.values()
    }
    if place(device) in {place(each) for each in used}:
        raise EC2Error(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )


@operation("DetachVolume", writes=True)
def detach_volume(
    call: Call, *, volume_id: str, instance_id: str | None = None, device: str | None = None, force: bool = False
) -> Answer:
    """`force` does not wait for the guest, nor for an attachment. A root volume leaves a stopped instance only."""
    volume = call.find(Volume, "vol", volume_id)
    attachment = volume.attachment
    if attachment is None:
        raise EC2Error("IncorrectState", f"Volume '{volume.id}' is in the '{volume.state}' state.")
    if instance_id and instance_id != attachment.instance_id:
        call.find(Instance, "i", instance_id)
        raise EC2Error(
            "InvalidAttachment.NotFound", f"'{volume.id}' is attached to {attachment.instance_id}, not to {instance_id}"
        )
    if device and place(device) != place(attachment.device):
        raise EC2Error(
            "InvalidAttachment.NotFound",
            f"'{volume.id}' is attached to {attachment.instance_id} as {attachment.device}, not {device}",
        )
    instance = call.tx.get(Instance, attachment.instance_id)
    if instance is not None:
        if attachment.device == instance.root_device and instance.state is not State.STOPPED:
            raise EC2Error(
                "OperationNotPermitted",
                f"Unable to detach root volume '{volume.id}' from instance '{instance.id}': stop it first, it is "
                f"{instance.state}",
            )
        _check_state(instance)
    if attachment.state == "attaching" and not force:
        raise EC2Error("IncorrectState", f"{volume.id} is still being attached: wait for it, or use Force")
    leaving = replace(attachment, state="detaching", forced=attachment.forced or force)
    if instance is not None and instance.state is State.RUNNING:
        call.tx.put(replace(volume, attachment=leaving))
        call.tx.wake(instance)
    else:
        call.tx.wake(call.tx.put(replace(volume, state="available", attachment=None)))
    return show_attachment(volume, leaving)

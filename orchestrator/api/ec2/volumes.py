"""Volumes: made, shown, deleted, and whether they are well.

CreateVolume ──► creating ──(its layer is there)──► available ──DeleteVolume──► deleting ──► (none)

How they are attached is in `volume_attachments`, how they are changed in `volume_modifications`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from orchestrator.api.ec2.encryption import key_arn
from orchestrator.api.ec2.launch_options import Structure
from orchestrator.api.ec2.new_volumes import DEFAULT_TYPE, new_volume, plan_volume
from orchestrator.api.ec2.snapshots import usable_snapshot
from orchestrator.api.operation import Answer, Call, describe, operation
from orchestrator.model.errors import EC2Error, missing_parameter, one_of
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.instance import Instance
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.volume import Volume, VolumeAttachment
from orchestrator.model.zone import zone_id

MEASURED_IOPS: Final = ("gp2", "gp3", "io1", "io2")  # the types that have a number of IOPS; the others have none


@operation("CreateVolume", writes=True)
def create_volume(
    call: Call,
    *,
    availability_zone: str | None = None,
    availability_zone_id: str | None = None,
    size: int | None = None,
    snapshot_id: str | None = None,
    volume_type: str = DEFAULT_TYPE,
    iops: int | None = None,
    throughput: int | None = None,
    encrypted: bool | None = None,
    kms_key_id: str | None = None,
    multi_attach_enabled: bool = False,
    volume_initialization_rate: int | None = None,
    tag_specifications: list[Structure] | None = None,
) -> Answer:
    tags = tags_at_creation(tag_specifications, "volume")
    zone = _choose_zone(call, availability_zone, availability_zone_id)
    check_multi_attach(multi_attach_enabled, volume_type)
    plan = plan_volume(
        call,
        snapshot=usable_snapshot(call, snapshot_id) if snapshot_id else None,
        size_gib=size,
        volume_type=volume_type,
        iops=iops,
        throughput_mib_s=throughput,
        encrypted=encrypted,
        key_name=kms_key_id,
        initialization_rate_mib_s=volume_initialization_rate,
    )
    volume = new_volume(call, plan, zone, tags=tags["volume"])
    call.tx.wake(volume)
    return show_volume(call, volume)


def _choose_zone(call: Call, name: str | None, named_by_id: str | None) -> str:
    if name and named_by_id:
        raise EC2Error("InvalidParameterCombination", "Give AvailabilityZone or AvailabilityZoneId, not both")
    if not name and not named_by_id:
        raise missing_parameter("AvailabilityZone or AvailabilityZoneId")
    for zone in call.zones:
        if name == zone or named_by_id == zone_id(zone):
            return zone
    known = ", ".join(f"{zone} ({zone_id(zone)})" for zone in call.zones)
    raise EC2Error(
        "InvalidZone.NotFound", f"The zone '{name or named_by_id}' does not exist. Those of {call.region} are {known}."
    )


def check_multi_attach(wanted: bool, volume_type: str) -> None:
    if not wanted:
        return
    if volume_type not in ("io1", "io2"):
        raise EC2Error("InvalidParameterCombination", f"Multi-Attach is for io1 and io2 volumes, not {volume_type}")
    raise EC2Error("Unsupported", "MultiAttachEnabled must be false here: a volume is attached to one instance at most")


@operation("DeleteVolume", writes=True)
def delete_volume(call: Call, *, volume_id: str) -> Answer:
    """Its snapshots stay, those that are pending too."""
    volume = call.find(Volume, "vol", volume_id)
    if volume.attachment is not None:
        raise EC2Error("VolumeInUse", f"Volume {volume.id} is currently attached to {volume.instance_id}")
    if volume.state not in ("available", "error", "deleting"):
        raise EC2Error(
            "IncorrectState", f"The volume '{volume.id}' is {volume.state}: available and error can be deleted"
        )
    call.tx.wake(call.tx.put(replace(volume, state="deleting")))
    return {}


# --- shown ------------------------------------------------------------------------------------------------------------


def _time(at: datetime | None) -> str | None:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z" if at else None


def _delete_on_termination(volume: Volume) -> str | None:
    return boolean(volume.attachment.delete_on_termination) if volume.attachment else None


VOLUME_FILTERS: Final[FilterTable] = {
    "attachment.attach-time": lambda volume: _time(volume.attachment.attached_at) if volume.attachment else None,
    "attachment.delete-on-termination": _delete_on_termination,
    "attachment.device": lambda volume: volume.attachment.device if volume.attachment else None,
    "attachment.instance-id": lambda volume: volume.instance_id or None,
    "attachment.status": lambda volume: volume.attachment.state if volume.attachment else None,
    "availability-zone": lambda volume: volume.zone,
    "availability-zone-id": lambda volume: zone_id(volume.zone),
    "create-time": lambda volume: _time(volume.created),
    "encrypted": lambda volume: boolean(volume.encrypted),
    "fast-restored": lambda volume: boolean(volume.fast_restored),
    "multi-attach-enabled": lambda volume: "false",
    "operator.managed": lambda volume: "false",
    "operator.principal": lambda volume: None,
    "size": lambda volume: str(volume.size_gib),
    "snapshot-id": lambda volume: volume.snapshot_id or None,
    "status": lambda volume: volume.state,
    "volume-id": lambda volume: volume.id,
    "volume-type": lambda volume: volume.volume_type,
}


@describe(
    "DescribeVolumes",
    kind=Volume,
    answer="Volumes",
    ids_parameter="VolumeIds",
    prefix="vol",
    filters=VOLUME_FILTERS,
    ids_or_pages=True,
)
def show_volume(call: Call, volume: Volume) -> Answer:
    shown: Answer = {
        "VolumeId": volume.id,
        "Size": volume.size_gib,
        "SnapshotId": volume.snapshot_id,
        "AvailabilityZone": volume.zone,
        "AvailabilityZoneId": zone_id(volume.zone),
        "State": volume.state,
        "CreateTime": volume.created,
        "VolumeType": volume.volume_type,
        "Encrypted": volume.encrypted,
        "MultiAttachEnabled": False,
        "Operator": {"Managed": False},
        "Attachments": [show_attachment(volume, volume.attachment)] if volume.attachment else [],
        "Tags": tag_set(volume.tags),
    }
    if volume.encrypted:
        shown["KmsKeyId"] = key_arn(call, volume)
    if volume.fast_restored:
        shown["FastRestored"] = True
    if volume.initialization_rate_mib_s:
        shown["VolumeInitializationRate"] = volume.initialization_rate_mib_s
    if volume.volume_type in MEASURED_IOPS:
        shown["Iops"] = volume.iops
    if volume.volume_type == "gp3":
        shown["Throughput"] = volume.throughput_mib_s
    return shown


def show_attachment(volume: Volume, attachment: VolumeAttachment) -> Answer:
    return {
        "VolumeId": volume.id,
        "InstanceId": attachment.instance_id,
        "Device": attachment.device,
        "State": attachment.state,
        "AttachTime": attachment.attached_at,
        "DeleteOnTermination": attachment.delete_on_termination,
    }


# --- status -----------------------------------------------------------------------------------------------------------


# A machine whose disk could not be written stands still, with all its volumes, until it can be.
_STUCK: Final = "potential-data-inconsistency"
_ENABLE: Final = "enable-volume-io"


def paused_reason(call: Call, volume: Volume) -> str:
    """Why nothing reads and writes it: its instance's machine stands still. Empty when all is well."""
    instance = call.db.get(Instance, volume.instance_id) if volume.attachment else None
    return instance.paused_reason if instance is not None else ""


def _health(call: Call, volume: Volume) -> str:
    if volume.state == "error" or paused_reason(call, volume):
        return "impaired"
    return "insufficient-data" if volume.state == "creating" else "ok"


def _input_output(call: Call, volume: Volume) -> str:
    return "passed" if _health(call, volume) == "ok" else "failed"


def _event_id(volume: Volume) -> str:
    return "evol-" + volume.id.partition("-")[2]


# Documented filters on what no volume here has: they match nothing.
_NEVER: Final = ("attachment-status.io-performance", "event.not-after", "event.not-before")


def status_filters(call: Call) -> FilterTable:
    def stuck(text: str) -> Callable[[Volume], str | None]:
        return lambda volume: text if paused_reason(call, volume) else None

    def event_id(volume: Volume) -> str | None:
        return _event_id(volume) if paused_reason(call, volume) else None

    return {
        **{name: lambda volume: None for name in _NEVER},
        "action.code": stuck(_ENABLE),
        "action.description": stuck("Enable volume I/O"),
        "action.event-id": event_id,
        "attachment-status.instance-id": lambda volume: volume.instance_id or None,
        "availability-zone": lambda volume: volume.zone,
        "event.description": lambda volume: paused_reason(call, volume) or None,
        "event.event-id": event_id,
        "event.event-type": stuck(_STUCK),
        "volume-status.details-name": lambda volume: ("io-enabled", "io-performance"),
        "volume-status.details-status": lambda volume: (_input_output(call, volume), "not-applicable"),
        "volume-status.status": lambda volume: _health(call, volume),
    }


@describe(
    "DescribeVolumeStatus",
    kind=Volume,
    answer="VolumeStatuses",
    ids_parameter="VolumeIds",
    prefix="vol",
    filters=status_filters,
    ids_or_pages=True,
)
def show_volume_status(call: Call, volume: Volume) -> Answer:
    """A machine that stands still since a disk could not be written is an event, which says why."""
    shown: Answer = {
        "VolumeId": volume.id,
        "AvailabilityZone": volume.zone,
        "AvailabilityZoneId": zone_id(volume.zone),
        "VolumeStatus": {
            "Status": _health(call, volume),
            "Details": [
                {"Name": "io-enabled", "Status": _input_output(call, volume)},
                {"Name": "io-performance", "Status": "not-applicable"},
            ],
        },
        "Actions": [],
        "Events": [],
        "AttachmentStatuses": [],
    }
    if volume.attachment is not None:
        shown["AttachmentStatuses"] = [{"InstanceId": volume.instance_id, "IoPerformance": "not-applicable"}]
    if reason := paused_reason(call, volume):
        event = {"EventId": _event_id(volume), "EventType": _STUCK}
        shown["Actions"] = [{**event, "Code": _ENABLE, "Description": "Enable volume I/O"}]
        shown["Events"] = [{**event, "Description": reason, "InstanceId": volume.instance_id}]
    return shown


@operation("EnableVolumeIO", writes=True)
def enable_volume_io(call: Call, *, volume_id: str) -> Answer:
    """A machine that stands still is tried again at once: its instance looks whether there is space now."""
    volume = call.find(Volume, "vol", volume_id)
    instance = call.tx.get(Instance, volume.instance_id)
    if instance is not None:
        call.tx.wake(instance)
    return {}


@operation("DescribeVolumeAttribute")
def describe_volume_attribute(call: Call, *, volume_id: str, attribute: str) -> Answer:
    volume = call.find(Volume, "vol", volume_id)
    attributes: Answer = {
        "autoEnableIO": {"AutoEnableIO": {"Value": volume.auto_enable_io}},
        "productCodes": {"ProductCodes": []},
    }
    return {"VolumeId": volume.id, **attributes[one_of("Attribute", attribute, attributes)]}


@operation("ModifyVolumeAttribute", writes=True)
def modify_volume_attribute(call: Call, *, volume_id: str, auto_enable_io: Structure | None = None) -> Answer:
    volume = call.find(Volume, "vol", volume_id)
    if auto_enable_io is None or "Value" not in auto_enable_io:
        raise missing_parameter("AutoEnableIO.Value")
    call.tx.put(replace(volume, auto_enable_io=auto_enable_io["Value"]))
    return {}

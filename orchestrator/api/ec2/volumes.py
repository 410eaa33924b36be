"""Volumes, and whether they are well."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from orchestrator.api.operation import Answer, Call, describe, operation
from orchestrator.model.errors import one_of
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.image import Volume
from orchestrator.model.tags import tag_set
from orchestrator.model.zone import zone_id

MEASURED_IOPS: Final = ("gp2", "gp3", "io1", "io2")  # the types that have a number of IOPS; the others have none


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
    "fast-restored": lambda volume: "false",
    "multi-attach-enabled": lambda volume: "false",
    "operator.managed": lambda volume: "false",
    "operator.principal": lambda volume: None,
    "size": lambda volume: str(volume.size_gib),
    "snapshot-id": lambda volume: volume.snapshot_id,
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
        "Attachments": _show_attachments(volume),
        "Tags": tag_set(volume.tags),
    }
    if volume.volume_type in MEASURED_IOPS:
        shown["Iops"] = volume.iops
    if volume.volume_type == "gp3":
        shown["Throughput"] = volume.throughput_mib_s
    return shown


def _show_attachments(volume: Volume) -> list[Answer]:
    attachment = volume.attachment
    if attachment is None:
        return []
    return [
        {
            "VolumeId": volume.id,
            "InstanceId": attachment.instance_id,
            "Device": attachment.device,
            "State": attachment.state,
            "AttachTime": attachment.attached_at,
            "DeleteOnTermination": attachment.delete_on_termination,
        }
    ]


# --- status -----------------------------------------------------------------------------------------------------------


def _health(volume: Volume) -> str:
    return {"error": "impaired", "creating": "insufficient-data"}.get(volume.state, "ok")


def _input_output(volume: Volume) -> str:
    return "passed" if _health(volume) == "ok" else "failed"


# Documented filters on what no volume here has, scheduled events among them: they match nothing.
_NEVER: Final = (
    "action.code",
    "action.description",
    "action.event-id",
    "attachment-status.instance-id",
    "attachment-status.io-performance",
    "event.description",
    "event.event-id",
    "event.event-type",
    "event.not-after",
    "event.not-before",
)

STATUS_FILTERS: Final[FilterTable] = {
    **{name: lambda volume: None for name in _NEVER},
    "availability-zone": lambda volume: volume.zone,
    "volume-status.details-name": lambda volume: ("io-enabled", "io-performance"),
    "volume-status.details-status": lambda volume: (_input_output(volume), "not-applicable"),
    "volume-status.status": _health,
}


@describe(
    "DescribeVolumeStatus",
    kind=Volume,
    answer="VolumeStatuses",
    ids_parameter="VolumeIds",
    prefix="vol",
    filters=STATUS_FILTERS,
    ids_or_pages=True,
)
def show_volume_status(call: Call, volume: Volume) -> Answer:
    return {
        "VolumeId": volume.id,
        "AvailabilityZone": volume.zone,
        "AvailabilityZoneId": zone_id(volume.zone),
        "VolumeStatus": {
            "Status": _health(volume),
            "Details": [
                {"Name": "io-enabled", "Status": _input_output(volume)},
                {"Name": "io-performance", "Status": "not-applicable"},
            ],
        },
        "Actions": [],
        "Events": [],
        "AttachmentStatuses": [],
    }


@operation("DescribeVolumeAttribute")
def describe_volume_attribute(call: Call, *, volume_id: str, attribute: str) -> Answer:
    volume = call.find(Volume, "vol", volume_id)
    attributes: Answer = {"autoEnableIO": {"AutoEnableIO": {"Value": False}}, "productCodes": {"ProductCodes": []}}
    return {"VolumeId": volume.id, **attributes[one_of("Attribute", attribute, attributes)]}

"""Snapshots: made of volumes, deleted, and shown; which of them a caller sees, and may make something of.

    CreateSnapshot(s), CopySnapshot ---> pending ---> completed ---DeleteSnapshot---> (none), or the recycle bin
                                            +--> error

A caller sees its own, those that are shared with it, public ones, and those of images that it may launch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC
from typing import Final
from uuid import UUID

from orchestrator.api.ec2.encryption import key_arn
from orchestrator.api.ec2.freezing import freeze
from orchestrator.api.ec2.owners import (
    OWNER_ALIASES,
    is_account,
    is_here,
    is_public,
    is_shared_with,
    may_use,
    owner_alias,
)
from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter, one_of
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.image import Image
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.snapshot import NO_VOLUME, Snapshot
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.volume import Volume

LONGEST_DESCRIPTION: Final = 255


# --- who sees which, and may make something of it -------------------------------------------------------------------


def sees_snapshot(call: Call, snapshot: Snapshot) -> bool:
    """Whether the caller may make volumes of it: its own, a shared or a public one, or one of an image that it may
    launch. None that is in the recycle bin."""
    return may_use(call, snapshot) or (is_here(call, snapshot) and any(_launchable(call, snapshot)))


def _launchable(call: Call, snapshot: Snapshot) -> list[Image]:
    """Images with this snapshot that the caller may launch, of its owner's: nobody else's can give leave to use it."""
    images = call.db.all(Image, snapshot_ids=snapshot.id, account=snapshot.account)
    return [image for image in images if image.state == "available" and may_use(call, image)]


def serves_image(call: Call, image: Image, snapshot: Snapshot) -> bool:
    """Whether a snapshot of an image is there for the caller, who may launch the image. One that is not of the image's
    owner was only lent to that owner: then the caller must be one who may use it now."""
    return snapshot.recycled_at is None and (snapshot.account == image.account or sees_snapshot(call, snapshot))


def usable_snapshot(call: Call, snapshot_id: str) -> Snapshot:
    """The snapshot that a volume, a copy or an image is to be made of: the caller sees it, and its content is there.

    InvalidSnapshot.NotFound; IncorrectState when it is pending, has failed, or is archived.
    """
    snapshot = call.db.get(Snapshot, ids.check("snap", snapshot_id))
    if snapshot is None or not sees_snapshot(call, snapshot):
        raise no_snapshot([snapshot_id])
    if snapshot.state != "completed":
        raise EC2Error("IncorrectState", f"The snapshot '{snapshot_id}' is {snapshot.state}: completed can be used")
    if snapshot.is_archived(call.now):
        raise EC2Error("IncorrectState", f"The snapshot '{snapshot_id}' is archived: restore it first")
    return snapshot


def own_snapshot(call: Call, snapshot_id: str) -> Snapshot:
    """The caller's own, which it may change; AuthFailure for one that it only sees."""
    snapshot = call.db.get(Snapshot, ids.check("snap", snapshot_id))
    if snapshot is None or not sees_snapshot(call, snapshot):
        raise no_snapshot([snapshot_id])
    if snapshot.account != call.account:
        raise EC2Error("AuthFailure", f"Not authorized for snapshot: {snapshot_id}", 403)
    return snapshot


def own_snapshots(call: Call, snapshot_ids: Sequence[str] | None = None) -> list[Snapshot]:
    """The caller's own, each once; all of them without ids. None that is in the recycle bin."""
    mine = {snapshot.id: snapshot for snapshot in call.mine(Snapshot) if snapshot.recycled_at is None}
    if not snapshot_ids:
        return list(mine.values())
    return chosen(mine, snapshot_ids)


def chosen(found: dict[str, Snapshot], snapshot_ids: Sequence[str]) -> list[Snapshot]:
    """Those of `found` that the ids name, each once, or InvalidSnapshot.NotFound for the call as a whole."""
    wanted = list(dict.fromkeys(ids.check("snap", snapshot_id) for snapshot_id in snapshot_ids))
    if absent := [snapshot_id for snapshot_id in wanted if snapshot_id not in found]:
        raise no_snapshot(absent)
    return [found[snapshot_id] for snapshot_id in wanted]


def no_snapshot(snapshot_ids: Sequence[str]) -> EC2Error:
    several = len(snapshot_ids) > 1
    return EC2Error(
        "InvalidSnapshot.NotFound",
        f"The snapshot{'s' if several else ''} '{', '.join(snapshot_ids)}' do{'' if several else 'es'} not exist.",
    )


# --- create ---------------------------------------------------------------------------------------------------------


@operation("CreateSnapshot", writes=True)
def create_snapshot(
    call: Call,
    *,
    volume_id: str,
    description: str | None = None,
    tag_specifications: list[Answer] | None = None,
    location: str | None = None,
) -> Answer:
    """What the guest has written to the volume by now, as after a power cut."""
    _check_location(location)
    tags = tags_at_creation(tag_specifications, "snapshot")["snapshot"]
    volume = call.find(Volume, "vol", volume_id)
    [snapshot] = freeze(call, [volume], when="live", description=check_description(description), tags=tags)
    return show_snapshot(call, snapshot)


@operation("CreateSnapshots", writes=True)
def create_snapshots(
    call: Call,
    *,
    instance_specification: Answer,
    description: str | None = None,
    tag_specifications: list[Answer] | None = None,
    copy_tags_from_source: str | None = None,
    location: str | None = None,
) -> Answer:
    """Of all volumes of an instance, at one instant, in the order of its devices."""
    _check_location(location)
    if copy_tags_from_source is not None:
        one_of("CopyTagsFromSource", copy_tags_from_source, ["volume"])
    snapshots = freeze(
        call,
        _volumes_of(call, instance_specification),
        when="live",
        description=check_description(description),
        tags=tags_at_creation(tag_specifications, "snapshot")["snapshot"],
        volume_tags=copy_tags_from_source is not None,
    )
    members = (
        "SnapshotId",
        "VolumeId",
        "VolumeSize",
        "State",
        "Progress",
        "StartTime",
        "OwnerId",
        "Description",
        "Encrypted",
        "Tags",
    )
    shown = [show_snapshot(call, snapshot) for snapshot in snapshots]
    return {"Snapshots": [{name: one[name] for name in members} for one in shown]}


def _volumes_of(call: Call, specification: Answer) -> list[Volume]:
    instance = call.find(Instance, "i", specification.get("InstanceId") or "")
    if instance.state in (State.SHUTTING_DOWN, State.TERMINATED):
        raise EC2Error("IncorrectInstanceState", f"The instance '{instance.id}' is {instance.state}")
    volumes = {
        volume.attachment.device: volume for volume in call.tx.all(Volume, instance_id=instance.id) if volume.attachment
    }
    root = volumes.pop(instance.root_device, None)
    left_out = {ids.check("vol", volume_id) for volume_id in specification.get("ExcludeDataVolumeIds") or ()}
    if root is not None and root.id in left_out:
        raise EC2Error(
            "InvalidParameterValue",
            f"'{root.id}' is the root volume of '{instance.id}': ExcludeBootVolume leaves it out, "
            "ExcludeDataVolumeIds takes data volumes",
        )
    if absent := left_out - {volume.id for volume in volumes.values()}:
        raise EC2Error(
            "InvalidParameterValue", f"Not attached to '{instance.id}' as data volumes: {', '.join(sorted(absent))}"
        )
    data = [volumes[device] for device in sorted(volumes) if volumes[device].id not in left_out]
    found = [] if root is None or specification.get("ExcludeBootVolume") else [root]
    if not found and not data:
        raise EC2Error("InvalidParameterCombination", f"No volume of the instance '{instance.id}' is left to snapshot")
    return found + data


def _check_location(location: str | None) -> None:
    """Of volumes in Local Zones, which are none here: the region is where snapshots are kept anyway."""
    if location is not None and location != "regional":
        raise invalid_parameter("Location", location, "regional: local is for volumes in Local Zones")


def check_description(description: str | None) -> str:
    if description is not None and len(description) > LONGEST_DESCRIPTION:
        raise invalid_parameter("Description", description[:20] + "...", f"at most {LONGEST_DESCRIPTION} characters")
    return description or ""


# --- describe -------------------------------------------------------------------------------------------------------


@operation("DescribeSnapshots", listing=True)
def describe_snapshots(
    call: Call,
    *,
    snapshot_ids: list[str] | None = None,
    owner_ids: list[str] | None = None,
    restorable_by_user_ids: list[str] | None = None,
) -> Answer:
    seen = {snapshot.id: snapshot for snapshot in call.db.all(Snapshot) if sees_snapshot(call, snapshot)}
    found = list(seen.values())
    if snapshot_ids:
        if call.params.get("MaxResults") is not None:
            raise EC2Error("InvalidParameterCombination", "The parameter SnapshotIds cannot be used with MaxResults")
        found = chosen(seen, snapshot_ids)
    if owner_ids:
        owners = {_owner(call, owner) for owner in owner_ids}
        found = [snapshot for snapshot in found if owners & {snapshot.account, owner_alias(snapshot)}]
    if restorable_by_user_ids:
        users = {user if user == "all" else _owner(call, user) for user in restorable_by_user_ids}
        found = [snapshot for snapshot in found if snapshot.account in users or _restorable(call, snapshot, users)]
    return show_page(
        call,
        "Snapshots",
        choose(call, [_as_seen(call, snapshot) for snapshot in found], snapshot_filters(call)),
        lambda snapshot: show_snapshot(call, snapshot, described=True),
    )


def _owner(call: Call, owner: str) -> str:
    if owner == "self":
        return call.account
    if owner in OWNER_ALIASES or is_account(owner):
        return owner
    raise invalid_parameter("Owner", owner, "12 digits, self or amazon")


def _restorable(call: Call, snapshot: Snapshot, users: set[str]) -> bool:
    if is_shared_with(call, snapshot, users):
        return True
    return "all" in users and any(is_public(call, image) for image in _launchable(call, snapshot))


def _as_seen(call: Call, snapshot: Snapshot) -> Snapshot:
    """A resource's tags are its owner's: others see it without them."""
    return snapshot if snapshot.account == call.account else replace(snapshot, tags={})


def transfer_type(snapshot: Snapshot) -> str | None:
    """How a copy was asked to be made."""
    if not snapshot.source_snapshot_id:
        return None
    return "time-based" if snapshot.completion_minutes else "standard"


def storage_tier(call: Call, snapshot: Snapshot) -> str:
    return "archive" if snapshot.is_archived(call.now) else "standard"


def snapshot_filters(call: Call) -> FilterTable:
    return {
        "description": lambda snapshot: snapshot.description,
        "encrypted": lambda snapshot: boolean(snapshot.encrypted),
        "owner-alias": lambda snapshot: owner_alias(snapshot) or None,
        "owner-id": lambda snapshot: snapshot.account,
        "progress": lambda snapshot: f"{snapshot.progress_percent}%",
        "snapshot-id": lambda snapshot: snapshot.id,
        "start-time": lambda snapshot: snapshot.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "status": lambda snapshot: snapshot.state,
        "storage-tier": lambda snapshot: storage_tier(call, snapshot),
        "transfer-type": transfer_type,
        "volume-id": lambda snapshot: snapshot.volume_id or NO_VOLUME,
        "volume-size": lambda snapshot: str(snapshot.size_gib),
    }


def show_snapshot(call: Call, snapshot: Snapshot, *, described: bool = False) -> Answer:
    """With `described`, also what only DescribeSnapshots answers."""
    shown: Answer = {
        "SnapshotId": snapshot.id,
        "VolumeId": snapshot.volume_id or NO_VOLUME,
        "VolumeSize": snapshot.size_gib,
        "State": snapshot.state,
        "Progress": f"{snapshot.progress_percent}%",
        "StartTime": snapshot.created,
        "OwnerId": snapshot.account,
        "Description": snapshot.description,
        "Encrypted": snapshot.encrypted,
        "StorageTier": storage_tier(call, snapshot),
        "Tags": tag_set(snapshot.tags) if snapshot.account == call.account else [],
    }
    if snapshot.key_id:
        shown["KmsKeyId"] = key_arn(call, snapshot)
    if alias := owner_alias(snapshot):
        shown["OwnerAlias"] = alias
    if transfer := transfer_type(snapshot):
        shown["TransferType"] = transfer
    if snapshot.completion_minutes:
        shown["CompletionDurationMinutes"] = snapshot.completion_minutes
    if snapshot.state == "completed":
        shown["CompletionTime"] = snapshot.completed_at or snapshot.created
    if snapshot.restore_expires_at is not None and snapshot.restore_expires_at > call.now:
        shown["RestoreExpiryTime"] = snapshot.restore_expires_at
    if described:
        if snapshot.state_message:
            shown["StateMessage"] = snapshot.state_message
        layer = call.db.get(Layer, snapshot.layer_id)
        if layer is not None and layer.data_key:
            shown["DataEncryptionKeyId"] = _data_key_id(layer.data_key)
    return shown


def _data_key_id(data_key: str) -> str:
    """Equal for what is encrypted by the same data key, and nothing that tells of it."""
    return str(UUID(bytes=hashlib.sha256(data_key.encode()).digest()[:16]))

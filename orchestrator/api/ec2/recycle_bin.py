"""The recycle bin: deleted snapshots and deregistered images are kept as long as the account's retention rules say.

    deleted --no rule matches--> (none)
       +--a rule matches--> in the bin --RestoreSnapshotFromRecycleBin, RestoreImageFromRecycleBin--> as it was
                               +--its time is over--> (none)

Of several rules the longest holds. A rule with tags is about what has at least one of them, a rule without about
everything of its type. Whoever it was shared with cannot use it meanwhile. Source: "Recycle Bin" in the EBS user guide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, TypeVar

from orchestrator.api.operation import Answer, Call, operation, show_page
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import Image, RetentionRule
from orchestrator.model.snapshot import NO_VOLUME, Snapshot

SNAPSHOTS: Final = "EBS_SNAPSHOT"
IMAGES: Final = "EC2_IMAGE"
IN_BIN: Final = "aws:recycle-bin:resource-in-bin"  # the tag that EC2 gives to what is there

R = TypeVar("R", Image, Snapshot)


def recycle(call: Call, resource: Image | Snapshot) -> bool:
    """Put the caller's own into the bin, if a rule says so; whether one did. The row is written."""
    days = retention_days(call, IMAGES if isinstance(resource, Image) else SNAPSHOTS, resource.tags)
    if not days:
        return False
    until = call.now + timedelta(days=days)
    tags = {**resource.tags, IN_BIN: "true"}
    if isinstance(resource, Snapshot):
        call.tx.put(replace(resource, recycled_at=call.now, recycled_until=until, tags=tags, fast_restores=()))
    else:
        call.tx.put(replace(resource, recycled_at=call.now, recycled_until=until, tags=tags))
    return True


def retention_days(call: Call, resource_type: str, tags: Mapping[str, str]) -> int:
    """How long the caller's rules for this region keep it; 0: not at all."""
    return max(
        (
            rule.retention_days
            for rule in call.mine(RetentionRule)
            if rule.resource_type == resource_type and _is_about(rule, tags)
        ),
        default=0,
    )


def _is_about(rule: RetentionRule, tags: Mapping[str, str]) -> bool:
    """A tag of a rule without a value is about every value."""
    if not rule.resource_tags:
        return True
    return any(key in tags and value in ("", tags[key]) for key, value in rule.resource_tags.items())


def _kept(call: Call, kind: type[R]) -> dict[str, R]:
    """The caller's own that lie in the bin, and whose time is not over."""
    return {
        each.id: each for each in call.mine(kind) if each.recycled_until is not None and each.recycled_until > call.now
    }


def _chosen(call: Call, kind: type[R], prefix: str, resource_ids: Sequence[str] | None) -> list[R]:
    kept = _kept(call, kind)
    if not resource_ids:
        return list(kept.values())
    if call.params.get("MaxResults") is not None:
        raise EC2Error("InvalidParameterCombination", "Ids cannot be used with MaxResults")
    wanted = list(dict.fromkeys(ids.check(prefix, resource_id) for resource_id in resource_ids))
    if absent := [resource_id for resource_id in wanted if resource_id not in kept]:
        raise _not_in_bin(prefix, absent)
    return [kept[resource_id] for resource_id in wanted]


def _not_in_bin(prefix: str, resource_ids: Sequence[str]) -> EC2Error:
    kind = ids.KINDS[prefix]
    return EC2Error(f"{kind.error}.NotFound", f"Not in the recycle bin: {kind.noun} {', '.join(resource_ids)}")


def _found(call: Call, kind: type[R], prefix: str, resource_id: str) -> R:
    kept = _kept(call, kind).get(ids.check(prefix, resource_id))
    if kept is None:
        raise _not_in_bin(prefix, [resource_id])
    return kept


def _without_mark(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key != IN_BIN}


# --- snapshots ------------------------------------------------------------------------------------------------------


@operation("ListSnapshotsInRecycleBin", listing=True)
def list_snapshots(call: Call, *, snapshot_ids: list[str] | None = None) -> Answer:
    return show_page(call, "Snapshots", _chosen(call, Snapshot, "snap", snapshot_ids), _show_snapshot)


def _show_snapshot(snapshot: Snapshot) -> Answer:
    return {
        "SnapshotId": snapshot.id,
        "RecycleBinEnterTime": snapshot.recycled_at,
        "RecycleBinExitTime": snapshot.recycled_until,
        "Description": snapshot.description,
        "VolumeId": snapshot.volume_id or NO_VOLUME,
    }


@operation("RestoreSnapshotFromRecycleBin", writes=True)
def restore_snapshot(call: Call, *, snapshot_id: str) -> Answer:
    kept = _found(call, Snapshot, "snap", snapshot_id)
    snapshot = call.tx.put(replace(kept, recycled_at=None, recycled_until=None, tags=_without_mark(kept.tags)))
    return {
        "SnapshotId": snapshot.id,
        "Description": snapshot.description,
        "Encrypted": snapshot.encrypted,
        "OwnerId": snapshot.account,
        "Progress": f"{snapshot.progress_percent}%",
        "StartTime": snapshot.created,
        "State": snapshot.state,
        "VolumeId": snapshot.volume_id or NO_VOLUME,
        "VolumeSize": snapshot.size_gib,
    }


# --- images ---------------------------------------------------------------------------------------------------------


@operation("ListImagesInRecycleBin", listing=True)
def list_images(call: Call, *, image_ids: list[str] | None = None) -> Answer:
    return show_page(call, "Images", _chosen(call, Image, "ami", image_ids), _show_image, smallest=1)


def _show_image(image: Image) -> Answer:
    return {
        "ImageId": image.id,
        "Name": image.name,
        "Description": image.description,
        "RecycleBinEnterTime": image.recycled_at,
        "RecycleBinExitTime": image.recycled_until,
    }


@operation("RestoreImageFromRecycleBin", writes=True)
def restore_image(call: Call, *, image_id: str) -> Answer:
    """Its snapshots must be there; those that are in the bin themselves are restored before it."""
    kept = _found(call, Image, "ami", image_id)
    for snapshot_id in kept.snapshot_ids:
        snapshot = call.tx.get(Snapshot, snapshot_id)
        if snapshot is None or snapshot.recycled_at is not None:
            where = "does not exist any more" if snapshot is None else "is in the recycle bin: restore it first"
            raise EC2Error("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' of '{image_id}' {where}")
    for other in call.mine(Image):
        alive = other.recycled_at is None and other.state not in ("deregistered", "failed")
        if other.name == kept.name and alive:
            raise EC2Error("InvalidAMIName.Duplicate", f"AMI name {kept.name} is already in use by AMI {other.id}")
    call.tx.put(
        replace(
            kept,
            recycled_at=None,
            recycled_until=None,
            state="available" if kept.state == "deregistered" else kept.state,
            tags=_without_mark(kept.tags),
        )
    )
    return {"Return": True}

"""Snapshots: which of them a caller sees, and how they are shown.

A caller sees its own, and those of images that everyone may launch.
"""

from __future__ import annotations

from datetime import UTC
from typing import Final

from orchestrator.api.ec2.images import AMAZON, OWNER_ALIASES, visible
from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.image import Image, Snapshot
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.tags import tag_set


@operation("DescribeSnapshots", listing=True)
def describe_snapshots(
    call: Call,
    *,
    snapshot_ids: list[str] | None = None,
    owner_ids: list[str] | None = None,
    restorable_by_user_ids: list[str] | None = None,
) -> Answer:
    images = [image for image in call.db.all(Image) if visible(call, image)]
    public = {device.snapshot_id for image in images for device in image.block_devices}
    found = [snapshot for snapshot in call.db.all(Snapshot) if call.sees(snapshot) or snapshot.id in public]
    if snapshot_ids:
        if call.params.get("MaxResults") is not None:
            raise EC2Error("InvalidParameterCombination", "The parameter SnapshotIds cannot be used with MaxResults")
        by_id = {snapshot.id: snapshot for snapshot in found}
        wanted = list(dict.fromkeys(ids.check("snap", snapshot_id) for snapshot_id in snapshot_ids))
        if absent := [snapshot_id for snapshot_id in wanted if snapshot_id not in by_id]:
            raise EC2Error("InvalidSnapshot.NotFound", f"The snapshot '{', '.join(absent)}' does not exist.")
        found = [by_id[snapshot_id] for snapshot_id in wanted]
    if owner_ids:
        owners = {_owner(call, owner) for owner in owner_ids}
        found = [snapshot for snapshot in found if owners & {snapshot.account, owner_alias(snapshot)}]
    if restorable_by_user_ids:
        users = {_user(call, user) for user in restorable_by_user_ids}
        shared = public if "all" in users else set()
        found = [snapshot for snapshot in found if snapshot.account in users or snapshot.id in shared]
    return show_page(
        call, "Snapshots", choose(call, found, SNAPSHOT_FILTERS), lambda snapshot: show_snapshot(call, snapshot)
    )


def _owner(call: Call, owner: str) -> str:
    if owner in OWNER_ALIASES:
        return owner
    if owner == "self":
        return call.account
    if len(owner) == 12 and owner.isdigit():
        return owner
    raise invalid_parameter("Owner", owner, "12 digits, self or amazon")


def _user(call: Call, user: str) -> str:
    return user if user == "all" else _owner(call, user)


def owner_alias(snapshot: Snapshot) -> str:
    return AMAZON if snapshot.region == EVERY_REGION else ""


def progress(snapshot: Snapshot) -> str:
    return "100%" if snapshot.state == "completed" else "0%"


SNAPSHOT_FILTERS: Final[FilterTable] = {
    "description": lambda snapshot: snapshot.description,
    "encrypted": lambda snapshot: boolean(snapshot.encrypted),
    "owner-alias": lambda snapshot: owner_alias(snapshot) or None,
    "owner-id": lambda snapshot: snapshot.account,
    "progress": progress,
    "snapshot-id": lambda snapshot: snapshot.id,
    "start-time": lambda snapshot: snapshot.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
    "status": lambda snapshot: snapshot.state,
    "storage-tier": lambda snapshot: "standard",
    "transfer-type": lambda snapshot: None,
    "volume-id": lambda snapshot: snapshot.volume_id,
    "volume-size": lambda snapshot: str(snapshot.size_gib),
}


def show_snapshot(call: Call, snapshot: Snapshot) -> Answer:
    shown: Answer = {
        "SnapshotId": snapshot.id,
        # What was not made of a volume says so with an id that no volume has, as EC2's copies do.
        "VolumeId": snapshot.volume_id or "vol-ffffffff",
        "VolumeSize": snapshot.size_gib,
        "State": snapshot.state,
        "Progress": progress(snapshot),
        "StartTime": snapshot.created,
        "OwnerId": snapshot.account,
        "Description": snapshot.description,
        "Encrypted": snapshot.encrypted,
        "StorageTier": "standard",
        "Tags": tag_set(snapshot.tags) if snapshot.account == call.account else [],
    }
    if snapshot.state == "completed":
        shown["CompletionTime"] = snapshot.created
    if alias := owner_alias(snapshot):
        shown["OwnerAlias"] = alias
    return shown

"""The archive tier: a snapshot in it takes no less room here, and nothing can be made of it until it is restored.

    standard --ModifySnapshotTier--> archive --RestoreSnapshotTier, permanently--> standard
                                        |  ^
                       for some days    v  | they are over
                                     restored

Each of it is done at once. Sharing and fast restores end with being archived. Source: "Archive Amazon EBS snapshots"
in the EBS user guide.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from orchestrator.api.ec2.snapshot_removal import images_of
from orchestrator.api.ec2.snapshots import own_snapshot, own_snapshots, storage_tier
from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of
from orchestrator.model.filters import FilterTable
from orchestrator.model.snapshot import NO_VOLUME, Snapshot
from orchestrator.model.tags import tag_set

LONGEST_RESTORE_DAYS: Final = 180


@operation("ModifySnapshotTier", writes=True)
def modify_snapshot_tier(call: Call, *, snapshot_id: str, storage_tier: str | None = None) -> Answer:
    if storage_tier is None:
        raise missing_parameter("StorageTier")
    one_of("StorageTier", storage_tier, ("archive",))
    snapshot = own_snapshot(call, snapshot_id)
    if snapshot.state != "completed":
        raise EC2Error("IncorrectState", f"The snapshot '{snapshot_id}' is {snapshot.state}: completed can be archived")
    if snapshot.tier == "archive":
        raise EC2Error("IncorrectState", f"The snapshot '{snapshot_id}' is in the archive tier already")
    if images := images_of(call, snapshot, enabled_only=True):
        raise EC2Error(
            "InvalidSnapshot.InUse",
            f"The snapshot {snapshot_id} is in use by {', '.join(sorted(images))}: disable these images first",
        )
    call.tx.put(
        replace(
            snapshot,
            tier="archive",
            tier_changed_at=call.now,
            archived_at=call.now,
            restore_expires_at=None,
            shared_with=(),
            public=False,
            fast_restores=(),
        )
    )
    return {"SnapshotId": snapshot_id, "TieringStartTime": call.now}


@operation("RestoreSnapshotTier", writes=True)
def restore_snapshot_tier(
    call: Call, *, snapshot_id: str, temporary_restore_days: int | None = None, permanent_restore: bool | None = None
) -> Answer:
    """For good, or for some days; of one that is restored for some days, to something else."""
    if permanent_restore and temporary_restore_days is not None:
        raise EC2Error("InvalidParameterCombination", "TemporaryRestoreDays cannot be used with PermanentRestore")
    if not permanent_restore and temporary_restore_days is None:
        raise missing_parameter("TemporaryRestoreDays or PermanentRestore")
    if temporary_restore_days is not None and not 1 <= temporary_restore_days <= LONGEST_RESTORE_DAYS:
        raise invalid_parameter("TemporaryRestoreDays", temporary_restore_days, f"1 to {LONGEST_RESTORE_DAYS}")
    snapshot = own_snapshot(call, snapshot_id)
    if snapshot.tier != "archive":
        raise EC2Error("IncorrectState", f"The snapshot '{snapshot_id}' is not in the archive tier")
    if temporary_restore_days is None:
        call.tx.put(replace(snapshot, tier="standard", tier_changed_at=call.now, restore_expires_at=None))
    else:
        expires_at = call.now + timedelta(days=temporary_restore_days)
        call.tx.put(replace(snapshot, tier_changed_at=call.now, restore_expires_at=expires_at))
    answer: Answer = {
        "SnapshotId": snapshot_id,
        "RestoreStartTime": call.now,
        "IsPermanentRestore": temporary_restore_days is None,
    }
    if temporary_restore_days is not None:
        answer["RestoreDuration"] = temporary_restore_days
    return answer


@operation("DescribeSnapshotTierStatus", listing=True)
def describe_snapshot_tier_status(call: Call) -> Answer:
    found = choose(call, own_snapshots(call), tier_filters(call))
    return show_page(call, "SnapshotTierStatuses", found, lambda snapshot: _show(call, snapshot))


def tier_filters(call: Call) -> FilterTable:
    return {
        "snapshot-id": lambda snapshot: snapshot.id,
        "volume-id": lambda snapshot: snapshot.volume_id or NO_VOLUME,
        "last-tiering-operation": lambda snapshot: _last_operation(call, snapshot),
    }


def _last_operation(call: Call, snapshot: Snapshot) -> str | None:
    """None for one that never left the standard tier."""
    if snapshot.tier_changed_at is None:
        return None
    if snapshot.tier == "standard":
        return "permanent-restore-completed"
    return "archival-completed" if snapshot.is_archived(call.now) else "temporary-restore-completed"


def _show(call: Call, snapshot: Snapshot) -> Answer:
    shown: Answer = {
        "SnapshotId": snapshot.id,
        "VolumeId": snapshot.volume_id or NO_VOLUME,
        "Status": snapshot.state,
        "OwnerId": snapshot.account,
        "Tags": tag_set(snapshot.tags),
        "StorageTier": storage_tier(call, snapshot),
    }
    if operation_status := _last_operation(call, snapshot):
        shown["LastTieringStartTime"] = snapshot.tier_changed_at
        shown["LastTieringProgress"] = 100
        shown["LastTieringOperationStatus"] = operation_status
    if snapshot.archived_at is not None:
        shown["ArchivalCompleteTime"] = snapshot.archived_at
    if operation_status == "temporary-restore-completed":
        shown["RestoreExpiryTime"] = snapshot.restore_expires_at
    return shown

"""What is known of snapshots beyond EC2's answers: how consistent their content is, and what they are made of."""

from __future__ import annotations

from orchestrator.api.ec2.snapshots import chosen, sees_snapshot
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.snapshot import Snapshot


@operation("DescribeSnapshotDetails", service="orc")
def describe_snapshot_details(call: Call, *, snapshot_ids: list[str] | None = None) -> Answer:
    """Of those named, or of all that the caller owns."""
    if snapshot_ids:
        found = chosen({each.id: each for each in call.db.all(Snapshot) if sees_snapshot(call, each)}, snapshot_ids)
    else:
        found = [each for each in call.mine(Snapshot) if each.recycled_at is None]
    return {"Snapshots": [_show(call, each) for each in found]}


def _show(call: Call, snapshot: Snapshot) -> Answer:
    own = snapshot.account == call.account
    return {
        "SnapshotId": snapshot.id,
        "Consistency": snapshot.consistency,
        "LayerId": snapshot.layer_id if own else None,
        "SourceSnapshotId": snapshot.source_snapshot_id if own else None,
        "FastRestoreZones": list(snapshot.fast_restore_zones),
    }

"""DeleteSnapshot: what must not go stays, and what goes takes with it the layers that nobody else needs.

completed --a retention rule matches--> in the recycle bin
    +--none does--> (none): the reconciler of layers looks what is still needed
"""

from __future__ import annotations

from datetime import UTC

from orchestrator.api.ec2.recycle_bin import recycle
from orchestrator.api.ec2.snapshots import own_snapshot
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import Image
from orchestrator.model.layer import Layer
from orchestrator.model.snapshot import Snapshot


@operation("DeleteSnapshot", writes=True)
def delete_snapshot(call: Call, *, snapshot_id: str) -> Answer:
    remove_snapshot(call, own_snapshot(call, snapshot_id))
    return {}


def remove_snapshot(call: Call, snapshot: Snapshot) -> None:
    """Into the recycle bin where a rule says so, or away with what of its layers nobody else needs.

    InvalidSnapshot.InUse while an image is made of it, SnapshotLocked while a lock holds.
    """
    if images := images_of(call, snapshot):
        raise EC2Error(
            "InvalidSnapshot.InUse", f"The snapshot {snapshot.id} is currently in use by {', '.join(sorted(images))}"
        )
    if snapshot.lock is not None and snapshot.is_locked(call.now):
        until = snapshot.lock.expires_at.astimezone(UTC).isoformat(timespec="seconds")
        raise EC2Error("SnapshotLocked", f"The snapshot '{snapshot.id}' is locked until {until}")
    if snapshot.state == "completed" and recycle(call, snapshot):
        return
    call.tx.delete(snapshot)
    layer = call.tx.get(Layer, snapshot.layer_id)
    if layer is not None:
        call.tx.wake(layer)


def images_of(call: Call, snapshot: Snapshot, *, enabled_only: bool = False) -> list[str]:
    """Images of its owner's that need it: of every state but deregistered, and not in the recycle bin. What others have
    registered of it does not keep it from its owner, who cannot deregister that, and is not told of it."""
    idle = ("deregistered", "failed", "disabled") if enabled_only else ("deregistered",)
    images = call.db.all(Image, snapshot_ids=snapshot.id, account=snapshot.account)
    return [image.id for image in images if image.state not in idle and image.recycled_at is None]

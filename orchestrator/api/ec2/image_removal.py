"""Images that go: deregistered, with or without their snapshots, unless they are protected.

    available, disabled, failed --DeregisterImage--> (none)
             |                         +--a retention rule matches--> in the recycle bin
             +-- protected: refused until protection is off, and for a day more where it has a cooldown

Instances that were launched from an image go on without it. An AMI id that is mapped to a name then means the newest
image that still has the name.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from orchestrator.api.ec2.images import UNPROTECTED, own_image
from orchestrator.api.ec2.recycle_bin import recycle
from orchestrator.api.ec2.snapshot_removal import images_of, remove_snapshot
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import EC2Error
from orchestrator.model.snapshot import Snapshot

PROTECTED: Final = "enabled-without-cooldown"
PROTECTED_WITH_COOLDOWN: Final = "enabled-with-cooldown"
COOLDOWN: Final = timedelta(hours=24)


@operation("DeregisterImage", writes=True)
def deregister_image(call: Call, *, image_id: str, delete_associated_snapshots: bool = False) -> Answer:
    """Its snapshots stay unless asked for; those that another image needs stay even then."""
    image = own_image(call, image_id)
    if image.protected:
        raise EC2Error(
            "OperationNotPermitted", f"The image '{image_id}' has deregistration protection {image.protected}"
        )
    if image.protected_until is not None and image.protected_until > call.now:
        raise EC2Error(
            "OperationNotPermitted",
            f"The deregistration protection of '{image_id}' is disabled, and its cooldown ends at "
            f"{image.protected_until:%Y-%m-%dT%H:%M:%SZ}",
        )
    if not recycle(call, image):
        call.tx.delete(image)
        call.tx.wake(image)  # a kernel may go with it
    answer: Answer = {"Return": True}
    if delete_associated_snapshots:
        answer["DeleteSnapshotResults"] = [
            {"SnapshotId": snapshot_id, "ReturnCode": _delete_snapshot(call, snapshot_id)}
            for snapshot_id in dict.fromkeys(image.snapshot_ids)
        ]
    return answer


def _delete_snapshot(call: Call, snapshot_id: str) -> str:
    """What became of it, in EC2's words."""
    snapshot = call.tx.get(Snapshot, snapshot_id)
    if snapshot is None or snapshot.recycled_at is not None:
        return "success"
    if snapshot.account != call.account:
        return "missing-permissions"
    if images_of(call, snapshot):
        return "skipped"
    try:
        remove_snapshot(call, snapshot)
    except EC2Error:  # it is locked, say
        return "client-error"
    return "success"


# --- protection -------------------------------------------------------------------------------------------------------


@operation("EnableImageDeregistrationProtection", writes=True)
def enable_protection(call: Call, *, image_id: str, with_cooldown: bool = False) -> Answer:
    image = own_image(call, image_id)
    chosen = PROTECTED_WITH_COOLDOWN if with_cooldown else PROTECTED
    call.tx.put(replace(image, protected=chosen, protected_until=None))
    return {"Return": chosen}


@operation("DisableImageDeregistrationProtection", writes=True)
def disable_protection(call: Call, *, image_id: str) -> Answer:
    image = own_image(call, image_id)
    if image.protected:
        until = call.now + COOLDOWN if image.protected == PROTECTED_WITH_COOLDOWN else None
        call.tx.put(replace(image, protected="", protected_until=until))
    return {"Return": UNPROTECTED}

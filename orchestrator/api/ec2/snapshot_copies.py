"""CopySnapshot: within a region or from another one of this deployment, under the same key or another.

A copy with the source's key is of the source's own layer: no byte is read or written. Under another key it is a whole
new layer, which the reconciler fills. Either begins as pending. Source: "Copy a snapshot" in the EBS user guide.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from orchestrator.api.ec2.encryption import check_source, choose_key, new_layer
from orchestrator.api.ec2.snapshots import check_description, usable_snapshot
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter
from orchestrator.model.kms import Key
from orchestrator.model.layer import Layer
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.tags import tag_set, tags_at_creation

COMPLETION_STEP_MINUTES: Final = 15
LONGEST_COMPLETION_MINUTES: Final = 48 * 60


@operation("CopySnapshot", writes=True)
def copy_snapshot(
    call: Call,
    *,
    source_region: str,
    source_snapshot_id: str,
    description: str | None = None,
    destination_region: str | None = None,
    encrypted: bool | None = None,
    kms_key_id: str | None = None,
    presigned_url: str | None = None,
    tag_specifications: list[Answer] | None = None,
    completion_duration_minutes: int | None = None,
) -> Answer:
    """Into the region of the call. SDKs sign a URL for the source's region (`presigned_url`), which nobody needs here:
    one store knows all regions."""
    tags = tags_at_creation(tag_specifications, "snapshot")["snapshot"]
    if destination_region not in (None, call.region):
        raise invalid_parameter("DestinationRegion", destination_region, f"{call.region}, the region of the call")
    minutes = _check_minutes(completion_duration_minutes)
    source = usable_snapshot(within(call, source_region), source_snapshot_id)
    key = choose_key(call, encrypted=encrypted, named=kms_key_id, source_key_id=source.key_id)
    snapshot = copy_of_snapshot(
        call, source, key=key, description=check_description(description), tags=tags, completion_minutes=minutes
    )
    return {"SnapshotId": snapshot.id, "Tags": tag_set(snapshot.tags)}


def within(call: Call, region: str) -> Call:
    """The call as it would see another region of this deployment."""
    if region != call.region and region not in call.settings.regions and not call.settings.any_region:
        raise invalid_parameter("SourceRegion", region, f"one of {', '.join(sorted(call.settings.regions))}")
    return replace(call, region=region)


def copy_of_snapshot(
    call: Call,
    source: Snapshot,
    *,
    key: Key | None,
    description: str = "",
    tags: dict[str, str] | None = None,
    completion_minutes: int = 0,
) -> Snapshot:
    """A pending copy of the caller's own, encrypted by `key`; InvalidParameterCombination where that takes encryption
    away. Raises also as `check_source`."""
    if source.key_id and key is None:
        raise EC2Error("InvalidParameterCombination", "A copy of an encrypted snapshot is encrypted")
    check_source(call, source, key)
    layer = call.tx.get(Layer, source.layer_id)
    same = layer is not None and layer.key_id == (key.id if key else "")
    snapshot = call.tx.put(
        Snapshot(
            id=ids.mint("snap"),
            account=call.account,
            region=call.region,
            created=call.now,
            layer_id=source.layer_id if same else new_layer(call, size_gib=source.size_gib, source=source, key=key).id,
            size_gib=source.size_gib,
            state="pending",
            progress_percent=0,
            description=description,
            key_id=key.id if key else "",
            consistency=source.consistency,
            source_snapshot_id=source.id,
            completion_minutes=completion_minutes,
            tags=tags or {},
        )
    )
    call.tx.wake(snapshot)
    return snapshot


def _check_minutes(minutes: int | None) -> int:
    if minutes is None:
        return 0
    if minutes % COMPLETION_STEP_MINUTES or not COMPLETION_STEP_MINUTES <= minutes <= LONGEST_COMPLETION_MINUTES:
        raise invalid_parameter(
            "CompletionDurationMinutes",
            minutes,
            f"a multiple of {COMPLETION_STEP_MINUTES} up to {LONGEST_COMPLETION_MINUTES}",
        )
    return minutes

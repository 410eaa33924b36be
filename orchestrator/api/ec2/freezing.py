"""The moment of a snapshot: the volume's top layer is frozen, and the volume gets a new one on it.

All volumes of one call are frozen at one instant. Where a machine writes to them, `when` says how: `live`, with its
file systems `frozen` by the guest's agent if it has one, or `off`: the machine is shut down for it and started again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from orchestrator.api.operation import Call
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error
from orchestrator.model.instance import Instance
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume

MOST_PENDING = 5  # snapshots of one volume at once, as on EC2


def freeze(
    call: Call,
    volumes: Sequence[Volume],
    *,
    when: str,
    description: str = "",
    tags: dict[str, str] | None = None,
    volume_tags: bool = False,
) -> list[Snapshot]:
    """One pending snapshot for each volume, in order. With `volume_tags` each has its volume's tags as well."""
    for volume in volumes:
        if volume.state not in ("available", "in-use"):
            raise EC2Error(
                "IncorrectState", f"The volume '{volume.id}' is {volume.state}: available and in-use can be used"
            )
        pending = [s for s in call.tx.all(Snapshot, volume_id=volume.id) if s.state == "pending"]
        if len(pending) >= MOST_PENDING:
            raise EC2Error(
                "ConcurrentSnapshotLimitExceeded",
                f"The volume '{volume.id}' has {len(pending)} pending snapshots, the most that are allowed",
            )
    return [
        _freeze(call, volume, when, description, {**(volume.tags if volume_tags else {}), **(tags or {})})
        for volume in volumes
    ]


def _freeze(call: Call, volume: Volume, when: str, description: str, tags: dict[str, str]) -> Snapshot:
    tx = call.tx
    owned = {"account": call.account, "region": call.region, "created": call.now}
    frozen = tx.get(Layer, volume.layer_id)
    top = Layer(
        id=ids.mint("layer"),
        parent_id=volume.layer_id,
        # As large as what it lies on: a modification that is under way makes it grow, and tells the guest.
        size_bytes=frozen.size_bytes if frozen else volume.size_gib * GIB,
        key_id=frozen.key_id if frozen else "",
        data_key=frozen.data_key if frozen else "",
        moment=call.request_id,
        when=when,
        **owned,  # type: ignore[arg-type]
    )
    snapshot = Snapshot(
        id=ids.mint("snap"),
        layer_id=volume.layer_id,
        volume_id=volume.id,
        size_gib=volume.size_gib,
        state="pending",
        progress_percent=0,
        description=description,
        key_id=volume.key_id,
        tags=tags,
        **owned,  # type: ignore[arg-type]
    )
    tx.put(top)
    tx.wake(tx.put(replace(volume, layer_id=top.id)))
    instance = tx.get(Instance, volume.instance_id)
    if instance is not None:
        tx.wake(instance)
    snapshot = tx.put(snapshot)
    tx.wake(snapshot)
    return snapshot

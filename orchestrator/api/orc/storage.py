"""What lies on the disk: layers, what each is needed for, and how much of it.

A layer is needed by a volume, a snapshot, an image being made, an instance store disk, or a layer that lies on it. A
file that nothing needs is a leftover of a crash; collecting it gives it a row, and the reconciler of layers, which
deletes what nobody needs, does the rest. The disk is one for all accounts, so all of this is for the first one.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.api.accounts import check_first
from orchestrator.api.operation import Answer, Call, LayerUse, operation
from orchestrator.model import ids
from orchestrator.model.image import Image
from orchestrator.model.layer import Layer
from orchestrator.model.owned import is_needed, owned
from orchestrator.model.resource import EVERY_REGION, Rows
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume


@operation("DescribeStorage", service="orc")
def describe_storage(call: Call) -> Answer:
    """Layers with a row and files without one, each with what it is needed for and the bytes that it takes."""
    check_first(call)
    files = {use.layer_id: use for use in call.host.storage()}
    rows = {layer.id: layer for layer in call.db.all(Layer)}
    leftover = set(_leftovers(call.db, files))
    free, total = call.host.storage_room()
    shown = [
        _show(call.db, layer_id, rows.get(layer_id), files.get(layer_id), leftover=layer_id in leftover)
        for layer_id in sorted(rows.keys() | files.keys())
    ]
    return {"Layers": shown, "FreeBytes": free, "TotalBytes": total}


def _show(db: Rows, layer_id: str, row: Layer | None, use: LayerUse | None, *, leftover: bool) -> Answer:
    users = list(users_of(db, layer_id))
    # The file is what is so: a row's parent may still be what it was before a merge.
    parent = use.parent_id if use else row.parent_id if row else ""
    return {
        "LayerId": layer_id,
        "ParentId": parent or None,
        "VirtualBytes": use.size_bytes if use else row.size_bytes if row else 0,
        "OwnBytes": use.own_bytes if use else 0,
        "Encrypted": bool(row and row.key_id),
        "Created": row.created if row else None,
        "State": "leftover" if leftover else "absent" if use is None else "present",
        "UsedBy": users,
    }


def users_of(db: Rows, layer_id: str) -> Iterator[str]:
    """Ids of what refers to a layer itself, not by one that lies on it."""
    yield from sorted(volume.id for volume in db.all(Volume, layer_id=layer_id))
    for snapshot in sorted(db.all(Snapshot, layer_id=layer_id), key=lambda each: each.id):
        yield snapshot.id
        yield from sorted(image.id for image in db.all(Image, snapshot_ids=snapshot.id))


def _leftovers(db: Rows, files: dict[str, LayerUse]) -> Iterator[str]:
    """Files that nothing needs. A parent that only the header of a file knows is needed by that file."""
    by_right = owned(db).layers
    below = {use.parent_id for use in files.values() if use.layer_id in by_right}
    for layer_id in files:
        if layer_id not in by_right and layer_id not in below:
            yield layer_id


@operation("CollectStorage", service="orc", writes=True)
def collect_storage(call: Call, *, preview: bool = False) -> Answer:
    """Delete the files that nothing needs; with `Preview` only say which."""
    check_first(call)
    files = {use.layer_id: use for use in call.host.storage()}
    found = sorted(_leftovers(call.tx, files))
    # What has a row and is needed by nothing was woken when that came about; once more does no harm.
    idle = [layer for layer in call.tx.all(Layer) if not is_needed(call.tx, layer.id)]
    if not preview:
        for layer_id in found:
            if ids.is_well_formed("layer", layer_id) or layer_id.startswith("eph-"):
                row = Layer(
                    id=layer_id,
                    account=call.account,
                    region=EVERY_REGION,
                    created=call.now,
                    size_bytes=files[layer_id].size_bytes,
                )
                call.tx.wake(call.tx.put(row))
        for layer in idle:
            call.tx.wake(layer)
    collected = sorted({*found, *(layer.id for layer in idle)})
    return {
        "Collected": [
            {"LayerId": layer_id, "OwnBytes": files[layer_id].own_bytes if layer_id in files else 0}
            for layer_id in collected
        ]
    }


@operation("VerifyLayer", service="orc")
def verify_layer(call: Call, *, layer_id: str) -> Answer:
    """Read one layer's file whole: what is wrong with its structure, and with its content where that is known."""
    check_first(call)
    layer = call.db.get(Layer, ids.check("layer", layer_id))
    if layer is None:
        raise ids.missing("layer", [layer_id])
    return {"LayerId": layer.id, "Problems": call.host.verify_layer(layer.id)}

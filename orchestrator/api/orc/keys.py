"""What hangs on a key, and a key's end at once, for which KMS has no action: there it takes a week at least."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import Image
from orchestrator.model.kms import DESTROYED, Key, destroyed, find_named
from orchestrator.model.layer import Layer
from orchestrator.model.resource import Rows
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume


@dataclass(frozen=True, slots=True)
class _Use:
    """Ids, sorted, of what cannot be read without a key."""

    volumes: list[str]
    snapshots: list[str]
    images: list[str]
    instances: list[str]  # that have those volumes


def _use(rows: Rows, key_id: str) -> _Use:
    """Over all accounts and regions. What lies on an encrypted layer, or is yet to be copied from it, needs it too."""
    layers = {layer.id for layer in rows.all(Layer, key_id=key_id)}
    beyond = list(layers)
    while beyond:
        below = beyond.pop()
        for layer in (*rows.all(Layer, parent_id=below), *rows.all(Layer, copy_of=below)):
            if layer.id not in layers:
                layers.add(layer.id)
                beyond.append(layer.id)
    volumes = [volume for layer_id in layers for volume in rows.all(Volume, layer_id=layer_id)]
    snapshots = {snapshot.id for layer_id in layers for snapshot in rows.all(Snapshot, layer_id=layer_id)}
    images = [i.id for i in rows.all(Image) if snapshots & {device.snapshot_id for device in i.block_devices}]
    return _Use(
        volumes=sorted(volume.id for volume in volumes),
        snapshots=sorted(snapshots),
        images=sorted(images),
        instances=sorted({volume.instance_id for volume in volumes if volume.instance_id}),
    )


def _find(call: Call, named: str) -> Key:
    """Also one that has been destroyed, which KMS does not know any more."""
    key = find_named(call.db, call.account, call.region, named)
    if key is None:
        raise EC2Error("InvalidKmsKeyId.NotFound", f"The key '{named}' does not exist in {call.region}")
    return key


@operation("DescribeKeyUse", service="orc")
def describe_key_use(call: Call, *, key_id: str) -> Answer:
    key = _find(call, key_id)
    return {"KeyUse": _view(key, _use(call.db, key.id))}


@operation("ShredKey", service="orc", writes=True)
def shred_key(call: Call, *, key_id: str) -> Answer:
    """Destroy a key's material now. Machines that run go on until they stop: they have been given what they need."""
    key = _find(call, key_id)
    use = _use(call.tx, key.id)
    if key.state != DESTROYED:
        key = call.tx.put(destroyed(key))
    call.tx.scrub()
    return {"KeyUse": _view(key, use)}


def _view(key: Key, use: _Use) -> Answer:
    return {
        "KeyId": key.id,
        "KeyState": key.state,
        "Volumes": use.volumes,
        "Snapshots": use.snapshots,
        "Images": use.images,
        "Instances": use.instances,
    }

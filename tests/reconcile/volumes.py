"""What requests about volumes and snapshots write, and a plain look at what became of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.model.instance import Instance
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Modification, Volume, VolumeAttachment, VolumeShape
from orchestrator.reconcile.loop import Again, Done
from tests.reconcile.conftest import ACCOUNT, BASE_LAYER, Deployment


def running(deployment: Deployment, number: int = 1, **changes: Any) -> Instance:
    instance = deployment.launch(number, **changes)
    deployment.settle(instance.id)
    return deployment.instance(instance.id)


def root_of(deployment: Deployment, instance: Instance) -> Volume:
    return volume(deployment, "vol-" + instance.id[2:])


def volume(deployment: Deployment, volume_id: str) -> Volume:
    found = deployment.store.get(Volume, volume_id)
    assert found is not None
    return found


def owned(deployment: Deployment) -> dict[str, Any]:
    return {"account": ACCOUNT, "region": "us-east-1", "created": deployment.clock()}


def create(deployment: Deployment, name: str, *, parent: str = "", size_gib: int = 1, **more: Any) -> str:
    """CreateVolume; `more` are its layer's."""
    made = owned(deployment)
    layer = Layer(id=f"layer-{name}", parent_id=parent, size_bytes=size_gib * GIB, **(made | more))
    row = Volume(id=f"vol-{name}", zone="us-east-1a", size_gib=size_gib, layer_id=layer.id, key_id=layer.key_id, **made)
    with deployment.store.write() as tx:
        tx.put(layer)
        tx.wake(tx.put(row))
    return row.id


def free_volume(deployment: Deployment, name: str, **more: Any) -> str:
    """One that is available."""
    volume_id = create(deployment, name, **more)
    deployment.others()
    assert volume(deployment, volume_id).state == "available"
    return volume_id


def attach(deployment: Deployment, volume_id: str, instance: Instance, device: str = "/dev/sdf") -> None:
    attachment = VolumeAttachment(
        instance_id=instance.id, device=device, state="attaching", delete_on_termination=False
    )
    with deployment.store.write() as tx:
        tx.put(replace(volume(deployment, volume_id), attachment=attachment, state="in-use"))
        tx.wake(instance)


def attached(deployment: Deployment, name: str, instance: Instance, **more: Any) -> str:
    volume_id = free_volume(deployment, name, **more)
    attach(deployment, volume_id, instance)
    deployment.settle(instance.id)
    return volume_id


def detach(deployment: Deployment, volume_id: str, *, forced: bool = False) -> None:
    row = volume(deployment, volume_id)
    assert row.attachment is not None
    with deployment.store.write() as tx:
        tx.wake(tx.put(replace(row, attachment=replace(row.attachment, state="detaching", forced=forced))))


def delete(deployment: Deployment, volume_id: str) -> None:
    with deployment.store.write() as tx:
        tx.wake(tx.put(replace(volume(deployment, volume_id), state="deleting")))


def modify(deployment: Deployment, volume_id: str, **target: Any) -> None:
    row = volume(deployment, volume_id)
    changed = replace(row, **target)
    modification = Modification(
        state="modifying", original=row.shape, target=changed.shape, started_at=deployment.clock()
    )
    with deployment.store.write() as tx:
        tx.wake(tx.put(replace(changed, modification=modification)))


def shape(row: Volume) -> VolumeShape:
    return row.shape


_counter = iter(range(1 << 30))


def snapshot(deployment: Deployment, *volume_ids: str, when: str = "live") -> list[str]:
    """CreateSnapshots, as the API's `freeze` writes them: one moment."""
    moment = f"req-{next(_counter)}"
    made: list[str] = []
    with deployment.store.write() as tx:
        for volume_id in volume_ids:
            row = tx.get(Volume, volume_id)
            assert row is not None
            digits = f"{next(_counter):017x}"
            frozen = tx.get(Layer, row.layer_id)
            assert frozen is not None
            top = Layer(
                id=f"layer-f{digits}",
                parent_id=row.layer_id,
                size_bytes=frozen.size_bytes,
                key_id=frozen.key_id,
                data_key=frozen.data_key,
                moment=moment,
                when=when,
                **owned(deployment),
            )
            taken = Snapshot(
                id=f"snap-f{digits}",
                layer_id=row.layer_id,
                volume_id=row.id,
                size_gib=row.size_gib,
                state="pending",
                progress_percent=0,
                **owned(deployment),
            )
            tx.put(top)
            tx.wake(tx.put(replace(row, layer_id=top.id)))
            instance = tx.get(Instance, row.instance_id)
            if instance is not None:
                tx.wake(instance)
            tx.wake(tx.put(taken))
            made.append(taken.id)
    return made


def snap(deployment: Deployment, snapshot_id: str) -> Snapshot:
    found = deployment.store.get(Snapshot, snapshot_id)
    assert found is not None
    return found


def delete_snapshot(deployment: Deployment, snapshot_id: str) -> None:
    row = snap(deployment, snapshot_id)
    with deployment.store.write() as tx:
        tx.delete(row)
        layer = tx.get(Layer, row.layer_id)
        if layer is not None:
            tx.wake(layer)


def chain(deployment: Deployment, volume_id: str) -> list[str]:
    found: list[str] = []
    layer = deployment.store.get(Layer, volume(deployment, volume_id).layer_id)
    while layer is not None:
        found.append(layer.id)
        layer = deployment.store.get(Layer, layer.parent_id)
    return found


def disk_chain(deployment: Deployment, instance: Instance, volume_id: str) -> list[str]:
    """What the machine has, top first; empty when it has not that disk."""
    status = deployment.host.compute.observe(instance.id)
    assert status is not None
    return [layer for disk in status.disks if disk.serial == volume_id.replace("-", "") for layer in disk.chain]


def finish_flattening(deployment: Deployment) -> None:
    """All that is under way anywhere."""
    compute = deployment.host.compute
    for name in compute.names():
        status = compute.observe(name)
        for disk in status.disks if status else ():
            if disk.flattening is not None:
                compute.finish_flattening(name, disk.serial)


def settle_all(deployment: Deployment, *, limit: int = 60) -> None:
    """Everything that is woken has its turn, and instances until they want to be left alone."""
    for _ in range(limit):
        deployment.others()
        waits: list[float] = []
        for instance in deployment.store.all(Instance):
            result = deployment.step(instance.id)
            deployment.others()
            if not isinstance(result, Done) and not (isinstance(result, Again) and result.after_s >= 60):
                waits.append(result.after_s)
        if not waits:
            return
        deployment.clock.pass_(seconds=min(waits))
    raise AssertionError("it does not settle")


def check(deployment: Deployment) -> None:
    """What must always hold once everything has settled."""
    store, host = deployment.store, deployment.host
    unmade = {each.layer_id for each in store.all(Volume) if each.state == "error"}
    rows = {layer.id: layer for layer in store.all(Layer) if layer.id not in unmade}
    files = {name for name in host.storage.layers() if not name.startswith("eph-")} - unmade
    assert files == set(rows), f"files {sorted(files - set(rows))}, rows {sorted(set(rows) - files)}"
    for layer in rows.values():
        status = host.storage.observe_layer(layer.id)
        assert status is not None
        assert status.parent == layer.parent_id
        assert layer.moment == ""
        assert (layer.copy_of, layer.merging_onto) == ("", "")
        needed = (
            store.all(Volume, layer_id=layer.id)
            or store.all(Snapshot, layer_id=layer.id)
            or store.all(Layer, parent_id=layer.id)
        )
        assert needed or layer.id == BASE_LAYER, f"nothing needs {layer.id}"
    for taken in store.all(Snapshot):
        assert taken.state in ("completed", "error")
        assert (taken.layer_id in rows) is (taken.state == "completed")
        if taken.state == "completed" and taken.volume_id:
            assert host.storage.is_sealed(taken.layer_id), f"{taken.layer_id} can be written to"
    for each in store.all(Volume):
        if each.state == "error":
            continue
        top = rows[each.layer_id]
        assert not store.all(Layer, parent_id=top.id)
        assert not store.all(Snapshot, layer_id=top.id)
        assert each.state in ("available", "in-use")
        assert not host.storage.is_sealed(top.id), f"{top.id} of {each.id} is sealed"
        instance = store.get(Instance, each.instance_id)
        if instance is not None and instance.state == "running":
            assert disk_chain(deployment, instance, each.id) == chain(deployment, each.id)

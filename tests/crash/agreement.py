"""What must hold once everything has settled, whatever happened on the way: the store and the host agree.

`check` looks at each machine, disk, layer, router and upload that the host has and at each row that should have one;
`shape` says what there is without names and times, so that a run that was cut off can be compared with a whole one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from orchestrator.doctor import Leftovers
from orchestrator.host import Power
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.image import Build, ExportTask, Image, ImportTask
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.owned import instance_store, is_needed, owned
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NatGateway, NetworkInterface, Subnet, Vpc
from orchestrator.reconcile.disks import instance_store_serial, serial
from orchestrator.reconcile.plan import plan
from tests.crash.world import World

SETTLED: dict[type[Any], tuple[str, ...]] = {
    Instance: ("running", "stopped", "terminated"),
    Volume: ("available", "in-use", "error"),
    Snapshot: ("completed", "error"),
    Image: ("available", "failed"),
    Build: ("available", "failed"),
    ImportTask: ("completed", "deleted"),
    ExportTask: ("completed", "deleted"),
    NatGateway: ("available", "deleted", "failed"),
    NetworkInterface: ("available", "in-use"),
}


def check(world: World) -> None:
    problems = [*states(world), *machines(world), *layers(world), *routers(world), *references(world), *uploads(world)]
    problems += Leftovers(world.host, lambda: owned(world.store)).lines()
    assert not problems, f"{problems}\n{world.errors}"


def states(world: World) -> Iterator[str]:
    for kind, settled in SETTLED.items():
        for row in world.store.all(kind):
            if row.state not in settled:
                yield f"{row.id} is {row.state}"
    attachable: list[Volume | NetworkInterface] = [*world.store.all(Volume), *world.store.all(NetworkInterface)]
    for each in attachable:
        if each.attachment is not None and each.attachment.state != "attached":
            yield f"{each.id} is {each.attachment.state}"
    for volume in world.store.all(Volume):
        if volume.held_by:
            yield f"{volume.id} is held by {volume.held_by}"
        if volume.modification is not None and volume.modification.state not in ("completed", "failed"):
            yield f"the modification of {volume.id} is {volume.modification.state}"


def machines(world: World) -> Iterator[str]:
    store, compute = world.store, world.host.compute
    instances = {each.id: each for each in store.all(Instance)}
    for name in compute.names():
        if name not in instances or instances[name].state != "running":
            yield f"machine {name} is there"
    for instance in instances.values():
        if instance.state != "running":
            continue
        status = compute.observe(instance.id)
        if status is None or status.power is not Power.RUNNING:
            yield f"{instance.id} should run: {status}"
            continue
        ports = {each.id for each in store.all(NetworkInterface, instance_id=instance.id)}
        if set(status.ports) != ports:
            yield f"{instance.id} has the ports {status.ports}, its rows say {ports}"
        disks = {disk.serial: disk.chain for disk in status.disks}
        wanted = {serial(each.id): chain(world, each.layer_id) for each in store.all(Volume, instance_id=instance.id)}
        wanted |= {instance_store_serial(name): (name,) for name, _ in instance_store(instance)}
        if disks != wanted:
            yield f"{instance.id} has the disks {disks}, its rows say {wanted}"
        if instance.goal.reboots != instance.reboots:
            yield f"{instance.id} is still to reboot"


def layers(world: World) -> Iterator[str]:
    store, storage = world.store, world.host.storage
    never_made = {each.layer_id for each in store.all(Volume) if each.state == "error"}
    rows = {each.id: each for each in store.all(Layer) if each.id not in never_made}
    files = {name for name in storage.layers() if not name.startswith("eph-")} - never_made
    if files != rows.keys():
        yield f"layers without rows {sorted(files - rows.keys())}, rows without layers {sorted(rows.keys() - files)}"
        return
    for row in rows.values():
        status = storage.observe_layer(row.id)
        if status is None or status.parent != row.parent_id:
            yield f"{row.id} lies on {status and status.parent}, its row says {row.parent_id}"
        if row.moment or row.copy_of or row.merging_onto or row.merging_live:
            yield f"{row.id} is not done: {row}"
        if not is_needed(store, row.id):
            yield f"nothing needs {row.id}"
    for snapshot in store.all(Snapshot, state="completed"):
        if snapshot.layer_id not in rows:
            yield f"{snapshot.id} has no layer"
        elif not storage.is_sealed(snapshot.layer_id):
            yield f"{snapshot.id}: {snapshot.layer_id} can be written to"
    for volume in store.all(Volume):
        if volume.state == "error":
            continue
        if volume.layer_id not in rows:
            yield f"{volume.id} has no layer"
        elif storage.is_sealed(volume.layer_id):
            yield f"{volume.id}: {volume.layer_id} cannot be written to"
        elif (status := storage.observe_layer(volume.layer_id)) and status.size_bytes < volume.size_gib << 30:
            yield f"{volume.id} is of {volume.size_gib} GiB, its layer of {status.size_bytes} bytes"
    kernels = {"layer-" + image.kernel_id.partition("-")[2] for image in store.all(Image) if image.kernel_id}
    kernels |= {"layer-" + each.kernel_id.partition("-")[2] for each in store.all(Instance) if each.kernel_id}
    if set(storage.kernels()) != kernels:
        yield f"kernels {storage.kernels()}, of which {sorted(kernels)} are needed"


def routers(world: World) -> Iterator[str]:
    network = world.host.network
    planned = {vpc.id: plan(world.store, vpc.id) for vpc in world.store.all(Vpc)}
    wanted = {name: router for name, router in planned.items() if router is not None}
    if set(network.routers()) != wanted.keys():
        yield f"routers {network.routers()}, of which {sorted(wanted)} are wanted"
    for name, router in wanted.items():
        if name in network.applied and network.applied[name] != router:
            yield f"{name} is not as its rows say: {network.applied[name]} is not {router}"


def references(world: World) -> Iterator[str]:
    """Rows that name others that are gone."""
    store = world.store
    for address in store.all(ElasticIp):
        if address.interface_id and store.get(NetworkInterface, address.interface_id) is None:
            yield f"{address.id} is associated with {address.interface_id}, which is gone"
    attached: list[NetworkInterface | Volume] = [*store.all(NetworkInterface), *store.all(Volume)]
    for each in attached:
        if each.instance_id.startswith("i-") and store.get(Instance, each.instance_id) is None:
            yield f"{each.id} is attached to {each.instance_id}, which is gone"
    for interface in store.all(NetworkInterface):
        if store.get(Subnet, interface.subnet_id) is None:
            yield f"{interface.id} is in {interface.subnet_id}, which is gone"
    for image in store.all(Image, state="available"):
        for snapshot_id in image.snapshot_ids:
            if store.get(Snapshot, snapshot_id) is None:
                yield f"{image.id} is made of {snapshot_id}, which is gone"
    public = [each.public_ip for each in store.all(NetworkInterface) if each.public_ip]
    public += [each.public_ip for each in store.all(ElasticIp)]
    for address_, times in Counter(public).items():
        if times > 1:
            yield f"{address_} is there {times} times"
    for (subnet, address_), times in Counter(
        (each.subnet_id, each.private_ip) for each in store.all(NetworkInterface)
    ).items():
        if times > 1:
            yield f"{address_} of {subnet} is there {times} times"


def uploads(world: World) -> Iterator[str]:
    """Those that somebody has asked to import are gone; of others nobody knows whether they are still wanted."""
    asked = {each.upload_id for each in world.store.all(Build)}
    asked |= {each.upload_id for each in world.store.all(ImportTask)}
    if left := asked & world.host.storage._uploads.keys():
        yield f"uploads {sorted(left)} are left"


def chain(world: World, layer_id: str) -> tuple[str, ...]:
    found: list[str] = []
    layer = world.store.get(Layer, layer_id)
    while layer is not None:
        found.append(layer.id)
        layer = world.store.get(Layer, layer.parent_id)
    return tuple(found)


def shape(world: World) -> dict[str, Any]:
    """What there is: how many rows of each kind in which state, and what the host runs."""
    store, compute = world.store, world.host.compute
    rows: Counter[str] = Counter()
    for name, table in store._tables.items():
        for row in table.rows.values():
            attached = getattr(getattr(row, "attachment", None), "state", "")
            rows[f"{name} {getattr(row, 'state', '')} {attached}".strip()] += 1
    running = Counter(
        f"{len(status.ports)} ports, disks {sorted(len(disk.chain) for disk in status.disks)}"
        for name in compute.names()
        if (status := compute.observe(name)) is not None
    )
    return {"rows": dict(rows), "machines": dict(running), "layers": len(world.host.storage.layers())}

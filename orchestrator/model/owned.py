"""What a deployment has on its host by right. Whatever else bears its mark there is a leak."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.model import instance_type
from orchestrator.model.block_device import mapped_disks
from orchestrator.model.image import Build, ExportTask, ImportTask
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import Rows
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface

GB = 10**9


@dataclass(frozen=True, slots=True)
class Owned:
    """Names, each of the id that it serves."""

    machines: frozenset[str]
    layers: frozenset[str]
    routers: frozenset[str]
    ports: frozenset[str]


def owned(rows: Rows) -> Owned:
    alive = [i for i in rows.all(Instance) if i.state not in (State.TERMINATED, State.STOPPED)]
    present = {instance.id for instance in alive}
    building = {layer_of(build) for build in rows.all(Build) if build.state in ("pending", "running")}
    for task in rows.all(ImportTask):
        if task.state in ("active", "deleting"):
            building |= {task.layer_id, task.plain_layer_id}
    layers = {layer.id for layer in rows.all(Layer)} | {volume.layer_id for volume in rows.all(Volume)} | building
    layers |= {name for instance in alive for name, _ in instance_store(instance)}
    interfaces = rows.all(NetworkInterface)
    plugged = [interface for interface in interfaces if interface.instance_id in present]
    routers = {instance.vpc_id for instance in alive} | {interface.vpc_id for interface in plugged}
    # A NAT gateway is on the host while machines are there that may use it.
    gateways = [each for each in interfaces if each.interface_type == "nat_gateway" and each.vpc_id in routers]
    return Owned(
        machines=frozenset(present),
        layers=frozenset(layers),
        routers=frozenset(routers),
        ports=frozenset(interface.id for interface in (*plugged, *gateways)),
    )


def layer_of(build: Build) -> str:
    """The layer that a build writes. It follows from the build: one that was cut off starts in the same place."""
    return "layer-" + build.id.partition("-")[2]


def instance_store(instance: Instance) -> list[tuple[str, int]]:
    """The layers of the disks that come with an instance's type (those that need a mapping only with one), and their
    sizes in bytes. They have no rows: made when its machine starts, removed when it stops."""
    kind = instance_type.get(instance.instance_type)
    sizes = [disks.size_gb * GB for disks in kind.disks for _ in range(disks.count)]
    mapped = mapped_disks(kind) > 0
    digits = instance.id.partition("-")[2]
    return [
        (f"eph-{digits}-{number}", size_bytes)
        for number, size_bytes in enumerate(sizes)
        if not mapped or f"ephemeral{number}" in instance.ephemeral_devices
    ]


def is_needed(db: Rows, layer_id: str) -> bool:
    """Whether anything refers to a layer: then it stays."""
    return bool(is_used(db, layer_id) or db.all(Layer, parent_id=layer_id))


def is_used(db: Rows, layer_id: str) -> bool:
    """Whether something besides a child needs it."""
    return bool(
        db.all(Volume, layer_id=layer_id)
        or db.all(Snapshot, layer_id=layer_id)
        or db.all(Layer, copy_of=layer_id)
        or db.all(Layer, merging_onto=layer_id)
        or any(task.layer_id == layer_id for task in db.all(ImportTask, state="active"))
        or any(task.layer_id == layer_id for task in db.all(ExportTask, state="active"))
    )

"""What a deployment has on its host by right. Whatever else bears its mark there is a leak."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.model.image import Build, Layer, Volume
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import Rows
from orchestrator.model.vpc import NetworkInterface


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
    layers = {layer.id for layer in rows.all(Layer)} | {volume.layer_id for volume in rows.all(Volume)} | building
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

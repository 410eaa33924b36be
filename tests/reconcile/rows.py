"""Rows without a store, for what is pure: kept as the store keeps them in memory, indexes and all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

from orchestrator.model.instance import Instance
from orchestrator.model.kinds import KINDS
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import Resource
from orchestrator.model.vpc import (
    InterfaceAttachment,
    NetworkInterface,
    PeeringConnection,
    PeeringSide,
    SecurityGroup,
    Subnet,
    Vpc,
)
from orchestrator.store import Table

R = TypeVar("R", bound=Resource)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OWNED: dict[str, Any] = {"account": "111111111111", "region": "us-east-1", "created": NOW}


class Rows:
    def __init__(self, *resources: Resource) -> None:
        self._tables = {kind.KIND: Table(kind) for kind in KINDS}
        self.put(*resources)

    def put(self, *resources: Resource) -> None:
        for resource in resources:
            self._tables[resource.KIND].put(resource)

    def delete(self, resource: Resource) -> None:
        self._tables[resource.KIND].delete(resource.id)

    def get(self, kind: type[R], resource_id: str, /) -> R | None:
        return cast("R | None", self._tables[kind.KIND].rows.get(resource_id))

    def all(self, kind: type[R], /, **where: Any) -> Sequence[R]:
        return cast("list[R]", self._tables[kind.KIND].select(where))

    def everything(self) -> list[Resource]:
        return [row for table in self._tables.values() for row in table.rows.values()]


def vpc(name: str, cidr: str, **more: Any) -> Vpc:
    return Vpc(id=f"vpc-{name}", cidr=cidr, **(OWNED | more))


def subnet(name: str, vpc_id: str, cidr: str, **more: Any) -> Subnet:
    return Subnet(id=f"subnet-{name}", vpc_id=vpc_id, zone="us-east-1a", cidr=cidr, **(OWNED | more))


def group(name: str, vpc_id: str, *rules: Any) -> SecurityGroup:
    return SecurityGroup(id=f"sg-{name}", name=name, description=name, vpc_id=vpc_id, rules=rules, **OWNED)


def machine(
    name: str, where: Subnet, address: str, *groups: str, state: State = State.RUNNING, **more: Any
) -> tuple[Instance, NetworkInterface]:
    """An instance with its primary interface; `more` are fields of either."""
    own = ("instance_type", "host_name_type", "resource_name_a", "resource_name_aaaa")
    fields = {"instance_type": "m5.large", **{each: more.pop(each) for each in own if each in more}}
    instance = Instance(
        id=f"i-{name}",
        reservation_id="r-1",
        zone=where.zone,
        vpc_id=where.vpc_id,
        subnet_id=where.id,
        image_id="ami-1",
        state=state,
        **fields,
        **OWNED,
    )
    return instance, interface(name, where, address, *groups, instance_id=instance.id, **more)


def interface(
    name: str, where: Subnet, address: str, *groups: str, instance_id: str = "", device_index: int = 0, **more: Any
) -> NetworkInterface:
    attachment = None
    if instance_id:
        attachment = InterfaceAttachment(
            id=f"eni-attach-{name}", instance_id=instance_id, device_index=device_index, attached_at=NOW
        )
    mac = "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))
    return NetworkInterface(
        **{
            "id": f"eni-{name}",
            "vpc_id": where.vpc_id,
            "subnet_id": where.id,
            "zone": where.zone,
            "mac": mac,
            "private_ip": address,
            "groups": tuple(groups),
            "attachment": attachment,
            "state": "in-use" if attachment else "available",
            **OWNED,
            **more,
        }
    )


def peering(name: str, one: str, other: str, *, state: str = "active", allow_dns: bool = False) -> PeeringConnection:
    sides = (
        PeeringSide(account=OWNED["account"], region=OWNED["region"], vpc_id=vpc_id, allow_dns=allow_dns)
        for vpc_id in (one, other)
    )
    return PeeringConnection(id=f"pcx-{name}", requester=next(sides), accepter=next(sides), state=state, **OWNED)

"""Which instances a request's filters may let through, by the store's indexes: so that finding one of ten thousand does
not mean to look at each.

    filters without wildcards ──► rows that an index finds ──► the fewest of them ──► tested by all filters

Only who is looked at is decided here; `model/filters.py` decides who is let through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.filters import exact
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import Resource, Rows
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface

Found = Iterable[Resource | None]  # instances, or what hangs on them
_STATES: Final = frozenset(State)


def _by(kind: type[Resource], attribute: str) -> Callable[[Rows, str], Found]:
    return lambda rows, value: rows.all(kind, **{attribute: value})


def _by_id(kind: type[Resource]) -> Callable[[Rows, str], Found]:
    return lambda rows, value: [rows.get(kind, value)]


def _by_state(rows: Rows, value: str) -> Found:
    return rows.all(Instance, state=State(value)) if value in _STATES else ()


def _by_public_ip(rows: Rows, value: str) -> Found:
    elastic = rows.all(ElasticIp, public_ip=value)
    return [
        *rows.all(NetworkInterface, public_ip=value),
        *(rows.get(NetworkInterface, address.interface_id) for address in elastic),
    ]


_INDEXED: Final[Mapping[str, Callable[[Rows, str], Found]]] = {
    "block-device-mapping.volume-id": _by_id(Volume),
    "group-id": _by(NetworkInterface, "groups"),
    "image-id": _by(Instance, "image_id"),
    "instance-id": _by_id(Instance),
    "instance-state-name": _by_state,
    "instance.group-id": _by(NetworkInterface, "groups"),
    "ip-address": _by_public_ip,
    "kernel-id": _by(Instance, "kernel_id"),
    "network-interface.addresses.private-ip-address": _by(NetworkInterface, "addresses"),
    "network-interface.group-id": _by(NetworkInterface, "groups"),
    "network-interface.network-interface-id": _by_id(NetworkInterface),
    "network-interface.subnet-id": _by(NetworkInterface, "subnet_id"),
    "network-interface.vpc-id": _by(NetworkInterface, "vpc_id"),
    "private-ip-address": _by(NetworkInterface, "private_ip"),
    "reservation-id": _by(Instance, "reservation_id"),
    "subnet-id": _by(Instance, "subnet_id"),
    "vpc-id": _by(Instance, "vpc_id"),
}


def candidates(rows: Rows, filters: Sequence[Mapping[str, Any]]) -> list[Instance] | None:
    """Instances that the filters may let through, of all accounts, and none that they do let through is missing. None:
    no index helps."""
    fewest: list[Resource] | None = None
    for name, values in exact(filters).items():
        find = _INDEXED.get(name)
        if find is not None:
            # Others commit meanwhile: what moves to a value that was looked at before is found the second time.
            twice = (*values, *values) if len(values) > 1 else values
            found = [each for value in twice for each in find(rows, value) if each is not None]
            if len(values) > 1:
                found = list({each.id: each for each in found}.values())
            if fewest is None or len(found) < len(fewest):
                fewest = found
    if fewest is None:
        return None
    if fewest and isinstance(fewest[0], Instance):  # what one filter finds is of one kind, and each once
        return cast(list[Instance], fewest)
    instances = (_instance(rows, each) for each in fewest)
    return list({instance.id: instance for instance in instances if instance is not None}.values())


def _instance(rows: Rows, found: Resource) -> Instance | None:
    if isinstance(found, NetworkInterface | Volume):
        return rows.get(Instance, found.instance_id)
    return found if isinstance(found, Instance) else None

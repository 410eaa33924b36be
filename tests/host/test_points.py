"""Each call that changes the host is a named point."""

from __future__ import annotations

import inspect

import pytest

from orchestrator.host import Compute, Network, Storage
from orchestrator.host.memory import memory_host
from orchestrator.host.points import EFFECTS, LOOKS, at_points

ROOMS = {"compute": Compute, "storage": Storage, "network": Network}


@pytest.mark.parametrize("room", ROOMS)
def test_each_method_is_an_effect_or_a_look(room: str) -> None:
    methods = {name for name, _ in inspect.getmembers(ROOMS[room], inspect.isfunction) if not name.startswith("_")}
    assert EFFECTS[room] | LOOKS[room] == methods
    assert not EFFECTS[room] & LOOKS[room]


def test_what_is_around_decides() -> None:
    seen: list[str] = []

    def around(point: str, call: object) -> None:
        seen.append(point)

    host = memory_host()
    pointed = at_points(host, around)
    pointed.storage.create_layer("layer-1", size_bytes=1 << 20)
    assert seen == ["storage.create_layer"]
    assert pointed.storage.layers() == host.storage.layers()
    assert "layer-1" not in host.storage.layers()

"""`orc storage`: the tree, the drawing, and the figures that are made of both."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from orchestrator.cli.storage import drawing, size, trees, users_below

LAYERS: list[dict[str, Any]] = [
    {"LayerId": "layer-b", "ParentId": "layer-a", "OwnBytes": 2048, "VirtualBytes": 1 << 30, "State": "present",
     "UsedBy": ["vol-1"], "Created": "2026-01-02", "Encrypted": True},
    {"LayerId": "layer-a", "OwnBytes": 3 << 30, "VirtualBytes": 8 << 30, "State": "present",
     "UsedBy": ["snap-1", "ami-1"], "Created": "2026-01-01"},
    {"LayerId": "layer-c", "ParentId": "layer-a", "OwnBytes": 0, "VirtualBytes": 1 << 30, "State": "absent",
     "UsedBy": ["vol-2"], "Created": "2026-01-03"},
    {"LayerId": "layer-d", "OwnBytes": 512, "VirtualBytes": 512, "State": "leftover", "UsedBy": []},
]  # fmt: skip


def test_the_tree_grows_from_what_lies_on_nothing() -> None:
    console = Console(width=100, highlight=False)
    with console.capture() as told:
        for tree in trees(LAYERS):
            console.print(tree)
    assert told.get().splitlines() == [
        "layer-d  512 B of 512 B  leftover",
        "layer-a  3.0 GiB of 8.0 GiB  snap-1 ami-1",
        "├── layer-b  2.0 KiB of 1.0 GiB  encrypted  vol-1",
        "└── layer-c  0 B of 1.0 GiB  absent  vol-2",
    ]


def test_a_layer_serves_whoever_lies_on_it() -> None:
    assert users_below(LAYERS)["layer-a"] == {"snap-1", "vol-1", "vol-2"}
    assert users_below(LAYERS)["layer-b"] == {"vol-1"}


def test_the_drawing_has_an_arrow_for_each_reference() -> None:
    lines = list(drawing(LAYERS))
    assert (lines[0], lines[-1]) == ("digraph layers {", "}")
    arrows = [line.split(" [")[0].strip(" ;") for line in lines if "->" in line]
    assert sorted(arrows) == [
        '"layer-b" -> "layer-a"',
        '"layer-c" -> "layer-a"',
        '"snap-1" -> "layer-a"',
        '"vol-1" -> "layer-b"',
        '"vol-2" -> "layer-c"',
    ]


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (100 << 20, "100 MiB"), (5 << 40, "5.0 TiB")]
)
def test_a_size_is_told_in_its_largest_unit(count: int, shown: str) -> None:
    assert size(count) == shown

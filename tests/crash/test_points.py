"""The controller ends at each point of each lifecycle, before it and after it, and what settles afterwards is right.

First a lifecycle is run to its end, and the points that it passes are written down; then for each of them it is run
anew up to there. A run that differs from the first up to that point fails, so none of them is left out.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from orchestrator.host.points import EFFECTS
from tests.crash import networks, storage
from tests.crash.agreement import check, shape
from tests.crash.lifecycles import LIFECYCLES, Act, Lifecycle
from tests.crash.points import End, Points
from tests.crash.world import Frozen, World

assert networks
assert storage

PAIRS = int(os.environ.get("ORC_CRASH_PAIRS", "4"))
SEED = os.environ.get("ORC_CRASH_SEED", "1")
ONLY = os.environ.get("ORC_CRASH_ONLY", "")  # "reboot after 12", as a failure says: that run alone


class Runs:
    """Of one lifecycle, all from the same beginning."""

    def __init__(self, lifecycle: Lifecycle, directory: Path) -> None:
        self.lifecycle = lifecycle
        self.directory = directory
        self._begin = begin(lifecycle.prepare, directory)
        self._number = 0
        if lifecycle.name not in _whole:
            points, found = self._run()
            _whole[lifecycle.name] = points.passed, found
        self.passed, self._found = _whole[lifecycle.name]

    def end_at(self, *ends: End) -> None:
        """Run it anew with the controller ending there, and compare."""
        title = f"{self.lifecycle} {', '.join(str(end) for end in ends)}"
        if ONLY not in ("", title):
            return
        number = ends[0].number
        try:
            cut, found = self._run(*ends)
            assert cut.passed[: number + 1] == self.passed[: number + 1], "the run is another one"
            assert self.lifecycle.races or found == self._found
        except BaseException as error:
            error.add_note(f"ORC_CRASH_ONLY='{title}': the controller ended at {self.passed[number]}")
            raise

    def _run(self, *ends: End) -> tuple[Points, dict[str, Any]]:
        """The points that were passed, and what there is in the end."""
        self._number += 1
        points = Points(list(ends))
        retry_first = any(end.after for end in ends)
        world = World(
            self.directory / str(self._number),
            points,
            network_last=self.lifecycle.network_last,
            retry_first=retry_first,
        )
        world.thaw(self._begin)
        with world.alive():
            points.counting = False
            world.start()
            world.settle()
            points.counting = True
            self.lifecycle.run(world)
            world.settle()
            check(world)
            if not ends:
                self._nothing_is_left_to_do(world)
            return points, {**shape(world), **done_once(world)}

    def _nothing_is_left_to_do(self, world: World) -> None:
        """Who starts once more looks at what is there, and changes nothing."""
        passed, rows, found = len(world.points.passed), world.rows(), shape(world)
        world.restart()
        world.settle()
        again = world.points.passed[passed:]
        del world.points.passed[passed:]
        changes = [name for name in again if name.startswith(("commit ", "compute."))]
        assert not changes, f"a controller that is started again does {changes}"
        assert (world.rows(), shape(world)) == (rows, found)


def done_once(world: World) -> dict[str, int]:
    """What a guest, or whoever pays for it, would notice if it were done twice."""
    return {"starts": world.points.done.count("compute.start"), "switches": len(world.host.compute.switches)}


_frozen: dict[Act, Frozen] = {}


def begin(prepare: Act, directory: Path) -> Frozen:
    if prepare not in _frozen:
        world = World(directory / "begin", Points(counting=False))
        with world.alive():
            world.start()
            prepare(world)
            check(world)
            _frozen[prepare] = world.freeze()
    return _frozen[prepare]


_whole: dict[str, tuple[list[str], dict[str, Any]]] = {}  # what is passed and found when nothing ends


# Effects that no lifecycle has, and why.
NOT_PASSED = {
    "network.remove_leaks": "nothing but `orc doctor --leaks --fix` calls it",
}


@pytest.mark.parametrize("lifecycle", LIFECYCLES, ids=str)
def test_the_controller_ends_at_each_point(lifecycle: Lifecycle, tmp_path: Path) -> None:
    runs = Runs(lifecycle, tmp_path)
    for number in range(len(runs.passed)):
        for after in (False, True):
            runs.end_at(End(number, after))


@pytest.mark.parametrize("lifecycle", LIFECYCLES, ids=str)
def test_the_next_controller_ends_as_well(lifecycle: Lifecycle, tmp_path: Path) -> None:
    """Soon after it has come up, while it mends what the first left."""
    runs = Runs(lifecycle, tmp_path)
    chosen = random.Random(f"{SEED} {lifecycle}")
    for _ in range(PAIRS):
        first = End(chosen.randrange(len(runs.passed)), chosen.random() < 0.5)
        second = End(first.number + chosen.randint(1, 8), chosen.random() < 0.5)
        runs.end_at(first, second)


def test_each_effect_is_passed_by_a_lifecycle(tmp_path: Path) -> None:
    reached = {name for each in LIFECYCLES for name in Runs(each, tmp_path / each.name).passed}
    effects = {f"{room}.{name}" for room, names in EFFECTS.items() for name in names}
    assert effects - reached == NOT_PASSED.keys()

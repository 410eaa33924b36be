"""Each effect on the host fails, hangs, or succeeds and reports failure, in each lifecycle that passes it: it settles.

What is asked for is done in the end, or, where it cannot be, refused cleanly: the row says so, and nothing is left of
it. The lifecycles are those at whose points the controller is ended (`tests/crash/`), and so is the agreement of store
and host that must hold. Hours pass on the test's clock.

A few lifecycles for each effect by default; ORC_FAULTS_ALL=1 takes all, and each time that an effect is passed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.host import CapacityError, HostError
from orchestrator.host.points import EFFECTS
from orchestrator.model.errors import EC2Error
from tests.crash import networks, storage
from tests.crash.agreement import check
from tests.crash.lifecycles import LIFECYCLES, Act, Lifecycle
from tests.crash.points import Points
from tests.crash.world import FOR_EVER, Frozen, World

assert networks
assert storage

ALL = bool(os.environ.get("ORC_FAULTS_ALL"))
FEW = 2  # lifecycles for each effect
DEADLINE_S = 60.0  # of a call that hangs: orchestrator/host/connection.py
CAUSE = "injected"  # a word of each error, to be found again where users look

EVERY_EFFECT = sorted(f"{room}.{name}" for room, names in EFFECTS.items() for name in names)


@dataclass(frozen=True, slots=True)
class Fault:
    """Of a call: `times` in a row it does not return what it should. `done`: it is done all the same."""

    name: str
    times: int = 1
    done: bool = False
    hangs: bool = False
    error: Callable[[str], HostError] = HostError
    lasting: bool = False  # trying again is of no use, so what was asked for may be refused

    def __str__(self) -> str:
        return self.name


def never(message: str) -> HostError:
    return HostError(message, retryable=False)


FAULTS = [
    Fault("fails once"),
    Fault("fails for a while", times=5),
    Fault("hangs, then fails", hangs=True),
    Fault("hangs, then is done late", hangs=True, done=True),
    Fault("is done, and reports failure", done=True),
    Fault("is done, and reports failure for a while", times=3, done=True),
    Fault("finds no room", error=CapacityError, lasting=True),
    Fault("cannot be done", error=never, lasting=True),
    Fault("cannot be done for an hour", times=10_000, lasting=True),
]


class Faults(Points):
    """Meets the calls of one effect, from its `at`th on, with a fault."""

    def __init__(self, effect: str = "", fault: Fault | None = None, at: int = 0) -> None:
        super().__init__()
        self.effect, self.fault, self.at = effect, fault, at
        self.injected = 0
        self.pass_: Callable[..., None] = lambda **duration: None
        self._seen = 0

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        if self.counting and name == self.effect and self.fault is not None:
            self._seen += 1
            if self._seen > self.at and self.injected < self.fault.times:
                self.injected += 1
                return self._meet(name, call, self.fault)
        return super().around(name, call)

    def _meet(self, name: str, call: Callable[[], Any], fault: Fault) -> Any:
        if fault.hangs:
            self.pass_(seconds=DEADLINE_S)
        if fault.done:
            answer = super().around(name, call)
            if isinstance(answer, socket.socket):
                answer.close()
        raise fault.error(f"{name}: {CAUSE}")


class Client(World):
    """Sends an upload again that was not taken, and waits for networks too that could not be made at once."""

    def settle(self) -> None:
        super().settle()
        for _ in range(10):
            if self.process is None or not any(kind in FOR_EVER for kind, _ in self.process._failures):
                return
            self.passes(seconds=3)
            super().settle()

    def upload(self, content: bytes = bytes(4096)) -> str:
        while True:
            try:
                return super().upload(content)
            except HostError as error:
                if not error.retryable:
                    raise


_frozen: dict[Act, Frozen] = {}
_passed: dict[str, list[str]] = {}


def begin(prepare: Act, directory: Path) -> Frozen:
    if prepare not in _frozen:
        world = World(directory, Points(counting=False))
        with world.alive():
            world.start()
            prepare(world)
            _frozen[prepare] = world.freeze()
    return _frozen[prepare]


@contextmanager
def began(lifecycle: Lifecycle, directory: Path, points: Faults) -> Iterator[World]:
    frozen = begin(lifecycle.prepare, directory / "begin")
    world = Client(directory / f"{lifecycle}", points, network_last=lifecycle.network_last)
    points.pass_ = world.clock.pass_
    world.thaw(frozen)
    with world.alive():
        points.counting = False
        world.start()
        world.settle()
        points.counting = True
        yield world


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[Lifecycle, int]]:
    """By effect: the lifecycles that pass it without a fault, and how often, the shortest first."""
    found: dict[str, list[tuple[int, str, Lifecycle, int]]] = {effect: [] for effect in EVERY_EFFECT}
    for lifecycle in LIFECYCLES:
        points = Faults()
        with began(lifecycle, tmp_path_factory.mktemp("dry"), points) as world, suppress(AssertionError):
            lifecycle.run(world)  # its own test says so if it is not as it should be
            world.settle()
        for effect in set(points.passed) & set(EVERY_EFFECT):
            found[effect].append((len(points.passed), lifecycle.name, lifecycle, points.passed.count(effect)))
    return {effect: {each[2]: each[3] for each in sorted(those)} for effect, those in found.items()}


# Nothing but `orc doctor --fix` calls these, by hand and again when it fails.
BY_HAND = {"network.remove_leaks"}


def test_every_effect_is_passed(passed: dict[str, dict[Lifecycle, int]]) -> None:
    assert {effect for effect, lifecycles in passed.items() if not lifecycles} <= BY_HAND


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("effect", sorted(set(EVERY_EFFECT) - BY_HAND))
def test_what_settles_is_right(
    effect: str, fault: Fault, passed: dict[str, dict[Lifecycle, int]], tmp_path: Path
) -> None:
    lifecycles = passed[effect]
    for lifecycle in list(lifecycles)[: None if ALL else FEW]:
        for at in range(lifecycles[lifecycle] if ALL else 1):
            try:
                go(lifecycle, Faults(effect, fault, at), tmp_path / str(at))
            except BaseException as error:
                error.add_note(f"{lifecycle}: {effect} (number {at}) {fault}")
                raise


def go(lifecycle: Lifecycle, points: Faults, directory: Path) -> None:
    fault = points.fault
    assert fault is not None
    with began(lifecycle, directory, points) as world:
        why: BaseException | None = None
        try:
            lifecycle.run(world)
        except (AssertionError, EC2Error, HostError, ValueError, LookupError) as error:
            why = error
        let_go(world)
        for _ in range(6):  # whoever has given up a while ago looks again
            with suppress(AssertionError):  # it cannot settle while the fault lasts
                world.passes(minutes=10)
        points.counting = False  # the host is well again
        world.settle()
        world.passes(hours=1)
        world.settle()
        assert points.injected, "the fault was never met"
        check(world)
        if why is not None and not fault.lasting and not is_refused(world):
            # A lifecycle waits for a certain time; what took longer has come to rest since, and was not given up.
            if fault.times == 1 and not fault.hangs and "does not settle" not in str(why):
                raise why
            assert not given_up(world), why


def let_go(world: World) -> None:
    """Guests that a lifecycle has hold on to devices do so no more, and a disk that it has filled has room."""
    world.waits = False
    world.host.storage._free_bytes = 1 << 60
    compute = world.host.compute
    compute._grasping.clear()
    compute._slow.clear()
    for name, known in compute._machines.items():
        for device in list(known.leaving):
            compute.guest_lets_go(name, device)
        for serial in list(known.flattening):
            compute.finish_flattening(name, serial)


def given_up(world: World) -> list[str]:
    rows = [row for table in world.store._tables.values() for row in table.rows.values()]
    reasons = [getattr(row, "reason", None) for row in rows]
    failed = [row.id for row in rows if getattr(row, "state", "") in ("error", "failed")]
    return failed + [reason.message for reason in reasons if reason is not None and reason.code.startswith("Server.")]


def is_refused(world: World) -> bool:
    """Whether a row tells what could not be done, and of which call it was."""
    texts = [str(row) for table in world.store._tables.values() for row in table.rows.values()]
    return any(CAUSE in text for text in texts)

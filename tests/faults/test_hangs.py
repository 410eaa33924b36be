"""A call to the host that hangs holds one worker of the loop, and no other resource: real threads, in real time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.host import HostError
from orchestrator.host.points import at_points
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import Vpc
from orchestrator.reconcile.loop import Loop
from tests.conftest import Clock
from tests.reconcile import volumes
from tests.reconcile.conftest import Deployment

WORKERS = 8
DEADLINE_S = 20.0


class Hanging:
    """Calls about these machines hang until `release` is set, and then fail, or are done late."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.release = threading.Event()
        self.late = False
        self.held = 0

    def around(self, point: str, call: Callable[[], Any]) -> Any:
        arguments = getattr(call, "args", ())
        about = str(getattr(arguments[0], "name", arguments[0])) if arguments else ""
        if about in self.names and not self.release.is_set():
            self.held += 1
            assert self.release.wait(DEADLINE_S)
            if self.late:
                call()
            raise HostError(f"{point}: no answer in {DEADLINE_S:g} s")
        return call()


class Running:
    """A deployment whose loop runs in threads."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.hanging = Hanging()
        self.deployment = Deployment(path, clock)
        memory = self.memory = self.deployment.host
        self.deployment.host = at_points(memory, self.hanging.around)  # type: ignore[assignment]
        self.deployment.restart()
        steps = {
            Instance.KIND: self.deployment.step,
            Vpc.KIND: self.deployment.networks.step,
            Volume.KIND: self.deployment.volumes.step,
            Layer.KIND: self.deployment.layers.step,
        }
        self.loop = Loop(self.deployment.store, steps, workers=WORKERS)
        memory.compute.watch(lambda name: self.loop.wake(Instance.KIND, name))
        self.loop.start()

    def launch(self, *numbers: int) -> list[str]:
        made = [self.deployment.launch(number) for number in numbers]
        self.loop.wake_all((Instance.KIND, each.id) for each in made)
        return [each.id for each in made]

    def until(self, ids: list[str], state: State) -> None:
        eventually(lambda: all(self.deployment.instance(each).state is state for each in ids))


def eventually(is_so: Callable[[], bool]) -> None:
    ends, pause = time.monotonic() + DEADLINE_S, threading.Event()
    while not is_so():
        assert time.monotonic() < ends, "not in time"
        pause.wait(0.01)


@pytest.fixture
def running(tmp_path: Path, clock: Clock) -> Iterator[Running]:
    made = Running(tmp_path / "state.db", clock)
    try:
        yield made
    finally:
        made.hanging.release.set()
        made.loop.stop()
        made.deployment.store.close()


@pytest.mark.parametrize("late", [False, True], ids=["then fails", "then is done late"])
def test_others_go_on(running: Running, late: bool) -> None:
    running.hanging.late = late
    stuck = [f"i-{number:017x}" for number in range(1, WORKERS)]
    running.hanging.names = set(stuck)
    running.launch(*range(1, WORKERS))
    eventually(lambda: running.hanging.held == len(stuck))
    others = running.launch(20, 21, 22)
    running.until(others, State.RUNNING)
    deployment = running.deployment
    made = volumes.create(deployment, "0" * 16 + "9")
    eventually(lambda: volumes.volume(deployment, made).state == "available")
    deployment.ask(others[0], State.STOPPED, State.STOPPING)
    running.loop.wake(Instance.KIND, others[0])
    running.until(others[:1], State.STOPPED)
    assert {deployment.instance(each).state for each in stuck} == {State.PENDING}

    running.hanging.release.set()
    running.until(stuck, State.RUNNING)
    assert [deployment.instance(each).boots for each in stuck] == [1] * len(stuck)
    assert sorted(deployment.host.compute.names()) == sorted([*stuck, *others[1:]])


def test_a_machine_that_does_not_answer_is_terminated_all_the_same(running: Running) -> None:
    """It cannot be looked at any more, but its plug can be pulled."""
    [made] = running.launch(1)
    running.until([made], State.RUNNING)
    deployment = running.deployment

    def fault(method: str, name: str) -> None:
        if name == made and method != "remove":
            raise HostError(f"{method}: QEMU has not answered an earlier call yet")

    running.memory.compute.fault = fault
    deployment.ask(made, State.TERMINATED, State.SHUTTING_DOWN)
    running.loop.wake(Instance.KIND, made)
    running.until([made], State.TERMINATED)
    assert deployment.host.compute.names() == []


def test_a_machine_that_does_not_answer_is_stopped_by_force_at_once_and_otherwise_in_time(
    running: Running, clock: Clock
) -> None:
    ids = running.launch(1, 2)
    running.until(ids, State.RUNNING)
    deployment = running.deployment

    def fault(method: str, name: str) -> None:
        if method != "remove":
            raise HostError(f"{method}: QEMU has not answered an earlier call yet")

    running.memory.compute.fault = fault
    deployment.ask(ids[0], State.STOPPED, State.STOPPING, forced=True)
    deployment.ask(ids[1], State.STOPPED, State.STOPPING)
    running.loop.wake_all((Instance.KIND, each) for each in ids)
    running.until(ids[:1], State.STOPPED)
    assert deployment.instance(ids[1]).state is State.STOPPING
    clock.pass_(minutes=3)
    running.until(ids[1:], State.STOPPED)

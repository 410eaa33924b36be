"""Wake-ups, leases, retries."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.host import HostError
from orchestrator.model.account import Account
from orchestrator.reconcile.loop import FEW, Again, Done, Loop, Next
from orchestrator.store import Store, StoreUnavailable
from tests.conftest import Clock

DEADLINE_S = 5.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.002)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state.db", durable=False)
    yield opened
    opened.close()


def run(store: Store, step: Callable[[str], Next], workers: int = 4) -> Loop:
    loop = Loop(store, {Account.KIND: step}, workers=workers)
    loop.start()
    return loop


def wake(store: Store, clock: Clock, name: str = "1") -> None:
    with store.write() as tx:
        tx.wake(Account(id=name, created=clock()))


def test_a_commit_wakes_and_done_forgets(store: Store, clock: Clock) -> None:
    seen: list[str] = []
    loop = run(store, lambda name: seen.append(name) or Done())
    wake(store, clock)
    until(lambda: seen == ["1"] and store.pending_wakes() == [])
    loop.stop()


def test_what_was_woken_before_the_start_is_looked_at(store: Store, clock: Clock) -> None:
    wake(store, clock)
    seen: list[str] = []
    loop = run(store, lambda name: seen.append(name) or Done())
    until(lambda: seen == ["1"])
    loop.stop()


def test_one_resource_is_never_worked_on_twice_at_once_and_no_wake_up_is_lost(store: Store, clock: Clock) -> None:
    inside = 0
    most = 0
    seen = 0
    gate = threading.Event()
    lock = threading.Lock()

    def step(name: str) -> Next:
        nonlocal inside, most, seen
        with lock:
            inside += 1
            most = max(most, inside)
        gate.wait(DEADLINE_S)
        with lock:
            inside -= 1
            seen += 1
        return Done()

    loop = run(store, step)
    wake(store, clock)
    until(lambda: inside == 1)
    for _ in range(10):
        wake(store, clock)
    gate.set()
    until(lambda: seen == 2 and loop.idle() and store.pending_wakes() == [])
    assert most == 1
    loop.stop()


def test_failures_are_tried_again_and_keep_the_wake_up(store: Store, clock: Clock) -> None:
    attempts: list[float] = []

    def step(name: str) -> Next:
        attempts.append(time.monotonic())
        if len(attempts) < 3:
            assert store.pending_wakes()
            raise HostError("not yet")
        return Done()

    loop = run(store, step)
    wake(store, clock)
    until(lambda: len(attempts) == 3 and store.pending_wakes() == [])
    assert attempts[1] - attempts[0] >= 0.2
    assert attempts[2] - attempts[1] >= 0.4
    loop.stop()


def test_what_fails_for_days_is_tried_for_as_long(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.reconcile.loop.LONGEST_DELAY_S", 0.0)
    tries = 0

    def step(name: str) -> Next:
        nonlocal tries
        tries += 1
        if tries <= 1100:  # 2 ** 1024 is no float
            raise HostError("not yet")
        return Done()

    loop = run(store, step, workers=1)
    wake(store, clock)
    until(lambda: store.pending_wakes() == [])
    assert tries == 1101
    loop.stop()


@pytest.mark.parametrize(
    ("error", "level"),
    [(HostError("away"), "WARNING"), (StoreUnavailable("full"), "WARNING"), (KeyError("x"), "ERROR")],
)
def test_what_passes_is_a_warning_and_what_is_our_fault_has_a_traceback(
    store: Store, clock: Clock, caplog: pytest.LogCaptureFixture, error: Exception, level: str
) -> None:
    failed = threading.Event()

    def step(name: str) -> Next:
        if failed.is_set():
            return Done()
        failed.set()
        raise error

    loop = run(store, step)
    wake(store, clock)
    until(lambda: failed.is_set() and store.pending_wakes() == [])
    loop.stop()
    [record] = [each for each in caplog.records if each.name == "orchestrator.reconcile.loop"]
    assert (record.levelname, bool(record.exc_info)) == (level, level == "ERROR")


def test_a_wake_up_comes_before_a_timer(store: Store, clock: Clock) -> None:
    seen: list[float] = []
    loop = run(store, lambda name: seen.append(time.monotonic()) or Again(3600))
    wake(store, clock)
    until(lambda: len(seen) == 1)
    wake(store, clock)
    until(lambda: len(seen) == 2)
    loop.stop()


def test_a_timer_set_from_outside_waits_and_gives_way_to_a_wake_up(store: Store, clock: Clock) -> None:
    seen: list[str] = []
    loop = run(store, lambda name: seen.append(name) or Done())
    loop.wake(Account.KIND, "later", after_s=3600)
    loop.wake(Account.KIND, "soon", after_s=0.01)
    loop.wake("nobody's", "x", after_s=0.01)
    until(lambda: seen == ["soon"])
    loop.wake(Account.KIND, "later")
    until(lambda: seen == ["soon", "later"])
    loop.stop()


def test_timers_that_were_overtaken_are_not_kept(store: Store) -> None:
    """What is looked at again and again before its long timer is due leaves one entry, and no timer is lost."""
    seen: Counter[str] = Counter()

    def step(name: str) -> Next:
        seen[name] += 1
        return Again(3600)

    loop = run(store, step, workers=1)
    loop.wake(Account.KIND, "another", after_s=1800)
    for number in range(1, 501):
        loop.wake(Account.KIND, "often")
        until(lambda wanted=number: seen["often"] == wanted)
    until(loop.idle)
    assert len(loop._heap) < 100
    assert {key[1] for _, _, key in loop._heap} == {"often", "another"}
    loop.stop()


def test_many_resources_at_once(store: Store, clock: Clock) -> None:
    seen: set[str] = set()
    loop = run(store, lambda name: seen.add(name) or Done())
    with store.write() as tx:
        for number in range(1000):
            tx.wake(Account(id=str(number), created=clock()))
    until(lambda: len(seen) == 1000 and store.pending_wakes() == [])
    loop.stop()


def test_stopping_lets_the_step_in_flight_finish(store: Store, clock: Clock) -> None:
    began, finish, finished = threading.Event(), threading.Event(), threading.Event()

    def step(name: str) -> Next:
        began.set()
        finish.wait(DEADLINE_S)
        finished.set()
        return Done()

    loop = run(store, step, workers=1)
    wake(store, clock)
    wake(store, clock, "2")
    assert began.wait(DEADLINE_S)
    stopper = threading.Thread(target=loop.stop)
    stopper.start()
    finish.set()
    stopper.join(DEADLINE_S)
    assert finished.is_set()
    assert [wake_[1] for wake_ in store.pending_wakes()] == ["2"]


def test_a_timer_is_kept_by_whoever_is_free(store: Store, clock: Clock) -> None:
    """The worker that waited for it has taken other work in the meantime, which takes long."""
    gate, seen = threading.Event(), []

    def step(name: str) -> Next:
        seen.append(name)
        if name == "long":
            gate.wait(DEADLINE_S)
        return Done()

    loop = run(store, step, workers=2)
    loop.wake(Account.KIND, "timer", after_s=0.3)
    loop.wake(Account.KIND, "long")
    until(lambda: seen == ["long", "timer"])
    gate.set()
    loop.stop()


def test_what_is_woken_together_is_worked_on_together(store: Store) -> None:
    """Each wake-up rouses as many workers as it has work for."""
    together = threading.Barrier(4)

    def step(name: str) -> Next:
        together.wait(DEADLINE_S)
        return Done()

    loop = run(store, step, workers=4)
    loop.wake_all((Account.KIND, str(number)) for number in range(4))
    until(lambda: not together.broken and together.n_waiting == 0 and loop.idle())
    loop.stop()
    assert not together.broken


@pytest.mark.parametrize(
    ("calm", "turn_s", "at_once"), [(False, 60.0, FEW), (True, 60.0, FEW + 1), (False, 0.01, FEW + 1)]
)
def test_few_steps_run_at_once_while_callers_wait_and_none_waits_for_ever(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, calm: bool, turn_s: float, at_once: int
) -> None:
    monkeypatch.setattr("orchestrator.reconcile.loop.TURN_S", turn_s)
    began: list[str] = []
    go_on = threading.Event()

    def step(name: str) -> Next:
        began.append(name)
        go_on.wait(DEADLINE_S)
        return Done()

    loop = Loop(store, {Account.KIND: step}, workers=FEW + 1, calm=lambda: calm)
    loop.start()
    for number in range(FEW + 1):
        wake(store, clock, str(number))
    until(lambda: loop.busy_count() == FEW + 1 and len(began) >= at_once)
    assert len(began) == at_once
    go_on.set()
    until(lambda: store.pending_wakes() == [])
    assert len(began) == FEW + 1
    loop.stop()


def test_callers_go_first_until_it_is_calm(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.reconcile.loop.GIVE_WAY_S", 60.0)
    answering, began = threading.Event(), threading.Event()
    asked: list[bool] = []

    def calm() -> bool:
        asked.append(began.is_set())
        return not answering.is_set()

    answering.set()
    loop = Loop(store, {Account.KIND: lambda name: began.set() or Done()}, workers=1, calm=calm)
    loop.start()
    wake(store, clock)
    until(lambda: len(asked) > 3)
    assert not any(asked)
    answering.clear()
    until(began.is_set)
    loop.stop()

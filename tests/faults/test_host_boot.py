"""The host boots: what ran runs again, or is stopped and says why, as `instances.after_host_boot` has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.controller import has_booted
from orchestrator.model.lifecycle import State
from orchestrator.reconcile.instance import BY_HOST
from tests.conftest import Clock
from tests.reconcile import volumes
from tests.reconcile.conftest import Deployment


@pytest.fixture
def deployment(tmp_path: Path, clock: Clock) -> Iterator[Deployment]:
    made = Deployment(tmp_path / "state.db", clock)
    yield made
    made.store.close()


def test_a_first_start_is_no_boot(deployment: Deployment) -> None:
    store = deployment.store
    assert not has_booted(store, "one")
    store.set_meta("boot", "one")
    assert not has_booted(store, "one")
    assert has_booted(store, "two")


def test_what_ran_is_stopped_once_and_says_why(deployment: Deployment) -> None:
    ran, off, coming = (deployment.launch(number) for number in (1, 2, 3))
    for each in (ran, off):
        deployment.settle(each.id)
    deployment.ask(off.id, State.STOPPED, State.STOPPING)
    deployment.settle(off.id)
    before = deployment.instance(off.id)

    deployment.host.lose_host()
    deployment.restart()
    deployment.instances.stop_all()
    assert deployment.instance(coming.id).state is State.PENDING, "it was asked for, and has not run yet"
    assert deployment.instance(off.id) == before
    for each in (ran, coming):
        deployment.settle(each.id)

    stopped = deployment.instance(ran.id)
    assert (stopped.state, stopped.reason, stopped.transition_reason) == (
        State.STOPPED,
        BY_HOST,
        "Server.InternalError",
    )
    assert deployment.instance(coming.id).state is State.RUNNING
    assert deployment.host.compute.names() == [coming.id]
    volumes.check(deployment)

    deployment.ask(ran.id, State.RUNNING, State.PENDING)
    deployment.settle(ran.id)
    assert deployment.instance(ran.id).state is State.RUNNING


def test_otherwise_what_ran_runs_again(deployment: Deployment) -> None:
    ran = deployment.launch(1)
    deployment.settle(ran.id)
    deployment.host.lose_host()
    deployment.restart()
    deployment.settle(ran.id)
    assert (deployment.instance(ran.id).state, deployment.instance(ran.id).boots) == (State.RUNNING, 2)
    assert deployment.host.network.routers()

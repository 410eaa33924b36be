"""A guest's kernel panics: the instance runs and is impaired, until it is seen to boot."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.host import MachineStatus, Power
from orchestrator.host.memory_network import SSH_PORT
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import NetworkInterface
from orchestrator.reconcile.instance import IMPAIRED_EACH_S
from orchestrator.reconcile.loop import Again
from tests.conftest import Clock
from tests.reconcile.conftest import Deployment


@pytest.fixture
def deployment(tmp_path: Path, clock: Clock) -> Iterator[Deployment]:
    made = Deployment(tmp_path / "state.db", clock)
    yield made
    made.store.close()


@pytest.fixture
def guest(deployment: Deployment) -> Instance:
    """It has run for an hour, and was never reset."""
    instance = deployment.launch()
    deployment.settle(instance.id)
    deployment.clock.pass_(hours=1)
    assert health(deployment, instance) == ("ok", False)
    return instance


def health(deployment: Deployment, instance: Instance) -> tuple[str, bool]:
    current = deployment.instance(instance.id)
    assert current.state is State.RUNNING
    assert (current.impaired_since is not None) == (current.instance_status == "impaired")
    return current.instance_status, current.panicked


def machine(deployment: Deployment, instance: Instance) -> MachineStatus:
    status = deployment.host.compute.observe(instance.id)
    assert status is not None
    return status


@contextmanager
def dead_kernel(deployment: Deployment, instance: Instance) -> Iterator[None]:
    """Its network takes connections, as interrupts go on, and nobody ever says a word."""
    [interface] = deployment.store.all(NetworkInterface, instance_id=instance.id)
    door = (instance.vpc_id, interface.private_ip, SSH_PORT)
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        deployment.host.network.endpoints[door] = listener.getsockname()
        yield
        del deployment.host.network.endpoints[door]


def looks(deployment: Deployment, instance: Instance, times: int) -> None:
    """The next passes, each as late as the one before asked for."""
    for _ in range(times):
        result = deployment.step(instance.id)
        if isinstance(result, Again):
            deployment.clock.pass_(seconds=result.after_s)


def test_it_is_impaired_at_once_and_as_long_as_it_stands_still(deployment: Deployment, guest: Instance) -> None:
    with dead_kernel(deployment, guest):
        deployment.host.compute.panic(guest.id)
        at = deployment.clock()
        deployment.step(guest.id)
        assert health(deployment, guest) == ("impaired", True)
        assert not machine(deployment, guest).panicked, "it runs on, whatever its kernel makes of that"
        looks(deployment, guest, 10)
        assert health(deployment, guest) == ("impaired", True)
        assert deployment.instance(guest.id).impaired_since == at
        result = deployment.step(guest.id)
        assert isinstance(result, Again)
        assert result.after_s >= IMPAIRED_EACH_S, "one that stands still is not asked all the time"


def test_a_reboot_resets_it_at_once(deployment: Deployment, guest: Instance) -> None:
    with dead_kernel(deployment, guest):
        deployment.host.compute.panic(guest.id)
        looks(deployment, guest, 3)
        goal = deployment.instance(guest.id).goal
        deployment.change(guest.id, goal=replace(goal, reboots=goal.reboots + 1))
        deployment.step(guest.id)
        assert machine(deployment, guest).resets == 1
        assert health(deployment, guest) == ("initializing", False)
    deployment.settle(guest.id)
    assert health(deployment, guest) == ("ok", False)
    assert deployment.instance(guest.id).reboots == 1


def test_a_kernel_that_resets_itself_is_well_when_it_answers(deployment: Deployment, guest: Instance) -> None:
    for _ in range(2):
        with dead_kernel(deployment, guest):
            deployment.host.compute.panic(guest.id)
            looks(deployment, guest, 3)
            assert health(deployment, guest) == ("impaired", True)
        deployment.host.compute.guest_resets_itself(guest.id)
        deployment.step(guest.id)
        assert health(deployment, guest) == ("initializing", False)
        deployment.settle(guest.id)
        assert health(deployment, guest) == ("ok", False)


def test_one_that_was_reset_before_anybody_looked_is_booting(deployment: Deployment, guest: Instance) -> None:
    deployment.host.compute.panic(guest.id)
    deployment.host.compute.guest_resets_itself(guest.id)
    deployment.step(guest.id)
    assert health(deployment, guest) == ("initializing", False)
    deployment.settle(guest.id)
    assert health(deployment, guest) == ("ok", False)
    assert not machine(deployment, guest).panicked


def test_what_happened_while_the_controller_was_away(deployment: Deployment, guest: Instance) -> None:
    """The panic is there to be seen. That it has booted since nobody has seen: its ssh has to say so."""
    with dead_kernel(deployment, guest):
        deployment.host.compute.panic(guest.id)
        deployment.restart()
        deployment.step(guest.id)
        assert health(deployment, guest) == ("impaired", True)
        deployment.restart()
        looks(deployment, guest, 3)
        assert health(deployment, guest) == ("impaired", True)
    looks(deployment, guest, 2)
    assert health(deployment, guest) == ("ok", False)


@pytest.mark.parametrize("goal", [State.STOPPED, State.TERMINATED])
def test_nobody_waits_for_it_to_shut_down(deployment: Deployment, guest: Instance, goal: State) -> None:
    with dead_kernel(deployment, guest):
        deployment.host.compute.panic(guest.id)
        looks(deployment, guest, 2)
        deployment.ask(guest.id, goal, State.STOPPING if goal is State.STOPPED else State.SHUTTING_DOWN)
        deployment.step(guest.id)
    assert deployment.instance(guest.id).state is goal
    assert not deployment.host.compute.names()
    if goal is State.STOPPED:
        deployment.ask(guest.id, State.RUNNING, State.PENDING)
        deployment.settle(guest.id)
        assert health(deployment, guest) == ("ok", False)


def test_what_cannot_be_written_down_is_written_down_later(deployment: Deployment, guest: Instance) -> None:
    """The machine says so until somebody has taken note."""
    deployment.host.compute.panic(guest.id)

    def full(commit: object) -> None:
        raise OSError("no room")

    deployment.store.around_commit, kept = full, deployment.store.around_commit
    with pytest.raises(OSError, match="no room"):
        deployment.step(guest.id)
    deployment.store.around_commit = kept
    assert machine(deployment, guest).panicked
    deployment.step(guest.id)
    assert health(deployment, guest) == ("impaired", True)


def test_one_that_boots_after_a_long_time_is_not_impaired_meanwhile(deployment: Deployment, guest: Instance) -> None:
    """Also after a reboot somebody has to wait for it before it is called that."""

    def silent(router: str, address: str, port: int, timeout_s: float) -> socket.socket:
        raise TimeoutError

    connect = deployment.host.network.connect
    deployment.host.network.connect = silent  # type: ignore[method-assign]
    goal = deployment.instance(guest.id).goal
    deployment.change(guest.id, goal=replace(goal, reboots=goal.reboots + 1))
    began = deployment.clock()
    looks(deployment, guest, 2)  # until it is seen to be reset
    while (deployment.clock() - began).total_seconds() < 540:
        looks(deployment, guest, 1)
        assert health(deployment, guest) == ("initializing", False)
    looks(deployment, guest, 20)
    assert health(deployment, guest) == ("impaired", False)
    deployment.host.network.connect = connect  # type: ignore[method-assign]
    deployment.settle(guest.id)
    looks(deployment, guest, 1)
    assert health(deployment, guest) == ("ok", False)
    assert machine(deployment, guest).power is Power.RUNNING

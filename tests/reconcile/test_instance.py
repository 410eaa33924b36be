"""Instances on the in-memory host, one step at a time."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace

import pytest

from orchestrator.host import CapacityError, HostError, OffReason
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface
from orchestrator.reconcile.instance import LAUNCH_DEADLINE, PROBES_AT_ONCE, machine_uuid
from tests.reconcile.conftest import BASE_LAYER, Deployment


def nothing_is_left(deployment: Deployment) -> None:
    assert deployment.host.compute.names() == []
    assert deployment.host.storage.layers() == [BASE_LAYER]
    assert deployment.host.network.routers() == []
    assert deployment.store.all(Volume) == []
    assert deployment.store.all(NetworkInterface) == []
    assert [layer.id for layer in deployment.store.all(Layer)] == [BASE_LAYER]


def test_a_launch_runs_with_its_volume_network_and_timeline(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    instance = deployment.instance(instance.id)
    assert (instance.state, instance.boots, instance.system_status, instance.instance_status) == (
        State.RUNNING,
        1,
        "ok",
        "ok",
    )
    assert {"requested", "volume", "network", "started", "address", "ssh"} <= set(instance.timeline)
    [volume] = deployment.store.all(Volume, instance_id=instance.id)
    assert volume.state == "in-use"
    assert volume.attachment is not None
    assert volume.attachment.state == "attached"
    machine = deployment.host.compute.machine(instance.id)
    assert (machine.vcpus, machine.cores, machine.threads, machine.memory_mib) == (2, 1, 2, 1024)
    assert [(disk.layer, disk.serial) for disk in machine.disks] == [(volume.layer_id, volume.id.replace("-", ""))]
    assert [nic.mac for nic in machine.nics] == ["0a:00:00:00:00:01"]
    assert machine.uuid.startswith("ec2")
    assert deployment.doors.opened[0] == instance.vpc_id
    status = deployment.host.storage.observe_layer(volume.layer_id)
    assert status is not None
    assert (status.size_bytes, status.parent) == (2 << 30, BASE_LAYER)


def test_uuids_are_uuids_and_differ() -> None:
    made = {machine_uuid(f"i-{number:017x}") for number in range(100)}
    assert len(made) == 100
    assert all(len(uuid) == 36 and uuid.startswith("ec2") for uuid in made)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CapacityError("no memory"), "Server.InsufficientInstanceCapacity"),
        (HostError("no such disk", retryable=False), "Server.InternalError"),
    ],
)
def test_a_launch_that_cannot_work_ends_terminated_and_leaves_nothing(
    deployment: Deployment, error: HostError, code: str
) -> None:
    instance = deployment.launch()

    def fault(method: str, name: str) -> None:
        if method == "start":
            raise error

    deployment.host.compute.fault = fault
    deployment.settle(instance.id)
    instance = deployment.instance(instance.id)
    assert instance.state is State.TERMINATED
    assert instance.reason is not None
    assert instance.reason.code == code
    nothing_is_left(deployment)


def test_what_may_pass_is_tried_again_until_the_deadline(deployment: Deployment) -> None:
    instance = deployment.launch()

    def fault(method: str, name: str) -> None:
        if method == "create_layer":
            raise HostError("the disk is busy")

    deployment.host.storage.fault = fault
    for _ in range(3):
        with pytest.raises(HostError):
            deployment.step(instance.id)
    assert deployment.instance(instance.id).state is State.PENDING
    deployment.clock.pass_(seconds=LAUNCH_DEADLINE.total_seconds() + 1)
    deployment.settle(instance.id)
    assert deployment.instance(instance.id).state is State.TERMINATED
    nothing_is_left(deployment)


def test_a_restart_that_cannot_work_is_stopped_again_not_lost(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    deployment.settle(instance.id)
    deployment.ask(instance.id, State.RUNNING, State.PENDING)

    def fault(method: str, name: str) -> None:
        if method == "start":
            raise CapacityError("full")

    deployment.host.compute.fault = fault
    deployment.settle(instance.id)
    instance = deployment.instance(instance.id)
    assert instance.state is State.STOPPED
    assert instance.reason is not None
    assert instance.reason.code == "Server.InsufficientInstanceCapacity"
    assert len(deployment.store.all(Volume, instance_id=instance.id)) == 1


def test_stop_keeps_disks_and_private_address_and_drops_the_public_one(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    deployment.settle(instance.id)
    assert deployment.instance(instance.id).state is State.STOPPED
    assert deployment.host.compute.names() == []
    assert deployment.host.network.routers() == []
    assert instance.vpc_id in deployment.doors.shut_
    [interface] = deployment.store.all(NetworkInterface, instance_id=instance.id)
    assert (interface.private_ip, interface.public_ip) == ("172.31.0.11", "")
    assert "layer-" + instance.id[2:] in deployment.host.storage.layers()


def test_a_guest_that_ignores_the_button_loses_its_plug(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    deployment.host.compute.ignore_power_button(instance.id)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    deployment.step(instance.id)
    assert deployment.instance(instance.id).state is State.STOPPING
    deployment.clock.pass_(seconds=121)
    deployment.settle(instance.id)
    assert deployment.instance(instance.id).state is State.STOPPED


def test_force_does_not_ask(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    asked: list[str] = []
    deployment.host.compute.fault = lambda method, name: asked.append(method)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING, forced=True)
    deployment.settle(instance.id)
    assert "ask_to_stop" not in asked
    assert deployment.instance(instance.id).state is State.STOPPED


@pytest.mark.parametrize(("behavior", "state"), [("stop", State.STOPPED), ("terminate", State.TERMINATED)])
def test_a_power_off_inside_does_what_the_shutdown_behavior_says(
    deployment: Deployment, behavior: str, state: State
) -> None:
    instance = deployment.launch(shutdown_behavior=behavior)
    deployment.settle(instance.id)
    deployment.host.compute.guest_powers_off(instance.id)
    deployment.settle(instance.id)
    instance = deployment.instance(instance.id)
    assert instance.state is state
    assert instance.reason is not None
    assert instance.reason.code == "Client.InstanceInitiatedShutdown"


def test_a_crash_is_not_a_power_off(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    deployment.host.compute.crash(instance.id)
    deployment.settle(instance.id)
    instance = deployment.instance(instance.id)
    assert (instance.state, instance.boots) == (State.RUNNING, 2)


def test_after_a_reboot_of_the_host_what_ran_runs_again(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    deployment.host.lose_host()
    deployment.restart()
    deployment.settle(instance.id)
    status = deployment.host.compute.observe(instance.id)
    assert status is not None
    assert status.off_reason is None
    assert deployment.host.network.routers() == [instance.vpc_id]
    assert deployment.instance(instance.id).state is State.RUNNING


def test_a_reboot_happens_once_and_changes_no_address(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    before = deployment.store.all(NetworkInterface, instance_id=instance.id)
    deployment.change(instance.id, goal=deployment.instance(instance.id).goal.__class__(reboots=1))
    deployment.settle(instance.id)
    status = deployment.host.compute.observe(instance.id)
    assert status is not None
    assert status.resets == 1
    assert deployment.instance(instance.id).reboots == 1
    assert deployment.store.all(NetworkInterface, instance_id=instance.id) == before


def test_a_reboot_that_the_guest_ignores_becomes_a_reset(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    deployment.host.compute.ignore_power_button(instance.id)
    deployment.change(instance.id, goal=deployment.instance(instance.id).goal.__class__(reboots=1))
    deployment.step(instance.id)
    deployment.clock.pass_(seconds=241)
    deployment.settle(instance.id)
    status = deployment.host.compute.observe(instance.id)
    assert status is not None
    assert status.resets == 1


def test_a_button_that_a_booting_guest_misses_is_pressed_again(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    missed = ["ask_to_reboot", "ask_to_stop"]
    real = {name: getattr(deployment.host.compute, name) for name in missed}

    def press(button: str, name: str) -> None:
        if button in missed:
            missed.remove(button)
        else:
            real[button](name)

    for button in real:
        setattr(deployment.host.compute, button, lambda name, button=button: press(button, name))
    deployment.change(instance.id, goal=replace(deployment.instance(instance.id).goal, reboots=1))
    began = deployment.clock()
    deployment.settle(instance.id)
    assert deployment.instance(instance.id).reboots == 1
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    deployment.settle(instance.id)
    assert deployment.instance(instance.id).state is State.STOPPED
    assert missed == []
    assert (deployment.clock() - began).total_seconds() < 20


def test_terminate_leaves_nothing_and_the_row_ages_out(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    deployment.ask(instance.id, State.TERMINATED, State.SHUTTING_DOWN)
    deployment.settle(instance.id)
    nothing_is_left(deployment)
    assert deployment.instance(instance.id).state is State.TERMINATED
    assert deployment.host.compute.console(instance.id) != b""
    deployment.clock.pass_(hours=1, seconds=1)
    deployment.settle(instance.id)
    assert deployment.store.get(Instance, instance.id) is None
    assert deployment.host.compute.console(instance.id) == b""


def test_a_volume_that_stays_is_given_back(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    [volume] = deployment.store.all(Volume, instance_id=instance.id)
    assert volume.attachment is not None
    with deployment.store.write() as tx:
        tx.put(replace(volume, attachment=replace(volume.attachment, delete_on_termination=False)))
    deployment.ask(instance.id, State.TERMINATED, State.SHUTTING_DOWN)
    deployment.settle(instance.id)
    [volume] = deployment.store.all(Volume)
    assert (volume.state, volume.attachment) == ("available", None)
    assert volume.layer_id in deployment.host.storage.layers()


def test_terminating_a_launch_that_has_not_begun(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.ask(instance.id, State.TERMINATED, State.SHUTTING_DOWN)
    deployment.settle(instance.id)
    nothing_is_left(deployment)


@pytest.mark.parametrize("ends_after", ["create_layer", "apply", "start"])
def test_killed_after_any_effect_of_a_launch_it_goes_on(deployment: Deployment, ends_after: str) -> None:
    instance = deployment.launch()
    parts = (deployment.host.compute, deployment.host.storage, deployment.host.network)

    class Killed(BaseException):
        pass

    armed = True
    real = {part: getattr(part, ends_after) for part in parts if hasattr(part, ends_after)}
    for part, effect in real.items():

        def dies(*args: object, effect: object = effect, **kwargs: object) -> None:
            nonlocal armed
            effect(*args, **kwargs)  # type: ignore[operator]
            if armed:
                armed = False
                raise Killed

        setattr(part, ends_after, dies)
    with pytest.raises(Killed):
        deployment.step(instance.id)
    deployment.restart()
    deployment.settle(instance.id)
    instance = deployment.instance(instance.id)
    assert (instance.state, instance.boots) == (State.RUNNING, 1)
    assert deployment.host.compute.names() == [instance.id]
    deployment.ask(instance.id, State.TERMINATED, State.SHUTTING_DOWN)
    deployment.settle(instance.id)
    nothing_is_left(deployment)


def test_a_machine_without_a_row_is_removed(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    with deployment.store.write() as tx:
        tx.delete(instance)
    deployment.step(instance.id)
    assert deployment.host.compute.names() == []


def test_off_reasons_are_told_apart() -> None:
    assert {reason.value for reason in OffReason} == {"guest", "destroyed", "crashed", "failed", "unknown"}


def test_guests_that_do_not_answer_keep_few_workers_waiting(deployment: Deployment) -> None:
    """However many are asked at once, the others are asked later, and none is called impaired for that."""
    instances = [deployment.launch(number) for number in range(1, 7)]
    for instance in instances:
        deployment.step(instance.id)
    gate, inside = threading.Event(), []

    def connect(router: str, address: str, port: int, timeout_s: float) -> socket.socket:
        inside.append(address)
        gate.wait(10)
        raise TimeoutError

    deployment.host.network.connect = connect  # type: ignore[method-assign]
    threads = [threading.Thread(target=deployment.step, args=(instance.id,)) for instance in instances]
    for thread in threads:
        thread.start()
    for thread in threads[:]:
        thread.join(0.2)
    waiting = sum(thread.is_alive() for thread in threads)
    gate.set()
    for thread in threads:
        thread.join(10)
    assert waiting == len(inside) == PROBES_AT_ONCE
    assert {deployment.instance(each.id).instance_status for each in instances} == {"initializing"}

"""Snapshots of volumes that machines write to, and of others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.host import CapacityError, HostError
from orchestrator.model.instance import Instance
from orchestrator.model.kms import Key
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from tests.reconcile import volumes as v
from tests.reconcile.conftest import BASE_LAYER, Deployment


def test_a_running_machine_is_switched_and_the_snapshot_is_what_it_had_written(deployment: Deployment) -> None:
    instance = v.running(deployment)
    root = v.root_of(deployment, instance)
    before = root.layer_id
    [taken] = v.snapshot(deployment, root.id)
    assert v.snap(deployment, taken).state == "pending"
    v.settle_all(deployment)
    done = v.snap(deployment, taken)
    assert (done.state, done.progress_percent, done.consistency, done.layer_id) == ("completed", 100, "crash", before)
    assert done.completed_at is not None
    assert v.disk_chain(deployment, instance, root.id)[1] == before
    assert deployment.instance(instance.id).boots == 1
    v.check(deployment)


@pytest.mark.parametrize(("agent", "consistency"), [(True, "frozen"), (False, "crash")])
def test_file_systems_are_frozen_where_the_guest_can(deployment: Deployment, agent: bool, consistency: str) -> None:
    instance = v.running(deployment)
    if agent:
        deployment.host.compute.give_agent(instance.id)
    [taken] = v.snapshot(deployment, v.root_of(deployment, instance).id, when="frozen")
    v.settle_all(deployment)
    assert v.snap(deployment, taken).consistency == consistency


def test_all_disks_of_one_moment_are_switched_at_once(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    root = v.root_of(deployment, instance)
    calls: list[set[str]] = []
    real = deployment.host.compute.switch_disks

    def switch(name, tops, *, freeze=False):  # type: ignore[no-untyped-def]
        calls.append(set(tops))
        return real(name, tops, freeze=freeze)

    deployment.host.compute.switch_disks = switch  # type: ignore[method-assign]
    v.snapshot(deployment, root.id)
    deployment.clock.pass_(seconds=1)
    taken = v.snapshot(deployment, root.id, data)
    v.settle_all(deployment)
    both = {each.replace("-", "") for each in (root.id, data)}
    assert calls == [{root.id.replace("-", "")}, both]
    assert {v.snap(deployment, each).state for each in taken} == {"completed"}
    v.check(deployment)


def test_several_in_a_row_before_anybody_looks(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    first = v.root_of(deployment, instance)
    taken = [
        *v.snapshot(deployment, data),  # at the same time as all others: order follows from what lies on what
        *v.snapshot(deployment, first.id, data),
        *v.snapshot(deployment, first.id),
    ]
    v.settle_all(deployment)
    assert {v.snap(deployment, each).state for each in taken} == {"completed"}
    assert len({v.snap(deployment, each).layer_id for each in taken}) == 4
    v.check(deployment)


def test_with_the_machine_off_it_is_shut_down_and_started_again(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    taken = v.snapshot(deployment, v.root_of(deployment, instance).id, data, when="off")
    v.settle_all(deployment)
    after = deployment.instance(instance.id)
    assert (after.state, after.boots) == (State.RUNNING, 2)
    assert {v.snap(deployment, each).consistency for each in taken} == {"off"}
    v.check(deployment)


def test_a_guest_that_ignores_the_button_is_said_to_be_crash_consistent(deployment: Deployment) -> None:
    instance = v.running(deployment)
    deployment.host.compute.ignore_power_button(instance.id)
    [taken] = v.snapshot(deployment, v.root_of(deployment, instance).id, when="off")
    deployment.step(instance.id)
    assert v.snap(deployment, taken).state == "pending"
    deployment.clock.pass_(seconds=241)
    v.settle_all(deployment)
    assert (v.snap(deployment, taken).state, v.snap(deployment, taken).consistency) == ("completed", "crash")
    assert (deployment.instance(instance.id).state, deployment.instance(instance.id).boots) == (State.RUNNING, 2)


@pytest.mark.parametrize("behavior", ["stop", "terminate"])
def test_a_power_off_for_a_snapshot_is_not_the_guests_own(deployment: Deployment, behavior: str) -> None:
    instance = v.running(deployment, shutdown_behavior=behavior)
    deployment.host.compute.ignore_power_button(instance.id)
    v.snapshot(deployment, v.root_of(deployment, instance).id, when="off")
    deployment.step(instance.id)
    deployment.restart()
    deployment.host.compute.guest_powers_off(instance.id)
    v.settle_all(deployment)
    assert (deployment.instance(instance.id).state, deployment.instance(instance.id).boots) == (State.RUNNING, 2)


def test_a_stop_meanwhile_wins(deployment: Deployment) -> None:
    instance = v.running(deployment)
    deployment.host.compute.ignore_power_button(instance.id)
    [taken] = v.snapshot(deployment, v.root_of(deployment, instance).id, when="off")
    deployment.step(instance.id)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    deployment.host.compute.guest_powers_off(instance.id)
    v.settle_all(deployment)
    assert deployment.instance(instance.id).state is State.STOPPED
    assert (v.snap(deployment, taken).state, v.snap(deployment, taken).consistency) == ("completed", "off")
    v.check(deployment)


def test_at_rest_the_new_top_is_made(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data")
    taken = [*v.snapshot(deployment, data), *v.snapshot(deployment, data)]
    deployment.others()
    assert [v.snap(deployment, each).consistency for each in taken] == ["off", "off"]
    v.check(deployment)
    instance = v.running(deployment)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    deployment.settle(instance.id)
    [of_stopped] = v.snapshot(deployment, v.root_of(deployment, instance).id)
    deployment.others()
    assert v.snap(deployment, of_stopped).state == "completed"
    v.check(deployment)


@pytest.mark.parametrize("failing", ["create_layer", "switch_disks"])
@pytest.mark.parametrize("error", [CapacityError("the disk is full"), HostError("never", retryable=False)])
def test_what_cannot_be_is_undone_with_all_that_lies_on_it(
    deployment: Deployment, failing: str, error: HostError
) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    other = v.attached(deployment, "other", instance)
    root = v.root_of(deployment, instance)
    tops = {each: v.volume(deployment, each).layer_id for each in (root.id, data, other)}

    def fault(method: str, name: str) -> None:
        if method == failing:
            raise error

    deployment.host.compute.fault = deployment.host.storage.fault = fault
    taken = [*v.snapshot(deployment, root.id, data), *v.snapshot(deployment, data, other)]
    v.settle_all(deployment)
    for each in taken:
        assert v.snap(deployment, each).state == "error"
        assert str(error) in v.snap(deployment, each).state_message
    assert {each: v.volume(deployment, each).layer_id for each in tops} == tops
    deployment.host.compute.fault = deployment.host.storage.fault = lambda method, name: None
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    v.settle_all(deployment)
    deployment.ask(instance.id, State.RUNNING, State.PENDING)
    v.settle_all(deployment)
    assert deployment.instance(instance.id).state is State.RUNNING
    v.check(deployment)
    [again] = v.snapshot(deployment, root.id)
    v.settle_all(deployment)
    assert v.snap(deployment, again).state == "completed"


def test_at_rest_too(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data")
    top = v.volume(deployment, data).layer_id

    def fault(method: str, name: str) -> None:
        if method == "create_layer":
            raise CapacityError("the disk is full")

    deployment.host.storage.fault = fault
    [taken] = v.snapshot(deployment, data)
    deployment.others()
    assert v.snap(deployment, taken).state == "error"
    assert (v.volume(deployment, data).layer_id, v.volume(deployment, data).state) == (top, "available")
    deployment.host.storage.fault = lambda method, name: None
    v.modify(deployment, data, size_gib=3)
    deployment.others()
    v.check(deployment)


def test_switched_although_the_host_said_no_it_is_completed(deployment: Deployment) -> None:
    instance = v.running(deployment)
    real = deployment.host.compute.switch_disks

    def switch(name, tops, *, freeze=False):  # type: ignore[no-untyped-def]
        real(name, tops, freeze=freeze)
        raise HostError("no answer", retryable=False)

    deployment.host.compute.switch_disks = switch  # type: ignore[method-assign]
    [taken] = v.snapshot(deployment, v.root_of(deployment, instance).id)
    v.settle_all(deployment)
    assert (v.snap(deployment, taken).state, v.snap(deployment, taken).consistency) == ("completed", "crash")
    v.check(deployment)


@pytest.mark.parametrize("killed", [True, False])
def test_a_guest_that_may_have_been_left_frozen_is_let_go(deployment: Deployment, killed: bool) -> None:
    """The controller, or libvirtd, ended when the disks were switched and the guest still stood."""
    instance = v.running(deployment)
    deployment.host.compute.give_agent(instance.id)
    real = deployment.host.compute.switch_disks
    calls: list[bool] = []

    def switch(name, tops, *, freeze=False):  # type: ignore[no-untyped-def]
        froze = real(name, tops, freeze=freeze)
        calls.append(freeze)
        if len(calls) == 1:
            raise KeyboardInterrupt if killed else HostError("libvirt has gone")
        return froze

    deployment.host.compute.switch_disks = switch  # type: ignore[method-assign]
    [taken] = v.snapshot(deployment, v.root_of(deployment, instance).id, when="frozen")
    if killed:
        with pytest.raises(KeyboardInterrupt):
            v.settle_all(deployment)
        deployment.restart()
    v.settle_all(deployment)
    assert calls == [True, True], "the second finds nothing to switch, and thaws"
    assert (v.snap(deployment, taken).state, v.snap(deployment, taken).consistency) == ("completed", "crash")
    v.check(deployment)


def test_grown_just_before_the_guest_hears_of_it(deployment: Deployment) -> None:
    """The new top is as large as what it lies on: only resize_disk tells the guest."""
    instance = v.running(deployment)
    root = v.root_of(deployment, instance)
    told: list[int] = []
    real = deployment.host.compute.resize_disk

    def resize(name: str, serial: str, size_bytes: int) -> None:
        told.append(size_bytes)
        real(name, serial, size_bytes)

    deployment.host.compute.resize_disk = resize  # type: ignore[method-assign]
    v.modify(deployment, root.id, size_gib=20)
    [taken] = v.snapshot(deployment, root.id)
    v.settle_all(deployment)
    row = v.volume(deployment, root.id)
    assert row.modification is not None
    assert (told, row.modification.state, v.snap(deployment, taken).state) == ([20 * GIB], "completed", "completed")
    v.check(deployment)


def test_one_that_its_guest_does_not_let_go_of_is_taken(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    deployment.host.compute._grasping.add(instance.id)
    v.detach(deployment, data)
    for _ in range(12):
        deployment.step(instance.id)
        deployment.clock.pass_(seconds=1)
    attachment = v.volume(deployment, data).attachment
    assert attachment is not None and attachment.state == "busy"
    taken = v.snapshot(deployment, v.root_of(deployment, instance).id, data)
    for _ in range(4):
        deployment.step(instance.id)
        deployment.others()
    assert {v.snap(deployment, each).state for each in taken} == {"completed"}
    status = deployment.host.compute.observe(instance.id)
    assert status is not None
    assert [disk.flattening for disk in status.disks if disk.serial == "voldata"] == [None], "it may go at any time"
    deployment.host.compute._grasping.discard(instance.id)
    v.settle_all(deployment)
    assert v.volume(deployment, data).state == "available"
    v.check(deployment)


def test_deleted_while_pending_it_leaves_nothing(deployment: Deployment) -> None:
    instance = v.running(deployment)
    [taken] = v.snapshot(deployment, v.root_of(deployment, instance).id)
    v.delete_snapshot(deployment, taken)
    v.settle_all(deployment)
    assert deployment.store.get(Snapshot, taken) is None
    assert len(v.disk_chain(deployment, instance, v.root_of(deployment, instance).id)) == 2
    v.check(deployment)


def test_the_volume_or_the_instance_goes_while_it_is_pending(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.free_volume(deployment, "data")
    taken = [
        *v.snapshot(deployment, v.root_of(deployment, instance).id),
        *v.snapshot(deployment, v.root_of(deployment, instance).id),
        *v.snapshot(deployment, data),
        *v.snapshot(deployment, data),
    ]
    v.delete(deployment, data)
    deployment.ask(instance.id, State.TERMINATED, State.SHUTTING_DOWN)
    v.settle_all(deployment)
    assert deployment.store.all(Volume) == []
    assert {v.snap(deployment, each).state for each in taken} == {"completed"}
    v.check(deployment)
    for each in taken:
        v.delete_snapshot(deployment, each)
    v.settle_all(deployment)
    assert deployment.host.storage.layers() == [BASE_LAYER]


def test_an_instance_that_starts_with_one_pending(deployment: Deployment) -> None:
    instance = v.running(deployment)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    deployment.settle(instance.id)
    deployment.ask(instance.id, State.RUNNING, State.PENDING)
    [taken] = v.snapshot(deployment, v.root_of(deployment, instance).id)
    v.settle_all(deployment)
    assert v.snap(deployment, taken).state == "completed"
    v.check(deployment)


def copy(deployment: Deployment, source: str, key: Key) -> str:
    below = deployment.store.get(Layer, v.snap(deployment, source).layer_id)
    assert below is not None
    layer = Layer(
        id="layer-copy",
        size_bytes=below.size_bytes,
        copy_of=below.id,
        key_id=key.id,
        data_key=deployment.keys.new_data_key(key),
        **v.owned(deployment),
    )
    row = Snapshot(
        id="snap-copy", layer_id=layer.id, size_gib=1, state="pending", progress_percent=0, **v.owned(deployment)
    )
    with deployment.store.write() as tx:
        tx.put_all([key, layer])
        tx.wake(tx.put(row))
    return row.id


def make_key(deployment: Deployment) -> Key:
    return Key(id="key-1", material=deployment.keys.new_material(), **v.owned(deployment))


def test_a_copy_under_a_key_shows_its_progress(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data")
    [taken] = v.snapshot(deployment, data)
    deployment.others()
    real = deployment.host.storage.copy_layer
    seen: list[int] = []

    def copies(name, chain, *, size_bytes, secret=b"", progress):  # type: ignore[no-untyped-def]
        assert len(secret) == 32
        for done in (0.1, 0.5, 0.9):
            deployment.clock.pass_(seconds=0.6)
            progress(done)
            seen.append(v.snap(deployment, "snap-copy").progress_percent)
        real(name, chain, size_bytes=size_bytes, secret=secret)

    deployment.host.storage.copy_layer = copies  # type: ignore[method-assign]
    copied = copy(deployment, taken, make_key(deployment))
    deployment.others()
    assert seen == [0, 50, 50]  # at most each second
    done = v.snap(deployment, copied)
    assert (done.state, done.progress_percent) == ("completed", 100)
    assert deployment.host.storage.is_sealed("layer-copy")
    v.delete_snapshot(deployment, taken)
    deployment.others()
    v.check(deployment)


def test_a_copy_without_a_key_or_room_fails(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data")
    [taken] = v.snapshot(deployment, data)
    deployment.others()
    key = make_key(deployment)
    copied = copy(deployment, taken, key)
    with deployment.store.write() as tx:
        tx.put(replace(key, state="Disabled"))
    deployment.others()
    assert v.snap(deployment, copied).state == "error"
    assert "layer-copy" not in deployment.host.storage.layers()
    v.check(deployment)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("when", ["live", "frozen", "off"])
@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize(
    ("ends_at", "number"),
    [("create_layer", 0), ("create_layer", 1), ("switch_disks", 0), ("ask_to_stop", 0), ("remove", 0), ("start", 0)],
)
def test_killed_at_any_effect_it_goes_on(
    deployment: Deployment, when: str, after: bool, ends_at: str, number: int
) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    root = v.root_of(deployment, instance)
    host = deployment.host
    part = host.storage if ends_at == "create_layer" else host.compute
    real = getattr(part, ends_at)
    left = number

    def dies(*args: object, **kwargs: object) -> object:
        nonlocal left
        left -= 1
        if left >= 0:
            return real(*args, **kwargs)
        setattr(part, ends_at, real)
        if after:
            real(*args, **kwargs)
        raise Killed

    setattr(part, ends_at, dies)
    taken = v.snapshot(deployment, root.id, data, when=when)
    try:
        v.settle_all(deployment)
    except Killed:
        deployment.restart()
    setattr(part, ends_at, real)
    v.settle_all(deployment)
    assert {v.snap(deployment, each).state for each in taken} == {"completed"}
    assert deployment.instance(instance.id).state is State.RUNNING
    if when == "off":
        assert {v.snap(deployment, each).consistency for each in taken} == {"off"}
    v.check(deployment)


def test_twenty_snapshots_and_they_go_in_any_order(deployment: Deployment) -> None:
    instance = v.running(deployment)
    root = v.root_of(deployment, instance)
    taken: list[str] = []
    for _ in range(20):
        taken += v.snapshot(deployment, root.id)
        v.settle_all(deployment)
        assert len(v.disk_chain(deployment, instance, root.id)) <= 4
    kept = [v.snap(deployment, each) for each in taken]
    for place in (7, 3, 19, 0, 12, 1, 18, 5):
        v.delete_snapshot(deployment, taken[place])
        v.settle_all(deployment)
        v.check(deployment)
    for place, each in enumerate(kept):
        if place not in (7, 3, 19, 0, 12, 1, 18, 5):
            assert deployment.store.get(Layer, each.layer_id) is not None
    assert v.volume(deployment, root.id).size_gib * GIB == 2 * GIB


def test_asked_for_between_a_start_and_its_being_written_down(deployment: Deployment) -> None:
    instance = deployment.launch()
    root = v.root_of(deployment, instance)
    real = deployment.host.compute.start

    def start(machine):  # type: ignore[no-untyped-def]
        real(machine)
        deployment.host.compute.start = real  # type: ignore[method-assign]
        with deployment.store.write() as tx:  # as a volume that a stopped instance has
            tx.put(replace(v.volume(deployment, root.id), state="in-use"))
        v.snapshot(deployment, root.id)
        raise Killed

    deployment.host.compute.start = start  # type: ignore[method-assign]
    with pytest.raises(Killed):
        deployment.step(instance.id)
    deployment.restart()
    v.settle_all(deployment)
    assert v.disk_chain(deployment, instance, root.id) == v.chain(deployment, root.id)
    assert len(v.chain(deployment, root.id)) == 3
    v.check(deployment)


def test_asked_for_between_the_disks_being_ready_and_the_start(deployment: Deployment) -> None:
    """Such a launch starts at its first attempt, and is not given up however long its disks have taken."""
    instance = deployment.launch()
    disks = deployment.instances._disks
    prepare_all = disks.prepare_all
    taken: list[str] = []

    def prepare_and_be_asked(starting: Instance) -> list[Volume] | None:
        volumes = prepare_all(starting)
        taken.extend(v.snapshot(deployment, v.root_of(deployment, instance).id) if not taken else ())
        deployment.clock.pass_(minutes=6)
        return volumes

    disks.prepare_all = prepare_and_be_asked  # type: ignore[method-assign]
    deployment.step(instance.id)
    assert deployment.instance(instance.id).state is State.RUNNING
    v.settle_all(deployment)
    assert v.snap(deployment, taken[0]).state == "completed"
    assert deployment.instance(instance.id).boots == 1
    v.check(deployment)

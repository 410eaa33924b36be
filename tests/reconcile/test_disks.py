"""Disks of machines: made, plugged in and out, modified, flattened, and full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from orchestrator.host import HostError, Power
from orchestrator.model.kms import Key
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.owned import instance_store, owned
from orchestrator.model.volume import Volume
from orchestrator.reconcile.loop import Again
from orchestrator.reconcile.plug import LET_GO_WITHIN
from orchestrator.store import StoreUnavailable
from tests.reconcile import volumes as v
from tests.reconcile.conftest import BASE_LAYER, MAX_DEPTH, Deployment

DATA = "voldata"  # its serial


def serials(deployment: Deployment, instance_id: str) -> list[str]:
    status = deployment.host.compute.observe(instance_id)
    assert status is not None
    return [disk.serial for disk in status.disks]


def state(deployment: Deployment, volume_id: str) -> str:
    attachment = v.volume(deployment, volume_id).attachment
    return attachment.state if attachment else v.volume(deployment, volume_id).state


# --- a launch ---


def test_a_launch_has_all_its_volumes_in_order_with_limits(deployment: Deployment) -> None:
    instance = deployment.launch()
    key = Key(id="key-1", material=deployment.keys.new_material(), **v.owned(deployment))
    with deployment.store.write() as tx:
        tx.put(key)
    data_key = deployment.keys.new_data_key(key)
    second = v.create(deployment, "second", parent=BASE_LAYER)
    first = v.create(deployment, "first", copy_of=BASE_LAYER, key_id=key.id, data_key=data_key)
    v.attach(deployment, second, instance, "/dev/sdg")
    v.attach(deployment, first, instance, "/dev/sdf")
    v.settle_all(deployment)
    root, one, two = deployment.host.compute.machine(instance.id).disks
    assert [disk.index for disk in (root, one, two)] == [0, 1, 2]
    assert [disk.serial for disk in (root, one, two)] == ["vol" + instance.id[2:], "volfirst", "volsecond"]
    assert [layer.layer for layer in two.chain] == ["layer-second", BASE_LAYER]
    assert len(one.chain) == 1
    assert len(one.chain[0].secret) == 32
    assert root.limits is not None
    assert (root.limits.iops, root.limits.bytes_per_s, root.limits.operation_bytes) == (3000, 125 << 20, 256 << 10)
    assert {state(deployment, each) for each in (first, second)} == {"attached"}
    v.check(deployment)


def test_instance_store_disks_are_made_and_lost(deployment: Deployment) -> None:
    instance = v.running(deployment, instance_type="m5d.4xlarge")
    disks = deployment.host.compute.machine(instance.id).disks
    digits = instance.id[2:]
    assert [disk.layer for disk in disks[1:]] == [f"eph-{digits}-0", f"eph-{digits}-1"]
    assert [disk.serial for disk in disks[1:]] == [f"AWS{digits[1:].upper()}{number}" for number in range(2)]
    assert all(len(disk.serial) == 20 for disk in disks[1:])
    assert {name for name, _ in instance_store(instance)} <= owned(deployment.store).layers
    made = deployment.host.storage.observe_layer(f"eph-{digits}-0")
    assert made is not None
    assert made.size_bytes == 300 * 10**9
    deployment.host.compute.crash(instance.id)
    deployment.settle(instance.id)
    assert f"eph-{digits}-0" in deployment.host.storage.layers()
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    v.settle_all(deployment)
    assert not [name for name in deployment.host.storage.layers() if name.startswith("eph-")]
    deployment.ask(instance.id, State.RUNNING, State.PENDING)
    v.settle_all(deployment)
    assert len(serials(deployment, instance.id)) == 3
    deployment.ask(instance.id, State.TERMINATED, State.SHUTTING_DOWN)
    v.settle_all(deployment)
    assert deployment.host.storage.layers() == [BASE_LAYER]


def test_all_serials_of_a_type_with_many_disks_differ(deployment: Deployment) -> None:
    instance = v.running(deployment, instance_type="d3en.12xlarge")
    found = serials(deployment, instance.id)
    assert len(found) == 25
    assert len(set(found)) == 25
    assert max(map(len, found)) <= 20


# --- attach and detach ---


def test_attached_and_detached_while_it_runs(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance, parent=BASE_LAYER)
    assert v.disk_chain(deployment, instance, data) == ["layer-data", BASE_LAYER]
    assert state(deployment, data) == "attached"
    v.detach(deployment, data)
    v.settle_all(deployment)
    assert DATA not in serials(deployment, instance.id)
    assert state(deployment, data) == "available"
    v.check(deployment)


def test_a_guest_that_holds_on_is_asked_again_and_the_volume_is_busy(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    deployment.host.compute.hold_on(instance.id)
    asked: list[str] = []
    deployment.host.compute.fault = lambda method, name: asked.append(method) if method == "unplug_disk" else None
    v.detach(deployment, data)
    for _ in range(60):
        result = deployment.step(instance.id)
        assert isinstance(result, Again)
        deployment.clock.pass_(seconds=result.after_s)
    assert state(deployment, data) == "busy"
    assert 5 < len(asked) < 60
    deployment.host.compute.guest_lets_go(instance.id, DATA)
    v.settle_all(deployment)
    assert state(deployment, data) == "available"


def test_by_force_it_is_free_after_a_while_and_deleted(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    deployment.host.compute.hold_on(instance.id)
    v.detach(deployment, data, forced=True)
    deployment.step(instance.id)
    assert state(deployment, data) == "detaching"
    deployment.clock.pass_(seconds=LET_GO_WITHIN.total_seconds())
    deployment.step(instance.id)
    assert state(deployment, data) == "available"
    assert DATA in serials(deployment, instance.id)
    v.delete(deployment, data)
    deployment.others()
    deployment.host.compute.guest_lets_go(instance.id, DATA)
    v.settle_all(deployment)
    v.check(deployment)


def test_attached_again_to_the_instance_that_would_not_let_go(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    deployment.host.compute.hold_on(instance.id)
    v.detach(deployment, data, forced=True)
    deployment.step(instance.id)
    deployment.clock.pass_(seconds=LET_GO_WITHIN.total_seconds())
    deployment.step(instance.id)
    v.attach(deployment, data, instance)
    v.settle_all(deployment)
    assert (state(deployment, data), v.volume(deployment, data).held_by) == ("attached", "")
    deployment.host.compute.guest_lets_go(instance.id, DATA)
    v.settle_all(deployment)
    assert DATA in serials(deployment, instance.id)
    v.check(deployment)


def test_what_finds_no_slot_is_given_back(deployment: Deployment) -> None:
    instance = v.running(deployment)
    deployment.host.compute._most_disks = 1
    data = v.attached(deployment, "data", instance)
    assert state(deployment, data) == "available"
    assert deployment.instance(instance.id).state is State.RUNNING
    v.check(deployment)


def test_a_snapshot_while_it_is_attached_or_detached(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.free_volume(deployment, "data")
    v.attach(deployment, data, instance)
    [coming] = v.snapshot(deployment, data)
    v.settle_all(deployment)
    assert v.snap(deployment, coming).state == "completed"
    v.check(deployment)
    v.detach(deployment, data)
    [going] = v.snapshot(deployment, data)
    v.settle_all(deployment)
    assert v.snap(deployment, going).state == "completed"
    v.check(deployment)


def test_stopped_while_it_comes_or_goes_it_has_come_or_gone(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    other = v.free_volume(deployment, "other")
    deployment.host.compute.hold_on(instance.id)
    v.detach(deployment, data)
    v.attach(deployment, other, instance, "/dev/sdg")
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    v.settle_all(deployment)
    assert (state(deployment, data), state(deployment, other)) == ("available", "attached")


def test_terminated_what_goes_is_deleted_and_what_stays_is_free(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    v.modify(deployment, data, size_gib=4)
    deployment.ask(instance.id, State.TERMINATED, State.SHUTTING_DOWN)
    v.settle_all(deployment)
    assert [row.id for row in deployment.store.all(Volume)] == [data]
    assert state(deployment, data) == "available"
    modification = v.volume(deployment, data).modification
    assert modification is not None
    assert modification.state == "completed"
    v.check(deployment)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize(
    "name", ["plug_in_disk", "unplug_disk", "resize_disk", "limit_disk", "flatten_disk", "stop_flattening"]
)
def test_killed_at_any_effect_it_goes_on(deployment: Deployment, name: str, after: bool) -> None:
    compute = deployment.host.compute
    instance = v.running(deployment)
    data = v.free_volume(deployment, "data") if name == "plug_in_disk" else v.attached(deployment, "data", instance)
    if name in ("flatten_disk", "stop_flattening"):
        compute.flatten_slowly(instance.id)
        [taken] = v.snapshot(deployment, data)
        v.settle_all(deployment)
    real = getattr(compute, name)

    def dies(*args: object, **kwargs: object) -> None:
        setattr(compute, name, real)
        if after:
            real(*args, **kwargs)
        raise Killed

    setattr(compute, name, dies)
    match name:
        case "plug_in_disk":
            v.attach(deployment, data, instance)
        case "unplug_disk":
            v.detach(deployment, data)
        case "resize_disk" | "limit_disk":
            v.modify(deployment, data, size_gib=4, iops=5000)
        case "flatten_disk":
            v.delete_snapshot(deployment, taken)
        case "stop_flattening":
            v.delete_snapshot(deployment, taken)
            deployment.others()
            deployment.step(instance.id)
            v.snapshot(deployment, data)
    with pytest.raises(Killed):
        v.settle_all(deployment)
    deployment.restart()
    compute._slow.clear()
    v.finish_flattening(deployment)
    v.settle_all(deployment)
    assert state(deployment, data) == ("available" if name == "unplug_disk" else "attached")
    v.check(deployment)


# --- modified ---


def test_modified_while_it_runs(deployment: Deployment) -> None:
    instance = v.running(deployment)
    root = v.root_of(deployment, instance)
    v.modify(deployment, root.id, size_gib=20, iops=6000, throughput_mib_s=500)
    v.settle_all(deployment)
    [disk] = deployment.host.compute.disks(instance.id)
    assert disk.limits is not None
    assert (disk.limits.iops, disk.limits.bytes_per_s) == (6000, 500 << 20)
    status = deployment.host.compute.observe(instance.id)
    assert status is not None
    assert status.disks[0].size_bytes == 20 * GIB
    modification = v.volume(deployment, root.id).modification
    assert modification is not None
    assert (modification.state, modification.progress_percent) == ("completed", 100)
    layer = deployment.store.get(Layer, root.layer_id)
    assert layer is not None
    assert layer.size_bytes == 20 * GIB
    v.check(deployment)


def test_modified_while_a_snapshot_is_pending_the_frozen_layer_keeps_its_size(deployment: Deployment) -> None:
    instance = v.running(deployment)
    root = v.root_of(deployment, instance)
    v.snapshot(deployment, root.id)
    v.modify(deployment, root.id, size_gib=20)
    v.settle_all(deployment)
    frozen, top = (
        deployment.host.storage.observe_layer(each) for each in (root.layer_id, v.chain(deployment, root.id)[0])
    )
    assert frozen is not None
    assert top is not None
    assert (frozen.size_bytes, top.size_bytes) == (2 * GIB, 20 * GIB)
    v.check(deployment)


def test_what_cannot_be_modified_stays_as_it_was(deployment: Deployment) -> None:
    instance = v.running(deployment)
    root = v.root_of(deployment, instance)

    def fault(method: str, name: str) -> None:
        if method == "resize_disk":
            raise HostError("no", retryable=False)

    deployment.host.compute.fault = fault
    v.modify(deployment, root.id, size_gib=20)
    v.settle_all(deployment)
    row = v.volume(deployment, root.id)
    assert row.modification is not None
    assert (row.modification.state, row.size_gib) == ("failed", 2)


def test_a_machine_whose_key_is_gone_does_not_start(deployment: Deployment) -> None:
    instance = deployment.launch()
    key = Key(id="key-1", material=deployment.keys.new_material(), **v.owned(deployment))
    with deployment.store.write() as tx:
        tx.put(key)
    data = v.create(deployment, "data", key_id=key.id, data_key=deployment.keys.new_data_key(key))
    v.attach(deployment, data, instance)
    with deployment.store.write() as tx:
        tx.put(replace(key, state="Disabled"))
    v.settle_all(deployment)
    reason = deployment.instance(instance.id).reason
    assert reason is not None and reason.code == "Client.InvalidKMSKey.InvalidState"


# --- flattened ---


def test_what_only_the_top_needs_is_taken_in_while_it_runs(deployment: Deployment) -> None:
    instance = v.running(deployment)
    deployment.host.compute.flatten_slowly(instance.id)
    root = v.root_of(deployment, instance)
    [taken] = v.snapshot(deployment, root.id)
    v.settle_all(deployment)
    top = v.volume(deployment, root.id).layer_id
    v.delete_snapshot(deployment, taken)
    deployment.others()
    assert isinstance(again := deployment.step(instance.id), Again)
    assert again.after_s == 1.0  # looked at once a second, and when the host says that it is done
    assert v.disk_chain(deployment, instance, root.id) == [top, root.layer_id, BASE_LAYER]
    deployment.host.compute.finish_flattening(instance.id, root.id.replace("-", ""))
    v.settle_all(deployment)
    assert v.disk_chain(deployment, instance, root.id) == [top, BASE_LAYER]
    assert root.layer_id not in deployment.host.storage.layers()
    v.check(deployment)


def test_a_machine_that_ends_before_it_was_flushed_lies_where_it_lay(deployment: Deployment) -> None:
    """QEMU names the new parent before it has written where what it copied lies: then only the old one is safe."""
    instance = v.running(deployment)
    compute, storage = deployment.host.compute, deployment.host.storage
    compute.flatten_slowly(instance.id)
    root = v.root_of(deployment, instance)
    [taken] = v.snapshot(deployment, root.id)
    v.settle_all(deployment)
    top = v.volume(deployment, root.id).layer_id
    v.delete_snapshot(deployment, taken)
    deployment.others()
    deployment.step(instance.id)
    compute.finish_flattening(instance.id, root.id.replace("-", ""))
    flushed: list[str] = []

    def fault(method: str, name: str) -> None:
        if method == "flush_disks":
            flushed.append(name)
            raise HostError("it has just ended")

    compute.fault = fault
    with pytest.raises(HostError):
        deployment.step(instance.id)
    compute.crash(instance.id)
    status = storage.observe_layer(top)
    assert flushed and status is not None and status.parent == BASE_LAYER
    asked: list[list[str]] = []

    def look(method: str, name: str) -> None:
        if method == "start":
            asked.append(v.chain(deployment, root.id))

    compute.fault = look
    v.settle_all(deployment)
    assert asked == [[top, root.layer_id, BASE_LAYER]]
    assert deployment.instance(instance.id).state is State.RUNNING
    v.check(deployment)


def test_a_machine_that_somebody_paused_runs_on(deployment: Deployment) -> None:
    instance = v.running(deployment)
    deployment.host.compute.disk_fails(instance.id, "")
    v.settle_all(deployment)
    status = deployment.host.compute.observe(instance.id)
    assert status is not None and status.power is Power.RUNNING


def test_a_snapshot_comes_before_flattening(deployment: Deployment) -> None:
    instance = v.running(deployment)
    deployment.host.compute.flatten_slowly(instance.id)
    root = v.root_of(deployment, instance)
    [first] = v.snapshot(deployment, root.id)
    v.settle_all(deployment)
    v.delete_snapshot(deployment, first)
    deployment.others()
    deployment.step(instance.id)
    [taken] = v.snapshot(deployment, root.id)
    for _ in range(3):
        deployment.step(instance.id)
    assert v.snap(deployment, taken).state == "completed"
    v.finish_flattening(deployment)
    v.settle_all(deployment)
    v.check(deployment)


@pytest.mark.parametrize("runs", [True, False])
def test_a_chain_that_is_too_deep_comes_to_lie_on_what_it_was_made_of(deployment: Deployment, runs: bool) -> None:
    instance = v.running(deployment)
    root = v.root_of(deployment, instance)
    if not runs:
        deployment.ask(instance.id, State.STOPPED, State.STOPPING)
        v.settle_all(deployment)
    taken: list[str] = []
    for _ in range(MAX_DEPTH - 2):
        taken += v.snapshot(deployment, root.id)
        v.settle_all(deployment)
    assert len(v.chain(deployment, root.id)) == MAX_DEPTH
    taken += v.snapshot(deployment, root.id)
    v.settle_all(deployment)
    assert v.chain(deployment, root.id)[1:] == [BASE_LAYER]
    assert all(deployment.store.get(Layer, v.snap(deployment, each).layer_id) for each in taken)
    v.check(deployment)


def test_a_volume_made_of_nothing_stands_alone_when_it_is_too_deep(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data")
    for _ in range(MAX_DEPTH):
        v.snapshot(deployment, data)
        deployment.others()
    assert len(v.chain(deployment, data)) == 1
    v.check(deployment)


def test_what_cannot_be_flattened_is_left(deployment: Deployment) -> None:
    instance = v.running(deployment)
    root = v.root_of(deployment, instance)
    asked: list[str] = []

    def fault(method: str, name: str) -> None:
        if method == "flatten_disk":
            asked.append(name)
            raise HostError("no", retryable=False)

    deployment.host.compute.fault = fault
    [taken] = v.snapshot(deployment, root.id)
    v.settle_all(deployment)
    v.delete_snapshot(deployment, taken)
    v.settle_all(deployment)
    deployment.step(instance.id)
    assert len(asked) == 1
    assert deployment.instance(instance.id).state is State.RUNNING


# --- full ---


def test_a_machine_that_found_no_space_is_impaired_and_runs_on_when_there_is_some(deployment: Deployment) -> None:
    instance = v.running(deployment)
    storage = deployment.host.storage
    storage._free_bytes = 0
    resumed: list[str] = []
    deployment.host.compute.fault = lambda method, name: resumed.append(name) if method == "resume" else None
    deployment.host.compute.disk_fails(instance.id)
    for _ in range(10):
        result = deployment.step(instance.id)
        assert isinstance(result, Again)
        assert result.after_s <= 30
        deployment.clock.pass_(seconds=result.after_s)
    full = deployment.instance(instance.id)
    assert (full.state, full.instance_status, full.system_status) == (State.RUNNING, "impaired", "ok")
    assert full.paused_reason == "no space"
    assert resumed == []
    storage._free_bytes = 2 * GIB
    v.settle_all(deployment)
    well = deployment.instance(instance.id)
    assert (well.instance_status, well.paused_reason, well.boots) == ("ok", "", 1)
    assert resumed == [instance.id]


def test_room_that_came_before_anybody_looked_is_found_too(deployment: Deployment) -> None:
    """On a small disk, and the controller has started anew: it knows of no time when there was less."""
    instance = v.running(deployment)
    deployment.host.storage._free_bytes = 100 << 20
    deployment.host.compute.disk_fails(instance.id)
    deployment.restart()
    began = deployment.clock()
    while deployment.instance(instance.id).paused_reason or deployment.clock() == began:
        deployment.step(instance.id)
        deployment.clock.pass_(seconds=1)
        assert (deployment.clock() - began).total_seconds() < 60
    assert deployment.instance(instance.id).instance_status != "impaired"


def test_it_runs_on_when_the_store_has_no_room_to_say_so(deployment: Deployment) -> None:
    instance = v.running(deployment)
    deployment.host.storage._free_bytes = 0
    deployment.host.compute.disk_fails(instance.id)

    def full(commit: Callable[[], None]) -> None:
        raise StoreUnavailable("the disk is full")

    deployment.store.around_commit = full
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            deployment.step(instance.id)
        deployment.clock.pass_(seconds=1)
    deployment.host.storage._free_bytes = 100 << 20
    deployment.step(instance.id)
    status = deployment.host.compute.observe(instance.id)
    assert status is not None
    assert status.power is Power.RUNNING


def test_resumed_in_vain_it_is_tried_less_and_less_often(deployment: Deployment) -> None:
    instance = v.running(deployment)
    tries: list[float] = []

    def resume(name: str) -> None:
        tries.append(deployment.clock().timestamp())

    deployment.host.compute.resume = resume  # type: ignore[method-assign]
    deployment.host.compute.disk_fails(instance.id, "input/output error")
    for _ in range(200):
        result = deployment.step(instance.id)
        assert isinstance(result, Again)
        deployment.clock.pass_(seconds=min(result.after_s, 1.0))
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 30
    assert deployment.instance(instance.id).paused_reason == "input/output error"


def test_a_machine_that_is_paused_can_be_stopped(deployment: Deployment) -> None:
    instance = v.running(deployment)
    deployment.host.storage._free_bytes = 0
    deployment.host.compute.disk_fails(instance.id)
    deployment.step(instance.id)
    status = deployment.host.compute.observe(instance.id)
    assert status is not None
    assert status.power is Power.PAUSED
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    v.settle_all(deployment)
    stopped = deployment.instance(instance.id)
    assert (stopped.state, stopped.paused_reason) == (State.STOPPED, "")


def test_a_detachment_that_is_not_forced_is_never_finished_without_the_guest(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    deployment.host.compute.hold_on(instance.id)
    v.detach(deployment, data)
    for _ in range(5):
        deployment.step(instance.id)
        deployment.clock.pass_(seconds=30)
    row = v.volume(deployment, data)
    assert row.attachment == replace(row.attachment, state="busy") if row.attachment else False


def test_what_is_attached_and_finds_no_slot_any_more_is_not_tried_without_end(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    deployment.host.compute._machines[instance.id].disks.pop(DATA)
    deployment.host.compute._most_disks = 1
    deployment.settle(instance.id)
    assert state(deployment, data) == "attached"
    deployment.host.compute._most_disks = 2
    deployment.settle(instance.id)
    assert DATA in serials(deployment, instance.id)

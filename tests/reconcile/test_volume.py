"""Volumes that no machine has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.host import CapacityError, HostError
from orchestrator.model.kms import Key
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.volume import Volume
from orchestrator.reconcile.snapshot import GIVE_UP_AFTER
from tests.reconcile import volumes as v
from tests.reconcile.conftest import BASE_LAYER, Deployment


@pytest.mark.parametrize("parent", ["", BASE_LAYER])
def test_made_and_deleted(deployment: Deployment, parent: str) -> None:
    made = v.free_volume(deployment, "data", parent=parent, size_gib=3)
    status = deployment.host.storage.observe_layer("layer-data")
    assert status is not None
    assert (status.size_bytes, status.parent) == (3 * GIB, parent)
    v.check(deployment)
    v.delete(deployment, made)
    deployment.others()
    assert deployment.store.get(Volume, made) is None
    assert deployment.host.storage.layers() == [BASE_LAYER]
    v.check(deployment)


def test_encrypted_anew_it_is_a_copy(deployment: Deployment) -> None:
    key = Key(id="key-1", material=deployment.keys.new_material(), **v.owned(deployment))
    with deployment.store.write() as tx:
        tx.put(key)
    data_key = deployment.keys.new_data_key(key)
    v.free_volume(deployment, "data", copy_of=BASE_LAYER, key_id=key.id, data_key=data_key)
    status = deployment.host.storage.observe_layer("layer-data")
    assert status is not None
    assert status.parent == ""
    v.check(deployment)


@pytest.mark.parametrize("method", ["create_layer", "copy_layer"])
def test_what_cannot_be_made_is_an_error_and_can_be_deleted(deployment: Deployment, method: str) -> None:
    def fault(called: str, name: str) -> None:
        if called == method:
            raise CapacityError("the disk is full")

    deployment.host.storage.fault = fault
    made = v.create(deployment, "data", **({"copy_of": BASE_LAYER} if method == "copy_layer" else {}))
    deployment.others()
    row = v.volume(deployment, made)
    assert (row.state, row.state_message) == ("error", "the disk is full")
    deployment.host.storage.fault = lambda called, name: None
    v.delete(deployment, made)
    deployment.others()
    v.check(deployment)


def test_what_may_pass_is_tried_again_for_a_time(deployment: Deployment) -> None:
    def fault(method: str, name: str) -> None:
        if method == "create_layer":
            raise HostError("the disk is busy")

    deployment.host.storage.fault = fault
    made = v.create(deployment, "data")
    with pytest.raises(HostError):
        deployment.volumes.step(made)
    assert v.volume(deployment, made).state == "creating"
    deployment.clock.pass_(seconds=GIVE_UP_AFTER.total_seconds() + 1)
    deployment.others()
    assert v.volume(deployment, made).state == "error"


def test_modified_at_rest_it_grows_and_shows_how_far_it_is(deployment: Deployment) -> None:
    made = v.free_volume(deployment, "data")
    v.modify(deployment, made, size_gib=5, volume_type="io2", iops=4000)
    deployment.volumes.step(made)
    modification = v.volume(deployment, made).modification
    assert modification is not None
    assert (modification.state, modification.progress_percent) == ("optimizing", 50)
    deployment.others()
    modification = v.volume(deployment, made).modification
    assert modification is not None
    assert (modification.state, modification.progress_percent) == ("completed", 100)
    assert modification.ended_at is not None
    status = deployment.host.storage.observe_layer("layer-data")
    assert status is not None
    assert status.size_bytes == 5 * GIB
    v.check(deployment)


def test_a_modification_that_cannot_be_leaves_it_as_it_was(deployment: Deployment) -> None:
    made = v.free_volume(deployment, "data")
    before = v.volume(deployment, made).shape

    def fault(method: str, name: str) -> None:
        if method == "create_layer":
            raise CapacityError("the disk is full")

    deployment.host.storage.fault = fault
    v.modify(deployment, made, size_gib=5)
    deployment.others()
    row = v.volume(deployment, made)
    assert row.modification is not None
    assert (row.modification.state, row.modification.message) == ("failed", "the disk is full")
    assert row.shape == before


@pytest.mark.parametrize("lasting", [False, True])
def test_a_modification_that_failed_concerns_no_start_afterwards(deployment: Deployment, lasting: bool) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING, forced=True)
    deployment.settle(instance.id)

    def fault(method: str, name: str) -> None:
        if method == "create_layer":
            raise HostError("one of QEMU's tools took too long", retryable=False)

    deployment.host.storage.fault = fault
    v.modify(deployment, data, size_gib=2)
    deployment.others()
    row = v.volume(deployment, data)
    assert row.modification is not None
    assert (row.modification.state, row.size_gib) == ("failed", 1)
    if not lasting:
        deployment.host.storage.fault = lambda method, name: None
    deployment.ask(instance.id, State.RUNNING, State.PENDING)
    deployment.settle(instance.id)
    assert deployment.instance(instance.id).state is State.RUNNING
    status = deployment.host.compute.observe(instance.id)
    assert status is not None
    assert [disk.size_bytes for disk in status.disks if disk.serial == "voldata"] == [GIB]
    v.check(deployment)


def test_a_volume_of_a_machine_that_is_on_is_left_to_its_instance(deployment: Deployment) -> None:
    instance = v.running(deployment)
    root = v.root_of(deployment, instance)
    [taken] = v.snapshot(deployment, root.id)
    v.modify(deployment, root.id, size_gib=9)
    touched: list[str] = []
    for part in (deployment.host.compute, deployment.host.storage):
        part.fault = lambda method, name: touched.append(method)
    deployment.volumes.step(root.id)
    assert touched == []
    assert ("instance", instance.id) in {wake[:2] for wake in deployment.store.pending_wakes()}
    v.settle_all(deployment)
    assert v.snap(deployment, taken).state == "completed"
    v.check(deployment)


def test_attached_to_a_stopped_instance_and_detached_from_it(deployment: Deployment) -> None:
    instance = v.running(deployment)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    v.settle_all(deployment)
    made = v.free_volume(deployment, "data")
    v.attach(deployment, made, instance)
    deployment.volumes.step(made)
    deployment.others()
    row = v.volume(deployment, made)
    assert row.attachment is not None
    assert (row.state, row.attachment.state, row.attachment.attached_at) == ("in-use", "attached", deployment.clock())
    v.detach(deployment, made)
    deployment.others()
    assert (v.volume(deployment, made).state, v.volume(deployment, made).attachment) == ("available", None)


def test_grown_after_a_snapshot_of_it_was_taken(deployment: Deployment) -> None:
    made = v.free_volume(deployment, "data")
    v.snapshot(deployment, made)
    v.modify(deployment, made, size_gib=2)
    deployment.others()
    frozen = deployment.host.storage.observe_layer("layer-data")
    assert frozen is not None
    assert frozen.size_bytes == 1 * GIB
    top = deployment.host.storage.observe_layer(v.volume(deployment, made).layer_id)
    assert top is not None
    assert top.size_bytes == 2 * GIB
    v.check(deployment)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("what", ["create", "copy", "modify", "delete", "snapshot", "merge"])
def test_killed_at_any_effect_it_goes_on(deployment: Deployment, what: str, after: bool) -> None:
    storage = deployment.host.storage
    made = "vol-data"
    if what not in ("create", "copy"):
        v.free_volume(deployment, "data")
    if what == "merge":
        [first] = v.snapshot(deployment, made)
        deployment.others()
    names = {"copy": "copy_layer", "delete": "remove_layer", "merge": "merge_layer"}
    name = names.get(what, "create_layer")
    real = getattr(storage, name)

    def dies(*args: object, **kwargs: object) -> None:
        setattr(storage, name, real)
        if after:
            real(*args, **kwargs)
        raise Killed

    setattr(storage, name, dies)
    match what:
        case "create":
            v.create(deployment, "data")
        case "copy":
            v.create(deployment, "data", copy_of=BASE_LAYER)
        case "modify":
            v.modify(deployment, made, size_gib=4)
        case "delete":
            v.delete(deployment, made)
        case "snapshot":
            v.snapshot(deployment, made)
        case "merge":
            v.delete_snapshot(deployment, first)
    with pytest.raises(Killed):
        deployment.others()
    deployment.restart()
    deployment.others()
    v.check(deployment)
    if what == "delete":
        assert deployment.store.all(Volume) == []
    else:
        assert v.volume(deployment, made).state == "available"


def test_merged_and_not_yet_written_down_when_its_machine_starts(deployment: Deployment) -> None:
    """The file lies on another layer than its row says: the row follows, and what was between goes."""
    data = v.free_volume(deployment, "data", parent=BASE_LAYER)
    [taken] = v.snapshot(deployment, data)
    deployment.others()
    row = v.snap(deployment, taken)
    top = v.volume(deployment, data).layer_id
    deployment.host.storage.merge_layer(deployment.files.chain(top), BASE_LAYER)
    with deployment.store.write() as tx:
        tx.delete(row)
    instance = deployment.launch()
    v.attach(deployment, data, instance)
    v.settle_all(deployment)
    assert v.disk_chain(deployment, instance, data) == [top, BASE_LAYER]
    v.check(deployment)


def test_held_by_a_guest_it_is_left_alone_until_that_lets_go(deployment: Deployment) -> None:
    instance = v.running(deployment)
    data = v.attached(deployment, "data", instance)
    other = v.running(deployment, 2)
    deployment.host.compute.hold_on(instance.id)
    v.detach(deployment, data, forced=True)
    deployment.step(instance.id)
    deployment.clock.pass_(seconds=16)
    deployment.step(instance.id)
    assert (v.volume(deployment, data).state, v.volume(deployment, data).held_by) == ("available", instance.id)
    v.attach(deployment, data, other)
    [taken] = v.snapshot(deployment, data)
    deployment.step(other.id)
    deployment.others()
    assert v.disk_chain(deployment, other, data) == []
    assert v.snap(deployment, taken).state == "pending"
    deployment.restart()
    deployment.host.compute.guest_lets_go(instance.id, data.replace("-", ""))
    v.settle_all(deployment)
    assert v.volume(deployment, data).held_by == ""
    assert len(v.disk_chain(deployment, other, data)) == 2
    assert v.snap(deployment, taken).state == "completed"
    v.check(deployment)


def test_a_row_of_a_layer_that_is_gone_is_no_trap(deployment: Deployment) -> None:
    made = v.free_volume(deployment, "data")
    layer = deployment.store.get(Layer, "layer-data")
    assert layer is not None
    with deployment.store.write() as tx:
        tx.put(replace(v.volume(deployment, made), state="deleting"))
        tx.delete(layer)
    deployment.volumes.step(made)
    assert deployment.store.get(Volume, made) is None


@pytest.mark.parametrize(("full", "state"), [(True, "error"), (False, "available")])
def test_what_outlives_a_launch_that_failed_is_made_or_an_error(deployment: Deployment, full: bool, state: str) -> None:
    """It was creating, and there is nothing behind it: it must not be called available."""
    instance = deployment.launch()
    data = v.create(deployment, "data")
    v.attach(deployment, data, instance)
    with deployment.store.write() as tx:
        tx.put(replace(v.volume(deployment, data), state="creating"))

    def fault(called: str, name: str) -> None:
        if (called, name) == ("create_layer", "layer-data"):
            raise CapacityError("the disk is full")

    deployment.host.storage.fault = fault
    deployment.step(instance.id)
    assert deployment.instance(instance.id).state is State.SHUTTING_DOWN
    deployment.step(instance.id)
    row = v.volume(deployment, data)
    assert (row.state, row.attachment) == ("creating", None)
    if not full:
        deployment.host.storage.fault = lambda called, name: None
    deployment.others()
    assert v.volume(deployment, data).state == state
    assert ("layer-data" in deployment.host.storage.layers()) is not full

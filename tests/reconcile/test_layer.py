"""Layers: what goes, what is merged, and what is left alone."""

from __future__ import annotations

import threading

import pytest

from orchestrator.host import HostError
from orchestrator.model.image import BlockDevice, ExportTask, Image
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.owned import is_needed
from orchestrator.model.snapshot import Snapshot
from orchestrator.reconcile.layer import InUse, LayerFiles
from orchestrator.reconcile.loop import Again, Done
from tests.reconcile import volumes as v
from tests.reconcile.conftest import BASE_LAYER, Deployment


def delete_base(deployment: Deployment) -> None:
    """The snapshot that the base layer is there for."""
    v.delete_snapshot(deployment, "snap-0" + "b" * 16)


def test_space_comes_back_all_the_way_down(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data", parent=BASE_LAYER)
    delete_base(deployment)
    assert is_needed(deployment.store, BASE_LAYER)
    taken = [*v.snapshot(deployment, data), *v.snapshot(deployment, data)]
    deployment.others()
    v.delete(deployment, data)
    for each in taken:
        v.delete_snapshot(deployment, each)
    deployment.others()
    assert deployment.host.storage.layers() == []
    assert deployment.store.all(Layer) == []


def test_what_a_snapshot_froze_gets_a_checksum_until_it_changes(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data")
    taken = [*v.snapshot(deployment, data)]
    deployment.others()
    taken += v.snapshot(deployment, data)
    deployment.others()
    below, frozen = (deployment.store.get(Layer, v.snap(deployment, each).layer_id) for each in taken)
    top = deployment.store.get(Layer, v.volume(deployment, data).layer_id)
    assert below is not None and frozen is not None and top is not None
    assert below.sha512 and frozen.sha512 and below.sha512 != frozen.sha512 and not top.sha512
    summed: list[str] = []

    def fault(method: str, name: str) -> None:
        if method == "checksum_layer":
            summed.append(name)

    deployment.host.storage.fault = fault
    v.delete_snapshot(deployment, taken[0])
    deployment.others()  # it is merged into the other, whose file is another one then
    assert summed == [frozen.id]
    now = deployment.store.get(Layer, frozen.id)
    assert now is not None and now.sha512


def test_at_rest_a_layer_with_one_child_is_merged_into_it(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data", parent=BASE_LAYER)
    first, second = (v.snapshot(deployment, data)[0] for _ in range(2))
    deployment.others()
    middle = v.snap(deployment, second).layer_id
    v.delete_snapshot(deployment, first)
    deployment.others()
    status = deployment.host.storage.observe_layer(middle)
    assert status is not None
    assert status.parent == BASE_LAYER
    assert "layer-data" not in deployment.host.storage.layers()
    assert deployment.host.storage.is_sealed(middle)
    v.check(deployment)


def test_not_while_a_machine_reads_the_child_but_when_it_stops(deployment: Deployment) -> None:
    instance = v.running(deployment)
    root = v.root_of(deployment, instance)
    first, second = (v.snapshot(deployment, root.id)[0] for _ in range(2))
    v.settle_all(deployment)
    merged: list[str] = []
    deployment.host.storage.fault = lambda method, name: merged.append(name) if method == "merge_layer" else None
    v.delete_snapshot(deployment, first)
    v.settle_all(deployment)
    assert merged == []
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    v.settle_all(deployment)
    assert merged == [v.snap(deployment, second).layer_id]
    v.check(deployment)


def test_not_while_a_machine_reads_it_through_another_volume(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data", parent=BASE_LAYER)
    first, second = (v.snapshot(deployment, data)[0] for _ in range(2))
    deployment.others()
    instance = v.running(deployment)
    v.attached(deployment, "clone", instance, parent=v.snap(deployment, second).layer_id)
    v.delete_snapshot(deployment, first)
    v.settle_all(deployment)
    assert "layer-data" in deployment.host.storage.layers()
    v.detach(deployment, "vol-clone")
    v.settle_all(deployment)
    assert "layer-data" not in deployment.host.storage.layers()
    v.check(deployment)


def test_not_while_a_task_reads_it(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data", parent=BASE_LAYER)
    first, second = (v.snapshot(deployment, data)[0] for _ in range(2))
    deployment.others()
    export = ExportTask(
        id="export-ami-1",
        image_id="ami-1",
        layer_id=v.snap(deployment, second).layer_id,
        file_format="raw",
        **v.owned(deployment),
    )
    with deployment.store.write() as tx:
        tx.put(export)
    v.delete_snapshot(deployment, first)
    assert isinstance(again := deployment.layers.step("layer-data"), Again)
    assert again.after_s > 1
    with deployment.store.write() as tx:
        tx.delete(export)
    deployment.others()
    v.check(deployment)


def test_a_merge_waits_for_nobody_and_nobody_for_it(deployment: Deployment) -> None:
    """While it lasts, the loop goes on, and whoever needs the file is told to come again."""
    data = v.free_volume(deployment, "data", parent=BASE_LAYER)
    first, second = (v.snapshot(deployment, data)[0] for _ in range(2))
    deployment.others()
    middle = v.snap(deployment, second).layer_id
    began, go_on = threading.Event(), threading.Event()
    real = deployment.host.storage.merge_layer

    def merge(chain, onto):  # type: ignore[no-untyped-def]
        began.set()
        assert go_on.wait(10)
        real(chain, onto)

    deployment.host.storage.merge_layer = merge  # type: ignore[method-assign]
    v.delete_snapshot(deployment, first)
    assert isinstance(deployment.layers.step("layer-data"), Again)
    assert began.is_set()
    with pytest.raises(InUse), deployment.files.claim(read=[middle], within_s=0):
        pass
    v.delete_snapshot(deployment, second)
    assert isinstance(deployment.layers.step(middle), Again)
    go_on.set()
    deployment.others()
    v.check(deployment)


def test_what_cannot_be_merged_is_left(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data", parent=BASE_LAYER)
    first, _second = (v.snapshot(deployment, data)[0] for _ in range(2))
    deployment.others()

    def fault(method: str, name: str) -> None:
        if method == "merge_layer":
            raise HostError("no", retryable=False)

    deployment.host.storage.fault = fault
    v.delete_snapshot(deployment, first)
    assert deployment.layers.step("layer-data") == Done()
    deployment.others()
    v.check(deployment)


def test_a_kernel_stays_while_something_is_started_on_it(deployment: Deployment) -> None:
    dropped: list[str] = []

    def fault(method: str, name: str) -> None:
        if (method, name) == ("remove_kernel", BASE_LAYER):
            dropped.append(name)

    deployment.host.storage.fault = fault
    kernel_id = "aki-" + BASE_LAYER.partition("-")[2]
    image = Image(
        id="ami-1",
        name="baked",
        kernel_id=kernel_id,
        block_devices=(BlockDevice(device="/dev/xvda"),),
        **v.owned(deployment),
    )
    with deployment.store.write() as tx:
        tx.put(image)
    instance = v.running(deployment, kernel_id=kernel_id)
    deployment.ask(instance.id, State.TERMINATED, State.SHUTTING_DOWN)
    v.settle_all(deployment)
    delete_base(deployment)
    deployment.others()
    assert deployment.host.storage.layers() == []
    assert dropped == []
    with deployment.store.write() as tx:
        tx.delete(image)
    deployment.clock.pass_(hours=2)
    v.settle_all(deployment)
    assert dropped == [BASE_LAYER]


def test_claims_of_readers_and_writers(deployment: Deployment) -> None:
    files = LayerFiles(deployment.store, deployment.host.storage, deployment.keys)
    with files.claim(read=["a", "b"]):
        with files.claim(read=["b"], write=["c"], within_s=0):
            pass
        with pytest.raises(InUse), files.claim(write=["a"], within_s=0):
            pass
    with files.claim(write=["a"]):
        with pytest.raises(InUse), files.claim(read=["a"], within_s=0):
            pass
        with pytest.raises(InUse), files.claim(write=["a"], within_s=0):
            pass
    with files.claim(write=["a"], within_s=0):
        pass


def test_a_layer_that_a_copy_is_made_of_stays(deployment: Deployment) -> None:
    with deployment.store.write() as tx:
        copy = Layer(id="layer-copy", size_bytes=1, copy_of=BASE_LAYER, **v.owned(deployment))
        tx.put(copy)
        tx.put(Snapshot(id="snap-copy", layer_id=copy.id, size_gib=1, state="pending", **v.owned(deployment)))
    delete_base(deployment)
    deployment.others()
    assert BASE_LAYER in deployment.host.storage.layers()
    deployment.snapshots.step("snap-copy")
    deployment.others()
    assert deployment.host.storage.layers() == ["layer-copy"]


@pytest.mark.parametrize("merged", [True, False])
def test_what_a_merge_was_to_lie_on_stays_until_it_is_known_how_far_it_came(
    deployment: Deployment, merged: bool
) -> None:
    """The rows have the layer between on the lower one still, so that would be merged away under the file."""
    data = v.free_volume(deployment, "data")
    lower, between, upper = (v.snapshot(deployment, data)[0] for _ in range(3))
    deployment.others()
    low, top = (v.snap(deployment, each).layer_id for each in (lower, upper))
    real = deployment.host.storage.merge_layer

    class Killed(BaseException):
        pass

    def dies(chain, onto):  # type: ignore[no-untyped-def]
        deployment.host.storage.merge_layer = real  # type: ignore[method-assign]
        if merged:
            real(chain, onto)
        raise Killed

    deployment.host.storage.merge_layer = dies  # type: ignore[method-assign]
    v.delete_snapshot(deployment, between)
    with pytest.raises(Killed):
        deployment.others()
    deployment.restart()
    v.delete_snapshot(deployment, lower)
    deployment.layers.step(low)
    status = deployment.host.storage.observe_layer(top)
    assert status is not None
    assert status.parent == "" or deployment.host.storage.observe_layer(status.parent) is not None
    deployment.others()
    v.check(deployment)
    assert v.chain(deployment, data)[1:] == [top]

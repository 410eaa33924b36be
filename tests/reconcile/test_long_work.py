"""What takes minutes is done beside the loop: each time that it is asked for, while others go on and wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from orchestrator.host import HostError
from orchestrator.model.image import Build
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.snapshot import Snapshot
from orchestrator.reconcile.build import KEPT, Builds
from orchestrator.reconcile.instance import LAUNCH_DEADLINE
from orchestrator.reconcile.layer import SOON_S, LayerFiles
from orchestrator.reconcile.loop import Again, Loop
from orchestrator.reconcile.snapshot import GIVE_UP_AFTER
from tests.reconcile import volumes
from tests.reconcile.conftest import ACCOUNT, BASE_LAYER, Deployment

PATIENCE_S = 10.0


def until(condition: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.005)


def slowed(deployment: Deployment, method: str) -> None:
    """So that whoever asks does not wait for its end."""
    at_once = getattr(deployment.host.storage, method)

    def slow(*given: Any, **named: Any) -> Any:
        threading.Event().wait(SOON_S + 0.1)
        return at_once(*given, **named)

    setattr(deployment.host.storage, method, slow)


def settle(deployment: Deployment) -> None:
    """As the loop: what is to be asked again is asked again, when it says so."""
    kinds = {"layer": deployment.layers, "volume": deployment.volumes, "snapshot": deployment.snapshots}
    while woken := [each for each in deployment.store.pending_wakes() if each[0] in kinds]:
        for kind, name, serial in woken:
            pause = threading.Event()
            while isinstance(result := kinds[kind].step(name), Again):
                pause.wait(result.after_s)
            deployment.store.wake_done(kind, name, serial)


@pytest.fixture
def claims_at_once(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds a file in somebody's hands does not wait before it says so."""
    monkeypatch.setattr(deployment.files, "claim", partial(deployment.files.claim, within_s=0.01))


def copied_long_ago(deployment: Deployment) -> None:
    """CopySnapshot under another key, of `snap-copy`, of which nothing is done yet."""
    owned = volumes.owned(deployment)
    copy = Snapshot(id="snap-copy", layer_id="layer-copy", size_gib=1, state="pending", progress_percent=0, **owned)
    with deployment.store.write() as tx:
        tx.put_all([Layer(id="layer-copy", size_bytes=1, copy_of=BASE_LAYER, **owned), copy])
    deployment.clock.pass_(seconds=GIVE_UP_AFTER.total_seconds() + 60)


def test_each_merge_of_a_layer_is_done(deployment: Deployment) -> None:
    volume_id = volumes.free_volume(deployment, "data")
    taken = []
    for _ in range(3):
        taken += volumes.snapshot(deployment, volume_id)
        deployment.others()
    settle(deployment)
    slowed(deployment, "merge_layer")
    kept, *newer = taken
    for each in reversed(newer):
        volumes.delete_snapshot(deployment, each)
        settle(deployment)
    assert volumes.chain(deployment, volume_id)[1:] == [volumes.snap(deployment, kept).layer_id]
    assert not deployment.files._jobs


def test_a_layer_that_took_another_in_has_a_checksum_again(deployment: Deployment) -> None:
    volume_id = volumes.free_volume(deployment, "data", parent=BASE_LAYER)
    [first] = volumes.snapshot(deployment, volume_id)
    deployment.others()
    [second] = volumes.snapshot(deployment, volume_id)
    slowed(deployment, "checksum_layer")
    settle(deployment)

    def checksum() -> str:
        layer = deployment.store.get(Layer, volumes.snap(deployment, second).layer_id)
        return layer.sha512 if layer is not None else ""

    before = checksum()
    volumes.delete_snapshot(deployment, first)
    settle(deployment)
    assert before and checksum() and not deployment.files._jobs


def test_a_launch_may_take_long_and_then_fail_for_a_moment(deployment: Deployment) -> None:
    """An encrypted root of a plain snapshot is copied whole."""
    instance = deployment.launch()
    root = "layer-" + instance.id[2:]
    with deployment.store.write() as tx:
        layer = tx.get(Layer, root)
        assert layer is not None
        tx.put(replace(layer, parent_id="", copy_of=BASE_LAYER))
    copied, copy = threading.Event(), deployment.host.storage.copy_layer

    def copy_later(*given: Any, **named: Any) -> Any:
        assert copied.wait(PATIENCE_S)
        return copy(*given, **named)

    deployment.host.storage.copy_layer = copy_later  # type: ignore[method-assign]
    assert isinstance(deployment.step(instance.id), Again)
    deployment.clock.pass_(seconds=LAUNCH_DEADLINE.total_seconds() + 60)
    copied.set()
    until(lambda: not deployment.files._jobs)
    _failing_starts(deployment, 1)
    with pytest.raises(HostError, match="restarted"):
        deployment.step(instance.id)
    deployment.step(instance.id)
    assert deployment.instance(instance.id).state is State.RUNNING


def test_a_launch_that_fails_for_long_is_given_up(deployment: Deployment) -> None:
    instance = deployment.launch()
    _failing_starts(deployment, 1000)
    with pytest.raises(HostError):
        deployment.step(instance.id)
    deployment.clock.pass_(seconds=-3600)  # the clock is put back, and the waiting begins anew
    with pytest.raises(HostError):
        deployment.step(instance.id)
    deployment.clock.pass_(seconds=LAUNCH_DEADLINE.total_seconds() - 1)
    with pytest.raises(HostError):
        deployment.step(instance.id)
    deployment.clock.pass_(seconds=1)
    deployment.settle(instance.id)
    assert deployment.instance(instance.id).state is State.TERMINATED
    assert not deployment.instances._launching._since


def _failing_starts(deployment: Deployment, times: int) -> None:
    left = [HostError("libvirt is being restarted")] * times

    def fault(method: str, name: str) -> None:
        if method == "start" and left:
            raise left.pop()

    deployment.host.compute.fault = fault


def test_an_instance_whose_machine_is_gone_and_does_not_come_back_is_impaired(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    deployment.host.compute.remove(instance.id)
    _failing_starts(deployment, 2)
    for _ in range(2):
        with pytest.raises(HostError):
            deployment.step(instance.id)
        found = deployment.instance(instance.id)
        assert (found.state, found.instance_status) == (State.RUNNING, "impaired")
    assert found.impaired_since is not None
    deployment.step(instance.id)
    found = deployment.instance(instance.id)
    assert (found.state, found.instance_status, found.impaired_since) == (State.RUNNING, "initializing", None)


@pytest.mark.usefixtures("claims_at_once")
def test_a_launch_waits_for_whoever_works_on_its_image(deployment: Deployment) -> None:
    instance: Instance = deployment.launch()
    with LayerFiles.claim(deployment.files, write=[BASE_LAYER]):  # a merge, of many gigabytes
        for _ in range(4):
            assert isinstance(deployment.step(instance.id), Again)
            deployment.clock.pass_(seconds=LAUNCH_DEADLINE.total_seconds())
        assert deployment.instance(instance.id).state is State.PENDING
    deployment.settle(instance.id)
    assert deployment.instance(instance.id).state is State.RUNNING


@pytest.mark.usefixtures("claims_at_once")
def test_a_copy_of_a_snapshot_waits_its_turn_for_as_long_as_it_takes(deployment: Deployment) -> None:
    copied_long_ago(deployment)
    with LayerFiles.claim(deployment.files, write=[BASE_LAYER]):
        for _ in range(3):
            with suppress(HostError):
                deployment.snapshots.step("snap-copy")
        assert volumes.snap(deployment, "snap-copy").state == "pending"
    while isinstance(deployment.snapshots.step("snap-copy"), Again):
        pass
    assert volumes.snap(deployment, "snap-copy").state == "completed"


def test_imports_keep_nobody_from_being_looked_at(deployment: Deployment) -> None:
    enough = threading.Event()

    def convert(*given: Any) -> Any:
        enough.wait(PATIENCE_S)
        raise HostError("enough", retryable=False)

    deployment.host.storage.import_image = convert  # type: ignore[method-assign]
    builds = Builds(deployment.store, deployment.files, deployment.clock)
    loop = Loop(deployment.store, {Build.KIND: builds.step, Instance.KIND: deployment.instances.step}, workers=2)
    loop.start()
    mine = {"account": ACCOUNT, "region": EVERY_REGION, "created": deployment.clock()}
    names = [f"build-{number:017x}" for number in range(4)]
    with deployment.store.write() as tx:
        for name in names:
            upload = {"source": "upload", "upload_id": name, "file_format": "raw"}
            tx.wake(tx.put(Build(id=name, name=name, **upload, **mine)))  # type: ignore[arg-type]
    until(lambda: len(deployment.files._jobs) == len(names))
    instance = deployment.launch()
    with deployment.store.write() as tx:
        tx.wake(instance)
    until(lambda: deployment.instance(instance.id).state is State.RUNNING)
    enough.set()

    def failed() -> bool:
        found = [deployment.store.get(Build, name) for name in names]
        return all(each is not None and each.state == "failed" for each in found)

    until(failed)
    until(lambda: not deployment.files._jobs)
    loop.stop()
    assert [builds.step(name) for name in names] == [Again(KEPT.total_seconds())] * len(names)


# --- asked for long ago, and failing once ---


def failing_once(part: Any, method: str) -> None:
    real, left = getattr(part, method), [HostError("not just now")]

    def fail_once(*given: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return real(*given, **named)

    setattr(part, method, fail_once)


def tried_again(step: Callable[[str], Any], name: str) -> None:
    with pytest.raises(HostError, match="not just now"):
        while isinstance(step(name), Again):
            pass
    while isinstance(step(name), Again):
        pass


def test_a_copy_into_a_volume(deployment: Deployment) -> None:
    volume_id = volumes.create(deployment, "data", copy_of=BASE_LAYER)
    deployment.clock.pass_(seconds=GIVE_UP_AFTER.total_seconds() + 60)
    failing_once(deployment.host.storage, "copy_layer")
    tried_again(deployment.volumes.step, volume_id)
    assert volumes.volume(deployment, volume_id).state == "available"


def test_a_copy_of_a_snapshot(deployment: Deployment) -> None:
    copied_long_ago(deployment)
    failing_once(deployment.host.storage, "copy_layer")
    tried_again(deployment.snapshots.step, "snap-copy")
    assert volumes.snap(deployment, "snap-copy").state == "completed"


def test_a_snapshot_of_a_machine_that_libvirt_did_not_show(deployment: Deployment) -> None:
    instance = volumes.running(deployment)
    [taken] = volumes.snapshot(deployment, volumes.root_of(deployment, instance).id)
    deployment.clock.pass_(seconds=GIVE_UP_AFTER.total_seconds() + 60)
    failing_once(deployment.host.compute, "switch_disks")
    with pytest.raises(HostError, match="not just now"):
        volumes.settle_all(deployment)
    volumes.settle_all(deployment)
    assert volumes.snap(deployment, taken).state == "completed"


def test_a_modification_that_fails_for_long_is_given_up(deployment: Deployment) -> None:
    instance = volumes.running(deployment)
    root = volumes.root_of(deployment, instance)
    deployment.host.compute.fault = lambda method, name: _raise_for(method, "resize_disk")
    volumes.modify(deployment, root.id, size_gib=20)
    for _ in range(2):
        with pytest.raises(HostError, match="not just now"):
            deployment.step(instance.id)
        deployment.clock.pass_(seconds=GIVE_UP_AFTER.total_seconds() / 2)
    deployment.step(instance.id)
    modification = volumes.volume(deployment, root.id).modification
    assert modification is not None
    assert modification.state == "failed"


def _raise_for(method: str, failing: str) -> None:
    if method == failing:
        raise HostError("not just now")


def test_one_failure_is_forgotten_when_the_next_try_goes_well(deployment: Deployment) -> None:
    """A snapshot that waits while its machine starts, and one a day later."""
    instance = volumes.running(deployment)
    root = volumes.root_of(deployment, instance)
    for _ in range(2):
        deployment.ask(instance.id, State.STOPPED, State.STOPPING, forced=True)
        deployment.settle(instance.id)
        [taken] = volumes.snapshot(deployment, root.id)
        deployment.ask(instance.id, State.RUNNING, State.PENDING)
        failing_once(deployment.host.storage, "create_layer")
        with pytest.raises(HostError, match="not just now"):
            deployment.step(instance.id)
        deployment.settle(instance.id)
        volumes.settle_all(deployment)
        assert volumes.snap(deployment, taken).state == "completed"
        deployment.clock.pass_(days=1)
    assert not deployment.instances._disks._failing._since


def test_a_modification_that_was_done_at_rest_is_no_failing_one(deployment: Deployment) -> None:
    instance = volumes.running(deployment)
    root = volumes.root_of(deployment, instance)
    failing_once(deployment.host.compute, "resize_disk")
    volumes.modify(deployment, root.id, size_gib=20)
    with pytest.raises(HostError, match="not just now"):
        deployment.step(instance.id)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING, forced=True)
    deployment.settle(instance.id)
    volumes.settle_all(deployment)
    deployment.ask(instance.id, State.RUNNING, State.PENDING)
    deployment.settle(instance.id)
    deployment.clock.pass_(days=1)
    failing_once(deployment.host.compute, "resize_disk")
    volumes.modify(deployment, root.id, size_gib=30)
    with pytest.raises(HostError, match="not just now"):
        deployment.step(instance.id)
    volumes.settle_all(deployment)
    row = volumes.volume(deployment, root.id)
    assert row.modification is not None
    assert (row.modification.state, row.size_gib) == ("completed", 30)


@pytest.mark.usefixtures("claims_at_once")
def test_an_instance_whose_files_somebody_works_on_is_not_impaired(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    before = deployment.instance(instance.id).instance_status
    deployment.host.compute.remove(instance.id)
    with LayerFiles.claim(deployment.files, write=[BASE_LAYER]):
        assert isinstance(deployment.step(instance.id), Again)
    assert deployment.instance(instance.id).instance_status == before

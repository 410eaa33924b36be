"""Builds, the catalogue, and layers that nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.host import HostError
from orchestrator.model.image import Build, Image
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.reconcile.build import Builds, image_id, register_catalogue
from orchestrator.reconcile.loop import Again, Done
from orchestrator.store import Transaction
from tests.reconcile.conftest import ACCOUNT, BASE_LAYER, Deployment

FORGOTTEN_LATER = Again(7 * 86400.0)


@pytest.fixture
def builds(deployment: Deployment) -> Builds:
    return Builds(deployment.store, deployment.files, deployment.clock)


def begin(deployment: Deployment, number: int = 101, **changes: str) -> Build:
    build = Build(
        id=f"build-{number:017x}", account=ACCOUNT, region=EVERY_REGION, created=deployment.clock(), name="tiny"
    )
    with deployment.store.write() as tx:
        tx.put(replace(build, **changes))  # type: ignore[arg-type]
    return build


def test_a_build_becomes_an_image_of_every_region(deployment: Deployment, builds: Builds) -> None:
    build = begin(deployment)
    assert builds.step(build.id) == FORGOTTEN_LATER
    found = deployment.store.get(Build, build.id)
    assert found is not None
    assert (found.state, found.phase) == ("available", "done")
    image = deployment.store.get(Image, found.image_id)
    assert image is not None
    assert (image.name, image.region, image.public, image.login_user) == ("tiny", EVERY_REGION, True, "ec2-user")
    assert image.kernel_id == "aki-" + build.id.partition("-")[2]
    [device] = image.block_devices
    snapshot = deployment.store.get(Snapshot, device.snapshot_id)
    assert snapshot is not None
    assert deployment.store.get(Layer, snapshot.layer_id) is not None
    assert snapshot.layer_id in deployment.host.storage.layers()


def test_a_build_is_done_in_the_moment_in_which_its_image_is_there(
    deployment: Deployment, builds: Builds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is begun anew, and fails then, removes what it has made before."""
    build = begin(deployment)
    seen: list[tuple[int, str]] = []
    write = deployment.store.write

    @contextmanager
    def watched(**named: Any) -> Iterator[Transaction]:
        with write(**named) as tx:
            yield tx
        found = deployment.store.get(Build, build.id)
        assert found is not None
        seen.append((len(deployment.store.all(Image, name="tiny")), found.state))

    monkeypatch.setattr(deployment.store, "write", watched)
    builds.step(build.id)
    assert set(seen) == {(0, "running"), (1, "available")}


def test_a_build_that_fails_says_why_and_leaves_nothing(deployment: Deployment, builds: Builds) -> None:
    build = begin(deployment, name="no-such-recipe")
    assert builds.step(build.id) == FORGOTTEN_LATER
    found = deployment.store.get(Build, build.id)
    assert found is not None
    assert found.state == "failed"
    assert "no-such-recipe" in found.message
    assert deployment.host.storage.layers() == [BASE_LAYER]


@pytest.mark.parametrize("name", ["tiny", "no-such-recipe"])
def test_a_build_is_forgotten_after_a_week_and_its_image_is_not(
    deployment: Deployment, builds: Builds, name: str
) -> None:
    build = begin(deployment, name=name)
    builds.step(build.id)
    deployment.clock.pass_(days=6)
    assert builds.step(build.id) == Again(86400.0)
    deployment.clock.pass_(days=1)
    assert builds.step(build.id) == Done()
    assert deployment.store.get(Build, build.id) is None
    assert len(deployment.store.all(Image, name="tiny")) == (name == "tiny")
    assert builds.step(build.id) == Done()


def test_a_rebuild_takes_the_old_images_place_and_its_layer_goes_when_unused(
    deployment: Deployment, builds: Builds
) -> None:
    first = begin(deployment)
    builds.step(first.id)
    old_layer = "layer-" + first.id.partition("-")[2]
    instance = deployment.launch()
    with deployment.store.write() as tx:
        layer = tx.get(Layer, "layer-" + instance.id[2:])
        assert layer is not None
        tx.put(replace(layer, parent_id=old_layer))
    deployment.settle(instance.id)
    second = begin(deployment, 102)
    builds.step(second.id)
    assert len(deployment.store.all(Image, name="tiny")) == 1
    deployment.others()
    assert old_layer in deployment.host.storage.layers(), "a volume still lies on it"
    deployment.ask(instance.id, State.TERMINATED, State.SHUTTING_DOWN)
    deployment.settle(instance.id)
    assert old_layer not in deployment.host.storage.layers()
    assert deployment.store.get(Layer, old_layer) is None


def test_an_upload_is_read_as_its_stated_format(deployment: Deployment, builds: Builds) -> None:
    deployment.host.storage.receive_upload("upload-1", iter([b"x" * 1000]), 1 << 20)
    build = begin(
        deployment, name="mine", source="upload", upload_id="upload-1", file_format="raw", login_user="debian"
    )
    builds.step(build.id)
    [image] = deployment.store.all(Image, name="mine")
    assert (image.login_user, image.kernel_id) == ("debian", "")


def test_a_build_that_was_cut_off_starts_over_in_the_same_place(deployment: Deployment, builds: Builds) -> None:
    build = begin(deployment, state="running")
    deployment.host.storage.create_layer("layer-" + build.id.partition("-")[2], size_bytes=1 << 20)
    builds.step(build.id)
    assert len([name for name in deployment.host.storage.layers() if name != BASE_LAYER]) == 1


def test_the_catalogue_is_there_once(deployment: Deployment) -> None:
    for _ in range(2):
        register_catalogue(deployment.store, deployment.host.storage, ACCOUNT, deployment.clock())
    assert sorted(image.name for image in deployment.store.all(Image)) == ["debian-12", "tiny"]


def test_the_same_disk_under_the_same_name_is_the_same_image() -> None:
    assert image_id("tiny", "a") == image_id("tiny", "a")
    assert len({image_id("tiny", "a"), image_id("tiny", "b"), image_id("other", "a")}) == 3


def test_a_layer_is_kept_while_anything_refers_to_it(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    [volume] = deployment.store.all(Volume)
    for layer_id in (volume.layer_id, BASE_LAYER):
        assert deployment.layers.step(layer_id) == Done()
        assert deployment.store.get(Layer, layer_id) is not None


def test_a_layer_that_cannot_be_deleted_keeps_its_row(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    [volume] = deployment.store.all(Volume)
    with deployment.store.write() as tx:
        tx.delete(volume)

    def fault(method: str, name: str) -> None:
        raise HostError("busy")

    deployment.host.storage.fault = fault
    with pytest.raises(HostError):
        deployment.layers.step(volume.layer_id)
    assert deployment.store.get(Layer, volume.layer_id) is not None

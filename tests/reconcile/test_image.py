"""Images that are being made."""

from __future__ import annotations

from orchestrator.host import CapacityError
from orchestrator.model.image import BlockDevice, Image
from tests.reconcile import volumes as v
from tests.reconcile.conftest import Deployment


def image(deployment: Deployment, name: str, *snapshots: str) -> None:
    devices = tuple(BlockDevice(device=f"/dev/sd{each[-1]}", snapshot_id=each) for each in snapshots)
    with deployment.store.write() as tx:
        row = Image(id=name, name=name, state="pending", block_devices=devices, **v.owned(deployment))
        tx.wake(tx.put(row))


def found(deployment: Deployment, name: str) -> Image:
    row = deployment.store.get(Image, name)
    assert row is not None
    return row


def test_it_is_available_once_all_its_snapshots_are_completed(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data")
    image(deployment, "ami-1", *v.snapshot(deployment, data), *v.snapshot(deployment, data))
    deployment.images.step("ami-1")
    assert found(deployment, "ami-1").state == "pending"
    deployment.others()
    assert found(deployment, "ami-1").state == "available"


def test_it_fails_with_one_of_them(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data")
    [good] = v.snapshot(deployment, data)
    deployment.others()

    def fault(method: str, name: str) -> None:
        if method == "create_layer":
            raise CapacityError("the disk is full")

    deployment.host.storage.fault = fault
    image(deployment, "ami-1", good, *v.snapshot(deployment, data))
    deployment.others()
    failed = found(deployment, "ami-1")
    assert failed.state == "failed"
    assert "the disk is full" in failed.state_message
    assert failed.state_code


def test_it_fails_when_one_of_them_is_deleted(deployment: Deployment) -> None:
    data = v.free_volume(deployment, "data")
    [gone] = v.snapshot(deployment, data)
    image(deployment, "ami-1", gone)
    v.delete_snapshot(deployment, gone)
    deployment.others()
    assert found(deployment, "ami-1").state == "failed"
    v.check(deployment)


def test_one_that_boots_with_no_volume_is_available_at_once(deployment: Deployment) -> None:
    image(deployment, "ami-1")
    deployment.others()
    assert found(deployment, "ami-1").state == "available"


def test_its_kernel_goes_with_the_last_that_starts_on_it(deployment: Deployment) -> None:
    storage = deployment.host.storage
    layer = "layer-" + "0" * 17
    storage.build_image("tiny", layer, lambda line: None)
    with deployment.store.write() as tx:
        for name in ("ami-1", "ami-2"):
            tx.put(Image(id=name, name=name, kernel_id="aki-" + "0" * 17, **v.owned(deployment)))
    for gone, left in (("ami-1", [layer]), ("ami-2", [])):
        with deployment.store.write() as tx:
            tx.delete(found(deployment, gone))
        deployment.images.step(gone)
        assert storage.kernels() == left

"""What the clock does to snapshots and images: out of the recycle bin, back into the archive."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.layer import Layer
from orchestrator.model.snapshot import Snapshot
from orchestrator.reconcile.loop import Again
from orchestrator.reconcile.recycle_bin import LOOK_EACH_S, RecycleBin
from orchestrator.store import Store
from tests.conftest import Clock

OWNED = {"account": "1" * 12, "region": "us-east-1"}


class World:
    def __init__(self, path: Path, clock: Clock) -> None:
        self.store = Store(path, durable=False)
        self.clock = clock
        self.bin = RecycleBin(self.store, clock)

    def put(self, snapshot_id: str, **fields: Any) -> None:
        layer = Layer(id="layer-" + snapshot_id, size_bytes=1 << 30, created=self.clock(), **OWNED)
        given = {"layer_id": layer.id, "size_gib": 1, "created": self.clock(), **OWNED, **fields}
        with self.store.write() as tx:
            tx.put(layer)
            tx.put(Snapshot(id=snapshot_id, **given))

    def recycle(self, snapshot_id: str, seconds: float) -> None:
        now = self.clock()
        self.put(snapshot_id, recycled_at=now, recycled_until=now + timedelta(seconds=seconds))

    def step(self) -> float:
        after = self.bin.step(RecycleBin.KEY)
        assert isinstance(after, Again)
        return after.after_s

    def ids(self) -> set[str]:
        return {snapshot.id for snapshot in self.store.all(Snapshot)}


@pytest.fixture
def world(tmp_path: Path, clock: Clock) -> World:
    return World(tmp_path / "store.sqlite", clock)


def test_nothing_to_do_is_looked_at_again(world: World) -> None:
    world.put("snap-1")
    before = world.store._revision
    assert world.step() == LOOK_EACH_S
    assert world.store._revision == before


def test_out_of_the_bin_in_time(world: World) -> None:
    world.put("snap-1")
    world.recycle("snap-2", 100)
    world.recycle("snap-3", 1000)
    assert world.step() == 100
    assert world.ids() == {"snap-1", "snap-2", "snap-3"}
    world.clock.pass_(seconds=100)
    assert world.step() == LOOK_EACH_S
    assert world.ids() == {"snap-1", "snap-3"}
    assert [resource_id for _, resource_id, _ in world.store.pending_wakes()] == ["layer-snap-2"]
    world.clock.pass_(seconds=900)
    world.step()
    assert world.ids() == {"snap-1"}


def test_images_go_too(world: World) -> None:
    now = world.clock()
    device = BlockDevice(device="/dev/xvda", snapshot_id="snap-1")
    image = {"name": "web", "block_devices": (device,), "created": now, **OWNED}
    with world.store.write() as tx:
        tx.put(Image(id="ami-1", recycled_at=now, recycled_until=now + timedelta(days=1), **image))
        tx.put(Image(id="ami-2", **image))
    world.clock.pass_(seconds=86400)
    world.step()
    assert [found.id for found in world.store.all(Image)] == ["ami-2"]


def test_restored_meanwhile_stays(world: World) -> None:
    world.recycle("snap-1", 10)
    world.clock.pass_(seconds=10)
    rows = world.bin._rows()
    with world.store.write() as tx:
        tx.put(Snapshot(id="snap-1", layer_id="layer-snap-1", size_gib=1, created=world.clock(), **OWNED))
    world.bin._rows = lambda: rows  # type: ignore[method-assign]  # what was seen before it was restored
    world.step()
    assert world.ids() == {"snap-1"}


def test_back_into_the_archive(world: World) -> None:
    over = world.clock() + timedelta(days=3)
    world.put("snap-1", tier="archive", restore_expires_at=over, tier_changed_at=world.clock())
    world.step()
    world.clock.pass_(seconds=3 * 86400 + 60)
    world.step()
    snapshot = world.store.get(Snapshot, "snap-1")
    assert snapshot is not None
    assert (snapshot.restore_expires_at, snapshot.tier_changed_at, snapshot.archived_at) == (None, over, over)
    assert snapshot.is_archived(world.clock())
    assert world.step() == LOOK_EACH_S

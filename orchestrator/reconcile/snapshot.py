"""Snapshots: a pending one is completed once nothing writes to its layer any more.

    of a volume of a machine that is on     by the step of that instance, which switches the machine to the new top
    of any other volume                     by the step of that volume, which makes the new top
    of a volume that is gone, or shared     here: the layer is whole as it is
    a copy                                  here: the content is copied first

What cannot be done is undone: the snapshot fails, and with it all of the same moment and all later ones on top of it,
and each volume's top is again what it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.host import HostError
from orchestrator.model.image import Image
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.reconcile.failing import Failing
from orchestrator.reconcile.layer import WORK_EACH_S, LayerFiles, layers_below, machine_of, moments
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.store import Store, Transaction

log = logging.getLogger(__name__)

GIVE_UP_AFTER = timedelta(minutes=5)  # of retrying what fails
PROGRESS_EACH = timedelta(seconds=1)


def complete(tx: Transaction, snapshot: Snapshot, now: datetime, consistency: str = "") -> None:
    """`consistency` holds unless it is known already."""
    tx.put(
        replace(
            snapshot,
            state="completed",
            progress_percent=100,
            completed_at=now,
            consistency=snapshot.consistency or consistency,
        )
    )
    layer = tx.get(Layer, snapshot.layer_id)
    if layer is not None:
        tx.wake(layer)
    _wake_images(tx, snapshot)


def fail(tx: Transaction, snapshot: Snapshot, message: str) -> None:
    layer = tx.get(Layer, snapshot.layer_id)
    tx.put(replace(snapshot, state="error", state_message=message[:1000], layer_id=""))
    if layer is not None:
        tx.wake(layer)
    _wake_images(tx, snapshot)


def _wake_images(tx: Transaction, snapshot: Snapshot) -> None:
    for image in tx.all(Image, snapshot_ids=snapshot.id):
        tx.wake(image)


def waiting_on(tx: Transaction, layer: Layer) -> list[Snapshot]:
    """The snapshots that are completed when `layer` has come on top of what they froze."""
    return [s for s in tx.all(Snapshot, layer_id=layer.parent_id) if s.state == "pending"]


def arrive(tx: Transaction, layers: Iterable[Layer], now: datetime, consistency: str) -> None:
    """These layers are on top now, so what they lie on is frozen. One of a moment with the machine off is that."""
    for layer in layers:
        current = tx.get(Layer, layer.id)
        if current is None or not current.moment:
            continue
        for snapshot in waiting_on(tx, current):
            complete(tx, snapshot, now, "off" if current.when == "off" else consistency)
        tx.put(replace(current, moment=""))
        frozen = tx.get(Layer, current.parent_id)
        if frozen is not None:
            tx.wake(frozen)


def mark(tx: Transaction, layers: Iterable[Layer], consistency: str) -> None:
    """How the content of what these layers are to freeze is, if that is not known yet."""
    for layer in layers:
        for snapshot in waiting_on(tx, layer):
            if not snapshot.consistency:
                tx.put(replace(snapshot, consistency=consistency))


def undo(tx: Transaction, volumes: Iterable[Volume], moment: str, message: str) -> None:
    """A moment cannot be: it and all that lies on it in these volumes is given up."""
    waiting = {volume.id: moments(tx, volume.layer_id) for volume in volumes}
    failed = {moment}
    while True:
        more = set(failed)
        for layers in waiting.values():
            first = _first(layers, failed)
            more |= {layer.moment for layer in layers[first:]}
        if more == failed:
            break
        failed = more
    for volume_id, layers in waiting.items():
        lost = layers[_first(layers, failed) :]
        volume = tx.get(Volume, volume_id)
        if volume is None or not lost:
            continue
        for layer in lost:
            for snapshot in waiting_on(tx, layer):
                log.warning("snapshot %s cannot be made: %s", snapshot.id, message)
                fail(tx, snapshot, message)
        tx.put(replace(volume, layer_id=lost[0].parent_id))
        tx.wake(lost[-1])


def _first(layers: list[Layer], failed: set[str]) -> int:
    return next((place for place, layer in enumerate(layers) if layer.moment in failed), len(layers))


class Snapshots:
    def __init__(self, store: Store, files: LayerFiles, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._failing = Failing(clock, GIVE_UP_AFTER)

    def step(self, snapshot_id: str) -> Next:
        snapshot = self._store.get(Snapshot, snapshot_id)
        if snapshot is None or snapshot.state != "pending":
            self._failing.went_on(snapshot_id)
            return Done()
        layer = self._store.get(Layer, snapshot.layer_id)
        if layer is None:
            return self._fail(snapshot, "its layer is gone")
        volume = self._store.get(Volume, snapshot.volume_id)
        if volume is not None and any(each.parent_id == layer.id for each in moments(self._store, volume.layer_id)):
            return self._leave_to_others(volume)
        try:
            if not self._make(snapshot, layer):
                self._failing.went_on(snapshot_id)
                return Again(WORK_EACH_S)
        except HostError as error:
            if not self._failing.is_hopeless(snapshot_id, error):
                raise
            return self._fail(snapshot, str(error))
        self._failing.went_on(snapshot_id)
        with self._store.write() as tx:
            current = tx.get(Snapshot, snapshot_id)
            if current is not None and current.state == "pending":
                # A volume that was deleted meanwhile may have lost its machine's plug.
                complete(tx, current, self._clock(), "crash" if current.volume_id and volume is None else "")
                for each in moments(tx, layer.id):  # they are there now, and nobody else brings them
                    tx.put(replace(each, moment=""))
        return Done()

    def _make(self, snapshot: Snapshot, layer: Layer) -> bool:
        """Its layer's file, with those below that nobody has made yet."""
        written = snapshot.created

        def progress(done: float) -> None:
            nonlocal written
            if self._clock() - written >= PROGRESS_EACH:
                written = self._clock()
                self._write_progress(snapshot.id, round(done * 100))

        if layer.copy_of:
            return self._files.make(layer.id, progress) and self._seal(layer)
        missing = [layer]
        while missing[-1].moment and (below := self._store.get(Layer, missing[-1].parent_id)) is not None:
            missing.append(below)
        for each in reversed(missing):
            if self._files.storage.observe_layer(each.id) is None and not self._files.make(each.id):
                return False
        return self._seal(layer)

    def _seal(self, layer: Layer) -> bool:
        with self._files.claim(write=[layer.id]):
            self._files.follow(layer.id)
            self._files.storage.seal_layer(layer.id)
        return True

    def _write_progress(self, snapshot_id: str, percent: int) -> None:
        with self._store.write() as tx:
            current = tx.get(Snapshot, snapshot_id)
            if current is not None and current.state == "pending":
                tx.put(replace(current, progress_percent=min(percent, 99)))

    def _leave_to_others(self, volume: Volume) -> Next:
        with self._store.write() as tx:
            instance = tx.get(Instance, machine_of(tx, volume))
            if instance is not None:
                tx.wake(instance)
            else:
                tx.wake(volume)
        return Done()

    def _fail(self, snapshot: Snapshot, message: str) -> Next:
        with self._store.write() as tx:
            current = tx.get(Snapshot, snapshot.id)
            if current is not None and current.state == "pending":
                fail(tx, current, message)
        return Done()


def layers_to_make(store: Store, files: LayerFiles, volume: Volume) -> list[Layer]:
    """Those of a volume that are not on the host yet, the lowest first; at least its top, which may be too small."""
    layers = list(layers_below(store, volume.layer_id))
    waiting = moments(store, volume.layer_id)
    frozen = layers[len(waiting) : len(waiting) + 1]
    if waiting and frozen and files.storage.observe_layer(frozen[0].id) is not None:
        return waiting
    return [*frozen, *waiting]

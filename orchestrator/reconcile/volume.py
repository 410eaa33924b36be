"""Volumes that no machine has: made, deleted, and whatever was asked for while nobody writes to them.

    creating ----> available      its layer is made, or copied; cannot be -> error
    deleting ----> no row         its layers go as far as nothing else needs them
    attaching, detaching          done at once, as the instance is stopped
    its top is not there yet      made: the snapshots that wait are completed
    modifying ---> optimizing     grown
    too deep, or on what nothing else needs ----> merged

A volume whose instance's machine may be on is never touched: the instance is woken. One that a guest holds on to goes
once nothing more can be written to what a snapshot is to have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from orchestrator.host import HostError
from orchestrator.model.instance import Instance
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.volume import Volume
from orchestrator.reconcile.disks import delete_volume, modification_failed, modified
from orchestrator.reconcile.failing import Failing
from orchestrator.reconcile.layer import (
    WORK_EACH_S,
    InUse,
    LayerFiles,
    at_rest,
    flatten_onto,
    machine_of,
    moments,
)
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.reconcile.plug import is_coming, is_leaving
from orchestrator.reconcile.snapshot import GIVE_UP_AFTER, arrive, layers_to_make, undo
from orchestrator.store import Store, Transaction

log = logging.getLogger(__name__)


class Volumes:
    def __init__(self, store: Store, files: LayerFiles, clock: Callable[[], datetime], max_depth: int) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._max_depth = max_depth
        self._failing = Failing(clock, GIVE_UP_AFTER)

    def step(self, volume_id: str) -> Next:
        with self._store.write() as tx:
            volume = tx.get(Volume, volume_id)
            if volume is None:
                self._failing.went_on(volume_id)
                return Done()
            if volume.state == "deleting" and not (machine_of(tx, volume) and moments(tx, volume.layer_id)):
                delete_volume(tx, volume)
                return Done()
            if volume.modification is not None and volume.modification.state == "optimizing":
                self._complete_modification(tx, volume)
                return Again(0)
            instance = tx.get(Instance, machine_of(tx, volume))
            if instance is not None:
                self._failing.went_on(volume_id)
                if self._has_work(tx, volume):
                    tx.wake(instance)
                return Done()
            if volume.held_by:
                tx.put(replace(volume, held_by=""))  # nothing is known of that instance any more
                return Again(0)
            if is_coming(volume) or is_leaving(volume):
                self._attach(tx, volume)
                return Again(0)
        if volume.state == "error":
            return Done()
        return self._make(volume)

    def _complete_modification(self, tx: Transaction, volume: Volume) -> None:
        if volume.modification is not None:
            done = replace(volume.modification, state="completed", progress_percent=100, ended_at=self._clock())
            tx.put(replace(volume, modification=done))

    def _has_work(self, tx: Transaction, volume: Volume) -> bool:
        return (
            is_coming(volume)
            or is_leaving(volume)
            or bool(moments(tx, volume.layer_id))
            or (volume.modification is not None and volume.modification.state == "modifying")
            or flatten_onto(tx, volume, self._max_depth) is not None
        )

    def _attach(self, tx: Transaction, volume: Volume) -> None:
        """To a stopped instance, or from it."""
        if volume.attachment is None or is_leaving(volume) or tx.get(Instance, volume.instance_id) is None:
            tx.put(replace(volume, attachment=None, state="available"))
            return
        attached_at = volume.attachment.attached_at or self._clock()
        attachment = replace(volume.attachment, state="attached", attached_at=attached_at)
        tx.put(replace(volume, state="in-use", attachment=attachment))

    def _make(self, volume: Volume) -> Next:
        try:
            self._set_size(volume)
            for layer in layers_to_make(self._store, self._files, volume):
                try:
                    if not self._files.make(layer.id):
                        self._failing.went_on(volume.id)
                        return Again(WORK_EACH_S)
                except HostError as error:
                    if layer.moment and self._failing.is_hopeless(volume.id, error):
                        with self._store.write() as tx:
                            undo(tx, [volume], layer.moment, str(error))
                        return Again(0)
                    raise
        except InUse:
            return Again(WORK_EACH_S)
        except HostError as error:
            return self._failed(volume, error)
        self._failing.went_on(volume.id)
        if not self._write_down(volume):
            return Again(0)
        return self._shorten(volume)

    def _set_size(self, volume: Volume) -> None:
        layer = self._store.get(Layer, volume.layer_id)
        if layer is not None and layer.size_bytes < volume.size_gib * GIB:
            with self._store.write() as tx:
                current = tx.get(Layer, layer.id)
                if current is not None:
                    tx.put(replace(current, size_bytes=volume.size_gib * GIB))

    def _failed(self, volume: Volume, error: HostError) -> Next:
        modification = volume.modification
        if volume.state == "creating":
            if not self._failing.is_hopeless(volume.id, error):
                raise error
            with self._store.write() as tx:
                current = tx.get(Volume, volume.id)
                if current is not None and current.state == "creating":
                    tx.put(replace(current, state="error", state_message=str(error)[:1000]))
        elif modification is not None and modification.state == "modifying":
            if not self._failing.is_hopeless(volume.id, error):
                raise error
            with self._store.write() as tx:
                current = tx.get(Volume, volume.id)
                if current is not None and current.modification == modification:
                    modification_failed(tx, current, str(error), self._clock())
        elif error.retryable:
            raise error
        else:
            log.warning("volume %s: %s", volume.id, error)  # until it is woken: its key may be enabled again
        return Done()

    def _write_down(self, seen: Volume) -> bool:
        """What was made; False when a request came in between and there is more to do."""
        with self._store.write() as tx:
            volume = tx.get(Volume, seen.id)
            if volume is None:
                return True
            if volume.layer_id != seen.layer_id or volume.size_gib != seen.size_gib or machine_of(tx, volume):
                return False
            arrive(tx, moments(tx, volume.layer_id), self._clock(), "off")
            if volume.state == "creating":
                top = tx.get(Layer, volume.layer_id)
                below = tx.get(Layer, top.parent_id) if top is not None else None
                if below is not None:
                    tx.wake(below)
                tx.put(replace(volume, state="available" if volume.attachment is None else "in-use"))
            elif volume.modification is not None and volume.modification.state == "modifying":
                modified(tx, volume)
        return True

    def _shorten(self, volume: Volume) -> Next:
        onto = flatten_onto(self._store, volume, self._max_depth)
        if onto is None:
            return Done()
        if not at_rest(self._store, volume.layer_id):
            return Done()
        try:
            return Done() if self._files.merge(volume.layer_id, onto) else Again(WORK_EACH_S)
        except InUse:
            return Again(WORK_EACH_S)

"""Layers: one that nothing refers to any more is deleted, and then its parent may be such a one.

A layer is needed by a volume whose top it is, a snapshot that froze it, or a layer that lies on it. That is derived
here each time, and counted nowhere.
"""

from __future__ import annotations

from orchestrator.host import Storage
from orchestrator.model.image import Layer, Snapshot, Volume
from orchestrator.reconcile.loop import Done, Next
from orchestrator.store import Store, Transaction


def is_needed(db: Store | Transaction, layer_id: str) -> bool:
    return bool(
        db.all(Volume, layer_id=layer_id) or db.all(Snapshot, layer_id=layer_id) or db.all(Layer, parent_id=layer_id)
    )


class Layers:
    def __init__(self, store: Store, storage: Storage) -> None:
        self._store = store
        self._storage = storage

    def step(self, layer_id: str) -> Next:
        with self._store.write() as tx:
            layer = tx.get(Layer, layer_id)
            if layer is None or is_needed(tx, layer_id):
                return Done()
            # Under the store's lock, so that nobody begins to refer to it while its file goes.
            self._storage.remove_layer(layer_id)
            self._storage.remove_kernel(layer_id)
            tx.delete(layer)
            parent = tx.get(Layer, layer.parent_id)
            if parent is not None:
                tx.wake(parent)
        return Done()

"""Images: one that is being made is available once all its snapshots are completed, and failed when one of them is.

With one that is gone its kernel goes, when nothing else starts on it and the layer that it came with is gone as well.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.host import Storage
from orchestrator.model.image import Image
from orchestrator.model.owned import owned
from orchestrator.model.snapshot import Snapshot
from orchestrator.reconcile.layer import needs_kernel
from orchestrator.reconcile.loop import Done, Next
from orchestrator.store import Store, Transaction


class Images:
    def __init__(self, store: Store, storage: Storage) -> None:
        self._store = store
        self._storage = storage

    def step(self, image_id: str) -> Next:
        with self._store.write() as tx:
            image = tx.get(Image, image_id)
            if image is None:
                self._drop_kernels(tx)
                return Done()
            if image.state != "pending":
                return Done()
            snapshots = {each: tx.get(Snapshot, each) for each in image.snapshot_ids}
            for snapshot_id, snapshot in snapshots.items():
                if snapshot is None or snapshot.state == "error":
                    why = f"{snapshot_id}: {snapshot.state_message}" if snapshot else f"{snapshot_id} was deleted"
                    tx.put(
                        replace(
                            image,
                            state="failed",
                            state_code="Client.SnapshotFailed" if snapshot is None else "Server.InternalError",
                            state_message=f"The snapshot failed: {why}"[:1000],
                        )
                    )
                    return Done()
            if all(snapshot is not None and snapshot.state == "completed" for snapshot in snapshots.values()):
                tx.put(replace(image, state="available", state_code="", state_message=""))
        return Done()

    def _drop_kernels(self, tx: Transaction) -> None:
        """Under the store's lock, so that no image begins to refer to one while it goes."""
        building = owned(tx).layers
        for layer_id in self._storage.kernels():
            if layer_id not in building and not needs_kernel(tx, layer_id):
                self._storage.remove_kernel(layer_id)

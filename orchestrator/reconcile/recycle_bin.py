"""What happens to snapshots and images when a time is over.

    in the recycle bin         --retention is over----> (none): layers that nobody needs go with it
    archived, restored for days --they are over-------> archived

Both times are days and more, so one look at all rows every few minutes is soon enough; what a caller sees follows from
the times at once. Locks expire by themselves: they are compared with the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import ClassVar, Final

from orchestrator.model.image import Image
from orchestrator.model.layer import Layer
from orchestrator.model.snapshot import Snapshot
from orchestrator.reconcile.loop import Again, Next
from orchestrator.store import Store, Transaction

LOOK_EACH_S: Final = 300.0
SHORTEST_S: Final = 1.0


class RecycleBin:
    """`step` is given to the loop under `KIND`, with one key, and asks for itself from then on."""

    KIND: ClassVar[str] = "recycle-bin"
    KEY: ClassVar[str] = "all"

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def step(self, key: str) -> Next:
        now = self._clock()
        ends = [(row, end) for row in self._rows() if (end := _end(row)) is not None]
        if any(end <= now for _, end in ends):
            with self._store.write() as tx:
                for row in [row for row, end in ends if end <= now]:
                    _settle(tx, row, now)
        waits = [(end - now).total_seconds() for _, end in ends if end > now]
        return Again(max(SHORTEST_S, min([LOOK_EACH_S, *waits])))

    def _rows(self) -> list[Image | Snapshot]:
        # Images first: the snapshots of one that goes are then needed by nobody.
        return [*self._store.all(Image), *self._store.all(Snapshot)]


def _end(row: Image | Snapshot) -> datetime | None:
    """When the next of its times is over."""
    if row.recycled_until is not None:
        return row.recycled_until
    return row.restore_expires_at if isinstance(row, Snapshot) else None


def _settle(tx: Transaction, seen: Image | Snapshot, now: datetime) -> None:
    row = tx.get(type(seen), seen.id)  # as it is inside the transaction: it may have been restored since
    end = _end(row) if row else None
    if row is None or end is None or end > now:
        return
    if row.recycled_until is not None:
        tx.delete(row)
        if isinstance(row, Image):
            tx.wake(row)  # a kernel may go with it
        layer = tx.get(Layer, row.layer_id) if isinstance(row, Snapshot) else None
        if layer is not None:
            tx.wake(layer)
    elif isinstance(row, Snapshot):
        tx.put(replace(row, restore_expires_at=None, tier_changed_at=end, archived_at=end))

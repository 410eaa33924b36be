"""Keys: what their calendar says.

Enabled ------- rotate_at has come ----> new material, the earlier ones kept
PendingDeletion -- delete_at has come -> Destroyed: no material, and none left in the store's files
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.model.kms import DESTROYED, ENABLED, PENDING, Key, Keys, Rotation, destroyed, rotated
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.store import Store

log = logging.getLogger(__name__)

LONGEST_WAIT_S = 3600.0  # a clock may be set


class KeyCalendar:
    def __init__(self, store: Store, keys: Keys, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    def due(self) -> list[str]:
        """The keys that have anything in their calendar, to be looked at once at start-up."""
        return [key.id for key in self._store.all(Key) if key.delete_at or key.rotate_at]

    def step(self, key_id: str) -> Next:
        now = self._clock()
        with self._store.write() as tx:
            key = tx.get(Key, key_id)
            if key is not None and key.state == PENDING and key.delete_at is not None:
                if now < key.delete_at:
                    return _wait(key.delete_at - now)
                tx.put(destroyed(key))
                tx.scrub()
                log.info("the key %s has been destroyed: its days of waiting are over", key.id)
            elif key is not None and key.state == ENABLED and key.rotate_at is not None:
                if now < key.rotate_at:
                    return _wait(key.rotate_at - now)
                key = rotated(key, self._keys.new_material(), Rotation(at=now, kind="AUTOMATIC"))
                tx.put(replace(key, rotate_at=now + timedelta(days=key.rotation_days)))
                return _wait(timedelta(days=key.rotation_days))
        if key is not None and key.state == DESTROYED:
            self._store.scrub()  # should it have failed before
        return Done()


def _wait(left: timedelta) -> Next:
    return Again(min(left.total_seconds(), LONGEST_WAIT_S))

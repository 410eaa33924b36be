"""What has ended can still be seen for a while, and is forgotten then."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.model.resource import Resource
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.store import Transaction


def forget_after(tx: Transaction, row: Resource, kept: timedelta, ended: datetime, now: datetime) -> Next:
    """Delete a row that has ended so long ago; ask again when it will have."""
    left = ended + kept - now
    if left > timedelta(0):
        return Again(left.total_seconds())
    tx.delete(row)
    return Done()

"""Peering connections: those that nobody answers expire, and those that have ended are forgotten.

    pending-acceptance --- a week ---> expired --- 2 days ---> no row
        | requests                     rejected, deleted, failed --- 2 hours ---> no row
        v
      active       what it does to packets is in the plans of both VPCs

Source: "VPC peering connection lifecycle" in the VPC peering guide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.model.vpc import PeeringConnection
from orchestrator.reconcile.ageing import forget_after
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.store import Store

ANSWERED_WITHIN = timedelta(days=7)
KEPT = {
    "expired": timedelta(days=2),
    "rejected": timedelta(hours=2),
    "deleted": timedelta(hours=2),
    "failed": timedelta(hours=2),
}


class Peerings:
    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def step(self, peering_id: str) -> Next:
        now = self._clock()
        with self._store.write() as tx:
            peering = tx.get(PeeringConnection, peering_id)
            if peering is None or peering.state == "active":
                return Done()
            if peering.state not in KEPT:
                left = (peering.expires or peering.created + ANSWERED_WITHIN) - now
                if left > timedelta(0):
                    return Again(left.total_seconds())
                peering = tx.put(replace(peering, state="expired", ended_at=now))
            elif peering.ended_at is None:
                peering = tx.put(replace(peering, ended_at=now))
            return forget_after(tx, peering, KEPT[peering.state], peering.ended_at or now, now)

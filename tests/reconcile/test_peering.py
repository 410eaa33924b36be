"""Peering connections: how long what nobody answers lasts, and how long what has ended is seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.model.vpc import PeeringConnection
from orchestrator.reconcile.loop import Again, Done
from tests.reconcile.conftest import Deployment
from tests.reconcile.rows import peering


def ask(deployment: Deployment, **changes: object) -> PeeringConnection:
    row = peering("1", "vpc-1", "vpc-2", state="pending-acceptance")
    now = deployment.clock()
    with deployment.store.write() as tx:
        return tx.put(replace(row, created=now, **changes))  # type: ignore[arg-type]


def now_of(deployment: Deployment) -> PeeringConnection | None:
    return deployment.store.get(PeeringConnection, "pcx-1")


@pytest.mark.parametrize("says_when", [True, False])
def test_nobody_answers_for_a_week(deployment: Deployment, says_when: bool) -> None:
    week = timedelta(days=7)
    ask(deployment, expires=deployment.clock() + week if says_when else None)
    assert deployment.peerings.step("pcx-1") == Again(week.total_seconds())
    deployment.clock.pass_(days=6, hours=23)
    assert deployment.peerings.step("pcx-1") == Again(3600)
    deployment.clock.pass_(hours=1)
    assert deployment.peerings.step("pcx-1") == Again(2 * 86400)
    found = now_of(deployment)
    assert found is not None
    assert (found.state, found.ended_at) == ("expired", deployment.clock())
    deployment.clock.pass_(days=2)
    assert deployment.peerings.step("pcx-1") == Done()
    assert now_of(deployment) is None
    assert deployment.peerings.step("pcx-1") == Done()


@pytest.mark.parametrize("state", ["rejected", "deleted"])
@pytest.mark.parametrize("says_when", [True, False])
def test_what_has_ended_is_seen_for_two_hours(deployment: Deployment, state: str, says_when: bool) -> None:
    ask(deployment, state=state, ended_at=deployment.clock() if says_when else None)
    assert deployment.peerings.step("pcx-1") == Again(7200)
    deployment.clock.pass_(hours=2)
    assert deployment.peerings.step("pcx-1") == Done()
    assert now_of(deployment) is None


def test_an_active_one_stays(deployment: Deployment) -> None:
    ask(deployment, state="active", expires=deployment.clock())
    deployment.clock.pass_(days=400)
    assert deployment.peerings.step("pcx-1") == Done()
    assert now_of(deployment) is not None

"""Locks of snapshots: while one holds, nobody deletes the snapshot.

    governance           --LockSnapshot, UnlockSnapshot: anything--> any
    compliance-cooloff   --LockSnapshot, UnlockSnapshot: anything--> any      --its hours are over--> compliance
    compliance           --LockSnapshot: a later end only-----> compliance
    any                  --its end has come--> expired

All of it follows from the times in the row: nothing has to happen when one of them comes. Source: "Amazon EBS snapshot
lock" in the EBS user guide.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from orchestrator.api.ec2.snapshots import own_snapshot, own_snapshots
from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of
from orchestrator.model.filters import FilterTable
from orchestrator.model.snapshot import Snapshot, SnapshotLock

MODES: Final = ("governance", "compliance")
LONGEST_DAYS: Final = 36500
LONGEST_COOL_OFF_H: Final = 72


@operation("LockSnapshot", writes=True)
def lock_snapshot(
    call: Call,
    *,
    snapshot_id: str,
    lock_mode: str,
    cool_off_period: int | None = None,
    lock_duration: int | None = None,
    expiration_date: datetime | None = None,
) -> Answer:
    """Lock it, or change its lock. A duration is counted from now."""
    one_of("LockMode", lock_mode, MODES)
    expires_at, days = _end(call, lock_duration, expiration_date)
    if cool_off_period is not None:
        if lock_mode == "governance":
            raise EC2Error("InvalidParameterCombination", "CoolOffPeriod is for the lock mode compliance")
        if not 1 <= cool_off_period <= LONGEST_COOL_OFF_H:
            raise invalid_parameter("CoolOffPeriod", cool_off_period, f"1 to {LONGEST_COOL_OFF_H} hours")
    snapshot = own_snapshot(call, snapshot_id)
    if snapshot.state not in ("pending", "completed"):
        raise EC2Error("IncorrectState", f"The snapshot '{snapshot_id}' is {snapshot.state}: it cannot be locked")
    old = snapshot.lock
    fixed = old is not None and lock_state(old, call.now) == "compliance"
    if old and fixed and (lock_mode != "compliance" or cool_off_period is not None or expires_at <= old.expires_at):
        raise EC2Error(
            "SnapshotLocked",
            f"The snapshot '{snapshot_id}' is locked in compliance mode until {_text(old.expires_at)}: "
            "only a later end can be set",
        )
    lock = SnapshotLock(
        mode=lock_mode,
        locked_at=call.now,
        duration_days=days,
        expires_at=expires_at,
        cool_off_until=call.now + timedelta(hours=cool_off_period) if cool_off_period else None,
    )
    return _show(call.tx.put(replace(snapshot, lock=lock)), call.now)


def _end(call: Call, days: int | None, date: datetime | None) -> tuple[datetime, int]:
    """When the lock ends, and how many days that is."""
    if (days is None) == (date is None):
        if days is None:
            raise missing_parameter("LockDuration or ExpirationDate")
        raise EC2Error("InvalidParameterCombination", "LockDuration cannot be used with ExpirationDate")
    if days is not None:
        if not 1 <= days <= LONGEST_DAYS:
            raise invalid_parameter("LockDuration", days, f"1 to {LONGEST_DAYS} days")
        return call.now + timedelta(days=days), days
    assert date is not None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    left = date - call.now
    if not timedelta(0) < left <= timedelta(days=LONGEST_DAYS):
        raise invalid_parameter("ExpirationDate", _text(date), f"a time to come, at most {LONGEST_DAYS} days from now")
    return date, math.ceil(left / timedelta(days=1))


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@operation("UnlockSnapshot", writes=True)
def unlock_snapshot(call: Call, *, snapshot_id: str) -> Answer:
    snapshot = own_snapshot(call, snapshot_id)
    state = lock_state(snapshot.lock, call.now) if snapshot.lock else "expired"
    if state == "expired":
        raise EC2Error("SnapshotNotLocked", f"The snapshot '{snapshot_id}' is not locked")
    if state == "compliance":
        raise EC2Error(
            "SnapshotLocked", f"The snapshot '{snapshot_id}' is locked in compliance mode: nobody can unlock it"
        )
    call.tx.put(replace(snapshot, lock=None))
    return {"SnapshotId": snapshot.id}


def lock_state(lock: SnapshotLock, now: datetime) -> str:
    if lock.expires_at <= now:
        return "expired"
    if lock.cool_off_until is not None and lock.cool_off_until > now:
        return "compliance-cooloff"
    return lock.mode


@operation("DescribeLockedSnapshots", listing=True)
def describe_locked_snapshots(call: Call, *, snapshot_ids: list[str] | None = None) -> Answer:
    """Those that are locked, or were until their lock expired."""
    locked = [snapshot for snapshot in own_snapshots(call, snapshot_ids) if snapshot.lock is not None]
    return show_page(
        call,
        "Snapshots",
        choose(call, locked, lock_filters(call)),
        lambda snapshot: {"OwnerId": snapshot.account, **_show(snapshot, call.now)},
    )


def lock_filters(call: Call) -> FilterTable:
    return {"lock-state": lambda snapshot: lock_state(snapshot.lock, call.now)}


def _show(snapshot: Snapshot, now: datetime) -> Answer:
    lock = snapshot.lock
    assert lock is not None
    shown: Answer = {
        "SnapshotId": snapshot.id,
        "LockState": lock_state(lock, now),
        "LockDuration": lock.duration_days,
        "LockCreatedOn": lock.locked_at,
        "LockDurationStartTime": lock.locked_at,
        "LockExpiresOn": lock.expires_at,
    }
    if lock.cool_off_until is not None:
        shown["CoolOffPeriod"] = round((lock.cool_off_until - lock.locked_at) / timedelta(hours=1))
        shown["CoolOffPeriodExpiresOn"] = lock.cool_off_until
    return shown

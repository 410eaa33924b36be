"""Snapshots: volumes as they were at a moment.

pending --the volume has a new top, or the copy is whole--> completed --delete, with a rule--> in the recycle bin
   |                                                                                               | restore
   +-- cannot be done --> error                                                completed <---------+
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

from orchestrator.model.resource import Resource

NO_VOLUME: Final = "vol-ffffffff"  # named as the source of what was not made of a volume, as EC2's copies do


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotLock:
    mode: str  # governance | compliance
    locked_at: datetime
    duration_days: int
    expires_at: datetime
    cool_off_until: datetime | None = None  # compliance: until then it can be changed or taken off


@dataclass(frozen=True, slots=True, kw_only=True)
class FastRestore:
    zone: str
    account: str  # that asked for it: one with which the snapshot is shared may
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Resource):
    KIND: ClassVar[str] = "snapshot"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "volume_id", "layer_id", "key_id", "state")

    layer_id: str
    volume_id: str = ""
    size_gib: int
    state: str = "completed"  # pending | completed | error
    state_message: str = ""
    progress_percent: int = 100
    completed_at: datetime | None = None
    description: str = ""
    key_id: str = ""  # empty: not encrypted
    consistency: str = ""  # of the content: off | frozen | crash; empty: a copy, or not known
    source_snapshot_id: str = ""  # what it is a copy of
    completion_minutes: int = 0  # in which the copy was asked to be done; 0: none were named
    public: bool = False
    shared_with: tuple[str, ...] = ()  # accounts that may make volumes of it
    tier: str = "standard"  # standard | archive
    tier_changed_at: datetime | None = None
    archived_at: datetime | None = None  # when it last went into the archive
    restore_expires_at: datetime | None = None  # of an archived one that was restored for a time
    lock: SnapshotLock | None = None
    fast_restores: tuple[FastRestore, ...] = ()
    recycled_at: datetime | None = None  # in the recycle bin since
    recycled_until: datetime | None = None

    @property
    def encrypted(self) -> bool:
        return bool(self.key_id)

    @property
    def fast_restore_zones(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.zone for each in self.fast_restores))

    def is_archived(self, now: datetime) -> bool:
        """Whether nothing can be made of it until it is restored. It can while it is restored for a time."""
        return self.tier == "archive" and (self.restore_expires_at is None or self.restore_expires_at <= now)

    def is_locked(self, now: datetime) -> bool:
        return self.lock is not None and self.lock.expires_at > now

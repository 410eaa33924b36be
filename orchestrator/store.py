"""Where state lives: resources, the work queue, client tokens and audit events, in one SQLite file.

A resource is one JSON document with a revision. The file is the truth and every commit is on the disk when it
returns; a decoded copy of every resource is kept in memory with its indexes, so that reading costs no query. One
process owns a store at a time, which a lock on the file enforces, so the copy is never stale.

    with store.write() as tx:            one writer at a time
        tx.put(replace(volume, ...))     seen by this transaction's own reads
        tx.wake(volume)                  a reconciler will look at it
                                         leaving commits; an exception undoes all of it

Readers take no lock: they see each resource as of some commit.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from orchestrator.model.kinds import KINDS
from orchestrator.model.resource import Resource

R = TypeVar("R", bound=Resource)

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS resource (
    kind TEXT NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL, document BLOB NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS wake (kind TEXT NOT NULL, id TEXT NOT NULL, serial INTEGER NOT NULL, PRIMARY KEY (kind, id))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS token (
    scope TEXT NOT NULL, token TEXT NOT NULL, fingerprint TEXT NOT NULL, answer BLOB NOT NULL, created TEXT NOT NULL,
    PRIMARY KEY (scope, token)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
    number INTEGER PRIMARY KEY, time TEXT NOT NULL, account TEXT NOT NULL, document BLOB NOT NULL
);
"""


class StoreError(Exception):
    """The store cannot be used: the message says why and what to do."""


class Table:
    """The rows of one kind in memory, with their indexes. An attribute that is a tuple is indexed by each element."""

    def __init__(self, kind: type[Resource]) -> None:
        self.kind = kind
        self.rows: dict[str, Resource] = {}
        self.indexes: dict[str, dict[Hashable, dict[str, Resource]]] = {name: {} for name in kind.INDEXES}

    def put(self, resource: Resource) -> None:
        old = self.rows.get(resource.id)
        for name, index in self.indexes.items():
            values = _values(resource, name)
            if old is not None and (before := _values(old, name)) != values:
                self._unindex(index, before, old.id)
            for value in values:
                index.setdefault(value, {})[resource.id] = resource
        self.rows[resource.id] = resource

    def delete(self, resource_id: str) -> None:
        old = self.rows.pop(resource_id, None)
        if old is not None:
            for name, index in self.indexes.items():
                self._unindex(index, _values(old, name), resource_id)

    def select(self, where: dict[str, Hashable]) -> list[Resource]:
        """The rows whose attributes equal `where`; the first name must be indexed, the narrowest index is used."""
        if not where:
            return list(self.rows.values())
        candidates = [self.indexes[name].get(value, {}) for name, value in where.items() if name in self.indexes]
        if not candidates:
            raise KeyError(f"{self.kind.__name__} has no index among {sorted(where)}")
        found = list(min(candidates, key=len).values())
        if len(where) == 1:
            return found
        return [row for row in found if _matches(row, where)]

    @staticmethod
    def _unindex(index: dict[Hashable, dict[str, Resource]], values: tuple[Hashable, ...], resource_id: str) -> None:
        for value in values:
            rows = index.get(value)
            if rows is not None:
                rows.pop(resource_id, None)
                if not rows:
                    index.pop(value, None)


def _values(resource: Resource, name: str) -> tuple[Hashable, ...]:
    value = getattr(resource, name)
    return value if isinstance(value, tuple) else (value,)


def _matches(resource: Resource, where: dict[str, Hashable]) -> bool:
    return all(value in _values(resource, name) for name, value in where.items())


class Store:
    def __init__(self, path: Path, *, durable: bool = True) -> None:
        """Open the store at `path`, made when it is not there. `durable=False` leaves syncing to the kernel (tests)."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock_file)
            raise StoreError(f"{path} is in use by another controller: stop it, or choose another state_dir") from error
        self._lock = threading.RLock()
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # holds secrets: nobody else reads it
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        self._check_schema()
        self._tables = {kind.KIND: Table(kind) for kind in KINDS}
        self._decoders = {kind.KIND: msgspec.json.Decoder(kind) for kind in KINDS}
        self._encoder = msgspec.json.Encoder()
        self._listeners: list[Callable[[list[tuple[str, str]]], None]] = []
        for kind, document in self._db.execute("SELECT kind, document FROM resource"):
            self._tables[kind].put(self._decoders[kind].decode(document))
        self._serial: int = self._db.execute("SELECT coalesce(max(serial), 0) FROM wake").fetchone()[0]
        self._revision: int = self._db.execute("SELECT coalesce(max(revision), 0) FROM resource").fetchone()[0]

    def _check_schema(self) -> None:
        self._db.executescript(_SCHEMA)
        found = int(self.meta("schema") or SCHEMA_VERSION)
        if found > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} was written by a newer orchestrator (schema {found}, this one knows {SCHEMA_VERSION}): "
                "install that version again"
            )
        self.set_meta("schema", str(SCHEMA_VERSION))

    def close(self) -> None:
        with self._lock:
            self._db.close()
            os.close(self._lock_file)

    # --- reading ---

    def get(self, kind: type[R], resource_id: str) -> R | None:
        return cast("R | None", self._tables[kind.KIND].rows.get(resource_id))

    def all(self, kind: type[R], /, **where: Hashable) -> list[R]:
        """Rows whose attributes equal all of `where`, of which at least one must be indexed; without it, every row."""
        return cast("list[R]", self._tables[kind.KIND].select(where))

    def meta(self, name: str) -> str | None:
        with self._lock:
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_meta(self, name: str, value: str) -> None:
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def events(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest audit events, newest first."""
        with self._lock:
            rows = self._db.execute("SELECT document FROM event ORDER BY number DESC LIMIT ?", (limit,)).fetchall()
        return [msgspec.json.decode(row[0]) for row in rows]

    # --- writing ---

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction. It is on the disk when the block has been left; an exception undoes all of it."""
        with self._lock:
            tx = Transaction(self)
            yield tx
            self._commit(tx)
        if tx.wakes:
            for listener in self._listeners:
                listener(list(tx.wakes))

    def _commit(self, tx: Transaction) -> None:
        if not (tx.changed or tx.wakes or tx.tokens or tx.audit):
            return
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            for (kind, resource_id), resource in tx.changed.items():
                if resource is None:
                    db.execute("DELETE FROM resource WHERE kind = ? AND id = ?", (kind, resource_id))
                else:
                    row = (kind, resource_id, resource.revision, self._encoder.encode(resource))
                    db.execute("INSERT OR REPLACE INTO resource VALUES (?, ?, ?, ?)", row)
            for kind, resource_id in tx.wakes:
                self._serial += 1
                db.execute("INSERT OR REPLACE INTO wake VALUES (?, ?, ?)", (kind, resource_id, self._serial))
            for scope, token, fingerprint, answer in tx.tokens:
                now = datetime.now(UTC).isoformat()
                db.execute("INSERT INTO token VALUES (?, ?, ?, ?, ?)", (scope, token, fingerprint, answer, now))
            for account, event in tx.audit:
                document = self._encoder.encode(event)
                db.execute("INSERT INTO event VALUES (NULL, ?, ?, ?)", (event.get("eventTime", ""), account, document))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        for (kind, resource_id), resource in tx.changed.items():
            if resource is None:
                self._tables[kind].delete(resource_id)
            else:
                self._tables[kind].put(resource)

    def next_revision(self) -> int:
        self._revision += 1
        return self._revision

    # --- the work queue ---

    def on_wake(self, listener: Callable[[list[tuple[str, str]]], None]) -> None:
        """Call `listener` with (kind, id) pairs after each commit that woke any."""
        self._listeners.append(listener)

    def pending_wakes(self) -> list[tuple[str, str, int]]:
        """(kind, id, serial) of all that was woken and not yet looked at, oldest first."""
        with self._lock:
            return self._db.execute("SELECT kind, id, serial FROM wake ORDER BY serial").fetchall()

    def wake_serial(self, kind: str, resource_id: str) -> int:
        """The serial of a pending wake-up, 0 when there is none."""
        with self._lock:
            row = self._db.execute("SELECT serial FROM wake WHERE kind = ? AND id = ?", (kind, resource_id)).fetchone()
        return int(row[0]) if row else 0

    def wake_done(self, kind: str, resource_id: str, serial: int) -> bool:
        """Forget a wake-up, unless the resource was woken again after `serial`; whether it was forgotten."""
        with self._lock:
            sql = "DELETE FROM wake WHERE kind = ? AND id = ? AND serial <= ?"
            self._db.execute(sql, (kind, resource_id, serial))
            return self.wake_serial(kind, resource_id) == 0

    # --- client tokens ---

    def token(self, scope: str, token: str) -> tuple[str, bytes] | None:
        """(fingerprint of the parameters, answer) that a token was spent on."""
        with self._lock:
            sql = "SELECT fingerprint, answer FROM token WHERE scope = ? AND token = ?"
            row = self._db.execute(sql, (scope, token)).fetchone()
        return (row[0], row[1]) if row else None


class Transaction:
    """What one `Store.write` block reads and changes."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.changed: dict[tuple[str, str], Resource | None] = {}
        self.wakes: dict[tuple[str, str], None] = {}
        self.tokens: list[tuple[str, str, str, bytes]] = []
        self.audit: list[tuple[str, dict[str, Any]]] = []

    def get(self, kind: type[R], resource_id: str) -> R | None:
        key = (kind.KIND, resource_id)
        if key in self.changed:
            return cast("R | None", self.changed[key])
        return self.store.get(kind, resource_id)

    def all(self, kind: type[R], /, **where: Hashable) -> list[R]:
        found = self.store.all(kind, **where)
        mine = {key[1]: value for key, value in self.changed.items() if key[0] == kind.KIND}
        if not mine:
            return found
        kept = [row for row in found if row.id not in mine]
        fresh = [cast("R", row) for row in mine.values() if row is not None and _matches(row, where)]
        return kept + fresh

    def put(self, resource: R) -> R:
        """Keep `resource` as its newest revision, which is returned."""
        stored = replace(resource, revision=self.store.next_revision())
        self.changed[(resource.KIND, resource.id)] = stored
        return stored

    def put_all(self, resources: Iterable[Resource]) -> None:
        for resource in resources:
            self.put(resource)

    def delete(self, resource: Resource) -> None:
        self.changed[(resource.KIND, resource.id)] = None

    def wake(self, resource: Resource) -> None:
        """Have a reconciler look at `resource` after the commit."""
        self.wakes[(resource.KIND, resource.id)] = None

    def spend_token(self, scope: str, token: str, fingerprint: str, answer: bytes) -> None:
        self.tokens.append((scope, token, fingerprint, answer))

    def record(self, account: str, event: dict[str, Any]) -> None:
        """Add an audit event."""
        self.audit.append((account, event))

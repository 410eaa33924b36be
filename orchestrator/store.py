"""Where state lives: resources, the work queue, client tokens and the newest audit events, in one SQLite file.

A resource is one JSON document with a revision. The file is the truth and every commit is on the disk when it
returns; a decoded copy of every resource is kept in memory with its indexes, so that reading costs no query. One
process owns a store at a time, which a lock on the file enforces, so the copy is never stale.

    with store.write() as tx:            one writer at a time
        tx.put(replace(volume, ...))     seen by this transaction's own reads
        tx.wake(volume)                  a reconciler will look at it
                                         leaving commits; an exception undoes all of it

Readers take no lock: they see each resource as of some commit. What cannot be committed (a full disk, a lock, a file
that became read-only) raises StoreUnavailable and changes nothing; reading goes on.

The file has a schema version. An older one is upgraded when it is opened, step by step, after a copy of it was made.
Everything in it is bounded: one wake-up per resource, tokens for TOKENS_KEPT, audit events until `trail.py` moves them
out; what becomes free is given back to the file system in small steps.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar, cast
from uuid import uuid4

import msgspec

from orchestrator.model.audit import Head
from orchestrator.model.kinds import KINDS
from orchestrator.model.resource import Resource
from orchestrator.trail import KEPT_EVENTS, PAUSE_S, Event, Trail, sync_directory
from orchestrator.trail import SCHEMA as AUDIT_SCHEMA

R = TypeVar("R", bound=Resource)

SCHEMA_VERSION = 2
TOKENS_KEPT = timedelta(hours=48)  # EC2 promises a day
_SCRUB = "scrub"  # meta: a commit has asked for it
_CHUNK = 200  # rows or pages at a time, where others may write in between

_SCHEMA = f"""
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
CREATE INDEX IF NOT EXISTS token_created ON token (created);
{AUDIT_SCHEMA};
"""


class StoreError(Exception):
    """The store cannot be used: the message says why and what to do."""


class StoreUnavailable(StoreError):
    """A transaction could not be committed. Nothing of it is there; another may be possible later."""


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
    def __init__(self, path: Path, *, durable: bool = True, kept_events: int = KEPT_EVENTS) -> None:
        """Open the store at `path`, made when it is not there. `durable=False` leaves syncing to the kernel (tests).

        Raises StoreError. `kept_events` is how many audit events stay in the store before older ones are moved out.
        """
        self.path = path
        # Stands in the place of each commit to the file (tests end the process before and after it).
        self.around_commit: Callable[[Callable[[], None]], None] = lambda commit: commit()
        self._lock = threading.RLock()
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with _explained(path):
                _take(self._lock_file, path)
                # Holds secrets: nobody else reads it.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                try:
                    self._open(durable, kept_events)
                except BaseException:
                    self._db.close()
                    raise
        except BaseException:
            os.close(self._lock_file)
            raise
        self._closed = False

    def _open(self, durable: bool, kept_events: int) -> None:
        db = self._db
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # for a new file
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        db.execute("PRAGMA secure_delete=ON")  # see scrub
        db.execute("PRAGMA temp_store=MEMORY")  # what is in the store is nowhere else
        db.execute("PRAGMA journal_size_limit=16777216")
        db.execute("PRAGMA cell_size_check=ON")
        db.execute("PRAGMA trusted_schema=OFF")  # a file that was restored is somebody's
        [verdict] = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreError(_damaged(self.path, verdict))
        self._upgrade()
        self._tables = {kind.KIND: Table(kind) for kind in KINDS}
        self._decoders = {kind.KIND: msgspec.json.Decoder(kind) for kind in KINDS}
        self._encoder = msgspec.json.Encoder()
        self._listeners: list[Callable[[list[tuple[str, str]]], None]] = []
        for kind, resource_id, document in db.execute("SELECT kind, id, document FROM resource"):
            try:
                self._tables[kind].put(self._decoders[kind].decode(document))
            except (KeyError, ValueError) as error:
                raise StoreError(_damaged(self.path, f"{kind} {resource_id}: {error}")) from error
        self._serial: int = db.execute("SELECT coalesce(max(serial), 0) FROM wake").fetchone()[0]
        self._revision: int = db.execute("SELECT coalesce(max(revision), 0) FROM resource").fetchone()[0]
        try:
            self.trail = Trail(db, self._lock, self.path.parent / "audit", tidy=self.tidy, kept_events=kept_events)
        except ValueError as error:
            raise StoreError(_damaged(self.path, f"audit log: {error}")) from error
        self.scrub()  # as far as the last process was ended before it had done so

    def _upgrade(self) -> None:
        """To the schema that this version knows; a new file gets it at once."""
        db = self._db
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('schema', ?)", (str(SCHEMA_VERSION),))
            db.execute("COMMIT")
            return
        found = schema_version(db, self.path)
        if found < SCHEMA_VERSION:
            copy_store(db, self.path.with_name(f"{self.path.name}.{found}.copy"))
        while found < SCHEMA_VERSION:
            db.execute("BEGIN IMMEDIATE")
            try:
                _UPGRADES[found](db)
                found += 1
                db.execute("INSERT OR REPLACE INTO meta VALUES ('schema', ?)", (str(found),))
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        if db.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            db.execute("VACUUM")  # what makes it so

    def close(self) -> None:
        """Write what is noted for the audit log, and let go of the file. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.trail.stop()
        with self._lock:
            self._db.close()
            os.close(self._lock_file)

    # --- reading ---

    def get(self, kind: type[R], resource_id: str) -> R | None:
        return cast("R | None", self._tables[kind.KIND].rows.get(resource_id))

    def all(self, kind: type[R], /, **where: Hashable) -> list[R]:
        """Rows whose attributes equal all of `where`, of which at least one must be indexed; without it, every row."""
        return cast("list[R]", self._tables[kind.KIND].select(where))

    def at_most(self, kind: type[Resource], account: str) -> int:
        """No fewer than an account has of a kind, in whatever state and region. Costs the same however many it has."""
        return len(self._tables[kind.KIND].indexes["account"].get(account, ()))

    def meta(self, name: str) -> str | None:
        with self._lock:
            row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def set_meta(self, name: str, value: str) -> None:
        with self._lock, _committed():
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def events(self, limit: int = 100) -> list[Event]:
        """The newest audit events, newest first."""
        found: list[Event] = []
        for _, document in self.trail.newest():
            if document is None or len(found) == limit:
                break
            found.append(msgspec.json.decode(document))
        return found

    # --- writing ---

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """One transaction. It is on the disk when the block has been left; an exception undoes all of it.

        Raises StoreUnavailable where it cannot be committed.
        """
        with self._lock:
            tx = Transaction(self)
            yield tx
            self._commit(tx)
        if tx.wakes:
            for listener in self._listeners:
                listener(list(tx.wakes))
        if tx.scrubs:
            self.scrub()

    def _commit(self, tx: Transaction) -> None:
        if not (tx.changed or tx.wakes or tx.tokens or tx.audit or tx.scrubs):
            return
        with _committed():
            self.around_commit(partial(self._write, tx))
        for (kind, resource_id), resource in tx.changed.items():
            if resource is None:
                self._tables[kind].delete(resource_id)
            else:
                self._tables[kind].put(resource)

    def _write(self, tx: Transaction) -> None:
        db = self._db
        documents = [self.trail.encode(event) for event in tx.audit]
        head: Head | None = None
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
            if documents:
                head = self.trail.insert(documents)
            if tx.scrubs:
                db.execute("INSERT OR REPLACE INTO meta VALUES (?, 'due')", (_SCRUB,))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        if head is not None:
            self.trail.advance(head)

    def scrub(self) -> None:
        """Leave nothing in the files but what is stored, if a transaction has asked for it and it is not done yet.

        `secure_delete` overwrites what is deleted, but not the copies that moving rows between pages leaves behind, nor
        the log. So the whole file is written anew, the log is emptied, and copies of older schemas are removed. Raises
        StoreError, and may be tried again.
        """
        with self._lock:
            if self.meta(_SCRUB) is None:
                return
            try:
                self._db.execute("VACUUM")
                busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                for copy in self.path.parent.glob(f"{self.path.name}.*.copy"):
                    copy.unlink()
            except (sqlite3.Error, OSError) as error:
                raise StoreError(f"{self.path} still has what was deleted in it: {error}") from error
            if busy:
                raise StoreError(f"{self.path} still has what was deleted in its log: another program is reading it")
            self._db.execute("DELETE FROM meta WHERE name = ?", (_SCRUB,))

    def tidy(self) -> None:
        """Forget tokens that are old, and give free pages back, a little at a time: others write in between."""
        oldest = (datetime.now(UTC) - TOKENS_KEPT).isoformat()
        sql = (
            "DELETE FROM token WHERE (scope, token) IN (SELECT scope, token FROM token WHERE created < ? LIMIT ?) "
            "AND created < ?"
        )
        deleted = _CHUNK
        while deleted == _CHUNK:
            with self._lock:
                deleted = self._db.execute(sql, (oldest, _CHUNK, oldest)).rowcount
            time.sleep(PAUSE_S)
        free = self._free_pages()
        while free:
            with self._lock:
                self._db.executescript(f"PRAGMA incremental_vacuum({_CHUNK})")  # `execute` would take one step
            time.sleep(PAUSE_S)
            before, free = free, self._free_pages()
            if free >= before:
                break
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _free_pages(self) -> int:
        with self._lock:
            return int(self._db.execute("PRAGMA freelist_count").fetchone()[0])

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
        with self._lock, _committed():
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
        self.audit: list[Event] = []
        self.scrubs = False

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

    def at_most(self, kind: type[Resource], account: str) -> int:
        """`Store.at_most`, with what this transaction has changed."""
        mine = sum(1 for key, row in self.changed.items() if key[0] == kind.KIND and row is not None)
        return self.store.at_most(kind, account) + mine

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

    def scrub(self) -> None:
        """Have nothing of what this deletes or replaces remain in the store's files. Takes as long as copying them."""
        self.scrubs = True

    def wake(self, resource: Resource) -> None:
        """Have a reconciler look at `resource` after the commit."""
        self.wakes[(resource.KIND, resource.id)] = None

    def spend_token(self, scope: str, token: str, fingerprint: str, answer: bytes) -> None:
        self.tokens.append((scope, token, fingerprint, answer))

    def record(self, event: Event) -> None:
        """Add an audit event."""
        self.audit.append(event)


# --- the file: its versions, copies of it, what can be wrong with it --------------------------------------------------

_INCREMENTAL = 2  # of PRAGMA auto_vacuum


def schema_version(db: sqlite3.Connection, path: Path) -> int:
    """Of a store's file. Raises StoreError for one that is newer than this program, and for what is no store."""
    try:
        row = db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        found = int(row[0]) if row else 0
    except (sqlite3.OperationalError, ValueError):
        found = 0
    if found > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer orchestrator (schema {found}, this one knows {SCHEMA_VERSION}): "
            "install that version again"
        )
    if found < 1:
        raise StoreError(f"{path} is not a store of orchestrator's: choose another state_dir")
    return found


def copy_store(db: sqlite3.Connection, to: Path) -> None:
    """A copy as of one instant, whole or not there at all, for its owner alone. Raises sqlite3.Error and OSError."""
    fresh = to.with_name(to.name + ".new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(sqlite3.connect(fresh, isolation_level=None)) as copy:
            db.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, nothing beside it
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())
        fresh.rename(to)
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()
    sync_directory(to.parent)


def _take(lock_file: int, path: Path) -> None:
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StoreError(f"{path} is in use by another controller: stop it, or choose another state_dir") from error


def _chain_events(db: sqlite3.Connection) -> None:
    """1 -> 2: the audit events become CloudTrail's, in a chain, and tokens can be found by their age."""
    db.execute(AUDIT_SCHEMA)
    db.execute("CREATE INDEX IF NOT EXISTS token_created ON token (created)")
    head = Head()
    for at, account, document in db.execute("SELECT time, account, document FROM event ORDER BY number"):
        old: Event = json.loads(document)
        identity = old.get("userIdentity", {})
        event = {
            "eventVersion": "1.11",
            "userIdentity": {"type": "Root", "principalId": account, **identity},
            "eventTime": datetime.fromisoformat(old.get("eventTime") or at).strftime("%Y-%m-%dT%H:%M:%SZ"),
            **{name: old.get(name) for name in ("eventSource", "eventName", "awsRegion", "sourceIPAddress")},
            "userAgent": "",
            "requestParameters": old.get("requestParameters"),
            "responseElements": None,
            "requestID": old.get("requestID"),
            "eventID": str(uuid4()),
            "readOnly": False,
            "eventType": "AwsApiCall",
            "managementEvent": True,
            "recipientAccountId": account,
            "eventCategory": "Management",
        }
        link = head.extend(msgspec.json.encode(event))
        db.execute("INSERT INTO audit VALUES (?, ?, ?)", (link.number, link.hash, link.document))
        head = Head(link.number, link.hash)
    db.execute("INSERT OR REPLACE INTO meta VALUES ('audit_head', ?)", (str(head),))
    db.execute("DROP TABLE event")


_UPGRADES: dict[int, Callable[[sqlite3.Connection], None]] = {1: _chain_events}


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What is wrong with a store that cannot be opened, in words."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(_explain(path, error)) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be used: {error.strerror or error}") from error


@contextmanager
def _committed() -> Iterator[None]:
    """What is broken is an error; what only cannot be done now is StoreUnavailable."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        raise StoreUnavailable(f"the state cannot be written just now: {error}") from error


def _explain(path: Path, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says where it was found
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _damaged(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path} is locked by another program: end it (`fuser {path}` names it)"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return f"{path} cannot be written: it, or its file system, is read-only ({error})"
    if code == sqlite3.SQLITE_FULL:
        return f"{path} cannot be written: the disk is full"
    return f"{path} cannot be used: {error}"


def _damaged(path: Path, detail: str) -> str:
    return f"{path} is damaged ({detail}): restore a backup of it with `orc restore`"

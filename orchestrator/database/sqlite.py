"""The store's rows in one SQLite file: what works without anything else to install or to run.

Every commit is on the disk when it returns. The owner holds the lock of the state directory, so nobody else writes; who
reads meanwhile has a snapshot (WAL). What becomes free is given back to the file system in small steps. The log has its
room from the start, so that on a full disk some hundreds of commits can still be made: what befalls guests then is
written down.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from orchestrator.database import (
    AUDIT_HEAD,
    PUT_META,
    SCHEMA_VERSION,
    SCRUB,
    TABLES,
    Batch,
    Database,
    Row,
    Rows,
    Spent,
    StoreError,
    StoreUnavailable,
    damaged,
    newer,
    statements,
)
from orchestrator.model.audit import Head

_AUDIT = "CREATE TABLE IF NOT EXISTS audit (number INTEGER PRIMARY KEY, hash BLOB NOT NULL, document BLOB NOT NULL)"
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
{_AUDIT};
"""
_INCREMENTAL = 2  # of PRAGMA auto_vacuum
_PAGES = 200  # given back at a time, where others may write in between
_ROWS = 1000  # read at a time
_LOG_BYTES = 16 << 20  # that the log has at least, and keeps


class SQLiteRows(Rows):
    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self.db = db
        self.path = path
        self.name = str(path)

    @classmethod
    @contextmanager
    def reading(cls, path: Path) -> Iterator[SQLiteRows]:
        """As of now, whether a controller runs or not."""
        with explained(path):
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        with closing(db):
            with explained(path):
                db.execute("BEGIN")  # from here on nothing changes
                schema_version(db, path)
            yield cls(db, path)

    def query(self, sql: str, *values: Any) -> Sequence[Row]:
        with explained(self.path):
            return self.db.execute(sql, values).fetchall()

    def stream(self, sql: str) -> Iterator[Row]:
        with explained(self.path):
            yield from self.db.execute(sql)

    def copy_to(self, path: Path) -> None:
        with _fresh(path) as copy:
            self.db.backup(copy)


class SQLite(SQLiteRows, Database):
    """`durable=False` leaves syncing to the kernel (tests)."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._durable = durable
        with explained(path):
            # Holds secrets: nobody else reads it.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            super().__init__(sqlite3.connect(path, isolation_level=None, check_same_thread=False), path)
            try:
                self._open(durable)
            except BaseException:
                self.db.close()
                raise

    def _open(self, durable: bool) -> None:
        db = self.db
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # for a new file
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        db.execute("PRAGMA secure_delete=ON")  # see scrub
        db.execute("PRAGMA temp_store=MEMORY")  # what is in the store is nowhere else
        db.execute(f"PRAGMA journal_size_limit={_LOG_BYTES}")
        db.execute("PRAGMA cell_size_check=ON")
        db.execute("PRAGMA trusted_schema=OFF")  # a file that was restored is somebody's
        [verdict] = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreError(damaged(self.name, verdict))
        self._upgrade()
        self._keep_room()

    def _keep_room(self) -> None:
        """In the log; what lies behind its last commit is nobody's. SQLite has no locks on this file that closing it
        would lose."""
        if not self._durable:
            return
        with suppress(OSError):  # no room by now, or a file system that promises none
            log = os.open(f"{self.path}-wal", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.posix_fallocate(log, 0, _LOG_BYTES)
            finally:
                os.close(log)

    def _upgrade(self) -> None:
        """To the schema that this version knows; a new file gets it at once."""
        db = self.db
        if db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchone() is None:
            with _transaction(db):
                _make(db)
                db.execute(PUT_META, ("schema", str(SCHEMA_VERSION)))
            return
        found = schema_version(db, self.path)
        if found < SCHEMA_VERSION:
            self.copy_to(self.path.with_name(f"{self.path.name}.{found}.copy"))
        while found < SCHEMA_VERSION:
            with _transaction(db):
                UPGRADES[found](db)
                found += 1
                db.execute(PUT_META, ("schema", str(found)))
        if db.execute("PRAGMA auto_vacuum").fetchone()[0] != _INCREMENTAL:
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            db.execute("VACUUM")  # what makes it so

    def close(self) -> None:
        self.db.close()

    def on_lost(self, listener: Callable[[], None]) -> None:
        """The lock of the state directory is never lost."""

    def settle(self) -> None:
        """A commit to a file has ended when it returns."""

    def query(self, sql: str, *values: Any) -> Sequence[Row]:
        with _committed():
            return self.db.execute(sql, values).fetchall()

    def commit(self, batch: Batch, done: Callable[[], None]) -> None:
        with _committed(), self._synced(not batch.in_time), _transaction(self.db):
            for sql, rows in statements(batch):
                self.db.executemany(sql, rows)
        done()

    @contextmanager
    def _synced(self, at_once: bool) -> Iterator[None]:
        """Whether the commits of the block wait for the disk. The next that does syncs those before it as well, and
        none is ever there without them."""
        if at_once or not self._durable:
            yield
            return
        self.db.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            self.db.execute("PRAGMA synchronous=FULL")

    def change(self, sql: str, *values: Any) -> int:
        with _committed():
            return self.db.execute(sql, values).rowcount

    def scrub(self) -> None:
        """`secure_delete` overwrites what is deleted, but not the copies that moving rows between pages leaves behind,
        nor the log. So the whole file is written anew, the log is emptied, and copies of older schemas are removed."""
        try:
            self.db.execute("VACUUM")
            busy, _, _ = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._keep_room()
            remove_copies(self.path)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{self.path} still has what was deleted in it: {error}") from error
        if busy:
            raise StoreError(f"{self.path} still has what was deleted in its log: another program is reading it")
        self.change("DELETE FROM meta WHERE name = ?", SCRUB)

    def give_back(self) -> bool:
        with _committed():
            before = self._free_pages()
            if before:
                self.db.executescript(f"PRAGMA incremental_vacuum({_PAGES})")  # `execute` would take one step
            free = self._free_pages()
            if 0 < free < before:
                return True
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            return False

    def _free_pages(self) -> int:
        return int(self.db.execute("PRAGMA freelist_count").fetchone()[0])


# --- the file: its versions, copies of it, what can be wrong with it --------------------------------------------------


def schema_version(db: sqlite3.Connection, path: Path) -> int:
    """Of a store's file. Raises StoreError for one that is newer than this program, and for what is no store."""
    try:
        row = db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
        found = int(row[0]) if row else 0
    except (sqlite3.OperationalError, ValueError):
        found = 0
    if found > SCHEMA_VERSION:
        raise newer(str(path), found)
    if found < 1:
        raise StoreError(f"{path} is not a store of orchestrator's: choose another state_dir")
    return found


def write_file(rows: Rows, path: Path) -> None:
    """Rows of any database as a file that `SQLite` opens. Raises StoreError and OSError."""
    with _fresh(path) as db, _transaction(db):
        _make(db)
        for table, columns in TABLES.items():
            marks = ", ".join("?" * len(columns))
            each = rows.table(table)
            while some := list(islice(each, _ROWS)):
                db.executemany(f"INSERT INTO {table} VALUES ({marks})", some)


def remove_copies(path: Path) -> None:
    """Of older schemas."""
    for copy in path.parent.glob(f"{path.name}.*.copy"):
        copy.unlink()


def sync_directory(directory: Path) -> None:
    """Have what was renamed in it be so after a crash too."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(held)
    finally:
        os.close(held)


@contextmanager
def _fresh(path: Path) -> Iterator[sqlite3.Connection]:
    """A new file for its owner alone, in its place and on the disk when the block was left."""
    fresh = path.with_name(path.name + ".new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with explained(path), closing(sqlite3.connect(fresh, isolation_level=None)) as db:
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            yield db
            db.execute("PRAGMA journal_mode=DELETE")  # one file, nothing beside it
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())
        fresh.rename(path)
    finally:
        with suppress(FileNotFoundError):
            fresh.unlink()
    sync_directory(path.parent)


def _make(db: sqlite3.Connection) -> None:
    for statement in _SCHEMA.split(";"):
        db.execute(statement)


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _chain_events(db: sqlite3.Connection) -> None:
    """1 -> 2: the audit events become CloudTrail's, in a chain, and tokens can be found by their age."""
    db.execute(_AUDIT)
    db.execute("CREATE INDEX IF NOT EXISTS token_created ON token (created)")
    head = Head()
    for at, account, document in db.execute("SELECT time, account, document FROM event ORDER BY number"):
        old: dict[str, Any] = json.loads(document)
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
    db.execute(PUT_META, (AUDIT_HEAD, str(head)))
    db.execute("DROP TABLE event")


# Schema -> what makes the next one of it, in a transaction.
UPGRADES: dict[int, Callable[[sqlite3.Connection], None]] = {1: _chain_events}


@contextmanager
def explained(path: Path) -> Iterator[None]:
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
    except sqlite3.IntegrityError as error:
        raise Spent(f"what is to be written is there already: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreUnavailable(f"the state cannot be written just now: {error}") from error


def _explain(path: Path, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says where it was found
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(str(path), str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path} is locked by another program: end it (`fuser {path}` names it)"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return f"{path} cannot be written: it, or its file system, is read-only ({error})"
    if code == sqlite3.SQLITE_FULL:
        return f"{path} cannot be written: the disk is full"
    return f"{path} cannot be used: {error}"

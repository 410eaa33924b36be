"""Where the store's rows are kept: one interface, and two databases behind it.

                                     ┌── sqlite.py      a file in the state directory
    Store ── Batch ── Database.commit┤
                                     └── postgres.py    a PostgreSQL server, by URL

A database has one owner at a time. It keeps five tables of plain rows and knows nothing of resources; whatever reads
them while a controller runs (a backup, `orc audit verify`, the doctor) has them as of one instant, by `reading`.
Nearly all SQL is here, once: both databases understand it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 2
FILE = "orchestrator.db"  # in the state directory, without a URL
MARK = "orchestrator.pg"  # in the state directory, with one: the id of the database that belongs to it
SCRUB = "scrub"  # meta: what was deleted is to be made unreadable
AUDIT_HEAD = "audit_head"  # meta: number and hash of the newest event

# Table -> its columns, the keys first.
TABLES: dict[str, tuple[str, ...]] = {
    "meta": ("name", "value"),
    "resource": ("kind", "id", "revision", "document"),
    "wake": ("kind", "id", "serial"),
    "token": ("scope", "token", "fingerprint", "answer", "created"),
    "audit": ("number", "hash", "document"),
}
_KEYS = {"meta": 1, "resource": 2, "wake": 2, "token": 2, "audit": 1}

Row = Sequence[Any]


class StoreError(Exception):
    """The store cannot be used: the message says why and what to do."""


class StoreUnavailable(StoreError):
    """A transaction could not be committed. Nothing of it is there; another may be possible later.

    Where the connection to a server broke in the middle of the commit, it may turn out to be there once the server
    answers again: then it is there whole, for readers too.
    """


class StoreLost(StoreUnavailable):
    """Another controller has taken the store, or it is not as it was left: this process must end."""


class Spent(StoreError):
    """A client token was spent before."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction writes, as rows."""

    puts: list[tuple[str, str, int, bytes]] = field(default_factory=list)  # kind, id, revision, document
    deletes: list[tuple[str, str]] = field(default_factory=list)
    looked: list[tuple[str, str, int]] = field(default_factory=list)  # wake-ups that are done, unless woken since
    wakes: list[tuple[str, str, int]] = field(default_factory=list)
    tokens: list[tuple[str, str, str, bytes, str]] = field(default_factory=list)
    events: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    in_time: bool = False  # it is done when the system has it: it need not be on the disk yet


class Rows(ABC):
    """What a database has. `name` is its path or its URL, without what is secret in it."""

    name: str

    @abstractmethod
    def query(self, sql: str, *values: Any) -> Sequence[Row]:
        """Few rows."""

    @abstractmethod
    def stream(self, sql: str) -> Iterator[Row]:
        """As many as there are, a few at a time."""

    def table(self, name: str) -> Iterator[Row]:
        """In the order of its keys."""
        columns = TABLES[name]
        return self.stream(f"SELECT {', '.join(columns)} FROM {name} ORDER BY {', '.join(columns[: _KEYS[name]])}")

    def copy_to(self, path: Path) -> None:
        """A store of its own in one SQLite file, whole or not there at all, for its owner alone."""
        from orchestrator.database.sqlite import write_file

        write_file(self, path)

    def meta(self, name: str) -> str | None:
        found = self.query("SELECT value FROM meta WHERE name = ?", name)
        return found[0][0] if found else None

    def documents(self, kind: str) -> list[bytes]:
        return [row[0] for row in self.query("SELECT document FROM resource WHERE kind = ?", kind)]

    def ids(self, kind: str) -> list[str]:
        return [row[0] for row in self.query("SELECT id FROM resource WHERE kind = ? ORDER BY id", kind)]

    def count(self, table: str) -> int:
        return int(self.query(f"SELECT count(*) FROM {table}")[0][0])

    def event_range(self) -> tuple[int, int]:
        """Numbers of the oldest and the newest event here; zeros where there is none."""
        [[first, last]] = self.query("SELECT coalesce(min(number), 0), coalesce(max(number), 0) FROM audit")
        return first, last


class Database(Rows):
    """The rows of the store that this process owns. Whoever calls anything here holds the store's lock.

    Raises StoreUnavailable, and StoreLost where ownership has gone: then `lost` says why.
    """

    lost: str = ""

    # --- what the two do in their own ways ---

    @abstractmethod
    def settle(self) -> None:
        """Know how every commit so far has ended: call it before what depends on that is read."""

    @abstractmethod
    def commit(self, batch: Batch, done: Callable[[], None]) -> None:
        """Write all of it. `done` is called when it is in the database, which may be in a `settle` after a failure.

        Raises Spent.
        """

    @abstractmethod
    def change(self, sql: str, *values: Any) -> int:
        """One statement as a transaction of its own, which may be repeated; how many rows it concerned."""

    @abstractmethod
    def scrub(self) -> None:
        """Leave nothing readable but what is stored, and take SCRUB out of meta. Raises StoreError."""

    @abstractmethod
    def give_back(self) -> bool:
        """Give some of the free room back to the system; whether there may be more."""

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def on_lost(self, listener: Callable[[], None]) -> None:
        """Have it called once, from a thread of its own and without the lock, when ownership has gone."""

    # --- what is the same SQL ---

    def set_meta(self, name: str, value: str) -> None:
        self.change(PUT_META, name, value)

    def newest_revision(self) -> int:
        return int(self.query("SELECT coalesce(max(revision), 0) FROM resource")[0][0])

    def token(self, scope: str, token: str) -> tuple[str, bytes] | None:
        """(fingerprint, answer) of a token that was spent."""
        found = self.query("SELECT fingerprint, answer FROM token WHERE scope = ? AND token = ?", scope, token)
        return (found[0][0], found[0][1]) if found else None

    def forget_tokens(self, before: str, at_most: int) -> int:
        """Those spent before a time; how many were forgotten."""
        old = "SELECT scope, token FROM token WHERE created < ? LIMIT ?"
        return self.change(
            f"DELETE FROM token WHERE (scope, token) IN ({old}) AND created < ?", before, at_most, before
        )

    def events(self, first: int, last: int) -> Sequence[Row]:
        """(number, hash, document), oldest first."""
        sql = "SELECT number, hash, document FROM audit WHERE number BETWEEN ? AND ? ORDER BY number"
        return self.query(sql, first, last)

    def events_before(self, number: int, at_most: int) -> Sequence[Row]:
        """(number, document) up to and with `number`, newest first."""
        sql = "SELECT number, document FROM audit WHERE number <= ? ORDER BY number DESC LIMIT ?"
        return self.query(sql, number, at_most)

    def forget_events(self, last: int) -> None:
        """Up to and with `last`."""
        self.change("DELETE FROM audit WHERE number <= ?", last)


PUT_META = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


def statements(batch: Batch) -> Iterator[tuple[str, Iterable[Row]]]:
    """What writes a batch: SQL, and the rows to run it for, in order."""
    if batch.deletes:
        yield "DELETE FROM resource WHERE kind = ? AND id = ?", batch.deletes
    if batch.puts:
        yield (
            "INSERT INTO resource VALUES (?, ?, ?, ?) ON CONFLICT (kind, id) "
            "DO UPDATE SET revision = excluded.revision, document = excluded.document",
            batch.puts,
        )
    if batch.looked:
        yield "DELETE FROM wake WHERE kind = ? AND id = ? AND serial <= ?", batch.looked
    if batch.wakes:
        yield (
            "INSERT INTO wake VALUES (?, ?, ?) ON CONFLICT (kind, id) DO UPDATE SET serial = excluded.serial",
            batch.wakes,
        )
    if batch.tokens:
        yield "INSERT INTO token VALUES (?, ?, ?, ?, ?)", batch.tokens
    if batch.events:
        yield "INSERT INTO audit VALUES (?, ?, ?)", batch.events
    if batch.meta:
        yield PUT_META, list(batch.meta.items())


# --- which one --------------------------------------------------------------------------------------------------------


def open_database(path: Path, url: str, lock: threading.RLock, *, durable: bool = True) -> Database:
    """Own the database at `url`, or the file at `path` without one; made or upgraded as need be. Raises StoreError.

    What belongs to it and is no row is in the folder of `path`, which another database may not have taken.
    """
    mark = path.with_name(MARK)
    if url:
        if path.exists():
            raise StoreError(
                f"{path.parent} has a store of its own ({path.name}), and store.url names another: leave store.url "
                "out, or `orc backup` this one and `orc restore` it to another state_dir with store.url"
            )
        server: Database = _postgres().Postgres(url, mark, lock, durable=durable)
        return server
    if mark.exists():
        raise StoreError(f"the state of {path.parent} is in a PostgreSQL database ({mark.name} says so): set store.url")
    from orchestrator.database.sqlite import SQLite

    return SQLite(path, durable=durable)


@contextmanager
def reading(path: Path, url: str = "") -> Iterator[Rows]:
    """The rows as of one instant, whoever writes meanwhile. Raises StoreError and OSError."""
    from orchestrator.database.sqlite import SQLiteRows

    rows: AbstractContextManager[Rows] = _postgres().reading(url) if url else SQLiteRows.reading(path)
    with rows as opened:
        yield opened


def exists(state_dir: Path, url: str = "") -> bool:
    """Whether a store is there, or was."""
    return (state_dir / (MARK if url else FILE)).is_file()


def fill_server(url: str, rows: Rows, mark: Path) -> AbstractContextManager[None]:
    """An empty database at `url` gets these rows when the block is left without an error; then `mark` belongs to it."""
    filled: AbstractContextManager[None] = _postgres().fill(url, rows, mark)
    return filled


@contextmanager
def removing(state_dir: Path, url: str, *, may_be_gone: bool = False) -> Iterator[None]:
    """When the block is left without an error, nothing of a store is in the database at `url` any more; without a URL
    all of it is files. `may_be_gone`: that may have happened before. Raises StoreError, before or after the block."""
    if not url:
        yield
        return
    with _postgres().removing(url, state_dir / MARK, may_be_gone=may_be_gone):
        yield


def check_server(url: str) -> tuple[str, list[str]]:
    """What answers at `url`, and what is risky about how it is configured. Raises StoreError."""
    found: tuple[str, list[str]] = _postgres().check(url)
    return found


def shown(url: str) -> str:
    """A URL without what is secret in it."""
    return str(_postgres().shown(url)) if url else ""


def _postgres() -> Any:
    try:
        import orchestrator.database.postgres as found
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise StoreError(
            "store.url needs psycopg, which is not installed: pip install 'orchestrator[postgres]'"
        ) from error
    return found


def newer(name: str, found: int) -> StoreError:
    return StoreError(
        f"{name} was written by a newer orchestrator (schema {found}, this one knows {SCHEMA_VERSION}): "
        "install that version again"
    )


def damaged(name: str, detail: str) -> str:
    return f"{name} is damaged ({detail}): restore a backup of it with `orc restore`"

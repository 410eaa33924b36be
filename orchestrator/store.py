"""Where state lives: resources, the work queue, client tokens and the newest audit events, in one database.

A resource is one JSON document with a revision. The database (a SQLite file, or a PostgreSQL server by URL) is the
truth and every commit is on its disk when it returns; a decoded copy of every resource is kept in memory with its
indexes, so that reading costs no query. One process owns a store at a time, so the copy is never stale.

    with store.write() as tx:            one writer at a time
        tx.put(replace(volume, ...))     seen by this transaction's own reads
        tx.wake(volume)                  a reconciler will look at it
                                         leaving commits; an exception undoes all of it

Readers take no lock: they see each resource as of some commit. What cannot be committed (a full disk, a lock, a server
that does not answer) raises StoreUnavailable and changes nothing; reading goes on. StoreLost says that another process
owns the store by now: this one must end.

Everything in it is bounded: one wake-up per resource, tokens for TOKENS_KEPT, audit events until `trail.py` moves them
out. `database/` knows how rows are kept, upgraded and made unreadable.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import msgspec

from orchestrator.database import (
    SCHEMA_VERSION,
    SCRUB,
    Batch,
    Spent,
    StoreError,
    StoreLost,
    StoreUnavailable,
    damaged,
    open_database,
)
from orchestrator.model.kinds import KINDS
from orchestrator.model.resource import Resource
from orchestrator.tables import Table, matches, values_of
from orchestrator.trail import KEPT_EVENTS, PAUSE_S, Event, Trail

__all__ = [
    "SCHEMA_VERSION",
    "TOKENS_KEPT",
    "Spent",
    "Store",
    "StoreError",
    "StoreLost",
    "StoreUnavailable",
    "Transaction",
]

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)

TOKENS_KEPT = timedelta(hours=48)  # EC2 promises a day
_CHUNK = 200  # rows at a time, where others may write in between


class Store:
    def __init__(self, path: Path, *, url: str = "", durable: bool = True, kept_events: int = KEPT_EVENTS) -> None:
        """Open the store in the file `path`, or in the PostgreSQL database at `url`; made when it is not there.

        With a URL nothing is at `path`, but what belongs to a store is in its folder all the same: the lock and the
        audit log's segments. Raises StoreError. `durable=False` leaves syncing to the system (tests). `kept_events` is
        how many audit events stay in the store before older ones are moved out.
        """
        self.path = path
        # Stands in the place of each commit to the database (tests end the process before and after it).
        self.around_commit: Callable[[Callable[[], None]], None] = lambda commit: commit()
        self._lock = threading.RLock()
        self._lock_file = _take(path)
        try:
            self._database = open_database(path, url, self._lock, durable=durable)
            try:
                self._load(kept_events)
            except BaseException:
                self._database.close()
                raise
        except BaseException:
            os.close(self._lock_file)
            raise
        self._closed = False

    def _load(self, kept_events: int) -> None:
        database = self._database
        self._tables = {kind.KIND: Table(kind) for kind in KINDS}
        self._decoders = {kind.KIND: msgspec.json.Decoder(kind) for kind in KINDS}
        self._encoder = msgspec.json.Encoder()
        self._listeners: list[Callable[[list[tuple[str, str]]], None]] = []
        with _without_collections():
            for kind, resource_id, _, document in database.table("resource"):
                try:
                    self._tables[kind].put(self._decoders[kind].decode(document))
                except (KeyError, ValueError) as error:
                    raise StoreError(damaged(database.name, f"{kind} {resource_id}: {error}")) from error
        self._meta: dict[str, str] = {row[0]: row[1] for row in database.table("meta")}
        self._wakes: dict[tuple[str, str], int] = {(kind, name): n for kind, name, n in database.table("wake")}
        self._looked: dict[tuple[str, str], int] = {}  # wake-ups that are done, for the next commit to forget
        self._serial = max(self._wakes.values(), default=0)
        self._revision = database.newest_revision()
        try:
            self.trail = Trail(
                database,
                self._commit_batch,
                self._lock,
                self.path.parent / "audit",
                tidy=self.tidy,
                kept_events=kept_events,
            )
        except ValueError as error:
            raise StoreError(damaged(database.name, f"audit log: {error}")) from error
        try:
            self.scrub()  # as far as the last process was ended before it had done so
        except StoreError as error:
            log.error("%s", error)  # `tidy` tries again

    def close(self) -> None:
        """Write what is noted for the audit log, and let go of the database. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.trail.stop()
        with self._lock:
            if self._looked:
                with suppress(StoreUnavailable):  # they are looked at once more
                    self._commit_batch(Batch(), lambda: None)
            self._database.close()
            os.close(self._lock_file)

    def on_lost(self, listener: Callable[[], None]) -> None:
        """Call `listener` once, from a thread of its own, when another process owns the store by now."""
        self._database.on_lost(listener)

    @property
    def lost(self) -> str:
        """Why this process may not write any more; empty as long as it may."""
        return self._database.lost

    # --- reading ---

    def get(self, kind: type[R], resource_id: str) -> R | None:
        return cast("R | None", self._tables[kind.KIND].rows.get(resource_id))

    def all(self, kind: type[R], /, **where: Hashable) -> list[R]:
        """Rows whose attributes equal all of `where`, of which at least one must be indexed; without it, every row."""
        return cast("list[R]", self._tables[kind.KIND].select(where))

    def counts(self, kind: type[Resource], name: str) -> dict[Hashable, int]:
        """How many rows have each value of an indexed attribute. Costs the same however many rows there are."""
        return self._tables[kind.KIND].counts(name)

    def at_most(self, kind: type[Resource], account: str) -> int:
        """No fewer than an account has of a kind, in whatever state and region. Costs the same however many it has."""
        return len(self._tables[kind.KIND].indexes["account"].get(account, ()))

    def meta(self, name: str) -> str | None:
        return self._meta.get(name)

    def set_meta(self, name: str, value: str) -> None:
        with self._lock:
            self._database.set_meta(name, value)
            self._meta[name] = value

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
    def write(self, *, in_time: bool = False) -> Iterator[Transaction]:
        """One transaction. It is on the disk when the block has been left; an exception undoes all of it.

        With `in_time` it is on the disk together with the next one: a power cut may undo it, and nothing else can. For
        what was seen on the host and would be seen again. Raises StoreUnavailable where it cannot be committed.
        """
        with self._lock:
            self._database.settle()  # so that the transaction reads all that is there
            tx = Transaction(self, in_time=in_time)
            yield tx
            self._commit(tx)
        self._tell(tx)
        if tx.scrubs:
            self.scrub()

    def _commit(self, tx: Transaction) -> None:
        if not (tx.changed or tx.wakes or tx.tokens or tx.audit or tx.scrubs):
            return
        batch = Batch(tokens=tx.tokens, in_time=tx.in_time)
        for (kind, resource_id), resource in tx.changed.items():
            if resource is None:
                batch.deletes.append((kind, resource_id))
            else:
                batch.puts.append((kind, resource_id, resource.revision, self._encoder.encode(resource)))
        for kind, resource_id in tx.wakes:
            self._serial += 1
            batch.wakes.append((kind, resource_id, self._serial))
        head = self.trail.chain((self.trail.encode(event) for event in tx.audit), batch)
        if tx.scrubs:
            batch.meta[SCRUB] = "due"

        def done() -> None:
            for (kind, resource_id), resource in tx.changed.items():
                if resource is None:
                    self._tables[kind].delete(resource_id)
                else:
                    self._tables[kind].put(resource)
            self.trail.advance(head)
            if in_doubt:
                self._tell(tx)

        in_doubt = False
        try:
            self.around_commit(partial(self._commit_batch, batch, done))
        except StoreUnavailable:
            in_doubt = True  # should it be done after all, nobody else tells of it
            raise

    def _tell(self, tx: Transaction) -> None:
        if tx.wakes:
            for listener in self._listeners:
                listener(list(tx.wakes))

    def _commit_batch(self, batch: Batch, done: Callable[[], None]) -> None:
        """Every write of rows. It also forgets the wake-ups that are done: that need not be on the disk by itself,
        since a resource may always be looked at once more."""
        batch.looked.extend((kind, name, serial) for (kind, name), serial in self._looked.items())

        def written() -> None:
            for kind, name, serial in batch.looked:
                if self._looked.get((kind, name)) == serial:
                    del self._looked[kind, name]
            self._meta.update(batch.meta)
            self._wakes.update({(kind, name): serial for kind, name, serial in batch.wakes})
            done()

        self._database.commit(batch, written)

    def scrub(self) -> None:
        """Leave nothing in the database but what is stored, if a transaction has asked for it and it is not done yet.

        Raises StoreError, and may be tried again. `Database.scrub` says what is out of reach.
        """
        with self._lock:
            if SCRUB in self._meta:
                self._database.scrub()
                del self._meta[SCRUB]

    def tidy(self) -> None:
        """Forget tokens that are old, and give free room back, a little at a time: others write in between."""
        oldest = (datetime.now(UTC) - TOKENS_KEPT).isoformat()
        deleted = _CHUNK
        while deleted == _CHUNK:
            with self._lock:
                deleted = self._database.forget_tokens(oldest, _CHUNK)
            time.sleep(PAUSE_S)
        more = True
        while more:
            with self._lock:
                more = self._database.give_back()
            time.sleep(PAUSE_S)
        self.scrub()  # should it have failed before

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
            return sorted(((*key, serial) for key, serial in self._wakes.items()), key=lambda wake: wake[2])

    def wake_serial(self, kind: str, resource_id: str) -> int:
        """The serial of a pending wake-up, 0 when there is none."""
        return self._wakes.get((kind, resource_id), 0)

    def wake_done(self, kind: str, resource_id: str, serial: int) -> bool:
        """Forget a wake-up, unless the resource was woken again after `serial`; whether it was forgotten."""
        key = (kind, resource_id)
        with self._lock:
            pending = self._wakes.get(key, 0)
            if pending and pending <= serial:
                del self._wakes[key]
                self._looked[key] = pending
            return key not in self._wakes

    # --- client tokens ---

    def token(self, scope: str, token: str) -> tuple[str, bytes] | None:
        """(fingerprint of the parameters, answer) that a token was spent on."""
        with self._lock:
            return self._database.token(scope, token)


class Transaction:
    """What one `Store.write` block reads and changes."""

    def __init__(self, store: Store, *, in_time: bool = False) -> None:
        self.store = store
        self.in_time = in_time
        self.changed: dict[tuple[str, str], Resource | None] = {}
        self.wakes: dict[tuple[str, str], None] = {}
        self.tokens: list[tuple[str, str, str, bytes, str]] = []
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
        fresh = [cast("R", row) for row in mine.values() if row is not None and matches(row, where)]
        return kept + fresh

    def counts(self, kind: type[Resource], name: str) -> Counter[Hashable]:
        """`Store.counts`, with what this transaction has changed."""
        found = Counter(self.store.counts(kind, name))
        for (of_kind, resource_id), row in self.changed.items():
            if of_kind == kind.KIND:
                old = self.store.get(kind, resource_id)
                found.subtract(values_of(old, name) if old is not None else ())
                found.update(values_of(row, name) if row is not None else ())
        return found

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
        self.tokens.append((scope, token, fingerprint, answer, datetime.now(UTC).isoformat()))

    def record(self, event: Event) -> None:
        """Add an audit event."""
        self.audit.append(event)


def _take(path: Path) -> int:
    """The lock of the state directory: a descriptor that holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_file = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be used: {error.strerror or error}") from error
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock_file)
        raise StoreError(f"{path} is in use by another controller: stop it, or choose another state_dir") from error
    return lock_file


@contextmanager
def _without_collections() -> Iterator[None]:
    """Rows by the ten thousand are no garbage: looking whether they are takes longer than making them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

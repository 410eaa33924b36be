"""The store's rows on a PostgreSQL server: for whoever has one that is looked after, copied and watched already.

One session does everything and holds an advisory lock: while it lives nobody else is the owner. A session can end
without us (a restart of the server, a network that broke, an administrator), so each ownership has a number, and each
commit counts, in the row of `owner`:

    open         lock, generation += 1
    commit       commits += 1 where the generation is ours: one with another generation fails
    connection   ──> gone ──> connect, lock again ──> generation and commits as we left them: go on
      breaks          │                          ├──> one commit more, and one was in doubt: it is done
                      │                          └──> anything else: somebody took it, or it is an older copy: StoreLost
                      └──> cannot be had again yet: StoreUnavailable, a little later again

A thread waits for the server's end of the connection to close, so that this is noticed when nobody writes, too. It also
cuts the connection to a server that stands still, since whoever waits for that holds the store's lock.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from orchestrator.database import (
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
    StoreLost,
    StoreUnavailable,
    newer,
    statements,
)
from orchestrator.database.sqlite import remove_copies, sync_directory

log = logging.getLogger(__name__)

Connection = psycopg.Connection[Any]

SCHEMA = "orchestrator"
TAKE_WITHIN_S = 5.0  # an owner that was killed is still there for a moment
RECONNECT_EACH_S = 1.0
_LOCK = 0x6F7263  # the advisory lock; of this database alone
_STORE_ID = "store_id"  # meta: as in the mark beside it
_ROWS = 1000  # fetched at a time
_STATEMENT_S = 30
_LOCK_S = 10  # for rows and tables
STALLED_S = 45.0  # for what should have ended after _STATEMENT_S
WATCH_EACH_S = 5.0

# `token` holds what callers make up, of which text may not have every character. Statistics of what may be secret would
# be copies of it.
_MAKE = """
CREATE TABLE meta (name text PRIMARY KEY, value text NOT NULL);
CREATE TABLE resource (
    kind text NOT NULL, id text NOT NULL, revision bigint NOT NULL, document bytea NOT NULL, PRIMARY KEY (kind, id)
);
CREATE TABLE wake (kind text NOT NULL, id text NOT NULL, serial bigint NOT NULL, PRIMARY KEY (kind, id));
CREATE TABLE token (
    scope text NOT NULL, token bytea NOT NULL, fingerprint text NOT NULL, answer bytea NOT NULL, created text NOT NULL,
    PRIMARY KEY (scope, token)
);
CREATE INDEX token_created ON token (created);
CREATE TABLE audit (number bigint PRIMARY KEY, hash bytea NOT NULL, document bytea NOT NULL);
CREATE TABLE owner (one integer PRIMARY KEY CHECK (one = 1), generation bigint NOT NULL, commits bigint NOT NULL);
INSERT INTO owner VALUES (1, floor(random() * 1e15), 0);
ALTER TABLE resource ALTER document SET STATISTICS 0;
ALTER TABLE token ALTER token SET STATISTICS 0, ALTER answer SET STATISTICS 0;
ALTER TABLE audit ALTER hash SET STATISTICS 0, ALTER document SET STATISTICS 0;
"""
_REWRITTEN = ("resource", "token")  # by a scrub: what else there is has no secrets

# Schema -> what makes the next one of it, in a transaction. The first that this database knew is 2.
UPGRADES: dict[int, Callable[[Connection], None]] = {}


class PostgresRows(Rows):
    def __init__(self, db: Connection, name: str) -> None:
        self.db = db
        self.name = name

    def query(self, sql: str, *values: Any) -> Sequence[Row]:
        with _explained(self.name):
            return self.db.execute(_marks(sql), values, binary=True).fetchall()

    def stream(self, sql: str) -> Iterator[Row]:
        """Needs a transaction, in which it is all one instant."""
        with _explained(self.name), self.db.cursor("rows", binary=True) as cursor:
            cursor.execute(_marks(sql))
            while rows := cursor.fetchmany(_ROWS):
                yield from rows

    def table(self, name: str) -> Iterator[Row]:
        if name == "token":
            return ((row[0], _text(row[1]), *row[2:]) for row in super().table(name))
        if name == "meta":
            return (row for row in super().table(name) if row[0] != _STORE_ID)
        return super().table(name)


class Postgres(PostgresRows, Database):
    def __init__(self, url: str, mark: Path, lock: threading.RLock, *, durable: bool = True) -> None:
        """Own the database. `mark` is the file that says which database a state directory belongs to."""
        self._url = url
        self._mark = mark
        self._lock = lock
        self._durable = durable
        self._doubt: Callable[[], None] | None = None  # of the commit during which the connection broke
        self._closed = threading.Event()
        self._not_before = 0.0  # connecting again
        self._asked: float | None = None  # since when an answer is waited for
        self._listeners: list[Callable[[], None]] = []
        super().__init__(_connect(url, durable=durable), shown(url))
        try:
            with _explained(self.name):
                if not _take(self.db, TAKE_WITHIN_S):
                    raise StoreError(
                        f"{self.name} is in use by another controller: stop it, or choose another store.url"
                    )
                self._make_or_upgrade()
                sql = "UPDATE owner SET generation = generation + 1 RETURNING generation, commits"
                [(self._generation, self._commits)] = self.db.execute(sql).fetchall()
                [(fsync,)] = self.db.execute("SHOW fsync").fetchall()
        except BaseException:
            self.db.close()
            raise
        if fsync == "off":
            log.warning(
                "%s runs with fsync = off: what is committed there may be lost when its machine fails", self.name
            )
        self._watcher = threading.Thread(target=self._watch, name="postgres", daemon=True)
        self._watcher.start()

    def _make_or_upgrade(self) -> None:
        db, known = self.db, self._known_mark()
        found = _schema_version(db, self.name)
        if found == 0:
            if known:
                raise StoreError(
                    f"{self.name} is empty, and {self._mark.parent} belongs to another database: set store.url to that "
                    "one, or `orc restore` a backup to another state_dir"
                )
            with db.transaction():
                _make(db)
                db.execute(_marks(PUT_META), ("schema", str(SCHEMA_VERSION)))
                db.execute(_marks(PUT_META), (_STORE_ID, uuid4().hex))
        store_id = self.meta(_STORE_ID) or ""
        if not known and not self.query("SELECT 1 FROM resource LIMIT 1"):
            write_mark(self._mark, store_id)
        elif known != store_id:
            raise StoreError(
                f"{self.name} belongs to another state directory than {self._mark.parent}: its disks, keys and audit "
                "files are needed. Bring that directory here, or `orc restore` a backup to an empty database"
            )
        if 0 < found < SCHEMA_VERSION:
            with db.transaction():
                self.copy_to(self._mark.with_name(f"orchestrator.db.{found}.copy"))
        while 0 < found < SCHEMA_VERSION:
            with db.transaction():
                UPGRADES[found](db)
                found += 1
                db.execute(_marks(PUT_META), ("schema", str(found)))

    def _known_mark(self) -> str:
        try:
            return self._mark.read_text().strip()
        except FileNotFoundError:
            return ""

    def close(self) -> None:
        self._closed.set()
        self.db.close()  # what the watcher waits for

    # --- the connection ---

    def settle(self) -> None:
        if self.lost:
            raise StoreLost(self.lost)
        if not self.db.closed:
            return
        if self._closed.is_set():
            raise StoreUnavailable(f"{self.name} has been closed")
        if time.monotonic() < self._not_before:
            raise StoreUnavailable(f"the state cannot be written just now: {self.name} does not answer")
        self._not_before = time.monotonic() + RECONNECT_EACH_S
        try:
            db = _connect(self._url, durable=self._durable)
        except StoreError as error:
            raise StoreUnavailable(f"the state cannot be written just now: {error}") from error
        try:
            taken = _take(db, 0.0)
            [(generation, commits)] = db.execute("SELECT generation, commits FROM owner").fetchall()
        except psycopg.Error as error:
            db.close()
            if isinstance(error, errors.UndefinedTable):
                self._lose(f"{self.name} is not the database that it was")
            raise StoreUnavailable(_unavailable(error)) from error
        expected = (self._commits, self._commits + 1) if self._doubt else (self._commits,)
        if generation != self._generation:
            db.close()
            self._lose(f"another controller has taken {self.name}")
        if not taken:  # by our own session, of which the server does not know yet that it has ended
            db.close()
            raise StoreUnavailable(
                f"the state cannot be written just now: {self.name} is still held by a session before"
            )
        if commits not in expected:
            db.close()
            self._lose(f"{self.name} is not as it was left: it has {commits} commits, and had {self._commits}")
        self.db = db
        self._not_before = 0.0
        log.info("%s is connected to again", self.name)
        doubt, self._doubt = self._doubt, None
        if doubt is not None and commits == self._commits + 1:
            self._commits = commits
            doubt()

    def _lose(self, why: str) -> None:
        self.lost = f"{why}: this controller ends, and writes nothing any more"
        log.error("%s", self.lost)
        self.close()  # the watcher tells of it
        raise StoreLost(self.lost)

    def on_lost(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def _watch(self) -> None:
        """Notice that the connection has gone, and have it again or be told that it is lost."""
        while not self._closed.is_set():
            watched, descriptor = self.db, None
            with self._lock, suppress(psycopg.Error, OSError):
                descriptor = os.dup(watched.fileno())
            if descriptor is not None:
                try:
                    self._until_ended(descriptor)
                finally:
                    os.close(descriptor)
            with self._lock:
                if self._closed.is_set():
                    break
                if not watched.closed:
                    log.warning("the connection to %s has gone", self.name)
                    watched.close()
                with suppress(StoreError):
                    self.settle()
            if self.db.closed:
                self._closed.wait(RECONNECT_EACH_S)
        if self.lost:
            for listener in self._listeners:
                listener()

    def _until_ended(self, descriptor: int) -> None:
        """Until the server's end of a connection is closed; ours is where an answer does not come."""
        ended = select.poll()
        ended.register(descriptor, select.POLLRDHUP)  # what it sends is not for us
        while not ended.poll(WATCH_EACH_S * 1000):
            asked = self._asked
            if asked is not None and time.monotonic() - asked > STALLED_S:
                log.warning("%s stands still: the connection is cut", self.name)
                with socket.socket(fileno=os.dup(descriptor)) as ours:
                    ours.shutdown(socket.SHUT_RDWR)
                return

    @contextmanager
    def _working(self) -> Iterator[Connection]:
        """The connection, for what may be done again when it fails."""
        self.settle()
        try:
            with self._waiting():
                yield self.db
        except psycopg.Error as error:
            self._leave_idle()
            raise StoreUnavailable(_unavailable(error)) from error

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._asked = time.monotonic()
        try:
            yield
        finally:
            self._asked = None

    def _leave_idle(self) -> None:
        """After a failure: no transaction is left, and a connection that has gone is known to be closed."""
        with suppress(psycopg.Error), self._waiting():
            self.db.rollback()
            self.db.execute("SELECT 1")

    # --- rows ---

    def query(self, sql: str, *values: Any) -> Sequence[Row]:
        with self._working() as db:
            return db.execute(_marks(sql), values, binary=True).fetchall()

    def stream(self, sql: str) -> Iterator[Row]:
        with _explained(self.name):
            if self.db.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
                yield from super().stream(sql)
            else:
                with self.db.transaction():
                    yield from super().stream(sql)

    def change(self, sql: str, *values: Any) -> int:
        with self._working() as db:
            return db.execute(_marks(sql), values).rowcount

    def token(self, scope: str, token: str) -> tuple[str, bytes] | None:
        sql = "SELECT fingerprint, answer FROM token WHERE scope = ? AND token = ?"
        found = self.query(sql, scope, _bytes(token))
        return (found[0][0], found[0][1]) if found else None

    def commit(self, batch: Batch, done: Callable[[], None]) -> None:
        self.settle()
        db = self.db
        try:
            with self._waiting(), db.pipeline(), db.cursor() as cursor:  # all of it in one journey
                cursor.execute("BEGIN")
                # No value, which is refused, where the generation is another's.
                sql = "UPDATE owner SET commits = CASE WHEN generation = %s THEN commits + 1 END"
                cursor.execute(sql, (self._generation,))
                for sql, rows in statements(batch):
                    cursor.executemany(_marks(sql), _as_kept(sql, rows))
                cursor.execute("COMMIT")
        except errors.NotNullViolation as error:
            self._leave_idle()
            if error.diag.table_name != "owner":
                raise
            self._lose(f"another controller has taken {self.name}")
        except errors.UniqueViolation as error:
            self._leave_idle()
            raise Spent(f"what is to be written is there already: {error.diag.message_detail}") from error
        except psycopg.Error as error:
            self._leave_idle()
            if not db.closed:
                raise StoreUnavailable(_unavailable(error)) from error
            before = self._commits
            self._doubt = done
            self.settle()
            if self._commits == before:
                raise StoreUnavailable(_unavailable(error)) from error
        else:
            self._commits += 1
            done()

    def scrub(self) -> None:
        """The tables that have secrets are written anew, without the rows that are dead. PostgreSQL's log (WAL), its
        archives and replicas, and the disk's free blocks are not ours to clean."""
        try:
            with self._working() as db, db.transaction():
                self._asked = None  # it may take its time
                db.execute("SET LOCAL statement_timeout = 0")
                for table in _REWRITTEN:
                    db.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                    db.execute(f"CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM {table}")
                    db.execute(f"TRUNCATE {table}")  # a new file; the old one goes with the commit
                    db.execute(f"INSERT INTO {table} SELECT * FROM kept")
                    db.execute("DROP TABLE kept")
                remove_copies(self._mark.with_name("orchestrator.db"))
                db.execute("DELETE FROM meta WHERE name = %s", (SCRUB,))
        except (StoreUnavailable, OSError) as error:
            raise StoreError(f"{self.name} still has what was deleted in it: {error}") from error

    def give_back(self) -> bool:
        """The server's autovacuum does."""
        return False


# --- connections ------------------------------------------------------------------------------------------------------


@contextmanager
def reading(url: str) -> Iterator[PostgresRows]:
    """The rows as of now, whether a controller runs or not."""
    db = _connect(url)
    try:
        with _explained(shown(url)):
            db.execute("SET statement_timeout = 0")
            db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if _schema_version(db, shown(url)) == 0:
                raise StoreError(f"{shown(url)} has no state yet")
        yield PostgresRows(db, shown(url))
    finally:
        db.close()


@contextmanager
def fill(url: str, rows: Rows, mark: Path) -> Iterator[None]:
    """An empty database gets these rows when the block is left, and `mark` says that it belongs there."""
    name = shown(url)
    db = _connect(url)
    try:
        with _explained(name):
            if not _take(db, TAKE_WITHIN_S):
                raise StoreError(f"{name} is in use by a controller: restore to another database")
            if _schema_version(db, name) and db.execute("SELECT 1 FROM resource LIMIT 1").fetchall():
                raise StoreError(f"{name} is not empty: restore to another database")
            db.execute("BEGIN")
            for table in (*TABLES, "owner"):
                db.execute(f"DROP TABLE IF EXISTS {table}")
            _make(db)
            db.execute("SET LOCAL statement_timeout = 0")
            for table, columns in TABLES.items():
                with db.cursor().copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copy:
                    for row in rows.table(table):
                        copy.write_row((row[0], _bytes(row[1]), *row[2:]) if table == "token" else row)
            store_id = uuid4().hex
            db.execute(_marks(PUT_META), (_STORE_ID, store_id))
        write_mark(mark, store_id)
        yield
        with _explained(name):
            db.execute("COMMIT")
    finally:
        db.close()


@contextmanager
def removing(url: str, mark: Path, *, may_be_gone: bool) -> Iterator[None]:
    """What a controller made in the database goes when the block is left without an error; the database stays.

    It must be the one that `mark` says, or, with `may_be_gone`, have nothing of a controller in it any more.
    """
    name = shown(url)
    db = _connect(url)
    try:
        with _explained(name):
            if not _take(db, TAKE_WITHIN_S):
                raise StoreError(f"{name} is in use by a controller: end that first")
            there = _schema_version(db, name) > 0
            sql = "SELECT value FROM meta WHERE name = %s"
            store_id = db.execute(sql, (_STORE_ID,)).fetchone() if there else None
            if (not there and not may_be_gone) or (there and store_id != (mark.read_text().strip(),)):
                raise StoreError(f"{name} is not the database of {mark.parent}: set store.url to that one")
            db.execute("BEGIN")
            for table in (*TABLES, "owner") if there else ():
                db.execute(f"DROP TABLE {table}")
            # A schema that could not be made again was given to us, and one with more in it is somebody else's too.
            [(ours,)] = db.execute("SELECT has_database_privilege(current_database(), 'CREATE')").fetchall()
            with suppress(errors.DependentObjectsStillExist, errors.InsufficientPrivilege), db.transaction():
                if ours:
                    db.execute(f"DROP SCHEMA IF EXISTS {SCHEMA}")
        yield
        with _explained(name):
            db.execute("COMMIT")
    finally:
        db.close()


def check(url: str) -> tuple[str, list[str]]:
    """What answers, and what is risky in how it is configured."""
    db = _connect(url)
    try:
        with _explained(shown(url)):
            started = time.monotonic()
            settings = {row[0]: row[1] for row in db.execute("SELECT name, setting FROM pg_settings")}
            answer_ms = (time.monotonic() - started) * 1000
            _schema_version(db, shown(url))
    finally:
        db.close()
    risks = [
        f"{name} = off: what is committed may be lost when its machine fails"
        for name in ("fsync", "full_page_writes")
        if settings.get(name) == "off"
    ]
    if settings.get("server_encoding") != "UTF8":
        risks.append(f"the database's encoding is {settings.get('server_encoding')}, not UTF8")
    return f"{shown(url)} answers in {answer_ms:.0f} ms (PostgreSQL {settings.get('server_version', '')})", risks


def write_mark(mark: Path, store_id: str) -> None:
    fresh = mark.with_suffix(".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(store_id + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(mark)
    sync_directory(mark.parent)


def shown(url: str) -> str:
    """A URL without password and options. StoreError for what is none, which is not quoted: it may have secrets."""
    unreadable = StoreError(
        "store.url cannot be read: expected postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE, with special "
        "characters of a password as %40 and the like"
    )
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        raise unreadable from None
    ports = str(given.get("port") or "").replace(",", "")
    if "@" in str(given.get("host") or "") or not (ports.isdecimal() or not ports):
        raise unreadable  # they are parts of a password
    host = quote(str(given.get("host") or ""), safe="/.,:")
    at = f"{quote(str(given['user']))}@" if given.get("user") else ""
    port = f":{given['port']}" if given.get("port") else ""
    if host.startswith("/"):  # the folder of a socket
        return f"postgresql://{at}/{given.get('dbname') or ''}?host={host}{port.replace(':', '&port=')}"
    return f"postgresql://{at}{host}{port}/{given.get('dbname') or ''}"


def _connect(url: str, *, durable: bool = True) -> Connection:
    """A session that knows its schema, if that is there. Raises StoreError, with no secret in it."""
    name = shown(url)
    given = conninfo_to_dict(url)
    # A server that has gone is noticed at both ends within half a minute, and its lock is free then.
    ours: dict[str, Any] = {
        "application_name": "orchestrator",
        "client_encoding": "utf8",
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,
    }
    ours |= {key: value for key, value in given.items() if value is not None}
    try:
        db = psycopg.connect(make_conninfo(**ours), autocommit=True)
    except psycopg.Error as error:
        raise StoreError(f"{name} cannot be used: {_without_secrets(str(error), given)}") from None
    try:
        for setting, value in (
            ("search_path", SCHEMA),
            ("statement_timeout", f"{_STATEMENT_S}s"),
            ("lock_timeout", f"{_LOCK_S}s"),
            ("idle_in_transaction_session_timeout", "0"),
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
        ):
            db.execute("SELECT set_config(%s, %s, false)", (setting, value))
        # `remote_apply`, where an administrator has set that, is more than `on`.
        sql = (
            "SELECT set_config(name, %s, false) FROM pg_settings "
            "WHERE name = 'synchronous_commit' AND setting = ANY(%s)"
        )
        db.execute(sql, ("on", ["off", "local"]) if durable else ("off", ["on", "local"]))
    except psycopg.Error as error:
        db.close()
        raise StoreError(f"{name} cannot be used: {_without_secrets(str(error), given)}") from None
    return db


def _take(db: Connection, within_s: float) -> bool:
    """The lock of the owner, for as long as the session lasts."""
    for attempt in count():
        [(taken,)] = db.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchall()
        if taken or attempt * 0.1 >= within_s:
            return bool(taken)
        time.sleep(0.1)
    return False


def _schema_version(db: Connection, name: str) -> int:
    """0 where nothing is. Raises StoreError for one that is newer than this program, and for what is no store."""
    tables = {row[0] for row in db.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (SCHEMA,))}
    if not tables:
        return 0
    row = db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone() if "meta" in tables else None
    found = int(row[0]) if row and row[0].isdecimal() else 0
    if found > SCHEMA_VERSION:
        raise newer(name, found)
    if found < 1:
        raise StoreError(
            f"{name} has a schema {SCHEMA} that is not a store of orchestrator's: choose another store.url"
        )
    return found


def _make(db: Connection) -> None:
    if not db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (SCHEMA,)).fetchall():
        db.execute(f"CREATE SCHEMA {SCHEMA}")
    for statement in _MAKE.strip().rstrip(";").split(";"):
        db.execute(statement)


# --- words and values -------------------------------------------------------------------------------------------------


def _marks(sql: str) -> str:
    return sql.replace("?", "%s")


def _as_kept(sql: str, rows: Any) -> Any:
    return [(row[0], _bytes(row[1]), *row[2:]) for row in rows] if sql.startswith("INSERT INTO token") else rows


def _bytes(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")


def _text(token: bytes) -> str:
    return token.decode("utf-8", "surrogatepass")


def _unavailable(error: psycopg.Error) -> str:
    return f"the state cannot be written just now: {str(error).strip() or type(error).__name__}"


def _without_secrets(text: str, given: dict[str, Any]) -> str:
    for key in ("password", "sslpassword", "passfile"):
        if given.get(key):
            text = text.replace(str(given[key]), "***").replace(quote(str(given[key])), "***")
    return " ".join(text.split())


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise StoreError(f"{name} cannot be used: {' '.join(str(error).split())}") from error

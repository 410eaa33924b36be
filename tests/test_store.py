"""The store: transactions, indexes, the work queue, tokens, versions, bounds, and what survives a kill or a fault."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import orchestrator.database.sqlite as sqlite_module
from orchestrator.model.key_pair import KeyPair
from orchestrator.model.vpc import Subnet, default_network
from orchestrator.store import SCHEMA_VERSION, TOKENS_KEPT, Spent, Store, StoreError, StoreUnavailable
from orchestrator.trail import verify

from .postgres import PostgresServer

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def key_pair(number: int, account: str = "1" * 12) -> KeyPair:
    return KeyPair(
        id=f"key-{number:017x}",
        account=account,
        region="us-east-1",
        created=NOW,
        name=f"k{number}",
        key_type="rsa",
        fingerprint="",
        public_key="",
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "orchestrator.db"


def db_of(store: Store) -> sqlite3.Connection:
    """What a store in a file uses, to break it."""
    assert isinstance(store._database, sqlite_module.SQLite)
    return store._database.db


@dataclass(frozen=True)
class Place:
    """Where a store is: a file, or a database of a real server."""

    path: Path
    url: str = ""

    def open(self, **options: Any) -> Store:
        return Store(self.path, url=self.url, **options)

    def sql(self, statement: str) -> list[Any]:
        """As somebody else than the controller."""
        if self.url:
            return PostgresServer.sql(self.url, statement)
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            return db.execute(statement).fetchall()

    def verify(self) -> list[str]:
        return verify(self.path.parent, url=self.url).problems


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.host)])
def place(request: pytest.FixtureRequest, path: Path) -> Place:
    if request.param == "sqlite":
        return Place(path)
    return Place(path, request.getfixturevalue("postgres").make_database())


def test_every_kind_comes_back_as_it_was(place: Place) -> None:
    store = place.open()
    with store.write() as tx:
        tx.put_all(default_network("1" * 12, "us-east-1", ["us-east-1a", "us-east-1b"], NOW))
    before = {kind: sorted(table.rows.items()) for kind, table in store._tables.items()}
    store.close()
    reopened = place.open()
    assert {kind: sorted(table.rows.items()) for kind, table in reopened._tables.items()} == before
    assert any(before.values())
    reopened.close()


def test_an_exception_undoes_everything(place: Place) -> None:
    store = place.open()
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        tx.put(key_pair(1))
        tx.wake(key_pair(1))
        raise ZeroDivisionError
    assert store.get(KeyPair, key_pair(1).id) is None
    assert store.pending_wakes() == []
    store.close()


def test_a_transaction_reads_its_own_writes_and_others_do_not(place: Place) -> None:
    store = place.open()
    with store.write() as tx:
        tx.put(key_pair(1))
        tx.put(key_pair(2))
    with store.write() as tx:
        tx.put(key_pair(3))
        tx.delete(key_pair(1))
        tx.put(replace(key_pair(2), account="2" * 12))
        assert [key.name for key in tx.all(KeyPair, account="1" * 12)] == ["k3"]
        assert [key.name for key in store.all(KeyPair, account="1" * 12)] == ["k1", "k2"]
    assert [key.name for key in store.all(KeyPair, account="1" * 12)] == ["k3"]
    assert [key.name for key in store.all(KeyPair, account="2" * 12)] == ["k2"]
    store.close()


def test_values_are_counted_with_what_a_transaction_has_changed(place: Place) -> None:
    store = place.open()
    with store.write() as tx:
        tx.put_all([key_pair(1), key_pair(2), key_pair(3, "2" * 12)])
    with store.write() as tx:
        tx.put(key_pair(4))
        tx.delete(key_pair(1))
        tx.put(replace(key_pair(2), account="3" * 12))
        assert +tx.counts(KeyPair, "account") == {"1" * 12: 1, "2" * 12: 1, "3" * 12: 1}
        assert store.counts(KeyPair, "account") == {"1" * 12: 2, "2" * 12: 1}
    assert store.counts(KeyPair, "account") == {"1" * 12: 1, "2" * 12: 1, "3" * 12: 1}
    store.close()


def test_what_need_not_be_on_the_disk_yet_is_in_the_database_all_the_same(place: Place) -> None:
    store = place.open()
    with store.write(in_time=True) as tx:
        tx.put(key_pair(1))
        tx.wake(key_pair(1))
    assert store.get(KeyPair, key_pair(1).id) is not None
    assert place.sql("SELECT id FROM resource WHERE kind = 'key-pair'") == [(key_pair(1).id,)]
    store.close()
    store = place.open()
    assert [(kind, name) for kind, name, _ in store.pending_wakes()] == [("key-pair", key_pair(1).id)]
    store.close()


def test_only_what_may_come_in_time_is_not_synced(path: Path) -> None:
    store = Store(path)
    db = db_of(store)
    levels = []

    def commit(write: Any) -> None:
        write()
        levels.append(db.execute("PRAGMA synchronous").fetchone()[0])

    db.set_trace_callback(lambda statement: levels.append(statement) if "synchronous=" in statement else None)
    store.around_commit = commit
    for in_time in (False, True, False):
        with store.write(in_time=in_time) as tx:
            tx.put(key_pair(1))
    assert levels == [2, "PRAGMA synchronous=NORMAL", "PRAGMA synchronous=FULL", 2, 2]
    store.close()


def test_revisions_only_grow(place: Place) -> None:
    store = place.open()
    seen = []
    for _ in range(3):
        with store.write() as tx:
            seen.append(tx.put(key_pair(1)).revision)
    store.close()
    store = place.open()
    with store.write() as tx:
        seen.append(tx.put(key_pair(2)).revision)
    assert seen == sorted(set(seen))
    store.close()


def test_an_index_follows_changes(place: Place) -> None:
    store = place.open()
    network = default_network("1" * 12, "us-east-1", ["us-east-1a"], NOW)
    subnet = next(resource for resource in network if isinstance(resource, Subnet))
    with store.write() as tx:
        tx.put_all(network)
    with store.write() as tx:
        tx.put(replace(subnet, vpc_id="vpc-elsewhere"))
    assert store.all(Subnet, vpc_id=subnet.vpc_id) == []
    assert [row.id for row in store.all(Subnet, vpc_id="vpc-elsewhere", zone="us-east-1a")] == [subnet.id]
    assert store.all(Subnet, vpc_id="vpc-elsewhere", zone="us-east-1b") == []
    with pytest.raises(KeyError):
        store.all(Subnet, zone="us-east-1a")
    store.close()


def test_a_wake_up_is_kept_until_the_look_that_came_after_it(place: Place) -> None:
    store = place.open()
    heard: list[tuple[str, str]] = []
    store.on_wake(heard.extend)
    with store.write() as tx:
        tx.wake(key_pair(1))
    serial = store.wake_serial("key-pair", key_pair(1).id)
    with store.write() as tx:
        tx.wake(key_pair(1))
    assert not store.wake_done("key-pair", key_pair(1).id, serial)
    assert len(heard) == 2
    store.close()
    store = place.open()
    [(kind, resource_id, serial)] = store.pending_wakes()
    assert store.wake_done(kind, resource_id, serial)
    assert store.pending_wakes() == []
    store.close()


def test_a_token_is_spent_with_its_transaction(place: Place) -> None:
    store = place.open()
    with store.write() as tx:
        tx.spend_token("1/us-east-1/ec2/RunInstances", "t", "f", b"answer")
    assert store.token("1/us-east-1/ec2/RunInstances", "t") == ("f", b"answer")
    assert store.token("2/us-east-1/ec2/RunInstances", "t") is None
    with pytest.raises(Spent), store.write() as tx:
        tx.put(key_pair(1))
        tx.spend_token("1/us-east-1/ec2/RunInstances", "t", "f", b"other")
    assert store.get(KeyPair, key_pair(1).id) is None
    store.close()


def test_one_controller_per_store(place: Place) -> None:
    store = place.open()
    with pytest.raises(StoreError, match="in use by another controller"):
        place.open()
    store.close()
    place.open().close()


def test_a_newer_store_is_refused(place: Place) -> None:
    store = place.open()
    store.set_meta("schema", str(SCHEMA_VERSION + 1))
    store.close()
    with pytest.raises(StoreError, match="newer orchestrator"):
        place.open()


def test_nobody_else_can_read_it(path: Path) -> None:
    Store(path).close()
    assert path.stat().st_mode & 0o077 == 0


def test_writers_wait_for_each_other(place: Place) -> None:
    store = place.open(durable=False)

    def count() -> None:
        for _ in range(50):
            with store.write() as tx:
                row = tx.get(KeyPair, key_pair(0).id) or replace(key_pair(0), name="0")
                tx.put(replace(row, name=str(int(row.name) + 1)))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row = store.get(KeyPair, key_pair(0).id)
    assert row is not None
    assert row.name == "200"
    store.close()


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.test_store import key_pair
from orchestrator.store import Store
store = Store(Path(sys.argv[1]), url=sys.argv[3])
for number in range(100000):
    with store.write() as tx:
        tx.put(key_pair(number))
        tx.put(replace(key_pair(number), id="key-" + "f" * 8 + f"{number:09x}"))
    print(number, flush=True)
"""


def test_what_was_committed_survives_a_kill(place: Place) -> None:
    command = [sys.executable, "-c", WRITER, str(place.path), str(Path(__file__).parent.parent), place.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        last = -1
        while last < 200:
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        last = int(rest[-1]) if rest else last
    store = place.open()
    names = [key.name for key in store.all(KeyPair)]
    assert {f"k{number}" for number in range(last + 1)} <= set(names)
    assert all(names.count(name) == 2 for name in set(names[-10:])), "half a transaction was kept"
    store.close()


# --- versions ---------------------------------------------------------------------------------------------------------

FIRST_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE resource (
    kind TEXT NOT NULL, id TEXT NOT NULL, revision INTEGER NOT NULL, document BLOB NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE wake (kind TEXT NOT NULL, id TEXT NOT NULL, serial INTEGER NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE token (
    scope TEXT NOT NULL, token TEXT NOT NULL, fingerprint TEXT NOT NULL, answer BLOB NOT NULL, created TEXT NOT NULL,
    PRIMARY KEY (scope, token)
) WITHOUT ROWID;
CREATE TABLE event (number INTEGER PRIMARY KEY, time TEXT NOT NULL, account TEXT NOT NULL, document BLOB NOT NULL);
INSERT INTO meta VALUES ('schema', '1');
"""


def make_first(path: Path, events: int = 3) -> None:
    """A store as the first version wrote it."""
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(FIRST_SCHEMA)
        row = replace(key_pair(1), revision=7)
        db.execute("INSERT INTO resource VALUES ('key-pair', ?, 7, ?)", (row.id, msgspec.json.encode(row)))
        for number in range(events):
            event = {
                "eventTime": NOW.isoformat(),
                "eventSource": "ec2.amazonaws.com",
                "eventName": f"Create{number}",
                "awsRegion": "us-east-1",
                "sourceIPAddress": "127.0.0.1",
                "requestID": f"r-{number}",
                "userIdentity": {"accountId": "1" * 12, "accessKeyId": "AKIA", "arn": "arn:aws:iam::1:root"},
                "requestParameters": {"Name": "é\n"},
            }
            sql = "INSERT INTO event VALUES (NULL, ?, ?, ?)"
            db.execute(sql, (event["eventTime"], "1" * 12, msgspec.json.encode(event)))
        db.commit()


def test_an_older_store_is_upgraded_after_a_copy_was_made(path: Path) -> None:
    make_first(path)
    store = Store(path)
    assert store.meta("schema") == str(SCHEMA_VERSION)
    assert store.get(KeyPair, key_pair(1).id) == replace(key_pair(1), revision=7)
    assert [event["eventName"] for event in store.events()] == ["Create2", "Create1", "Create0"]
    first = store.events()[-1]
    assert first["eventTime"] == "2026-01-02T03:04:05Z" and first["requestParameters"] == {"Name": "é\n"}
    assert first["recipientAccountId"] == "1" * 12 and first["readOnly"] is False
    assert db_of(store).execute("PRAGMA auto_vacuum").fetchone()[0] == 2
    store.close()
    assert verify(path.parent).problems == []
    copy = path.with_name("orchestrator.db.1.copy")
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as db:
        assert db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()[0] == "1"
        assert db.execute("SELECT count(*) FROM event").fetchone()[0] == 3
    Store(path).close()


def test_an_upgrade_that_is_cut_off_is_done_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_first(path)
    upgrade = sqlite_module.UPGRADES[1]

    def cut_off(db: sqlite3.Connection) -> None:
        upgrade(db)
        raise ZeroDivisionError

    monkeypatch.setitem(sqlite_module.UPGRADES, 1, cut_off)
    with pytest.raises(ZeroDivisionError):
        Store(path)
    monkeypatch.setitem(sqlite_module.UPGRADES, 1, upgrade)
    store = Store(path)
    assert len(store.events()) == 3
    store.close()


def test_scrubbing_takes_copies_of_older_versions_too(path: Path) -> None:
    make_first(path)
    store = Store(path)
    with store.write() as tx:
        tx.scrub()
    assert not path.with_name("orchestrator.db.1.copy").exists()
    store.close()


def test_what_is_no_store_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine (x)")
    with pytest.raises(StoreError, match="not a store of orchestrator's"):
        Store(path)


# --- what can be wrong ------------------------------------------------------------------------------------------------


def test_a_torn_store_says_so(path: Path) -> None:
    store = Store(path)
    with store.write() as tx:
        tx.put_all(key_pair(number) for number in range(500))
    store.close()
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreError, match=r"damaged.*orc restore"):
        Store(path)
    path.write_bytes(b"not a database at all" * 500)
    with pytest.raises(StoreError, match=r"damaged.*orc restore"):
        Store(path)


def test_a_row_that_cannot_be_read_is_named(place: Place) -> None:
    store = place.open()
    with store.write() as tx:
        tx.put(key_pair(1))
    store.close()
    place.sql("UPDATE resource SET document = '{'")
    with pytest.raises(StoreError, match=f"damaged.*{key_pair(1).id}"):
        place.open()


def test_a_store_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    (tmp_path / "orchestrator.db").mkdir()
    with pytest.raises(StoreError, match="cannot be used: Is a directory"):
        Store(tmp_path / "orchestrator.db")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "file" / "orchestrator.db")


def test_a_store_that_another_program_has_locked_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(path).close()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, timeout=0.05, **named))
    with closing(connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked by another program"):
            Store(path)
    Store(path).close()


@pytest.mark.parametrize(
    ("break_", "mend"),
    [
        ("PRAGMA query_only=ON", "PRAGMA query_only=OFF"),
        ("PRAGMA max_page_count=1", "PRAGMA max_page_count=1000000"),
    ],
    ids=["read-only", "full"],
)
def test_what_cannot_be_committed_changes_nothing_and_reading_goes_on(path: Path, break_: str, mend: str) -> None:
    store = Store(path)
    with store.write() as tx:
        tx.put(key_pair(1))
    db_of(store).execute(break_).fetchall()
    with pytest.raises(StoreUnavailable, match="cannot be written just now"), store.write() as tx:
        tx.put_all(key_pair(number) for number in range(2, 2000))
        tx.record({"eventName": "Lost"})
    assert [key.name for key in store.all(KeyPair)] == ["k1"]
    db_of(store).execute(mend).fetchall()
    with store.write() as tx:
        tx.put(key_pair(2))
        tx.record({"eventName": "Kept"})
    assert len(store.all(KeyPair)) == 2
    store.close()
    assert verify(path.parent).problems == []


def test_while_another_program_holds_the_lock_writes_are_refused(path: Path) -> None:
    store = Store(path)
    db_of(store).execute("PRAGMA busy_timeout=20").fetchall()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"), store.write() as tx:
            tx.put(key_pair(1))
        assert store.all(KeyPair) == []
    with store.write() as tx:
        tx.put(key_pair(1))
    store.close()


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_tokens_are_forgotten_after_two_days(place: Place) -> None:
    store = place.open(durable=False)
    with store.write() as tx:
        for number in range(1200):
            tx.spend_token("s", f"old-{number}", "f", b"answer")
    old = (datetime.now(UTC) - TOKENS_KEPT - timedelta(minutes=1)).isoformat()
    place.sql(f"UPDATE token SET created = '{old}'")
    with store.write() as tx:
        tx.spend_token("s", "new", "f", b"answer")
    store.tidy()
    assert store.token("s", "old-0") is None and store.token("s", "new") == ("f", b"answer")
    assert place.sql("SELECT count(*) FROM token")[0][0] == 1
    store.close()


def test_free_pages_are_given_back_while_others_write(path: Path) -> None:
    store = Store(path, durable=False)
    rows = [replace(key_pair(number), public_key="x" * 4000) for number in range(2000)]
    with store.write() as tx:
        tx.put_all(rows)
    db_of(store).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    large = path.stat().st_size
    with store.write() as tx:
        for row in rows:
            tx.delete(row)
    seen: list[int] = []
    tidying = threading.Thread(target=store.tidy)
    tidying.start()
    while tidying.is_alive() or not seen:
        with store.write() as tx:
            tx.put(key_pair(len(seen) + 5000))
        seen.append(len(seen))
    tidying.join()
    db_of(store).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert path.stat().st_size < large / 4  # what was written meanwhile takes room as well
    assert len(store.all(KeyPair)) == len(seen)
    store.close()


def test_one_wake_up_for_each_resource(place: Place) -> None:
    store = place.open(durable=False)
    for _ in range(100):
        with store.write() as tx:
            tx.wake(key_pair(1))
    assert len(store.pending_wakes()) == 1
    store.close()

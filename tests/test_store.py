"""The store: transactions, indexes, the work queue, tokens, and what survives a kill."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.model.key_pair import KeyPair
from orchestrator.model.vpc import Subnet, default_network
from orchestrator.store import SCHEMA_VERSION, Store, StoreError

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


def test_every_kind_comes_back_as_it_was(path: Path) -> None:
    store = Store(path)
    with store.write() as tx:
        tx.put_all(default_network("1" * 12, "us-east-1", ["us-east-1a", "us-east-1b"], NOW))
    before = {kind: sorted(table.rows.items()) for kind, table in store._tables.items()}
    store.close()
    reopened = Store(path)
    assert {kind: sorted(table.rows.items()) for kind, table in reopened._tables.items()} == before
    assert any(before.values())
    reopened.close()


def test_an_exception_undoes_everything(path: Path) -> None:
    store = Store(path)
    with pytest.raises(ZeroDivisionError), store.write() as tx:
        tx.put(key_pair(1))
        tx.wake(key_pair(1))
        raise ZeroDivisionError
    assert store.get(KeyPair, key_pair(1).id) is None
    assert store.pending_wakes() == []
    store.close()


def test_a_transaction_reads_its_own_writes_and_others_do_not(path: Path) -> None:
    store = Store(path)
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


def test_revisions_only_grow(path: Path) -> None:
    store = Store(path)
    seen = []
    for _ in range(3):
        with store.write() as tx:
            seen.append(tx.put(key_pair(1)).revision)
    store.close()
    store = Store(path)
    with store.write() as tx:
        seen.append(tx.put(key_pair(2)).revision)
    assert seen == sorted(set(seen))
    store.close()


def test_an_index_follows_changes(path: Path) -> None:
    store = Store(path)
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


def test_a_wake_up_is_kept_until_the_look_that_came_after_it(path: Path) -> None:
    store = Store(path)
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
    store = Store(path)
    [(kind, resource_id, serial)] = store.pending_wakes()
    assert store.wake_done(kind, resource_id, serial)
    assert store.pending_wakes() == []
    store.close()


def test_a_token_is_spent_with_its_transaction(path: Path) -> None:
    store = Store(path)
    with store.write() as tx:
        tx.spend_token("1/us-east-1/ec2/RunInstances", "t", "f", b"answer")
    assert store.token("1/us-east-1/ec2/RunInstances", "t") == ("f", b"answer")
    assert store.token("2/us-east-1/ec2/RunInstances", "t") is None
    with pytest.raises(sqlite3.IntegrityError), store.write() as tx:
        tx.put(key_pair(1))
        tx.spend_token("1/us-east-1/ec2/RunInstances", "t", "f", b"other")
    assert store.get(KeyPair, key_pair(1).id) is None
    store.close()


def test_one_controller_per_store(path: Path) -> None:
    store = Store(path)
    with pytest.raises(StoreError, match="in use by another controller"):
        Store(path)
    store.close()
    Store(path).close()


def test_a_newer_store_is_refused(path: Path) -> None:
    store = Store(path)
    store.set_meta("schema", str(SCHEMA_VERSION + 1))
    store.close()
    with pytest.raises(StoreError, match="newer orchestrator"):
        Store(path)


def test_nobody_else_can_read_it(path: Path) -> None:
    Store(path).close()
    assert path.stat().st_mode & 0o077 == 0


def test_writers_wait_for_each_other(path: Path) -> None:
    store = Store(path, durable=False)

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
from test_store import key_pair
from orchestrator.store import Store
store = Store(Path(sys.argv[1]))
for number in range(100000):
    with store.write() as tx:
        tx.put(key_pair(number))
        tx.put(replace(key_pair(number), id="key-" + "f" * 8 + f"{number:09x}"))
    print(number, flush=True)
"""


def test_what_was_committed_survives_a_kill(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path), os.path.dirname(__file__)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        last = -1
        while last < 200:
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        last = int(rest[-1]) if rest else last
    store = Store(path)
    names = [key.name for key in store.all(KeyPair)]
    assert {f"k{number}" for number in range(last + 1)} <= set(names)
    assert all(names.count(name) == 2 for name in set(names[-10:])), "half a transaction was kept"
    store.close()

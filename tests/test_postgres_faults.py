"""The store on a PostgreSQL server that ends, stands still, refuses, or does not answer: nothing is lost or doubled."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import orchestrator.database.postgres as postgres_module
from orchestrator.model.key_pair import KeyPair
from orchestrator.store import Store, StoreError, StoreUnavailable
from orchestrator.trail import verify

from .postgres import PostgresServer
from .postgres_store import fragile, names, path, rows_of, store, until, until_written, url, write
from .test_store import key_pair

__all__ = ["fragile", "path", "store", "url"]

pytestmark = pytest.mark.host


def test_a_server_that_is_killed_among_commits_has_all_that_was_answered(
    fragile: PostgresServer, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    url = fragile.make_database()
    store = Store(path, url=url)
    ended, pause = threading.Event(), threading.Event()
    answered: list[int] = []
    refused: list[int] = []

    def run() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            try:
                write(store, number)
                answered.append(number)
            except StoreUnavailable:
                refused.append(number)
                pause.wait(0.005)

    writer = threading.Thread(target=run)
    writer.start()
    try:
        for _ in range(2):
            before = len(answered)
            until(lambda: len(answered) > before + 20)  # noqa: B023
            fragile.end(signal.SIGKILL)
            fragile.start()
        before = len(answered)
        until(lambda: len(answered) > before + 20)
    finally:
        ended.set()
        writer.join()
    assert refused, "no commit was hit"
    in_memory = {key.id: key for key in store.all(KeyPair)}
    assert {key_pair(number).id for number in answered} <= set(in_memory)
    assert rows_of(url) == sorted(in_memory), "memory and server agree"
    assert {key for _, key, _ in store.pending_wakes()} == set(in_memory)
    assert [event["eventName"] for event in reversed(store.events(100_000))] == [
        key.name.replace("k", "Call") for key in sorted(in_memory.values(), key=lambda key: key.id)
    ]
    store.close()
    assert verify(path.parent, url=url).problems == []
    with closing(Store(path, url=url)) as again:
        assert {key.id: key for key in again.all(KeyPair)} == in_memory


def test_a_restart_of_the_server_is_an_interruption(fragile: PostgresServer, path: Path) -> None:
    url = fragile.make_database()
    with closing(Store(path, url=url)) as store:
        write(store, 1)
        fragile.end()
        with pytest.raises(StoreUnavailable, match="cannot be written just now"):
            write(store, 2)
        with pytest.raises(StoreUnavailable):
            store.token("scope", "token")
        assert names(store) == ["k1"], "reading goes on"
        store.trail.note(lambda: {"eventName": "Noted"})
        fragile.start()
        until_written(store, 3)
        store.trail.flush()
        assert names(store) == ["k1", "k3"]
        assert [event["eventName"] for event in store.events()] == ["Noted", "Call3", "Call1"]
    assert verify(path.parent, url=url).problems == []


def test_a_server_that_stands_still_holds_nobody_for_long(
    fragile: PostgresServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "STALLED_S", 0.5)
    monkeypatch.setattr(postgres_module, "WATCH_EACH_S", 0.1)
    url = fragile.make_database() + "&connect_timeout=2"
    with closing(Store(path, url=url)) as store:
        write(store, 1)
        fragile.stand_still()
        try:
            with pytest.raises(StoreUnavailable):
                write(store, 2)
            assert names(store) == ["k1"]
        finally:
            fragile.stand_still(signal.SIGCONT)
        until_written(store, 3)
        assert rows_of(url) == sorted(key.id for key in store.all(KeyPair))
        assert {"k1", "k3"} <= set(names(store))
    assert verify(path.parent, url=url).problems == []


class Cut:
    """A commit during which the connection breaks, before or after the server has done it."""

    def __init__(self, store: Store, *, done: bool) -> None:
        assert isinstance(store._database, postgres_module.Postgres)
        self._db = store._database.db
        self._pipeline = self._db.pipeline
        self._done = done
        self._db.pipeline = self  # type: ignore[assignment]

    def __call__(self) -> Any:
        self._block = self._pipeline()
        return self

    def __enter__(self) -> None:
        if not self._done:
            self._db.close()
            raise psycopg.OperationalError("the connection broke")
        self._block.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._block.__exit__(*error)
        self._db.close()
        raise psycopg.OperationalError("the connection broke")


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_a_commit_whose_answer_was_lost_is_known_once_the_server_answers(
    store: Store, path: Path, url: str, done: bool, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, str]] = []
    store.on_wake(heard.extend)
    write(store, 1)
    Cut(store, done=done)
    if at_once and done:
        write(store, 2)
    else:
        with store._lock:
            if not at_once:
                connect = postgres_module._connect
                monkeypatch.setattr(postgres_module, "_connect", lambda *_, **__: refuse())
            with pytest.raises(StoreUnavailable):
                write(store, 2)
            assert names(store) == ["k1"]
            if not at_once:
                monkeypatch.setattr(postgres_module, "_connect", connect)
    until_written(store, 3)
    expected = ["k1", "k2", "k3"] if done else ["k1", "k3"]
    assert names(store) == expected and len(rows_of(url)) == len(expected)
    assert [name for _, name in heard] == [key_pair(int(name[1:])).id for name in expected]
    assert [event["eventName"][4:] for event in reversed(store.events())] == [name[1:] for name in expected]
    store.close()
    assert verify(path.parent, url=url).problems == []


def refuse() -> None:
    raise StoreError("nobody answers")


def test_what_is_noted_is_written_once_when_its_answer_was_lost(store: Store, path: Path, url: str) -> None:
    for number in range(3):
        store.trail.note(lambda number=number: {"eventName": f"Noted{number}"})  # type: ignore[misc]
    Cut(store, done=True)
    store.trail.flush()
    store.trail.note(lambda: {"eventName": "Noted3"})
    store.trail.flush()
    assert [event["eventName"] for event in store.events()] == ["Noted3", "Noted2", "Noted1", "Noted0"]
    assert verify(path.parent, url=url).problems == []


def test_what_the_server_refuses_changes_nothing(store: Store, path: Path, url: str) -> None:
    write(store, 1)
    assert isinstance(store._database, postgres_module.Postgres)
    store._database.db.execute("SET default_transaction_read_only = on")
    with pytest.raises(StoreUnavailable, match="cannot be written just now"), store.write() as tx:
        tx.put_all(key_pair(number) for number in range(2, 4000))
        tx.record({"eventName": "Lost"})
    assert names(store) == ["k1"]
    store._database.db.execute("SET default_transaction_read_only = off")
    write(store, 2)
    assert names(store) == ["k1", "k2"] and len(rows_of(url)) == 2
    assert verify(path.parent, url=url).problems == []


@pytest.mark.parametrize("patience", ["lock_timeout", "statement_timeout"])
def test_while_another_program_has_locked_a_table_writes_are_refused(store: Store, url: str, patience: str) -> None:
    assert isinstance(store._database, postgres_module.Postgres)
    store._database.db.execute(f"SET {patience} = '50ms'")
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE orchestrator.resource")
        with pytest.raises(StoreUnavailable, match=patience.replace("_", " ")):
            write(store, 1)
        other.rollback()
    store._database.db.execute(f"SET {patience} = '10s'")
    write(store, 1)
    assert names(store) == ["k1"] and len(rows_of(url)) == 1

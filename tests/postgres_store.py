"""What tests of the store on PostgreSQL share: a store on a database of its own, and a server that may be ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.model.key_pair import KeyPair
from orchestrator.store import Store, StoreUnavailable

from .postgres import PostgresServer
from .test_store import key_pair


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.make_database()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "orchestrator.db"


@pytest.fixture
def store(path: Path, url: str) -> Iterator[Store]:
    store = Store(path, url=url)
    yield store
    store.close()


@pytest.fixture(scope="module")
def fragile() -> Iterator[PostgresServer]:
    """A server that tests end as they like; it is started again by whoever does."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def write(store: Store, number: int) -> None:
    with store.write() as tx:
        tx.put(key_pair(number))
        tx.wake(key_pair(number))
        tx.record({"eventName": f"Call{number}"})


def until(condition: Callable[[], bool], deadline_s: float = 30.0) -> None:
    deadline, pause = time.monotonic() + deadline_s, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        pause.wait(0.01)


def until_written(store: Store, number: int) -> None:
    def written() -> bool:
        try:
            write(store, number)
        except StoreUnavailable:
            return False
        return True

    until(written)


def names(store: Store) -> list[str]:
    return sorted(key.name for key in store.all(KeyPair))


def rows_of(url: str) -> list[str]:
    return sorted(row[0] for row in PostgresServer.sql(url, "SELECT id FROM resource"))

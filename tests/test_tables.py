"""The rows in memory, as threads see them that read while another changes them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import Any, ClassVar

import pytest

from orchestrator.model.resource import Resource
from orchestrator.tables import Table, values_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing(Resource):
    KIND: ClassVar[str] = "thing"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "state", "groups")

    state: str = "pending"
    groups: tuple[str, ...] = ()


def thing(thing_id: str = "t-1", **fields: Any) -> Thing:
    return Thing(id=thing_id, account="1", region="r", created=NOW, **fields)


class Watched(dict[Any, Any]):
    """A dict in which another thread looks after each change, as it could."""

    look: ClassVar[Callable[[], None]]

    def __setitem__(self, key: Hashable, value: Any) -> None:
        super().__setitem__(key, value)
        Watched.look()

    def setdefault(self, key: Hashable, default: Any = None) -> Any:
        if key not in self:
            self[key] = Watched(default) if isinstance(default, dict) else default
        return self[key]

    def pop(self, key: Hashable, *default: Any) -> Any:
        found = super().pop(key, *default)
        Watched.look()
        return found


@pytest.fixture
def table() -> Table:
    table = Table(Thing)
    table.rows = Watched()
    table.indexes = {name: Watched() for name in Thing.INDEXES}
    Watched.look = staticmethod(lambda: None)
    return table


@contextmanager
def watched(look: Callable[[], None]) -> Iterator[list[int]]:
    looks: list[int] = []

    def counted() -> None:
        looks.append(1)
        look()

    Watched.look = staticmethod(counted)
    try:
        yield looks
    finally:
        Watched.look = staticmethod(lambda: None)


def check(table: Table) -> None:
    """What a reader may rely on, whenever it comes."""
    for row in list(table.rows.values()):
        for name in Thing.INDEXES:
            for value in values_of(row, name):
                found = [each.id for each in table.select({name: value})]
                assert found.count(row.id) == 1, f"{row.id} is there, and not among those whose {name} is {value}"
    for name, index in table.indexes.items():
        for value in list(index):
            for row in table.select({name: value}):
                assert value in values_of(row, name), f"{row.id} is found by a {name} that it does not have: {value}"


STATES = ("pending", "running")
GROUPS: tuple[tuple[str, ...], ...] = ((), ("a",), ("a", "b"), ("b", "c"), ("c", "b", "a"))


@pytest.mark.parametrize("before", [None, *product(STATES, GROUPS)])
@pytest.mark.parametrize("after", [None, *product(STATES, GROUPS)])
def test_at_each_instant_of_a_change_a_row_is_where_it_was_or_where_it_is_to_be(
    table: Table, before: tuple[str, tuple[str, ...]] | None, after: tuple[str, tuple[str, ...]] | None
) -> None:
    table.put(thing("t-other", state="running", groups=("a", "b", "c")))
    rows = [thing(state=each[0], groups=each[1]) if each else None for each in (before, after)]
    if rows[0] is not None:
        table.put(rows[0])

    def look() -> None:
        check(table)
        if rows[0] is None or rows[1] is None:
            return
        for name in Thing.INDEXES:
            old, new = values_of(rows[0], name), values_of(rows[1], name)
            for value in set(old) & set(new):
                assert any(each.id == "t-1" for each in table.select({name: value})), f"{name}={value} stays"
            if old and new:
                places = {value for value in (*old, *new) for each in table.select({name: value}) if each.id == "t-1"}
                assert places, f"its {name} is neither {old} nor {new}"
        assert len(table.select({})) == 2 and {each.id for each in table.select({"account": "1", "state": "running"})}

    with watched(look) as looks:
        if rows[1] is not None:
            table.put(rows[1])
        else:
            table.delete("t-1")
    assert looks or before == after is None
    check(table)
    left = {(name, value) for name, index in table.indexes.items() for value, held in index.items() if "t-1" in held}
    assert left == (
        {(name, value) for name in Thing.INDEXES for value in values_of(rows[1], name)} if rows[1] else set()
    )
    assert all(place for index in table.indexes.values() for place in index.values()), "an empty place stays"


def test_threads_that_read_always_find_what_is_always_there() -> None:
    """As above with real threads, which switch as often as the interpreter can: a row that keeps one of its groups is
    found by that, whatever else becomes of it."""
    table = Table(Thing)
    ids = [f"t-{number}" for number in range(20)]
    for each in ids:
        table.put(thing(each, groups=("kept",)))
    ended, complaints = threading.Event(), []

    def read() -> None:
        while not ended.is_set():
            found = {row.id for row in table.select({"groups": "kept"})}
            if len(found) < len(ids):
                complaints.append(f"missing by their group: {sorted(set(ids) - found)}")
            if len(table.select({"account": "1", "groups": "kept"})) != len(ids):
                complaints.append("missing or doubled by account and group")

    interval = sys.getswitchinterval()
    readers = [threading.Thread(target=read) for _ in range(3)]
    sys.setswitchinterval(1e-6)
    try:
        for reader in readers:
            reader.start()
        for round_ in range(300):
            for each in ids:
                more = ("kept", f"g{round_ % 3}") if round_ % 2 else (f"g{round_ % 5}", "kept", "z")
                table.put(thing(each, state=STATES[round_ % 2], groups=more))
            if complaints:
                break
    finally:
        ended.set()
        for reader in readers:
            reader.join()
        sys.setswitchinterval(interval)
    assert complaints == []

"""What a long search for garbage has seen is not searched again."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from orchestrator import garbage


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_a_long_search_is_the_last_of_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "LONGEST_S", 0.0)
    with garbage.short_searches():
        frozen = gc.get_freeze_count()
        kept = [[number] for number in range(10_000)]
        gc.collect(1)
        assert gc.get_freeze_count() == frozen, "it was a search of what is new"
        gc.collect()
        assert gc.get_freeze_count() >= frozen + len(kept)


def test_a_short_search_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "LONGEST_S", 1e9)
    with garbage.short_searches():
        kept = [[number] for number in range(10_000)]
        frozen = gc.get_freeze_count()
        gc.collect()
        assert gc.get_freeze_count() == frozen
        assert any(each is kept for each in gc.get_objects())


def test_when_the_block_is_left_searches_are_as_before() -> None:
    before = list(gc.callbacks)
    with garbage.short_searches():
        assert len(gc.callbacks) == len(before) + 1
    assert gc.callbacks == before

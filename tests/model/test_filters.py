"""Filter values with wildcards: what they let through, and how long that takes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model.filters import pattern

LETTERS = "ab*?\\\n."


def fits(wanted: str, value: str) -> bool:
    """The rules, one letter at a time."""
    if not wanted:
        return not value
    if wanted[0] == "*":
        return fits(wanted[1:], value) or (bool(value) and fits(wanted, value[1:]))
    if wanted[0] == "\\" and len(wanted) > 1:
        wanted = wanted[1:]
    elif wanted[0] == "?":
        return bool(value) and fits(wanted[1:], value[1:])
    return value[:1] == wanted[0] and fits(wanted[1:], value[1:])


@settings(max_examples=500, deadline=None)
@given(st.text(LETTERS, max_size=8), st.text(LETTERS, max_size=8))
def test_it_is_as_the_rules_say(wanted: str, value: str) -> None:
    assert pattern(wanted)(value) == fits(wanted, value)


@pytest.mark.parametrize("wanted", ["*a" * 4 + "b", "*?" * 4 + "b", "*a?" * 4 + "b*"])
def test_many_stars_take_no_longer_than_one(wanted: str) -> None:
    """Nothing else runs meanwhile: `re` keeps the interpreter to itself."""
    test = pattern(wanted)
    began = time.perf_counter()
    assert not test("a" * 256)
    assert time.perf_counter() - began < 0.5  # it takes some microseconds

"""Session tokens: for one instance, for a time, from one secret."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.metadata.tokens import TOKEN_CHARACTERS, Tokens

SECRET = bytes(range(32))
ME = "i-00000000000000001"


def test_a_token_is_good_for_its_instance_until_it_ends(clock: Any) -> None:
    tokens = Tokens(SECRET, clock)
    token = tokens.mint(ME, 10)
    assert len(token) == TOKEN_CHARACTERS == 56
    assert tokens.check(ME, token)
    assert not tokens.check("i-00000000000000002", token)
    clock.pass_(seconds=9.999)
    assert tokens.check(ME, token)
    clock.pass_(seconds=0.001)
    assert not tokens.check(ME, token)


def test_it_outlives_a_restart_but_not_the_secret(clock: Any) -> None:
    token = Tokens(SECRET, clock).mint(ME, 10)
    assert Tokens(SECRET, clock).check(ME, token)
    assert not Tokens(bytes(32), clock).check(ME, token)


def test_no_two_are_equal(clock: Any) -> None:
    tokens = Tokens(SECRET, clock)
    assert tokens.mint(ME, 10) != tokens.mint(ME, 10)


def test_every_character_counts(clock: Any) -> None:
    tokens = Tokens(SECRET, clock)
    token = tokens.mint(ME, 10)
    for at, character in enumerate(token):
        other = "A" if character != "A" else "B"
        assert not tokens.check(ME, token[:at] + other + token[at + 1 :])


@given(st.text(max_size=80) | st.text(min_size=56, max_size=56))
def test_nonsense_is_refused(token: str) -> None:
    assert not Tokens(SECRET, lambda: datetime(2026, 1, 1, tzinfo=UTC)).check(ME, token)


def test_a_short_secret_is_refused(clock: Any) -> None:
    with pytest.raises(ValueError, match="has 3 bytes, not 32"):
        Tokens(b"abc", clock)

"""`output` and `waiting`: what people and programs read, and how long anybody waits."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from orchestrator.cli.client import Unreachable
from orchestrator.cli.output import Column, age, duration, print_facts, print_listing, text
from orchestrator.cli.waiting import LONGEST_PAUSE_S, WaitedTooLong, wait_for

ROWS = [{"A": "one", "B": True, "C": ["x", "y"]}, {"A": "a longer name", "B": False}]
COLUMNS = (
    Column("A", lambda row: row["A"]),
    Column("B", lambda row: row["B"]),
    Column("C", lambda row: row.get("C"), wide=True),
)


def printed(capsys: pytest.CaptureFixture[str], output: str, rows: list[dict[str, Any]] = ROWS) -> str:
    print_listing(rows, COLUMNS, output, nothing="none")
    return capsys.readouterr().out


def test_a_table_is_aligned_and_ends_where_its_words_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "table") == "A              B\none            yes\na longer name  no\n"
    assert printed(capsys, "wide").splitlines()[1:] == ["one            yes  x,y", "a longer name  no   -"]


def test_programs_get_the_documents_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "json")) == ROWS
    assert yaml.safe_load(printed(capsys, "yaml")) == ROWS
    assert json.loads(printed(capsys, "json", [])) == []


def test_an_empty_table_is_said_beside_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    print_listing([], COLUMNS, "table", nothing="none")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "none\n")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        (False, "no"),
        (0, "0"),
        (["a", "b"], "a,b"),
        ("a\x1b]0;title\x07b\r\n", "a?]0;title?b??"),
    ],
)
def test_cells(value: Any, expected: str) -> None:
    assert text(value) == expected


def test_facts_leave_out_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts([("name", "web"), ("reason", ""), ("zero", 0)])
    assert capsys.readouterr().out == "name  web\nzero  0\n"


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2026-01-02T03:04:05.000Z", "0s"),
        ("2026-01-02T03:02:06Z", "119s"),
        ("2026-01-02T03:02:05Z", "2m"),
        ("2026-01-02T01:04:05+00:00", "2h"),
        ("2025-12-01T00:00:00.000Z", "32d"),
        ("2027-01-01T00:00:00Z", "0s"),
        ("yesterday", ""),
        (None, ""),
    ],
)
def test_age(stamp: str | None, expected: str) -> None:
    assert age(stamp, NOW) == expected


def test_duration() -> None:
    assert [duration(seconds) for seconds in (0.9, 7200, 86400 * 3)] == ["0s", "2h", "3d"]


class Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


def test_waiting_looks_less_and_less_often_and_then_no_more() -> None:
    time = Time()
    with pytest.raises(WaitedTooLong, match="waited 30 s for a miracle") as caught:
        wait_for(lambda: None, "a miracle", 30, clock=lambda: time.now, sleep=time.sleep)
    assert caught.value.exit_code == 4
    assert time.now == pytest.approx(30)
    assert time.pauses[0] == pytest.approx(0.1)
    assert max(time.pauses) == LONGEST_PAUSE_S
    assert time.pauses[:-1] == sorted(time.pauses[:-1])


def test_waiting_gives_what_was_found_even_if_that_is_false() -> None:
    time = Time()
    assert wait_for(lambda: False, "it", 0, clock=lambda: time.now, sleep=time.sleep) is False
    assert time.pauses == []


def test_waiting_outlives_a_controller_that_starts_anew() -> None:
    time = Time()
    answers = iter([None, Unreachable("down"), Unreachable("down"), "found"])

    def look() -> str | None:
        answer = next(answers)
        if isinstance(answer, Unreachable):
            raise answer
        return answer

    assert wait_for(look, "it", 30, clock=lambda: time.now, sleep=time.sleep) == "found"


def test_a_controller_that_stays_away_is_said() -> None:
    time = Time()

    def look() -> None:
        if time.now > 0 or never:
            raise Unreachable("down")

    never = False
    with pytest.raises(Unreachable):
        wait_for(look, "it", 3, clock=lambda: time.now, sleep=time.sleep)
    assert time.now >= 3
    time, never = Time(), True
    with pytest.raises(Unreachable):
        wait_for(look, "it", 3, clock=lambda: time.now, sleep=time.sleep)
    assert time.now == 0

"""The gate and the drawing agree with each other and with EC2's rules."""

from __future__ import annotations

import pytest

from orchestrator.model.errors import EC2Error
from orchestrator.model.lifecycle import CODES, GATE, MOVES, TRANSITIONAL, Request, State, Verdict, judge, move


def test_every_state_has_a_code_a_row_and_a_verdict() -> None:
    assert set(CODES) == set(MOVES) == set(State)
    assert set(GATE) == set(TRANSITIONAL) == set(Request)
    for row in GATE.values():
        assert set(row) == set(State)
    assert sorted(CODES.values()) == [0, 16, 32, 48, 64, 80]


@pytest.mark.parametrize("request_", list(Request))
@pytest.mark.parametrize("state", list(State))
def test_what_the_gate_accepts_the_drawing_can_do(request_: Request, state: State) -> None:
    if GATE[request_][state] is Verdict.ACCEPT:
        assert move(state, TRANSITIONAL[request_]) is TRANSITIONAL[request_]


def test_a_terminated_instance_stays_so() -> None:
    assert MOVES[State.TERMINATED] == frozenset()
    with pytest.raises(ValueError, match="does not go from terminated to running"):
        move(State.TERMINATED, State.RUNNING)


def test_every_state_can_be_terminated() -> None:
    reached = {State.TERMINATED}
    while len(grown := reached | {state for state in State if MOVES[state] & reached}) > len(reached):
        reached = grown
    assert reached == set(State)
    assert Verdict.DENY not in GATE[Request.TERMINATE].values()


def test_a_denial_says_what_is_allowed() -> None:
    with pytest.raises(EC2Error) as caught:
        judge(Request.START, State.TERMINATED, "i-1")
    assert caught.value.code == "IncorrectInstanceState"
    for word in ("i-1", "terminated", "stopped", "running"):
        assert word in caught.value.message

"""An instance's life: its states, its moves, and the gate that every request passes first.

    RunInstances            StopInstances               StartInstances
        |                        |                           |
        v                        v                           v
    pending ---> running ---> stopping ---> stopped ---> pending ...
        |           |            |             |
        |           |            v             |
        +-----------+---> shutting-down <------+        TerminateInstances
                              |
                              v
                          terminated                     (forgotten after an hour)

Requests write the transitional states (pending, stopping, shutting-down); only reconcilers write the settled ones.
A reboot keeps `running`. What is not in a table here is refused.

Source: "Amazon EC2 instance state changes" in the EC2 user guide.
"""

from __future__ import annotations

from enum import StrEnum

from orchestrator.model.errors import EC2Error


class State(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"
    STOPPING = "stopping"
    STOPPED = "stopped"


CODES: dict[State, int] = {
    State.PENDING: 0,
    State.RUNNING: 16,
    State.SHUTTING_DOWN: 32,
    State.TERMINATED: 48,
    State.STOPPING: 64,
    State.STOPPED: 80,
}

MOVES: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RUNNING, State.STOPPING, State.SHUTTING_DOWN, State.STOPPED}),
    State.RUNNING: frozenset({State.STOPPING, State.SHUTTING_DOWN}),
    State.STOPPING: frozenset({State.STOPPED, State.SHUTTING_DOWN}),
    State.STOPPED: frozenset({State.PENDING, State.SHUTTING_DOWN}),
    State.SHUTTING_DOWN: frozenset({State.TERMINATED}),
    State.TERMINATED: frozenset(),
}


class Request(StrEnum):
    START = "start"
    STOP = "stop"
    REBOOT = "reboot"
    TERMINATE = "terminate"


class Verdict(StrEnum):
    ACCEPT = "accept"  # it changes something
    IGNORE = "ignore"  # it is so already: answer, change nothing
    DENY = "deny"  # IncorrectInstanceState


_A, _I, _D = Verdict.ACCEPT, Verdict.IGNORE, Verdict.DENY

GATE: dict[Request, dict[State, Verdict]] = {
    Request.START: {
        State.PENDING: _I,
        State.RUNNING: _I,
        State.SHUTTING_DOWN: _D,
        State.TERMINATED: _D,
        State.STOPPING: _D,
        State.STOPPED: _A,
    },
    Request.STOP: {
        State.PENDING: _D,
        State.RUNNING: _A,
        State.SHUTTING_DOWN: _D,
        State.TERMINATED: _D,
        State.STOPPING: _A,  # with Force, a stop that the guest ignores becomes a pulled plug
        State.STOPPED: _I,
    },
    Request.REBOOT: {
        State.PENDING: _D,
        State.RUNNING: _A,
        State.SHUTTING_DOWN: _D,
        State.TERMINATED: _D,
        State.STOPPING: _D,
        State.STOPPED: _D,
    },
    Request.TERMINATE: {
        State.PENDING: _A,
        State.RUNNING: _A,
        State.SHUTTING_DOWN: _I,
        State.TERMINATED: _I,
        State.STOPPING: _A,
        State.STOPPED: _A,
    },
}

TRANSITIONAL: dict[Request, State] = {
    Request.START: State.PENDING,
    Request.STOP: State.STOPPING,
    Request.REBOOT: State.RUNNING,
    Request.TERMINATE: State.SHUTTING_DOWN,
}


def judge(request: Request, state: State, instance_id: str) -> Verdict:
    """ACCEPT or IGNORE; a denied request raises `IncorrectInstanceState`."""
    verdict = GATE[request][state]
    if verdict is Verdict.DENY:
        allowed = ", ".join(f"'{name}'" for name, answer in GATE[request].items() if answer is not Verdict.DENY)
        raise EC2Error(
            "IncorrectInstanceState",
            f"The instance '{instance_id}' is in the state '{state}'; to {request} it, it must be in {allowed}.",
        )
    return verdict


def move(old: State, new: State) -> State:
    """`new`, once it is known that the drawing has an arrow from `old` to it."""
    if new is not old and new not in MOVES[old]:
        raise ValueError(f"an instance does not go from {old} to {new}")
    return new

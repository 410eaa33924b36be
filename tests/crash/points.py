"""Counts the points that a run passes, and ends the controller at one of them.

A point is an effect on the host (`orchestrator/host/points.py` names them) or a commit of the store's, named by the
operation or the kind of reconciler that commits ("commit RunInstances", "commit instance"). Ending is a Killed, which
nothing may handle, and from then on nothing passes any point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from socket import socket
from typing import Any


class Killed(BaseException):
    """The process is gone."""


@dataclass(frozen=True, slots=True, order=True)
class End:
    """Where the controller ends: at the point of this number in the run, before it or after it."""

    number: int
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.number}"


@dataclass
class Points:
    """`ends` are the numbers at which the controller ends, one after the other."""

    ends: list[End] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)  # those whose call has returned
    counting: bool = True
    dead: bool = False
    ended: int = 0  # how often

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        """In the place of `call`."""
        if self.dead:
            raise Killed
        if not self.counting:
            return call()
        number = len(self.passed)
        self.passed.append(name)
        self._end(number, after=False)
        answer = call()
        self.done.append(name)
        try:
            self._end(number, after=True)
        except Killed:
            if isinstance(answer, socket):
                answer.close()  # as the kernel does
            raise
        return answer

    def _end(self, number: int, *, after: bool) -> None:
        if self.ends and self.ends[0] == End(number, after):
            del self.ends[0]
            self.dead = True
            self.ended += 1
            raise Killed

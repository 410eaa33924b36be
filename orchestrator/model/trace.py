"""What became of one packet, step by step, for people to read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision. The first that does not pass ends the trace."""

    where: str  # the id of what decides: an interface, a subnet's ACL, a route table, a gateway ...
    decision: str  # which kind of rule: "route", "security group", "network ACL", "source/dest check" ...
    detail: str
    passed: bool = True
    vpc_id: str = ""  # in which VPC; empty outside
    answer: bool = False  # on the way back


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Where a packet came out, and as what. `interface_id` is empty outside, and where a network itself answers."""

    interface_id: str
    source: str
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """`passed` when the packet arrives and its answer comes back."""

    steps: tuple[Step, ...]
    passed: bool
    arrival: Arrival | None = None  # of the packet itself, whatever becomes of its answer

"""How often an account may call, by kind of action, and an address without proof of who calls: so many at once, and so
many a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

READ: Final = "read"
WRITE: Final = "write"
INTENSIVE: Final = "intensive"
UNPROVEN: Final = "unproven"  # of an address: calls that fail authentication
KINDS: Final = (READ, WRITE, INTENSIVE, UNPROVEN)


@dataclass(frozen=True, slots=True)
class Rate:
    burst: float  # what a bucket of tokens holds
    per_s: float  # what comes back


def parse_rate(text: str) -> Rate | None:
    """`BURST/PER_SECOND`; None for `off`. ValueError for anything else."""
    if text == "off":
        return None
    burst, slash, per_s = text.partition("/")
    try:
        rate = Rate(float(burst), float(per_s))
    except ValueError:
        rate = Rate(0, 0)
    if not slash or not (1 <= rate.burst < float("inf") and 0 < rate.per_s < float("inf")):
        raise ValueError(f"'{text}' must be BURST/PER_SECOND, for example 100/20, or off")
    return rate

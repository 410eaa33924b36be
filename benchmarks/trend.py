"""Whether a count rises: a line through what was counted, and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from footprint import PROCESS

WARM_SHARE = 0.3  # of the run, and of each of the controller's lives
SURE = 3.0  # standard errors
ALLOWED = {"memory KiB": 3072, "store KiB": 1024}
ALLOWED_SHORT = {"memory KiB": 32 << 10, "store KiB": 16 << 10}  # while caches fill
SHORT_S = 300.0
ALLOWED_ELSE = 1.5  # less than two things more, over the whole run
ALLOWED_SHARE = {"memory KiB": 0.03}


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    calls: int
    life: int
    figures: dict[str, int]


@dataclass(frozen=True, slots=True)
class Trend:
    """What a count does over the calls of a run. `growth` is what the fitted line rises in all of it."""

    row: str
    first: int
    last: int
    per_thousand: float
    error: float  # of `per_thousand`: one standard error
    growth: float
    short: bool = False

    @property
    def leaks(self) -> bool:
        if self.short and self.row in ALLOWED_SHORT:
            return self.growth > ALLOWED_SHORT[self.row]
        allowed = max(ALLOWED.get(self.row, ALLOWED_ELSE), ALLOWED_SHARE.get(self.row, 0.0) * self.first)
        return self.growth > allowed and self.per_thousand > SURE * self.error


def warm(samples: Sequence[Sample]) -> list[Sample]:
    """Without the beginning of the run, and of each of the controller's lives."""
    lives: dict[int, list[Sample]] = {}
    for sample in samples:
        lives.setdefault(sample.life, []).append(sample)
    return [each for life in lives.values() for each in life[math.ceil(len(life) * WARM_SHARE) :]]


def trend(row: str, samples: Sequence[Sample]) -> Trend:
    """Least squares over the calls; the figures of a process within each of its lives, all with one slope."""
    groups: dict[int, list[tuple[float, float]]] = {}
    for sample in samples:
        key = sample.life if row in PROCESS else 0
        groups.setdefault(key, []).append((sample.calls / 1000, sample.figures[row]))
    points: list[tuple[float, float]] = []
    for group in groups.values():
        middle = [sum(values) / len(group) for values in zip(*group, strict=True)]
        points += [(x - middle[0], y - middle[1]) for x, y in group]
    square = sum(x * x for x, _ in points)
    slope = sum(x * y for x, y in points) / square if square else 0.0
    rest = sum((y - slope * x) ** 2 for x, y in points)
    free = max(1, len(points) - len(groups) - 1)
    error = math.sqrt(rest / free / square) if square else 0.0
    span = (samples[-1].calls - samples[0].calls) / 1000
    first, last = samples[0].figures[row], samples[-1].figures[row]
    short = samples[-1].at_s - samples[0].at_s < SHORT_S
    return Trend(row, first, last, slope, error, slope * span, short)

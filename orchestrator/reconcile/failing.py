"""What fails, and since when: it is given up once every try of so long has failed.

    tried ─── failed ───► failing ─── every try failed for long, or it will always ───► given up
      ▲                      │
      └──── went on ─────────┘        what takes long, or waits for somebody, has not failed

Not written down: a controller that starts begins to count anew.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from orchestrator.host import HostError
from orchestrator.reconcile.layer import InUse


class Failing:
    def __init__(self, clock: Callable[[], datetime], give_up_after: timedelta) -> None:
        self._clock = clock
        self._give_up_after = give_up_after
        self._since: dict[str, datetime] = {}

    def is_hopeless(self, name: str, error: HostError) -> bool:
        """Whether what failed is not to be tried again. If the clock was put back since, the time counts from now."""
        if isinstance(error, InUse):
            return False
        now = self._clock()
        since = self._since[name] = min(now, self._since.get(name, now))
        hopeless = not error.retryable or now - since >= self._give_up_after
        if hopeless:
            self.went_on(name)
        return hopeless

    def went_on(self, name: str) -> None:
        """It did what was to be done, or some of it, or is no more."""
        self._since.pop(name, None)

"""How a long command shows where it is: what it does, the phase of it, and the time since it began.

On a terminal one live line and a tick for what is done; elsewhere a line whenever something begins or changes:

    [ 12.3 s] image: unpacking packages
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

_REFRESHES_PER_S = 5


class Progress:
    """Steps one after the other. `clock` gives seconds."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock
        self._began = clock()

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._began

    @contextmanager
    def step(self, name: str, doing: str) -> Iterator[Callable[[str], None]]:
        """What is given to the callable is the phase; the last one is what is shown of the step when it is done."""
        began, phase = self._clock(), doing
        if not self.console.is_terminal:
            self._line(name, doing)

            def say(text: str) -> None:
                nonlocal phase
                if text != phase:
                    phase = text
                    self._line(name, text)

            yield say
            return

        def change(text: str) -> None:
            nonlocal phase
            phase = text

        spinner = Spinner("dots")

        def render() -> Spinner:
            spinner.update(text=Text(f"{name}: {phase} ({self._clock() - began:.0f} s)", overflow="ellipsis"))
            return spinner

        live = Live(get_renderable=render, console=self.console, transient=True, refresh_per_second=_REFRESHES_PER_S)
        try:
            with live:
                yield change
        except BaseException:
            self._mark("x", "red", name, phase, began)
            raise
        self._mark("✓", "green", name, phase, began)

    def say(self, text: str = "") -> None:
        self.console.print(Text(text), soft_wrap=True)

    def _line(self, name: str, phase: str) -> None:
        self.say(f"[{self.elapsed_s:6.1f} s] {name}: {phase}")

    def _mark(self, mark: str, colour: str, name: str, phase: str, began: float) -> None:
        took = f"({self._clock() - began:.1f} s)"
        self.console.print(Text.assemble((mark, colour), f" {name}: {phase} ", (took, "dim")), soft_wrap=True)

"""Waiting: a condition is looked at, again and again a little later, until it holds or the deadline is past.

A controller that is started anew meanwhile does not end the wait; one that was never there does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

from orchestrator.cli.client import Unreachable
from orchestrator.cli.output import note, on_terminal
from orchestrator.cli.session import EXIT_TIMEOUT

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
_GROWTH = 1.4

Found = TypeVar("Found")


class WaitedTooLong(click.ClickException):
    exit_code = EXIT_TIMEOUT


def wait_for(
    look: Callable[[], Found | None],
    what: str,
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Found:
    """What `look` gives once it is not None. Raises WaitedTooLong, which says `what` was waited for."""
    deadline = clock() + timeout_s
    pause = FIRST_PAUSE_S
    answered = False
    while True:
        try:
            if (found := look()) is not None:
                return found
            answered = True
        except Unreachable:
            if not answered or clock() >= deadline:
                raise
        left = deadline - clock()
        if left <= 0:
            raise WaitedTooLong(f"waited {timeout_s:g} s for {what}; --timeout gives it longer")
        sleep(min(pause, left))
        pause = min(pause * _GROWTH, LONGEST_PAUSE_S)


@contextmanager
def progress(what: str) -> Iterator[Callable[[str], None]]:
    """Call what is given with the phase that things are in.

    On a terminal one line that lives and shows the elapsed time; elsewhere a line whenever the phase changes.
    """
    began = time.monotonic()
    if not on_terminal():
        last = ""

        def say(phase: str) -> None:
            nonlocal last
            if phase != last:
                last = phase
                note(f"[{time.monotonic() - began:6.1f} s] {what}: {phase}")

        yield say
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as live:
        task = live.add_task(what)
        yield lambda phase: live.update(task, description=f"{what}: {phase}")


@contextmanager
def transfer(what: str, total_bytes: int | None) -> Iterator[Callable[[int], None]]:
    """Call what is given with the number of bytes that went. A bar on a terminal, nothing elsewhere."""
    if not on_terminal():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as live:
        task = live.add_task(what, total=total_bytes)
        yield lambda count: live.advance(task, count)

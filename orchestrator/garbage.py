"""Keeps the search for garbage short, however much there is that is none.

Python looks for cycles that nothing refers to, now and then through all objects that it knows: with ten thousand
instances that is a quarter of a second in which nobody is answered. Rows are in no cycles and are freed without it. So
whatever is left after a search that took too long is not searched again; the next long one comes when as much again
was added. What of it ends up in a cycle is never freed: connections and calls of that moment, and there are few such
moments.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_S = 0.03
_OLDEST = 2  # of the generations that objects pass


class _Watch:
    def __init__(self) -> None:
        self._began = 0.0

    def __call__(self, phase: str, information: dict[str, int]) -> None:
        if information["generation"] < _OLDEST:
            return  # a search of what is new: always short
        if phase == "start":
            self._began = time.thread_time()
        elif time.thread_time() - self._began > LONGEST_S:
            gc.freeze()


@contextmanager
def short_searches() -> Iterator[None]:
    """While the block runs. What is there when it begins is not searched at all."""
    watch = _Watch()
    gc.freeze()
    gc.callbacks.append(watch)
    try:
        yield
    finally:
        gc.callbacks.remove(watch)

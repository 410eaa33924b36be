"""The loop: wakes, leases, retries.

            commit, host event, timer, start-up
                         |
                         v                     busy already: looked at once more afterwards
    queue of (due, key) ---> lease ---> step ---+--> Done            the wake-up is forgotten
             ^                                  +--> Again(after_s)  in the queue again
             +---- back-off --------------------+--> an exception    logged, in the queue again

Wake-ups are rows of the store, written by the transaction that has work for a reconciler, and forgotten only after the
step that looked. So the controller may end at any instruction: what was woken is woken again when it starts.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.host import HostError
from orchestrator.store import Store, StoreUnavailable

log = logging.getLogger(__name__)

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 30.0
_MOST_DOUBLINGS = 30  # what fails for days would otherwise wait for more than a float can say
# While callers wait, who share the interpreter with the steps:
FEW = 2  # steps at once
GIVE_WAY_S = 0.05  # how long each of them lets callers go first
TURN_S = 0.05  # how long others wait for their turn: steps that wait for libvirt hold nobody up
_CALM_EACH_S = 0.004
_OVERTAKEN = 64  # entries of the heap that nobody waits for, before it is looked whether to drop them

WakeKey = tuple[str, str]  # kind, id


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing to do until it is woken."""


@dataclass(frozen=True, slots=True)
class Again:
    """Look again after so many seconds, or when woken, whichever comes first."""

    after_s: float


Next = Done | Again
Step = Callable[[str], Next]


class Loop:
    def __init__(
        self, store: Store, steps: Mapping[str, Step], *, workers: int, calm: Callable[[], bool] = lambda: True
    ) -> None:
        """While it is not `calm`, callers wait for answers: then steps give way to them."""
        self._store = store
        self._calm = calm
        self._few = threading.Semaphore(FEW)
        self._steps = dict(steps)
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, WakeKey]] = []
        self._due: dict[WakeKey, float] = {}  # the one live heap entry of each key
        self._busy: set[WakeKey] = set()
        self._failures: dict[WakeKey, int] = {}
        self._sequence = 0
        self._closing = False
        self._threads = [
            threading.Thread(target=self._work, name=f"reconcile-{number}", daemon=True) for number in range(workers)
        ]
        store.on_wake(self.wake_all)

    def start(self) -> None:
        """Begin, with everything that was woken before."""
        self.wake_all((kind, resource_id) for kind, resource_id, _ in self._store.pending_wakes())
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Let steps in flight finish, begin no other."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def wake_all(self, keys: Iterable[WakeKey]) -> None:
        with self._condition:
            count = 0
            for key in keys:
                if key[0] in self._steps:
                    self._push(key, 0.0)
                    count += 1
            self._condition.notify(count)

    def wake(self, kind: str, resource_id: str, *, after_s: float = 0.0) -> None:
        """From a timer or a host event: not written down, since start-up looks at everything anyway."""
        with self._condition:
            if kind in self._steps:
                self._push((kind, resource_id), after_s)
                self._condition.notify()

    def idle(self) -> bool:
        """Nothing is being worked on, and nothing is due now."""
        with self._condition:
            now = time.monotonic()
            return not self._busy and not any(due <= now for due in self._due.values())

    def busy_count(self) -> int:
        with self._condition:
            return len(self._busy)

    def _push(self, key: WakeKey, after_s: float) -> None:
        due = time.monotonic() + after_s
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))
        if len(self._heap) > 2 * len(self._due) + _OVERTAKEN:  # else a long timer's stay until it would have been due
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)

    def _lease(self) -> WakeKey | None:
        """The next key that is due and not being worked on; None when the loop closes."""
        with self._condition:
            while not self._closing:
                wait = None
                held: list[tuple[float, int, WakeKey]] = []
                chosen: WakeKey | None = None
                while self._heap:
                    due, sequence, key = self._heap[0]
                    if self._due.get(key) != due:  # overtaken by an earlier wake-up
                        heapq.heappop(self._heap)
                        continue
                    if due > time.monotonic():
                        wait = due - time.monotonic()
                        break
                    heapq.heappop(self._heap)
                    if key in self._busy:
                        held.append((due, sequence, key))
                        continue
                    chosen = key
                    break
                for entry in held:
                    heapq.heappush(self._heap, entry)
                if chosen is not None:
                    del self._due[chosen]
                    self._busy.add(chosen)
                    if self._heap:
                        self._condition.notify()  # somebody else is to know what is due next, and when
                    return chosen
                self._condition.wait(wait)
        return None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A step's: at once while it is calm. Else among the few, once nobody waits for an answer or somebody has for
        so long that it does not matter any more; and whoever gets no turn goes on without one."""
        held = not self._calm() and self._few.acquire(timeout=TURN_S)
        try:
            until = time.monotonic() + GIVE_WAY_S
            while held and not self._calm() and time.monotonic() < until:
                time.sleep(_CALM_EACH_S)
            yield
        finally:
            if held:
                self._few.release()

    def _work(self) -> None:
        while (key := self._lease()) is not None:
            kind, resource_id = key
            after_s: float | None
            try:
                serial = self._store.wake_serial(kind, resource_id)
                with self._turn():
                    result = self._steps[kind](resource_id)
                self._failures.pop(key, None)
                after_s = result.after_s if isinstance(result, Again) else None
                if after_s is None and serial:
                    self._store.wake_done(kind, resource_id, serial)
            except Exception as error:
                failures = self._failures.get(key, 0)
                self._failures[key] = failures + 1
                after_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(failures, _MOST_DOUBLINGS))
                expected = isinstance(error, HostError | StoreUnavailable)
                log.log(
                    logging.WARNING if expected else logging.ERROR,
                    "%s %s: %s; again in %.1f s",
                    kind,
                    resource_id,
                    error,
                    after_s,
                    exc_info=not expected,
                )
            with self._condition:
                self._busy.discard(key)
                if after_s is not None:
                    self._push(key, after_s)
                if key in self._due:  # this worker may take another first
                    self._condition.notify()

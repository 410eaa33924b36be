"""Concurrency that a seed decides: tasks are threads, of which one runs at a time, and hands over only at points.

    driver:  run(task) ──baton──> task runs ... to its next point ──baton──> driver: who is next?

What blocks in the code under test (locks, conditions, futures, jobs beside the loop) is replaced by twins that block a
task and not a thread. So every interleaving at points can come up, a deadlock is seen at once, and the same seed gives
the same run. `kill` ends all tasks where they stand, as the end of the process would: what they were about to do does
not happen, and no host and no store hears of their `finally` blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from types import TracebackType
from typing import Any

STUCK_S = 60.0


class Killed(BaseException):
    """Raised in a task whose process has ended."""


class Task:
    def __init__(self, name: str, work: Callable[[], Any]) -> None:
        self.name = name
        self.work = work
        self.waits_for: Callable[[], bool] | None = None  # it can run on when this is so
        self.is_done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.notes: dict[str, Any] = {}


class _Thread:
    """Works off one task after the other."""

    def __init__(self, pool: list[_Thread]) -> None:
        self._pool = pool
        self._go, self._back = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._task: Task | None = None
        self._is_leaving = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def take(self, task: Task) -> None:
        self._task = task

    def run(self) -> None:
        """Until the next point."""
        self._go.release()
        assert self._back.acquire(timeout=STUCK_S), "a task blocks its thread: what it waits for has no twin here"

    def pause(self) -> None:
        """From within: the driver goes on until it runs this again."""
        self._back.release()
        self._go.acquire()

    def leave(self) -> None:
        self._is_leaving = True
        self._go.release()
        self._thread.join()

    def _work(self) -> None:
        while True:
            self._go.acquire()
            if self._is_leaving:
                return
            task = self._task
            assert task is not None
            try:
                task.result = task.work()
            except BaseException as error:
                task.error = error
            task.is_done = True
            self._pool.append(self)
            self._back.release()


class Scheduler:
    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._free: list[_Thread] = []
        self._threads: dict[Task, _Thread] = {}
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.is_dead = False

    def spawn(self, name: str, work: Callable[[], Any]) -> Task:
        task = Task(name, work)
        thread = self._free.pop() if self._free else _Thread(self._free)
        thread.take(task)
        self._threads[task] = thread
        self.tasks.append(task)
        return task

    def runnable(self) -> list[Task]:
        return [task for task in self.tasks if task.waits_for is None or task.waits_for()]

    def run(self, task: Task) -> None:
        """Until its next point, or its end."""
        before, self.current = self.current, task
        task.waits_for = None
        self._threads[task].run()
        self.current = before
        if task.is_done:
            self.tasks.remove(task)
            del self._threads[task]

    def point(self, likelihood: float = 1.0) -> None:
        """Others may run now. Does nothing outside of tasks."""
        if self.is_dead:
            raise Killed
        if self.current is not None and (likelihood >= 1 or self._chance.random() < likelihood):
            self._pause()

    def wait(self, until: Callable[[], bool]) -> None:
        """A task goes on once that is so."""
        while not until():
            if self.is_dead:
                raise Killed
            assert self.current is not None, "the driver waits for a task"
            self.current.waits_for = until
            self._pause()

    def _pause(self) -> None:
        assert self.current is not None
        self._threads[self.current].pause()
        if self.is_dead:
            raise Killed

    def kill(self) -> None:
        """The process ends."""
        self.is_dead = True
        for task in list(self.tasks):
            self.run(task)
            assert task.is_done, f"{task.name} outlives its process"
        for thread in self._free:
            thread.leave()
        self._free.clear()


class Lock:
    """A threading.RLock (and as good as a Lock) between tasks. Taking it is a point, now and then. The driver passes:
    it only looks, and a task never stands in the middle of a change of what the lock guards."""

    def __init__(self, scheduler: Scheduler, likelihood: float = 0.25) -> None:
        self._scheduler = scheduler
        self._likelihood = likelihood
        self._owner: Task | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = self._scheduler.current
        if me is None:
            return True
        if self._owner is not me:
            self._scheduler.point(self._likelihood)
            self._scheduler.wait(lambda: self._owner is None)
            self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        if self._scheduler.current is None or self._owner is not self._scheduler.current:
            return
        self._depth -= 1
        if not self._depth:
            self._owner = None

    def _is_owned(self) -> bool:
        """What a threading.Condition asks of its lock."""
        return self._scheduler.current is None or self._owner is self._scheduler.current

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Condition(Lock):
    """A threading.Condition between tasks. Patience is counted in turns."""

    PATIENCE = 40

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(scheduler, likelihood=0)

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        for _ in range(self.PATIENCE if timeout is None or timeout > 0 else 0):
            if predicate():
                break
            depth, self._depth, owner, self._owner = self._depth, 0, self._owner, None
            self._scheduler.point()
            self._scheduler.wait(lambda: self._owner is None)
            self._depth, self._owner = depth, owner
        return predicate()

    def notify_all(self) -> None:
        """Who waits looks by itself."""


class Promise:
    """The Future of a task."""

    def __init__(self, scheduler: Scheduler, task: Task) -> None:
        self._scheduler = scheduler
        self._task = task

    def result(self) -> Any:
        self._scheduler.wait(lambda: self._task.is_done)
        if self._task.error is not None:
            raise self._task.error
        return self._task.result


class Executor:
    """Runs what it is given as tasks."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def submit(self, work: Callable[..., Any], *given: Any) -> Promise:
        return Promise(self._scheduler, self._scheduler.spawn("beside", lambda: work(*given)))

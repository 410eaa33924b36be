"""A controller over the in-memory host, whose every effect and commit is a point at which others may run, the host may
fail, and the process may end.

    Deployment.begin()    a process starts: store opened, reconcilers made, everything looked at
    Deployment.end()      it ends where it stands; the host and the store's file stay

It is put together as `controller.py` does it, but for what a seed is to decide: whose turn it is, and what time it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from orchestrator.config import Config
from orchestrator.controller import Controller
from orchestrator.host import HostError
from orchestrator.host.memory import MemoryHost
from orchestrator.host.memory_storage import MemoryStorage
from orchestrator.host.points import at_points
from orchestrator.keys import KeyRing
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NatGateway, PeeringConnection, Vpc
from orchestrator.reconcile.image import Images
from orchestrator.reconcile.instance import Instances, Limits
from orchestrator.reconcile.layer import LayerFiles, Layers
from orchestrator.reconcile.loop import FIRST_DELAY_S, LONGEST_DELAY_S, Again, Next, WakeKey
from orchestrator.reconcile.nat_gateway import NatGateways
from orchestrator.reconcile.network import Networks
from orchestrator.reconcile.peering import Peerings
from orchestrator.reconcile.snapshot import Snapshots
from orchestrator.reconcile.volume import Volumes
from orchestrator.store import Store, StoreUnavailable, Transaction
from tests.conftest import Clock
from tests.model_based.reference import NO_ACCOUNT, ROOT
from tests.model_based.scheduler import Condition, Executor, Killed, Lock, Scheduler, Task

MAX_DEPTH = 5
WORKERS = 3
PATIENCE = 6  # turns that a step waits for what is done beside the loop


class WatchedStore(Store):
    """What is being committed can be seen."""

    committing: Transaction

    def _commit(self, tx: Transaction) -> None:
        self.committing = tx
        super()._commit(tx)

    def end(self) -> None:
        """As the process would: nothing more is written."""
        self._looked.clear()
        self.close()


class Doors:
    """The metadata server's place."""

    def open(self, vpc_id: str, listen: object, listen_ipv6: object = None) -> None: ...

    def shut(self, vpc_id: str) -> None: ...


class Files(LayerFiles):
    """What is done beside the loop is done by tasks."""

    def __init__(self, store: Store, storage: Any, keys: KeyRing, scheduler: Scheduler) -> None:
        super().__init__(store, storage, keys)
        self._scheduler = scheduler
        self._claims = cast(threading.Condition, Condition(scheduler))
        self._tasks: dict[str, Task] = {}

    def in_background(self, name: str, work: Callable[[], None], turns: object = None) -> bool:
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = self._scheduler.spawn(name, work)
        for _ in range(PATIENCE):
            if task.is_done:
                break
            self._scheduler.point()
        if not task.is_done:
            return False
        self._tasks.pop(name, None)
        if task.error is not None:
            raise task.error
        return True


class Queue:
    """The loop's: what is due when. One step of a resource at a time; what fails is tried again, later each time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.due: dict[WakeKey, datetime] = {}
        self.busy: dict[WakeKey, Task] = {}
        self._failures: dict[WakeKey, int] = {}
        self.kinds: set[str] = set()

    def wake_all(self, keys: Iterable[WakeKey]) -> None:
        for key in keys:
            self.wake(*key)

    def wake(self, kind: str, resource_id: str, *, after_s: float = 0.0) -> None:
        at = self._clock() + timedelta(seconds=after_s)
        if kind in self.kinds:
            self.due[kind, resource_id] = min(at, self.due.get((kind, resource_id), at))

    def ready(self) -> list[WakeKey]:
        now = self._clock()
        return [key for key, at in self.due.items() if at <= now and key not in self.busy]

    def finish(self, key: WakeKey, result: Next | None) -> None:
        """None: it has failed."""
        self.busy.pop(key, None)
        if result is None:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            self.wake(*key, after_s=min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (failures - 1)))
            return
        self._failures.pop(key, None)
        if isinstance(result, Again):
            self.wake(*key, after_s=result.after_s)


class Deployment:
    """`committed(tx, task)` is called right after each commit of a task, `fault()` when the host has one."""

    def __init__(self, state_dir: Path, chance: Random, clock: Clock) -> None:
        self.path = state_dir / "orchestrator.db"
        self.chance = chance
        self.clock = clock
        self.host = MemoryHost(storage=MemoryStorage(strict=True))
        self.config = Config(state_dir=state_dir, host="memory", regions="us-east-1:a,b")
        self.keys = KeyRing(bytes(32))
        self.committed: Callable[[Transaction, Task], None] = lambda tx, task: None
        self.fault: Callable[[str, str], None] = lambda point, how: None
        self.trace: Callable[[str], None] = lambda text: None
        self.fault_rate = 0.0
        self.permanent = False  # whether faults may be such that trying again is of no use
        self.full_disk_rate = 0.0  # how many commits find no room
        self.is_dying = False  # the process ends before it does anything else
        self.fatal_commits = 0.0  # how many commits are the last thing that a process does
        self.steps = 0
        self.points = 0

    # --- a process ---

    def begin(self) -> None:
        self.is_dying = False
        scheduler = self.scheduler = Scheduler(self.chance)
        with mock.patch("threading.RLock", partial(Lock, scheduler)):
            self.store = WatchedStore(self.path, durable=False)
        self.store.around_commit = self._around_commit
        host = at_points(self.host, self._around_effect)
        queue = self.queue = Queue(self.clock)
        networks = Networks(
            self.store,
            host.network,
            Doors(),
            lambda vpc_id, after_s: queue.wake(Vpc.KIND, vpc_id, after_s=after_s),
            lambda: self.clock().timestamp(),
        )
        files = Files(self.store, host.storage, self.keys, scheduler)
        limits = Limits()
        instances = Instances(self.store, host, networks, files, self.clock, limits, MAX_DEPTH)
        instances._side_by_side.shutdown()
        instances._side_by_side = cast(Any, Executor(scheduler))
        self._steps: dict[str, Callable[[str], Next]] = {
            Instance.KIND: instances.step,
            Vpc.KIND: networks.step,
            NatGateway.KIND: NatGateways(self.store, self.clock).step,
            PeeringConnection.KIND: Peerings(self.store, self.clock).step,
            Layer.KIND: Layers(self.store, files).step,
            Volume.KIND: Volumes(self.store, files, self.clock, MAX_DEPTH).step,
            Snapshot.KIND: Snapshots(self.store, files, self.clock).step,
            Image.KIND: Images(self.store, host.storage).step,
        }
        queue.kinds = set(self._steps)
        self.store.on_wake(queue.wake_all)
        Controller(self.config, self.store, host, clock=self.clock)._look_at_everything(cast(Any, queue))
        queue.wake_all((kind, resource_id) for kind, resource_id, _ in self.store.pending_wakes())
        self.host.compute._watchers = [lambda name: queue.wake(Instance.KIND, name)]

    def end(self) -> None:
        self.host.compute._watchers = []
        self.scheduler.kill()
        self.store.end()

    def furnish(self) -> str:
        """The catalogue's one image; its id."""
        owned = {"account": NO_ACCOUNT, "region": EVERY_REGION, "created": self.clock()}
        digits = "0" + "c" * 16
        layer = Layer(id=f"layer-{digits}", size_bytes=1 << 30, **owned)  # type: ignore[arg-type]
        snapshot = Snapshot(id=f"snap-{digits}", layer_id=layer.id, size_gib=1, **owned)  # type: ignore[arg-type]
        device = BlockDevice(device=ROOT, snapshot_id=snapshot.id, size_gib=1)
        image = Image(id=f"ami-{digits}", name="tiny", public=True, block_devices=(device,), **owned)  # type: ignore[arg-type]
        self.host.storage.create_layer(layer.id, size_bytes=layer.size_bytes)
        with self.store.write() as tx:
            tx.put_all([layer, snapshot, image])
        return image.id

    # --- points ---

    def _around_commit(self, commit: Callable[[], None]) -> None:
        task = self.scheduler.current
        if task is None:
            commit()
            return
        tx = self.store.committing
        self.points += 1
        self.scheduler.point(0.5)
        if self.chance.random() < self.full_disk_rate:
            self.fault("commit", "finds no room")
            raise StoreUnavailable("the disk is full")
        commit()
        written = [row or f"no {key[1]}" for key, row in tx.changed.items()]
        self.trace(f"        [{task.name}] writes {written}")
        if self.chance.random() < self.fatal_commits:
            self.is_dying = True
        self.committed(tx, task)
        if self.is_dying and "call" not in task.notes:
            raise Killed

    def _around_effect(self, point: str, call: Callable[[], Any]) -> Any:
        self.points += 1
        self.scheduler.point(0.7)
        how = self._how()
        about = str(cast(Any, call).args)[:200]
        task = self.scheduler.current
        self.trace(f"        [{task.name if task else 'driver'}] {point}{about} {how}")
        if how in ("fails", "fails for good"):
            self.fault(point, how)
            raise HostError(f"{point} {how}", retryable=how == "fails")
        result = call()
        self.scheduler.point(0.7)
        if how == "is done and fails":
            self.fault(point, how)
            raise HostError(f"{point} {how}")
        return result

    def _how(self) -> str:
        if self.scheduler.current is None or self.chance.random() >= self.fault_rate:
            return ""
        hows = ["fails", "fails", "is done and fails"] + ["fails for good"] * self.permanent
        return self.chance.choice(hows)

    # --- turns ---

    def turn(self) -> bool:
        """Somebody does something, up to the next point. False when there is nobody."""
        runnable = self.scheduler.runnable()
        ready = self.queue.ready() if len(self.queue.busy) < WORKERS else []
        if not runnable and not ready:
            return False
        place = self.chance.randrange(len(runnable) + len(ready))
        task = runnable[place] if place < len(runnable) else self._begin_step(ready[place - len(runnable)])
        self.scheduler.run(task)
        if task.is_done:
            self._end(task)
        return True

    def _begin_step(self, key: WakeKey) -> Task:
        del self.queue.due[key]
        self.steps += 1
        task = self.queue.busy[key] = self.scheduler.spawn(" ".join(key), lambda: self._step(key))
        task.notes["step"] = key
        return task

    def _step(self, key: WakeKey) -> Next:
        """As the loop's worker does it."""
        serial = self.store.wake_serial(*key)
        result = self._steps[key[0]](key[1])
        if not isinstance(result, Again) and serial:
            self.store.wake_done(*key, serial)
        return result

    def _end(self, task: Task) -> None:
        key = task.notes.get("step")
        if key is None:
            return
        if task.error is not None and not isinstance(task.error, (HostError, StoreUnavailable, Killed)):
            raise AssertionError(f"a step of {task.name} fails: {task.error!r}") from task.error
        self.queue.finish(key, None if task.error is not None else task.result)

    def pass_time(self, seconds: float) -> None:
        self.clock.pass_(seconds=seconds)

    def next_due_s(self) -> float | None:
        """In how many seconds the next step is due."""
        waiting = [at for key, at in self.queue.due.items() if key not in self.queue.busy]
        return max(0.0, (min(waiting) - self.clock()).total_seconds()) if waiting else None

    @contextmanager
    def predictable(self, chance: Random) -> Iterator[None]:
        """Ids, addresses, and who gets a lock follow from the seed."""
        twins = SimpleNamespace(Lock=lambda: Lock(self.scheduler))
        with (
            mock.patch("secrets.token_hex", lambda count: f"{chance.getrandbits(8 * count):0{2 * count}x}"),
            mock.patch("secrets.randbelow", chance.randrange),
            mock.patch("orchestrator.reconcile.network.threading", twins),
        ):
            yield

"""A deployment that is ended and started again, with everything in it stepped by one thread.

    World         what outlives the controller: the store's file, the host, the clock, and a client that calls
    Process       what ends with it: the open store, the reconcilers, the queue, all that they remember

    world.ask("RunInstances", ...)     a client's call, repeated as a client does when the controller ends meanwhile
    world.settle()                     steps are taken until nothing is left to do but to look again some time
    world.passes(seconds=60)           time goes by, and what is due is done

Everything but threads and time is real: operations with their transactions, reconcilers, what start-up looks at. What
the controller does beside the loop (a launch's network, copies, merges) is done at once, in the same thread, so that a
run passes the same points each time.
"""

from __future__ import annotations

import copy
import heapq
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from socket import socket
from typing import Any, TypeVar, cast
from unittest import mock

import msgspec
from botocore.model import ServiceModel

from orchestrator.api import operations
from orchestrator.api.gateway import load_models
from orchestrator.api.operation import Call, Caller, Operation, Settings, bind_operations, dispatch
from orchestrator.config import Config
from orchestrator.controller import Controller, RealHostView
from orchestrator.host import HostError
from orchestrator.host.memory import MemoryHost
from orchestrator.host.memory_storage import MemoryStorage
from orchestrator.host.points import at_points
from orchestrator.keys import KeyRing
from orchestrator.model import ids
from orchestrator.model.account import Account
from orchestrator.model.image import Build, ExportTask, Image, ImportTask
from orchestrator.model.instance import Instance
from orchestrator.model.kms import Key
from orchestrator.model.layer import Layer
from orchestrator.model.resource import Resource
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NatGateway, PeeringConnection, Vpc
from orchestrator.reconcile.build import Builds, register_catalogue
from orchestrator.reconcile.flow_log import FlowLogs
from orchestrator.reconcile.image import Images
from orchestrator.reconcile.image_task import ImageTasks
from orchestrator.reconcile.instance import Instances, Limits
from orchestrator.reconcile.key import KeyCalendar
from orchestrator.reconcile.layer import LayerFiles, Layers
from orchestrator.reconcile.loop import FIRST_DELAY_S, LONGEST_DELAY_S, Again, Loop, Next, WakeKey
from orchestrator.reconcile.nat_gateway import NatGateways
from orchestrator.reconcile.network import Networks
from orchestrator.reconcile.peering import Peerings
from orchestrator.reconcile.plan import plan
from orchestrator.reconcile.recycle_bin import RecycleBin
from orchestrator.reconcile.snapshot import Snapshots
from orchestrator.reconcile.volume import Volumes
from orchestrator.store import Store
from tests.conftest import Clock
from tests.crash.points import Killed, Points

R = TypeVar("R", bound=Resource)

ACCOUNT, OTHER = "111122223333", "444455556666"
REGIONS = {"us-east-1": ("us-east-1a", "us-east-1b"), "us-west-2": ("us-west-2a",)}
MAX_DEPTH = 4
LIMITS = Limits(stop=timedelta(seconds=20), reboot=timedelta(seconds=20))
FLOW_LOGS = "flow-logs"
FOR_EVER = (Vpc.KIND, RecycleBin.KIND, FLOW_LOGS)  # what looks again and again, whatever there is
QUIET_S = 40.0  # who wants to look only after so long has nothing to do now
MOST_STEPS = 1500
# What an account finds in a region that it comes to.
PROVIDED = frozenset(
    {
        *("account", "vpc", "subnet", "network-acl", "route-table", "internet-gateway", "security-group"),
        *("prefix-list", "dhcp-options"),
    }
)


@cache
def bound() -> tuple[Mapping[str, ServiceModel], Mapping[tuple[str, str], Operation]]:
    models = load_models()
    operations.load()
    return models, bind_operations(models)


class _AtOnce:
    """In the place of a pool: what is submitted is done when it is submitted, or (late) when it is asked for."""

    def __init__(self, *, late: bool) -> None:
        self._late = late

    def submit(self, work: Callable[..., None], *arguments: Any) -> Any:
        if not self._late:
            return _Answered(_outcome(work, *arguments))
        return _Asked(lambda: work(*arguments))


@dataclass
class _Asked:
    result: Callable[[], None]


@dataclass
class _Answered:
    future: Future[None]

    def result(self) -> None:
        self.future.result()


def _outcome(work: Callable[..., None], *arguments: Any) -> Future[None]:
    future: Future[None] = Future()
    try:
        work(*arguments)
        future.set_result(None)
    except Exception as error:
        future.set_exception(error)
    return future


class _Files(LayerFiles):
    """Copies, merges and checksums are done where they are asked for."""

    def in_background(self, name: str, work: Callable[[], None], turns: threading.Semaphore | None = None) -> bool:
        work()
        return True


class _Doors:
    """In the place of the metadata server: its sockets are opened, as they are the host's."""

    def open(self, vpc_id: str, listen: Callable[[], socket], listen_ipv6: Callable[[], socket] | None = None) -> None:
        listen().close()
        if listen_ipv6 is not None:
            listen_ipv6().close()

    def shut(self, vpc_id: str) -> None:
        pass


class Process:
    """One life of the controller."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.points = world.points
        self.points.dead = False
        self.actor = "start"
        self.store = Store(world.path, durable=False)
        self.store.around_commit = lambda commit: self.points.around(f"commit {self.actor}", commit)
        self.host = at_points(world.host, self.points.around)
        self.keys = KeyRing(bytes(32))
        self.clock = world.clock
        self._heap: list[tuple[datetime, int, WakeKey]] = []
        self._due: dict[WakeKey, datetime] = {}
        # Who is due at the same time has no order: after a restart it may be another one.
        self._order = count(0, -1 if self.points.ended and world.retry_first else 1)
        self._failures: dict[WakeKey, int] = {}
        self.steps = self._steps()
        self.store.on_wake(self.wake_all)

    def _steps(self) -> dict[str, Callable[[str], Next]]:
        store, host, clock = self.store, self.host, self.clock

        def appeared(vpc_id: str, after_s: float) -> None:
            self.wake(Vpc.KIND, vpc_id, after_s=after_s)

        files = self.files = _Files(store, host.storage, self.keys)
        networks = Networks(store, host.network, _Doors(), appeared)
        instances = Instances(store, host, networks, files, clock, LIMITS, MAX_DEPTH)
        instances._side_by_side = cast(ThreadPoolExecutor, _AtOnce(late=self._world.network_last))
        tasks = ImageTasks(store, files, self.keys, clock, import_dir=str(self._world.imports))
        self.calendar = KeyCalendar(store, self.keys, clock)
        logs = FlowLogs(store, host.network, self.router, self._world.directory / "flow-logs", clock)

        def collect(_: str) -> Next:
            logs.collect()
            return Again(10.0)

        return {
            Instance.KIND: instances.step,
            Vpc.KIND: networks.step,
            NatGateway.KIND: NatGateways(store, clock).step,
            PeeringConnection.KIND: Peerings(store, clock).step,
            Build.KIND: Builds(store, files, clock).step,
            Layer.KIND: Layers(store, files).step,
            Volume.KIND: Volumes(store, files, clock, MAX_DEPTH).step,
            Snapshot.KIND: Snapshots(store, files, clock).step,
            Image.KIND: Images(store, host.storage).step,
            ImportTask.KIND: tasks.step_import,
            ExportTask.KIND: tasks.step_export,
            Key.KIND: self.calendar.step,
            RecycleBin.KIND: RecycleBin(store, clock).step,
            FLOW_LOGS: collect,
        }

    def router(self, vpc_id: str) -> Any:
        return plan(self.store, vpc_id)

    def start(self) -> None:
        """As Controller.run does, in its order."""
        config = Config(state_dir=self._world.directory, host="memory")
        controller = Controller(config, self.store, self.host, clock=self.clock)
        controller._look_at_everything(cast(Loop, self))
        self.wake_all((Key.KIND, key_id) for key_id in self.calendar.due())
        self._world.host.compute.watch(lambda name: self.wake(Instance.KIND, name))
        self.wake_all((kind, row_id) for kind, row_id, _ in self.store.pending_wakes())
        self.wake(FLOW_LOGS, FLOW_LOGS)
        register_catalogue(self.store, self.host.storage, ACCOUNT, self.clock())

    def end(self) -> None:
        """As the kernel does it: nothing is written any more."""
        self._world.host.compute._watchers.clear()
        self.store.trail._noted.clear()
        self.store._closed = True
        self.store._database.close()
        os.close(self.store._lock_file)

    # --- the queue: of orchestrator/reconcile/loop.py, in the clock's time ---

    def wake_all(self, keys: Iterable[WakeKey]) -> None:
        for kind, row_id in keys:
            self.wake(kind, row_id)

    def wake(self, kind: str, row_id: str, *, after_s: float = 0.0) -> None:
        assert kind in self.steps, f"nobody steps a {kind}"
        key, due = (kind, row_id), self.clock() + timedelta(seconds=after_s)
        if key not in self._due or due < self._due[key]:
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._order), key))

    def next_due(self) -> datetime | None:
        """When something is due, of what does not look for ever."""
        dues = [due for (kind, _), due in self._due.items() if kind not in FOR_EVER]
        return min(dues, default=None)

    def step(self, until: datetime) -> bool:
        """Take the step that is due first, if it is by then. Time passes up to it."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        if not self._heap or self._heap[0][0] > until:
            return False
        due, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self.clock.pass_(seconds=max(0.0, (due - self.clock()).total_seconds()))
        self.actor = key[0]
        serial = self.store.wake_serial(*key)
        try:
            result = self.steps[key[0]](key[1])
        except HostError as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            self._world.errors.append(f"{key}: {error}")
            self.wake(*key, after_s=min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**failures))
            return True
        self._failures.pop(key, None)
        if isinstance(result, Again):
            self.wake(*key, after_s=result.after_s)
        elif serial and not self.store.wake_done(*key, serial):
            self.wake(*key)
        return True


@dataclass
class Frozen:
    """What outlives the controller, at one moment."""

    store: bytes
    host: MemoryHost
    now: datetime
    names: dict[str, Any]
    minted: int


class World:
    def __init__(
        self, directory: Path, points: Points, *, network_last: bool = False, retry_first: bool = False
    ) -> None:
        self.directory = directory
        self.points = points
        self.network_last = network_last  # a launch makes its disks first
        self.retry_first = retry_first  # a client repeats its call before anything else happens, or else after
        self.path = directory / "state" / "orchestrator.db"
        self.imports = directory / "imports"
        self.imports.mkdir(parents=True)
        (self.imports / "disk.raw").write_bytes(bytes(4096))
        self.host = MemoryHost(storage=MemoryStorage(strict=True))
        self.clock = Clock()
        self.names: dict[str, Any] = {}
        self.errors: list[str] = []
        self.lives = 0
        self._minted = count(1)
        self.waits = False  # for something that does not end by itself
        self.process: Process | None = None

    # --- life ---

    @contextmanager
    def alive(self) -> Iterator[World]:
        """Ids are counted, so that what is ordered by them is so each time."""
        secrets = mock.Mock()
        secrets.token_hex = lambda size: f"{next(self._minted):0{2 * size}x}"
        with mock.patch.object(ids, "secrets", secrets):
            try:
                yield self
            finally:
                if self.process is not None:
                    self.process.end()
                    self.process = None

    def start(self) -> None:
        """Until it has come up: it may end meanwhile."""
        while True:
            self.lives += 1
            self.process = Process(self)
            try:
                self.process.start()
                return
            except Killed:
                self.die()

    def die(self) -> None:
        """What is left of a controller that was killed goes; some time passes until somebody starts another."""
        assert self.process is not None
        self.process.end()
        self.process = None
        self.clock.pass_(seconds=700.0 if self.retry_first else 1.0)

    def restart(self) -> None:
        self.die()
        self.start()

    def freeze(self) -> Frozen:
        """To begin others from. Ends the controller."""
        assert self.process is not None
        self.process.end()
        self.process = None
        memo = {id(lock): threading.Lock() for lock in _locks(self.host)}
        return Frozen(
            self.path.read_bytes(), copy.deepcopy(self.host, memo), self.clock(), dict(self.names), next(self._minted)
        )

    def thaw(self, frozen: Frozen) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(frozen.store)
        memo = {id(lock): threading.Lock() for lock in _locks(frozen.host)}
        self.host = copy.deepcopy(frozen.host, memo)
        self.clock.pass_(seconds=(frozen.now - self.clock()).total_seconds())
        self.names = dict(frozen.names)
        self._minted = count(frozen.minted)

    @property
    def store(self) -> Store:
        assert self.process is not None
        return self.process.store

    # --- a client ---

    def ask(
        self, action: str, *, service: str = "ec2", account: str = ACCOUNT, region: str = "us-east-1", **params: Any
    ) -> dict[str, Any]:
        """The answer to a call. If the controller ends before it is answered, the call is repeated: with the same
        client token where the operation takes one, and otherwise only if nothing of it is there. Raises EC2Error."""
        models, bound_operations = bound()
        shape = models[service].operation_model(action).input_shape
        if shape is not None and "ClientToken" in shape.members:
            params.setdefault("ClientToken", f"token-{next(self._minted)}")
        operation = bound_operations[service, action]
        by_token = "ClientToken" in params
        committed: list[dict[str, Any]] = []  # what a call that was cut off after its commit would have answered
        while (answer := self._once(operation, params, account, region, committed)) is None:
            if not self.retry_first:
                self.settle()
            if committed and not by_token:
                return committed[0]
        if by_token and self.points.ended:
            committed.append(answer)
            answer = self._once(operation, params, account, region, [])
        if committed and answer is not None:
            assert _plain(answer) == _plain(committed[0]), f"{action}: the same token had another answer"
        return committed[0] if answer is None else answer

    def _once(
        self,
        operation: Operation,
        params: dict[str, Any],
        account: str,
        region: str,
        committed: list[dict[str, Any]],
    ) -> dict[str, Any] | None:
        """None when the controller ends before it has answered; if that was after the commit, `committed` has what it
        would have answered, and otherwise nothing of it must be there."""
        assert self.process is not None
        self.process.actor = operation.name
        process = self.process
        before = self.rows()
        kept: list[tuple[int, dict[str, Any]]] = []

        def remember(*given: Any, **named: Any) -> dict[str, Any]:
            answer = operation.handler(*given, **named)
            kept.append((len(self.points.done), answer))
            return answer

        call = Call(
            service=operation.service,
            action=operation.name,
            caller=Caller(account=account, access_key="AKIAEXAMPLE", arn=f"arn:aws:iam::{account}:root"),
            region=region,
            params=params,
            db=process.store,
            now=self.clock(),
            request_id=f"request-{next(self._minted)}",
            source="192.0.2.7",
            settings=Settings(regions=REGIONS, import_dir=str(self.imports)),
            host=RealHostView(process.host, process.router, verify=process.files.verify),
            keys=process.keys,
        )
        try:
            return dispatch(process.store, replace(operation, handler=remember), call)
        except Killed:
            self.die()
        self.start()
        if kept and self.points.done[kept[0][0] :] == [f"commit {operation.name}"]:
            committed.append(kept[0][1])
            return None
        # An account that comes to a region gets a network first.
        changed = {key for key, row in self.rows().items() if before.get(key) != row and key[0] not in PROVIDED}
        assert not changed, f"{operation.name} was cut off before its commit, but left {changed}"
        return None

    def upload(self, content: bytes = bytes(4096)) -> str:
        """A file, as `orc image import` sends it; sent again when the controller ends meanwhile."""
        while True:
            assert self.process is not None
            upload_id = ids.mint("upload")
            try:
                self.process.host.storage.receive_upload(upload_id, iter([content]), 1 << 20)
                return upload_id
            except Killed:
                self.restart()

    # --- time ---

    def settle(self) -> None:
        """Steps are taken until nobody has anything to do but to look again after a long time."""
        if self.waits:
            self.passes(seconds=QUIET_S)
            return
        for _ in range(MOST_STEPS):
            assert self.process is not None
            now = self.clock()
            due = self.process.next_due()
            horizon = now if due is None or due > now + timedelta(seconds=QUIET_S) else max(due, now)
            try:
                if not self.process.step(horizon):
                    return
            except Killed:
                self.restart()
        raise AssertionError(f"it does not settle: {self.process and sorted(self.process._due)}; {self.errors[-5:]}")

    def passes(self, **duration: float) -> None:
        """Time goes by; what is due meanwhile is done, or if it is much time, once it has gone by."""
        until = self.clock() + timedelta(**duration)
        if timedelta(**duration) > timedelta(minutes=10):
            self.clock.pass_(**duration)
            self.settle()
            return
        for _ in range(MOST_STEPS):
            assert self.process is not None
            try:
                if not self.process.step(until):
                    break
            except Killed:
                left = until - self.clock()
                self.restart()
                until = self.clock() + left  # what a test waits for begins anew
        else:
            raise AssertionError(f"it does not settle: {self.errors[-5:]}")
        self.clock.pass_(seconds=max(0.0, (until - self.clock()).total_seconds()))

    # --- looking ---

    def get(self, kind: type[R], row_id: str) -> R:
        found = self.store.get(kind, row_id)
        assert found is not None, f"there is no {kind.KIND} {row_id}"
        return found

    def rows(self) -> dict[tuple[str, str], int]:
        """The revision of each."""
        tables = self.store._tables
        return {(kind, row.id): row.revision for kind, table in tables.items() for row in table.rows.values()}

    def enrol(self, *accounts: str) -> None:
        with self.store.write() as tx:
            for account in accounts:
                tx.put(Account(id=account, account=account, created=self.clock()))


def _plain(answer: object) -> object:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(answer))


def _locks(host: MemoryHost) -> list[Any]:
    return [host.compute._lock, host.storage._lock, host.network._lock]

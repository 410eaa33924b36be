"""Instances: the machine behind each is made to be what was asked for.

    goal      state            what the step does
    --------  ---------------  ---------------------------------------------------------------
    running   pending          disks, network, machine -> running; cannot work -> given up
    running   running          off by the guest's hand -> as its shutdown behaviour says
                               off otherwise -> started again; reboots; status checks
                               interfaces and disks made to be those of the rows
                               a snapshot with the machine off -> power button, started again
                               paused as a disk is full -> impaired, resumed when there is room
                               its kernel panics -> impaired, until it is seen to boot
    stopped   stopping         power button, then the plug after a time -> stopped
    any       shutting-down    plug, disks and interfaces that go with it -> terminated
    any       terminated       forgotten after an hour

The machine is looked at on each pass. What only this process remembers (when a button was pressed) may be lost: then
the button is pressed again. What is plugged into a machine is in `plug.py`, `interface.py` and `disks.py`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from orchestrator.host import (
    CapacityError,
    DirectKernel,
    Disk,
    Host,
    HostError,
    Machine,
    MachineStatus,
    OffReason,
    Power,
)
from orchestrator.model import instance_type
from orchestrator.model.instance import Goal, Instance, Reason
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State, move
from orchestrator.reconcile.disks import Disks, DiskWatch
from orchestrator.reconcile.failing import Failing
from orchestrator.reconcile.interface import Interfaces
from orchestrator.reconcile.layer import WORK_EACH_S, InUse, KeyUnusable, LayerFiles, needs_kernel
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.reconcile.network import Networks
from orchestrator.reconcile.plug import Unplugging
from orchestrator.store import Store, Transaction

log = logging.getLogger(__name__)

CLAIM_EACH_S = 10.0  # each try holds a worker for some seconds, until it gives up
LAUNCH_DEADLINE = timedelta(minutes=5)  # retrying what fails, before a launch is given up; copying counts for nothing
PRESS_AGAIN_S = 5.0  # a guest that is still booting does not see the power button
LOOK_EACH_S = 1.0  # while a guest goes down
PROBE_TIMEOUT_S = 0.3
PROBE_PORT = 22
PROBE_FOR = timedelta(minutes=10)  # how long a booting guest is looked at before it is called impaired
SSH_FOR = timedelta(minutes=3)  # how long a guest that answers is asked for ssh
PROBE_EACH_S = (0.5, 10.0)  # at first, and at last
PROBE_MORE = 30  # the longer one has waited, the longer till the next look: a thirtieth of it
PROBES_AT_ONCE = 3  # guests that do not answer keep the loop's workers waiting: no more of them than that
IMPAIRED_EACH_S = 60.0
GIB = 1 << 30
NO_SPACE = "no space"  # as MachineStatus.disk_error has it
RESUME_EACH_S = (1.0, 30.0)  # at first, and at last: how often a machine that is paused is let run on

BY_HOST = Reason(
    code="Server.InternalError",
    message="Server.InternalError: The host has booted, and instances.after_host_boot is stop",
)
BY_GUEST = Reason(
    code="Client.InstanceInitiatedShutdown",
    message="Client.InstanceInitiatedShutdown: Instance initiated shutdown",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    stop: timedelta = timedelta(seconds=120)
    reboot: timedelta = timedelta(seconds=240)
    terminated_kept: timedelta = timedelta(hours=1)


@dataclass(slots=True)
class Watch:
    """What this process remembers of one instance between two steps."""

    pressed: datetime | None = None
    reboot_asked: datetime | None = None
    resets: int = 0
    off_asked: datetime | None = None  # for a snapshot with the machine off
    unplugging: dict[str, Unplugging] = field(default_factory=dict)  # by port
    disks: DiskWatch = field(default_factory=DiskWatch)
    free_bytes: int = 0  # when the machine was paused, or last resumed
    resume_at: datetime | None = None
    resume_after_s: float = RESUME_EACH_S[0]
    resets_at_panic: int | None = None  # if this process has seen it
    initializing_since: datetime | None = None
    phases: dict[str, datetime] = field(default_factory=dict)  # seen, not yet written down


class Instances:
    def __init__(
        self,
        store: Store,
        host: Host,
        networks: Networks,
        files: LayerFiles,
        clock: Callable[[], datetime],
        limits: Limits,
        max_depth: int,
    ) -> None:
        self._store = store
        self._host = host
        self._networks = networks
        self._clock = clock
        self._limits = limits
        self._interfaces = Interfaces(store, host.compute, networks, clock)
        self._disks = Disks(store, host, files, clock, max_depth)
        self._watches: dict[str, Watch] = {}
        self._launching = Failing(clock, LAUNCH_DEADLINE)
        self._lock = threading.Lock()
        self._probing = threading.BoundedSemaphore(PROBES_AT_ONCE)
        self._side_by_side = ThreadPoolExecutor(max_workers=8, thread_name_prefix="launch")

    def saw(self, instance_id: str, phase: str) -> None:
        """A phase of the launch was seen from outside (metadata read): kept until the next step writes it down."""
        self._watch(instance_id).phases.setdefault(phase, self._clock())

    def stop_all(self) -> None:
        """The host has booted, and what ran on it is to stay off: each instance that ran is stopped, and says why."""
        with self._store.write() as tx:
            for instance in tx.all(Instance):
                if instance.state is State.RUNNING:
                    goal = replace(instance.goal, power=State.STOPPED, forced=True, since=self._clock())
                    state = move(instance.state, State.STOPPING)
                    tx.wake(
                        tx.put(
                            replace(instance, goal=goal, state=state, reason=BY_HOST, transition_reason=BY_HOST.code)
                        )
                    )

    def step(self, instance_id: str) -> Next:
        instance = self._store.get(Instance, instance_id)
        if instance is None or instance.state is not State.PENDING:
            self._launching.went_on(instance_id)
        if instance is None:
            if self._host.compute.observe(instance_id) is not None:  # ours, without a row: a leftover
                self._host.compute.remove(instance_id)
                self._host.compute.forget(instance_id)
            self._watches.pop(instance_id, None)
            return Done()
        match instance.state:
            case State.PENDING:
                return self._launch(instance)
            case State.RUNNING:
                return self._keep(instance)
            case State.STOPPING:
                return self._stop(instance)
            case State.SHUTTING_DOWN:
                return self._terminate(instance)
            case State.TERMINATED:
                return self._age(instance)
            case State.STOPPED:
                return Done()

    # --- pending: to running, or given up ---

    def _launch(self, instance: Instance) -> Next:
        try:
            status = self._host.compute.observe(instance.id)
            if status is None or (status.power is Power.OFF and status.off_reason is not OffReason.GUEST):
                self._disks.mark(instance, "off")
                if not self._start(instance):
                    self._launching.went_on(instance.id)
                    return Again(WORK_EACH_S)
        except InUse:
            return Again(CLAIM_EACH_S)  # somebody works on its files, and that ends
        except HostError as error:
            self._interfaces.doubt_networks(instance)
            if not self._launching.is_hopeless(instance.id, error):
                raise
            log.warning("instance %s cannot be started: %s", instance.id, error)
            return self._give_up(instance, error)
        now = self._clock()
        with self._store.write(in_time=True) as tx:
            current = tx.get(Instance, instance.id)
            if current is None or current.state is not State.PENDING:
                return Again(0)
            self._disks.started(tx, current, now)
            self._interfaces.started(tx, current.id, now)
            tx.put(
                replace(
                    _booting(current),
                    state=move(current.state, State.RUNNING),
                    boots=current.boots + 1,
                    reboots=current.goal.reboots,
                    system_status="ok",
                    timeline={**current.timeline, **self._phases(current.id), "started": now},
                )
            )
        return Again(0)

    def _start(self, instance: Instance) -> bool:
        """Disks and network side by side, then the machine. False while a disk is being copied: ask again."""
        watch = self._watches[instance.id] = Watch()
        network = self._side_by_side.submit(self._plug_in, instance, watch)
        try:
            volumes = self._disks.prepare_all(instance)
            watch.phases["volume"] = self._clock()
        finally:
            network.result()
        if volumes is None:
            return False
        self._disks.start(instance, volumes, lambda disks: self._host.compute.start(self._machine(instance, disks)))
        return True

    def _plug_in(self, instance: Instance, watch: Watch) -> None:
        self._interfaces.ensure_networks(instance)
        watch.phases["network"] = self._clock()

    def _machine(self, instance: Instance, disks: tuple[Disk, ...]) -> Machine:
        kind = instance_type.get(instance.instance_type)
        threads = instance.threads_per_core or kind.threads_per_core
        cores = instance.core_count or max(1, kind.vcpus // threads)
        kernel = None
        if instance.kernel_id:
            kernel = DirectKernel(
                layer="layer-" + instance.kernel_id.partition("-")[2], arguments=instance.kernel_arguments
            )
        return Machine(
            name=instance.id,
            uuid=machine_uuid(instance.id),
            vcpus=cores * threads,
            cores=cores,
            threads=threads,
            memory_mib=kind.memory_mib,
            cpu_share_percent=round(kind.baseline_cpu_percent or 100),
            disks=disks,
            nics=self._interfaces.nics(instance),
            kernel=kernel,
            product_name=instance.instance_type,
            asset_tag=instance.id,
        )

    def _give_up(self, instance: Instance, error: HostError) -> Next:
        """A first launch ends terminated, a start of a stopped instance stopped again; both with the reason."""
        code, text = "Server.InternalError", "Internal error on launch"
        if isinstance(error, CapacityError):
            code, text = "Server.InsufficientInstanceCapacity", "Insufficient capacity to satisfy instance request"
        elif isinstance(error, KeyUnusable):
            code, text = "Client.InvalidKMSKey.InvalidState", "The KMS key provided is in an incorrect state"
        reason = Reason(code=code, message=f"{code}: {text}")
        first = instance.boots == 0
        with self._store.write() as tx:
            current = tx.get(Instance, instance.id)
            if current is None or current.state is not State.PENDING:
                return Again(0)
            tx.put(
                replace(
                    current,
                    goal=Goal(
                        power=State.TERMINATED if first else State.STOPPED,
                        forced=True,
                        reboots=current.goal.reboots,
                        since=self._clock(),
                    ),
                    state=move(current.state, State.SHUTTING_DOWN if first else State.STOPPING),
                    reason=reason,
                    transition_reason=reason.code,
                )
            )
        return Again(0)

    # --- running: kept so ---

    def _keep(self, instance: Instance) -> Next:
        for vpc_id in self._interfaces.vpcs(instance):
            self._networks.keep(vpc_id)
        status = self._host.compute.observe(instance.id)
        if status is None or status.power is Power.OFF:
            return self._found_off(instance, status)
        watch = self._watch(instance.id)
        if status.power is Power.PAUSED and status.disk_error:
            return self._stand_still(instance, status, watch)
        if status.power is Power.PAUSED:
            # By a flush that was cut off, or by hand: what is to run runs.
            self._host.compute.resume(instance.id)
            return Again(LOOK_EACH_S)
        if instance.paused_reason:
            watch.resume_after_s = RESUME_EACH_S[0]
            self._change(instance.id, lambda current: replace(_checked(current, "initializing"), paused_reason=""))
            return Again(0)
        if status.panicked:
            return self._panic(instance, status, watch)
        if instance.panicked and status.resets > (watch.resets_at_panic or 0):
            watch.resets_at_panic = None
            self._change(instance.id, _booting)
            return Again(0)
        self._disks.look(instance, status)
        if instance.goal.reboots > instance.reboots:
            return self._reboot(instance, status)
        if self._disks.wants_off(instance):
            return self._turn_off(instance, watch)
        watch.off_asked = None
        nexts = [
            self._interfaces.keep(instance, status, watch.unplugging),
            self._disks.keep(instance, status, watch.disks),
            self._check(instance),
        ]
        return min((each for each in nexts if isinstance(each, Again)), key=lambda each: each.after_s, default=Done())

    def _turn_off(self, instance: Instance, watch: Watch) -> Next:
        """A snapshot is to be taken with the machine off. Once it is, it is started again."""
        if watch.off_asked is None:
            watch.off_asked, watch.pressed = self._clock(), None
        watch.off_asked = min(watch.off_asked, self._clock())  # which may have been put back
        if self._clock() - watch.off_asked < self._limits.reboot:
            return self._press(instance, self._host.compute.ask_to_stop)
        self._disks.mark(instance, "crash")
        self._host.compute.remove(instance.id)
        return Again(0)

    def _stand_still(self, instance: Instance, status: MachineStatus, watch: Watch) -> Next:
        """A disk could not be written, so the machine was paused and nothing is lost: it runs on when there is room."""
        now = self._clock()
        free = self._host.storage.free_bytes()
        longest = timedelta(seconds=RESUME_EACH_S[1])
        if watch.resume_at is None or watch.resume_at > now + longest:  # the clock was put back
            watch.free_bytes = free
            watch.resume_at = now + timedelta(seconds=watch.resume_after_s)
        room = free > watch.free_bytes or free >= max(GIB, self._host.storage.total_bytes() // 100)
        # There may have been room already when this process first looked: so it is tried now and then in any case.
        overdue = now >= watch.resume_at + longest
        if now >= watch.resume_at and (room or overdue or status.disk_error != NO_SPACE):
            self._host.compute.resume(instance.id)
            watch.resume_at = None
            watch.resume_after_s = min(RESUME_EACH_S[1], 2 * watch.resume_after_s)
        elif (instance.paused_reason, instance.instance_status) != (status.disk_error, "impaired"):
            # Last, as the store may have no room either.
            log.warning("instance %s is paused: %s", instance.id, status.disk_error)
            reason, now = status.disk_error, self._clock()
            self._change(instance.id, lambda current: replace(_checked(current, "impaired", now), paused_reason=reason))
        return Again(watch.resume_after_s)

    def _panic(self, instance: Instance, status: MachineStatus, watch: Watch) -> Next:
        """From now on it is impaired, whatever answers: the network of a kernel in panic may go on. What it does next,
        stand still or boot after `panic=` seconds, is its own affair, as on EC2."""
        if status.reset_since:
            self._change(instance.id, _booting)
        else:
            log.warning("instance %s: its kernel panics", instance.id)
            watch.resets_at_panic, now = status.resets, self._clock()
            self._change(instance.id, lambda current: replace(_checked(current, "impaired", now), panicked=True))
        self._host.compute.resume(instance.id)
        return Again(0)

    def _stands_still(self, instance: Instance, status: MachineStatus) -> bool:
        """Whether this process has seen its kernel panic, and not boot since: no button is of use then."""
        seen = self._watch(instance.id).resets_at_panic
        if status.panicked:
            return not status.reset_since
        return instance.panicked and seen is not None and status.resets <= seen

    def _found_off(self, instance: Instance, status: MachineStatus | None) -> Next:
        rebooting = instance.goal.reboots > instance.reboots
        by_guest = status is not None and status.off_reason is OffReason.GUEST
        if by_guest and not rebooting and not self._disks.wants_off(instance):
            terminate = instance.shutdown_behavior == "terminate"
            with self._store.write() as tx:
                current = tx.get(Instance, instance.id)
                if current is None or current.state is not State.RUNNING:
                    return Again(0)
                tx.put(
                    replace(
                        current,
                        goal=replace(
                            current.goal,
                            power=State.TERMINATED if terminate else State.STOPPED,
                            since=self._clock(),
                        ),
                        state=move(current.state, State.SHUTTING_DOWN if terminate else State.STOPPING),
                        reason=BY_GUEST,
                        transition_reason="",
                    )
                )
            return Again(0)
        log.warning(
            "instance %s should run but does not (%s): starting it",
            instance.id,
            status.off_reason if status else "its machine is gone",
        )
        self._mark(instance, status)
        try:
            if status is not None:
                self._host.compute.remove(instance.id)
            if not self._start(instance):
                return Again(WORK_EACH_S)
        except InUse:
            return Again(CLAIM_EACH_S)
        except HostError:
            if instance.instance_status != "impaired":
                self._change(instance.id, lambda current: _checked(current, "impaired", self._clock()))
            raise
        with self._store.write() as tx:
            current = tx.get(Instance, instance.id)
            if current is not None and current.state is State.RUNNING:
                self._disks.started(tx, current, self._clock())
                tx.put(replace(_booting(current), boots=current.boots + 1, reboots=instance.goal.reboots))
        return Again(0)

    def _mark(self, instance: Instance, status: MachineStatus | None) -> None:
        """Of a snapshot that waits: whether the guest had written everything when its machine went off."""
        by_guest = status is not None and status.off_reason is OffReason.GUEST
        self._disks.mark(instance, "off" if by_guest else "crash")

    def _reboot(self, instance: Instance, status: MachineStatus) -> Next:
        watch = self._watch(instance.id)
        now = self._clock()
        if watch.reboot_asked is None:
            watch.reboot_asked, watch.resets, watch.pressed = now, status.resets, None
        watch.reboot_asked = min(watch.reboot_asked, now)  # the clock may have been put back
        if status.resets == watch.resets:
            if now - watch.reboot_asked < self._limits.reboot and not self._stands_still(instance, status):
                return self._press(instance, self._host.compute.ask_to_reboot)
            self._host.compute.reset(instance.id)
        watch.reboot_asked = watch.pressed = watch.resets_at_panic = None
        self._change(instance.id, lambda current: replace(_booting(current), reboots=instance.goal.reboots))
        return Again(0)

    def _check(self, instance: Instance) -> Next:
        """The instance status check: does the guest's network answer? And the launch's timeline, until ssh does."""
        if instance.instance_status == "ok" and "ssh" in instance.timeline:
            self._write_phases(instance)
            return Done()
        now = self._clock()
        watch = self._watch(instance.id)
        since = instance.timeline.get("started", now)
        if instance.instance_status == "initializing":  # again, maybe: after a reboot it has as long as at first
            watch.initializing_since = min(watch.initializing_since or now, now)
            since = max(since, watch.initializing_since)
        waited = now - since
        again = Again(min(PROBE_EACH_S[1], max(PROBE_EACH_S[0], waited.total_seconds() / PROBE_MORE)))
        if not self._probing.acquire(blocking=False):
            return again
        try:
            answered = self._probe(instance)
        finally:
            self._probing.release()
        now = self._clock()
        phases = self._phases(instance.id)
        if answered is not None:
            phases.setdefault("address", now)
        if answered == "open":
            phases.setdefault("ssh", now)
        status = "ok" if answered is not None else instance.instance_status
        if waited > PROBE_FOR and answered is None:
            status = "impaired"
        self._note(instance, status, phases)
        if answered == "open" or (answered == "there" and waited > SSH_FOR):
            return Done()
        if status == "impaired":
            return Again(IMPAIRED_EACH_S)
        return again

    def _probe(self, instance: Instance) -> str | None:
        """`open` when ssh answers, `there` when the guest refuses it, None when nothing comes back. Of one that has
        panicked only a word of its ssh counts: connections are taken, and refused, by the kernel."""
        interfaces = self._interfaces.of(instance.id)
        if not interfaces:
            return None
        address = interfaces[0].private_ip
        try:
            with self._host.network.connect(instance.vpc_id, address, PROBE_PORT, PROBE_TIMEOUT_S) as door:
                if instance.panicked:
                    door.settimeout(PROBE_TIMEOUT_S)
                    return "open" if door.recv(1) else None
        except OSError as error:
            return "there" if isinstance(error, ConnectionError) and not instance.panicked else None
        return "open"

    # --- stopping ---

    def _observe_last(self, instance: Instance, *, gently: bool) -> MachineStatus | None:
        """A machine whose plug is to be pulled, by now or at once, need not answer first."""
        try:
            return self._host.compute.observe(instance.id)
        except HostError as error:
            waited = self._waited(instance)
            if gently and not instance.goal.forced and waited < self._limits.stop:
                raise
            log.warning("instance %s does not answer and is to go off: %s", instance.id, error)
            return None

    def _stop(self, instance: Instance) -> Next:
        status = self._observe_last(instance, gently=True)
        if status is not None and status.power is not Power.OFF:
            waited = self._waited(instance)
            hears = status.power is Power.RUNNING and not self._stands_still(instance, status)
            if hears and not instance.goal.forced and waited < self._limits.stop:
                return self._press(instance, self._host.compute.ask_to_stop)
        self._mark(instance, status)
        self._host.compute.remove(instance.id)
        self._disks.follow(instance)
        self._disks.remove_instance_store(instance)
        now = self._clock()
        with self._store.write() as tx:
            current = tx.get(Instance, instance.id)
            if current is None or current.state is not State.STOPPING:
                return Again(0)
            self._interfaces.stopped(tx, current, now)
            self._disks.stopped(tx, current, now)
            tx.put(
                replace(
                    _booting(current),
                    state=move(current.state, State.STOPPED),
                    system_status="initializing",
                    timeline={},
                )
            )
        self._watches.pop(instance.id, None)
        return Done()

    def _waited(self, instance: Instance) -> timedelta:
        """For how long what is asked for now has been. If the clock was put back since, from now on."""
        now = self._clock()
        waited = now - (instance.goal.since or instance.created)
        if waited >= timedelta(0):
            return waited
        with self._store.write() as tx:
            current = tx.get(Instance, instance.id)
            if current is not None and current.goal == instance.goal:
                tx.put(replace(current, goal=replace(current.goal, since=now)))
        return timedelta(0)

    def _press(self, instance: Instance, button: Callable[[str], None]) -> Next:
        watch = self._watch(instance.id)
        now = self._clock()
        if watch.pressed is None or not timedelta(0) <= now - watch.pressed < timedelta(seconds=PRESS_AGAIN_S):
            watch.pressed = now
            button(instance.id)
        return Again(LOOK_EACH_S)

    # --- shutting down, terminated, forgotten ---

    def _terminate(self, instance: Instance) -> Next:
        volumes = self._disks.of(instance)
        kept = [v for v in volumes if v.attachment is not None and not v.attachment.delete_on_termination]
        status = self._observe_last(instance, gently=bool(kept))
        waited = self._waited(instance)
        hears = status is not None and status.power is Power.RUNNING and not self._stands_still(instance, status)
        if hears and kept and not instance.goal.forced and waited < self._limits.stop:
            return self._press(
                instance, self._host.compute.ask_to_stop
            )  # somebody will read these volumes again: let the guest unmount them
        self._mark(instance, status)
        self._host.compute.remove(instance.id)
        self._disks.follow(instance)
        self._disks.remove_instance_store(instance)
        now = self._clock()
        with self._store.write() as tx:
            current = tx.get(Instance, instance.id)
            if current is None or current.state is not State.SHUTTING_DOWN:
                return Again(0)
            self._disks.terminated(tx, current)
            self._interfaces.terminated(tx, current)
            tx.put(replace(current, state=move(current.state, State.TERMINATED), ended_at=now, timeline={}))
        self._watches.pop(instance.id, None)
        return Again(self._limits.terminated_kept.total_seconds())

    def _age(self, instance: Instance) -> Next:
        left = (instance.ended_at or instance.created) + self._limits.terminated_kept - self._clock()
        if left > timedelta(0):
            return Again(left.total_seconds())
        self._host.compute.remove(instance.id)
        self._host.compute.forget(instance.id)
        with self._store.write() as tx:
            tx.delete(instance)
            self._drop_kernel(tx, instance)
        return Done()

    def _drop_kernel(self, tx: Transaction, instance: Instance) -> None:
        """A kernel outlives the layer that it came with, while something is started on it."""
        layer_id = "layer-" + instance.kernel_id.partition("-")[2]
        if instance.kernel_id and tx.get(Layer, layer_id) is None and not needs_kernel(tx, layer_id):
            self._host.storage.remove_kernel(layer_id)

    # --- rows ---

    def _watch(self, instance_id: str) -> Watch:
        with self._lock:
            return self._watches.setdefault(instance_id, Watch())

    def _phases(self, instance_id: str) -> dict[str, datetime]:
        watch = self._watch(instance_id)
        seen, watch.phases = watch.phases, {}
        return seen

    def _write_phases(self, instance: Instance) -> None:
        phases = {name: at for name, at in self._phases(instance.id).items() if name not in instance.timeline}
        if phases:
            self._note(instance, instance.instance_status, phases)

    def _note(self, instance: Instance, status: str, phases: dict[str, datetime]) -> None:
        fresh = {name: at for name, at in phases.items() if name not in instance.timeline}
        if not fresh and status == instance.instance_status:
            return
        if status != "initializing":
            self._watch(instance.id).initializing_since = None
        with self._store.write(in_time=True) as tx:
            current = tx.get(Instance, instance.id)
            if current is not None and current.state is State.RUNNING:
                current = _checked(current, status, self._clock())
                panicked = current.panicked and status != "ok"
                tx.put(replace(current, panicked=panicked, timeline={**fresh, **current.timeline}))

    def _change(self, instance_id: str, changed: Callable[[Instance], Instance]) -> None:
        """Of what its status check says."""
        self._watch(instance_id).initializing_since = None
        with self._store.write() as tx:
            current = tx.get(Instance, instance_id)
            if current is not None:
                tx.put(changed(current))


def _checked(instance: Instance, status: str, now: datetime | None = None) -> Instance:
    """With what its status check says; `now` where it fails."""
    since = (instance.impaired_since or now) if status == "impaired" else None
    return replace(instance, instance_status=status, impaired_since=since)


def _booting(instance: Instance) -> Instance:
    """With nothing of what was found out about the boot before."""
    return replace(_checked(instance, "initializing"), paused_reason="", panicked=False)


def machine_uuid(instance_id: str) -> str:
    """A UUID that starts with ec2, as guests look for, made of the instance id's digits."""
    digits = ("ec2" + instance_id.partition("-")[2] + "0" * 32)[:32]
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

"""Instances: the machine behind each is made to be what was asked for.

    goal      state            what the step does
    --------  ---------------  ---------------------------------------------------------------
    running   pending          volumes, network, machine -> running; cannot work -> given up
    running   running          off by the guest's hand -> as its shutdown behaviour says
                               off otherwise -> started again; reboots; status checks
                               interfaces plugged in and unplugged, as their rows say
    stopped   stopping         power button, then the plug after a time -> stopped
    any       shutting-down    plug, disks and interfaces that go with it -> terminated
    any       terminated       forgotten after an hour

The machine is looked at on each pass. What only this process remembers (when a button was pressed) may be lost: then
the button is pressed again.

An interface of a machine that runs, by its attachment's state:

    attaching ---- plugged in -----> attached            its network knows its port before it is plugged in
    attached ----- missing --------> plugged in again
    detaching ---- the guest has let go, or, if forced, has had its time ----> available
    no row ------- plugged in -----> the guest is asked to let go
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
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
    Nic,
    OffReason,
    Power,
)
from orchestrator.model import instance_type
from orchestrator.model.image import GIB, Layer, Volume
from orchestrator.model.instance import Goal, Instance, Reason
from orchestrator.model.lifecycle import State, move
from orchestrator.model.vpc import NetworkInterface
from orchestrator.reconcile.interface import discard, let_go, wake_network
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.reconcile.network import Networks
from orchestrator.store import Store, Transaction

log = logging.getLogger(__name__)

LAUNCH_DEADLINE = timedelta(minutes=5)  # retrying what fails, before a launch is given up
PRESS_AGAIN_S = 5.0  # a guest that is still booting does not see the power button
LOOK_EACH_S = 1.0  # while a guest goes down, or lets go of an interface
LET_GO_WITHIN = timedelta(seconds=15)  # then a forced detachment is done without the guest
PROBE_TIMEOUT_S = 0.3
PROBE_PORT = 22
PROBE_FOR = timedelta(minutes=10)  # how long a booting guest is looked at before it is called impaired
SSH_FOR = timedelta(minutes=3)  # how long a guest that answers is asked for ssh
PROBE_EACH_S = (0.5, 2.0)  # in the first minute, and after
IMPAIRED_EACH_S = 60.0

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
class Unplugging:
    """A guest that has been asked to let go of an interface."""

    begun: datetime
    asked: datetime


@dataclass(slots=True)
class Watch:
    """What this process remembers of one instance between two steps."""

    pressed: datetime | None = None
    reboot_asked: datetime | None = None
    resets: int = 0
    unplugging: dict[str, Unplugging] = field(default_factory=dict)  # by port
    phases: dict[str, datetime] = field(default_factory=dict)  # seen, not yet written down


class Instances:
    def __init__(
        self, store: Store, host: Host, networks: Networks, clock: Callable[[], datetime], limits: Limits
    ) -> None:
        self._store = store
        self._host = host
        self._networks = networks
        self._clock = clock
        self._limits = limits
        self._watches: dict[str, Watch] = {}
        self._lock = threading.Lock()
        self._side_by_side = ThreadPoolExecutor(max_workers=8, thread_name_prefix="launch")

    def saw(self, instance_id: str, phase: str) -> None:
        """A phase of the launch was seen from outside (metadata read): kept until the next step writes it down."""
        self._watch(instance_id).phases.setdefault(phase, self._clock())

    def step(self, instance_id: str) -> Next:
        instance = self._store.get(Instance, instance_id)
        if instance is None:
            if instance_id in self._host.compute.names():  # ours, without a row: a leftover
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
                self._start(instance)
        except HostError as error:
            asked = instance.goal.since or instance.created
            if error.retryable and self._clock() - asked < LAUNCH_DEADLINE:
                raise
            log.warning("instance %s cannot be started: %s", instance.id, error)
            return self._give_up(instance, error)
        now = self._clock()
        with self._store.write() as tx:
            current = tx.get(Instance, instance.id)
            if current is None or current.state is not State.PENDING:
                return Again(0)
            self._attach_volumes(tx, current, now)
            self._attach_interfaces(tx, current.id, now)
            tx.put(
                replace(
                    current,
                    state=move(current.state, State.RUNNING),
                    boots=current.boots + 1,
                    reboots=current.goal.reboots,
                    system_status="ok",
                    instance_status="initializing",
                    timeline={**current.timeline, **self._phases(current.id), "started": now},
                )
            )
        return Again(0)

    def _start(self, instance: Instance) -> None:
        """Volumes and network side by side, then the machine."""
        watch = self._watches[instance.id] = Watch()
        volumes = self._volumes(instance.id)
        network = self._side_by_side.submit(self._plug_in, instance, watch)
        try:
            for volume in volumes:
                self._make_layer(volume)
            watch.phases["volume"] = self._clock()
        finally:
            network.result()
        self._host.compute.start(self._machine(instance, volumes))

    def _plug_in(self, instance: Instance, watch: Watch) -> None:
        self._ensure_networks(instance)
        watch.phases["network"] = self._clock()

    def _ensure_networks(self, instance: Instance) -> None:
        for vpc_id in self._vpcs(instance):
            self._networks.ensure(vpc_id)

    def _vpcs(self, instance: Instance) -> list[str]:
        """Its own, and those of interfaces that it has in others."""
        interfaces = self._store.all(NetworkInterface, instance_id=instance.id)
        return sorted({instance.vpc_id, *(interface.vpc_id for interface in interfaces)})

    def _make_layer(self, volume: Volume) -> None:
        layer = self._store.get(Layer, volume.layer_id)
        parent = layer.parent_id if layer else ""
        self._host.storage.create_layer(volume.layer_id, size_bytes=volume.size_gib * GIB, parent=parent)

    def _machine(self, instance: Instance, volumes: Sequence[Volume]) -> Machine:
        kind = instance_type.get(instance.instance_type)
        interfaces = [eni for eni in self._interfaces(instance.id) if not _is_leaving(eni)]
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
            disks=tuple(
                Disk(layer=volume.layer_id, target=target, serial=volume.id.replace("-", ""))
                for target, volume in zip(_targets(), _root_first(instance, volumes), strict=False)
            ),
            nics=tuple(_nic(interface) for interface in interfaces),
            kernel=kernel,
            product_name=instance.instance_type,
            asset_tag=instance.id,
        )

    def _give_up(self, instance: Instance, error: HostError) -> Next:
        """A first launch ends terminated, a start of a stopped instance stopped again; both with the reason."""
        if isinstance(error, CapacityError):
            code, text = "Server.InsufficientInstanceCapacity", "Insufficient capacity to satisfy instance request"
        else:
            code, text = "Server.InternalError", "Internal error on launch"
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
        for vpc_id in self._vpcs(instance):
            self._networks.keep(vpc_id)
        status = self._host.compute.observe(instance.id)
        if status is None or status.power is Power.OFF:
            return self._found_off(instance, status)
        if instance.goal.reboots > instance.reboots:
            return self._reboot(instance, status)
        waiting = self._plug(instance, status)
        checking = self._check(instance)
        return checking if isinstance(checking, Again) and checking.after_s < LOOK_EACH_S else waiting or checking

    def _found_off(self, instance: Instance, status: MachineStatus | None) -> Next:
        rebooting = instance.goal.reboots > instance.reboots
        if status is not None and status.off_reason is OffReason.GUEST and not rebooting:
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
        if status is not None:
            self._host.compute.remove(instance.id)
        self._start(instance)
        self._change(
            instance.id, boots=instance.boots + 1, reboots=instance.goal.reboots, instance_status="initializing"
        )
        return Again(0)

    def _reboot(self, instance: Instance, status: MachineStatus) -> Next:
        watch = self._watch(instance.id)
        now = self._clock()
        if watch.reboot_asked is None:
            watch.reboot_asked, watch.resets, watch.pressed = now, status.resets, None
        if status.resets == watch.resets:
            if now - watch.reboot_asked < self._limits.reboot:
                return self._press(instance, self._host.compute.ask_to_reboot)
            self._host.compute.reset(instance.id)
        watch.reboot_asked = watch.pressed = None
        self._change(instance.id, reboots=instance.goal.reboots, instance_status="initializing")
        return Again(0)

    def _check(self, instance: Instance) -> Next:
        """The instance status check: does the guest's network answer? And the launch's timeline, until ssh does."""
        if instance.instance_status == "ok" and "ssh" in instance.timeline:
            self._write_phases(instance)
            return Done()
        answered = self._probe(instance)
        now = self._clock()
        phases = self._phases(instance.id)
        if answered is not None:
            phases.setdefault("address", now)
        if answered == "open":
            phases.setdefault("ssh", now)
        status = "ok" if answered is not None else instance.instance_status
        waited = now - instance.timeline.get("started", now)
        if waited > PROBE_FOR and answered is None:
            status = "impaired"
        self._note(instance, status, phases)
        if answered == "open" or (answered == "there" and waited > SSH_FOR):
            return Done()
        if status == "impaired":
            return Again(IMPAIRED_EACH_S)
        return Again(PROBE_EACH_S[waited > timedelta(minutes=1)])

    def _probe(self, instance: Instance) -> str | None:
        """`open` when ssh answers, `there` when the guest refuses it, None when nothing comes back."""
        interfaces = self._interfaces(instance.id)
        if not interfaces:
            return None
        address = interfaces[0].private_ip
        try:
            self._host.network.connect(instance.vpc_id, address, PROBE_PORT, PROBE_TIMEOUT_S).close()
        except OSError as error:
            return "there" if isinstance(error, ConnectionError) else None
        return "open"

    # --- interfaces of a machine that runs ---

    def _plug(self, instance: Instance, status: MachineStatus) -> Again | None:
        """Make the machine's NICs those of its rows, and write down what is done; Again while a guest holds on."""
        rows = {interface.id: interface for interface in self._interfaces(instance.id)}
        present = set(status.ports)
        missing = [each for name, each in rows.items() if name not in present and not _is_leaving(each)]
        if missing:
            self._ensure_networks(instance)
        present |= {each.id for each in missing if self._plug_in_late(instance, each)}
        leaving = {name for name in present if name not in rows or _is_leaving(rows[name])}
        unplugging = self._watch(instance.id).unplugging
        for name in unplugging.keys() - leaving:
            del unplugging[name]
        for name in sorted(leaving):
            self._unplug(instance.id, name, unplugging)
        overdue = {name for name, each in unplugging.items() if self._clock() - each.begun >= LET_GO_WITHIN}
        changed = [
            interface
            for name, interface in rows.items()
            if (_is_leaving(interface) and (name not in present or (name in overdue and _is_forced(interface))))
            or (_is_coming(interface) and name in present)
        ]
        if changed:
            self._settle(changed)
        return Again(LOOK_EACH_S if leaving - overdue else PRESS_AGAIN_S) if leaving else None

    def _plug_in_late(self, instance: Instance, interface: NetworkInterface) -> bool:
        try:
            self._host.compute.plug_in(instance.id, _nic(interface))
        except HostError as error:
            if error.retryable:
                raise
            log.warning("interface %s cannot be plugged into %s: %s", interface.id, instance.id, error)
            if _is_coming(interface):
                with self._store.write() as tx:
                    current = tx.get(NetworkInterface, interface.id)
                    if current is not None and current.attachment == interface.attachment:
                        let_go(tx, current)
            return False
        return True

    def _unplug(self, instance_id: str, port: str, unplugging: dict[str, Unplugging]) -> None:
        """A guest that is still booting does not hear it: it is asked again."""
        now = self._clock()
        known = unplugging.setdefault(port, Unplugging(begun=now, asked=datetime.min.replace(tzinfo=now.tzinfo)))
        if now - known.asked >= timedelta(seconds=PRESS_AGAIN_S):
            known.asked = now
            self._host.compute.unplug(instance_id, port)

    def _settle(self, seen: Sequence[NetworkInterface]) -> None:
        """Attached or detached they are now, unless a request has come in between."""
        now = self._clock()
        with self._store.write() as tx:
            for interface in seen:
                current = tx.get(NetworkInterface, interface.id)
                if current is None or current.attachment != interface.attachment:
                    continue
                if _is_leaving(current):
                    let_go(tx, current)
                else:
                    self._attach(tx, current, now)

    def _attach_interfaces(self, tx: Transaction, instance_id: str, now: datetime) -> None:
        for interface in tx.all(NetworkInterface, instance_id=instance_id):
            if _is_coming(interface):
                self._attach(tx, interface, now)

    def _attach(self, tx: Transaction, interface: NetworkInterface, now: datetime) -> None:
        if interface.attachment is not None:
            attached_at = interface.attachment.attached_at or now
            attachment = replace(interface.attachment, state="attached", attached_at=attached_at)
            tx.put(replace(interface, state="in-use", attachment=attachment))

    # --- stopping ---

    def _stop(self, instance: Instance) -> Next:
        status = self._host.compute.observe(instance.id)
        if status is not None and status.power is not Power.OFF:
            waited = self._clock() - (instance.goal.since or instance.created)
            if status.power is Power.RUNNING and not instance.goal.forced and waited < self._limits.stop:
                return self._press(instance, self._host.compute.ask_to_stop)
        self._host.compute.remove(instance.id)
        with self._store.write() as tx:
            current = tx.get(Instance, instance.id)
            if current is None or current.state is not State.STOPPING:
                return Again(0)
            self._wake_networks(tx, current)
            for interface in tx.all(NetworkInterface, instance_id=instance.id):
                if _is_leaving(interface):
                    let_go(tx, interface)
                elif interface.public_ip:
                    tx.put(replace(interface, public_ip=""))
            self._attach_interfaces(tx, instance.id, self._clock())
            tx.put(
                replace(
                    current,
                    state=move(current.state, State.STOPPED),
                    system_status="initializing",
                    instance_status="initializing",
                    timeline={},
                )
            )
        self._watches.pop(instance.id, None)
        return Done()

    def _press(self, instance: Instance, button: Callable[[str], None]) -> Next:
        watch = self._watch(instance.id)
        now = self._clock()
        if watch.pressed is None or now - watch.pressed >= timedelta(seconds=PRESS_AGAIN_S):
            watch.pressed = now
            button(instance.id)
        return Again(LOOK_EACH_S)

    # --- shutting down, terminated, forgotten ---

    def _terminate(self, instance: Instance) -> Next:
        volumes = self._volumes(instance.id)
        kept = [v for v in volumes if v.attachment is not None and not v.attachment.delete_on_termination]
        status = self._host.compute.observe(instance.id)
        waited = self._clock() - (instance.goal.since or instance.created)
        on = status is not None and status.power is Power.RUNNING
        if on and kept and not instance.goal.forced and waited < self._limits.stop:
            return self._press(
                instance, self._host.compute.ask_to_stop
            )  # somebody will read these volumes again: let the guest unmount them
        self._host.compute.remove(instance.id)
        now = self._clock()
        with self._store.write() as tx:
            current = tx.get(Instance, instance.id)
            if current is None or current.state is not State.SHUTTING_DOWN:
                return Again(0)
            for volume in volumes:
                if volume in kept:
                    tx.put(replace(volume, attachment=None, state="available"))
                else:
                    tx.delete(volume)
                    layer = tx.get(Layer, volume.layer_id)
                    if layer is not None:
                        tx.wake(layer)
            self._wake_networks(tx, current)
            for interface in tx.all(NetworkInterface, instance_id=instance.id):
                goes = interface.attachment is not None and interface.attachment.delete_on_termination
                if goes and not _is_leaving(interface):
                    discard(tx, interface)
                else:
                    let_go(tx, interface)
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
        return Done()

    # --- rows ---

    def _volumes(self, instance_id: str) -> list[Volume]:
        return self._store.all(Volume, instance_id=instance_id)

    def _interfaces(self, instance_id: str) -> list[NetworkInterface]:
        found = self._store.all(NetworkInterface, instance_id=instance_id)
        return sorted(found, key=lambda eni: eni.attachment.device_index if eni.attachment else 0)

    def _attach_volumes(self, tx: Transaction, instance: Instance, now: datetime) -> None:
        for volume in tx.all(Volume, instance_id=instance.id):
            if volume.attachment is not None and (volume.state, volume.attachment.state) != ("in-use", "attached"):
                attached = replace(
                    volume.attachment, state="attached", attached_at=volume.attachment.attached_at or now
                )
                tx.put(replace(volume, state="in-use", attachment=attached))

    def _wake_networks(self, tx: Transaction, instance: Instance) -> None:
        for vpc_id in self._vpcs(instance):
            wake_network(tx, vpc_id)

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
        with self._store.write() as tx:
            current = tx.get(Instance, instance.id)
            if current is not None and current.state is State.RUNNING:
                tx.put(replace(current, instance_status=status, timeline={**fresh, **current.timeline}))

    def _change(self, instance_id: str, **changes: object) -> None:
        with self._store.write() as tx:
            current = tx.get(Instance, instance_id)
            if current is not None:
                tx.put(replace(current, **changes))  # type: ignore[arg-type]


def _nic(interface: NetworkInterface) -> Nic:
    index = interface.attachment.device_index if interface.attachment else -1
    return Nic(port=interface.id, segment=interface.subnet_id, mac=interface.mac, index=index)


def _is_coming(interface: NetworkInterface) -> bool:
    return interface.attachment is not None and interface.attachment.state == "attaching"


def _is_leaving(interface: NetworkInterface) -> bool:
    return interface.attachment is not None and interface.attachment.state == "detaching"


def _is_forced(interface: NetworkInterface) -> bool:
    return interface.attachment is not None and interface.attachment.forced


def machine_uuid(instance_id: str) -> str:
    """A UUID that starts with ec2, as guests look for, made of the instance id's digits."""
    digits = ("ec2" + instance_id.partition("-")[2] + "0" * 32)[:32]
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _targets() -> list[str]:
    return [f"vd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]


def _root_first(instance: Instance, volumes: Sequence[Volume]) -> list[Volume]:
    def order(volume: Volume) -> tuple[bool, str]:
        device = volume.attachment.device if volume.attachment else ""
        return device != instance.root_device, device

    return sorted(volumes, key=order)

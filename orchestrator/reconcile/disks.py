"""The disks of instances' machines: volumes, and instance store disks, which have no rows.

    volume's row                          the machine that runs
    -----------------------------------   ------------------------------------------------------------------
    attached, attaching, detaching        plugged in and out (plug.py)
    its top is ahead of the machine's     switched: moments in order, all disks of one at one instant
    modified                              resized, other limits
    lies on what nothing else needs, or   flattened, while nothing else is to be done
    too deep

A moment with the machine off is not for a machine that runs: its instance shuts it down first, and starts it again on
the tops that the rows name. What comes off by force stays in the machine until the guest lets go: `Volume.held_by` says
so, and nobody else touches the volume until then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from orchestrator.host import Disk, DiskStatus, Host, HostError, LayerFile, Limits, MachineStatus
from orchestrator.model import volume_type
from orchestrator.model.instance import Instance
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.owned import instance_store
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Modification, Volume
from orchestrator.reconcile.failing import Failing
from orchestrator.reconcile.layer import (
    LayerFiles,
    flatten_onto,
    forget_merge,
    intend_merge,
    layers_below,
    lie_on,
    moments,
    only_child,
)
from orchestrator.reconcile.loop import Again
from orchestrator.reconcile.plug import Plugs, Unplugging, is_leaving
from orchestrator.reconcile.snapshot import GIVE_UP_AFTER, arrive, layers_to_make, mark, undo
from orchestrator.store import Store, Transaction

log = logging.getLogger(__name__)

FLATTENING_EACH_S = 1.0
GIVEN_UP_EACH_S = 0.2  # how soon flattening that is given up is looked at


@dataclass(slots=True)
class DiskWatch:
    """What this process remembers of one instance's disks between two steps."""

    unplugging: dict[str, Unplugging] = field(default_factory=dict)  # by serial
    not_flattened: set[str] = field(default_factory=set)  # tops that cannot be flattened


class Disks:
    """Volumes as `Parts` of a machine, and what else becomes of disks."""

    kind = Volume

    def __init__(
        self, store: Store, host: Host, files: LayerFiles, clock: Callable[[], datetime], max_depth: int
    ) -> None:
        self._store = store
        self._compute = host.compute
        self._storage = host.storage
        self._files = files
        self._clock = clock
        self._max_depth = max_depth
        self._plugs: Plugs[Volume] = Plugs(store, clock, self)
        self._failing = Failing(clock, GIVE_UP_AFTER)  # volumes that are modified, and layers that are to come

    def of(self, instance: Instance) -> list[Volume]:
        """The root's first, then by device name."""

        def order(volume: Volume) -> tuple[bool, str]:
            device = volume.attachment.device if volume.attachment else ""
            return device != instance.root_device, device

        return sorted(self._store.all(Volume, instance_id=instance.id), key=order)

    # --- a machine that is to start ---

    def prepare_all(self, instance: Instance) -> list[Volume] | None:
        """Have the files of all disks. The volumes as they are ready: what is frozen from now on is looked at once the
        machine runs. None while one is being copied: ask again. Raises HostError."""
        for volume in self._starting(instance):
            self._files.take_back(volume.layer_id)
        volumes = self._starting(instance)
        ready = [self._make(instance, volume) for volume in volumes]
        for name, size_bytes in instance_store(instance):
            self._storage.create_layer(name, size_bytes=size_bytes)
        return volumes if all(ready) else None

    def _make(self, instance: Instance, volume: Volume) -> bool:
        for layer in layers_to_make(self._store, self._files, volume):
            try:
                made = self._files.make(layer.id)
            except HostError as error:
                if not layer.moment or not self._failing.is_hopeless(layer.id, error):
                    raise
                self._undo(instance, layer, error)
                return False
            self._failing.went_on(layer.id)
            if not made:
                return False
        return True

    def start(self, instance: Instance, volumes: Sequence[Volume], begin: Callable[[tuple[Disk, ...]], None]) -> None:
        """Call `begin` with the disks of what `prepare_all` has prepared, whose files nobody changes meanwhile."""
        below = {layer.id for volume in volumes for layer in layers_below(self._store, volume.layer_id)}
        with self._files.claim(read=below):
            disks = [
                Disk(
                    chain=self._files.chain(volume.layer_id),
                    serial=serial(volume.id),
                    index=index,
                    limits=_limits(volume),
                )
                for index, volume in enumerate(volumes)
            ]
            for name, _ in instance_store(instance):
                store_serial = instance_store_serial(name)
                disks.append(Disk(chain=(LayerFile(name),), serial=store_serial, index=len(disks)))
            begin(tuple(disks))

    def _starting(self, instance: Instance) -> list[Volume]:
        return [each for each in self.of(instance) if not is_leaving(each) and each.held_by in ("", instance.id)]

    def mark(self, instance: Instance, consistency: str) -> None:
        """The machine has gone off: how the content of what was to be frozen is."""
        volumes = [volume for volume in self.of(instance) if volume.held_by in ("", instance.id)]
        layers = [layer for volume in volumes for layer in moments(self._store, volume.layer_id)]
        if layers:
            with self._store.write() as tx:
                mark(tx, layers, consistency)

    def wants_off(self, instance: Instance) -> bool:
        """Whether the next moment is one with the machine off."""
        due = _due([moments(self._store, volume.layer_id) for volume in self._starting(instance)])
        return bool(due) and due[0].when == "off"

    def started(self, tx: Transaction, instance: Instance, now: datetime) -> None:
        """Its machine has started. Which tops it has is looked at: a snapshot may have been asked for since."""
        for volume in tx.all(Volume, instance_id=instance.id):
            if not is_leaving(volume) and volume.held_by in ("", instance.id):
                self.has_come(tx, volume, now)

    # --- a machine that runs ---

    def look(self, instance: Instance, status: MachineStatus) -> None:
        """Write down what is so already: moments that have come, chains that are shorter, disks that were let go."""
        present = {disk.serial: disk for disk in status.disks}
        come: list[Layer] = []
        shorter: list[tuple[Layer, str]] = []
        for volume in self.of(instance):
            disk = present.get(serial(volume.id))
            if disk is None:
                continue
            come += [layer for layer in moments(self._store, volume.layer_id) if layer.id in disk.chain]
            top = self._store.get(Layer, disk.chain[0])
            parent = disk.chain[1] if len(disk.chain) > 1 else ""
            if top is not None and top.parent_id != parent:
                below = [layer.id for layer in layers_below(self._store, top.parent_id)]
                if not parent or parent in below:
                    shorter.append((top, parent))
        given_up = [
            top.id
            for disk in status.disks
            if disk.flattening is None
            and (top := self._store.get(Layer, disk.chain[0])) is not None
            and (top.merging_onto or top.merging_live)
            and self._lies_as_its_row_says(top)
        ]
        released = [each for each in self._store.all(Volume, held_by=instance.id) if serial(each.id) not in present]
        if not (come or shorter or given_up or released):
            return
        if shorter:
            self._compute.flush_disks(instance.id)
        if any(layer.when == "frozen" for layer in come):
            self._thaw(instance, status)
        with self._store.write() as tx:
            arrive(tx, come, self._clock(), "crash")
            for top, parent in shorter:
                current = tx.get(Layer, top.id)
                if current is not None and current.parent_id == top.parent_id:
                    lie_on(tx, current, parent)
            for layer_id in given_up:
                forget_merge(tx, layer_id)
            self._release(tx, released)

    def _thaw(self, instance: Instance, status: MachineStatus) -> None:
        """Whoever switched its disks may have ended before the guest's file systems were let go again."""
        tops = {disk.serial: LayerFile(disk.chain[0]) for disk in status.disks}
        self._compute.switch_disks(instance.id, tops, freeze=True)

    def _lies_as_its_row_says(self, layer: Layer) -> bool:
        file = self._storage.observe_layer(layer.id)
        return file is None or file.parent == layer.parent_id

    def keep(self, instance: Instance, status: MachineStatus, watch: DiskWatch) -> Again | None:
        """Make a machine's disks those of its rows; Again while there is more to do."""
        ours = {name for name, _ in instance_store(instance)}
        store_serials = {instance_store_serial(name) for name in ours}
        before = {disk.serial: disk for disk in status.disks}
        plugging = self._plugs.keep(instance, before.keys() - store_serials, watch.unplugging)
        # One that its guest does not let go of is in use as before.
        volumes = [v for v in self.of(instance) if v.attachment is not None and v.attachment.state != "detaching"]
        present = [(v, before[serial(v.id)]) for v in volumes if serial(v.id) in before]
        steps = (self._switch, self._modify, self._flatten)
        for step in steps:
            again = step(instance, present, watch)
            if again is not None:
                return again if plugging is None else min(again, plugging, key=lambda each: each.after_s)
        return plugging

    def _switch(
        self, instance: Instance, present: Sequence[tuple[Volume, DiskStatus]], watch: DiskWatch
    ) -> Again | None:
        behind: dict[str, list[Layer]] = {}
        for volume, disk in present:
            waiting = [layer for layer in moments(self._store, volume.layer_id) if layer.id not in disk.chain]
            if waiting:
                behind[volume.id] = waiting
        due = _due(list(behind.values()))
        if not due:
            return None
        if due[0].when == "off":
            return Again(0)
        switched = [(v, disk, layer) for v, disk in present for layer in behind.get(v.id, [])[:1] if layer in due]
        if self._stop_flattening(instance, [disk for _, disk, _ in switched]):
            return Again(GIVEN_UP_EACH_S)
        try:
            tops = {}
            for volume, _, layer in switched:
                self._files.make(layer.id)
                tops[serial(volume.id)] = self._files.chain(layer.id)[0]
            froze = self._compute.switch_disks(instance.id, tops, freeze=due[0].when == "frozen")
        except HostError as error:
            if not self._is_switched(instance, tops.keys(), due):
                if not self._failing.is_hopeless(due[0].id, error):
                    raise
                self._undo(instance, due[0], error)
            return Again(0)  # where they are switched all the same, `look` sees it
        self._failing.went_on(due[0].id)
        with self._store.write() as tx:
            arrive(tx, due, self._clock(), "frozen" if froze else "crash")
        return Again(0)

    def _is_switched(self, instance: Instance, serials: Collection[str], due: Sequence[Layer]) -> bool:
        """After an error. Raises HostError when it cannot be told."""
        status = self._compute.observe(instance.id)
        if status is None or not status.disks:
            raise HostError(f"{instance.id} went off while its disks were switched")
        new = {layer.id for layer in due}
        done = [bool(new & set(disk.chain)) for disk in status.disks if disk.serial in serials]
        if any(done) and not all(done):
            raise HostError(f"{instance.id}: some disks were switched and some were not")
        return bool(done) and all(done) and len(done) == len(due)

    def _undo(self, instance: Instance, layer: Layer, error: HostError) -> None:
        with self._store.write() as tx:
            undo(tx, tx.all(Volume, instance_id=instance.id), layer.moment, str(error))

    def _stop_flattening(self, instance: Instance, disks: Iterable[DiskStatus]) -> bool:
        """Whether something had to be given up, which may take a moment."""
        busy = [disk for disk in disks if disk.flattening is not None]
        for disk in busy:
            self._compute.stop_flattening(instance.id, disk.serial)
        return bool(busy)

    def _modify(
        self, instance: Instance, present: Sequence[tuple[Volume, DiskStatus]], watch: DiskWatch
    ) -> Again | None:
        for volume, disk in present:
            if volume.modification is None or volume.modification.state != "modifying":
                self._failing.went_on(volume.id)  # whoever has done it, or given it up
                continue
            size_bytes = volume.size_gib * GIB
            try:
                if disk.size_bytes < size_bytes:
                    if self._stop_flattening(instance, [disk]):
                        return Again(GIVEN_UP_EACH_S)
                    self._compute.resize_disk(instance.id, disk.serial, size_bytes)
                self._compute.limit_disk(instance.id, disk.serial, _limits(volume))
            except HostError as error:
                if not self._failing.is_hopeless(volume.id, error):
                    raise
                with self._store.write() as tx:
                    if (current := self._unmodified(tx, volume)) is not None:
                        modification_failed(tx, current, str(error), self._clock())
                continue
            self._failing.went_on(volume.id)
            with self._store.write() as tx:
                if (current := self._unmodified(tx, volume)) is not None:
                    modified(tx, current)
        return None

    def _unmodified(self, tx: Transaction, volume: Volume) -> Volume | None:
        """A volume of which no other change was asked for meanwhile."""
        current = tx.get(Volume, volume.id)
        return current if current is not None and current.modification == volume.modification else None

    def _flatten(
        self, instance: Instance, present: Sequence[tuple[Volume, DiskStatus]], watch: DiskWatch
    ) -> Again | None:
        """One disk at a time, so that the guest has the most of its disks."""
        if any(disk.flattening is not None for _, disk in present):
            return Again(FLATTENING_EACH_S)
        for volume, disk in present:
            if is_leaving(volume) or volume.layer_id != disk.chain[0] or volume.layer_id in watch.not_flattened:
                continue
            onto = flatten_onto(self._store, volume, self._max_depth)
            if onto is None or (onto and onto not in disk.chain):
                continue
            with self._store.write() as tx:
                intend_merge(tx, volume.layer_id, onto, live=True)
            try:
                self._compute.flatten_disk(instance.id, disk.serial, onto)
            except HostError as error:
                if error.retryable:
                    raise
                log.warning("%s of %s cannot be flattened: %s", volume.id, instance.id, error)
                watch.not_flattened.add(volume.layer_id)
                with self._store.write() as tx:
                    forget_merge(tx, volume.layer_id)
                continue
            return Again(FLATTENING_EACH_S)
        return None

    # --- a machine that is gone ---

    def stopped(self, tx: Transaction, instance: Instance, now: datetime) -> None:
        """Its machine is gone and it is not: what was to come has come, and what was to go has gone."""
        for volume in tx.all(Volume, instance_id=instance.id):
            if is_leaving(volume):
                self.has_gone(tx, volume, held=False)
            else:
                self.has_come(tx, volume, now)
                wake_at_rest(tx, volume)
        self._release(tx, tx.all(Volume, held_by=instance.id))

    def terminated(self, tx: Transaction, instance: Instance) -> None:
        for volume in tx.all(Volume, instance_id=instance.id):
            if volume.attachment is not None and volume.attachment.delete_on_termination and not is_leaving(volume):
                delete_volume(tx, volume)
            else:
                self.has_gone(tx, volume, held=False)
        self._release(tx, tx.all(Volume, held_by=instance.id))

    def follow(self, instance: Instance) -> None:
        """Its machine is gone: what it was flattening is as it was, and other merges are as far as the files say."""
        for volume in self.of(instance):
            self._files.take_back(volume.layer_id)
            self._files.follow(volume.layer_id)

    def remove_instance_store(self, instance: Instance) -> None:
        for name, _ in instance_store(instance):
            self._storage.remove_layer(name)

    def _release(self, tx: Transaction, volumes: Iterable[Volume]) -> None:
        for volume in volumes:
            current = tx.get(Volume, volume.id)
            if current is None or not current.held_by:
                continue
            tx.put(replace(current, held_by=""))
            wake_at_rest(tx, current)
            instance = tx.get(Instance, current.instance_id)
            if instance is not None:
                tx.wake(instance)

    # --- Parts ---

    def rows(self, instance_id: str) -> Mapping[str, Volume]:
        return {serial(each.id): each for each in self._store.all(Volume, instance_id=instance_id)}

    def prepare(self, instance: Instance, missing: Sequence[Volume]) -> Collection[str]:
        free = [volume for volume in missing if volume.held_by in ("", instance.id)]
        return {serial(volume.id) for volume in free if self._make(instance, volume)}

    def plug_in(self, instance_id: str, row: Volume) -> None:
        self._files.take_back(row.layer_id)
        with self._files.claim(read=[layer.id for layer in layers_below(self._store, row.layer_id)]):
            chain = self._files.chain(row.layer_id)
            self._compute.plug_in_disk(instance_id, Disk(chain=chain, serial=serial(row.id), limits=_limits(row)))

    def unplug(self, instance_id: str, name: str) -> None:
        self._compute.stop_flattening(instance_id, name)
        self._compute.unplug_disk(instance_id, name)

    def has_come(self, tx: Transaction, row: Volume, now: datetime) -> None:
        if row.attachment is not None and (row.state, row.attachment.state) != ("in-use", "attached"):
            attachment = replace(row.attachment, state="attached", attached_at=row.attachment.attached_at or now)
            tx.put(replace(row, state="in-use", attachment=attachment, held_by=_held_elsewhere(row)))

    def holds_on(self, tx: Transaction, row: Volume) -> None:
        if row.attachment is not None and row.attachment.state == "detaching":
            tx.put(replace(row, attachment=replace(row.attachment, state="busy")))

    def has_gone(self, tx: Transaction, row: Volume, *, held: bool) -> None:
        held_by = row.instance_id if held else _held_elsewhere(row)
        state = "creating" if row.state == "creating" else "available"  # its instance may never have started
        tx.put(replace(row, attachment=None, state=state, held_by=held_by))
        wake_at_rest(tx, row)


def _held_elsewhere(row: Volume) -> str:
    return "" if row.held_by == row.instance_id else row.held_by


def _due(waiting: Sequence[Sequence[Layer]]) -> list[Layer]:
    """Of all disks' layers that are to come on top, those of the oldest moment that waits for no other."""
    layers = [layer for each in waiting for layer in each]
    blocked = {layer.moment for each in waiting for layer in each[1:] if layer.moment != each[0].moment}
    free = [layer for layer in layers if layer.moment not in blocked]
    if not free:
        return []
    first = min(free, key=lambda layer: (layer.created, layer.moment))
    return [layer for layer in layers if layer.moment == first.moment]


def _limits(volume: Volume) -> Limits:
    speed = volume_type.limits(volume.volume_type, volume.size_gib, volume.iops, volume.throughput_mib_s)
    return Limits(
        iops=speed.iops,
        bytes_per_s=speed.bytes_per_s,
        burst_iops=speed.burst_iops,
        burst_bytes_per_s=speed.burst_bytes_per_s,
        burst_s=speed.burst_s,
        operation_bytes=speed.operation_bytes,
    )


def serial(volume_id: str) -> str:
    return volume_id.replace("-", "")


def instance_store_serial(layer: str) -> str:
    """AWS and 17 characters: of the instance's digits all but the first, which are the same everywhere, and which of
    its disks it is."""
    _, digits, number = layer.split("-")
    return "AWS" + digits[-16:].upper() + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[int(number)]


def delete_volume(tx: Transaction, volume: Volume) -> None:
    """The row goes; its layers go as far as nothing else needs them, and snapshots that wait are whole now."""
    tx.delete(volume)
    for layer in layers_below(tx, volume.layer_id):
        tx.wake(layer)
        if not layer.moment:
            break
    for snapshot in tx.all(Snapshot, volume_id=volume.id):
        if snapshot.state == "pending":
            tx.wake(snapshot)


def wake_at_rest(tx: Transaction, volume: Volume) -> None:
    """No machine has it any more: what could not be done meanwhile can be done now."""
    current = tx.get(Volume, volume.id)
    if current is not None:
        tx.wake(current)
    for layer in layers_below(tx, volume.layer_id):
        if only_child(tx, layer.id) is not None:
            tx.wake(layer)


def modified(tx: Transaction, volume: Volume) -> None:
    """The volume has what it is to have."""
    layer = tx.get(Layer, volume.layer_id)
    if layer is not None and layer.size_bytes < volume.size_gib * GIB:
        tx.put(replace(layer, size_bytes=volume.size_gib * GIB))
    if volume.modification is not None:
        modification = replace(volume.modification, state="optimizing", progress_percent=50)
        tx.wake(tx.put(replace(volume, modification=modification)))


def modification_failed(tx: Transaction, volume: Volume, message: str, now: datetime) -> None:
    if volume.modification is not None:
        original = volume.modification.original
        for layer in layers_below(tx, volume.layer_id):  # at rest they were told to grow
            if layer.size_bytes > original.size_gib * GIB:
                tx.put(replace(layer, size_bytes=original.size_gib * GIB))
            if not layer.moment:
                break
        failed: Modification = replace(volume.modification, state="failed", message=message[:1000], ended_at=now)
        tx.put(
            replace(
                volume,
                size_gib=original.size_gib,
                volume_type=original.volume_type,
                iops=original.iops,
                throughput_mib_s=original.throughput_mib_s,
                modification=failed,
            )
        )

"""Layers: what nothing refers to any more is deleted, and chains are kept short.

    needed by nothing ------------------> deleted, and its parent is looked at
    needed by one child alone ----------> merged into that child:
        it is the top of a machine's disk     live, by the step of that instance
        no machine has it open                here
        else                                  later: woken when a machine stops

A layer is needed by a volume whose top it is, a snapshot that froze it, a layer that lies on it or is to be a copy of
it, and a task that reads or writes it. That is derived here each time, and counted nowhere. A merge is begun under a
claim on the file, and never while a row says that a machine may have it open; whoever starts a machine claims the files
of its disks, so of the two one sees the other.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.host import HostError, LayerFile, Storage
from orchestrator.model.image import ExportTask, Image
from orchestrator.model.instance import Instance
from orchestrator.model.kms import Key, Keys, KeyUnavailable
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.owned import is_needed, is_used
from orchestrator.model.resource import Rows
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.store import Store, Transaction

log = logging.getLogger(__name__)

CLAIM_WITHIN_S = 5.0  # then whoever waits for a file is told to come again
SOON_S = 0.3  # a copy that is done so soon is waited for
WORK_EACH_S = 0.5  # how often a copy or a merge is looked at
READ_FOR_S = 30.0  # after which a file that somebody reads is looked at again
AT_ONCE = 2  # copies and merges


# --- what rows say ---


def only_child(db: Rows, layer_id: str) -> Layer | None:
    """The layer that lies on this one, when nothing else needs it."""
    children = db.all(Layer, parent_id=layer_id)
    return children[0] if len(children) == 1 and not is_used(db, layer_id) else None


def layers_below(db: Rows, layer_id: str) -> Iterator[Layer]:
    """The layer itself and all that it lies on, top first."""
    layer = db.get(Layer, layer_id)
    while layer is not None:
        yield layer
        layer = db.get(Layer, layer.parent_id)


def layers_above(db: Rows, layer_id: str) -> Iterator[str]:
    """The layer itself and all that lie on it."""
    found = [layer_id]
    while found:
        yield (each := found.pop())
        found += [child.id for child in db.all(Layer, parent_id=each)]


def moments(db: Rows, layer_id: str) -> list[Layer]:
    """Of a volume's layers those that are still to come on top of it, in order: each has a snapshot that waits."""
    waiting: list[Layer] = []
    for layer in layers_below(db, layer_id):
        if not layer.moment:
            break
        waiting.insert(0, layer)
    return waiting


def machine_of(db: Rows, volume: Volume) -> str:
    """The instance whose machine may have a volume's files open; empty when there is none."""
    if volume.held_by:
        return volume.held_by
    instance = db.get(Instance, volume.instance_id)
    return "" if instance is None or instance.state in (State.STOPPED, State.TERMINATED) else instance.id


def at_rest(db: Rows, layer_id: str) -> bool:
    """Whether nobody may have a layer's file open: no machine, no copy, no task."""
    tasks = {task.layer_id for task in db.all(ExportTask, state="active")}
    return not any(
        each in tasks
        or db.all(Layer, copy_of=each)
        or any(machine_of(db, volume) for volume in db.all(Volume, layer_id=each))
        for each in layers_above(db, layer_id)
    )


def flatten_onto(db: Rows, volume: Volume, max_depth: int) -> str | None:
    """The layer that a volume's top should come to lie on: empty for none, None when it lies well. A top that lies on
    what nothing else needs is to take that in; one whose chain is too deep, all above what it was made of."""
    layers = list(layers_below(db, volume.layer_id))
    if not layers or layers[0].copy_of or any(layer.moment for layer in layers):
        return None
    lies = 1
    while lies < len(layers) and only_child(db, layers[lies].id) is not None:
        lies += 1
    if len(layers) - lies + 1 > max_depth:
        made_of = [
            place
            for place, layer in enumerate(layers)
            if place and any(_is_base(db, each, volume) for each in db.all(Snapshot, layer_id=layer.id))
        ]
        lies = max(lies, made_of[-1] if made_of else len(layers))
    if lies == 1:
        return None
    return layers[lies].id if lies < len(layers) else ""


def _is_base(db: Rows, snapshot: Snapshot, volume: Volume) -> bool:
    return snapshot.volume_id != volume.id or bool(db.all(Image, snapshot_ids=snapshot.id))


def needs_kernel(db: Rows, layer_id: str) -> bool:
    """Whether something is started on the kernel that came with a layer."""
    kernel_id = "aki-" + layer_id.partition("-")[2]
    return bool(db.all(Image, kernel_id=kernel_id) or db.all(Instance, kernel_id=kernel_id))


def lie_on(tx: Transaction, layer: Layer, parent_id: str) -> None:
    """The row follows what is so on the host: the layer lies on another one now, and those between may be free."""
    between = tx.get(Layer, layer.parent_id)
    if between is not None:
        tx.wake(between)
    tx.wake(tx.put(replace(layer, parent_id=parent_id, sha512="", merging_onto="", merging_live=False)))


def intend_merge(tx: Transaction, layer_id: str, onto: str, *, live: bool = False) -> None:
    """Written before it is begun: `onto` stays as it is until the row says how far it came."""
    layer = tx.get(Layer, layer_id)
    if layer is not None and (layer.merging_onto, layer.merging_live) != (onto, live):
        tx.put(replace(layer, merging_onto=onto, merging_live=live))


def forget_merge(tx: Transaction, layer_id: str) -> None:
    """It was given up, or is done: the row says what the file does."""
    layer = tx.get(Layer, layer_id)
    if layer is not None and (layer.merging_onto or layer.merging_live):
        onto = tx.get(Layer, layer.merging_onto)
        tx.put(replace(layer, merging_onto="", merging_live=False))
        if onto is not None:
            tx.wake(onto)


# --- files ---


def chain(rows: Rows, keys: Keys, layer_id: str) -> tuple[LayerFile, ...]:
    """A layer with all that lie below it, and what each is encrypted with. Raises HostError without a key."""
    return tuple(LayerFile(layer.id, _secret(rows, keys, layer)) for layer in layers_below(rows, layer_id))


class KeyUnusable(HostError):
    """A layer cannot be read, as its key is gone or must not be used."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=False)


def _secret(rows: Rows, keys: Keys, layer: Layer) -> bytes:
    if not layer.key_id:
        return b""
    key = rows.get(Key, layer.key_id)
    if key is None:
        raise KeyUnusable(f"{layer.id} cannot be read: its key {layer.key_id} is gone")
    try:
        return keys.unwrap(key, layer.data_key)
    except KeyUnavailable as error:
        raise KeyUnusable(f"{layer.id} cannot be read: {error}") from error


def make_layer(
    rows: Rows, storage: Storage, keys: Keys, layer_id: str, progress: Callable[[float], None] = lambda done: None
) -> None:
    """Make the file of a layer as its row says: on its parent, or as a copy. One that is there is left as it is, but
    grown."""
    layer = rows.get(Layer, layer_id)
    if layer is None:
        raise HostError(f"{layer_id} has no row", retryable=False)
    secret = _secret(rows, keys, layer)
    if layer.copy_of:
        source = chain(rows, keys, layer.copy_of)
        storage.copy_layer(layer.id, source, size_bytes=layer.size_bytes, secret=secret, progress=progress)
    else:
        storage.create_layer(layer.id, size_bytes=layer.size_bytes, parent=layer.parent_id, secret=secret)


class InUse(HostError):
    """Somebody in this process works on the file."""


class LayerFiles:
    """Work on layers' files: who may do it, and what takes long, beside the loop and a few at once."""

    def __init__(self, store: Store, storage: Storage, keys: Keys) -> None:
        self.storage = storage
        self._store = store
        self._keys = keys
        self._claims = threading.Condition()
        self._reading: Counter[str] = Counter()
        self._writing: set[str] = set()
        self._jobs_lock = threading.Lock()
        self._jobs: dict[str, Future[None]] = {}
        self._turns = threading.Semaphore(AT_ONCE)
        self._sums = threading.Semaphore(1)  # reading checksums keeps nothing else waiting

    def chain(self, layer_id: str) -> tuple[LayerFile, ...]:
        """As the files are. Raises HostError without a key."""
        self.follow(layer_id)
        return chain(self._store, self._keys, layer_id)

    def follow(self, layer_id: str) -> None:
        """A merge that was done when this process ended is in the file, and not yet in the row: write it down."""
        for layer in layers_below(self._store, layer_id):
            if layer.merging_live:
                if at_rest(self._store, layer.id):
                    self._take_back(layer)
                continue
            status = self.storage.observe_layer(layer.id)
            if status is None or status.parent == layer.parent_id:
                continue
            below = [each.id for each in layers_below(self._store, layer.parent_id)]
            if status.parent in below or not status.parent:
                with self._store.write() as tx:
                    current = tx.get(Layer, layer.id)
                    if current is not None and current.parent_id == layer.parent_id:
                        lie_on(tx, current, status.parent)

    def take_back(self, layer_id: str) -> None:
        """No machine has these files open any more. If one was flattening them, QEMU may have ended before it had
        written all that the new parent stands for: they lie where their rows say."""
        for layer in layers_below(self._store, layer_id):
            if layer.merging_live:
                self._take_back(layer)

    def _take_back(self, layer: Layer) -> None:
        status = self.storage.observe_layer(layer.id)
        if status is not None and status.parent != layer.parent_id:
            file = LayerFile(layer.id, _secret(self._store, self._keys, layer))
            self.storage.reparent_layer(file, layer.parent_id)
        with self._store.write() as tx:
            forget_merge(tx, layer.id)

    @contextmanager
    def claim(
        self, *, read: Iterable[str] = (), write: Iterable[str] = (), within_s: float = CLAIM_WITHIN_S
    ) -> Iterator[None]:
        """Nobody else writes to these, or reads those that are to be written. Raises InUse."""
        writing = set(write)
        reading = set(read) - writing

        def free() -> bool:
            return not (self._writing & (reading | writing)) and not any(self._reading[each] for each in writing)

        with self._claims:
            if not self._claims.wait_for(free, within_s):
                raise InUse(f"{', '.join(sorted(reading | writing))}: somebody works on one of these")
            self._reading.update(reading)
            self._writing |= writing
        try:
            yield
        finally:
            with self._claims:
                self._reading.subtract(reading)
                self._reading = +self._reading
                self._writing -= writing
                self._claims.notify_all()

    def make(self, layer_id: str, progress: Callable[[float], None] = lambda done: None) -> bool:
        """Have the file of a layer, as large as its row says. False while it is being copied: ask again. Raises
        HostError."""
        layer = self._store.get(Layer, layer_id)
        if layer is None:
            raise HostError(f"{layer_id} has no row", retryable=False)
        if layer.copy_of:
            return self.in_background(f"copy {layer_id}", lambda: self._copy(layer, progress))
        with self.claim(read=[layer.parent_id], write=[layer_id]):
            if not self._is_there(layer):
                make_layer(self._store, self.storage, self._keys, layer_id, progress)
        return True

    def _copy(self, layer: Layer, progress: Callable[[float], None]) -> None:
        sources = [each.id for each in layers_below(self._store, layer.copy_of)]
        with self.claim(read=sources, write=[layer.id]):
            self.follow(layer.copy_of)
            make_layer(self._store, self.storage, self._keys, layer.id, progress)
        with self._store.write() as tx:
            current = tx.get(Layer, layer.id)
            source = tx.get(Layer, layer.copy_of)
            if current is not None:
                tx.put(replace(current, copy_of=""))
            if source is not None:
                tx.wake(source)

    def _is_there(self, layer: Layer) -> bool:
        """Whether nothing is to be done: the file is as the row says, and large enough."""
        status = self.storage.observe_layer(layer.id)
        if status is None:
            return False
        self.unseal(layer)
        self.follow(layer.id)
        current = self._store.get(Layer, layer.id)
        return current is not None and status.parent == current.parent_id and status.size_bytes >= current.size_bytes

    def unseal(self, layer: Layer) -> None:
        """A top that was frozen for a snapshot which was undone since."""
        above = self._store.all(Layer, parent_id=layer.id)
        if self._store.all(Snapshot, layer_id=layer.id) or any(is_needed(self._store, each.id) for each in above):
            return
        try:
            self.storage.unseal_layer(layer.id)
        except HostError as error:
            raise HostError(str(error)) from error  # until what lies on it has been removed

    def merge(self, layer_id: str, onto: str) -> bool:
        """Take into a layer at rest all between it and `onto`. False while it is under way: ask again. Raises
        HostError; InUse when somebody has begun to use it."""
        return self.in_background(f"merge {layer_id}", lambda: self._merge(layer_id, onto))

    def settle(self, layer_id: str) -> None:
        """A merge into a layer that was cut off, and nobody goes on with: write down how far it came. Raises InUse."""
        if at_rest(self._store, layer_id):
            with self.claim(write=[layer_id], within_s=0):
                self._settle(layer_id)

    def _settle(self, layer_id: str) -> None:
        self.follow(layer_id)
        with self._store.write() as tx:
            forget_merge(tx, layer_id)

    def _merge(self, layer_id: str, onto: str) -> None:
        with self.claim(read=[each.id for each in layers_below(self._store, layer_id)], write=[layer_id]):
            if not at_rest(self._store, layer_id):
                raise InUse(f"{layer_id} is in use again")
            if self.storage.observe_layer(layer_id) is None:
                raise HostError(f"{layer_id} is not there", retryable=False)
            files = self.chain(layer_id)
            with self._store.write() as tx:
                intend_merge(tx, layer_id, onto)
            try:
                self.storage.merge_layer(files, onto)
            except HostError:
                self._settle(layer_id)
                raise
            with self._store.write() as tx:
                layer = tx.get(Layer, layer_id)
                if layer is not None:
                    lie_on(tx, layer, onto)

    def checksum(self, layer: Layer) -> bool:
        """Write down the checksum of a layer that a snapshot has frozen, by which it can be verified. False while it is
        read: ask again. Nobody is kept from the file meanwhile: what has changed then has no checksum."""
        return self.in_background(f"checksum {layer.id}", lambda: self._checksum(layer), self._sums)

    def _checksum(self, layer: Layer) -> None:
        found = self.storage.checksum_layer(layer.id)
        with self._store.write() as tx:
            current = tx.get(Layer, layer.id)
            if current is not None and replace(current, revision=layer.revision) == layer:
                tx.put(replace(current, sha512=found))

    def verify(self, layer_id: str) -> list[str]:
        """What is wrong with a layer's file: a line for people each."""
        layer = self._store.get(Layer, layer_id)
        try:
            with self.claim(read=[layer_id]):
                return self.storage.verify_layer(self.chain(layer_id), layer.sha512 if layer is not None else "")
        except HostError as error:
            return [f"{layer_id}: {error}"]

    def in_background(self, name: str, work: Callable[[], None], turns: threading.Semaphore | None = None) -> bool:
        """Do what takes long beside the loop, when it is its turn: by default copies' and merges'. False while it is
        under way: ask again. Raises what it raised."""
        with self._jobs_lock:
            job = self._jobs.get(name)
            if job is None:
                job = self._jobs[name] = Future()
                # A daemon: it is cut off when the controller ends, and begun anew.
                threading.Thread(
                    target=self._work, args=(name, job, work, turns or self._turns), name=name, daemon=True
                ).start()
        try:
            error = job.exception(SOON_S)
        except TimeoutError:
            return False
        with self._jobs_lock:
            if self._jobs.get(name) is job:
                del self._jobs[name]
        if error is not None:
            raise error
        return True

    def _work(self, name: str, job: Future[None], work: Callable[[], None], turns: threading.Semaphore) -> None:
        try:
            with turns:
                work()
        except BaseException as error:
            job.set_exception(error)
        else:
            with self._jobs_lock:
                del self._jobs[name]  # what it did is in the rows: perhaps nobody asks, and the next means another one
            job.set_result(None)


class Layers:
    def __init__(self, store: Store, files: LayerFiles) -> None:
        self._store = store
        self._files = files

    def step(self, layer_id: str) -> Next:
        try:
            with self._store.write() as tx:
                layer = tx.get(Layer, layer_id)
                if layer is None:
                    return Done()
                if not is_needed(tx, layer_id):
                    self._remove(tx, layer)
                    return Done()
        except InUse:
            return Again(WORK_EACH_S)
        return self._shorten(layer)

    def _remove(self, tx: Transaction, layer: Layer) -> None:
        """Under the store's lock, so that nobody begins to refer to it while its file goes."""
        with self._files.claim(write=[layer.id], within_s=0):
            self._files.storage.remove_layer(layer.id)
            if not needs_kernel(tx, layer.id):
                self._files.storage.remove_kernel(layer.id)
        tx.delete(layer)
        for other in (layer.parent_id, layer.copy_of):
            row = tx.get(Layer, other)
            if row is not None:
                tx.wake(row)

    def _shorten(self, layer: Layer) -> Next:
        try:
            for above in self._store.all(Layer, merging_onto=layer.id):
                self._files.settle(above.id)
        except InUse:
            return Again(WORK_EACH_S)
        child = only_child(self._store, layer.id)
        if child is not None:
            self._files.follow(child.id)
            child = only_child(self._store, layer.id)
        if child is None or child.moment or self._files.storage.observe_layer(child.id) is None:
            return self._checksum(layer)  # whoever makes the child wakes what it lies on
        volumes = [each for above in layers_above(self._store, child.id) for each in self._on(above)]
        machines = {machine for volume in volumes if (machine := machine_of(self._store, volume))}
        if machines:
            if any(volume.layer_id == child.id for volume in volumes):
                self._wake(machines)
            return Done()
        if not at_rest(self._store, child.id):
            return Again(READ_FOR_S)
        try:
            return Done() if self._files.merge(child.id, layer.parent_id) else Again(WORK_EACH_S)
        except InUse:
            return Again(WORK_EACH_S)
        except HostError as error:
            if error.retryable:
                raise
            log.warning("%s cannot be merged into %s: %s", layer.id, child.id, error)
            return Done()

    def _checksum(self, layer: Layer) -> Next:
        alone = not self._store.all(Layer, parent_id=layer.id)  # the last that goes wakes it again
        if self._on(layer.id) and alone and self._files.storage.observe_layer(layer.id) is not None:
            self._files.unseal(layer)  # what was to come on top of it was undone
        frozen = any(each.state == "completed" for each in self._store.all(Snapshot, layer_id=layer.id))
        if not frozen or layer.sha512 or layer.merging_onto or layer.merging_live:
            return Done()
        return Done() if self._files.checksum(layer) else Again(WORK_EACH_S)

    def _on(self, layer_id: str) -> list[Volume]:
        return self._store.all(Volume, layer_id=layer_id)

    def _wake(self, machines: Iterable[str]) -> None:
        with self._store.write() as tx:
            for instance_id in machines:
                instance = tx.get(Instance, instance_id)
                if instance is not None:
                    tx.wake(instance)

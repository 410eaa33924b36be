"""Imports and exports, step by step.

    import   active --copy of a file of the host's--> upload --read, convert--> layer --rows--> completed
                                                                 |               ^
                                                         with a key: plain layer-+ encrypted copy

    export   active --one file, of the layer and all below it--> completed

    both     active --cancelled, or it cannot be done--> deleting --everything of it is removed--> deleted

All that a task makes is named after it or in its row from the start, and it gets rows of its own only at the end, in
one transaction. So a task that was cut off starts over in the same place, and one that ends otherwise than completed
leaves nothing. A cancelled one is noticed with the next per cent. Tasks take minutes, so they run beside the loop, two
at once. One that has ended can be seen for a week; its file, or its image, stays.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from orchestrator.host import CapacityError, HostError, LayerFile
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import BlockDevice, ExportTask, Image, ImportTask
from orchestrator.model.import_source import read_source
from orchestrator.model.kms import Key, Keys, KeyUnavailable
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.snapshot import Snapshot
from orchestrator.reconcile.ageing import forget_after
from orchestrator.reconcile.layer import InUse, LayerFiles, layers_below
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.store import Store, Transaction

log = logging.getLogger(__name__)

ROOT_DEVICE = "/dev/xvda"
CHUNK_BYTES = 1 << 20
AT_ONCE = 2
KEPT = timedelta(days=7)  # as EC2 tells of them
LOOK_EACH_S = 1.0


class _Cancelled(Exception):
    """Somebody has cancelled the task meanwhile."""


@dataclass(frozen=True, slots=True)
class _Disk:
    size_bytes: int
    sha512: str


class ImageTasks:
    def __init__(
        self, store: Store, files: LayerFiles, keys: Keys, clock: Callable[[], datetime], *, import_dir: str = ""
    ) -> None:
        self._store = store
        self._files = files
        self._storage = files.storage
        self._keys = keys
        self._clock = clock
        self._import_dir = import_dir
        self._turns = threading.Semaphore(AT_ONCE)

    def step_import(self, task_id: str) -> Next:
        return self._beside(ImportTask, task_id, lambda: self._import(task_id))

    def step_export(self, task_id: str) -> Next:
        return self._beside(ExportTask, task_id, lambda: self._export(task_id))

    def _beside(self, kind: type[ImportTask | ExportTask], task_id: str, work: Callable[[], None]) -> Next:
        try:
            if not self._files.in_background(task_id, work, self._turns):
                return Again(LOOK_EACH_S)
        except InUse:
            return Again(LOOK_EACH_S)
        with self._store.write() as tx:
            task = tx.get(kind, task_id)
            if task is None or task.ended_at is None:
                return Done()
            return forget_after(tx, task, KEPT, task.ended_at, self._clock())

    # --- imports ---

    def _import(self, task_id: str) -> None:
        task = self._store.get(ImportTask, task_id)
        if task is None or task.state == "deleted":
            return
        if task.state == "active":
            with self._until_it_ends(task):
                self._finish_import(task_id, self._read(task))
        self._clear_import(task_id)

    def _read(self, task: ImportTask) -> _Disk:
        """The file becomes the task's layer."""
        say = _Progress(self._store, task)
        known = self._storage.observe_layer(task.layer_id)
        if known is not None:  # from before the process was ended, perhaps before it was sealed
            self._storage.seal_layer(task.layer_id)
            return _Disk(known.size_bytes, "")
        secret = self._secret(task)
        layer_id = task.plain_layer_id if secret else task.layer_id
        share = 60 if secret else 85
        known = self._storage.observe_layer(layer_id)
        if known is None:
            self._fetch(task, say)
            say.phase("converting", 10, share)
            built = self._storage.import_image(
                task.upload_id,
                task.file_format,
                layer_id,
                lambda line: log.info("import %s: %s", task.id, line),
                say.done,
            )
            disk = _Disk(built.size_bytes, built.sha512)
        else:
            disk = _Disk(known.size_bytes, "")
        if secret:
            say.phase("encrypting", 70, 25)
            self._storage.copy_layer(
                task.layer_id,
                (LayerFile(layer_id),),
                size_bytes=disk.size_bytes,
                secret=secret,
                progress=say.done,
            )
            self._storage.seal_layer(task.layer_id)
            disk = replace(disk, sha512="")  # that was the plain file's
        say.phase("preparing", 97, 0)
        return disk

    def _secret(self, task: ImportTask) -> bytes:
        if not task.key_id:
            return b""
        key = self._store.get(Key, task.key_id)
        if key is None:
            raise HostError(f"its key {task.key_id} is gone", retryable=False)
        try:
            return self._keys.unwrap(key, task.data_key)
        except KeyUnavailable as error:
            raise HostError(str(error), retryable=False) from error

    def _fetch(self, task: ImportTask, say: _Progress) -> None:
        """A file of the host's becomes an upload, which nobody can change any more."""
        try:
            source = read_source(task.url, self._import_dir)
        except EC2Error as error:  # the configuration has changed since
            raise HostError(error.message, retryable=False) from error
        if source.upload_id:
            return
        say.phase("copying the file", 0, 10)
        with _open_below(self._import_dir, source.parts) as file:
            size_bytes = os.fstat(file).st_size
            if size_bytes > self._storage.free_bytes():
                raise CapacityError(f"there is no room on the disk for a copy of the file, of {size_bytes} bytes")
            self._storage.receive_upload(task.upload_id, _chunks(file, size_bytes, say.done), size_bytes)

    def _finish_import(self, task_id: str, disk: _Disk) -> None:
        with self._store.write() as tx:
            task = tx.get(ImportTask, task_id)
            if task is None or task.state != "active":
                raise _Cancelled
            owned = {"account": task.account, "region": task.region, "created": self._clock()}
            size_gib = -(-disk.size_bytes // GIB)
            tx.put(
                Layer(
                    id=task.layer_id,
                    size_bytes=disk.size_bytes,
                    sha512=disk.sha512,
                    key_id=task.key_id,
                    data_key=task.data_key,
                    **owned,  # type: ignore[arg-type]
                )
            )
            snapshot = tx.put(
                Snapshot(
                    id=ids.mint("snap"),
                    layer_id=task.layer_id,
                    size_gib=size_gib,
                    completed_at=self._clock(),
                    description=task.disk_description or task.description or f"imported by {task.id}",
                    key_id=task.key_id,
                    **owned,  # type: ignore[arg-type]
                )
            )
            image_id = self._register(tx, task, snapshot) if task.what == "image" else ""
            tx.put(
                replace(
                    task,
                    state="completed",
                    phase="",
                    progress_percent=100,
                    size_bytes=disk.size_bytes,
                    snapshot_id=snapshot.id,
                    image_id=image_id,
                    ended_at=self._clock(),
                )
            )

    def _register(self, tx: Transaction, task: ImportTask, snapshot: Snapshot) -> str:
        """EC2 too names the image after the task."""
        device = task.device or ROOT_DEVICE
        root = BlockDevice(
            device=device,
            snapshot_id=snapshot.id,
            size_gib=snapshot.size_gib,
            encrypted=snapshot.encrypted,
        )
        image = Image(
            id=ids.mint("ami"),
            account=task.account,
            region=task.region,
            created=self._clock(),
            name=task.id,
            description=task.description,
            architecture=task.architecture,
            root_device=device,
            block_devices=(root,),
            boot_mode=task.boot_mode,
            platform_details="Windows" if task.platform == "Windows" else "Linux/UNIX",
        )
        return tx.put(image).id

    def _clear_import(self, task_id: str) -> None:
        """Remove what a task that has ended needs no more: all, or all but the layer."""
        task = self._store.get(ImportTask, task_id)
        if task is None or task.state == "active":
            return
        self._storage.remove_layer(task.plain_layer_id)
        self._storage.remove_upload(task.upload_id)
        if task.state == "deleting":
            self._storage.remove_layer(task.layer_id)
            self._change(task, state="deleted", ended_at=self._clock())

    # --- exports ---

    def _export(self, task_id: str) -> None:
        task = self._store.get(ExportTask, task_id)
        if task is None or task.state == "deleted":
            return
        if task.state == "active":
            with self._until_it_ends(task):
                self._write(task)
        ended = self._store.get(ExportTask, task_id)
        if ended is not None and ended.state == "deleting":
            self._storage.remove_export(_export_name(task))
            self._change(ended, state="deleted", ended_at=self._clock())
        with self._store.write() as tx:
            layer = tx.get(Layer, task.layer_id)
            if layer is not None:
                tx.wake(layer)  # perhaps the task was all that needed it

    def _write(self, task: ExportTask) -> None:
        """The layer becomes a file."""
        say = _Progress(self._store, task)
        say.phase("converting", 0, 99)
        with self._files.claim(read=[layer.id for layer in layers_below(self._store, task.layer_id)]):
            files = self._files.chain(task.layer_id)
            if not files:
                raise HostError(f"the layer of {task.image_id} is gone", retryable=False)
            exported = self._storage.export_layer(files, task.file_format, _export_name(task), say.done)
        with self._store.write() as tx:
            now = tx.get(ExportTask, task.id)
            if now is None or now.state != "active":
                raise _Cancelled
            message = f"{exported.path}, {exported.size_bytes} bytes, SHA-256 {exported.sha256}"
            ended = replace(now, state="completed", phase="", progress_percent=100, message=message)
            tx.put(replace(ended, file=exported.path, ended_at=self._clock()))

    # --- both ---

    @contextmanager
    def _until_it_ends(self, task: ImportTask | ExportTask) -> Iterator[None]:
        """A task that cannot go on is to be removed, and says why."""
        try:
            yield
        except _Cancelled:
            log.info("%s was cancelled", task.id)
        except InUse:
            raise  # it is only to wait for its turn
        except HostError as error:
            log.warning("%s failed: %s", task.id, error)
            self._change(task, state="deleting", message=f"ClientError: {error}"[:2000])

    def _change(self, task: ImportTask | ExportTask, **changes: object) -> None:
        with self._store.write() as tx:
            now = tx.get(type(task), task.id)
            if now is not None and (now.state == "active" or changes.get("state") == "deleted"):
                tx.put(replace(now, **changes))  # type: ignore[arg-type]


def _export_name(task: ExportTask) -> str:
    """As S3 would name the object that EC2 makes, below its bucket."""
    return f"{task.bucket}/{task.prefix}{task.id}.{task.file_format}"


class _Progress:
    """Writes down how far a task is, at most once for each per cent. Raises _Cancelled when it need go no further."""

    def __init__(self, store: Store, task: ImportTask | ExportTask) -> None:
        self._store = store
        self._task = task
        self._begin = 0.0
        self._share = 0.0
        self._phase = ""
        self._written: tuple[str, int] = ("", -1)

    def phase(self, name: str, begin_percent: int, share_percent: int) -> None:
        """What comes now is done from one per cent on, and takes so many."""
        self._phase, self._begin, self._share = name, begin_percent, share_percent
        self.done(0.0)

    def done(self, fraction: float) -> None:
        """Of the phase, 0 to 1."""
        percent = int(self._begin + self._share * min(1.0, max(0.0, fraction)))
        if (self._phase, percent) == self._written:
            return
        with self._store.write() as tx:
            task = tx.get(type(self._task), self._task.id)
            if task is None or task.state != "active":
                raise _Cancelled
            tx.put(replace(task, phase=self._phase, progress_percent=percent))
        self._written = (self._phase, percent)


@contextmanager
def _open_below(directory: str, parts: tuple[str, ...]) -> Iterator[int]:
    """A plain file, by a path from `directory` on that has no link in it. Raises HostError."""
    place = Path(directory, *parts)
    with ExitStack() as stack:
        try:
            above = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, above)
            for part in parts[:-1]:
                above = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
                stack.callback(os.close, above)
            # A pipe would be waited for, and a device do as it likes.
            file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
            stack.callback(os.close, file)
        except OSError as error:
            raise HostError(f"{place} cannot be read: {error.strerror}", retryable=False) from error
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise HostError(f"{place} cannot be read: it is no plain file", retryable=False)
        yield file


def _chunks(file: int, size_bytes: int, done: Callable[[float], None]) -> Iterator[bytes]:
    read = 0
    while chunk := os.read(file, CHUNK_BYTES):
        yield chunk
        read += len(chunk)
        done(read / max(size_bytes, 1))

"""Imports and exports, to their end and cut off on the way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from orchestrator.host import CapacityError, HostError, Storage
from orchestrator.host.memory_storage import MemoryStorage
from orchestrator.host.qcow2 import QcowStorage
from orchestrator.keys import KeyRing
from orchestrator.model.image import BlockDevice, ExportTask, Image, ImportTask
from orchestrator.model.kms import Key
from orchestrator.model.layer import Layer
from orchestrator.model.snapshot import Snapshot
from orchestrator.reconcile.image_task import LOOK_EACH_S, ImageTasks
from orchestrator.reconcile.layer import LayerFiles
from orchestrator.reconcile.loop import Again, Done
from orchestrator.store import Store
from tests.conftest import Clock

ACCOUNT = "1" * 12
UPLOAD = "upload-0" + "1" * 16
LAYER = "layer-0" + "2" * 16
PLAIN = LAYER + "-plain"
IMPORT = "import-ami-0" + "3" * 16
EXPORT = "export-ami-0" + "4" * 16
MIB = 1 << 20


@dataclass
class World:
    store: Store
    storage: Storage
    clock: Clock
    import_dir: Path
    keys: KeyRing = field(default_factory=lambda: KeyRing(bytes(32)))

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """As when the controller ends and starts."""
        files = LayerFiles(self.store, self.storage, self.keys)
        self.tasks = ImageTasks(self.store, files, self.keys, self.clock, import_dir=str(self.import_dir))

    def owned(self) -> dict[str, Any]:
        return {"account": ACCOUNT, "region": "us-east-1", "created": self.clock()}

    def put(self, *rows: Any) -> None:
        with self.store.write() as tx:
            tx.put_all(rows)

    def upload(self, data: bytes = b"x" * 1000) -> None:
        self.storage.receive_upload(UPLOAD, iter([data]), 1 << 30)

    def begin(self, **fields: Any) -> ImportTask:
        known = {
            "id": IMPORT,
            "what": "image",
            "url": f"upload://{UPLOAD}",
            "upload_id": UPLOAD,
            "file_format": "raw",
            "layer_id": LAYER,
        }
        task = ImportTask(**{**self.owned(), **known, **fields})
        self.put(task)
        return task

    def encrypted(self) -> dict[str, str]:
        """A key, and what a task has of it."""
        key = Key(id="key-1", material=self.keys.new_material(), **self.owned())
        self.put(key)
        return {"key_id": key.id, "data_key": self.keys.new_data_key(key)}

    def run(self, task_id: str = IMPORT) -> Any:
        """Until the task has ended; its row."""
        kind = ExportTask if task_id == EXPORT else ImportTask
        step = self.tasks.step_export if task_id == EXPORT else self.tasks.step_import
        for _ in range(100):
            if step(task_id) != Again(LOOK_EACH_S):
                return self.store.get(kind, task_id)
        raise AssertionError(f"{task_id} does not end: {self.store.get(kind, task_id)}")

    def find(self, kind: Any, row_id: str) -> Any:
        found = self.store.get(kind, row_id)
        assert found is not None
        return found

    def assert_nothing_is_left(self) -> None:
        assert self.storage.layers() == []
        assert self.store.all(Layer) == []
        assert self.store.all(Snapshot) == []
        assert self.store.all(Image) == []


@pytest.fixture
def world(tmp_path: Path, clock: Clock) -> Iterator[World]:
    (tmp_path / "import").mkdir()
    with_store = Store(tmp_path / "state.db", durable=False)
    yield World(with_store, MemoryStorage(), clock, tmp_path / "import")
    with_store.close()


def memory(world: World) -> MemoryStorage:
    assert isinstance(world.storage, MemoryStorage)
    return world.storage


def failing(method: str, error: Exception) -> Callable[[str, str], None]:
    def fault(called: str, name: str) -> None:
        if called == method:
            raise error

    return fault


# --- imports ---------------------------------------------------------------------------------------------------------


def test_a_file_becomes_an_image_of_the_account_and_region(world: World) -> None:
    world.upload(b"x" * (3 * MIB))
    world.begin(description="my machine", boot_mode="uefi", device="/dev/sda1", architecture="arm64")
    task = world.run()
    assert (task.state, task.progress_percent, task.size_bytes) == ("completed", 100, 3 * MIB)
    image = world.find(Image, task.image_id)
    assert (image.name, image.state, image.public, image.region) == (IMPORT, "available", False, "us-east-1")
    assert (image.description, image.boot_mode, image.architecture) == ("my machine", "uefi", "arm64")
    assert image.root_device == "/dev/sda1"
    assert image.block_devices == (BlockDevice(device="/dev/sda1", snapshot_id=task.snapshot_id, size_gib=1),)
    snapshot = world.find(Snapshot, task.snapshot_id)
    assert (snapshot.state, snapshot.size_gib, snapshot.layer_id) == ("completed", 1, LAYER)
    layer = world.find(Layer, LAYER)
    assert layer.size_bytes == 3 * MIB
    assert layer.sha512
    assert world.storage.layers() == [LAYER]


def test_a_file_becomes_a_snapshot(world: World) -> None:
    world.upload()
    world.begin(id="import-snap-0" + "3" * 16, what="snapshot", disk_description="data")
    task = world.run("import-snap-0" + "3" * 16)
    assert (task.state, task.image_id) == ("completed", "")
    assert world.find(Snapshot, task.snapshot_id).description == "data"
    assert world.store.all(Image) == []


def test_an_encrypted_import_leaves_nothing_plain(world: World) -> None:
    world.upload()
    given = world.encrypted()
    world.begin(**given)
    task = world.run()
    assert task.state == "completed"
    assert world.storage.layers() == [LAYER]
    layer = world.find(Layer, LAYER)
    assert (layer.key_id, layer.data_key) == (given["key_id"], given["data_key"])
    assert layer.sha512 == "", "it was the plain file's"
    assert world.find(Snapshot, task.snapshot_id).encrypted
    [device] = world.find(Image, task.image_id).block_devices
    assert device.encrypted
    assert memory(world).is_sealed(LAYER)


def test_a_key_that_is_gone_fails_the_import(world: World) -> None:
    world.upload()
    given = world.encrypted()
    world.begin(**given)
    world.put(replace(world.find(Key, given["key_id"]), state="Disabled"))
    task = world.run()
    assert task.state == "deleted"
    assert "Disabled" in task.message
    world.assert_nothing_is_left()


@pytest.mark.parametrize("what", ["no upload", "empty", "no room", "no room for the copy"])
def test_a_failed_import_says_why_and_leaves_nothing(world: World, what: str) -> None:
    if what != "no upload":
        world.upload(b"" if what == "empty" else b"x")
    world.begin(**(world.encrypted() if what == "no room for the copy" else {}))
    reason = {"no upload": "there is no upload", "empty": "it is empty"}.get(what, "the disk is full")
    if what.startswith("no room"):
        method = "copy_layer" if what.endswith("copy") else "import_image"
        memory(world).fault = failing(method, CapacityError("the disk is full"))
    task = world.run()
    assert task.state == "deleted"
    assert task.message.startswith("ClientError: ")
    assert reason in task.message
    assert task.ended_at is not None
    world.assert_nothing_is_left()


def test_what_cannot_be_removed_yet_is_removed_later(world: World) -> None:
    world.begin()
    memory(world).fault = failing("remove_layer", HostError("busy"))
    with pytest.raises(HostError):
        world.tasks.step_import(IMPORT)
    assert world.find(ImportTask, IMPORT).state == "deleting"
    memory(world).fault = lambda method, name: None
    assert world.run().state == "deleted"


@pytest.mark.parametrize("place", ["import_image", "copy_layer", "seal_layer"])
def test_an_import_that_is_cancelled_on_its_way_leaves_nothing(world: World, place: str) -> None:
    world.upload()
    world.begin(**world.encrypted())

    def cancel(method: str, name: str) -> None:
        if method == place:
            task = world.find(ImportTask, IMPORT)
            world.put(replace(task, state="deleting", message="cancelled: no longer wanted"))

    memory(world).fault = cancel
    task = world.run()
    assert (task.state, task.message) == ("deleted", "cancelled: no longer wanted")
    world.assert_nothing_is_left()
    with pytest.raises(HostError, match="there is no upload"):
        world.storage.import_image(UPLOAD, "raw", "layer-x", lambda line: None)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("place", ["observe_layer", "import_image", "copy_layer", "seal_layer", "remove_upload"])
def test_an_import_that_is_cut_off_is_finished_by_the_next_process(world: World, place: str, encrypted: bool) -> None:
    world.upload()
    world.begin(**(world.encrypted() if encrypted else {}))
    memory(world).fault = failing(place, Killed())  # type: ignore[arg-type]
    try:
        world.tasks.step_import(IMPORT)
    except Killed:
        world.restart()
    memory(world).fault = lambda method, name: None
    task = world.run()
    assert task.state == "completed", task.message
    assert world.storage.layers() == [LAYER]
    assert len(world.store.all(Snapshot)) == len(world.store.all(Image)) == 1


def test_a_file_of_the_hosts_is_copied_first(world: World) -> None:
    (world.import_dir / "disks").mkdir()
    (world.import_dir / "disks" / "my disk.raw").write_bytes(b"y" * 5000)
    world.begin(url=f"file://{world.import_dir}/disks/my%20disk.raw")
    task = world.run()
    assert (task.state, task.size_bytes) == ("completed", 5120)
    assert (world.import_dir / "disks" / "my disk.raw").read_bytes() == b"y" * 5000


def test_a_file_is_found_by_no_link_and_is_a_file(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"s" * 512)
    (world.import_dir / "link").symlink_to(outside / "secret")
    (world.import_dir / "folder").symlink_to(outside)
    (world.import_dir / "plain").mkdir()
    os.mkfifo(world.import_dir / "pipe")
    for number, name in enumerate(["link", "folder/secret", "plain", "pipe", "none", "plain/none"]):
        world.begin(url=f"file://{world.import_dir}/{name}", id=f"import-ami-{number:017x}")
        task = world.run(f"import-ami-{number:017x}")
        assert task.state == "deleted", name
        assert "cannot be read" in task.message
        world.assert_nothing_is_left()


def test_a_folder_that_is_no_longer_for_imports_is_not_read(world: World) -> None:
    (world.import_dir / "disk").write_bytes(b"y" * 512)
    world.begin(url=f"file://{world.import_dir}/disk")
    world.import_dir = Path("/nowhere")
    world.restart()
    task = world.run()
    assert task.state == "deleted"
    assert "not below /nowhere" in task.message


def test_progress_is_written_for_each_per_cent_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.upload()
    world.begin()
    seen: list[tuple[str, int]] = []

    def convert(*given: Any) -> Any:
        for each in range(2001):
            given[4](each / 2000)
            task = world.find(ImportTask, IMPORT)
            seen.append((task.phase, task.progress_percent))
        return MemoryStorage.import_image(memory(world), *given[:4])

    monkeypatch.setattr(world.storage, "import_image", convert)
    before = world.store._revision
    world.run()
    assert seen == sorted(seen)
    assert seen[0] == ("converting", 10)
    assert seen[-1] == ("converting", 95)
    assert world.store._revision - before < 100


def test_a_task_does_not_hold_up_the_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = Event()

    def convert(*given: Any) -> None:
        go_on.wait(30)
        raise HostError("the image is refused: it is nonsense", retryable=False)

    monkeypatch.setattr(world.storage, "import_image", convert)
    world.begin()
    assert isinstance(world.tasks.step_import(IMPORT), Again)
    go_on.set()
    assert world.run().state == "deleted"


# --- exports ---------------------------------------------------------------------------------------------------------


def export(world: World, **fields: Any) -> None:
    world.storage.create_layer(LAYER, size_bytes=MIB)
    known = {"id": EXPORT, "image_id": "ami-1", "layer_id": LAYER, "file_format": "vmdk", "bucket": "out"}
    world.put(
        Layer(id=LAYER, size_bytes=MIB, **world.owned()),
        ExportTask(**{**world.owned(), **known, "prefix": "vm/", **fields}),
    )


def test_an_image_becomes_a_file_below_its_bucket_and_prefix(world: World) -> None:
    export(world)
    task = world.run(EXPORT)
    assert (task.state, task.progress_percent) == ("completed", 100)
    assert task.file.endswith(f"out/vm/{EXPORT}.vmdk")
    assert task.message.startswith(f"{task.file}, ")
    assert "SHA-256" in task.message


def test_an_ended_task_can_be_seen_for_a_week_and_what_it_made_stays(world: World) -> None:
    world.upload()
    world.begin(layer_id="layer-0" + "5" * 16)
    imported = world.run()
    export(world)
    world.run(EXPORT)
    memory(world).fault = failing("remove_export", HostError("a file that somebody may want"))
    world.clock.pass_(days=7, seconds=-1)
    assert world.tasks.step_import(IMPORT) == Again(1.0) == world.tasks.step_export(EXPORT)
    world.clock.pass_(seconds=1)
    assert world.tasks.step_import(IMPORT) == Done() == world.tasks.step_export(EXPORT)
    assert world.store.all(ImportTask) == [] == world.store.all(ExportTask)
    assert world.store.get(Image, imported.image_id) is not None
    assert world.tasks.step_import(IMPORT) == Done()


def test_a_failed_export_says_why_and_leaves_nothing(world: World) -> None:
    export(world)
    removed: list[str] = []

    def fault(method: str, name: str) -> None:
        if method == "export_layer":
            raise CapacityError("there is no room")
        if method == "remove_export":
            removed.append(name)

    memory(world).fault = fault
    task = world.run(EXPORT)
    assert (task.state, task.file) == ("deleted", "")
    assert "there is no room" in task.message
    assert removed == [f"out/vm/{EXPORT}.vmdk"]


def test_an_export_of_a_layer_that_is_gone_fails(world: World) -> None:
    export(world, layer_id="layer-0" + "9" * 16)
    task = world.run(EXPORT)
    assert task.state == "deleted"
    assert "is gone" in task.message


def test_an_export_that_is_cancelled_on_its_way_leaves_nothing(world: World) -> None:
    export(world)
    removed: list[str] = []

    def fault(method: str, name: str) -> None:
        if method == "export_layer":
            world.put(replace(world.find(ExportTask, EXPORT), state="deleting", message="cancelled"))
        if method == "remove_export":
            removed.append(name)

    memory(world).fault = fault
    task = world.run(EXPORT)
    assert (task.state, task.message, task.file) == ("deleted", "cancelled", "")
    assert removed == [f"out/vm/{EXPORT}.vmdk"]


def test_the_layer_is_looked_at_when_its_export_has_ended(world: World) -> None:
    export(world)
    world.run(EXPORT)
    assert (Layer.KIND, LAYER) in [wake[:2] for wake in world.store.pending_wakes()]


# --- with files ------------------------------------------------------------------------------------------------------


def qemu_img(*arguments: str | Path) -> str:
    command = ["qemu-img", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def files(world: World, tmp_path: Path) -> World:
    world.storage = QcowStorage(tmp_path / "state", tmp_path / "recipes")
    world.restart()
    return world


@pytest.mark.host
@pytest.mark.parametrize("file_format", ["vmdk", "raw", "vhd"])
def test_what_was_imported_is_exported_again_as_it_was(files: World, tmp_path: Path, file_format: str) -> None:
    content = os.urandom(MIB) + bytes(MIB) + os.urandom(MIB)
    (tmp_path / "raw").write_bytes(content)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", tmp_path / "raw", tmp_path / "image")
    files.upload((tmp_path / "image").read_bytes())
    files.begin(file_format="qcow2")
    imported = files.run()
    assert imported.state == "completed", imported.message
    known = {"id": EXPORT, "image_id": imported.image_id, "layer_id": LAYER, "bucket": "out", "prefix": "a/b-"}
    files.put(ExportTask(**{**files.owned(), **known, "file_format": file_format}))
    task = files.run(EXPORT)
    assert task.state == "completed", task.message
    assert Path(task.file) == tmp_path / "state" / "exports" / "out" / "a" / f"b-{EXPORT}.{file_format}"
    opened = {"vmdk": "vmdk", "raw": "raw", "vhd": "vpc"}[file_format]
    qemu_img("convert", "-f", opened, "-O", "raw", task.file, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    files.storage.remove_export(f"out/a/b-{EXPORT}.{file_format}")
    assert list((tmp_path / "state" / "exports").iterdir()) == []


@pytest.mark.host
def test_an_encrypted_import_shows_none_of_its_content_anywhere(files: World, tmp_path: Path) -> None:
    mark = b"a secret that nobody may read from the disk"
    files.upload(mark * (MIB // len(mark)))
    files.begin(**files.encrypted())
    task = files.run()
    assert task.state == "completed", task.message
    assert files.storage.layers() == [LAYER]
    kept = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert [path.name for path in kept] == [f"{LAYER}.qcow2"]
    assert not any(mark in path.read_bytes() for path in kept)


@pytest.mark.host
def test_a_hostile_file_is_refused_by_name(files: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s" * MIB)
    qemu_img("create", "-q", "-f", "qcow2", "-b", tmp_path / "secret", "-F", "raw", tmp_path / "image")
    files.upload((tmp_path / "image").read_bytes())
    files.begin(file_format="qcow2")
    task = files.run()
    assert task.state == "deleted"
    assert "backing file" in task.message
    assert [path for path in (tmp_path / "state").rglob("*") if path.is_file()] == []

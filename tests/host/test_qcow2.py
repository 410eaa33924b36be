"""The qcow2 tree: what `test_contract.py` does not say, since only files can do it."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.host import HostError
from orchestrator.host.imagefile import ImageRefused, read_qcow2
from orchestrator.host.qcow2 import UPLOAD_KEPT_S, QcowStorage
from orchestrator.host.qcow2_header import write_qcow2

GIB = 1 << 30

RECIPE = """
description = "For a test"
root_device = "/dev/sda1"
user = "admin"
boot = "{boot}"
"""


@pytest.fixture
def storage(tmp_path: Path) -> QcowStorage:
    return QcowStorage(tmp_path / "state", tmp_path / "images")


def recipe(tmp_path: Path, script: str, *, boot: str = "disk") -> None:
    """A recipe `made` whose script finds a good disk beside itself."""
    directory = tmp_path / "images" / "made"
    directory.mkdir(parents=True)
    (directory / "recipe.toml").write_text(RECIPE.format(boot=boot))
    (directory / "build").write_text("#!/bin/sh\nset -e\n" + script)
    (directory / "build").chmod(0o755)
    with open(directory / "good.qcow2", "wb") as file:
        write_qcow2(file.fileno(), size_bytes=GIB, backing_file="")


def left_over(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "state" / "making").iterdir()]


@pytest.mark.parametrize(
    "name", ["", "../etc/passwd", "/etc/passwd", "a/b", ".hidden", "Layer", "-f", "a" * 64, "a\0b"]
)
def test_a_name_that_is_none_of_ours_is_refused(storage: QcowStorage, name: str) -> None:
    for call in (
        lambda: storage.create_layer(name, size_bytes=GIB),
        lambda: storage.remove_layer(name),
        lambda: storage.observe_layer(name),
        lambda: storage.seal_layer(name),
        lambda: storage.remove_kernel(name),
        lambda: storage.remove_upload(name),
        lambda: storage.receive_upload(name, iter([b"x"]), 10),
        lambda: storage.import_image(name, "raw", "layer-1", lambda line: None),
    ):
        with pytest.raises(HostError):
            call()


def test_a_parent_is_sealed_and_named_without_a_path(storage: QcowStorage) -> None:
    storage.create_layer("layer-1", size_bytes=GIB)
    assert stat.S_IMODE(storage.layer_path("layer-1").stat().st_mode) == 0o600
    storage.create_layer("layer-2", size_bytes=GIB, parent="layer-1")
    assert stat.S_IMODE(storage.layer_path("layer-1").stat().st_mode) == 0o440
    header = read_qcow2(storage.layer_path("layer-2"))
    assert (header.backing_file, header.backing_format) == ("layer-1.qcow2", "qcow2")


def test_a_file_that_is_no_layer_is_said_so(storage: QcowStorage) -> None:
    storage.layer_path("layer-1").write_bytes(b"x" * 65536)
    with pytest.raises(ImageRefused):
        storage.observe_layer("layer-1")
    storage.remove_layer("layer-1")
    assert storage.observe_layer("layer-1") is None


def test_what_was_being_made_in_a_crash_has_no_name_and_is_gone_at_the_next_start(
    storage: QcowStorage, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    (state / "exports" / "below").mkdir()
    (state / "making" / "build-layer-1" / "output").mkdir(parents=True)
    halves = [state / "layers" / ".layer-1.qcow2.123-456", state / "uploads" / ".upload-1.123-456"]
    halves.append(state / "exports" / "below" / ".disk.raw.123-456")
    for half in halves:
        half.write_bytes(b"half")
    assert storage.layers() == []
    assert storage.observe_layer("layer-1") is None
    with open(halves[0], "rb") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)  # its maker lives
        QcowStorage(state, tmp_path / "images")
        assert [half.exists() for half in halves] == [True, False, False]
    QcowStorage(state, tmp_path / "images")
    assert not halves[0].exists()
    assert left_over(tmp_path) == []


def test_a_folder_that_a_living_process_makes_an_image_in_stays(storage: QcowStorage, tmp_path: Path) -> None:
    recipe(tmp_path, 'cp good.qcow2 "$1/disk.qcow2"; echo here')

    def progress(line: str) -> None:
        QcowStorage(tmp_path / "state", tmp_path / "images")

    storage.build_image("made", "layer-1", progress)
    assert storage.layers() == ["layer-1"]


def test_an_upload_that_nobody_imports_can_go(storage: QcowStorage, tmp_path: Path) -> None:
    storage.receive_upload("upload-1", iter([b"x"]), 1000)
    storage.remove_upload("upload-1")
    storage.remove_upload("upload-1")
    assert list((tmp_path / "state" / "uploads").iterdir()) == []


def test_an_upload_that_nobody_imports_goes_when_others_come(storage: QcowStorage, tmp_path: Path) -> None:
    place = tmp_path / "state" / "uploads"
    for name, age_s in (("upload-1", UPLOAD_KEPT_S + 60), ("upload-2", UPLOAD_KEPT_S - 600)):
        storage.receive_upload(name, iter([b"x"]), 1000)
        sent = time.time() - age_s
        os.utime(place / name, (sent, sent))
    storage.receive_upload("upload-3", iter([b"x"]), 1000)
    assert sorted(path.name for path in place.iterdir()) == ["upload-2", "upload-3"]


def test_an_upload_that_breaks_off_leaves_nothing(storage: QcowStorage, tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise ConnectionResetError

    with pytest.raises(HostError):
        storage.receive_upload("upload-1", chunks(), 1000)
    assert list((tmp_path / "state" / "uploads").iterdir()) == []


def test_a_refused_upload_is_dropped(storage: QcowStorage, tmp_path: Path) -> None:
    storage.receive_upload("upload-1", iter([b"not a qcow2 image"]), 1000)
    with pytest.raises(ImageRefused):
        storage.import_image("upload-1", "qcow2", "layer-1", lambda line: None)
    assert list((tmp_path / "state" / "uploads").iterdir()) == []
    assert storage.layers() == []


# --- recipes -------------------------------------------------------------------------------------------------------


def test_a_recipe_is_not_told_what_the_controller_was(
    storage: QcowStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORC_STORE_URL", "postgresql://orc:planted@db/orc")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    monkeypatch.setenv("ORC_DEBIAN_MIRROR", "http://mirror.test/debian")
    recipe(tmp_path, 'env; cp good.qcow2 "$1/disk.qcow2"')
    lines: list[str] = []
    storage.build_image("made", "layer-1", lines.append)
    assert "ORC_DEBIAN_MIRROR=http://mirror.test/debian" in lines
    assert not any("planted" in line for line in lines)


def test_a_recipes_lines_kernel_and_words_come_through(storage: QcowStorage, tmp_path: Path) -> None:
    recipe(
        tmp_path,
        'echo one; echo; echo two >&2; cp good.qcow2 "$1/disk.qcow2"; echo k >"$1/kernel"; echo i >"$1/initrd";'
        ' echo "console=ttyS0 quiet" >"$1/cmdline"',
        boot="kernel",
    )
    lines: list[str] = []
    built = storage.build_image("made", "layer-1", lines.append)
    assert lines[:2] == ["one", "two"]
    assert (built.kernel_arguments, built.root_device, built.login_user, built.description, built.size_bytes) == (
        "console=ttyS0 quiet",
        "/dev/sda1",
        "admin",
        "For a test",
        GIB,
    )
    files = storage.kernel_files("layer-1")
    assert files.kernel.read_text() == "k\n"
    assert files.initrd is not None
    assert files.initrd.read_text() == "i\n"
    assert stat.S_IMODE(storage.layer_path("layer-1").stat().st_mode) == 0o440
    assert left_over(tmp_path) == []

    (tmp_path / "images" / "made" / "build").write_text("#!/bin/sh\nexit 1\n")
    assert storage.build_image("made", "layer-1", lines.append) == built  # it is there: nothing is run

    storage.remove_kernel("layer-1")
    storage.remove_kernel("layer-1")
    with pytest.raises(HostError, match="no kernel"):
        storage.kernel_files("layer-1")


@pytest.mark.parametrize(
    ("script", "boot", "reason"),
    [
        ("echo it is hopeless; exit 3", "disk", "status 3.*hopeless"),
        ("kill -9 $$", "disk", "status (-9|137)"),
        ("exit 0", "disk", "left no disk"),
        ("echo nonsense >$1/disk.qcow2", "disk", "refused"),
        ("cp good.qcow2 $1/disk.qcow2", "kernel", "left no kernel"),
        ("cp good.qcow2 $1/disk.qcow2; echo k >$1/kernel", "kernel", "left no cmdline"),
    ],
)
def test_a_recipe_that_fails_leaves_nothing(
    storage: QcowStorage, tmp_path: Path, script: str, boot: str, reason: str
) -> None:
    recipe(tmp_path, script, boot=boot)
    with pytest.raises(HostError, match=reason):
        storage.build_image("made", "layer-1", lambda line: None)
    assert storage.layers() == []
    assert left_over(tmp_path) == []


@pytest.mark.host
def test_a_recipe_begins_anew_over_what_a_crash_left_mounted(storage: QcowStorage, tmp_path: Path) -> None:
    mounts = tmp_path / "state" / "making" / "build-layer-1" / "root with space" / "proc"
    mounts.mkdir(parents=True)
    run("mount", "-t", "proc", "-o", "ro", "proc", mounts)
    recipe(tmp_path, 'mkdir proc; mount -t proc proc proc; cp good.qcow2 "$1/disk.qcow2"')
    storage.build_image("made", "layer-1", lambda line: None)
    assert storage.layers() == ["layer-1"]
    assert left_over(tmp_path) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("end", ["fails", "succeeds", "is interrupted", "takes too long"])
def test_nothing_of_a_recipe_runs_on(tmp_path: Path, end: str) -> None:
    """Its child holds a lock on a file; the kernel drops the lock when the child is gone."""
    storage = QcowStorage(tmp_path / "state", tmp_path / "images", build_timeout_s=3 if end == "takes too long" else 60)
    lock = tmp_path / "lock"
    finish = {"fails": "exit 1", "succeeds": 'cp good.qcow2 "$1/disk.qcow2"'}.get(end, "sleep 1000")
    recipe(
        tmp_path,
        f'flock "{lock}" sh -c "echo locked; sleep 1000" &\nuntil [ -s "{lock}.on" ]; do sleep 0.01; done\n{finish}\n',
    )

    def progress(line: str) -> None:
        if line == "locked":
            Path(f"{lock}.on").write_text("on")
            if end == "is interrupted":
                raise KeyboardInterrupt

    if end == "succeeds":
        storage.build_image("made", "layer-1", progress)
    else:
        with pytest.raises(KeyboardInterrupt if end == "is interrupted" else HostError):
            storage.build_image("made", "layer-1", progress)
    assert subprocess.run(["flock", "--timeout", "5", lock, "true"], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [("description = 1", "description"), ("nonsense", "cannot be read"), (RECIPE.format(boot="floppy"), "floppy")],
)
def test_a_recipe_that_says_nonsense_is_refused(storage: QcowStorage, tmp_path: Path, text: str, reason: str) -> None:
    recipe(tmp_path, "exit 0")
    (tmp_path / "images" / "made" / "recipe.toml").write_text(text)
    with pytest.raises(HostError, match=reason):
        storage.build_image("made", "layer-1", lambda line: None)


def test_only_what_can_be_built_is_a_recipe(storage: QcowStorage, tmp_path: Path) -> None:
    assert storage.recipes() == []
    recipe(tmp_path, "exit 0")
    (tmp_path / "images" / "notes").mkdir()
    (tmp_path / "images" / "README.md").write_text("words")
    assert storage.recipes() == ["made"]


# --- with qemu-img -------------------------------------------------------------------------------------------------


@pytest.fixture
def tree() -> Iterator[QcowStorage]:
    directory = Path(tempfile.mkdtemp(prefix="orc-"))
    directory.chmod(0o711)  # QEMU's user passes through
    yield QcowStorage(directory / "state", directory / "images", owner=(65534, 65534))
    shutil.rmtree(directory)


@pytest.mark.host
@pytest.mark.parametrize("size", [512, 1 << 16, GIB - 512, GIB, 10 * GIB, 16 << 40])
@pytest.mark.parametrize("parent", ["", "layer-0"])
def test_qemu_img_finds_nothing_wrong_with_what_is_written_here(tree: QcowStorage, size: int, parent: str) -> None:
    if parent:
        tree.create_layer(parent, size_bytes=512)
    tree.create_layer("layer-1", size_bytes=size, parent=parent)
    path = tree.layer_path("layer-1")
    run("qemu-img", "check", "-q", "-f", "qcow2", path)
    run("qemu-io", "-f", "qcow2", "-c", f"write -P 7 {size - 512} 512", "-c", f"read -P 7 {size - 512} 512", path)
    run("qemu-img", "check", "-q", "-f", "qcow2", path)
    status = tree.observe_layer("layer-1")
    assert status is not None
    assert (status.size_bytes, status.parent) == (size, parent)
    assert 0 < status.own_bytes < 4 << 20


@pytest.mark.host
def test_a_child_shows_its_parent_until_it_is_written_to(tree: QcowStorage) -> None:
    tree.create_layer("layer-1", size_bytes=GIB)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", tree.layer_path("layer-1"))
    tree.create_layer("layer-2", size_bytes=2 * GIB, parent="layer-1")
    child = tree.layer_path("layer-2")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 64k 64k", child)
    run("qemu-io", "-f", "qcow2", "-c", "read -P 1 0 64k", "-c", "read -P 2 64k 64k", "-c", "read -P 0 1G 1M", child)
    tree.create_layer("layer-2", size_bytes=3 * GIB, parent="layer-1")
    run("qemu-io", "-f", "qcow2", "-c", "read -P 2 64k 64k", "-c", "read -P 0 2G 1M", child)


@pytest.mark.host
def test_layers_are_qemus_to_write_until_they_are_sealed(tree: QcowStorage) -> None:
    tree.create_layer("layer-1", size_bytes=GIB)
    status = tree.layer_path("layer-1").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 65534, 0o600)
    tree.create_layer("layer-2", size_bytes=GIB, parent="layer-1")
    status = tree.layer_path("layer-1").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 65534, 0o440)


@pytest.mark.host
def test_an_import_is_done_once_however_often_it_is_asked_for(tree: QcowStorage) -> None:
    tree.receive_upload("upload-1", iter([os.urandom(1 << 20)]), 1 << 20)
    built = tree.import_image("upload-1", "raw", "layer-1", lambda line: None)
    assert tree.import_image("upload-1", "raw", "layer-1", lambda line: None) == built
    assert stat.S_IMODE(tree.layer_path("layer-1").stat().st_mode) == 0o440


@pytest.mark.host
def test_many_layers_are_made_at_once(tree: QcowStorage) -> None:
    tree.create_layer("layer-base", size_bytes=GIB)
    makers = [
        threading.Thread(
            target=tree.create_layer, args=(f"layer-{n}",), kwargs={"size_bytes": GIB, "parent": "layer-base"}
        )
        for n in range(16)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(tree.layers()) == 17


def run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verification failed" not in done.stdout

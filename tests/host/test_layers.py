"""What is done to layers as files: encryption, copies, merges, checks, exports; mixed in `test_layers_property.py`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from orchestrator.host import CapacityError, HostError, LayerFile
from orchestrator.host.imagefile import inspect
from orchestrator.host.luks import LUKS_BYTES, make_luks
from orchestrator.host.qcow2 import QcowStorage
from orchestrator.host.qcow2_header import read_header
from tests.host.layer_io import run_io

MIB = 1 << 20
GIB = 1 << 30
OWNER = (65534, 65534)
KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
PATTERN = b"not for every eye"

pytestmark = pytest.mark.host


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="orc-"))
    directory.chmod(0o711)  # QEMU's user passes through
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def storage(place: Path) -> QcowStorage:
    return QcowStorage(place / "state", place / "images", owner=OWNER)


def plain(*names: str) -> list[LayerFile]:
    return [LayerFile(name) for name in names]


def encrypted(*names: str) -> list[LayerFile]:
    return [LayerFile(name, KEY) for name in names]


def chain_of(storage: QcowStorage, sizes: Sequence[int], secret: bytes = b"") -> list[LayerFile]:
    """layer-0, layer-1 on it, ..., each of which has written its number to a MiB of its own and to the first one."""
    chain: list[LayerFile] = []
    for number, size_mib in enumerate(sizes):
        parent = chain[0].layer if chain else ""
        storage.create_layer(f"layer-{number}", size_bytes=size_mib * MIB, parent=parent, secret=secret)
        chain.insert(0, LayerFile(f"layer-{number}", secret))
        run_io(storage, chain, f"write -P {number + 1} {number}M 1M", f"write -P {number + 1} 0 64k")
    return chain


def reads(sizes: Sequence[int]) -> list[str]:
    """What the top of `chain_of` shows."""
    whole = [f"read -P {number + 1} {number}M 1M" for number in range(1, len(sizes))]
    return [f"read -P {len(sizes)} 0 64k", "read -P 1 64k 960k", *whole]


def own_bytes(storage: QcowStorage, layer: str) -> int:
    status = storage.observe_layer(layer)
    assert status is not None
    return status.own_bytes


def mode(storage: QcowStorage, layer: str) -> tuple[int, int]:
    status = storage.layer_path(layer).stat()
    return status.st_uid, stat.S_IMODE(status.st_mode)


# --- encryption ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [512, GIB, 10 * GIB, 16 << 40])
@pytest.mark.parametrize("parent", ["", "layer-0"])
def test_an_encrypted_layer_is_as_large_as_asked_and_whole(storage: QcowStorage, size_bytes: int, parent: str) -> None:
    below = encrypted(parent) if parent else []
    if parent:
        storage.create_layer(parent, size_bytes=512, secret=KEY)
    storage.create_layer("layer-1", size_bytes=size_bytes, parent=parent, secret=KEY)
    chain = [*encrypted("layer-1"), *below]
    last = size_bytes - 512
    run_io(storage, chain, f"write -P 7 {last} 512", f"read -P 7 {last} 512")
    status = storage.observe_layer("layer-1")
    assert status is not None
    assert (status.size_bytes, status.parent) == (size_bytes, parent)
    assert 0 < status.own_bytes < 4 * MIB
    assert storage.verify_layer(chain) == []


def test_qemu_finds_the_encryption_that_it_would_choose_itself(storage: QcowStorage) -> None:
    storage.create_layer("layer-1", size_bytes=GIB, secret=KEY)
    done = subprocess.run(
        ["qemu-img", "info", "--output=json", str(storage.layer_path("layer-1"))],
        capture_output=True,
        check=True,
    )
    about = json.loads(done.stdout)
    encryption = about["format-specific"]["data"]["encrypt"]
    assert about["virtual-size"] == GIB
    assert (encryption["format"], encryption["cipher-alg"], encryption["cipher-mode"], encryption["hash-alg"]) == (
        "luks",
        "aes-256",
        "xts",
        "sha256",
    )
    assert [slot["active"] for slot in encryption["slots"]] == [True] + [False] * 7


def test_what_is_written_to_an_encrypted_layer_is_nowhere_in_its_file(storage: QcowStorage, place: Path) -> None:
    pattern = place / "pattern"
    pattern.write_bytes(PATTERN * 16)
    pattern.chmod(0o644)
    for layer in (LayerFile("layer-plain"), LayerFile("layer-secret", KEY)):
        storage.create_layer(layer.layer, size_bytes=8 * MIB, secret=layer.secret)
        run_io(storage, [layer], f"write -s {pattern} 0 1M", f"write -s {pattern} 5M 4k")
    # and in no copy, merge or child of it
    storage.copy_layer("layer-copy", plain("layer-plain"), size_bytes=MIB, secret=KEY)
    storage.create_layer("layer-child", size_bytes=MIB, parent="layer-secret", secret=KEY)
    storage.merge_layer(encrypted("layer-child", "layer-secret"), "")
    assert PATTERN in storage.layer_path("layer-plain").read_bytes()
    for name in ("layer-secret", "layer-copy", "layer-child"):
        data = storage.layer_path(name).read_bytes()
        assert len(data) > MIB
        assert PATTERN not in data
        assert KEY not in data
        assert KEY.hex().encode() not in data


def test_two_layers_with_one_secret_have_volume_keys_of_their_own(storage: QcowStorage) -> None:
    files = []
    for name in ("layer-1", "layer-2"):
        storage.create_layer(name, size_bytes=8 * MIB, secret=KEY)
        run_io(storage, encrypted(name), "write -P 5 0 64k")
        files.append(storage.layer_path(name).read_bytes())
    assert len(files[0]) == len(files[1])
    assert files[0][-65536:] != files[1][-65536:]


def test_another_secret_opens_nothing(storage: QcowStorage) -> None:
    storage.create_layer("layer-1", size_bytes=8 * MIB, secret=KEY)
    wrong = [LayerFile("layer-1", OTHER_KEY)]
    with pytest.raises(HostError, match="nvalid password"):
        storage.copy_layer("layer-2", wrong, size_bytes=8 * MIB)
    with pytest.raises(HostError, match="nvalid password"):
        storage.create_layer("layer-1", size_bytes=16 * MIB, secret=OTHER_KEY)
    with pytest.raises(HostError, match="no secret"):
        storage.copy_layer("layer-2", plain("layer-1"), size_bytes=8 * MIB)
    with pytest.raises(HostError, match="nvalid password"):
        storage.export_layer(wrong, "raw", "disk.raw")
    (line,) = storage.verify_layer(wrong)
    assert "nvalid password" in line
    assert storage.verify_layer(plain("layer-1")) == ["layer-1: it is encrypted"]
    assert storage.layers() == ["layer-1"]
    with contextlib.suppress(FileNotFoundError):
        assert list((storage.layer_path("layer-1").parent.parent / "exports").iterdir()) == []


def test_a_header_says_nothing_of_its_key() -> None:
    headers = [make_luks(KEY.hex()) for _ in range(2)]
    assert headers[0] != headers[1]
    for header in headers:
        assert len(header) <= LUKS_BYTES
        assert KEY not in header
        assert KEY.hex().encode() not in header


def test_an_encrypted_layer_grows(storage: QcowStorage) -> None:
    storage.create_layer("layer-0", size_bytes=4 * MIB, secret=OTHER_KEY)
    chain = [LayerFile("layer-1", KEY), LayerFile("layer-0", OTHER_KEY)]
    storage.create_layer("layer-1", size_bytes=4 * MIB, parent="layer-0", secret=KEY)
    run_io(storage, chain, "write -P 1 0 1M")
    for size_mib in (8, 8, 2):
        storage.create_layer("layer-1", size_bytes=size_mib * MIB, parent="layer-0", secret=KEY)
        run_io(storage, chain, "read -P 1 0 1M", "read -P 0 4M 4M")
    with pytest.raises(HostError, match="sealed"):
        storage.create_layer("layer-0", size_bytes=8 * MIB, secret=OTHER_KEY)


def test_a_secret_is_in_no_command_line_or_environment(storage: QcowStorage) -> None:
    """All processes are looked at, as fast as that goes, while every kind of tool runs on encrypted layers."""
    secret = os.urandom(32)
    needles = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    seen: set[bytes] = set()
    found: list[bytes] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    command = (process / "cmdline").read_bytes()
                    if b"qemu-" not in command or str(storage.layer_path("x").parent).encode() not in command:
                        continue
                    seen.update(re.findall(rb"qemu-img\0[a-z]+|qemu-storage-daemon", command))
                    text = command + (process / "environ").read_bytes()
                    found.extend(text for needle in needles if needle in text)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        wanted = {b"qemu-img\0convert", b"qemu-img\0resize", b"qemu-img\0check", b"qemu-storage-daemon"}
        for attempt in range(50):
            if seen >= wanted:
                break
            names = [f"layer-{attempt}-{part}" for part in ("base", "top", "copy")]
            storage.create_layer(names[0], size_bytes=64 * MIB, secret=secret)
            storage.create_layer(names[0], size_bytes=128 * MIB, secret=secret)
            storage.create_layer(names[1], size_bytes=128 * MIB, parent=names[0], secret=secret)
            chain = [LayerFile(names[1], secret), LayerFile(names[0], secret)]
            run_io(storage, chain, "write 0 32M")
            storage.copy_layer(names[2], chain, size_bytes=128 * MIB, secret=secret)
            storage.merge_layer(chain, "")
            storage.verify_layer(chain[:1])
            for name in names:
                storage.remove_layer(name)
    finally:
        done.set()
        watcher.join()
    assert seen >= wanted
    assert found == []


# --- copies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [b"", OTHER_KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("source", [b"", KEY], ids=["plain", "encrypted"])
def test_a_copy_has_the_whole_content_and_stands_alone(storage: QcowStorage, source: bytes, target: bytes) -> None:
    sizes = (4, 8, 8)
    chain = chain_of(storage, sizes, source)
    progress: list[float] = []
    storage.copy_layer("layer-copy", chain, size_bytes=16 * MIB, secret=target, progress=progress.append)
    for layer in chain:
        storage.remove_layer(layer.layer)
    copy = [LayerFile("layer-copy", target)]
    run_io(storage, copy, *reads(sizes), "read -P 0 3M 13M", "write -P 9 15M 1M")
    status = storage.observe_layer("layer-copy")
    assert status is not None
    assert (status.size_bytes, status.parent) == (16 * MIB, "")
    assert mode(storage, "layer-copy") == (OWNER[0], 0o600)
    assert storage.verify_layer(copy) == []
    assert progress == sorted(progress)
    assert progress[-1] == 1
    storage.copy_layer("layer-copy", plain("layer-gone"), size_bytes=GIB)  # it is there: nothing is looked at
    run_io(storage, copy, "read -P 9 15M 1M")


@pytest.mark.parametrize("target", [b"", KEY], ids=["plain", "encrypted"])
def test_a_copy_of_little_in_a_large_disk_is_little(storage: QcowStorage, target: bytes) -> None:
    storage.create_layer("layer-1", size_bytes=1 << 40)
    run_io(storage, plain("layer-1"), "write -P 1 700G 64k", "write -P 0 0 8M", "write -z 16M 8M", "discard 700G 64k")
    run_io(storage, plain("layer-1"), "write -P 2 900G 64k")
    storage.copy_layer("layer-2", plain("layer-1"), size_bytes=2 << 40, secret=target)
    run_io(storage, [LayerFile("layer-2", target)], "read -P 2 900G 64k", "read -P 0 0 24M", "read -P 0 1500G 1M")
    assert own_bytes(storage, "layer-2") < 2 * MIB


def test_a_copy_that_is_given_up_leaves_nothing(storage: QcowStorage) -> None:
    chain = chain_of(storage, (4, 8))

    def give_up(done: float) -> None:
        raise KeyboardInterrupt

    for call in (
        lambda: storage.copy_layer("layer-copy", chain, size_bytes=MIB, progress=give_up),
        lambda: storage.export_layer(chain, "raw", "a/disk.raw", progress=give_up),
    ):
        with pytest.raises(KeyboardInterrupt):
            call()
    assert storage.layers() == ["layer-0", "layer-1"]
    assert hidden(storage) == []


def test_a_copy_of_what_is_not_so_is_refused(storage: QcowStorage) -> None:
    chain_of(storage, (4, 8, 8))
    for names in (("layer-2", "layer-0"), ("layer-2", "layer-1"), ("layer-3",), ("layer-1", "layer-0", "layer-2")):
        with pytest.raises(HostError) as refused:
            storage.copy_layer("layer-copy", plain(*names), size_bytes=MIB)
        assert not refused.value.retryable
    assert hidden(storage) == []


# --- merges --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("secret", [b"", KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("onto", ["layer-2", "layer-1", "layer-0", ""])
def test_a_merge_keeps_the_content_and_shortens_the_chain(
    storage: QcowStorage, onto: str, secret: bytes, sealed: bool
) -> None:
    sizes = (4, 4, 8, 8)
    chain = chain_of(storage, sizes, secret)
    if sealed:
        storage.seal_layer("layer-3")
    owner = mode(storage, "layer-3")
    for _ in range(2):
        storage.merge_layer(chain, onto)
        status = storage.observe_layer("layer-3")
        assert status is not None
        assert (status.size_bytes, status.parent) == (8 * MIB, onto)
        assert mode(storage, "layer-3") == owner
    names = [layer.layer for layer in chain]
    left = [chain[0], *(chain[names.index(onto) :] if onto else [])]
    for gone in set(names) - {layer.layer for layer in left}:
        storage.remove_layer(gone)
    run_io(storage, left, *reads(sizes), "read -P 0 4M 4M")
    assert storage.verify_layer(left) == []
    with open(storage.layer_path("layer-3"), "rb") as file:
        assert read_header(file.fileno()).backing_file == (f"{onto}.qcow2" if onto else "")


def test_a_merge_of_a_chain_with_and_without_encryption(storage: QcowStorage) -> None:
    storage.create_layer("layer-0", size_bytes=4 * MIB)
    run_io(storage, plain("layer-0"), "write -P 1 0 2M")
    chain = [*encrypted("layer-2", "layer-1"), *plain("layer-0")]
    storage.create_layer("layer-1", size_bytes=4 * MIB, parent="layer-0", secret=KEY)
    run_io(storage, chain[1:], "write -P 2 1M 2M")
    storage.create_layer("layer-2", size_bytes=4 * MIB, parent="layer-1", secret=KEY)
    storage.merge_layer(chain, "layer-0")
    chain = [chain[0], chain[2]]
    run_io(storage, chain, "read -P 1 0 1M", "read -P 2 1M 2M", "read -P 0 3M 1M")
    storage.merge_layer(chain, "")
    run_io(storage, chain[:1], "read -P 1 0 1M", "read -P 2 1M 2M", "read -P 0 3M 1M")


def test_a_merge_of_what_is_not_so_is_refused(storage: QcowStorage) -> None:
    chain = chain_of(storage, (4, 8, 8))
    for wrong, onto in (
        (chain, "layer-9"),
        (chain, "layer-2"),
        ([chain[0], chain[2]], "layer-0"),
        (plain("layer-9", "layer-0"), "layer-0"),
    ):
        with pytest.raises(HostError):
            storage.merge_layer(wrong, onto)
    run_io(storage, chain, *reads((4, 8, 8)))


def test_a_merge_of_what_a_machine_has_open_is_refused(storage: QcowStorage) -> None:
    chain = chain_of(storage, (4, 8))
    path = storage.layer_path("layer-1")
    machine = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert machine.stdin is not None
    assert machine.stdout is not None
    try:
        machine.stdin.write(b"read 0 512\n")
        seen = b""
        while b"ops" not in seen:
            chunk = machine.stdout.read(4096)
            assert chunk
            seen += chunk
        with pytest.raises(HostError, match="lock") as refused:
            storage.merge_layer(chain, "")
        assert refused.value.retryable
    finally:
        machine.stdin.close()
        machine.stdout.close()
        machine.wait()
    storage.merge_layer(chain, "")
    run_io(storage, chain[:1], *reads((4, 8)))


@pytest.mark.parametrize("secret", [b"", KEY], ids=["plain", "encrypted"])
def test_a_parent_is_put_back_where_a_machine_has_named_another_too_early(storage: QcowStorage, secret: bytes) -> None:
    sizes = (4, 8, 8)
    chain = chain_of(storage, sizes, secret)
    storage.reparent_layer(chain[0], "layer-0")  # and nothing was copied
    status = storage.observe_layer("layer-2")
    assert status is not None
    assert status.parent == "layer-0"
    for _ in range(2):
        storage.reparent_layer(chain[0], "layer-1")
        run_io(storage, chain, *reads(sizes))
    owner = mode(storage, "layer-1")
    storage.reparent_layer(chain[1], "layer-0")
    assert mode(storage, "layer-1") == owner
    for wrong in (lambda: storage.reparent_layer(chain[0], "layer-9"), lambda: storage.reparent_layer(*plain("x"), "")):
        with pytest.raises(HostError, match="not there"):
            wrong()


# --- room ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(place: Path) -> Iterator[QcowStorage]:
    """A storage on a file system of 192 MiB."""
    state = place / "small"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=192m,mode=0711", "tmpfs", str(state)], check=True)
    try:
        yield QcowStorage(state, place / "images", owner=OWNER)
    finally:
        subprocess.run(["umount", "--lazy", str(state)], check=True)


def test_what_finds_no_room_says_so_and_leaves_nothing(small: QcowStorage) -> None:
    small.create_layer("layer-0", size_bytes=256 * MIB)
    run_io(small, plain("layer-0"), "write -P 1 0 80M")
    small.create_layer("layer-1", size_bytes=256 * MIB, parent="layer-0")
    chain = plain("layer-1", "layer-0")
    before = (small.free_bytes(), own_bytes(small, "layer-1"))
    assert small.total_bytes() == 192 * MIB
    for call in (
        lambda: small.copy_layer("layer-2", chain, size_bytes=MIB),
        lambda: small.copy_layer("layer-2", chain, size_bytes=MIB, secret=KEY),
        lambda: small.merge_layer(chain, ""),
        lambda: small.export_layer(chain, "raw", "disk.raw"),
    ):
        with pytest.raises(CapacityError):
            call()
        assert (small.free_bytes(), own_bytes(small, "layer-1")) == before
    assert small.layers() == ["layer-0", "layer-1"]
    assert hidden(small) == []


def fill(storage: QcowStorage, left_bytes: int) -> Path:
    """A file that leaves so much of the disk."""
    glutton = storage.layer_path("x").parent.parent / "glutton"
    with open(glutton, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, storage.free_bytes() - left_bytes)
    return glutton


def test_a_disk_that_others_fill_meanwhile_ends_what_needs_more(
    small: QcowStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.create_layer("layer-0", size_bytes=256 * MIB)
    run_io(small, plain("layer-0"), "write -P 1 0 30M")
    small.create_layer("layer-1", size_bytes=256 * MIB, parent="layer-0")
    chain = plain("layer-1", "layer-0")
    glutton = fill(small, 10 * MIB)
    with monkeypatch.context() as patched:
        patched.setattr(small, "free_bytes", lambda: GIB)  # as it was before the others came
        for call in (
            lambda: small.copy_layer("layer-2", chain, size_bytes=MIB),
            lambda: small.export_layer(chain, "vhdx", "disk.vhdx"),
            lambda: small.merge_layer(chain, ""),
        ):
            with pytest.raises(CapacityError):
                call()
    assert small.layers() == ["layer-0", "layer-1"]
    assert hidden(small) == []
    run_io(small, chain, "read -P 1 0 30M", "read -P 0 30M 1M")
    glutton.unlink()
    small.merge_layer(chain, "")
    small.copy_layer("layer-2", chain[:1], size_bytes=MIB)
    run_io(small, plain("layer-2"), "read -P 1 0 30M")
    assert small.verify_layer(chain[:1]) == []


def test_a_chain_whose_layers_hide_each_other_needs_only_what_shows(small: QcowStorage) -> None:
    small.create_layer("layer-0", size_bytes=64 * MIB)
    run_io(small, plain("layer-0"), "write -P 1 0 40M")
    small.create_layer("layer-1", size_bytes=64 * MIB, parent="layer-0")
    run_io(small, plain("layer-1", "layer-0"), "write -P 2 0 40M")
    storage_room = small.free_bytes() - (64 << 20)
    assert 40 * MIB < storage_room < 80 * MIB
    small.copy_layer("layer-2", plain("layer-1", "layer-0"), size_bytes=MIB)
    run_io(small, plain("layer-2"), "read -P 2 0 40M")


# --- keeping -------------------------------------------------------------------------------------------------------


def test_a_sealed_layer_can_be_opened_again_unless_one_lies_on_it(storage: QcowStorage) -> None:
    storage.create_layer("layer-1", size_bytes=MIB)
    storage.create_layer("layer-2", size_bytes=MIB, parent="layer-1")
    assert mode(storage, "layer-1") == (0, 0o440)
    with pytest.raises(HostError, match="layer-2 lies on it"):
        storage.unseal_layer("layer-1")
    storage.unseal_layer("layer-2")
    storage.remove_layer("layer-2")
    for _ in range(2):
        storage.unseal_layer("layer-1")
        assert mode(storage, "layer-1") == (OWNER[0], 0o600)
    for _ in range(2):
        storage.seal_layer("layer-1")
        assert mode(storage, "layer-1") == (0, 0o440)
    for call in (storage.seal_layer, storage.unseal_layer):
        with pytest.raises(HostError, match="not there"):
            call("layer-9")


def test_a_child_that_cannot_be_made_leaves_its_parent_writable(small: QcowStorage) -> None:
    small.create_layer("layer-1", size_bytes=MIB)
    fill(small, 64 << 10)
    with pytest.raises(CapacityError):
        small.create_layer("layer-2", size_bytes=MIB, parent="layer-1", secret=KEY)
    assert mode(small, "layer-1") == (OWNER[0], 0o600)


def test_a_damaged_layer_is_found(storage: QcowStorage) -> None:
    chain = chain_of(storage, (4, 8))
    path = storage.layer_path("layer-0")
    sha512 = hashlib.sha512(path.read_bytes()).hexdigest()
    assert storage.verify_layer(chain[1:], sha512) == []
    assert storage.verify_layer(chain) == []
    assert storage.verify_layer(chain[1:], "0" * 128) == ["layer-0: its checksum is another than when it was sealed"]
    assert storage.verify_layer(chain[:1]) == ["layer-1: it lies on layer-0.qcow2, not on nothing"]
    assert storage.verify_layer(plain("layer-9")) == ["layer-9: it is not there"]

    with open(path, "r+b") as file:
        file.seek(2 << 16)  # the reference counts
        file.write(bytes(64))
    lines = storage.verify_layer(chain[1:], sha512)
    assert len(lines) == 2
    assert "corruptions" in lines[0]

    with open(path, "r+b") as file:
        file.write(b"nonsense")
    (line,) = storage.verify_layer(chain[1:])
    assert line.startswith("layer-0: ")


def test_leaked_clusters_are_no_damage(storage: QcowStorage) -> None:
    storage.create_layer("layer-1", size_bytes=MIB)
    with open(storage.layer_path("layer-1"), "r+b") as file:
        file.truncate(5 << 16)
        file.seek((2 << 16) + 8)
        file.write(b"\0\1")
    assert storage.verify_layer(plain("layer-1")) == []


# --- exports -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [b"", KEY], ids=["plain", "encrypted"])
@pytest.mark.parametrize("file_format", ["raw", "qcow2", "vmdk", "vhd", "vhdx"])
def test_an_export_is_one_file_with_the_content_that_can_be_imported(
    storage: QcowStorage, file_format: str, secret: bytes
) -> None:
    sizes = (4, 8)
    chain = chain_of(storage, sizes, secret)
    name = f"from-here/disk.{file_format}"
    progress: list[float] = []
    exported = storage.export_layer(chain, file_format, name, progress.append)
    path = Path(exported.path)
    assert exported.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert exported.size_bytes == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == 0
    assert inspect(path, file_format) == 8 * MIB
    assert progress[-1] == 1
    assert storage.export_layer(chain, file_format, name) == exported
    storage.receive_upload("upload-1", iter([path.read_bytes()]), GIB)
    storage.import_image("upload-1", file_format, "layer-back", lambda line: None)
    run_io(storage, plain("layer-back"), *reads(sizes), "read -P 0 2M 6M")
    storage.remove_export(name)
    storage.remove_export(name)
    assert list((path.parent.parent).iterdir()) == []


@pytest.mark.parametrize("name", ["", "../disk", "/etc/disk", ".disk", "a//b", "a/../b", "a/.b", "a\0b", "a" * 700])
def test_an_export_stays_in_its_place(storage: QcowStorage, name: str) -> None:
    storage.create_layer("layer-1", size_bytes=MIB)
    with pytest.raises(HostError):
        storage.export_layer(plain("layer-1"), "raw", name)
    with pytest.raises(HostError):
        storage.remove_export(name)


def test_a_format_that_is_not_written_is_said_so(storage: QcowStorage) -> None:
    storage.create_layer("layer-1", size_bytes=MIB)
    with pytest.raises(HostError, match="raw, qcow2, vmdk, vhd, vhdx are"):
        storage.export_layer(plain("layer-1"), "iso", "disk.iso")


def test_an_export_whose_folder_is_another_ones_file(storage: QcowStorage) -> None:
    storage.create_layer("layer-1", size_bytes=MIB)
    storage.export_layer(plain("layer-1"), "raw", "first")
    with pytest.raises(HostError, match=r"first/second: .*File exists"):
        storage.export_layer(plain("layer-1"), "raw", "first/second")
    storage.remove_export("first/second")
    storage.remove_export("first")


@pytest.mark.parametrize("folder", ["layers", "exports", "uploads"])
def test_what_others_hide_in_its_folders_is_left_alone(place: Path, folder: str) -> None:
    """snapper's snapshots, a filer's, a desktop's waste paper."""
    theirs = place / "state" / folder / ".snapshots" / ".hidden"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    QcowStorage(place / "state", place / "images", owner=OWNER)
    assert theirs.read_text() == "mine"


def hidden(storage: QcowStorage) -> list[str]:
    """What is being made, or was left of that."""
    return [str(path) for path in storage.layer_path("x").parent.parent.rglob(".*")]

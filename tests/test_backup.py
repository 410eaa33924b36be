"""Backups: whole while the controller writes, restored elsewhere, and never trusted."""

from __future__ import annotations

import fcntl
import io
import json
import os
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.__main__ import cli
from orchestrator.backup import BackupError, backup, restore
from orchestrator.config import Config
from orchestrator.model.layer import Layer
from orchestrator.store import Store
from orchestrator.trail import verify

from .conftest import Serving
from .test_store import NOW, key_pair


def config(path: Path) -> Config:
    return Config(state_dir=path, host="memory", port=0)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with a few rows, keys, a segment of the audit log, and two layers."""
    path = tmp_path / "state"
    store = Store(path / "orchestrator.db", durable=False, kept_events=5)
    store.trail._segment_events = 5
    for number in range(12):
        with store.write() as tx:
            tx.put(key_pair(number))
            tx.record({"eventName": f"Call{number}"})
    with store.write() as tx:
        for name in ("layer-a", "layer-b"):
            tx.put(Layer(id=name, account="1" * 12, region="us-east-1", created=NOW, size_bytes=1 << 30))
    store.trail.move_out()
    store.close()
    (path / "keys").mkdir(mode=0o700)
    (path / "keys" / "master").write_text('{"master": "x"}')
    (path / "layers").mkdir()
    (path / "layers" / "layer-a.qcow2").write_bytes(b"sealed" * 1000)
    (path / "layers" / "layer-a.qcow2").chmod(0o440)
    (path / "layers" / "layer-b.qcow2").write_bytes(b"top" * 1000)
    (path / "layers" / "layer-b.qcow2").chmod(0o600)
    (path / "kernels" / "layer-a").mkdir(parents=True)
    (path / "kernels" / "layer-a" / "kernel").write_bytes(b"boots")
    return path


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    serving = Serving(tmp_path / "running", "--host", "memory")
    serving.start()
    yield serving
    if serving.process is not None and serving.process.poll() is None:
        serving.end()


def test_a_controller_that_writes_is_backed_up_and_comes_back_elsewhere(serving: Serving, tmp_path: Path) -> None:
    ec2 = serving.client("ec2")
    key = serving.client("kms").create_key()["KeyMetadata"]["KeyId"]
    sealed = serving.client("kms").encrypt(KeyId=key, Plaintext=b"hello")["CiphertextBlob"]
    volume = ec2.create_volume(Size=1, AvailabilityZone="us-east-1a", Encrypted=True)["VolumeId"]
    ended, made = threading.Event(), [ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]]

    def write() -> None:
        while not ended.is_set():
            made.append(ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"])

    writer = threading.Thread(target=write)
    writer.start()
    files = []
    try:
        for number in range(5):
            before = list(made)
            files.append((tmp_path / f"backup-{number}.tar", before))
            found = backup(config(serving.state_dir), files[-1][0])
            assert found.resources > len(before) and found.referred
    finally:
        ended.set()
        writer.join()
    for number, (file, before) in enumerate(files):
        assert file.stat().st_mode & 0o777 == 0o600
        restored = Serving(tmp_path / f"restored-{number}", "--host", "memory")
        restore(config(restored.state_dir), file)
        if number not in (0, 4):
            continue
        restored.start()
        try:
            found_ids = {vpc["VpcId"] for vpc in restored.client("ec2").describe_vpcs()["Vpcs"]}
            assert set(before) <= found_ids, "what was there before the backup is in it"
            assert restored.client("ec2").describe_volumes(VolumeIds=[volume])["Volumes"][0]["Encrypted"]
            assert restored.client("kms").decrypt(CiphertextBlob=sealed)["Plaintext"] == b"hello"
            assert restored.client("ec2").create_vpc(CidrBlock="10.1.0.0/16")
        finally:
            restored.end()
        assert verify(restored.state_dir).problems == []


def test_layers_come_with_it_when_asked_for(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.tar"
    made = backup(config(state), file, layers=True)
    assert (made.layers, made.referred, made.resources, made.events) == (2, (), 14, 12)
    target = tmp_path / "deep" / "there"
    assert restore(config(target), file).layers == 2
    for name in ("layers/layer-a.qcow2", "layers/layer-b.qcow2", "kernels/layer-a/kernel", "keys/master"):
        assert (target / name).read_bytes() == (state / name).read_bytes()
    modes = {path.name: path.stat().st_mode & 0o7777 for path in target.rglob("*") if path.is_file()}
    assert modes["layer-a.qcow2"] == 0o440 and modes["layer-b.qcow2"] == 0o600 and modes["master"] == 0o600
    assert modes["orchestrator.db"] == 0o600
    assert {path.name for path in target.iterdir()} == {"orchestrator.db", "audit", "keys", "layers", "kernels"}
    assert target.stat().st_mode & 0o777 == 0o711 and (target / "keys").stat().st_mode & 0o777 == 0o700
    store = Store(target / "orchestrator.db")
    assert len(store.events()) == 12
    store.close()


def test_without_layers_and_keys(state: Path, tmp_path: Path) -> None:
    made = backup(config(state), tmp_path / "b.tar", keys=False)
    assert made.referred == ("layer-a", "layer-b")
    restore(config(tmp_path / "there"), tmp_path / "b.tar")
    assert not (tmp_path / "there" / "keys").exists() and not (tmp_path / "there" / "layers").exists()


def test_layers_need_that_nothing_writes(serving: Serving, state: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="a controller runs"):
        backup(config(serving.state_dir), tmp_path / "b.tar", layers=True)
    with (state / "layers" / "layer-b.qcow2").open("r+b") as guest:
        fcntl.fcntl(guest, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0))
        with pytest.raises(BackupError, match=r"a guest writes to .*layer-b"):
            backup(config(state), tmp_path / "b.tar", layers=True)
    assert not (tmp_path / "b.tar").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_nothing_is_overwritten(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    backup(config(state), file)
    with pytest.raises(BackupError, match="is there already"):
        backup(config(state), file)
    with pytest.raises(BackupError, match="not empty"):
        restore(config(state), file)
    with pytest.raises(BackupError, match="no state"):
        backup(config(tmp_path / "nowhere"), tmp_path / "c.tar")
    (tmp_path / "empty").mkdir()
    restore(config(tmp_path / "empty"), file)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackupError, match="not empty"):
        restore(config(tmp_path / "link"), file)


# --- archives that are not what they should be ------------------------------------------------------------------------

Members = list[tuple[tarfile.TarInfo, bytes]]


def rewrite(file: Path, change: Callable[[Members], Members]) -> None:
    with tarfile.open(file) as archive:
        members = [(entry, archive.extractfile(entry).read()) for entry in archive]  # type: ignore[union-attr]
    with tarfile.open(file, "w") as archive:
        for entry, content in change(members):
            if entry.isreg():
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def adding(*entries: tarfile.TarInfo) -> Callable[[Members], Members]:
    return lambda members: [*((each, b"evil" if each.isreg() else b"") for each in entries), *members]


def with_sums(name: str, replace: Callable[[bytes], bytes]) -> Callable[[Members], Members]:
    """A file changed by somebody who knows of the sums."""
    from hashlib import sha256

    def change(members: Members) -> Members:
        members = [(each, replace(content) if each.name == name else content) for each, content in members]
        *rest, (last, sums) = members
        known = json.loads(sums)
        known[name] = sha256(next(content for each, content in rest if each.name == name)).hexdigest()
        return [*rest, (last, json.dumps(known).encode())]

    return change


DAMAGED: dict[str, tuple[Callable[[Members], Members], str]] = {
    "a path upwards": (adding(entry("../evil")), "no backup"),
    "an absolute path": (adding(entry("/tmp/evil")), "no backup"),
    "a path upwards in a folder": (adding(entry("keys/../../evil")), "no backup"),
    "a link": (adding(entry("keys/master", tarfile.SYMTYPE, "/etc/passwd")), "no backup"),
    "a hard link": (adding(entry("keys/master", tarfile.LNKTYPE, "orchestrator.db")), "no backup"),
    "a folder": (adding(entry("keys", tarfile.DIRTYPE)), "no backup"),
    "a device": (adding(entry("layers/x.qcow2", tarfile.CHRTYPE)), "no backup"),
    "a name that none has": (adding(entry("credentials.json")), "no backup"),
    "a hidden layer": (adding(entry("layers/.x.qcow2")), "no backup"),
    "a file that was not announced": (adding(entry("layers/x.qcow2")), "does not have the files"),
    "a file twice": (lambda members: [members[2], *members], "there twice"),
    "a file is missing": (lambda members: [each for each in members if "audit" not in each[0].name], "does not have"),
    "no store": (lambda members: [each for each in members if each[0].name != "orchestrator.db"], "no orchestrator.db"),
    "no sums": (lambda members: members[:-1], "no sums.json"),
    "a byte of the store": (
        lambda members: [
            (each, content[:5000] + b"!" + content[5001:] if each.name == "orchestrator.db" else content)
            for each, content in members
        ],
        "orchestrator.db is not what was written",
    ),
    "the store, and its sum": (with_sums("orchestrator.db", lambda content: content[:9000]), "cannot be restored"),
    "the audit log, and its sum": (
        with_sums("audit/000000000001-000000000005.jsonl", lambda content: content.replace(b"Call3", b"Call4")),
        "audit log that is not whole",
    ),
    "another format": (
        with_sums("manifest.json", lambda content: content.replace(b'"format": 1', b'"format": 9')),
        "has format 9",
    ),
    "no manifest at all": (with_sums("manifest.json", lambda content: b"[" * 100_000), "manifest.json is damaged"),
}


@pytest.mark.parametrize(("change", "problem"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_archive_leaves_nothing(
    state: Path, tmp_path: Path, change: Callable[[Members], Members], problem: str
) -> None:
    file = tmp_path / "b.tar"
    backup(config(state), file)
    rewrite(file, change)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(BackupError, match=problem):
        restore(config(tmp_path / "there"), file)
    assert set(tmp_path.rglob("*")) == before


def test_an_archive_cut_off_anywhere_is_refused(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    backup(config(state), file)
    whole = file.read_bytes()
    with tarfile.open(file) as archive:
        ends = max(each.offset_data + each.size for each in archive)
    for length in (0, 100, 512, 1500, len(whole) // 3, len(whole) // 2, ends - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(BackupError):
            restore(config(tmp_path / "there"), file)
    assert not (tmp_path / "there").exists()


def test_the_commands(state: Path, tmp_path: Path) -> None:
    runner = CliRunner()

    def orc(*words: str) -> Any:
        return runner.invoke(cli, [*words, "--host", "memory"])

    done = orc("backup", str(tmp_path / "b.tar"), "--state-dir", str(state))
    assert done.exit_code == 0 and "14 resources, 12 events" in done.output
    there = str(tmp_path / "there")
    assert orc("restore", str(tmp_path / "b.tar"), "--state-dir", there).exit_code == 0
    done = orc("restore", str(tmp_path / "b.tar"), "--state-dir", there)
    assert done.exit_code == 1 and "not empty" in done.output
    assert orc("audit", "verify", "--state-dir", there).exit_code == 0


def test_a_backup_that_cannot_be_written_leaves_nothing(state: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="cannot be written"):
        backup(config(state), tmp_path / "no-such-folder" / "b.tar")

"""`orc backup` and `orc restore`: what a deployment is, in one archive, and a state directory made of it.

    manifest.json          first: format, schema, what is meant to follow and what is only referred to
    orchestrator.db        the store as of one instant, whoever writes to it meanwhile; SQLite's, wherever it is kept
    audit/FIRST-LAST.jsonl the closed segments of the audit log as of the same instant
    keys/master            the master key, as it is protected (by a passphrase, or by the archive's mode alone)
    layers/LAYER.qcow2     with --layers: the disks; then nothing may run that writes to them
    kernels/LAYER/FILE     and what images start with
    sums.json              last: the SHA-256 of each file above

An archive is somebody's file: only these names are taken from it, nothing but plain files, and nothing is in its place
until all of it has been read, compared and opened.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from orchestrator import __version__, database
from orchestrator.config import Config
from orchestrator.database.sqlite import sync_directory
from orchestrator.model.layer import Layer
from orchestrator.store import Store, StoreError
from orchestrator.trail import segments, verify

FORMAT = 1
_NAMES = re.compile(
    r"manifest\.json|sums\.json|orchestrator\.db|keys/master"
    r"|audit/[0-9]{12,19}-[0-9]{12,19}\.jsonl"
    r"|layers/[a-z][a-z0-9-]{0,62}\.qcow2"
    r"|kernels/[a-z][a-z0-9-]{0,62}/(?:kernel|initrd|cmdline)"
)
_CHUNK_BYTES = 1 << 20
_MOST_TEXT_BYTES = 256 << 20  # of manifest.json and sums.json
_SEALED_MODE = 0o440  # of a layer that nothing writes to again
_LAYER_MODES = (_SEALED_MODE, 0o600, 0o1600)


class BackupError(Exception):
    """What could not be backed up or restored, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Made:
    """What an archive has."""

    events: int
    resources: int
    layers: int  # whose files are in it
    referred: tuple[str, ...]  # layers whose files are not
    bytes: int


# --- backup -----------------------------------------------------------------------------------------------------------


def backup(config: Config, file: Path, *, layers: bool = False, keys: bool = True) -> Made:
    """Write an archive of the deployment to `file`, which must not be there. A controller may run, unless `layers`."""
    state_dir = config.state_dir
    if not database.exists(state_dir, config.store_url):
        raise BackupError(f"{state_dir} has no state to back up: set --state-dir to where the controller keeps it")
    if file.exists():
        raise BackupError(f"{file} is there already: choose another name, or remove it")
    try:
        with ExitStack() as stack:
            if layers:
                stack.enter_context(_alone(state_dir))
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".backup-", dir=file.absolute().parent)))
            with database.reading(state_dir / database.FILE, config.store_url) as rows:
                rows.copy_to(work / database.FILE)
            made = _write_archive(state_dir, work, file, layers=layers, keys=keys)
        sync_directory(file.absolute().parent)
    except StoreError as error:
        raise BackupError(f"the state cannot be read: {error}") from error
    except (OSError, tarfile.TarError) as error:
        raise BackupError(f"{file} cannot be written: {error}") from error
    return made


def _write_archive(state_dir: Path, work: Path, file: Path, *, layers: bool, keys: bool) -> Made:
    store = work / database.FILE
    with database.reading(store) as rows:
        first, last = rows.event_range()
        named = rows.ids(Layer.KIND)
        resources = rows.count("resource")
        written = rows.meta(database.AUDIT_HEAD) or ""
    # What was moved out after the copy was made is in the copy.
    closed = [each for each in segments(state_dir / "audit") if not first or each.first < first]
    files = {"orchestrator.db": store} | {f"audit/{each.path.name}": each.path for each in closed}
    master = state_dir / "keys" / "master"
    if keys and master.is_file():
        files["keys/master"] = master
    taken = list(_layer_files(state_dir, named)) if layers else []
    files |= taken
    have = {name for name, _ in taken}
    referred = tuple(name for name in named if f"layers/{name}.qcow2" not in have)
    manifest = {
        "format": FORMAT,
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "state_dir": str(state_dir),
        "audit_head": written,
        "files": sorted(files),
        "referred_layers": referred,
    }
    fresh = work / "archive"
    with (
        open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out,
        tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        sums = {"manifest.json": _add_text(archive, work, "manifest.json", manifest)}
        for name, path in sorted(files.items()):
            sums[name] = _add(archive, name, path)
        _add_text(archive, work, "sums.json", sums)
        archive.close()
        out.flush()
        os.fsync(out.fileno())
    size = fresh.stat().st_size
    os.link(fresh, file)  # fails where somebody else's file has come there
    in_layers = sum(1 for name in have if name.startswith("layers/"))
    return Made(last or _number(written), resources, in_layers, referred, size)


def _number(head: str) -> int:
    return int(head.partition(":")[0]) if head else 0


def _layer_files(state_dir: Path, named: list[str]) -> Iterator[tuple[str, Path]]:
    """Files of these layers and what starts with them; BackupError for one that something writes to."""
    for name in named:
        path = state_dir / "layers" / f"{name}.qcow2"
        if not path.is_file():
            continue
        if path.stat().st_mode & 0o7777 != _SEALED_MODE and _is_open(path):
            raise BackupError(
                f"a guest writes to {path}: stop the instances first, or leave --layers out and copy the layers "
                "of snapshots yourself"
            )
        yield f"layers/{name}.qcow2", path
        for part in ("kernel", "initrd", "cmdline"):
            if (kernel := state_dir / "kernels" / name / part).is_file():
                yield f"kernels/{name}/{part}", kernel


def _is_open(path: Path) -> bool:
    """Whether QEMU has it: it locks bytes of every image that it uses."""
    asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    with path.open("rb") as file:
        kind: int = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


@contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """While no controller runs, and none can start."""
    with open(os.open(state_dir / "orchestrator.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError(
                "a controller runs, and may change disks at any moment: end it, or leave --layers out"
            ) from error
        yield


def _add(archive: tarfile.TarFile, name: str, path: Path) -> str:
    with path.open("rb") as file:
        entry = tarfile.TarInfo(name)
        entry.size = os.fstat(file.fileno()).st_size
        entry.mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode) if name.startswith("layers/") else 0o600
        entry.mtime = int(os.fstat(file.fileno()).st_mtime)
        reading = _Summed(file)
        archive.addfile(entry, reading)
    return reading.sum.hexdigest()


def _add_text(archive: tarfile.TarFile, work: Path, name: str, document: Any) -> str:
    path = work / name
    path.write_text(json.dumps(document, indent=1) + "\n")
    return _add(archive, name, path)


class _Summed:
    """A file that knows the SHA-256 of what was read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sum = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sum.update(data)
        return data


# --- restore ----------------------------------------------------------------------------------------------------------


def restore(config: Config, file: Path, owner: tuple[int, int] | None = None) -> Made:
    """Make the state directory, which must not be there or be empty, of an archive. All of it or nothing.

    With store.url the rows go to that database, which must be empty, wherever they came from.

    `owner` is the user and group that QEMU runs as here; None leaves the disks to whoever restores them.
    """
    state_dir = config.state_dir.absolute()
    if state_dir.is_symlink() or (state_dir.exists() and (not state_dir.is_dir() or any(state_dir.iterdir()))):
        raise BackupError(f"{state_dir} is not empty: restore to another --state-dir, or move this one away")
    try:
        state_dir.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{state_dir.name}-restoring-", dir=state_dir.parent))
        try:
            made = _restore(file, staging, owner)
            with _to_server(staging, config.store_url):
                staging.rename(state_dir)
        except BaseException:
            shutil.rmtree(staging if staging.exists() else state_dir, ignore_errors=True)
            raise
        sync_directory(state_dir.parent)
    except StoreError as error:
        raise BackupError(f"{file} cannot be restored: {error}") from error
    except OSError as error:
        raise BackupError(f"{file} cannot be restored to {state_dir}: {error}") from error
    return made


def _restore(file: Path, staging: Path, owner: tuple[int, int] | None) -> Made:
    sums = _unpack(file, staging)
    manifest = _read_text(staging / "manifest.json")
    expected = _read_text(staging / "sums.json")
    if manifest.get("format") != FORMAT:
        raise BackupError(f"{file} has format {manifest.get('format')!r}, and this orchestrator reads {FORMAT}")
    del sums["sums.json"]
    if set(expected) != set(sums) or set(manifest.get("files", ())) | {"manifest.json"} != set(sums):
        raise BackupError(f"{file} is damaged: it does not have the files that it says it has")
    if changed := sorted(name for name in sums if sums[name] != expected[name]):
        raise BackupError(f"{file} is damaged: {', '.join(changed)} is not what was written")
    for name in ("manifest.json", "sums.json"):
        (staging / name).unlink()
    restored = staging / database.FILE
    if not restored.is_file():
        raise BackupError(f"{file} has no store")
    verifier = verify(staging)
    if verifier.problems:
        raise BackupError(f"{file} has an audit log that is not whole: {verifier.problems[0]}")
    if str(verifier.head) != manifest.get("audit_head") and verifier.head.number:
        raise BackupError(f"{file} has another audit log than it says")
    with closing(Store(restored)) as store:  # read row by row, and upgraded if it is older
        rows = sum(len(table.rows) for table in store._tables.values())
    with suppress(FileNotFoundError):
        (staging / "orchestrator.lock").unlink()
    _protect(staging, owner)
    referred = tuple(str(name) for name in manifest.get("referred_layers", ()))
    layers = sum(1 for name in sums if name.startswith("layers/"))
    return Made(verifier.head.number, rows, layers, referred, file.stat().st_size)


@contextmanager
def _to_server(staging: Path, url: str) -> Iterator[None]:
    """The rows that were checked in a file are in the database at `url`, if there is one, when the block is left."""
    if not url:
        yield
        return
    file = staging / database.FILE
    with ExitStack() as stack:
        rows = stack.enter_context(database.reading(file))
        stack.enter_context(database.fill_server(url, rows, staging / database.MARK))
        for path in staging.glob(f"{database.FILE}*"):
            path.unlink()
        yield


def _protect(staging: Path, owner: tuple[int, int] | None) -> None:
    """Modes and owners as the controller gives them: QEMU passes through folders, and has the disks that it writes."""
    for path in staging.rglob("*"):
        kind = path.relative_to(staging).parts[0]
        if path.is_dir():
            path.chmod(0o711 if kind in ("layers", "kernels") else 0o700)
            sync_directory(path)
        elif kind == "kernels":
            path.chmod(0o444)
        elif kind == "audit":
            path.chmod(0o400)
        elif kind == "layers" and owner is not None:
            mode = stat.S_IMODE(path.stat().st_mode)
            os.chown(path, 0 if mode == _SEALED_MODE else owner[0], owner[1])
            path.chmod(mode)
    staging.chmod(0o711)
    sync_directory(staging)


def _unpack(file: Path, staging: Path) -> dict[str, str]:
    """Every file of the archive under `staging`, and its SHA-256."""
    sums: dict[str, str] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for entry in archive:
                if not (entry.isreg() and _NAMES.fullmatch(entry.name)) or entry.issparse():
                    raise BackupError(f"{file} is no backup: it has {entry.name[:200]!r}, which none has")
                if entry.name in sums:
                    raise BackupError(f"{file} is damaged: {entry.name} is there twice")
                content = archive.extractfile(entry)
                if content is None:
                    raise BackupError(f"{file} is damaged: {entry.name} has no content")
                path = staging / entry.name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                sums[entry.name] = _copy(content, path, entry.size)
                if entry.name.startswith("layers/"):
                    path.chmod(entry.mode if entry.mode in _LAYER_MODES else _LAYER_MODES[1])
    except (tarfile.TarError, EOFError, UnicodeDecodeError) as error:
        raise BackupError(f"{file} is damaged, or no backup: {error}") from error
    if missing := {"manifest.json", "sums.json", "orchestrator.db"} - set(sums):
        raise BackupError(f"{file} is damaged, or no backup: it has no {', '.join(sorted(missing))}")
    return sums


def _copy(content: IO[bytes], path: Path, size: int) -> str:
    digest, copied = hashlib.sha256(), 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as out:
        while data := content.read(_CHUNK_BYTES):
            digest.update(data)
            out.write(data)
            copied += len(data)
        out.flush()
        os.fsync(out.fileno())
    if copied != size:
        raise BackupError(f"the archive ends in the middle of {path.name}")
    return digest.hexdigest()


def _read_text(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MOST_TEXT_BYTES:
        raise BackupError(f"the archive's {path.name} is too large")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BackupError(f"the archive's {path.name} is damaged: {error}") from error
    if not isinstance(document, dict):
        raise BackupError(f"the archive's {path.name} is damaged")
    return document

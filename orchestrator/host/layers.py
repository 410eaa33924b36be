"""Layers as qcow2 files: a tree of them under one directory.

    STATE_DIR/layers/LAYER.qcow2        a layer; its parent is named in its header, relative, with its format stated
             /layers/.LAYER...          what is being made: of no use after a crash, and removed at the next start
             /exports/PATH              disks as other formats, in one file each

    writable (QEMU's user, 0600) --seal--> sealed (root, 0440) --merge--> being merged (QEMU's, 01600) --> sealed

A layer that has children is sealed. A file gets its name when it is whole, so whatever has a name can be used; and what
is done to a file that has its name keeps its content at every moment. So each call can be cut off, and repeated.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchestrator.host import CapacityError, ExportedFile, HostError, LayerFile, LayerStatus
from orchestrator.host.imagefile import FORMATS, MAX_VIRTUAL_BYTES, SECTOR
from orchestrator.host.qcow2_header import LayerHeader, read_header, write_qcow2
from orchestrator.host.qemu_tools import Passphrases, Tools

NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_EXPORT_PART = re.compile(r"[A-Za-z0-9!_'()*-][A-Za-z0-9!_.'()*-]{0,149}")  # of a path: as S3's keys are written
_EXPORT_PATH_LENGTH = 600
_SUFFIX = ".qcow2"
_WRITABLE, _SEALED = 0o600, 0o440
_MERGING = 0o1600  # the sticky bit means nothing of a file, but remembers that it was sealed
_SPARE_BYTES = 64 << 20
# qemu-img check: corruptions; leaks. Leaked clusters are what a process that was killed had just taken: no fault.
_CORRUPT, _LEAKS = 2, 3
_EXPORT_OPTIONS = {"vmdk": ("-o", "subformat=streamOptimized"), "vhd": ("-o", "subformat=dynamic,force_size=on")}


class LayerFiles:
    """The part of Storage that is about layers. `owner` is the user and group that QEMU runs as; None leaves owners
    alone."""

    def __init__(self, state_dir: Path, owner: tuple[int, int] | None) -> None:
        self._owner = owner
        # QEMU's user passes through these and cannot list them.
        self._layers = directory(state_dir / "layers", 0o711)
        self._exports = directory(state_dir / "exports", 0o711)
        remove_unfinished(self._layers)
        for folder, inner, _ in os.walk(self._exports):
            inner[:] = [name for name in inner if not name.startswith(".")]
            remove_unfinished(Path(folder))

    def layer_path(self, layer: str) -> Path:
        return self._layers / (checked(layer, "layer") + _SUFFIX)

    # --- making ---

    def create_layer(self, name: str, *, size_bytes: int, parent: str = "", secret: bytes = b"") -> None:
        path = self.layer_path(name)
        backing = f"{checked(parent, 'layer')}{_SUFFIX}" if parent else ""
        if parent:
            status = self.observe_layer(parent)
            if status is None:
                raise HostError(f"{name} cannot be made: its parent {parent} is not there", retryable=False)
            size_bytes = max(size_bytes, status.size_bytes)
        size_bytes = _whole_sectors(name, size_bytes)
        existing = self._header(path)
        if existing is not None:
            if existing.backing_file != backing:
                raise HostError(f"{name} is there, on {existing.backing_file or 'nothing'}", retryable=False)
            if existing.virtual_bytes < size_bytes:
                self._grow(LayerFile(name, secret), size_bytes)
            return
        with room_needed(name), self._new_file(path) as file:
            write_qcow2(file, size_bytes=size_bytes, backing_file=backing, passphrase=secret.hex())
            if self._owner is not None:
                os.fchown(file, *self._owner)
            if parent:
                self._seal(self.layer_path(parent))

    def copy_layer(
        self,
        name: str,
        chain: Sequence[LayerFile],
        *,
        size_bytes: int,
        secret: bytes = b"",
        progress: Callable[[float], None] = lambda done: None,
    ) -> None:
        path = self.layer_path(name)
        if self._header(path) is not None:
            return
        source_bytes = max(header.virtual_bytes for header in self._headers(chain))
        size_bytes = _whole_sectors(name, max(size_bytes, source_bytes))
        with room_needed(name), self._new_file(path) as file, Passphrases() as passphrases:
            source = self._node(chain, passphrases)
            tools = self._tools(size_bytes)
            self._check_room(name, chain, source, tools, passphrases)
            write_qcow2(file, size_bytes=size_bytes, backing_file="", passphrase=secret.hex())
            if self._owner is not None:
                os.fchown(file, *self._owner)
            target = f"driver=qcow2,file.driver=file,file.filename={_option(self._unfinished(path))}"
            if secret:
                target += f",encrypt.format=luks,encrypt.key-secret={passphrases.add(secret.hex())}"
            tools.img(
                "convert",
                *("-n", "--target-is-zero", "--target-image-opts", _json(source), target),
                passphrases=passphrases,
                progress=progress,
            )
        sync(self._layers)
        progress(1.0)

    def merge_layer(self, chain: Sequence[LayerFile], onto: str) -> None:
        top = chain[0].layer
        path = self.layer_path(top)
        names = [each.layer for each in chain]
        if onto and onto not in names[1:]:
            raise HostError(f"{top} cannot be merged onto {onto}: it does not lie on it", retryable=False)
        base_name = f"{onto}{_SUFFIX}" if onto else ""
        header = self._header(path)
        if header is None:
            raise HostError(f"{top} cannot be merged: it is not there", retryable=False)
        if header.backing_file != base_name:
            self._headers(chain)
            between = chain[1 : names.index(onto) if onto else len(chain)]
            self._check_space(top, sum(self._own_bytes(each.layer) for each in between))
            if self._is_sealed(path):
                self._give_to_qemu(path, _MERGING)
            with Passphrases() as passphrases:
                self._tools(header.virtual_bytes).stream(
                    self._node(chain, passphrases, base=onto), base="base" if onto else "", passphrases=passphrases
                )
            sync(path)  # before the header says that it is there
            self._name_parent(chain[0], onto)
        if self._is_sealed(path):
            self._seal(path)

    def reparent_layer(self, layer: LayerFile, parent: str) -> None:
        path = self.layer_path(layer.layer)
        header = self._header(path)
        if header is None:
            raise HostError(f"{layer.layer} is not there", retryable=False)
        if header.backing_file == (f"{parent}{_SUFFIX}" if parent else ""):
            return
        if self._header(self.layer_path(parent)) is None:
            raise HostError(f"{layer.layer} cannot lie on {parent}: it is not there", retryable=False)
        if self._is_sealed(path):
            self._give_to_qemu(path, _MERGING)
        self._name_parent(layer, parent)
        if self._is_sealed(path):
            self._seal(path)

    def _name_parent(self, layer: LayerFile, parent: str) -> None:
        backing_file = f"{checked(parent, 'layer')}{_SUFFIX}" if parent else ""
        with Passphrases() as passphrases:
            self._tools(0).img(
                *("rebase", "-u", "-b", backing_file, *(("-F", "qcow2") if parent else ())),
                _json(self._node([layer], passphrases)),
                passphrases=passphrases,
                timeout_s=60,
            )
        sync(self.layer_path(layer.layer))

    def _grow(self, layer: LayerFile, size_bytes: int) -> None:
        if self._is_sealed(self.layer_path(layer.layer)):
            raise HostError(f"{layer.layer} cannot grow: it is sealed", retryable=False)
        with Passphrases() as passphrases:
            image = _json(self._node([layer], passphrases))
            self._tools(size_bytes).img("resize", "-q", image, str(size_bytes), passphrases=passphrases, timeout_s=60)

    # --- keeping ---

    def seal_layer(self, name: str) -> None:
        try:
            self._seal(self.layer_path(name))
        except FileNotFoundError:
            raise HostError(f"{name} cannot be sealed: it is not there", retryable=False) from None

    def unseal_layer(self, name: str) -> None:
        path = self.layer_path(name)
        if self._header(path) is None:
            raise HostError(f"{name} cannot be written to: it is not there", retryable=False)
        if not self._is_sealed(path):
            return
        for other in self.layers():
            header = self._header(self.layer_path(other))
            if header is not None and header.backing_file == path.name:
                raise HostError(f"{name} cannot be written to: {other} lies on it", retryable=False)
        self._give_to_qemu(path, _WRITABLE)

    def checksum_layer(self, name: str) -> str:
        try:
            return _digest(self.layer_path(name), "sha512")
        except FileNotFoundError:
            return ""

    def verify_layer(self, chain: Sequence[LayerFile], sha512: str = "") -> list[str]:
        top = chain[0]
        path = self.layer_path(top.layer)
        parent = chain[1].layer if len(chain) > 1 else ""
        try:
            header = self._header(path)
        except HostError as error:
            return [f"{top.layer}: {error}"]
        if header is None:
            return [f"{top.layer}: it is not there"]
        found: list[str] = []
        if header.backing_file != (f"{parent}{_SUFFIX}" if parent else ""):
            found.append(f"{top.layer}: it lies on {header.backing_file or 'nothing'}, not on {parent or 'nothing'}")
        if header.encrypted != bool(top.secret):
            found.append(f"{top.layer}: it is {'' if header.encrypted else 'not '}encrypted")
        else:
            found += self._check(top)
        if sha512 and _digest(path, "sha512") != sha512:
            found.append(f"{top.layer}: its checksum is another than when it was sealed")
        return found

    def _check(self, layer: LayerFile) -> list[str]:
        with Passphrases() as passphrases:
            image = _json(self._node([layer], passphrases))
            try:
                text = self._tools(0).img(
                    *("check", "-U", "--output=json", image),
                    passphrases=passphrases,
                    accepted=(0, _CORRUPT, _LEAKS),
                )
                # Words about what it found come before the figures.
                report = json.loads(text[text.index("{\n") :])
            except (HostError, ValueError) as error:
                return [f"{layer.layer}: {error}"]
        counts = [(report.get("corruptions", 0), "corruptions"), (report.get("check-errors", 0), "unreadable places")]
        return [f"{layer.layer}: qemu-img finds {count} {what}" for count, what in counts if count]

    def export_layer(
        self,
        chain: Sequence[LayerFile],
        file_format: str,
        name: str,
        progress: Callable[[float], None] = lambda done: None,
    ) -> ExportedFile:
        if file_format not in FORMATS:
            known = ", ".join(FORMATS)
            raise HostError(f"'{file_format}' is not a format that is written; {known} are", retryable=False)
        path = self._export_path(name)
        if not path.exists():
            with room_needed(name):  # or a name: another export may have one that is a folder's here
                for folder in reversed(path.relative_to(self._exports).parents[:-1]):
                    directory(self._exports / folder, 0o711)
            size_bytes = max(header.virtual_bytes for header in self._headers(chain))
            with room_needed(name), self._new_file(path) as file, Passphrases() as passphrases:
                source = self._node(chain, passphrases)
                tools = self._tools(size_bytes)
                self._check_room(name, chain, source, tools, passphrases)
                if self._owner is not None:
                    os.fchown(file, *self._owner)
                tools.img(
                    *("convert", "-O", FORMATS[file_format], *_EXPORT_OPTIONS.get(file_format, ())),
                    *(_json(source), str(self._unfinished(path))),
                    passphrases=passphrases,
                    progress=progress,
                )
                if os.geteuid() == 0:
                    os.fchown(file, 0, 0)
            sync(path.parent)
        progress(1.0)
        return ExportedFile(path=str(path), size_bytes=path.stat().st_size, sha256=_digest(path, "sha256"))

    def remove_export(self, name: str) -> None:
        path = self._export_path(name)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
        for folder in path.parents:
            if folder == self._exports:
                break
            try:
                folder.rmdir()
            except OSError:  # something else is in it, or it was never made
                continue

    def _export_path(self, name: str) -> Path:
        if len(name) > _EXPORT_PATH_LENGTH or not all(_EXPORT_PART.fullmatch(part) for part in name.split("/")):
            raise HostError(f"'{name[:80]}' cannot be the path of an export: {_EXPORT_PART.pattern}", retryable=False)
        return self._exports / name

    def remove_layer(self, name: str) -> None:
        self.layer_path(name).unlink(missing_ok=True)

    # --- looking ---

    def observe_layer(self, name: str) -> LayerStatus | None:
        path = self.layer_path(name)
        header = self._header(path)
        if header is None:
            return None
        try:
            own_bytes = path.stat().st_blocks * 512
        except FileNotFoundError:
            return None
        return LayerStatus(name, header.virtual_bytes, own_bytes, header.backing_file.removesuffix(_SUFFIX))

    def layers(self) -> list[str]:
        names = (entry.name.removesuffix(_SUFFIX) for entry in os.scandir(self._layers) if entry.name.endswith(_SUFFIX))
        return sorted(name for name in names if NAME.fullmatch(name))

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._layers).free

    def total_bytes(self) -> int:
        return shutil.disk_usage(self._layers).total

    # --- how ---

    def _header(self, path: Path) -> LayerHeader | None:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"{path.name} cannot be read: {error}") from error
        try:
            return read_header(file)
        finally:
            os.close(file)

    def _headers(self, chain: Sequence[LayerFile]) -> list[LayerHeader]:
        """Of each layer. Raises HostError where one is not there or does not lie on the next."""
        headers: list[LayerHeader] = []
        for place, each in enumerate(chain):
            header = self._header(self.layer_path(each.layer))
            if header is None:
                raise HostError(f"{each.layer} is not there", retryable=False)
            below = chain[place + 1].layer + _SUFFIX if place + 1 < len(chain) else ""
            if header.backing_file != below:
                raise HostError(
                    f"{each.layer} lies on {header.backing_file or 'nothing'}, not on {below or 'nothing'}",
                    retryable=False,
                )
            if header.encrypted and not each.secret:
                raise HostError(f"{each.layer} is encrypted, and there is no secret to open it", retryable=False)
            headers.append(header)
        return headers

    def _node(self, chain: Sequence[LayerFile], passphrases: Passphrases, base: str = "") -> dict[str, object]:
        """A chain as QEMU takes it; what its last layer lies on, if it lies on anything, is left out."""
        node: dict[str, object] | None = None
        for place, each in reversed(list(enumerate(chain))):
            below, node = node, {"driver": "qcow2", "discard": "unmap"}
            node["file"] = {"driver": "file", "filename": str(self.layer_path(each.layer)), "discard": "unmap"}
            node["backing"] = below
            if each.secret:
                node["encrypt"] = {"format": "luks", "key-secret": passphrases.add(each.passphrase)}
            if each.layer == base:
                node["node-name"] = "base"
            if place == 0:
                node["node-name"] = "top"
        assert node is not None
        return node

    def _tools(self, size_bytes: int) -> Tools:
        """For a file of a disk of so many bytes."""
        return Tools(owner=self._owner, file_limit_bytes=size_bytes + size_bytes // 8 + (1 << 30))

    def _own_bytes(self, layer: str) -> int:
        return self.layer_path(layer).stat().st_blocks * 512

    def _check_room(
        self, name: str, chain: Sequence[LayerFile], source: dict[str, object], tools: Tools, passphrases: Passphrases
    ) -> None:
        """Raise CapacityError rather than fill the disk on which guests write."""
        needed = sum(self._own_bytes(each.layer) for each in chain)
        if needed + _SPARE_BYTES > self.free_bytes():
            # That counts what lies below what was written later. This looks at each cluster's place, but at no data.
            text = tools.img("measure", "--output=json", "-O", "qcow2", _json(source), passphrases=passphrases)
            needed = int(json.loads(text)["required"])
            self._check_space(name, needed)

    def _check_space(self, name: str, needed: int) -> None:
        free = self.free_bytes()
        if needed + _SPARE_BYTES > free:
            raise CapacityError(f"{name} needs {needed} bytes on the disk, of which {free} are free")

    def _is_sealed(self, path: Path) -> bool:
        """Or was, until a merge began that is not done."""
        return stat.S_IMODE(path.stat().st_mode) in (_SEALED, _MERGING)

    def _seal(self, path: Path) -> None:
        """From now on nothing writes to it."""
        status = path.stat()
        # In this order QEMU can read it throughout.
        if stat.S_IMODE(status.st_mode) != _SEALED:
            os.chmod(path, _SEALED)
        if self._owner is not None and (status.st_uid, status.st_gid) != (0, self._owner[1]):
            os.chown(path, 0, self._owner[1])

    def _give_to_qemu(self, path: Path, mode: int) -> None:
        if self._owner is not None:
            os.chown(path, *self._owner)
        os.chmod(path, mode)

    @staticmethod
    def _unfinished(path: Path) -> Path:
        """What a file is called that this thread is making."""
        return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")

    @contextlib.contextmanager
    def _new_file(self, path: Path) -> Iterator[int]:
        """A descriptor to write; the file gets its name when the block ends well, and is gone when it does not."""
        temporary = self._unfinished(path)
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            os.fdatasync(file)
            os.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)


def remove_unfinished(place: Path) -> None:
    """What another process was making when it was killed. One that lives holds a lock on it."""
    for path in place.glob(".*"):
        if path.is_symlink() or not path.is_file():
            continue  # nothing of ours: a filer's snapshots, say
        with contextlib.suppress(FileNotFoundError, BlockingIOError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def checked(name: str, what: str) -> str:
    if not NAME.fullmatch(name):
        raise HostError(f"'{name}' cannot be the name of a {what}: {NAME.pattern}", retryable=False)
    return name


def directory(path: Path, mode: int) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    os.chmod(path, mode)
    return path


@contextlib.contextmanager
def room_needed(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CapacityError(f"{what}: there is no room on the disk") from error
        raise HostError(f"{what}: {error}") from error


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _whole_sectors(name: str, size_bytes: int) -> int:
    size_bytes = -(-size_bytes // SECTOR) * SECTOR
    if not 0 < size_bytes <= MAX_VIRTUAL_BYTES:
        raise HostError(f"{name}: {size_bytes} bytes; 1 to {MAX_VIRTUAL_BYTES} are allowed", retryable=False)
    return size_bytes


def _json(node: dict[str, object]) -> str:
    return "json:" + json.dumps(node)


def _option(path: Path) -> str:
    """As the value of an option in a list that commas separate."""
    return str(path).replace(",", ",,")


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()

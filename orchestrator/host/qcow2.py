"""Disks as a tree of qcow2 files, each on top of its parent, under one directory.

    STATE_DIR/layers/LAYER.qcow2        a layer; its parent is named in its header, relative, with its format stated
             /kernels/LAYER/            kernel, initrd and cmdline of an image that starts without a boot loader
             /uploads/UPLOAD            an untrusted file until it is imported
             /making/                   what is being made; nothing here is needed after a crash

A layer that has children, or that came out of a recipe or an import, is sealed: root's, and readable by QEMU alone. The
others are QEMU's to write. A file gets its name when it is whole, so whatever has a name can be used.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import struct
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.host import BuiltImage, CapacityError, HostError, LayerStatus
from orchestrator.host.imagefile import GIB, MAX_VIRTUAL_BYTES, SECTOR, ImageRefused, Qcow2Header, inspect, read_qcow2
from orchestrator.host.sandbox import convert, run_lines
from orchestrator.host.xml import KernelFiles

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_SUFFIX = ".qcow2"
_KEPT_LINES = 15
_CLUSTER_BITS = 16


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe.toml. `boot` is kernel (it comes with a kernel and a ramdisk) or disk."""

    description: str
    root_device: str
    login_user: str
    boot: str


class QcowStorage:
    """Storage in files. `owner` is the user and group that QEMU runs as; None leaves owners alone."""

    def __init__(
        self,
        state_dir: Path,
        images_dir: Path,
        *,
        owner: tuple[int, int] | None = None,
        max_import_bytes: int = 2048 * GIB,
        build_timeout_s: float = 3600,
    ) -> None:
        self._images_dir = images_dir
        self._owner = owner
        self._max_import_bytes = max_import_bytes
        self._build_timeout_s = build_timeout_s
        # QEMU's user passes through the first two and can list neither.
        self._layers = _directory(state_dir / "layers", 0o711)
        self._kernels = _directory(state_dir / "kernels", 0o711)
        self._uploads = _directory(state_dir / "uploads", 0o700)
        self._work = _directory(state_dir / "making", 0o700)

    # --- where things are, for who runs machines on them ---

    def layer_path(self, layer: str) -> Path:
        return self._layers / (_checked(layer, "layer") + _SUFFIX)

    def kernel_files(self, layer: str) -> KernelFiles:
        """The kernel and ramdisk that came with `layer`. Raises HostError when there are none."""
        directory = self._kernels / _checked(layer, "layer")
        kernel, initrd = directory / "kernel", directory / "initrd"
        if not kernel.is_file():
            raise HostError(f"no kernel came with {layer}", retryable=False)
        return KernelFiles(kernel=kernel, initrd=initrd if initrd.is_file() else None)

    # --- layers ---

    def create_layer(self, name: str, *, size_bytes: int, parent: str = "") -> None:
        path = self.layer_path(name)
        backing = f"{_checked(parent, 'layer')}{_SUFFIX}" if parent else ""
        if parent:
            status = self.observe_layer(parent)
            if status is None:
                raise HostError(f"{name} cannot be made: its parent {parent} is not there", retryable=False)
            size_bytes = max(size_bytes, status.size_bytes)
        size_bytes = -(-size_bytes // SECTOR) * SECTOR
        if not 0 < size_bytes <= MAX_VIRTUAL_BYTES:
            raise HostError(f"{name}: {size_bytes} bytes; 1 to {MAX_VIRTUAL_BYTES} are allowed", retryable=False)
        existing = self._header(path)
        if existing is not None:
            if existing.backing_file != backing:
                raise HostError(f"{name} is there, on {existing.backing_file or 'nothing'}", retryable=False)
            if existing.virtual_bytes < size_bytes:
                _qemu_img("resize", "-q", "-f", "qcow2", str(path), str(size_bytes))
            return
        if parent:
            self._seal(self.layer_path(parent))
        with self._new_file(path) as file:
            write_qcow2(file, size_bytes=size_bytes, backing_file=backing)
            if self._owner is not None:
                os.fchown(file, *self._owner)

    def remove_layer(self, name: str) -> None:
        self.layer_path(name).unlink(missing_ok=True)

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
        return sorted(name for name in names if _NAME.fullmatch(name))

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._layers).free

    # --- images ---

    def catalogue(self) -> dict[str, BuiltImage]:
        return {}

    def recipes(self) -> list[str]:
        if not self._images_dir.is_dir():
            return []
        return sorted(
            entry.name
            for entry in os.scandir(self._images_dir)
            if _NAME.fullmatch(entry.name)
            and (Path(entry.path) / "recipe.toml").is_file()
            and os.access(Path(entry.path) / "build", os.X_OK)
        )

    def build_image(self, recipe: str, layer: str, progress: Callable[[str], None]) -> BuiltImage:
        if recipe not in self.recipes():
            known = ", ".join(self.recipes()) or "none"
            raise HostError(f"there is no recipe {recipe}; {known} can be built", retryable=False)
        directory = self._images_dir / recipe
        about = read_recipe(directory / "recipe.toml")
        if self._header(self.layer_path(layer)) is None:
            with self._scratch(f"build-{layer}") as work:
                output = work / "output"
                output.mkdir()
                self._run_recipe(directory / "build", work, output, progress)
                arguments = self._take_kernel(output, layer) if about.boot == "kernel" else None
                self._adopt(output / "disk.qcow2", layer)
        else:
            arguments = self._kernel_arguments(layer) if about.boot == "kernel" else None
        progress("compute the checksum")
        return self._built(layer, about, arguments)

    def receive_upload(self, upload: str, chunks: Iterator[bytes], limit_bytes: int) -> str:
        path = self._uploads / _checked(upload, "upload")
        digest = hashlib.sha512()
        received = 0
        with _room_needed(f"upload {upload}"), self._new_file(path) as file:
            for chunk in chunks:
                received += len(chunk)
                if received > limit_bytes:
                    raise HostError(f"the upload has more than the allowed {limit_bytes} bytes", retryable=False)
                digest.update(chunk)
                _write_all(file, chunk)
        return digest.hexdigest()

    def import_image(self, upload: str, file_format: str, layer: str, progress: Callable[[str], None]) -> BuiltImage:
        source = self._uploads / _checked(upload, "upload")
        about = Recipe(description="", root_device="/dev/xvda", login_user="ec2-user", boot="disk")
        if self._header(self.layer_path(layer)) is None:
            if not source.is_file():
                raise HostError(f"there is no upload {upload}", retryable=False)
            try:
                progress(f"read the file as {file_format}")
                size_bytes = inspect(source, file_format, max_virtual_bytes=self._max_import_bytes)
                with self._scratch(f"import-{layer}") as work:
                    progress("convert the disk")
                    disk = work / "disk.qcow2"
                    with _room_needed(f"import {upload}"):
                        convert(source, file_format, disk, virtual_bytes=size_bytes)
                    if read_qcow2(disk).virtual_bytes > size_bytes:
                        raise ImageRefused("it grew while it was converted")
                    self._adopt(disk, layer)
            except ImageRefused:
                source.unlink(missing_ok=True)
                raise
        progress("compute the checksum")
        built = self._built(layer, about, None)
        source.unlink(missing_ok=True)
        return built

    def remove_kernel(self, layer: str) -> None:
        shutil.rmtree(self._kernels / _checked(layer, "layer"), ignore_errors=True)

    # --- how ---

    def _header(self, path: Path) -> Qcow2Header | None:
        try:
            return read_qcow2(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"{path.name} cannot be read: {error}") from error

    def _seal(self, path: Path) -> None:
        """From now on nothing writes to it."""
        if self._owner is None:
            os.chmod(path, 0o440)
            return
        status = path.stat()
        if (status.st_uid, status.st_gid, status.st_mode & 0o777) != (0, self._owner[1], 0o440):
            os.chown(path, 0, self._owner[1])
            os.chmod(path, 0o440)

    def _adopt(self, disk: Path, layer: str) -> None:
        """A finished disk becomes `layer`."""
        try:
            header = read_qcow2(disk)
        except FileNotFoundError:
            raise HostError(f"{layer}: the recipe left no {disk.name}", retryable=False) from None
        if header.backing_file:
            raise HostError(f"{layer}: the recipe's disk has a backing file ({header.backing_file})", retryable=False)
        self._seal(disk)
        _sync(disk)
        os.replace(disk, self.layer_path(layer))

    def _take_kernel(self, output: Path, layer: str) -> str:
        """Move the kernel of a finished build to its place; its arguments."""
        whole = output / "boot"
        whole.mkdir(mode=0o711)
        for name, needed in (("kernel", True), ("initrd", False), ("cmdline", True)):
            try:
                os.replace(output / name, whole / name)
            except FileNotFoundError:
                if needed:
                    raise HostError(f"{layer}: the recipe left no {name}", retryable=False) from None
                continue
            os.chmod(whole / name, 0o444)
            _sync(whole / name)
        self.remove_kernel(layer)
        os.replace(whole, self._kernels / _checked(layer, "layer"))
        return self._kernel_arguments(layer)

    def _kernel_arguments(self, layer: str) -> str:
        try:
            return (self._kernels / layer / "cmdline").read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise HostError(f"{layer}: its kernel's arguments cannot be read: {error}", retryable=False) from error

    def _run_recipe(self, build: Path, work: Path, output: Path, progress: Callable[[str], None]) -> None:
        kept: list[str] = []

        def line(text: str) -> None:
            if text.strip():
                kept.append(text)
                del kept[:-_KEPT_LINES]
                progress(text)

        environment = {**os.environ, "LC_ALL": "C", "TMPDIR": str(work)}
        status = run_lines(
            [*(_ALONE if os.geteuid() == 0 else ()), str(build), str(output)],
            build.parent,
            line,
            timeout_s=self._build_timeout_s,
            environment=environment,
        )
        if status != 0:
            raise HostError(f"{build} ended with status {status}: {'; '.join(kept[-3:])}", retryable=False)

    def _built(self, layer: str, about: Recipe, arguments: str | None) -> BuiltImage:
        path = self.layer_path(layer)
        with open(path, "rb") as file:
            sha512 = hashlib.file_digest(file, "sha512").hexdigest()
        return BuiltImage(
            size_bytes=read_qcow2(path).virtual_bytes,
            sha512=sha512,
            root_device=about.root_device,
            login_user=about.login_user,
            description=about.description,
            kernel_arguments=arguments,
        )

    @contextlib.contextmanager
    def _new_file(self, path: Path) -> Iterator[int]:
        """A descriptor to write; the file gets its name when the block ends well, and is gone when it does not."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
            os.fdatasync(descriptor)
            os.rename(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _scratch(self, name: str) -> Iterator[Path]:
        path = self._work / name
        _clear(path)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError as error:
            raise HostError(f"{path}, which an earlier attempt left, cannot be removed") from error
        try:
            yield path
        finally:
            _clear(path)


def _clear(path: Path) -> None:
    """Remove a folder, as far as it can be, whatever a build that was cut off has mounted in it."""
    for mount in sorted(_mounts_below(path), reverse=True):
        subprocess.run(
            ["umount", "--lazy", "--", str(mount)], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    shutil.rmtree(path, ignore_errors=True)


def _mounts_below(path: Path) -> list[Path]:
    escaped = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    places = (Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), each)) for each in escaped)
    return [place for place in places if path.resolve() in place.parents]


# A recipe has processes and mounts of its own, which end with it, and it ends with this process, however that ends.
_ALONE = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
    *("sh", "-c", '"$@"; exit $?', "recipe"),  # the first process of such a place is deaf to signals: not the recipe
)


def read_recipe(path: Path) -> Recipe:
    """Raises HostError that names the key which is missing or wrong."""
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise HostError(f"{path} cannot be read: {error}", retryable=False) from error
    for key in ("description", "root_device", "user", "boot"):
        if not isinstance(table.get(key), str):
            raise HostError(f"{path}: {key} must be a string", retryable=False)
    if table["boot"] not in ("kernel", "disk"):
        raise HostError(f"{path}: boot is '{table['boot']}'; kernel and disk are allowed", retryable=False)
    return Recipe(table["description"], table["root_device"], table["user"], table["boot"])


def write_qcow2(file: int, *, size_bytes: int, backing_file: str) -> None:
    """Write an empty qcow2 (version 3) of `size_bytes` to the open `file`, on `backing_file` (itself qcow2) or on none.

    It is what `qemu-img create -f qcow2 -F qcow2 -b ...` writes, without the ten milliseconds of starting a program.
    The clusters: header; reference count table; its first block; L1 table, empty.
    """
    cluster = 1 << _CLUSTER_BITS
    l1_entries = -(-size_bytes // (cluster * cluster // 8))
    l1_clusters = max(1, -(-l1_entries * 8 // cluster))
    extensions = b""
    if backing_file:
        extensions += struct.pack(">II8s", 0xE2792ACA, len("qcow2"), b"qcow2")
    extensions += bytes(8)
    name = backing_file.encode()
    header_bytes = 104
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        b"QFI\xfb",
        3,
        header_bytes + len(extensions) if name else 0,
        len(name),
        _CLUSTER_BITS,
        size_bytes,
        0,  # no encryption
        l1_entries,
        3 * cluster,
        cluster,
        1,
        0,  # no snapshots
        0,
        0,  # no features
        0,
        0,
        4,  # 16-bit reference counts
        header_bytes,
    )
    clusters = 3 + l1_clusters
    os.ftruncate(file, clusters * cluster)
    os.pwrite(file, header + extensions + name, 0)
    os.pwrite(file, struct.pack(">Q", 2 * cluster), cluster)
    os.pwrite(file, struct.pack(">H", 1) * clusters, 2 * cluster)


def _checked(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise HostError(f"'{name}' cannot be the name of a {what}: {_NAME.pattern}", retryable=False)
    return name


def _directory(path: Path, mode: int) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    os.chmod(path, mode)
    return path


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _room_needed(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CapacityError(f"{what}: there is no room on the disk") from error
        raise HostError(f"{what}: {error}") from error


def _qemu_img(*arguments: str) -> None:
    result = subprocess.run(
        ["qemu-img", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    if result.returncode != 0:
        raise HostError(f"qemu-img {arguments[0]}: {result.stderr.strip()}")

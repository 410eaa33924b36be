"""Storage in files: the layers (`layers.py`), and the images that recipes and imports bring, which become layers.

    STATE_DIR/layers/, exports/         see there
             /kernels/LAYER/            kernel, initrd and cmdline of an image that starts without a boot loader
             /uploads/UPLOAD            an untrusted file until it is imported
             /making/                   what is being made; nothing here is needed after a crash

A layer that came out of a recipe or an import is sealed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.host import BuiltImage, HostError
from orchestrator.host.command import environment
from orchestrator.host.imagefile import GIB, ImageRefused, inspect, read_qcow2
from orchestrator.host.layers import NAME, LayerFiles, checked, directory, remove_unfinished, room_needed, sync
from orchestrator.host.sandbox import convert, run_lines
from orchestrator.host.xml import KernelFiles

UPLOAD_KEPT_S = 86400.0
_KEPT_LINES = 15
_RECIPES_SETTINGS = ("ORC_DEBIAN_MIRROR", "ORC_DEBIAN_SECURITY_MIRROR")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe.toml. `boot` is kernel (it comes with a kernel and a ramdisk) or disk."""

    description: str
    root_device: str
    login_user: str
    boot: str


class QcowStorage(LayerFiles):
    """`owner` is the user and group that QEMU runs as; None leaves owners alone."""

    def __init__(
        self,
        state_dir: Path,
        images_dir: Path,
        *,
        owner: tuple[int, int] | None = None,
        max_import_bytes: int = 2048 * GIB,
        build_timeout_s: float = 3600,
    ) -> None:
        super().__init__(state_dir, owner)
        self._images_dir = images_dir
        self._max_import_bytes = max_import_bytes
        self._build_timeout_s = build_timeout_s
        # QEMU's group passes through the first and cannot list it. The files in it are open to all, since libvirt gives
        # a kernel to QEMU's user with one machine and takes it away with another.
        self._kernels = directory(state_dir / "kernels", 0o711 if owner is None else 0o710)
        if owner is not None:
            os.chown(self._kernels, -1, owner[1])
        self._uploads = directory(state_dir / "uploads", 0o700)
        self._work = directory(state_dir / "making", 0o700)
        remove_unfinished(self._uploads)
        for left in self._work.iterdir():
            with contextlib.suppress(BlockingIOError), _locked(left):
                _clear(left)

    def kernel_files(self, layer: str) -> KernelFiles:
        """The kernel and ramdisk that came with `layer`. Raises HostError when there are none."""
        directory = self._kernels / checked(layer, "layer")
        kernel, initrd = directory / "kernel", directory / "initrd"
        if not kernel.is_file():
            raise HostError(f"no kernel came with {layer}", retryable=False)
        return KernelFiles(kernel=kernel, initrd=initrd if initrd.is_file() else None)

    # --- images ---

    def catalogue(self) -> dict[str, BuiltImage]:
        return {}

    def recipes(self) -> list[str]:
        if not self._images_dir.is_dir():
            return []
        return sorted(
            entry.name
            for entry in os.scandir(self._images_dir)
            if NAME.fullmatch(entry.name)
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
        path = self._uploads / checked(upload, "upload")
        self._forget_old_uploads()
        digest = hashlib.sha512()
        received = 0
        with room_needed(f"upload {upload}"), self._new_file(path) as file:
            for chunk in chunks:
                received += len(chunk)
                if received > limit_bytes:
                    raise HostError(f"the upload has more than the allowed {limit_bytes} bytes", retryable=False)
                digest.update(chunk)
                _write_all(file, chunk)
        return digest.hexdigest()

    def _forget_old_uploads(self) -> None:
        """Those that nobody has imported: whoever sent them has gone."""
        oldest = time.time() - UPLOAD_KEPT_S
        for path in self._uploads.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def import_image(
        self,
        upload: str,
        file_format: str,
        layer: str,
        progress: Callable[[str], None],
        done: Callable[[float], None] = lambda done: None,
    ) -> BuiltImage:
        source = self._uploads / checked(upload, "upload")
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
                    with room_needed(f"import {upload}"):
                        convert(source, file_format, disk, virtual_bytes=size_bytes, progress=done)
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

    def remove_upload(self, upload: str) -> None:
        (self._uploads / checked(upload, "upload")).unlink(missing_ok=True)

    def kernels(self) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self._kernels) if NAME.fullmatch(entry.name))

    def remove_kernel(self, layer: str) -> None:
        shutil.rmtree(self._kernels / checked(layer, "layer"), ignore_errors=True)

    # --- how ---

    def _adopt(self, disk: Path, layer: str) -> None:
        """A finished disk becomes `layer`."""
        try:
            header = read_qcow2(disk)
        except FileNotFoundError:
            raise HostError(f"{layer}: the recipe left no {disk.name}", retryable=False) from None
        if header.backing_file:
            raise HostError(f"{layer}: the recipe's disk has a backing file ({header.backing_file})", retryable=False)
        self._seal(disk)
        sync(disk)
        os.replace(disk, self.layer_path(layer))
        sync(self.layer_path(layer).parent)

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
            sync(whole / name)
        self.remove_kernel(layer)
        os.replace(whole, self._kernels / checked(layer, "layer"))
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

        status = run_lines(
            [*(_ALONE if os.geteuid() == 0 else ()), str(build), str(output)],
            build.parent,
            line,
            timeout_s=self._build_timeout_s,
            environment={**environment(*_RECIPES_SETTINGS), "TMPDIR": str(work)},
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
    def _scratch(self, name: str) -> Iterator[Path]:
        path = self._work / name
        _clear(path)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError as error:
            raise HostError(f"{path}, which an earlier attempt left, cannot be removed") from error
        try:
            with _locked(path):
                yield path
        finally:
            _clear(path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Others see that this process works in it. Raises BlockingIOError where another one does."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(folder)


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


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]

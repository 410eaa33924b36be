"""Storage in memory: layers are sizes, parents and secrets, and there is not a byte in them.

What it refuses is what files refuse: a layer without its parent, a chain that is not so, a secret that does not open, a
copy for which there is no room. The rest succeeds at once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.host import BuiltImage, CapacityError, ExportedFile, HostError, LayerFile, LayerStatus

GIB = 1 << 30

# Raises HostError to make a call fail: method, and the name that it is about.
Fault = Callable[[str, str], None]

_IMAGES = {
    "debian-12": BuiltImage(
        size_bytes=2 * GIB,
        sha512=hashlib.sha512(b"debian-12").hexdigest(),
        root_device="/dev/xvda",
        login_user="admin",
        description="Debian 12 (bookworm), simulated",
        kernel_arguments=None,
    ),
    "tiny": BuiltImage(
        size_bytes=1 * GIB,
        sha512=hashlib.sha512(b"tiny").hexdigest(),
        root_device="/dev/xvda",
        login_user="ec2-user",
        description="A kernel and busybox, simulated",
        kernel_arguments="console=ttyS0 root=/dev/vda",
    ),
}

_FORMATS = ("raw", "qcow2", "vmdk", "vhd", "vhdx")


def no_fault(method: str, name: str) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    size_bytes: int
    parent: str = ""
    secret: bytes = b""
    sealed: bool = False
    sha512: str = ""  # of what was imported


class MemoryStorage:
    """A layer that is not there is taken as it comes, since a host in memory forgets its layers with its process and
    the store does not; `strict` makes it an error, as on a real host."""

    def __init__(self, *, free_bytes: int = 1 << 60, strict: bool = False) -> None:
        self.fault: Fault = no_fault
        self.strict = strict
        self._free_bytes = free_bytes
        self._lock = threading.Lock()
        self._layers: dict[str, _Layer] = {}
        self._uploads: dict[str, tuple[int, str]] = {}
        self._kernels: set[str] = set()

    def create_layer(self, name: str, *, size_bytes: int, parent: str = "", secret: bytes = b"") -> None:
        self.fault("create_layer", name)
        with self._lock:
            below = self._layers.get(parent)
            if parent and below is None and self.strict:
                raise HostError(f"{name} cannot be made: its parent {parent} is not there", retryable=False)
            known = self._layers.get(name)
            if known is not None and known.parent != parent:
                raise HostError(f"{name} is there, on {known.parent or 'nothing'}", retryable=False)
            size_bytes = max(size_bytes, below.size_bytes if below else 0)
            if size_bytes <= 0:
                raise HostError(f"{name}: {size_bytes} bytes; at least 1 is needed", retryable=False)
            if known is None:
                self._layers[name] = _Layer(size_bytes=size_bytes, parent=parent, secret=secret)
            elif known.size_bytes < size_bytes:
                self._check_secret(LayerFile(name, secret), known)
                if known.sealed:
                    raise HostError(f"{name} cannot grow: it is sealed", retryable=False)
                self._layers[name] = replace(known, size_bytes=size_bytes)
            if below is not None:
                self._layers[parent] = replace(below, sealed=True)

    def copy_layer(
        self,
        name: str,
        chain: Sequence[LayerFile],
        *,
        size_bytes: int,
        secret: bytes = b"",
        progress: Callable[[float], None] = lambda done: None,
    ) -> None:
        self.fault("copy_layer", name)
        with self._lock:
            if name in self._layers:
                return
            self._check_chain(chain)
            source = self._layers.get(chain[0].layer)
            size_bytes = max(size_bytes, source.size_bytes if source else 1)
            if size_bytes > self._free_bytes:
                raise CapacityError(f"{name} needs {size_bytes} bytes, of which {self._free_bytes} are free")
            self._layers[name] = _Layer(size_bytes=size_bytes, secret=secret)
        progress(1.0)

    def merge_layer(self, chain: Sequence[LayerFile], onto: str) -> None:
        top = chain[0].layer
        self.fault("merge_layer", top)
        if onto and onto not in [each.layer for each in chain[1:]]:
            raise HostError(f"{top} cannot be merged onto {onto}: it does not lie on it", retryable=False)
        with self._lock:
            known = self._layers.get(top)
            if known is None:
                if self.strict:
                    raise HostError(f"{top} cannot be merged: it is not there", retryable=False)
                return
            if known.parent != onto:
                self._check_chain(chain)
                self._layers[top] = replace(known, parent=onto)

    def reparent_layer(self, layer: LayerFile, parent: str) -> None:
        self.fault("reparent_layer", layer.layer)
        with self._lock:
            known = self._layers.get(layer.layer)
            if self.strict and (known is None or parent not in self._layers):
                raise HostError(f"{layer.layer} cannot lie on {parent}: it is not there", retryable=False)
            if known is not None:
                self._layers[layer.layer] = replace(known, parent=parent)

    def seal_layer(self, name: str) -> None:
        self.fault("seal_layer", name)
        with self._lock:
            known = self._layers.get(name)
            if known is not None:
                self._layers[name] = replace(known, sealed=True)
            elif self.strict:
                raise HostError(f"{name} cannot be sealed: it is not there", retryable=False)

    def unseal_layer(self, name: str) -> None:
        self.fault("unseal_layer", name)
        with self._lock:
            known = self._layers.get(name)
            if known is not None and not known.sealed:
                return
            for other, layer in self._layers.items():
                if layer.parent == name:
                    raise HostError(f"{name} cannot be written to: {other} lies on it", retryable=False)
            if known is not None:
                self._layers[name] = replace(known, sealed=False)
            elif self.strict:
                raise HostError(f"{name} cannot be written to: it is not there", retryable=False)

    def verify_layer(self, chain: Sequence[LayerFile], sha512: str = "") -> list[str]:
        self.fault("verify_layer", chain[0].layer)
        with self._lock:
            known = self._layers.get(chain[0].layer)
            if known is None:
                return [f"{chain[0].layer}: it is not there"]
            below = chain[1].layer if len(chain) > 1 else ""
            found: list[str] = []
            if known.parent != below:
                found.append(f"{chain[0].layer}: it lies on {known.parent or 'nothing'}, not on {below or 'nothing'}")
            try:
                self._check_secret(chain[0], known)
            except HostError as error:
                found.append(str(error))
            return found

    def export_layer(
        self,
        chain: Sequence[LayerFile],
        file_format: str,
        name: str,
        progress: Callable[[float], None] = lambda done: None,
    ) -> ExportedFile:
        self.fault("export_layer", name)
        if file_format not in _FORMATS:
            known = ", ".join(_FORMATS)
            raise HostError(f"'{file_format}' is not a format that is written; {known} are", retryable=False)
        with self._lock:
            self._check_chain(chain)
            source = self._layers.get(chain[0].layer)
        progress(1.0)
        content = f"{file_format} of {source.size_bytes if source else 0} bytes (simulated)".encode()
        return ExportedFile(
            path=f"/simulated/{name}", size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
        )

    def remove_export(self, name: str) -> None:
        self.fault("remove_export", name)

    def remove_layer(self, name: str) -> None:
        self.fault("remove_layer", name)
        with self._lock:
            self._layers.pop(name, None)

    def observe_layer(self, name: str) -> LayerStatus | None:
        self.fault("observe_layer", name)
        with self._lock:
            known = self._layers.get(name)
            return LayerStatus(name, known.size_bytes, 0, known.parent) if known else None

    def opened_layer(self, name: str) -> LayerStatus | None:
        """As `observe_layer`, for who runs machines on it: without a fault."""
        with self._lock:
            known = self._layers.get(name)
            return LayerStatus(name, known.size_bytes, 0, known.parent) if known else None

    def write_header(self, name: str, *, size_bytes: int, parent: str) -> None:
        """What QEMU does to a layer that it has open."""
        with self._lock:
            if name in self._layers:
                self._layers[name] = replace(self._layers[name], size_bytes=size_bytes, parent=parent)

    def layers(self) -> list[str]:
        self.fault("layers", "")
        with self._lock:
            return sorted(self._layers)

    def catalogue(self) -> dict[str, BuiltImage]:
        return dict(_IMAGES)

    def recipes(self) -> list[str]:
        return sorted(_IMAGES)

    def build_image(self, recipe: str, layer: str, progress: Callable[[str], None]) -> BuiltImage:
        self.fault("build_image", layer)
        if recipe not in _IMAGES:
            raise HostError(f"there is no recipe {recipe}; {', '.join(_IMAGES)} can be built", retryable=False)
        progress("simulate a build")
        built = _IMAGES[recipe]
        with self._lock:
            self._layers[layer] = _Layer(size_bytes=built.size_bytes, sealed=True)
            if built.kernel_arguments is not None:
                self._kernels.add(layer)
        return built

    def receive_upload(self, upload: str, chunks: Iterator[bytes], limit_bytes: int) -> str:
        self.fault("receive_upload", upload)
        digest = hashlib.sha512()
        received = 0
        for chunk in chunks:
            received += len(chunk)
            if received > limit_bytes:
                raise HostError(f"the upload has more than the allowed {limit_bytes} bytes", retryable=False)
            digest.update(chunk)
        with self._lock:
            self._uploads[upload] = (received, digest.hexdigest())
        return digest.hexdigest()

    def import_image(
        self,
        upload: str,
        file_format: str,
        layer: str,
        progress: Callable[[str], None],
        done: Callable[[float], None] = lambda done: None,
    ) -> BuiltImage:
        self.fault("import_image", layer)
        formats = (*_FORMATS, "ova")
        if file_format not in formats:
            raise HostError(f"'{file_format}' is not a format that is read; {', '.join(formats)} are", retryable=False)
        progress("simulate an import")
        done(1.0)
        with self._lock:
            known = self._layers.get(layer)
            if known is None:
                if upload not in self._uploads:
                    raise HostError(f"there is no upload {upload}", retryable=False)
                received, sha512 = self._uploads.pop(upload)
                if not received:
                    raise HostError("the image is refused: it is empty", retryable=False)
                known = self._layers[layer] = _Layer(size_bytes=-(-received // 512) * 512, sealed=True, sha512=sha512)
            self._uploads.pop(upload, None)
        return BuiltImage(
            size_bytes=known.size_bytes,
            sha512=known.sha512,
            root_device="/dev/xvda",
            login_user="ec2-user",
            description="",
            kernel_arguments=None,
        )

    def remove_upload(self, upload: str) -> None:
        self.fault("remove_upload", upload)
        with self._lock:
            self._uploads.pop(upload, None)

    def checksum_layer(self, name: str) -> str:
        self.fault("checksum_layer", name)
        with self._lock:
            return hashlib.sha512(name.encode()).hexdigest() if name in self._layers else ""

    def kernels(self) -> list[str]:
        return sorted(self._kernels)

    def remove_kernel(self, layer: str) -> None:
        self.fault("remove_kernel", layer)
        self._kernels.discard(layer)

    def free_bytes(self) -> int:
        return self._free_bytes

    def total_bytes(self) -> int:
        return self._free_bytes

    # --- what no Protocol has ---

    def is_sealed(self, name: str) -> bool:
        with self._lock:
            return self._layers[name].sealed

    def _check_chain(self, chain: Sequence[LayerFile]) -> None:
        for place, each in enumerate(chain):
            known = self._layers.get(each.layer)
            if known is None:
                if self.strict:
                    raise HostError(f"{each.layer} is not there", retryable=False)
                continue
            below = chain[place + 1].layer if place + 1 < len(chain) else ""
            if known.parent != below:
                raise HostError(
                    f"{each.layer} lies on {known.parent or 'nothing'}, not on {below or 'nothing'}", retryable=False
                )
            self._check_secret(each, known)

    def _check_secret(self, layer: LayerFile, known: _Layer) -> None:
        if layer.secret != known.secret:
            raise HostError(f"{layer.layer} cannot be opened: its secret is another one", retryable=False)

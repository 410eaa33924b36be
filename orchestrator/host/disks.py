"""The disks of domains that run: seen, plugged, switched to new tops, grown, limited and flattened.

What a domain's disks are like is asked of libvirt each time, which follows QEMU's block jobs; their size is read from
the header of the top layer's file, where QEMU writes it, at a hundredth of the price of asking QEMU.

    a snapshot                                        flattening onto a
    [base] <- [a] <- [top]                            [base] <- [a] <- [b] <- [c] <- [top]
    [base] <- [a] <- [top] <- [new top]               [base] <- [a] <------- [top, with b's and c's]
              the guest writes here from one instant on           b and c stay as files: others may lie on them

Layers are opened with libvirt secrets, which live in libvirtd's memory alone and only while a call is under way that
opens files: QEMU keeps what it has been given, encrypted under a key of its own, and asks for nothing again.

    define, set value --> start, plug in, switch --> undefine
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.etree import ElementTree

import libvirt

from orchestrator.host import Disk, DiskStatus, HostError, LayerFile, Limits
from orchestrator.host.devices import address_of, choose_number, name_of
from orchestrator.host.imagefile import ImageRefused, Qcow2Header, read_qcow2
from orchestrator.host.xml import (
    MAX_DISKS,
    DomainTemplate,
    KernelFiles,
    alias,
    disk_address,
    iotune,
    secret_uuid,
)

_AGENT = "org.qemu.guest_agent.0"
_AGENT_ANSWERS_S = 3  # to a question that it answers at once
_AGENT_FREEZES_S = 10  # time to flush; Windows' own limit is the same
_THAW_TRIES = 3

_SWITCH = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
)
# Why a domain may be paused when a disk could not be written; libvirtd, started anew, may not know.
_PAUSED_BY_DISK = (libvirt.VIR_DOMAIN_PAUSED_IOERROR, libvirt.VIR_DOMAIN_PAUSED_UNKNOWN)


class MachineFiles(Protocol):
    """Where the storage keeps what a machine is made of."""

    def layer_path(self, layer: str) -> Path: ...

    def kernel_files(self, layer: str) -> KernelFiles: ...


@dataclass(frozen=True, slots=True)
class _Present:
    """A disk as libvirt prints it."""

    serial: str
    target: str
    address: tuple[int, int]
    files: tuple[str, ...]  # top first

    @property
    def chain(self) -> tuple[str, ...]:
        return tuple(Path(file).stem for file in self.files)


class DomainDisks:
    """`tree` is a domain's XML as libvirt prints it now. Errors of libvirt's pass."""

    def __init__(self, deployment: str, files: MachineFiles, template: DomainTemplate) -> None:
        self._deployment = deployment
        self._files = files
        self._template = template
        self._lock = threading.Lock()
        self._lent: Counter[str] = Counter()

    # --- files and what opens them ---

    def paths(self, about: str, disks: Iterable[Disk]) -> dict[str, Path]:
        """The file of each layer of these disks. Raises HostError when one is not there, or when its header names
        another parent than its chain: QEMU would take the chain's word, and the guest read what is not its own."""
        disks = tuple(disks)
        paths = {layer.layer: self._files.layer_path(layer.layer) for disk in disks for layer in disk.chain}
        for disk in disks:
            names = [layer.layer for layer in disk.chain]
            for name, parent in zip(names, [*names[1:], ""], strict=True):
                _check_parent(about, paths[name], parent)
        return paths

    @contextlib.contextmanager
    def opened(self, connection: Any, layers: Iterable[LayerFile]) -> Iterator[None]:
        """libvirt can open these layers meanwhile."""
        locked = {layer.layer: layer for layer in layers if layer.secret}
        with contextlib.ExitStack() as undo:
            for layer in locked.values():
                undo.callback(self._take_back, connection, layer.layer)
                self._lend(connection, layer)
            yield

    def forget_secrets(self, connection: Any, tree: ElementTree.Element) -> None:
        """Undefine what a process that was killed has left defined for this domain."""
        layers = {
            Path(source.get("file", "")).stem for source in tree.iter("source") if source.find("encryption") is not None
        }
        for layer in layers:
            with self._lock:
                if not self._lent[layer]:
                    self._undefine(connection, layer)

    def _lend(self, connection: Any, layer: LayerFile) -> None:
        with self._lock:
            self._lent[layer.layer] += 1
            # Also when it is lent already: libvirtd may have been started anew since.
            secret = connection.secretDefineXML(
                self._template.render_secret(layer.layer, deployment=self._deployment), 0
            )
            secret.setValue(layer.passphrase.encode(), 0)

    def _take_back(self, connection: Any, layer: str) -> None:
        with self._lock:
            self._lent[layer] -= 1
            if self._lent[layer] <= 0:
                del self._lent[layer]
                self._undefine(connection, layer)

    def _undefine(self, connection: Any, layer: str) -> None:
        with contextlib.suppress(libvirt.libvirtError):  # libvirtd has ended meanwhile, and the secret with it
            connection.secretLookupByUUIDString(secret_uuid(layer, deployment=self._deployment)).undefine()

    # --- what is so ---

    def observe(self, domain: Any, tree: ElementTree.Element) -> tuple[DiskStatus, ...]:
        return tuple(self._status(domain, disk) for disk in _disks(tree).values())

    def _status(self, domain: Any, disk: _Present) -> DiskStatus:
        # A job needs something to copy from, and to ask is not free.
        job = _job(domain, disk.target) if len(disk.files) > 1 else {}
        end = job.get("end", 0)
        flattening = None
        if job:
            flattening = job.get("cur", 0) / end if end else 0.0
        return DiskStatus(
            serial=disk.serial,
            chain=disk.chain,
            size_bytes=_header(Path(disk.files[0])).virtual_bytes,
            flattening=flattening,
        )

    def error(self, domain: Any, reason: int, tree: ElementTree.Element) -> str:
        """Why a domain that is paused for `reason` is so, if a disk is why."""
        if reason not in _PAUSED_BY_DISK:
            return ""
        errors: dict[str, int] = domain.diskErrors(0)
        if libvirt.VIR_DOMAIN_DISK_ERROR_NO_SPACE in errors.values():
            return "no space"
        serials = [disk.serial for disk in _disks(tree).values() if disk.target in errors]
        if serials:
            return f"{', '.join(serials)} cannot be read or written"
        return "a disk cannot be read or written" if reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR else ""

    # --- what is done ---

    def plug_in(self, connection: Any, domain: Any, tree: ElementTree.Element, disk: Disk) -> None:
        present = _disks(tree)
        if disk.serial in present:
            return
        name = domain.name()
        taken = {serial: other.address for serial, other in present.items()}
        index = choose_number(name, "disk", disk.serial, disk.index, taken, most=MAX_DISKS, address=disk_address)
        paths = self.paths(f"{disk.serial} cannot be plugged into {name}", [disk])
        try:
            xml = self._template.render_disk(disk, index, paths, deployment=self._deployment)
        except ValueError as error:
            raise HostError(str(error), retryable=False) from error
        with self.opened(connection, disk.chain):
            domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def unplug(self, domain: Any, tree: ElementTree.Element, serial: str) -> None:
        if serial in _disks(tree):
            domain.detachDeviceAlias(alias(serial), libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def switch(
        self,
        connection: Any,
        domain: Any,
        tree: ElementTree.Element,
        tops: Mapping[str, LayerFile],
        *,
        freeze: bool,
    ) -> bool:
        disks = {serial: _present(domain, tree, serial) for serial in tops}
        due = [(disk, tops[serial]) for serial, disk in disks.items() if disk.chain[0] != tops[serial].layer]
        if not due:
            if freeze and _has_agent(tree):
                _thaw_again(domain)
            return False
        about = f"{domain.name()} cannot be switched"
        paths = {top.layer: self._files.layer_path(top.layer) for _, top in due}
        for disk, top in due:
            _check_parent(f"{about} ({disk.serial})", paths[top.layer], disk.chain[0])
        for disk, _ in due:
            self._stop(domain, disk)
            _flush(Path(disk.files[0]))
        switched = {disk.target: top for disk, top in due}
        targets = [target.get("dev", "") for target in tree.iterfind("./devices/disk/target")]
        xml = self._template.render_switch(
            switched, [target for target in targets if target not in switched], paths, deployment=self._deployment
        )
        with self.opened(connection, (top for _, top in due)), _frozen(domain, tree, wanted=freeze) as frozen:
            domain.snapshotCreateXML(xml, _SWITCH)
        return frozen

    def resize(self, domain: Any, tree: ElementTree.Element, serial: str, size_bytes: int) -> None:
        disk = _present(domain, tree, serial)
        if _header(Path(disk.files[0])).virtual_bytes < size_bytes:
            self._stop(domain, disk)
            domain.blockResize(disk.target, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)

    def limit(self, domain: Any, tree: ElementTree.Element, serial: str, limits: Limits | None) -> None:
        target = _present(domain, tree, serial).target
        domain.setBlockIoTune(target, iotune(limits), libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def flatten(self, domain: Any, tree: ElementTree.Element, serial: str, onto: str) -> None:
        disk = _present(domain, tree, serial)
        if onto and onto not in disk.chain[1:]:
            raise HostError(
                f"{serial} of {domain.name()} cannot be flattened onto {onto}: below its top are"
                f" {', '.join(disk.chain[1:]) or 'no layers'}",
                retryable=False,
            )
        below = disk.files[disk.chain.index(onto) :] if onto else ()
        if len(disk.files) <= 1 + len(below) or _job(domain, disk.target):
            return
        if below:
            # Relative, as the storage names parents, so that the directory may be moved.
            domain.blockRebase(disk.target, below[0], 0, libvirt.VIR_DOMAIN_BLOCK_REBASE_RELATIVE)
        else:
            domain.blockRebase(disk.target, None, 0, 0)

    def flush(self, tree: ElementTree.Element) -> None:
        """What was written to the files is on the disk: the rest is quickly done."""
        for disk in _disks(tree).values():
            _flush(Path(disk.files[0]))

    def stop_flattening(self, domain: Any, tree: ElementTree.Element, serial: str) -> None:
        disk = _disks(tree).get(serial)
        if disk is not None:
            self._stop(domain, disk)

    def _stop(self, domain: Any, disk: _Present) -> None:
        if not _job(domain, disk.target):
            return
        try:
            domain.blockJobAbort(disk.target, 0)
        except libvirt.libvirtError:
            if _job(domain, disk.target):
                raise


def _disks(tree: ElementTree.Element) -> dict[str, _Present]:
    """What there is, by serial number, in the order of their numbers."""
    found = [
        _Present(serial, target.get("dev", ""), address_of(disk), tuple(_files(disk)))
        for disk in tree.iterfind("./devices/disk")
        if (serial := name_of(disk)) and (target := disk.find("target")) is not None
    ]
    return {disk.serial: disk for disk in sorted(found, key=lambda disk: disk.address)}


def _files(layer: ElementTree.Element | None) -> Iterator[str]:
    while layer is not None and (source := layer.find("source")) is not None:
        yield source.get("file", "")
        layer = layer.find("backingStore")


def _present(domain: Any, tree: ElementTree.Element, serial: str) -> _Present:
    disks = _disks(tree)
    if serial not in disks:
        raise HostError(f"{domain.name()} has no disk {serial}; it has {', '.join(disks) or 'none'}")
    return disks[serial]


def _job(domain: Any, target: str) -> dict[str, int]:
    """The block job of a disk; empty when there is none, it has no such disk any more, or has just gone off."""
    try:
        job: dict[str, int] = domain.blockJobInfo(target, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_INVALID_ARG, libvirt.VIR_ERR_OPERATION_INVALID):
            return {}
        raise
    return job


def _check_parent(about: str, path: Path, parent: str) -> None:
    if not path.exists():
        raise HostError(f"{about}: {path.stem} is not there")
    actual = Path(_header(path).backing_file).stem
    if actual != parent:
        raise HostError(f"{about}: {path.stem} lies on {actual or 'nothing'}, not on {parent or 'nothing'}")


def _header(path: Path) -> Qcow2Header:
    try:
        return read_qcow2(path)
    except (ImageRefused, OSError) as error:
        raise HostError(f"{path.stem} cannot be read: {error}") from error


def _flush(path: Path) -> None:
    """QEMU lets the guest wait while it does so itself, which takes long where much is waiting to be written."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def _frozen(domain: Any, tree: ElementTree.Element, *, wanted: bool) -> Iterator[bool]:
    """The guest's file systems are flushed and stand still meanwhile, if its agent can do that: whether it did."""
    if not wanted or not _has_agent(tree):
        yield False
        return
    frozen = False
    try:
        domain.agentSetResponseTimeout(_AGENT_ANSWERS_S, 0)
        domain.fsThaw(None, 0)  # a question, and the way out of what a process that was killed has left
        domain.agentSetResponseTimeout(_AGENT_FREEZES_S, 0)
        try:
            frozen = domain.fsFreeze(None, 0) > 0
        except libvirt.libvirtError:
            _thaw(domain)  # it may yet do what it did not do in time
    except libvirt.libvirtError:
        pass
    try:
        yield frozen
    finally:
        if frozen:
            _thaw(domain)


def _has_agent(tree: ElementTree.Element) -> bool:
    channels = tree.iterfind("./devices/channel/target")
    return any(channel.get("name") == _AGENT and channel.get("state") == "connected" for channel in channels)


def _thaw_again(domain: Any) -> None:
    """For a guest that may have been left frozen."""
    with contextlib.suppress(libvirt.libvirtError):
        domain.agentSetResponseTimeout(_AGENT_ANSWERS_S, 0)
    _thaw(domain)
    domain.isActive()  # an error where nobody was there to ask, so that it is tried again


def _thaw(domain: Any) -> None:
    for _ in range(_THAW_TRIES):
        try:
            domain.fsThaw(None, 0)
        except libvirt.libvirtError:
            continue
        return

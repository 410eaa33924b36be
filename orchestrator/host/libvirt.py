"""Machines as libvirt domains of one host.

What libvirt knows is asked for each time and nothing of it is kept, save how often a guest was reset, and whether that
was after its last panic, which libvirt only tells as it happens. A domain is persistent, so that it can still be asked
why it is off:

    (none) --define--> off --create--> running --guest, destroy, crash--> off, with the reason --undefine--> (none)
                                       |    ^
             its panic device is rung  v    | resume
                                       crashed: its QEMU runs on, as its kernel may dump itself and start anew

Other deployments, and people, have domains on the same host. A domain is ours when its metadata names our deployment;
the others do not exist for this module, whatever they are called.

Events carry no news here: they wake whoever watches, who looks for himself. After libvirtd was started anew everything
is woken once (connection.py). What there is to say about disks is in disks.py.

    console:  guest's serial port --> QEMU --+--> unix socket in run_dir, both ways (console_socket)
                                             +--> virtlogd --> file in console_dir, rotated at its max_size (console)
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

import libvirt

from orchestrator.host import (
    CapacityError,
    Disk,
    HostError,
    LayerFile,
    Limits,
    Machine,
    MachineStatus,
    Nic,
    OffReason,
    Power,
)
from orchestrator.host.confine import Confinement, security_models
from orchestrator.host.connection import Connection, ask_once
from orchestrator.host.devices import choose_number, nics, parse
from orchestrator.host.disks import DomainDisks, MachineFiles
from orchestrator.host.xml import (
    MAX_NICS,
    NAMESPACE,
    DomainFiles,
    DomainTemplate,
    alias,
    nic_address,
)

T = TypeVar("T")

_MAX_SOCKET_PATH = 107  # bytes: sockaddr_un(7)
_QEMU_LOGS = Path("/var/log/libvirt/qemu")
_LOG_BACKUPS = 3  # what virtlogd keeps by default: NAME.log.0 is the newest

_OFF_REASONS = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: OffReason.GUEST,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: OffReason.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: OffReason.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: OffReason.FAILED,
}
# The domain has ended, or is being removed.
_GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)


class LibvirtCompute:
    """The domains of `deployment` behind the connection `uri`.

    `run_dir` holds the sockets of serial ports and must be short (a socket's path has at most 107 bytes);
    `console_dir` holds what guests wrote to them. With `validate`, libvirt checks each definition against its schema.
    `memory_overcommit`: how much memory a new machine may have per memory that the host has available.
    """

    def __init__(
        self,
        *,
        uri: str,
        deployment: str,
        files: MachineFiles,
        run_dir: Path,
        console_dir: Path,
        accelerator: str,
        templates: Path | None = None,
        memory_overcommit: float = 1.0,
        validate: bool = False,
    ) -> None:
        self._deployment = deployment
        self._files = files
        self._run_dir = run_dir
        self._console_dir = console_dir
        self._accelerator = accelerator
        self._template = DomainTemplate(templates)
        self._disks = DomainDisks(deployment, files, self._template)
        self._confinement = Confinement(deployment, accelerator)
        self._confinement.release()  # what a process that was killed has left
        self._security_models: tuple[str, ...] | None = None
        self._memory_overcommit = memory_overcommit
        self._define_flags = libvirt.VIR_DOMAIN_DEFINE_VALIDATE if validate else 0
        self._lock = threading.RLock()
        self._watchers: list[Callable[[str], None]] = []
        self._resets: Counter[str] = Counter()
        self._panics: dict[str, int] = {}  # by name: how often it had been reset when it last panicked
        self._ours: dict[str, bool] = {}  # by UUID: a domain's deployment never changes
        self._capacity: tuple[int, int] | None = None
        # QEMU is handed open descriptors, so both directories are for root alone.
        for directory in (run_dir, console_dir):
            directory.mkdir(parents=True, exist_ok=True)
            os.chmod(directory, 0o700)
        self._connection = Connection(
            uri,
            has_changed=self._on_change,
            was_reset=self._on_reset,
            has_panicked=self._on_panic,
            came_back=self._wake_all,
            is_free=self._wake,
        )

    # --- life ---

    def start(self, machine: Machine) -> None:
        xml = self._render(machine)

        def start(connection: Any) -> None:
            domain = self._own(connection, machine.name)
            if domain is not None and domain.isActive():
                # Half started, or paused by hand; to a disk that could not be written somebody has to see first.
                if _is_paused(domain) and not self._disks.error(domain, domain.state()[1], parse(domain)):
                    domain.resume()
                self._confinement.hold(domain, parse(domain), machine.cpu_share_percent)
                return
            if domain is None and _lookup(connection, machine.name) is not None:
                raise HostError(f"a domain of somebody else is called {machine.name}", retryable=False)
            self._check_capacity(connection, machine)
            domain = connection.defineXMLFlags(xml, self._define_flags)
            self._ours[domain.UUIDString()] = True
            layers = [layer for disk in machine.disks for layer in disk.chain]
            with (
                self._disks.opened(connection, layers),
                _tolerate(libvirt.VIR_ERR_OPERATION_INVALID, unless=lambda: not domain.isActive()),
            ):
                domain.create()
            self._confinement.hold(domain, parse(domain), machine.cpu_share_percent)

        self._connection.call(f"start {machine.name}", start, name=machine.name)

    def ask_to_stop(self, name: str) -> None:
        self._act("stop", name, lambda domain: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN))

    def ask_to_reboot(self, name: str) -> None:
        self._act("reboot", name, lambda domain: domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN))

    def reset(self, name: str) -> None:
        self._act("reset", name, lambda domain: domain.reset(0))

    def plug_in(self, name: str, nic: Nic) -> None:
        """Into the domain that runs alone: the next start defines it anew, and libvirtd, when it is started anew, knows
        its running domains as they are."""

        def plug_in(_connection: Any, domain: Any) -> None:
            present = nics(parse(domain))
            if nic.port not in present:
                number = choose_number(
                    name, "interface", nic.port, nic.index, present, most=MAX_NICS, address=nic_address
                )
                domain.attachDeviceFlags(self._template.render_interface(nic, number), libvirt.VIR_DOMAIN_AFFECT_LIVE)

        self._change(f"plug {nic.port} into {name}", name, plug_in)

    def unplug(self, name: str, port: str) -> None:
        def unplug(domain: Any) -> None:
            if port in nics(parse(domain)):
                domain.detachDeviceAlias(alias(port), libvirt.VIR_DOMAIN_AFFECT_LIVE)

        self._let_go(f"unplug {port} from {name}", name, unplug)

    # --- disks ---

    def plug_in_disk(self, name: str, disk: Disk) -> None:
        def plug_in(connection: Any, domain: Any) -> None:
            self._disks.plug_in(connection, domain, parse(domain), disk)
            self._confinement.hold_memory(domain, parse(domain))

        self._change(f"plug {disk.serial} into {name}", name, plug_in)

    def unplug_disk(self, name: str, serial: str) -> None:
        self._let_go(
            f"unplug {serial} from {name}", name, lambda domain: self._disks.unplug(domain, parse(domain), serial)
        )

    def switch_disks(self, name: str, tops: Mapping[str, LayerFile], *, freeze: bool = False) -> bool:
        def switch(connection: Any, domain: Any) -> bool:
            frozen = self._disks.switch(connection, domain, parse(domain), tops, freeze=freeze)
            self._confinement.hold_memory(domain, parse(domain))
            return frozen

        return self._change(f"switch the disks of {name}", name, switch)

    def resize_disk(self, name: str, serial: str, size_bytes: int) -> None:
        self._change(
            f"resize {serial} of {name}",
            name,
            lambda _, domain: self._disks.resize(domain, parse(domain), serial, size_bytes),
        )

    def limit_disk(self, name: str, serial: str, limits: Limits | None) -> None:
        self._change(
            f"limit {serial} of {name}",
            name,
            lambda _, domain: self._disks.limit(domain, parse(domain), serial, limits),
        )

    def flatten_disk(self, name: str, serial: str, onto: str) -> None:
        self._change(
            f"flatten {serial} of {name}",
            name,
            lambda _, domain: self._disks.flatten(domain, parse(domain), serial, onto),
        )

    def flush_disks(self, name: str) -> None:
        def flush(_connection: Any, domain: Any) -> None:
            if _is_paused(domain):
                raise HostError(f"{name} is paused, so its disks cannot be flushed")
            self._disks.flush(parse(domain))
            domain.suspend()  # QEMU writes out all that it has before it stands still
            domain.resume()

        self._change(f"flush the disks of {name}", name, flush)

    def stop_flattening(self, name: str, serial: str) -> None:
        self._let_go(
            f"stop flattening {serial} of {name}",
            name,
            lambda domain: self._disks.stop_flattening(domain, parse(domain), serial),
        )

    def resume(self, name: str) -> None:
        def resume(domain: Any) -> None:
            state, _ = domain.state()
            if state == libvirt.VIR_DOMAIN_CRASHED:
                domain.suspend()  # libvirt takes it for one that runs again only when it sees QEMU go on
                domain.resume()
                with self._lock:
                    self._panics.pop(name, None)
            elif _is_paused(domain):
                domain.resume()

        self._act("resume", name, resume)

    # --- its end ---

    def remove(self, name: str) -> None:
        def remove(connection: Any) -> None:
            domain = self._own(connection, name)
            if domain is None:
                return
            with _tolerate(libvirt.VIR_ERR_NO_DOMAIN):
                self._disks.forget_secrets(connection, parse(domain))
            with _tolerate(libvirt.VIR_ERR_OPERATION_INVALID, unless=domain.isActive):
                domain.destroy()
            with _tolerate(libvirt.VIR_ERR_NO_DOMAIN):
                domain.undefineFlags(
                    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
                )

        self._connection.call(f"remove {name}", remove, name=name, anyway=True)
        self._serial_socket(name).unlink(missing_ok=True)
        self._confinement.release()
        self._confinement.bury(name)
        with self._lock:
            self._resets.pop(name, None)
            self._panics.pop(name, None)

    def forget(self, name: str) -> None:
        # What QEMU had to say libvirt keeps for ever.
        for log in (self._console_log(name), _QEMU_LOGS / f"{name}.log"):
            for path in (log, *(_backup(log, number) for number in range(_LOG_BACKUPS))):
                path.unlink(missing_ok=True)

    # --- what is so ---

    def observe(self, name: str) -> MachineStatus | None:
        def look(connection: Any) -> MachineStatus | None:
            domain = self._own(connection, name)
            if domain is None:
                return None
            try:
                state, reason = domain.state()
                power, off_reason = _power(state, reason)
                if power is Power.OFF:
                    return MachineStatus(name, power, off_reason)
                tree = parse(domain)
                return MachineStatus(
                    name,
                    power,
                    ports=tuple(nics(tree)),
                    disks=self._disks.observe(domain, tree),
                    disk_error=self._disks.error(domain, reason, tree) if power is Power.PAUSED else "",
                    panicked=state == libvirt.VIR_DOMAIN_CRASHED,
                )
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return None
                raise

        seen = self._connection.call(f"observe {name}", look, name=name)
        if seen is None:
            return None
        with self._lock:
            resets = self._resets[name]
            reset_since = seen.panicked and resets > self._panics.get(name, resets)
        return replace(seen, resets=resets, reset_since=reset_since)

    def names(self) -> list[str]:
        return self._connection.call("list the domains", self._names)

    def capacity(self) -> tuple[int, int]:
        if self._capacity is None:
            information = self._connection.call("ask for the host's size", lambda connection: connection.getInfo())
            self._capacity = (information[2], information[1])
        return self._capacity

    def accelerator(self) -> str:
        return self._accelerator

    # --- its serial port and screen ---

    def console(self, name: str, limit_bytes: int = 65536) -> bytes:
        log = self._console_log(name)
        tail = _tail(log, limit_bytes)
        for number in range(_LOG_BACKUPS):
            if len(tail) >= limit_bytes:
                break
            tail = _tail(_backup(log, number), limit_bytes - len(tail)) + tail
        return tail

    def console_socket(self, name: str) -> socket.socket:
        path = self._serial_socket(name)
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.setblocking(False)  # QEMU serves one client at a time: with a full queue one would wait for ever
            connected.connect(str(path))
            connected.setblocking(True)
        except OSError as error:
            connected.close()
            if isinstance(error, BlockingIOError):
                raise HostError(f"somebody else is at the serial port of {name}, which serves one at a time") from error
            raise HostError(f"{name} does not run, so its serial port leads nowhere ({error})") from error
        return connected

    def screenshot(self, name: str) -> bytes:
        picture = io.BytesIO()

        def take(connection: Any) -> None:
            picture.seek(0)
            picture.truncate()
            stream = connection.newStream(0)
            try:
                domain = self._own(connection, name)
                if domain is None:
                    raise HostError(f"{name} is not there, so it has no screen")
                domain.screenshot(stream, 0, 0)
                stream.recvAll(lambda _stream, data, _opaque: picture.write(data), None)
                stream.finish()
            except BaseException:
                with contextlib.suppress(libvirt.libvirtError):
                    stream.abort()
                raise

        self._connection.call(f"look at the screen of {name}", take, name=name)
        from PIL import Image  # here, since it takes longer to load than anything else in this room

        jpeg = io.BytesIO()
        picture.seek(0)
        with Image.open(picture, formats=("PPM", "PNG")) as image:
            image.convert("RGB").save(jpeg, "JPEG", quality=80)
        return jpeg.getvalue()

    # --- events ---

    def watch(self, wake: Callable[[str], None]) -> None:
        with self._lock:
            self._watchers.append(wake)
        self._connection.watch()

    def close(self) -> None:
        self._connection.close()
        with self._lock:
            self._watchers.clear()

    def _on_change(self, domain: Any) -> None:
        if self._is_ours(domain):
            self._wake(domain.name())

    def _on_reset(self, name: str) -> None:
        with self._lock:
            self._resets[name] += 1

    def _on_panic(self, name: str) -> None:
        with self._lock:
            self._panics[name] = self._resets[name]

    def _wake_all(self, missed: Collection[str]) -> None:
        """After libvirtd was away. Of a machine that was to start then, it knows nothing: so those are named too."""
        self._security_models = None  # it may have been configured anew
        for name in {*self.names(), *missed}:
            self._wake(name)

    def _wake(self, name: str) -> None:
        for wake in tuple(self._watchers):
            wake(name)

    # --- how ---

    def _act(self, verb: str, name: str, work: Callable[[Any], object]) -> None:
        """Do something to a machine that runs; to one that does not there is nothing to do."""

        def act(connection: Any) -> None:
            domain = self._own(connection, name)
            if domain is not None:
                with _tolerate(libvirt.VIR_ERR_OPERATION_INVALID, unless=domain.isActive):
                    work(domain)

        self._connection.call(f"{verb} {name}", act, name=name)

    def _change(self, about: str, name: str, work: Callable[[Any, Any], T]) -> T:
        """Do `work` with the connection and a domain that must run."""

        def change(connection: Any) -> T:
            domain = self._own(connection, name)
            try:
                if domain is None or not domain.isActive():
                    raise HostError(f"cannot {about}: {name} does not run")
                return work(connection, domain)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _GONE or (domain is not None and _is_active(domain)):
                    raise
                raise HostError(f"cannot {about}: {name} does not run any more") from error

        return self._connection.call(about, change, name=name)

    def _let_go(self, about: str, name: str, work: Callable[[Any], object]) -> None:
        """Do `work` with a domain, if it runs; that it, or the device, is gone is as good."""

        def let_go(connection: Any) -> None:
            domain = self._own(connection, name)
            if domain is None:
                return
            try:
                if domain.isActive():
                    work(domain)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in (*_GONE, libvirt.VIR_ERR_DEVICE_MISSING):
                    raise

        self._connection.call(about, let_go, name=name)

    def _names(self, connection: Any) -> list[str]:
        domains = connection.listAllDomains(0)
        names = [domain.name() for domain in domains if self._is_ours(domain)]
        here = {domain.UUIDString() for domain in domains}
        for identifier in [identifier for identifier in self._ours.copy() if identifier not in here]:
            self._ours.pop(identifier, None)
        return names

    def _own(self, connection: Any, name: str) -> Any:
        """The domain of that name, where there is one and it is ours."""
        domain = _lookup(connection, name)
        return domain if domain is not None and self._is_ours(domain) else None

    def _is_ours(self, domain: Any) -> bool:
        identifier = domain.UUIDString()
        known = self._ours.get(identifier)
        if known is None:
            deployment = _deployment(domain)
            if deployment is None:
                return False  # it went away meanwhile
            known = self._ours[identifier] = deployment == self._deployment
        return known

    def _render(self, machine: Machine) -> str:
        layers = self._disks.paths(f"{machine.name} cannot start", machine.disks)
        serial_socket = self._serial_socket(machine.name)
        if len(os.fsencode(serial_socket)) > _MAX_SOCKET_PATH:
            raise HostError(
                f"{serial_socket} is too long for a socket: at most {_MAX_SOCKET_PATH} bytes", retryable=False
            )
        files = DomainFiles(
            layers=layers,
            kernel=self._files.kernel_files(machine.kernel.layer) if machine.kernel else None,
            serial_socket=serial_socket,
            console_log=self._console_log(machine.name),
            security_models=self._models(),
        )
        try:
            return self._template.render(machine, files, deployment=self._deployment, accelerator=self._accelerator)
        except ValueError as error:
            raise HostError(str(error), retryable=False) from error

    def _models(self) -> tuple[str, ...]:
        if self._security_models is None:
            text = self._connection.call("ask what confines guests", lambda connection: connection.getCapabilities())
            self._security_models = security_models(text)
        return self._security_models

    def _check_capacity(self, connection: Any, machine: Machine) -> None:
        statistics = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0)
        available_kib = sum(statistics.get(key, 0) for key in ("free", "buffers", "cached"))
        room_mib = int(available_kib / 1024 * self._memory_overcommit)
        if machine.memory_mib > room_mib:
            raise CapacityError(
                f"{machine.name} needs {machine.memory_mib} MiB of memory; the host has room for {room_mib}"
            )

    def _serial_socket(self, name: str) -> Path:
        return self._run_dir / f"{name}.serial"

    def _console_log(self, name: str) -> Path:
        return self._console_dir / f"{name}.log"


def qemu_owner(uri: str) -> tuple[int, int]:
    """The user and group that libvirt runs QEMU as, by its DAC security driver; root's where it has none."""
    capabilities = ask_once(uri, lambda connection: str(connection.getCapabilities()))
    tree = ElementTree.fromstring(capabilities)  # noqa: S314  # libvirt's own words
    for model in tree.iterfind("./host/secmodel"):
        label = model.findtext("baselabel")
        if model.findtext("model") == "dac" and label:
            user, _, group = label.partition(":")
            return int(user.lstrip("+")), int(group.lstrip("+"))
    return 0, 0


def _lookup(connection: Any, name: str) -> Any:
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


@contextlib.contextmanager
def _tolerate(code: int, *, unless: Callable[[], Any] = lambda: False) -> Iterator[None]:
    """Let libvirt's error `code` pass, since what was asked for is so already, unless it is not."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() != code or unless():
            raise


def _deployment(domain: Any) -> str | None:
    """The deployment that a domain belongs to; empty for a stranger's, None for one that is gone."""
    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return ""
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
    return ElementTree.fromstring(text).get("id", "")  # noqa: S314  # as libvirt prints it


def _power(state: int, reason: int) -> tuple[Power, OffReason | None]:
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return Power.OFF, _OFF_REASONS.get(reason, OffReason.UNKNOWN)
    if state == libvirt.VIR_DOMAIN_PAUSED and reason != libvirt.VIR_DOMAIN_PAUSED_STARTING_UP:
        return Power.PAUSED, None
    return Power.RUNNING, None  # also while it shuts down: it is not off yet; and when its guest has panicked


def _is_paused(domain: Any) -> bool:
    state, reason = domain.state()
    return _power(state, reason)[0] is Power.PAUSED


def _is_active(domain: Any) -> bool:
    try:
        return bool(domain.isActive())
    except libvirt.libvirtError:
        return False


def _backup(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")


def _tail(path: Path, limit_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit_bytes))
            return file.read(limit_bytes)
    except FileNotFoundError:
        return b""

"""Machines as libvirt domains of one host.

What libvirt knows is asked for each time and nothing of it is kept, save how often a guest was reset, which libvirt
only tells as it happens. A domain is persistent, so that it can still be asked why it is off:

    (none) --define--> off --create--> running --guest, destroy, crash--> off, with the reason --undefine--> (none)

Other deployments, and people, have domains on the same host. A domain is ours when its metadata names our deployment;
the others do not exist for this module, whatever they are called.

One thread runs libvirt's event loop for the whole process, and one of ours passes the events on. They carry no news
here: they wake whoever watches, who looks for himself. When libvirtd is started anew, the next call connects again, and
so does a thread that watches for the loss; then everything is woken once, since nobody knows what was missed.

    console:  guest's serial port --> QEMU --+--> unix socket in run_dir, both ways (console_socket)
                                             +--> virtlogd --> file in console_dir, rotated at its max_size (console)
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar
from xml.etree import ElementTree

import libvirt

from orchestrator.host import CapacityError, HostError, Machine, MachineStatus, Nic, OffReason, Power
from orchestrator.host.xml import (
    MAX_NICS,
    NAMESPACE,
    DomainFiles,
    DomainTemplate,
    KernelFiles,
    alias,
    nic_address,
    port_of,
)

T = TypeVar("T")

_KEEPALIVE_S = 5
_KEEPALIVE_MISSED = 6
_RECONNECT_FIRST_S = 0.1
_RECONNECT_MOST_S = 5.0
_MAX_SOCKET_PATH = 107  # bytes: sockaddr_un(7)
_LOG_BACKUPS = 3  # what virtlogd keeps by default: NAME.log.0 is the newest

_OFF_REASONS = {
    libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: OffReason.GUEST,
    libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: OffReason.DESTROYED,
    libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: OffReason.CRASHED,
    libvirt.VIR_DOMAIN_SHUTOFF_FAILED: OffReason.FAILED,
}
# The domain has ended, or is being removed.
_GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
# What the same call will meet again, however often it is made.
_LASTING_ERRORS = frozenset(
    {
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_CONF_SYNTAX,
        libvirt.VIR_ERR_XML_ERROR,
        libvirt.VIR_ERR_XML_DETAIL,
        libvirt.VIR_ERR_XML_INVALID_SCHEMA,
        libvirt.VIR_ERR_OPERATION_DENIED,
        libvirt.VIR_ERR_ACCESS_DENIED,
    }
)


class LayerFiles(Protocol):
    """Where the storage keeps what a machine is made of."""

    def layer_path(self, layer: str) -> Path: ...

    def kernel_files(self, layer: str) -> KernelFiles: ...


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
        files: LayerFiles,
        run_dir: Path,
        console_dir: Path,
        accelerator: str,
        templates: Path | None = None,
        memory_overcommit: float = 1.0,
        validate: bool = False,
    ) -> None:
        self._uri = uri
        self._deployment = deployment
        self._files = files
        self._run_dir = run_dir
        self._console_dir = console_dir
        self._accelerator = accelerator
        self._template = DomainTemplate(templates)
        self._memory_overcommit = memory_overcommit
        self._define_flags = libvirt.VIR_DOMAIN_DEFINE_VALIDATE if validate else 0
        self._lock = threading.RLock()
        self._connection: Any = None
        self._closing = threading.Event()
        self._watchers: list[Callable[[str], None]] = []
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._resets: Counter[str] = Counter()
        self._ours: dict[str, bool] = {}  # by UUID: a domain's deployment never changes
        self._capacity: tuple[int, int] | None = None
        # QEMU is handed open descriptors, so both directories are for root alone.
        for directory in (run_dir, console_dir):
            directory.mkdir(parents=True, exist_ok=True)
            os.chmod(directory, 0o700)
        _run_event_loop()
        threading.Thread(target=self._pass_on, name="libvirt-wake", daemon=True).start()

    # --- life ---

    def start(self, machine: Machine) -> None:
        xml = self._render(machine)

        def start(connection: Any) -> None:
            domain = self._own(connection, machine.name)
            if domain is not None and domain.isActive():
                if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
                    domain.resume()  # it ran into an error of its disk, which may be mended
                return
            if domain is None and _lookup(connection, machine.name) is not None:
                raise HostError(f"a domain of somebody else is called {machine.name}", retryable=False)
            self._check_capacity(connection, machine)
            domain = connection.defineXMLFlags(xml, self._define_flags)
            self._ours[domain.UUIDString()] = True
            with _tolerate(libvirt.VIR_ERR_OPERATION_INVALID, unless=lambda: not domain.isActive()):
                domain.create()

        self._call(f"start {machine.name}", start)

    def ask_to_stop(self, name: str) -> None:
        self._act("stop", name, lambda domain: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN))

    def ask_to_reboot(self, name: str) -> None:
        self._act("reboot", name, lambda domain: domain.reboot(libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN))

    def reset(self, name: str) -> None:
        self._act("reset", name, lambda domain: domain.reset(0))

    def plug_in(self, name: str, nic: Nic) -> None:
        """Into the domain that runs alone: the next start defines it anew, and libvirtd, when it is started anew, knows
        its running domains as they are."""

        def plug_in(connection: Any) -> None:
            domain = self._own(connection, name)
            try:
                present = _nics(domain) if domain is not None and domain.isActive() else None
                if present is None:
                    raise HostError(f"{name} does not run, so no interface can be plugged into it")
                if nic.port in present:
                    return
                domain.attachDeviceFlags(
                    self._template.render_interface(nic, _number(name, nic, present)), libvirt.VIR_DOMAIN_AFFECT_LIVE
                )
            except libvirt.libvirtError as error:
                if error.get_error_code() not in _GONE:
                    raise
                raise HostError(f"{name} does not run any more, so no interface can be plugged into it") from error

        self._call(f"plug {nic.port} into {name}", plug_in)

    def unplug(self, name: str, port: str) -> None:
        def unplug(connection: Any) -> None:
            domain = self._own(connection, name)
            if domain is None:
                return
            try:
                if domain.isActive() and port in _nics(domain):
                    domain.detachDeviceAlias(alias(port), libvirt.VIR_DOMAIN_AFFECT_LIVE)
            except libvirt.libvirtError as error:
                if error.get_error_code() not in (*_GONE, libvirt.VIR_ERR_DEVICE_MISSING):
                    raise

        self._call(f"unplug {port} from {name}", unplug)

    def remove(self, name: str) -> None:
        def remove(connection: Any) -> None:
            domain = self._own(connection, name)
            if domain is None:
                return
            with _tolerate(libvirt.VIR_ERR_OPERATION_INVALID, unless=domain.isActive):
                domain.destroy()
            with _tolerate(libvirt.VIR_ERR_NO_DOMAIN):
                domain.undefineFlags(
                    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
                    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
                    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
                    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
                )

        self._call(f"remove {name}", remove)
        self._serial_socket(name).unlink(missing_ok=True)
        with self._lock:
            self._resets.pop(name, None)

    def forget(self, name: str) -> None:
        log = self._console_log(name)
        for path in (log, *(_backup(log, number) for number in range(_LOG_BACKUPS))):
            path.unlink(missing_ok=True)

    # --- what is so ---

    def observe(self, name: str) -> MachineStatus | None:
        def look(connection: Any) -> tuple[Power, OffReason | None, tuple[str, ...]] | None:
            domain = self._own(connection, name)
            if domain is None:
                return None
            try:
                power, off_reason = _power(*domain.state())
                return power, off_reason, () if power is Power.OFF else tuple(_nics(domain))
            except libvirt.libvirtError as error:
                if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                    return None
                raise

        seen = self._call(f"observe {name}", look)
        if seen is None:
            return None
        power, off_reason, ports = seen
        with self._lock:
            return MachineStatus(name, power, off_reason, self._resets[name], ports)

    def names(self) -> list[str]:
        return self._call("list the domains", self._names)

    def capacity(self) -> tuple[int, int]:
        if self._capacity is None:
            information = self._call("ask for the host's size", lambda connection: connection.getInfo())
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
            connected.connect(str(path))
        except OSError as error:
            connected.close()
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

        self._call(f"look at the screen of {name}", take)
        from PIL import Image  # here, since it takes longer to load than anything else in this room

        jpeg = io.BytesIO()
        picture.seek(0)
        with Image.open(picture, formats=("PPM", "PNG")) as image:
            image.convert("RGB").save(jpeg, "JPEG", quality=80)
        return jpeg.getvalue()

    # --- events and the connection ---

    def watch(self, wake: Callable[[str], None]) -> None:
        with self._lock:
            self._watchers.append(wake)
        try:
            self._connected()
        except HostError:
            self._reconnect_soon()

    def close(self) -> None:
        self._closing.set()
        self._events.put(None)
        with self._lock:
            connection, self._connection = self._connection, None
            self._watchers.clear()
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.unregisterCloseCallback()
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def _connected(self) -> Any:
        with self._lock:
            if self._closing.is_set():
                raise HostError("the connection to libvirt is closed", retryable=False)
            if self._connection is None or not _is_alive(self._connection):
                self._connection = self._open()
            return self._connection

    def _open(self) -> Any:
        try:
            connection = libvirt.open(self._uri)
            connection.registerCloseCallback(self._on_close, None)
            with contextlib.suppress(libvirt.libvirtError):  # a driver inside this process has no keep-alive
                connection.setKeepAlive(_KEEPALIVE_S, _KEEPALIVE_MISSED)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot, None)
            for event in (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED):
                connection.domainEventRegisterAny(None, event, self._on_change, None)
        except libvirt.libvirtError as error:
            raise HostError(f"libvirt does not answer at {self._uri}: {error}") from error
        return connection

    def _on_close(self, _connection: Any, _reason: int, _opaque: Any) -> None:
        self._reconnect_soon()

    def _on_change(self, _connection: Any, domain: Any, *_details: Any) -> None:
        self._events.put(domain)

    def _on_reboot(self, _connection: Any, domain: Any, _opaque: Any) -> None:
        with self._lock:
            self._resets[domain.name()] += 1
        self._events.put(domain)

    def _pass_on(self) -> None:
        """Events come on libvirt's thread, which must not wait for libvirt; whose domain it is may have to be asked."""
        while (domain := self._events.get()) is not None:
            with contextlib.suppress(libvirt.libvirtError):
                if self._is_ours(domain):
                    self._wake(domain.name())

    def _wake(self, name: str) -> None:
        for wake in tuple(self._watchers):
            wake(name)

    def _reconnect_soon(self) -> None:
        if not self._closing.is_set():
            threading.Thread(target=self._reconnect, name="libvirt-reconnect", daemon=True).start()

    def _reconnect(self) -> None:
        pause_s = _RECONNECT_FIRST_S
        while not self._closing.wait(pause_s):
            try:
                names = self.names()
            except HostError:
                pause_s = min(2 * pause_s, _RECONNECT_MOST_S)
                continue
            for name in names:
                self._wake(name)
            return

    # --- how ---

    def _call(self, about: str, work: Callable[[Any], T]) -> T:
        """Do `work` with the connection; once more when the connection turns out to be lost."""
        connection = self._connected()
        try:
            return work(connection)
        except libvirt.libvirtError as error:
            if _is_alive(connection):
                raise _host_error(about, error) from error
        try:
            return work(self._connected())
        except libvirt.libvirtError as error:
            raise _host_error(about, error) from error

    def _act(self, verb: str, name: str, work: Callable[[Any], object]) -> None:
        """Do something to a machine that runs; to one that does not there is nothing to do."""

        def act(connection: Any) -> None:
            domain = self._own(connection, name)
            if domain is not None:
                with _tolerate(libvirt.VIR_ERR_OPERATION_INVALID, unless=domain.isActive):
                    work(domain)

        self._call(f"{verb} {name}", act)

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
        layers = {disk.layer: self._files.layer_path(disk.layer) for disk in machine.disks}
        missing = [layer for layer, path in layers.items() if not path.exists()]
        if missing:
            raise HostError(f"{machine.name} cannot start: {', '.join(missing)} is not there")
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
        )
        try:
            return self._template.render(machine, files, deployment=self._deployment, accelerator=self._accelerator)
        except ValueError as error:
            raise HostError(str(error), retryable=False) from error

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
    _run_event_loop()
    try:
        connection = libvirt.openReadOnly(uri)
        try:
            tree = ElementTree.fromstring(connection.getCapabilities())  # noqa: S314  # libvirt's own words
        finally:
            connection.close()
    except libvirt.libvirtError as error:
        raise HostError(f"libvirt does not answer at {uri}: {error}") from error
    for model in tree.iterfind("./host/secmodel"):
        label = model.findtext("baselabel")
        if model.findtext("model") == "dac" and label:
            user, _, group = label.partition(":")
            return int(user.lstrip("+")), int(group.lstrip("+"))
    return 0, 0


_loop_lock = threading.Lock()
_loop_runs = False


def _run_event_loop() -> None:
    """Once per process, and before the first connection: libvirt's rule."""
    global _loop_runs
    with _loop_lock:
        if _loop_runs:
            return
        libvirt.registerErrorHandler(_say_nothing, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_loop, name="libvirt-events", daemon=True).start()
        _loop_runs = True


def _loop() -> None:
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


def _say_nothing(_opaque: Any, _error: Any) -> None:
    """libvirt would write each error to stderr; they are raised as well."""


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


def _nics(domain: Any) -> dict[str, tuple[int, int]]:
    """Bus and slot of each interface that the domain has now, by port, in the order of their numbers."""
    found: dict[str, tuple[int, int]] = {}
    tree = ElementTree.fromstring(domain.XMLDesc(0))  # noqa: S314  # as libvirt prints it
    for interface in tree.iterfind("./devices/interface"):
        name, address = interface.find("alias"), interface.find("address")
        port = port_of(name.get("name", "")) if name is not None else ""
        if port and address is not None:
            found[port] = (int(address.get("bus", ""), 16), int(address.get("slot", ""), 16))
    return dict(sorted(found.items(), key=lambda nic: nic[1]))


def _number(name: str, nic: Nic, present: Mapping[str, tuple[int, int]]) -> int:
    """The number at which `nic` is plugged in: any but 0, which has a place that cannot be plugged."""
    taken = {address: port for port, address in present.items()}
    free = [number for number in range(1, MAX_NICS) if nic_address(number) not in taken]
    if not free:
        raise CapacityError(f"{name} has {MAX_NICS - 1} interfaces besides its first, so {nic.port} finds no slot")
    if nic.index < 0:
        return free[0]
    if not 1 <= nic.index < MAX_NICS:
        raise HostError(
            f"{nic.port} cannot be plugged in as interface {nic.index}: 1 to {MAX_NICS - 1} are allowed",
            retryable=False,
        )
    if nic.index not in free:
        raise HostError(f"{nic.port} cannot be interface {nic.index} of {name}: {taken[nic_address(nic.index)]} is")
    return nic.index


def _power(state: int, reason: int) -> tuple[Power, OffReason | None]:
    if state == libvirt.VIR_DOMAIN_SHUTOFF:
        return Power.OFF, _OFF_REASONS.get(reason, OffReason.UNKNOWN)
    if state == libvirt.VIR_DOMAIN_CRASHED:
        return Power.OFF, OffReason.CRASHED
    if state == libvirt.VIR_DOMAIN_PAUSED and reason != libvirt.VIR_DOMAIN_PAUSED_STARTING_UP:
        return Power.PAUSED, None
    return Power.RUNNING, None  # also while it shuts down: it is not off yet


def _is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _host_error(about: str, error: Any) -> HostError:
    return HostError(f"{about}: {error}", retryable=error.get_error_code() not in _LASTING_ERRORS)


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

"""The in-memory twin of a host: the same words and the same visible behaviour, without root, disks or guests.

It serves tests, simulation, and people who only want the API. A machine runs as soon as it is started; its guest
obeys the power button at once, unless a test says that it does not. What a test needs besides (a guest that powers
itself off, a host that is lost, a call that fails) are the methods that no Protocol has, and `fault`, which is called
before each call with the method and what it is about, and fails it by raising.

    machine:   start -> running --ask_to_stop, guest_powers_off--> off (guest) --start--> running ...
                           |--crash--> off (crashed)      |--lose_host--> off (unknown)      remove -> gone
"""

from __future__ import annotations

import base64
import errno
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pprint import pformat

from orchestrator.host import (
    BuiltImage,
    CapacityError,
    Flow,
    Host,
    HostError,
    LayerStatus,
    Machine,
    MachineStatus,
    Nic,
    OffReason,
    Port,
    Power,
    Probe,
    Router,
)

GIB = 1 << 30
SSH_PORT = 22

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

# A black picture of 16 by 16: what a screen without a guest behind it shows.
_SCREEN = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6j"
    "q62rZ4C8ybqmx5moq6T/wAALCAAQABABAREA/8QAFQABAQAAAAAAAAAAAAAAAAAAAAb/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/9oA"
    "CAEBAAA/AJkB/9k="
)


def _no_fault(method: str, name: str) -> None:
    pass


@dataclass(slots=True)
class _Running:
    machine: Machine
    power: Power = Power.RUNNING
    off_reason: OffReason | None = None
    resets: int = 0
    starts: int = 1
    console: bytes = b""
    serial: socket.socket | None = None  # the guest's end of the live serial port
    nics: dict[str, Nic] = field(default_factory=dict)  # those of the machine that runs, by port
    leaving: set[str] = field(default_factory=set)  # ports that the guest has been asked to let go of


class MemoryCompute:
    """`processors` and `memory_mib` are what the host has in all; what runs is held against the memory. A machine has
    slots for `nics`."""

    def __init__(self, *, processors: int = 1 << 20, memory_mib: int = 1 << 40, nics: int = 32) -> None:
        self.fault: Fault = _no_fault
        self._most_nics = nics
        self._processors = processors
        self._memory_mib = memory_mib
        self._used_mib = 0
        self._lock = threading.Lock()
        self._machines: dict[str, _Running] = {}
        self._consoles: dict[str, bytes] = {}  # of machines that are gone, until forget
        self._deaf: set[str] = set()
        self._grasping: set[str] = set()
        self._watchers: list[Callable[[str], None]] = []

    def start(self, machine: Machine) -> None:
        self.fault("start", machine.name)
        with self._lock:
            known = self._machines.get(machine.name)
            if known is not None and known.power is not Power.OFF:
                known.power = Power.RUNNING
                return
            if self._used_mib + machine.memory_mib > self._memory_mib:
                raise CapacityError(
                    f"{machine.name} needs {machine.memory_mib} MiB of memory;"
                    f" {self._memory_mib - self._used_mib} of {self._memory_mib} are free"
                )
            self._used_mib += machine.memory_mib
            if known is None:
                kept = self._consoles.pop(machine.name, b"")
                known = self._machines[machine.name] = _Running(machine, console=kept)
            else:
                known.machine = machine
                known.power, known.off_reason = Power.RUNNING, None
                known.starts += 1
            known.nics = {nic.port: nic for nic in machine.nics}
        self._wake(machine.name)

    def ask_to_stop(self, name: str) -> None:
        self.fault("ask_to_stop", name)
        if name not in self._deaf:
            self._turn_off(name, OffReason.GUEST)

    def ask_to_reboot(self, name: str) -> None:
        self.fault("ask_to_reboot", name)
        if name not in self._deaf:
            self._reset(name)

    def reset(self, name: str) -> None:
        self.fault("reset", name)
        self._reset(name)

    def plug_in(self, name: str, nic: Nic) -> None:
        self.fault("plug_in", name)
        with self._lock:
            known = self._machines.get(name)
            if known is None or known.power is Power.OFF:
                raise HostError(f"{name} does not run, so no interface can be plugged into it")
            if nic.port in known.nics:
                return
            if len(known.nics) >= self._most_nics:
                raise CapacityError(f"{name} has {len(known.nics)} interfaces, so {nic.port} finds no slot")
            known.nics[nic.port] = nic

    def unplug(self, name: str, port: str) -> None:
        self.fault("unplug", name)
        with self._lock:
            known = self._machines.get(name)
            if known is None or port not in known.nics:
                return
            known.leaving.add(port)
        if name not in self._grasping:
            self.guest_lets_go(name, port)

    def remove(self, name: str) -> None:
        self.fault("remove", name)
        self._turn_off(name, OffReason.DESTROYED)
        with self._lock:
            gone = self._machines.pop(name, None)
            self._deaf.discard(name)
            self._grasping.discard(name)
            if gone is None:
                return
            self._consoles[name] = _console_text(gone)
        self._wake(name)

    def forget(self, name: str) -> None:
        self.fault("forget", name)
        with self._lock:
            self._consoles.pop(name, None)

    def observe(self, name: str) -> MachineStatus | None:
        self.fault("observe", name)
        with self._lock:
            known = self._machines.get(name)
            if known is None:
                return None
            return MachineStatus(name, known.power, known.off_reason, known.resets, tuple(known.nics))

    def names(self) -> list[str]:
        self.fault("names", "")
        with self._lock:
            return list(self._machines)

    def console(self, name: str, limit_bytes: int = 65536) -> bytes:
        self.fault("console", name)
        with self._lock:
            known = self._machines.get(name)
            text = _console_text(known) if known else self._consoles.get(name, b"")
        return text[-limit_bytes:] if limit_bytes > 0 else b""

    def console_socket(self, name: str) -> socket.socket:
        self.fault("console_socket", name)
        with self._lock:
            known = self._machines.get(name)
            if known is None or known.power is Power.OFF:
                raise HostError(f"{name} does not run, so its serial port leads nowhere")
            if known.serial is not None:
                known.serial.close()
            ours, known.serial = socket.socketpair()
            return ours

    def screenshot(self, name: str) -> bytes:
        self.fault("screenshot", name)
        with self._lock:
            known = self._machines.get(name)
            if known is None or known.power is Power.OFF:
                raise HostError(f"{name} does not run, so it has no screen")
        return _SCREEN

    def watch(self, wake: Callable[[str], None]) -> None:
        with self._lock:
            self._watchers.append(wake)

    def capacity(self) -> tuple[int, int]:
        return self._processors, self._memory_mib

    def accelerator(self) -> str:
        return "tcg"

    def close(self) -> None:
        with self._lock:
            self._watchers.clear()
            for known in self._machines.values():
                _hang_up(known)

    # --- what no Protocol has: the guest's and the world's part ---

    def guest_powers_off(self, name: str) -> None:
        """The guest shuts itself down."""
        self._turn_off(name, OffReason.GUEST)

    def guest_reboots(self, name: str) -> None:
        self._reset(name)

    def guest_writes(self, name: str, data: bytes) -> None:
        """Bytes on its serial port; they are on the live one too."""
        with self._lock:
            known = self._machines[name]
            known.console += data
            if known.serial is not None:
                known.serial.sendall(data)

    def guest_serial(self, name: str) -> socket.socket:
        """The guest's end of the serial port that `console_socket` opened last."""
        with self._lock:
            serial = self._machines[name].serial
        if serial is None:
            raise LookupError(f"nobody has opened the serial port of {name}")
        return serial

    def ignore_power_button(self, name: str) -> None:
        """From now on the guest does not react when asked to stop or to reboot."""
        self._deaf.add(name)

    def hold_on(self, name: str) -> None:
        """From now on the guest does not let go of an interface when asked to, until `guest_lets_go`, or a reset."""
        self._grasping.add(name)

    def guest_lets_go(self, name: str, port: str) -> None:
        """Of an interface that it was asked to let go of. Raises LookupError when it was not."""
        with self._lock:
            known = self._machines[name]
            if port not in known.leaving:
                raise LookupError(f"nobody has asked {name} to let go of {port}")
            known.leaving.discard(port)
            del known.nics[port]
        self._wake(name)

    def nics(self, name: str) -> tuple[Nic, ...]:
        """What is plugged into it now."""
        with self._lock:
            return tuple(self._machines[name].nics.values())

    def crash(self, name: str) -> None:
        self._turn_off(name, OffReason.CRASHED)

    def machine(self, name: str) -> Machine:
        """What it was last started as."""
        with self._lock:
            return self._machines[name].machine

    def lose_host(self) -> None:
        """The host starts anew: what was defined is defined, nothing runs, nobody saw why."""
        for name in tuple(self._machines):
            self._turn_off(name, OffReason.UNKNOWN)
            with self._lock:
                if name in self._machines:
                    self._machines[name].resets = 0

    def _turn_off(self, name: str, reason: OffReason) -> None:
        with self._lock:
            known = self._machines.get(name)
            if known is None or known.power is Power.OFF:
                return
            known.power, known.off_reason = Power.OFF, reason
            known.nics, known.leaving = {}, set()
            self._used_mib -= known.machine.memory_mib
            _hang_up(known)
        self._wake(name)

    def _reset(self, name: str) -> None:
        with self._lock:
            known = self._machines.get(name)
            if known is None or known.power is Power.OFF:
                return
            known.resets += 1
            for port in known.leaving:
                del known.nics[port]
            known.leaving = set()
        self._wake(name)

    def _wake(self, name: str) -> None:
        for wake in tuple(self._watchers):
            wake(name)


def _console_text(known: _Running) -> bytes:
    """Made when asked for: ten thousand machines have nothing to keep."""
    boots = known.starts + known.resets
    greeting = f"\r\n{known.machine.name} boots (simulated)\r\n\r\n{known.machine.name} login: \r\n".encode()
    return greeting * boots + known.console


def _hang_up(known: _Running) -> None:
    if known.serial is not None:
        known.serial.close()
        known.serial = None


class MemoryStorage:
    """Layers are sizes and parents. A parent that is not there is taken as it comes, since a host in memory forgets
    its layers with its process and the store does not; `strict` makes it an error, as on a real host."""

    def __init__(self, *, free_bytes: int = 1 << 60, strict: bool = False) -> None:
        self.fault: Fault = _no_fault
        self._strict = strict
        self._free_bytes = free_bytes
        self._lock = threading.Lock()
        self._layers: dict[str, tuple[int, str]] = {}
        self._uploads: dict[str, tuple[int, str]] = {}

    def create_layer(self, name: str, *, size_bytes: int, parent: str = "") -> None:
        self.fault("create_layer", name)
        with self._lock:
            if parent and parent not in self._layers and self._strict:
                raise HostError(f"{name} cannot be made: its parent {parent} is not there", retryable=False)
            known_bytes, known_parent = self._layers.get(name, (0, parent))
            if known_parent != parent:
                raise HostError(f"{name} is there, on {known_parent or 'nothing'}", retryable=False)
            size_bytes = max(size_bytes, known_bytes, self._layers.get(parent, (0, ""))[0])
            if size_bytes <= 0:
                raise HostError(f"{name}: {size_bytes} bytes; at least 1 is needed", retryable=False)
            self._layers[name] = (size_bytes, parent)

    def remove_layer(self, name: str) -> None:
        self.fault("remove_layer", name)
        with self._lock:
            self._layers.pop(name, None)

    def observe_layer(self, name: str) -> LayerStatus | None:
        self.fault("observe_layer", name)
        with self._lock:
            if name not in self._layers:
                return None
            size_bytes, parent = self._layers[name]
            return LayerStatus(name, size_bytes, 0, parent)

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
            self._layers[layer] = (built.size_bytes, "")
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

    def import_image(self, upload: str, file_format: str, layer: str, progress: Callable[[str], None]) -> BuiltImage:
        self.fault("import_image", layer)
        formats = ("raw", "qcow2", "vmdk", "vhd", "vhdx")
        if file_format not in formats:
            raise HostError(f"'{file_format}' is not a format that is read; {', '.join(formats)} are", retryable=False)
        progress("simulate an import")
        with self._lock:
            if upload not in self._uploads:
                raise HostError(f"there is no upload {upload}", retryable=False)
            received, sha512 = self._uploads.pop(upload)
            if not received:
                raise HostError("the image is refused: it is empty", retryable=False)
            size_bytes = -(-received // 512) * 512
            self._layers[layer] = (size_bytes, "")
        return BuiltImage(
            size_bytes=size_bytes,
            sha512=sha512,
            root_device="/dev/xvda",
            login_user="ec2-user",
            description="",
            kernel_arguments=None,
        )

    def remove_kernel(self, layer: str) -> None:
        self.fault("remove_kernel", layer)

    def free_bytes(self) -> int:
        return self._free_bytes


class MemoryNetwork:
    """Routers as they were applied. `listen` opens sockets on the loopback, and `connect` reaches those, and what a
    test registers in `endpoints`, and ssh on the address of any port; everything else refuses the connection. No packet
    passes: the flows are those that a test puts into `flowed`."""

    def __init__(self) -> None:
        self.fault: Fault = _no_fault
        self.applied: dict[str, Router] = {}
        self.flowed: dict[str, list[Flow]] = {}  # by router; until they are asked for
        # (router, address, port) inside -> (address, port) that a socket connects to
        self.endpoints: dict[tuple[str, str, int], tuple[str, int]] = {}
        self._lock = threading.Lock()

    def apply(self, router: Router) -> None:
        self.fault("apply", router.name)
        with self._lock:
            self.applied[router.name] = router

    def plan(self, router: Router) -> str:
        self.fault("plan", router.name)
        return f"{pformat(router, width=120)}\n"

    def flows(self, router: Router) -> list[Flow]:
        """Those of its ports with `log` that a test has put there."""
        self.fault("flows", router.name)
        logged = {port.name for port in router.ports if port.log}
        with self._lock:
            return [flow for flow in self.flowed.pop(router.name, []) if flow.port in logged]

    def trace(self, router: Router, probe: Probe) -> list[str]:
        self.fault("trace", router.name)
        with self._lock:
            known = self.applied.get(router.name)
        if known is None or all(port.name != probe.port for port in known.ports):
            raise HostError(f"{probe.port} of {router.name} is not plugged in on this host")
        return [f"{probe.port}: packet {probe.source} -> {probe.destination} {probe.protocol} (simulated)"]

    def remove(self, router: str) -> None:
        self.fault("remove", router)
        with self._lock:
            self._forget(router)

    def routers(self) -> list[str]:
        self.fault("routers", "")
        with self._lock:
            return list(self.applied)

    def leaks(self, routers: set[str], ports: set[str]) -> list[str]:
        self.fault("leaks", "")
        with self._lock:
            return [
                *(f"router {name}" for name in self.applied if name not in routers),
                *(
                    f"port {port.name}"
                    for name, router in self.applied.items()
                    if name in routers
                    for port in router.ports
                    if port.name not in ports
                ),
            ]

    def remove_leaks(self, routers: set[str], ports: set[str]) -> None:
        self.fault("remove_leaks", "")
        with self._lock:
            for name in [name for name in self.applied if name not in routers]:
                self._forget(name)
            for name, router in self.applied.items():
                kept = tuple(port for port in router.ports if port.name in ports)
                if kept != router.ports:
                    self.applied[name] = replace(router, ports=kept)

    def listen(self, router: str, address: str, port: int) -> socket.socket:
        self.fault("listen", router)
        with self._lock:
            if router not in self.applied:
                raise HostError(f"there is no router {router} to listen in")
            ipv6 = ":" in address
            family, loopback = (socket.AF_INET6, "::1") if ipv6 else (socket.AF_INET, "127.0.0.1")
            listener = socket.create_server((loopback, 0), family=family)
            self.endpoints[(router, address, port)] = listener.getsockname()[:2]
            return listener

    def connect(self, router: str, address: str, port: int, timeout_s: float) -> socket.socket:
        self.fault("connect", router)
        with self._lock:
            endpoint = self.endpoints.get((router, address, port))
            known = self.applied.get(router)
        if endpoint is None:
            if port == SSH_PORT and known and any(address in _addresses(plugged) for plugged in known.ports):
                ours, guests = socket.socketpair()  # a simulated guest takes the call, and hangs up
                guests.close()
                return ours
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nothing listens on {address}:{port} in {router}")
        return socket.create_connection(endpoint, timeout=timeout_s)

    def close(self) -> None:
        pass

    def lose_host(self) -> None:
        """The host starts anew: nothing of a network outlives that."""
        with self._lock:
            for name in list(self.applied):
                self._forget(name)

    def _forget(self, router: str) -> None:
        self.applied.pop(router, None)
        self.flowed.pop(router, None)
        for key in [key for key in self.endpoints if key[0] == router]:
            del self.endpoints[key]


def _addresses(port: Port) -> tuple[str, ...]:
    """Where a simulated guest answers."""
    return () if port.translator else (port.address, *port.more_addresses, *port.ipv6_addresses)


@dataclass(frozen=True, slots=True)
class MemoryHost(Host):
    """A Host whose parts have a test's methods too."""

    compute: MemoryCompute = field(default_factory=MemoryCompute)
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    network: MemoryNetwork = field(default_factory=MemoryNetwork)

    def lose_host(self) -> None:
        """As after a reboot of the host: disks are there, networks are not, no machine runs."""
        self.network.lose_host()
        self.compute.lose_host()


def memory_host() -> MemoryHost:
    return MemoryHost()

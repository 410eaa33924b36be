"""The in-memory twin of a host: the same words and the same visible behaviour, without root, disks or guests.

It serves tests, simulation, and people who only want the API. A machine runs as soon as it is started; its guest
obeys the power button at once, unless a test says that it does not. What a test needs besides (a guest that powers
itself off, a host that is lost, a call that fails) are the methods that no Protocol has, and `fault`, which is called
before each call with the method and what it is about, and fails it by raising.

    machine:   start -> running --ask_to_stop, guest_powers_off--> off (guest) --start--> running ...
                           |--crash--> off (crashed)      |--lose_host--> off (unknown)      remove -> gone
                           |--disk_fails--> paused (no space) --resume--> running ...
                           |--panic--> running (panicked) --resume--> running ...
"""

from __future__ import annotations

import base64
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from orchestrator.host import (
    CapacityError,
    Disk,
    DiskStatus,
    Host,
    HostError,
    LayerFile,
    LayerStatus,
    Limits,
    Machine,
    MachineStatus,
    Nic,
    OffReason,
    Power,
)
from orchestrator.host.memory_network import MemoryNetwork
from orchestrator.host.memory_storage import Fault, MemoryStorage
from orchestrator.host.memory_storage import no_fault as _no_fault

# A black picture of 16 by 16: what a screen without a guest behind it shows.
_SCREEN = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6j"
    "q62rZ4C8ybqmx5moq6T/wAALCAAQABABAREA/8QAFQABAQAAAAAAAAAAAAAAAAAAAAb/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/9oA"
    "CAEBAAA/AJkB/9k="
)


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
    disks: dict[str, Disk] = field(default_factory=dict)  # likewise, by serial
    leaving: set[str] = field(default_factory=set)  # ports and serials that the guest has been asked to let go of
    flattening: dict[str, str] = field(default_factory=dict)  # by serial: onto which layer
    sizes: dict[str, int] = field(default_factory=dict)  # by serial: of disks whose layers are nowhere
    disk_error: str = ""
    resets_at_panic: int | None = None  # until `resume`
    stands_still: bool = False  # its kernel has panicked, until a reset


class MemoryCompute:
    """`processors` and `memory_mib` are what the host has in all; what runs is held against the memory. A machine has
    slots for `nics` and `disks`. Layers are those of `storage`, as far as they are there: what was made by a process
    before this one is taken as it comes."""

    def __init__(
        self,
        *,
        processors: int = 1 << 20,
        memory_mib: int = 1 << 40,
        nics: int = 32,
        disks: int = 32,
        storage: MemoryStorage | None = None,
    ) -> None:
        self.fault: Fault = _no_fault
        self.storage = storage
        # Machine, serials, and whether it was frozen, of the last ones.
        self.switches: deque[tuple[str, frozenset[str], bool]] = deque(maxlen=100)
        self._most_nics = nics
        self._most_disks = disks
        self._processors = processors
        self._memory_mib = memory_mib
        self._used_mib = 0
        self._lock = threading.Lock()
        self._machines: dict[str, _Running] = {}
        self._consoles: dict[str, bytes] = {}  # of machines that are gone, until forget
        self._deaf: set[str] = set()
        self._grasping: set[str] = set()
        self._slow: set[str] = set()
        self._agents: set[str] = set()
        self._watchers: list[Callable[[str], None]] = []

    def start(self, machine: Machine) -> None:
        self.fault("start", machine.name)
        with self._lock:
            known = self._machines.get(machine.name)
            if known is not None and known.power is not Power.OFF:
                if not known.disk_error:
                    known.power = Power.RUNNING
                return
            for disk in machine.disks:
                self._check_chain(f"{machine.name} cannot start", [file.layer for file in disk.chain])
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
            known.disks = {disk.serial: disk for disk in machine.disks}
        self._wake(machine.name)

    def ask_to_stop(self, name: str) -> None:
        self.fault("ask_to_stop", name)
        if self._listens(name):
            self._turn_off(name, OffReason.GUEST)

    def ask_to_reboot(self, name: str) -> None:
        self.fault("ask_to_reboot", name)
        if self._listens(name):
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

    def plug_in_disk(self, name: str, disk: Disk) -> None:
        self.fault("plug_in_disk", name)
        with self._lock:
            known = self._up(name)
            if disk.serial in known.disks:
                return
            if len(known.disks) >= self._most_disks:
                raise CapacityError(f"{name} has {len(known.disks)} disks, so {disk.serial} finds no slot")
            self._check_chain(f"cannot plug {disk.serial} into {name}", [file.layer for file in disk.chain])
            known.disks[disk.serial] = disk

    def unplug_disk(self, name: str, serial: str) -> None:
        self.fault("unplug_disk", name)
        with self._lock:
            known = self._machines.get(name)
            if known is None or serial not in known.disks:
                return
            known.leaving.add(serial)
        if name not in self._grasping:
            self.guest_lets_go(name, serial)

    def switch_disks(self, name: str, tops: Mapping[str, LayerFile], *, freeze: bool = False) -> bool:
        self.fault("switch_disks", name)
        with self._lock:
            known = self._up(name)
            disks = {serial: self._disk(known, serial) for serial in tops}
            due = {serial: disk for serial, disk in disks.items() if disk.layer != tops[serial].layer}
            for serial, disk in due.items():
                self._check_chain(f"cannot switch {serial} of {name}", [tops[serial].layer, disk.layer])
            for serial, disk in due.items():
                known.flattening.pop(serial, None)
                known.disks[serial] = replace(disk, chain=(tops[serial], *disk.chain))
            frozen = bool(due) and freeze and name in self._agents
            if due:
                self.switches.append((name, frozenset(due), frozen))
            return frozen

    def resize_disk(self, name: str, serial: str, size_bytes: int) -> None:
        self.fault("resize_disk", name)
        with self._lock:
            known = self._up(name)
            disk = self._disk(known, serial)
            if self._size_bytes(known, disk) >= size_bytes:
                return
            known.flattening.pop(serial, None)
            known.sizes[serial] = size_bytes
            layer = self._opened(disk.layer)
            if layer is not None and self.storage is not None:
                self.storage.write_header(disk.layer, size_bytes=size_bytes, parent=layer.parent)

    def limit_disk(self, name: str, serial: str, limits: Limits | None) -> None:
        self.fault("limit_disk", name)
        with self._lock:
            known = self._up(name)
            known.disks[serial] = replace(self._disk(known, serial), limits=limits)

    def flatten_disk(self, name: str, serial: str, onto: str) -> None:
        self.fault("flatten_disk", name)
        with self._lock:
            known = self._up(name)
            below = [file.layer for file in self._disk(known, serial).chain[1:]]
            if onto and onto not in below:
                raise HostError(f"{serial} of {name} cannot be flattened onto {onto}: it does not lie on it")
            if serial in known.flattening or (below[0] if below else "") == onto:
                return
            known.flattening[serial] = onto
        if name not in self._slow:
            self.finish_flattening(name, serial)

    def flush_disks(self, name: str) -> None:
        self.fault("flush_disks", name)

    def stop_flattening(self, name: str, serial: str) -> None:
        self.fault("stop_flattening", name)
        with self._lock:
            known = self._machines.get(name)
            if known is not None:
                known.flattening.pop(serial, None)

    def resume(self, name: str) -> None:
        self.fault("resume", name)
        with self._lock:
            known = self._machines.get(name)
            if known is None or (known.power is not Power.PAUSED and known.resets_at_panic is None):
                return
            known.power, known.disk_error, known.resets_at_panic = Power.RUNNING, "", None
        self._wake(name)

    def remove(self, name: str) -> None:
        self.fault("remove", name)
        self._turn_off(name, OffReason.DESTROYED)
        with self._lock:
            gone = self._machines.pop(name, None)
            self._deaf.discard(name)
            self._grasping.discard(name)
            self._slow.discard(name)
            self._agents.discard(name)
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
            return MachineStatus(
                name,
                known.power,
                known.off_reason,
                known.resets,
                tuple(known.nics),
                tuple(self._disk_status(known, disk) for disk in known.disks.values()),
                known.disk_error,
                panicked=known.resets_at_panic is not None,
                reset_since=known.resets_at_panic is not None and known.resets > known.resets_at_panic,
            )

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
        """From now on the guest does not let go of a device when asked to, until `guest_lets_go`, or a reset."""
        self._grasping.add(name)

    def guest_lets_go(self, name: str, device: str) -> None:
        """Of an interface or a disk that it was asked to let go of. Raises LookupError when it was not."""
        with self._lock:
            known = self._machines[name]
            if device not in known.leaving:
                raise LookupError(f"nobody has asked {name} to let go of {device}")
            known.leaving.discard(device)
            _take_out(known, device)
        self._wake(name)

    def give_agent(self, name: str) -> None:
        """From now on the guest has an agent, which freezes its file systems when asked to."""
        self._agents.add(name)

    def flatten_slowly(self, name: str) -> None:
        """From now on flattening is under way, half done, until `finish_flattening`."""
        self._slow.add(name)

    def finish_flattening(self, name: str, serial: str) -> None:
        """What `flatten_disk` began. Raises LookupError when it did not."""
        with self._lock:
            known = self._machines[name]
            if serial not in known.flattening:
                raise LookupError(f"nobody flattens {serial} of {name}")
            onto = known.flattening.pop(serial)
            disk = known.disks[serial]
            layers = [file.layer for file in disk.chain]
            kept = disk.chain[layers.index(onto) :] if onto else ()
            known.disks[serial] = replace(disk, chain=(disk.chain[0], *kept))
            if self.storage is not None:
                size_bytes = self._size_bytes(known, disk)
                self.storage.write_header(disk.layer, size_bytes=size_bytes, parent=onto)
        self._wake(name)

    def disk_fails(self, name: str, error: str = "no space") -> None:
        """A write of the guest's fails, so it is paused until `resume`."""
        with self._lock:
            known = self._up(name)
            known.power, known.disk_error = Power.PAUSED, error
        self._wake(name)

    def disks(self, name: str) -> tuple[Disk, ...]:
        """What is plugged into it now."""
        with self._lock:
            return tuple(self._machines[name].disks.values())

    def nics(self, name: str) -> tuple[Nic, ...]:
        """What is plugged into it now."""
        with self._lock:
            return tuple(self._machines[name].nics.values())

    def panic(self, name: str) -> None:
        """The guest's kernel panics and says so. What it does then, `guest_resets_itself` or nothing, is up to the
        test."""
        with self._lock:
            known = self._up(name)
            known.resets_at_panic = known.resets
            known.stands_still = True
        self._wake(name)

    def guest_resets_itself(self, name: str) -> None:
        self._reset(name)

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
            known.nics, known.disks, known.leaving, known.flattening, known.sizes = {}, {}, set(), {}, {}
            known.disk_error, known.resets_at_panic, known.stands_still = "", None, False
            self._used_mib -= known.machine.memory_mib
            _hang_up(known)
        self._wake(name)

    def _reset(self, name: str) -> None:
        with self._lock:
            known = self._machines.get(name)
            if known is None or known.power is Power.OFF:
                return
            known.resets += 1
            known.stands_still = False
            for device in known.leaving:
                _take_out(known, device)
            known.leaving = set()
        self._wake(name)

    def _listens(self, name: str) -> bool:
        """To its power button."""
        with self._lock:
            known = self._machines.get(name)
            return name not in self._deaf and (known is None or not known.stands_still)

    def _up(self, name: str) -> _Running:
        known = self._machines.get(name)
        if known is None or known.power is Power.OFF:
            raise HostError(f"{name} does not run, so its disks cannot be changed")
        return known

    def _disk(self, known: _Running, serial: str) -> Disk:
        if serial not in known.disks:
            raise HostError(f"{known.machine.name} has no disk {serial}; it has {', '.join(known.disks) or 'none'}")
        return known.disks[serial]

    def _opened(self, layer: str) -> LayerStatus | None:
        return self.storage.opened_layer(layer) if self.storage is not None else None

    def _check_chain(self, about: str, layers: list[str]) -> None:
        """Of two layers the first must lie on the second, as its file's header would say."""
        for layer in layers if self.storage is not None and self.storage.strict else ():
            if self._opened(layer) is None:
                raise HostError(f"{about}: {layer} is not there")
        for layer, parent in pairwise(layers):
            status = self._opened(layer)
            if status is not None and status.parent != parent:
                raise HostError(f"{about}: {layer} lies on {status.parent or 'nothing'}, not on {parent}")

    def _size_bytes(self, known: _Running, disk: Disk) -> int:
        layer = self._opened(disk.layer)
        return layer.size_bytes if layer is not None else known.sizes.get(disk.serial, 0)

    def _disk_status(self, known: _Running, disk: Disk) -> DiskStatus:
        return DiskStatus(
            serial=disk.serial,
            chain=tuple(file.layer for file in disk.chain),
            size_bytes=self._size_bytes(known, disk),
            flattening=0.5 if disk.serial in known.flattening else None,
        )

    def _wake(self, name: str) -> None:
        for wake in tuple(self._watchers):
            wake(name)


def _take_out(known: _Running, device: str) -> None:
    known.nics.pop(device, None)
    known.disks.pop(device, None)
    known.flattening.pop(device, None)


def _console_text(known: _Running) -> bytes:
    """Made when asked for: ten thousand machines have nothing to keep."""
    boots = known.starts + known.resets
    greeting = f"\r\n{known.machine.name} boots (simulated)\r\n\r\n{known.machine.name} login: \r\n".encode()
    return greeting * boots + known.console


def _hang_up(known: _Running) -> None:
    if known.serial is not None:
        known.serial.close()
        known.serial = None


@dataclass(frozen=True, slots=True)
class MemoryHost(Host):
    """A Host whose parts have a test's methods too."""

    compute: MemoryCompute = field(default_factory=MemoryCompute)
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    network: MemoryNetwork = field(default_factory=MemoryNetwork)

    def __post_init__(self) -> None:
        if self.compute.storage is None:
            self.compute.storage = self.storage

    def lose_host(self) -> None:
        """As after a reboot of the host: disks are there, networks are not, no machine runs."""
        self.network.lose_host()
        self.compute.lose_host()


def memory_host() -> MemoryHost:
    return MemoryHost()

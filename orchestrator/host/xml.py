"""The domain XML of a machine: values go in, `templates/domain.xml.j2` prints them.

What a guest's hardware is like is decided here and in the templates, and nowhere else. What is there from start to end
sits on the root complex. What may come and go while the guest runs sits behind two bridges of the old kind, whose slots
ACPI can plug at no cost to the boot (docs/adr/0007-hot-plug-slots.md). A device's slot follows from its place in the
machine, so a guest finds its interfaces and disks where they were after every start:

    bus 0 --+-- slot 1 video, 2 virtio-serial, 3 rng
            +-- slot 4 root disk
            +-- slot 5 interface 0
            +-- slot 6 root port, bus 1 -- bridge, bus 3 -- slots 1 ... 31 interfaces 1 ... 31
            +-- slot 6 root port, bus 2 -- bridge, bus 4 -- slots 1 ... 31 disks 1 ... 31
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from orchestrator.host import Machine, Nic
from orchestrator.host.links import bridge_name, tap_name

# Marks the domains of one deployment, so that several on one host tell theirs apart.
NAMESPACE = "urn:orchestrator:domain:1"

MAX_NICS = 1 + 31
MAX_DISKS = 1 + 31

_CPU_MODES = {"kvm": "host-passthrough", "tcg": "maximum"}
_DOMAIN_TYPES = {"kvm": "kvm", "tcg": "qemu"}
_MAX_SERIAL = 20  # characters: what a virtio disk can carry
_ALIAS = "ua-"  # what libvirt wants before a name of ours for a device


def templates_dir() -> Path:
    """Where the templates are: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent.parent
    places = (package / "_templates", package.parent / "templates")
    for place in places:
        if (place / "domain.xml.j2").is_file():
            return place
    raise FileNotFoundError(f"domain.xml.j2 is in none of {', '.join(map(str, places))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFiles:
    kernel: Path
    initrd: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFiles:
    """What on the host's file system belongs to one machine. `layers` maps a disk's layer to its file."""

    layers: Mapping[str, Path]
    kernel: KernelFiles | None = None
    serial_socket: Path
    console_log: Path


class DomainTemplate:
    def __init__(self, directory: Path | None = None) -> None:
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(directory or templates_dir()),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._domain = environment.get_template("domain.xml.j2")
        self._interface = environment.get_template("interface.xml.j2")

    def render(self, machine: Machine, files: DomainFiles, *, deployment: str, accelerator: str) -> str:
        """The XML that libvirt defines `machine` by. `accelerator` is kvm or tcg. Raises ValueError for a machine
        that cannot be."""
        _check(machine)
        return self._domain.render(
            machine=machine,
            kernel=files.kernel if machine.kernel else None,
            disks=_disks(machine, files.layers),
            nics=[_nic(nic, place) for nic, place in zip(machine.nics, _places(machine), strict=True)],
            serial_socket=files.serial_socket,
            console_log=files.console_log,
            cpu_shares=cpu_shares(machine.vcpus, machine.cpu_share_percent),
            cpu_mode=_CPU_MODES[accelerator],
            domain_type=_DOMAIN_TYPES[accelerator],
            deployment=deployment,
            namespace=NAMESPACE,
        )

    def render_interface(self, nic: Nic, index: int) -> str:
        """The XML by which libvirt gives a domain one more interface, as its number `index`."""
        return self._interface.render(nic=_nic(nic, index))


def alias(port: str) -> str:
    """libvirt's name for the interface whose tap is `port`."""
    return _ALIAS + port


def port_of(alias_name: str) -> str:
    """The port that libvirt's name of an interface stands for; empty where the interface is not ours."""
    return alias_name.removeprefix(_ALIAS) if alias_name.startswith(_ALIAS) else ""


def nic_address(index: int) -> tuple[int, int]:
    """Bus and slot of interface number `index`."""
    return (0, 5) if index == 0 else (3, index)


def cpu_shares(vcpus: int, percent: int) -> int:
    """The weight under contention: 100 for a whole vCPU, inside what cgroups v1 (2 ...) and v2 (... 10000) allow.

    A share is no ceiling: a processor that is idle is given to whoever wants it, as a burstable type expects.
    """
    return min(10_000, max(2, vcpus * percent))


def _disks(machine: Machine, layers: Mapping[str, Path]) -> list[dict[str, object]]:
    disks: list[dict[str, object]] = []
    for index, disk in enumerate(machine.disks):
        bus, slot = (4, index) if index else (0, 4)
        disks.append(
            {
                "path": layers[disk.layer],
                "target": disk.target,
                "serial": disk.serial,
                "bus": bus,
                "slot": slot,
                "boot_order": 1 if index == 0 and machine.kernel is None else 0,
            }
        )
    return disks


def _nic(nic: Nic, index: int) -> dict[str, object]:
    bus, slot = nic_address(index)
    return {
        "tap": tap_name(nic.port),
        "alias": alias(nic.port),
        "segment": bridge_name(nic.segment),
        "mac": nic.mac,
        "bus": bus,
        "slot": slot,
    }


def _places(machine: Machine) -> list[int]:
    """The number of each interface. Raises ValueError where two want the same."""
    places = [place if nic.index < 0 else nic.index for place, nic in enumerate(machine.nics)]
    if len(set(places)) < len(places):
        raise ValueError(f"{machine.name}: two interfaces have the same number, of {places}")
    for place in places:
        if place >= MAX_NICS:
            raise ValueError(f"{machine.name}: interface {place}; numbers 0 to {MAX_NICS - 1} are allowed")
    return places


def _check(machine: Machine) -> None:
    if machine.vcpus != machine.cores * machine.threads:
        raise ValueError(
            f"{machine.name}: {machine.vcpus} vCPUs cannot be {machine.cores} cores of {machine.threads} threads"
        )
    if len(machine.disks) > MAX_DISKS:
        raise ValueError(f"{machine.name}: {len(machine.disks)} disks; at most {MAX_DISKS} are allowed")
    for disk in machine.disks:
        if len(disk.serial) > _MAX_SERIAL:
            raise ValueError(f"{machine.name}: the serial number {disk.serial} has more than {_MAX_SERIAL} characters")

"""The XML that libvirt is handed: values go in, `templates/` prints them.

What a guest's hardware is like is decided here and in the templates, and nowhere else. What is there from start to end
sits on the root complex. What may come and go while the guest runs sits behind two bridges of the old kind, whose slots
ACPI can plug at no cost to the boot (docs/adr/0007-hot-plug-slots.md). A device's slot follows from its number in the
machine, so a guest finds its interfaces and disks where they were after every start:

    bus 0 --+-- slot 1 video, 2 virtio-serial, 3 rng
            +-- slot 4 root disk
            +-- slot 5 interface 0
            +-- slot 6 root port, bus 1 -- bridge, bus 3 -- slots 1 ... 31 interfaces 1 ... 31
            +-- slot 6 root port, bus 2 -- bridge, bus 4 -- slots 1 ... 31 disks 1 ... 31
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from orchestrator.host import Disk, LayerFile, Limits, Machine, Nic
from orchestrator.host.links import bridge_name, tap_name

# Marks the domains of one deployment, so that several on one host tell theirs apart.
NAMESPACE = "urn:orchestrator:domain:1"

MAX_NICS = 1 + 31
MAX_DISKS = 1 + 31

_CPU_MODES = {"kvm": "host-passthrough", "tcg": "maximum"}
_DOMAIN_TYPES = {"kvm": "kvm", "tcg": "qemu"}
_SERIAL = re.compile(r"[A-Za-z0-9_-]{1,20}")  # what a virtio disk can carry, of what libvirt takes in a name of ours
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
    """What of the host belongs to one machine. `layers` maps each layer of its disks to its file; `security_models` are
    what libvirt can confine it by."""

    layers: Mapping[str, Path]
    kernel: KernelFiles | None = None
    serial_socket: Path
    console_log: Path
    security_models: tuple[str, ...] = ()


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
        self._disk = environment.get_template("disk.xml.j2")
        self._switch = environment.get_template("switch.xml.j2")
        self._secret = environment.get_template("secret.xml.j2")

    def render(self, machine: Machine, files: DomainFiles, *, deployment: str, accelerator: str) -> str:
        """The XML that libvirt defines `machine` by. `accelerator` is kvm or tcg. Raises ValueError for a machine
        that cannot be."""
        _check(machine)
        return self._domain.render(
            machine=machine,
            kernel=files.kernel if machine.kernel else None,
            disks=[
                _disk(disk, index, files.layers, deployment, bootable=machine.kernel is None)
                for disk, index in zip(machine.disks, _numbers(machine, "disks"), strict=True)
            ],
            nics=[_nic(nic, index) for nic, index in zip(machine.nics, _numbers(machine, "interfaces"), strict=True)],
            serial_socket=files.serial_socket,
            console_log=files.console_log,
            security_models=files.security_models,
            cpu_mode=_CPU_MODES[accelerator],
            domain_type=_DOMAIN_TYPES[accelerator],
            deployment=deployment,
            namespace=NAMESPACE,
        )

    def render_interface(self, nic: Nic, index: int) -> str:
        """The XML by which libvirt gives a domain one more interface, as its number `index`."""
        return self._interface.render(nic=_nic(nic, index))

    def render_disk(self, disk: Disk, index: int, layers: Mapping[str, Path], *, deployment: str) -> str:
        """The XML by which libvirt gives a domain one more disk, as its number `index`."""
        _check_disk(disk)
        return self._disk.render(disk=_disk(disk, index, layers, deployment, bootable=False))

    def render_switch(
        self, tops: Mapping[str, LayerFile], others: Iterable[str], layers: Mapping[str, Path], *, deployment: str
    ) -> str:
        """The XML by which libvirt switches disks, each named by its target, to new tops, and leaves the others."""
        disks = [{"target": name, "layer": _layer(top, layers, deployment)} for name, top in tops.items()]
        return self._switch.render(disks=disks, others=list(others))

    def render_secret(self, layer: str, *, deployment: str) -> str:
        """The XML of the libvirt secret that opens `layer`."""
        return self._secret.render(
            uuid=secret_uuid(layer, deployment=deployment), description=f"{layer} of deployment {deployment}"
        )


def alias(device: str) -> str:
    """libvirt's name for the interface whose tap is `device`, or the disk with that serial number."""
    return _ALIAS + device


def device_of(alias_name: str) -> str:
    """The port or serial number that libvirt's name of a device stands for; empty where the device is not ours."""
    return alias_name.removeprefix(_ALIAS) if alias_name.startswith(_ALIAS) else ""


def secret_uuid(layer: str, *, deployment: str) -> str:
    """The name under which libvirt is lent what opens `layer`."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{NAMESPACE}:{deployment}:{layer}"))


def iotune(limits: Limits | None) -> dict[str, int]:
    """Limits in libvirt's words, 0 for none. libvirt takes a burst only above a limit, and its length with it alone."""
    limits = limits or Limits()
    bursts_iops = limits.burst_iops > limits.iops > 0
    bursts_bytes = limits.burst_bytes_per_s > limits.bytes_per_s > 0
    return {
        "total_bytes_sec": limits.bytes_per_s,
        "total_iops_sec": limits.iops,
        "total_bytes_sec_max": limits.burst_bytes_per_s if bursts_bytes else 0,
        "total_iops_sec_max": limits.burst_iops if bursts_iops else 0,
        "total_bytes_sec_max_length": _length_s(limits.bytes_per_s, limits.burst_bytes_per_s, limits.burst_s)
        if bursts_bytes
        else 0,
        "total_iops_sec_max_length": _length_s(limits.iops, limits.burst_iops, limits.burst_s) if bursts_iops else 0,
        "size_iops_sec": limits.operation_bytes if limits.iops else 0,
    }


def _length_s(limit: int, burst: int, burst_s: int) -> int:
    """QEMU's bucket holds the burst's rate times this length, and leaks at the limit while it is filled (its
    docs/throttle.txt): so that it is full after `burst_s`, the length is less than that."""
    return max(1, round(burst_s * (burst - limit) / burst))


def nic_address(index: int) -> tuple[int, int]:
    """Bus and slot of interface number `index`."""
    return (0, 5) if index == 0 else (3, index)


def disk_address(index: int) -> tuple[int, int]:
    """Bus and slot of disk number `index`."""
    return (0, 4) if index == 0 else (4, index)


def _target(index: int) -> str:
    """libvirt's name for disk number `index`: vda ... vdz, vdaa ..."""
    return f"vd{chr(97 + index)}" if index < 26 else f"vda{chr(97 + index - 26)}"


def _disk(disk: Disk, index: int, layers: Mapping[str, Path], deployment: str, *, bootable: bool) -> dict[str, object]:
    bus, slot = disk_address(index)
    return {
        "layers": [_layer(layer, layers, deployment) for layer in disk.chain],
        "target": _target(index),
        "serial": disk.serial,
        "alias": alias(disk.serial),
        "limits": [(name, value) for name, value in iotune(disk.limits).items() if value],
        "bus": bus,
        "slot": slot,
        "boot_order": 1 if index == 0 and bootable else 0,
    }


def _layer(layer: LayerFile, layers: Mapping[str, Path], deployment: str) -> dict[str, object]:
    return {
        "path": layers[layer.layer],
        "secret_uuid": secret_uuid(layer.layer, deployment=deployment) if layer.secret else "",
    }


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


def _numbers(machine: Machine, what: str) -> list[int]:
    """The number of each of its disks or interfaces. Raises ValueError where two want the same."""
    devices: Sequence[Disk | Nic] = machine.disks if what == "disks" else machine.nics
    most = MAX_DISKS if what == "disks" else MAX_NICS
    numbers = [place if device.index < 0 else device.index for place, device in enumerate(devices)]
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{machine.name}: two {what} have the same number, of {numbers}")
    for number in numbers:
        if number >= most:
            raise ValueError(f"{machine.name}: number {number} of its {what}; 0 to {most - 1} are allowed")
    return numbers


def _check(machine: Machine) -> None:
    if machine.vcpus != machine.cores * machine.threads:
        raise ValueError(
            f"{machine.name}: {machine.vcpus} vCPUs cannot be {machine.cores} cores of {machine.threads} threads"
        )
    for disk in machine.disks:
        _check_disk(disk)
    serials = [disk.serial for disk in machine.disks]
    if len(set(serials)) < len(serials):
        raise ValueError(f"{machine.name}: two disks have the same serial number, of {', '.join(serials)}")


def _check_disk(disk: Disk) -> None:
    if not _SERIAL.fullmatch(disk.serial):
        raise ValueError(
            f"the serial number '{disk.serial}': 1 to 20 letters, digits, dashes and underscores are allowed"
        )
    if not disk.chain:
        raise ValueError(f"the disk {disk.serial} has no layer; at least one is needed")

"""The domain XML of a machine: values go in, `templates/domain.xml.j2` prints them.

What a guest's hardware is like is decided here and in the template, and nowhere else. Every device sits directly on
the root complex, at a slot that follows from its place in the machine, so a guest finds its interfaces and disks where
they were after every start, and neither the firmware nor the kernel has bridges to walk:

    slot   1      2                3    4          5 ... 19     20 ... 30
           video  virtio-serial    rng  root disk  interfaces   other disks, eight functions to a slot
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2

from orchestrator.host import Machine
from orchestrator.host.links import bridge_name, tap_name

# Marks the domains of one deployment, so that several on one host tell theirs apart.
NAMESPACE = "urn:orchestrator:domain:1"

MAX_NICS = 15
MAX_DISKS = 1 + 11 * 8

_CPU_MODES = {"kvm": "host-passthrough", "tcg": "maximum"}
_DOMAIN_TYPES = {"kvm": "kvm", "tcg": "qemu"}
_MAX_SERIAL = 20  # characters: what a virtio disk can carry


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
        self._template = environment.get_template("domain.xml.j2")

    def render(self, machine: Machine, files: DomainFiles, *, deployment: str, accelerator: str) -> str:
        """The XML that libvirt defines `machine` by. `accelerator` is kvm or tcg. Raises ValueError for a machine
        that cannot be."""
        _check(machine)
        return self._template.render(
            machine=machine,
            kernel=files.kernel if machine.kernel else None,
            disks=_disks(machine, files.layers),
            nics=[
                {"port": tap_name(nic.port), "segment": bridge_name(nic.segment), "mac": nic.mac, "slot": 5 + index}
                for index, nic in enumerate(machine.nics)
            ],
            serial_socket=files.serial_socket,
            console_log=files.console_log,
            cpu_shares=cpu_shares(machine.vcpus, machine.cpu_share_percent),
            cpu_mode=_CPU_MODES[accelerator],
            domain_type=_DOMAIN_TYPES[accelerator],
            deployment=deployment,
            namespace=NAMESPACE,
        )


def cpu_shares(vcpus: int, percent: int) -> int:
    """The weight under contention: 100 for a whole vCPU, inside what cgroups v1 (2 ...) and v2 (... 10000) allow.

    A share is no ceiling: a processor that is idle is given to whoever wants it, as a burstable type expects.
    """
    return min(10_000, max(2, vcpus * percent))


def _disks(machine: Machine, layers: Mapping[str, Path]) -> list[dict[str, object]]:
    disks: list[dict[str, object]] = []
    for index, disk in enumerate(machine.disks):
        function, slot = divmod(index - 1, 11) if index else (0, -16)
        disks.append(
            {
                "path": layers[disk.layer],
                "target": disk.target,
                "serial": disk.serial,
                "slot": 20 + slot,
                "function": function,
                # A slot is searched for further functions only when its first one says that there are any.
                "multifunction": "on" if index and function == 0 and index + 11 < len(machine.disks) else "off",
                "boot_order": 1 if index == 0 and machine.kernel is None else 0,
            }
        )
    return disks


def _check(machine: Machine) -> None:
    if machine.vcpus != machine.cores * machine.threads:
        raise ValueError(
            f"{machine.name}: {machine.vcpus} vCPUs cannot be {machine.cores} cores of {machine.threads} threads"
        )
    if len(machine.nics) > MAX_NICS:
        raise ValueError(f"{machine.name}: {len(machine.nics)} interfaces; at most {MAX_NICS} are allowed")
    if len(machine.disks) > MAX_DISKS:
        raise ValueError(f"{machine.name}: {len(machine.disks)} disks; at most {MAX_DISKS} are allowed")
    for disk in machine.disks:
        if len(disk.serial) > _MAX_SERIAL:
            raise ValueError(f"{machine.name}: the serial number {disk.serial} has more than {_MAX_SERIAL} characters")

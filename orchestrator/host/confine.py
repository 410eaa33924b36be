"""What holds a guest's QEMU to its part of the host, by cgroups: so that a guest that takes all it can get, or one that
has left its QEMU, leaves the others theirs.

    processors   a weight by vCPUs and type: under contention in proportion; what is idle goes to whoever wants it
    memory       at most the guest's own, and what QEMU itself may need for so many disks
    block I/O    a weight by vCPUs, where the host's disks are scheduled by BFQ; each volume's own limits come on top
    threads      at most what QEMU makes when all its disks are busy; its seccomp filter forbids it new programs

libvirt puts each machine into cgroups of its own and sets the first three, once the machine runs. A definition that
names a limit does not start where a controller is missing; and one that limits memory lets QEMU lock as much, for which
libvirtd needs a right that it has not got in every container. Of threads libvirt knows nothing: where it leaves QEMU in
a cgroup with others, it gets one here.

A host without a controller runs guests all the same: that is said once in the log, and by `orc doctor`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt

log = logging.getLogger(__name__)

CONTROLLERS = ("cpu", "memory", "blkio", "pids")  # by their names in version 1; blkio is io in version 2
LIBVIRT_CONFIGURATION = Path("/etc/libvirt/qemu.conf")
SECURITY_MODELS = ("apparmor", "selinux")

_PIDS = Path("/run/libvirt/qemu")
_QEMU_MIB = 512  # its own code and heap, devices, and what the kernel keeps of files that it writes
_TABLES = 64  # a MiB for so many of the guest's: page tables, of QEMU's process and of KVM
_TRANSLATIONS_MIB = 1024  # TCG's cache of translated code is no larger
_LAYER_MIB = 32  # qcow2's cache of tables, for each layer
_VCPU_MIB = 8
_THREADS = 512  # up to 64 for a disk's I/O, and few disks are so busy at once
_WEIGHT = (10, 1000)  # what libvirt and both versions take
_SHARES = (2, 10_000)


def cpu_shares(vcpus: int, percent: int) -> int:
    """The weight under contention: 100 for a whole vCPU, inside what cgroups v1 (2 ...) and v2 (... 10000) allow.

    A share is no ceiling: a processor that is idle is given to whoever wants it, as a burstable type expects.
    """
    return min(_SHARES[1], max(_SHARES[0], vcpus * percent))


def block_weight(vcpus: int) -> int:
    """100, which is everybody's unless told otherwise, for two vCPUs."""
    return min(_WEIGHT[1], max(_WEIGHT[0], vcpus * 50))


def most_memory_mib(tree: ElementTree.Element, *, accelerator: str) -> int:
    """What a domain may have in all, by its XML as libvirt prints it: more than honest work ever takes."""
    memory = tree.find("./memory")
    vcpus = int(tree.findtext("./vcpu") or 1)
    layers = sum(1 for source in tree.iterfind("./devices/disk//source") if source.get("file"))
    own_mib = int(memory.text or 0) // 1024 if memory is not None else 0  # libvirt prints KiB
    translations = _TRANSLATIONS_MIB if accelerator == "tcg" else 0
    return own_mib + own_mib // _TABLES + _QEMU_MIB + translations + layers * _LAYER_MIB + vcpus * _VCPU_MIB


def most_threads(vcpus: int) -> int:
    return _THREADS + 2 * vcpus


def security_models(capabilities: str) -> tuple[str, ...]:
    """Those of AppArmor and SELinux that libvirt confines guests by, of its own description of the host."""
    tree = ElementTree.fromstring(capabilities)  # noqa: S314  # libvirt's own words
    found = {model.findtext("model") for model in tree.iterfind("./host/secmodel")}
    return tuple(model for model in SECURITY_MODELS if model in found)


# --- where cgroups are ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """Where each controller is mounted that may be written: `old` by name (version 1), `unified` for what is left."""

    old: Mapping[str, Path]
    unified: Path | None
    in_unified: frozenset[str]  # by their names in version 1
    mounts: tuple[Path, ...] = ()  # those of other controllers too

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(self.old) | self.in_unified

    @property
    def version(self) -> str:
        return "none" if not self.controllers else "v2" if not self.old else "v1"


def hierarchies(mounts: Path = Path("/proc/self/mounts")) -> Hierarchies:
    """As the kernel has them now for this process."""
    old: dict[str, Path] = {}
    unified: Path | None = None
    found: frozenset[str] = frozenset()
    places: list[Path] = []
    for line in mounts.read_text().splitlines():
        _, place, kind, options, *_ = line.split(" ")
        if "rw" not in options.split(",") or kind not in ("cgroup", "cgroup2"):
            continue
        path = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place))
        places.append(path)
        if kind == "cgroup":
            old |= {name: path for name in CONTROLLERS if name in options.split(",")}
            continue
        with contextlib.suppress(OSError):
            names = (path / "cgroup.controllers").read_text().split()
            found = frozenset({"io": "blkio"}.get(name, name) for name in names) & frozenset(CONTROLLERS)
            unified = path
    return Hierarchies(old, unified, found, tuple(places))


def setting(name: str, configuration: Path | None = None) -> str:
    """The value of a line of libvirt's qemu.conf, without quotes; empty when it is not set or cannot be read."""
    try:
        text = (configuration or LIBVIRT_CONFIGURATION).read_text()
    except OSError:
        return ""
    found = re.findall(rf"^[ \t]*{name}[ \t]*=[ \t]*(\[[^\]]*\]|[^#\n]*)", text, re.MULTILINE)
    return found[-1].strip().strip("\"'") if found else ""


# --- what is done ---------------------------------------------------------------------------------------------------


class Confinement:
    """The limits of one deployment's machines. Each call may be made again."""

    def __init__(self, deployment: str, accelerator: str, *, places: Callable[[], Hierarchies] = hierarchies) -> None:
        self._deployment = deployment
        self._accelerator = accelerator
        self._places = places
        self._lock = threading.Lock()
        self._lacking: set[str] = set()

    def hold(self, domain: Any, tree: ElementTree.Element, cpu_share_percent: int) -> None:
        """All limits of a domain that runs; `tree` is its XML as libvirt prints it. Errors of libvirt's pass only when
        it is there no more."""
        vcpus = int(tree.findtext("./vcpu") or 1)
        live = libvirt.VIR_DOMAIN_AFFECT_LIVE
        shares = {"cpu_shares": cpu_shares(vcpus, cpu_share_percent)}
        self._try(domain, "CPU shares", lambda: domain.setSchedulerParametersFlags(shares, live))
        self.hold_memory(domain, tree)
        weight = {"weight": block_weight(vcpus)}
        self._try(domain, "weights of block I/O", lambda: domain.setBlkioParameters(weight, live))
        try:
            self._hold_threads(domain.name(), most_threads(vcpus))
        except OSError as error:
            if domain.isActive():
                self._warn("numbers of threads", str(error))

    def hold_memory(self, domain: Any, tree: ElementTree.Element) -> None:
        """Again after a disk has come: it may need more."""
        most = {"hard_limit": most_memory_mib(tree, accelerator=self._accelerator) * 1024}
        self._try(domain, "limits of memory", lambda: domain.setMemoryParameters(most, libvirt.VIR_DOMAIN_AFFECT_LIVE))

    def release(self) -> None:
        """Take away what was made here for machines that have ended: what is in use cannot be removed."""
        mount = self._places().old.get("pids")
        if mount is None:
            return
        own = self._own(mount)
        with contextlib.suppress(OSError):
            for entry in os.scandir(own):
                if entry.is_dir(follow_symlinks=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(entry.path)
            own.rmdir()

    def bury(self, name: str) -> None:
        """Take away what libvirt has left of a machine that does not run: it forgets the cgroups of one whose QEMU has
        ended while libvirtd was away."""
        for mount in self._places().mounts:
            for place in (mount / "machine").glob(f"qemu-*-{name}.libvirt-qemu"):
                with contextlib.suppress(OSError):
                    if not _is_populated(place):
                        for top, _, _ in os.walk(place, topdown=False):
                            os.rmdir(top)

    def _try(self, domain: Any, what: str, limit: Callable[[], object]) -> None:
        try:
            limit()
        except libvirt.libvirtError as error:
            if domain.isActive():
                self._warn(what, str(error))

    def _warn(self, what: str, reason: str) -> None:
        with self._lock:
            if what in self._lacking:
                return
            self._lacking.add(what)
        log.warning("guests run without %s, so a noisy one can take from others (%s): see `orc doctor`", what, reason)

    # --- threads ---

    def _own(self, mount: Path) -> Path:
        return mount / "machine" / f"orc-{self._deployment}"

    def _hold_threads(self, name: str, most: int) -> None:
        pid = int((_PIDS / f"{name}.pid").read_text())
        places = self._places()
        paths = cgroups_of(pid)
        if mount := places.old.get("pids"):
            place = mount / paths.get("pids", "/").lstrip("/")
            if not _is_a_machines(place):
                self._move(pid, place := self._own(mount) / name, most)
        elif places.unified and "pids" in places.in_unified:
            place = places.unified / paths.get("", "/").lstrip("/")
            while place.name in ("emulator", "libvirt") or place.name.startswith("vcpu"):
                place = place.parent
            if not _is_a_machines(place):
                raise OSError(f"{place} is not QEMU's alone")
            _enable_pids(places.unified, place.parent)
        else:
            raise OSError("the controller pids is not mounted")
        (place / "pids.max").write_text(str(most))

    def _move(self, pid: int, place: Path, most: int) -> None:
        for attempt in (1, 2, 3):
            try:
                place.mkdir(parents=True, exist_ok=True)
                (place / "pids.max").write_text(str(most))
                (place / "cgroup.procs").write_text(str(pid))
            except FileNotFoundError:  # somebody takes away what is empty just then
                if attempt == 3:
                    raise
            else:
                return


def cgroups_of(pid: int) -> dict[str, str]:
    """The cgroup of a process in each hierarchy, by controller; in the unified one, by the empty name."""
    found: dict[str, str] = {}
    for line in Path("/proc", str(pid), "cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        found |= dict.fromkeys(names.split(","), path)
    return found


def _is_a_machines(place: Path) -> bool:
    """Whether libvirt, or systemd for it, has made it for one machine."""
    return place.name.endswith((".libvirt-qemu", ".scope"))


def _is_populated(place: Path) -> bool:
    """Whether a process is in a cgroup or below it."""
    events = place / "cgroup.events"
    if events.exists():  # in version 2
        return "populated 0" not in events.read_text()
    return any((Path(top) / "cgroup.procs").read_text() for top, _, files in os.walk(place) if "cgroup.procs" in files)


def _enable_pids(root: Path, last: Path) -> None:
    """In each cgroup from the root down to `last`, for those below it; systemd does so by itself."""
    for place in (*reversed(last.parents), last):
        if place == root or root in place.parents:
            control = place / "cgroup.subtree_control"
            if "pids" not in control.read_text().split():
                control.write_text("+pids")

"""What a host must have for instances to run on it, looked at one thing at a time.

Each check answers a Finding (`findings.py`); those of networks are in `network_checks.py`. Nothing here changes the
host but for what it makes to try something, and removes at once.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import shutil
import socket
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.host import confine, findings, network_checks
from orchestrator.host.findings import Command, Expectation, Finding, dotted, fail, last_line, ok, read_version, warn
from orchestrator.host.probe import KVM, Trial, try_kvm

OLDEST_QEMU = (6, 2)
OLDEST_LIBVIRT = (8, 0)
ENOUGH_DISK_BYTES = 10 << 30
LEAST_DISK_BYTES = 2 << 30

_LIBVIRT_CONFIGURATION = Path("/etc/libvirt/qemu.conf")
_QEMU_USERS = ("libvirt-qemu", "qemu")  # Debian's and Fedora's
_VIRTLOGD_SOCKET = Path("/run/libvirt/virtlogd-sock")
_SYSTEMD = Path("/run/systemd/system")
_SELINUX = Path("/sys/fs/selinux/enforce")
_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
_MOUNTS = Path("/proc/self/mounts")


def check_host(expected: Expectation) -> list[Finding]:
    """Look at everything; the slow ones (a hanging KVM, a libvirt that starts) at the same time as the others."""
    checks: list[Callable[[Expectation], Finding]] = [
        _check_programs,
        _check_qemu,
        _check_kvm,
        _check_kvm_access,
        _check_nested,
        _check_libvirt,
        _check_virtlogd,
        network_checks.check_networking,
        network_checks.check_shortcuts,
        network_checks.check_neighbours,
        network_checks.check_dnsmasq,
        _check_cgroups,
        _check_confinement,
        _check_disk,
        _check_state_access,
        network_checks.check_ranges,
        network_checks.check_forwarding,
        network_checks.check_firewall,
    ]
    with ThreadPoolExecutor(max_workers=len(checks)) as threads:
        return list(threads.map(lambda check: check(expected), checks))


# --- programs and accelerators --------------------------------------------------------------------------------------


def _check_programs(_: Expectation) -> Finding:
    wanted = (
        "qemu-system-x86_64",
        "qemu-img",
        "qemu-storage-daemon",
        "virtlogd",
        "ip",
        "bridge",
        "nft",
        "dnsmasq",
        "mmdebstrap",
    )
    missing = [name for name in wanted if findings.which(name) is None]
    if findings.which("libvirtd") is None and findings.which("virtqemud") is None:
        missing.append("libvirtd")
    if missing == ["mmdebstrap"]:
        return warn("programs", "mmdebstrap is not installed: images can be imported, but not built; try bin/prepare")
    if missing:
        return fail("programs", f"not installed: {', '.join(missing)}; bin/prepare installs what is missing")
    return ok("programs", "QEMU, libvirt, iproute2, nftables, dnsmasq and mmdebstrap are installed")


def _check_qemu(_: Expectation) -> Finding:
    code, text = findings.ask("qemu-system-x86_64", "--version")
    version = read_version(text)
    if code:
        return fail("qemu", last_line(text))
    if version < OLDEST_QEMU:
        return fail("qemu", f"QEMU {dotted(version)} is too old: {dotted(OLDEST_QEMU)} or newer is needed")
    return ok("qemu", f"QEMU {dotted(version)}")


def _check_kvm(expected: Expectation) -> Finding:
    trial = Trial(expected.accelerator == "kvm", "a guest under it did not run when that was tried")
    if not expected.accelerator:
        trial = try_kvm()
    if trial.works:
        return ok("kvm", "a guest runs under KVM")
    module = _kvm_module()
    mend = [("modprobe", module)] if module and not KVM.exists() and not Path("/sys/module", module).exists() else []
    return warn("kvm", f"no KVM: {trial.reason}. Guests run under TCG instead: they work, several times slower", *mend)


def _kvm_module() -> str:
    """The module for this processor; empty when its virtualisation is off or hidden."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return ""
    words = flags.group(1).split() if flags else []
    return "kvm_intel" if "vmx" in words else "kvm_amd" if "svm" in words else ""


def _qemu_user() -> tuple[str, set[int]] | None:
    """The user that libvirt runs QEMU as and the ids of its groups; None when there is no such user."""
    wanted: dict[str, str] = {}
    try:
        for name, value in re.findall(
            r'^\s*(user|group)\s*=\s*"\+?([^"]+)"', _LIBVIRT_CONFIGURATION.read_text(), re.MULTILINE
        ):
            wanted[name] = value
    except OSError:
        pass  # without a file, or the right to read it, the distribution's own user is it
    for name in [wanted["user"]] if "user" in wanted else _QEMU_USERS:
        try:
            user = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
        except KeyError:
            continue
        groups = set(os.getgrouplist(user.pw_name, user.pw_gid))
        with_group = wanted.get("group", "")
        for group in grp.getgrall():
            if with_group in (group.gr_name, str(group.gr_gid)):
                groups.add(group.gr_gid)
        return user.pw_name, groups
    return None


def _check_kvm_access(_: Expectation) -> Finding:
    if not KVM.exists():
        return ok("kvm-access", f"{KVM} is not there")
    user = _qemu_user()
    if user is None:
        return warn("kvm-access", "the user that QEMU runs as is not there: is libvirt installed?")
    name, groups = user
    status = KVM.stat()
    both = stat.S_IRGRP | stat.S_IWGRP
    by_group = status.st_gid in groups and status.st_mode & both == both
    by_all = status.st_mode & (both >> 3) == both >> 3
    if name == "root" or by_group or by_all:
        return ok("kvm-access", f"{name}, as whom QEMU runs, can use {KVM}")
    mend: list[Command] = []
    try:
        kvm = grp.getgrnam("kvm").gr_gid
    except KeyError:
        kvm = -1
        mend.append(("groupadd", "--system", "kvm"))
    if kvm not in groups:
        mend.append(("usermod", "--append", "--groups", "kvm", name))
    if status.st_gid != kvm:
        mend.append(("chgrp", "kvm", str(KVM)))
    mend.append(("chmod", "660", str(KVM)))
    return warn(
        "kvm-access",
        f"{KVM} is {stat.filemode(status.st_mode)}: {name}, as whom QEMU runs, cannot open it, so libvirt probes QEMU "
        "anew at every start of a guest, up to a minute each",
        *mend,
    )


def _check_nested(_: Expectation) -> Finding:
    for module in ("kvm_intel", "kvm_amd"):
        try:
            on = Path(f"/sys/module/{module}/parameters/nested").read_text().strip() in ("1", "Y", "y")
        except OSError:
            continue
        return ok("nested", f"guests {'can' if on else 'cannot'} run KVM themselves ({module} nested={int(on)})")
    return ok("nested", "no KVM module says whether guests can run KVM themselves")


# --- libvirt --------------------------------------------------------------------------------------------------------


def _starts(*, daemons: tuple[Command, ...], units: tuple[str, ...]) -> tuple[Command, ...]:
    """The commands that start a daemon: the first of its units that systemd knows, else the daemons themselves."""
    if not _SYSTEMD.is_dir():
        return daemons
    known = next((unit for unit in units if findings.ask("systemctl", "cat", unit)[0] == 0), units[-1])
    return (("systemctl", "start", known),)


def _check_libvirt(_: Expectation) -> Finding:
    code, text = findings.ask("virsh", "-c", "qemu:///system", "version", "--daemon", timeout_s=90.0)
    if code == 127:
        code, text = _ask_libvirt()
    if code:
        units = ("virtqemud.socket", "libvirtd.service") if findings.which("virtqemud") else ("libvirtd.service",)
        start = _starts(daemons=(("libvirtd", "-d"),), units=units)
        return fail("libvirt", f"libvirt does not answer at qemu:///system: {last_line(text)}", *start)
    found = re.search(r"daemon:?\s+(\d+\.\d+\.\d+)", text) or re.search(r"(\d+\.\d+\.\d+)", text)
    version = read_version(found.group(1)) if found else ()
    if version < OLDEST_LIBVIRT:
        return fail("libvirt", f"libvirt {dotted(version)} is too old: {dotted(OLDEST_LIBVIRT)} or newer is needed")
    return ok("libvirt", f"libvirt {dotted(version)} answers")


def _ask_libvirt() -> tuple[int, str]:
    """As virsh would, where virsh is not installed."""
    import libvirt

    try:
        connection = libvirt.openReadOnly("qemu:///system")
        number = connection.getLibVersion()
        connection.close()
    except libvirt.libvirtError as error:
        return 1, str(error)
    return 0, f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def _check_virtlogd(_: Expectation) -> Finding:
    """It keeps guests' consoles within their size; a guest whose console goes to a file cannot start without it."""
    if os.geteuid() != 0:
        return ok("virtlogd", "only root can ask virtlogd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5.0)
        try:
            client.connect(str(_VIRTLOGD_SOCKET))
        except OSError as error:
            start = _starts(daemons=(("virtlogd", "-d"),), units=("virtlogd.socket", "virtlogd.service"))
            return fail("virtlogd", f"virtlogd, which keeps consoles, does not answer: {error.strerror}", *start)
    return ok("virtlogd", "virtlogd answers")


# --- room and rights ------------------------------------------------------------------------------------------------


_HELD = {"cpu": "processors", "memory": "memory", "blkio": "disks", "pids": "threads"}


def _check_cgroups(_: Expectation) -> Finding:
    """By what libvirt, and confine.py, hold a guest to its part of the host."""
    try:
        found = confine.hierarchies(_MOUNTS)
    except OSError as error:
        return warn("cgroups", f"what is mounted cannot be read ({error.strerror}): guests' shares may not be enforced")
    held = found.controllers
    listed = re.findall(r"[a-z]+", confine.setting("cgroup_controllers", _LIBVIRT_CONFIGURATION))
    refused = {name for name in ("cpu", "memory", "blkio") if listed and name not in listed}
    lacking = [name for name in confine.CONTROLLERS if name not in held - refused]
    if not held:
        text = "no cgroup controllers are mounted that can be written"
    elif lacking:
        text = f"cgroup {found.version} without {', '.join(lacking)}"
    else:
        return ok("cgroups", f"cgroup {found.version} with {', '.join(confine.CONTROLLERS)}")
    if refused & held:
        text += f" (cgroup_controllers in {_LIBVIRT_CONFIGURATION} leaves out {', '.join(sorted(refused & held))})"
    names = [_HELD[name] for name in lacking]
    return warn("cgroups", f"{text}: a guest can take others' {' and '.join(names)}")


def _check_confinement(_: Expectation) -> Finding:
    """What a guest that has left its QEMU meets: another user's rights, a seccomp filter, AppArmor or SELinux."""
    weak = []
    user = _qemu_user()
    if user is not None and user[0] == "root":
        weak.append(f"QEMU runs as root (user in {_LIBVIRT_CONFIGURATION})")
    if confine.setting("seccomp_sandbox", _LIBVIRT_CONFIGURATION) == "0":
        weak.append(f"its seccomp filter is off (seccomp_sandbox in {_LIBVIRT_CONFIGURATION})")
    elif "-sandbox" not in findings.ask("qemu-system-x86_64", "-help")[1]:
        weak.append("QEMU is built without a seccomp filter")
    driver = confine.setting("security_driver", _LIBVIRT_CONFIGURATION)
    module = _security_module()
    if not module:
        weak.append(
            "neither AppArmor nor SELinux is on: its user and its seccomp filter alone hold what leaves a guest"
        )
    elif "none" in driver:
        weak.append(f"libvirt makes no use of {module} (security_driver in {_LIBVIRT_CONFIGURATION})")
    else:
        module = f"{module} and "
    if weak:
        return warn("confinement", "; ".join(weak))
    return ok("confinement", f"{module}a user and a seccomp filter of its own confine each guest's QEMU{_on_selinux()}")


def _security_module() -> str:
    with contextlib.suppress(OSError):
        if _SELINUX.read_text().strip() == "1":
            return "SELinux"
    with contextlib.suppress(OSError):
        if _APPARMOR.read_text().strip() == "Y":
            return "AppArmor"
    return ""


def _on_selinux() -> str:
    return ". If a guest cannot start, see what `ausearch -m avc` says" if _security_module() == "SELinux" else ""


def _existing(path: Path) -> list[Path]:
    """`path` and the directories above it that are there, from the innermost."""
    return [place for place in (path, *path.parents) if place.exists()]


def _check_disk(expected: Expectation) -> Finding:
    free = shutil.disk_usage(_existing(expected.state_dir.absolute())[0]).free
    text = f"{free / (1 << 30):.1f} GiB are free for {expected.state_dir}"
    if free < LEAST_DISK_BYTES:
        return fail("disk", f"only {text}; an image needs {LEAST_DISK_BYTES >> 30} GiB to be built")
    if free < ENOUGH_DISK_BYTES:
        return warn("disk", f"only {text}")
    return ok("disk", text)


def _check_state_access(expected: Expectation) -> Finding:
    """libvirt gives QEMU's user the disks, but not the way to them."""
    user = _qemu_user()
    if user is None or user[0] == "root":
        return ok("state-access", f"{expected.state_dir} needs no more rights")
    name, groups = user
    for place in _existing(expected.state_dir.absolute()):
        status = place.stat()
        by_group = status.st_gid in groups and status.st_mode & stat.S_IXGRP
        if by_group or status.st_mode & stat.S_IXOTH or status.st_uid == pwd.getpwnam(name).pw_uid:
            continue
        text = f"{name}, as whom QEMU runs, cannot pass through {place} ({stat.filemode(status.st_mode)})"
        if place == expected.state_dir.absolute():
            return fail("state-access", text, ("chmod", "o+x", str(place)))
        return fail("state-access", f"{text}: choose another state_dir, or let it through with chmod o+x {place}")
    return ok("state-access", f"{name}, as whom QEMU runs, can reach {expected.state_dir}")

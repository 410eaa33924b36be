"""What a host must have for instances to run on it, looked at one thing at a time.

Each check answers a Finding: how it stands, in a sentence, and the commands that mend it where there are any. Nothing
here changes the host but for what it makes to try something, and removes at once.
"""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import json
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from orchestrator.host import bpf, confine, ranges
from orchestrator.host.probe import KVM, Trial, try_kvm

OLDEST_QEMU = (6, 2)
OLDEST_LIBVIRT = (8, 0)
OLDEST_DNSMASQ = (2, 80)
ENOUGH_DISK_BYTES = 10 << 30
LEAST_DISK_BYTES = 2 << 30

_SBIN = ":/usr/sbin:/sbin"  # not in the path of everybody who may run this
_LIBVIRT_CONFIGURATION = Path("/etc/libvirt/qemu.conf")
_QEMU_USERS = ("libvirt-qemu", "qemu")  # Debian's and Fedora's
_VIRTLOGD_SOCKET = Path("/run/libvirt/virtlogd-sock")
_SYSTEMD = Path("/run/systemd/system")
_BRIDGED_FRAMES_SEE_IPTABLES = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_NEIGHBOURS = {"arp_cache": "ipv4", "ndisc_cache": "ipv6"}
_NEIGHBOURS_KNOWN, _NEIGHBOURS_LIMIT = "/proc/net/stat/{}", "/proc/sys/net/{}/neigh/default/gc_thresh3"
_NEIGHBOURS_MOST = 16384
_SELINUX = Path("/sys/fs/selinux/enforce")
_APPARMOR = Path("/sys/module/apparmor/parameters/enabled")
_MOUNTS = Path("/proc/self/mounts")
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")

Command = tuple[str, ...]


class Standing(StrEnum):
    OK = "ok"
    WARNING = "warning"  # it works, but not as well as it could
    FAILURE = "failure"  # instances cannot run


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    check: str
    standing: Standing
    text: str
    mend: tuple[Command, ...] = ()  # commands, in order


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What of the configuration matters to the checks."""

    state_dir: Path
    public_range: str
    egress: bool
    public_bridge: str = ""
    deployment: str = ""  # what bears its mark is ours and clashes with nothing
    router_ranges: tuple[str, ...] = ()  # addresses inside isolated networks
    accelerator: str = ""  # kvm or tcg where that is known already; else it is tried


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
        _check_networking,
        _check_shortcuts,
        _check_neighbours,
        _check_dnsmasq,
        _check_cgroups,
        _check_confinement,
        _check_disk,
        _check_state_access,
        _check_ranges,
        _check_forwarding,
        _check_firewall,
    ]
    with ThreadPoolExecutor(max_workers=len(checks)) as threads:
        return list(threads.map(lambda check: check(expected), checks))


def _ok(check: str, text: str) -> Finding:
    return Finding(check=check, standing=Standing.OK, text=text)


def _warn(check: str, text: str, *mend: Command) -> Finding:
    return Finding(check=check, standing=Standing.WARNING, text=text, mend=mend)


def _fail(check: str, text: str, *mend: Command) -> Finding:
    return Finding(check=check, standing=Standing.FAILURE, text=text, mend=mend)


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + _SBIN)


def _run(*command: str, timeout_s: float = 10.0) -> tuple[int, str]:
    """Exit code and output, both streams together; 127 when there is no such program, 124 after the time."""
    program = _which(command[0])
    if program is None:
        return 127, f"{command[0]} is not installed"
    try:
        done = subprocess.run(
            (program, *command[1:]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, "PATH": os.environ.get("PATH", "") + _SBIN, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not answer in {timeout_s:g} s"
    except OSError as error:
        return 126, f"{command[0]} cannot be run: {error.strerror}"
    return done.returncode, done.stdout


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no answer"])[-1]


def _version(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number) for number in found.groups() if number) if found else ()


def _dotted(version: Sequence[int]) -> str:
    return ".".join(str(number) for number in version)


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
    missing = [name for name in wanted if _which(name) is None]
    if _which("libvirtd") is None and _which("virtqemud") is None:
        missing.append("libvirtd")
    if missing == ["mmdebstrap"]:
        return _warn("programs", "mmdebstrap is not installed: images can be imported, but not built; try bin/prepare")
    if missing:
        return _fail("programs", f"not installed: {', '.join(missing)}; bin/prepare installs what is missing")
    return _ok("programs", "QEMU, libvirt, iproute2, nftables, dnsmasq and mmdebstrap are installed")


def _check_qemu(_: Expectation) -> Finding:
    code, text = _run("qemu-system-x86_64", "--version")
    version = _version(text)
    if code:
        return _fail("qemu", _last_line(text))
    if version < OLDEST_QEMU:
        return _fail("qemu", f"QEMU {_dotted(version)} is too old: {_dotted(OLDEST_QEMU)} or newer is needed")
    return _ok("qemu", f"QEMU {_dotted(version)}")


def _check_kvm(expected: Expectation) -> Finding:
    trial = Trial(expected.accelerator == "kvm", "a guest under it did not run when that was tried")
    if not expected.accelerator:
        trial = try_kvm()
    if trial.works:
        return _ok("kvm", "a guest runs under KVM")
    module = _kvm_module()
    mend = [("modprobe", module)] if module and not KVM.exists() and not Path("/sys/module", module).exists() else []
    return _warn("kvm", f"no KVM: {trial.reason}. Guests run under TCG instead: they work, several times slower", *mend)


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
        return _ok("kvm-access", f"{KVM} is not there")
    user = _qemu_user()
    if user is None:
        return _warn("kvm-access", "the user that QEMU runs as is not there: is libvirt installed?")
    name, groups = user
    status = KVM.stat()
    both = stat.S_IRGRP | stat.S_IWGRP
    by_group = status.st_gid in groups and status.st_mode & both == both
    by_all = status.st_mode & (both >> 3) == both >> 3
    if name == "root" or by_group or by_all:
        return _ok("kvm-access", f"{name}, as whom QEMU runs, can use {KVM}")
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
    return _warn(
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
        return _ok("nested", f"guests {'can' if on else 'cannot'} run KVM themselves ({module} nested={int(on)})")
    return _ok("nested", "no KVM module says whether guests can run KVM themselves")


# --- libvirt --------------------------------------------------------------------------------------------------------


def _starts(*, daemons: tuple[Command, ...], units: tuple[str, ...]) -> tuple[Command, ...]:
    """The commands that start a daemon: the first of its units that systemd knows, else the daemons themselves."""
    if not _SYSTEMD.is_dir():
        return daemons
    known = next((unit for unit in units if _run("systemctl", "cat", unit)[0] == 0), units[-1])
    return (("systemctl", "start", known),)


def _check_libvirt(_: Expectation) -> Finding:
    code, text = _run("virsh", "-c", "qemu:///system", "version", "--daemon", timeout_s=90.0)
    if code == 127:
        code, text = _ask_libvirt()
    if code:
        units = ("virtqemud.socket", "libvirtd.service") if _which("virtqemud") else ("libvirtd.service",)
        start = _starts(daemons=(("libvirtd", "-d"),), units=units)
        return _fail("libvirt", f"libvirt does not answer at qemu:///system: {_last_line(text)}", *start)
    found = re.search(r"daemon:?\s+(\d+\.\d+\.\d+)", text) or re.search(r"(\d+\.\d+\.\d+)", text)
    version = _version(found.group(1)) if found else ()
    if version < OLDEST_LIBVIRT:
        return _fail("libvirt", f"libvirt {_dotted(version)} is too old: {_dotted(OLDEST_LIBVIRT)} or newer is needed")
    return _ok("libvirt", f"libvirt {_dotted(version)} answers")


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
        return _ok("virtlogd", "only root can ask virtlogd")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5.0)
        try:
            client.connect(str(_VIRTLOGD_SOCKET))
        except OSError as error:
            start = _starts(daemons=(("virtlogd", "-d"),), units=("virtlogd.socket", "virtlogd.service"))
            return _fail("virtlogd", f"virtlogd, which keeps consoles, does not answer: {error.strerror}", *start)
    return _ok("virtlogd", "virtlogd answers")


# --- networks -------------------------------------------------------------------------------------------------------

# Each part of what a VPC is made of, how it is tried in a namespace that goes away with its process, and its module.
_PARTS = (
    (
        "a bridge with isolated ports",
        "ip link add b0 type bridge && ip link add v0 type veth peer name v1 && ip link set v0 master b0"
        " && bridge link set dev v0 isolated on",
        "bridge",
    ),
    ("taps (/dev/net/tun)", "ip tuntap add t0 mode tap", "tun"),
    ("answering ARP for a subnet", "test -e /proc/sys/net/ipv4/conf/all/proxy_arp_pvlan", ""),
    (
        "nftables with connection tracking",
        "nft 'add table inet t; add chain inet t c { type filter hook forward priority 0; };"
        " add rule inet t c ct state established accept'",
        "nf_tables",
    ),
    (
        "address translation by nftables",
        "nft 'add table ip n; add chain ip n c { type nat hook postrouting priority 100; };"
        " add rule ip n c masquerade'",
        "nft_chain_nat",
    ),
    (
        "nftables on bridges",
        "nft 'add table bridge b; add chain bridge b c { type filter hook prerouting priority 0; };"
        " add rule bridge b c ether type arp drop'",
        "nf_tables",
    ),
)


def _check_networking(_: Expectation) -> Finding:
    if os.geteuid() != 0:
        return _warn("networking", "only root can try namespaces, bridges and nftables: run orc doctor with sudo")
    name = f"orc-try-{os.getpid()}"
    code, text = _run("sh", "-c", f"ip netns add {name} && ip netns delete {name}")
    if code:
        return _fail("networking", f"network namespaces cannot be made here: {_last_line(text)}")
    broken, modules = [], []
    for part, script, module in _PARTS:
        code, text = _run("unshare", "--net", "sh", "-c", script)
        if code:
            broken.append(f"{part} ({_last_line(text)})" if text.strip() else part)
            if module and ("modprobe", module) not in modules and not Path("/sys/module", module).exists():
                modules.append(("modprobe", module))
    if broken:
        return _fail("networking", f"this does not work on this kernel: {'; '.join(broken)}", *modules)
    return _ok("networking", "namespaces, taps, bridges with isolated ports, and nftables (inet, nat, bridge) work")


def _check_shortcuts(_: Expectation) -> Finding:
    if os.geteuid() != 0:
        return _ok("shortcuts", "only root can ask for programs at links")
    try:
        bpf.attached(socket.if_nametoindex("lo"))
    except OSError as error:
        text = f"packets of guests take the long way, by the bridge (Linux 6.6 or newer has shortcuts): {error}"
        if _says_yes(_BRIDGED_FRAMES_SEE_IPTABLES):
            text += "; and the host's iptables see them there, since br_netfilter is loaded, which costs them more"
        return _warn("shortcuts", text)
    return _ok("shortcuts", "the kernel lets packets of guests pass by the bridge")


def _check_neighbours(_: Expectation) -> Finding:
    """The kernel has one table of neighbours per family for all namespaces, so those of all VPCs share it."""
    for cache, family in _NEIGHBOURS.items():
        try:
            known = int(Path(_NEIGHBOURS_KNOWN.format(cache)).read_text().splitlines()[1].split()[0], 16)
            most = int(Path(_NEIGHBOURS_LIMIT.format(family)).read_text())
        except OSError:
            continue
        if known * 2 > most:
            raised = max(_NEIGHBOURS_MOST, 4 * known)
            return _warn(
                "neighbours",
                f"{known} of {most} places for neighbours ({family}) are taken; without one, a guest is not reached",
                ("sysctl", "-w", f"net.{family}.neigh.default.gc_thresh3={raised}"),
            )
    return _ok("neighbours", "there is room for the neighbours of more guests")


def _check_dnsmasq(_: Expectation) -> Finding:
    code, text = _run("dnsmasq", "--version")
    if code:
        return _fail("dnsmasq", _last_line(text))
    version = _version(text)
    if version < OLDEST_DNSMASQ:
        return _fail("dnsmasq", f"dnsmasq {_dotted(version)} is too old: {_dotted(OLDEST_DNSMASQ)} or newer is needed")
    if "no-DHCP " in text:
        return _fail("dnsmasq", f"dnsmasq {_dotted(version)} is built without DHCP")
    return _ok("dnsmasq", f"dnsmasq {_dotted(version)}")


# --- room and rights ------------------------------------------------------------------------------------------------


_HELD = {"cpu": "processors", "memory": "memory", "blkio": "disks", "pids": "threads"}


def _check_cgroups(_: Expectation) -> Finding:
    """By what libvirt, and confine.py, hold a guest to its part of the host."""
    try:
        found = confine.hierarchies(_MOUNTS)
    except OSError as error:
        return _warn(
            "cgroups", f"what is mounted cannot be read ({error.strerror}): guests' shares may not be enforced"
        )
    held = found.controllers
    listed = re.findall(r"[a-z]+", confine.setting("cgroup_controllers", _LIBVIRT_CONFIGURATION))
    refused = {name for name in ("cpu", "memory", "blkio") if listed and name not in listed}
    lacking = [name for name in confine.CONTROLLERS if name not in held - refused]
    if not held:
        text = "no cgroup controllers are mounted that can be written"
    elif lacking:
        text = f"cgroup {found.version} without {', '.join(lacking)}"
    else:
        return _ok("cgroups", f"cgroup {found.version} with {', '.join(confine.CONTROLLERS)}")
    if refused & held:
        text += f" (cgroup_controllers in {_LIBVIRT_CONFIGURATION} leaves out {', '.join(sorted(refused & held))})"
    names = [_HELD[name] for name in lacking]
    return _warn("cgroups", f"{text}: a guest can take others' {' and '.join(names)}")


def _check_confinement(_: Expectation) -> Finding:
    """What a guest that has left its QEMU meets: another user's rights, a seccomp filter, AppArmor or SELinux."""
    weak = []
    user = _qemu_user()
    if user is not None and user[0] == "root":
        weak.append(f"QEMU runs as root (user in {_LIBVIRT_CONFIGURATION})")
    if confine.setting("seccomp_sandbox", _LIBVIRT_CONFIGURATION) == "0":
        weak.append(f"its seccomp filter is off (seccomp_sandbox in {_LIBVIRT_CONFIGURATION})")
    elif "-sandbox" not in _run("qemu-system-x86_64", "-help")[1]:
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
        return _warn("confinement", "; ".join(weak))
    return _ok(
        "confinement", f"{module}a user and a seccomp filter of its own confine each guest's QEMU{_on_selinux()}"
    )


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
        return _fail("disk", f"only {text}; an image needs {LEAST_DISK_BYTES >> 30} GiB to be built")
    if free < ENOUGH_DISK_BYTES:
        return _warn("disk", f"only {text}")
    return _ok("disk", text)


def _check_state_access(expected: Expectation) -> Finding:
    """libvirt gives QEMU's user the disks, but not the way to them."""
    user = _qemu_user()
    if user is None or user[0] == "root":
        return _ok("state-access", f"{expected.state_dir} needs no more rights")
    name, groups = user
    for place in _existing(expected.state_dir.absolute()):
        status = place.stat()
        by_group = status.st_gid in groups and status.st_mode & stat.S_IXGRP
        if by_group or status.st_mode & stat.S_IXOTH or status.st_uid == pwd.getpwnam(name).pw_uid:
            continue
        text = f"{name}, as whom QEMU runs, cannot pass through {place} ({stat.filemode(status.st_mode)})"
        if place == expected.state_dir.absolute():
            return _fail("state-access", text, ("chmod", "o+x", str(place)))
        return _fail("state-access", f"{text}: choose another state_dir, or let it through with chmod o+x {place}")
    return _ok("state-access", f"{name}, as whom QEMU runs, can reach {expected.state_dir}")


# --- what else is on the host ---------------------------------------------------------------------------------------


def _check_ranges(expected: Expectation) -> Finding:
    own = f"orc-{expected.deployment}" if expected.deployment else ""
    try:
        public = ipaddress.IPv4Network(expected.public_range)
        reason = ranges.clash(public, own_device=own, bridge=expected.public_bridge)
        routes = ranges.routes()
    except OSError as error:
        return _fail("ranges", str(error))
    if reason is not None:
        return _fail("ranges", f"the public range {public} {reason}: choose another network.public_range")
    inside = [ipaddress.IPv4Network(text) for text in expected.router_ranges]
    shadowed = [
        f"{route} ({device})"
        for route, device in routes
        if not device.startswith("orc-") and any(route.overlaps(network) for network in inside)
    ]
    if shadowed and expected.egress:
        return _warn(
            "ranges", f"guests cannot reach the host's network {', '.join(shadowed)}: their VPC has the same addresses"
        )
    return _ok("ranges", f"the public range {public} is free on this host")


def _check_forwarding(expected: Expectation) -> Finding:
    on = _FORWARD.read_text().strip() == "1"
    if expected.egress and not on:
        return _ok("forwarding", "net.ipv4.ip_forward is 0; it is set to 1 with the first VPC, since egress is on")
    return _ok("forwarding", f"net.ipv4.ip_forward is {int(on)}; egress is {'on' if expected.egress else 'off'}")


def _check_firewall(expected: Expectation) -> Finding:
    """Whether a firewall of the host drops by default what it forwards, and does not let ours pass."""
    if os.geteuid() != 0:
        return _ok("firewall", "only root can look at the host's firewalls")
    dropping = _dropping_chains()
    # With br_netfilter loaded, frames that a bridge carries within a subnet see these chains too.
    if dropping and _says_yes(_BRIDGED_FRAMES_SEE_IPTABLES):
        inside = (("-i", "sn-+", "-o", "sn-+"), 'iifname "sn-*" oifname "sn-*"')
        mend = [command for chain in dropping for command in _let_pass(chain, inside)]
        if mend:
            return _fail(
                "firewall",
                "bridged frames pass the host's FORWARD chain (br_netfilter is loaded), which drops by default (docker "
                "does both): guests have no network at all. The rule lasts until the host or docker starts anew",
                *mend,
            )
    if not expected.egress:
        return _ok("firewall", "guests may not leave this host, so its firewalls do not matter")
    public = expected.public_range
    if (
        _run("firewall-cmd", "--state")[0] == 0
        and _run("firewall-cmd", "--zone=trusted", f"--query-source={public}")[0]
    ):
        return _warn(
            "firewall",
            f"firewalld drops what guests send beyond this host unless it trusts {public}",
            ("firewall-cmd", "--permanent", "--zone=trusted", f"--add-source={public}"),
            ("firewall-cmd", "--reload"),
        )
    ways = ((("-s", public), f"ip saddr {public}"), (("-d", public), f"ip daddr {public}"))
    mend = [command for chain in dropping for way in ways for command in _let_pass(chain, way)]
    if mend:
        return _warn(
            "firewall",
            f"the FORWARD chain drops by default (docker and ufw do that) and does not let {public} pass: guests "
            "cannot reach beyond this host. The rules last until the host or its firewall starts anew",
            *mend,
        )
    return _ok("firewall", "no firewall of the host drops what guests send")


def _says_yes(path: Path) -> bool:
    try:
        return path.read_text().strip() == "1"
    except OSError:
        return False


Chain = tuple[str, str, str]  # family, table, name; the family iptables is for what only iptables shows


def _dropping_chains() -> list[Chain]:
    """The IPv4 chains at the forward hook whose policy is drop, other than ours."""
    code, text = _run("nft", "-j", "list", "chains")
    try:
        entries = json.loads(text)["nftables"] if code == 0 else []
    except (json.JSONDecodeError, KeyError):
        entries = []
    chains = [entry["chain"] for entry in entries if "chain" in entry]
    found = [
        (chain["family"], chain["table"], chain["name"])
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop" and chain["family"] in ("ip", "inet")
    ]
    if not any(chain[1:] == ("filter", "FORWARD") for chain in found):
        code, text = _run("iptables", "-S", "FORWARD")
        if code == 0 and "-P FORWARD DROP" in text:
            found.append(("iptables", "filter", "FORWARD"))
    return found


def _let_pass(chain: Chain, way: tuple[Command, str]) -> list[Command]:
    """The command that lets `way` (in iptables' words and in nft's) pass `chain`; none when it passes already."""
    family, table, name = chain
    in_iptables, in_nft = way
    if (table, name) == ("filter", "FORWARD") and family in ("ip", "iptables"):
        # docker empties FORWARD but leaves this chain of its own alone.
        target = "DOCKER-USER" if _run("iptables", "-S", "DOCKER-USER")[0] == 0 else "FORWARD"
        if _run("iptables", "-C", target, *in_iptables, "-j", "ACCEPT")[0] == 0:
            return []
        return [("iptables", "-I", target, *in_iptables, "-j", "ACCEPT")]
    if f"{in_nft} accept" in _run("nft", "list", "chain", family, table, name)[1]:
        return []
    return [("nft", "insert", "rule", family, table, name, in_nft, "accept")]

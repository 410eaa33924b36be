"""dnsmasq as each router runs it: leases for its ports and no others, and their names.

Addresses are assigned by the controller, so nothing is kept but the files that it wrote: no lease file, no dynamic
range, no names that guests claim. The process lives on when the controller ends, and is found again by its pid file.

    dnsmasq.conf     made anew: the process is started anew
    hosts, names     made anew: the process reads them again (SIGHUP)
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import signal
from ipaddress import IPv4Network
from pathlib import Path

from orchestrator.host import HostError, Port, Router
from orchestrator.host.command import run
from orchestrator.host.links import MTU_BYTES, UPLINK, leg_name
from orchestrator.host.ruleset import METADATA_ADDRESS

LEASE_S = 86400
STOP_DEADLINE_S = 5.0
_USER = "dnsmasq"


def configuration(router: Router, directory: Path, *, user: str, upstream: str) -> str:
    """`upstream` is the server that is asked for other names; empty: they do not exist."""
    lines = [
        *_process(directory, user),
        "no-resolv",
        "no-hosts",
        "interface=lo",
        *(f"interface={leg_name(segment.name)}" for segment in router.segments),
        f"except-interface={UPLINK}",
        "dhcp-authoritative",
        "dhcp-lease-max=100000",
        "leasefile-ro",
        "no-ping",
        f"dhcp-hostsfile={directory / 'hosts'}",
        f"domain={router.domain}",
        f"dhcp-option=option:mtu,{MTU_BYTES}",
    ]
    for segment in router.segments:
        tag, network = leg_name(segment.name), IPv4Network(segment.cidr)
        lines += [
            f"dhcp-range=set:{tag},{network.network_address},static,{network.netmask},{LEASE_S}",
            f"dhcp-option=tag:{tag},option:router,{segment.gateway}",
        ]
    if router.resolver:
        lines += [
            f"dhcp-option=option:dns-server,{router.resolver}",
            f"addn-hosts={directory / 'names'}",
            f"local=/{router.domain}/",
            "domain-needed",
            "bogus-priv",
            "local-ttl=60",
        ]
        # Without anybody to ask, what is not here does not exist. To refuse would have guests ask again for seconds.
        lines.append(f"server={upstream}" if upstream else "address=/#/")
    else:
        lines += ["port=0", "dhcp-option=option:dns-server"]
    return _text(lines)


def forwarder(address: str, directory: Path, *, user: str) -> str:
    """The host's own: asks the host's resolvers on behalf of routers that may reach beyond it."""
    return _text([*_process(directory, user), "no-hosts", f"listen-address={address}", "domain-needed", "bogus-priv"])


def hosts(router: Router) -> str:
    """Who gets which address, for DHCP."""
    ports = sorted(router.ports, key=lambda port: port.name)
    return _text([f"{port.mac.lower()},{port.address},{port.host_name}" for port in ports])


def names(router: Router) -> str:
    """Who has which names, for DNS. The first one of an address is what it resolves to."""
    lines = [f"{METADATA_ADDRESS} instance-data.{router.domain}"]
    for port in sorted(router.ports, key=lambda port: port.name):
        lines.append(f"{port.address} {_full(port, router)}")
        lines += [f"{port.address} {port.public_name}"] if port.public_name else []
    return _text(lines)


def _full(port: Port, router: Router) -> str:
    return f"{port.host_name}.{router.domain} {port.host_name}" if router.domain else port.host_name


def _process(directory: Path, user: str) -> list[str]:
    return [f"user={user}", f"pid-file={directory / 'dnsmasq.pid'}", "bind-dynamic", "no-poll", "cache-size=1000"]


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


class Dnsmasq:
    """The process whose files are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._configuration = directory / "dnsmasq.conf"

    def start(self, configuration: str, tables: dict[str, str], *, reread: bool = False) -> None:
        """Have it run in this thread's namespace, with this configuration and the tables (by file name).

        One that runs so already is only told to read tables that are new, or, with `reread`, all of them.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        new = [name for name, text in tables.items() if _read(self._directory / name) != text]
        for name in new:
            write(self._directory / name, tables[name])
        process = self._process(os.stat("/proc/thread-self/ns/net").st_ino)
        if process is not None and _read(self._configuration) == configuration:
            if new or reread:
                os.kill(process, signal.SIGHUP)
            return
        # Before the new text is there: whoever comes after a crash would take the old process for one that read it.
        self.stop()
        write(self._configuration, configuration)
        run(["dnsmasq", f"--conf-file={self._configuration}"])

    def stop(self) -> None:
        for process in self._processes():
            _end(process)
        (self._directory / "dnsmasq.pid").unlink(missing_ok=True)

    def is_running(self) -> bool:
        return self._process() is not None

    def _process(self, namespace_inode: int = 0) -> int | None:
        """Its id, if it runs; with an inode, only if it runs in that namespace."""
        try:
            process = int((self._directory / "dnsmasq.pid").read_text())
            if not self._is_ours(process):
                return None
            if namespace_inode and os.stat(f"/proc/{process}/ns/net").st_ino != namespace_inode:
                return None
        except (OSError, ValueError):
            return None
        return process

    def _processes(self) -> list[int]:
        """All that were started with our configuration: the pid file may be gone, or tell of another."""
        numbers = (int(name) for name in os.listdir("/proc") if name.isdecimal())
        return [number for number in numbers if self._is_ours(number)]

    def _is_ours(self, process: int) -> bool:
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(f"--conf-file={self._configuration}") in command


def user_for(directory: Path) -> str:
    """Whom it can run as: not root, if the distribution made it a user and that one can get to its files."""
    try:
        pwd.getpwnam(_USER)
    except KeyError:
        return "root"
    # A directory that is not there yet is made with the mode that lets everybody through.
    passable = all(place.stat().st_mode & 0o001 for place in (directory, *directory.parents) if place.exists())
    return _USER if passable else "root"


def write(path: Path, text: str) -> None:
    """Whole or not at all, and readable by whoever dnsmasq runs as."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(0o644)
    new.replace(path)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _end(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(process)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(handle, number)
                if select.select([handle], [], [], STOP_DEADLINE_S)[0]:
                    return
        finally:
            os.close(handle)
        raise HostError(f"dnsmasq ({process}) does not end")

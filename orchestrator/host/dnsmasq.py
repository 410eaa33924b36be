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
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from orchestrator.host import HostError, Router
from orchestrator.host.command import run
from orchestrator.host.links import MTU_BYTES, UPLINK, leg_name
from orchestrator.host.well_known import RESOLVER_IPV6_ADDRESS

LEASE_S = 86400
STOP_DEADLINE_S = 5.0
_USER = "dnsmasq"


def configuration(
    router: Router, directory: Path, *, user: str, upstream: str, public_range: IPv4Network | None = None
) -> str:
    """`upstream` is the server that is asked for other names; empty: they do not exist. Addresses of `public_range`
    have the router's public names, whosever they are."""
    has_ipv6 = any(segment.ipv6_cidr for segment in router.segments)
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
        f"dhcp-option=option:mtu,{MTU_BYTES}",
        *_options(router, has_ipv6=has_ipv6),
        *(["enable-ra"] if has_ipv6 else []),
    ]
    for segment in router.segments:
        tag, network = leg_name(segment.name), IPv4Network(segment.cidr)
        lines += [
            f"dhcp-range=set:{tag},{network.network_address},static,{network.netmask},{LEASE_S}",
            f"dhcp-option=tag:{tag},option:router,{segment.gateway}",
        ]
        if segment.ipv6_cidr:
            # Static: addresses are those of `hosts`, and the flag for managed ones is set. Off-link: no guest looks for
            # another as a neighbour.
            inner = IPv6Network(segment.ipv6_cidr)
            lease_s = router.dhcp.ipv6_lease_s
            lines.append(f"dhcp-range=set:{tag},{inner.network_address},static,off-link,{inner.prefixlen},{lease_s}")
    if router.resolver:
        lines += [
            f"addn-hosts={directory / 'names'}",
            f"local=/{router.domain}/",
            "domain-needed",
            "bogus-priv",
            "local-ttl=60",
        ]
        if router.public_name and public_range is not None:
            prefix, _, rest = router.public_name.partition("{}")
            lines.append(f"synth-domain={rest.lstrip('.')},{public_range},{prefix}")
        # Without anybody to ask, what is not here does not exist. To refuse would have guests ask again for seconds.
        lines.append(f"server={upstream}" if upstream else "address=/#/")
    else:
        lines.append("port=0")
    return _text(lines)


def _options(router: Router, *, has_ipv6: bool) -> list[str]:
    """What guests are told besides their address. An option without a value is not sent at all."""
    dhcp = router.dhcp
    servers, servers6 = _families(dhcp.servers)
    if router.resolver in servers:
        servers6 = [RESOLVER_IPV6_ADDRESS, *servers6]
    ntp, ntp6 = _families(dhcp.ntp_servers)
    lines = [
        ",".join(["dhcp-option=option:dns-server", *servers]),
        f"dhcp-option=option:domain-name,{dhcp.domain}" if dhcp.domain else "dhcp-option=option:domain-name",
        f"dhcp-option=option:ntp-server,{','.join(ntp)}" if ntp else "",
        f"dhcp-option=option:netbios-ns,{','.join(dhcp.netbios_servers)}" if dhcp.netbios_servers else "",
        f"dhcp-option=option:netbios-nodetype,{dhcp.netbios_node_type}" if dhcp.netbios_node_type else "",
    ]
    if has_ipv6:
        lines += [
            ",".join(["dhcp-option=option6:dns-server", *(f"[{each}]" for each in servers6)]),
            f"dhcp-option=option6:domain-search,{','.join(dhcp.domain.split())}" if dhcp.domain else "",
            f"dhcp-option=option6:ntp-server,{','.join(f'[{each}]' for each in ntp6)}" if ntp6 else "",
        ]
    return [line for line in lines if line]


def _families(addresses: Iterable[str]) -> tuple[list[str], list[str]]:
    """IPv4 and IPv6."""
    known = list(addresses)
    return [each for each in known if ":" not in each], [each for each in known if ":" in each]


def forwarder(address: str, directory: Path, *, user: str) -> str:
    """The host's own: asks the host's resolvers on behalf of routers that may reach beyond it."""
    return _text([*_process(directory, user), "no-hosts", f"listen-address={address}", "domain-needed", "bogus-priv"])


def hosts(router: Router) -> str:
    """Who gets which address, for DHCP. With several of one family, the first."""
    lines = []
    for port in sorted(router.ports, key=lambda port: port.name):
        if not port.translator:
            ipv6 = [f"[{each}]" for each in port.ipv6_addresses[:1]]
            lines.append(",".join([port.mac.lower(), port.address, *ipv6, port.host_name]))
    return _text(lines)


def names(router: Router) -> str:
    """Who has which names, for DNS. The first one of an address is what it resolves to."""
    return _text([f"{record.address} {record.name}" for record in router.records])


def _process(directory: Path, user: str) -> list[str]:
    return [f"user={user}", f"pid-file={directory / 'dnsmasq.pid'}", "bind-dynamic", "no-poll", "cache-size=1000"]


def _ipv6_lines(hosts: str) -> set[str]:
    """Those that give an IPv6 address away."""
    return {line for line in hosts.splitlines() if "[" in line}


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


class Dnsmasq:
    """The process whose files are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._configuration = directory / "dnsmasq.conf"

    def start(self, configuration: str, tables: dict[str, str], *, reread: bool = False) -> None:
        """Have it run in this thread's namespace, with this configuration and the tables (by file name).

        One that runs so already is only told to read tables that are new, or, with `reread`, all of them. It is
        started anew when an IPv6 address has lost its owner: it keeps the lease for whoever had it, whatever the
        tables say.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        before = {name: _read(self._directory / name) for name in tables}
        new = [name for name, text in tables.items() if before[name] != text]
        lost = any(_ipv6_lines(before[name] or "") - _ipv6_lines(tables[name]) for name in new)
        if lost:  # before the tables forget it: whoever comes after a crash would not know
            self.stop()
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

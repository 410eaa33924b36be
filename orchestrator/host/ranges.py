"""Which public range this host can route to its guests without cutting itself off from anything.

A range clashes when the host has a route into it, or when something that the host itself talks to has an address in
it: its name servers, and the archives that its packages come from. Routing the range to guests would hide those.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from orchestrator.host import claims

# The blocks for documentation (RFC 5737), then some of those for benchmarks (RFC 2544): nobody's own.
CANDIDATES = tuple(
    IPv4Network(text)
    for text in (
        *("203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24"),
        *(f"198.19.{number}.0/24" for number in range(255, 239, -1)),
    )
)

_ARCHIVES = ("deb.debian.org", "pypi.org", "registry.npmjs.org")
_SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/yum.repos.d")
_RESOLVE_TIMEOUT_S = 3.0


def clash(wanted: IPv4Network, *, own_device: str = "", bridge: str = "") -> str | None:
    """Why `wanted` cannot be the public range, in words for people; None when it can.

    Routes through `own_device` are the deployment's own. With a public `bridge`, the range must be of its LAN. Raises
    OSError when the host's routes cannot be read.
    """
    known = routes()
    if bridge:
        reason = lan_clash(wanted, bridge, [route for route, device in known if device == bridge])
        if reason is not None:
            return reason
    for route, device in known:
        expected = device == own_device or (device == bridge and route.prefixlen < 32)
        if not expected and route.overlaps(wanted):
            who = "another deployment" if device.startswith("orc-") else f"the interface {device}"
            return f"clashes with the host's route to {route} ({who})"
    for network, owner in claims.claimed().items():
        if owner != own_device and network.overlaps(wanted):
            return f"clashes with {network} of another deployment that runs on this host ({owner})"
    for address, what in _needed_addresses().items():
        if address in wanted:
            return f"holds {address}, which this host uses as {what}"
    return None


def lan_clash(wanted: IPv4Network, bridge: str, lans: Iterable[IPv4Network]) -> str | None:
    """Why `wanted` cannot be the public range on a bridge whose LANs, as far as this host knows, are `lans`."""
    known = sorted({lan for lan in lans if lan.prefixlen < 32})
    if not known:
        return (
            f"cannot be on the bridge '{bridge}' (network.public_bridge), since this host has no IPv4 address there: "
            "give the bridge an address of its LAN"
        )
    if not any(wanted.subnet_of(lan) and wanted != lan for lan in known):
        return (
            f"is no part of the LAN of the bridge '{bridge}' (network.public_bridge), which is "
            f"{', '.join(map(str, known))}: set network.public_range to a part of it that nobody else uses"
        )
    return None


def choose(candidates: Iterable[IPv4Network] = CANDIDATES) -> IPv4Network:
    """The first range that clashes with nothing. Raises OSError when each one does."""
    reasons = []
    for candidate in candidates:
        reason = clash(candidate)
        if reason is None:
            return candidate
        reasons.append(f"{candidate} {reason}")
    raise OSError(f"no public range is free: {'; '.join(reasons)}. Set network.public_range to one that is")


def routes() -> list[tuple[IPv4Network, str]]:
    """Destination and device of each route but the default ones."""
    command = ["ip", "-j", "-4", "route", "show", "table", "all"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        rows = json.loads(done.stdout or "[]")
    except (subprocess.SubprocessError, json.JSONDecodeError) as error:
        raise OSError(f"the host's routes cannot be read: {error}") from error
    return [
        (IPv4Network(row["dst"], strict=False), row.get("dev") or row.get("type", ""))
        for row in rows
        if row.get("dst") not in (None, "default", "0.0.0.0/0") and row.get("type") not in ("broadcast", "multicast")
    ]


def _needed_addresses() -> dict[IPv4Address, str]:
    found: dict[IPv4Address, str] = {}
    for server in re.findall(r"(?m)^nameserver[ \t]+([^\s;#]+)", _text(Path("/etc/resolv.conf"))):
        with suppress(OSError):  # of IPv6, or nonsense
            found[IPv4Address(socket.inet_aton(server))] = "a name server"  # as glibc reads it: 127.1 is 127.0.0.1
    names = dict.fromkeys(_ARCHIVES)
    for place in _SOURCES:
        path = Path(place)
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            names |= dict.fromkeys(re.findall(r"https?://([A-Za-z0-9.-]+)", _text(file)))
    threads = [threading.Thread(target=_resolve, args=(name, found), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_RESOLVE_TIMEOUT_S)  # one that hangs has no say
    return dict(found)


def _resolve(name: str, found: dict[IPv4Address, str]) -> None:
    try:
        answers = socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # not found, or no name at all
        return
    for answer in answers:
        found[IPv4Address(answer[4][0])] = name


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

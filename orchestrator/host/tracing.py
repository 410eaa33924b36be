"""Follows one packet through a router as the kernel sees it: nftables' own trace of a packet that is sent for it.

    plug ---- frame, as if from the guest ----> leg -> on_prerouting -> on_forward -> ... -> verdict
                                                 mark it                `nft monitor trace` tells each rule

The packet is a real one, a first of its kind: whoever it reaches may answer, and the guest in whose name it was sent
sees the answer and refuses it. Nothing else is marked, and the mark goes with the table that sets it.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address
from pathlib import Path

from orchestrator.host import HostError, Port, Probe, Router
from orchestrator.host.command import inside, run
from orchestrator.host.links import leg_mac, leg_name, plug_name

READY_S = 3.0  # for nft to listen
ANSWER_S = 2.0  # for the first line
QUIET_S = 0.3  # after the last
_TABLE = ("inet", "orc_trace")
_NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
_NFNETLINK = "12"
_LINE = re.compile(
    r"trace id \w+ \w+ (?P<table>\S+) (?P<chain>\S+) (?P<kind>packet:|rule|verdict|policy) ?(?P<rest>.*)"
)


def trace(router: Router, probe: Probe) -> list[str]:
    """A line for each rule that the packet met. Raises HostError when the port or its router is not on this host."""
    port = next((port for port in router.ports if port.name == probe.port), None)
    if port is None:
        raise HostError(f"{router.name} has no port {probe.port}", retryable=False)
    source_port = 49152 + secrets.randbelow(16384)
    with closing(socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sender:
        try:
            sender.bind((plug_name(port.segment), 0))
            return inside(router.name, lambda: _follow(sender, port, probe, source_port))
        except OSError as error:
            raise HostError(f"{probe.port} of {router.name} is not plugged in on this host: {error}") from error


def _follow(sender: socket.socket, port: Port, probe: Probe, source_port: int) -> list[str]:
    with _marking(port, probe, source_port), _monitor() as told:
        sender.send(frame(port, probe, source_port))
        return [line for text in _lines(told) if (line := describe(text))]


@contextmanager
def _marking(port: Port, probe: Probe, source_port: int) -> Iterator[None]:
    family = "ip6" if ":" in probe.destination else "ip"
    match = f'iifname "{leg_name(port.segment)}" {family} saddr {probe.source} {family} daddr {probe.destination}'
    if probe.protocol in ("tcp", "udp"):
        match += f" {probe.protocol} sport {source_port} {probe.protocol} dport {probe.destination_port}"
    chain = f"type filter hook prerouting priority -400; policy accept;\n\t\t{match} meta nftrace set 1"
    run(["nft", "-f", "-"], f"table {' '.join(_TABLE)} {{\n\tchain watch {{\n\t\t{chain}\n\t}}\n}}\n")
    try:
        yield
    finally:
        run(["nft", "delete", "table", *_TABLE])


@contextmanager
def _monitor() -> Iterator[subprocess.Popen[bytes]]:
    """nft, listening."""
    process = subprocess.Popen(["nft", "monitor", "trace"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        ends = time.monotonic() + READY_S
        while not _listens(process.pid):
            if select.select([process.stdout], [], [], 0.005)[0] or time.monotonic() > ends:
                raise HostError("nft does not tell of packets: `nft monitor trace` ended or never listened")
        yield process
    finally:
        process.kill()
        process.communicate()


def _listens(process: int) -> bool:
    """Whether it has joined a group of nfnetlink, as /proc/net/netlink says: protocol, process, groups."""
    rows = (line.split() for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:])
    return any(row[1] == _NFNETLINK and row[2] == str(process) and int(row[3], 16) for row in rows)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    assert process.stdout is not None
    handle, text, wait_s = process.stdout.fileno(), b"", ANSWER_S
    while select.select([handle], [], [], wait_s)[0]:
        read = os.read(handle, 65536)
        if not read:
            break
        *lines, text = (text + read).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
        wait_s = QUIET_S


def describe(line: str) -> str:
    """A line of nft's for people: `on_forward: ct state invalid drop`. Empty for our own mark."""
    found = _LINE.fullmatch(line.strip())
    if found is None or found["table"] == _TABLE[1]:
        return ""
    chain, rest = found["chain"], found["rest"].strip()
    match found["kind"]:
        case "packet:":
            return f"{chain}: packet {rest}"
        case "rule":
            return f"{chain}: {rest}"
        case _:
            return f"{chain}: {found['kind']} {rest}".rstrip()


# --- the packet ----------------------------------------------------------------------------------------------------


def frame(port: Port, probe: Probe, source_port: int) -> bytes:
    """An Ethernet frame from the port to its router: a SYN, a datagram of no bytes, or an echo request."""
    macs = bytes.fromhex((leg_mac(port.segment) + port.mac).replace(":", ""))
    source, destination = ip_address(probe.source), ip_address(probe.destination)
    number = _NUMBERS[probe.protocol]
    if destination.version == 6:
        pseudo = source.packed + destination.packed
        body = _body(probe, source_port, lambda length: pseudo + struct.pack("!II", length, number))
        head = struct.pack("!IHBB", 6 << 28, len(body), number, 64) + pseudo
        return macs + b"\x86\xdd" + head + body
    pseudo = source.packed + destination.packed
    body = _body(probe, source_port, lambda length: pseudo + struct.pack("!HH", number, length))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, number, 0) + pseudo
    return macs + b"\x08\x00" + head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + body


def _body(probe: Probe, source_port: int, pseudo: Callable[[int], bytes]) -> bytes:
    if probe.protocol == "tcp":
        body = struct.pack("!HHIIBBHHH", source_port, probe.destination_port, 1, 0, 5 << 4, 0x02, 65535, 0, 0)
        position = 16
    elif probe.protocol == "udp":
        body = struct.pack("!HHHH", source_port, probe.destination_port, 8, 0)
        position = 6
    else:
        body = struct.pack("!BBHHH", 128 if probe.protocol == "icmpv6" else 8, 0, 0, source_port, 1)
        position = 2
    covered = body if probe.protocol == "icmp" else pseudo(len(body)) + body
    return body[:position] + struct.pack("!H", _checksum(covered) or 0xFFFF) + body[position + 2 :]


def _checksum(data: bytes) -> int:
    """Of RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

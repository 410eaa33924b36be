"""Hierarchical token buckets (HTB): the queue of a link and its classes, as the kernel is told of them (rtnetlink).

    add_queue("sn-...")                    1:     what belongs to no class passes
    put_class("sn-...", 0x10a, limits)     1:10a  a bucket for its rate, and one for its ceiling

Told by a socket, since a port that comes or goes changes a class on both ends of its segment's cable, and to begin `tc`
takes forty times as long as to tell the kernel. The layouts are those of linux/pkt_sched.h, what stands in them is as
`tc` has it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.host import HostError
from orchestrator.host.netlink import message, opened, receive

KIND = "htb"
HANDLE = 1 << 16  # 1:, as MAJOR << 16 | MINOR

_NEW_QUEUE, _DELETE_QUEUE, _NEW_CLASS, _DELETE_CLASS = 36, 37, 40, 41
_REQUEST, _ACKNOWLEDGE, _REPLACE, _CREATE = 0x001, 0x004, 0x100, 0x400
_ROOT = 0xFFFFFFFF
_TCA_KIND, _TCA_OPTIONS = 1, 2
_PARAMETERS, _SETTINGS, _RATE64, _CEILING64 = 1, 2, 6, 7
_VERSION, _RATE_TO_QUANTUM = 3, 10
_ETHERNET = 1  # how long a frame is on the wire; without it, the kernel wants a table of that
_MOST_32 = (1 << 32) - 1
_TICKS_PER_S = 1_000_000_000 // 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a class. A bucket's filling time is 32 bits of 64 ns: 274 s."""

    rate_bytes_s: int
    burst_bytes: int
    ceiling_bytes_s: int
    ceiling_burst_bytes: int
    quantum_bytes: int


def add_queue(link: str) -> bytes:
    settings = struct.pack("=IIIII", _VERSION, _RATE_TO_QUANTUM, 0, 0, 0)
    head = _head(link, HANDLE, _ROOT) + _attribute(_TCA_KIND, KIND.encode() + b"\0")
    options = _attribute(_TCA_OPTIONS, _attribute(_SETTINGS, settings))
    return message(_NEW_QUEUE, _REQUEST | _ACKNOWLEDGE | _CREATE | _REPLACE, head + options)


def remove_queue(link: str) -> bytes:
    return message(_DELETE_QUEUE, _REQUEST | _ACKNOWLEDGE, _head(link, 0, _ROOT))


def put_class(link: str, minor: int, limits: Limits) -> bytes:
    """New, or in the place of the one that there is."""
    rates = (limits.rate_bytes_s, limits.ceiling_bytes_s)
    bursts = (limits.burst_bytes, limits.ceiling_burst_bytes)
    buckets = [min(burst * _TICKS_PER_S // rate, _MOST_32) for burst, rate in zip(bursts, rates, strict=True)]
    parameters = b"".join(struct.pack("=BBHhHI", 0, _ETHERNET, 0, 0, 0, min(rate, _MOST_32)) for rate in rates)
    parameters += struct.pack("=IIIII", *buckets, limits.quantum_bytes, 0, 0)
    options = _attribute(_PARAMETERS, parameters)
    for rate, kind in zip(rates, (_RATE64, _CEILING64), strict=True):
        options += _attribute(kind, struct.pack("=Q", rate)) if rate > _MOST_32 else b""
    body = _head(link, HANDLE | minor, HANDLE) + _attribute(_TCA_KIND, KIND.encode() + b"\0")
    return message(_NEW_CLASS, _REQUEST | _ACKNOWLEDGE | _CREATE, body + _attribute(_TCA_OPTIONS, options))


def remove_class(link: str, minor: int) -> bytes:
    return message(_DELETE_CLASS, _REQUEST | _ACKNOWLEDGE, _head(link, HANDLE | minor, 0))


def tell(changes: Iterable[bytes]) -> None:
    """Make these changes in this thread's namespace, one after the other; those after one that fails are not made."""
    with opened() as told:
        for change in changes:
            try:
                told.send(change)
                receive(told)
            except OSError as error:
                raise HostError(f"a queue could not be changed: {error}") from error


def _head(link: str, handle: int, parent: int) -> bytes:
    try:
        index = socket.if_nametoindex(link)
    except OSError as error:
        raise HostError(f"the queue of {link} could not be changed: there is no such link") from error
    return struct.pack("=BxHiIII", 0, 0, index, handle, parent, 0)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

"""What the kernel says of a namespace's links, addresses, rules and routes (rtnetlink).

Asked by a socket, since each pass looks at everything and starting `ip` would take ten times as long as its answer.
Changes are made by `ip`: they are few, and people can read them. Layouts: linux/rtnetlink.h, if_link.h, if_addr.h,
fib_rules.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.host import HostError

DEADLINE_S = 20.0

_GET_LINK, _GET_ADDRESS, _GET_ROUTE, _GET_RULE = 18, 22, 26, 34
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_INTERRUPTED = 0x10  # something changed while it was told
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_ATTEMPTS = 5

Attributes = dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Link:
    """A network link. `addresses` are ADDRESS/LENGTH, and there if they were asked for."""

    name: str
    alias: str
    master: str
    mac: str
    is_up: bool
    index: int
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelRule:
    priority: int
    link: str  # by which a packet came in; empty: any
    inverted: bool
    table: int  # 0: another action than to look there
    is_plain: bool  # it asks for nothing else


@dataclass(frozen=True, slots=True)
class KernelRoute:
    table: int
    destination: str  # ADDRESS/LENGTH
    kind: int  # RTN_...
    protocol: int  # RTPROT_...
    link: str
    via: str
    onlink: bool
    metric: int


UNICAST, BLACKHOLE = 1, 6
KERNEL, REDIRECT, ROUTER_ADVERTISEMENT = 2, 1, 9


def links(*, with_addresses: bool = False) -> dict[str, Link]:
    """The links of this thread's namespace, by name."""
    with _socket() as asked:
        found = list(_dump(asked, _GET_LINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0), 16))
        told = list(_dump(asked, _GET_ADDRESS, struct.pack("=BBBBI", 0, 0, 0, 0, 0), 8)) if with_addresses else []
    names = {struct.unpack_from("=i", head, 4)[0]: _text(attributes[3]) for head, attributes in found}
    addresses: dict[str, list[str]] = {}
    for head, attributes in told:
        own = attributes.get(2) or attributes.get(1)  # local; without a peer, there may be the address only
        link = names.get(struct.unpack_from("=I", head, 4)[0])
        if own is not None and link is not None:
            addresses.setdefault(link, []).append(f"{_address(own)}/{head[1]}")
    return {
        (name := _text(attributes[3])): Link(
            name,
            _text(attributes.get(20, b"")),
            names.get(struct.unpack("=I", attributes[10])[0], "") if 10 in attributes else "",
            attributes.get(1, b"").hex(":"),
            bool(struct.unpack_from("=I", head, 8)[0] & 1),
            int(struct.unpack_from("=i", head, 4)[0]),
            tuple(addresses.get(name, ())),
        )
        for head, attributes in found
    }


def rules(family: int) -> list[KernelRule]:
    """`family` is 4 or 6."""
    with _socket() as asked:
        found = list(_dump(asked, _GET_RULE, struct.pack("=BBBBBBBBI", _FAMILIES[family], *[0] * 8), 12))
    return [_rule(head, attributes) for head, attributes in found]


def _rule(head: bytes, attributes: Attributes) -> KernelRule:
    destination_length, source_length, tos, action = head[1], head[2], head[3], head[7]
    # Priority, table, incoming link, who made it, and two that are always told (and say no when they are all ones).
    others = attributes.keys() - {3, 6, 15, 21, 13, 14}
    quiet = all(attributes.get(each, b"\xff" * 4) == b"\xff" * 4 for each in (13, 14))
    return KernelRule(
        priority=_number(attributes.get(6, bytes(4))),
        link=_text(attributes.get(3, b"")),
        inverted=bool(struct.unpack_from("=I", head, 8)[0] & 2),
        table=_number(attributes[15]) if action == 1 and 15 in attributes else head[4] if action == 1 else 0,
        is_plain=action == 1 and quiet and not others and not (destination_length or source_length or tos),
    )


def routes(family: int) -> list[KernelRoute]:
    """Those of all tables. `family` is 4 or 6."""
    with _socket() as asked:
        found = list(_dump(asked, _GET_ROUTE, struct.pack("=BBBBBBBBI", _FAMILIES[family], *[0] * 8), 12))
        names = {
            struct.unpack_from("=i", head, 4)[0]: _text(attributes[3])
            for head, attributes in _dump(asked, _GET_LINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0), 16)
        }
    nowhere = bytes(4 if family == 4 else 16)
    return [
        KernelRoute(
            table=_number(attributes[15]) if 15 in attributes else head[4],
            destination=f"{_address(attributes.get(1, nowhere))}/{head[1]}",
            kind=head[7],
            protocol=head[5],
            link=names.get(_number(attributes[4]), "") if 4 in attributes else "",
            via=_address(attributes[5])
            if 5 in attributes
            else _address(attributes[18][2:])
            if 18 in attributes
            else "",
            onlink=bool(struct.unpack_from("=I", head, 8)[0] & 4),
            metric=_number(attributes.get(6, bytes(4))),
        )
        for head, attributes in found
        if not struct.unpack_from("=I", head, 8)[0] & 0x200  # not a copy of another, kept for one destination
    ]


def _next_hop(attributes: Attributes) -> str:
    """Of the route's own family, or of the other one, with the family before."""
    if 5 in attributes:
        return _address(attributes[5])
    return _address(attributes[18][2:]) if 18 in attributes else ""


# --- messages ------------------------------------------------------------------------------------------------------


def _socket() -> socket.socket:
    try:
        opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except OSError as error:
        raise HostError(f"the kernel cannot be asked for its links and routes: {error}") from error
    opened.settimeout(DEADLINE_S)
    return opened


def _dump(asked: socket.socket, kind: int, head: bytes, length: int) -> Iterator[tuple[bytes, Attributes]]:
    """Everything of a kind: the fixed part of each message, `length` octets, and its attributes."""
    for _ in range(_ATTEMPTS):
        try:
            asked.send(struct.pack("=IHHII", 16 + len(head), kind, _REQUEST_DUMP, 1, 0) + head)
            messages, whole = _receive(asked)
        except OSError as error:
            raise HostError(f"the kernel does not tell its links and routes: {error}") from error
        if whole:
            break
    for message in messages:
        yield message[:length], _attributes(message[length:])


def _receive(asked: socket.socket) -> tuple[list[bytes], bool]:
    """The messages, and whether nothing changed in the meantime."""
    messages: list[bytes] = []
    whole = True
    while True:
        data = asked.recv(1 << 20)
        at = 0
        while at + 16 <= len(data):
            length, kind, flags = struct.unpack_from("=IHH", data, at)
            whole = whole and not flags & _INTERRUPTED
            if kind == _DONE:
                return messages, whole
            if kind == _ERROR:
                code = -struct.unpack_from("=i", data, at + 16)[0]
                raise OSError(code, os.strerror(code))
            messages.append(data[at + 16 : at + length])
            at += (length + 3) & ~3


def _attributes(data: bytes) -> Attributes:
    found: Attributes = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _number(data: bytes) -> int:
    return int(struct.unpack("=I", data)[0])


def _address(data: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)

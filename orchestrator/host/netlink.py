"""What the kernel says of a namespace's links, addresses, rules, routes and queues (rtnetlink).

Asked by a socket, since each pass looks at everything and starting `ip` would take ten times as long as its answer.
Changes are made by `ip`, which people can read; those of queues in htb.py. Layouts: linux/rtnetlink.h, if_link.h,
if_addr.h, fib_rules.h, pkt_sched.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace

from orchestrator.host import HostError

DEADLINE_S = 20.0

_GET_LINK, _GET_ADDRESS, _GET_ROUTE, _GET_RULE, _GET_QUEUE, _GET_CLASS = 18, 22, 26, 34, 38, 42
_REQUEST_ONE, _REQUEST_DUMP = 0x00D, 0x301  # the first is acknowledged, since there may be no answer to it
_ERROR, _DONE = 2, 3
_INTERRUPTED = 0x10  # something changed while it was told
_NEW_LINK, _DELETED_LINK = 16, 17  # as the group of links is told
_OF_LINKS = 1
_TOLD_BYTES = 4 << 20
_ASK_EACH_S = 30.0
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
    has_arp: bool
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


@dataclass(frozen=True, slots=True)
class Queue:
    """What a link sends by. `classes` are by the minor number of each, with all that the kernel tells of it but what
    it has counted: to compare, not to read."""

    kind: str
    handle: int  # MAJOR << 16 | MINOR
    classes: dict[int, bytes]


UNICAST, BLACKHOLE = 1, 6
KERNEL, REDIRECT, ROUTER_ADVERTISEMENT = 2, 1, 9


def links(*, with_addresses: bool = False) -> dict[str, Link]:
    """The links of this thread's namespace, by name."""
    with opened() as asked:
        found = list(_dump(asked, _GET_LINK, _ALL + _WITHOUT_COUNTERS, 16, _TOLD))
    names = {_index(head): _text(attributes[_NAME]) for head, attributes in found}
    made = (_link(head, attributes, names) for head, attributes in found)
    if not with_addresses:
        return {link.name: link for link in made}
    own = addresses()
    return {link.name: replace(link, addresses=tuple(own.get(link.index, ()))) for link in made}


def addresses() -> dict[int, list[str]]:
    """The addresses of this thread's namespace, ADDRESS/LENGTH, by the index of the link that has them."""
    found: dict[int, list[str]] = {}
    with opened() as asked:
        for head, attributes in _dump(asked, _GET_ADDRESS, struct.pack("=BBBBI", 0, 0, 0, 0, 0), 8):
            own = attributes.get(2) or attributes.get(1)  # local; without a peer, there may be the address only
            if own is not None:
                found.setdefault(_index(head), []).append(f"{_address(own)}/{head[1]}")
    return found


_MAC, _NAME, _MASTER, _ALIAS = 1, 3, 10, 20
_TOLD = frozenset({_MAC, _NAME, _MASTER, _ALIAS})
_ALL = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
_WITHOUT_COUNTERS = struct.pack("=HHI", 8, 29, 1 << 3)  # IFLA_EXT_MASK: RTEXT_FILTER_SKIP_STATS
_UP, _NOARP = 0x1, 0x80


def _index(head: bytes) -> int:
    return int(struct.unpack_from("=i", head, 4)[0])


def _link(head: bytes, attributes: Attributes, names: Mapping[int, str]) -> Link:
    flags = _number(head[8:12])
    return Link(
        name=_text(attributes[_NAME]),
        alias=_text(attributes.get(_ALIAS, b"")),
        master=names.get(_number(attributes[_MASTER]), "") if _MASTER in attributes else "",
        mac=attributes.get(_MAC, b"").hex(":"),
        is_up=bool(flags & _UP),
        has_arp=not flags & _NOARP,
        index=_index(head),
    )


class Links:
    """The links of one namespace as they are at each moment. They are asked for now and then; in between the kernel
    tells of each change before the call that makes it returns, so that a look costs what has changed. Of a link that is
    down, it does not tell that its alias has changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: socket.socket | None = None
        self._asked_at = 0.0
        self._names: dict[int, str] = {}
        self._links: dict[str, Link] = {}

    def now(self) -> Mapping[str, Link]:
        """By name, without their addresses. The thread is in the namespace. What was given before does not change."""
        with self._lock:
            try:
                fresh = self._told is not None and time.monotonic() - self._asked_at < _ASK_EACH_S
                if not fresh or not self._follow():
                    self._ask()
            except OSError as error:
                raise HostError(f"the kernel does not tell its links: {error}") from error
            return self._links

    def close(self) -> None:
        with self._lock:
            self._hang_up()

    def __del__(self) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        if self._told is not None:
            self._told.close()
            self._told = None

    def _ask(self) -> None:
        self._hang_up()
        with ExitStack() as on_error:
            told = on_error.enter_context(
                socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
            )
            told.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TOLD_BYTES)
            told.bind((0, _OF_LINKS))
            self._links = links()
            self._names = {link.index: link.name for link in self._links.values()}
            self._asked_at = time.monotonic()
            self._told = told
            on_error.pop_all()

    def _follow(self) -> bool:
        """Take up what has been told. False: that does not do, and they must be asked for."""
        present: dict[str, Link] | None = None
        while self._told is not None:
            try:
                data = self._told.recv(1 << 20)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    return False
                raise
            for kind, _, told in _messages(data):
                if kind not in (_NEW_LINK, _DELETED_LINK) or told[0] != socket.AF_UNSPEC:
                    continue  # a bridge's own view of its port
                present = dict(self._links) if present is None else present
                index = _index(told)
                before = self._names.get(index)
                if kind == _DELETED_LINK:
                    self._names.pop(index, None)
                    if before in present and present[before].index == index:
                        del present[before]
                    continue
                attributes = _attributes(told[16:], _TOLD)
                name = _text(attributes[_NAME])
                if before not in (None, name):
                    return False  # others may have it as their master
                self._names[index] = name
                present[name] = _link(told[:16], attributes, self._names)
        if present is not None:
            self._links = present
        return True


def rules(family: int) -> list[KernelRule]:
    """`family` is 4 or 6."""
    with opened() as asked:
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


def routes(family: int, names: Mapping[int, str] | None = None) -> list[KernelRoute]:
    """Those of all tables. `family` is 4 or 6. `names` are those of links by their index, for who knows those that
    matter; others are empty then."""
    with opened() as asked:
        found = list(_dump(asked, _GET_ROUTE, struct.pack("=BBBBBBBBI", _FAMILIES[family], *[0] * 8), 12))
        if names is None:
            told = _dump(asked, _GET_LINK, _ALL + _WITHOUT_COUNTERS, 16, _TOLD)
            names = {_index(head): _text(attributes[_NAME]) for head, attributes in told}
    nowhere = bytes(4 if family == 4 else 16)
    return [
        KernelRoute(
            table=_number(attributes[15]) if 15 in attributes else head[4],
            destination=f"{_address(attributes.get(1, nowhere))}/{head[1]}",
            kind=head[7],
            protocol=head[5],
            link=names.get(_number(attributes[4]), "") if 4 in attributes else "",
            via=_next_hop(attributes),
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


_ROOT = 0xFFFFFFFF  # TC_H_ROOT: the queue of a link itself


def queue(link: str) -> Queue | None:
    """The queue of a link of this thread's namespace; None where it has but what every link has, or is not there."""
    try:
        index = socket.if_nametoindex(link)
    except OSError:
        return None
    with opened() as asked:
        try:
            asked.send(message(_GET_QUEUE, _REQUEST_ONE, struct.pack("=BxHiIII", 0, 0, index, 0, _ROOT, 0)))
            answers, _ = receive(asked)
        except OSError as error:
            if error.errno in _NO_QUEUE:
                return None
            raise HostError(f"the kernel does not tell the queue of {link}: {error}") from error
        if not answers:
            return None
        found = answers[0]
        kind = _text(_attributes(found[20:]).get(1, b""))
        classes = {
            struct.unpack_from("=I", head, 8)[0] & 0xFFFF: _class(head, attributes)
            for head, attributes in _dump(asked, _GET_CLASS, struct.pack("=BxHiIII", 0, 0, index, 0, 0, 0), 20)
        }
    return Queue(kind, struct.unpack_from("=I", found, 8)[0], classes)


def queue_class(link: str, handle: int) -> bytes | None:
    """One class of the queue of a link, as in `Queue`; None when it is not there."""
    with opened() as asked:
        try:
            index = socket.if_nametoindex(link)
            asked.send(message(_GET_CLASS, _REQUEST_ONE, struct.pack("=BxHiIII", 0, 0, index, handle, 0, 0)))
            answers, _ = receive(asked)
        except OSError as error:
            if error.errno in _NO_QUEUE:
                return None
            raise HostError(f"the kernel does not tell the queue of {link}: {error}") from error
    return _class(answers[0][:20], _attributes(answers[0][20:])) if answers else None


def _class(head: bytes, attributes: Attributes) -> bytes:
    return head + attributes.get(1, b"") + attributes.get(2, b"")


_NO_QUEUE = {errno.ENOENT, errno.EINVAL, errno.ENODEV}  # what it answers for one that is built in, or a link that went

# --- messages ------------------------------------------------------------------------------------------------------


def opened() -> socket.socket:
    """A socket to the kernel's side of this thread's namespace."""
    try:
        asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except OSError as error:
        raise HostError(f"the kernel cannot be asked for its links and routes: {error}") from error
    asked.settimeout(DEADLINE_S)
    return asked


def _dump(
    asked: socket.socket, kind: int, head: bytes, length: int, wanted: Set[int] | None = None
) -> Iterator[tuple[bytes, Attributes]]:
    """Everything of a kind: the fixed part of each message, `length` octets, and its attributes, or those `wanted`."""
    for _ in range(_ATTEMPTS):
        try:
            asked.send(message(kind, _REQUEST_DUMP, head))
            messages, whole = receive(asked)
        except OSError as error:
            raise HostError(f"the kernel does not tell its links and routes: {error}") from error
        if whole:
            break
    for told in messages:
        yield told[:length], _attributes(told[length:], wanted)


def message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body


def receive(asked: socket.socket) -> tuple[list[bytes], bool]:
    """All that answers one request, and whether nothing changed in the meantime."""
    messages: list[bytes] = []
    whole = True
    while True:
        for kind, flags, body in _messages(asked.recv(1 << 20)):
            whole = whole and not flags & _INTERRUPTED
            if kind == _DONE:
                return messages, whole
            if kind == _ERROR:
                code = -struct.unpack_from("=i", body)[0]
                if code == 0:  # the acknowledgement
                    return messages, whole
                raise OSError(code, os.strerror(code))
            messages.append(body)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and body of each."""
    at = 0
    while at + 16 <= len(data):
        length, kind, flags = struct.unpack_from("=IHH", data, at)
        yield kind, flags, data[at + 16 : at + length]
        at += (length + 3) & ~3


_attribute_head = struct.Struct("=HH").unpack_from


def _attributes(data: bytes, wanted: Set[int] | None = None) -> Attributes:
    found: Attributes = {}
    at, end = 0, len(data) - 4
    while at <= end:
        length, kind = _attribute_head(data, at)
        if length < 4:
            break
        kind &= 0x3FFF
        if wanted is None or kind in wanted:
            found[kind] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _number(data: bytes) -> int:
    return int(struct.unpack("=I", data)[0])


def _address(data: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data)

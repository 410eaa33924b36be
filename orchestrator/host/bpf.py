"""Programs for the kernel's own machine (eBPF), put together by hand, and where they are attached.

    Code ... bytes ---- load: the kernel checks them ----> Program ---- attach ----> what comes in by a link (tcx)

A program sees each frame that comes in by a link before anything else does, a bridge included. It lives as long as it
is attached, whatever becomes of the process that loaded it, and its tables live with it. Asked by the system call: what
there are programs for needs a dozen lines of it, and no compiler, no library and no file system is then to be had.

Attaching needs Linux 6.6. Errors are OSErrors. Layouts: linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

R0, R1, R2, R3, R4, R5, R6, R7, R8, STACK = 0, 1, 2, 3, 4, 5, 6, 7, 8, 10
EQUAL, UNEQUAL, GREATER = 0x15, 0x55, 0x25  # of jumps, unsigned
MAP_LOOKUP, REDIRECT, CHANGE_TYPE, REDIRECT_PEER, CHECK_MTU = 1, 23, 32, 155, 163  # functions of the kernel's
NEXT = -1  # what a program answers that has nothing to say of a frame
HAS_TAG, PRIORITY, LINK, BEGIN, END = 20, 32, 40, 76, 80  # where these are in what a program is told of a frame

_CALL_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _MAP_UPDATE, _PROG_LOAD, _ATTACH, _DETACH, _PROG_BY_ID, _INFO, _QUERY = 0, 2, 5, 8, 9, 13, 15, 16
_HASH, _ON_DEMAND = 1, 1  # a table, which takes memory as it fills
_FOR_LINKS, _INGRESS, _REPLACE = 3, 46, 4
_ATTRIBUTES = 144  # octets
_LOG_BYTES = 1 << 16
_NAME_IN_INFO = 64
_MOST_ATTACHED = 16

_libc = ctypes.CDLL(None, use_errno=True)
_SIZES = {4: 0x00, 2: 0x08, 1: 0x10}


@dataclass(frozen=True, slots=True)
class Program:
    """One that is loaded. Its handle may be closed once it is attached."""

    handle: int
    number: int  # the kernel's, by which it tells what is attached
    name: str


class Code:
    """Instructions, one after the other. Registers are numbers; places to jump to have names."""

    def __init__(self) -> None:
        self._instructions: list[bytes] = []
        self._places: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def copy(self, to: int, register: int) -> None:
        self._add(0xBF, to, register)

    def put(self, to: int, number: int) -> None:
        self._add(0xB7, to, number=number)

    def add(self, to: int, number: int) -> None:
        self._add(0x07, to, number=number)

    def mask(self, to: int, number: int) -> None:
        self._add(0x57, to, number=number)

    def read(self, size: int, to: int, pointer: int, offset: int) -> None:
        """`size` octets, as this machine orders them."""
        self._add(0x61 | _SIZES[size], to, pointer, offset)

    def write(self, size: int, pointer: int, offset: int, register: int) -> None:
        self._add(0x63 | _SIZES[size], pointer, register, offset)

    def clear(self, size: int, pointer: int, offset: int) -> None:
        self._add(0x62 | _SIZES[size], pointer, 0, offset)

    def table(self, to: int, handle: int) -> None:
        self._add(0x18, to, 1, number=handle)
        self._add(0)

    def call(self, function: int) -> None:
        self._add(0x85, number=function)

    def leave(self) -> None:
        """With what is in R0."""
        self._add(0x95)

    def jump(self, condition: int, register: int, number: int, place: str) -> None:
        self._jumps.append((len(self._instructions), place))
        self._add(condition, register, number=number)

    def jump_by(self, condition: int, register: int, other: int, place: str) -> None:
        """By another register."""
        self._jumps.append((len(self._instructions), place))
        self._add(condition | 0x08, register, other)

    def place(self, name: str) -> None:
        self._places[name] = len(self._instructions)

    def text(self) -> bytes:
        instructions = list(self._instructions)
        for at, name in self._jumps:
            head, _, number = struct.unpack("=Hhi", instructions[at])
            instructions[at] = struct.pack("=Hhi", head, self._places[name] - at - 1, number)
        return b"".join(instructions)

    def _add(self, operation: int, to: int = 0, register: int = 0, offset: int = 0, number: int = 0) -> None:
        self._instructions.append(struct.pack("=BBhi", operation, register << 4 | to, offset, number))


def make_table(entries: Mapping[bytes, bytes]) -> int:
    """A hash table in the kernel that holds these: one at least, keys of one length and values of one. Returns its
    handle; the table stays while a program uses it."""
    key, value = (ctypes.create_string_buffer(len(each)) for each in next(iter(entries.items())))
    handle = _ask(_MAP_CREATE, struct.pack("=IIIII", _HASH, len(key), len(value), len(entries), _ON_DEMAND))
    try:
        update = struct.pack("=IIQQQ", handle, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
        for key.raw, value.raw in entries.items():
            _ask(_MAP_UPDATE, update)
    except BaseException:
        os.close(handle)
        raise
    return handle


def load(code: Code, name: str) -> Program:
    text = code.text()
    instructions, licence = ctypes.create_string_buffer(text, len(text)), ctypes.create_string_buffer(b"GPL")

    def ask(*log: int) -> int:
        places = (len(text) // 8, ctypes.addressof(instructions), ctypes.addressof(licence))
        return _ask(_PROG_LOAD, struct.pack("=IIQQIIQII16s", _FOR_LINKS, *places, *log, 0, 0, name.encode()))

    try:
        handle = ask(0, 0, 0)
    except OSError as error:
        # What the kernel says of a program takes long, so it is asked to only now.
        told = ctypes.create_string_buffer(_LOG_BYTES)
        with suppress(OSError):
            os.close(ask(1, len(told), ctypes.addressof(told)))
        reason = told.value.decode(errors="replace").strip()[-500:]
        raise OSError(error.errno, f"{error.strerror}{': ' if reason else ''}{reason}") from error
    try:
        number, found = _describe(handle)
    except BaseException:
        os.close(handle)
        raise
    return Program(handle, number, found)


def attached(link: int) -> list[int]:
    """The programs of a link of this thread's namespace, by number. `link` is its index."""
    numbers = (ctypes.c_uint32 * _MOST_ATTACHED)()
    _ask(_QUERY, struct.pack("=IIIIQII", link, _INGRESS, 0, 0, ctypes.addressof(numbers), _MOST_ATTACHED, 0))
    return [number for number in numbers if number]


def replace(link: int, program: Program) -> bool:
    """In one step, one of the same name; whether there was one."""
    for number in attached(link):
        handle = _ask(_PROG_BY_ID, struct.pack("=I", number))
        try:
            if _describe(handle)[1] == program.name:
                _ask(_ATTACH, struct.pack("=IIIII", link, program.handle, _INGRESS, _REPLACE, handle))
                return True
        finally:
            os.close(handle)
    return False


def attach(link: int, program: Program) -> None:
    """Beside what there is. The kernel waits until no processor looks at the old list: 10 ms and more, while no link of
    the host can be changed."""
    _ask(_ATTACH, struct.pack("=IIIII", link, program.handle, _INGRESS, 0, 0))


def detach(link: int, names: Iterable[str]) -> None:
    """What of these names is attached to a link."""
    wanted = set(names)
    for number in attached(link):
        handle = _ask(_PROG_BY_ID, struct.pack("=I", number))
        try:
            if _describe(handle)[1] in wanted:
                _ask(_DETACH, struct.pack("=IIII", link, handle, _INGRESS, 0))
        finally:
            os.close(handle)


def _describe(handle: int) -> tuple[int, str]:
    """A program's number and name."""
    told = ctypes.create_string_buffer(_NAME_IN_INFO + 16)
    _ask(_INFO, struct.pack("=IIQ", handle, len(told), ctypes.addressof(told)))
    name = told.raw[_NAME_IN_INFO:].partition(b"\0")[0]
    return struct.unpack_from("=I", told.raw, 4)[0], name.decode()


def _ask(command: int, attributes: bytes) -> int:
    number = _CALL_NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(38, f"how to load programs is not known for {platform.machine()}")
    told = ctypes.create_string_buffer(attributes.ljust(_ATTRIBUTES, b"\0"), _ATTRIBUTES)
    answer: int = _libc.syscall(number, command, told, _ATTRIBUTES)
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer

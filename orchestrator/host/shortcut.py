"""Shortcuts: what guests mostly say and hear does not cross the bridge, nor need the guard look at it a second time.

    guest -- tap ---- from_guest: the port's own, for the router ------------------> leg -- router
              |                                   \\-- it has a class -> plug, queue -> leg
              +------ all else: guard, bridge, plug ------------------------------> leg

    guest -- tap <------------------- to_guest: for the port's own addresses ---- plug <-- leg -- router
              +------ all else: bridge, guard <------------------------------------+

Two programs of the kernel's (bpf.py) for each router: one for what comes in by its taps, one for what comes in by its
plugs. Each looks up one key and says nothing that the guard would not say: a frame passes only if the guard would let
it pass by its first rules, and whatever a program has nothing to say of takes the way of the bridge. So nothing depends
on shortcuts: without them, and before they are there, all traffic passes the guard and the bridge.

    what is looked up                                      what is told
    tap . hardware address . IPv4 source                   plug, class, the leg's hardware address
    plug . hardware address . IPv4 destination             tap

A table is never changed: what another plan needs is loaded beside it and takes its place on each link in one step. Taps
that come later are found by the next pass (of very many, some by the ones after it), and one that has gone is not sent
to. Of IPv4 only plain headers take the short way, and nothing that a DHCP server would say; IPv6, ARP and broadcasts
take the long one.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from orchestrator.host import HostError, Router, bpf
from orchestrator.host.bpf import EQUAL, GREATER, R0, R1, R2, R3, R4, R5, R6, R7, R8, STACK, UNEQUAL
from orchestrator.host.guard import own_ipv4
from orchestrator.host.links import bridge_name, leg_mac, plug_name, tap_name
from orchestrator.host.netlink import Link
from orchestrator.host.shaping import minor

log = logging.getLogger(__name__)

FROM_GUEST, TO_GUEST = "orc_from_guest", "orc_to_guest"
MOST_NEW = 32  # links that get a program in one pass, since each holds up the host for a moment
_NONE = 0  # the number of no program
_ROOT_CLASS = 1 << 16  # 1:0
# What a kernel answers that attaches no programs to links, or one that does not let us, or when the link has gone.
_NOTHING_THERE = {errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ENODEV}

# A frame: where things are in it, and what they may be.
_TO, _FROM, _TYPE, _HEADER, _FLAGS, _PROTOCOL = 0, 6, 12, 14, 20, 23
_SOURCE, _DESTINATION, _SOURCE_PORT, _ENOUGH_OCTETS = 26, 30, 34, 42
_IPV4 = socket.htons(0x0800)
_PLAIN_HEADER = 0x45  # version 4, no options
_UDP = 17
_FRAGMENT = socket.htons(0x3FFF)  # "more fragments", and the offset
_DHCP_SERVER = socket.htons(67)
_FOR_THIS_HOST = 0  # the type of a frame that is for the link that it comes in by
_KEY_BYTES = 16


@dataclass(frozen=True, slots=True, order=True)
class Shortcut:
    """Between a tap and its plug, for one address of a port."""

    tap: str
    plug: str
    mac: str
    address: str
    leg_mac: str
    minor: int  # the number of its class in the plug's queue; 0: none

    @property
    def text(self) -> str:
        """For people."""
        queue = f" class 1:{self.minor:x}" if self.minor else ""
        return f"{self.tap} {self.mac} {self.address} <-> {self.plug}{queue}"


def wanted(router: Router) -> frozenset[Shortcut]:
    segments = {segment.name: segment for segment in router.segments}
    return frozenset(
        Shortcut(
            tap=tap_name(port.name),
            plug=plug_name(port.segment),
            mac=port.mac.lower(),
            address=address,
            leg_mac=leg_mac(port.segment),
            minor=minor(port, segments[port.segment]) if port.rate is not None else 0,
        )
        for port in router.ports
        if port.segment in segments
        for address in own_ipv4(port)
    )


def are_stale(before: Router, router: Router) -> bool:
    """Whether the shortcuts of a plan say what is wrong by the next one, which has the same segments. Those that are
    missing are no harm: another pass finds them."""
    ports = {port.name: port for port in router.ports}
    changed = {port.name: port for port in before.ports if ports.get(port.name) is not port}
    left = [ports[name] for name in changed if name in ports]
    return not wanted(replace(before, ports=tuple(changed.values()))) <= wanted(replace(router, ports=tuple(left)))


Tables = tuple[dict[bytes, bytes], dict[bytes, bytes]]  # for the two programs


@dataclass(frozen=True, slots=True)
class _Held:
    """What a router's programs were made of, and their numbers, by the index of the link that has each."""

    router: Router
    shortcuts: frozenset[Shortcut]
    tables: Tables
    numbers: Mapping[int, int]


class Shortcuts:
    """Those of this host's routers."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}
        self._told = False

    def hold(self, router: Router, present: Mapping[str, Link]) -> None:
        """Make the shortcuts of a router what its plan says, or take them away where this kernel cannot make them.
        `present` are the links of this thread's namespace. Raises HostError when neither can be done."""
        bridges = {bridge_name(segment.name) for segment in router.segments}
        plugs = {present[name].index for each in router.segments if (name := plug_name(each.name)) in present}
        before = self._held.pop(router.name, None)
        known = set(before.numbers) if before is not None else set()
        taps = {link.index for link in present.values() if link.master in bridges or link.index in known} - plugs
        shortcuts = before.shortcuts if before is not None and before.router == router else wanted(router)
        tables = _tables(shortcuts, present)
        try:
            if (
                before is not None
                and (before.tables, set(before.numbers)) == (tables, taps | plugs)
                and _are_attached(before.numbers)
            ):
                numbers = before.numbers
            else:
                numbers = _attach(tables, taps, plugs)
            self._held[router.name] = _Held(router, shortcuts, tables, numbers)
        except OSError as error:
            self._explain(error)
            try:
                _take_away(taps | plugs)
            except OSError as second:
                raise HostError(f"the shortcuts of {router.name} can be neither made nor removed: {second}") from error

    def forget(self, router: str) -> None:
        """Its links are gone, and what was attached to them."""
        self._held.pop(router, None)

    def _explain(self, error: OSError) -> None:
        if not self._told:
            log.warning("packets of guests take the long way, by the bridge: %s (Linux 6.6 is needed)", error)
        self._told = True


def _tables(shortcuts: Iterable[Shortcut], present: Mapping[str, Link]) -> Tables:
    senders: dict[bytes, bytes] = {}
    receivers: dict[bytes, bytes] = {}
    for each in shortcuts:
        tap, plug = present.get(each.tap), present.get(each.plug)
        if tap is None or plug is None:
            continue
        own = _octets(each.mac) + b"\0\0" + IPv4Address(each.address).packed
        queue = _ROOT_CLASS | each.minor if each.minor else 0
        senders[struct.pack("=I", tap.index) + own] = (
            struct.pack("=II", plug.index, queue) + _octets(each.leg_mac) + b"\0\0"
        )
        receivers[struct.pack("=I", plug.index) + own] = struct.pack("=I", tap.index)
    return senders, receivers


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _attach(tables: Tables, taps: set[int], plugs: set[int]) -> dict[int, int]:
    numbers: dict[int, int] = {}
    with ExitStack() as closing:
        for code, entries, name, links in (
            (_from_guest, tables[0], FROM_GUEST, taps),
            (_to_guest, tables[1], TO_GUEST, plugs),
        ):
            if not entries:
                _take_away(links)
                numbers |= dict.fromkeys(links, _NONE)
                continue
            table = bpf.make_table(entries)
            closing.callback(os.close, table)
            program = bpf.load(code(table), name)
            closing.callback(os.close, program.handle)
            new = 0
            for link in sorted(links):
                try:
                    if not bpf.replace(link, program):
                        new += 1
                        if new > MOST_NEW:
                            continue
                        bpf.attach(link, program)
                    numbers[link] = program.number
                except OSError as error:
                    if error.errno != errno.ENODEV:  # it has just gone
                        raise
    return numbers


def _are_attached(numbers: Mapping[int, int]) -> bool:
    try:
        return all(number == _NONE or number in bpf.attached(link) for link, number in numbers.items())
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return False


def _take_away(links: Iterable[int]) -> None:
    for link in links:
        try:
            bpf.detach(link, (FROM_GUEST, TO_GUEST))
        except OSError as error:
            if error.errno not in _NOTHING_THERE:
                raise


# --- the programs --------------------------------------------------------------------------------------------------


def _from_guest(table: int) -> bpf.Code:
    """For what comes in by a tap. The key is made below the top of the stack."""
    code = bpf.Code()
    _look_at(code, _ENOUGH_OCTETS)
    code.read(1, R5, R2, _HEADER)
    code.jump(UNEQUAL, R5, _PLAIN_HEADER, "the long way")
    code.read(1, R5, R2, _PROTOCOL)
    code.jump(UNEQUAL, R5, _UDP, "may pass")
    code.read(2, R5, R2, _FLAGS)  # of a datagram in parts, only the first one has ports
    code.mask(R5, _FRAGMENT)
    code.jump(UNEQUAL, R5, 0, "the long way")
    code.read(2, R5, R2, _SOURCE_PORT)
    code.jump(EQUAL, R5, _DHCP_SERVER, "the long way")
    code.place("may pass")
    _make_key(code, _FROM, _SOURCE)
    code.read(4, R7, R2, _TO)
    code.read(2, R8, R2, _TO + 4)
    _look_up(code, table)
    code.read(4, R5, R0, 8)
    code.jump_by(UNEQUAL, R5, R7, "the long way")
    code.read(2, R5, R0, 12)
    code.jump_by(UNEQUAL, R5, R8, "the long way")
    code.read(4, R7, R0, 0)
    code.read(4, R5, R0, 4)
    code.jump(UNEQUAL, R5, 0, "has a class")
    code.copy(R1, R6)
    code.put(R2, _FOR_THIS_HOST)
    code.call(bpf.CHANGE_TYPE)
    code.copy(R1, R7)
    code.put(R2, 0)
    code.call(bpf.REDIRECT_PEER)
    code.leave()
    code.place("has a class")
    code.write(4, R6, bpf.PRIORITY, R5)
    code.copy(R1, R7)
    code.put(R2, 0)
    code.call(bpf.REDIRECT)
    code.leave()
    _end(code)
    return code


def _to_guest(table: int) -> bpf.Code:
    """For what comes in by a plug. A tap that has gone, or that takes no frame of this length, is not sent to."""
    code = bpf.Code()
    _look_at(code, _SOURCE_PORT)
    _make_key(code, _TO, _DESTINATION)
    _look_up(code, table)
    code.read(4, R7, R0, 0)
    code.clear(4, STACK, -_KEY_BYTES)
    code.copy(R1, R6)
    code.copy(R2, R7)
    code.copy(R3, STACK)
    code.add(R3, -_KEY_BYTES)
    code.put(R4, 0)
    code.put(R5, 0)
    code.call(bpf.CHECK_MTU)
    code.jump(UNEQUAL, R0, 0, "the long way")
    code.copy(R1, R7)
    code.put(R2, 0)
    code.call(bpf.REDIRECT)
    code.leave()
    _end(code)
    return code


def _look_at(code: bpf.Code, octets: int) -> None:
    """R2 is where an IPv4 frame without a tag begins, of which so many octets can be read."""
    code.copy(R6, R1)
    code.read(4, R5, R6, bpf.HAS_TAG)
    code.jump(UNEQUAL, R5, 0, "the long way")
    code.read(4, R2, R6, bpf.BEGIN)
    code.read(4, R3, R6, bpf.END)
    code.copy(R4, R2)
    code.add(R4, octets)
    code.jump_by(GREATER, R4, R3, "the long way")
    code.read(2, R5, R2, _TYPE)
    code.jump(UNEQUAL, R5, _IPV4, "the long way")


def _make_key(code: bpf.Code, mac: int, address: int) -> None:
    """Link . hardware address . IPv4 address, of the offsets of these."""
    code.clear(4, STACK, -8)
    code.read(4, R5, R6, bpf.LINK)
    code.write(4, STACK, -16, R5)
    code.read(4, R5, R2, mac)
    code.write(4, STACK, -12, R5)
    code.read(2, R5, R2, mac + 4)
    code.write(2, STACK, -8, R5)
    code.read(4, R5, R2, address)
    code.write(4, STACK, -4, R5)


def _look_up(code: bpf.Code, table: int) -> None:
    """R0 is where the value is."""
    code.table(R1, table)
    code.copy(R2, STACK)
    code.add(R2, -_KEY_BYTES)
    code.call(bpf.MAP_LOOKUP)
    code.jump(EQUAL, R0, 0, "the long way")


def _end(code: bpf.Code) -> None:
    code.place("the long way")
    code.put(R0, bpf.NEXT)
    code.leave()

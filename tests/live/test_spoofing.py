"""Frames that a real guest sends: what is not its own goes nowhere, and the same with its own addresses does.

Two ears: the leg, by which the router hears the whole subnet, and the tap of the guest that the frames are meant for.
After each forged frame comes an honest one of its kind through the same tap, so when that one is heard, the forged one
was dropped. Both carry a mark: in their payload, behind it (ARP), or as the flow label (neighbour discovery).
"""

from __future__ import annotations

import base64
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pytest

from orchestrator.host.command import inside
from orchestrator.host.links import leg_mac, leg_name, tap_name
from tests.live.conftest import Deployment, DualStack, Fleet, Guest

pytestmark = pytest.mark.live

BROADCAST = "ff:ff:ff:ff:ff:ff"
NOBODY = "02:00:5e:00:53:01"
METADATA, METADATA_6 = "169.254.169.254", "fd00:ec2::254"
ALL_NODES, ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"
ALL_ROUTERS, ALL_ROUTERS_MAC = "ff02::2", "33:33:00:00:00:02"
PATIENCE_S = 10.0
ETH_P_ALL = 3
MARK_BYTES = 16


# --- the program that sends ----------------------------------------------------------------------------------------

BASE = 0x400000
HEADERS_BYTES = 64 + 56  # of ELF, and of its one segment
LARGEST = 2048


def sender(interface_index: int) -> bytes:
    """A program for Linux on x86-64 that sends its standard input as one frame. It ends with 0 when all was sent."""
    code_bytes = 82
    address = BASE + HEADERS_BYTES + code_bytes
    buffer = address + 20
    code = b"".join(
        (
            bytes.fromhex("31c0 31ff"),  # read(0,
            b"\xbe" + struct.pack("<I", buffer),  # buffer,
            b"\xba" + struct.pack("<I", LARGEST),  # LARGEST)
            bytes.fromhex("0f05 4189c4"),  # r12d = its length
            bytes.fromhex("b829000000 bf11000000 be03000000 31d2 0f05"),  # socket(AF_PACKET, SOCK_RAW, 0)
            bytes.fromhex("89c7 b82c000000"),  # sendto(it,
            b"\xbe" + struct.pack("<I", buffer),  # buffer,
            bytes.fromhex("4489e2 4531d2"),  # r12d, 0,
            b"\x41\xb8" + struct.pack("<I", address),  # address,
            bytes.fromhex("41b914000000 0f05"),  # 20)
            bytes.fromhex("4429e0 89c7 b83c000000 0f05"),  # exit(sent - r12d)
        )
    )
    assert len(code) == code_bytes
    address_of_link = struct.pack("<HHiHBB8x", socket.AF_PACKET, 0, interface_index, 0, 0, 0)
    size = HEADERS_BYTES + len(code) + len(address_of_link)
    elf = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + HEADERS_BYTES, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, size, size + LARGEST, 0x1000)
    return elf + segment + code + address_of_link


# --- frames --------------------------------------------------------------------------------------------------------


def hardware(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def link_local(mac: str) -> str:
    octets = hardware(mac)
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes((octets[0] ^ 2,)) + octets[1:3] + b"\xff\xfe" + octets[3:]))


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(source: str, destination: str, kind: int, payload: bytes) -> bytes:
    return (hardware(destination) + hardware(source) + struct.pack("!H", kind) + payload).ljust(60, b"\0")


def ipv4(source: str, destination: str, payload: bytes, protocol: int = socket.IPPROTO_UDP) -> bytes:
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def flow(mark: bytes) -> bytes:
    """The first four bytes of an IPv6 packet whose flow label says it. A bridge cuts off what is behind the packet."""
    return struct.pack("!I", 6 << 28 | int.from_bytes(mark[:3], "big") >> 4)


def ipv6(source: str, destination: str, protocol: int, payload: bytes, mark: bytes = b"") -> bytes:
    """With the checksum of what it carries, UDP or ICMPv6, put in where it belongs."""
    addresses = IPv6Address(source).packed + IPv6Address(destination).packed
    at = 6 if protocol == socket.IPPROTO_UDP else 2
    total = checksum(addresses + struct.pack("!II", len(payload), protocol) + payload)
    payload = payload[:at] + struct.pack("!H", total) + payload[at + 2 :]
    return flow(mark) + struct.pack("!HBB", len(payload), protocol, 255) + addresses + payload


def udp(source_port: int, destination_port: int, data: bytes) -> bytes:
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(data), 0) + data


def arp(operation: int, sender_mac: str, sender_ip: str, target_ip: str) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return head + hardware(sender_mac) + IPv4Address(sender_ip).packed + bytes(6) + IPv4Address(target_ip).packed


def neighbour(kind: int, flags: int, target: str, option: int, mac: str) -> bytes:
    """A solicitation (135, option 1) or an advertisement (136, option 2)."""
    return struct.pack("!BBHI", kind, 0, 0, flags) + IPv6Address(target).packed + bytes((option, 1)) + hardware(mac)


def bootp(operation: int, mac: str, yours: str, mark: bytes) -> bytes:
    head = struct.pack("!BBBBIHH", operation, 1, 6, 0, 0x4F524331, 0, 0x8000)
    addresses = bytes(4) + IPv4Address(yours).packed + bytes(8)
    kind = b"\x35\x01" + (b"\x02" if operation == 2 else b"\x01")  # an offer, or a discovery
    return (
        head
        + addresses
        + hardware(mac).ljust(16, b"\0")
        + mark.ljust(192, b"\0")
        + b"\x63\x82\x53\x63"
        + kind
        + b"\xff"
    )


# --- who is there --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Who:
    mac: str
    ip: str
    ip6: str
    tap: str


def who(guest: Guest) -> Who:
    [interface] = guest.describe()["NetworkInterfaces"]
    return Who(
        interface["MacAddress"],
        interface["PrivateIpAddress"],
        interface["Ipv6Addresses"][0]["Ipv6Address"],
        tap_name(interface["NetworkInterfaceId"]),
    )


@dataclass(frozen=True)
class Street:
    """The guest that sends, the one that is to be deceived, and the router between them."""

    guest: Guest
    us: Who
    them: Who
    network: DualStack

    @property
    def router_mac(self) -> str:
        return leg_mac(self.network.subnet)

    @property
    def router_ip(self) -> str:
        return self.network.gateway

    def send(self, *frames: bytes) -> None:
        words = " ".join(base64.b64encode(frame).decode() for frame in frames)
        self.guest.run(f"for f in {words}; do echo $f | base64 -d | sudo /tmp/send || exit 1; done")

    # What is sent, by its parts.

    def to_them(self, mark: bytes, *, mac: str = "", ip: str = "", by: str = "") -> bytes:
        packet = ipv4(ip or self.us.ip, self.them.ip, udp(5000, 5000, mark))
        return ethernet(mac or self.us.mac, by or self.router_mac, 0x0800, packet)

    def to_them6(self, mark: bytes, *, mac: str = "", ip: str = "") -> bytes:
        packet = ipv6(ip or self.us.ip6, self.them.ip6, socket.IPPROTO_UDP, udp(5000, 5000, mark))
        return ethernet(mac or self.us.mac, self.router_mac, 0x86DD, packet)

    def all(self, mark: bytes, message: bytes) -> bytes:
        return ethernet(self.us.mac, BROADCAST, 0x0806, message + mark)

    def icmpv6(self, mark: bytes, source: str, message: bytes, to: str = ALL_NODES, by: str = ALL_NODES_MAC) -> bytes:
        return ethernet(self.us.mac, by, 0x86DD, ipv6(source, to, socket.IPPROTO_ICMPV6, message, mark))

    def broadcast(self, source: str, payload: bytes) -> bytes:
        return ethernet(self.us.mac, BROADCAST, 0x0800, ipv4(source, "255.255.255.255", payload))


class Ear:
    """Hears every frame on a link."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._heard: list[bytes] = []

    def until(self, mark: bytes) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not self.heard(mark):
            assert select.select([self._socket], [], [], max(0.0, ends - time.monotonic()))[0], "it was not heard"
            self._heard.append(self._socket.recv(65536))

    def heard(self, mark: bytes) -> bool:
        label = b"\x86\xdd" + flow(mark)
        return any(mark in frame or frame[12:18] == label for frame in self._heard)


def ear(stack: ExitStack, link: str, namespace: str = "") -> Ear:
    def listen() -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        opened.bind((link, 0))
        return opened

    return Ear(stack.enter_context(inside(namespace, listen) if namespace else listen()))


@pytest.fixture(scope="module")
def street(deployment: Deployment, dual_stack: DualStack) -> Iterator[Street]:
    fleet = Fleet(deployment)
    guests = fleet.launch(2, SubnetId=dual_stack.subnet, SecurityGroupIds=[dual_stack.group], Ipv6AddressCount=1)
    for guest in guests:
        guest.wait_state("running")
        guest.login()
    guest, other = guests
    index = int(guest.run("cat /sys/class/net/eth0/ifindex"))
    program = base64.b64encode(sender(index)).decode()
    guest.run(f"echo {program} | base64 -d >/tmp/send; chmod 755 /tmp/send")
    yield Street(guest, who(guest), who(other), dual_stack)
    fleet.end()


@pytest.fixture
def ears(street: Street) -> Iterator[tuple[Ear, Ear]]:
    """The router's, and the other guest's."""
    with ExitStack() as stack:
        leg = ear(stack, leg_name(street.network.subnet), street.network.vpc)
        yield leg, ear(stack, street.them.tap)


# --- lies, each with the truth that is most like it ----------------------------------------------------------------

Say = Callable[[Street, bytes], bytes]
SOLICITED, OVERRIDE = 0x40000000, 0x20000000


def honest(s: Street, mark: bytes) -> bytes:
    return s.to_them(mark)


def honest6(s: Street, mark: bytes) -> bytes:
    return s.to_them6(mark)


def ask_for_the_router(s: Street, mark: bytes) -> bytes:
    return s.all(mark, arp(1, s.us.mac, s.us.ip, s.router_ip))


def advertise_ourselves(s: Street, mark: bytes) -> bytes:
    return s.icmpv6(mark, s.us.ip6, neighbour(136, OVERRIDE, s.us.ip6, 2, s.us.mac))


def solicit_a_router(s: Street, mark: bytes) -> bytes:
    message = struct.pack("!BBHI", 133, 0, 0, 0) + bytes((1, 1)) + hardware(s.us.mac)
    return s.icmpv6(mark, link_local(s.us.mac), message, ALL_ROUTERS, ALL_ROUTERS_MAC)


def discover(s: Street, mark: bytes) -> bytes:
    return s.broadcast("0.0.0.0", udp(68, 67, bootp(1, s.us.mac, "0.0.0.0", mark)))


def router_advertisement(s: Street) -> bytes:
    return struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + bytes((1, 1)) + hardware(s.us.mac)


THROUGH_THE_ROUTER: dict[str, tuple[Say, Say]] = {
    "another's hardware address": (lambda s, m: s.to_them(m, mac=NOBODY), honest),
    "the neighbour's hardware address": (lambda s, m: s.to_them(m, mac=s.them.mac), honest),
    "an address of the subnet": (lambda s, m: s.to_them(m, ip=str(IPv4Address(s.us.ip) + 100)), honest),
    "the neighbour's own address": (lambda s, m: s.to_them(m, ip=s.them.ip), honest),
    "an address of the world": (lambda s, m: s.to_them(m, ip="198.51.100.7"), honest),
    "the router's address": (lambda s, m: s.to_them(m, ip=s.router_ip), honest),
    "the metadata server's address": (lambda s, m: s.to_them(m, ip=METADATA), honest),
    "the loopback's address": (lambda s, m: s.to_them(m, ip="127.0.0.1"), honest),
    "another's hardware address, IPv6": (lambda s, m: s.to_them6(m, mac=NOBODY), honest6),
    "an IPv6 address of the subnet": (lambda s, m: s.to_them6(m, ip=str(IPv6Address(s.us.ip6) + 100)), honest6),
    "an IPv6 address of the world": (lambda s, m: s.to_them6(m, ip="2001:db8::7"), honest6),
    "the metadata server's IPv6 address": (lambda s, m: s.to_them6(m, ip=METADATA_6), honest6),
}

ON_THE_LINK: dict[str, tuple[Say, Say]] = {
    "an ARP announcement of the neighbour": (
        lambda s, m: s.all(m, arp(1, s.us.mac, s.them.ip, s.them.ip)),
        ask_for_the_router,
    ),
    "an ARP reply for the router": (
        lambda s, m: s.all(m, arp(2, s.us.mac, s.router_ip, s.them.ip)),
        ask_for_the_router,
    ),
    "an ARP reply for the metadata server": (
        lambda s, m: s.all(m, arp(2, s.us.mac, METADATA, s.them.ip)),
        ask_for_the_router,
    ),
    "ARP with another's hardware address": (
        lambda s, m: s.all(m, arp(1, NOBODY, s.us.ip, s.router_ip)),
        ask_for_the_router,
    ),
    "a neighbour advertisement for another": (
        lambda s, m: s.icmpv6(m, s.us.ip6, neighbour(136, OVERRIDE, s.them.ip6, 2, s.us.mac)),
        advertise_ourselves,
    ),
    "a neighbour advertisement from another": (
        lambda s, m: s.icmpv6(m, s.them.ip6, neighbour(136, OVERRIDE, s.them.ip6, 2, s.us.mac)),
        advertise_ourselves,
    ),
    "a neighbour advertisement with another's hardware address": (
        lambda s, m: s.icmpv6(m, s.us.ip6, neighbour(136, OVERRIDE, s.us.ip6, 2, NOBODY)),
        advertise_ourselves,
    ),
    "a neighbour solicitation from another": (
        lambda s, m: s.icmpv6(m, s.them.ip6, neighbour(135, 0, s.us.ip6, 1, s.us.mac)),
        advertise_ourselves,
    ),
    "a router advertisement": (
        lambda s, m: s.icmpv6(m, link_local(s.us.mac), router_advertisement(s)),
        solicit_a_router,
    ),
    "a router advertisement from the router": (
        lambda s, m: s.icmpv6(m, link_local(s.router_mac), router_advertisement(s)),
        solicit_a_router,
    ),
    "a DHCP offer": (
        lambda s, m: s.broadcast(s.us.ip, udp(67, 68, bootp(2, s.them.mac, s.them.ip, m))),
        discover,
    ),
    "a DHCP offer from the router": (
        lambda s, m: s.broadcast(s.router_ip, udp(67, 68, bootp(2, s.them.mac, s.them.ip, m))),
        discover,
    ),
    "a DHCPv6 reply": (
        lambda s, m: ethernet(
            s.us.mac,
            s.router_mac,
            0x86DD,
            ipv6(link_local(s.us.mac), link_local(s.them.mac), socket.IPPROTO_UDP, udp(547, 546, m)),
        ),
        advertise_ourselves,
    ),
}


def marks() -> tuple[bytes, bytes]:
    return secrets.token_bytes(MARK_BYTES), secrets.token_bytes(MARK_BYTES)


@pytest.mark.parametrize("name", THROUGH_THE_ROUTER)
def test_nobody_gets_a_packet_that_claims_to_come_from(street: Street, ears: tuple[Ear, Ear], name: str) -> None:
    leg, theirs = ears
    lie, truth = THROUGH_THE_ROUTER[name]
    forged, true = marks()
    street.send(lie(street, forged), truth(street, true))
    for each in (leg, theirs):
        each.until(true)
        assert not each.heard(forged)


@pytest.mark.parametrize("name", ON_THE_LINK)
def test_nobody_hears(street: Street, ears: tuple[Ear, Ear], name: str) -> None:
    leg, theirs = ears
    lie, truth = ON_THE_LINK[name]
    forged, true = marks()
    last = secrets.token_bytes(MARK_BYTES)
    street.send(lie(street, forged), truth(street, true), street.to_them(last))
    leg.until(true)
    theirs.until(last)
    assert not leg.heard(forged)
    assert not theirs.heard(forged)
    assert not theirs.heard(true)  # it is for the router: neighbours hear nothing of each other


def test_there_is_no_way_past_the_router(street: Street, ears: tuple[Ear, Ear]) -> None:
    _, theirs = ears
    straight, round_about = marks()
    street.send(street.to_them(straight, by=street.them.mac), street.to_them(round_about))
    theirs.until(round_about)
    assert not theirs.heard(straight)


def test_the_ears_hear_and_the_guest_really_sends(street: Street) -> None:
    """Else silence would prove nothing: on the guest's own tap, lies are heard as well."""
    with ExitStack() as stack:
        own = ear(stack, street.us.tap)
        lies = [(lie, os.urandom(MARK_BYTES)) for lie, _ in (*THROUGH_THE_ROUTER.values(), *ON_THE_LINK.values())]
        street.send(*(lie(street, mark) for lie, mark in lies))
        for _, mark in lies:
            own.until(mark)

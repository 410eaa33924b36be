"""Frames against the guard: a bridge with a tap and a router's plug, and nobody but this test at their other ends.

Each frame goes twice: where the guard and the bridge see all, and where shortcuts take from them what they may.
"""

from __future__ import annotations

import secrets
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pytest

from orchestrator.host import Port, Router, Segment, bpf, ruleset, shortcut
from orchestrator.host.command import inside, ip, run, write_sysctls
from orchestrator.host.links import bridge_name, leg_mac, plug_name, tap_name
from orchestrator.host.netlink import links
from orchestrator.host.nft_tables import Tables

pytestmark = pytest.mark.host

ETH_P_ALL = 3
SEGMENT = Segment(name="subnet-0a", cidr="10.0.0.0/24", gateway="10.0.0.1", ipv6_cidr="fd00:1::/64")
MAC, OTHER_MAC, ROUTER_MAC = "02:00:00:00:00:0a", "02:00:00:00:00:0b", leg_mac(SEGMENT.name)
OWN, OWN6, OWN_LINK = "10.0.0.10", "fd00:1::10", "fe80::ff:fe00:a"
RESOLVER = "10.0.0.2"
OTHER, OTHER6 = "10.0.0.11", "fd00:1::11"
ALL6 = "33:33:00:00:00:01"
EVERYBODY = "ff:ff:ff:ff:ff:ff"
PATIENCE_S = 5.0
MARK = b"the last of this test"


def port(name: str, mac: str, *, check: bool = True, ipv6: bool = True, translator: bool = False) -> Port:
    return Port(
        name=name,
        segment=SEGMENT.name,
        mac=mac,
        address=OWN,
        more_addresses=("10.0.0.32/28",),
        ipv6_addresses=(OWN6,) if ipv6 else (),
        host_name="guest",
        check_addresses=check,
        translator=translator,
    )


@dataclass(frozen=True)
class Link:
    """Both ends of the bridge, as packet sockets."""

    guest: socket.socket
    router: socket.socket

    def passes(self, frame: bytes) -> bool:
        return self._carries(self.guest, self.router, frame, ipv4(OWN, OTHER, 9, 9, MAC, OTHER_MAC, MARK))

    def reaches(self, frame: bytes) -> bool:
        return self._carries(self.router, self.guest, frame, ipv4(OTHER, OWN, 9, 9, ROUTER_MAC, EVERYBODY, MARK))

    def _carries(self, source: socket.socket, target: socket.socket, frame: bytes, last: bytes) -> bool:
        """Whether the frame comes out before `last`, which always does, and by the bridge."""
        source.send(frame)
        source.send(last)
        if frame[12:14] == b"\x81\x00":  # the kernel takes the tag out for whoever listens
            frame = frame[:12] + frame[16:]
        found = False
        deadline = time.monotonic() + PATIENCE_S
        while select.select([target], [], [], max(0.0, deadline - time.monotonic()))[0]:
            data, (_, _, kind, *_) = target.recvfrom(4096)
            if kind == socket.PACKET_OUTGOING:
                continue
            if MARK in data:
                return found
            found = found or data.startswith(frame)
        raise AssertionError("the last frame did not come out")


@pytest.fixture(scope="module")
def stage() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def plug_in(stage: ExitStack, guarded: Port, *, shortcuts: bool = False) -> Link:
    """In a namespace of its own, and the leg in another."""
    namespace = f"orctest-{secrets.token_hex(4)}"
    beyond = f"{namespace}-leg"
    for name in (namespace, beyond):
        run(["ip", "netns", "add", name])
        stage.callback(run, ["ip", "netns", "delete", name])
    tap, bridge, plug = tap_name(guarded.name), bridge_name(SEGMENT.name), plug_name(SEGMENT.name)

    def make() -> Link:
        write_sysctls(_NO_IPV6)
        plan = Router(
            name="vpc-0a",
            cidrs=("10.0.0.0/16",),
            segments=(SEGMENT,),
            ports=(guarded,),
            policies=(),
            domain="ec2.internal",
            resolver=RESOLVER,
        )
        share = ruleset.read_share(ruleset.guard_elements("0f3c5a7e", plan))
        Tables().load(namespace, ruleset.guard("0f3c5a7e", {plan.name: share}))
        ip(
            [
                f"link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"link add {tap} type veth peer name guest",
                f"link add {plug} type veth peer name leg address {ROUTER_MAC} netns {beyond}",
                *(f"link set {name} master {bridge}" for name in (tap, plug)),
                *(f"link set {name} arp off up" for name in (bridge, tap, plug, "guest")),
            ]
        )
        inside(beyond, lambda: write_sysctls(_NO_IPV6))
        inside(beyond, lambda: ip(["link set leg arp off up"]))
        if shortcuts:
            shortcut.Shortcuts().hold(plan, links())
            assert all(bpf.attached(links()[name].index) for name in (tap, plug))
        leg = inside(beyond, lambda: listening("leg"))
        return Link(stage.enter_context(listening("guest")), stage.enter_context(leg))

    return inside(namespace, make)


_NO_IPV6 = {"ipv6/conf/all/disable_ipv6": "1", "ipv6/conf/default/disable_ipv6": "1"}


def listening(link: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    made.bind((link, ETH_P_ALL))
    return made


@pytest.fixture(scope="module", params=[False, True], ids=["bridge", "shortcuts"])
def shortcuts(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def guest(stage: ExitStack, shortcuts: bool) -> Link:
    return plug_in(stage, port("eni-0a", MAC), shortcuts=shortcuts)


@pytest.fixture(scope="module")
def unchecked(stage: ExitStack, shortcuts: bool) -> Link:
    return plug_in(stage, port("eni-0a", MAC, check=False), shortcuts=shortcuts)


# --- frames --------------------------------------------------------------------------------------------------------


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(
    source: str, target: str, from_port: int, to_port: int, sender: str, receiver: str, payload: bytes = b"1234"
) -> bytes:
    udp = struct.pack("!HHHH", from_port, to_port, 8 + len(payload), 0) + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
    head += IPv4Address(source).packed + IPv4Address(target).packed
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return mac(receiver) + mac(sender) + b"\x08\x00" + head + udp


def own(
    source: str, target: str, from_port: int, to_port: int, *, payload: bytes = b"1234", sender: str = MAC
) -> bytes:
    return ipv4(source, target, from_port, to_port, sender, ROUTER_MAC, payload)


def arp(operation: int, sender: str, address: str, asked: str, *, frame: str = MAC, receiver: str = EVERYBODY) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac(sender) + IPv4Address(address).packed
    return mac(receiver) + mac(frame) + b"\x08\x06" + body + bytes(6) + IPv4Address(asked).packed + bytes(18)


def ipv6(
    source: str,
    target: str,
    protocol: int,
    body: bytes,
    *,
    sender: str = MAC,
    receiver: str = ALL6,
    hops: int = 255,
    extension: tuple[int, bytes] | None = None,
) -> bytes:
    addresses = IPv6Address(source).packed + IPv6Address(target).packed
    at = 2 if protocol == 58 else 6
    body = body[:at] + bytes(2) + body[at + 2 :]
    pseudo = addresses + struct.pack("!IHBB", len(body), 0, 0, protocol)
    body = body[:at] + struct.pack("!H", checksum(pseudo + body)) + body[at + 2 :]
    first, more = extension or (protocol, b"")
    head = struct.pack("!IHBB", 6 << 28, len(more) + len(body), first, hops)
    return mac(receiver) + mac(sender) + b"\x86\xdd" + head + addresses + more + body


def udp6(source: str, from_port: int, to_port: int, *, target: str = "ff02::1:2", receiver: str = ALL6) -> bytes:
    body = struct.pack("!HHHH", from_port, to_port, 12, 0) + b"1234"
    sender = MAC if receiver == ALL6 else ROUTER_MAC
    return ipv6(source, target, 17, body, sender=sender, receiver=receiver)


def option(kind: int, address: str) -> bytes:
    return bytes([kind, 1]) + mac(address)


def solicit(target: str, *options: bytes) -> bytes:
    return bytes([135]) + bytes(7) + IPv6Address(target).packed + b"".join(options)


def advertise(target: str, *options: bytes) -> bytes:
    return bytes([136, 0, 0, 0, 0x60, 0, 0, 0]) + IPv6Address(target).packed + b"".join(options)


ROUTER_SOLICIT = bytes([133]) + bytes(7)
ROUTER_ADVERT = bytes([134, 0, 0, 0, 64, 0, 7, 8]) + bytes(8)
REDIRECT = bytes([137]) + bytes(39)
NONCE = bytes([14, 1, 1, 2, 3, 4, 5, 6])
PADDING = bytes([58, 0, 1, 4, 0, 0, 0, 0])
FRAGMENT = bytes([58, 0, 0, 1, 0, 0, 0, 1])
TO_ALL = "ff02::1"

# --- from a guest --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        own(OWN, OTHER, 1, 2),
        own("10.0.0.33", OTHER, 1, 2),
        own("10.0.0.47", OTHER, 1, 2),
        ipv4("0.0.0.0", "255.255.255.255", 68, 67, MAC, EVERYBODY),
        arp(1, MAC, OWN, OTHER),
        arp(1, MAC, "0.0.0.0", OWN),
        arp(2, MAC, "10.0.0.40", OTHER),
        udp6(OWN6, 1, 2),
        udp6(OWN_LINK, 546, 547),
        ipv6(OWN6, TO_ALL, 58, solicit(OTHER6, option(1, MAC))),
        ipv6(OWN_LINK, TO_ALL, 58, solicit("fe80::1", option(1, MAC))),
        ipv6(OWN_LINK, TO_ALL, 58, solicit("fe80::1")),
        ipv6("::", TO_ALL, 58, solicit(OWN6)),
        ipv6("::", TO_ALL, 58, solicit(OWN_LINK, NONCE)),
        ipv6(OWN6, TO_ALL, 58, advertise(OWN6, option(2, MAC))),
        ipv6(OWN_LINK, TO_ALL, 58, advertise(OWN6)),
        ipv6("::", "ff02::2", 58, ROUTER_SOLICIT),
        ipv6(OWN_LINK, "ff02::2", 58, ROUTER_SOLICIT + option(1, MAC)),
    ],
)
def test_what_is_its_own_passes(guest: Link, frame: bytes) -> None:
    assert guest.passes(frame)


FORGED = {
    "hardware address": own(OWN, OTHER, 1, 2, sender=OTHER_MAC),
    "address": own(OTHER, "10.0.0.12", 1, 2),
    "address beside its range": own("10.0.0.48", OTHER, 1, 2),
    "metadata": own("169.254.169.254", OTHER, 80, 2),
    "router": own(SEGMENT.gateway, OTHER, 1, 2),
    "resolver": own(RESOLVER, OTHER, 53, 2),
    "everybody": own("10.0.0.255", OTHER, 1, 2),
    "DHCP server": ipv4(OWN, "255.255.255.255", 67, 68, MAC, EVERYBODY),
    "ARP address": arp(2, MAC, OTHER, "10.0.0.12"),
    "ARP metadata": arp(2, MAC, "169.254.169.254", "10.0.0.12"),
    "ARP hardware address": arp(1, OTHER_MAC, OWN, OTHER),
    "ARP frame": arp(1, MAC, OWN, OTHER, frame=OTHER_MAC),
    "ARP reply from nowhere": arp(2, MAC, "0.0.0.0", OTHER),
    "IPv6 address": udp6(OTHER6, 1, 2),
    "IPv6 link-local": udp6("fe80::1", 1, 2),
    "IPv6 metadata": udp6("fd00:ec2::254", 1, 2),
    "IPv6 nowhere": udp6("::", 546, 547),
    "DHCPv6 server": udp6(OWN_LINK, 547, 546),
    "solicitation's source": ipv6(OTHER6, TO_ALL, 58, solicit("fe80::1", option(1, MAC))),
    "solicitation's option": ipv6(OWN6, TO_ALL, 58, solicit("fe80::1", option(1, OTHER_MAC))),
    "solicitation's second option": ipv6(OWN6, TO_ALL, 58, solicit("fe80::1", option(1, MAC), option(1, OTHER_MAC))),
    "solicitation from afar": ipv6(OWN6, TO_ALL, 58, solicit("fe80::1", option(1, MAC)), hops=64),
    "detection of another's": ipv6("::", TO_ALL, 58, solicit(OTHER6)),
    "detection with an option": ipv6("::", TO_ALL, 58, solicit(OWN6, option(1, MAC))),
    "advertisement's target": ipv6(OWN6, TO_ALL, 58, advertise(OTHER6, option(2, MAC))),
    "advertised router": ipv6(OWN6, TO_ALL, 58, advertise("fe80::1", option(2, MAC))),
    "advertised metadata": ipv6(OWN6, TO_ALL, 58, advertise("fd00:ec2::254", option(2, MAC))),
    "advertisement's option": ipv6(OWN6, TO_ALL, 58, advertise(OWN6, option(2, OTHER_MAC))),
    "advertisement's source": ipv6(OTHER6, TO_ALL, 58, advertise(OWN6, option(2, MAC))),
    "advertisement behind a header": ipv6(OWN6, TO_ALL, 58, advertise(OTHER6), extension=(60, PADDING)),
    "router solicitation's option": ipv6(OWN_LINK, "ff02::2", 58, ROUTER_SOLICIT + option(1, OTHER_MAC)),
    "router advertisement": ipv6(OWN_LINK, TO_ALL, 58, ROUTER_ADVERT),
    "router advertisement behind a header": ipv6(OWN_LINK, TO_ALL, 58, ROUTER_ADVERT, extension=(0, PADDING)),
    "router advertisement in a fragment": ipv6(OWN_LINK, TO_ALL, 58, ROUTER_ADVERT, extension=(44, FRAGMENT)),
    "redirect": ipv6(OWN_LINK, TO_ALL, 58, REDIRECT),
    "VLAN": own(OWN, OTHER, 1, 2)[:12] + b"\x81\x00\x00\x05" + own(OWN, OTHER, 1, 2)[12:],
    "other protocol": mac(ROUTER_MAC) + mac(MAC) + b"\x88\xcc" + bytes(50),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_is_forged_is_dropped(guest: Link, what: str) -> None:
    assert not guest.passes(FORGED[what])


NEVER = [
    "hardware address",
    "metadata",
    "router",
    "resolver",
    "everybody",
    "ARP metadata",
    "ARP address",
    "DHCP server",
    "DHCPv6 server",
    "IPv6 link-local",
    "IPv6 metadata",
    "advertisement's target",
    "router advertisement",
    "redirect",
]


def test_a_port_that_is_not_checked_sends_for_others(unchecked: Link) -> None:
    assert unchecked.passes(own(OTHER, "10.0.0.12", 1, 2))
    assert unchecked.passes(own("192.0.2.1", "10.0.0.12", 1, 2))
    assert unchecked.passes(udp6("2001:db8::1", 1, 2))


@pytest.mark.parametrize("what", NEVER)
def test_a_port_that_is_not_checked_is_held_to_the_rest(unchecked: Link, what: str) -> None:
    assert not unchecked.passes(FORGED[what])


def test_a_translator_hands_back_what_others_sent(stage: ExitStack) -> None:
    translator = plug_in(stage, port("eni-0a", MAC, translator=True))
    assert translator.passes(own("192.0.2.1", "10.0.0.12", 1, 2))
    assert not translator.passes(FORGED["resolver"])
    assert not translator.passes(FORGED["metadata"])


def test_without_an_ipv6_address_there_is_no_ipv6(stage: ExitStack) -> None:
    guest = plug_in(stage, port("eni-0a", MAC, ipv6=False))
    assert guest.passes(own(OWN, OTHER, 1, 2))
    assert not guest.passes(udp6(OWN_LINK, 546, 547))
    assert not guest.passes(ipv6("::", TO_ALL, 58, solicit(OWN_LINK)))


# --- to a guest ----------------------------------------------------------------------------------------------------


def router_says(body: bytes, target: str = TO_ALL, receiver: str = ALL6) -> bytes:
    return ipv6("fe80::1", target, 58, body, sender=ROUTER_MAC, receiver=receiver)


@pytest.mark.parametrize(
    ("frame", "reaches"),
    [
        (ipv4(OTHER, OWN, 1, 2, ROUTER_MAC, MAC), True),
        (ipv4(OTHER, "10.0.0.35", 1, 2, ROUTER_MAC, MAC), True),
        (ipv4(OTHER, "10.0.0.12", 1, 2, ROUTER_MAC, MAC), False),
        (ipv4(OTHER, "10.0.0.12", 1, 2, ROUTER_MAC, OTHER_MAC), False),
        (ipv4("10.0.0.1", "255.255.255.255", 67, 68, ROUTER_MAC, EVERYBODY), True),
        (ipv4("10.0.0.1", "255.255.255.255", 53, 53, ROUTER_MAC, EVERYBODY), False),
        (arp(1, ROUTER_MAC, "10.0.0.1", OWN, frame=ROUTER_MAC), True),
        (arp(1, ROUTER_MAC, "10.0.0.1", OTHER, frame=ROUTER_MAC), False),
        (arp(2, ROUTER_MAC, "10.0.0.1", OWN, frame=ROUTER_MAC, receiver=MAC), True),
        (udp6("2001:db8::1", 1, 2, target=OWN6, receiver=MAC), True),
        (udp6("fe80::1", 547, 546, target=OWN_LINK, receiver=MAC), True),
        (udp6("2001:db8::1", 1, 2, target=OTHER6, receiver=MAC), False),
        (router_says(ROUTER_ADVERT), True),
        (router_says(solicit(OWN6), "ff02::1:ff00:10", "33:33:ff:00:00:10"), True),
        (router_says(solicit(OTHER6), "ff02::1:ff00:11", "33:33:ff:00:00:11"), False),
        (router_says(REDIRECT), False),
    ],
)
def test_a_guest_is_handed_what_is_for_it(guest: Link, frame: bytes, reaches: bool) -> None:
    assert guest.reaches(frame) is reaches


def test_a_port_that_is_not_checked_is_handed_what_is_for_others(unchecked: Link) -> None:
    assert unchecked.reaches(ipv4(OTHER, "192.0.2.1", 1, 2, ROUTER_MAC, MAC))
    assert not unchecked.reaches(ipv4(OTHER, "192.0.2.1", 1, 2, ROUTER_MAC, OTHER_MAC))

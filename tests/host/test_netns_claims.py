"""What a guest may claim to be: frames that it really sends, and who hears them."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import closing

import pytest

from orchestrator.host.command import run
from orchestrator.host.links import bridge_name, leg_name, plug_name
from tests.host.stage import (
    HOST_ADDRESS,
    OTHER_MAC,
    RA,
    SILENCE_S,
    Guest,
    Plan,
    arp,
    batch,
    datagram,
    edge_of,
    ethernet,
    heard_until,
    is_blocked,
    mac_of_leg,
    there,
    token,
    udp_socket,
    wire,
)

pytestmark = pytest.mark.host


def frames(me: Guest, other: Guest, gateway_mac: str) -> dict[str, tuple[bool, bytes]]:
    """Whether the router may hear it, and the frame, which a token is appended to."""

    def ip(source: str, target: str, source_port: int, target_port: int, mac: str = me.mac) -> bytes:
        return ethernet(mac, 0x800, datagram(source, target, source_port, target_port), gateway_mac)

    def broadcast(source: str, source_port: int, target_port: int) -> bytes:
        return ethernet(me.mac, 0x800, datagram(source, "255.255.255.255", source_port, target_port))

    tagged = struct.pack(">2H", 5, 0x800) + datagram(me.address, other.address, 1000, 1000)
    return {
        "own addresses": (True, ip(me.address, other.address, 1000, 1000)),
        "own arp": (True, ethernet(me.mac, 0x806, arp(me.mac, me.address, other.address))),
        "arp probe": (True, ethernet(me.mac, 0x806, arp(me.mac, "0.0.0.0", me.address))),
        "dhcp client": (True, broadcast("0.0.0.0", 68, 67)),
        "mac of nobody": (False, ip(me.address, other.address, 1000, 1000, OTHER_MAC)),
        "mac of a guest": (False, ip(me.address, other.address, 1000, 1000, other.mac)),
        "address of nobody": (False, ip("172.31.0.99", other.address, 1000, 1000)),
        "address of a guest": (False, ip(other.address, me.gateway, 1000, 1000)),
        "address of the router": (False, ip(me.gateway, other.address, 1000, 1000)),
        "address of the metadata server": (False, ip("169.254.169.254", other.address, 80, 1000)),
        "no address": (False, broadcast("0.0.0.0", 1000, 1000)),
        "arp with another address": (False, ethernet(me.mac, 0x806, arp(me.mac, other.address, me.gateway))),
        "arp with another mac": (False, ethernet(me.mac, 0x806, arp(OTHER_MAC, me.address, me.gateway))),
        "arp for the router": (False, ethernet(me.mac, 0x806, arp(me.mac, me.gateway, other.address, operation=2))),
        "arp answer from nobody": (False, ethernet(me.mac, 0x806, arp(me.mac, "0.0.0.0", me.address, operation=2))),
        "dhcp server": (False, broadcast(me.address, 67, 68)),
        "dhcp server to one": (False, ip(me.address, other.address, 67, 68)),
        "ipv6": (False, ethernet(me.mac, 0x86DD, RA, "33:33:00:00:00:01")),
        "vlan": (False, ethernet(me.mac, 0x8100, tagged, gateway_mac)),
        "lldp": (False, ethernet(me.mac, 0x88CC, bytes(46), "01:80:c2:00:00:0e")),
        "spanning tree": (False, ethernet(me.mac, 38, bytes(38), "01:80:c2:00:00:00")),
    }


def test_a_guest_speaks_for_itself_only(plan: Plan) -> None:
    me, other = plan.guest(10), plan.guest(11)
    cases = frames(me, other, mac_of_leg(plan))
    with wire(me, "eth0") as mine, wire(plan.name, leg_name(plan.segments[0].name)) as leg, wire(other, "eth0") as far:
        tokens = {name: token() for name in cases}
        for name, (_, frame) in cases.items():
            mine.send(frame + tokens[name])
        marker = token()
        mine.send(cases["own arp"][1] + marker)
        heard = heard_until(leg, marker)
        assert {name for name in cases if tokens[name] in heard} == {name for name, (may, _) in cases.items() if may}
        # A guest hears what passed the router, and nothing of what others put on the wire.
        marker = token()
        mine.send(cases["own addresses"][1] + marker)
        heard = heard_until(far, marker)
        assert {name for name in cases if tokens[name] in heard} == {"own addresses"}


def test_a_guest_hears_only_what_is_for_it(plan: Plan) -> None:
    me, other = plan.guest(10), plan.guest(11)
    leg_link, gateway_mac = leg_name(plan.segments[0].name), mac_of_leg(plan)
    packet = datagram(me.gateway, other.address, 1000, 1000)
    for_other, unknown, marker = token(), token(), token()
    with wire(me, "eth0") as mine, wire(plan.name, leg_link) as leg:
        leg.send(ethernet(gateway_mac, 0x806, arp(gateway_mac, me.gateway, other.address)) + for_other)
        leg.send(ethernet(gateway_mac, 0x800, packet, OTHER_MAC) + unknown)
        leg.send(ethernet(gateway_mac, 0x806, arp(gateway_mac, me.gateway, me.address)) + marker)
        heard = heard_until(mine, marker)
        assert for_other not in heard
        assert unknown not in heard


def test_a_port_without_address_check_forwards_for_others(plan: Plan) -> None:
    me = plan.guest(10, check_addresses=False)
    other = plan.guest(11)
    cases = frames(me, other, mac_of_leg(plan))
    now_heard = {"address of nobody", "address of a guest"}
    with wire(me, "eth0") as mine, wire(plan.name, leg_name(plan.segments[0].name)) as leg:
        tokens = {name: token() for name in cases}
        for name, (_, frame) in cases.items():
            mine.send(frame + tokens[name])
        marker = token()
        mine.send(cases["own arp"][1] + marker)
        heard = heard_until(leg, marker)
    wanted = {name for name, (may, _) in cases.items() if may} | now_heard
    assert {name for name in cases if tokens[name] in heard} == wanted


def test_isolation_does_not_hang_on_the_taps_flag(plan: Plan) -> None:
    one, other = plan.guest(10), plan.guest(11)
    for guest in (one, other):
        batch(f"link set {guest.tap} type bridge_slave isolated off")
    secret, marker = token(), token()
    with wire(one, "eth0") as mine, wire(other, "eth0") as far:
        mine.send(ethernet(one.mac, 0x800, datagram(one.address, other.address, 1000, 1000), other.mac) + secret)
        mine.send(ethernet(one.mac, 0x800, datagram(one.address, other.address, 1000, 1000), mac_of_leg(plan)) + marker)
        assert secret not in heard_until(far, marker)


def test_the_host_speaks_no_ipv6_on_the_segment(plan: Plan) -> None:
    plan.guest(10)
    for link in (bridge_name(plan.segments[0].name), plug_name(plan.segments[0].name), edge_of(plan)):
        assert "inet6" not in run(["ip", "address", "show", "dev", link])


def test_the_host_is_not_on_the_segment(plan: Plan) -> None:
    """The bridge is in the host's namespace; frames sent to its own hardware address, or ARP, must not get there."""
    guest = plan.guest(10)
    bridge = bridge_name(plan.segments[0].name)
    mac = json.loads(run(["ip", "-j", "link", "show", "dev", bridge]))[0]["address"]
    guest.run("ip", "neigh", "replace", guest.gateway, "lladdr", mac, "dev", "eth0", "nud", "permanent")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening,
        closing(there(guest, udp_socket)) as sending,
    ):
        listening.bind(("", 9))
        listening.settimeout(SILENCE_S)
        sending.sendto(b"hello", (HOST_ADDRESS, 9))
        with pytest.raises(TimeoutError):
            listening.recv(16)


def test_a_stranger_on_the_bridge_gets_nothing(plan: Plan) -> None:
    guest, server = plan.guest(10), plan.guest(11)
    stranger = plan.stranger(guest)
    stranger.run("ip", "link", "set", "eth0", "address", OTHER_MAC)
    with closing(plan.network.listen(plan.name, "169.254.169.254", 80)), pytest.raises(TimeoutError):
        there(stranger, lambda: socket.create_connection(("169.254.169.254", 80), SILENCE_S)).close()
    assert is_blocked(stranger, server, server.address)

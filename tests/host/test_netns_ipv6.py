"""IPv6 from end to end: what guests are told, and where their packets go."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

import pytest

from orchestrator.host import Allow, Dhcp, HostError, Peering, Policy, Record, Route, Way
from orchestrator.host.command import inside, run, write_sysctls
from orchestrator.host.dnsmasq import Dnsmasq
from orchestrator.host.links import edge_name, leg_address, leg_mac
from orchestrator.host.netns import NetnsNetwork
from tests.host.stage import (
    PATIENCE_S,
    UP,
    Guest,
    Plan,
    batch,
    dnsmasqs,
    is_blocked,
    make_network,
    new_id,
    only,
    resolve,
    tcp,
    tcp_listener,
    there,
)

pytestmark = pytest.mark.host

RANGE = IPv6Network("2001:db8:ec00::/40")
HOST_ADDRESS = "2001:db8:ec00::1"
OPEN6 = Policy(
    name=new_id("sg"),
    inbound=(Allow(protocol="-1", peer_cidr="::/0"), Allow(protocol="-1", peer_cidr="0.0.0.0/0")),
    outbound=(Allow(protocol="-1", peer_cidr="::/0"), Allow(protocol="-1", peer_cidr="0.0.0.0/0")),
)
OUTWARD = Route(destination="::/0", way=Way.OUTWARD)


@pytest.fixture
def network(stage: ExitStack, tmp_path: Path) -> NetnsNetwork:
    return make_network(stage, tmp_path / "run", ipv6_range=RANGE)


@pytest.fixture
def plan(network: NetnsNetwork, stage: ExitStack) -> Plan:
    return Plan(network, stage, ipv6_cidr="2001:db8:ec00:100::/56", policies=(OPEN6,))


@pytest.fixture
def other_plan(network: NetnsNetwork, stage: ExitStack) -> Plan:
    return Plan(network, stage, cidr="10.7.0.0/16", ipv6_cidr="2001:db8:ec00:200::/56", policies=(OPEN6,))


# --- what guests are told ------------------------------------------------------------------------------------------


def solicit_router(guest: Guest) -> tuple[str, bytes]:
    """Ask for routers, and hear one: its address and its advertisement."""

    def make() -> socket.socket:
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
        return raw

    with there(guest, make) as raw:
        raw.settimeout(PATIENCE_S)
        raw.sendto(b"\x85" + bytes(7), ("ff02::2", 0))
        while True:
            message, (source, *_) = raw.recvfrom(2048)
            if message[0] == 134:
                return str(source).partition("%")[0], message


def options(message: bytes, *, unit: int) -> Iterator[tuple[int, bytes]]:
    """Of an advertisement (a unit of 8 octets) or of DHCPv6 (a unit of 1: type and length have two octets each)."""
    while message:
        kind, length = struct.unpack_from("!BB" if unit == 8 else "!HH", message)
        head, end = (2, length * 8) if unit == 8 else (4, length + 4)
        yield kind, message[head:end]
        message = message[end:]


def dhcpv6(guest: Guest, *, mac: str = "") -> dict[int, bytes]:
    """Solicit and request an address, as a client that knows itself by its hardware address. The reply's options."""
    identity = struct.pack("!HH", 3, 1) + bytes.fromhex((mac or guest.mac).replace(":", ""))

    def option(kind: int, data: bytes) -> bytes:
        return struct.pack("!HH", kind, len(data)) + data

    mine = option(1, identity) + option(8, bytes(2)) + option(6, struct.pack("!3H", 23, 24, 56))
    association = option(3, struct.pack("!3I", 7, 0, 0))

    def make() -> socket.socket:
        opened = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex("eth0"))
        opened.bind(("::", 546, 0, socket.if_nametoindex("eth0")))
        return opened

    with there(guest, make) as asking:

        def ask(kind: int, *more: bytes) -> dict[int, bytes]:
            asking.settimeout(1)
            for _ in range(5):  # as clients do, in case that the server does not know them yet
                asking.sendto(struct.pack("!I", kind << 24 | 0xABCDE) + mine + b"".join(more), ("ff02::1:2", 547))
                try:
                    return dict(options(asking.recv(2048)[4:], unit=1))
                except TimeoutError:
                    continue
            raise TimeoutError("no answer")

        offered = ask(1, association)
        return ask(3, option(2, offered[2]), option(3, offered[3]))


def given_address(reply: dict[int, bytes]) -> tuple[str, int]:
    """The address and how long it may be preferred, in seconds."""
    inner = dict(options(reply[3][12:], unit=1))
    return str(IPv6Address(inner[5][:16])), int(struct.unpack_from("!I", inner[5], 16)[0])


def test_a_router_advertises_itself_and_no_neighbours(plan: Plan) -> None:
    guest = plan.guest(10)
    segment = plan.segments[0]
    source, message = solicit_router(guest)
    assert source == leg_address(segment.name)
    assert message[5] & 0x80  # addresses are managed, by DHCPv6
    assert struct.unpack_from("!H", message, 6)[0] > 0  # it is a way to all others
    told = dict(options(message[16:], unit=8))
    assert told[1] == bytes.fromhex(leg_mac(segment.name).replace(":", ""))
    assert 3 not in told or told[3][1] & 0xC0 == 0  # the prefix is neither on the link nor for addresses of one's own


def test_a_kernel_takes_the_router_and_makes_no_address(plan: Plan) -> None:
    guest = plan.guest(10)
    guest.run("ip", "-6", "route", "delete", "default")

    def accept() -> None:
        Path("/proc/sys/net/ipv6/conf/eth0/accept_ra").write_text("2")

    inside(guest.namespace, accept)
    solicit_router(guest)
    told = json.loads(guest.run("ip", "-j", "-6", "route", "show", "default"))
    assert [(each["gateway"], each["protocol"]) for each in told] == [(leg_address(plan.segments[0].name), "ra")]
    addresses = json.loads(guest.run("ip", "-j", "-6", "address", "show", "dev", "eth0", "scope", "global"))
    own = [each["local"] for link in addresses for each in link.get("addr_info", ()) if each]
    assert own == [guest.ipv6_address]
    assert "2001:db8:ec00:100::/64" not in guest.run("ip", "-6", "route")


@pytest.mark.parametrize("segment", [0, 1])
def test_dhcpv6_gives_the_assigned_address(plan: Plan, segment: int) -> None:
    plan.more["dhcp"] = Dhcp(
        domain="ec2.internal", servers=(plan.resolver,), ntp_servers=("fd00:ec2::123",), ipv6_lease_s=3600
    )
    guest = plan.guest(77, segment=segment)
    plan.guest(78, segment=segment)
    reply = dhcpv6(guest)
    assert given_address(reply) == (guest.ipv6_address, 3600)
    assert IPv6Address(reply[23]) == IPv6Address("fd00:ec2::253")
    assert b"\x03ec2\x08internal\0" in reply[24]
    assert IPv6Address("fd00:ec2::123").packed in reply[56]


def test_dhcpv6_knows_a_guest_by_its_own_mac_only(plan: Plan) -> None:
    """Whatever it says of itself: the guard sees to its link-local address, and by that the server finds its MAC."""
    guest, other = plan.guest(10), plan.guest(11)
    assert given_address(dhcpv6(guest, mac=other.mac))[0] == guest.ipv6_address


def test_a_port_that_came_later_gets_its_address(plan: Plan) -> None:
    dhcpv6(plan.guest(10))
    later = plan.guest(11)
    assert given_address(dhcpv6(later))[0] == later.ipv6_address


def test_a_lease_whose_address_was_taken_ends_although_the_first_try_was_cut_off(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = plan.guest(10)
    dhcpv6(guest)
    before = dnsmasqs(tmp_path / "run")

    def cut_off(_: Dnsmasq) -> None:
        raise HostError("cut off")

    with monkeypatch.context() as patch, pytest.raises(HostError, match="cut off"):
        patch.setattr(Dnsmasq, "stop", cut_off)
        plan.change(guest, ipv6_addresses=())
    assert dnsmasqs(tmp_path / "run") == before
    plan.apply()
    assert not set(dnsmasqs(tmp_path / "run")) & set(before)


def test_names_resolve_by_ipv6(plan: Plan) -> None:
    guest = plan.guest(10)
    plan.more["records"] = (Record(name="i-1.ec2.internal", address=guest.ipv6_address),)
    plan.apply()
    deadline, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not resolve(guest, "i-1.ec2.internal", "fd00:ec2::253", kind=28) and time.monotonic() < deadline:
        pause.wait(0.01)  # it reads its tables when it comes to it
    assert resolve(guest, "i-1.ec2.internal", "fd00:ec2::253", kind=28) == [guest.ipv6_address]
    assert resolve(guest, "i-1.ec2.internal", "172.31.0.2", kind=28) == [guest.ipv6_address]
    reverse = IPv6Address(guest.ipv6_address).reverse_pointer
    assert resolve(guest, reverse, "fd00:ec2::253", kind=12) == ["i-1.ec2.internal"]


def test_metadata_is_asked_by_ipv6(plan: Plan) -> None:
    guest = plan.guest(10, only(outbound=()))
    plan.policies = (*plan.policies, only(name=guest.port.policies[0], outbound=()))
    plan.apply()
    with plan.network.listen(plan.name, "fd00:ec2::254", 80) as listener:
        listener.settimeout(PATIENCE_S)
        with there(guest, lambda: socket.create_connection(("fd00:ec2::254", 80), PATIENCE_S)):
            connection, (peer, *_) = listener.accept()
            connection.close()
            assert peer == guest.ipv6_address


def test_connect_goes_by_ipv6_too(plan: Plan) -> None:
    guest = plan.guest(10, OPEN6)
    with (
        tcp_listener(guest, 22) as listener,
        plan.network.connect(plan.name, guest.ipv6_address, 22, PATIENCE_S),
    ):
        listener.accept()[0].close()


# --- where packets go ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segment", [0, 1])
def test_guests_reach_each_other_by_the_router(plan: Plan, segment: int) -> None:
    ssh = only(Allow(protocol="tcp", from_port=22, to_port=22, peer_cidr="::/0"))
    plan.policies = (OPEN6, ssh)
    one, other = plan.guest(10, OPEN6), plan.guest(11, ssh, segment=segment)
    assert tcp(one, other, other.ipv6_address, 22) == one.ipv6_address
    assert is_blocked(one, other, other.ipv6_address, 23)


def test_two_routers_reach_each_other_by_the_edge(plan: Plan, other_plan: Plan) -> None:
    one, other = plan.guest(10, OPEN6), other_plan.guest(11, OPEN6)
    assert tcp(one, other, other.ipv6_address) == one.ipv6_address
    plan.use(UP[:1], UP[:1])  # without a route for IPv6
    plan.apply()
    assert is_blocked(one, other, other.ipv6_address)
    assert is_blocked(other, one, one.ipv6_address)


def test_an_outward_way_lets_nobody_begin(plan: Plan, other_plan: Plan) -> None:
    plan.use((OUTWARD,), ())
    one, other = plan.guest(10, OPEN6), other_plan.guest(11, OPEN6)
    assert tcp(one, other, other.ipv6_address) == one.ipv6_address
    assert is_blocked(other, one, one.ipv6_address)


def test_the_host_reaches_guests_by_ipv6(plan: Plan, network: NetnsNetwork) -> None:
    guest = plan.guest(10, OPEN6)
    assert tcp("", guest, guest.ipv6_address) == HOST_ADDRESS
    assert tcp(guest, "", HOST_ADDRESS, 2222) == guest.ipv6_address
    told = run(["ip", "-6", "route"])
    assert [line.split()[0] for line in told.splitlines() if edge_name(network.deployment) in line] == [
        f"{HOST_ADDRESS}",
        str(RANGE),
        "fe80::/64",
    ]


def test_the_host_has_no_ipv6_while_no_router_has(plan: Plan, network: NetnsNetwork) -> None:
    plan.ipv6_cidr = ""
    plan.guest(10)
    assert str(RANGE) not in run(["ip", "-6", "route"])
    assert "inet6" not in run(["ip", "address", "show", "dev", edge_name(network.deployment)])


def test_another_deployment_of_the_same_range_keeps_its_route(plan: Plan, stage: ExitStack, tmp_path: Path) -> None:
    guest = plan.guest(10, OPEN6)
    network = make_network(stage, tmp_path / "other", ipv6_range=RANGE)
    twin = Plan(network, stage, ipv6_cidr="2001:db8:ec00:300::/56", policies=(OPEN6,))
    twin.guest(10, OPEN6)
    assert tcp("", guest, guest.ipv6_address) == HOST_ADDRESS


def test_peers_reach_each_other_by_ipv6(plan: Plan, other_plan: Plan) -> None:
    name = new_id("pcx")
    for here, away in ((plan, other_plan), (other_plan, plan)):
        here.peerings = (Peering(name=name, router=away.name, their_cidrs=(away.cidr, away.ipv6_cidr)),)
        here.use((Route(destination=away.ipv6_cidr, way=Way.PEER, target=name),), ())
    one, other = plan.guest(10, OPEN6), other_plan.guest(11, OPEN6)
    assert tcp(one, other, other.ipv6_address) == one.ipv6_address
    assert tcp(other, one, one.ipv6_address) == other.ipv6_address


def test_an_instance_routes_ipv6(plan: Plan) -> None:
    middle = plan.guest(20, OPEN6, segment=1, check_addresses=False)
    guest = plan.guest(10, OPEN6)
    inside(middle.namespace, lambda: batch("address add 2001:db8:77::1/128 dev lo"))
    plan.use((Route(destination="2001:db8:77::/48", way=Way.PORT, target=middle.port.name),), ())
    plan.apply()
    assert tcp(guest, middle, "2001:db8:77::1") == guest.ipv6_address


def test_a_duplicate_is_not_seen_where_there_is_none(plan: Plan) -> None:
    """Duplicate address detection must come to an end by itself: nobody answers for the guest's own address."""
    guest = plan.guest(10)
    address = plan.segments[0].ipv6_cidr.replace("::/64", "::a5")
    plan.change(guest, ipv6_addresses=(guest.ipv6_address, address))
    inside(guest.namespace, lambda: write_sysctls({f"ipv6/conf/{name}/accept_dad": "1" for name in ("all", "eth0")}))
    guest.run("ip", "address", "add", f"{address}/128", "dev", "eth0")

    def settled() -> bool:
        return "tentative" not in guest.run("ip", "-6", "address")

    deadline, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not settled() and time.monotonic() < deadline:
        pause.wait(0.05)
    other = plan.guest(11, segment=1)
    plan.change(guest, policies=(OPEN6.name,))
    plan.change(other, policies=(OPEN6.name,))
    assert settled()
    assert "dadfailed" not in guest.run("ip", "-6", "address")
    assert tcp(other, guest, address) == other.ipv6_address


DAMAGES = {
    "services": ("-6", "address", "flush", "dev", "lo"),
    "uplink": ("link", "set", "uplink", "down"),
    "routes": ("-6", "route", "flush", "table", "all", "proto", "static"),
    "rules": ("-6", "rule", "flush"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_ipv6_is_mended(plan: Plan, other_plan: Plan, damage: str) -> None:
    one, other = plan.guest(10, OPEN6), other_plan.guest(11, OPEN6)
    inside(plan.name, lambda: run(["ip", *DAMAGES[damage]]))
    plan.apply()
    assert tcp(one, other, other.ipv6_address) == one.ipv6_address
    assert tcp(other, one, one.ipv6_address) == other.ipv6_address
    assert resolve(one, "ip-172-31-0-10.ec2.internal", "fd00:ec2::253") == [one.address]

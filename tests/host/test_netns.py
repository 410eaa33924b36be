"""Networks made of namespaces. Each test runs in a namespace of its own that plays the host, and has no way out.

Guests are namespaces too: a veth in the segment's bridge, named as the tap would be and isolated as libvirt does it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pwd
import re
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TypeVar

import pytest

from orchestrator.host import Allow, HostError, Policy, Port, Router, Segment
from orchestrator.host.command import Tables, alongside, inside, run
from orchestrator.host.links import bridge_name, edge_name, leg_name, plug_name, tap_name
from orchestrator.host.netns import NetnsNetwork

pytestmark = pytest.mark.host

T = TypeVar("T")

ANYWHERE = "0.0.0.0/0"
HOST_ADDRESS = "203.0.113.1"
PATIENCE_S = 5.0
SILENCE_S = 0.4  # after which a packet is taken to be dropped
CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
SO_RCVBUFFORCE = 33

OPEN = Policy(
    name="sg-0000000000000000f",
    inbound=(Allow(protocol="-1", peer_cidr=ANYWHERE),),
    outbound=(Allow(protocol="-1", peer_cidr=ANYWHERE),),
)


# --- the stage -----------------------------------------------------------------------------------------------------


@pytest.fixture
def stage() -> Iterator[ExitStack]:
    """This thread in a namespace that plays the host. What the test puts on the stack is undone inside it."""
    name = f"orctest-{secrets.token_hex(4)}"
    run(["ip", "netns", "add", name])
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(f"/run/netns/{name}")
        batch("link set lo up", "link add eth0 type veth peer name eth1", "link add eth2 type veth peer name eth3")
        with ExitStack() as stack:
            yield stack
    finally:
        libc_setns(before)
        os.close(before)
        run(["ip", "netns", "delete", name])


def enter(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    libc_setns(handle)
    os.close(handle)


def libc_setns(handle: int) -> None:
    assert ctypes.CDLL(None).setns(handle, CLONE_NEWNET) == 0


@pytest.fixture
def network(stage: ExitStack, tmp_path: Path) -> NetnsNetwork:
    return make_network(stage, tmp_path / "run")


def make_network(stage: ExitStack, run_dir: Path, **settings: object) -> NetnsNetwork:
    network = NetnsNetwork(secrets.token_hex(4), run_dir, **settings)  # type: ignore[arg-type]

    def clear() -> None:
        network.remove_leaks(set(), set())
        assert network.leaks(set(), set()) == []

    stage.callback(clear)
    return network


def new_id(prefix: str) -> str:
    return f"{prefix}-0{secrets.token_hex(8)}"


@dataclass
class Plan:
    """A Router being written: two segments, and the ports that guests are plugged into."""

    network: NetnsNetwork
    stage: ExitStack
    cidr: str = "172.31.0.0/16"
    policies: tuple[Policy, ...] = (OPEN,)
    uplink: bool = True
    ports: list[Port] = field(default_factory=list)
    name: str = field(default_factory=lambda: new_id("vpc"))
    segment_names: tuple[str, str] = field(default_factory=lambda: (new_id("subnet"), new_id("subnet")))

    @property
    def segments(self) -> tuple[Segment, Segment]:
        front, back = list(IPv4Network(self.cidr).subnets(new_prefix=20))[:2]
        one, other = self.segment_names
        return (
            Segment(name=one, cidr=str(front), gateway=str(front[1])),
            Segment(name=other, cidr=str(back), gateway=str(back[1])),
        )

    @property
    def resolver(self) -> str:
        return str(IPv4Network(self.cidr)[2])

    @property
    def router(self) -> Router:
        return Router(
            name=self.name,
            cidr=self.cidr,
            segments=self.segments,
            ports=tuple(self.ports),
            policies=self.policies,
            domain="ec2.internal",
            resolver=self.resolver,
            uplink=self.uplink,
        )

    def apply(self) -> None:
        self.network.apply(self.router)

    def guest(self, number: int, *policies: Policy, segment: int = 0, public: str = "", **more: object) -> Guest:
        """A port with a guest on it, configured by hand; apply() plugs it in and makes the router know it."""
        where = self.segments[segment]
        address = str(IPv4Network(where.cidr)[number])
        port = Port(
            name=new_id("eni"),
            segment=where.name,
            mac=f"02:00:00:00:{segment:02x}:{number:02x}",
            address=address,
            host_name="ip-" + address.replace(".", "-"),
            public_address=public,
            public_name=f"ec2-{public.replace('.', '-')}.compute-1.amazonaws.com" if public else "",
            policies=tuple(policy.name for policy in policies or (OPEN,)),
        )
        port = replace(port, **more)  # type: ignore[arg-type]
        self.ports.append(port)
        self.apply()
        return Guest(port, where, self.stage)

    def stranger(self, like: Guest) -> Guest:
        """Somebody whom the router was not told of, with the addresses of a guest."""
        return Guest(replace(like.port, name=new_id("eni")), self.segments[0], self.stage)

    def change(self, guest: Guest, **changes: object) -> None:
        self.ports = [replace(port, **changes) if port.name == guest.port.name else port for port in self.ports]  # type: ignore[arg-type]
        self.apply()


class Guest:
    def __init__(self, port: Port, segment: Segment, stage: ExitStack) -> None:
        self.port, self.address, self.mac, self.gateway = port, port.address, port.mac, segment.gateway
        self.namespace = f"orctest-{secrets.token_hex(4)}"
        self.tap, self._bridge = tap_name(port.name), bridge_name(segment.name)
        length = IPv4Network(segment.cidr).prefixlen
        batch(f"netns add {self.namespace}")
        stage.callback(run, ["ip", "netns", "delete", self.namespace])
        stage.callback(self.unplug)
        batch(
            f"link add {self.tap} type veth peer name eth0 address {self.mac} netns {self.namespace}",
            f"link set {self.tap} master {self._bridge} up",
            f"link set {self.tap} type bridge_slave isolated on",
        )

        def configure() -> None:
            Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
            batch(
                "link set lo up",
                f"address add {self.address}/{length} dev eth0",
                "link set eth0 up",
                f"route add default via {self.gateway}",
            )

        inside(self.namespace, configure)

    def unplug(self) -> None:
        subprocess.run(["ip", "link", "delete", self.tap], capture_output=True)

    def run(self, *command: str) -> str:
        return inside(self.namespace, lambda: run(command, deadline_s=30))


def batch(*commands: str) -> None:
    run(["ip", "-batch", "-"], "".join(f"{command}\n" for command in commands))


@pytest.fixture
def plan(network: NetnsNetwork, stage: ExitStack) -> Plan:
    return Plan(network, stage)


# --- traffic -------------------------------------------------------------------------------------------------------

Place = Guest | str  # a guest, or the name of a namespace; an empty one is the host


def there(place: Place, work: Callable[[], T]) -> T:
    name = place if isinstance(place, str) else place.namespace
    return inside(name, work) if name else work()


@contextmanager
def tcp_listener(place: Place, port: int) -> Iterator[socket.socket]:
    with there(place, lambda: socket.create_server(("", port))) as listener:
        listener.settimeout(PATIENCE_S)
        yield listener


def tcp(source: Place, target: Place, address: str, port: int = 22, *, patience_s: float = PATIENCE_S) -> str:
    """Connect to `address` and say something. Returns the address that the target saw; empty when nothing came."""
    with tcp_listener(target, port) as listener:
        client = there(source, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        with client:
            client.settimeout(patience_s)
            try:
                client.connect((address, port))
            except OSError:
                return ""
            connection, (peer, _) = listener.accept()
            with connection:
                connection.settimeout(PATIENCE_S)
                client.sendall(b"hello")
                assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
                return str(peer)


def is_blocked(source: Place, target: Place, address: str, port: int = 22) -> bool:
    return tcp(source, target, address, port, patience_s=SILENCE_S) == ""


def udp_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def udp(source: Place, target: Guest, address: str, port: int, *, patience_s: float = PATIENCE_S) -> bool:
    receiver = there(target, udp_socket)
    sender = there(source, udp_socket)
    with receiver, sender:
        receiver.bind(("", port))
        receiver.settimeout(patience_s)
        sender.sendto(b"hello", (address, port))
        with suppress(TimeoutError):
            return receiver.recv(16) == b"hello"
    return False


def pings(source: Place, address: str, *, patience_s: int = 5) -> bool:
    command = ["busybox", "ping", "-c", "1", "-W", str(patience_s), address]
    return there(source, lambda: subprocess.run(command, capture_output=True).returncode == 0)


def only(*allowed: Allow, name: str = "", outbound: tuple[Allow, ...] = OPEN.outbound) -> Policy:
    return Policy(name=name or new_id("sg"), inbound=allowed, outbound=outbound)


SSH = Allow(protocol="tcp", from_port=22, to_port=22, peer_cidr=ANYWHERE)


# --- addresses and names -------------------------------------------------------------------------------------------

DHCP_SCRIPT = """#!/bin/sh
[ "$1" = bound ] || exit 0
echo "ip=$ip mask=$mask router=$router dns=$dns mtu=$mtu domain=$domain hostname=$hostname lease=$lease"

"""


def lease(guest: Guest, tmp_path: Path, *options: str) -> dict[str, str]:
    script = tmp_path / "bound"
    script.write_text(DHCP_SCRIPT)
    script.chmod(0o755)
    guest.run("ip", "address", "flush", "dev", "eth0")
    ask = [part for name in ("mtu", "hostname", "lease") for part in ("-O", name)]
    told = guest.run(
        *("busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-T", "1"), *ask, *options, "-s", str(script)
    )
    return dict(part.partition("=")[::2] for part in told.split())


@pytest.mark.parametrize("segment", [0, 1])
def test_dhcp_gives_the_assigned_address(plan: Plan, tmp_path: Path, segment: int) -> None:
    guest = plan.guest(77, segment=segment)
    plan.guest(78, segment=segment)
    assert lease(guest, tmp_path) == {
        "ip": guest.address,
        "mask": "20",
        "router": guest.gateway,
        "dns": "172.31.0.2",
        "mtu": "1500",
        "domain": "ec2.internal",
        "hostname": guest.port.host_name,
        "lease": "86400",
    }


def test_dhcp_knows_a_port_that_came_later_and_one_whose_address_changed(plan: Plan, tmp_path: Path) -> None:
    first = plan.guest(10)
    lease(first, tmp_path)
    second = plan.guest(11)
    assert lease(second, tmp_path)["ip"] == second.address
    plan.change(first, address="172.31.0.200", host_name="ip-172-31-0-200")
    assert lease(first, tmp_path)["ip"] == "172.31.0.200"


def test_dhcp_ignores_the_name_that_a_guest_claims(plan: Plan, tmp_path: Path) -> None:
    guest, other = plan.guest(10), plan.guest(11)
    assert lease(guest, tmp_path, "-x", "hostname:db")["hostname"] == guest.port.host_name
    assert resolve(other, "db.ec2.internal", "172.31.0.2") == []


def test_dhcp_gives_nothing_to_a_stranger(plan: Plan, tmp_path: Path) -> None:
    guest = plan.guest(10)
    stranger = plan.stranger(guest)
    stranger.run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
    with pytest.raises(HostError, match="no lease"):
        lease(stranger, tmp_path, "-t", "2")


def test_dnsmasq_is_not_root_where_its_user_can_get_to_the_files(stage: ExitStack, tmp_path: Path) -> None:
    pwd.getpwnam("dnsmasq")
    run_dir = Path(stage.enter_context(tempfile.TemporaryDirectory(prefix="orctest-")))
    run_dir.chmod(0o755)
    plan = Plan(make_network(stage, run_dir), stage)
    guest = plan.guest(10)
    (process,) = dnsmasqs(run_dir)
    assert os.stat(f"/proc/{process}").st_uid == pwd.getpwnam("dnsmasq").pw_uid
    other = plan.guest(11)
    assert dnsmasqs(run_dir) == [process]
    assert lease(other, tmp_path)["ip"] == other.address
    assert resolve(guest, "ip-172-31-0-11.ec2.internal", "172.31.0.2") == ["172.31.0.11"]


def resolve(guest: Place, name: str, server: str, *, kind: int = 1) -> list[str]:
    """Ask for an A (1) or PTR (12) record."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    query = struct.pack(">6H", 0x1234, 0x0100, 1, 0, 0, 0) + question + struct.pack(">2H", kind, 1)
    with there(guest, udp_socket) as asking:
        asking.settimeout(PATIENCE_S)
        asking.sendto(query, (server, 53))
        answer = asking.recv(4096)
    answers, position, found = struct.unpack(">H", answer[6:8])[0], len(query), []
    for _ in range(answers):
        length = struct.unpack(">H", answer[position + 10 : position + 12])[0]
        data = answer[position + 12 : position + 12 + length]
        found.append(str(IPv4Address(data)) if kind == 1 else read_name(answer, position + 12))
        position += 12 + length
    return found


def read_name(message: bytes, position: int) -> str:
    labels = []
    while length := message[position]:
        if length >= 0xC0:
            position = struct.unpack(">H", message[position : position + 2])[0] & 0x3FFF
            continue
        labels.append(message[position + 1 : position + 1 + length].decode())
        position += 1 + length
    return ".".join(labels)


@pytest.mark.parametrize("server", ["172.31.0.2", "169.254.169.253"])
def test_dns_knows_private_and_public_names(plan: Plan, server: str) -> None:
    locked = only(outbound=())  # policies do not rule what is said to the resolver
    asking = plan.guest(10, locked)
    plan.guest(20, segment=1, public="203.0.113.20")
    assert resolve(asking, "ip-172-31-16-20.ec2.internal", server) == ["172.31.16.20"]
    assert resolve(asking, "ec2-203-0-113-20.compute-1.amazonaws.com", server) == ["172.31.16.20"]
    assert resolve(asking, "20.16.31.172.in-addr.arpa", server, kind=12) == ["ip-172-31-16-20.ec2.internal"]
    assert resolve(asking, "ip-172-31-16-99.ec2.internal", server) == []
    assert resolve(asking, "example.com", server) == []


def test_a_router_without_a_resolver_answers_no_names(plan: Plan, tmp_path: Path) -> None:
    guest = plan.guest(10)
    plan.network.apply(replace(plan.router, resolver=""))
    assert "dns" not in {name for name, value in lease(guest, tmp_path).items() if value}
    with pytest.raises(OSError), there(guest, udp_socket) as asking:
        asking.settimeout(SILENCE_S)
        asking.sendto(b"x" * 12, ("172.31.0.2", 53))
        asking.recv(512)


# --- policies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segment", [0, 1])
def test_policies_rule_both_directions(plan: Plan, segment: int) -> None:
    client = Policy(
        name=new_id("sg"), inbound=(), outbound=(Allow(protocol="tcp", from_port=20, to_port=80, peer_cidr=ANYWHERE),)
    )
    server = only(
        Allow(protocol="tcp", from_port=22, to_port=23, peer_policy=client.name),
        Allow(protocol="tcp", from_port=443, to_port=443, peer_cidr=ANYWHERE),
        outbound=(),
    )
    plan.policies = (client, server)
    one, other = plan.guest(10, client), plan.guest(11, server, segment=segment)
    assert tcp(one, other, other.address, 22) == one.address
    assert tcp(one, other, other.address, 23) == one.address
    assert is_blocked(one, other, other.address, 24)  # the server's policy does not let it in
    assert is_blocked(one, other, other.address, 443)  # the client's does not let it out
    assert is_blocked(other, one, one.address, 22)


def test_peers_are_members_or_networks(plan: Plan) -> None:
    friends = only()
    near = only(Allow(protocol="-1", peer_cidr="172.31.16.0/20"))
    closed = only(Allow(protocol="-1", peer_policy=friends.name))
    plan.policies = (OPEN, friends, near, closed)
    friend, guest = plan.guest(10, friends), plan.guest(11)
    far = plan.guest(12, segment=1)
    by_member, by_network = plan.guest(20, closed), plan.guest(21, near)
    assert tcp(friend, by_member, by_member.address) == friend.address
    assert is_blocked(guest, by_member, by_member.address)
    assert tcp(far, by_network, by_network.address) == far.address
    assert is_blocked(guest, by_network, by_network.address)
    plan.change(guest, policies=(OPEN.name, friends.name))
    assert tcp(guest, by_member, by_member.address) == guest.address


def test_several_policies_of_a_port_add_up(plan: Plan) -> None:
    ssh, web = only(SSH), only(replace(SSH, from_port=80, to_port=80), outbound=())
    plan.policies = (OPEN, ssh, web)
    client, server = plan.guest(10), plan.guest(11, ssh, web)
    assert tcp(client, server, server.address, 22) and tcp(client, server, server.address, 80)
    assert is_blocked(client, server, server.address, 81)
    plan.change(server, policies=(web.name,))
    assert is_blocked(client, server, server.address, 22)
    assert is_blocked(server, client, client.address, 22)
    plan.change(server, policies=())
    assert is_blocked(client, server, server.address, 80)


def test_udp_and_icmp_are_told_apart(plan: Plan) -> None:
    dns = only(Allow(protocol="udp", from_port=53, to_port=53, peer_cidr=ANYWHERE))
    echo = only(Allow(protocol="icmp", from_port=8, to_port=-1, peer_cidr=ANYWHERE))
    timestamp = only(Allow(protocol="icmp", from_port=13, to_port=-1, peer_cidr=ANYWHERE))
    plan.policies = (OPEN, dns, echo, timestamp)
    client = plan.guest(10)
    resolver, answering, other = plan.guest(11, dns), plan.guest(12, echo), plan.guest(13, timestamp)
    assert udp(client, resolver, resolver.address, 53)
    assert not udp(client, resolver, resolver.address, 54, patience_s=SILENCE_S)
    assert not udp(client, answering, answering.address, 53, patience_s=SILENCE_S)
    assert pings(client, answering.address)
    assert not pings(client, resolver.address, patience_s=1)
    assert not pings(client, other.address, patience_s=1)
    assert pings(client, client.gateway)


def test_a_flow_outlives_its_rule(plan: Plan) -> None:
    ssh = only(SSH)
    plan.policies = (OPEN, ssh)
    client, server = plan.guest(10), plan.guest(11, ssh)
    with tcp_listener(server, 22) as listener, ExitStack() as ends:
        near = ends.enter_context(there(client, lambda: socket.create_connection((server.address, 22), PATIENCE_S)))
        far = ends.enter_context(listener.accept()[0])
        plan.policies = (OPEN, replace(ssh, inbound=()))
        plan.apply()
        far.settimeout(PATIENCE_S)
        near.sendall(b"still here")
        assert far.recv(10, socket.MSG_WAITALL) == b"still here"
    assert is_blocked(client, server, server.address)


def test_traffic_goes_on_while_rules_change(plan: Plan) -> None:
    """Datagrams without answers, so that each one passes the policies as if it were the first.

    One that is on its way through the old rules at the moment of a change may find the old sets already empty.
    """
    ssh = only(Allow(protocol="udp", from_port=9, to_port=9, peer_cidr=ANYWHERE))
    plan.policies = (OPEN, ssh)
    client, server = plan.guest(10), plan.guest(11, ssh)
    receiver = there(server, udp_socket)
    sender = there(client, udp_socket)
    stop = threading.Event()
    with receiver, sender:
        receiver.bind(("", 9))
        receiver.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        receiver.settimeout(PATIENCE_S)

        def send() -> int:
            count = 0
            while not stop.wait(0.0005):
                sender.sendto(b"x", (server.address, 9))
                count += 1
            sender.sendto(b"end", (server.address, 9))
            return count

        def receive() -> int:
            count = 0
            while receiver.recv(16) != b"end":
                count += 1
            return count

        received, sent = alongside(receive), alongside(send)
        changes = 20
        for number in range(changes):
            plan.policies = (OPEN, ssh, only(name=f"sg-{number}"))
            plan.apply()
        stop.set()
        assert sent.result() > 10 * changes
        assert 0 <= sent.result() - received.result() <= changes / 4


# --- the outside ---------------------------------------------------------------------------------------------------


def test_the_host_reaches_a_public_address(plan: Plan) -> None:
    ssh = only(replace(SSH, peer_cidr="203.0.113.1/32"))
    plan.policies = (ssh,)
    guest = plan.guest(10, ssh, public="203.0.113.10")
    with tcp_listener(guest, 22) as listener, closing(socket.create_connection(("203.0.113.10", 22), PATIENCE_S)):
        connection, (peer, _) = listener.accept()
        with connection:
            assert (peer, connection.getsockname()[0]) == (HOST_ADDRESS, guest.address)
    assert is_blocked("", guest, "203.0.113.10", 23)
    assert is_blocked("", guest, "203.0.113.11", 22)
    assert tcp(guest, "", HOST_ADDRESS, 2222) == "203.0.113.10"


def test_without_a_public_address_there_is_no_way_out(plan: Plan) -> None:
    guest, other = plan.guest(10), plan.guest(11, public="203.0.113.11")
    assert is_blocked(guest, "", HOST_ADDRESS, 2222)
    assert is_blocked(guest, other, "203.0.113.11")
    assert tcp(guest, other, other.address) == guest.address
    with wire(plan.name, "uplink") as hearing, there(guest, udp_socket) as one, there(other, udp_socket) as another:
        secret, marker = token(), token()
        one.sendto(secret, (HOST_ADDRESS, 9))
        another.sendto(marker, (HOST_ADDRESS, 9))
        assert secret not in heard_until(hearing, marker)


def test_a_hairpin_passes_the_edge(plan: Plan) -> None:
    """By public addresses, guests of one router meet as strangers: sources are public, and no policy knows a member."""
    members = new_id("sg")
    closed = only(Allow(protocol="tcp", from_port=22, to_port=22, peer_policy=members), name=members)
    by_address = only(Allow(protocol="tcp", from_port=80, to_port=80, peer_cidr="203.0.113.10/32"))
    plan.policies = (closed, by_address)
    one = plan.guest(10, closed, public="203.0.113.10")
    other = plan.guest(11, closed, by_address, public="203.0.113.11")
    assert tcp(one, other, "203.0.113.11", 80) == "203.0.113.10"
    assert is_blocked(one, other, "203.0.113.11", 22)
    assert tcp(one, other, other.address, 22) == one.address


def test_routers_meet_by_public_addresses_only(plan: Plan, network: NetnsNetwork, stage: ExitStack) -> None:
    other_plan = Plan(network, stage)
    one, other = plan.guest(10, public="203.0.113.10"), other_plan.guest(11, public="203.0.113.11")
    assert tcp(one, other, "203.0.113.11") == "203.0.113.10"
    assert is_blocked(one, other, other.address)


def test_a_public_address_can_move(plan: Plan, network: NetnsNetwork, stage: ExitStack) -> None:
    other_plan = Plan(network, stage)
    one, other = plan.guest(10, public="203.0.113.10"), other_plan.guest(11)
    with tcp_listener("", 2222) as listener:
        connection = there(one, lambda: socket.create_connection((HOST_ADDRESS, 2222), PATIENCE_S))
        far, _ = listener.accept()
        with connection, far:
            plan.change(one, public_address="", public_name="")
            other_plan.change(other, public_address="203.0.113.10")
            far.settimeout(SILENCE_S)
            connection.sendall(b"as before")
            with pytest.raises(TimeoutError):  # what was begun from the address does not go on from it
                far.recv(16)
    assert tcp("", other, "203.0.113.10") == HOST_ADDRESS
    assert is_blocked("", one, "203.0.113.10")


def test_what_is_of_the_network_but_of_no_segment_stays_inside(plan: Plan, stage: ExitStack) -> None:
    guest = plan.guest(10, public="203.0.113.10")
    unknown = ("172.31.200.1", "169.254.1.1")
    with wire(plan.name, "uplink") as hearing:
        sender = stage.enter_context(there(guest, udp_socket))
        secrets_, marker = [token() for _ in unknown], token()
        for address, secret in zip(unknown, secrets_, strict=True):
            with suppress(OSError):  # the router says that there is no such host
                sender.sendto(secret, (address, 9))
        sender.sendto(marker, (HOST_ADDRESS, 9))
        heard = heard_until(hearing, marker)
    assert not any(secret in heard for secret in secrets_)


def test_a_router_without_uplink_is_alone(plan: Plan) -> None:
    guest = plan.guest(10, public="203.0.113.10")
    assert tcp("", guest, "203.0.113.10")
    plan.uplink = False
    plan.apply()
    assert is_blocked("", guest, "203.0.113.10")
    assert is_blocked(guest, "", HOST_ADDRESS, 2222)
    plan.uplink = True
    plan.apply()
    assert tcp("", guest, "203.0.113.10")


@pytest.fixture
def internet(stage: ExitStack) -> str:
    """A namespace beyond the host, which the host knows at 192.0.2.9."""
    name = f"orctest-{secrets.token_hex(4)}"
    batch(
        f"netns add {name}",
        f"link add wan type veth peer name eth0 netns {name}",
        "address add 192.0.2.1/24 dev wan",
        "link set wan up",
    )
    stage.callback(run, ["ip", "netns", "delete", name])
    inside(name, lambda: batch("address add 192.0.2.9/24 dev eth0", "link set eth0 up", "link set lo up"))
    return name


def test_egress_off_drops_what_goes_beyond(plan: Plan, internet: str) -> None:
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    guest = plan.guest(10, public="203.0.113.10")
    inside(internet, lambda: batch("route add 203.0.113.0/24 via 192.0.2.1"))
    assert is_blocked(guest, internet, "192.0.2.9")
    assert is_blocked(internet, guest, "203.0.113.10")
    assert not udp(internet, guest, "203.0.113.10", 9, patience_s=SILENCE_S)
    assert is_blocked(guest, "", "192.0.2.1")  # the host, by another of its addresses


def test_egress_on_goes_out_under_the_hosts_address(stage: ExitStack, tmp_path: Path, internet: str) -> None:
    network = make_network(stage, tmp_path / "run", egress=True)
    plan = Plan(network, stage)
    guest, private = plan.guest(10, public="203.0.113.10"), plan.guest(11)
    assert tcp(guest, internet, "192.0.2.9") == "192.0.2.1"
    assert is_blocked(private, internet, "192.0.2.9")
    plan.apply()
    with fake_resolver() as question:
        assert resolve(private, "debian.example", "172.31.0.2") == ["192.0.2.77"]
        assert b"debian" in question.result()
    NetnsNetwork(network.deployment, tmp_path / "run").apply(plan.router)
    assert is_blocked(guest, internet, "192.0.2.9")
    assert resolve(private, "debian.example", "172.31.0.2") == []


@contextmanager
def fake_resolver() -> Iterator[Future[bytes]]:
    """The resolver that /etc/resolv.conf names, as an address of lo; it knows one answer."""
    lines = Path("/etc/resolv.conf").read_text().splitlines()
    address = next(line.split()[1] for line in lines if line.startswith("nameserver") and "." in line)
    run(["ip", "address", "replace", f"{address}/32", "dev", "lo"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        server.settimeout(PATIENCE_S)

        def answer() -> bytes:
            query, sender = server.recvfrom(512)
            end = query.index(b"\0", 12) + 5
            reply = query[:2] + b"\x81\x80" + struct.pack(">4H", 1, 1, 0, 0) + query[12:end]
            reply += b"\xc0\x0c" + struct.pack(">2HIH", 1, 1, 60, 4) + IPv4Address("192.0.2.77").packed
            server.sendto(reply, sender)
            return query

        future = alongside(answer)
        yield future
        future.exception()


# --- claims --------------------------------------------------------------------------------------------------------


def ethernet(source: str, kind: int, payload: bytes, target: str = "ff:ff:ff:ff:ff:ff") -> bytes:
    return bytes.fromhex((target + source).replace(":", "")) + struct.pack(">H", kind) + payload


def arp(mac: str, address: str, target: str, *, operation: int = 1) -> bytes:
    own = bytes.fromhex(mac.replace(":", "")) + IPv4Address(address).packed
    return struct.pack(">2H2BH", 1, 0x800, 6, 4, operation) + own + bytes(6) + IPv4Address(target).packed


def datagram(source: str, target: str, source_port: int, target_port: int) -> bytes:
    length = 28 + TOKEN_BYTES  # the token follows
    ends = IPv4Address(source).packed + IPv4Address(target).packed
    header = struct.pack(">2B3H2BH", 0x45, 0, length, 0, 0, 64, 17, 0) + ends
    total = sum(struct.unpack(">10H", header))
    checksum = ~(total + (total >> 16)) & 0xFFFF
    header = header[:10] + struct.pack(">H", checksum) + header[12:]
    return header + struct.pack(">4H", source_port, target_port, length - 20, 0)


TOKEN_BYTES = 32
OTHER_MAC = "02:00:00:00:00:99"
RA = bytes.fromhex("60000000001a3aff") + bytes(32) + b"\x86" + bytes(25)


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


@contextmanager
def wire(place: Place, link: str) -> Iterator[socket.socket]:
    def make() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        raw.bind((link, ETH_P_ALL))
        return raw

    with there(place, make) as opened:
        opened.settimeout(PATIENCE_S)
        yield opened


def heard_until(hearing: socket.socket, marker: bytes) -> bytes:
    heard = b""
    while marker not in heard:
        heard += hearing.recv(2048) + b"|"
    return heard


def token() -> bytes:
    return secrets.token_bytes(TOKEN_BYTES)


def mac_of_leg(plan: Plan) -> str:
    told = inside(plan.name, lambda: run(["ip", "-j", "link", "show", "dev", leg_name(plan.segments[0].name)]))
    return str(json.loads(told)[0]["address"])


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
    now_heard = {"address of nobody", "address of a guest", "address of the router", "no address"}
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
    assert "inet6" not in inside(plan.name, lambda: run(["ip", "address"]))
    assert "inet6" not in inside(edge_of(plan), lambda: run(["ip", "address"]))


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


# --- sockets of the controller -------------------------------------------------------------------------------------


def test_metadata_is_asked_from_the_guests_own_address(plan: Plan) -> None:
    guest = plan.guest(10, only(outbound=()))
    before = os.stat("/proc/thread-self/ns/net").st_ino
    with plan.network.listen(plan.name, "169.254.169.254", 80) as listener:
        assert os.stat("/proc/thread-self/ns/net").st_ino == before
        listener.settimeout(PATIENCE_S)
        with there(guest, lambda: socket.create_connection(("169.254.169.254", 80), PATIENCE_S)):
            connection, (peer, _) = listener.accept()
            with connection:
                assert peer == guest.address
                assert connection.getsockname() == ("169.254.169.254", 80)
    with pytest.raises(OSError):
        there(guest, lambda: socket.create_connection(("169.254.169.254", 81), SILENCE_S)).close()


def test_listening_again_after_the_listener_went(plan: Plan) -> None:
    plan.guest(10)
    for _ in range(2):
        plan.network.listen(plan.name, "169.254.169.254", 80).close()
    with plan.network.listen(plan.name, "169.254.169.254", 80):
        with pytest.raises(HostError, match="cannot listen") as refused:
            plan.network.listen(plan.name, "169.254.169.254", 80)
        assert isinstance(refused.value.__cause__, OSError)
        assert refused.value.__cause__.errno == errno.EADDRINUSE  # by this the metadata server knows its own socket


def test_connect_comes_from_the_router_and_asks_no_policy(plan: Plan) -> None:
    guest = plan.guest(10, only())
    with tcp_listener(guest, 22) as listener, plan.network.connect(plan.name, guest.address, 22, PATIENCE_S) as near:
        far, (peer, _) = listener.accept()
        with far:
            assert peer == guest.gateway
            far.sendall(b"welcome")
            assert near.recv(7, socket.MSG_WAITALL) == b"welcome"


def test_connect_fails_as_sockets_do(plan: Plan, network: NetnsNetwork) -> None:
    guest = plan.guest(10)
    with pytest.raises(ConnectionRefusedError):
        network.connect(plan.name, guest.address, 23, PATIENCE_S)
    with pytest.raises(FileNotFoundError):
        network.connect(new_id("vpc"), guest.address, 22, PATIENCE_S)
    with pytest.raises(HostError):
        network.listen(new_id("vpc"), "169.254.169.254", 80)


# --- convergence ---------------------------------------------------------------------------------------------------


def everything() -> dict[str, str]:
    """What the host shows to whoever looks, but for carriers, which come up in their own time."""
    return {
        "links": _without_carrier(run(["ip", "link", "show"])),
        "addresses": _without_carrier(run(["ip", "-4", "address", "show"])),
        "routes": run(["ip", "-4", "route", "show", "table", "all"]),
        "tables": run(["nft", "-a", "list", "ruleset"]),
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


def _without_carrier(text: str) -> str:
    return re.sub(r" state [A-Z]+|,LOWER_UP|NO-CARRIER,|,M-DOWN", "", text)


def dnsmasqs(run_dir: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and f"--conf-file={run_dir}/".encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def test_the_host_is_left_as_it_was_found(plan: Plan, network: NetnsNetwork, stage: ExitStack, tmp_path: Path) -> None:
    before = everything()
    other_plan = Plan(network, stage)
    guests = [plan.guest(10, public="203.0.113.10"), other_plan.guest(10, segment=1)]
    assert len(dnsmasqs(tmp_path / "run")) == 2
    for guest in guests:
        guest.unplug()
    assert network.routers() == sorted([plan.name, other_plan.name])
    network.remove(plan.name)
    assert network.routers() == [other_plan.name]
    network.remove(other_plan.name)
    assert network.routers() == []
    assert everything() == before
    assert dnsmasqs(tmp_path / "run") == []
    assert [
        name for name in os.listdir("/run/netns") if name in (plan.name, other_plan.name, edge_name(network.deployment))
    ] == []
    assert list((tmp_path / "run").iterdir()) == []
    network.remove(plan.name)  # once more changes nothing
    assert everything() == before


def test_a_router_with_a_guest_plugged_in_does_not_go(plan: Plan, network: NetnsNetwork) -> None:
    guest = plan.guest(10, public="203.0.113.10")
    with pytest.raises(HostError, match=guest.tap) as refused:
        network.remove(plan.name)
    assert refused.value.retryable
    assert tcp("", guest, "203.0.113.10")


def test_applying_the_same_again_changes_nothing(plan: Plan, network: NetnsNetwork, tmp_path: Path) -> None:
    plan.guest(10, public="203.0.113.10")

    def inner() -> list[dict[str, str]]:
        return [inside(name, everything) for name in (plan.name, edge_of(plan))]

    before = (everything(), inner(), dnsmasqs(tmp_path / "run"))
    network.apply(plan.router)
    assert (everything(), inner(), dnsmasqs(tmp_path / "run")) == before


def test_a_controller_that_starts_anew_finds_everything(
    plan: Plan, network: NetnsNetwork, stage: ExitStack, tmp_path: Path
) -> None:
    other_plan = Plan(network, stage)
    guest, other = plan.guest(10, public="203.0.113.10"), other_plan.guest(11, public="203.0.113.11")
    processes = dnsmasqs(tmp_path / "run")
    again = NetnsNetwork(network.deployment, tmp_path / "run")
    assert again.routers() == network.routers()
    again.apply(plan.router)
    assert dnsmasqs(tmp_path / "run") == processes
    assert tcp(guest, other, "203.0.113.11") == "203.0.113.10"
    assert set(guard_of(network, "ports")) == {guest.tap, other.tap}  # the other router's share is not lost


def guard_of(network: NetnsNetwork, name: str) -> list[str]:
    told = json.loads(run(["nft", "-j", "list", "set", "bridge", f"orc_{network.deployment}", name]))
    return list(told["nftables"][1]["set"].get("elem", ()))


def kill(process: int) -> None:
    handle = os.pidfd_open(process)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    assert select.select([handle], [], [], PATIENCE_S)[0]
    os.close(handle)


def edge_of(plan: Plan) -> str:
    return edge_name(plan.network.deployment)


DAMAGES: dict[str, Callable[[Plan, Path], object]] = {
    "namespace deleted": lambda plan, _: batch(f"netns delete {plan.name}"),
    "namespace's mount gone": lambda plan, _: run(["umount", f"/run/netns/{plan.name}"]),
    "router's rules flushed": lambda plan, _: inside(plan.name, lambda: run(["nft", "flush", "ruleset"])),
    "router's set emptied": lambda plan, _: inside(
        plan.name, lambda: run(["nft", "flush", "map", "inet", "orc", "to_private"])
    ),
    "guard deleted": lambda plan, _: run(["nft", "delete", "table", "bridge", f"orc_{plan.network.deployment}"]),
    "guard emptied": lambda plan, _: run(["nft", "flush", "set", "bridge", f"orc_{plan.network.deployment}", "macs"]),
    "bridge removed": lambda plan, _: batch(f"link delete {bridge_name(plan.segments[0].name)}"),
    "plug removed": lambda plan, _: batch(f"link delete {plug_name(plan.segments[0].name)}"),
    "plug unplugged": lambda plan, _: batch(f"link set {plug_name(plan.segments[0].name)} nomaster"),
    "bridge down": lambda plan, _: batch(f"link set {bridge_name(plan.segments[0].name)} down"),
    "leg without address": lambda plan, _: inside(
        plan.name, lambda: batch(f"address flush dev {leg_name(plan.segments[0].name)}")
    ),
    "leg down": lambda plan, _: inside(plan.name, lambda: batch(f"link set {leg_name(plan.segments[0].name)} down")),
    "router's default route gone": lambda plan, _: inside(plan.name, lambda: batch("route delete default")),
    "forwarding off": lambda plan, _: inside(plan.name, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("0")),
    "dnsmasq killed": lambda _, run_dir: kill(*dnsmasqs(run_dir)),
    "dnsmasq's pid file gone": lambda plan, run_dir: (run_dir / plan.name / "dnsmasq.pid").unlink(),
    "edge deleted": lambda plan, _: batch(f"netns delete {edge_of(plan)}"),
    "edge's rules flushed": lambda plan, _: inside(edge_of(plan), lambda: run(["nft", "flush", "ruleset"])),
    "uplink removed": lambda plan, _: inside(plan.name, lambda: batch("link delete uplink")),
    "host's link removed": lambda plan, _: batch(f"link delete {edge_of(plan)}"),
    "host's route removed": lambda plan, _: batch("route delete 203.0.113.0/24"),
    "public route removed": lambda plan, _: inside(edge_of(plan), lambda: batch("route delete 203.0.113.10")),
    "run directory emptied": lambda plan, run_dir: shutil.rmtree(run_dir / plan.name),
}


@pytest.mark.parametrize("fresh_controller", [False, True], ids=["same", "anew"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_mended(plan: Plan, tmp_path: Path, damage: str, fresh_controller: bool) -> None:
    guest, other = plan.guest(10, public="203.0.113.10"), plan.guest(11)
    DAMAGES[damage](plan, tmp_path / "run")
    if fresh_controller:
        plan.network = NetnsNetwork(plan.network.deployment, tmp_path / "run")
    plan.apply()
    assert tcp("", guest, "203.0.113.10") == HOST_ADDRESS
    assert tcp(other, guest, guest.address) == other.address
    assert is_blocked(other, "", HOST_ADDRESS, 2222)
    assert resolve(guest, "ip-172-31-0-11.ec2.internal", "172.31.0.2") == ["172.31.0.11"]
    assert lease(guest, tmp_path)["ip"] == guest.address
    assert set(guard_of(plan.network, "ports")) == {guest.tap, other.tap}
    assert len(dnsmasqs(tmp_path / "run")) == 1
    with wire(guest, "eth0") as mine, wire(plan.name, leg_name(plan.segments[0].name)) as leg:
        spoofed, marker = token(), token()
        mine.send(ethernet(guest.mac, 0x806, arp(guest.mac, other.address, guest.gateway)) + spoofed)
        mine.send(ethernet(guest.mac, 0x806, arp(guest.mac, guest.address, guest.gateway)) + marker)
        assert spoofed not in heard_until(leg, marker)


def test_what_a_plan_no_longer_names_goes(plan: Plan, network: NetnsNetwork) -> None:
    one = plan.guest(10, public="203.0.113.10")
    other = plan.guest(10, segment=1, public="203.0.113.11")
    gone = plan.segments[1].name
    assert tcp(one, other, other.address)
    other.unplug()
    plan.ports.pop()
    network.apply(replace(plan.router, segments=plan.segments[:1]))
    assert bridge_name(gone) not in run(["ip", "link"]) and plug_name(gone) not in run(["ip", "link"])
    assert leg_name(gone) not in inside(plan.name, lambda: run(["ip", "link"]))
    assert "203.0.113.11" not in inside(edge_of(plan), lambda: run(["ip", "route"]))
    assert guard_of(network, "ports") == [one.tap]
    assert tcp("", one, "203.0.113.10")


def test_a_segment_that_is_still_plugged_stays_until_it_is_not(plan: Plan, network: NetnsNetwork) -> None:
    plan.guest(10)
    other = plan.guest(10, segment=1)
    plan.ports.pop()
    router = replace(plan.router, segments=plan.segments[:1])
    network.apply(router)
    bridge = bridge_name(plan.segments[1].name)
    assert bridge in run(["ip", "link"])
    assert network.leaks({plan.name}, {port.name for port in plan.ports}) == [f"tap {other.tap}"]
    other.unplug()
    network.apply(router)
    assert bridge not in run(["ip", "link"])


def test_routers_are_made_at_the_same_time(network: NetnsNetwork, stage: ExitStack) -> None:
    plans = [Plan(network, stage) for _ in range(6)]
    for number, each in enumerate(plans):
        each.ports.append(
            Port(
                name=new_id("eni"),
                segment=each.segments[0].name,
                mac="02:00:00:00:00:0a",
                address="172.31.0.10",
                host_name="ip-172-31-0-10",
                public_address=f"203.0.113.{10 + number}",
                policies=(OPEN.name,),
            )
        )
    for job in [alongside(each.apply) for each in plans]:
        job.result(timeout=30)
    assert network.routers() == sorted(each.name for each in plans)
    guests = [Guest(each.ports[0], each.segments[0], stage) for each in plans]
    for number, guest in enumerate(guests):
        assert tcp("", guest, f"203.0.113.{10 + number}") == HOST_ADDRESS
    assert tcp(guests[0], guests[5], "203.0.113.15") == "203.0.113.10"
    for guest in guests:
        guest.unplug()
    for job in [alongside(partial(network.remove, each.name)) for each in plans]:
        job.result(timeout=30)
    assert network.routers() == []


# --- several deployments, and leaks --------------------------------------------------------------------------------


def test_two_deployments_side_by_side(stage: ExitStack, tmp_path: Path) -> None:
    one = make_network(stage, tmp_path / "one")
    two = make_network(stage, tmp_path / "two", public_range=IPv4Network("198.51.100.0/24"))
    before = everything()
    plan_one, plan_two = Plan(one, stage), Plan(two, stage)
    first = plan_one.guest(10, public="203.0.113.10")
    alone = everything()
    second = plan_two.guest(10, public="198.51.100.10")
    assert first.address == second.address
    assert tcp("", first, "203.0.113.10") == "203.0.113.1"
    assert tcp("", second, "198.51.100.10") == "198.51.100.1"
    assert is_blocked(first, second, "198.51.100.10")
    assert (one.routers(), two.routers()) == ([plan_one.name], [plan_two.name])
    assert one.leaks({plan_one.name}, {first.port.name}) == []
    assert not any(plan_two.name[:15] in line or second.tap in line for line in one.leaks(set(), set()))
    second.unplug()
    two.remove(plan_two.name)
    assert everything() == alone
    assert tcp("", first, "203.0.113.10") == "203.0.113.1"
    first.unplug()
    one.remove(plan_one.name)
    assert everything() == before


def test_leaks_are_listed_and_removed(plan: Plan, network: NetnsNetwork, stage: ExitStack, tmp_path: Path) -> None:
    before = everything()
    kept_plan = Plan(network, stage)
    kept, lost = kept_plan.guest(10, public="203.0.113.10"), plan.guest(10, public="203.0.113.11")
    stray = kept_plan.guest(11)
    known = ({kept_plan.name}, {kept.port.name})
    assert network.leaks({plan.name, kept_plan.name}, {each.port.name for each in (kept, lost, stray)}) == []
    assert sorted(network.leaks(*known)) == sorted(
        [
            f"tap {lost.tap}",
            f"tap {stray.tap}",
            f"namespace {plan.name}",
            *(f"link {name(segment.name)}" for segment in plan.segments for name in (bridge_name, plug_name)),
            f"uplink {plan.name[:15]}",
            f"directory {plan.name}",
        ]
    )
    network.remove_leaks(*known)
    assert network.leaks(*known) == []
    assert network.routers() == [kept_plan.name]
    assert tcp("", kept, "203.0.113.10") == HOST_ADDRESS
    network.remove_leaks(set(), set())
    assert network.leaks(set(), set()) == []
    assert everything() == before
    assert dnsmasqs(tmp_path / "run") == []


@pytest.mark.parametrize("lost", ["namespace", "directory"])
def test_a_leak_in_pieces_is_removed_whole(plan: Plan, network: NetnsNetwork, tmp_path: Path, lost: str) -> None:
    before = everything()
    plan.guest(10, public="203.0.113.10").unplug()
    if lost == "namespace":
        batch(f"netns delete {plan.name}")
    else:
        shutil.rmtree(tmp_path / "run" / plan.name)
    again = NetnsNetwork(network.deployment, tmp_path / "run")
    assert again.leaks(set(), set())
    again.remove_leaks(set(), set())
    assert again.leaks(set(), set()) == []
    assert everything() == before


# --- parts ---------------------------------------------------------------------------------------------------------


def test_a_table_that_is_as_it_was_loaded_is_left_alone(stage: ExitStack) -> None:
    tables, text = Tables(), "table ip t\ndelete table ip t\ntable ip t { chain c { counter\n }\n }\n"

    def handle() -> str:
        return next(line for line in run(["nft", "-a", "list", "table", "ip", "t"]).splitlines() if "table" in line)

    tables.load("", ("ip", "t"), text)
    before = handle()
    tables.load("", ("ip", "t"), text)
    assert handle() == before
    run(["nft", "flush", "table", "ip", "t"])
    tables.load("", ("ip", "t"), text)
    assert handle() != before
    tables.drop("", ("ip", "t"))
    assert run(["nft", "list", "ruleset"]) == ""
    tables.drop("", ("ip", "t"))


def test_a_tool_that_fails_is_a_host_error(stage: ExitStack) -> None:
    with pytest.raises(HostError, match="nowhere") as failed:
        run(["ip", "link", "set", "nowhere", "up"])
    assert failed.value.retryable
    with pytest.raises(HostError, match="not installed") as failed:
        run(["no-such-tool"])
    assert not failed.value.retryable
    with pytest.raises(HostError, match=r"more than 0\.1 s"):
        run(["busybox", "sleep", "10"], deadline_s=0.1)


def test_no_thread_is_left_in_another_namespace(plan: Plan) -> None:
    plan.guest(10)
    here = os.stat("/proc/thread-self/ns/net").st_ino
    there_ = inside(plan.name, lambda: os.stat("/proc/thread-self/ns/net").st_ino)
    assert there_ != here
    with suppress(HostError):
        inside(plan.name, lambda: run(["no-such-tool"]))

    def namespaces() -> set[int]:
        found = set()
        for task in os.listdir("/proc/self/task"):
            with suppress(OSError):  # it has ended
                found.add(os.stat(f"/proc/self/task/{task}/ns/net").st_ino)
        return found

    deadline, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while there_ in namespaces() and time.monotonic() < deadline:
        pause.wait(0.01)
    assert there_ not in namespaces()

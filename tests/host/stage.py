"""A network of namespaces to play on: each test runs in a namespace of its own that plays the host, and has no way out.

Guests are namespaces too: a veth in the segment's bridge, named as the tap would be and isolated as libvirt does it.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import secrets
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pytest

from orchestrator.host import Allow, Dhcp, Peering, Policy, Port, Record, Route, Router, Segment, Table, Way
from orchestrator.host.command import alongside, has_ipv6, inside, run
from orchestrator.host.links import bridge_name, edge_name, leg_address, leg_name, tap_name
from orchestrator.host.netns import NetnsNetwork

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


UP = (Route(destination="0.0.0.0/0", way=Way.UPLINK), Route(destination="::/0", way=Way.UPLINK))


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
    ipv6_cidr: str = ""  # a /56, of which each segment gets a /64
    policies: tuple[Policy, ...] = (OPEN,)
    tables: tuple[Table, ...] = ()
    used_tables: tuple[str, ...] = ()  # by segment; a name that is not among `tables` is as good as none
    peerings: tuple[Peering, ...] = ()
    uplink: bool = True
    more: dict[str, Any] = field(default_factory=dict)  # further members of the Router
    ports: list[Port] = field(default_factory=list)
    name: str = field(default_factory=lambda: new_id("vpc"))
    segment_names: tuple[str, ...] = field(default_factory=lambda: (new_id("subnet"), new_id("subnet")))
    applied: Router | None = None

    def __post_init__(self) -> None:
        # Guests have a way to public addresses in each segment, unless a test says more.
        if not self.tables:
            self.use(UP, UP)

    def use(self, *routes: tuple[Route, ...]) -> None:
        """A table for each segment, in their order."""
        self.tables = tuple(Table(name=new_id("rtb"), routes=each) for each in routes)
        self.used_tables = tuple(table.name for table in self.tables)

    @property
    def segments(self) -> tuple[Segment, ...]:
        spans = list(IPv4Network(self.cidr).subnets(new_prefix=20))
        inner = list(islice(IPv6Network(self.ipv6_cidr).subnets(new_prefix=64), 8)) if self.ipv6_cidr else []
        return tuple(
            Segment(
                name=name,
                cidr=str(spans[number]),
                gateway=str(spans[number][1]),
                ipv6_cidr=str(inner[number]) if inner else "",
                table=self.used_tables[number] if number < len(self.used_tables) else "",
            )
            for number, name in enumerate(self.segment_names)
        )

    @property
    def resolver(self) -> str:
        return str(IPv4Network(self.cidr)[2])

    @property
    def router(self) -> Router:
        names = [Record(name=f"{port.host_name}.ec2.internal", address=port.address) for port in self.ports]
        names += [
            Record(name=f"ec2-{public.replace('.', '-')}.compute-1.amazonaws.com", address=private)
            for port in self.ports
            for private, public in port.public
        ]
        values: dict[str, Any] = {
            "name": self.name,
            "cidrs": (self.cidr, *([self.ipv6_cidr] if self.ipv6_cidr else [])),
            "segments": self.segments,
            "ports": tuple(self.ports),
            "policies": self.policies,
            "tables": self.tables,
            "peerings": self.peerings,
            "domain": "ec2.internal",
            "resolver": self.resolver,
            "records": tuple(names),
            "dhcp": Dhcp(domain="ec2.internal", servers=(self.resolver,)),
            "uplink": self.uplink,
        }
        return Router(**(values | self.more))

    def apply(self) -> None:
        """Everything is looked at, as now and then."""
        self.applied, router = None, self.router
        self.network.apply(router)
        self.applied = router

    def follow(self) -> None:
        """What differs is changed, as by a launch."""
        before, self.applied, router = self.applied, None, self.router
        self.network.apply(router, before)
        self.applied = router

    def port(self, number: int, *policies: Policy, segment: int = 0, public: str = "", **more: object) -> Port:
        where = self.segments[segment]
        address = str(IPv4Network(where.cidr)[number])
        values: dict[str, Any] = {
            "name": new_id("eni"),
            "segment": where.name,
            "mac": f"02:00:00:00:{segment:02x}:{number:02x}",
            "address": address,
            "ipv6_addresses": (str(IPv6Network(where.ipv6_cidr)[number]),) if where.ipv6_cidr else (),
            "host_name": "ip-" + address.replace(".", "-"),
            "public": ((address, public),) if public else (),
            "policies": tuple(policy.name for policy in policies or (OPEN,)),
        }
        return Port(**(values | more))

    def guest(self, number: int, *policies: Policy, segment: int = 0, public: str = "", **more: object) -> Guest:
        """A port with a guest on it, configured by hand. The router knows it, and the next pass has found its tap."""
        port = self.port(number, *policies, segment=segment, public=public, **more)
        self.ports.append(port)
        self.follow()
        guest = Guest(port, self.segments[segment], self.stage)
        self.network._hold_ports(self.router)  # the part of a pass that looks for taps
        return guest

    def translator(self, number: int, *, segment: int = 0, public: str = "") -> Port:
        """A port that the host itself stands behind."""
        port = self.port(number, segment=segment, public=public, translator=True, check_addresses=False, policies=())
        self.ports.append(port)
        return port

    def stranger(self, like: Guest) -> Guest:
        """Somebody whom the router was not told of, with the addresses of a guest."""
        return Guest(replace(like.port, name=new_id("eni")), self.segments[0], self.stage)

    def change(self, guest: Guest, **changes: object) -> None:
        self.ports = [replace(port, **changes) if port.name == guest.port.name else port for port in self.ports]  # type: ignore[arg-type]
        self.follow()


class Guest:
    """Of IPv6, it has what a guest configures: its address alone, and the router's as the way to all others."""

    def __init__(self, port: Port, segment: Segment, stage: ExitStack) -> None:
        self.port, self.address, self.mac, self.gateway = port, port.address, port.mac, segment.gateway
        self.ipv6_address = port.ipv6_addresses[0] if port.ipv6_addresses else ""
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
        Path(f"/proc/sys/net/ipv6/conf/{self.tap}/disable_ipv6").write_text("1")

        def configure() -> None:
            for name in ("all", "eth0"):
                Path(f"/proc/sys/net/ipv6/conf/{name}/accept_ra").write_text("0")
                Path(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")
            Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("0" if port.ipv6_addresses else "1")
            batch(
                "link set lo up",
                f"address add {self.address}/{length} dev eth0",
                *(f"address add {each}{'' if '/' in each else '/32'} dev eth0" for each in port.more_addresses),
                *(f"address add {each}/128 dev eth0 nodad" for each in port.ipv6_addresses),
                "link set eth0 up",
                f"route add default via {self.gateway}",
            )
            if port.ipv6_addresses:
                batch(f"route add ::/0 via {leg_address(segment.name)} dev eth0 src {self.ipv6_address}")

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
    make = partial(socket.create_server, ("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    if not there(place, has_ipv6):
        make = partial(socket.create_server, ("", port))
    with there(place, make) as listener:
        listener.settimeout(PATIENCE_S)
        yield listener


def tcp(source: Place, target: Place, address: str, port: int = 22, *, patience_s: float = PATIENCE_S) -> str:
    """Connect to `address` and say something. Returns the address that the target saw; empty when nothing came."""
    with tcp_listener(target, port) as listener:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        client = there(source, lambda: socket.socket(family, socket.SOCK_STREAM))
        with client:
            client.settimeout(patience_s)
            try:
                client.connect((address, port))
            except OSError:
                return ""
            connection, (peer, *_) = listener.accept()
            with connection:
                connection.settimeout(PATIENCE_S)
                client.sendall(b"hello")
                assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
                return str(peer).removeprefix("::ffff:")


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


# --- what guests and hosts see --------------------------------------------------------------------------------------

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


def resolve(guest: Place, name: str, server: str, *, kind: int = 1) -> list[str]:
    """Ask for an A (1), AAAA (28) or PTR (12) record."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    query = struct.pack(">6H", 0x1234, 0x0100, 1, 0, 0, 0) + question + struct.pack(">2H", kind, 1)
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with there(guest, lambda: socket.socket(family, socket.SOCK_DGRAM)) as asking:
        answer = _answer(asking, query, server)
    answers, position, found = struct.unpack(">H", answer[6:8])[0], len(query), []
    for _ in range(answers):
        length = struct.unpack(">H", answer[position + 10 : position + 12])[0]
        data = answer[position + 12 : position + 12 + length]
        found.append(read_name(answer, position + 12) if kind == 12 else str(ip_address(data)))
        position += 12 + length
    return found


def _answer(asking: socket.socket, query: bytes, server: str) -> bytes:
    """Asked for again each second, as resolvers do. TimeoutError where none comes."""
    asking.settimeout(1.0)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        asking.sendto(query, (server, 53))
        try:
            return asking.recv(4096)
        except TimeoutError:
            if time.monotonic() >= deadline:
                raise


def read_name(message: bytes, position: int) -> str:
    labels = []
    while length := message[position]:
        if length >= 0xC0:
            position = struct.unpack(">H", message[position : position + 2])[0] & 0x3FFF
            continue
        labels.append(message[position + 1 : position + 1 + length].decode())
        position += 1 + length
    return ".".join(labels)


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


def everything() -> dict[str, str]:
    """What the host shows to whoever looks, but for carriers and neighbours, which come in their own time."""
    return {
        "links": _without_carrier(run(["ip", "link", "show"])),
        "addresses": _without_carrier(run(["ip", "-4", "address", "show"])),
        "routes": run(["ip", "-4", "route", "show", "table", "all"]),
        "routes6": run(["ip", "-6", "route", "show", "table", "main"]),
        "rules": run(["ip", "rule"]) + run(["ip", "-6", "rule"]),
        "tables": run(["nft", "-a", "list", "ruleset"]),
        "settings": "".join(f"{path} {path.read_text()}" for path in _settings()),
    }


def _settings() -> list[Path]:
    """What is set of a namespace as a whole, and of the links that are there."""
    places = [path for family in ("ipv4", "ipv6") for path in sorted(Path("/proc/sys/net", family).glob("*"))]
    places += [
        path for family in ("ipv4", "ipv6") for path in sorted(Path("/proc/sys/net", family, "conf").glob("*/*"))
    ]
    return [path for path in places if path.is_file() and os.stat(path).st_mode & 0o444 and path.name not in _SECRET]


_SECRET = {"stable_secret", "tcp_fastopen_key", "flush", "mc_forwarding", "ip_local_port_range"}


def _without_carrier(text: str) -> str:
    return re.sub(r" state [A-Z]+|,LOWER_UP|NO-CARRIER,|,M-DOWN", "", text)


def dnsmasqs(run_dir: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and f"--conf-file={run_dir}/".encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


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

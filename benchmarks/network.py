"""A VPC with 100 groups and 1,000 interfaces: what passes through it, and how fast it is compiled and applied.

    plain    endpoint == veth == a namespace that routes, without a rule == veth == endpoint
    ours     endpoint == veth == bridge == veth == router with the VPC's rules == veth == bridge == veth == endpoint
             past the bridges on the way of shortcuts, where the kernel has them

Both in one run, in turn. Everything is made in a namespace of its own, which goes at the end with all that is in it;
its bridged frames do not pass iptables, as on a host that has not loaded br_netfilter.

Bars: throughput at least 0.9 of plain, latency at most 1.2 times plain's, a rule's change in force within 1 s (for a
compiled and applied VPC of that size: 3 s). They are about the groups: what the queues cost that hold interfaces to
their rates is measured and printed beside. Needs root.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

from servers import verdict

from orchestrator.host import Allow, Policy, Port, Rate, Route, Router, Segment, Table, Way
from orchestrator.host.command import inside, ip, run, write_sysctls
from orchestrator.host.links import bridge_name, tap_name
from orchestrator.host.netns import NetnsNetwork

GROUPS = 100
PORTS = 1000
PAIRS = 7
STREAM_S = 1.5
ROUND_TRIPS = 4000
CHUNK = bytes(1 << 20)
BAR_THROUGHPUT = 0.9
BAR_LATENCY = 1.2
BAR_CHANGE_S = 1.0
BAR_APPLY_S = 3.0

BRIDGED_FRAMES_SEE_IPTABLES = "/proc/sys/net/bridge/bridge-nf-call-iptables"
FRONT, BACK = "subnet-0aaaaaaaaaaaaaaaa", "subnet-0bbbbbbbbbbbbbbbb"
TABLE = Table(name="rtb-0123456789abcdef0", routes=(Route(destination="0.0.0.0/0", way=Way.UPLINK),))
SEGMENTS = (
    Segment(name=FRONT, cidr="10.0.0.0/20", gateway="10.0.0.1", table=TABLE.name),
    Segment(name=BACK, cidr="10.0.16.0/20", gateway="10.0.16.1", table=TABLE.name),
)
RATE = Rate(baseline_bps=100_000_000_000, peak_bps=100_000_000_000, credit_bytes=1 << 30)


def vpc() -> Router:
    """Each group lets in a few services from ranges, and all that the next group has; each interface has two groups."""
    groups = [f"sg-{number:017x}" for number in range(GROUPS)]
    policies = tuple(
        Policy(
            name=name,
            inbound=(
                *(
                    Allow(protocol="tcp", from_port=port, to_port=port + 2, peer_cidr=f"10.0.{number % 32}.0/24")
                    for port in range(1000, 1100, 10)
                ),
                Allow(protocol="tcp", from_port=5000, to_port=5001, peer_cidr="10.0.0.0/16"),
                Allow(protocol="-1", peer_policy=groups[(number + 1) % GROUPS]),
            ),
            outbound=(Allow(protocol="-1", peer_cidr="0.0.0.0/0"),),
        )
        for number, name in enumerate(groups)
    )
    return Router(
        name="vpc-0123456789abcdef0",
        cidrs=("10.0.0.0/16",),
        segments=SEGMENTS,
        ports=tuple(_port(number, groups) for number in range(PORTS)),
        policies=policies,
        tables=(TABLE,),
        domain="ec2.internal",
        resolver="10.0.0.2",
    )


def _port(number: int, groups: list[str]) -> Port:
    segment = SEGMENTS[number % 2]
    address = str(IPv4Network(segment.cidr)[10 + number // 2])
    return Port(
        name=f"eni-{number:05x}{'0' * 12}",
        segment=segment.name,
        mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
        address=address,
        host_name="ip-" + address.replace(".", "-"),
        policies=(groups[number % GROUPS], groups[(number * 7 + 1) % GROUPS]),
        rate=RATE,
    )


# --- the stage ------------------------------------------------------------------------------------------------------


def enter(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(handle, 0x40000000) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter {path}")
    os.close(handle)


@contextmanager
def stage() -> Iterator[ExitStack]:
    """This thread in a namespace of its own, and what is undone in it."""
    name = f"orcbench-{secrets.token_hex(4)}"
    run(["ip", "netns", "add", name])
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter(f"/run/netns/{name}")
        ip(["link set lo up"])
        if os.path.exists(BRIDGED_FRAMES_SEE_IPTABLES):
            Path(BRIDGED_FRAMES_SEE_IPTABLES).write_text("0")
        with ExitStack() as stack:
            yield stack
    finally:
        enter(f"/proc/self/fd/{before}")
        os.close(before)
        run(["ip", "netns", "delete", name])


def namespace(stack: ExitStack, name: str) -> str:
    full = f"orcbench-{name}-{secrets.token_hex(3)}"
    run(["ip", "netns", "add", full])
    stack.callback(run, ["ip", "netns", "delete", full])
    return full


def plug_in(stack: ExitStack, port: Port) -> str:
    """An endpoint where a guest's tap would be."""
    segment = next(segment for segment in SEGMENTS if segment.name == port.segment)
    guest, tap = namespace(stack, "guest"), tap_name(port.name)
    ip(
        [
            f"link add {tap} type veth peer name eth0 address {port.mac} netns {guest}",
            f"link set {tap} master {bridge_name(port.segment)} up",
            f"link set {tap} type bridge_slave isolated on",
        ]
    )
    commands = [
        f"address add {port.address}/20 dev eth0",
        "link set eth0 up",
        f"route add default via {segment.gateway}",
    ]
    inside(guest, lambda: ip(commands))
    return guest


def plain(stack: ExitStack) -> tuple[str, str]:
    """Two endpoints on either side of a namespace that only routes."""
    router, ends = namespace(stack, "plain"), []
    for number in (1, 2):
        end = namespace(stack, "end")
        ip([f"link add leg{number} netns {router} type veth peer name eth0 netns {end}"])
        gateway, address = f"172.16.{number}.1", f"172.16.{number}.2"
        leg = [f"address add {gateway}/24 dev leg{number}", f"link set leg{number} up"]
        inside(router, lambda leg=leg: ip(leg))  # type: ignore[misc]
        own = [f"address add {address}/24 dev eth0", "link set eth0 up", f"route add default via {gateway}"]
        inside(end, lambda own=own: ip(own))  # type: ignore[misc]
        ends.append(end)
    inside(router, lambda: write_sysctls({"ipv4/ip_forward": "1"}))
    return ends[0], ends[1]


# --- what is measured -----------------------------------------------------------------------------------------------


def between(sender: str, receiver: str, address: str, work: Callable[[socket.socket], float], serve: str) -> float:
    """Have a process of the receiver's serve one connection, and another of the sender's do `work` over it."""
    listener = inside(receiver, lambda: socket.create_server((address, 5000)))
    child = os.fork()
    if child == 0:
        connection, _ = listener.accept()
        {"sink": _sink, "echo": _echo}[serve](connection)
        os._exit(0)
    listener.close()
    connection = inside(sender, lambda: socket.create_connection((address, 5000), timeout=10))
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        result = work(connection)
    os.waitpid(child, 0)
    return result


def _sink(connection: socket.socket) -> None:
    buffer = bytearray(len(CHUNK))
    while connection.recv_into(buffer):
        pass


def _echo(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while byte := connection.recv(1):
        connection.send(byte)


def stream(connection: socket.socket) -> float:
    """Gbit/s."""
    begin, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - begin) < STREAM_S:
        connection.sendall(CHUNK)
        sent += len(CHUNK)
    return sent * 8 / elapsed / 1e9


def round_trip(connection: socket.socket) -> float:
    """Microseconds, the median."""
    times = []
    for _ in range(ROUND_TRIPS):
        begin = time.perf_counter()
        connection.send(b"x")
        connection.recv(1)
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def compare(ours: tuple[str, str], address: str, theirs: tuple[str, str]) -> tuple[float, float]:
    """Our throughput and round trip over plain ones: the medians of pairs."""
    gbps: tuple[list[float], list[float]] = ([], [])
    trip_us: tuple[list[float], list[float]] = ([], [])
    for _ in range(PAIRS):
        for index, (ends, target) in enumerate(((ours, address), (theirs, "172.16.2.2"))):
            gbps[index].append(between(*ends, target, stream, "sink"))
            trip_us[index].append(between(*ends, target, round_trip, "echo"))
    print(f"  throughput: ours {statistics.median(gbps[0]):.1f}, plain {statistics.median(gbps[1]):.1f} Gbit/s")
    print(f"  round trip: ours {statistics.median(trip_us[0]):.1f}, plain {statistics.median(trip_us[1]):.1f} us")
    throughput, latency = (
        statistics.median(mine / other for mine, other in zip(*both, strict=True)) for both in (gbps, trip_us)
    )
    return throughput, latency


def timed(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


def main() -> int:
    with stage() as stack, tempfile.TemporaryDirectory() as scratch:
        network = NetnsNetwork(secrets.token_hex(4), Path(scratch) / "run")
        stack.callback(network.remove_leaks, set(), set())
        router = vpc()
        first_s = timed(lambda: network.apply(router))
        same_s = timed(lambda: network.apply(router))
        opened = replace(
            router.policies[0],
            inbound=(
                *router.policies[0].inbound,
                Allow(protocol="udp", from_port=53, to_port=53, peer_cidr="10.0.0.0/8"),
            ),
        )
        rule_s = timed(lambda: network.apply(replace(router, policies=(opened, *router.policies[1:]))))
        network.apply(router)
        moved = replace(router.ports[0], policies=(*router.ports[0].policies, router.policies[50].name))
        member_s = timed(lambda: network.apply(replace(router, ports=(moved, *router.ports[1:]))))
        network.apply(router)
        print(
            f"{PORTS} interfaces, {GROUPS} groups: first apply {first_s * 1e3:.0f} ms (bar {BAR_APPLY_S:g} s), ", end=""
        )
        print(
            f"nothing to do {same_s * 1e3:.0f} ms, one rule {rule_s * 1e3:.0f} ms, one member {member_s * 1e3:.0f} ms"
        )

        one, other = router.ports[0], router.ports[1]
        ours = plug_in(stack, one), plug_in(stack, other)
        theirs = plain(stack)
        network.apply(router)  # as the next pass does, which finds the taps
        print("with rates:")
        held = compare(ours, other.address, theirs)
        network.apply(replace(router, ports=tuple(replace(port, rate=None) for port in router.ports)))
        print("without rates:")
        throughput, latency = compare(ours, other.address, theirs)
    print(
        json.dumps(
            {
                "throughput_ratio": round(throughput, 3),
                "latency_ratio": round(latency, 3),
                "throughput_ratio_with_rates": round(held[0], 3),
                "latency_ratio_with_rates": round(held[1], 3),
            }
        )
    )
    met = (
        throughput >= BAR_THROUGHPUT
        and latency <= BAR_LATENCY
        and max(rule_s, member_s) <= BAR_CHANGE_S
        and first_s <= BAR_APPLY_S
    )
    return verdict(
        throughput,
        met,
        f"our throughput over plain, {PAIRS} pairs; bar {BAR_THROUGHPUT:g}, latency {latency:.2f} of {BAR_LATENCY:g}",
    )


if __name__ == "__main__":
    sys.exit(main())

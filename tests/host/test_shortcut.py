"""Shortcuts past the bridge: that they are taken, and what becomes of them.

What passes while a tap is in no bridge can only have taken a shortcut. What may take one is in test_guard.py.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

import pytest

from orchestrator.host import Port, Rate, Router, Segment, bpf, shortcut
from orchestrator.host.command import inside, run
from orchestrator.host.links import bridge_name, leg_mac, leg_name, plug_name, tap_name
from orchestrator.host.netlink import links
from orchestrator.host.netns import NetnsNetwork
from orchestrator.host.shortcut import Shortcut
from tests.host.stage import (
    PATIENCE_S,
    SILENCE_S,
    SSH,
    Guest,
    Plan,
    batch,
    is_blocked,
    only,
    tcp,
    there,
    udp,
    udp_socket,
)
from tests.host.test_guard import ipv4

RATE = Rate(baseline_bps=1_000_000_000, peak_bps=1_000_000_000, credit_bytes=10_000_000)
SEGMENT = Segment(name="subnet-0123456789abcdef0", cidr="10.0.16.0/20", gateway="10.0.16.1")
PORT = Port(
    name="eni-0123456789abcdef0",
    segment=SEGMENT.name,
    mac="02:00:00:00:00:AB",
    address="10.0.16.5",
    more_addresses=("10.0.16.32/31",),
    host_name="ip-10-0-16-5",
)
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def plan_of(*ports: Port) -> Router:
    return Router(
        name="vpc-0",
        cidrs=("10.0.0.0/16",),
        segments=(SEGMENT,),
        ports=ports,
        policies=(),
        domain="",
        resolver="",
    )


def test_each_address_of_a_port_has_one() -> None:
    found = sorted(shortcut.wanted(plan_of(PORT)))
    assert found[0] == Shortcut(
        tap="eni-0123456789a",
        plug="sl-0123456789ab",
        mac="02:00:00:00:00:ab",
        address="10.0.16.32",
        leg_mac=leg_mac(SEGMENT.name),
        minor=0,
    )
    assert [each.address for each in found] == ["10.0.16.32", "10.0.16.33", "10.0.16.5"]
    assert {each.minor for each in shortcut.wanted(plan_of(replace(PORT, rate=RATE)))} == {5}


# --- on a host -----------------------------------------------------------------------------------------------------


def programs(link: str) -> list[int]:
    return bpf.attached(links()[link].index)


def pull_out(guest: Guest) -> None:
    """Of the bridge, with everybody's hardware address known."""
    batch(f"link set {guest.tap} nomaster", f"link set {guest.tap} up")


@pytest.mark.host
@pytest.mark.parametrize("rate", [None, RATE])
def test_packets_do_not_need_the_bridge(plan: Plan, rate: Rate | None) -> None:
    one, other = plan.guest(10, rate=rate), plan.guest(10, segment=1, rate=rate)
    assert tcp(one, other, other.address) == one.address
    for guest in (one, other):
        pull_out(guest)
    assert tcp(one, other, other.address) == one.address
    assert tcp(other, one, one.address) == other.address
    plan.apply()
    assert links()[one.tap].master == bridge_name(plan.segments[0].name)


@pytest.mark.host
def test_with_a_rate_they_stand_in_the_queue(plan: Plan) -> None:
    one, other = plan.guest(10, rate=RATE), plan.guest(10, segment=1)
    plug = plug_name(plan.segments[0].name)

    def sent() -> int:
        told = run(["tc", "-s", "class", "show", "dev", plug, "classid", "1:a"])
        return int(told.partition("Sent ")[2].split()[0])

    assert udp(one, other, other.address, 9)
    pull_out(one)
    before = sent()
    assert udp(one, other, other.address, 9)
    assert sent() > before


@pytest.mark.host
def test_policies_are_asked_all_the_same(plan: Plan) -> None:
    closed = only(SSH)
    plan.policies = (*plan.policies, closed)
    one, other = plan.guest(10), plan.guest(10, closed, segment=1)
    assert tcp(one, other, other.address) == one.address
    pull_out(one)
    assert is_blocked(one, other, other.address, 23)
    assert tcp(one, other, other.address) == one.address


@pytest.mark.host
def test_a_tap_that_is_replaced_is_reached_at_once(plan: Plan) -> None:
    """By the bridge; and by a shortcut after the next pass."""
    one, other = plan.guest(10), plan.guest(10, segment=1)
    assert tcp(one, other, other.address) == one.address
    other.unplug()
    again = Guest(other.port, plan.segments[1], plan.stage)
    assert programs(again.tap) == []
    assert tcp(one, again, again.address) == one.address
    assert tcp(again, one, one.address) == again.address
    plan.apply()
    pull_out(again)
    assert tcp(one, again, again.address) == one.address


@pytest.mark.host
def test_what_has_left_the_plan_has_none(plan: Plan) -> None:
    one, other = plan.guest(10), plan.guest(10, segment=1)
    assert udp(one, other, other.address, 9)
    plan.ports = [other.port]
    plan.apply()
    pull_out(one)
    assert not udp(one, other, other.address, 9, patience_s=SILENCE_S)
    plan.ports = []
    plan.apply()
    assert programs(other.tap) == []
    assert programs(plug_name(plan.segments[1].name)) == []


@pytest.mark.host
def test_an_address_that_was_taken_away_has_none(plan: Plan) -> None:
    one, other = plan.guest(10, more_addresses=("172.31.0.99",)), plan.guest(10, segment=1)
    assert tcp(other, one, "172.31.0.99")
    plan.change(one, more_addresses=())
    assert is_blocked(other, one, "172.31.0.99")


@pytest.mark.host
def test_they_are_mended_and_taken_over(plan: Plan) -> None:
    one = plan.guest(10)
    plug = plug_name(plan.segments[0].name)
    before = programs(one.tap), programs(plug)
    plan.apply()
    assert (programs(one.tap), programs(plug)) == before
    for link in (one.tap, plug):
        bpf.detach(links()[link].index, (shortcut.FROM_GUEST, shortcut.TO_GUEST))
        assert programs(link) == []
    plan.apply()
    mended = programs(one.tap), programs(plug)
    assert all(len(each) == 1 for each in mended)
    # A controller that has just started knows of none, and leaves none of the other's.
    successor = NetnsNetwork(plan.network.deployment, plan.network._run_dir)
    successor.apply(plan.router)
    taken_over = programs(one.tap), programs(plug)
    assert all(len(each) == 1 for each in taken_over)
    assert taken_over != mended


@pytest.mark.host
def test_a_pass_gives_programs_to_so_many_taps_at_most(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortcut, "MOST_NEW", 2)
    plan.ports = [plan.port(number) for number in range(10, 15)]
    plan.apply()
    guests = [Guest(port, plan.segments[0], plan.stage) for port in plan.ports]

    def with_programs() -> int:
        return sum(len(programs(guest.tap)) for guest in guests)

    counts = []
    for _ in range(4):
        plan.apply()
        counts.append(with_programs())
    assert counts == [2, 4, 5, 5]


@pytest.mark.host
def test_without_them_everything_takes_the_long_way(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = plan.guest(10), plan.guest(10, segment=1)

    def refuse(code: bpf.Code, name: str) -> bpf.Program:
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(bpf, "load", refuse)
    with caplog.at_level(logging.WARNING):
        plan.change(one, rate=RATE)
        plan.apply()
    assert [record.getMessage() for record in caplog.records if "not here" in record.getMessage()] != []
    assert len([record for record in caplog.records if record.name == shortcut.__name__]) == 1
    assert programs(one.tap) == programs(other.tap) == []
    assert tcp(one, other, other.address) == one.address
    monkeypatch.undo()
    plan.apply()
    assert len(programs(one.tap)) == 1


@pytest.mark.host
def test_the_kernel_says_what_is_wrong_with_a_program(stage: object) -> None:
    code = bpf.Code()
    code.read(4, bpf.R0, bpf.R5, 0)
    code.leave()
    with pytest.raises(OSError, match="R5 !read_ok"):
        bpf.load(code, "orc_wrong")


@pytest.mark.host
def test_a_namespace_that_went_is_found_again(plan: Plan) -> None:
    one, other = plan.guest(10), plan.guest(10, segment=1)
    run(["ip", "netns", "delete", plan.name])
    plan.apply()
    assert tcp(one, other, other.address) == one.address
    pull_out(other)
    assert tcp(one, other, other.address) == one.address
    assert inside(plan.name, lambda: "lo" in links())


@contextmanager
def machine(tap: str) -> Iterator[BinaryIO]:
    """A tap and what a machine has of it: one frame for each read and write."""
    with open("/dev/net/tun", "r+b", buffering=0) as frames:
        fcntl.ioctl(frames, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI))
        os.set_blocking(frames.fileno(), False)
        yield frames


def next_with(frames: BinaryIO, marker: bytes) -> bytes:
    while select.select([frames], [], [], PATIENCE_S)[0]:
        frame = frames.read(2048)
        if marker in frame:
            return frame
    raise AssertionError(f"no frame with {marker!r}")


@pytest.mark.host
@pytest.mark.parametrize("rate", [None, RATE])
def test_a_machines_tap_has_them_too(plan: Plan, rate: Rate | None) -> None:
    other = plan.guest(10, segment=1)
    port = plan.port(20, rate=rate)
    plan.ports.append(port)
    tap = tap_name(port.name)
    with machine(tap) as frames:
        batch(f"link set {tap} master {bridge_name(port.segment)} up", f"link set {tap} type bridge_slave isolated on")
        plan.apply()
        assert len(programs(tap)) == 1
        leg = leg_name(port.segment)
        inside(plan.name, lambda: batch(f"neighbour replace {port.address} lladdr {port.mac} dev {leg}"))
        batch(f"link set {tap} nomaster", f"link set {tap} up")
        with there(other, udp_socket) as server:
            server.bind(("", 9))
            server.settimeout(PATIENCE_S)
            own = bytes.fromhex(port.mac.replace(":", ""))
            for payload in (b"hello", bytes(1400)):
                frames.write(ipv4(port.address, other.address, 7, 9, port.mac, leg_mac(port.segment), payload))
                heard, sender = server.recvfrom(2048)
                assert (heard, sender) == (payload, (port.address, 7))
                server.sendto(b"welcome", sender)
                assert next_with(frames, b"welcome").startswith(own)

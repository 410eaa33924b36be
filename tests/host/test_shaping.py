"""Rates: what the kernel is told, and what guests feel of it."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import replace

import pytest

from orchestrator.host import Port, Rate, Router, Segment, shaping
from orchestrator.host.command import inside, run
from orchestrator.host.htb import Limits
from orchestrator.host.links import leg_name, plug_name
from tests.host.stage import PATIENCE_S, Guest, Plan, tcp, tcp_listener, there

SLOW = Rate(baseline_bps=8_000_000, peak_bps=400_000_000, credit_bytes=1_500_000)
T3_NANO = Rate(baseline_bps=32_000_000, peak_bps=5_000_000_000, credit_bytes=37_000_000_000)
LARGEST = Rate(baseline_bps=200_000_000_000, peak_bps=200_000_000_000, credit_bytes=1)


def test_a_class_is_named_after_the_address_within_its_segment() -> None:
    segment = Segment(name="subnet-0123456789abcdef0", cidr="10.0.16.0/20", gateway="10.0.16.1")
    port = Port(
        name="eni-0",
        segment=segment.name,
        mac="02:00:00:00:00:01",
        address="10.0.31.254",
        host_name="ip-10-0-31-254",
        rate=SLOW,
    )
    router = Router(
        name="vpc-0",
        cidrs=("10.0.0.0/16",),
        segments=(segment,),
        ports=(port, replace(port, name="eni-1", address="10.0.16.4", rate=None)),
        policies=(),
        domain="",
        resolver="",
    )
    assert shaping.class_of(port, segment) == "1:ffe"
    assert shaping.classes(router) == {segment.name: {0xFFE: SLOW}}


def test_buckets_stay_within_what_the_kernel_can_count() -> None:
    assert shaping.limits(SLOW) == Limits(1_000_000, 1_500_000, 50_000_000, 131_072, 60_000)
    # 250 s of 4 MB each, since the time to fill a bucket is 32 bits of 64 ns
    assert shaping.limits(T3_NANO).burst_bytes == 1_000_000_000
    largest = shaping.limits(LARGEST)
    assert (largest.burst_bytes, largest.ceiling_bytes_s) == (131_072, 25_000_000_000)
    assert largest.ceiling_burst_bytes == 25_000_000


def send(source: Guest, target: Guest, size: int, port: int) -> float:
    """Seconds that so many bytes take."""
    with tcp_listener(target, port) as listener:
        client = there(source, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        with client:
            client.settimeout(PATIENCE_S * 4)
            client.connect((target.address, port))
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(PATIENCE_S * 4)
                begin = time.monotonic()
                sender = threading.Thread(target=client.sendall, args=(bytes(size),))
                sender.start()
                left = size
                while left:
                    left -= len(connection.recv(1 << 20))
                sender.join()
                return time.monotonic() - begin


@pytest.mark.host
@pytest.mark.parametrize("limited", ["sender", "receiver"])
def test_a_port_bursts_while_its_credit_lasts_and_then_has_its_baseline(plan: Plan, limited: str) -> None:
    one = plan.guest(10, rate=SLOW if limited == "sender" else None)
    other = plan.guest(11, segment=1, rate=SLOW if limited == "receiver" else None)
    assert send(one, other, 1_000_000, 5000) < 0.5  # at the baseline it would take a second
    took_s = send(one, other, 3_000_000, 5001)  # half a million may be left, and 1 MB/s come in
    assert 1.8 < took_s < 4.5


@pytest.mark.host
def test_one_guest_does_not_starve_another(plan: Plan) -> None:
    one, other = plan.guest(10, rate=replace(SLOW, credit_bytes=1)), plan.guest(11, segment=1)
    third = plan.guest(12)
    with tcp_listener(other, 5000) as listener:
        client = there(one, lambda: socket.create_connection((other.address, 5000), timeout=PATIENCE_S))
        with client:
            connection, _ = listener.accept()
            with connection:
                client.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    client.sendall(bytes(20_000_000))
                begin = time.monotonic()
                assert tcp(third, other, other.address, 22) == third.address
                assert send(third, other, 5_000_000, 5002) < 1.0
                assert time.monotonic() - begin < 2.0


@pytest.mark.host
def test_nothing_is_remembered_of_links_that_are_gone(plan: Plan) -> None:
    plan.ports = [plan.port(10, rate=SLOW), plan.port(10, segment=1, rate=SLOW)]
    plan.apply()
    assert len(plan.network._queues._left) == 4
    both, plan.segment_names = plan.segment_names, plan.segment_names[:1]
    plan.ports = plan.ports[:1]
    plan.apply()
    assert {link for namespace, link in plan.network._queues._left if not namespace} == {plug_name(both[0])}
    plan.network.remove(plan.name)
    assert plan.network._queues._left == {}


@pytest.mark.host
def test_queues_follow_the_plan_and_are_mended(plan: Plan) -> None:
    guest = plan.guest(10, rate=SLOW)
    leg, plug = leg_name(plan.segments[0].name), plug_name(plan.segments[0].name)

    def classes() -> tuple[str, str]:
        show = ["tc", "class", "show", "dev"]
        return run([*show, plug]), inside(plan.name, lambda: run([*show, leg]))

    assert all("class htb 1:a root" in told and "rate 8Mbit" in told for told in classes())
    plan.change(guest, rate=replace(SLOW, baseline_bps=16_000_000))
    assert all("rate 16Mbit" in told for told in classes())
    run(["tc", "qdisc", "delete", "dev", plug, "root"])
    inside(plan.name, lambda: run(["tc", "class", "delete", "dev", leg, "classid", "1:a"]))
    plan.apply()
    assert all("rate 16Mbit" in told for told in classes())
    plan.change(guest, rate=None)
    assert not any("htb" in told for told in classes())

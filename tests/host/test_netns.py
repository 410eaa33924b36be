"""The network as a whole: it becomes what the plan says, whatever was there before, and goes without a trace."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from orchestrator.host import HostError, Port, Rate, Route, Way, edge
from orchestrator.host.command import alongside, inside, run
from orchestrator.host.links import bridge_name, edge_name, leg_name, plug_name
from orchestrator.host.netns import NetnsNetwork
from orchestrator.host.nft import Ruleset
from orchestrator.host.nft_tables import Tables
from orchestrator.host.routing import table_number
from tests.host.stage import (
    HOST_ADDRESS,
    OPEN,
    PATIENCE_S,
    SILENCE_S,
    SSH,
    Guest,
    Plan,
    arp,
    batch,
    dnsmasqs,
    edge_of,
    ethernet,
    everything,
    guard_of,
    heard_until,
    is_blocked,
    kill,
    lease,
    make_network,
    new_id,
    only,
    resolve,
    tcp,
    tcp_listener,
    there,
    token,
    wire,
)

pytestmark = pytest.mark.host

RATE = Rate(baseline_bps=8_000_000, peak_bps=5_000_000_000, credit_bytes=1_000_000)


# --- sockets of the controller --------------------------------------------------------------------------------------


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


def test_applying_the_same_again_changes_nothing(
    plan: Plan, network: NetnsNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan.guest(10, public="203.0.113.10")

    def inner() -> list[dict[str, str]]:
        return [inside(name, everything) for name in (plan.name, edge_of(plan))]

    before = (everything(), inner(), dnsmasqs(tmp_path / "run"))
    monkeypatch.setattr("orchestrator.host.dnsmasq.os.kill", lambda *_: pytest.fail("dnsmasq is told to read"))
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


def test_a_plan_that_follows_another_leaves_what_a_look_at_everything_would(
    plan: Plan, network: NetnsNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ports come, go and change, and with them what they may do, what they are called, and their public addresses."""
    guest = plan.guest(10, public="203.0.113.10", rate=RATE)
    whole = network._make_router
    monkeypatch.setattr(network, "_make_router", lambda *_: pytest.fail("everything was looked at"))
    second, third = plan.port(11, rate=RATE), plan.port(12, segment=1, public="203.0.113.12", rate=RATE)

    def arrive() -> None:
        plan.ports += [second, third]

    def change() -> None:
        plan.policies = (OPEN, only(SSH))
        plan.ports[1] = replace(second, policies=(plan.policies[1].name,), rate=replace(RATE, baseline_bps=9_000_000))
        plan.ports[0] = replace(plan.ports[0], public=(), more_addresses=("172.31.0.77",))

    def leave() -> None:
        del plan.ports[2]

    def seen() -> list[Any]:
        inner = [inside(name, everything) for name in (plan.name, edge_of(plan))]
        classes = run(["tc", "class", "show", "dev", plug_name(plan.segments[0].name)])
        files = {name: (tmp_path / "run" / plan.name / name).read_text() for name in ("hosts", "names", "guard.nft")}
        return [everything(), *inner, classes, files, dnsmasqs(tmp_path / "run"), dict(network._queues._left)]

    for act in (arrive, change, leave):
        act()
        plan.follow()
        left = seen()
        with monkeypatch.context() as looking:
            looking.setattr(network, "_make_router", whole)
            plan.apply()
        assert seen() == left
    assert is_blocked("", guest, "203.0.113.10")


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
    "routes of a table gone": lambda plan, _: inside(
        plan.name, lambda: batch(*(f"route flush table {table_number(table.name)}" for table in plan.tables))
    ),
    "all routes gone": lambda plan, _: inside(plan.name, lambda: run(["ip", "route", "flush", "table", "main"])),
    "edge's routes gone": lambda plan, _: inside(edge_of(plan), lambda: run(["ip", "route", "flush", "table", "main"])),
    "rules gone": lambda plan, _: inside(plan.name, lambda: run(["ip", "rule", "flush"])),
    "rule in the way": lambda plan, _: inside(plan.name, lambda: batch("rule add priority 5 blackhole")),
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


SEEN_AT_A_GLANCE = (
    "namespace deleted",
    "namespace's mount gone",
    "router's rules flushed",
    "guard deleted",
    "guard emptied",
    "bridge removed",
    "plug removed",
    "plug unplugged",
    "bridge down",
    "dnsmasq killed",
    "edge deleted",
    "run directory emptied",
)


@pytest.mark.parametrize("damage", SEEN_AT_A_GLANCE)
def test_a_launch_finds_what_it_needs_most(plan: Plan, tmp_path: Path, damage: str) -> None:
    guest = plan.guest(10, public="203.0.113.10")
    DAMAGES[damage](plan, tmp_path / "run")
    other = plan.guest(11)
    assert tcp(guest, other, other.address) == guest.address
    assert tcp("", guest, "203.0.113.10") == HOST_ADDRESS
    assert lease(other, tmp_path)["ip"] == other.address
    assert set(guard_of(plan.network, "ports")) == {guest.tap, other.tap}


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


def test_a_namespace_that_lost_its_name_is_mended_though_the_first_pass_failed(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dnsmasq keeps the old one, and in it the other end of the uplink."""
    guest = plan.guest(10, public="203.0.113.10")
    batch(f"netns delete {plan.name}")
    make, failing = edge.make, [HostError("not just now")]

    def fail_once(*given: Any, **named: Any) -> Any:
        if failing:
            raise failing.pop()
        return make(*given, **named)

    monkeypatch.setattr(edge, "make", fail_once)
    with pytest.raises(HostError, match="not just now"):
        plan.apply()
    plan.apply()
    assert tcp("", guest, "203.0.113.10") == HOST_ADDRESS


UNTOUCHED = (
    "router's rules flushed",
    "guard deleted",
    "router's default route gone",
    "rules gone",
    "forwarding off",
    "dnsmasq killed",
    "edge deleted",
    "run directory emptied",
    "namespace deleted",
)


BESIDE = ("the other segment's bridge removed", "the other segment's cable removed")


@pytest.mark.parametrize("damage", [*UNTOUCHED, *BESIDE])
def test_connections_live_through_it(plan: Plan, tmp_path: Path, damage: str) -> None:
    """Those between guests whose own links are whole."""
    client, server = plan.guest(10), plan.guest(11)
    plan.guest(10, segment=1)
    with tcp_listener(server, 22) as listener, ExitStack() as ends:
        near = ends.enter_context(there(client, lambda: socket.create_connection((server.address, 22), PATIENCE_S)))
        far = ends.enter_context(listener.accept()[0])
        if damage in BESIDE:
            name = (bridge_name, plug_name)[BESIDE.index(damage)]
            batch(f"link delete {name(plan.segments[1].name)}")
        else:
            DAMAGES[damage](plan, tmp_path / "run")
        plan.apply()
        near.settimeout(PATIENCE_S)
        far.settimeout(PATIENCE_S)
        for one, other in ((near, far), (far, near)):
            one.sendall(b"still here")
            assert other.recv(10, socket.MSG_WAITALL) == b"still here"


def test_a_plan_is_told_and_nothing_made(plan: Plan, network: NetnsNetwork, tmp_path: Path) -> None:
    before = everything()
    port = plan.translator(50, public="203.0.113.50")
    plan.use((Route(destination="192.0.2.0/24", way=Way.PORT, target=port.name),), ())
    text = network.plan(plan.router)
    assert "table inet orc" in text
    assert f"iif {leg_name(plan.segments[0].name)} lookup {table_number(plan.tables[0].name)}" in text
    assert f"192.0.2.0/24 via {port.address} dev {leg_name(plan.segments[0].name)}" in text
    assert f"snat ip to {port.address}" in text
    assert "dhcp-range=" in text
    assert everything() == before
    assert not (tmp_path / "run" / plan.name).exists()


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
                public=(("172.31.0.10", f"203.0.113.{10 + number}"),),
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
    tables, ruleset = Tables(), Ruleset("ip", "t", {}, {"c": ("counter",)})

    def handle() -> str:
        return next(line for line in run(["nft", "-a", "list", "table", "ip", "t"]).splitlines() if "table" in line)

    tables.load("", ruleset)
    before = handle()
    tables.load("", ruleset)
    assert handle() == before
    run(["nft", "flush", "table", "ip", "t"])
    tables.load("", ruleset)
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

"""A public bridge: public addresses answer on a LAN, which a namespace plays a machine of."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from orchestrator.host import HostError
from orchestrator.host.command import inside, ip, run, write_sysctls
from orchestrator.host.links import lan_plug_name
from orchestrator.host.netns import NetnsNetwork
from tests.host.stage import Plan, batch, everything, is_blocked, make_network, pings, tcp

pytestmark = pytest.mark.host

OURS = IPv4Network("192.168.77.128/25")
HOST_ON_LAN, MACHINE, FREE = "192.168.77.1", "192.168.77.50", "192.168.77.201"


@pytest.fixture
def machine(stage: ExitStack) -> str:
    """A machine on the LAN of the bridge `br0`, on which the host has an address."""
    name = f"orctest-{secrets.token_hex(4)}"
    batch(
        f"netns add {name}",
        "link add br0 type bridge forward_delay 0",
        f"link add lan0 type veth peer name eth0 netns {name}",
        "link set lan0 master br0 up",
        f"address add {HOST_ON_LAN}/24 dev br0",
        "link set br0 up",
    )
    stage.callback(run, ["ip", "netns", "delete", name])
    inside(name, lambda: batch(f"address add {MACHINE}/24 dev eth0", "link set eth0 up", "link set lo up"))
    return name


def bridged(stage: ExitStack, run_dir: Path, **more: object) -> NetnsNetwork:
    return make_network(stage, run_dir, public_range=OURS, public_bridge="br0", **more)


@pytest.mark.parametrize("egress", [False, True])
def test_the_lan_reaches_public_addresses(stage: ExitStack, tmp_path: Path, machine: str, egress: bool) -> None:
    plan = Plan(bridged(stage, tmp_path / "run", egress=egress), stage)
    guest, private = plan.guest(10, public="192.168.77.200"), plan.guest(11)
    other = plan.guest(12, public="192.168.77.202")
    assert tcp(machine, guest, "192.168.77.200") == MACHINE
    assert tcp(guest, machine, MACHINE, 2222) == "192.168.77.200"
    assert tcp("", guest, "192.168.77.200") == HOST_ON_LAN
    assert tcp(guest, other, "192.168.77.202") == "192.168.77.200"
    assert is_blocked(private, machine, MACHINE, 2222)
    assert not pings(machine, FREE, patience_s=1)
    neighbours = inside(machine, lambda: run(["ip", "neigh", "show", FREE]))
    assert "lladdr" not in neighbours  # nobody answered for an address that nobody has
    assert str(OURS) not in run(["ip", "route"])


def test_the_hosts_gateway_is_the_way_out(stage: ExitStack, tmp_path: Path, machine: str) -> None:
    """What the host's default route is on the bridge; the world sees the public address."""
    inside(machine, lambda: ip(["address add 192.0.2.9/32 dev lo"]))
    batch(f"route add default via {MACHINE} dev br0")
    plan = Plan(bridged(stage, tmp_path / "run", egress=True), stage)
    guest = plan.guest(10, public="192.168.77.200")
    assert tcp(guest, machine, "192.0.2.9", 2222) == "192.168.77.200"
    quiet = Plan(NetnsNetwork(plan.network.deployment, tmp_path / "run", public_range=OURS, public_bridge="br0"), stage)
    quiet.name, quiet.ports, quiet.segment_names = plan.name, plan.ports, plan.segment_names
    quiet.tables, quiet.used_tables = plan.tables, plan.used_tables
    quiet.apply()
    assert is_blocked(guest, machine, "192.0.2.9", 2222)
    assert tcp(guest, machine, MACHINE, 2222) == "192.168.77.200"


def test_the_range_must_be_of_the_lan(stage: ExitStack, tmp_path: Path, machine: str) -> None:
    network = make_network(stage, tmp_path / "run", public_bridge="br0")
    with pytest.raises(HostError, match=r"203\.0\.113\.0/24 is no part of the LAN .* 192\.168\.77\.0/24"):
        Plan(network, stage).apply()
    batch(f"address delete {HOST_ON_LAN}/24 dev br0")
    with pytest.raises(HostError, match="has no IPv4 address there"):
        Plan(network, stage).apply()


def test_a_bridge_that_is_not_there_is_named(stage: ExitStack, tmp_path: Path) -> None:
    plan = Plan(bridged(stage, tmp_path / "run"), stage)
    with pytest.raises(HostError, match=r"network\.public_bridge.*'br0'"):
        plan.apply()


def test_the_bridge_is_left_as_it_was_found(stage: ExitStack, tmp_path: Path, machine: str) -> None:
    before = everything()
    network = bridged(stage, tmp_path / "run")
    plan = Plan(network, stage)
    plan.guest(10, public="192.168.77.200").unplug()
    assert lan_plug_name(network.deployment) in run(["ip", "link", "show", "master", "br0"])
    network.remove(plan.name)
    assert everything() == before


@pytest.mark.parametrize("damage", ["cable removed", "unplugged", "settings", "routes"])
def test_damage_to_the_lan_cable_is_mended(stage: ExitStack, tmp_path: Path, machine: str, damage: str) -> None:
    network = bridged(stage, tmp_path / "run")
    plan = Plan(network, stage)
    guest = plan.guest(10, public="192.168.77.200")
    plug, edge = lan_plug_name(network.deployment), f"orc-{network.deployment}"
    if damage == "cable removed":
        batch(f"link delete {plug}")
    elif damage == "unplugged":
        batch(f"link set {plug} nomaster down")
    elif damage == "settings":
        inside(edge, lambda: write_sysctls({"ipv4/conf/lan/proxy_arp": "0"}))
    else:
        inside(edge, lambda: run(["ip", "route", "flush", "dev", "lan"]))
    plan.apply()
    assert tcp(machine, guest, "192.168.77.200") == MACHINE


def test_with_and_without_a_bridge_by_turns(stage: ExitStack, tmp_path: Path, machine: str) -> None:
    network = bridged(stage, tmp_path / "run")
    plan = Plan(network, stage)
    guest = plan.guest(10, public="192.168.77.200")
    plan.network = NetnsNetwork(network.deployment, tmp_path / "run", public_range=OURS)
    plan.apply()
    assert tcp("", guest, "192.168.77.200") == str(OURS[1])
    assert is_blocked(machine, guest, "192.168.77.200")
    plan.network = network
    plan.apply()
    assert tcp("", guest, "192.168.77.200") == HOST_ON_LAN
    assert tcp(machine, guest, "192.168.77.200") == MACHINE

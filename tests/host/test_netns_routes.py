"""Route tables, ports that send on, translators and peerings: where a packet goes, seen at its end."""

from __future__ import annotations

import socket
from contextlib import ExitStack, closing
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from orchestrator.host import Allow, Peering, Port, Route, Way
from orchestrator.host.command import inside, run, write_sysctls
from orchestrator.host.links import bridge_name, peer_name, tap_name, translator_name
from orchestrator.host.netns import NetnsNetwork
from orchestrator.host.routing import table_number
from tests.host.stage import (
    HOST_ADDRESS,
    PATIENCE_S,
    SILENCE_S,
    UP,
    Guest,
    Plan,
    batch,
    heard_until,
    is_blocked,
    new_id,
    only,
    pings,
    resolve,
    tcp,
    tcp_listener,
    there,
    token,
    udp,
    udp_socket,
    wire,
)

pytestmark = pytest.mark.host


def to(destination: str, way: Way, target: str | Guest | Port = "") -> Route:
    name = target if isinstance(target, str) else target.port.name if isinstance(target, Guest) else target.name
    return Route(destination=destination, way=way, target=name)


OUT = to("0.0.0.0/0", Way.UPLINK)


def sends_on(guest: Guest) -> Guest:
    """As a machine that routes is set up."""
    inside(guest.namespace, lambda: write_sysctls({"ipv4/ip_forward": "1", "ipv4/conf/all/send_redirects": "0"}))
    inside(guest.namespace, lambda: write_sysctls({"ipv4/conf/eth0/send_redirects": "0"}))
    return guest


def translates(guest: Guest) -> Guest:
    rules = 'table ip nat { chain out { type nat hook postrouting priority 100; oifname "eth0" masquerade; }; }'
    inside(guest.namespace, lambda: run(["nft", "-f", "-"], rules))
    return sends_on(guest)


# --- tables --------------------------------------------------------------------------------------------------------


def test_each_segment_has_its_own_way_out(plan: Plan) -> None:
    plan.use((OUT,), ())
    near, far = plan.guest(10, public="203.0.113.10"), plan.guest(10, segment=1, public="203.0.113.11")
    assert tcp(near, "", HOST_ADDRESS, 2222) == "203.0.113.10"
    assert is_blocked(far, "", HOST_ADDRESS, 2222)
    assert tcp(near, far, far.address) == near.address
    plan.use((), (OUT,))
    plan.apply()
    assert is_blocked(near, "", HOST_ADDRESS, 2222)
    assert tcp(far, "", HOST_ADDRESS, 2222) == "203.0.113.11"


def test_a_segment_without_a_table_is_local(plan: Plan) -> None:
    plan.used_tables = ()
    one, other = plan.guest(10, public="203.0.113.10"), plan.guest(10, segment=1)
    assert tcp(one, other, other.address) == one.address
    assert is_blocked(one, "", HOST_ADDRESS, 2222)
    assert resolve(one, "ip-172-31-0-10.ec2.internal", "172.31.0.2") == ["172.31.0.10"]


def test_the_longest_prefix_decides(plan: Plan) -> None:
    """A machine that sends on gets what its route says, and what is more precise goes another way."""
    middle = sends_on(plan.guest(20, segment=1, check_addresses=False))
    inside(middle.namespace, lambda: batch("address add 192.0.2.1/32 dev lo", "address add 192.0.2.129/32 dev lo"))
    guest = plan.guest(10)
    wide, half = to("192.0.2.0/24", Way.PORT, middle), to("192.0.2.128/25", Way.NOWHERE)
    plan.use((OUT, wide, half), (OUT,))
    plan.apply()
    assert tcp(guest, middle, "192.0.2.1") == guest.address
    assert is_blocked(guest, middle, "192.0.2.129")
    plan.use((OUT, wide, half, to("192.0.2.129/32", Way.PORT, middle)), (OUT,))
    plan.apply()
    assert tcp(guest, middle, "192.0.2.129") == guest.address


def test_a_route_within_the_network_goes_by_a_middlebox(plan: Plan, network: NetnsNetwork, stage: ExitStack) -> None:
    """From the first segment to the second by a machine in the third, and back."""
    plan.segment_names = tuple(new_id("subnet") for _ in range(3))
    plan.use((OUT,), (OUT,), (OUT,))
    one, other = plan.guest(10), plan.guest(11, segment=1)
    middle = sends_on(plan.guest(20, segment=2, check_addresses=False))
    first, second, _ = plan.segments
    plan.use((to(second.cidr, Way.PORT, middle),), (to(first.cidr, Way.PORT, middle),), ())
    plan.apply()
    with wire(middle, "eth0") as hearing, there(one, udp_socket) as sender:
        secret = token()
        sender.sendto(secret, (other.address, 9))
        assert heard_until(hearing, secret)
    assert tcp(one, other, other.address) == one.address
    inside(middle.namespace, lambda: write_sysctls({"ipv4/ip_forward": "0"}))
    assert is_blocked(one, other, other.address)


def test_a_route_to_a_port_that_is_not_there_drops(plan: Plan) -> None:
    guest = plan.guest(10, public="203.0.113.10")
    plan.use((OUT, to(f"{HOST_ADDRESS}/32", Way.PORT, new_id("eni"))), ())
    plan.apply()
    assert is_blocked(guest, "", HOST_ADDRESS, 2222)
    plan.use((OUT,), ())
    plan.apply()
    assert tcp(guest, "", HOST_ADDRESS, 2222) == "203.0.113.10"


def test_an_instance_can_be_the_way_out(plan: Plan) -> None:
    """As people build NAT instances: the private segment's default route leads to one that masquerades."""
    nat = translates(plan.guest(20, public="203.0.113.20", check_addresses=False))
    private = plan.guest(10, segment=1)
    plan.use((OUT,), (to("0.0.0.0/0", Way.PORT, nat),))
    plan.apply()
    assert tcp(private, "", HOST_ADDRESS, 2222) == "203.0.113.20"
    assert tcp(private, nat, nat.address) == private.address
    plan.change(nat, check_addresses=True)
    assert is_blocked(private, "", HOST_ADDRESS, 2222)


def test_tables_keep_their_numbers(plan: Plan) -> None:
    plan.use(UP, ())
    plan.guest(10)
    before = inside(plan.name, lambda: run(["ip", "rule"]))
    plan.tables = (*plan.tables[::-1], *plan.tables[:0])
    plan.apply()
    assert inside(plan.name, lambda: run(["ip", "rule"])) == before
    assert str(table_number(plan.tables[0].name)) in before


def test_rules_come_and_go_with_tables_that_differ(plan: Plan) -> None:
    one, other = plan.guest(10), plan.guest(10, segment=1, public="203.0.113.10")

    def rules() -> int:
        return len(inside(plan.name, lambda: run(["ip", "rule"])).splitlines())

    for routes, count in (((UP, UP), 3), ((UP, ()), 7), ((UP, UP), 3)):
        plan.use(*routes)
        plan.apply()
        assert rules() == count
        assert tcp(one, other, other.address) == one.address
        assert bool(tcp(other, "", HOST_ADDRESS, 2222, patience_s=SILENCE_S)) == (routes[1] == UP)


# --- translators ---------------------------------------------------------------------------------------------------


def outwards(plan: Plan, *, public: str = "203.0.113.50") -> Port:
    """A translator in the first segment, by which the second reaches the outside."""
    port = plan.translator(50, public=public)
    plan.use((OUT,), (to("0.0.0.0/0", Way.PORT, port),))
    return port


def test_a_translator_shows_its_public_address(plan: Plan, network: NetnsNetwork, stage: ExitStack) -> None:
    port = outwards(plan)
    inner = plan.guest(10, segment=1)
    server_plan = Plan(network, stage)
    server = server_plan.guest(11, public="203.0.113.11")
    assert tcp(inner, server, "203.0.113.11") == "203.0.113.50"
    assert tcp(inner, "", HOST_ADDRESS, 2222) == "203.0.113.50"
    assert udp(inner, server, "203.0.113.11", 53)
    assert pings(inner, "203.0.113.11")
    assert is_blocked(server, inner, "203.0.113.50")  # nobody begins from outside
    assert is_blocked(inner, inner, port.address)
    near = plan.guest(12)
    assert tcp(inner, near, near.address) == inner.address  # what is inside stays as it is


def test_a_private_translator_shows_its_own_address(peers: tuple[Plan, Plan]) -> None:
    one, other = peers
    port = one.translator(50)
    one.use((OUT, to(other.cidr, Way.PEER, one.peerings[0].name)), (to(other.cidr, Way.PORT, port),))
    inner, server = one.guest(10, segment=1), other.guest(11)
    assert tcp(inner, server, server.address) == port.address
    assert is_blocked(server, inner, inner.address)
    one.use((OUT,), (to("0.0.0.0/0", Way.PORT, port),))
    one.apply()
    assert is_blocked(inner, "", HOST_ADDRESS, 2222)


def test_a_translator_goes_with_its_port(plan: Plan, network: NetnsNetwork) -> None:
    port = outwards(plan)
    inner = plan.guest(10, segment=1)
    name = translator_name(plan.name, port.name)
    assert network.leaks({plan.name}, {port.name, inner.port.name}) == []
    assert network.leaks({plan.name}, {inner.port.name}) == [f"translator {name}"]
    assert network.routers() == [plan.name]
    plan.ports.remove(port)
    plan.apply()
    assert tap_name(port.name) not in run(["ip", "link"])
    assert name not in {path.name for path in Path("/run/netns").iterdir()}
    assert is_blocked(inner, "", HOST_ADDRESS, 2222)


TRANSLATOR_DAMAGES = {
    "namespace deleted": lambda plan, port: batch(f"netns delete {translator_name(plan.name, port.name)}"),
    "cable removed": lambda plan, port: batch(f"link delete {tap_name(port.name)}"),
    "cable unplugged": lambda plan, port: batch(f"link set {tap_name(port.name)} nomaster"),
    "link down": lambda plan, port: inside(translator_name(plan.name, port.name), lambda: batch("link set eth0 down")),
    "rules flushed": lambda plan, port: inside(
        translator_name(plan.name, port.name), lambda: run(["nft", "flush", "ruleset"])
    ),
    "address gone": lambda plan, port: inside(
        translator_name(plan.name, port.name), lambda: batch("address flush dev eth0")
    ),
    "bridge removed": lambda plan, port: batch(f"link delete {bridge_name(port.segment)}"),
}


@pytest.mark.parametrize("damage", TRANSLATOR_DAMAGES)
def test_a_damaged_translator_is_mended(plan: Plan, damage: str) -> None:
    port = outwards(plan)
    inner = plan.guest(10, segment=1)
    TRANSLATOR_DAMAGES[damage](plan, port)
    plan.apply()
    assert tcp(inner, "", HOST_ADDRESS, 2222) == "203.0.113.50"


# --- peerings ------------------------------------------------------------------------------------------------------


@pytest.fixture
def peers(plan: Plan, network: NetnsNetwork, stage: ExitStack) -> tuple[Plan, Plan]:
    """Two routers with a cable between them, and routes to each other in their first segments."""
    other = Plan(network, stage, cidr="10.7.0.0/16")
    connect(plan, other)
    return plan, other


def connect(one: Plan, other: Plan, *, name: str = "") -> str:
    name = name or new_id("pcx")
    for here, away in ((one, other), (other, one)):
        here.peerings += (Peering(name=name, router=away.name, their_cidrs=(away.cidr,)),)
        here.use((OUT, *here.tables[0].routes[2:], to(away.cidr, Way.PEER, name)), (OUT,))
    return name


def test_peers_reach_each_other_by_private_addresses(peers: tuple[Plan, Plan]) -> None:
    one, other = peers
    here = one.guest(10)
    assert is_blocked(here, here, "10.7.0.10")
    there_ = other.guest(10)
    assert tcp(here, there_, there_.address) == here.address
    assert tcp(there_, here, here.address) == there_.address
    assert pings(here, there_.address)
    elsewhere = other.guest(11, segment=1)  # whose segment has no route back
    assert is_blocked(here, elsewhere, elsewhere.address)


def test_policies_of_both_sides_count_between_peers(peers: tuple[Plan, Plan]) -> None:
    one, other = peers
    web = only(Allow(protocol="tcp", from_port=80, to_port=80, peer_cidr=one.cidr))
    other.policies = (*other.policies, web)
    here, there_ = one.guest(10), other.guest(10, web)
    assert tcp(here, there_, there_.address, 80) == here.address
    assert is_blocked(here, there_, there_.address, 81)


def test_there_is_no_transit(peers: tuple[Plan, Plan], network: NetnsNetwork, stage: ExitStack) -> None:
    """Neither to a third router, nor to the outside, nor by what a guest claims."""
    one, middle = peers
    third = Plan(network, stage, cidr="10.8.0.0/16")
    connect(middle, third)
    name = one.peerings[0].name
    one.use((to(middle.cidr, Way.PEER, name), to(third.cidr, Way.PEER, name), to("0.0.0.0/0", Way.PEER, name)), ())
    here, between, far = one.guest(10), middle.guest(10, public="203.0.113.10"), third.guest(10)
    middle.use((*middle.tables[0].routes, to(one.cidr, Way.PEER, name)), ())
    middle.apply()
    assert tcp(here, between, between.address) == here.address
    assert tcp(between, far, far.address) == between.address
    assert is_blocked(here, far, far.address)
    assert is_blocked(here, "", HOST_ADDRESS, 2222)


def test_a_cable_is_there_while_both_name_it(peers: tuple[Plan, Plan], network: NetnsNetwork) -> None:
    one, other = peers
    here, there_ = one.guest(10), other.guest(10)
    link = peer_name(one.peerings[0].name)

    def ends() -> list[bool]:
        return [link in inside(each.name, lambda: run(["ip", "link"])) for each in peers]

    assert ends() == [True, True]
    kept, one.peerings = one.peerings, ()
    one.apply()
    assert ends() == [False, False]
    assert is_blocked(there_, here, here.address)
    other.apply()
    assert ends() == [False, False]
    one.peerings = kept
    one.apply()
    assert ends() == [True, True]
    assert tcp(here, there_, there_.address) == here.address
    there_.unplug()
    network.remove(other.name)
    assert link not in inside(one.name, lambda: run(["ip", "link"]))
    one.apply()
    assert is_blocked(here, here, there_.address)


PEER_DAMAGES = {
    "cable removed": lambda one, other: inside(
        one.name, lambda: batch(f"link delete {peer_name(one.peerings[0].name)}")
    ),
    "near end down": lambda one, other: inside(
        one.name, lambda: batch(f"link set {peer_name(one.peerings[0].name)} down")
    ),
    "routes gone": lambda one, other: inside(
        one.name, lambda: batch(f"route flush table {table_number(one.tables[0].name)}")
    ),
    "namespace deleted": lambda one, other: batch(f"netns delete {one.name}"),
    "namespace's mount gone": lambda one, other: run(["umount", f"/run/netns/{one.name}"]),
}


@pytest.mark.parametrize("fresh_controller", [False, True], ids=["same", "anew"])
@pytest.mark.parametrize("damage", PEER_DAMAGES)
def test_a_damaged_peering_is_mended(
    peers: tuple[Plan, Plan], network: NetnsNetwork, tmp_path: Path, damage: str, fresh_controller: bool
) -> None:
    """By the next pass of the router that was hit; a new controller passes over each of them."""
    one, other = peers
    here, there_ = one.guest(10), other.guest(10)
    PEER_DAMAGES[damage](one, other)
    if fresh_controller:
        one.network = other.network = NetnsNetwork(network.deployment, tmp_path / "run")
    one.apply()
    if fresh_controller:
        other.apply()
    assert tcp(here, there_, there_.address) == here.address
    assert tcp(there_, here, here.address) == there_.address


def test_networks_with_the_same_addresses_stay_apart(plan: Plan, network: NetnsNetwork, stage: ExitStack) -> None:
    """Two with the same range, both peers of a third, which has one of them as a peer."""
    twin, hub = Plan(network, stage), Plan(network, stage, cidr="10.7.0.0/16")
    connect(plan, hub)
    one, other, guest = plan.guest(10), twin.guest(10), hub.guest(10)
    assert one.address == other.address
    assert tcp(guest, one, one.address) == guest.address
    assert is_blocked(guest, other, other.address)
    assert is_blocked(other, guest, guest.address)


# --- several addresses ---------------------------------------------------------------------------------------------


def test_a_port_has_several_addresses_and_prefixes(plan: Plan) -> None:
    first = plan.segments[0]
    more = (str(IPv4Network(first.cidr)[99]), str(IPv4Network(f"{IPv4Network(first.cidr)[160]}/28")))
    guest = plan.guest(10, more_addresses=more)
    inner = str(IPv4Network(more[1])[7])
    near, far = plan.guest(11), plan.guest(11, segment=1)
    guest.run("ip", "address", "add", f"{inner}/32", "dev", "eth0")
    for client in (near, far):
        for address in (guest.address, more[0], inner):
            assert tcp(client, guest, address) == client.address
    assert tcp_from(guest, inner, near) == inner
    assert is_blocked(near, guest, str(IPv4Network(first.cidr)[100]))


def tcp_from(source: Guest, address: str, target: Guest) -> str:
    """Connect from one of several addresses; what the target saw."""
    with tcp_listener(target, 22) as listener:
        make = lambda: socket.create_connection((target.address, 22), PATIENCE_S, (address, 0))  # noqa: E731
        with there(source, make):
            connection, (peer, *_) = listener.accept()
            connection.close()
            return str(peer).removeprefix("::ffff:")


def test_each_private_address_has_its_own_public_one(plan: Plan) -> None:
    first = IPv4Network(plan.segments[0].cidr)
    guest = plan.guest(10, more_addresses=(str(first[99]),))
    plan.change(guest, public=((guest.address, "203.0.113.10"), (str(first[99]), "203.0.113.99")))
    for public, private in (("203.0.113.10", guest.address), ("203.0.113.99", str(first[99]))):
        with tcp_listener(guest, 22) as listener, closing(socket.create_connection((public, 22), PATIENCE_S)):
            connection, _ = listener.accept()
            with connection:
                assert connection.getsockname()[0].removeprefix("::ffff:") == private
    with tcp_listener("", 2222) as listener:
        make = lambda: socket.create_connection((HOST_ADDRESS, 2222), PATIENCE_S, (str(first[99]), 0))  # noqa: E731
        with there(guest, make):
            connection, (peer, *_) = listener.accept()
            connection.close()
            assert peer.removeprefix("::ffff:") == "203.0.113.99"

"""Policies, as packets feel them."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from dataclasses import replace

import pytest

from orchestrator.host import Allow, Policy
from orchestrator.host.command import alongside
from tests.host.stage import (
    ANYWHERE,
    OPEN,
    PATIENCE_S,
    SILENCE_S,
    SO_RCVBUFFORCE,
    SSH,
    Plan,
    is_blocked,
    new_id,
    only,
    pings,
    tcp,
    tcp_listener,
    there,
    udp,
    udp_socket,
)

pytestmark = pytest.mark.host


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

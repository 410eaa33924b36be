"""Who reaches whom: every guest asks every address on every port, and the answers are those that EC2's rules give.

Rows made by the API are compiled and applied to real namespaces, bridges and rules; packets are sent; and an evaluator
that knows the rules and nothing of the host says for each of them where it should have gone.
"""

from __future__ import annotations

import resource
import secrets
from collections import Counter
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import pytest

from orchestrator.host import Router
from orchestrator.host.netns import NetnsNetwork
from orchestrator.model.elastic_ip import public_addresses
from orchestrator.model.vpc import NetworkInterface
from orchestrator.reconcile.plan import plan
from tests.api.ec2.conftest import Api
from tests.matrix.guests import Answer, Guests, Question
from tests.matrix.naive import Arrived, Naive, Packet
from tests.matrix.scenario import PUBLIC_RANGE, TCP_PORTS, UDP_PORTS, Country

pytestmark = pytest.mark.host

SOURCE_PORT = 40000


def routers(api: Api, country: Country) -> list[Router]:
    found = (plan(api.store, vpc_id) for vpc_id in country.vpcs.values() if vpc_id.startswith("vpc-"))
    return [router for router in found if router is not None]


def questions(api: Api, country: Country) -> list[Question]:
    """Every guest, every address of another (private ones that two VPCs share are one), every port."""
    interfaces = [api.get(NetworkInterface, each) for each in country.interfaces.values()]
    publics = {
        each.id: [found.public_ip for found in public_addresses(api.store, each).values()] for each in interfaces
    }
    own = {each.id: {*each.private_ips, *publics[each.id]} for each in interfaces}
    public = [address for held in publics.values() for address in held]
    addresses = sorted({address for each in interfaces for address in each.private_ips}) + public
    ports = [("tcp", port) for port in TCP_PORTS] + [("udp", port) for port in UDP_PORTS] + [("icmp", 0)]
    return [
        Question(each.id, protocol, address, port)
        for each, address, (protocol, port) in product(interfaces, addresses, ports)
        if address not in own[each.id]
    ]


def expected(api: Api, country: Country, question: Question) -> tuple[Answer | None, str]:
    """The answer, and the reason where there is none."""
    box, router = country.interfaces["red-natbox"], country.interfaces["red-router"]
    naive = Naive(api.store, forwards={router}, masquerades={box})
    source = api.get(NetworkInterface, question.interface).private_ip
    port = 8 if question.protocol == "icmp" else question.port
    packet = Packet(question.protocol, source, SOURCE_PORT, question.destination, port)
    there, back = naive.ask_and_answer(question.interface, packet)
    if not isinstance(there, Arrived):
        return None, there
    if not isinstance(back, Arrived):
        return None, f"arrived at {there.interface}; the answer: {back}"
    if back.interface != question.interface:
        return None, f"the answer went to {back.interface}"
    if question.protocol == "icmp":
        return Answer("", ""), ""
    return Answer(there.interface, there.packet.source), ""


def test_every_packet_goes_where_ec2s_rules_send_it(
    api: Api, country: Country, stage: ExitStack, tmp_path: Path
) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65536), most))
    network = NetnsNetwork(secrets.token_hex(4), tmp_path / "run", public_range=PUBLIC_RANGE)
    stage.callback(network.remove_leaks, set(), set())
    guests = Guests(stage)
    plans = routers(api, country)
    for router in (*plans, *plans):  # peers come to each other's knowledge by the second pass
        network.apply(router)
    for router in plans:
        guests.plug_in(router)
        network.apply(router)  # finds the taps, and makes shortcuts past the bridge for them
    guests.forward(country.interfaces["red-router"])
    guests.forward(country.interfaces["red-natbox"], masquerade=True)

    asked = questions(api, country)
    answers = guests.ask(asked)

    names = {interface: name for name, interface in country.interfaces.items()}
    wrong = []
    told: Counter[bool] = Counter()
    for question in asked:
        answer, reason = expected(api, country, question)
        told[answer is not None] += 1
        if answers.get(question) != answer:
            who = names[question.interface]
            wrong.append(f"{who} {question}: expected {answer} {reason}; got {answers.get(question)}")
    assert not wrong, f"{len(wrong)} of {len(asked)} are wrong:\n" + "\n".join(wrong[:60])
    assert told[True] > 150, told
    assert told[False] > 500, told

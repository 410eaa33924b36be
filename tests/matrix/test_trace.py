"""`orc trace` says what EC2's rules say, for every question of the matrix: by rows alone, no packet is sent."""

from __future__ import annotations

from collections import Counter

from orchestrator.host import Probe
from orchestrator.model.vpc import NetworkInterface
from orchestrator.reconcile.trace import trace
from tests.api.ec2.conftest import Api
from tests.matrix.naive import Arrived, Naive, Packet
from tests.matrix.scenario import Country
from tests.matrix.test_matrix import SOURCE_PORT, questions, routers

Where = tuple[str, str, str]  # interface, and source and destination as it sees them


def test_a_trace_ends_where_the_packet_does(api: Api, country: Country) -> None:
    plans = {router.name: router for router in routers(api, country)}
    box, router = country.interfaces["red-natbox"], country.interfaces["red-router"]
    wrong = []
    told: Counter[bool] = Counter()
    for question in questions(api, country):
        source = api.get(NetworkInterface, question.interface).private_ip
        port = 8 if question.protocol == "icmp" else question.port
        naive = Naive(api.store, forwards={router}, masquerades={box})
        packet = Packet(question.protocol, source, SOURCE_PORT, question.destination, port)
        there, back = naive.ask_and_answer(question.interface, packet)
        probe = Probe(
            port=question.interface,
            source=source,
            destination=question.destination,
            protocol=question.protocol,
            destination_port=question.port,
        )
        told_by_trace = trace(plans, probe, masquerades={box}, source_port=SOURCE_PORT)
        wanted: Where | None = None
        if isinstance(there, Arrived):
            wanted = (there.interface, there.packet.source, there.packet.destination)
        found: Where | None = None
        if (arrival := told_by_trace.arrival) is not None:
            found = (arrival.interface_id, arrival.source, arrival.destination)
        passes = isinstance(back, Arrived) and back.interface == question.interface
        told[passes] += 1
        if wanted != found or passes != told_by_trace.passed:
            wrong.append(f"{question}: {there} / {back}; the trace: {found} {told_by_trace.steps[-1]}")
    assert not wrong, f"{len(wrong)} are wrong:\n" + "\n".join(wrong[:40])
    assert told[True] > 150, told

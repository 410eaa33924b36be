"""Real packets through a router's rules, where a port sends on what others sent, and what is recorded of them.

    alice --- leg -- router -- leg --- bob: may send on
                       |
                      leg --- carol

The router and the three are namespaces, each at the end of a cable: no bridge and no guard. Alice's table has a route
to carol by bob, and bob hands everything back to the router, so a packet passes the router twice. Packets are UDP, and
the one who is asked answers with its own name.
"""

from __future__ import annotations

import secrets
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import pytest

from orchestrator.host import Acl, AclRule, Allow, Flow, Policy, Port, Router, Segment, ruleset
from orchestrator.host.command import inside, ip, run, write_sysctls
from orchestrator.host.links import leg_mac, leg_name
from orchestrator.host.nft_tables import Tables

pytestmark = pytest.mark.host

PATIENCE_S = 5.0
SILENCE_S = 0.15
ANYWHERE = "0.0.0.0/0"
ALL = (Allow(protocol="-1", peer_cidr=ANYWHERE),)
NAMES = ("alice", "bob", "carol")
SEGMENTS = {
    name: Segment(name=f"subnet-0{at}", cidr=f"10.0.{at}.0/24", gateway=f"10.0.{at}.1") for at, name in enumerate(NAMES)
}
ADDRESS = {name: f"10.0.{at}.10" for at, name in enumerate(NAMES)}
MAC = {name: f"02:00:00:00:00:0{at}" for at, name in enumerate(NAMES)}
ELSEWHERE = "192.0.2.7"  # beyond bob
ALL_PASS = (AclRule(number=100, accept=True, protocol="-1", cidr=ANYWHERE),)


def plan(*, inbound: dict[str, tuple[Allow, ...]], outbound: dict[str, tuple[Allow, ...]] | None = None) -> Router:
    """Who lets in what; what they let out is everything unless said. Bob is not checked."""
    return Router(
        name="vpc-0a",
        cidrs=("10.0.0.0/16",),
        segments=tuple(SEGMENTS.values()),
        ports=tuple(
            Port(
                name=f"eni-{name}",
                segment=SEGMENTS[name].name,
                mac=MAC[name],
                address=ADDRESS[name],
                host_name=name,
                policies=(f"sg-{name}",),
                check_addresses=name != "bob",
                log=True,
            )
            for name in NAMES
        ),
        policies=tuple(
            Policy(name=f"sg-{name}", inbound=inbound.get(name, ()), outbound=(outbound or {}).get(name, ALL))
            for name in NAMES
        ),
        domain="ec2.internal",
        resolver="",
        uplink=False,
    )


@dataclass
class Stage:
    prefix: str = field(default_factory=lambda: f"orctest-{secrets.token_hex(4)}")
    tables: Tables = field(default_factory=Tables)

    def name(self, who: str) -> str:
        return f"{self.prefix}-{who}"

    def load(self, router: Router) -> None:
        self.do("router", lambda: self.tables.load(self.name("router"), ruleset.router(router)))

    def do(self, who: str, work: object) -> None:
        assert callable(work)
        inside(self.name(who), work)

    def by_bob(self, on: bool) -> None:
        """Whether alice's packets to carol, and those to elsewhere, go by bob."""
        verb = "replace" if on else "delete"
        via = f"via {ADDRESS['bob']} dev {leg_name(SEGMENTS['bob'].name)} onlink table 100"
        self.do("router", lambda: ip(f"route {verb} {target}/32 {via}" for target in (ADDRESS["carol"], ELSEWHERE)))

    def ask(self, who: str, address: str, *, source: str = "", port: int = 7, from_port: int = 0) -> str:
        """Who answers; empty when nobody does."""

        def send() -> socket.socket:
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            asking.bind((source, from_port))
            asking.sendto(b"who?", (address, port))
            return asking

        with inside(self.name(who), send) as asking:
            if not select.select([asking], [], [], SILENCE_S)[0]:
                return ""
            answer, (sender, _) = asking.recvfrom(64)
            assert sender == address
            return answer.decode()

    @contextmanager
    def answering(self, who: str, address: str, port: int = 7) -> Iterator[list[bytes]]:
        """Answer on a local address; what was heard."""

        def listen() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((address, port))
            return made

        heard: list[bytes] = []
        with inside(self.name(who), listen) as listener:
            reader, writer = socket.socketpair()

            def serve() -> None:
                while reader not in (ready := select.select([listener, reader], [], [])[0]) or listener in ready:
                    data, sender = listener.recvfrom(64)
                    heard.append(data)
                    listener.sendto(who.encode(), sender)

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                yield heard
            finally:
                writer.send(b"enough")
                thread.join(PATIENCE_S)
                reader.close()
                writer.close()

    def flows(self, router: Router) -> set[tuple[str, bool, bool]]:
        """Who sent (or received), and whether that was accepted."""

        def read() -> list[Flow]:
            told = [run(["nft", "-n", "-j", "list", "set", "inet", "orc", name]) for name in ruleset.flow_sets(router)]
            return ruleset.read_flows(router, told)

        return {
            (flow.port.removeprefix("eni-"), flow.outbound, flow.accepted) for flow in inside(self.name("router"), read)
        }


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    with ExitStack() as stack:
        for who in ("router", *NAMES):
            run(["ip", "netns", "add", stage.name(who)])
            stack.callback(run, ["ip", "netns", "delete", stage.name(who)])
        stage.do("router", lambda: make_router(stage))
        for name in NAMES:
            stage.do(name, lambda name=name: make_guest(name))
        stage.by_bob(True)
        yield stage


_QUIET = {"send_redirects": "0", "rp_filter": "0"}


def make_router(stage: Stage) -> None:
    write_sysctls({"ipv4/ip_forward": "1", **{f"ipv4/conf/all/{key}": value for key, value in _QUIET.items()}})
    for name, segment in SEGMENTS.items():
        leg = leg_name(segment.name)
        ip(
            [
                f"link add {leg} address {leg_mac(segment.name)} type veth "
                f"peer name eth0 address {MAC[name]} netns {stage.name(name)}",
                f"address add {segment.gateway}/24 dev {leg}",
                f"link set {leg} up",
            ]
        )
        write_sysctls({f"ipv4/conf/{leg}/{key}": value for key, value in _QUIET.items()})
    ip([f"rule add iif {leg_name(SEGMENTS['alice'].name)} lookup 100"])


def make_guest(name: str) -> None:
    write_sysctls({"ipv4/ip_forward": "1" if name == "bob" else "0"})
    write_sysctls({f"ipv4/conf/{link}/{key}": value for key, value in _QUIET.items() for link in ("all", "eth0")})
    ip(
        [
            "link set lo up",
            f"address add {ADDRESS[name]}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {SEGMENTS[name].gateway}",
            *([f"address add {ELSEWHERE}/32 dev lo"] if name == "bob" else []),
        ]
    )


# --- by way of a port ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inbound", "outbound", "arrives"),
    [
        ({"bob": ALL, "carol": ALL}, {}, True),
        ({"bob": ALL}, {}, False),
        ({"carol": ALL}, {}, False),
        ({"bob": ALL, "carol": ALL}, {"alice": ()}, False),
        ({"bob": ALL, "carol": ALL}, {"bob": ()}, False),
        ({"bob": ALL, "carol": ALL}, {"carol": ()}, True),  # what was let in may be answered
        ({"bob": (Allow(protocol="udp", peer_policy="sg-alice"),), "carol": ALL}, {}, True),
        ({"bob": ALL, "carol": (Allow(protocol="udp", peer_policy="sg-alice"),)}, {}, True),
        ({"bob": ALL, "carol": (Allow(protocol="udp", peer_policy="sg-bob"),)}, {}, False),  # bob is not the sender
    ],
)
def test_both_ends_and_the_port_between_must_allow_it(
    stage: Stage, inbound: dict[str, tuple[Allow, ...]], outbound: dict[str, tuple[Allow, ...]], arrives: bool
) -> None:
    stage.load(plan(inbound=inbound, outbound=outbound))
    with stage.answering("carol", ADDRESS["carol"]) as heard:
        assert stage.ask("alice", ADDRESS["carol"]) == ("carol" if arrives else "")
        assert len(heard) == arrives


def test_a_port_that_is_checked_is_not_handed_what_is_for_others(stage: Stage) -> None:
    open_to_all = plan(inbound={"bob": ALL})
    checked = replace(open_to_all, ports=tuple(replace(port, check_addresses=True) for port in open_to_all.ports))
    with stage.answering("bob", ELSEWHERE) as heard:
        stage.load(checked)
        assert stage.ask("alice", ELSEWHERE) == "" and not heard
        stage.load(open_to_all)
        assert stage.ask("alice", ELSEWHERE) == "bob"


def test_what_comes_back_by_the_port_needs_no_rule(stage: Stage) -> None:
    """As with a NAT instance: neither alice lets anything in, nor bob out."""
    stage.load(plan(inbound={"bob": ALL}, outbound={"bob": ()}))
    with stage.answering("bob", ELSEWHERE):
        assert stage.ask("alice", ELSEWHERE) == "bob"
        assert stage.ask("bob", ADDRESS["alice"], source=ELSEWHERE) == ""


def test_an_answer_in_the_name_of_another_opens_nothing(stage: Stage) -> None:
    """Bob answers as carol. To connection tracking the flow is established; carol has never let it in."""
    stage.load(plan(inbound={"bob": ALL}))
    stage.do("bob", lambda: ip([f"address add {ADDRESS['carol']}/32 dev lo"]))
    with stage.answering("carol", ADDRESS["carol"]) as heard:
        with stage.answering("bob", ADDRESS["carol"]):
            for _ in range(2):
                assert stage.ask("alice", ADDRESS["carol"], from_port=7001) == "bob"
        stage.do("bob", lambda: ip([f"address delete {ADDRESS['carol']}/32 dev lo"]))
        assert stage.ask("alice", ADDRESS["carol"], from_port=7001) == ""
        stage.by_bob(False)
        assert stage.ask("alice", ADDRESS["carol"], from_port=7001) == ""
        assert not heard


def test_what_a_port_sends_for_others_is_answered_by_way_of_it(stage: Stage) -> None:
    """As with a tunnel that ends at bob: elsewhere asks alice, whose answer has its route by bob."""
    stage.load(plan(inbound={"alice": ALL}))
    with stage.answering("alice", ADDRESS["alice"]):
        assert stage.ask("bob", ADDRESS["alice"], source=ELSEWHERE) == "alice"


def test_a_flow_lives_on_when_the_rule_that_let_it_in_goes(stage: Stage) -> None:
    stage.by_bob(False)
    stage.load(plan(inbound={"carol": ALL}))
    with stage.answering("carol", ADDRESS["carol"]):
        assert stage.ask("alice", ADDRESS["carol"], from_port=7002) == "carol"
        stage.load(plan(inbound={}))
        assert stage.ask("alice", ADDRESS["carol"], from_port=7002) == "carol"
        assert stage.ask("alice", ADDRESS["carol"], from_port=7003) == ""


# --- what is recorded ----------------------------------------------------------------------------------------------

SENT, RECEIVED, ACCEPTED, REFUSED = True, False, True, False


def with_acl(router: Router, who: str, *, inbound: bool) -> Router:
    """All else passes; UDP to port 7 does not, into the segment or out of it."""
    refusing = (AclRule(number=1, accept=False, protocol="udp", cidr=ANYWHERE, from_port=7, to_port=7), *ALL_PASS)
    acl = Acl(name="acl-0", inbound=refusing if inbound else ALL_PASS, outbound=ALL_PASS if inbound else refusing)
    segments = tuple(replace(each, acl="acl-0" if each == SEGMENTS[who] else "") for each in router.segments)
    return replace(router, acls=(acl,), segments=segments)


@pytest.mark.parametrize(
    ("router", "recorded"),
    [
        (
            plan(inbound={"carol": ALL}),
            {
                ("alice", SENT, ACCEPTED),
                ("carol", RECEIVED, ACCEPTED),
                ("carol", SENT, ACCEPTED),
                ("alice", RECEIVED, ACCEPTED),
            },
        ),
        (plan(inbound={}), {("alice", SENT, ACCEPTED), ("carol", RECEIVED, REFUSED)}),
        (plan(inbound={"carol": ALL}, outbound={"alice": ()}), {("alice", SENT, REFUSED)}),
        (with_acl(plan(inbound={"carol": ALL}), "alice", inbound=False), {("alice", SENT, REFUSED)}),
        (
            with_acl(plan(inbound={"carol": ALL}), "carol", inbound=True),
            {("alice", SENT, ACCEPTED), ("carol", RECEIVED, REFUSED)},
        ),
    ],
)
def test_each_side_is_told_what_it_did(stage: Stage, router: Router, recorded: set[tuple[str, bool, bool]]) -> None:
    stage.by_bob(False)
    stage.load(router)
    with stage.answering("carol", ADDRESS["carol"]):
        stage.ask("alice", ADDRESS["carol"])
    assert stage.flows(router) == recorded


def test_a_list_refuses_what_is_established_too(stage: Stage) -> None:
    stage.by_bob(False)
    router = plan(inbound={"carol": ALL})
    with stage.answering("carol", ADDRESS["carol"]):
        stage.load(router)
        assert stage.ask("alice", ADDRESS["carol"], from_port=7004) == "carol"
        stage.load(with_acl(router, "carol", inbound=True))
        assert stage.ask("alice", ADDRESS["carol"], from_port=7004) == ""
        stage.load(with_acl(router, "carol", inbound=False))  # answers go to another port
        assert stage.ask("alice", ADDRESS["carol"], from_port=7004) == "carol"

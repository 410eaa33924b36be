"""Namespaces in the place of guests, and every question at once: who can reach whom, on which port, and is answered.

Each guest answers on all the ports that are asked about, with what it saw: its own name and the address that the
question came from. So an answer tells where a packet went, and under whose address.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from orchestrator.host import Port, Router
from orchestrator.host.command import inside, ip, run, write_sysctls
from orchestrator.host.links import bridge_name, tap_name

QUIET_S = 1.6  # a lost SYN is sent again after one second
LIMIT_S = 20.0
ECHO_REQUEST = 8


@dataclass(frozen=True)
class Question:
    """From the guest of an interface. For icmp, the port says nothing."""

    interface: str
    protocol: str  # tcp | udp | icmp
    destination: str
    port: int


@dataclass(frozen=True)
class Answer:
    """Which interface's guest answered, and the source that it saw. For icmp neither is known."""

    interface: str
    source: str


@dataclass
class Guests:
    """The guests of some routers, plugged in."""

    stack: ExitStack
    interfaces: dict[str, str] = field(default_factory=dict)  # interface -> its namespace

    def plug_in(self, router: Router) -> None:
        cidrs = {segment.name: segment for segment in router.segments}
        for port in router.ports:
            if port.translator or port.name in self.interfaces:
                continue
            segment = cidrs[port.segment]
            self._make(port, IPv4Network(segment.cidr).prefixlen, segment.gateway)

    def _make(self, port: Port, length: int, gateway: str) -> None:
        namespace = f"guest-{port.name[4:15]}"
        tap = tap_name(port.name)
        run(["ip", "netns", "add", namespace])
        self.stack.callback(run, ["ip", "netns", "delete", namespace])
        ip(
            [
                f"link add {tap} type veth peer name eth0 address {port.mac} netns {namespace}",
                f"link set {tap} master {bridge_name(port.segment)} up",
                f"link set {tap} type bridge_slave isolated on",
            ]
        )
        more = [f"address add {each}/32 dev eth0" for each in port.more_addresses if "/" not in each]
        commands = ["link set lo up", f"address add {port.address}/{length} dev eth0", *more, "link set eth0 up"]
        inside(namespace, lambda: ip([*commands, f"route add default via {gateway}"]))
        self.interfaces[port.name] = namespace

    def forward(self, interface: str, *, masquerade: bool = False) -> None:
        """Have a guest send on what is not for it, as itself where it masquerades."""
        namespace = self.interfaces[interface]

        def configure() -> None:
            redirects = {f"ipv4/conf/{link}/send_redirects": "0" for link in ("all", "eth0")}
            write_sysctls({"ipv4/ip_forward": "1", **redirects})
            if masquerade:
                run(["nft", "add table ip nat; add chain ip nat out { type nat hook postrouting priority srcnat; }"])
                run(["nft", "add rule ip nat out oifname eth0 masquerade"])

        inside(namespace, configure)

    def ask(self, questions: Iterable[Question]) -> dict[Question, Answer]:
        """Every question at once; those that were answered, with the answer."""
        with ExitStack() as sockets:
            return _Round(self.interfaces, list(questions), sockets).run()


class _Round:
    """All sockets of one round of questions, and the one loop that serves them."""

    def __init__(self, interfaces: dict[str, str], questions: list[Question], sockets: ExitStack) -> None:
        self._questions = questions
        self._sockets = sockets
        self._selector = selectors.DefaultSelector()
        sockets.callback(self._selector.close)
        self._answers: dict[Question, Answer] = {}
        self._waiting: dict[socket.socket, Question] = {}
        self._by_number = dict(enumerate(questions))
        self._interfaces = interfaces
        ports = {protocol: {q.port for q in questions if q.protocol == protocol} for protocol in ("tcp", "udp")}
        for interface in interfaces:
            for port in ports["udp"]:
                self._add(interface, socket.SOCK_DGRAM, ("serve-udp", interface), port)
            for port in ports["tcp"]:
                self._add(interface, socket.SOCK_STREAM, ("listen", interface), port).listen(512)
        self._senders = {one: self._add(one, socket.SOCK_DGRAM, ("answer-udp", one), 0) for one in interfaces}
        self._pingers = {one: self._pinger(one) for one in interfaces}

    def _add(self, interface: str, kind: int, data: tuple[str, str], port: int) -> socket.socket:
        made = inside(self._interfaces[interface], lambda: socket.socket(socket.AF_INET, kind))
        self._sockets.callback(made.close)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        if port or kind == socket.SOCK_DGRAM:
            made.bind(("0.0.0.0", port))
        self._selector.register(made, selectors.EVENT_READ, data)
        return made

    def _pinger(self, interface: str) -> socket.socket:
        made = inside(
            self._interfaces[interface], lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        )
        self._sockets.callback(made.close)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._selector.register(made, selectors.EVENT_READ, ("answer-icmp", interface))
        return made

    def run(self) -> dict[Question, Answer]:
        for number, question in self._by_number.items():
            self._put(number, question)
            if number % 50 == 0:
                self._serve(0)
        last, limit = time.monotonic(), time.monotonic() + LIMIT_S
        while time.monotonic() - last < QUIET_S and time.monotonic() < limit:
            if self._serve(0.1):
                last = time.monotonic()
        return self._answers

    def _put(self, number: int, question: Question) -> None:
        if question.protocol == "udp":
            self._senders[question.interface].sendto(str(number).encode(), (question.destination, question.port))
        elif question.protocol == "icmp":
            head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, number & 0xFFFF, number >> 16)
            total = sum(struct.unpack("!4H", head))
            checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
            packet = head[:2] + struct.pack("!H", checksum) + head[4:]
            self._pingers[question.interface].sendto(packet, (question.destination, 0))
        else:
            made = inside(
                self._interfaces[question.interface], lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            )
            self._sockets.callback(made.close)
            made.setblocking(False)
            made.connect_ex((question.destination, question.port))
            self._waiting[made] = question
            self._selector.register(made, selectors.EVENT_READ, ("answer-tcp", question.interface))

    def _serve(self, timeout_s: float) -> int:
        ready = self._selector.select(timeout_s)
        for key, _ in ready:
            found = key.fileobj
            assert isinstance(found, socket.socket)
            what, interface = key.data
            if what == "answer-tcp":  # it can say but one thing
                self._selector.unregister(found)
            with suppress(OSError):  # refused, or unreachable: no answer
                self._one(found, what, interface)
        return len(ready)

    def _one(self, found: socket.socket, what: str, interface: str) -> None:
        if what == "serve-udp":
            text, sender = found.recvfrom(2048)
            found.sendto(text + f" {interface} {sender[0]}".encode(), sender)
        elif what == "answer-udp":
            number, *seen = found.recv(2048).decode().split()
            self._answers[self._by_number[int(number)]] = Answer(*seen)
        elif what == "listen":
            made, sender = found.accept()
            self._sockets.callback(made.close)
            made.setblocking(False)
            made.send(f"{interface} {sender[0]}".encode())
        elif what == "answer-tcp":
            self._answers[self._waiting[found]] = Answer(*found.recv(2048).decode().split())
        else:
            packet = found.recv(2048)[20:]
            kind, _, _, low, high = struct.unpack("!BBHHH", packet[:8])
            if kind == 0 and (question := self._by_number.get(high << 16 | low)) and question.interface == interface:
                self._answers[question] = Answer("", "")

"""What no guest can do to the server: too much, too slowly, or in no language that it knows."""

from __future__ import annotations

import gc
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.metadata import server as module
from orchestrator.metadata.server import MAX_CONVERSATIONS, TTL_HEADER
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import InterfaceAttachment, NetworkInterface
from tests.metadata.conftest import OTHER_VPC, VPC, World, read_all

ID_PATH = "/latest/meta-data/instance-id"
TOKEN_PATH = "/latest/api/token"


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        pause.wait(0.01)


def test_a_guest_has_so_many_connections_and_no_more(world: World) -> None:
    world.launch(2)
    world.launch(3)
    held = [world.connect(2) for _ in range(MAX_CONVERSATIONS)]
    try:
        for connection in held:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(65536)
        with world.connect(2) as one_more:
            assert read_all(one_more) == b""
        assert world.ask(3, ID_PATH).status == 200
    finally:
        for connection in held:
            connection.close()

    def free() -> bool:
        with world.connect(2) as again:
            again.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return read_all(again).startswith(b"HTTP/1.0 200 ")

    wait_for(free)


def test_of_all_its_addresses_together(world: World) -> None:
    """One interface's own address and a prefix of it, another interface in the same VPC, and one in another VPC."""
    one = world.launch(2, interface={"prefixes": ("127.0.0.16/28",), "more_private_ips": ("127.0.0.9",)})
    world.launch(3, interface={"attachment": attached(one, 1)})
    world.open(OTHER_VPC)
    world.launch(4, vpc_id=OTHER_VPC, interface={"attachment": attached(one, 2)})
    world.launch(5)
    ways = [(2, VPC), (9, VPC), (16, VPC), (31, VPC), (3, VPC), (4, OTHER_VPC)]
    held = []
    try:
        for number in range(MAX_CONVERSATIONS):
            asker, vpc_id = ways[number % len(ways)]
            held.append(world.connect(asker, vpc_id))
            held[-1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert held[-1].recv(65536)
        for asker, vpc_id in ways:
            with world.connect(asker, vpc_id) as one_more:
                assert read_all(one_more) == b"", f"by 127.0.0.{asker} in {vpc_id} it has more"
        assert world.ask(5, ID_PATH).status == 200
    finally:
        for connection in held:
            connection.close()


def test_a_connection_is_given_back_to_whom_it_was_counted_for(world: World) -> None:
    """Its address has come to belong to another instance meanwhile."""
    one, other = world.launch(2), world.launch(3)
    with world.connect(2) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536)
        with world.store.write() as tx:
            [interface] = tx.all(NetworkInterface, instance_id=one.id)
            tx.put(replace(interface, attachment=attached(other, 1)))
    wait_for(no_conversations(world))
    assert world.server._conversations is not None
    assert not world.server._conversations._held


def test_who_is_nobody_has_as_many_by_each_address(world: World) -> None:
    """An address of no instance is answered that there is nothing."""
    held = [world.connect(7) for _ in range(MAX_CONVERSATIONS)]
    try:
        wait_for(lambda: world.server._conversations is not None and len(world.server._conversations.all) == len(held))
        with world.connect(7) as one_more:
            assert read_all(one_more) == b""
        assert world.ask(8, ID_PATH).status == 404
    finally:
        for connection in held:
            connection.close()


def attached(instance: Instance, index: int) -> InterfaceAttachment:
    return InterfaceAttachment(id=f"eni-attach-{index:017x}", instance_id=instance.id, device_index=index)


@pytest.mark.parametrize(
    "beginning", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]
)
def test_a_silent_connection_is_cut(start_world: Callable[..., World], beginning: bytes) -> None:
    world = start_world(patience_s=0.2)
    world.open()
    world.launch(2)
    with world.connect(2) as connection:
        connection.sendall(beginning)
        read_all(connection)


def test_a_connection_that_drips_is_cut(start_world: Callable[..., World]) -> None:
    world = start_world(patience_s=0.3)
    world.open()
    world.launch(2)
    deadline = time.monotonic() + 10
    with world.connect(2) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        connection.settimeout(0.02)
        while time.monotonic() < deadline:
            try:
                connection.sendall(b"a")
                if connection.recv(1) == b"":
                    return
            except TimeoutError:
                continue
            except ConnectionError:
                return
    pytest.fail("a dripping connection was never cut")


def test_a_client_that_reads_nothing_is_cut(start_world: Callable[..., World]) -> None:
    world = start_world(patience_s=0.3)
    world.open()
    world.launch(2, user_data="A" * 65536)
    with world.connect(2) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.05)
        requests = b"GET /latest/user-data HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
        sent = 0
        try:
            while sent < len(requests) * 20:
                sent += connection.send(requests)
        except TimeoutError:
            pass  # it has stopped reading: the pipeline is bounded
        except ConnectionError:
            return
        wait_for(no_conversations(world))


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n",
    ],
    ids=["line", "header", "headers"],
)
def test_a_head_that_is_too_large_is_refused(world: World, request_: bytes) -> None:
    world.launch(2)
    with world.connect(2) as connection:
        try:
            connection.sendall(request_)
        except ConnectionError:
            return
        answer = read_all(connection)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert world.ask(2, ID_PATH).status == 200


def test_a_body_is_not_read_to_its_end(world: World) -> None:
    world.launch(2)
    with world.connect(2) as connection:
        head = f"PUT {TOKEN_PATH} HTTP/1.1\r\nHost: x\r\n{TTL_HEADER}: 60\r\nContent-Length: 10000000000\r\n\r\n"
        connection.sendall(head.encode())
        assert read_all(connection).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    instance = world.launch(2)
    paths = [ID_PATH, "/latest/nothing", "/latest/meta-data/local-ipv4"] * 30
    text = "".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths)
    with world.connect(2) as connection:
        connection.sendall((text + "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").encode())
        answers = read_all(connection)
    assert answers.count(b"HTTP/1.1 ") == 91
    assert answers.count(instance.id.encode()) == answers.count(b"127.0.0.2") == 30
    assert answers.index(instance.id.encode()) < answers.index(b"404 ") < answers.index(b"127.0.0.2")


def test_too_many_requests_are_put_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.launch(2)
    world.launch(3)
    assert world.ask(2, ID_PATH).status == 200
    monkeypatch.setattr(module, "BURST", 3.0)
    monkeypatch.setattr(module, "REQUESTS_PER_S", 0.001)
    statuses = [world.ask(2, ID_PATH).status for _ in range(5)]
    assert statuses == [200, 200, 200, 503, 503]
    assert world.ask(3, ID_PATH).status == 200


def test_guests_that_are_gone_are_forgotten(start_world: Callable[..., World]) -> None:
    world = start_world(patience_s=0.2)
    world.open()
    first, second = world.launch(2), world.launch(3)
    world.ask(2, ID_PATH)
    world.ask(3, ID_PATH)
    world.change(first, state=State.TERMINATED)
    wait_for(lambda: list(world.server._guests) == [second.id])


# --- nonsense ---

NONSENSE = [
    b"\x00" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET\r\n\r\n",
    b"GET  HTTP/1.1\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET \xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff\xfe\x80/%ff%00%zz%2 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /latest/meta-data/%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET //[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http: HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http:///x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET foo://bar:99999999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET mailto:a@b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT xn--a- HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT \xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT :: HTTP/1.1\r\nHost: x\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nrubbish\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nExpect: 100-continue\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token: \xff\xfe\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n X: y\r\n: z\r\n\r\n",
    b"GET /latest/meta-data/ HTTP/1.1\r\nCookie: \x01;;=\r\nHost: \xff\r\nRange: bytes=9-1\r\n\r\n",
]

SEEDS = [
    b"GET /latest/meta-data/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"PUT /latest/api/token HTTP/1.1\r\nHost: x\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n",
    b"GET http://a:80/latest/user-data?x=%20#y HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
]


@pytest.mark.parametrize("said", NONSENSE, ids=[str(said[:24]) for said in NONSENSE])
def test_nonsense_is_answered_below_500_or_hung_up_on(
    start_world: Callable[..., World], caplog: pytest.LogCaptureFixture, said: bytes
) -> None:
    world = start_world(patience_s=0.3)
    world.open()
    world.launch(2)
    with world.connect(2) as connection:
        connection.sendall(said)
        check_nonsense(said, read_all(connection))
    wait_for(no_conversations(world))
    gc.collect()  # a task that failed unseen says so when it goes
    assert not caplog.records, caplog.text


def test_random_requests(start_world: Callable[..., World], caplog: pytest.LogCaptureFixture) -> None:
    """Requests with a few bytes changed, 50 side by side. Most are answered; none with a fault of ours."""
    world = start_world(patience_s=0.3)
    world.open()
    world.launch(2)
    chance = random.Random(20260102)
    statuses: Counter[int] = Counter()
    for _ in range(20):
        said = [mutate(chance) for _ in range(50)]
        connections = [world.connect(2) for _ in said]
        for connection, request in zip(connections, said, strict=True):
            connection.sendall(request)
        for connection, request in zip(connections, said, strict=True):
            with connection:
                statuses.update(check_nonsense(request, read_all(connection)))
        wait_for(no_conversations(world))
    assert world.ask(2, ID_PATH).status == 200
    assert statuses[200] > 50 and statuses[400] > 50 and statuses[404] > 50, statuses
    assert not caplog.records, caplog.text


def mutate(chance: random.Random) -> bytes:
    said = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(said))
        match chance.randrange(3):
            case 0:
                said[at] = chance.randrange(256)
            case 1:
                del said[at : at + chance.randrange(5)]
            case _:
                said[at:at] = chance.choice([b"%", b"\x00", b":", b"//", b" ", b"\r\n", b"[", b"\xc3", b"@", b"\\"])
    return bytes(said)


def check_nonsense(said: bytes, answer: bytes) -> list[int]:
    """The statuses in `answer`, none of which says that it was our fault."""
    statuses = [int(line.split()[1]) for line in answer.split(b"\n") if line.startswith(b"HTTP/1.")]
    assert all(status < 500 for status in statuses), (said, answer)
    assert b"aiohttp" not in answer and b"Traceback" not in answer
    return statuses


def no_conversations(world: World) -> Callable[[], bool]:
    conversations = world.server._conversations
    assert conversations is not None
    return lambda: not conversations.all

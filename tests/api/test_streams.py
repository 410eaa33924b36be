"""Consoles and tunnels through the gateway's own server, to guests that answer when a test says so."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, web

from orchestrator.api import gateway as module
from orchestrator.api.gateway import STREAM_THREADS
from orchestrator.api.operation import HostView
from orchestrator.api.signature import sign
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import InterfaceAttachment, NetworkInterface
from tests.api.cloud import ACCOUNT, Cloud

INSTANCE = "i-00000000000000001"
API_THREADS = 2


@dataclass
class Guests:
    """What the gateway sees of the host: ports that drop packets until `answers` is set, and a serial port."""

    answers: threading.Event = field(default_factory=threading.Event)
    asked: int = 0
    ends: list[socket.socket] = field(default_factory=list)  # the guests' own
    lock: threading.Lock = field(default_factory=threading.Lock)

    def connect(self, vpc_id: str, address: str, port: int, timeout_s: float) -> socket.socket:
        with self.lock:
            self.asked += 1
        if not self.answers.wait(60):
            raise TimeoutError("timed out")
        return self.console_socket(INSTANCE)

    def console_socket(self, instance_id: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        with self.lock:
            self.ends.append(theirs)
        return ours


@dataclass
class Door:
    """A gateway's server, and a client of it."""

    cloud: Cloud
    guests: Guests
    runner: web.AppRunner
    session: aiohttp.ClientSession

    @property
    def host(self) -> str:
        return "{}:{}".format(*self.runner.addresses[0])

    def signed(self, path: str, service: str) -> dict[str, str]:
        keys, headers = self.cloud.root(), {"Host": self.host}
        return headers | sign(
            "GET",
            f"http://{self.host}{path}",
            headers,
            b"",
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            region="us-east-1",
            service=service,
            now=self.cloud.clock(),
        )

    async def stream(self, path: str) -> ClientWebSocketResponse:
        headers = self.signed(path, "orc")
        return await self.session.ws_connect(f"http://{self.host}{path}", headers=headers)

    async def regions(self) -> int:
        """The status of an API call."""
        path = "/?Action=DescribeRegions&Version=2016-11-15"
        async with self.session.get(f"http://{self.host}{path}", headers=self.signed(path, "ec2")) as answer:
            return answer.status


@asynccontextmanager
async def opened(cloud: Cloud) -> AsyncIterator[Door]:
    executor = ThreadPoolExecutor(max_workers=API_THREADS)
    asyncio.get_running_loop().set_default_executor(executor)
    guests = Guests()
    cloud.gateway.host = cast(HostView, guests)
    runner = web.AppRunner(cloud.gateway.application(), shutdown_timeout=10)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            yield Door(cloud, guests, runner, session)
    finally:
        guests.answers.set()
        await runner.cleanup()
        for end in guests.ends:
            end.close()


async def until(is_so: Callable[[], bool], deadline_s: float = 10.0) -> None:
    async with asyncio.timeout(deadline_s):
        while not is_so():
            await asyncio.sleep(0.01)


@pytest.fixture
def running(cloud: Cloud) -> Cloud:
    """With one instance that runs."""
    owned: dict[str, Any] = {"account": ACCOUNT, "region": "us-east-1", "created": cloud.clock()}
    placed: dict[str, Any] = {"zone": "us-east-1a", "vpc_id": "vpc-1", "subnet_id": "subnet-1"}
    instance = Instance(
        id=INSTANCE,
        **owned,
        **placed,
        reservation_id="r-1",
        image_id="ami-1",
        instance_type="t3.micro",
        state=State.RUNNING,
        launched_at=cloud.clock(),
    )
    interface = NetworkInterface(
        id="eni-1",
        **owned,
        **placed,
        mac="02:00:00:00:00:01",
        private_ip="10.0.0.5",
        groups=(),
        state="in-use",
        attachment=InterfaceAttachment(id="eni-attach-1", instance_id=INSTANCE, device_index=0),
    )
    with cloud.store.write() as tx:
        tx.put_all([instance, interface])
    return cloud


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_ports_that_do_not_answer_hold_up_no_call(running: Cloud) -> None:
    async def work() -> None:
        async with opened(running) as door:
            more = STREAM_THREADS + API_THREADS
            waiting = [asyncio.create_task(door.stream(f"/tunnel/{INSTANCE}/9")) for _ in range(more)]
            await until(lambda: door.guests.asked >= min(STREAM_THREADS, more))
            async with asyncio.timeout(5):
                assert [await door.regions() for _ in range(3)] == [200, 200, 200]
            assert door.guests.asked == STREAM_THREADS, "the others wait, and they alone"
            door.guests.answers.set()
            streams = await asyncio.gather(*waiting)
            assert len(door.guests.ends) == more
            for end, stream in zip(door.guests.ends, streams, strict=True):
                end.close()
                await stream.close()

    run(work())


def test_streams_that_wait_are_given_up_at_the_end(running: Cloud) -> None:
    async def work() -> None:
        async with opened(running) as door:
            more = STREAM_THREADS + 3
            waiting = [asyncio.create_task(door.stream(f"/tunnel/{INSTANCE}/9")) for _ in range(more)]
            await until(lambda: door.guests.asked == STREAM_THREADS)
            ending = asyncio.create_task(door.runner.cleanup())
            await until(lambda: sum(task.done() for task in waiting) == 3)  # which had not been begun
            door.guests.answers.set()
            await until(lambda: len(door.guests.ends) == STREAM_THREADS)
            for end in door.guests.ends:
                end.close()
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            assert sum(isinstance(answer, Exception) for answer in answers) == 3
            for answer in answers:
                if isinstance(answer, ClientWebSocketResponse):
                    await answer.close()
            await ending
            assert door.guests.asked == STREAM_THREADS

    run(work())


def test_who_is_silent_for_long_is_hung_up_on(running: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop that sleeps: its connection is there, and nobody answers."""
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.3)

    async def work() -> None:
        async with opened(running) as door:
            path = f"/console/{INSTANCE}"
            upgrade = {
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            }
            head = "".join(f"{name}: {value}\r\n" for name, value in (door.signed(path, "orc") | upgrade).items())
            reader, writer = await asyncio.open_connection(*door.runner.addresses[0])
            writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            [serial] = door.guests.ends
            serial.settimeout(10)
            assert await asyncio.to_thread(serial.recv, 1) == b"", "the serial port is free again"
            writer.close()
            await writer.wait_closed()

    run(work())


def test_who_answers_may_have_nothing_to_say(running: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 1.0)

    async def work() -> None:
        async with opened(running) as door:
            stream = await door.stream(f"/console/{INSTANCE}")
            receiving = asyncio.create_task(stream.receive())
            assert not (await asyncio.wait([receiving], timeout=2.5))[0]
            [serial] = door.guests.ends
            serial.sendall(b"login: ")
            message = await receiving
            assert (message.type, message.data) == (WSMsgType.BINARY, b"login: ")
            serial.close()
            assert (await stream.receive(5)).type is WSMsgType.CLOSE
            await stream.close()

    run(work())


def test_a_serial_port_has_one_session_at_a_time(running: Cloud) -> None:
    async def work() -> None:
        async with opened(running) as door:
            path = f"/console/{INSTANCE}"
            for turn in range(3):  # whoever has left makes room for the next
                first = await door.stream(path)
                async with door.session.get(f"http://{door.host}{path}", headers=door.signed(path, "orc")) as answer:
                    document = await answer.json()
                assert (answer.status, document["__type"]) == (400, "SerialConsoleSessionLimitExceeded")
                assert INSTANCE in document["message"]
                assert len(door.guests.ends) == turn + 1
                door.guests.ends[turn].sendall(b"login: ")
                assert (await first.receive(5)).data == b"login: "
                await first.close()
                await until(lambda: not running.gateway._at_console)

    run(work())


def test_of_two_that_come_to_a_serial_port_together_one_is_let_in(running: Cloud) -> None:
    async def work() -> None:
        async with opened(running) as door:
            found = await asyncio.gather(
                *(door.stream(f"/console/{INSTANCE}") for _ in range(8)), return_exceptions=True
            )
            [stream] = [each for each in found if isinstance(each, ClientWebSocketResponse)]
            refused = [each for each in found if isinstance(each, aiohttp.WSServerHandshakeError)]
            assert [each.status for each in refused] == [400] * 7
            await stream.close()

    run(work())


def test_who_comes_while_the_service_ends_is_told(running: Cloud) -> None:
    async def work() -> None:
        async with opened(running) as door:
            path = f"/console/{INSTANCE}"
            await running.gateway._close_streams(web.Application())
            async with door.session.get(f"http://{door.host}{path}", headers=door.signed(path, "orc")) as answer:
                assert (answer.status, (await answer.json())["__type"]) == (503, "Unavailable")

    run(work())


def test_a_serial_port_that_somebody_else_is_at(running: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with opened(running) as door:

            def refuse(instance_id: str) -> socket.socket:
                raise OSError("somebody else is at the serial port")

            door.guests.console_socket = refuse  # type: ignore[method-assign]
            path = f"/console/{INSTANCE}"
            async with door.session.get(f"http://{door.host}{path}", headers=door.signed(path, "orc")) as answer:
                document = await answer.json()
            assert (answer.status, document["__type"]) == (503, "Unavailable")
            assert "somebody else is at the serial port" in document["message"]

    run(work())

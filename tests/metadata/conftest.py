"""`world`: a metadata server on loopback over a store filled by hand. Guests are 127.0.0.x addresses."""

from __future__ import annotations

import asyncio
import base64
import http.client
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.metadata.server import TOKEN_HEADER, TTL_HEADER, MetadataServer
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.volume import Volume, VolumeAttachment
from orchestrator.model.vpc import InterfaceAttachment, NetworkInterface, SecurityGroup, Subnet, Vpc
from orchestrator.store import Store

ACCOUNT = "111122223333"
REGION = "us-east-1"
VPC = "vpc-00000000000000001"
OTHER_VPC = "vpc-00000000000000002"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0 MyKeyPair"
USER_DATA = b"#!/bin/sh\necho \xff\x00 hello\n"


def read_all(connection: socket.socket) -> bytes:
    """Until the other side ends, by a reset too."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionError:
        pass
    return received


async def accept_all() -> None:
    """Whoever has knocked is let in: asyncio loses a connection whose server is closed before it has been taken up."""
    for _ in range(4):
        await asyncio.sleep(0)


async def settle(loop: asyncio.AbstractEventLoop) -> None:
    """Connections that were being accepted or closed when it was told to stop are gone."""
    begun = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)
    for _ in range(3):  # a transport is aborted, tells of it, and closes its socket
        for transport in list(loop._transports.values()):  # one that was accepted last, nobody else knows of
            transport.abort()
        await asyncio.sleep(0)


@dataclass(slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class World:
    store: Store
    server: MetadataServer
    clock: Callable[[], datetime]
    loop: asyncio.AbstractEventLoop
    events: list[tuple[str, str]] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)

    def open(self, vpc_id: str = VPC) -> int:
        self.server.open(vpc_id, lambda: self.listen(vpc_id))
        return self.ports[vpc_id]

    def listen(self, vpc_id: str) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0))
        self.ports[vpc_id] = listener.getsockname()[1]
        return listener

    def launch(self, number: int, *, vpc_id: str = VPC, interface: Mapping[str, Any] = {}, **changes: Any) -> Instance:
        """Instance `number`, which asks from 127.0.0.`number`."""
        now = self.clock()
        owned: dict[str, Any] = {"account": ACCOUNT, "region": REGION, "created": now}
        instance_id = f"i-{number:017x}"
        fields: dict[str, Any] = {
            "id": instance_id,
            **owned,
            "reservation_id": f"r-{number:017x}",
            "zone": "us-east-1a",
            "vpc_id": vpc_id,
            "subnet_id": "subnet-" + vpc_id[4:],
            "image_id": "ami-00000000000000001",
            "instance_type": "t3.micro",
            "state": State.RUNNING,
            "launched_at": now,
            "key_name": "MyKeyPair",
            "public_key": KEY,
            "user_data": base64.b64encode(USER_DATA).decode(),
            "tags": {"Name": "web"},
        }
        attachment = InterfaceAttachment(id=f"eni-attach-{number:017x}", instance_id=instance_id, device_index=0)
        eni: dict[str, Any] = {
            "id": f"eni-{number:017x}",
            **owned,
            "vpc_id": vpc_id,
            "subnet_id": "subnet-" + vpc_id[4:],
            "zone": "us-east-1a",
            "mac": f"02:00:00:00:00:{number:02x}",
            "private_ip": f"127.0.0.{number}",
            "public_ip": f"203.0.113.{number}",
            "groups": ("sg-" + vpc_id[4:],),
            "state": "in-use",
            "attachment": attachment,
        }
        volume = Volume(
            id=f"vol-{number:017x}",
            **owned,
            zone="us-east-1a",
            size_gib=8,
            layer_id=f"layer-{number:017x}",
            state="in-use",
            attachment=VolumeAttachment(instance_id=instance_id, device="/dev/xvda"),
        )
        with self.store.write() as tx:
            tx.put(volume)
            tx.put(NetworkInterface(**{**eni, **interface}))
            return tx.put(Instance(**{**fields, **changes}))

    def change(self, instance: Instance, **changes: Any) -> Instance:
        with self.store.write() as tx:
            current = tx.get(Instance, instance.id)
            assert current is not None
            return tx.put(replace(current, **changes))

    def options(self, instance: Instance, **changes: Any) -> None:
        current = self.store.get(Instance, instance.id)
        assert current is not None
        self.change(instance, metadata=replace(current.metadata, **changes))

    def open_ipv6(self, vpc_id: str = VPC) -> int:
        """On ::1 as well; the port there."""
        found: list[int] = []

        def listen() -> socket.socket:
            listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
            found.append(listener.getsockname()[1])
            return listener

        self.server.open(vpc_id, lambda: self.listen(vpc_id), listen)
        return found[0]

    def connect(self, number: int, vpc_id: str = VPC) -> socket.socket:
        address = ("127.0.0.1", self.ports[vpc_id])
        return socket.create_connection(address, timeout=10, source_address=(f"127.0.0.{number}", 0))

    def ask(
        self, number: int, path: str, method: str = "GET", headers: Mapping[str, str] = {}, *, vpc_id: str = VPC
    ) -> Answer:
        """One request of the guest at 127.0.0.`number`, on a connection of its own."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.ports[vpc_id], timeout=10, source_address=(f"127.0.0.{number}", 0)
        )
        try:
            connection.request(method, path, headers={"Connection": "close", **headers})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def token(self, number: int, ttl_s: int = 60) -> str:
        answer = self.ask(number, "/latest/api/token", "PUT", {TTL_HEADER: str(ttl_s)})
        assert answer.status == 200
        return answer.text

    def with_token(self, number: int) -> dict[str, str]:
        return {TOKEN_HEADER: self.token(number)}


@pytest.fixture
def start_world(tmp_path: Path, clock: Callable[[], datetime]) -> Iterator[Callable[..., World]]:
    """`start_world(**options of MetadataServer)`; a second one finds the state of the first."""
    worlds: list[tuple[World, threading.Thread]] = []

    def stop() -> None:
        if worlds:
            world, thread = worlds.pop()
            asyncio.run_coroutine_threadsafe(accept_all(), world.loop).result(10)
            asyncio.run_coroutine_threadsafe(world.server.stop(), world.loop).result(10)
            world.loop.call_soon_threadsafe(world.loop.stop)
            thread.join(10)
            world.loop.run_until_complete(settle(world.loop))
            world.loop.close()
            world.store.close()

    def start(**options: Any) -> World:
        stop()
        store = Store(tmp_path / "orchestrator.db", durable=False)
        loop = asyncio.new_event_loop()
        events: list[tuple[str, str]] = []
        server = MetadataServer(store, clock, lambda *event: events.append(event), tmp_path, **options)
        started = threading.Event()

        def run() -> None:
            server.start(loop)
            started.set()
            loop.run_forever()

        thread = threading.Thread(target=run)
        thread.start()
        assert started.wait(10)
        world = World(store, server, clock, loop, events)
        worlds.append((world, thread))
        _networks(store, clock())
        return world

    yield start
    stop()


@pytest.fixture
def world(start_world: Callable[..., World]) -> World:
    world = start_world()
    world.open()
    return world


def _networks(store: Store, now: datetime) -> None:
    owned: dict[str, Any] = {"account": ACCOUNT, "region": REGION, "created": now}
    with store.write() as tx:
        for vpc_id in (VPC, OTHER_VPC):
            number = vpc_id[4:]
            tx.put(Vpc(id=vpc_id, **owned, cidr="127.0.0.0/16", enable_dns_hostnames=True))
            tx.put(Subnet(id="subnet-" + number, **owned, vpc_id=vpc_id, zone="us-east-1a", cidr="127.0.0.0/20"))
            tx.put(SecurityGroup(id="sg-" + number, **owned, name="default", description="", vpc_id=vpc_id))

"""The metadata server from a guest's side, in a world with hostile names: right answers, or 4xx, and no growth."""

from __future__ import annotations

import base64
import gc
import http.client
import os
import random
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote

import pytest

from orchestrator.metadata.server import MAX_CONVERSATIONS, TOKEN_HEADER, TTL_HEADER
from orchestrator.model.instance import Instance, MetadataOptions
from tests.fuzz.generator import LONG_TEXTS, TEXTS
from tests.metadata.conftest import World, read_all, start_world

__all__ = ["start_world"]  # a fixture

SEED = int(os.environ.get("ORC_FUZZ_SEED", "20260102"))
REQUESTS = int(os.environ.get("ORC_FUZZ_CALLS", "3000"))
METHODS = ("GET", "GET", "GET", "GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE")
LAST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SEGMENTS = (
    *(
        "latest",
        "1.0",
        "2009-04-04",
        "2099-01-01",
        "meta-data",
        "user-data",
        "dynamic",
        "api",
        "token",
        "tags",
        "instance",
    ),
    *("network", "interfaces", "macs", "placement", "instance-identity", "document", "iam", "security-credentials"),
    *("public-keys", "0", "openssh-key", "..", ".", "", "%2e%2e", "%2f", "%00", "%ff", "%", "?", "#", "\\", "{{7*7}}"),
)


@pytest.fixture
def hostile(start_world: Callable[..., World]) -> tuple[World, Instance]:
    """Instance 2, all of whose texts are hostile, as far as the API would take them."""
    world = start_world(patience_s=2.0)
    world.open()
    tags = {text[:128]: text[:256] for text in TEXTS if text and not text.lower().startswith("aws:")}
    instance = world.launch(
        2,
        tags=tags,
        key_name="a\nb<>&'\"{{7*7}}/../",
        user_data=base64.b64encode(bytes(range(256)) * 64).decode(),
        metadata=MetadataOptions(instance_metadata_tags="enabled"),
    )
    return world, instance


def test_every_listing_leads_somewhere(hostile: tuple[World, Instance]) -> None:
    """Whoever follows the listings finds all that they name, and only this instance's."""
    world, instance = hostile
    todo, seen = ["/latest/meta-data/"], set()
    while todo:
        path = todo.pop()
        answer = world.ask(2, path)
        assert answer.status == 200, (path, answer)
        seen.add(path)
        assert len(seen) < 2000, "the tree has no end"
        if path.endswith("/"):
            names = answer.text.split("\n")
            if path.endswith("/public-keys/"):  # 0=NAME, which is a folder called 0
                names = [name.partition("=")[0] + "/" for name in names if name.startswith("0=")]
            todo += [path + quote(name, safe="/") for name in names]
    shown = [path for path in seen if "/tags/instance/" in path and not path.endswith("/")]
    assert shown, "no tag can be seen"
    for path in shown:
        assert re.fullmatch(r"[A-Za-z0-9+\-=.,_:@%]+", path.rpartition("/")[2])
    assert world.ask(2, "/latest/user-data").body == base64.b64decode(instance.user_data)


def test_random_requests(hostile: tuple[World, Instance], caplog: pytest.LogCaptureFixture) -> None:
    world, instance = hostile
    other = world.launch(3, user_data=base64.b64encode(b"the secret of another").decode())
    chance = random.Random(SEED)
    statuses: Counter[int] = Counter()
    token = world.token(2)
    for _ in range(REQUESTS // 50):
        connection = http.client.HTTPConnection(
            "127.0.0.1", next(iter(world.ports.values())), timeout=10, source_address=("127.0.0.2", 0)
        )
        said = b"".join(request(chance, token) for _ in range(50)) + LAST
        connection.connect()
        assert connection.sock is not None
        with connection.sock as stream:
            with suppress(OSError):  # it was hung up on
                stream.sendall(said)
            answer = read_all(stream)
        connection.close()
        found = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]
        statuses.update(found)
        assert (found and max(found) < 500) or set(found) <= {200, 400, 401, 403, 404, 405, 503}, found
        assert b"the secret of another" not in answer and other.id.encode() not in answer
        assert b"Traceback" not in answer and b"aiohttp" not in answer
    print(f"seed {SEED}: {sum(statuses.values())} answers: {statuses}")
    assert statuses[200] > 50 and statuses[404] > 50, statuses
    assert world.ask(2, "/latest/meta-data/instance-id").text == instance.id
    gc.collect()
    assert not caplog.records, caplog.text


def request(chance: random.Random, token: str) -> bytes:
    """Well enough formed to be read; the rest is chance."""
    method = chance.choice(METHODS)
    path = "/" + "/".join(chance.choice(SEGMENTS) for _ in range(chance.randint(0, 6)))
    if chance.random() < 0.3:
        path = chance.choice(("/latest/meta-data/", "/latest/user-data", "/latest/api/token", "/latest/dynamic/"))
    if chance.random() < 0.1:
        path += quote(chance.choice((*TEXTS, *(text[:3000] for text in LONG_TEXTS))).encode("utf-8", "replace"))
    headers = ["Host: x"]
    if chance.random() < 0.5:
        headers.append(f"{TOKEN_HEADER}: {chance.choice((token, token[:-1], token[::-1], 'x' * 500, ''))}")
    if chance.random() < 0.3:
        headers.append(f"{TTL_HEADER}: {chance.choice(('60', '0', '-1', '1e3', '9' * 300, 'x', '21601', ''))}")
    if chance.random() < 0.1:
        headers.append(f"X-Forwarded-For: {chance.choice(('10.0.0.1', '127.0.0.3', 'x'))}")
    if chance.random() < 0.005:
        headers.append(f"{chance.choice(('Host: h', 'X', ': x', 'Content-Length: -1', 'X: ' + 'h' * 9000))}")
    if chance.random() < 0.1:
        headers.append("Range: bytes=0-1,2-3,-1")
    return "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "", ""]).encode("ascii", "replace")


def test_many_connections_and_requests_take_bounded_memory(hostile: tuple[World, Instance]) -> None:
    world, _ = hostile
    world.ask(2, "/latest/meta-data/")
    gc.collect()
    tracemalloc.start()
    try:
        held = [world.connect(2) for _ in range(MAX_CONVERSATIONS * 3)]
        for connection in held:
            with suppress(ConnectionError):  # one too many
                connection.sendall(b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: x\r\nX: " + b"b" * 4000)
        for _ in range(20):
            world.launch(3)
            assert world.ask(3, "/latest/meta-data/instance-id").status == 200
        _, peak = tracemalloc.get_traced_memory()
        for connection in held:
            connection.close()
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20, f"{peak >> 20} MiB"

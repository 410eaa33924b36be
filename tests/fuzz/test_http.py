"""The endpoint itself: what is no HTTP, no signature or no end, on raw sockets. Answers are 4xx, and come."""

from __future__ import annotations

import gc
import gzip
import os
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.api import patience
from orchestrator.api.signature import SignatureError, presign, read_credential, sign, verify
from tests.fuzz.deployment import Credentials, Deployment
from tests.fuzz.generator import LONG_TEXTS, SURROGATES, TEXTS

SEED = int(os.environ.get("ORC_FUZZ_SEED", "20260102"))
ROUNDS = max(1, int(os.environ.get("ORC_FUZZ_CALLS", "3000")) // 1000)
FORM = "application/x-www-form-urlencoded"


def post(body: bytes, *headers: str, line: str = "POST / HTTP/1.1", length: bool = True) -> bytes:
    head = [line, "Host: x", "Connection: close", *headers]
    if length:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1", "replace") + body


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


AUTHORIZATION = "Authorization: AWS4-HMAC-SHA256 Credential={}, SignedHeaders={}, Signature={}"
SCOPE = "AKIAIOSFODNN7EXAMPLE/20260102/us-east-1/ec2/aws4_request"
STAMP = "X-Amz-Date: 20260102T030405Z"

NONSENSE: list[bytes] = [
    b"\x00" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"POST\r\n\r\n",
    b"POST / HTTP/9.9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET //[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET foo://bar:99999999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT xn--a- HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT \xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"DELETE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n",
    b"GET /%ff%00%zz%2/../..//etc/passwd?%ff=%00&&&=&=%zz HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: \xff\xfe\x80\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nUser-Agent: \xff\xfe\x80\r\nX-Amz-Target: \xed\xa0\x80\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 400 + b"\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\nConnection: close\r\n\r\n" + b"a" * (3 << 20),
    post(b"abc", "Content-Encoding: gzip"),
    post(b"abc", "Content-Encoding: deflate"),
    post(b"abc", "Content-Encoding: br"),
    post(gzip.compress(bytes(64 << 20)), "Content-Encoding: gzip"),
    post(gzip.compress(b"Action=DescribeRegions")[:-9], "Content-Encoding: gzip"),
    post(chunked(*[b"x" * 65536] * 48), "Transfer-Encoding: chunked", length=False),
    post(chunked(b"Action=", b"Describe", b"Regions"), "Transfer-Encoding: chunked", length=False),
    post(b"Action=DescribeRegions", "Expect: 200-maybe"),
    post(b"\xff\xfe\x00", f"Content-Type: {FORM}; charset=utf-7"),
    post(b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n", "Content-Type: multipart/form-data; boundary=x"),
    post(b"Action=DescribeRegions", "Content-Type: multipart/form-data; boundary="),
    post(b"<a>" * 1000, "Content-Type: text/xml"),
    post(b"{}", "Content-Type: application/x-amz-json-1.1", "X-Amz-Target: Orchestrator_20261101.ListRecipes"),
    post(b"[" * 100_000, "Content-Type: application/x-amz-json-1.1", "X-Amz-Target: Orchestrator_20261101.ListRecipes"),
    post(b"{}", "X-Amz-Target: " + "a." * 3000),
    post(b"&".join(b"a%d=1" % n for n in range(200_000))),
    post(b"Action=DescribeInstances&Version=2016-11-15&Filter.999999999.Value.1=x"),
    post(b"Action=" + b"%" * 500_000),
    *(
        post(b"Action=DescribeRegions", f"Authorization: {text}")
        for text in (
            "",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256 ",
            "AWS4-HMAC-SHA256 ,,,=,=",
            "Basic YTpi",
            "Bearer x",
            "AWS4-HMAC-SHA256 Credential=, SignedHeaders=, Signature=",
            "AWS AKIA:sig",
            "AWS4-ECDSA-P256-SHA256 x",
        )
    ),
    *(
        post(b"Action=DescribeRegions", STAMP, AUTHORIZATION.format(scope, names, signature))
        for scope, names, signature in (
            (SCOPE, "host", "0" * 64),
            (SCOPE, "host;x-amz-date", "0" * 64),
            (SCOPE, ";" * 2000, "0" * 64),
            (SCOPE, ";".join(sorted(f"a{n}" for n in range(1000))), "0" * 64),
            (SCOPE, "host", "g" * 64),
            (SCOPE, "host", "\u0660" * 64),
            ("/" * 100, "host", "0" * 64),
            ("AKIA/\u0661\u0662\u0663\u0664\u0661\u0662\u0661\u0662/us-east-1/ec2/aws4_request", "host", "0" * 64),
            ("a/20260102/" + "r" * 5000 + "/ec2/aws4_request", "host", "0" * 64),
            ("AKIAIOSFODNN7EXAMPLE/20260102/us-east-1/nothing/aws4_request", "host", "0" * 64),
            ("AKIAIOSFODNN7EXAMPLE/20260102/us-east-1/kms/aws4_request", "host", "0" * 64),
        )
    ),
    *(
        post(b"Action=DescribeRegions", f"X-Amz-Date: {date}", AUTHORIZATION.format(SCOPE, "host", "0" * 64))
        for date in (
            "",
            "x",
            "99999999T999999Z",
            "00000000T000000Z",
            "20260230T000000Z",
            "20260102T030405",
            "\u0662" * 8 + "T000000Z",
        )
    ),
    *(
        post(b"Action=DescribeRegions", f"Date: {date}", AUTHORIZATION.format(SCOPE, "host", "0" * 64))
        for date in (
            "Fri, 31 Dec 9999 23:59:59 -1400",
            "Mon, 01 Jan 0001 00:00:00 +1400",
            "Thu, 1 Jan 1970 00:00:00 +99999999",
            "x" * 4000,
        )
    ),
    *(
        post(b"", line=f"GET /?Action=DescribeRegions&{query} HTTP/1.1")
        for query in (
            "X-Amz-Signature=0",
            "X-Amz-Expires=99999999999999999999",
            "X-Amz-Algorithm=" + "a" * 6000,
            f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={SCOPE}&X-Amz-Date=20260102T030405Z&X-Amz-Expires=0"
            "&X-Amz-SignedHeaders=host&X-Amz-Signature=" + "0" * 64,
            "X%2dAmz%2dSignature=1&X-Amz-Signature=2",
            "X-Amz-Security-Token=%00%ff",
        )
    ),
    *(
        post(b"x", line=f"{method} {path} HTTP/1.1")
        for method in ("GET", "PUT", "POST")
        for path in (
            "/upload",
            "/console/i-0123456789abcdef0",
            "/console/",
            "/console/%00",
            "/console/..%2f..%2fetc%2fpasswd",
            "/console/" + "i" * 5000,
            "/tunnel/i-0123456789abcdef0/22",
            "/tunnel/x/0",
            "/tunnel/x/99999",
            "/tunnel/x/-1",
            "/tunnel/x/" + "9" * 5000,
            "/tunnel/x/%D9%A1%D9%A2",
            "/tunnel/x/1e3",
            "/metrics",
            "/healthz",
            "/metrics/../upload",
        )
    ),
    *(
        post(
            b"",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            line="GET /console/i-0123456789abcdef0 HTTP/1.1",
        )
        for key in ("", "AAAAAAAAAAAAAAAAAAAAAA==", "x" * 5000)
    ),
]


def say(deployment: Deployment, said: bytes, timeout_s: float = 20.0) -> bytes:
    """All that is answered, until the other side ends."""
    host, _, port = deployment.endpoint.rpartition("/")[2].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=timeout_s) as connection:
        with suppress(OSError):  # it was hung up on, perhaps with an answer
            connection.sendall(said)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionError:
            pass
    return received


def judge(said: bytes, answer: bytes) -> list[int]:
    statuses = [int(found) for found in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", answer, re.MULTILINE)]
    assert all(status < 500 for status in statuses), (said[:500], answer[:1000])
    assert b"Traceback" not in answer and b"/orchestrator/" not in answer, (said[:500], answer[:1000])
    return statuses


@pytest.mark.parametrize("said", NONSENSE, ids=[f"{n}-{said[:30]!r}" for n, said in enumerate(NONSENSE)])
def test_nonsense_is_refused(deployment: Deployment, said: bytes) -> None:
    began = time.monotonic()
    statuses = judge(said, say(deployment, said))
    assert time.monotonic() - began < 15
    fine = (b"GET /healthz", b"GET /metrics")
    assert all(400 <= each < 500 or each == 100 for each in statuses) or said.startswith(fine), statuses
    gc.collect()
    assert not deployment.take_log()


def test_what_was_refused_can_be_looked_up(deployment: Deployment) -> None:
    """What a stranger puts into a header is in the audit log, and breaks it for nobody."""
    for said in NONSENSE[:20]:
        say(deployment, said)
    assert deployment.ask("cloudtrail", "LookupEvents")["Events"]


def test_changed_requests(deployment: Deployment) -> None:
    """Requests that would be good, with a few bytes changed: refused, or answered, and nothing fails."""
    chance = random.Random(SEED)
    statuses: Counter[int] = Counter()
    for _ in range(ROUNDS):
        for seed in good_requests(deployment):
            assert judge(seed, say(deployment, seed)) == [200]
            for _ in range(40):
                said = mutate(chance, seed)
                statuses.update(judge(said, say(deployment, said)))
    print(f"seed {SEED}: {statuses}")
    assert statuses[400] > 20 and statuses[403] > 20, statuses
    assert not deployment.take_log()


def good_requests(deployment: Deployment) -> list[bytes]:
    """Signed now: a form, JSON, and a presigned query."""
    host = deployment.endpoint.rpartition("/")[2]
    form = b"Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=vpc-id&Filter.1.Value.1=x"
    target = {"X-Amz-Target": "TrentService.ListKeys", "Content-Type": "application/x-amz-json-1.1"}
    made = []
    for service, body, more in (("ec2", form, {"Content-Type": FORM}), ("kms", b'{"Limit": 5}', target)):
        headers = {"Host": host, **more}
        headers |= sign("POST", f"http://{host}/", headers, body, **keys(deployment.root), service=service)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST / HTTP/1.1\r\n{lines}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        made.append(head.encode() + body)
    url = f"http://{host}/?Action=DescribeRegions&Version=2016-11-15"
    presigned = presign("GET", url, expires_s=60, **keys(deployment.root), service="ec2")
    made.append(
        f"GET /{presigned.partition(host + '/')[2]} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    return made


def keys(who: Credentials) -> dict[str, Any]:
    return {"access_key": who.access_key, "secret_key": who.secret_key, "region": "us-east-1"}


def mutate(chance: random.Random, seed: bytes) -> bytes:
    said = bytearray(seed)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(said))
        match chance.randrange(3):
            case 0:
                said[at] = chance.randrange(256)
            case 1:
                del said[at : at + chance.randrange(5)]
            case _:
                said[at:at] = chance.choice(
                    [b"%", b"\x00", b":", b"//", b" ", b"\r\n", b";", b"\xc3", b"=", b"\\", b"&"]
                )
    return bytes(said)


def test_signatures_are_read_or_refused() -> None:
    """Whatever a header or a query says: a credential, or SignatureError; and it takes no time."""
    chance = random.Random(SEED)
    words = (
        *TEXTS,
        *LONG_TEXTS,
        *SURROGATES,
        SCOPE,
        "AWS4-HMAC-SHA256",
        "0" * 64,
        "host;x-amz-date",
        "20260102T030405Z",
    )
    names = ("Credential", "SignedHeaders", "Signature", "X")
    parts = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature", "Security-Token")
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    read = refused = 0
    for _ in range(2000 * ROUNDS):
        claims = ", ".join(f"{chance.choice(names)}={chance.choice(words)}" for _ in range(chance.randint(0, 4)))
        if good := chance.random() < 0.3:
            claims = f"Credential={SCOPE}, SignedHeaders=host, Signature={'0' * 64}"
        headers = {
            "Authorization": f"{'AWS4-HMAC-SHA256' if good else chance.choice(words)} {claims}",
            chance.choice(("X-Amz-Date", "Date", "x-amz-date")): chance.choice(words),
            "Host": chance.choice(words),
            "X-Amz-Content-SHA256": chance.choice(words),
        }
        query = "&".join(f"X-Amz-{chance.choice(parts)}={chance.choice(words)}" for _ in range(chance.randint(0, 7)))
        if good:
            query = ""
            headers |= {"X-Amz-Date": "20260102T030405Z"}
        elif chance.random() < 0.5:
            del headers["Authorization"]
        elif chance.random() < 0.8:
            query = chance.choice(words)
        began = time.thread_time()
        try:
            credential = read_credential(query, headers)
            if credential is not None:
                read += 1
                verify(credential, "secret", "POST", chance.choice(words), query, headers, b"", now=now)
        except SignatureError:
            refused += 1
        assert time.thread_time() - began < 1
    assert read > 10
    assert refused > read


# --- time ---


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"POST / HT",
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_a_slow_client_is_cut(start: Callable[[], Deployment], monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(patience, "SILENCE_S", 0.4)
    monkeypatch.setattr(patience, "BODY_S", 0.3)
    monkeypatch.setattr(patience, "LINGER_S", 0.1)
    deployment = start()
    host, _, port = deployment.endpoint.rpartition("/")[2].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(said)
        received = b""
        try:
            while chunk := connection.recv(65536):  # TimeoutError, when nobody cuts it
                received += chunk
        except ConnectionError:
            pass
    judge(said, received)
    if b"Length" in said or b"chunked" in said:
        assert received.startswith(b"HTTP/1.1 408 "), received
    assert not deployment.take_log()


def test_an_upload_that_breaks_off_leaves_nothing(
    start: Callable[[], Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "BODY_S", 0.3)
    deployment = start()
    host = deployment.endpoint.rpartition("/")[2]
    url = f"http://{host}/upload"
    given = {"Host": host, "X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}
    headers = given | sign("PUT", url, given, b"", **keys(deployment.root), service="orc")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    storage: Any = deployment.controller.host.storage
    whole = f"PUT /upload HTTP/1.1\r\n{lines}Connection: close\r\nContent-Length: 3\r\n\r\nabc".encode()
    assert say(deployment, whole).startswith(b"HTTP/1.1 200 ")
    assert len(storage._uploads) == 1
    broken = f"PUT /upload HTTP/1.1\r\n{lines}Connection: close\r\nContent-Length: 300\r\n\r\nabc".encode()
    for hang_up in (True, False):
        name, _, port = host.rpartition(":")
        with socket.create_connection((name, int(port)), timeout=10) as connection:
            connection.sendall(broken)
            if not hang_up:
                judge(broken, connection.recv(65536))
    received = threading.Event()
    deployment.until(lambda: received.wait(0.05) or not _keeping(), deadline_s=10)
    assert len(storage._uploads) == 1
    assert not deployment.take_log()


def _keeping() -> bool:
    """Whether a thread is still receiving an upload."""
    return any("ThreadPoolExecutor" in thread.name for thread in threading.enumerate())

"""A controller that says what a test tells it to, and `orc` run inside the test's process."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from click.testing import CliRunner, Result

from orchestrator.api.signature import read_credential, verify
from orchestrator.cli import cli
from orchestrator.cli.client import Client
from orchestrator.cli.session import Endpoint, Session

ACCESS_KEY = "AKIATESTTESTTESTTEST"
SECRET_KEY = "secret/of+the=test"
INSTANCE = "i-0123456789abcdef0"
OTHER = "i-0fedcba9876543210"
XMLNS = "http://ec2.amazonaws.com/doc/2016-11-15/"


@dataclass
class Seen:
    """A request as it came, signature checked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    service: str
    region: str

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    @property
    def action(self) -> str:
        target = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        return target or (self.form.get("Action", "") if self.method == "POST" else "")


Reply = tuple[int, bytes]


@dataclass
class FakeApi:
    """Answers an action with what was set for it: the next of a list, or always the same. `seen` has every request."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list)
    replies: dict[str, Any] = field(default_factory=dict)

    def answer(self, action: str, *replies: str | bytes | dict[str, Any] | Reply) -> None:
        """XML text is put inside the action's response, a dict becomes JSON, a pair is status and body."""
        self.replies[action] = [self._reply(action, reply) for reply in replies]

    def refuse(self, action: str, code: str, message: str = "no", status: int = 400) -> None:
        body = f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
        self.replies[action] = [(status, body.encode())]

    def instances(self, *instances: str) -> None:
        """DescribeInstances answers these; see `instance`."""
        items = "".join(
            f"<item><reservationId>r-1</reservationId><instancesSet>{one}</instancesSet></item>" for one in instances
        )
        self.answer("DescribeInstances", f"<reservationSet>{items}</reservationSet>")

    def forms(self, action: str) -> list[dict[str, str]]:
        return [seen.form for seen in self.seen if seen.action == action]

    def documents(self, action: str) -> list[dict[str, Any]]:
        return [json.loads(seen.body) for seen in self.seen if seen.action == action]

    @staticmethod
    def _reply(action: str, reply: Any) -> Reply:
        if isinstance(reply, tuple):
            return reply
        if isinstance(reply, dict):
            return 200, json.dumps(reply).encode()
        if isinstance(reply, bytes):
            return 200, reply
        return 200, f'<{action}Response xmlns="{XMLNS}"><requestId>r</requestId>{reply}</{action}Response>'.encode()

    def _next(self, action: str) -> Reply:
        replies = self.replies.get(action)
        if replies is None:
            return 400, json.dumps({"__type": "Unexpected", "message": f"no reply was set for {action}"}).encode()
        return replies.pop(0) if len(replies) > 1 else replies[0]


def instance(instance_id: str = INSTANCE, state: str = "running", name: str = "", more: str = "") -> str:
    """An instance of DescribeInstances' answer."""
    tag = f"<tagSet><item><key>Name</key><value>{name}</value></item></tagSet>" if name else "<tagSet/>"
    return (
        f"<item><instanceId>{instance_id}</instanceId><imageId>ami-1</imageId>"
        f"<instanceState><code>16</code><name>{state}</name></instanceState><instanceType>t3.micro</instanceType>"
        f"<launchTime>2026-01-02T03:04:05.000Z</launchTime><keyName>mine</keyName>"
        f"<ipAddress>203.0.113.7</ipAddress><privateIpAddress>172.31.0.4</privateIpAddress>{tag}{more}</item>"
    )


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path, _, query = self.path.partition("?")
            credential = read_credential(query, dict(self.headers))
            assert credential is not None and credential.access_key == ACCESS_KEY
            streamed = self.command == "PUT"
            verify(
                credential,
                SECRET_KEY,
                self.command,
                path,
                query,
                dict(self.headers),
                b"" if streamed else body,
                now=datetime.now(UTC),
                allow_unsigned_payload=streamed,
            )
            seen = Seen(self.command, path, dict(self.headers), body, credential.service, credential.region)
            fake.seen.append(seen)
            status, answer = fake._next(path.strip("/") or seen.action)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def client(api: FakeApi) -> Client:
    return Client(Endpoint(api.url, "us-east-1", ACCESS_KEY, SECRET_KEY), timeout_s=10)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, and no variable that would lead elsewhere."""
    for name in ("ORC_ENDPOINT", "ORC_DATA_DIR", "ORC_CONFIG", "ORC_STATE_DIR", "XDG_DATA_HOME", "ORC_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "DEFAULT_REGION", "ENDPOINT_URL"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def write_credentials(path: Path, endpoint: str) -> Path:
    document = {
        "account": "123456789012",
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
        "region": "us-east-1",
        "endpoint": endpoint,
    }
    path.write_text(json.dumps(document))
    return path


Orc = Callable[..., Result]


@pytest.fixture
def orc(api: FakeApi, tmp_path: Path) -> Orc:
    """`orc("ls", "--all")` against the fake controller."""
    session = Session(credentials_path=write_credentials(tmp_path / "credentials.json", api.url), version="1.2.3")

    def run(*arguments: str, input: str | None = None) -> Result:
        result = CliRunner().invoke(cli, arguments, obj=lambda config_file: session, prog_name="orc", input=input)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run

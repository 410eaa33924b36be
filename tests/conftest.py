"""What all tests share: a clock that is set by hand, and controllers in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from orchestrator.api.signature import sign

from .postgres import PostgresServer


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self._now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self._lock = threading.Lock()

    def __call__(self) -> datetime:
        return self._now

    def pass_(self, **duration: float) -> None:
        with self._lock:
            self._now += timedelta(**duration)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def own_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of whoever runs the tests: no settings, and no directory that others have."""
    for name in list(os.environ):
        if name.startswith("ORC_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ORC_DATA_DIR", str(tmp_path / "data"))


class Serving:
    """A controller in a process of its own, on the in-memory host unless told otherwise."""

    def __init__(self, state_dir: Path, *flags: str, environment: Mapping[str, str] | None = None) -> None:
        self.state_dir = state_dir
        self.flags = flags
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ORC_", "AWS_"))}
        self.environment = {**inherited, "ORC_NETWORK_EGRESS": "off", **(environment or {})}
        self.process: subprocess.Popen[str] | None = None
        self.endpoint = ""
        self.program: tuple[str, ...] = ("-m", "orchestrator")
        self.command_before: tuple[str, ...] = ()  # what the controller is started by

    def start(self, deadline_s: float = 60.0) -> None:
        command = [sys.executable, *self.program, "serve", "--state-dir", str(self.state_dir)]
        port = self.endpoint.rpartition(":")[2] or "0"
        self.log = self.state_dir.with_suffix(".log").open("a")  # closed by `end`
        self.process = subprocess.Popen(
            [*self.command_before, *command, "--port", port, *self.flags],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=self.environment,
            cwd=Path(__file__).parent.parent,
        )
        assert self.process.stdout is not None
        timer = threading.Timer(deadline_s, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        found = re.search(r"serving on (\S+)", line)
        assert found, f"the controller did not start: {line}{self.state_dir.with_suffix('.log').read_text()}"
        self.endpoint = found[1]

    def end(self, number: int = signal.SIGTERM, deadline_s: float = 60.0) -> int:
        """Send it a signal and wait; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(deadline_s)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()
        return code

    def log_tail(self, lines: int = 60) -> str:
        """The end of what it has logged."""
        return "\n".join(self.state_dir.with_suffix(".log").read_text().splitlines()[-lines:])

    def client(self, service: str, **changes: str) -> Any:
        """A boto3 client of the deployment's first account."""
        keys = json.loads((self.state_dir / "credentials.json").read_text())
        given = {
            "region_name": keys["region"],
            "endpoint_url": self.endpoint,
            "aws_access_key_id": keys["access_key_id"],
            "aws_secret_access_key": keys["secret_access_key"],
        }
        return boto3.client(service, **(given | changes))  # type: ignore[call-overload]

    def orc(self, action: str, **body: Any) -> dict[str, Any]:
        """Call an action of the service of our own."""
        keys = json.loads((self.state_dir / "credentials.json").read_text())
        data = json.dumps(body).encode()
        headers = {
            "Host": self.endpoint.rpartition("/")[2],
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"Orchestrator_20261101.{action}",
        }
        headers |= sign(
            "POST",
            self.endpoint + "/",
            headers,
            data,
            access_key=keys["access_key_id"],
            secret_key=keys["secret_access_key"],
            region=keys["region"],
            service="orc",
        )
        request = urllib.request.Request(self.endpoint + "/", data, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found

    def orc_refused(self, action: str, **body: Any) -> tuple[str, str]:
        """Code and message of the error that it must end with."""
        try:
            answer = self.orc(action, **body)
        except urllib.error.HTTPError as error:
            with error:
                found = json.loads(error.read())
            return found["__type"], found["message"]
        raise AssertionError(f"{action} was not refused: {answer}")

    def until_built(self, build_id: str, deadline_s: float = 60.0) -> dict[str, Any]:
        """The build once it has ended."""
        deadline = time.monotonic() + deadline_s
        pause = threading.Event()
        while True:
            found: dict[str, Any] = self.orc("DescribeBuilds", BuildIds=[build_id])["Builds"][0]
            if found["State"] not in ("pending", "running"):
                return found
            assert time.monotonic() < deadline, f"the build does not end: {found}"
            pause.wait(0.05)

    @property
    def log_text(self) -> str:
        return self.state_dir.with_suffix(".log").read_text()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Start controllers; they are ended after the test."""
    started: list[Serving] = []

    def start(*flags: str, name: str = "state", environment: Mapping[str, str] | None = None) -> Serving:
        made = Serving(tmp_path / name, *(flags or ("--host", "memory")), environment=environment)
        made.start()
        started.append(made)
        return made

    yield start
    for made in started:
        if made.process is not None and made.process.poll() is None:
            made.end()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real server, for tests that leave it running."""
    server = PostgresServer(durable=False)
    try:
        server.start()
        yield server
    finally:
        server.remove()

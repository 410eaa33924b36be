"""What the benchmarks start and call: a controller of ours, moto's server, and a client that measures."""

from __future__ import annotations

import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.api.signature import sign

START_DEADLINE_S = 60.0
VERSION = "2016-11-15"


@dataclass(frozen=True, slots=True)
class Server:
    """Where an EC2 API answers, and who calls it."""

    host: str
    port: int
    access_key: str = "000000000000"
    secret_key: str = "secret"
    pid: int = 0

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


class Client:
    """Calls over one kept connection, where the server keeps it; every call is signed."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = http.client.HTTPConnection(server.host, server.port, timeout=120)

    def call(self, action: str, parameters: dict[str, str] | None = None) -> bytes:
        form = {"Action": action, "Version": VERSION, **(parameters or {})}
        body = urllib.parse.urlencode(form).encode()
        headers = {
            "Host": f"{self._server.host}:{self._server.port}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        headers |= sign(
            "POST",
            self._server.url + "/",
            headers,
            body,
            access_key=self._server.access_key,
            secret_key=self._server.secret_key,
            region="us-east-1",
            service="ec2",
        )
        self._connection.request("POST", "/", body, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{self._server.url} answered {action} with {answer.status}: {text.decode()[:500]}")
        return text

    def timed(self, action: str, parameters: dict[str, str] | None = None) -> float:
        """Seconds that one call took, from the first byte sent to the last one read."""
        began = time.perf_counter()
        self.call(action, parameters)
        return time.perf_counter() - began


@contextmanager
def controller(
    state_dir: Path, *flags: str, program: Sequence[str] = ("-m", "orchestrator", "serve"), ends_within_s: float = 30
) -> Iterator[Server]:
    """`orc serve`, or what stands in its place, with these flags; it is ended when the block is left."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORC_")}
    environment["ORC_NETWORK_EGRESS"] = "off"
    command = [sys.executable, *program, "--port", "0", "--state-dir", str(state_dir), *flags]
    with open(state_dir.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=Path(__file__).parent.parent
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"serving on http://([^:]+):(\d+)", line):
                    break
            else:
                raise SystemExit(f"the controller did not start: see {log.name}")
            given = json.loads((state_dir / "credentials.json").read_text())
            keys = (given["access_key_id"], given["secret_access_key"])
            yield Server(found[1], int(found[2]), *keys, pid=process.pid)
        finally:
            process.terminate()
            process.wait(timeout=ends_within_s)


@contextmanager
def moto(port: int) -> Iterator[Server]:
    """moto's server on a loopback port."""
    server = Server("127.0.0.1", port)
    command = [sys.executable, "-m", "moto.server", "-H", server.host, "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            try:
                Client(server).call("DescribeRegions")
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit("moto's server did not start") from None
                time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def median_ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


def verdict(ratio: float, passed: bool, compared: str) -> int:
    """Print the figure as the last line; the exit code."""
    print(f"ratio {ratio:.2f} ({compared}; {'met' if passed else 'MISSED'})")
    return 0 if passed else 1

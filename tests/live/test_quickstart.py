"""The two commands on a real host: quickstart to a login, and down to a host that is as it was."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = pytest.mark.live

ROOT = Path(__file__).parent.parent.parent
Run = Callable[..., str]


@pytest.fixture
def place() -> Iterator[Path]:
    """Where QEMU's user gets through."""
    place = Path(tempfile.mkdtemp(prefix="orc-test-", dir="/var/tmp"))
    place.chmod(0o711)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def run(place: Path) -> Iterator[Run]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORC_", "AWS_"))}
    environment = {
        **kept,
        "PYTHONPATH": str(ROOT),
        "ORC_NETWORK_EGRESS": "off",
        "ORC_STATE_DIR": str(place / "state"),
        "ORC_DATA_DIR": str(place / "data"),
        "ORC_PORT": "0",
    }

    def orc(*words: str) -> str:
        command = [sys.executable, "-P", "-m", "orchestrator", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    yield orc
    if (place / "state").exists():
        orc("down", "--yes")


def ours() -> str:
    """Whatever bears a deployment's mark on the host. Others may come and go meanwhile."""
    return "".join(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for command in (["ip", "link"], ["ip", "route"], ["ip", "netns"], ["nft", "list", "tables"])
    )


def test_from_nothing_to_a_login_and_back(run: Run, place: Path) -> None:
    said = run("quickstart", "--yes", "--image", "tiny", "--type", "t3.nano")
    found = re.search(r"instance-id +(i-[0-9a-f]{17})\n +instance-type +t3.nano\n", said)
    assert found, said
    instance_id = found[1]
    address = re.search(r"ssh -i (\S+) (ec2-user@[0-9.]+)", said)
    assert address, said

    # The line that it prints works word for word, but for the question whether the host is known.
    plain = ["ssh", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    logged_in = subprocess.run(
        [*plain, "-i", address[1], address[2], "uname"], capture_output=True, text=True, timeout=60, check=False
    )
    assert logged_in.stdout == "Linux\n", logged_in.stderr
    assert json.loads(run("doctor", "--leaks", "--json")) == []

    began = time.monotonic()
    again = run("quickstart", "--yes", "--image", "tiny", "--type", "t3.nano")
    assert instance_id in again and time.monotonic() - began < 20

    # Guests run on without a controller, and are found again by the next one, here to be ended.
    os.kill(int((place / "state/controller.pid").read_text()), signal.SIGKILL)
    assert _defined(instance_id)
    assert "1 terminated" in run("down", "--yes")
    assert not _defined(instance_id)
    assert json.loads(run("doctor", "--leaks", "--json")) == []
    deployment = _deployment(place)
    assert deployment not in ours()
    run("down", "--yes", "--purge")
    assert not (place / "state").exists()
    assert not Path(f"/run/orc-{deployment}").exists()


def _defined(instance_id: str) -> bool:
    listed = subprocess.run(["virsh", "list", "--all", "--name"], capture_output=True, text=True, check=True)
    return instance_id in listed.stdout


def _deployment(place: Path) -> str:
    with closing(sqlite3.connect(place / "state/orchestrator.db")) as database:
        return str(database.execute("SELECT value FROM meta WHERE name = 'deployment'").fetchone()[0])

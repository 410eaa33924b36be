"""From RunInstances to the guest's init, against plain QEMU: same kernel, ramdisk, layer and devices, in pairs.

    ours    HTTP request -> volume and network made -> libvirt -> QEMU -> kernel -> init
    plain                                                        QEMU -> kernel -> init

The plain command line is the one that libvirt gave its QEMU, without libvirt's monitor and descriptors; its overlay and
tap are made before the clock starts. Each launch of ours finds an empty VPC, so it pays for the whole network.

Bar: at most 1.25 times as long. Needs root and libvirt.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers import Client, Server, controller, median_ms, verdict

from orchestrator.cli.client import Client as CommandClient
from orchestrator.cli.session import Endpoint

PAIRS = 10
TYPE = "t3.micro"
BAR = 1.25
MARK = b"orc-tiny: init"
TAP = "orcbench0"
DEADLINE_S = 60.0
BUILD_DEADLINE_S = 300.0
POLL_S = 0.001


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of ours; all in seconds since the request was sent, the phases since it was taken in."""

    answered_s: float
    init_s: float
    phases_s: dict[str, float]


class Bench:
    def __init__(self, state_dir: Path, scratch: Path, server: Server) -> None:
        self._state_dir = state_dir
        self._scratch = scratch
        self._ec2 = Client(server)
        self._orc = CommandClient(Endpoint(server.url, "us-east-1", server.access_key, server.secret_key))
        self._image = self._build()
        self._template: list[str] = []

    def _build(self) -> str:
        build_id = self._orc.orc("BuildImage", Name="tiny")["Build"]["BuildId"]

        def ended() -> dict[str, Any] | None:
            [build] = self._orc.orc("DescribeBuilds", BuildIds=[build_id])["Builds"]
            return build if build["State"] in ("available", "failed") else None

        build = wait(ended, BUILD_DEADLINE_S, "the image tiny is not built", poll_s=0.1)
        if build["State"] == "failed":
            raise SystemExit(f"the image tiny cannot be built: {build.get('Message')}")
        return str(build["ImageId"])

    def launch(self) -> Launch:
        parameters = {"ImageId": self._image, "MinCount": "1", "MaxCount": "1", "InstanceType": TYPE}
        began = time.perf_counter()
        answer = self._ec2.call("RunInstances", parameters).decode()
        answered_s = time.perf_counter() - began
        instance_id, vpc_id = (first(rf"<{name}>(.+?)</{name}>", answer) for name in ("instanceId", "vpcId"))
        console = self._state_dir / "consoles" / f"{instance_id}.log"
        wait(lambda: written(console), DEADLINE_S, f"{instance_id} did not reach its init")
        init_s = time.perf_counter() - began
        phases = wait(lambda: self._phases(instance_id), DEADLINE_S, f"{instance_id} does not run")
        if not self._template:
            self._template = self._plain_command(instance_id)
        self._ec2.call("TerminateInstances", {"InstanceId.1": instance_id})
        wait(lambda: not (Path("/run/netns") / vpc_id).exists(), DEADLINE_S, f"{vpc_id} does not go", poll_s=0.05)
        return Launch(answered_s, init_s, phases)

    def plain(self) -> float:
        """Seconds from the start of the plain QEMU to its guest's init."""
        serial, overlay = self._scratch / "serial", self._scratch / "overlay.qcow2"
        for path in (serial, overlay):
            path.unlink(missing_ok=True)
        base = self._base()
        run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(base), str(overlay))
        began = time.perf_counter()
        process = subprocess.Popen(self._template, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait(lambda: written(serial), DEADLINE_S, "plain QEMU did not reach its guest's init")
            return time.perf_counter() - began
        finally:
            process.kill()
            process.wait()

    def _phases(self, instance_id: str) -> dict[str, float] | None:
        phases = self._orc.orc("DescribeLaunch", InstanceId=instance_id)["Phases"]
        times = {phase["Name"]: phase["SinceRequestMs"] / 1000 for phase in phases}
        return times if "started" in times else None

    def _base(self) -> Path:
        [kernel] = (self._state_dir / "kernels").iterdir()
        return self._state_dir / "layers" / f"{kernel.name}.qcow2"

    def _plain_command(self, instance_id: str) -> list[str]:
        """What libvirt started, as a person would start it."""
        process = Path(f"/run/libvirt/qemu/{instance_id}.pid").read_text()
        program, *words = Path(f"/proc/{process}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")
        command = [program]
        for option, value in options(words):
            if kept := self._plain_option(option, value):
                command += kept
        return command

    def _plain_option(self, option: str, value: str | None) -> list[str]:
        match option, value:
            case (("-S" | "-no-shutdown" | "-mon" | "-add-fd" | "-msg"), _):
                return []
            case "-object", str() if '"secret"' in value:
                return []
            case "-name", _:
                return [option, "plain"]
            case "-chardev", str():
                name = first(r"\bid=(\w+)", value)
                backends = {
                    "charmonitor": [],
                    "charserial0": [option, f"file,id={name},path={self._scratch / 'serial'}"],
                    "charchannel0": [option, f"socket,id={name},path={self._scratch / 'channel'},server=on,wait=off"],
                }
                return backends[name]
            case "-netdev", str():
                name = json.loads(value)["id"]
                return [option, f"tap,id={name},ifname={TAP},script=no,downscript=no"]
            case "-vnc", str():
                return [option, re.sub(r"unix:[^,]+", f"unix:{self._scratch / 'vnc'}", value)]
            case "-blockdev", str():
                node = json.loads(value)
                if "filename" in node and Path(node["filename"]) != self._base():
                    node["filename"] = str(self._scratch / "overlay.qcow2")
                return [option, json.dumps(node)]
            case _:
                return [option] if value is None else [option, value]


def options(words: list[str]) -> Iterator[tuple[str, str | None]]:
    """QEMU's options, each with its value where it has one."""
    at = 0
    while at < len(words):
        value = words[at + 1] if at + 1 < len(words) and not words[at + 1].startswith("-") else None
        yield words[at], value
        at += 1 if value is None else 2


def written(path: Path) -> bool:
    try:
        return MARK in path.read_bytes()
    except FileNotFoundError:
        return False


def wait(condition: Callable[[], Any], deadline_s: float, otherwise: str, *, poll_s: float = POLL_S) -> Any:
    ends = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > ends:
            raise SystemExit(f"{otherwise} in {deadline_s:g} s")
        time.sleep(poll_s)
    return value


def first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise SystemExit(f"no {pattern} in {text[:300]}")
    return found[1]


def run(*command: str) -> None:
    subprocess.run(command, check=True)


@contextmanager
def place() -> Iterator[Path]:
    """A directory that QEMU's user can get through; what the deployment keeps in /run goes with it."""
    path = Path(tempfile.mkdtemp(prefix="orc-bench-", dir="/var/tmp"))
    path.chmod(0o711)
    try:
        yield path
        with closing(sqlite3.connect(path / "state" / "orchestrator.db")) as database:
            [(deployment,)] = database.execute("SELECT value FROM meta WHERE name = 'deployment'")
        shutil.rmtree(f"/run/orc-{deployment}")
    finally:
        shutil.rmtree(path)


@contextmanager
def tap() -> Iterator[None]:
    run("ip", "tuntap", "add", TAP, "mode", "tap")
    try:
        run("ip", "link", "set", TAP, "addrgenmode", "none", "up")
        yield
    finally:
        run("ip", "tuntap", "delete", TAP, "mode", "tap")


def report(launches: list[Launch], plain: list[float]) -> None:
    ours_ms = median_ms([launch.init_s for launch in launches])
    print(f"{len(launches)} pairs, medians: ours {ours_ms:.0f} ms, plain QEMU {median_ms(plain):.0f} ms to init")
    print(f"  {'answered':10} {median_ms([launch.answered_s for launch in launches]):6.0f} ms  RunInstances over HTTP")
    about = {
        "volume": "its disk is made",
        "network": "VPC, DHCP, metadata are there (beside the disk)",
        "started": "libvirt has started QEMU",
    }
    for phase, what in about.items():
        print(f"  {phase:10} {median_ms([launch.phases_s[phase] for launch in launches]):6.0f} ms  {what}")
    print(f"  {'init':10} {ours_ms:6.0f} ms  the guest's first process")


def main() -> int:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    launches: list[Launch] = []
    plain: list[float] = []
    with place() as scratch, controller(scratch / "state", "--host", "libvirt") as server, tap():
        bench = Bench(scratch / "state", scratch, server)
        bench.launch()  # warm up: page cache, libvirt's probing of QEMU
        bench.plain()
        for number in range(pairs):
            if number % 2:
                plain.append(bench.plain())
            launches.append(bench.launch())
            if not number % 2:
                plain.append(bench.plain())
    report(launches, plain)
    # Of the means: a guest under TCG boots at one of two speeds by chance, between which a median of a few jumps.
    ratio = statistics.fmean(launch.init_s for launch in launches) / statistics.fmean(plain)
    return verdict(ratio, ratio <= BAR, f"RunInstances to init over plain QEMU to init, of the means; bar {BAR:g}")


if __name__ == "__main__":
    sys.exit(main())

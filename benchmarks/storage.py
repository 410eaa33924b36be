"""Snapshots, restored volumes and a guest's input and output, against files.

    times    CreateSnapshot of a volume that a guest uses, until it is completed; CreateVolume of it, until it is
             available: for several sizes. Beside them what a copy takes: qemu-img convert, and cp --reflink where the
             file system has it.
    speed    one guest reads and writes three disks in turn: a volume of one layer, a volume of DEPTH layers, whose
             MiBs lie in all of them in turn, and a flat raw file that libvirt gives it. Direct I/O, in pairs.

Bars: 300 ms for a snapshot and 200 ms for a volume, whatever their size; at least 0.9 of the raw file in sequence and
0.75 at random, at both depths. Needs root and libvirt.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import libvirt
from servers import controller, verdict

from orchestrator.cli.client import Client
from orchestrator.cli.login import Login, logged_in
from orchestrator.cli.session import Endpoint, key_file, write_private

SIZES_GIB = (1, 10, 100)
TIMES = 5
DEPTH = 16
ROUNDS = 5
REGION_MIB = 128  # of each disk that is read and written
RANDOM_READS = 1500
BAR_SNAPSHOT_S = 0.3
BAR_VOLUME_S = 0.2
BAR_SEQUENTIAL = 0.9
BAR_RANDOM = 0.75
DEADLINE_S = 300.0
MIB = 1 << 20
GIB = 1 << 30

# Prints operations or MiB a second: seq DISK, or rand DISK. Every block is read past the guest's own cache.
READER = f"""
import mmap, os, random, sys, time
kind, disk = sys.argv[1:]
file = os.open(disk, os.O_RDONLY | os.O_DIRECT)
size = {MIB} if kind == "seq" else 4096
buffer = mmap.mmap(-1, size)
blocks = {REGION_MIB} * {MIB} // size
order = range(blocks) if kind == "seq" else random.Random(1).choices(range(blocks), k={RANDOM_READS})
began = time.perf_counter()
for block in order:
    os.preadv(file, [buffer], block * size)
print(len(order) / (time.perf_counter() - began))
"""


class Bench:
    def __init__(self, client: Client, state_dir: Path, scratch: Path) -> None:
        self._client = client
        self._state_dir = state_dir
        self._scratch = scratch
        self._letters = iter("fghijklmnop")
        self.zone = ""
        self.instance = ""
        self._login: Login | None = None

    # --- what is asked of the controller ---

    def build(self, name: str) -> str:
        build_id = self._client.orc("BuildImage", Name=name)["Build"]["BuildId"]

        def ended() -> dict[str, Any] | None:
            [build] = self._client.orc("DescribeBuilds", BuildIds=[build_id])["Builds"]
            return build if build["State"] in ("available", "failed") else None

        build = wait(ended, f"the image {name} is not built", poll_s=0.2)
        if build["State"] == "failed":
            raise SystemExit(f"the image {name} cannot be built: {build.get('Message')}")
        return str(build["ImageId"])

    def launch(self, image: str) -> None:
        material = self._client.ec2("CreateKeyPair", KeyName="bench", KeyType="ed25519")["KeyMaterial"]
        write_private(key_file("bench"), material)
        asked = {"ImageId": image, "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1, "KeyName": "bench"}
        made = self._client.ec2("RunInstances", **asked)["Instances"][0]
        self.instance, self.zone = made["InstanceId"], made["Placement"]["AvailabilityZone"]
        user = self._client.orc("DescribeLaunch", InstanceId=self.instance)["LoginUser"]
        self._login = Login(self.instance, user, key_file("bench"))

        def answers() -> bool:
            try:
                return self.run("echo in") == "in\n"
            except Exception:
                return False

        wait(answers, f"{self.instance} lets nobody in", poll_s=1.0)
        self.run(f"cat >/tmp/reader <<'END'\n{READER}\nEND")

    def end(self) -> None:
        if self.instance:
            self._client.ec2("TerminateInstances", InstanceIds=[self.instance])
            wait(lambda: not self._client.orc("DescribeOwned")["Owned"]["Machines"], "the guest does not end")

    def run(self, line: str) -> str:
        assert self._login is not None
        with logged_in(self._client, self._login) as transport, transport.open_session() as channel:
            channel.exec_command(line)
            told = b"".join(iter(lambda: channel.recv(65536), b""))
            code = channel.recv_exit_status()
        if code != 0:
            raise SystemExit(f"{line[:60]} ended with {code}")
        return told.decode()

    def volume(self, size_gib: int, **asked: Any) -> str:
        made = self._client.ec2("CreateVolume", AvailabilityZone=self.zone, Size=size_gib, **asked)["VolumeId"]
        wait(lambda: self._state("Volume", made) == "available", f"{made} is not made")
        return str(made)

    def attach(self, volume: str) -> str:
        """The guest's name for it."""
        device = f"/dev/sd{next(self._letters)}"
        self._client.ec2("AttachVolume", VolumeId=volume, InstanceId=self.instance, Device=device)
        return self.disk(volume.replace("-", ""))

    def disk(self, serial: str) -> str:
        line = f"grep -l {serial} /sys/block/*/serial 2>/dev/null || true"
        found = wait(lambda: self.run(line).split(), f"the guest does not see {serial}", poll_s=0.3)
        return f"/dev/{found[0].split('/')[3]}"

    def snapshot(self, volume: str) -> tuple[str, float]:
        """Its id, and the seconds until it is completed."""
        began = time.perf_counter()
        made = self._client.ec2("CreateSnapshot", VolumeId=volume)["SnapshotId"]
        wait(lambda: self._state("Snapshot", made) == "completed", f"{made} is not completed")
        return made, time.perf_counter() - began

    def restore(self, snapshot: str) -> float:
        began = time.perf_counter()
        made = self._client.ec2("CreateVolume", AvailabilityZone=self.zone, SnapshotId=snapshot)["VolumeId"]
        wait(lambda: self._state("Volume", made) == "available", f"{made} is not made")
        took = time.perf_counter() - began
        self._client.ec2("DeleteVolume", VolumeId=made)
        return took

    def _state(self, kind: str, resource_id: str) -> str:
        [found] = self._client.ec2(f"Describe{kind}s", **{f"{kind}Ids": [resource_id]})[f"{kind}s"]
        return str(found["State"])

    def layer_of(self, snapshot: str) -> Path:
        layers = self._client.orc("DescribeStorage")["Layers"]
        [layer] = [each["LayerId"] for each in layers if snapshot in each["UsedBy"]]
        return self._state_dir / "layers" / f"{layer}.qcow2"

    # --- speed ---

    @contextmanager
    def raw_disk(self) -> Iterator[str]:
        """A flat raw file, given to the guest as the volumes are."""
        path = self._scratch / "flat.raw"
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, REGION_MIB * MIB)
        xml = f"""
        <disk type='file' device='disk'>
          <driver name='qemu' type='raw' cache='writeback' io='threads' discard='unmap' detect_zeroes='unmap'/>
          <source file='{path}'/><target dev='vdz' bus='virtio'/><serial>flat</serial>
          <address type='pci' domain='0' bus='4' slot='31' function='0'/>
        </disk>"""
        connection = libvirt.open("qemu:///system")
        domain = connection.lookupByName(self.instance)
        domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        try:
            yield self.disk("flat")
        finally:
            domain.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            connection.close()

    def fill(self, disk: str, *, each: int = 1, first: int = 0) -> None:
        """Data in every MiB whose number leaves `first` when divided by `each`."""
        self.run(
            f"sudo python3 -c \"import os; f = open('{disk}', 'r+b'); d = os.urandom({MIB})\n"
            f"for n in range({first}, {REGION_MIB}, {each}): f.seek(n * {MIB}); f.write(d)\n"
            'f.flush(); os.fsync(f.fileno())"'
        )

    def read(self, kind: str, disk: str) -> float:
        return float(self.run(f"sudo python3 /tmp/reader {kind} {disk}"))


def wait(look: Callable[[], Any], otherwise: str, *, poll_s: float = 0.003) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise SystemExit(otherwise)
        time.sleep(poll_s)
    return found


def seconds(command: list[str]) -> float | None:
    """None when it cannot be done here."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False)
    return time.perf_counter() - began if done.returncode == 0 else None


def measure_times(bench: Bench, scratch: Path) -> bool:
    met: list[bool] = []
    print(f"{'size':>8}  {'snapshot':>10}  {'volume':>10}  {'convert':>10}  {'reflink':>10}")
    for size_gib in SIZES_GIB:
        volume = bench.volume(size_gib, VolumeType="gp3")
        bench.fill(bench.attach(volume))
        took, restored = [], []
        for _ in range(TIMES):
            snapshot, seconds_taken = bench.snapshot(volume)
            took.append(seconds_taken)
            restored.append(bench.restore(snapshot))
        layer = bench.layer_of(snapshot)
        copied = seconds(["qemu-img", "convert", "-f", "qcow2", "-O", "qcow2", "-U", str(layer), str(scratch / "copy")])
        linked = seconds(["cp", "--reflink=always", str(layer), str(scratch / "linked")])
        for name in ("copy", "linked"):
            (scratch / name).unlink(missing_ok=True)
        worst = statistics.median(took), statistics.median(restored)
        cells = (*worst, copied, linked)
        shown = "  ".join(f"{each * 1000:7.0f} ms" if each is not None else f"{'none':>10}" for each in cells)
        print(f"{size_gib:4} GiB  {shown}")
        met += [worst[0] <= BAR_SNAPSHOT_S, worst[1] <= BAR_VOLUME_S]
    return all(met)


def measure_speed(bench: Bench) -> tuple[float, bool]:
    """The worst of all ratios to its bar's, and whether each met its bar."""
    fast = {"VolumeType": "io2", "Iops": 64000}
    single, deep = bench.volume(64, **fast), bench.volume(64, **fast)
    single_disk, deep_disk = bench.attach(single), bench.attach(deep)
    bench.fill(single_disk)
    for layer in range(DEPTH):
        bench.fill(deep_disk, each=DEPTH, first=layer)
        if layer < DEPTH - 1:
            bench.snapshot(deep)
    met: list[bool] = []
    ratios: list[float] = []
    with bench.raw_disk() as raw:
        bench.fill(raw)
        for kind, bar, unit in (("seq", BAR_SEQUENTIAL, "MiB/s"), ("rand", BAR_RANDOM, "reads/s")):
            found: dict[str, list[float]] = {disk: [] for disk in (raw, single_disk, deep_disk)}
            for _ in range(ROUNDS):
                for disk, rates in found.items():
                    rates.append(bench.read(kind, disk))
            base = statistics.median(found[raw])
            for name, disk in (("1 layer", single_disk), (f"{DEPTH} layers", deep_disk)):
                rate = statistics.median(found[disk])
                ratio = statistics.median(a / b for a, b in zip(found[disk], found[raw], strict=True))
                print(f"{kind:>5} {name:>10}: {rate:8.0f} {unit}, raw {base:8.0f}: {ratio:.2f} (bar {bar})")
                met.append(ratio >= bar)
                ratios.append(ratio)
    return min(ratios), all(met)


def main() -> int:
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="orc-bench-", dir="/var/tmp")))
        scratch.chmod(0o711)
        os.environ["ORC_DATA_DIR"] = str(scratch / "data")
        server = stack.enter_context(controller(scratch / "state", "--host", "libvirt"))
        client = Client(Endpoint(server.url, "us-east-1", server.access_key, server.secret_key))
        bench = Bench(client, scratch / "state", scratch)
        stack.callback(bench.end)
        bench.launch(bench.build("debian-12"))
        timely = measure_times(bench, scratch)
        worst, fast = measure_speed(bench)
    return verdict(worst, timely and fast, "the slowest of the guest's disks to a flat raw file, and times")


if __name__ == "__main__":
    sys.exit(main())

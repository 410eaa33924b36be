"""Hours of mixed work, and whether anything grows by it.

    lap:  rounds of work ──> all of it terminated and deleted ──> rest ──> count what is there
          (now and then the controller is ended or killed in the middle of one, and started again)

A round makes a VPC or takes the default one, a group, an instance or two, and does with them, in any order, what people
do: volumes, snapshots, images, interfaces, addresses, rules, stop and start, reboots. With `--host libvirt` guests are
real (the tiny image) and each is logged into; with `--host memory` there is nothing behind the API, and a hundred times
as many calls in the same time: what the controller itself loses shows sooner.

At rest every lap should find what the lap before found. A line is fitted through each count after a warm-up, over the
number of calls, for the controller's own figures within each of its lives. What rises beyond what chance and allocators
explain is a leak: the exit code is 1. Ctrl-C ends the run early, cleans up and prints what there is.

Of memory 3 MiB are allowed, for what allocators keep: from 26,000 to 44,000 calls in memory what is in use stays the
same (25 MiB of malloc's, 668,000 blocks of Python's, give or take 1 %) while malloc's free rest rises by 0.5 MiB, which
malloc_trim would give back.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
from footprint import Footprint
from servers import Server, controller
from trend import Sample, trend, warm

from orchestrator.cli.client import APIError, Client
from orchestrator.cli.login import Login, logged_in
from orchestrator.cli.session import Endpoint, key_file, write_private

T = TypeVar("T")

FLAGS = (
    *("--terminated-kept-s", "1", "--audit-kept", "1000", "--stop-timeout-s", "30"),
    *("--quotas", "instances=none vpcs=none security-groups=none volumes=none interfaces=none"),
    *("--api-rate-read", "off", "--api-rate-write", "off", "--api-rate-intensive", "off"),
)
ROUNDS = {"libvirt": 1, "memory": 2}  # a worker's, of one lap
WORKERS = {"libvirt": 2, "memory": 4}
EACH_ROUND = 3  # pieces of work, of those that there are
DISTURB_WITHIN_S = 10.0
TURN_S = 200.0
SETTLE_S = {"libvirt": 2.0, "memory": 0.2}
DEADLINE_S = 180.0
POLL_S = {"libvirt": 0.3, "memory": 0.01}
LEAST_LAPS = 6  # however short the run is asked to be
LEAST_SAMPLES = 4
PRINTED_EACH = 20  # laps of those that are quick
WORLD = "0.0.0.0/0"


class Ended(Exception):
    """Time is up, or somebody wants it to end."""


@dataclass(slots=True)
class Clock:
    """When to end. `now` is set from outside."""

    ends: float
    now: threading.Event = field(default_factory=threading.Event)
    waiting: bool = False  # for others, who may take long

    def end(self, *_: object) -> None:
        self.now.set()
        if self.waiting:
            raise Ended

    @property
    def over(self) -> bool:
        return self.now.is_set() or time.monotonic() >= self.ends


class Deployment:
    """A controller that is ended, killed and started again, and whoever calls it."""

    def __init__(self, scratch: Path, host: str) -> None:
        self.host = host
        self.real = host == "libvirt"
        self.state_dir = scratch / "state"
        self.calls = 0
        self.lives = 0
        self.footprint = Footprint(self.state_dir, real=self.real)
        self.image = ""
        self._lock = threading.Lock()
        self._steady = threading.Semaphore(WORKERS[host])
        self._serving = ExitStack()
        self.server: Server | None = None

    def start(self) -> None:
        self.server = self._serving.enter_context(controller(self.state_dir, "--host", self.host, *FLAGS))
        self.lives += 1

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.server is not None and number != signal.SIGTERM:
            os.kill(self.server.pid, number)
        self.server = None
        self._serving.close()

    def call(self, service: str, action: str, **parameters: Any) -> dict[str, Any]:
        with self._lock:
            self.calls += 1
        return self.client.call(service, action, **parameters)

    @property
    def client(self) -> Client:
        assert self.server is not None
        return Client(Endpoint(self.server.url, "us-east-1", self.server.access_key, self.server.secret_key))

    @contextmanager
    def steady(self) -> Iterator[None]:
        """The controller is there all the time meanwhile."""
        with self._steady:
            yield

    def disturb(self, number: int) -> None:
        """End the controller by a signal, and start it again, between two pieces of everybody's work."""
        with ExitStack() as stack:
            for _ in range(WORKERS[self.host]):
                stack.enter_context(self._steady)
            self.end(number)
            self.start()

    def ec2(self, action: str, **parameters: Any) -> dict[str, Any]:
        return self.call("ec2", action, **parameters)

    def until(self, look: Callable[[], T], otherwise: str) -> T:
        deadline = time.monotonic() + DEADLINE_S
        while not (found := look()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not in {DEADLINE_S:g} s: {otherwise}")
            time.sleep(POLL_S[self.host])
        return found

    def prepare(self) -> None:
        material = self.ec2("CreateKeyPair", KeyName="soak", KeyType="ed25519")["KeyMaterial"]
        write_private(key_file("soak"), material)
        if not self.real:
            images = self.ec2("DescribeImages", Filters=[{"Name": "name", "Values": ["tiny*"]}])["Images"]
            self.image = images[0]["ImageId"]
            return
        build = self.call("orc", "BuildImage", Name="tiny")["Build"]["BuildId"]

        def ended() -> dict[str, Any] | None:
            [found] = self.call("orc", "DescribeBuilds", BuildIds=[build])["Builds"]
            return found if found["State"] in ("available", "failed") else None

        found = self.until(ended, "the image is built")
        assert found is not None
        if found["State"] == "failed":
            raise SystemExit(f"the image tiny cannot be built: {found.get('Message')}")
        self.image = found["ImageId"]

    def rest(self) -> None:
        """Until nothing is left of what was made."""
        self.until(lambda: not self.ec2("DescribeInstances")["Reservations"], "terminated instances age out")

        def bare() -> bool:
            owned = self.call("orc", "DescribeOwned")["Owned"]
            return not owned["Machines"] and not owned["Ports"] and len(owned["Layers"]) <= 2

        self.until(bare, "machines, ports and layers are gone")
        time.sleep(SETTLE_S[self.host])


class Round:
    """One worker's work between two rests; what it makes is gone at its end."""

    def __init__(self, deployment: Deployment, dice: random.Random, name: str) -> None:
        self._at = deployment
        self._dice = dice
        self._undo = ExitStack()
        self._name = name
        self._subnet = ""
        self._group = ""
        self._zone = ""
        self.instance = ""

    def run(self) -> None:
        pieces: list[Callable[[], None]] = [
            self._volume,
            self._interface,
            self._address,
            self._rules,
            self._stop_and_start,
            self._reboot,
            self._bake,
            self._describe,
            self._modify,
        ]
        try:
            with self._at.steady():
                self._make_place()
                self._launch()
            for piece in self._dice.sample(pieces, EACH_ROUND):
                with self._at.steady():
                    piece()
        finally:
            with self._at.steady():
                self._undo.close()

    # --- what it stands on ---

    def _make_place(self) -> None:
        vpc = ""
        if self._dice.random() < 0.5:
            vpc = self._ec2("CreateVpc", CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
            self._later("DeleteVpc", VpcId=vpc)
            subnet = self._ec2("CreateSubnet", VpcId=vpc, CidrBlock="10.9.1.0/24", AvailabilityZone="us-east-1a")
            self._subnet = subnet["Subnet"]["SubnetId"]
            self._later("DeleteSubnet", SubnetId=self._subnet)
            way = self._ec2("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
            self._later("DeleteInternetGateway", InternetGatewayId=way)
            self._ec2("AttachInternetGateway", InternetGatewayId=way, VpcId=vpc)
            self._later("DetachInternetGateway", InternetGatewayId=way, VpcId=vpc)
        else:
            [subnet] = self._ec2(
                "DescribeSubnets",
                Filters=[
                    {"Name": "default-for-az", "Values": ["true"]},
                    {"Name": "availability-zone", "Values": ["us-east-1a"]},
                ],
            )["Subnets"]
            self._subnet, vpc = subnet["SubnetId"], subnet["VpcId"]
        self._at.footprint.learn([vpc, self._subnet])
        self._group = self._ec2("CreateSecurityGroup", GroupName=self._name, Description="soak", VpcId=vpc)["GroupId"]
        self._later("DeleteSecurityGroup", GroupId=self._group)
        self._ec2("AuthorizeSecurityGroupIngress", GroupId=self._group, IpPermissions=[allow(22)])

    def _launch(self) -> None:
        made = self._ec2(
            "RunInstances",
            ImageId=self._at.image,
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.nano",
            KeyName="soak",
            NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": self._subnet, "Groups": [self._group]}],
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": self._name}]}],
        )["Instances"][0]
        self.instance, self._zone = made["InstanceId"], made["Placement"]["AvailabilityZone"]
        self._at.footprint.learn([self.instance, *(nic["NetworkInterfaceId"] for nic in made["NetworkInterfaces"])])
        self._undo.callback(self._terminate)
        self._until_instance("running")
        self._shell("echo in")

    def _terminate(self) -> None:
        self._ec2("TerminateInstances", InstanceIds=[self.instance])
        self._at.until(lambda: self._state() in ("terminated", ""), f"{self.instance} is terminated")

    # --- pieces of work ---

    def _volume(self) -> None:
        volume = self._ec2("CreateVolume", AvailabilityZone=self._zone, Size=1, VolumeType="gp3")["VolumeId"]
        self._until("Volume", volume, "available")
        self._ec2("AttachVolume", VolumeId=volume, InstanceId=self.instance, Device="/dev/sdf")
        self._until("Volume", volume, "in-use")
        serial = volume.replace("-", "")
        find = f"grep -l {serial} /sys/block/*/serial | cut -d/ -f4"
        self._shell(f"sudo dd if=/dev/urandom of=/dev/$({find}) bs=64k count=16 2>/dev/null")
        snapshot = self._ec2("CreateSnapshot", VolumeId=volume)["SnapshotId"]
        self._until("Snapshot", snapshot, "completed")
        second = self._ec2("CreateVolume", AvailabilityZone=self._zone, SnapshotId=snapshot)["VolumeId"]
        self._until("Volume", second, "available")
        if self._dice.random() < 0.5:
            self._ec2("ModifyVolume", VolumeId=volume, Size=2)
        self._ec2("DetachVolume", VolumeId=volume)
        self._until("Volume", volume, "available")
        self._ec2("DeleteSnapshot", SnapshotId=snapshot)
        for each in (volume, second):
            self._ec2("DeleteVolume", VolumeId=each)

    def _interface(self) -> None:
        made = self._ec2("CreateNetworkInterface", SubnetId=self._subnet, Groups=[self._group])["NetworkInterface"]
        interface = made["NetworkInterfaceId"]
        self._at.footprint.learn([interface])
        attachment = self._ec2(
            "AttachNetworkInterface", NetworkInterfaceId=interface, InstanceId=self.instance, DeviceIndex=1
        )["AttachmentId"]

        def status() -> str:
            answer = self._ec2("DescribeNetworkInterfaces", NetworkInterfaceIds=[interface])
            return str(answer["NetworkInterfaces"][0].get("Attachment", {}).get("Status", "none"))

        self._at.until(lambda: status() == "attached", f"{interface} is attached")
        self._ec2("DetachNetworkInterface", AttachmentId=attachment, Force=True)
        self._at.until(lambda: status() == "none", f"{interface} is detached")
        self._ec2("DeleteNetworkInterface", NetworkInterfaceId=interface)

    def _address(self) -> None:
        given = self._ec2("AllocateAddress", Domain="vpc")
        taken = self._ec2("AssociateAddress", AllocationId=given["AllocationId"], InstanceId=self.instance)
        self._ec2("DescribeAddresses", AllocationIds=[given["AllocationId"]])
        self._ec2("DisassociateAddress", AssociationId=taken["AssociationId"])
        self._ec2("ReleaseAddress", AllocationId=given["AllocationId"])

    def _rules(self) -> None:
        for port in self._dice.sample(range(1000, 2000), 5):
            self._ec2("AuthorizeSecurityGroupIngress", GroupId=self._group, IpPermissions=[allow(port)])
            self._ec2("RevokeSecurityGroupIngress", GroupId=self._group, IpPermissions=[allow(port)])

    def _stop_and_start(self) -> None:
        self._ec2("StopInstances", InstanceIds=[self.instance])
        self._until_instance("stopped")
        self._ec2("StartInstances", InstanceIds=[self.instance])
        self._until_instance("running")
        self._shell("true")

    def _reboot(self) -> None:
        before = self._shell("cat /proc/sys/kernel/random/boot_id")
        self._ec2("RebootInstances", InstanceIds=[self.instance])
        if self._at.real:
            self._at.until(
                lambda: self._shell("cat /proc/sys/kernel/random/boot_id") != before, f"{self.instance} has rebooted"
            )

    def _bake(self) -> None:
        image = self._ec2("CreateImage", InstanceId=self.instance, Name=self._name, NoReboot=True)["ImageId"]

        def found() -> dict[str, Any]:
            [described] = self._ec2("DescribeImages", ImageIds=[image])["Images"]
            assert described["State"] != "failed", described
            return described if described["State"] == "available" else {}

        described = self._at.until(found, f"{image} is available")
        self._ec2("DeregisterImage", ImageId=image)
        for mapping in described["BlockDeviceMappings"]:
            self._ec2("DeleteSnapshot", SnapshotId=mapping["Ebs"]["SnapshotId"])

    def _describe(self) -> None:
        for kind in ("Instances", "Volumes", "Vpcs", "Subnets", "SecurityGroups", "NetworkInterfaces", "Images"):
            self._ec2(f"Describe{kind}")
        self._ec2("GetConsoleOutput", InstanceId=self.instance)
        self._ec2("DescribeInstanceStatus", InstanceIds=[self.instance])
        self._at.call("orc", "DescribeLaunch", InstanceId=self.instance)
        with suppress(APIError):
            self._ec2("DescribeVolumes", VolumeIds=["vol-00000000000000000"])

    def _modify(self) -> None:
        self._ec2("CreateTags", Resources=[self.instance], Tags=[{"Key": "soak", "Value": str(self._dice.random())}])
        self._ec2("DeleteTags", Resources=[self.instance], Tags=[{"Key": "soak"}])
        self._ec2("ModifyInstanceMetadataOptions", InstanceId=self.instance, HttpTokens="required")
        self._ec2("ModifyInstanceAttribute", InstanceId=self.instance, DisableApiTermination={"Value": False})

    # --- how ---

    def _ec2(self, action: str, **parameters: Any) -> dict[str, Any]:
        return self._at.ec2(action, **parameters)

    def _later(self, action: str, **parameters: Any) -> None:
        self._undo.callback(self._ec2, action, **parameters)

    def _until(self, kind: str, resource: str, state: str) -> None:
        def look() -> bool:
            [found] = self._ec2(f"Describe{kind}s", **{f"{kind}Ids": [resource]})[f"{kind}s"]
            return bool(found["State"] == state)

        self._at.until(look, f"{resource} is {state}")

    def _state(self) -> str:
        filters = [{"Name": "instance-id", "Values": [self.instance]}]
        found = self._ec2("DescribeInstances", Filters=filters)["Reservations"]
        return str(found[0]["Instances"][0]["State"]["Name"]) if found else ""

    def _until_instance(self, state: str) -> None:
        self._at.until(lambda: self._state() == state, f"{self.instance} is {state}")

    def _shell(self, line: str) -> str:
        """What the guest prints, when it lets us in."""
        if not self._at.real:
            return ""

        def answer() -> list[str]:
            client = self._at.client
            # What is not there yet, or goes away under us, is asked again.
            with suppress(Exception):
                login = Login(self.instance, "ec2-user", key_file("soak"))
                with logged_in(client, login) as transport, transport.open_session() as channel:
                    channel.exec_command(line)
                    told = b"".join(iter(lambda: channel.recv(65536), b""))
                    if channel.recv_exit_status() == 0:
                        return [told.decode()]
            return []

        return self._at.until(answer, f"{self.instance} does what it is told: {line[:60]}")[0]


def allow(port: int) -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": WORLD}]}


# --- what it finds --------------------------------------------------------------------------------------------------


def report(deployment: Deployment, samples: Sequence[Sample], failures: Sequence[str]) -> int:
    taken = warm(samples)
    if len(taken) < LEAST_SAMPLES:
        print(f"only {len(taken)} counts after warm-up: a longer run is needed", file=sys.stderr)
        return 1
    span = f"{(samples[-1].at_s - samples[0].at_s) / 60:.1f} min"
    print(f"{deployment.host}: {span}, {deployment.calls} calls, {len(samples)} laps, {deployment.lives} lives")
    print(f"{'':15}{'first':>10}{'last':>10}{'per 1,000 calls':>18}{'in all':>10}")
    found = [trend(row, taken) for row in deployment.footprint.rows]
    for each in found:
        slope = f"{each.per_thousand:+.2f} ± {each.error:.2f}"
        mark = "  LEAK" if each.leaks else ""
        print(f"{each.row:15}{each.first:>10}{each.last:>10}{slope:>18}{each.growth:>+10.1f}{mark}")
    for line in failures:
        print(f"failed: {line}")
    leaks = [each.row for each in found if each.leaks]
    print(f"leaks: {', '.join(leaks) or 'none'}" + (f"; {len(failures)} rounds failed" if failures else ""))
    return int(bool(leaks or failures))


# --- the run --------------------------------------------------------------------------------------------------------


@contextmanager
def deployed(host: str) -> Iterator[Deployment]:
    with tempfile.TemporaryDirectory(prefix="orc-soak-", dir="/var/tmp" if host == "libvirt" else None) as text:
        scratch = Path(text)
        scratch.chmod(0o711)
        os.environ["ORC_DATA_DIR"] = str(scratch / "data")
        deployment = Deployment(scratch, host)
        deployment.start()
        try:
            deployment.prepare()
            yield deployment
        finally:
            if deployment.server is None:
                deployment.start()
            sweep(deployment)
            deployment.end()
            for place in Path("/run").glob(f"orc-{deployment.footprint.deployment}"):
                shutil.rmtree(place)


def sweep(deployment: Deployment) -> None:
    """Terminate whatever an early end has left, and wait until it is gone from the host."""
    states = ["pending", "running", "stopping", "stopped"]
    found = deployment.ec2("DescribeInstances", Filters=[{"Name": "instance-state-name", "Values": states}])
    ids = [each["InstanceId"] for reservation in found["Reservations"] for each in reservation["Instances"]]
    if ids:
        deployment.ec2("TerminateInstances", InstanceIds=ids)
    for volume in deployment.ec2("DescribeVolumes")["Volumes"]:
        with suppress(click.ClickException):
            deployment.ec2("DeleteVolume", VolumeId=volume["VolumeId"])
    gone = lambda: not deployment.call("orc", "DescribeOwned")["Owned"]["Machines"]  # noqa: E731
    deployment.until(gone, "what was left is gone")


def lap(deployment: Deployment, dice: random.Random, number: int, clock: Clock, *, disturb: bool) -> list[str]:
    """All workers' rounds; what went wrong with them."""
    failures: list[str] = []

    def work(worker: int, seed: float) -> None:
        own = random.Random(seed)
        for turn in range(ROUNDS[deployment.host]):
            if clock.now.is_set():
                return
            try:
                Round(deployment, own, f"soak-{number}-{worker}-{turn}").run()
            except Exception as error:
                failures.append(f"lap {number}, worker {worker}: {type(error).__name__}: {error}")
                return

    workers = WORKERS[deployment.host]
    with ThreadPoolExecutor(workers + 1) as pool:
        done = [pool.submit(work, worker, dice.random()) for worker in range(workers)]
        if disturb:
            time.sleep(dice.uniform(0.0, DISTURB_WITHIN_S))
            done.append(pool.submit(deployment.disturb, dice.choice((signal.SIGTERM, signal.SIGKILL))))
        for each in done:
            each.result()
    return failures


class Turns:
    """A lock that is held for a while and then left to others for a while, with whom the machine is shared."""

    def __init__(self, file: str | None) -> None:
        self._file = os.open(file, os.O_RDWR | os.O_CREAT, 0o666) if file is not None else None
        self._since: float | None = None

    def take(self, clock: Clock) -> None:
        """The time that others take is not counted."""
        if self._file is None or self._since is not None:
            return
        asked = time.monotonic()
        clock.waiting = True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        finally:
            clock.waiting = False
        self._since = time.monotonic()
        clock.ends += self._since - asked

    def leave(self) -> None:
        if self._file is not None and self._since is not None and time.monotonic() - self._since > TURN_S:
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._since = None


def soak(
    deployment: Deployment, clock: Clock, *, seed: int, restart_s: float, turns: Turns
) -> tuple[list[Sample], list[str]]:
    dice = random.Random(seed)
    samples: list[Sample] = []
    failures: list[str] = []
    began = born = time.monotonic()
    while not clock.over or (len(samples) < LEAST_LAPS and not clock.now.is_set()):
        disturb = restart_s > 0 and time.monotonic() - born > restart_s
        try:
            turns.take(clock)
        except Ended:
            break
        failures += lap(deployment, dice, len(samples) + 1, clock, disturb=disturb)
        if disturb:
            born = time.monotonic()
        deployment.rest()
        assert deployment.server is not None
        figures = deployment.footprint.measure(deployment.server.pid)
        samples.append(Sample(time.monotonic() - began, deployment.calls, deployment.lives, figures))
        if deployment.real or len(samples) % PRINTED_EACH == 0:
            print(f"  {samples[-1].at_s:6.0f} s  {deployment.calls:6} calls  {figures['memory KiB']:7} KiB", flush=True)
        turns.leave()
    return samples, failures


def main() -> int:
    parser = argparse.ArgumentParser(description="Mixed work for hours; prints what grows by it.")
    parser.add_argument("--host", choices=("libvirt", "memory"), default="libvirt")
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--restart-minutes", type=float, default=20.0, help="of the real controller; 0: never")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--turns", help="a file to lock for each lap, so that others who lock it have their turn")
    given = parser.parse_args()
    minutes = given.hours * 60 + given.minutes or 60.0
    if given.host == "libvirt" and os.geteuid() != 0:
        raise SystemExit("real guests need root; --host memory does not")
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # of guests that are not there yet
    clock = Clock(math.inf)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, clock.end)
    turns = Turns(given.turns)
    turns.take(clock)
    with deployed(given.host) as deployment:
        clock.ends = time.monotonic() + minutes * 60
        restart_s = given.restart_minutes * 60 if deployment.real else 0.0
        samples, failures = soak(deployment, clock, seed=given.seed, restart_s=restart_s, turns=turns)
    return report(deployment, samples, failures)


if __name__ == "__main__":
    sys.exit(main())

"""How a deployment bears size: 10,000 instances, 1,000 volumes besides their roots, 500 groups, 100 VPCs.

    fill ──► launch ──► memory, idle ──► describe ──► curve (while it is filled) ──► start again

One command prints each figure beside its bar. Compute is always in memory: nobody boots ten thousand guests on a desk.
`--host` says what of the rest is real:

    memory    nothing. The controller alone is measured
    hollow    network (namespaces, bridges, nftables, dnsmasq) and storage (qcow2 files): needs root

The controller is the real process, `orc serve`, called over HTTP with signed requests; CPU and memory are what the
kernel says of it and of the programs that it runs.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import hollow
from describe import image_of
from servers import Client, Server, controller

from orchestrator.config import Config

INSTANCES = 10_000
PER_VPC = 100  # instances; so 100 VPCs
VOLUMES_EACH = 10  # instances for one volume besides roots
GROUPS_PER_VPC = 5
ATTACHED = 0.5  # of the volumes
LAUNCHES = 1000  # calls of one instance each
CLIENTS = 4
IDLE_S = 60.0
QUIET_S = 0.5  # a controller that has used no CPU for so long has settled
QUIET_CPU = 0.02  # of a core: its own threads wake a few times a second
CHANGES = 20  # of each kind, at each point of the curve
CHANGES_APART_S = 0.05  # so that what one brings about is not done together with that of the next
LEAST_MS = 1.0  # ratios of less say nothing
CURVE = (100, 300, 1000, 3000, 10_000)
SETTLE_DEADLINE_S = 900.0
UNLIMITED = ("--quotas", "instances=none vpcs=none security-groups=none volumes=none interfaces=none")
FLAGS = (*UNLIMITED, "--api-rate-read", "off", "--api-rate-write", "off", "--api-rate-intensive", "off")

HOLLOW_RANGE = "198.19.240.0/20"  # RFC 2544: for benchmarks

Numbers = Sequence[float]
Serving = Callable[[], AbstractContextManager[Server]]


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, and what it must be: below its bar, or at least that where `least`."""

    part: str
    name: str
    value: float
    unit: str
    bar: float | None = None
    least: bool = False
    spread: str = ""

    @property
    def met(self) -> bool:
        return self.bar is None or (self.value >= self.bar if self.least else self.value <= self.bar)

    def with_slack(self, times: float) -> Figure:
        return self if self.bar is None else replace(self, bar=self.bar / times if self.least else self.bar * times)

    def __str__(self) -> str:
        bar = ""
        if self.bar is not None:
            bar = f"bar {'at least' if self.least else 'at most'} {self.bar:g}: {'met' if self.met else 'MISSED'}"
        value = f"{self.value:.4g} {self.unit}"
        return f"{self.part:<9} {self.name:<52} {value:>14}  {self.spread:<22} {bar}".rstrip()


@dataclass(slots=True)
class Deployment:
    """What has been made in it so far, and who calls it."""

    server: Server
    client: Client
    image: str = ""
    subnets: list[str] = field(default_factory=list)
    vpcs: list[str] = field(default_factory=list)
    groups: list[list[str]] = field(default_factory=list)  # of each VPC
    instances: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, server: Server) -> Deployment:
        client = Client(server)
        return cls(server, client, any_image(client))

    def grow(self, instances: int) -> None:
        """To so many instances, with all that belongs to them. Answered, not yet settled."""
        while len(self.instances) < instances:
            if len(self.instances) >= len(self.vpcs) * PER_VPC:
                self._add_vpc()
            count = min(PER_VPC, instances - len(self.instances))
            self.instances += self.run(count)
        zone = "us-east-1a"
        while len(self.volumes) < max(CHANGES, instances // VOLUMES_EACH):
            answer = self.client.call("CreateVolume", {"Size": "1", "AvailabilityZone": zone})
            self.volumes.append(first(r"<volumeId>([^<]+)", answer))

    def attach_volumes(self) -> None:
        """Part of them, each to an instance of its own."""
        for number, volume in enumerate(self.volumes[: int(len(self.volumes) * ATTACHED)]):
            instance = self.instances[number * VOLUMES_EACH]
            self.client.call("AttachVolume", {"VolumeId": volume, "InstanceId": instance, "Device": "/dev/sdf"})

    def run(self, count: int, vpc: int = -1) -> list[str]:
        groups = self.groups[vpc]
        own = [groups[0], groups[1 + len(self.instances) % (len(groups) - 1)]]
        answer = self.client.call("RunInstances", self.launch(count, self.subnets[vpc], own))
        return re.findall(r"<instanceId>(i-[0-9a-f]+)</instanceId>", answer.decode())

    def launch(self, count: int, subnet: str, groups: list[str]) -> dict[str, str]:
        tags = {"Name": "web", "Environment": "production", "Owner": "somebody"}
        return {
            "ImageId": self.image,
            "MinCount": str(count),
            "MaxCount": str(count),
            "InstanceType": "t2.nano",
            "SubnetId": subnet,
            **{f"SecurityGroupId.{number}": group for number, group in enumerate(groups, 1)},
            "TagSpecification.1.ResourceType": "instance",
            **{f"TagSpecification.1.Tag.{number}.Key": key for number, key in enumerate(tags, 1)},
            **{f"TagSpecification.1.Tag.{number}.Value": value for number, value in enumerate(tags.values(), 1)},
        }

    def _add_vpc(self) -> None:
        call, number = self.client.call, len(self.vpcs)
        block = f"10.{number}"
        vpc = first(r"<vpcId>([^<]+)", call("CreateVpc", {"CidrBlock": f"{block}.0.0/16"}))
        zone = {"AvailabilityZone": "us-east-1a"}
        subnet = call("CreateSubnet", {"VpcId": vpc, "CidrBlock": f"{block}.0.0/20", **zone})
        groups = []
        for name in range(GROUPS_PER_VPC):
            about = {"GroupName": f"group-{name}", "GroupDescription": "of the benchmark", "VpcId": vpc}
            groups.append(first(r"<groupId>([^<]+)", call("CreateSecurityGroup", about)))
            for port in (22, 80 + name):
                call("AuthorizeSecurityGroupIngress", ingress(groups[-1], port))
        self.vpcs.append(vpc)
        self.subnets.append(first(r"<subnetId>([^<]+)", subnet))
        self.groups.append(groups)

    def count(self, state: str) -> int:
        parameters = {"IncludeAllInstances": "true", "MaxResults": "1000"}
        parameters |= {"Filter.1.Name": "instance-state-name", "Filter.1.Value.1": state}
        found, token = 0, ""
        while True:
            answer = self.client.call("DescribeInstanceStatus", parameters | ({"NextToken": token} if token else {}))
            found += answer.count(b"<instanceId>")
            token = first(r"<nextToken>([^<]+)", answer, "")
            if not token:
                return found


def any_image(client: Client) -> str:
    """One that is there; else one of an empty disk, for a host whose storage has none."""
    if b"<imageId>" in client.call("DescribeImages"):
        return image_of(client)
    volume = client.call("CreateVolume", {"Size": "1", "AvailabilityZone": "us-east-1a"})
    about = {"VolumeId": first(r"<volumeId>([^<]+)", volume)}
    while b"<status>available" not in client.call("DescribeVolumes", {"VolumeId.1": about["VolumeId"]}):
        time.sleep(0.1)
    snapshot = first(r"<snapshotId>([^<]+)", client.call("CreateSnapshot", about))
    while b"<status>completed" not in client.call("DescribeSnapshots", {"SnapshotId.1": snapshot}):
        time.sleep(0.1)
    disk = {"BlockDeviceMapping.1.DeviceName": "/dev/xvda", "BlockDeviceMapping.1.Ebs.SnapshotId": snapshot}
    about = {"Name": "empty", "RootDeviceName": "/dev/xvda", "Architecture": "x86_64", "VirtualizationType": "hvm"}
    return first(r"<imageId>([^<]+)", client.call("RegisterImage", about | disk))


def ingress(group: str, port: int) -> dict[str, str]:
    return {
        "GroupId": group,
        "IpPermissions.1.IpProtocol": "tcp",
        "IpPermissions.1.FromPort": str(port),
        "IpPermissions.1.ToPort": str(port),
        "IpPermissions.1.IpRanges.1.CidrIp": "10.0.0.0/8",
    }


def first(pattern: str, answer: bytes, default: str | None = None) -> str:
    found = re.search(pattern, answer.decode())
    if found is None and default is None:
        raise SystemExit(f"no {pattern} in {answer.decode()[:300]}")
    return found[1] if found else default or ""


# --- what the kernel says of a process --------------------------------------------------------------------------------

TICKS_PER_S = 100  # of /proc/PID/stat, on every Linux


def with_children(pid: int) -> list[int]:
    """A controller and the processes that it keeps, such as the one that loads nftables."""
    found = [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def cpu_s(pid: int) -> float:
    """User and system time of a controller, of what it keeps, and of what it began and has ended."""
    ticks = 0
    for each in with_children(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / TICKS_PER_S


def memory_mib(pid: int) -> tuple[float, float]:
    """Of a controller and what it keeps: resident, and proportional, with shared pages counted by part. The second is
    for root to see; else it is nothing."""
    each = [_memory_mib(process) for process in with_children(pid)]
    return sum(resident for resident, _ in each), sum(proportional for _, proportional in each)


def _memory_mib(pid: int) -> tuple[float, float]:
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(first(r"VmRSS:\s+(\d+) kB", status.encode())) / 1024
    try:
        smaps = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except PermissionError:
        return resident, 0.0
    return resident, int(first(r"Pss:\s+(\d+) kB", smaps)) / 1024


def settle(pid: int, quiet_s: float = QUIET_S) -> float:
    """Wait until a process has been quiet for that long; its CPU time then."""
    deadline = time.monotonic() + SETTLE_DEADLINE_S
    used = cpu_s(pid)
    while time.monotonic() < deadline:
        time.sleep(quiet_s)
        now = cpu_s(pid)
        if now - used <= QUIET_CPU * quiet_s:
            return now
        used = now
    raise SystemExit(f"the controller was not quiet within {SETTLE_DEADLINE_S:.0f} s")


def spread(values: Numbers) -> str:
    return f"{min(values):.3g} to {max(values):.3g}"


# --- the parts --------------------------------------------------------------------------------------------------------


def fill(made: Deployment, instances: int) -> Iterator[Figure]:
    """All at once: how long until every instance runs."""
    began = time.monotonic()
    made.grow(instances)
    answered = time.monotonic() - began
    while made.count("running") < instances:
        time.sleep(0.5)
        if time.monotonic() - began > SETTLE_DEADLINE_S:
            raise SystemExit(f"only {made.count('running')} of {instances} run after {SETTLE_DEADLINE_S:.0f} s")
    converged = time.monotonic() - began
    yield Figure("fill", f"{instances} instances and the rest answered", answered, "s")
    yield Figure("fill", f"launches a second, {PER_VPC} a call", instances / answered, "/s", 200.0, least=True)
    yield Figure("fill", f"{instances} instances run", converged, "s", 180.0 * max(1, instances / INSTANCES))
    settle(made.server.pid)  # volumes are made by now
    made.attach_volumes()


def launch(made: Deployment, launches: int) -> Iterator[Figure]:
    """One instance a call, as fast as they are taken."""
    clients = [Client(made.server) for _ in range(CLIENTS)]

    def some(client: Client) -> list[float]:
        return [
            client.timed("RunInstances", made.launch(1, made.subnets[number % len(made.subnets)], []))
            for number in range(launches // CLIENTS)
        ]

    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        times = [each * 1000 for found in pool.map(some, clients) for each in found]
    rate = len(times) / (time.monotonic() - began)
    yield Figure("launch", f"launches a second, one a call, {CLIENTS} clients", rate, "/s", 200.0, least=True)
    ranked = sorted(times)
    yield Figure("launch", "RunInstances meanwhile, median", statistics.median(times), "ms", None, False, spread(times))
    yield Figure("launch", "RunInstances meanwhile, p99", ranked[len(ranked) * 99 // 100], "ms")


def memory(made: Deployment) -> Iterator[Figure]:
    rss, pss = memory_mib(made.server.pid)
    yield Figure("memory", "resident", rss, "MiB", 500.0)
    yield Figure("memory", "proportional", pss, "MiB")


def idle(made: Deployment) -> Iterator[Figure]:
    settle(made.server.pid, 2.0)
    used, began = cpu_s(made.server.pid), time.monotonic()
    time.sleep(IDLE_S)
    made.client = Client(made.server)  # a connection that is silent for so long is cut
    share = (cpu_s(made.server.pid) - used) / (time.monotonic() - began)
    yield Figure("idle", f"CPU of a core over {IDLE_S:.0f} s without a call", share * 100, "%", 2.0)


def describe(made: Deployment) -> Iterator[Figure]:
    client, rounds = made.client, 30

    def timed(name: str, parameters: dict[str, str], bar: float | None, action: str = "DescribeInstances") -> Figure:
        client.call(action, parameters)
        times = [client.timed(action, parameters) * 1000 for _ in range(rounds)]
        return Figure("describe", name, statistics.median(times), "ms", bar, False, spread(times))

    def chosen(name: str, value: str) -> dict[str, str]:
        return {"Filter.1.Name": name, "Filter.1.Value.1": value}

    pages, token = [], ""
    while True:
        parameters = {"MaxResults": "1000", **({"NextToken": token} if token else {})}
        began = time.perf_counter()
        answer = client.call("DescribeInstances", parameters)
        pages.append((time.perf_counter() - began) * 1000)
        token = first(r"<nextToken>([^<]+)", answer, "")
        if not token:
            break
    yield Figure(
        "describe",
        "pages of 1,000, each for the first time",
        statistics.median(pages),
        "ms",
        None,
        False,
        spread(pages),
    )
    yield timed("a page of 1,000", {"MaxResults": "1000"}, 60.0)
    middle = made.instances[len(made.instances) // 2]
    yield timed("by id", {"InstanceId.1": middle}, 5.0)
    shown = client.call("DescribeInstances", {"InstanceId.1": middle})
    values = {
        "private-ip-address": first(r"<privateIpAddress>([^<]+)", shown),
        "vpc-id": first(r"<vpcId>([^<]+)", shown),
        "subnet-id": first(r"<subnetId>([^<]+)", shown),
        "instance.group-id": first(r"<groupId>([^<]+)", shown),
        "reservation-id": first(r"<reservationId>([^<]+)", shown),
        "block-device-mapping.volume-id": first(r"<volumeId>([^<]+)", shown),
        "network-interface.network-interface-id": first(r"<networkInterfaceId>([^<]+)", shown),
        "instance-state-name": "stopped",
        "image-id": "ami-0123456789abcdef0",
        "tag:Name": "nobody",
        "instance-type": "t2.micro",
    }
    for name, value in values.items():
        yield timed(f"by {name}", chosen(name, value), 60.0)
    everyone = {"MaxResults": "1000", **chosen("instance-state-name", "running")}
    yield timed("a page of 1,000 that run", everyone, 60.0)
    yield timed("a page of 1,000 by tag", {"MaxResults": "1000", **chosen("tag:Name", "web")}, 60.0)


def changes(made: Deployment) -> dict[str, tuple[list[float], float]]:
    """For each kind of change: milliseconds until each is answered, and of CPU until the controller has settled."""
    call = made.client.call
    launched: list[str] = []
    numbers = range(CHANGES)
    near = made.instances[-PER_VPC:]  # all in the newest VPC, which has as many instances at each size
    volumes = list(zip(made.volumes[-CHANGES:], near, strict=False))
    kinds: dict[str, Callable[[int], object]] = {
        "run one": lambda number: launched.extend(made.run(1)),
        "authorize ingress": lambda number: call(
            "AuthorizeSecurityGroupIngress", ingress(made.groups[-1][number % GROUPS_PER_VPC], 20_000 + number)
        ),
        "create tags": lambda number: call(
            "CreateTags", {"ResourceId.1": near[number], "Tag.1.Key": "Seen", "Tag.1.Value": "yes"}
        ),
        "attach a volume": lambda number: call(
            "AttachVolume", {"VolumeId": volumes[number][0], "InstanceId": volumes[number][1], "Device": "/dev/sdg"}
        ),
        "detach a volume": lambda number: call("DetachVolume", {"VolumeId": volumes[number][0]}),
        "terminate one": lambda number: call("TerminateInstances", {"InstanceId.1": launched[number]}),
    }
    found = {}
    for name, change in kinds.items():
        settled = settle(made.server.pid)
        times = []
        for number in numbers:
            began = time.perf_counter()
            change(number)
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(CHANGES_APART_S)
        used = settle(made.server.pid) - settled
        found[name] = times, used / CHANGES * 1000
    return found


def curve(made: Deployment, sizes: Sequence[int]) -> Iterator[Figure]:
    """What one change costs, the more there is."""
    costs = []
    for size in sizes:
        made.grow(size)
        settle(made.server.pid)
        costs.append(changes(made))
    for name in costs[0]:
        answered = [statistics.median(cost[name][0]) for cost in costs]
        used = [cost[name][1] for cost in costs]
        for what, values in (("answered in", answered), ("CPU until settled", used)):
            line = "  ".join(f"{size}: {value:.1f}" for size, value in zip(sizes, values, strict=True))
            print(f"curve     {name}, {what} (ms): {line}")
            yield Figure("curve", f"{name}, {what}: last over first", values[-1] / max(values[0], LEAST_MS), "x", 2.0)


def start(serving: Serving, instances: int) -> Iterator[Figure]:
    began = time.monotonic()
    with serving() as server:
        client = Client(server)
        client.call("DescribeInstances", {"MaxResults": "5"})
        yield Figure("start", "from its start to the first answer", time.monotonic() - began, "s", 5.0)
        settle(server.pid, 2.0)
        yield Figure("start", "until it has looked at everything", time.monotonic() - began, "s")
        made = Deployment(server, client)
        running = made.count("running")
        if running < instances:
            raise SystemExit(f"only {running} of {instances} run after a start")
        yield from memory(made)


@contextmanager
def deployment(host: str, state_dir: Path) -> Iterator[Serving]:
    """What serves it, as often as it is called. Nothing of it is left on the host."""
    if host == "memory":
        yield lambda: controller(state_dir, "--host", "memory", *FLAGS, ends_within_s=120)
        return
    flags = ("--network-public-range", HOLLOW_RANGE, "--network-egress", "off")
    program = (str(Path(__file__).with_name("hollow.py")),)
    try:
        yield lambda: controller(state_dir, *flags, *FLAGS, program=program, ends_within_s=120)
    finally:
        hollow.sweep(replace(Config(), state_dir=state_dir, public_range=HOLLOW_RANGE))


PARTS = ("fill", "launch", "memory", "idle", "describe", "curve", "start")


def main() -> int:
    arguments = argparse.ArgumentParser(description="How a deployment bears size.")
    arguments.add_argument("--instances", type=int, default=INSTANCES)
    arguments.add_argument("--host", choices=("memory", "hollow"), default="memory")
    arguments.add_argument("--only", choices=PARTS, action="append", help="these parts; what they need is made anyway")
    arguments.add_argument("--slack", type=float, default=1.0, help="how many times wider the bars are: for tests")
    arguments.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)  # in a network of its own by now
    given = arguments.parse_args()
    if given.host == "hollow" and not given.apart:
        # In a network of its own: what else goes on in the host's is not measured, and nothing gets out.
        again = [sys.executable, *sys.argv, "--apart"]
        os.execvp("unshare", ["unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *again])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was made on the host is swept away then as well
    parts = given.only or PARTS
    figures: list[Figure] = []

    def show(found: Iterator[Figure]) -> None:
        for figure in (each.with_slack(given.slack) for each in found):
            figures.append(figure)
            print(figure, flush=True)

    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        if "curve" in parts:
            with deployment(given.host, Path(scratch) / "curve") as serving, serving() as server:
                show(curve(Deployment.of(server), [size for size in CURVE if size <= given.instances]))
        if set(parts) - {"curve"}:
            with deployment(given.host, Path(scratch) / "state") as serving:
                with serving() as server:
                    made = Deployment.of(server)
                    show(fill(made, given.instances))
                    if "launch" in parts:
                        show(launch(made, LAUNCHES))
                    settle(server.pid, 2.0)
                    for part, measure in (("idle", idle), ("describe", describe), ("memory", memory)):
                        if part in parts:
                            show(measure(made))
                    running = made.count("running")
                if "start" in parts:
                    show(start(serving, running))
    missed = [figure for figure in figures if not figure.met]
    print(
        f"{len(figures) - len(missed)} of {len(figures)} figures met" + "".join(f"\nMISSED: {each}" for each in missed)
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

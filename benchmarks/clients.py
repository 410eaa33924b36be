"""64 clients at once, reads and writes mixed, for an hour: nobody is failed, and no write waits for ever.

    client N:  run ─► tag ─► wait ─► volume ─► attach ─► detach ─► delete ─► group ─► rules ─► delete ─► terminate ─┐
               ▲            pages, filters, ids and tags are read in between                                        │
               └────────────────────────────────────────────────────────────────────────────────────────────────────┘

Each client has one kept connection and signs each call. All of them are tasks of one process, whose share of a
processor is printed: it must not be what is measured. Throttling (`RequestLimitExceeded`) is an answer like any other,
after which a client waits and tries again; that wait counts. Then each call that moto's server has too is made of both,
one after the other, and the ratios are printed.

Bars: no error but throttling; each client writes at least half as much as the middle one; no write waits longer than
`--longest-wait`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import sys
import tempfile
import time
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from describe import image_of
from servers import VERSION, Client, Server, controller, median_ms, moto

from orchestrator.api.signature import sign

CLIENTS = 64
MINUTES = 60.0
LONGEST_WAIT_S = 5.0
FAIREST = 0.5  # of the middle client's writes
SETTLE_S = 60.0  # for one thing to become what it was asked to be
POLL_S = 0.05
BACK_OFF_S = (0.05, 2.0)  # after a throttled call: from, to
RUNNING_EACH = 4  # instances that a client leaves running
ROUNDS = 40
COMPARED_INSTANCES = 200
MOTO_PORT = 8797
FLAGS = ("--host", "memory", "--terminated-kept-s", "60", "--log-level", "warning")
ZONE = "us-east-1a"
THROTTLED = "RequestLimitExceeded"

Parameters = Mapping[str, str]


class Refused(Exception):
    """What a call was answered, when that is not 200."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Stuck(Exception):
    """Something did not become what it was asked to be."""


class Connection:
    """One kept connection, on which calls follow each other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, action: str, parameters: Parameters) -> str:
        server = self._server
        body = urllib.parse.urlencode({"Action": action, "Version": VERSION, **parameters}).encode()
        headers = {"Host": f"{server.host}:{server.port}", "Content-Type": "application/x-www-form-urlencoded"}
        headers |= sign(
            "POST",
            server.url + "/",
            headers,
            body,
            access_key=server.access_key,
            secret_key=server.secret_key,
            region="us-east-1",
            service="ec2",
        )
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if self._streams is None:
            self._streams = await asyncio.open_connection(server.host, server.port, limit=16 << 20)
        reader, writer = self._streams
        writer.write(f"POST / HTTP/1.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        text = (await reader.readexactly(int(length[1]) if length else 0)).decode()
        if head.split(b" ", 2)[1] == b"200":
            return text
        code, message = re.search(r"<Code>(.*?)</Code>", text), re.search(r"<Message>(.*?)</Message>", text)
        raise Refused(code[1] if code else head[:40].decode(), message[1] if message else text[:200])

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


@dataclass(slots=True)
class Tally:
    """What all clients have seen."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    throttled: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    writes: Counter[int] = field(default_factory=Counter)
    longest: tuple[float, str] = (0.0, "")  # of a write, from its first attempt to its answer
    stuck: Counter[str] = field(default_factory=Counter)


class Life:
    """What one client does, over and over, until it is told to stop."""

    def __init__(self, number: int, server: Server, image: str, tally: Tally, until: float) -> None:
        self._number = number
        self._connection = Connection(server)
        self._image = image
        self._tally = tally
        self._until = until
        self._chance = random.Random(number)
        self._instances: list[str] = []
        self._round = 0

    async def live(self) -> None:
        try:
            while time.monotonic() < self._until:
                self._round += 1
                await self._instance()
                await self._volume()
                await self._group()
                await self._look()
        except (OSError, EOFError, asyncio.LimitOverrunError) as error:
            self._tally.errors[f"connection: {type(error).__name__} {error}"] += 1
        except (Refused, Stuck):
            pass  # counted where it was met: this client is done
        finally:
            self._connection.close()

    async def _call(self, action: str, *, named: str = "", **parameters: str) -> str:
        writes = not action.startswith("Describe")
        wire = {name.replace("__", ".").replace("_", "-"): value for name, value in parameters.items()}
        first, pause = time.perf_counter(), BACK_OFF_S[0]
        while True:
            began = time.perf_counter()
            try:
                answer = await self._connection.call(action, wire)
            except Refused as refused:
                if refused.code == THROTTLED:
                    self._tally.throttled[action] += 1
                    await asyncio.sleep(pause * (0.5 + self._chance.random()))
                    pause = min(pause * 2, BACK_OFF_S[1])
                    continue
                self._tally.errors[f"{action}: {refused}"] += 1
                raise
            ended = time.perf_counter()
            self._tally.seconds[f"{action} {named}".strip()].append(ended - began)
            if writes:
                self._tally.writes[self._number] += 1
                self._tally.longest = max(self._tally.longest, (ended - first, action))
            return answer

    async def _until_so(self, action: str, member: str, resource_id: str, wanted: str) -> None:
        """Ask for one thing by id until its answer has that word."""
        deadline = time.monotonic() + SETTLE_S
        while wanted not in await self._call(action, named="by id", **{member: resource_id}):
            if time.monotonic() > deadline:
                self._tally.stuck[f"{action}: {wanted} did not come in {SETTLE_S:g} s"] += 1
                raise Stuck
            await self._look()
            await asyncio.sleep(POLL_S)

    async def _instance(self) -> None:
        given = {"ImageId": self._image, "MinCount": "1", "MaxCount": "1", "InstanceType": "t3.micro"}
        answer = await self._call("RunInstances", **given, ClientToken=f"{self._number}-{self._round}-{self._until}")
        instance_id = _first(answer, "instanceId")
        self._instances.append(instance_id)
        await self._tag(instance_id)
        await self._until_so("DescribeInstances", "InstanceId__1", instance_id, "<name>running</name>")
        if len(self._instances) > RUNNING_EACH:
            await self._call("TerminateInstances", InstanceId__1=self._instances.pop(0))

    async def _tag(self, resource_id: str) -> None:
        tag = {"Tag__1__Key": "client", "Tag__1__Value": str(self._number)}
        await self._call("CreateTags", ResourceId__1=resource_id, **tag)

    async def _volume(self) -> None:
        volume_id = _first(await self._call("CreateVolume", Size="1", AvailabilityZone=ZONE), "volumeId")
        named = {"VolumeId": volume_id}
        await self._tag(volume_id)
        await self._until_so("DescribeVolumes", "VolumeId__1", volume_id, "<status>available</status>")
        placed = await self._call("DescribeInstances", named="by id", InstanceId__1=self._instances[-1])
        if f"<availabilityZone>{ZONE}</availabilityZone>" in placed:
            await self._call("AttachVolume", **named, InstanceId=self._instances[-1], Device="/dev/sdf")
            await self._until_so("DescribeVolumes", "VolumeId__1", volume_id, "<status>attached</status>")
            await self._call("DetachVolume", **named)
            await self._until_so("DescribeVolumes", "VolumeId__1", volume_id, "<status>available</status>")
        await self._call("DeleteVolume", **named)

    async def _group(self) -> None:
        name = f"c{self._number}-{self._round}"
        answer = await self._call("CreateSecurityGroup", GroupName=name, GroupDescription="made by a client")
        group_id = _first(answer, "groupId")
        rule = {"IpPermissions__1__IpProtocol": "tcp", "IpPermissions__1__IpRanges__1__CidrIp": "192.0.2.0/24"}
        for port in ("22", "443"):
            ports = {"IpPermissions__1__FromPort": port, "IpPermissions__1__ToPort": port}
            await self._call("AuthorizeSecurityGroupIngress", GroupId=group_id, **rule, **ports)
        await self._look()
        await self._call("DeleteSecurityGroup", GroupId=group_id)

    async def _look(self) -> None:
        """One read, of a kind that chance chooses."""
        chosen = self._chance.choice(LOOKS)
        await self._call(chosen.action, named=chosen.named, **{**chosen.parameters, **chosen.own(self._number)})


@dataclass(frozen=True, slots=True)
class Look:
    action: str
    named: str
    parameters: Parameters
    own: Callable[[int], Parameters] = lambda number: {}


def _filter(name: str, value: str) -> dict[str, str]:
    return {"Filter__1__Name": name, "Filter__1__Value__1": value}


LOOKS = (
    Look("DescribeInstances", "a page of 100", {"MaxResults": "100"}),
    Look("DescribeInstances", "by tag", {}, lambda number: _filter("tag:client", str(number))),
    Look("DescribeInstances", "by state, a page", {"MaxResults": "50", **_filter("instance-state-name", "pending")}),
    Look("DescribeVolumes", "by tag", {}, lambda number: _filter("tag:client", str(number))),
    Look("DescribeSecurityGroups", "by name", _filter("group-name", "default")),
    Look("DescribeTags", "by value", {"MaxResults": "100"}, lambda number: _filter("value", str(number))),
    Look("DescribeSubnets", "all", {}),
)


def _first(answer: str, element: str) -> str:
    found = re.search(f"<{element}>(.*?)</{element}>", answer)
    if found is None:
        raise SystemExit(f"an answer has no {element}: {answer[:300]}")
    return found[1]


async def load(server: Server, image: str, clients: int, seconds: float) -> Tally:
    tally = Tally()
    until = time.monotonic() + seconds
    lives = [Life(number, server, image, tally, until) for number in range(clients)]
    await asyncio.gather(*(life.live() for life in lives))
    return tally


def report(tally: Tally, seconds: float, cpu_s: float, longest_wait_s: float) -> bool:
    """Print what was measured; whether the bars are met."""
    print(f"{'call':<42} {'number':>8} {'p50 ms':>9} {'p99 ms':>9} {'most ms':>9}  throttled")
    for name in sorted(tally.seconds):
        times = sorted(tally.seconds[name])
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        print(
            f"{name:<42} {len(times):>8} {median_ms(times):>9.1f} {p99 * 1000:>9.1f} {times[-1] * 1000:>9.1f}"
            f"  {tally.throttled[name] or ''}"
        )
    calls = sum(map(len, tally.seconds.values()))
    writes = sum(tally.writes.values())
    each = sorted(tally.writes.values())
    fairness = each[0] / statistics.median(each) if each else 0.0
    print(f"{calls} calls in {seconds:.0f} s: {calls / seconds:.0f} a second, {writes / seconds:.0f} of them writes")
    print(f"the clients themselves took {cpu_s / seconds:.0%} of a processor")
    least, most = (each[0], each[-1]) if each else (0, 0)
    print(f"writes of one client: {least} to {most}; the least is {fairness:.2f} of the middle")
    print(f"longest wait of a write: {tally.longest[0]:.2f} s ({tally.longest[1]}), tries after throttling included")
    print(f"throttled: {sum(tally.throttled.values())}, errors: {sum(tally.errors.values())}")
    for what, number in [*tally.errors.most_common(20), *tally.stuck.most_common(5)]:
        print(f"  {number} x {what}")
    met = not tally.errors and not tally.stuck and fairness >= FAIREST and tally.longest[0] <= longest_wait_s
    print(f"no error, writes at least {FAIREST:g} of the middle, none waits over {longest_wait_s:g} s: {_met(met)}")
    return met


def _met(met: bool) -> str:
    return "met" if met else "MISSED"


# --- beside moto ------------------------------------------------------------------------------------------------------


class Both:
    """The same calls of ours and of moto's server, in turn."""

    def __init__(self, ours: Server, theirs: Server) -> None:
        self.clients = (Client(ours), Client(theirs))
        self.times: dict[str, tuple[list[float], list[float]]] = {}

    def time(self, name: str, action: str, *given: Parameters) -> list[str]:
        """One call of each with its own parameters; the answers."""
        answers = []
        for client, parameters, taken in zip(self.clients, given, self.times.setdefault(name, ([], [])), strict=True):
            began = time.perf_counter()
            answers.append(client.call(action, dict(parameters)).decode())
            taken.append(time.perf_counter() - began)
        return answers

    def same(self, name: str, action: str, parameters: Parameters) -> list[str]:
        return self.time(name, action, parameters, parameters)


def compare(ours: Server, theirs: Server) -> None:
    both = Both(ours, theirs)
    images = [image_of(client) for client in both.clients]
    for client, image in zip(both.clients, images, strict=True):
        many = {"ImageId": image, "InstanceType": "t2.micro"}
        for _ in range(COMPARED_INSTANCES // 100):
            client.call("RunInstances", {**many, "MinCount": "100", "MaxCount": "100"})
    for number in range(ROUNDS):
        one = {"MinCount": "1", "MaxCount": "1", "InstanceType": "t2.micro"}
        made = both.time("RunInstances", "RunInstances", *({**one, "ImageId": image} for image in images))
        instances = [_first(answer, "instanceId") for answer in made]
        tag = {"Tag.1.Key": "name", "Tag.1.Value": f"n{number}"}
        both.time("CreateTags", "CreateTags", *({"ResourceId.1": each, **tag} for each in instances))
        both.time("DescribeInstances by id", "DescribeInstances", *({"InstanceId.1": each} for each in instances))
        wanted = {"Filter.1.Name": "tag:name", "Filter.1.Value.1": f"n{number}"}
        both.same("DescribeInstances by tag", "DescribeInstances", wanted)
        if number % 8 == 0:
            both.same("DescribeInstances all", "DescribeInstances", {})
        made = both.same("CreateVolume", "CreateVolume", {"Size": "1", "AvailabilityZone": ZONE})
        volumes = [_first(answer, "volumeId") for answer in made]
        both.time("DescribeVolumes by id", "DescribeVolumes", *({"VolumeId.1": each} for each in volumes))
        made = both.same(
            "CreateSecurityGroup", "CreateSecurityGroup", {"GroupName": f"g{number}", "GroupDescription": "d"}
        )
        groups = [_first(answer, "groupId") for answer in made]
        rule = {
            "IpPermissions.1.IpProtocol": "tcp",
            "IpPermissions.1.FromPort": "22",
            "IpPermissions.1.ToPort": "22",
            "IpPermissions.1.IpRanges.1.CidrIp": "192.0.2.0/24",
        }
        both.time(
            "AuthorizeSecurityGroupIngress",
            "AuthorizeSecurityGroupIngress",
            *({"GroupId": each, **rule} for each in groups),
        )
        both.time("DescribeSecurityGroups by id", "DescribeSecurityGroups", *({"GroupId.1": each} for each in groups))
        both.time("DeleteSecurityGroup", "DeleteSecurityGroup", *({"GroupId": each} for each in groups))
        both.same("DescribeSubnets", "DescribeSubnets", {})
        both.same("CreateVpc", "CreateVpc", {"CidrBlock": "10.0.0.0/16"})
        both.time("TerminateInstances", "TerminateInstances", *({"InstanceId.1": each} for each in instances))
    print(f"\n{'the same call, at the median':<32} {'ours ms':>9} {'moto ms':>9} {'moto / ours':>12}")
    for name, (mine, other) in both.times.items():
        print(
            f"{name:<32} {median_ms(mine):>9.2f} {median_ms(other):>9.2f} {median_ms(other) / median_ms(mine):>12.2f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--longest-wait", type=float, default=LONGEST_WAIT_S, help="of a write, in seconds")
    parser.add_argument("--no-moto", action="store_true", help="without the comparison")
    parser.add_argument("flags", nargs="*", help="more for `orc serve`, after --")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch) / "state"
        with controller(state, *FLAGS, *chosen.flags) as server:
            image = image_of(Client(server))
            began, cpu = time.perf_counter(), time.process_time()
            tally = asyncio.run(load(server, image, chosen.clients, chosen.minutes * 60))
            seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        met = report(tally, seconds, cpu_s, chosen.longest_wait)
        log = state.with_suffix(".log").read_text()
        if log:
            print(f"the controller logged:\n{log[-2000:]}")
        if not chosen.no_moto:
            with controller(Path(scratch) / "fresh", *FLAGS) as ours, moto(MOTO_PORT) as theirs:
                compare(ours, theirs)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

"""A guest that takes all it can get, and what is left for its neighbour.

    quiet    works on all its vCPUs, and counts
    noisy    spins on all its vCPUs; then also writes to a volume; then also floods the quiet one with packets

Each has two vCPUs and the host has few processors, so both want all of it. In turn the quiet one works alone and beside
the noise: what it does then, over what it does alone, is its part of the machine. Beside it the processor time that the
two QEMU processes have got, which whatever else runs here does not blur.

Bars: of its fair part, by the shares of both types, at least nine tenths: so 45 % beside one of its own type.
Flooding stays inside the VPC. Needs root and libvirt.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import paramiko
from servers import verdict
from soak import Deployment, allow, deployed

from orchestrator.cli.login import Login, logged_in
from orchestrator.cli.session import key_file

BAR = 0.9  # of the fair part
TICKS = os.sysconf("SC_CLK_TCK")
SHARES = {"t3.nano": 5, "t3.small": 20}  # of each of their two vCPUs, in hundredths
SETTLE_S = 1.0

# Counts on every vCPU until it is told to end; each counter leaves turns and seconds by its own clock.
COUNTER = """
count() {
    i=0; read began rest </proc/uptime
    trap 'read now rest </proc/uptime; echo $i $began $now >/tmp/count.$1; exit' TERM
    while :; do i=$((i+1)); done
}
rm -f /tmp/count.*
count 1 & a=$!; count 2 & b=$!
sleep SECONDS
kill $a $b; wait
cat /tmp/count.1 /tmp/count.2
"""
SPIN = "while :; do :; done & while :; do :; done &"
WRITE = "while :; do sudo dd if=/dev/zero of=DISK bs=1M conv=notrunc 2>/dev/null; done &"
FLOOD = "for n in 1 2 3 4; do sudo ping -q -A -s 1400 PEER >/dev/null & done; " * 2


class Guest:
    """One instance, its shell, and the processor time of its QEMU."""

    def __init__(self, deployment: Deployment, instance: str, stack: ExitStack) -> None:
        self._deployment = deployment
        self.id = instance
        described = deployment.ec2("DescribeInstances", InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        self.type: str = described["InstanceType"]
        self.address: str = described["PrivateIpAddress"]
        self.zone: str = described["Placement"]["AvailabilityZone"]
        self._transport = deployment.until(lambda: self._log_in(stack), f"{instance} lets us in")
        self._pid = int(Path(f"/run/libvirt/qemu/{instance}.pid").read_text())

    def _log_in(self, stack: ExitStack) -> paramiko.Transport | None:
        try:
            login = Login(self.id, "ec2-user", key_file("soak"))
            return stack.enter_context(logged_in(self._deployment.client, login))
        except Exception:  # it boots
            return None

    def run(self, line: str) -> str:
        assert self._transport is not None
        with self._transport.open_session() as channel:
            channel.exec_command(line)
            told = b"".join(iter(lambda: channel.recv(65536), b""))
            code = channel.recv_exit_status()
        if code != 0:
            raise SystemExit(f"{self.id}: {line[:60]} ended with {code}")
        return told.decode()

    def work(self, seconds: float) -> float:
        """Turns a second, of all its vCPUs together."""
        rates = []
        for line in self.run(COUNTER.replace("SECONDS", f"{seconds:g}")).splitlines():
            turns, began, ended = map(float, line.split())
            rates.append(turns / (ended - began))
        return sum(rates)

    def cpu_s(self) -> float:
        """Of its QEMU, since it was started."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @contextmanager
    def noise(self, *lines: str) -> Iterator[None]:
        """These lines run in it meanwhile, each of which leaves its work in the background."""
        script = "; ".join(lines).replace("&;", "&")
        self.run(f"(setsid sh -c '{script} wait' >/dev/null 2>&1 & echo $! >/tmp/noise)")
        try:
            time.sleep(SETTLE_S)
            yield
        finally:
            self.run("sudo kill -9 -$(cat /tmp/noise)")


@dataclass(frozen=True, slots=True)
class Outcome:
    case: str
    fair: float
    work: float  # of what it does alone
    cpu: float  # of the processor time of both

    @property
    def of_fair(self) -> float:
        return min(self.work, self.cpu) / self.fair

    def line(self) -> str:
        return f"{self.case:34}{self.fair:8.0%}{self.work:8.0%}{self.cpu:8.0%}{self.of_fair:10.2f}"


def compare(case: str, quiet: Guest, noisy: Guest, lines: tuple[str, ...], *, rounds: int, seconds: float) -> Outcome:
    """Alone and beside the noise in turn; the medians."""
    works, cpus = [], []
    for _ in range(rounds):
        alone = quiet.work(seconds)
        with noisy.noise(*lines):
            before = quiet.cpu_s(), noisy.cpu_s()
            beside = quiet.work(seconds)
            own, other = quiet.cpu_s() - before[0], noisy.cpu_s() - before[1]
        works.append(beside / alone)
        cpus.append(own / (own + other))
    mine, its = SHARES[quiet.type], SHARES[noisy.type]
    outcome = Outcome(case, mine / (mine + its), statistics.median(works), statistics.median(cpus))
    print(outcome.line(), flush=True)
    return outcome


def launch(deployment: Deployment, stack: ExitStack, *kinds: str) -> list[Guest]:
    [subnet] = deployment.ec2(
        "DescribeSubnets",
        Filters=[
            {"Name": "default-for-az", "Values": ["true"]},
            {"Name": "availability-zone", "Values": ["us-east-1a"]},
        ],
    )["Subnets"]
    group = deployment.ec2("CreateSecurityGroup", GroupName="noisy", Description="noisy", VpcId=subnet["VpcId"])
    echo = {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": [{"CidrIp": subnet["CidrBlock"]}]}
    deployment.ec2("AuthorizeSecurityGroupIngress", GroupId=group["GroupId"], IpPermissions=[allow(22), echo])
    ids = [
        deployment.ec2(
            "RunInstances",
            ImageId=deployment.image,
            MinCount=1,
            MaxCount=1,
            InstanceType=kind,
            KeyName="soak",
            SubnetId=subnet["SubnetId"],
            SecurityGroupIds=[group["GroupId"]],
        )["Instances"][0]["InstanceId"]
        for kind in kinds
    ]
    return [Guest(deployment, each, stack) for each in ids]


def attach(deployment: Deployment, guest: Guest) -> str:
    """A new volume; the guest's name for it."""
    volume = deployment.ec2("CreateVolume", AvailabilityZone=guest.zone, Size=1, VolumeType="gp3")["VolumeId"]

    def state() -> str:
        return str(deployment.ec2("DescribeVolumes", VolumeIds=[volume])["Volumes"][0]["State"])

    deployment.until(lambda: state() == "available", f"{volume} is made")
    deployment.ec2("AttachVolume", VolumeId=volume, InstanceId=guest.id, Device="/dev/sdf")
    look = f"grep -l {volume.replace('-', '')} /sys/block/*/serial | cut -d/ -f4; true"
    return "/dev/" + deployment.until(lambda: guest.run(look).strip(), f"{guest.id} sees {volume}")


def measure(deployment: Deployment, *, rounds: int, seconds: float, short: bool) -> list[Outcome]:
    with ExitStack() as stack:
        kinds = ("t3.nano", "t3.nano") if short else ("t3.nano", "t3.nano", "t3.small")
        quiet, noisy, *larger = launch(deployment, stack, *kinds)
        print(f"{'':34}{'fair':>8}{'work':>8}{'CPU':>8}{'of fair':>10}")
        span = {"rounds": rounds, "seconds": seconds}
        found = [compare("spins", quiet, noisy, (SPIN,), **span)]  # type: ignore[arg-type]
        if short:
            return found
        write, flood = WRITE.replace("DISK", attach(deployment, noisy)), FLOOD.replace("PEER", quiet.address)
        found.append(compare("spins and writes", quiet, noisy, (SPIN, write), **span))  # type: ignore[arg-type]
        found.append(compare("spins and floods", quiet, noisy, (SPIN, flood), **span))  # type: ignore[arg-type]
        for large in larger:
            found.append(compare("spins, of a lesser type", large, noisy, (SPIN,), **span))  # type: ignore[arg-type]
            found.append(compare("spins, of a greater type", quiet, large, (SPIN,), **span))  # type: ignore[arg-type]
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description="What a noisy guest leaves its neighbour.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each piece of work")
    parser.add_argument("--short", action="store_true", help="only the first case")
    given = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("guests need root")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # guests are ended then as well
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # of guests that are not there yet
    with deployed("libvirt") as deployment:
        found = measure(deployment, rounds=given.rounds, seconds=given.seconds, short=given.short)
    worst = min(found, key=lambda each: each.of_fair)
    return verdict(worst.of_fair, worst.of_fair >= BAR, f"of its fair part, where the noisy one {worst.case}")


if __name__ == "__main__":
    sys.exit(main())

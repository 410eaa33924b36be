"""The controller is sent SIGKILL at points of what it does to real guests; the next one goes on.

A sample: `tests/crash` does this at every point there is, on the in-memory host. ORC_KILL_SAMPLES=all takes more.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config as ClientConfig
from botocore.exceptions import ConnectionError as LostConnection
from botocore.exceptions import HTTPClientError

from orchestrator.config import Config
from orchestrator.doctor import find_leaks
from tests.live.conftest import PACE, Deployment, Guest, eventually

pytestmark = pytest.mark.live

MORE = os.environ.get("ORC_KILL_SAMPLES", "") == "all"
DIES_WITHIN_S = 60.0
MIB = 1 << 20

Call = Callable[[], Any]


class Mortal:
    """A deployment whose controller dies where it is told to."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self._told = deployment.state_dir.with_suffix(".point")
        self.kills = 0
        deployment.program = ("-m", "tests.live.dying", str(self._told))
        deployment.end()
        deployment.start()
        # A call is made once: whether it is repeated is the test's affair.
        once = ClientConfig(retries={"total_max_attempts": 1})
        self.ec2 = deployment.client("ec2", config=once)  # type: ignore[arg-type]

    def close(self) -> None:
        self._told.unlink(missing_ok=True)
        self.deployment.program = ("-m", "orchestrator")
        self.deployment.end()
        self.deployment.start()

    def dies(self, call: Call, *points: str) -> Any:
        """Make a call, and let the controller die at each of the points, one after the other: the first time while it
        answers the call or does what it asks for, then each time that it has been started again. The call's answer;
        None when there was none."""
        answer = None
        for number, point in enumerate(points):
            fresh = self._told.with_suffix(".fresh")
            fresh.write_text(point)
            fresh.rename(self._told)
            if number == 0:
                try:
                    answer = call()
                except (LostConnection, HTTPClientError):
                    answer = None
            else:
                self._start()
            self._until_dead(point)
        self._start()
        return answer

    def _until_dead(self, point: str) -> None:
        process = self.deployment.process
        assert process is not None
        try:
            eventually(lambda: not self._told.exists(), DIES_WITHIN_S, f"{point} is reached")
        finally:
            self._told.unlink(missing_ok=True)
        if process.returncode is None:
            code = self.deployment.end(0)
            assert code == -signal.SIGKILL
        self.kills += 1

    def _start(self) -> None:
        """It may die before it answers, if that is where it is to die."""
        wanted = self._told.exists()
        try:
            self.deployment.start()
        except AssertionError:
            assert self.deployment.end(0) == -signal.SIGKILL
            if not wanted or self._told.exists():
                raise


@pytest.fixture(scope="module")
def mortal(deployment: Deployment) -> Iterator[Mortal]:
    deployment.image("tiny")
    made = Mortal(deployment)
    yield made
    made.close()


class Subject:
    """The guest that all of this happens to, and its volume."""

    def __init__(self, mortal: Mortal) -> None:
        self.mortal = mortal
        self.ec2 = mortal.ec2
        self.deployment = mortal.deployment
        self.guest: Guest
        self.volume = ""

    def agrees(self) -> None:
        """The store and the host have the same, and nothing is left over."""
        config = Config(state_dir=self.deployment.state_dir, host="libvirt", network_egress="off")

        def leaks() -> list[str]:
            return find_leaks(config, self.deployment.orc)

        eventually(lambda: not leaks(), 30, "nothing is left over", every_s=0.5)
        rows = set(self.deployment.owned("Layers"))
        files = {path.stem for path in (self.deployment.state_dir / "layers").glob("layer-*.qcow2")}
        assert files == rows

    def attachment(self) -> str:
        [described] = self.ec2.describe_volumes(VolumeIds=[self.volume])["Volumes"]
        return str(described["Attachments"][0]["State"]) if described["Attachments"] else described["State"]


@pytest.fixture(scope="module")
def subject(mortal: Mortal) -> Iterator[Subject]:
    made = Subject(mortal)
    yield made
    deployment = mortal.deployment
    deployment.terminate(deployment.instances("pending", "running", "stopping", "stopped"))
    for volume in deployment.ec2.describe_volumes()["Volumes"]:
        deployment.ec2.delete_volume(VolumeId=volume["VolumeId"])
    for snapshot in deployment.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]:
        if snapshot["VolumeId"] != "vol-ffffffff":
            deployment.ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])


def test_a_launch(mortal: Mortal, subject: Subject) -> None:
    """Cut off before its commit and repeated, cut off after it and repeated: one instance, which runs."""
    deployment = mortal.deployment

    def launch() -> Any:
        return mortal.ec2.run_instances(
            ImageId=deployment.image("tiny"),
            MinCount=1,
            MaxCount=1,
            InstanceType="t3.nano",
            KeyName="live",
            SecurityGroupIds=[deployment.group],
            ClientToken="once",
        )

    before = set(deployment.instances("pending", "running"))
    assert mortal.dies(launch, "commit RunInstances before") is None
    assert set(deployment.instances("pending", "running")) == before
    points = ["commit RunInstances after", "storage.create_layer after", "network.apply after", "compute.start after"]
    assert mortal.dies(launch, *points, *(["commit instance before"] if MORE else [])) is None
    [instance] = launch()["Instances"]
    assert set(deployment.instances("pending", "running")) - before == {instance["InstanceId"]}
    subject.guest = Guest(deployment, instance["InstanceId"])
    subject.guest.wait_state("running")
    subject.guest.login()
    assert subject.guest.http("GET", "/latest/meta-data/instance-id") == (200, subject.guest.id)
    subject.agrees()


def test_a_volume_that_is_attached(mortal: Mortal, subject: Subject) -> None:
    guest, ec2 = subject.guest, subject.ec2
    zone = guest.describe()["Placement"]["AvailabilityZone"]
    boot = guest.boot_id()
    volume = subject.volume = ec2.create_volume(AvailabilityZone=zone, Size=1, VolumeType="gp3")["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig=PACE)
    mortal.dies(
        lambda: ec2.attach_volume(VolumeId=volume, InstanceId=guest.id, Device="/dev/sdf"),
        *(["compute.plug_in_disk before"] if MORE else []),
        "compute.plug_in_disk after",
    )
    eventually(lambda: subject.attachment() == "attached", 20, "it is attached")
    assert guest.boot_id() == boot
    guest.run(f"printf earlier | sudo dd of={disk_of(guest, volume)} conv=fsync 2>/dev/null")
    subject.agrees()


def test_a_snapshot_of_what_a_guest_writes_to(mortal: Mortal, subject: Subject) -> None:
    """Completed once, with what was written before it and nothing that was written after; the guest notices nothing."""
    guest, ec2, volume = subject.guest, subject.ec2, subject.volume
    boot, disk = guest.boot_id(), disk_of(guest, volume)
    mortal.dies(
        lambda: ec2.create_snapshot(VolumeId=volume),
        "storage.create_layer after",
        "compute.switch_disks before",
        "compute.switch_disks after",
        *(["commit disks before", "commit disks after"] if MORE else []),
    )
    [snapshot] = ec2.describe_snapshots(Filters=[{"Name": "volume-id", "Values": [volume]}])["Snapshots"]
    name = snapshot["SnapshotId"]
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[name], WaiterConfig=PACE)
    guest.run(f"printf latest. | sudo dd of={disk} conv=notrunc,fsync 2>/dev/null")
    restored = ec2.create_volume(AvailabilityZone=snapshot_zone(guest), SnapshotId=name)["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[restored], WaiterConfig=PACE)
    ec2.attach_volume(VolumeId=restored, InstanceId=guest.id, Device="/dev/sdg")
    ec2.get_waiter("volume_in_use").wait(VolumeIds=[restored], WaiterConfig=PACE)
    assert guest.run(f"sudo head -c 7 {disk_of(guest, restored)}") == "earlier"
    assert guest.run(f"sudo head -c 7 {disk}") == "latest."
    assert guest.boot_id() == boot
    ec2.detach_volume(VolumeId=restored)
    ec2.get_waiter("volume_available").wait(VolumeIds=[restored], WaiterConfig=PACE)
    ec2.delete_volume(VolumeId=restored)
    # What lies below is needed by nobody else: it is taken into the top while the guest runs.
    mortal.dies(lambda: ec2.delete_snapshot(SnapshotId=name), "compute.flatten_disk after")
    eventually(lambda: len(layers_of(subject)) == 1, 30, "its chain is one layer again")
    assert guest.run(f"sudo head -c 7 {disk}") == "latest."
    subject.agrees()


def test_a_stop_and_a_start(mortal: Mortal, subject: Subject) -> None:
    guest, ec2 = subject.guest, subject.ec2
    guest.run("echo kept | sudo tee /var/kept; sync")
    boot = guest.boot_id()
    guest.logout()
    points = ["compute.ask_to_stop after", "compute.remove after", *(["commit instance before"] if MORE else [])]
    mortal.dies(lambda: ec2.stop_instances(InstanceIds=[guest.id]), *points)
    guest.wait_state("stopped")
    subject.agrees()
    mortal.dies(lambda: ec2.start_instances(InstanceIds=[guest.id]), "compute.start before")
    guest.wait_state("running")
    guest.login()
    assert guest.boot_id() != boot
    assert guest.run("cat /var/kept").strip() == "kept"
    assert guest.run(f"sudo head -c 7 {disk_of(guest, subject.volume)}") == "latest."


def test_an_end(mortal: Mortal, subject: Subject) -> None:
    guest, ec2 = subject.guest, subject.ec2
    guest.logout()
    points = ["compute.remove after", "storage.remove_layer after", *(["network.remove before"] if MORE else [])]
    mortal.dies(lambda: ec2.terminate_instances(InstanceIds=[guest.id]), *points)
    guest.wait_state("terminated")
    assert guest.id not in mortal.deployment.owned("Machines")
    eventually(lambda: subject.attachment() == "available", 20, "its volume stays")
    subject.agrees()
    assert mortal.kills >= 13, "the sample has become smaller"


def snapshot_zone(guest: Guest) -> str:
    return str(guest.describe()["Placement"]["AvailabilityZone"])


def disk_of(guest: Guest, volume: str) -> str:
    """Where a guest has a volume, by the serial number that it sees."""
    line = f"grep -l {volume.replace('-', '')} /sys/block/*/serial 2>/dev/null || true"
    [found] = eventually(lambda: guest.run(line).split(), 20, f"{guest.id} sees {volume}")
    return f"/dev/{Path(found).parent.name}"


def layers_of(subject: Subject) -> list[str]:
    """The files that the volume lies on."""
    found = {each["LayerId"]: each for each in subject.deployment.orc("DescribeStorage")["Layers"]}
    chain = [next(each for each in found.values() if subject.volume in each["UsedBy"])]
    while (parent := chain[-1].get("ParentId")) in found:
        chain.append(found[parent])
    return [each["LayerId"] for each in chain]

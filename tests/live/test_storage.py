"""Volumes, snapshots and images with real guests: what is written is there, at the moment that it was asked for."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PACE, Deployment, Fleet, Guest, eventually

pytestmark = pytest.mark.live

BLOCK = 4096
# Writes its number into each block of a disk and, once that is on the disk, into a file: so of one instant the file
# says as much as the disk, or one less.
WRITER = f"""
i=0
while [ ! -e /tmp/stop ]; do
    printf '%{BLOCK}d' $i | dd of=$1 bs={BLOCK} seek=$i conv=notrunc,fsync 2>/dev/null
    echo $i >>/var/pattern; sync
    echo $i >/tmp/new; mv /tmp/new /tmp/written
    i=$((i + 1))
done
echo done >/tmp/stopped
"""


@pytest.fixture
def zone(shared: Guest) -> str:
    return str(shared.describe()["Placement"]["AvailabilityZone"])


class Disks:
    """Volumes and snapshots of a test, gone at its end."""

    def __init__(self, deployment: Deployment, zone: str) -> None:
        self.ec2 = deployment.ec2
        self.deployment = deployment
        self.zone = zone
        self.made: list[str] = []
        self.snapshots: list[str] = []

    def create(self, **asked: Any) -> str:
        made = self.ec2.create_volume(AvailabilityZone=self.zone, **asked)
        self.made.append(made["VolumeId"])
        self.ec2.get_waiter("volume_available").wait(VolumeIds=[made["VolumeId"]], WaiterConfig=PACE)
        return str(made["VolumeId"])

    def attach(self, guest: Guest, volume: str, letter: str = "f") -> str:
        """The guest's name for it."""
        self.ec2.attach_volume(VolumeId=volume, InstanceId=guest.id, Device=f"/dev/sd{letter}")
        self.ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume], WaiterConfig=PACE)
        return disk_of(guest, volume)

    def detach(self, volume: str) -> None:
        self.ec2.detach_volume(VolumeId=volume)
        self.ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig=PACE)

    def snapshot(self, volume: str) -> str:
        made = self.ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
        self.snapshots.append(made)
        self.ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[made], WaiterConfig=PACE)
        return str(made)

    def end(self) -> None:
        for volume in self.made:
            found = self.ec2.describe_volumes(Filters=[{"Name": "volume-id", "Values": [volume]}])["Volumes"]
            if found and found[0]["Attachments"]:
                self.detach(volume)
            if found:
                self.ec2.delete_volume(VolumeId=volume)
        for snapshot in self.snapshots:
            if self.ec2.describe_snapshots(Filters=[{"Name": "snapshot-id", "Values": [snapshot]}])["Snapshots"]:
                self.ec2.delete_snapshot(SnapshotId=snapshot)


@pytest.fixture
def disks(deployment: Deployment, zone: str) -> Iterator[Disks]:
    made = Disks(deployment, zone)
    yield made
    made.end()


def disk_of(guest: Guest, volume: str, deadline_s: float = 20.0) -> str:
    """Where a guest has a volume, by the serial number that it sees."""
    serial = volume.replace("-", "")
    line = f"grep -l {serial} /sys/block/*/serial 2>/dev/null || true"
    found = eventually(lambda: guest.run(line).split(), deadline_s, f"{guest.id} sees {volume}")
    assert found is not None and len(found) == 1
    return f"/dev/{found[0].split('/')[3]}"


def size_of(guest: Guest, disk: str) -> int:
    return int(guest.run(f"cat /sys/block/{disk.removeprefix('/dev/')}/size")) * 512


def test_a_volume_comes_and_goes_while_the_guest_runs(shared: Guest, disks: Disks) -> None:
    volume = disks.create(Size=1, VolumeType="gp3")
    disk = disks.attach(shared, volume)
    assert size_of(shared, disk) == 1 << 30
    shared.run(f"printf 'what was written' | sudo dd of={disk} conv=fsync 2>/dev/null")
    disks.detach(volume)
    gone = f"grep -l {volume.replace('-', '')} /sys/block/*/serial 2>/dev/null || true"
    assert shared.run(gone) == ""
    assert shared.run(f"sudo head -c 16 {disks.attach(shared, volume, 'g')}") == "what was written"


def test_a_volume_grows_under_the_guest(shared: Guest, disks: Disks) -> None:
    volume = disks.create(Size=1)
    disk = disks.attach(shared, volume)
    shared.run(f"printf kept | sudo dd of={disk} bs=1 seek={(1 << 30) - 4} conv=notrunc,fsync 2>/dev/null")
    disks.ec2.modify_volume(VolumeId=volume, Size=3)
    eventually(lambda: size_of(shared, disk) == 3 << 30, 5, "the guest sees 3 GiB")

    def done() -> bool:
        [change] = disks.ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"]
        return bool(change["ModificationState"] == "completed" and change["Progress"] == 100)

    eventually(done, 20, "the modification is completed")
    assert shared.run(f"sudo tail -c {(2 << 30) + 4} {disk} | head -c 4") == "kept"


def test_a_type_s_speed_is_felt(shared: Guest, disks: Disks) -> None:
    slow = disks.create(Size=4, VolumeType="io1", Iops=100)
    disk = disks.attach(shared, slow)
    # 300 reads of a block each cannot take less than some two seconds at 100 a second; without a limit they take 0.1.
    began = time.monotonic()
    shared.run(f"sudo dd if={disk} of=/dev/null bs=4096 count=300 iflag=direct")
    assert time.monotonic() - began > 1.5


def test_an_encrypted_volume_hides_what_is_on_it(shared: Guest, disks: Disks, deployment: Deployment) -> None:
    volume = disks.create(Size=1, Encrypted=True)
    disk = disks.attach(shared, volume)
    plain = "a plaintext that nobody must find. "
    shared.run(f"yes '{plain}' | tr -d '\\n' | head -c 8192 | sudo dd of={disk} conv=fsync 2>/dev/null")
    copied = disks.snapshot(volume)
    again = disks.create(SnapshotId=copied)
    assert shared.run(f"sudo head -c {len(plain)} {disks.attach(shared, again, 'g')}") == plain
    found = [path.name for path in (deployment.state_dir / "layers").iterdir() if plain.encode() in path.read_bytes()]
    assert found == []
    [shown] = disks.ec2.describe_volumes(VolumeIds=[again])["Volumes"]
    assert shown["Encrypted"] and shown["KmsKeyId"].startswith("arn:aws:kms:")


def begin_pattern(guest: Guest, disk: str) -> None:
    guest.run(f"cat >/tmp/writer <<'END'\n{WRITER}\nEND\nsudo rm -f /var/pattern")
    guest.run(f"(sudo sh /tmp/writer {disk} >/dev/null 2>&1 &)")
    eventually(lambda: written(guest) > 3, 30, "the writer writes")


def end_pattern(guest: Guest) -> None:
    guest.run("touch /tmp/stop")
    eventually(lambda: "done" in guest.run("cat /tmp/stopped 2>/dev/null || true"), 30, "the writer has ended")


def written(guest: Guest) -> int:
    return int(guest.run("cat /tmp/written 2>/dev/null || true").strip() or 0)


def read_pattern(guest: Guest, disk: str, blocks: int) -> int:
    """How many blocks a disk has of the pattern; fails when it has anything else."""
    text = guest.run(f"sudo dd if={disk} bs={BLOCK} count={blocks + 8} 2>/dev/null | tr -d '\\0' | tr -s ' '", 60)
    numbers = [int(word) for word in text.split()]
    assert numbers == list(range(len(numbers)))
    return len(numbers)


def test_snapshots_are_of_one_moment(deployment: Deployment, fleet: Fleet, disks: Disks) -> None:
    """Twenty snapshots, two at each instant, while both volumes are written to; then they go in any order."""
    guest = fleet.one(Placement={"AvailabilityZone": disks.zone})
    data = disks.create(Size=1)
    begin_pattern(guest, disks.attach(guest, data))
    moments: list[tuple[int, str, str, int]] = []
    for _ in range(10):
        before = written(guest)
        made = deployment.ec2.create_snapshots(InstanceSpecification={"InstanceId": guest.id})["Snapshots"]
        by_volume = {each["VolumeId"]: each["SnapshotId"] for each in made}
        disks.snapshots += by_volume.values()
        ids = list(by_volume.values())
        deployment.ec2.get_waiter("snapshot_completed").wait(SnapshotIds=ids, WaiterConfig=PACE)
        root = next(snapshot for volume, snapshot in by_volume.items() if volume != data)
        moments.append((before, root, by_volume[data], written(guest)))
        eventually(lambda past=moments[-1][3]: written(guest) > past + 2, 30, "the writer goes on")  # type: ignore[misc]
    end_pattern(guest)
    assert written(guest) > moments[-1][3]

    reader = fleet.one(Placement={"AvailabilityZone": disks.zone})
    contents: dict[str, int] = {}
    for before, root, copied, after in moments:
        files = disks.attach(reader, disks.create(SnapshotId=root), "f")
        blocks = disks.attach(reader, disks.create(SnapshotId=copied), "g")
        told = reader.run(f"sudo mkdir -p /mnt; sudo mount {files} /mnt && cat /mnt/var/pattern; sudo umount /mnt")
        noted = [int(line) for line in told.split()]
        assert noted == list(range(len(noted)))
        on_disk = read_pattern(reader, blocks, after + 2)
        assert before + 1 <= len(noted) <= on_disk <= len(noted) + 1 <= after + 3, (before, len(noted), on_disk, after)
        contents[copied] = on_disk
        for volume in disks.made[-2:]:
            disks.detach(volume)
            deployment.ec2.delete_volume(VolumeId=volume)

    order = random.Random(4).sample(moments, len(moments))
    for gone, (_, root, copied, _) in enumerate(order):
        deployment.ec2.delete_snapshot(SnapshotId=copied)
        deployment.ec2.delete_snapshot(SnapshotId=root)
        del contents[copied]
        if contents and gone % 3 == 0:
            chosen, expected = next(iter(contents.items()))
            volume = disks.create(SnapshotId=chosen)
            assert read_pattern(reader, disks.attach(reader, volume, "h"), expected + 8) == expected
            disks.detach(volume)
            deployment.ec2.delete_volume(VolumeId=volume)
    total = read_pattern(guest, disk_of(guest, data), written(guest) + 2)
    assert total == written(guest) + 1


def test_the_round_trip_of_an_image(deployment: Deployment, fleet: Fleet) -> None:
    """Configured, imaged by a reboot, launched twice: both have what was configured, and each is itself."""
    guest = fleet.one()
    guest.run("echo configured | sudo tee /etc/marker >/dev/null; sync")
    extra = deployment.ec2.create_volume(AvailabilityZone=guest.describe()["Placement"]["AvailabilityZone"], Size=1)
    deployment.ec2.get_waiter("volume_available").wait(VolumeIds=[extra["VolumeId"]], WaiterConfig=PACE)
    deployment.ec2.attach_volume(VolumeId=extra["VolumeId"], InstanceId=guest.id, Device="/dev/sdf")
    deployment.ec2.get_waiter("volume_in_use").wait(VolumeIds=[extra["VolumeId"]], WaiterConfig=PACE)
    guest.run(f"printf data | sudo dd of={disk_of(guest, extra['VolumeId'])} conv=fsync 2>/dev/null")
    before, key = guest.boot_id(), host_key(guest)
    image = deployment.ec2.create_image(InstanceId=guest.id, Name="round-trip")["ImageId"]
    assert guest.state == "running"
    deployment.ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig=PACE)
    guest.login(120)
    assert guest.boot_id() != before
    twins = fleet.launch(2, image=image)
    for twin in twins:
        twin.wait_state("running")
        twin.login(120)
        assert twin.run("cat /etc/marker") == "configured\n"
        mapped = {m["DeviceName"]: m["Ebs"]["VolumeId"] for m in twin.describe()["BlockDeviceMappings"]}
        assert sorted(mapped) == sorted(m["DeviceName"] for m in guest.describe()["BlockDeviceMappings"])
        assert twin.run(f"sudo head -c 4 {disk_of(twin, mapped['/dev/sdf'])}") == "data"
        assert twin.run("hostname").strip() in twin.describe()["PrivateDnsName"]
    assert len({host_key(each) for each in twins} | {key}) == 3
    [shown] = deployment.ec2.describe_images(ImageIds=[image])["Images"]
    deployment.ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
    snapshots = [mapping["Ebs"]["SnapshotId"] for mapping in shown["BlockDeviceMappings"]]
    left = deployment.ec2.describe_snapshots(Filters=[{"Name": "snapshot-id", "Values": snapshots}])["Snapshots"]
    assert left == []
    assert twins[0].run("cat /etc/marker") == "configured\n"


def host_key(guest: Guest) -> str:
    transport = guest._connection().get_transport()
    assert transport is not None
    return str(transport.get_remote_server_key().get_base64())


@contextmanager
def killing(deployment: Deployment, after_s: float) -> Iterator[None]:
    """The controller is killed some time from now, and then started again."""

    def kill() -> None:
        deployment.end(signal.SIGKILL)

    timer = threading.Timer(after_s, kill)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        deployment.start()


def test_killed_in_the_middle_it_goes_on(deployment: Deployment, fleet: Fleet, disks: Disks) -> None:
    """Killed at moments of a snapshot, an attachment and a modification: each comes to its end."""
    guest = fleet.one(Placement={"AvailabilityZone": disks.zone})
    data = disks.create(Size=1)
    disk = disks.attach(guest, data)
    for number, after_s in enumerate((0.0, 0.03, 0.1)):
        guest.run(f"printf 'moment {number}' | sudo dd of={disk} conv=notrunc,fsync 2>/dev/null")
        made = deployment.ec2.create_snapshot(VolumeId=data)["SnapshotId"]
        disks.snapshots.append(made)
        with killing(deployment, after_s):
            pass
        deployment.ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[made], WaiterConfig=PACE)
        volume = disks.create(SnapshotId=made)
        deployment.ec2.attach_volume(VolumeId=volume, InstanceId=guest.id, Device=f"/dev/sd{'ghijk'[number]}")
        with killing(deployment, after_s):
            pass
        deployment.ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume], WaiterConfig=PACE)
        assert guest.run(f"sudo head -c 8 {disk_of(guest, volume)}") == f"moment {number}"
        deployment.ec2.modify_volume(VolumeId=volume, Size=2)
        with killing(deployment, after_s):
            pass
        seen = disk_of(guest, volume)
        eventually(lambda name=seen: size_of(guest, name) == 2 << 30, 20, "2 GiB")  # type: ignore[misc]
    assert guest.run(f"sudo head -c 8 {disk}") == "moment 2"


def layer_files(deployment: Deployment) -> set[str]:
    return {path.name for path in Path(deployment.state_dir, "layers").iterdir()}


def test_what_is_deleted_gives_its_space_back(deployment: Deployment, shared: Guest, disks: Disks) -> None:
    before = layer_files(deployment)
    volume = disks.create(Size=1)
    disk = disks.attach(shared, volume)
    snapshots = []
    for _ in range(3):
        shared.run(f"sudo dd if=/dev/urandom of={disk} bs=1M count=2 conv=fsync 2>/dev/null")
        snapshots.append(disks.snapshot(volume))
    for snapshot in snapshots:
        disks.ec2.delete_snapshot(SnapshotId=snapshot)
    # What lay below is taken into the one layer that needs it, while the guest runs.
    eventually(lambda: len(layer_files(deployment) - before) == 1, 60, "one layer is left")
    content = shared.run(f"sudo dd if={disk} bs=1M count=2 2>/dev/null | md5sum")
    disks.detach(volume)
    assert shared.run(f"sudo dd if={disks.attach(shared, volume)} bs=1M count=2 2>/dev/null | md5sum") == content
    disks.detach(volume)
    disks.ec2.delete_volume(VolumeId=volume)
    eventually(lambda: layer_files(deployment) == before, 30, "nothing is left")

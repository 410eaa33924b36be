"""Lifecycles of volumes, snapshots, images and keys."""

from __future__ import annotations

from contextlib import suppress

from orchestrator.model.errors import EC2Error
from orchestrator.model.image import Build, ExportTask, Image, ImportTask
from orchestrator.model.instance import Instance
from orchestrator.model.kms import Key
from orchestrator.model.layer import GIB
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.reconcile.disks import serial
from tests.crash.lifecycles import images, launch, lifecycle, running, state, two_disks, with_volume, with_volume_off
from tests.crash.world import World

ZONE = "us-east-1a"


# --- what there is when they begin --------------------------------------------------------------------------------


def with_snapshots(w: World) -> None:
    """Of the second volume of a running instance, two."""
    two_disks(w)
    for name in ("older", "newer"):
        w.names[name] = w.ask("CreateSnapshot", VolumeId=w.names["second"])["SnapshotId"]
        w.settle()


def with_snapshots_off(w: World) -> None:
    with_snapshots(w)
    w.ask("StopInstances", InstanceIds=[w.names["instance"]])
    w.settle()


def with_key(w: World) -> None:
    """A running instance with an encrypted volume, and a snapshot of that."""
    running(w)
    w.names["key"] = w.ask("CreateKey", service="kms")["KeyMetadata"]["KeyId"]
    volume = w.ask("CreateVolume", AvailabilityZone=ZONE, Size=2, Encrypted=True, KmsKeyId=w.names["key"])
    w.names["volume"] = volume["VolumeId"]
    w.settle()
    w.names["snapshot"] = w.ask("CreateSnapshot", VolumeId=w.names["volume"])["SnapshotId"]
    w.settle()


def with_image(w: World) -> None:
    running(w)
    made = w.ask("CreateImage", InstanceId=w.names["instance"], Name="mine", NoReboot=True)
    w.names["image"] = made["ImageId"]
    w.settle()
    [w.names["snapshot"]] = w.get(Image, made["ImageId"]).snapshot_ids


# --- volumes ------------------------------------------------------------------------------------------------------


@lifecycle(images)
def volume(w: World) -> None:
    made = w.ask("CreateVolume", AvailabilityZone=ZONE, Size=2)["VolumeId"]
    w.settle()
    assert w.get(Volume, made).state == "available"
    w.ask("DeleteVolume", VolumeId=made)
    w.settle()
    assert w.store.get(Volume, made) is None


@lifecycle(with_snapshots)
def volume_from_a_snapshot(w: World) -> None:
    made = w.ask("CreateVolume", AvailabilityZone=ZONE, SnapshotId=w.names["older"], Size=5)["VolumeId"]
    w.settle()
    assert w.get(Volume, made).state == "available"
    w.ask("DeleteSnapshot", SnapshotId=w.names["older"])
    w.settle()
    w.ask("DeleteVolume", VolumeId=made)
    w.settle()


@lifecycle(with_snapshots)
def encrypted_volume_from_a_snapshot(w: World) -> None:
    """Its layer is a copy, since what it comes from is not encrypted."""
    made = w.ask("CreateVolume", AvailabilityZone=ZONE, SnapshotId=w.names["newer"], Encrypted=True)["VolumeId"]
    w.settle()
    assert (w.get(Volume, made).state, bool(w.get(Volume, made).key_id)) == ("available", True)


@lifecycle(with_volume)
def volume_of_a_running_instance(w: World) -> None:
    names = {"VolumeId": w.names["volume"], "InstanceId": w.names["instance"]}
    w.ask("AttachVolume", Device="/dev/sdf", **names)
    w.settle()
    assert serial(names["VolumeId"]) in {disk.serial for disk in w.host.compute.disks(names["InstanceId"])}
    w.ask("DetachVolume", **names)
    w.settle()
    assert w.get(Volume, names["VolumeId"]).state == "available"
    assert serial(names["VolumeId"]) not in {disk.serial for disk in w.host.compute.disks(names["InstanceId"])}


@lifecycle(with_volume)
def volume_that_a_guest_holds(w: World) -> None:
    names = {"VolumeId": w.names["volume"], "InstanceId": w.names["instance"]}
    w.ask("AttachVolume", Device="/dev/sdf", **names)
    w.settle()
    w.host.compute.hold_on(names["InstanceId"])
    w.waits = True
    w.ask("DetachVolume", Force=True, **names)
    w.passes(seconds=60)
    assert w.get(Volume, names["VolumeId"]).state == "available"
    w.ask("CreateSnapshot", VolumeId=names["VolumeId"])
    w.settle()
    w.waits = False
    w.host.compute.guest_lets_go(names["InstanceId"], serial(names["VolumeId"]))
    w.settle()


@lifecycle(with_volume_off)
def volume_of_a_stopped_instance(w: World) -> None:
    names = {"VolumeId": w.names["volume"], "InstanceId": w.names["instance"]}
    w.ask("AttachVolume", Device="/dev/sdf", **names)
    w.settle()
    w.ask("StartInstances", InstanceIds=[names["InstanceId"]])
    w.settle()
    assert serial(names["VolumeId"]) in {disk.serial for disk in w.host.compute.disks(names["InstanceId"])}
    w.ask("StopInstances", InstanceIds=[names["InstanceId"]])
    w.settle()
    w.ask("DetachVolume", **names)
    w.settle()
    assert w.get(Volume, names["VolumeId"]).state == "available"


@lifecycle(two_disks)
def modified_while_it_is_attached(w: World) -> None:
    w.ask("ModifyVolume", VolumeId=w.names["second"], Size=7, VolumeType="gp3", Iops=3400)
    w.settle()
    changed = w.get(Volume, w.names["second"])
    assert (changed.size_gib, changed.iops, changed.modification and changed.modification.state) == (
        7,
        3400,
        "completed",
    )
    [disk] = [d for d in w.host.compute.disks(w.names["instance"]) if d.serial == serial(w.names["second"])]
    assert disk.limits is not None
    assert disk.limits.iops == 3400
    status = w.host.storage.observe_layer(disk.layer)
    assert status is not None
    assert status.size_bytes == 7 * GIB


@lifecycle(with_volume)
def modified_while_it_is_free(w: World) -> None:
    w.ask("ModifyVolume", VolumeId=w.names["volume"], Size=7)
    w.settle()
    assert w.get(Volume, w.names["volume"]).size_gib == 7


# --- snapshots ----------------------------------------------------------------------------------------------------


@lifecycle(two_disks)
def snapshot_of_a_running_instance(w: World) -> None:
    made = w.ask("CreateSnapshot", VolumeId=w.names["second"])["SnapshotId"]
    w.settle()
    assert w.get(Snapshot, made).state == "completed"
    # What lies under its top is needed by nobody else then: it is flattened while the guest runs.
    w.ask("DeleteSnapshot", SnapshotId=made)
    w.settle()


@lifecycle(two_disks)
def snapshots_of_one_moment(w: World) -> None:
    asked = {"InstanceId": w.names["instance"]}
    made = w.ask("CreateSnapshots", InstanceSpecification=asked)["Snapshots"]
    w.settle()
    assert [w.get(Snapshot, each["SnapshotId"]).state for each in made] == ["completed", "completed"]
    assert [len(serials) for _, serials, _ in w.host.compute.switches] == [2], "at one instant, once"


@lifecycle(with_volume)
def snapshot_of_a_free_volume(w: World) -> None:
    made = w.ask("CreateSnapshot", VolumeId=w.names["volume"])["SnapshotId"]
    w.settle()
    assert w.get(Snapshot, made).state == "completed"
    w.ask("DeleteSnapshot", SnapshotId=made)
    w.settle()
    w.ask("CreateSnapshot", VolumeId=w.names["volume"])
    w.ask("DeleteVolume", VolumeId=w.names["volume"])
    w.settle()


@lifecycle(with_snapshots_off)
def snapshots_are_deleted_while_it_is_stopped(w: World) -> None:
    """Layers are merged at rest."""
    w.ask("DeleteSnapshot", SnapshotId=w.names["newer"])
    w.ask("DeleteSnapshot", SnapshotId=w.names["older"])
    w.settle()
    w.ask("StartInstances", InstanceIds=[w.names["instance"]])
    w.settle()
    assert state(w) == "running"


@lifecycle(two_disks)
def deep_chain(w: World) -> None:
    """More snapshots than a volume may lie on."""
    for _ in range(5):
        w.ask("CreateSnapshot", VolumeId=w.names["second"])
        w.settle()
    assert "compute.flatten_disk" in w.points.done


@lifecycle(with_snapshots)
def flattening_is_cut_off(w: World) -> None:
    """By another snapshot, and then by the end of the machine."""
    w.host.compute.flatten_slowly(w.names["instance"])
    w.waits = True
    w.ask("DeleteSnapshot", SnapshotId=w.names["newer"])
    w.passes(seconds=5)
    made = w.ask("CreateSnapshot", VolumeId=w.names["second"])["SnapshotId"]
    w.passes(seconds=5)
    assert w.get(Snapshot, made).state == "completed"
    w.ask("DeleteSnapshot", SnapshotId=made)
    w.passes(seconds=5)
    w.ask("StopInstances", InstanceIds=[w.names["instance"]], Force=True)
    w.waits = False
    w.settle()
    assert state(w) == "stopped"


@lifecycle(with_snapshots)
def flattening_ends_with_its_machine(w: World) -> None:
    """QEMU has named the new parent, and goes before anybody has looked: the file is told its old parent again."""
    instance, disk = w.names["instance"], serial(w.names["second"])
    w.host.compute.flatten_slowly(instance)
    w.waits = True
    w.ask("DeleteSnapshot", SnapshotId=w.names["newer"])
    w.passes(seconds=5)
    w.waits = False
    w.host.compute.finish_flattening(instance, disk)
    w.host.compute.crash(instance)
    w.settle()
    assert state(w) == "running"


@lifecycle(with_snapshots)
def copied_snapshot(w: World) -> None:
    there = {"region": "us-west-2", "SourceRegion": "us-east-1", "SourceSnapshotId": w.names["older"]}
    plain = w.ask("CopySnapshot", **there)["SnapshotId"]
    encrypted = w.ask("CopySnapshot", Encrypted=True, **there)["SnapshotId"]
    w.settle()
    assert [w.get(Snapshot, each).state for each in (plain, encrypted)] == ["completed", "completed"]
    for each in (encrypted, plain):
        w.ask("DeleteSnapshot", region="us-west-2", SnapshotId=each)
    w.settle()


@lifecycle(with_snapshots)
def snapshot_in_the_recycle_bin(w: World) -> None:
    w.ask("CreateRetentionRule", service="orc", ResourceType="EBS_SNAPSHOT", RetentionDays=1)
    w.ask("DeleteSnapshot", SnapshotId=w.names["older"])
    w.settle()
    w.ask("RestoreSnapshotFromRecycleBin", SnapshotId=w.names["older"])
    w.ask("DeleteSnapshot", SnapshotId=w.names["older"])
    w.passes(days=2)
    w.settle()
    assert w.store.get(Snapshot, w.names["older"]) is None


# --- images -------------------------------------------------------------------------------------------------------


@lifecycle(two_disks)
def image_of_an_instance_that_reboots(w: World) -> None:
    made = w.ask("CreateImage", InstanceId=w.names["instance"], Name="mine")["ImageId"]
    w.settle()
    assert w.get(Image, made).state == "available"
    assert state(w) == "running"
    assert w.points.done.count("compute.start") == 1, "it was started again more than once"
    assert {each.consistency for each in w.store.all(Snapshot) if each.volume_id} == {"off"}


@lifecycle(two_disks)
def image_of_an_instance_that_runs_on(w: World) -> None:
    made = w.ask("CreateImage", InstanceId=w.names["instance"], Name="mine", NoReboot=True)["ImageId"]
    w.settle()
    assert w.get(Image, made).state == "available"
    w.names["mine"] = made
    [copy] = launch(w, image="mine")
    w.settle()
    assert w.get(Instance, copy).state == "running"
    w.ask("DeregisterImage", ImageId=made)
    w.settle()


@lifecycle(with_image)
def copied_image(w: World) -> None:
    asked = {"SourceImageId": w.names["image"], "SourceRegion": "us-east-1", "Name": "copy"}
    made = w.ask("CopyImage", region="us-west-2", Encrypted=True, **asked)["ImageId"]
    w.settle()
    assert w.get(Image, made).state == "available"
    w.ask("DeregisterImage", region="us-west-2", ImageId=made, DeleteAssociatedSnapshots=True)
    w.settle()
    assert w.store.get(Image, made) is None


@lifecycle(running)
def images_that_are_built(w: World) -> None:
    """One with a kernel, twice: the later takes the place of the earlier."""
    for _ in range(2):
        made = w.ask("BuildImage", service="orc", Name="tiny")["Build"]["BuildId"]
        w.settle()
        assert w.get(Build, made).state == "available", w.get(Build, made).message
    [image] = w.store.all(Image, name="tiny")
    assert image.state == "available"


@lifecycle(images)
def image_of_an_upload(w: World) -> None:
    upload = w.upload()
    asked = {"Name": "mine", "UploadId": upload, "Format": "raw"}
    made = w.ask("ImportImage", service="orc", **asked)["Build"]["BuildId"]
    w.settle()
    assert w.get(Build, made).state == "available", w.get(Build, made).message
    assert len(w.store.all(Image, name="mine")) == 1


@lifecycle(images)
def build_that_fails(w: World) -> None:
    made = w.ask("ImportImage", service="orc", Name="mine", UploadId=w.upload(b""), Format="raw")["Build"]["BuildId"]
    w.settle()
    assert w.get(Build, made).state == "failed"


@lifecycle(images)
def imported_image(w: World) -> None:
    disk = {"Format": "raw", "Url": f"file://{w.imports}/disk.raw"}
    task = w.ask("ImportImage", DiskContainers=[disk])["ImportTaskId"]
    w.settle()
    done = w.get(ImportTask, task)
    assert (done.state, w.get(Image, done.image_id).state) == ("completed", "available"), done


@lifecycle(images)
def imported_snapshot(w: World) -> None:
    disk = {"Format": "raw", "Url": f"upload://{w.upload()}"}
    task = w.ask("ImportSnapshot", DiskContainer=disk, Encrypted=True)["ImportTaskId"]
    w.settle()
    done = w.get(ImportTask, task)
    assert (done.state, w.get(Snapshot, done.snapshot_id).state) == ("completed", "completed"), done


@lifecycle(images, races=True)
def import_that_is_cancelled(w: World) -> None:
    disk = {"Format": "raw", "Url": f"upload://{w.upload()}"}
    task = w.ask("ImportSnapshot", DiskContainer=disk, Encrypted=True)["ImportTaskId"]
    with suppress(EC2Error):  # it may be done before anybody cancels it
        w.ask("CancelImportTask", ImportTaskId=task)
    w.settle()


@lifecycle(images)
def import_that_fails(w: World) -> None:
    (w.imports / "empty.raw").write_bytes(b"")
    disk = {"Format": "raw", "Url": f"file://{w.imports}/empty.raw"}
    task = w.ask("ImportSnapshot", DiskContainer=disk)["ImportTaskId"]
    w.settle()
    assert w.get(ImportTask, task).state == "deleted"


@lifecycle(with_image)
def exported_image(w: World) -> None:
    where = {"S3Bucket": "mine", "S3Prefix": "exports/"}
    asked = {"ImageId": w.names["image"], "DiskImageFormat": "VMDK", "S3ExportLocation": where}
    task = w.ask("ExportImage", **asked)["ExportImageTaskId"]
    w.ask("DeregisterImage", ImageId=w.names["image"], DeleteAssociatedSnapshots=True)
    w.settle()
    assert w.get(ExportTask, task).state == "completed"


@lifecycle(with_image, races=True)
def export_that_is_cancelled(w: World) -> None:
    where = {"S3Bucket": "mine", "S3Prefix": "exports/"}
    asked = {"ImageId": w.names["image"], "DiskImageFormat": "VMDK", "S3ExportLocation": where}
    task = w.ask("ExportImage", **asked)["ExportImageTaskId"]
    with suppress(EC2Error):
        w.ask("CancelExportTask", ExportTaskId=task)
    w.settle()


# --- keys ---------------------------------------------------------------------------------------------------------


@lifecycle(with_key)
def key_that_rotates(w: World) -> None:
    w.ask("RotateKeyOnDemand", service="kms", KeyId=w.names["key"])
    w.ask("EnableKeyRotation", service="kms", KeyId=w.names["key"], RotationPeriodInDays=90)
    w.clock.pass_(days=91)
    w.restart()
    w.settle()
    assert len(w.get(Key, w.names["key"]).rotations) == 2
    w.ask("AttachVolume", VolumeId=w.names["volume"], InstanceId=w.names["instance"], Device="/dev/sdf")
    w.settle()
    assert w.get(Volume, w.names["volume"]).state == "in-use"


@lifecycle(with_key)
def key_that_is_destroyed(w: World) -> None:
    w.ask("ScheduleKeyDeletion", service="kms", KeyId=w.names["key"], PendingWindowInDays=7)
    w.clock.pass_(days=8)
    w.restart()
    w.settle()
    assert w.get(Key, w.names["key"]).state == "Destroyed"
    w.ask("DeleteVolume", VolumeId=w.names["volume"])
    w.ask("DeleteSnapshot", SnapshotId=w.names["snapshot"])
    w.settle()

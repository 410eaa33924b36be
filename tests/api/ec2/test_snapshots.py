"""Snapshots: made of volumes and instances, described, deleted; who sees which, and may make something of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.api.ec2.snapshots import sees_snapshot, usable_snapshot
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.instance import Instance
from orchestrator.model.kms import RegionSettings
from orchestrator.model.layer import Layer
from orchestrator.model.snapshot import Snapshot, SnapshotLock
from orchestrator.model.volume import Volume

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api

SNAPSHOT = "snap-00000000000000001"
VOLUME = "vol-00000000000000001"
LAYER = "layer-00000000000000001"
ABSENT = "snap-0000000000000dead"


def keep(api: Api, snapshot_id: str = SNAPSHOT, **fields: Any) -> Snapshot:
    given = {"size_gib": 8, "volume_id": VOLUME, "description": "nightly", "layer_id": "layer-0", **fields}
    owned = {"account": api.account, "region": api.region, "created": api.now}
    api.put(Snapshot(id=snapshot_id, **{**owned, **given}))
    return api.get(Snapshot, snapshot_id)


def make_volume(api: Api, number: int = 1, **fields: Any) -> Volume:
    """A volume that is there, with its layer."""
    owned = {"account": api.account, "region": api.region, "created": api.now}
    digits = f"{number:017x}"
    given = {"state": "available", "size_gib": 8, "zone": api.region + "a", **fields}
    key = {"key_id": given.get("key_id", ""), "data_key": "wrapped" if given.get("key_id") else ""}
    api.put(
        Layer(id="layer-" + digits, size_bytes=8 << 30, **key, **owned),
        Volume(id="vol-" + digits, layer_id="layer-" + digits, **given, **owned),
    )
    return api.get(Volume, "vol-" + digits)


def ids_of(api: Api, **params: Any) -> set[str]:
    return {shown["SnapshotId"] for shown in api.call("DescribeSnapshots", **params)["Snapshots"]}


def woken(api: Api) -> set[str]:
    return {resource_id for _, resource_id, _ in api.store.pending_wakes()}


# --- CreateSnapshot -------------------------------------------------------------------------------------------------


def test_create(api: Api) -> None:
    volume = make_volume(api, key_id="k-1")
    made = api.call(
        "CreateSnapshot",
        VolumeId=volume.id,
        Description="before the upgrade",
        Location="regional",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "Name", "Value": "one"}]}],
    )
    assert made == {
        "SnapshotId": made["SnapshotId"],
        "VolumeId": volume.id,
        "VolumeSize": 8,
        "State": "pending",
        "Progress": "0%",
        "StartTime": api.now,
        "OwnerId": ACCOUNT,
        "Description": "before the upgrade",
        "Encrypted": True,
        "KmsKeyId": f"arn:aws:kms:us-east-1:{ACCOUNT}:key/k-1",
        "StorageTier": "standard",
        "Tags": [{"Key": "Name", "Value": "one"}],
    }
    snapshot = api.get(Snapshot, made["SnapshotId"])
    after = api.get(Volume, volume.id)
    top = api.get(Layer, after.layer_id)
    assert snapshot.layer_id == volume.layer_id
    assert (top.parent_id, top.when, top.key_id, top.data_key) == (volume.layer_id, "live", "k-1", "wrapped")
    assert {snapshot.id, volume.id} <= woken(api)


def test_create_is_refused(api: Api) -> None:
    volume = make_volume(api)
    assert api.refused("CreateSnapshot", VolumeId="vol-00000000000000bad").code == "InvalidVolume.NotFound"
    assert api.by().refused("CreateSnapshot", VolumeId=volume.id).code == "InvalidVolume.NotFound"
    assert api.refused("CreateSnapshot", VolumeId=volume.id, Location="local").code == "InvalidParameterValue"
    assert api.refused("CreateSnapshot", VolumeId=volume.id, Description="x" * 256).code == "InvalidParameterValue"
    assert api.refused("CreateSnapshot", VolumeId=volume.id, OutpostArn="arn:x").code == "UnsupportedOperation"
    assert api.refused("CreateSnapshot", VolumeId=volume.id, DryRun=True).code == "DryRunOperation"
    wrong = [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}]
    assert api.refused("CreateSnapshot", VolumeId=volume.id, TagSpecifications=wrong).code == "InvalidParameterValue"
    api.change(volume, state="creating")
    assert api.refused("CreateSnapshot", VolumeId=volume.id).code == "IncorrectState"


def test_five_may_be_pending(api: Api) -> None:
    volume = make_volume(api)
    for _ in range(5):
        api.call("CreateSnapshot", VolumeId=volume.id)
    assert api.refused("CreateSnapshot", VolumeId=volume.id).code == "ConcurrentSnapshotLimitExceeded"
    layers = api.store.all(Layer)
    assert len(layers) == 6
    assert {layer.parent_id for layer in layers} == {layer.id for layer in layers} - {
        api.get(Volume, volume.id).layer_id
    } | {""}


# --- CreateSnapshots ------------------------------------------------------------------------------------------------


@pytest.fixture
def instance(api: Api) -> Instance:
    """Running, with a root volume and two more."""
    data = [{"DeviceName": name, "Ebs": {"VolumeSize": size}} for name, size in (("/dev/sdf", 2), ("/dev/sdg", 3))]
    [instance_id] = api.launch(BlockDeviceMappings=data)
    return api.get(Instance, instance_id)


def volumes_of(api: Api, instance: Instance) -> dict[str, Volume]:
    return {v.attachment.device: v for v in api.store.all(Volume, instance_id=instance.id) if v.attachment}


def test_all_volumes_of_an_instance_at_one_moment(api: Api, instance: Instance) -> None:
    before = volumes_of(api, instance)
    api.change(before["/dev/sdf"], tags={"disk": "data", "stage": "old"})
    made = api.call(
        "CreateSnapshots",
        InstanceSpecification={"InstanceId": instance.id},
        Description="all",
        CopyTagsFromSource="volume",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "stage", "Value": "new"}]}],
    )["Snapshots"]
    assert [one["VolumeId"] for one in made] == [before[name].id for name in ("/dev/xvda", "/dev/sdf", "/dev/sdg")]
    assert [one["VolumeSize"] for one in made] == [8, 2, 3]
    assert {one["State"] for one in made} == {"pending"}
    assert {tag["Key"]: tag["Value"] for tag in made[1]["Tags"]} == {"disk": "data", "stage": "new"}
    assert set(made[0]) == {
        "SnapshotId",
        "VolumeId",
        "VolumeSize",
        "State",
        "Progress",
        "StartTime",
        "OwnerId",
        "Description",
        "Encrypted",
        "Tags",
    }
    tops = [api.get(Layer, volume.layer_id) for volume in volumes_of(api, instance).values()]
    assert len({top.moment for top in tops}) == 1 and tops[0].moment
    assert instance.id in woken(api)


def test_volumes_can_be_left_out(api: Api, instance: Instance) -> None:
    volumes = volumes_of(api, instance)
    root, first, second = (volumes[name].id for name in ("/dev/xvda", "/dev/sdf", "/dev/sdg"))

    def made(**chosen: Any) -> list[str]:
        specification = {"InstanceId": instance.id, **chosen}
        return [
            one["VolumeId"] for one in api.call("CreateSnapshots", InstanceSpecification=specification)["Snapshots"]
        ]

    assert made(ExcludeBootVolume=True) == [first, second]
    assert made(ExcludeDataVolumeIds=[first]) == [root, second]
    for chosen, code in (
        ({"ExcludeDataVolumeIds": [root]}, "InvalidParameterValue"),
        ({"ExcludeDataVolumeIds": ["vol-00000000000000bad"]}, "InvalidParameterValue"),
        ({"ExcludeBootVolume": True, "ExcludeDataVolumeIds": [first, second]}, "InvalidParameterCombination"),
    ):
        refused = api.refused("CreateSnapshots", InstanceSpecification={"InstanceId": instance.id, **chosen})
        assert refused.code == code, chosen


# --- DeleteSnapshot -------------------------------------------------------------------------------------------------


def test_delete(api: Api) -> None:
    volume = make_volume(api)
    keep(api, layer_id=volume.layer_id)
    api.call("DeleteSnapshot", SnapshotId=SNAPSHOT)
    assert api.store.get(Snapshot, SNAPSHOT) is None
    assert volume.layer_id in woken(api)
    assert api.refused("DeleteSnapshot", SnapshotId=SNAPSHOT).code == "InvalidSnapshot.NotFound"


def test_delete_is_the_owners(api: Api) -> None:
    keep(api)
    assert api.by().refused("DeleteSnapshot", SnapshotId=SNAPSHOT).code == "InvalidSnapshot.NotFound"
    api.change(api.get(Snapshot, SNAPSHOT), shared_with=(OTHER_ACCOUNT,))
    assert api.by().refused("DeleteSnapshot", SnapshotId=SNAPSHOT).code == "AuthFailure"
    assert api.refused("DeleteSnapshot", SnapshotId="snap-xyz").code == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("state", "code"), [("available", True), ("pending", True), ("disabled", True), ("deregistered", False)]
)
def test_an_image_holds_its_snapshots(api: Api, state: str, code: bool) -> None:
    keep(api)
    image = Image(
        id="ami-00000000000000001",
        account=ACCOUNT,
        region=api.region,
        created=api.now,
        name="web",
        state=state,
        block_devices=(BlockDevice(device="/dev/xvda", snapshot_id=SNAPSHOT, size_gib=8),),
    )
    api.put(image)
    if not code:
        api.call("DeleteSnapshot", SnapshotId=SNAPSHOT)
        return
    refused = api.refused("DeleteSnapshot", SnapshotId=SNAPSHOT)
    assert refused.code == "InvalidSnapshot.InUse" and image.id in refused.message


def test_a_lock_holds_until_its_end(api: Api) -> None:
    lock = SnapshotLock(mode="governance", locked_at=api.now, duration_days=1, expires_at=api.now + timedelta(days=1))
    keep(api, lock=lock)
    assert api.refused("DeleteSnapshot", SnapshotId=SNAPSHOT).code == "SnapshotLocked"
    api.advance(86400)
    api.call("DeleteSnapshot", SnapshotId=SNAPSHOT)


# --- DescribeSnapshots ----------------------------------------------------------------------------------------------


def test_all_members(api: Api) -> None:
    keep(api)
    assert api.call("DescribeSnapshots", SnapshotIds=[SNAPSHOT])["Snapshots"] == [
        {
            "SnapshotId": SNAPSHOT,
            "VolumeId": VOLUME,
            "VolumeSize": 8,
            "State": "completed",
            "Progress": "100%",
            "StartTime": api.now,
            "CompletionTime": api.now,
            "OwnerId": ACCOUNT,
            "Description": "nightly",
            "Encrypted": False,
            "StorageTier": "standard",
            "Tags": [],
        }
    ]


def test_one_that_is_not_done_yet(api: Api) -> None:
    keep(api, state="pending", progress_percent=37, volume_id="")
    [shown] = api.call("DescribeSnapshots")["Snapshots"]
    assert (shown["Progress"], shown["VolumeId"]) == ("37%", "vol-ffffffff")
    assert "CompletionTime" not in shown
    api.change(api.get(Snapshot, SNAPSHOT), state="completed", completed_at=api.now + timedelta(seconds=9))
    [shown] = api.call("DescribeSnapshots")["Snapshots"]
    assert shown["CompletionTime"] == api.now + timedelta(seconds=9)


def test_one_that_failed_says_why(api: Api) -> None:
    keep(api, state="error", state_message="There is no space left")
    [shown] = api.call("DescribeSnapshots")["Snapshots"]
    assert (shown["State"], shown["StateMessage"]) == ("error", "There is no space left")


def test_the_data_key_is_named_but_never_shown(api: Api) -> None:
    owned = {"account": ACCOUNT, "region": api.region, "created": api.now}
    api.put(
        Layer(id=LAYER, size_bytes=1, key_id="k-1", data_key="secret", **owned),
        Layer(id="layer-2", size_bytes=1, key_id="k-1", data_key="secret", **owned),
        Layer(id="layer-3", size_bytes=1, key_id="k-1", data_key="another", **owned),
    )
    for number, layer_id in enumerate((LAYER, "layer-2", "layer-3"), 1):
        keep(api, f"snap-{number:017x}", layer_id=layer_id, key_id="k-1")
    names = [one["DataEncryptionKeyId"] for one in api.call("DescribeSnapshots")["Snapshots"]]
    assert names[0] == names[1] != names[2]
    assert "secret" not in names[0]


def test_owners_and_users(api: Api) -> None:
    keep(api)
    catalogue = api.make_image("catalogue", account=OTHER_ACCOUNT).block_devices[0].snapshot_id
    api.change(api.get(Snapshot, catalogue), account=OTHER_ACCOUNT)
    shared = keep(api.by(), "snap-00000000000000002", shared_with=(ACCOUNT,)).id
    public = keep(api.by(), "snap-00000000000000003", public=True).id
    keep(api.by(), "snap-00000000000000004")
    keep(api.within("us-west-2"), "snap-00000000000000005")
    assert ids_of(api) == {SNAPSHOT, catalogue, shared, public}
    assert ids_of(api, OwnerIds=["self"]) == ids_of(api, OwnerIds=[ACCOUNT]) == {SNAPSHOT}
    assert ids_of(api, OwnerIds=["amazon"]) == {catalogue}
    assert ids_of(api, OwnerIds=[OTHER_ACCOUNT]) == {catalogue, shared, public}
    assert ids_of(api, RestorableByUserIds=["all"]) == {catalogue, public}
    assert ids_of(api, RestorableByUserIds=["self"]) == {SNAPSHOT, shared}
    assert ids_of(api, RestorableByUserIds=["self", "all"], OwnerIds=[OTHER_ACCOUNT]) == {catalogue, shared, public}
    assert ids_of(api.by("777788889999")) == {catalogue, public}
    assert api.refused("DescribeSnapshots", OwnerIds=["me"]).code == "InvalidParameterValue"
    assert api.refused("DescribeSnapshots", RestorableByUserIds=["me"]).code == "InvalidParameterValue"
    refused = api.refused("DescribeSnapshots", SnapshotIds=[SNAPSHOT, "snap-00000000000000004"])
    assert refused.code == "InvalidSnapshot.NotFound" and SNAPSHOT not in refused.message


def test_tags_are_the_owners(api: Api) -> None:
    keep(api, public=True, tags={"stage": "test"})
    by_tag = [{"Name": "tag:stage", "Values": ["test"]}]
    assert ids_of(api, Filters=by_tag) == {SNAPSHOT}
    assert ids_of(api.by(), Filters=by_tag) == set()
    assert api.by().call("DescribeSnapshots")["Snapshots"][0]["Tags"] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("description", "night*"),
        ("owner-id", ACCOUNT),
        ("progress", "100%"),
        ("start-time", "2026-01-02T03:04:05.000Z"),
        ("status", "completed"),
        ("snapshot-id", SNAPSHOT),
        ("volume-id", VOLUME),
        ("volume-size", "8"),
        ("encrypted", "false"),
        ("storage-tier", "standard"),
        ("transfer-type", "time-based"),
    ],
)
def test_filters(api: Api, name: str, value: str) -> None:
    keep(api, source_snapshot_id=ABSENT, completion_minutes=15)
    assert ids_of(api, Filters=[{"Name": name, "Values": [value]}]) == {SNAPSHOT}
    assert ids_of(api, Filters=[{"Name": name, "Values": ["no" + value]}]) == set()


def test_owner_alias_filter(api: Api) -> None:
    keep(api)
    catalogue = api.make_image().block_devices[0].snapshot_id
    assert ids_of(api, Filters=[{"Name": "owner-alias", "Values": ["amazon"]}]) == {catalogue}


def test_pages(api: Api) -> None:
    for number in range(1, 8):
        keep(api, f"snap-{number:017x}")
    first = api.call("DescribeSnapshots", MaxResults=5)
    rest = api.call("DescribeSnapshots", MaxResults=5, NextToken=first["NextToken"])
    assert (len(first["Snapshots"]), len(rest["Snapshots"])) == (5, 2)
    assert "NextToken" not in rest
    both = api.refused("DescribeSnapshots", MaxResults=5, SnapshotIds=[SNAPSHOT])
    assert both.code == "InvalidParameterCombination"


# --- who may make something of it -----------------------------------------------------------------------------------


def code_of(api: Api, snapshot_id: str = SNAPSHOT) -> str:
    try:
        usable_snapshot(api._call("CreateVolume", {}), snapshot_id)
    except EC2Error as error:
        return error.code
    return ""


def test_usable_by_its_owner_when_completed(api: Api) -> None:
    snapshot = keep(api, state="pending")
    assert code_of(api) == "IncorrectState"
    snapshot = api.change(snapshot, state="error")
    assert code_of(api) == "IncorrectState"
    snapshot = api.change(snapshot, state="completed")
    assert code_of(api) == ""
    assert code_of(api, "snap-1") == "InvalidParameterValue"
    assert code_of(api, ABSENT) == code_of(api.by()) == "InvalidSnapshot.NotFound"
    assert code_of(api.within("us-west-2")) == "InvalidSnapshot.NotFound"
    snapshot = api.change(snapshot, tier="archive")
    assert code_of(api) == "IncorrectState"
    snapshot = api.change(snapshot, restore_expires_at=api.now + timedelta(days=1))
    assert code_of(api) == ""
    api.change(snapshot, recycled_at=api.now, recycled_until=api.now + timedelta(days=1))
    assert code_of(api) == "InvalidSnapshot.NotFound"


def test_usable_by_those_it_is_shared_with(api: Api) -> None:
    snapshot = keep(api, shared_with=(OTHER_ACCOUNT,))
    assert (code_of(api.by()), code_of(api.by("777788889999"))) == ("", "InvalidSnapshot.NotFound")
    api.change(snapshot, shared_with=(), public=True)
    assert code_of(api.by("777788889999")) == ""
    settings = RegionSettings(
        id=f"{ACCOUNT}:{api.region}",
        account=ACCOUNT,
        region=api.region,
        created=api.now,
        snapshot_block_public="block-all-sharing",
    )
    api.put(settings)
    assert (code_of(api.by()), code_of(api)) == ("InvalidSnapshot.NotFound", "")
    api.put(replace(settings, snapshot_block_public="block-new-sharing"))
    assert code_of(api.by()) == ""


def test_usable_by_those_who_may_launch_its_image(api: Api) -> None:
    snapshot = keep(api)
    image = Image(
        id="ami-00000000000000001",
        account=ACCOUNT,
        region=api.region,
        created=api.now,
        name="web",
        shared_with=(OTHER_ACCOUNT,),
        block_devices=(BlockDevice(device="/dev/xvda", snapshot_id=SNAPSHOT, size_gib=8),),
    )
    api.put(image)
    assert code_of(api.by()) == ""
    assert not sees_snapshot(api.by("777788889999")._call("CreateVolume", {}), snapshot)
    api.put(replace(image, state="disabled"))
    assert code_of(api.by()) == "InvalidSnapshot.NotFound"

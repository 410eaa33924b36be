"""Volumes: made, deleted, shown, and how they are."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.instance import Instance
from orchestrator.model.kms import Key
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume, VolumeAttachment

from .conftest import OTHER_ACCOUNT, Api

VOLUME = "vol-00000000000000001"


def keep(api: Api, **fields: Any) -> None:
    attachment = VolumeAttachment(instance_id="i-00000000000000001", device="/dev/xvda", attached_at=api.now)
    given: dict[str, Any] = {"state": "in-use", "attachment": attachment, "snapshot_id": "snap-1", **fields}
    api.put(
        Volume(
            id=VOLUME,
            account=api.account,
            region=api.region,
            created=api.now,
            zone="us-east-1b",
            size_gib=8,
            layer_id="layer-0",
            **given,
        )
    )


def test_all_members(api: Api) -> None:
    keep(api, tags={"Name": "root"})
    assert api.call("DescribeVolumes", VolumeIds=[VOLUME])["Volumes"] == [
        {
            "VolumeId": VOLUME,
            "Size": 8,
            "SnapshotId": "snap-1",
            "AvailabilityZone": "us-east-1b",
            "AvailabilityZoneId": "use1-az2",
            "State": "in-use",
            "CreateTime": api.now,
            "VolumeType": "gp3",
            "Iops": 3000,
            "Throughput": 125,
            "Encrypted": False,
            "MultiAttachEnabled": False,
            "Operator": {"Managed": False},
            "Attachments": [
                {
                    "VolumeId": VOLUME,
                    "InstanceId": "i-00000000000000001",
                    "Device": "/dev/xvda",
                    "State": "attached",
                    "AttachTime": api.now,
                    "DeleteOnTermination": True,
                }
            ],
            "Tags": [{"Key": "Name", "Value": "root"}],
        }
    ]


@pytest.mark.parametrize(
    ("volume_type", "iops", "throughput"), [("gp3", True, True), ("gp2", True, False), ("standard", False, False)]
)
def test_figures_are_those_that_the_type_has(api: Api, volume_type: str, iops: bool, throughput: bool) -> None:
    keep(api, volume_type=volume_type, attachment=None, state="available")
    [shown] = api.call("DescribeVolumes")["Volumes"]
    assert ("Iops" in shown, "Throughput" in shown, shown["Attachments"]) == (iops, throughput, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attachment.instance-id", "i-00000000000000001"),
        ("attachment.device", "/dev/xvda"),
        ("attachment.status", "attached"),
        ("attachment.delete-on-termination", "true"),
        ("attachment.attach-time", "2026-01-02T03:04:05.000Z"),
        ("create-time", "2026-01-02*"),
        ("availability-zone-id", "use1-az2"),
        ("fast-restored", "true"),
        ("multi-attach-enabled", "false"),
        ("operator.managed", "false"),
        ("volume-id", "vol-*"),
        ("tag:Name", "root"),
        ("tag-key", "Name"),
        ("availability-zone", "us-east-1b"),
        ("encrypted", "false"),
        ("size", "8"),
        ("snapshot-id", "snap-1"),
        ("status", "in-use"),
        ("volume-type", "gp?"),
    ],
)
def test_filters(api: Api, name: str, value: str) -> None:
    keep(api, tags={"Name": "root"}, fast_restored=True)
    assert len(api.call("DescribeVolumes", Filters=[{"Name": name, "Values": [value]}])["Volumes"]) == 1
    assert api.call("DescribeVolumes", Filters=[{"Name": name, "Values": ["no" + value]}])["Volumes"] == []


@pytest.mark.parametrize(
    ("state", "status", "enabled"),
    [("in-use", "ok", "passed"), ("error", "impaired", "failed"), ("creating", "insufficient-data", "failed")],
)
def test_status(api: Api, state: str, status: str, enabled: str) -> None:
    keep(api, state=state)
    [shown] = api.call("DescribeVolumeStatus", VolumeIds=[VOLUME])["VolumeStatuses"]
    assert shown["VolumeStatus"] == {
        "Status": status,
        "Details": [
            {"Name": "io-enabled", "Status": enabled},
            {"Name": "io-performance", "Status": "not-applicable"},
        ],
    }
    assert (shown["Actions"], shown["Events"]) == ([], [])
    assert shown["AttachmentStatuses"] == [{"InstanceId": "i-00000000000000001", "IoPerformance": "not-applicable"}]
    filters = [{"Name": "volume-status.status", "Values": [status]}]
    assert len(api.call("DescribeVolumeStatus", Filters=filters)["VolumeStatuses"]) == 1


def test_attribute(api: Api) -> None:
    keep(api)

    def ask(**params: str) -> dict[str, Any]:
        return api.call("DescribeVolumeAttribute", **params)

    assert ask(VolumeId=VOLUME, Attribute="autoEnableIO") == {"VolumeId": VOLUME, "AutoEnableIO": {"Value": False}}
    assert ask(VolumeId=VOLUME, Attribute="productCodes") == {"VolumeId": VOLUME, "ProductCodes": []}
    refused = api.refused("DescribeVolumeAttribute", VolumeId=VOLUME, Attribute="colour")
    assert refused.code == "InvalidParameterValue"
    refused = api.by().refused("DescribeVolumeAttribute", VolumeId=VOLUME, Attribute="autoEnableIO")
    assert refused.code == "InvalidVolume.NotFound"


def test_a_volume_of_a_machine_that_stands_still_is_impaired(api: Api) -> None:
    (instance_id,) = api.launch()
    (volume,) = api.store.all(Volume, instance_id=instance_id)

    def shown(**params: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = api.call("DescribeVolumeStatus", **params)["VolumeStatuses"]
        return found

    stuck = [{"Name": "event.event-type", "Values": ["potential-data-inconsistency"]}]
    assert shown(Filters=stuck) == []
    api.change(api.get(Instance, instance_id), paused_reason="no space")
    (status,) = shown(VolumeIds=[volume.id], Filters=[*stuck, {"Name": "action.code", "Values": ["enable-volume-io"]}])
    assert status["VolumeStatus"]["Status"] == "impaired"
    assert status["VolumeStatus"]["Details"][0] == {"Name": "io-enabled", "Status": "failed"}
    (event,) = status["Events"]
    assert (event["Description"], event["InstanceId"]) == ("no space", instance_id)
    assert (status["Actions"][0]["Code"], status["Actions"][0]["EventId"]) == ("enable-volume-io", event["EventId"])

    for kind, name, _ in api.store.pending_wakes():
        api.store.wake_done(kind, name, api.store.wake_serial(kind, name))
    api.call("EnableVolumeIO", VolumeId=volume.id)
    assert [(kind, name) for kind, name, _ in api.store.pending_wakes()] == [("instance", instance_id)]


def test_io_is_enabled_by_itself(api: Api) -> None:
    keep(api)
    api.call("ModifyVolumeAttribute", VolumeId=VOLUME, AutoEnableIO={"Value": True})
    shown = api.call("DescribeVolumeAttribute", VolumeId=VOLUME, Attribute="autoEnableIO")
    assert shown["AutoEnableIO"] == {"Value": True}
    assert api.refused("ModifyVolumeAttribute", VolumeId=VOLUME).code == "MissingParameter"


# --- made -------------------------------------------------------------------------------------------------------------

SNAPSHOT = "snap-00000000000000001"


def keep_snapshot(api: Api, **fields: Any) -> Snapshot:
    mine: dict[str, Any] = {"account": api.account, "region": api.region, "created": api.now}
    layer = Layer(id="layer-00000000000000001", size_bytes=4 << 30, **mine)
    snapshot = Snapshot(id=SNAPSHOT, layer_id=layer.id, size_gib=4, **{**mine, **fields})
    api.put(layer, snapshot)
    return snapshot


def create(api: Api, **params: Any) -> Volume:
    made = api.call("CreateVolume", **{"AvailabilityZone": "us-east-1a", **params})
    return api.get(Volume, made["VolumeId"])


def test_an_empty_volume(api: Api) -> None:
    made = api.call(
        "CreateVolume",
        AvailabilityZoneId="use1-az2",
        Size=10,
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "data"}]}],
    )
    assert made == {
        "VolumeId": made["VolumeId"],
        "Size": 10,
        "SnapshotId": "",
        "AvailabilityZone": "us-east-1b",
        "AvailabilityZoneId": "use1-az2",
        "State": "creating",
        "CreateTime": api.now,
        "VolumeType": "gp2",
        "Iops": 100,
        "Encrypted": False,
        "MultiAttachEnabled": False,
        "Operator": {"Managed": False},
        "Attachments": [],
        "Tags": [{"Key": "Name", "Value": "data"}],
    }
    volume = api.get(Volume, made["VolumeId"])
    layer = api.get(Layer, volume.layer_id)
    assert (layer.size_bytes, layer.parent_id, layer.copy_of, layer.key_id) == (10 << 30, "", "", "")
    assert ("volume", volume.id) in {(kind, name) for kind, name, _ in api.store.pending_wakes()}


@pytest.mark.parametrize(
    ("params", "speed"),
    [
        ({"VolumeType": "gp2", "Size": 100}, (300, 0)),
        ({"VolumeType": "gp3", "Size": 10}, (3000, 125)),
        ({"VolumeType": "gp3", "Size": 20, "Iops": 10000, "Throughput": 1000}, (10000, 1000)),
        ({"VolumeType": "io1", "Size": 10, "Iops": 500}, (500, 0)),
        ({"VolumeType": "io2", "Size": 10, "Iops": 10000}, (10000, 0)),
        ({"VolumeType": "st1", "Size": 125}, (0, 0)),
        ({"VolumeType": "sc1", "Size": 125}, (0, 0)),
        ({"VolumeType": "standard", "Size": 1}, (0, 0)),
    ],
)
def test_every_type(api: Api, params: dict[str, Any], speed: tuple[int, int]) -> None:
    volume = create(api, **params)
    assert (volume.iops, volume.throughput_mib_s) == speed


def test_of_a_snapshot(api: Api) -> None:
    snapshot = keep_snapshot(api)
    same, larger = create(api, SnapshotId=SNAPSHOT), create(api, SnapshotId=SNAPSHOT, Size=9)
    assert (same.size_gib, larger.size_gib, same.snapshot_id) == (4, 9, SNAPSHOT)
    layer = api.get(Layer, larger.layer_id)
    assert (layer.parent_id, layer.size_bytes) == (snapshot.layer_id, 9 << 30)
    rated = api.call("CreateVolume", AvailabilityZone="us-east-1a", SnapshotId=SNAPSHOT, VolumeInitializationRate=300)
    assert rated["VolumeInitializationRate"] == 300


def test_of_a_snapshot_of_others(api: Api) -> None:
    other = api.by(OTHER_ACCOUNT)
    keep_snapshot(api)
    asked = {"AvailabilityZone": "us-east-1a", "SnapshotId": SNAPSHOT}
    assert other.refused("CreateVolume", **asked).code == "InvalidSnapshot.NotFound"
    api.change(api.get(Snapshot, SNAPSHOT), shared_with=(OTHER_ACCOUNT,))
    assert create(other, SnapshotId=SNAPSHOT).account == OTHER_ACCOUNT
    api.change(api.get(Snapshot, SNAPSHOT), shared_with=(), public=True)
    assert create(other, SnapshotId=SNAPSHOT).account == OTHER_ACCOUNT
    west = api.within("us-west-2").refused("CreateVolume", AvailabilityZone="us-west-2a", SnapshotId=SNAPSHOT)
    assert west.code == "InvalidSnapshot.NotFound"


def test_encrypted(api: Api) -> None:
    keep_snapshot(api)
    shown = api.call("CreateVolume", AvailabilityZone="us-east-1a", Size=1, Encrypted=True)
    (key,) = api.store.all(Key)
    assert (shown["Encrypted"], shown["KmsKeyId"]) == (True, key.arn)
    copy = create(api, SnapshotId=SNAPSHOT, KmsKeyId=key.arn, Encrypted=True)
    layer = api.get(Layer, copy.layer_id)
    assert (layer.copy_of, layer.key_id, layer.parent_id) == ("layer-00000000000000001", key.id, "")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "MissingParameter"),
        ({"Size": 1, "AvailabilityZone": None}, "MissingParameter"),
        ({"Size": 1, "AvailabilityZoneId": "use1-az1"}, "InvalidParameterCombination"),
        ({"Size": 1, "AvailabilityZone": "us-west-2a"}, "InvalidZone.NotFound"),
        ({"Size": 0}, "InvalidParameterValue"),
        ({"Size": 1, "VolumeType": "gp4"}, "InvalidParameterValue"),
        ({"Size": 100, "VolumeType": "st1"}, "InvalidParameterValue"),
        ({"Size": 1025, "VolumeType": "standard"}, "InvalidParameterValue"),
        ({"Size": 10, "VolumeType": "io1"}, "MissingParameter"),
        ({"Size": 10, "VolumeType": "io1", "Iops": 501}, "InvalidParameterCombination"),
        ({"Size": 10, "VolumeType": "gp3", "Iops": 5001}, "InvalidParameterCombination"),
        ({"Size": 10, "VolumeType": "gp3", "Throughput": 751}, "InvalidParameterCombination"),
        ({"Size": 10, "VolumeType": "gp3", "Throughput": 124}, "InvalidParameterValue"),
        ({"Size": 10, "Throughput": 125}, "InvalidParameterCombination"),
        ({"Size": 10, "Iops": 100}, "InvalidParameterCombination"),
        ({"Size": 10, "VolumeType": "io2", "Iops": 100, "MultiAttachEnabled": True}, "Unsupported"),
        ({"Size": 10, "MultiAttachEnabled": True}, "InvalidParameterCombination"),
        ({"Size": 10, "VolumeInitializationRate": 100}, "InvalidParameterCombination"),
        ({"SnapshotId": SNAPSHOT, "VolumeInitializationRate": 301}, "InvalidParameterValue"),
        ({"SnapshotId": SNAPSHOT, "Size": 3}, "InvalidParameterValue"),
        ({"SnapshotId": "snap-00000000000000000"}, "InvalidSnapshot.NotFound"),
        ({"SnapshotId": "snap-1"}, "InvalidParameterValue"),
        ({"Size": 1, "KmsKeyId": "alias/aws/ebs"}, "InvalidParameterDependency"),
        ({"Size": 1, "KmsKeyId": "alias/aws/ebs", "Encrypted": False}, "InvalidParameterCombination"),
        ({"Size": 1, "OutpostArn": "arn:aws:outposts:us-east-1:1:outpost/op-1"}, "UnsupportedOperation"),
        ({"Size": 1, "TagSpecifications": [{"ResourceType": "snapshot"}]}, "InvalidParameterValue"),
    ],
)
def test_volumes_that_cannot_be(api: Api, params: dict[str, Any], code: str) -> None:
    keep_snapshot(api)
    asked = {"AvailabilityZone": "us-east-1a", **params}
    refused = api.refused("CreateVolume", **{name: value for name, value in asked.items() if value is not None})
    assert refused.code == code, refused


@pytest.mark.parametrize("fields", [{"state": "pending"}, {"state": "error"}, {"tier": "archive"}])
def test_snapshots_that_cannot_be_used(api: Api, fields: dict[str, Any]) -> None:
    keep_snapshot(api, **fields)
    refused = api.refused("CreateVolume", AvailabilityZone="us-east-1a", SnapshotId=SNAPSHOT)
    assert refused.code == "IncorrectState"


def test_a_client_token_makes_one_volume(api: Api) -> None:
    asked: dict[str, Any] = {"AvailabilityZone": "us-east-1a", "ClientToken": "once"}
    first = api.call("CreateVolume", Size=1, **asked)
    assert api.call("CreateVolume", Size=1, **asked)["VolumeId"] == first["VolumeId"]
    assert api.refused("CreateVolume", Size=2, **asked).code == "IdempotentParameterMismatch"
    assert api.refused("CreateVolume", Size=1, AvailabilityZone="us-east-1a", DryRun=True).code == "DryRunOperation"
    assert api.refused("CreateVolume", Size=1, **asked, DryRun=True).code == "DryRunOperation"
    assert api.refused("CreateVolume", Size=2, **asked, DryRun=True).code == "IdempotentParameterMismatch"
    assert len(api.store.all(Volume)) == 1


# --- deleted ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["available", "error"])
def test_delete(api: Api, state: str) -> None:
    keep(api, attachment=None, state=state)
    keep_snapshot(api, volume_id=VOLUME, state="pending")
    api.call("DeleteVolume", VolumeId=VOLUME)
    assert api.get(Volume, VOLUME).state == "deleting"
    assert ("volume", VOLUME) in {(kind, name) for kind, name, _ in api.store.pending_wakes()}
    api.call("DeleteVolume", VolumeId=VOLUME)


def test_volumes_that_cannot_be_deleted(api: Api) -> None:
    (instance_id,) = api.launch(settled=State.STOPPED)
    (root,) = api.store.all(Volume, instance_id=instance_id)
    assert api.refused("DeleteVolume", VolumeId=root.id).code == "VolumeInUse"
    keep(api, attachment=None, state="creating")
    assert api.refused("DeleteVolume", VolumeId=VOLUME).code == "IncorrectState"
    assert api.refused("DeleteVolume", VolumeId="vol-00000000000000000").code == "InvalidVolume.NotFound"
    assert api.by(OTHER_ACCOUNT).refused("DeleteVolume", VolumeId=VOLUME).code == "InvalidVolume.NotFound"

"""DescribeVolumes, DescribeVolumeStatus, DescribeVolumeAttribute."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.image import Volume, VolumeAttachment

from .conftest import Api

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
        ("availability-zone", "us-east-1b"),
        ("encrypted", "false"),
        ("size", "8"),
        ("snapshot-id", "snap-1"),
        ("status", "in-use"),
        ("volume-type", "gp?"),
    ],
)
def test_filters(api: Api, name: str, value: str) -> None:
    keep(api)
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

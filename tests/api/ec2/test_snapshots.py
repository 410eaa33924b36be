"""DescribeSnapshots: whose, and those of images that everyone may launch."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.image import Snapshot

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api

SNAPSHOT = "snap-00000000000000001"


def keep(api: Api, **fields: Any) -> None:
    given = {"size_gib": 8, "volume_id": "vol-00000000000000001", "description": "nightly", **fields}
    api.put(Snapshot(id=SNAPSHOT, account=api.account, region=api.region, created=api.now, layer_id="layer-0", **given))


def ids_of(api: Api, **params: Any) -> set[str]:
    return {shown["SnapshotId"] for shown in api.call("DescribeSnapshots", **params)["Snapshots"]}


def test_all_members(api: Api) -> None:
    keep(api)
    assert api.call("DescribeSnapshots", SnapshotIds=[SNAPSHOT])["Snapshots"] == [
        {
            "SnapshotId": SNAPSHOT,
            "VolumeId": "vol-00000000000000001",
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
    keep(api, state="pending", volume_id="")
    [shown] = api.call("DescribeSnapshots")["Snapshots"]
    assert (shown["Progress"], shown["VolumeId"]) == ("0%", "vol-ffffffff")
    assert "CompletionTime" not in shown


def test_owners(api: Api) -> None:
    keep(api)
    catalogue = api.make_image("catalogue", account=OTHER_ACCOUNT).block_devices[0].snapshot_id
    api.change(api.get(Snapshot, catalogue), account=OTHER_ACCOUNT)
    assert ids_of(api) == {SNAPSHOT, catalogue}
    assert ids_of(api, OwnerIds=["self"]) == ids_of(api, OwnerIds=[ACCOUNT]) == {SNAPSHOT}
    assert ids_of(api, OwnerIds=["amazon"]) == ids_of(api, OwnerIds=[OTHER_ACCOUNT]) == {catalogue}
    assert ids_of(api, RestorableByUserIds=["all"]) == {catalogue}
    assert ids_of(api, RestorableByUserIds=["self"]) == {SNAPSHOT}
    assert ids_of(api.by("777788889999")) == {catalogue}
    assert api.refused("DescribeSnapshots", OwnerIds=["me"]).code == "InvalidParameterValue"
    assert api.refused("DescribeSnapshots", RestorableByUserIds=["me"]).code == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("description", "night*"),
        ("owner-id", ACCOUNT),
        ("progress", "100%"),
        ("start-time", "2026-01-02T03:04:05.000Z"),
        ("status", "completed"),
        ("volume-id", "vol-00000000000000001"),
        ("volume-size", "8"),
        ("encrypted", "false"),
        ("storage-tier", "standard"),
    ],
)
def test_filters(api: Api, name: str, value: str) -> None:
    keep(api)
    assert ids_of(api, Filters=[{"Name": name, "Values": [value]}]) == {SNAPSHOT}
    assert ids_of(api, Filters=[{"Name": name, "Values": ["no" + value]}]) == set()

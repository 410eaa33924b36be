"""The recycle bin: what goes into it, what is seen of it, and how it comes back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.api.ec2.recycle_bin import IN_BIN, recycle
from orchestrator.api.orc.recycle_bin import create_retention_rule, delete_retention_rule, describe_retention_rules
from orchestrator.api.orc.snapshots import describe_snapshot_details
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import BlockDevice, Image, RetentionRule
from orchestrator.model.snapshot import FastRestore, Snapshot

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api
from .test_snapshots import SNAPSHOT, VOLUME, code_of, ids_of, keep

IMAGE = "ami-00000000000000001"


def rule(api: Api, number: int = 1, *, days: int = 7, resource_type: str = "EBS_SNAPSHOT", **tags: str) -> None:
    owned = {"account": api.account, "region": api.region, "created": api.now}
    api.put(
        RetentionRule(
            id=f"rule-{number:017x}", resource_type=resource_type, retention_days=days, resource_tags=tags, **owned
        )
    )


def delete(api: Api) -> None:
    api.call("DeleteSnapshot", SnapshotId=SNAPSHOT)


def test_kept_and_restored(api: Api) -> None:
    rule(api)
    fast = FastRestore(zone="us-east-1a", account=ACCOUNT, since=api.now)
    keep(api, tags={"stage": "test"}, shared_with=(OTHER_ACCOUNT,), fast_restores=(fast,))
    delete(api)
    assert (ids_of(api), ids_of(api.by()), code_of(api)) == (set(), set(), "InvalidSnapshot.NotFound")
    assert api.refused("DeleteSnapshot", SnapshotId=SNAPSHOT).code == "InvalidSnapshot.NotFound"
    assert api.call("ListSnapshotsInRecycleBin")["Snapshots"] == [
        {
            "SnapshotId": SNAPSHOT,
            "RecycleBinEnterTime": api.now,
            "RecycleBinExitTime": api.now + timedelta(days=7),
            "Description": "nightly",
            "VolumeId": VOLUME,
        }
    ]
    assert api.by().call("ListSnapshotsInRecycleBin")["Snapshots"] == []
    assert api.get(Snapshot, SNAPSHOT).tags == {"stage": "test", IN_BIN: "true"}
    api.call("CreateTags", Resources=[SNAPSHOT], Tags=[{"Key": "why", "Value": "by mistake"}])
    assert api.call("RestoreSnapshotFromRecycleBin", SnapshotId=SNAPSHOT) == {
        "SnapshotId": SNAPSHOT,
        "Description": "nightly",
        "Encrypted": False,
        "OwnerId": ACCOUNT,
        "Progress": "100%",
        "StartTime": api.now,
        "State": "completed",
        "VolumeId": VOLUME,
        "VolumeSize": 8,
    }
    back = api.get(Snapshot, SNAPSHOT)
    assert back.tags == {"stage": "test", "why": "by mistake"}
    assert (back.shared_with, back.fast_restores) == ((OTHER_ACCOUNT,), ())
    assert ids_of(api.by()) == {SNAPSHOT}
    refused = api.refused("RestoreSnapshotFromRecycleBin", SnapshotId=SNAPSHOT)
    assert refused.code == "InvalidSnapshot.NotFound"


def test_gone_when_its_time_is_over(api: Api) -> None:
    rule(api, days=1)
    keep(api)
    delete(api)
    api.advance(86400)
    assert api.call("ListSnapshotsInRecycleBin")["Snapshots"] == []
    refused = api.refused("RestoreSnapshotFromRecycleBin", SnapshotId=SNAPSHOT)
    assert refused.code == "InvalidSnapshot.NotFound"


@pytest.mark.parametrize(
    ("rules", "days"),
    [
        ([], 0),
        ([{"days": 3}, {"days": 9}, {"days": 5}], 9),
        ([{"days": 3}, {"days": 9, "stage": "production"}], 3),
        ([{"days": 3}, {"days": 9, "stage": "test"}], 9),
        ([{"days": 9, "stage": ""}], 9),
        ([{"days": 9, "stage": "production", "team": "web"}], 9),
        ([{"days": 9, "owner": "me"}], 0),
        ([{"days": 9, "resource_type": "EC2_IMAGE"}], 0),
    ],
)
def test_the_longest_rule_that_is_about_it(api: Api, rules: list[dict[str, Any]], days: int) -> None:
    for number, given in enumerate(rules, 1):
        rule(api, number, **given)
    rule(api.within("us-west-2"), 20, days=300)
    rule(api.by(), 21, days=300)
    keep(api, tags={"stage": "test", "team": "web"})
    delete(api)
    kept = api.store.get(Snapshot, SNAPSHOT)
    assert (kept is not None) == bool(days)
    if kept is not None:
        assert kept.recycled_until == api.now + timedelta(days=days)


def test_a_pending_one_is_not_kept(api: Api) -> None:
    rule(api)
    keep(api, state="pending")
    delete(api)
    assert api.store.get(Snapshot, SNAPSHOT) is None


def test_pages_and_ids(api: Api) -> None:
    rule(api)
    for number in range(1, 8):
        keep(api, f"snap-{number:017x}")
        api.call("DeleteSnapshot", SnapshotId=f"snap-{number:017x}")
    first = api.call("ListSnapshotsInRecycleBin", MaxResults=5)
    rest = api.call("ListSnapshotsInRecycleBin", MaxResults=5, NextToken=first["NextToken"])
    assert (len(first["Snapshots"]), len(rest["Snapshots"])) == (5, 2)
    assert len(api.call("ListSnapshotsInRecycleBin", SnapshotIds=[SNAPSHOT])["Snapshots"]) == 1
    refused = api.refused("ListSnapshotsInRecycleBin", SnapshotIds=["snap-0000000000000dead"])
    assert refused.code == "InvalidSnapshot.NotFound"


# --- images ---------------------------------------------------------------------------------------------------------


def put_image(api: Api, image_id: str = IMAGE, **fields: Any) -> Image:
    owned = {"account": api.account, "region": api.region, "created": api.now}
    devices = (BlockDevice(device="/dev/xvda", snapshot_id=SNAPSHOT, size_gib=8),)
    api.put(Image(id=image_id, name="web", description="a server", block_devices=devices, **owned, **fields))
    return api.get(Image, image_id)


def recycle_image(api: Api, image: Image) -> bool:
    with api.store.write() as tx:
        return recycle(replace(api._call("DeregisterImage", {}), db=tx), image)


def test_an_image_is_kept_and_restored(api: Api) -> None:
    keep(api)
    image = put_image(api)
    assert not recycle_image(api, image)
    rule(api, resource_type="EC2_IMAGE", days=2)
    assert recycle_image(api, image)
    assert api.call("ListImagesInRecycleBin")["Images"] == [
        {
            "ImageId": IMAGE,
            "Name": "web",
            "Description": "a server",
            "RecycleBinEnterTime": api.now,
            "RecycleBinExitTime": api.now + timedelta(days=2),
        }
    ]
    assert api.call("DescribeImages")["Images"] == []
    assert api.call("RestoreImageFromRecycleBin", ImageId=IMAGE) == {"Return": True}
    back = api.get(Image, IMAGE)
    assert (back.state, back.recycled_at, back.tags) == ("available", None, {})
    assert [one["ImageId"] for one in api.call("DescribeImages")["Images"]] == [IMAGE]
    assert api.refused("RestoreImageFromRecycleBin", ImageId=IMAGE).code == "InvalidAMIID.NotFound"


def test_an_image_needs_its_snapshots_back_first(api: Api) -> None:
    rule(api, 1, resource_type="EC2_IMAGE")
    rule(api, 2)
    keep(api)
    recycle_image(api, put_image(api))
    delete(api)
    refused = api.refused("RestoreImageFromRecycleBin", ImageId=IMAGE)
    assert refused.code == "InvalidSnapshot.NotFound" and "recycle bin" in refused.message
    api.call("RestoreSnapshotFromRecycleBin", SnapshotId=SNAPSHOT)
    api.call("RestoreImageFromRecycleBin", ImageId=IMAGE)


def test_an_images_name_may_be_taken_meanwhile(api: Api) -> None:
    rule(api, resource_type="EC2_IMAGE")
    keep(api)
    recycle_image(api, put_image(api))
    put_image(api, "ami-00000000000000002")
    assert api.refused("RestoreImageFromRecycleBin", ImageId=IMAGE).code == "InvalidAMIName.Duplicate"


# --- rules, and what EC2 does not tell ------------------------------------------------------------------------------


def orc(api: Api, function: Any, **given: Any) -> dict[str, Any]:
    """As dispatch calls it: in a transaction."""
    with api.store.write() as tx:
        answer: dict[str, Any] = function(replace(api._call(function.__name__, given), db=tx), **given)
        return answer


def test_rules(api: Api) -> None:
    made = orc(
        api,
        create_retention_rule,
        resource_type="EBS_SNAPSHOT",
        retention_days=30,
        description="a month",
        resource_tags=[{"Key": "stage", "Value": "production"}],
    )["RetentionRule"]
    assert made == {
        "RuleId": made["RuleId"],
        "ResourceType": "EBS_SNAPSHOT",
        "RetentionDays": 30,
        "Description": "a month",
        "ResourceTags": [{"Key": "stage", "Value": "production"}],
        "Created": api.now,
    }
    images = orc(api, create_retention_rule, resource_type="EC2_IMAGE", retention_days=1)["RetentionRule"]
    assert orc(api, describe_retention_rules)["RetentionRules"] == [made, images]
    assert orc(api, describe_retention_rules, resource_type="EC2_IMAGE")["RetentionRules"] == [images]
    assert orc(api, describe_retention_rules, rule_ids=[made["RuleId"]])["RetentionRules"] == [made]
    assert orc(api.by(), describe_retention_rules)["RetentionRules"] == []
    assert orc(api.within("us-west-2"), describe_retention_rules)["RetentionRules"] == []
    orc(api, delete_retention_rule, rule_id=made["RuleId"])
    with pytest.raises(EC2Error, match=r"InvalidRuleId\.NotFound"):
        orc(api, delete_retention_rule, rule_id=made["RuleId"])


@pytest.mark.parametrize(
    "given",
    [
        {"resource_type": "EBS_VOLUME", "retention_days": 1},
        {"resource_type": "EC2_IMAGE", "retention_days": 0},
        {"resource_type": "EC2_IMAGE", "retention_days": 366},
        {"resource_type": "EC2_IMAGE", "retention_days": 1, "description": "x" * 256},
    ],
)
def test_rules_refuse(api: Api, given: dict[str, Any]) -> None:
    with pytest.raises(EC2Error, match="InvalidParameterValue"):
        orc(api, create_retention_rule, **given)


def test_details(api: Api) -> None:
    keep(api, consistency="frozen", source_snapshot_id="snap-00000000000000009", public=True)
    about = {"SnapshotId": SNAPSHOT, "Consistency": "frozen", "FastRestoreZones": []}
    mine = {**about, "LayerId": "layer-0", "SourceSnapshotId": "snap-00000000000000009"}
    assert orc(api, describe_snapshot_details)["Snapshots"] == [mine]
    assert orc(api, describe_snapshot_details, snapshot_ids=[SNAPSHOT])["Snapshots"] == [mine]
    assert orc(api.by(), describe_snapshot_details)["Snapshots"] == []
    theirs = {**about, "LayerId": None, "SourceSnapshotId": None}
    assert orc(api.by(), describe_snapshot_details, snapshot_ids=[SNAPSHOT])["Snapshots"] == [theirs]
    with pytest.raises(EC2Error, match=r"InvalidSnapshot\.NotFound"):
        orc(api, describe_snapshot_details, snapshot_ids=["snap-0000000000000dead"])

"""DeregisterImage: what goes with an image and what stays, protection, and the recycle bin."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.model import ids
from orchestrator.model.image import Image, ImageAlias, RetentionRule
from orchestrator.model.layer import Layer
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.snapshot import Snapshot, SnapshotLock

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api

ALIAS = "ami-0abcdef1234567890"


def alias(api: Api, name: str) -> None:
    api.put(ImageAlias(id=ALIAS, name=name, account=ACCOUNT, region=EVERY_REGION, created=api.now))


def test_deregister_leaves_the_snapshots(api: Api) -> None:
    image = api.make_image()
    assert api.call("DeregisterImage", ImageId=image.id) == {"Return": True}
    assert api.store.get(Image, image.id) is None
    assert api.store.get(Snapshot, image.block_devices[0].snapshot_id) is not None
    assert api.refused("DeregisterImage", ImageId=image.id).code == "InvalidAMIID.NotFound"


def test_deregister_with_its_snapshots(api: Api) -> None:
    image = api.make_image("first")
    snapshot_id = image.block_devices[0].snapshot_id
    layer_id = api.get(Snapshot, snapshot_id).layer_id
    answer = api.call("DeregisterImage", ImageId=image.id, DeleteAssociatedSnapshots=True)
    assert answer["DeleteSnapshotResults"] == [{"SnapshotId": snapshot_id, "ReturnCode": "success"}]
    assert api.store.get(Snapshot, snapshot_id) is None
    assert (Layer.KIND, layer_id) in [(kind, row) for kind, row, _ in api.store.pending_wakes()]


def test_deregister_skips_a_snapshot_that_another_image_needs(api: Api) -> None:
    first = api.make_image("first")
    api.make_image("second", block_devices=first.block_devices)
    answer = api.call("DeregisterImage", ImageId=first.id, DeleteAssociatedSnapshots=True)
    assert [result["ReturnCode"] for result in answer["DeleteSnapshotResults"]] == ["skipped"]
    assert api.store.get(Snapshot, first.block_devices[0].snapshot_id) is not None


def test_deregister_is_for_the_owner(api: Api) -> None:
    image = api.make_image()
    error = api.by().refused("DeregisterImage", ImageId=image.id)
    assert (error.code, error.http_status) == ("AuthFailure", 403)
    private = api.make_image("private", region="us-east-1", public=False)
    assert api.by().refused("DeregisterImage", ImageId=private.id).code == "InvalidAMIID.NotFound"
    assert api.refused("DeregisterImage", ImageId="ami-").code == "InvalidAMIID.Malformed"
    assert api.refused("DeregisterImage", ImageId=image.id, DryRun=True).code == "DryRunOperation"


def test_deregister_does_not_follow_an_alias(api: Api) -> None:
    api.make_image("debian-12")
    alias(api, "debian-12")
    assert api.refused("DeregisterImage", ImageId=ALIAS).code == "InvalidParameterValue"
    assert api.store.get(ImageAlias, ALIAS) is not None


def test_instances_go_on_without_their_image(api: Api) -> None:
    image = api.make_image()
    [instance_id] = api.launch(ImageId=image.id)
    api.call("DeregisterImage", ImageId=image.id)
    [reservation] = api.call("DescribeInstances", InstanceIds=[instance_id])["Reservations"]
    assert reservation["Instances"][0]["ImageId"] == image.id


def test_what_becomes_of_each_snapshot(api: Api) -> None:
    image = api.make_image()
    [root] = image.block_devices
    made = {}
    for name, fields in {
        "theirs": {"account": OTHER_ACCOUNT},
        "locked": {
            "lock": SnapshotLock(
                mode="governance", locked_at=api.now, duration_days=1, expires_at=api.now + timedelta(days=1)
            )
        },
        "free": {},
    }.items():
        given = {"account": ACCOUNT, "region": "us-east-1", "created": api.now, "layer_id": "", "size_gib": 1, **fields}
        made[name] = Snapshot(id=ids.mint("snap"), **given)
    api.put(*made.values())
    devices = [
        type(root)(device=f"/dev/sd{letter}", snapshot_id=s.id) for letter, s in zip("bcd", made.values(), strict=True)
    ]
    api.change(image, block_devices=(root, *devices))
    answer = api.call("DeregisterImage", ImageId=image.id, DeleteAssociatedSnapshots=True)
    codes = {result["SnapshotId"]: result["ReturnCode"] for result in answer["DeleteSnapshotResults"]}
    assert codes == {
        root.snapshot_id: "success",
        made["theirs"].id: "missing-permissions",
        made["locked"].id: "client-error",
        made["free"].id: "success",
    }
    assert {snapshot.id for snapshot in api.store.all(Snapshot)} == {made["theirs"].id, made["locked"].id}


def test_protection(api: Api) -> None:
    image = api.make_image()
    answer = api.call("EnableImageDeregistrationProtection", ImageId=image.id)
    assert answer == {"Return": "enabled-without-cooldown"}
    assert api.call("DescribeImages")["Images"][0]["DeregistrationProtection"] == "enabled-without-cooldown"
    assert api.refused("DeregisterImage", ImageId=image.id).code == "OperationNotPermitted"
    assert api.by().refused("DisableImageDeregistrationProtection", ImageId=image.id).code == "AuthFailure"
    assert api.call("DisableImageDeregistrationProtection", ImageId=image.id) == {"Return": "disabled"}
    api.call("DeregisterImage", ImageId=image.id)


def test_a_cooldown_lasts_a_day_after_protection(api: Api) -> None:
    image = api.make_image()
    answer = api.call("EnableImageDeregistrationProtection", ImageId=image.id, WithCooldown=True)
    assert answer == {"Return": "enabled-with-cooldown"}
    api.call("DisableImageDeregistrationProtection", ImageId=image.id)
    api.call("DisableImageDeregistrationProtection", ImageId=image.id)  # again, which does not begin it anew
    api.advance(86399)
    error = api.refused("DeregisterImage", ImageId=image.id)
    assert error.code == "OperationNotPermitted" and "2026-01-03T03:04:05Z" in error.message
    api.advance(1)
    api.call("DeregisterImage", ImageId=image.id)


def test_the_recycle_bin_keeps_what_a_rule_is_about(api: Api) -> None:
    rule = RetentionRule(
        id=ids.mint("rule"),
        account=ACCOUNT,
        region="us-east-1",
        created=api.now,
        resource_type="EC2_IMAGE",
        retention_days=7,
        resource_tags={"keep": "yes"},
    )
    api.put(rule)
    kept = api.make_image("kept", region="us-east-1", tags={"keep": "yes"})
    gone = api.make_image("gone", region="us-east-1")
    for image in (kept, gone):
        api.call("DeregisterImage", ImageId=image.id)
    assert api.store.get(Image, gone.id) is None
    assert api.get(Image, kept.id).recycled_until == api.now + timedelta(days=7)
    assert api.refused("DescribeImages", ImageIds=[kept.id]).code == "InvalidAMIID.NotFound"
    assert api.refused("DeregisterImage", ImageId=kept.id).code == "InvalidAMIID.NotFound"
    assert [image["ImageId"] for image in api.call("ListImagesInRecycleBin")["Images"]] == [kept.id]
    api.call("RestoreImageFromRecycleBin", ImageId=kept.id)
    [shown] = api.call("DescribeImages", ImageIds=[kept.id])["Images"]
    assert (shown["State"], shown["Tags"]) == ("available", [{"Key": "keep", "Value": "yes"}])

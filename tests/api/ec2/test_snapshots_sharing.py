"""Permissions of snapshots, and a region's bar on public ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.model.image import BlockDevice
from orchestrator.model.kms import EBS_ALIAS
from orchestrator.model.snapshot import Snapshot

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api
from .test_snapshots import SNAPSHOT, ids_of, keep, make_volume
from .test_snapshots_copy import make_key

ADD_OTHER = {"CreateVolumePermission": {"Add": [{"UserId": OTHER_ACCOUNT}]}}
ADD_ALL = {"CreateVolumePermission": {"Add": [{"Group": "all"}]}}


def modify(api: Api, **given: Any) -> None:
    api.call("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **given)


def permissions(api: Api) -> list[dict[str, str]]:
    given = {"Attribute": "createVolumePermission", "SnapshotId": SNAPSHOT}
    answer = api.call("DescribeSnapshotAttribute", **given)
    assert answer["SnapshotId"] == SNAPSHOT
    found: list[dict[str, str]] = answer["CreateVolumePermissions"]
    return found


def test_shared_with_accounts_and_everybody(api: Api) -> None:
    keep(api)
    assert permissions(api) == []
    modify(api, **ADD_OTHER)
    modify(api, **ADD_OTHER)
    modify(api, Attribute="createVolumePermission", OperationType="add", UserIds=["777788889999"], GroupNames=["all"])
    assert permissions(api) == [{"UserId": OTHER_ACCOUNT}, {"UserId": "777788889999"}, {"Group": "all"}]
    assert ids_of(api.by("123412341234")) == {SNAPSHOT}
    modify(api, CreateVolumePermission={"Remove": [{"Group": "all"}, {"UserId": "777788889999"}]})
    assert permissions(api) == [{"UserId": OTHER_ACCOUNT}]
    assert (ids_of(api.by()), ids_of(api.by("123412341234"))) == ({SNAPSHOT}, set())
    modify(api, OperationType="remove", UserIds=[OTHER_ACCOUNT])
    assert permissions(api) == []
    modify(api, **ADD_ALL)
    api.call("ResetSnapshotAttribute", SnapshotId=SNAPSHOT, Attribute="createVolumePermission")
    assert permissions(api) == []


def test_product_codes_are_none(api: Api) -> None:
    keep(api)
    answer = api.call("DescribeSnapshotAttribute", SnapshotId=SNAPSHOT, Attribute="productCodes")
    assert answer == {"SnapshotId": SNAPSHOT, "ProductCodes": []}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "MissingParameter"),
        ({"UserIds": [OTHER_ACCOUNT]}, "MissingParameter"),
        ({"OperationType": "add"}, "MissingParameter"),
        ({"OperationType": "give", "UserIds": [OTHER_ACCOUNT]}, "InvalidParameterValue"),
        ({"Attribute": "productCodes", **ADD_OTHER}, "InvalidParameterValue"),
        ({**ADD_OTHER, "OperationType": "add"}, "InvalidParameterCombination"),
        (
            {"CreateVolumePermission": {"Add": [{"UserId": OTHER_ACCOUNT}], "Remove": [{"Group": "all"}]}},
            "InvalidParameterCombination",
        ),
        ({"CreateVolumePermission": {"Add": [{"UserId": "bob"}]}}, "InvalidParameterValue"),
        ({"CreateVolumePermission": {"Add": [{"Group": "some"}]}}, "InvalidParameterValue"),
        ({"CreateVolumePermission": {"Add": [{"Group": "all", "UserId": ACCOUNT}]}}, "InvalidParameterCombination"),
        ({"OperationType": "add", "UserIds": [f"{number:012}" for number in range(501)]}, "InvalidParameterValue"),
    ],
)
def test_modify_is_refused(api: Api, given: dict[str, Any], code: str) -> None:
    keep(api)
    assert api.refused("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **given).code == code


def test_none_but_the_owner(api: Api) -> None:
    keep(api, shared_with=(OTHER_ACCOUNT,))
    other = api.by()
    assert other.refused("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **ADD_ALL).code == "AuthFailure"
    about = {"SnapshotId": SNAPSHOT, "Attribute": "createVolumePermission"}
    assert other.refused("DescribeSnapshotAttribute", **about).code == "AuthFailure"
    assert other.refused("ResetSnapshotAttribute", **about).code == "AuthFailure"


def test_an_encrypted_one_is_never_public(api: Api) -> None:
    key = make_key(api)
    keep(api, key_id=key.id)
    assert api.refused("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **ADD_ALL).code == "OperationNotPermitted"
    modify(api, **ADD_OTHER)
    assert permissions(api) == [{"UserId": OTHER_ACCOUNT}]


def test_one_of_the_default_key_stays(api: Api) -> None:
    key = make_key(api, aliases=(EBS_ALIAS,), manager="AWS")
    keep(api, key_id=key.id)
    assert api.refused("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **ADD_OTHER).code == "OperationNotPermitted"


# --- what a borrower makes of it -------------------------------------------------------------------------------------


def borrow(api: Api) -> str:
    """An image that the other account has registered of the snapshot, which it was lent."""
    keep(api, layer_id=make_volume(api).layer_id)
    modify(api, **ADD_OTHER)
    devices = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": SNAPSHOT}}]
    made = api.by().call("RegisterImage", Name="mine", RootDeviceName="/dev/xvda", BlockDeviceMappings=devices)
    image_id: str = made["ImageId"]
    return image_id


def test_a_loan_is_to_the_borrower_alone_and_ends(api: Api) -> None:
    """An image that somebody else has registered of a snapshot gives nobody leave to use it."""
    image_id, third = borrow(api), api.by("777788889999")
    one = {"ImageId": image_id, "MinCount": 1, "MaxCount": 1}
    volume = {"AvailabilityZone": "us-east-1a", "SnapshotId": SNAPSHOT}
    api.by().call("ModifyImageAttribute", ImageId=image_id, LaunchPermission={"Add": [{"UserId": third.account}]})
    api.by().launch(ImageId=image_id)
    api.by().call("CreateVolume", **volume)
    for other in (third, api.by()):
        assert ids_of(other) == (set() if other is third else {SNAPSHOT})
        modify(api, CreateVolumePermission={"Remove": [{"UserId": OTHER_ACCOUNT}]})
        assert ids_of(other) == set()
        assert other.refused("CreateVolume", **volume).code == "InvalidSnapshot.NotFound"
        assert other.refused("RunInstances", **one).code == "InvalidSnapshot.NotFound"
        modify(api, **ADD_OTHER)
    assert third.refused("RunInstances", **one).code == "InvalidSnapshot.NotFound"
    modify(api, CreateVolumePermission={"Add": [{"UserId": third.account}]})
    third.launch(ImageId=image_id)


def test_what_a_borrower_registered_does_not_hold_it(api: Api) -> None:
    image_id = borrow(api)
    own = api.make_image(region=api.region)
    mapping = (BlockDevice(device="/dev/xvda", snapshot_id=SNAPSHOT, size_gib=8),)
    own = api.change(own, block_devices=mapping)
    refused = api.refused("DeleteSnapshot", SnapshotId=SNAPSHOT)
    assert refused.code == "InvalidSnapshot.InUse" and own.id in refused.message and image_id not in refused.message
    answer = api.call("DeregisterImage", ImageId=own.id, DeleteAssociatedSnapshots=True)
    assert answer["DeleteSnapshotResults"] == [{"SnapshotId": SNAPSHOT, "ReturnCode": "success"}]
    assert api.store.get(Snapshot, SNAPSHOT) is None
    one = {"ImageId": image_id, "MinCount": 1, "MaxCount": 1}
    assert api.by().refused("RunInstances", **one).code == "InvalidSnapshot.NotFound"


# --- a region's bar -------------------------------------------------------------------------------------------------


def test_block_new_sharing(api: Api) -> None:
    keep(api, public=True)
    assert api.call("GetSnapshotBlockPublicAccessState") == {"State": "unblocked", "ManagedBy": "account"}
    assert api.call("EnableSnapshotBlockPublicAccess", State="block-new-sharing") == {"State": "block-new-sharing"}
    assert api.call("GetSnapshotBlockPublicAccessState")["State"] == "block-new-sharing"
    assert ids_of(api.by()) == {SNAPSHOT}
    assert api.refused("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **ADD_ALL).code == "OperationNotPermitted"
    modify(api, **ADD_OTHER)
    assert api.within("us-west-2").call("GetSnapshotBlockPublicAccessState")["State"] == "unblocked"
    assert api.by().call("GetSnapshotBlockPublicAccessState")["State"] == "unblocked"


def test_block_all_sharing_hides_what_is_public(api: Api) -> None:
    keep(api, public=True)
    api.call("EnableSnapshotBlockPublicAccess", State="block-all-sharing")
    assert (ids_of(api.by()), ids_of(api, RestorableByUserIds=["all"])) == (set(), set())
    assert permissions(api) == [{"Group": "all"}]
    assert api.call("DisableSnapshotBlockPublicAccess") == {"State": "unblocked"}
    assert ids_of(api.by()) == {SNAPSHOT}
    assert api.refused("EnableSnapshotBlockPublicAccess", State="unblocked").code == "InvalidParameterValue"
    assert api.get(Snapshot, SNAPSHOT).public


def test_after_the_loan_the_borrowers_image_is_neither_copied_nor_exported(api: Api, tmp_path: Path) -> None:
    image_id = borrow(api)
    api.configure(import_dir=str(tmp_path))
    copy = {"SourceImageId": image_id, "SourceRegion": "us-east-1", "Name": "copy"}
    export = {"ImageId": image_id, "DiskImageFormat": "RAW", "S3ExportLocation": {"S3Bucket": "bucket"}}
    far = api.by().within("us-west-2")
    modify(api, CreateVolumePermission={"Remove": [{"UserId": OTHER_ACCOUNT}]})
    for caller, action, asked in (
        (api.by(), "CopyImage", copy),
        (far, "CopyImage", copy),
        (api.by(), "ExportImage", export),
    ):
        assert caller.refused(action, **asked).code == "InvalidSnapshot.NotFound"
    modify(api, **ADD_OTHER)
    far.call("CopyImage", **copy)
    api.by().call("ExportImage", **export)

"""Attributes of images: launch permissions, deprecation, disabling, block public access."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.kms import Key
from orchestrator.model.snapshot import Snapshot

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api

THIRD_ACCOUNT = "777788889999"


def own(api: Api, **fields: Any) -> Image:
    return api.make_image(**{"region": "us-east-1", "public": False, **fields})


def encrypted(api: Api, **key: Any) -> Image:
    """An image whose root is encrypted."""
    image = own(api)
    made = Key(**{"id": "key", "account": ACCOUNT, "region": "us-east-1", "created": api.now, **key})
    api.put(made)
    api.change(api.get(Snapshot, image.snapshot_ids[0]), key_id=made.id)
    return image


def attribute(api: Api, image: Image, name: str) -> Any:
    answer = api.call("DescribeImageAttribute", ImageId=image.id, Attribute=name)
    assert answer.pop("ImageId") == image.id
    [(_, value)] = answer.items()
    return value


def permissions(api: Api, image: Image) -> set[str]:
    return {one.get("UserId") or one["Group"] for one in attribute(api, image, "launchPermission")}


def share(api: Api, image: Image, **params: Any) -> None:
    api.call("ModifyImageAttribute", ImageId=image.id, **params)


# --- describe and modify ----------------------------------------------------------------------------------------------


def test_every_attribute(api: Api) -> None:
    image = own(
        api,
        description="mine",
        kernel_id="aki-00000000",
        ramdisk_id="ari-00000000",
        imds_v2_required=True,
        last_launched_at=api.now,
    )
    assert {
        name: attribute(api, image, name)
        for name in (
            "bootMode",
            "deregistrationProtection",
            "description",
            "imdsSupport",
            "kernel",
            "lastLaunchedTime",
            "ramdisk",
            "sriovNetSupport",
            "tpmSupport",
            "uefiData",
        )
    } == {
        "bootMode": {"Value": "legacy-bios"},
        "deregistrationProtection": {"Value": "disabled"},
        "description": {"Value": "mine"},
        "imdsSupport": {"Value": "v2.0"},
        "kernel": {"Value": "aki-00000000"},
        "lastLaunchedTime": {"Value": "2026-01-02T03:04:05.000Z"},
        "ramdisk": {"Value": "ari-00000000"},
        "sriovNetSupport": {"Value": "simple"},
        "tpmSupport": {},
        "uefiData": {},
    }
    assert attribute(api, image, "productCodes") == attribute(api, image, "launchPermission") == []
    [mapping] = attribute(api, image, "blockDeviceMapping")
    assert (mapping["DeviceName"], mapping["Ebs"]["SnapshotId"]) == ("/dev/xvda", image.snapshot_ids[0])
    error = api.refused("DescribeImageAttribute", ImageId=image.id, Attribute="colour")
    assert error.code == "InvalidParameterValue"


def test_attributes_are_the_owners(api: Api) -> None:
    catalogue = api.make_image()
    private = own(api)
    for action, params in {
        "DescribeImageAttribute": {"Attribute": "description"},
        "ModifyImageAttribute": {"Description": {"Value": "x"}},
        "ResetImageAttribute": {"Attribute": "launchPermission"},
        "EnableImageDeprecation": {"DeprecateAt": datetime(2026, 6, 1)},
        "DisableImageDeprecation": {},
        "DisableImage": {},
        "EnableImage": {},
        "EnableImageDeregistrationProtection": {},
    }.items():
        assert api.by().refused(action, ImageId=catalogue.id, **params).code == "AuthFailure", action
        assert api.by().refused(action, ImageId=private.id, **params).code == "InvalidAMIID.NotFound", action
        assert api.refused(action, ImageId="ami-x", **params).code == "InvalidAMIID.Malformed", action


def test_the_description(api: Api) -> None:
    image = own(api)
    share(api, image, Description={"Value": "new"})
    assert attribute(api, image, "description") == {"Value": "new"}
    share(api, image, Attribute="description", Value="newer")
    assert attribute(api, image, "description") == {"Value": "newer"}


def test_imds_support_is_for_good(api: Api) -> None:
    image = own(api)
    share(api, image, ImdsSupport={"Value": "v2.0"})
    assert api.call("DescribeImages")["Images"][0]["ImdsSupport"] == "v2.0"
    error = api.refused("ModifyImageAttribute", ImageId=image.id, Attribute="imdsSupport", Value="v1.0")
    assert error.code == "InvalidParameterValue"


# --- launch permissions -----------------------------------------------------------------------------------------------


def test_launch_permissions_in_both_forms(api: Api) -> None:
    image = own(api)
    share(api, image, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}, {"Group": "all"}]})
    share(api, image, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    assert permissions(api, image) == {OTHER_ACCOUNT, "all"}
    assert api.call("DescribeImages")["Images"][0]["Public"]
    given = {"Attribute": "launchPermission", "OperationType": "add", "UserIds": [THIRD_ACCOUNT]}
    share(api, image, **given)
    share(api, image, OperationType="remove", UserGroups=["all"])
    assert permissions(api, image) == {OTHER_ACCOUNT, THIRD_ACCOUNT}
    share(api, image, LaunchPermission={"Add": [{"Group": "all"}], "Remove": [{"UserId": OTHER_ACCOUNT}]})
    assert permissions(api, image) == {THIRD_ACCOUNT, "all"}
    api.call("ResetImageAttribute", ImageId=image.id, Attribute="launchPermission")
    assert permissions(api, image) == set()
    api.by().refused("RunInstances", ImageId=image.id, MinCount=1, MaxCount=1)


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"LaunchPermission": {"Add": [{"UserId": "bob"}]}}, "InvalidAMIAttributeItemValue"),
        ({"LaunchPermission": {"Add": [{"UserId": OTHER_ACCOUNT, "Group": "all"}]}}, "MissingParameter"),
        ({"OperationType": "add", "UserGroups": ["everyone"]}, "InvalidAMIAttributeItemValue"),
        ({"OperationType": "replace", "UserIds": [OTHER_ACCOUNT]}, "InvalidParameterValue"),
        ({"Attribute": "launchPermission", "UserIds": [OTHER_ACCOUNT]}, "MissingParameter"),
        ({"OperationType": "add"}, "MissingParameter"),
        ({}, "MissingParameter"),
        ({"Attribute": "kernel", "Value": "x"}, "InvalidParameterValue"),
        ({"Attribute": "description"}, "MissingParameter"),
        ({"Description": {"Value": "x"}, "ImdsSupport": {"Value": "v2.0"}}, "InvalidParameterCombination"),
        ({"OrganizationArns": ["arn:aws:organizations::x"], "OperationType": "add"}, "UnsupportedOperation"),
        (
            {"LaunchPermission": {"Add": [{"OrganizationArn": "arn:aws:organizations::x"}]}},
            "UnsupportedOperation",
        ),
        ({"ProductCodes": ["abc"]}, "UnsupportedOperation"),
        ({"Description": {"Value": "x" * 256}}, "InvalidParameterValue"),
    ],
)
def test_changes_that_are_refused(api: Api, params: dict[str, Any], code: str) -> None:
    assert api.refused("ModifyImageAttribute", ImageId=own(api).id, **params).code == code


def test_an_encrypted_image_is_shared_when_its_key_can_be(api: Api) -> None:
    image = encrypted(api)
    share(api, image, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    error = api.refused("ModifyImageAttribute", ImageId=image.id, LaunchPermission={"Add": [{"Group": "all"}]})
    assert error.code == "InvalidParameterValue" and "public" in error.message


def test_what_the_default_key_encrypts_is_not_shared(api: Api) -> None:
    image = encrypted(api, manager="AWS")
    permission = {"Add": [{"UserId": OTHER_ACCOUNT}]}
    error = api.refused("ModifyImageAttribute", ImageId=image.id, LaunchPermission=permission)
    assert error.code == "InvalidParameterValue" and "default key" in error.message
    share(api, image, LaunchPermission={"Remove": [{"UserId": OTHER_ACCOUNT}]})


def test_whom_it_was_shared_with_can_give_that_up(api: Api) -> None:
    image = own(api, shared_with=(OTHER_ACCOUNT, THIRD_ACCOUNT))
    assert api.by().call("CancelImageLaunchPermission", ImageId=image.id) == {"Return": True}
    assert permissions(api, image) == {THIRD_ACCOUNT}
    assert api.by().refused("CancelImageLaunchPermission", ImageId=image.id).code == "InvalidAMIID.NotFound"
    assert api.refused("CancelImageLaunchPermission", ImageId=image.id).code == "InvalidRequest"


def test_block_public_access(api: Api) -> None:
    image, public = own(api), own(api, name="public", public=True)
    get = "GetImageBlockPublicAccessState"
    assert api.call(get) == {"ImageBlockPublicAccessState": "unblocked", "ManagedBy": "account"}
    answer = api.call("EnableImageBlockPublicAccess", ImageBlockPublicAccessState="block-new-sharing")
    assert answer == {"ImageBlockPublicAccessState": "block-new-sharing"}
    error = api.refused("ModifyImageAttribute", ImageId=image.id, LaunchPermission={"Add": [{"Group": "all"}]})
    assert error.code == "OperationNotPermitted"
    share(api, image, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    assert api.call("DescribeImages", ImageIds=[public.id])["Images"][0]["Public"]  # what is public stays so
    for elsewhere in (api.within("us-west-2"), api.by()):
        assert elsewhere.call(get)["ImageBlockPublicAccessState"] == "unblocked"
    error = api.refused("EnableImageBlockPublicAccess", ImageBlockPublicAccessState="block-all-sharing")
    assert error.code == "InvalidParameterValue"
    assert api.call("DisableImageBlockPublicAccess") == {"ImageBlockPublicAccessState": "unblocked"}
    share(api, image, LaunchPermission={"Add": [{"Group": "all"}]})


# --- deprecated and disabled ------------------------------------------------------------------------------------------


def test_deprecation_is_to_the_minute(api: Api) -> None:
    image = own(api)
    api.call("EnableImageDeprecation", ImageId=image.id, DeprecateAt=datetime(2026, 6, 1, 12, 0, 31))
    assert api.call("DescribeImages")["Images"][0]["DeprecationTime"] == "2026-06-01T12:01:00.000Z"
    api.call("DisableImageDeprecation", ImageId=image.id)
    assert "DeprecationTime" not in api.call("DescribeImages")["Images"][0]
    assert api.call("DisableImageDeprecation", ImageId=image.id) == {"Return": True}


def test_when_an_image_can_be_deprecated(api: Api) -> None:
    image, public = own(api), own(api, name="public", public=True)
    api.call("EnableImageDeprecation", ImageId=image.id, DeprecateAt=api.now + timedelta(days=3600))
    for refused, at in (
        (image, api.now - timedelta(minutes=1)),
        (image, api.now + timedelta(days=3700)),
        (public, api.now + timedelta(days=800)),
    ):
        error = api.refused("EnableImageDeprecation", ImageId=refused.id, DeprecateAt=at)
        assert error.code == "InvalidParameterValue"


def test_a_disabled_image_loses_its_permissions_for_good(api: Api) -> None:
    image = own(api, public=True, shared_with=(OTHER_ACCOUNT,))
    for _ in range(2):
        assert api.call("DisableImage", ImageId=image.id) == {"Return": True}
    assert permissions(api, image) == set()
    error = api.refused("RunInstances", ImageId=image.id, MinCount=1, MaxCount=1)
    assert error.code == "InvalidAMIID.Unavailable"
    permission = {"Add": [{"UserId": OTHER_ACCOUNT}]}
    error = api.refused("ModifyImageAttribute", ImageId=image.id, LaunchPermission=permission)
    assert error.code == "InvalidAMIID.Unavailable"
    for _ in range(2):
        assert api.call("EnableImage", ImageId=image.id) == {"Return": True}
    assert permissions(api, image) == set()
    api.launch(ImageId=image.id)


def test_only_what_is_available_is_disabled(api: Api) -> None:
    image = own(api, state="pending", block_devices=(BlockDevice(device="/dev/xvda"),))
    assert api.refused("DisableImage", ImageId=image.id).code == "InvalidAMIID.Unavailable"
    assert api.refused("EnableImage", ImageId=image.id).code == "InvalidAMIID.Unavailable"

"""DescribeImages: who sees what, aliases, filters."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.model.image import Image, ImageAlias
from orchestrator.model.resource import EVERY_REGION

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api

THIRD_ACCOUNT = "777788889999"
ALIAS = "ami-0abcdef1234567890"


def matching(**values: str) -> list[dict[str, Any]]:
    return [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in values.items()]


def ids_of(answer: dict[str, Any]) -> set[str]:
    return {image["ImageId"] for image in answer["Images"]}


def alias(api: Api, name: str) -> None:
    api.put(ImageAlias(id=ALIAS, name=name, account=ACCOUNT, region=EVERY_REGION, created=api.now))


def test_an_image_is_shown_with_all_that_typed_clients_read(api: Api) -> None:
    image = api.make_image("debian-12", size_gib=3, description="Debian", kernel_id="aki-00000000")
    [shown] = api.call("DescribeImages")["Images"]
    assert shown == {
        "ImageId": image.id,
        "ImageLocation": "amazon/debian-12",
        "State": "available",
        "OwnerId": ACCOUNT,
        "ImageOwnerAlias": "amazon",
        "CreationDate": "2026-01-02T03:04:05.000Z",
        "Public": True,
        "Architecture": "x86_64",
        "ImageType": "machine",
        "Name": "debian-12",
        "Description": "Debian",
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
        "RootDeviceType": "ebs",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {
                    "DeleteOnTermination": True,
                    "VolumeSize": 3,
                    "VolumeType": "gp3",
                    "Encrypted": False,
                    "SnapshotId": image.block_devices[0].snapshot_id,
                },
            }
        ],
        "VirtualizationType": "hvm",
        "Hypervisor": "xen",
        "EnaSupport": True,
        "SriovNetSupport": "simple",
        "BootMode": "legacy-bios",
        "KernelId": "aki-00000000",
        "DeregistrationProtection": "disabled",
        "Tags": [],
        "ProductCodes": [],
    }


def test_who_sees_an_image(api: Api) -> None:
    catalogue = api.make_image("catalogue")
    private = api.make_image("private", region="us-east-1", public=False)
    public = api.make_image("public", region="us-east-1", public=True)
    gone = api.make_image("gone", region="us-east-1", state="deregistered")
    assert ids_of(api.call("DescribeImages")) == {catalogue.id, private.id, public.id}
    assert ids_of(api.by().call("DescribeImages")) == {catalogue.id, public.id}
    assert ids_of(api.within("us-west-2").call("DescribeImages")) == {catalogue.id}
    for caller, image in ((api.by(), private), (api.within("us-west-2"), public), (api, gone)):
        error = caller.refused("DescribeImages", ImageIds=[catalogue.id, image.id])
        assert error.code == "InvalidAMIID.NotFound"
        assert error.message == f"The image id '[{image.id}]' does not exist"


def test_tags_of_an_image_are_its_owners(api: Api) -> None:
    image = api.make_image("tagged", tags={"Name": "x"})
    assert api.call("DescribeImages")["Images"][0]["Tags"] == [{"Key": "Name", "Value": "x"}]
    assert api.by().call("DescribeImages")["Images"][0]["Tags"] == []
    wanted = [{"Name": "tag:Name", "Values": ["x"]}]
    assert ids_of(api.call("DescribeImages", Filters=wanted)) == {image.id}
    assert ids_of(api.by().call("DescribeImages", Filters=wanted)) == set()


def test_owners_and_executable_users(api: Api) -> None:
    catalogue = api.make_image("catalogue", account=OTHER_ACCOUNT)
    mine = api.make_image("mine", region="us-east-1", public=False)
    assert ids_of(api.call("DescribeImages", Owners=["self"])) == {mine.id}
    assert ids_of(api.call("DescribeImages", Owners=["amazon"])) == {catalogue.id}
    assert ids_of(api.call("DescribeImages", Owners=[ACCOUNT, "amazon"])) == {catalogue.id, mine.id}
    assert ids_of(api.call("DescribeImages", Owners=["aws-marketplace"])) == set()
    assert ids_of(api.call("DescribeImages", ExecutableUsers=["all"])) == {catalogue.id}
    assert ids_of(api.call("DescribeImages", ExecutableUsers=["self"])) == set()
    assert api.refused("DescribeImages", Owners=["me"]).code == "InvalidUserID.Malformed"
    assert api.refused("DescribeImages", ExecutableUsers=["all", "me"]).code == "InvalidUserID.Malformed"


def test_an_alias_is_the_newest_image_of_its_name_and_keeps_its_id(api: Api) -> None:
    api.make_image("debian-12", created=api.now - timedelta(days=1), description="older")
    api.make_image("debian-12", description="newer")
    alias(api, "debian-12")
    api.store.set_meta("account", ACCOUNT)
    for caller in (api, api.within("us-west-2"), api.by()):
        [shown] = caller.call("DescribeImages", ImageIds=[ALIAS])["Images"]
        assert (shown["ImageId"], shown["Description"]) == (ALIAS, "newer")
    [shown] = api.call("DescribeImages", ImageIds=[ALIAS], Filters=matching(image_id=ALIAS))["Images"]
    assert shown["ImageId"] == ALIAS
    assert ALIAS not in ids_of(api.call("DescribeImages"))


def test_an_alias_that_another_account_made_means_nothing_here(api: Api) -> None:
    api.store.set_meta("account", THIRD_ACCOUNT)
    api.make_image("debian-12")
    alias(api, "debian-12")
    assert api.call("DescribeImages", ImageIds=[ALIAS])["Images"]
    assert api.by().refused("DescribeImages", ImageIds=[ALIAS]).code == "InvalidAMIID.NotFound"


def test_an_alias_of_an_image_that_is_gone(api: Api) -> None:
    alias(api, "gone")
    assert api.refused("DescribeImages", ImageIds=[ALIAS]).code == "InvalidAMIID.NotFound"


def test_ids_are_well_formed_before_they_are_looked_for(api: Api) -> None:
    error = api.refused("DescribeImages", ImageIds=["ami-00000000000000000", "image"])
    assert error.code == "InvalidAMIID.Malformed"
    error = api.refused("DescribeImages", ImageIds=["ami-00000000000000000", "ami-00000000000000001"])
    assert error.message == "The image ids '[ami-00000000000000000, ami-00000000000000001]' do not exist"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", "debian-*"),
        ("name", "debian-1?"),
        ("architecture", "x86_64"),
        ("owner-alias", "amazon"),
        ("is-public", "true"),
        ("root-device-type", "ebs"),
        ("virtualization-type", "hvm"),
        ("block-device-mapping.volume-size", "8"),
        ("creation-date", "2026-01-*"),
        ("state", "available"),
    ],
)
def test_filters(api: Api, name: str, value: str) -> None:
    image = api.make_image("debian-12")
    assert ids_of(api.call("DescribeImages", Filters=[{"Name": name, "Values": [value]}])) == {image.id}
    assert ids_of(api.call("DescribeImages", Filters=[{"Name": name, "Values": ["no" + value]}])) == set()


def test_documented_filters_without_a_value_match_nothing_and_unknown_ones_are_refused(api: Api) -> None:
    api.make_image()
    for name in ("product-code", "platform", "ramdisk-id"):
        assert ids_of(api.call("DescribeImages", Filters=[{"Name": name, "Values": ["*"]}])) == set()
    error = api.refused("DescribeImages", Filters=[{"Name": "colour", "Values": ["red"]}])
    assert error.code == "InvalidParameterValue" and "colour" in error.message


def test_pages(api: Api) -> None:
    images = {api.make_image(f"image-{number}").id for number in range(5)}
    seen: list[str] = []
    token: dict[str, str] = {}
    while True:
        answer = api.call("DescribeImages", MaxResults=2, **token)
        assert len(answer["Images"]) <= 2
        seen += [image["ImageId"] for image in answer["Images"]]
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    assert len(seen) == 5 and set(seen) == images
    assert api.refused("DescribeImages", NextToken="bm9uc2Vuc2U=").code == "InvalidNextToken"


# --- what is shared, deprecated, disabled, thrown away ----------------------------------------------------------------


def test_an_image_is_seen_by_those_it_is_shared_with(api: Api) -> None:
    shared = api.make_image("shared", region="us-east-1", public=False, shared_with=(OTHER_ACCOUNT, THIRD_ACCOUNT))
    public = api.make_image("public", region="us-east-1")
    assert ids_of(api.by().call("DescribeImages")) == {shared.id, public.id}
    assert ids_of(api.by("123456789012").call("DescribeImages")) == {public.id}
    assert ids_of(api.by().within("us-west-2").call("DescribeImages")) == set()
    assert ids_of(api.by().call("DescribeImages", ExecutableUsers=["self"])) == {shared.id}
    assert ids_of(api.by().call("DescribeImages", ExecutableUsers=[OTHER_ACCOUNT])) == {shared.id}
    assert ids_of(api.by().call("DescribeImages", ExecutableUsers=[THIRD_ACCOUNT])) == set()
    assert ids_of(api.call("DescribeImages", ExecutableUsers=[THIRD_ACCOUNT])) == {shared.id}
    assert ids_of(api.call("DescribeImages", ExecutableUsers=["self"])) == set()
    assert ids_of(api.by().call("DescribeImages", ExecutableUsers=["self", "all"])) == {shared.id, public.id}
    assert ids_of(api.by().call("DescribeImages", Owners=["self"])) == set()
    api.by().launch(ImageId=shared.id)


def test_what_only_the_owner_sees_of_an_image(api: Api) -> None:
    image = api.make_image(
        region="us-east-1",
        source_instance_id="i-00000000",
        last_launched_at=api.now,
        protected="enabled-with-cooldown",
    )
    private = {"SourceInstanceId", "LastLaunchedTime", "DeregistrationProtection"}
    assert private <= api.call("DescribeImages", ImageIds=[image.id])["Images"][0].keys()
    assert not private & api.by().call("DescribeImages", ImageIds=[image.id])["Images"][0].keys()
    assert ids_of(api.call("DescribeImages", Filters=matching(source_instance_id="i-*"))) == {image.id}
    assert ids_of(api.by().call("DescribeImages", Filters=matching(source_instance_id="i-*"))) == set()


def test_a_deprecated_image_is_listed_for_its_owner(api: Api) -> None:
    image = api.make_image(region="us-east-1", deprecate_at=api.now + timedelta(minutes=1))
    other = api.by()
    assert ids_of(other.call("DescribeImages")) == {image.id}
    api.advance(60)
    assert ids_of(other.call("DescribeImages")) == set()
    assert ids_of(other.call("DescribeImages", IncludeDeprecated=True)) == {image.id}
    assert ids_of(other.call("DescribeImages", ImageIds=[image.id])) == {image.id}
    [shown] = api.call("DescribeImages")["Images"]
    assert shown["DeprecationTime"] == "2026-01-02T03:05:05.000Z"
    other.launch(ImageId=image.id)


def test_a_disabled_image_is_seen_by_its_owner_who_asks(api: Api) -> None:
    image = api.make_image(state="disabled")
    assert ids_of(api.call("DescribeImages")) == set()
    assert ids_of(api.call("DescribeImages", IncludeDisabled=True)) == {image.id}
    assert ids_of(api.call("DescribeImages", ImageIds=[image.id])) == {image.id}
    assert ids_of(api.by().call("DescribeImages", IncludeDisabled=True)) == set()
    assert api.refused("RunInstances", ImageId=image.id, MinCount=1, MaxCount=1).code == "InvalidAMIID.Unavailable"
    error = api.by().refused("RunInstances", ImageId=image.id, MinCount=1, MaxCount=1)
    assert error.code == "InvalidAMIID.NotFound"


def test_nobody_sees_what_is_in_the_recycle_bin(api: Api) -> None:
    image = api.make_image(recycled_at=api.now)
    assert ids_of(api.call("DescribeImages", IncludeDisabled=True)) == set()
    assert api.refused("DescribeImages", ImageIds=[image.id]).code == "InvalidAMIID.NotFound"
    assert api.refused("RunInstances", ImageId=image.id, MinCount=1, MaxCount=1).code == "InvalidAMIID.NotFound"


def test_an_alias_is_an_image_that_can_be_launched(api: Api) -> None:
    image = api.make_image("debian-12", created=api.now - timedelta(days=1))
    api.make_image("debian-12", state="pending")
    api.make_image("debian-12", recycled_at=api.now)
    alias(api, "debian-12")
    api.launch(ImageId=ALIAS)
    assert api.get(Image, image.id).last_launched_at == api.now


def test_why_an_image_failed(api: Api) -> None:
    image = api.make_image(state="failed", state_code="Client.InternalError", state_message="the disk is full")
    [shown] = api.call("DescribeImages", Filters=matching(state_reason_code="Client.*"))["Images"]
    assert shown["ImageId"] == image.id
    assert shown["StateReason"] == {"Code": "Client.InternalError", "Message": "the disk is full"}


def test_fast_launch_is_never_set_up(api: Api) -> None:
    image = api.make_image()
    assert api.call("DescribeFastLaunchImages", ImageIds=[image.id]) == {"FastLaunchImages": []}
    error = api.refused("DescribeFastLaunchImages", ImageIds=["ami-00000000"])
    assert error.code == "InvalidAMIID.NotFound"
    error = api.refused("DescribeFastLaunchImages", Filters=[{"Name": "colour", "Values": ["red"]}])
    assert error.code == "InvalidParameterValue"

"""`orc volume`: what it asks of the API, and what it prints."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import INSTANCE, FakeApi, Orc, instance

ONE = "vol-00000000000000001"
TWO = "vol-00000000000000002"


def volume(volume_id: str = ONE, *, state: str = "available", attached: str = "", name: str = "data") -> str:
    at = (
        f"<item><volumeId>{volume_id}</volumeId><instanceId>{INSTANCE}</instanceId><device>/dev/sdf</device>"
        f"<status>{attached}</status><deleteOnTermination>false</deleteOnTermination></item>"
    )
    return (
        f"<volumeId>{volume_id}</volumeId><size>8</size><snapshotId/><availabilityZone>us-east-1a</availabilityZone>"
        f"<status>{state}</status><createTime>2026-01-02T03:04:05.000Z</createTime><volumeType>gp3</volumeType>"
        f"<iops>3000</iops><throughput>125</throughput><encrypted>false</encrypted>"
        f"<attachmentSet>{at if attached else ''}</attachmentSet>"
        f"<tagSet><item><key>Name</key><value>{name}</value></item></tagSet>"
    )


def found(*volumes: str) -> str:
    return f"<volumeSet>{''.join(f'<item>{one}</item>' for one in volumes)}</volumeSet>"


def modification(state: str, progress: int = 0, message: str = "") -> str:
    return (
        f"<volumeId>{ONE}</volumeId><modificationState>{state}</modificationState><progress>{progress}</progress>"
        f"<statusMessage>{message}</statusMessage><originalSize>8</originalSize><targetSize>20</targetSize>"
        "<originalVolumeType>gp3</originalVolumeType><targetVolumeType>gp2</targetVolumeType>"
        "<originalIops>3000</originalIops><targetIops>100</targetIops><originalThroughput>125</originalThroughput>"
    )


def modifications(*each: str) -> str:
    return f"<volumeModificationSet>{''.join(f'<item>{one}</item>' for one in each)}</volumeModificationSet>"


WELL = (
    f"<volumeStatusSet><item><volumeId>{ONE}</volumeId><volumeStatus><status>impaired</status></volumeStatus>"
    "<eventsSet><item><description>no space</description></item></eventsSet></item></volumeStatusSet>"
)


def test_ls(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeVolumes", found(volume(), volume(TWO, state="in-use", attached="detaching", name="")))
    lines = orc("volume", "ls").stdout.splitlines()
    assert lines[0].split() == ["NAME", "ID", "STATE", "GIB", "TYPE", "ATTACHED", "TO", "AGE"]
    assert lines[1].split()[:6] == ["data", ONE, "available", "8", "gp3", "-"]
    assert lines[2].split()[:6] == ["-", TWO, "detaching", "8", "gp3", f"{INSTANCE}:/dev/sdf"]
    api.answer("DescribeVolumes", found())
    assert "no volumes" in orc("volume", "ls", "--filter", "status=available").stderr


def test_show(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeVolumes", found(volume(state="in-use", attached="attached")))
    api.answer("DescribeVolumeStatus", WELL)
    api.answer("DescribeVolumesModifications", modifications(modification("optimizing", 40)))
    shown = orc("volume", "show", "data").stdout
    facts = {line[:14].strip(): line[14:].strip() for line in shown.splitlines()}
    assert (facts["id"], facts["status"], facts["because"]) == (ONE, "impaired", "no space")
    assert facts["modification"] == "optimizing 40%, size 8 -> 20, type gp3 -> gp2, IOPS 3000 -> 100, MiB/s 125 -> -"
    assert api.forms("DescribeVolumes")[0]["Filter.1.Value.1"] == "data"
    document = json.loads(orc("volume", "show", ONE, "-o", "json").stdout)
    assert (document["VolumeId"], document["Modification"]["TargetSize"]) == (ONE, 20)
    assert api.forms("DescribeVolumes")[1]["VolumeId.1"] == ONE


def test_one_that_is_not_there_and_one_of_two(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeVolumes", found())
    assert orc("volume", "show", "data").exit_code == 3
    api.answer("DescribeVolumes", found(volume(), volume(TWO)))
    result = orc("volume", "rm", "data")
    assert (result.exit_code, ONE in result.stderr, TWO in result.stderr) == (2, True, True)


def test_create(orc: Orc, api: FakeApi) -> None:
    api.answer("CreateVolume", volume(state="creating"))
    api.answer("DescribeVolumes", found(volume(state="creating")), found(volume()))
    zones = "".join(f"<item><zoneName>us-east-1{letter}</zoneName></item>" for letter in "ba")
    api.answer("DescribeAvailabilityZones", f"<availabilityZoneInfo>{zones}</availabilityZoneInfo>")
    result = orc("volume", "create", "8", "--name", "data", "--tag", "stage=test", "--key", "alias/mine")
    assert (result.exit_code, result.stdout.strip()) == (0, ONE)
    (form,) = api.forms("CreateVolume")
    assert form.pop("ClientToken")
    assert {name: form[name] for name in form if name not in ("Action", "Version")} == {
        "AvailabilityZone": "us-east-1a",
        "Size": "8",
        "VolumeType": "gp3",
        "Encrypted": "true",
        "KmsKeyId": "alias/mine",
        "TagSpecification.1.ResourceType": "volume",
        "TagSpecification.1.Tag.1.Key": "Name",
        "TagSpecification.1.Tag.1.Value": "data",
        "TagSpecification.1.Tag.2.Key": "stage",
        "TagSpecification.1.Tag.2.Value": "test",
    }
    assert len(api.forms("DescribeVolumes")) == 2


def test_create_beside_an_instance(orc: Orc, api: FakeApi) -> None:
    placed = "<placement><availabilityZone>us-east-1c</availabilityZone></placement>"
    api.instances(instance(name="web", more=placed))
    api.answer("CreateVolume", volume(state="creating"))
    result = orc("volume", "create", "--snapshot", "snap-00000000000000001", "--for", "web", "--no-wait")
    assert result.exit_code == 0
    (form,) = api.forms("CreateVolume")
    assert (form["AvailabilityZone"], form["SnapshotId"], "Size" in form) == (
        "us-east-1c",
        "snap-00000000000000001",
        False,
    )
    assert orc("volume", "create").exit_code == 2
    assert orc("volume", "create", "1", "--zone", "a", "--for", "web").exit_code == 2


def test_a_volume_that_cannot_be_made(orc: Orc, api: FakeApi) -> None:
    api.answer("CreateVolume", volume(state="creating"))
    api.answer("DescribeVolumes", found(volume(state="error")))
    result = orc("volume", "create", "8", "--zone", "a")
    assert (result.exit_code, "is in error" in result.stderr) == (1, True)
    assert api.forms("CreateVolume")[0]["AvailabilityZone"] == "us-east-1a"


@pytest.mark.parametrize(("given", "device"), [((), "/dev/sdh"), (("/dev/xvdba",), "/dev/xvdba")])
def test_attach(orc: Orc, api: FakeApi, given: tuple[str, ...], device: str) -> None:
    mapped = "".join(f"<item><deviceName>{name}</deviceName></item>" for name in ("/dev/sda1", "/dev/xvdf", "sdg"))
    api.instances(instance(name="web", more=f"<blockDeviceMapping>{mapped}</blockDeviceMapping>"))
    api.answer(
        "DescribeVolumes",
        found(volume()),
        found(volume(state="in-use", attached="attaching")),
        found(volume(state="in-use", attached="attached")),
    )
    api.answer("AttachVolume", "<status>attaching</status>")
    result = orc("volume", "attach", "data", "web", *given)
    assert (result.exit_code, result.stdout.strip()) == (0, device)
    (form,) = api.forms("AttachVolume")
    assert (form["VolumeId"], form["InstanceId"], form["Device"]) == (ONE, INSTANCE, device)
    assert len(api.forms("DescribeVolumes")) == 3


@pytest.mark.parametrize("force", [False, True])
def test_detach(orc: Orc, api: FakeApi, force: bool) -> None:
    api.answer(
        "DescribeVolumes",
        found(volume(state="in-use", attached="attached")),
        found(volume(state="in-use", attached="detaching")),
        found(volume()),
    )
    api.answer("DetachVolume", "<status>detaching</status>")
    assert orc("volume", "detach", "data", *(["--force"] if force else [])).exit_code == 0
    assert api.forms("DetachVolume")[0].get("Force") == ("true" if force else None)
    assert len(api.forms("DescribeVolumes")) == 3


def test_modify(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeVolumes", found(volume()))
    api.answer("ModifyVolume", f"<volumeModification>{modification('modifying')}</volumeModification>")
    api.answer(
        "DescribeVolumesModifications",
        modifications(modification("modifying")),
        modifications(modification("optimizing", 10)),
    )
    result = orc("volume", "modify", "data", "--size", "20", "--type", "gp2")
    assert (result.exit_code, result.stdout.startswith("optimizing 10%, size 8 -> 20")) == (0, True)
    (form,) = api.forms("ModifyVolume")
    assert (form["Size"], form["VolumeType"], "Iops" in form) == ("20", "gp2", False)
    assert orc("volume", "modify", "data").exit_code == 2
    api.answer("DescribeVolumesModifications", modifications(modification("failed", 0, "no space")))
    result = orc("volume", "modify", "data", "--size", "20")
    assert (result.exit_code, "no space" in result.stderr) == (1, True)


def test_rm(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeVolumes", found(volume()), found(volume(TWO)))
    api.answer("DeleteVolume", "<return>true</return>")
    assert orc("volume", "rm", ONE, TWO).exit_code == 0
    assert [form["VolumeId"] for form in api.forms("DeleteVolume")] == [ONE, TWO]
    api.refuse("DeleteVolume", "VolumeInUse", "it is attached")
    api.answer("DescribeVolumes", found(volume()), found(volume(TWO)))
    result = orc("volume", "rm", ONE, TWO)
    assert (result.exit_code, result.stderr.count("VolumeInUse")) == (1, 2)

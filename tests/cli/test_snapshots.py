"""`orc snapshot`: what it asks of the API, and what it prints."""

from __future__ import annotations

from tests.cli.conftest import INSTANCE, FakeApi, Orc, instance

ONE = "snap-00000000000000001"
TWO = "snap-00000000000000002"
VOLUME = "vol-00000000000000001"


def snapshot(snapshot_id: str = ONE, *, state: str = "completed", progress: str = "100%", more: str = "") -> str:
    return (
        f"<snapshotId>{snapshot_id}</snapshotId><volumeId>{VOLUME}</volumeId><status>{state}</status>"
        f"<progress>{progress}</progress><volumeSize>8</volumeSize><startTime>2026-01-02T03:04:05.000Z</startTime>{more}"
    )


def found(*snapshots: str) -> str:
    return f"<snapshotSet>{''.join(f'<item>{one}</item>' for one in snapshots)}</snapshotSet>"


def details(*pairs: tuple[str, str]) -> dict[str, object]:
    return {"Snapshots": [{"SnapshotId": one, "Consistency": word, "FastRestoreZones": []} for one, word in pairs]}


def test_ls_tells_how_each_was_taken(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeSnapshots", found(snapshot(), snapshot(TWO, state="pending", progress="0%")))
    api.answer("DescribeSnapshotDetails", details((TWO, ""), (ONE, "frozen")))
    lines = orc("snapshot", "ls").stdout.splitlines()
    assert lines[0].split() == ["NAME", "ID", "STATE", "DONE", "GIB", "VOLUME", "CONTENT", "AGE"]
    assert lines[1].split()[:7] == ["-", ONE, "completed", "100%", "8", VOLUME, "frozen"]
    assert lines[2].split()[:7] == ["-", TWO, "pending", "0%", "8", VOLUME, "-"]
    assert api.forms("DescribeSnapshots")[0]["Owner.1"] == "self"


def test_ls_of_nothing(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeSnapshots", found())
    assert "no snapshots" in orc("snapshot", "ls").stderr


def test_show(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeSnapshots", found(snapshot(more="<description>nightly</description>")))
    api.answer("DescribeSnapshotDetails", details((ONE, "crash")))
    shown = dict(line.split(maxsplit=1) for line in orc("snapshot", "show", ONE).stdout.splitlines())
    assert (shown["id"], shown["content"], shown["description"]) == (ONE, "crash", "nightly")


def test_create_of_a_volume_waits(orc: Orc, api: FakeApi) -> None:
    api.answer("CreateSnapshot", snapshot(state="pending", progress="0%"))
    api.answer("DescribeSnapshots", found(snapshot(state="pending", progress="0%")), found(snapshot()))
    made = orc("snapshot", "create", VOLUME, "--name", "before", "--tag", "stage=test", "--description", "why")
    assert made.stdout == f"{ONE}\n"
    [form] = api.forms("CreateSnapshot")
    assert (form["VolumeId"], form["Description"]) == (VOLUME, "why")
    assert form["TagSpecification.1.Tag.1.Value"] == "before"
    assert form["TagSpecification.1.Tag.2.Key"] == "stage"
    assert len(api.forms("DescribeSnapshots")) == 2


def test_create_of_an_instance(orc: Orc, api: FakeApi) -> None:
    api.instances(instance(name="web"))
    api.answer("CreateSnapshots", found(snapshot(), snapshot(TWO)))
    made = orc("snapshot", "create", "web", "--data-only", "--no-wait")
    assert made.stdout == f"{ONE}\n{TWO}\n"
    [form] = api.forms("CreateSnapshots")
    assert form["InstanceSpecification.InstanceId"] == INSTANCE
    assert form["InstanceSpecification.ExcludeBootVolume"] == "true"
    assert orc("snapshot", "create", VOLUME, "--data-only").exit_code == 2


def test_create_of_a_volume_by_its_name(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeInstances", "<reservationSet/>")
    data = f"<item><volumeId>{VOLUME}</volumeId></item>"
    api.answer("DescribeVolumes", f"<volumeSet>{data}</volumeSet>", "<volumeSet/>")
    api.answer("CreateSnapshot", snapshot())
    api.answer("DescribeSnapshots", found(snapshot()))
    assert orc("snapshot", "create", "data").exit_code == 0
    assert api.forms("CreateSnapshot")[0]["VolumeId"] == VOLUME
    none = orc("snapshot", "create", "nothing")
    assert none.exit_code == 3 and "no instance and no volume 'nothing'" in none.stderr


def test_one_that_fails_says_why(orc: Orc, api: FakeApi) -> None:
    api.answer("CreateSnapshot", snapshot(state="pending"))
    api.answer("DescribeSnapshots", found(snapshot(state="error", more="<statusMessage>no space</statusMessage>")))
    failed = orc("snapshot", "create", VOLUME)
    assert failed.exit_code == 1 and "no space" in failed.stderr


def test_copy(orc: Orc, api: FakeApi) -> None:
    api.answer("CopySnapshot", f"<snapshotId>{TWO}</snapshotId>")
    copied = orc("snapshot", "copy", ONE, "--from", "us-west-2", "--key", "alias/mine", "--no-wait")
    assert copied.stdout == f"{TWO}\n"
    [form] = api.forms("CopySnapshot")
    assert (form["SourceRegion"], form["SourceSnapshotId"], form["KmsKeyId"]) == ("us-west-2", ONE, "alias/mine")
    assert form["Encrypted"] == "true"
    assert orc("snapshot", "copy", "nightly", "--from", "us-west-2").exit_code == 2


def test_rm_by_name_is_the_newest(orc: Orc, api: FakeApi) -> None:
    newer = snapshot(TWO).replace("2026-01-02", "2026-01-03")
    api.answer("DescribeSnapshots", found(newer, snapshot()), found())
    api.answer("DeleteSnapshot", "<return>true</return>")
    assert orc("snapshot", "rm", "nightly").stdout == f"removed {TWO}\n"
    assert api.forms("DescribeSnapshots")[0]["Filter.1.Value.1"] == "nightly"
    assert orc("snapshot", "rm", "weekly").exit_code == 3


def test_the_bin(orc: Orc, api: FakeApi) -> None:
    until = "<recycleBinExitTime>2026-02-02T03:04:05.000Z</recycleBinExitTime>"
    api.answer(
        "ListSnapshotsInRecycleBin", f"<snapshotSet><item><snapshotId>{ONE}</snapshotId>{until}</item></snapshotSet>"
    )
    image = f"<item><imageId>ami-00000000000000001</imageId><name>web</name>{until}</item>"
    api.answer("ListImagesInRecycleBin", f"<imageSet>{image}</imageSet>")
    lines = orc("snapshot", "bin", "ls").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[ONE, "-"], ["ami-00000000000000001", "web"]]
    api.answer("RestoreSnapshotFromRecycleBin", f"<snapshotId>{ONE}</snapshotId>")
    api.answer("RestoreImageFromRecycleBin", "<return>true</return>")
    restored = orc("snapshot", "bin", "restore", ONE, "ami-00000000000000001").stdout
    assert restored == f"restored {ONE}\nrestored ami-00000000000000001\n"


def test_rules(orc: Orc, api: FakeApi) -> None:
    rule = {
        "RuleId": "rule-00000000000000001",
        "ResourceType": "EC2_IMAGE",
        "RetentionDays": 30,
        "ResourceTags": [{"Key": "stage", "Value": "production"}],
    }
    api.answer("CreateRetentionRule", {"RetentionRule": rule})
    made = orc("snapshot", "bin", "keep", "images", "30", "--tag", "stage=production")
    assert made.stdout == "rule-00000000000000001\n"
    [sent] = api.documents("CreateRetentionRule")
    assert (sent["ResourceType"], sent["RetentionDays"]) == ("EC2_IMAGE", 30)
    assert sent["ResourceTags"] == [{"Key": "stage", "Value": "production"}]
    api.answer("DescribeRetentionRules", {"RetentionRules": [rule]})
    shown = orc("snapshot", "bin", "rules").stdout.splitlines()[1].split()
    assert shown == ["rule-00000000000000001", "images", "30", "stage=production", "-"]
    api.answer("DeleteRetentionRule", {})
    assert orc("snapshot", "bin", "forget", "rule-00000000000000001").exit_code == 0
    assert orc("snapshot", "bin", "keep", "images", "400").exit_code == 2

"""ImportImage, ImportSnapshot, ExportImage: what is taken, what is refused, and how tasks are shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model.errors import EC2Error
from orchestrator.model.image import BlockDevice, ExportTask, Image, ImportTask
from orchestrator.model.kms import Key
from orchestrator.model.snapshot import Snapshot
from tests.api.ec2.conftest import ACCOUNT, KEYS, Api

UPLOAD = "upload-0123456789abcdef0"
DISK = {"Format": "vmdk", "Url": f"upload://{UPLOAD}", "Description": "root"}


def import_image(api: Api, **params: Any) -> dict[str, Any]:
    return api.call("ImportImage", **{"DiskContainers": [DISK], **params})


def import_snapshot(api: Api, **params: Any) -> dict[str, Any]:
    return api.call("ImportSnapshot", **{"DiskContainer": DISK, **params})


def woken(api: Api) -> list[tuple[str, str]]:
    return [(kind, row_id) for kind, row_id, _ in api.store.pending_wakes()]


# --- imports ----------------------------------------------------------------------------------------------------------


def test_an_import_begins_as_an_active_task(api: Api) -> None:
    answer = import_image(api, Description="my machine", Platform="Linux", BootMode="uefi", RoleName="vmimport")
    task = api.get(ImportTask, answer["ImportTaskId"])
    assert task.id.startswith("import-ami-")
    assert (task.what, task.file_format, task.upload_id, task.boot_mode) == ("image", "vmdk", UPLOAD, "uefi")
    assert answer == {
        "ImportTaskId": task.id,
        "Architecture": "x86_64",
        "Description": "my machine",
        "Encrypted": False,
        "Hypervisor": "xen",
        "Platform": "Linux",
        "Progress": "0",
        "Status": "active",
        "StatusMessage": "pending",
        "SnapshotDetails": [{"Description": "root", "Format": "VMDK", "Status": "active", "Url": DISK["Url"]}],
        "Tags": [],
    }
    assert ("import-task", task.id) in woken(api)


def test_a_snapshot_import_begins_likewise(api: Api) -> None:
    answer = import_snapshot(api, Description="data")
    task = api.get(ImportTask, answer["ImportTaskId"])
    assert task.id.startswith("import-snap-")
    assert task.what == "snapshot"
    detail = answer["SnapshotTaskDetail"]
    assert (detail["Status"], detail["Progress"], detail["StatusMessage"]) == ("active", "0", "pending")
    assert (detail["Format"], detail["Url"], detail["Encrypted"]) == ("VMDK", DISK["Url"], False)
    assert ("import-task", task.id) in woken(api)


@pytest.mark.parametrize("file_format", ["ova", "VHD", "vhdx", "VMDK", "raw", "qcow2"])
def test_each_format_is_taken_in_either_case(api: Api, file_format: str) -> None:
    answer = import_image(api, DiskContainers=[{**DISK, "Format": file_format}])
    assert api.get(ImportTask, answer["ImportTaskId"]).file_format == file_format.lower()


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no disk": ({"DiskContainers": []}, "MissingParameter", "DiskContainers"),
    "two disks": ({"DiskContainers": [DISK, DISK]}, "UnsupportedOperation", "one disk"),
    "a snapshot": ({"DiskContainers": [{"SnapshotId": "snap-1"}]}, "UnsupportedOperation", "RegisterImage"),
    "no url": ({"DiskContainers": [{"Format": "raw"}]}, "MissingParameter", "Url"),
    "no format": ({"DiskContainers": [{"Url": DISK["Url"]}]}, "MissingParameter", "Format"),
    "another format": ({"DiskContainers": [{**DISK, "Format": "iso"}]}, "InvalidParameterValue", "OVA, VHD"),
    "a bucket": (
        {"DiskContainers": [{"Format": "raw", "UserBucket": {"S3Bucket": "b", "S3Key": "k"}}]},
        "UnsupportedOperation",
        "no buckets",
    ),
    "a bucket's url": ({"DiskContainers": [{**DISK, "Url": "s3://b/k"}]}, "UnsupportedOperation", "s3://"),
    "a page": ({"DiskContainers": [{**DISK, "Url": "https://example.com/k"}]}, "UnsupportedOperation", "https://"),
    "another url": ({"DiskContainers": [{**DISK, "Url": "ftp://x/y"}]}, "InvalidParameterValue", "upload://"),
    "no url at all": ({"DiskContainers": [{**DISK, "Url": "disk.vmdk"}]}, "InvalidParameterValue", "upload://"),
    "a broken url": ({"DiskContainers": [{**DISK, "Url": "upload://[x"}]}, "InvalidParameterValue", "Url"),
    "an upload that is none": (
        {"DiskContainers": [{**DISK, "Url": "upload://../../etc"}]},
        "InvalidParameterValue",
        "upload://",
    ),
    "an upload of another name": (
        {"DiskContainers": [{**DISK, "Url": "upload://upload-x"}]},
        "InvalidUploadId.Malformed",
        "upload-x",
    ),
    "files are not taken": (
        {"DiskContainers": [{**DISK, "Url": "file:///srv/x"}]},
        "UnsupportedOperation",
        "import_dir",
    ),
    "a device": ({"DiskContainers": [{**DISK, "DeviceName": "../x"}]}, "InvalidParameterValue", "DeviceName"),
    "an architecture": ({"Architecture": "riscv"}, "InvalidParameterValue", "i386, x86_64, arm64"),
    "a boot mode": ({"BootMode": "uefi-preferred"}, "InvalidParameterValue", "legacy-bios, uefi"),
    "a hypervisor": ({"Hypervisor": "kvm"}, "InvalidParameterValue", "xen"),
    "a platform": ({"Platform": "BeOS"}, "InvalidParameterValue", "Linux, Windows"),
    "a license": ({"LicenseType": "MIT"}, "InvalidParameterValue", "AWS, BYOL"),
    "a usage": ({"UsageOperation": "x"}, "InvalidParameterValue", "RunInstances"),
    "a key without encryption": ({"KmsKeyId": "alias/aws/ebs"}, "InvalidParameterDependency", "Encrypted"),
    "a key that is not there": ({"KmsKeyId": "alias/x", "Encrypted": True}, "InvalidKmsKeyId.NotFound", "alias/x"),
    "tags of something else": (
        {"TagSpecifications": [{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}]},
        "InvalidParameterValue",
        "import-image-task",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_imported_is_refused(api: Api, name: str) -> None:
    params, code, words = REFUSED[name]
    error = api.refused("ImportImage", **{"DiskContainers": [DISK], **params})
    assert error.code == code
    assert words in error.message


def test_an_archive_is_no_snapshot(api: Api) -> None:
    error = api.refused("ImportSnapshot", DiskContainer={**DISK, "Format": "ova"})
    assert (error.code, "VHD, VHDX" in error.message) == ("InvalidParameterValue", True)
    assert api.refused("ImportSnapshot").code == "MissingParameter"


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("/srv/import/disk.vmdk", True),
        ("/srv/import/a/b/my%20disk.vmdk", True),
        ("/srv/import", False),
        ("/srv/import/", False),
        ("/srv/import/../secret", False),
        ("/srv/import/a/%2e%2e/%2e%2e/secret", False),
        ("/srv/import/a%00b", False),
        ("/srv/imported/disk", False),
        ("/etc/shadow", False),
        ("relative", False),
    ],
)
def test_a_file_of_the_hosts_lies_below_the_folder_for_that(api: Api, path: str, taken: bool) -> None:
    api.configure(import_dir="/srv/import")
    disk = {"Format": "vmdk", "Url": f"file://{path}"}
    if taken:
        answer = api.call("ImportSnapshot", DiskContainer=disk)
        task = api.get(ImportTask, answer["ImportTaskId"])
        assert task.url == disk["Url"]
        assert task.upload_id.startswith("upload-"), "its copy"
    else:
        assert api.refused("ImportSnapshot", DiskContainer=disk).code == "InvalidParameterValue"


def test_an_encrypted_import_has_a_data_key_of_its_own(api: Api) -> None:
    answer = import_image(api, Encrypted=True)
    task = api.get(ImportTask, answer["ImportTaskId"])
    key = api.get(Key, task.key_id)
    assert (answer["Encrypted"], answer["KmsKeyId"]) == (True, key.arn)
    assert len(KEYS.unwrap(key, task.data_key)) == 32
    other = import_snapshot(api, Encrypted=True, KmsKeyId=key.id)
    assert other["SnapshotTaskDetail"]["KmsKeyId"] == key.arn
    assert api.get(ImportTask, other["ImportTaskId"]).data_key != task.data_key


def test_tasks_have_tags_from_the_start(api: Api) -> None:
    tags = [{"Key": "Name", "Value": "mine"}]
    image = import_image(api, TagSpecifications=[{"ResourceType": "import-image-task", "Tags": tags}])
    snapshot = import_snapshot(api, TagSpecifications=[{"ResourceType": "import-snapshot-task", "Tags": tags}])
    assert image["Tags"] == snapshot["Tags"] == tags
    found = api.call("DescribeImportImageTasks", Filters=[{"Name": "tag:Name", "Values": ["mine"]}])
    assert [task["ImportTaskId"] for task in found["ImportImageTasks"]] == [image["ImportTaskId"]]
    api.call("CreateTags", Resources=[image["ImportTaskId"]], Tags=[{"Key": "more", "Value": "x"}])
    types = {tag["ResourceId"]: tag["ResourceType"] for tag in api.call("DescribeTags")["Tags"]}
    assert types == {
        image["ImportTaskId"]: "import-image-task",
        snapshot["ImportTaskId"]: "import-snapshot-task",
    }


def test_a_client_token_gives_one_task(api: Api) -> None:
    first, second = (import_image(api, ClientToken="once") for _ in range(2))
    assert first == second
    assert len(api.store.all(ImportTask)) == 1


def test_a_dry_run_begins_nothing(api: Api) -> None:
    assert api.refused("ImportImage", DiskContainers=[DISK], DryRun=True).code == "DryRunOperation"
    assert api.store.all(ImportTask) == []


def test_only_so_many_are_active_at_once(api: Api) -> None:
    for _ in range(20):
        import_snapshot(api)
    assert api.refused("ImportSnapshot", DiskContainer=DISK).code == "ResourceCountLimitExceeded"
    task = api.store.all(ImportTask)[0]
    api.change(task, state="completed")
    import_snapshot(api)


def test_tasks_are_shown_as_they_go_on(api: Api) -> None:
    task = api.get(ImportTask, import_image(api)["ImportTaskId"])
    api.change(task, phase="converting", progress_percent=37)
    [shown] = api.call("DescribeImportImageTasks", ImportTaskIds=[task.id])["ImportImageTasks"]
    assert (shown["Status"], shown["StatusMessage"], shown["Progress"]) == ("active", "converting", "37")
    api.change(
        task, state="completed", snapshot_id="snap-1", image_id="ami-1", size_bytes=3 << 20, boot_mode="legacy-bios"
    )
    [shown] = api.call("DescribeImportImageTasks")["ImportImageTasks"]
    assert (shown["Status"], shown["ImageId"], shown["BootMode"]) == ("completed", "ami-1", "legacy-bios")
    assert "Progress" not in shown
    assert shown["SnapshotDetails"][0]["SnapshotId"] == "snap-1"
    assert shown["SnapshotDetails"][0]["DiskImageSize"] == float(3 << 20)
    api.change(task, state="deleted", message="ClientError: it is empty")
    [shown] = api.call("DescribeImportImageTasks")["ImportImageTasks"]
    assert (shown["Status"], shown["StatusMessage"]) == ("deleted", "ClientError: it is empty")


def test_a_snapshot_import_that_is_done_says_so_to_a_waiter(api: Api) -> None:
    """botocore's SnapshotImported reads SnapshotTaskDetail.Status; Terraform the snapshot's id beside it."""
    task = api.get(ImportTask, import_snapshot(api)["ImportTaskId"])
    api.change(task, state="completed", snapshot_id="snap-1")
    [shown] = api.call("DescribeImportSnapshotTasks", ImportTaskIds=[task.id])["ImportSnapshotTasks"]
    assert shown["SnapshotTaskDetail"]["Status"] == "completed"
    assert shown["SnapshotTaskDetail"]["SnapshotId"] == "snap-1"


def test_tasks_are_found_by_kind_id_state_and_page(api: Api) -> None:
    images = [import_image(api)["ImportTaskId"] for _ in range(3)]
    snapshot = import_snapshot(api)["ImportTaskId"]
    api.change(api.get(ImportTask, images[0]), state="deleted")
    found = api.call("DescribeImportImageTasks", Filters=[{"Name": "task-state", "Values": ["active"]}])
    assert {task["ImportTaskId"] for task in found["ImportImageTasks"]} == set(images[1:])
    page = api.call("DescribeImportImageTasks", MaxResults=2)
    rest = api.call("DescribeImportImageTasks", MaxResults=2, NextToken=page["NextToken"])
    assert "NextToken" not in rest
    assert {t["ImportTaskId"] for t in page["ImportImageTasks"] + rest["ImportImageTasks"]} == set(images)
    [only] = api.call("DescribeImportSnapshotTasks")["ImportSnapshotTasks"]
    assert only["ImportTaskId"] == snapshot
    for action, ids, code in (
        ("DescribeImportImageTasks", [snapshot], "InvalidConversionTaskId.Malformed"),
        ("DescribeImportSnapshotTasks", ["import-snap-0123456789abcdef0"], "InvalidConversionTaskId.NotFound"),
    ):
        with pytest.raises(EC2Error) as caught:
            api.call(action, ImportTaskIds=ids)
        assert caught.value.code == code
    with pytest.raises(EC2Error, match=r"Filter\.Name"):
        api.call("DescribeImportImageTasks", Filters=[{"Name": "colour", "Values": ["x"]}])


def test_tasks_are_their_accounts_and_regions(api: Api) -> None:
    task_id = import_image(api)["ImportTaskId"]
    for other in (api.by(), api.within("us-west-2")):
        assert other.call("DescribeImportImageTasks")["ImportImageTasks"] == []
        assert other.refused("CancelImportTask", ImportTaskId=task_id).code == "InvalidConversionTaskId.NotFound"


def test_an_active_import_can_be_cancelled(api: Api) -> None:
    for task_id in (import_image(api)["ImportTaskId"], import_snapshot(api)["ImportTaskId"]):
        answer = api.call("CancelImportTask", ImportTaskId=task_id, CancelReason="no longer wanted")
        assert answer == {"ImportTaskId": task_id, "PreviousState": "active", "State": "deleting"}
        task = api.get(ImportTask, task_id)
        assert (task.state, task.message) == ("deleting", "cancelled: no longer wanted")
        again = api.call("CancelImportTask", ImportTaskId=task_id)
        assert (again["PreviousState"], again["State"]) == ("deleting", "deleting")
        api.change(task, state="completed")
        assert api.refused("CancelImportTask", ImportTaskId=task_id).code == "IncorrectState"
    assert api.refused("CancelImportTask").code == "MissingParameter"
    assert api.refused("CancelImportTask", ImportTaskId="i-1").code == "InvalidConversionTaskId.Malformed"


# --- exports ----------------------------------------------------------------------------------------------------------


def export(api: Api, image: Image, **params: Any) -> dict[str, Any]:
    return api.call("ExportImage", **_export(image, **params))


def _export(image: Image, **params: Any) -> dict[str, Any]:
    return {
        "ImageId": image.id,
        "DiskImageFormat": "VMDK",
        "S3ExportLocation": {"S3Bucket": "my-exports", "S3Prefix": "machines/"},
        **params,
    }


@pytest.fixture
def image(api: Api) -> Image:
    return api.make_image("mine", account=ACCOUNT, region="us-east-1", public=False)


def test_an_export_begins_as_an_active_task(api: Api, image: Image) -> None:
    answer = export(api, image, Description="a copy", RoleName="vmimport")
    task = api.get(ExportTask, answer["ExportImageTaskId"])
    assert answer == {
        "ExportImageTaskId": task.id,
        "ImageId": image.id,
        "Description": "a copy",
        "DiskImageFormat": "VMDK",
        "RoleName": "vmimport",
        "S3ExportLocation": {"S3Bucket": "my-exports", "S3Prefix": "machines/"},
        "Status": "active",
        "StatusMessage": "pending",
        "Progress": "0",
        "Tags": [],
    }
    [device] = image.block_devices
    assert task.layer_id == api.get(Snapshot, device.snapshot_id).layer_id
    assert ("export-task", task.id) in woken(api)


EXPORTS_REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an image that is not there": ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
    "an id that is none": ({"ImageId": "ami-x"}, "InvalidAMIID.Malformed"),
    "a format": ({"DiskImageFormat": "QCOW2"}, "InvalidParameterValue"),
    "a bucket upwards": ({"S3ExportLocation": {"S3Bucket": "../etc"}}, "InvalidParameterValue"),
    "a bucket of dots": ({"S3ExportLocation": {"S3Bucket": "a..b"}}, "InvalidParameterValue"),
    "an absolute bucket": ({"S3ExportLocation": {"S3Bucket": "/etc"}}, "InvalidParameterValue"),
    "no bucket": ({"S3ExportLocation": {"S3Bucket": ""}}, "InvalidParameterValue"),
    **{
        f"the prefix {prefix!r}": (
            {"S3ExportLocation": {"S3Bucket": "my-exports", "S3Prefix": prefix}},
            "InvalidParameterValue",
        )
        for prefix in ("../", "a/../../b", "/etc", "a//b", "./a", ".hidden/", "a\nb", "a\0b", "x" * 501, "a\\b", "/")
    },
}


@pytest.mark.parametrize("name", EXPORTS_REFUSED)
def test_what_cannot_be_exported_is_refused(api: Api, image: Image, name: str) -> None:
    params, code = EXPORTS_REFUSED[name]
    assert api.refused("ExportImage", **_export(image, **params)).code == code
    assert api.store.all(ExportTask) == []


@pytest.mark.parametrize("prefix", ["", "a", "a/b/c-", "a_b.c/", "2026/11/21/vm.'(x)!*"])
def test_prefixes_of_plain_names_are_taken(api: Api, image: Image, prefix: str) -> None:
    location = {"S3Bucket": "my-exports"} | ({"S3Prefix": prefix} if prefix else {})
    answer = export(api, image, S3ExportLocation=location)
    assert api.get(ExportTask, answer["ExportImageTaskId"]).prefix == prefix


def test_what_is_encrypted_is_not_exported(api: Api, image: Image) -> None:
    """As on EC2: the file would be plain. Not even when it is a disk besides the root."""
    [device] = image.block_devices
    secret = Snapshot(
        id="snap-0123456789abcdef0",
        account=ACCOUNT,
        region="us-east-1",
        created=api.now,
        layer_id="layer-1",
        size_gib=1,
        key_id="key-1",
    )
    api.put(secret)
    api.change(image, block_devices=(device, BlockDevice(device="/dev/xvdb", snapshot_id=secret.id, size_gib=1)))
    error = api.refused("ExportImage", **_export(image))
    assert (error.code, "encrypted" in error.message) == ("UnsupportedOperation", True)


def test_only_ones_own_images_that_are_there_are_exported(api: Api, image: Image) -> None:
    api.change(image, public=True)
    assert api.by().refused("ExportImage", **_export(image)).code == "AuthFailure"
    api.change(image, state="disabled")
    assert api.refused("ExportImage", **_export(image)).code == "InvalidAMIID.Unavailable"
    api.change(image, state="available", block_devices=())
    assert api.refused("ExportImage", **_export(image)).code == "InvalidSnapshot.NotFound"


def test_exports_are_shown_found_and_cancelled(api: Api, image: Image) -> None:
    tags = [{"Key": "Name", "Value": "mine"}]
    specification = [{"ResourceType": "export-image-task", "Tags": tags}]
    first = api.get(ExportTask, export(api, image, TagSpecifications=specification)["ExportImageTaskId"])
    second = api.get(ExportTask, export(api, image)["ExportImageTaskId"])
    api.change(first, state="completed", message="/var/lib/exports/x.vmdk, 5 bytes", file="/var/lib/exports/x.vmdk")
    api.change(second, phase="converting", progress_percent=12)
    found = api.call("DescribeExportImageTasks", ExportImageTaskIds=[first.id, second.id])["ExportImageTasks"]
    shown = {task["ExportImageTaskId"]: task for task in found}
    assert shown[first.id]["StatusMessage"] == "/var/lib/exports/x.vmdk, 5 bytes"
    assert shown[first.id]["Tags"] == tags
    assert (shown[second.id]["Status"], shown[second.id]["Progress"]) == ("active", "12")
    active = api.call("DescribeExportImageTasks", Filters=[{"Name": "task-state", "Values": ["active"]}])
    assert [task["ExportImageTaskId"] for task in active["ExportImageTasks"]] == [second.id]
    api.call("CancelExportTask", ExportTaskId=second.id)
    assert replace(api.get(ExportTask, second.id), revision=0).state == "deleting"
    api.call("CancelExportTask", ExportTaskId=second.id)
    assert api.refused("CancelExportTask", ExportTaskId=first.id).code == "IncorrectState"
    assert api.refused("CancelExportTask", ExportTaskId="x").code == "InvalidExportTaskId.Malformed"
    assert api.by().refused("CancelExportTask", ExportTaskId=second.id).code == "InvalidExportTaskId.NotFound"

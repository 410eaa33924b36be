"""Imports and exports: a file becomes an image or a snapshot, an image becomes a file.

    active --> completed          the image, the snapshot or the file is there
       |
       +--> deleting --> deleted  cancelled or failed: the status message says why, and nothing is left

Where files come from is in `model/import_source.py`. An exported file lies below STATE_DIR/exports, in folders named
after the bucket and prefix that EC2's API asks for. As on EC2, what is encrypted is not exported.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, TypeVar

from orchestrator.api.ec2.encryption import choose_key
from orchestrator.api.ec2.images import find_image
from orchestrator.api.ec2.snapshots import serves_image
from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of, unsupported
from orchestrator.model.filters import FilterTable
from orchestrator.model.image import ExportTask, Image, ImportTask
from orchestrator.model.import_source import read_source
from orchestrator.model.kms import Key, KeyUnavailable
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.tags import tag_set, tags_at_creation

SNAPSHOT_FORMATS: Final = ("vhd", "vhdx", "vmdk", "raw", "qcow2")
IMAGE_FORMATS: Final = ("ova", *SNAPSHOT_FORMATS)
MOST_ACTIVE: Final = 20  # tasks of an account in a region at once, as on EC2

Task = TypeVar("Task", ImportTask, ExportTask)

_BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]", re.ASCII)
_PREFIX_PART = re.compile(r"[A-Za-z0-9!_'()*-][A-Za-z0-9!_.'()*-]{0,99}", re.ASCII)
_DEVICE = re.compile(r"/dev/[a-z][a-z0-9]{1,14}", re.ASCII)


# --- imports ----------------------------------------------------------------------------------------------------------


@operation("ImportImage", writes=True)
def import_image(
    call: Call,
    *,
    architecture: str | None = None,
    boot_mode: str | None = None,
    client_data: Answer | None = None,
    description: str | None = None,
    disk_containers: list[Answer] | None = None,
    encrypted: bool | None = None,
    hypervisor: str | None = None,
    kms_key_id: str | None = None,
    license_type: str | None = None,
    platform: str | None = None,
    role_name: str | None = None,
    tag_specifications: list[Answer] | None = None,
    usage_operation: str | None = None,
) -> Answer:
    """Client data and role are for EC2's own way to its buckets."""
    if not disk_containers:
        raise missing_parameter("DiskContainers")
    if len(disk_containers) > 1:
        raise unsupported("An import takes one disk here: import the others as snapshots, and register an image of all")
    [container] = disk_containers
    if container.get("SnapshotId"):
        raise unsupported("An import takes a file: of a snapshot, RegisterImage makes an image")
    device = container.get("DeviceName") or ""
    if device and not _DEVICE.fullmatch(device):
        raise invalid_parameter("DeviceName", device, "a device such as /dev/sda1 or /dev/xvda")
    one_of("Hypervisor", hypervisor or "xen", ("xen",))
    if boot_mode:
        one_of("BootMode", boot_mode, ("legacy-bios", "uefi"))
    if license_type:
        one_of("LicenseType", license_type, ("AWS", "BYOL"))
    if usage_operation and not re.fullmatch(r"RunInstances(?::[0-9a-z]{4})?", usage_operation):
        raise invalid_parameter("UsageOperation", usage_operation, "RunInstances, or with a code as RunInstances:0002")
    task = _new_import(
        call,
        "image",
        container,
        IMAGE_FORMATS,
        encrypted=encrypted,
        kms_key_id=kms_key_id,
        description=description,
        tags=tags_at_creation(tag_specifications, "import-image-task")["import-image-task"],
    )
    task = replace(
        task,
        architecture=one_of("Architecture", architecture or "x86_64", ("i386", "x86_64", "arm64")),
        boot_mode=boot_mode or "",
        platform=one_of("Platform", platform or "Linux", ("Linux", "Windows")),
        device=device,
        license_type=license_type or "",
        usage_operation=usage_operation or "",
    )
    shown = _show_image_import(call, _begin(call, task))
    return {name: value for name, value in shown.items() if name != "BootMode"}


@operation("ImportSnapshot", writes=True)
def import_snapshot(
    call: Call,
    *,
    client_data: Answer | None = None,
    description: str | None = None,
    disk_container: Answer | None = None,
    encrypted: bool | None = None,
    kms_key_id: str | None = None,
    role_name: str | None = None,
    tag_specifications: list[Answer] | None = None,
) -> Answer:
    if not disk_container:
        raise missing_parameter("DiskContainer")
    task = _new_import(
        call,
        "snapshot",
        disk_container,
        SNAPSHOT_FORMATS,
        encrypted=encrypted,
        kms_key_id=kms_key_id,
        description=description,
        tags=tags_at_creation(tag_specifications, "import-snapshot-task")["import-snapshot-task"],
    )
    return _show_snapshot_import(call, _begin(call, task))


def _new_import(
    call: Call,
    what: str,
    container: Answer,
    formats: tuple[str, ...],
    *,
    encrypted: bool | None,
    kms_key_id: str | None,
    description: str | None,
    tags: dict[str, str],
) -> ImportTask:
    if container.get("UserBucket"):
        raise unsupported("An import reads no buckets here: name the file by Url, as upload://... or file:///...")
    url, stated = container.get("Url"), container.get("Format")
    if not url:
        raise missing_parameter("Url")
    if not stated:
        raise missing_parameter("Format")
    file_format = stated.lower()
    if file_format not in formats:
        raise invalid_parameter("Format", stated, f"one of {', '.join(each.upper() for each in formats)}")
    source = read_source(url, call.settings.import_dir)
    key = choose_key(call, encrypted=encrypted, named=kms_key_id)
    try:
        data_key = call.keys.new_data_key(key) if key else ""
    except KeyUnavailable as error:
        raise EC2Error("InvalidKmsKeyId.InvalidState", str(error)) from error
    return ImportTask(
        id=ids.mint("import-ami" if what == "image" else "import-snap"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags,
        what=what,
        description=description or "",
        disk_description=container.get("Description") or "",
        url=url,
        # A file of the host's is first copied to a place of ours, where nobody can change it any more.
        upload_id=source.upload_id or ids.mint("upload"),
        file_format=file_format,
        key_id=key.id if key else "",
        data_key=data_key,
        layer_id=ids.mint("layer"),
    )


def _begin(call: Call, task: Task) -> Task:
    active = [other for other in call.mine(type(task)) if other.state in ("active", "deleting")]
    if len(active) >= MOST_ACTIVE:
        raise EC2Error(
            "ResourceCountLimitExceeded", f"{len(active)} tasks are active in {call.region}, the most that are allowed"
        )
    kept = call.tx.put(task)
    call.tx.wake(kept)
    return kept


@operation("CancelImportTask", writes=True)
def cancel_import_task(call: Call, *, import_task_id: str | None = None, cancel_reason: str | None = None) -> Answer:
    if not import_task_id:
        raise missing_parameter("ImportTaskId")
    prefix = "import-snap" if import_task_id.startswith("import-snap") else "import-ami"
    task = call.find(ImportTask, prefix, import_task_id)
    if task.state == "completed":
        raise EC2Error("IncorrectState", f"The task '{task.id}' is completed: only an active one can be cancelled")
    if task.state == "active":
        message = f"cancelled: {cancel_reason}" if cancel_reason else "cancelled"
        call.tx.wake(call.tx.put(replace(task, state="deleting", message=message[:500])))
    return {
        "ImportTaskId": task.id,
        "PreviousState": task.state,
        "State": "deleting" if task.state == "active" else task.state,
    }


TASK_FILTERS: Final[FilterTable] = {"task-state": lambda task: task.state}


@operation("DescribeImportImageTasks", listing=True)
def describe_import_image_tasks(call: Call, *, import_task_ids: list[str] | None = None) -> Answer:
    found = _imports(call, "image", "import-ami", import_task_ids)
    return show_page(call, "ImportImageTasks", found, lambda task: _show_image_import(call, task), smallest=1)


@operation("DescribeImportSnapshotTasks", listing=True)
def describe_import_snapshot_tasks(call: Call, *, import_task_ids: list[str] | None = None) -> Answer:
    found = _imports(call, "snapshot", "import-snap", import_task_ids)
    return show_page(call, "ImportSnapshotTasks", found, lambda task: _show_snapshot_import(call, task), smallest=1)


def _imports(call: Call, what: str, prefix: str, task_ids: list[str] | None) -> list[ImportTask]:
    found = call.find_all(ImportTask, prefix, task_ids) if task_ids else call.mine(ImportTask)
    return choose(call, [task for task in found if task.what == what], TASK_FILTERS)


def _status(task: ImportTask | ExportTask) -> Answer:
    """A task that is at work says how far it is, one that has ended only why."""
    shown: Answer = {"Status": task.state}
    if task.state == "active":
        shown["Progress"] = str(task.progress_percent)
        shown["StatusMessage"] = task.phase
    elif task.message:
        shown["StatusMessage"] = task.message
    return shown


def _encryption(call: Call, task: ImportTask) -> Answer:
    key = call.db.get(Key, task.key_id)
    shown: Answer = {"Encrypted": bool(task.key_id)}
    return shown | ({"KmsKeyId": key.arn if key else task.key_id} if task.key_id else {})


def _disk(task: ImportTask) -> Answer:
    """`DiskImageSize` is in bytes, as EC2 answers it, whatever its model says."""
    optional = {
        "Description": task.disk_description,
        "SnapshotId": task.snapshot_id,
        "DiskImageSize": float(task.size_bytes),
    }
    shown: Answer = {"Format": task.file_format.upper(), "Url": task.url}
    return shown | {name: value for name, value in optional.items() if value}


def _show_image_import(call: Call, task: ImportTask) -> Answer:
    disk = _disk(task) | {"Status": task.state}
    if task.device:
        disk["DeviceName"] = task.device
    optional = {
        "ImageId": task.image_id,
        "LicenseType": task.license_type,
        "UsageOperation": task.usage_operation,
        "BootMode": task.boot_mode,
    }
    shown: Answer = {
        "ImportTaskId": task.id,
        "Architecture": task.architecture,
        "Description": task.description,
        "Hypervisor": "xen",
        "Platform": task.platform,
        "SnapshotDetails": [disk],
        "Tags": tag_set(task.tags),
    }
    given = {name: value for name, value in optional.items() if value}
    return shown | _status(task) | _encryption(call, task) | given


def _show_snapshot_import(call: Call, task: ImportTask) -> Answer:
    detail = _disk(task) | _status(task) | _encryption(call, task)
    return {
        "ImportTaskId": task.id,
        "Description": task.description,
        "SnapshotTaskDetail": detail,
        "Tags": tag_set(task.tags),
    }


# --- exports ----------------------------------------------------------------------------------------------------------


@operation("ExportImage", writes=True)
def export_image(
    call: Call,
    *,
    disk_image_format: str,
    image_id: str,
    s3_export_location: Answer,
    description: str | None = None,
    role_name: str | None = None,
    tag_specifications: list[Answer] | None = None,
) -> Answer:
    """The image's root disk."""
    image = find_image(call, image_id)
    if image.account != call.account:
        raise EC2Error("AuthFailure", f"Not authorized for images: [{image_id}]", 403)
    if image.state != "available":
        raise EC2Error("InvalidAMIID.Unavailable", f"The image '{image_id}' is {image.state}, not available")
    bucket, prefix = s3_export_location.get("S3Bucket") or "", s3_export_location.get("S3Prefix") or ""
    if not _BUCKET.fullmatch(bucket):
        raise invalid_parameter("S3Bucket", bucket, "3 to 63 lower case letters, digits, '-' and '.'")
    if prefix and not all(_PREFIX_PART.fullmatch(part) for part in prefix.removesuffix("/").split("/")):
        raise invalid_parameter(
            "S3Prefix", prefix, "names of letters, digits and -_.!'()*, with single slashes between"
        )
    if len(prefix) > 500:
        raise invalid_parameter("S3Prefix", f"{prefix[:20]}...", "at most 500 characters")
    task = ExportTask(
        id=ids.mint("export-ami"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags_at_creation(tag_specifications, "export-image-task")["export-image-task"],
        image_id=image_id,
        layer_id=_root_snapshot(call, image).layer_id,
        description=description or "",
        file_format=one_of("DiskImageFormat", disk_image_format, ("VMDK", "RAW", "VHD")).lower(),
        bucket=bucket,
        prefix=prefix,
        role=role_name or "",
    )
    shown = _show_export(_begin(call, task))
    optional = {"RoleName": task.role}
    return shown | {"DiskImageFormat": disk_image_format} | {name: text for name, text in optional.items() if text}


def _root_snapshot(call: Call, image: Image) -> Snapshot:
    """Of an image whose disks are not encrypted: an export is a plain file."""
    snapshots = {device.device: call.tx.get(Snapshot, device.snapshot_id) for device in image.block_devices}
    root = snapshots.get(image.root_device)
    if root is None or not serves_image(call, image, root):
        raise EC2Error("InvalidSnapshot.NotFound", f"The root device of '{image.id}' has no snapshot to export")
    if any(snapshot is not None and snapshot.encrypted for snapshot in snapshots.values()):
        raise unsupported(f"The image '{image.id}' has encrypted snapshots: it cannot be exported")
    return root


@operation("CancelExportTask", writes=True)
def cancel_export_task(call: Call, *, export_task_id: str) -> Answer:
    task = call.find(ExportTask, "export-ami", export_task_id)
    if task.state == "completed":
        raise EC2Error("IncorrectState", f"The task '{task.id}' is completed: only an active one can be cancelled")
    if task.state == "active":
        call.tx.wake(call.tx.put(replace(task, state="deleting", message="cancelled")))
    return {}


@operation("DescribeExportImageTasks", listing=True)
def describe_export_image_tasks(call: Call, *, export_image_task_ids: list[str] | None = None) -> Answer:
    wanted = export_image_task_ids
    found = call.find_all(ExportTask, "export-ami", wanted) if wanted else call.mine(ExportTask)
    return show_page(call, "ExportImageTasks", choose(call, found, TASK_FILTERS), _show_export, smallest=1)


def _show_export(task: ExportTask) -> Answer:
    location = {"S3Bucket": task.bucket} | ({"S3Prefix": task.prefix} if task.prefix else {})
    shown: Answer = {
        "ExportImageTaskId": task.id,
        "ImageId": task.image_id,
        "Description": task.description,
        "S3ExportLocation": location,
        "Tags": tag_set(task.tags),
    }
    return shown | _status(task)

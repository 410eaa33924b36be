"""Images: what instances are launched from, and what makes them.

pending --all its snapshots are completed--> available <--enable, disable--> disabled
   |                                             |
   +-- one of them failed --> failed             +-- deregister --> (none), or with a rule in the recycle bin
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from orchestrator.model.resource import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """One line of an image's block device mapping."""

    device: str  # /dev/xvda
    snapshot_id: str = ""  # empty: an empty volume, or an instance store disk
    virtual_name: str = ""  # ephemeral0: an instance store disk
    size_gib: int = 0
    volume_type: str = "gp3"
    delete_on_termination: bool = True
    encrypted: bool = False
    key_id: str = ""  # by which a volume is encrypted; empty: its snapshot's, or the default
    iops: int = 0  # 0: the type's default
    throughput_mib_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Resource):
    KIND: ClassVar[str] = "image"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "name", "snapshot_ids", "kernel_id", "state")

    name: str
    description: str = ""
    architecture: str = "x86_64"
    state: str = "available"  # pending | available | disabled | deregistered | failed
    state_code: str = ""  # StateReason
    state_message: str = ""
    public: bool = False
    shared_with: tuple[str, ...] = ()  # accounts that may launch it
    root_device: str = "/dev/xvda"
    block_devices: tuple[BlockDevice, ...] = ()
    login_user: str = "ec2-user"
    kernel_id: str = ""  # aki-...: the guest is started on this kernel, not by a boot loader on the disk
    ramdisk_id: str = ""
    kernel_arguments: str = ""
    boot_mode: str = ""  # legacy-bios | uefi | uefi-preferred; empty: the architecture's
    tpm_support: str = ""  # v2.0
    ena_support: bool = True  # as it was registered: guests have virtio either way
    imds_v2_required: bool = False
    platform_details: str = "Linux/UNIX"
    source_instance_id: str = ""
    source_image_id: str = ""
    source_region: str = ""
    deprecate_at: datetime | None = None
    protected: str = ""  # against being deregistered: enabled-with-cooldown | enabled-without-cooldown
    protected_until: datetime | None = None  # protection was taken off, and its cooldown lasts
    last_launched_at: datetime | None = None
    recycled_at: datetime | None = None  # in the recycle bin since
    recycled_until: datetime | None = None

    @property
    def snapshot_ids(self) -> tuple[str, ...]:
        return tuple(device.snapshot_id for device in self.block_devices if device.snapshot_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAlias(Resource):
    """An AMI id of somebody's AWS code, which means the newest image of this name here, in every region."""

    KIND: ClassVar[str] = "image-alias"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "name")

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Build(Resource):
    """A recipe being made into an image, or a file being imported as one."""

    KIND: ClassVar[str] = "build"

    name: str
    source: str = "recipe"  # recipe | upload
    upload_id: str = ""
    file_format: str = ""
    login_user: str = ""
    state: str = "pending"  # pending | running | available | failed
    phase: str = ""
    message: str = ""
    image_id: str = ""
    finished: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportTask(Resource):
    """ImportImage or ImportSnapshot: an untrusted file becomes an image, or a snapshot.

    active --> completed | deleting --> deleted: it was cancelled or failed, the message says why, nothing is left
    """

    KIND: ClassVar[str] = "import-task"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "state", "layer_id")

    what: str  # image | snapshot
    description: str = ""
    url: str = ""  # as the caller gave it
    upload_id: str = ""  # the file that it names, as the storage keeps it
    file_format: str
    key_id: str = ""
    data_key: str = ""  # of the layer: wrapped, base64
    layer_id: str  # what it is read into; it has a row once it is whole
    state: str = "active"  # active | deleting | deleted | completed
    phase: str = "pending"
    message: str = ""
    progress_percent: int = 0
    image_id: str = ""
    snapshot_id: str = ""
    size_bytes: int = 0
    boot_mode: str = ""
    platform: str = "Linux"
    architecture: str = "x86_64"
    device: str = ""  # in the image; empty: as root devices are called
    disk_description: str = ""
    license_type: str = ""
    usage_operation: str = ""
    ended_at: datetime | None = None

    @property
    def plain_layer_id(self) -> str:
        """Where the disk is while it is not encrypted yet: a file without a row, gone when the task has ended."""
        return f"{self.layer_id}-plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportTask(Resource):
    """ExportImage: an image's root disk becomes a file."""

    KIND: ClassVar[str] = "export-task"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "state", "layer_id")

    image_id: str
    layer_id: str
    description: str = ""
    file_format: str
    bucket: str = ""
    prefix: str = ""
    state: str = "active"  # active | deleting | deleted | completed
    phase: str = "pending"
    message: str = ""
    progress_percent: int = 0
    role: str = ""
    file: str = ""  # where it is on the host
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionRule(Resource):
    """What the recycle bin keeps, and how long: deleted snapshots or deregistered images of an account and region."""

    KIND: ClassVar[str] = "retention-rule"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "resource_type")

    resource_type: str  # EBS_SNAPSHOT | EC2_IMAGE
    retention_days: int
    description: str = ""
    resource_tags: dict[str, str]  # of what it is about; empty: everything

"""Images, snapshots, volumes and the layers beneath them.

    Image --block device mapping--> Snapshot --layer_id--> Layer (immutable)
                                                             ^
    Instance --block device mapping--> Volume --layer_id--> Layer (its top, written by the guest), parent_id

A layer is one qcow2 file. Nothing counts references: what a layer is needed for follows from these rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from orchestrator.model.resource import Resource

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer(Resource):
    KIND: ClassVar[str] = "layer"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "parent_id")

    parent_id: str = ""
    size_bytes: int
    sha512: str = ""  # of the file, once nothing writes to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Resource):
    KIND: ClassVar[str] = "snapshot"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "volume_id", "layer_id")

    layer_id: str
    volume_id: str = ""
    size_gib: int
    state: str = "completed"  # pending | completed | error
    description: str = ""
    encrypted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDevice:
    """One line of an image's block device mapping."""

    device: str  # /dev/xvda
    snapshot_id: str = ""
    size_gib: int = 0
    volume_type: str = "gp3"
    delete_on_termination: bool = True
    encrypted: bool = False
    iops: int = 0  # 0: the type's default
    throughput_mib_s: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Resource):
    KIND: ClassVar[str] = "image"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "name")

    name: str
    description: str = ""
    architecture: str = "x86_64"
    state: str = "available"  # pending | available | deregistered | failed
    public: bool = False
    root_device: str = "/dev/xvda"
    block_devices: tuple[BlockDevice, ...] = ()
    login_user: str = "ec2-user"
    kernel_id: str = ""  # aki-...: the guest is started on this kernel, not by a boot loader on the disk
    ramdisk_id: str = ""
    kernel_arguments: str = ""
    imds_v2_required: bool = False
    platform_details: str = "Linux/UNIX"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAlias(Resource):
    """An AMI id of somebody's AWS code, which means the newest image of this name here, in every region."""

    KIND: ClassVar[str] = "image-alias"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "name")

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeAttachment:
    instance_id: str
    device: str
    state: str = "attached"  # attaching | attached | detaching | detached | busy
    delete_on_termination: bool = True
    attached_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Resource):
    KIND: ClassVar[str] = "volume"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "instance_id", "layer_id", "snapshot_id")

    zone: str
    size_gib: int
    volume_type: str = "gp3"
    iops: int = 3000
    throughput_mib_s: int = 125
    encrypted: bool = False
    snapshot_id: str = ""
    layer_id: str  # its top layer
    state: str = "creating"  # creating | available | in-use | deleting | deleted | error
    attachment: VolumeAttachment | None = None

    @property
    def instance_id(self) -> str:
        return self.attachment.instance_id if self.attachment else ""


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

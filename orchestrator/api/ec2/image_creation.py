"""New images: of an instance, of snapshots, of another image.

    CreateImage    instance ──freeze──► a snapshot of each volume, all of one moment ─┐
    RegisterImage  snapshots that are there ──────────────────────────────────────────┼──► Image
    CopyImage      image of any region ──copy──► a snapshot for each of its own ──────┘

An image whose snapshots are still being made is pending until the reconciler finds them all completed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from orchestrator.api.ec2.encryption import choose_key
from orchestrator.api.ec2.freezing import freeze
from orchestrator.api.ec2.image_devices import by_device, change_device, new_device, refuse, with_root
from orchestrator.api.ec2.images import find_image, visible
from orchestrator.api.ec2.launch_options import Structure
from orchestrator.api.ec2.snapshot_copies import copy_of_snapshot, within
from orchestrator.api.ec2.snapshots import check_description, serves_image
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter, one_of, unsupported
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.instance import Instance
from orchestrator.model.kms import EBS_ALIAS, Key
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.tags import add_tags, tags_at_creation
from orchestrator.model.volume import Volume

ARCHITECTURES: Final = ("x86_64", "i386", "arm64")
BOOT_MODES: Final = ("legacy-bios", "uefi-preferred")
DEFAULT_ROOT: Final = "/dev/sda1"  # EC2's own, where a registration names none
COMPLETION_MINUTES: Final = range(15, 2881, 15)

_NAME = re.compile(r"[A-Za-z0-9()\[\] ./'@_-]{3,128}", re.ASCII)


# --- of an instance ---------------------------------------------------------------------------------------------------


@operation("CreateImage", writes=True)
def create_image(
    call: Call,
    *,
    instance_id: str,
    name: str,
    description: str | None = None,
    no_reboot: bool = False,
    block_device_mappings: list[Structure] | None = None,
    tag_specifications: list[Structure] | None = None,
    snapshot_location: str | None = None,
    boot_mode_override: str | None = None,
) -> Answer:
    """A running instance is shut down for it and started again, unless `no_reboot`: then its guest agent freezes the
    file systems, if there is one, and the snapshots are crash-consistent otherwise.

    More than EC2 allows: a device may be made larger, or of another type, than its volume.
    """
    if one_of("SnapshotLocation", snapshot_location or "regional", ("regional", "local")) == "local":
        raise invalid_parameter("SnapshotLocation", "local", "regional: there are no Local Zones and no Outposts here")
    if boot_mode_override is not None:
        raise unsupported("BootModeOverride is for instances that booted by UEFI; here they boot by legacy-bios")
    tags = tags_at_creation(tag_specifications, "image", "snapshot")
    check_name(call, name)
    instance = call.find(Instance, "i", instance_id)
    if instance.state not in (State.RUNNING, State.STOPPED):
        raise EC2Error(
            "IncorrectInstanceState",
            f"The instance '{instance_id}' is {instance.state}: an image can be made of one that is running or stopped",
        )
    volumes, devices = _devices_of(call, instance, block_device_mappings)
    image_id = ids.mint("ami")
    running = instance.state is State.RUNNING
    snapshots = freeze(
        call,
        volumes,
        when="live" if not running else "frozen" if no_reboot else "off",
        description=f"Created by CreateImage({instance_id}) for {image_id}",
        tags=tags["snapshot"],
    )
    made = {volume.id: snapshot for volume, snapshot in zip(volumes, snapshots, strict=True)}
    by_volume = {volume.attachment.device: made[volume.id] for volume in volumes if volume.attachment}
    source = call.db.get(Image, instance.image_id)
    image = Image(
        id=image_id,
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags["image"],
        name=name,
        description=check_description(description),
        state="pending",
        architecture=instance.architecture,
        root_device=instance.root_device,
        block_devices=tuple(
            replace(device, snapshot_id=by_volume[device.device].id) if device.device in by_volume else device
            for device in devices
        ),
        login_user=instance.login_user,
        kernel_id=instance.kernel_id,
        ramdisk_id=instance.ramdisk_id,
        kernel_arguments=instance.kernel_arguments,
        boot_mode=instance.boot_mode,
        imds_v2_required=source.imds_v2_required if source else False,
        platform_details=instance.platform_details,
        source_instance_id=instance.id,
        source_image_id=instance.image_id,
        source_region=instance.region,
    )
    call.tx.wake(call.tx.put(image))
    return {"ImageId": image.id}


def _devices_of(
    call: Call, instance: Instance, mappings: list[Structure] | None
) -> tuple[list[Volume], tuple[BlockDevice, ...]]:
    """The volumes that the image will have snapshots of, and its mapping, in which those have none yet."""
    attached = {
        volume.attachment.device: volume
        for volume in call.tx.all(Volume, instance_id=instance.id)
        if volume.attachment is not None and volume.attachment.state != "detaching"
    }
    if instance.root_device not in attached:
        raise EC2Error(
            "IncorrectInstanceState", f"The instance '{instance.id}' has no volume at its root {instance.root_device}"
        )
    stored = {name: virtual_name for virtual_name, name in instance.ephemeral_devices.items()}
    asked = by_device(mappings, (*attached, *stored))
    devices: dict[str, BlockDevice | None] = {}
    for name, volume in attached.items():
        own = _device_of(name, volume)
        devices[name] = change_device(own, asked[name]) if name in asked else own
    for name, virtual_name in stored.items():
        devices[name] = BlockDevice(device=name, virtual_name=virtual_name)
    for name, mapping in asked.items():
        if name not in attached:
            devices[name] = new_device(call, name, mapping)
    if devices[instance.root_device] is None:
        raise refuse(f"The root device {instance.root_device} cannot be left out")
    volumes = [volume for name, volume in attached.items() if devices[name] is not None]
    kept = {name: device for name, device in devices.items() if device is not None}
    return volumes, with_root(kept, instance.root_device)


def _device_of(name: str, volume: Volume) -> BlockDevice:
    provisioned = volume.volume_type in ("io1", "io2", "gp3")
    return BlockDevice(
        device=name,
        size_gib=volume.size_gib,
        volume_type=volume.volume_type,
        delete_on_termination=volume.attachment is None or volume.attachment.delete_on_termination,
        encrypted=volume.encrypted,
        iops=volume.iops if provisioned else 0,
        throughput_mib_s=volume.throughput_mib_s if volume.volume_type == "gp3" else 0,
    )


# --- of snapshots -----------------------------------------------------------------------------------------------------


@operation("RegisterImage", writes=True)
def register_image(
    call: Call,
    *,
    name: str,
    description: str | None = None,
    architecture: str = "x86_64",
    root_device_name: str = DEFAULT_ROOT,
    block_device_mappings: list[Structure] | None = None,
    image_location: str | None = None,
    virtualization_type: str = "hvm",
    kernel_id: str | None = None,
    ramdisk_id: str | None = None,
    boot_mode: str | None = None,
    tpm_support: str | None = None,
    uefi_data: str | None = None,
    imds_support: str | None = None,
    ena_support: bool = False,
    sriov_net_support: str = "simple",
    tag_specifications: list[Structure] | None = None,
) -> Answer:
    """Where EC2's defaults are those of 2008 (i386, paravirtual), the defaults are what runs here.

    A disk that came with a kernel has no boot loader, so what is registered of its snapshots gets that kernel unless
    another is named, and the user who logs in, of whom EC2 knows nothing.
    """
    if image_location is not None:
        raise unsupported("ImageLocation, for images in S3, is not supported here: give snapshots")
    if uefi_data is not None:
        raise unsupported("UefiData is not supported here: guests boot by legacy-bios")
    if tpm_support is not None:
        raise unsupported("TpmSupport is not supported here: guests have no TPM. Leave it out.")
    if virtualization_type != "hvm":
        raise invalid_parameter("VirtualizationType", virtualization_type, "hvm, the one that is supported here")
    tags = tags_at_creation(tag_specifications, "image")
    check_name(call, name)
    one_of("SriovNetSupport", sriov_net_support, ("simple",))
    if imds_support is not None:
        one_of("ImdsSupport", imds_support, ("v2.0",))
    one_of("Architecture", architecture, ARCHITECTURES)
    if boot_mode == "uefi" and architecture != "arm64":
        raise invalid_parameter("BootMode", boot_mode, f"{' or '.join(BOOT_MODES)}: there is no UEFI firmware here")
    if boot_mode is not None and architecture != "arm64":
        one_of("BootMode", boot_mode, BOOT_MODES)
    devices = {
        device: made
        for device, mapping in by_device(block_device_mappings).items()
        if (made := new_device(call, device, mapping)) is not None
    }
    mapping = with_root(devices, root_device_name)
    if not mapping[0].snapshot_id:
        raise refuse(f"The root device {root_device_name} must be a volume of a snapshot")
    origin = _origin(call, mapping[0].snapshot_id)
    image = Image(
        id=ids.mint("ami"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags["image"],
        name=name,
        description=check_description(description),
        architecture=architecture,
        root_device=root_device_name,
        block_devices=mapping,
        boot_mode=boot_mode or "",
        imds_v2_required=imds_support is not None,
        ena_support=ena_support,
        **_inherited(origin),
        **_kernel(call, origin, kernel_id, ramdisk_id),
    )
    call.tx.put(image)
    return {"ImageId": image.id}


def _origin(call: Call, snapshot_id: str) -> Image | None:
    """The image that a snapshot's content began as: the nearest one on the way down its layers."""
    snapshot = call.tx.get(Snapshot, snapshot_id)
    layer = call.tx.get(Layer, snapshot.layer_id) if snapshot else None
    while layer is not None:
        for taken in call.tx.all(Snapshot, layer_id=layer.id):
            for image in call.tx.all(Image, snapshot_ids=taken.id):
                return image
        layer = call.tx.get(Layer, layer.parent_id or layer.copy_of)
    return None


def _inherited(origin: Image | None) -> dict[str, Any]:
    return {"login_user": origin.login_user, "platform_details": origin.platform_details} if origin else {}


def _kernel(call: Call, origin: Image | None, kernel_id: str | None, ramdisk_id: str | None) -> dict[str, Any]:
    """A kernel is a part of the image that brought it, and its arguments are too."""
    if kernel_id is None:
        if ramdisk_id is not None:
            raise EC2Error("InvalidParameterCombination", "RamdiskId requires KernelId")
        source = origin
    else:
        ids.check("aki", kernel_id)
        found = [image for image in call.tx.all(Image, kernel_id=kernel_id) if visible(call, image)]
        if not found:
            raise EC2Error("InvalidAKIID.NotFound", f"The kernel ID '{kernel_id}' does not exist")
        source = found[0]
    if source is None or not source.kernel_id:
        return {}
    if ramdisk_id is not None and ids.check("ari", ramdisk_id) != source.ramdisk_id:
        raise EC2Error(
            "InvalidARIID.NotFound",
            f"The ramdisk ID '{ramdisk_id}' does not exist with {kernel_id}: {source.ramdisk_id}",
        )
    return {
        "kernel_id": source.kernel_id,
        "ramdisk_id": source.ramdisk_id,
        "kernel_arguments": source.kernel_arguments,
    }


# --- of another image -------------------------------------------------------------------------------------------------


@operation("CopyImage", writes=True)
def copy_image(
    call: Call,
    *,
    source_image_id: str,
    source_region: str,
    name: str,
    description: str | None = None,
    encrypted: bool | None = None,
    kms_key_id: str | None = None,
    copy_image_tags: bool = False,
    tag_specifications: list[Structure] | None = None,
    snapshot_copy_completion_duration_minutes: int | None = None,
) -> Answer:
    """Into the caller's region and account. Launch permissions, protection and the tags of others are not copied."""
    tags = tags_at_creation(tag_specifications, "image", "snapshot")
    minutes = snapshot_copy_completion_duration_minutes
    if minutes is not None and minutes not in COMPLETION_MINUTES:
        raise invalid_parameter("SnapshotCopyCompletionDurationMinutes", minutes, "15 to 2880 minutes, in steps of 15")
    check_name(call, name)
    source = find_image(within(call, source_region), source_image_id)
    if source.state != "available":
        raise EC2Error(
            "InvalidAMIID.Unavailable", f"The image ID '{source_image_id}' is not available: it is {source.state}"
        )
    image_id = ids.mint("ami")
    devices = tuple(
        _copy_device(call, source, device, image_id, encrypted, kms_key_id, tags["snapshot"], minutes or 0)
        for device in source.block_devices
    )
    own_tags = source.tags if copy_image_tags and source.account == call.account else {}
    image = replace(
        source,
        id=image_id,
        account=call.account,
        region=call.region,
        created=call.now,
        revision=0,
        tags=add_tags(own_tags, tags["image"]),
        name=name,
        description=check_description(description),
        state="pending",
        state_code="",
        state_message="",
        public=False,
        shared_with=(),
        block_devices=devices,
        source_instance_id="",
        source_image_id=source.id,
        source_region=source_region,
        deprecate_at=None,
        protected="",
        protected_until=None,
        last_launched_at=None,
    )
    call.tx.wake(call.tx.put(image))
    return {"ImageId": image.id}


def _copy_device(
    call: Call,
    source: Image,
    device: BlockDevice,
    image_id: str,
    encrypted: bool | None,
    named: str | None,
    tags: dict[str, str],
    minutes: int,
) -> BlockDevice:
    if not device.snapshot_id:
        key = call.tx.get(Key, device.key_id) if device.key_id else None
        return device if key is None or call.sees(key) else replace(device, key_id="")
    snapshot = call.tx.get(Snapshot, device.snapshot_id)
    if snapshot is None or not serves_image(replace(call, region=source.region), source, snapshot):
        raise EC2Error(
            "InvalidSnapshot.NotFound", f"The snapshot '{device.snapshot_id}' of {source.id} does not exist any more"
        )
    if is_bound_to_account(call, snapshot) and snapshot.account != call.account:
        raise EC2Error(
            "InvalidRequest",
            f"The snapshot '{snapshot.id}' of {source.id} is encrypted by the default key of another account, which "
            "cannot be used outside that account",
        )
    copied = copy_of_snapshot(
        call,
        snapshot,
        key=choose_key(call, encrypted=encrypted, named=named, source_key_id=snapshot.key_id),
        description=f"Copied for DestinationAmi {image_id} from SourceAmi {source.id} for SourceSnapshot {snapshot.id}",
        tags=tags,
        completion_minutes=minutes,
    )
    return replace(device, snapshot_id=copied.id, encrypted=copied.encrypted, key_id="")


def is_bound_to_account(call: Call, snapshot: Snapshot) -> bool:
    """Whether what encrypts it is a default key (aws/ebs), which serves its own account alone, or is gone."""
    if not snapshot.key_id:
        return False
    key = call.db.get(Key, snapshot.key_id)
    return key is None or key.manager == "AWS" or EBS_ALIAS in key.aliases


# --- names ------------------------------------------------------------------------------------------------------------


def check_name(call: Call, name: str) -> None:
    """Of EC2's alphabet, and no other image's of the account in the region."""
    if not _NAME.fullmatch(name):
        raise EC2Error(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, spaces, "
            "'(', ')', '[', ']', '.', '/', '-', ''', '@' and '_'",
        )
    for image in call.mine(Image, name=name):
        if image.recycled_at is None and image.state not in ("deregistered", "failed"):
            raise EC2Error("InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {image.id}")

"""Images: which of them a caller sees, and how they are shown.

A caller sees what is its own, what is public or shared with its account, and the catalogue, which is in every region.
Nobody sees what lies in the recycle bin, and none but its owner what is disabled. An AMI id of existing code that was
mapped to an image here (`ImageAlias`) names the newest image of that name wherever an image id is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from orchestrator.api.accounts import first_account
from orchestrator.api.ec2.owners import OWNER_ALIASES, is_account, may_use, owner_alias
from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.image import BlockDevice, Image, ImageAlias
from orchestrator.model.kms import Key
from orchestrator.model.tags import tag_set

UNPROTECTED: Final = "disabled"


def visible(call: Call, image: Image) -> bool:
    """Whether the caller may see it, and so launch and copy it, in the call's region."""
    if image.state == "deregistered" or (image.state == "disabled" and image.account != call.account):
        return False
    return may_use(call, image)


def find_image(call: Call, image_id: str) -> Image:
    """The image that an id means, looked up through aliases: the image's own `id` may then differ from `image_id`."""
    return find_images(call, [image_id])[0]


def find_images(call: Call, image_ids: Iterable[str]) -> list[Image]:
    """One image for each id, in order; EC2's Malformed, or NotFound for the call as a whole."""
    wanted = [ids.check("ami", image_id) for image_id in image_ids]
    found = [_resolve(call, image_id) for image_id in wanted]
    absent = [image_id for image_id, image in zip(wanted, found, strict=True) if image is None]
    if absent:
        raise _not_found(absent)
    return [image for image in found if image is not None]


def _not_found(image_ids: list[str]) -> EC2Error:
    several = len(image_ids) > 1
    return EC2Error(
        "InvalidAMIID.NotFound",
        f"The image id{'s' if several else ''} '[{', '.join(image_ids)}]' do{'' if several else 'es'} not exist",
    )


def _resolve(call: Call, image_id: str) -> Image | None:
    image = call.db.get(Image, image_id)
    if image is not None:
        return image if visible(call, image) else None
    alias = call.db.get(ImageAlias, image_id)
    if alias is None or alias.account not in (call.account, first_account(call)):
        return None
    named = [
        image for image in call.db.all(Image, name=alias.name) if image.state == "available" and visible(call, image)
    ]
    return max(named, key=lambda image: (image.created, image.id), default=None)


def own_image(call: Call, image_id: str) -> Image:
    """The caller's own image, to be changed: an alias will not do, and what others own is AuthFailure."""
    image = call.db.get(Image, ids.check("ami", image_id))
    if image is None and call.db.get(ImageAlias, image_id) is not None:
        raise invalid_parameter("ImageId", image_id, "an image's own id: this one is mapped to an image")
    if image is None or not visible(call, image):
        raise _not_found([image_id])
    if image.account != call.account:
        raise EC2Error("AuthFailure", f"Not authorized for images: [{image_id}]", 403)
    return image


@operation("DescribeImages", listing=True)
def describe_images(
    call: Call,
    *,
    image_ids: list[str] | None = None,
    owners: list[str] | None = None,
    executable_users: list[str] | None = None,
    include_deprecated: bool = False,
    include_disabled: bool = False,
) -> Answer:
    """Deprecated images of others, and disabled ones, are listed when asked for, by id or by these flags.

    An image that was asked for by an alias is shown under the alias.
    """
    if image_ids:
        wanted = list(dict.fromkeys(image_ids))
        found = [replace(image, id=asked) for asked, image in zip(wanted, find_images(call, wanted), strict=True)]
    else:
        found = [
            image
            for image in call.db.all(Image)
            if visible(call, image)
            and (include_disabled or image.state != "disabled")
            and (include_deprecated or image.account == call.account or not _is_deprecated(call, image))
        ]
    if owners:
        accepted = {_owner(call, owner) for owner in owners}
        found = [image for image in found if accepted & {image.account, owner_alias(image)}]
    if executable_users:
        users = {_executable_user(call, user) for user in executable_users}
        found = [image for image in found if users & _explicit_users(call, image)]
    found = [_as_seen(call, image) for image in found]
    chosen = choose(call, found, IMAGE_FILTERS)
    return show_page(call, "Images", chosen, lambda image: show_image(call, image), smallest=1)


def _is_deprecated(call: Call, image: Image) -> bool:
    return image.deprecate_at is not None and image.deprecate_at <= call.now


def _owner(call: Call, owner: str) -> str:
    if owner == "self":
        return call.account
    if owner in OWNER_ALIASES or is_account(owner):
        return owner
    raise EC2Error(
        "InvalidUserID.Malformed",
        f"Invalid user id: '{owner}'. Expected 12 digits, self, {', '.join(OWNER_ALIASES)}.",
    )


def _executable_user(call: Call, user: str) -> str:
    if user == "self":
        return call.account
    if user == "all" or is_account(user):
        return user
    raise EC2Error("InvalidUserID.Malformed", f"Invalid user id: '{user}'. Expected 12 digits, self, or all.")


def _explicit_users(call: Call, image: Image) -> set[str]:
    """Whom the launch permissions name, as far as it is the caller's business."""
    known = set(image.shared_with) if image.account == call.account else {call.account} & set(image.shared_with)
    return known | ({"all"} if image.public else set())


def _as_seen(call: Call, image: Image) -> Image:
    """Tags, and where an image comes from and goes to, are its owner's: others see it without them."""
    if image.account == call.account:
        return image
    return replace(image, tags={}, source_instance_id="", last_launched_at=None, protected="", protected_until=None)


@operation("DescribeFastLaunchImages", listing=True)
def describe_fast_launch_images(call: Call, *, image_ids: list[str] | None = None) -> Answer:
    """No image is ever prepared for fast launch: every launch is fast."""
    find_images(call, image_ids or ())
    none: list[Image] = []
    return show_page(call, "FastLaunchImages", choose(call, none, FAST_LAUNCH_FILTERS), lambda image: {}, smallest=0)


FAST_LAUNCH_FILTERS: Final[FilterTable] = {name: lambda image: None for name in ("resource-type", "owner-id", "state")}


# --- how they are shown -----------------------------------------------------------------------------------------------


def time_text(at: datetime) -> str:
    """Times of images are strings in EC2's model: 2024-05-01T12:00:00.000Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def creation_date(image: Image) -> str:
    return time_text(image.created)


def location(image: Image) -> str:
    return f"{owner_alias(image) or image.account}/{image.name}"


def boot_mode(image: Image) -> str:
    return image.boot_mode or ("uefi" if image.architecture == "arm64" else "legacy-bios")


def platform(image: Image) -> str:
    return "windows" if image.platform_details.startswith("Windows") else ""


def show_image(call: Call, image: Image) -> Answer:
    shown: Answer = {
        "ImageId": image.id,
        "ImageLocation": location(image),
        "State": image.state,
        "OwnerId": image.account,
        "CreationDate": creation_date(image),
        "Public": image.public,
        "Architecture": image.architecture,
        "ImageType": "machine",
        "Name": image.name,
        "Description": image.description,
        "PlatformDetails": image.platform_details,
        "UsageOperation": "RunInstances:0002" if platform(image) else "RunInstances",
        "RootDeviceType": "ebs",
        "RootDeviceName": image.root_device,
        "BlockDeviceMappings": show_block_devices(call, image),
        "VirtualizationType": "hvm",
        "Hypervisor": "xen",  # what EC2 says of every image, Nitro or not
        "EnaSupport": image.ena_support,
        "SriovNetSupport": "simple",
        "BootMode": boot_mode(image),
        "Tags": tag_set(image.tags),
        "ProductCodes": [],
    }
    optional = {
        "ImageOwnerAlias": owner_alias(image),
        "Platform": platform(image),
        "KernelId": image.kernel_id,
        "RamdiskId": image.ramdisk_id,
        "ImdsSupport": "v2.0" if image.imds_v2_required else "",
        "TpmSupport": image.tpm_support,
        "SourceInstanceId": image.source_instance_id,
        "SourceImageId": image.source_image_id,
        "SourceImageRegion": image.source_region,
        "DeprecationTime": time_text(image.deprecate_at) if image.deprecate_at else "",
        "LastLaunchedTime": time_text(image.last_launched_at) if image.last_launched_at else "",
        "DeregistrationProtection": protection(image) if image.account == call.account else "",
    }
    if image.state_code:
        shown["StateReason"] = {"Code": image.state_code, "Message": image.state_message}
    return shown | {name: value for name, value in optional.items() if value}


def protection(image: Image) -> str:
    return image.protected or UNPROTECTED


def show_block_devices(call: Call, image: Image) -> list[Answer]:
    return [_show_block_device(call, device) for device in image.block_devices]


def _show_block_device(call: Call, device: BlockDevice) -> Answer:
    if device.virtual_name:
        return {"DeviceName": device.device, "VirtualName": device.virtual_name}
    key = call.db.get(Key, device.key_id) if device.key_id else None
    ebs: Answer = {
        "DeleteOnTermination": device.delete_on_termination,
        "VolumeSize": device.size_gib,
        "VolumeType": device.volume_type,
        "Encrypted": device.encrypted,
    }
    optional = {
        "SnapshotId": device.snapshot_id,
        "Iops": device.iops,
        "Throughput": device.throughput_mib_s,
        "KmsKeyId": key.arn if key else "",
    }
    return {"DeviceName": device.device, "Ebs": ebs | {name: value for name, value in optional.items() if value}}


# Documented filters on what images never have here: they match nothing.
_NEVER: Final = (
    "image-watermark.source-image-creation-time",
    "image-watermark.source-image-id",
    "image-watermark.source-image-region",
    "image-watermark.watermark-creation-time",
    "image-watermark.watermark-key",
    "instance-type-specification.supported-instance-type",
    "instance-type-specification.unsupported-instance-type",
    "product-code",
    "product-code.type",
    "public-ssm-parameter-name",
)


def _volumes(image: Image) -> list[BlockDevice]:
    return [device for device in image.block_devices if not device.virtual_name]


IMAGE_FILTERS: Final[FilterTable] = {
    **{name: lambda image: None for name in _NEVER},
    "architecture": lambda image: image.architecture,
    "block-device-mapping.delete-on-termination": lambda image: [
        boolean(device.delete_on_termination) for device in _volumes(image)
    ],
    "block-device-mapping.device-name": lambda image: [device.device for device in image.block_devices],
    "block-device-mapping.snapshot-id": lambda image: image.snapshot_ids,
    "block-device-mapping.volume-size": lambda image: [str(device.size_gib) for device in _volumes(image)],
    "block-device-mapping.volume-type": lambda image: [device.volume_type for device in _volumes(image)],
    "block-device-mapping.encrypted": lambda image: [boolean(device.encrypted) for device in _volumes(image)],
    "boot-mode": boot_mode,
    "creation-date": creation_date,
    "description": lambda image: image.description,
    "ena-support": lambda image: boolean(image.ena_support),
    "free-tier-eligible": lambda image: "false",
    "hypervisor": lambda image: "xen",
    "image-allowed": lambda image: "true",
    "image-id": lambda image: image.id,
    "image-type": lambda image: "machine",
    "is-public": lambda image: boolean(image.public),
    "kernel-id": lambda image: image.kernel_id or None,
    "manifest-location": location,
    "name": lambda image: image.name,
    "owner-alias": lambda image: owner_alias(image) or None,
    "owner-id": lambda image: image.account,
    "platform": lambda image: platform(image) or None,
    "ramdisk-id": lambda image: image.ramdisk_id or None,
    "root-device-name": lambda image: image.root_device,
    "root-device-type": lambda image: "ebs",
    "source-image-id": lambda image: image.source_image_id or None,
    "source-image-region": lambda image: image.source_region or None,
    "source-instance-id": lambda image: image.source_instance_id or None,
    "state": lambda image: image.state,
    "state-reason-code": lambda image: image.state_code or None,
    "state-reason-message": lambda image: image.state_message or None,
    "sriov-net-support": lambda image: "simple",
    "virtualization-type": lambda image: "hvm",
}

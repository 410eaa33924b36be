"""Images: which of them a caller sees, and how they are shown.

A caller sees what is its own, what is public, and the catalogue, which is in every region. An AMI id of existing code
that was mapped to an image here (`ImageAlias`) names that image wherever an image id is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC
from typing import Final

from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.image import BlockDevice, Image, ImageAlias, Layer, Snapshot
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.tags import tag_set

AMAZON: Final = "amazon"  # who owns the catalogue, in the words of code that was written for AWS
OWNER_ALIASES: Final = (AMAZON, "aws-marketplace", "aws-backup-vault")


def visible(call: Call, image: Image) -> bool:
    """Whether the caller may see and launch it."""
    if image.state == "deregistered" or image.region not in (call.region, EVERY_REGION):
        return False
    return image.public or image.region == EVERY_REGION or image.account == call.account


def find_image(call: Call, image_id: str) -> Image:
    """The image that an id means, looked up through aliases: the image's own `id` may then differ from `image_id`."""
    return find_images(call, [image_id])[0]


def find_images(call: Call, image_ids: Iterable[str]) -> list[Image]:
    """One image for each id, in order; EC2's Malformed, or NotFound for the call as a whole."""
    wanted = [ids.check("ami", image_id) for image_id in image_ids]
    found = [_resolve(call, image_id) for image_id in wanted]
    absent = [image_id for image_id, image in zip(wanted, found, strict=True) if image is None]
    if absent:
        several = len(absent) > 1
        raise EC2Error(
            "InvalidAMIID.NotFound",
            f"The image id{'s' if several else ''} '[{', '.join(absent)}]' do{'' if several else 'es'} not exist",
        )
    return [image for image in found if image is not None]


def _resolve(call: Call, image_id: str) -> Image | None:
    image = call.db.get(Image, image_id)
    if image is not None:
        return image if visible(call, image) else None
    alias = call.db.get(ImageAlias, image_id)
    if alias is None:
        return None
    named = [image for image in call.db.all(Image, name=alias.name) if visible(call, image)]
    return max(named, key=lambda image: (image.created, image.id), default=None)


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
    """No image is ever deprecated or disabled here, so including those adds nothing.

    An image that was asked for by an alias is shown under the alias.
    """
    if image_ids:
        wanted = list(dict.fromkeys(image_ids))
        found = [replace(image, id=asked) for asked, image in zip(wanted, find_images(call, wanted), strict=True)]
    else:
        found = [image for image in call.db.all(Image) if visible(call, image)]
    if owners:
        accepted = {_owner(call, owner) for owner in owners}
        found = [image for image in found if accepted & {image.account, owner_alias(image)}]
    if executable_users:
        public = "all" in {_executable_user(user) for user in executable_users}
        found = [image for image in found if public and image.public]
    # A resource's tags are its owner's: others see the image without them.
    found = [image if image.account == call.account else replace(image, tags={}) for image in found]
    return show_page(call, "Images", choose(call, found, IMAGE_FILTERS), show_image, smallest=1)


def _owner(call: Call, owner: str) -> str:
    if owner == "self":
        return call.account
    if owner in OWNER_ALIASES or _is_account(owner):
        return owner
    raise EC2Error(
        "InvalidUserID.Malformed",
        f"Invalid user id: '{owner}'. Expected 12 digits, self, {', '.join(OWNER_ALIASES)}.",
    )


def _executable_user(user: str) -> str:
    """`all` means public; nothing is shared with single accounts, so those and `self` find nothing."""
    if user in ("self", "all") or _is_account(user):
        return user
    raise EC2Error("InvalidUserID.Malformed", f"Invalid user id: '{user}'. Expected 12 digits, self, or all.")


def _is_account(text: str) -> bool:
    return len(text) == 12 and text.isascii() and text.isdigit()


@operation("DeregisterImage", writes=True)
def deregister_image(call: Call, *, image_id: str, delete_associated_snapshots: bool = False) -> Answer:
    """Instances that run from it go on; its snapshots stay unless asked for, or while another image needs them."""
    image = call.tx.get(Image, ids.check("ami", image_id))
    if image is None or not visible(call, image):
        if call.tx.get(ImageAlias, image_id) is not None:
            raise invalid_parameter("ImageId", image_id, "an image's own id: this one is mapped to an image")
        raise EC2Error("InvalidAMIID.NotFound", f"The image id '[{image_id}]' does not exist")
    if image.account != call.account:
        raise EC2Error("AuthFailure", f"Not authorized for images: [{image_id}]", 403)
    call.tx.delete(image)
    answer: Answer = {"Return": True}
    if delete_associated_snapshots:
        answer["DeleteSnapshotResults"] = [
            {"SnapshotId": device.snapshot_id, "ReturnCode": _delete_snapshot(call, device.snapshot_id)}
            for device in image.block_devices
            if device.snapshot_id
        ]
    return answer


def _delete_snapshot(call: Call, snapshot_id: str) -> str:
    """What became of it, in EC2's words."""
    snapshot = call.tx.get(Snapshot, snapshot_id)
    if snapshot is None:
        return "success"
    if snapshot.account != call.account:
        return "missing-permissions"
    if any(snapshot_id == device.snapshot_id for image in call.tx.all(Image) for device in image.block_devices):
        return "skipped"
    call.tx.delete(snapshot)
    layer = call.tx.get(Layer, snapshot.layer_id)
    if layer is not None:
        call.tx.wake(layer)
    return "success"


# --- how they are shown -----------------------------------------------------------------------------------------------


def owner_alias(image: Image) -> str:
    """Code that asks for images owned by `amazon` means what the deployment offers: its catalogue."""
    return AMAZON if image.region == EVERY_REGION else ""


def creation_date(image: Image) -> str:
    """A string in EC2's model: 2024-05-01T12:00:00.000Z."""
    return image.created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def location(image: Image) -> str:
    return f"{owner_alias(image) or image.account}/{image.name}"


def boot_mode(image: Image) -> str:
    return "uefi" if image.architecture == "arm64" else "legacy-bios"


def platform(image: Image) -> str:
    return "windows" if image.platform_details.startswith("Windows") else ""


def show_image(image: Image) -> Answer:
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
        "BlockDeviceMappings": [_show_block_device(device) for device in image.block_devices],
        "VirtualizationType": "hvm",
        "Hypervisor": "xen",  # what EC2 says of every image, Nitro or not
        "EnaSupport": True,
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
    }
    return shown | {name: value for name, value in optional.items() if value}


def _show_block_device(device: BlockDevice) -> Answer:
    ebs: Answer = {
        "DeleteOnTermination": device.delete_on_termination,
        "VolumeSize": device.size_gib,
        "VolumeType": device.volume_type,
        "Encrypted": device.encrypted,
    }
    optional = {"SnapshotId": device.snapshot_id, "Iops": device.iops, "Throughput": device.throughput_mib_s}
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
    "source-image-id",
    "source-image-region",
    "source-instance-id",
    "state-reason-code",
    "state-reason-message",
)

IMAGE_FILTERS: Final[FilterTable] = {
    **{name: lambda image: None for name in _NEVER},
    "architecture": lambda image: image.architecture,
    "block-device-mapping.delete-on-termination": lambda image: [
        boolean(device.delete_on_termination) for device in image.block_devices
    ],
    "block-device-mapping.device-name": lambda image: [device.device for device in image.block_devices],
    "block-device-mapping.snapshot-id": lambda image: [device.snapshot_id for device in image.block_devices],
    "block-device-mapping.volume-size": lambda image: [str(device.size_gib) for device in image.block_devices],
    "block-device-mapping.volume-type": lambda image: [device.volume_type for device in image.block_devices],
    "block-device-mapping.encrypted": lambda image: [boolean(device.encrypted) for device in image.block_devices],
    "boot-mode": boot_mode,
    "creation-date": creation_date,
    "description": lambda image: image.description,
    "ena-support": lambda image: "true",
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
    "state": lambda image: image.state,
    "sriov-net-support": lambda image: "simple",
    "virtualization-type": lambda image: "hvm",
}

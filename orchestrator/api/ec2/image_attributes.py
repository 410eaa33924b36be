"""What can be changed of an image: who may launch it, until when it is recommended, and whether it can be launched.

    launch permissions   everybody (public), single accounts; the owner needs none
    deprecation          past its date it is not listed for others, and yet can be launched by its id
    disabled             nobody launches it, only its owner sees it, and all permissions are gone

An encrypted image is never public, and one that is encrypted by the default key is not shared at all: that key serves
its own account alone. An account can forbid itself to make images public, region by region.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from orchestrator.api.ec2.encryption import region_settings
from orchestrator.api.ec2.image_creation import is_bound_to_account
from orchestrator.api.ec2.images import boot_mode, find_image, own_image, protection, show_block_devices, time_text
from orchestrator.api.ec2.launch_options import Structure, take
from orchestrator.api.ec2.owners import is_account
from orchestrator.api.ec2.snapshots import check_description
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of, unsupported
from orchestrator.model.image import Image
from orchestrator.model.snapshot import Snapshot

MAX_DEPRECATION: Final = timedelta(days=3653)  # 10 years from now
MAX_PUBLIC_DEPRECATION: Final = timedelta(days=731)  # 2 years from its creation
EVERYBODY: Final = "all"

ATTRIBUTES: Final = (
    "blockDeviceMapping",
    "bootMode",
    "deregistrationProtection",
    "description",
    "imdsSupport",
    "kernel",
    "lastLaunchedTime",
    "launchPermission",
    "productCodes",
    "ramdisk",
    "sriovNetSupport",
    "tpmSupport",
    "uefiData",
)


@operation("DescribeImageAttribute")
def describe_image_attribute(call: Call, *, image_id: str, attribute: str) -> Answer:
    image = own_image(call, image_id)
    return {"ImageId": image.id, **_show(call, image, one_of("Attribute", attribute, ATTRIBUTES))}


def _show(call: Call, image: Image, attribute: str) -> Answer:
    match attribute:
        case "launchPermission":
            everybody: list[Answer] = [{"Group": EVERYBODY}] if image.public else []
            return {"LaunchPermissions": everybody + [{"UserId": account} for account in image.shared_with]}
        case "productCodes":
            return {"ProductCodes": []}
        case "blockDeviceMapping":
            return {"BlockDeviceMappings": show_block_devices(call, image)}
    member, value = {
        "bootMode": ("BootMode", boot_mode(image)),
        "deregistrationProtection": ("DeregistrationProtection", protection(image)),
        "description": ("Description", image.description),
        "imdsSupport": ("ImdsSupport", "v2.0" if image.imds_v2_required else ""),
        "kernel": ("KernelId", image.kernel_id),
        "lastLaunchedTime": ("LastLaunchedTime", time_text(image.last_launched_at) if image.last_launched_at else ""),
        "ramdisk": ("RamdiskId", image.ramdisk_id),
        "sriovNetSupport": ("SriovNetSupport", "simple"),
        "tpmSupport": ("TpmSupport", image.tpm_support),
        "uefiData": ("UefiData", ""),
    }[attribute]
    return {member: {"Value": value} if value else {}}


# --- changes ----------------------------------------------------------------------------------------------------------


@operation("ModifyImageAttribute", writes=True)
def modify_image_attribute(
    call: Call,
    *,
    image_id: str,
    attribute: str | None = None,
    value: str | None = None,
    description: Structure | None = None,
    imds_support: Structure | None = None,
    launch_permission: Structure | None = None,
    operation_type: str | None = None,
    user_ids: list[str] | None = None,
    user_groups: list[str] | None = None,
    organization_arns: list[str] | None = None,
    organizational_unit_arns: list[str] | None = None,
) -> Answer:
    """One attribute in a call, by a member of its name, or by Attribute and what belongs to that."""
    if organization_arns or organizational_unit_arns:
        raise _no_organizations()
    image = own_image(call, image_id)
    members = {"description": description, "imdsSupport": imds_support, "launchPermission": launch_permission}
    given = [name for name, member in members.items() if member is not None]
    if attribute is None and operation_type is not None:
        attribute = "launchPermission"
    if attribute is not None:
        one_of("Attribute", attribute, members)
        given += [attribute] if attribute not in given else []
    if len(given) != 1:
        raise EC2Error(
            "InvalidParameterCombination" if given else "MissingParameter",
            f"The request must change one of {', '.join(members)}; it has {', '.join(given) or 'none'}",
        )
    match given[0]:
        case "description":
            changed = replace(image, description=check_description(_text(description, "Description", value)))
        case "imdsSupport":
            one_of("ImdsSupport", _text(imds_support, "ImdsSupport", value), ("v2.0",))
            changed = replace(image, imds_v2_required=True)
        case _:
            if launch_permission is None:
                launch_permission = _permission(operation_type, user_ids or (), user_groups or ())
            changed = _permit(call, image, launch_permission)
    call.tx.put(changed)
    return {}


def _text(given: Structure | None, name: str, value: str | None) -> str:
    said = take(given, name, "Value").get("Value", value)
    if said is None:
        raise missing_parameter(f"{name}.Value")
    return str(said)


def _permission(operation_type: str | None, accounts: Iterable[str], groups: Iterable[str]) -> Structure:
    """The older form of LaunchPermission, as the newer one."""
    if operation_type is None:
        raise missing_parameter("OperationType")
    side = {"add": "Add", "remove": "Remove"}[one_of("OperationType", operation_type, ("add", "remove"))]
    return {side: [*({"UserId": account} for account in accounts), *({"Group": group} for group in groups)]}


def _permit(call: Call, image: Image, permission: Structure) -> Image:
    take(permission, "LaunchPermission", "Add", "Remove")
    added, removed = (_read(permission.get(side) or ()) for side in ("Add", "Remove"))
    if not added and not removed:
        raise missing_parameter("LaunchPermission.Add or LaunchPermission.Remove")
    if added:
        _check_sharing(call, image, public=EVERYBODY in added)
    accounts = dict.fromkeys((*image.shared_with, *added))
    return replace(
        image,
        public=(image.public or EVERYBODY in added) and EVERYBODY not in removed,
        shared_with=tuple(account for account in accounts if account != EVERYBODY and account not in removed),
    )


def _read(permissions: Sequence[Structure]) -> list[str]:
    """Accounts, and `all`."""
    found: list[str] = []
    for permission in permissions:
        if permission.get("OrganizationArn") or permission.get("OrganizationalUnitArn"):
            raise _no_organizations()
        account, group = permission.get("UserId"), permission.get("Group")
        if (account is None) == (group is None):
            raise missing_parameter("LaunchPermission.UserId or LaunchPermission.Group, and not both")
        if group is not None and group != EVERYBODY:
            raise _bad_item(group, "group", f"it can be {EVERYBODY}")
        if account is not None and not is_account(account):
            raise _bad_item(account, "userId", "an account id has 12 digits")
        found.append(account or EVERYBODY)
    return found


def _bad_item(value: str, item: str, allowed: str) -> EC2Error:
    return EC2Error(
        "InvalidAMIAttributeItemValue", f'Invalid attribute item value "{value}" for {item} item type: {allowed}.'
    )


def _no_organizations() -> EC2Error:
    return unsupported("Organizations and organizational units are not supported here: share with accounts, or all")


def _check_sharing(call: Call, image: Image, *, public: bool) -> None:
    if image.state == "disabled":
        raise EC2Error("InvalidAMIID.Unavailable", f"The image '{image.id}' is disabled and cannot be shared")
    if public and not image.public and region_settings(call).image_block_public != "unblocked":
        raise EC2Error(
            "OperationNotPermitted",
            f"You can't publicly share this image because block public access for AMIs is enabled in {call.region}. "
            "DisableImageBlockPublicAccess turns it off.",
        )
    for snapshot_id in image.snapshot_ids:
        snapshot = call.tx.get(Snapshot, snapshot_id)
        if snapshot is None or not snapshot.encrypted:
            continue
        if public:
            raise EC2Error(
                "InvalidParameterValue", f"An image with encrypted snapshots ({snapshot_id}) cannot be public"
            )
        if is_bound_to_account(call, snapshot):
            raise EC2Error(
                "InvalidParameterValue",
                f"An image with a snapshot that is encrypted by the default key ({snapshot_id}) cannot be shared: "
                "copy the image with a key of your own",
            )


@operation("ResetImageAttribute", writes=True)
def reset_image_attribute(call: Call, *, image_id: str, attribute: str) -> Answer:
    image = own_image(call, image_id)
    one_of("Attribute", attribute, ("launchPermission",))
    call.tx.put(replace(image, public=False, shared_with=()))
    return {}


@operation("CancelImageLaunchPermission", writes=True)
def cancel_image_launch_permission(call: Call, *, image_id: str) -> Answer:
    """Whom it was shared with gives that up."""
    image = find_image(call, image_id)
    if call.account not in image.shared_with:
        raise EC2Error("InvalidRequest", f"The image '{image_id}' is not shared with the account {call.account}")
    call.tx.put(replace(image, shared_with=tuple(a for a in image.shared_with if a != call.account)))
    return {"Return": True}


# --- deprecated and disabled ------------------------------------------------------------------------------------------


@operation("EnableImageDeprecation", writes=True)
def enable_image_deprecation(call: Call, *, image_id: str, deprecate_at: datetime) -> Answer:
    """Seconds are rounded to the nearest minute."""
    image = own_image(call, image_id)
    at = deprecate_at if deprecate_at.tzinfo else deprecate_at.replace(tzinfo=UTC)
    at = (at + timedelta(seconds=30)).replace(second=0, microsecond=0)
    latest = image.created + MAX_PUBLIC_DEPRECATION if image.public else call.now + MAX_DEPRECATION
    if not call.now < at <= latest:
        since = "2 years from its creation, as the image is public" if image.public else "10 years from now"
        raise invalid_parameter(
            "DeprecateAt",
            time_text(at),
            f"a time from now to {time_text(latest)}, the latest that is allowed ({since})",
        )
    call.tx.put(replace(image, deprecate_at=at))
    return {"Return": True}


@operation("DisableImageDeprecation", writes=True)
def disable_image_deprecation(call: Call, *, image_id: str) -> Answer:
    image = own_image(call, image_id)
    if image.deprecate_at is not None:
        call.tx.put(replace(image, deprecate_at=None))
    return {"Return": True}


@operation("DisableImage", writes=True)
def disable_image(call: Call, *, image_id: str) -> Answer:
    image = _in_state(own_image(call, image_id), "available", "disabled")
    call.tx.put(replace(image, state="disabled", public=False, shared_with=()))
    return {"Return": True}


@operation("EnableImage", writes=True)
def enable_image(call: Call, *, image_id: str) -> Answer:
    """Permissions that it had before it was disabled do not come back."""
    image = _in_state(own_image(call, image_id), "available", "disabled")
    call.tx.put(replace(image, state="available"))
    return {"Return": True}


def _in_state(image: Image, *states: str) -> Image:
    if image.state not in states:
        raise EC2Error(
            "InvalidAMIID.Unavailable", f"The image '{image.id}' is {image.state}; it must be {' or '.join(states)}"
        )
    return image


# --- block public access ----------------------------------------------------------------------------------------------


@operation("EnableImageBlockPublicAccess", writes=True)
def enable_block_public_access(call: Call, *, image_block_public_access_state: str) -> Answer:
    chosen = one_of("ImageBlockPublicAccessState", image_block_public_access_state, ("block-new-sharing",))
    call.tx.put(replace(region_settings(call), image_block_public=chosen))
    return {"ImageBlockPublicAccessState": chosen}


@operation("DisableImageBlockPublicAccess", writes=True)
def disable_block_public_access(call: Call) -> Answer:
    call.tx.put(replace(region_settings(call), image_block_public="unblocked"))
    return {"ImageBlockPublicAccessState": "unblocked"}


@operation("GetImageBlockPublicAccessState")
def get_block_public_access(call: Call) -> Answer:
    return {"ImageBlockPublicAccessState": region_settings(call).image_block_public, "ManagedBy": "account"}

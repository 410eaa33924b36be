"""What a launch, or a change of an instance, may say of its type, processors, metadata and start: checked values.

Each function takes the request's structure and answers what an Instance keeps, or raises EC2's error. A member that is
not dealt with is refused by name, so nothing that was asked for is dropped.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from orchestrator.model import instance_type
from orchestrator.model.errors import EC2Error, invalid_parameter, one_of, unsupported
from orchestrator.model.image import Image
from orchestrator.model.instance import MetadataOptions
from orchestrator.model.instance_type import InstanceType

MAX_USER_DATA_BYTES: Final = 16384
SHUTDOWN_BEHAVIORS: Final = ("stop", "terminate")
CREDITS: Final = ("standard", "unlimited")
HOST_ARCHITECTURE: Final = "x86_64"

Structure = Mapping[str, Any]


def take(given: Structure | None, name: str, *members: str) -> Structure:
    """The request's structure `name`, when it has no member but these."""
    for member in given or ():
        if member not in members:
            raise unsupported(f"{name}.{member} is not supported here")
    return given or {}


def switched_off(given: Structure | None, name: str, member: str) -> None:
    """For what can only be declined: `EnclaveOptions.Enabled` may be false."""
    if take(given, name, member).get(member):
        raise unsupported(f"{name}.{member} must be false here")


def fixed(given: Structure | None, name: str, **allowed: object) -> None:
    """For structures whose members have one value here: `DEFAULT=...`."""
    for member, value in take(given, name, *allowed).items():
        if value != allowed[member]:
            raise unsupported(f"{name}.{member} must be {allowed[member]} here")


def check_user_data(text: str | None) -> str:
    """User data in base64, without line breaks."""
    if not text:
        return ""
    packed = re.sub(r"\s", "", text)
    try:
        plain = base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError):
        raise EC2Error("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
    return pack_user_data(plain)


def pack_user_data(plain: bytes) -> str:
    if len(plain) > MAX_USER_DATA_BYTES:
        raise EC2Error(
            "InvalidParameterValue",
            f"User data is limited to {MAX_USER_DATA_BYTES} bytes before it is encoded; this has {len(plain)}",
        )
    return base64.b64encode(plain).decode()


# --- type and processors ----------------------------------------------------------------------------------------------


def check_type(name: str, image_architecture: str) -> InstanceType:
    """A type that runs here, on which an image of that architecture boots."""
    kind = instance_type.get(name)
    if image_architecture not in kind.architectures:
        raise EC2Error(
            "InvalidParameterValue",
            f"The architecture '{','.join(kind.architectures)}' of the specified instance type does not match the "
            f"architecture '{image_architecture}' of the specified AMI. Choose a type and an AMI of one architecture.",
        )
    if kind.bare_metal:
        raise EC2Error("Unsupported", f"{name} is bare metal, which is not offered here: choose a virtualized size")
    if image_architecture != HOST_ARCHITECTURE:
        raise EC2Error("Unsupported", f"This host runs {HOST_ARCHITECTURE} only, not {image_architecture}")
    if "hvm" not in kind.virtualization_types:
        raise EC2Error(
            "InvalidParameterCombination",
            f"Instances with a virtualization type of 'hvm' are not supported for the instance type {name}",
        )
    return kind


def check_ebs_optimized(kind: InstanceType, wanted: bool | None) -> bool:
    if wanted and kind.ebs_optimized == "unsupported":
        raise EC2Error("Unsupported", f"EBS-optimized instances are not supported for the instance type {kind.name}")
    return bool(wanted)


def check_cpu_options(kind: InstanceType, given: Structure | None) -> tuple[int, int]:
    """(cores, threads per core); zeros when they are as the type has them."""
    options = take(given, "CpuOptions", "CoreCount", "ThreadsPerCore", "AmdSevSnp", "NestedVirtualization")
    for member in ("AmdSevSnp", "NestedVirtualization"):
        if one_of(f"CpuOptions.{member}", options.get(member, "disabled"), ("enabled", "disabled")) == "enabled":
            raise unsupported(f"CpuOptions.{member} must be disabled here")
    cores, threads = options.get("CoreCount", kind.cores), options.get("ThreadsPerCore", kind.threads_per_core)
    if (cores, threads) == (kind.cores, kind.threads_per_core):
        return 0, 0
    if not kind.valid_cores:
        raise EC2Error("InvalidParameterCombination", f"CPU options cannot be chosen for the instance type {kind.name}")
    if cores not in kind.valid_cores:
        raise invalid_parameter("CpuOptions.CoreCount", cores, _one_of_numbers(kind.valid_cores, kind.name))
    if threads not in kind.valid_threads_per_core:
        raise invalid_parameter(
            "CpuOptions.ThreadsPerCore", threads, _one_of_numbers(kind.valid_threads_per_core, kind.name)
        )
    return cores, threads


def _one_of_numbers(numbers: tuple[int, ...], kind: str) -> str:
    return f"one of {', '.join(map(str, numbers))} for {kind}"


def check_credits(kind: InstanceType, given: str | None) -> str:
    """The credit option of a T type, the type's own when none is given; empty for other types."""
    if given is not None:
        one_of("CreditSpecification.CpuCredits", given, CREDITS)
        if given == "unlimited" and not kind.burstable:
            raise EC2Error(
                "InstanceCreditSpecification.NotSupported",
                f"The {kind.name} instance type does not support unlimited CPU credits: only T types do",
            )
    return (given or kind.default_cpu_credits or "") if kind.burstable else ""


# --- metadata ---------------------------------------------------------------------------------------------------------


def metadata_defaults(image: Image) -> MetadataOptions:
    """An image that was registered for IMDSv2 requires tokens, and lets them pass one more hop, for containers."""
    if image.imds_v2_required:
        return MetadataOptions(http_tokens="required", hop_limit=2)
    return MetadataOptions()


_METADATA_MEMBERS: Final = {
    "HttpTokens": ("http_tokens", ("optional", "required")),
    "HttpEndpoint": ("http_endpoint", ("enabled", "disabled")),
    "HttpProtocolIpv6": ("http_protocol_ipv6", ("enabled", "disabled")),
    "InstanceMetadataTags": ("instance_metadata_tags", ("enabled", "disabled")),
}


def change_metadata_options(
    old: MetadataOptions, given: Structure | None, prefix: str = "MetadataOptions."
) -> MetadataOptions:
    changes: dict[str, Any] = {}
    for name, value in (given or {}).items():
        if name in _METADATA_MEMBERS:
            keyword, allowed = _METADATA_MEMBERS[name]
            changes[keyword] = one_of(prefix + name, value, allowed)
        elif name == "HttpPutResponseHopLimit":
            if not 1 <= value <= 64:
                raise invalid_parameter(prefix + name, value, "an integer from 1 to 64")
            changes["hop_limit"] = value
        else:
            raise unsupported(f"{prefix}{name} is not supported here")
    return replace(old, **changes)

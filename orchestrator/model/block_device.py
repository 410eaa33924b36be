"""What block devices are called on an instance, and how many of them it can have.

    /dev/sdf  /dev/xvdf  sdf  xvdf      one and the same device
    /dev/sda1                           a root device; another one than /dev/sda
    ephemeral0                          an instance store disk, in a mapping

A guest has its own names for them: the device name is how EC2 and its users speak of an attachment. Sources: "Device
names for volumes on Amazon EC2 instances" and "Amazon EBS volume limits" in the EC2 user guide.
"""

from __future__ import annotations

import re
from typing import Final

from orchestrator.model.errors import EC2Error
from orchestrator.model.instance_type import InstanceType

MACHINE_DISKS: Final = 32  # that a machine has slots for, whatever its type

_DEVICE: Final = re.compile(r"(?:/dev/)?(?:sd([a-z](?:[1-9]|1[0-5])?)|xvd([a-z]{1,2}))")
_EPHEMERAL: Final = re.compile(r"ephemeral(\d|1\d|2[0-3])")


def check_device(name: str) -> str:
    """`name`, when a volume may be called so."""
    if not _DEVICE.fullmatch(name):
        raise EC2Error(
            "InvalidParameterValue",
            f"Value ({name}) for parameter device is invalid. {name} is not a valid EBS device name: expected "
            "/dev/sd[a-z], /dev/sd[a-z][1-15], or /dev/xvd and one or two letters",
        )
    return name


def place(device: str) -> str:
    """What it comes to: the same for names of one device."""
    match = _DEVICE.fullmatch(device)
    return (match[1] or match[2]) if match else device


def ephemeral_number(virtual_name: str) -> int:
    """0 of ephemeral0."""
    match = _EPHEMERAL.fullmatch(virtual_name)
    if match is None:
        raise EC2Error(
            "InvalidBlockDeviceMapping", f"Invalid virtual name '{virtual_name}'. Expected ephemeral0 to ephemeral23."
        )
    return int(match[1])


def mapped_disks(kind: InstanceType) -> int:
    """How many instance store disks of the type come with a mapping only. NVMe ones are there without."""
    return sum(disks.count for disks in kind.disks) if kind.disk_nvme == "unsupported" else 0


def check_disk_count(kind: InstanceType, *, volumes: int, interfaces: int, mapped: int) -> None:
    """AttachmentLimitExceeded, unless an instance of the type can have so many volumes in all, beside as many network
    interfaces and mapped instance store disks. The type's limit leaves room for its first interface and NVMe disks."""
    shared = kind.ebs_attachment_limit == "shared" and kind.hypervisor == "nitro"
    others = max(0, interfaces - 1) if shared else 0
    if volumes + others > kind.max_ebs_volumes:
        beside = f", {others} of which network interfaces take" if others else ""
        raise EC2Error(
            "AttachmentLimitExceeded",
            f"Volume attachment limit exceeded: the instance type {kind.name} can have {kind.max_ebs_volumes} volumes"
            f"{beside}; this would be {volumes}",
        )
    store = mapped if mapped_disks(kind) else sum(disks.count for disks in kind.disks)
    if volumes + store > MACHINE_DISKS:
        raise EC2Error(
            "AttachmentLimitExceeded",
            f"Volume attachment limit exceeded: a machine here has {MACHINE_DISKS} disks at most; {store} of the "
            f"instance store and {volumes} volumes would be {volumes + store}",
        )

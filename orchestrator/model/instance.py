"""Instances: what was asked for, and what is so.

`goal` is what was asked for; requests write it. `state` is what a user sees; requests write its transitional values
and reconcilers its settled ones. What runs on the host is looked at on each pass and never kept here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from orchestrator.model.lifecycle import State
from orchestrator.model.resource import Resource
from orchestrator.model.vpc import private_dns_name, resource_dns_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What should be: `power` is running, stopped or terminated."""

    power: State = State.RUNNING
    forced: bool = False  # stop without asking the guest
    reboots: int = 0  # how many reboots were asked for in all
    since: datetime | None = None  # when it was asked for: deadlines count from here


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """EC2's stateReason, for example Client.UserInitiatedShutdown."""

    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataOptions:
    http_tokens: str = "optional"  # optional | required
    http_endpoint: str = "enabled"  # enabled | disabled
    http_protocol_ipv6: str = "disabled"
    instance_metadata_tags: str = "disabled"
    hop_limit: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileAssociation:
    """Which instance profile it has, as it was when it was given: the profile itself may be gone."""

    id: str  # iip-assoc-...
    profile_id: str
    arn: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance(Resource):
    KIND: ClassVar[str] = "instance"
    INDEXES: ClassVar[tuple[str, ...]] = (
        "account",
        "state",
        "vpc_id",
        "subnet_id",
        "image_id",
        "reservation_id",
        "kernel_id",
        "draws",
    )

    reservation_id: str
    launch_index: int = 0
    client_token: str = ""
    zone: str
    vpc_id: str
    subnet_id: str
    image_id: str
    instance_type: str
    architecture: str = "x86_64"
    key_name: str = ""
    public_key: str = ""  # as it was at launch: deleting the key pair changes no instance
    user_data: str = ""  # base64
    root_device: str = "/dev/xvda"
    ephemeral_devices: dict[str, str] = field(default_factory=dict)  # ephemeral0 -> its device, where it was mapped
    login_user: str = "ec2-user"
    kernel_id: str = ""
    ramdisk_id: str = ""
    kernel_arguments: str = ""
    platform_details: str = "Linux/UNIX"

    goal: Goal = field(default_factory=Goal)
    state: State = State.PENDING
    reason: Reason | None = None
    transition_reason: str = ""  # EC2's StateTransitionReason
    launched_at: datetime | None = None  # of the last start: EC2's LaunchTime
    ended_at: datetime | None = None  # when it was terminated
    boots: int = 0  # how often the reconciler has started it
    reboots: int = 0  # how many reboots are done
    system_status: str = "initializing"  # ok | impaired | initializing | insufficient-data
    instance_status: str = "initializing"
    impaired_since: datetime | None = None  # the instance's own status
    panicked: bool = False  # its kernel has said so, and nobody has seen it boot since
    paused_reason: str = ""  # why its machine stands still: a disk that cannot be written to
    timeline: dict[str, datetime] = field(default_factory=dict)  # phase of the last launch; see PHASES

    shutdown_behavior: str = "stop"  # stop | terminate
    disable_api_termination: bool = False
    disable_api_stop: bool = False
    ebs_optimized: bool = False
    monitoring: bool = False
    tenancy: str = "default"
    cpu_credits: str = ""  # standard | unlimited, for T types
    core_count: int = 0  # 0: as the type has them
    threads_per_core: int = 0
    auto_recovery: str = "default"
    capacity_reservation_preference: str = "open"  # open | none
    boot_mode: str = ""  # as the image has it: legacy-bios | uefi
    host_name_type: str = "ip-name"  # ip-name | resource-name
    resource_name_a: bool = False  # its resource name resolves to its IPv4 address
    resource_name_aaaa: bool = False
    metadata: MetadataOptions = field(default_factory=MetadataOptions)
    profile: ProfileAssociation | None = None

    @property
    def draws(self) -> str:
        """What it takes of the host while it runs, or is about to: TYPE/CORES/THREADS, zero for as the type has them.
        Empty for one that takes nothing."""
        if self.state not in (State.PENDING, State.RUNNING):
            return ""
        return f"{self.instance_type}/{self.core_count}/{self.threads_per_core}"

    def private_name(self, address: str) -> str:
        """What it is called inside its VPC; `address` is the primary one of an interface."""
        if self.host_name_type == "resource-name":
            return resource_dns_name(self.id, self.region)
        return private_dns_name(address, self.region)


# A launch's timeline, in order.
PHASES = ("requested", "volume", "network", "started", "address", "metadata", "user-data", "ssh")

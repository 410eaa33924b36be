"""How an instance is shown: complete, from its own row and those of its interfaces and volumes.

    Instance ──┐
    interfaces ┼─► Shown ──► view()       the structure that RunInstances and DescribeInstances answer
    volumes  ──┘        └──► fragment()   the same, kept as text until one of the rows in it changes

A terminated instance shows no network and no disks. A row that is gone (a group, a VPC) empties what it would say.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, Final, cast

from orchestrator.api.ec2.interface_view import (
    interface_filters,
    private_names,
    public_address,
    public_name,
    show_attachment_within,
    show_groups,
    show_interface,
)
from orchestrator.api.operation import Answer, Call
from orchestrator.api.protocol import Fragment
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.filters import FilterTable, Value, boolean
from orchestrator.model.instance import Instance, MetadataOptions
from orchestrator.model.instance_type import CATALOGUE
from orchestrator.model.lifecycle import CODES, State
from orchestrator.model.resource import Rows
from orchestrator.model.tags import tag_set
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface, SecurityGroup, Vpc
from orchestrator.model.zone import zone_id
from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class Shown:
    """An instance and what hangs on it; interfaces by device index, volumes by device, the root first."""

    call: Call
    instance: Instance
    interfaces: Sequence[NetworkInterface]
    volumes: Sequence[Volume]

    @property
    def primary(self) -> NetworkInterface | None:
        return self.interfaces[0] if self.interfaces else None

    def key(self) -> Hashable:
        """All that `view` shows follows from these: revisions are unique in a store."""
        instance, read = self.instance, self.call.db.get
        parts = [instance.id, instance.revision]
        for interface in self.interfaces:
            parts.append(interface.revision)
            for group_id in interface.groups:
                group = read(SecurityGroup, group_id)
                parts.append(group.revision if group else 0)
            vpc = read(Vpc, interface.vpc_id)
            parts.append(vpc.revision if vpc else 0)
            parts += [address.revision for address in self.call.db.all(ElasticIp, interface_id=interface.id)]
        parts += [volume.revision for volume in self.volumes]
        return tuple(parts)


def gather(call: Call, instance: Instance) -> Shown:
    if instance.state is State.TERMINATED:
        return Shown(call, instance, (), ())
    interfaces = call.db.all(NetworkInterface, instance_id=instance.id)
    if len(interfaces) > 1:
        interfaces.sort(key=lambda eni: eni.attachment.device_index if eni.attachment else 0)
    volumes = call.db.all(Volume, instance_id=instance.id)
    if len(volumes) > 1:
        volumes.sort(key=lambda volume: _device_order(instance, volume))
    return Shown(call, instance, interfaces, volumes)


def _device_order(instance: Instance, volume: Volume) -> tuple[bool, str]:
    device = volume.attachment.device if volume.attachment else ""
    return device != instance.root_device, device


class _Once:
    """Rows that are read once: whatever is asked for again is answered as it was."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._got: dict[Hashable, Any] = {}

    def get(self, kind: type[Any], resource_id: str) -> Any:
        asked = (kind, resource_id)
        if asked not in self._got:
            self._got[asked] = self._rows.get(kind, resource_id)
        return self._got[asked]

    def all(self, kind: type[Any], /, **where: Any) -> Any:
        asked = (kind, *where.items())
        if asked not in self._got:
            self._got[asked] = self._rows.all(kind, **where)
        return self._got[asked]


def fragment(shown: Shown) -> Fragment:
    return _fragment(shown, view)


def _fragment(shown: Shown, show: Callable[[Shown], Answer]) -> Fragment:
    """An answer is written when all of it has been gathered, and others commit meanwhile: an address that is associated
    in between and parted from later would be shown under the key that is of both before and after."""

    def anew() -> Fragment:
        pinned = replace(shown, call=replace(shown.call, db=cast(Store, _Once(shown.call.db))))
        return Fragment(pinned.key(), lambda: show(pinned))

    return Fragment(shown.key(), lambda: show(shown), anew)


def reservations(call: Call, instances: Iterable[Instance]) -> list[Answer | Fragment]:
    """Grouped by the call that launched them, in the order in which they come."""
    groups: dict[str, list[Instance]] = {}
    for instance in instances:
        groups.setdefault(instance.reservation_id, []).append(instance)
    return [_reservation(call, members) for members in groups.values()]


def _reservation(call: Call, members: Sequence[Instance]) -> Answer | Fragment:
    if len(members) > 1:
        return show_reservation(members[0], [fragment(gather(call, instance)) for instance in members])
    return _fragment(gather(call, members[0]), lambda shown: show_reservation(shown.instance, [view(shown)]))


def show_reservation(instance: Instance, shown: Sequence[Answer | Fragment]) -> Answer:
    """`shown` are the instances of the reservation that `instance` is of."""
    return {
        "ReservationId": instance.reservation_id,
        "OwnerId": instance.account,
        "Groups": [],  # groups of EC2-Classic
        "Instances": shown,
    }


# --- one instance -----------------------------------------------------------------------------------------------------


def show_state(state: State) -> Answer:
    return {"Code": CODES[state], "Name": state.value}


def view(shown: Shown) -> Answer:
    instance = shown.instance
    answer: Answer = {
        "InstanceId": instance.id,
        "ImageId": instance.image_id,
        "State": show_state(instance.state),
        "PrivateDnsName": "",
        "PublicDnsName": "",
        "StateTransitionReason": instance.transition_reason,
        "AmiLaunchIndex": instance.launch_index,
        "ProductCodes": [],
        "InstanceType": instance.instance_type,
        "LaunchTime": instance.launched_at or instance.created,
        "Placement": {
            "AvailabilityZone": instance.zone,
            "AvailabilityZoneId": zone_id(instance.zone),
            "GroupName": "",
            "Tenancy": instance.tenancy,
        },
        "Monitoring": {"State": "enabled" if instance.monitoring else "disabled"},
        "Architecture": instance.architecture,
        "RootDeviceType": "ebs",
        "RootDeviceName": instance.root_device,
        "BlockDeviceMappings": show_block_devices(shown.volumes),
        "VirtualizationType": "hvm",
        "ClientToken": instance.client_token,
        "EbsOptimized": instance.ebs_optimized,
        "EnaSupport": True,
        "Hypervisor": "xen",  # what EC2 says of every instance, Nitro or not
        "NetworkInterfaces": [_show_interface(shown.call, interface) for interface in shown.interfaces],
        "SecurityGroups": [],
        "CpuOptions": show_cpu_options(instance),
        "CapacityReservationSpecification": {"CapacityReservationPreference": instance.capacity_reservation_preference},
        "HibernationOptions": {"Configured": False},
        "MetadataOptions": show_metadata_options(instance.metadata),
        "EnclaveOptions": {"Enabled": False},
        "PlatformDetails": instance.platform_details,
        "UsageOperation": usage_operation(instance),
        "UsageOperationUpdateTime": instance.created,
        "PrivateDnsNameOptions": {
            "HostnameType": instance.host_name_type,
            "EnableResourceNameDnsARecord": instance.resource_name_a,
            "EnableResourceNameDnsAAAARecord": instance.resource_name_aaaa,
        },
        "MaintenanceOptions": {"AutoRecovery": instance.auto_recovery, "RebootMigration": "default"},
        "NetworkPerformanceOptions": {"BandwidthWeighting": "default"},
        "CurrentInstanceBootMode": current_boot_mode(instance),
        "Operator": {"Managed": False},
        "Tags": tag_set(instance.tags),
    }
    optional = {
        "KeyName": instance.key_name,
        "KernelId": instance.kernel_id,
        "RamdiskId": instance.ramdisk_id,
        "Platform": platform(instance),
        "BootMode": instance.boot_mode,
    }
    answer |= {name: value for name, value in optional.items() if value}
    if instance.reason is not None:
        answer["StateReason"] = {"Code": instance.reason.code, "Message": instance.reason.message}
    if instance.profile is not None:
        answer["IamInstanceProfile"] = {"Arn": instance.profile.arn, "Id": instance.profile.profile_id}
    if instance.state is not State.TERMINATED:
        answer |= {"SubnetId": instance.subnet_id, "VpcId": instance.vpc_id}
    if shown.primary is not None:
        answer |= _show_addresses(shown.call, shown.primary)
        answer["PrivateDnsName"] = instance.private_name(shown.primary.private_ip)
    return answer


def _show_addresses(call: Call, interface: NetworkInterface) -> Answer:
    """What the primary interface gives to its instance."""
    addresses: Answer = {
        "PrivateIpAddress": interface.private_ip,
        "PublicDnsName": public_name(call, interface),
        "SourceDestCheck": interface.source_dest_check,
        "SecurityGroups": show_groups(call, interface),
    }
    if public_ip := public_address(call, interface):
        addresses["PublicIpAddress"] = public_ip
    if interface.ipv6_addresses:
        addresses["Ipv6Address"] = interface.ipv6_addresses[0]
    return addresses


def _show_interface(call: Call, interface: NetworkInterface) -> Answer:
    shown = show_interface(call, interface)
    if attachment := show_attachment_within(interface):
        shown["Attachment"] = attachment
    return shown


def show_block_devices(volumes: Sequence[Volume]) -> list[Answer]:
    return [
        {
            "DeviceName": volume.attachment.device,
            "Ebs": {
                "VolumeId": volume.id,
                # A volume that its guest does not let go of is `busy` where volumes are listed, but not here.
                "Status": "detaching" if volume.attachment.state == "busy" else volume.attachment.state,
                "AttachTime": volume.attachment.attached_at,
                "DeleteOnTermination": volume.attachment.delete_on_termination,
            },
        }
        for volume in volumes
        if volume.attachment is not None
    ]


def show_cpu_options(instance: Instance) -> Answer:
    kind = CATALOGUE.get(instance.instance_type)
    return {
        "CoreCount": instance.core_count or (kind.cores if kind else 1),
        "ThreadsPerCore": instance.threads_per_core or (kind.threads_per_core if kind else 1),
    }


def show_metadata_options(options: MetadataOptions, state: str = "applied") -> Answer:
    return {
        "State": state,
        "HttpTokens": options.http_tokens,
        "HttpPutResponseHopLimit": options.hop_limit,
        "HttpEndpoint": options.http_endpoint,
        "HttpProtocolIpv6": options.http_protocol_ipv6,
        "InstanceMetadataTags": options.instance_metadata_tags,
    }


def platform(instance: Instance) -> str:
    return "windows" if instance.platform_details.startswith("Windows") else ""


def current_boot_mode(instance: Instance) -> str:
    """What its firmware is: one that prefers UEFI is content with a BIOS."""
    return "uefi" if instance.boot_mode == "uefi" else "legacy-bios"


def usage_operation(instance: Instance) -> str:
    return "RunInstances:0002" if platform(instance) else "RunInstances"


# --- filters ----------------------------------------------------------------------------------------------------------

# Documented filters on what instances never have here: they match nothing.
_NEVER: Final = (
    "affinity",
    "capacity-reservation-id",
    "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-id",
    "capacity-reservation-specification.capacity-reservation-target.capacity-reservation-resource-group-arn",
    "host-id",
    "instance-lifecycle",
    "operator.principal",
    "outpost-arn",
    "placement-group-name",
    "placement-partition-number",
    "product-code",
    "product-code.type",
    "requester-id",
    "spot-instance-request-id",
    "tpm-support",
    *(
        f"network-interface.{name}"
        for name in (
            "addresses.association.carrier-ip",
            "addresses.association.customer-owned-ip",
            "association.carrier-ip",
            "association.customer-owned-ip",
            "ipv6-prefixes.ipv6-prefix",
            "outpost-arn",
        )
    ),
)


def _time(at: datetime | None) -> str | None:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z" if at else None


def _text(path: str) -> Callable[[Any], Value]:
    """An attribute as a filter sees it: EC2's words for yes and no; what is empty matches nothing."""
    read = attrgetter(path)

    def value(instance: Instance) -> Value:
        found = read(instance)
        return boolean(found) if isinstance(found, bool) else str(found) if found != "" else None

    return value


def instance_filters(call: Call) -> FilterTable:
    """Filters on instances; those on interfaces and volumes look at the rows as `call` sees them."""

    def of_primary(read: Callable[[NetworkInterface], Value]) -> Callable[[Any], Value]:
        def value(instance: Instance) -> Value:
            primary = gather(call, instance).primary
            return read(primary) if primary is not None else None

        return value

    def named(instance: Instance) -> Value:
        primary = gather(call, instance).primary
        return instance.private_name(primary.private_ip) if primary is not None else None

    def of_interfaces(read: Callable[[Any], Value]) -> Callable[[Any], Value]:
        return lambda instance: _flat(read(interface) for interface in gather(call, instance).interfaces)

    def of_volumes(read: Callable[[Any], Value]) -> Callable[[Any], Value]:
        return lambda instance: _flat(
            read(volume) for volume in gather(call, instance).volumes if volume.attachment is not None
        )

    of_its_own = interface_filters(call)
    interface: dict[str, Callable[[Any], Value]] = {
        **of_its_own,
        **{f"addresses.{name}": of_its_own[name] for name in of_its_own if name.startswith("association.")},
        "addresses.private-dns-name": private_names,
        "attachment.network-card-index": lambda eni: "0",
        "deny-all-igw-traffic": lambda eni: "false",
        "ipv4-prefixes.ipv4-prefix": lambda eni: eni.prefixes,
        "ipv6-address": lambda eni: eni.ipv6_addresses,
        "ipv6-addresses.is-primary-ipv6": lambda eni: "false" if eni.ipv6_addresses else None,
        "ipv6-native": lambda eni: "false",
        "public-dns-name": lambda eni: public_name(call, eni) or None,
        "tag-key": lambda eni: list(eni.tags),
        "tag-value": lambda eni: list(eni.tags.values()),
    }
    present = _unless_terminated
    return {
        **{name: lambda instance: None for name in _NEVER},
        **{f"network-interface.{name}": of_interfaces(read) for name, read in interface.items()},
        "architecture": _text("architecture"),
        "availability-zone": _text("zone"),
        "availability-zone-id": lambda instance: zone_id(instance.zone),
        "block-device-mapping.attach-time": of_volumes(lambda volume: _time(volume.attachment.attached_at)),
        "block-device-mapping.delete-on-termination": of_volumes(
            lambda volume: boolean(volume.attachment.delete_on_termination)
        ),
        "block-device-mapping.device-name": of_volumes(_text("attachment.device")),
        "block-device-mapping.status": of_volumes(_text("attachment.state")),
        "block-device-mapping.volume-id": of_volumes(_text("id")),
        "boot-mode": _text("boot_mode"),
        "capacity-reservation-specification.capacity-reservation-preference": _text("capacity_reservation_preference"),
        "client-token": _text("client_token"),
        "current-instance-boot-mode": current_boot_mode,
        "dns-name": of_primary(lambda eni: public_name(call, eni) or None),
        "ebs-optimized": _text("ebs_optimized"),
        "ena-support": lambda instance: "true",
        "enclave-options.enabled": lambda instance: "false",
        "group-id": of_primary(lambda eni: eni.groups),
        "group-name": of_primary(lambda eni: [group["GroupName"] for group in show_groups(call, eni)]),
        "hibernation-options.configured": lambda instance: "false",
        "hypervisor": lambda instance: "xen",
        "iam-instance-profile.arn": lambda instance: instance.profile.arn if instance.profile else None,
        "iam-instance-profile.id": lambda instance: instance.profile.profile_id if instance.profile else None,
        "iam-instance-profile.name": lambda instance: (
            instance.profile.arn.rpartition("/")[2] if instance.profile else None
        ),
        "image-id": _text("image_id"),
        "instance-id": _text("id"),
        "instance-state-code": lambda instance: str(CODES[instance.state]),
        "instance-state-name": lambda instance: instance.state.value,
        "instance-type": _text("instance_type"),
        "instance.group-id": of_primary(lambda eni: eni.groups),
        "instance.group-name": of_primary(lambda eni: [group["GroupName"] for group in show_groups(call, eni)]),
        "ip-address": of_primary(lambda eni: public_address(call, eni) or None),
        "ipv6-address": of_primary(lambda eni: eni.ipv6_addresses),
        "kernel-id": _text("kernel_id"),
        "key-name": _text("key_name"),
        "launch-index": _text("launch_index"),
        "launch-time": lambda instance: _time(instance.launched_at or instance.created),
        "maintenance-options.auto-recovery": _text("auto_recovery"),
        "metadata-options.http-endpoint": _text("metadata.http_endpoint"),
        "metadata-options.http-protocol-ipv4": _text("metadata.http_endpoint"),
        "metadata-options.http-protocol-ipv6": _text("metadata.http_protocol_ipv6"),
        "metadata-options.http-put-response-hop-limit": _text("metadata.hop_limit"),
        "metadata-options.http-tokens": _text("metadata.http_tokens"),
        "metadata-options.instance-metadata-tags": _text("metadata.instance_metadata_tags"),
        "metadata-options.state": lambda instance: "applied",
        "monitoring-state": lambda instance: "enabled" if instance.monitoring else "disabled",
        "network-performance-options.bandwidth-weighting": lambda instance: "default",
        "operator.managed": lambda instance: "false",
        "owner-id": _text("account"),
        "platform": lambda instance: platform(instance) or None,
        "platform-details": _text("platform_details"),
        "private-dns-name": named,
        "private-dns-name-options.enable-resource-name-dns-a-record": lambda instance: boolean(
            instance.resource_name_a
        ),
        "private-dns-name-options.enable-resource-name-dns-aaaa-record": lambda instance: boolean(
            instance.resource_name_aaaa
        ),
        "private-dns-name-options.hostname-type": _text("host_name_type"),
        "private-ip-address": of_primary(lambda eni: eni.private_ip),
        "ramdisk-id": _text("ramdisk_id"),
        "reason": _text("transition_reason"),
        "reservation-id": _text("reservation_id"),
        "root-device-name": _text("root_device"),
        "root-device-type": lambda instance: "ebs",
        "source-dest-check": of_primary(lambda eni: boolean(eni.source_dest_check)),
        "state-reason-code": lambda instance: instance.reason.code if instance.reason else None,
        "state-reason-message": lambda instance: instance.reason.message if instance.reason else None,
        "subnet-id": present("subnet_id"),
        "tag-value": lambda instance: list(instance.tags.values()),
        "tenancy": _text("tenancy"),
        "usage-operation": usage_operation,
        "usage-operation-update-time": lambda instance: _time(instance.created),
        "virtualization-type": lambda instance: "hvm",
        "vpc-id": present("vpc_id"),
    }


def _unless_terminated(path: str) -> Callable[[Any], Value]:
    read = _text(path)
    return lambda instance: None if instance.state is State.TERMINATED else read(instance)


def _flat(values: Iterable[Value]) -> Value:
    flat: list[str] = []
    for value in values:
        if isinstance(value, str):
            flat.append(value)
        elif value is not None:
            flat.extend(value)
    return flat

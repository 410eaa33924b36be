"""RunInstances: one call becomes a reservation of instances, each with its disks and its network interfaces.

    request ──► checked: image, type, options │ Place (interfaces: subnets, groups) │ LaunchDisks
                                              │
                  as many as fit from MinCount to MaxCount: processors, memory, private and public addresses
                                              │
    for each:   Instance ──wake     Volume + Layer for each disk     NetworkInterfaces, made or there already

All rows are written in the call's transaction, so a launch that is refused leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from orchestrator.api.ec2.capacity import Room, vcpus
from orchestrator.api.ec2.images import boot_mode, find_image
from orchestrator.api.ec2.instance_profiles import new_association
from orchestrator.api.ec2.instance_view import Shown, show_reservation, view
from orchestrator.api.ec2.launch_disks import LaunchDisks, plan_disks
from orchestrator.api.ec2.launch_network import NewInterface, OwnInterface, Place, choose_place, choose_zone
from orchestrator.api.ec2.launch_options import (
    SHUTDOWN_BEHAVIORS,
    Structure,
    change_metadata_options,
    check_cpu_options,
    check_credits,
    check_ebs_optimized,
    check_type,
    check_user_data,
    fixed,
    metadata_defaults,
    switched_off,
    take,
)
from orchestrator.api.ec2.network_interfaces import new_interface
from orchestrator.api.ec2.new_volumes import new_volume
from orchestrator.api.ec2.subnet_addresses import Addresses, NoRoom, PublicAddresses
from orchestrator.api.ec2.subnets import HOST_NAME_TYPES
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import ids, quota
from orchestrator.model.block_device import check_disk_count
from orchestrator.model.errors import EC2Error, missing_parameter, one_of, unsupported
from orchestrator.model.image import Image
from orchestrator.model.instance import Goal, Instance
from orchestrator.model.instance_type import InstanceType
from orchestrator.model.key_pair import KeyPair
from orchestrator.model.lifecycle import State
from orchestrator.model.tags import tags_at_creation
from orchestrator.model.volume import VolumeAttachment
from orchestrator.model.vpc import InterfaceAttachment, NetworkInterface, Subnet

DEFAULT_TYPE: Final = "m1.small"  # EC2's own, and so what code that names none counts with
MAX_COUNT: Final = 1000  # instances of one call

Tags = dict[str, dict[str, str]]


@operation("RunInstances", writes=True)
def run_instances(
    call: Call,
    *,
    min_count: int,
    max_count: int,
    image_id: str | None = None,
    instance_type: str = DEFAULT_TYPE,
    key_name: str | None = None,
    user_data: str | None = None,
    security_group_ids: list[str] | None = None,
    security_groups: list[str] | None = None,
    subnet_id: str | None = None,
    private_ip_address: str | None = None,
    ipv6_addresses: list[Structure] | None = None,
    ipv6_address_count: int | None = None,
    enable_primary_ipv6: bool = False,
    network_interfaces: list[Structure] | None = None,
    block_device_mappings: list[Structure] | None = None,
    tag_specifications: list[Structure] | None = None,
    instance_initiated_shutdown_behavior: str = "stop",
    disable_api_termination: bool = False,
    disable_api_stop: bool = False,
    metadata_options: Structure | None = None,
    placement: Structure | None = None,
    monitoring: Structure | None = None,
    ebs_optimized: bool | None = None,
    credit_specification: Structure | None = None,
    cpu_options: Structure | None = None,
    maintenance_options: Structure | None = None,
    capacity_reservation_specification: Structure | None = None,
    hibernation_options: Structure | None = None,
    enclave_options: Structure | None = None,
    private_dns_name_options: Structure | None = None,
    network_performance_options: Structure | None = None,
    iam_instance_profile: Structure | None = None,
) -> Answer:
    check_counts(min_count, max_count)
    tags = tags_at_creation(tag_specifications, "instance", "volume", "network-interface")
    switched_off(hibernation_options, "HibernationOptions", "Configured")
    switched_off(enclave_options, "EnclaveOptions", "Enabled")
    fixed(network_performance_options, "NetworkPerformanceOptions", BandwidthWeighting="default")
    if enable_primary_ipv6:
        raise unsupported("EnablePrimaryIpv6 must be false here")
    image = launchable_image(call, image_id)
    kind = check_type(instance_type, image.architecture)
    cores, threads = check_cpu_options(kind, cpu_options)
    zone = choose_zone(call, placement)
    place = choose_place(
        call,
        kind=kind,
        least=min_count,
        most=max_count,
        zone=zone,
        top={
            "SubnetId": subnet_id,
            "Groups": security_group_ids,
            "PrivateIpAddress": private_ip_address,
            "Ipv6Addresses": ipv6_addresses,
            "Ipv6AddressCount": ipv6_address_count,
        },
        group_names=security_groups,
        interfaces=network_interfaces,
    )
    disks = plan_disks(call, image, kind, block_device_mappings)
    check_disk_count(kind, volumes=len(disks.volumes), interfaces=len(place.interfaces), mapped=len(disks.ephemeral))
    first = Instance(
        id="",
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags["instance"],
        reservation_id=ids.mint("r"),
        client_token=call.params.get("ClientToken", ""),
        zone=place.subnet.zone,
        vpc_id=place.subnet.vpc_id,
        subnet_id=place.subnet.id,
        image_id=image_id or image.id,  # as it was asked for: it may be an alias
        instance_type=kind.name,
        architecture=image.architecture,
        key_name=key_name or "",
        public_key=find_public_key(call, key_name),
        user_data=check_user_data(user_data),
        root_device=image.root_device,
        ephemeral_devices=disks.ephemeral,
        login_user=image.login_user,
        kernel_id=image.kernel_id,
        ramdisk_id=image.ramdisk_id,
        kernel_arguments=image.kernel_arguments,
        platform_details=image.platform_details,
        boot_mode=boot_mode(image),
        **host_names(place.subnet, private_dns_name_options),
        goal=Goal(power=State.RUNNING, since=call.now),
        state=State.PENDING,
        launched_at=call.now,
        timeline={"requested": call.now},
        shutdown_behavior=one_of(
            "InstanceInitiatedShutdownBehavior", instance_initiated_shutdown_behavior, SHUTDOWN_BEHAVIORS
        ),
        disable_api_termination=disable_api_termination,
        disable_api_stop=disable_api_stop,
        ebs_optimized=check_ebs_optimized(kind, ebs_optimized),
        monitoring=bool(take(monitoring, "Monitoring", "Enabled").get("Enabled")),
        cpu_credits=check_credits(
            kind, take(credit_specification, "CreditSpecification", "CpuCredits").get("CpuCredits")
        ),
        core_count=cores,
        threads_per_core=threads,
        auto_recovery=_choice(maintenance_options, "MaintenanceOptions", "AutoRecovery", ("default", "disabled")),
        capacity_reservation_preference=_choice(
            capacity_reservation_specification,
            "CapacityReservationSpecification",
            "CapacityReservationPreference",
            ("open", "none"),
        ),
        metadata=change_metadata_options(metadata_defaults(image), metadata_options),
        profile=new_association(call, iam_instance_profile),
    )
    call.tx.put(replace(image, last_launched_at=call.now))
    allotted = allot(call, kind, vcpus(kind, cores, threads), place, min_count, max_count)
    shown = [_launch(call, numbered(first, index), place, disks, tags, share) for index, share in enumerate(allotted)]
    return show_reservation(first, shown)


def numbered(first: Instance, index: int) -> Instance:
    """One of the instances of a launch, with ids of its own."""
    profile = replace(first.profile, id=ids.mint("iip-assoc")) if first.profile is not None else None
    return replace(first, id=ids.mint("i"), launch_index=index, profile=profile)


# --- what is checked --------------------------------------------------------------------------------------------------


def check_counts(least: int, most: int) -> None:
    for name, count in (("Minimum", least), ("Maximum", most)):
        if count < 1:
            raise EC2Error("InvalidParameterValue", f"{name} instance count must be greater than zero")
    if least > most:
        raise EC2Error("InvalidParameterCombination", f"MinCount ({least}) must not be greater than MaxCount ({most})")
    if least > MAX_COUNT:
        raise EC2Error(
            "InstanceLimitExceeded",
            f"You have requested more instances ({least}) than one call may start here ({MAX_COUNT})",
        )


def launchable_image(call: Call, image_id: str | None) -> Image:
    if not image_id:
        raise missing_parameter("ImageId")
    image = find_image(call, image_id)
    if image.state != "available":
        raise EC2Error("InvalidAMIID.Unavailable", f"The image ID '{image_id}' is not available: it is {image.state}")
    return image


def find_public_key(call: Call, key_name: str | None) -> str:
    """The key pair's public half; empty without a key pair."""
    if not key_name:
        return ""
    found = call.mine(KeyPair, name=key_name)
    if not found:
        raise EC2Error("InvalidKeyPair.NotFound", f"The key pair '{key_name}' does not exist")
    return found[0].public_key


def host_names(subnet: Subnet, given: Structure | None) -> dict[str, Any]:
    """How an instance is called, as fields of its row: what the request does not say, the subnet does."""
    kind, ipv4, ipv6 = "HostnameType", "EnableResourceNameDnsARecord", "EnableResourceNameDnsAAAARecord"
    said = take(given, "PrivateDnsNameOptions", kind, ipv4, ipv6)
    host_name_type = said.get(kind, subnet.host_name_type)
    return {
        "host_name_type": one_of(f"PrivateDnsNameOptions.{kind}", host_name_type, HOST_NAME_TYPES),
        "resource_name_a": said.get(ipv4, subnet.resource_name_a),
        "resource_name_aaaa": said.get(ipv6, subnet.resource_name_aaaa),
    }


def _choice(given: Structure | None, name: str, member: str, allowed: tuple[str, ...]) -> str:
    """The structure's one member; the first of `allowed` is the default."""
    return one_of(f"{name}.{member}", take(given, name, member).get(member, allowed[0]), allowed)


# --- how many, and what each gets -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """What one instance gets of the addresses."""

    private: tuple[Addresses, ...]  # for each new interface, in order
    public_ip: str = ""  # of the only interface


def quota_for(call: Call, processors: int, least: int, most: int) -> int:
    """How many of `most` instances the account may start, each with so many vCPUs; EC2's error for under `least`."""
    quotas = call.settings.quotas
    for name, each in (("instances", 1), ("vcpus", processors)):
        fitting = quota.fit(call.tx, quotas, name, call.account, call.region, each, most)
        if fitting < least:
            raise quota.refusal(call.tx, quotas, name, call.account, call.region, least * each)
        most = fitting
    return most


def allot(call: Call, kind: InstanceType, processors: int, place: Place, least: int, most: int) -> list[Share]:
    """What each instance gets, for as many as fit, or EC2's error when `least` do not."""
    room, public = Room(call), PublicAddresses(call)
    new = [one for one in place.interfaces if isinstance(one, NewInterface)]
    allotted: list[Share] = []
    error: EC2Error | None = None
    most = quota_for(call, processors, least, min(most, MAX_COUNT))
    while len(allotted) < most:
        if not room.take(kind, processors):
            error = room.refuse(kind, processors, least, place.subnet.zone)
            break
        try:
            private = tuple(place.addresses[one.subnet.id].allot(one.wanted) for one in new)
        except NoRoom as full:
            error = full
            break
        public_ip = public.take() if any(one.public for one in new) else ""
        if public_ip is None:
            error = public.refuse()
            break
        allotted.append(Share(private, public_ip))
    if error is not None and len(allotted) < least:
        raise error
    return allotted


def _launch(call: Call, instance: Instance, place: Place, disks: LaunchDisks, tags: Tags, share: Share) -> Answer:
    """Write one instance with what belongs to it, and show it."""
    tx = call.tx
    interfaces = [tx.put(each) for each in _interfaces(call, instance, place, tags["network-interface"], share)]
    volumes = [
        new_volume(
            call,
            disk.volume,
            place.subnet.zone,
            tags=tags["volume"],
            attachment=VolumeAttachment(
                instance_id=instance.id,
                device=disk.device,
                state="attaching",
                delete_on_termination=disk.delete_on_termination,
                attached_at=call.now,
            ),
        )
        for disk in disks.volumes
    ]
    tx.wake(tx.put(instance))
    return view(Shown(call, instance, interfaces, volumes))


def _interfaces(
    call: Call, instance: Instance, place: Place, tags: dict[str, str], share: Share
) -> Iterator[NetworkInterface]:
    addresses = iter(share.private)
    for one in place.interfaces:
        attachment = InterfaceAttachment(
            id=ids.mint("eni-attach"),
            instance_id=instance.id,
            device_index=one.device_index,
            delete_on_termination=one.delete_on_termination,
            attached_at=call.now,
        )
        if isinstance(one, OwnInterface):
            yield replace(one.interface, state="in-use", attachment=attachment)
            continue
        yield new_interface(
            call,
            one.subnet,
            next(addresses),
            tags=tags,
            public_ip=share.public_ip if one.public else "",
            auto_public_ip=one.public,
            last_public_ip=share.public_ip if one.public else "",
            description=one.description,
            groups=one.groups,
            state="in-use",
            attachment=attachment,
        )

"""DescribeInstanceAttribute, ModifyInstanceAttribute and ResetInstanceAttribute.

An attribute is changed by a member of its own (`DisableApiStop={"Value": true}`) or by `Attribute` and `Value`, one of
them in a call. What the guest is started with changes only while it is stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from orchestrator.api.ec2.instance_view import Shown, gather, show_block_devices
from orchestrator.api.ec2.interface_view import show_groups
from orchestrator.api.ec2.launch_options import (
    SHUTDOWN_BEHAVIORS,
    Structure,
    check_ebs_optimized,
    check_type,
    check_user_data,
    pack_user_data,
    switched_off,
    take,
)
from orchestrator.api.ec2.network_interfaces import check_groups, only_interface, put_interface
from orchestrator.api.ec2.subnet_addresses import check_interface_count, check_interface_limits
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import instance_type
from orchestrator.model.block_device import check_disk_count, ephemeral_number, mapped_disks
from orchestrator.model.errors import EC2Error, missing_parameter, one_of, unsupported
from orchestrator.model.instance import Instance
from orchestrator.model.instance_type import CATALOGUE
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import NetworkInterface

# --- reading ----------------------------------------------------------------------------------------------------------


def _value(value: object) -> Answer:
    """EC2 writes an attribute without a value as an empty element."""
    return {} if value == "" else {"Value": value}


def _show_source_dest_check(shown: Shown) -> Answer:
    return _value(shown.primary.source_dest_check if shown.primary else "")


def _show_groups(shown: Shown) -> list[Answer]:
    return show_groups(shown.call, shown.primary) if shown.primary else []


# attribute -> (member of the answer, what it says)
_ATTRIBUTES: Final[Mapping[str, tuple[str, Callable[[Shown], Any]]]] = {
    "instanceType": ("InstanceType", lambda shown: _value(shown.instance.instance_type)),
    "kernel": ("KernelId", lambda shown: _value(shown.instance.kernel_id)),
    "ramdisk": ("RamdiskId", lambda shown: _value(shown.instance.ramdisk_id)),
    "userData": ("UserData", lambda shown: _value(shown.instance.user_data)),
    "disableApiTermination": (
        "DisableApiTermination",
        lambda shown: _value(shown.instance.disable_api_termination),
    ),
    "instanceInitiatedShutdownBehavior": (
        "InstanceInitiatedShutdownBehavior",
        lambda shown: _value(shown.instance.shutdown_behavior),
    ),
    "rootDeviceName": ("RootDeviceName", lambda shown: _value(shown.instance.root_device)),
    "blockDeviceMapping": ("BlockDeviceMappings", lambda shown: show_block_devices(shown.volumes)),
    "productCodes": ("ProductCodes", lambda shown: []),
    "sourceDestCheck": ("SourceDestCheck", _show_source_dest_check),
    "groupSet": ("Groups", _show_groups),
    "ebsOptimized": ("EbsOptimized", lambda shown: _value(shown.instance.ebs_optimized)),
    "sriovNetSupport": ("SriovNetSupport", lambda shown: _value("simple")),
    "enaSupport": ("EnaSupport", lambda shown: _value(True)),
    "enclaveOptions": ("EnclaveOptions", lambda shown: {"Enabled": False}),
    "disableApiStop": ("DisableApiStop", lambda shown: _value(shown.instance.disable_api_stop)),
}


@operation("DescribeInstanceAttribute")
def describe_instance_attribute(call: Call, *, instance_id: str, attribute: str) -> Answer:
    instance = call.find(Instance, "i", instance_id)
    member, read = _ATTRIBUTES[one_of("attribute", attribute, _ATTRIBUTES)]
    return {"InstanceId": instance.id, member: read(gather(call, instance))}


# --- changing ---------------------------------------------------------------------------------------------------------


def _stopped(instance: Instance) -> None:
    if instance.state is not State.STOPPED:
        raise EC2Error("IncorrectInstanceState", f"The instance '{instance.id}' is not in the 'stopped' state.")


def _set(call: Call, instance: Instance, **changes: Any) -> None:
    call.tx.put(replace(instance, **changes))


def _set_type(call: Call, instance: Instance, name: str) -> None:
    if name not in CATALOGUE:
        raise EC2Error("InvalidInstanceAttributeValue", f"Invalid value '{name}' for InstanceType.")
    _stopped(instance)
    kind = check_type(name, instance.architecture)
    shown = gather(call, instance)
    interfaces = shown.interfaces
    check_interface_count(kind, len(interfaces))
    for interface in interfaces:
        check_interface_limits(kind, interface)
    check_ebs_optimized(kind, instance.ebs_optimized)
    ephemeral = {
        name: device
        for name, device in instance.ephemeral_devices.items()
        if ephemeral_number(name) < mapped_disks(kind)
    }
    check_disk_count(kind, volumes=len(shown.volumes), interfaces=len(interfaces), mapped=len(ephemeral))
    option = (instance.cpu_credits or kind.default_cpu_credits or "") if kind.burstable else instance.cpu_credits
    _set(
        call,
        instance,
        instance_type=kind.name,
        cpu_credits=option,
        core_count=0,
        threads_per_core=0,
        ephemeral_devices=ephemeral,
    )


def _set_user_data(call: Call, instance: Instance, given: str | bytes) -> None:
    """`Value` of `Attribute` is base64; the member of its own was decoded with the request."""
    _stopped(instance)
    packed = check_user_data(given) if isinstance(given, str) else pack_user_data(given)
    _set(call, instance, user_data=packed)


def _set_shutdown_behavior(call: Call, instance: Instance, behavior: str) -> None:
    checked = one_of("instanceInitiatedShutdownBehavior", behavior, SHUTDOWN_BEHAVIORS)
    _set(call, instance, shutdown_behavior=checked)


def _set_ebs_optimized(call: Call, instance: Instance, wanted: bool) -> None:
    _stopped(instance)
    checked = check_ebs_optimized(instance_type.get(instance.instance_type), wanted)
    _set(call, instance, ebs_optimized=checked)


def _interface(call: Call, instance: Instance) -> NetworkInterface:
    return only_interface(instance, gather(call, instance).interfaces)


def _set_interface(call: Call, instance: Instance, **changes: Any) -> None:
    put_interface(call, replace(_interface(call, instance), **changes))


def _set_groups(call: Call, instance: Instance, group_ids: str | Sequence[str]) -> None:
    wanted = [group_ids] if isinstance(group_ids, str) else group_ids
    if not wanted:
        raise missing_parameter("GroupId: an instance has at least one security group")
    vpc_id = _interface(call, instance).vpc_id
    _set_interface(call, instance, groups=check_groups(call, vpc_id, wanted))


def _set_block_devices(call: Call, instance: Instance, mappings: Sequence[Structure]) -> None:
    attached = {volume.attachment.device: volume for volume in gather(call, instance).volumes if volume.attachment}
    for mapping in mappings:
        device = take(mapping, "BlockDeviceMapping", "DeviceName", "Ebs").get("DeviceName")
        if not device:
            raise missing_parameter("BlockDeviceMapping.DeviceName")
        volume = attached.get(device)
        ebs = take(mapping.get("Ebs"), "BlockDeviceMapping.Ebs", "DeleteOnTermination", "VolumeId")
        if volume is None or ebs.get("VolumeId", volume.id) != volume.id:
            raise EC2Error(
                "InvalidInstanceAttributeValue",
                f"No device is currently mapped at {device}"
                + (f" with the volume {ebs['VolumeId']}" if "VolumeId" in ebs else "")
                + f". The devices of {instance.id} are {', '.join(attached)}.",
            )
        if volume.attachment is not None and "DeleteOnTermination" in ebs:
            attachment = replace(volume.attachment, delete_on_termination=ebs["DeleteOnTermination"])
            call.tx.put(replace(volume, attachment=attachment))


def _only_as_it_is(allowed: object) -> Callable[[Call, Instance, Any], None]:
    def check(call: Call, instance: Instance, value: object) -> None:
        _stopped(instance)
        if value != allowed:
            raise unsupported(f"This attribute can only be {allowed} here, not {value}")

    return check


def _set_enclaves(call: Call, instance: Instance, given: Structure | str) -> None:
    wanted = {"Enabled": _boolean("enclaveOptions", given)} if isinstance(given, str) else given
    switched_off(wanted, "EnclaveOptions", "Enabled")


def _refuse(call: Call, instance: Instance, value: object) -> None:
    raise unsupported("This attribute cannot be changed here")


_BOOLEANS: Final = frozenset(
    {"sourceDestCheck", "disableApiTermination", "disableApiStop", "ebsOptimized", "enaSupport"}
)

_CHANGES: Final[Mapping[str, Callable[[Call, Instance, Any], None]]] = {
    "instanceType": _set_type,
    "kernel": _refuse,
    "ramdisk": _refuse,
    "userData": _set_user_data,
    "disableApiTermination": lambda call, instance, value: _set(call, instance, disable_api_termination=value),
    "instanceInitiatedShutdownBehavior": _set_shutdown_behavior,
    "rootDeviceName": _refuse,
    "blockDeviceMapping": _set_block_devices,
    "productCodes": _refuse,
    "sourceDestCheck": lambda call, instance, value: _set_interface(call, instance, source_dest_check=value),
    "groupSet": _set_groups,
    "ebsOptimized": _set_ebs_optimized,
    "sriovNetSupport": _only_as_it_is("simple"),
    "enaSupport": _only_as_it_is(True),
    "enclaveOptions": _set_enclaves,
    "disableApiStop": lambda call, instance, value: _set(call, instance, disable_api_stop=value),
}


@operation("ModifyInstanceAttribute", writes=True)
def modify_instance_attribute(
    call: Call,
    *,
    instance_id: str,
    attribute: str | None = None,
    value: str | None = None,
    block_device_mappings: list[Structure] | None = None,
    disable_api_stop: Structure | None = None,
    disable_api_termination: Structure | None = None,
    ebs_optimized: Structure | None = None,
    ena_support: Structure | None = None,
    enclave_options: Structure | None = None,
    groups: list[str] | None = None,
    instance_initiated_shutdown_behavior: Structure | None = None,
    instance_type: Structure | None = None,
    kernel: Structure | None = None,
    ramdisk: Structure | None = None,
    source_dest_check: Structure | None = None,
    sriov_net_support: Structure | None = None,
    user_data: Structure | None = None,
) -> Answer:
    instance = call.find(Instance, "i", instance_id)
    structures = {
        "disableApiStop": disable_api_stop,
        "disableApiTermination": disable_api_termination,
        "ebsOptimized": ebs_optimized,
        "enaSupport": ena_support,
        "instanceInitiatedShutdownBehavior": instance_initiated_shutdown_behavior,
        "instanceType": instance_type,
        "kernel": kernel,
        "ramdisk": ramdisk,
        "sourceDestCheck": source_dest_check,
        "sriovNetSupport": sriov_net_support,
        "userData": user_data,
    }
    given: dict[str, Any] = {name: _given(name, member) for name, member in structures.items() if member is not None}
    others = {"blockDeviceMapping": block_device_mappings, "groupSet": groups, "enclaveOptions": enclave_options}
    given |= {name: member for name, member in others.items() if member is not None}
    if attribute is not None:
        one_of("attribute", attribute, _CHANGES)
        if attribute not in given:
            if value is None:
                raise missing_parameter("Value")
            given[attribute] = _boolean(attribute, value) if attribute in _BOOLEANS else value
    if not given:
        raise EC2Error("InvalidParameterCombination", "No attributes specified.")
    if len(given) > 1:
        raise EC2Error(
            "InvalidParameterCombination", f"Fields for multiple attribute types specified: {', '.join(sorted(given))}"
        )
    (name, chosen), *_ = given.items()
    if name == "blockDeviceMapping" and isinstance(chosen, str):
        raise missing_parameter("BlockDeviceMapping")
    _change(call, instance, name, chosen)
    return {}


def _change(call: Call, instance: Instance, name: str, value: Any) -> None:
    if instance.state in (State.SHUTTING_DOWN, State.TERMINATED):
        raise EC2Error(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is in the state '{instance.state}': its attributes cannot be changed",
        )
    _CHANGES[name](call, instance, value)


def _given(name: str, member: Structure) -> Any:
    """What a member of its own says. Without a value it is empty, which is something for user data only."""
    if "Value" not in member:
        if name == "userData":
            return b""
        raise missing_parameter(f"{name}.Value")
    return member["Value"]


def _boolean(name: str, text: str) -> bool:
    return one_of(name, text.lower(), ("true", "false")) == "true"


@operation("ResetInstanceAttribute", writes=True)
def reset_instance_attribute(call: Call, *, instance_id: str, attribute: str) -> Answer:
    """sourceDestCheck is switched on again; kernel and ramdisk are the image's and never change here."""
    instance = call.find(Instance, "i", instance_id)
    if one_of("attribute", attribute, ("kernel", "ramdisk", "sourceDestCheck")) == "sourceDestCheck":
        _change(call, instance, attribute, True)
    return {}

"""AttachNetworkInterface, DetachNetworkInterface, and the permissions by which others may attach an interface.

    available ──attach──► attaching ──(plugged)────► attached ──detach──► detaching ──(unplugged)──► available
                              │  a stopped instance has nothing to plug: it goes straight on  │
                              └────────────────────────► attached ◄───────────────────────────┘

An attachment in a state in between wakes the instance, whose reconciler plugs or unplugs and writes the settled state.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from orchestrator.api.ec2.launch_network import check_available, check_index
from orchestrator.api.ec2.network_interfaces import check_own_work, find_interface, put_interface
from orchestrator.api.ec2.subnet_addresses import check_interface_count, check_interface_limits
from orchestrator.api.operation import Answer, Call, describe, operation
from orchestrator.model import ids, instance_type
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of, unsupported
from orchestrator.model.filters import FilterTable
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import InterfaceAttachment, InterfacePermission, NetworkInterface

PERMISSIONS: Final = ("INSTANCE-ATTACH", "EIP-ASSOCIATE")
_SETTLED: Final = (State.RUNNING, State.STOPPED)
_ACCOUNT: Final = re.compile(r"\d{12}")


def _check_state(instance: Instance) -> None:
    if instance.state not in _SETTLED:
        raise EC2Error(
            "IncorrectInstanceState",
            f"Instance '{instance.id}' is not 'running' or 'stopped': it is {instance.state}",
        )


@operation("AttachNetworkInterface", writes=True)
def attach_network_interface(
    call: Call, *, network_interface_id: str, instance_id: str, device_index: int, network_card_index: int = 0
) -> Answer:
    """The interface keeps its MAC, addresses and groups. It may be of another subnet or VPC in the instance's zone."""
    instance = call.find(Instance, "i", instance_id)
    interface = find_interface(call, network_interface_id, permission="INSTANCE-ATTACH")
    if network_card_index != 0:
        raise unsupported("NetworkCardIndex must be 0 here: an instance has one network card")
    _check_state(instance)
    check_available(interface)
    if interface.zone != instance.zone:
        raise EC2Error(
            "InvalidParameterValue",
            "You may not attach a network interface to an instance if they are not in the same availability zone: "
            f"{interface.id} is in {interface.zone}, {instance.id} in {instance.zone}",
        )
    kind = instance_type.get(instance.instance_type)
    others = call.tx.all(NetworkInterface, instance_id=instance.id)
    if any(other.attachment and other.attachment.device_index == device_index for other in others):
        raise EC2Error(
            "InvalidParameterValue",
            f"Instance '{instance.id}' already has an interface attached at device index '{device_index}'.",
        )
    check_interface_count(kind, len(others) + 1)
    check_index(kind, device_index)
    check_interface_limits(kind, interface)
    running = instance.state is State.RUNNING
    attachment = InterfaceAttachment(
        id=ids.mint("eni-attach"),
        instance_id=instance.id,
        device_index=device_index,
        state="attaching" if running else "attached",
        delete_on_termination=False,
        attached_at=call.now,
    )
    put_interface(call, replace(interface, state="in-use", attachment=attachment))
    if running:
        call.tx.wake(instance)
    return {"AttachmentId": attachment.id, "NetworkCardIndex": 0}


@operation("DetachNetworkInterface", writes=True)
def detach_network_interface(call: Call, *, attachment_id: str, force: bool = False) -> Answer:
    """The interface's owner may, and the instance's. `force` does not wait for the guest, nor for an attachment."""
    interface, attachment = _find_attached(call, attachment_id)
    check_own_work(interface)
    if attachment.device_index == 0:
        raise EC2Error("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
    instance = call.tx.get(Instance, attachment.instance_id)
    if instance is not None:
        _check_state(instance)
    if attachment.state == "attaching" and not force:
        raise EC2Error("IncorrectState", f"{attachment.id} is still being attached: wait for it, or use Force")
    if instance is not None and instance.state is State.RUNNING:
        leaving = replace(attachment, state="detaching", forced=attachment.forced or force)
        put_interface(call, replace(interface, attachment=leaving))
        call.tx.wake(instance)
    else:
        put_interface(call, replace(interface, state="available", attachment=None, public_ip="", auto_public_ip=False))
    return {}


def _find_attached(call: Call, attachment_id: str) -> tuple[NetworkInterface, InterfaceAttachment]:
    ids.check("eni-attach", attachment_id)
    for interface in call.tx.all(NetworkInterface):
        if interface.attachment is not None and interface.attachment.id == attachment_id:
            instance = call.tx.get(Instance, interface.instance_id)
            if call.sees(interface) or (instance is not None and call.sees(instance)):
                return interface, interface.attachment
    raise ids.missing("eni-attach", [attachment_id])


# --- permissions ------------------------------------------------------------------------------------------------------


@operation("CreateNetworkInterfacePermission", writes=True)
def create_network_interface_permission(
    call: Call, *, network_interface_id: str, permission: str, aws_account_id: str | None = None
) -> Answer:
    interface = find_interface(call, network_interface_id)
    one_of("Permission", permission, PERMISSIONS)
    if not aws_account_id:
        raise missing_parameter("AwsAccountId")
    if not _ACCOUNT.fullmatch(aws_account_id):
        raise invalid_parameter("AwsAccountId", aws_account_id, "an account id of 12 digits")
    for other in call.tx.all(InterfacePermission, interface_id=interface.id):
        if (other.granted_to, other.permission) == (aws_account_id, permission):
            raise EC2Error(
                "InvalidPermission.Duplicate",
                f"{aws_account_id} has the permission {permission} on {interface.id} already: {other.id}",
            )
    granted = call.tx.put(
        InterfacePermission(
            id=ids.mint("eni-perm"),
            account=call.account,
            region=call.region,
            created=call.now,
            interface_id=interface.id,
            granted_to=aws_account_id,
            permission=permission,
        )
    )
    return {"InterfacePermission": show_permission(call, granted)}


@operation("DeleteNetworkInterfacePermission", writes=True)
def delete_network_interface_permission(
    call: Call, *, network_interface_permission_id: str, force: bool = False
) -> Answer:
    """`force` takes it away also while the one who has it uses it; what is attached stays so."""
    permission = call.find(InterfacePermission, "eni-perm", network_interface_permission_id)
    interface = call.tx.get(NetworkInterface, permission.interface_id)
    instance = call.tx.get(Instance, interface.instance_id) if interface is not None else None
    if instance is not None and instance.account == permission.granted_to and not force:
        raise EC2Error(
            "OperationNotPermitted",
            f"{permission.granted_to} has {permission.interface_id} attached to {instance.id}: use Force to take the "
            "permission away even so",
        )
    call.tx.delete(permission)
    return {"Return": True}


PERMISSION_FILTERS: Final[FilterTable] = {
    "network-interface-permission.network-interface-permission-id": lambda permission: permission.id,
    "network-interface-permission.network-interface-id": lambda permission: permission.interface_id,
    "network-interface-permission.aws-account-id": lambda permission: permission.granted_to,
    "network-interface-permission.aws-service": lambda permission: None,
    "network-interface-permission.permission": lambda permission: permission.permission,
}


@describe(
    "DescribeNetworkInterfacePermissions",
    kind=InterfacePermission,
    answer="NetworkInterfacePermissions",
    ids_parameter="NetworkInterfacePermissionIds",
    prefix="eni-perm",
    filters=PERMISSION_FILTERS,
    largest=255,
    ids_or_pages=True,
)
def show_permission(call: Call, permission: InterfacePermission) -> Answer:
    return {
        "NetworkInterfacePermissionId": permission.id,
        "NetworkInterfaceId": permission.interface_id,
        "AwsAccountId": permission.granted_to,
        "Permission": permission.permission,
        "PermissionState": {"State": "granted"},
    }

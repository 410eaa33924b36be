"""Network interfaces: how they are shown, alone and (by the parts here) within instances."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from orchestrator.api.operation import Answer, Call, describe
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.tags import tag_set
from orchestrator.model.vpc import (
    NetworkInterface,
    SecurityGroup,
    Vpc,
    private_dns_name,
    public_dns_name,
)
from orchestrator.model.zone import zone_id

AUTO_ASSIGNED: Final = "amazon"  # who owns a public address that is no Elastic IP


def show_groups(call: Call, interface: NetworkInterface) -> list[Answer]:
    """Groups by id and name; one that is gone keeps its id and has an empty name."""
    groups = ((group_id, call.db.get(SecurityGroup, group_id)) for group_id in interface.groups)
    return [{"GroupId": group_id, "GroupName": group.name if group else ""} for group_id, group in groups]


def public_name(call: Call, interface: NetworkInterface) -> str:
    """The name of its public address, empty without one and where the VPC gives no names."""
    vpc = call.db.get(Vpc, interface.vpc_id)
    if not interface.public_ip or vpc is None or not vpc.enable_dns_hostnames:
        return ""
    return public_dns_name(interface.public_ip, interface.region)


def private_name(interface: NetworkInterface) -> str:
    return private_dns_name(interface.private_ip, interface.region)


def show_association(call: Call, interface: NetworkInterface) -> Answer | None:
    if not interface.public_ip:
        return None
    return {
        "IpOwnerId": AUTO_ASSIGNED,
        "PublicDnsName": public_name(call, interface),
        "PublicIp": interface.public_ip,
    }


def _time(at: datetime | None) -> str | None:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z") if at else None


def _delete_on_termination(interface: NetworkInterface) -> str | None:
    return boolean(interface.attachment.delete_on_termination) if interface.attachment else None


# Documented filters on what no interface here has: they match nothing.
_NEVER: Final = (
    "association.allocation-id",
    "association.association-id",
    "ipv6-addresses.ipv6-address",
    "operator.principal",
    "requester-id",
)


def interface_filters(call: Call) -> FilterTable:
    table: FilterTable = {
        **{name: lambda eni: None for name in _NEVER},
        "addresses.association.owner-id": lambda eni: AUTO_ASSIGNED if eni.public_ip else None,
        "addresses.association.public-ip": lambda eni: eni.public_ip or None,
        "addresses.primary": lambda eni: "true",
        "addresses.private-ip-address": lambda eni: eni.private_ip,
        "association.ip-owner-id": lambda eni: AUTO_ASSIGNED if eni.public_ip else None,
        "association.public-ip": lambda eni: eni.public_ip or None,
        "association.public-dns-name": lambda eni: public_name(call, eni) or None,
        "attachment.attach-time": lambda eni: _time(eni.attachment.attached_at) if eni.attachment else None,
        "attachment.attachment-id": lambda eni: eni.attachment.id if eni.attachment else None,
        "attachment.delete-on-termination": _delete_on_termination,
        "attachment.device-index": lambda eni: str(eni.attachment.device_index) if eni.attachment else None,
        "attachment.instance-id": lambda eni: eni.instance_id or None,
        "attachment.instance-owner-id": lambda eni: eni.account if eni.attachment else None,
        "attachment.status": lambda eni: eni.attachment.state if eni.attachment else None,
        "availability-zone": lambda eni: eni.zone,
        "availability-zone-id": lambda eni: zone_id(eni.zone),
        "description": lambda eni: eni.description,
        "group-id": lambda eni: eni.groups,
        "group-name": lambda eni: [group["GroupName"] for group in show_groups(call, eni)],
        "interface-type": lambda eni: "interface",
        "mac-address": lambda eni: eni.mac,
        "network-interface-id": lambda eni: eni.id,
        "operator.managed": lambda eni: "false",
        "owner-id": lambda eni: eni.account,
        "private-dns-name": private_name,
        "private-ip-address": lambda eni: eni.private_ip,
        "requester-managed": lambda eni: "false",
        "source-dest-check": lambda eni: boolean(eni.source_dest_check),
        "status": lambda eni: eni.state,
        "subnet-id": lambda eni: eni.subnet_id,
        "vpc-id": lambda eni: eni.vpc_id,
    }
    return table


@describe(
    "DescribeNetworkInterfaces",
    kind=NetworkInterface,
    answer="NetworkInterfaces",
    ids_parameter="NetworkInterfaceIds",
    prefix="eni",
    filters=interface_filters,
    ids_or_pages=True,
)
def show_network_interface(call: Call, interface: NetworkInterface) -> Answer:
    shown = {
        **show_interface(call, interface),
        "RequesterManaged": False,
        "AvailabilityZone": interface.zone,
        "AvailabilityZoneId": zone_id(interface.zone),
        "TagSet": tag_set(interface.tags),
    }
    public_name = shown.get("Association", {}).get("PublicDnsName")
    if public_name:
        shown["PublicDnsName"] = public_name
    if interface.attachment is not None:
        shown["Attachment"] = show_attachment(interface)
    return shown


def show_interface(call: Call, interface: NetworkInterface) -> Answer:
    """What DescribeNetworkInterfaces and DescribeInstances both say of an interface."""
    address: Answer = {
        "Primary": True,
        "PrivateIpAddress": interface.private_ip,
        "PrivateDnsName": private_name(interface),
    }
    shown: Answer = {
        "NetworkInterfaceId": interface.id,
        "InterfaceType": "interface",
        "Status": interface.state,
        "Description": interface.description,
        "OwnerId": interface.account,
        "VpcId": interface.vpc_id,
        "SubnetId": interface.subnet_id,
        "MacAddress": interface.mac,
        "PrivateIpAddress": interface.private_ip,
        "PrivateDnsName": private_name(interface),
        "PrivateIpAddresses": [address],
        "Ipv6Addresses": [],
        "Groups": show_groups(call, interface),
        "SourceDestCheck": interface.source_dest_check,
        "Operator": {"Managed": False},
    }
    association = show_association(call, interface)
    if association is not None:
        address["Association"] = shown["Association"] = association
    return shown


def show_attachment(interface: NetworkInterface) -> Answer | None:
    """As DescribeNetworkInterfaces has it; None when it is not attached."""
    attachment = interface.attachment
    if attachment is None:
        return None
    return {
        "AttachmentId": attachment.id,
        "AttachTime": attachment.attached_at,
        "DeleteOnTermination": attachment.delete_on_termination,
        "DeviceIndex": attachment.device_index,
        "NetworkCardIndex": 0,
        "InstanceId": attachment.instance_id,
        "InstanceOwnerId": interface.account,
        "Status": attachment.state,
    }

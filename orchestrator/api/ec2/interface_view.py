"""How a network interface is shown, alone and within an instance, and what filters see of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from orchestrator.api.operation import Answer, Call
from orchestrator.model.elastic_ip import PublicAddress, public_addresses
from orchestrator.model.filters import FilterTable, Value, boolean
from orchestrator.model.instance import Instance
from orchestrator.model.vpc import NetworkInterface, SecurityGroup, Vpc, private_dns_name, public_dns_name
from orchestrator.model.zone import zone_id


def show_groups(call: Call, interface: NetworkInterface) -> list[Answer]:
    """Groups by id and name; one that is gone keeps its id and has an empty name."""
    groups = ((group_id, call.db.get(SecurityGroup, group_id)) for group_id in interface.groups)
    return [{"GroupId": group_id, "GroupName": group.name if group else ""} for group_id, group in groups]


def public_address(call: Call, interface: NetworkInterface) -> str:
    """That of its primary private address, empty without one: an Elastic IP before an auto-assigned one."""
    found = public_addresses(call.db, interface).get(interface.private_ip)
    return found.public_ip if found else ""


def public_name(call: Call, interface: NetworkInterface) -> str:
    """The name of that address, empty without one and where the VPC gives no names."""
    return _name_of(call, interface, public_address(call, interface))


def _name_of(call: Call, interface: NetworkInterface, public_ip: str) -> str:
    vpc = call.db.get(Vpc, interface.vpc_id)
    if not public_ip or vpc is None or not vpc.enable_dns_hostnames:
        return ""
    return public_dns_name(public_ip, interface.region)


def private_name(interface: NetworkInterface) -> str:
    return private_dns_name(interface.private_ip, interface.region)


def private_names(interface: NetworkInterface) -> list[str]:
    return [private_dns_name(address, interface.region) for address in interface.private_ips]


def _show_association(call: Call, interface: NetworkInterface, address: PublicAddress, *, with_ids: bool) -> Answer:
    shown: Answer = {
        "IpOwnerId": address.owner,
        "PublicDnsName": _name_of(call, interface, address.public_ip),
        "PublicIp": address.public_ip,
    }
    if with_ids and address.allocation_id:
        shown |= {"AllocationId": address.allocation_id, "AssociationId": address.association_id}
    return shown


def show_interface(call: Call, interface: NetworkInterface, *, with_ids: bool = False) -> Answer:
    """What DescribeNetworkInterfaces and DescribeInstances both say; the first names an Elastic IP's ids as well."""
    public = {
        address: _show_association(call, interface, each, with_ids=with_ids)
        for address, each in public_addresses(call.db, interface).items()
    }
    shown: Answer = {
        "NetworkInterfaceId": interface.id,
        "InterfaceType": interface.interface_type,
        "Status": interface.state,
        "Description": interface.description,
        "OwnerId": interface.account,
        "VpcId": interface.vpc_id,
        "SubnetId": interface.subnet_id,
        "MacAddress": interface.mac,
        "PrivateIpAddress": interface.private_ip,
        "PrivateDnsName": private_name(interface),
        "PrivateIpAddresses": [_show_address(interface, address, public) for address in interface.private_ips],
        "Ipv6Addresses": [{"Ipv6Address": each, "IsPrimaryIpv6": False} for each in interface.ipv6_addresses],
        "Groups": show_groups(call, interface),
        "SourceDestCheck": interface.source_dest_check,
        "Operator": {"Managed": False},
    }
    if interface.private_ip in public:
        shown["Association"] = public[interface.private_ip]
    if interface.prefixes:
        shown["Ipv4Prefixes"] = show_prefixes(interface.prefixes)
    return shown


def _show_address(interface: NetworkInterface, address: str, public: Mapping[str, Answer]) -> Answer:
    shown: Answer = {
        "Primary": address == interface.private_ip,
        "PrivateIpAddress": address,
        "PrivateDnsName": private_dns_name(address, interface.region),
    }
    if address in public:
        shown["Association"] = public[address]
    return shown


def show_prefixes(prefixes: Sequence[str]) -> list[Answer]:
    return [{"Ipv4Prefix": prefix} for prefix in prefixes]


def show_attachment(call: Call, interface: NetworkInterface) -> Answer | None:
    """As DescribeNetworkInterfaces has it; None when it is not attached."""
    attachment = interface.attachment
    if attachment is None:
        return None
    shown = show_attachment_within(interface)
    if attachment.instance_id:
        shown["InstanceId"] = attachment.instance_id
    return shown | {"InstanceOwnerId": _instance_owner(call, interface)}


def show_attachment_within(interface: NetworkInterface) -> Answer:
    """As DescribeInstances has it, where it needs no saying whose it is; empty when it is not attached."""
    attachment = interface.attachment
    if attachment is None:
        return {}
    return {
        "AttachmentId": attachment.id,
        "AttachTime": attachment.attached_at,
        "DeleteOnTermination": attachment.delete_on_termination,
        "DeviceIndex": attachment.device_index,
        "NetworkCardIndex": 0,
        "Status": attachment.state,
    }


def _instance_owner(call: Call, interface: NetworkInterface) -> str:
    """Another account's where the interface was attached by permission."""
    instance = call.db.get(Instance, interface.instance_id)
    return instance.account if instance else interface.account


def is_managed(interface: NetworkInterface) -> bool:
    return bool(interface.requester_id)


# --- filters ----------------------------------------------------------------------------------------------------------


def _time(at: datetime | None) -> str | None:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z") if at else None


def _delete_on_termination(interface: NetworkInterface) -> str | None:
    return boolean(interface.attachment.delete_on_termination) if interface.attachment else None


def interface_filters(call: Call) -> FilterTable:
    def association(read: str) -> Any:
        """Of each of its addresses that has a public one."""

        def values(eni: NetworkInterface) -> Value:
            found: Iterator[str] = (getattr(each, read) for each in public_addresses(call.db, eni).values())
            return [value for value in found if value]

        return values

    def public_names(eni: NetworkInterface) -> Value:
        found = public_addresses(call.db, eni).values()
        return [name for each in found if (name := _name_of(call, eni, each.public_ip))]

    associations: Mapping[str, Any] = {
        "allocation-id": association("allocation_id"),
        "association-id": association("association_id"),
        "ip-owner-id": association("owner"),
        "public-dns-name": public_names,
        "public-ip": association("public_ip"),
    }
    table: FilterTable = {
        **{f"association.{name}": read for name, read in associations.items()},
        "addresses.association.owner-id": associations["ip-owner-id"],
        "addresses.association.public-ip": associations["public-ip"],
        "addresses.primary": lambda eni: ["true", "false"] if eni.more_private_ips else "true",
        "addresses.private-ip-address": lambda eni: eni.private_ips,
        "attachment.attach-time": lambda eni: _time(eni.attachment.attached_at) if eni.attachment else None,
        "attachment.attachment-id": lambda eni: eni.attachment.id if eni.attachment else None,
        "attachment.delete-on-termination": _delete_on_termination,
        "attachment.device-index": lambda eni: str(eni.attachment.device_index) if eni.attachment else None,
        "attachment.instance-id": lambda eni: eni.instance_id or None,
        "attachment.instance-owner-id": lambda eni: _instance_owner(call, eni) if eni.attachment else None,
        "attachment.status": lambda eni: eni.attachment.state if eni.attachment else None,
        "availability-zone": lambda eni: eni.zone,
        "availability-zone-id": lambda eni: zone_id(eni.zone),
        "description": lambda eni: eni.description,
        "group-id": lambda eni: eni.groups,
        "group-name": lambda eni: [group["GroupName"] for group in show_groups(call, eni)],
        "interface-type": lambda eni: eni.interface_type,
        "ipv6-addresses.ipv6-address": lambda eni: eni.ipv6_addresses,
        "mac-address": lambda eni: eni.mac,
        "network-interface-id": lambda eni: eni.id,
        "operator.managed": lambda eni: "false",
        "operator.principal": lambda eni: None,
        "owner-id": lambda eni: eni.account,
        "private-dns-name": private_name,
        "private-ip-address": lambda eni: eni.private_ips,
        "requester-id": lambda eni: eni.requester_id or None,
        "requester-managed": lambda eni: boolean(is_managed(eni)),
        "source-dest-check": lambda eni: boolean(eni.source_dest_check),
        "status": lambda eni: eni.state,
        "subnet-id": lambda eni: eni.subnet_id,
        "vpc-id": lambda eni: eni.vpc_id,
    }
    return table

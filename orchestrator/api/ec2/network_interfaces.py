"""Network interfaces: made, changed, deleted and described. How one is shown is in `interface_view`.

An interface is `available` or, with an attachment, `in-use`. One that this deployment made for something else (a NAT
gateway) names a requester and is changed by nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from orchestrator.api.ec2.interface_view import (
    interface_filters,
    is_managed,
    show_attachment,
    show_groups,
    show_interface,
)
from orchestrator.api.ec2.launch_options import Structure, take
from orchestrator.api.ec2.subnet_addresses import (
    Addresses,
    PublicAddresses,
    SubnetAddresses,
    check_address_limits,
    read_wanted,
)
from orchestrator.api.operation import Answer, Call, describe, operation, with_client_token
from orchestrator.model import ids
from orchestrator.model.elastic_ip import ElasticIp, has_auto_address, parted
from orchestrator.model.errors import EC2Error, missing_parameter, one_of, unsupported
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import (
    FlowLog,
    InterfacePermission,
    NetworkInterface,
    SecurityGroup,
    Subnet,
    mac_address,
)
from orchestrator.model.zone import zone_id

MAX_DESCRIPTION: Final = 255
MAX_GROUPS: Final = 5  # of one interface

# --- rows -------------------------------------------------------------------------------------------------------------


def find_interface(call: Call, interface_id: str, *, permission: str = "") -> NetworkInterface:
    """One that the caller may change: its own, or another account's that granted it `permission`."""
    found = call.db.get(NetworkInterface, ids.check("eni", interface_id))
    granted = found is not None and any(
        (each.granted_to, each.permission) == (call.account, permission)
        for each in call.db.all(InterfacePermission, interface_id=found.id)
    )
    if found is None or not (call.sees(found) or (granted and found.region == call.region)):
        raise ids.missing("eni", [interface_id])
    check_own_work(found)
    return found


def only_interface(instance: Instance, interfaces: Sequence[NetworkInterface]) -> NetworkInterface:
    """The one that is meant by naming its instance."""
    if len(interfaces) != 1:
        raise EC2Error(
            "InvalidInstanceID",
            f"There are {'multiple' if interfaces else 'no'} interfaces attached to instance '{instance.id}'. "
            "Please specify an interface ID for the operation instead.",
        )
    return interfaces[0]


def check_groups(call: Call, vpc_id: str, group_ids: Sequence[str]) -> tuple[str, ...]:
    """Groups that an interface in the VPC may have."""
    groups = call.find_all(SecurityGroup, "sg", group_ids)
    for group in groups:
        if group.vpc_id != vpc_id:
            raise EC2Error(
                "InvalidParameter",
                f"Security group {group.id} is in the VPC {group.vpc_id}, but the network interface is in {vpc_id}",
            )
    if len(groups) > MAX_GROUPS:
        raise EC2Error(
            "SecurityGroupsPerInterfaceLimitExceeded",
            f"A network interface has at most {MAX_GROUPS} security groups; {len(groups)} were given",
        )
    return tuple(group.id for group in groups)


def choose_groups(
    call: Call, vpc_id: str, group_ids: Sequence[str] | None, names: Sequence[str] = ()
) -> tuple[str, ...]:
    """Those that a request gives by id and name; the VPC's default group when it gives none."""
    wanted = list(group_ids or ())
    known = {group.name: group.id for group in call.mine(SecurityGroup, vpc_id=vpc_id)}
    for name in names if wanted or names else ("default",):
        if name not in known:
            raise EC2Error("InvalidGroup.NotFound", f"The security group '{name}' does not exist in the VPC '{vpc_id}'")
        wanted.append(known[name])
    return check_groups(call, vpc_id, wanted)


def check_own_work(interface: NetworkInterface) -> None:
    if interface.requester_id:
        raise EC2Error(
            "AuthFailure",
            "You do not have permission to access the specified resource: "
            f"{interface.id} ({interface.description}) belongs to what made it",
            403,
        )


def put_interface(call: Call, interface: NetworkInterface) -> NetworkInterface:
    """Write it, and have its VPC's network follow."""
    stored = call.tx.put(interface)
    call.wake_vpcs(interface.vpc_id)
    return stored


def new_interface(call: Call, subnet: Subnet, addresses: Addresses, **fields: Any) -> NetworkInterface:
    """A row of the caller's, not written yet."""
    return NetworkInterface(
        id=ids.mint("eni"),
        account=call.account,
        region=call.region,
        created=call.now,
        vpc_id=subnet.vpc_id,
        subnet_id=subnet.id,
        zone=subnet.zone,
        mac=mac_address(subnet.vpc_id, addresses.private_ip),
        private_ip=addresses.private_ip,
        more_private_ips=addresses.more_private_ips,
        prefixes=addresses.prefixes,
        ipv6_addresses=addresses.ipv6_addresses,
        **fields,
    )


def give_auto_address(call: Call, interface: NetworkInterface, addresses: PublicAddresses) -> NetworkInterface:
    """With an auto-assigned public address, where it is to have one and has none."""
    if interface.public_ip or not has_auto_address(call.tx, interface):
        return interface
    public_ip = addresses.take(avoid=interface.last_public_ip)
    if public_ip is None:
        raise addresses.refuse()
    return call.tx.put(replace(interface, public_ip=public_ip, last_public_ip=public_ip))


def runs(call: Call, interface: NetworkInterface) -> bool:
    """Whether its instance does, or is about to."""
    instance = call.db.get(Instance, interface.instance_id)
    return instance is not None and instance.state in (State.PENDING, State.RUNNING)


# --- making and deleting ----------------------------------------------------------------------------------------------


def check_description(description: str) -> str:
    if len(description) > MAX_DESCRIPTION:
        raise EC2Error(
            "InvalidParameterValue",
            f"A description has at most {MAX_DESCRIPTION} characters; this has {len(description)}",
        )
    return description


@operation("CreateNetworkInterface", writes=True)
def create_network_interface(
    call: Call,
    *,
    subnet_id: str,
    description: str = "",
    groups: list[str] | None = None,
    interface_type: str = "interface",
    private_ip_address: str | None = None,
    private_ip_addresses: list[Structure] | None = None,
    secondary_private_ip_address_count: int | None = None,
    ipv4_prefixes: list[Structure] | None = None,
    ipv4_prefix_count: int | None = None,
    ipv6_addresses: list[Structure] | None = None,
    ipv6_address_count: int | None = None,
    ipv6_prefixes: list[Structure] | None = None,
    ipv6_prefix_count: int | None = None,
    enable_primary_ipv6: bool = False,
    tag_specifications: list[Structure] | None = None,
) -> Answer:
    tags = tags_at_creation(tag_specifications, "network-interface")["network-interface"]
    subnet = call.find(Subnet, "subnet", subnet_id)
    if interface_type != "interface":
        raise unsupported(f"InterfaceType must be interface here, not {interface_type}")
    if enable_primary_ipv6:
        raise unsupported("EnablePrimaryIpv6 must be false here")
    wanted = read_wanted(
        {
            "PrivateIpAddress": private_ip_address,
            "PrivateIpAddresses": private_ip_addresses,
            "SecondaryPrivateIpAddressCount": secondary_private_ip_address_count,
            "Ipv4Prefixes": ipv4_prefixes,
            "Ipv4PrefixCount": ipv4_prefix_count,
            "Ipv6Addresses": ipv6_addresses,
            "Ipv6AddressCount": ipv6_address_count,
            "Ipv6Prefixes": ipv6_prefixes,
            "Ipv6PrefixCount": ipv6_prefix_count,
        }
    )
    check_address_limits(None, wanted.ipv4_slots, len(wanted.ipv6_addresses) + (wanted.ipv6_count or 0))
    chosen = choose_groups(call, subnet.vpc_id, groups)
    addresses = SubnetAddresses(call, subnet)
    addresses.claim(wanted)
    interface = call.tx.put(
        new_interface(
            call,
            subnet,
            addresses.allot(wanted),
            tags=tags,
            description=check_description(description),
            groups=chosen,
        )
    )
    answer: Answer = {"NetworkInterface": show_network_interface(call, interface)}
    return with_client_token(call, answer)


@operation("DeleteNetworkInterface", writes=True)
def delete_network_interface(call: Call, *, network_interface_id: str) -> Answer:
    """Its Elastic IPs stay allocated. What else names it goes with it; a route to it becomes a blackhole."""
    interface = call.find(NetworkInterface, "eni", network_interface_id)
    if interface.attachment is not None or interface.state != "available" or interface.requester_id:
        raise EC2Error("InvalidParameterValue", f"Network interface '{interface.id}' is currently in use.")
    for address in call.tx.all(ElasticIp, interface_id=interface.id):
        call.tx.put(parted(address))
    for permission in call.tx.all(InterfacePermission, interface_id=interface.id):
        call.tx.delete(permission)
    for flow_log in call.tx.all(FlowLog, resource_id=interface.id):
        call.tx.delete(flow_log)
    call.tx.delete(interface)
    call.wake_vpcs(interface.vpc_id)
    return {}


# --- attributes -------------------------------------------------------------------------------------------------------

_ATTRIBUTES: Final = ("description", "groupSet", "sourceDestCheck", "attachment", "associatePublicIpAddress")


@operation("DescribeNetworkInterfaceAttribute")
def describe_network_interface_attribute(
    call: Call, *, network_interface_id: str, attribute: str | None = None
) -> Answer:
    interface = call.find(NetworkInterface, "eni", network_interface_id)
    if attribute is None:
        raise missing_parameter("Attribute")
    answer: Answer = {"NetworkInterfaceId": interface.id}
    match one_of("Attribute", attribute, _ATTRIBUTES):
        case "description":
            answer["Description"] = {"Value": interface.description}
        case "groupSet":
            answer["Groups"] = show_groups(call, interface)
        case "sourceDestCheck":
            answer["SourceDestCheck"] = {"Value": interface.source_dest_check}
        case "associatePublicIpAddress":
            answer["AssociatePublicIpAddress"] = interface.auto_public_ip
        case _:
            attachment = show_attachment(call, interface)
            if attachment is not None:
                answer["Attachment"] = attachment
    return answer


@operation("ModifyNetworkInterfaceAttribute", writes=True)
def modify_network_interface_attribute(
    call: Call,
    *,
    network_interface_id: str,
    description: Structure | None = None,
    groups: list[str] | None = None,
    source_dest_check: Structure | None = None,
    attachment: Structure | None = None,
    associate_public_ip_address: bool | None = None,
    enable_primary_ipv6: bool | None = None,
) -> Answer:
    """One attribute in a call, as in EC2."""
    interface = find_interface(call, network_interface_id)
    given = {
        "Description": description,
        "Groups": groups,
        "SourceDestCheck": source_dest_check,
        "Attachment": attachment,
        "AssociatePublicIpAddress": associate_public_ip_address,
        "EnablePrimaryIpv6": enable_primary_ipv6,
    }
    named = [name for name, value in given.items() if value is not None]
    if not named:
        raise EC2Error("InvalidParameterCombination", "No attributes specified.")
    if len(named) > 1:
        raise EC2Error(
            "InvalidParameterCombination", f"Fields for multiple attribute types specified: {', '.join(named)}"
        )
    if enable_primary_ipv6:
        raise unsupported("EnablePrimaryIpv6 must be false here")
    if description is not None:
        interface = replace(interface, description=check_description(description.get("Value", "")))
    if groups is not None:
        if not groups:
            raise missing_parameter("SecurityGroupId: a network interface has at least one security group")
        interface = replace(interface, groups=check_groups(call, interface.vpc_id, groups))
    if source_dest_check is not None:
        if "Value" not in source_dest_check:
            raise missing_parameter("SourceDestCheck.Value")
        interface = replace(interface, source_dest_check=source_dest_check["Value"])
    if attachment is not None:
        interface = _change_attachment(interface, attachment)
    if associate_public_ip_address is not None:
        interface = _change_public(call, interface, associate_public_ip_address)
    put_interface(call, interface)
    return {}


def _change_attachment(interface: NetworkInterface, given: Structure) -> NetworkInterface:
    changes = take(given, "Attachment", "AttachmentId", "DeleteOnTermination")
    for name in ("AttachmentId", "DeleteOnTermination"):
        if name not in changes:
            raise missing_parameter(f"Attachment.{name}")
    attachment_id = ids.check("eni-attach", changes["AttachmentId"])
    if interface.attachment is None or interface.attachment.id != attachment_id:
        raise ids.missing("eni-attach", [attachment_id])
    attachment = replace(interface.attachment, delete_on_termination=changes["DeleteOnTermination"])
    return replace(interface, attachment=attachment)


def _change_public(call: Call, interface: NetworkInterface, wanted: bool) -> NetworkInterface:
    """An auto-assigned public address, now where its instance runs, else from its next start; or none any more.

    Source: "Assign a public IPv4 address" in the EC2 user guide: only a primary interface gets one.
    """
    if not wanted:
        return replace(interface, auto_public_ip=False, public_ip="")
    changed = replace(interface, auto_public_ip=True)
    return give_auto_address(call, changed, PublicAddresses(call)) if runs(call, interface) else changed


@operation("ResetNetworkInterfaceAttribute", writes=True)
def reset_network_interface_attribute(
    call: Call, *, network_interface_id: str, source_dest_check: str | None = None
) -> Answer:
    """The source/destination check is switched on again, which is all that can be reset."""
    interface = find_interface(call, network_interface_id)
    if source_dest_check is None:
        raise missing_parameter("SourceDestCheck")
    put_interface(call, replace(interface, source_dest_check=True))
    return {}


# --- describing -------------------------------------------------------------------------------------------------------


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
        **show_interface(call, interface, with_ids=True),
        "RequesterManaged": is_managed(interface),
        "AvailabilityZone": interface.zone,
        "AvailabilityZoneId": zone_id(interface.zone),
        "TagSet": tag_set(interface.tags),
    }
    public_name = shown.get("Association", {}).get("PublicDnsName")
    attachment = show_attachment(call, interface)
    optional = {
        "PublicDnsName": public_name,
        "RequesterId": interface.requester_id,
        "Ipv6Address": interface.ipv6_addresses[0] if interface.ipv6_addresses else "",
        "Attachment": attachment,
    }
    return shown | {name: value for name, value in optional.items() if value}

"""Elastic IPs: public addresses that an account keeps, whatever becomes of the instance that they stand for.

    AllocateAddress ──► allocated ──AssociateAddress──► stands for one private address of one interface
                            │  ▲                                        │
          ReleaseAddress ◄──┘  └──────── DisassociateAddress ◄──────────┘

One that is associated with an instance's primary address takes the place of the auto-assigned one, which is gone for
good; when it leaves, the instance gets another where it would have one. Source: "Elastic IP addresses" and "Amazon EC2
instance IP addressing" in the EC2 user guide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Final

from orchestrator.api.ec2.launch_options import Structure
from orchestrator.api.ec2.network_interfaces import (
    check_own_work,
    find_interface,
    give_auto_address,
    only_interface,
    runs,
)
from orchestrator.api.ec2.subnet_addresses import PublicAddresses
from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model import ids
from orchestrator.model.elastic_ip import ElasticIp, parted
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of
from orchestrator.model.filters import FilterTable, Value
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import InternetGateway, NetworkInterface, public_addresses

# Of an account in a region. EC2's 5 spares addresses that are scarce in the world; here the range is the deployment's
# own, and what has to be kept is room for instances' addresses when a script runs away: a quarter of the usual range.
POOL: Final = "amazon"

_HOST_NAME: Final = re.compile(r"(?=.{1,254}\Z)(?:(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.)+(?!-)[A-Za-z0-9-]{2,63}(?<!-)\.?")


# --- rows -------------------------------------------------------------------------------------------------------------


def find_address(call: Call, allocation_id: str | None, public_ip: str | None) -> ElasticIp:
    """One of the caller's own, by one of both."""
    if allocation_id and public_ip:
        raise EC2Error("InvalidParameterCombination", "You may specify public IP or allocation ID, but not both")
    if allocation_id:
        return call.find(ElasticIp, "eipalloc", allocation_id)
    if not public_ip:
        raise missing_parameter("AllocationId")
    found = call.mine(ElasticIp, public_ip=_check_public_ip(public_ip))
    if not found:
        raise EC2Error("AuthFailure", f"The address '{public_ip}' does not belong to you.", 403)
    return found[0]


def _check_public_ip(public_ip: str) -> str:
    try:
        return str(IPv4Address(public_ip))
    except AddressValueError:
        raise EC2Error("InvalidAddress.Malformed", f"'{public_ip}' is not an address, as in 203.0.113.7") from None


def _standing_for(call: Call, interface: NetworkInterface, private_ip: str) -> ElasticIp | None:
    """The Elastic IP that stands for that address of the interface now."""
    found = call.tx.all(ElasticIp, interface_id=interface.id)
    return next((each for each in found if (each.private_ip or interface.private_ip) == private_ip), None)


# --- allocating and releasing -----------------------------------------------------------------------------------------


@operation("AllocateAddress", writes=True)
def allocate_address(
    call: Call,
    *,
    domain: str = "vpc",
    address: str | None = None,
    public_ipv4_pool: str = POOL,
    network_border_group: str | None = None,
    tag_specifications: list[Structure] | None = None,
) -> Answer:
    """`address` asks for a certain one of the public range, such as one that was released by mistake."""
    tags = tags_at_creation(tag_specifications, "elastic-ip")["elastic-ip"]
    one_of("Domain", domain, ("vpc",))
    if public_ipv4_pool != POOL:
        raise EC2Error(
            "InvalidPublicIpv4PoolID.NotFound",
            f"The pool ID '{public_ipv4_pool}' does not exist: the only one is {POOL}",
        )
    _check_border_group(call, network_border_group)
    free = PublicAddresses(call)
    public_ip = _check_free(free, address) if address else free.take()
    if public_ip is None:
        raise free.refuse()
    allocated = call.tx.put(
        ElasticIp(
            id=ids.mint("eipalloc"),
            account=call.account,
            region=call.region,
            created=call.now,
            tags=tags,
            public_ip=public_ip,
        )
    )
    return {
        "AllocationId": allocated.id,
        "PublicIp": allocated.public_ip,
        "PublicIpv4Pool": allocated.pool,
        "NetworkBorderGroup": allocated.region,
        "Domain": "vpc",
    }


def _check_border_group(call: Call, group: str | None) -> None:
    if group not in (None, call.region):
        raise invalid_parameter("NetworkBorderGroup", group, f"{call.region}, the region")


def _check_free(addresses: PublicAddresses, wanted: str) -> str:
    checked = _check_public_ip(wanted)
    if checked not in public_addresses(addresses.range, 0):
        raise EC2Error(
            "InvalidParameterValue",
            f"Address {wanted} cannot be allocated: it is not in {addresses.range}, without its first three and last",
        )
    if not addresses.is_free(checked):
        raise EC2Error("InvalidIPAddress.InUse", f"Address {wanted} is in use.")
    return checked


@operation("ReleaseAddress", writes=True)
def release_address(
    call: Call,
    *,
    allocation_id: str | None = None,
    public_ip: str | None = None,
    network_border_group: str | None = None,
) -> Answer:
    address = find_address(call, allocation_id, public_ip)
    _check_border_group(call, network_border_group)
    if address.interface_id:
        raise EC2Error("InvalidIPAddress.InUse", f"Address {address.public_ip} is in use.")
    if address.domain_name:
        raise EC2Error(
            "InvalidAddress.Locked",
            f"Address {address.public_ip} resolves to {address.domain_name}: reset its domain name first",
        )
    call.tx.delete(address)
    return {}


# --- associating ------------------------------------------------------------------------------------------------------


@operation("AssociateAddress", writes=True)
def associate_address(
    call: Call,
    *,
    allocation_id: str | None = None,
    public_ip: str | None = None,
    instance_id: str | None = None,
    network_interface_id: str | None = None,
    private_ip_address: str | None = None,
    allow_reassociation: bool = True,
) -> Answer:
    """Asked again, it answers the association that there is.

    Unless `allow_reassociation` is false, an Elastic IP leaves what it stood for, and one that stood for the same
    private address is parted from it and stays allocated.
    """
    address = find_address(call, allocation_id, public_ip)
    interface = _find_target(call, instance_id, network_interface_id)
    private_ip = private_ip_address or interface.private_ip
    if private_ip not in interface.private_ips:
        raise EC2Error(
            "InvalidParameterValue",
            f"The private IP address {private_ip} is not assigned to {interface.id}, which has "
            f"{', '.join(interface.private_ips)}",
        )
    earlier = _standing_for(call, interface, private_ip)
    if earlier is not None and earlier.id == address.id:
        return {"AssociationId": address.association_id}
    if address.interface_id:
        holder = call.tx.get(NetworkInterface, address.interface_id)
        if holder is not None:
            check_own_work(holder)
    for bound, resource in ((address, address.id), (earlier, f"the address {private_ip} of {interface.id}")):
        if bound is not None and bound.association_id and not allow_reassociation:
            raise EC2Error(
                "Resource.AlreadyAssociated",
                f"resource {resource} is already associated with associate-id {bound.association_id}",
            )
    if not call.tx.all(InternetGateway, vpc_id=interface.vpc_id):
        raise EC2Error("Gateway.NotAttached", f"Network {interface.vpc_id} is not attached to any internet gateway")
    if earlier is not None:
        call.tx.put(parted(earlier))
    # Bound first, so that its last place and this one are seen as they will be.
    bound = call.tx.put(
        replace(
            address,
            interface_id=interface.id,
            private_ip=private_ip,
            association_id=ids.mint("eipassoc"),
            ended_association_id=address.association_id or address.ended_association_id,
        )
    )
    if private_ip == interface.private_ip and interface.public_ip:
        call.tx.put(replace(interface, public_ip=""))
    call.wake_vpcs(interface.vpc_id)
    if address.interface_id and address.interface_id != interface.id:
        _leave(call, address.interface_id)
    return {"AssociationId": bound.association_id}


def _leave(call: Call, interface_id: str) -> None:
    """What an interface gets when its Elastic IP has gone elsewhere."""
    interface = call.tx.get(NetworkInterface, interface_id)
    if interface is not None:
        call.wake_vpcs(interface.vpc_id)
        if runs(call, interface):
            give_auto_address(call, interface, PublicAddresses(call))


def _find_target(call: Call, instance_id: str | None, interface_id: str | None) -> NetworkInterface:
    if instance_id and interface_id:
        raise EC2Error(
            "InvalidParameterCombination", "You may specify instance ID or network interface ID, but not both"
        )
    if interface_id:
        interface = find_interface(call, interface_id, permission="EIP-ASSOCIATE")
        attached_to = call.tx.get(Instance, interface.instance_id)
        if attached_to is not None and attached_to.state is State.PENDING:
            raise EC2Error(
                "IncorrectInstanceState",
                f"The instance '{attached_to.id}', which {interface.id} is attached to, is pending",
            )
        return interface
    if not instance_id:
        raise missing_parameter("InstanceId or NetworkInterfaceId")
    instance = call.find(Instance, "i", instance_id)
    if instance.state in (State.PENDING, State.SHUTTING_DOWN, State.TERMINATED):
        raise EC2Error(
            "InvalidInstanceID",
            f"The {instance.state} instance '{instance.id}' is not in a valid state for this operation.",
        )
    return only_interface(instance, call.tx.all(NetworkInterface, instance_id=instance.id))


@operation("DisassociateAddress", writes=True)
def disassociate_address(call: Call, *, association_id: str | None = None, public_ip: str | None = None) -> Answer:
    """An association that has ended is no error, and neither is an address that stands for nothing."""
    if association_id and public_ip:
        raise EC2Error("InvalidParameterCombination", "You may specify public IP or association ID, but not both")
    if association_id:
        address = _find_associated(call, association_id)
    elif public_ip:
        address = find_address(call, None, public_ip)
    else:
        raise missing_parameter("AssociationId")
    if not address.interface_id or (association_id and address.association_id != association_id):
        return {}
    interface = call.tx.get(NetworkInterface, address.interface_id)
    if interface is not None:
        check_own_work(interface)
    call.tx.put(parted(address))
    _leave(call, address.interface_id)
    return {}


def _find_associated(call: Call, association_id: str) -> ElasticIp:
    ids.check("eipassoc", association_id)
    for address in call.mine(ElasticIp):
        if association_id in (address.association_id, address.ended_association_id):
            return address
    raise ids.missing("eipassoc", [association_id])


# --- describing -------------------------------------------------------------------------------------------------------


def address_filters(call: Call) -> FilterTable:
    def of_interface(name: str) -> Any:
        def value(address: ElasticIp) -> Value:
            interface = call.db.get(NetworkInterface, address.interface_id)
            return (getattr(interface, name) or None) if interface is not None else None

        return value

    return {
        "allocation-id": lambda address: address.id,
        "association-id": lambda address: address.association_id or None,
        "domain": lambda address: "vpc",
        "instance-id": of_interface("instance_id"),
        "network-border-group": lambda address: address.region,
        "network-interface-id": lambda address: address.interface_id or None,
        "network-interface-owner-id": of_interface("account"),
        "private-ip-address": lambda address: address.private_ip or of_interface("private_ip")(address),
        "public-ip": lambda address: address.public_ip,
    }


@operation("DescribeAddresses", listing=True)
def describe_addresses(
    call: Call, *, public_ips: list[str] | None = None, allocation_ids: list[str] | None = None
) -> Answer:
    found = call.find_all(ElasticIp, "eipalloc", allocation_ids) if allocation_ids else call.mine(ElasticIp)
    if public_ips:
        wanted = [_check_public_ip(each) for each in public_ips]
        have = {address.public_ip for address in call.mine(ElasticIp)}
        if missing := [each for each in wanted if each not in have]:
            raise EC2Error("InvalidAddress.NotFound", f"Address '{', '.join(missing)}' not found.")
        found = [address for address in found if address.public_ip in wanted]
    return {"Addresses": [show_address(call, address) for address in choose(call, found, address_filters(call))]}


def show_address(call: Call, address: ElasticIp) -> Answer:
    shown: Answer = {
        "AllocationId": address.id,
        "PublicIp": address.public_ip,
        "Domain": "vpc",
        "PublicIpv4Pool": address.pool,
        "NetworkBorderGroup": address.region,
        "Tags": tag_set(address.tags),
    }
    if not address.interface_id:
        return shown
    shown |= {"AssociationId": address.association_id, "NetworkInterfaceId": address.interface_id}
    interface = call.db.get(NetworkInterface, address.interface_id)
    if interface is not None:
        shown |= {
            "NetworkInterfaceOwnerId": interface.account,
            "PrivateIpAddress": address.private_ip or interface.private_ip,
        }
        if interface.instance_id:
            shown["InstanceId"] = interface.instance_id
    return shown


@operation("DescribePublicIpv4Pools", listing=True)
def describe_public_ipv4_pools(call: Call, *, pool_ids: list[str] | None = None) -> Answer:
    """There are no pools of one's own addresses: all are of the deployment's range."""
    if pool_ids:
        raise EC2Error("InvalidPublicIpv4PoolID.NotFound", f"The pool ID '{', '.join(pool_ids)}' does not exist")
    choose(call, [], {})
    return {"PublicIpv4Pools": []}


# --- what an address resolves back to ---------------------------------------------------------------------------------

_ATTRIBUTES: Final = ("domain-name",)


@operation("DescribeAddressesAttribute", listing=True)
def describe_addresses_attribute(
    call: Call, *, allocation_ids: list[str] | None = None, attribute: str | None = None
) -> Answer:
    """Those that have a domain name, which is the one attribute that there is."""
    if attribute is not None:
        one_of("Attribute", attribute, _ATTRIBUTES)
    found: Sequence[ElasticIp] = (
        call.find_all(ElasticIp, "eipalloc", allocation_ids) if allocation_ids else call.mine(ElasticIp)
    )
    return show_page(
        call, "Addresses", [address for address in found if address.domain_name], _show_attribute, smallest=1
    )


def _show_attribute(address: ElasticIp) -> Answer:
    shown = {"AllocationId": address.id, "PublicIp": address.public_ip}
    return shown | ({"PtrRecord": address.domain_name} if address.domain_name else {})


@operation("ModifyAddressAttribute", writes=True)
def modify_address_attribute(call: Call, *, allocation_id: str, domain_name: str | None = None) -> Answer:
    """The name that reverse lookups of the address answer, at once. Whether it resolves to it is not looked up."""
    address = call.find(ElasticIp, "eipalloc", allocation_id)
    if not domain_name:
        raise missing_parameter("DomainName")
    if not _HOST_NAME.fullmatch(domain_name):
        raise invalid_parameter("DomainName", domain_name, "a full domain name, as in mail.example.com")
    return {"Address": _show_attribute(_rename(call, address, domain_name.rstrip(".").lower() + "."))}


@operation("ResetAddressAttribute", writes=True)
def reset_address_attribute(call: Call, *, allocation_id: str, attribute: str) -> Answer:
    address = call.find(ElasticIp, "eipalloc", allocation_id)
    one_of("Attribute", attribute, _ATTRIBUTES)
    return {"Address": _show_attribute(_rename(call, address, ""))}


def _rename(call: Call, address: ElasticIp, domain_name: str) -> ElasticIp:
    renamed = call.tx.put(replace(address, domain_name=domain_name))
    interface = call.tx.get(NetworkInterface, address.interface_id)
    if interface is not None:
        call.wake_vpcs(interface.vpc_id)  # its resolver answers the name
    return renamed

"""Addresses of an interface that is there: secondary private ones, /28 prefixes and IPv6 addresses, given and taken.

A secondary address may move from one interface of the subnet to another; an Elastic IP that stands for it goes along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Final

from orchestrator.api.ec2.interface_view import show_prefixes
from orchestrator.api.ec2.network_interfaces import find_interface, put_interface
from orchestrator.api.ec2.subnet_addresses import (
    SubnetAddresses,
    check_address_limits,
    check_count,
    check_interface_limits,
    only_one,
)
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.elastic_ip import ElasticIp, parted
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, unsupported
from orchestrator.model.instance import Instance
from orchestrator.model.instance_type import CATALOGUE, InstanceType
from orchestrator.model.vpc import NetworkInterface, Subnet

_NO_IPV6_PREFIXES: Final = "Interfaces have no IPv6 prefixes here: assign Ipv6Addresses"


@operation("AssignPrivateIpAddresses", writes=True)
def assign_private_ip_addresses(
    call: Call,
    *,
    network_interface_id: str,
    private_ip_addresses: list[str] | None = None,
    secondary_private_ip_address_count: int | None = None,
    ipv4_prefixes: list[str] | None = None,
    ipv4_prefix_count: int | None = None,
    allow_reassignment: bool = False,
) -> Answer:
    """Addresses that the interface has already are not assigned again, which makes a repeated call harmless."""
    interface = find_interface(call, network_interface_id)
    subnet = _subnet(call, interface)
    kind = only_one(
        PrivateIpAddresses=private_ip_addresses,
        SecondaryPrivateIpAddressCount=secondary_private_ip_address_count,
        Ipv4Prefixes=ipv4_prefixes,
        Ipv4PrefixCount=ipv4_prefix_count,
    )
    if not kind:
        raise missing_parameter(
            "PrivateIpAddress, SecondaryPrivateIpAddressCount, Ipv4Prefix or Ipv4PrefixCount: one of them"
        )
    assigned: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    if private_ip_addresses:
        wanted = [address for address in dict.fromkeys(private_ip_addresses) if address not in interface.private_ips]
        addresses = SubnetAddresses(call, subnet)
        taken = [
            each
            for each in wanted
            if call.tx.all(NetworkInterface, addresses=addresses.check_range(each), subnet_id=subnet.id)
        ]
        if allow_reassignment:
            for address in taken:
                _move(call, address, interface)
        assigned = tuple(
            address if allow_reassignment and address in taken else addresses.claim_address(address)
            for address in wanted
        )
    elif ipv4_prefixes:
        addresses = SubnetAddresses(call, subnet)
        wanted = [prefix for prefix in dict.fromkeys(ipv4_prefixes) if prefix not in interface.prefixes]
        prefixes = tuple(addresses.claim_prefix(prefix) for prefix in wanted)
    else:
        addresses = SubnetAddresses(call, subnet)
        assigned = addresses.take(
            check_count("SecondaryPrivateIpAddressCount", secondary_private_ip_address_count or 0)
        )
        prefixes = addresses.take_prefixes(check_count("Ipv4PrefixCount", ipv4_prefix_count or 0))
    changed = replace(
        interface,
        more_private_ips=interface.more_private_ips + assigned,
        prefixes=interface.prefixes + prefixes,
    )
    check_interface_limits(_kind(call, interface), changed)
    put_interface(call, changed)
    return {
        "NetworkInterfaceId": interface.id,
        "AssignedPrivateIpAddresses": [{"PrivateIpAddress": address} for address in assigned],
        "AssignedIpv4Prefixes": show_prefixes(prefixes),
    }


def _move(call: Call, address: str, to: NetworkInterface) -> None:
    """Take a secondary address from the interface that has it. Its Elastic IP follows."""
    [holder] = call.tx.all(NetworkInterface, addresses=address, subnet_id=to.subnet_id)
    if address == holder.private_ip or holder.requester_id or holder.account != to.account:
        raise EC2Error(
            "InvalidIPAddress.InUse",
            f"Address {address} is in use. Only a secondary address of an interface of your own can be reassigned.",
        )
    put_interface(
        call, replace(holder, more_private_ips=tuple(each for each in holder.more_private_ips if each != address))
    )
    for elastic in call.tx.all(ElasticIp, interface_id=holder.id):
        if elastic.private_ip == address:
            call.tx.put(replace(elastic, interface_id=to.id))


@operation("UnassignPrivateIpAddresses", writes=True)
def unassign_private_ip_addresses(
    call: Call,
    *,
    network_interface_id: str,
    private_ip_addresses: list[str] | None = None,
    ipv4_prefixes: list[str] | None = None,
) -> Answer:
    """Elastic IPs that stand for them are associated with nothing any more."""
    interface = find_interface(call, network_interface_id)
    if not (private_ip_addresses or ipv4_prefixes):
        raise missing_parameter("PrivateIpAddress or Ipv4Prefix")
    gone = private_ip_addresses or []
    if interface.private_ip in gone:
        raise EC2Error(
            "InvalidParameterValue", f"{interface.private_ip} is the primary address of {interface.id}: it stays"
        )
    _check_has(interface, gone, interface.more_private_ips)
    _check_has(interface, ipv4_prefixes or [], interface.prefixes)
    for elastic in call.tx.all(ElasticIp, interface_id=interface.id):
        if elastic.private_ip in gone:
            call.tx.put(parted(elastic))
    changed = replace(
        interface,
        more_private_ips=tuple(each for each in interface.more_private_ips if each not in gone),
        prefixes=tuple(each for each in interface.prefixes if each not in (ipv4_prefixes or ())),
    )
    put_interface(call, changed)
    return {}


@operation("AssignIpv6Addresses", writes=True)
def assign_ipv6_addresses(
    call: Call,
    *,
    network_interface_id: str,
    ipv6_addresses: list[str] | None = None,
    ipv6_address_count: int | None = None,
    ipv6_prefixes: list[str] | None = None,
    ipv6_prefix_count: int | None = None,
) -> Answer:
    interface = find_interface(call, network_interface_id)
    if ipv6_prefixes or ipv6_prefix_count:
        raise unsupported(_NO_IPV6_PREFIXES)
    if not only_one(Ipv6Addresses=ipv6_addresses, Ipv6AddressCount=ipv6_address_count):
        raise missing_parameter("Ipv6Addresses or Ipv6AddressCount")
    addresses = SubnetAddresses(call, _subnet(call, interface))
    if ipv6_addresses:
        wanted = [each for each in _written(ipv6_addresses) if each not in interface.ipv6_addresses]
        assigned = tuple(addresses.claim_ipv6(address) for address in wanted)
    else:
        count = check_count("Ipv6AddressCount", ipv6_address_count or 0)
        check_address_limits(_kind(call, interface), 0, len(interface.ipv6_addresses) + count)  # before any is drawn
        assigned = addresses.take_ipv6(count)
    changed = replace(interface, ipv6_addresses=interface.ipv6_addresses + assigned)
    check_interface_limits(_kind(call, interface), changed)
    put_interface(call, changed)
    return {"NetworkInterfaceId": interface.id, "AssignedIpv6Addresses": list(assigned), "AssignedIpv6Prefixes": []}


@operation("UnassignIpv6Addresses", writes=True)
def unassign_ipv6_addresses(
    call: Call,
    *,
    network_interface_id: str,
    ipv6_addresses: list[str] | None = None,
    ipv6_prefixes: list[str] | None = None,
) -> Answer:
    interface = find_interface(call, network_interface_id)
    if ipv6_prefixes:
        raise unsupported(_NO_IPV6_PREFIXES)
    if not ipv6_addresses:
        raise missing_parameter("Ipv6Addresses")
    gone = _written(ipv6_addresses)
    _check_has(interface, gone, interface.ipv6_addresses)
    kept = tuple(each for each in interface.ipv6_addresses if each not in gone)
    put_interface(call, replace(interface, ipv6_addresses=kept))
    return {"NetworkInterfaceId": interface.id, "UnassignedIpv6Addresses": gone, "UnassignedIpv6Prefixes": []}


# --- parts ------------------------------------------------------------------------------------------------------------


def _subnet(call: Call, interface: NetworkInterface) -> Subnet:
    return call.find(Subnet, "subnet", interface.subnet_id)


def _kind(call: Call, interface: NetworkInterface) -> InstanceType | None:
    """The type whose limits it keeps; None while it is attached to nothing."""
    instance = call.tx.get(Instance, interface.instance_id)
    return CATALOGUE.get(instance.instance_type) if instance else None


def _check_has(interface: NetworkInterface, addresses: Sequence[str], own: Sequence[str]) -> None:
    if strange := [address for address in addresses if address not in own]:
        raise EC2Error(
            "InvalidParameterValue",
            f"Some of [{', '.join(strange)}] are not assigned to interface {interface.id}",
        )


def _written(addresses: Sequence[str]) -> list[str]:
    """Each once, as it is written here, whatever way the request wrote it."""
    try:
        return list(dict.fromkeys(str(IPv6Address(address)) for address in addresses))
    except ValueError:
        raise invalid_parameter("Ipv6Addresses", ", ".join(addresses), "IPv6 addresses") from None

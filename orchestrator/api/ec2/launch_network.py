"""Where a launch is put: zone, subnet, security groups and addresses.

    SubnetId given ────────────► that subnet
    otherwise: default VPC ────► its default subnet in the zone asked for, else the first zone's with room

The one interface may be described at the top of the request or as NetworkInterfaces with one entry, not as both.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Final

from orchestrator.api.ec2.launch_options import Structure, take
from orchestrator.api.operation import Call
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, unsupported
from orchestrator.model.vpc import (
    NetworkInterface,
    SecurityGroup,
    Subnet,
    Vpc,
    free_address,
    public_addresses,
    reserved_addresses,
)
from orchestrator.model.zone import zone_id

MAX_GROUPS: Final = 5  # of one interface

_ZERO_OF: Final = ("Ipv6AddressCount", "SecondaryPrivateIpAddressCount", "Ipv4PrefixCount", "Ipv6PrefixCount")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the instances of one launch go. `private_ip` is empty when any will do."""

    subnet: Subnet
    groups: tuple[str, ...]
    private_ip: str
    public: bool  # whether each gets a public address
    description: str
    delete_on_termination: bool


class SubnetAddresses:
    """The free private addresses of a subnet, lowest first."""

    def __init__(self, call: Call, subnet: Subnet) -> None:
        self.subnet = subnet
        self._network = subnet.network
        self._taken = {interface.private_ip for interface in call.tx.all(NetworkInterface, subnet_id=subnet.id)}
        self._start = 4

    def free(self) -> int:
        return self._network.num_addresses - len(reserved_addresses(self._network)) - len(self._taken)

    def take(self) -> str | None:
        address = free_address(self._network, self._taken, start=self._start)
        if address is not None:
            self._taken.add(address)
            self._start = int(IPv4Address(address)) - int(self._network.network_address) + 1
        return address

    def check(self, address: str) -> str:
        """An address that the caller chose, when an interface may have it."""
        try:
            inside = IPv4Address(address) in self._network
        except AddressValueError:
            raise invalid_parameter("PrivateIpAddress", address, "an IPv4 address, as in 172.31.0.10") from None
        if not inside:
            raise EC2Error(
                "InvalidParameterValue",
                f"Address {address} does not fall within the subnet's address range {self.subnet.cidr}",
            )
        if address in reserved_addresses(self._network):
            raise EC2Error(
                "InvalidParameterValue",
                f"Address {address} is in the subnet's reserved address range: the first four and the last of "
                f"{self.subnet.cidr}",
            )
        if address in self._taken:
            raise EC2Error("InvalidIPAddress.InUse", f"Address {address} is in use.")
        return address


class PublicAddresses:
    """Free addresses of the deployment's public range, over all accounts and regions.

    It begins anywhere, so that an address is seldom given to somebody else the moment after it was released.
    """

    def __init__(self, call: Call) -> None:
        public_range = call.settings.public_range
        self._range = str(public_range)
        self._store = call.tx.store
        self._candidates = public_addresses(public_range, secrets.randbelow(public_range.num_addresses))
        self._avoided: list[str] = []

    def take(self, avoid: str = "") -> str | None:
        """One that no interface has; `avoid` only when it is the last."""
        for address in self._candidates:
            if address == avoid:
                self._avoided.append(address)
            elif self._free(address):
                return address
        for address in self._avoided:
            if self._free(address):
                self._avoided.remove(address)
                return address
        return None

    def _free(self, address: str) -> bool:
        return not self._store.all(NetworkInterface, public_ip=address)

    def refuse(self) -> EC2Error:
        return EC2Error(
            "InsufficientAddressCapacity",
            f"Not enough public addresses are free in {self._range} for this request: terminate or stop instances, "
            "launch without public addresses, or configure a larger public range.",
            500,
        )


def choose_place(
    call: Call,
    *,
    count: int,
    zone: str | None,
    subnet_id: str | None,
    group_ids: Sequence[str] | None,
    group_names: Sequence[str] | None,
    private_ip: str | None,
    interfaces: Sequence[Structure] | None,
) -> tuple[Place, SubnetAddresses]:
    """`count` is how many instances there must be; `zone` is None when any will do."""
    interface = _only_interface(interfaces)
    if interfaces:
        for name, value in (("subnet ID", subnet_id), ("security groups", group_ids or group_names)):
            if value:
                raise EC2Error(
                    "InvalidParameterCombination",
                    f"Network interfaces and an instance-level {name} may not be specified on the same request",
                )
        if private_ip:
            raise EC2Error(
                "InvalidParameterCombination",
                "Network interfaces and an instance-level private address may not be specified on the same request",
            )
        subnet_id, group_ids = interface.get("SubnetId"), interface.get("Groups")
        private_ip = _private_ip_of(interface)
    addresses = _choose_subnet(call, subnet_id, zone, count)
    subnet = addresses.subnet
    if private_ip:
        addresses.check(private_ip)
    return Place(
        subnet=subnet,
        groups=_choose_groups(call, subnet, group_ids, group_names, by_name=not subnet_id),
        private_ip=private_ip or "",
        public=interface.get("AssociatePublicIpAddress", subnet.map_public_ip_on_launch),
        description=interface.get("Description", ""),
        delete_on_termination=interface.get("DeleteOnTermination", True),
    ), addresses


# --- the interface ----------------------------------------------------------------------------------------------------


def _only_interface(interfaces: Sequence[Structure] | None) -> Structure:
    if not interfaces:
        return {}
    if len(interfaces) > 1:
        raise unsupported("RunInstances gives an instance one network interface here; NetworkInterfaces has more")
    given = take(
        interfaces[0],
        "NetworkInterfaces",
        "AssociatePublicIpAddress",
        "DeleteOnTermination",
        "Description",
        "DeviceIndex",
        "Groups",
        "InterfaceType",
        "NetworkCardIndex",
        "PrivateIpAddress",
        "PrivateIpAddresses",
        "SubnetId",
        *_ZERO_OF,
    )
    if "DeviceIndex" not in given:
        raise missing_parameter("NetworkInterface.1.DeviceIndex")
    if given["DeviceIndex"] != 0:
        raise invalid_parameter("NetworkInterface.1.DeviceIndex", given["DeviceIndex"], "0, the primary interface")
    for name, only in (("InterfaceType", "interface"), ("NetworkCardIndex", 0), *((name, 0) for name in _ZERO_OF)):
        if given.get(name, only) != only:
            raise unsupported(f"NetworkInterfaces.{name} must be {only} here")
    return given


def _private_ip_of(interface: Structure) -> str | None:
    listed: Sequence[Mapping[str, Any]] = interface.get("PrivateIpAddresses") or ()
    if len(listed) > 1:
        raise unsupported("An interface has one private address here; PrivateIpAddresses has more")
    single: str | None = interface.get("PrivateIpAddress")
    if not listed:
        return single
    if single:
        raise EC2Error(
            "InvalidParameterCombination", "PrivateIpAddress and PrivateIpAddresses may not be specified together"
        )
    if not listed[0].get("Primary", True):
        raise EC2Error("InvalidParameterValue", "One of PrivateIpAddresses must be primary")
    address: str | None = listed[0].get("PrivateIpAddress")
    return address


# --- the subnet -------------------------------------------------------------------------------------------------------


def choose_zone(call: Call, placement: Structure | None) -> str | None:
    """The zone that a request's Placement names, by name or id; None when it names none."""
    given = take(placement, "Placement", "AvailabilityZone", "AvailabilityZoneId", "GroupName", "Tenancy")
    if given.get("GroupName"):
        raise unsupported("Placement.GroupName: there are no placement groups here")
    if given.get("Tenancy", "default") != "default":
        raise unsupported("Placement.Tenancy must be default here: instances of all accounts share the host")
    by_name, by_id = given.get("AvailabilityZone"), given.get("AvailabilityZoneId")
    chosen = by_name or next((zone for zone in call.zones if by_id and zone_id(zone) == by_id), None)
    if (by_name or by_id) and chosen not in call.zones:
        raise EC2Error(
            "InvalidParameterValue",
            f"Invalid availability zone: [{by_name or by_id}]. The zones of {call.region} are {', '.join(call.zones)}.",
        )
    if by_name and by_id and zone_id(by_name) != by_id:
        raise EC2Error("InvalidParameterCombination", f"AvailabilityZone {by_name} is {zone_id(by_name)}, not {by_id}")
    return chosen


def _choose_subnet(call: Call, subnet_id: str | None, zone: str | None, count: int) -> SubnetAddresses:
    if subnet_id:
        subnet = call.find(Subnet, "subnet", subnet_id)
        if zone and subnet.zone != zone:
            raise EC2Error(
                "InvalidParameterValue",
                f"Value ({zone}) for parameter availabilityZone is invalid. Subnet '{subnet.id}' is in the "
                f"availability zone {subnet.zone}",
            )
        return SubnetAddresses(call, subnet)
    vpc = next((vpc for vpc in call.mine(Vpc) if vpc.is_default), None)
    if vpc is None:
        raise EC2Error("VPCIdNotSpecified", "No default VPC for this user: specify a subnet")
    subnets = [subnet for subnet in call.mine(Subnet, vpc_id=vpc.id) if subnet.default_for_zone]
    if zone:
        subnets = [subnet for subnet in subnets if subnet.zone == zone]
    if not subnets:
        place = f" in the availability zone {zone}" if zone else ""
        raise EC2Error("MissingInput", f"The default VPC '{vpc.id}' has no default subnet{place}: specify a subnet")
    choices = [SubnetAddresses(call, subnet) for subnet in sorted(subnets, key=lambda subnet: subnet.zone)]
    return next((choice for choice in choices if choice.free() >= count), choices[0])


# --- the groups -------------------------------------------------------------------------------------------------------


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


def _choose_groups(
    call: Call, subnet: Subnet, group_ids: Sequence[str] | None, names: Sequence[str] | None, *, by_name: bool
) -> tuple[str, ...]:
    """Names mean groups of the default VPC, so they do not go with a subnet."""
    if names and not by_name:
        raise EC2Error(
            "InvalidParameterCombination", "The parameter groupName cannot be used with the parameter subnet"
        )
    wanted = list(group_ids or ())
    known = {group.name: group.id for group in call.mine(SecurityGroup, vpc_id=subnet.vpc_id)}
    for name in names or () if wanted or names else ("default",):
        if name not in known:
            raise EC2Error(
                "InvalidGroup.NotFound", f"The security group '{name}' does not exist in the VPC '{subnet.vpc_id}'"
            )
        wanted.append(known[name])
    return check_groups(call, subnet.vpc_id, wanted)

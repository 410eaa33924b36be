"""Where a launch is put: zone, subnets, network interfaces with their groups, and what addresses they ask for.

    SubnetId given ────────────► that subnet
    otherwise: default VPC ────► its default subnet in the zone asked for, else the first zone's with room

The one interface may be described at the top of the request, or any number as NetworkInterfaces, not both ways. An
interface that is there already is attached; the others are made, one for each instance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from orchestrator.api.ec2.launch_options import Structure, take
from orchestrator.api.ec2.network_interfaces import check_description, choose_groups, find_interface
from orchestrator.api.ec2.subnet_addresses import (
    ADDRESS_MEMBERS,
    SubnetAddresses,
    Wanted,
    check_address_limits,
    check_interface_count,
    check_interface_limits,
    read_wanted,
)
from orchestrator.api.operation import Call
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, unsupported
from orchestrator.model.instance_type import InstanceType
from orchestrator.model.vpc import NetworkInterface, Subnet, Vpc
from orchestrator.model.zone import zone_id


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInterface:
    """Made for each instance of the launch."""

    device_index: int
    subnet: Subnet
    groups: tuple[str, ...]
    wanted: Wanted
    public: bool  # whether it gets an auto-assigned public address
    description: str
    delete_on_termination: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnInterface:
    """There already, and attached to the one instance of the launch."""

    device_index: int
    subnet: Subnet
    interface: NetworkInterface
    delete_on_termination: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the instances of one launch go: the interfaces by device index, and the free addresses of their subnets."""

    interfaces: tuple[NewInterface | OwnInterface, ...]
    addresses: Mapping[str, SubnetAddresses]  # subnet -> what is free there

    @property
    def subnet(self) -> Subnet:
        """The primary interface's."""
        return self.interfaces[0].subnet


def choose_place(
    call: Call,
    *,
    kind: InstanceType,
    least: int,
    most: int,
    zone: str | None,
    top: Structure,
    group_names: Sequence[str] | None,
    interfaces: Sequence[Structure] | None,
) -> Place:
    """`least` and `most` are how many instances there may be; `zone` is None when any will do.

    `top` is what the top of the request says of the one interface, in the words of NetworkInterfaces.
    """
    said = {name: value for name, value in top.items() if value not in (None, [])}
    if interfaces and (said or group_names):
        name = next(iter(said), "Groups")
        raise EC2Error(
            "InvalidParameterCombination",
            f"Network interfaces and an instance-level {_TOP_NAMES.get(name, name)} may not be specified on the same "
            "request",
        )
    given = _in_order(interfaces) if interfaces else [{"DeviceIndex": 0, **said}]
    check_interface_count(kind, len(given))
    choice = _Choice(
        call=call,
        kind=kind,
        least=least,
        most=most,
        zone=zone,
        group_names=group_names or (),
        alone=len(given) == 1,
    )
    chosen = tuple(choice.own(each) if "NetworkInterfaceId" in each else choice.new(each) for each in given)
    for one in chosen:
        if isinstance(one, NewInterface):
            choice.addresses[one.subnet.id].claim(one.wanted)
    return Place(interfaces=chosen, addresses=choice.addresses)


# --- the interfaces ---------------------------------------------------------------------------------------------------

_TOP_NAMES: Final = {
    "SubnetId": "subnet ID",
    "Groups": "security groups",
    "PrivateIpAddress": "private address",
}
_PLACING: Final = (
    "AssociatePublicIpAddress",
    "DeleteOnTermination",
    "Description",
    "DeviceIndex",
    "Groups",
    "InterfaceType",
    "NetworkCardIndex",
    "NetworkInterfaceId",
    "PrimaryIpv6",
    "SubnetId",
)
_ONLY: Final = (("InterfaceType", "interface"), ("NetworkCardIndex", 0), ("PrimaryIpv6", False))
_OF_OWN: Final = ("DeleteOnTermination", "DeviceIndex", "InterfaceType", "NetworkCardIndex", "NetworkInterfaceId")


def _in_order(interfaces: Sequence[Structure]) -> list[Structure]:
    """By device index, each once, the primary first."""
    for number, each in enumerate(interfaces, 1):
        take(each, "NetworkInterfaces", *_PLACING, *ADDRESS_MEMBERS)
        if "DeviceIndex" not in each:
            raise missing_parameter(f"NetworkInterface.{number}.DeviceIndex")
        if each["DeviceIndex"] < 0:
            raise invalid_parameter(f"NetworkInterface.{number}.DeviceIndex", each["DeviceIndex"], "a number from 0")
        for name, only in _ONLY:
            if each.get(name, only) != only:
                raise unsupported(f"NetworkInterfaces.{name} must be {only} here")
    indexes = [each["DeviceIndex"] for each in interfaces]
    if len(set(indexes)) < len(indexes):
        raise EC2Error("InvalidParameterValue", "Each network interface requires a unique device index.")
    if 0 not in indexes:
        raise EC2Error("InvalidParameterValue", "One network interface must have the device index 0: the primary one")
    existing = [each["NetworkInterfaceId"] for each in interfaces if each.get("NetworkInterfaceId")]
    if len(set(existing)) < len(existing):
        raise EC2Error("InvalidParameterValue", "A network interface can be attached once: an ID is given twice")
    return sorted(interfaces, key=lambda each: int(each["DeviceIndex"]))


def check_index(kind: InstanceType, index: int) -> int:
    """A place for an interface that an instance of the type has."""
    if not 0 <= index < kind.max_interfaces:
        raise invalid_parameter("DeviceIndex", index, f"a number from 0 to {kind.max_interfaces - 1} for {kind.name}")
    return index


def check_available(interface: NetworkInterface) -> None:
    if interface.attachment is not None or interface.state != "available":
        raise EC2Error("InvalidNetworkInterface.InUse", f"Interface: [{interface.id}] in use.")


@dataclass(slots=True, kw_only=True)
class _Choice:
    """The interfaces of one launch, chosen one after the other: the first decides on the zone and the VPC."""

    call: Call
    kind: InstanceType
    least: int
    most: int
    zone: str | None
    group_names: Sequence[str]
    alone: bool
    first: Subnet | None = None
    addresses: dict[str, SubnetAddresses] = field(default_factory=dict)

    def own(self, given: Structure) -> OwnInterface:
        if self.most > 1:
            raise EC2Error(
                "InvalidParameterCombination",
                "A network interface ID may not be given when more than one instance is launched",
            )
        for name in given:
            if name not in _OF_OWN:
                raise EC2Error(
                    "InvalidParameterCombination",
                    f"A network interface may not specify both a network interface ID and {name}",
                )
        interface = find_interface(self.call, given["NetworkInterfaceId"], permission="INSTANCE-ATTACH")
        check_available(interface)
        subnet = self.call.tx.get(Subnet, interface.subnet_id)
        if subnet is None:
            raise EC2Error("InvalidSubnetID.NotFound", f"The subnet ID '{interface.subnet_id}' does not exist")
        self.near(subnet)
        check_interface_limits(self.kind, interface)
        return OwnInterface(
            device_index=check_index(self.kind, given["DeviceIndex"]),
            subnet=subnet,
            interface=interface,
            delete_on_termination=given.get("DeleteOnTermination", False),
        )

    def new(self, given: Structure) -> NewInterface:
        wanted = read_wanted(given)
        if self.most > 1 and wanted.names_any:
            raise EC2Error(
                "InvalidParameterCombination",
                "A private address may not be given when more than one instance is launched",
            )
        subnet = self.subnet(given.get("SubnetId"))
        if self.group_names and given.get("SubnetId"):
            raise EC2Error(  # names mean groups of the default VPC
                "InvalidParameterCombination", "The parameter groupName cannot be used with the parameter subnet"
            )
        automatic = 1 if subnet.assign_ipv6_on_creation and subnet.ipv6_cidrs and wanted.ipv6_count is None else 0
        check_address_limits(
            self.kind,
            wanted.ipv4_slots,
            len(wanted.ipv6_addresses) or wanted.ipv6_count or automatic,
            "InvalidInterface.IpAddressLimitExceeded",
        )
        return NewInterface(
            device_index=check_index(self.kind, given["DeviceIndex"]),
            subnet=subnet,
            groups=choose_groups(self.call, subnet.vpc_id, given.get("Groups"), self.group_names),
            wanted=wanted,
            public=self.public(given, subnet),
            description=check_description(given.get("Description", "")),
            delete_on_termination=given.get("DeleteOnTermination", True),
        )

    def subnet(self, subnet_id: str | None) -> Subnet:
        """That one; without an id the first interface's, and for the first a default one."""
        if self.first is not None and subnet_id in (None, self.first.id):
            if self.first.id not in self.addresses:
                self.addresses[self.first.id] = SubnetAddresses(self.call, self.first)
            return self.first
        free = _choose_subnet(self.call, subnet_id, self.zone, self.least)
        self.near(free.subnet)
        return self.addresses.setdefault(free.subnet.id, free).subnet

    def near(self, subnet: Subnet) -> None:
        """The interfaces of an instance are in its zone, and those of a launch in one VPC."""
        if self.first is not None and subnet.vpc_id != self.first.vpc_id:
            raise EC2Error(
                "InvalidParameterCombination",
                f"The network interfaces of a launch must be in one VPC: {subnet.id} is in {subnet.vpc_id}, "
                f"{self.first.id} in {self.first.vpc_id}",
            )
        if self.zone and subnet.zone != self.zone:
            raise EC2Error(
                "InvalidParameterValue",
                f"Value ({self.zone}) for parameter availabilityZone is invalid. Subnet '{subnet.id}' is in the "
                f"availability zone {subnet.zone}",
            )
        self.first, self.zone = self.first or subnet, subnet.zone

    def public(self, given: Structure, subnet: Subnet) -> bool:
        """Whether it gets an auto-assigned public address: only an instance's only interface can."""
        asked: bool | None = given.get("AssociatePublicIpAddress")
        if asked and given["DeviceIndex"] != 0:
            raise EC2Error(
                "InvalidParameterCombination",
                "The associatePublicIPAddress parameter can only be specified for the network interface with the "
                "device index 0",
            )
        if asked and not self.alone:
            raise EC2Error(
                "InvalidParameterCombination",
                "The associatePublicIPAddress parameter cannot be specified when launching with multiple network "
                "interfaces.",
            )
        return self.alone and (subnet.map_public_ip_on_launch if asked is None else asked)


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
        return SubnetAddresses(call, call.find(Subnet, "subnet", subnet_id))
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

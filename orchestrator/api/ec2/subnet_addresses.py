"""Addresses for interfaces: what a request asks for, and what it gets of a subnet and of the public range.

    request ──► read_wanted ──► Wanted ──► SubnetAddresses.claim   those that were named: in range, not reserved, free
                                       └─► SubnetAddresses.allot   those that were counted ──► Addresses

Of an interface's secondary addresses and prefixes a request names or counts one kind, as in EC2.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, NetmaskValueError
from typing import Any, Final

from orchestrator.api.ec2.launch_options import Structure
from orchestrator.api.operation import Call
from orchestrator.model.addressing import PREFIX_LENGTH, FreeAddresses
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, unsupported
from orchestrator.model.instance_type import CATALOGUE, InstanceType
from orchestrator.model.vpc import NetworkInterface, Subnet, public_addresses

# The members of a request that `read_wanted` reads.
ADDRESS_MEMBERS: Final = (
    "PrivateIpAddress",
    "PrivateIpAddresses",
    "SecondaryPrivateIpAddressCount",
    "Ipv4Prefixes",
    "Ipv4PrefixCount",
    "Ipv6Addresses",
    "Ipv6AddressCount",
    "Ipv6Prefixes",
    "Ipv6PrefixCount",
)


class NoRoom(EC2Error):
    """A subnet has too few free addresses or prefixes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request says of an interface's addresses. Empty, or 0: nothing."""

    private_ip: str = ""
    more_private_ips: tuple[str, ...] = ()
    more_count: int = 0
    prefixes: tuple[str, ...] = ()
    prefix_count: int = 0
    ipv6_addresses: tuple[str, ...] = ()
    ipv6_count: int | None = None  # None: as the subnet has it

    @property
    def names_any(self) -> bool:
        """Whether it names an address or prefix, which one interface alone can have."""
        return bool(self.private_ip or self.more_private_ips or self.prefixes or self.ipv6_addresses)

    @property
    def ipv4_slots(self) -> int:
        """How many of the places that an instance's type has for addresses it needs: a prefix needs one."""
        return 1 + len(self.more_private_ips) + self.more_count + len(self.prefixes) + self.prefix_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What an interface has."""

    private_ip: str
    more_private_ips: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    ipv6_addresses: tuple[str, ...] = ()


# --- the request ------------------------------------------------------------------------------------------------------


def read_wanted(given: Structure) -> Wanted:
    private_ip, more = _private_ips(given)
    ipv6_addresses = tuple(_ipv6_address(each) for each in given.get("Ipv6Addresses") or ())
    wanted = Wanted(
        private_ip=private_ip,
        more_private_ips=more,
        more_count=_count(given, "SecondaryPrivateIpAddressCount") or 0,
        prefixes=tuple(_prefix(each) for each in given.get("Ipv4Prefixes") or ()),
        prefix_count=_count(given, "Ipv4PrefixCount") or 0,
        ipv6_addresses=ipv6_addresses,
        ipv6_count=_count(given, "Ipv6AddressCount"),
    )
    only_one(
        PrivateIpAddresses=wanted.more_private_ips,
        SecondaryPrivateIpAddressCount=wanted.more_count,
        Ipv4Prefixes=wanted.prefixes,
        Ipv4PrefixCount=wanted.prefix_count,
    )
    only_one(Ipv6Addresses=wanted.ipv6_addresses, Ipv6AddressCount=wanted.ipv6_count)
    if given.get("Ipv6Prefixes") or given.get("Ipv6PrefixCount"):
        raise unsupported("Interfaces have no IPv6 prefixes here: ask for Ipv6Addresses or Ipv6AddressCount")
    return wanted


def only_one(**members: object) -> str:
    """The one member that is given, empty when none is."""
    given = [name for name, value in members.items() if value]
    if len(given) > 1:
        raise EC2Error("InvalidParameterCombination", f"{' and '.join(given)} may not be specified together")
    return given[0] if given else ""


def _private_ips(given: Structure) -> tuple[str, tuple[str, ...]]:
    """The primary address (empty when any will do) and the secondary ones.

    The first of PrivateIpAddresses is the primary one where nothing says which is.
    """
    single: str = given.get("PrivateIpAddress") or ""
    listed: Sequence[Mapping[str, Any]] = given.get("PrivateIpAddresses") or ()
    for each in listed:
        if not each.get("PrivateIpAddress"):
            raise missing_parameter("PrivateIpAddresses.PrivateIpAddress")
    primary = [each for each in listed if each.get("Primary")]
    if single and (primary or (len(listed) == 1 and "Primary" not in listed[0])):
        raise EC2Error(
            "InvalidParameterCombination",
            "PrivateIpAddress and a primary one of PrivateIpAddresses may not be specified together",
        )
    if len(primary) > 1:
        raise EC2Error("InvalidParameterValue", "Only one of PrivateIpAddresses can be primary")
    if not primary and listed and not single:
        if not listed[0].get("Primary", True):
            raise EC2Error("InvalidParameterValue", "One of PrivateIpAddresses must be primary")
        primary = [listed[0]]
    more = tuple(str(each["PrivateIpAddress"]) for each in listed if not (primary and each is primary[0]))
    return single or (str(primary[0]["PrivateIpAddress"]) if primary else ""), more


def _prefix(each: Structure) -> str:
    prefix: str | None = each.get("Ipv4Prefix")
    if not prefix:
        raise missing_parameter("Ipv4Prefixes.Ipv4Prefix")
    return prefix


def _ipv6_address(each: Structure) -> str:
    address: str | None = each.get("Ipv6Address")
    if not address:
        raise missing_parameter("Ipv6Addresses.Ipv6Address")
    if each.get("IsPrimaryIpv6"):
        raise unsupported("Ipv6Addresses.IsPrimaryIpv6 must be false here")
    return address


def _count(given: Structure, name: str) -> int | None:
    count: int | None = given.get(name)
    return None if count is None else check_count(name, count)


def check_count(name: str, count: int) -> int:
    if count < 0:
        raise invalid_parameter(name, count, "a number from 0")
    return count


# --- the subnet -------------------------------------------------------------------------------------------------------


class SubnetAddresses:
    """The free private addresses of a subnet, lowest first."""

    def __init__(self, call: Call, subnet: Subnet) -> None:
        self.subnet = subnet
        self._free = FreeAddresses(subnet, call.tx.all(NetworkInterface, subnet_id=subnet.id))

    def free(self) -> int:
        return len(self._free)

    def claim(self, wanted: Wanted) -> None:
        """Take what the request names, or raise EC2's error. Comes before any `allot`, which takes what is left."""
        for address in (wanted.private_ip, *wanted.more_private_ips):
            if address:
                self.claim_address(address)
        for prefix in wanted.prefixes:
            self.claim_prefix(prefix)
        for address in wanted.ipv6_addresses:
            self.claim_ipv6(address)

    def claim_address(self, address: str) -> str:
        if not self._free.take_this(self.check_range(address)):
            raise EC2Error("InvalidIPAddress.InUse", f"Address {address} is in use.")
        return address

    def check_range(self, address: str) -> str:
        """An address that some interface of the subnet may have."""
        try:
            inside = IPv4Address(address) in self._free.network
        except AddressValueError:
            raise invalid_parameter("PrivateIpAddress", address, "an IPv4 address, as in 172.31.0.10") from None
        if not inside:
            raise EC2Error(
                "InvalidParameterValue",
                f"Address {address} does not fall within the subnet's address range {self.subnet.cidr}",
            )
        if self._free.is_reserved(address):
            raise EC2Error(
                "InvalidParameterValue",
                f"Address {address} is in the subnet's reserved address range: the first four and the last of "
                f"{self.subnet.cidr}",
            )
        return address

    def claim_prefix(self, prefix: str) -> str:
        try:
            block = IPv4Network(prefix)
        except (AddressValueError, NetmaskValueError, ValueError):
            raise invalid_parameter("Ipv4Prefix", prefix, f"a /{PREFIX_LENGTH} range, as in 172.31.0.16/28") from None
        if block.prefixlen != PREFIX_LENGTH or not block.subnet_of(self._free.network):
            raise invalid_parameter("Ipv4Prefix", prefix, f"a /{PREFIX_LENGTH} range within {self.subnet.cidr}")
        if not self._free.take_this_prefix(block):
            raise EC2Error("InvalidIPAddress.InUse", f"Addresses of {prefix} are in use or reserved.")
        return str(block)

    def claim_ipv6(self, address: str) -> str:
        """As it is written here, whatever way the request wrote it."""
        network = self._ipv6_network()
        try:
            if "%" in address:  # a zone may be any text, and stays in what is written
                raise AddressValueError(address)
            number = IPv6Address(address)
        except AddressValueError:
            raise invalid_parameter("Ipv6Address", address, "an IPv6 address") from None
        if number not in network:
            raise EC2Error(
                "InvalidParameterValue", f"Address {address} does not fall within the subnet's IPv6 range {network}"
            )
        if self._free.is_reserved_ipv6(str(number)):
            raise EC2Error(
                "InvalidParameterValue",
                f"Address {address} is reserved: the first four and the last of {network} are",
            )
        if not self._free.take_this_ipv6(str(number)):
            raise EC2Error("InvalidIPAddress.InUse", f"Address {address} is in use.")
        return str(number)

    def _ipv6_network(self) -> IPv6Network:
        if self._free.ipv6_network is None:
            raise EC2Error(
                "InvalidParameterValue", f"The subnet '{self.subnet.id}' has no IPv6 CIDR block to take addresses from"
            )
        return self._free.ipv6_network

    def allot(self, wanted: Wanted) -> Addresses:
        """What was claimed, and what the request leaves to us. NoRoom when the subnet has too little."""
        count = wanted.ipv6_count
        if count is None:
            automatic = self.subnet.assign_ipv6_on_creation and self.subnet.ipv6_cidrs and not wanted.ipv6_addresses
            count = 1 if automatic else 0
        return Addresses(
            private_ip=wanted.private_ip or self.take(1)[0],
            more_private_ips=(*wanted.more_private_ips, *self.take(wanted.more_count)),
            prefixes=(
                *(str(IPv4Network(prefix)) for prefix in wanted.prefixes),
                *self.take_prefixes(wanted.prefix_count),
            ),
            ipv6_addresses=(
                *(str(IPv6Address(address)) for address in wanted.ipv6_addresses),
                *self.take_ipv6(count),
            ),
        )

    def take(self, count: int) -> tuple[str, ...]:
        if count > len(self._free):
            raise NoRoom(
                "InsufficientFreeAddressesInSubnet",
                f"The specified subnet does not have enough free addresses to satisfy the request: {self.subnet.id} "
                f"({self.subnet.cidr}) has {len(self._free)}",
            )
        return tuple(address for _ in range(count) if (address := self._free.take()) is not None)

    def take_prefixes(self, count: int) -> tuple[str, ...]:
        taken: list[str] = []
        for _ in range(count):
            prefix = self._free.take_prefix()
            if prefix is None:
                raise NoRoom(
                    "InsufficientCidrBlocks",
                    f"The specified subnet does not have enough free cidr blocks to satisfy the request: "
                    f"{self.subnet.id} ({self.subnet.cidr}) has {len(taken)} free /{PREFIX_LENGTH}",
                )
            taken.append(prefix)
        return tuple(taken)

    def take_ipv6(self, count: int) -> tuple[str, ...]:
        """A subnet has room for any count, and each takes its time: what may be asked for is checked before."""
        if count:
            self._ipv6_network()
        return tuple(self._free.take_ipv6() for _ in range(count))


# --- the type's limits ------------------------------------------------------------------------------------------------


def check_address_limits(
    kind: InstanceType | None, ipv4_slots: int, ipv6: int, code: str = "PrivateIpAddressLimitExceeded"
) -> None:
    """Whether an interface of an instance of that type may have so many; None: of any, for it is not attached."""
    for family, count, most in (
        ("IPv4", ipv4_slots, kind.ipv4_addresses_per_interface if kind else MOST_IPV4),
        ("IPv6", ipv6, kind.ipv6_addresses_per_interface if kind else MOST_IPV6),
    ):
        if count > most:
            whose = f"an interface of {kind.name}" if kind else "a network interface"
            raise EC2Error(code, f"{count} {family} addresses and prefixes are more than {whose} may have ({most})")


MOST_IPV4: Final = max(kind.ipv4_addresses_per_interface for kind in CATALOGUE.values())
MOST_IPV6: Final = max(kind.ipv6_addresses_per_interface for kind in CATALOGUE.values())


def check_interface_limits(kind: InstanceType | None, interface: NetworkInterface) -> None:
    slots = len(interface.private_ips) + len(interface.prefixes)
    check_address_limits(kind, slots, len(interface.ipv6_addresses))


def check_interface_count(kind: InstanceType, count: int) -> None:
    if count > kind.max_interfaces:
        raise EC2Error(
            "AttachmentLimitExceeded",
            f"Interface count {count} exceeds the limit for {kind.name}, which is {kind.max_interfaces}",
        )


# --- the public range -------------------------------------------------------------------------------------------------


class PublicAddresses:
    """Free addresses of the deployment's public range, over all accounts and regions, for instances and Elastic IPs.

    It begins anywhere, so that an address is seldom given to somebody else the moment after it was released.
    """

    def __init__(self, call: Call) -> None:
        self.range = call.settings.public_range
        self._store = call.tx.store
        self._candidates = public_addresses(self.range, secrets.randbelow(self.range.num_addresses))
        self._avoided: list[str] = []

    def take(self, avoid: str = "") -> str | None:
        """One that nobody has; `avoid` only when it is the last."""
        for address in self._candidates:
            if address == avoid:
                self._avoided.append(address)
            elif self.is_free(address):
                return address
        for address in self._avoided:
            if self.is_free(address):
                self._avoided.remove(address)
                return address
        return None

    def is_free(self, address: str) -> bool:
        used: Sequence[object] = self._store.all(NetworkInterface, public_ip=address)
        return not used and not self._store.all(ElasticIp, public_ip=address)

    def refuse(self) -> EC2Error:
        return EC2Error(
            "InsufficientAddressCapacity",
            f"Not enough public addresses are free in {self.range} for this request: terminate or stop instances, "
            "release Elastic IPs, launch without public addresses, or configure a larger public range.",
            500,
        )

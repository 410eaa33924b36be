"""The private addresses of a subnet: which are taken, and which an interface may still have.

    10.0.0.0/26    .0 .1 .2 .3      reserved: network, router, DNS, one kept back
                   .4 ... .62       interfaces: a primary address, secondary ones, /28 prefixes (.16/28, .32/28)
                   .63              reserved: broadcast
    2001:db8::/64  ::0 to ::3 and the last one are reserved; an interface gets any other

Source: "Subnet CIDR blocks" and "Prefix delegation for Amazon EC2 network interfaces" in Amazon's documents.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from orchestrator.model.vpc import NetworkInterface, Subnet, dotted, reserved_addresses

PREFIX_LENGTH = 28  # of the IPv4 ranges that an interface may have
IPV6_KEPT = 4  # first addresses of an IPv6 subnet, besides its last


class FreeAddresses:
    """What a subnet's interfaces leave free. What is taken here is free no longer."""

    def __init__(self, subnet: Subnet, interfaces: Iterable[NetworkInterface]) -> None:
        self.network = subnet.network
        self.ipv6_network = subnet.ipv6_network
        self._first, self._count = int(self.network.network_address), self.network.num_addresses
        self._next = 4  # no address before the so manyth is free
        self._blocks: Iterator[IPv4Network] | None = None  # the /28 ranges that `take_prefix` has yet to look at
        self._taken = set(reserved_addresses(self.network))
        self._taken_ipv6: set[str] = set()
        for interface in interfaces:
            self._taken.add(interface.private_ip)
            self._taken.update(interface.more_private_ips)
            for prefix in interface.prefixes:
                self._taken.update(addresses_of(IPv4Network(prefix)))
            self._taken_ipv6.update(interface.ipv6_addresses)

    def __len__(self) -> int:
        """How many IPv4 addresses are free."""
        return max(0, self._count - len(self._taken))

    def take(self) -> str | None:
        """The lowest free address; None when the subnet is full."""
        while self._next < self._count:
            address = dotted(self._first + self._next)
            self._next += 1
            if address not in self._taken:
                self._taken.add(address)
                return address
        return None

    def take_this(self, address: str) -> bool:
        """Whether that very address was free."""
        if address in self._taken:
            return False
        self._taken.add(address)
        return True

    def take_prefix(self) -> str | None:
        """The lowest /28 of which no address is taken; None when there is none."""
        if self.network.prefixlen > PREFIX_LENGTH:
            return None
        if self._blocks is None:
            self._blocks = self.network.subnets(new_prefix=PREFIX_LENGTH)
        return next((str(block) for block in self._blocks if self.take_this_prefix(block)), None)

    def take_this_prefix(self, block: IPv4Network) -> bool:
        addresses = addresses_of(block)
        if not self._taken.isdisjoint(addresses):
            return False
        self._taken.update(addresses)
        return True

    def take_ipv6(self) -> str:
        """Any free address of the subnet's IPv6 range, which it must have: nobody can guess it from another."""
        if self.ipv6_network is None:
            raise ValueError(f"{self.network} has no IPv6 range")
        while True:
            address = str(self.ipv6_network[secrets.randbelow(self.ipv6_network.num_addresses)])
            if self.take_this_ipv6(address):
                return address

    def take_this_ipv6(self, address: str) -> bool:
        if address in self._taken_ipv6 or self.is_reserved_ipv6(address):
            return False
        self._taken_ipv6.add(address)
        return True

    def is_reserved(self, address: str) -> bool:
        return address in reserved_addresses(self.network)

    def is_reserved_ipv6(self, address: str) -> bool:
        return self.ipv6_network is not None and _is_kept(self.ipv6_network, IPv6Address(address))


def _is_kept(network: IPv6Network, address: IPv6Address) -> bool:
    return int(address) - int(network.network_address) < IPV6_KEPT or address == network.broadcast_address


def addresses_of(network: IPv4Network) -> list[str]:
    first = int(network.network_address)
    return [dotted(number) for number in range(first, first + network.num_addresses)]

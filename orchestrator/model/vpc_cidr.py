"""The ranges of a VPC: what one may be, what may be added to it, and which IPv6 range is free.

    10.0.0.0/16          the primary: any /16 to /28 that a host may have
    + 10.1.0.0/16        more of the same private family, or a public range; overlapping nothing, 5 in all
    + 2001:db8:../56     one IPv6 range, from the deployment's own

Source: "VPC CIDR blocks" in the Amazon VPC user guide: sizes, IPv4 block association restrictions.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from orchestrator.model.errors import EC2Error
from orchestrator.model.vpc import Vpc

MAX_CIDRS: Final = 5  # IPv4, the primary included
LARGEST, SMALLEST = 16, 28  # prefix lengths of VPCs and subnets
IPV6_OF_VPC, IPV6_OF_SUBNET = 56, 64

# Ranges with a meaning of their own, which no host on a network has.
UNUSABLE: Final = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
# What belongs together: a VPC that began in one of these has no range of another.
FAMILIES: Final = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.19.0.0/16")))


def read_cidr(text: str, parameter: str = "cidrBlock") -> IPv4Network:
    """In canonical form, as EC2 makes it: 100.68.0.18/18 is 100.68.0.0/18."""
    address, slash, length = text.partition("/")
    try:
        if not slash or not (length.isascii() and length.isdigit()):
            raise ValueError(text)
        return IPv4Network((address, int(length)), strict=False)
    except ValueError:
        raise _no_block(text, parameter) from None


def read_cidr_ipv6(text: str, parameter: str = "ipv6CidrBlock") -> IPv6Network:
    address, slash, length = text.partition("/")
    try:
        if not slash or not (length.isascii() and length.isdigit()) or "%" in address:
            raise ValueError(text)
        return IPv6Network((address, int(length)), strict=False)
    except ValueError:
        raise _no_block(text, parameter) from None


def _no_block(text: str, parameter: str) -> EC2Error:
    message = f"Value ({text[:64]}) for parameter {parameter} is invalid. This is not a valid CIDR block."
    return EC2Error("InvalidParameterValue", message)


def read_vpc_cidr(text: str) -> IPv4Network:
    """A range that a VPC may have."""
    network = read_cidr(text)
    if not LARGEST <= network.prefixlen <= SMALLEST:
        raise _range(network, f"A VPC's block has a size between /{LARGEST} and /{SMALLEST}.")
    for kept in UNUSABLE:
        if network.overlaps(kept):
            raise _range(network, f"No network has addresses of {kept}.")
    return network


def _range(network: IPv4Network, why: str) -> EC2Error:
    return EC2Error("InvalidVpc.Range", f"The CIDR '{network}' is invalid. {why}")


def check_another(vpc: Vpc, network: IPv4Network, routed: Iterable[str]) -> None:
    """That the VPC may have this range besides; `routed` are the IPv4 destinations of its tables, without local."""
    if len(vpc.cidrs) >= MAX_CIDRS:
        raise _too_many(vpc, MAX_CIDRS)
    own = [IPv4Network(cidr) for cidr in vpc.cidrs]
    for other in own:
        if network.overlaps(other):
            raise _range(network, f"It overlaps with {other}, which the VPC has.")
    restricted = _restricted(own, network)
    if restricted is not None:
        message = (
            f"The CIDR '{network}' is restricted: the VPC began with {vpc.cidr}, and has no range of {restricted}. "
            "Use a CIDR from the same private range as the current one, or a publicly routable one."
        )
        raise EC2Error("InvalidVpc.Range", message)
    for destination in routed:
        if IPv4Network(destination).subnet_of(network):
            raise _range(network, f"It holds {destination}, to which a route table has a route.")


def _restricted(own: list[IPv4Network], network: IPv4Network) -> IPv4Network | None:
    """The range that the VPC must not have and that this one is of."""
    home = next((family for family in FAMILIES if own[0].overlaps(family)), None)
    forbidden = [family for family in FAMILIES if family != home]
    if home == IPv4Network("10.0.0.0/8") and any(each.overlaps(IPv4Network("10.0.0.0/15")) for each in own):
        forbidden.append(IPv4Network("10.0.0.0/16"))
    if home == IPv4Network("172.16.0.0/12"):
        forbidden.append(IPv4Network("172.31.0.0/16"))
    return next((each for each in forbidden if network.overlaps(each)), None)


def _too_many(vpc: Vpc, limit: int) -> EC2Error:
    message = f"This network '{vpc.id}' has met its maximum number of allowed CIDRs: {limit}"
    return EC2Error("CidrLimitExceeded", message)


def check_another_ipv6(vpc: Vpc) -> None:
    """A VPC has one range of Amazon's."""
    if vpc.ipv6_cidrs:
        raise _too_many(vpc, 1)


def free_ipv6_cidr(whole: IPv6Network, taken: Iterable[str]) -> str:
    """The lowest free /56 of the deployment's range. Its first one is the host's own, which has addresses there."""
    used = {int(IPv6Network(cidr).network_address) for cidr in taken}
    size = 1 << (128 - IPV6_OF_VPC)
    first = int(whole.network_address)
    for number in range(first + size, first + whole.num_addresses, size):
        if number not in used:
            return str(IPv6Network((number, IPV6_OF_VPC)))
    raise EC2Error(
        "InsufficientAddressCapacity",
        f"No /{IPV6_OF_VPC} is free in {whole} for this VPC: delete VPCs that have one, or configure a larger range.",
        500,
    )

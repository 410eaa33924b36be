"""Entries of network ACLs: how a request's parameters become one, and how it is put among the others.

    number 1 to 32766, per direction   -> what users write, looked at in order
    32767, for IPv6 32768              -> EC2's own: refuse the rest

An entry's protocol is kept as EC2 answers it: -1 for all, or a number. What has neither ports nor types (all
protocols, and any but TCP, UDP and ICMP) keeps none, whatever the request said.
Source: "CreateNetworkAclEntry" in the EC2 API reference; "Network ACL rules" and quotas in the VPC user guide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of
from orchestrator.model.vpc import AclEntry, NetworkAcl, Vpc, last_entry
from orchestrator.model.vpc_cidr import read_cidr, read_cidr_ipv6

ALL: Final = "-1"
PROTOCOL_NUMBERS: Final = {"icmp": "1", "tcp": "6", "udp": "17", "icmpv6": "58"}
TCP, UDP, ICMP, ICMPV6 = "6", "17", "1", "58"

LAST_NUMBER: Final = 32766
MAX_ENTRIES: Final = 40  # of one direction, EC2's own not counted
LARGEST_PORT: Final = 65535
LARGEST_TYPE: Final = 255


def protocol_number(entry: AclEntry) -> str:
    """-1 or a number; rows may have names too."""
    return PROTOCOL_NUMBERS.get(entry.protocol, entry.protocol)


def ports(entry: AclEntry) -> tuple[int, int] | None:
    return (entry.from_port, entry.to_port) if protocol_number(entry) in (TCP, UDP) else None


def icmp(entry: AclEntry) -> tuple[int, int] | None:
    """Type and code, which an entry keeps where others have ports."""
    return (entry.from_port, entry.to_port) if protocol_number(entry) in (ICMP, ICMPV6) else None


def first_entries(vpc: Vpc) -> tuple[AclEntry, ...]:
    """What a new ACL of the VPC has: nothing may pass."""
    families = (False, True) if vpc.ipv6_cidrs else (False,)
    return tuple(last_entry(egress=egress, ipv6=ipv6) for egress in (False, True) for ipv6 in families)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_entry(
    *,
    number: int,
    egress: bool,
    protocol: str,
    action: str,
    cidr: str | None,
    cidr_ipv6: str | None,
    icmp_type_code: Mapping[str, Any] | None,
    port_range: Mapping[str, Any] | None,
) -> AclEntry:
    read = read_protocol(protocol)
    ipv4, ipv6 = _read_range(cidr, cidr_ipv6)
    entry = AclEntry(
        number=read_number(number),
        egress=egress,
        protocol=read,
        action=one_of("RuleAction", action, ("allow", "deny")),
        cidr=ipv4,
        cidr_ipv6=ipv6,
    )
    if read in (TCP, UDP):
        first, last = _read_ports(port_range)
    elif read == ICMP or (read == ICMPV6 and ipv6):
        first, last = _read_icmp(icmp_type_code)
    else:
        first, last = -1, -1
    return replace(entry, from_port=first, to_port=last)


def read_number(number: int) -> int:
    if not 1 <= number <= LAST_NUMBER:
        raise invalid_parameter("RuleNumber", number, f"an integer from 1 to {LAST_NUMBER}")
    return number


def read_protocol(given: str) -> str:
    name = given.lower()
    if name in (ALL, "all"):
        return ALL
    if name in PROTOCOL_NUMBERS:
        return PROTOCOL_NUMBERS[name]
    if name.isascii() and name.isdigit() and len(name) <= 3 and int(name) <= 255:
        return str(int(name))
    allowed = f"-1 for all, a protocol's number from 0 to 255, or one of {', '.join(PROTOCOL_NUMBERS)}"
    raise invalid_parameter("Protocol", given[:64], allowed)


def _read_range(cidr: str | None, cidr_ipv6: str | None) -> tuple[str, str]:
    """Of IPv4 and of IPv6; one of them is empty."""
    if cidr and cidr_ipv6:
        raise EC2Error("InvalidParameterCombination", "Give either CidrBlock or Ipv6CidrBlock, not both")
    if cidr:
        return str(read_cidr(cidr)), ""
    if cidr_ipv6:
        return "", str(read_cidr_ipv6(cidr_ipv6))
    raise missing_parameter("CidrBlock, or Ipv6CidrBlock")


def _read_ports(given: Mapping[str, Any] | None) -> tuple[int, int]:
    first, last = _pair("PortRange", given, "From", "To")
    if not 0 <= first <= last <= LARGEST_PORT:
        allowed = f"two ports from 0 to {LARGEST_PORT}, the smaller one first"
        raise invalid_parameter("PortRange", f"{first}-{last}", allowed)
    return first, last


def _read_icmp(given: Mapping[str, Any] | None) -> tuple[int, int]:
    kind, code = _pair("IcmpTypeCode", given, "Type", "Code")
    for name, value in (("Type", kind), ("Code", code)):
        if not -1 <= value <= LARGEST_TYPE:
            raise invalid_parameter(f"IcmpTypeCode.{name}", value, f"-1 for all, or an integer to {LARGEST_TYPE}")
    if kind == -1 and code != -1:
        raise invalid_parameter("IcmpTypeCode.Code", code, "-1, since the type is -1, all")
    return kind, code


def _pair(name: str, given: Mapping[str, Any] | None, *members: str) -> tuple[int, int]:
    values = [(given or {}).get(member) for member in members]
    for member, value in zip(members, values, strict=True):
        if value is None:
            raise missing_parameter(f"{name}.{member}")
    first, second = values
    return int(first or 0), int(second or 0)


# --- in the list ------------------------------------------------------------------------------------------------------


def find_entry(acl: NetworkAcl, number: int, *, egress: bool) -> AclEntry | None:
    return next((each for each in acl.entries if (each.number, each.egress) == (number, egress)), None)


def with_entry(acl: NetworkAcl, entry: AclEntry) -> NetworkAcl:
    """One more, or another in the place of the one that has its number."""
    return replace(acl, entries=_ordered((*without_entry(acl, entry).entries, entry)))


def without_entry(acl: NetworkAcl, entry: AclEntry) -> NetworkAcl:
    gone = (entry.number, entry.egress)
    return replace(acl, entries=tuple(each for each in acl.entries if (each.number, each.egress) != gone))


def _ordered(entries: tuple[AclEntry, ...]) -> tuple[AclEntry, ...]:
    return tuple(sorted(entries, key=lambda entry: (entry.egress, entry.number)))


def check_room(acl: NetworkAcl, *, egress: bool) -> None:
    """That one more entry of this direction is allowed."""
    count = sum(entry.egress is egress and entry.number <= LAST_NUMBER for entry in acl.entries)
    if count >= MAX_ENTRIES:
        direction = "outbound" if egress else "inbound"
        message = f"The network ACL {acl.id} has {count} {direction} entries; it can have {MAX_ENTRIES} at most"
        raise EC2Error("NetworkAclEntryLimitExceeded", message)

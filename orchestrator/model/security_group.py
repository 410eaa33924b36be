"""Security group rules: what a permission may say, and what it is in one form.

    IpPermission (protocol, ports, several ranges, prefix lists and groups) --> one Rule for each of them
    IpPermission, grouped by protocol and ports                             <-- Rules

Source: "IpPermission", "IpRange" and "AuthorizeSecurityGroupIngress" in the EC2 API reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, NamedTuple

from orchestrator.model.errors import EC2Error, invalid_parameter
from orchestrator.model.ids import check, mint
from orchestrator.model.vpc import Rule, SecurityGroup

MAX_RULES: Final = 60  # of one direction in one group; a prefix list counts as its entries may be at most
MAX_NAME: Final = 255
MAX_DESCRIPTION: Final = 255

ALL: Final = "-1"
PROTOCOLS: Final = {"1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6"}

_WORDS: Final = re.compile(r"[a-zA-Z0-9 ._\-:/()#,@\[\]+=&;{}!$*]*")
_WORDS_ALLOWED: Final = "letters, digits, spaces and ._-:/()#,@[]+=&;{}!$*"


class PeerGroup(NamedTuple):
    """A group that a rule names; `account` and `peering_id` are of one in a peered VPC (see Rule)."""

    group_id: str
    account: str = ""
    peering_id: str = ""


Resolve = Callable[[Mapping[str, Any]], PeerGroup]
"""A request's UserIdGroupPair -> the group that it names."""

FindList = Callable[[str], object]
"""Raises for a prefix list's id that is none."""

Weigh = Callable[[Rule], int]
"""How many rules one counts as."""


def check_list_id(list_id: str) -> str:
    return check("pl", list_id)


def check_words(parameter: str, text: str, limit: int) -> str:
    """A name or description in the letters that EC2 allows."""
    if len(text) > limit or not _WORDS.fullmatch(text):
        raise invalid_parameter(parameter, text[:limit], f"at most {limit} of {_WORDS_ALLOWED}")
    return text


# --- reading ----------------------------------------------------------------------------------------------------------


def read_permissions(
    permissions: Iterable[Mapping[str, Any]],
    *,
    egress: bool,
    resolve: Resolve,
    find_list: FindList = check_list_id,
) -> list[Rule]:
    """The rules that a request's IpPermissions spell out, each with a new id; no two of them the same."""
    rules: list[Rule] = []
    for permission in permissions:
        shared = _read_protocol(permission, egress=egress)
        found = [
            *(_with_cidr(shared, entry, "CidrIp") for entry in permission.get("IpRanges") or ()),
            *(_with_cidr(shared, entry, "CidrIpv6") for entry in permission.get("Ipv6Ranges") or ()),
            *(_with_list(shared, entry, find_list) for entry in permission.get("PrefixListIds") or ()),
            *(_with_group(shared, pair, resolve) for pair in permission.get("UserIdGroupPairs") or ()),
        ]
        if not found:
            raise EC2Error(
                "InvalidPermission.Malformed", "A permission must name a range of addresses, a prefix list or a group"
            )
        rules += found
    if len({_identity(rule) for rule in rules}) < len(rules):
        raise EC2Error("InvalidParameterValue", "The same permission must not appear multiple times")
    return rules


def _identity(rule: Rule) -> tuple[object, ...]:
    peer = (rule.cidr_ipv4, rule.cidr_ipv6, rule.prefix_list_id, rule.group_id)
    return (rule.egress, rule.protocol, rule.from_port, rule.to_port, *peer)


def _read_protocol(permission: Mapping[str, Any], *, egress: bool) -> Rule:
    protocol = read_protocol(permission.get("IpProtocol"))
    from_port, to_port = read_ports(protocol, permission.get("FromPort"), permission.get("ToPort"))
    return Rule(id="", egress=egress, protocol=protocol, from_port=from_port, to_port=to_port)


def read_protocol(given: str | None) -> str:
    """tcp, udp, icmp, icmpv6, -1 for all, or the number of another protocol."""
    if given is None:
        raise EC2Error("MissingParameter", "The request must contain the parameter ipProtocol")
    protocol = PROTOCOLS.get(given, given.lower())
    if protocol == ALL or protocol in PROTOCOLS.values():
        return protocol
    if protocol.isascii() and protocol.isdigit() and len(protocol) <= 3 and int(protocol) <= 255:
        return PROTOCOLS.get(str(int(protocol)), str(int(protocol)))
    raise invalid_parameter("IP protocol", given, "tcp, udp, icmp, icmpv6, -1, or a number from 0 to 255")


def read_ports(protocol: str, first: int | None, last: int | None) -> tuple[int, int]:
    """The ports of a permission, for ICMP its type and code; (-1, -1) for a protocol that has neither."""
    if protocol in ("tcp", "udp"):
        if first is None or last is None:
            message = "Invalid value for portRange. Must specify both from and to ports with TCP/UDP."
            raise EC2Error("InvalidParameterValue", message)
        for port in (first, last):
            if not 0 <= port <= 65535:
                raise EC2Error("InvalidParameterValue", f"TCP/UDP port ({port}) out of range")
        if first > last:
            raise EC2Error("InvalidParameterValue", f"Invalid TCP/UDP port range ({first}:{last})")
        return first, last
    if protocol in ("icmp", "icmpv6"):
        if protocol == "icmp" and (first is None or last is None):
            message = "Invalid value for portRange. Must specify both from and to ports with ICMP."
            raise EC2Error("InvalidParameterValue", message)
        kind, code = -1 if first is None else first, -1 if last is None else last
        for noun, number in (("type", kind), ("code", code)):
            if not -1 <= number <= 255:
                raise EC2Error("InvalidParameterValue", f"ICMP {noun} ({number}) out of range")
        if kind == -1 and code != -1:
            raise EC2Error("InvalidParameterValue", f"ICMP code ({code}) must be -1 where the type is -1, for all")
        return kind, code
    return -1, -1


def _with_cidr(rule: Rule, entry: Mapping[str, Any], member: str) -> Rule:
    cidr = entry.get(member)
    if not cidr:
        raise EC2Error("MissingParameter", f"The request must contain the parameter {member}")
    changed = replace(rule, id=mint("sgr"), description=read_description(entry.get("Description")))
    if member == "CidrIp":
        return replace(changed, cidr_ipv4=read_cidr(cidr))
    return replace(changed, cidr_ipv6=read_cidr_ipv6(cidr))


def read_cidr(text: str) -> str:
    """In canonical form, as EC2 makes it: 10.0.0.9/24 is 10.0.0.0/24."""
    return _canonical(IPv4Network, text)


def read_cidr_ipv6(text: str) -> str:
    return _canonical(IPv6Network, text)


def _canonical(kind: type[IPv4Network] | type[IPv6Network], text: str) -> str:
    address, slash, length = text.partition("/")
    try:
        if not slash or not length.isdigit() or "%" in address:
            raise ValueError(text)
        return str(kind((address, int(length)), strict=False))
    except ValueError:
        raise EC2Error("InvalidParameterValue", f"CIDR block {text[:64]} is malformed") from None


def read_description(text: str | None) -> str:
    return check_words("rule description", text or "", MAX_DESCRIPTION)


def _with_group(rule: Rule, pair: Mapping[str, Any], resolve: Resolve) -> Rule:
    peer = resolve(pair)
    return replace(
        rule,
        id=mint("sgr"),
        group_id=peer.group_id,
        group_account=peer.account,
        peering_id=peer.peering_id,
        description=read_description(pair.get("Description")),
    )


def _with_list(rule: Rule, entry: Mapping[str, Any], find_list: FindList) -> Rule:
    list_id = entry.get("PrefixListId")
    if not list_id:
        raise EC2Error("MissingParameter", "The request must contain the parameter PrefixListId")
    find_list(list_id)
    described = read_description(entry.get("Description"))
    return replace(rule, id=mint("sgr"), prefix_list_id=list_id, description=described)


# --- changing ---------------------------------------------------------------------------------------------------------


def add_rules(group: SecurityGroup, added: list[Rule], weigh: Weigh) -> SecurityGroup:
    """The group with rules of one direction more; InvalidPermission.Duplicate, or too many of them."""
    present = {_identity(rule) for rule in group.rules}
    for rule in added:
        if _identity(rule) in present:
            raise EC2Error(
                "InvalidPermission.Duplicate", f'the specified rule "{spell(rule)}" already exists in {group.id}'
            )
    grown = replace(group, rules=(*group.rules, *added))
    check_count(grown, weigh)
    return grown


def check_count(group: SecurityGroup, weigh: Weigh) -> None:
    for egress in (False, True):
        if sum(weigh(rule) for rule in group.rules if rule.egress is egress) > MAX_RULES:
            raise EC2Error(
                "RulesPerSecurityGroupLimitExceeded",
                f"The maximum number of rules per security group has been reached: {MAX_RULES} of a direction in "
                f"{group.id}, where a prefix list counts as many as its maximum number of entries",
            )


def matching(group: SecurityGroup, wanted: Rule) -> Rule | None:
    """The group's rule that allows the same."""
    return next((rule for rule in group.rules if _identity(rule) == _identity(wanted)), None)


def spell(rule: Rule) -> str:
    """A rule in the words of EC2's messages."""
    peer = rule.cidr_ipv4 or rule.cidr_ipv6 or rule.prefix_list_id or rule.group_id
    protocol = "ALL" if rule.protocol == ALL else rule.protocol.upper()
    return f"peer: {peer}, {protocol}, from port: {rule.from_port}, to port: {rule.to_port}, ALLOW"


# --- showing ----------------------------------------------------------------------------------------------------------


def show_permissions(rules: Iterable[Rule], show_pair: Callable[[Rule], dict[str, Any]]) -> list[dict[str, Any]]:
    """Rules as EC2's IpPermissions: one for each protocol and ports, with all their peers.

    `show_pair` says of a rule's group what UserIdGroupPair has, but for the description.
    """
    grouped: dict[tuple[str, int, int], dict[str, Any]] = {}
    for rule in rules:
        key = (rule.protocol, rule.from_port, rule.to_port)
        permission = grouped.setdefault(key, _blank(rule))
        told = {"Description": rule.description} if rule.description else {}
        if rule.cidr_ipv4:
            permission["IpRanges"].append({"CidrIp": rule.cidr_ipv4, **told})
        elif rule.cidr_ipv6:
            permission["Ipv6Ranges"].append({"CidrIpv6": rule.cidr_ipv6, **told})
        elif rule.prefix_list_id:
            permission["PrefixListIds"].append({"PrefixListId": rule.prefix_list_id, **told})
        else:
            permission["UserIdGroupPairs"].append({**show_pair(rule), **told})
    return list(grouped.values())


def has_ports(protocol: str) -> bool:
    return protocol in PROTOCOLS.values()


def _blank(rule: Rule) -> dict[str, Any]:
    ports = {"FromPort": rule.from_port, "ToPort": rule.to_port} if has_ports(rule.protocol) else {}
    return {
        "IpProtocol": rule.protocol,
        **ports,
        "IpRanges": [],
        "Ipv6Ranges": [],
        "PrefixListIds": [],
        "UserIdGroupPairs": [],
    }

"""Network ACLs: made, deleted, their entries, and the subnets that they guard.

Every subnet has exactly one, at first the VPC's default ACL; ReplaceNetworkAclAssociation gives it another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from orchestrator.api.operation import Answer, Call, describe, operation, with_client_token
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, dependency_violation
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.network_acl import (
    PROTOCOL_NUMBERS,
    check_room,
    find_entry,
    first_entries,
    icmp,
    ports,
    protocol_number,
    read_entry,
    read_number,
    with_entry,
    without_entry,
)
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import AclEntry, NetworkAcl, Vpc

MAX_ACLS: Final = 200  # of a VPC


@operation("CreateNetworkAcl", writes=True)
def create_network_acl(call: Call, *, vpc_id: str, tag_specifications: list[Answer] | None = None) -> Answer:
    """It guards no subnet yet, and lets nothing pass."""
    tags = tags_at_creation(tag_specifications, "network-acl")["network-acl"]
    vpc = call.find(Vpc, "vpc", vpc_id)
    if len(call.tx.all(NetworkAcl, vpc_id=vpc.id)) >= MAX_ACLS:
        raise EC2Error("NetworkAclLimitExceeded", f"A VPC has at most {MAX_ACLS} network ACLs")
    made = NetworkAcl(
        id=ids.mint("acl"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags,
        vpc_id=vpc.id,
        entries=first_entries(vpc),
    )
    answer: Answer = {"NetworkAcl": show_network_acl(call, call.tx.put(made))}
    call.wake_vpcs(vpc.id)
    return with_client_token(call, answer)


@operation("DeleteNetworkAcl", writes=True)
def delete_network_acl(call: Call, *, network_acl_id: str) -> Answer:
    acl = call.find(NetworkAcl, "acl", network_acl_id)
    if acl.is_default:
        raise EC2Error("InvalidParameterValue", f"cannot delete default network ACL {acl.id}")
    if acl.associations:
        guarded = ", ".join(sorted(acl.associations.values())[:10])
        raise dependency_violation(
            f"The networkAcl '{acl.id}' has dependencies and cannot be deleted. It guards {guarded}"
        )
    call.tx.delete(acl)
    call.wake_vpcs(acl.vpc_id)
    return {}


# --- entries ----------------------------------------------------------------------------------------------------------


@operation("CreateNetworkAclEntry", writes=True)
def create_network_acl_entry(
    call: Call,
    *,
    network_acl_id: str,
    rule_number: int,
    protocol: str,
    rule_action: str,
    egress: bool,
    cidr_block: str | None = None,
    ipv6_cidr_block: str | None = None,
    icmp_type_code: Answer | None = None,
    port_range: Answer | None = None,
) -> Answer:
    acl = call.find(NetworkAcl, "acl", network_acl_id)
    entry = read_entry(
        number=rule_number,
        egress=egress,
        protocol=protocol,
        action=rule_action,
        cidr=cidr_block,
        cidr_ipv6=ipv6_cidr_block,
        icmp_type_code=icmp_type_code,
        port_range=port_range,
    )
    if find_entry(acl, entry.number, egress=egress) is not None:
        raise EC2Error(
            "NetworkAclEntryAlreadyExists",
            f"The network acl entry identified by {entry.number} already exists: {acl.id} has an {_direction(egress)} "
            "entry of that number",
        )
    check_room(acl, egress=egress)
    call.tx.put(with_entry(acl, entry))
    call.wake_vpcs(acl.vpc_id)
    return {}


@operation("ReplaceNetworkAclEntry", writes=True)
def replace_network_acl_entry(
    call: Call,
    *,
    network_acl_id: str,
    rule_number: int,
    protocol: str,
    rule_action: str,
    egress: bool,
    cidr_block: str | None = None,
    ipv6_cidr_block: str | None = None,
    icmp_type_code: Answer | None = None,
    port_range: Answer | None = None,
) -> Answer:
    """All of the entry is new but its number and direction."""
    acl = call.find(NetworkAcl, "acl", network_acl_id)
    entry = read_entry(
        number=rule_number,
        egress=egress,
        protocol=protocol,
        action=rule_action,
        cidr=cidr_block,
        cidr_ipv6=ipv6_cidr_block,
        icmp_type_code=icmp_type_code,
        port_range=port_range,
    )
    _existing(acl, rule_number, egress)
    call.tx.put(with_entry(acl, entry))
    call.wake_vpcs(acl.vpc_id)
    return {}


@operation("DeleteNetworkAclEntry", writes=True)
def delete_network_acl_entry(call: Call, *, network_acl_id: str, rule_number: int, egress: bool) -> Answer:
    acl = call.find(NetworkAcl, "acl", network_acl_id)
    call.tx.put(without_entry(acl, _existing(acl, rule_number, egress)))
    call.wake_vpcs(acl.vpc_id)
    return {}


def _existing(acl: NetworkAcl, number: int, egress: bool) -> AclEntry:
    """One of those that a user may change."""
    found = find_entry(acl, read_number(number), egress=egress)
    if found is None:
        raise EC2Error(
            "InvalidNetworkAclEntry.NotFound",
            f"The network acl entry identified by {number} does not exist: {acl.id} has no such "
            f"{_direction(egress)} entry",
        )
    return found


def _direction(egress: bool) -> str:
    return "outbound" if egress else "inbound"


# --- the subnets that it guards ---------------------------------------------------------------------------------------


@operation("ReplaceNetworkAclAssociation", writes=True)
def replace_network_acl_association(call: Call, *, association_id: str, network_acl_id: str) -> Answer:
    """The subnet has the other ACL from now on, by an association of a new id."""
    ids.check("aclassoc", association_id)
    old = next((acl for acl in call.mine(NetworkAcl) if association_id in acl.associations), None)
    if old is None:
        raise ids.missing("aclassoc", [association_id])
    subnet_id = old.associations[association_id]
    new = call.find(NetworkAcl, "acl", network_acl_id)
    if new.vpc_id != old.vpc_id:
        message = f"network ACL {new.id} and subnet {subnet_id} belong to different networks"
        raise EC2Error("InvalidParameterValue", message)
    rest = {each: guarded for each, guarded in old.associations.items() if each != association_id}
    if new.id == old.id:
        new = replace(new, associations=rest)
    else:
        call.tx.put(replace(old, associations=rest))
    made = ids.mint("aclassoc")
    call.tx.put(replace(new, associations={**new.associations, made: subnet_id}))
    call.wake_vpcs(old.vpc_id)
    return {"NewAssociationId": made}


# --- lists ------------------------------------------------------------------------------------------------------------


def _each(pairs: Callable[[AclEntry], tuple[int, int] | None], position: int) -> Callable[[NetworkAcl], list[str]]:
    return lambda acl: [str(pair[position]) for pair in map(pairs, acl.entries) if pair is not None]


_NAMES: Final = {number: name for name, number in PROTOCOL_NUMBERS.items()}


def _protocols(acl: NetworkAcl) -> list[str]:
    """By number and, where a protocol has one, by name."""
    numbers = {protocol_number(entry) for entry in acl.entries}
    return [*numbers, *(_NAMES[number] for number in numbers if number in _NAMES)]


ACL_FILTERS: Final[FilterTable] = {
    "association.association-id": lambda acl: list(acl.associations),
    "association.network-acl-id": lambda acl: acl.id if acl.associations else None,
    "association.subnet-id": lambda acl: list(acl.associations.values()),
    "default": lambda acl: boolean(acl.is_default),
    "entry.cidr": lambda acl: [entry.cidr for entry in acl.entries if entry.cidr],
    "entry.egress": lambda acl: [boolean(entry.egress) for entry in acl.entries],
    "entry.icmp.code": _each(icmp, 1),
    "entry.icmp.type": _each(icmp, 0),
    "entry.ipv6-cidr": lambda acl: [entry.cidr_ipv6 for entry in acl.entries if entry.cidr_ipv6],
    "entry.port-range.from": _each(ports, 0),
    "entry.port-range.to": _each(ports, 1),
    "entry.protocol": _protocols,
    "entry.rule-action": lambda acl: [entry.action for entry in acl.entries],
    "entry.rule-number": lambda acl: [str(entry.number) for entry in acl.entries],
    "network-acl-id": lambda acl: acl.id,
    "owner-id": lambda acl: acl.account,
    "vpc-id": lambda acl: acl.vpc_id,
}


@describe(
    "DescribeNetworkAcls",
    kind=NetworkAcl,
    answer="NetworkAcls",
    ids_parameter="NetworkAclIds",
    prefix="acl",
    filters=ACL_FILTERS,
)
def show_network_acl(call: Call, acl: NetworkAcl) -> Answer:
    return {
        "NetworkAclId": acl.id,
        "OwnerId": acl.account,
        "VpcId": acl.vpc_id,
        "IsDefault": acl.is_default,
        "Associations": [
            {"NetworkAclAssociationId": association, "NetworkAclId": acl.id, "SubnetId": subnet_id}
            for association, subnet_id in acl.associations.items()
        ],
        "Entries": [_show_entry(entry) for entry in sorted(acl.entries, key=lambda each: (each.egress, each.number))],
        "Tags": tag_set(acl.tags),
    }


def _show_entry(entry: AclEntry) -> Answer:
    shown: Answer = {
        "RuleNumber": entry.number,
        "Egress": entry.egress,
        "Protocol": protocol_number(entry),
        "RuleAction": entry.action,
    }
    shown |= {"Ipv6CidrBlock": entry.cidr_ipv6} if entry.cidr_ipv6 else {"CidrBlock": entry.cidr}
    if range_ := ports(entry):
        shown["PortRange"] = {"From": range_[0], "To": range_[1]}
    if kind := icmp(entry):
        shown["IcmpTypeCode"] = {"Type": kind[0], "Code": kind[1]}
    return shown

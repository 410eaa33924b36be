"""Security group rules: allowed, revoked, described anew. Every change wakes the VPC, which applies it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, NamedTuple

from orchestrator.api.ec2.security_groups import find_group, find_named_group, wake_network
from orchestrator.api.operation import Answer, Call, operation, page
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter, unsupported
from orchestrator.model.filters import FilterTable, compile_filters
from orchestrator.model.security_group import (
    add_rules,
    matching,
    read_cidr,
    read_cidr_ipv6,
    read_description,
    read_permissions,
    read_ports,
    read_protocol,
    show_permissions,
)
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import Rule, SecurityGroup, Vpc


class Flat(NamedTuple):
    """One permission given by parameters of the request itself, as the oldest clients do."""

    ip_protocol: str | None
    from_port: int | None
    to_port: int | None
    cidr_ip: str | None
    source_security_group_name: str | None
    source_security_group_owner_id: str | None


def _permissions(structured: list[Answer] | None, flat: Flat) -> list[Answer]:
    """What was asked for, in whichever way."""
    if not any(given is not None for given in flat):
        if not structured:
            raise EC2Error("MissingParameter", "The request must contain the parameter IpPermissions")
        return structured
    if structured:
        message = "IpPermissions cannot be used with CidrIp, IpProtocol, FromPort, ToPort or a source security group"
        raise EC2Error("InvalidParameterCombination", message)
    permission: Answer = {"IpProtocol": flat.ip_protocol, "FromPort": flat.from_port, "ToPort": flat.to_port}
    if flat.cidr_ip is not None:
        permission["IpRanges"] = [{"CidrIp": flat.cidr_ip}]
    if flat.source_security_group_name is not None:
        pair = {"GroupName": flat.source_security_group_name, "UserId": flat.source_security_group_owner_id}
        permission["UserIdGroupPairs"] = [pair]
        if flat.ip_protocol is None:  # the whole group is let in
            permission["IpProtocol"] = "-1"
    return [permission]


def _peer_group(call: Call, group: SecurityGroup, pair: Mapping[str, Any]) -> str:
    """The id of the group that a permission names, which must be in the same VPC."""
    if pair.get("UserId") not in (None, "", call.account):
        named = pair.get("GroupId") or pair.get("GroupName") or ""
        raise EC2Error("InvalidGroup.NotFound", f"The security group '{named}' of {pair['UserId']} does not exist")
    if pair.get("GroupId"):
        peer = call.find(SecurityGroup, "sg", pair["GroupId"])
    elif pair.get("GroupName"):
        peer = find_named_group(call, pair["GroupName"])
    else:
        raise EC2Error("MissingParameter", "The request must contain the parameter GroupId")
    if peer.vpc_id != group.vpc_id:
        raise EC2Error("InvalidGroup.NotFound", "You have specified two resources that belong to different networks.")
    return peer.id


def _change(call: Call, group: SecurityGroup, changed: SecurityGroup) -> None:
    if changed.rules != group.rules:
        call.tx.put(changed)
        wake_network(call, changed)


# --- authorise --------------------------------------------------------------------------------------------------------


@operation("AuthorizeSecurityGroupIngress", writes=True)
def authorize_security_group_ingress(
    call: Call,
    *,
    group_id: str | None = None,
    group_name: str | None = None,
    ip_permissions: list[Answer] | None = None,
    ip_protocol: str | None = None,
    from_port: int | None = None,
    to_port: int | None = None,
    cidr_ip: str | None = None,
    source_security_group_name: str | None = None,
    source_security_group_owner_id: str | None = None,
    tag_specifications: list[Answer] | None = None,
) -> Answer:
    group = find_group(call, group_id, group_name)
    flat = Flat(ip_protocol, from_port, to_port, cidr_ip, source_security_group_name, source_security_group_owner_id)
    return _authorize(call, group, _permissions(ip_permissions, flat), tag_specifications, egress=False)


@operation("AuthorizeSecurityGroupEgress", writes=True)
def authorize_security_group_egress(
    call: Call,
    *,
    group_id: str,
    ip_permissions: list[Answer] | None = None,
    ip_protocol: str | None = None,
    from_port: int | None = None,
    to_port: int | None = None,
    cidr_ip: str | None = None,
    source_security_group_name: str | None = None,
    source_security_group_owner_id: str | None = None,
    tag_specifications: list[Answer] | None = None,
) -> Answer:
    group = find_group(call, group_id, None)
    flat = Flat(ip_protocol, from_port, to_port, cidr_ip, source_security_group_name, source_security_group_owner_id)
    return _authorize(call, group, _permissions(ip_permissions, flat), tag_specifications, egress=True)


def _authorize(
    call: Call,
    group: SecurityGroup,
    permissions: list[Answer],
    tag_specifications: list[Answer] | None,
    *,
    egress: bool,
) -> Answer:
    tags = tags_at_creation(tag_specifications, "security-group-rule")["security-group-rule"]
    read = read_permissions(permissions, egress=egress, resolve=partial(_peer_group, call, group))
    rules = [replace(rule, tags=tags) for rule in read]
    _change(call, group, add_rules(group, rules))
    return {"Return": True, "SecurityGroupRules": [show_rule(OwnedRule(group, rule)) for rule in rules]}


# --- revoke -----------------------------------------------------------------------------------------------------------


@operation("RevokeSecurityGroupIngress", writes=True)
def revoke_security_group_ingress(
    call: Call,
    *,
    group_id: str | None = None,
    group_name: str | None = None,
    ip_permissions: list[Answer] | None = None,
    ip_protocol: str | None = None,
    from_port: int | None = None,
    to_port: int | None = None,
    cidr_ip: str | None = None,
    source_security_group_name: str | None = None,
    source_security_group_owner_id: str | None = None,
    security_group_rule_ids: list[str] | None = None,
) -> Answer:
    group = find_group(call, group_id, group_name)
    flat = Flat(ip_protocol, from_port, to_port, cidr_ip, source_security_group_name, source_security_group_owner_id)
    return _revoke(call, group, ip_permissions, flat, security_group_rule_ids, egress=False)


@operation("RevokeSecurityGroupEgress", writes=True)
def revoke_security_group_egress(
    call: Call,
    *,
    group_id: str,
    ip_permissions: list[Answer] | None = None,
    ip_protocol: str | None = None,
    from_port: int | None = None,
    to_port: int | None = None,
    cidr_ip: str | None = None,
    source_security_group_name: str | None = None,
    source_security_group_owner_id: str | None = None,
    security_group_rule_ids: list[str] | None = None,
) -> Answer:
    group = find_group(call, group_id, None)
    flat = Flat(ip_protocol, from_port, to_port, cidr_ip, source_security_group_name, source_security_group_owner_id)
    return _revoke(call, group, ip_permissions, flat, security_group_rule_ids, egress=True)


def _revoke(
    call: Call,
    group: SecurityGroup,
    permissions: list[Answer] | None,
    flat: Flat,
    rule_ids: list[str] | None,
    *,
    egress: bool,
) -> Answer:
    """Without what is not there: an error, except in a default VPC, where the answer lists it.

    Source: "RevokeSecurityGroupIngress" in the EC2 API reference.
    """
    unknown: list[Rule] = []
    if rule_ids:
        if permissions or any(given is not None for given in flat):
            raise EC2Error("InvalidParameterCombination", "Rules are revoked by id or by permissions, not by both")
        revoked = _by_id(group, rule_ids, egress=egress)
    else:
        revoked = []
        asked = _permissions(permissions, flat)
        resolve = partial(_named_peer, call)
        for wanted in read_permissions(asked, egress=egress, resolve=resolve):
            found = matching(group, wanted)
            if found is None:
                unknown.append(wanted)
            else:
                revoked.append(found)
    if unknown and not _in_default_vpc(call, group):
        raise EC2Error("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
    gone = {rule.id for rule in revoked}
    _change(call, group, replace(group, rules=tuple(rule for rule in group.rules if rule.id not in gone)))
    return {
        "Return": True,
        "RevokedSecurityGroupRules": [_show_revoked(group, rule) for rule in revoked],
        "UnknownIpPermissions": show_permissions(unknown, call.account),
    }


def _named_peer(call: Call, pair: Mapping[str, Any]) -> str:
    """The id of a group that a rule to revoke names; the group itself may be gone."""
    if pair.get("GroupId"):
        return ids.check("sg", pair["GroupId"])
    if pair.get("GroupName"):
        return find_named_group(call, pair["GroupName"]).id
    raise EC2Error("MissingParameter", "The request must contain the parameter GroupId")


def _by_id(group: SecurityGroup, rule_ids: Iterable[str], *, egress: bool | None) -> list[Rule]:
    """Those rules of a group, each once; `egress` None takes both directions."""
    wanted = list(dict.fromkeys(ids.check("sgr", rule_id) for rule_id in rule_ids))
    present = {rule.id: rule for rule in group.rules if egress in (None, rule.egress)}
    if absent := [rule_id for rule_id in wanted if rule_id not in present]:
        raise ids.missing("sgr", absent)
    return [present[rule_id] for rule_id in wanted]


def _in_default_vpc(call: Call, group: SecurityGroup) -> bool:
    vpc = call.db.get(Vpc, group.vpc_id)
    return vpc is not None and vpc.is_default


# --- change -----------------------------------------------------------------------------------------------------------


@operation("UpdateSecurityGroupRuleDescriptionsIngress", writes=True)
def update_security_group_rule_descriptions_ingress(
    call: Call,
    *,
    group_id: str | None = None,
    group_name: str | None = None,
    ip_permissions: list[Answer] | None = None,
    security_group_rule_descriptions: list[Answer] | None = None,
) -> Answer:
    group = find_group(call, group_id, group_name)
    return _describe_anew(call, group, ip_permissions, security_group_rule_descriptions, egress=False)


@operation("UpdateSecurityGroupRuleDescriptionsEgress", writes=True)
def update_security_group_rule_descriptions_egress(
    call: Call,
    *,
    group_id: str | None = None,
    group_name: str | None = None,
    ip_permissions: list[Answer] | None = None,
    security_group_rule_descriptions: list[Answer] | None = None,
) -> Answer:
    group = find_group(call, group_id, group_name)
    return _describe_anew(call, group, ip_permissions, security_group_rule_descriptions, egress=True)


def _describe_anew(
    call: Call,
    group: SecurityGroup,
    permissions: list[Answer] | None,
    descriptions: list[Answer] | None,
    *,
    egress: bool,
) -> Answer:
    """A description that is not given is taken away."""
    if bool(permissions) == bool(descriptions):
        message = "The request must contain either IpPermissions or SecurityGroupRuleDescriptions"
        raise EC2Error("InvalidParameterCombination" if permissions else "MissingParameter", message)
    told: dict[str, str] = {}
    for wanted in read_permissions(permissions or (), egress=egress, resolve=partial(_named_peer, call)):
        found = matching(group, wanted)
        if found is None:
            raise EC2Error("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
        told[found.id] = wanted.description
    for entry in descriptions or ():
        [rule] = _by_id(group, [entry.get("SecurityGroupRuleId") or ""], egress=egress)
        told[rule.id] = read_description(entry.get("Description"))
    changed = tuple(replace(rule, description=told.get(rule.id, rule.description)) for rule in group.rules)
    if changed != group.rules:  # what is allowed stays as it is: the network need not look
        call.tx.put(replace(group, rules=changed))
    return {"Return": True}


@operation("ModifySecurityGroupRules", writes=True)
def modify_security_group_rules(call: Call, *, group_id: str, security_group_rules: list[Answer]) -> Answer:
    """Each rule named becomes what is given, keeping its id, direction and tags; the kind of its peer stays."""
    group = find_group(call, group_id, None)
    changed = {rule.id: rule for rule in group.rules}
    for update in security_group_rules:
        [old] = _by_id(group, [update.get("SecurityGroupRuleId") or ""], egress=None)
        changed[old.id] = _modified(call, group, old, update.get("SecurityGroupRule") or {})
    rules: tuple[Rule, ...] = ()
    for rule in changed.values():
        rules = add_rules(replace(group, rules=rules), [rule]).rules
    _change(call, group, replace(group, rules=rules))
    return {"Return": True}


def _modified(call: Call, group: SecurityGroup, old: Rule, given: Answer) -> Rule:
    if given.get("PrefixListId"):
        raise unsupported("Prefix lists are not offered here: give the ranges themselves")
    peers = [name for name in ("CidrIpv4", "CidrIpv6", "ReferencedGroupId") if given.get(name)]
    kind = "CidrIpv4" if old.cidr_ipv4 else "CidrIpv6" if old.cidr_ipv6 else "ReferencedGroupId"
    if peers != [kind]:
        raise invalid_parameter("SecurityGroupRule", ", ".join(peers) or "no peer", f"{kind}, as the rule has it now")
    protocol = read_protocol(given.get("IpProtocol"))
    from_port, to_port = read_ports(protocol, given.get("FromPort"), given.get("ToPort"))
    peer = given[kind]
    return replace(
        old,
        protocol=protocol,
        from_port=from_port,
        to_port=to_port,
        cidr_ipv4=read_cidr(peer) if kind == "CidrIpv4" else "",
        cidr_ipv6=read_cidr_ipv6(peer) if kind == "CidrIpv6" else "",
        group_id=_peer_group(call, group, {"GroupId": peer}) if kind == "ReferencedGroupId" else "",
        description=read_description(given.get("Description")),
    )


# --- lists ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OwnedRule:
    group: SecurityGroup
    rule: Rule


@operation("DescribeSecurityGroupRules", listing=True)
def describe_security_group_rules(call: Call, *, security_group_rule_ids: list[str] | None = None) -> Answer:
    found = [OwnedRule(group, rule) for group in call.mine(SecurityGroup) for rule in group.rules]
    if security_group_rule_ids:
        by_id = {owned.rule.id: owned for owned in found}
        wanted = list(dict.fromkeys(ids.check("sgr", rule_id) for rule_id in security_group_rule_ids))
        if absent := [rule_id for rule_id in wanted if rule_id not in by_id]:
            raise ids.missing("sgr", absent)
        found = [by_id[rule_id] for rule_id in wanted]
    if filters := call.params.get("Filters"):
        test = compile_filters(filters, RULE_FILTERS, lambda owned: owned.rule.tags)
        found = [owned for owned in found if test(owned)]
    chosen, token = page(call, found, key=lambda owned: owned.rule.id)
    answer: Answer = {"SecurityGroupRules": [show_rule(owned) for owned in chosen]}
    if token:
        answer["NextToken"] = token
    return answer


RULE_FILTERS: Final[FilterTable] = {
    "group-id": lambda owned: owned.group.id,
    "security-group-rule-id": lambda owned: owned.rule.id,
}


def show_rule(owned: OwnedRule) -> Answer:
    group, rule = owned.group, owned.rule
    shown: Answer = {
        "SecurityGroupRuleId": rule.id,
        "SecurityGroupRuleArn": f"arn:aws:ec2:{group.region}:{group.account}:security-group-rule/{rule.id}",
        "GroupId": group.id,
        "GroupOwnerId": group.account,
        "IsEgress": rule.egress,
        "IpProtocol": rule.protocol,
        "FromPort": rule.from_port,
        "ToPort": rule.to_port,
        "Tags": tag_set(rule.tags),
    }
    if rule.group_id:
        shown["ReferencedGroupInfo"] = {"GroupId": rule.group_id, "UserId": group.account, "VpcId": group.vpc_id}
    optional = {"CidrIpv4": rule.cidr_ipv4, "CidrIpv6": rule.cidr_ipv6, "Description": rule.description}
    return shown | {name: value for name, value in optional.items() if value}


def _show_revoked(group: SecurityGroup, rule: Rule) -> Answer:
    shown: Answer = {
        "SecurityGroupRuleId": rule.id,
        "GroupId": group.id,
        "IsEgress": rule.egress,
        "IpProtocol": rule.protocol,
        "FromPort": rule.from_port,
        "ToPort": rule.to_port,
    }
    optional = {
        "CidrIpv4": rule.cidr_ipv4,
        "CidrIpv6": rule.cidr_ipv6,
        "ReferencedGroupId": rule.group_id,
        "Description": rule.description,
    }
    return shown | {name: value for name, value in optional.items() if value}

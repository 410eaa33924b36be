"""Security group rules: allowed, revoked, described anew. Every change wakes the VPC, which applies it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, NamedTuple

from orchestrator.api.ec2.prefix_lists import find_prefix_list, rule_weight
from orchestrator.api.ec2.security_groups import (
    find_group,
    find_named_group,
    show_peer_group,
)
from orchestrator.api.operation import Answer, Call, operation, show_page
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter
from orchestrator.model.filters import FilterTable, compile_filters
from orchestrator.model.security_group import (
    PeerGroup,
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
from orchestrator.model.vpc import PeeringConnection, Rule, SecurityGroup, Vpc


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


def _peer_group(call: Call, group: SecurityGroup, pair: Mapping[str, Any]) -> PeerGroup:
    """The group that a permission names: one of the same VPC, or of one that this is peered with in its region.

    One of another account is named with that account's id.
    """
    owner = pair.get("UserId") or call.account
    if pair.get("GroupId"):
        named = ids.check("sg", pair["GroupId"])
        peer = call.tx.get(SecurityGroup, named)
    elif pair.get("GroupName") and owner == call.account:
        named = pair["GroupName"]
        peer = find_named_group(call, named)
    elif pair.get("GroupName"):
        named, peer = pair["GroupName"], None
    else:
        raise EC2Error("MissingParameter", "The request must contain the parameter GroupId")
    if peer is None or peer.account != owner or peer.region != group.region:
        raise EC2Error("InvalidGroup.NotFound", f"The security group '{named}' does not exist")
    if pair.get("VpcId") not in (None, "", peer.vpc_id):
        raise invalid_parameter("VpcId", pair["VpcId"], f"{peer.vpc_id}, where {peer.id} is")
    wanted = pair.get("VpcPeeringConnectionId") or ""
    if peer.vpc_id == group.vpc_id:
        if wanted:
            raise invalid_parameter("VpcPeeringConnectionId", wanted, f"none, since {peer.id} is in the same VPC")
        return PeerGroup(peer.id)
    between = [
        peering.id
        for peering in call.tx.all(PeeringConnection, vpc_ids=group.vpc_id)
        if peering.state == "active" and peering.other(group.vpc_id).vpc_id == peer.vpc_id
    ]
    if wanted and ids.check("pcx", wanted) not in between:
        raise ids.missing("pcx", [wanted])
    if not between:
        raise EC2Error("InvalidGroup.NotFound", "You have specified two resources that belong to different networks.")
    return PeerGroup(peer.id, "" if peer.account == group.account else peer.account, wanted or between[0])


def _change(call: Call, group: SecurityGroup, changed: SecurityGroup) -> None:
    if changed.rules != group.rules:
        call.tx.put(changed)
        call.wake_vpcs(changed.vpc_id)


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
    read = read_permissions(
        permissions, egress=egress, resolve=partial(_peer_group, call, group), find_list=partial(find_prefix_list, call)
    )
    rules = [replace(rule, tags=tags) for rule in read]
    _change(call, group, add_rules(group, rules, partial(rule_weight, call)))
    return {"Return": True, "SecurityGroupRules": [show_rule(call, OwnedRule(group, rule)) for rule in rules]}


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
        "UnknownIpPermissions": show_permissions(unknown, lambda rule: show_peer_group(call, group, rule)),
    }


def _named_peer(call: Call, pair: Mapping[str, Any]) -> PeerGroup:
    """A group that a rule to revoke names; the group itself may be gone."""
    if pair.get("GroupId"):
        return PeerGroup(ids.check("sg", pair["GroupId"]))
    if pair.get("GroupName"):
        return PeerGroup(find_named_group(call, pair["GroupName"]).id)
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
        rules = add_rules(replace(group, rules=rules), [rule], partial(rule_weight, call)).rules
    _change(call, group, replace(group, rules=rules))
    return {"Return": True}


def _modified(call: Call, group: SecurityGroup, old: Rule, given: Answer) -> Rule:
    present = {
        "CidrIpv4": old.cidr_ipv4,
        "CidrIpv6": old.cidr_ipv6,
        "PrefixListId": old.prefix_list_id,
        "ReferencedGroupId": old.group_id,
    }
    peers = [name for name in present if given.get(name)]
    [kind] = [name for name, peer in present.items() if peer]
    if peers != [kind]:
        raise invalid_parameter("SecurityGroupRule", ", ".join(peers) or "no peer", f"{kind}, as the rule has it now")
    protocol = read_protocol(given.get("IpProtocol"))
    from_port, to_port = read_ports(protocol, given.get("FromPort"), given.get("ToPort"))
    peer = given[kind]
    named = PeerGroup("")
    if kind == "PrefixListId":
        find_prefix_list(call, peer)
    if kind == "ReferencedGroupId":
        known = call.tx.get(SecurityGroup, peer)
        named = _peer_group(call, group, {"GroupId": peer, "UserId": known.account if known is not None else ""})
    return replace(
        old,
        protocol=protocol,
        from_port=from_port,
        to_port=to_port,
        cidr_ipv4=read_cidr(peer) if kind == "CidrIpv4" else "",
        cidr_ipv6=read_cidr_ipv6(peer) if kind == "CidrIpv6" else "",
        prefix_list_id=peer if kind == "PrefixListId" else "",
        group_id=named.group_id,
        group_account=named.account,
        peering_id=named.peering_id,
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
    return show_page(
        call, "SecurityGroupRules", found, lambda owned: show_rule(call, owned), key=lambda owned: owned.rule.id
    )


RULE_FILTERS: Final[FilterTable] = {
    "group-id": lambda owned: owned.group.id,
    "security-group-rule-id": lambda owned: owned.rule.id,
}


def show_rule(call: Call, owned: OwnedRule) -> Answer:
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
        shown["ReferencedGroupInfo"] = {"VpcId": group.vpc_id, **show_peer_group(call, group, rule)}
    optional = {
        "CidrIpv4": rule.cidr_ipv4,
        "CidrIpv6": rule.cidr_ipv6,
        "PrefixListId": rule.prefix_list_id,
        "Description": rule.description,
    }
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
        "PrefixListId": rule.prefix_list_id,
        "ReferencedGroupId": rule.group_id,
        "Description": rule.description,
    }
    return shown | {name: value for name, value in optional.items() if value}

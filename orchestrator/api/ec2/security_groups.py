"""Security groups: made, listed, deleted. Their rules are changed in `security_group_rules`.

A rule may name a group at the other end of a peering connection. When the connection or that group is gone the rule
stays, lets nobody in, and is stale: `security_group_references` lists such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, dependency_violation, invalid_parameter, missing_parameter
from orchestrator.model.filters import FilterTable, Value
from orchestrator.model.security_group import MAX_DESCRIPTION, MAX_NAME, check_words, has_ports, show_permissions
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import (
    NetworkInterface,
    PeeringConnection,
    Rule,
    SecurityGroup,
    Vpc,
    first_rules,
)

DEFAULT_NAME: Final = "default"


def find_group(call: Call, group_id: str | None, group_name: str | None) -> SecurityGroup:
    """By id, or by name in the default VPC."""
    if group_id:
        return call.find(SecurityGroup, "sg", group_id)
    if group_name:
        return find_named_group(call, group_name)
    raise EC2Error("MissingParameter", "The request must contain the parameter groupName or groupId")


def find_named_group(call: Call, name: str) -> SecurityGroup:
    """The group of that name in the default VPC, which is where EC2 takes names in the place of ids."""
    vpc = default_vpc(call)
    for group in call.mine(SecurityGroup, vpc_id=vpc.id):
        if group.name == name:
            return group
    raise EC2Error("InvalidGroup.NotFound", f"The security group '{name}' does not exist in default VPC '{vpc.id}'")


def default_vpc(call: Call) -> Vpc:
    for vpc in call.mine(Vpc):
        if vpc.is_default:
            return vpc
    raise EC2Error("VPCIdNotSpecified", "No default VPC for this user")


def group_arn(group: SecurityGroup) -> str:
    return f"arn:aws:ec2:{group.region}:{group.account}:security-group/{group.id}"


@operation("CreateSecurityGroup", writes=True)
def create_security_group(
    call: Call,
    *,
    group_name: str,
    description: str,
    vpc_id: str | None = None,
    tag_specifications: list[Answer] | None = None,
) -> Answer:
    """A new group lets all out and nothing in."""
    name = group_name.strip()
    if not name:
        raise missing_parameter("GroupName")
    if not description:
        raise missing_parameter("GroupDescription")
    check_words("GroupName", name, MAX_NAME)
    check_words("GroupDescription", description, MAX_DESCRIPTION)
    if name.lower().startswith("sg-"):
        raise invalid_parameter("GroupName", name, "a name that does not start with sg-")
    if name == DEFAULT_NAME:
        raise EC2Error("InvalidParameterValue", f"Cannot use reserved security group name: {name}")
    vpc = call.find(Vpc, "vpc", vpc_id) if vpc_id else default_vpc(call)
    tags = tags_at_creation(tag_specifications, "security-group")["security-group"]
    if any(group.name == name for group in call.mine(SecurityGroup, vpc_id=vpc.id)):
        raise EC2Error("InvalidGroup.Duplicate", f"The security group '{name}' already exists for VPC '{vpc.id}'")
    group = call.tx.put(
        SecurityGroup(
            id=ids.mint("sg"),
            account=call.account,
            region=call.region,
            created=call.now,
            tags=tags,
            name=name,
            description=description,
            vpc_id=vpc.id,
            rules=first_rules(vpc),
        )
    )
    return {"GroupId": group.id, "SecurityGroupArn": group_arn(group), "Tags": tag_set(group.tags)}


@operation("DeleteSecurityGroup", writes=True)
def delete_security_group(call: Call, *, group_id: str | None = None, group_name: str | None = None) -> Answer:
    group = find_group(call, group_id, group_name)
    if group.name == DEFAULT_NAME:
        raise EC2Error(
            "CannotDelete", f'the specified group: "{group.id}" name: "{group.name}" cannot be deleted by a user'
        )
    used = any(group.id in interface.groups for interface in call.tx.all(NetworkInterface, vpc_id=group.vpc_id))
    if used or any(other.id != group.id for other, _ in references(call, group)):
        raise dependency_violation(f"resource {group.id} has a dependent object")
    call.tx.delete(group)
    call.wake_vpcs(group.vpc_id)
    return {"Return": True, "GroupId": group.id}


def references(call: Call, group: SecurityGroup) -> Iterator[tuple[SecurityGroup, Rule]]:
    """The rules that name a group, itself included: of its VPC, and of those that it is peered with now."""
    peers = {
        peering.id: peering.other(group.vpc_id).vpc_id
        for peering in call.db.all(PeeringConnection, vpc_ids=group.vpc_id)
        if peering.state == "active"
    }
    for vpc_id in dict.fromkeys((group.vpc_id, *peers.values())):
        for other in call.db.all(SecurityGroup, vpc_id=vpc_id):
            for rule in other.rules:
                if rule.group_id == group.id and (not rule.peering_id or rule.peering_id in peers):
                    yield other, rule


# --- lists ------------------------------------------------------------------------------------------------------------


@operation("DescribeSecurityGroups", listing=True)
def describe_security_groups(
    call: Call, *, group_ids: list[str] | None = None, group_names: list[str] | None = None
) -> Answer:
    """Ids and names together mean all of them."""
    if group_ids or group_names:
        found = call.find_all(SecurityGroup, "sg", group_ids or ())
        found += [group for group in (find_named_group(call, name) for name in group_names or ()) if group not in found]
    else:
        found = call.mine(SecurityGroup)
    return show_page(
        call, "SecurityGroups", choose(call, found, group_filters(call)), lambda group: show_group(call, group)
    )


def show_group(call: Call, group: SecurityGroup) -> Answer:
    def show_pair(rule: Rule) -> Answer:
        return show_peer_group(call, group, rule)

    return {
        "GroupId": group.id,
        "GroupName": group.name,
        "Description": group.description,
        "OwnerId": group.account,
        "VpcId": group.vpc_id,
        "SecurityGroupArn": group_arn(group),
        "IpPermissions": show_permissions((rule for rule in group.rules if not rule.egress), show_pair),
        "IpPermissionsEgress": show_permissions((rule for rule in group.rules if rule.egress), show_pair),
        "Tags": tag_set(group.tags),
    }


def show_peer_group(call: Call, group: SecurityGroup, rule: Rule) -> Answer:
    """The group that a rule of `group` names, as UserIdGroupPair says it; more of one in another VPC."""
    shown: Answer = {"UserId": rule.group_account or group.account, "GroupId": rule.group_id}
    if rule.peering_id:
        peering = call.db.get(PeeringConnection, rule.peering_id)
        shown["VpcPeeringConnectionId"] = rule.peering_id
        shown["PeeringStatus"] = peering.state if peering is not None else "deleted"
        if peering is not None:
            shown["VpcId"] = peering.other(group.vpc_id).vpc_id
        if call.db.get(SecurityGroup, rule.group_id) is None:
            del shown["UserId"]
    return shown


def group_filters(call: Call) -> FilterTable:
    def name_of(rule: Rule) -> str:
        group = call.db.get(SecurityGroup, rule.group_id) if rule.group_id else None
        return group.name if group else ""

    of_a_rule: dict[str, Callable[[SecurityGroup, Rule], str]] = {
        "cidr": lambda group, rule: rule.cidr_ipv4,
        "from-port": lambda group, rule: str(rule.from_port) if has_ports(rule.protocol) else "",
        "group-id": lambda group, rule: rule.group_id,
        "group-name": lambda group, rule: name_of(rule),
        "ipv6-cidr": lambda group, rule: rule.cidr_ipv6,
        "prefix-list-id": lambda group, rule: rule.prefix_list_id,
        "protocol": lambda group, rule: rule.protocol,
        "to-port": lambda group, rule: str(rule.to_port) if has_ports(rule.protocol) else "",
        "user-id": lambda group, rule: (rule.group_account or group.account) if rule.group_id else "",
    }

    def over_rules(read: Callable[[SecurityGroup, Rule], str], egress: bool) -> Callable[[Any], Value]:
        def values(group: SecurityGroup) -> list[str]:
            return [value for rule in group.rules if rule.egress is egress and (value := read(group, rule))]

        return values

    table: FilterTable = {
        "description": lambda group: group.description,
        "group-id": lambda group: group.id,
        "group-name": lambda group: group.name,
        "owner-id": lambda group: group.account,
        "vpc-id": lambda group: group.vpc_id,
        **{f"ip-permission.{name}": over_rules(read, False) for name, read in of_a_rule.items()},
        **{f"egress.ip-permission.{name}": over_rules(read, True) for name, read in of_a_rule.items()},
    }
    return table

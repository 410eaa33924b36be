"""Who refers to security groups from where: peered VPCs, stale rules, and the groups that a VPC can use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from orchestrator.api.ec2.security_groups import references, show_peer_group
from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model.filters import FilterTable, compile_filters
from orchestrator.model.security_group import show_permissions
from orchestrator.model.tags import tag_set
from orchestrator.model.vpc import PeeringConnection, Rule, SecurityGroup, Vpc


@operation("DescribeSecurityGroupReferences")
def describe_security_group_references(call: Call, *, group_id: list[str]) -> Answer:
    """The peered VPCs whose groups name these."""
    found: dict[tuple[str, str, str], None] = {}
    for group in call.find_all(SecurityGroup, "sg", group_id):
        for other, rule in references(call, group):
            if rule.peering_id:
                found[(group.id, other.vpc_id, rule.peering_id)] = None
    return {
        "SecurityGroupReferenceSet": [
            {"GroupId": named, "ReferencingVpcId": vpc_id, "VpcPeeringConnectionId": peering_id}
            for named, vpc_id, peering_id in found
        ]
    }


@operation("DescribeStaleSecurityGroups", listing=True)
def describe_stale_security_groups(call: Call, *, vpc_id: str) -> Answer:
    """The groups of a VPC with rules that name a group which is gone, or is behind a peering which is."""
    vpc = call.find(Vpc, "vpc", vpc_id)
    stale = [group for group in call.mine(SecurityGroup, vpc_id=vpc.id) if any(_stale(call, group.rules))]
    return show_page(call, "StaleSecurityGroupSet", stale, lambda group: _show_stale(call, group), largest=255)


def _stale(call: Call, rules: Iterable[Rule]) -> list[Rule]:
    found = []
    for rule in rules:
        if rule.peering_id:
            peering = call.db.get(PeeringConnection, rule.peering_id)
            reachable = peering is not None and peering.state == "active"
            if not reachable or call.db.get(SecurityGroup, rule.group_id) is None:
                found.append(rule)
    return found


def _show_stale(call: Call, group: SecurityGroup) -> Answer:
    stale = _stale(call, group.rules)

    def show_pair(rule: Rule) -> Answer:
        return show_peer_group(call, group, rule)

    def permissions(*, egress: bool) -> list[Answer]:
        shown = show_permissions((rule for rule in stale if rule.egress is egress), show_pair)
        return [{name: value for name, value in each.items() if name != "Ipv6Ranges"} for each in shown]

    return {
        "GroupId": group.id,
        "GroupName": group.name,
        "Description": group.description,
        "VpcId": group.vpc_id,
        "StaleIpPermissions": permissions(egress=False),
        "StaleIpPermissionsEgress": permissions(egress=True),
    }


GROUP_FILTERS: Final[FilterTable] = {
    "description": lambda group: group.description,
    "group-id": lambda group: group.id,
    "group-name": lambda group: group.name,
    "owner-id": lambda group: group.account,
    "primary-vpc-id": lambda group: group.vpc_id,
}


@operation("GetSecurityGroupsForVpc", listing=True)
def get_security_groups_for_vpc(call: Call, *, vpc_id: str) -> Answer:
    """Its own: groups are shared with no other VPC here."""
    vpc = call.find(Vpc, "vpc", vpc_id)
    return show_page(
        call,
        "SecurityGroupForVpcs",
        choose(call, call.mine(SecurityGroup, vpc_id=vpc.id), GROUP_FILTERS),
        lambda group: {
            "GroupId": group.id,
            "GroupName": group.name,
            "Description": group.description,
            "OwnerId": group.account,
            "PrimaryVpcId": group.vpc_id,
            "Tags": tag_set(group.tags),
        },
    )


ASSOCIATION_FILTERS: Final[FilterTable] = {
    name: lambda association: None for name in ("group-id", "group-owner-id", "state", "vpc-id", "vpc-owner-id")
}


@operation("DescribeSecurityGroupVpcAssociations", listing=True)
def describe_security_group_vpc_associations(call: Call) -> Answer:
    """There are none: AssociateSecurityGroupVpc is not offered."""
    compile_filters(call.params.get("Filters") or (), ASSOCIATION_FILTERS, None)
    return {"SecurityGroupVpcAssociations": []}

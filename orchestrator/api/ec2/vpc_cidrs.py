"""The ranges of a VPC besides its first: added, taken away. Every route table of the VPC follows with a local route.

An IPv6 range brings what EC2 adds with it: entries of the ACLs, and outbound IPv6 for groups that let all out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network

from orchestrator.api.ec2.vpcs import (
    check_border_group,
    new_ipv6_association,
    primary_association_id,
    show_association,
    show_ipv6_association,
    wake_with_peers,
)
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, dependency_violation, missing_parameter
from orchestrator.model.vpc import (
    ALL_OUTBOUND,
    ALL_OUTBOUND_IPV6,
    CidrAssociation,
    NetworkAcl,
    PeeringConnection,
    RouteTable,
    SecurityGroup,
    Subnet,
    Vpc,
    all_outbound_rule,
    default_entries,
    last_entry,
    local_routes,
)
from orchestrator.model.vpc_cidr import check_another, check_another_ipv6, read_vpc_cidr


@operation("AssociateVpcCidrBlock", writes=True)
def associate_vpc_cidr_block(
    call: Call,
    *,
    vpc_id: str,
    cidr_block: str | None = None,
    amazon_provided_ipv6_cidr_block: bool | None = None,
    ipv6_cidr_block_network_border_group: str | None = None,
) -> Answer:
    """It is in effect when this answers, which says `associating`, as EC2 does."""
    vpc = call.find(Vpc, "vpc", vpc_id)
    check_border_group(call, ipv6_cidr_block_network_border_group, bool(amazon_provided_ipv6_cidr_block))
    if cidr_block and amazon_provided_ipv6_cidr_block:
        raise EC2Error("InvalidParameterCombination", "Give either CidrBlock or AmazonProvidedIpv6CidrBlock, not both")
    if cidr_block:
        network = read_vpc_cidr(cidr_block)
        check_another(vpc, network, _routed(call, vpc))
        _check_peers(call, vpc, network)
        association = CidrAssociation(id=ids.mint("vpc-cidr-assoc"), cidr=str(network))
        _change(call, vpc, replace(vpc, more_cidrs=(*vpc.more_cidrs, association)))
        return {"VpcId": vpc.id, "CidrBlockAssociation": show_association(association, "associating")}
    if amazon_provided_ipv6_cidr_block:
        check_another_ipv6(vpc)
        association = new_ipv6_association(call)
        _change(call, vpc, replace(vpc, ipv6_cidrs=(association,)))
        _open_for_ipv6(call, vpc)
        return {"VpcId": vpc.id, "Ipv6CidrBlockAssociation": show_ipv6_association(vpc, association, "associating")}
    raise missing_parameter("CidrBlock, or AmazonProvidedIpv6CidrBlock")


def _routed(call: Call, vpc: Vpc) -> list[str]:
    """The IPv4 ranges to which a table has a route of its own."""
    return [
        route.destination
        for table in call.tx.all(RouteTable, vpc_id=vpc.id)
        for route in table.routes
        if route.target != "local" and "." in route.destination
    ]


def _check_peers(call: Call, vpc: Vpc, network: IPv4Network) -> None:
    """A range of a peer cannot be one's own too; a requester keeps its ranges until it has an answer."""
    for peering in call.tx.all(PeeringConnection, vpc_ids=vpc.id):
        if peering.state not in ("active", "pending-acceptance"):
            continue
        if peering.state == "pending-acceptance" and peering.requester.vpc_id == vpc.id:
            raise EC2Error(
                "InvalidVpc.Range", f"The CIDR '{network}' cannot be added while {peering.id} is pending acceptance"
            )
        other = call.tx.get(Vpc, peering.other(vpc.id).vpc_id)
        for cidr in other.cidrs if other is not None else ():
            if network.overlaps(IPv4Network(cidr)):
                raise EC2Error(
                    "InvalidVpc.Range",
                    f"The CIDR '{network}' is invalid. It overlaps with {cidr} at the other end of {peering.id}.",
                )


def _change(call: Call, old: Vpc, new: Vpc) -> None:
    """Write the VPC with other ranges, and in each of its tables the local routes that follow from them."""
    vpc = call.tx.put(new)
    before = {route.destination for route in local_routes(old)}
    for table in call.tx.all(RouteTable, vpc_id=vpc.id):
        kept = [route for route in table.routes if not (route.target == "local" and route.destination in before)]
        taken = {route.destination for route in kept}  # a local route that was given another target
        local = [route for route in local_routes(vpc) if route.destination not in taken]
        call.tx.put(replace(table, routes=(*local, *kept)))
    wake_with_peers(call, vpc)


def _open_for_ipv6(call: Call, vpc: Vpc) -> None:
    """What the VPC's first IPv6 range changes besides.

    The default ACL lets IPv6 pass and every ACL gets the entry that denies the rest; a group whose outbound rules are
    still those that it began with lets all IPv6 out. Source: "Network ACLs" and "Default security groups" in the VPC
    user guide.
    """
    for acl in call.tx.all(NetworkAcl, vpc_id=vpc.id):
        added = (
            default_entries(ipv6=True) if acl.is_default else [last_entry(egress=e, ipv6=True) for e in (False, True)]
        )
        present = {(entry.number, entry.egress) for entry in acl.entries}
        fresh = tuple(entry for entry in added if (entry.number, entry.egress) not in present)
        if fresh:
            call.tx.put(replace(acl, entries=(*acl.entries, *fresh)))
    for group in call.tx.all(SecurityGroup, vpc_id=vpc.id):
        outbound = [rule for rule in group.rules if rule.egress]
        if [(rule.protocol, rule.cidr_ipv4) for rule in outbound] == [("-1", ALL_OUTBOUND)]:
            call.tx.put(replace(group, rules=(*group.rules, all_outbound_rule(ALL_OUTBOUND_IPV6))))


# --- taking away ------------------------------------------------------------------------------------------------------


@operation("DisassociateVpcCidrBlock", writes=True)
def disassociate_vpc_cidr_block(call: Call, *, association_id: str) -> Answer:
    ids.check("vpc-cidr-assoc", association_id)
    for vpc in call.mine(Vpc):
        if association_id == primary_association_id(vpc):
            raise EC2Error(
                "OperationNotPermitted",
                f"The vpc CIDR block with association ID {association_id} may not be disassociated. It is the primary "
                "IPv4 CIDR block of the VPC",
            )
        for association in vpc.more_cidrs:
            if association.id == association_id:
                _refuse_if(call, vpc, association, lambda subnet, cidr: subnet.network.subnet_of(IPv4Network(cidr)))
                _change(call, vpc, replace(vpc, more_cidrs=_without(vpc.more_cidrs, association)))
                return {"VpcId": vpc.id, "CidrBlockAssociation": show_association(association, "disassociating")}
        for association in vpc.ipv6_cidrs:
            if association.id == association_id:
                _refuse_if(call, vpc, association, lambda subnet, cidr: bool(subnet.ipv6_cidrs))
                _change(call, vpc, replace(vpc, ipv6_cidrs=_without(vpc.ipv6_cidrs, association)))
                shown = show_ipv6_association(vpc, association, "disassociating")
                return {"VpcId": vpc.id, "Ipv6CidrBlockAssociation": shown}
    raise ids.missing("vpc-cidr-assoc", [association_id])


def _refuse_if(call: Call, vpc: Vpc, association: CidrAssociation, uses: Callable[[Subnet, str], bool]) -> None:
    inside = [subnet.id for subnet in call.tx.all(Subnet, vpc_id=vpc.id) if uses(subnet, association.cidr)]
    if inside:
        raise dependency_violation(
            f"The vpc CIDR block with association ID {association.id} has dependencies and cannot be disassociated: "
            f"{', '.join(sorted(inside)[:10])}"
        )


def _without(associations: tuple[CidrAssociation, ...], gone: CidrAssociation) -> tuple[CidrAssociation, ...]:
    return tuple(each for each in associations if each.id != gone.id)

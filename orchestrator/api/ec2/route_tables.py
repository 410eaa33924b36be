"""Route tables: made, deleted, and the subnets that they serve. `routes` changes what is in them.

Every VPC has one main table, which serves the subnets that are associated with none. Both kinds of association have an
id, and replacing one gives it another:

    rtbassoc-1 (main)    of rtb-a   --ReplaceRouteTableAssociation rtb-b-->   rtbassoc-2 (main) of rtb-b
    rtbassoc-3 subnet-x  of rtb-a   --ReplaceRouteTableAssociation rtb-b-->   rtbassoc-4 subnet-x of rtb-b
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from orchestrator.api.operation import Answer, Call, describe, operation, with_client_token
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, dependency_violation, missing_parameter, unsupported
from orchestrator.model.filters import FilterTable, boolean
from orchestrator.model.instance import Instance
from orchestrator.model.route import ENDPOINT, LOCAL, is_list
from orchestrator.model.route import origin as route_origin
from orchestrator.model.route import state as route_state
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import NetworkInterface, Route, RouteTable, Subnet, Vpc, VpcEndpoint, local_routes

MAX_TABLES: Final = 200  # of a VPC
LARGEST_PAGE: Final = 100
ASSOCIATED: Final = {"State": "associated"}


@operation("CreateRouteTable", writes=True)
def create_route_table(call: Call, *, vpc_id: str, tag_specifications: list[Answer] | None = None) -> Answer:
    tags = tags_at_creation(tag_specifications, "route-table")["route-table"]
    vpc = call.find(Vpc, "vpc", vpc_id)
    if len(call.tx.all(RouteTable, vpc_id=vpc.id)) >= MAX_TABLES:
        raise EC2Error("RouteTableLimitExceeded", f"A VPC has at most {MAX_TABLES} route tables")
    made = RouteTable(
        id=ids.mint("rtb"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags,
        vpc_id=vpc.id,
        routes=local_routes(vpc),
    )
    answer: Answer = {"RouteTable": show_route_table(call, call.tx.put(made))}
    call.wake_vpcs(vpc.id)
    return with_client_token(call, answer)


@operation("DeleteRouteTable", writes=True)
def delete_route_table(call: Call, *, route_table_id: str) -> Answer:
    """Gateway endpoints forget it."""
    table = call.find(RouteTable, "rtb", route_table_id)
    if table.main_association_id or table.associations:
        serves = "the main one of its VPC" if table.main_association_id else "associated with subnets"
        raise dependency_violation(
            f"The routeTable '{table.id}' has dependencies and cannot be deleted. It is {serves}"
        )
    for endpoint in call.tx.all(VpcEndpoint, vpc_id=table.vpc_id):
        if table.id in endpoint.route_table_ids:
            kept = tuple(each for each in endpoint.route_table_ids if each != table.id)
            call.tx.put(replace(endpoint, route_table_ids=kept))
    call.tx.delete(table)
    call.wake_vpcs(table.vpc_id)
    return {}


# --- associations -----------------------------------------------------------------------------------------------------


@operation("AssociateRouteTable", writes=True)
def associate_route_table(
    call: Call, *, route_table_id: str, subnet_id: str | None = None, gateway_id: str | None = None
) -> Answer:
    """What is associated already keeps its id."""
    if gateway_id:
        raise unsupported("Route tables of gateways are not offered here: associate the table with a subnet")
    if not subnet_id:
        raise missing_parameter("subnetId")
    table = call.find(RouteTable, "rtb", route_table_id)
    subnet = call.find(Subnet, "subnet", subnet_id)
    if subnet.vpc_id != table.vpc_id:
        message = f"Route table {table.id} and subnet {subnet.id} belong to different networks"
        raise EC2Error("InvalidParameterValue", message)
    for other in call.tx.all(RouteTable, vpc_id=table.vpc_id):
        for association_id, served in other.associations.items():
            if served == subnet.id and other.id == table.id:
                return {"AssociationId": association_id, "AssociationState": ASSOCIATED}
            if served == subnet.id:
                raise EC2Error(
                    "Resource.AlreadyAssociated",
                    f"the specified association for route table {table.id} conflicts with an existing association: "
                    f"{association_id} of {subnet.id} with {other.id}",
                )
    made = ids.mint("rtbassoc")
    call.tx.put(replace(table, associations={**table.associations, made: subnet.id}))
    call.wake_vpcs(table.vpc_id)
    return {"AssociationId": made, "AssociationState": ASSOCIATED}


@operation("DisassociateRouteTable", writes=True)
def disassociate_route_table(call: Call, *, association_id: str) -> Answer:
    """The main table serves the subnet from now on."""
    table = _holder(call, association_id)
    if table.main_association_id == association_id:
        raise EC2Error(
            "InvalidParameterValue", f"cannot disassociate the main route table association {association_id}"
        )
    call.tx.put(_without(table, association_id))
    call.wake_vpcs(table.vpc_id)
    return {}


@operation("ReplaceRouteTableAssociation", writes=True)
def replace_route_table_association(call: Call, *, association_id: str, route_table_id: str) -> Answer:
    old = _holder(call, association_id)
    new = call.find(RouteTable, "rtb", route_table_id)
    if new.vpc_id != old.vpc_id:
        raise EC2Error("InvalidParameterValue", f"Route tables {old.id} and {new.id} belong to different networks")
    made, subnet_id = ids.mint("rtbassoc"), old.associations.get(association_id)
    rest = call.tx.put(_without(old, association_id))
    if new.id == old.id:
        new = rest
    if subnet_id is None:
        call.tx.put(replace(new, main_association_id=made))
    else:
        call.tx.put(replace(new, associations={**new.associations, made: subnet_id}))
    call.wake_vpcs(new.vpc_id)
    return {"NewAssociationId": made, "AssociationState": ASSOCIATED}


def _holder(call: Call, association_id: str) -> RouteTable:
    """The table that an association, of a subnet or as the main one, is of."""
    ids.check("rtbassoc", association_id)
    for table in call.mine(RouteTable):
        if association_id == table.main_association_id or association_id in table.associations:
            return table
    raise ids.missing("rtbassoc", [association_id])


def _without(table: RouteTable, association_id: str) -> RouteTable:
    if association_id == table.main_association_id:
        return replace(table, main_association_id="")
    kept = {each: served for each, served in table.associations.items() if each != association_id}
    return replace(table, associations=kept)


# --- lists ------------------------------------------------------------------------------------------------------------


def _association_ids(table: RouteTable) -> list[str]:
    main = [table.main_association_id] if table.main_association_id else []
    return [*main, *table.associations]


def _targets(*prefixes: str) -> Callable[[RouteTable], list[str]]:
    return lambda table: [route.target for route in table.routes if route.target.startswith(prefixes)]


def _destinations(wanted: Callable[[str], bool]) -> Callable[[RouteTable], list[str]]:
    return lambda table: [route.destination for route in table.routes if wanted(route.destination)]


def route_table_filters(call: Call) -> FilterTable:
    def instances(table: RouteTable) -> list[str]:
        shown = (_show_interface(call, target) for target in _targets("eni-")(table))
        return [each["InstanceId"] for each in shown if "InstanceId" in each]

    return {
        "association.gateway-id": lambda table: None,
        "association.main": lambda table: [
            boolean(each == table.main_association_id) for each in _association_ids(table)
        ],
        "association.route-table-association-id": _association_ids,
        "association.route-table-id": lambda table: table.id if _association_ids(table) else None,
        "association.subnet-id": lambda table: list(table.associations.values()),
        "owner-id": lambda table: table.account,
        "route-table-id": lambda table: table.id,
        "route.destination-cidr-block": _destinations(lambda each: "." in each),
        "route.destination-ipv6-cidr-block": _destinations(lambda each: ":" in each),
        "route.destination-prefix-list-id": _destinations(is_list),
        "route.egress-only-internet-gateway-id": _targets("eigw-"),
        "route.gateway-id": _targets(LOCAL, "igw-", ENDPOINT),
        "route.instance-id": instances,
        "route.nat-gateway-id": _targets("nat-"),
        "route.origin": lambda table: [route_origin(route) for route in table.routes],
        "route.state": lambda table: [route_state(call.db, route, table.vpc_id) for route in table.routes],
        "route.transit-gateway-id": lambda table: None,
        "route.vpc-peering-connection-id": _targets("pcx-"),
        "vpc-id": lambda table: table.vpc_id,
    }


@describe(
    "DescribeRouteTables",
    kind=RouteTable,
    answer="RouteTables",
    ids_parameter="RouteTableIds",
    prefix="rtb",
    filters=route_table_filters,
    largest=LARGEST_PAGE,
)
def show_route_table(call: Call, table: RouteTable) -> Answer:
    associations: list[Answer] = [
        {
            "Main": association_id == table.main_association_id,
            "RouteTableAssociationId": association_id,
            "RouteTableId": table.id,
            "AssociationState": ASSOCIATED,
        }
        for association_id in _association_ids(table)
    ]
    for association in associations:
        if not association["Main"]:
            association["SubnetId"] = table.associations[association["RouteTableAssociationId"]]
    return {
        "RouteTableId": table.id,
        "OwnerId": table.account,
        "VpcId": table.vpc_id,
        "Associations": associations,
        "PropagatingVgws": [],
        "Routes": [_show_route(call, table, route) for route in table.routes],
        "Tags": tag_set(table.tags),
    }


def _show_route(call: Call, table: RouteTable, route: Route) -> Answer:
    return {
        _destination_member(route.destination): route.destination,
        **_show_target(call, route.target),
        "Origin": route_origin(route),
        "State": route_state(call.db, route, table.vpc_id),
    }


def _destination_member(destination: str) -> str:
    if is_list(destination):
        return "DestinationPrefixListId"
    return "DestinationIpv6CidrBlock" if ":" in destination else "DestinationCidrBlock"


_TARGET_MEMBERS: Final = {
    "eigw": "EgressOnlyInternetGatewayId",
    "nat": "NatGatewayId",
    "pcx": "VpcPeeringConnectionId",
}


def _show_target(call: Call, target: str) -> Answer:
    prefix = target.partition("-")[0]
    if prefix == "eni":
        return _show_interface(call, target)
    return {_TARGET_MEMBERS.get(prefix, "GatewayId"): target}


def _show_interface(call: Call, interface_id: str) -> Answer:
    """With the instance that it is attached to."""
    interface = call.db.get(NetworkInterface, interface_id)
    if interface is None or interface.attachment is None:
        return {"NetworkInterfaceId": interface_id}
    instance = call.db.get(Instance, interface.instance_id)
    return {
        "NetworkInterfaceId": interface_id,
        "InstanceId": interface.instance_id,
        "InstanceOwnerId": instance.account if instance is not None else interface.account,
    }

"""Routes: made, given another target, deleted. What a route may be is `model.route`'s to say.

    destination   exactly one of an IPv4 range, an IPv6 range, a prefix list
    target        exactly one, which must be there and be of the table's VPC; an instance stands for its interface

A route keeps its target when that goes away, and is a blackhole then. The routes of a gateway endpoint come and go with
it, and with nothing else.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.api.ec2.prefix_lists import find_prefix_list
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, missing_parameter, not_found, unsupported
from orchestrator.model.instance import Instance
from orchestrator.model.route import (
    ENDPOINT,
    IPV6,
    LOCAL,
    check_count,
    check_destination,
    family,
    find_route,
    read_destination,
)
from orchestrator.model.vpc import (
    EgressOnlyInternetGateway,
    InternetGateway,
    NatGateway,
    NetworkInterface,
    PeeringConnection,
    Route,
    RouteTable,
    Subnet,
    Vpc,
    local_routes,
)


@operation("CreateRoute", writes=True)
def create_route(
    call: Call,
    *,
    route_table_id: str,
    destination_cidr_block: str | None = None,
    destination_ipv6_cidr_block: str | None = None,
    destination_prefix_list_id: str | None = None,
    gateway_id: str | None = None,
    egress_only_internet_gateway_id: str | None = None,
    nat_gateway_id: str | None = None,
    instance_id: str | None = None,
    network_interface_id: str | None = None,
    vpc_peering_connection_id: str | None = None,
) -> Answer:
    table = call.find(RouteTable, "rtb", route_table_id)
    destination = read_destination(destination_cidr_block, destination_ipv6_cidr_block, destination_prefix_list_id)
    if destination_prefix_list_id:
        find_prefix_list(call, destination)
    if find_route(table, destination) is not None:
        raise EC2Error("RouteAlreadyExists", f"The route identified by {destination} already exists.")
    target = _read_target(
        call,
        table,
        destination,
        GatewayId=gateway_id,
        EgressOnlyInternetGatewayId=egress_only_internet_gateway_id,
        NatGatewayId=nat_gateway_id,
        InstanceId=instance_id,
        NetworkInterfaceId=network_interface_id,
        VpcPeeringConnectionId=vpc_peering_connection_id,
    )
    _check_destination(call, table, destination, target)
    made = replace(table, routes=(*table.routes, Route(destination=destination, target=target)))
    check_count(call.tx, made, destination)
    call.tx.put(made)
    call.wake_vpcs(table.vpc_id)
    return {"Return": True}


@operation("ReplaceRoute", writes=True)
def replace_route(
    call: Call,
    *,
    route_table_id: str,
    destination_cidr_block: str | None = None,
    destination_ipv6_cidr_block: str | None = None,
    destination_prefix_list_id: str | None = None,
    gateway_id: str | None = None,
    egress_only_internet_gateway_id: str | None = None,
    nat_gateway_id: str | None = None,
    instance_id: str | None = None,
    network_interface_id: str | None = None,
    vpc_peering_connection_id: str | None = None,
    local_target: bool | None = None,
) -> Answer:
    table = call.find(RouteTable, "rtb", route_table_id)
    destination = read_destination(destination_cidr_block, destination_ipv6_cidr_block, destination_prefix_list_id)
    if find_route(table, destination) is None:
        raise EC2Error(
            "InvalidParameterValue",
            f"There is no route defined for '{destination}' in the route table. Use CreateRoute instead.",
        )
    existing = _existing(table, destination)
    target = _read_target(
        call,
        table,
        destination,
        GatewayId=gateway_id,
        EgressOnlyInternetGatewayId=egress_only_internet_gateway_id,
        NatGatewayId=nat_gateway_id,
        InstanceId=instance_id,
        NetworkInterfaceId=network_interface_id,
        VpcPeeringConnectionId=vpc_peering_connection_id,
        LocalTarget=LOCAL if local_target else None,
    )
    own = _own_range(call, table, destination)
    if target == LOCAL and not own:
        raise EC2Error(
            "InvalidParameterValue",
            f"The target of {destination} cannot be local: it is not a range of {table.vpc_id}",
        )
    if target != LOCAL and own:
        raise unsupported(f"The route to {destination}, a range of {table.vpc_id}, has no other target than local here")
    if target != LOCAL:
        _check_destination(call, table, destination, target)
    changed = replace(existing, target=target)
    call.tx.put(replace(table, routes=tuple(changed if each is existing else each for each in table.routes)))
    call.wake_vpcs(table.vpc_id)
    return {}


@operation("DeleteRoute", writes=True)
def delete_route(
    call: Call,
    *,
    route_table_id: str,
    destination_cidr_block: str | None = None,
    destination_ipv6_cidr_block: str | None = None,
    destination_prefix_list_id: str | None = None,
) -> Answer:
    table = call.find(RouteTable, "rtb", route_table_id)
    destination = read_destination(destination_cidr_block, destination_ipv6_cidr_block, destination_prefix_list_id)
    existing = _existing(table, destination)
    if existing.target == LOCAL:
        raise EC2Error("InvalidParameterValue", f"cannot remove local route {destination} in route table {table.id}")
    call.tx.put(replace(table, routes=tuple(each for each in table.routes if each is not existing)))
    call.wake_vpcs(table.vpc_id)
    return {}


def _existing(table: RouteTable, destination: str) -> Route:
    """The route to exactly this destination, which a user may change."""
    found = find_route(table, destination)
    if found is None:
        raise EC2Error("InvalidRoute.NotFound", f"no route with destination {destination} in route table {table.id}")
    if found.target.startswith(ENDPOINT):
        raise EC2Error(
            "InvalidParameterValue",
            f"The route to {destination} in route table {table.id} is of the VPC endpoint {found.target}: change the "
            "route tables of the endpoint instead",
        )
    return found


def _own_range(call: Call, table: RouteTable, destination: str) -> bool:
    vpc = call.tx.get(Vpc, table.vpc_id)
    return vpc is not None and destination in {route.destination for route in local_routes(vpc)}


def _check_destination(call: Call, table: RouteTable, destination: str, target: str) -> None:
    vpc = call.find(Vpc, "vpc", table.vpc_id)
    check_destination(vpc, call.tx.all(Subnet, vpc_id=vpc.id), destination, target)


# --- targets ----------------------------------------------------------------------------------------------------------


def _read_target(call: Call, table: RouteTable, destination: str, **given: str | None) -> str:
    """The target as a route keeps it, of the one parameter that is given."""
    chosen = {name: value for name, value in given.items() if value}
    if not chosen:
        raise missing_parameter(f"that names the target: one of {', '.join(given)}")
    if len(chosen) > 1:
        raise EC2Error("InvalidParameterCombination", f"Give exactly one target; got {', '.join(chosen)}")
    [(name, target_id)] = chosen.items()
    ipv6 = family(call.tx, destination) == IPV6
    match name:
        case "LocalTarget":
            return LOCAL
        case "GatewayId":
            return LOCAL if target_id == LOCAL and "LocalTarget" in given else _gateway(call, table, target_id)
        case "EgressOnlyInternetGatewayId":
            return _egress_only(call, table, target_id, ipv6=ipv6)
        case "NatGatewayId":
            return _nat_gateway(call, table, target_id, ipv6=ipv6)
        case "InstanceId":
            return _of_instance(call, table, target_id)
        case "NetworkInterfaceId":
            return _interface(call, table, call.find(NetworkInterface, "eni", target_id))
    return _peering(call, table, target_id)


def _elsewhere(table: RouteTable, noun: str, target_id: str) -> EC2Error:
    return EC2Error(
        "InvalidParameterValue", f"route table {table.id} and {noun} {target_id} belong to different networks"
    )


def _gateway(call: Call, table: RouteTable, gateway_id: str) -> str:
    if gateway_id == LOCAL:
        raise EC2Error("InvalidParameterValue", "A route to local is made with a range of the VPC, and in no other way")
    if gateway_id.startswith(("vgw-", ENDPOINT)):
        raise unsupported(f"{gateway_id} cannot be a route's GatewayId here: it takes an internet gateway, igw-...")
    if not any(ids.is_well_formed(prefix, gateway_id) for prefix in ("igw", "nat")):
        raise EC2Error("InvalidGatewayID.Malformed", f'Invalid id: "{gateway_id[:64]}" (expecting "igw-...")')
    found = call.tx.get(InternetGateway, gateway_id)
    if found is None or not call.sees(found):
        raise not_found("InvalidGatewayID", "gateway", [gateway_id])
    if found.vpc_id != table.vpc_id:
        raise _elsewhere(table, "network gateway", found.id)
    return found.id


def _egress_only(call: Call, table: RouteTable, gateway_id: str, *, ipv6: bool) -> str:
    found = call.find(EgressOnlyInternetGateway, "eigw", gateway_id)
    if not ipv6:
        raise EC2Error("InvalidParameterValue", f"{found.id} takes IPv6 alone: give an IPv6 destination")
    if found.vpc_id != table.vpc_id:
        raise _elsewhere(table, "egress-only internet gateway", found.id)
    return found.id


def _nat_gateway(call: Call, table: RouteTable, nat_gateway_id: str, *, ipv6: bool) -> str:
    ids.check("nat", nat_gateway_id)
    found = call.tx.get(NatGateway, nat_gateway_id)
    if found is None or not call.sees(found) or found.state not in ("pending", "available"):
        raise not_found("InvalidNatGatewayID", "natGateway", [nat_gateway_id])  # routes have their own code for it
    if ipv6:
        raise unsupported(f"{found.id} translates IPv4 alone: give an IPv4 destination")
    if found.vpc_id != table.vpc_id:
        raise _elsewhere(table, "NAT gateway", found.id)
    return found.id


def _of_instance(call: Call, table: RouteTable, instance_id: str) -> str:
    instance = call.find(Instance, "i", instance_id)
    interfaces = call.tx.all(NetworkInterface, instance_id=instance.id)
    if len(interfaces) > 1:
        raise EC2Error(
            "InvalidInstanceID",
            f"There are multiple interfaces attached to instance '{instance.id}'. Please specify an interface ID for "
            "the operation instead.",
        )
    if not interfaces:
        raise EC2Error("InvalidInstanceID", f"There is no interface attached to instance '{instance.id}'.")
    return _interface(call, table, interfaces[0])


def _interface(call: Call, table: RouteTable, found: NetworkInterface) -> str:
    if found.interface_type != "interface":
        message = f"{found.id} is the interface of a NAT gateway: name the gateway, by NatGatewayId"
        raise EC2Error("InvalidParameterValue", message)
    if found.vpc_id != table.vpc_id:
        raise _elsewhere(table, "interface", found.id)
    return found.id


def _peering(call: Call, table: RouteTable, peering_id: str) -> str:
    """Either side may route to it, before it is accepted too."""
    ids.check("pcx", peering_id)
    found = call.tx.get(PeeringConnection, peering_id)
    usable = found is not None and found.as_of(call.now).state in ("pending-acceptance", "active")
    if found is None or not usable or not found.is_of(call.account, call.region):
        raise ids.missing("pcx", [peering_id])
    if table.vpc_id not in found.vpc_ids:
        raise _elsewhere(table, "VPC peering connection", found.id)
    return found.id

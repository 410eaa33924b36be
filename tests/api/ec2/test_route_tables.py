"""Route tables and routes: made, associated, replaced, deleted, found by filters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model import ids
from orchestrator.model.lifecycle import State
from orchestrator.model.prefix_list import service_list_id, service_list_name
from orchestrator.model.route import MAX_ROUTES
from orchestrator.model.vpc import (
    InterfaceAttachment,
    NatGateway,
    NetworkInterface,
    PeeringConnection,
    PrefixList,
    Route,
    RouteTable,
    VpcEndpoint,
)

from .conftest import ACCOUNT, Api
from .networks import filters, forget_wakes, make_subnet, make_vpc, put_interface, put_peering, woken

ANYWHERE = "0.0.0.0/0"
LOCAL = {"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local", "Origin": "CreateRouteTable", "State": "active"}


def make(api: Api, vpc_id: str, **params: Any) -> str:
    table_id = api.call("CreateRouteTable", VpcId=vpc_id, **params)["RouteTable"]["RouteTableId"]
    assert isinstance(table_id, str)
    return table_id


def shown(api: Api, table_id: str) -> dict[str, Any]:
    [table] = api.call("DescribeRouteTables", RouteTableIds=[table_id])["RouteTables"]
    assert isinstance(table, dict)
    return table


def main_table(api: Api, vpc_id: str) -> dict[str, Any]:
    found = filters(vpc_id=vpc_id, **{"association.main": "true"})
    [table] = api.call("DescribeRouteTables", Filters=found)["RouteTables"]
    assert isinstance(table, dict)
    return table


def associate(api: Api, table_id: str, subnet_id: str) -> str:
    answer = api.call("AssociateRouteTable", RouteTableId=table_id, SubnetId=subnet_id)
    assert answer["AssociationState"] == {"State": "associated"}
    association_id = answer["AssociationId"]
    assert isinstance(association_id, str)
    return association_id


def gateway(api: Api, vpc_id: str | None = None) -> str:
    gateway_id = api.call("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
    if vpc_id:
        api.call("AttachInternetGateway", InternetGatewayId=gateway_id, VpcId=vpc_id)
    assert isinstance(gateway_id, str)
    return gateway_id


def egress_only(api: Api, vpc_id: str) -> str:
    made = api.call("CreateEgressOnlyInternetGateway", VpcId=vpc_id)["EgressOnlyInternetGateway"]
    gateway_id = made["EgressOnlyInternetGatewayId"]
    assert isinstance(gateway_id, str)
    return gateway_id


def nat_gateway(api: Api, subnet_id: str, private_ip: str = "10.0.0.9", state: str = "available") -> NatGateway:
    interface = put_interface(api, subnet_id, private_ip, interface_type="nat_gateway")
    made = NatGateway(
        id=ids.mint("nat"),
        account=api.account,
        region=api.region,
        created=api.now,
        vpc_id=interface.vpc_id,
        subnet_id=subnet_id,
        interface_id=interface.id,
        state=state,
    )
    api.put(made)
    return made


def prefix_list(api: Api, size: int = 3, family: str = "IPv4") -> str:
    made = api.call("CreateManagedPrefixList", PrefixListName="x", MaxEntries=size, AddressFamily=family)
    list_id = made["PrefixList"]["PrefixListId"]
    assert isinstance(list_id, str)
    return list_id


def routes(api: Api, table_id: str) -> list[dict[str, Any]]:
    """Without the local ones."""
    return [route for route in shown(api, table_id)["Routes"] if route.get("GatewayId") != "local"]


def target(api: Api, table_id: str) -> dict[str, Any]:
    """Of the only route that is not local."""
    [route] = routes(api, table_id)
    assert route.pop("Origin") == "CreateRoute"
    return {name: value for name, value in route.items() if not name.startswith("Destination")}


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_new_table_has_the_local_routes(api: Api) -> None:
    vpc_id = make_vpc(api)
    tags = [{"Key": "Name", "Value": "x"}]
    table_id = make(api, vpc_id, TagSpecifications=[{"ResourceType": "route-table", "Tags": tags}])
    assert shown(api, table_id) == {
        "RouteTableId": table_id,
        "OwnerId": ACCOUNT,
        "VpcId": vpc_id,
        "Associations": [],
        "PropagatingVgws": [],
        "Routes": [LOCAL],
        "Tags": tags,
    }
    api.call("AssociateVpcCidrBlock", VpcId=vpc_id, CidrBlock="10.1.0.0/16")
    answer = api.call("AssociateVpcCidrBlock", VpcId=vpc_id, AmazonProvidedIpv6CidrBlock=True)
    ipv6 = answer["Ipv6CidrBlockAssociation"]["Ipv6CidrBlock"]
    local = [LOCAL, {**LOCAL, "DestinationCidrBlock": "10.1.0.0/16"}]
    last = {name: value for name, value in LOCAL.items() if name != "DestinationCidrBlock"}
    local.append({**last, "DestinationIpv6CidrBlock": ipv6})
    assert shown(api, make(api, vpc_id))["Routes"] == local == shown(api, table_id)["Routes"]


def test_a_table_goes_when_nothing_uses_it(api: Api) -> None:
    vpc_id = make_vpc(api)
    main = main_table(api, vpc_id)["RouteTableId"]
    table_id = make(api, vpc_id)
    association_id = associate(api, table_id, make_subnet(api, vpc_id))
    for used in (main, table_id):
        assert api.refused("DeleteRouteTable", RouteTableId=used).code == "DependencyViolation"
    api.call("DisassociateRouteTable", AssociationId=association_id)
    assert api.call("DeleteRouteTable", RouteTableId=table_id) == {}
    assert api.refused("DeleteRouteTable", RouteTableId=table_id).code == "InvalidRouteTableID.NotFound"
    assert api.by().refused("DeleteRouteTable", RouteTableId=main).code == "InvalidRouteTableID.NotFound"
    assert api.refused("CreateRouteTable", VpcId=ids.mint("vpc")).code == "InvalidVpcID.NotFound"


def test_an_endpoint_forgets_a_table_that_goes(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id = make(api, vpc_id)
    endpoint = VpcEndpoint(
        id=ids.mint("vpce"),
        account=api.account,
        region=api.region,
        created=api.now,
        vpc_id=vpc_id,
        service="com.amazonaws.us-east-1.s3",
        route_table_ids=(table_id, "rtb-1"),
    )
    api.put(endpoint)
    api.call("DeleteRouteTable", RouteTableId=table_id)
    assert api.get(VpcEndpoint, endpoint.id).route_table_ids == ("rtb-1",)


def test_a_vpc_has_so_many(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.api.ec2.route_tables.MAX_TABLES", 2)
    vpc_id = make_vpc(api)
    make(api, vpc_id)
    assert api.refused("CreateRouteTable", VpcId=vpc_id).code == "RouteTableLimitExceeded"


# --- associations -----------------------------------------------------------------------------------------------------


def test_a_subnet_is_associated(api: Api) -> None:
    vpc_id = make_vpc(api)
    subnet_id, table_id = make_subnet(api, vpc_id), make(api, vpc_id)
    forget_wakes(api)
    association_id = associate(api, table_id, subnet_id)
    assert association_id.startswith("rtbassoc-") and woken(api) == {vpc_id}
    assert shown(api, table_id)["Associations"] == [
        {
            "Main": False,
            "RouteTableAssociationId": association_id,
            "RouteTableId": table_id,
            "SubnetId": subnet_id,
            "AssociationState": {"State": "associated"},
        }
    ]
    assert associate(api, table_id, subnet_id) == association_id
    other = make(api, vpc_id)
    twice = api.refused("AssociateRouteTable", RouteTableId=other, SubnetId=subnet_id)
    assert twice.code == "Resource.AlreadyAssociated" and association_id in twice.message
    forget_wakes(api)
    assert api.call("DisassociateRouteTable", AssociationId=association_id) == {}
    assert woken(api) == {vpc_id} and shown(api, table_id)["Associations"] == []
    gone = api.refused("DisassociateRouteTable", AssociationId=association_id)
    assert gone.code == "InvalidAssociationID.NotFound"


def test_what_is_not_associated(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id, elsewhere = make(api, vpc_id), make_subnet(api, make_vpc(api))
    apart = api.refused("AssociateRouteTable", RouteTableId=table_id, SubnetId=elsewhere)
    assert apart.code == "InvalidParameterValue" and "different networks" in apart.message
    edge = api.refused("AssociateRouteTable", RouteTableId=table_id, GatewayId=gateway(api, vpc_id))
    assert edge.code == "UnsupportedOperation" and "gateway" in edge.message
    assert api.refused("AssociateRouteTable", RouteTableId=table_id).code == "MissingParameter"
    main = main_table(api, vpc_id)["Associations"][0]["RouteTableAssociationId"]
    kept = api.refused("DisassociateRouteTable", AssociationId=main)
    assert kept.code == "InvalidParameterValue" and main in kept.message


def test_an_association_is_replaced(api: Api) -> None:
    vpc_id = make_vpc(api)
    subnet_id, first, second = make_subnet(api, vpc_id), make(api, vpc_id), make(api, vpc_id)
    old = associate(api, first, subnet_id)
    forget_wakes(api)
    answer = api.call("ReplaceRouteTableAssociation", AssociationId=old, RouteTableId=second)
    new = answer["NewAssociationId"]
    assert new != old and answer["AssociationState"] == {"State": "associated"} and woken(api) == {vpc_id}
    assert shown(api, first)["Associations"] == []
    [association] = shown(api, second)["Associations"]
    assert (association["RouteTableAssociationId"], association["SubnetId"]) == (new, subnet_id)
    again = api.call("ReplaceRouteTableAssociation", AssociationId=new, RouteTableId=second)["NewAssociationId"]
    assert again != new and list(api.get(RouteTable, second).associations) == [again]
    elsewhere = make(api, make_vpc(api))
    apart = api.refused("ReplaceRouteTableAssociation", AssociationId=again, RouteTableId=elsewhere)
    assert apart.code == "InvalidParameterValue" and "different networks" in apart.message
    gone = api.refused("ReplaceRouteTableAssociation", AssociationId=old, RouteTableId=second)
    assert gone.code == "InvalidAssociationID.NotFound"


def test_another_table_becomes_the_main_one(api: Api) -> None:
    vpc_id = make_vpc(api)
    main, table_id = main_table(api, vpc_id), make(api, vpc_id)
    old = main["Associations"][0]["RouteTableAssociationId"]
    subnet_association = associate(api, table_id, make_subnet(api, vpc_id))
    new = api.call("ReplaceRouteTableAssociation", AssociationId=old, RouteTableId=table_id)["NewAssociationId"]
    now = main_table(api, vpc_id)
    assert now["RouteTableId"] == table_id
    assert [(each["RouteTableAssociationId"], each["Main"]) for each in now["Associations"]] == [
        (new, True),
        (subnet_association, False),
    ]
    assert shown(api, main["RouteTableId"])["Associations"] == []
    same = api.call("ReplaceRouteTableAssociation", AssociationId=new, RouteTableId=table_id)["NewAssociationId"]
    assert same != new and api.get(RouteTable, table_id).main_association_id == same
    api.call("DeleteRouteTable", RouteTableId=main["RouteTableId"])


# --- routes: targets --------------------------------------------------------------------------------------------------


def test_a_route_is_made_and_deleted(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id, gateway_id = make(api, vpc_id), gateway(api, vpc_id)
    forget_wakes(api)
    where = {"RouteTableId": table_id, "DestinationCidrBlock": "192.168.9.9/16"}
    assert api.call("CreateRoute", **where, GatewayId=gateway_id) == {"Return": True}
    assert woken(api) == {vpc_id}
    [route] = routes(api, table_id)
    assert route == {
        "DestinationCidrBlock": "192.168.0.0/16",
        "GatewayId": gateway_id,
        "Origin": "CreateRoute",
        "State": "active",
    }
    twice = api.refused("CreateRoute", **where, GatewayId=gateway_id)
    assert (twice.code, twice.message) == (
        "RouteAlreadyExists",
        "The route identified by 192.168.0.0/16 already exists.",
    )
    forget_wakes(api)
    assert api.call("DeleteRoute", **where) == {}
    assert woken(api) == {vpc_id} and routes(api, table_id) == []
    assert api.refused("DeleteRoute", **where).code == "InvalidRoute.NotFound"
    none = api.refused("ReplaceRoute", **where, GatewayId=gateway_id)
    assert (none.code, none.message) == (
        "InvalidParameterValue",
        "There is no route defined for '192.168.0.0/16' in the route table. Use CreateRoute instead.",
    )


def test_every_kind_of_target(api: Api) -> None:
    """Each in the place of the one before."""
    vpc_id = make_vpc(api)
    subnet_id, table_id = make_subnet(api, vpc_id), make(api, vpc_id)
    gateway_id, nat = gateway(api, vpc_id), nat_gateway(api, subnet_id, "10.0.0.200")
    peering_id = put_peering(api, vpc_id, api, make_vpc(api, "10.7.0.0/16"))
    free = put_interface(api, subnet_id, "10.0.0.201").id
    [instance_id] = api.launch(SubnetId=subnet_id)
    [own] = api.store.all(NetworkInterface, instance_id=instance_id)
    api.call("CreateRoute", RouteTableId=table_id, DestinationCidrBlock=ANYWHERE, GatewayId=gateway_id)
    of_instance = {"NetworkInterfaceId": own.id, "InstanceId": instance_id, "InstanceOwnerId": ACCOUNT}
    for given, answered, state in (
        ({"NatGatewayId": nat.id}, {"NatGatewayId": nat.id}, "active"),
        ({"InstanceId": instance_id}, of_instance, "active"),
        ({"NetworkInterfaceId": free}, {"NetworkInterfaceId": free}, "blackhole"),
        ({"NetworkInterfaceId": own.id}, of_instance, "active"),
        ({"VpcPeeringConnectionId": peering_id}, {"VpcPeeringConnectionId": peering_id}, "active"),
        ({"GatewayId": gateway_id}, {"GatewayId": gateway_id}, "active"),
    ):
        forget_wakes(api)
        assert api.call("ReplaceRoute", RouteTableId=table_id, DestinationCidrBlock=ANYWHERE, **given) == {}
        assert woken(api) == {vpc_id}
        assert target(api, table_id) == {**answered, "State": state}
        api.call("DeleteRoute", RouteTableId=table_id, DestinationCidrBlock=ANYWHERE)
        api.call("CreateRoute", RouteTableId=table_id, DestinationCidrBlock=ANYWHERE, **given)
        assert target(api, table_id) == {**answered, "State": state}


def test_ipv6(api: Api) -> None:
    vpc_id = make_vpc(api, AmazonProvidedIpv6CidrBlock=True)
    table_id, way_out = make(api, vpc_id), egress_only(api, vpc_id)
    where = {"RouteTableId": table_id, "DestinationIpv6CidrBlock": "0:0::/0"}
    api.call("CreateRoute", **where, EgressOnlyInternetGatewayId=way_out)
    [route] = routes(api, table_id)
    assert route == {
        "DestinationIpv6CidrBlock": "::/0",
        "EgressOnlyInternetGatewayId": way_out,
        "Origin": "CreateRoute",
        "State": "active",
    }
    gateway_id = gateway(api, vpc_id)
    api.call("ReplaceRoute", **where, GatewayId=gateway_id)
    assert target(api, table_id) == {"GatewayId": gateway_id, "State": "active"}
    ipv4 = {"RouteTableId": table_id, "DestinationCidrBlock": ANYWHERE}
    refused = api.refused("CreateRoute", **ipv4, EgressOnlyInternetGatewayId=way_out)
    assert refused.code == "InvalidParameterValue" and "IPv6" in refused.message
    nat = nat_gateway(api, make_subnet(api, vpc_id))
    assert api.refused("ReplaceRoute", **where, NatGatewayId=nat.id).code == "UnsupportedOperation"
    api.call("DeleteRoute", **where)
    assert routes(api, table_id) == []


def test_prefix_lists(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id, gateway_id, list_id = make(api, vpc_id), gateway(api, vpc_id), prefix_list(api)
    where = {"RouteTableId": table_id, "DestinationPrefixListId": list_id}
    api.call("CreateRoute", **where, GatewayId=gateway_id)
    [route] = routes(api, table_id)
    assert (route["DestinationPrefixListId"], route["State"]) == (list_id, "active")
    assert api.refused("DeleteManagedPrefixList", PrefixListId=list_id).code == "DependencyViolation"
    assert api.refused("CreateRoute", **where, GatewayId=gateway_id).code == "RouteAlreadyExists"
    absent = {"RouteTableId": table_id, "DestinationPrefixListId": ids.mint("pl"), "GatewayId": gateway_id}
    assert api.refused("CreateRoute", **absent).code == "InvalidPrefixListID.NotFound"
    malformed = {**absent, "DestinationPrefixListId": ANYWHERE}
    assert api.refused("CreateRoute", **malformed).code == "InvalidPrefixListID.Malformed"
    api.call("DeleteRoute", **where)
    assert routes(api, table_id) == []
    sixth = {"RouteTableId": table_id, "DestinationPrefixListId": prefix_list(api, family="IPv6")}
    api.call("CreateRoute", **sixth, EgressOnlyInternetGatewayId=egress_only(api, vpc_id))


def test_targets_that_are_not_there(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id = make(api, vpc_id)
    dead = nat_gateway(api, make_subnet(api, vpc_id), state="deleted").id
    peer = make_vpc(api, "10.7.0.0/16")
    rejected, strange = (
        put_peering(api, vpc_id, api, peer, "rejected"),
        put_peering(api.by(), "vpc-1", api.by(), "vpc-2"),
    )
    other = api.by()
    foreign = gateway(other, make_vpc(other))
    for given, code in (
        ({"GatewayId": ids.mint("igw")}, "InvalidGatewayID.NotFound"),
        ({"GatewayId": foreign}, "InvalidGatewayID.NotFound"),
        ({"GatewayId": "igw-x"}, "InvalidGatewayID.Malformed"),
        ({"GatewayId": "local"}, "InvalidParameterValue"),
        ({"GatewayId": "vgw-0123456789abcdef0"}, "UnsupportedOperation"),
        ({"GatewayId": ids.mint("vpce")}, "UnsupportedOperation"),
        ({"GatewayId": dead}, "InvalidGatewayID.NotFound"),
        ({"GatewayId": "nat-x"}, "InvalidGatewayID.Malformed"),
        ({"NatGatewayId": ids.mint("nat")}, "InvalidNatGatewayID.NotFound"),
        ({"NatGatewayId": dead}, "InvalidNatGatewayID.NotFound"),
        ({"InstanceId": ids.mint("i")}, "InvalidInstanceID.NotFound"),
        ({"NetworkInterfaceId": ids.mint("eni")}, "InvalidNetworkInterfaceID.NotFound"),
        ({"EgressOnlyInternetGatewayId": ids.mint("eigw")}, "InvalidGatewayID.NotFound"),
        ({"VpcPeeringConnectionId": ids.mint("pcx")}, "InvalidVpcPeeringConnectionID.NotFound"),
        ({"VpcPeeringConnectionId": rejected}, "InvalidVpcPeeringConnectionID.NotFound"),
        ({"VpcPeeringConnectionId": strange}, "InvalidVpcPeeringConnectionID.NotFound"),
        ({"TransitGatewayId": "tgw-1"}, "UnsupportedOperation"),
        ({"VpcEndpointId": "vpce-1"}, "UnsupportedOperation"),
        ({"CarrierGatewayId": "cagw-1"}, "UnsupportedOperation"),
        ({"LocalGatewayId": "lgw-1"}, "UnsupportedOperation"),
        ({"CoreNetworkArn": "arn:x"}, "UnsupportedOperation"),
        ({}, "MissingParameter"),
        ({"GatewayId": foreign, "NatGatewayId": dead}, "InvalidParameterCombination"),
    ):
        refused = api.refused("CreateRoute", RouteTableId=table_id, DestinationCidrBlock=ANYWHERE, **given)
        assert refused.code == code, given


def test_a_nat_gateway_that_is_gone_is_told_as_routes_tell_it(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id, subnet_id = make(api, vpc_id), make_subnet(api, vpc_id)
    dead = nat_gateway(api, subnet_id, state="deleted").id
    where = {"RouteTableId": table_id, "DestinationCidrBlock": ANYWHERE}
    missing = f"The natGateway ID '{dead}' does not exist"
    error = api.refused("CreateRoute", **where, NatGatewayId=dead)
    assert (error.code, error.message) == ("InvalidNatGatewayID.NotFound", missing)
    api.call("CreateRoute", **where, NatGatewayId=nat_gateway(api, subnet_id, "10.0.0.10").id)
    error = api.refused("ReplaceRoute", **where, NatGatewayId=dead)
    assert (error.code, error.message) == ("InvalidNatGatewayID.NotFound", missing)
    error = api.refused("ReplaceRoute", **where, GatewayId=dead)
    assert (error.code, error.message) == ("InvalidGatewayID.NotFound", f"The gateway ID '{dead}' does not exist")


def test_a_peering_that_nobody_answered_in_time_is_no_target(api: Api) -> None:
    vpc_id = make_vpc(api)
    peering_id = put_peering(api, vpc_id, api, make_vpc(api, "10.7.0.0/16"), "pending-acceptance")
    where = {"RouteTableId": make(api, vpc_id), "VpcPeeringConnectionId": peering_id}
    api.advance(7 * 24 * 3600 - 1)
    api.call("CreateRoute", DestinationCidrBlock="10.7.0.0/24", **where)
    api.advance(1)
    late = api.refused("CreateRoute", DestinationCidrBlock="10.7.1.0/24", **where)
    assert late.code == "InvalidVpcPeeringConnectionID.NotFound"


def test_targets_of_other_vpcs(api: Api) -> None:
    vpc_id, other = make_vpc(api), make_vpc(api, AmazonProvidedIpv6CidrBlock=True)
    table_id, subnet_id = make(api, vpc_id), make_subnet(api, other)
    [instance_id] = api.launch(SubnetId=subnet_id)
    detached, attached = gateway(api), gateway(api, other)
    for given, noun in (
        ({"GatewayId": detached}, f"route table {table_id} and network gateway {detached} belong"),
        ({"GatewayId": attached}, f"route table {table_id} and network gateway {attached} belong"),
        ({"NatGatewayId": nat_gateway(api, subnet_id, "10.0.0.200").id}, "NAT gateway"),
        ({"InstanceId": instance_id}, "interface eni-"),
        ({"NetworkInterfaceId": put_interface(api, subnet_id, "10.0.0.201").id}, "interface eni-"),
        ({"VpcPeeringConnectionId": put_peering(api, other, api, make_vpc(api))}, "VPC peering connection pcx-"),
    ):
        refused = api.refused("CreateRoute", RouteTableId=table_id, DestinationCidrBlock=ANYWHERE, **given)
        assert refused.code == "InvalidParameterValue", given
        assert noun in refused.message and "different networks" in refused.message
    way_out = {"DestinationIpv6CidrBlock": "::/0", "EgressOnlyInternetGatewayId": egress_only(api, other)}
    assert "different networks" in api.refused("CreateRoute", RouteTableId=table_id, **way_out).message


def test_an_instance_stands_for_its_only_interface(api: Api) -> None:
    vpc_id = make_vpc(api)
    subnet_id, table_id = make_subnet(api, vpc_id), make(api, vpc_id)
    [instance_id] = api.launch(SubnetId=subnet_id)
    where = {"RouteTableId": table_id, "DestinationCidrBlock": ANYWHERE}
    second = InterfaceAttachment(id=ids.mint("eni-attach"), instance_id=instance_id, device_index=1)
    more = put_interface(api, subnet_id, "10.0.0.99", attachment=second)
    several = api.refused("CreateRoute", **where, InstanceId=instance_id)
    assert several.code == "InvalidInstanceID"
    assert f"There are multiple interfaces attached to instance '{instance_id}'" in several.message
    api.call("CreateRoute", **where, NetworkInterfaceId=more.id)
    api.call("DeleteRoute", **where)
    api.change(more, attachment=None)
    api.settle(instance_id, State.TERMINATED)
    assert api.refused("CreateRoute", **where, InstanceId=instance_id).code.startswith("InvalidInstanceID")
    nat = nat_gateway(api, subnet_id)
    behind = api.refused("CreateRoute", **where, NetworkInterfaceId=nat.interface_id)
    assert behind.code == "InvalidParameterValue" and "NatGatewayId" in behind.message


def test_peerings_of_either_side(api: Api) -> None:
    other = api.by()
    mine, theirs = make_vpc(api), make_vpc(other, "10.7.0.0/16")
    peering_id = put_peering(api, mine, other, theirs, "pending-acceptance")
    for side, vpc_id, cidr in ((api, mine, "10.7.0.0/16"), (other, theirs, "10.0.0.0/16")):
        table_id = make(side, vpc_id)
        where = {"RouteTableId": table_id, "DestinationCidrBlock": cidr}
        side.call("CreateRoute", **where, VpcPeeringConnectionId=peering_id)
        assert target(side, table_id) == {"VpcPeeringConnectionId": peering_id, "State": "blackhole"}
    api.change(api.get(PeeringConnection, peering_id), state="active")
    assert target(other, table_id)["State"] == "active"


# --- routes: destinations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "MissingParameter"),
        ({"DestinationCidrBlock": ANYWHERE, "DestinationIpv6CidrBlock": "::/0"}, "InvalidParameterCombination"),
        ({"DestinationCidrBlock": "0.0.0.0"}, "InvalidParameterValue"),
        ({"DestinationCidrBlock": "::/0"}, "InvalidParameterValue"),
        ({"DestinationIpv6CidrBlock": ANYWHERE}, "InvalidParameterValue"),
        ({"DestinationCidrBlock": "169.254.169.254/32"}, "InvalidParameterValue"),
        ({"DestinationIpv6CidrBlock": "fd00:ec2::254/128"}, "InvalidParameterValue"),
        ({"DestinationCidrBlock": "10.0.0.0/16"}, "RouteAlreadyExists"),
        ({"DestinationCidrBlock": "10.0.0.0/24"}, "InvalidParameterValue"),
    ],
)
def test_what_no_destination_can_be(api: Api, params: dict[str, str], code: str) -> None:
    vpc_id = make_vpc(api)
    table_id, gateway_id = make(api, vpc_id), gateway(api, vpc_id)
    make_subnet(api, vpc_id)
    assert api.refused("CreateRoute", RouteTableId=table_id, GatewayId=gateway_id, **params).code == code


def test_inside_the_vpc_only_subnets_and_only_machines(api: Api) -> None:
    vpc_id = make_vpc(api, AmazonProvidedIpv6CidrBlock=True)
    ipv6 = api.call("DescribeVpcs", VpcIds=[vpc_id])["Vpcs"][0]["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"]
    sixth = ipv6.replace("/56", "/64")
    subnet_id = make_subnet(api, vpc_id, Ipv6CidrBlock=sixth)
    table_id = make(api, vpc_id)
    interface = put_interface(api, subnet_id, "10.0.0.50").id
    nat = nat_gateway(api, subnet_id).id
    for cidr in ("10.0.0.0/25", "10.0.0.0/23", "10.0.1.0/24"):
        where = {"RouteTableId": table_id, "DestinationCidrBlock": cidr}
        refused = api.refused("CreateRoute", **where, NetworkInterfaceId=interface)
        assert refused.code == "InvalidParameterValue" and "more specific" in refused.message
    exact = {"RouteTableId": table_id, "DestinationCidrBlock": "10.0.0.0/24"}
    peering_id = put_peering(api, vpc_id, api, make_vpc(api, "10.7.0.0/16"))
    assert api.refused("CreateRoute", **exact, VpcPeeringConnectionId=peering_id).code == "InvalidParameterValue"
    api.call("CreateRoute", **exact, NetworkInterfaceId=interface)
    api.call("ReplaceRoute", **exact, NatGatewayId=nat)
    assert api.refused("ReplaceRoute", **exact, GatewayId=gateway(api, vpc_id)).code == "InvalidParameterValue"
    where = {"RouteTableId": table_id, "DestinationIpv6CidrBlock": sixth}
    api.call("CreateRoute", **where, NetworkInterfaceId=interface)
    broader = {"RouteTableId": table_id, "DestinationCidrBlock": "10.0.0.0/8"}
    api.call("CreateRoute", **broader, VpcPeeringConnectionId=peering_id)


def test_the_local_route_stays(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id = make(api, vpc_id)
    interface = put_interface(api, make_subnet(api, vpc_id)).id
    where = {"RouteTableId": table_id, "DestinationCidrBlock": "10.0.0.0/16"}
    kept = api.refused("DeleteRoute", **where)
    assert (kept.code, kept.message) == (
        "InvalidParameterValue",
        f"cannot remove local route 10.0.0.0/16 in route table {table_id}",
    )
    elsewhere = api.refused("ReplaceRoute", **where, NetworkInterfaceId=interface)
    assert elsewhere.code == "UnsupportedOperation" and "local" in elsewhere.message
    for given in ({"LocalTarget": True}, {"GatewayId": "local"}):
        assert api.call("ReplaceRoute", **where, **given) == {}
    assert shown(api, table_id)["Routes"] == [LOCAL]
    api.call("CreateRoute", RouteTableId=table_id, DestinationCidrBlock=ANYWHERE, NetworkInterfaceId=interface)
    refused = api.refused("ReplaceRoute", RouteTableId=table_id, DestinationCidrBlock=ANYWHERE, LocalTarget=True)
    assert refused.code == "InvalidParameterValue" and "local" in refused.message
    none = api.refused("ReplaceRoute", RouteTableId=table_id, DestinationCidrBlock=ANYWHERE, LocalTarget=False)
    assert none.code == "MissingParameter"


def test_routes_of_endpoints_are_left_alone(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id, gateway_id = make(api, vpc_id), gateway(api, vpc_id)
    list_id = service_list_id(service_list_name(api.region, "s3"))
    table = api.get(RouteTable, table_id)
    endpoint_id = ids.mint("vpce")
    api.put(replace(table, routes=(*table.routes, Route(destination=list_id, target=endpoint_id))))
    assert target(api, table_id) == {"GatewayId": endpoint_id, "State": "blackhole"}
    where = {"RouteTableId": table_id, "DestinationPrefixListId": list_id}
    assert api.refused("CreateRoute", **where, GatewayId=gateway_id).code == "RouteAlreadyExists"
    for action, more in (("ReplaceRoute", {"GatewayId": gateway_id}), ("DeleteRoute", {})):
        refused = api.refused(action, **where, **more)
        assert refused.code == "InvalidParameterValue" and endpoint_id in refused.message


def test_a_table_has_so_many_routes(api: Api) -> None:
    """Of each family; a prefix list counts as many as it may have entries."""
    vpc_id = make_vpc(api)
    table_id, gateway_id = make(api, vpc_id), gateway(api, vpc_id)
    table = api.get(RouteTable, table_id)
    many = [Route(destination=f"192.168.{n}.0/24", target=gateway_id) for n in range(MAX_ROUTES - 3)]
    api.put(replace(table, routes=(*table.routes, *many)))
    large, small = prefix_list(api, 4), prefix_list(api, 2)

    def create(**destination: str) -> dict[str, Any]:
        return {"RouteTableId": table_id, "GatewayId": gateway_id, **destination}

    full = api.refused("CreateRoute", **create(DestinationPrefixListId=large))
    assert full.code == "RouteLimitExceeded" and str(MAX_ROUTES) in full.message
    api.call("CreateRoute", **create(DestinationPrefixListId=small))
    api.call("CreateRoute", **create(DestinationCidrBlock=ANYWHERE))
    assert api.refused("CreateRoute", **create(DestinationCidrBlock="1.0.0.0/8")).code == "RouteLimitExceeded"
    api.call("CreateRoute", **create(DestinationIpv6CidrBlock="::/0"))
    api.change(api.get(PrefixList, small), max_entries=3)  # too many IPv4 routes are in nobody else's way
    api.call("CreateRoute", **create(DestinationIpv6CidrBlock="2001:db8::/32"))
    assert api.refused("CreateRoute", **create(DestinationCidrBlock="1.0.0.0/8")).code == "RouteLimitExceeded"


# --- lists ------------------------------------------------------------------------------------------------------------


def test_a_route_is_a_blackhole_while_its_target_is_away(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id, gateway_id = make(api, vpc_id), gateway(api, vpc_id)
    api.call("CreateRoute", RouteTableId=table_id, DestinationCidrBlock=ANYWHERE, GatewayId=gateway_id)
    away = filters(vpc_id=vpc_id, **{"route.state": "blackhole"})
    assert api.call("DescribeRouteTables", Filters=away)["RouteTables"] == []
    api.call("DetachInternetGateway", InternetGatewayId=gateway_id, VpcId=vpc_id)
    assert target(api, table_id)["State"] == "blackhole"
    [found] = api.call("DescribeRouteTables", Filters=away)["RouteTables"]
    assert found["RouteTableId"] == table_id


def test_found_by_filters(api: Api) -> None:
    vpc_id = make_vpc(api, AmazonProvidedIpv6CidrBlock=True)
    subnet_id, table_id = make_subnet(api, vpc_id), make(api, vpc_id)
    association_id = associate(api, table_id, subnet_id)
    gateway_id, way_out, nat = gateway(api, vpc_id), egress_only(api, vpc_id), nat_gateway(api, subnet_id, "10.0.0.200")
    peering_id, list_id = put_peering(api, vpc_id, api, make_vpc(api, "10.7.0.0/16")), prefix_list(api)
    [instance_id] = api.launch(SubnetId=subnet_id)
    for params in (
        {"DestinationCidrBlock": "10.7.0.0/16", "VpcPeeringConnectionId": peering_id},
        {"DestinationIpv6CidrBlock": "::/0", "EgressOnlyInternetGatewayId": way_out},
        {"DestinationPrefixListId": list_id, "NatGatewayId": nat.id},
        {"DestinationCidrBlock": ANYWHERE, "GatewayId": gateway_id},
        {"DestinationCidrBlock": "192.168.0.0/16", "InstanceId": instance_id},
    ):
        api.call("CreateRoute", RouteTableId=table_id, **params)
    found = {
        "association.main": "false",
        "association.route-table-association-id": association_id,
        "association.route-table-id": table_id,
        "association.subnet-id": subnet_id,
        "owner-id": ACCOUNT,
        "route-table-id": table_id,
        "route.destination-cidr-block": "10.7.0.0/16",
        "route.destination-ipv6-cidr-block": "::/0",
        "route.destination-prefix-list-id": list_id,
        "route.egress-only-internet-gateway-id": way_out,
        "route.gateway-id": gateway_id,
        "route.instance-id": instance_id,
        "route.nat-gateway-id": nat.id,
        "route.origin": "CreateRoute",
        "route.state": "active",
        "route.vpc-peering-connection-id": peering_id,
        "vpc-id": vpc_id,
    }
    for name, value in found.items():
        for wanted, there in ((value, True), ("nothing", False)):
            answer = api.call("DescribeRouteTables", Filters=[{"Name": name, "Values": [wanted]}])["RouteTables"]
            assert (table_id in [each["RouteTableId"] for each in answer]) is there, name
    for name in ("association.gateway-id", "route.transit-gateway-id"):
        assert api.call("DescribeRouteTables", Filters=[{"Name": name, "Values": ["*"]}])["RouteTables"] == []
    [main] = api.call("DescribeRouteTables", Filters=filters(vpc_id=vpc_id, **{"association.main": "true"}))[
        "RouteTables"
    ]
    assert main["RouteTableId"] != table_id
    by_id = filters(**{"association.route-table-association-id": main["Associations"][0]["RouteTableAssociationId"]})
    assert api.call("DescribeRouteTables", Filters=by_id)["RouteTables"] == [main]

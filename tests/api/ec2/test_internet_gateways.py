"""Internet gateways and egress-only ones: made, attached, detached, deleted."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.route import state as route_state
from orchestrator.model.vpc import EgressOnlyInternetGateway, InternetGateway, Route

from .conftest import ACCOUNT, Api
from .networks import (
    forget_wakes,
    make_subnet,
    make_vpc,
    put_elastic_ip,
    put_interface,
    woken,
)


def make(api: Api, **params: Any) -> str:
    gateway_id = api.call("CreateInternetGateway", **params)["InternetGateway"]["InternetGatewayId"]
    assert isinstance(gateway_id, str)
    return gateway_id


def attach(api: Api, gateway_id: str, vpc_id: str) -> None:
    assert api.call("AttachInternetGateway", InternetGatewayId=gateway_id, VpcId=vpc_id) == {}


def shown(api: Api, gateway_id: str) -> dict[str, Any]:
    [gateway] = api.call("DescribeInternetGateways", InternetGatewayIds=[gateway_id])["InternetGateways"]
    assert isinstance(gateway, dict)
    return gateway


def test_made_attached_detached_deleted(api: Api) -> None:
    tags = [{"Key": "Name", "Value": "x"}]
    gateway_id = make(api, TagSpecifications=[{"ResourceType": "internet-gateway", "Tags": tags}])
    assert shown(api, gateway_id) == {
        "InternetGatewayId": gateway_id,
        "OwnerId": ACCOUNT,
        "Attachments": [],
        "Tags": tags,
    }
    vpc_id = make_vpc(api)
    forget_wakes(api)
    attach(api, gateway_id, vpc_id)
    assert shown(api, gateway_id)["Attachments"] == [{"VpcId": vpc_id, "State": "available"}]
    assert woken(api) == {vpc_id}
    used = api.refused("DeleteInternetGateway", InternetGatewayId=gateway_id)
    assert used.code == "DependencyViolation"
    route = Route(destination="0.0.0.0/0", target=gateway_id)
    assert route_state(api.store, route, vpc_id) == "active"
    assert api.call("DetachInternetGateway", InternetGatewayId=gateway_id, VpcId=vpc_id) == {}
    assert route_state(api.store, route, vpc_id) == "blackhole" and woken(api) == {vpc_id}
    assert api.call("DeleteInternetGateway", InternetGatewayId=gateway_id) == {}
    gone = api.refused("DeleteInternetGateway", InternetGatewayId=gateway_id)
    assert gone.code == "InvalidInternetGatewayID.NotFound"


def test_a_vpc_has_one_gateway_and_a_gateway_one_vpc(api: Api) -> None:
    first, second, vpc_id, other_id = make(api), make(api), make_vpc(api), make_vpc(api)
    attach(api, first, vpc_id)

    def refused(gateway_id: str, vpc: str) -> tuple[str, str]:
        error = api.refused("AttachInternetGateway", InternetGatewayId=gateway_id, VpcId=vpc)
        return error.code, error.message

    again = f"resource {first} is already attached to network {vpc_id}"
    assert refused(first, vpc_id) == ("Resource.AlreadyAssociated", again)
    assert refused(first, other_id)[0] == "Resource.AlreadyAssociated"
    assert refused(second, vpc_id)[0] == "InvalidParameterValue"
    attach(api, second, other_id)
    not_there = api.refused("DetachInternetGateway", InternetGatewayId=first, VpcId=other_id)
    assert not_there.code == "Gateway.NotAttached"
    assert api.by().refused("DetachInternetGateway", InternetGatewayId=first, VpcId=vpc_id).code == (
        "InvalidInternetGatewayID.NotFound"
    )


@pytest.mark.parametrize("elastic", [False, True])
def test_it_stays_while_public_addresses_are_mapped(api: Api, elastic: bool) -> None:
    vpc_id, gateway_id = make_vpc(api), make(api)
    attach(api, gateway_id, vpc_id)
    interface = put_interface(api, make_subnet(api, vpc_id), public_ip="" if elastic else "203.0.113.9")
    address = put_elastic_ip(api, interface) if elastic else None
    refused = api.refused("DetachInternetGateway", InternetGatewayId=gateway_id, VpcId=vpc_id)
    assert refused.code == "DependencyViolation"
    assert refused.message.startswith(f"Network {vpc_id} has some mapped public address(es)")
    if address is not None:
        api.change(api.get(ElasticIp, address.id), interface_id="", private_ip="", association_id="")
    else:
        api.change(interface, public_ip="")
    api.call("DetachInternetGateway", InternetGatewayId=gateway_id, VpcId=vpc_id)
    assert api.get(InternetGateway, gateway_id).vpc_id == ""


# --- egress-only ------------------------------------------------------------------------------------------------------

KIND = "egress-only-internet-gateway"


def test_egress_only(api: Api) -> None:
    vpc_id = make_vpc(api)
    forget_wakes(api)
    tags = [{"Key": "Name", "Value": "x"}]
    answer = api.call(
        "CreateEgressOnlyInternetGateway",
        VpcId=vpc_id,
        ClientToken="t",
        TagSpecifications=[{"ResourceType": KIND, "Tags": tags}],
    )
    gateway = answer["EgressOnlyInternetGateway"]
    gateway_id = gateway["EgressOnlyInternetGatewayId"]
    assert answer["ClientToken"] == "t" and woken(api) == {vpc_id}
    assert gateway == {
        "EgressOnlyInternetGatewayId": gateway_id,
        "Attachments": [{"State": "attached", "VpcId": vpc_id}],
        "Tags": tags,
    }
    listed = "DescribeEgressOnlyInternetGateways"
    by_tag = [{"Name": "tag:Name", "Values": ["x"]}]
    for params in ({}, {"EgressOnlyInternetGatewayIds": [gateway_id]}, {"Filters": by_tag}, {"MaxResults": 5}):
        assert api.call(listed, **params)["EgressOnlyInternetGateways"] == [gateway]
    assert api.by().call(listed, EgressOnlyInternetGatewayIds=[gateway_id])["EgressOnlyInternetGateways"] == []
    route = Route(destination="::/0", target=gateway_id)
    assert route_state(api.store, route, vpc_id) == "active"
    deleted = {"EgressOnlyInternetGatewayId": gateway_id}
    assert api.by().refused("DeleteEgressOnlyInternetGateway", **deleted).code == "InvalidGatewayID.NotFound"
    assert api.call("DeleteEgressOnlyInternetGateway", **deleted) == {"ReturnCode": True}
    assert route_state(api.store, route, vpc_id) == "blackhole" and woken(api) == {vpc_id}
    assert api.store.all(EgressOnlyInternetGateway) == []
    assert api.call(listed, EgressOnlyInternetGatewayIds=[gateway_id])["EgressOnlyInternetGateways"] == []


def test_what_egress_only_refuses(api: Api) -> None:
    vpc_id = make_vpc(api)
    api.call("CreateEgressOnlyInternetGateway", VpcId=vpc_id)
    second = api.refused("CreateEgressOnlyInternetGateway", VpcId=vpc_id)
    assert second.code == "Resource.AlreadyAssociated"
    absent = api.refused("CreateEgressOnlyInternetGateway", VpcId="vpc-00000000000000000")
    assert absent.code == "InvalidVpcID.NotFound"
    listed = "DescribeEgressOnlyInternetGateways"
    assert api.refused(listed, EgressOnlyInternetGatewayIds=["x"]).code == "InvalidGatewayID.Malformed"
    assert api.refused(listed, Filters=[{"Name": "vpc-id", "Values": ["x"]}]).code == "InvalidParameterValue"

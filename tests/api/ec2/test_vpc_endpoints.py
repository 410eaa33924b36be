"""Gateway endpoints: made, changed, deleted, described; their routes; the services that there are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.model.prefix_list import service_list_id
from orchestrator.model.route import MAX_ROUTES
from orchestrator.model.vpc import Route, RouteTable, VpcEndpoint

from .conftest import Api
from .networks import filters, forget_wakes, make_vpc, put_table, woken

S3, DYNAMODB = "com.amazonaws.us-east-1.s3", "com.amazonaws.us-east-1.dynamodb"
ABSENT = "vpce-00000000000000000"
NARROW = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "*"}]})


def create(api: Api, vpc_id: str, *table_ids: str, service: str = S3, **params: Any) -> dict[str, Any]:
    made = api.call("CreateVpcEndpoint", VpcId=vpc_id, ServiceName=service, RouteTableIds=list(table_ids), **params)
    endpoint = made["VpcEndpoint"]
    assert isinstance(endpoint, dict)
    return endpoint


def describe(api: Api, endpoint_id: str) -> dict[str, Any]:
    [shown] = api.call("DescribeVpcEndpoints", VpcEndpointIds=[endpoint_id])["VpcEndpoints"]
    assert isinstance(shown, dict)
    return shown


def modify(api: Api, endpoint_id: str, **params: Any) -> None:
    assert api.call("ModifyVpcEndpoint", VpcEndpointId=endpoint_id, **params) == {"Return": True}


def routes(api: Api, table_id: str) -> set[tuple[str, str]]:
    """Destination and target, without the local ones."""
    return {(each.destination, each.target) for each in api.get(RouteTable, table_id).routes if each.target != "local"}


def main_table(api: Api, vpc_id: str) -> str:
    [table] = api.store.all(RouteTable, vpc_id=vpc_id)
    return table.id


# --- create -----------------------------------------------------------------------------------------------------------


def test_making_one_routes_to_the_service(api: Api) -> None:
    vpc_id = make_vpc(api)
    tables = [main_table(api, vpc_id), put_table(api, vpc_id).id]
    other = put_table(api, vpc_id).id
    forget_wakes(api)
    tags = [{"ResourceType": "vpc-endpoint", "Tags": [{"Key": "Name", "Value": "x"}]}]
    made = create(api, vpc_id, *tables, TagSpecifications=tags, PrivateDnsEnabled=False, ServiceRegion="us-east-1")
    assert (made["VpcEndpointType"], made["ServiceName"], made["State"]) == ("Gateway", S3, "available")
    assert (made["VpcId"], made["OwnerId"], made["RouteTableIds"]) == (vpc_id, api.account, tables)
    assert made["CreationTimestamp"] == api.now and made["Tags"] == [{"Key": "Name", "Value": "x"}]
    assert json.loads(made["PolicyDocument"])["Statement"][0]["Effect"] == "Allow"
    assert (made["SubnetIds"], made["Groups"], made["NetworkInterfaceIds"], made["DnsEntries"]) == ([], [], [], [])
    assert made["PrivateDnsEnabled"] is made["RequesterManaged"] is False
    assert describe(api, made["VpcEndpointId"]) == made
    for table_id in tables:
        assert routes(api, table_id) == {(service_list_id(S3), made["VpcEndpointId"])}
        assert api.get(RouteTable, table_id).routes[-1].origin == "CreateRoute"
    assert routes(api, other) == set()
    assert woken(api) == {vpc_id}


def test_the_route_is_to_the_prefix_list_of_the_service(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id = main_table(api, vpc_id)
    create(api, vpc_id, table_id)
    [(destination, _)] = routes(api, table_id)
    [shown] = api.call("DescribePrefixLists", Filters=filters(prefix_list_name=S3))["PrefixLists"]
    assert shown["PrefixListId"] == destination


def test_without_tables_it_has_no_routes(api: Api) -> None:
    vpc_id = make_vpc(api)
    assert create(api, vpc_id)["RouteTableIds"] == []
    assert routes(api, main_table(api, vpc_id)) == set()


def test_a_table_has_one_for_each_service(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id = main_table(api, vpc_id)
    create(api, vpc_id, table_id)
    again = api.refused("CreateVpcEndpoint", VpcId=vpc_id, ServiceName=S3, RouteTableIds=[table_id])
    assert again.code == "RouteAlreadyExists" and table_id in again.message
    create(api, vpc_id, table_id, service=DYNAMODB)
    assert len(routes(api, table_id)) == 2


def test_a_full_table_takes_no_more(api: Api) -> None:
    vpc_id = make_vpc(api)
    many = [Route(destination=f"192.168.{n}.0/24", target="eni-00000000000000001") for n in range(MAX_ROUTES)]
    free, full = main_table(api, vpc_id), put_table(api, vpc_id, *many)
    refused = api.refused("CreateVpcEndpoint", VpcId=vpc_id, ServiceName=S3, RouteTableIds=[free, full.id])
    assert refused.code == "RouteLimitExceeded" and full.id in refused.message
    assert routes(api, free) == set() and api.store.all(VpcEndpoint) == []
    endpoint_id = create(api, vpc_id, free)["VpcEndpointId"]
    more = api.refused("ModifyVpcEndpoint", VpcEndpointId=endpoint_id, AddRouteTableIds=[full.id])
    assert more.code == "RouteLimitExceeded"


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"VpcEndpointType": "Interface"}, "UnsupportedOperation"),
        ({"VpcEndpointType": "GatewayLoadBalancer"}, "UnsupportedOperation"),
        ({"ServiceName": None}, "MissingParameter"),
        ({"ServiceName": "com.amazonaws.us-east-1.sqs"}, "InvalidServiceName"),
        ({"ServiceName": "com.amazonaws.us-west-2.s3"}, "InvalidServiceName"),
        ({"ServiceRegion": "us-west-2"}, "InvalidParameterValue"),
        ({"VpcId": "vpc-00000000000000000"}, "InvalidVpcID.NotFound"),
        ({"RouteTableIds": ["rtb-00000000000000000"]}, "InvalidRouteTableId.NotFound"),
        ({"RouteTableIds": ["x"]}, "InvalidRouteTableID.Malformed"),
        ({"PolicyDocument": "{"}, "InvalidPolicyDocument"),
        ({"PolicyDocument": "[]"}, "InvalidPolicyDocument"),
        ({"PolicyDocument": "{}"}, "InvalidPolicyDocument"),
        ({"PolicyDocument": "[" * 20000}, "InvalidPolicyDocument"),
        ({"PolicyDocument": '{"Statement": []}' + " " * 20480}, "InvalidParameterValue"),
        ({"PrivateDnsEnabled": True}, "InvalidParameter"),
        ({"IpAddressType": "ipv6"}, "InvalidParameterValue"),
        ({"SubnetIds": ["subnet-00000000000000000"]}, "UnsupportedOperation"),
        ({"SecurityGroupIds": ["sg-00000000000000000"]}, "UnsupportedOperation"),
        ({"TagSpecifications": [{"ResourceType": "vpc", "Tags": []}]}, "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_is_refused(api: Api, params: dict[str, Any], code: str) -> None:
    wanted = {"VpcId": make_vpc(api), "ServiceName": S3, **params}
    given = {name: value for name, value in wanted.items() if value is not None}
    assert api.refused("CreateVpcEndpoint", **given).code == code


def test_other_kinds_are_refused_with_what_there_is(api: Api) -> None:
    params = {"VpcId": make_vpc(api), "ServiceName": S3, "VpcEndpointType": "Interface"}
    message = api.refused("CreateVpcEndpoint", **params).message
    assert "Gateway" in message and S3 in message and DYNAMODB in message


def test_tables_of_another_vpc_or_account_are_refused(api: Api) -> None:
    vpc_id = make_vpc(api)
    elsewhere, theirs = main_table(api, make_vpc(api)), main_table(api, make_vpc(api.by()))
    for table_id, code in ((elsewhere, "InvalidParameter"), (theirs, "InvalidRouteTableId.NotFound")):
        error = api.refused("CreateVpcEndpoint", VpcId=vpc_id, ServiceName=S3, RouteTableIds=[table_id])
        assert error.code == code and table_id in error.message


# --- change -----------------------------------------------------------------------------------------------------------


def test_tables_are_added_and_removed(api: Api) -> None:
    vpc_id = make_vpc(api)
    first, second = main_table(api, vpc_id), put_table(api, vpc_id).id
    endpoint_id = create(api, vpc_id, first)["VpcEndpointId"]
    forget_wakes(api)
    modify(api, endpoint_id, AddRouteTableIds=[second], RemoveRouteTableIds=[first])
    assert describe(api, endpoint_id)["RouteTableIds"] == [second]
    assert routes(api, first) == set() and len(routes(api, second)) == 1
    assert woken(api) == {vpc_id}


def test_policies_are_set_and_reset(api: Api) -> None:
    vpc_id = make_vpc(api)
    made = create(api, vpc_id, PolicyDocument=NARROW)
    endpoint_id = made["VpcEndpointId"]
    assert made["PolicyDocument"] == NARROW
    modify(api, endpoint_id, ResetPolicy=True)
    everything = describe(api, endpoint_id)["PolicyDocument"]
    assert json.loads(everything)["Statement"][0]["Effect"] == "Allow"
    modify(api, endpoint_id, PolicyDocument=NARROW)
    modify(api, endpoint_id, PrivateDnsEnabled=False)
    assert describe(api, endpoint_id)["PolicyDocument"] == NARROW


def test_changes_that_are_refused(api: Api) -> None:
    vpc_id = make_vpc(api)
    first, second = main_table(api, vpc_id), put_table(api, vpc_id).id
    endpoint_id = create(api, vpc_id, first)["VpcEndpointId"]

    def code(**params: Any) -> str:
        return api.refused("ModifyVpcEndpoint", **{"VpcEndpointId": endpoint_id, **params}).code

    assert code(VpcEndpointId=ABSENT) == "InvalidVpcEndpointId.NotFound"
    assert code(AddRouteTableIds=[first]) == "RouteAlreadyExists"
    assert code(RemoveRouteTableIds=[second]) == "InvalidParameter"
    assert code(AddRouteTableIds=[second], RemoveRouteTableIds=[second]) == "InvalidParameter"
    assert code(ResetPolicy=True, PolicyDocument=NARROW) == "InvalidParameterCombination"
    assert code(PolicyDocument="x") == "InvalidPolicyDocument"
    assert code(AddSubnetIds=["subnet-00000000000000000"]) == "UnsupportedOperation"


# --- delete -----------------------------------------------------------------------------------------------------------


def test_deleting_takes_the_routes_along(api: Api) -> None:
    vpc_id = make_vpc(api)
    table_id = main_table(api, vpc_id)
    endpoint_id = create(api, vpc_id, table_id)["VpcEndpointId"]
    kept = create(api, vpc_id, table_id, service=DYNAMODB)["VpcEndpointId"]
    forget_wakes(api)
    assert api.call("DeleteVpcEndpoints", VpcEndpointIds=[endpoint_id])["Unsuccessful"] == []
    assert routes(api, table_id) == {(service_list_id(DYNAMODB), kept)}
    assert woken(api) == {vpc_id}
    assert api.refused("DescribeVpcEndpoints", VpcEndpointIds=[endpoint_id]).code == "InvalidVpcEndpointId.NotFound"


def test_those_that_are_not_there_are_told(api: Api) -> None:
    made = create(api, make_vpc(api))["VpcEndpointId"]
    theirs = create(api.by(), make_vpc(api.by()))["VpcEndpointId"]
    told = api.call("DeleteVpcEndpoints", VpcEndpointIds=[ABSENT, made, theirs])["Unsuccessful"]
    assert [(each["ResourceId"], each["Error"]["Code"]) for each in told] == [
        (ABSENT, "InvalidVpcEndpoint.NotFound"),
        (theirs, "InvalidVpcEndpoint.NotFound"),
    ]
    assert [row.id for row in api.store.all(VpcEndpoint)] == [theirs]
    many = [f"vpce-{number:017x}" for number in range(26)]
    assert api.refused("DeleteVpcEndpoints", VpcEndpointIds=many).code == "InvalidParameter"
    assert api.refused("DeleteVpcEndpoints", VpcEndpointIds=["x"]).code == "InvalidVpcEndpointId.Malformed"


def test_its_vpc_stays_while_it_is_there(api: Api) -> None:
    vpc_id = make_vpc(api)
    endpoint_id = create(api, vpc_id, main_table(api, vpc_id))["VpcEndpointId"]
    error = api.refused("DeleteVpc", VpcId=vpc_id)
    assert error.code == "DependencyViolation" and endpoint_id in error.message
    api.call("DeleteVpcEndpoints", VpcEndpointIds=[endpoint_id])
    api.call("DeleteVpc", VpcId=vpc_id)


def test_a_table_that_goes_is_forgotten(api: Api) -> None:
    vpc_id = make_vpc(api)
    kept, gone = main_table(api, vpc_id), put_table(api, vpc_id)
    endpoint_id = create(api, vpc_id, kept, gone.id)["VpcEndpointId"]
    api.call("DeleteRouteTable", RouteTableId=gone.id)
    assert describe(api, endpoint_id)["RouteTableIds"] == [kept]
    modify(api, endpoint_id, RemoveRouteTableIds=[kept])


# --- describe ---------------------------------------------------------------------------------------------------------


def test_filters_and_pages(api: Api) -> None:
    one, other = make_vpc(api), make_vpc(api)
    first = create(api, one)["VpcEndpointId"]
    second = create(api, other, service=DYNAMODB)["VpcEndpointId"]
    api.call("CreateTags", Resources=[first], Tags=[{"Key": "Name", "Value": "x"}])

    def found(**values: str) -> set[str]:
        answer = api.call("DescribeVpcEndpoints", Filters=filters(**values))
        return {each["VpcEndpointId"] for each in answer["VpcEndpoints"]}

    assert found(vpc_id=one) == found(service_name="*.s3") == found(vpc_endpoint_id=first) == {first}
    assert found(tag_key="Name") == {first}
    assert found(vpc_endpoint_type="Gateway") == found(vpc_endpoint_state="available") == {first, second}
    assert found(service_region="us-east-1") == found(ip_address_type="ipv4") == {first, second}
    assert found(vpc_endpoint_type="Interface") == set()
    assert api.refused("DescribeVpcEndpoints", Filters=filters(colour="red")).code == "InvalidParameterValue"
    for _ in range(5):
        create(api, one)
    page = api.call("DescribeVpcEndpoints", MaxResults=5)
    rest = api.call("DescribeVpcEndpoints", MaxResults=5, NextToken=page["NextToken"])
    assert (len(page["VpcEndpoints"]), len(rest["VpcEndpoints"])) == (5, 2)
    assert api.by().call("DescribeVpcEndpoints")["VpcEndpoints"] == []


def test_services(api: Api) -> None:
    answer = api.call("DescribeVpcEndpointServices")
    assert answer["ServiceNames"] == [DYNAMODB, S3]
    [detail] = api.call("DescribeVpcEndpointServices", ServiceNames=[S3])["ServiceDetails"]
    assert (detail["ServiceName"], detail["Owner"], detail["AcceptanceRequired"]) == (S3, "amazon", False)
    assert detail["ServiceType"] == [{"ServiceType": "Gateway"}] and detail["VpcEndpointPolicySupported"] is True
    assert detail["BaseEndpointDnsNames"] == ["s3.us-east-1.amazonaws.com"]
    assert detail["AvailabilityZones"] == ["us-east-1a", "us-east-1b", "us-east-1c"]
    west = api.within("us-west-2").call("DescribeVpcEndpointServices")["ServiceNames"]
    assert west == ["com.amazonaws.us-west-2.dynamodb", "com.amazonaws.us-west-2.s3"]


def test_services_are_chosen(api: Api) -> None:
    def found(**params: Any) -> list[str]:
        names = api.call("DescribeVpcEndpointServices", **params)["ServiceNames"]
        assert isinstance(names, list)
        return names

    assert found(Filters=filters(service_name="*.s3")) == [S3]
    assert found(Filters=filters(service_type="Interface")) == []
    assert found(Filters=filters(service_type="Gateway")) == [DYNAMODB, S3]
    assert found(Filters=filters(owner="amazon", supported_ip_address_types="ipv4")) == [DYNAMODB, S3]
    assert found(Filters=filters(service_region="us-west-2")) == found(ServiceRegions=["us-west-2"]) == []
    assert found(Filters=filters(tag_key="x")) == []
    assert found(ServiceRegions=["us-east-1"]) == [DYNAMODB, S3]
    first = api.call("DescribeVpcEndpointServices", MaxResults=1)
    rest = api.call("DescribeVpcEndpointServices", MaxResults=1, NextToken=first["NextToken"])
    assert (first["ServiceNames"], rest["ServiceNames"]) == ([DYNAMODB], [S3])
    assert api.refused("DescribeVpcEndpointServices", ServiceNames=["x"]).code == "InvalidServiceName"

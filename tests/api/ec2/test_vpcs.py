"""The default network as it is shown: VPC, gateway, route table, ACL, DHCP options."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.vpc import AclEntry, NetworkAcl, Vpc

from .conftest import ACCOUNT, Api


def only(api: Api, action: str, member: str, **params: Any) -> dict[str, Any]:
    [shown] = api.call(action, **params)[member]
    assert isinstance(shown, dict)
    return shown


def test_default_vpc(api: Api) -> None:
    shown = only(api, "DescribeVpcs", "Vpcs")
    [vpc] = api.store.all(Vpc)
    assert shown == {
        "VpcId": vpc.id,
        "OwnerId": ACCOUNT,
        "State": "available",
        "CidrBlock": "172.31.0.0/16",
        "CidrBlockAssociationSet": [
            {
                "AssociationId": "vpc-cidr-assoc-" + vpc.id[4:],
                "CidrBlock": "172.31.0.0/16",
                "CidrBlockState": {"State": "associated"},
            }
        ],
        "Ipv6CidrBlockAssociationSet": [],
        "DhcpOptionsId": vpc.dhcp_options_id,
        "InstanceTenancy": "default",
        "IsDefault": True,
        "BlockPublicAccessStates": {"InternetGatewayBlockMode": "off"},
        "Tags": [],
    }


@pytest.mark.parametrize("name", ["isDefault", "is-default"])
def test_filter_of_the_default_vpc(api: Api, name: str) -> None:
    assert only(api, "DescribeVpcs", "Vpcs", Filters=[{"Name": name, "Values": ["true"]}])["IsDefault"] is True
    assert api.call("DescribeVpcs", Filters=[{"Name": name, "Values": ["false"]}])["Vpcs"] == []


@pytest.mark.parametrize(
    ("attribute", "member", "value"),
    [
        ("enableDnsSupport", "EnableDnsSupport", True),
        ("enableDnsHostnames", "EnableDnsHostnames", True),
        ("enableNetworkAddressUsageMetrics", "EnableNetworkAddressUsageMetrics", False),
    ],
)
def test_attributes(api: Api, attribute: str, member: str, value: bool) -> None:
    vpc_id = only(api, "DescribeVpcs", "Vpcs")["VpcId"]
    answer = api.call("DescribeVpcAttribute", VpcId=vpc_id, Attribute=attribute)
    assert answer == {"VpcId": vpc_id, member: {"Value": value}}


def test_attributes_that_are_refused(api: Api) -> None:
    vpc_id = only(api, "DescribeVpcs", "Vpcs")["VpcId"]

    def code(**params: str) -> str:
        return api.refused("DescribeVpcAttribute", **params).code

    assert code(VpcId=vpc_id, Attribute="colour") == "InvalidParameterValue"
    assert code(VpcId="vpc-1", Attribute="enableDnsSupport") == "InvalidVpcID.Malformed"
    assert code(VpcId="vpc-00000000000000000", Attribute="enableDnsSupport") == "InvalidVpcID.NotFound"
    assert (
        api.by().refused("DescribeVpcAttribute", VpcId=vpc_id, Attribute="enableDnsSupport").code.endswith("NotFound")
    )


def test_internet_gateway(api: Api) -> None:
    vpc_id = only(api, "DescribeVpcs", "Vpcs")["VpcId"]
    shown = only(
        api,
        "DescribeInternetGateways",
        "InternetGateways",
        Filters=[
            {"Name": "attachment.vpc-id", "Values": [vpc_id]},
            {"Name": "attachment.state", "Values": ["available"]},
        ],
    )
    assert shown["Attachments"] == [{"VpcId": vpc_id, "State": "available"}]
    assert shown["OwnerId"] == ACCOUNT


def test_route_table(api: Api) -> None:
    gateway_id = only(api, "DescribeInternetGateways", "InternetGateways")["InternetGatewayId"]
    shown = only(api, "DescribeRouteTables", "RouteTables", Filters=[{"Name": "association.main", "Values": ["true"]}])
    assert shown["Routes"] == [
        {
            "DestinationCidrBlock": "172.31.0.0/16",
            "GatewayId": "local",
            "Origin": "CreateRouteTable",
            "State": "active",
        },
        {
            "DestinationCidrBlock": "0.0.0.0/0",
            "GatewayId": gateway_id,
            "Origin": "CreateRoute",
            "State": "active",
        },
    ]
    [association] = shown["Associations"]
    assert association["Main"] is True and association["RouteTableId"] == shown["RouteTableId"]
    assert "SubnetId" not in association and shown["PropagatingVgws"] == []
    by_route = [{"Name": "route.gateway-id", "Values": [gateway_id]}]
    assert only(api, "DescribeRouteTables", "RouteTables", Filters=by_route)["RouteTableId"] == shown["RouteTableId"]
    by_subnet = [{"Name": "association.subnet-id", "Values": ["*"]}]
    assert api.call("DescribeRouteTables", Filters=by_subnet)["RouteTables"] == []


def test_network_acl(api: Api) -> None:
    shown = only(api, "DescribeNetworkAcls", "NetworkAcls", Filters=[{"Name": "default", "Values": ["true"]}])
    subnets = {subnet["SubnetId"] for subnet in api.call("DescribeSubnets")["Subnets"]}
    assert {association["SubnetId"] for association in shown["Associations"]} == subnets
    assert {association["NetworkAclId"] for association in shown["Associations"]} == {shown["NetworkAclId"]}
    assert [(e["RuleNumber"], e["Egress"], e["RuleAction"]) for e in shown["Entries"]] == [
        (100, False, "allow"),
        (32767, False, "deny"),
        (100, True, "allow"),
        (32767, True, "deny"),
    ]
    assert all(e["Protocol"] == "-1" and "PortRange" not in e for e in shown["Entries"])


def test_network_acl_entries_with_ports_and_icmp(api: Api) -> None:
    acl_id = only(api, "DescribeNetworkAcls", "NetworkAcls")["NetworkAclId"]
    entries = (
        AclEntry(number=1, egress=False, protocol="tcp", action="allow", cidr="0.0.0.0/0", from_port=22, to_port=23),
        AclEntry(number=2, egress=False, protocol="1", action="deny", cidr="0.0.0.0/0", from_port=8, to_port=0),
    )
    api.change(api.get(NetworkAcl, acl_id), entries=entries)
    tcp, icmp = only(api, "DescribeNetworkAcls", "NetworkAcls")["Entries"]
    assert (tcp["Protocol"], tcp["PortRange"]) == ("6", {"From": 22, "To": 23})
    assert (icmp["Protocol"], icmp["IcmpTypeCode"]) == ("1", {"Type": 8, "Code": 0})
    for name, value, found in (
        ("entry.port-range.from", "22", 1),
        ("entry.port-range.to", "22", 0),
        ("entry.icmp.type", "8", 1),
        ("entry.protocol", "6", 1),
        ("entry.rule-action", "deny", 1),
        ("entry.egress", "true", 0),
    ):
        filters = [{"Name": name, "Values": [value]}]
        assert len(api.call("DescribeNetworkAcls", Filters=filters)["NetworkAcls"]) == found, name


@pytest.mark.parametrize(
    ("region", "domain"), [("us-east-1", "ec2.internal"), ("us-west-2", "us-west-2.compute.internal")]
)
def test_dhcp_options(api: Api, region: str, domain: str) -> None:
    shown = only(api.within(region), "DescribeDhcpOptions", "DhcpOptions")
    assert shown["DhcpConfigurations"] == [
        {"Key": "domain-name", "Values": [{"Value": domain}]},
        {"Key": "domain-name-servers", "Values": [{"Value": "AmazonProvidedDNS"}]},
    ]
    for name, value in (("key", "domain-name"), ("value", domain)):
        filters = [{"Name": name, "Values": [value]}]
        assert len(api.within(region).call("DescribeDhcpOptions", Filters=filters)["DhcpOptions"]) == 1

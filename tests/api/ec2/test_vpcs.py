"""VPCs: the default network as it is shown, and VPCs made, changed and deleted."""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import Any

import pytest

from orchestrator.model import ids
from orchestrator.model.vpc import (
    AclEntry,
    DhcpOptions,
    EgressOnlyInternetGateway,
    FlowLog,
    InternetGateway,
    NatGateway,
    NetworkAcl,
    PeeringConnection,
    RouteTable,
    SecurityGroup,
    Subnet,
    Vpc,
    VpcEndpoint,
)

from .conftest import ACCOUNT, Api
from .networks import (
    default_vpc,
    filters,
    forget_wakes,
    make_group,
    make_subnet,
    make_vpc,
    put_peering,
    put_table,
    woken,
)


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


# --- made, changed, deleted -------------------------------------------------------------------------------------------


def test_a_new_vpc_has_what_every_vpc_has(api: Api) -> None:
    tags = [{"Key": "Name", "Value": "x"}]
    spec = [{"ResourceType": "vpc", "Tags": tags}]
    vpc = api.call("CreateVpc", CidrBlock="10.20.0.5/16", TagSpecifications=spec)["Vpc"]
    options = only(api, "DescribeDhcpOptions", "DhcpOptions")["DhcpOptionsId"]
    assert (vpc["CidrBlock"], vpc["IsDefault"], vpc["InstanceTenancy"]) == ("10.20.0.0/16", False, "default")
    assert (vpc["DhcpOptionsId"], vpc["Tags"], vpc["State"]) == (options, tags, "available")
    by_vpc = filters(vpc_id=vpc["VpcId"])
    table = only(api, "DescribeRouteTables", "RouteTables", Filters=by_vpc)
    assert [(r["DestinationCidrBlock"], r["GatewayId"]) for r in table["Routes"]] == [("10.20.0.0/16", "local")]
    assert [association["Main"] for association in table["Associations"]] == [True]
    acl = only(api, "DescribeNetworkAcls", "NetworkAcls", Filters=by_vpc)
    assert acl["IsDefault"] is True and len(acl["Entries"]) == 4 and acl["Associations"] == []
    group = only(api, "DescribeSecurityGroups", "SecurityGroups", Filters=by_vpc)
    assert (group["GroupName"], group["Description"]) == ("default", "default VPC security group")
    assert [pair["GroupId"] for pair in group["IpPermissions"][0]["UserIdGroupPairs"]] == [group["GroupId"]]
    for attribute, value in (("enableDnsSupport", True), ("enableDnsHostnames", False)):
        answer = api.call("DescribeVpcAttribute", VpcId=vpc["VpcId"], Attribute=attribute)
        assert answer[attribute[0].upper() + attribute[1:]] == {"Value": value}


@pytest.mark.parametrize(
    ("cidr", "code"),
    [
        ("10.0.0.0/15", "InvalidVpc.Range"),
        ("10.0.0.0/29", "InvalidVpc.Range"),
        ("127.0.0.0/16", "InvalidVpc.Range"),
        ("169.254.0.0/20", "InvalidVpc.Range"),
        ("224.0.0.0/16", "InvalidVpc.Range"),
        ("10.0.0.0", "InvalidParameterValue"),
        ("10.0.0.0/x", "InvalidParameterValue"),
        ("10.0.0/16", "InvalidParameterValue"),
        ("2001:db8::/56", "InvalidParameterValue"),
        ("", "MissingParameter"),
    ],
)
def test_ranges_that_no_vpc_has(api: Api, cidr: str, code: str) -> None:
    assert api.refused("CreateVpc", CidrBlock=cidr).code == code


def test_what_else_create_refuses(api: Api) -> None:
    def code(**params: Any) -> str:
        return api.refused("CreateVpc", **params).code

    assert code() == "MissingParameter"
    assert code(CidrBlock="10.0.0.0/16", InstanceTenancy="host") == "InvalidParameterValue"
    assert code(CidrBlock="10.0.0.0/16", Ipv6Pool="x") == "UnsupportedOperation"
    border = {"Ipv6CidrBlockNetworkBorderGroup": "us-west-2"}
    assert code(CidrBlock="10.0.0.0/16", **border) == "InvalidParameterCombination"
    assert code(CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True, **border) == "InvalidParameterValue"
    spec = [{"ResourceType": "subnet", "Tags": [{"Key": "a", "Value": "b"}]}]
    assert code(CidrBlock="10.0.0.0/16", TagSpecifications=spec) == "InvalidParameterValue"
    assert code(CidrBlock="10.0.0.0/16", DryRun=True) == "DryRunOperation"


def test_vpcs_may_overlap_but_not_their_ipv6_ranges(api: Api) -> None:
    api.configure(ipv6_range=IPv6Network("2001:db8:ec00::/54"))  # four /56, of which the host keeps the first
    callers = (api, api.by(), api.within("us-west-2"))
    made = [
        caller.call("CreateVpc", CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"] for caller in callers
    ]
    [first] = made[0]["Ipv6CidrBlockAssociationSet"]
    assert first["Ipv6CidrBlockState"] == {"State": "associated"} and first["Ipv6Pool"] == "Amazon"
    assert (first["NetworkBorderGroup"], first["IpSource"]) == ("us-east-1", "amazon")
    assert [vpc["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"] for vpc in made] == [
        "2001:db8:ec00:100::/56",
        "2001:db8:ec00:200::/56",
        "2001:db8:ec00:300::/56",
    ]
    full = api.refused("CreateVpc", CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)
    assert full.code == "InsufficientAddressCapacity"
    api.call("DeleteVpc", VpcId=made[0]["VpcId"])
    again = api.call("CreateVpc", CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    assert again["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"] == "2001:db8:ec00:100::/56"


def test_a_vpc_with_ipv6_lets_it_out_from_the_beginning(api: Api) -> None:
    vpc_id = make_vpc(api, AmazonProvidedIpv6CidrBlock=True)
    block = api.get(Vpc, vpc_id).ipv6_cidrs[0].cidr
    [table] = api.store.all(RouteTable, vpc_id=vpc_id)
    assert [(route.destination, route.target) for route in table.routes] == [
        ("10.0.0.0/16", "local"),
        (block, "local"),
    ]
    [acl] = api.store.all(NetworkAcl, vpc_id=vpc_id)
    ipv6 = [(e.number, e.egress, e.action) for e in acl.entries if e.cidr_ipv6 == "::/0"]
    assert ipv6 == [(101, False, "allow"), (32768, False, "deny"), (101, True, "allow"), (32768, True, "deny")]
    group = api.get(SecurityGroup, make_group(api, vpc_id))
    assert [rule.cidr_ipv4 or rule.cidr_ipv6 for rule in group.rules] == ["0.0.0.0/0", "::/0"]
    for name, value in (
        ("ipv6-cidr-block-association.ipv6-cidr-block", block),
        ("ipv6-cidr-block-association.ipv6-pool", "Amazon"),
        ("ipv6-cidr-block-association.state", "associated"),
    ):
        assert only(api, "DescribeVpcs", "Vpcs", Filters=[{"Name": name, "Values": [value]}])["VpcId"] == vpc_id


def test_dhcp_options_of_the_region_are_made_again_when_they_are_gone(api: Api) -> None:
    vpc_id = default_vpc(api)
    options = api.get(Vpc, vpc_id).dhcp_options_id
    api.call("AssociateDhcpOptions", DhcpOptionsId="default", VpcId=vpc_id)
    api.call("DeleteDhcpOptions", DhcpOptionsId=options)
    first, second = api.get(Vpc, make_vpc(api)), api.get(Vpc, make_vpc(api))
    assert first.dhcp_options_id == second.dhcp_options_id != options
    assert api.get(DhcpOptions, first.dhcp_options_id).options["domain-name"] == ("ec2.internal",)


def test_delete_takes_what_the_vpc_came_with(api: Api) -> None:
    default_vpc(api)
    before = {kind: len(api.store.all(kind)) for kind in (RouteTable, NetworkAcl, SecurityGroup, Vpc)}
    vpc_id = make_vpc(api)
    flow_log = {"ResourceIds": [vpc_id], "ResourceType": "VPC", "TrafficType": "ALL", "LogGroupName": "x"}
    api.call("CreateFlowLogs", **flow_log)
    forget_wakes(api)
    assert api.call("DeleteVpc", VpcId=vpc_id) == {}
    assert {kind: len(api.store.all(kind)) for kind in before} == before
    assert api.store.all(FlowLog) == []
    assert woken(api) == {vpc_id}
    assert api.refused("DeleteVpc", VpcId=vpc_id).code == "InvalidVpcID.NotFound"


def put_owned(api: Api, kind: Any, prefix: str, **fields: Any) -> str:
    row = kind(id=ids.mint(prefix), account=api.account, region=api.region, created=api.now, **fields)
    api.put(row)
    return str(row.id)


def test_a_vpc_with_something_in_it_stays(api: Api) -> None:
    vpc_id, peer_id = make_vpc(api), make_vpc(api, "10.1.0.0/16")
    gateway_id = api.call("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
    api.call("AttachInternetGateway", InternetGatewayId=gateway_id, VpcId=vpc_id)
    eigw = api.call("CreateEgressOnlyInternetGateway", VpcId=vpc_id)["EgressOnlyInternetGateway"]
    guards = {
        make_subnet(api, vpc_id): Subnet,
        gateway_id: InternetGateway,
        eigw["EgressOnlyInternetGatewayId"]: EgressOnlyInternetGateway,
        make_group(api, vpc_id): SecurityGroup,
        put_table(api, vpc_id).id: RouteTable,
        put_owned(api, NetworkAcl, "acl", vpc_id=vpc_id): NetworkAcl,
        put_owned(api, VpcEndpoint, "vpce", vpc_id=vpc_id, service="s3"): VpcEndpoint,
        put_owned(
            api, NatGateway, "nat", vpc_id=vpc_id, subnet_id="x", interface_id="y", state="available"
        ): NatGateway,
        put_peering(api, vpc_id, api, peer_id): PeeringConnection,
    }
    for row_id, kind in guards.items():
        refused = api.refused("DeleteVpc", VpcId=vpc_id)
        assert refused.code == "DependencyViolation" and row_id in refused.message
        with api.store.write() as tx:
            tx.delete(api.get(kind, row_id))
    api.call("DeleteVpc", VpcId=vpc_id)


def test_what_has_ended_does_not_keep_a_vpc(api: Api) -> None:
    vpc_id, peer_id = make_vpc(api), make_vpc(api, "10.1.0.0/16")
    put_owned(api, NatGateway, "nat", vpc_id=vpc_id, subnet_id="x", interface_id="y", state="deleted")
    asked = put_peering(api, vpc_id, api, peer_id, state="pending-acceptance")
    api.call("DeleteVpc", VpcId=vpc_id)
    assert api.get(PeeringConnection, asked).state == "deleted"


def test_attributes_are_changed_one_at_a_time(api: Api) -> None:
    vpc_id = make_vpc(api)
    forget_wakes(api)
    for member in ("EnableDnsHostnames", "EnableNetworkAddressUsageMetrics"):
        assert api.call("ModifyVpcAttribute", VpcId=vpc_id, **{member: {"Value": True}}) == {}
        answer = api.call("DescribeVpcAttribute", VpcId=vpc_id, Attribute=member[0].lower() + member[1:])
        assert answer[member] == {"Value": True}
    assert woken(api) == {vpc_id}
    api.call("ModifyVpcAttribute", VpcId=vpc_id, EnableDnsHostnames={"Value": False})
    api.call("ModifyVpcAttribute", VpcId=vpc_id, EnableDnsSupport={"Value": False})
    assert api.get(Vpc, vpc_id).enable_dns_support is False

    def code(**params: Any) -> str:
        return api.refused("ModifyVpcAttribute", **params).code

    assert code(VpcId=vpc_id) == "MissingParameter"
    assert code(VpcId=vpc_id, EnableDnsSupport={}) == "MissingParameter"
    assert code(VpcId=vpc_id, EnableDnsHostnames={"Value": True}) == "InvalidParameterValue"
    both = {"EnableDnsHostnames": {"Value": False}, "EnableDnsSupport": {"Value": True}}
    assert code(VpcId=vpc_id, **both) == "InvalidParameterCombination"
    assert code(VpcId="vpc-00000000000000000", EnableDnsSupport={"Value": True}) == "InvalidVpcID.NotFound"


def test_tenancy_changes_one_way(api: Api) -> None:
    vpc_id = make_vpc(api, InstanceTenancy="dedicated")
    assert api.get(Vpc, vpc_id).tenancy == "dedicated"
    assert api.call("ModifyVpcTenancy", VpcId=vpc_id, InstanceTenancy="default") == {"ReturnValue": True}
    assert api.get(Vpc, vpc_id).tenancy == "default"
    assert api.refused("ModifyVpcTenancy", VpcId=vpc_id, InstanceTenancy="dedicated").code == "InvalidParameterValue"

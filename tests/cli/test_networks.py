"""`orc vpc`, `eni`, `eip`, `rtb` and `trace` against a controller that answers as it is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cli.conftest import INSTANCE, FakeApi, Orc, instance

VPC = "vpc-0123456789abcdef0"
SUBNET = "subnet-0123456789abcdef0"
TABLE = "rtb-0123456789abcdef0"
ENI = "eni-0123456789abcdef0"
NAME = "<tagSet><item><key>Name</key><value>{}</value></item></tagSet>"

INTERFACE = f"""<networkInterfaceSet><item><networkInterfaceId>{ENI}</networkInterfaceId><subnetId>{SUBNET}</subnetId>
<vpcId>{VPC}</vpcId><status>in-use</status><sourceDestCheck>false</sourceDestCheck><privateIpAddress>10.0.1.4</privateIpAddress>
<groupSet><item><groupId>sg-1</groupId><groupName>web</groupName></item><item><groupId>sg-2</groupId><groupName>db</groupName></item></groupSet>
<attachment><instanceId>{INSTANCE}</instanceId><deviceIndex>0</deviceIndex></attachment>
<privateIpAddressesSet><item><privateIpAddress>10.0.1.4</privateIpAddress><primary>true</primary>
<association><publicIp>203.0.113.4</publicIp></association></item>
<item><privateIpAddress>10.0.1.9</privateIpAddress><primary>false</primary></item></privateIpAddressesSet>
<ipv4PrefixSet><item><ipv4Prefix>10.0.1.16/28</ipv4Prefix></item></ipv4PrefixSet>
<ipv6AddressesSet><item><ipv6Address>2001:db8:0:1::4</ipv6Address></item></ipv6AddressesSet>
{NAME.format("front")}</item></networkInterfaceSet>"""

TABLES = f"""<routeTableSet><item><routeTableId>{TABLE}</routeTableId><vpcId>{VPC}</vpcId>
<routeSet><item><destinationCidrBlock>10.0.0.0/16</destinationCidrBlock><gatewayId>local</gatewayId><state>active</state></item>
<item><destinationCidrBlock>0.0.0.0/0</destinationCidrBlock><natGatewayId>nat-1</natGatewayId><state>blackhole</state></item></routeSet>
<associationSet><item><main>true</main></item><item><main>false</main><subnetId>{SUBNET}</subnetId></item></associationSet></item></routeTableSet>"""


def answers(api: FakeApi) -> None:
    api.answer(
        "DescribeVpcs",
        f"<vpcSet><item><vpcId>{VPC}</vpcId><state>available</state><cidrBlock>10.0.0.0/16</cidrBlock>"
        "<cidrBlockAssociationSet><item><cidrBlock>10.0.0.0/16</cidrBlock></item><item><cidrBlock>10.7.0.0/16</cidrBlock>"
        f"</item></cidrBlockAssociationSet>{NAME.format('m&amp;[bold]n')}</item></vpcSet>",
    )
    api.answer(
        "DescribeInternetGateways",
        "<internetGatewaySet><item><internetGatewayId>igw-1</internetGatewayId></item></internetGatewaySet>",
    )
    api.answer(
        "DescribeEgressOnlyInternetGateways",
        "<egressOnlyInternetGatewaySet>"
        f"<item><egressOnlyInternetGatewayId>eigw-1</egressOnlyInternetGatewayId><attachmentSet><item><vpcId>{VPC}</vpcId></item></attachmentSet></item>"
        "<item><egressOnlyInternetGatewayId>eigw-2</egressOnlyInternetGatewayId><attachmentSet><item><vpcId>vpc-9</vpcId></item></attachmentSet></item>"
        "</egressOnlyInternetGatewaySet>",
    )
    api.answer(
        "DescribeNatGateways",
        "<natGatewaySet><item><natGatewayId>nat-1</natGatewayId><state>deleted</state><connectivityType>public</connectivityType>"
        "<natGatewayAddressSet><item><privateIp>10.0.1.30</privateIp><publicIp>203.0.113.30</publicIp></item></natGatewayAddressSet>"
        "</item></natGatewaySet>",
    )
    sides = (
        f"<requesterVpcInfo><vpcId>{VPC}</vpcId></requesterVpcInfo>"
        "<accepterVpcInfo><vpcId>vpc-2</vpcId><cidrBlock>10.1.0.0/16</cidrBlock></accepterVpcInfo>"
    )
    api.answer(
        "DescribeVpcPeeringConnections",
        "<vpcPeeringConnectionSet>"
        f"<item><vpcPeeringConnectionId>pcx-1</vpcPeeringConnectionId>{sides}<status><code>active</code></status></item>"
        f"<item><vpcPeeringConnectionId>pcx-2</vpcPeeringConnectionId>{sides}<status><code>deleted</code></status></item>"
        "</vpcPeeringConnectionSet>",
    )
    api.answer(
        "DescribeVpcEndpoints",
        "<vpcEndpointSet><item><vpcEndpointId>vpce-1</vpcEndpointId><serviceName>com.amazonaws.us-east-1.s3</serviceName>"
        "<state>available</state></item></vpcEndpointSet>",
    )
    api.answer("DescribeRouteTables", TABLES)
    api.answer(
        "DescribeNetworkAcls",
        f"<networkAclSet><item><networkAclId>acl-1</networkAclId><associationSet><item><subnetId>{SUBNET}</subnetId></item>"
        "</associationSet></item></networkAclSet>",
    )
    api.answer(
        "DescribeSubnets",
        f"<subnetSet><item><subnetId>{SUBNET}</subnetId><cidrBlock>10.0.1.0/24</cidrBlock><availabilityZone>us-east-1a</availabilityZone>"
        f"<availableIpAddressCount>248</availableIpAddressCount>{NAME.format('front')}</item></subnetSet>",
    )
    api.answer("DescribeNetworkInterfaces", INTERFACE)
    api.instances(instance(name="web"))


DRAWN = f"""\
{VPC} (m&[bold]n) available
├── ranges 10.0.0.0/16 10.7.0.0/16
├── internet gateway igw-1
├── egress-only gateway eigw-1
├── peering pcx-1 active with vpc-2 10.1.0.0/16
├── endpoint vpce-1 available com.amazonaws.us-east-1.s3
├── NAT gateway nat-1 deleted 10.0.1.30=203.0.113.30
├── route table {TABLE} main
│   ├── 10.0.0.0/16 -> local
│   └── 0.0.0.0/0 -> nat-1 blackhole
└── subnet {SUBNET} (front) 10.0.1.0/24 us-east-1a
    ├── table {TABLE}, ACL acl-1, 248 free
    └── {ENI} 10.0.1.4=203.0.113.4 web {INSTANCE} running
        ├── also 10.0.1.9, 10.0.1.16/28, 2001:db8:0:1::4
        └── groups web, db no source/dest check
"""


def test_a_vpc_is_drawn_as_a_tree(orc: Orc, api: FakeApi) -> None:
    answers(api)
    shown = orc("vpc", "show", VPC)
    assert shown.exit_code == 0
    assert [line.rstrip() for line in shown.stdout.splitlines()] == DRAWN.splitlines()
    assert max(len(line) for line in shown.stdout.splitlines()) <= 100
    (form,) = api.forms("DescribeNatGateways")
    assert (form["Filter.1.Name"], form["Filter.1.Value.1"]) == ("vpc-id", VPC)


def test_a_tree_for_programs_is_ec2s_own_documents(orc: Orc, api: FakeApi) -> None:
    answers(api)
    found = json.loads(orc("vpc", "show", VPC, "-o", "json").stdout)
    assert found["Vpc"]["VpcId"] == VPC
    assert found["RouteTables"][0]["Routes"][1]["State"] == "blackhole"
    assert [one["VpcPeeringConnectionId"] for one in found["VpcPeeringConnections"]] == ["pcx-1"]


@pytest.mark.parametrize(
    ("reference", "asked"),
    [(VPC, ("VpcId.1", VPC)), ("main", ("Filter.1.Name", "tag:Name")), ("default", ("Filter.1.Name", "is-default"))],
)
def test_a_vpc_by_what_people_call_it(orc: Orc, api: FakeApi, reference: str, asked: tuple[str, str]) -> None:
    answers(api)
    api.answer("DescribeNetworkPlan", {"VpcId": VPC, "Plan": "table inet orc {\n}\n"})
    shown = orc("vpc", "plan", reference)
    assert shown.stdout == "table inet orc {\n}\n"
    assert api.forms("DescribeVpcs")[0][asked[0]] == asked[1]
    assert api.documents("DescribeNetworkPlan") == [{"VpcId": VPC}]


def test_a_vpc_that_is_not_there_or_is_several(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeVpcs", "<vpcSet/>")
    assert orc("vpc", "show", "main").exit_code == 3
    api.answer("DescribeVpcs", "<vpcSet><item><vpcId>vpc-1</vpcId></item><item><vpcId>vpc-2</vpcId></item></vpcSet>")
    shown = orc("vpc", "show", "main")
    assert shown.exit_code == 2 and "vpc-1, vpc-2" in shown.stderr


def test_a_vpc_without_a_plan(orc: Orc, api: FakeApi) -> None:
    answers(api)
    api.answer("DescribeNetworkPlan", {"VpcId": VPC, "Plan": ""})
    shown = orc("vpc", "plan", VPC)
    assert (shown.exit_code, shown.stdout) == (0, "") and "no instance runs in it" in shown.stderr


def test_listings(orc: Orc, api: FakeApi) -> None:
    answers(api)
    api.answer(
        "DescribeAddresses",
        "<addressesSet><item><publicIp>203.0.113.4</publicIp><allocationId>eipalloc-1</allocationId>"
        f"<networkInterfaceId>{ENI}</networkInterfaceId><privateIpAddress>10.0.1.4</privateIpAddress></item></addressesSet>",
    )
    assert orc("eni", "ls").stdout.splitlines()[1].split() == [
        *("front", ENI, "in-use", "10.0.1.4,10.0.1.9,10.0.1.16/28", "203.0.113.4", INSTANCE)
    ]
    assert orc("eip", "ls").stdout.splitlines()[1].split() == ["-", "203.0.113.4", "eipalloc-1", "-", ENI, "10.0.1.4"]
    assert orc("rtb", "ls").stdout.splitlines()[1].split() == ["-", TABLE, VPC, "yes", SUBNET]
    assert "10.0.0.0/16->local,0.0.0.0/0->blackhole" in orc("rtb", "ls", "-o", "wide").stdout
    orc("eni", "ls", "--filter", f"vpc-id={VPC}")
    assert api.forms("DescribeNetworkInterfaces")[-1]["Filter.1.Value.1"] == VPC


def test_sg_is_group(orc: Orc, api: FakeApi) -> None:
    api.answer(
        "DescribeSecurityGroups",
        "<securityGroupInfo><item><groupId>sg-0123456789abcdef0</groupId><groupName>web</groupName></item></securityGroupInfo>",
    )
    assert orc("sg", "ls").stdout == orc("group", "ls").stdout != ""
    assert orc("sg", "show", "sg-0123456789abcdef0").exit_code == 0


# --- trace ---


def step(where: str, decision: str, detail: str, **more: Any) -> dict[str, Any]:
    return {"Where": where, "Decision": decision, "Detail": detail, "Passed": True, "Answer": False, **more}


STEPS = [
    step(ENI, "source", "sends tcp 10.0.1.4:49152 -> 10.0.2.5:80"),
    step("acl-1", "network ACL", "out of a: entry 100 allows it"),
    step("eni-2", "arrival", "arrives"),
    step("eni-2", "answer", "answers", Answer=True),
    step("acl-1", "network ACL", "into a: no entry is for it (entry *)", Passed=False, Answer=True),
]


def test_a_trace_tells_each_decision_and_what_ended_it(orc: Orc, api: FakeApi) -> None:
    api.answer("TracePacket", {"Passed": False, "Steps": STEPS})
    shown = orc("trace", "web", "db", "80")
    assert shown.exit_code == 1
    assert shown.stdout.splitlines() == [
        f"  {ENI}  source              sends tcp 10.0.1.4:49152 -> 10.0.2.5:80",
        "  acl-1                  network ACL         out of a: entry 100 allows it",
        "  eni-2                  arrival             arrives",
        "and back",
        "  eni-2                  answer              answers",
        "  acl-1                  network ACL         into a: no entry is for it (entry *)",
        "the answer does not come back: acl-1, network ACL",
    ]
    assert api.documents("TracePacket") == [{"Source": "web", "Destination": "db", "Port": 80}]


def test_a_trace_that_passes(orc: Orc, api: FakeApi) -> None:
    api.answer("TracePacket", {"Passed": True, "Steps": STEPS[:4]})
    shown = orc("trace", "web", "8.8.8.8")
    assert (shown.exit_code, shown.stdout.splitlines()[-1]) == (0, "passes")
    assert api.documents("TracePacket") == [{"Source": "web", "Destination": "8.8.8.8"}]
    assert json.loads(orc("trace", "web", "8.8.8.8", "-o", "json").stdout)["Passed"] is True


@pytest.mark.parametrize(
    ("agrees", "words"), [({"HostAgrees": True}, "does the same"), ({"HostAgrees": False}, "something else"), ({}, "")]
)
def test_a_live_trace_is_compared(orc: Orc, api: FakeApi, agrees: dict[str, bool], words: str) -> None:
    answer = {"Passed": True, "Steps": STEPS[:4], "Live": ["on_forward: verdict accept"], **agrees}
    api.answer("TracePacket", answer)
    shown = orc("trace", "web", "db", "53", "--protocol", "udp", "--live")
    assert "  on_forward: verdict accept" in shown.stdout and words in shown.stdout.splitlines()[-1]
    assert api.documents("TracePacket") == [
        {"Source": "web", "Destination": "db", "Protocol": "udp", "Port": 53, "Live": True}
    ]


def test_a_long_detail_is_folded(orc: Orc, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    api.answer("TracePacket", {"Passed": False, "Steps": [step(ENI, "route", "word " * 40, Passed=False)]})
    assert max(len(line) for line in orc("trace", "web", "db").stdout.splitlines()) <= 100


@pytest.mark.parametrize("words", [("web", "db", "70000"), ("web", "db", "--protocol", "tcp"), ("web",)])
def test_a_trace_of_nothing(orc: Orc, api: FakeApi, words: tuple[str, ...]) -> None:
    assert orc("trace", *words).exit_code == 2
    assert api.seen == []

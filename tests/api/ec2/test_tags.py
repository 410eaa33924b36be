"""CreateTags, DeleteTags, DescribeTags over all kinds of resources."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.model import StringShape

from orchestrator.api.ec2.tags import RULE_TYPE, TAGGABLE
from orchestrator.api.protocol import load_service
from orchestrator.model import ids
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.image import ExportTask, ImportTask
from orchestrator.model.instance import Instance
from orchestrator.model.resource import Resource
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import (
    EgressOnlyInternetGateway,
    FlowLog,
    NatGateway,
    NetworkInterface,
    PeeringConnection,
    PeeringSide,
    PrefixList,
    SecurityGroup,
    Subnet,
    Vpc,
    VpcEndpoint,
)

from .conftest import OTHER_ACCOUNT, Api


def tags(**values: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in values.items()]


def default_vpc(api: Api) -> Vpc:
    vpc_id = api.call("DescribeVpcs")["Vpcs"][0]["VpcId"]
    return api.get(Vpc, vpc_id)


def described(api: Api, **params: Any) -> list[tuple[str, str, str, str]]:
    answer = api.call("DescribeTags", **params)
    return [(tag["ResourceId"], tag["ResourceType"], tag["Key"], tag["Value"]) for tag in answer["Tags"]]


def volume(api: Api, **fields: Any) -> Volume:
    row = Volume(
        id="vol-00000000000000001",
        account=api.account,
        region=api.region,
        created=api.now,
        zone="us-east-1a",
        size_gib=1,
        layer_id="layer-0",
        **fields,
    )
    api.put(row)
    return api.get(Volume, row.id)


def test_tags_are_added_and_overwritten(api: Api) -> None:
    vpc = default_vpc(api)
    assert api.call("CreateTags", Resources=[vpc.id], Tags=tags(Name="one", Owner="me")) == {}
    api.call("CreateTags", Resources=[vpc.id], Tags=[{"Key": "Name", "Value": "two"}, {"Key": "Empty"}])
    assert api.get(Vpc, vpc.id).tags == {"Name": "two", "Owner": "me", "Empty": ""}
    assert api.call("DescribeVpcs")["Vpcs"][0]["Tags"] == tags(Name="two", Owner="me", Empty="")


def test_a_change_is_a_new_revision_and_no_change_is_none(api: Api) -> None:
    vpc = default_vpc(api)
    api.call("CreateTags", Resources=[vpc.id], Tags=tags(Name="x"))
    changed = api.get(Vpc, vpc.id)
    assert changed.revision > vpc.revision
    api.call("CreateTags", Resources=[vpc.id], Tags=tags(Name="x"))
    assert api.get(Vpc, vpc.id) is changed


def peering(api: Api, accepter: str, region: str = "us-east-1") -> PeeringConnection:
    return PeeringConnection(
        id=ids.mint("pcx"),
        account=api.account,
        region=api.region,
        created=api.now,
        requester=PeeringSide(account=api.account, region=api.region, vpc_id="vpc-00000000000000001"),
        accepter=PeeringSide(account=accepter, region=region, vpc_id="vpc-00000000000000002"),
    )


def one_of_each(api: Api) -> dict[str, str]:
    """Resource type -> id of one that is there."""
    [vpc], subnet, group = api.store.all(Vpc), api.store.all(Subnet)[0], api.store.all(SecurityGroup)[0]
    owned: dict[str, Any] = {"account": api.account, "region": api.region, "created": api.now}
    placed: dict[str, Any] = {"zone": subnet.zone, "vpc_id": vpc.id, "subnet_id": subnet.id}
    image = api.make_image("mine", region="us-east-1")
    made: list[Resource] = [
        Instance(
            id=ids.mint("i"),
            reservation_id=ids.mint("r"),
            image_id=image.id,
            instance_type="t3.micro",
            **placed,
            **owned,
        ),
        NetworkInterface(id=ids.mint("eni"), mac="02:00:00:00:00:01", private_ip="172.31.0.4", **placed, **owned),
        volume(api),
        ElasticIp(id=ids.mint("eipalloc"), public_ip="203.0.113.9", **owned),
        EgressOnlyInternetGateway(id=ids.mint("eigw"), vpc_id=vpc.id, **owned),
        NatGateway(id=ids.mint("nat"), vpc_id=vpc.id, subnet_id=subnet.id, interface_id="eni-0", **owned),
        peering(api, OTHER_ACCOUNT),
        PrefixList(id=ids.mint("pl"), name="mine", family="IPv4", max_entries=1, **owned),
        VpcEndpoint(id=ids.mint("vpce"), vpc_id=vpc.id, service="com.amazonaws.us-east-1.s3", **owned),
        FlowLog(id=ids.mint("fl"), resource_id=vpc.id, traffic="ALL", **owned),
        ImportTask(id=ids.mint("import-ami"), what="image", file_format="raw", layer_id="layer-0", **owned),
        ImportTask(id=ids.mint("import-snap"), what="snapshot", file_format="raw", layer_id="layer-0", **owned),
        ExportTask(id=ids.mint("export-ami"), image_id=image.id, layer_id="layer-0", file_format="raw", **owned),
    ]
    api.put(*made)
    api.make_key_pair()
    found = {}
    for prefix, entry in TAGGABLE.items():
        rows = api.store.all(entry.kind, account=api.account)
        found[entry.resource_type] = next(row.id for row in rows if row.id.startswith(prefix + "-"))
    return {**found, RULE_TYPE: group.rules[0].id}


def test_every_kind_can_be_tagged(api: Api) -> None:
    default_vpc(api)
    resources = one_of_each(api)
    assert set(resources) == {
        *("instance", "image", "volume", "snapshot", "key-pair", "vpc", "subnet", "security-group"),
        *("security-group-rule", "network-interface", "internet-gateway", "route-table", "network-acl", "dhcp-options"),
        *("elastic-ip", "egress-only-internet-gateway", "natgateway", "vpc-peering-connection", "prefix-list"),
        *("vpc-endpoint", "vpc-flow-log", "import-image-task", "import-snapshot-task", "export-image-task"),
    }
    api.call("CreateTags", Resources=list(resources.values()), Tags=tags(Name="x"))
    assert {(kind, row) for row, kind, _, _ in described(api)} == set(resources.items())
    for kind, row in resources.items():
        assert described(api, Filters=[{"Name": "resource-type", "Values": [kind]}]) == [(row, kind, "Name", "x")]
    api.call("DeleteTags", Resources=list(resources.values()))
    assert described(api) == []


def test_each_side_of_a_peering_has_tags_of_its_own(api: Api) -> None:
    row = peering(api, OTHER_ACCOUNT, "us-west-2")
    api.put(row)
    other = api.by().within("us-west-2")
    api.call("CreateTags", Resources=[row.id], Tags=tags(Side="Requester"))
    other.call("CreateTags", Resources=[row.id], Tags=tags(Side="Accepter"))
    assert described(api) == [(row.id, "vpc-peering-connection", "Side", "Requester")]
    assert described(other) == [(row.id, "vpc-peering-connection", "Side", "Accepter")]
    third = api.by("777788889999")
    assert third.refused("CreateTags", Resources=[row.id], Tags=tags(a="b")).code.endswith(".NotFound")
    assert api.by().refused("DeleteTags", Resources=[row.id]).code == "InvalidVpcPeeringConnectionID.NotFound"
    other.call("DeleteTags", Resources=[row.id])
    assert described(other) == [] and len(described(api)) == 1


def test_resource_types_are_those_of_the_model() -> None:
    known = load_service("ec2").shape_for("ResourceType")
    assert isinstance(known, StringShape)
    assert {entry.resource_type for entry in TAGGABLE.values()} | {RULE_TYPE} <= set(known.enum)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([{"Key": "k" * 129}], "InvalidParameterValue"),
        ([{"Key": "k", "Value": "v" * 257}], "InvalidParameterValue"),
        ([{"Key": "aws:k"}], "InvalidParameterValue"),
        ([{"Key": "AWS:k"}], "InvalidParameterValue"),
        ([{"Key": ""}], "MissingParameter"),
        ([{"Value": "v"}], "MissingParameter"),
        ([{"Key": "k"}, {"Key": "k"}], "InvalidParameterValue"),
        ([{"Key": str(number)} for number in range(51)], "TagLimitExceeded"),
    ],
)
def test_tags_that_are_refused(api: Api, given: list[dict[str, str]], code: str) -> None:
    vpc = default_vpc(api)
    assert api.refused("CreateTags", Resources=[vpc.id], Tags=given).code == code


def test_the_limits_themselves(api: Api) -> None:
    vpc = default_vpc(api)
    api.call("CreateTags", Resources=[vpc.id], Tags=[{"Key": "k" * 128, "Value": "v" * 256}])
    api.call("CreateTags", Resources=[vpc.id], Tags=[{"Key": str(number)} for number in range(49)])
    error = api.refused("CreateTags", Resources=[vpc.id], Tags=tags(more="x"))
    assert error.code == "TagLimitExceeded"
    api.call("CreateTags", Resources=[vpc.id], Tags=[{"Key": "0", "Value": "overwritten"}])
    assert len(api.get(Vpc, vpc.id).tags) == 50


def test_a_call_with_several_ids_fails_whole(api: Api) -> None:
    vpc = default_vpc(api)
    subnet = api.store.all(Subnet)[0]
    absent = "i-00000000000000000"
    for wrong, code in (
        ([vpc.id, absent], "InvalidInstanceID.NotFound"),
        ([vpc.id, "i-xyz"], "InvalidInstanceID.Malformed"),
        ([absent, "i-xyz"], "InvalidInstanceID.Malformed"),
        ([vpc.id, "house-1"], "InvalidID"),
        ([vpc.id, ""], "InvalidID"),
        ([subnet.id, "sgr-00000000000000000"], "InvalidSecurityGroupRuleId.NotFound"),
        ([vpc.id, "eni-attach-00000000000000000"], "InvalidID"),
    ):
        assert api.refused("CreateTags", Resources=wrong, Tags=tags(a="b")).code == code
        assert api.refused("DeleteTags", Resources=wrong).code == code


def test_other_accounts_and_regions_are_not_there(api: Api) -> None:
    vpc = default_vpc(api)
    api.call("CreateTags", Resources=[vpc.id], Tags=tags(Name="x"))
    for elsewhere in (api.by(), api.within("us-west-2")):
        elsewhere.call("DescribeVpcs")
        assert elsewhere.refused("CreateTags", Resources=[vpc.id], Tags=tags(a="b")).code == "InvalidVpcID.NotFound"
        assert elsewhere.refused("DeleteTags", Resources=[vpc.id]).code == "InvalidVpcID.NotFound"
        assert described(elsewhere) == []
    assert api.get(Vpc, vpc.id).tags == {"Name": "x"}


def test_delete_by_key_by_value_and_all(api: Api) -> None:
    vpc = default_vpc(api)
    api.call("CreateTags", Resources=[vpc.id], Tags=tags(a="1", b="2", c="", d="4"))
    gone = [{"Key": "a"}, {"Key": "b", "Value": "other"}, {"Key": "c", "Value": ""}, {"Key": "absent"}]
    assert api.call("DeleteTags", Resources=[vpc.id], Tags=gone) == {}
    assert api.get(Vpc, vpc.id).tags == {"b": "2", "d": "4"}
    api.call("DeleteTags", Resources=[vpc.id], Tags=[{"Key": "b", "Value": ""}])
    assert api.get(Vpc, vpc.id).tags == {"b": "2", "d": "4"}
    assert api.refused("DeleteTags", Resources=[vpc.id], Tags=[{"Key": "aws:x"}]).code == "InvalidParameterValue"
    assert api.refused("DeleteTags", Resources=[vpc.id], Tags=[{"Value": "2"}]).code == "MissingParameter"
    api.call("DeleteTags", Resources=[vpc.id])
    assert api.get(Vpc, vpc.id).tags == {}


def test_deleting_all_leaves_what_amazon_reserves(api: Api) -> None:
    row = volume(api, tags={"aws:made-by": "x", "mine": "y"})
    api.call("DeleteTags", Resources=[row.id])
    assert api.get(Volume, row.id).tags == {"aws:made-by": "x"}


def test_dry_run(api: Api) -> None:
    vpc = default_vpc(api)
    assert api.refused("CreateTags", Resources=[vpc.id], Tags=tags(a="b"), DryRun=True).code == "DryRunOperation"
    assert api.refused("DeleteTags", Resources=[vpc.id], DryRun=True).code == "DryRunOperation"


def test_describe_by_filters(api: Api) -> None:
    vpc = default_vpc(api)
    subnet = api.store.all(Subnet)[0]
    api.call("CreateTags", Resources=[vpc.id, subnet.id], Tags=tags(Name="web-1", Owner="me"))
    api.call("CreateTags", Resources=[subnet.id], Tags=tags(Name="db*1"))

    def found(name: str, *values: str) -> set[tuple[str, str]]:
        return {(row, key) for row, _, key, _ in described(api, Filters=[{"Name": name, "Values": list(values)}])}

    assert found("key", "Name") == {(vpc.id, "Name"), (subnet.id, "Name")}
    assert found("resource-id", vpc.id) == {(vpc.id, "Name"), (vpc.id, "Owner")}
    assert found("resource-type", "subnet", "instance") == {(subnet.id, "Name"), (subnet.id, "Owner")}
    assert found("value", "web-?", "nothing") == {(vpc.id, "Name")}
    assert found("value", "db\\*1") == {(subnet.id, "Name")}
    assert found("value", "web\\*1") == set()
    assert found("tag:Name", "*") == {(vpc.id, "Name"), (subnet.id, "Name")}
    error = api.refused("DescribeTags", Filters=[{"Name": "colour", "Values": ["x"]}])
    assert error.code == "InvalidParameterValue"


def test_pages(api: Api) -> None:
    vpc = default_vpc(api)
    api.call("CreateTags", Resources=[vpc.id], Tags=[{"Key": f"k{number}"} for number in range(12)])
    first = api.call("DescribeTags", MaxResults=5)
    second = api.call("DescribeTags", MaxResults=5, NextToken=first["NextToken"])
    third = api.call("DescribeTags", MaxResults=5, NextToken=second["NextToken"])
    assert [len(answer["Tags"]) for answer in (first, second, third)] == [5, 5, 2]
    assert "NextToken" not in third
    assert len({tag["Key"] for answer in (first, second, third) for tag in answer["Tags"]}) == 12
    assert api.refused("DescribeTags", MaxResults=4).code == "InvalidParameterValue"
    assert api.refused("DescribeTags", NextToken="x").code == "InvalidNextToken"

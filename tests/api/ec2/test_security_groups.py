"""Security groups: made, listed, deleted."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model import ids
from orchestrator.model.vpc import NetworkInterface, SecurityGroup, Vpc

from .conftest import ACCOUNT, Api


def default_vpc(api: Api) -> str:
    vpc_id = api.call("DescribeVpcs")["Vpcs"][0]["VpcId"]
    assert isinstance(vpc_id, str)
    return vpc_id


def other_vpc(api: Api) -> str:
    vpc = Vpc(id=ids.mint("vpc"), account=api.account, region=api.region, created=api.now, cidr="10.0.0.0/16")
    api.put(vpc)
    return vpc.id


def make(api: Api, name: str = "web", **params: Any) -> str:
    group_id = api.call("CreateSecurityGroup", GroupName=name, Description="a group", **params)["GroupId"]
    assert isinstance(group_id, str)
    return group_id


def default_group(api: Api) -> SecurityGroup:
    [shown] = api.call("DescribeSecurityGroups", GroupNames=["default"])["SecurityGroups"]
    return api.get(SecurityGroup, shown["GroupId"])


def ids_of(api: Api, **params: Any) -> set[str]:
    return {group["GroupId"] for group in api.call("DescribeSecurityGroups", **params)["SecurityGroups"]}


def woken(api: Api) -> list[str]:
    return [row for kind, row, _ in api.store.pending_wakes() if kind == Vpc.KIND]


# --- create -----------------------------------------------------------------------------------------------------------


def test_a_new_group_lets_all_out_and_nothing_in(api: Api) -> None:
    vpc_id = default_vpc(api)
    tags = [{"Key": "Name", "Value": "x"}]
    answer = api.call(
        "CreateSecurityGroup",
        GroupName=" web ",
        Description="a group",
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
    )
    arn = f"arn:aws:ec2:us-east-1:{ACCOUNT}:security-group/{answer['GroupId']}"
    assert answer == {"GroupId": answer["GroupId"], "SecurityGroupArn": arn, "Tags": tags}
    assert api.call("DescribeSecurityGroups", GroupIds=[answer["GroupId"]])["SecurityGroups"] == [
        {
            "GroupId": answer["GroupId"],
            "GroupName": "web",
            "Description": "a group",
            "OwnerId": ACCOUNT,
            "VpcId": vpc_id,
            "SecurityGroupArn": arn,
            "IpPermissions": [],
            "IpPermissionsEgress": [
                {
                    "IpProtocol": "-1",
                    "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
                    "Ipv6Ranges": [],
                    "PrefixListIds": [],
                    "UserIdGroupPairs": [],
                }
            ],
            "Tags": tags,
        }
    ]


def test_names_are_unique_in_a_vpc(api: Api) -> None:
    make(api, "web")
    refused = api.refused("CreateSecurityGroup", GroupName="web", Description="d")
    assert refused.code == "InvalidGroup.Duplicate"
    assert make(api, "web", VpcId=other_vpc(api))
    assert make(api.by(), "web") and make(api.within("us-west-2"), "web")


@pytest.mark.parametrize(
    ("name", "description", "code"),
    [
        ("default", "d", "InvalidParameterValue"),
        ("sg-web", "d", "InvalidParameterValue"),
        ("SG-web", "d", "InvalidParameterValue"),
        ("n" * 256, "d", "InvalidParameterValue"),
        ("näme", "d", "InvalidParameterValue"),
        ("name", "d" * 256, "InvalidParameterValue"),
        ("name", "d?", "InvalidParameterValue"),
        ("name", "d\n", "InvalidParameterValue"),
        ("  ", "d", "MissingParameter"),
        ("name", "", "MissingParameter"),
    ],
)
def test_names_that_are_refused(api: Api, name: str, description: str, code: str) -> None:
    assert api.refused("CreateSecurityGroup", GroupName=name, Description=description).code == code


def test_longest_and_oddest_names(api: Api) -> None:
    assert make(api, "n" * 255)
    assert make(api, "a B0._-:/()#,@[]+=&;{}!$*")


def test_create_in_a_vpc_that_is_not_there(api: Api) -> None:
    def code(caller: Api, vpc_id: str) -> str:
        return caller.refused("CreateSecurityGroup", GroupName="web", Description="d", VpcId=vpc_id).code

    assert code(api, "vpc-1") == "InvalidVpcID.Malformed"
    assert code(api, "vpc-00000000000000000") == "InvalidVpcID.NotFound"
    assert code(api.by(), default_vpc(api)) == "InvalidVpcID.NotFound"


def test_create_without_a_default_vpc(api: Api) -> None:
    api.change(api.get(Vpc, default_vpc(api)), is_default=False)
    assert api.refused("CreateSecurityGroup", GroupName="web", Description="d").code == "VPCIdNotSpecified"


def test_limit(api: Api) -> None:
    api.configure(quotas={"security-groups": 2})
    make(api)
    refused = api.refused("CreateSecurityGroup", GroupName="more", Description="d")
    assert refused.code == "SecurityGroupLimitExceeded"


def test_dry_run(api: Api) -> None:
    refused = api.refused("CreateSecurityGroup", GroupName="web", Description="d", DryRun=True)
    assert (refused.code, refused.http_status) == ("DryRunOperation", 412)
    assert len(ids_of(api)) == 1


# --- delete -----------------------------------------------------------------------------------------------------------


def test_delete_by_id_and_by_name(api: Api) -> None:
    first, second = make(api, "first"), make(api, "second")
    assert api.call("DeleteSecurityGroup", GroupId=first) == {"Return": True, "GroupId": first}
    assert api.call("DeleteSecurityGroup", GroupName="second") == {"Return": True, "GroupId": second}
    assert api.refused("DeleteSecurityGroup", GroupId=first).code == "InvalidGroup.NotFound"
    assert api.refused("DeleteSecurityGroup", GroupName="second").code == "InvalidGroup.NotFound"
    assert api.refused("DeleteSecurityGroup", GroupId="sg-").code == "InvalidGroupId.Malformed"
    assert api.refused("DeleteSecurityGroup").code == "MissingParameter"
    assert woken(api) == [default_vpc(api)]


def test_default_groups_stay(api: Api) -> None:
    assert api.refused("DeleteSecurityGroup", GroupId=default_group(api).id).code == "CannotDelete"
    assert api.refused("DeleteSecurityGroup", GroupName="default").code == "CannotDelete"


def test_a_group_that_an_interface_uses_stays(api: Api) -> None:
    group_id = make(api)
    interface = NetworkInterface(
        id=ids.mint("eni"),
        account=api.account,
        region=api.region,
        created=api.now,
        vpc_id=default_vpc(api),
        subnet_id="subnet-0",
        zone="us-east-1a",
        mac="02:00:00:00:00:01",
        private_ip="172.31.0.4",
        groups=(group_id,),
    )
    api.put(interface)
    assert api.refused("DeleteSecurityGroup", GroupId=group_id).code == "DependencyViolation"
    api.change(interface, groups=())
    api.call("DeleteSecurityGroup", GroupId=group_id)


def test_a_group_that_another_names_stays_and_one_that_names_itself_goes(api: Api) -> None:
    named, naming = make(api, "named"), make(api, "naming")
    for group_id in (named, naming):
        permission = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": named}]}
        api.call("AuthorizeSecurityGroupIngress", GroupId=group_id, IpPermissions=[permission])
    assert api.refused("DeleteSecurityGroup", GroupId=named).code == "DependencyViolation"
    api.call("DeleteSecurityGroup", GroupId=naming)
    api.call("DeleteSecurityGroup", GroupId=named)


def test_groups_of_others_are_not_there(api: Api) -> None:
    group_id = make(api)
    for elsewhere in (api.by(), api.within("us-west-2")):
        assert elsewhere.refused("DeleteSecurityGroup", GroupId=group_id).code == "InvalidGroup.NotFound"
        assert elsewhere.refused("DeleteSecurityGroup", GroupName="web").code == "InvalidGroup.NotFound"


# --- lists ------------------------------------------------------------------------------------------------------------


def test_the_default_group_lets_itself_in(api: Api) -> None:
    group = default_group(api)
    [shown] = api.call("DescribeSecurityGroups")["SecurityGroups"]
    assert shown["GroupName"] == "default" and shown["Description"] == "default VPC security group"
    [inbound] = shown["IpPermissions"]
    assert inbound["UserIdGroupPairs"] == [{"UserId": ACCOUNT, "GroupId": group.id}]
    assert "FromPort" not in inbound


def test_by_names_and_ids(api: Api) -> None:
    web, db, elsewhere = make(api, "web"), make(api, "db"), make(api, "web", VpcId=other_vpc(api))
    assert ids_of(api, GroupNames=["web"]) == {web}
    assert ids_of(api, GroupNames=["web"], GroupIds=[db]) == {web, db}
    assert ids_of(api, GroupNames=["web"], GroupIds=[web, elsewhere]) == {web, elsewhere}
    refused = api.refused("DescribeSecurityGroups", GroupNames=["web", "gone"])
    assert refused.code == "InvalidGroup.NotFound" and "gone" in refused.message
    assert ids_of(api, Filters=[{"Name": "group-name", "Values": ["web"]}]) == {web, elsewhere}


def test_permissions_are_grouped_by_protocol_and_ports(api: Api) -> None:
    group_id = make(api)
    ranges = [{"CidrIp": "10.0.0.0/8", "Description": "inside"}, {"CidrIp": "192.0.2.1/32"}]
    for permission in (
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": ranges},
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
        {"IpProtocol": "udp", "FromPort": 53, "ToPort": 53, "UserIdGroupPairs": [{"GroupId": group_id}]},
    ):
        api.call("AuthorizeSecurityGroupIngress", GroupId=group_id, IpPermissions=[permission])
    [shown] = api.call("DescribeSecurityGroups", GroupIds=[group_id])["SecurityGroups"]
    assert shown["IpPermissions"] == [
        {
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 22,
            "IpRanges": ranges,
            "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
            "PrefixListIds": [],
            "UserIdGroupPairs": [],
        },
        {
            "IpProtocol": "udp",
            "FromPort": 53,
            "ToPort": 53,
            "IpRanges": [],
            "Ipv6Ranges": [],
            "PrefixListIds": [],
            "UserIdGroupPairs": [{"UserId": ACCOUNT, "GroupId": group_id}],
        },
    ]


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("ip-permission.cidr", "10.0.0.0/8", True),
        ("ip-permission.cidr", "0.0.0.0/0", False),
        ("egress.ip-permission.cidr", "0.0.0.0/0", True),
        ("ip-permission.from-port", "22", True),
        ("ip-permission.to-port", "22", False),
        ("ip-permission.to-port", "23", True),
        ("egress.ip-permission.from-port", "*", False),
        ("ip-permission.protocol", "tcp", True),
        ("egress.ip-permission.protocol", "-1", True),
        ("ip-permission.group-name", "web", True),
        ("ip-permission.user-id", ACCOUNT, True),
        ("egress.ip-permission.user-id", ACCOUNT, False),
        ("ip-permission.ipv6-cidr", "2001:db8::/32", True),
        ("ip-permission.prefix-list-id", "*", False),
        ("description", "a group", True),
        ("owner-id", ACCOUNT, True),
    ],
)
def test_filters(api: Api, name: str, value: str, found: bool) -> None:
    group_id = make(api)
    permission = {
        "IpProtocol": "tcp",
        "FromPort": 22,
        "ToPort": 23,
        "IpRanges": [{"CidrIp": "10.0.0.0/8"}],
        "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}],
        "UserIdGroupPairs": [{"GroupId": group_id}],
    }
    api.call("AuthorizeSecurityGroupIngress", GroupId=group_id, IpPermissions=[permission])
    filters = [{"Name": name, "Values": [value]}, {"Name": "group-id", "Values": [group_id]}]
    assert ids_of(api, Filters=filters) == ({group_id} if found else set())

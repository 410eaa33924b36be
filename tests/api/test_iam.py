"""IAM as boto3 sees it, and whether what it says is what happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.model.account import AccessKey
from tests.api.cloud import ACCOUNT, OTHER, Cloud, Keys, allow, deny, document, open_cloud, refused
from tests.conftest import Clock

EC2_TRUST = {"Service": "ec2.amazonaws.com"}
NOT_AUTHORIZED = "UnauthorizedOperation"


def make_vpc(cloud: Cloud, keys: Keys | None = None, **tags: str) -> str:
    ec2 = cloud.client("ec2", keys)
    specification = [{"ResourceType": "vpc", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}]
    made: str = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=specification if tags else [])["Vpc"]["VpcId"]
    return made


# --- users and keys ---------------------------------------------------------------------------------------------------


def test_a_users_life(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    made = iam.create_user(UserName="alice", Path="/team/", Tags=[{"Key": "Team", "Value": "web"}])["User"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/team/alice"
    assert made["UserId"].startswith("AIDA") and len(made["UserId"]) == 21
    assert refused(iam.create_user, UserName="Alice")[0] == "EntityAlreadyExists"
    assert refused(iam.create_user, UserName="a b")[0] == "ValidationError"
    assert iam.get_user(UserName="alice")["User"]["Tags"] == [{"Key": "Team", "Value": "web"}]
    iam.tag_user(UserName="alice", Tags=[{"Key": "Cost", "Value": "7"}])
    iam.untag_user(UserName="alice", TagKeys=["Team"])
    assert iam.list_user_tags(UserName="alice")["Tags"] == [{"Key": "Cost", "Value": "7"}]
    iam.update_user(UserName="alice", NewUserName="anna", NewPath="/")
    assert refused(iam.get_user, UserName="alice")[0] == "NoSuchEntity"
    assert [user["Arn"] for user in iam.list_users()["Users"]] == [f"arn:aws:iam::{ACCOUNT}:user/anna"]
    assert iam.list_users(PathPrefix="/team/")["Users"] == []
    key = iam.create_access_key(UserName="anna")["AccessKey"]
    assert refused(iam.delete_user, UserName="anna")[0] == "DeleteConflict"
    iam.delete_access_key(UserName="anna", AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName="anna")
    assert iam.list_users()["Users"] == []
    assert iam.get_user()["User"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"


def test_pages_of_users(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    names = [f"u{number}" for number in range(5)]
    for name in names:
        iam.create_user(UserName=name)
    pages = list(iam.get_paginator("list_users").paginate(PaginationConfig={"PageSize": 2}))
    assert [len(page["Users"]) for page in pages] == [2, 2, 1]
    assert [user["UserName"] for page in pages for user in page["Users"]] == names
    assert refused(iam.list_users, Marker="*")[0] == "ValidationError"


def test_keys_can_be_switched_off_and_changed(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    keys = cloud.user("alice", allow("ec2:DescribeVpcs"))
    ec2 = cloud.client("ec2", keys)
    assert cloud.client("sts", keys).get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/alice"
    ec2.describe_vpcs()
    used = iam.get_access_key_last_used(AccessKeyId=keys.access_key)
    assert (used["UserName"], used["AccessKeyLastUsed"]["ServiceName"]) == ("alice", "ec2")
    iam.update_access_key(UserName="alice", AccessKeyId=keys.access_key, Status="Inactive")
    assert refused(ec2.describe_vpcs)[0] == "AuthFailure"
    assert refused(cloud.client("iam", keys).get_user)[0] == "InvalidClientTokenId"
    second = Keys.of(iam.create_access_key(UserName="alice")["AccessKey"])
    cloud.client("ec2", second).describe_vpcs()
    assert refused(iam.create_access_key, UserName="alice")[0] == "LimitExceeded"
    listed = iam.list_access_keys(UserName="alice")["AccessKeyMetadata"]
    assert {key["AccessKeyId"]: key["Status"] for key in listed} == {
        keys.access_key: "Inactive",
        second.access_key: "Active",
    }
    assert all("SecretAccessKey" not in key for key in listed)
    iam.update_access_key(UserName="alice", AccessKeyId=keys.access_key, Status="Active")
    ec2.describe_vpcs()
    iam.delete_access_key(UserName="alice", AccessKeyId=keys.access_key)
    assert refused(ec2.describe_vpcs)[0] == "AuthFailure"


def test_the_roots_last_key_stays(cloud: Cloud) -> None:
    iam, key = cloud.client("iam"), cloud.root().access_key
    assert refused(iam.delete_access_key, AccessKeyId=key)[0] == "DeleteConflict"
    assert refused(iam.update_access_key, AccessKeyId=key, Status="Inactive")[0] == "DeleteConflict"
    second = Keys.of(iam.create_access_key()["AccessKey"])
    iam.delete_access_key(AccessKeyId=key)
    assert cloud.client("sts", second).get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"


def test_a_name_that_is_used_anew_gains_nothing(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    keys = cloud.user("alice", allow("*"))
    with cloud.store.write() as tx:  # as if it had been left behind
        stray = tx.get(AccessKey, keys.access_key)
    iam.delete_access_key(UserName="alice", AccessKeyId=keys.access_key)
    iam.delete_user_policy(UserName="alice", PolicyName="p")
    iam.delete_user(UserName="alice")
    cloud.user("alice", allow("*"))
    assert stray is not None
    with cloud.store.write() as tx:
        tx.put(stray)
    assert refused(cloud.client("ec2", keys).describe_vpcs)[0] == "AuthFailure"


# --- policies ---------------------------------------------------------------------------------------------------------


def test_a_policys_life(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    keys = cloud.user("alice")
    ec2 = cloud.client("ec2", keys)
    policy = iam.create_policy(PolicyName="look", PolicyDocument=document(allow("ec2:DescribeVpcs")))["Policy"]
    assert policy["Arn"] == f"arn:aws:iam::{ACCOUNT}:policy/look"
    assert refused(ec2.describe_vpcs)[0] == NOT_AUTHORIZED
    iam.attach_user_policy(UserName="alice", PolicyArn=policy["Arn"])
    ec2.describe_vpcs()
    assert iam.list_attached_user_policies(UserName="alice")["AttachedPolicies"] == [
        {"PolicyName": "look", "PolicyArn": policy["Arn"]}
    ]
    made = iam.create_policy_version(
        PolicyArn=policy["Arn"], PolicyDocument=document(allow("ec2:DescribeSubnets")), SetAsDefault=True
    )["PolicyVersion"]
    assert (made["VersionId"], made["IsDefaultVersion"]) == ("v2", True)
    assert refused(ec2.describe_vpcs)[0] == NOT_AUTHORIZED
    ec2.describe_subnets()
    iam.set_default_policy_version(PolicyArn=policy["Arn"], VersionId="v1")
    ec2.describe_vpcs()
    read = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId="v2")["PolicyVersion"]["Document"]
    assert read["Statement"][0]["Action"] == "ec2:DescribeSubnets"
    assert [each["VersionId"] for each in iam.list_policy_versions(PolicyArn=policy["Arn"])["Versions"]] == ["v2", "v1"]
    assert refused(iam.delete_policy_version, PolicyArn=policy["Arn"], VersionId="v1")[0] == "DeleteConflict"
    assert refused(iam.delete_policy, PolicyArn=policy["Arn"])[0] == "DeleteConflict"
    entities = iam.list_entities_for_policy(PolicyArn=policy["Arn"])
    assert [user["UserName"] for user in entities["PolicyUsers"]] == ["alice"]
    iam.detach_user_policy(UserName="alice", PolicyArn=policy["Arn"])
    assert refused(ec2.describe_vpcs)[0] == NOT_AUTHORIZED
    iam.delete_policy_version(PolicyArn=policy["Arn"], VersionId="v2")
    again = iam.create_policy_version(PolicyArn=policy["Arn"], PolicyDocument=document(allow("*")))["PolicyVersion"]
    assert again["VersionId"] == "v3"
    iam.delete_policy_version(PolicyArn=policy["Arn"], VersionId="v3")
    iam.delete_policy(PolicyArn=policy["Arn"])
    assert refused(iam.get_policy, PolicyArn=policy["Arn"])[0] == "NoSuchEntity"


@pytest.mark.parametrize(
    "text", ["{}", "nonsense", document(), document({"Effect": "Allow", "Action": "*"}), document(allow("x"))]
)
def test_a_malformed_policy_is_refused_wherever_it_is_given(cloud: Cloud, text: str) -> None:
    iam = cloud.client("iam")
    iam.create_user(UserName="alice")
    calls: list[tuple[Callable[..., Any], dict[str, str]]] = [
        (iam.put_user_policy, {"UserName": "alice", "PolicyName": "p", "PolicyDocument": text}),
        (iam.create_policy, {"PolicyName": "p", "PolicyDocument": text}),
        (iam.create_role, {"RoleName": "r", "AssumeRolePolicyDocument": text}),
    ]
    for call, params in calls:
        assert refused(call, **params)[0] == "MalformedPolicyDocument"


def test_amazons_own_policies(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    keys = cloud.user("alice")
    arn = "arn:aws:iam::aws:policy/AmazonEC2ReadOnlyAccess"
    assert arn in [policy["Arn"] for policy in iam.list_policies(Scope="AWS")["Policies"]]
    iam.attach_user_policy(UserName="alice", PolicyArn=arn)
    ec2 = cloud.client("ec2", keys)
    ec2.describe_vpcs()
    assert refused(ec2.create_vpc, CidrBlock="10.0.0.0/16")[0] == NOT_AUTHORIZED
    assert refused(iam.delete_policy, PolicyArn=arn)[0] == "AccessDenied"
    assert refused(cloud.client("iam", keys).list_users)[0] == "AccessDenied"


def test_inline_policies_of_users_groups_and_roles(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    iam.create_user(UserName="n")
    iam.create_group(GroupName="n")
    cloud.role("n", EC2_TRUST)
    text = document(allow("ec2:*"))
    for noun in ("user", "group", "role"):
        named = {f"{noun.capitalize()}Name": "n"}
        getattr(iam, f"put_{noun}_policy")(**named, PolicyName="p", PolicyDocument=text)
        assert getattr(iam, f"get_{noun}_policy")(**named, PolicyName="p")["PolicyDocument"] == json.loads(text)
        assert getattr(iam, f"list_{noun}_policies")(**named)["PolicyNames"] == ["p"]
        assert refused(getattr(iam, f"delete_{noun}"), **named)[0] == "DeleteConflict"
        getattr(iam, f"delete_{noun}_policy")(**named, PolicyName="p")
        assert refused(getattr(iam, f"get_{noun}_policy"), **named, PolicyName="p")[0] == "NoSuchEntity"
        getattr(iam, f"delete_{noun}")(**named)


def test_a_group_speaks_for_its_users(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    ec2 = cloud.client("ec2", cloud.user("alice"))
    iam.create_group(GroupName="lookers")
    iam.put_group_policy(GroupName="lookers", PolicyName="p", PolicyDocument=document(allow("ec2:Describe*")))
    assert refused(ec2.describe_vpcs)[0] == NOT_AUTHORIZED
    iam.add_user_to_group(GroupName="lookers", UserName="alice")
    ec2.describe_vpcs()
    assert [user["UserName"] for user in iam.get_group(GroupName="lookers")["Users"]] == ["alice"]
    assert [group["GroupName"] for group in iam.list_groups_for_user(UserName="alice")["Groups"]] == ["lookers"]
    assert refused(iam.delete_group, GroupName="lookers")[0] == "DeleteConflict"
    iam.remove_user_from_group(GroupName="lookers", UserName="alice")
    assert refused(ec2.describe_vpcs)[0] == NOT_AUTHORIZED


def test_a_boundary_bounds(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    ec2 = cloud.client("ec2", cloud.user("alice", allow("ec2:*")))
    bound = iam.create_policy(PolicyName="b", PolicyDocument=document(allow("ec2:DescribeVpcs")))["Policy"]["Arn"]
    iam.put_user_permissions_boundary(UserName="alice", PermissionsBoundary=bound)
    ec2.describe_vpcs()
    assert refused(ec2.describe_subnets)[0] == NOT_AUTHORIZED
    assert iam.get_user(UserName="alice")["User"]["PermissionsBoundary"]["PermissionsBoundaryArn"] == bound
    assert refused(iam.delete_policy, PolicyArn=bound)[0] == "DeleteConflict"
    iam.delete_user_permissions_boundary(UserName="alice")
    ec2.describe_subnets()


# --- what policies say of EC2 -----------------------------------------------------------------------------------------


def test_a_user_may_do_nothing_at_first(cloud: Cloud) -> None:
    keys = cloud.user("alice")
    assert refused(cloud.client("ec2", keys).describe_vpcs)[0] == NOT_AUTHORIZED
    assert refused(cloud.client("iam", keys).create_user, UserName="eve")[0] == "AccessDenied"
    assert refused(cloud.client("kms", keys).create_key)[0] == "AccessDeniedException"
    assert cloud.client("sts", keys).get_caller_identity()["Account"] == ACCOUNT


def test_an_explicit_deny_wins(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2", cloud.user("alice", allow("*"), deny("ec2:DeleteVpc")))
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    code, message = refused(ec2.delete_vpc, VpcId=vpc)
    assert code == NOT_AUTHORIZED and "explicit deny" in message and f"vpc/{vpc}" in message
    assert cloud.client("ec2").describe_vpcs(VpcIds=[vpc])["Vpcs"]


def test_by_region_and_by_address(cloud: Cloud) -> None:
    keys = cloud.user(
        "alice",
        allow(
            "ec2:*",
            StringEquals={"aws:RequestedRegion": "us-west-2"},
            IpAddress={"aws:SourceIp": "192.0.2.0/24"},
        ),
    )
    cloud.client("ec2", keys, region="us-west-2").describe_vpcs()
    assert refused(cloud.client("ec2", keys).describe_vpcs)[0] == NOT_AUTHORIZED
    cloud.source = "198.51.100.9"
    assert refused(cloud.client("ec2", keys, region="us-west-2").describe_vpcs)[0] == NOT_AUTHORIZED


def test_stars_question_marks_and_all_actions_but_some(cloud: Cloud) -> None:
    first, second = make_vpc(cloud), make_vpc(cloud)
    but_one_letter = first[:-1] + "?"
    alice = cloud.client(
        "ec2",
        cloud.user(
            "alice",
            allow("ec2:D?lete*", f"arn:aws:ec2:us-east-1:{ACCOUNT}:vpc/{but_one_letter}"),
            {"Effect": "Allow", "NotAction": ["ec2:Delete*", "ec2:C*", "iam:*"], "Resource": "*"},
        ),
    )
    assert refused(alice.delete_vpc, VpcId=second)[0] == NOT_AUTHORIZED
    assert refused(alice.create_vpc, CidrBlock="10.0.0.0/16")[0] == NOT_AUTHORIZED
    alice.describe_vpcs()
    alice.delete_vpc(VpcId=first)
    but = {"Effect": "Deny", "NotAction": "ec2:Describe*", "Resource": "*"}
    bob = cloud.user("bob", allow("*"), but)
    cloud.client("ec2", bob).describe_vpcs()
    assert refused(cloud.client("ec2", bob).delete_vpc, VpcId=second)[0] == NOT_AUTHORIZED
    assert refused(cloud.client("iam", bob).list_users)[0] == "AccessDenied"


@pytest.mark.parametrize(("endpoint", "plain"), [("http://127.0.0.1:8080", True), ("https://127.0.0.1:8080", False)])
def test_by_transport(tmp_path: Path, clock: Clock, endpoint: str, plain: bool) -> None:
    with open_cloud(tmp_path, clock, endpoint=endpoint) as cloud:
        keys = cloud.user("a", allow("ec2:*"), deny("*", Bool={"aws:SecureTransport": "false"}))
        if plain:
            assert refused(cloud.client("ec2", keys).describe_vpcs)[0] == NOT_AUTHORIZED
        else:
            cloud.client("ec2", keys).describe_vpcs()


def test_by_time(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2", cloud.user("a", allow("ec2:*", DateLessThan={"aws:CurrentTime": "2026-01-03T00:00:00Z"})))
    ec2.describe_vpcs()
    cloud.clock.pass_(days=1)
    assert refused(ec2.describe_vpcs)[0] == NOT_AUTHORIZED


def test_by_resource_and_its_tags(cloud: Cloud) -> None:
    mine, other = make_vpc(cloud, Owner="alice"), make_vpc(cloud, Owner="bob")
    ec2 = cloud.client(
        "ec2", cloud.user("alice", allow("ec2:*Vpc", StringEquals={"aws:ResourceTag/Owner": "${aws:username}"}))
    )
    assert refused(ec2.delete_vpc, VpcId=other)[0] == NOT_AUTHORIZED
    ec2.delete_vpc(VpcId=mine)
    bob = cloud.client("ec2", cloud.user("bob", allow("ec2:DeleteVpc", f"arn:aws:ec2:*:{ACCOUNT}:vpc/{other}")))
    elsewhere = make_vpc(cloud)
    assert refused(bob.delete_vpc, VpcId=elsewhere)[0] == NOT_AUTHORIZED
    bob.delete_vpc(VpcId=other)


def test_by_what_a_volume_is(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    fast = {"VolumeType": "gp3", "Throughput": 500, "Iops": 4000}
    made = [ec2.create_volume(AvailabilityZone="us-east-1a", Size=8, **more)["VolumeId"] for more in (fast, {})]
    for number, name in enumerate(("Throughput", "Iops")):
        keys = cloud.user(f"user-{number}", allow("*"), deny("*", NumericGreaterThan={f"ec2:Volume{name}": "400"}))
        tag = cloud.client("ec2", keys).create_tags
        assert refused(tag, Resources=made[:1], Tags=[{"Key": "a", "Value": "b"}])[0] == NOT_AUTHORIZED
        tag(Resources=made[1:], Tags=[{"Key": "a", "Value": "b"}])


def test_every_resource_of_a_call_must_be_allowed(cloud: Cloud) -> None:
    mine, other = make_vpc(cloud, Owner="alice"), make_vpc(cloud)
    ec2 = cloud.client(
        "ec2", cloud.user("alice", allow("ec2:CreateTags", StringEquals={"ec2:ResourceTag/Owner": "alice"}))
    )
    tags = [{"Key": "a", "Value": "b"}]
    ec2.create_tags(Resources=[mine], Tags=tags)
    assert refused(ec2.create_tags, Resources=[mine, other], Tags=tags)[0] == NOT_AUTHORIZED
    assert refused(ec2.delete_tags, Resources=[mine], Tags=tags)[0] == NOT_AUTHORIZED


def test_tags_that_are_asked_for_at_creation(cloud: Cloud) -> None:
    required = {"StringEquals": {"aws:RequestTag/Team": "web"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["Team"]}}
    keys = cloud.user("alice", allow("ec2:CreateVpc", **required))
    assert refused(make_vpc, cloud, keys)[0] == NOT_AUTHORIZED
    code, message = refused(make_vpc, cloud, keys, Team="web")
    assert code == NOT_AUTHORIZED and "ec2:CreateTags" in message, "tagging is a right of its own"
    cloud.client("iam").put_user_policy(
        UserName="alice",
        PolicyName="tag",
        PolicyDocument=document(allow("ec2:CreateTags", StringEquals={"ec2:CreateAction": "CreateVpc"})),
    )
    vpc = make_vpc(cloud, keys, Team="web")
    assert refused(make_vpc, cloud, keys, Team="db")[0] == NOT_AUTHORIZED
    assert refused(make_vpc, cloud, keys, Team="web", More="x")[0] == NOT_AUTHORIZED
    tagging = cloud.client("ec2", keys).create_tags
    assert refused(tagging, Resources=[vpc], Tags=[{"Key": "Team", "Value": "web"}])[0] == NOT_AUTHORIZED


def test_a_part_is_judged_as_what_it_is_a_part_of(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    vpc = make_vpc(cloud)
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    association = ec2.associate_route_table(SubnetId=subnet, RouteTableId=table)["AssociationId"]
    alice = cloud.client("ec2", cloud.user("alice", allow("ec2:*"), deny("*", f"arn:aws:ec2:*:*:route-table/{table}")))
    assert refused(alice.disassociate_route_table, AssociationId=association)[0] == NOT_AUTHORIZED
    ec2.disassociate_route_table(AssociationId=association)


def test_a_thing_by_its_name_is_that_thing(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    ec2.create_key_pair(KeyName="prod")
    ec2.create_key_pair(KeyName="test")
    address = ec2.allocate_address()
    alice = cloud.client(
        "ec2",
        cloud.user(
            "alice",
            allow("ec2:*"),
            deny("*", "arn:aws:ec2:*:*:key-pair/prod"),
            deny("*", f"arn:aws:ec2:*:*:elastic-ip/{address['AllocationId']}"),
        ),
    )
    assert refused(alice.delete_key_pair, KeyName="prod")[0] == NOT_AUTHORIZED
    pairs = {pair["KeyName"]: pair["KeyPairId"] for pair in ec2.describe_key_pairs()["KeyPairs"]}
    assert refused(alice.delete_key_pair, KeyPairId=pairs["prod"])[0] == NOT_AUTHORIZED
    alice.delete_key_pair(KeyName="test")
    assert refused(alice.release_address, PublicIp=address["PublicIp"])[0] == NOT_AUTHORIZED


def test_a_group_by_its_name_is_that_of_the_default_vpc(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    elsewhere = ec2.create_security_group(GroupName="web", Description="d", VpcId=make_vpc(cloud))["GroupId"]
    meant = ec2.create_security_group(GroupName="web", Description="d")["GroupId"]
    arn = "arn:aws:ec2:*:*:security-group/"
    one = cloud.client("ec2", cloud.user("one", allow("ec2:*", arn + elsewhere)))
    other = cloud.client("ec2", cloud.user("other", allow("ec2:*"), deny("ec2:*", arn + elsewhere)))
    rule = {"GroupName": "web", "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIp": "0.0.0.0/0"}
    assert refused(one.authorize_security_group_ingress, **rule)[0] == NOT_AUTHORIZED
    assert refused(one.delete_security_group, GroupName="web")[0] == NOT_AUTHORIZED
    other.authorize_security_group_ingress(**rule)
    [found] = ec2.describe_security_groups(GroupIds=[meant])["SecurityGroups"]
    assert found["IpPermissions"]


def test_nothing_is_told_of_what_is_anothers(cloud: Cloud) -> None:
    theirs = cloud.client("ec2", cloud.root(OTHER)).create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    ec2 = cloud.client("ec2", cloud.user("alice", allow("ec2:DeleteVpc", StringEquals={"ec2:ResourceTag/a": "b"})))
    absent = "vpc-0123456789abcdef0"
    messages = [
        refused(ec2.delete_vpc, VpcId=vpc)[1].replace(vpc, "X").partition(". Encoded")[0] for vpc in (theirs, absent)
    ]
    assert messages[0] == messages[1]
    assert OTHER not in messages[0]


def test_a_refusal_can_be_decoded_by_who_may(cloud: Cloud) -> None:
    keys = cloud.user("alice", allow("ec2:Describe*"), deny("ec2:CreateVpc") | {"Sid": "NoNets"})
    code, message = refused(cloud.client("ec2", keys).create_vpc, CidrBlock="10.0.0.0/16")
    assert code == NOT_AUTHORIZED
    encoded = message.rpartition(": ")[2]
    assert refused(cloud.client("sts", keys).decode_authorization_message, EncodedMessage=encoded)[0] == "AccessDenied"
    sts = cloud.client("sts")
    decoded = json.loads(sts.decode_authorization_message(EncodedMessage=encoded)["DecodedMessage"])
    assert (decoded["allowed"], decoded["explicitDeny"]) == (False, True)
    assert decoded["matchedStatements"]["items"][0]["statementId"] == "NoNets"
    assert decoded["context"]["action"] == "ec2:CreateVpc"
    assert decoded["context"]["resource"] == f"arn:aws:ec2:us-east-1:{ACCOUNT}:vpc/*"
    assert decoded["context"]["principal"]["arn"] == f"arn:aws:iam::{ACCOUNT}:user/alice"
    broken = encoded[:-8] + ("A" if encoded[-8] != "A" else "B") + encoded[-7:]
    for wrong, by in ((broken, None), ("nonsense!", None), ("", None), (encoded, cloud.root(OTHER))):
        if not wrong:
            continue
        decode = cloud.client("sts", by).decode_authorization_message
        assert refused(decode, EncodedMessage=wrong)[0] == "InvalidAuthorizationMessageException"


def test_who_may_administer_users_may_do_so_within_bounds(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    iam.create_user(UserName="app", Path="/team/")
    iam.create_user(UserName="boss")
    keys = cloud.user("alice", allow("iam:*", f"arn:aws:iam::{ACCOUNT}:user/team/*"), allow("iam:GetUser", "*"))
    alice = cloud.client("iam", keys)
    alice.create_access_key(UserName="app")
    assert refused(alice.create_access_key, UserName="boss")[0] == "AccessDenied"
    assert refused(alice.create_access_key)[0] == "AccessDenied"
    assert alice.get_user()["User"]["UserName"] == "alice"
    alice.create_user(UserName="new", Path="/team/")
    assert refused(alice.create_user, UserName="new2")[0] == "AccessDenied"
    assert refused(alice.update_user, UserName="new", NewPath="/")[0] == "AccessDenied"
    assert refused(alice.list_users)[0] == "AccessDenied"


def test_who_is_renamed_stays_where_it_is(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    iam.create_user(UserName="app", Path="/team/")
    iam.create_group(GroupName="apps", Path="/team/")
    team = [f"arn:aws:iam::{ACCOUNT}:{noun}/team/*" for noun in ("user", "group")]
    alice = cloud.client("iam", cloud.user("alice", allow("iam:*", team)))
    alice.update_user(UserName="app", NewUserName="new")
    alice.update_group(GroupName="apps", NewGroupName="new")
    narrow = cloud.client("iam", cloud.user("bob", allow("iam:*", team), deny("iam:*", team[0][:-1] + "boss")))
    assert refused(narrow.update_user, UserName="new", NewUserName="boss")[0] == "AccessDenied"


def test_a_policy_of_another_account_cannot_be_attached(cloud: Cloud) -> None:
    theirs = cloud.client("iam", cloud.root(OTHER))
    arn = theirs.create_policy(PolicyName="p", PolicyDocument=document(allow("*")))["Policy"]["Arn"]
    iam = cloud.client("iam")
    iam.create_user(UserName="alice")
    assert refused(iam.attach_user_policy, UserName="alice", PolicyArn=arn)[0] == "NoSuchEntity"
    assert refused(iam.get_policy, PolicyArn=arn)[0] == "NoSuchEntity"

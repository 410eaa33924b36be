"""STS: who is calling, roles that are assumed, and credentials that end."""

from __future__ import annotations

import json
import secrets
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.model.iam import Role
from orchestrator.model.session import TokenError, make_deployment_secret, open_token
from tests.api.cloud import ACCOUNT, OTHER, Cloud, Keys, allow, deny, document, refused
from tests.conftest import Serving

MINE = {"AWS": ACCOUNT}


def assume(cloud: Cloud, by: Keys | None, arn: str, **params: Any) -> Keys:
    answer = cloud.client("sts", by).assume_role(RoleArn=arn, RoleSessionName="session", **params)
    return Keys.of(answer["Credentials"])


def test_who_is_calling(cloud: Cloud) -> None:
    root = cloud.client("sts").get_caller_identity()
    assert (root["UserId"], root["Account"], root["Arn"]) == (ACCOUNT, ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root")
    keys = cloud.user("alice")
    user = cloud.client("sts", keys).get_caller_identity()
    assert user["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/alice" and user["UserId"].startswith("AIDA")
    role = cloud.role("r", MINE)
    assumed = cloud.client("sts", assume(cloud, None, role)).get_caller_identity()
    assert assumed["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/r/session"
    assert assumed["UserId"].startswith("AROA") and assumed["UserId"].endswith(":session")


def test_a_session_may_do_what_its_role_may(cloud: Cloud) -> None:
    arn = cloud.role("r", MINE, allow("ec2:DescribeVpcs"))
    keys = assume(cloud, None, arn)
    assert keys.access_key.startswith("ASIA") and len(keys.access_key) == 20
    ec2 = cloud.client("ec2", keys)
    ec2.describe_vpcs()
    assert refused(ec2.describe_subnets)[0] == "UnauthorizedOperation"
    cloud.client("iam").put_role_policy(RoleName="r", PolicyName="q", PolicyDocument=document(allow("ec2:Describe*")))
    ec2.describe_subnets()


def test_a_session_ends(cloud: Cloud) -> None:
    arn = cloud.role("r", MINE, allow("*"))
    keys = assume(cloud, None, arn, DurationSeconds=900)
    cloud.clock.pass_(seconds=899)
    cloud.client("ec2", keys).describe_vpcs()
    cloud.clock.pass_(seconds=1)
    assert refused(cloud.client("ec2", keys).describe_vpcs)[0] == "RequestExpired"
    assert refused(cloud.client("sts", keys).get_caller_identity)[0] == "ExpiredToken"
    assert refused(cloud.client("kms", keys).list_keys)[0] == "ExpiredTokenException"


def test_a_session_ends_with_its_role(cloud: Cloud) -> None:
    arn = cloud.role("r", MINE)
    keys = assume(cloud, None, arn)
    iam = cloud.client("iam")
    iam.delete_role(RoleName="r")
    assert refused(cloud.client("sts", keys).get_caller_identity)[0] == "InvalidClientTokenId"
    cloud.role("r", MINE, allow("*"))
    assert refused(cloud.client("ec2", keys).describe_vpcs)[0] == "AuthFailure"


def test_sessions_of_before_can_be_ended(cloud: Cloud) -> None:
    arn = cloud.role("r", MINE, allow("ec2:*"))
    old = assume(cloud, None, arn)
    cloud.clock.pass_(seconds=60)
    now = cloud.clock().isoformat()
    cloud.client("iam").put_role_policy(
        RoleName="r",
        PolicyName="revoke",
        PolicyDocument=document(deny("*", DateLessThan={"aws:TokenIssueTime": now})),
    )
    assert refused(cloud.client("ec2", old).describe_vpcs)[0] == "UnauthorizedOperation"
    cloud.client("ec2", assume(cloud, None, arn)).describe_vpcs()


def test_a_token_belongs_to_its_key_and_cannot_be_changed(cloud: Cloud) -> None:
    arn = cloud.role("r", MINE, allow("*"))
    one, two = assume(cloud, None, arn), assume(cloud, None, arn)
    assert one.token is not None and two.token is not None
    changed = one.token[:60] + ("A" if one.token[60] != "A" else "B") + one.token[61:]
    for wrong, code in (
        (Keys(one.access_key, one.secret_key, two.token), "SignatureDoesNotMatch"),
        (Keys(one.access_key, two.secret_key, two.token), "AuthFailure"),
        (Keys(one.access_key, one.secret_key, changed), "AuthFailure"),
        (Keys(one.access_key, one.secret_key, "nonsense"), "AuthFailure"),
        (Keys(one.access_key, one.secret_key, None), "AuthFailure"),
        (Keys(one.access_key, "wrong", one.token), "SignatureDoesNotMatch"),
        (Keys(cloud.root().access_key, cloud.root().secret_key, one.token), "SignatureDoesNotMatch"),
        (Keys(cloud.root().access_key, one.secret_key, one.token), "AuthFailure"),
    ):
        assert refused(cloud.client("ec2", wrong).describe_vpcs)[0] == code, wrong


def test_another_deployments_token_is_none(cloud: Cloud) -> None:
    keys = assume(cloud, None, cloud.role("r", MINE))
    assert keys.token is not None
    secret = make_deployment_secret(cloud.store)
    assert open_token(secret, keys.token).secret_key == keys.secret_key
    for wrong in (bytes(32), secret[:-1] + bytes([secret[-1] ^ 1])):
        with pytest.raises(TokenError):
            open_token(wrong, keys.token)


# --- who may assume ---------------------------------------------------------------------------------------------------


def test_an_account_that_is_trusted_says_who_of_it(cloud: Cloud) -> None:
    arn = cloud.role("r", MINE)
    alice, bob = cloud.user("alice"), cloud.user("bob", allow("sts:AssumeRole", arn))
    code, message = refused(assume, cloud, alice, arn)
    assert code == "AccessDenied" and "sts:AssumeRole" in message
    assume(cloud, bob, arn)


def test_a_user_that_is_trusted_by_name_needs_no_more(cloud: Cloud) -> None:
    alice = cloud.user("alice")
    arn = cloud.role("r", {"AWS": f"arn:aws:iam::{ACCOUNT}:user/alice"})
    assume(cloud, alice, arn)
    assert refused(assume, cloud, cloud.user("bob", allow("*")), arn)[0] == "AccessDenied"
    denied = document(deny("sts:AssumeRole"))
    cloud.client("iam").put_user_policy(UserName="alice", PolicyName="no", PolicyDocument=denied)
    assert refused(assume, cloud, alice, arn)[0] == "AccessDenied"


def test_trust_in_a_user_is_not_in_who_bears_the_name_later(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    iam.create_user(UserName="boss")
    arn = cloud.role("r", {"AWS": f"arn:aws:iam::{ACCOUNT}:user/boss"})
    iam.delete_user(UserName="boss")
    boss = cloud.user("boss", allow("*"))
    assert refused(assume, cloud, boss, arn)[0] == "AccessDenied"
    trust = iam.get_role(RoleName="r")["Role"]["AssumeRolePolicyDocument"]
    iam.update_assume_role_policy(RoleName="r", PolicyDocument=json.dumps(trust))  # whoever it is now
    assume(cloud, boss, arn)
    iam.update_user(UserName="boss", NewUserName="chief", NewPath="/board/")
    assume(cloud, boss, arn)
    assert refused(assume, cloud, cloud.user("boss"), arn)[0] == "AccessDenied"


def test_trust_in_a_role_or_its_session_is_not_in_who_bears_the_name_later(cloud: Cloud) -> None:
    first = cloud.role("first", MINE)
    by_role = cloud.role("by-role", {"AWS": first})
    by_session = cloud.role("by-session", {"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/first/session"})
    for arn in (by_role, by_session):
        assume(cloud, assume(cloud, None, first), arn)
    other = cloud.client("sts").assume_role(RoleArn=first, RoleSessionName="other")["Credentials"]
    assume(cloud, Keys.of(other), by_role)
    assert refused(assume, cloud, Keys.of(other), by_session)[0] == "AccessDenied"
    cloud.client("iam").delete_role(RoleName="first")
    cloud.role("first", MINE, allow("*"))
    for arn in (by_role, by_session):
        assert refused(assume, cloud, assume(cloud, None, first), arn)[0] == "AccessDenied"


def test_trust_goes_by_name_where_no_id_was_kept(cloud: Cloud) -> None:
    alice = cloud.user("alice")
    old = cloud.role("old", {"AWS": f"arn:aws:iam::{ACCOUNT}:user/alice"})
    with cloud.store.write() as tx:  # as it was written before ids were kept
        tx.put(replace(tx.all(Role, name="old")[0], trust_bearers={}))
    assume(cloud, alice, old)


@pytest.mark.parametrize(
    "nobody", [f"arn:aws:iam::{ACCOUNT}:user/alice", f"arn:aws:iam::{ACCOUNT}:role/r", f"arn:aws:iam::{OTHER}:user/eve"]
)
def test_nobody_is_trusted_before_they_are_there(cloud: Cloud, nobody: str) -> None:
    cloud.root(OTHER)
    iam = cloud.client("iam")
    trust = document({"Effect": "Allow", "Principal": {"AWS": [MINE["AWS"], nobody]}, "Action": "sts:AssumeRole"})
    said = ("MalformedPolicyDocument", f'Invalid principal in policy: "AWS":"{nobody}"')
    assert refused(iam.create_role, RoleName="r", AssumeRolePolicyDocument=trust) == said
    assert iam.list_roles()["Roles"] == []
    cloud.role("other", MINE)
    assert refused(iam.update_assume_role_policy, RoleName="other", PolicyDocument=trust) == said


def test_a_deny_for_all_but_one_holds_for_the_rest_of_its_account(cloud: Cloud) -> None:
    bob, eve = cloud.user("bob", allow("*")), cloud.user("eve", allow("*"))
    listed = [f"arn:aws:iam::{ACCOUNT}:user/bob", f"arn:aws:iam::{ACCOUNT}:root"]
    trust = document(
        {"Effect": "Allow", "Principal": MINE, "Action": "sts:AssumeRole"},
        {"Effect": "Deny", "NotPrincipal": {"AWS": listed}, "Action": "sts:AssumeRole"},
    )
    arn = cloud.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    assume(cloud, bob, arn)
    assume(cloud, None, arn)
    assert refused(assume, cloud, eve, arn)[0] == "AccessDenied"


def test_over_accounts_both_must_agree(cloud: Cloud) -> None:
    arn = cloud.role("r", {"AWS": OTHER}, allow("ec2:*"))
    vpc = cloud.client("ec2").create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    theirs = cloud.client("iam", cloud.root(OTHER))
    theirs.create_user(UserName="eve")
    eve = Keys.of(theirs.create_access_key(UserName="eve")["AccessKey"])
    assert refused(assume, cloud, eve, arn)[0] == "AccessDenied"
    theirs.put_user_policy(UserName="eve", PolicyName="p", PolicyDocument=document(allow("sts:AssumeRole", arn)))
    keys = assume(cloud, eve, arn)
    assert cloud.client("sts", keys).get_caller_identity()["Account"] == ACCOUNT
    assert cloud.client("ec2", keys).describe_vpcs(VpcIds=[vpc])["Vpcs"]
    untrusting = cloud.role("mine", MINE)
    assert refused(assume, cloud, cloud.root(OTHER), untrusting)[0] == "AccessDenied"


def test_a_role_that_is_not_there_is_as_one_that_may_not_be_assumed(cloud: Cloud) -> None:
    there = cloud.role("there", {"Service": "ec2.amazonaws.com"})
    said = []
    for arn in (there, there.replace("there", "absent")):
        code, message = refused(assume, cloud, cloud.root(OTHER), arn)
        said.append((code, message.replace(arn, "X")))
    assert said[0] == said[1]
    assert refused(assume, cloud, None, "nonsense-that-is-long-enough")[0] == "ValidationError"


def test_conditions_of_a_trust_policy(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    trust = document(
        {
            "Effect": "Allow",
            "Principal": MINE,
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": "77"}},
        }
    )
    arn = iam.create_role(RoleName="r", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    assert refused(assume, cloud, None, arn)[0] == "AccessDenied"
    assert refused(assume, cloud, None, arn, ExternalId="88")[0] == "AccessDenied"
    assume(cloud, None, arn, ExternalId="77")


def test_a_session_policy_limits_and_never_widens(cloud: Cloud) -> None:
    arn = cloud.role("r", MINE, allow(["ec2:DescribeVpcs", "ec2:DescribeSubnets"]))
    keys = assume(cloud, None, arn, Policy=document(allow(["ec2:DescribeVpcs", "ec2:CreateVpc"])))
    ec2 = cloud.client("ec2", keys)
    ec2.describe_vpcs()
    assert refused(ec2.describe_subnets)[0] == "UnauthorizedOperation"
    assert refused(ec2.create_vpc, CidrBlock="10.0.0.0/16")[0] == "UnauthorizedOperation"
    by_arn = assume(cloud, None, arn, PolicyArns=[{"arn": "arn:aws:iam::aws:policy/IAMFullAccess"}])
    assert refused(cloud.client("ec2", by_arn).describe_vpcs)[0] == "UnauthorizedOperation"
    assert refused(assume, cloud, None, arn, Policy="{}")[0] == "MalformedPolicyDocument"
    iam, large = cloud.client("iam"), []
    for number in range(3):
        text = document(*(allow(f"ec2:{secrets.token_hex(24)}") for _ in range(55)))
        large.append(iam.create_policy(PolicyName=f"p{number}", PolicyDocument=text)["Policy"]["Arn"])
    assert refused(assume, cloud, None, arn, PolicyArns=[{"arn": each} for each in large])[0] == "PackedPolicyTooLarge"


def test_policies_of_blanks_are_too_large_too(cloud: Cloud) -> None:
    """They deflate to nothing, but what cannot be read again must not be given out."""
    arn, iam, blank = cloud.role("r", MINE, allow("*")), cloud.client("iam"), []
    for number in range(4):
        text = document(allow("*"))[:-1] + " " * 20000 + "}"
        blank.append({"arn": iam.create_policy(PolicyName=f"p{number}", PolicyDocument=text)["Policy"]["Arn"]})
    code, said = refused(assume, cloud, None, arn, PolicyArns=blank)
    assert code == "PackedPolicyTooLarge" and "65536" in said
    keys = assume(cloud, None, arn, PolicyArns=blank[:3])
    assert cloud.client("sts", keys).get_caller_identity()["Account"] == ACCOUNT


def test_how_long_a_session_may_last(cloud: Cloud) -> None:
    arn = cloud.role("r", MINE, allow("sts:AssumeRole"))
    assert refused(assume, cloud, None, arn, DurationSeconds=3601)[0] == "ValidationError"
    cloud.client("iam").update_role(RoleName="r", MaxSessionDuration=43200)
    answer = cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="session", DurationSeconds=43200)
    assert answer["Credentials"]["Expiration"] == cloud.clock() + timedelta(seconds=43200)
    chained = Keys.of(answer["Credentials"])
    assert refused(assume, cloud, chained, arn, DurationSeconds=3601)[0] == "ValidationError"
    assume(cloud, chained, arn, DurationSeconds=3600)


# --- GetSessionToken --------------------------------------------------------------------------------------------------


def test_a_users_session_token(cloud: Cloud) -> None:
    arn = cloud.role("r", MINE)
    alice = cloud.user("alice", allow("*"))
    answer = cloud.client("sts", alice).get_session_token()["Credentials"]
    assert answer["Expiration"] == cloud.clock() + timedelta(hours=12)
    keys = Keys.of(answer)
    assert cloud.client("sts", keys).get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/alice"
    cloud.client("ec2", keys).describe_vpcs()
    assume(cloud, keys, arn)
    assert refused(cloud.client("iam", keys).list_users)[0] == "AccessDenied"
    assert refused(cloud.client("sts", keys).get_session_token)[0] == "AccessDenied"
    cloud.client("iam").put_user_policy(UserName="alice", PolicyName="no", PolicyDocument=document(deny("ec2:*")))
    assert refused(cloud.client("ec2", keys).describe_vpcs)[0] == "UnauthorizedOperation"


@pytest.mark.parametrize("by_root", [True, False], ids=["the root's", "a user's"])
def test_a_session_token_ends(cloud: Cloud, by_root: bool) -> None:
    by = None if by_root else cloud.user("alice", allow("*"))
    keys = Keys.of(cloud.client("sts", by).get_session_token(DurationSeconds=900)["Credentials"])
    cloud.clock.pass_(seconds=899)
    cloud.client("ec2", keys).describe_vpcs()
    cloud.clock.pass_(seconds=1)
    assert refused(cloud.client("ec2", keys).describe_vpcs)[0] == "RequestExpired"
    assert refused(cloud.client("sts", keys).get_caller_identity)[0] == "ExpiredToken"
    assert refused(cloud.client("organizations", keys).list_accounts)[0] == "ExpiredTokenException"


def test_the_roots_session_token(cloud: Cloud) -> None:
    answer = cloud.client("sts").get_session_token(DurationSeconds=36000)["Credentials"]
    assert answer["Expiration"] == cloud.clock() + timedelta(hours=1)
    keys = Keys.of(answer)
    cloud.client("ec2", keys).create_vpc(CidrBlock="10.0.0.0/16")
    assert cloud.client("sts", keys).get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert refused(cloud.client("iam", keys).list_users)[0] == "AccessDenied"


def test_whose_a_key_is(cloud: Cloud) -> None:
    keys = cloud.user("alice")
    sts = cloud.client("sts")
    assert sts.get_access_key_info(AccessKeyId=keys.access_key)["Account"] == ACCOUNT
    assert refused(cloud.client("sts", keys).get_access_key_info, AccessKeyId=keys.access_key)[0] == "AccessDenied"
    assert refused(sts.get_access_key_info, AccessKeyId="A" * 20)[0] == "InvalidParameterValue"


def test_boto3_over_a_socket_with_credentials_that_end(serving: Callable[..., Serving]) -> None:
    """As botocore itself signs, in the header and in a URL, and after a restart."""
    controller = serving()
    trust = document({"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"})
    iam = controller.client("iam", region_name="eu-central-1")  # IAM is in no region, whatever its client signs for
    arn = iam.create_role(RoleName="r", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=document(allow("ec2:DescribeVpcs")))
    given = controller.client("sts").assume_role(RoleArn=arn, RoleSessionName="session")["Credentials"]
    keys = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }
    ec2 = controller.client("ec2", **keys)
    assert ec2.describe_vpcs()["Vpcs"]
    assert refused(ec2.describe_subnets)[0] == "UnauthorizedOperation"
    url = ec2.generate_presigned_url("describe_vpcs", HttpMethod="GET")
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert b"vpcId" in answer.read()
    assert refused(controller.client("ec2", **{**keys, "aws_session_token": "x"}).describe_vpcs)[0] == "AuthFailure"
    controller.end()
    controller.start()
    assert ec2.describe_vpcs()["Vpcs"]
    assert given["SecretAccessKey"] not in controller.log_text
    assert given["SessionToken"] not in controller.log_text

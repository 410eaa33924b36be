"""Who may use a key: its policy, its grants, and the caller's own policies, as boto3 sees it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model.kms import Key
from tests.api.cloud import ACCOUNT, OTHER, Cloud, Keys, allow, deny, refused

CONTEXT = {"Department": "books"}
KEY_ARN = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/"


def root(account: str = ACCOUNT) -> str:
    return f"arn:aws:iam::{account}:root"


def says(effect: str, principal: str | list[str], action: str | list[str] = "kms:*", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Principal": {"AWS": principal}, "Action": action, "Resource": "*", **more}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@pytest.fixture
def kms(cloud: Cloud) -> Any:
    return cloud.client("kms")


@pytest.fixture
def arn(kms: Any) -> str:
    found: str = kms.create_key()["KeyMetadata"]["Arn"]
    return found


def user_arn(name: str, account: str = ACCOUNT) -> str:
    return f"arn:aws:iam::{account}:user/{name}"


def denied(call: Any, **params: Any) -> None:
    assert refused(call, **params)[0] == "AccessDeniedException"


# --- policies ---------------------------------------------------------------------------------------------------------


def test_a_key_without_a_policy_leaves_it_to_the_accounts_users(cloud: Cloud, kms: Any, arn: str) -> None:
    alice = cloud.client("kms", cloud.user("alice", allow("kms:Encrypt", arn)))
    bob = cloud.client("kms", cloud.user("bob"))
    alice.encrypt(KeyId=arn, Plaintext=b"x")
    denied(alice.describe_key, KeyId=arn)
    denied(bob.encrypt, KeyId=arn, Plaintext=b"x")


def test_a_user_that_the_key_names_needs_no_policy_of_its_own(cloud: Cloud, kms: Any, arn: str) -> None:
    alice = cloud.client("kms", cloud.user("alice"))
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Allow", user_arn("alice"), "kms:Encrypt")))
    alice.encrypt(KeyId=arn, Plaintext=b"x")
    denied(alice.generate_data_key, KeyId=arn, KeySpec="AES_256")


def test_a_key_that_does_not_trust_its_account_ignores_users_policies(cloud: Cloud, kms: Any, arn: str) -> None:
    alice = cloud.client("kms", cloud.user("alice", allow("kms:*")))
    bob = cloud.client("kms", cloud.user("bob", allow("kms:*")))
    only = policy(says("Allow", user_arn("alice")))
    said = refused(kms.put_key_policy, KeyId=arn, Policy=only)
    assert said[0] == "MalformedPolicyDocumentException" and "in the future" in said[1]
    kms.put_key_policy(KeyId=arn, Policy=only, BypassPolicyLockoutSafetyCheck=True)
    alice.encrypt(KeyId=arn, Plaintext=b"x")
    for other in (bob, kms):  # not even the root
        denied(other.encrypt, KeyId=arn, Plaintext=b"x")
        denied(other.put_key_policy, KeyId=arn, Policy=policy(says("Allow", root())))
    alice.put_key_policy(KeyId=arn, Policy=policy(says("Allow", [root(), user_arn("alice")])))
    bob.encrypt(KeyId=arn, Plaintext=b"x")


@pytest.mark.parametrize(
    "statement",
    [
        says("Deny", user_arn("alice"), "kms:Decrypt"),
        says("Deny", root(), "kms:Decrypt"),
        {"Effect": "Deny", "NotPrincipal": {"AWS": user_arn("bob")}, "Action": "kms:Decrypt", "Resource": "*"},
    ],
    ids=["the user", "its account", "all but another"],
)
def test_a_keys_deny_wins(cloud: Cloud, kms: Any, arn: str, statement: dict[str, Any]) -> None:
    alice = cloud.client("kms", cloud.user("alice", allow("kms:*")))
    cloud.user("bob")
    kms.create_grant(KeyId=arn, GranteePrincipal=user_arn("alice"), Operations=["Decrypt"])
    blob = alice.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    alice.decrypt(CiphertextBlob=blob)
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), statement))
    denied(alice.decrypt, CiphertextBlob=blob)


def test_a_keys_deny_for_all_but_one_holds_for_the_rest_of_its_account(cloud: Cloud, kms: Any, arn: str) -> None:
    bob, eve = (cloud.client("kms", cloud.user(name, allow("kms:*"))) for name in ("bob", "eve"))
    listed = {"AWS": [user_arn("bob"), root()]}
    but_bob = {"Effect": "Deny", "NotPrincipal": listed, "Action": "kms:Decrypt", "Resource": "*"}
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), but_bob))
    blob = kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    for client in (bob, kms):
        client.decrypt(CiphertextBlob=blob)
    denied(eve.decrypt, CiphertextBlob=blob)


def test_a_key_policy_does_not_mean_who_bears_the_name_later(cloud: Cloud, kms: Any, arn: str) -> None:
    iam = cloud.client("iam")
    text = policy(says("Allow", root()), says("Allow", user_arn("boss"), "kms:Decrypt"))
    blob = kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    iam.create_user(UserName="boss")
    kms.put_key_policy(KeyId=arn, Policy=text)
    made = kms.create_key(Policy=text)["KeyMetadata"]["Arn"]
    sealed = kms.encrypt(KeyId=made, Plaintext=b"x")["CiphertextBlob"]
    iam.delete_user(UserName="boss")
    boss = cloud.client("kms", cloud.user("boss"))
    for each in (blob, sealed):
        denied(boss.decrypt, CiphertextBlob=each)
    kms.put_key_policy(KeyId=arn, Policy=text)  # whoever it is now
    boss.decrypt(CiphertextBlob=blob)
    iam.update_user(UserName="boss", NewUserName="chief")
    boss.decrypt(CiphertextBlob=blob)


def test_a_key_policy_goes_by_name_where_no_id_was_kept(cloud: Cloud, kms: Any, arn: str) -> None:
    alice = cloud.client("kms", cloud.user("alice"))
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Allow", user_arn("alice"), "kms:Encrypt")))
    with cloud.store.write() as tx:  # as it was written before ids were kept
        tx.put(replace(tx.all(Key)[0], policy_bearers={}))
    alice.encrypt(KeyId=arn, Plaintext=b"x")


def test_a_users_deny_wins_over_key_and_grant(cloud: Cloud, kms: Any, arn: str) -> None:
    alice = cloud.client("kms", cloud.user("alice", deny("kms:Decrypt", arn)))
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", [root(), user_arn("alice")])))
    kms.create_grant(KeyId=arn, GranteePrincipal=user_arn("alice"), Operations=["Decrypt"])
    blob = alice.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    for given in ({}, {"KeyId": arn}):  # a ciphertext says itself which key it is about
        denied(alice.decrypt, CiphertextBlob=blob, **given)


def test_conditions_of_a_key_policy(cloud: Cloud, kms: Any, arn: str) -> None:
    alice = cloud.client("kms", cloud.user("alice"))
    when = {"StringEquals": {"kms:EncryptionContext:Department": "books"}}
    kms.put_key_policy(
        KeyId=arn, Policy=policy(says("Allow", root()), says("Allow", user_arn("alice"), "kms:Encrypt", Condition=when))
    )
    alice.encrypt(KeyId=arn, Plaintext=b"x", EncryptionContext=CONTEXT)
    denied(alice.encrypt, KeyId=arn, Plaintext=b"x")
    denied(alice.encrypt, KeyId=arn, Plaintext=b"x", EncryptionContext={"Department": "films"})


def test_the_root_is_known_to_conditions_by_its_own_arn(cloud: Cloud, kms: Any, arn: str) -> None:
    unless = {"ArnNotEquals": {"aws:PrincipalArn": root()}}
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Deny", "*", Condition=unless)))
    kms.encrypt(KeyId=arn, Plaintext=b"x")
    alice = cloud.client("kms", cloud.user("alice", allow("kms:*")))
    denied(alice.encrypt, KeyId=arn, Plaintext=b"x")


def test_a_session_does_not_reach_beyond_its_policies(cloud: Cloud, kms: Any, arn: str) -> None:
    role = cloud.role("app", {"AWS": root()}, allow("kms:*"))
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", [root(), role])))
    limit = policy({"Effect": "Allow", "Action": "kms:DescribeKey", "Resource": "*"})
    sts = cloud.client("sts")
    narrow = sts.assume_role(RoleArn=role, RoleSessionName="narrow", Policy=limit)["Credentials"]
    wide = sts.assume_role(RoleArn=role, RoleSessionName="wide")["Credentials"]
    cloud.client("kms", Keys.of(wide)).encrypt(KeyId=arn, Plaintext=b"x")
    client = cloud.client("kms", Keys.of(narrow))
    client.describe_key(KeyId=arn)
    denied(client.encrypt, KeyId=arn, Plaintext=b"x")


def test_to_encrypt_anew_is_two_rights(cloud: Cloud, kms: Any, arn: str) -> None:
    second = kms.create_key()["KeyMetadata"]["Arn"]
    blob = kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    half = cloud.client("kms", cloud.user("half", allow("kms:ReEncryptFrom", arn)))
    denied(half.re_encrypt, CiphertextBlob=blob, DestinationKeyId=second)
    whole = cloud.client("kms", cloud.user("whole", allow("kms:ReEncryptFrom", arn), allow("kms:ReEncryptTo", second)))
    whole.re_encrypt(CiphertextBlob=blob, DestinationKeyId=second)


@pytest.mark.parametrize(
    "text",
    [
        policy(),
        policy({"Effect": "Allow", "Action": "kms:*", "Resource": "*"}),
        policy({"Effect": "Allow", "Principal": "*", "Action": "kms:*"}),
        policy({"Effect": "Allow", "Principal": {"AWS": "me"}, "Action": "kms:*", "Resource": "*"}),
        policy(says("Allow", root(), Condition={"Sometimes": {"a": "b"}})),
        policy(says("Allow", root()), says("Allow", user_arn("none"))),
    ],
    ids=["nothing", "no principal", "no resource", "no ARN", "no operator", "nobody"],
)
def test_what_is_no_key_policy(kms: Any, arn: str, text: str) -> None:
    assert refused(kms.put_key_policy, KeyId=arn, Policy=text)[0] == "MalformedPolicyDocumentException"
    assert refused(kms.create_key, Policy=text)[0] == "MalformedPolicyDocumentException"


def test_an_alias_is_moved_by_who_may_use_both_keys(cloud: Cloud, kms: Any, arn: str) -> None:
    second = kms.create_key()["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/mine", TargetKeyId=arn)
    name = f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/mine"
    alice = cloud.client("kms", cloud.user("alice", allow("kms:UpdateAlias", [name, second])))
    denied(alice.update_alias, AliasName="alias/mine", TargetKeyId=second)
    bob = cloud.client("kms", cloud.user("bob", allow("kms:UpdateAlias", [name, arn, second])))
    bob.update_alias(AliasName="alias/mine", TargetKeyId=second)


# --- grants -----------------------------------------------------------------------------------------------------------


def test_a_grant_lets_its_grantee_do_what_it_says_until_it_ends(cloud: Cloud, kms: Any, arn: str) -> None:
    alice, bob = (cloud.client("kms", cloud.user(name)) for name in ("alice", "bob"))
    denied(alice.encrypt, KeyId=arn, Plaintext=b"x")
    made = kms.create_grant(KeyId=arn, GranteePrincipal=user_arn("alice"), Operations=["Encrypt", "DescribeKey"])
    blob = alice.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    alice.describe_key(KeyId=arn)
    denied(alice.decrypt, CiphertextBlob=blob)
    denied(alice.list_grants, KeyId=arn)
    denied(bob.encrypt, KeyId=arn, Plaintext=b"x")
    denied(alice.revoke_grant, KeyId=arn, GrantId=made["GrantId"])
    kms.revoke_grant(KeyId=arn, GrantId=made["GrantId"])
    denied(alice.encrypt, KeyId=arn, Plaintext=b"x")


@pytest.mark.parametrize(
    ("constraint", "fitting", "others"),
    [
        (
            {"EncryptionContextSubset": CONTEXT},
            [CONTEXT, {**CONTEXT, "more": "1"}],
            [{}, {"Department": "films"}, {"department": "books"}],
        ),
        ({"EncryptionContextEquals": CONTEXT}, [CONTEXT], [{}, {**CONTEXT, "more": "1"}, {"department": "books"}]),
    ],
)
def test_constraints(
    cloud: Cloud, kms: Any, arn: str, constraint: Any, fitting: list[dict[str, str]], others: list[dict[str, str]]
) -> None:
    alice = cloud.client("kms", cloud.user("alice"))
    operations = ["Encrypt", "Decrypt", "DescribeKey", "GenerateDataKey"]
    kms.create_grant(KeyId=arn, GranteePrincipal=user_arn("alice"), Operations=operations, Constraints=constraint)
    alice.describe_key(KeyId=arn)
    for context in fitting:
        blob = alice.encrypt(KeyId=arn, Plaintext=b"x", EncryptionContext=context)["CiphertextBlob"]
        assert alice.decrypt(CiphertextBlob=blob, EncryptionContext=context)["Plaintext"] == b"x"
        alice.generate_data_key(KeyId=arn, KeySpec="AES_256", EncryptionContext=context)
    for context in others:
        blob = kms.encrypt(KeyId=arn, Plaintext=b"x", EncryptionContext=context)["CiphertextBlob"]
        denied(alice.encrypt, KeyId=arn, Plaintext=b"x", EncryptionContext=context)
        denied(alice.decrypt, CiphertextBlob=blob, EncryptionContext=context)


def test_a_grant_gives_away_no_more_than_it_has(cloud: Cloud, kms: Any, arn: str) -> None:
    alice, bob = (cloud.client("kms", cloud.user(name)) for name in ("alice", "bob"))
    kms.create_grant(
        KeyId=arn,
        GranteePrincipal=user_arn("alice"),
        Operations=["CreateGrant", "Encrypt"],
        Constraints={"EncryptionContextSubset": CONTEXT},
    )
    more = {**CONTEXT, "more": "1"}
    asked = {"KeyId": arn, "GranteePrincipal": user_arn("bob")}
    for operations, constraints in (
        (["Decrypt"], {"EncryptionContextSubset": CONTEXT}),
        (["Encrypt"], {}),
        (["Encrypt"], {"EncryptionContextSubset": {"more": "1"}}),
    ):
        denied(alice.create_grant, **asked, Operations=operations, Constraints=constraints)
    alice.create_grant(**asked, Operations=["Encrypt"], Constraints={"EncryptionContextSubset": more})
    bob.encrypt(KeyId=arn, Plaintext=b"x", EncryptionContext=more)
    denied(bob.encrypt, KeyId=arn, Plaintext=b"x", EncryptionContext=CONTEXT)
    denied(bob.create_grant, **asked, Operations=["Encrypt"])


def test_who_may_retire_a_grant(cloud: Cloud, kms: Any, arn: str) -> None:
    alice, bob, carol = (cloud.client("kms", cloud.user(name)) for name in ("alice", "bob", "carol"))

    def made(*operations: str) -> dict[str, str]:
        found: dict[str, str] = kms.create_grant(
            KeyId=arn,
            GranteePrincipal=user_arn("alice"),
            RetiringPrincipal=user_arn("bob"),
            Operations=["Encrypt", *operations],
        )
        return found

    grant = made()
    for client in (alice, carol, cloud.client("kms", cloud.root(OTHER))):
        denied(client.retire_grant, GrantToken=grant["GrantToken"])
    denied(carol.retire_grant, KeyId=arn, GrantId=grant["GrantId"])
    bob.retire_grant(KeyId=arn, GrantId=grant["GrantId"])
    alice.retire_grant(GrantToken=made("RetireGrant")["GrantToken"])
    kms.retire_grant(GrantToken=made()["GrantToken"])
    assert kms.list_grants(KeyId=arn)["Grants"] == []


def test_a_name_that_is_used_anew_has_no_part_in_a_grant(cloud: Cloud, kms: Any, arn: str) -> None:
    keys = cloud.user("alice")
    kms.create_grant(KeyId=arn, GranteePrincipal=user_arn("alice"), Operations=["Encrypt"])
    cloud.client("kms", keys).encrypt(KeyId=arn, Plaintext=b"x")
    iam = cloud.client("iam")
    iam.delete_access_key(UserName="alice", AccessKeyId=keys.access_key)
    iam.delete_user(UserName="alice")
    denied(cloud.client("kms", cloud.user("alice")).encrypt, KeyId=arn, Plaintext=b"x")


def test_a_role_is_granted_as_a_role_and_as_one_session(cloud: Cloud, kms: Any, arn: str) -> None:
    role = cloud.role("app", {"AWS": root()})
    sts = cloud.client("sts")
    first, second = (
        cloud.client("kms", Keys.of(sts.assume_role(RoleArn=role, RoleSessionName=name)["Credentials"]))
        for name in ("first", "second")
    )
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/app/first"
    kms.create_grant(KeyId=arn, GranteePrincipal=session, Operations=["Encrypt"])
    first.encrypt(KeyId=arn, Plaintext=b"x")
    denied(second.encrypt, KeyId=arn, Plaintext=b"x")
    kms.create_grant(KeyId=arn, GranteePrincipal=role, Operations=["Encrypt"])
    second.encrypt(KeyId=arn, Plaintext=b"x")


def test_to_whom_nothing_can_be_granted(kms: Any, arn: str) -> None:
    for nobody in (user_arn("none"), f"arn:aws:iam::{ACCOUNT}:role/none", "alice", "*", "arn:aws:s3:::x"):
        asked = {"KeyId": arn, "GranteePrincipal": nobody, "Operations": ["Encrypt"]}
        assert refused(kms.create_grant, **asked)[0] == "InvalidArnException"


# --- other accounts ---------------------------------------------------------------------------------------------------


def test_another_account_needs_the_keys_leave_and_its_own(cloud: Cloud, kms: Any, arn: str) -> None:
    other = cloud.client("kms", cloud.root(OTHER))
    iam = cloud.client("iam", cloud.root(OTHER))
    iam.create_user(UserName="eve")
    eve = cloud.client("kms", Keys.of(iam.create_access_key(UserName="eve")["AccessKey"]))
    denied(other.encrypt, KeyId=arn, Plaintext=b"x")
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Allow", root(OTHER), "kms:Encrypt")))
    blob = other.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
    denied(other.decrypt, CiphertextBlob=blob)
    denied(other.describe_key, KeyId=arn)
    denied(eve.encrypt, KeyId=arn, Plaintext=b"x")
    statement = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}
    iam.put_user_policy(UserName="eve", PolicyName="p", PolicyDocument=policy(statement))
    eve.encrypt(KeyId=arn, Plaintext=b"x")
    denied(eve.decrypt, CiphertextBlob=blob)
    kms.create_grant(KeyId=arn, GranteePrincipal=user_arn("eve", OTHER), Operations=["Decrypt"])
    assert eve.decrypt(CiphertextBlob=blob)["Plaintext"] == b"x"
    denied(other.decrypt, CiphertextBlob=blob)
    denied(other.disable_key, KeyId=arn)
    denied(other.schedule_key_deletion, KeyId=arn)
    denied(other.tag_resource, KeyId=arn, Tags=[{"TagKey": "a", "TagValue": "b"}])


# --- EC2 and our own service ------------------------------------------------------------------------------------------


def test_ec2_uses_a_key_for_those_whom_the_key_lets(cloud: Cloud, kms: Any, arn: str) -> None:
    keys = cloud.user("alice", allow(["ec2:*", "kms:*"]))
    ec2 = cloud.client("ec2", keys)
    volume = {"Size": 1, "AvailabilityZone": "us-east-1a", "Encrypted": True, "KmsKeyId": arn}
    ec2.create_volume(**volume)
    only = {"StringEquals": {"kms:ViaService": "ec2.us-west-2.amazonaws.com"}}
    kms.put_key_policy(
        KeyId=arn,
        Policy=policy(says("Allow", root()), says("Deny", user_arn("alice"), "kms:CreateGrant", Condition=only)),
    )
    ec2.create_volume(**volume)
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Deny", "*", "kms:CreateGrant")))
    for client in (ec2, cloud.client("ec2")):
        assert refused(client.create_volume, **volume)[0] == "UnauthorizedOperation"

"""Accounts: opened and closed by the first, each for itself, and what concerns the deployment for the first alone."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
from botocore.exceptions import ClientError

from orchestrator.api.callers import root
from orchestrator.api.operation import dispatch
from orchestrator.model.account import AccessKey, Account
from orchestrator.model.iam import Role
from orchestrator.model.layer import Layer
from orchestrator.model.session import make_deployment_secret, open_token
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import Vpc
from orchestrator.store import Store, Transaction
from tests.api.cloud import ACCOUNT, OTHER, Cloud, Keys, allow, refused


@pytest.fixture
def first(cloud: Cloud) -> Cloud:
    cloud.store.set_meta("account", ACCOUNT)
    return cloud


def opened(cloud: Cloud, email: str = "dev@example.com") -> str:
    status = cloud.client("organizations").create_account(Email=email, AccountName="dev")["CreateAccountStatus"]
    assert (status["State"], status["AccountName"]) == ("SUCCEEDED", "dev")
    account: str = status["AccountId"]
    return account


def assumed(cloud: Cloud, account: str) -> Keys:
    arn = f"arn:aws:iam::{account}:role/OrganizationAccountAccessRole"
    return Keys.of(cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="admin")["Credentials"])


def test_an_account_is_opened_and_entered_as_on_aws(first: Cloud) -> None:
    organizations = first.client("organizations")
    status = organizations.create_account(Email="dev@example.com", AccountName="dev", Tags=[{"Key": "a", "Value": "b"}])
    asked = status["CreateAccountStatus"]["Id"]
    known = organizations.describe_create_account_status(CreateAccountRequestId=asked)["CreateAccountStatus"]
    assert known == status["CreateAccountStatus"]
    account = known["AccountId"]
    shown = organizations.describe_account(AccountId=account)["Account"]
    assert (shown["Name"], shown["Email"], shown["Status"]) == ("dev", "dev@example.com", "ACTIVE")
    assert organizations.list_tags_for_resource(ResourceId=account)["Tags"] == [{"Key": "a", "Value": "b"}]
    keys = assumed(first, account)
    assert first.client("sts", keys).get_caller_identity()["Account"] == account
    ec2 = first.client("ec2", keys)
    [vpc] = ec2.describe_vpcs()["Vpcs"]
    assert vpc["IsDefault"] and vpc["OwnerId"] == account and len(ec2.describe_subnets()["Subnets"]) == 2
    assert first.client("iam", keys).list_users()["Users"] == []


def test_our_own_way_tells_a_key_of_its_root_once(first: Cloud) -> None:
    gateway = first.gateway
    call = gateway.call("orc", "CreateAccount", root(ACCOUNT, "AKIA"), "us-east-1", "r", "192.0.2.1")
    call.params["Name"] = "dev"
    made = dispatch(first.store, gateway._operations["orc", "CreateAccount"], call)
    keys = Keys(made["AccessKeyId"], made["SecretAccessKey"])
    assert first.client("sts", keys).get_caller_identity()["Arn"] == f"arn:aws:iam::{made['AccountId']}:root"
    assert made["SecretAccessKey"] not in str(first.store.events())
    assert [key["AccessKeyId"] for key in first.client("iam", keys).list_access_keys()["AccessKeyMetadata"]] == [
        made["AccessKeyId"]
    ]


def test_accounts_are_listed_in_pages(first: Cloud) -> None:
    made = {opened(first, f"dev{number}@example.com") for number in range(3)}
    pages = first.client("organizations").get_paginator("list_accounts").paginate(PaginationConfig={"PageSize": 2})
    assert {each["Id"] for page in pages for each in page["Accounts"]} == made | {ACCOUNT, OTHER}


def test_what_an_organization_is(first: Cloud) -> None:
    mine = first.client("organizations").describe_organization()["Organization"]
    assert mine["MasterAccountId"] == ACCOUNT
    assert first.client("organizations", first.root(OTHER)).describe_organization()["Organization"] == mine
    [root] = first.client("organizations").list_roots()["Roots"]
    assert first.client("organizations").list_parents(ChildId=OTHER)["Parents"] == [{"Id": root["Id"], "Type": "ROOT"}]


@pytest.mark.parametrize(
    ("action", "given"),
    [
        ("list_accounts", {}),
        ("create_account", {"Email": "a@b.example", "AccountName": "x"}),
        ("describe_account", {"AccountId": ACCOUNT}),
        ("close_account", {"AccountId": ACCOUNT}),
        ("describe_create_account_status", {"CreateAccountRequestId": "car-" + "0" * 32}),
        ("list_roots", {}),
        ("list_parents", {"ChildId": OTHER}),
        ("list_tags_for_resource", {"ResourceId": OTHER}),
    ],
)
def test_other_accounts_have_no_say(first: Cloud, action: str, given: dict[str, str]) -> None:
    code, _ = refused(getattr(first.client("organizations", first.root(OTHER)), action), **given)
    assert code == "AccessDeniedException"
    user = first.user("alice", allow("ec2:*"))
    assert refused(getattr(first.client("organizations", user), action), **given)[0] == "AccessDeniedException"


def test_a_user_of_the_first_account_may_if_a_policy_says_so(first: Cloud) -> None:
    user = first.user("alice", allow("organizations:CreateAccount"))
    made = first.client("organizations", user).create_account(Email="dev@example.com", AccountName="dev")
    assert made["CreateAccountStatus"]["State"] == "SUCCEEDED"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"Email": "nobody"}, "InvalidInputException"),
        ({"AccountName": "\u00e9"}, "InvalidInputException"),
        ({"AccountName": " "}, "InvalidInputException"),
        ({"RoleName": "a b"}, "InvalidInputException"),
        ({"Email": "TAKEN@example.com"}, "ConstraintViolationException"),
    ],
)
def test_what_cannot_be_opened(first: Cloud, given: dict[str, str], code: str) -> None:
    opened(first, "taken@example.com")
    before = len(first.store.all(Account))
    asked = {"Email": "dev@example.com", "AccountName": "dev", **given}
    assert refused(first.client("organizations").create_account, **asked)[0] == code
    assert len(first.store.all(Account)) == before


def test_an_account_is_closed_once_nothing_is_left_in_it(first: Cloud) -> None:
    organizations, account = first.client("organizations"), opened(first)
    keys = assumed(first, account)
    ec2 = first.client("ec2", keys)
    volume = ec2.create_volume(Size=1, AvailabilityZone="us-east-1a")["VolumeId"]
    code, said = refused(organizations.close_account, AccountId=account)
    assert code == "ConstraintViolationException" and volume in said
    with first.store.write() as tx:  # as reconcilers do when it has been deleted
        for row in (*tx.all(Volume, account=account), *tx.all(Layer, account=account)):
            tx.delete(row)
    organizations.close_account(AccountId=account)
    left = [row for table in first.store._tables.values() for row in table.rows.values() if row.account == account]
    assert left == []
    assert refused(ec2.describe_vpcs)[0] == "AuthFailure", "its role is gone, and with it every session"
    assert refused(organizations.describe_account, AccountId=account)[0] == "AccountNotFoundException"
    assert refused(organizations.close_account, AccountId=account)[0] == "AccountNotFoundException"


def test_a_closed_accounts_root_sessions_end(first: Cloud) -> None:
    account = opened(first)
    with first.store.write() as tx:
        key = AccessKey(id="AKIAROOTOFANEWONE111", account=account, created=first.clock(), secret="s" * 40)
        tx.put(key)
    by_root = Keys(key.id, key.secret)
    session = Keys.of(first.client("sts", by_root).get_session_token()["Credentials"])
    assert open_token(make_deployment_secret(first.store), session.token or "").session.account == account
    assert first.client("ec2", session).describe_vpcs()["Vpcs"]
    first.client("organizations").close_account(AccountId=account)
    for keys in (by_root, session):
        with pytest.raises(ClientError, match="AuthFailure"):
            first.client("ec2", keys).describe_vpcs()


@pytest.mark.parametrize(
    ("by_user", "region"),
    [(False, "us-east-1"), (False, "us-west-2"), (True, "us-east-1")],
    ids=["to write", "to furnish a region", "to keep that its user's key was used"],
)
def test_a_call_that_waits_while_its_account_is_closed(
    first: Cloud, monkeypatch: pytest.MonkeyPatch, by_user: bool, region: str
) -> None:
    """It leaves nothing behind, which nobody could reach."""
    first.client("ec2", first.root(OTHER)).describe_vpcs()
    keys = first.root(OTHER)
    if by_user:
        iam = first.client("iam", keys)
        iam.create_user(UserName="alice")
        iam.attach_user_policy(UserName="alice", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess")
        keys = Keys.of(iam.create_access_key(UserName="alice")["AccessKey"])
    write = Store.write

    def late(store: Store, **given: bool) -> AbstractContextManager[Transaction]:
        monkeypatch.setattr(Store, "write", write)
        first.client("organizations").close_account(AccountId=OTHER)
        return store.write(**given)

    monkeypatch.setattr(Store, "write", late)
    create = first.client("ec2", keys, region=region).create_volume
    assert refused(create, Size=1, AvailabilityZone=region + "a")[0] == "AuthFailure"
    assert Store.write is write
    left = [row for table in first.store._tables.values() for row in table.rows.values() if row.account == OTHER]
    assert left == []


def test_the_first_account_stays(first: Cloud) -> None:
    assert refused(first.client("organizations").close_account, AccountId=ACCOUNT)[0] == "ConstraintViolationException"
    assert first.store.get(Account, ACCOUNT) is not None


def test_another_account_cannot_enter_what_the_first_opened(first: Cloud) -> None:
    account = opened(first)
    arn = f"arn:aws:iam::{account}:role/OrganizationAccountAccessRole"
    other = first.client("sts", first.root(OTHER))
    assert refused(other.assume_role, RoleArn=arn, RoleSessionName="mallory")[0] == "AccessDenied"
    assert len(first.store.all(Role, account=account)) == 1
    first.client("ec2", assumed(first, account)).describe_vpcs()
    assert len(first.store.all(Vpc, account=account)) == 1

"""AWS Organizations, as far as a deployment is one: its accounts are listed, opened and closed.

As on AWS, a new account is told no key: it has a role that callers of the first account may assume, and whoever has
assumed it makes users there. All of them are below one root; there are no units and no policies.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any, Final

from orchestrator.api.accounts import ACCESS_ROLE, check_first, close_account, first_account, open_account
from orchestrator.api.iam.lookup import check_tags
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.api.operation import show_page as page
from orchestrator.model.account import Account
from orchestrator.model.errors import EC2Error
from orchestrator.model.tags import tag_set

SERVICE: Final = "organizations"
LARGEST_PAGE: Final = 20
_EMAIL: Final = re.compile(r"[^\s@]{1,64}@[^\s@]{1,253}")
_ROLE_NAME: Final = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)
_NAME: Final = re.compile(r"[\x20-\x7e]{1,50}")


@operation("DescribeOrganization", service=SERVICE)
def describe_organization(call: Call) -> Answer:
    """Every account may know which it is of."""
    first = call.db.get(Account, first_account(call))
    if first is None:
        raise EC2Error("AWSOrganizationsNotInUseException", "This deployment has no first account yet")
    return {
        "Organization": {
            "Id": _organization(first.id),
            "Arn": f"arn:aws:organizations::{first.id}:organization/{_organization(first.id)}",
            "FeatureSet": "ALL",
            "MasterAccountArn": _arn(first.id, first),
            "MasterAccountId": first.id,
            "MasterAccountEmail": _email(first),
            "AvailablePolicyTypes": [],
        }
    }


@operation("ListAccounts", service=SERVICE)
def list_accounts(call: Call, *, next_token: str | None = None, max_results: int | None = None) -> Answer:
    check_first(call)
    return page(call, "Accounts", _accounts(call), lambda one: _show(call, one), smallest=1, largest=LARGEST_PAGE)


@operation("DescribeAccount", service=SERVICE)
def describe_account(call: Call, *, account_id: str) -> Answer:
    check_first(call)
    return {"Account": _show(call, _find(call, account_id))}


@operation("CreateAccount", service=SERVICE, writes=True)
def create_account(
    call: Call,
    *,
    email: str,
    account_name: str,
    role_name: str = ACCESS_ROLE,
    iam_user_access_to_billing: str = "ALLOW",
    tags: list[dict[str, Any]] | None = None,
) -> Answer:
    """At once, so that the first status that is asked for is the last one."""
    check_first(call)
    if not _EMAIL.fullmatch(email):
        raise _invalid(f"Email '{email[:64]}' is no address: expected NAME@HOST")
    if any(each.email.casefold() == email.casefold() for each in call.tx.all(Account)):
        raise EC2Error("ConstraintViolationException", f"EMAIL_ALREADY_EXISTS: another account has {email}")
    if not _ROLE_NAME.fullmatch(role_name):
        raise _invalid("RoleName is 1 to 64 letters, digits and +=,.@_-")
    name = check_name(account_name)
    opened = open_account(call, name, email=email, role_name=role_name, tags=check_tags(tags))
    return {"CreateAccountStatus": _show_status(opened)}


@operation("DescribeCreateAccountStatus", service=SERVICE)
def describe_create_account_status(call: Call, *, create_account_request_id: str) -> Answer:
    check_first(call)
    for account in call.db.all(Account):
        if account.request_id and account.request_id == create_account_request_id:
            return {"CreateAccountStatus": _show_status(account)}
    raise EC2Error(
        "CreateAccountStatusNotFoundException", f"There is no request '{create_account_request_id[:64]}' for an account"
    )


@operation("CloseAccount", service=SERVICE, writes=True)
def close(call: Call, *, account_id: str) -> Answer:
    check_first(call)
    close_account(call, _find(call, account_id))
    return {}


@operation("ListRoots", service=SERVICE)
def list_roots(call: Call, *, next_token: str | None = None, max_results: int | None = None) -> Answer:
    check_first(call)
    organization = _organization(call.account)
    arn = f"arn:aws:organizations::{call.account}:root/{organization}/{_root(call)}"
    return {"Roots": [{"Id": _root(call), "Arn": arn, "Name": "Root", "PolicyTypes": []}]}


@operation("ListParents", service=SERVICE)
def list_parents(call: Call, *, child_id: str, next_token: str | None = None, max_results: int | None = None) -> Answer:
    check_first(call)
    if call.db.get(Account, child_id) is None:
        raise EC2Error("ChildNotFoundException", f"There is no account '{child_id[:64]}'")
    return {"Parents": [{"Id": _root(call), "Type": "ROOT"}]}


@operation("ListTagsForResource", service=SERVICE)
def list_tags_for_resource(call: Call, *, resource_id: str, next_token: str | None = None) -> Answer:
    check_first(call)
    account = call.db.get(Account, resource_id)
    if account is None:
        raise EC2Error("TargetNotFoundException", f"There is no account '{resource_id[:64]}'")
    return {"Tags": tag_set(account.tags)}


def check_name(name: str) -> str:
    if not _NAME.fullmatch(name) or not name.strip():
        raise _invalid("AccountName is 1 to 50 printable ASCII characters")
    return name


def _invalid(message: str) -> EC2Error:
    return EC2Error("InvalidInputException", message)


def _accounts(call: Call) -> list[Account]:
    return list(call.db.all(Account))


def _find(call: Call, account_id: str) -> Account:
    account = call.db.get(Account, account_id)
    if account is None:
        raise EC2Error("AccountNotFoundException", f"There is no account '{account_id[:64]}' in this organization")
    return account


def _organization(first: str) -> str:
    return "o-" + sha256(first.encode()).hexdigest()[:10]


def _root(call: Call) -> str:
    return "r-" + sha256(call.account.encode()).hexdigest()[:4]


def _arn(first: str, account: Account) -> str:
    return f"arn:aws:organizations::{first}:account/{_organization(first)}/{account.id}"


def _email(account: Account) -> str:
    return account.email or f"{account.id}@example.invalid"


def _show(call: Call, account: Account) -> Answer:
    first = first_account(call)
    return {
        "Id": account.id,
        "Arn": _arn(first, account),
        "Email": _email(account),
        "Name": account.name or account.id,
        "Status": "ACTIVE",
        "State": "ACTIVE",
        "JoinedMethod": "INVITED" if account.id == first else "CREATED",
        "JoinedTimestamp": account.created,
    }


def _show_status(account: Account) -> Answer:
    return {
        "Id": account.request_id,
        "AccountName": account.name,
        "State": "SUCCEEDED",
        "RequestedTimestamp": account.created,
        "CompletedTimestamp": account.created,
        "AccountId": account.id,
    }

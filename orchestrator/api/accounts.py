"""The accounts of a deployment: the first, which it starts with, and those that the first opens and closes.

    first ──OpenAccount──► Account, a role in it that the first may assume, on request a key of its root
          ──close────────► gone with its keys, users and default networks; not while it has anything else

What concerns the deployment as a whole (its accounts, the files on its disk, what it owns on the host) is for callers
of the first account.
"""

from __future__ import annotations

import json
import secrets
from typing import Final

from orchestrator.api.operation import Call
from orchestrator.model.account import AccessKey, Account
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import Group, InstanceProfile, Policy, Role, User, mint_access_key_id, mint_id
from orchestrator.model.image import ImageAlias, RetentionRule
from orchestrator.model.instance import Instance
from orchestrator.model.key_pair import KeyPair
from orchestrator.model.kinds import KINDS
from orchestrator.model.kms import DESTROYED, Key, RegionSettings
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import Resource
from orchestrator.model.vpc import DhcpOptions, InternetGateway, NetworkAcl, RouteTable, SecurityGroup, Subnet, Vpc
from orchestrator.store import Store

MOST: Final = 1000
ADMINISTRATORS: Final = "arn:aws:iam::aws:policy/AdministratorAccess"
ACCESS_ROLE: Final = "OrganizationAccountAccessRole"  # as AWS Organizations calls it
# What is no reason to keep an account: rows alone, with nothing on the host and nothing that somebody could miss.
_FURNITURE: Final[tuple[type[Resource], ...]] = (
    AccessKey,
    User,
    Group,
    Role,
    Policy,
    InstanceProfile,
    KeyPair,
    RegionSettings,
    RetentionRule,
    ImageAlias,
    Vpc,
    Subnet,
    SecurityGroup,
    RouteTable,
    NetworkAcl,
    DhcpOptions,
    InternetGateway,
)


def first_account(call: Call) -> str:
    """Its number; empty before the deployment has one."""
    store = call.db if isinstance(call.db, Store) else call.db.store
    return store.meta("account") or ""


def check_first(call: Call) -> None:
    """AccessDeniedException for callers of any other account."""
    if call.account != first_account(call):
        raise EC2Error(
            "AccessDeniedException",
            f"You don't have permissions to access this resource: {call.action} is for the deployment's first account",
        )


def open_account(call: Call, name: str, *, email: str = "", role_name: str = "", tags: dict[str, str]) -> Account:
    """A new account, with a role that the first may assume. Its default networks come when it is first used."""
    if len(call.tx.all(Account)) >= MOST:
        raise EC2Error(
            "ConstraintViolationException",
            f"ACCOUNT_NUMBER_LIMIT_EXCEEDED: a deployment has at most {MOST} accounts",
        )
    account_id = ""
    while not account_id or call.tx.get(Account, account_id) is not None:
        account_id = str(10**11 + secrets.randbelow(9 * 10**11))
    opened = Account(
        id=account_id,
        account=account_id,
        created=call.now,
        name=name,
        email=email,
        request_id="car-" + secrets.token_hex(16),
        tags=tags,
    )
    role = Role(
        id=mint_id(Role.PREFIX),
        account=account_id,
        created=call.now,
        name=role_name or ACCESS_ROLE,
        attached=(ADMINISTRATORS,),
        trust=_trust(call.account),
    )
    call.tx.put(role)
    return call.tx.put(opened)


def _trust(account: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def make_root_key(call: Call, account: Account) -> AccessKey:
    return call.tx.put(
        AccessKey(id=mint_access_key_id(), account=account.id, created=call.now, secret=secrets.token_urlsafe(30))
    )


def close_account(call: Call, account: Account) -> None:
    """Remove an account. ConstraintViolationException while it has what is more than rows."""
    if account.id == first_account(call):
        raise EC2Error("ConstraintViolationException", f"{account.id} is the deployment's first account: it stays")
    rows = [row for kind in KINDS for row in call.tx.all(kind, account=account.id)]
    kept = [row for row in rows if not _goes(row)]
    if kept:
        shown = ", ".join(row.id for row in kept[:10]) + (f" and {len(kept) - 10} more" if len(kept) > 10 else "")
        raise EC2Error("ConstraintViolationException", f"The account {account.id} still has {shown}: delete them first")
    for row in rows:
        if isinstance(row, Vpc):
            call.tx.wake(row)
        if not isinstance(row, Instance):  # one that is terminated goes when its time has come
            call.tx.delete(row)
    if any(isinstance(row, Key) for row in rows):
        call.tx.scrub()


def _goes(row: Resource) -> bool:
    if isinstance(row, Instance):
        return row.state is State.TERMINATED
    if isinstance(row, Key):
        return row.manager != "CUSTOMER" or row.state == DESTROYED
    return isinstance(row, (Account, *_FURNITURE))

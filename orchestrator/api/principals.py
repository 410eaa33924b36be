"""Whom an ARN in a policy or a grant means.

A user's or role's ARN means whoever bears it when the document is written, by its unique id, as IAM keeps it: a user
that is renamed stays who it was, and who bears the name later is somebody else. A document that names nobody is
refused. What has no id goes by name: accounts, whoever is of elsewhere, and all that was written before ids were kept.

Rules: "AWS JSON policy elements: Principal" and "Renaming an IAM user" of Amazon's IAM user guide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.api.operation import Call
from orchestrator.model.account import Account
from orchestrator.model.iam import Role, User
from orchestrator.model.policy import Document
from orchestrator.model.resource import Rows


def root_arn(account: str) -> str:
    return f"arn:aws:iam::{account}:root"


def names(call: Call, bearers: Mapping[str, str]) -> list[str]:
    """ARNs that mean the caller and nobody else, in a document of whose ARNs those in `bearers` mean who has the id."""
    principal = call.caller.principal
    identity = principal.identity if principal is not None else None
    if principal is None or identity is None:
        return [call.caller.arn]
    found = [arn for arn in (call.caller.arn, principal.arn) if bearers.get(arn, identity.id) == identity.id]
    if isinstance(identity, User):  # by an earlier name; roles keep theirs, and sessions share their id
        found += [arn for arn, bearer_id in bearers.items() if bearer_id == identity.id]
    return found


def is_named(call: Call, arn: str, bearer_id: str) -> bool:
    """Whether an ARN means the caller; `bearer_id` is that of who bore it, empty where it goes by name."""
    return arn in names(call, {arn: bearer_id} if bearer_id else {})


class NobodyNamed(Exception):
    """A user's or role's ARN, of an account that is here, which nobody bears."""


def find_bearers(rows: Rows, document: Document) -> dict[str, str]:
    """The users' and roles' ARNs in a document that is written now, with the unique ids of their bearers. Raises
    NobodyNamed."""
    named = {
        arn for each in document.statements for who in (each.principals, each.not_principals) if who for arn in who.aws
    }
    found = {arn: bearer(rows, arn) for arn in sorted(named)}
    for arn, bearer_id in found.items():
        if bearer_id is None:
            raise NobodyNamed(arn)
    return {arn: bearer_id for arn, bearer_id in found.items() if bearer_id}


def bearer(rows: Rows, arn: str) -> str | None:
    """The unique id of the user or role that an ARN names; empty for an account and for one of elsewhere, None when it
    would be of an account here that has no such user or role."""
    parts = arn.split(":", 5)
    if len(parts) != 6 or parts[0] != "arn" or parts[2] not in ("iam", "sts") or not _is_account(rows, parts[4]):
        return ""
    account, what = parts[4], parts[5]
    if what == "root" or what.startswith("federated-user/"):
        return ""
    if what.startswith("assumed-role/"):
        name = what.split("/")[1]
        found: list[Any] = [role for role in rows.all(Role, name=name) if role.account == account]
    else:
        name = what.rpartition("/")[2]
        found = [each for kind in (User, Role) for each in rows.all(kind, name=name) if each.arn == arn]
    return found[0].id if found else None


def _is_account(rows: Rows, account: str) -> bool:
    return rows.get(Account, account) is not None

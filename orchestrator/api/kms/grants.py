"""Grants: leave to use a key, besides what policies say. What they allow is judged in `key_access.py`.

A grant works as soon as it is made, so its token is only needed to retire it.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from typing import Any

from orchestrator.api.key_access import GRANTABLE, covering_grant, judge
from orchestrator.api.kms.lookup import find_grant, find_key, find_own_key, invalid, show_page
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.api.principals import bearer, root_arn
from orchestrator.api.resources import key_targets
from orchestrator.model.errors import EC2Error, unsupported
from orchestrator.model.kms import ENABLED, Grant, Key
from orchestrator.model.policy import Decision

MOST = 1000  # of one key, whose row they are in
CONSTRAINTS = ("EncryptionContextEquals", "EncryptionContextSubset")
_PRINCIPAL = re.compile(
    r"\d{12}|arn:aws:iam::\d{12}:(root|(user|role)/[\x21-\x7e]{1,576})"
    r"|arn:aws:sts::\d{12}:assumed-role/[\w+=,.@-]{1,64}/[\w+=,.@-]{2,64}",
    re.ASCII,
)


@operation("CreateGrant", service="kms", writes=True)
def create_grant(
    call: Call,
    *,
    key_id: str,
    operations: list[str],
    grantee_principal: str | None = None,
    retiring_principal: str | None = None,
    constraints: dict[str, Any] | None = None,
    grant_tokens: list[str] | None = None,
    name: str = "",
) -> Answer:
    """One with the name and all else of an earlier one is that one again."""
    if not grantee_principal:
        raise invalid("GranteePrincipal is required")
    for each in operations:
        if each not in GRANTABLE:
            raise invalid(f"Operation '{each}' is not one of {', '.join(GRANTABLE)}")
    if any(name not in CONSTRAINTS for name in constraints or {}):
        raise unsupported(f"Constraints of grants are {' and '.join(CONSTRAINTS)} here")
    key = find_own_key(call, key_id, ENABLED, shared=True)
    limits = {kind: dict(value) for kind, value in (constraints or {}).items()}
    said = judge(call, key, "kms:CreateGrant", next(key_targets(call)).context, grants=False)
    if said.decision is not Decision.ALLOWED and not covering_grant(call, key, operations, limits):
        raise EC2Error(
            "AccessDeniedException",
            "Who may make grants by a grant can give no operations that it has not, and no fewer constraints",
        )
    grant = Grant(
        id=secrets.token_hex(32),
        token=secrets.token_urlsafe(48),
        created=call.now,
        name=name,
        grantee=grantee_principal,
        grantee_id=_bearer(call, grantee_principal),
        retirer=retiring_principal or "",
        retirer_id=_bearer(call, retiring_principal or ""),
        operations=tuple(operations),
        constraints=limits,
    )
    same = [g for g in key.grants if name and replace(grant, id=g.id, token=g.token, created=g.created) == g]
    if same:
        return {"GrantToken": same[0].token, "GrantId": same[0].id}
    if len(key.grants) >= MOST:
        raise EC2Error("LimitExceededException", f"{key.arn} has {MOST} grants, the most")
    call.tx.put(replace(key, grants=(*key.grants, grant)))
    return {"GrantToken": grant.token, "GrantId": grant.id}


def _bearer(call: Call, principal: str) -> str:
    if not principal:
        return ""
    if not _PRINCIPAL.fullmatch(principal):
        raise EC2Error("InvalidArnException", f"'{principal[:200]}' is no ARN of an account, user, role or session")
    found = bearer(call.db, principal)
    if found is None:
        raise EC2Error("InvalidArnException", f"There is no {principal[:200]}")
    return found


@operation("ListGrants", service="kms")
def list_grants(
    call: Call,
    *,
    key_id: str,
    limit: int | None = None,
    marker: str | None = None,
    grant_id: str | None = None,
    grantee_principal: str | None = None,
) -> Answer:
    key = find_key(call, key_id, shared=True)
    found = [
        (key, grant)
        for grant in key.grants
        if grant_id in (None, grant.id) and grantee_principal in (None, grant.grantee)
    ]
    if grant_id is not None and not found:
        raise EC2Error("InvalidGrantIdException", f"{key.arn} has no grant '{grant_id}'")
    return _show(found, limit, marker)


@operation("ListRetirableGrants", service="kms")
def list_retirable_grants(
    call: Call, *, retiring_principal: str | None = None, limit: int | None = None, marker: str | None = None
) -> Answer:
    if not retiring_principal:
        raise invalid("RetiringPrincipal is required")
    if retiring_principal.partition("::")[2][:12] != call.account:
        raise invalid("RetiringPrincipal must be of the account that asks")
    keys = [key for key in call.db.all(Key) if key.region == call.region]  # grants of other accounts' keys too
    found = [(key, grant) for key in keys for grant in key.grants if grant.retirer == retiring_principal]
    return _show(found, limit, marker)


@operation("RevokeGrant", service="kms", writes=True)
def revoke_grant(call: Call, *, key_id: str, grant_id: str) -> Answer:
    key = find_key(call, key_id, shared=True)
    if grant_id not in [grant.id for grant in key.grants]:
        raise EC2Error("NotFoundException", f"Grant ID {grant_id} not found")
    _remove(call, key, grant_id)
    return {}


@operation("RetireGrant", service="kms", writes=True)
def retire_grant(
    call: Call, *, grant_token: str | None = None, key_id: str | None = None, grant_id: str | None = None
) -> Answer:
    if grant_token is not None:
        if key_id or grant_id:
            raise invalid("Name a GrantToken, or a KeyId and a GrantId")
        key = find_grant(call.db, call.region, grant_token)
        if key is None:
            raise EC2Error("InvalidGrantTokenException", "The grant token is not one that was given out here")
        _remove(call, key, next(grant.id for grant in key.grants if grant.token == grant_token))
        return {}
    if not key_id or not grant_id:
        raise invalid("Name a GrantToken, or a KeyId and a GrantId")
    return revoke_grant(call, key_id=key_id, grant_id=grant_id)


def _remove(call: Call, key: Key, grant_id: str) -> None:
    call.tx.put(replace(key, grants=tuple(grant for grant in key.grants if grant.id != grant_id)))


def _show(found: list[tuple[Key, Grant]], limit: int | None, marker: str | None) -> Answer:
    def show(each: tuple[Key, Grant]) -> Answer:
        key, grant = each
        shown: Answer = {
            "KeyId": key.arn,
            "GrantId": grant.id,
            "Name": grant.name,
            "CreationDate": grant.created,
            "GranteePrincipal": grant.grantee,
            "IssuingAccount": root_arn(key.account),
            "Operations": list(grant.operations),
        }
        if grant.retirer:
            shown["RetiringPrincipal"] = grant.retirer
        if grant.constraints:
            shown["Constraints"] = grant.constraints
        return shown

    return show_page("Grants", found, show, lambda each: each[1].id, limit=limit, marker=marker, size=50, largest=100)

"""Grants: leave to use a key. They are kept and shown; an account's root, as whom all callers act, needs none."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from orchestrator.api.kms.lookup import find_key, find_own_key, invalid, show_page
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import EC2Error, unsupported
from orchestrator.model.kms import ENABLED, Grant, Key

OPERATIONS = (
    "Decrypt",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "ReEncryptFrom",
    "ReEncryptTo",
    "CreateGrant",
    "RetireGrant",
    "DescribeKey",
    "GenerateDataKeyPair",
    "GenerateDataKeyPairWithoutPlaintext",
)  # of symmetric keys


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
        if each not in OPERATIONS:
            raise invalid(f"Operation '{each}' is not one of {', '.join(OPERATIONS)}")
    if "SourceArn" in (constraints or {}):
        raise unsupported("Constraints of grants are EncryptionContextSubset and EncryptionContextEquals here")
    key = find_own_key(call, key_id, ENABLED)
    grant = Grant(
        id=secrets.token_hex(32),
        token=secrets.token_urlsafe(48),
        created=call.now,
        name=name,
        grantee=grantee_principal,
        retirer=retiring_principal or "",
        operations=tuple(operations),
        constraints={kind: dict(value) for kind, value in (constraints or {}).items()},
    )
    same = [g for g in key.grants if name and replace(grant, id=g.id, token=g.token, created=g.created) == g]
    if same:
        return {"GrantToken": same[0].token, "GrantId": same[0].id}
    call.tx.put(replace(key, grants=(*key.grants, grant)))
    return {"GrantToken": grant.token, "GrantId": grant.id}


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
    key = find_key(call, key_id)
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
    found = [(key, grant) for key in call.mine(Key) for grant in key.grants if grant.retirer == retiring_principal]
    return _show(found, limit, marker)


@operation("RevokeGrant", service="kms", writes=True)
def revoke_grant(call: Call, *, key_id: str, grant_id: str) -> Answer:
    key = find_key(call, key_id)
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
        for key in call.mine(Key):
            for grant in key.grants:
                if secrets.compare_digest(grant.token.encode(), grant_token.encode()):
                    _remove(call, key, grant.id)
                    return {}
        raise EC2Error("InvalidGrantTokenException", "The grant token is not one that was given out here")
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
            "IssuingAccount": f"arn:aws:iam::{key.account}:root",
            "Operations": list(grant.operations),
        }
        if grant.retirer:
            shown["RetiringPrincipal"] = grant.retirer
        if grant.constraints:
            shown["Constraints"] = grant.constraints
        return shown

    return show_page("Grants", found, show, lambda each: each[1].id, limit=limit, marker=marker, size=50, largest=100)

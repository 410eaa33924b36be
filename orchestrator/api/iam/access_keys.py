"""Access keys: what users sign with. The secret is told once, when the key is made."""

from __future__ import annotations

import secrets
from dataclasses import replace

from orchestrator.api.iam.lookup import exceeded, invalid, missing, page
from orchestrator.api.iam.users import calling_user, find_user
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.account import AccessKey
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import User, mint_access_key_id

MAX_KEYS = 2  # of a user, so that one can be changed while the other is in use


@operation("CreateAccessKey", service="iam", writes=True)
def create_access_key(call: Call, *, user_name: str | None = None) -> Answer:
    user = _holder(call, user_name)
    if len(_keys(call, user)) >= MAX_KEYS:
        raise exceeded(f"Cannot exceed quota for AccessKeysPerUser: {MAX_KEYS}")
    key = AccessKey(
        id=mint_access_key_id(),
        account=call.account,
        created=call.now,
        secret=secrets.token_urlsafe(30),
        user=user.id if user else "",
    )
    call.tx.put(key)
    return {"AccessKey": {**_show(key, user), "SecretAccessKey": key.secret}}


@operation("ListAccessKeys", service="iam")
def list_access_keys(
    call: Call, *, user_name: str | None = None, marker: str | None = None, max_items: int | None = None
) -> Answer:
    user = _holder(call, user_name)
    return page(
        "AccessKeyMetadata",
        _keys(call, user),
        lambda key: _show(key, user),
        lambda key: key.id,
        marker=marker,
        max_items=max_items,
    )


@operation("UpdateAccessKey", service="iam", writes=True)
def update_access_key(call: Call, *, access_key_id: str, status: str, user_name: str | None = None) -> Answer:
    if status not in ("Active", "Inactive"):
        raise invalid(f"Status must be Active or Inactive, not '{status[:40]}'")
    key = _find(call, user_name, access_key_id)
    if not key.user and status == "Inactive":
        _keep_a_root_key(call, key)
    call.tx.put(replace(key, active=status == "Active"))
    return {}


@operation("DeleteAccessKey", service="iam", writes=True)
def delete_access_key(call: Call, *, access_key_id: str, user_name: str | None = None) -> Answer:
    key = _find(call, user_name, access_key_id)
    if not key.user:
        _keep_a_root_key(call, key)
    call.tx.delete(key)
    return {}


@operation("GetAccessKeyLastUsed", service="iam")
def get_access_key_last_used(call: Call, *, access_key_id: str) -> Answer:
    key = call.db.get(AccessKey, access_key_id)
    if key is None or key.account != call.account:
        raise missing(f"The Access Key with id {access_key_id[:128]} cannot be found.")
    user = call.db.get(User, key.user) if key.user else None
    used: Answer = {"ServiceName": key.used_service or "N/A", "Region": key.used_region or "N/A"}
    if key.used_at is not None:
        used["LastUsedDate"] = key.used_at
    return {"UserName": user.name if user else "root", "AccessKeyLastUsed": used}


def _holder(call: Call, user_name: str | None) -> User | None:
    """None for the account's root, when it asks of itself."""
    if user_name is None and call.caller.principal is None and calling_user(call) is None:
        return None
    return find_user(call, user_name)


def _keys(call: Call, user: User | None) -> list[AccessKey]:
    if user is not None:
        return call.db.all(AccessKey, user=user.id)
    return [key for key in call.db.all(AccessKey, account=call.account) if not key.user]


def _find(call: Call, user_name: str | None, access_key_id: str) -> AccessKey:
    user = _holder(call, user_name)
    key = next((key for key in _keys(call, user) if key.id == access_key_id), None)
    if key is None:
        raise missing(f"The Access Key with id {access_key_id[:128]} cannot be found.")
    return key


def _keep_a_root_key(call: Call, key: AccessKey) -> None:
    """There is no console here through which an account without any key could be had back."""
    if not any(each.active and each.id != key.id for each in _keys(call, None)):
        raise EC2Error("DeleteConflict", "This is the last active access key of the account's root: make another", 409)


def _show(key: AccessKey, user: User | None) -> Answer:
    return {
        "UserName": user.name if user else "root",
        "AccessKeyId": key.id,
        "Status": "Active" if key.active else "Inactive",
        "CreateDate": key.created,
    }

"""A key's life: made, described, disabled, deleted after its days of waiting; its policy, tags and rotation.

Only symmetric keys are made here. What policies say is judged in `key_access.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

from orchestrator.api.ec2.encryption import service_key
from orchestrator.api.key_access import judge
from orchestrator.api.kms.lookup import alias_arn, check_state, find_key, find_own_key, invalid, show_page
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.api.principals import NobodyNamed, find_bearers
from orchestrator.model.errors import EC2Error
from orchestrator.model.kms import (
    DESTROYED,
    DISABLED,
    EBS_ALIAS,
    ENABLED,
    PENDING,
    Key,
    Rotation,
    default_policy,
    find_named,
    rotated,
)
from orchestrator.model.policy import Decision, PolicyError, parse_key_policy
from orchestrator.model.tags import add_tags, check_tags
from orchestrator.store import Store

SPEC = "SYMMETRIC_DEFAULT"
SHORTEST_WAIT_DAYS, LONGEST_WAIT_DAYS = 7, 30
ROTATION_DAYS = 365
MOST_ROTATIONS_ON_DEMAND = 25
_LARGEST_POLICY_BYTES = 32 << 10


@operation("CreateKey", service="kms", writes=True)
def create_key(
    call: Call,
    *,
    policy: str | None = None,
    description: str = "",
    key_usage: str = "ENCRYPT_DECRYPT",
    customer_master_key_spec: str | None = None,
    key_spec: str | None = None,
    origin: str = "AWS_KMS",
    bypass_policy_lockout_safety_check: bool = False,
    tags: list[dict[str, str]] | None = None,
    multi_region: bool = False,
) -> Answer:
    if key_spec and customer_master_key_spec:
        raise invalid("Use KeySpec or CustomerMasterKeySpec, not both")
    allowed = (
        ("KeySpec", key_spec or customer_master_key_spec or SPEC, SPEC),
        ("KeyUsage", key_usage, "ENCRYPT_DECRYPT"),
        ("Origin", origin, "AWS_KMS"),
        ("MultiRegion", multi_region, False),
    )
    for name, value, only in allowed:
        if value != only:
            raise EC2Error("UnsupportedOperationException", f"{name} {value} is not offered here: only {only} is")
    key = Key(
        id=str(uuid4()),
        account=call.account,
        region=call.region,
        created=call.now,
        material=call.keys.new_material(),
        description=description,
        tags=_check_tags({}, tags or ()),
    )
    if policy:
        key = _with_policy(call, key, policy, bypass_policy_lockout_safety_check)
    return {"KeyMetadata": _metadata(call.tx.put(key))}


def _metadata(key: Key) -> Answer:
    return {
        "AWSAccountId": key.account,
        "KeyId": key.id,
        "Arn": key.arn,
        "CreationDate": key.created,
        "Enabled": key.state == ENABLED,
        "Description": key.description,
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": key.state,
        "DeletionDate": key.delete_at,
        "Origin": "AWS_KMS",
        "KeyManager": key.manager,
        "CustomerMasterKeySpec": SPEC,
        "KeySpec": SPEC,
        "EncryptionAlgorithms": [SPEC],
        "MultiRegion": False,
    }


@operation("DescribeKey", service="kms")
def describe_key(call: Call, *, key_id: str, grant_tokens: list[str] | None = None) -> Answer:
    """Whoever asks for alias/aws/ebs has the key made that the alias stands for, as on KMS."""
    if key_id in (EBS_ALIAS, alias_arn(call, EBS_ALIAS)) and isinstance(call.db, Store):
        if (known := find_named(call.db, call.account, call.region, EBS_ALIAS)) is None:
            with call.db.write() as tx:
                known = service_key(replace(call, db=tx))
        return {"KeyMetadata": _metadata(known)}
    return {"KeyMetadata": _metadata(find_key(call, key_id, by_alias=True, shared=True))}


@operation("ListKeys", service="kms")
def list_keys(call: Call, *, limit: int | None = None, marker: str | None = None) -> Answer:
    keys = [key for key in call.mine(Key) if key.state != DESTROYED]
    return show_page(
        "Keys",
        keys,
        lambda key: {"KeyId": key.id, "KeyArn": key.arn},
        lambda key: key.id,
        limit=limit,
        marker=marker,
        size=100,
        largest=1000,
    )


@operation("UpdateKeyDescription", service="kms", writes=True)
def update_key_description(call: Call, *, key_id: str, description: str) -> Answer:
    key = find_own_key(call, key_id, ENABLED, DISABLED)
    call.tx.put(replace(key, description=description))
    return {}


@operation("EnableKey", service="kms", writes=True)
def enable_key(call: Call, *, key_id: str) -> Answer:
    key = call.tx.put(replace(find_own_key(call, key_id, ENABLED, DISABLED), state=ENABLED))
    call.tx.wake(key)  # it may have missed its rotation
    return {}


@operation("DisableKey", service="kms", writes=True)
def disable_key(call: Call, *, key_id: str) -> Answer:
    call.tx.put(replace(find_own_key(call, key_id, ENABLED, DISABLED), state=DISABLED))
    return {}


@operation("ScheduleKeyDeletion", service="kms", writes=True)
def schedule_key_deletion(call: Call, *, key_id: str, pending_window_in_days: int = LONGEST_WAIT_DAYS) -> Answer:
    if not SHORTEST_WAIT_DAYS <= pending_window_in_days <= LONGEST_WAIT_DAYS:
        raise invalid(
            f"PendingWindowInDays {pending_window_in_days} is not from {SHORTEST_WAIT_DAYS} to {LONGEST_WAIT_DAYS}"
        )
    key = find_own_key(call, key_id, ENABLED, DISABLED)
    delete_at = call.now + timedelta(days=pending_window_in_days)
    key = call.tx.put(replace(key, state=PENDING, delete_at=delete_at))
    call.tx.wake(key)
    return {
        "KeyId": key.arn,
        "DeletionDate": delete_at,
        "KeyState": key.state,
        "PendingWindowInDays": pending_window_in_days,
    }


@operation("CancelKeyDeletion", service="kms", writes=True)
def cancel_key_deletion(call: Call, *, key_id: str) -> Answer:
    """The key is disabled then."""
    key = find_own_key(call, key_id, PENDING)
    call.tx.put(replace(key, state=DISABLED, delete_at=None))
    return {"KeyId": key.arn}


# --- policies ---------------------------------------------------------------------------------------------------------


@operation("GetKeyPolicy", service="kms")
def get_key_policy(call: Call, *, key_id: str, policy_name: str = "default") -> Answer:
    key = find_key(call, key_id)
    _check_policy_name(policy_name)
    return {"Policy": key.policy or default_policy(key), "PolicyName": "default"}


@operation("PutKeyPolicy", service="kms", writes=True)
def put_key_policy(
    call: Call,
    *,
    key_id: str,
    policy: str,
    policy_name: str = "default",
    bypass_policy_lockout_safety_check: bool = False,
) -> Answer:
    key = find_own_key(call, key_id)
    _check_policy_name(policy_name)
    call.tx.put(_with_policy(call, key, policy, bypass_policy_lockout_safety_check))
    return {}


@operation("ListKeyPolicies", service="kms")
def list_key_policies(call: Call, *, key_id: str, limit: int | None = None, marker: str | None = None) -> Answer:
    find_key(call, key_id)
    return {"PolicyNames": ["default"], "Truncated": False}


def _check_policy_name(name: str) -> None:
    if name != "default":
        raise EC2Error("NotFoundException", f"No policy '{name}': the only name is default")


def _with_policy(call: Call, key: Key, policy: str, bypass: bool) -> Key:
    """It must be a key's policy and, unless the caller wants it so, one under which the caller may change it again."""
    if len(policy.encode()) > _LARGEST_POLICY_BYTES:
        raise EC2Error("LimitExceededException", f"The policy is longer than {_LARGEST_POLICY_BYTES} bytes")
    try:
        document = parse_key_policy(policy)
    except PolicyError as error:
        raise EC2Error("MalformedPolicyDocumentException", str(error)) from None
    try:
        bearers = find_bearers(call.db, document)
    except NobodyNamed as error:
        raise EC2Error(
            "MalformedPolicyDocumentException",
            f"Policy contains a statement with one or more invalid principals: nobody is {error}",
        ) from None
    changed = replace(key, policy=policy, policy_bearers=bearers)
    then = judge(call, changed, "kms:PutKeyPolicy", {}, grants=False)
    if not bypass and then.decision is not Decision.ALLOWED:
        raise EC2Error(
            "MalformedPolicyDocumentException",
            "The new key policy will not allow you to update the key policy in the future.",
        )
    return changed


# --- tags -------------------------------------------------------------------------------------------------------------


@operation("TagResource", service="kms", writes=True)
def tag_resource(call: Call, *, key_id: str, tags: list[dict[str, str]]) -> Answer:
    key = find_own_key(call, key_id, ENABLED, DISABLED)
    call.tx.put(replace(key, tags=_check_tags(key.tags, tags)))
    return {}


@operation("UntagResource", service="kms", writes=True)
def untag_resource(call: Call, *, key_id: str, tag_keys: list[str]) -> Answer:
    key = find_own_key(call, key_id, ENABLED, DISABLED)
    call.tx.put(replace(key, tags={name: value for name, value in key.tags.items() if name not in tag_keys}))
    return {}


@operation("ListResourceTags", service="kms")
def list_resource_tags(call: Call, *, key_id: str, limit: int | None = None, marker: str | None = None) -> Answer:
    key = find_key(call, key_id)
    return show_page(
        "Tags",
        list(key.tags.items()),
        lambda tag: {"TagKey": tag[0], "TagValue": tag[1]},
        lambda tag: tag[0],
        limit=limit,
        marker=marker,
        size=50,
        largest=50,
    )


def _check_tags(old: Mapping[str, str], given: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    try:
        return add_tags(old, check_tags({"Key": tag["TagKey"], "Value": tag["TagValue"]} for tag in given))
    except EC2Error as error:
        code = "LimitExceededException" if error.code == "TagLimitExceeded" else "TagException"
        raise EC2Error(code, error.message) from error


# --- rotation ---------------------------------------------------------------------------------------------------------


@operation("EnableKeyRotation", service="kms", writes=True)
def enable_key_rotation(call: Call, *, key_id: str, rotation_period_in_days: int | None = None) -> Answer:
    key = find_own_key(call, key_id, ENABLED)
    days = rotation_period_in_days or key.rotation_days or ROTATION_DAYS
    if days != key.rotation_days:
        key = call.tx.put(replace(key, rotation_days=days, rotate_at=call.now + timedelta(days=days)))
        call.tx.wake(key)
    return {}


@operation("DisableKeyRotation", service="kms", writes=True)
def disable_key_rotation(call: Call, *, key_id: str) -> Answer:
    call.tx.put(replace(find_own_key(call, key_id, ENABLED), rotation_days=0, rotate_at=None))
    return {}


@operation("GetKeyRotationStatus", service="kms")
def get_key_rotation_status(call: Call, *, key_id: str) -> Answer:
    """A key that waits for its deletion is not rotated, and says so."""
    key = find_key(call, key_id, shared=True)
    rotates = bool(key.rotation_days) and key.state != PENDING
    answer: Answer = {"KeyId": key.arn, "KeyRotationEnabled": rotates}
    if rotates:
        answer |= {"RotationPeriodInDays": key.rotation_days, "NextRotationDate": key.rotate_at}
    return answer


@operation("RotateKeyOnDemand", service="kms", writes=True)
def rotate_key_on_demand(call: Call, *, key_id: str) -> Answer:
    key = find_own_key(call, key_id)
    check_state(key, (ENABLED,))
    if sum(rotation.kind == "ON_DEMAND" for rotation in key.rotations) >= MOST_ROTATIONS_ON_DEMAND:
        raise EC2Error(
            "LimitExceededException", f"{key.arn} has been rotated {MOST_ROTATIONS_ON_DEMAND} times on demand, the most"
        )
    call.tx.put(rotated(key, call.keys.new_material(), Rotation(at=call.now, kind="ON_DEMAND")))
    return {"KeyId": key.arn}


@operation("ListKeyRotations", service="kms")
def list_key_rotations(call: Call, *, key_id: str, limit: int | None = None, marker: str | None = None) -> Answer:
    key = find_key(call, key_id)
    return show_page(
        "Rotations",
        list(enumerate(key.rotations)),
        lambda each: {"KeyId": key.arn, "RotationDate": each[1].at, "RotationType": each[1].kind},
        lambda each: f"{each[0]:06}",
        limit=limit,
        marker=marker,
        size=100,
        largest=1000,
    )

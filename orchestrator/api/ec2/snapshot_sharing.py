"""Who may make volumes of a snapshot, besides its owner: accounts, or everybody, and a region's bar on the latter.

An encrypted snapshot is never public, and one of the default key never leaves its account: nobody else may use that
key. Source: "Share a snapshot" and "Block public access for snapshots" in the EBS user guide.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from orchestrator.api.ec2.encryption import region_settings
from orchestrator.api.ec2.owners import is_account
from orchestrator.api.ec2.snapshots import own_snapshot
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of
from orchestrator.model.kms import EBS_ALIAS, Key
from orchestrator.model.snapshot import Snapshot

PERMISSION: Final = "createVolumePermission"
ATTRIBUTES: Final = (PERMISSION, "productCodes")
MOST_CHANGES: Final = 500
MOST_ACCOUNTS: Final = 1000
BLOCKING: Final = ("block-all-sharing", "block-new-sharing")


@operation("DescribeSnapshotAttribute")
def describe_snapshot_attribute(call: Call, *, attribute: str, snapshot_id: str) -> Answer:
    one_of("Attribute", attribute, ATTRIBUTES)
    snapshot = own_snapshot(call, snapshot_id)
    if attribute == "productCodes":
        return {"SnapshotId": snapshot.id, "ProductCodes": []}
    permissions: list[Answer] = [{"UserId": account} for account in snapshot.shared_with]
    if snapshot.public:
        permissions.append({"Group": "all"})
    return {"SnapshotId": snapshot.id, "CreateVolumePermissions": permissions}


@operation("ModifySnapshotAttribute", writes=True)
def modify_snapshot_attribute(
    call: Call,
    *,
    snapshot_id: str,
    attribute: str | None = None,
    create_volume_permission: Answer | None = None,
    operation_type: str | None = None,
    user_ids: list[str] | None = None,
    group_names: list[str] | None = None,
) -> Answer:
    """In either form: CreateVolumePermission, or an operation with its users and groups. One call adds or removes."""
    if attribute not in (None, PERMISSION):
        raise invalid_parameter("Attribute", attribute, f"{PERMISSION}: nothing else can be changed")
    given = create_volume_permission or {}
    if given and (operation_type or user_ids or group_names):
        raise EC2Error("InvalidParameterCombination", "CreateVolumePermission cannot be used with OperationType")
    if operation_type is not None:
        one_of("OperationType", operation_type, ("add", "remove"))
        entries = [{"UserId": user} for user in user_ids or ()] + [{"Group": group} for group in group_names or ()]
        given = {operation_type.capitalize(): entries}
    elif user_ids or group_names:
        raise missing_parameter("OperationType")
    added, removed = given.get("Add") or [], given.get("Remove") or []
    if added and removed:
        raise EC2Error("InvalidParameterCombination", "One call can add permissions or remove them, not both")
    if not added and not removed:
        raise missing_parameter("CreateVolumePermission")
    if len(added) + len(removed) > MOST_CHANGES:
        raise invalid_parameter(
            "CreateVolumePermission", f"{len(added) + len(removed)} changes", f"at most {MOST_CHANGES}"
        )
    snapshot = own_snapshot(call, snapshot_id)
    accounts, everybody = _read(added or removed)
    if removed:
        kept = tuple(account for account in snapshot.shared_with if account not in accounts)
        call.tx.put(replace(snapshot, shared_with=kept, public=snapshot.public and not everybody))
        return {}
    _check_sharing(call, snapshot, everybody)
    shared_with = tuple(dict.fromkeys((*snapshot.shared_with, *accounts)))
    if len(shared_with) > MOST_ACCOUNTS:
        raise EC2Error(
            "ResourceLimitExceeded", f"A snapshot can be shared with {MOST_ACCOUNTS} accounts, not {len(shared_with)}"
        )
    call.tx.put(replace(snapshot, shared_with=shared_with, public=snapshot.public or everybody))
    return {}


def _read(permissions: list[dict[str, Any]]) -> tuple[list[str], bool]:
    """Accounts, and whether everybody is meant."""
    accounts: list[str] = []
    everybody = False
    for permission in permissions:
        user, group = permission.get("UserId"), permission.get("Group")
        if (user is None) == (group is None):
            raise EC2Error("InvalidParameterCombination", "A permission names either a UserId or a Group")
        if group is not None:
            one_of("Group", group, ("all",))
            everybody = True
        elif user is not None:
            if not is_account(user):
                raise invalid_parameter("UserId", user, "an account of 12 digits")
            accounts.append(user)
    return accounts, everybody


def _check_sharing(call: Call, snapshot: Snapshot, everybody: bool) -> None:
    if snapshot.is_archived(call.now):
        raise EC2Error("IncorrectState", f"The snapshot '{snapshot.id}' is archived: restore it first")
    if not snapshot.encrypted:
        if everybody and region_settings(call).snapshot_block_public != "unblocked":
            raise EC2Error(
                "OperationNotPermitted",
                f"Public sharing of snapshots is blocked in {call.region}: see DisableSnapshotBlockPublicAccess",
            )
        return
    if everybody:
        raise EC2Error("OperationNotPermitted", f"The snapshot '{snapshot.id}' is encrypted: it cannot be public")
    key = call.db.get(Key, snapshot.key_id)
    if key is None or key.manager == "AWS" or EBS_ALIAS in key.aliases:
        raise EC2Error(
            "OperationNotPermitted",
            f"The snapshot '{snapshot.id}' is encrypted with the default key, which no other account can use: "
            "copy it under a key of your own",
        )


@operation("ResetSnapshotAttribute", writes=True)
def reset_snapshot_attribute(call: Call, *, attribute: str, snapshot_id: str) -> Answer:
    """Nobody but the owner, again."""
    if attribute != PERMISSION:
        raise invalid_parameter("Attribute", attribute, f"{PERMISSION}: nothing else can be reset")
    call.tx.put(replace(own_snapshot(call, snapshot_id), shared_with=(), public=False))
    return {}


# --- a region's bar -------------------------------------------------------------------------------------------------


@operation("EnableSnapshotBlockPublicAccess", writes=True)
def enable_snapshot_block_public_access(call: Call, *, state: str) -> Answer:
    """block-all-sharing: public snapshots of the region are private as long as it holds; their permissions stay."""
    return _set_block(call, one_of("State", state, BLOCKING))


@operation("DisableSnapshotBlockPublicAccess", writes=True)
def disable_snapshot_block_public_access(call: Call) -> Answer:
    return _set_block(call, "unblocked")


def _set_block(call: Call, state: str) -> Answer:
    call.tx.put(replace(region_settings(call), snapshot_block_public=state))
    return {"State": state}


@operation("GetSnapshotBlockPublicAccessState")
def get_snapshot_block_public_access_state(call: Call) -> Answer:
    return {"State": region_settings(call).snapshot_block_public, "ManagedBy": "account"}

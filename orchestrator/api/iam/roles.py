"""Roles: rights that others assume for a while; and instance profiles, by which instances do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from orchestrator.api.iam.lookup import (
    check_boundary,
    check_document,
    check_new_name,
    check_path,
    check_tags,
    conflict,
    exceeded,
    find,
    invalid,
    page,
    show_boundary,
    show_document,
    show_tags,
)
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.api.principals import NobodyNamed, find_bearers
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import InstanceProfile, Role, mint_id
from orchestrator.model.policy import parse_trust

MAX_TRUST_CHARACTERS: Final = 2048
SESSION_S: Final = (3600, 43200)  # least and most that MaxSessionDuration may be


@operation("CreateRole", service="iam", writes=True)
def create_role(
    call: Call,
    *,
    role_name: str,
    assume_role_policy_document: str,
    path: str | None = None,
    description: str = "",
    max_session_duration: int = SESSION_S[0],
    permissions_boundary: str | None = None,
    tags: list[Any] | None = None,
) -> Answer:
    role = Role(
        id=mint_id(Role.PREFIX),
        account=call.account,
        created=call.now,
        name=check_new_name(call, Role, role_name),
        path=check_path(path),
        **_check_trust(call, assume_role_policy_document),
        description=_check_description(description),
        max_session_s=_check_duration(max_session_duration),
        boundary=check_boundary(call, permissions_boundary),
        tags=check_tags(tags),
    )
    return {"Role": show_role(call.tx.put(role), whole=True)}


@operation("GetRole", service="iam")
def get_role(call: Call, *, role_name: str) -> Answer:
    return {"Role": {**show_role(find(call, Role, role_name), whole=True), "RoleLastUsed": {}}}


@operation("ListRoles", service="iam")
def list_roles(
    call: Call, *, path_prefix: str = "/", marker: str | None = None, max_items: int | None = None
) -> Answer:
    roles = [role for role in call.mine(Role) if role.path.startswith(path_prefix)]
    return page("Roles", roles, show_role, lambda role: role.name, marker=marker, max_items=max_items)


@operation("UpdateRole", service="iam", writes=True)
def update_role(
    call: Call, *, role_name: str, description: str | None = None, max_session_duration: int | None = None
) -> Answer:
    role = find(call, Role, role_name)
    if description is not None:
        role = replace(role, description=_check_description(description))
    if max_session_duration is not None:
        role = replace(role, max_session_s=_check_duration(max_session_duration))
    call.tx.put(role)
    return {}


@operation("UpdateRoleDescription", service="iam", writes=True)
def update_role_description(call: Call, *, role_name: str, description: str) -> Answer:
    role = replace(find(call, Role, role_name), description=_check_description(description))
    return {"Role": show_role(call.tx.put(role), whole=True)}


@operation("UpdateAssumeRolePolicy", service="iam", writes=True)
def update_assume_role_policy(call: Call, *, role_name: str, policy_document: str) -> Answer:
    role = find(call, Role, role_name)
    call.tx.put(replace(role, **_check_trust(call, policy_document)))
    return {}


@operation("DeleteRole", service="iam", writes=True)
def delete_role(call: Call, *, role_name: str) -> Answer:
    role = find(call, Role, role_name)
    if call.db.all(InstanceProfile, role_id=role.id):
        raise conflict("Cannot delete entity, must remove roles from instance profile first.")
    if role.inline or role.attached:
        raise conflict("Cannot delete entity, must remove the role's policies first.")
    call.tx.delete(role)
    return {}


def _check_trust(call: Call, document: str) -> dict[str, Any]:
    """A trust policy, as fields of a role's row."""
    trust = check_document(document, MAX_TRUST_CHARACTERS, trust=True)
    try:
        return {"trust": trust, "trust_bearers": find_bearers(call.db, parse_trust(trust))}
    except NobodyNamed as error:
        raise EC2Error("MalformedPolicyDocument", f'Invalid principal in policy: "AWS":"{error}"') from None


def _check_description(text: str) -> str:
    if len(text) > 1000:
        raise invalid(f"A description has at most 1000 characters; this has {len(text)}")
    return text


def _check_duration(seconds: int) -> int:
    least, most = SESSION_S
    if not least <= seconds <= most:
        raise invalid(f"MaxSessionDuration is from {least} to {most} seconds, not {seconds}")
    return seconds


def show_role(role: Role, *, whole: bool = False) -> Answer:
    shown: Answer = {
        "Path": role.path,
        "RoleName": role.name,
        "RoleId": role.id,
        "Arn": role.arn,
        "CreateDate": role.created,
        "AssumeRolePolicyDocument": show_document(role.trust),
        "MaxSessionDuration": role.max_session_s,
    }
    if role.description:
        shown["Description"] = role.description
    return {**shown, **show_boundary(role), **show_tags(role)} if whole else shown


# --- instance profiles ------------------------------------------------------------------------------------------------


@operation("CreateInstanceProfile", service="iam", writes=True)
def create_instance_profile(
    call: Call, *, instance_profile_name: str, path: str | None = None, tags: list[Any] | None = None
) -> Answer:
    profile = InstanceProfile(
        id=mint_id("AIPA"),
        account=call.account,
        created=call.now,
        name=check_new_name(call, InstanceProfile, instance_profile_name),
        path=check_path(path),
        tags=check_tags(tags),
    )
    return {"InstanceProfile": _show(call, call.tx.put(profile))}


@operation("GetInstanceProfile", service="iam")
def get_instance_profile(call: Call, *, instance_profile_name: str) -> Answer:
    return {"InstanceProfile": _show(call, find(call, InstanceProfile, instance_profile_name))}


@operation("ListInstanceProfiles", service="iam")
def list_instance_profiles(
    call: Call, *, path_prefix: str = "/", marker: str | None = None, max_items: int | None = None
) -> Answer:
    found = [profile for profile in call.mine(InstanceProfile) if profile.path.startswith(path_prefix)]
    return _page(call, found, marker, max_items)


@operation("ListInstanceProfilesForRole", service="iam")
def list_instance_profiles_for_role(
    call: Call, *, role_name: str, marker: str | None = None, max_items: int | None = None
) -> Answer:
    role = find(call, Role, role_name)
    return _page(call, call.db.all(InstanceProfile, role_id=role.id), marker, max_items)


@operation("DeleteInstanceProfile", service="iam", writes=True)
def delete_instance_profile(call: Call, *, instance_profile_name: str) -> Answer:
    """An instance that has it goes on, and finds no credentials any more, as on AWS."""
    profile = find(call, InstanceProfile, instance_profile_name)
    if profile.role_id and call.db.get(Role, profile.role_id) is not None:
        raise conflict("Cannot delete entity, must remove roles from instance profile first.")
    call.tx.delete(profile)
    return {}


@operation("AddRoleToInstanceProfile", service="iam", writes=True)
def add_role_to_instance_profile(call: Call, *, instance_profile_name: str, role_name: str) -> Answer:
    profile, role = find(call, InstanceProfile, instance_profile_name), find(call, Role, role_name)
    if profile.role_id:
        raise exceeded("Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1")
    call.tx.put(replace(profile, role_id=role.id))
    return {}


@operation("RemoveRoleFromInstanceProfile", service="iam", writes=True)
def remove_role_from_instance_profile(call: Call, *, instance_profile_name: str, role_name: str) -> Answer:
    profile, role = find(call, InstanceProfile, instance_profile_name), find(call, Role, role_name)
    if profile.role_id != role.id:
        raise EC2Error("NoSuchEntity", f"Role {role.name} is not in the instance profile {profile.name}", 404)
    call.tx.put(replace(profile, role_id=""))
    return {}


def _page(call: Call, found: list[InstanceProfile], marker: str | None, max_items: int | None) -> Answer:
    return page(
        "InstanceProfiles",
        found,
        lambda profile: _show(call, profile),
        lambda profile: profile.name,
        marker=marker,
        max_items=max_items,
    )


def _show(call: Call, profile: InstanceProfile) -> Answer:
    role = call.db.get(Role, profile.role_id) if profile.role_id else None
    return {
        "Path": profile.path,
        "InstanceProfileName": profile.name,
        "InstanceProfileId": profile.id,
        "Arn": profile.arn,
        "CreateDate": profile.created,
        "Roles": [show_role(role)] if role is not None else [],
        **show_tags(profile),
    }

"""Policies: an account's own, with their versions, and Amazon's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from orchestrator.api.iam.lookup import (
    check_document,
    check_new_name,
    check_path,
    check_tags,
    conflict,
    exceeded,
    find_any_policy,
    find_own_policy,
    invalid,
    missing,
    page,
    show_document,
    show_tags,
)
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.iam import Group, Policy, PolicyVersion, Role, User, managed_policies, mint_id

MAX_CHARACTERS: Final = 6144
MAX_VERSIONS: Final = 5
SCOPES: Final = ("All", "AWS", "Local")


@operation("CreatePolicy", service="iam", writes=True)
def create_policy(
    call: Call,
    *,
    policy_name: str,
    policy_document: str,
    path: str | None = None,
    description: str = "",
    tags: list[Any] | None = None,
) -> Answer:
    if len(description) > 1000:
        raise invalid(f"A description has at most 1000 characters; this has {len(description)}")
    document = check_document(policy_document, MAX_CHARACTERS)
    policy = Policy(
        id=mint_id("ANPA"),
        account=call.account,
        created=call.now,
        name=check_new_name(call, Policy, policy_name),
        path=check_path(path),
        description=description,
        versions=(PolicyVersion(number=1, document=document, created=call.now),),
        updated=call.now,
        tags=check_tags(tags),
    )
    return {"Policy": _show(call, call.tx.put(policy), whole=True)}


@operation("GetPolicy", service="iam")
def get_policy(call: Call, *, policy_arn: str) -> Answer:
    return {"Policy": _show(call, find_any_policy(call, policy_arn), whole=True)}


@operation("ListPolicies", service="iam")
def list_policies(
    call: Call,
    *,
    scope: str = "All",
    only_attached: bool = False,
    path_prefix: str = "/",
    policy_usage_filter: str | None = None,
    marker: str | None = None,
    max_items: int | None = None,
) -> Answer:
    if scope not in SCOPES:
        raise invalid(f"Scope must be one of {', '.join(SCOPES)}, not '{scope[:40]}'")
    found = [*call.mine(Policy)] if scope != "AWS" else []
    found += managed_policies().values() if scope != "Local" else ()
    boundaries = policy_usage_filter == "PermissionsBoundary"
    chosen = [
        policy
        for policy in found
        if policy.path.startswith(path_prefix) and (not only_attached or _holders(call, policy, boundary=boundaries))
    ]
    return page(
        "Policies",
        chosen,
        lambda policy: _show(call, policy),
        lambda policy: policy.arn,
        marker=marker,
        max_items=max_items,
    )


@operation("DeletePolicy", service="iam", writes=True)
def delete_policy(call: Call, *, policy_arn: str) -> Answer:
    policy = find_own_policy(call, policy_arn)
    if _holders(call, policy) or _holders(call, policy, boundary=True):
        raise conflict("Cannot delete a policy attached to entities.")
    if len(policy.versions) > 1:
        raise conflict("This policy has more than one version. Before you delete a policy, delete its other versions.")
    call.tx.delete(policy)
    return {}


@operation("ListEntitiesForPolicy", service="iam")
def list_entities_for_policy(
    call: Call,
    *,
    policy_arn: str,
    entity_filter: str | None = None,
    path_prefix: str = "/",
    policy_usage_filter: str | None = None,
    marker: str | None = None,
    max_items: int | None = None,
) -> Answer:
    policy = find_any_policy(call, policy_arn)
    holders = [
        each
        for each in _holders(call, policy, boundary=policy_usage_filter == "PermissionsBoundary")
        if each.path.startswith(path_prefix)
        and entity_filter in (None, {User: "User", Role: "Role", Group: "Group"}[type(each)])
    ]
    whole = page("All", holders, lambda each: each, lambda each: each.arn, marker=marker, max_items=max_items)
    shown = whole.pop("All")
    return {
        **whole,
        "PolicyUsers": [{"UserName": each.name, "UserId": each.id} for each in shown if isinstance(each, User)],
        "PolicyRoles": [{"RoleName": each.name, "RoleId": each.id} for each in shown if isinstance(each, Role)],
        "PolicyGroups": [{"GroupName": each.name, "GroupId": each.id} for each in shown if isinstance(each, Group)],
    }


# --- versions ---------------------------------------------------------------------------------------------------------


@operation("CreatePolicyVersion", service="iam", writes=True)
def create_policy_version(call: Call, *, policy_arn: str, policy_document: str, set_as_default: bool = False) -> Answer:
    policy = find_own_policy(call, policy_arn)
    if len(policy.versions) >= MAX_VERSIONS:
        raise exceeded(f"A managed policy can have up to {MAX_VERSIONS} versions. Delete one before making another.")
    document = check_document(policy_document, MAX_CHARACTERS)
    made = PolicyVersion(number=policy.last_number + 1, document=document, created=call.now)
    policy = replace(policy, versions=(*policy.versions, made), last_number=made.number, updated=call.now)
    if set_as_default:
        policy = replace(policy, default_number=made.number)
    return {"PolicyVersion": _show_version(call.tx.put(policy), made)}


@operation("GetPolicyVersion", service="iam")
def get_policy_version(call: Call, *, policy_arn: str, version_id: str) -> Answer:
    policy = find_any_policy(call, policy_arn)
    version = _version(policy, version_id)
    return {"PolicyVersion": {**_show_version(policy, version), "Document": show_document(version.document)}}


@operation("ListPolicyVersions", service="iam")
def list_policy_versions(
    call: Call, *, policy_arn: str, marker: str | None = None, max_items: int | None = None
) -> Answer:
    policy = find_any_policy(call, policy_arn)
    return page(
        "Versions",
        policy.versions,
        lambda version: _show_version(policy, version),
        lambda version: f"{10**9 - version.number}",  # the newest first
        marker=marker,
        max_items=max_items,
    )


@operation("SetDefaultPolicyVersion", service="iam", writes=True)
def set_default_policy_version(call: Call, *, policy_arn: str, version_id: str) -> Answer:
    policy = find_own_policy(call, policy_arn)
    call.tx.put(replace(policy, default_number=_version(policy, version_id).number, updated=call.now))
    return {}


@operation("DeletePolicyVersion", service="iam", writes=True)
def delete_policy_version(call: Call, *, policy_arn: str, version_id: str) -> Answer:
    policy = find_own_policy(call, policy_arn)
    version = _version(policy, version_id)
    if version.number == policy.default_number:
        raise conflict("Cannot delete the default version of a policy.")
    call.tx.put(replace(policy, versions=tuple(each for each in policy.versions if each != version)))
    return {}


def _version(policy: Policy, version_id: str) -> PolicyVersion:
    for version in policy.versions:
        if version.id == version_id:
            return version
    raise missing(f"Policy {policy.arn} version {version_id[:20]} does not exist or is not attachable.")


def _show_version(policy: Policy, version: PolicyVersion) -> Answer:
    return {
        "VersionId": version.id,
        "IsDefaultVersion": version.number == policy.default_number,
        "CreateDate": version.created,
    }


def _holders(call: Call, policy: Policy, *, boundary: bool = False) -> list[User | Role | Group]:
    if boundary:
        bounded: list[User | Role] = [*call.mine(User), *call.mine(Role)]
        return [each for each in bounded if each.boundary == policy.arn]
    found: list[User | Role | Group] = [
        *call.db.all(User, attached=policy.arn),
        *call.db.all(Role, attached=policy.arn),
        *call.db.all(Group, attached=policy.arn),
    ]
    return [each for each in found if each.account == call.account]


def _show(call: Call, policy: Policy, *, whole: bool = False) -> Answer:
    shown: Answer = {
        "PolicyName": policy.name,
        "PolicyId": policy.id,
        "Arn": policy.arn,
        "Path": policy.path,
        "DefaultVersionId": f"v{policy.default_number}",
        "AttachmentCount": len(_holders(call, policy)),
        "PermissionsBoundaryUsageCount": len(_holders(call, policy, boundary=True)) if whole else 0,
        "IsAttachable": True,
        "CreateDate": policy.created,
        "UpdateDate": policy.updated,
    }
    if whole and policy.description:
        shown["Description"] = policy.description
    return {**shown, **show_tags(policy)} if whole else shown

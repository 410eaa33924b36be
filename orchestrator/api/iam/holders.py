"""What users, groups and roles hold, in the same words for each: inline policies, attached ones, boundaries; and tags.

IAM has these as operations of their own for each kind (PutUserPolicy, PutRolePolicy, ...), so they are declared here
in a loop over the kinds.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from orchestrator.api.iam.lookup import (
    MAX_ATTACHED,
    check_boundary,
    check_document,
    check_policy_name,
    check_tags,
    exceeded,
    find,
    find_any_policy,
    find_own_policy,
    missing,
    page,
    show_document,
)
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.iam import Group, InstanceProfile, Policy, Role, User, find_policy
from orchestrator.model.tags import tag_set

Holder = User | Role | Group
Holders = type[User] | type[Role] | type[Group]

# Characters of all inline policies of one, without white space.
_MOST_INLINE: Final[dict[type, int]] = {User: 2048, Role: 10240, Group: 5120}


def _declare(name: str, handler: Callable[..., Answer], *members: str, writes: bool = False, **optional: Any) -> None:
    """Declare `handler` for an operation whose input has these members, in snake case; `optional` with defaults."""
    parameter = inspect.Parameter
    handler.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            parameter("call", parameter.POSITIONAL_OR_KEYWORD),
            *(parameter(member, parameter.KEYWORD_ONLY) for member in members),
            *(parameter(member, parameter.KEYWORD_ONLY, default=value) for member, value in optional.items()),
        ]
    )
    operation(name, service="iam", writes=writes)(handler)


_PAGED: Final[dict[str, Any]] = {"marker": None, "max_items": None}


def _declare_policies(noun: str, kind: Holders) -> None:
    named = f"{noun.lower()}_name"

    def put(call: Call, policy_name: str, policy_document: str, **given: str) -> Answer:
        holder: Holder = find(call, kind, given[named])
        inline = {**holder.inline, check_policy_name(policy_name): policy_document}
        most = _MOST_INLINE[kind]
        check_document(policy_document, most)
        counted = sum(len("".join(text.split())) for text in inline.values())
        if counted > most:
            raise exceeded(f"Maximum policy size of {most} bytes exceeded for {noun.lower()} {holder.name}")
        call.tx.put(replace(holder, inline=inline))
        return {}

    def get(call: Call, policy_name: str, **given: str) -> Answer:
        holder: Holder = find(call, kind, given[named])
        document = _inline(noun, holder, policy_name)
        return {
            f"{noun}Name": holder.name,
            "PolicyName": policy_name,
            "PolicyDocument": show_document(document),
        }

    def delete(call: Call, policy_name: str, **given: str) -> Answer:
        holder: Holder = find(call, kind, given[named])
        _inline(noun, holder, policy_name)
        kept = {name: text for name, text in holder.inline.items() if name != policy_name}
        call.tx.put(replace(holder, inline=kept))
        return {}

    def list_inline(call: Call, marker: str | None = None, max_items: int | None = None, **given: str) -> Answer:
        holder: Holder = find(call, kind, given[named])
        return page("PolicyNames", [*holder.inline], str, str, marker=marker, max_items=max_items)

    def attach(call: Call, policy_arn: str, **given: str) -> Answer:
        holder: Holder = find(call, kind, given[named])
        policy = find_any_policy(call, policy_arn)
        if policy.arn not in holder.attached:
            if len(holder.attached) >= MAX_ATTACHED:
                raise exceeded(f"Cannot exceed quota for PoliciesPer{noun}: {MAX_ATTACHED}")
            call.tx.put(replace(holder, attached=(*holder.attached, policy.arn)))
        return {}

    def detach(call: Call, policy_arn: str, **given: str) -> Answer:
        holder: Holder = find(call, kind, given[named])
        if policy_arn not in holder.attached:
            raise missing(f"Policy {policy_arn[:200]} was not found.")
        call.tx.put(replace(holder, attached=tuple(arn for arn in holder.attached if arn != policy_arn)))
        return {}

    def list_attached(
        call: Call, path_prefix: str = "/", marker: str | None = None, max_items: int | None = None, **given: str
    ) -> Answer:
        holder: Holder = find(call, kind, given[named])
        found = [policy for arn in holder.attached if (policy := find_policy(call.db, call.account, arn)) is not None]
        return page(
            "AttachedPolicies",
            [policy for policy in found if policy.path.startswith(path_prefix)],
            lambda policy: {"PolicyName": policy.name, "PolicyArn": policy.arn},
            lambda policy: policy.arn,
            marker=marker,
            max_items=max_items,
        )

    _declare(f"Put{noun}Policy", put, named, "policy_name", "policy_document", writes=True)
    _declare(f"Get{noun}Policy", get, named, "policy_name")
    _declare(f"Delete{noun}Policy", delete, named, "policy_name", writes=True)
    _declare(f"List{noun}Policies", list_inline, named, **_PAGED)
    _declare(f"Attach{noun}Policy", attach, named, "policy_arn", writes=True)
    _declare(f"Detach{noun}Policy", detach, named, "policy_arn", writes=True)
    _declare(f"ListAttached{noun}Policies", list_attached, named, path_prefix="/", **_PAGED)


def _inline(noun: str, holder: Holder, policy_name: str) -> str:
    document = holder.inline.get(policy_name)
    if document is None:
        raise missing(f"The {noun.lower()} policy with name {policy_name[:128]} cannot be found.")
    return document


def _declare_boundary(noun: str, kind: type[User] | type[Role]) -> None:
    named = f"{noun.lower()}_name"

    def put(call: Call, permissions_boundary: str, **given: str) -> Answer:
        holder: User | Role = find(call, kind, given[named])
        call.tx.put(replace(holder, boundary=check_boundary(call, permissions_boundary)))
        return {}

    def delete(call: Call, **given: str) -> Answer:
        holder: User | Role = find(call, kind, given[named])
        if not holder.boundary:
            raise missing(f"The {noun.lower()} {holder.name} has no permissions boundary.")
        call.tx.put(replace(holder, boundary=""))
        return {}

    _declare(f"Put{noun}PermissionsBoundary", put, named, "permissions_boundary", writes=True)
    _declare(f"Delete{noun}PermissionsBoundary", delete, named, writes=True)


Tagged = User | Role | InstanceProfile | Policy


def _declare_tags(
    noun: str, named: str, look: Callable[[Call, str], Tagged], change: Callable[[Call, str], Tagged]
) -> None:
    """`look` finds what is shown, `change` what may be changed."""

    def tag(call: Call, tags: list[Any], **given: str) -> Answer:
        row = change(call, given[named])
        call.tx.put(replace(row, tags=check_tags(tags, row.tags)))
        return {}

    def untag(call: Call, tag_keys: list[str], **given: str) -> Answer:
        row = change(call, given[named])
        call.tx.put(replace(row, tags={key: value for key, value in row.tags.items() if key not in tag_keys}))
        return {}

    def list_tags(call: Call, marker: str | None = None, max_items: int | None = None, **given: str) -> Answer:
        tags = tag_set(look(call, given[named]).tags)
        return page("Tags", tags, lambda each: each, lambda each: each["Key"], marker=marker, max_items=max_items)

    _declare(f"Tag{noun}", tag, named, "tags", writes=True)
    _declare(f"Untag{noun}", untag, named, "tag_keys", writes=True)
    _declare(f"List{noun}Tags", list_tags, named, **_PAGED)


def _of(kind: type[User] | type[Role] | type[InstanceProfile]) -> Callable[[Call, str], Tagged]:
    def look(call: Call, name: str) -> Tagged:
        found: Tagged = find(call, kind, name)
        return found

    return look


for _noun, _kind in (("User", User), ("Role", Role), ("Group", Group)):
    _declare_policies(_noun, _kind)
_declare_boundary("User", User)
_declare_boundary("Role", Role)
_declare_tags("User", "user_name", _of(User), _of(User))
_declare_tags("Role", "role_name", _of(Role), _of(Role))
_declare_tags("InstanceProfile", "instance_profile_name", _of(InstanceProfile), _of(InstanceProfile))
_declare_tags("Policy", "policy_arn", find_any_policy, find_own_policy)

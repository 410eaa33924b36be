"""Users, and the groups that they are in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from orchestrator.api.iam.lookup import (
    check_boundary,
    check_name,
    check_new_name,
    check_path,
    check_tags,
    conflict,
    find,
    page,
    show_boundary,
    show_tags,
)
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.account import AccessKey, Account
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import Group, User, mint_id


@operation("CreateUser", service="iam", writes=True)
def create_user(
    call: Call,
    *,
    user_name: str,
    path: str | None = None,
    permissions_boundary: str | None = None,
    tags: list[Any] | None = None,
) -> Answer:
    user = User(
        id=mint_id(User.PREFIX),
        account=call.account,
        created=call.now,
        name=check_new_name(call, User, user_name),
        path=check_path(path),
        boundary=check_boundary(call, permissions_boundary),
        tags=check_tags(tags),
    )
    return {"User": _show(call.tx.put(user), whole=True)}


@operation("GetUser", service="iam")
def get_user(call: Call, *, user_name: str | None = None) -> Answer:
    """The caller, if none is named; the account itself, if that is its root."""
    if user_name is None and calling_user(call) is None:
        account = call.db.get(Account, call.account)
        root = {"Path": "/", "UserName": "root", "UserId": call.account, "Arn": f"arn:aws:iam::{call.account}:root"}
        return {"User": {**root, "CreateDate": account.created if account else call.now}}
    return {"User": _show(find_user(call, user_name), whole=True)}


def calling_user(call: Call) -> User | None:
    principal = call.caller.principal
    return principal.identity if principal is not None and isinstance(principal.identity, User) else None


def find_user(call: Call, name: str | None) -> User:
    """The user of that name; the caller, if none is given."""
    if name is not None:
        return find(call, User, name)
    user = calling_user(call)
    if user is None:
        raise EC2Error("ValidationError", "Must specify userName when calling with non-User credentials")
    return user


@operation("ListUsers", service="iam")
def list_users(
    call: Call, *, path_prefix: str = "/", marker: str | None = None, max_items: int | None = None
) -> Answer:
    users = [user for user in call.mine(User) if user.path.startswith(path_prefix)]
    return page("Users", users, _show, lambda user: user.name, marker=marker, max_items=max_items)


@operation("UpdateUser", service="iam", writes=True)
def update_user(call: Call, *, user_name: str, new_path: str | None = None, new_user_name: str | None = None) -> Answer:
    user = find(call, User, user_name)
    if new_user_name is not None and new_user_name != user.name:
        if new_user_name.casefold() != user.name.casefold():
            check_new_name(call, User, new_user_name)
        user = replace(user, name=check_name(User, new_user_name))
    call.tx.put(replace(user, path=check_path(new_path) if new_path else user.path))
    return {}


@operation("DeleteUser", service="iam", writes=True)
def delete_user(call: Call, *, user_name: str) -> Answer:
    user = find(call, User, user_name)
    for what, there in (
        ("access keys", call.db.all(AccessKey, user=user.id)),
        ("policies", user.inline or user.attached),
        ("groups", user.groups),
    ):
        if there:
            raise conflict(f"Cannot delete entity, must remove the user's {what} first.")
    call.tx.delete(user)
    return {}


def _show(user: User, *, whole: bool = False) -> Answer:
    shown: Answer = {
        "Path": user.path,
        "UserName": user.name,
        "UserId": user.id,
        "Arn": user.arn,
        "CreateDate": user.created,
    }
    return {**shown, **show_boundary(user), **show_tags(user)} if whole else shown


# --- groups -----------------------------------------------------------------------------------------------------------


@operation("CreateGroup", service="iam", writes=True)
def create_group(call: Call, *, group_name: str, path: str | None = None) -> Answer:
    group = Group(
        id=mint_id(Group.PREFIX),
        account=call.account,
        created=call.now,
        name=check_new_name(call, Group, group_name),
        path=check_path(path),
    )
    return {"Group": _show_group(call.tx.put(group))}


@operation("GetGroup", service="iam")
def get_group(call: Call, *, group_name: str, marker: str | None = None, max_items: int | None = None) -> Answer:
    group = find(call, Group, group_name)
    users = call.db.all(User, groups=group.id)
    answer = page("Users", users, _show, lambda user: user.name, marker=marker, max_items=max_items)
    return {"Group": _show_group(group), **answer}


@operation("ListGroups", service="iam")
def list_groups(
    call: Call, *, path_prefix: str = "/", marker: str | None = None, max_items: int | None = None
) -> Answer:
    groups = [group for group in call.mine(Group) if group.path.startswith(path_prefix)]
    return page("Groups", groups, _show_group, lambda group: group.name, marker=marker, max_items=max_items)


@operation("UpdateGroup", service="iam", writes=True)
def update_group(
    call: Call, *, group_name: str, new_path: str | None = None, new_group_name: str | None = None
) -> Answer:
    group = find(call, Group, group_name)
    if new_group_name is not None and new_group_name != group.name:
        if new_group_name.casefold() != group.name.casefold():
            check_new_name(call, Group, new_group_name)
        group = replace(group, name=check_name(Group, new_group_name))
    call.tx.put(replace(group, path=check_path(new_path) if new_path else group.path))
    return {}


@operation("DeleteGroup", service="iam", writes=True)
def delete_group(call: Call, *, group_name: str) -> Answer:
    group = find(call, Group, group_name)
    if call.db.all(User, groups=group.id):
        raise conflict("Cannot delete entity, must remove users from group first.")
    if group.inline or group.attached:
        raise conflict("Cannot delete entity, must remove the group's policies first.")
    call.tx.delete(group)
    return {}


@operation("AddUserToGroup", service="iam", writes=True)
def add_user_to_group(call: Call, *, group_name: str, user_name: str) -> Answer:
    group, user = find(call, Group, group_name), find(call, User, user_name)
    if group.id not in user.groups:
        call.tx.put(replace(user, groups=(*user.groups, group.id)))
    return {}


@operation("RemoveUserFromGroup", service="iam", writes=True)
def remove_user_from_group(call: Call, *, group_name: str, user_name: str) -> Answer:
    group, user = find(call, Group, group_name), find(call, User, user_name)
    call.tx.put(replace(user, groups=tuple(each for each in user.groups if each != group.id)))
    return {}


@operation("ListGroupsForUser", service="iam")
def list_groups_for_user(
    call: Call, *, user_name: str, marker: str | None = None, max_items: int | None = None
) -> Answer:
    user = find(call, User, user_name)
    groups = [group for group_id in user.groups if (group := call.db.get(Group, group_id)) is not None]
    return page("Groups", groups, _show_group, lambda group: group.name, marker=marker, max_items=max_items)


def _show_group(group: Group) -> Answer:
    return {
        "Path": group.path,
        "GroupName": group.name,
        "GroupId": group.id,
        "Arn": group.arn,
        "CreateDate": group.created,
    }

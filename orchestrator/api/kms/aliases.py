"""Aliases: names of keys, unique in an account and region. Those that begin with alias/aws/ are the service's own."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

from orchestrator.api.kms.lookup import alias_arn, find_key, invalid, show_page
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import EC2Error
from orchestrator.model.kms import DISABLED, EBS_ALIAS, ENABLED, Key, find_named

MOST_ALIASES = 50  # of one key

_NAME = re.compile(r"alias/[a-zA-Z0-9/_-]{1,250}", re.ASCII)


@operation("CreateAlias", service="kms", writes=True)
def create_alias(call: Call, *, alias_name: str, target_key_id: str) -> Answer:
    name = _check_name(alias_name)
    key = find_key(call, target_key_id, states=(ENABLED, DISABLED))
    if find_named(call.db, call.account, call.region, name):
        raise EC2Error("AlreadyExistsException", f"An alias with the name {alias_arn(call, name)} already exists")
    _point(call, name, key, made=call.now)
    return {}


@operation("UpdateAlias", service="kms", writes=True)
def update_alias(call: Call, *, alias_name: str, target_key_id: str) -> Answer:
    name = _check_name(alias_name)
    key = find_key(call, target_key_id, states=(ENABLED, DISABLED))
    old = _find(call, name)
    if old.id != key.id:
        made, _ = _times(old, name)
        _remove(call, name, old)
        _point(call, name, key, made=made)
    return {}


@operation("DeleteAlias", service="kms", writes=True)
def delete_alias(call: Call, *, alias_name: str) -> Answer:
    name = _check_name(alias_name)
    _remove(call, name, _find(call, name))
    return {}


@operation("ListAliases", service="kms")
def list_aliases(
    call: Call, *, key_id: str | None = None, limit: int | None = None, marker: str | None = None
) -> Answer:
    """With those of the service whose keys are not made yet, which have no target."""
    keys = [find_key(call, key_id)] if key_id else call.mine(Key)
    found: dict[str, Key | None] = {} if key_id else {EBS_ALIAS: None}
    found |= {name: key for key in keys for name in key.aliases}

    def show(name: str) -> Answer:
        shown = {"AliasName": name, "AliasArn": alias_arn(call, name)}
        key = found[name]
        if key is None:
            return shown
        made, changed = _times(key, name)
        return {**shown, "TargetKeyId": key.id, "CreationDate": made, "LastUpdatedDate": changed}

    return show_page("Aliases", list(found), show, str, limit=limit, marker=marker, size=50, largest=100)


def _check_name(name: str) -> str:
    if not name.startswith("alias/"):
        raise invalid(f"Invalid alias '{name}': it must begin with alias/")
    if not _NAME.fullmatch(name):
        raise EC2Error(
            "InvalidAliasNameException", f"Invalid alias '{name}': expected alias/ and letters, digits, '/', '_' or '-'"
        )
    if name.startswith("alias/aws/") or name == "alias/aws":
        raise EC2Error("InvalidAliasNameException", f"Invalid alias '{name}': alias/aws/ is the service's own")
    return name


def _find(call: Call, name: str) -> Key:
    key = find_named(call.db, call.account, call.region, name)
    if key is None:
        raise EC2Error("NotFoundException", f"Alias {alias_arn(call, name)} is not found.")
    return key


def _times(key: Key, name: str) -> tuple[datetime, datetime]:
    return key.alias_times.get(name, (key.created, key.created))


def _point(call: Call, name: str, key: Key, *, made: datetime) -> None:
    if len(key.aliases) >= MOST_ALIASES:
        raise EC2Error("LimitExceededException", f"{key.arn} has {MOST_ALIASES} aliases, the most that are allowed")
    times = {**key.alias_times, name: (made, call.now)}
    call.tx.put(replace(key, aliases=(*key.aliases, name), alias_times=times))


def _remove(call: Call, name: str, key: Key) -> None:
    kept = tuple(alias for alias in key.aliases if alias != name)
    times = {alias: at for alias, at in key.alias_times.items() if alias != name}
    call.tx.put(replace(key, aliases=kept, alias_times=times))

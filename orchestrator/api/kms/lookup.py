"""What the operations of KMS have in common: a key by its name, whether its state allows a request, and pages.

Rules: "Key states of AWS KMS keys" in the KMS developer guide.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from orchestrator.api.operation import Answer, Call
from orchestrator.model.errors import EC2Error
from orchestrator.model.kms import DESTROYED, DISABLED, ENABLED, PENDING, Key, find_elsewhere, find_named
from orchestrator.model.resource import Rows

T = TypeVar("T")


def invalid(message: str) -> EC2Error:
    return EC2Error("ValidationException", message)


def alias_arn(call: Call, name: str) -> str:
    return f"arn:aws:kms:{call.region}:{call.account}:{name}"


def find_key(
    call: Call, named: str, *, by_alias: bool = False, shared: bool = False, states: Sequence[str] = ()
) -> Key:
    """The caller's key of that id or ARN (where `by_alias` says so, also of that alias), in one of `states` if any are
    named. One that has been destroyed is not there. With `shared` also another account's by its ARN: whether that key
    lets the caller in has been asked before."""
    is_alias = named.startswith("alias/") or ":alias/" in named
    if is_alias and not by_alias:
        raise EC2Error("NotFoundException", f"Invalid keyId '{named}': expected a key's id or ARN")
    key = find_named(call.db, call.account, call.region, named)
    if key is None and shared:
        key = find_elsewhere(call.db, call.account, call.region, named)
    if key is None or key.state == DESTROYED:
        if is_alias:
            arn = named if named.startswith("arn:") else alias_arn(call, named)
            raise EC2Error("NotFoundException", f"Alias {arn} is not found.")
        arn = named if named.startswith("arn:") else alias_arn(call, f"key/{named}")
        raise EC2Error("NotFoundException", f"Key '{arn}' does not exist")
    if states:
        check_state(key, states)
    return key


def find_own_key(call: Call, named: str, *states: str, shared: bool = False) -> Key:
    """`find_key` for what changes a key, which nobody may do to the one that the service keeps for itself."""
    key = find_key(call, named, shared=shared)
    if key.manager != "CUSTOMER":
        raise EC2Error("AccessDeniedException", f"{key.arn} is managed by AWS: {call.action} is for customers' keys")
    if states:
        check_state(key, states)
    return key


def find_usable_key(call: Call, named: str) -> Key:
    """For encryption and decryption."""
    return find_key(call, named, by_alias=True, shared=True, states=(ENABLED,))


def find_grant(rows: Rows, region: str, token: str) -> Key | None:
    """The key of a region, whosever it is, that the grant of this token is on."""
    given = token.encode()
    for key in rows.all(Key):
        if key.region == region and any(secrets.compare_digest(grant.token.encode(), given) for grant in key.grants):
            return key
    return None


def check_state(key: Key, states: Sequence[str]) -> None:
    if key.state in states:
        return
    if PENDING in states:
        raise EC2Error("KMSInvalidStateException", f"{key.arn} is not pending deletion.")
    if key.state == DISABLED:
        raise EC2Error("DisabledException", f"{key.arn} is disabled.")
    raise EC2Error("KMSInvalidStateException", f"{key.arn} is pending deletion.")


def show_page(
    member: str,
    found: Sequence[T],
    show: Callable[[T], Any],
    key: Callable[[T], str],
    *,
    limit: int | None,
    marker: str | None,
    size: int,
    largest: int,
) -> Answer:
    """One page in the order of `key`, which must be unique; `size` is that of a page when the caller names none."""
    if limit is not None and limit > largest:
        raise invalid(f"Value '{limit}' at 'limit' failed to satisfy constraint: at most {largest}")
    ordered = sorted(found, key=key)
    if marker is not None:
        after = _read_marker(marker)
        ordered = [each for each in ordered if key(each) > after]
    shown, rest = ordered[: limit or size], ordered[limit or size :]
    answer: Answer = {member: [show(each) for each in shown], "Truncated": bool(rest)}
    if rest:
        answer["NextMarker"] = base64.urlsafe_b64encode(f"after {key(shown[-1])}".encode()).decode()
    return answer


def _read_marker(marker: str) -> str:
    try:
        word, _, after = base64.b64decode(marker, altchars=b"-_", validate=True).decode().partition(" ")
    except (binascii.Error, ValueError):
        word = after = ""
    if word != "after":
        raise EC2Error("InvalidMarkerException", "The marker is not one that was given out here")
    return after

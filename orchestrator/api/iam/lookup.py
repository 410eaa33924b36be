"""What the operations of IAM have in common: rows by their names, checked names and tags, pages, and errors.

Limits: "IAM and AWS STS quotas" in Amazon's IAM user guide.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

from orchestrator.api.operation import Answer, Call
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import Group, InstanceProfile, Policy, Role, User, find_policy
from orchestrator.model.policy import PolicyError, parse, parse_trust
from orchestrator.model.resource import Resource
from orchestrator.model.tags import tag_set

T = TypeVar("T")
N = TypeVar("N", bound=User | Group | Role | InstanceProfile)

_NAME: Final = re.compile(r"[\w+=,.@-]+", re.ASCII)
_PATH: Final = re.compile(r"/|/[\x21-\x7e]+/", re.ASCII)
_NAME_CHARACTERS: Final = {"user": 64, "role": 64, "group": 128, "instance-profile": 128, "policy": 128}
MAX_OF_A_KIND: Final = 5000
MAX_ATTACHED: Final = 10
MAX_TAGS: Final = 50


def missing(message: str) -> EC2Error:
    return EC2Error("NoSuchEntity", message, 404)


def conflict(message: str) -> EC2Error:
    """Something still hangs on what is to go."""
    return EC2Error("DeleteConflict", message, 409)


def exceeded(message: str) -> EC2Error:
    return EC2Error("LimitExceeded", message, 409)


def invalid(message: str) -> EC2Error:
    return EC2Error("ValidationError", message)


def noun_of(kind: type[Resource]) -> str:
    return kind.KIND.replace("-", " ")


def find(call: Call, kind: type[N], name: str) -> N:
    """The account's own of that name, or NoSuchEntity."""
    found = [row for row in call.db.all(kind, name=name) if row.account == call.account]
    if not found:
        raise missing(f"The {noun_of(kind)} with name {name[:128]} cannot be found.")
    return found[0]


def find_own_policy(call: Call, arn: str) -> Policy:
    """A policy that the account may change."""
    if arn.startswith("arn:aws:iam::aws:") and find_policy(call.db, call.account, arn) is not None:
        raise EC2Error("AccessDenied", f"The policy {arn} is Amazon's, and cannot be changed", 403)
    return find_any_policy(call, arn)


def find_any_policy(call: Call, arn: str) -> Policy:
    policy = find_policy(call.db, call.account, arn)
    if policy is None:
        raise missing(f"Policy {arn[:200]} does not exist or is not attachable.")
    return policy


def check_new_name(
    call: Call, kind: type[User] | type[Group] | type[Role] | type[InstanceProfile] | type[Policy], name: str
) -> str:
    """Names are unique in an account, whatever their case."""
    check_name(kind, name)
    rows: Sequence[Any] = call.db.all(kind, account=call.account)
    if any(row.name.casefold() == name.casefold() for row in rows):
        raise EC2Error("EntityAlreadyExists", f"{noun_of(kind).capitalize()} with name {name} already exists.", 409)
    if len(rows) >= MAX_OF_A_KIND:
        raise exceeded(f"An account has at most {MAX_OF_A_KIND} of the kind {noun_of(kind)}")
    return name


def check_name(kind: type[Resource], name: str) -> str:
    most = _NAME_CHARACTERS[kind.KIND]
    if not _NAME.fullmatch(name) or len(name) > most:
        raise invalid(f"A name of a {noun_of(kind)} is 1 to {most} letters, digits and +=,.@_-; this is '{name[:140]}'")
    return name


def check_policy_name(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > 128:
        raise invalid(f"A policy's name is 1 to 128 letters, digits and +=,.@_-; this is '{name[:140]}'")
    return name


def check_path(path: str | None) -> str:
    given = path or "/"
    if not _PATH.fullmatch(given) or len(given) > 512:
        raise invalid(f"A path begins and ends with a slash and has at most 512 characters; this is '{given[:100]}'")
    return given


def check_document(text: str, most: int, *, trust: bool = False) -> str:
    """A policy's text, as it was given. White space does not count."""
    counted = len(re.sub(r"\s", "", text))
    if counted > most:
        raise exceeded(f"The policy has {counted} characters without white space; at most are {most}")
    try:
        (parse_trust if trust else parse)(text)
    except PolicyError as error:
        raise EC2Error("MalformedPolicyDocument", str(error)) from None
    return text


def check_tags(tags: Sequence[Mapping[str, Any]] | None, old: Mapping[str, str] | None = None) -> dict[str, str]:
    """`old` with these."""
    merged = dict(old or {})
    for tag in tags or ():
        key, value = tag.get("Key") or "", tag.get("Value") or ""
        if not 1 <= len(key) <= 128 or len(value) > 256:
            raise invalid(f"A tag has a key of 1 to 128 characters and a value of at most 256: '{key[:140]}'")
        if key.lower().startswith("aws:"):
            raise EC2Error("InvalidInput", f"The tag key '{key}' is reserved: keys must not start with aws:")
        merged[key] = value
    if len(merged) > MAX_TAGS:
        raise exceeded(f"At most {MAX_TAGS} tags; this would be {len(merged)}")
    return merged


# --- showing ----------------------------------------------------------------------------------------------------------


def show_document(text: str) -> str:
    """As IAM answers documents: percent-encoded."""
    return quote(text, safe="~")


def show_tags(row: Resource) -> Answer:
    return {"Tags": tag_set(row.tags)} if row.tags else {}


def show_boundary(row: User | Role) -> Answer:
    if not row.boundary:
        return {}
    shown = {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": row.boundary}
    return {"PermissionsBoundary": shown}


def check_boundary(call: Call, arn: str | None) -> str:
    return find_any_policy(call, arn).arn if arn else ""


def page(
    member: str,
    found: Sequence[T],
    show: Callable[[T], Any],
    key: Callable[[T], str],
    *,
    marker: str | None,
    max_items: int | None,
) -> Answer:
    """One page in the order of `key`, which must be unique; `Marker` is there where there is more."""
    if max_items is not None and not 1 <= max_items <= 1000:
        raise invalid(f"MaxItems is from 1 to 1000, not {max_items}")
    ordered = sorted(found, key=key)
    if marker is not None:
        try:
            after = base64.b64decode(marker, altchars=b"-_", validate=True).decode()
        except (binascii.Error, ValueError):
            raise invalid(f"Invalid Marker '{marker[:40]}'") from None
        ordered = [each for each in ordered if key(each) > after]
    size = max_items or 100
    answer: Answer = {member: [show(each) for each in ordered[:size]], "IsTruncated": len(ordered) > size}
    if len(ordered) > size:
        answer["Marker"] = base64.urlsafe_b64encode(key(ordered[size - 1]).encode()).decode()
    return answer

"""Tags: at most 50 a resource; keys up to 128 and values up to 256 characters; `aws:` is reserved.

Source: "Tag your Amazon EC2 resources", tag restrictions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.model.errors import EC2Error, invalid_parameter

MAX_TAGS = 50


def check_tags(tags: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """A request's list of Key and Value as a dict."""
    checked: dict[str, str] = {}
    for tag in tags:
        key, value = tag.get("Key"), tag.get("Value") or ""
        if not key:
            raise EC2Error("MissingParameter", "A tag must have a Key")
        if len(key) > 128:
            raise EC2Error("InvalidParameterValue", f"The tag key '{key[:20]}...' is longer than 128 characters")
        if len(value) > 256:
            raise EC2Error("InvalidParameterValue", f"The value of tag '{key}' is longer than 256 characters")
        if key.lower().startswith("aws:"):
            raise EC2Error("InvalidParameterValue", f"The tag key '{key}' is reserved: keys must not start with aws:")
        if key in checked:
            raise EC2Error("InvalidParameterValue", f"The tag key '{key}' is given twice")
        checked[key] = value
    return add_tags({}, checked)


def add_tags(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """`old` and `new` together, or TagLimitExceeded."""
    merged = {**old, **new}
    if len(merged) > MAX_TAGS:
        raise EC2Error("TagLimitExceeded", f"A resource has at most {MAX_TAGS} tags; this would be {len(merged)}")
    return merged


def tags_at_creation(
    specifications: Sequence[Mapping[str, Any]] | None, *resource_types: str
) -> dict[str, dict[str, str]]:
    """A request's TagSpecifications by resource type; only `resource_types` may be tagged by the call."""
    found: dict[str, dict[str, str]] = {name: {} for name in resource_types}
    for specification in specifications or ():
        name = specification.get("ResourceType") or ""
        if name not in found:
            raise invalid_parameter("TagSpecification.ResourceType", name, f"one of {', '.join(resource_types)}")
        found[name] = add_tags(found[name], check_tags(specification.get("Tags") or ()))
    return found


def tag_set(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 answers them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]

"""EC2's filters: AND across names, OR within one; `*` and `?` are wildcards, `\\` escapes one.

A table per resource says filter name -> value; a value is a string, several, or None. `tag:KEY` and `tag-key` are there
for every resource. A name that the table does not have is an error. Source: "Filter" in the EC2 API reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from orchestrator.model.errors import EC2Error, invalid_parameter

R = TypeVar("R")

Value = str | Iterable[str] | None
FilterTable = Mapping[str, Callable[[Any], Value]]
Test = Callable[[str], bool]

MAX_VALUES = 200


def pattern(text: str) -> Test:
    """A test for one filter value."""
    if not _is_pattern(text):
        return text.__eq__
    parts = [""]  # what stands between the stars
    position = 0
    while position < len(text):
        letter = text[position]
        if letter == "*":
            parts.append("")
        elif letter == "\\" and position + 1 < len(text):
            position += 1
            parts[-1] += re.escape(text[position])
        else:
            parts[-1] += "." if letter == "?" else re.escape(letter)
        position += 1
    expression, *rest = parts
    if rest:
        # The first place where a part fits leaves most for those after it: (?>...) tries no other. Were they tried,
        # the time would grow with the power of the stars, and nobody else runs while `re` searches.
        between = "".join(f"(?>.*?{part})" for part in rest[:-1] if part)
        expression = f"{expression}{between}.*{rest[-1]}"
    compiled = re.compile(expression, re.DOTALL)
    return lambda value: compiled.fullmatch(value) is not None


def compile_filters(
    filters: Sequence[Mapping[str, Any]], table: FilterTable, tags: Callable[[Any], Mapping[str, str]] | None
) -> Callable[[Any], bool]:
    """A test over resources for a request's `Filters`; raises for unknown names and missing values.

    `tags` is None for what has none: then `tag:KEY` and `tag-key` are unknown names too.
    """
    checks: list[tuple[Callable[[Any], Value], list[Test]]] = []
    for given in filters:
        name, values = given.get("Name", ""), given.get("Values")
        if not name:
            raise EC2Error("InvalidParameterValue", "A filter must have a Name")
        if not values:
            raise EC2Error("InvalidParameterValue", f"The filter '{name}' must have at least one value")
        if len(values) > MAX_VALUES:
            raise EC2Error("FilterLimitExceeded", f"The filter '{name}' has more than {MAX_VALUES} values")
        checks.append((_getter(name, table, tags), [pattern(value) for value in values]))

    def test(resource: Any) -> bool:
        for read, tests in checks:
            found = read(resource)
            if found is None:
                return False
            candidates = (found,) if isinstance(found, str) else found
            if not any(check(value) for value in candidates for check in tests):
                return False
        return True

    return test


def exact(filters: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Filter name -> its values, of those whose values are all without wildcards: an index finds what they let
    through. Of two filters of one name, the last."""
    return {
        given["Name"]: given["Values"]
        for given in filters
        if given.get("Name") and given.get("Values") and not any(_is_pattern(value) for value in given["Values"])
    }


def _is_pattern(text: str) -> bool:
    return any(mark in text for mark in "*?\\")


def _getter(name: str, table: FilterTable, tags: Callable[[Any], Mapping[str, str]] | None) -> Callable[[Any], Value]:
    if tags is not None and name.startswith("tag:"):
        key = name[4:]
        return lambda resource: tags(resource).get(key)
    if tags is not None and name == "tag-key":
        return lambda resource: list(tags(resource))
    if name not in table:
        allowed = ", ".join(sorted([*table, *(() if tags is None else ("tag:<key>", "tag-key"))]))
        raise invalid_parameter("Filter.Name", name, f"one of {allowed}")
    return table[name]


def boolean(value: bool) -> str:
    return "true" if value else "false"

"""What goes over the wire, to and from EC2's member names: forms and XML for EC2, JSON for our own service.

Answers are what aws-cli would show: `Reservations`, `State.Name`, `Tags`; times stay text in ISO 8601. A list at the
top of an answer is there even when it is empty.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from orchestrator.cli import shapes

Document = dict[str, Any]


@cache
def _table() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(shapes.TABLE.read_text())
    return loaded


def _service(service: str, action: str) -> dict[str, Any]:
    known: dict[str, Any] = _table().get(service, {})
    return known if action in known.get("operations", {}) else _derived(service, action)


@cache
def _derived(service: str, action: str) -> dict[str, Any]:
    return shapes.derive(service, [action])


def write_request(service: str, action: str, parameters: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
    """Headers and body of a POST. TypeError for a parameter that the action does not have."""
    table = _service(service, action)
    members = table["shapes"].get(table["operations"][action][0][1:], {})
    unknown = sorted(set(parameters) - set(members))
    if unknown:
        raise TypeError(f"{action} has no parameter {', '.join(unknown)}; it has {', '.join(members)}")
    if table["protocol"] == "json":
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{table['target']}.{action}"}
        return headers, json.dumps(parameters).encode()
    fields = [("Action", action), ("Version", table["version"])]
    fields += _fields(table["shapes"], table["operations"][action][0], parameters, "")
    return {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, urlencode(fields).encode()


def _fields(structures: Mapping[str, Any], word: str, value: Any, prefix: str) -> Iterator[tuple[str, str]]:
    if word.startswith("["):
        for position, item in enumerate(value, 1):
            yield from _fields(structures, word[1:], item, f"{prefix}.{position}")
    elif word.startswith("*"):
        members = structures[word[1:]]
        for name, item in value.items():
            kind, _, asked = _names(members[name], name)
            yield from _fields(structures, kind, item, f"{prefix}.{asked}" if prefix else asked)
    elif word == "b":
        yield prefix, "true" if value else "false"
    elif word == "x":
        yield prefix, b64encode(value).decode()
    else:
        yield prefix, str(value)


def _names(member: str, name: str) -> tuple[str, str, str]:
    """Type, name in answers, name in requests."""
    word, _, names = member.partition(":")
    answered, _, asked = names.partition(":")
    answered = answered or name
    return word, answered, asked or answered[0].upper() + answered[1:]


def read_answer(service: str, action: str, body: bytes) -> Document:
    """The answer of a call that went well. ValueError when it is not in the service's protocol."""
    table = _service(service, action)
    word = table["operations"][action][1]
    if table["protocol"] == "json":
        document = json.loads(body or b"{}")
        if not isinstance(document, dict):
            raise ValueError(f"the answer to {action} is no JSON object")
        answer: Document = _from_json(table["shapes"], word, document) if word else {}
    else:
        from xml.etree import ElementTree

        try:
            root = ElementTree.fromstring(body)  # noqa: S314 - expat caps entity expansion; the sender is our controller
        except ElementTree.ParseError as error:
            raise ValueError(f"the answer to {action} is no XML: {error}") from error
        if table["protocol"] == "query":
            root = next((child for child in root if _plain(child.tag) == f"{action}Result"), root)
        answer = _from_xml(table["shapes"], word, root) if word else {}
    for name, member in table["shapes"].get(word[1:], {}).items():
        if member.startswith("["):
            answer.setdefault(name, [])
    return answer


def read_error(body: bytes) -> tuple[str, str, str]:
    """Code, message and request id of a refusal in any protocol; empty code when the body is something else."""
    text = body.lstrip()
    if text.startswith(b"{"):
        try:
            document = json.loads(text)
        except ValueError:
            return "", "", ""
        code = str(document.get("__type", "")).rpartition("#")[2]
        return code, str(document.get("message") or document.get("Message") or ""), ""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(text)  # noqa: S314
    except ElementTree.ParseError:
        return "", "", ""
    found = {_plain(element.tag).lower(): element.text or "" for element in root.iter()}
    return found.get("code", ""), found.get("message", ""), found.get("requestid", "")


def _plain(tag: str) -> str:
    return tag.rpartition("}")[2]


def _from_xml(structures: Mapping[str, Any], word: str, element: Any) -> Any:
    if word.startswith("["):
        return [_from_xml(structures, word[1:], child) for child in element]
    if word.startswith("*"):
        children = {_plain(child.tag): child for child in element}
        document = {}
        for name, member in structures[word[1:]].items():
            kind, answered, _ = _names(member, name)
            if (child := children.get(answered)) is not None:
                document[name] = _from_xml(structures, kind, child)
        return document
    text = element.text or ""
    if word == "i":
        return int(text)
    if word == "d":
        return float(text)
    if word == "b":
        return text == "true"
    return text


def _from_json(structures: Mapping[str, Any], word: str, value: Any) -> Any:
    if value is None:
        return None
    if word.startswith("["):
        return [_from_json(structures, word[1:], item) for item in value]
    if word.startswith("*"):
        members = structures[word[1:]]
        return {
            name: _from_json(structures, _names(members[name], name)[0] if name in members else "s", item)
            for name, item in value.items()
            if item is not None
        }
    if word == "t" and isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value

"""How a scalar looks on the wire: text or JSON to checked Python values, and back to text.

Every reader takes whatever came and raises one of UNREADABLE when it is not such a scalar; who calls it knows the name
and the range and says so to the caller. Every `text_of_` takes what a handler answered and raises TypeError,
AttributeError or ValueError when it is of another type.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from math import inf, isfinite
from typing import Any

_INTEGER = re.compile(r"-?\d{1,19}", re.ASCII)
_FLOAT = re.compile(r"[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,4})?", re.ASCII)
_EPOCH = re.compile(r"\d{9,12}(\.\d{1,9})?", re.ASCII)
INDEX = re.compile(r"0|[1-9]\d{0,4}", re.ASCII)
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError)
TYPE_RANGES = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_NOUNS = {
    "integer": "an integer",
    "long": "an integer",
    "float": "a number",
    "double": "a number",
    "boolean": "true or false",
    "timestamp": "a time as 2026-01-02T03:04:05Z",
    "blob": "base64",
    "string": "a string",
    "character": "a string",
    "structure": "a structure",
    "list": "a list",
    "map": "a map",
}
MEASURES = {"string": "characters", "character": "characters", "blob": "bytes", "list": "items", "map": "entries"}


def _integer_of_text(raw: Any) -> int:
    if not _INTEGER.fullmatch(raw):
        raise ValueError
    return int(raw)


def _float_of_text(raw: Any) -> float:
    if not _FLOAT.fullmatch(raw):
        raise ValueError
    return _float_of_json(float(raw))


def _boolean_of_text(raw: Any) -> bool:
    return {"true": True, "false": False}[raw.lower()]


def _string_of(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw


def _blob_of(raw: Any) -> bytes:
    return base64.b64decode("".join(raw.split()), validate=True)


def _timestamp_of_text(raw: Any) -> datetime:
    if _EPOCH.fullmatch(raw):
        return _within_reason(datetime.fromtimestamp(float(raw), UTC))
    if len(raw) > 40:
        raise ValueError
    moment = parsedate_to_datetime(raw) if "," in raw else datetime.fromisoformat(raw)
    return _within_reason((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC))


def _within_reason(moment: datetime) -> datetime:
    """What can be reckoned with: a little more or less is a time too."""
    if not 1000 <= moment.year < 9000:
        raise ValueError
    return moment


def _integer_of_json(raw: Any) -> int:
    if type(raw) is not int:
        raise TypeError
    return raw


def _float_of_json(raw: Any) -> float:
    if type(raw) not in (int, float) or not isfinite(raw):
        raise ValueError
    return float(raw)


def _boolean_of_json(raw: Any) -> bool:
    if type(raw) is not bool:
        raise TypeError
    return raw


def _timestamp_of_json(raw: Any) -> datetime:
    if isinstance(raw, str):
        return _timestamp_of_text(raw)
    return _within_reason(datetime.fromtimestamp(_float_of_json(raw), UTC))


OF_TEXT: dict[str, Callable[[Any], Any]] = {
    "integer": _integer_of_text,
    "long": _integer_of_text,
    "float": _float_of_text,
    "double": _float_of_text,
    "boolean": _boolean_of_text,
    "timestamp": _timestamp_of_text,
    "blob": _blob_of,
    "string": _string_of,
    "character": _string_of,
}
OF_JSON = OF_TEXT | {
    "integer": _integer_of_json,
    "long": _integer_of_json,
    "float": _float_of_json,
    "double": _float_of_json,
    "boolean": _boolean_of_json,
    "timestamp": _timestamp_of_json,
}

# What XML 1.0 must not contain as it stands, and what a parser would change (a carriage return).
_XML_SPECIAL = re.compile("[&<>\r\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_XML_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}


def escape_xml(text: str) -> str:
    return _XML_SPECIAL.sub(lambda found: _XML_ENTITIES.get(found[0], "\ufffd"), text)


def text_of_integer(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return int.__repr__(value)


def text_of_float(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if isfinite(value):
        return repr(value)
    return {inf: "Infinity", -inf: "-Infinity"}.get(value, "NaN")


def text_of_blob(value: Any) -> str:
    return base64.b64encode(value).decode("ascii")


def text_of_timestamp(value: Any, form: str) -> str:
    """As the `timestampFormat` trait says; whole milliseconds, as AWS gives them."""
    if value.tzinfo is None:
        raise TypeError
    utc = value.astimezone(UTC)
    if form == "iso8601":
        return f"{utc.isoformat(timespec='milliseconds')[:-6]}Z"
    if form == "rfc822":
        return format_datetime(utc, usegmt=True)
    whole, milliseconds = int(utc.replace(microsecond=0).timestamp()), utc.microsecond // 1000
    return f"{whole + milliseconds / 1000:.3f}" if milliseconds else str(whole)


TEXTS: dict[str, Callable[[Any], str]] = {
    "integer": text_of_integer,
    "long": text_of_integer,
    "float": text_of_float,
    "double": text_of_float,
    "blob": text_of_blob,
}


def shown(value: Any) -> str:
    """A caller's value as an error may quote it: bounded."""
    text = str(value)
    return text if len(text) <= 128 else f"{text[:128]}…"


def allowed(type_name: str, low: Any, high: Any) -> str:
    noun, measure = _NOUNS[type_name], MEASURES.get(type_name)
    if low is None and high is None:
        return noun
    joined = "of"
    if low == high:
        extent = f"{low}"
    elif low is None:
        extent = f"at most {high}"
    elif high is None:
        extent = f"{low} or more"
    else:
        extent = f"{low} to {high}"
        joined = "of" if measure else "from"
    return " ".join(filter(None, (noun, joined, extent, measure)))

"""AWS wire protocols to plain values and back, driven by botocore's service models.

    form or JSON ──► Protocol.parse ──► {"InstanceIds": ["i-…"], "DryRun": True}     as a boto3 user writes it
    XML or JSON  ◄── Protocol.serialise ◄── {"Reservations": [Fragment(key, build), …]}

One class per protocol, in PROTOCOLS: it says how names, lists and maps look in a request, and frames the answer. What
all of them share, the compiling of shapes, is in `shapes`.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from math import isfinite
from pathlib import Path
from typing import Any

from botocore.loaders import create_loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

from orchestrator.api.scalars import (
    INDEX,
    OF_JSON,
    OF_TEXT,
    TEXTS,
    escape_xml,
    shown,
    text_of_blob,
    text_of_float,
    text_of_timestamp,
)
from orchestrator.api.shapes import MAX_LIST_LENGTH, Brackets, Fragment, Protocol, UnknownMember, Writer, WrongType
from orchestrator.model.errors import EC2Error

__all__ = [
    "PROTOCOLS",
    "Fragment",
    "JSONProtocol",
    "Protocol",
    "UnknownMember",
    "WrongType",
    "load_model_file",
    "load_service",
    "protocol_for",
    "read_form",
]

_HEX = b"0123456789abcdefABCDEF"
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")  # as JSON can say it

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_BYTES = {b"%c%c" % (high, low): bytes([int(chr(high) + chr(low), 16)]) for high in _HEX for low in _HEX}

MAX_PARAMETERS = 10_000
MAX_DEPTH = 32

# ------------------------------------------------------------------------------------------------------- the models


@lru_cache(maxsize=64)
def load_service(name: str) -> ServiceModel:
    """botocore's newest model of a service ("ec2"); loaded once, since EC2's takes 150 ms."""
    return ServiceModel(create_loader().load_service_model(name, "service-2"), name)


@lru_cache(maxsize=64)
def load_model_file(path: Path) -> ServiceModel:
    """A service of our own, from a file in the format of botocore's service-2.json."""
    return ServiceModel(json.loads(path.read_text("utf-8"), object_pairs_hook=OrderedDict), path.parent.name)


@lru_cache(maxsize=128)
def protocol_for(model: ServiceModel, name: str | None = None) -> Protocol:
    """How `model` is spoken: by protocol `name` ("json"), or by the first of its own that is known here.

    A service that speaks several (CloudWatch: json to today's boto3, query to older clients) has one for each.
    """
    spoken = [*model.metadata.get("protocols", ()), model.metadata["protocol"]]
    for candidate in [name] if name is not None else spoken:
        if candidate in PROTOCOLS and candidate in spoken:
            return PROTOCOLS[candidate](model)
    wanted = f"{name} " if name else ""
    raise ValueError(f"{model.service_name} speaks {wanted}{', '.join(spoken)}; known here are {', '.join(PROTOCOLS)}")


# -------------------------------------------------------------------------------------------------------- the form


def read_form(raw: bytes) -> dict[str, str]:
    """An urlencoded form, or a query string, as EC2 takes it: UTF-8, each name once, bounded in number."""
    form: dict[str, str] = {}
    if raw.count(b"&") >= MAX_PARAMETERS:
        raise EC2Error("MalformedQueryString", f"The request has more than {MAX_PARAMETERS} parameters")
    for pair in raw.split(b"&"):
        if not pair:
            continue
        name_bytes, _, value_bytes = pair.replace(b"+", b" ").partition(b"=")
        try:
            name, value = _unquoted(name_bytes).decode(), _unquoted(value_bytes).decode()
        except UnicodeDecodeError:
            raise EC2Error("MalformedQueryString", "The request's parameters must be UTF-8") from None
        if name in form:
            raise EC2Error("MalformedQueryString", f"The parameter {shown(name)} is given more than once")
        form[name] = value
    return form


def _unquoted(text: bytes) -> bytes:
    """As `unquote_to_bytes`, which takes 180 times as much memory for a text that is all percent signs."""
    return _ESCAPE.sub(lambda found: _BYTES[found[1]], text) if b"%" in text else text


# ---------------------------------------------------------------------------------------------------------- protocols


class _FormProtocol(Protocol):
    """Requests are forms with dotted names, answers are XML."""

    content_type = "text/xml;charset=UTF-8"
    _dotted = True
    _scalars = OF_TEXT
    _timestamp_format = "iso8601"
    _structure_brackets = _list_brackets = Brackets("", "", "")

    def parse(self, operation: OperationModel, wire: Mapping[str, str] | bytes) -> dict[str, Any]:
        """`wire` is the form (or its bytes); Action, Version and what a presigned query adds are passed over."""
        form = read_form(wire) if isinstance(wire, bytes) else wire
        return self._read_input(operation, self._grow(form))

    def _grow(self, form: Mapping[str, str]) -> dict[str, Any]:
        """{"Filter.1.Name": "x"} -> {"Filter": {"1": {"Name": "x"}}}"""
        if len(form) > MAX_PARAMETERS:
            raise EC2Error("MalformedQueryString", f"The request has more than {MAX_PARAMETERS} parameters")
        root: dict[str, Any] = {}
        for name, value in form.items():
            if name in ("Action", "Version") or name.startswith("X-Amz-"):
                continue
            if name.count(".") >= MAX_DEPTH:
                raise self._unknown(name)
            *branches, leaf = name.split(".")
            node = root
            for branch in branches:
                node = node.setdefault(branch, {})
                if type(node) is not dict:
                    break
            if type(node) is not dict or leaf in node:
                raise EC2Error(self.invalid_code, f"The parameter {shown(name)} is given both as a value and in parts")
            node[leaf] = value
        return root

    def _numbered(self, shape: Shape, raw: Any, path: str) -> list[tuple[Any, str]]:
        if raw == "":
            return []  # how an empty list is sent
        if type(raw) is not dict:
            raise self._unknown(path)
        for index in raw:
            if not INDEX.fullmatch(index):
                raise self._unknown(f"{path}.{index}")
        if len(raw) > MAX_LIST_LENGTH:
            raise self._invalid(path, f"{len(raw)} items", shape, None, MAX_LIST_LENGTH)
        return [(raw[index], f"{path}.{index}") for index in sorted(raw, key=int)]

    def _items(self, shape: ListShape) -> Callable[[Any, str], list[tuple[Any, str]]]:
        return lambda raw, path: self._numbered(shape, raw, path)

    def _entries(self, shape: MapShape) -> Callable[[Any, str], list[tuple[Any, Any, str]]]:
        key_name = shape.key.serialization.get("name", "key")
        value_name = shape.value.serialization.get("name", "value")
        word = None if self._flattened(shape) else "entry"

        def entries(raw: Any, path: str) -> list[tuple[Any, Any, str]]:
            raw, path = self._below(raw, path, word)
            found = []
            for pair, pair_path in self._numbered(shape, raw, path):
                if type(pair) is not dict or not pair.keys() <= {key_name, value_name}:
                    raise self._unknown(pair_path)
                for name in (key_name, value_name):
                    if name not in pair:
                        raise self._missing(f"{pair_path}.{name}")
                found.append((pair[key_name], pair[value_name], pair_path))
            return found

        return entries

    def _below(self, raw: Any, path: str, word: str | None) -> tuple[Any, str]:
        """The one child, called `word`, that a list or a map of the query protocol has."""
        if word is None or type(raw) is not dict:
            return raw, path
        for name in raw:
            if name != word:
                raise self._unknown(f"{path}.{name}")
        return raw[word], f"{path}.{word}"

    def _mark(self, label: str) -> tuple[str, str]:
        return (f"<{label}>", f"</{label}>") if label else ("", "")

    def _item_label(self, shape: ListShape, label: str) -> str:
        default = label if self._flattened(shape) else "member"
        name: str = shape.member.serialization.get("name", default)
        return name

    def _output_name(self, shape: Shape, member: str) -> str:
        name: str = shape.serialization.get("name", member)
        return name

    def _text(self, shape: Shape) -> Callable[[Any], str]:
        if shape.type_name == "timestamp":
            form = shape.serialization.get("timestampFormat", self._timestamp_format)
            return lambda value: text_of_timestamp(value, form)
        return TEXTS[shape.type_name]

    def _scalar_writer(self, shape: Shape, label: str) -> Writer:
        if shape.type_name not in ("string", "character"):
            return super()._scalar_writer(shape, label)
        before, after = self._mark(label)

        def write(value: Any) -> str:
            # Most of an answer is plain words, for which this is half the time of the search in escape_xml.
            if value.isprintable() and "&" not in value and "<" not in value and ">" not in value:
                return before + value + after  # type: ignore[no-any-return]
            return before + escape_xml(value) + after

        return write

    def _map_writer(self, shape: MapShape, label: str) -> Writer:
        flattened = self._flattened(shape)
        before, after = ("", "") if flattened else self._mark(label)
        entry_before, entry_after = self._mark(label if flattened else "entry")
        write_key = self._writer(shape.key, shape.key.serialization.get("name", "key"))
        write_value = self._writer(shape.value, shape.value.serialization.get("name", "value"))

        def write(value: Any) -> str:
            entries = [entry_before + write_key(k) + write_value(v) + entry_after for k, v in value.items()]
            return before + "".join(entries) + after

        return write

    def _namespace(self) -> str:
        found = self.model.metadata.get("xmlNamespace", "")
        uri: str = found["uri"] if isinstance(found, Mapping) else found
        return escape_xml(uri)


_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


class EC2Protocol(_FormProtocol):
    """EC2's own: flat lists (`InstanceId.1`), capitalised names, `<xSet><item>`, `<requestId>` first."""

    name = "ec2"

    def _input_name(self, shape: Shape, member: str) -> str:
        if "queryName" in shape.serialization:
            name: str = shape.serialization["queryName"]
        else:
            name = shape.serialization.get("name", member)
            name = name[0].upper() + name[1:]
        return name

    def _item_label(self, shape: ListShape, label: str) -> str:
        name: str = shape.member.serialization.get("name", "item")
        return name

    def _frame(self, operation: OperationModel, request_id: str) -> tuple[str, str]:
        name, namespace = operation.name, self._namespace().rstrip("/")
        head = f'{_DECLARATION}<{name}Response xmlns="{namespace}/"><requestId>{escape_xml(request_id)}</requestId>'
        # An operation without an output shape says that it worked.
        return head if operation.output_shape is not None else f"{head}<return>true</return>", f"</{name}Response>"

    def serialise_error(self, code: str, message: str, request_id: str, http_status: int = 400) -> tuple[bytes, str]:
        text = (
            f"{_DECLARATION}<Response><Errors><Error><Code>{escape_xml(code)}</Code>"
            f"<Message>{escape_xml(message)}</Message></Error></Errors>"
            f"<RequestID>{escape_xml(request_id)}</RequestID></Response>"
        )
        return text.encode(), self.content_type


class QueryProtocol(_FormProtocol):
    """STS, IAM, Auto Scaling, ELB, CloudFormation: `Names.member.1`, and an answer inside `<XResult>`."""

    name = "query"
    content_type = "text/xml"
    unknown_code = invalid_code = missing_code = "ValidationError"

    def _input_name(self, shape: Shape, member: str) -> str:
        name = None
        if isinstance(shape, ListShape) and self._flattened(shape):
            name = shape.member.serialization.get("name")
        return name or super()._input_name(shape, member)

    def _output_name(self, shape: Shape, member: str) -> str:
        return self._input_name(shape, member)

    def _items(self, shape: ListShape) -> Callable[[Any, str], list[tuple[Any, str]]]:
        word = None if self._flattened(shape) else shape.member.serialization.get("name", "member")

        def items(raw: Any, path: str) -> list[tuple[Any, str]]:
            return self._numbered(shape, *self._below(raw, path, word))

        return items

    def _frame(self, operation: OperationModel, request_id: str) -> tuple[str, str]:
        name, output = operation.name, operation.output_shape
        opened, closed = self._mark(output.serialization.get("resultWrapper", "") if output is not None else "")
        metadata = f"<ResponseMetadata><RequestId>{escape_xml(request_id)}</RequestId></ResponseMetadata>"
        return f'<{name}Response xmlns="{self._namespace()}">{opened}', f"{closed}{metadata}</{name}Response>"

    def serialise_error(self, code: str, message: str, request_id: str, http_status: int = 400) -> tuple[bytes, str]:
        text = (
            f'<ErrorResponse xmlns="{self._namespace()}"><Error><Type>{_blamed(http_status)}</Type>'
            f"<Code>{escape_xml(code)}</Code><Message>{escape_xml(message)}</Message></Error>"
            f"<RequestId>{escape_xml(request_id)}</RequestId></ErrorResponse>"
        )
        return text.encode(), self.content_type


class JSONProtocol(Protocol):
    """awsJson 1.0 and 1.1: the operation is named in X-Amz-Target, the body is an object."""

    name = "json"
    unknown_code = invalid_code = missing_code = "ValidationException"
    _dotted = False
    _scalars = OF_JSON
    _timestamp_format = "unixtimestamp"
    _structure_brackets = Brackets("{", ",", "}")
    _list_brackets = Brackets("[", ",", "]")

    def __init__(self, model: ServiceModel) -> None:
        super().__init__(model)
        self.content_type = f"application/x-amz-json-{model.metadata['jsonVersion']}"
        shapes = (model.shape_for(name) for name in model.shape_names)
        errors = [shape for shape in shapes if isinstance(shape, StructureShape) and shape.metadata.get("exception")]
        # A service that used to speak query keeps the old code in a header, and names the shape in the body.
        self._error_shapes = {shape.error_code: shape.name for shape in errors}
        self._query_compatible = "awsQueryCompatible" in model.metadata

    def operation_name(self, target: str) -> str:
        """The operation that an X-Amz-Target header names; EC2Error `UnknownOperationException` if it is no such."""
        prefix, _, operation = target.rpartition(".")
        if prefix != self.model.metadata["targetPrefix"] or operation not in self.model.operation_names:
            service = self.model.service_name
            raise EC2Error("UnknownOperationException", f"{shown(target)} is not an operation of {service}")
        return operation

    def parse(self, operation: OperationModel, wire: Mapping[str, str] | bytes) -> dict[str, Any]:
        if not isinstance(wire, bytes):
            raise EC2Error("SerializationException", "The request must name its operation in X-Amz-Target")
        try:
            value = json.loads(wire.decode() or "{}", parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise EC2Error("SerializationException", "The body must be a JSON object in UTF-8") from None
        if not isinstance(value, dict):
            raise EC2Error("SerializationException", "The body must be a JSON object in UTF-8")
        self._bound(value)
        if _SURROGATE.search(wire) and not _is_text(value):
            raise EC2Error("SerializationException", "The body has half of a surrogate pair, which is no character")
        return self._read_input(operation, value)

    def _bound(self, value: dict[str, Any]) -> None:
        level: list[Any] = [value]
        count = 0
        for _ in range(MAX_DEPTH):
            below: list[Any] = []
            for node in level:
                below += node.values() if type(node) is dict else node
            count += len(below)
            if count > MAX_PARAMETERS * 10:
                raise EC2Error("SerializationException", f"The body has more than {MAX_PARAMETERS * 10} values")
            level = [child for child in below if type(child) in (dict, list)]
            if not level:
                return
        raise EC2Error("SerializationException", f"The body is nested deeper than {MAX_DEPTH} levels")

    def _items(self, shape: ListShape) -> Callable[[Any, str], list[tuple[Any, str]]]:
        def items(raw: Any, path: str) -> list[tuple[Any, str]]:
            if type(raw) is not list:
                raise self._invalid(path, raw, shape)
            return [(child, f"{path}.{number}") for number, child in enumerate(raw, 1)]

        return items

    def _entries(self, shape: MapShape) -> Callable[[Any, str], list[tuple[Any, Any, str]]]:
        def entries(raw: Any, path: str) -> list[tuple[Any, Any, str]]:
            if type(raw) is not dict:
                raise self._invalid(path, raw, shape)
            return [(key, child, f"{path}.{key}") for key, child in raw.items()]

        return entries

    def _mark(self, label: str) -> tuple[str, str]:
        return (f"{encode_basestring_ascii(label)}:" if label else "", "")

    def _item_label(self, shape: ListShape, label: str) -> str:
        return ""

    def _text(self, shape: Shape) -> Callable[[Any], str]:
        kind = shape.type_name
        if kind in ("string", "character"):
            return encode_basestring_ascii
        if kind == "timestamp":
            form = shape.serialization.get("timestampFormat", self._timestamp_format)
            if form == "unixtimestamp":
                return lambda value: text_of_timestamp(value, form)
            return lambda value: f'"{text_of_timestamp(value, form)}"'
        if kind == "blob":
            return lambda value: f'"{text_of_blob(value)}"'
        if kind in ("float", "double"):
            return lambda value: text_of_float(value) if isfinite(value) else f'"{text_of_float(value)}"'
        return TEXTS[kind]

    def _map_writer(self, shape: MapShape, label: str) -> Writer:
        before, after = self._mark(label)
        write_value = self._writer(shape.value, "")

        def write(value: Any) -> str:
            entries = [f"{encode_basestring_ascii(key)}:{write_value(child)}" for key, child in value.items()]
            return f"{before}{{{','.join(entries)}}}{after}"

        return write

    def _frame(self, operation: OperationModel, request_id: str) -> tuple[str, str]:
        return "{", "}"

    def serialise_error(self, code: str, message: str, request_id: str, http_status: int = 400) -> tuple[bytes, str]:
        # What every service is refused in EC2's words (UnsupportedOperation) is a shape of some.
        kind = self._error_shapes.get(code) or self._error_shapes.get(f"{code}Exception", code)
        return json.dumps({"__type": kind, "message": message}).encode(), self.content_type

    def headers(self, request_id: str, code: str | None = None, http_status: int = 200) -> dict[str, str]:
        headers = super().headers(request_id)
        if code is not None and self._query_compatible:
            headers["x-amzn-query-error"] = f"{code};{_blamed(http_status)}"
        return headers


PROTOCOLS: dict[str, type[Protocol]] = {kind.name: kind for kind in (EC2Protocol, QueryProtocol, JSONProtocol)}


def _is_text(value: Any) -> bool:
    """Whether all of it can be written in UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> Iterable[Any]:
    raise ValueError(f"{name} is no JSON")


def _blamed(http_status: int) -> str:
    return "Receiver" if http_status >= 500 else "Sender"

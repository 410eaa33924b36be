"""Compiles the shapes of a service model: inputs to readers, outputs to writers.

    Shape ──once──► Reader: (wire value, its path `Filter.1.Name`) ──► checked value, or EC2Error
          ──once──► Writer: value ──► text

So a request costs no walk over the model, and a Describe of many resources that did not change is a dictionary lookup
for each: see Fragment.

Reading trusts nothing: what it takes is bounded in number, depth and range, and an unknown name is an error. Writing
trusts the handler, but a name that the model does not have, or a value of another type, raises (UnknownMember,
WrongType) instead of being lost.
"""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, NamedTuple

from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape

from orchestrator.api.scalars import MEASURES, TYPE_RANGES, UNREADABLE, allowed, shown
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter

MAX_LIST_LENGTH = 5_000
MAX_FRAGMENTS = 20_000
MAX_FRAGMENT_CHARACTERS = 128 * 1024 * 1024
FRAGMENT_IDLE_S = 60.0

Reader = Callable[[Any, str], Any]
"""(wire value, its path) -> checked value; raises EC2Error."""
Writer = Callable[[Any], str]
_Pieces = Callable[[Any], list[str]]


class UnknownMember(KeyError):
    """A handler answered with a member that the operation's output does not have."""

    def __init__(self, operation: str, path: str) -> None:
        super().__init__(f"{operation} has no member {path} in its output")
        self.operation = operation
        self.path = path


class WrongType(TypeError):
    """A handler answered with a value that the member's type does not take."""

    def __init__(self, operation: str, path: str, type_name: str, value: object) -> None:
        super().__init__(f"{operation} answers {path} with a {type(value).__name__}; the model wants a {type_name}")
        self.operation = operation
        self.path = path


@dataclass(frozen=True, slots=True)
class Fragment:
    """Stands for a structure in a list of an answer; its text is kept under `key`, and `build` is called on a miss.

    The key must name everything that the structure shows: the resource, its revision, and those of all else in it.
    Where `build` reads what may have changed since the key was made, `anew` gives the fragment to take on a miss: one
    whose key is of what it builds, which is kept under that key and no other.
    """

    key: Hashable
    build: Callable[[], dict[str, Any]]
    anew: Callable[[], Fragment] | None = None


class FragmentCache:
    """Rendered text of fragments, least recently used out first; bounded in number and in characters. What nobody has
    asked for in a while goes as well: most of it shows what has changed since, or is there no more."""

    def __init__(
        self,
        max_entries: int = MAX_FRAGMENTS,
        max_characters: int = MAX_FRAGMENT_CHARACTERS,
        idle_s: float = FRAGMENT_IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries = max_entries
        self._max_characters = max_characters
        self._idle_s = idle_s
        self._clock = clock
        self._characters = 0
        self._texts: OrderedDict[Hashable, tuple[str, float]] = OrderedDict()  # each with when it was last used
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._texts)

    def get(self, key: Hashable) -> str | None:
        with self._lock:
            kept = self._texts.get(key)
            if kept is None:
                return None
            self._texts[key] = (kept[0], self._clock())
            self._texts.move_to_end(key)
            return kept[0]

    def put(self, key: Hashable, text: str) -> None:
        with self._lock:
            now = self._clock()
            self._characters += len(text) - len(self._texts.pop(key, ("", now))[0])
            self._texts[key] = (text, now)
            while (
                len(self._texts) > self._max_entries
                or self._characters > self._max_characters
                or (self._texts and next(iter(self._texts.values()))[1] < now - self._idle_s)
            ):
                _, (dropped, _) = self._texts.popitem(last=False)
                self._characters -= len(dropped)


class Brackets(NamedTuple):
    opening: str
    separator: str
    closing: str


class Protocol(ABC):
    """What every protocol does: compile shapes to readers and writers, keep them, and bound what is read.

    A subclass says how names and scalars look on the wire, and frames the answer.
    """

    name: ClassVar[str]
    content_type: str
    unknown_code: ClassVar[str] = "UnknownParameter"
    invalid_code: ClassVar[str] = "InvalidParameterValue"
    missing_code: ClassVar[str] = "MissingParameter"

    _dotted: ClassVar[bool]
    """Nesting is in names (`A.B`): so "" is an empty structure, and a scalar with parts is an unknown name."""
    _scalars: ClassVar[Mapping[str, Callable[[Any], Any]]]
    _timestamp_format: ClassVar[str]
    _structure_brackets: ClassVar[Brackets]
    _list_brackets: ClassVar[Brackets]

    def __init__(self, model: ServiceModel) -> None:
        self.model = model
        self.fragments = FragmentCache()
        self._compiling = threading.RLock()
        self._input_readers: dict[str, Reader] = {}
        self._output_writers: dict[str, _Pieces] = {}
        self._structure_readers: dict[str, Reader] = {}
        self._structure_members: dict[str, dict[str, Writer]] = {}

    # What a protocol has to say for itself.

    @abstractmethod
    def parse(self, operation: OperationModel, wire: Mapping[str, str] | bytes) -> dict[str, Any]:
        """The caller's parameters by member name. `wire` is a form, or the body. Raises EC2Error."""

    @abstractmethod
    def _frame(self, operation: OperationModel, request_id: str) -> tuple[str, str]:
        """What goes before and after the members of an answer."""

    @abstractmethod
    def serialise_error(self, code: str, message: str, request_id: str, http_status: int = 400) -> tuple[bytes, str]:
        """Body and content type of an error; http_status (500 and up: our fault) may show in the body."""

    def _input_name(self, shape: Shape, member: str) -> str:
        name: str = shape.serialization.get("name", member)
        return name

    @abstractmethod
    def _items(self, shape: ListShape) -> Callable[[Any, str], list[tuple[Any, str]]]: ...

    @abstractmethod
    def _entries(self, shape: MapShape) -> Callable[[Any, str], list[tuple[Any, Any, str]]]: ...

    @abstractmethod
    def _mark(self, label: str) -> tuple[str, str]:
        """What goes before and after a value that is called `label`, or stands alone (empty)."""

    @abstractmethod
    def _text(self, shape: Shape) -> Callable[[Any], str]: ...

    @abstractmethod
    def _map_writer(self, shape: MapShape, label: str) -> Writer: ...

    # What is the same for all.

    def serialise(self, operation: OperationModel, result: Mapping[str, Any], request_id: str) -> tuple[bytes, str]:
        """Body and content type of an answer. Members that are None are left out.

        Raises UnknownMember or WrongType, with the path, for what the operation's output shape does not take.
        """
        write = self._output_writers.get(operation.name) or self._compile_output(operation)
        try:
            pieces = write(result)
        except (KeyError, TypeError, AttributeError, ValueError):
            if operation.output_shape is None:
                raise UnknownMember(operation.name, str(next(iter(result)))) from None
            self._explain(operation.name, operation.output_shape, result, "")
            raise
        head, tail = self._frame(operation, request_id)
        return "".join([head, *pieces, tail]).encode(), self.content_type

    def headers(self, request_id: str, code: str | None = None, http_status: int = 200) -> dict[str, str]:
        """The protocol's own headers of an answer, or of an error `code`."""
        return {"x-amzn-RequestId": request_id}

    def _unknown(self, path: str) -> EC2Error:
        return EC2Error(self.unknown_code, f"The parameter {shown(path)} is not recognized")

    def _missing(self, path: str) -> EC2Error:
        return EC2Error(self.missing_code, missing_parameter(shown(path)).message)

    def _invalid(self, path: str, raw: Any, shape: Shape, low: Any = None, high: Any = None) -> EC2Error:
        value = "(sensitive)" if shape.metadata.get("sensitive") else shown(raw)
        wanted = allowed(shape.type_name, low, high)
        return EC2Error(self.invalid_code, invalid_parameter(shown(path), value, wanted).message)

    def _read_input(self, operation: OperationModel, wire: Any) -> dict[str, Any]:
        read = self._input_readers.get(operation.name)
        if read is None:
            with self._compiling:
                shape = operation.input_shape
                read = self._structure_reader(shape) if shape is not None else self._nothing
                self._input_readers[operation.name] = read
        values: dict[str, Any] = read(wire, "")
        return values

    def _nothing(self, wire: Any, path: str) -> dict[str, Any]:
        for name in wire:
            raise self._unknown(name)
        return {}

    def _reader(self, shape: Shape) -> Reader:
        if isinstance(shape, StructureShape):
            return self._structure_reader(shape)
        if isinstance(shape, ListShape):
            return self._list_reader(shape)
        if isinstance(shape, MapShape):
            return self._map_reader(shape)
        return self._scalar_reader(shape)

    def _structure_reader(self, shape: StructureShape) -> Reader:
        if shape.is_document_type:
            return lambda raw, path: raw
        if shape.name in self._structure_readers:  # it may be one that is being compiled: shapes may be recursive
            return self._structure_readers[shape.name]
        readers: dict[str, tuple[str, Reader]] = {}
        required: list[tuple[str, str]] = []

        def read(raw: Any, path: str) -> dict[str, Any]:
            if type(raw) is not dict:
                if not (self._dotted and raw == ""):
                    raise self._invalid(path, raw, shape)
                raw = {}
            prefix = f"{path}." if path else ""
            values = {}
            for wire_name, child in raw.items():
                try:
                    member, read_member = readers[wire_name]
                except KeyError:
                    raise self._unknown(prefix + wire_name) from None
                if child is not None:
                    values[member] = read_member(child, prefix + wire_name)
            for member, wire_name in required:
                if member not in values:
                    raise self._missing(prefix + wire_name)
            return values

        self._structure_readers[shape.name] = read
        for member, member_shape in shape.members.items():
            wire_name = self._input_name(member_shape, member)
            readers[wire_name] = (member, self._reader(member_shape))
            # The client makes an idempotency token up when the user gives none, or does without.
            if member in shape.required_members and "idempotencyToken" not in member_shape.metadata:
                required.append((member, wire_name))
        return read

    def _list_reader(self, shape: ListShape) -> Reader:
        items, read_item = self._items(shape), self._reader(shape.member)
        low, high = shape.metadata.get("min", 0), shape.metadata.get("max", MAX_LIST_LENGTH)

        def read(raw: Any, path: str) -> list[Any]:
            found = items(raw, path)
            if not low <= len(found) <= high:
                raise self._invalid(path, f"{len(found)} items", shape, low, high)
            return [read_item(child, child_path) for child, child_path in found]

        return read

    def _map_reader(self, shape: MapShape) -> Reader:
        entries, read_key, read_value = self._entries(shape), self._reader(shape.key), self._reader(shape.value)
        low, high = shape.metadata.get("min", 0), shape.metadata.get("max", MAX_LIST_LENGTH)

        def read(raw: Any, path: str) -> dict[Any, Any]:
            found = entries(raw, path)
            if not low <= len(found) <= high:
                raise self._invalid(path, f"{len(found)} entries", shape, low, high)
            return {read_key(key, child_path): read_value(child, child_path) for key, child, child_path in found}

        return read

    def _scalar_reader(self, shape: Shape) -> Reader:
        convert = self._scalars[shape.type_name]
        low, high = shape.metadata.get("min"), shape.metadata.get("max")
        type_low, type_high = TYPE_RANGES.get(shape.type_name, (-inf, inf))
        floor, ceiling = type_low if low is None else low, type_high if high is None else high
        sized = shape.type_name in MEASURES
        bounded = floor > -inf or ceiling < inf

        def read(raw: Any, path: str) -> Any:
            try:
                value = convert(raw)
            except UNREADABLE:
                if isinstance(raw, dict) and self._dotted:
                    raise self._unknown(f"{path}.{next(iter(raw))}") from None
                raise self._invalid(path, raw, shape, low, high) from None
            if bounded and not floor <= (len(value) if sized else value) <= ceiling:
                limits = (None if limit in (-inf, inf) else limit for limit in (floor, ceiling))
                raise self._invalid(path, raw, shape, *limits)
            return value

        return read

    def _compile_output(self, operation: OperationModel) -> _Pieces:
        """The members of an answer as pieces, so that a long list is put together once, with the frame."""
        with self._compiling:
            shape = operation.output_shape
            members = self._members(shape) if shape is not None else {}
            lists = {
                name: self._list_pieces(member, self._output_name(member, name))
                for name, member in (shape.members.items() if shape is not None else ())
                if isinstance(member, ListShape)
            }
        separator = self._structure_brackets.separator

        def write(value: Any) -> list[str]:
            pieces: list[str] = []
            for name, child in value.items():
                if child is None:
                    continue
                if pieces:
                    pieces.append(separator)
                if name in lists:
                    pieces += lists[name](child)
                else:
                    pieces.append(members[name](child))
            return pieces

        self._output_writers[operation.name] = write
        return write

    def _members(self, shape: StructureShape) -> dict[str, Writer]:
        """Writers by member name. A recursive shape meets its own half filled; they are complete when used."""
        if shape.name not in self._structure_members:
            members: dict[str, Writer] = {}
            self._structure_members[shape.name] = members
            for member, member_shape in shape.members.items():
                members[member] = self._writer(member_shape, self._output_name(member_shape, member))
        return self._structure_members[shape.name]

    def _output_name(self, shape: Shape, member: str) -> str:
        name: str = shape.serialization.get("name", member)
        return name

    def _writer(self, shape: Shape, label: str) -> Writer:
        if isinstance(shape, StructureShape):
            return self._structure_writer(shape, label)
        if isinstance(shape, ListShape):
            return self._list_writer(shape, label)
        if isinstance(shape, MapShape):
            return self._map_writer(shape, label)
        return self._scalar_writer(shape, label)

    def _scalar_writer(self, shape: Shape, label: str) -> Writer:
        before, after = self._mark(label)
        if shape.type_name == "boolean":
            true, false = f"{before}true{after}", f"{before}false{after}"

            def write_boolean(value: Any) -> str:
                if value is True:
                    return true
                if value is False:
                    return false
                raise TypeError

            return write_boolean
        text = self._text(shape)
        return lambda value: before + text(value) + after

    def _structure_writer(self, shape: StructureShape, label: str) -> Writer:
        before, after = self._mark(label)
        if shape.is_document_type:
            return lambda value: before + json.dumps(value) + after
        opening, separator, closing = self._structure_brackets
        before, after, join = before + opening, closing + after, separator.join
        members = self._members(shape)

        def write(value: Any) -> str:
            return before + join([members[name](child) for name, child in value.items() if child is not None]) + after

        return write

    def _list_writer(self, shape: ListShape, label: str) -> Writer:
        pieces, join = self._list_pieces(shape, label), "".join
        return lambda value: join(pieces(value))

    def _list_pieces(self, shape: ListShape, label: str) -> _Pieces:
        item_label = self._item_label(shape, label)
        before, after = ("", "") if self._flattened(shape) else self._mark(label)
        opening, separator, closing = self._list_brackets
        before, after = before + opening, closing + after
        write_item = self._writer(shape.member, item_label)
        fragments, home = self.fragments, (shape.member.name, item_label)

        def write_any(item: Any) -> str:
            if item.__class__ is not Fragment:
                return write_item(item)
            text = fragments.get((home, item.key))
            if text is None:
                made = item.anew() if item.anew is not None else item
                text = write_item(made.build())
                fragments.put((home, made.key), text)
            return text

        def write(value: Any) -> list[str]:
            if not isinstance(value, list | tuple):
                raise TypeError
            items = [write_any(item) for item in value]
            return [before, separator.join(items), after] if separator else [before, *items, after]

        return write

    def _flattened(self, shape: Shape) -> bool:
        """Whether a list or a map repeats its own name instead of wrapping its items; JSON has no such thing."""
        return self._dotted and bool(shape.serialization.get("flattened"))

    @abstractmethod
    def _item_label(self, shape: ListShape, label: str) -> str: ...

    def _explain(self, operation: str, shape: Shape, value: Any, path: str) -> None:
        """Raise for the first member of `value` that the shape does not take; return when there is none."""
        where = path or "output"
        if isinstance(shape, StructureShape) and not shape.is_document_type:
            if not isinstance(value, Mapping):
                raise WrongType(operation, where, "structure", value) from None
            for name, child in value.items():
                child_path = f"{path}.{name}" if path else str(name)
                if name not in shape.members:
                    raise UnknownMember(operation, child_path) from None
                if child is not None:
                    self._explain(operation, shape.members[name], child, child_path)
        elif isinstance(shape, ListShape):
            if not isinstance(value, list | tuple):
                raise WrongType(operation, where, "list", value) from None
            for number, item in enumerate(value):
                built = item.build() if isinstance(item, Fragment) else item
                self._explain(operation, shape.member, built, f"{path}[{number}]")
        elif isinstance(shape, MapShape):
            if not isinstance(value, Mapping):
                raise WrongType(operation, where, "map", value) from None
            for key, child in value.items():
                self._explain(operation, shape.value, child, f"{path}[{key!r}]")
        else:
            try:
                self._writer(shape, "")(value)
            except (TypeError, AttributeError, ValueError):
                raise WrongType(operation, where, shape.type_name, value) from None

"""What every stored resource has: an id, an owner, a region, tags, and the revision that the store gave it.

A resource is a frozen value. A change is `dataclasses.replace` and a `put` in a transaction; the store gives it a new
`revision`. A new field with a default needs no migration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar

EVERY_REGION = "*"  # the region of what a deployment offers everywhere, such as its image catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    KIND: ClassVar[str] = ""
    INDEXES: ClassVar[tuple[str, ...]] = ("account",)  # attributes or properties that `Store.all` can select by

    id: str
    account: str = ""
    region: str = ""
    created: datetime
    tags: dict[str, str] = field(default_factory=dict)
    revision: int = 0


R = TypeVar("R", bound=Resource)


class Rows(Protocol):
    """A store or a transaction, for reading."""

    def get(self, kind: type[R], resource_id: str, /) -> R | None: ...

    def all(self, kind: type[R], /, **where: Any) -> Sequence[R]: ...

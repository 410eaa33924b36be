"""The rows of the store in memory: for each kind its resources by id, and the indexes that find them.

The store's file (or server) is the truth; what is here is its decoded copy, changed when a commit is done. One thread
changes it and others read meanwhile without a lock, so the order of steps is what they can rely on:

    a row that is found by its id is found by every index, at each instant; one that moves from a value to another is
    for a moment found by both, in its old revision and its new one, and never by neither
"""

from __future__ import annotations

from collections.abc import Hashable

from orchestrator.model.resource import Resource


class Table:
    """The rows of one kind in memory, with their indexes. An attribute that is a tuple is indexed by each element."""

    def __init__(self, kind: type[Resource]) -> None:
        self.kind = kind
        self.rows: dict[str, Resource] = {}
        self.indexes: dict[str, dict[Hashable, dict[str, Resource]]] = {name: {} for name in kind.INDEXES}

    def put(self, resource: Resource) -> None:
        old = self.rows.get(resource.id)
        left: list[tuple[dict[Hashable, dict[str, Resource]], tuple[Hashable, ...]]] = []
        for name, index in self.indexes.items():
            values = values_of(resource, name)
            for value in values:
                index.setdefault(value, {})[resource.id] = resource
            if old is not None and (before := values_of(old, name)) != values:
                left.append((index, tuple(value for value in before if value not in values)))
        self.rows[resource.id] = resource
        for index, values in left:
            self._unindex(index, values, resource.id)

    def delete(self, resource_id: str) -> None:
        old = self.rows.pop(resource_id, None)
        if old is not None:
            for name, index in self.indexes.items():
                self._unindex(index, values_of(old, name), resource_id)

    def select(self, where: dict[str, Hashable]) -> list[Resource]:
        """The rows whose attributes equal `where`; the first name must be indexed, the narrowest index is used."""
        if not where:
            return list(self.rows.values())
        if len(where) == 1:  # nearly always, and thousands of times for one page of a listing
            [(name, value)] = where.items()
            if name in self.indexes:
                return list(self.indexes[name].get(value, {}).values())
        candidates = [self.indexes[name].get(value, {}) for name, value in where.items() if name in self.indexes]
        if not candidates:
            raise KeyError(f"{self.kind.__name__} has no index among {sorted(where)}")
        return [row for row in list(min(candidates, key=len).values()) if matches(row, where)]

    def counts(self, name: str) -> dict[Hashable, int]:
        """How many rows have each value of an indexed attribute. Costs what there are values, not rows."""
        return {value: len(rows) for value, rows in list(self.indexes[name].items())}

    @staticmethod
    def _unindex(index: dict[Hashable, dict[str, Resource]], values: tuple[Hashable, ...], resource_id: str) -> None:
        for value in values:
            rows = index.get(value)
            if rows is not None:
                rows.pop(resource_id, None)
                if not rows:
                    index.pop(value, None)


def values_of(resource: Resource, name: str) -> tuple[Hashable, ...]:
    value = getattr(resource, name)
    return value if isinstance(value, tuple) else (value,)


def matches(resource: Resource, where: dict[str, Hashable]) -> bool:
    return all(value in values_of(resource, name) for name, value in where.items())

"""What is plugged into a machine that runs, and out of it: interfaces and volumes, by their attachment's state.

    attaching ---- plugged in -----> attached
    attached ----- missing --------> plugged in again
    detaching ---- the guest has let go, or, if forced, has had its time ----> free
    no row ------- plugged in -----> the guest is asked to let go

A guest that is still booting does not hear it when it is asked, so it is asked again until it has let go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from orchestrator.host import HostError
from orchestrator.model.instance import Instance
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface
from orchestrator.reconcile.loop import Again
from orchestrator.store import Store, Transaction

log = logging.getLogger(__name__)

ASK_EACH_S = 5.0
LOOK_EACH_S = 1.0
LET_GO_WITHIN = timedelta(seconds=15)  # then a forced detachment is done without the guest

R = TypeVar("R", NetworkInterface, Volume)


class Parts(Protocol[R]):
    """One kind of what can be plugged in."""

    kind: type[R]

    def rows(self, instance_id: str) -> Mapping[str, R]:
        """Those of an instance, by the name that the machine has for each."""

    def prepare(self, instance: Instance, missing: Sequence[R]) -> Collection[str]:
        """Make ready what is to be plugged in; the names of those that are."""

    def plug_in(self, instance_id: str, row: R) -> None:
        """Raises HostError."""

    def unplug(self, instance_id: str, name: str) -> None:
        """Ask the guest to let go. Raises HostError."""

    def has_come(self, tx: Transaction, row: R, now: datetime) -> None: ...

    def holds_on(self, tx: Transaction, row: R) -> None:
        """The guest was asked, and has not let go yet."""

    def has_gone(self, tx: Transaction, row: R, *, held: bool) -> None:
        """`held`: by force, and the guest has it still."""


@dataclass(slots=True)
class Unplugging:
    """A guest that has been asked to let go of something."""

    begun: datetime
    asked: datetime | None = None


class Plugs(Generic[R]):
    def __init__(self, store: Store, clock: Callable[[], datetime], parts: Parts[R]) -> None:
        self._store = store
        self._clock = clock
        self._parts: Parts[R] = parts

    def keep(self, instance: Instance, plugged_in: Collection[str], unplugging: dict[str, Unplugging]) -> Again | None:
        """Make what is plugged in that of the rows, and write down what is done; Again while something is to come or
        to go. `unplugging` is what is remembered from one call to the next."""
        rows = self._parts.rows(instance.id)
        present = set(plugged_in)
        missing = {name: row for name, row in rows.items() if name not in present and not is_leaving(row)}
        ready = self._parts.prepare(instance, list(missing.values())) if missing else ()
        added = {name for name, row in missing.items() if name in ready and self._plug_in(instance.id, row)}
        present |= added
        leaving = {name for name in present if name not in rows or is_leaving(rows[name])}
        for name in unplugging.keys() - leaving:
            del unplugging[name]
        for name in sorted(leaving):
            self._unplug(instance.id, name, unplugging)
        overdue = {name for name, each in unplugging.items() if self._clock() - each.begun >= LET_GO_WITHIN}
        self._settle(rows, present, unplugging, overdue)
        if added:
            return Again(0)  # it is there now: look at it
        if missing.keys() - set(ready):
            return Again(LOOK_EACH_S)
        return Again(LOOK_EACH_S if leaving - overdue else ASK_EACH_S) if leaving else None

    def _plug_in(self, instance_id: str, row: R) -> bool:
        try:
            self._parts.plug_in(instance_id, row)
        except HostError as error:
            if error.retryable:
                raise
            log.warning("%s cannot be plugged into %s: %s", row.id, instance_id, error)
            if is_coming(row):
                with self._store.write() as tx:
                    current = tx.get(self._parts.kind, row.id)
                    if current is not None and current.attachment == row.attachment:
                        self._parts.has_gone(tx, current, held=False)
            return False
        return True

    def _unplug(self, instance_id: str, name: str, unplugging: dict[str, Unplugging]) -> None:
        now = self._clock()
        known = unplugging.setdefault(name, Unplugging(begun=now))
        if known.asked is None or now - known.asked >= timedelta(seconds=ASK_EACH_S):
            known.asked = now
            self._parts.unplug(instance_id, name)

    def _settle(
        self, rows: Mapping[str, R], present: set[str], unplugging: Mapping[str, Unplugging], overdue: set[str]
    ) -> None:
        """Attached or detached they are now, unless a request has come in between."""
        now = self._clock()
        come = [row for name, row in rows.items() if is_coming(row) and name in present]
        gone = {
            name: row
            for name, row in rows.items()
            if is_leaving(row) and (name not in present or (name in overdue and is_forced(row)))
        }
        held = [
            row
            for name, row in rows.items()
            if name not in gone
            and (each := unplugging.get(name)) is not None
            and now - each.begun >= timedelta(seconds=ASK_EACH_S)
        ]
        if not (come or gone or held):
            return
        with self._store.write() as tx:
            for row in come:
                if (current := self._unchanged(tx, row)) is not None:
                    self._parts.has_come(tx, current, now)
            for name, row in gone.items():
                if (current := self._unchanged(tx, row)) is not None:
                    self._parts.has_gone(tx, current, held=name in present)
            for row in held:
                if (current := self._unchanged(tx, row)) is not None:
                    self._parts.holds_on(tx, current)

    def _unchanged(self, tx: Transaction, row: R) -> R | None:
        current = tx.get(self._parts.kind, row.id)
        return current if current is not None and current.attachment == row.attachment else None


def is_coming(row: NetworkInterface | Volume) -> bool:
    return row.attachment is not None and row.attachment.state == "attaching"


def is_leaving(row: NetworkInterface | Volume) -> bool:
    return row.attachment is not None and row.attachment.state in ("detaching", "busy")


def is_forced(row: NetworkInterface | Volume) -> bool:
    return row.attachment is not None and row.attachment.forced

"""The audit log: every call's event, chained, in the store and in closed segments beside it.

    a write's event                  in the transaction of what it wrote ──┐
    a read's, a refusal's: noted     together, within a second ────────────┴─> table `audit`
                                                                                  │ the oldest
                                                                                  v
                                                                 STATE_DIR/audit/FIRST-LAST.jsonl

One writer: every event gets its number and hash under the store's lock, as it is committed. What is only noted is lost
by a kill, but leaves no gap, since it had no number yet. Segments are written once, synced, and only then removed from
the table; nothing here ever deletes one. `model/audit.py` says how the chain is made.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from orchestrator.database import AUDIT_HEAD, FILE, Batch, Database, StoreError, reading
from orchestrator.database.sqlite import sync_directory
from orchestrator.model.audit import Head, Link, Verifier, parse_head, parse_line

log = logging.getLogger(__name__)

Event = dict[str, Any]

KEPT_EVENTS = 20_000  # that stay in the store when older ones are moved out
SEGMENT_EVENTS = 10_000
MOST_NOTED = 20_000  # that wait to be written while the store cannot be; more are counted, not kept
WRITE_EACH_S = 0.5
TIDY_EACH_S = 3600.0
_BATCH = 1000
_READ_AT_ONCE = 200  # events, while nobody else can write
_DROPPED_AT_ONCE = 200  # rows, likewise
PAUSE_S = 0.002  # between such steps, so that whoever waits is next
_YIELD_EACH = 8  # events, between which requests may have the interpreter
_NAME = re.compile(r"([0-9]{12,19})-([0-9]{12,19})\.jsonl")


@dataclass(frozen=True, slots=True)
class Segment:
    """A closed file of the log."""

    path: Path
    first: int
    last: int

    def links(self) -> Iterator[Link | None]:
        """Line by line; None for what is no event."""
        with self.path.open("rb") as file:
            for line in file:
                yield parse_line(line.removesuffix(b"\n")) if line.endswith(b"\n") else None


class Trail:
    """The log of one store. `lock` is the store's: it is held by whoever uses `database`; `commit` writes to that."""

    def __init__(
        self,
        database: Database,
        commit: Callable[[Batch, Callable[[], None]], None],
        lock: threading.RLock,
        directory: Path,
        *,
        tidy: Callable[[], None] = lambda: None,
        kept_events: int = KEPT_EVENTS,
        segment_events: int = SEGMENT_EVENTS,
    ) -> None:
        self.directory = directory
        self.kept_events = kept_events
        self._segment_events = segment_events
        self._database = database
        self._commit = commit
        self._lock = lock
        self._tidy = tidy
        self._encoder = msgspec.json.Encoder()
        self._noted: deque[Callable[[], Event] | bytes] = deque()
        self._lost = 0
        self._written_alone = threading.Lock()  # one writes what is noted at a time, so that it stays in order
        self._condition = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None
        written = database.meta(AUDIT_HEAD)
        self.head = parse_head(written) if written else Head()

    # --- writing ---

    def encode(self, event: Event) -> bytes:
        try:
            return self._encoder.encode(event)
        except (ValueError, OverflowError, TypeError):  # half characters, numbers beyond 64 bits
            text = json.dumps(event, separators=(",", ":"), default=str, ensure_ascii=False)
            return text.encode("utf-8", "replace")  # what is read again has no half characters

    def chain(self, documents: Iterable[bytes], batch: Batch) -> Head:
        """Have them written with `batch`: the head as it is once that is committed, for `advance`."""
        head = self.head
        for document in documents:
            link = head.extend(document)
            batch.events.append((link.number, link.hash, document))
            head = Head(link.number, link.hash)
        if batch.events:
            batch.meta[AUDIT_HEAD] = str(head)
        return head

    def advance(self, head: Head) -> None:
        """The batch of `chain` is committed."""
        self.head = head

    def note(self, make: Callable[[], Event]) -> None:
        """Have an event written soon. It is made by whoever writes it, so that a request does not wait for that."""
        if len(self._noted) >= MOST_NOTED:
            self._lost += 1
            return
        # When many wait already, what they were made of (the largest requests, say) does not wait with them.
        self._noted.append(make if len(self._noted) < _BATCH else self._document(make))
        if len(self._noted) == 1 and self._thread is not None:
            with self._condition:
                self._condition.notify()

    def flush(self) -> None:
        """Write what is noted. StoreUnavailable when that cannot be: it stays noted."""
        with self._written_alone:
            while self._noted or self._lost:
                self._write_batch()

    def _write_batch(self) -> None:
        with self._lock:
            self._database.settle()  # a batch of before may turn out to be written
        lost, taken = self._lost, [self._noted[i] for i in range(min(_BATCH, len(self._noted)))]
        documents = []
        for position, make in enumerate(taken, 1):
            documents.append(make if isinstance(make, bytes) else self._document(make))
            if position % _YIELD_EACH == 0 and self._thread is threading.current_thread():
                time.sleep(0)
        if lost:
            documents.append(self.encode(_lost_event(lost)))

        def done() -> None:
            self.advance(head)
            self._lost -= lost
            for _ in taken:
                self._noted.popleft()

        with self._lock:
            self._database.settle()
            batch = Batch()
            head = self.chain(documents, batch)
            self._commit(batch, done)

    def _document(self, make: Callable[[], Event]) -> bytes:
        try:
            return self.encode(make())
        except Exception:
            log.exception("an event of the audit log could not be made")
            return self.encode(_lost_event(1))

    # --- the thread ---

    def start(self) -> None:
        """Write what is noted within a second from now on, and keep the store tidy."""
        self._thread = threading.Thread(target=self._work, name="audit", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Everything noted is written. Idempotent."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        try:
            self.flush()
        except StoreError as error:
            log.error("%d events of the audit log are lost: %s", len(self._noted), error)
        log.info("the audit log ends with %s", self.head)

    def _work(self) -> None:
        tidied = 0.0
        delay_s = WRITE_EACH_S
        while not self._closing:
            try:
                if not tidied or time.monotonic() - tidied > TIDY_EACH_S:
                    tidied = time.monotonic()
                    self._tidy()
                with self._condition:
                    if not self._noted and not self._closing:
                        self._condition.wait(TIDY_EACH_S)
                    if not self._closing:
                        self._condition.wait(delay_s)  # more may come
                self.flush()
                if self.move_out():
                    self._tidy()
                delay_s = WRITE_EACH_S
            except Exception as error:  # whatever it is: nobody else would write
                delay_s = min(30.0, delay_s * 2)
                log.error(
                    "the audit log cannot be written: %s; again in %.0f s",
                    error,
                    delay_s,
                    exc_info=not isinstance(error, StoreError | OSError),
                )

    # --- closing segments ---

    def move_out(self) -> int:
        """Close segments of the oldest events, as long as more than enough are in the store; how many were closed."""
        closed = 0
        self._drop_moved()
        while (first := self._first()) and self.head.number - first + 1 >= self.kept_events + self._segment_events:
            last = first + self._segment_events - 1
            head = self._close(first, last)
            if head is None:
                log.error("events %d to %d of the audit log are not whole: they stay where they are", first, last)
                break
            self._drop_moved()
            closed += 1
            log.info("the audit log goes on after %s", head)
        return closed

    def _close(self, first: int, last: int) -> Head | None:
        """Write a segment, and say where it ends; None when events are missing. A batch at a time: nobody waits long,
        and allocators hardly give back what all of it would take."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        path = self.directory / f"{first:012d}-{last:012d}.jsonl"
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400), "wb") as file:
            for begin in range(first, last + 1, _READ_AT_ONCE):
                end = min(last, begin + _READ_AT_ONCE - 1)
                with self._lock:
                    rows = self._database.events(begin, end)
                if len(rows) != end - begin + 1:
                    fresh.unlink()
                    return None
                for row in rows:
                    link = Link(*row)
                    file.write(link.line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        sync_directory(self.directory)
        return Head(link.number, link.hash)

    def _first(self) -> int:
        with self._lock:
            return self._database.event_range()[0]

    def _drop_moved(self) -> None:
        """What is in a segment goes from the table, a little at a time: others write in between."""
        found = segments(self.directory)
        last = found[-1].last if found else 0
        while 0 < (first := self._first()) <= last:
            with self._lock:
                self._database.forget_events(min(last, first + _DROPPED_AT_ONCE - 1))
            time.sleep(PAUSE_S)

    # --- reading ---

    def newest(self, below: int = 0, containing: Sequence[bytes] = ()) -> Iterator[tuple[int, bytes | None]]:
        """Numbers and documents from the newest event (or the one before `below`) back to the oldest; None for a
        document that has not all of `containing`."""
        with suppress(StoreError):
            self.flush()
        number = min(below - 1, self.head.number) if below else self.head.number
        while number > 0:
            with self._lock:
                rows = self._database.events_before(number, _BATCH)
            if not rows:
                break
            for row_number, document in rows:
                yield row_number, document if all(part in document for part in containing) else None
            number = rows[-1][0] - 1
        for segment in reversed(segments(self.directory)):
            if segment.first > number:
                continue
            lines = segment.path.read_bytes().splitlines()
            for line_number, line in zip(range(segment.last, 0, -1), reversed(lines), strict=False):
                if line_number <= number:
                    link = parse_line(line) if all(part in line for part in containing) else None
                    yield line_number, link.document if link else None


def segments(*directories: Path) -> list[Segment]:
    """In the order of their events."""
    found = []
    for directory in directories:
        for path in directory.glob("*.jsonl"):
            if name := _NAME.fullmatch(path.name):
                found.append(Segment(path, int(name[1]), int(name[2])))
    return sorted(found, key=lambda segment: (segment.first, segment.last))


def read_all(state_dir: Path, *more: Path, url: str = "", verifier: Verifier | None = None) -> Iterator[Link]:
    """Every event that is written, oldest first, whether a controller runs or not; checked by `verifier`.

    `url` is the database's, if it has one. `more` are directories with segments that were taken elsewhere. Raises
    StoreError and OSError.
    """
    verifier = verifier or Verifier()
    # What is moved to a segment from now on is still seen among these rows.
    with reading(state_dir / FILE, url) as found:
        written_head = found.meta(AUDIT_HEAD)
        try:
            written = parse_head(written_head) if written_head else Head()
        except ValueError as error:
            verifier.say(f"the store's note of the newest event is damaged: {error}")
            written = Head()
        rows = found.table("audit")
        first = next(rows, None)
        # While a segment's rows are being removed they are in both places: the file is read.
        waiting = [_link(first)] if first else []
        for segment in segments(state_dir / "audit", *more):
            if segment.last <= verifier.head.number:
                continue  # a copy of one that has been read
            if waiting and segment.first > waiting[0].number:
                break
            yield from verifier.follow(segment.links(), segment.path.name)
            if verifier.head.number != segment.last:
                verifier.say(f"{segment.path.name} ends with event {verifier.head.number}")
        moved = verifier.head.number
        rest = (link for link in _chained(waiting, rows) if link.number > moved)
        yield from verifier.follow(rest, "the store" if url else FILE)
        verifier.end(written)


def _chained(first: list[Link], rows: Iterable[Any]) -> Iterator[Link]:
    yield from first
    for row in rows:
        yield _link(row)


def _link(row: Any) -> Link:
    """Of a row that somebody may have changed: whatever it has is compared as bytes."""
    number, *rest = row
    digest, document = (each if isinstance(each, bytes) else str(each).encode() for each in rest)
    return Link(number, digest, document)


def verify(state_dir: Path, *more: Path, url: str = "", known: Iterable[Head] = ()) -> Verifier:
    """Follow the whole chain of a deployment. Raises StoreError and OSError."""
    verifier = Verifier(known)
    for _ in read_all(state_dir, *more, url=url, verifier=verifier):
        pass
    return verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events to list; what is None or False does not matter."""

    event: str | None = None
    user: str | None = None  # a part of the caller's ARN
    account: str | None = None
    access_key: str | None = None
    source: str | None = None
    error: bool = False
    write: bool = False
    since: datetime | None = None  # UTC, without a zone
    until: datetime | None = None

    def has(self, event: Event) -> bool:
        identity = event.get("userIdentity", {})
        at = datetime.fromisoformat(event["eventTime"]).replace(tzinfo=None)
        return (
            self.event in (None, event.get("eventName"))
            and (self.user is None or self.user in identity.get("arn", ""))
            and self.account in (None, event.get("recipientAccountId"))
            and self.access_key in (None, identity.get("accessKeyId"))
            and self.source in (None, event.get("sourceIPAddress"))
            and (not self.error or "errorCode" in event)
            and not (self.write and event.get("readOnly"))
            and (self.since is None or at >= self.since)
            and (self.until is None or at <= self.until)
        )


def select(state_dir: Path, wanted: Wanted, last: int = 0, url: str = "") -> list[Event]:
    """The newest `last` (0: all) of what is wanted, oldest first. Raises StoreError and OSError."""
    events = (msgspec.json.decode(link.document) for link in read_all(state_dir, url=url))
    return list(deque((event for event in events if wanted.has(event)), maxlen=last or None))


def as_json(event: Event) -> str:
    return json.dumps(event, separators=(",", ":"))


def as_line(event: Event) -> str:
    """For people. What a caller made up is shown as printable characters."""
    identity = event.get("userIdentity", {})
    who = identity.get("arn") or identity.get("accessKeyId") or "somebody"
    service = str(event.get("eventSource", "")).removesuffix(".amazonaws.com")
    parts = [event.get("eventTime"), f"{service}.{event.get('eventName')}", event.get("errorCode") or "OK", who]
    return "  ".join(repr(str(part))[1:-1] for part in (*parts, event.get("sourceIPAddress"), event.get("awsRegion")))


def _lost_event(count: int) -> Event:
    return {
        "eventVersion": "1.11",
        "userIdentity": {"type": "AWSService", "invokedBy": "cloudtrail.amazonaws.com"},
        "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": "cloudtrail.amazonaws.com",
        "eventName": "EventsLost",
        "awsRegion": "",
        "sourceIPAddress": "cloudtrail.amazonaws.com",
        "userAgent": "cloudtrail.amazonaws.com",
        "requestParameters": None,
        "responseElements": None,
        "serviceEventDetails": {"count": count},
        "eventID": str(uuid4()),
        "readOnly": False,
        "eventType": "AwsServiceEvent",
        "managementEvent": True,
        "recipientAccountId": "",
        "eventCategory": "Management",
    }

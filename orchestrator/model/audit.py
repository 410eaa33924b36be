"""The audit log's chain: what makes a change, a gap or another order of events visible.

    hash of event N = SHA-256(hash of event N-1, N, document of event N)       hash of event 0 = 32 zero bytes

Events are numbered from 1 in the order in which they were written. A document is the JSON of one event in CloudTrail's
format, kept byte for byte. The newest events are rows of the store; older ones are lines of closed segments:

    {"number":N,"hash":"HEX","event":DOCUMENT}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

BEGINNING = bytes(32)
_LINE = re.compile(rb'\{"number":([1-9][0-9]{0,18}),"hash":"([0-9a-f]{64})","event":(\{.*\})\}', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Link:
    """One event, and its place in the chain."""

    number: int
    hash: bytes
    document: bytes

    @property
    def line(self) -> bytes:
        """Without the newline, which JSON never has inside."""
        return b'{"number":%d,"hash":"%s","event":%s}' % (self.number, self.hash.hex().encode(), self.document)


@dataclass(frozen=True, slots=True)
class Head:
    """The newest event: who knows it can tell whether anything up to it is missing."""

    number: int = 0
    hash: bytes = BEGINNING

    def extend(self, document: bytes) -> Link:
        number = self.number + 1
        return Link(number, link_hash(self.hash, number, document), document)

    def __str__(self) -> str:
        return f"{self.number}:{self.hash.hex()}"


def link_hash(previous: bytes, number: int, document: bytes) -> bytes:
    return sha256(b"%s%s%s" % (previous, number.to_bytes(8, "big"), document)).digest()


def parse_head(text: str) -> Head:
    """`NUMBER:HASH`, as it is shown. ValueError for anything else."""
    number, _, digest = text.partition(":")
    if not (number.isdecimal() and number.isascii() and re.fullmatch("[0-9a-f]{64}", digest)):
        raise ValueError(f"'{text}' is not NUMBER:HASH, with 64 hexadecimal digits")
    return Head(int(number), bytes.fromhex(digest))


def parse_line(line: bytes) -> Link | None:
    """A segment's line without its newline; None when it is none."""
    found = _LINE.fullmatch(line)
    return Link(int(found[1]), bytes.fromhex(found[2].decode()), found[3]) if found else None


class Verifier:
    """Follows the chain from its beginning, and remembers what is wrong with it."""

    MOST_PROBLEMS = 50

    def __init__(self, known: Iterable[Head] = ()) -> None:
        """`known` are heads that somebody wrote down earlier: the chain must still go through them."""
        self.head = Head()
        self.problems: list[str] = []
        self._known = {head.number: head.hash for head in known if head.number}

    def follow(self, links: Iterable[Link | None], place: str) -> Iterator[Link]:
        """Check each; passes on those that are links at all. `place` is for people."""
        for position, link in enumerate(links, 1):
            if link is None:
                self.say(f"{place}: line {position} is not an event of the log")
                continue
            if link.number <= self.head.number:
                self.say(f"{place}: event {link.number} comes after event {self.head.number}")
                continue
            self.miss(link.number - 1)
            follows = link.number == self.head.number + 1  # after a gap nothing says what the hash should be
            if follows and link_hash(self.head.hash, link.number, link.document) != link.hash:
                self.say(f"{place}: event {link.number} is not what was written, or event {link.number - 1} is not")
            if self._known.pop(link.number, link.hash) != link.hash:
                self.say(f"{place}: event {link.number} is not the one that was known: the log was written anew")
            self.head = Head(link.number, link.hash)
            yield link

    def miss(self, last: int) -> None:
        """Have it said that events up to `last` should have come, unless they have."""
        first = self.head.number + 1
        if first <= last:
            which = f"event {first} is" if first == last else f"events {first} to {last} are"
            self.say(f"{which} missing")

    def end(self, written: Head) -> None:
        """There is no more; `written` is the newest that the store says it has written."""
        self.miss(written.number)
        if self.head.number > written.number:
            self.say(f"event {self.head.number} is more than was written: {written.number}")
        elif self.head.number == written.number and self.head.hash != written.hash:
            self.say(f"event {written.number} is not the one that was written last")
        for number in sorted(self._known):
            self.say(f"event {number} is known, and is not here")

    def say(self, problem: str) -> None:
        if len(self.problems) < self.MOST_PROBLEMS:
            self.problems.append(problem)

"""Loads nftables' tables, and changes no more of them than differs.

    load ---> is the table as it was left? ---+--- yes ---> the difference (nft.py), if there is any
                                              +--- no ----> the whole table

Texts go through a process that stays (nft_process.py).
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from dataclasses import dataclass

from orchestrator.host import HostError
from orchestrator.host.command import DEADLINE_S, run
from orchestrator.host.nft import Ruleset, Table, difference
from orchestrator.host.nft_process import HANDLES, NUMBERS, STATELESS, NftProcess


@dataclass(slots=True)
class _Loaded:
    """What was last made of a table. `generation` is the namespace's when the table was last known to be like that."""

    ruleset: Ruleset
    generation: int | None
    listing: str | None = None  # as the kernel tells it; None while nobody has asked


_SMALL = 500  # rules and elements
LISTING_SHARE = 0.005


def _size(ruleset: Ruleset) -> int:
    rules = sum(len(lines) for lines in ruleset.chains.values())
    parts = sum(len(elements) for part in ruleset.parts.values() for elements in part.values())
    return rules + parts + sum(len(each.elements) for each in ruleset.sets.values())


class Tables:
    """What was loaded into namespaces, by their names.

    A table that the kernel still has as it was left is turned into the new one by a difference; any other is replaced
    whole. The kernel counts the changes of a namespace's tables (its generation): while that is the same, or has moved
    by our own changes only, nobody has touched a thing, and it takes a fraction of a millisecond to see. When somebody
    has, perhaps at other tables, the listing of ours decides, handles included, so that a rule that was flushed or put
    back by hand counts as touched. A listing takes longer than most changes, and is asked for when there is time: in a
    pass that changes nothing, and not so often that all of them would take more than LISTING_SHARE of a processor.
    Until then, what somebody else does in the namespace has the table loaded anew. One that packets put something into
    would lose that, and is listed at once unless it is large.
    """

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str, str], _Loaded] = {}
        self._list_after = 0.0  # by a monotonic clock
        self._changing = threading.Lock()
        self._nft = NftProcess()

    def load(self, namespace: str, ruleset: Ruleset) -> None:
        """Make the table what `ruleset` says. `namespace` is the name of the one that this thread is in."""
        key = (namespace, *ruleset.key)
        before = _generation()
        known = self._loaded.get(key)
        if known is not None and self._intact(known, before):
            text = difference(known.ruleset, ruleset)
        else:
            known, text = None, ruleset.text()
        if text:
            self._loaded.pop(key, None)
            self._nft.run(text)
            self._settle(key, ruleset, before)
        elif known is not None and known.listing is None and time.monotonic() >= self._list_after:
            began = time.monotonic()
            listing = self._listing(ruleset)
            ended = time.monotonic()
            self._list_after = ended + (ended - began) / LISTING_SHARE
            if _generation() == known.generation:
                known.listing = listing

    def drop(self, namespace: str, table: Table) -> None:
        before = _generation()
        self._loaded.pop((namespace, *table), None)
        if f"table {' '.join(table)}" in self._nft.run("list tables").splitlines():
            self._nft.run(f"delete table {' '.join(table)}")
            self._settle((namespace, *table), None, before)

    def close(self) -> None:
        self._nft.close()

    def forget(self, namespace: str) -> None:
        """The namespace is gone, and its tables with it."""
        for key in [key for key in list(self._loaded) if key[0] == namespace]:
            self._loaded.pop(key, None)

    def _intact(self, known: _Loaded, generation: int | None) -> bool:
        """Whether the kernel has the table as it was left."""
        if generation is not None and generation == known.generation:
            return True
        if known.listing is None or known.listing != self._listing(known.ruleset):
            return False
        known.generation = generation
        return True

    def _settle(self, key: tuple[str, str, str], ruleset: Ruleset | None, before: int | None) -> None:
        """Remember a table that was changed, and that the others of its namespace were not."""
        after = _generation()
        with self._changing:
            if before is not None and after is not None and after == (before + 1) % 2**32:
                for other, loaded in list(self._loaded.items()):
                    if other[0] == key[0] and loaded.generation == before:
                        loaded.generation = after
                if ruleset is not None:
                    filled = any("dynamic" in each.flags for each in ruleset.sets.values())
                    listing = self._listing(ruleset) if filled and _size(ruleset) <= _SMALL else None
                    if listing is not None and _generation() != after:  # somebody was quick
                        listing = None
                    self._loaded[key] = _Loaded(ruleset, after, listing)
            elif ruleset is not None:  # somebody else has changed something in the meantime
                listing = self._listing(ruleset)
                if listing is not None:
                    self._loaded[key] = _Loaded(ruleset, after, listing)

    def _listing(self, ruleset: Ruleset) -> str | None:
        """A table as the kernel has it, without what packets put into it; None when it has none. A large one takes
        long to list: a program of its own does that, for which no other table has to wait."""
        try:
            if _size(ruleset) <= _SMALL:
                listing = self._nft.run(f"list table {' '.join(ruleset.key)}", NUMBERS | HANDLES | STATELESS)
            else:
                listing = run(["nft", "-n", "-a", "-s", "list", "table", *ruleset.key])
        except HostError:
            return None
        return _DYNAMIC_ELEMENTS.sub(r"\1", listing)


_DYNAMIC_ELEMENTS = re.compile(
    r"^(\tset [^\n]*\n(?:\t\t(?!elements)[^\n]*\n)*?\t\tflags dynamic[^\n]*\n(?:\t\t(?!elements)[^\n]*\n)*)"
    r"\t\telements = \{[^}]*\}\n",
    re.MULTILINE,
)


_NETLINK_NETFILTER = 12
_GET_GENERATION = (10 << 8) | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_GENERATION_ID = 1  # NFTA_GEN_ID


def _generation() -> int | None:
    """How often the tables of this thread's namespace have been changed; None when the kernel does not say."""
    request = struct.pack("=IHHIIBBH", 20, _GET_GENERATION, 1, 1, 0, 0, 0, 0)  # nlmsghdr and nfgenmsg
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as link:
            link.settimeout(DEADLINE_S)
            link.send(request)
            answer = link.recv(4096)
    except OSError:
        return None
    at = 20
    while at + 4 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, at)
        if kind == _GENERATION_ID and length == 8:
            return int(struct.unpack_from("!I", answer, at + 4)[0])
        at += max(4, (length + 3) & ~3)
    return None

"""Runs the network's tools, `ip` and `nft`, in this namespace or another, with a deadline, and reads what they say.

A thread of its own enters a namespace, does one thing and ends: what it starts runs there, the sockets that it makes
stay there, and no other thread is ever moved.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.host import HostError
from orchestrator.host.netlink import Link, links
from orchestrator.host.nft import Ruleset, Table, difference

NAMESPACES = Path("/run/netns")
DEADLINE_S = 20.0

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def run(command: Sequence[str], text: str = "", *, deadline_s: float = DEADLINE_S) -> str:
    """Run a tool with `text` as its input; its output. Raises HostError with what it complained of."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=deadline_s, check=False, env=_environment()
        )
    except FileNotFoundError as error:
        raise HostError(f"{command[0]} is not installed", retryable=False) from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{' '.join(command)} took more than {deadline_s:g} s") from error
    if done.returncode != 0:
        raise HostError(f"{' '.join(command)} failed ({done.returncode}): {done.stderr.strip()[:2000]}")
    return done.stdout


def ip(commands: Iterable[str], *, family: int = 0) -> None:
    """Run several `ip` commands in one process; those after a failing one are not run. `family` is 4 or 6 where the
    commands do not say it themselves."""
    text = "".join(f"{command}\n" for command in commands)
    if text:
        try:
            run(["ip", *([f"-{family}"] if family else []), "-batch", "-"], text)
        except HostError as error:
            raise HostError(f"{error}; the commands were: {'; '.join(text.splitlines()[:50])}") from error


def ask(family: int, *questions: str) -> list[list[dict[str, Any]]]:
    """The answers of `ip` to several questions, asked in one process. `family` is 4 or 6, or 0 for all."""
    text = "".join(f"{question}\n" for question in questions)
    told = run(["ip", *([f"-{family}"] if family else []), "-j", "-batch", "-"], text)
    answers, decoder, position = [], json.JSONDecoder(), 0
    for _ in questions:
        answer, position = decoder.raw_decode(told, position)
        answers.append([each for each in answer if each])
        while position < len(told) and told[position].isspace():
            position += 1
    return answers


def delete_links(names: Iterable[str]) -> None:
    """Delete those of this thread's namespace that are there. Links of a namespace that is going may go by themselves
    in the meantime."""
    wanted = list(names)
    for last in (False, False, True):
        present = links() if wanted else {}
        try:
            ip(f"link delete {name}" for name in wanted if name in present)
        except HostError:
            if last:
                raise
        else:
            return


_OF_THE_KERNEL = {"127.0.0.1/8", "::1/128"}


def address_changes(present: Mapping[str, Link], wanted: Mapping[str, Collection[str]]) -> list[str]:
    """The `ip` commands that give links these addresses, ADDRESS/LENGTH, and no others, and set them up."""
    commands = []
    for name, own in wanted.items():
        link = present.get(name)
        found = set(link.addresses) if link is not None else set()
        commands += [f"address delete {each} dev {name}" for each in sorted(found - set(own) - _OF_THE_KERNEL)]
        for each in own:
            if each not in found:
                # Nobody else can have it, so nobody is asked: detection would hold it back for a second or two.
                commands.append(f"address replace {each} dev {name}{' nodad' if ':' in each else ''}")
        if link is None or not link.is_up:
            commands.append(f"link set dev {name} up")
    return commands


def has_ipv6() -> bool:
    """Whether this thread's namespace may speak IPv6."""
    try:
        return Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").read_text().strip() == "0"
    except FileNotFoundError:
        return False


def write_sysctls(values: dict[str, str]) -> None:
    """Set keys under /proc/sys/net of this thread's namespace, as `ipv4/ip_forward`. A kernel may have no IPv6."""
    for key, value in values.items():
        try:
            Path("/proc/sys/net", key).write_text(value)
        except FileNotFoundError as error:
            if not key.startswith("ipv6/"):
                raise HostError(f"the kernel has no setting net/{key}", retryable=False) from error
        except OSError as error:
            raise HostError(f"net/{key} cannot be set to {value}: {error}") from error


# --- namespaces ----------------------------------------------------------------------------------------------------


def namespace_exists(name: str) -> bool:
    """Whether it can be entered. A file that was left when its mount went is not a namespace."""
    try:
        return os.stat(NAMESPACES / name).st_dev == os.stat("/proc/thread-self/ns/net").st_dev
    except FileNotFoundError:
        return False


def forget_namespace(name: str) -> None:
    """Make the name free. The namespace itself goes when nothing is left in it."""
    if namespace_exists(name):
        run(["ip", "netns", "delete", name])
    else:
        (NAMESPACES / name).unlink(missing_ok=True)


def inside(namespace: str, work: Callable[[], T]) -> T:
    """Do `work` in a namespace. Raises FileNotFoundError when it is not there."""
    return entering(namespace, work).result()


def entering(namespace: str, work: Callable[[], T]) -> Future[T]:
    """Begin to do `work` in a namespace."""

    def enter_and_work() -> T:
        handle = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(handle, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"the namespace {namespace} cannot be entered")
        finally:
            os.close(handle)
        return work()

    return alongside(enter_and_work)


def alongside(work: Callable[[], T]) -> Future[T]:
    """Begin to do `work` in a thread of its own, in the namespace of this one."""
    future: Future[T] = Future()
    context = copy_context()

    def settle() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=settle, name="namespace", daemon=True).start()
    return future


def _environment() -> dict[str, str]:
    """Messages in English, and tools found where Debian keeps them, whatever the caller's PATH."""
    return {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"}


# --- nftables ------------------------------------------------------------------------------------------------------


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
    """Loads tables, and changes no more of them than differs.

    A table that the kernel still has as it was left is turned into the new one by a difference; any other is replaced
    whole. The kernel counts the changes of a namespace's tables (its generation): while that is the same, or has moved
    by our own changes only, nobody has touched a thing, and it takes a fraction of a millisecond to see. When somebody
    has, perhaps at other tables, the listing of ours decides, handles included, so that a rule that was flushed or put
    back by hand counts as touched. That of a large table takes longer than its changes, and is asked for when there is
    time: in a pass that changes nothing, and not so often that it would take more than LISTING_SHARE of a processor.
    Until then, what somebody else does in the namespace has the table loaded anew.
    """

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str, str], _Loaded] = {}
        self._list_after: dict[tuple[str, str, str], float] = {}  # by a monotonic clock
        self._changing = threading.Lock()

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
            run(["nft", "-f", "-"], text)
            self._settle(key, ruleset, before)
        elif known is not None and known.listing is None and time.monotonic() >= self._list_after.get(key, 0.0):
            began = time.monotonic()
            listing = _listing(ruleset)
            ended = time.monotonic()
            self._list_after[key] = ended + (ended - began) / LISTING_SHARE
            if _generation() == known.generation:
                known.listing = listing

    def drop(self, namespace: str, table: Table) -> None:
        before = _generation()
        self._loaded.pop((namespace, *table), None)
        if f"table {' '.join(table)}" in run(["nft", "list", "tables"]).splitlines():
            run(["nft", "delete", "table", *table])
            self._settle((namespace, *table), None, before)

    def forget(self, namespace: str) -> None:
        """The namespace is gone, and its tables with it."""
        for key in [key for key in list(self._loaded) if key[0] == namespace]:
            self._loaded.pop(key, None)
            self._list_after.pop(key, None)

    def _intact(self, known: _Loaded, generation: int | None) -> bool:
        """Whether the kernel has the table as it was left."""
        if generation is not None and generation == known.generation:
            return True
        if known.listing is None or known.listing != _listing(known.ruleset):
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
                    listing = _listing(ruleset) if _size(ruleset) <= _SMALL else None
                    self._loaded[key] = _Loaded(ruleset, after, listing)
            elif ruleset is not None:  # somebody else has changed something in the meantime
                listing = _listing(ruleset)
                if listing is not None:
                    self._loaded[key] = _Loaded(ruleset, after, listing)


_DYNAMIC_ELEMENTS = re.compile(
    r"^(\tset [^\n]*\n(?:\t\t(?!elements)[^\n]*\n)*?\t\tflags dynamic[^\n]*\n(?:\t\t(?!elements)[^\n]*\n)*)"
    r"\t\telements = \{[^}]*\}\n",
    re.MULTILINE,
)


def _listing(ruleset: Ruleset) -> str | None:
    """A table as the kernel has it, without what packets put into it; None when it has none."""
    try:
        return _DYNAMIC_ELEMENTS.sub(r"\1", run(["nft", "-n", "-a", "-s", "list", "table", *ruleset.key]))
    except HostError:
        return None


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

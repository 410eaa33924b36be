"""Runs the network's tools, `ip` and `nft`, in this namespace or another, with a deadline, and reads what they say.

A thread of its own enters a namespace, does one thing and ends: what it starts runs there, the sockets that it makes
stay there, and no other thread is ever moved.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.host import HostError

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


def ip(commands: Iterable[str]) -> None:
    """Run several `ip` commands in one process; those after a failing one are not run."""
    text = "".join(f"{command}\n" for command in commands)
    if text:
        try:
            run(["ip", "-batch", "-"], text)
        except HostError as error:
            raise HostError(f"{error}; the commands were: {'; '.join(text.splitlines())}") from error


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


@dataclass(frozen=True, slots=True)
class Link:
    """A network link of the namespace that was asked."""

    name: str
    alias: str
    master: str


def links() -> dict[str, Link]:
    """The links of this thread's namespace, by name."""
    return {
        each["ifname"]: Link(each["ifname"], each.get("ifalias", ""), each.get("master", ""))
        for each in _told("link", "show")
    }


def addresses() -> dict[str, list[str]]:
    """The IPv4 addresses of each link of this thread's namespace, as ADDRESS/LENGTH."""
    return {
        each["ifname"]: [f"{a['local']}/{a['prefixlen']}" for a in each["addr_info"] if a.get("family") == "inet"]
        for each in _told("address", "show")
    }


def routes() -> list[tuple[str, str]]:
    """Destination and link of the IPv4 routes of this thread's namespace."""
    return [(each["dst"], each.get("dev", "")) for each in _told("-4", "route", "show")]


def _told(*question: str) -> list[dict[str, Any]]:
    return [each for each in json.loads(run(["ip", "-j", *question]) or "[]") if each]


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


class Tables:
    """Loads tables, and leaves alone those that are as they were loaded.

    A kernel takes some 15 ms to change over, and 2 ms to tell a table. What it told after the change, handles
    included, is remembered, so that a rule that was flushed or put back by hand counts as a difference.
    """

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, str, str], tuple[str, str]] = {}

    def load(self, namespace: str, table: tuple[str, str], text: str) -> None:
        """Make `table` what `text` says. `namespace` is the name of the one that this thread is in."""
        key = (namespace, *table)
        before = self._loaded.get(key)
        if before is not None and before[0] == text and before[1] == _listing(table):
            return
        self._loaded.pop(key, None)
        run(["nft", "-f", "-"], text)
        listing = _listing(table)
        if listing is not None:
            self._loaded[key] = (text, listing)

    def drop(self, namespace: str, table: tuple[str, str]) -> None:
        self._loaded.pop((namespace, *table), None)
        if f"table {' '.join(table)}" in run(["nft", "list", "tables"]).splitlines():
            run(["nft", "delete", "table", *table])

    def forget(self, namespace: str) -> None:
        """The namespace is gone, and its tables with it."""
        for key in [key for key in list(self._loaded) if key[0] == namespace]:
            self._loaded.pop(key, None)


def _listing(table: tuple[str, str]) -> str | None:
    """A table as the kernel has it; None when it has none."""
    try:
        return run(["nft", "-n", "-a", "list", "table", *table])
    except HostError:
        return None

"""Runs the network's tools, `ip` and others, in this namespace or another, with a deadline, and reads what they say.

A thread of its own enters a namespace, does one thing and ends: what it starts runs there, the sockets that it makes
stay there, and no other thread is ever moved.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.host import HostError
from orchestrator.host.netlink import Link, links

NAMESPACES = Path("/run/netns")
DEADLINE_S = 20.0

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


def run(command: Sequence[str], text: str = "", *, deadline_s: float = DEADLINE_S) -> str:
    """Run a tool with `text` as its input; its output. Raises HostError with what it complained of."""
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=deadline_s, check=False, env=environment()
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


_OURS_ALONE = ("ORC_", "PG", "AWS_")  # settings, with the database's password among them, and credentials


def environment(*settings: str) -> dict[str, str]:
    """For tools: messages in English, and tools found where Debian keeps them, whatever the caller's PATH. Some live
    longer than the controller, as another user, and read what guests send: of our settings they get those named."""
    passed = {name: value for name, value in os.environ.items() if name in settings or not name.startswith(_OURS_ALONE)}
    return {**passed, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"}

"""Which deployments of this host run with which public range, so that no two take the same one.

A deployment's network is on the host only while it has guests, so routes alone do not say whose a range is. Whoever
serves holds a file locked for as long as it lives; the kernel gives it back, however the process ends.

    /run/orchestrator/ranges/NAMESPACE-198.51.100.0_24    locked; says "orc-DEPLOYMENT"

It is a network namespace that routes a range, so those of others do not matter.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network
from pathlib import Path

PLACE = Path("/run/orchestrator/ranges")
_OWN_NAMESPACE = "/proc/self/ns/net"

_held: dict[Path, int] = {}  # by this process, for as long as it lives


def claimed() -> dict[IPv4Network, str]:
    """The ranges of deployments that run in this network namespace, and the names of their links."""
    found = {}
    for path in sorted(PLACE.glob(f"{_namespace()}-*")):
        with suppress(OSError, ValueError):  # it has just gone, or is none of ours
            if _is_held(path):
                found[IPv4Network(path.name.partition("-")[2].replace("_", "/"))] = path.read_text()
    return found


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Nobody else chooses or claims a range meanwhile. Raises OSError."""
    PLACE.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(PLACE / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def claim(network: IPv4Network, owner: str) -> None:
    """Hold a range until this process ends; `owner` is the name of the deployment's link. The caller has seen that
    nobody else holds it, while nobody else could claim it. Raises OSError."""
    for stale in PLACE.glob("[0-9]*-*"):
        if not _is_held(stale):
            stale.unlink()
    path = PLACE / f"{_namespace()}-{str(network).replace('/', '_')}"
    if path not in _held:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
        _held[path] = handle
    os.pwrite(_held[path], owner.encode(), 0)


def _is_held(path: Path) -> bool:
    if path in _held:
        return True
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _namespace() -> str:
    return str(os.stat(_OWN_NAMESPACE).st_ino)

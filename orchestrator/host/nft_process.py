"""The controller's side of the process that loads nftables: see nft_library.py."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.host import HostError, nft_library
from orchestrator.host.command import DEADLINE_S, environment
from orchestrator.host.nft_library import ANSWER, REQUEST

STATELESS = 1 << 2  # of what is listed: no counts, as `nft --stateless`
HANDLES = 1 << 3  # as `nft --handle`
NUMBERS = 0b1111 << 7  # as `nft --numeric`: protocols, priorities, symbols, times

_ENDS_S = 2.0


@dataclass(frozen=True, slots=True)
class _Running:
    process: subprocess.Popen[bytes]
    socket: socket.socket


class NftProcess:
    """Begun when it is needed, and anew when it has ended. One text at a time; others wait for their turn."""

    def __init__(self, deadline_s: float = DEADLINE_S) -> None:
        self._deadline_s = deadline_s
        self._turn = threading.Lock()
        self._running: _Running | None = None
        self._end: weakref.finalize[..., NftProcess] | None = None

    def run(self, text: str, flags: int = 0) -> str:
        """Do what a text says, as one transaction, in this thread's namespace; what it lists, by `flags`. Raises
        HostError: with what nft complained of, or because nobody knows whether it was done."""
        with self._turn:
            running = self._begun()
            try:
                code, told = _ask(running.socket, text.encode(), flags)
            except TimeoutError as error:
                self._ended()
                raise HostError(f"nft took more than {self._deadline_s:g} s") from error
            except OSError as error:
                self._ended()
                raise HostError(f"nft's process ended: {error}") from error
        if code != 0:
            raise HostError(f"nft failed: {told.decode(errors='replace').strip()[:2000]}")
        return told.decode()

    def close(self) -> None:
        """It begins anew with the next text, if there is one."""
        with self._turn:
            self._ended()

    def _begun(self) -> _Running:
        if self._running is not None and self._running.process.poll() is not None:
            self._ended()
        if self._running is None:
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    command = [sys.executable, "-I", "-S", str(Path(nft_library.__file__))]
                    process = subprocess.Popen(
                        command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment()
                    )
                except OSError as error:
                    ours.close()
                    raise HostError(f"nft's process cannot be begun: {error}") from error
            ours.settimeout(self._deadline_s)
            self._running = _Running(process, ours)
            self._end = weakref.finalize(self, _end, self._running)
        return self._running

    def _ended(self) -> None:
        if self._end is not None:
            self._end()
        self._running = self._end = None


def _ask(server: socket.socket, text: bytes, flags: int) -> tuple[int, bytes]:
    namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        socket.send_fds(server, [REQUEST.pack(len(text), flags)], [namespace])
    finally:
        os.close(namespace)
    server.sendall(text)
    code, octets = ANSWER.unpack(_read(server, ANSWER.size))
    return code, _read(server, octets)


def _read(server: socket.socket, octets: int) -> bytes:
    found = bytearray()
    while len(found) < octets:
        part = server.recv(octets - len(found))
        if not part:
            raise ConnectionResetError("it closed its socket")
        found += part
    return bytes(found)


def _end(running: _Running) -> None:
    running.socket.close()
    try:
        running.process.wait(_ENDS_S)
    except subprocess.TimeoutExpired:
        running.process.kill()
        with suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel ends when that lets it go
            running.process.wait(_ENDS_S)

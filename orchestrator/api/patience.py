"""How long a client may take, and how many connections one address may have.

Nobody holds a connection for ever by saying little or by reading nothing, and nobody has all that there are.

    connected --- a request's head ---> handled (its body within BODY_S) --- answered ---> silent ---> the next one
        |                                                                                     |
        +--------------------------- for SILENCE_S: cut -------------------------------------+

A connection that is being handled is left alone, so streams last as long as people talk. What is too many is closed as
it is accepted, before a byte of it is read or a key of TLS is agreed on.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

from aiohttp import web

from orchestrator.api.limits import block_of

SILENCE_S = 75.0  # between requests, for a request's head, and for reading an answer
LINGER_S = 1.0  # for what is left of a body when the answer is there
BODY_S = 60.0  # for the body of a call; for each piece of an upload

BACKLOG = 128
_AT_ONCE = struct.pack("ii", 1, 0)  # of SO_LINGER: closed with a reset, and nothing remains of it

_Connection = web.RequestHandler  # type: ignore[type-arg, unused-ignore]


class Patience:
    def __init__(self) -> None:
        self._handled: set[_Connection] = set()
        self._since: dict[_Connection, float] = {}  # of those that are not being handled, as far as they were seen

    @web.middleware
    async def watch(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        connection = request.protocol
        self._handled.add(connection)
        self._since.pop(connection, None)
        try:
            return await handler(request)
        finally:
            self._handled.discard(connection)

    async def cut_silent(self, server: web.Server) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SILENCE_S / 8)
            now = loop.time()
            silent = [each for each in server.connections if each not in self._handled]
            self._since = {each: self._since.get(each, now) for each in silent}
            for connection, since in self._since.items():
                if now - since > SILENCE_S and connection.transport is not None:
                    connection.transport.abort()


class Door(socket.socket):
    """A listening socket that lets in at most so many connections of one address at once."""

    def __init__(self, family: int, most: int) -> None:
        super().__init__(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._most = most
        self._inside: dict[str, int] = {}

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        """ConnectionAbortedError, which asyncio takes as nobody being there, for one too many."""
        come, address = super().accept()
        block = block_of(address[0])
        if self._inside.get(block, 0) >= self._most:
            come.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            come.close()
            raise ConnectionAbortedError(f"{block} has {self._most} connections")
        self._inside[block] = self._inside.get(block, 0) + 1
        guest = _Guest(come.family, come.type, come.proto, fileno=come.detach())
        guest.leaves = lambda: self._left(block)
        return guest, address

    def _left(self, block: str) -> None:
        self._inside[block] -= 1
        if not self._inside[block]:
            del self._inside[block]


class _Guest(socket.socket):
    leaves: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        if self.leaves is not None:
            leaves, self.leaves = self.leaves, None
            leaves()

    def __del__(self) -> None:
        self.close()


def listen(address: str, port: int, most: int) -> list[Door]:
    """Sockets on every address that a name stands for. OSError where one cannot be had."""
    doors: list[Door] = []
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, where in dict.fromkeys(found):
            door = Door(family, most)
            doors.append(door)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            door.bind(where)
            door.listen(BACKLOG)
    except BaseException:
        for door in doors:
            door.close()
        raise
    return doors

"""How long a client may take: nobody holds a connection for ever by saying little, or by reading nothing.

    connected --- a request's head ---> handled (its body within BODY_S) --- answered ---> silent ---> the next one
        |                                                                                     |
        +--------------------------- for SILENCE_S: cut -------------------------------------+

A connection that is being handled is left alone, so streams last as long as people talk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

SILENCE_S = 75.0  # between requests, for a request's head, and for reading an answer
LINGER_S = 1.0  # for what is left of a body when the answer is there
BODY_S = 60.0  # for the body of a call; for each piece of an upload

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

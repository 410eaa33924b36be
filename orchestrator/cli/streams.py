"""Byte streams of an instance: its serial console, and TCP to its ports, as plain sockets.

    command <-> socketpair <-> thread with a WebSocket <-> controller <-> guest

So whatever wants a socket (paramiko, `select`) gets one, and does not know of WebSockets.
"""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from contextlib import suppress

import aiohttp
import click

from orchestrator.cli.client import APIError, Client, Unreachable, tls_context

CHUNK_BYTES = 1 << 16
HEARTBEAT_S = 30.0
OPEN_TIMEOUT_S = 30.0


class StreamError(click.ClickException):
    """The stream was not opened. `temporary` when it may be in a moment: the guest does not listen yet."""

    exit_code: int  # type: ignore[misc]

    def __init__(self, message: str, *, temporary: bool = False, exit_code: int = 1) -> None:
        super().__init__(message)
        self.temporary = temporary
        self.exit_code = exit_code


def open_tunnel(client: Client, instance_id: str, port: int) -> socket.socket:
    """A connection to a port of the instance's private address. Raises StreamError."""
    return _open(client, f"/tunnel/{instance_id}/{port}")


def open_console(client: Client, instance_id: str) -> socket.socket:
    """The instance's serial console, from now on. Raises StreamError."""
    return _open(client, f"/console/{instance_id}")


def _open(client: Client, path: str) -> socket.socket:
    ours, theirs = socket.socketpair()
    opened: queue.Queue[BaseException | None] = queue.Queue()

    def carry() -> None:
        try:
            asyncio.run(_carry(client, path, theirs, opened))
        except Exception as error:
            opened.put(error)
        finally:
            theirs.close()

    threading.Thread(target=carry, name=f"stream {path}", daemon=True).start()
    try:
        failure = opened.get()
        if failure is not None:
            raise _explain(client, path, failure)
    except BaseException:
        ours.close()
        raise
    return ours


async def _carry(client: Client, path: str, theirs: socket.socket, opened: queue.Queue[BaseException | None]) -> None:
    url = client.endpoint.url + path
    headers = client.signed_headers("GET", path, {})
    tls = tls_context() if url.startswith("https:") else True
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=OPEN_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        connecting = session.ws_connect(url, headers=headers, ssl=tls, heartbeat=HEARTBEAT_S, max_msg_size=0)
        async with await asyncio.wait_for(connecting, OPEN_TIMEOUT_S) as stream:
            reader, writer = await asyncio.open_connection(sock=theirs)
            opened.put(None)
            sending = asyncio.create_task(_send(reader, stream))
            try:
                async for message in stream:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        writer.write(message.data)
                        await writer.drain()
            except ConnectionError:
                pass  # whoever asked for the stream has closed it
            finally:
                sending.cancel()
                with suppress(asyncio.CancelledError, ConnectionError):
                    await sending
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()  # what the guest said last is still on its way to us


async def _send(reader: asyncio.StreamReader, stream: aiohttp.ClientWebSocketResponse) -> None:
    while data := await reader.read(CHUNK_BYTES):
        await stream.send_bytes(data)
    await stream.close()


def _explain(client: Client, path: str, failure: BaseException) -> click.ClickException:
    """aiohttp does not keep what a refusal said, so it is asked for once more."""
    if isinstance(failure, aiohttp.WSServerHandshakeError):
        try:
            error = client.refusal(*client.get(path))
        except Unreachable as unreachable:
            return unreachable
        if isinstance(error, APIError):
            temporary = error.code == "Unavailable"
            advice = (
                "\nDoes anything listen there? `orc wait ID ssh` waits for ssh; `orc logs ID` shows its console."
                if temporary
                else ""
            )
            return StreamError(error.format_message() + advice, temporary=temporary, exit_code=error.exit_code)
        return StreamError(f"the stream was refused with HTTP {failure.status}", temporary=failure.status >= 500)
    if isinstance(failure, (aiohttp.ClientError, OSError, TimeoutError)):
        return Unreachable(f"{client.endpoint.url} cannot be reached: {failure or type(failure).__name__}")
    return StreamError(f"{path} cannot be opened: {failure!r}")

"""Answers guests at 169.254.169.254 and fd00:ec2::254: listening sockets inside each VPC, all on one event loop.

    open(vpc)                                       shut(vpc)
       |                                               |
       v        accept                                 v
    listening -----------> conversation (one per connection) --- silent for `patience_s`, or too many ---> cut

Who asks is known by the VPC of the socket and the address at the other end, which the network has checked, and by
nothing that a guest says. The instance's metadata options are read at each request, so a change acts at once.

Source of the rules: "Use the Instance Metadata Service to access instance metadata" in the EC2 user guide.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import secrets
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from ipaddress import IPv4Network
from pathlib import Path
from typing import cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader
from yarl import URL

from orchestrator.metadata.credentials import Vendor
from orchestrator.metadata.identity import Identity, keep
from orchestrator.metadata.tokens import MAX_TTL_S, MIN_TTL_S, SECRET_BYTES, Tokens
from orchestrator.metadata.tree import Facts, Tree, build, gather
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import NetworkInterface
from orchestrator.store import Store

log = logging.getLogger(__name__)

TOKEN_PATH = "/latest/api/token"  # noqa: S105
TOKEN_HEADER = "X-aws-ec2-metadata-token"  # noqa: S105
TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
READS = ("GET", "HEAD")

PATIENCE_S = 30.0  # a connection that begins no request for so long is cut, whatever it is doing
MAX_CONVERSATIONS = 64  # of one guest at a time, all its addresses together
MAX_LINE_BYTES = 4096  # the request line, and each header
MAX_HEADERS = 64
MAX_LINGER_S = 1.0  # for the rest of a body that nobody wants
REQUESTS_PER_S = 1000.0  # of one guest, all its interfaces together
BURST = 2000.0
BACKLOG = 1024  # guests that boot at once knock at once
OPEN_TIMEOUT_S = 30.0
FAMILIES = (socket.AF_INET, socket.AF_INET6)
PREFIX_LENGTH = 28  # of the IPv4 prefixes that an interface may have

_PHASES = {"meta-data": "metadata", "user-data": "user-data"}  # of a launch's timeline
_SECONDS = re.compile(r"[0-9]{1,5}\Z")
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]*")
_NO_URL = URL("/")
_HEADERS = {"Server": "EC2ws", "Accept-Ranges": "none"}


@dataclass(slots=True)
class Guest:
    """What is remembered of one instance between two requests."""

    facts: Facts
    tree: Tree
    allowance: float = BURST  # requests that it may make now
    counted_at: float = 0.0
    start: datetime | None = None
    seen: set[str] = field(default_factory=set)  # phases of this start

    def admit(self, now: float) -> bool:
        """Take one request from a bucket that fills at REQUESTS_PER_S."""
        self.allowance = min(BURST, self.allowance + (now - self.counted_at) * REQUESTS_PER_S)
        self.counted_at = now
        if self.allowance < 1:
            return False
        self.allowance -= 1
        return True


class _Conversation(web.RequestHandler):
    """One connection of a guest."""

    __slots__ = ("began_at", "conversations", "counted_for", "is_ipv6", "peer", "vpc_id")

    def __init__(self, conversations: _Conversations, vpc_id: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            conversations,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=conversations.patience_s,
            tcp_keepalive=False,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            lingering_time=MAX_LINGER_S,
            auto_decompress=False,
        )
        self.conversations = conversations
        self.vpc_id = vpc_id
        self.peer = ""
        self.is_ipv6 = False
        self.began_at = loop.time()  # the last request, or the connection itself
        self.counted_for = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peername = transport.get_extra_info("peername")
        self.peer = peername[0] if peername else ""
        self.is_ipv6 = ":" in self.peer
        super().connection_made(transport)
        if not self.conversations.admit(self):
            self.cut()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.conversations.dismiss(self)
        super().connection_lost(exc)

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is the guest's affair and not logged; a fault of ours is."""
        if status >= 500:
            log.error("a metadata request of %s in %s failed", self.peer, self.vpc_id, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionResetError("an answer had begun")
        return _refuse(status, close=True)


class _Conversations(web.Server):
    """Every open connection, counted by who holds it: the instance, which may have many addresses, or an address of
    nobody's."""

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        caller: Callable[[str, str], Instance | None],
        patience_s: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`caller(vpc_id, address)` is whose that address is."""
        super().__init__(answer, request_factory=self._request, loop=loop)
        self.patience_s = patience_s
        self.all: set[_Conversation] = set()
        self._caller = caller
        self._held: Counter[str] = Counter()

    def admit(self, conversation: _Conversation) -> bool:
        instance = self._caller(conversation.vpc_id, conversation.peer)
        who = instance.id if instance is not None else f"{conversation.vpc_id} {conversation.peer}"
        if self._held[who] >= MAX_CONVERSATIONS:
            return False
        self._held[who] += 1
        self.all.add(conversation)
        conversation.counted_for = who
        return True

    def dismiss(self, conversation: _Conversation) -> None:
        """For whom it was counted, whoever has its address by now. One that was not admitted is let be."""
        who, conversation.counted_for = conversation.counted_for, ""
        if who:
            self.all.discard(conversation)
            self._held[who] -= 1
            if not self._held[who]:
                del self._held[who]

    def cut_silent(self, now: float) -> None:
        for conversation in list(self.all):
            if now - conversation.began_at > self.patience_s:
                conversation.cut()

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        # The path is read as the guest sent it. A parsed URL is kept from BaseRequest, which fails on some hosts in it.
        return web.BaseRequest(message._replace(url=_NO_URL), payload, protocol, writer, task, self._loop)


class MetadataServer:
    """`serve` and `close` belong to the event loop; `open`, `shut` and `vpcs` to every other thread."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        on_event: Callable[[str, str], None],
        state_dir: Path,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`on_event(instance_id, phase)` is called on the event loop when an instance reads "metadata" or "user-data"
        for the first time since it was last started. What the deployment signs with is kept under `state_dir`."""
        self._store = store
        self._on_event = on_event
        self._patience_s = patience_s
        secrets_dir = state_dir / "identity"
        secret = keep(secrets_dir / "token-secret", lambda: secrets.token_bytes(SECRET_BYTES))
        self._tokens = Tokens(secret, clock)
        self._identity = Identity(secrets_dir, clock)
        self._vendor = Vendor(store, clock)
        self._guests: dict[str, Guest] = {}
        self._listeners: dict[tuple[str, int], asyncio.Server] = {}  # by VPC and address family
        self._loop: asyncio.AbstractEventLoop | None = None
        self._conversations: _Conversations | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._signing: ThreadPoolExecutor | None = None

    # --- on the event loop ---

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be ready to serve on `loop`, which is the caller's."""
        self._loop = loop
        self._conversations = _Conversations(self._answer, self._caller, self._patience_s, loop)
        self._signing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="identity")
        self._sweep = loop.call_later(self._patience_s / 4, self._tidy, loop)

    async def stop(self) -> None:
        for vpc_id in self.vpcs():
            await self.close(vpc_id)
        if self._sweep is not None:
            self._sweep.cancel()
        if self._conversations is not None:
            transports = [each.transport for each in self._conversations.connections if each.transport is not None]
            await self._conversations.shutdown(timeout=1.0)
            for transport in transports:
                transport.abort()  # it would wait for a guest that reads nothing
            await asyncio.sleep(0)  # in which they are closed
        if self._signing is not None:
            self._signing.shutdown(wait=False)
        self._loop = None

    async def serve(self, vpc_id: str, listener: socket.socket) -> None:
        """Answer the guests of a VPC on `listener`, which is ours from now on and takes the place of an earlier one of
        its address family. Conversations that came by an earlier one go on."""
        loop, conversations = self._running()
        server = await loop.create_server(
            lambda: _Conversation(conversations, vpc_id, loop), sock=listener, backlog=BACKLOG
        )
        earlier = self._listeners.get((vpc_id, listener.family))
        self._listeners[vpc_id, listener.family] = server
        if earlier is not None:
            earlier.close()

    async def close(self, vpc_id: str) -> None:
        """Stop answering a VPC. One that is not answered is let be."""
        _, conversations = self._running()
        for family in FAMILIES:
            server = self._listeners.pop((vpc_id, family), None)
            if server is not None:
                server.close()
        for conversation in list(conversations.all):
            if conversation.vpc_id == vpc_id:
                conversation.cut()

    # --- for other threads ---

    def open(
        self, vpc_id: str, listen: Callable[[], socket.socket], listen_ipv6: Callable[[], socket.socket] | None = None
    ) -> None:
        """Answer the guests of a VPC on the sockets that these make; it answers when this returns.

        Doing so again is cheap. Where the address is taken, our own socket there is still the one that guests reach;
        where it is free, the VPC was made anew on the host, and the new socket takes over. Raises what they do.
        """
        self._open(vpc_id, socket.AF_INET, listen)
        if listen_ipv6 is not None:
            self._open(vpc_id, socket.AF_INET6, listen_ipv6)

    def _open(self, vpc_id: str, family: int, listen: Callable[[], socket.socket]) -> None:
        loop, _ = self._running()
        try:
            listener = listen()
        except Exception as error:
            if (vpc_id, family) in self._listeners and _is_taken(error):
                return
            raise
        opening = asyncio.run_coroutine_threadsafe(self.serve(vpc_id, listener), loop)
        try:
            opening.result(OPEN_TIMEOUT_S)
        except BaseException:
            opening.cancel()
            listener.close()
            raise

    def shut(self, vpc_id: str) -> None:
        loop, _ = self._running()
        if any((vpc_id, family) in self._listeners for family in FAMILIES):
            asyncio.run_coroutine_threadsafe(self.close(vpc_id), loop).result(OPEN_TIMEOUT_S)

    def vpcs(self) -> list[str]:
        """The VPCs that are answered."""
        return sorted({vpc_id for vpc_id, _ in list(self._listeners)})

    # --- answers ---

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        loop, _ = self._running()
        conversation = cast("_Conversation", request.protocol)
        conversation.began_at = loop.time()
        instance = self._caller(conversation.vpc_id, conversation.peer)
        if instance is None:
            return _refuse(404, close=True)
        guest = self._guest(instance)
        if not guest.admit(conversation.began_at):
            return _refuse(503)
        options = instance.metadata
        if options.http_endpoint == "disabled" or (conversation.is_ipv6 and options.http_protocol_ipv6 == "disabled"):
            return _refuse(403)
        path = _path(request)
        if path == TOKEN_PATH:
            return self._issue(request, instance)
        if request.method not in READS:
            return _refuse(405, {"Allow": ", ".join(READS)})
        token = request.headers.get(TOKEN_HEADER)
        if token is None:
            if options.http_tokens == "required":
                return _refuse(401)
        elif not self._tokens.check(instance.id, token):
            return _refuse(401)
        found = guest.tree.lookup(path)
        if found is None:
            return _refuse(404)
        body = found.body if isinstance(found.body, bytes) else await loop.run_in_executor(self._signing, found.body)
        self._note(guest, instance, found.topic)
        kind = "application/octet-stream" if found.topic == "user-data" else "text/plain"
        return _reply(body, {"Content-Type": kind, "Last-Modified": guest.tree.last_modified})

    def _issue(self, request: web.BaseRequest, instance: Instance) -> web.StreamResponse:
        """A token, which travels no further than the instance's hop limit."""
        if request.method != "PUT":
            return _refuse(405, {"Allow": "PUT"})
        if "X-Forwarded-For" in request.headers:
            return _refuse(403)
        asked = request.headers.get(TTL_HEADER, "")
        if not _SECONDS.match(asked) or not MIN_TTL_S <= int(asked) <= MAX_TTL_S:
            return _refuse(400)
        connection = request.transport.get_extra_info("socket") if request.transport is not None else None
        if connection is not None:
            # It is not set back: a lost answer is sent again by the kernel, and must not get further then.
            _limit_hops(connection, instance.metadata.hop_limit)
        ttl_s = int(asked)
        token = self._tokens.mint(instance.id, ttl_s)
        return _reply(token.encode("ascii"), {"Content-Type": "text/plain", TTL_HEADER: str(ttl_s)})

    def _caller(self, vpc_id: str, address: str) -> Instance | None:
        """Whose that address is: one of an interface's own, or of a prefix that it has."""
        where: list[dict[str, str]] = [{"addresses": address}]
        if ":" not in address:
            where.append({"prefixes": str(IPv4Network((address, PREFIX_LENGTH), strict=False))})
        for each in where:
            for interface in self._store.all(NetworkInterface, **each, vpc_id=vpc_id):
                instance = self._store.get(Instance, interface.instance_id)
                if instance is not None and instance.state is not State.TERMINATED:
                    return instance
        return None

    def _guest(self, instance: Instance) -> Guest:
        """What is remembered of `instance`, with its tree as the rows have it now."""
        facts = gather(self._store, instance)
        guest = self._guests.get(instance.id)
        if guest is None:
            guest = self._guests[instance.id] = Guest(facts, build(facts, self._identity, self._vendor))
        elif guest.facts != facts:
            guest.facts, guest.tree = facts, build(facts, self._identity, self._vendor)
        return guest

    def _note(self, guest: Guest, instance: Instance, topic: str) -> None:
        phase = _PHASES.get(topic)
        if phase is None:
            return
        if guest.start != instance.launched_at:
            guest.start = instance.launched_at
            guest.seen.clear()
        if phase not in guest.seen:
            guest.seen.add(phase)
            self._on_event(instance.id, phase)

    def _tidy(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._conversations is not None:
            self._conversations.cut_silent(loop.time())
        for instance_id in list(self._guests):
            instance = self._store.get(Instance, instance_id)
            if instance is None or instance.state is State.TERMINATED:
                del self._guests[instance_id]
        self._sweep = loop.call_later(self._patience_s / 4, self._tidy, loop)

    def _running(self) -> tuple[asyncio.AbstractEventLoop, _Conversations]:
        if self._loop is None or self._conversations is None:
            raise RuntimeError("the metadata server does not run: start it first")
        return self._loop, self._conversations


def _path(request: web.BaseRequest) -> str:
    """The path alone, still percent-encoded, of a target in any of HTTP's forms."""
    target = _AUTHORITY.sub("", request.raw_path, count=1)
    path = target.partition("?")[0].partition("#")[0]
    return path if path.startswith("/") else "/" + path


def _reply(body: bytes, headers: Mapping[str, str]) -> web.Response:
    return web.Response(body=body, headers={**_HEADERS, **headers})


def _refuse(status: int, headers: Mapping[str, str] | None = None, *, close: bool = False) -> web.Response:
    title = f"{status} - {HTTPStatus(status).phrase}"
    page = (
        '<?xml version="1.0" encoding="iso-8859-1"?>\n'
        f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    )
    answer = web.Response(
        status=status, body=page.encode(), headers={**_HEADERS, "Content-Type": "text/html", **(headers or {})}
    )
    if close:
        answer.force_close()
    return answer


def _limit_hops(connection: socket.socket, hops: int) -> None:
    if connection.family == socket.AF_INET6:
        connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
    else:
        connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)


def _is_taken(error: BaseException) -> bool:
    """Whether `error`, or what it was raised from, is that the address is in use."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
            return True
        cause = cause.__cause__
    return False

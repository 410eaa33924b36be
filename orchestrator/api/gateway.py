"""The front door: one HTTP endpoint for every service.

    authenticate -> parse -> authorise -> dispatch -> serialise

`Gateway.answer` is that list. Around it stands an aiohttp server: API calls at `/` (POST forms, GET queries, JSON by
X-Amz-Target), `/healthz`, `/metrics`, and the streams that have no place in an API call: `/upload`, `/console/ID` and
`/tunnel/ID/PORT`, signed like any other request.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import socket
import threading
import time
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import WSCloseCode, WSMsgType, web
from botocore.model import ServiceModel
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from orchestrator.api import authorisation, callers, key_access, limits, operations, patience
from orchestrator.api.audit import Note, action_of
from orchestrator.api.operation import Call, Caller, HostView, Operation, Settings, bind_operations, dispatch, provision
from orchestrator.api.protocol import JSONProtocol, Protocol, load_model_file, load_service, protocol_for, read_form
from orchestrator.api.signature import Credential, SignatureError, read_credential, verify
from orchestrator.model import ids
from orchestrator.model.account import ANONYMOUS_ACCOUNT, AccessKey
from orchestrator.model.errors import EC2Error, unsupported
from orchestrator.model.instance import Instance
from orchestrator.model.kms import Keys
from orchestrator.model.lifecycle import State
from orchestrator.model.session import make_deployment_secret
from orchestrator.model.vpc import NetworkInterface
from orchestrator.store import Store, StoreUnavailable

log = logging.getLogger("orchestrator.api")

MAX_BODY_BYTES = 2 << 20
MAX_UPLOAD_BYTES = 64 << 30
CHUNK_BYTES = 1 << 20
DEFAULT_REGION = "us-east-1"
# Services of no region, whose clients sign for one that the deployment may not have.
EVERYWHERE = ("iam", "sts", "organizations")
STREAM_THREADS = 32  # how many streams are being opened at once; further ones wait
TUNNEL_TIMEOUT_S = 10.0
# Until a silent client is asked whether it is there; it has half as long to answer. Who reads nothing (Ctrl-S, or a
# guest that takes nothing) hears no question either, so it is long.
HEARTBEAT_S = 900.0
CALM_AFTER_S = 0.003  # longer than a client takes from an answer to its next call
FLOOD_WARNING_S = 60.0

ORC_MODEL = Path(__file__).with_name("orc") / "service-2.json"


def load_models() -> dict[str, ServiceModel]:
    """The services that are spoken here, by the name in a credential's scope."""
    spoken = {name: load_service(name) for name in ("ec2", "sts", "iam", "kms", "cloudtrail", "organizations")}
    return {**spoken, "orc": load_model_file(ORC_MODEL)}


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, whatever server it came through."""

    method: str
    path: str  # as on the wire, without the query
    query: str
    headers: Mapping[str, str]
    body: bytes
    source: str
    body_is_streamed: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Answering:
    """Whether calls are being answered, one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._ended = 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._calls += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._calls -= 1
            self._ended = time.monotonic()

    def calm(self) -> bool:
        """No call is being answered, and none was a moment ago, so that the next is not on its way already."""
        return not self._calls and time.monotonic() - self._ended >= CALM_AFTER_S


class Gateway:
    def __init__(
        self,
        store: Store,
        settings: Settings,
        host: HostView,
        keys: Keys,
        clock: Callable[[], datetime],
        *,
        any_credentials: bool = False,
    ) -> None:
        self.store = store
        self.host = host
        self._keys = keys
        self._settings = settings
        self._clock = clock
        self._any_credentials = any_credentials
        self._secret = make_deployment_secret(store)
        self._models = load_models()
        operations.load()
        self._operations: dict[tuple[str, str], Operation] = bind_operations(self._models)
        self._limits = limits.Limits(settings.rates)
        self._warned_at = -FLOOD_WARNING_S
        self._streams: set[web.WebSocketResponse] = set()
        self._opening = ThreadPoolExecutor(max_workers=STREAM_THREADS, thread_name_prefix="stream")
        self._ending = False
        self._at_console: dict[str, web.Request] = {}  # by instance
        self.answering = Answering()
        self.patience = patience.Patience()
        self.registry = CollectorRegistry()
        self._calls = Counter("orc_api_calls_total", "API calls", ["service", "action", "code"], registry=self.registry)
        self._seconds = Histogram("orc_api_seconds", "Time to answer", ["service", "action"], registry=self.registry)
        self._instances = Gauge("orc_instances", "Instances by state", ["state"], registry=self.registry)

    # --- one call ---

    def answer(self, request: Request) -> Response:
        """Never raises: what goes wrong is an answer too."""
        with self.answering:
            return self._answer(request)

    def _answer(self, request: Request) -> Response:
        request_id = str(uuid4())
        began = time.perf_counter()
        protocol = protocol_for(self._models["ec2"])
        service, action, code, status = "ec2", "Unknown", "", 200
        account = ""
        note = Note(self._clock(), request_id, request.source, request.headers.get("User-Agent", ""))
        try:
            credential, caller = self.authenticate(request)
            account, note.caller = caller.account, caller
            service = note.service = _service(request, credential)
            protocol = self._protocol(service, request)
            action, note.params = _parse(protocol, self._models[service], request)
            note.action, note.region = action, self._region(credential)
            body, content_type = self._dispatch(protocol, caller, note)
        except (EC2Error, SignatureError) as error:
            code, status, message = error.code, error.http_status, error.message
        except StoreUnavailable as error:
            log.error("request %s: %s", request_id, error)
            code, status, message = "Unavailable", 503, "The service's state cannot be written just now: try again"
        except Exception:
            log.exception("request %s failed", request_id)
            code, status, message = "InternalError", 500, "An internal error has occurred"
        turned_away = False
        if code:
            note.refuse(code, message, status)
            self._complete(note, request)
            if note.caller is None and not self._limits.take_unproven(request.source):
                turned_away = True
                refused = limits.refusal(note.service if note.service in self._models else "ec2")
                code, status, message = refused.code, refused.http_status, refused.message
                self._warn_of_flood(request.source)
            if note.service in self._models:  # also of a caller who was turned away before it was asked for
                protocol = protocol_for(self._models[note.service])
            body, content_type = protocol.serialise_error(code, message, request_id, status)
        if not note.recorded and not turned_away:
            self.store.trail.note(note.event)
        seconds = time.perf_counter() - began
        # Of what callers make up, nothing is kept: a series is there as long as the process.
        served = service if service in self._models else "other"
        known = action if (service, action) in self._operations else "other"
        self._calls.labels(served, known, code or "OK").inc()
        self._seconds.labels(served, known).observe(seconds)
        log.log(
            logging.DEBUG if turned_away else logging.INFO,
            "%s %s.%s %s %.1f ms",
            request_id,
            service,
            action,
            code or "OK",
            seconds * 1000,
            extra={"request_id": request_id, "action": action, "code": code or "OK", "account": account},
        )
        return Response(status, body, content_type, protocol.headers(request_id, code or None, status))

    def _warn_of_flood(self, source: str) -> None:
        """Once a minute: who sends so much must not fill logs with it, the audit log least of all, which is kept."""
        now = time.monotonic()
        if now - self._warned_at >= FLOOD_WARNING_S:
            self._warned_at = now
            log.warning("%s sends more calls that fail authentication than api.rate_unproven: not recorded", source)

    def _complete(self, note: Note, request: Request) -> None:
        """What a request that was refused early says of itself, proven or not."""
        if note.action == "Unknown":
            note.action = action_of(request.headers.get("X-Amz-Target", ""), request.query, request.body)
        if note.caller is None:
            with suppress(SignatureError):
                credential = read_credential(request.query, request.headers)
                if credential is not None:
                    key = self.store.get(AccessKey, credential.access_key)
                    note.claimed_key, note.claimed_account = credential.access_key[:128], key.account if key else ""
                    note.service, note.region = credential.service[:64], credential.region[:64]

    def authenticate(self, request: Request) -> tuple[Credential | None, Caller]:
        """Who is calling, proven by the signature (or taken at its word where anybody is)."""
        credential = read_credential(request.query, request.headers)
        if self._any_credentials:
            return credential, self._taken_at_its_word(credential)
        if credential is None:
            raise EC2Error("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
        now = self._clock()
        claim = callers.look_up(self.store, self._secret, credential, now)
        try:
            verify(
                credential,
                claim.secret_key,
                request.method,
                request.path,
                request.query,
                request.headers,
                request.body,
                now=now,
                allow_unsigned_payload=request.body_is_streamed,
            )
        except SignatureError:
            if claim.error is not None and not claim.known:
                raise claim.error from None
            raise
        if claim.caller is None:
            raise claim.error or callers.unknown_key(credential.service)
        callers.note_use(self.store, credential, claim.caller, now)
        return credential, claim.caller

    def _taken_at_its_word(self, credential: Credential | None) -> Caller:
        """Whoever that is, with the rights of its account's root."""
        if credential is not None:
            known = callers.look_up(self.store, self._secret, credential, self._clock()).caller
            if known is not None:
                return replace(known, principal=None)
        key = credential.access_key if credential else ""
        return callers.root(key if key.isdigit() and len(key) == 12 else ANONYMOUS_ACCOUNT, key)

    def authorise(self, call: Call) -> None:
        """An account's root may do all that the account may; all others, what policies allow. Keys have a say too."""
        if call.caller.principal is not None:
            authorisation.authorise(call)
        key_access.authorise(call)

    def _region(self, credential: Credential | None) -> str:
        region = credential.region if credential else DEFAULT_REGION
        if region not in self._settings.regions:
            if region in ("", "aws-global") or (credential and credential.service in EVERYWHERE):
                return next(iter(self._settings.regions))
            if not self._settings.any_region:
                allowed = ", ".join(self._settings.regions)
                raise EC2Error(
                    "AuthFailure",
                    f"Credential should be scoped to a valid region: '{region}' is not among {allowed}",
                    403,
                )
        return region

    def _protocol(self, service: str, request: Request) -> Protocol:
        model = self._models.get(service)
        if model is None:
            raise unsupported(f"The service '{service}' is not offered here; offered are {', '.join(self._models)}")
        return protocol_for(model)

    def call(
        self,
        service: str,
        action: str,
        caller: Caller,
        region: str,
        request_id: str,
        source: str,
        *,
        note: Note | None = None,
    ) -> Call:
        """A call with no parameters yet, which reads the store."""
        return Call(
            service=service,
            action=action,
            caller=caller,
            region=region,
            params={},
            db=self.store,
            now=self._clock(),
            request_id=request_id,
            source=source,
            settings=self._settings,
            host=self.host,
            keys=self._keys,
            note=note,
        )

    def _dispatch(self, protocol: Protocol, caller: Caller, note: Note) -> tuple[bytes, str]:
        service, action = note.service, note.action
        bound = self._operations.get((service, action))
        if bound is None:
            raise unsupported(f"The action {action} is not supported")
        note.model, note.read_only = bound.model, not bound.writes
        if not self._limits.take(caller.account, note.region, limits.kind_of(action, writes=bound.writes)):
            raise limits.refusal(service)
        blank = self.call(service, action, caller, note.region, note.request_id, note.source, note=note)
        blank.params.update(note.params or {})
        self.authorise(blank)
        result = dispatch(self.store, bound, blank)
        return protocol.serialise(self._models[service].operation_model(action), result, note.request_id)

    # --- the server ---

    def application(self) -> web.Application:
        """The aiohttp application. API calls run in threads, so that a slow one holds nobody up. Streams are opened in
        others: as long as a port does not answer, one is taken."""
        application = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self.patience.watch])
        application.on_shutdown.append(self._close_streams)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_put("/upload", self._upload)
        application.router.add_get("/console/{instance}", self._console)
        application.router.add_get("/tunnel/{instance}/{port:[0-9]{1,5}}", self._tunnel)
        application.router.add_route("GET", "/{tail:.*}", self._api)
        application.router.add_route("POST", "/{tail:.*}", self._api)
        return application

    async def _api(self, request: web.Request) -> web.Response:
        error: EC2Error | None = None
        try:
            async with asyncio.timeout(patience.BODY_S):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            error = EC2Error("RequestEntityTooLarge", f"The request's body is over {MAX_BODY_BYTES} bytes", 413)
        except TimeoutError:
            error = EC2Error("RequestTimeout", f"The request's body took longer than {patience.BODY_S:.0f} s", 408)
        except web.RequestPayloadError as malformed:
            error = EC2Error("MalformedQueryString", f"The request's body cannot be read: {malformed}"[:200])
        if error is not None:
            note = Note(self._clock(), str(uuid4()), request.remote or "", request.headers.get("User-Agent", ""))
            if self._limits.take_unproven(note.source):
                note.refuse(error.code, error.message, error.http_status)
                self.store.trail.note(note.event)
            else:
                error = limits.refusal("ec2")
                self._warn_of_flood(note.source)
            text, content_type = protocol_for(self._models["ec2"]).serialise_error(
                error.code, error.message, note.request_id, error.http_status
            )
            refusal = web.Response(status=error.http_status, body=text, headers={"Content-Type": content_type})
            refusal.force_close()  # what is left of the body is no request
            return refusal
        answer = await asyncio.get_running_loop().run_in_executor(None, self.answer, _request(request, body))
        headers = {"Content-Type": answer.content_type, **answer.headers}
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _metrics(self, request: web.Request) -> web.Response:
        if not self._limits.take_unproven(request.remote or ""):
            return web.Response(status=429, text="too many requests\n")
        counts = dict.fromkeys(State, 0)
        for instance in self.store.all(Instance):
            counts[instance.state] += 1
        for state, count in counts.items():
            self._instances.labels(state.value).set(count)
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _upload(self, request: web.Request) -> web.Response:
        """Keep the body as an upload for ImportImage; answers its id and SHA-512."""
        loop = asyncio.get_running_loop()

        def admit() -> None:
            with self._streaming("Upload", _request(request, b"", streamed=True)) as call:
                self.authorise(call)

        try:
            await loop.run_in_executor(None, admit)
        except (EC2Error, SignatureError) as error:
            return _stream_error(error)
        upload_id = ids.mint("upload")
        chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=4)
        whole = False

        def received() -> Iterator[bytes]:
            while (chunk := chunks.get()) is not None:
                yield chunk
            if not whole:  # whoever keeps it lets go of what there is
                raise OSError("the upload was broken off")

        with ThreadPoolExecutor(max_workers=2) as pool:
            keeping = loop.run_in_executor(pool, self.host.receive_upload, upload_id, received(), MAX_UPLOAD_BYTES)
            try:
                while chunk := await asyncio.wait_for(request.content.read(CHUNK_BYTES), patience.BODY_S):
                    while not keeping.done():
                        with suppress(queue.Full):
                            chunks.put_nowait(chunk)
                            break
                        await asyncio.sleep(0.005)
                whole = True
            except (OSError, web.RequestPayloadError) as broken:
                log.info("%s was broken off: %s", upload_id, broken)  # TimeoutError is an OSError
            finally:
                while not keeping.done():
                    with suppress(queue.Full):
                        chunks.put_nowait(None)
                        break
                    await asyncio.sleep(0.005)
            try:
                digest = await keeping
            except Exception as error:
                return _stream_error(EC2Error("InvalidParameterValue", str(error)))
        return web.json_response({"UploadId": upload_id, "Sha512": digest})

    async def _console(self, request: web.Request) -> web.StreamResponse:
        """A serial port has one session at a time, as on EC2; who comes while there is one is told."""
        name = request.match_info["instance"]

        def connect(call: Call, instance: Instance) -> socket.socket:
            self._check_console(instance.id)
            return self.host.console_socket(instance.id)

        def begin() -> None:
            self._check_console(name)
            self._at_console[name] = request

        try:
            return await self._bridge(request, connect, begin)
        finally:
            if self._at_console.get(name) is request:
                del self._at_console[name]

    def _check_console(self, instance_id: str) -> None:
        if instance_id in self._at_console:
            raise EC2Error(
                "SerialConsoleSessionLimitExceeded",
                f"{instance_id} has a serial console session already; only 1 is supported at a time",
            )

    async def _tunnel(self, request: web.Request) -> web.StreamResponse:
        port = int(request.match_info["port"])

        def connect(call: Call, instance: Instance) -> socket.socket:
            if not 1 <= port <= 65535:
                raise EC2Error("InvalidParameterValue", f"The port {port} is not from 1 to 65535")
            interfaces = call.db.all(NetworkInterface, instance_id=instance.id)
            first = min(interfaces, key=lambda eni: eni.attachment.device_index if eni.attachment else 0)
            return self.host.connect(instance.vpc_id, first.private_ip, port, TUNNEL_TIMEOUT_S)

        return await self._bridge(request, connect)

    async def _bridge(
        self,
        request: web.Request,
        connect: Callable[[Call, Instance], socket.socket],
        begin: Callable[[], None] = lambda: None,
    ) -> web.StreamResponse:
        """Carry bytes between a WebSocket and a socket of the instance's, until one of them closes. `begin` is called
        on the event loop once there is such a socket, and may refuse it."""
        loop = asyncio.get_running_loop()

        def opened() -> socket.socket:
            with self._streaming("Connect", _request(request, b"")) as call:
                call.params["InstanceId"] = request.match_info["instance"]
                self.authorise(call)
                provision(self.store, call)
                instance = call.find(Instance, "i", request.match_info["instance"])
                if instance.state is not State.RUNNING:
                    raise EC2Error(
                        "IncorrectInstanceState", f"The instance '{instance.id}' is {instance.state}, not running"
                    )
                try:
                    guest = connect(call, instance)
                except OSError as error:
                    raise EC2Error("Unavailable", f"{instance.id} cannot be reached: {error}", 503) from error
                _ask_whether_alive(guest)
                if guest.family in (socket.AF_INET, socket.AF_INET6):
                    guest.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)
                return guest

        if self._ending:
            return _stream_error(EC2Error("Unavailable", "The service is ending: try again", 503))
        try:
            guest = await loop.run_in_executor(self._opening, opened)
            with ExitStack() as on_refusal:
                on_refusal.callback(guest.close)
                begin()
                on_refusal.pop_all()
        except (EC2Error, SignatureError) as error:
            return _stream_error(error)
        reader, writer = await asyncio.open_connection(sock=guest)
        stream = web.WebSocketResponse(max_msg_size=CHUNK_BYTES, heartbeat=HEARTBEAT_S)

        async def outward() -> None:
            while data := await reader.read(65536):
                await stream.send_bytes(data)

        async def inward() -> None:
            async for message in stream:
                if message.type is WSMsgType.BINARY:
                    writer.write(message.data)
                    await writer.drain()

        try:
            await stream.prepare(request)
            if request.transport is not None:
                _ask_whether_alive(request.transport.get_extra_info("socket"))
            self._streams.add(stream)
            ways = [asyncio.create_task(outward()), asyncio.create_task(inward())]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            for ended in await asyncio.gather(*ways, return_exceptions=True):
                if isinstance(ended, Exception):
                    log.debug("a stream to %s was lost: %s", request.match_info["instance"], ended)
            await stream.close()
        finally:
            self._streams.discard(stream)
            writer.close()
        return stream

    @contextmanager
    def _streaming(self, action: str, request: Request) -> Iterator[Call]:
        """A stream's call, authenticated. The audit log says who asked for what, and whether it was refused."""
        note = Note(
            self._clock(),
            str(uuid4()),
            request.source,
            request.headers.get("User-Agent", ""),
            service="orc",
            action=action,
            read_only=False,
        )
        recorded = True
        try:
            credential, note.caller = self.authenticate(request)
            note.region = self._region(credential)
            call = self.call("orc", action, note.caller, note.region, note.request_id, request.source, note=note)
            note.params = call.params
            yield call
        except StoreUnavailable as error:
            log.error("request %s: %s", note.request_id, error)
            note.refuse("Unavailable", "The service's state cannot be written just now: try again", 503)
            raise EC2Error(note.code, note.message, note.status) from error
        except (EC2Error, SignatureError) as error:
            if note.caller is None and not self._limits.take_unproven(note.source):
                recorded = False
                self._warn_of_flood(note.source)
                raise limits.refusal("orc") from None
            note.refuse(error.code, error.message, error.http_status)
            raise
        finally:
            if note.code:
                self._complete(note, request)
            note.params = {**(note.params or {}), "Path": request.path}
            if recorded:
                self.store.trail.note(note.event)

    async def _close_streams(self, _: web.Application) -> None:
        """They would last as long as people talk. Those that wait to be opened are not any more."""
        self._ending = True
        self._opening.shutdown(wait=False, cancel_futures=True)
        await asyncio.gather(*(stream.close(code=WSCloseCode.GOING_AWAY) for stream in tuple(self._streams)))


def _service(request: Request, credential: Credential | None) -> str:
    if credential is not None:
        return credential.service
    return "orc" if request.headers.get("X-Amz-Target", "").startswith("Orchestrator") else "ec2"


def _parse(protocol: Protocol, model: ServiceModel, request: Request) -> tuple[str, dict[str, Any]]:
    """The operation's name and its parameters."""
    target = request.headers.get("X-Amz-Target")
    if isinstance(protocol, JSONProtocol):
        name = protocol.operation_name(target or "")
        return name, protocol.parse(model.operation_model(name), request.body)
    form = read_form(
        request.body if request.method == "POST" and request.body else request.query.encode("utf-8", "surrogateescape")
    )
    form = {name: value for name, value in form.items() if not name.startswith("X-Amz-")}
    action = form.pop("Action", "")
    form.pop("Version", None)
    if not action:
        raise EC2Error("MissingAction", "The request must contain the parameter Action")
    if action not in model.operation_names:
        raise EC2Error("InvalidAction", f"The action {action[:64]} is not valid for this web service.")
    return action, protocol.parse(model.operation_model(action), form)


def _request(request: web.Request, body: bytes, *, streamed: bool = False) -> Request:
    path, _, query = request.raw_path.partition("?")
    return Request(request.method, path, query, request.headers, body, request.remote or "", streamed)


def _ask_whether_alive(other: socket.socket | TransportSocket) -> None:
    """A machine whose plug is pulled says no farewell: its connections end when it has not answered for a minute."""
    if other.family in (socket.AF_INET, socket.AF_INET6):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3)):
            other.setsockopt(socket.IPPROTO_TCP, option, value)


def _stream_error(error: EC2Error | SignatureError) -> web.Response:
    return web.json_response({"__type": error.code, "message": error.message}, status=error.http_status)

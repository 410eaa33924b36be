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
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import WSCloseCode, WSMsgType, web
from botocore.model import ServiceModel
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from orchestrator.api import operations
from orchestrator.api.operation import Call, Caller, HostView, Operation, Settings, bind_operations, dispatch, provision
from orchestrator.api.protocol import JSONProtocol, Protocol, load_model_file, load_service, protocol_for, read_form
from orchestrator.api.signature import Credential, SignatureError, read_credential, verify
from orchestrator.model import ids
from orchestrator.model.account import ANONYMOUS_ACCOUNT, AccessKey
from orchestrator.model.errors import EC2Error, unsupported
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import NetworkInterface
from orchestrator.store import Store

log = logging.getLogger("orchestrator.api")

MAX_BODY_BYTES = 2 << 20
MAX_UPLOAD_BYTES = 64 << 30
CHUNK_BYTES = 1 << 20
DEFAULT_REGION = "us-east-1"
TUNNEL_TIMEOUT_S = 10.0

ORC_MODEL = Path(__file__).with_name("orc") / "service-2.json"


def load_models() -> dict[str, ServiceModel]:
    """The services that are spoken here, by the name in a credential's scope."""
    return {"ec2": load_service("ec2"), "sts": load_service("sts"), "orc": load_model_file(ORC_MODEL)}


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


class Gateway:
    def __init__(
        self,
        store: Store,
        settings: Settings,
        host: HostView,
        clock: Callable[[], datetime],
        *,
        any_credentials: bool = False,
    ) -> None:
        self.store = store
        self.host = host
        self._settings = settings
        self._clock = clock
        self._any_credentials = any_credentials
        self._models = load_models()
        operations.load()
        self._operations: dict[tuple[str, str], Operation] = bind_operations(self._models)
        self._streams: set[web.WebSocketResponse] = set()
        self.registry = CollectorRegistry()
        self._calls = Counter("orc_api_calls_total", "API calls", ["service", "action", "code"], registry=self.registry)
        self._seconds = Histogram("orc_api_seconds", "Time to answer", ["service", "action"], registry=self.registry)
        self._instances = Gauge("orc_instances", "Instances by state", ["state"], registry=self.registry)

    # --- one call ---

    def answer(self, request: Request) -> Response:
        """Never raises: what goes wrong is an answer too."""
        request_id = str(uuid4())
        began = time.perf_counter()
        protocol = protocol_for(self._models["ec2"])
        service, action, code, status = "ec2", "Unknown", "", 200
        account = ""
        try:
            credential, caller = self.authenticate(request)
            account = caller.account
            service = _service(request, credential)
            protocol = self._protocol(service, request)
            action, params = _parse(protocol, self._models[service], request)
            self.authorise(caller, service, action)
            body, content_type = self._dispatch(
                protocol, service, action, params, caller, self._region(credential), request_id, request.source
            )
        except (EC2Error, SignatureError) as error:
            code, status = error.code, error.http_status
            body, content_type = protocol.serialise_error(error.code, error.message, request_id, error.http_status)
        except Exception:
            log.exception("request %s failed", request_id)
            code, status = "InternalError", 500
            message = "An internal error has occurred"
            body, content_type = protocol.serialise_error(code, message, request_id, status)
        seconds = time.perf_counter() - began
        known = action if (service, action) in self._operations else "other"
        self._calls.labels(service, known, code or "OK").inc()
        self._seconds.labels(service, known).observe(seconds)
        log.info(
            "%s %s.%s %s %.1f ms",
            request_id,
            service,
            action,
            code or "OK",
            seconds * 1000,
            extra={"request_id": request_id, "action": action, "code": code or "OK", "account": account},
        )
        return Response(status, body, content_type, protocol.headers(request_id, code or None, status))

    def authenticate(self, request: Request) -> tuple[Credential | None, Caller]:
        """Who is calling, proven by the signature (or taken at its word where anybody is)."""
        credential = read_credential(request.query, request.headers)
        if self._any_credentials:
            key = credential.access_key if credential else ""
            account = key if key.isdigit() and len(key) == 12 else ANONYMOUS_ACCOUNT
            stored = self.store.get(AccessKey, key)
            return credential, _caller(stored) if stored else Caller(
                account=account, access_key=key, arn=f"arn:aws:iam::{account}:root", user_id=account
            )
        if credential is None:
            raise EC2Error("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
        access_key = self.store.get(AccessKey, credential.access_key)
        # An unknown key is checked against a random secret, so that it takes as long as a known one.
        secret = access_key.secret if access_key else secrets.token_hex(20)
        try:
            verify(
                credential,
                secret,
                request.method,
                request.path,
                request.query,
                request.headers,
                request.body,
                now=self._clock(),
                allow_unsigned_payload=request.body_is_streamed,
            )
        except SignatureError:
            if access_key is None:
                raise _unknown_key() from None
            raise
        if access_key is None or not access_key.active:
            raise _unknown_key()
        return credential, _caller(access_key)

    def authorise(self, caller: Caller, service: str, action: str) -> None:
        """Every key is its account's root so far, and may do all that the account may."""

    def _region(self, credential: Credential | None) -> str:
        region = credential.region if credential else DEFAULT_REGION
        if region not in self._settings.regions:
            if region in ("", "aws-global"):
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

    def call(self, service: str, action: str, caller: Caller, region: str, request_id: str, source: str) -> Call:
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
        )

    def _dispatch(
        self,
        protocol: Protocol,
        service: str,
        action: str,
        params: dict[str, Any],
        caller: Caller,
        region: str,
        request_id: str,
        source: str,
    ) -> tuple[bytes, str]:
        bound = self._operations.get((service, action))
        if bound is None:
            raise unsupported(f"The action {action} is not supported")
        blank = self.call(service, action, caller, region, request_id, source)
        blank.params.update(params)
        result = dispatch(self.store, bound, blank)
        return protocol.serialise(self._models[service].operation_model(action), result, request_id)

    # --- the server ---

    def application(self) -> web.Application:
        """The aiohttp application. API calls run in threads, so that a slow one holds nobody up."""
        application = web.Application(client_max_size=MAX_BODY_BYTES)
        application.on_shutdown.append(self._close_streams)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_put("/upload", self._upload)
        application.router.add_get("/console/{instance}", self._console)
        application.router.add_get("/tunnel/{instance}/{port:\\d+}", self._tunnel)
        application.router.add_route("GET", "/{tail:.*}", self._api)
        application.router.add_route("POST", "/{tail:.*}", self._api)
        return application

    async def _api(self, request: web.Request) -> web.Response:
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            error = EC2Error("RequestEntityTooLarge", f"The request's body is over {MAX_BODY_BYTES} bytes", 413)
            text, content_type = protocol_for(self._models["ec2"]).serialise_error(
                error.code, error.message, str(uuid4()), error.http_status
            )
            return web.Response(status=413, body=text, headers={"Content-Type": content_type})
        answer = await asyncio.get_running_loop().run_in_executor(None, self.answer, _request(request, body))
        headers = {"Content-Type": answer.content_type, **answer.headers}
        return web.Response(status=answer.status, body=answer.body, headers=headers)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _metrics(self, _: web.Request) -> web.Response:
        counts = dict.fromkeys(State, 0)
        for instance in self.store.all(Instance):
            counts[instance.state] += 1
        for state, count in counts.items():
            self._instances.labels(state.value).set(count)
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _upload(self, request: web.Request) -> web.Response:
        """Keep the body as an upload for ImportImage; answers its id and SHA-512."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self.authenticate, _request(request, b"", streamed=True))
        except (EC2Error, SignatureError) as error:
            return _stream_error(error)
        upload_id = ids.mint("upload")
        chunks: queue.Queue[bytes | None] = queue.Queue(maxsize=4)

        def received() -> Iterator[bytes]:
            while (chunk := chunks.get()) is not None:
                yield chunk

        with ThreadPoolExecutor(max_workers=2) as pool:
            keeping = loop.run_in_executor(pool, self.host.receive_upload, upload_id, received(), MAX_UPLOAD_BYTES)
            try:
                async for chunk in request.content.iter_chunked(CHUNK_BYTES):
                    while not keeping.done():
                        with suppress(queue.Full):
                            chunks.put_nowait(chunk)
                            break
                        await asyncio.sleep(0.005)
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
        return await self._bridge(request, lambda call, instance: self.host.console_socket(instance.id))

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
        self, request: web.Request, connect: Callable[[Call, Instance], socket.socket]
    ) -> web.StreamResponse:
        """Carry bytes between a WebSocket and a socket of the instance's, until one of them closes."""
        loop = asyncio.get_running_loop()

        def opened() -> socket.socket:
            credential, caller = self.authenticate(_request(request, b""))
            call = self.call("orc", "Connect", caller, self._region(credential), str(uuid4()), request.remote or "")
            provision(self.store, call)
            instance = call.find(Instance, "i", request.match_info["instance"])
            if instance.state is not State.RUNNING:
                raise EC2Error(
                    "IncorrectInstanceState", f"The instance '{instance.id}' is {instance.state}, not running"
                )
            try:
                return connect(call, instance)
            except OSError as error:
                raise EC2Error("Unavailable", f"{instance.id} cannot be reached: {error}", 503) from error

        try:
            guest = await loop.run_in_executor(None, opened)
        except (EC2Error, SignatureError) as error:
            return _stream_error(error)
        reader, writer = await asyncio.open_connection(sock=guest)
        stream = web.WebSocketResponse(max_msg_size=CHUNK_BYTES)

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

    async def _close_streams(self, _: web.Application) -> None:
        """They would last as long as people talk."""
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


def _caller(key: AccessKey) -> Caller:
    return Caller(
        account=key.account, access_key=key.id, arn=key.arn, user_id=key.account if not key.user else key.user
    )


def _unknown_key() -> EC2Error:
    return EC2Error(
        "AuthFailure", "AWS was not able to validate the provided access credentials: the access key is unknown", 401
    )


def _request(request: web.Request, body: bytes, *, streamed: bool = False) -> Request:
    path, _, query = request.raw_path.partition("?")
    return Request(request.method, path, query, request.headers, body, request.remote or "", streamed)


def _stream_error(error: EC2Error | SignatureError) -> web.Response:
    return web.json_response({"__type": error.code, "message": error.message}, status=error.http_status)

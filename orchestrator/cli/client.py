"""Calls the API: signs, sends, pages, and turns every way of not getting an answer into an error that says what to do.

One connection per call, from the standard library: a command makes one or two calls, and has to be at work at once.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import urlsplit

import click

from orchestrator.api.signature import UNSIGNED_PAYLOAD, sign
from orchestrator.cli import wire
from orchestrator.cli.session import EXIT_NOT_FOUND, EXIT_REFUSED, EXIT_UNREACHABLE, Endpoint

TIMEOUT_S = 60.0
UPLOAD_TIMEOUT_S = 600.0  # the controller writes and hashes what it was sent before it answers
UPLOAD_CHUNK_BYTES = 1 << 20
PAGE = 1000
ALIVE = ("pending", "running", "stopping", "stopped", "shutting-down")

_TRIES = 4
_AGAIN_AFTER_S = 0.2
_READS = ("Describe", "Get", "List")
_TEMPORARY = ("RequestLimitExceeded", "Unavailable")
_INSTANCE_ID = re.compile(r"i-(?:[0-9a-f]{8}|[0-9a-f]{17})", re.ASCII)
_INSTANCE_ID_START = re.compile(r"i-[0-9a-f]*", re.ASCII)

_ADVICE = {
    "AuthFailure": "`orc whoami` shows which credentials and region are used",
    "SignatureDoesNotMatch": "the credentials belong to another controller, or AWS_* variables are set by halves",
    "RequestExpired": "the clocks of this machine and the controller's differ",
    "InvalidKeyPair.NotFound": "`orc key ls` shows those that are there, `orc key create NAME` makes one",
    "InvalidAMIID.NotFound": "`orc image ls` shows those that are there",
    "InvalidGroup.NotFound": "`orc group ls` shows those that are there",
    "InvalidInstanceID.NotFound": "`orc ls --all` shows those that are there",
    "InsufficientInstanceCapacity": "choose a smaller type (`orc type ls`), or end instances (`orc ls`)",
}


class APIError(click.ClickException):
    """The API refused. `code` is EC2's."""

    exit_code: int = EXIT_REFUSED  # type: ignore[misc]

    def __init__(self, code: str, message: str, *, http_status: int = 400, request_id: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.http_status = http_status
        self.request_id = request_id
        if code.endswith(".NotFound"):
            self.exit_code = EXIT_NOT_FOUND

    def format_message(self) -> str:
        advice = _ADVICE.get(self.code)
        return f"{self.code}: {self.message}" + (f"\n{advice}" if advice else "")


class NotFound(click.ClickException):
    exit_code = EXIT_NOT_FOUND


class Unreachable(click.ClickException):
    """Nobody answers at the endpoint, or somebody who is no controller."""

    exit_code = EXIT_UNREACHABLE


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Client:
    def __init__(self, endpoint: Endpoint, *, timeout_s: float = TIMEOUT_S) -> None:
        self.endpoint = endpoint
        self._timeout_s = timeout_s

    @property
    def region(self) -> str:
        return self.endpoint.region

    def call(self, service: str, action: str, **parameters: Any) -> dict[str, Any]:
        """One action, by EC2's member names on both sides. Raises APIError or Unreachable."""
        headers, body = wire.write_request(service, action, parameters)
        reads = action.startswith(_READS)
        for attempt in range(_TRIES):
            status, answer = self._send("POST", "/", service, headers, body)
            if status == 200:
                try:
                    return wire.read_answer(service, action, answer)
                except ValueError as error:
                    raise Unreachable(f"{self.endpoint.url} is not a controller's: {error}") from None
            refusal = self.refusal(status, answer)
            temporary = isinstance(refusal, APIError) and refusal.code in _TEMPORARY
            if not (reads and temporary) or attempt == _TRIES - 1:
                raise refusal
            time.sleep(_AGAIN_AFTER_S * 2**attempt)
        raise AssertionError("unreachable")

    def ec2(self, action: str, **parameters: Any) -> dict[str, Any]:
        return self.call("ec2", action, **parameters)

    def orc(self, action: str, **parameters: Any) -> dict[str, Any]:
        return self.call("orc", action, **parameters)

    def pages(self, action: str, member: str, **parameters: Any) -> list[dict[str, Any]]:
        """All pages of a Describe of EC2's: the list `member` of every answer."""
        found: list[dict[str, Any]] = []
        while True:
            answer = self.ec2(action, **parameters)
            found += answer[member]
            token = answer.get("NextToken")
            if not token:
                return found
            parameters["NextToken"] = token

    def signed_headers(self, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> dict[str, str]:
        """The headers of a request for one of the streams."""
        return {**headers, **self._sign(method, path, "orc", headers, body)}

    def upload(self, content: Readable, size_bytes: int) -> dict[str, Any]:
        """Send an image file; UploadId and Sha512 of what arrived."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(size_bytes),
            "X-Amz-Content-SHA256": UNSIGNED_PAYLOAD,
        }
        status, answer = self._send("PUT", "/upload", "orc", headers, content, timeout_s=UPLOAD_TIMEOUT_S)
        if status != 200:
            raise self.refusal(status, answer)
        document: dict[str, Any] = json.loads(answer)
        return document

    def get(self, path: str) -> tuple[int, bytes]:
        """A signed GET; status and body."""
        return self._send("GET", path, "orc", {}, b"")

    def refusal(self, status: int, body: bytes) -> APIError | Unreachable:
        """The error that an answer other than 200 stands for."""
        code, message, request_id = wire.read_error(body)
        if not code:
            start = body[:120].decode(errors="replace").strip()
            return Unreachable(f"{self.endpoint.url} is not a controller's: HTTP {status} {start}")
        return APIError(code, message, http_status=status, request_id=request_id)

    def _sign(self, method: str, path: str, service: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        at = self.endpoint
        return sign(
            method,
            at.url + path,
            headers,
            body,
            access_key=at.access_key_id,
            secret_key=at.secret_access_key,
            session_token=at.session_token,
            region=at.region,
            service=service,
        )

    def _send(
        self,
        method: str,
        path: str,
        service: str,
        headers: dict[str, str],
        body: bytes | Readable,
        *,
        timeout_s: float | None = None,
    ) -> tuple[int, bytes]:
        connection = self._connection(timeout_s or self._timeout_s)
        signed = self._sign(method, path, service, headers, body if isinstance(body, bytes) else b"")
        try:
            try:
                connection.request(method, path, body, {**headers, **signed})
            except (BrokenPipeError, ConnectionResetError):
                if isinstance(body, bytes):
                    raise
                # A body that is refused half way: the answer that says why may be there all the same.
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:
            raise Unreachable(
                f"no controller answers at {self.endpoint.url}: start it with `sudo orc serve` (or `orc quickstart`)"
            ) from None
        except TimeoutError:
            raise Unreachable(f"{self.endpoint.url} has not answered in {self._timeout_s:.0f} s") from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.endpoint.url} cannot be reached: {error or type(error).__name__}") from None
        finally:
            connection.close()

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.endpoint.url)
        host = parts.hostname or ""
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=timeout_s, blocksize=UPLOAD_CHUNK_BYTES)
        return http.client.HTTPSConnection(
            host, parts.port, timeout=timeout_s, blocksize=UPLOAD_CHUNK_BYTES, context=tls_context()
        )

    # --- instances by whatever people call them ---

    def instances(
        self, ids: Iterable[str] = (), filters: Iterable[tuple[str, Iterable[str]]] = ()
    ) -> list[dict[str, Any]]:
        """Instances, oldest first. With ids there is one answer, without there are pages."""
        parameters: dict[str, Any] = {}
        wanted = list(ids)
        if wanted:
            parameters["InstanceIds"] = wanted
        else:
            parameters["MaxResults"] = PAGE
        if chosen := [{"Name": name, "Values": list(values)} for name, values in filters]:
            parameters["Filters"] = chosen
        reservations = self.pages("DescribeInstances", "Reservations", **parameters)
        found = [instance for reservation in reservations for instance in reservation.get("Instances", [])]
        return sorted(found, key=lambda instance: (instance.get("LaunchTime", ""), instance["InstanceId"]))

    def find(self, references: Iterable[str], *, terminated: bool = False) -> list[str]:
        """Ids for ids, beginnings of ids and names (the tag Name of an instance that is alive), in their order.

        A full id is taken as it is: the call that it is for will say whether it exists. With `terminated`, a name that
        no living instance has may be that of one that has ended.
        """
        wanted = list(dict.fromkeys(references))
        unknown = [reference for reference in wanted if not _INSTANCE_ID.fullmatch(reference)]
        found = {reference: self._matching(reference, terminated) for reference in unknown}
        for reference, matching in found.items():
            if not matching:
                raise NotFound(f"there is no instance '{reference}'; `orc ls` shows those that are there")
            if len(matching) > 1:
                listed = ", ".join(f"{one['InstanceId']} ({one['State']['Name']})" for one in matching)
                raise click.UsageError(f"'{reference}' may be any of {listed}: say which by its id")
        ids = [found[ref][0]["InstanceId"] if ref in found else ref for ref in wanted]
        return list(dict.fromkeys(ids))

    def find_one(self, reference: str, *, terminated: bool = False) -> str:
        return self.find([reference], terminated=terminated)[0]

    def describe(self, reference: str, *, terminated: bool = False) -> dict[str, Any]:
        """One instance, by id, beginning of an id, or name."""
        instance_id = self.find_one(reference, terminated=terminated)
        found = self.instances([instance_id])
        if not found:
            raise NotFound(f"there is no instance '{reference}'; `orc ls --all` shows those that are there")
        return found[0]

    def _matching(self, reference: str, terminated: bool) -> list[dict[str, Any]]:
        if not reference:
            return []
        alive = ("instance-state-name", ALIVE)
        if _INSTANCE_ID_START.fullmatch(reference):
            named = self.instances(filters=[("instance-id", [reference + "*"])])
        else:
            named = self.instances(filters=[("tag:Name", [escape(reference)]), alive])
            if not named and terminated:
                named = self.instances(filters=[("tag:Name", [escape(reference)])])[-1:]
        # A name is free again for a new one as soon as the old one is told to end.
        return [one for one in named if one["State"]["Name"] != "shutting-down"] or named


def escape(text: str) -> str:
    """As a value of a filter that means this text alone."""
    return re.sub(r"([\\*?])", r"\\\1", text)


def tls_context() -> Any:
    """Checks the controller's certificate, by the authorities of ORC_CA_BUNDLE or AWS_CA_BUNDLE where one is set."""
    import ssl

    bundle = os.environ.get("ORC_CA_BUNDLE") or os.environ.get("AWS_CA_BUNDLE") or None
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise click.UsageError(f"ORC_CA_BUNDLE: {bundle} cannot be used: {error.strerror}") from None

"""`Cloud`: a whole gateway that checks signatures, called by boto3 without a socket in between.

Requests are signed anew at the test's time, so that it may pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import boto3
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from orchestrator.api.gateway import Gateway, Request
from orchestrator.api.operation import HostView, Settings
from orchestrator.api.signature import sign
from orchestrator.keys import KeyRing
from orchestrator.model.account import AccessKey, Account
from orchestrator.store import Store
from tests.conftest import Clock

ACCOUNT, OTHER = "111122223333", "444455556666"
SETTINGS = Settings(regions={"us-east-1": ("us-east-1a", "us-east-1b"), "us-west-2": ("us-west-2a",)})


@dataclass(frozen=True)
class Keys:
    access_key: str
    secret_key: str
    token: str | None = None

    @classmethod
    def of(cls, shown: dict[str, Any]) -> Keys:
        """As CreateAccessKey, AssumeRole or the metadata of an instance show them."""
        token = shown.get("SessionToken") or shown.get("Token")
        return cls(shown["AccessKeyId"], shown["SecretAccessKey"], token)


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self._content


@dataclass
class Cloud:
    gateway: Gateway
    store: Store
    clock: Clock
    source: str = "192.0.2.7"

    def root(self, account: str = ACCOUNT) -> Keys:
        return Keys(f"AKIAROOT{account}", f"secret of {account}")

    def client(self, service: str, keys: Keys | None = None, *, region: str = "us-east-1") -> Any:
        by = keys or self.root()
        session = boto3.Session(by.access_key, by.secret_key, by.token, region_name=region)
        client = session.client(service, endpoint_url="http://127.0.0.1:1")  # type: ignore[call-overload]

        def send(request: Any, **_: Any) -> AWSResponse:
            parts = urlsplit(request.url)
            body = request.body.encode() if isinstance(request.body, str) else request.body or b""
            headers = {"Host": parts.netloc}
            for name in ("Content-Type", "X-Amz-Target"):
                if name in request.headers:
                    value = request.headers[name]
                    headers[name] = value if isinstance(value, str) else value.decode()
            headers |= sign(
                request.method,
                request.url,
                headers,
                body,
                access_key=by.access_key,
                secret_key=by.secret_key,
                session_token=by.token,
                region=region,
                service=service,
                now=self.clock(),
            )
            answer = self.gateway.answer(Request(request.method, parts.path, parts.query, headers, body, self.source))
            shown = {"Content-Type": answer.content_type, **answer.headers}
            return AWSResponse(request.url, answer.status, cast(Any, shown), cast(Any, _Body(answer.body)))

        client.meta.events.register("before-send.*", send)
        return client

    def user(self, name: str, *statements: dict[str, Any]) -> Keys:
        """A new user with one inline policy, and its keys."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        if statements:
            iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(*statements))
        return Keys.of(iam.create_access_key(UserName=name)["AccessKey"])

    def role(self, name: str, trust: dict[str, Any], *statements: dict[str, Any]) -> str:
        """A new role that `trust` may assume; its ARN."""
        iam = self.client("iam")
        statement = {"Effect": "Allow", "Principal": trust, "Action": "sts:AssumeRole"}
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(statement))["Role"]
        if statements:
            iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(*statements))
        arn: str = made["Arn"]
        return arn


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action: str | list[str], resource: str | list[str] = "*", **condition: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"Effect": "Allow", "Action": action, "Resource": resource}
    return {**found, "Condition": condition} if condition else found


def deny(action: str | list[str], resource: str | list[str] = "*", **condition: Any) -> dict[str, Any]:
    return {**allow(action, resource, **condition), "Effect": "Deny"}


def refused(call: Any, *args: Any, **params: Any) -> tuple[str, str]:
    """Code and message of the error that a call of boto3's must end with."""
    try:
        answer = call(*args, **params)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["Error"]["Message"]
    raise AssertionError(f"it was not refused: {answer}")


@contextmanager
def open_cloud(directory: Path, clock: Clock, *, any_credentials: bool = False, endpoint: str = "") -> Iterator[Cloud]:
    store = Store(directory / "state" / "orchestrator.db", durable=False)
    settings = replace(SETTINGS, endpoint=endpoint)
    gateway = Gateway(store, settings, cast(HostView, None), KeyRing(bytes(32)), clock, any_credentials=any_credentials)
    cloud = Cloud(gateway, store, clock)
    now: datetime = clock()
    with store.write() as tx:
        for account in (ACCOUNT, OTHER):
            keys = cloud.root(account)
            tx.put(Account(id=account, account=account, created=now))
            tx.put(AccessKey(id=keys.access_key, account=account, created=now, secret=keys.secret_key))
    try:
        yield cloud
    finally:
        store.close()

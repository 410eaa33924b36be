"""Credentials that expire: an access key id ASIA..., a secret key, and a session token that carries both.

    Session ──seal──► token = base64(MAC, deflated JSON of the session)
                      secret key = MAC'(token)                           nothing of it is stored

The token says who the session is and until when, and only the deployment can have made it; the secret key follows from
the token and the deployment's secret. So credentials need no row, and whoever may read the store, as the metadata
server may, can make those of an instance: the same ones whenever it is asked, until the next are due.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import zlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from orchestrator.model.errors import EC2Error

META_NAME: Final = "session-secret"  # the name of the deployment's secret among the store's meta values
_MAC_BYTES: Final = 32
_MAX_TOKEN: Final = 8192
_MAX_SESSION_BYTES: Final = 64 << 10

INSTANCE_SESSION_S: Final = 6 * 3600
INSTANCE_RENEWAL_S: Final = 3600  # new ones are made this often, so a guest always finds hours in what it reads


class TokenError(Exception):
    """The session token is none of this deployment's."""


class Meta(Protocol):
    """The part of a store in which the secret is."""

    def meta(self, name: str) -> str | None: ...

    def set_meta(self, name: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """`principal` is the id of a role or a user, empty for the account's root. Times are seconds since 1970."""

    access_key: str
    account: str
    principal: str
    name: str = ""  # of a role's session
    issued: int
    expires: int
    policies: tuple[str, ...] = ()  # documents beyond which the session does not reach
    instance: str = ""  # to which these were given

    @property
    def issued_at(self) -> datetime:
        return datetime.fromtimestamp(self.issued, UTC)

    @property
    def expires_at(self) -> datetime:
        return datetime.fromtimestamp(self.expires, UTC)


@dataclass(frozen=True, slots=True)
class Credentials:
    session: Session
    secret_key: str
    token: str


def deployment_secret(store: Meta) -> bytes | None:
    """None before it has been made."""
    found = store.meta(META_NAME)
    return bytes.fromhex(found) if found else None


def make_deployment_secret(store: Meta) -> bytes:
    """The deployment's, made if there is none yet."""
    found = deployment_secret(store)
    if found is None:
        found = secrets.token_bytes(32)
        store.set_meta(META_NAME, found.hex())
    return found


def derive(secret: bytes, purpose: str, *parts: bytes) -> bytes:
    """32 bytes for one purpose only."""
    key = hmac.digest(secret, purpose.encode(), "sha256")
    return hmac.digest(key, b"".join(hashlib.sha256(part).digest() for part in parts), "sha256")


def seal(secret: bytes, session: Session) -> Credentials:
    """Raises PackedPolicyTooLarge for policies with which `open_token` could not read it again."""
    text = json.dumps(asdict(session), separators=(",", ":")).encode()
    if len(text) > _MAX_SESSION_BYTES:  # blanks count too, however well they deflate
        raise EC2Error(
            "PackedPolicyTooLarge",
            f"The session would have {len(text)} bytes with its policies: it may have {_MAX_SESSION_BYTES}",
        )
    body = zlib.compress(text, 9)
    token = base64.b64encode(derive(secret, "session token", body) + body).decode()
    return Credentials(session, _secret_key(secret, token), token)


def open_token(secret: bytes, token: str) -> Credentials:
    """What a token says, proven. Whether it has expired is not looked at. Raises TokenError."""
    try:
        raw = base64.b64decode(token, validate=True) if len(token) <= _MAX_TOKEN else b""
    except (binascii.Error, ValueError):
        raw = b""
    proof, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if len(proof) < _MAC_BYTES or not hmac.compare_digest(proof, derive(secret, "session token", body)):
        raise TokenError("The security token included in the request is invalid")
    found = json.loads(zlib.decompressobj().decompress(body, _MAX_SESSION_BYTES))
    # Base64 has several spellings of one thing; the secret key is that of the one that was given out.
    spelled = base64.b64encode(raw).decode()
    return Credentials(
        Session(**{**found, "policies": tuple(found["policies"])}), _secret_key(secret, spelled), spelled
    )


def _secret_key(secret: bytes, token: str) -> str:
    return base64.b64encode(derive(secret, "secret access key", token.encode()))[:40].decode()


def new_access_key_id() -> str:
    return "ASIA" + base64.b32encode(secrets.token_bytes(10)).decode()


def instance_credentials(secret: bytes, account: str, role_id: str, instance_id: str, now: datetime) -> Credentials:
    """Those of a role that an instance reads from its metadata now."""
    issued = int(now.timestamp()) // INSTANCE_RENEWAL_S * INSTANCE_RENEWAL_S
    unique = derive(secret, "instance access key", role_id.encode(), instance_id.encode(), str(issued).encode())
    return seal(
        secret,
        Session(
            access_key="ASIA" + base64.b32encode(unique[:10]).decode(),
            account=account,
            principal=role_id,
            name=instance_id,
            issued=issued,
            expires=issued + INSTANCE_SESSION_S,
            instance=instance_id,
        ),
    )

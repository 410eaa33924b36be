"""IMDSv2's session tokens. Nothing is stored per token: each carries its own end, sealed for one instance.

    expiry in ms (6) | nonce (11) | HMAC-SHA256 over these and the instance id, cut to 200 bits (25)
    42 bytes, in base64url 56 characters, as long as Amazon's

The secret is the deployment's, so tokens outlive a restart of the controller.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable
from datetime import datetime

MIN_TTL_S = 1
MAX_TTL_S = 21600
SECRET_BYTES = 32

_EXPIRY_BYTES = 6
_NONCE_BYTES = 11
_SEAL_BYTES = 25
_BODY_BYTES = _EXPIRY_BYTES + _NONCE_BYTES
TOKEN_CHARACTERS = (_BODY_BYTES + _SEAL_BYTES) * 4 // 3


class Tokens:
    def __init__(self, secret: bytes, clock: Callable[[], datetime]) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"the secret of metadata tokens has {len(secret)} bytes, not {SECRET_BYTES}")
        self._secret = secret
        self._clock = clock

    def mint(self, instance_id: str, ttl_s: int) -> str:
        expiry = self._now_ms() + ttl_s * 1000
        body = expiry.to_bytes(_EXPIRY_BYTES, "big") + secrets.token_bytes(_NONCE_BYTES)
        return base64.urlsafe_b64encode(body + self._seal(instance_id, body)).decode("ascii")

    def check(self, instance_id: str, token: str) -> bool:
        """Whether `token` was made for this instance and has not ended. Takes the same time for every wrong one."""
        if len(token) != TOKEN_CHARACTERS:
            return False
        try:
            raw = base64.b64decode(token, altchars=b"-_", validate=True)
        except ValueError:
            return False
        body, seal = raw[:_BODY_BYTES], raw[_BODY_BYTES:]
        sealed = hmac.compare_digest(seal, self._seal(instance_id, body))
        return sealed and self._now_ms() < int.from_bytes(body[:_EXPIRY_BYTES], "big")

    def _seal(self, instance_id: str, body: bytes) -> bytes:
        return hmac.digest(self._secret, body + instance_id.encode(), "sha256")[:_SEAL_BYTES]

    def _now_ms(self) -> int:
        return int(self._clock().timestamp() * 1000)

"""Key pairs: the public half, by name. The private half is given once and never kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orchestrator.model.resource import Resource


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPair(Resource):
    KIND: ClassVar[str] = "key-pair"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "name")

    name: str
    key_type: str  # rsa | ed25519
    fingerprint: (
        str  # rsa made here: SHA-1 of the DER private key; imported rsa: MD5 of the DER public key; ed25519: SHA-256
    )
    public_key: str  # one line in OpenSSH's format

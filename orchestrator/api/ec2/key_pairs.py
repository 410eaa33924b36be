"""Key pairs: made here, or imported; only the public half is kept.

A name is unique in an account's region. Fingerprints are EC2's, by origin.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_ssh_public_key,
)

from orchestrator.api.operation import Answer, Call, choose, operation
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of, unsupported
from orchestrator.model.filters import FilterTable
from orchestrator.model.key_pair import KeyPair
from orchestrator.model.tags import tag_set, tags_at_creation

PublicKey = RSAPublicKey | Ed25519PublicKey
PrivateKey = RSAPrivateKey | Ed25519PrivateKey

MAX_KEY_PAIRS: Final = 5000
MAX_NAME: Final = 255
MAX_MATERIAL_BYTES: Final = 16 * 1024
RSA_BITS: Final = 2048
IMPORTED_RSA_BITS: Final = range(1024, 4096 + 1)

_ACCEPTED: Final = (
    "an RSA (1024 to 4096 bits) or ED25519 public key: one line of OpenSSH's, RFC 4716, or DER in base64 or PEM"
)


def find_key_pair(call: Call, name: str) -> KeyPair:
    """The caller's key pair of that name in this region, or InvalidKeyPair.NotFound."""
    found = _named(call, name)
    if found is None:
        raise EC2Error("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
    return found


def _named(call: Call, name: str) -> KeyPair | None:
    return next(iter(call.mine(KeyPair, name=name, account=call.account)), None)


def _generate(params: Mapping[str, Any]) -> PrivateKey:
    """A large RSA key takes a tenth of a second: nobody should wait for the store meanwhile."""
    if params.get("KeyType") == "ed25519":
        return Ed25519PrivateKey.generate()
    return generate_private_key(public_exponent=65537, key_size=RSA_BITS)


@operation("CreateKeyPair", writes=True, beforehand=_generate)
def create_key_pair(
    call: Call,
    *,
    key_name: str,
    key_type: str = "rsa",
    key_format: str = "pem",
    tag_specifications: list[Answer] | None = None,
) -> Answer:
    one_of("KeyType", key_type, ("rsa", "ed25519"))
    if key_format == "ppk":
        raise unsupported("The key format ppk is not made here: use pem, which PuTTYgen converts")
    one_of("KeyFormat", key_format, ("pem",))
    _check_name(call, key_name)
    tags = tags_at_creation(tag_specifications, "key-pair")["key-pair"]
    private: PrivateKey = call.prepared
    layout = PrivateFormat.TraditionalOpenSSL if key_type == "rsa" else PrivateFormat.OpenSSH
    kept = _keep(call, key_name, private.public_key(), fingerprint_of_private(private), tags)
    # EC2's material has no line feed at its end; OpenSSH's own format is not read without one.
    material = private.private_bytes(Encoding.PEM, layout, NoEncryption()).decode()
    return {
        **_show(kept),
        "KeyMaterial": material.rstrip("\n") if key_type == "rsa" else material,
    }


@operation("ImportKeyPair", writes=True)
def import_key_pair(
    call: Call, *, key_name: str, public_key_material: bytes, tag_specifications: list[Answer] | None = None
) -> Answer:
    _check_name(call, key_name)
    key = read_public_key(public_key_material)
    tags = tags_at_creation(tag_specifications, "key-pair")["key-pair"]
    return _show(_keep(call, key_name, key, fingerprint_of_public(key), tags))


def _check_name(call: Call, name: str) -> None:
    if not name:
        raise missing_parameter("KeyName")
    if len(name) > MAX_NAME or not (name.isascii() and name.isprintable()) or name != name.strip():
        allowed = f"1 to {MAX_NAME} printable ASCII characters, without a space at either end"
        raise invalid_parameter("KeyName", name[:MAX_NAME], allowed)
    if _named(call, name) is not None:
        raise EC2Error("InvalidKeyPair.Duplicate", f"The keypair '{name}' already exists.")
    if len(call.mine(KeyPair)) >= MAX_KEY_PAIRS:
        raise EC2Error("KeyPairLimitExceeded", f"An account has at most {MAX_KEY_PAIRS} key pairs in a region")


def _keep(call: Call, name: str, key: PublicKey, fingerprint: str, tags: dict[str, str]) -> KeyPair:
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return call.tx.put(
        KeyPair(
            id=ids.mint("key"),
            account=call.account,
            region=call.region,
            created=call.now,
            tags=tags,
            name=name,
            key_type="rsa" if isinstance(key, RSAPublicKey) else "ed25519",
            fingerprint=fingerprint,
            public_key=f"{line} {name}",
        )
    )


def _show(key_pair: KeyPair) -> Answer:
    return {
        "KeyPairId": key_pair.id,
        "KeyName": key_pair.name,
        "KeyFingerprint": key_pair.fingerprint,
        "Tags": tag_set(key_pair.tags),
    }


@operation("DescribeKeyPairs", listing=True)
def describe_key_pairs(
    call: Call,
    *,
    key_names: list[str] | None = None,
    key_pair_ids: list[str] | None = None,
    include_public_key: bool = False,
) -> Answer:
    """Names and ids together mean those that are among both."""
    found = call.mine(KeyPair)
    if key_pair_ids:
        found = call.find_all(KeyPair, "key", key_pair_ids)
    if key_names:
        named = {find_key_pair(call, name).id for name in key_names}
        found = [key_pair for key_pair in found if key_pair.id in named]
    return {
        "KeyPairs": [
            {
                **_show(key_pair),
                "KeyType": key_pair.key_type,
                "CreateTime": key_pair.created,
                **({"PublicKey": key_pair.public_key} if include_public_key else {}),
            }
            for key_pair in choose(call, found, KEY_PAIR_FILTERS)
        ]
    }


KEY_PAIR_FILTERS: Final[FilterTable] = {
    "fingerprint": lambda key_pair: key_pair.fingerprint,
    "key-name": lambda key_pair: key_pair.name,
    "key-pair-id": lambda key_pair: key_pair.id,
}


@operation("DeleteKeyPair", writes=True)
def delete_key_pair(call: Call, *, key_name: str | None = None, key_pair_id: str | None = None) -> Answer:
    """One that does not exist is deleted already."""
    if key_pair_id:
        found = call.tx.get(KeyPair, ids.check("key", key_pair_id))
        if found is not None and (not call.sees(found) or key_name not in (None, found.name)):
            found = None
    elif key_name:
        found = _named(call, key_name)
    else:
        raise EC2Error("MissingParameter", "The request must contain the parameter KeyName or KeyPairId")
    if found is None:
        return {"Return": True}
    call.tx.delete(found)
    return {"Return": True, "KeyPairId": found.id}


# --- fingerprints and formats -----------------------------------------------------------------------------------------


def fingerprint_of_private(key: PrivateKey) -> str:
    """Of a key pair made here: for RSA the SHA-1 of the private key in PKCS #8 DER, else that of the public key.

    Source: "Verify the fingerprint of your key pair" in the EC2 user guide.
    """
    if isinstance(key, Ed25519PrivateKey):
        return fingerprint_of_public(key.public_key())
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return _in_pairs(hashlib.sha1(der, usedforsecurity=False).hexdigest())


def fingerprint_of_public(key: PublicKey) -> str:
    """Of an imported key: for RSA the MD5 of the public key in DER, for ED25519 OpenSSH's SHA-256 in base64.

    Source: "Verify the fingerprint of your key pair" in the EC2 user guide.
    """
    if isinstance(key, RSAPublicKey):
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return _in_pairs(hashlib.md5(der, usedforsecurity=False).hexdigest())
    blob = base64.b64decode(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
    return base64.b64encode(hashlib.sha256(blob).digest()).decode()


def _in_pairs(digits: str) -> str:
    return ":".join(digits[position : position + 2] for position in range(0, len(digits), 2))


def read_public_key(material: bytes) -> PublicKey:
    """A public key in any of the formats that ImportKeyPair takes, or InvalidKey.Format.

    Source: "Create a key pair and import the public key to Amazon EC2" in the EC2 user guide, and RFC 4716.
    """
    if len(material) > MAX_MATERIAL_BYTES:
        raise EC2Error("InvalidKey.Format", f"Key is longer than {MAX_MATERIAL_BYTES} bytes. Expected {_ACCEPTED}.")
    try:
        key = _read(material.decode().strip())
    except (ValueError, UnsupportedAlgorithm, binascii.Error) as error:
        raise EC2Error("InvalidKey.Format", f"Key is not in a valid format. Expected {_ACCEPTED}.") from error
    if isinstance(key, RSAPublicKey) and key.key_size not in IMPORTED_RSA_BITS:
        raise EC2Error("InvalidKey.Format", f"Key has {key.key_size} bits. Expected {_ACCEPTED}.")
    return key


def _read(text: str) -> PublicKey:
    key: object
    if text.startswith("---- BEGIN SSH2 PUBLIC KEY ----"):
        key = load_ssh_public_key(_unwrap_rfc4716(text))
    elif text.startswith("ssh-"):
        # The comment is not kept: EC2 puts the key pair's name in its place.
        if len(text.splitlines()) > 1 or len(text.split()) < 2:
            raise ValueError("one line is one key")
        algorithm, blob = text.split()[:2]
        key = load_ssh_public_key(f"{algorithm} {blob}".encode())
    else:
        key = load_der_public_key(base64.b64decode(_unwrap_pem(text), validate=True))
    if not isinstance(key, RSAPublicKey | Ed25519PublicKey):
        raise ValueError("neither RSA nor ED25519")
    return key


_RFC4716_HEADER: Final = re.compile(r"^[^\s:]{1,64}:")


def _unwrap_rfc4716(text: str) -> bytes:
    """RFC 4716 as OpenSSH's one line: headers, whose lines may be continued by a backslash, come before the body."""
    _, *lines, last = (line.rstrip() for line in text.splitlines())
    if last != "---- END SSH2 PUBLIC KEY ----":
        raise ValueError("no end")
    while lines and _RFC4716_HEADER.match(lines[0]):
        while lines and lines.pop(0).endswith("\\"):
            pass
    body = "".join(lines)
    blob = base64.b64decode(body, validate=True)
    length = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + length] + b" " + body.encode()


def _unwrap_pem(text: str) -> str:
    """The base64 within a PEM frame, or of a text that has none."""
    framed = re.fullmatch(r"-----BEGIN PUBLIC KEY-----(.*)-----END PUBLIC KEY-----", text, re.DOTALL)
    return "".join((framed[1] if framed else text).split())

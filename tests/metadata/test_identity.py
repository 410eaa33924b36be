"""Signatures, checked as a third party would check them: with the certificate alone."""

from __future__ import annotations

import base64
import stat
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from orchestrator.metadata.identity import Identity, keep

DOCUMENT = b'{\n  "instanceId" : "i-00000000000000001"\n}'
DIGEST_OID = bytes.fromhex("06092a864886f70d010904")  # PKCS #9 messageDigest


def public_key(identity: Identity) -> RSAPublicKey:
    key = identity.certificate.public_key()
    assert isinstance(key, RSAPublicKey)
    return key


def items(der: bytes) -> list[tuple[int, bytes, bytes]]:
    """(tag, contents, whole) of each DER element in `der`."""
    found = []
    while der:
        size, head = der[1], 2
        if size & 0x80:
            head += size & 0x7F
            size = int.from_bytes(der[2:head], "big")
        found.append((der[0], der[head : head + size], der[: head + size]))
        der = der[head + size :]
    return found


def test_the_signature_is_checked_with_the_certificate(tmp_path: Path, clock: Callable[[], datetime]) -> None:
    identity = Identity(tmp_path, clock)
    signature = base64.b64decode(identity.signature(DOCUMENT))
    public_key(identity).verify(signature, DOCUMENT, PKCS1v15(), SHA256())
    with pytest.raises(InvalidSignature):
        public_key(identity).verify(signature, DOCUMENT + b" ", PKCS1v15(), SHA256())


def test_pkcs7_holds_the_document_and_is_signed(tmp_path: Path, clock: Callable[[], datetime]) -> None:
    """By RFC 2315 the digest of the contents is a signed attribute, and what is signed is the SET of attributes."""
    identity = Identity(tmp_path, clock)
    [(_, envelope, _)] = items(base64.b64decode(identity.pkcs7(DOCUMENT)))
    [(_, explicit, _)] = [item for item in items(envelope) if item[0] == 0xA0]
    [(_, signed_data, _)] = items(explicit)
    _version, _digests, (_, contents, _), *certificates, (_, signers, _) = items(signed_data)
    assert certificates == []
    [_, (_, wrapped, _)] = items(contents)
    assert items(wrapped)[0][1] == DOCUMENT
    [(_, signer, _)] = items(signers)
    parts = items(signer)
    [attributes] = [whole for tag, _, whole in parts if tag == 0xA0]
    [signature] = [body for tag, body, _ in parts if tag == 0x04]
    [digest] = [body for _, body, _ in items(items(attributes)[0][1]) if body.startswith(DIGEST_OID)]
    assert digest.endswith(sha256(DOCUMENT).digest())
    public_key(identity).verify(signature, b"\x31" + attributes[1:], PKCS1v15(), SHA256())


def test_they_stay_the_same_over_a_restart(tmp_path: Path, clock: Callable[[], datetime]) -> None:
    first = Identity(tmp_path, clock)
    second = Identity(tmp_path, clock)
    assert first.signature(DOCUMENT) == second.signature(DOCUMENT)
    assert first.certificate == second.certificate


def test_a_certificate_that_was_lost_is_made_again_for_the_same_key(
    tmp_path: Path, clock: Callable[[], datetime]
) -> None:
    signature = base64.b64decode(Identity(tmp_path, clock).signature(DOCUMENT))
    (tmp_path / "certificate.pem").unlink()
    public_key(Identity(tmp_path, clock)).verify(signature, DOCUMENT, PKCS1v15(), SHA256())


def test_a_document_is_signed_once(tmp_path: Path, clock: Callable[[], datetime]) -> None:
    identity = Identity(tmp_path, clock)
    assert identity.pkcs7(DOCUMENT) is identity.pkcs7(bytes(DOCUMENT))


def test_secrets_are_the_owners_alone(tmp_path: Path, clock: Callable[[], datetime]) -> None:
    directory = tmp_path / "identity"
    Identity(directory, clock).signature(DOCUMENT)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert sorted(path.name for path in directory.iterdir()) == ["certificate.pem", "key.pem"]


def test_what_is_kept_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "secret"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "secret.new").write_bytes(b"half of one from before a ki")
    assert keep(path, lambda: b"one") == b"one"
    assert keep(path, lambda: b"two") == b"one" == path.read_bytes()
    assert sorted(each.name for each in path.parent.iterdir()) == ["secret"]

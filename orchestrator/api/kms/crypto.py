"""What keys are for: small secrets encrypted and decrypted, data keys made, random bytes.

    a ciphertext    1  the key's id (16 bytes)  nonce (12)  AES-256-GCM: the secret, a tag (16)

So a ciphertext says which key it needs. Its encryption context is the additional data: it must be the same again.
Nothing here writes, so no plaintext comes near an audit event.
"""

from __future__ import annotations

import secrets
from uuid import UUID

from orchestrator.api.kms.lookup import check_state, find_key, find_usable_key, invalid
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import EC2Error
from orchestrator.model.kms import DESTROYED, ENABLED, Key, KeyUnavailable

ALGORITHM = "SYMMETRIC_DEFAULT"

_VERSION = b"\x01"
_HEAD_BYTES = len(_VERSION) + 16
_SMALLEST_BYTES = _HEAD_BYTES + 12 + 16
_DATA_KEY_BYTES = {"AES_256": 32, "AES_128": 16}


@operation("Encrypt", service="kms")
def encrypt(
    call: Call,
    *,
    key_id: str,
    plaintext: bytes,
    encryption_context: dict[str, str] | None = None,
    grant_tokens: list[str] | None = None,
    encryption_algorithm: str = ALGORITHM,
) -> Answer:
    _check_algorithm(encryption_algorithm)
    key = find_usable_key(call, key_id)
    sealed = _seal(call, key, plaintext, encryption_context)
    return {"CiphertextBlob": sealed, "KeyId": key.arn, "EncryptionAlgorithm": ALGORITHM}


@operation("Decrypt", service="kms")
def decrypt(
    call: Call,
    *,
    ciphertext_blob: bytes | None = None,
    encryption_context: dict[str, str] | None = None,
    grant_tokens: list[str] | None = None,
    key_id: str | None = None,
    encryption_algorithm: str = ALGORITHM,
) -> Answer:
    _check_algorithm(encryption_algorithm)
    key, plaintext = _open(call, ciphertext_blob, encryption_context, key_id)
    return {"Plaintext": plaintext, "KeyId": key.arn, "EncryptionAlgorithm": ALGORITHM}


@operation("ReEncrypt", service="kms")
def re_encrypt(
    call: Call,
    *,
    destination_key_id: str,
    ciphertext_blob: bytes | None = None,
    source_encryption_context: dict[str, str] | None = None,
    source_key_id: str | None = None,
    destination_encryption_context: dict[str, str] | None = None,
    source_encryption_algorithm: str = ALGORITHM,
    destination_encryption_algorithm: str = ALGORITHM,
    grant_tokens: list[str] | None = None,
) -> Answer:
    _check_algorithm(source_encryption_algorithm)
    _check_algorithm(destination_encryption_algorithm)
    source, plaintext = _open(call, ciphertext_blob, source_encryption_context, source_key_id)
    key = find_usable_key(call, destination_key_id)
    return {
        "CiphertextBlob": _seal(call, key, plaintext, destination_encryption_context),
        "SourceKeyId": source.arn,
        "KeyId": key.arn,
        "SourceEncryptionAlgorithm": ALGORITHM,
        "DestinationEncryptionAlgorithm": ALGORITHM,
    }


@operation("GenerateDataKey", service="kms")
def generate_data_key(
    call: Call,
    *,
    key_id: str,
    encryption_context: dict[str, str] | None = None,
    number_of_bytes: int | None = None,
    key_spec: str | None = None,
    grant_tokens: list[str] | None = None,
) -> Answer:
    key, plaintext, sealed = _new_data_key(call, key_id, encryption_context, number_of_bytes, key_spec)
    return {"CiphertextBlob": sealed, "Plaintext": plaintext, "KeyId": key.arn}


@operation("GenerateDataKeyWithoutPlaintext", service="kms")
def generate_data_key_without_plaintext(
    call: Call,
    *,
    key_id: str,
    encryption_context: dict[str, str] | None = None,
    key_spec: str | None = None,
    number_of_bytes: int | None = None,
    grant_tokens: list[str] | None = None,
) -> Answer:
    key, _, sealed = _new_data_key(call, key_id, encryption_context, number_of_bytes, key_spec)
    return {"CiphertextBlob": sealed, "KeyId": key.arn}


@operation("GenerateRandom", service="kms")
def generate_random(call: Call, *, number_of_bytes: int | None = None) -> Answer:
    if number_of_bytes is None:
        raise invalid("NumberOfBytes is required: from 1 to 1024")
    return {"Plaintext": secrets.token_bytes(number_of_bytes)}


def _check_algorithm(name: str) -> None:
    if name != ALGORITHM:
        raise EC2Error("InvalidKeyUsageException", f"The algorithm {name} is not one of this key: only {ALGORITHM} is")


def _new_data_key(
    call: Call, key_id: str, context: dict[str, str] | None, number_of_bytes: int | None, key_spec: str | None
) -> tuple[Key, bytes, bytes]:
    if (number_of_bytes is None) == (key_spec is None):
        raise invalid("Name either NumberOfBytes, from 1 to 1024, or KeySpec")
    if key_spec is not None and key_spec not in _DATA_KEY_BYTES:
        raise invalid(f"KeySpec '{key_spec}' is not one of {', '.join(_DATA_KEY_BYTES)}")
    key = find_usable_key(call, key_id)
    plaintext = secrets.token_bytes(number_of_bytes or _DATA_KEY_BYTES[key_spec or "AES_256"])
    return key, plaintext, _seal(call, key, plaintext, context)


def _seal(call: Call, key: Key, plaintext: bytes, context: dict[str, str] | None) -> bytes:
    try:
        return _VERSION + UUID(key.id).bytes + call.keys.encrypt(key, plaintext, context or {})
    except KeyUnavailable as error:
        raise EC2Error("KMSInternalException", str(error), 500) from error


def key_id_of(ciphertext: bytes) -> str | None:
    """The id of the key that a ciphertext says it needs; None for what is none of ours."""
    if len(ciphertext) < _SMALLEST_BYTES or not ciphertext.startswith(_VERSION):
        return None
    return str(UUID(bytes=ciphertext[len(_VERSION) : _HEAD_BYTES]))


def _open(call: Call, ciphertext: bytes | None, context: dict[str, str] | None, named: str | None) -> tuple[Key, bytes]:
    """The key that a ciphertext needs, which must be the `named` one if there is one, and the secret."""
    if ciphertext is None:
        raise invalid("CiphertextBlob is required")
    wanted = find_key(call, named, by_alias=True, shared=True) if named else None
    key_id = key_id_of(ciphertext)
    if key_id is None:
        raise EC2Error("InvalidCiphertextException", "The ciphertext was not made here, or is damaged")
    if wanted is not None and wanted.id != key_id:
        raise EC2Error("IncorrectKeyException", f"{wanted.arn} is not the key that this ciphertext was made with")
    key = call.db.get(Key, key_id)
    if key is None or key.region != call.region or key.state == DESTROYED:
        raise EC2Error(
            "AccessDeniedException",
            "The ciphertext needs a key that does not exist, is of another region, or is not yours",
        )
    check_state(key, (ENABLED,))
    try:
        return key, call.keys.decrypt(key, ciphertext[_HEAD_BYTES:], context or {})
    except KeyUnavailable as error:
        raise EC2Error(
            "InvalidCiphertextException", "The ciphertext is damaged, or was made in another encryption context"
        ) from error

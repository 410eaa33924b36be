"""Writes the LUKS header of an encrypted layer: what opens it, and the key that its clusters are encrypted with.

QEMU writes one as well, but takes seconds for it: it measures how many rounds of hashing a guesser's patience is worth.
Our passphrases are 256 random bits, which nobody guesses, so the fewest rounds that are allowed do.

    0       the header: algorithms, digest of the volume key, eight key slots of which the first is used
    4096    the volume key, split into 4000 stripes and encrypted with what PBKDF2 makes of the passphrase
    ...     room of the other slots, never written

After the LUKS1 On-Disk Format Specification 1.2.3; the algorithms are those that QEMU chooses. Each layer has a volume
key of its own, also where passphrases are the same.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import struct
import uuid

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import XTS

_SECTOR = 512
_KEY_BYTES = 64  # AES-256 in XTS takes two keys
_STRIPES = 4000
_ROUNDS = 1000  # of PBKDF2; QEMU takes no fewer
_SALT_BYTES = 32
_SLOTS = 8
_FIRST_SLOT_SECTOR = 8
_SLOT_SECTORS = 504  # _KEY_BYTES * _STRIPES, rounded up to pages
_ENABLED, _DISABLED = 0x00AC71F3, 0x0000DEAD

# What is reserved for a header in a file.
LUKS_BYTES = (_FIRST_SLOT_SECTOR + _SLOTS * _SLOT_SECTORS) * _SECTOR


def make_luks(passphrase: str) -> bytes:
    """A header with a new volume key, which `passphrase` opens. It goes on with zeros, up to LUKS_BYTES."""
    volume_key = secrets.token_bytes(_KEY_BYTES)
    digest_salt, slot_salt = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha256", volume_key, digest_salt, _ROUNDS, 20)
    slot_key = hashlib.pbkdf2_hmac("sha256", passphrase.encode(), slot_salt, _ROUNDS, _KEY_BYTES)
    header = struct.pack(
        ">6sH32s32s32sII20s32sI40s",
        b"LUKS\xba\xbe",
        1,
        b"aes",
        b"xts-plain64",
        b"sha256",
        LUKS_BYTES // _SECTOR,
        _KEY_BYTES,
        digest,
        digest_salt,
        _ROUNDS,
        str(uuid.uuid4()).encode(),
    )
    for slot in range(_SLOTS):
        header += struct.pack(
            ">II32sII",
            _DISABLED if slot else _ENABLED,
            0 if slot else _ROUNDS,
            bytes(_SALT_BYTES) if slot else slot_salt,
            _FIRST_SLOT_SECTOR + slot * _SLOT_SECTORS,
            _STRIPES,
        )
    return header.ljust(_FIRST_SLOT_SECTOR * _SECTOR, b"\0") + _encrypt(slot_key, _split(volume_key))


def _split(key: bytes) -> bytes:
    """Spread over so many stripes that one which is lost loses the key (the specification's AFsplit)."""
    noise = os.urandom((_STRIPES - 1) * _KEY_BYTES)
    half = _KEY_BYTES // 2  # what sha256 gives
    mixed = 0
    for at in range(0, len(noise), _KEY_BYTES):
        block = (mixed ^ int.from_bytes(noise[at : at + _KEY_BYTES])).to_bytes(_KEY_BYTES)
        mixed = int.from_bytes(
            hashlib.sha256(b"\0\0\0\0" + block[:half]).digest() + hashlib.sha256(b"\0\0\0\1" + block[half:]).digest()
        )
    return noise + (mixed ^ int.from_bytes(key)).to_bytes(_KEY_BYTES)


def _encrypt(key: bytes, data: bytes) -> bytes:
    """Sector by sector, from number 0."""
    algorithm = AES(key)
    sectors = []
    for number, at in enumerate(range(0, len(data), _SECTOR)):
        encryptor = Cipher(algorithm, XTS(number.to_bytes(16, "little"))).encryptor()
        sectors.append(encryptor.update(data[at : at + _SECTOR]))
    return b"".join(sectors)

"""What is done with keys: material, data keys and small secrets are wrapped and unwrapped here, and nowhere else.

All of it is AES-256-GCM. What is wrapped is bound to what it is for by the additional data, so that one wrapped secret
cannot be passed off as another.

The master key is 32 random bytes, made at first use and kept in `master`, a JSON document for root alone:

    {"master": BASE64}                                             plain: the file's mode is all that protects it
    {"wrapped": BASE64, "scrypt": {"n", "r", "p", "salt"}}         wrapped by a key that scrypt makes of a passphrase

The file is never seen by halves: it is written beside its place, synced, and then put there.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from orchestrator.model.kms import DESTROYED, ENABLED, Key, KeyUnavailable

_NONCE_BYTES = 12
_KEY_BYTES = 32
_SCRYPT = {"n": 1 << 16, "r": 8, "p": 1}  # 64 MiB, a few tenths of a second: once per start
_SCRYPT_LARGEST_N = 1 << 22


class KeyFileError(Exception):
    """The master key cannot be had: the message says why and what to do."""


class KeyRing:
    """The model's `Keys`. `master` is 32 bytes."""

    def __init__(self, master: bytes) -> None:
        self._master = AESGCM(master)

    def new_material(self) -> str:
        return _text(_seal(self._master, secrets.token_bytes(_KEY_BYTES), b"material"))

    def new_data_key(self, key: Key) -> str:
        return _text(_seal(self._materials(key)[0], secrets.token_bytes(_KEY_BYTES), b"data key"))

    def unwrap(self, key: Key, data_key: str) -> bytes:
        what = f"the data key is not one of key {key.id}"
        return _open_any(self._materials(key), _bytes(data_key), b"data key", what)

    def encrypt(self, key: Key, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        return _seal(self._materials(key)[0], plaintext, _context(context))

    def decrypt(self, key: Key, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        what = f"this was not encrypted by key {key.id} in this context"
        return _open_any(self._materials(key), ciphertext, _context(context), what)

    def _materials(self, key: Key) -> list[AESGCM]:
        """The newest, which wraps, and then those before it."""
        if not key.material or key.state == DESTROYED:
            raise KeyUnavailable(f"the key {key.id} has been destroyed")
        if key.state != ENABLED:
            raise KeyUnavailable(f"the key {key.id} cannot be used: it is {key.state}")
        what = f"the key {key.id} is wrapped by another master key than this deployment's: is its key file another's?"
        return [
            AESGCM(_open(self._master, _bytes(wrapped), b"material", what))
            for wrapped in (key.material, *key.earlier_materials)
        ]


# --- the file ---------------------------------------------------------------------------------------------------------


def open_key_ring(directory: Path, passphrase_file: Path | None = None) -> KeyRing:
    """The key ring of a deployment, whose master key is in `directory`/master, made if it is not there.

    `passphrase_file` has the passphrase that protects it; None for one that none protects. Raises KeyFileError.
    """
    passphrase = _read_passphrase(passphrase_file) if passphrase_file else None
    with _locked(directory):
        path = directory / "master"
        if not path.exists():
            _write(path, _document(secrets.token_bytes(_KEY_BYTES), passphrase))
        return KeyRing(_read_master(path, passphrase, passphrase_file))


def change_passphrase(directory: Path, current_file: Path | None, new_file: Path | None) -> None:
    """Have the passphrase in `new_file` protect the master key from now on, or none. Raises KeyFileError.

    The master key stays what it is, so a running controller does not notice. The old file's blocks are written over,
    as far as the file system writes in place.
    """
    new = _read_passphrase(new_file) if new_file else None
    current = _read_passphrase(current_file) if current_file else None
    if not (directory / "master").exists():
        raise KeyFileError(f"there is no {directory / 'master'} yet: `orc serve` makes it at its first start")
    with _locked(directory):
        path = directory / "master"
        protected = "wrapped" in _parse(path)
        master = _read_master(path, current if protected else None, current_file)
        with open(path, "r+b") as old:
            _write(path, _document(master, new))
            old.write(bytes(os.fstat(old.fileno()).st_size))
            old.flush()
            os.fsync(old.fileno())


def is_protected(directory: Path) -> bool:
    """Whether a passphrase protects the master key. Raises KeyFileError."""
    path = directory / "master"
    return path.exists() and "wrapped" in _parse(path)


def _read_master(path: Path, passphrase: bytes | None, passphrase_file: Path | None) -> bytes:
    document = _parse(path)
    try:
        if "wrapped" not in document:
            if passphrase is not None:
                raise KeyFileError(
                    f"{path} is not protected by a passphrase, though keys.passphrase_file is {passphrase_file}: "
                    f"protect it by `orc key-store passphrase {passphrase_file}`, or take keys.passphrase_file out"
                )
            master = base64.b64decode(document["master"], validate=True)
        else:
            if passphrase is None:
                raise KeyFileError(
                    f"{path} is protected by a passphrase: name the file that has it in keys.passphrase_file"
                )
            cipher = AESGCM(_derive(passphrase, document["scrypt"]))
            sealed = base64.b64decode(document["wrapped"], validate=True)
            master = _open(cipher, sealed, b"master", "")
    except KeyUnavailable:
        raise KeyFileError(f"the passphrase in {passphrase_file} is not the one that protects {path}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path) from error
    if len(master) != _KEY_BYTES:
        raise _damaged(path)
    return master


def _damaged(path: Path) -> KeyFileError:
    return KeyFileError(f"{path} is damaged: restore it from a backup. What its keys encrypt cannot be read without it")


def _parse(path: Path) -> dict[str, Any]:
    try:
        mode = path.stat().st_mode
        text = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise KeyFileError(f"{path} may be read by others than its owner: `chmod 600 {path}`")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(document, dict):
        raise _damaged(path)
    return document


def _document(master: bytes, passphrase: bytes | None) -> dict[str, Any]:
    if passphrase is None:
        return {"master": _text(master)}
    scrypt = {**_SCRYPT, "salt": _text(secrets.token_bytes(16))}
    return {"wrapped": _text(_seal(AESGCM(_derive(passphrase, scrypt)), master, b"master")), "scrypt": scrypt}


def _derive(passphrase: bytes, scrypt: Mapping[str, Any]) -> bytes:
    n, r, p = (int(scrypt[name]) for name in ("n", "r", "p"))
    if not (n <= _SCRYPT_LARGEST_N and r <= 32 and p <= 16):
        raise ValueError("unreasonable cost")
    salt = base64.b64decode(scrypt["salt"], validate=True)
    return Scrypt(salt=salt, length=_KEY_BYTES, n=n, r=r, p=p).derive(passphrase)


def _read_passphrase(path: Path) -> bytes:
    """The file's content without the end of its line."""
    try:
        mode = path.stat().st_mode
        passphrase = path.read_bytes().removesuffix(b"\n").removesuffix(b"\r")
    except OSError as error:
        raise KeyFileError(f"the passphrase file {path} cannot be read: {error.strerror}") from error
    if mode & 0o077:
        raise KeyFileError(f"the passphrase file {path} may be read by others than its owner: `chmod 600 {path}`")
    if not passphrase:
        raise KeyFileError(f"the passphrase file {path} is empty")
    return passphrase


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """In one go: whoever looks finds the old file or the new one. Only under the directory's lock."""
    fresh = path.with_name(path.name + ".new")
    with suppress(FileNotFoundError):
        fresh.unlink()  # somebody was ended here
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process at a time looks at the file and changes it."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(f"{directory} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    except OSError as error:
        raise KeyFileError(f"the master key in {directory} cannot be written: {error.strerror}") from error
    finally:
        os.close(held)


# --- wrapping ---------------------------------------------------------------------------------------------------------


def _seal(cipher: AESGCM, plaintext: bytes, about: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, plaintext, about)


def _open(cipher: AESGCM, sealed: bytes, about: bytes, what: str) -> bytes:
    try:
        return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about)
    except (InvalidTag, ValueError) as error:
        raise KeyUnavailable(what) from error


def _open_any(ciphers: list[AESGCM], sealed: bytes, about: bytes, what: str) -> bytes:
    for cipher in ciphers:
        with suppress(KeyUnavailable):
            return _open(cipher, sealed, about, what)
    raise KeyUnavailable(what)


def _context(context: Mapping[str, str]) -> bytes:
    return b"context" + json.dumps(dict(context), sort_keys=True).encode()


def _text(sealed: bytes) -> str:
    return base64.b64encode(sealed).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""

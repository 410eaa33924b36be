"""What a deployment proves itself with: files made at first use and kept, and the signatures on identity documents.

A guest shows its identity document to a third party, who checks it with the deployment's certificate
(`identity/certificate.pem`), as one does with Amazon's:

    openssl dgst -sha256 -verify KEY -signature SIG document          dynamic/instance-identity/signature, base64
    openssl smime -verify -inform PEM -in P7 -content document \\
        -certfile certificate.pem -noverify                           dynamic/instance-identity/{pkcs7,rsa2048}
"""

from __future__ import annotations

import base64
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7Options, PKCS7SignatureBuilder
from cryptography.x509.oid import NameOID

KEY_BITS = 2048
CERTIFICATE_LIFETIME = timedelta(days=30 * 365)
BASE64_COLUMNS = 64
REMEMBERED = 8192  # signatures; a guest asks for the same ones at every boot


def keep(path: Path, make: Callable[[], bytes]) -> bytes:
    """The contents of `path`, which are made when it is not there. Only the owner may read it; it is never half there.

    The folder is closed to others too. Raises OSError.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    contents = make()
    fresh = path.with_name(path.name + ".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return contents


class Identity:
    """Signs documents with the key in `directory`. It may be used from several threads."""

    def __init__(self, directory: Path, clock: Callable[[], datetime]) -> None:
        self._directory = directory
        self._clock = clock
        self._lock = threading.Lock()
        self._signer: tuple[RSAPrivateKey, x509.Certificate] | None = None
        self._signed: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()

    @property
    def certificate(self) -> x509.Certificate:
        with self._lock:
            return self._load()[1]

    def signature(self, document: bytes) -> bytes:
        """RSA with SHA-256 (PKCS #1 v1.5), in base64."""
        return self._remember("signature", document, lambda key, _: key.sign(document, PKCS1v15(), SHA256()))

    def pkcs7(self, document: bytes) -> bytes:
        """PKCS #7 signed data around `document`, in base64, with no certificate in it: the reader has that already."""

        def sign(key: RSAPrivateKey, certificate: x509.Certificate) -> bytes:
            builder = PKCS7SignatureBuilder().set_data(document).add_signer(certificate, key, SHA256())
            return builder.sign(Encoding.DER, [PKCS7Options.Binary, PKCS7Options.NoCerts])

        return self._remember("pkcs7", document, sign)

    def _remember(self, form: str, document: bytes, sign: Callable[[RSAPrivateKey, x509.Certificate], bytes]) -> bytes:
        with self._lock:
            known = self._signed.get((form, document))
            if known is None:
                known = self._signed[form, document] = _lines(sign(*self._load()))
                if len(self._signed) > REMEMBERED:
                    self._signed.popitem(last=False)
            return known

    def _load(self) -> tuple[RSAPrivateKey, x509.Certificate]:
        if self._signer is None:
            path = self._directory / "key.pem"
            key = load_pem_private_key(keep(path, _new_key), None)
            if not isinstance(key, RSAPrivateKey):
                raise ValueError(f"{path} holds no RSA key: put the old one back, or remove it to have a new one made")
            # It follows from the key: one that was lost between the two is made again.
            pem = keep(self._directory / "certificate.pem", lambda: _certificate(key, self._clock()))
            self._signer = key, x509.load_pem_x509_certificate(pem)
        return self._signer


def _new_key() -> bytes:
    key = generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _certificate(key: RSAPrivateKey, now: datetime) -> bytes:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "orchestrator"),
            x509.NameAttribute(NameOID.COMMON_NAME, "instance identity"),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # guests' clocks differ
        .not_valid_after(now + CERTIFICATE_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def _lines(raw: bytes) -> bytes:
    text = base64.b64encode(raw)
    return b"\n".join(text[at : at + BASE64_COLUMNS] for at in range(0, len(text), BASE64_COLUMNS))

"""Key pairs: what is made, what is imported and how strictly, and fingerprints, as ssh-keygen and openssl have them."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.dsa import generate_private_key as generate_dsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from orchestrator.model.key_pair import KeyPair

from .conftest import Api

RSA = generate_private_key(public_exponent=65537, key_size=2048)
ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def line_of(key: Any) -> bytes:
    written = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert isinstance(written, bytes)
    return written


def pem_of(key: Any) -> bytes:
    written = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert isinstance(written, bytes)
    return written


def rfc4716(line: bytes, *headers: str) -> bytes:
    body = line.split()[1].decode()
    lines = [body[at : at + 70] for at in range(0, len(body), 70)]
    return "\n".join(
        ["---- BEGIN SSH2 PUBLIC KEY ----", *headers, *lines, "---- END SSH2 PUBLIC KEY ----", ""]
    ).encode()


def imported(api: Api, material: bytes, name: str = "mine") -> KeyPair:
    answer = api.call("ImportKeyPair", KeyName=name, PublicKeyMaterial=material)
    kept = api.get(KeyPair, answer["KeyPairId"])
    assert answer == {"KeyPairId": kept.id, "KeyName": name, "KeyFingerprint": kept.fingerprint, "Tags": []}
    return kept


# --- create -----------------------------------------------------------------------------------------------------------


def test_create_rsa(api: Api) -> None:
    made = api.call("CreateKeyPair", KeyName="MyKeyPair")
    material = made["KeyMaterial"]
    assert material.startswith("-----BEGIN RSA PRIVATE KEY-----\n")
    assert material.endswith("\n-----END RSA PRIVATE KEY-----")
    private = load_pem_private_key(material.encode(), None)
    assert isinstance(private, RSAPrivateKey) and private.key_size == 2048
    kept = api.get(KeyPair, made["KeyPairId"])
    assert kept.public_key == line_of(private).decode() + " MyKeyPair"
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert made["KeyFingerprint"].replace(":", "") == hashlib.sha1(der).hexdigest()
    assert made["KeyName"] == "MyKeyPair" and "PRIVATE" not in repr(kept)


def test_create_ed25519(api: Api, tmp_path: Path) -> None:
    made = api.call("CreateKeyPair", KeyName="MyKeyPair", KeyType="ed25519", KeyFormat="pem")
    assert made["KeyMaterial"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    private = load_ssh_private_key(made["KeyMaterial"].encode(), None)
    kept = api.get(KeyPair, made["KeyPairId"])
    assert kept.public_key == line_of(private).decode() + " MyKeyPair" and kept.key_type == "ed25519"
    file = tmp_path / "key"
    file.write_text(made["KeyMaterial"])
    file.chmod(0o600)
    said = subprocess.run(
        ["ssh-keygen", "-l", "-f", file], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert said.split()[1] == "SHA256:" + made["KeyFingerprint"].rstrip("=")


def test_create_with_tags(api: Api) -> None:
    tags = [{"Key": "Name", "Value": "x"}]
    specification = [{"ResourceType": "key-pair", "Tags": tags}]
    made = api.call("CreateKeyPair", KeyName="k", KeyType="ed25519", TagSpecifications=specification)
    assert made["Tags"] == tags
    assert api.call("DescribeKeyPairs", Filters=[{"Name": "tag:Name", "Values": ["x"]}])["KeyPairs"][0]["Tags"] == tags
    wrong = [{"ResourceType": "instance", "Tags": tags}]
    assert api.refused("CreateKeyPair", KeyName="l", TagSpecifications=wrong).code == "InvalidParameterValue"


def test_names(api: Api) -> None:
    api.call("CreateKeyPair", KeyName="k" * 255, KeyType="ed25519")
    error = api.refused("CreateKeyPair", KeyName="k" * 255, KeyType="ed25519")
    assert error.code == "InvalidKeyPair.Duplicate"
    assert api.refused("ImportKeyPair", KeyName="k" * 255, PublicKeyMaterial=line_of(RSA)).code == error.code
    for wrong in ("k" * 256, " k", "k ", "ké", "k\n"):
        assert api.refused("CreateKeyPair", KeyName=wrong, KeyType="ed25519").code == "InvalidParameterValue"
    assert api.refused("CreateKeyPair", KeyName="").code == "MissingParameter"
    for elsewhere in (api.by(), api.within("us-west-2")):
        assert elsewhere.call("CreateKeyPair", KeyName="k" * 255, KeyType="ed25519")["KeyPairId"]


def test_what_cannot_be_made_is_said(api: Api) -> None:
    assert api.refused("CreateKeyPair", KeyName="k", KeyType="dsa").code == "InvalidParameterValue"
    assert api.refused("CreateKeyPair", KeyName="k", KeyFormat="jwk").code == "InvalidParameterValue"
    assert api.refused("CreateKeyPair", KeyName="k", KeyFormat="ppk").code == "UnsupportedOperation"
    assert api.refused("CreateKeyPair", KeyName="k", DryRun=True).code == "DryRunOperation"
    assert api.call("DescribeKeyPairs")["KeyPairs"] == []


# --- import -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [RSA, ED25519], ids=["rsa", "ed25519"])
def test_every_format_gives_the_same_key(api: Api, key: Any) -> None:
    line = line_of(key)
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    forms = {
        "line": line,
        "comment": line + " josé@host extra".encode(),
        "line-feed": line + b"\n",
        "rfc4716": rfc4716(line, 'Comment: "a \\', 'longer one"', "Subject: me"),
        "pem": pem_of(key),
        "der": base64.encodebytes(der),
    }
    kept = {name: imported(api, material, name) for name, material in forms.items()}
    for name, pair in kept.items():
        assert pair.public_key == f"{line.decode()} {name}"
    assert len({pair.fingerprint for pair in kept.values()}) == 1


def test_fingerprints_of_imported_keys(api: Api) -> None:
    der = RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert imported(api, line_of(RSA), "rsa").fingerprint.replace(":", "") == hashlib.md5(der).hexdigest()
    blob = base64.b64decode(line_of(ED25519).split()[1])
    expected = base64.b64encode(hashlib.sha256(blob).digest()).decode()
    assert imported(api, line_of(ED25519), "ed25519").fingerprint == expected


def test_what_is_no_public_key_of_these_kinds_is_refused(api: Api) -> None:
    line = line_of(ED25519)
    private = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for wrong in (
        b"",
        b"hello",
        b"\xff\xfe",
        line[:-8],
        line + b"\n" + line,
        line.replace(b"ssh-ed25519", b"ssh-rsa", 1),
        b"ssh-ed25519",
        line_of(generate_ec(SECP256R1())),
        pem_of(generate_ec(SECP256R1())),
        pem_of(generate_dsa(1024)),
        b"ssh-dss AAAA",
        rfc4716(line).replace(b"END", b"FIN"),
        b"---- BEGIN SSH2 PUBLIC KEY ----",
        private,
        b"A" * 20_000,
    ):
        error = api.refused("ImportKeyPair", KeyName="k", PublicKeyMaterial=wrong)
        assert error.code == "InvalidKey.Format", wrong[:40]
        assert "RFC 4716" in error.message


# --- describe ---------------------------------------------------------------------------------------------------------


def test_describe(api: Api) -> None:
    first, second = imported(api, line_of(RSA), "first"), imported(api, line_of(ED25519), "second")
    [shown] = api.call("DescribeKeyPairs", KeyNames=["first"])["KeyPairs"]
    assert shown == {
        "KeyPairId": first.id,
        "KeyName": "first",
        "KeyType": "rsa",
        "KeyFingerprint": first.fingerprint,
        "CreateTime": api.now,
        "Tags": [],
    }
    [shown] = api.call("DescribeKeyPairs", KeyPairIds=[second.id], IncludePublicKey=True)["KeyPairs"]
    assert shown["PublicKey"] == second.public_key
    assert api.call("DescribeKeyPairs", KeyPairIds=[second.id], KeyNames=["first"])["KeyPairs"] == []
    for name, value in (("key-name", "s?cond"), ("key-pair-id", second.id), ("fingerprint", second.fingerprint)):
        [shown] = api.call("DescribeKeyPairs", Filters=[{"Name": name, "Values": [value]}])["KeyPairs"]
        assert shown["KeyName"] == "second"


def test_describe_what_is_not_there(api: Api) -> None:
    mine = imported(api, line_of(ED25519))
    assert api.refused("DescribeKeyPairs", KeyNames=["mine", "other"]).code == "InvalidKeyPair.NotFound"
    assert api.refused("DescribeKeyPairs", KeyPairIds=["key-0"]).code == "InvalidKeyPair.Malformed"
    assert api.refused("DescribeKeyPairs", Filters=[{"Name": "x", "Values": ["y"]}]).code == "InvalidParameterValue"
    for elsewhere in (api.by(), api.within("us-west-2")):
        assert elsewhere.call("DescribeKeyPairs")["KeyPairs"] == []
        assert elsewhere.refused("DescribeKeyPairs", KeyNames=["mine"]).code == "InvalidKeyPair.NotFound"
        assert elsewhere.refused("DescribeKeyPairs", KeyPairIds=[mine.id]).code == "InvalidKeyPair.NotFound"


# --- delete -----------------------------------------------------------------------------------------------------------


def test_delete_by_name_and_by_id_and_again(api: Api) -> None:
    first, second = imported(api, line_of(RSA), "first"), imported(api, line_of(ED25519), "second")
    assert api.call("DeleteKeyPair", KeyName="first") == {"Return": True, "KeyPairId": first.id}
    assert api.call("DeleteKeyPair", KeyPairId=second.id) == {"Return": True, "KeyPairId": second.id}
    assert api.call("DescribeKeyPairs")["KeyPairs"] == []
    assert api.call("DeleteKeyPair", KeyName="first") == {"Return": True}
    assert api.call("DeleteKeyPair", KeyPairId=second.id) == {"Return": True}
    assert imported(api, line_of(RSA), "first").id != first.id


def test_delete_is_for_the_owner(api: Api) -> None:
    mine = imported(api, line_of(ED25519))
    assert api.by().call("DeleteKeyPair", KeyName="mine") == {"Return": True}
    assert api.by().call("DeleteKeyPair", KeyPairId=mine.id) == {"Return": True}
    assert api.get(KeyPair, mine.id) == mine
    assert api.refused("DeleteKeyPair").code == "MissingParameter"
    assert api.refused("DeleteKeyPair", KeyPairId="mine").code == "InvalidKeyPair.Malformed"
    assert api.refused("DeleteKeyPair", KeyName="mine", DryRun=True).code == "DryRunOperation"

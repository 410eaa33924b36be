"""`orc key-store`: against a controller that answers as it is told, and against a whole one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import INSTANCE, FakeApi, Orc
from tests.conftest import Serving

KEY = "11111111-2222-3333-4444-555555555555"
USE = {
    "KeyId": KEY,
    "KeyState": "Enabled",
    "Volumes": ["vol-1", "vol-2"],
    "Snapshots": ["snap-1"],
    "Instances": [INSTANCE],
}
METADATA = {"KeyId": KEY, "KeyState": "Enabled", "KeyManager": "CUSTOMER", "Arn": "arn:k", "CreationDate": 1767323045}
ALIASES = {
    "Aliases": [{"AliasName": "alias/aws/ebs"}, {"AliasName": "alias/mine", "TargetKeyId": KEY}],
    "Truncated": False,
}


@pytest.fixture(autouse=True)
def one_key(api: FakeApi) -> None:
    api.answer("DescribeKeyUse", {"KeyUse": USE})
    api.answer("DescribeKey", {"KeyMetadata": METADATA})
    api.answer("ListAliases", ALIASES)
    for action in ("ShredKey", "DisableKey", "EnableKey", "CreateAlias"):
        api.answer(action, {"KeyUse": USE} if action == "ShredKey" else {})


def test_keys_are_listed_by_name_from_all_pages(api: FakeApi, orc: Orc) -> None:
    api.answer(
        "ListKeys",
        {"Keys": [{"KeyId": KEY}], "Truncated": True, "NextMarker": "more"},
        {"Keys": [{"KeyId": KEY}], "Truncated": False},
    )
    lines = orc("key-store", "ls").stdout.splitlines()
    assert lines[0].split() == ["NAME", "ID", "STATE", "AGE"]
    assert [line.split()[:3] for line in lines[1:]] == [["mine", KEY, "Enabled"]] * 2
    assert api.documents("ListKeys") == [{}, {"Marker": "more"}]
    assert json.loads(orc("key-store", "ls", "-o", "json").stdout)[0]["Names"] == ["mine"]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("mine", "alias/mine"),
        ("default", "alias/aws/ebs"),
        ("alias/mine", "alias/mine"),
        (KEY, KEY),
        ("arn:aws:kms:us-east-1:1:key/x", "arn:aws:kms:us-east-1:1:key/x"),
    ],
)
def test_a_key_is_shown_by_whatever_it_is_called(api: FakeApi, orc: Orc, given: str, asked: str) -> None:
    shown = orc("key-store", "show", given).stdout
    assert api.documents("DescribeKeyUse") == [{"KeyId": asked}]
    assert "vol-1,vol-2" in shown and "2026-01-02" in shown


def test_a_destroyed_key_is_still_shown(api: FakeApi, orc: Orc) -> None:
    api.answer("DescribeKeyUse", {"KeyUse": {**USE, "KeyState": "Destroyed"}})
    shown = orc("key-store", "show", KEY).stdout
    assert "Destroyed" in shown and "snap-1" in shown
    assert api.documents("DescribeKey") == []


def test_an_unknown_name_is_said_with_where_to_look(api: FakeApi, orc: Orc) -> None:
    api.answer("DescribeKeyUse", (400, b'{"__type": "InvalidKmsKeyId.NotFound", "message": "no"}'))
    result = orc("key-store", "disable", "none")
    assert result.exit_code == 3
    assert "there is no key 'none' in us-east-1" in result.stderr and "orc key-store ls" in result.stderr
    assert api.documents("DisableKey") == []


def test_a_key_is_made_with_a_name(api: FakeApi, orc: Orc) -> None:
    api.answer("CreateKey", {"KeyMetadata": METADATA})
    assert orc("key-store", "create", "new", "--description", "for x").stdout == KEY + "\n"
    assert api.documents("CreateKey") == [{"Description": "for x"}]
    assert api.documents("CreateAlias") == [{"AliasName": "alias/new", "TargetKeyId": KEY}]
    assert orc("key-store", "create", "mine").exit_code == 2
    assert len(api.documents("CreateKey")) == 1


def test_a_key_that_cannot_be_named_does_not_stay(api: FakeApi, orc: Orc) -> None:
    api.answer("CreateKey", {"KeyMetadata": METADATA})
    api.answer("CreateAlias", (400, b'{"__type": "InvalidAliasNameException", "message": "no"}'))
    assert orc("key-store", "create", "a:b").exit_code == 1
    assert api.documents("ShredKey") == [{"KeyId": KEY}]


def test_shredding_says_what_is_lost_and_asks(api: FakeApi, orc: Orc) -> None:
    result = orc("key-store", "shred", "mine", input="n\n")
    assert result.exit_code == 0
    assert "volumes  vol-1, vol-2" in result.stderr and "snapshots  snap-1" in result.stderr
    assert INSTANCE in result.stderr and "the key stays" in result.stderr
    assert orc("key-store", "shred", "mine", input="").exit_code == 130, "silence is no consent"
    assert api.documents("ShredKey") == []
    assert orc("key-store", "shred", "mine", input="y\n").stdout == f"shredded {KEY}\n"
    assert orc("key-store", "shred", "mine", "--yes").exit_code == 0
    assert api.documents("ShredKey") == [{"KeyId": KEY}] * 2


# --- a whole controller -----------------------------------------------------------------------------------------------


def run(at: Serving, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**at.environment, "ORC_STATE_DIR": str(at.state_dir)}
    command = [sys.executable, "-m", "orchestrator", "key-store", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def secret_file(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_keys_live_and_die_and_a_passphrase_guards_them(serving: Callable[..., Serving], tmp_path: Path) -> None:
    at = serving()
    key_id = run(at, "create", "mine").stdout.strip()
    kms: Any = at.client("kms")
    blob = kms.encrypt(KeyId="alias/mine", Plaintext=b"planted-secret-41")["CiphertextBlob"]
    phrase = secret_file(tmp_path / "phrase", "planted-passphrase-17")

    done = run(at, "passphrase", str(phrase))
    assert done.returncode == 0 and f"keys.passphrase_file to {phrase}" in done.stdout
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"planted-secret-41", "the running one does not notice"
    at.end()

    for flags, words in (
        ((), "protected by a passphrase"),
        (("--keys-passphrase-file", str(secret_file(tmp_path / "wrong", "x"))), "is not the one that protects"),
    ):
        command = [sys.executable, "-m", "orchestrator", "serve", "--state-dir", str(at.state_dir), "--host", "memory"]
        ended = subprocess.run(
            [*command, "--port", "0", *flags], capture_output=True, text=True, timeout=60, check=False
        )
        assert ended.returncode == 1
        assert "the key store cannot be opened" in ended.stderr and words in ended.stderr
        assert "Traceback" not in ended.stderr

    at = serving("--host", "memory", "--keys-passphrase-file", str(phrase))
    kms = at.client("kms")
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"planted-secret-41"
    assert run(at, "shred", "mine", "--yes").stdout == f"shredded {key_id}\n"
    with pytest.raises(kms.exceptions.NotFoundException):
        kms.describe_key(KeyId=key_id)
    assert "Destroyed" in run(at, "show", key_id).stdout
    assert run(at, "passphrase").returncode == 2
    assert run(at, "passphrase", "--remove").returncode == 1, "without the one that protects it"
    assert run(at, "passphrase", "--remove", "--keys-passphrase-file", str(phrase)).returncode == 0
    at.end()
    written = [path for path in at.state_dir.rglob("*") if path.is_file() and not path.is_symlink()]
    written.append(at.state_dir.with_suffix(".log"))
    for path in written:
        content = path.read_bytes()
        assert b"planted-secret-41" not in content and b"planted-passphrase-17" not in content, path
    assert os.stat(at.state_dir / "keys" / "master").st_mode & 0o777 == 0o600

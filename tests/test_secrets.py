"""Secrets are planted wherever one can be given or had, and looked for wherever one could come to lie.

given or had                               looked for in
access keys, sessions, a new account's     what the controller logs, at its most talkative, and says on failure
private keys, user data, passphrases       the audit log, its rows and its segments; /metrics
plaintexts and data keys of KMS, grants    command lines and environments of the controller and what it runs
                                           every file of the state directory but those that are there to hold it
                                           core files, of which there are none
"""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conftest import Serving

PASSPHRASE = "planted-passphrase-3b81"
USER_DATA = "planted-user-data-77c0"
PLAINTEXT = b"planted-plaintext-c44e"
WRONG_SECRET = "planted-wrong-secret-0d12"

Seen = dict[str, bytes]  # what it is -> what must not be found


@pytest.fixture
def controller(serving: Callable[..., Serving], tmp_path: Path) -> Serving:
    phrase = tmp_path / "phrase"
    phrase.write_text(PASSPHRASE)
    phrase.chmod(0o600)
    return serving("--host", "memory", "--keys-passphrase-file", str(phrase), "--log-level", "debug")


def plant(at: Serving) -> Seen:
    """Give and be given every kind of secret."""
    ec2, kms, iam, sts = (at.client(name) for name in ("ec2", "kms", "iam", "sts"))
    iam.create_user(UserName="ann")
    user = iam.create_access_key(UserName="ann")["AccessKey"]
    session = sts.get_session_token()["Credentials"]
    pair = ec2.create_key_pair(KeyName="web", KeyType="ed25519")["KeyMaterial"]
    rsa = ec2.create_key_pair(KeyName="rsa", KeyType="rsa")["KeyMaterial"]
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key, Plaintext=PLAINTEXT)["CiphertextBlob"]
    kms.decrypt(CiphertextBlob=blob)
    data_key = kms.generate_data_key(KeyId=key, KeySpec="AES_256")["Plaintext"]
    account = json.loads((at.state_dir / "credentials.json").read_text())
    grant = kms.create_grant(KeyId=key, GranteePrincipal=account["account"], Operations=["Decrypt"])["GrantToken"]
    opened = at.orc("CreateAccount", Name="dev")
    ec2.create_volume(Size=1, AvailabilityZone="us-east-1a", Encrypted=True, KmsKeyId=key)
    image = ec2.describe_images()["Images"][0]["ImageId"]
    ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, InstanceType="t3.micro", UserData=USER_DATA)
    wrong = at.client("ec2", aws_secret_access_key=WRONG_SECRET)
    refused: list[tuple[Any, dict[str, Any]]] = [  # what fails is not told of more
        (wrong.describe_vpcs, {}),
        (ec2.run_instances, {"ImageId": "ami-" + "0" * 17, "MinCount": 1, "MaxCount": 1, "UserData": USER_DATA}),
        (kms.encrypt, {"KeyId": "alias/none", "Plaintext": PLAINTEXT}),
        (kms.retire_grant, {"GrantToken": grant, "KeyId": key}),
    ]
    for call, given in refused:
        with pytest.raises(ClientError):
            call(**given)
    return {
        "the root's secret": account["secret_access_key"].encode(),
        "a user's secret": user["SecretAccessKey"].encode(),
        "a new account's secret": opened["SecretAccessKey"].encode(),
        "a session's secret": session["SecretAccessKey"].encode(),
        "a session's token": session["SessionToken"].encode(),
        "a private key": pair.splitlines()[1].encode(),
        "an RSA private key": rsa.splitlines()[5].encode(),
        "a plaintext": PLAINTEXT,
        "a data key": data_key,
        "a grant's token": grant.encode(),
        "a passphrase": PASSPHRASE.encode(),
        "user data": USER_DATA.encode(),
        "a secret that is wrong": WRONG_SECRET.encode(),
    }


def spellings(secret: bytes) -> Iterator[bytes]:
    yield secret
    yield base64.b64encode(secret)
    yield base64.b64encode(secret).rstrip(b"=")[:-1]  # also inside of something longer
    yield secret.hex().encode()


def found_in(seen: Seen, text: bytes) -> list[str]:
    return [what for what, secret in seen.items() if any(each in text for each in spellings(secret))]


def family(pid: int) -> list[int]:
    """A process and all that it has started and that runs."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in below for each in family(int(child)))]


# The store holds what the controller itself must be able to say again; no log and no other file does.
KEPT = {"the root's secret", "a user's secret", "a new account's secret", "user data", "a grant's token"}


def test_nothing_secret_is_where_it_should_not_be(controller: Serving) -> None:
    seen = plant(controller)
    assert controller.process is not None
    for pid in family(controller.process.pid):
        for name in ("cmdline", "environ"):
            assert found_in(seen, Path(f"/proc/{pid}/{name}").read_bytes()) == [], f"{name} of a process"
    with urllib.request.urlopen(controller.endpoint + "/metrics", timeout=10) as answer:
        assert found_in(seen, answer.read()) == []
    controller.end()
    log = controller.state_dir.with_suffix(".log").read_bytes()
    assert b"CreateKeyPair" in log and b"SignatureDoesNotMatch" in log
    assert found_in(seen, log) == []
    audit = subprocess.run(
        [sys.executable, "-m", "orchestrator", "audit", "ls", "-o", "json", "--last", "0"],
        env={**os.environ, "ORC_STATE_DIR": str(controller.state_dir)},
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout
    assert b'"CreateAccount"' in audit and b'"GenerateDataKey"' in audit
    assert found_in(seen, audit) == []
    with closing(sqlite3.connect(controller.state_dir / "orchestrator.db")) as db:
        rows = b"".join(row[0] for row in db.execute("SELECT document FROM audit"))
        tokens = b"".join(row[0] for row in db.execute("SELECT answer FROM token"))
    assert found_in(seen, rows) == []
    assert set(found_in(seen, tokens)) <= KEPT
    for path in controller.state_dir.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        found = set(found_in(seen, path.read_bytes()))
        if path.name.startswith("orchestrator.db"):
            assert found <= KEPT and path.stat().st_mode & 0o077 == 0, (path, found - KEPT)
        elif path.name == "credentials.json":
            assert found == {"the root's secret"} and path.stat().st_mode & 0o077 == 0
        else:
            assert found == set(), path


def test_the_search_finds_what_is_there(controller: Serving) -> None:
    seen = {"a key": bytes(range(32)), "a word": b"planted"}
    assert found_in(seen, b"x planted y") == ["a word"]
    assert found_in(seen, b'"' + base64.b64encode(bytes(range(32))) + b'"') == ["a key"]
    assert found_in(seen, b"key=" + bytes(range(32)).hex().encode()) == ["a key"]
    secret = json.loads((controller.state_dir / "credentials.json").read_text())["secret_access_key"]
    database = b"".join(path.read_bytes() for path in controller.state_dir.glob("orchestrator.db*"))
    assert found_in({"root": secret.encode()}, database) == ["root"], "the store is where it may be"


# --- core files -------------------------------------------------------------------------------------------------------

ABORTING = """
import ctypes, os, resource, sys
from orchestrator.serve import keep_secrets_in_memory
keep_secrets_in_memory()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE), flush=True)
os.abort()
"""


def test_a_crash_leaves_no_core_file(tmp_path: Path) -> None:
    def allow_core() -> None:
        _, most = resource.getrlimit(resource.RLIMIT_CORE)
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))

    process = subprocess.Popen(
        [sys.executable, "-c", ABORTING],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        preexec_fn=allow_core,
    )
    assert process.stdout is not None
    said = process.stdout.read().split()
    _, status = os.waitpid(process.pid, 0)
    process.returncode = status  # it has been waited for
    process.stdout.close()
    assert said == [b"0", b"0", b"0"], "neither dumpable nor any room for a core file, for its children too"
    assert os.WTERMSIG(status) == signal.SIGABRT and not os.WCOREDUMP(status)
    assert list(tmp_path.iterdir()) == []


def test_the_controller_runs_so(controller: Serving) -> None:
    assert controller.process is not None
    limits = Path(f"/proc/{controller.process.pid}/limits").read_text()
    [line] = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]


def test_guests_memory_is_in_no_core_file_of_qemus() -> None:
    template = Path(__file__).parent.parent / "templates" / "domain.xml.j2"
    assert "<memory unit='MiB' dumpCore='off'>" in template.read_text()

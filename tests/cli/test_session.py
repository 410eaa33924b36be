"""`session`: which endpoint and whose credentials, and that they never meet the wrong one."""

from __future__ import annotations

import pwd
import stat
from pathlib import Path
from typing import Any

import click
import pytest

from orchestrator.cli.session import (
    NoCredentials,
    Session,
    data_dir,
    key_file,
    known_hosts_file,
    write_private,
)
from orchestrator.config import load
from tests.cli.conftest import ACCESS_KEY, write_credentials

HERE = "http://127.0.0.1:8773"
ELSEWHERE = "https://ec2.example.org"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "env-secret"}


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return write_credentials(tmp_path / "credentials.json", HERE)


def resolve(kept: Path, environment: dict[str, str] | None = None, **flags: Any) -> tuple[str, str, str]:
    found = Session(credentials_path=kept, **flags).resolve(environment or {})
    return found.url, found.region, found.access_key_id


def test_the_file_alone(kept: Path) -> None:
    assert resolve(kept) == (HERE, "us-east-1", ACCESS_KEY)
    assert resolve(kept, region="us-west-2") == (HERE, "us-west-2", ACCESS_KEY)
    assert resolve(kept, endpoint="http://localhost:8773") == ("http://localhost:8773", "us-east-1", ACCESS_KEY)


def test_real_aws_credentials_stay_out_of_it(kept: Path) -> None:
    environment = {**KEYS, "AWS_REGION": "eu-west-1", "AWS_SESSION_TOKEN": "t"}
    assert resolve(kept, environment) == (HERE, "us-east-1", ACCESS_KEY)


@pytest.mark.parametrize("variable", ["ORC_ENDPOINT", "AWS_ENDPOINT_URL"])
def test_the_environment_with_its_own_endpoint(kept: Path, variable: str) -> None:
    environment = {**KEYS, variable: ELSEWHERE, "AWS_REGION": "eu-west-1", "AWS_SESSION_TOKEN": "t"}
    assert resolve(kept, environment) == (ELSEWHERE, "eu-west-1", "AKIAENV")
    assert Session(credentials_path=kept).resolve(environment).session_token == "t"


def test_orc_endpoint_comes_before_awss(kept: Path) -> None:
    environment = {**KEYS, "ORC_ENDPOINT": HERE, "AWS_ENDPOINT_URL": ELSEWHERE}
    assert resolve(kept, environment)[0] == HERE


def test_our_credentials_are_not_taken_elsewhere(kept: Path) -> None:
    for how in ({"environment": {"ORC_ENDPOINT": ELSEWHERE}}, {"endpoint": ELSEWHERE}):
        with pytest.raises(NoCredentials, match=rf"no credentials for {ELSEWHERE}.* are for {HERE}") as caught:
            resolve(kept, **how)  # type: ignore[arg-type]
        assert caught.value.exit_code == 5


def test_the_environments_credentials_are_not_taken_to_the_flags_endpoint(kept: Path) -> None:
    environment = {**KEYS, "ORC_ENDPOINT": HERE}
    with pytest.raises(NoCredentials, match="no credentials for"):
        resolve(kept, environment, endpoint=ELSEWHERE)
    assert resolve(kept, environment, endpoint=HERE + "/")[2] == "AKIAENV"


def test_an_endpoint_without_keys_takes_the_files_when_it_is_the_same(kept: Path) -> None:
    assert resolve(kept, {"ORC_ENDPOINT": HERE}) == (HERE, "us-east-1", ACCESS_KEY)


def test_a_profile(kept: Path, own_home: Path) -> None:
    aws = own_home / ".aws"
    aws.mkdir()
    (aws / "config").write_text(
        f"[profile lab]\nregion = us-west-2\nendpoint_url = {ELSEWHERE}\n[profile real]\nregion = eu-west-1\n"
    )
    (aws / "credentials").write_text("[lab]\naws_access_key_id = AKIALAB\naws_secret_access_key = lab%secret\n")
    assert resolve(kept, profile="lab") == (ELSEWHERE, "us-west-2", "AKIALAB")
    assert resolve(kept, profile="lab", region="r") == (ELSEWHERE, "r", "AKIALAB")
    with pytest.raises(NoCredentials, match="has no endpoint_url"):
        resolve(kept, profile="real")
    with pytest.raises(NoCredentials, match="is for"):
        resolve(kept, profile="lab", endpoint=HERE)


def test_no_file_yet(tmp_path: Path) -> None:
    with pytest.raises(NoCredentials, match=r"orc quickstart.*orc serve"):
        resolve(tmp_path / "none.json")


def test_a_file_that_is_not_ours_to_read(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(NoCredentials, match=r'use sudo.*eval "\$\(sudo orc env\)"'):
        resolve(kept)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"endpoint": 1}'])
def test_a_broken_file(tmp_path: Path, content: str) -> None:
    broken = tmp_path / "credentials.json"
    broken.write_text(content)
    with pytest.raises(NoCredentials, match="cannot be used"):
        resolve(broken)


@pytest.mark.parametrize("url", ["127.0.0.1:8773", "ftp://a", "http://", "http://a:b"])
def test_what_is_no_endpoint(kept: Path, url: str) -> None:
    with pytest.raises(click.UsageError, match="is no endpoint"):
        resolve(kept, endpoint=url)


def test_places(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_dir() == own_home / ".local/share/orchestrator"
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert data_dir() == own_home / ".local/share/orchestrator"
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert known_hosts_file("i-1") == Path("/xdg/orchestrator/known_hosts/i-1")
    monkeypatch.setenv("ORC_DATA_DIR", "/data")
    assert key_file("My Key") == Path("/data/keys/My Key.pem")
    assert key_file("../../etc/x").parent == Path("/data/keys")
    long = [key_file("k" * 255), key_file("k" * 254), key_file("é" * 100)]
    assert len(set(long)) == 3 and all(len(path.name) < 230 for path in long)


def test_a_long_name_that_an_earlier_version_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORC_DATA_DIR", str(tmp_path))
    name = "k" * 210
    assert key_file(name).name != f"{name}.pem"
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / f"{name}.pem").write_text("private")
    assert key_file(name).read_text() == "private"


def test_a_user_without_a_home(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "ORC_DATA_DIR", "XDG_DATA_HOME", "ORC_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(click.ClickException, match="no home: ORC_DATA_DIR"):
        data_dir()
    assert load(environment={})[1]["port"] == "default"  # no file is looked for there


def test_private_files(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "key.pem"
    write_private(path, "one")
    path.chmod(0o644)
    write_private(path, b"two")
    assert path.read_text() == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["key.pem"]

"""For other tools: export lines that a shell reads back, and files of AWS tools that keep all that is not ours."""

from __future__ import annotations

import configparser
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.environment import with_section
from tests.cli.conftest import ACCESS_KEY, SECRET_KEY, FakeApi, Orc


def test_a_shell_reads_back_what_env_prints(orc: Orc, api: FakeApi) -> None:
    script = orc("env").stdout + 'echo "$AWS_ACCESS_KEY_ID|$AWS_SECRET_ACCESS_KEY|$AWS_ENDPOINT_URL|$AWS_SESSION_TOKEN"'
    told = subprocess.run(
        ["sh", "-c", script], env={"AWS_SESSION_TOKEN": "left over"}, capture_output=True, text=True, check=True
    )
    assert told.stdout == f"{ACCESS_KEY}|{SECRET_KEY}|{api.url}|\n"


def test_unset_takes_it_all_back(orc: Orc) -> None:
    script = orc("env").stdout + orc("env", "--unset").stdout + "env"
    told = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True)
    assert "AWS_" not in told.stdout and "ORC_" not in told.stdout


def test_configure_aws_writes_a_profile_that_works(orc: Orc, api: FakeApi, own_home: Path) -> None:
    aws = own_home / ".aws"
    aws.mkdir()
    (aws / "config").write_bytes(b"# mine\r\n[default]\r\nregion=eu-west-1\r\n")
    (aws / "credentials").write_text("[default]\naws_access_key_id = REAL\n")
    for _ in range(2):  # a second time changes nothing
        result = orc("configure-aws")
        assert result.exit_code == 0
        assert (aws / "config").read_bytes().startswith(b"# mine\r\n[default]\r\nregion=eu-west-1\r\n")
        assert (aws / "credentials").read_text().startswith("[default]\naws_access_key_id = REAL\n")
    import botocore.session

    session = botocore.session.Session(profile="orc")
    client = session.create_client("ec2")
    assert client.meta.endpoint_url == api.url
    assert client.meta.region_name == "us-east-1"
    assert session.get_credentials().secret_key == SECRET_KEY
    for name in ("config", "credentials"):
        assert stat.S_IMODE((aws / name).stat().st_mode) == 0o600
    api.answer("DescribeVpcs", "<vpcSet/>")
    assert client.describe_vpcs()["Vpcs"] == []


def test_dot_files_may_be_links(orc: Orc, own_home: Path, tmp_path: Path) -> None:
    (own_home / ".aws").mkdir()
    elsewhere = tmp_path / "dotfiles"
    elsewhere.write_text("[default]\n")
    (own_home / ".aws/config").symlink_to(elsewhere)
    assert orc("configure-aws").exit_code == 0
    assert (own_home / ".aws/config").is_symlink()
    assert "[profile orc]" in elsewhere.read_text()


VALUES = {"region": "us-east-1", "endpoint_url": "http://h"}
OURS = "[profile orc]\nregion = us-east-1\nendpoint_url = http://h\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", OURS),
        ("[default]\nregion=x", f"[default]\nregion=x\n\n{OURS}"),
        ("[default]\n\n", f"[default]\n\n{OURS}"),
        ("[profile orc]", OURS),
        (
            '[profile "orc"]\nREGION=x\n# c\noutput = json\n[x]\n',
            OURS.replace("orc", '"orc"') + "# c\noutput = json\n[x]\n",
        ),
        (
            "[profile orc]\ns3 =\n  region = nested\n  b = c\nregion = x\n  y\n\n[profile z]\nregion = keep\n",
            f"{OURS}s3 =\n  region = nested\n  b = c\n\n[profile z]\nregion = keep\n",
        ),
        ("[orc]\nregion = not ours\n", f"[orc]\nregion = not ours\n\n{OURS}"),
    ],
)
def test_a_section_is_set_and_the_rest_left(before: str, after: str) -> None:
    assert with_section(before, "profile orc", VALUES) == after


LINES = st.lists(
    st.sampled_from(["[default]", "[profile a]", "k = v", "# note", "", " nested = 1", "region = x", "; s"])
)


@given(LINES)
def test_whatever_else_is_in_the_file_stays(lines: list[str]) -> None:
    before = "".join(f"{line}\n" for line in lines)
    after = with_section(before, "profile orc", VALUES)
    assert after.startswith(before)
    assert with_section(after, "profile orc", VALUES) == after
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(after[len(before) :])
    assert dict(parser["profile orc"]) == VALUES


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(orc: Orc, shell: str) -> None:
    script = orc("completion", shell).stdout
    assert f"_ORC_COMPLETE={shell}_complete" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)

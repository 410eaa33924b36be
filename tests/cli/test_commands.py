"""Commands against a controller that answers as it is told: what they ask, print, and exit with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from orchestrator.cli import COMMANDS, cli, console, power
from orchestrator.cli.session import Session, key_file, known_hosts_file
from tests.cli.conftest import INSTANCE, OTHER, FakeApi, Orc, instance, write_credentials


def test_every_command_is_there_and_says_what_it_is_for() -> None:
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None and command.name == name, name
        assert command.help, name
    shown = CliRunner().invoke(cli, ["--help"]).stdout
    assert all(f"  {name} " in shown for name in COMMANDS)


def test_every_subcommand_has_its_help() -> None:
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group):
            for sub in command.commands.values():
                assert sub.help, f"{name} {sub.name}"
                assert CliRunner().invoke(cli, [name, str(sub.name), "--help"]).exit_code == 0


def test_ls_loads_nothing_heavy(api: FakeApi, tmp_path: Path) -> None:
    api.instances(instance())
    write_credentials(tmp_path / "credentials.json", api.url)
    script = (
        "import sys; from orchestrator.__main__ import cli, session\n"
        "cli(['ls'], prog_name='orc', obj=session, standalone_mode=False)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "ORC_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert INSTANCE in ran.stdout
    loaded = set(json.loads(ran.stderr.strip().replace("'", '"')))
    heavy = {"boto3", "botocore", "aiohttp", "asyncio", "rich", "paramiko", "yaml", "msgspec", "libvirt", "sqlite3"}
    assert loaded & heavy == set()


def test_version(orc: Orc) -> None:
    assert orc("--version").stdout == "orc 1.2.3\n"


# --- ls, show ---


def test_ls_shows_the_living(orc: Orc, api: FakeApi) -> None:
    api.instances(instance(name="web"), instance(OTHER, "stopped"))
    result = orc("ls")
    assert [line.split()[:4] for line in result.stdout.splitlines()[1:]] == [
        ["web", INSTANCE, "running", "t3.micro"],
        ["-", OTHER, "stopped", "t3.micro"],
    ]
    (form,) = api.forms("DescribeInstances")
    states = {value for name, value in form.items() if name.startswith("Filter.1.Value")}
    assert form["Filter.1.Name"] == "instance-state-name" and "terminated" not in states and "running" in states


def test_ls_all_and_filters(orc: Orc, api: FakeApi) -> None:
    api.instances()
    assert orc("ls", "--all", "--filter", "tag:stage=a,b").stderr == "no instance matches\n"
    (form,) = api.forms("DescribeInstances")
    assert {form["Filter.1.Name"], form["Filter.1.Value.1"], form["Filter.1.Value.2"]} == {"tag:stage", "a", "b"}
    assert "Filter.2.Name" not in form
    assert orc("ls", "--filter", "nonsense").exit_code == 2


def test_ls_for_programs(orc: Orc, api: FakeApi) -> None:
    api.instances(instance(name="web"))
    assert json.loads(orc("ls", "-o", "json").stdout)[0]["State"] == {"Code": 16, "Name": "running"}
    assert "InstanceId: " + INSTANCE in orc("ls", "-o", "yaml").stdout
    assert orc("ls", "-q").stdout == f"{INSTANCE}\n"


def test_show_has_the_launchs_timeline(orc: Orc, api: FakeApi) -> None:
    api.instances(instance(name="web"))
    phases = [
        {"Name": "requested", "Time": 1767323045.0, "SinceRequestMs": 0, "TookMs": 0},
        {"Name": "started", "Time": 1767323045.25, "SinceRequestMs": 250, "TookMs": 250},
    ]
    api.answer("DescribeLaunch", {"InstanceId": INSTANCE, "LoginUser": "admin", "Phases": phases})
    api.answer(
        "DescribeInstanceStatus",
        f"<instanceStatusSet><item><instanceId>{INSTANCE}</instanceId><systemStatus><status>ok</status></systemStatus>"
        "<instanceStatus><status>initializing</status></instanceStatus></item></instanceStatusSet>",
    )
    shown = orc("show", INSTANCE).stdout
    facts = {line[:15].strip(): line[17:] for line in shown.splitlines() if line}
    assert facts["name"] == "web"
    assert facts["login user"] == "admin"
    assert facts["status checks"] == "system ok, instance initializing"
    assert shown.splitlines()[-1].split() == ["started", "0.250", "s", "0.250", "s"]
    document = json.loads(orc("show", INSTANCE, "-o", "json").stdout)
    assert document["Launch"]["Phases"][1]["Time"] == "2026-01-02T03:04:05.250Z"


# --- run ---

IMAGES = (
    "<imagesSet><item><imageId>ami-old</imageId><name>debian-12</name>"
    "<creationDate>2026-01-01T00:00:00.000Z</creationDate></item><item><imageId>ami-new</imageId><name>debian-12</name>"
    "<creationDate>2026-02-01T00:00:00.000Z</creationDate>"
    "<rootDeviceName>/dev/sda1</rootDeviceName></item></imagesSet>"
)
DEFAULT_VPC = "<vpcSet><item><vpcId>vpc-1</vpcId><isDefault>true</isDefault></item></vpcSet>"
LAUNCHED = f"<instancesSet>{instance(state='pending', name='web')}</instancesSet>"


def test_run_says_all_that_was_asked_for(orc: Orc, api: FakeApi, tmp_path: Path) -> None:
    api.answer("DescribeImages", IMAGES)
    api.answer("DescribeVpcs", DEFAULT_VPC)
    api.answer(
        "DescribeSecurityGroups",
        "<securityGroupInfo><item><groupId>sg-7</groupId><groupName>web</groupName></item></securityGroupInfo>",
    )
    api.answer("RunInstances", LAUNCHED)
    (tmp_path / "script").write_bytes(b"#!/bin/sh\necho \xff\n")
    result = orc(
        *("run", "debian-12", "--name", "web", "--key", "mine", "--count", "2", "--zone", "b", "--size", "20"),
        *("--group", "web", "--group", "sg-1", "--tag", "stage=test", "--user-data", str(tmp_path / "script")),
        *("--imds", "required", "--shutdown", "terminate", "--protect"),
    )
    assert result.exit_code == 0, result.output
    (form,) = api.forms("RunInstances")
    assert b64decode(form.pop("UserData")) == b"#!/bin/sh\necho \xff\n"
    assert len(form.pop("ClientToken")) == 32
    assert form == {
        "Action": "RunInstances",
        "Version": "2016-11-15",
        "ImageId": "ami-new",
        "InstanceType": "t3.micro",
        "MinCount": "2",
        "MaxCount": "2",
        "KeyName": "mine",
        "Placement.AvailabilityZone": "us-east-1b",
        "SecurityGroupId.1": "sg-7",
        "SecurityGroupId.2": "sg-1",
        "BlockDeviceMapping.1.DeviceName": "/dev/sda1",
        "BlockDeviceMapping.1.Ebs.VolumeSize": "20",
        "InstanceInitiatedShutdownBehavior": "terminate",
        "DisableApiTermination": "true",
        "MetadataOptions.HttpTokens": "required",
        **{
            f"TagSpecification.{number}.{name}": value
            for number, kind in ((1, "instance"), (2, "volume"))
            for name, value in (
                ("ResourceType", kind),
                ("Tag.1.Key", "Name"),
                ("Tag.1.Value", "web"),
                ("Tag.2.Key", "stage"),
                ("Tag.2.Value", "test"),
            )
        },
    }
    assert INSTANCE in result.stdout
    assert "`orc ssh` will need -i FILE" in result.stderr


def test_run_by_ami_id_asks_nothing_else(orc: Orc, api: FakeApi) -> None:
    api.answer("RunInstances", LAUNCHED)
    assert orc("run", "ami-0abcdef1234567890", "-q").stdout == f"{INSTANCE}\n"
    assert [seen.action for seen in api.seen] == ["RunInstances"]


def test_run_of_an_image_that_has_not_been_built(orc: Orc, api: FakeApi) -> None:
    api.answer("DescribeImages", "<imagesSet/>")
    api.answer("ListRecipes", {"Recipes": ["tiny"]})
    result = orc("run", "tiny")
    assert (result.exit_code, "`orc image build tiny` does it" in result.stderr) == (3, True)
    assert orc("run", "other").exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ("--ssh",),
        ("--ssh", "--key", "k", "--count", "2"),
        ("--tag", "nonsense"),
        ("--user-data", "/does/not/exist"),
        ("--count", "0"),
    ],
)
def test_run_asked_for_wrongly(orc: Orc, api: FakeApi, arguments: tuple[str, ...]) -> None:
    assert orc("run", "ami-1", *arguments).exit_code == 2
    assert api.seen == []


def test_run_with_user_data_that_is_too_long(orc: Orc, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 16385)
    result = orc("run", "ami-1", "--user-data", str(tmp_path / "big"))
    assert (result.exit_code, "at most 16384" in result.stderr) == (2, True)


# --- power ---


def changes(kind: str) -> str:
    return (
        f"<instancesSet><item><instanceId>{INSTANCE}</instanceId><currentState><code>64</code><name>{kind}</name>"
        "</currentState><previousState><code>16</code><name>running</name></previousState></item></instancesSet>"
    )


def test_stop_and_wait(orc: Orc, api: FakeApi) -> None:
    api.answer("StopInstances", changes("stopping"))
    stopping, stopped = (
        f"<reservationSet><item><instancesSet>{instance(state=state)}</instancesSet></item></reservationSet>"
        for state in ("stopping", "stopped")
    )
    api.answer("DescribeInstances", stopping, stopped)
    result = orc("stop", INSTANCE, "--force", "--wait")
    assert (result.exit_code, result.stdout) == (0, f"{INSTANCE}  running -> stopping\n")
    assert api.forms("StopInstances")[0]["Force"] == "true"
    assert len(api.forms("DescribeInstances")) == 2


def test_terminate_asks_a_person(orc: Orc, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    api.answer("TerminateInstances", changes("shutting-down"))
    known_hosts_file(INSTANCE).parent.mkdir(parents=True)
    known_hosts_file(INSTANCE).touch()
    monkeypatch.setattr(power, "sys", type("Sys", (), {"stdin": type("In", (), {"isatty": lambda: True})}))
    assert "nothing was terminated" in orc("terminate", INSTANCE, input="n\n").stderr
    assert api.seen == []
    assert orc("terminate", INSTANCE, input="").exit_code == 130
    assert orc("terminate", INSTANCE, input="y\n").exit_code == 0
    assert orc("terminate", INSTANCE, "--yes").exit_code == 0
    assert len(api.forms("TerminateInstances")) == 2
    assert not known_hosts_file(INSTANCE).exists()


def test_terminate_does_not_ask_a_script(orc: Orc, api: FakeApi) -> None:
    api.answer("TerminateInstances", changes("shutting-down"))
    assert orc("terminate", INSTANCE).exit_code == 0


def test_wait_exits_with_4_when_it_takes_too_long(orc: Orc, api: FakeApi) -> None:
    api.instances(instance(state="pending"))
    result = orc("wait", INSTANCE, "running", "--timeout", "0.2")
    assert (result.exit_code, "waited 0.2 s" in result.stderr) == (4, True)


def test_wait_does_not_wait_for_what_cannot_come(orc: Orc, api: FakeApi) -> None:
    reason = "<stateReason><code>Server.InternalError</code><message>no disk</message></stateReason>"
    api.instances(instance(state="terminated", more=reason))
    result = orc("wait", INSTANCE, "running")
    assert (result.exit_code, "is terminated (no disk), so it will not be running" in result.stderr) == (1, True)


def test_wait_for_both_status_checks(orc: Orc, api: FakeApi) -> None:
    api.instances(instance())
    of = (
        "<instanceStatusSet><item><systemStatus><status>{}</status></systemStatus>"
        "<instanceStatus><status>{}</status></instanceStatus></item></instanceStatusSet>"
    )
    api.answer("DescribeInstanceStatus", of.format("ok", "initializing"), of.format("ok", "ok"))
    assert orc("wait", INSTANCE, "ok").exit_code == 0
    assert len(api.forms("DescribeInstanceStatus")) == 2


def test_an_instance_that_ended_so_long_ago_that_it_is_gone(orc: Orc, api: FakeApi) -> None:
    api.refuse("DescribeInstances", "InvalidInstanceID.NotFound")
    assert orc("wait", INSTANCE, "terminated").exit_code == 0
    assert orc("wait", INSTANCE, "running").exit_code == 3


@pytest.mark.parametrize("arguments", [(INSTANCE,), ("running",), (INSTANCE, "gone")])
def test_wait_asked_for_wrongly(orc: Orc, arguments: tuple[str, ...]) -> None:
    assert orc("wait", *arguments).exit_code == 2


def test_ctrl_c_is_130(orc: Orc, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(power, "wait_for", interrupt)
    result = orc("wait", INSTANCE, "running")
    assert (result.exit_code, "Traceback" in result.output) == (130, False)


def test_no_controller_is_5(tmp_path: Path) -> None:
    session = Session(credentials_path=write_credentials(tmp_path / "c.json", "http://127.0.0.1:1"))
    assert CliRunner().invoke(cli, ["ls"], obj=session).exit_code == 5
    assert CliRunner().invoke(cli, ["ls"], obj=Session(credentials_path=tmp_path / "none")).exit_code == 5


# --- console ---


@pytest.mark.parametrize(
    ("before", "now", "new"),
    [
        (b"", b"abc", b"abc"),
        (b"abc", b"abc", b""),
        (b"abc", b"abcdef", b"def"),
        (b"x" * 3000 + b"END", b"x" * 2990 + b"END" + b"more", b"more"),
        (b"before a restart", b"anew", b"anew"),
    ],
)
def test_what_is_new_in_a_text_that_loses_its_beginning(before: bytes, now: bytes, new: bytes) -> None:
    assert console.what_is_new(before, now) == new


def test_logs(orc: Orc, api: FakeApi) -> None:
    api.answer("GetConsoleOutput", f"<output>{b64encode(b'login: ').decode()}</output>")
    assert orc("logs", INSTANCE).stdout == "login: "


def test_what_a_guest_writes_does_not_steer_the_terminal() -> None:
    guest = "\x1b[31mred\x1b[0m \x1b[2J\x1b]0;title\x07\x1bPq\x1b\\ok\x07\n"
    assert console._STEERING.sub(console._only_colours, guest) == "\x1b[31mred\x1b[0m ok\n"


def test_screenshot(orc: Orc, api: FakeApi, tmp_path: Path) -> None:
    api.answer("GetConsoleScreenshot", f"<imageData>{b64encode(b'jpeg').decode()}</imageData>")
    file = tmp_path / "screen.jpg"
    assert orc("screenshot", INSTANCE, str(file)).stdout == f"{file}\n"
    assert file.read_bytes() == b"jpeg"
    assert orc("screenshot", INSTANCE, "-").stdout == "jpeg"
    assert orc("screenshot", INSTANCE, str(tmp_path / "no" / "where.jpg")).exit_code == 2


# --- keys ---


def test_a_key_is_kept_for_its_owner_alone(orc: Orc, api: FakeApi) -> None:
    api.answer("CreateKeyPair", "<keyName>mine</keyName><keyMaterial>-----BEGIN\nx\n</keyMaterial>")
    assert orc("key", "create", "mine").stdout == f"{key_file('mine')}\n"
    assert key_file("mine").read_text() == "-----BEGIN\nx\n"
    assert key_file("mine").stat().st_mode & 0o777 == 0o600
    assert orc("key", "create", "mine").exit_code == 2  # it would be overwritten
    api.answer("DescribeKeyPairs", "<keySet><item><keyName>mine</keyName></item></keySet>")
    api.answer("DeleteKeyPair", "<return>true</return>")
    assert orc("key", "rm", "mine").exit_code == 0
    assert not key_file("mine").exists()


def test_a_key_that_cannot_be_kept_is_not_made(orc: Orc, api: FakeApi, own_home: Path) -> None:
    (own_home / ".local").write_text("in the way")
    api.answer("CreateKeyPair", "<keyName>mine</keyName><keyMaterial>x</keyMaterial>")
    api.answer("DeleteKeyPair", "<return>true</return>")
    assert "no key pair was made" in orc("key", "create", "mine").stderr
    assert len(api.forms("DeleteKeyPair")) == 1


def test_an_own_key_is_imported_and_used_where_it_is(orc: Orc, api: FakeApi, tmp_path: Path) -> None:
    api.answer("ImportKeyPair", "<keyName>mine</keyName>")
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert orc("key", "import", "mine", str(tmp_path / "id")).exit_code == 2
    assert api.seen == []
    (tmp_path / "id.pub").write_text("ssh-ed25519 AAAA me\n")
    assert orc("key", "import", "mine", str(tmp_path / "id")).exit_code == 0
    assert b64decode(api.forms("ImportKeyPair")[0]["PublicKeyMaterial"]) == b"ssh-ed25519 AAAA me\n"
    assert key_file("mine").resolve() == tmp_path / "id"


def test_a_key_that_is_not_there(orc: Orc, api: FakeApi) -> None:
    api.refuse("DescribeKeyPairs", "InvalidKeyPair.NotFound")
    assert orc("key", "rm", "nobody").exit_code == 3


# --- groups, tags, types ---


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("22", ("tcp", "22", "22")),
        ("tcp/80-90", ("tcp", "80", "90")),
        ("udp/53", ("udp", "53", "53")),
        ("icmp", ("icmp", "-1", "-1")),
        ("all", ("-1", None, None)),
    ],
)
def test_group_rules_in_a_word(
    orc: Orc, api: FakeApi, words: str, expected: tuple[str, str | None, str | None]
) -> None:
    api.answer("AuthorizeSecurityGroupIngress", "<return>true</return>")
    peers = ("--from", "10.0.0.0/8", "--from", "::/0", "--from", "sg-2")
    assert orc("group", "allow", "sg-1", words, *peers).exit_code == 0
    (form,) = api.forms("AuthorizeSecurityGroupIngress")
    prefix = "IpPermissions.1."
    assert tuple(form.get(prefix + name) for name in ("IpProtocol", "FromPort", "ToPort")) == expected
    assert form[prefix + "IpRanges.1.CidrIp"] == "10.0.0.0/8"
    assert form[prefix + "Ipv6Ranges.1.CidrIpv6"] == "::/0"
    assert form[prefix + "Groups.1.GroupId"] == "sg-2"


@pytest.mark.parametrize("words", ["", "x", "22-21", "70000", "sctp/1", "tcp/"])
def test_group_rules_that_make_no_sense(orc: Orc, api: FakeApi, words: str) -> None:
    assert orc("group", "allow", "sg-1", words).exit_code == 2
    assert orc("group", "allow", "sg-1", "22", "--from", "300.0.0.0/8").exit_code == 2


def test_tags_of_an_instance_by_name_and_of_others_by_id(orc: Orc, api: FakeApi) -> None:
    api.instances(instance(name="web"))
    api.answer("CreateTags", "<return>true</return>")
    api.answer("DeleteTags", "<return>true</return>")
    assert orc("tag", "add", "web", "a=b=c", "empty=").exit_code == 0
    (form,) = api.forms("CreateTags")
    assert (form["ResourceId.1"], form["Tag.1.Value"], form["Tag.2.Value"]) == (INSTANCE, "b=c", "")
    assert orc("tag", "rm", "vol-0123456789abcdef0", "a").exit_code == 0
    assert api.forms("DeleteTags")[0]["ResourceId.1"] == "vol-0123456789abcdef0"


@pytest.mark.parametrize(("pattern", "sent"), [("m5", "m5.*"), ("*.large", "*.large"), ("t3.micro", "t3.micro")])
def test_types_by_family(orc: Orc, api: FakeApi, pattern: str, sent: str) -> None:
    api.answer("DescribeInstanceTypes", "<instanceTypeSet/>")
    orc("type", "ls", pattern)
    assert api.forms("DescribeInstanceTypes")[0]["Filter.1.Value.1"] == sent


# --- completion ---


def complete(api: FakeApi, tmp_path: Path, words: str) -> list[str]:
    session = Session(credentials_path=write_credentials(tmp_path / "credentials.json", api.url))
    variables = {"_ORC_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    result = CliRunner(env=variables).invoke(cli, [], obj=lambda _: session, prog_name="orc")
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_completion_of_instances(api: FakeApi, tmp_path: Path) -> None:
    api.instances(instance(name="web-1"), instance(OTHER, name="has space"))
    assert complete(api, tmp_path, "orc ssh ") == ["web-1", INSTANCE, OTHER]
    assert complete(api, tmp_path, "orc ssh web")[0] == "web-1"
    assert api.forms("DescribeInstances")[-1]["Filter.2.Value.1"] == "web*"
    complete(api, tmp_path, "orc stop i-01")
    assert api.forms("DescribeInstances")[-1]["Filter.2.Name"] == "instance-id"
    api.refuse("DescribeInstances", "InternalError", status=500)
    assert complete(api, tmp_path, "orc ssh ") == []

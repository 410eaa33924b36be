"""`orc` against a real controller on the in-memory host, from the first image to the last instance."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli import cli
from orchestrator.cli.session import Session, key_file
from tests.conftest import Serving

Orc = Callable[..., Result]


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    made = Serving(tmp_path_factory.mktemp("controller") / "state", "--host", "memory")
    made.start()
    yield made
    made.end()


@pytest.fixture
def orc(controller: Serving) -> Iterator[Orc]:
    """`orc`, which must succeed unless told otherwise. What a test launched is gone when the next one begins."""
    session = Session(credentials_path=controller.state_dir / "credentials.json", version="1")

    def run(*arguments: str, code: int = 0, input: str | None = None) -> Result:
        result = CliRunner().invoke(cli, arguments, obj=session, prog_name="orc", input=input)
        assert result.exit_code == code, f"orc {' '.join(arguments)}: {result.output}{result.exception!r}"
        return result

    yield run
    left = run("ls", "-q").stdout.split()
    if left:
        run("terminate", *left, "--yes", "--wait", "--timeout", "30")


def process(controller: Serving, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
    """`orc` in a process of its own, with pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "ORC_STATE_DIR": str(controller.state_dir)},
        **options,  # type: ignore[call-overload]
    )


def test_a_life(orc: Orc) -> None:
    assert "tiny" in orc("image", "ls").stdout
    orc("key", "create", "mine")
    assert key_file("mine").read_text().startswith("-----BEGIN")
    launched = orc("run", "tiny", "--name", "web", "--key", "mine", "--size", "3", "--tag", "stage=test", "--wait")
    assert "running" in launched.stdout
    (document,) = json.loads(orc("ls", "-o", "json").stdout)
    assert {tag["Key"]: tag["Value"] for tag in document["Tags"]} == {"Name": "web", "stage": "test"}
    shown = orc("show", "web").stdout
    assert "Launch" in shown and "requested" in shown and document["InstanceId"] in shown
    (volume,) = json.loads(orc("volume", "ls", "-o", "json").stdout)
    assert (volume["Size"], volume["State"]) == (3, "in-use")
    orc("wait", "web", "ok", "--timeout", "30")
    assert document["PublicIpAddress"]
    orc("stop", "web", "--wait")
    (stopped,) = json.loads(orc("ls", "-o", "json").stdout)
    assert "PublicIpAddress" not in stopped
    assert stopped["PrivateIpAddress"] == document["PrivateIpAddress"]
    assert "is stopped, not running: `orc start" in orc("ssh", "web", code=1).stderr
    orc("start", "web", "--wait")
    orc("reboot", "web")
    assert "boots" in orc("logs", "web").stdout
    orc("terminate", "web", "--wait")
    assert orc("ls").stderr == "no instances; `orc run IMAGE` launches one\n"
    assert "terminated" in orc("ls", "--all").stdout
    assert json.loads(orc("show", "web", "-o", "json").stdout)["Instance"]["State"]["Name"] == "terminated"
    orc("key", "rm", "mine")
    assert not key_file("mine").exists()


def test_several_at_once_and_their_names(orc: Orc) -> None:
    ids = orc("run", "tiny", "--count", "3", "--name", "many", "-q").stdout.split()
    assert len(set(ids)) == 3
    orc("wait", *ids, "running", "--timeout", "30")
    assert ids[0] in orc("stop", "many", code=2).stderr
    orc("tag", "add", ids[0], "Name=one")
    orc("stop", "one", "--wait")
    assert orc("ls", "--filter", "instance-state-name=stopped", "-q").stdout.split() == [ids[0]]
    assert orc("ls", "--filter", "tag:Name=man*", "-q").stdout.split() == sorted(ids[1:])
    orc("tag", "rm", ids[0], "Name")
    orc("show", "one", code=3)
    orc("show", ids[0][:18])


def test_what_is_refused_and_how(orc: Orc) -> None:
    assert "there is no image 'windows-95'" in orc("run", "windows-95", code=3).stderr
    assert "orc key ls" in orc("run", "tiny", "--key", "nobodys", code=3).stderr
    assert "'t3.gigantic' for InstanceType" in orc("run", "tiny", "--type", "t3.gigantic", code=1).stderr
    assert "InvalidInstanceID.NotFound" in orc("stop", "i-0123456789abcdef0", code=3).stderr
    assert "InvalidParameterValue" in orc("ls", "--filter", "no-such=1", code=1).stderr
    assert "DryRunOperation" in orc("run", "tiny", "--dry-run", code=1).stderr
    assert orc("ls", "-q").stdout == ""


def test_termination_protection(orc: Orc, controller: Serving) -> None:
    (instance_id,) = orc("run", "tiny", "--protect", "-q", "--wait").stdout.split()
    assert "OperationNotPermitted" in orc("terminate", instance_id, "--yes", code=1).stderr
    controller.client("ec2").modify_instance_attribute(InstanceId=instance_id, DisableApiTermination={"Value": False})


def test_groups(orc: Orc) -> None:
    group_id = orc("group", "create", "web", "--description", "for the web").stdout.strip()
    orc("group", "allow", "web", "22", "tcp/80-90", "--from", "10.0.0.0/8", "--description", "why")
    orc("group", "allow", "web", "all", "--from", "default")
    rows = [line.split() for line in orc("group", "show", "web").stdout.splitlines()]
    assert ["in", "tcp/22", "10.0.0.0/8", "why"] in rows
    assert any(row[:2] == ["out", "all"] for row in rows)
    orc("group", "revoke", "web", "22", "tcp/80-90", "--from", "10.0.0.0/8")
    assert "tcp/22" not in orc("group", "show", group_id).stdout
    orc("run", "tiny", "--group", "web", "--wait")
    assert "DependencyViolation" in orc("group", "rm", "web", code=1).stderr
    orc("terminate", *orc("ls", "-q").stdout.split(), "--yes", "--wait")
    orc("group", "rm", "web")
    assert "no security group 'web'" in orc("group", "show", "web", code=3).stderr


def test_images(orc: Orc, tmp_path: Path) -> None:
    assert "tiny" in orc("image", "recipes").stdout
    built = orc("image", "build", "tiny").stdout.strip()
    assert built.startswith("ami-")
    assert "available" in orc("image", "builds").stdout
    orc("image", "map", "ami-0abcdef1234567890", "tiny")
    assert "ami-0abcdef1234567890  tiny" in orc("image", "maps").stdout
    assert "t2.micro" in orc("run", "ami-0abcdef1234567890", "--type", "t2.micro", "--wait").stdout
    orc("image", "unmap", "ami-0abcdef1234567890")
    orc("run", "ami-0abcdef1234567890", code=3)
    (tmp_path / "disk.raw").write_bytes(os.urandom(1 << 20))
    imported = orc("image", "import", str(tmp_path / "disk.raw"), "--name", "mine", "--user", "me").stdout.strip()
    assert imported in orc("image", "ls").stdout
    orc("run", "mine", "--name", "of-mine", "--wait")
    assert "login user       me" in orc("show", "of-mine").stdout
    orc("image", "rm", "mine", "--yes")
    assert imported not in orc("image", "ls").stdout


def test_listings(orc: Orc) -> None:
    assert "t3.nano" in orc("type", "ls", "t3").stdout
    assert "1 GiB" in orc("type", "show", "t3.micro").stdout
    assert orc("type", "show", "t3.gigantic", code=1).stderr
    assert "172.31.0.0/16" in orc("vpc", "ls").stdout
    assert orc("subnet", "ls", "-o", "wide").stdout.count("us-east-1") == 3
    assert "account" in orc("whoami").stdout
    assert orc("--region", "us-west-2", "subnet", "ls").stdout.count("us-west-2") == 1
    assert "us-east-1, us-west-2" in orc("--region", "mars-1", "ls", code=1).stderr


def test_the_environment_of_one_shell(orc: Orc, controller: Serving) -> None:
    """`eval "$(sudo orc env)"`: from then on nobody reads root's file."""
    exports = orc("env").stdout
    script = f"{exports} ORC_STATE_DIR=/nowhere exec {sys.executable} -m orchestrator vpc ls"
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert "172.31.0.0/16" in told.stdout


def test_a_screen(orc: Orc, tmp_path: Path) -> None:
    (instance_id,) = orc("run", "tiny", "-q", "--wait").stdout.split()
    orc("screenshot", instance_id, str(tmp_path / "screen.jpg"))
    assert (tmp_path / "screen.jpg").read_bytes()[:3] == b"\xff\xd8\xff"


def test_a_tunnel_to_a_simulated_guest(orc: Orc, controller: Serving) -> None:
    """It takes calls at port 22, says who it is and hangs up; elsewhere nobody listens."""
    (instance_id,) = orc("run", "tiny", "-q", "--wait", "--name", "web").stdout.split()
    with process(controller, "tunnel", "web", "22") as tunnel:
        out, err = tunnel.communicate(timeout=60)
        assert (tunnel.returncode, out, err) == (0, b"SSH-2.0-simulated\r\n", b"")
    with process(controller, "tunnel", instance_id, "81") as tunnel:
        _, err = tunnel.communicate(timeout=60)
        assert (tunnel.returncode, b"nothing listens" in err) == (1, True)


def test_a_console_is_left_by_ctrl_c(orc: Orc, controller: Serving) -> None:
    """In pipes there is no Ctrl-]; the signal does."""
    (instance_id,) = orc("run", "tiny", "-q", "--wait").stdout.split()
    with process(controller, "console", instance_id) as console:
        assert console.stdin is not None
        console.stdin.write(b"hello\n")
        console.stdin.flush()
        deadline = time.monotonic() + 30
        while not connected(console.pid) and time.monotonic() < deadline:
            assert console.poll() is None
        console.send_signal(signal.SIGINT)
        _, err = console.communicate(timeout=30)
        assert (console.returncode, b"Traceback" in err) == (130, False)


def connected(pid: int) -> bool:
    """Whether a process has its stream open: a pair of sockets, asyncio's own pair, and the one to the controller."""
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return sum(link.startswith("socket:") for link in links) >= 5


def test_ctrl_c_while_waiting(orc: Orc, controller: Serving) -> None:
    (instance_id,) = orc("run", "tiny", "-q", "--wait").stdout.split()
    with process(controller, "wait", instance_id, "stopped") as waiting:
        assert waiting.stderr is not None
        assert b"running" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        _, err = waiting.communicate(timeout=30)
        assert (waiting.returncode, b"Traceback" in err) == (130, False)


def test_an_image_of_an_instance_and_what_becomes_of_it(orc: Orc, controller: Serving) -> None:
    """Baked with a reboot and without, launched, copied to another region under another key, shared, and removed."""
    orc("run", "tiny", "--name", "source", "--size", "3", "--wait")
    baked = orc("image", "create", "source", "baked", "--tag", "stage=test", "--timeout", "60").stdout.strip()
    (source,) = json.loads(orc("ls", "-o", "json").stdout)
    assert source["State"]["Name"] == "running"  # it was shut down for this, and has been started again
    ec2 = controller.client("ec2")
    (shown,) = ec2.describe_images(ImageIds=[baked])["Images"]
    assert (shown["State"], shown["SourceInstanceId"]) == ("available", source["InstanceId"])
    assert shown["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 3
    orc("run", "baked", "--name", "of-baked", "--wait")
    held = ec2.create_image(InstanceId=source["InstanceId"], Name="held", NoReboot=True)["ImageId"]
    ec2.get_waiter("image_exists").wait(ImageIds=[held], WaiterConfig={"Delay": 1})
    ec2.get_waiter("image_available").wait(ImageIds=[held], WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    copied = orc("image", "copy", "baked", "sealed", "--encrypt", "--timeout", "60").stdout.strip()
    (sealed,) = ec2.describe_images(ImageIds=[copied])["Images"]
    assert sealed["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]
    assert "default key" in orc("image", "share", "sealed", "444455556666", code=1).stderr
    assert "444455556666" in orc("image", "share", "baked", "444455556666").stdout
    orc("image", "protect", "baked")
    assert "OperationNotPermitted" in orc("image", "rm", "baked", code=1).stderr
    orc("image", "protect", "baked", "--off")
    orc("image", "disable", "baked")
    assert baked not in orc("image", "ls").stdout and baked in orc("image", "ls", "--all").stdout
    for image in (baked, held, copied):
        assert "stays" not in orc("image", "rm", image).stderr
    assert (
        ec2.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "description", "Values": ["Cre*"]}])["Snapshots"]
        == []
    )


def test_a_controller_that_is_gone_and_comes_back(serving: Callable[..., Serving]) -> None:
    deployment = serving("--host", "memory", name="other")
    session = Session(credentials_path=deployment.state_dir / "credentials.json")

    def orc(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, obj=session, prog_name="orc")

    (instance_id,) = orc("run", "tiny", "-q", "--wait").stdout.split()
    deployment.end()
    gone = orc("ls")
    assert (gone.exit_code, "orc serve" in gone.stderr) == (5, True)
    assert orc("wait", instance_id, "terminated", "--timeout", "0.5").exit_code == 5
    deployment.start()
    assert orc("show", instance_id).exit_code == 0


def test_a_volume_and_what_becomes_of_it(orc: Orc) -> None:
    orc("run", "tiny", "--name", "holder", "--wait")
    volume_id = orc("volume", "create", "4", "--name", "data", "--for", "holder").stdout.strip()
    assert orc("volume", "attach", "data", "holder").stdout.strip() == "/dev/sdf"
    assert "size 4 -> 6" in orc("volume", "modify", "data", "--size", "6").stdout
    (volume,) = json.loads(orc("volume", "ls", "--filter", f"volume-id={volume_id}", "-o", "json").stdout)
    assert (volume["Size"], volume["State"], volume["Attachments"][0]["State"]) == (6, "in-use", "attached")
    assert "VolumeInUse" in orc("volume", "rm", "data", code=1).output
    orc("volume", "detach", "data")
    orc("volume", "rm", "data")
    orc("stop", "holder", "--wait")
    (root,) = json.loads(orc("volume", "ls", "--filter", "attachment.device=/dev/*", "-o", "json").stdout)
    orc("volume", "detach", root["VolumeId"])
    assert "does not have a volume attached at root" in orc("start", "holder", code=1).output
    orc("volume", "attach", root["VolumeId"], "holder", root["Attachments"][0]["Device"])
    orc("start", "holder", "--wait")
    orc("terminate", "holder", "--yes", "--wait")
    # Attached by hand, it is not deleted with its instance.
    (kept,) = json.loads(orc("volume", "ls", "-o", "json").stdout)
    assert (kept["VolumeId"], kept["State"]) == (root["VolumeId"], "available")
    orc("volume", "rm", kept["VolumeId"])


def test_what_lies_on_the_disk(orc: Orc) -> None:
    orc("run", "tiny", "--name", "stored", "--wait")
    told = orc("storage").stdout
    assert "layer-" in told and "vol-" in told and "layers" in told
    assert orc("storage", "--graph").stdout.startswith("digraph")
    assert "no problems" in orc("storage", "verify").output
    assert "everything that is there is needed" in orc("storage", "gc").output


def test_an_account_of_its_own(orc: Orc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    made = orc("account", "create", "dev", "--profile", "dev").stdout.splitlines()[0]
    printed = json.loads(orc("account", "create", "more").stdout)
    listed = json.loads(orc("account", "ls", "-o", "json").stdout)
    assert [each["Name"] for each in listed] == ["first", "dev", "more"]
    assert [each["Id"] for each in listed[1:]] == [made, printed["AccountId"]]
    assert printed["AccessKeyId"].startswith("AKIA") and len(printed["SecretAccessKey"]) == 40
    who = json.loads(orc("--profile", "dev", "whoami", "-o", "json").stdout)
    assert (who["Account"], who["Arn"]) == (made, f"arn:aws:iam::{made}:root")
    assert "default" in orc("--profile", "dev", "vpc", "ls").stdout.lower()
    assert "AccessDenied" in orc("--profile", "dev", "account", "ls", code=1).output
    assert orc("account", "rm", made, input="n\n").stderr.endswith("it stays\n")
    for account in (made, printed["AccountId"]):
        orc("account", "rm", account, "--yes")
    assert "AuthFailure" in orc("--profile", "dev", "ls", code=1).output
    assert "AccountNotFound" in orc("account", "rm", made, "--yes", code=1).output

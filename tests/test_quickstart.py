"""Quickstart and down, over the in-memory host: what they make, what they leave alone, what they say when it fails."""

from __future__ import annotations

import io
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import paramiko
import pytest
from click.testing import CliRunner
from rich.console import Console

from orchestrator import quickstart as quickstart_module
from orchestrator.__main__ import cli
from orchestrator.background import Background, BackgroundError, as_flags
from orchestrator.cli.session import key_file
from orchestrator.config import KEYS, Config, load
from orchestrator.controller import open_store
from orchestrator.down import Down, Extent
from orchestrator.host.findings import Finding, Standing
from orchestrator.progress import Progress
from orchestrator.quickstart import (
    Api,
    Quickstart,
    QuickstartError,
    Wanted,
    ask_who,
    connector,
    find_named,
    given_by_flags,
    instances,
    public_half,
)

pytestmark = pytest.mark.usefixtures("own_places")


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    config = Config(state_dir=tmp_path / "state", host="memory", port=0)
    yield config
    Background(config).stop()


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def progress(output: io.StringIO) -> Progress:
    return Progress(Console(file=output, width=200, highlight=False))


def start(config: Config, progress: Progress, connect: Callable[[str], Api] | None = None, **wanted: Any) -> int:
    return Quickstart(config, Wanted(yes=True, **wanted), connect or connector(config), progress).run()


def there(config: Config) -> dict[str, Any]:
    """All that quickstart makes."""
    api = connector(config)("")
    groups = api.call("ec2", "DescribeSecurityGroups")["SecurityGroups"]
    return {
        "instances": [(i["InstanceId"], i["State"]["Name"]) for i in instances(api)],
        "keys": api.call("ec2", "DescribeKeyPairs")["KeyPairs"],
        "groups": [group for group in groups if group["GroupName"] != "default"],
        "images": [image["ImageId"] for image in api.call("ec2", "DescribeImages")["Images"]],
    }


# --- quickstart -----------------------------------------------------------------------------------------------------


def test_it_makes_everything_once(config: Config, progress: Progress, output: io.StringIO) -> None:
    assert start(config, progress) == 0
    made = there(config)
    assert [state for _, state in made["instances"]] == ["running"]
    (group,) = made["groups"]
    (rule,) = group["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
    api = connector(config)("")
    instance = find_named(api, "quickstart")
    assert instance is not None and instance["KeyName"] == "quickstart"
    assert [one["GroupId"] for one in instance["SecurityGroups"]] == [group["GroupId"]]
    key = key_file("quickstart")
    assert key.stat().st_mode & 0o777 == 0o600
    for words in ("in-memory host", "describe-instances", "boto3", " down", instance["InstanceId"]):
        assert words in output.getvalue()

    began, pid, material = time.monotonic(), Background(config).pid(), key.read_bytes()
    assert start(config, progress) == 0
    assert time.monotonic() - began < 5
    assert there(config) == made
    assert (Background(config).pid(), key.read_bytes()) == (pid, material)


class Interrupting:
    """An API that Ctrl-C comes after, when it has done its n-th call."""

    def __init__(self, api: Api, calls_left: list[int]) -> None:
        self._api = api
        self._calls_left = calls_left

    def call(self, service: str, action: str, **parameters: Any) -> dict[str, Any]:
        answer = self._api.call(service, action, **parameters)
        self._calls_left[0] -= 1
        if self._calls_left[0] == 0:
            raise KeyboardInterrupt
        return answer


def test_what_an_interrupted_run_left_is_picked_up(config: Config, progress: Progress) -> None:
    """Interrupted after the first call, then after the second of the next run, and so on until a run gets through."""
    connect = connector(config)
    interruptions = 0
    while True:
        calls_left = [interruptions + 1]
        try:
            start(config, progress, lambda region, left=calls_left: Interrupting(connect(region), left))  # type: ignore[misc]
        except KeyboardInterrupt:
            interruptions += 1
            continue
        break
    assert interruptions > 5
    made = there(config)
    assert [len(made[name]) for name in ("instances", "keys", "groups")] == [1, 1, 1]
    assert public_half(key_file("quickstart")).split()[1] in _registered_key(config)


def _registered_key(config: Config) -> str:
    pairs = connector(config)("").call("ec2", "DescribeKeyPairs", KeyNames=["quickstart"], IncludePublicKey=True)
    return str(pairs["KeyPairs"][0]["PublicKey"])


def test_a_lost_private_key_makes_a_new_pair_and_a_lost_pair_is_imported(config: Config, progress: Progress) -> None:
    start(config, progress)
    first = _registered_key(config)
    key_file("quickstart").unlink()
    start(config, progress)
    second = _registered_key(config)
    assert second.split()[1] != first.split()[1]
    assert public_half(key_file("quickstart")).split()[1] == second.split()[1]
    connector(config)("").call("ec2", "DeleteKeyPair", KeyName="quickstart")
    start(config, progress)
    assert _registered_key(config).split()[1] == second.split()[1]


def test_a_stopped_instance_is_started_and_a_terminated_one_replaced(config: Config, progress: Progress) -> None:
    start(config, progress)
    api = connector(config)("")
    before = find_named(api, "quickstart")
    assert before is not None
    api.call("ec2", "StopInstances", InstanceIds=[before["InstanceId"]])
    start(config, progress)
    assert there(config)["instances"] == [(before["InstanceId"], "running")]
    api.call("ec2", "TerminateInstances", InstanceIds=[before["InstanceId"]])
    start(config, progress)
    after = find_named(api, "quickstart")
    assert after is not None and after["InstanceId"] != before["InstanceId"]
    assert len(there(config)["keys"]) == len(there(config)["groups"]) == 1


def test_an_image_that_nobody_knows(config: Config, progress: Progress) -> None:
    with pytest.raises(QuickstartError, match=r"'no-such-image'.*recipes:"):
        start(config, progress, image="no-such-image")
    assert there(config)["instances"] == []


class Scripted:
    """Answers by action, one after the other; the last one again and again."""

    def __init__(self, **answers: list[dict[str, Any]]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    def call(self, service: str, action: str, **parameters: Any) -> dict[str, Any]:
        self.asked.append(action)
        left = self._answers[action]
        return left.pop(0) if len(left) > 1 else left[0]


def build(state: str, **more: str) -> dict[str, Any]:
    return {"Builds": [{"BuildId": "build-1", "State": state, **more}]}


@pytest.fixture
def building(config: Config, progress: Progress) -> Callable[..., str]:
    def find(*builds: dict[str, Any]) -> str:
        api = Scripted(
            DescribeImages=[{}],
            ListRecipes=[{"Recipes": ["debian-12"]}],
            BuildImage=[{"Build": {"BuildId": "build-1"}}],
            DescribeBuilds=list(builds),
        )
        return Quickstart(config, Wanted(), connector(config), progress)._find_or_build_image(api)

    return find


def test_a_build_shows_its_phases(building: Callable[..., str], output: io.StringIO) -> None:
    phases = [build("pending"), build("running", Phase="unpack"), build("running", Phase="configure")]
    assert building(*phases, build("available", ImageId="ami-1")) == "ami-1"
    lines = [line.partition("] ")[2] for line in output.getvalue().splitlines()]
    assert lines[1:4] == ["image: building debian-12", "image: unpack", "image: configure"]


def test_a_build_that_fails_says_why_and_where_more_is_told(building: Callable[..., str], config: Config) -> None:
    with pytest.raises(QuickstartError) as caught:
        building(build("failed", Message="mmdebstrap ended with 25"))
    assert "mmdebstrap ended with 25" in caught.value.message
    assert str(config.state_dir / "controller.log") in caught.value.message


def test_a_launch_that_fails_says_why(config: Config, progress: Progress) -> None:
    reason = {"Code": "Server.InternalError", "Message": "there is no room"}
    ended = {"InstanceId": "i-1", "State": {"Name": "terminated"}, "StateReason": reason}
    api = Scripted(
        DescribeInstances=[{}, {"Reservations": [{"Instances": [ended]}]}],
        RunInstances=[{"Instances": [{"InstanceId": "i-1"}]}],
    )
    with pytest.raises(QuickstartError, match="there is no room"):
        Quickstart(config, Wanted(), connector(config), progress)._run_instance(api, "ami-1", "sg-1")


def test_what_the_api_refuses_comes_with_the_place_of_the_log(config: Config, progress: Progress) -> None:
    with pytest.raises(QuickstartError) as caught:
        start(config, progress, type="t3.none")
    assert "t3.none" in caught.value.message
    assert str(config.state_dir / "controller.log") in caught.value.message


def test_a_host_that_cannot_run_instances_ends_it_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, progress: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Finding(check="qemu", standing=Standing.FAILURE, text="QEMU is not installed")
    monkeypatch.setattr(quickstart_module.doctor, "examine", lambda config, accelerator: [broken])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    config = Config(state_dir=tmp_path / "state")
    with pytest.raises(QuickstartError, match="doctor --fix"):
        start(config, progress)
    assert "QEMU is not installed" in capsys.readouterr().out
    assert not config.state_dir.exists()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(QuickstartError, match="sudo"):
        start(config, progress)


# --- logging in -----------------------------------------------------------------------------------------------------


class Guest(paramiko.ServerInterface):
    """Takes one key of one user, and answers any command with `told`."""

    def __init__(self, key: str, told: str) -> None:
        self._key = key
        self._told = told

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        right = username == "admin" and key.get_base64() == self._key
        return paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        def answer() -> None:
            assert channel.recv(1) == b""  # the client has read that its command runs, and has nothing to say
            channel.sendall(self._told.encode())
            channel.send_exit_status(0)
            channel.close()

        threading.Thread(target=answer).start()
        return True


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch, config: Config, progress: Progress) -> Iterator[Callable[[str], None]]:
    """Lets a guest with ssh stand at loopback."""
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(quickstart_module, "SSH_PORT", listener.getsockname()[1])
    transports: list[paramiko.Transport] = []
    host_key = paramiko.RSAKey.generate(2048)

    def stand(told: str) -> None:
        key = public_half(key_file("quickstart")).split()[1]

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(connection)
                transports.append(transport)
                transport.add_server_key(host_key)
                transport.start_server(server=Guest(key, told))

        threading.Thread(target=serve, daemon=True).start()

    yield stand
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for transport in transports:
        transport.close()
        transport.join(5)


def test_who_is_there(config: Config, progress: Progress, guest: Callable[[str], None]) -> None:
    start(config, progress)
    guest("hostname=ip-172-31-0-4\nuptime=12.5\nsystem=Debian = 12\nnoise\n")
    told = ask_who("127.0.0.1", "admin", key_file("quickstart"))
    assert told == {"hostname": "ip-172-31-0-4", "uptime": "12.5", "system": "Debian = 12"}
    with pytest.raises(paramiko.AuthenticationException):
        ask_who("127.0.0.1", "root", key_file("quickstart"))


def test_a_guest_that_takes_a_command_and_never_answers_is_asked_again(
    config: Config, progress: Progress, guest: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """paramiko itself would wait for ever: as when the way to the guest is lost."""
    start(config, progress)
    monkeypatch.setattr(quickstart_module, "_ASK_TIMEOUT_S", 1.0)
    forgotten = threading.Event()
    monkeypatch.setattr(Guest, "check_channel_exec_request", lambda *_: forgotten.wait(20))
    guest("hostname=h\n")
    began = time.monotonic()
    with pytest.raises((OSError, paramiko.SSHException, EOFError)):
        ask_who("127.0.0.1", "admin", key_file("quickstart"))
    assert time.monotonic() - began < 10
    forgotten.set()


def test_of_a_guest_that_is_not_there_yet_only_we_tell() -> None:
    code = (
        "import orchestrator.{}, logging; logging.getLogger('paramiko.transport').error('Error reading SSH protocol')"
    )
    for module in ("quickstart", "cli.login"):
        done = subprocess.run([sys.executable, "-c", code.format(module)], capture_output=True, check=True, timeout=60)
        assert done.stderr == b""


def test_login_shows_the_guest_and_notices_a_wrong_one(
    config: Config, progress: Progress, output: io.StringIO, guest: Callable[[str], None]
) -> None:
    start(config, progress)
    api = connector(config)("")
    instance = find_named(api, "quickstart")
    assert instance is not None
    quickstart = Quickstart(config, Wanted(), connector(config), progress)
    guest(f"hostname=here\ninstance-id={instance['InstanceId']}\n")
    quickstart._log_in({**instance, "PublicIpAddress": "127.0.0.1"}, "admin")
    assert "here" in output.getvalue() and "logged in as admin@127.0.0.1" in output.getvalue()
    with pytest.raises(QuickstartError, match="not i-0123"):
        api.call("ec2", "CreateTags", Resources=[instance["InstanceId"]], Tags=[{"Key": "a", "Value": "b"}])
        other = Always(api, instance)
        wrong = Quickstart(config, Wanted(), lambda region: other, progress)
        wrong._log_in({**instance, "InstanceId": "i-0123", "PublicIpAddress": "127.0.0.1"}, "admin")


class Always:
    """Describes one instance, whatever is asked for."""

    def __init__(self, api: Api, instance: dict[str, Any]) -> None:
        self._api = api
        self._instance = instance

    def call(self, service: str, action: str, **parameters: Any) -> dict[str, Any]:
        assert action == "DescribeInstances"
        return {"Reservations": [{"Instances": [self._instance]}]}


_METADATA = textwrap.dedent(
    """
    import http.server, sys

    class Metadata(http.server.BaseHTTPRequestHandler):
        def answer(self, text):
            self.send_response(200 if text else 401)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self):
            self.answer("token-1" if self.headers.get("X-aws-ec2-metadata-token-ttl-seconds") == "60" else "")

        def do_GET(self):
            right = self.headers.get("X-aws-ec2-metadata-token") == "token-1"
            known = {"/latest/meta-data/instance-id": "i-0123", "/latest/meta-data/instance-type": "t3.micro"}
            self.answer(known.get(self.path, "") if right else "")

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("169.254.169.254", 80), Metadata)
    print("ready", flush=True)
    server.serve_forever()
    """
)


@pytest.mark.host
@pytest.mark.parametrize("tools", [("curl",), ("python3",), ()], ids=["curl", "python", "busybox"])
def test_any_guest_can_say_who_it_is(tmp_path: Path, tools: tuple[str, ...]) -> None:
    """The script, in a namespace with a metadata server, with no more than what such a guest has."""
    for name in ("hostname", "uname", "cut", "tr", "sed", "sleep", "nc", "sh"):
        (tmp_path / name).symlink_to(shutil.which("busybox") or "/bin/busybox")
    for name in tools:
        (tmp_path / name).symlink_to(sys.executable if name == "python3" else shutil.which(name) or name)
    (tmp_path / "metadata").write_text(_METADATA)
    (tmp_path / "who").write_text(quickstart_module._WHO)
    script = (
        "ip link set lo up && ip address add 169.254.169.254/32 dev lo && mkfifo ready || exit 1\n"
        f"{sys.executable} metadata >ready & read -r _ <ready; PATH={tmp_path} sh who; kill $!"
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    told = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert (told.get("instance-id"), told.get("instance-type")) == ("i-0123", "t3.micro"), done.stderr
    assert told["kernel"].startswith("Linux ")
    assert float(told["uptime"]) > 0


# --- the controller's process ---------------------------------------------------------------------------------------


def test_a_controller_is_started_once_found_and_ended(config: Config, tmp_path: Path) -> None:
    background = Background(config)
    assert background.pid() is None and not background.answers()
    assert not background.stop()
    background.start()
    pid = background.pid()
    assert pid is not None and background.answers()
    assert os.getsid(pid) == pid  # Ctrl-C in the terminal does not reach it
    background.start()
    assert Background(config).pid() == pid
    background.pid_file.unlink()
    assert background.pid() == pid  # known by the lock, not by a file
    assert Background(Config(state_dir=tmp_path / "other", host="memory", port=0)).pid() is None
    assert background.stop()
    assert background.pid() is None and not background.answers()


def test_a_controller_that_cannot_start_says_why(config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        there = Config(state_dir=config.state_dir, host="memory", port=taken.getsockname()[1])
        with pytest.raises(BackgroundError) as caught:
            Background(there).start()
    assert "cannot be served" in str(caught.value)
    assert str(config.state_dir / "controller.log") in str(caught.value)


def test_flags_give_the_same_configuration_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config(
        state_dir=Path("state"),
        store_url="postgresql://orc:planted@/orc",
        host="memory",
        port=0,
        remote=True,
        images_dir="images",
        cpu_overcommit=2.5,
    )
    assert "planted" not in " ".join(as_flags(config)), "everybody sees a program's arguments"
    flags = dict(flag.split("=", 1) for flag in as_flags(config))
    assert set(flags) == {key.flag for key in KEYS if not key.secret}
    secret = {"ORC_STORE_URL": config.store_url}
    again, _ = load({key.attribute: flags[key.flag] for key in KEYS if not key.secret}, secret)
    absolute = {"state_dir": tmp_path / "state", "images_dir": str(tmp_path / "images")}
    assert {key.attribute: getattr(again, key.attribute) for key in KEYS} == {
        key.attribute: absolute.get(key.attribute, getattr(config, key.attribute)) for key in KEYS
    }


def test_what_was_given_by_flags_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert given_by_flags(load({})[0]) == ""
    assert given_by_flags(load({"port": "1234", "state_dir": "/a b"})[0]) == "ORC_STATE_DIR='/a b' ORC_PORT=1234"
    monkeypatch.setenv("ORC_PORT", "1234")
    assert given_by_flags(load({})[0]) == ""


# --- down -----------------------------------------------------------------------------------------------------------


def end(config: Config, progress: Progress, **extent: bool) -> int:
    return Down(config, Extent(**{"yes": True, **extent}), connector(config), progress).run()


def test_down_ends_everything_in_every_region(config: Config, progress: Progress, output: io.StringIO) -> None:
    start(config, progress)
    api = connector(config)("us-west-2")
    image = api.call("ec2", "DescribeImages")["Images"][0]["ImageId"]
    api.call("ec2", "RunInstances", ImageId=image, InstanceType="t3.micro", MinCount=2, MaxCount=2)
    assert end(config, progress, keep_controller=True) == 0
    assert Background(config).answers()
    for region in ("us-east-1", "us-west-2"):
        assert {i["State"]["Name"] for i in instances(connector(config)(region))} == {"terminated"}
    assert "3 terminated" in output.getvalue()
    assert end(config, progress) == 0
    assert Background(config).pid() is None
    assert (config.state_dir / "orchestrator.db").exists()


def test_down_starts_a_controller_when_instances_are_there_without_one(config: Config, progress: Progress) -> None:
    start(config, progress)
    Background(config).stop()
    assert end(config, progress) == 0
    assert Background(config).pid() is None
    Background(config).start()
    assert {state for _, state in there(config)["instances"]} == {"terminated"}


def test_down_names_what_protects_an_instance(config: Config, progress: Progress) -> None:
    start(config, progress)
    api = connector(config)("")
    instance_id = there(config)["instances"][0][0]
    for protected in (True, False):
        api.call("ec2", "ModifyInstanceAttribute", InstanceId=instance_id, DisableApiTermination={"Value": protected})
        if protected:
            with pytest.raises(click.ClickException, match="--no-disable-api-termination"):
                end(config, progress)
            assert there(config)["instances"] == [(instance_id, "running")]
    assert end(config, progress) == 0


def test_down_asks(monkeypatch: pytest.MonkeyPatch, config: Config, progress: Progress) -> None:
    monkeypatch.delenv("CI", raising=False)
    start(config, progress)
    with pytest.raises(click.ClickException, match="--yes"):  # nobody is there to answer
        end(config, progress, yes=False)
    assert there(config)["instances"][0][1] == "running"


def test_purge_removes_a_state_directory_and_nothing_else(config: Config, progress: Progress, tmp_path: Path) -> None:
    open_store(config).close()
    (tmp_path / "precious").touch()
    assert end(config, progress, purge=True) == 0
    assert not config.state_dir.exists() and (tmp_path / "precious").exists()
    assert end(config, progress, purge=True) == 0  # nothing to do

    not_ours = tmp_path / "home"
    not_ours.mkdir()
    (not_ours / "letter").touch()
    with pytest.raises(click.ClickException, match="does not look like a state directory"):
        Down(
            Config(state_dir=not_ours, host="memory"), Extent(yes=True, purge=True), connector(config), progress
        )._purge()
    assert (not_ours / "letter").exists()


# --- the commands ---------------------------------------------------------------------------------------------------


def test_the_commands(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--host", "memory", "--state-dir", str(config.state_dir), "--port", "0"]
    runner = CliRunner()
    for command in (["quickstart", "--yes"], ["doctor"], ["doctor", "--leaks"], ["down", "--yes"]):
        done = runner.invoke(cli, [*command, *flags])
        assert done.exit_code == 0, done.output
    assert runner.invoke(cli, ["down", "--purge", "--keep-controller", *flags]).exit_code == 2


def test_ctrl_c_leaves_what_the_next_run_picks_up(config: Config) -> None:
    command = [sys.executable, "-P", "-m", "orchestrator", "quickstart", "--yes"]
    flags = ["--host", "memory", "--state-dir", str(config.state_dir), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(quickstart_module.__file__).parent.parent)}
    with subprocess.Popen(
        [*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        for line in running.stdout:
            if "controller: starting" in line:
                break
        deadline = time.monotonic() + 30
        while Background(config).pid() is None and time.monotonic() < deadline:
            select.select([], [], [], 0.02)
        running.send_signal(signal.SIGINT)
        _, complaint = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "interrupted" in complaint and "Traceback" not in complaint
    again = subprocess.run([*command, *flags], capture_output=True, text=True, env=environment, timeout=60)
    assert again.returncode == 0, again.stderr
    assert len(there(config)["instances"]) == 1


# --- progress -------------------------------------------------------------------------------------------------------


def test_plain_lines_say_when_and_what() -> None:
    seconds = iter([0.0, 1.0, 1.0, 12.34])
    file = io.StringIO()
    progress = Progress(Console(file=file, width=80), clock=lambda: next(seconds))
    with progress.step("image", "looking") as say:
        say("looking")
        say("unpack [1/2] packages")
    assert file.getvalue() == "[   1.0 s] image: looking\n[  12.3 s] image: unpack [1/2] packages\n"


def test_on_a_terminal_a_step_ends_in_one_line() -> None:
    file = io.StringIO()
    progress = Progress(Console(file=file, width=80, force_terminal=True, color_system=None))
    with progress.step("image", "looking") as say:
        say("unpack")
    with pytest.raises(RuntimeError), progress.step("key", "making"):
        raise RuntimeError
    assert re.search(r"✓ image: unpack \([0-9]+\.[0-9] s\)\n", file.getvalue())
    assert re.search(r"x key: making \([0-9]+\.[0-9] s\)\n", file.getvalue())

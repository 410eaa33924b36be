"""Into a guest: commands, files and byte streams, over a real ssh server and real WebSockets."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from aiohttp import WSMsgType, web

from orchestrator.api.signature import read_credential, verify
from orchestrator.cli import guest, login
from orchestrator.cli.client import Client, Unreachable
from orchestrator.cli.copy import Place, closing_files, read_place
from orchestrator.cli.login import Login, logged_in
from orchestrator.cli.session import Endpoint, key_file, known_hosts_file, write_private
from orchestrator.cli.streams import StreamError, open_console, open_tunnel
from tests.cli.conftest import ACCESS_KEY, INSTANCE, SECRET_KEY, FakeApi, Orc, instance, write_credentials
from tests.cli.ssh_server import Guest

BUSYBOX = ("busybox", "sh")


@pytest.fixture(params=["sftp", "sh", "busybox"])
def machine(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guest]:
    """A guest with an SFTP server, one with nothing but a shell, and one whose shell and commands are busybox's."""
    home = tmp_path / "guest"
    home.mkdir()
    shell = BUSYBOX if request.param == "busybox" else ("sh",)
    made = Guest(home, sftp=request.param == "sftp", shell=shell)
    if request.param == "busybox":
        applets = tmp_path / "applets"
        applets.mkdir()
        busybox = shutil.which("busybox")
        assert busybox is not None
        for name in ("sh", "cat", "find", "mkdir", "chmod", "wc", "test", "printf", "busybox"):
            (applets / name).symlink_to(busybox)
        monkeypatch.setenv("PATH", str(applets))
    made.key.write_private_key_file(str(tmp_path / "key"))
    monkeypatch.setattr(login, "open_tunnel", made.connect)
    yield made
    made.close()


@pytest.fixture
def to(machine: Guest, tmp_path: Path) -> Login:
    return Login(INSTANCE, "admin", tmp_path / "key")


@pytest.fixture
def cp(machine: Guest, orc: Orc, api: FakeApi, tmp_path: Path) -> Any:
    api.instances(instance(name="web"))
    api.answer("DescribeLaunch", {"InstanceId": INSTANCE, "LoginUser": "admin"})
    return lambda *words: orc("cp", "-i", str(tmp_path / "key"), *words)


# --- exec ---


def run(client: Client, to: Login, line: str, monkeypatch: pytest.MonkeyPatch, given: bytes = b"") -> int:
    """As `orc exec` does, with a pipe as standard input."""
    reading, writing = os.pipe()
    threading.Thread(target=lambda: (os.write(writing, given), os.close(writing)), daemon=True).start()
    with os.fdopen(reading) as stdin, logged_in(client, to) as transport:
        monkeypatch.setattr(guest.sys, "stdin", stdin)
        return guest.run_command(transport, line)


def test_a_commands_streams_and_exit_code(
    client: Client, to: Login, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(client, to, "cat; echo bad >&2; exit 7", monkeypatch, b"given\n") == 7
    assert tuple(capfd.readouterr()) == ("given\n", "bad\n")
    assert run(client, to, "printf x; exit 0", monkeypatch) == 0
    assert capfd.readouterr().out == "x"


def test_much_both_ways_at_once(
    client: Client, to: Login, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guest, "write_all", lambda sink, data: received.append(data))
    received: list[bytes] = []
    given = os.urandom(1 << 20)
    assert run(client, to, "cat; cat", monkeypatch, given * 6) == 0
    assert b"".join(received) == given * 6


def test_a_guest_that_shows_another_key_is_noticed(client: Client, machine: Guest, to: Login) -> None:
    for _ in range(2):
        with logged_in(client, to) as transport:
            assert transport.is_authenticated()
    line = known_hosts_file(INSTANCE).read_text().split()
    assert line == [INSTANCE, machine.host_key.get_name(), machine.host_key.get_base64()]
    machine.host_key = type(machine.host_key).generate()  # type: ignore[attr-defined]
    with pytest.raises(click.ClickException, match="another host key"), logged_in(client, to):
        pass


def test_a_login_that_is_refused_says_what_to_do(client: Client, to: Login) -> None:
    with (
        pytest.raises(click.ClickException, match=rf"does not let nobody in with {to.key}.*-l USER"),
        logged_in(client, Login(INSTANCE, "nobody", to.key)),
    ):
        pass


def test_a_port_where_nobody_talks_ssh(client: Client, to: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang_up(*_: Any) -> socket.socket:
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours

    monkeypatch.setattr(login, "open_tunnel", hang_up)
    with pytest.raises(click.ClickException, match=r"does not talk ssh.*ssh` waits"), logged_in(client, to):
        pass


# --- cp ---


def test_files_there_and_back(cp: Any, machine: Guest, tmp_path: Path) -> None:
    content = os.urandom(700_000)
    (tmp_path / "a b'c$(x).bin").write_bytes(content)
    (tmp_path / "a b'c$(x).bin").chmod(0o755)
    result = cp(str(tmp_path / "a b'c$(x).bin"), "web:")
    assert result.exit_code == 0, result.output
    there = machine.home / "a b'c$(x).bin"
    assert there.read_bytes() == content
    assert stat.S_IMODE(there.stat().st_mode) == 0o755
    result = cp("web:a b'c$(x).bin", str(tmp_path / "back"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "back").read_bytes() == content
    assert stat.S_IMODE((tmp_path / "back").stat().st_mode) == 0o755


def test_a_file_into_a_folder_and_under_a_name(cp: Any, machine: Guest, tmp_path: Path) -> None:
    (tmp_path / "-n").write_text("n")
    (machine.home / "etc").mkdir()
    assert cp(str(tmp_path / "-n"), "web:etc/").exit_code == 0
    assert (machine.home / "etc/-n").read_text() == "n"
    assert cp(str(tmp_path / "-n"), "web:-x").exit_code == 0
    assert (machine.home / "-x").read_text() == "n"
    assert cp("web:-x", "web:etc/-n", str(tmp_path)).exit_code == 0
    assert (tmp_path / "-x").read_text() == "n"
    assert cp(str(tmp_path / "-n"), f"web:{machine.home}/absolute").exit_code == 0
    assert (machine.home / "absolute").exists()


def test_folders_there_and_back(cp: Any, machine: Guest, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "deep er").mkdir()
    (tree / "deep er" / "new\nline").write_text("content")
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o755)
    (tree / "zero").touch()
    assert "-r copies it" in cp(str(tree), "web:").stderr
    result = cp("-r", str(tree), "web:")
    assert result.exit_code == 0, result.output
    result = cp("-r", "web:tree", str(tmp_path / "back"))
    assert result.exit_code == 0, result.output

    def contents(folder: Path) -> dict[str, Any]:
        return {
            str(path.relative_to(folder)): None if path.is_dir() else (path.read_text(), path.stat().st_mode & 0o111)
            for path in folder.rglob("*")
        }

    assert contents(machine.home / "tree") == contents(tmp_path / "back") == contents(tree)
    assert "-r copies it" in cp("web:tree", str(tmp_path / "again")).stderr
    assert cp("-r", "web:tree", str(tmp_path / "back")).exit_code == 0  # into it, since it is there
    assert contents(tmp_path / "back" / "tree") == contents(tree)


def test_what_is_not_there(cp: Any, tmp_path: Path) -> None:
    result = cp("web:nothing", str(tmp_path))
    assert (result.exit_code, "there is no such file in the instance" in result.stderr) == (1, True)
    assert "there is no such file here" in cp(str(tmp_path / "nothing"), "web:").stderr
    (tmp_path / "file").touch()
    result = cp(str(tmp_path / "file"), "web:no/where/file")
    assert (result.exit_code, "no/where/file" in result.stderr) == (1, True)


def test_a_guest_cannot_write_outside_of_the_target(cp: Any, machine: Guest, tmp_path: Path) -> None:
    if not machine.sftp:
        machine.shell = ("sh", str(lying_shell(tmp_path)), "-c")
        machine.shell = machine.shell[:2]
    (machine.home / "lie").write_text("lie")
    (machine.home / "folder").mkdir()
    (tmp_path / "in" / "to").mkdir(parents=True)
    result = cp("-r", "web:folder", str(tmp_path / "in" / "to"))
    assert result.exit_code == 1, result.output
    assert not (tmp_path / "in" / "escaped").exists() and not (tmp_path / "escaped").exists()


def lying_shell(tmp_path: Path) -> Path:
    """A shell whose find tells of a file above its folder."""
    script = tmp_path / "shell"
    script.write_text('find() { printf "644 ./../../escaped\\0"; }\neval "$2"\n')
    return script


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("web:/etc", Place("web", "/etc")),
        ("web:", Place("web", ".")),
        ("web:~", Place("web", ".")),
        ("web:~/x", Place("web", "x")),
        ("web:a:b", Place("web", "a:b")),
        ("./a:b", Place("", "./a:b")),
        ("/a:b", Place("", "/a:b")),
        (":x", Place("", ":x")),
        ("plain", Place("", "plain")),
    ],
)
def test_places(word: str, expected: Place) -> None:
    assert read_place(word) == expected


@pytest.mark.parametrize("words", [("a",), ("a", "b"), ("w:a", "w:b"), ("a", "w:b", "c"), ("one:a", "two:b", "c")])
def test_cp_asked_for_wrongly(orc: Orc, api: FakeApi, words: tuple[str, ...]) -> None:
    assert orc("cp", *words).exit_code == 2
    assert api.seen == []


def test_files_are_reached_by_what_there_is(machine: Guest, client: Client, to: Login) -> None:
    with logged_in(client, to) as transport, closing_files(transport) as files:
        assert type(files).__name__ == ("SFTPFiles" if machine.sftp else "ShellFiles")


# --- ssh ---


def ssh_line(client: Client, api: FakeApi, *rest: str, more: str = "", **options: Any) -> list[str]:
    api.instances(instance(more=more))
    api.answer("DescribeLaunch", {"InstanceId": INSTANCE, "LoginUser": "admin"})
    given = {"public": False, "user": None, "identity": None, **options}
    with click.Context(click.Command("ssh")):
        return guest.ssh_arguments(client, client.describe(INSTANCE), rest=rest, **given)


def test_ssh_goes_through_the_tunnel_with_the_key_and_the_instances_host_keys(client: Client, api: FakeApi) -> None:
    write_private(key_file("mine"), "key")
    line = ssh_line(client, api)
    options = dict(word.split("=", 1) for word in line if "=" in word)
    assert options["IdentityFile"] == f'"{key_file("mine")}"'
    assert options["IdentitiesOnly"] == "yes"
    assert line[-1] == f"admin@{INSTANCE}"
    assert options["ProxyCommand"].endswith(f"tunnel {INSTANCE} 22")
    assert options["HostKeyAlias"] == INSTANCE
    assert options["StrictHostKeyChecking"] == "accept-new"
    assert options["UserKnownHostsFile"] == f'"{known_hosts_file(INSTANCE)}"'


def test_ssh_takes_commands_and_its_own_options(client: Client, api: FakeApi) -> None:
    name = f"admin@{INSTANCE}"
    assert ssh_line(client, api, "--", "uptime", "-p")[-4:] == [name, "--", "uptime", "-p"]
    assert ssh_line(client, api, "uptime")[-3:] == [name, "--", "uptime"]
    assert ssh_line(client, api, "-L", "1:a:2")[-3:] == ["-L", "1:a:2", name]
    assert ssh_line(client, api, "-v", "--", "uptime")[-4:] == ["-v", name, "--", "uptime"]


def test_ssh_to_the_public_address(client: Client, api: FakeApi) -> None:
    line = ssh_line(client, api, public=True, user="root", identity="/k")
    assert line[-1] == "root@203.0.113.7"
    assert 'IdentityFile="/k"' in line
    assert not any("ProxyCommand" in word for word in line)


def test_ssh_to_one_that_does_not_run(orc: Orc, api: FakeApi) -> None:
    api.instances(instance(state="stopped"))
    result = orc("ssh", INSTANCE)
    assert (result.exit_code, f"orc start {INSTANCE}" in result.stderr) == (1, True)


def test_ssh_itself_reads_what_we_write(client: Client, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ssh -G` prints the settings that it understood, and connects to nobody."""
    monkeypatch.setenv("ORC_DATA_DIR", "/tmp/with space/100%")
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    line = ssh_line(client, api)
    told = subprocess.run(["ssh", "-G", *line], capture_output=True, text=True, check=True).stdout
    settings = dict(row.split(" ", 1) for row in told.splitlines() if " " in row)
    assert settings["hostname"] == INSTANCE
    assert settings["user"] == "admin"
    assert settings["hostkeyalias"] == INSTANCE
    assert "/tmp/with space/100%" in settings["userknownhostsfile"].replace("%%", "%")


# --- streams ---


@pytest.fixture
def machine_for_ssh(tmp_path: Path) -> Iterator[Guest]:
    home = tmp_path / "home-of-admin"
    home.mkdir()
    made = Guest(home)
    yield made
    made.close()


async def bridge(stream: web.WebSocketResponse, to: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=to)

    async def outward() -> None:
        while data := await reader.read(1 << 16):
            await stream.send_bytes(data)
        await stream.close()

    sending = asyncio.create_task(outward())
    async for message in stream:
        writer.write(message.data)
        await writer.drain()
    writer.close()
    await sending


@pytest.fixture
def streaming(machine_for_ssh: Guest) -> Iterator[Client]:
    """A controller with one guest: its port 22 is ssh, 7 echoes, 19 talks and hangs up; 1 and 2 are refused."""
    ready = threading.Event()
    state: dict[str, Any] = {}

    async def call(request: web.Request) -> web.Response:
        if request.headers.get("X-Amz-Target"):
            return web.json_response({"InstanceId": INSTANCE, "LoginUser": "admin"})
        found = f"<item><instancesSet>{instance(name='web')}</instancesSet></item>"
        return web.Response(text=f"<R><reservationSet>{found}</reservationSet></R>")

    async def tunnel(request: web.Request) -> web.StreamResponse:
        credential = read_credential("", request.headers)
        assert credential is not None
        now = datetime.now(UTC)
        verify(credential, SECRET_KEY, "GET", request.path, "", request.headers, b"", now=now)
        port = request.match_info.get("port", "7")
        if port == "1":
            return web.json_response({"__type": "Unavailable", "message": "nobody listens"}, status=503)
        if port == "2":
            return web.json_response({"__type": "InvalidInstanceID.NotFound", "message": "no such"}, status=400)
        stream = web.WebSocketResponse(max_msg_size=1 << 20)
        await stream.prepare(request)
        if port == "22":
            await bridge(stream, machine_for_ssh.connect())
            return stream
        if port == "19":
            for _ in range(100):
                await stream.send_bytes(b"x" * 10_000)
            await stream.close()
            return stream
        async for message in stream:
            if message.type is WSMsgType.BINARY:
                await stream.send_bytes(message.data)
        return stream

    async def serve() -> None:
        application = web.Application()
        application.router.add_post("/", call)
        application.router.add_get("/tunnel/{instance}/{port}", tunnel)
        application.router.add_get("/console/{instance}", tunnel)
        runner = web.AppRunner(application, shutdown_timeout=0.5)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        state.update(port=runner.addresses[0][1], loop=asyncio.get_running_loop(), stop=asyncio.Event())
        ready.set()
        await state["stop"].wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield Client(Endpoint(f"http://127.0.0.1:{state['port']}", "us-east-1", ACCESS_KEY, SECRET_KEY))
    state["loop"].call_soon_threadsafe(state["stop"].set)
    thread.join(10)


def read_exactly(stream: socket.socket, count: int) -> bytes:
    stream.settimeout(20)
    parts: list[bytes] = []
    while sum(map(len, parts)) < count and (data := stream.recv(1 << 16)):
        parts.append(data)
    return b"".join(parts)


def test_a_tunnel_carries_both_ways(streaming: Client) -> None:
    content = os.urandom(3_000_000)
    with open_tunnel(streaming, INSTANCE, 7) as stream:
        threading.Thread(target=stream.sendall, args=(content,), daemon=True).start()
        assert read_exactly(stream, len(content)) == content


def test_a_console_is_a_stream_too(streaming: Client) -> None:
    with open_console(streaming, INSTANCE) as stream:
        stream.sendall(b"hello")
        assert read_exactly(stream, 5) == b"hello"


def test_what_was_said_last_arrives(streaming: Client) -> None:
    with open_tunnel(streaming, INSTANCE, 19) as stream:
        assert len(read_exactly(stream, 1 << 30)) == 1_000_000


def test_a_refused_stream_says_why(streaming: Client) -> None:
    with pytest.raises(StreamError, match="nobody listens") as caught:
        open_tunnel(streaming, INSTANCE, 1)
    assert caught.value.temporary
    with pytest.raises(StreamError, match="no such") as caught:
        open_tunnel(streaming, INSTANCE, 2)
    assert (caught.value.temporary, caught.value.exit_code) == (False, 3)


def test_a_stream_to_nobody() -> None:
    with pytest.raises(Unreachable):
        open_tunnel(Client(Endpoint("http://127.0.0.1:1", "r", "a", "s")), INSTANCE, 7)


def test_carry_goes_on_when_the_input_ends(streaming: Client) -> None:
    given, giving = os.pipe()
    taken, taking = os.pipe()
    os.write(giving, b"question")
    os.close(giving)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answered = threading.Thread(target=lambda: (theirs.recv(100), theirs.sendall(b"answer"), theirs.close()))
        answered.start()
        guest.carry(ours, given, taking)
        answered.join()
    os.close(taking)
    assert os.read(taken, 100) == b"answer"
    os.close(taken)
    os.close(given)


def orc_process(client: Client, tmp_path: Path, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    write_credentials(tmp_path / "credentials.json", client.endpoint.url)
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        env={**os.environ, "ORC_STATE_DIR": str(tmp_path)},
        input=given,
        capture_output=True,
        timeout=60,
    )


def test_the_systems_ssh_through_our_tunnel(
    streaming: Client, machine_for_ssh: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORC_DATA_DIR", str(tmp_path / "da%ta dir"))
    write_private(key_file("mine"), "")
    machine_for_ssh.key.write_private_key_file(str(key_file("mine")))
    for _ in range(2):
        ran = orc_process(streaming, tmp_path, "ssh", "web", "--", "cat; echo $HOME; exit 3", given=b"given\n")
        assert (ran.returncode, ran.stdout.decode()) == (3, f"given\n{machine_for_ssh.home}\n"), ran.stderr
    assert known_hosts_file(INSTANCE).read_text().split()[0] == INSTANCE
    # The same file serves our own client.
    ran = orc_process(streaming, tmp_path, "exec", "web", "tr", "a-z", "A-Z", given=b"given")
    assert (ran.returncode, ran.stdout) == (0, b"GIVEN"), ran.stderr
    assert len(known_hosts_file(INSTANCE).read_text().splitlines()) == 1
    ran = orc_process(streaming, tmp_path, "exec", "web", "exit 9")
    assert ran.returncode == 9
    ran = orc_process(streaming, tmp_path, "wait", "web", "ssh", "--timeout", "20")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (("web", "-L", "1:a:2"), ("-L", "1:a:2")),
        (("web", "--", "ls", "-l"), ("--", "ls", "-l")),
        (("-l", "root", "web", "ls", "--public"), ("ls", "--public")),
    ],
)
def test_what_follows_the_instance_is_not_ours(
    orc: Orc, api: FakeApi, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], rest: tuple[str, ...]
) -> None:
    api.instances(instance(name="web"))
    taken: dict[str, Any] = {}
    monkeypatch.setattr(guest, "run_ssh", lambda client, document, **options: taken.update(options))
    assert orc("ssh", *words).exit_code == 0
    assert taken["rest"] == rest
    assert orc("ssh", "-v", "web").exit_code == 2

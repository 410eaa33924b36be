"""Into a guest: `ssh` by the system's client, `exec` by our own; through `tunnel`, which needs no public address."""

from __future__ import annotations

import os
import select
import shlex
import shutil
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.arguments import instance_argument, with_client
from orchestrator.cli.client import Client
from orchestrator.cli.output import note
from orchestrator.cli.session import make_known_hosts_file, session_of

if TYPE_CHECKING:
    import paramiko

CHUNK_BYTES = 1 << 16
_LOOK_AGAIN_S = 0.5


def login_options(command: Any) -> Any:
    command = click.option("-i", "--identity", metavar="FILE", help="the private key, if not the key store's")(command)
    return click.option("-l", "--user", metavar="USER", help="who logs in, if not the image's usual user")(command)


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--public", is_flag=True, help="straight to its public address, not through the controller")
@login_options
@instance_argument
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@with_client
def ssh(
    client: Client, instance: str, command: tuple[str, ...], public: bool, user: str | None, identity: str | None
) -> None:
    """Log into an instance with the system's ssh. What follows the instance goes to ssh: its options, or a command.

    \b
    orc ssh web-1
    orc ssh web-1 -- uptime
    orc ssh web-1 -L 8080:localhost:80
    """
    document = client.describe(instance)
    run_ssh(client, document, public=public, user=user, identity=identity, rest=command)


def run_ssh(
    client: Client,
    instance: dict[str, Any],
    *,
    public: bool = False,
    user: str | None = None,
    identity: str | None = None,
    rest: tuple[str, ...] = (),
) -> None:
    """Become ssh."""
    state = instance["State"]["Name"]
    instance_id = instance["InstanceId"]
    if state != "running":
        mend = f"orc start {instance_id}" if state == "stopped" else f"orc wait {instance_id} running"
        raise click.ClickException(f"{instance_id} is {state}, not running: `{mend}`")
    program = shutil.which("ssh")
    if program is None:
        raise click.ClickException(
            f"ssh is not installed (the package openssh-client); `orc exec {instance_id} COMMAND` needs none"
        )
    line = [program, *ssh_arguments(client, instance, public=public, user=user, identity=identity, rest=rest)]
    sys.stdout.flush()
    os.execv(program, line)  # noqa: S606


def ssh_arguments(
    client: Client,
    instance: dict[str, Any],
    *,
    public: bool,
    user: str | None,
    identity: str | None,
    rest: tuple[str, ...],
) -> list[str]:
    instance_id = instance["InstanceId"]
    address = instance.get("PublicIpAddress")
    if public and not address:
        raise click.ClickException(f"{instance_id} has no public address: leave --public out")
    if user is None:
        user = client.orc("DescribeLaunch", InstanceId=instance_id).get("LoginUser") or "ec2-user"
    key = _key_of(instance, identity)
    hosts = make_known_hosts_file(instance_id)
    options = {
        "HostKeyAlias": instance_id,
        "UserKnownHostsFile": _quoted(hosts),
        "StrictHostKeyChecking": "accept-new",
        "HashKnownHosts": "no",
        "CheckHostIP": "no",
    }
    if key:
        options["IdentityFile"] = _quoted(key)
        options["IdentitiesOnly"] = "yes"
    if not public:
        options["ProxyCommand"] = shlex.join([*own_command(), "tunnel", instance_id, "22"]).replace("%", "%%")
    arguments: list[str] = []
    for name, value in options.items():
        arguments += ["-o", f"{name}={value}"]
    named = f"{user}@{address if public else instance_id}"
    at = next((position for position, word in enumerate(rest) if word == "--"), None)
    if at is not None:
        return [*arguments, *rest[:at], named, "--", *rest[at + 1 :]]
    if rest and rest[0].startswith("-"):
        return [*arguments, *rest, named]
    return [*arguments, named, *(["--", *rest] if rest else [])]


def _quoted(path: Path) -> str:
    """ssh splits the values of these options at spaces, and replaces what follows a percent sign."""
    return '"' + str(path).replace("%", "%%") + '"'


def _key_of(instance: dict[str, Any], identity: str | None) -> Path | None:
    # Not login.private_key: that module needs paramiko, and ssh does not.
    from orchestrator.cli.session import key_file

    if identity is not None:
        return Path(identity).expanduser()
    if not instance.get("KeyName"):
        note(f"{instance['InstanceId']} was launched without a key pair: your own keys are tried")
        return None
    kept = key_file(instance["KeyName"])
    if kept.exists():
        return kept
    note(
        f"{kept} does not exist: your own keys are tried; -i FILE names the private half of '{instance['KeyName']}' "
        "(what was made under sudo is in root's key store)"
    )
    return None


def own_command() -> list[str]:
    """How to call us again, with the flags that we were called with."""
    program = Path(sys.argv[0])
    runnable = program.name == "orc" and program.is_file() and os.access(program, os.X_OK)
    line = [str(program.resolve())] if runnable else [sys.executable, "-m", "orchestrator"]
    context = click.get_current_context()
    session = session_of(context)
    flags = {
        "--endpoint": session.endpoint,
        "--region": session.region,
        "--profile": session.profile,
        "--config": context.find_root().params.get("config_file"),
    }
    for flag, value in flags.items():
        if value:
            line += [flag, value]
    return line


@click.command()
@instance_argument
@click.argument("port", type=click.IntRange(1, 65535))
@with_client
def tunnel(client: Client, instance: str, port: int) -> None:
    """Connect standard input and output to a port of an instance's private address.

    \b
    printf 'GET / HTTP/1.0\\r\\n\\r\\n' | orc tunnel web-1 80
    ssh -o ProxyCommand='orc tunnel web-1 22' admin@web-1
    """
    from orchestrator.cli.streams import open_tunnel

    with open_tunnel(client, client.find_one(instance), port) as stream:
        carry(stream, sys.stdin.fileno(), sys.stdout.fileno())


def carry(stream: socket.socket, source: int, sink: int) -> None:
    """Bytes both ways until the far end closes. The end of our own input does not end it: an answer may follow."""
    sources: list[Any] = [stream, source]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if source in ready:
            data = os.read(source, CHUNK_BYTES)
            if data:
                stream.sendall(data)
            else:
                sources.remove(source)
        if stream in ready:
            data = stream.recv(CHUNK_BYTES)
            if not data:
                return
            write_all(sink, data)


def write_all(sink: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(sink, left) :]


@click.command("exec", context_settings={"allow_interspersed_args": False})
@login_options
@instance_argument
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@with_client
@click.pass_context
def exec_(
    context: click.Context,
    client: Client,
    instance: str,
    command: tuple[str, ...],
    user: str | None,
    identity: str | None,
) -> None:
    """Run a command in an instance, with its input, output, errors and exit code.

    One argument is a line for the guest's shell; several are the words of a command, and reach it as they are.

    \b
    orc exec web-1 'df -h | tail -1'
    tar c src | orc exec web-1 tar x
    """
    from orchestrator.cli.login import logged_in, login_for

    words = command[1:] if command[0] == "--" else command
    if not words:
        raise click.UsageError("which command?")
    line = words[0] if len(words) == 1 else shlex.join(words)
    with logged_in(client, login_for(client, client.describe(instance), user, identity)) as transport:
        code = run_command(transport, line)
    context.exit(code)


def run_command(transport: paramiko.Transport, line: str) -> int:
    """Run a line in the guest's shell with our standard streams; its exit code, 255 when it did not say one."""
    channel = transport.open_session()
    with channel:
        channel.exec_command(line)
        if sys.stdin.isatty():
            channel.shutdown_write()  # whoever wants to type takes `orc ssh`
        else:
            # In a thread of its own: a guest that has to be read before it reads on must not hold up both.
            threading.Thread(target=_feed, args=(channel, sys.stdin.fileno()), name="input", daemon=True).start()
        while True:
            select.select([channel], [], [], _LOOK_AGAIN_S)
            while channel.recv_ready():
                write_all(1, channel.recv(CHUNK_BYTES))
            while channel.recv_stderr_ready():
                write_all(2, channel.recv_stderr(CHUNK_BYTES))
            ended = channel.closed or (channel.eof_received and channel.status_event.wait(_LOOK_AGAIN_S))
            if ended and not channel.recv_ready() and not channel.recv_stderr_ready():
                code = channel.recv_exit_status()
                return code if code >= 0 else 255


def _feed(channel: paramiko.Channel, source: int) -> None:
    with suppress(OSError, EOFError):
        while data := os.read(source, CHUNK_BYTES):
            channel.sendall(data)
        channel.shutdown_write()

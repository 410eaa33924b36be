"""What an instance shows: its serial console, live or as kept, and its screen."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.arguments import instance_argument, with_client
from orchestrator.cli.client import Client
from orchestrator.cli.guest import CHUNK_BYTES, write_all
from orchestrator.cli.output import note

LEAVE = b"\x1d"  # Ctrl-]
FOLLOW_PAUSE_S = 1.0
_OVERLAP_BYTES = 2048

# Colours may pass. Everything else that steers a terminal stays out: what is printed here is a guest's word.
_STEERING = re.compile(
    r"\x1b\[[0-9;:]*m"  # kept
    r"|\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)


@click.command()
@instance_argument
@with_client
def console(client: Client, instance: str) -> None:
    """Talk to an instance's serial console. Ctrl-] leaves it."""
    from orchestrator.cli.streams import open_console

    instance_id = client.find_one(instance)
    with open_console(client, instance_id) as stream:
        if sys.stdin.isatty():
            note(f"{instance_id}: Ctrl-] leaves, Enter may wake the login prompt")
        with _raw(sys.stdin.fileno()):
            _talk(stream, sys.stdin.fileno(), sys.stdout.fileno())
    if sys.stdin.isatty():
        note("")


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    if not os.isatty(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _talk(stream: Any, source: int, sink: int) -> None:
    """Both ways, until the guest's end closes or Ctrl-] is typed. The end of piped input leaves the output running."""
    sources: list[Any] = [stream, source]
    typed = os.isatty(source)
    while True:
        ready, _, _ = select.select(sources, [], [])
        if source in ready:
            data = os.read(source, CHUNK_BYTES)
            before, leave, _ = data.partition(LEAVE) if typed else (data, b"", b"")
            if before:
                stream.sendall(before)
            if leave:
                return
            if not data:
                sources.remove(source)
        if stream in ready:
            data = stream.recv(CHUNK_BYTES)
            if not data:
                return
            write_all(sink, data)


@click.command()
@instance_argument
@click.option("-f", "--follow", is_flag=True, help="go on as more is written; Ctrl-C ends it")
@with_client
def logs(client: Client, instance: str, follow: bool) -> None:
    """Print what an instance wrote to its serial console: the newest 64 KiB."""
    instance_id = client.find_one(instance, terminated=True)
    shown = _output(client, instance_id)
    _print_raw(shown)
    if not follow and not shown:
        note(f"{instance_id} has written nothing yet")
    while follow:
        time.sleep(FOLLOW_PAUSE_S)
        now = _output(client, instance_id)
        _print_raw(what_is_new(shown, now))
        shown = now


def _output(client: Client, instance_id: str) -> bytes:
    answer = client.ec2("GetConsoleOutput", InstanceId=instance_id, Latest=True)
    return b64decode(answer.get("Output", ""))


def what_is_new(before: bytes, now: bytes) -> bytes:
    """What was written between two looks at the newest part of a growing text."""
    if now.startswith(before):
        return now[len(before) :]
    end = before[-_OVERLAP_BYTES:]
    at = now.rfind(end)
    return now if at < 0 else now[at + len(end) :]


def _print_raw(data: bytes) -> None:
    if sys.stdout.isatty():
        words = data.decode(errors="replace").replace("\r\n", "\n")
        data = _STEERING.sub(_only_colours, words).encode()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _only_colours(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("\x1b[") and found[0].endswith("m") else ""


@click.command()
@instance_argument
@click.argument("file", metavar="[FILE.jpg]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@with_client
def screenshot(client: Client, instance: str, file: Path | None) -> None:
    """Take a picture of an instance's screen, as JPEG; - writes it to standard output."""
    instance_id = client.find_one(instance)
    picture = b64decode(client.ec2("GetConsoleScreenshot", InstanceId=instance_id)["ImageData"])
    if str(file) == "-":
        sys.stdout.buffer.write(picture)
        return
    file = file or Path(f"{instance_id}.jpg")
    try:
        file.write_bytes(picture)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be written: {error.strerror}") from None
    click.echo(file)

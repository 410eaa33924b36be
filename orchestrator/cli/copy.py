"""`orc cp`: files and folders to and from an instance, by SFTP where the guest has it, else by `cat` in its shell.

Small guests (dropbear on busybox) have no SFTP server; their shell is enough. What a guest says of its files is not
trusted: a name that would lead out of the folder that is copied into ends the copy.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

import click
import paramiko

from orchestrator.cli.arguments import with_client
from orchestrator.cli.client import Client
from orchestrator.cli.guest import login_options
from orchestrator.cli.login import logged_in, login_for
from orchestrator.cli.output import note
from orchestrator.cli.waiting import transfer

CHUNK_BYTES = 1 << 18

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder, `path` relative to where the walk began ("" is that itself)."""

    path: str
    is_folder: bool
    mode: int
    size_bytes: int | None = None  # None: not known


class Files(Protocol):
    """A guest's files. Every failure is an OSError."""

    def look(self, path: str) -> Entry | None: ...
    def walk(self, folder: str) -> Iterator[Entry]: ...
    def read(self, path: str, sink: IO[bytes], advance: Advance) -> None: ...
    def write(self, path: str, source: IO[bytes], mode: int, advance: Advance) -> None: ...
    def make_folder(self, path: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """One side of a copy; `instance` is empty for this machine."""

    instance: str
    path: str


def read_place(word: str) -> Place:
    """INSTANCE:PATH, or a path of this machine; one with a colon in it is written ./a:b."""
    before, colon, after = word.partition(":")
    if not colon or "/" in before or not before:
        return Place("", word)
    path = after[2:] if after.startswith("~/") else after
    return Place(before, "." if path in ("", "~") else path)


@click.command()
@click.option("-r", "--recursive", is_flag=True, help="folders, with all that is in them")
@login_options
@click.argument("paths", metavar="SOURCE... TARGET", nargs=-1, required=True)
@with_client
def cp(client: Client, paths: tuple[str, ...], recursive: bool, user: str | None, identity: str | None) -> None:
    """Copy files to or from an instance. Its files are INSTANCE:PATH; relative paths begin in its user's home.

    \b
    orc cp site.conf web-1:/tmp/
    orc cp -r web-1:/var/log/nginx logs
    """
    if len(paths) < 2:
        raise click.UsageError("expected SOURCE... TARGET, for example file.txt web-1:/tmp/")
    *sources, target = (read_place(path) for path in paths)
    named = {place.instance for place in (*sources, target) if place.instance}
    ours = {not place.instance for place in sources}
    if len(named) != 1 or len(ours) != 1 or (not target.instance) in ours:
        raise click.UsageError("one side must be files of one instance, INSTANCE:PATH, and the other files here")
    login = login_for(client, client.describe(named.pop()), user, identity)
    with logged_in(client, login) as transport, closing_files(transport) as files:
        try:
            for source in sources:
                if target.instance:
                    upload(files, source.path, target.path, recursive=recursive, many=len(sources) > 1)
                else:
                    download(files, source.path, target.path, recursive=recursive, many=len(sources) > 1)
        except OSError as error:
            named_file = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{named_file}{error.strerror or error}") from None


def upload(files: Files, source: str, target: str, *, recursive: bool, many: bool) -> None:
    here = Path(source)
    if not here.exists():
        raise FileNotFoundError(2, "there is no such file here", source)
    there = files.look(target)
    if (there is not None and there.is_folder) or target.endswith("/") or many:
        if there is None or not there.is_folder:
            raise NotADirectoryError(20, "there is no such folder in the instance", target)
        target = str(PurePosixPath(target) / here.resolve().name)
    if not here.is_dir():
        _send(files, here, target)
        return
    if not recursive:
        raise IsADirectoryError(21, "it is a folder: -r copies it", source)
    files.make_folder(target)
    for folder, folders, names in os.walk(here):
        inside = PurePosixPath(target) / Path(folder).relative_to(here).as_posix()
        for name in sorted(folders):
            if not (Path(folder) / name).is_symlink():
                files.make_folder(str(inside / name))
        for name in sorted(names):
            if (Path(folder) / name).is_file():
                _send(files, Path(folder) / name, str(inside / name))


def _send(files: Files, here: Path, target: str) -> None:
    status = here.stat()
    with here.open("rb") as file, transfer(here.name, status.st_size) as advance, _naming(target):
        files.write(target, file, stat.S_IMODE(status.st_mode), advance)


def download(files: Files, source: str, target: str, *, recursive: bool, many: bool) -> None:
    there = files.look(source)
    if there is None:
        raise FileNotFoundError(2, "there is no such file in the instance", source)
    here = Path(target)
    if here.is_dir() or target.endswith("/") or many:
        if not here.is_dir():
            raise NotADirectoryError(20, "there is no such folder here", target)
        name = PurePosixPath(source).name
        here = here / name if name not in ("", ".", "..") else here
    if not there.is_folder:
        _receive(files, source, here, there)
        return
    if not recursive:
        raise IsADirectoryError(21, "it is a folder: -r copies it", source)
    here.mkdir(parents=True, exist_ok=True)
    for entry in files.walk(source):
        inside = PurePosixPath(entry.path)
        if inside.is_absolute() or ".." in inside.parts:
            raise click.ClickException(f"the guest names a file '{entry.path}', outside of {source}: that ends it")
        if entry.is_folder:
            (here / inside).mkdir(exist_ok=True)
        else:
            _receive(files, str(PurePosixPath(source) / inside), here / inside, entry)


def _receive(files: Files, source: str, here: Path, entry: Entry) -> None:
    with here.open("wb") as file, transfer(here.name, entry.size_bytes) as advance, _naming(source):
        files.read(source, file, advance)
    here.chmod(entry.mode & 0o777)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """SFTP's errors do not say of which file they speak."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), error.filename or path) from None


def closing_files(transport: paramiko.Transport) -> closing[SFTPFiles] | closing[ShellFiles]:
    """The guest's files, by whatever it has."""
    # dropbear takes the request for a program that is not there, and then ends the connection now and then.
    if "dropbear" in transport.remote_version:
        return closing(ShellFiles(transport))
    try:
        sftp = paramiko.SFTPClient.from_transport(transport)
    except (paramiko.SSHException, EOFError, OSError):
        sftp = None
    return closing(ShellFiles(transport)) if sftp is None else closing(SFTPFiles(sftp))


class SFTPFiles:
    def __init__(self, sftp: paramiko.SFTPClient) -> None:
        self._sftp = sftp

    def close(self) -> None:
        self._sftp.close()

    def look(self, path: str) -> Entry | None:
        try:
            return _entry("", self._sftp.stat(path))
        except FileNotFoundError:
            return None

    def walk(self, folder: str) -> Iterator[Entry]:
        yield from self._walk(folder, "")

    def _walk(self, folder: str, inside: str) -> Iterator[Entry]:
        for found in sorted(self._sftp.listdir_attr(folder), key=lambda one: one.filename):
            if "/" in found.filename or found.filename in ("", ".", ".."):
                raise OSError(f"the guest names a file '{found.filename}'")
            path = f"{inside}/{found.filename}" if inside else found.filename
            entry = _entry(path, found)
            if entry.is_folder:
                yield entry
                yield from self._walk(f"{folder}/{found.filename}", path)
            elif stat.S_ISREG(found.st_mode or 0):
                yield entry
            else:
                note(f"{path} is left out: it is neither a file nor a folder")

    def read(self, path: str, sink: IO[bytes], advance: Advance) -> None:
        with self._sftp.open(path, "rb") as file:
            file.prefetch(file.stat().st_size)
            while data := file.read(CHUNK_BYTES):
                sink.write(data)
                advance(len(data))

    def write(self, path: str, source: IO[bytes], mode: int, advance: Advance) -> None:
        with self._sftp.open(path, "wb") as file:
            file.set_pipelined(True)
            while data := source.read(CHUNK_BYTES):
                file.write(data)
                advance(len(data))
        self._sftp.chmod(path, mode)

    def make_folder(self, path: str) -> None:
        there = self.look(path)
        if there is None:
            self._sftp.mkdir(path)
        elif not there.is_folder:
            raise NotADirectoryError(20, "it is no folder", path)


def _entry(path: str, status: paramiko.SFTPAttributes) -> Entry:
    mode = status.st_mode or stat.S_IFREG | 0o644
    return Entry(path, stat.S_ISDIR(mode), stat.S_IMODE(mode), status.st_size)


class ShellFiles:
    """By the commands that the smallest shell has: test, cat, find, mkdir, chmod, wc."""

    _MODES = 'if [ -x "$f" ]; then m=755; else m=644; fi'

    def __init__(self, transport: paramiko.Transport) -> None:
        self._transport = transport

    def close(self) -> None:
        pass

    def look(self, path: str) -> Entry | None:
        line = (
            f'f={_word(path)}; if [ -d "$f" ]; then echo folder 755 0; elif [ -e "$f" ]; then {self._MODES}; '
            'echo file $m $(wc -c < "$f"); fi'
        )
        words = self._run(line, path).decode().split()
        if len(words) != 3:
            return None
        return Entry("", words[0] == "folder", int(words[1], 8), int(words[2]))

    def walk(self, folder: str) -> Iterator[Entry]:
        each = f'for f; do {self._MODES}; printf "%s %s\\0" $m "$f"; done'
        into = f"cd {_word(folder)} || exit 1;"
        for kind, is_folder in (("d", True), ("f", False)):
            listed = self._run(f"{into} find . -type {kind} -exec sh -c {shlex.quote(each)} sh {{}} +", folder)
            for line in sorted(listed.split(b"\0")):
                mode, _, name = os.fsdecode(line).partition(" ")
                if name and name != ".":
                    yield Entry(name.removeprefix("./"), is_folder, int(mode, 8))

    def read(self, path: str, sink: IO[bytes], advance: Advance) -> None:
        def took(data: bytes) -> None:
            sink.write(data)
            advance(len(data))

        self._run(f"cat < {_word(path)}", path, sink=took)

    def write(self, path: str, source: IO[bytes], mode: int, advance: Advance) -> None:
        name = _word(path)
        self._run(f"cat > {name} && chmod {mode & 0o777:o} {name}", path, source=source, advance=advance)

    def make_folder(self, path: str) -> None:
        self._run(f"mkdir -p {_word(path)}", path)

    def _run(
        self,
        line: str,
        path: str,
        *,
        source: IO[bytes] | None = None,
        advance: Advance = lambda count: None,
        sink: Callable[[bytes], None] | None = None,
    ) -> bytes:
        """What the line prints. OSError with what it complains of when it fails."""
        with self._transport.open_session() as channel:
            channel.exec_command(line)
            while source is not None and (data := source.read(CHUNK_BYTES)):
                channel.sendall(data)
                advance(len(data))
            channel.shutdown_write()
            parts: list[bytes] = []
            while data := channel.recv(CHUNK_BYTES):
                (sink or parts.append)(data)
            complaint = channel.makefile_stderr("rb").read().decode(errors="replace").strip()
            code = channel.recv_exit_status()
        if code != 0:
            raise OSError(5, complaint.splitlines()[-1] if complaint else f"the guest's shell ended with {code}", path)
        return b"".join(parts)


def _word(path: str) -> str:
    """A path as one word for a shell and its commands, never taken for an option."""
    return shlex.quote(path if path.startswith(("/", "./")) or path == "." else f"./{path}")

"""Runs the tools that read or make images: with limits where the image is not trusted, and never longer than asked.

`convert` shows qemu-img a file that `imagefile.py` has passed, and expects the worst of both: it runs as nobody,
without capabilities, in a network namespace with nothing in it, with limits on processor time, memory, file size and
open files, and knows its two files by names in its working directory. What it writes may not take the last of the
disk, which guests need: a small file can say that it is a large disk of ones. `run_lines` is for programs that are ours
(recipes): it passes their lines on, and when it ends, however it ends, nothing of their process group is left.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import selectors
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.host import CapacityError, HostError
from orchestrator.host.imagefile import FORMATS, GIB, ImageRefused, disk_within

_MEMORY_BYTES = 2 * GIB
_OPEN_FILES = 64
_LEAST_ROOM = 16 << 20  # for a qcow2 file of any size
_MOST_KEPT_FREE = 4 * GIB  # of the file system; a twentieth of a smaller one
_PERCENT = re.compile(r"\((\d{1,3}\.\d\d)/100%\)")
_KEPT_LINES = 20  # of a program's last words, for the error message
_NAME = "disk"
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def convert(
    source: Path,
    file_format: str,
    target: Path,
    *,
    virtual_bytes: int,
    cpu_s: int = 1800,
    timeout_s: float = 3600,
    progress: Callable[[float], None] = lambda done: None,
) -> None:
    """Make the qcow2 file `target` of `source`, which was inspected as `file_format` and found to be `virtual_bytes`.

    Both must be on one file system. `target` appears only when it is whole; `progress` gets how much is done, 0 to 1,
    and may raise to give it up. Raises ImageRefused when qemu-img cannot read the source, CapacityError when there is
    no room for the result.
    """
    needed = ("unshare", "prlimit", "setpriv", "qemu-img")
    missing = [tool for tool in needed if shutil.which(tool) is None]
    if missing:
        raise HostError(f"to convert an image {', '.join(missing)} must be installed", retryable=False)
    work = target.with_name(f".{target.name}.convert")
    lines: list[str] = []

    def line(text: str) -> None:
        if found := _PERCENT.search(text):
            progress(float(found[1]) / 100)
        elif text.strip():
            lines.append(text)
            del lines[:-_KEPT_LINES]

    with _directory_of_nobody(work) as nobody, _shown_to(nobody, source, file_format, work / "source"):
        room = _room(work)
        whole = virtual_bytes + virtual_bytes // 64 + _LEAST_ROOM
        command = [
            *("unshare", "--net", "--ipc", "--"),
            *("prlimit", f"--cpu={cpu_s}", f"--as={_MEMORY_BYTES}", f"--fsize={min(whole, room)}"),
            *(f"--nofile={_OPEN_FILES}", "--core=0", "--"),
            *("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"),
            *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--pdeathsig=KILL", "--"),
            *(
                "qemu-img",
                "convert",
                "-p",
                "-f",
                FORMATS["vmdk" if file_format == "ova" else file_format],
                "-O",
                "qcow2",
                "source",
                _NAME,
            ),
        ]
        status = run_lines(command, work, line, timeout_s=timeout_s, environment=_ENVIRONMENT, returns_end_lines=True)
        made = work / _NAME
        if status != 0:
            written = made.stat().st_size if made.exists() else 0
            if (room < whole and written + _LEAST_ROOM >= room) or _room(work) <= _LEAST_ROOM:
                raise CapacityError("there is no room on the disk for the converted image")
            raise ImageRefused(f"qemu-img cannot convert it: {_last_words(lines, status)}")
        os.chown(made, 0, 0)
        os.chmod(made, 0o600)
        os.replace(made, target)


def _room(directory: Path) -> int:
    """How many bytes an import may write there. Raises CapacityError when there is no room for any."""
    usage = shutil.disk_usage(directory)
    room = usage.free - min(usage.total // 20, _MOST_KEPT_FREE)
    if room <= _LEAST_ROOM:
        raise CapacityError(f"there is no room on the disk for an import: {usage.free >> 20} MiB are free")
    return room


@contextlib.contextmanager
def _shown_to(nobody: pwd.struct_passwd, source: Path, file_format: str, name: Path) -> Iterator[None]:
    """The source under another name, where nobody can read it: the file itself, or a copy of the disk inside."""
    if file_format == "ova":
        offset, length = disk_within(source)
        if length > _room(name.parent):
            raise CapacityError("there is no room on the disk to take the disk out of the ova")
        with open(source, "rb") as archive, open(name, "xb") as disk:
            _copy_part(archive.fileno(), offset, length, disk.fileno())
        os.chown(name, nobody.pw_uid, nobody.pw_gid)
        yield
        return
    os.link(source, name, follow_symlinks=False)
    owner = os.stat(source)
    os.chown(name, nobody.pw_uid, nobody.pw_gid)
    try:
        yield
    finally:
        os.chown(name, owner.st_uid, owner.st_gid)


def _copy_part(source: int, offset: int, length: int, target: int) -> None:
    while length:
        copied = os.copy_file_range(source, target, min(length, 64 << 20), offset_src=offset)
        if not copied:
            raise ImageRefused("its disk is cut off")
        offset += copied
        length -= copied


def run_lines(
    command: Sequence[str],
    directory: Path,
    line: Callable[[str], None],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    returns_end_lines: bool = False,
) -> int:
    """Run `command` and give each line that it writes to `line`; its exit status, negative for a signal.

    With `returns_end_lines` a carriage return ends a line too, as programs write their progress.
    Its process group is killed when this ends, by a return or by any exception. Raises HostError when the time is up.
    """
    deadline = time.monotonic() + timeout_s
    with _process_group(command, directory, environment) as process:
        for text in _lines(process, command[0], deadline, rb"[\r\n]" if returns_end_lines else rb"\n"):
            line(text)
    return process.returncode


@contextlib.contextmanager
def _process_group(
    command: Sequence[str], directory: Path, environment: Mapping[str, str] | None
) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=dict(environment) if environment is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise HostError(f"{command[0]} cannot be run: {error}", retryable=False) from error
    with process:
        try:
            yield process
        finally:
            # It has not been waited for, so its number still means its group and nobody else's.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _lines(process: subprocess.Popen[bytes], program: str, deadline: float, ends: bytes) -> Iterator[str]:
    """The lines that `process` writes until it has ended. It is left unwaited for."""
    assert process.stdout is not None
    output = process.stdout.fileno()
    pending = b""
    with contextlib.ExitStack() as stack:
        ended = os.pidfd_open(process.pid)
        stack.callback(os.close, ended)
        selector = stack.enter_context(selectors.DefaultSelector())
        selector.register(output, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select(max(0.0, deadline - time.monotonic()))}
            if not ready:
                raise HostError(f"{Path(program).name} took too long", retryable=False)
            if output not in ready:
                break  # the process is at its end, and so is what it wrote; a child may still hold the pipe
            chunk = os.read(output, 65536)
            if not chunk:
                selector.unregister(output)
                output = -1
                continue
            *whole, pending = re.split(ends, pending + chunk)
            for text in whole:
                yield text.decode(errors="replace").rstrip("\r")
            if len(pending) > 65536:
                yield pending.decode(errors="replace")
                pending = b""
    if pending:
        yield pending.decode(errors="replace")


@contextlib.contextmanager
def _directory_of_nobody(path: Path) -> Iterator[pwd.struct_passwd]:
    """An empty directory that only nobody (and root) can use, gone at the end with what is in it."""
    nobody = pwd.getpwnam("nobody")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    try:
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
        yield nobody
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _last_words(lines: Sequence[str], status: int) -> str:
    kept = deque((text for text in lines if text.strip()), _KEPT_LINES)
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    return "; ".join([*kept, how]) if kept else how

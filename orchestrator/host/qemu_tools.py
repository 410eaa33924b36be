"""Runs QEMU's tools on layers, with as little as they need.

A guest has written what they read, so they run as QEMU's user, without capabilities, in a network namespace with
nothing in it, with limits on memory, file size and open files. Images are described to them whole, so that nothing is
probed or followed. Passphrases reach them by inherited descriptors: in no command line, environment or file.

A tool never outlives this process: it would write to a layer that the next one works on.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.host import CapacityError, HostError
from orchestrator.host.imagefile import GIB

_MEMORY_BYTES = 4 * GIB
_OPEN_FILES = 256
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_PROGRESS = re.compile(rb"\(([\d.]+)/100%\)")
_NO_ROOM = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))

Progress = Callable[[float], None]
Node = Mapping[str, object]  # an image, and those below it, as QEMU's blockdev-add takes it


class Passphrases:
    """What opens images, each under an id to which their descriptions refer. Close it after use."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}

    def add(self, passphrase: str) -> str:
        name = f"secret{len(self._files)}"
        file = os.memfd_create(name)
        self._files[name] = file
        os.write(file, passphrase.encode())
        return name

    def close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])

    def __enter__(self) -> Passphrases:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def lend(self) -> tuple[list[str], tuple[int, ...]]:
        """The arguments by which a tool finds them, and the descriptors that it must inherit."""
        objects = [("--object", f"secret,id={name},file=/dev/fd/{file}") for name, file in self._files.items()]
        return [word for pair in objects for word in pair], tuple(self._files.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """QEMU's tools as `owner` (user and group), or as whoever this is. A file may grow to `file_limit_bytes`."""

    owner: tuple[int, int] | None
    file_limit_bytes: int = 1 << 50

    def img(
        self,
        verb: str,
        *arguments: str,
        passphrases: Passphrases,
        timeout_s: float = 6 * 3600,
        accepted: Sequence[int] = (0,),
        progress: Progress | None = None,
    ) -> str:
        """Run `qemu-img verb`; what it writes. Raises CapacityError without room, HostError with any other status."""
        objects, inherited = passphrases.lend()
        command = self._alone("qemu-img", verb, *(("-p",) if progress else ()), *objects, *arguments)
        output = b""
        with _process(command, inherited) as process:
            for chunk in _read(process, time.monotonic() + timeout_s):
                output = (output + chunk)[-65536:]
                if progress and (seen := _PROGRESS.findall(chunk)):
                    progress(min(1.0, float(seen[-1]) / 100))
            status = process.wait()
        text = output.decode(errors="replace").strip()
        if status not in accepted:
            for image in (each for each in arguments if each.startswith("json:")):
                text = text.replace(image, "the image")
            raise _failure(f"qemu-img {verb}", text, status)
        return text

    def stream(self, image: Node, *, base: str, passphrases: Passphrases, timeout_s: float = 6 * 3600) -> None:
        """Copy into the image, whose node is called `top`, what it shows of those between it and the node `base` (of
        all, if that is empty), and leave its header as it is.

        That is QEMU's job without its last step: it would name the new backing file while what was copied is still in
        its memory, and whoever is killed then has lost it.
        """
        objects, inherited = passphrases.lend()
        described = json.dumps(image)
        command = self._alone(
            *("qemu-storage-daemon", *objects, "--blockdev", described),
            *("--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor"),
        )
        job: dict[str, object] = {"job-id": "stream", "device": "top", "auto-finalize": False}
        if base:
            job["base-node"] = base
        with _process(command, inherited, talks=True) as process:
            monitor = _Monitor(process, time.monotonic() + timeout_s, described)
            monitor.expect("QMP")
            monitor.execute("qmp_capabilities")
            monitor.execute("block-stream", job)
            copied = monitor.expect("BLOCK_JOB_PENDING", "BLOCK_JOB_COMPLETED")
            if copied["event"] != "BLOCK_JOB_PENDING":
                raise _failure("block-stream", str(copied["data"].get("error", "it ended too early")), 1)
            monitor.execute("block-job-cancel", {"device": "stream"})
            monitor.expect("BLOCK_JOB_CANCELLED")
            monitor.execute("quit")
            for _ in _read(process, time.monotonic() + timeout_s):
                pass
            if status := process.wait():
                raise _failure("qemu-storage-daemon", "", status)

    def _alone(self, *command: str) -> list[str]:
        limits = ["prlimit", f"--as={_MEMORY_BYTES}", f"--fsize={self.file_limit_bytes}", f"--nofile={_OPEN_FILES}"]
        limits += ["--core=0", "--"]
        # Who was orphaned before it could ask to die with its parent sees that it has another one.
        leashed = ["--pdeathsig", "KILL", "--", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]
        if os.geteuid() != 0:
            return [*limits, "setpriv", "--no-new-privs", *leashed, *command]
        user = [f"--reuid={self.owner[0]}", f"--regid={self.owner[1]}"] if self.owner is not None else []
        rights = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        return ["unshare", "--net", "--ipc", "--", *limits, "setpriv", *user, *rights, *leashed, *command]


class _Monitor:
    """QEMU's monitor protocol on the standard input and output of a tool."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float, image: str) -> None:
        self._process = process
        self._image = image
        self._chunks = _read(process, deadline)
        self._pending = b""
        self._events: list[dict[str, Any]] = []

    def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> None:
        assert self._process.stdin is not None
        message = {"execute": command, **({"arguments": arguments} if arguments else {})}
        with contextlib.suppress(BrokenPipeError):  # then it says below why it has ended
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        answer = self.expect("return", "error")
        if "error" in answer:
            raise _failure(command, str(answer["error"]["desc"]), 1)

    def expect(self, *kinds: str) -> dict[str, Any]:
        """The next message of one of these kinds: a key of it, or the name of an event."""
        while True:
            for message in self._events:
                if message.get("event") in kinds or any(kind in message for kind in kinds):
                    self._events.remove(message)
                    return message
            self._events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while True:
            line, newline, rest = self._pending.partition(b"\n")
            if newline:
                self._pending = rest
                try:
                    message = json.loads(line)
                except ValueError:
                    text = line.decode(errors="replace").replace(self._image, "the image")
                    raise _failure("qemu-storage-daemon", text, 1) from None
                if isinstance(message, dict):
                    return message
                continue
            chunk = next(self._chunks, b"")
            if not chunk:
                raise _failure("qemu-storage-daemon", "it ended too early", self._process.wait())
            self._pending += chunk


@contextlib.contextmanager
def _process(
    command: Sequence[str], inherited: tuple[int, ...], *, talks: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(
            command,
            cwd="/",
            env=_ENVIRONMENT,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=inherited,
        )
    except OSError as error:
        raise HostError(f"{command[0]} cannot be run: {error}", retryable=False) from error
    with process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)  # it is one process, which has become the tool


def _read(process: subprocess.Popen[bytes], deadline: float) -> Iterator[bytes]:
    """What it writes, until it has closed its output. Raises HostError when the time is up."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise HostError("one of QEMU's tools took too long", retryable=False)
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                return
            yield chunk


def _failure(what: str, text: str, status: int) -> HostError:
    words = text.replace("\r", "\n").strip().rpartition("\n")[2].removeprefix("qemu-img: ")
    how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    # The tools say it in words alone, which are the C library's.
    if any(each in text for each in _NO_ROOM):
        return CapacityError(f"{what}: there is no room on the disk ({words})")
    return HostError(f"{what}: {words or how}")

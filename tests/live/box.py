"""A host within the host, that a test may break: processes, links, mounts, libvirtd and /run of its own.

    the test ──+── Box.run(...), Box.connect(...)             enters the namespaces
               |
               +── Box.crash()     pulls the plug: every process of the box dies at once, and with them its links,
                                   namespaces, rules, mounts and /run
               +── Box.boot()      what is on the disk is there again, and nothing else

On the disk are the box's directory with the state of a controller and what libvirtd keeps under /etc and /var. The
network has no way out. `boot_id` differs from boot to boot, as the kernel's does. Cgroups alone are the host's: a crash
takes away those of the box's machines.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.host.command import alongside
from tests.live.conftest import Deployment, Guest, eventually, log_in

_KEPT = ("etc/libvirt", "var/lib/libvirt", "var/log/libvirt", "var/cache/libvirt")
DISK_MIB = 512
_CLONE_NEWNET = 0x40000000
_CGROUPS = Path("/sys/fs/cgroup")

# Process 1 of a box: makes its mounts, then does what process 1 has to, and ends with the test.
_INIT = """
import os, signal, subprocess, sys
place, boot_id, *kept = sys.argv[1:]
def run(*command):
    subprocess.run(command, check=True)
for name in kept:
    run("mount", "--bind", f"{place}/{name}", f"/{name}")
run("mount", "--rbind", "/sys/fs/cgroup", f"{place}/cgroup")
run("mount", "-t", "sysfs", "sysfs", "/sys")
run("mount", "--rbind", f"{place}/cgroup", "/sys/fs/cgroup")
run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
with open("/run/boot_id", "w") as file:
    print(boot_id, file=file)
run("mount", "--bind", "/run/boot_id", "/proc/sys/kernel/random/boot_id")
run("ip", "link", "set", "lo", "up")
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
print("up", flush=True)
while True:
    signal.sigwait({signal.SIGCHLD})
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


class Box:
    def __init__(self, place: Path) -> None:
        self.place = place
        self._outer: subprocess.Popen[str] | None = None
        self.pid = 0
        for name in (*_KEPT, "cgroup"):
            (place / name).mkdir(parents=True)
        shutil.copy("/etc/libvirt/qemu.conf", place / "etc/libvirt")
        (place / "etc/libvirt/libvirtd.conf").write_text(f'host_uuid = "{uuid.uuid4()}"\n')

    # --- its life ---

    def boot(self) -> None:
        flags = ("--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "--propagation=private")
        self._outer = subprocess.Popen(
            ["unshare", *flags, sys.executable, "-c", _INIT, str(self.place), str(uuid.uuid4()), *_KEPT],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # unshare complains when its child is killed
            text=True,
        )
        assert self._outer.stdout is not None
        assert self._outer.stdout.readline() == "up\n"
        self.pid = _child_of(self._outer.pid)
        self.run("virtlogd", "-d")
        self.start_libvirtd()

    def crash(self) -> None:
        """Pull the plug."""
        assert self._outer is not None
        os.kill(self.pid, signal.SIGKILL)
        self._outer.wait(60)
        assert self._outer.stdout is not None
        self._outer.stdout.close()
        self._outer = None
        for place in self.cgroups():
            for top, _, _ in os.walk(place, topdown=False):
                os.rmdir(top)

    def cgroups(self) -> list[Path]:
        """Of all machines that libvirt keeps a log of: its own cgroups, and what a controller has made."""
        machines = [path.stem for path in (self.place / "var/log/libvirt/qemu").glob("*.log")]
        return [
            place
            for place in (*_CGROUPS.glob("machine/*"), *_CGROUPS.glob("*/machine/*"))
            if place.is_dir() and any(name in place.name or (place / name).is_dir() for name in machines)
        ]

    def end(self) -> None:
        if self._outer is not None:
            self.crash()

    # --- libvirtd ---

    def start_libvirtd(self) -> None:
        self.run("libvirtd", "-d")

    def restart_libvirtd(self) -> None:
        """As `systemctl restart` does."""
        self.signal("libvirtd", signal.SIGTERM)
        eventually(lambda: not self.processes("libvirtd"), 30, "libvirtd has ended")
        self.start_libvirtd()

    def kill_libvirtd(self) -> None:
        self.signal("libvirtd", signal.SIGKILL)
        eventually(lambda: not self.processes("libvirtd"), 30, "libvirtd is dead")

    # --- inside ---

    @property
    def enter(self) -> tuple[str, ...]:
        """What comes before a command that is to run inside."""
        return ("nsenter", "--target", str(self.pid), "--all", f"--wd={os.getcwd()}")

    def run(self, *command: str, timeout_s: float = 30.0) -> str:
        done = subprocess.run([*self.enter, *command], capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stderr}"
        return done.stdout

    def path(self, path: str) -> Path:
        """A file of the box, as one outside sees it."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def processes(self, *words: str) -> list[int]:
        """Those with all these words on their command lines, by the ids that they have outside."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (each / "cmdline").read_bytes().decode(errors="replace")
                inside = os.readlink(each / "ns/pid") == space
                if inside and each.name != str(self.pid) and all(word in command for word in words):
                    found.append(int(each.name))
        return sorted(found)

    def signal(self, word: str, number: int) -> None:
        """To the processes with this word on their command lines."""
        found = self.processes(word)
        assert found, f"no {word} runs in the box"
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def connect(self, address: str, port: int, timeout_s: float = 5.0) -> socket.socket:
        """A TCP connection made inside."""

        def make() -> socket.socket:
            space = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(space, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "the box's network cannot be entered")
            finally:
                os.close(space)
            return socket.create_connection((address, port), timeout_s)

        return alongside(make).result()


def _child_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = eventually(lambda: children.read_text().split(), 30, f"{pid} has a child", every_s=0.01)
    return int(found[0])


class BoxedDeployment(Deployment):
    """A controller in a box. Clients outside reach it by a door that carries their connections in."""

    def __init__(self, box: Box, *flags: str) -> None:
        super().__init__(box.place / "state", *flags)
        self.box = box
        self.inner = 0
        self._door = socket.create_server(("127.0.0.1", 0))
        self._port_inside = 0

    def start(self, deadline_s: float = 60.0) -> None:
        """Inside, unless the box is down: then outside, where images can be built."""
        boxed = self.box.pid != 0
        self.command_before = self.box.enter if boxed else ()
        self.endpoint = ""
        super().start(deadline_s)
        assert self.process is not None
        self.inner = _child_of(self.process.pid) if boxed else self.process.pid
        if boxed:
            if not self._port_inside:
                _begin(self._admit)
            self._port_inside = int(self.endpoint.rpartition(":")[2])
            self.endpoint = f"http://127.0.0.1:{self._door.getsockname()[1]}"

    def end(self, number: int = signal.SIGTERM, deadline_s: float = 60.0) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.inner, number)
        code = self.process.wait(deadline_s)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()
        return code

    def close(self) -> None:
        self._door.close()
        with contextlib.suppress(sqlite3.OperationalError):  # it never began
            shutil.rmtree(f"/run/orc-{self.name}", ignore_errors=True)  # of the time outside

    def launch(self, count: int = 1, image: str = "tiny", **more: Any) -> list[Guest]:
        return [BoxedGuest(self, guest.id) for guest in super().launch(count, image, **more)]

    def _admit(self) -> None:
        while True:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            _begin(self._carry_in, near)

    def _carry_in(self, near: socket.socket) -> None:
        try:
            far = self.box.connect("127.0.0.1", self._port_inside)
        except OSError:
            near.close()
            return
        back = _begin(_copy, far, near)
        _copy(near, far)
        back.join()
        near.close()
        far.close()


def _begin(work: Callable[..., None], *about: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=about, name="door", daemon=True)
    thread.start()
    return thread


def _copy(source: socket.socket, sink: socket.socket) -> None:
    source.settimeout(None)
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class BoxedGuest(Guest):
    def _connection(self) -> Any:
        if self._client is None:
            address = self.public_ip
            through = self.deployment.box.connect(address, 22)  # type: ignore[attr-defined]
            try:
                self._client = log_in(address, self.user, self.deployment.key, through=through)
            except BaseException:
                through.close()
                raise
        return self._client


@contextlib.contextmanager
def make_box() -> Iterator[Box]:
    """On a small disk of its own, which can be filled."""
    place = Path(tempfile.mkdtemp(prefix="orc-box-", dir="/var/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=711", "tmpfs", str(place)], check=True)
    box = Box(place)
    try:
        yield box
    finally:
        box.end()
        assert box.cgroups() == []
        # The kernel takes a moment to let go of what its last processes had open.
        eventually(lambda: not subprocess.run(["umount", str(place)], check=False).returncode, 30, f"{place} is free")
        place.rmdir()

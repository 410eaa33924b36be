"""The controller as a process of its own: whether one runs for a state directory, starting it, ending it.

    nobody holds the lock --start--> holds the lock --(a second or two)--> answers /healthz
              ^                            |                                      |
              +--------(SIGTERM: finishes what is in flight)----------------------+

Whose it is, is known by the lock of the store: whoever has it open is the controller of that directory, however it was
started. Where the unit that ships is installed and serves the same configuration, systemd starts and ends it.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from orchestrator.config import KEYS, Config, ConfigError, load
from orchestrator.controller import credentials_file

UNIT = "orchestrator.service"
START_DEADLINE_S = 120.0  # a libvirt that has just been started probes QEMU first
STOP_DEADLINE_S = 60.0
_POLL_S = 0.1

_children: list[subprocess.Popen[bytes]] = []  # kept, so that nobody waits for their end but we


class BackgroundError(Exception):
    """The controller did not start or end; the message says where to look."""


class Background:
    """The controller of the state directory that `config` names."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.log = config.state_dir / "controller.log"
        self.pid_file = config.state_dir / "controller.pid"
        self._lock = config.state_dir.absolute() / "orchestrator.lock"

    def answers(self) -> bool:
        """Whether it runs and its API answers where the credentials file says."""
        if os.geteuid() == 0 and self.pid() is None:
            return False  # somebody else may be at that port by now
        try:
            endpoint = json.loads(credentials_file(self.config).read_text())["endpoint"]
        except (OSError, ValueError, KeyError):
            return False
        # Only whether it is there is asked; a certificate is checked by who sends credentials.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(f"{endpoint}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def pid(self) -> int | None:
        """The process that has the store's lock open."""
        if not self._lock.exists():
            return None
        with suppress(OSError, ValueError):
            pid = int(self.pid_file.read_text())
            if self._holds(pid):
                return pid
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid() and self._holds(int(entry.name)):
                return int(entry.name)
        return None

    def _holds(self, pid: int) -> bool:
        wanted = str(self._lock.resolve())
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{descriptor}") == wanted:
                        return True
        return False

    def start(self) -> None:
        """Start one unless one is there, and wait until its API answers."""
        if self.answers():
            return
        child: subprocess.Popen[bytes] | None = None
        if self.pid() is None:
            if self.unit_serves_this():
                self._systemctl("start")
            else:
                child = self._spawn()
        deadline = time.monotonic() + START_DEADLINE_S
        while not self.answers():
            if child is not None and child.poll() is not None:
                raise BackgroundError(
                    f"the controller ended at once:\n{self._log_tail()}\nIts log is {self.where_log()}"
                )
            if time.monotonic() > deadline:
                raise BackgroundError(
                    f"the controller does not answer after {START_DEADLINE_S:g} s; its log is {self.where_log()}"
                )
            time.sleep(_POLL_S)

    def stop(self) -> bool:
        """Let it finish what is in flight, and end; whether there was one."""
        pid = self.pid()
        if pid is None:
            return False
        if self.unit_serves_this() and self._unit_pid() == pid:
            self._systemctl("stop")
        else:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_DEADLINE_S
        while self._holds(pid):
            if time.monotonic() > deadline:
                raise BackgroundError(
                    f"the controller (process {pid}) has not ended after {STOP_DEADLINE_S:g} s; its log is "
                    f"{self.where_log()}. `kill -9 {pid}` ends it at once: guests go on, and the next one picks up"
                )
            time.sleep(_POLL_S)
        for child in _children:
            child.poll()
        self.pid_file.unlink(missing_ok=True)
        return True

    def where_log(self) -> str:
        return f"journalctl -u {UNIT}" if self.unit_serves_this() else str(self.log)

    def unit_serves_this(self) -> bool:
        """Whether the unit is installed and would read this very configuration from its file."""
        if not Path("/run/systemd/system").is_dir():
            return False
        if not any(Path(place, UNIT).exists() for place in ("/etc/systemd/system", "/usr/lib/systemd/system")):
            return False
        try:
            return load({}, {})[0] == self.config
        except ConfigError:
            return False

    def _systemctl(self, verb: str) -> None:
        done = subprocess.run(["systemctl", verb, UNIT], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BackgroundError(f"systemctl {verb} {UNIT}: {done.stderr.strip()}; see journalctl -u {UNIT}")

    def _unit_pid(self) -> int:
        shown = ["systemctl", "show", "--property", "MainPID", "--value", UNIT]
        return int(subprocess.run(shown, capture_output=True, text=True, check=False).stdout.strip() or 0)

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
        command = [sys.executable, "-P", "-m", "orchestrator", "serve", *as_flags(self.config)]
        # What the environment says is among the flags by now, with paths that do not depend on where we are.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ORC_")}
        environment["ORC_STORE_URL"] = self.config.store_url  # not among the flags: it may have a password
        environment["PATH"] = environment.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
        environment["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
        with open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640), "w") as log:
            child = subprocess.Popen(
                command,
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # neither a closed terminal nor Ctrl-C ends it
            )
        _children.append(child)
        self.pid_file.write_text(f"{child.pid}\n")
        return child

    def _log_tail(self, lines: int = 10) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def as_flags(config: Config) -> list[str]:
    """The flags that give this very configuration, whatever the files and the environment say; none for a secret."""
    flags = []
    for key in KEYS:
        if key.secret:
            continue
        value = getattr(config, key.attribute)
        if value and key.attribute in ("state_dir", "images_dir", "import_dir", "tls_certificate", "tls_key"):
            value = Path(value).absolute()
        flags += [f"{key.flag}={str(value).lower() if isinstance(value, bool) else value}"]
    return flags

"""A PostgreSQL server of the tests' own: a cluster in a temporary directory, on a socket there and no port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

SETTINGS = (
    "listen_addresses=",
    "shared_buffers=16MB",
    "max_connections=20",
    "max_wal_size=256MB",
    "autovacuum_naptime=1s",
)


class PostgresServer:
    """`initdb` and `postgres` refuse root, so they run as the user that Debian's package has made for them."""

    def __init__(self, *, durable: bool = True) -> None:
        """`durable=False` leaves syncing to the system: faster, and as good as long as the machine does not fail."""
        self._settings = (*SETTINGS, f"fsync={'on' if durable else 'off'}")
        self.directory = Path(tempfile.mkdtemp(prefix="orc-pg-"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self._user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.directory, user.pw_uid, user.pw_gid)
        self.data = self.directory / "data"
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None
        options = ["--auth=trust", "--username=orc", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        self._run("initdb", f"--pgdata={self.data}", *options)
        rules = self.data / "pg_hba.conf"
        rules.write_text("local all needs_password scram-sha-256\n" + rules.read_text())

    @staticmethod
    def _program(name: str) -> str:
        places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: int(place.parent.name))
        found = shutil.which(name, path=os.pathsep.join([*map(str, reversed(places)), os.environ["PATH"]]))
        assert found, f"{name} is not installed: bin/prepare --test does that"
        return found

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._program(name), *arguments], capture_output=True, text=True, check=False, cwd="/", **self._user
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, deadline_s: float = 30.0) -> None:
        """Until it answers. What a server that was killed has left may keep the next one from starting for a moment."""
        deadline = time.monotonic() + deadline_s
        pause = threading.Event()
        while True:
            if self._process is None or self._process.poll() is not None:
                settings = [f"-c{setting}" for setting in self._settings]
                with (self.directory / "log").open("ab") as log:
                    self._process = subprocess.Popen(
                        [self._program("postgres"), "-D", str(self.data), "-k", str(self.directory), *settings],
                        stdout=log,
                        stderr=log,
                        cwd="/",
                        **self._user,
                    )
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.directory / "log").read_text()[-3000:]
                pause.wait(0.05)
            else:
                return

    def end(self, number: int = signal.SIGINT) -> None:
        """SIGINT ends sessions and the server; SIGKILL the postmaster alone, whose children follow by themselves."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)

    def stand_still(self, number: int = signal.SIGSTOP) -> None:
        """Every process of it, until SIGCONT."""
        assert self._process is not None
        for place in Path("/proc").iterdir():
            with suppress(OSError):
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1]) if place.name.isdigit() else 0
                if parent == self._process.pid:
                    os.kill(int(place.name), number)
        os.kill(self._process.pid, number)

    def remove(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGQUIT)
        shutil.rmtree(self.directory)

    def url(self, database: str, user: str = "orc", password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@/{database}?host={self.directory}"

    def make_database(self) -> str:
        """The URL of one that is empty."""
        self._databases += 1
        name = f"store{self._databases}"
        self.sql(self.url("postgres"), f"CREATE DATABASE {name}")
        return self.url(name)

    @staticmethod
    def sql(url: str, statement: str, *values: Any) -> list[Any]:
        """As somebody else than the controller."""
        with psycopg.connect(url, autocommit=True, options="-csearch_path=orchestrator") as db:
            cursor = db.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def end_sessions(self, url: str) -> int:
        """Of controllers on a database, as an administrator may."""
        sql = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'orchestrator'"
        )
        return int(self.sql(url, sql)[0][0])

    def files_of(self, url: str) -> bytes:
        """What the files of a database have, as of now; not the server's log of changes."""
        self.sql(url, "CHECKPOINT")
        number = self.sql(url, "SELECT oid FROM pg_database WHERE datname = current_database()")[0][0]
        content = []
        for path in (self.data / "base" / str(number)).iterdir():
            with suppress(FileNotFoundError):  # the server makes and removes some as it likes
                content.append(path.read_bytes())
        return b"".join(content)

"""What a deployment takes of its host, counted from outside: by its marks, its ids, and what the kernel says of its
processes. Others on the same host are not counted.

    controller   its own memory, descriptors, threads      /proc/PID
    its own      processes, files, bytes of the store      marks: the deployment's name, the state directory
    host's       namespaces, links, tables, domains, ...   names: the ids that it has ever given
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

NETNS = Path("/run/netns")
CGROUPS = Path("/sys/fs/cgroup")
LIBVIRT_LOGS = Path("/var/log/libvirt/qemu")
LIBVIRT_STATE = (Path("/var/lib/libvirt/qemu"), Path("/run/libvirt/qemu"), Path("/etc/libvirt/qemu"))

# What the rows are called, in the order in which they are printed. Those of the first kind begin anew with each
# process of the controller.
PROCESS = ("memory KiB", "descriptors", "threads")
HOST = ("processes", "namespaces", "links", "tables", "cgroups", "domains", "secrets", "libvirt files")
STATE = ("run files", "state files", "store KiB", "rows", "waiting")


class Footprint:
    """`names` are ids that the deployment has given; `learn` adds to them."""

    def __init__(self, state_dir: Path, *, real: bool) -> None:
        self._state_dir = state_dir
        self._real = real
        self._names: set[str] = set()
        self.deployment = ""

    @property
    def rows(self) -> tuple[str, ...]:
        return (*PROCESS, *HOST, *STATE) if self._real else (*PROCESS, *STATE)

    def learn(self, names: Iterable[str]) -> None:
        self._names.update(names)

    def measure(self, pid: int) -> dict[str, int]:
        """Every row's figure. The store may be written meanwhile."""
        found = self._process(pid) | self._state()
        if self._real:
            found |= self._host(pid)
        return {row: found[row] for row in self.rows}

    def _process(self, pid: int) -> dict[str, int]:
        place = Path("/proc", str(pid))
        return {
            "memory KiB": own_kib(place),
            "descriptors": len(listing(place / "fd")),
            "threads": len(os.listdir(place / "task")),
        }

    def _state(self) -> dict[str, int]:
        database = self._state_dir / "orchestrator.db"
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=30.0)) as db:
            self.deployment = str(db.execute("SELECT value FROM meta WHERE name = 'deployment'").fetchone()[0])
            rows = sum(
                int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
                for table in ("resource", "token", "meta")
            )
            waiting = int(db.execute("SELECT count(*) FROM wake").fetchone()[0])
            # Events come until there are enough for a segment, which takes longer than most runs.
            events = "SELECT coalesce(sum(length(hash) + length(document) + 12), 0) FROM audit"
            events_kib = int(db.execute(events).fetchone()[0]) >> 10
        run = Path("/run", f"orc-{self.deployment}")
        # Segments of the audit log are meant to stay for ever.
        kept = [path for path in files(self._state_dir) if "audit" not in path.relative_to(self._state_dir).parts[0]]
        return {
            "run files": sum(1 for _ in files(run)),
            "state files": len(kept),
            "store KiB": (sum(path.stat().st_size for path in kept if path.name.startswith(database.name)) >> 10)
            - events_kib,
            "rows": rows,
            "waiting": waiting,
        }

    def _host(self, controller: int) -> dict[str, int]:
        namespaces = [name for name in listing(NETNS) if self._is_ours(name)]
        links = [place for place in Path("/sys/class/net").iterdir() if self._is_our_link(place)]
        domains, secrets = self._libvirt()
        return {
            "processes": sum(1 for pid in self._processes() if pid != controller),
            "namespaces": len(namespaces),
            "links": len(links),
            "tables": self._tables(namespaces),
            "cgroups": sum(1 for place in directories(CGROUPS) if self._is_ours(place)),
            "domains": domains,
            "secrets": secrets,
            "libvirt files": sum(
                1 for place in (LIBVIRT_LOGS, *LIBVIRT_STATE) for path in files(place) if self._is_ours(path.name)
            ),
        }

    def _is_ours(self, name: str) -> bool:
        return self.deployment in name or any(name.startswith(own) or f"-{own}" in name for own in self._names)

    def _is_our_link(self, place: Path) -> bool:
        with suppress(OSError):
            if self.deployment in (place / "ifalias").read_text():
                return True
        return self.deployment in place.name or any(name[:15] == place.name for name in self._names)

    def _processes(self) -> Iterator[int]:
        marks = (self.deployment.encode(), str(self._state_dir).encode())
        for entry in os.listdir("/proc"):
            with suppress(OSError):
                if entry.isdigit() and int(entry) != os.getpid():
                    line = Path("/proc", entry, "cmdline").read_bytes()
                    if any(mark in line for mark in marks):
                        yield int(entry)

    def _tables(self, namespaces: list[str]) -> int:
        count = sum(1 for line in said("nft", "list", "tables") if self._is_ours(line.rpartition(" ")[2]))
        for namespace in namespaces:
            count += len(said("ip", "netns", "exec", namespace, "nft", "list", "tables"))
        return count

    def _libvirt(self) -> tuple[int, int]:
        import libvirt

        connection = libvirt.open("qemu:///system")
        try:
            domains = [domain.name() for domain in connection.listAllDomains(0)]
            secrets = 0
            for secret in connection.listAllSecrets(0):
                with suppress(libvirt.libvirtError):
                    secrets += f"deployment {self.deployment}" in secret.XMLDesc(0)
        finally:
            connection.close()
        return len(self._names.intersection(domains)), secrets


def listing(place: Path) -> list[str]:
    try:
        return os.listdir(place)
    except (FileNotFoundError, PermissionError):
        return []


def own_kib(process: Path) -> int:
    """What a process has in memory that is no file's. Its part of what it shares with others would be more whenever one
    of them ends. A process that cannot be dumped shows root alone the exact figure."""
    wanted = {"smaps_rollup": "Anonymous:", "status": "RssAnon:"}
    for name, row in wanted.items():
        with suppress(PermissionError):
            lines = (process / name).read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith(row))
    return 0


def files(place: Path) -> Iterator[Path]:
    """Whatever is below, but directories."""
    for top, _, names in os.walk(place):
        for name in names:
            yield Path(top, name)


def directories(place: Path) -> Iterator[str]:
    for _, names, _ in os.walk(place):
        yield from names


def said(*command: str) -> list[str]:
    """The lines that a command prints; none when what it asks has gone."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()

"""What a check of the host finds, and the words and programs that checks have in common.

check ──► Finding      how it stands, in a sentence, and the commands that mend it where there are any
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_SBIN = ":/usr/sbin:/sbin"  # not in the path of everybody who may run this

Command = tuple[str, ...]


class Standing(StrEnum):
    OK = "ok"
    WARNING = "warning"  # it works, but not as well as it could
    FAILURE = "failure"  # instances cannot run


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    check: str
    standing: Standing
    text: str
    mend: tuple[Command, ...] = ()  # commands, in order


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What of the configuration matters to the checks."""

    state_dir: Path
    public_range: str
    egress: bool
    public_bridge: str = ""
    deployment: str = ""  # what bears its mark is ours and clashes with nothing
    router_ranges: tuple[str, ...] = ()  # addresses inside isolated networks
    accelerator: str = ""  # kvm or tcg where that is known already; else it is tried


def ok(check: str, text: str) -> Finding:
    return Finding(check=check, standing=Standing.OK, text=text)


def warn(check: str, text: str, *mend: Command) -> Finding:
    return Finding(check=check, standing=Standing.WARNING, text=text, mend=mend)


def fail(check: str, text: str, *mend: Command) -> Finding:
    return Finding(check=check, standing=Standing.FAILURE, text=text, mend=mend)


def which(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + _SBIN)


def ask(*command: str, timeout_s: float = 10.0) -> tuple[int, str]:
    """Exit code and output, both streams together; 127 when there is no such program, 124 after the time."""
    program = which(command[0])
    if program is None:
        return 127, f"{command[0]} is not installed"
    try:
        done = subprocess.run(
            (program, *command[1:]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, "PATH": os.environ.get("PATH", "") + _SBIN, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not answer in {timeout_s:g} s"
    except OSError as error:
        return 126, f"{command[0]} cannot be run: {error.strerror}"
    return done.returncode, done.stdout


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no answer"])[-1]


def read_version(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number) for number in found.groups() if number) if found else ()


def dotted(version: Sequence[int]) -> str:
    return ".".join(str(number) for number in version)

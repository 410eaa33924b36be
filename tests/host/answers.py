"""A host whose programs answer what a test says, for checks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.host import findings, network_checks
from orchestrator.host.findings import Expectation

Answers = dict[str, tuple[int, str]]


@pytest.fixture
def expected(tmp_path: Path) -> Expectation:
    return Expectation(
        state_dir=tmp_path / "state",
        public_range="203.0.113.0/24",
        egress=True,
        deployment="0a1b2c3d",
        router_ranges=("172.31.0.0/16",),
    )


@pytest.fixture
def host_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answers], list[str]]:
    """Answers by the beginning of a command line; what was asked is recorded. Nothing else is installed."""

    def say(answers: Answers) -> list[str]:
        asked: list[str] = []

        def run(*command: str, timeout_s: float = 0) -> tuple[int, str]:
            line = " ".join(command)
            asked.append(line)
            fitting = [start for start in answers if line.startswith(start)]
            return answers[max(fitting, key=len)] if fitting else (127, f"{command[0]} is not installed")

        monkeypatch.setattr(findings, "ask", run)
        monkeypatch.setattr(network_checks, "_BRIDGED_FRAMES_SEE_IPTABLES", Path("/nonexistent"))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        return asked

    return say

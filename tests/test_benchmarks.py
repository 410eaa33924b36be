"""The benchmarks load, and what they compare with is what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


def run(code: str) -> str:
    environment = {"PYTHONPATH": f"{ROOT / 'benchmarks'}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_loads(name: str) -> None:
    run(f"import {name}")


def test_the_plain_qemu_is_started_as_libvirt_starts_its_own() -> None:
    words = ["-name", "guest=i-1", "-S", "-m", "512", "-append", "console=ttyS0 quiet", "-no-hpet"]
    words += ["-chardev", "socket,id=charmonitor,fd=1", "-chardev", "socket,id=charserial0,fd=2"]
    words += ["-netdev", '{"type":"tap","fd":"33","id":"hostnet0"}', "-device", '{"netdev":"hostnet0"}', "-msg", "x"]
    code = f"""
import json, launch, pathlib
bench = launch.Bench.__new__(launch.Bench)
bench._scratch = pathlib.Path("/s")
print(json.dumps([word for pair in launch.options({words!r}) for word in bench._plain_option(*pair)]))
"""
    import json

    plain = json.loads(run(code))
    assert plain == [
        *("-name", "plain", "-m", "512", "-append", "console=ttyS0 quiet", "-no-hpet"),
        *("-chardev", "file,id=charserial0,path=/s/serial"),
        *("-netdev", "tap,id=hostnet0,ifname=orcbench0,script=no,downscript=no", "-device", '{"netdev":"hostnet0"}'),
    ]


def test_many_clients_at_once_are_all_served() -> None:
    """The load of an hour in short: 64 clients, no error but throttling, no write that starves."""
    command = [sys.executable, str(ROOT / "benchmarks" / "clients.py"), "--minutes", "0.2", "--longest-wait", "15"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*command, "--no-moto"], env=environment, capture_output=True, text=True, check=False, timeout=150
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"errors: 0$", done.stdout, re.MULTILINE)
    for action in ("RunInstances", "AttachVolume", "DeleteSecurityGroup", "DescribeInstances a page of 100"):
        assert re.search(rf"^{action} +\d", done.stdout, re.MULTILINE), f"nobody called {action}"


def test_work_for_a_while_leaves_nothing_behind() -> None:
    """Hours of mixed work in short; what caches take at the beginning is not counted."""
    command = [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--host", "memory", "--minutes", "0.2"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=150)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("leaks: none\n")


def test_a_line_that_rises_is_a_leak_and_noise_is_none() -> None:
    code = """
import random
from trend import Sample, trend
dice = random.Random(1)
def verdict(row, per_call, noise, lives=1):
    samples = [
        Sample(at * 10.0, at * 500, at * lives // 100,
               {row: round(90000 + per_call * 500 * (at % (100 // lives)) + dice.gauss(0, noise))})
        for at in range(100)
    ]
    return trend(row, samples).leaks
print([
    verdict("descriptors", 0, 0),
    verdict("descriptors", 0, 5),
    verdict("descriptors", 0.0001, 0.2),
    verdict("memory KiB", 0, 2000),
    verdict("memory KiB", 0.2, 2000),
    verdict("memory KiB", 0.2, 500, lives=4),
    verdict("rows", 0.2, 500, lives=4),
])
"""
    assert run(code) == "[False, False, True, False, True, True, False]\n"


@pytest.mark.timing
def test_size_is_borne() -> None:
    """The benchmark of size in short: all of its parts work. That costs do not grow is `tests/api/ec2/test_growth.py`'s
    to show."""
    command = [sys.executable, str(ROOT / "benchmarks" / "scale.py"), "--instances", "200", "--slack", "4"]
    parts = [word for part in ("fill", "describe", "memory", "start") for word in ("--only", part)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run([*command, *parts], env=environment, capture_output=True, text=True, check=False, timeout=110)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^(\d+) of \1 figures met$", done.stdout, re.MULTILINE)

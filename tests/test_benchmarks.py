"""The benchmarks load, and what they compare with is what they say."""

from __future__ import annotations

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

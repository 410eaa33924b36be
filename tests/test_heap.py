"""What the controller's heap gives back, seen in a process of its own: settings of the C library cannot be undone."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable

import pytest

from orchestrator import heap

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has its own ways")

_ASIDE = """
import ctypes, json
from pathlib import Path
from threading import Thread
from orchestrator import heap

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def kib():
    [row] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(row.split()[1])

def filled(size):
    place = libc.malloc(size)
    ctypes.memset(place, 1, size)
    return place
"""


def aside(code: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", _ASIDE + code], capture_output=True, check=True, timeout=60)
    found: list[int] = json.loads(done.stdout)
    return found


def test_holes_between_what_lives_long_are_given_back() -> None:
    before, held, given_back = aside("""
before = kib()
places = [filled(9000) for _ in range(4000)]
for number, place in enumerate(places):
    if number % 8:
        libc.free(place)
held = kib()
heap.give_back()
print(json.dumps([before, held, kib()]))
""")
    assert held - before > 30_000
    assert given_back - before < 12_000


def test_threads_have_one_heap() -> None:
    (heaps,) = aside("""
heap.keep_small()
places = []
for _ in range(4):
    thread = Thread(target=lambda: places.append(filled(1000)))
    thread.start()
    thread.join()
first, last = [(int(end, 16)) for end in next(
    line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]")
).split()[0].split("-")]
print(json.dumps([sum(first <= place < last for place in places)]))
""")
    assert heaps == 4


@pytest.mark.parametrize("call", [heap.keep_small, heap.give_back])
def test_another_c_library_is_left_alone(call: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    call()

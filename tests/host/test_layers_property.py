"""Layers do what they should in any order, and however they are cut off.

A random sequence of what reconcilers and guests do to layers is done to files and to a model of plain bytes. Some calls
are made by a process that is killed on its way: on a line of the code, or after a while, in the middle of what a tool
does. Then nothing may be lost, no tool may go on, and the next process either repeats the call or undoes it.

A run is a seed: ORC_STORAGE_SEED=7 runs that one alone, ORC_STORAGE_STEPS=5000 longer than usual. What a tool has done
when it is killed differs from run to run; all else does not.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from orchestrator.host import HostError, LayerFile
from orchestrator.host.qcow2 import QcowStorage
from tests.host.layer_io import read_all, run_io

SECTOR = 512
MIB = 1 << 20
OWNER = (65534, 65534)
LARGEST = 5 * MIB
MOST_LAYERS = 24
SEEDS = [int(os.environ["ORC_STORAGE_SEED"])] if "ORC_STORAGE_SEED" in os.environ else [1, 2, 3, 4]
STEPS = int(os.environ.get("ORC_STORAGE_STEPS", "400"))
WATCHED = {"layers.py", "qcow2_header.py", "qemu_tools.py"}


@dataclass(slots=True)
class Layer:
    parent: str
    secret: bytes
    sealed: bool
    content: bytearray  # of the whole chain


class World:
    """The files, and what should be in them."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place = place
        self.random = random.Random(seed)
        self.layers: dict[str, Layer] = {}
        self.log: list[str] = []
        self.killed = 0
        self._made = 0
        self.start()

    def start(self) -> None:
        """A new process begins."""
        self.storage = QcowStorage(self.place / "state", self.place / "images", owner=OWNER)

    # --- what is done ---

    def step(self) -> None:
        weights = {
            self.make: 2,
            self.write: 5,
            self.snapshot: 6,
            self.clone: 6,
            self.resize: 3,
            self.copy: 2,
            self.merge: 4,
            self.seal: 3,
            self.remove: 6 if len(self.layers) < MOST_LAYERS else 60,
            self.verify: 1,
            self.restart: 2,
        }
        chosen = self.random.choices(list(weights), list(weights.values()))[0]
        self.log.append(chosen.__name__)
        chosen()
        self.compare()

    def make(self) -> None:
        size_bytes = self.random.randrange(1, 2 * MIB // SECTOR) * SECTOR
        name, secret = self.new_name(), self.random_secret()
        self.create(name, "", size_bytes, secret)

    def snapshot(self) -> None:
        """A volume gets a new top, and the old one is sealed."""
        top = self.choose(lambda layer: not layer.sealed)
        if top:
            self.create(self.new_name(), top, self.size(top), self.layers[top].secret or self.random_secret())

    def clone(self) -> None:
        parent = self.choose(lambda layer: layer.sealed)
        if parent:
            size_bytes = self.larger(self.size(parent)) if self.random.random() < 0.3 else SECTOR
            self.create(self.new_name(), parent, size_bytes, self.layers[parent].secret or self.random_secret())

    def create(self, name: str, parent: str, size_bytes: int, secret: bytes) -> None:
        self.log.append(f"{name} on {parent or 'nothing'}{', encrypted' if secret else ''}")
        was_sealed = not parent or self.layers[parent].sealed

        def undo() -> None:
            self.storage.remove_layer(name)
            if not was_sealed:
                self.storage.unseal_layer(parent)

        def call() -> None:
            self.storage.create_layer(name, size_bytes=size_bytes, parent=parent, secret=secret)

        if self.do(call, undo):
            below = self.layers[parent].content if parent else bytearray()
            content = below + bytes(max(0, size_bytes - len(below)))
            self.layers[name] = Layer(parent, secret, False, content)
            if parent:
                self.layers[parent].sealed = True

    def resize(self) -> None:
        name = self.choose(lambda layer: not layer.sealed)
        if not name or self.size(name) >= LARGEST:
            return
        layer = self.layers[name]
        size_bytes = self.larger(len(layer.content))
        self.log.append(f"{name} to {size_bytes}")

        def call() -> None:
            self.storage.create_layer(name, size_bytes=size_bytes, parent=layer.parent, secret=layer.secret)

        self.do(call, None)
        layer.content += bytes(size_bytes - len(layer.content))

    def write(self) -> None:
        name = self.choose(lambda layer: not layer.sealed)
        if not name:
            return
        content = self.layers[name].content
        commands = []
        for _ in range(self.random.randrange(1, 8)):
            sectors = len(content) // SECTOR
            first = self.random.randrange(sectors)
            offset, length = first * SECTOR, self.random.randrange(1, min(sectors - first, 700) + 1) * SECTOR
            pattern = self.random.choice([0, self.random.randrange(1, 256), self.random.randrange(1, 256)])
            how = f"-P {pattern}" if pattern else self.random.choice(["-z", "-z -u", "-P 0"])
            commands.append(f"write {how} {offset} {length}")
            content[offset : offset + length] = bytes([pattern]) * length
        self.log.append(f"{name}: {'; '.join(commands)}")
        run_io(self.storage, self.chain(name), *commands)

    def copy(self) -> None:
        source = self.choose(lambda layer: True)
        if not source:
            return
        name, secret = self.new_name(), self.random_secret()
        size_bytes = self.random.choice([SECTOR, self.larger(self.size(source))])
        self.log.append(f"{name} of {source}{', encrypted' if secret else ''}")
        chain = self.chain(source)

        def call() -> None:
            self.storage.copy_layer(name, chain, size_bytes=size_bytes, secret=secret)

        if self.do(call, lambda: self.storage.remove_layer(name)):
            content = self.layers[source].content
            content = content + bytes(max(0, size_bytes - len(content)))
            self.layers[name] = Layer("", secret, False, content)

    def merge(self) -> None:
        top = self.choose(lambda layer: bool(layer.parent))
        if not top:
            return
        chain = self.chain(top)
        onto = self.random.choice(["", *(each.layer for each in chain[1:])])
        self.log.append(f"{top} onto {onto or 'nothing'}")

        def leave() -> None:
            status = self.storage.observe_layer(top)
            assert status is not None
            assert status.parent in (self.layers[top].parent, onto)
            self.layers[top].parent = status.parent
            if self.layers[top].sealed:
                self.storage.seal_layer(top)

        if self.do(lambda: self.storage.merge_layer(chain, onto), leave):
            self.layers[top].parent = onto
        self.check(top)

    def seal(self) -> None:
        name = self.choose(lambda layer: not layer.sealed)
        if name:
            self.log.append(name)
            self.do(lambda: self.storage.seal_layer(name), None)
            self.layers[name].sealed = True

    def remove(self) -> None:
        parents = {layer.parent for layer in self.layers.values()}
        leaves = [name for name in self.layers if name not in parents]
        if leaves:
            name = self.random.choice(leaves)
            self.log.append(name)
            self.do(lambda: self.storage.remove_layer(name), None)
            del self.layers[name]

    def verify(self) -> None:
        name = self.choose(lambda layer: True)
        if name:
            assert self.storage.verify_layer(self.chain(name)) == []

    def restart(self) -> None:
        self.start()

    # --- how ---

    def do(self, call: Callable[[], None], undo: Callable[[], None] | None) -> bool:
        """Make a call, or have it made by a process that is killed, and then repeat it, or undo it. Whether it is
        done."""
        if self.random.random() < 0.6:
            call()
            return True
        self.killed += run_and_kill(call, self.random)
        until_no_tool_runs(self.place)
        self.start()
        assert hidden(self.place) == []
        if self.random.random() < 0.5:
            for name in self.layers:  # its content is there, whatever has become of the call
                if name in self.storage.layers() and self.random.random() < 0.2:
                    self.check(name)
        if undo is not None and self.random.random() < 0.4:
            self.log.append("undone")
            undo()
            return False
        self.log.append("repeated")
        call()
        call()
        return True

    def compare(self) -> None:
        """What is cheap to compare, of all, and now and then the content of one."""
        assert self.storage.layers() == sorted(self.layers)
        for name, layer in self.layers.items():
            status = self.storage.observe_layer(name)
            assert status is not None
            assert (status.parent, status.size_bytes) == (layer.parent, len(layer.content)), name
            assert self.storage.layer_path(name).stat().st_mode & 0o7777 == (0o440 if layer.sealed else 0o600), name
        assert hidden(self.place) == []
        if self.layers and self.random.random() < 0.1:
            self.check(self.random.choice(list(self.layers)))

    def check(self, name: str) -> None:
        """The content, by what the files say of themselves."""
        chain: list[LayerFile] = []
        below = name
        while below:
            chain.append(LayerFile(below, self.layers[below].secret))
            status = self.storage.observe_layer(below)
            assert status is not None, below
            below = status.parent
        content, expected = read_all(self.storage, chain, self.place / "content"), self.layers[name].content
        if content[: len(expected)] != expected:  # comparing them with assert would print megabytes
            at = next(at for at, (byte, other) in enumerate(zip(content, expected, strict=False)) if byte != other)
            raise AssertionError(f"{name} has {content[at]} at {at}, and should have {expected[at]}")
        assert len(content) >= len(expected)
        assert not any(content[len(expected) :])  # grown already, by a call that was cut off

    def chain(self, name: str) -> list[LayerFile]:
        found: list[LayerFile] = []
        while name:
            found.append(LayerFile(name, self.layers[name].secret))
            name = self.layers[name].parent
        return found

    def choose(self, is_wanted: Callable[[Layer], bool]) -> str:
        wanted = [name for name, layer in self.layers.items() if is_wanted(layer)]
        return self.random.choice(wanted) if wanted else ""

    def size(self, name: str) -> int:
        return len(self.layers[name].content)

    def larger(self, size_bytes: int) -> int:
        return size_bytes + self.random.randrange(1, MIB // SECTOR) * SECTOR

    def new_name(self) -> str:
        self._made += 1
        return f"layer-{self._made}"

    def random_secret(self) -> bytes:
        return self.random.randbytes(32) if self.random.random() < 0.3 else b""


def run_and_kill(call: Callable[[], None], choices: random.Random) -> bool:
    """Have another process make the call, and kill it on a line of our code, or after a while. Whether it was killed
    before it was done."""
    by_line = choices.random() < 0.6
    line, while_s = choices.randrange(1, 160), choices.random() ** 2 * 0.08
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if by_line:
                sys.settrace(_kill_on_line(line))
            call()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    ended = os.pidfd_open(child)
    try:
        if not by_line:
            select.select([ended], [], [], while_s)
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(ended)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), "the call failed in the process that was to be killed"
    return status != 0


def _kill_on_line(number: int) -> Any:
    left = number

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if os.path.basename(frame.f_code.co_filename) not in WATCHED:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def until_no_tool_runs(place: Path) -> None:
    """A tool ends with the process that has started it, and at once."""
    needle = os.fsencode(place)
    deadline = time.monotonic() + 5
    again = threading.Event()
    while any(needle in command for command in _commands()):
        assert time.monotonic() < deadline, "a tool goes on after its process was killed"
        again.wait(0.002)


def _commands() -> list[bytes]:
    found: list[bytes] = []
    for number in os.listdir("/proc"):
        if number.isdigit() and int(number) != os.getpid():
            with contextlib.suppress(OSError), open(f"/proc/{number}/cmdline", "rb") as file:
                found.append(file.read())
    return found


def hidden(place: Path) -> list[str]:
    """What is being made, or was left of that."""
    state = place / "state"
    return [name for part in ("layers", "exports", "making") for name in os.listdir(state / part) if name[0] == "."]


@pytest.fixture
def place() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="orc-"))
    directory.chmod(0o711)  # QEMU's user passes through
    yield directory
    shutil.rmtree(directory)


@pytest.mark.host
@pytest.mark.timeout(max(300, STEPS))
@pytest.mark.parametrize("seed", SEEDS)
def test_layers_do_what_they_should_however_they_are_cut_off(place: Path, seed: int) -> None:
    world = World(place, seed)
    try:
        for _ in range(STEPS):
            world.step()
        for name in world.layers:
            world.check(name)
            assert world.storage.verify_layer(world.chain(name)) == []
    except (AssertionError, HostError) as error:
        last = "\n".join(world.log[-12:])
        error.add_note(f"ORC_STORAGE_SEED={seed} replays it; what was done last:\n{last}")
        raise
    assert world.killed > STEPS // 50

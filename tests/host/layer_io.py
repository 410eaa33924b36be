"""Reads and writes layers as a machine would, by qemu-io."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestrator.host import LayerFile
from orchestrator.host.qcow2 import QcowStorage
from orchestrator.host.qemu_tools import Passphrases


def run_io(storage: QcowStorage, chain: Sequence[LayerFile], *commands: str) -> str:
    """Run commands of qemu-io, as `write -P 7 0 64k`, on the top of `chain`. Each must succeed, and find the pattern
    (-P) that it expects."""
    words = [word for command in commands for word in ("-c", command)]
    readers = ["-r"] if all(command.startswith("read") for command in commands) else []
    with _described(storage, chain) as (image, objects, inherited):
        done = _run(["qemu-io", *objects, *readers, *words, image], inherited)
    assert "failed" not in done, done
    return done


def read_all(storage: QcowStorage, chain: Sequence[LayerFile], scratch: Path) -> bytes:
    """The content of the top of `chain`; `scratch` is a file for the while."""
    with _described(storage, chain) as (image, objects, inherited):
        _run(["qemu-img", "convert", *objects, "-O", "raw", image, str(scratch)], inherited)
    try:
        return scratch.read_bytes()
    finally:
        scratch.unlink()


@contextlib.contextmanager
def _described(storage: QcowStorage, chain: Sequence[LayerFile]) -> Iterator[tuple[str, list[str], tuple[int, ...]]]:
    """The image as QEMU takes it, the arguments that it needs for it, and the descriptors."""
    node: dict[str, object] | None = None
    with Passphrases() as passphrases:
        for layer in reversed(chain):
            below = node
            node = {
                "driver": "qcow2",
                "file": {"driver": "file", "filename": str(storage.layer_path(layer.layer))},
                "backing": below,
                "discard": "unmap",
            }
            if layer.secret:
                node["encrypt"] = {"format": "luks", "key-secret": passphrases.add(layer.passphrase)}
        yield ("json:" + json.dumps(node), *passphrases.lend())


def _run(command: Sequence[str], inherited: tuple[int, ...]) -> str:
    done = subprocess.run(
        command, pass_fds=inherited, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

"""The controller as it is, which kills itself at a point: `python -m tests.live.dying FILE serve ...`.

FILE names the point, and "before" or "after": "compute.start after". Without the file nothing happens. It is removed
when the point is reached, and then the process is sent SIGKILL, so that nothing of it has another word. Points are the
effects on the host, and commits by who commits: "commit RunInstances", "commit instance".
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from orchestrator import controller
from orchestrator.__main__ import serve
from orchestrator.config import Config
from orchestrator.host import Host
from orchestrator.host.points import at_points
from orchestrator.store import Store

RECONCILERS = "orchestrator.reconcile."


class Dying:
    def __init__(self, told: Path) -> None:
        self._told = told
        self._lock = threading.Lock()

    def around(self, point: str, call: Callable[[], Any]) -> Any:
        self._end(f"{point} before")
        answer = call()
        self._end(f"{point} after")
        return answer

    def commit(self, call: Callable[[], None]) -> None:
        self.around(f"commit {_who()}", call)

    def _end(self, here: str) -> None:
        with self._lock:
            try:
                wanted = self._told.read_text()
            except FileNotFoundError:
                return
            if wanted == here:
                self._told.unlink()
                os.kill(os.getpid(), signal.SIGKILL)


def _who() -> str:
    """The operation or the reconciler that called."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith(RECONCILERS):
            return name.removeprefix(RECONCILERS)
        if name == "orchestrator.api.operation" and frame.f_code.co_name == "dispatch":
            return str(frame.f_locals["bound"].name)
    return "other"


def main() -> None:
    dying = Dying(Path(sys.argv[1]))

    def compose(config: Config, store: Store, host: Host) -> controller.Controller:
        store.around_commit = dying.commit
        return controller.Controller(config, store, at_points(host, dying.around))

    with mock.patch("orchestrator.serve.Controller", compose):
        serve.main(sys.argv[3:])


if __name__ == "__main__":
    main()

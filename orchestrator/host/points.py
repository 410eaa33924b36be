"""Every effect on the host as a named point, at which something may happen: tests end the controller there, let the
call fail, hang, or succeed and report failure.

    at_points(host, around)      around("storage.create_layer", call) stands in the place of call()

EFFECTS names the calls that change the host, LOOKS those that do not; each method of the Protocols is in exactly one
of them, which a test keeps so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from orchestrator.host import Compute, Host, Network, Storage

Around = Callable[[str, Callable[[], Any]], Any]

EFFECTS = {
    "compute": frozenset(
        {
            "start",
            "ask_to_stop",
            "ask_to_reboot",
            "reset",
            "plug_in",
            "unplug",
            "plug_in_disk",
            "unplug_disk",
            "switch_disks",
            "resize_disk",
            "limit_disk",
            "flatten_disk",
            "flush_disks",
            "stop_flattening",
            "resume",
            "remove",
            "forget",
        }
    ),
    "storage": frozenset(
        {
            "create_layer",
            "copy_layer",
            "merge_layer",
            "reparent_layer",
            "seal_layer",
            "unseal_layer",
            "export_layer",
            "remove_export",
            "remove_layer",
            "build_image",
            "receive_upload",
            "import_image",
            "remove_kernel",
            "remove_upload",
        }
    ),
    "network": frozenset({"apply", "remove", "remove_leaks", "listen", "flows"}),
}
LOOKS = {
    "compute": frozenset(
        {
            "observe",
            "names",
            "console",
            "console_socket",
            "screenshot",
            "watch",
            "capacity",
            "accelerator",
            "close",
        }
    ),
    "storage": frozenset(
        {
            "checksum_layer",
            "verify_layer",
            "observe_layer",
            "layers",
            "catalogue",
            "recipes",
            "kernels",
            "free_bytes",
            "total_bytes",
        }
    ),
    "network": frozenset({"plan", "trace", "routers", "leaks", "connect", "close"}),
}


class _Room:
    """One of a host's three, whose effects go through `around`."""

    def __init__(self, room: str, real: object, around: Around) -> None:
        self._room, self._real, self._around = room, real, around

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name not in EFFECTS[self._room]:
            return found

        def call(*args: Any, **named: Any) -> Any:
            return self._around(f"{self._room}.{name}", partial(found, *args, **named))

        return call


def at_points(host: Host, around: Around) -> Host:
    """`host`, with `around(point, call)` in the place of each effect's call."""
    return Host(
        compute=cast(Compute, _Room("compute", host.compute, around)),
        storage=cast(Storage, _Room("storage", host.storage, around)),
        network=cast(Network, _Room("network", host.network, around)),
    )

"""`orc serve` on a hollow host: its network and storage are the real ones, and its machines are only said to run.

    python benchmarks/hollow.py --state-dir DIR --port 0 --network-public-range RANGE ...    flags as of `orc serve`

So what a controller does for ten thousand instances can be measured, namespaces, rules and files included, where no
host would run so many guests. A guest that is not there has no tap, and is said to answer ssh at once. `sweep` removes
what is left on the host when it has ended. Needs root.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from orchestrator.config import KEYS, Config, load
from orchestrator.controller import deployment_id, images_dir, open_store, run_directory
from orchestrator.host import Host
from orchestrator.host.memory import MemoryCompute
from orchestrator.host.netns import NetnsNetwork
from orchestrator.host.qcow2 import QcowStorage
from orchestrator.serve import serve


class HollowNetwork(NetnsNetwork):
    """Guests are said to answer."""

    def connect(self, router: str, address: str, port: int, timeout_s: float) -> socket.socket:
        ours, guests = socket.socketpair()
        guests.close()
        return ours


def build_hollow(config: Config, deployment: str, accelerator: Callable[[], str]) -> Host:
    network = _network(config, deployment)
    return Host(compute=MemoryCompute(), storage=QcowStorage(config.state_dir, images_dir(config)), network=network)


def _network(config: Config, deployment: str) -> HollowNetwork:
    run_dir = run_directory(deployment)
    run_dir.mkdir(mode=0o711, exist_ok=True)
    ranges = {"public_range": IPv4Network(config.public_range), "ipv6_range": IPv6Network(config.ipv6_range)}
    return HollowNetwork(deployment, run_dir / "routers", **ranges)  # type: ignore[arg-type]


def sweep(config: Config) -> None:
    """Remove what the controller of a state directory has left in the host's network."""
    with closing(open_store(config)) as store:
        deployment = deployment_id(store)
    _network(config, deployment).remove_leaks(set(), set())
    shutil.rmtree(run_directory(deployment), ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="orc serve, with machines that are only said to run")
    for key in KEYS:
        parser.add_argument(key.flag, dest=key.attribute, help=key.about.replace("%", "%%"))
    config, _ = load(vars(parser.parse_args()))
    if os.geteuid() != 0:
        raise SystemExit("namespaces need root: use sudo")
    return serve(replace(config, host="memory"), build_hollow)


if __name__ == "__main__":
    sys.exit(main())

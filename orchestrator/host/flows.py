"""Flows since the last look: what the kernel counts goes on growing, so a look is the difference from the one before.

The first look of a process at a router tells nothing: what is there may have been told already, by a process before.
A count that is smaller than it was began anew (it was idle for long, or its table was replaced), and is told whole.
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.host import Flow, HostError, Router
from orchestrator.host.command import inside, run
from orchestrator.host.ruleset import ROUTER_TABLE, flow_sets, read_flows

Counts = dict[Flow, tuple[int, int]]  # by the flow without its counts: packets and octets


class FlowCounts:
    def __init__(self) -> None:
        self._told: dict[str, Counts] = {}

    def since(self, router: Router) -> list[Flow]:
        """What ports with `log` have sent and received since this was last asked."""
        names = flow_sets(router)
        if not names:
            self._told.pop(router.name, None)
            return []
        found = read_flows(router, _listings(router.name, names))
        before = self._told.get(router.name)
        self._told[router.name] = {_key(flow): (flow.packets, flow.octets) for flow in found}
        if before is None:
            return []
        return [flow for each in found if (flow := _grown(each, before.get(_key(each), (0, 0)))).packets]

    def forget(self, router: str) -> None:
        self._told.pop(router, None)


def _listings(router: str, names: tuple[str, ...]) -> list[str]:
    """One by one, since nft 1.0.6 finds but the last set that one request names."""

    def ask() -> list[str]:
        return [run(["nft", "-n", "-j", "list", "set", *ROUTER_TABLE, name]) for name in names]

    try:
        return inside(router, ask)
    except FileNotFoundError as error:
        raise HostError(f"{router} is not on this host") from error


def _key(flow: Flow) -> Flow:
    return replace(flow, packets=0, octets=0)


def _grown(flow: Flow, before: tuple[int, int]) -> Flow:
    packets, octets = before
    if flow.packets < packets:
        return flow
    return replace(flow, packets=flow.packets - packets, octets=flow.octets - octets)

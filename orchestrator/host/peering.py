"""Cables between routers: a veth from one router's namespace to the other's, there while the plans of both name it.

      vpc-1...  pcx-0123456789a ============ pcx-0123456789a  vpc-2...
                fe80::1                               fe80::2

Whoever is applied second makes it, and tells the first one to route by it. Whoever stops naming it takes it away, and
has the other one drop what it sent there. IPv4 is routed by IPv6 next hops (RFC 5549), so no addresses are spent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from orchestrator.host import Router
from orchestrator.host.command import (
    address_changes,
    delete_links,
    inside,
    ip,
    namespace_exists,
    write_sysctls,
)
from orchestrator.host.edge import link_settings
from orchestrator.host.links import MTU_BYTES, peer_address, peer_name
from orchestrator.host.netlink import Link, links


class Cables:
    """The cables of a deployment. `settle` makes a router's routes what its plan says, with the links that it has."""

    def __init__(self, edge: str, settle: Callable[[Router], None]) -> None:
        self._edge = edge
        self._settle = settle
        self._lock = threading.Lock()
        self._plans: dict[str, Router] = {}  # as last applied by this process

    def plan_of(self, router: str) -> Router | None:
        return self._plans.get(router)

    def make(self, router: Router) -> dict[str, Link]:
        """In the router's namespace, whose rules are loaded. Returns the links that are there then."""
        with self._lock:
            self._plans[router.name] = router
            present = links(with_addresses=True)
            named = {peer_name(each.name): each.router for each in router.peerings if each.router != router.name}
            found = {name: peer for name, link in present.items() if (peer := self._peer(link, router.name))}
            stale = {name for name, peer in found.items() if named.get(name) != peer}
            made = {name for name, peer in named.items() if found.get(name) != peer and self._is_wanted(name, router)}
            delete_links(sorted(stale))
            for name in sorted(made):
                self._connect(name, router.name, named[name])
            if stale or made:
                present = links(with_addresses=True)
            own = {name: peer for name, peer in named.items() if name in present}
            for name in own:
                write_sysctls(link_settings(name))
            ip(address_changes(present, {name: _addresses(router.name, peer) for name, peer in own.items()}))
            touched = {found[name] for name in stale} | {named[name] for name in made}
            self._settle_again(touched - {router.name})
            return present

    def forget(self, router: str) -> None:
        """The router goes, or has gone, and its ends of cables with it."""
        with self._lock:
            gone = self._plans.pop(router, None)
            peers = {each.router for each in gone.peerings} if gone is not None else set()
            peers |= {name for name, plan in self._plans.items() if any(p.router == router for p in plan.peerings)}
            for peer in sorted(peers - {router}):
                if namespace_exists(peer):
                    inside(peer, lambda: self._drop_cables_to(router))
            self._settle_again(peers - {router})

    def _drop_cables_to(self, router: str) -> None:
        delete_links([name for name, link in links().items() if link.alias == self._alias(router) and name != "lo"])

    def _is_wanted(self, name: str, router: Router) -> bool:
        """Whether the other router is there, and names it too."""
        peers = {each.router for each in router.peerings if peer_name(each.name) == name}
        plans = [plan for peer in peers if (plan := self._plans.get(peer)) is not None and namespace_exists(peer)]
        return any(
            peer_name(each.name) == name and each.router == router.name for plan in plans for each in plan.peerings
        )

    def _connect(self, name: str, router: str, peer: str) -> None:
        def clear() -> None:
            delete_links([name])  # its other end is in a namespace that lost its name

        def finish() -> None:
            write_sysctls(link_settings(name))
            changes = address_changes({}, {name: _addresses(peer, router)})
            ip([f"link set {name} alias {self._alias(router)}", *changes])

        inside(peer, clear)
        delete_links([name])
        ip(
            [
                f"link add {name} mtu {MTU_BYTES} type veth peer name {name} mtu {MTU_BYTES} netns {peer}",
                f"link set {name} alias {self._alias(peer)}",
            ]
        )
        inside(peer, finish)

    def _settle_again(self, routers: set[str]) -> None:
        for name in sorted(routers):
            plan = self._plans.get(name)
            if plan is not None and namespace_exists(name):
                self._settle(plan)

    def _alias(self, router: str) -> str:
        return f"{self._edge}/{router}"

    def _peer(self, link: Link, router: str) -> str:
        """The router at the other end of a link of `router`; empty when it is no cable between routers."""
        prefix, _, peer = link.alias.partition("/")
        return peer if prefix == self._edge and peer != router and link.name != "lo" else ""


def _addresses(router: str, peer: str) -> list[str]:
    return [f"{peer_address(router, peer)}/64"]

"""Networks in memory: routers as they were applied. No packet passes.

`listen` opens sockets on the loopback; `connect` reaches those, what a test registers in `endpoints`, and ssh on the
address of any port, and is refused by all else. The flows are those that a test puts into `flowed`.
"""

from __future__ import annotations

import errno
import socket
import threading
from dataclasses import replace
from pprint import pformat

from orchestrator.host import Flow, HostError, Port, Probe, Router
from orchestrator.host.memory_storage import Fault, no_fault

SSH_PORT = 22


class MemoryNetwork:
    def __init__(self) -> None:
        self.fault: Fault = no_fault
        self.applied: dict[str, Router] = {}
        self.flowed: dict[str, list[Flow]] = {}  # by router; until they are asked for
        # (router, address, port) inside -> (address, port) that a socket connects to
        self.endpoints: dict[tuple[str, str, int], tuple[str, int]] = {}
        self._lock = threading.Lock()

    def apply(self, router: Router, before: Router | None = None) -> None:
        self.fault("apply", router.name)
        with self._lock:
            self.applied[router.name] = router

    def plan(self, router: Router) -> str:
        self.fault("plan", router.name)
        return f"{pformat(router, width=120)}\n"

    def flows(self, router: Router) -> list[Flow]:
        """Those of its ports with `log` that a test has put there."""
        self.fault("flows", router.name)
        logged = {port.name for port in router.ports if port.log}
        with self._lock:
            return [flow for flow in self.flowed.pop(router.name, []) if flow.port in logged]

    def trace(self, router: Router, probe: Probe) -> list[str]:
        self.fault("trace", router.name)
        with self._lock:
            known = self.applied.get(router.name)
        if known is None or all(port.name != probe.port for port in known.ports):
            raise HostError(f"{probe.port} of {router.name} is not plugged in on this host")
        return [f"{probe.port}: packet {probe.source} -> {probe.destination} {probe.protocol} (simulated)"]

    def remove(self, router: str) -> None:
        self.fault("remove", router)
        with self._lock:
            self._forget(router)

    def routers(self) -> list[str]:
        self.fault("routers", "")
        with self._lock:
            return list(self.applied)

    def leaks(self, routers: set[str], ports: set[str]) -> list[str]:
        self.fault("leaks", "")
        with self._lock:
            return [
                *(f"router {name}" for name in self.applied if name not in routers),
                *(
                    f"port {port.name}"
                    for name, router in self.applied.items()
                    if name in routers
                    for port in router.ports
                    if port.name not in ports
                ),
            ]

    def remove_leaks(self, routers: set[str], ports: set[str]) -> None:
        self.fault("remove_leaks", "")
        with self._lock:
            for name in [name for name in self.applied if name not in routers]:
                self._forget(name)
            for name, router in self.applied.items():
                kept = tuple(port for port in router.ports if port.name in ports)
                if kept != router.ports:
                    self.applied[name] = replace(router, ports=kept)

    def listen(self, router: str, address: str, port: int) -> socket.socket:
        self.fault("listen", router)
        with self._lock:
            if router not in self.applied:
                raise HostError(f"there is no router {router} to listen in")
            ipv6 = ":" in address
            family, loopback = (socket.AF_INET6, "::1") if ipv6 else (socket.AF_INET, "127.0.0.1")
            listener = socket.create_server((loopback, 0), family=family)
            self.endpoints[(router, address, port)] = listener.getsockname()[:2]
            return listener

    def connect(self, router: str, address: str, port: int, timeout_s: float) -> socket.socket:
        self.fault("connect", router)
        with self._lock:
            endpoint = self.endpoints.get((router, address, port))
            known = self.applied.get(router)
        if endpoint is None:
            if port == SSH_PORT and known and any(address in _addresses(plugged) for plugged in known.ports):
                ours, guests = socket.socketpair()  # a simulated guest takes the call, says who it is, and hangs up
                guests.sendall(b"SSH-2.0-simulated\r\n")
                guests.close()
                return ours
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nothing listens on {address}:{port} in {router}")
        return socket.create_connection(endpoint, timeout=timeout_s)

    def close(self) -> None:
        pass

    def lose_host(self) -> None:
        """The host starts anew: nothing of a network outlives that."""
        with self._lock:
            for name in list(self.applied):
                self._forget(name)

    def _forget(self, router: str) -> None:
        self.applied.pop(router, None)
        self.flowed.pop(router, None)
        for key in [key for key in self.endpoints if key[0] == router]:
            del self.endpoints[key]


def _addresses(port: Port) -> tuple[str, ...]:
    """Where a simulated guest answers."""
    return () if port.translator else (port.address, *port.more_addresses, *port.ipv6_addresses)

"""Networks: the host is kept equal to the plan of each VPC, and the plans of VPCs that know of each other in step.

    woken, or a time has passed ---> step ---> plan ---> apply ---+---> peers that it just appeared to,
    a launch needs it now ---------> ensure -->/                  |     or whose plans differ now: woken
                                                                  +---> looked at again after a time (Rounds)

A plan of one VPC reads rows of its peers (are they on the host, who is in their groups), and only what their own plans
show too. So a change that matters to a peer is a change of the VPC's own plan; then the peers' plans are compared with
what they were applied as. Whoever is woken finds nothing more to tell, and it ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import count
from socket import socket
from typing import Protocol
from weakref import WeakValueDictionary

from orchestrator.host import Network, Router
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.vpc import NetworkInterface, Vpc
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.reconcile.plan import METADATA_ADDRESS, METADATA_IPV6_ADDRESS, Kept, peers, plan
from orchestrator.store import Store

LOOK_EACH_S = 30.0  # at what is on the host: damage that nobody reports is mended then
LOOK_SHARE = 0.005  # of a processor, for all looks together: where that is too little, they are further apart
FIRST_COST_S = 0.01  # of a look, until it is known

Listen = Callable[[], socket]


class Doorway(Protocol):
    """The metadata server, as reconcilers see it."""

    def open(self, vpc_id: str, listen: Listen, listen_ipv6: Listen | None = None) -> None:
        """Answer the guests of a VPC from now on, over IPv6 too if its socket is given; it answers when this
        returns."""

    def shut(self, vpc_id: str) -> None: ...


def _nobody(vpc_id: str, after_s: float) -> None:
    pass


class Rounds:
    """When each VPC is looked at next: after LOOK_EACH_S, or later where many are there, one after the other.

    A look books time behind the one that was booked last, in proportion to what looks at its VPC cost. A VPC that is
    woken before its time keeps it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}
        self._cost_s: dict[str, float] = {}
        self._booked = 0.0

    def book(self, vpc_id: str, took_s: float) -> float:
        """In how many seconds a VPC is to be looked at, when it was looked at just now."""
        with self._lock:
            now = self._clock()
            # What else goes on makes a look slow, now and then; one that has become dear is soon known to be.
            cost_s = min(took_s, 2 * self._cost_s.get(vpc_id, FIRST_COST_S))
            self._cost_s[vpc_id] = cost_s
            due = self._due.get(vpc_id, 0.0)
            if due <= now:
                due = self._due[vpc_id] = max(now + LOOK_EACH_S, self._booked)
                self._booked = due + cost_s / LOOK_SHARE
            return due - now

    def forget(self, vpc_id: str) -> None:
        with self._lock:
            self._due.pop(vpc_id, None)
            self._cost_s.pop(vpc_id, None)
            last = max(self._due, key=self._due.__getitem__, default=None)
            self._booked = 0.0 if last is None else self._due[last] + self._cost_s[last] / LOOK_SHARE


class Networks:
    """`appeared` is called with each VPC that a launch has brought onto the host, and in how many seconds it is to be
    stepped; from then on its steps say so."""

    def __init__(
        self,
        store: Store,
        network: Network,
        doorway: Doorway,
        appeared: Callable[[str, float], None] = _nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._network = network
        self._doorway = doorway
        self._appeared = appeared
        self._clock = clock
        self._rounds = Rounds(clock)
        self._locks = WeakValueDictionary[str, threading.Lock]()  # each as long as somebody holds or waits for it
        self._locking = threading.Lock()
        self._tickets = count(1)
        self._served: dict[str, int] = {}  # all tickets up to this one, by what was applied last
        self._applied: dict[str, Router] = {}
        self._doubted: set[str] = set()
        self._untold: dict[str, Router | None] = {}  # what a VPC was before changes that others have not heard of
        self._kept: dict[str, Kept] = {}

    def step(self, vpc_id: str) -> Next:
        """Look at the host and mend what differs, whatever was applied before."""
        with self._lock(vpc_id):
            began = self._clock()
            present = self._make(vpc_id, trust=False)
            took_s = self._clock() - began
        if not present:
            self._rounds.forget(vpc_id)
            return Done()
        return Again(self._rounds.book(vpc_id, took_s))

    def ensure(self, vpc_id: str) -> None:
        """The host has this VPC as the store has it now, as far as this process knows."""
        ticket = next(self._tickets)
        with self._lock(vpc_id):
            if self._served.get(vpc_id, 0) > ticket:
                return  # while this call waited, another one read what it would read
            self._make(vpc_id, trust=True)

    def keep(self, vpc_id: str) -> None:
        """The host has this VPC, as it was when it was applied last: for whoever needs nothing new of it."""
        if vpc_id not in self._applied:
            self.ensure(vpc_id)

    def doubt(self, vpc_id: str) -> None:
        """What was to use this VPC on the host has failed: the next time, all of it is looked at."""
        self._doubted.add(vpc_id)

    def _lock(self, vpc_id: str) -> threading.Lock:
        with self._locking:
            return self._locks.setdefault(vpc_id, threading.Lock())

    def _make(self, vpc_id: str, *, trust: bool) -> bool:
        """Whether it is on the host now. The caller holds its lock."""
        ticket = next(self._tickets)
        look = not trust or vpc_id in self._doubted
        self._doubted.discard(vpc_id)
        router = plan(self._store, vpc_id, self._kept.setdefault(vpc_id, Kept()))
        applied = self._applied.get(vpc_id)
        before = self._untold.setdefault(vpc_id, applied)
        if router is None:
            self._applied.pop(vpc_id, None)
            self._kept.pop(vpc_id, None)
            self._doorway.shut(vpc_id)
            self._network.remove(vpc_id)
        elif look or applied != router:
            self._applied.pop(vpc_id, None)
            self._network.apply(router, None if look else applied)
            self._open_doorway(router)
            self._applied[vpc_id] = router
        if router is None:
            self._served.pop(vpc_id, None)
        else:
            self._served[vpc_id] = ticket
        if router is not None and applied is None and trust:
            self._appeared(vpc_id, self._rounds.book(vpc_id, FIRST_COST_S))
        if before != router:
            self._tell_owners(before, router, vpc_id)
            self._tell_peers(router, vpc_id, fresh=before is None or applied is None)
        self._untold.pop(vpc_id, None)
        return router is not None

    def _open_doorway(self, router: Router) -> None:
        def listen() -> socket:
            return self._network.listen(router.name, METADATA_ADDRESS, 80)

        def listen_ipv6() -> socket:
            return self._network.listen(router.name, METADATA_IPV6_ADDRESS, 80)

        if any(segment.ipv6_cidr for segment in router.segments):
            self._doorway.open(router.name, listen, listen_ipv6)
        else:
            self._doorway.open(router.name, listen)

    def _tell_owners(self, before: Router | None, router: Router | None, vpc_id: str) -> None:
        """Wake those who have public addresses now that this one had: it may have been made as it was, from rows that
        were read before, after they were."""
        lost = _public(before) - _public(router)
        held = [each.interface_id for address in lost for each in self._store.all(ElasticIp, public_ip=address)]
        owners = [self._store.get(NetworkInterface, each) for each in held]
        owners += [each for address in lost for each in self._store.all(NetworkInterface, public_ip=address)]
        self._wake(sorted({each.vpc_id for each in owners if each is not None} - {vpc_id}))

    def _tell_peers(self, router: Router | None, vpc_id: str, *, fresh: bool) -> None:
        """Wake those that are not as they should be any more. One that was applied before this VPC was there has had
        no other end for its cable; one that is being applied now may have read its rows before they changed."""
        cables = {peering.router for peering in router.peerings} if router is not None and fresh else set()
        stale = []
        for other in peers(self._store, vpc_id):
            busy, applied = self._lock(other).locked(), self._applied.get(other)
            if busy or (applied is not None and (other in cables or plan(self._store, other) != applied)):
                stale.append(other)
        self._wake(stale)

    def _wake(self, vpc_ids: list[str]) -> None:
        if not vpc_ids:
            return
        with self._store.write() as tx:
            for vpc_id in vpc_ids:
                vpc = tx.get(Vpc, vpc_id)
                if vpc is not None:
                    tx.wake(vpc)


def _public(router: Router | None) -> set[str]:
    return {outside for port in router.ports for _, outside in port.public} if router is not None else set()

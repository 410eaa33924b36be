"""Networks: a VPC's rows become one Router, which the host is made equal to.

A VPC is on the host only while machines are plugged into it; the last one to go takes the router with it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from socket import socket
from typing import Protocol

from orchestrator.host import Allow, Network, Policy, Port, Router, Segment
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import (
    NetworkInterface,
    Rule,
    SecurityGroup,
    Subnet,
    Vpc,
    domain_name,
    private_dns_name,
    public_dns_name,
    resolver_address,
)
from orchestrator.reconcile.loop import Done, Next
from orchestrator.store import Store

METADATA_ADDRESS = "169.254.169.254"
PLUGGED = frozenset({State.PENDING, State.RUNNING, State.STOPPING, State.SHUTTING_DOWN})


class Doorway(Protocol):
    """The metadata server, as reconcilers see it."""

    def open(self, vpc_id: str, listen: Callable[[], socket]) -> None:
        """Answer the guests of a VPC from now on; it answers when this returns."""

    def shut(self, vpc_id: str) -> None: ...


class Networks:
    def __init__(self, store: Store, network: Network, doorway: Doorway) -> None:
        self._store = store
        self._network = network
        self._doorway = doorway
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._applied: dict[str, Router] = {}

    def step(self, vpc_id: str) -> Next:
        """Look at the host and mend what differs, whatever was applied before."""
        self._make(vpc_id, trust=False)
        return Done()

    def ensure(self, vpc_id: str) -> None:
        """The host has this VPC as the store has it now, as far as this process knows."""
        self._make(vpc_id, trust=True)

    def _make(self, vpc_id: str, *, trust: bool) -> None:
        with self._locks[vpc_id]:
            router = plan(self._store, vpc_id)
            if router is None:
                self._applied.pop(vpc_id, None)
                self._doorway.shut(vpc_id)
                self._network.remove(vpc_id)
                return
            if trust and self._applied.get(vpc_id) == router:
                return
            self._applied.pop(vpc_id, None)
            self._network.apply(router)
            self._doorway.open(vpc_id, lambda: self._network.listen(vpc_id, METADATA_ADDRESS, 80))
            self._applied[vpc_id] = router


def plan(store: Store, vpc_id: str) -> Router | None:
    """The router of a VPC; None when nothing is plugged into it."""
    vpc = store.get(Vpc, vpc_id)
    if vpc is None:
        return None
    interfaces = [interface for interface in store.all(NetworkInterface, vpc_id=vpc_id) if _plugged(store, interface)]
    if not interfaces:
        return None
    interfaces.sort(key=lambda interface: interface.id)
    used = {interface.subnet_id for interface in interfaces}
    subnets = sorted(
        (subnet for subnet in store.all(Subnet, vpc_id=vpc_id) if subnet.id in used), key=lambda subnet: subnet.id
    )
    groups = sorted(store.all(SecurityGroup, vpc_id=vpc_id), key=lambda group: group.id)
    known = {group.id for group in groups}
    return Router(
        name=vpc.id,
        cidr=vpc.cidr,
        segments=tuple(
            Segment(name=subnet.id, cidr=subnet.cidr, gateway=str(subnet.network.network_address + 1))
            for subnet in subnets
        ),
        ports=tuple(_port(vpc, interface, known) for interface in interfaces),
        policies=tuple(
            Policy(
                name=group.id,
                inbound=tuple(_allow(rule) for rule in group.rules if not rule.egress and _applies(rule, known)),
                outbound=tuple(_allow(rule) for rule in group.rules if rule.egress and _applies(rule, known)),
            )
            for group in groups
        ),
        domain=domain_name(vpc.region),
        resolver=resolver_address(vpc.cidr) if vpc.enable_dns_support else "",
    )


def _plugged(store: Store, interface: NetworkInterface) -> bool:
    instance = store.get(Instance, interface.instance_id)
    return instance is not None and instance.state in PLUGGED


def _port(vpc: Vpc, interface: NetworkInterface, groups: set[str]) -> Port:
    named = interface.public_ip and vpc.enable_dns_hostnames
    return Port(
        name=interface.id,
        segment=interface.subnet_id,
        mac=interface.mac,
        address=interface.private_ip,
        host_name=private_dns_name(interface.private_ip, vpc.region).partition(".")[0],
        public_address=interface.public_ip,
        public_name=public_dns_name(interface.public_ip, vpc.region) if named else "",
        check_addresses=interface.source_dest_check,
        policies=tuple(group for group in interface.groups if group in groups),
    )


def _applies(rule: Rule, groups: set[str]) -> bool:
    return bool(rule.cidr_ipv4) or rule.group_id in groups


def _allow(rule: Rule) -> Allow:
    return Allow(
        protocol=rule.protocol,
        from_port=rule.from_port,
        to_port=rule.to_port,
        peer_cidr=rule.cidr_ipv4,
        peer_policy=rule.group_id,
    )

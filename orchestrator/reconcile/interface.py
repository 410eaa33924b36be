"""Network interfaces: plugged into machines, taken from an instance, or gone for good with all that refers to them.

attached ---- let_go ----> available    keeps its addresses and Elastic IPs
    +-------- discard ---> no row       its Elastic IPs are free again

A network knows a port before it is plugged in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.host import Compute, HostError, MachineStatus, Nic
from orchestrator.model.elastic_ip import ElasticIp, parted
from orchestrator.model.instance import Instance
from orchestrator.model.vpc import FlowLog, InterfacePermission, NetworkInterface, Vpc
from orchestrator.reconcile.loop import Again
from orchestrator.reconcile.network import Networks
from orchestrator.reconcile.plug import Plugs, Unplugging, is_coming, is_leaving
from orchestrator.store import Store, Transaction


class Interfaces:
    """Those of instances: `Parts` of a machine."""

    kind = NetworkInterface

    def __init__(self, store: Store, compute: Compute, networks: Networks, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._compute = compute
        self._networks = networks
        self._plugs: Plugs[NetworkInterface] = Plugs(store, clock, self)

    def of(self, instance_id: str) -> list[NetworkInterface]:
        """In the order of their device indexes."""
        found = self._store.all(NetworkInterface, instance_id=instance_id)
        return sorted(found, key=lambda eni: eni.attachment.device_index if eni.attachment else 0)

    def vpcs(self, instance: Instance) -> list[str]:
        """Its own, and those of interfaces that it has in others."""
        return sorted({instance.vpc_id, *(interface.vpc_id for interface in self.of(instance.id))})

    def ensure_networks(self, instance: Instance) -> None:
        for vpc_id in self.vpcs(instance):
            self._networks.ensure(vpc_id)

    def doubt_networks(self, instance: Instance) -> None:
        """Its machine could not be started, perhaps for what its networks lack."""
        for vpc_id in self.vpcs(instance):
            self._networks.doubt(vpc_id)

    def nics(self, instance: Instance) -> tuple[Nic, ...]:
        """What a machine starts with."""
        return tuple(_nic(interface) for interface in self.of(instance.id) if not is_leaving(interface))

    def keep(self, instance: Instance, status: MachineStatus, unplugging: dict[str, Unplugging]) -> Again | None:
        """Make a machine's NICs those of its rows; Again while one is to come or to go."""
        return self._plugs.keep(instance, status.ports, unplugging)

    def started(self, tx: Transaction, instance_id: str, now: datetime) -> None:
        """Its machine has what it started with, or is off: then they count as attached as well."""
        for interface in tx.all(NetworkInterface, instance_id=instance_id):
            if is_coming(interface):
                self.has_come(tx, interface, now)

    def stopped(self, tx: Transaction, instance: Instance, now: datetime) -> None:
        """Its machine is gone and it is not: it keeps its interfaces, without auto-assigned public addresses."""
        self._wake_networks(tx, instance)
        for interface in tx.all(NetworkInterface, instance_id=instance.id):
            if is_leaving(interface):
                let_go(tx, interface)
            elif interface.public_ip:
                tx.put(replace(interface, public_ip=""))
        self.started(tx, instance.id, now)

    def terminated(self, tx: Transaction, instance: Instance) -> None:
        self._wake_networks(tx, instance)
        for interface in tx.all(NetworkInterface, instance_id=instance.id):
            goes = interface.attachment is not None and interface.attachment.delete_on_termination
            if goes and not is_leaving(interface):
                discard(tx, interface)
            else:
                let_go(tx, interface)

    def _wake_networks(self, tx: Transaction, instance: Instance) -> None:
        for vpc_id in self.vpcs(instance):
            wake_network(tx, vpc_id)

    # --- Parts ---

    def rows(self, instance_id: str) -> Mapping[str, NetworkInterface]:
        return {interface.id: interface for interface in self.of(instance_id)}

    def prepare(self, instance: Instance, missing: Sequence[NetworkInterface]) -> Collection[str]:
        self.ensure_networks(instance)
        return {interface.id for interface in missing}

    def plug_in(self, instance_id: str, row: NetworkInterface) -> None:
        try:
            self._compute.plug_in(instance_id, _nic(row))
        except HostError:
            self._networks.doubt(row.vpc_id)
            raise

    def unplug(self, instance_id: str, name: str) -> None:
        self._compute.unplug(instance_id, name)

    def has_come(self, tx: Transaction, row: NetworkInterface, now: datetime) -> None:
        if row.attachment is not None:
            attachment = replace(row.attachment, state="attached", attached_at=row.attachment.attached_at or now)
            tx.put(replace(row, state="in-use", attachment=attachment))

    def holds_on(self, tx: Transaction, row: NetworkInterface) -> None:
        """It stays detaching."""

    def has_gone(self, tx: Transaction, row: NetworkInterface, *, held: bool) -> None:
        let_go(tx, row)


def _nic(interface: NetworkInterface) -> Nic:
    index = interface.attachment.device_index if interface.attachment else -1
    return Nic(port=interface.id, segment=interface.subnet_id, mac=interface.mac, index=index)


def let_go(tx: Transaction, interface: NetworkInterface) -> None:
    """No instance has it any more. An auto-assigned public address was for that instance alone."""
    tx.put(replace(interface, attachment=None, state="available", public_ip="", auto_public_ip=False))
    wake_network(tx, interface.vpc_id)


def discard(tx: Transaction, interface: NetworkInterface) -> None:
    """Delete it, and leave nothing that refers to it but routes, which are blackholes then."""
    for address in tx.all(ElasticIp, interface_id=interface.id):
        tx.put(parted(address))
    for permission in tx.all(InterfacePermission, interface_id=interface.id):
        tx.delete(permission)
    for log in tx.all(FlowLog, resource_id=interface.id):
        tx.delete(log)
    tx.delete(interface)
    wake_network(tx, interface.vpc_id)


def wake_network(tx: Transaction, vpc_id: str) -> None:
    vpc = tx.get(Vpc, vpc_id)
    if vpc is not None:
        tx.wake(vpc)

"""Network interfaces: taken from an instance, or gone for good, with all that refers to them.

attached ---- let_go ----> available    keeps its addresses and Elastic IPs
    +-------- discard ---> no row       its Elastic IPs are free again
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.model.elastic_ip import ElasticIp, parted
from orchestrator.model.vpc import FlowLog, InterfacePermission, NetworkInterface, Vpc
from orchestrator.store import Transaction


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

"""NAT gateways: a request writes the row and its interface; here it becomes what it was asked to be.

    pending ---> available          its VPC's plan has a port for it from now on
       |             | DeleteNatGateway
       v             v
    failed ----> deleting ---> deleted
       |                          |
       +--- an hour ---> no row <-+     the interface is gone and its Elastic IPs are free

Source: "NAT gateways" in the VPC user guide, and the failure codes of DescribeNatGateways.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.model.vpc import InternetGateway, NatGateway, NetworkInterface, Subnet
from orchestrator.reconcile.ageing import forget_after
from orchestrator.reconcile.interface import discard, wake_network
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.store import Store, Transaction

KEPT = timedelta(hours=1)  # what is deleted or has failed can still be seen


class NatGateways:
    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def step(self, gateway_id: str) -> Next:
        with self._store.write() as tx:
            gateway = tx.get(NatGateway, gateway_id)
            if gateway is None:
                return Done()
            match gateway.state:
                case "pending":
                    self._open(tx, gateway)
                case "deleting":
                    self._end(tx, gateway, state="deleted")
                case "deleted" | "failed":
                    return forget_after(tx, gateway, KEPT, gateway.deleted_at or gateway.created, self._clock())
                case _:
                    return Done()
        return Again(0)

    def _open(self, tx: Transaction, gateway: NatGateway) -> None:
        code, message = _failure(tx, gateway)
        if code:
            self._end(tx, gateway, state="failed", failure_code=code, failure_message=message)
            return
        tx.put(replace(gateway, state="available"))
        wake_network(tx, gateway.vpc_id)

    def _end(self, tx: Transaction, gateway: NatGateway, **changes: str) -> None:
        interface = tx.get(NetworkInterface, gateway.interface_id)
        if interface is not None:
            discard(tx, interface)
        tx.put(replace(gateway, **changes, deleted_at=self._clock()))  # type: ignore[arg-type]
        wake_network(tx, gateway.vpc_id)


def _failure(tx: Transaction, gateway: NatGateway) -> tuple[str, str]:
    """Why it cannot be; empty when it can."""
    if tx.get(Subnet, gateway.subnet_id) is None:
        return "InvalidSubnetID.NotFound", f"The subnet ID '{gateway.subnet_id}' does not exist"
    if tx.get(NetworkInterface, gateway.interface_id) is None:
        return "InternalError", "Network interface could not be created"
    if gateway.connectivity == "public" and not tx.all(InternetGateway, vpc_id=gateway.vpc_id):
        return "Gateway.NotAttached", f"Network {gateway.vpc_id} has no Internet gateway attached"
    return "", ""

"""NAT gateways, from the rows that a request writes to the port on the host, and away again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.lifecycle import State
from orchestrator.model.owned import owned
from orchestrator.model.resource import Resource
from orchestrator.model.vpc import InternetGateway, NatAddress, NatGateway, NetworkInterface, RouteTable, Subnet
from orchestrator.model.vpc import Route as RouteRow
from orchestrator.reconcile.loop import Again, Done
from tests.reconcile.conftest import ACCOUNT, Deployment

GATEWAY = "nat-0" + "1" * 16
INTERFACE = "eni-0" + "f" * 16


def create(deployment: Deployment, **changes: object) -> NatGateway:
    """The rows that CreateNatGateway writes."""
    [subnet] = [each for each in deployment.store.all(Subnet) if each.zone == "us-east-1a"]
    made = {"account": ACCOUNT, "region": "us-east-1", "created": deployment.clock()}
    interface = NetworkInterface(
        id=INTERFACE,
        vpc_id=subnet.vpc_id,
        subnet_id=subnet.id,
        zone=subnet.zone,
        mac="0a:00:00:00:00:ff",
        private_ip="172.31.0.200",
        state="in-use",
        interface_type="nat_gateway",
        requester_id="amazon-nat",
        source_dest_check=False,
        **made,  # type: ignore[arg-type]
    )
    address = ElasticIp(
        id="eipalloc-1",
        public_ip="203.0.113.99",
        interface_id=INTERFACE,
        private_ip="172.31.0.200",
        association_id="eipassoc-1",
        **made,  # type: ignore[arg-type]
    )
    gateway = NatGateway(
        id=GATEWAY,
        vpc_id=subnet.vpc_id,
        subnet_id=subnet.id,
        interface_id=INTERFACE,
        addresses=(NatAddress(private_ip="172.31.0.200", allocation_id=address.id, primary=True),),
        **made,  # type: ignore[arg-type]
    )
    [table] = deployment.store.all(RouteTable, vpc_id=subnet.vpc_id)
    route = RouteRow(destination="198.51.100.0/24", target=GATEWAY)
    with deployment.store.write() as tx:
        tx.put_all([interface, address, replace(table, routes=(*table.routes, route))])
        gateway = tx.put(replace(gateway, **changes))  # type: ignore[arg-type]
        tx.wake(gateway)
    return gateway


def gateway_of(deployment: Deployment) -> NatGateway:
    found = deployment.store.get(NatGateway, GATEWAY)
    assert found is not None
    return found


def ask_to_delete(deployment: Deployment) -> None:
    with deployment.store.write() as tx:
        tx.wake(tx.put(replace(gateway_of(deployment), state="deleting")))


def test_it_becomes_available_and_a_port_of_its_vpc(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    create(deployment)
    deployment.others()
    assert gateway_of(deployment).state == "available"
    router = deployment.host.network.applied[instance.vpc_id]
    [port] = [port for port in router.ports if port.translator]
    assert (port.name, port.public) == (INTERFACE, (("172.31.0.200", "203.0.113.99"),))
    assert ("198.51.100.0/24", INTERFACE) in [(route.destination, route.target) for route in router.tables[0].routes]
    assert INTERFACE in owned(deployment.store).ports


def test_it_waits_for_machines_that_may_use_it(deployment: Deployment) -> None:
    gateway = create(deployment)
    deployment.others()
    assert gateway_of(deployment).state == "available"
    assert deployment.host.network.routers() == []
    assert INTERFACE not in owned(deployment.store).ports
    instance = deployment.launch()
    deployment.settle(instance.id)
    assert len(deployment.host.network.applied[gateway.vpc_id].ports) == 2
    deployment.ask(instance.id, State.TERMINATED, State.SHUTTING_DOWN)
    deployment.settle(instance.id)
    assert deployment.host.network.routers() == []


def test_deleted_it_frees_its_address_and_is_forgotten_after_an_hour(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    create(deployment)
    deployment.others()
    ask_to_delete(deployment)
    deployment.others()
    assert gateway_of(deployment).state == "deleted"
    assert deployment.store.get(NetworkInterface, INTERFACE) is None
    [address] = deployment.store.all(ElasticIp)
    assert (address.interface_id, address.private_ip, address.association_id) == ("", "", "")
    router = deployment.host.network.applied[instance.vpc_id]
    assert [port.name for port in router.ports if port.translator] == []
    left = deployment.nat_gateways.step(GATEWAY)
    assert left == Again(3600)
    deployment.clock.pass_(hours=1)
    assert deployment.nat_gateways.step(GATEWAY) == Done()
    assert deployment.store.get(NatGateway, GATEWAY) is None
    assert deployment.nat_gateways.step(GATEWAY) == Done()


@pytest.mark.parametrize(
    ("missing", "code"),
    [
        (InternetGateway, "Gateway.NotAttached"),
        (NetworkInterface, "InternalError"),
        (Subnet, "InvalidSubnetID.NotFound"),
    ],
)
def test_it_fails_with_a_reason_and_leaves_no_interface(
    deployment: Deployment, missing: type[Resource], code: str
) -> None:
    gateway = create(deployment)
    with deployment.store.write() as tx:
        for row in tx.all(missing):
            tx.delete(row)
    deployment.others()
    gateway = gateway_of(deployment)
    assert (gateway.state, gateway.failure_code) == ("failed", code)
    assert gateway.failure_message
    assert deployment.store.all(NetworkInterface) == []
    assert deployment.store.all(ElasticIp)[0].interface_id == ("" if missing is not NetworkInterface else INTERFACE)


def test_a_private_one_needs_no_internet_gateway(deployment: Deployment) -> None:
    create(deployment, connectivity="private")
    with deployment.store.write() as tx:
        for row in tx.all(InternetGateway):
            tx.delete(row)
    deployment.others()
    assert gateway_of(deployment).state == "available"


def test_what_is_available_is_left_alone(deployment: Deployment) -> None:
    create(deployment, state="available")
    assert deployment.nat_gateways.step(GATEWAY) == Done()

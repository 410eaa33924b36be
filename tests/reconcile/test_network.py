"""From a VPC's rows to a Router."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.host import Allow
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import NetworkInterface, Rule, SecurityGroup, Vpc
from orchestrator.reconcile.network import plan
from tests.reconcile.conftest import Deployment


def test_a_vpc_without_machines_is_not_on_the_host(deployment: Deployment) -> None:
    [vpc] = deployment.store.all(Vpc)
    assert plan(deployment.store, vpc.id) is None
    assert plan(deployment.store, "vpc-none") is None


def test_a_router_has_what_is_plugged_in_and_no_more(deployment: Deployment) -> None:
    instance = deployment.launch()
    router = plan(deployment.store, instance.vpc_id)
    assert router is not None
    assert (router.cidr, router.domain, router.resolver) == ("172.31.0.0/16", "ec2.internal", "172.31.0.2")
    assert [(segment.name, segment.cidr, segment.gateway) for segment in router.segments] == [
        (instance.subnet_id, "172.31.0.0/20", "172.31.0.1")
    ]
    [port] = router.ports
    assert (port.address, port.public_address, port.host_name) == ("172.31.0.11", "203.0.113.11", "ip-172-31-0-11")
    assert port.public_name == "ec2-203-0-113-11.compute-1.amazonaws.com"
    assert port.check_addresses
    [policy] = router.policies
    assert port.policies == (policy.name,)
    assert policy.inbound == (Allow(protocol="-1", peer_policy=policy.name),)
    assert policy.outbound == (Allow(protocol="-1", peer_cidr="0.0.0.0/0"),)


def test_the_plan_is_the_same_for_the_same_rows(deployment: Deployment) -> None:
    instances = [deployment.launch(number) for number in range(1, 6)]
    first = plan(deployment.store, instances[0].vpc_id)
    for instance in reversed(instances):
        deployment.change(instance.id, monitoring=True)
    assert plan(deployment.store, instances[0].vpc_id) == first


def test_a_stopped_instance_is_unplugged(deployment: Deployment) -> None:
    instance = deployment.launch()
    for state, plugged in ((State.RUNNING, True), (State.STOPPING, True), (State.STOPPED, False)):
        deployment.change(instance.id, state=state)
        assert (plan(deployment.store, instance.vpc_id) is not None) is plugged


def test_rules_and_groups_that_are_gone_do_no_harm(deployment: Deployment) -> None:
    instance = deployment.launch()
    [group] = deployment.store.all(SecurityGroup)
    [interface] = deployment.store.all(NetworkInterface)
    rules = (
        Rule(id="sgr-1", egress=False, protocol="tcp", from_port=22, to_port=22, cidr_ipv4="0.0.0.0/0"),
        Rule(id="sgr-2", egress=False, protocol="tcp", from_port=1, to_port=2, group_id="sg-gone"),
        Rule(id="sgr-3", egress=False, protocol="tcp", from_port=1, to_port=2, cidr_ipv6="::/0"),
    )
    with deployment.store.write() as tx:
        tx.put(replace(group, rules=rules))
        tx.put(replace(interface, groups=(group.id, "sg-gone")))
    router = plan(deployment.store, instance.vpc_id)
    assert router is not None
    assert router.policies[0].inbound == (Allow(protocol="tcp", from_port=22, to_port=22, peer_cidr="0.0.0.0/0"),)
    assert router.ports[0].policies == (group.id,)


def test_an_unchanged_plan_is_applied_once_unless_it_is_looked_at_anew(deployment: Deployment) -> None:
    instance = deployment.launch()
    applied: list[str] = []
    deployment.host.network.fault = lambda method, name: applied.append(method) if method == "apply" else None
    deployment.networks.ensure(instance.vpc_id)
    deployment.networks.ensure(instance.vpc_id)
    assert len(applied) == 1
    deployment.networks.step(instance.vpc_id)
    assert len(applied) == 2

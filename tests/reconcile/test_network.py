"""From a VPC's rows to a Router, and the Router to the host."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from orchestrator.host import Allow, HostError, Record, Router
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import (
    CidrAssociation,
    InternetGateway,
    NetworkInterface,
    Rule,
    SecurityGroup,
    Subnet,
    Vpc,
)
from orchestrator.reconcile.loop import Again, Done
from orchestrator.reconcile.network import LOOK_EACH_S, LOOK_SHARE, Rounds
from orchestrator.reconcile.plan import METADATA_IPV6_ADDRESS, plan
from orchestrator.store import StoreUnavailable
from tests.reconcile.conftest import Deployment
from tests.reconcile.rows import peering


def test_a_vpc_without_machines_is_not_on_the_host(deployment: Deployment) -> None:
    [vpc] = deployment.store.all(Vpc)
    assert plan(deployment.store, vpc.id) is None
    assert plan(deployment.store, "vpc-none") is None


def test_a_router_has_what_is_plugged_in_and_no_more(deployment: Deployment) -> None:
    instance = deployment.launch()
    router = plan(deployment.store, instance.vpc_id)
    assert router is not None
    assert (router.cidrs, router.domain, router.resolver) == (("172.31.0.0/16",), "ec2.internal", "172.31.0.2")
    assert [(segment.name, segment.cidr, segment.gateway) for segment in router.segments] == [
        (instance.subnet_id, "172.31.0.0/20", "172.31.0.1")
    ]
    [port] = router.ports
    assert (port.address, port.host_name) == ("172.31.0.11", "ip-172-31-0-11")
    assert port.public == (("172.31.0.11", "203.0.113.11"),)
    assert Record(name="ec2-203-0-113-11.compute-1.amazonaws.com", address="172.31.0.11") in router.records
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
        Rule(id="sgr-3", egress=False, protocol="tcp", from_port=1, to_port=2, prefix_list_id="pl-gone"),
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


def test_what_is_on_the_host_is_looked_at_again_and_what_is_not_is_not(deployment: Deployment) -> None:
    instance = deployment.launch()
    assert deployment.networks.step(instance.vpc_id) == Again(pytest.approx(LOOK_EACH_S))
    deployment.change(instance.id, state=State.STOPPED)
    assert deployment.networks.step(instance.vpc_id) == Done()


def test_a_launch_that_brings_a_vpc_onto_the_host_has_it_looked_at_from_then_on(deployment: Deployment) -> None:
    one, other = deployment.launch(1), deployment.launch(2)
    deployment.settle(one.id)
    deployment.settle(other.id)
    assert deployment.appeared == [(one.vpc_id, LOOK_EACH_S)]


def test_damage_is_mended_by_the_next_look(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.settle(instance.id)
    deployment.host.network.lose_host()
    deployment.networks.ensure(instance.vpc_id)  # it believes what it was told
    assert deployment.host.network.routers() == []
    deployment.networks.step(instance.vpc_id)
    assert deployment.host.network.routers() == [instance.vpc_id]


def test_a_launch_follows_the_plan_before_and_a_look_does_not(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = deployment.launch(1)
    followed = deployment.watch_plans(monkeypatch)
    deployment.settle(one.id)
    first = plan(deployment.store, one.vpc_id)
    deployment.settle(deployment.launch(2).id)
    assert followed == [None, first]
    deployment.networks.step(one.vpc_id)
    assert followed[2:] == [None]


def test_where_a_machine_cannot_be_started_all_is_looked_at(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.settle(deployment.launch(1).id)
    followed = deployment.watch_plans(monkeypatch)
    failing = [HostError("no such bridge")]

    def fail_once(method: str, name: str) -> None:
        if method == "start" and failing:
            raise failing.pop()

    deployment.host.compute.fault = fail_once
    second = deployment.launch(2)
    with pytest.raises(HostError, match="no such bridge"):
        deployment.settle(second.id)
    assert len(followed) == 1 and followed[0] is not None
    deployment.settle(second.id)
    assert followed[1:] == [None]
    deployment.settle(deployment.launch(3).id)
    assert len(followed) == 3 and followed[2] is not None


def test_calls_that_wait_for_one_another_are_served_together(deployment: Deployment) -> None:
    """Fifty launches at once do not plan fifty times: who waits for an application that reads its rows is done."""
    instance = deployment.launch()
    waiting, go = threading.Event(), threading.Event()
    applied: list[str] = []

    def fault(method: str, name: str) -> None:
        if method == "apply":
            applied.append(name)
            waiting.set()
            assert go.wait(10)

    deployment.host.network.fault = fault
    first = threading.Thread(target=deployment.networks.ensure, args=(instance.vpc_id,))
    first.start()
    assert waiting.wait(10)
    deployment.launch(2)
    others = [threading.Thread(target=deployment.networks.ensure, args=(instance.vpc_id,)) for _ in range(8)]
    for thread in others:
        thread.start()
    go.set()
    for thread in (first, *others):
        thread.join(10)
    assert len(applied) == 2
    assert len(deployment.host.network.applied[instance.vpc_id].ports) == 2


def test_the_doorway_is_open_over_ipv6_where_the_vpc_has_it(deployment: Deployment) -> None:
    instance = deployment.launch()
    deployment.networks.step(instance.vpc_id)
    assert deployment.doors.opened_ipv6 == []
    subnet = deployment.store.get(Subnet, instance.subnet_id)
    assert subnet is not None
    ranges = (CidrAssociation(id="subnet-cidr-assoc-1", cidr="2001:db8:ec00::/64"),)
    with deployment.store.write() as tx:
        tx.put(replace(subnet, ipv6_cidrs=ranges))
    deployment.networks.step(instance.vpc_id)
    assert deployment.doors.opened_ipv6 == [instance.vpc_id]
    assert (instance.vpc_id, METADATA_IPV6_ADDRESS, 80) in deployment.host.network.endpoints


# --- peers -----------------------------------------------------------------------------------------------------------


class Pair:
    """The default VPC and another one, peers, with an instance each. Group `sg-0` of the first lets `sg-1` of the
    second in."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.one, self.other = deployment.launch(1), deployment.launch(2)
        here = deployment.store.get(Vpc, self.one.vpc_id)
        assert here is not None
        there = replace(here, id="vpc-0" + "a" * 16, cidr="10.5.0.0/16", is_default=False)
        subnet = deployment.store.get(Subnet, self.one.subnet_id)
        [group] = deployment.store.all(SecurityGroup)
        eni = deployment.store.all(NetworkInterface, instance_id=self.other.id)[0]
        assert subnet is not None
        self.here, self.there = here.id, there.id
        self.group = replace(group, id="sg-1", vpc_id=there.id, rules=())
        self.peering = peering("0" * 17, here.id, there.id)
        rules = (*group.rules, Rule(id="sgr-1", egress=False, protocol="-1", group_id="sg-1"))
        with deployment.store.write() as tx:
            tx.put_all([there, replace(subnet, id="subnet-1", vpc_id=there.id, cidr="10.5.1.0/24"), self.group])
            tx.put(replace(group, rules=rules))
            tx.put(self.peering)
            changes = {"vpc_id": there.id, "subnet_id": "subnet-1"}
            tx.put(replace(self.other, **changes))  # type: ignore[arg-type]
            tx.put(replace(eni, private_ip="10.5.1.9", groups=("sg-1",), **changes))  # type: ignore[arg-type]

    def router(self, vpc_id: str) -> Router:
        return self.deployment.host.network.applied[vpc_id]

    def in_step(self) -> bool:
        """Whether the host has what the rows come to."""
        store, network = self.deployment.store, self.deployment.host.network
        return all(plan(store, vpc_id) == network.applied.get(vpc_id) for vpc_id in (self.here, self.there))


@pytest.fixture
def pair(deployment: Deployment) -> Pair:
    return Pair(deployment)


def test_a_peer_hears_that_a_vpc_has_come_and_gone(deployment: Deployment, pair: Pair) -> None:
    deployment.change(pair.other.id, state=State.STOPPED)
    deployment.settle(pair.one.id)
    assert pair.router(pair.here).peerings == ()
    deployment.ask(pair.other.id, State.RUNNING, State.PENDING)
    deployment.settle(pair.other.id)
    assert [each.router for each in pair.router(pair.here).peerings] == [pair.there]
    assert pair.router(pair.here).address_sets[0].addresses == ("10.5.1.9",)
    assert pair.in_step()
    deployment.ask(pair.other.id, State.STOPPED, State.STOPPING)
    deployment.settle(pair.other.id)
    assert deployment.host.network.routers() == [pair.here]
    assert pair.router(pair.here).peerings == ()
    assert pair.in_step()


def test_a_peer_that_was_there_first_is_applied_again_when_its_cable_can_be(deployment: Deployment, pair: Pair) -> None:
    """Both plans name the peering from the beginning, but a cable has two ends."""
    deployment.networks.ensure(pair.here)
    applied: list[str] = []
    deployment.host.network.fault = lambda method, name: applied.append(name) if method == "apply" else None
    deployment.networks.ensure(pair.there)
    deployment.others()
    assert applied == [pair.there, pair.here]


def test_a_vpc_whose_peers_could_not_be_told_is_looked_at_and_tells_them_later(
    deployment: Deployment, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.networks.ensure(pair.there)
    wake = deployment.networks._wake
    failing = [StoreUnavailable("the disk is full")]

    def wake_later(vpc_ids: list[str]) -> None:
        if failing:
            raise failing.pop()
        wake(vpc_ids)

    monkeypatch.setattr(deployment.networks, "_wake", wake_later)
    with pytest.raises(StoreUnavailable):
        deployment.networks.ensure(pair.here)
    assert [vpc_id for vpc_id, _ in deployment.appeared] == [pair.there, pair.here]
    deployment.networks.ensure(pair.here)
    assert (Vpc.KIND, pair.there) in {each[:2] for each in deployment.store.pending_wakes()}
    deployment.others()
    assert pair.in_step()


def test_peers_are_told_of_a_vpc_whose_removal_failed_at_first(deployment: Deployment, pair: Pair) -> None:
    for vpc_id in (pair.here, pair.there):
        deployment.networks.ensure(vpc_id)
    deployment.others()
    deployment.change(pair.other.id, state=State.STOPPED)
    failing = [HostError("a tap is still plugged in")]

    def fault(method: str, name: str) -> None:
        if method == "remove" and failing:
            raise failing.pop()

    deployment.host.network.fault = fault
    with pytest.raises(HostError):
        deployment.networks.step(pair.there)
    deployment.networks.step(pair.there)
    deployment.others()
    assert pair.router(pair.here).peerings == () and pair.in_step()


def test_whoever_got_a_public_address_meanwhile_is_looked_at(deployment: Deployment, pair: Pair) -> None:
    """A look that had read its rows before the address moved gave it back to who had it before."""
    [one] = deployment.store.all(NetworkInterface, instance_id=pair.one.id)
    [other] = deployment.store.all(NetworkInterface, instance_id=pair.other.id)
    [gateway] = deployment.store.all(InternetGateway)
    with deployment.store.write() as tx:
        tx.put(replace(gateway, id="igw-1", vpc_id=pair.there))
        tx.delete(pair.peering)
        tx.put(replace(one, public_ip="203.0.113.50"))
        tx.put(replace(other, public_ip=""))
    for vpc_id in (pair.here, pair.there):
        deployment.networks.ensure(vpc_id)
    deployment.others()
    with deployment.store.write() as tx:
        tx.put(replace(one, public_ip=""))
        tx.put(replace(other, public_ip="203.0.113.50"))
    deployment.networks.step(pair.there)
    assert deployment.store.pending_wakes() == []
    deployment.networks.step(pair.here)  # which had it, as far as anybody knows
    assert [each[:2] for each in deployment.store.pending_wakes()] == [(Vpc.KIND, pair.there)]
    deployment.others()


def test_a_peers_groups_are_followed(deployment: Deployment, pair: Pair) -> None:
    for vpc_id in (pair.here, pair.there):
        deployment.networks.ensure(vpc_id)
    deployment.others()
    [eni] = deployment.store.all(NetworkInterface, instance_id=pair.other.id)
    there = deployment.store.get(Vpc, pair.there)
    assert there is not None
    with deployment.store.write() as tx:
        tx.put(replace(eni, more_private_ips=("10.5.1.10",)))
        tx.wake(there)
    deployment.others()
    assert pair.router(pair.here).address_sets[0].addresses == ("10.5.1.10", "10.5.1.9")
    assert pair.in_step()


def test_whoever_joins_or_leaves_a_peers_group_is_followed(deployment: Deployment, pair: Pair) -> None:
    """Only the VPC in which it happens is woken: that the other one names the group is found out from the plans."""
    for instance in (pair.one, pair.other):
        deployment.settle(instance.id)
    deployment.others()
    [eni] = deployment.store.all(NetworkInterface, instance_id=pair.other.id)
    more = replace(
        eni, id="eni-0" + "b" * 16, private_ip="10.5.1.20", mac="02:00:00:00:00:99", ipv6_addresses=("2001:db8::9",)
    )

    def members(*rows: NetworkInterface) -> list[tuple[str, ...]]:
        there = deployment.store.get(Vpc, pair.there)
        assert there is not None
        with deployment.store.write() as tx:
            tx.put_all(rows)
            tx.wake(there)
        deployment.others()
        assert pair.in_step()
        return [held.addresses for held in pair.router(pair.here).address_sets if held.name == "sg-1"]

    assert members(replace(eni, groups=())) == [()]
    assert members(replace(eni, groups=("sg-1",))) == [("10.5.1.9",)]
    assert members(more) == [("10.5.1.20", "10.5.1.9", "2001:db8::9")]  # a second one is attached
    assert members(replace(more, prefixes=("10.5.1.32/28",), ipv6_addresses=())) == [
        ("10.5.1.20", "10.5.1.32/28", "10.5.1.9")
    ]
    assert members(replace(more, attachment=None)) == [("10.5.1.9",)]  # and detached


def test_a_peer_that_is_being_applied_is_woken_too(deployment: Deployment, pair: Pair) -> None:
    """It has read its rows before they changed, and has no plan yet that could be compared."""
    for instance in (pair.one, pair.other):
        deployment.settle(instance.id)
    deployment.others()
    busy, go = threading.Event(), threading.Event()

    def fault(method: str, name: str) -> None:
        if method == "apply" and name == pair.here:
            busy.set()
            assert go.wait(10)

    deployment.host.network.fault = fault
    slow = threading.Thread(target=deployment.networks.step, args=(pair.here,))
    slow.start()
    assert busy.wait(10)
    [eni] = deployment.store.all(NetworkInterface, instance_id=pair.other.id)
    with deployment.store.write() as tx:
        tx.put(replace(eni, more_private_ips=("10.5.1.10",)))
    deployment.networks.step(pair.there)
    go.set()
    slow.join(10)
    assert not pair.in_step()
    deployment.others()
    assert pair.in_step()


def test_started_anew_peers_wake_each_other_once_and_rest(deployment: Deployment, pair: Pair) -> None:
    for instance in (pair.one, pair.other):
        deployment.settle(instance.id)
    deployment.restart()
    for vpc_id in deployment.host.network.routers():
        deployment.networks.step(vpc_id)
    deployment.others()  # which fails if it does not end
    assert pair.in_step()
    assert not [wake for wake in deployment.store.pending_wakes() if wake[0] == Vpc.KIND]


def test_killed_between_a_vpc_and_its_peer_the_next_start_makes_up_for_it(deployment: Deployment, pair: Pair) -> None:
    deployment.networks.ensure(pair.here)

    def dies(vpc_ids: list[str]) -> None:
        raise KeyboardInterrupt

    deployment.networks._wake = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        deployment.networks.ensure(pair.there)
    deployment.restart()
    for vpc_id in deployment.host.network.routers():
        deployment.networks.step(vpc_id)
    deployment.others()
    assert pair.in_step()


class Ticks:
    """A clock of seconds."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_few_vpcs_are_looked_at_each_so_often() -> None:
    rounds = Rounds(ticks := Ticks())
    for _ in range(3):
        assert [rounds.book(f"vpc-{number}", 0.01) for number in range(5)] == pytest.approx(
            [LOOK_EACH_S + number * 0.01 / LOOK_SHARE for number in range(5)]
        )
        ticks.now += 60


def test_looks_at_many_vpcs_take_no_more_than_their_share() -> None:
    rounds = Rounds(ticks := Ticks())
    due = {f"vpc-{number}": rounds.book(f"vpc-{number}", 0.02) + ticks.now for number in range(1000)}
    spent, began = 0.0, ticks.now + LOOK_EACH_S
    for _ in range(5000):
        vpc_id = min(due, key=lambda name: due[name])
        ticks.now = due[vpc_id]
        spent += 0.02
        due[vpc_id] = ticks.now + rounds.book(vpc_id, 0.02)
    assert spent / (ticks.now - began) == pytest.approx(LOOK_SHARE, rel=0.02)


def test_a_vpc_that_changes_often_takes_no_looks_from_others() -> None:
    rounds = Rounds(ticks := Ticks())
    rounds.book("vpc-quiet", 0.01)
    for _ in range(100):
        rounds.book("vpc-busy", 0.01)
        ticks.now += 0.1
    ticks.now += LOOK_EACH_S
    assert rounds.book("vpc-quiet", 0.01) == pytest.approx(LOOK_EACH_S)


def test_one_slow_look_counts_little_and_dear_ones_count() -> None:
    rounds = Rounds(ticks := Ticks())

    def next_after(cost_s: float) -> float:
        """How long the line is after one more look."""
        ticks.now += 10_000
        rounds.forget("vpc-next")
        first = rounds.book("vpc-1", cost_s)
        return rounds.book("vpc-next", 0.0) - first

    assert next_after(0.01) == pytest.approx(0.01 / LOOK_SHARE)
    assert next_after(5.0) == pytest.approx(0.02 / LOOK_SHARE)
    for _ in range(5):
        dear = next_after(0.2)
    assert dear == pytest.approx(0.2 / LOOK_SHARE)


def test_vpcs_that_have_gone_take_no_looks() -> None:
    now = [0.0]
    rounds = Rounds(lambda: now[0])
    rounds.book("vpc-stays", 0.01)
    for number in range(1000):
        now[0] += 1.0
        rounds.book(f"vpc-{number}", 0.01)
        rounds.forget(f"vpc-{number}")
    assert rounds.book("vpc-new", 0.01) == LOOK_EACH_S

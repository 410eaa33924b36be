"""Interfaces of instances: plugged into machines that run and out of them, and what becomes of them at the end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.host import HostError, Nic
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.vpc import FlowLog, InterfaceAttachment, InterfacePermission, NetworkInterface, Vpc
from orchestrator.reconcile.loop import Again
from orchestrator.reconcile.plug import LET_GO_WITHIN
from tests.reconcile.conftest import Deployment

SECOND = "eni-0" + "2" * 16


def running(deployment: Deployment) -> Instance:
    instance = deployment.launch()
    deployment.settle(instance.id)
    return instance


def attach(deployment: Deployment, instance: Instance, *, state: str = "attaching", **changes: object) -> None:
    """What AttachNetworkInterface writes for an interface that is free."""
    [first] = deployment.store.all(NetworkInterface, instance_id=instance.id)
    attachment = InterfaceAttachment(
        id="eni-attach-2", instance_id=instance.id, device_index=1, state=state, delete_on_termination=False
    )
    address = {"mac": "0a:00:00:00:00:aa", "private_ip": "172.31.0.99", "public_ip": ""}
    with deployment.store.write() as tx:
        tx.put(replace(first, id=SECOND, attachment=attachment, **(address | changes)))  # type: ignore[arg-type]


def second(deployment: Deployment) -> NetworkInterface:
    found = deployment.store.get(NetworkInterface, SECOND)
    assert found is not None
    return found


def detach(deployment: Deployment, *, forced: bool = False) -> None:
    interface = second(deployment)
    assert interface.attachment is not None
    attachment = replace(interface.attachment, state="detaching", forced=forced)
    with deployment.store.write() as tx:
        tx.put(replace(interface, attachment=attachment))


def ports(deployment: Deployment, instance: Instance) -> list[str]:
    return [nic.port for nic in deployment.host.compute.nics(instance.id)]


def give_elastic_ip(deployment: Deployment, interface_id: str) -> None:
    address = ElasticIp(
        id="eipalloc-1",
        created=deployment.clock(),
        public_ip="203.0.113.77",
        interface_id=interface_id,
        private_ip="172.31.0.99",
        association_id="eipassoc-1",
    )
    with deployment.store.write() as tx:
        tx.put(address)


def test_attached_while_it_runs(deployment: Deployment) -> None:
    instance = running(deployment)
    effects: list[str] = []
    for part in (deployment.host.compute, deployment.host.network):
        part.fault = lambda method, name: effects.append(method)
    attach(deployment, instance)
    deployment.settle(instance.id)
    assert ports(deployment, instance) == ["eni-" + instance.id[2:], SECOND]
    attachment = second(deployment).attachment
    assert attachment is not None
    assert (attachment.state, attachment.attached_at) == ("attached", deployment.clock())
    assert effects.index("apply") < effects.index("plug_in")
    assert [port.name for port in deployment.host.network.applied[instance.vpc_id].ports] == [
        "eni-" + instance.id[2:],
        SECOND,
    ]


def test_detached_while_it_runs_it_keeps_what_is_its_own(deployment: Deployment) -> None:
    instance = running(deployment)
    attach(deployment, instance, more_private_ips=("172.31.0.100",))
    deployment.settle(instance.id)
    give_elastic_ip(deployment, SECOND)
    before = second(deployment)
    detach(deployment)
    deployment.settle(instance.id)
    after = second(deployment)
    assert (after.attachment, after.state) == (None, "available")
    assert (after.mac, after.private_ips, after.groups) == (before.mac, before.private_ips, before.groups)
    assert deployment.store.all(ElasticIp)[0].interface_id == SECOND
    assert ports(deployment, instance) == ["eni-" + instance.id[2:]]
    assert len(deployment.host.network.applied[instance.vpc_id].ports) == 1


def test_moved_to_another_instance(deployment: Deployment) -> None:
    instance = running(deployment)
    other = deployment.launch(9)
    deployment.settle(other.id)
    attach(deployment, instance)
    deployment.settle(instance.id)
    mac = second(deployment).mac
    detach(deployment)
    deployment.settle(instance.id)
    attachment = InterfaceAttachment(id="eni-attach-3", instance_id=other.id, device_index=1, state="attaching")
    with deployment.store.write() as tx:
        tx.put(replace(second(deployment), attachment=attachment, state="in-use"))
    deployment.settle(other.id)
    assert [nic.mac for nic in deployment.host.compute.nics(other.id)][1] == mac
    assert second(deployment).instance_id == other.id


def test_a_guest_that_holds_on_is_asked_again_and_waited_for(deployment: Deployment) -> None:
    instance = running(deployment)
    attach(deployment, instance)
    deployment.settle(instance.id)
    deployment.host.compute.hold_on(instance.id)
    asked: list[str] = []
    deployment.host.compute.fault = lambda method, name: asked.append(method) if method == "unplug" else None
    detach(deployment)
    for _ in range(60):
        result = deployment.step(instance.id)
        assert isinstance(result, Again)
        deployment.clock.pass_(seconds=result.after_s)
    attachment = second(deployment).attachment
    assert attachment is not None
    assert attachment.state == "detaching"
    assert 5 < len(asked) < 60
    deployment.host.compute.guest_lets_go(instance.id, SECOND)
    deployment.settle(instance.id)
    assert second(deployment).state == "available"


def test_by_force_it_is_detached_after_a_while_whatever_the_guest_does(deployment: Deployment) -> None:
    instance = running(deployment)
    attach(deployment, instance)
    deployment.settle(instance.id)
    deployment.host.compute.hold_on(instance.id)
    detach(deployment, forced=True)
    deployment.step(instance.id)
    assert second(deployment).state == "in-use"
    deployment.clock.pass_(seconds=LET_GO_WITHIN.total_seconds())
    deployment.step(instance.id)
    deployment.others()
    assert second(deployment).attachment is None
    assert len(deployment.host.network.applied[instance.vpc_id].ports) == 1
    assert SECOND in ports(deployment, instance)  # the guest is asked on
    deployment.host.compute.guest_lets_go(instance.id, SECOND)
    deployment.settle(instance.id)
    assert SECOND not in ports(deployment, instance)


def test_plugged_in_without_a_row_it_is_unplugged_and_with_one_the_other_way_round(deployment: Deployment) -> None:
    instance = running(deployment)
    attach(deployment, instance, state="attached")
    deployment.step(instance.id)
    assert SECOND in ports(deployment, instance)
    with deployment.store.write() as tx:
        tx.delete(second(deployment))
    deployment.settle(instance.id)
    assert ports(deployment, instance) == ["eni-" + instance.id[2:]]


def test_what_finds_no_slot_is_given_back(deployment: Deployment) -> None:
    instance = running(deployment)
    deployment.host.compute._most_nics = 1
    attach(deployment, instance)
    deployment.settle(instance.id)
    assert (second(deployment).state, second(deployment).attachment) == ("available", None)
    assert deployment.instance(instance.id).state is State.RUNNING


def test_what_may_pass_is_tried_again_and_its_network_looked_at(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = running(deployment)
    followed = deployment.watch_plans(monkeypatch)

    def fault(method: str, name: str) -> None:
        if method == "plug_in":
            raise HostError("the monitor is busy")

    deployment.host.compute.fault = fault
    attach(deployment, instance)
    with pytest.raises(HostError):
        deployment.step(instance.id)
    assert len(followed) == 1 and followed[0] is not None
    deployment.host.compute.fault = lambda method, name: None
    deployment.settle(instance.id)
    assert followed[1:] == [None]
    assert SECOND in ports(deployment, instance)


def test_a_request_that_comes_in_between_is_not_overwritten(deployment: Deployment) -> None:
    """Detached by force while it is being plugged in: it is not given back before it is unplugged."""
    instance = running(deployment)
    deployment.host.compute.hold_on(instance.id)
    attach(deployment, instance)
    real = deployment.host.compute.plug_in

    def plug_in(name: str, nic: Nic) -> None:
        real(name, nic)
        detach(deployment, forced=True)

    deployment.host.compute.plug_in = plug_in  # type: ignore[method-assign]
    deployment.step(instance.id)
    attachment = second(deployment).attachment
    assert attachment is not None
    assert attachment.state == "detaching"
    deployment.step(instance.id)
    deployment.host.compute.guest_lets_go(instance.id, SECOND)
    deployment.settle(instance.id)
    assert second(deployment).state == "available"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("ends_after", ["apply", "plug_in", "unplug"])
def test_killed_after_any_effect_it_goes_on(deployment: Deployment, ends_after: str) -> None:
    instance = running(deployment)
    if ends_after == "unplug":
        attach(deployment, instance)
        deployment.settle(instance.id)
        detach(deployment)
    else:
        attach(deployment, instance)
    part = deployment.host.network if ends_after == "apply" else deployment.host.compute
    real = getattr(part, ends_after)

    def dies(*args: object) -> None:
        real(*args)
        setattr(part, ends_after, real)
        raise Killed

    setattr(part, ends_after, dies)
    with pytest.raises(Killed):
        deployment.step(instance.id)
    deployment.restart()
    deployment.settle(instance.id)
    assert (SECOND in ports(deployment, instance)) is (ends_after != "unplug")
    assert second(deployment).state == ("available" if ends_after == "unplug" else "in-use")


def test_a_launch_with_several_plugs_them_in_in_order(deployment: Deployment) -> None:
    instance = deployment.launch()
    attach(deployment, instance)
    deployment.settle(instance.id)
    assert [nic.port for nic in deployment.host.compute.machine(instance.id).nics] == [
        "eni-" + instance.id[2:],
        SECOND,
    ]
    attachment = second(deployment).attachment
    assert attachment is not None
    assert attachment.state == "attached"


def test_an_interface_of_another_vpc_has_its_network_too(deployment: Deployment) -> None:
    instance = deployment.launch()
    [vpc] = deployment.store.all(Vpc)
    with deployment.store.write() as tx:
        tx.put(replace(vpc, id="vpc-other"))
    attach(deployment, instance, vpc_id="vpc-other")
    deployment.settle(instance.id)
    assert sorted(deployment.host.network.routers()) == sorted([vpc.id, "vpc-other"])
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    deployment.settle(instance.id)
    assert deployment.host.network.routers() == []


def test_stopped_while_it_comes_or_goes_it_has_come_or_gone(deployment: Deployment) -> None:
    instance = running(deployment)
    attach(deployment, instance)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    deployment.settle(instance.id)
    attachment = second(deployment).attachment
    assert attachment is not None
    assert attachment.state == "attached"
    deployment.ask(instance.id, State.RUNNING, State.PENDING)
    deployment.settle(instance.id)
    assert SECOND in ports(deployment, instance)
    deployment.host.compute.hold_on(instance.id)
    detach(deployment)
    deployment.step(instance.id)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    deployment.settle(instance.id)
    assert second(deployment).attachment is None


def test_a_stop_keeps_elastic_ips(deployment: Deployment) -> None:
    instance = running(deployment)
    primary = "eni-" + instance.id[2:]
    give_elastic_ip(deployment, primary)
    deployment.ask(instance.id, State.STOPPED, State.STOPPING)
    deployment.settle(instance.id)
    [address] = deployment.store.all(ElasticIp)
    assert (address.interface_id, address.association_id) == (primary, "eipassoc-1")


def test_terminated_what_goes_leaves_nothing_and_what_stays_keeps_its_addresses(deployment: Deployment) -> None:
    instance = running(deployment)
    primary = "eni-" + instance.id[2:]
    attach(deployment, instance, public_ip="203.0.113.5", auto_public_ip=True)
    deployment.settle(instance.id)
    now = deployment.clock()
    with deployment.store.write() as tx:
        for number, interface_id in enumerate((primary, SECOND)):
            tx.put(
                ElasticIp(
                    id=f"eipalloc-{number}",
                    created=now,
                    public_ip=f"203.0.113.{number + 70}",
                    interface_id=interface_id,
                    private_ip="172.31.0.99",
                    association_id=f"eipassoc-{number}",
                )
            )
            tx.put(FlowLog(id=f"fl-{number}", created=now, resource_id=interface_id, traffic="ALL"))
            tx.put(
                InterfacePermission(
                    id=f"eni-perm-{number}",
                    created=now,
                    interface_id=interface_id,
                    granted_to="2" * 12,
                    permission="INSTANCE-ATTACH",
                )
            )
    deployment.ask(instance.id, State.TERMINATED, State.SHUTTING_DOWN)
    deployment.settle(instance.id)
    assert [each.id for each in deployment.store.all(NetworkInterface)] == [SECOND]
    stays = second(deployment)
    assert (stays.state, stays.attachment, stays.private_ip) == ("available", None, "172.31.0.99")
    assert (stays.public_ip, stays.auto_public_ip) == ("", False)
    freed, kept = (deployment.store.get(ElasticIp, f"eipalloc-{number}") for number in range(2))
    assert freed is not None
    assert (freed.interface_id, freed.private_ip, freed.association_id) == ("", "", "")
    assert kept is not None
    assert kept.interface_id == SECOND
    assert [each.resource_id for each in deployment.store.all(FlowLog)] == [SECOND]
    assert [each.interface_id for each in deployment.store.all(InterfacePermission)] == [SECOND]
    assert deployment.host.network.routers() == []

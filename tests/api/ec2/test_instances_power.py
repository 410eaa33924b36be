"""Start, stop, reboot and terminate: the gate, what is written, who is protected."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import GATE, Request, State, Verdict
from orchestrator.model.vpc import NetworkInterface

ACTIONS = {
    Request.START: "StartInstances",
    Request.STOP: "StopInstances",
    Request.REBOOT: "RebootInstances",
    Request.TERMINATE: "TerminateInstances",
}
USER = {
    "Code": "Client.UserInitiatedShutdown",
    "Message": "Client.UserInitiatedShutdown: User initiated shutdown",
}


@pytest.fixture
def one(api):
    return api.launch(InstanceType="t3.micro")[0]


def interface_of(api, instance_id):
    (interface,) = api.store.all(NetworkInterface, instance_id=instance_id)
    return interface


def wakes(api):
    return [name for _, name, _ in api.store.pending_wakes()]


def forget_wakes(api):
    for kind, name, serial in api.store.pending_wakes():
        api.store.wake_done(kind, name, serial)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("request_", list(Request))
def test_the_gate_is_asked(api, one, state, request_):
    instance = api.change(api.get(Instance, one), state=state)
    forget_wakes(api)
    verdict = GATE[request_][state]
    if verdict is Verdict.DENY:
        assert api.refused(ACTIONS[request_], InstanceIds=[one]).code == "IncorrectInstanceState"
        return
    answer = api.call(ACTIONS[request_], InstanceIds=[one])
    if request_ is not Request.REBOOT:
        ((change,),) = answer.values()
        assert change["PreviousState"]["Name"] == state
        assert change["CurrentState"]["Name"] == api.get(Instance, one).state
    if verdict is Verdict.IGNORE:
        assert api.get(Instance, one) == instance and wakes(api) == []


@pytest.mark.parametrize("action", ACTIONS.values())
def test_ids_that_name_nothing_fail_the_call(api, one, action):
    assert api.refused(action, InstanceIds=["x"]).code == "InvalidInstanceID.Malformed"
    (theirs,) = api.by().launch()
    assert api.refused(action, InstanceIds=[one, theirs]).code == "InvalidInstanceID.NotFound"
    assert api.get(Instance, one).state is State.RUNNING


def test_one_denied_instance_fails_the_call(api):
    first, second = api.launch(2)
    api.settle(second, State.STOPPED)
    assert api.refused("RebootInstances", InstanceIds=[first, second]).code == "IncorrectInstanceState"


def test_stop(api, one):
    forget_wakes(api)
    api.advance(60)
    (change,) = api.call("StopInstances", InstanceIds=[one, one])["StoppingInstances"]
    assert change == {
        "InstanceId": one,
        "CurrentState": {"Code": 64, "Name": "stopping"},
        "PreviousState": {"Code": 16, "Name": "running"},
    }
    instance = api.get(Instance, one)
    assert (instance.goal.power, instance.goal.forced, instance.goal.since) == (State.STOPPED, False, api.now)
    assert wakes(api) == [one]
    shown = api.call("DescribeInstances")["Reservations"][0]["Instances"][0]
    assert shown["StateTransitionReason"] == "User initiated (2026-01-02 03:05:05 GMT)"
    assert shown["StateReason"] == USER


def test_a_forced_stop_overtakes_one_that_waits(api, one):
    api.call("StopInstances", InstanceIds=[one])
    asked = api.get(Instance, one)
    api.advance(10)
    forget_wakes(api)
    api.call("StopInstances", InstanceIds=[one])
    assert api.get(Instance, one) == asked and wakes(api) == []
    api.call("StopInstances", InstanceIds=[one], Force=True)
    goal = api.get(Instance, one).goal
    assert goal.forced and goal.since == asked.goal.since and wakes(api) == [one]


def test_stop_protection_and_hibernation(api, one):
    error = api.refused("StopInstances", InstanceIds=[one], Hibernate=True)
    assert error.code == "UnsupportedHibernationConfiguration"
    api.change(api.get(Instance, one), disable_api_stop=True)
    error = api.refused("StopInstances", InstanceIds=[one], Force=True)
    assert error.code == "OperationNotPermitted" and "disableApiStop" in error.message
    assert api.refused("StopInstances", InstanceIds=[one], DryRun=True).code == "OperationNotPermitted"


def test_start_gives_another_public_address_and_keeps_the_private_one(api, one):
    before = interface_of(api, one)
    api.call("StopInstances", InstanceIds=[one])
    api.settle(one, State.STOPPED)
    api.advance(60)
    forget_wakes(api)
    (change,) = api.call("StartInstances", InstanceIds=[one])["StartingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopped", "pending")
    after, instance = interface_of(api, one), api.get(Instance, one)
    assert after.private_ip == before.private_ip and after.mac == before.mac
    assert after.public_ip and after.public_ip != before.public_ip
    assert instance.goal.power is State.RUNNING and instance.launched_at == api.now
    assert (instance.reason, instance.transition_reason) == (None, "")
    assert instance.timeline == {"requested": api.now}
    assert wakes(api) == [one]


def test_start_avoids_the_last_address_unless_it_is_the_only_one(api):
    api.configure(public_range=IPv4Network("198.51.100.0/29"))  # .3 to .6
    made = api.launch(4)
    last = interface_of(api, made[0]).public_ip
    api.settle(made[0], State.STOPPED)
    api.call("StartInstances", InstanceIds=[made[0]])
    assert interface_of(api, made[0]).public_ip == last
    api.settle(made[0], State.STOPPED)
    interfaces = [{"DeviceIndex": 0, "AssociatePublicIpAddress": True}]
    (fifth,) = api.launch(NetworkInterfaces=interfaces)
    assert api.refused("StartInstances", InstanceIds=[made[0]]).code == "InsufficientAddressCapacity"
    api.settle(fifth, State.TERMINATED)
    for _ in range(20):
        api.settle(made[0], State.STOPPED)
        api.settle(made[1], State.STOPPED)
        before = interface_of(api, made[0]).last_public_ip
        api.call("StartInstances", InstanceIds=[made[0]])
        assert interface_of(api, made[0]).public_ip != before


def test_start_without_a_public_address_stays_without(api):
    (one,) = api.launch(NetworkInterfaces=[{"DeviceIndex": 0, "AssociatePublicIpAddress": False}])
    api.settle(one, State.STOPPED)
    api.call("StartInstances", InstanceIds=[one])
    assert interface_of(api, one).public_ip == ""


def test_start_needs_room(api):
    api.configure(processors=4, memory_mib=2048)
    first, second = api.launch(2, InstanceType="t3.micro")
    api.settle(first, State.STOPPED)
    (third,) = api.launch(InstanceType="t3.micro")
    error = api.refused("StartInstances", InstanceIds=[first])
    assert (error.code, error.http_status) == ("InsufficientInstanceCapacity", 500)
    api.settle(third, State.TERMINATED)
    api.settle(second, State.STOPPED)
    api.call("StartInstances", InstanceIds=[first, second])


def test_reboots_are_counted(api, one):
    forget_wakes(api)
    assert api.call("RebootInstances", InstanceIds=[one]) == {}
    api.call("RebootInstances", InstanceIds=[one])
    instance = api.get(Instance, one)
    assert (instance.goal.reboots, instance.state) == (2, State.RUNNING)
    assert wakes(api) == [one]
    api.call("StopInstances", InstanceIds=[one])
    assert api.get(Instance, one).goal.reboots == 2


def test_terminate_and_again(api, one):
    forget_wakes(api)
    (change,) = api.call("TerminateInstances", InstanceIds=[one])["TerminatingInstances"]
    assert change["CurrentState"] == {"Code": 32, "Name": "shutting-down"}
    instance = api.get(Instance, one)
    assert instance.goal.power is State.TERMINATED and instance.reason.code == USER["Code"]
    assert wakes(api) == [one]
    api.settle(one, State.TERMINATED)
    forget_wakes(api)
    (change,) = api.call("TerminateInstances", InstanceIds=[one])["TerminatingInstances"]
    assert change["CurrentState"] == change["PreviousState"] == {"Code": 48, "Name": "terminated"}
    assert wakes(api) == []


def test_termination_protection_keeps_the_zone(api):
    a, b = api.launch(2, Placement={"AvailabilityZone": "us-east-1a"})
    c, d = api.launch(2, Placement={"AvailabilityZone": "us-east-1b"})
    api.change(api.get(Instance, c), disable_api_termination=True)
    rehearsed = api.refused("TerminateInstances", InstanceIds=[a, b, c, d], DryRun=True)
    assert rehearsed.code == "OperationNotPermitted"
    assert api.refused("TerminateInstances", InstanceIds=[c, d]).code == "OperationNotPermitted"
    forget_wakes(api)
    with pytest.raises(type(rehearsed)) as caught:
        api.call("TerminateInstances", InstanceIds=[a, b, c, d])
    assert caught.value.code == "OperationNotPermitted" and c in caught.value.message
    states = [api.get(Instance, name).state for name in (a, b, c, d)]
    assert states == [State.SHUTTING_DOWN, State.SHUTTING_DOWN, State.RUNNING, State.RUNNING]
    assert sorted(wakes(api)) == sorted([a, b])
    assert api.store.events(1)[0]["eventName"] == "TerminateInstances"


def test_protection_of_what_ends_anyway_does_not_matter(api, one):
    api.change(api.get(Instance, one), state=State.TERMINATED, disable_api_termination=True)
    assert api.call("TerminateInstances", InstanceIds=[one])["TerminatingInstances"]


@pytest.mark.parametrize("action", ACTIONS.values())
def test_dry_run(api, one, action):
    if action == "StartInstances":
        api.settle(one, State.STOPPED)
    assert api.refused(action, InstanceIds=[one], DryRun=True).code == "DryRunOperation"

"""StartInstances, StopInstances, RebootInstances and TerminateInstances.

Each asks the lifecycle's gate about every instance before it changes any, then writes what should be (`goal`) and the
state in between, and wakes the reconciler, which writes the settled state.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from orchestrator.api.ec2.capacity import Room, vcpus
from orchestrator.api.ec2.encryption import check_attached
from orchestrator.api.ec2.instance_view import show_state
from orchestrator.api.ec2.network_interfaces import give_auto_address
from orchestrator.api.ec2.subnet_addresses import PublicAddresses
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import instance_type
from orchestrator.model.errors import EC2Error, PartlyDone
from orchestrator.model.instance import Goal, Instance, Reason
from orchestrator.model.lifecycle import TRANSITIONAL, Request, State, Verdict, judge
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface

BY_USER: Final = Reason(
    code="Client.UserInitiatedShutdown", message="Client.UserInitiatedShutdown: User initiated shutdown"
)


def by_user(at: datetime) -> str:
    """EC2's StateTransitionReason."""
    return f"User initiated ({at.astimezone(UTC):%Y-%m-%d %H:%M:%S} GMT)"


def judged(call: Call, request: Request, instance_ids: Iterable[str]) -> list[tuple[Instance, Verdict]]:
    """The instances with the gate's verdicts; one that is denied fails the call."""
    found = call.find_all(Instance, "i", instance_ids)
    return [(instance, judge(request, instance.state, instance.id)) for instance in found]


def show_change(before: Instance, after: Instance) -> Answer:
    return {
        "InstanceId": after.id,
        "CurrentState": show_state(after.state),
        "PreviousState": show_state(before.state),
    }


def _not_permitted(instances: Iterable[Instance], verb: str, attribute: str) -> str:
    listed = ", ".join(f"'{instance.id}'" for instance in instances)
    return f"The instance {listed} may not be {verb}. Modify its '{attribute}' instance attribute and try again."


@operation("StartInstances", writes=True)
def start_instances(call: Call, *, instance_ids: list[str]) -> Answer:
    room, addresses = Room(call), PublicAddresses(call)
    return {
        "StartingInstances": [
            show_change(instance, _start(call, instance, room, addresses) if verdict is Verdict.ACCEPT else instance)
            for instance, verdict in judged(call, Request.START, instance_ids)
        ]
    }


def _start(call: Call, instance: Instance, room: Room, addresses: PublicAddresses) -> Instance:
    kind = instance_type.get(instance.instance_type)
    processors = vcpus(kind, instance.core_count, instance.threads_per_core)
    if not room.take(kind, processors):
        raise room.refuse(kind, processors, 1, instance.zone)
    _check_volumes(call, instance)
    for interface in call.tx.all(NetworkInterface, instance_id=instance.id):
        give_auto_address(call, interface, addresses)
    started = call.tx.put(
        replace(
            instance,
            goal=Goal(power=State.RUNNING, reboots=instance.goal.reboots, since=call.now),
            state=TRANSITIONAL[Request.START],
            reason=None,
            transition_reason="",
            launched_at=call.now,
            system_status="initializing",
            instance_status="initializing",
            timeline={"requested": call.now},
        )
    )
    call.tx.wake(started)
    return started


def _check_volumes(call: Call, instance: Instance) -> None:
    """Its root volume may have been detached, and the keys of those that it has may not be the caller's to use."""
    volumes = call.tx.all(Volume, instance_id=instance.id)
    if not any(volume.attachment and volume.attachment.device == instance.root_device for volume in volumes):
        raise EC2Error(
            "InvalidParameterValue",
            f"Invalid value '{instance.id}' for instanceId. Instance does not have a volume attached at root "
            f"({instance.root_device})",
        )
    for volume in volumes:
        check_attached(call, volume)


@operation("StopInstances", writes=True)
def stop_instances(
    call: Call,
    *,
    instance_ids: list[str],
    force: bool = False,
    hibernate: bool = False,
    skip_os_shutdown: bool = False,
) -> Answer:
    """With `force` or `skip_os_shutdown` the guest is not asked, also when it is stopping already."""
    found = judged(call, Request.STOP, instance_ids)
    if hibernate and found:
        raise EC2Error(
            "UnsupportedHibernationConfiguration",
            f"The instance '{found[0][0].id}' is not configured for hibernation: stop it without Hibernate",
        )
    protected = [i for i, verdict in found if verdict is Verdict.ACCEPT and i.disable_api_stop]
    if protected:
        raise EC2Error("OperationNotPermitted", _not_permitted(protected, "stopped", "disableApiStop"))
    forced = force or skip_os_shutdown
    return {
        "StoppingInstances": [
            show_change(instance, _stop(call, instance, forced) if verdict is Verdict.ACCEPT else instance)
            for instance, verdict in found
        ]
    }


def _stop(call: Call, instance: Instance, forced: bool) -> Instance:
    if instance.state is State.STOPPING:
        if not forced or instance.goal.forced:
            return instance
        stopped = call.tx.put(replace(instance, goal=replace(instance.goal, forced=True)))
    else:
        stopped = call.tx.put(
            replace(
                instance,
                goal=Goal(power=State.STOPPED, forced=forced, reboots=instance.goal.reboots, since=call.now),
                state=TRANSITIONAL[Request.STOP],
                reason=BY_USER,
                transition_reason=by_user(call.now),
            )
        )
    call.tx.wake(stopped)
    return stopped


@operation("RebootInstances", writes=True)
def reboot_instances(call: Call, *, instance_ids: list[str]) -> Answer:
    for instance, _ in judged(call, Request.REBOOT, instance_ids):
        goal = replace(instance.goal, reboots=instance.goal.reboots + 1, since=call.now)
        call.tx.wake(call.tx.put(replace(instance, goal=goal)))
    return {}


@operation("TerminateInstances", writes=True)
def terminate_instances(
    call: Call, *, instance_ids: list[str], force: bool = False, skip_os_shutdown: bool = False
) -> Answer:
    """One protected instance keeps all of its zone that the call names; those of other zones are terminated even so.

    `force` changes nothing: a guest that does not end in time is ended in any case.
    """
    found = judged(call, Request.TERMINATE, instance_ids)
    protected = [i for i, verdict in found if verdict is Verdict.ACCEPT and i.disable_api_termination]
    kept_zones = {instance.zone for instance in protected}
    changes = []
    for instance, verdict in found:
        if verdict is not Verdict.ACCEPT:
            changes.append(show_change(instance, instance))
        elif instance.zone not in kept_zones:
            changes.append(show_change(instance, _terminate(call, instance, skip_os_shutdown)))
    if protected:
        raise PartlyDone("OperationNotPermitted", _not_permitted(protected, "terminated", "disableApiTermination"))
    return {"TerminatingInstances": changes}


def _terminate(call: Call, instance: Instance, forced: bool) -> Instance:
    terminated = call.tx.put(
        replace(
            instance,
            goal=Goal(power=State.TERMINATED, forced=forced, reboots=instance.goal.reboots, since=call.now),
            state=TRANSITIONAL[Request.TERMINATE],
            reason=BY_USER,
            transition_reason=by_user(call.now),
        )
    )
    call.tx.wake(terminated)
    return terminated

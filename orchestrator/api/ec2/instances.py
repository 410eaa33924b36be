"""DescribeInstances and DescribeInstanceStatus."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from orchestrator.api.ec2.instance_search import candidates
from orchestrator.api.ec2.instance_view import instance_filters, reservations, show_state
from orchestrator.api.operation import Answer, Call, choose, filter_test, operation, page, show_page
from orchestrator.api.protocol import Fragment
from orchestrator.model.errors import EC2Error
from orchestrator.model.filters import FilterTable
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import CODES, State
from orchestrator.model.zone import zone_id


def asked_for(call: Call, instance_ids: Sequence[str] | None) -> list[Instance]:
    """Those of the ids, or all of the caller's that the filters may let through; ids do not go with pages."""
    if not instance_ids:
        found = candidates(call.db, call.params.get("Filters") or ())
        return call.mine(Instance) if found is None else [instance for instance in found if call.sees(instance)]
    if call.params.get("MaxResults") is not None:
        raise EC2Error(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        )
    return call.find_all(Instance, "i", instance_ids)


@operation("DescribeInstances", listing=True)
def describe_instances(call: Call, *, instance_ids: list[str] | None = None) -> Answer:
    test = filter_test(call, instance_filters(call)) if call.params.get("Filters") else None
    chosen, token = page(call, asked_for(call, instance_ids), test=test)
    answer: Answer = {"Reservations": reservations(call, chosen)}
    if token:
        answer["NextToken"] = token
    return answer


# --- status -----------------------------------------------------------------------------------------------------------

_REACHABILITY: Final = {
    "ok": "passed",
    "impaired": "failed",
    "initializing": "initializing",
    "insufficient-data": "insufficient-data",
}
_CHECKED: Final = (State.RUNNING,)  # the states in which checks are made


def system_status(instance: Instance) -> str:
    return instance.system_status if instance.state in _CHECKED else "not-applicable"


def instance_status(instance: Instance) -> str:
    return instance.instance_status if instance.state in _CHECKED else "not-applicable"


def disk_status(instance: Instance) -> str:
    """Disks are files of the host: they are reached whenever the host is."""
    return "ok" if instance.state in _CHECKED else "not-applicable"


# Documented filters on scheduled events and on checks that no instance has here: they match nothing.
_NEVER: Final = (
    "application-status.status",
    "event.code",
    "event.description",
    "event.instance-event-id",
    "event.not-after",
    "event.not-before",
    "event.not-before-deadline",
    "operator.principal",
)

STATUS_FILTERS: Final[FilterTable] = {
    **{name: lambda instance: None for name in _NEVER},
    "attached-ebs-status.status": disk_status,
    "availability-zone": lambda instance: instance.zone,
    "availability-zone-id": lambda instance: zone_id(instance.zone),
    "instance-state-code": lambda instance: str(CODES[instance.state]),
    "instance-state-name": lambda instance: instance.state.value,
    "instance-status.reachability": lambda instance: _REACHABILITY.get(instance_status(instance)),
    "instance-status.status": instance_status,
    "operator.managed": lambda instance: "false",
    "system-status.reachability": lambda instance: _REACHABILITY.get(system_status(instance)),
    "system-status.status": system_status,
}


@operation("DescribeInstanceStatus", listing=True)
def describe_instance_status(
    call: Call, *, instance_ids: list[str] | None = None, include_all_instances: bool = False
) -> Answer:
    """Only running instances, unless all are asked for; that goes for ids too."""
    found = asked_for(call, instance_ids)
    if not include_all_instances:
        found = [instance for instance in found if instance.state is State.RUNNING]
    return show_page(call, "InstanceStatuses", choose(call, found, STATUS_FILTERS), _status_fragment)


def _status_fragment(instance: Instance) -> Fragment:
    return Fragment((instance.id, instance.revision), lambda: _show_status(instance))


def _show_status(instance: Instance) -> Answer:
    return {
        "InstanceId": instance.id,
        "AvailabilityZone": instance.zone,
        "AvailabilityZoneId": zone_id(instance.zone),
        "Operator": {"Managed": False},
        "Events": [],
        "InstanceState": show_state(instance.state),
        "InstanceStatus": _show_check(instance_status(instance), instance.impaired_since),
        "SystemStatus": _show_check(system_status(instance)),
        "AttachedEbsStatus": _show_check(disk_status(instance)),
    }


def _show_check(status: str, impaired_since: datetime | None = None) -> Answer:
    if status not in _REACHABILITY:
        return {"Status": status}
    detail: Answer = {"Name": "reachability", "Status": _REACHABILITY[status]}
    if status == "impaired" and impaired_since is not None:
        detail["ImpairedSince"] = impaired_since
    return {"Status": status, "Details": [detail]}

"""Changes of single options of instances: the metadata service, CPU credits, detailed monitoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestrator.api.ec2.instance_view import show_metadata_options
from orchestrator.api.ec2.instances import asked_for
from orchestrator.api.ec2.launch_options import Structure, change_metadata_options, check_credits
from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model.errors import EC2Error, missing_parameter, unsupported
from orchestrator.model.instance import Instance
from orchestrator.model.instance_type import CATALOGUE
from orchestrator.model.lifecycle import State

_ENDED = (State.SHUTTING_DOWN, State.TERMINATED)


def _incorrect_state(instance: Instance) -> EC2Error:
    return EC2Error(
        "IncorrectInstanceState",
        f"The instance '{instance.id}' is in the state '{instance.state}': it is not to be changed any more",
    )


@operation("ModifyInstanceMetadataOptions", writes=True)
def modify_instance_metadata_options(
    call: Call,
    *,
    instance_id: str,
    http_tokens: str | None = None,
    http_put_response_hop_limit: int | None = None,
    http_endpoint: str | None = None,
    http_protocol_ipv6: str | None = None,
    instance_metadata_tags: str | None = None,
) -> Answer:
    """The metadata server reads the options with each request, so they hold at once; EC2 says `pending` even so."""
    instance = call.find(Instance, "i", instance_id)
    given: dict[str, Any] = {
        "HttpTokens": http_tokens,
        "HttpPutResponseHopLimit": http_put_response_hop_limit,
        "HttpEndpoint": http_endpoint,
        "HttpProtocolIpv6": http_protocol_ipv6,
        "InstanceMetadataTags": instance_metadata_tags,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise missing_parameter(f"of at least one option: {', '.join(given)}")
    options = change_metadata_options(instance.metadata, changes, prefix="")
    if instance.state in _ENDED:
        raise _incorrect_state(instance)
    call.tx.put(replace(instance, metadata=options))
    return {"InstanceId": instance.id, "InstanceMetadataOptions": show_metadata_options(options, "pending")}


# --- CPU credits ------------------------------------------------------------------------------------------------------


@operation("DescribeInstanceCreditSpecifications", listing=True)
def describe_instance_credit_specifications(call: Call, *, instance_ids: list[str] | None = None) -> Answer:
    """Of the ids, or of all that are unlimited. What is no T type now answers `standard`, unless it was unlimited."""
    found = choose(call, asked_for(call, instance_ids), {"instance-id": lambda instance: instance.id})
    if not instance_ids:
        found = [instance for instance in found if instance.cpu_credits == "unlimited"]
    return show_page(
        call,
        "InstanceCreditSpecifications",
        found,
        lambda instance: {"InstanceId": instance.id, "CpuCredits": instance.cpu_credits or "standard"},
    )


@operation("ModifyInstanceCreditSpecification", writes=True)
def modify_instance_credit_specification(call: Call, *, instance_credit_specifications: Sequence[Structure]) -> Answer:
    """Each item succeeds or fails for itself."""
    changed: list[Answer] = []
    failed: list[Answer] = []
    for item in instance_credit_specifications:
        try:
            _set_credits(call, item["InstanceId"], item.get("CpuCredits"))
        except EC2Error as error:
            failed.append({"InstanceId": item["InstanceId"], "Error": {"Code": error.code, "Message": error.message}})
        else:
            changed.append({"InstanceId": item["InstanceId"]})
    return {
        "SuccessfulInstanceCreditSpecifications": changed,
        "UnsuccessfulInstanceCreditSpecifications": failed,
    }


def _set_credits(call: Call, instance_id: str, wanted: str | None) -> None:
    instance = call.find(Instance, "i", instance_id)
    if instance.state in _ENDED:
        raise _incorrect_state(instance)
    kind = CATALOGUE.get(instance.instance_type)
    if kind is None or not kind.burstable:
        raise EC2Error(
            "InstanceCreditSpecification.NotSupported",
            f"The instance '{instance_id}' is of type {instance.instance_type}: only T types have CPU credits",
        )
    call.tx.put(replace(instance, cpu_credits=check_credits(kind, wanted)))


# --- monitoring -------------------------------------------------------------------------------------------------------


@operation("MonitorInstances", writes=True)
def monitor_instances(call: Call, *, instance_ids: list[str], metric_category_ids: list[str] | None = None) -> Answer:
    if metric_category_ids:
        raise unsupported("MetricCategoryIds: all detailed metrics are monitored together here")
    return _monitor(call, instance_ids, True)


@operation("UnmonitorInstances", writes=True)
def unmonitor_instances(call: Call, *, instance_ids: list[str]) -> Answer:
    return _monitor(call, instance_ids, False)


def _monitor(call: Call, instance_ids: list[str], on: bool) -> Answer:
    """EC2 answers with the state in between; the next Describe says what is so."""
    found = call.find_all(Instance, "i", instance_ids)
    for instance in found:
        if instance.state in _ENDED:
            raise _incorrect_state(instance)
        call.tx.put(replace(instance, monitoring=on))
    state = "pending" if on else "disabling"
    return {"InstanceMonitorings": [{"InstanceId": instance.id, "Monitoring": {"State": state}} for instance in found]}

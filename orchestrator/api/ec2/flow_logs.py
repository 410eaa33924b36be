"""Flow logs: made for VPCs, subnets and interfaces, listed, deleted. Whoever deletes a resource deletes its logs.

Records go to a file of this deployment whatever the destination: there is no S3 and no CloudWatch Logs behind it. The
destination is kept and told back, so that tools find what they asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from orchestrator.api.operation import Answer, Call, operation, show_page, with_client_token
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of
from orchestrator.model.filters import FilterTable, compile_filters
from orchestrator.model.flow_log import DEFAULT_FORMAT, read_format
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import FlowLog, NetworkInterface, Subnet, Vpc

CLOUDWATCH: Final = "cloud-watch-logs"
DESTINATION_TYPES: Final = (CLOUDWATCH, "s3", "kinesis-data-firehose")
RESOURCE_TYPES: Final = ("VPC", "Subnet", "NetworkInterface")
TRAFFIC: Final = ("ACCEPT", "REJECT", "ALL")
INTERVALS_S: Final = (60, 600)
FILE_FORMATS: Final = ("plain-text", "parquet")
MAX_RESOURCES: Final = 300  # of one call


@operation("CreateFlowLogs", writes=True)
def create_flow_logs(
    call: Call,
    *,
    resource_ids: list[str],
    resource_type: str,
    traffic_type: str | None = None,
    log_destination_type: str | None = None,
    log_destination: str | None = None,
    log_group_name: str | None = None,
    log_format: str | None = None,
    deliver_logs_permission_arn: str | None = None,
    deliver_cross_account_role: str | None = None,
    max_aggregation_interval: int | None = None,
    destination_options: Answer | None = None,
    tag_specifications: list[Answer] | None = None,
) -> Answer:
    """One log for each resource. A resource with such a log already is told of under Unsuccessful."""
    if not traffic_type:
        raise missing_parameter("TrafficType")
    one_of("TrafficType", traffic_type, TRAFFIC)
    interval_s = 600 if max_aggregation_interval is None else max_aggregation_interval
    if interval_s not in INTERVALS_S:
        raise invalid_parameter("MaxAggregationInterval", interval_s, "60 or 600 seconds")
    if log_format:
        read_format(log_format)
    kind = one_of("LogDestinationType", log_destination_type or CLOUDWATCH, DESTINATION_TYPES)
    destination, group = _destination(call, kind, log_destination, log_group_name)
    options = destination_options or {}
    if options and kind != "s3":
        raise EC2Error("InvalidParameterCombination", "DestinationOptions go with the destination type s3 alone")
    file_format = one_of("FileFormat", options.get("FileFormat") or FILE_FORMATS[0], FILE_FORMATS)
    tags = tags_at_creation(tag_specifications, "vpc-flow-log")["vpc-flow-log"]
    made: list[str] = []
    refused: list[Answer] = []
    vpc_ids = _resources(call, resource_type, resource_ids)
    for resource_id, vpc_id in vpc_ids.items():
        if _has_such(call, resource_id, traffic_type, kind, destination):
            refused.append(
                _unsuccessful(
                    resource_id,
                    "FlowLogAlreadyExists",
                    "There is an existing Flow Log with the same configuration and log destination.",
                )
            )
            continue
        log = call.tx.put(
            FlowLog(
                id=ids.mint("fl"),
                account=call.account,
                region=call.region,
                created=call.now,
                tags=tags,
                resource_id=resource_id,
                traffic=traffic_type,
                destination_type=kind,
                destination=destination,
                fields=log_format or "",
                interval_s=interval_s,
                log_group=group,
                role=deliver_logs_permission_arn or "",
                cross_account_role=deliver_cross_account_role or "",
                file_format=file_format if options else "",
                hive_partitions=bool(options.get("HiveCompatiblePartitions")),
                hourly_partitions=bool(options.get("PerHourPartition")),
            )
        )
        made.append(log.id)
        call.wake_vpcs(vpc_id)
    answer: Answer = {"FlowLogIds": made, "Unsuccessful": refused}
    return with_client_token(call, answer)


def _resources(call: Call, resource_type: str, resource_ids: Sequence[str]) -> dict[str, str]:
    """The resources named, each once -> the VPC that it is in."""
    one_of("ResourceType", resource_type, RESOURCE_TYPES)
    if not resource_ids:
        raise missing_parameter("ResourceId")
    if len(resource_ids) > MAX_RESOURCES:
        raise invalid_parameter("ResourceId", f"{len(resource_ids)} ids", f"at most {MAX_RESOURCES}")
    if resource_type == "VPC":
        return {vpc.id: vpc.id for vpc in call.find_all(Vpc, "vpc", resource_ids)}
    if resource_type == "Subnet":
        return {subnet.id: subnet.vpc_id for subnet in call.find_all(Subnet, "subnet", resource_ids)}
    return {interface.id: interface.vpc_id for interface in call.find_all(NetworkInterface, "eni", resource_ids)}


def _destination(call: Call, kind: str, given: str | None, group: str | None) -> tuple[str, str]:
    """Its ARN, and the name of the log group where it is one."""
    if kind != CLOUDWATCH:
        if group:
            raise EC2Error("InvalidParameterCombination", f"LogGroupName goes with the destination type {CLOUDWATCH}")
        if not given:
            raise missing_parameter("LogDestination")
        if not given.startswith("arn:"):
            raise invalid_parameter("LogDestination", given, "an ARN, as in arn:aws:s3:::bucket/folder/")
        return given, ""
    if bool(given) == bool(group):
        code = "InvalidParameterCombination" if given else "MissingParameter"
        raise EC2Error(code, f"A destination of the type {CLOUDWATCH} has either LogGroupName or LogDestination")
    if group:
        return f"arn:aws:logs:{call.region}:{call.account}:log-group:{group}", group
    arn, found, name = (given or "").partition(":log-group:")
    if not found or not arn.startswith("arn:") or not name:
        raise invalid_parameter("LogDestination", given, "an ARN, as in arn:aws:logs:REGION:ACCOUNT:log-group:NAME")
    return given or "", name.removesuffix(":*")


def _has_such(call: Call, resource_id: str, traffic: str, kind: str, destination: str) -> bool:
    same = (traffic, kind, destination)
    logs = call.tx.all(FlowLog, resource_id=resource_id)
    return any((log.traffic, log.destination_type, log.destination) == same for log in logs)


def _unsuccessful(resource_id: str, code: str, message: str) -> Answer:
    return {"ResourceId": resource_id, "Error": {"Code": code, "Message": message}}


@operation("DeleteFlowLogs", writes=True)
def delete_flow_logs(call: Call, *, flow_log_ids: list[str]) -> Answer:
    """Those that are there; the others are told of under Unsuccessful."""
    refused: list[Answer] = []
    for flow_log_id in dict.fromkeys(ids.check("fl", flow_log_id) for flow_log_id in flow_log_ids):
        log = call.tx.get(FlowLog, flow_log_id)
        if log is None or not call.sees(log):
            error = ids.missing("fl", [flow_log_id])
            refused.append(_unsuccessful(flow_log_id, error.code, error.message))
            continue
        call.tx.delete(log)
        call.wake_vpcs(_vpc_of(call, log.resource_id))
    return {"Unsuccessful": refused}


def _vpc_of(call: Call, resource_id: str) -> str:
    """Empty when the resource is gone."""
    if resource_id.startswith("vpc-"):
        return resource_id
    found = call.tx.get(Subnet, resource_id) or call.tx.get(NetworkInterface, resource_id)
    return found.vpc_id if found is not None else ""


LOG_FILTERS: Final[FilterTable] = {
    "deliver-log-status": lambda log: "SUCCESS",
    "flow-log-id": lambda log: log.id,
    "log-destination-type": lambda log: log.destination_type,
    "log-group-name": lambda log: log.log_group or None,
    "resource-id": lambda log: log.resource_id,
    "traffic-type": lambda log: log.traffic,
}


@operation("DescribeFlowLogs", listing=True)
def describe_flow_logs(
    call: Call,
    *,
    flow_log_ids: list[str] | None = None,
    filter: list[Answer] | None = None,
) -> Answer:
    """An id that is not there is left out, as EC2 does for this kind; tools look for that."""
    found = call.mine(FlowLog)
    if flow_log_ids:
        wanted = {ids.check("fl", flow_log_id) for flow_log_id in flow_log_ids}
        found = [log for log in found if log.id in wanted]
    if filter:
        test = compile_filters(filter, LOG_FILTERS, lambda log: log.tags)
        found = [log for log in found if test(log)]
    return show_page(call, "FlowLogs", found, show_flow_log)


def show_flow_log(log: FlowLog) -> Answer:
    shown: Answer = {
        "FlowLogId": log.id,
        "FlowLogStatus": "ACTIVE",
        "DeliverLogsStatus": "SUCCESS",
        "CreationTime": log.created,
        "ResourceId": log.resource_id,
        "TrafficType": log.traffic,
        "LogDestinationType": log.destination_type,
        "LogDestination": log.destination,
        "LogFormat": log.fields or DEFAULT_FORMAT,
        "MaxAggregationInterval": log.interval_s,
        "Tags": tag_set(log.tags),
    }
    optional = {
        "LogGroupName": log.log_group,
        "DeliverLogsPermissionArn": log.role,
        "DeliverCrossAccountRole": log.cross_account_role,
    }
    if log.file_format:
        shown["DestinationOptions"] = {
            "FileFormat": log.file_format,
            "HiveCompatiblePartitions": log.hive_partitions,
            "PerHourPartition": log.hourly_partitions,
        }
    return shown | {name: value for name, value in optional.items() if value}

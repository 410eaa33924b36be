"""Flow logs: the fields that a record may have, and what goes with a resource that is deleted.

Source: "Flow log records" in the Amazon VPC user guide.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from orchestrator.model.errors import EC2Error
from orchestrator.model.resource import Resource, Rows
from orchestrator.model.vpc import FlowLog

DEFAULT_FORMAT: Final = (
    "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} "
    "${bytes} ${start} ${end} ${action} ${log-status}"
)
FIELDS: Final = (
    *("version", "account-id", "interface-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol", "packets"),
    *("bytes", "start", "end", "action", "log-status"),
    *("vpc-id", "subnet-id", "instance-id", "tcp-flags", "type", "pkt-srcaddr", "pkt-dstaddr"),  # version 3
    *("region", "az-id", "sublocation-type", "sublocation-id"),  # 4
    *("pkt-src-aws-service", "pkt-dst-aws-service", "flow-direction", "traffic-path"),  # 5
    *("ecs-cluster-arn", "ecs-cluster-name", "ecs-container-instance-arn", "ecs-container-instance-id"),  # 7
    *("ecs-container-id", "ecs-second-container-id", "ecs-service-name", "ecs-task-definition-arn", "ecs-task-arn"),
    *("ecs-task-id", "reject-reason"),  # and 8
    *("resource-id", "encryption-status"),
)

_FIELD: Final = re.compile(r"\$\{([a-z0-9-]+)\}")


class Deletable(Rows, Protocol):
    """A transaction."""

    def delete(self, resource: Resource, /) -> None: ...


def read_format(text: str) -> list[str]:
    """The names of a format's fields, in their order: `${version} ${srcaddr}`."""
    names = []
    for word in text.split():
        found = _FIELD.fullmatch(word)
        if found is None or found[1] not in FIELDS:
            raise EC2Error(
                "InvalidParameterValue",
                f"Invalid LogFormat: '{word[:64]}' is none of its fields, which are written as ${{NAME}} with spaces "
                f"between them: {', '.join(FIELDS)}",
            )
        names.append(found[1])
    if not names:
        raise EC2Error("InvalidParameterValue", "Invalid LogFormat: it must have at least one field, as in ${version}")
    return names


def delete_flow_logs(rows: Deletable, resource_id: str) -> None:
    """Those of a resource that is deleted."""
    for log in rows.all(FlowLog, resource_id=resource_id):
        rows.delete(log)

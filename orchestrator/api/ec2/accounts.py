"""What an account may have."""

from __future__ import annotations

from typing import Final

from orchestrator.api.ec2.network_interfaces import MAX_GROUPS
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import quota
from orchestrator.model.errors import one_of
from orchestrator.model.vpc import Vpc

QUOTAS: Final = {  # attribute -> quota
    "max-instances": "instances",
    "max-elastic-ips": "addresses",
    "vpc-max-elastic-ips": "addresses",
}


@operation("DescribeAccountAttributes")
def describe_account_attributes(call: Call, *, attribute_names: list[str] | None = None) -> Answer:
    attributes = {
        "supported-platforms": "VPC",
        "default-vpc": next((vpc.id for vpc in call.mine(Vpc) if vpc.is_default), "none"),
        **{name: _number(quota.most(call.settings.quotas, each)) for name, each in QUOTAS.items()},
        "vpc-max-security-groups-per-interface": str(MAX_GROUPS),
    }
    wanted = [one_of("AttributeName", name, attributes) for name in attribute_names or attributes]
    return {
        "AccountAttributes": [
            {"AttributeName": name, "AttributeValues": [{"AttributeValue": attributes[name]}]}
            for name in dict.fromkeys(wanted)
        ]
    }


def _number(most: int | None) -> str:
    """EC2 has no word for none: the largest number of its type says it."""
    return str(2**31 - 1 if most is None else most)

"""What an account may have."""

from __future__ import annotations

from typing import Final

from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import one_of
from orchestrator.model.vpc import Vpc

LIMITS: Final = {
    "max-instances": 20,  # EC2 still answers this one, and says that it means nothing
    "max-elastic-ips": 5,
    "vpc-max-elastic-ips": 5,
    "vpc-max-security-groups-per-interface": 5,
}


@operation("DescribeAccountAttributes")
def describe_account_attributes(call: Call, *, attribute_names: list[str] | None = None) -> Answer:
    attributes = {
        "supported-platforms": "VPC",
        "default-vpc": next((vpc.id for vpc in call.mine(Vpc) if vpc.is_default), "none"),
        **{name: str(limit) for name, limit in LIMITS.items()},
    }
    wanted = [one_of("AttributeName", name, attributes) for name in attribute_names or attributes]
    return {
        "AccountAttributes": [
            {"AttributeName": name, "AttributeValues": [{"AttributeValue": attributes[name]}]}
            for name in dict.fromkeys(wanted)
        ]
    }

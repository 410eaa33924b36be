"""What policies see of one resource: its ARN, and what is known of it (tags, type, VPC, ...).

`resources.py` and `launch_targets.py` say which of them a request is about. Rules: "Actions, resources, and condition
keys for Amazon EC2" in the Service Authorization Reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from orchestrator.api.ec2.tags import TAGGABLE
from orchestrator.api.operation import Call
from orchestrator.model.instance import Instance
from orchestrator.model.key_pair import KeyPair
from orchestrator.model.kms import Key
from orchestrator.model.resource import Resource
from orchestrator.model.vpc import PeeringConnection

Facts = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Target:
    arn: str = "*"
    context: Facts = field(default_factory=dict)
    action: str = ""  # another than the request's own, which it asks for too
    key: Key | None = None  # of KMS, whose policy and grants have a say: `key_access.py` decides
    elsewhere: bool = False  # it would be another account's key, and is not there


_TYPES: Final[Mapping[type[Resource], str]] = {each.kind: each.resource_type for each in reversed(TAGGABLE.values())}
# In whose ARNs there is no account.
_WITHOUT_ACCOUNT: Final = ("image", "snapshot")


def arn_of(call: Call, kind: str, name: str, account: str | None = None) -> str:
    owner = "" if kind in _WITHOUT_ACCOUNT else account or call.account
    return f"arn:aws:ec2:{call.region}:{owner}:{kind}/{name}"


def target_of(call: Call, row: Resource) -> Target:
    name = row.name if isinstance(row, KeyPair) else row.id
    kind = _TYPES.get(type(row), type(row).KIND)
    return Target(arn_of(call, kind, name), _row_facts(call, row))


# attribute of a row -> condition key
_ATTRIBUTES: Final[Mapping[str, str]] = {
    "instance_type": "ec2:instancetype",
    "zone": "ec2:availabilityzone",
    "tenancy": "ec2:tenancy",
    "root_device_type": "ec2:rootdevicetype",
    "volume_type": "ec2:volumetype",
    "size_gib": "ec2:volumesize",
    "iops": "ec2:volumeiops",
    "throughput_mib_s": "ec2:volumethroughput",
    "encrypted": "ec2:encrypted",
    "public": "ec2:public",
    "account": "ec2:owner",
}
_LINKS: Final[Mapping[str, tuple[str, str]]] = {"vpc_id": ("ec2:vpc", "vpc"), "subnet_id": ("ec2:subnet", "subnet")}


def _row_facts(call: Call, row: Resource) -> Facts:
    facts: Facts = {}
    tags = row.tags_of(call.account, call.region) if isinstance(row, PeeringConnection) else row.tags
    if call.sees(row) or isinstance(row, PeeringConnection):  # how others tag what they share is their own affair
        for key, value in tags.items():
            facts[f"aws:resourcetag/{key}".lower()] = facts[f"ec2:resourcetag/{key}".lower()] = (value,)
    for attribute, key in _ATTRIBUTES.items():
        known = getattr(row, attribute, None)
        if known not in (None, ""):
            facts[key] = (text_of(known),)
    for attribute, (key, kind) in _LINKS.items():
        linked: str = getattr(row, attribute, "")
        if linked:
            facts[key] = (arn_of(call, kind, linked),)
    if isinstance(row, Instance) and row.profile is not None:
        facts["ec2:instanceprofile"] = (row.profile.arn,)
    return facts


def text_of(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

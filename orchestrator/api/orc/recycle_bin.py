"""Retention rules: what of an account's deleted snapshots and images a region's recycle bin keeps, and how long.

A rule holds for what is deleted from then on: what is in the bin already keeps the time that it was given.
"""

from __future__ import annotations

from typing import Final

from orchestrator.api.ec2.recycle_bin import IMAGES, SNAPSHOTS
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import ids
from orchestrator.model.errors import invalid_parameter, one_of
from orchestrator.model.image import RetentionRule
from orchestrator.model.tags import check_tags, tag_set

TYPES: Final = (SNAPSHOTS, IMAGES)
LONGEST_DAYS: Final = 365
LONGEST_DESCRIPTION: Final = 255


@operation("CreateRetentionRule", service="orc", writes=True)
def create_retention_rule(
    call: Call,
    *,
    resource_type: str,
    retention_days: int,
    description: str | None = None,
    resource_tags: list[Answer] | None = None,
) -> Answer:
    one_of("ResourceType", resource_type, TYPES)
    if not 1 <= retention_days <= LONGEST_DAYS:
        raise invalid_parameter("RetentionDays", retention_days, f"1 to {LONGEST_DAYS}")
    about = description or ""
    if len(about) > LONGEST_DESCRIPTION:
        raise invalid_parameter("Description", about[:20] + "...", f"at most {LONGEST_DESCRIPTION} characters")
    rule = call.tx.put(
        RetentionRule(
            id=ids.mint("rule"),
            account=call.account,
            region=call.region,
            created=call.now,
            resource_type=resource_type,
            retention_days=retention_days,
            description=about,
            resource_tags=check_tags(resource_tags or ()),
        )
    )
    return {"RetentionRule": _show(rule)}


@operation("DescribeRetentionRules", service="orc")
def describe_retention_rules(
    call: Call, *, rule_ids: list[str] | None = None, resource_type: str | None = None
) -> Answer:
    if resource_type is not None:
        one_of("ResourceType", resource_type, TYPES)
    found = call.find_all(RetentionRule, "rule", rule_ids) if rule_ids else call.mine(RetentionRule)
    shown = [_show(rule) for rule in found if resource_type in (None, rule.resource_type)]
    return {"RetentionRules": sorted(shown, key=lambda rule: (rule["ResourceType"], rule["Created"], rule["RuleId"]))}


@operation("DeleteRetentionRule", service="orc", writes=True)
def delete_retention_rule(call: Call, *, rule_id: str) -> Answer:
    call.tx.delete(call.find(RetentionRule, "rule", rule_id))
    return {}


def _show(rule: RetentionRule) -> Answer:
    return {
        "RuleId": rule.id,
        "ResourceType": rule.resource_type,
        "RetentionDays": rule.retention_days,
        "Description": rule.description,
        "ResourceTags": tag_set(rule.resource_tags),
        "Created": rule.created,
    }

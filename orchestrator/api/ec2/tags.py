"""Tags of every kind of resource, by the id's prefix. A tag that changes is a new revision of its resource."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from orchestrator.api.operation import Answer, Call, operation, show_page
from orchestrator.model import ids
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.errors import EC2Error, invalid_parameter
from orchestrator.model.filters import FilterTable, compile_filters
from orchestrator.model.image import ExportTask, Image, ImportTask
from orchestrator.model.instance import Instance
from orchestrator.model.key_pair import KeyPair
from orchestrator.model.resource import Resource
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.tags import add_tags, check_tags
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import (
    DhcpOptions,
    EgressOnlyInternetGateway,
    FlowLog,
    InternetGateway,
    NatGateway,
    NetworkAcl,
    NetworkInterface,
    PeeringConnection,
    PrefixList,
    RouteTable,
    SecurityGroup,
    Subnet,
    Vpc,
    VpcEndpoint,
)

MAX_RESOURCES: Final = 1000  # of one call


class Taggable(NamedTuple):
    kind: type[Resource]
    resource_type: str  # as DescribeTags and TagSpecifications name it


TAGGABLE: Final[dict[str, Taggable]] = {
    "i": Taggable(Instance, "instance"),
    "ami": Taggable(Image, "image"),
    "vol": Taggable(Volume, "volume"),
    "snap": Taggable(Snapshot, "snapshot"),
    "key": Taggable(KeyPair, "key-pair"),
    "vpc": Taggable(Vpc, "vpc"),
    "subnet": Taggable(Subnet, "subnet"),
    "sg": Taggable(SecurityGroup, "security-group"),
    "eni": Taggable(NetworkInterface, "network-interface"),
    "igw": Taggable(InternetGateway, "internet-gateway"),
    "rtb": Taggable(RouteTable, "route-table"),
    "acl": Taggable(NetworkAcl, "network-acl"),
    "dopt": Taggable(DhcpOptions, "dhcp-options"),
    "eipalloc": Taggable(ElasticIp, "elastic-ip"),
    "eigw": Taggable(EgressOnlyInternetGateway, "egress-only-internet-gateway"),
    "nat": Taggable(NatGateway, "natgateway"),
    "pcx": Taggable(PeeringConnection, "vpc-peering-connection"),
    "pl": Taggable(PrefixList, "prefix-list"),
    "vpce": Taggable(VpcEndpoint, "vpc-endpoint"),
    "fl": Taggable(FlowLog, "vpc-flow-log"),
    "import-ami": Taggable(ImportTask, "import-image-task"),
    "import-snap": Taggable(ImportTask, "import-snapshot-task"),
    "export-ami": Taggable(ExportTask, "export-image-task"),
}
RULE_TYPE: Final = "security-group-rule"  # a rule is a part of its group, and yet has tags of its own

Change = Callable[[dict[str, str]], dict[str, str]]


@operation("CreateTags", writes=True)
def create_tags(call: Call, *, resources: list[str], tags: list[Answer]) -> Answer:
    added = check_tags(tags)
    if not added:
        raise EC2Error("MissingParameter", "The request must contain the parameter Tag")
    _change_each(call, resources, lambda old: add_tags(old, added))
    return {}


@operation("DeleteTags", writes=True)
def delete_tags(call: Call, *, resources: list[str], tags: list[Answer] | None = None) -> Answer:
    """A tag without a Value goes whatever its value; an empty Value is a value. Without Tags, all of them go."""
    _change_each(call, resources, lambda old: _without(old, tags))
    return {}


def _without(old: dict[str, str], tags: Sequence[Answer] | None) -> dict[str, str]:
    if not tags:
        return {key: value for key, value in old.items() if key.startswith("aws:")}
    gone = set()
    for tag in tags:
        key = tag.get("Key") or ""
        if not key:
            raise EC2Error("MissingParameter", "A tag must have a Key")
        if key.lower().startswith("aws:"):
            raise invalid_parameter("Tag.Key", key, "a key that does not start with aws:, which is reserved")
        if key in old and tag.get("Value") in (None, old[key]):
            gone.add(key)
    return {key: value for key, value in old.items() if key not in gone}


def _change_each(call: Call, resource_ids: list[str], change: Change) -> None:
    """All or nothing: an id that is malformed or not there fails the call."""
    if not resource_ids:
        raise EC2Error("MissingParameter", "The request must contain the parameter ResourceId")
    if len(resource_ids) > MAX_RESOURCES:
        raise invalid_parameter("ResourceId", f"{len(resource_ids)} ids", f"at most {MAX_RESOURCES}")
    wanted = list(dict.fromkeys(resource_ids))
    prefixes = {resource_id: _prefix(resource_id) for resource_id in wanted}
    for resource_id in wanted:
        if prefixes[resource_id] == "sgr":
            _change_rule(call, resource_id, change)
            continue
        if prefixes[resource_id] == "pcx":
            _change_peering(call, resource_id, change)
            continue
        resource = call.find(TAGGABLE[prefixes[resource_id]].kind, prefixes[resource_id], resource_id)
        tags = change(resource.tags)
        if tags != resource.tags:
            call.tx.put(replace(resource, tags=tags))


def _prefix(resource_id: str) -> str:
    prefix = resource_id.rpartition("-")[0]
    if prefix != "sgr" and prefix not in TAGGABLE:
        raise EC2Error("InvalidID", f"The ID '{resource_id}' is not valid")
    ids.check(prefix, resource_id)
    return prefix


def _change_rule(call: Call, rule_id: str, change: Change) -> None:
    for group in call.mine(SecurityGroup):
        for position, rule in enumerate(group.rules):
            if rule.id == rule_id:
                changed = replace(rule, tags=change(rule.tags))
                call.tx.put(replace(group, rules=(*group.rules[:position], changed, *group.rules[position + 1 :])))
                return
    raise ids.missing("sgr", [rule_id])


def _change_peering(call: Call, peering_id: str, change: Change) -> None:
    """Either side's own tags."""
    peering = call.tx.get(PeeringConnection, peering_id)
    if peering is None or not peering.is_of(call.account, call.region):
        raise ids.missing("pcx", [peering_id])
    old = peering.tags_of(call.account, call.region)
    tags = change(old)
    if tags != old:
        call.tx.put(peering.with_tags(call.account, call.region, tags))


# --- DescribeTags -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tag:
    resource_id: str
    resource_type: str
    key: str
    value: str


@operation("DescribeTags", listing=True)
def describe_tags(call: Call) -> Answer:
    tags: list[Tag] = list(_all_tags(call))
    if filters := call.params.get("Filters"):
        test = compile_filters(filters, TAG_FILTERS, lambda tag: {tag.key: tag.value})
        tags = [tag for tag in tags if test(tag)]
    return show_page(
        call,
        "Tags",
        tags,
        lambda tag: {
            "ResourceId": tag.resource_id,
            "ResourceType": tag.resource_type,
            "Key": tag.key,
            "Value": tag.value,
        },
        key=lambda tag: f"{tag.resource_id}/{tag.key}",
    )


def _all_tags(call: Call) -> Iterator[Tag]:
    for prefix, taggable in TAGGABLE.items():
        for resource in [] if taggable.kind is PeeringConnection else call.mine(taggable.kind):
            for key, value in resource.tags.items() if resource.id.startswith(prefix + "-") else ():
                yield Tag(resource.id, taggable.resource_type, key, value)
    for peering in call.db.all(PeeringConnection):
        if peering.is_of(call.account, call.region):
            for key, value in peering.tags_of(call.account, call.region).items():
                yield Tag(peering.id, TAGGABLE["pcx"].resource_type, key, value)
    for group in call.mine(SecurityGroup):
        for rule in group.rules:
            for key, value in rule.tags.items():
                yield Tag(rule.id, RULE_TYPE, key, value)


TAG_FILTERS: Final[FilterTable] = {
    "key": lambda tag: tag.key,
    "resource-id": lambda tag: tag.resource_id,
    "resource-type": lambda tag: tag.resource_type,
    "value": lambda tag: tag.value,
}

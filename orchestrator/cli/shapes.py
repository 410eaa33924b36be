"""Derives `shapes.json`: how the actions that the command line calls look on the wire, from botocore's models.

botocore needs longer to load EC2's model than `orc ls` has for everything. So the few actions that are called are kept
as a table of 60 KB, which reads in a millisecond; any other action is derived when it is called.

    python -m orchestrator.cli.shapes       writes the table anew (a test compares it)

A type is one word: `s` string, `i` integer, `d` float, `b` boolean, `t` timestamp, `x` bytes, `*Tag` a structure, `[`
before any of them a list. A member is `type`, `type:name in answers` or `type:name in answers:name in requests`, as far
as the names do not follow from the member's own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("shapes.json")
OWN_MODEL = Path(__file__).parent.parent / "api" / "orc" / "service-2.json"

CALLED: dict[str, tuple[str, ...]] = {
    "ec2": (
        "AttachVolume",
        "AuthorizeSecurityGroupEgress",
        "AuthorizeSecurityGroupIngress",
        "CancelExportTask",
        "CopyImage",
        "CopySnapshot",
        "CreateImage",
        "CreateKeyPair",
        "CreateSecurityGroup",
        "CreateSnapshot",
        "CreateSnapshots",
        "CreateTags",
        "CreateVolume",
        "DeleteKeyPair",
        "DeleteSecurityGroup",
        "DeleteSnapshot",
        "DeleteTags",
        "DeleteVolume",
        "DeregisterImage",
        "DescribeAddresses",
        "DescribeAvailabilityZones",
        "DescribeEgressOnlyInternetGateways",
        "DescribeExportImageTasks",
        "DescribeImageAttribute",
        "DescribeImages",
        "DescribeInstanceStatus",
        "DescribeInstanceTypes",
        "DescribeInstances",
        "DescribeInternetGateways",
        "DescribeKeyPairs",
        "DescribeNatGateways",
        "DescribeNetworkAcls",
        "DescribeNetworkInterfaces",
        "DescribeRouteTables",
        "DescribeSecurityGroups",
        "DescribeSnapshots",
        "DescribeSubnets",
        "DescribeTags",
        "DescribeVolumeStatus",
        "DescribeVolumes",
        "DescribeVolumesModifications",
        "DescribeVpcEndpoints",
        "DescribeVpcPeeringConnections",
        "DescribeVpcs",
        "DetachVolume",
        "DisableImage",
        "DisableImageDeprecation",
        "DisableImageDeregistrationProtection",
        "EnableImage",
        "EnableImageDeprecation",
        "EnableImageDeregistrationProtection",
        "ExportImage",
        "GetConsoleOutput",
        "GetConsoleScreenshot",
        "ImportKeyPair",
        "ListImagesInRecycleBin",
        "ListSnapshotsInRecycleBin",
        "ModifyImageAttribute",
        "ModifyVolume",
        "RebootInstances",
        "RestoreImageFromRecycleBin",
        "RestoreSnapshotFromRecycleBin",
        "RevokeSecurityGroupEgress",
        "RevokeSecurityGroupIngress",
        "RunInstances",
        "StartInstances",
        "StopInstances",
        "TerminateInstances",
    ),
    "kms": (
        "CreateAlias",
        "CreateKey",
        "DescribeKey",
        "DisableKey",
        "EnableKey",
        "ListAliases",
        "ListKeys",
    ),
    "sts": ("GetCallerIdentity",),
    "organizations": ("CloseAccount", "ListAccounts"),
    "orc": (
        "BuildImage",
        "CreateAccount",
        "CreateRetentionRule",
        "DeleteRetentionRule",
        "DescribeBuilds",
        "DescribeImageMaps",
        "DescribeKeyUse",
        "DescribeLaunch",
        "DescribeNetworkPlan",
        "DescribeOwned",
        "DescribeRetentionRules",
        "DescribeSnapshotDetails",
        "ImportImage",
        "ListRecipes",
        "MapImage",
        "ShredKey",
        "TracePacket",
        "UnmapImage",
    ),
}

_LEAVES = {
    "string": "s",
    "character": "s",
    "integer": "i",
    "long": "i",
    "float": "d",
    "double": "d",
    "boolean": "b",
    "timestamp": "t",
    "blob": "x",
}


def derive(service: str, actions: Iterable[str]) -> dict[str, Any]:
    """Protocol, API version, operations (action -> input and output type) and the structures they need."""
    model = _load(service)
    shapes: dict[str, dict[str, str]] = {}
    operations = {}
    for action in actions:
        operation = model["operations"][action]
        operations[action] = [
            _word(model, operation[side]["shape"], shapes) if side in operation else "" for side in ("input", "output")
        ]
    metadata = model["metadata"]
    return {
        "protocol": metadata["protocol"],
        "version": metadata["apiVersion"],
        "target": metadata.get("targetPrefix", ""),
        "operations": operations,
        "shapes": dict(sorted(shapes.items())),
    }


def _load(service: str) -> dict[str, Any]:
    if service == "orc":
        document: dict[str, Any] = json.loads(OWN_MODEL.read_text())
        return document
    from botocore.loaders import Loader

    loaded: dict[str, Any] = Loader().load_service_model(service, "service-2")
    return loaded


def _word(model: dict[str, Any], name: str, shapes: dict[str, dict[str, str]]) -> str:
    shape = model["shapes"][name]
    kind = shape["type"]
    if kind == "list":
        return "[" + _word(model, shape["member"]["shape"], shapes)
    if kind != "structure":
        return _LEAVES[kind]
    if name not in shapes:
        shapes[name] = members = {}
        for member, reference in shape["members"].items():
            members[member] = _named(_word(model, reference["shape"], shapes), member, reference)
    return "*" + name


def _named(word: str, member: str, reference: dict[str, Any]) -> str:
    answered = reference.get("locationName", member)
    asked = reference.get("queryName") or answered[0].upper() + answered[1:]
    if asked != answered[0].upper() + answered[1:]:
        return f"{word}:{answered}:{asked}"
    return word if answered == member else f"{word}:{answered}"


def table() -> str:
    """What `shapes.json` should be."""
    document = {service: derive(service, actions) for service, actions in CALLED.items()}
    return json.dumps(document, separators=(",", ":"), sort_keys=False) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table())
    sys.exit(0)

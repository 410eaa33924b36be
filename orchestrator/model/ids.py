"""Resource ids: a prefix that names the kind, and 17 hexadecimal digits.

An id that cannot be one is `Invalid...ID.Malformed`; one that could be but names nothing is `.NotFound`. EC2 also
reads the old 8-digit ids, so both lengths are well-formed here.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple

from orchestrator.model.errors import EC2Error, not_found


class IdKind(NamedTuple):
    prefix: str
    error: str  # the part of EC2's error code before .Malformed and .NotFound
    noun: str


KINDS: dict[str, IdKind] = {
    kind.prefix: kind
    for kind in (
        IdKind("i", "InvalidInstanceID", "instance"),
        IdKind("r", "InvalidReservationID", "reservation"),
        IdKind("ami", "InvalidAMIID", "image"),
        IdKind("aki", "InvalidAKIID", "kernel"),
        IdKind("ari", "InvalidARIID", "ramdisk"),
        IdKind("vol", "InvalidVolume", "volume"),
        IdKind("snap", "InvalidSnapshot", "snapshot"),
        IdKind("layer", "InvalidLayer", "layer"),
        IdKind("vpc", "InvalidVpcID", "vpc"),
        IdKind("subnet", "InvalidSubnetID", "subnet"),
        IdKind("sg", "InvalidGroup", "security group"),
        IdKind("sgr", "InvalidSecurityGroupRuleId", "security group rule"),
        IdKind("eni", "InvalidNetworkInterfaceID", "networkInterface"),
        IdKind("eni-attach", "InvalidAttachmentID", "attachment"),
        IdKind("igw", "InvalidInternetGatewayID", "internetGateway"),
        IdKind("rtb", "InvalidRouteTableID", "routeTable"),
        IdKind("rtbassoc", "InvalidAssociationID", "association"),
        IdKind("acl", "InvalidNetworkAclID", "networkAcl"),
        IdKind("aclassoc", "InvalidAssociationID", "association"),
        IdKind("dopt", "InvalidDhcpOptionID", "DHCP options"),
        IdKind("eipalloc", "InvalidAllocationID", "allocation"),
        IdKind("eipassoc", "InvalidAssociationID", "association"),
        IdKind("vpc-cidr-assoc", "InvalidVpcCidrBlockAssociationID", "association"),
        IdKind("subnet-cidr-assoc", "InvalidSubnetCidrBlockAssociationID", "association"),
        IdKind("eigw", "InvalidGatewayID", "egress-only internet gateway"),
        IdKind("nat", "NatGateway", "NAT gateway"),
        IdKind("pcx", "InvalidVpcPeeringConnectionID", "VPC peering connection"),
        IdKind("pl", "InvalidPrefixListID", "prefix list"),
        IdKind("vpce", "InvalidVpcEndpointId", "VPC endpoint"),
        IdKind("fl", "InvalidFlowLogId", "flow log"),
        IdKind("eni-perm", "InvalidNetworkInterfacePermissionID", "network interface permission"),
        IdKind("iip-assoc", "InvalidAssociationID", "association"),
        IdKind("key", "InvalidKeyPair", "key pair"),
        IdKind("import-ami", "InvalidConversionTaskId", "import task"),
        IdKind("import-snap", "InvalidConversionTaskId", "import task"),
        IdKind("export-ami", "InvalidExportTaskId", "export task"),
        IdKind("rule", "InvalidRuleId", "retention rule"),
        IdKind("build", "InvalidBuildId", "build"),
        IdKind("upload", "InvalidUploadId", "upload"),
    )
}

_HEX = re.compile(r"(?:[0-9a-f]{8}|[0-9a-f]{17})\Z")


def mint(prefix: str) -> str:
    """A new random id, for example `i-0123456789abcdef0`."""
    return f"{KINDS[prefix].prefix}-0{secrets.token_hex(8)}"


def is_well_formed(prefix: str, value: str) -> bool:
    return value.startswith(prefix + "-") and _HEX.match(value[len(prefix) + 1 :]) is not None


def check(prefix: str, value: str) -> str:
    """`value` itself, or EC2's Malformed error."""
    if not is_well_formed(prefix, value):
        kind = KINDS[prefix]
        code = "InvalidGroupId" if prefix == "sg" else kind.error
        # EC2 names these two without the ID that its NotFound codes of the same kind carry.
        code = "InvalidParameterValue" if prefix in ("vol", "snap") else f"{code}.Malformed"
        if prefix == "nat":
            code = code.replace(".", "")
        raise EC2Error(code, f'Invalid id: "{value}" (expecting "{prefix}-...")')
    return value


def missing(prefix: str, values: Iterable[str]) -> EC2Error:
    kind = KINDS[prefix]
    error = not_found(kind.error, kind.noun, list(values))
    if prefix == "nat":  # NatGatewayNotFound: the one kind whose codes have no dot
        return EC2Error(error.code.replace(".", ""), error.message)
    return error

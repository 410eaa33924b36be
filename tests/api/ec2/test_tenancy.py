"""No account reaches another's: every operation of EC2 that takes an id is called with ids of another account.

The walk makes its own list, from botocore's model: an operation that is added is walked too, and fails here when the
walk does not know how to fill in one of its members.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from botocore.model import ListShape, OperationModel, Shape, StructureShape

from orchestrator.api import operations
from orchestrator.api.operation import _DECLARED
from orchestrator.api.protocol import load_service
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import Image
from orchestrator.model.resource import Resource
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NatGateway
from tests.api.ec2.conftest import ACCOUNT, OTHER_ACCOUNT, Api

operations.load()
EC2: Final = load_service("ec2")

# member -> the prefix of what it takes; of lists too, and wherever in a request it is
MEMBERS: Final[Mapping[str, str]] = {
    "AllocationId": "eipalloc",
    "AllocationIds": "eipalloc",
    "AttachmentId": "eni-attach",
    "DhcpOptionsId": "dopt",
    "DhcpOptionsIds": "dopt",
    "EgressOnlyInternetGatewayId": "eigw",
    "EgressOnlyInternetGatewayIds": "eigw",
    "ExportImageTaskIds": "export-ami",
    "ExportTaskId": "export-ami",
    "FlowLogIds": "fl",
    "GroupId": "sg",
    "GroupIds": "sg",
    "Groups": "sg",
    "ImageId": "ami",
    "ImageIds": "ami",
    "ImportTaskId": "import-ami",
    "InstanceId": "i",
    "InstanceIds": "i",
    "InternetGatewayId": "igw",
    "InternetGatewayIds": "igw",
    "KeyPairId": "key",
    "KeyPairIds": "key",
    "NatGatewayId": "nat",
    "NatGatewayIds": "nat",
    "NetworkAclId": "acl",
    "NetworkAclIds": "acl",
    "NetworkInterfaceId": "eni",
    "NetworkInterfaceIds": "eni",
    "NetworkInterfacePermissionId": "eni-perm",
    "NetworkInterfacePermissionIds": "eni-perm",
    "PrefixListId": "pl",
    "PrefixListIds": "pl",
    "DestinationPrefixListId": "pl",
    "Resources": "i",
    "RouteTableId": "rtb",
    "RouteTableIds": "rtb",
    "AddRouteTableIds": "rtb",
    "SecondaryAllocationIds": "eipalloc",
    "SecurityGroupIds": "sg",
    "AddSecurityGroupIds": "sg",
    "SecurityGroupRuleIds": "sgr",
    "SnapshotId": "snap",
    "SnapshotIds": "snap",
    "SourceImageId": "ami",
    "SourceSnapshotId": "snap",
    "SourceSnapshotIds": "snap",
    "SubnetId": "subnet",
    "SubnetIds": "subnet",
    "AddSubnetIds": "subnet",
    "VolumeId": "vol",
    "VolumeIds": "vol",
    "VpcEndpointId": "vpce",
    "VpcEndpointIds": "vpce",
    "VpcId": "vpc",
    "VpcIds": "vpc",
    "VpcPeeringConnectionId": "pcx",
    "VpcPeeringConnectionIds": "pcx",
}
# Where the same word takes something else.
OF_ONE: Final[Mapping[tuple[str, str], str]] = {
    ("DisassociateAddress", "AssociationId"): "eipassoc",
    ("DisassociateRouteTable", "AssociationId"): "rtbassoc",
    ("ReplaceRouteTableAssociation", "AssociationId"): "rtbassoc",
    ("ReplaceNetworkAclAssociation", "AssociationId"): "aclassoc",
    ("DisassociateVpcCidrBlock", "AssociationId"): "vpc-cidr-assoc",
    ("DisassociateSubnetCidrBlock", "AssociationId"): "subnet-cidr-assoc",
    ("DisassociateIamInstanceProfile", "AssociationId"): "iip-assoc",
    ("ReplaceIamInstanceProfileAssociation", "AssociationId"): "iip-assoc",
    ("DescribeIamInstanceProfileAssociations", "AssociationIds"): "iip-assoc",
    ("DisassociateNatGatewayAddress", "AssociationIds"): "eipassoc",
    ("AssociateRouteTable", "GatewayId"): "igw",
    ("CreateVpcPeeringConnection", "PeerVpcId"): "vpc",
    ("ModifyVpcEndpoint", "RemoveRouteTableIds"): "rtb",
    ("CreateFlowLogs", "ResourceIds"): "vpc",
    ("CreateRoute", "GatewayId"): "igw",
    ("ReplaceRoute", "GatewayId"): "igw",
    ("DescribeImportImageTasks", "ImportTaskIds"): "import-ami",
    ("DescribeImportSnapshotTasks", "ImportTaskIds"): "import-snap",
}
# Members that are never taken here, or name what is no account's own.
NO_IDS: Final = re.compile(
    r"OutpostArn|Ipv[46]\w*Pool\w*|\w*IpamPoolId|TransitGatewayId|LocalGatewayId|CarrierGatewayId|CoreNetworkArn|\w*Arns?"
    r"|AvailabilityZoneIds?|KernelId|RamdiskId|OwnerIds?|UserIds?|AwsAccountId|PeerOwnerId|KmsKeyId|\w*OwnerId"
    r"|PoolIds|RestorableByUserIds|MetricCategoryIds|GroupNames?|IpamPrefixListResolverSyncEnabled|CustomerOwned\w*|OrganizationalUnitArns|UserGroups|ZoneIds"
)
DENIED: Final = re.compile(
    r".*\.NotFound|NatGatewayNotFound|\w*NotFound|InvalidPermission\.NotFound|AuthFailure|UnauthorizedOperation"
    r"|OperationNotPermitted|NoSuchAssociation|InvalidAssociationID\.\w+"
)


@dataclass(frozen=True)
class Walk:
    operation: str
    path: tuple[str, ...]  # of the member with the id
    prefix: str

    def __str__(self) -> str:
        return f"{self.operation}-{'.'.join(self.path)}"


def walks() -> Iterator[Walk]:
    for service, name in sorted(_DECLARED):
        if service != "ec2":
            continue
        shape = EC2.operation_model(name).input_shape
        for path, prefix in _places(name, shape, ()) if shape is not None else ():
            yield Walk(name, path, prefix)


def _places(operation: str, shape: Shape, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if not isinstance(shape, StructureShape) or len(path) > 2:
        return
    taken = _DECLARED["ec2", operation].bind(EC2).names if not path else None
    for member, inner in shape.members.items():
        if taken is not None and member not in taken:
            continue
        prefix = OF_ONE.get((operation, member)) or MEMBERS.get(member)
        leaf = inner.member if isinstance(inner, ListShape) else inner
        if isinstance(leaf, StructureShape):
            yield from _places(operation, leaf, (*path, member))
        elif prefix is not None and (*path[-1:], member) not in NOT_IDS:
            yield (*path, member), prefix


def test_every_member_that_takes_ids_is_known_to_the_walk() -> None:
    unknown = []
    for (service, name), declared in _DECLARED.items():
        if service != "ec2":
            continue
        for member in declared.bind(EC2).names:
            if not re.search(r"Ids?$", member) or NO_IDS.fullmatch(member):
                continue
            if member not in MEMBERS and (name, member) not in OF_ONE:
                unknown.append(f"{name}.{member}")
    assert not unknown


# --- what there is ----------------------------------------------------------------------------------------------------


def furnish(api: Api) -> dict[str, str]:
    """One of everything, of the first account; ids by prefix."""
    api.make_image()
    [instance_id] = api.launch()
    call = api.call
    vpc = call("CreateVpc", CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]
    peer = call("CreateVpc", CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    zone = "us-east-1a"
    subnet = call("CreateSubnet", VpcId=vpc["VpcId"], CidrBlock="10.0.0.0/24", AvailabilityZone=zone)["Subnet"]
    ipv6 = call("DescribeVpcs", VpcIds=[vpc["VpcId"]])["Vpcs"][0]["Ipv6CidrBlockAssociationSet"][0]
    found = {
        "i": instance_id,
        "vpc": vpc["VpcId"],
        "subnet": subnet["SubnetId"],
        "vpc-cidr-assoc": ipv6["AssociationId"],
        "subnet-cidr-assoc": call(
            "AssociateSubnetCidrBlock", SubnetId=subnet["SubnetId"], Ipv6CidrBlock=ipv6["Ipv6CidrBlock"][:-2] + "64"
        )["Ipv6CidrBlockAssociation"]["AssociationId"],
    }
    group = call("CreateSecurityGroup", GroupName="g", Description="d", VpcId=vpc["VpcId"])["GroupId"]
    rules = call(
        "AuthorizeSecurityGroupIngress",
        GroupId=group,
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
    )["SecurityGroupRules"]
    found |= {"sg": group, "sgr": rules[0]["SecurityGroupRuleId"]}
    volume = call("CreateVolume", Size=1, AvailabilityZone=zone)["VolumeId"]
    api.change(api.get(Volume, volume), state="available")
    snapshot = call("CreateSnapshot", VolumeId=volume)["SnapshotId"]
    api.change(api.get(Snapshot, snapshot), state="completed")
    image = call(
        "RegisterImage",
        Name="own",
        RootDeviceName="/dev/sda1",
        BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot}}],
    )["ImageId"]
    api.change(api.get(Image, image), state="available")
    found |= {"vol": volume, "snap": snapshot, "ami": image}
    gateway = call("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
    call("AttachInternetGateway", InternetGatewayId=gateway, VpcId=vpc["VpcId"])
    table = call("CreateRouteTable", VpcId=vpc["VpcId"])["RouteTable"]["RouteTableId"]
    call("CreateRoute", RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    acl = call("CreateNetworkAcl", VpcId=vpc["VpcId"])["NetworkAcl"]["NetworkAclId"]
    acls = call("DescribeNetworkAcls", Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["NetworkAcls"]
    found |= {
        "igw": gateway,
        "rtb": table,
        "rtbassoc": call("AssociateRouteTable", RouteTableId=table, SubnetId=subnet["SubnetId"])["AssociationId"],
        "acl": acl,
        "aclassoc": next(each["NetworkAclAssociationId"] for one in acls for each in one["Associations"]),
        "dopt": call("CreateDhcpOptions", DhcpConfigurations=[{"Key": "domain-name", "Values": ["example.com"]}])[
            "DhcpOptions"
        ]["DhcpOptionsId"],
        "eigw": call("CreateEgressOnlyInternetGateway", VpcId=vpc["VpcId"])["EgressOnlyInternetGateway"][
            "EgressOnlyInternetGatewayId"
        ],
        "pcx": call("CreateVpcPeeringConnection", VpcId=vpc["VpcId"], PeerVpcId=peer)["VpcPeeringConnection"][
            "VpcPeeringConnectionId"
        ],
        "pl": call("CreateManagedPrefixList", PrefixListName="p", MaxEntries=2, AddressFamily="IPv4")["PrefixList"][
            "PrefixListId"
        ],
        "vpce": call("CreateVpcEndpoint", VpcId=vpc["VpcId"], ServiceName="com.amazonaws.us-east-1.s3")["VpcEndpoint"][
            "VpcEndpointId"
        ],
        "fl": call(
            "CreateFlowLogs",
            ResourceIds=[vpc["VpcId"]],
            ResourceType="VPC",
            TrafficType="ALL",
            LogGroupName="g",
            DeliverLogsPermissionArn=f"arn:aws:iam::{ACCOUNT}:role/r",
        )["FlowLogIds"][0],
        "key": call("CreateKeyPair", KeyName="k")["KeyPairId"],
    }
    first, second = (call("AllocateAddress", Domain="vpc") for _ in range(2))
    interface = call("CreateNetworkInterface", SubnetId=subnet["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]
    associated = call("AssociateAddress", AllocationId=first["AllocationId"], NetworkInterfaceId=interface)
    nat = call("CreateNatGateway", SubnetId=subnet["SubnetId"], AllocationId=second["AllocationId"])["NatGateway"]
    spare = call("AllocateAddress", Domain="vpc")["AllocationId"]
    permission = call(
        "CreateNetworkInterfacePermission",
        NetworkInterfaceId=interface,
        AwsAccountId="999988887777",
        Permission="INSTANCE-ATTACH",
    )["InterfacePermission"]["NetworkInterfacePermissionId"]
    api.change(api.get(NatGateway, nat["NatGatewayId"]), state="available")
    instance = call("DescribeInstances", InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    found |= {
        "eipalloc": spare,
        "eipassoc": associated["AssociationId"],
        "nat": nat["NatGatewayId"],
        "eni": interface,
        "eni-perm": permission,
        "eni-attach": instance["NetworkInterfaces"][0]["Attachment"]["AttachmentId"],
    }
    return found


# What a request needs besides, so that it is refused for the id and for nothing else.
FILL: Final[Mapping[str, Any]] = {
    "MinCount": 1,
    "MaxCount": 1,
    "CidrBlock": "10.9.0.0/16",
    "AvailabilityZone": "us-east-1a",
    "Size": 1,
    "Device": "/dev/sdf",
    "DeviceIndex": 1,
    "GroupName": "g",
    "Description": "d",
    "Name": "n-a-m-e",
}


@pytest.fixture
def two(api: Api) -> tuple[Api, dict[str, str], dict[str, str]]:
    """The second account's view; what the first has; what the second has."""
    theirs = furnish(api)
    other = api.by(OTHER_ACCOUNT)
    mine = furnish(other)
    return other, theirs, mine


ROUTE: Final = {"DestinationCidrBlock": "198.51.100.0/24"}
PERMISSION: Final = {"GroupId": "@sg"}
# What a request needs besides what the model requires, to be refused for the id and for nothing else; @: mine.
EXTRA: Final[Mapping[str, Mapping[str, Any]]] = {
    "AssociateAddress": {"AllocationId": "@eipalloc"},
    "AssociateIamInstanceProfile": {"IamInstanceProfile": {"Name": "x"}},
    "AssociateRouteTable": {"SubnetId": "@subnet"},
    "AuthorizeSecurityGroupEgress": PERMISSION,
    "AuthorizeSecurityGroupIngress": PERMISSION,
    "CopyImage": {"SourceRegion": "us-east-1"},
    "CopySnapshot": {"SourceRegion": "us-east-1"},
    "CreateFlowLogs": {
        "TrafficType": "ALL",
        "LogGroupName": "g",
        "DeliverLogsPermissionArn": "arn:aws:iam::444455556666:role/r",
    },
    "CreateNatGateway": {"SubnetId": "@subnet", "AllocationId": "@eipalloc"},
    "CreateRoute": ROUTE,
    "CreateSubnet": {"CidrBlock": "10.0.9.0/24"},
    "CreateTags": {"Tags": [{"Key": "a", "Value": "b"}]},
    "CreateVolume": {"AvailabilityZone": "us-east-1a"},
    "CreateVpcEndpoint": {"ServiceName": "com.amazonaws.us-east-1.s3"},
    "DisableFastSnapshotRestores": {"AvailabilityZones": ["us-east-1a"]},
    "EnableFastSnapshotRestores": {"AvailabilityZones": ["us-east-1a"]},
    "EnableImageDeprecation": {"DeprecateAt": "2030-01-01T00:00:00Z"},
    "ExportImage": {"S3ExportLocation": {"S3Bucket": "b"}},
    "LockSnapshot": {"LockMode": "governance", "LockDuration": 1},
    "ModifySecurityGroupRules": {"SecurityGroupRules": [{"SecurityGroupRuleId": "@sgr", "SecurityGroupRule": {}}]},
    "ModifySnapshotAttribute": {"CreateVolumePermission": {"Add": [{"UserId": "444455556666"}]}},
    "ModifySnapshotTier": {"StorageTier": "archive"},
    "RegisterImage": {"RootDeviceName": "/dev/sdf"},
    "ReplaceIamInstanceProfileAssociation": {"IamInstanceProfile": {"Name": "x"}},
    "ReplaceRoute": {"DestinationCidrBlock": "0.0.0.0/0"},
    "ResetSnapshotAttribute": {"Attribute": "createVolumePermission"},
    "RestoreSnapshotTier": {"PermanentRestore": True},
    "RevokeSecurityGroupEgress": PERMISSION,
    "RevokeSecurityGroupIngress": PERMISSION,
    "RunInstances": {"ImageId": "@ami", "InstanceType": "t3.micro"},
    "UpdateSecurityGroupRuleDescriptionsEgress": PERMISSION,
    "UpdateSecurityGroupRuleDescriptionsIngress": PERMISSION,
}
# The same where the member that is walked goes with others than usual.
EXTRA_OF: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    ("CreateRoute", "DestinationPrefixListId"): {"GatewayId": "@igw"},
    ("ReplaceRoute", "DestinationPrefixListId"): {"GatewayId": "@igw"},
    ("AssociateRouteTable", "GatewayId"): {},
}
# What is refused before the id is looked at, or without a look: it must agree with what is mine.
OTHERWISE: Final[Mapping[str, str]] = {
    "AssociateRouteTable-GatewayId": "UnsupportedOperation",
    "ModifyVpcEndpoint-RemoveRouteTableIds": "InvalidParameter",
    "DetachVolume-InstanceId": "IncorrectState",
    "ImportImage-DiskContainers.SnapshotId": "UnsupportedOperation",
    "ModifyInstanceAttribute-BlockDeviceMappings.Ebs.VolumeId": "InvalidInstanceAttributeValue",
    "ModifySecurityGroupRules-SecurityGroupRules.SecurityGroupRule.PrefixListId": "InvalidParameterValue",
    "ReplaceRoute-DestinationPrefixListId": "InvalidParameterValue",
}
# The same inside of a member.
INSIDE: Final[Mapping[str, Mapping[str, Any]]] = {
    "IpPermissions": {"IpProtocol": "-1"},
    "BlockDeviceMappings": {"DeviceName": "/dev/sdf"},
    "Attachment": {"DeleteOnTermination": True},
    "NetworkInterfaces": {"DeviceIndex": 0},
    "SecurityGroupRules": {"SecurityGroupRuleId": "@sgr"},
    "SecurityGroupRule": {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22},
}
# Members that go by these words and take other things, or say again what another member says.
NOT_IDS: Final = frozenset(
    {
        ("UserIdGroupPairs", "VpcId"),
        ("UserIdGroupPairs", "VpcPeeringConnectionId"),
        ("Placement", "GroupId"),
    }
)
# What answers yes to what is not there, as EC2 does.
QUIET: Final = frozenset({"DeleteKeyPair"})


def test_nothing_of_another_account_can_be_named(two: tuple[Api, dict[str, str], dict[str, str]]) -> None:
    other, theirs, mine = two
    wrong = []
    for walk in walks():
        params = fill(walk, theirs, mine)
        before = owned(other, ACCOUNT)
        try:
            answer = other.call(walk.operation, **params)
        except EC2Error as error:
            if not DENIED.fullmatch(error.code) and error.code != OTHERWISE.get(str(walk)):
                wrong.append(f"{walk}: {error}  {params}")
        except Exception as error:
            wrong.append(f"{walk}: {type(error).__name__} {error}  {params}")
        else:
            said = str(answer)
            named = params and any(each in said for each in theirs.values())
            quiet = walk.operation in QUIET or (walk.operation.startswith("Describe") and not named)
            if not quiet and ".NotFound" not in said:
                wrong.append(f"{walk} answered {said[:200]}  {params}")
        changed = [row for row, revision in owned(other, ACCOUNT).items() if before.get(row) != revision]
        if changed or len(before) != len(owned(other, ACCOUNT)):
            wrong.append(f"{walk} changed {changed}")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(list(walks()))}", *wrong])


def owned(api: Api, account: str) -> dict[str, int]:
    rows: Iterator[Resource] = (row for table in api.store._tables.values() for row in table.rows.values())
    return {row.id: row.revision for row in rows if row.account == account}


def fill(walk: Walk, theirs: Mapping[str, str], mine: Mapping[str, str]) -> dict[str, Any]:
    """The request: the walk's member names what is theirs, all others what is mine."""
    model: OperationModel = EC2.operation_model(walk.operation)
    assert model.input_shape is not None
    return _structure(walk, model.input_shape, walk.path, theirs, mine)


def _structure(
    walk: Walk, shape: StructureShape, path: tuple[str, ...], theirs: Mapping[str, str], mine: Mapping[str, str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    above = walk.path[len(walk.path) - len(path) - 1] if len(path) < len(walk.path) else ""
    outside = EXTRA_OF.get((walk.operation, walk.path[0]), EXTRA.get(walk.operation, {}))
    extra = INSIDE.get(above, {}) if above else outside
    for member, inner in shape.members.items():
        wanted = path[:1] == (member,)
        leaf = inner.member if isinstance(inner, ListShape) else inner
        value: Any
        if wanted and len(path) == 1:
            value = theirs.get(walk.prefix) or f"{walk.prefix}-0123456789abcdef0"
        elif wanted:
            assert isinstance(leaf, StructureShape)
            value = _structure(walk, leaf, path[1:], theirs, mine)
        elif member in extra:
            found[member] = _resolve(extra[member], mine)
            continue
        elif member in shape.required_members:
            value = _plain(walk, member, leaf, mine)
        else:
            continue
        found[member] = [value] if isinstance(inner, ListShape) else value
    return found


def _resolve(value: Any, mine: Mapping[str, str]) -> Any:
    if isinstance(value, str) and value.startswith("@"):
        return mine[value[1:]]
    if isinstance(value, Mapping):
        return {name: _resolve(each, mine) for name, each in value.items()}
    return [_resolve(each, mine) for each in value] if isinstance(value, list) else value


def _plain(walk: Walk, member: str, leaf: Shape, mine: Mapping[str, str]) -> Any:
    prefix = OF_ONE.get((walk.operation, member)) or MEMBERS.get(member)
    if prefix is not None:
        return mine.get(prefix) or f"{prefix}-0123456789abcdef0"
    if member in FILL:
        return FILL[member]
    if leaf.type_name == "boolean":
        return True
    if leaf.type_name in ("integer", "long"):
        return 1
    enum = getattr(leaf, "enum", None)
    return enum[0] if enum else "x"


def test_what_is_shared_can_be_used_and_not_changed(two: tuple[Api, dict[str, str], dict[str, str]]) -> None:
    other, theirs, _ = two
    api = other.by(ACCOUNT)
    api.call("ModifyImageAttribute", ImageId=theirs["ami"], LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    assert other.call("DescribeImages", ImageIds=[theirs["ami"]])["Images"]
    other.call("RunInstances", ImageId=theirs["ami"], MinCount=1, MaxCount=1, InstanceType="t3.micro")
    for operation in ("DeregisterImage", "DisableImage"):
        assert DENIED.fullmatch(other.refused(operation, ImageId=theirs["ami"]).code)
    assert DENIED.fullmatch(other.refused("CreateTags", Resources=[theirs["ami"]], Tags=[{"Key": "a"}]).code)
    assert DENIED.fullmatch(other.refused("DeleteSnapshot", SnapshotId=theirs["snap"]).code)


def test_listings_show_nothing_of_another_account(two: tuple[Api, dict[str, str], dict[str, str]]) -> None:
    other, theirs, _ = two
    seen = []
    for service, name in sorted(_DECLARED):
        shape = EC2.operation_model(name).input_shape if service == "ec2" and name.startswith("Describe") else None
        if shape is None or shape.required_members:
            continue
        try:
            said = str(other.call(name))
        except EC2Error:
            continue  # some want to be told of what
        seen += [f"{name} shows {each}" for each in theirs.values() if each in said]
    assert not seen

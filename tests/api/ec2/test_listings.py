"""What holds for every Describe of a kind of resource: ids, owners, filters, pages, stale references."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from botocore import xform_name

from orchestrator.api.ec2 import (
    addresses,
    dhcp_options,
    fast_restores,
    flow_logs,
    images,
    interface_attachments,
    internet_gateways,
    key_pairs,
    nat_gateways,
    network_acls,
    network_interfaces,
    peering,
    prefix_lists,
    regions,
    route_tables,
    security_group_references,
    security_group_rules,
    security_groups,
    snapshot_locks,
    snapshot_tiers,
    snapshots,
    subnets,
    tags,
    volume_modifications,
    volumes,
    vpc_endpoints,
    vpcs,
)
from orchestrator.api.protocol import load_service
from orchestrator.model import ids
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.errors import EC2Error
from orchestrator.model.filters import FilterTable
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.resource import Resource
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume, VolumeAttachment
from orchestrator.model.vpc import (
    DhcpOptions,
    FlowLog,
    InterfaceAttachment,
    InterfacePermission,
    InternetGateway,
    NatAddress,
    NatGateway,
    NetworkAcl,
    NetworkInterface,
    PeeringConnection,
    PeeringSide,
    PrefixList,
    Route,
    RouteTable,
    Rule,
    SecurityGroup,
    Subnet,
    Vpc,
    VpcEndpoint,
)

from .conftest import Api

Fields = dict[str, Any]

# Rows that stand alone: all that they refer to is gone.
GONE: Fields = {"vpc_id": "vpc-00000000000000000"}


@dataclass(frozen=True, slots=True)
class Listing:
    action: str
    answer: str
    id_member: str
    ids_parameter: str
    prefix: str
    make: Callable[..., Resource]
    not_found: str
    smallest: int = 5
    largest: int = 1000
    ids_or_pages: bool = False
    pages: bool = True
    tags: bool = True
    filters: str = "Filters"
    leaves_out: bool = False  # ids that are not there, without an error
    whole_code: bool = False  # `not_found` ends as it is: NatGatewayNotFound

    def code(self, what: str) -> str:
        return f"{self.not_found}{what}" if self.whole_code else f"{self.not_found}.{what}"

    def __str__(self) -> str:
        return self.action


def interface(**fields: Any) -> NetworkInterface:
    attachment = InterfaceAttachment(id="eni-attach-1", instance_id="i-00000000000000000", device_index=0)
    return NetworkInterface(
        subnet_id="subnet-00000000000000000",
        zone="us-east-1a",
        mac="02:00:00:00:00:01",
        private_ip="172.31.0.9",
        public_ip="203.0.113.9",
        groups=("sg-00000000000000000",),
        attachment=attachment,
        **GONE,
        **fields,
    )


def group(**fields: Any) -> SecurityGroup:
    rule = Rule(id=ids.mint("sgr"), egress=False, protocol="-1", group_id="sg-00000000000000000")
    return SecurityGroup(name=fields["id"], description="d", rules=(rule,), **GONE, **fields)


def volume(**fields: Any) -> Volume:
    attachment = VolumeAttachment(instance_id="i-00000000000000000", device="/dev/xvda")
    return Volume(
        zone="us-east-1a", size_gib=1, layer_id="layer-0", snapshot_id="snap-0", attachment=attachment, **fields
    )


def image(**fields: Any) -> Image:
    devices = (BlockDevice(device="/dev/xvda", snapshot_id="snap-00000000000000000"),)
    return Image(name="n", block_devices=devices, **fields)


def acl(**fields: Any) -> NetworkAcl:
    return NetworkAcl(associations={"aclassoc-0": "subnet-00000000000000000"}, **GONE, **fields)


def table(**fields: Any) -> RouteTable:
    routes = (Route(destination="0.0.0.0/0", target="igw-00000000000000000"),)
    return RouteTable(routes=routes, **GONE, **fields)


def elastic_ip(**fields: Any) -> ElasticIp:
    gone = "eni-00000000000000000"
    return ElasticIp(public_ip="203.0.113.9", interface_id=gone, private_ip="10.0.0.9", association_id="x", **fields)


def nat_gateway(**fields: Any) -> NatGateway:
    held = NatAddress(private_ip="10.0.0.9", allocation_id="eipalloc-00000000000000000", primary=True)
    return NatGateway(
        subnet_id="subnet-00000000000000000",
        interface_id="eni-00000000000000000",
        state="available",
        addresses=(held,),
        **GONE,
        **fields,
    )


def peering_connection(**fields: Any) -> PeeringConnection:
    side = PeeringSide(account=fields["account"], region=fields["region"], **GONE)
    return PeeringConnection(requester=side, accepter=side, state="active", **fields)


def permission(**fields: Any) -> InterfacePermission:
    gone = "eni-00000000000000000"
    return InterfacePermission(interface_id=gone, granted_to="444455556666", permission="INSTANCE-ATTACH", **fields)


LISTINGS = [
    Listing("DescribeVpcs", "Vpcs", "VpcId", "VpcIds", "vpc", lambda **f: Vpc(cidr="10.0.0.0/16", **f), "InvalidVpcID"),
    Listing(
        "DescribeSubnets",
        "Subnets",
        "SubnetId",
        "SubnetIds",
        "subnet",
        lambda **f: Subnet(zone="us-east-1a", cidr="10.0.0.0/24", **GONE, **f),
        "InvalidSubnetID",
    ),
    Listing(
        "DescribeInternetGateways",
        "InternetGateways",
        "InternetGatewayId",
        "InternetGatewayIds",
        "igw",
        lambda **f: InternetGateway(**GONE, **f),
        "InvalidInternetGatewayID",
    ),
    Listing(
        "DescribeRouteTables",
        "RouteTables",
        "RouteTableId",
        "RouteTableIds",
        "rtb",
        table,
        "InvalidRouteTableID",
        largest=100,
    ),
    Listing("DescribeNetworkAcls", "NetworkAcls", "NetworkAclId", "NetworkAclIds", "acl", acl, "InvalidNetworkAclID"),
    Listing(
        "DescribeDhcpOptions",
        "DhcpOptions",
        "DhcpOptionsId",
        "DhcpOptionsIds",
        "dopt",
        lambda **f: DhcpOptions(options={"domain-name": ("x",)}, **f),
        "InvalidDhcpOptionID",
    ),
    Listing(
        "DescribeNetworkInterfaces",
        "NetworkInterfaces",
        "NetworkInterfaceId",
        "NetworkInterfaceIds",
        "eni",
        interface,
        "InvalidNetworkInterfaceID",
        ids_or_pages=True,
    ),
    Listing("DescribeSecurityGroups", "SecurityGroups", "GroupId", "GroupIds", "sg", group, "InvalidGroup"),
    Listing("DescribeVolumes", "Volumes", "VolumeId", "VolumeIds", "vol", volume, "InvalidVolume", ids_or_pages=True),
    Listing(
        "DescribeVolumeStatus",
        "VolumeStatuses",
        "VolumeId",
        "VolumeIds",
        "vol",
        volume,
        "InvalidVolume",
        ids_or_pages=True,
    ),
    Listing(
        "DescribeSnapshots",
        "Snapshots",
        "SnapshotId",
        "SnapshotIds",
        "snap",
        lambda **f: Snapshot(layer_id="layer-0", size_gib=1, volume_id="vol-0", **f),
        "InvalidSnapshot",
        ids_or_pages=True,
    ),
    Listing("DescribeImages", "Images", "ImageId", "ImageIds", "ami", image, "InvalidAMIID", smallest=1),
    Listing(
        "DescribeAddresses",
        "Addresses",
        "AllocationId",
        "AllocationIds",
        "eipalloc",
        elastic_ip,
        "InvalidAllocationID",
        pages=False,
    ),
    Listing(
        "DescribeNatGateways",
        "NatGateways",
        "NatGatewayId",
        "NatGatewayIds",
        "nat",
        nat_gateway,
        "NatGateway",
        filters="Filter",
        whole_code=True,
    ),
    Listing(
        "DescribeVpcPeeringConnections",
        "VpcPeeringConnections",
        "VpcPeeringConnectionId",
        "VpcPeeringConnectionIds",
        "pcx",
        peering_connection,
        "InvalidVpcPeeringConnectionID",
    ),
    Listing(
        "DescribeVpcEndpoints",
        "VpcEndpoints",
        "VpcEndpointId",
        "VpcEndpointIds",
        "vpce",
        lambda **f: VpcEndpoint(service="s3", route_table_ids=("rtb-00000000000000000",), **GONE, **f),
        "InvalidVpcEndpointId",
    ),
    Listing(
        "DescribeManagedPrefixLists",
        "PrefixLists",
        "PrefixListId",
        "PrefixListIds",
        "pl",
        lambda **f: PrefixList(name="n", family="IPv4", max_entries=1, **f),
        "InvalidPrefixListID",
        smallest=1,
        largest=100,
    ),
    Listing(
        "DescribeFlowLogs",
        "FlowLogs",
        "FlowLogId",
        "FlowLogIds",
        "fl",
        lambda **f: FlowLog(resource_id="vpc-00000000000000000", traffic="ALL", **f),
        "InvalidFlowLogId",
        filters="Filter",
        leaves_out=True,
    ),
    Listing(
        "DescribeNetworkInterfacePermissions",
        "NetworkInterfacePermissions",
        "NetworkInterfacePermissionId",
        "NetworkInterfacePermissionIds",
        "eni-perm",
        permission,
        "InvalidNetworkInterfacePermissionID",
        largest=255,
        ids_or_pages=True,
        tags=False,
    ),
]

each_listing = pytest.mark.parametrize("listing", LISTINGS, ids=str)
each_in_pages = pytest.mark.parametrize("listing", [each for each in LISTINGS if each.pages], ids=str)


def fill(api: Api, listing: Listing, count: int) -> set[str]:
    """Rows of the caller's, beside what the region starts with."""
    rows = [
        listing.make(id=ids.mint(listing.prefix), account=api.account, region=api.region, created=api.now)
        for _ in range(count)
    ]
    api.put(*rows)
    return {row.id for row in rows}


def ids_of(listing: Listing, answer: dict[str, Any]) -> list[str]:
    return [shown[listing.id_member] for shown in answer[listing.answer]]


@each_listing
def test_stale_references_do_not_break_it(api: Api, listing: Listing) -> None:
    [made] = fill(api, listing, 1)
    assert ids_of(listing, api.call(listing.action, **{listing.ids_parameter: [made]})) == [made]
    assert made in ids_of(listing, api.call(listing.action))


@each_listing
def test_every_filter_can_be_asked_of_stale_rows(api: Api, listing: Listing) -> None:
    [made] = fill(api, listing, 1)
    for name in documented_filters(listing.action) - UNREADABLE:
        api.call(listing.action, **{listing.filters: [{"Name": name, "Values": ["*"]}]})
    none: Fields = {listing.filters: [{"Name": "tag-key", "Values": ["none"]}]}
    assert ids_of(listing, api.call(listing.action, **none)) == []
    assert made in ids_of(listing, api.call(listing.action))


@each_listing
def test_ids_that_are_malformed_or_of_others(api: Api, listing: Listing) -> None:
    made = sorted(fill(api, listing, 2))
    absent = f"{listing.prefix}-00000000000000000"
    malformed = api.refused(listing.action, **{listing.ids_parameter: [absent, "x-1"]})
    codes = {"vol": "InvalidParameterValue", "snap": "InvalidParameterValue", "sg": "InvalidGroupId.Malformed"}
    assert malformed.code == codes.get(listing.prefix, listing.code("Malformed"))
    if listing.leaves_out:
        assert ids_of(listing, api.call(listing.action, **{listing.ids_parameter: [made[0], absent]})) == made[:1]
        assert ids_of(listing, api.by().call(listing.action, **{listing.ids_parameter: made})) == []
        return
    for caller, wanted in ((api, [made[0], absent]), (api.by(), made), (api.within("us-west-2"), made[:1])):
        error = caller.refused(listing.action, **{listing.ids_parameter: wanted})
        assert error.code == listing.code("NotFound")
        assert (made[0] in error.message) is (caller is not api), "it names those that are not there"


@each_listing
def test_others_see_nothing(api: Api, listing: Listing) -> None:
    made = fill(api, listing, 2)
    for elsewhere in (api.by(), api.within("us-west-2")):
        assert made.isdisjoint(ids_of(listing, elsewhere.call(listing.action)))


@each_listing
def test_ids_are_answered_once_each(api: Api, listing: Listing) -> None:
    first, second = fill(api, listing, 2)
    found = ids_of(listing, api.call(listing.action, **{listing.ids_parameter: [first, second, first]}))
    assert sorted(found) == sorted([first, second])


@each_in_pages
def test_pages_end(api: Api, listing: Listing) -> None:
    made = fill(api, listing, 13)
    seen: list[str] = []
    more: dict[str, str] = {}
    while True:
        answer = api.call(listing.action, MaxResults=5, **more)
        assert 1 <= len(ids_of(listing, answer)) <= 5
        seen += ids_of(listing, answer)
        if "NextToken" not in answer:
            break
        more = {"NextToken": answer["NextToken"]}
    assert len(seen) == len(set(seen)) and made <= set(seen)


@each_in_pages
def test_a_page_of_exactly_all_has_no_token(api: Api, listing: Listing) -> None:
    fill(api, listing, 10)
    everything = ids_of(listing, api.call(listing.action))
    answer = api.call(listing.action, MaxResults=len(everything))
    assert sorted(ids_of(listing, answer)) == sorted(everything)
    assert "NextToken" not in answer


@each_in_pages
def test_pages_that_are_refused(api: Api, listing: Listing) -> None:
    [made] = fill(api, listing, 1)
    for size in (listing.smallest - 1, listing.largest + 1):
        with pytest.raises(EC2Error) as refused:  # not through botocore, which knows some of these bounds itself
            api.run(listing.action, MaxResults=size)
        assert refused.value.code == "InvalidParameterValue"
    deep = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    for token in ("x", "e30=", "é", deep):
        assert api.refused(listing.action, NextToken=token).code == "InvalidNextToken"
    with_ids: dict[str, Any] = {listing.ids_parameter: [made], "MaxResults": 5}
    if listing.ids_or_pages:
        assert api.refused(listing.action, **with_ids).code == "InvalidParameterCombination"
    else:
        assert ids_of(listing, api.call(listing.action, **with_ids)) == [made]


@pytest.mark.parametrize("listing", [each for each in LISTINGS if each.tags], ids=str)
def test_tags_are_shown_and_filtered_by(api: Api, listing: Listing) -> None:
    [made, _] = fill(api, listing, 2)
    api.call("CreateTags", Resources=[made], Tags=[{"Key": "Name", "Value": "a b*c"}])
    for name, value in (("tag:Name", "a b\\*c"), ("tag:Name", "a*"), ("tag-key", "N?me")):
        answer = api.call(listing.action, **{listing.filters: [{"Name": name, "Values": ["zzz", value]}]})
        assert ids_of(listing, answer) == [made]
        [shown] = answer[listing.answer]
        if listing.action != "DescribeVolumeStatus":
            assert shown.get("Tags", shown.get("TagSet")) == [{"Key": "Name", "Value": "a b*c"}]
    both = [{"Name": "tag:Name", "Values": ["a*"]}, {"Name": "tag:Name", "Values": ["b*"]}]
    assert ids_of(listing, api.call(listing.action, **{listing.filters: both})) == []


@each_listing
def test_filters_that_are_refused(api: Api, listing: Listing) -> None:
    error = api.refused(listing.action, **{listing.filters: [{"Name": "colour", "Values": ["red"]}]})
    assert error.code == "InvalidParameterValue" and "colour" in error.message and "tag-key" in error.message
    assert api.refused(listing.action, **{listing.filters: [{"Name": "tag-key"}]}).code == "InvalidParameterValue"
    shape = load_service("ec2").operation_model(listing.action).input_shape
    if shape is not None and "DryRun" in shape.members:
        assert api.refused(listing.action, DryRun=True).code == "DryRunOperation"


# --- the tables are complete ------------------------------------------------------------------------------------------

# What EC2's text marks up as code and is no filter name.
UNREADABLE = frozenset({"tag", "tag-key", "tag:&lt;key&gt;", "informational", "low", "medium", "high", "critical"})


def documented_filters(action: str) -> set[str]:
    shape = load_service("ec2").operation_model(action).input_shape
    assert shape is not None
    filters = shape.members.get("Filters") or shape.members["Filter"]
    found = re.findall(r"<li> ?<p> ?<code>([^<]*)</code>", filters.documentation)
    return {name for name in found if not name.startswith("scan-result.")} - UNREADABLE


def tables(api: Api) -> dict[str, FilterTable]:
    call = api._call("DescribeVpcs", {})
    return {
        "DescribeImages": images.IMAGE_FILTERS,
        "DescribeKeyPairs": key_pairs.KEY_PAIR_FILTERS,
        "DescribeNetworkInterfaces": network_interfaces.interface_filters(call),
        "DescribeRegions": regions.REGION_FILTERS,
        "DescribeAvailabilityZones": regions.ZONE_FILTERS,
        "DescribeSecurityGroupRules": security_group_rules.RULE_FILTERS,
        "DescribeSecurityGroups": security_groups.group_filters(call),
        "DescribeSnapshots": snapshots.snapshot_filters(call),
        "DescribeSnapshotTierStatus": snapshot_tiers.tier_filters(call),
        "DescribeLockedSnapshots": snapshot_locks.lock_filters(call),
        "DescribeFastSnapshotRestores": fast_restores.RESTORE_FILTERS,
        "DescribeSubnets": subnets.subnet_filters(call),
        "DescribeTags": tags.TAG_FILTERS,
        "DescribeVolumes": volumes.VOLUME_FILTERS,
        "DescribeVolumeStatus": volumes.status_filters(call),
        "DescribeVolumesModifications": volume_modifications.MODIFICATION_FILTERS,
        "DescribeVpcs": vpcs.VPC_FILTERS,
        "DescribeInternetGateways": internet_gateways.GATEWAY_FILTERS,
        "DescribeRouteTables": route_tables.route_table_filters(call),
        "DescribeNetworkAcls": network_acls.ACL_FILTERS,
        "DescribeDhcpOptions": dhcp_options.DHCP_FILTERS,
        "DescribeManagedPrefixLists": prefix_lists.LIST_FILTERS,
        "DescribePrefixLists": prefix_lists.SERVICE_FILTERS,
        "GetSecurityGroupsForVpc": security_group_references.GROUP_FILTERS,
        "DescribeSecurityGroupVpcAssociations": security_group_references.ASSOCIATION_FILTERS,
        "GetSubnetCidrReservations": subnets.RESERVATION_FILTERS,
        "DescribeAddresses": addresses.address_filters(call),
        "DescribeFlowLogs": flow_logs.LOG_FILTERS,
        "DescribeNatGateways": nat_gateways.NAT_GATEWAY_FILTERS,
        "DescribeNetworkInterfacePermissions": interface_attachments.PERMISSION_FILTERS,
        "DescribeVpcEndpoints": vpc_endpoints.VPC_ENDPOINT_FILTERS,
        "DescribeVpcEndpointServices": vpc_endpoints.SERVICE_FILTERS,
        "DescribeVpcPeeringConnections": peering.peering_filters(call),
    }


def test_every_documented_filter_is_there(api: Api) -> None:
    missing = {action: sorted(documented_filters(action) - set(table)) for action, table in tables(api).items()}
    assert {action: names for action, names in missing.items() if names} == {}


def test_the_parameters_that_are_paged_by_are_those_of_the_model() -> None:
    for listing in LISTINGS:
        shape = load_service("ec2").operation_model(listing.action).input_shape
        paging = {"MaxResults", "NextToken"}
        assert shape is not None and listing.ids_parameter in shape.members and listing.filters in shape.members
        assert paging & set(shape.members) == (paging if listing.pages else set())
        assert xform_name(listing.ids_parameter).endswith("_ids")

"""The default VPC and its default subnets, made again after they were deleted."""

from __future__ import annotations

from ipaddress import IPv4Network

from orchestrator.api.ec2.subnets import add_subnet, check_zone, show_subnet
from orchestrator.api.ec2.vpcs import region_options, show_vpc
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, missing_parameter, unsupported
from orchestrator.model.vpc import Subnet, Vpc, default_network

PREFIX_LENGTH = 20  # of a default subnet


@operation("CreateDefaultVpc", writes=True)
def create_default_vpc(call: Call) -> Answer:
    if any(vpc.is_default for vpc in call.mine(Vpc)):
        raise EC2Error("DefaultVpcAlreadyExists", "A Default VPC already exists for this account in this region.")
    options = region_options(call)
    rows = default_network(call.account, call.region, call.zones, call.now, dhcp_options_id=options.id)
    call.tx.put_all(rows)
    vpc = next(row for row in rows if isinstance(row, Vpc))
    return {"Vpc": show_vpc(call, vpc)}


@operation("CreateDefaultSubnet", writes=True)
def create_default_subnet(
    call: Call,
    *,
    availability_zone: str | None = None,
    availability_zone_id: str | None = None,
    ipv6_native: bool | None = None,
) -> Answer:
    """The lowest free /20 of the default VPC, in a zone that has no default subnet."""
    if ipv6_native:
        raise unsupported("Subnets without IPv4 are not offered here")
    zone = check_zone(call, availability_zone, availability_zone_id)
    if zone is None:
        raise missing_parameter("AvailabilityZone")
    vpc = next((vpc for vpc in call.mine(Vpc) if vpc.is_default), None)
    if vpc is None:
        raise EC2Error("DefaultVpcDoesNotExist", "No default VPC exists for this account in this region.")
    present = call.tx.all(Subnet, vpc_id=vpc.id)
    for subnet in present:
        if subnet.default_for_zone and subnet.zone == zone:
            raise EC2Error(
                "DefaultSubnetAlreadyExistsInAvailabilityZone",
                f"'{subnet.id}' is already the default subnet in {zone}.",
            )
    taken = [subnet.network for subnet in present]
    for block in IPv4Network(vpc.cidr).subnets(new_prefix=PREFIX_LENGTH):
        if not any(block.overlaps(other) for other in taken):
            break
    else:
        raise EC2Error("InsufficientCidrBlocks", f"No /{PREFIX_LENGTH} is free in {vpc.cidr}, the default VPC's range")
    subnet = Subnet(
        id=ids.mint("subnet"),
        account=call.account,
        region=call.region,
        created=call.now,
        vpc_id=vpc.id,
        zone=zone,
        cidr=str(block),
        default_for_zone=True,
        map_public_ip_on_launch=True,
    )
    return {"Subnet": show_subnet(call, add_subnet(call, subnet))}

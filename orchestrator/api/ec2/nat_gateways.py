"""NAT gateways: made, deleted, described, and their addresses. What becomes of one after a request is the reconciler's.

    CreateNatGateway ──► pending ──► available ──DeleteNatGateway──► deleting ──► deleted, shown for an hour
                            └──► failed ────────DeleteNatGateway───────┘
                                   as a public one does in a VPC that has no internet gateway; it goes by itself too

One stands on an interface that is made for it. Each address of a public one is a private address of that interface and
an Elastic IP that stands for it; a private one has private addresses alone. Source: "NAT gateways" in the VPC user
guide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from orchestrator.api.ec2.launch_options import Structure
from orchestrator.api.ec2.network_interfaces import new_interface, put_interface
from orchestrator.api.ec2.subnet_addresses import SubnetAddresses, Wanted, check_count, only_one
from orchestrator.api.operation import Answer, Call, operation, show_page, with_client_token
from orchestrator.model import ids
from orchestrator.model.elastic_ip import ElasticIp, parted
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of, unsupported
from orchestrator.model.filters import FilterTable, compile_filters
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import NatAddress, NatGateway, NetworkInterface, Subnet

REQUESTER: Final = "amazon-nat"  # who made a NAT gateway's interface
MAX_GATEWAYS: Final = 5  # of an account in a zone
MAX_ADDRESSES: Final = 8  # of one gateway, the primary included
MAX_DRAIN_S: Final = 4000
_GONE: Final = ("deleted", "failed")

# --- create -----------------------------------------------------------------------------------------------------------


@operation("CreateNatGateway", writes=True)
def create_nat_gateway(
    call: Call,
    *,
    subnet_id: str | None = None,
    connectivity_type: str = "public",
    availability_mode: str = "zonal",
    allocation_id: str | None = None,
    private_ip_address: str | None = None,
    secondary_allocation_ids: list[str] | None = None,
    secondary_private_ip_addresses: list[str] | None = None,
    secondary_private_ip_address_count: int | None = None,
    tag_specifications: list[Structure] | None = None,
) -> Answer:
    tags = tags_at_creation(tag_specifications, "natgateway")["natgateway"]
    if availability_mode != "zonal":
        raise unsupported(f"AvailabilityMode must be zonal here, not {availability_mode}")
    if not subnet_id:
        raise missing_parameter("SubnetId")
    subnet = call.find(Subnet, "subnet", subnet_id)
    public = one_of("ConnectivityType", connectivity_type, ("public", "private")) == "public"
    count = check_count("SecondaryPrivateIpAddressCount", secondary_private_ip_address_count or 0)
    private_ips, allocation_ids = secondary_private_ip_addresses or [], secondary_allocation_ids or []
    only_one(SecondaryPrivateIpAddresses=private_ips, SecondaryPrivateIpAddressCount=count)
    if public:
        if not allocation_id:
            raise missing_parameter("AllocationId")
        if count:
            raise EC2Error(
                "InvalidParameterCombination",
                "SecondaryPrivateIpAddressCount is for private NAT gateways: give SecondaryAllocationIds",
            )
        elastic = _find_free(call, [allocation_id, *allocation_ids])
        count = _count_unnamed("Secondary", private_ips, allocation_ids)
    else:
        elastic = []
        if allocation_id or allocation_ids:
            raise EC2Error(
                "InvalidParameterCombination", "A private NAT gateway has no Elastic IP: leave out AllocationId"
            )
    _check_size(1 + len(private_ips) + count)
    _check_room(call, subnet.zone)
    wanted = Wanted(
        private_ip=private_ip_address or "",
        more_private_ips=tuple(private_ips),
        more_count=count,
        ipv6_count=0,
    )
    addresses = SubnetAddresses(call, subnet)
    addresses.claim(wanted)
    gateway_id = ids.mint("nat")
    interface = put_interface(
        call,
        new_interface(
            call,
            subnet,
            addresses.allot(wanted),
            description=f"Interface for NAT Gateway {gateway_id}",
            source_dest_check=False,
            state="in-use",
            interface_type="nat_gateway",
            requester_id=REQUESTER,
        ),
    )
    gateway = call.tx.put(
        NatGateway(
            id=gateway_id,
            account=call.account,
            region=call.region,
            created=call.now,
            tags=tags,
            vpc_id=subnet.vpc_id,
            subnet_id=subnet.id,
            connectivity=connectivity_type,
            interface_id=interface.id,
            addresses=_give(call, interface.id, interface.private_ips, elastic, primary=interface.private_ip),
        )
    )
    call.tx.wake(gateway)
    answer: Answer = {"NatGateway": _show(call, gateway)}
    return with_client_token(call, answer)


def _check_room(call: Call, zone: str) -> None:
    there = 0
    for gateway in call.mine(NatGateway):
        subnet = call.tx.get(Subnet, gateway.subnet_id)
        there += gateway.state not in _GONE and subnet is not None and subnet.zone == zone
    if there >= MAX_GATEWAYS:
        raise EC2Error(
            "NatGatewayLimitExceeded",
            f"An account has at most {MAX_GATEWAYS} NAT gateways in a zone; {zone} has {there}",
        )


def _check_size(count: int) -> None:
    if count > MAX_ADDRESSES:
        raise EC2Error(
            "PrivateIpAddressLimitExceeded",
            f"A NAT gateway has at most {MAX_ADDRESSES} addresses; it would have {count}",
        )


def _count_unnamed(prefix: str, private_ips: Sequence[str], allocation_ids: Sequence[str]) -> int:
    """How many private addresses are to be chosen here: one for each Elastic IP that none was named for."""
    if private_ips and len(private_ips) != len(allocation_ids):
        raise EC2Error(
            "InvalidParameterCombination",
            f"{prefix}PrivateIpAddresses must be as many as {prefix}AllocationIds: there are {len(private_ips)} and "
            f"{len(allocation_ids)}",
        )
    return 0 if private_ips else len(allocation_ids)


def _find_free(call: Call, allocation_ids: Sequence[str]) -> list[ElasticIp]:
    """Elastic IPs that stand for nothing, in the order of the request."""
    if len(set(allocation_ids)) < len(allocation_ids):
        raise EC2Error("InvalidParameterValue", f"An Elastic IP is named twice: {', '.join(allocation_ids)}")
    found = call.find_all(ElasticIp, "eipalloc", allocation_ids)
    for address in found:
        if address.interface_id:
            raise EC2Error("Resource.AlreadyAssociated", f"Elastic IP address [{address.id}] is already associated")
    return found


def _give(
    call: Call, interface_id: str, private_ips: Sequence[str], elastic: Sequence[ElasticIp], primary: str = ""
) -> tuple[NatAddress, ...]:
    """Addresses of a gateway; `elastic` is empty, or has one for each private address, which it stands for from now."""
    for private_ip, address in zip(private_ips, elastic, strict=False):
        call.tx.put(
            replace(
                address,
                interface_id=interface_id,
                private_ip=private_ip,
                association_id=ids.mint("eipassoc"),
            )
        )
    allocation_ids = [address.id for address in elastic] or [""] * len(private_ips)
    return tuple(
        NatAddress(private_ip=private_ip, allocation_id=allocation_id, primary=private_ip == primary)
        for private_ip, allocation_id in zip(private_ips, allocation_ids, strict=True)
    )


# --- delete -----------------------------------------------------------------------------------------------------------


@operation("DeleteNatGateway", writes=True)
def delete_nat_gateway(call: Call, *, nat_gateway_id: str) -> Answer:
    """Deleting it again is no error while it is shown, nor is deleting one that failed, which has nothing any more and
    keeps the reason. Its Elastic IPs stay allocated; routes to it lead nowhere."""
    gateway = call.find(NatGateway, "nat", nat_gateway_id)
    if gateway.state not in ("deleting", "deleted"):
        gateway = call.tx.put(replace(gateway, state="deleting"))
        call.tx.wake(gateway)
        call.wake_vpcs(gateway.vpc_id)
    return {"NatGatewayId": gateway.id}


# --- addresses --------------------------------------------------------------------------------------------------------


@operation("AssociateNatGatewayAddress", writes=True)
def associate_nat_gateway_address(
    call: Call, *, nat_gateway_id: str, allocation_ids: list[str], private_ip_addresses: list[str] | None = None
) -> Answer:
    gateway, interface = _find_standing(call, nat_gateway_id, "public")
    if not allocation_ids:
        raise missing_parameter("AllocationId")
    elastic = _find_free(call, allocation_ids)
    count = _count_unnamed("", private_ip_addresses or (), allocation_ids)
    return _add(call, gateway, interface, private_ip_addresses or (), count, elastic)


@operation("AssignPrivateNatGatewayAddress", writes=True)
def assign_private_nat_gateway_address(
    call: Call,
    *,
    nat_gateway_id: str,
    private_ip_addresses: list[str] | None = None,
    private_ip_address_count: int | None = None,
) -> Answer:
    gateway, interface = _find_standing(call, nat_gateway_id, "private")
    count = check_count("PrivateIpAddressCount", private_ip_address_count or 0)
    if not only_one(PrivateIpAddresses=private_ip_addresses, PrivateIpAddressCount=count):
        raise missing_parameter("PrivateIpAddress or PrivateIpAddressCount")
    return _add(call, gateway, interface, private_ip_addresses or (), count, [])


def _add(
    call: Call,
    gateway: NatGateway,
    interface: NetworkInterface,
    named: Sequence[str],
    count: int,
    elastic: Sequence[ElasticIp],
) -> Answer:
    """Secondary addresses: those that are named, or so many that are free."""
    _check_size(len(gateway.addresses) + len(named) + count)
    free = SubnetAddresses(call, call.find(Subnet, "subnet", gateway.subnet_id))
    private_ips = tuple(free.claim_address(address) for address in named) + free.take(count)
    put_interface(call, replace(interface, more_private_ips=interface.more_private_ips + private_ips))
    added = _give(call, interface.id, private_ips, elastic)
    call.tx.put(replace(gateway, addresses=gateway.addresses + added))
    return _answer(gateway, [_show_address(call, gateway, address, "succeeded") for address in added])


@operation("DisassociateNatGatewayAddress", writes=True)
def disassociate_nat_gateway_address(
    call: Call, *, nat_gateway_id: str, association_ids: list[str], max_drain_duration_seconds: int | None = None
) -> Answer:
    """The private addresses go as well, at once: the duration is the longest wait for connections, not the shortest."""
    gateway, interface = _find_standing(call, nat_gateway_id, "public")
    _check_drain(max_drain_duration_seconds)
    wanted = list(dict.fromkeys(ids.check("eipassoc", association_id) for association_id in association_ids))
    if not wanted:
        raise missing_parameter("AssociationId")
    there = {address.association_id: address for address in call.tx.all(ElasticIp, interface_id=interface.id)}
    if absent := [association_id for association_id in wanted if association_id not in there]:
        raise ids.missing("eipassoc", absent)
    gone = {there[association_id].id for association_id in wanted}
    return _remove(
        call, gateway, interface, [each for each in gateway.addresses if each.allocation_id in gone], "disassociating"
    )


@operation("UnassignPrivateNatGatewayAddress", writes=True)
def unassign_private_nat_gateway_address(
    call: Call, *, nat_gateway_id: str, private_ip_addresses: list[str], max_drain_duration_seconds: int | None = None
) -> Answer:
    gateway, interface = _find_standing(call, nat_gateway_id, "private")
    _check_drain(max_drain_duration_seconds)
    if not private_ip_addresses:
        raise missing_parameter("PrivateIpAddress")
    there = {each.private_ip: each for each in gateway.addresses}
    if absent := [address for address in private_ip_addresses if address not in there]:
        raise EC2Error(
            "InvalidParameterValue",
            f"{', '.join(absent)} not assigned to {gateway.id}, which has {', '.join(there)}",
        )
    gone = [there[address] for address in dict.fromkeys(private_ip_addresses)]
    return _remove(call, gateway, interface, gone, "unassigning")


def _check_drain(seconds: int | None) -> None:
    if seconds is not None and not 1 <= seconds <= MAX_DRAIN_S:
        raise invalid_parameter("MaxDrainDurationSeconds", seconds, f"a number from 1 to {MAX_DRAIN_S}")


def _remove(
    call: Call, gateway: NatGateway, interface: NetworkInterface, gone: Sequence[NatAddress], status: str
) -> Answer:
    for each in gone:
        if each.primary:
            raise EC2Error(
                "InvalidParameterValue", f"{each.private_ip} is the primary address of {gateway.id}: it stays"
            )
    shown = [_show_address(call, gateway, each, status) for each in gone]
    for address in call.tx.all(ElasticIp, interface_id=interface.id):
        if address.id in {each.allocation_id for each in gone}:
            call.tx.put(parted(address))
    private_ips = {each.private_ip for each in gone}
    kept = tuple(each for each in interface.more_private_ips if each not in private_ips)
    put_interface(call, replace(interface, more_private_ips=kept))
    call.tx.put(replace(gateway, addresses=tuple(each for each in gateway.addresses if each not in gone)))
    return _answer(gateway, shown)


def _find_standing(call: Call, gateway_id: str, connectivity: str) -> tuple[NatGateway, NetworkInterface]:
    """One whose addresses can be changed now, and what it stands on."""
    gateway = call.find(NatGateway, "nat", gateway_id)
    if gateway.connectivity != connectivity:
        raise unsupported(
            f"{call.action} is for NAT gateways whose connectivity is {connectivity}; that of {gateway.id} is "
            f"{gateway.connectivity}"
        )
    interface = call.tx.get(NetworkInterface, gateway.interface_id)
    if gateway.state != "available" or interface is None:
        raise EC2Error("IncorrectState", f"NAT gateway {gateway.id} is {gateway.state}: it must be available")
    return gateway, interface


def _answer(gateway: NatGateway, addresses: list[Answer]) -> Answer:
    return {"NatGatewayId": gateway.id, "NatGatewayAddresses": addresses}


# --- describe ---------------------------------------------------------------------------------------------------------

NAT_GATEWAY_FILTERS: Final[FilterTable] = {
    "nat-gateway-id": lambda gateway: gateway.id,
    "state": lambda gateway: gateway.state,
    "subnet-id": lambda gateway: gateway.subnet_id,
    "vpc-id": lambda gateway: gateway.vpc_id,
}


@operation("DescribeNatGateways", listing=True)
def describe_nat_gateways(
    call: Call, *, nat_gateway_ids: list[str] | None = None, filter: list[Structure] | None = None
) -> Answer:
    found = call.find_all(NatGateway, "nat", nat_gateway_ids) if nat_gateway_ids else call.mine(NatGateway)
    if filter:
        test = compile_filters(filter, NAT_GATEWAY_FILTERS, lambda gateway: gateway.tags)
        found = [gateway for gateway in found if test(gateway)]
    return show_page(call, "NatGateways", found, lambda gateway: _show(call, gateway))


def _show(call: Call, gateway: NatGateway) -> Answer:
    status = "succeeded"
    if gateway.failure_code:  # whatever was asked of it since
        status = "failed"
    elif gateway.state == "pending":
        status = "associating" if gateway.connectivity == "public" else "assigning"
    shown: Answer = {
        "NatGatewayId": gateway.id,
        "VpcId": gateway.vpc_id,
        "SubnetId": gateway.subnet_id,
        "State": gateway.state,
        "ConnectivityType": gateway.connectivity,
        "AvailabilityMode": "zonal",
        "CreateTime": gateway.created,
        "NatGatewayAddresses": [_show_address(call, gateway, each, status) for each in gateway.addresses],
        "Tags": tag_set(gateway.tags),
    }
    optional = {
        "DeleteTime": gateway.deleted_at,
        "FailureCode": gateway.failure_code,
        "FailureMessage": gateway.failure_message,
    }
    return shown | {name: value for name, value in optional.items() if value}


def _show_address(call: Call, gateway: NatGateway, each: NatAddress, status: str) -> Answer:
    shown: Answer = {
        "NetworkInterfaceId": gateway.interface_id,
        "PrivateIp": each.private_ip,
        "IsPrimary": each.primary,
        "Status": status,
    }
    if status == "failed":
        shown["FailureMessage"] = gateway.failure_message
    if each.allocation_id:
        shown["AllocationId"] = each.allocation_id
        elastic = call.db.get(ElasticIp, each.allocation_id)
        if elastic is not None:
            shown["PublicIp"] = elastic.public_ip
            if elastic.interface_id == gateway.interface_id:
                shown["AssociationId"] = elastic.association_id
    return shown

"""Routes: what a destination and a target may be, and whether a route leads anywhere.

Nothing of the last is stored: a route whose target is gone is a blackhole, and is none when the target comes back.

    10.0.0.0/16          local      a range of the VPC: there from the beginning, and never taken away
    10.0.3.0/24          eni, nat   inside such a range only what is exactly a subnet, and only to a machine
    0.0.0.0/0, ::/0      any        all else: a range of addresses
    pl-...               any        a prefix list, which counts as many routes as it may have entries

Source: "Route table concepts", "Route priority" and quotas in the Amazon VPC user guide; "DescribeRouteTables" in the
EC2 API reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, missing_parameter
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import Rows
from orchestrator.model.vpc import (
    EgressOnlyInternetGateway,
    InternetGateway,
    NatGateway,
    NetworkInterface,
    PeeringConnection,
    PrefixList,
    Route,
    RouteTable,
    Subnet,
    Vpc,
    VpcEndpoint,
    local_routes,
)
from orchestrator.model.vpc_cidr import read_cidr, read_cidr_ipv6

LOCAL = "local"
ENDPOINT: Final = "vpce-"

MAX_ROUTES: Final = 50  # of a table, for each of IPv4 and IPv6, local ones not counted
IPV4, IPV6 = "IPv4", "IPv6"

# What the host serves to every instance (metadata, DNS, time): EC2 takes no routes inside these.
RESERVED: Final = (IPv4Network("169.254.168.0/22"), IPv6Network("fd00:ec2::/32"))
MACHINES: Final = ("eni-", "nat-")  # targets that a route to a subnet of the VPC may have


def origin(route: Route) -> str:
    return route.origin or ("CreateRouteTable" if route.target == LOCAL else "CreateRoute")


def state(rows: Rows, route: Route, vpc_id: str) -> str:
    """active or blackhole, for a route of a table of that VPC."""
    if route.destination.startswith("pl-") and rows.get(PrefixList, route.destination) is None:
        return "blackhole"
    return "active" if _leads_on(rows, route.target, vpc_id) else "blackhole"


def _leads_on(rows: Rows, target: str, vpc_id: str) -> bool:
    match target.partition("-")[0]:
        case "local":
            return True
        case "igw":
            gateway = rows.get(InternetGateway, target)
            return gateway is not None and gateway.vpc_id == vpc_id
        case "eigw":
            way_out = rows.get(EgressOnlyInternetGateway, target)
            return way_out is not None and way_out.vpc_id == vpc_id
        case "nat":
            nat = rows.get(NatGateway, target)
            return nat is not None and nat.state in ("pending", "available")
        case "eni":
            interface = rows.get(NetworkInterface, target)
            if interface is None or interface.attachment is None:
                return False
            instance = rows.get(Instance, interface.instance_id)
            return instance is not None and instance.state in (State.PENDING, State.RUNNING)
        case "pcx":
            peering = rows.get(PeeringConnection, target)
            return peering is not None and peering.state == "active"
        case "vpce":
            endpoint = rows.get(VpcEndpoint, target)
            return endpoint is not None and endpoint.state == "available"
    return False


# --- reading ----------------------------------------------------------------------------------------------------------


def read_destination(cidr: str | None, cidr_ipv6: str | None, prefix_list_id: str | None) -> str:
    """The one destination that a request names: a range in canonical form, or a prefix list's id."""
    given = {
        "DestinationCidrBlock": cidr,
        "DestinationIpv6CidrBlock": cidr_ipv6,
        "DestinationPrefixListId": prefix_list_id,
    }
    chosen = [name for name, value in given.items() if value]
    if not chosen:
        raise missing_parameter("DestinationCidrBlock, DestinationIpv6CidrBlock or DestinationPrefixListId")
    if len(chosen) > 1:
        message = f"Give exactly one destination; got {', '.join(chosen)}"
        raise EC2Error("InvalidParameterCombination", message)
    if cidr:
        return str(read_cidr(cidr, "destinationCidrBlock"))
    if cidr_ipv6:
        return str(read_cidr_ipv6(cidr_ipv6, "destinationIpv6CidrBlock"))
    return ids.check("pl", prefix_list_id or "")


def is_list(destination: str) -> bool:
    return destination.startswith("pl-")


def family(rows: Rows, destination: str) -> str:
    """IPv4 or IPv6; a list that is gone counts as IPv4."""
    if is_list(destination):
        found = rows.get(PrefixList, destination)
        return found.family if found is not None else IPV4
    return IPV6 if ":" in destination else IPV4


def find_route(table: RouteTable, destination: str) -> Route | None:
    return next((route for route in table.routes if route.destination == destination), None)


def check_destination(vpc: Vpc, subnets: Sequence[Subnet], destination: str, target: str) -> None:
    """That a route to this range may be there, and have this target."""
    if is_list(destination):
        return
    network = ip_network(destination)
    for kept in RESERVED:
        if _inside(network, kept):
            raise EC2Error(
                "InvalidParameterValue",
                f"The destination CIDR block {destination} is inside {kept}, which instances reach without a route",
            )
    for local in local_routes(vpc):
        own = ip_network(local.destination)
        if network == own:
            raise EC2Error("InvalidParameterValue", f"{destination} is a range of {vpc.id}: its route is local")
        if not _inside(network, own):
            continue
        exact = {each.cidr for each in subnets} | {pair.cidr for each in subnets for pair in each.ipv6_cidrs}
        if destination not in exact or not target.startswith(MACHINES):
            raise EC2Error(
                "InvalidParameterValue",
                f"The destination CIDR block {destination} is more specific than the local route {own}: it must be "
                "exactly that of a subnet of the VPC, and the target an instance, a network interface or a NAT gateway",
            )


def _inside(network: IPv4Network | IPv6Network, other: IPv4Network | IPv6Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(other, IPv4Network) and network.subnet_of(other)
    return isinstance(other, IPv6Network) and network.subnet_of(other)


def check_count(rows: Rows, table: RouteTable, destination: str) -> None:
    """That a table has no more routes than it may of the family of `destination`, which it has now or which is larger
    now; a prefix list counts as many as it may have entries."""
    grown = family(rows, destination)
    count = 0
    for route in table.routes:
        if route.target != LOCAL and family(rows, route.destination) == grown:
            found = rows.get(PrefixList, route.destination) if is_list(route.destination) else None
            count += found.max_entries if found is not None else 1
    if count > MAX_ROUTES:
        raise EC2Error(
            "RouteLimitExceeded",
            f"The route table {table.id} would have {count} {grown} routes; the limit is {MAX_ROUTES}, and a prefix "
            "list counts as many as its MaxEntries",
        )

"""`orc vpc show`: a VPC as a tree of its ranges, gateways, route tables, subnets and interfaces.

    vpc -+- ranges, gateways, peerings, endpoints
         +- route tables -- routes
         +- subnets -- interfaces -- further addresses, groups

It is drawn from EC2's own answers; `-o json` prints those.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from orchestrator.cli.client import Client
from orchestrator.cli.output import Document, name_of, text

WIDTH = 100  # where there is no terminal to ask
_STYLES = {
    **dict.fromkeys(("active", "available", "in-use", "running"), "green"),
    **dict.fromkeys(("attaching", "detaching", "pending", "pending-acceptance", "stopping"), "yellow"),
    **dict.fromkeys(("blackhole", "failed", "rejected", "expired", "deleted"), "red"),
    **dict.fromkeys(("stopped", "detached"), "dim"),
}
_ID = re.compile(r"\b[a-z]+(?:-[a-z]+)*-[0-9a-f]{8,17}\b")
_TARGETS = (
    *("GatewayId", "NatGatewayId", "NetworkInterfaceId", "VpcPeeringConnectionId"),
    *("EgressOnlyInternetGatewayId", "TransitGatewayId", "InstanceId"),
)
_DESTINATIONS = ("DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId")


def gather(client: Client, vpc: Document) -> dict[str, Any]:
    """All that is drawn, by the member that EC2 answers it under."""
    vpc_id = vpc["VpcId"]
    of_vpc = [{"Name": "vpc-id", "Values": [vpc_id]}]
    attached = [{"Name": "attachment.vpc-id", "Values": [vpc_id]}]
    only_out = client.pages("DescribeEgressOnlyInternetGateways", "EgressOnlyInternetGateways")
    peerings = client.pages("DescribeVpcPeeringConnections", "VpcPeeringConnections")
    return {
        "Vpc": vpc,
        "InternetGateways": client.pages("DescribeInternetGateways", "InternetGateways", Filters=attached),
        "EgressOnlyInternetGateways": [
            one for one in only_out if any(each.get("VpcId") == vpc_id for each in one.get("Attachments", []))
        ],
        "NatGateways": client.pages("DescribeNatGateways", "NatGateways", Filter=of_vpc),
        "VpcPeeringConnections": [
            one for one in peerings if vpc_id in (side.get("VpcId") for side in _sides(one)) and _is_alive(one)
        ],
        "VpcEndpoints": client.pages("DescribeVpcEndpoints", "VpcEndpoints", Filters=of_vpc),
        "RouteTables": client.pages("DescribeRouteTables", "RouteTables", Filters=of_vpc),
        "NetworkAcls": client.pages("DescribeNetworkAcls", "NetworkAcls", Filters=of_vpc),
        "Subnets": client.pages("DescribeSubnets", "Subnets", Filters=of_vpc),
        "NetworkInterfaces": client.pages("DescribeNetworkInterfaces", "NetworkInterfaces", Filters=of_vpc),
        "Instances": client.instances(filters=[("vpc-id", [vpc_id])]),
    }


def draw(found: dict[str, Any]) -> None:
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    console.print(tree(found))


def tree(found: dict[str, Any]) -> Tree:
    vpc = found["Vpc"]
    root = Tree(_words(_called(vpc, "VpcId"), vpc.get("State"), "default" if vpc.get("IsDefault") else ""))
    root.add(_words("ranges", *_ranges(vpc)))
    for line in (*_gateways(found), *_peerings(found), *_endpoints(found)):
        root.add(line)
    for gateway in found["NatGateways"]:
        root.add(_nat_gateway(gateway))
    for table in found["RouteTables"]:
        _add_table(root, table)
    interfaces = defaultdict(list)
    for interface in found["NetworkInterfaces"]:
        interfaces[interface.get("SubnetId", "")].append(interface)
    instances = {one["InstanceId"]: one for one in found["Instances"]}
    for subnet in sorted(found["Subnets"], key=lambda one: (one.get("AvailabilityZone", ""), one.get("CidrBlock", ""))):
        branch = root.add(_subnet(subnet))
        branch.add(_rules_of(found, subnet))
        for interface in sorted(interfaces[subnet["SubnetId"]], key=_order):
            _add_interface(branch, interface, instances)
    return root


# --- lines ---


def _words(*words: Any) -> Text:
    """What there is of them, ids and states in colour."""
    line = Text(" ".join(text(word) for word in words if word not in (None, "", [])))
    line.highlight_regex(_ID, "cyan")
    for word, style in _STYLES.items():
        line.highlight_regex(rf"(?<![\w-]){word}(?![\w-])", style)
    return line


def _called(one: Document, member: str) -> str:
    name = name_of(one)
    return f"{one[member]} ({text(name)})" if name else str(one[member])


def _ranges(vpc: Document) -> list[str]:
    more = [each.get("CidrBlock") for each in vpc.get("CidrBlockAssociationSet", [])]
    six = [each.get("Ipv6CidrBlock") for each in vpc.get("Ipv6CidrBlockAssociationSet", [])]
    return list(dict.fromkeys(each for each in (vpc.get("CidrBlock"), *more, *six) if each))


def _gateways(found: dict[str, Any]) -> Iterator[Text]:
    for one in found["InternetGateways"]:
        yield _words("internet gateway", _called(one, "InternetGatewayId"))
    for one in found["EgressOnlyInternetGateways"]:
        yield _words("egress-only gateway", _called(one, "EgressOnlyInternetGatewayId"))


def _nat_gateway(one: Document) -> Text:
    addresses = [
        "=".join(word for word in (each.get("PrivateIp"), each.get("PublicIp")) if word)
        for each in one.get("NatGatewayAddresses", [])
    ]
    kind = "" if one.get("ConnectivityType") != "private" else "private"
    return _words("NAT gateway", _called(one, "NatGatewayId"), kind, one.get("State"), *addresses)


def _sides(one: Document) -> tuple[Document, Document]:
    return one.get("RequesterVpcInfo", {}), one.get("AccepterVpcInfo", {})


def _is_alive(one: Document) -> bool:
    return one.get("Status", {}).get("Code") not in ("deleted", "rejected", "expired", "failed")


def _peerings(found: dict[str, Any]) -> Iterator[Text]:
    for one in found["VpcPeeringConnections"]:
        requester, accepter = _sides(one)
        other = accepter if requester.get("VpcId") == found["Vpc"]["VpcId"] else requester
        state = one.get("Status", {}).get("Code")
        called = _called(one, "VpcPeeringConnectionId")
        yield _words("peering", called, state, "with", other.get("VpcId"), other.get("CidrBlock"))


def _endpoints(found: dict[str, Any]) -> Iterator[Text]:
    for one in found["VpcEndpoints"]:
        yield _words("endpoint", _called(one, "VpcEndpointId"), one.get("State"), one.get("ServiceName"))


def _add_table(root: Tree, table: Document) -> None:
    associations = table.get("Associations", [])
    main = any(each.get("Main") for each in associations)
    branch = root.add(_words("route table", _called(table, "RouteTableId"), "main" if main else ""))
    for route in table.get("Routes", []):
        blackhole = "blackhole" if route.get("State") == "blackhole" else ""
        branch.add(_words(_destination(route), "->", _target(route), blackhole))


def _destination(route: Document) -> str:
    return next((route[name] for name in _DESTINATIONS if route.get(name)), "")


def _target(route: Document) -> str:
    return next((route[name] for name in _TARGETS if route.get(name)), "")


def routes(table: Document) -> list[str]:
    """Each in a word, for a listing."""
    return [
        f"{_destination(route)}->{'blackhole' if route.get('State') == 'blackhole' else _target(route)}"
        for route in table.get("Routes", [])
    ]


def _subnet(subnet: Document) -> Text:
    six = [each.get("Ipv6CidrBlock") for each in subnet.get("Ipv6CidrBlockAssociationSet", [])]
    ranges = (subnet.get("CidrBlock"), *six)
    return _words("subnet", _called(subnet, "SubnetId"), *ranges, subnet.get("AvailabilityZone"))


def _rules_of(found: dict[str, Any], subnet: Document) -> Text:
    table = _associated(found["RouteTables"], subnet["SubnetId"], "RouteTableId")
    acl = _associated(found["NetworkAcls"], subnet["SubnetId"], "NetworkAclId")
    free = subnet.get("AvailableIpAddressCount")
    words = [f"table {table or 'main'}", f"ACL {acl}" if acl else "", f"{free} free" if free is not None else ""]
    return _words(", ".join(word for word in words if word))


def _associated(tables: Iterable[Document], subnet_id: str, member: str) -> str:
    for table in tables:
        if any(each.get("SubnetId") == subnet_id for each in table.get("Associations", [])):
            return str(table[member])
    return ""


def _order(interface: Document) -> tuple[int, ...]:
    return tuple(int(part) for part in interface.get("PrivateIpAddress", "0").split("."))


def _add_interface(branch: Tree, interface: Document, instances: dict[str, Document]) -> None:
    addresses = interface.get("PrivateIpAddresses", []) or [{"PrivateIpAddress": interface.get("PrivateIpAddress")}]
    first, more = addresses[0], addresses[1:]
    leaf = branch.add(_words(interface["NetworkInterfaceId"], _address(first), _user(interface, instances)))
    others = [_address(each) for each in more]
    others += [each.get("Ipv4Prefix", "") for each in interface.get("Ipv4Prefixes", [])]
    others += [each.get("Ipv6Address", "") for each in interface.get("Ipv6Addresses", [])]
    if others:
        leaf.add(_words("also", ", ".join(others)))
    groups = [each.get("GroupName") or each["GroupId"] for each in interface.get("Groups", [])]
    check = "" if interface.get("SourceDestCheck", True) else "no source/dest check"
    if groups or check:
        leaf.add(_words(f"groups {', '.join(groups)}" if groups else "", check))


def _address(one: Document) -> str:
    public = one.get("Association", {}).get("PublicIp")
    return f"{one.get('PrivateIpAddress')}={public}" if public else str(one.get("PrivateIpAddress"))


def _user(interface: Document, instances: dict[str, Document]) -> str:
    attachment = interface.get("Attachment", {})
    instance_id = attachment.get("InstanceId")
    if not instance_id:
        kind = interface.get("InterfaceType")
        return "NAT gateway" if kind == "nat_gateway" else text(interface.get("Description") or "detached")
    instance = instances.get(instance_id, {})
    name, state = name_of(instance), instance.get("State", {}).get("Name", "")
    return " ".join(word for word in (text(name) if name else "", instance_id, state) if word)

"""A country of four VPCs, made by the API as a user would: what a traffic matrix is asked about.

red    10.0.0.0/16  igw    front 10.0.1.0/24  -> igw, green           web (Elastic IP), shop (auto), nat box, router
                           back  10.0.2.0/24  -> NAT gateway, green   db, app
                           mid   10.0.3.0/24  -> NAT gateway          old (its ACL is narrow)
                           deep  10.0.4.0/24  -> nat box; to mid by the router        probe
blue   10.0.0.0/16  igw    front 10.0.1.0/24  -> igw                  web (Elastic IP), mute (no public address)
green  10.1.0.0/16         10.1.1.0/24        -> red, gold            peer, lone
gold   10.2.0.0/16         10.2.1.0/24        -> green, red (which it is no peer of: a blackhole)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from orchestrator.model.vpc import NatGateway, NetworkInterface
from tests.api.ec2.conftest import Api

TCP_PORTS = (80, 443, 5432, 8085, 9000)
UDP_PORTS = (53, 5000, 8085)
ANYWHERE = "0.0.0.0/0"
PUBLIC_RANGE = IPv4Network("203.0.113.0/24")


@dataclass
class Country:
    """Names -> ids, as far as they are told apart by name."""

    api: Api
    vpcs: dict[str, str] = field(default_factory=dict)
    subnets: dict[str, str] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    interfaces: dict[str, str] = field(default_factory=dict)  # guest -> its primary interface

    def vpc(self, name: str, cidr: str, *, gateway: bool) -> None:
        call = self.api.call
        vpc_id = self.vpcs[name] = call("CreateVpc", CidrBlock=cidr)["Vpc"]["VpcId"]
        if gateway:
            gateway_id = call("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
            call("AttachInternetGateway", InternetGatewayId=gateway_id, VpcId=vpc_id)
            self.vpcs[f"{name}-igw"] = gateway_id

    def subnet(self, name: str, cidr: str) -> None:
        vpc_id = self.vpcs[name.partition("-")[0]]
        call = self.api.call
        subnet = call("CreateSubnet", VpcId=vpc_id, CidrBlock=cidr, AvailabilityZone="us-east-1a")["Subnet"]
        self.subnets[name] = subnet["SubnetId"]
        table = call("CreateRouteTable", VpcId=vpc_id)["RouteTable"]["RouteTableId"]
        call("AssociateRouteTable", RouteTableId=table, SubnetId=subnet["SubnetId"])
        self.tables[name] = table

    def route(self, subnet: str, destination: str, **target: str) -> None:
        self.api.call("CreateRoute", RouteTableId=self.tables[subnet], DestinationCidrBlock=destination, **target)

    def group(self, name: str, *permissions: dict[str, Any], egress: list[dict[str, Any]] | None = None) -> None:
        vpc_id = self.vpcs[name.partition("-")[0]]
        call = self.api.call
        made = call("CreateSecurityGroup", GroupName=name, Description=name, VpcId=vpc_id)["GroupId"]
        self.groups[name] = made
        if permissions:
            call("AuthorizeSecurityGroupIngress", GroupId=made, IpPermissions=list(permissions))
        if egress is not None:
            everything = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": ANYWHERE}]}]
            call("RevokeSecurityGroupEgress", GroupId=made, IpPermissions=everything)
            call("AuthorizeSecurityGroupEgress", GroupId=made, IpPermissions=egress)

    def guest(self, name: str, subnet: str, *groups: str, public: bool = False, **interface: Any) -> str:
        described = {
            "DeviceIndex": 0,
            "SubnetId": self.subnets[subnet],
            "Groups": [self.groups[group] for group in groups],
            "AssociatePublicIpAddress": public,
            **interface,
        }
        (instance_id,) = self.api.launch(InstanceType="c5.large", NetworkInterfaces=[described])
        (eni,) = self.api.store.all(NetworkInterface, instance_id=instance_id)
        self.interfaces[name] = eni.id
        return eni.id

    def unchecked(self, name: str) -> None:
        self.api.call(
            "ModifyNetworkInterfaceAttribute",
            NetworkInterfaceId=self.interfaces[name],
            SourceDestCheck={"Value": False},
        )

    def elastic(self, name: str, **which: str) -> str:
        made: dict[str, str] = self.api.call("AllocateAddress", Domain="vpc")
        eni = self.interfaces[name]
        self.api.call("AssociateAddress", AllocationId=made["AllocationId"], NetworkInterfaceId=eni, **which)
        return made["PublicIp"]

    def nat_gateway(self, subnet: str) -> str:
        address = self.api.call("AllocateAddress", Domain="vpc")["AllocationId"]
        made = self.api.call("CreateNatGateway", SubnetId=self.subnets[subnet], AllocationId=address)["NatGateway"]
        self.api.change(self.api.get(NatGateway, made["NatGatewayId"]), state="available")
        nat_gateway_id: str = made["NatGatewayId"]
        return nat_gateway_id

    def peer(self, one: str, other: str) -> str:
        call = self.api.call
        made = call("CreateVpcPeeringConnection", VpcId=self.vpcs[one], PeerVpcId=self.vpcs[other])
        peering: str = made["VpcPeeringConnection"]["VpcPeeringConnectionId"]
        call("AcceptVpcPeeringConnection", VpcPeeringConnectionId=peering)
        return peering

    def acl(self, subnet: str, *entries: tuple[int, bool, str, str, str, tuple[int, int] | None]) -> None:
        """(number, egress, protocol, allow or deny, range, ports or ICMP type and code)"""
        call = self.api.call
        vpc_id = self.vpcs[subnet.partition("-")[0]]
        acl = call("CreateNetworkAcl", VpcId=vpc_id)["NetworkAcl"]["NetworkAclId"]
        for number, egress, protocol, action, cidr, span in entries:
            more: dict[str, Any] = {}
            if span is not None and protocol == "1":
                more["IcmpTypeCode"] = {"Type": span[0], "Code": span[1]}
            elif span is not None:
                more["PortRange"] = {"From": span[0], "To": span[1]}
            call(
                "CreateNetworkAclEntry",
                NetworkAclId=acl,
                RuleNumber=number,
                Egress=egress,
                Protocol=protocol,
                RuleAction=action,
                CidrBlock=cidr,
                **more,
            )
        wanted = self.subnets[subnet]
        found = call("DescribeNetworkAcls", Filters=[{"Name": "association.subnet-id", "Values": [wanted]}])
        (association,) = (
            each["NetworkAclAssociationId"]
            for each in found["NetworkAcls"][0]["Associations"]
            if each["SubnetId"] == wanted
        )
        call("ReplaceNetworkAclAssociation", AssociationId=association, NetworkAclId=acl)


def tcp(first: int, last: int = 0, *ranges: str, **peer: Any) -> dict[str, Any]:
    return _permission("tcp", first, last or first, ranges, peer)


def udp(first: int, last: int = 0, *ranges: str, **peer: Any) -> dict[str, Any]:
    return _permission("udp", first, last or first, ranges, peer)


def ping(*ranges: str, **peer: Any) -> dict[str, Any]:
    return _permission("icmp", 8, -1, ranges, peer)


def anything(*ranges: str, **peer: Any) -> dict[str, Any]:
    return _permission("-1", -1, -1, ranges, peer)


def _permission(protocol: str, first: int, last: int, ranges: tuple[str, ...], peer: dict[str, Any]) -> dict[str, Any]:
    permission: dict[str, Any] = {"IpProtocol": protocol, "IpRanges": [{"CidrIp": cidr} for cidr in ranges]}
    if protocol != "-1":
        permission |= {"FromPort": first, "ToPort": last}
    if "group" in peer:
        permission["UserIdGroupPairs"] = [{"GroupId": peer["group"], **peer.get("of", {})}]
    if "prefixes" in peer:
        permission["PrefixListIds"] = [{"PrefixListId": peer["prefixes"]}]
    return permission


def found_country(api: Api) -> Country:
    """All of it. The guests' instances run, as far as the rows say."""
    api.make_image()
    country = Country(api)
    country.vpc("red", "10.0.0.0/16", gateway=True)
    country.vpc("blue", "10.0.0.0/16", gateway=True)
    country.vpc("green", "10.1.0.0/16", gateway=False)
    country.vpc("gold", "10.2.0.0/16", gateway=False)
    for name, cidr in (
        ("red-front", "10.0.1.0/24"),
        ("red-back", "10.0.2.0/24"),
        ("red-mid", "10.0.3.0/24"),
        ("red-deep", "10.0.4.0/24"),
        ("blue-front", "10.0.1.0/24"),
        ("green-all", "10.1.1.0/24"),
        ("gold-all", "10.2.1.0/24"),
    ):
        country.subnet(name, cidr)
    _peer(country)
    _allow(country)
    _settle(country)
    _guard(country)
    return country


def _peer(country: Country) -> None:
    red_green, green_gold = country.peer("red", "green"), country.peer("green", "gold")
    for subnet in ("red-front", "red-back"):
        country.route(subnet, "10.1.0.0/16", VpcPeeringConnectionId=red_green)
    country.route("green-all", "10.0.0.0/16", VpcPeeringConnectionId=red_green)
    country.route("green-all", "10.2.0.0/16", VpcPeeringConnectionId=green_gold)
    country.route("gold-all", "10.1.0.0/16", VpcPeeringConnectionId=green_gold)
    # Nobody's peer can be reached through somebody's peer: this route leads out of gold, and ends in green.
    country.route("gold-all", "10.0.0.0/16", VpcPeeringConnectionId=green_gold)
    country.route("red-front", "10.2.0.0/16", VpcPeeringConnectionId=red_green)
    for subnet in ("red-front", "blue-front"):
        country.route(subnet, ANYWHERE, GatewayId=country.vpcs[subnet.partition("-")[0] + "-igw"])
    country.vpcs["red-green"] = red_green


def _allow(country: Country) -> None:
    prefixes = country.api.call(
        "CreateManagedPrefixList",
        PrefixListName="offices",
        AddressFamily="IPv4",
        MaxEntries=5,
        Entries=[{"Cidr": "10.0.2.0/25"}, {"Cidr": "10.0.4.0/24"}, {"Cidr": "203.0.113.0/24"}],
    )["PrefixList"]["PrefixListId"]
    country.group("green-peers", tcp(80, 0, ANYWHERE), ping("10.0.0.0/8"))
    country.group("red-web", tcp(80, 0, ANYWHERE), tcp(443, 0, ANYWHERE), ping(ANYWHERE))
    country.group("red-all", anything(ANYWHERE))
    country.group(
        "red-db",
        tcp(5432, 0, group=country.groups["red-web"]),
        tcp(8000, 8100, "10.0.0.0/16"),
        udp(5000, 0, prefixes=prefixes),
        tcp(9000, 0, group=country.groups["green-peers"], of={"VpcPeeringConnectionId": country.vpcs["red-green"]}),
    )
    country.group(
        "red-narrow",
        tcp(80, 0, "10.0.0.0/8"),
        udp(1, 6000, "10.0.2.0/24"),
        ping("10.0.1.0/24", "10.0.2.0/24"),
        egress=[tcp(80, 443, "10.0.0.0/16"), tcp(5432, 0, group=country.groups["red-db"]), udp(53, 0, ANYWHERE)],
    )
    country.group("red-none")
    country.group("blue-web", tcp(80, 0, ANYWHERE), udp(5000, 0, ANYWHERE), ping("10.0.1.0/24"))
    country.group("blue-mute", anything("10.0.1.0/28"))
    country.group("green-lone", tcp(443, 0, "10.0.1.0/24"), udp(5000, 0, group=country.groups["green-peers"]))
    country.group("gold-all", anything(ANYWHERE))


def _settle(country: Country) -> None:
    country.guest("red-web", "red-front", "red-web")
    country.guest("red-shop", "red-front", "red-web", "red-narrow", public=True)
    country.guest("red-natbox", "red-front", "red-all")
    country.guest("red-router", "red-front", "red-all")
    country.guest("red-db", "red-back", "red-db", SecondaryPrivateIpAddressCount=1)
    country.guest("red-app", "red-back", "red-narrow")
    country.guest("red-old", "red-mid", "red-all")
    country.guest("red-probe", "red-deep", "red-web", "red-db")
    country.guest("red-closed", "red-deep", "red-none")
    country.guest("blue-web", "blue-front", "blue-web")
    country.guest("blue-mute", "blue-front", "blue-mute")
    country.guest("green-peer", "green-all", "green-peers")
    country.guest("green-lone", "green-all", "green-lone")
    country.guest("gold-one", "gold-all", "gold-all")
    for name in ("red-natbox", "red-router"):
        country.unchecked(name)
    for name in ("red-web", "red-natbox", "blue-web"):
        country.elastic(name)
    nat = country.nat_gateway("red-front")
    for subnet in ("red-back", "red-mid"):
        country.route(subnet, ANYWHERE, NatGatewayId=nat)
    country.route("red-deep", ANYWHERE, NetworkInterfaceId=country.interfaces["red-natbox"])
    country.route("red-deep", "10.0.3.0/24", NetworkInterfaceId=country.interfaces["red-router"])


def _guard(country: Country) -> None:
    country.acl(
        "red-mid",
        (90, False, "6", "deny", "10.0.2.0/24", (443, 443)),
        (100, False, "6", "allow", "10.0.0.0/16", (80, 8100)),
        (110, False, "6", "allow", "0.0.0.0/0", (32768, 65535)),
        (120, False, "17", "allow", "10.0.2.0/24", (5000, 5000)),
        (130, False, "1", "allow", "0.0.0.0/0", (8, -1)),
        (100, True, "6", "allow", "0.0.0.0/0", (0, 65535)),
        (110, True, "17", "deny", "10.0.2.0/25", (1024, 65535)),
        (120, True, "-1", "allow", "10.0.0.0/8", None),
    )
    country.acl(
        "blue-front",
        (10, False, "6", "deny", "203.0.113.0/24", (443, 443)),
        (20, False, "-1", "allow", "0.0.0.0/0", None),
        (10, True, "6", "allow", "0.0.0.0/0", (1024, 65535)),
        (20, True, "17", "allow", "0.0.0.0/0", (1024, 65535)),
        (30, True, "1", "allow", "0.0.0.0/0", (-1, -1)),
    )

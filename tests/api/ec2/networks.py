"""What tests of networks make by calls, and what they look at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from orchestrator.model import ids
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.vpc import (
    NetworkInterface,
    PeeringConnection,
    PeeringSide,
    Route,
    RouteTable,
    Subnet,
    Vpc,
)

from .conftest import Api


def make_vpc(api: Api, cidr: str = "10.0.0.0/16", **params: Any) -> str:
    vpc_id = api.call("CreateVpc", CidrBlock=cidr, **params)["Vpc"]["VpcId"]
    assert isinstance(vpc_id, str)
    return vpc_id


def make_subnet(api: Api, vpc_id: str, cidr: str = "10.0.0.0/24", **params: Any) -> str:
    subnet_id = api.call("CreateSubnet", VpcId=vpc_id, CidrBlock=cidr, **params)["Subnet"]["SubnetId"]
    assert isinstance(subnet_id, str)
    return subnet_id


def make_group(api: Api, vpc_id: str, name: str = "web") -> str:
    group_id = api.call("CreateSecurityGroup", GroupName=name, Description="d", VpcId=vpc_id)["GroupId"]
    assert isinstance(group_id, str)
    return group_id


def default_vpc(api: Api) -> str:
    [vpc] = api.call("DescribeVpcs", Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    vpc_id = vpc["VpcId"]
    assert isinstance(vpc_id, str)
    return vpc_id


def put_interface(api: Api, subnet_id: str, private_ip: str = "10.0.0.4", **fields: Any) -> NetworkInterface:
    subnet = api.get(Subnet, subnet_id)
    interface = NetworkInterface(
        id=ids.mint("eni"),
        account=api.account,
        region=api.region,
        created=api.now,
        vpc_id=subnet.vpc_id,
        subnet_id=subnet.id,
        zone=subnet.zone,
        mac="02:00:00:00:00:01",
        private_ip=private_ip,
        **fields,
    )
    api.put(interface)
    return interface


def put_elastic_ip(api: Api, interface: NetworkInterface) -> ElasticIp:
    address = ElasticIp(
        id=ids.mint("eipalloc"),
        account=api.account,
        region=api.region,
        created=api.now,
        public_ip="203.0.113.77",
        interface_id=interface.id,
        private_ip=interface.private_ip,
        association_id=ids.mint("eipassoc"),
    )
    api.put(address)
    return address


def put_peering(requester: Api, vpc_id: str, accepter: Api, peer_vpc_id: str, state: str = "active") -> str:
    peering = PeeringConnection(
        id=ids.mint("pcx"),
        account=requester.account,
        region=requester.region,
        created=requester.now,
        requester=PeeringSide(account=requester.account, region=requester.region, vpc_id=vpc_id),
        accepter=PeeringSide(account=accepter.account, region=accepter.region, vpc_id=peer_vpc_id),
        state=state,
        expires=requester.now + timedelta(days=7),
    )
    requester.put(peering)
    return peering.id


def put_table(api: Api, vpc_id: str, *routes: Route) -> RouteTable:
    """A table that is not the main one, with the local route of the VPC's first range."""
    table = RouteTable(
        id=ids.mint("rtb"),
        account=api.account,
        region=api.region,
        created=api.now,
        vpc_id=vpc_id,
        routes=(Route(destination=api.get(Vpc, vpc_id).cidr, target="local"), *routes),
    )
    api.put(table)
    return table


def forget_wakes(api: Api) -> None:
    for wake in api.store.pending_wakes():
        api.store.wake_done(*wake)


def woken(api: Api) -> set[str]:
    """The VPCs that something was done to since the last `forget_wakes`."""
    found = {row for kind, row, _ in api.store.pending_wakes() if kind == Vpc.KIND}
    forget_wakes(api)
    return found


def filters(**values: str) -> list[dict[str, Any]]:
    """`filters(vpc_id="vpc-1")`"""
    return [{"Name": name.replace("_", "-"), "Values": [value]} for name, value in values.items()]

"""Ranges of a VPC besides its first: every table has a local route to each."""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import Any

import pytest

from orchestrator.api.ec2 import vpcs
from orchestrator.model import vpc_cidr
from orchestrator.model.vpc import NetworkAcl, Route, RouteTable, SecurityGroup, Vpc

from .conftest import Api
from .networks import (
    forget_wakes,
    make_group,
    make_subnet,
    make_vpc,
    put_peering,
    put_table,
    woken,
)

ADD, TAKE = "AssociateVpcCidrBlock", "DisassociateVpcCidrBlock"


def local(api: Api, table_id: str) -> list[str]:
    return [route.destination for route in api.get(RouteTable, table_id).routes if route.target == "local"]


def shown(api: Api, vpc_id: str) -> dict[str, Any]:
    [vpc] = api.call("DescribeVpcs", VpcIds=[vpc_id])["Vpcs"]
    assert isinstance(vpc, dict)
    return vpc


def test_a_range_is_added_and_taken_away(api: Api) -> None:
    vpc_id = make_vpc(api)
    [main] = api.store.all(RouteTable, vpc_id=vpc_id)
    gateway = Route(destination="0.0.0.0/0", target="igw-00000000000000001")
    other = put_table(api, vpc_id, gateway)
    forget_wakes(api)
    added = api.call(ADD, VpcId=vpc_id, CidrBlock="10.1.0.9/24")
    association = added["CidrBlockAssociation"]
    assert (added["VpcId"], association["CidrBlock"]) == (vpc_id, "10.1.0.0/24")
    assert association["CidrBlockState"] == {"State": "associating"}
    assert local(api, main.id) == local(api, other.id) == ["10.0.0.0/16", "10.1.0.0/24"]
    assert api.get(RouteTable, other.id).routes[-1] == gateway
    assert woken(api) == {vpc_id}
    assert shown(api, vpc_id)["CidrBlockAssociationSet"][1] == {
        "AssociationId": association["AssociationId"],
        "CidrBlock": "10.1.0.0/24",
        "CidrBlockState": {"State": "associated"},
    }
    for name, value in (
        ("cidr-block-association.cidr-block", "10.1.0.0/24"),
        ("cidr-block-association.association-id", association["AssociationId"]),
    ):
        [found] = api.call("DescribeVpcs", Filters=[{"Name": name, "Values": [value]}])["Vpcs"]
        assert found["VpcId"] == vpc_id
    gone = api.call(TAKE, AssociationId=association["AssociationId"])
    assert gone["CidrBlockAssociation"]["CidrBlockState"] == {"State": "disassociating"}
    assert local(api, main.id) == local(api, other.id) == ["10.0.0.0/16"]
    assert len(shown(api, vpc_id)["CidrBlockAssociationSet"]) == 1
    assert api.refused(TAKE, AssociationId=association["AssociationId"]).code == (
        "InvalidVpcCidrBlockAssociationID.NotFound"
    )


@pytest.mark.parametrize(
    ("first", "more", "allowed"),
    [
        ("10.0.0.0/16", "10.0.128.0/17", False),  # overlap
        ("10.0.0.0/24", "10.0.0.0/16", False),
        ("10.0.0.0/24", "10.0.1.0/24", False),  # of 10.0.0.0/16, where the VPC began in 10.0.0.0/15
        ("10.2.0.0/24", "10.0.1.0/24", True),
        ("10.0.0.0/16", "172.16.0.0/16", False),  # another private family
        ("10.0.0.0/16", "192.168.0.0/24", False),
        ("10.0.0.0/16", "198.19.0.0/24", False),
        ("10.0.0.0/16", "100.64.0.0/16", True),
        ("10.0.0.0/16", "192.0.2.0/24", True),
        ("172.16.0.0/16", "172.17.0.0/16", True),
        ("172.16.0.0/16", "172.31.0.0/24", False),
        ("192.168.0.0/24", "192.168.1.0/24", True),
        ("192.168.0.0/24", "10.0.0.0/24", False),
        ("198.19.0.0/24", "198.19.1.0/24", True),
        ("198.19.0.0/24", "10.0.0.0/24", False),
        ("100.64.0.0/24", "10.0.0.0/24", False),
        ("10.0.0.0/16", "169.254.0.0/24", False),
        ("10.0.0.0/16", "10.1.0.0/15", False),  # too large
        ("10.0.0.0/16", "10.1.0.0/29", False),  # too small
    ],
)
def test_which_ranges_go_together(api: Api, first: str, more: str, allowed: bool) -> None:
    vpc_id = make_vpc(api, first)
    if allowed:
        api.call(ADD, VpcId=vpc_id, CidrBlock=more)
        assert api.get(Vpc, vpc_id).cidrs == (first, more)
    else:
        assert api.refused(ADD, VpcId=vpc_id, CidrBlock=more).code == "InvalidVpc.Range"


def test_at_most_five(api: Api) -> None:
    vpc_id = make_vpc(api)
    for number in range(1, 5):
        api.call(ADD, VpcId=vpc_id, CidrBlock=f"10.{number}.0.0/24")
    assert api.refused(ADD, VpcId=vpc_id, CidrBlock="10.9.0.0/24").code == "CidrLimitExceeded"


def test_not_what_a_table_has_a_route_to(api: Api) -> None:
    vpc_id = make_vpc(api)
    put_table(api, vpc_id, Route(destination="10.2.0.0/24", target="pcx-0"))
    for cidr in ("10.2.0.0/24", "10.2.0.0/16"):
        assert api.refused(ADD, VpcId=vpc_id, CidrBlock=cidr).code == "InvalidVpc.Range"
    api.call(ADD, VpcId=vpc_id, CidrBlock="10.2.0.0/25")


def test_not_what_a_peer_has(api: Api) -> None:
    vpc_id, peer_id = make_vpc(api), make_vpc(api.by(), "10.5.0.0/16")
    peering_id = put_peering(api, vpc_id, api.by(), peer_id)
    refused = api.refused(ADD, VpcId=vpc_id, CidrBlock="10.5.1.0/24")
    assert refused.code == "InvalidVpc.Range" and peering_id in refused.message
    forget_wakes(api)
    api.call(ADD, VpcId=vpc_id, CidrBlock="10.6.0.0/24")
    assert woken(api) == {vpc_id, peer_id}
    asking = make_vpc(api)
    put_peering(api, asking, api.by(), peer_id, state="pending-acceptance")
    assert api.refused(ADD, VpcId=asking, CidrBlock="10.7.0.0/24").code == "InvalidVpc.Range"
    api.by().call(ADD, VpcId=peer_id, CidrBlock="10.8.0.0/24")
    assert api.by().refused(ADD, VpcId=peer_id, CidrBlock="10.0.0.0/24").code == "InvalidVpc.Range"


def test_ipv6_comes_and_goes(api: Api) -> None:
    vpc_id = make_vpc(api)
    open_id, closed_id = make_group(api, vpc_id, "open"), make_group(api, vpc_id, "closed")
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    api.call("RevokeSecurityGroupEgress", GroupId=closed_id, IpPermissions=[everything])
    table = put_table(api, vpc_id)
    own_acl = NetworkAcl(id="acl-00000000000000001", created=api.now, account=api.account, vpc_id=vpc_id)
    api.put(own_acl)
    answer = api.call(ADD, VpcId=vpc_id, AmazonProvidedIpv6CidrBlock=True)["Ipv6CidrBlockAssociation"]
    assert answer["Ipv6CidrBlockState"] == {"State": "associating"}
    block = answer["Ipv6CidrBlock"]
    assert block.endswith("::/56") and local(api, table.id) == ["10.0.0.0/16", block]
    assert shown(api, vpc_id)["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlockState"] == {"State": "associated"}
    [default] = [acl for acl in api.store.all(NetworkAcl, vpc_id=vpc_id) if acl.is_default]
    assert sorted({entry.number for entry in default.entries}) == [100, 101, 32767, 32768]
    assert {entry.number for entry in api.get(NetworkAcl, own_acl.id).entries} == {32768}
    assert [rule.cidr_ipv6 for rule in api.get(SecurityGroup, open_id).rules] == ["", "::/0"]
    assert api.get(SecurityGroup, closed_id).rules == ()
    assert api.refused(ADD, VpcId=vpc_id, AmazonProvidedIpv6CidrBlock=True).code == "CidrLimitExceeded"
    subnet_id = make_subnet(api, vpc_id, Ipv6CidrBlock=block.replace("/56", "/64"))
    in_use = api.refused(TAKE, AssociationId=answer["AssociationId"])
    assert in_use.code == "DependencyViolation" and subnet_id in in_use.message
    api.call("DeleteSubnet", SubnetId=subnet_id)
    gone = api.call(TAKE, AssociationId=answer["AssociationId"])["Ipv6CidrBlockAssociation"]
    assert gone["Ipv6CidrBlockState"] == {"State": "disassociating"}
    assert local(api, table.id) == ["10.0.0.0/16"] and api.get(Vpc, vpc_id).ipv6_cidrs == ()
    api.call(ADD, VpcId=vpc_id, AmazonProvidedIpv6CidrBlock=True)
    [default] = [acl for acl in api.store.all(NetworkAcl, vpc_id=vpc_id) if acl.is_default]
    assert len(default.entries) == 8, "each entry is there once"


def test_a_local_route_with_another_target_stays(api: Api) -> None:
    vpc_id = make_vpc(api)
    table = put_table(api, vpc_id)
    api.change(table, routes=(Route(destination="10.0.0.0/16", target="eni-0"),))
    api.call(ADD, VpcId=vpc_id, CidrBlock="10.1.0.0/24")
    assert [(r.destination, r.target) for r in api.get(RouteTable, table.id).routes] == [
        ("10.1.0.0/24", "local"),
        ("10.0.0.0/16", "eni-0"),
    ]


def test_a_range_with_subnets_stays(api: Api) -> None:
    vpc_id = make_vpc(api)
    added = api.call(ADD, VpcId=vpc_id, CidrBlock="10.1.0.0/16")["CidrBlockAssociation"]
    make_subnet(api, vpc_id, "10.0.0.0/24")
    subnet_id = make_subnet(api, vpc_id, "10.1.5.0/24")
    refused = api.refused(TAKE, AssociationId=added["AssociationId"])
    assert refused.code == "DependencyViolation" and subnet_id in refused.message


def test_what_is_refused(api: Api) -> None:
    vpc_id = make_vpc(api)
    assert api.refused(ADD, VpcId=vpc_id).code == "MissingParameter"
    both = {"CidrBlock": "10.1.0.0/24", "AmazonProvidedIpv6CidrBlock": True}
    assert api.refused(ADD, VpcId=vpc_id, **both).code == "InvalidParameterCombination"
    assert api.refused(ADD, VpcId=vpc_id, Ipv6Pool="x").code == "UnsupportedOperation"
    assert api.by().refused(ADD, VpcId=vpc_id, CidrBlock="10.1.0.0/24").code == "InvalidVpcID.NotFound"
    primary = vpcs.primary_association_id(api.get(Vpc, vpc_id))
    assert api.refused(TAKE, AssociationId=primary).code == "OperationNotPermitted"
    assert api.by().refused(TAKE, AssociationId=primary).code == "InvalidVpcCidrBlockAssociationID.NotFound"
    assert api.refused(TAKE, AssociationId="x").code == "InvalidVpcCidrBlockAssociationID.Malformed"


def test_the_lowest_free_range_is_given() -> None:
    whole = IPv6Network("2001:db8::/40")
    assert vpc_cidr.free_ipv6_cidr(whole, []) == "2001:db8:0:100::/56"
    assert vpc_cidr.free_ipv6_cidr(whole, ["2001:db8:0:100::/56", "2001:db8:0:300::/56"]) == "2001:db8:0:200::/56"

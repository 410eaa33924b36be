"""Network ACLs: made and deleted, their entries read and changed, moved from subnet to subnet, found by filters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model import ids
from orchestrator.model.network_acl import MAX_ENTRIES
from orchestrator.model.vpc import AclEntry, NetworkAcl

from .conftest import ACCOUNT, Api
from .networks import filters, forget_wakes, make_subnet, make_vpc, woken

ANYWHERE = "0.0.0.0/0"


def make(api: Api, vpc_id: str, **params: Any) -> str:
    acl_id = api.call("CreateNetworkAcl", VpcId=vpc_id, **params)["NetworkAcl"]["NetworkAclId"]
    assert isinstance(acl_id, str)
    return acl_id


def shown(api: Api, acl_id: str) -> dict[str, Any]:
    [acl] = api.call("DescribeNetworkAcls", NetworkAclIds=[acl_id])["NetworkAcls"]
    assert isinstance(acl, dict)
    return acl


def default_acl(api: Api, vpc_id: str) -> dict[str, Any]:
    [acl] = api.call("DescribeNetworkAcls", Filters=filters(vpc_id=vpc_id, default="true"))["NetworkAcls"]
    assert isinstance(acl, dict)
    return acl


def entry(acl_id: str, number: int = 100, **params: Any) -> dict[str, Any]:
    """A request for an entry that lets all in."""
    given = {"Protocol": "-1", "RuleAction": "allow", "Egress": False, "CidrBlock": ANYWHERE, **params}
    chosen = {name: value for name, value in given.items() if value is not None}
    return {"NetworkAclId": acl_id, "RuleNumber": number, **chosen}


def numbers(api: Api, acl_id: str) -> list[tuple[bool, int]]:
    return [(each["Egress"], each["RuleNumber"]) for each in shown(api, acl_id)["Entries"]]


def association(acl: dict[str, Any], subnet_id: str) -> str:
    [found] = [each for each in acl["Associations"] if each["SubnetId"] == subnet_id]
    association_id = found["NetworkAclAssociationId"]
    assert isinstance(association_id, str)
    return association_id


# --- the ACL ----------------------------------------------------------------------------------------------------------


def test_a_new_one_refuses_all(api: Api) -> None:
    vpc_id = make_vpc(api)
    tags = [{"Key": "Name", "Value": "x"}]
    acl_id = make(api, vpc_id, TagSpecifications=[{"ResourceType": "network-acl", "Tags": tags}])
    last = {"RuleNumber": 32767, "Protocol": "-1", "RuleAction": "deny", "CidrBlock": ANYWHERE}
    assert shown(api, acl_id) == {
        "NetworkAclId": acl_id,
        "OwnerId": ACCOUNT,
        "VpcId": vpc_id,
        "IsDefault": False,
        "Associations": [],
        "Entries": [{**last, "Egress": False}, {**last, "Egress": True}],
        "Tags": tags,
    }


def test_with_ipv6_there_are_entries_of_it(api: Api) -> None:
    vpc_id = make_vpc(api, AmazonProvidedIpv6CidrBlock=True)
    acl_id = make(api, vpc_id)
    assert numbers(api, acl_id) == [(False, 32767), (False, 32768), (True, 32767), (True, 32768)]
    last = shown(api, acl_id)["Entries"][1]
    assert last["Ipv6CidrBlock"] == "::/0" and "CidrBlock" not in last
    assert [each["RuleNumber"] for each in default_acl(api, vpc_id)["Entries"]] == [100, 101, 32767, 32768] * 2


def test_ipv6_that_comes_later_adds_them(api: Api) -> None:
    vpc_id = make_vpc(api)
    acl_id = make(api, vpc_id)
    api.call("AssociateVpcCidrBlock", VpcId=vpc_id, AmazonProvidedIpv6CidrBlock=True)
    assert numbers(api, acl_id) == [(False, 32767), (False, 32768), (True, 32767), (True, 32768)]


def test_deleted_when_nothing_needs_it(api: Api) -> None:
    vpc_id = make_vpc(api)
    subnet_id = make_subnet(api, vpc_id)
    default = default_acl(api, vpc_id)
    refused = api.refused("DeleteNetworkAcl", NetworkAclId=default["NetworkAclId"])
    assert (refused.code, refused.message) == (
        "InvalidParameterValue",
        f"cannot delete default network ACL {default['NetworkAclId']}",
    )
    acl_id = make(api, vpc_id)
    moved = association(default, subnet_id)
    back = api.call("ReplaceNetworkAclAssociation", AssociationId=moved, NetworkAclId=acl_id)["NewAssociationId"]
    used = api.refused("DeleteNetworkAcl", NetworkAclId=acl_id)
    assert used.code == "DependencyViolation" and subnet_id in used.message
    api.call("ReplaceNetworkAclAssociation", AssociationId=back, NetworkAclId=default["NetworkAclId"])
    assert api.call("DeleteNetworkAcl", NetworkAclId=acl_id) == {}
    assert api.refused("DeleteNetworkAcl", NetworkAclId=acl_id).code == "InvalidNetworkAclID.NotFound"


def test_what_is_refused_of_an_acl(api: Api) -> None:
    assert api.refused("CreateNetworkAcl", VpcId=ids.mint("vpc")).code == "InvalidVpcID.NotFound"
    assert api.refused("CreateNetworkAcl", VpcId="vpc-x").code == "InvalidVpcID.Malformed"
    acl_id = make(api, make_vpc(api))
    others = api.by()
    assert others.refused("DeleteNetworkAcl", NetworkAclId=acl_id).code == "InvalidNetworkAclID.NotFound"
    assert others.refused("CreateNetworkAclEntry", **entry(acl_id)).code == "InvalidNetworkAclID.NotFound"


def test_a_vpc_has_so_many(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.api.ec2.network_acls.MAX_ACLS", 2)
    vpc_id = make_vpc(api)
    make(api, vpc_id)
    assert api.refused("CreateNetworkAcl", VpcId=vpc_id).code == "NetworkAclLimitExceeded"


# --- entries ----------------------------------------------------------------------------------------------------------


def test_entries_are_made_replaced_deleted(api: Api) -> None:
    vpc_id = make_vpc(api)
    acl_id = make(api, vpc_id)
    forget_wakes(api)
    assert api.call("CreateNetworkAclEntry", **entry(acl_id, 200)) == {}
    assert woken(api) == {vpc_id}
    ports = {"Protocol": "tcp", "PortRange": {"From": 80, "To": 443}}
    api.call("CreateNetworkAclEntry", **entry(acl_id, 90, RuleAction="deny", CidrBlock="10.1.2.3/8", **ports))
    api.call("CreateNetworkAclEntry", **entry(acl_id, 200, Egress=True))
    assert numbers(api, acl_id) == [(False, 90), (False, 200), (False, 32767), (True, 200), (True, 32767)]
    assert shown(api, acl_id)["Entries"][0] == {
        "RuleNumber": 90,
        "Egress": False,
        "Protocol": "6",
        "RuleAction": "deny",
        "CidrBlock": "10.0.0.0/8",
        "PortRange": {"From": 80, "To": 443},
    }
    taken = api.refused("CreateNetworkAclEntry", **entry(acl_id, 90))
    assert taken.code == "NetworkAclEntryAlreadyExists" and "90" in taken.message
    forget_wakes(api)
    ipv6 = {"CidrBlock": None, "Ipv6CidrBlock": "2001:DB8::1/32"}
    assert (
        api.call("ReplaceNetworkAclEntry", **entry(acl_id, 90, Protocol="17", **ipv6, PortRange=ports["PortRange"]))
        == {}
    )
    assert woken(api) == {vpc_id}
    assert shown(api, acl_id)["Entries"][0] == {
        "RuleNumber": 90,
        "Egress": False,
        "Protocol": "17",
        "RuleAction": "allow",
        "Ipv6CidrBlock": "2001:db8::/32",
        "PortRange": {"From": 80, "To": 443},
    }
    assert api.call("DeleteNetworkAclEntry", NetworkAclId=acl_id, RuleNumber=200, Egress=True) == {}
    assert woken(api) == {vpc_id}
    assert numbers(api, acl_id) == [(False, 90), (False, 200), (False, 32767), (True, 32767)]


def test_entries_that_are_not_there(api: Api) -> None:
    acl_id = make(api, make_vpc(api))
    gone = api.refused("DeleteNetworkAclEntry", NetworkAclId=acl_id, RuleNumber=100, Egress=True)
    assert gone.code == "InvalidNetworkAclEntry.NotFound" and "outbound" in gone.message
    assert api.refused("ReplaceNetworkAclEntry", **entry(acl_id)).code == "InvalidNetworkAclEntry.NotFound"
    for number in (0, -1, 32767, 32768):
        own = api.refused("DeleteNetworkAclEntry", NetworkAclId=acl_id, RuleNumber=number, Egress=False)
        assert own.code == "InvalidParameterValue" and "32766" in own.message
    api.call("CreateNetworkAclEntry", **entry(acl_id, 1))
    api.call("CreateNetworkAclEntry", **entry(acl_id, 32766))


def test_the_entries_of_the_default_acl_can_be_changed(api: Api) -> None:
    acl_id = default_acl(api, make_vpc(api))["NetworkAclId"]
    api.call("DeleteNetworkAclEntry", NetworkAclId=acl_id, RuleNumber=100, Egress=True)
    api.call("ReplaceNetworkAclEntry", **entry(acl_id, RuleAction="deny"))
    assert [each["RuleAction"] for each in shown(api, acl_id)["Entries"]] == ["deny", "deny", "deny"]


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("-1", "-1"),
        ("all", "-1"),
        ("TCP", "6"),
        ("6", "6"),
        ("udp", "17"),
        ("icmp", "1"),
        ("icmpv6", "58"),
        ("047", "47"),
    ],
)
def test_protocols(api: Api, given: str, number: str) -> None:
    """Ports and types are kept where they mean something, and nowhere else."""
    acl_id = make(api, make_vpc(api))
    extent = {"PortRange": {"From": 1, "To": 2}, "IcmpTypeCode": {"Type": 8, "Code": -1}}
    params: dict[str, Any] = {"Protocol": given, **extent}
    if given == "icmpv6":
        params |= {"CidrBlock": None, "Ipv6CidrBlock": "::/0"}
    api.call("CreateNetworkAclEntry", **entry(acl_id, **params))
    made = shown(api, acl_id)["Entries"][0]
    assert made["Protocol"] == number
    assert made.get("PortRange") == (extent["PortRange"] if number in ("6", "17") else None)
    assert made.get("IcmpTypeCode") == (extent["IcmpTypeCode"] if number in ("1", "58") else None)


def test_icmpv6_with_an_ipv4_range_is_all_of_it(api: Api) -> None:
    acl_id = make(api, make_vpc(api))
    api.call("CreateNetworkAclEntry", **entry(acl_id, Protocol="58", IcmpTypeCode={"Type": 128, "Code": 0}))
    assert shown(api, acl_id)["Entries"][0]["IcmpTypeCode"] == {"Type": -1, "Code": -1}


@pytest.mark.parametrize(
    ("params", "code", "says"),
    [
        ({"RuleNumber": 32767}, "InvalidParameterValue", "1 to 32766"),
        ({"RuleNumber": 0}, "InvalidParameterValue", "1 to 32766"),
        ({"Protocol": "gre"}, "InvalidParameterValue", "0 to 255"),
        ({"Protocol": "256"}, "InvalidParameterValue", "0 to 255"),
        ({"Protocol": "-2"}, "InvalidParameterValue", "0 to 255"),
        ({"RuleAction": "drop"}, "InvalidParameterValue", "allow, deny"),
        ({"CidrBlock": None}, "MissingParameter", "Ipv6CidrBlock"),
        ({"Ipv6CidrBlock": "::/0"}, "InvalidParameterCombination", "not both"),
        ({"CidrBlock": "10.0.0.0"}, "InvalidParameterValue", "valid CIDR"),
        ({"CidrBlock": None, "Ipv6CidrBlock": "10.0.0.0/8"}, "InvalidParameterValue", "valid CIDR"),
        ({"Protocol": "tcp"}, "MissingParameter", "PortRange.From"),
        ({"Protocol": "17", "PortRange": {"From": 1}}, "MissingParameter", "PortRange.To"),
        ({"Protocol": "6", "PortRange": {"From": 2, "To": 1}}, "InvalidParameterValue", "smaller one first"),
        ({"Protocol": "6", "PortRange": {"From": 0, "To": 65536}}, "InvalidParameterValue", "65535"),
        ({"Protocol": "6", "PortRange": {"From": -1, "To": 5}}, "InvalidParameterValue", "65535"),
        ({"Protocol": "icmp"}, "MissingParameter", "IcmpTypeCode.Type"),
        ({"Protocol": "1", "IcmpTypeCode": {"Type": 8}}, "MissingParameter", "IcmpTypeCode.Code"),
        ({"Protocol": "1", "IcmpTypeCode": {"Type": 256, "Code": -1}}, "InvalidParameterValue", "255"),
        ({"Protocol": "1", "IcmpTypeCode": {"Type": -1, "Code": 3}}, "InvalidParameterValue", "-1"),
        ({"Protocol": "58", "CidrBlock": None, "Ipv6CidrBlock": "::/0"}, "MissingParameter", "IcmpTypeCode"),
    ],
)
def test_what_no_entry_can_be(api: Api, params: dict[str, Any], code: str, says: str) -> None:
    acl_id = make(api, make_vpc(api))
    api.call("CreateNetworkAclEntry", **entry(acl_id, 7))
    for action in ("CreateNetworkAclEntry", "ReplaceNetworkAclEntry"):
        refused = api.refused(action, **entry(acl_id, **{"number": 7, **_renamed(params)}))
        assert refused.code == code and says in refused.message


def _renamed(params: dict[str, Any]) -> dict[str, Any]:
    return {"number" if name == "RuleNumber" else name: value for name, value in params.items()}


def test_a_direction_has_so_many_entries(api: Api) -> None:
    acl_id = make(api, make_vpc(api))
    row = api.get(NetworkAcl, acl_id)
    many = [
        AclEntry(number=n + 1, egress=True, protocol="-1", action="allow", cidr=ANYWHERE) for n in range(MAX_ENTRIES)
    ]
    api.put(replace(row, entries=(*row.entries, *many[1:])))
    api.call("CreateNetworkAclEntry", **entry(acl_id, 500, Egress=True))
    full = api.refused("CreateNetworkAclEntry", **entry(acl_id, 501, Egress=True))
    assert full.code == "NetworkAclEntryLimitExceeded" and str(MAX_ENTRIES) in full.message
    api.call("ReplaceNetworkAclEntry", **entry(acl_id, 500, Egress=True, RuleAction="deny"))
    api.call("CreateNetworkAclEntry", **entry(acl_id, 501))


# --- subnets ----------------------------------------------------------------------------------------------------------


def test_a_subnet_gets_another_acl(api: Api) -> None:
    vpc_id = make_vpc(api)
    subnet_id, neighbour = make_subnet(api, vpc_id), make_subnet(api, vpc_id, "10.0.1.0/24")
    default, acl_id = default_acl(api, vpc_id), make(api, vpc_id)
    old = association(default, subnet_id)
    forget_wakes(api)
    new = api.call("ReplaceNetworkAclAssociation", AssociationId=old, NetworkAclId=acl_id)["NewAssociationId"]
    assert new != old and new.startswith("aclassoc-") and woken(api) == {vpc_id}
    assert shown(api, acl_id)["Associations"] == [
        {"NetworkAclAssociationId": new, "NetworkAclId": acl_id, "SubnetId": subnet_id}
    ]
    assert [each["SubnetId"] for each in default_acl(api, vpc_id)["Associations"]] == [neighbour]
    again = api.call("ReplaceNetworkAclAssociation", AssociationId=new, NetworkAclId=acl_id)["NewAssociationId"]
    assert again != new and [each["SubnetId"] for each in shown(api, acl_id)["Associations"]] == [subnet_id]
    for gone in (old, new):
        refused = api.refused("ReplaceNetworkAclAssociation", AssociationId=gone, NetworkAclId=acl_id)
        assert refused.code == "InvalidAssociationID.NotFound"


def test_only_an_acl_of_its_vpc_guards_a_subnet(api: Api) -> None:
    vpc_id = make_vpc(api)
    subnet_id, elsewhere = make_subnet(api, vpc_id), make(api, make_vpc(api))
    here = association(default_acl(api, vpc_id), subnet_id)
    refused = api.refused("ReplaceNetworkAclAssociation", AssociationId=here, NetworkAclId=elsewhere)
    assert refused.code == "InvalidParameterValue" and "different networks" in refused.message
    absent = api.refused("ReplaceNetworkAclAssociation", AssociationId=here, NetworkAclId=ids.mint("acl"))
    assert absent.code == "InvalidNetworkAclID.NotFound"
    other = api.by()
    foreign = make(other, make_vpc(other))
    refused = other.refused("ReplaceNetworkAclAssociation", AssociationId=here, NetworkAclId=foreign)
    assert refused.code == "InvalidAssociationID.NotFound"


# --- lists ------------------------------------------------------------------------------------------------------------


def test_found_by_filters(api: Api) -> None:
    vpc_id = make_vpc(api)
    subnet_id, acl_id = make_subnet(api, vpc_id), make(api, vpc_id)
    moved = association(default_acl(api, vpc_id), subnet_id)
    made = api.call("ReplaceNetworkAclAssociation", AssociationId=moved, NetworkAclId=acl_id)["NewAssociationId"]
    ports = {"From": 80, "To": 443}
    api.call("CreateNetworkAclEntry", **entry(acl_id, 7, Protocol="tcp", PortRange=ports, CidrBlock="10.9.0.0/16"))
    kind = {"Type": 8, "Code": 0}
    api.call("CreateNetworkAclEntry", **entry(acl_id, 8, Protocol="icmp", IcmpTypeCode=kind, Egress=True))
    ipv6 = {"CidrBlock": None, "Ipv6CidrBlock": "2001:db8::/32"}
    api.call("CreateNetworkAclEntry", **entry(acl_id, 9, RuleAction="deny", **ipv6))
    found = {
        "association.association-id": made,
        "association.network-acl-id": acl_id,
        "association.subnet-id": subnet_id,
        "default": "false",
        "entry.cidr": "10.9.0.0/16",
        "entry.egress": "true",
        "entry.icmp.code": "0",
        "entry.icmp.type": "8",
        "entry.ipv6-cidr": "2001:db8::/32",
        "entry.port-range.from": "80",
        "entry.port-range.to": "443",
        "entry.protocol": "tcp",
        "entry.rule-action": "deny",
        "entry.rule-number": "9",
        "network-acl-id": acl_id,
        "owner-id": ACCOUNT,
        "vpc-id": vpc_id,
    }
    for name, value in found.items():
        for wanted, there in ((value, True), ("nothing", False)):
            answer = api.call("DescribeNetworkAcls", Filters=[{"Name": name, "Values": [wanted]}])["NetworkAcls"]
            assert (acl_id in [each["NetworkAclId"] for each in answer]) is there, name
    assert api.call("DescribeNetworkAcls", Filters=filters(**{"entry.protocol": "1"}))["NetworkAcls"] != []
    assert api.call("DescribeNetworkAcls", Filters=filters(**{"entry.cidr": ""}))["NetworkAcls"] == []

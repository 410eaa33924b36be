"""Groups of peered VPCs in rules; references, stale rules, the groups of a VPC."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.vpc import NetworkInterface, PeeringConnection, SecurityGroup

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api
from .networks import filters, make_group, make_subnet, make_vpc, put_interface, put_peering

INGRESS = "AuthorizeSecurityGroupIngress"


def pair(group_id: str, **more: str) -> dict[str, Any]:
    return {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group_id, **more}]}


class Peered:
    """A VPC of each account with a group, and a peering between the VPCs."""

    def __init__(self, api: Api, other: Api) -> None:
        self.api, self.other = api, other
        self.vpc_id, self.peer_id = make_vpc(api), make_vpc(other, "10.1.0.0/16")
        self.group_id, self.peer_group_id = make_group(api, self.vpc_id), make_group(other, self.peer_id)
        self.peering_id = put_peering(api, self.vpc_id, other, self.peer_id)

    def end(self) -> None:
        self.api.change(self.api.get(PeeringConnection, self.peering_id), state="deleted")


@pytest.fixture
def peered(api: Api) -> Peered:
    return Peered(api, api.by())


def test_a_rule_names_a_group_of_another_account(api: Api, peered: Peered) -> None:
    permission = pair(peered.peer_group_id, UserId=OTHER_ACCOUNT, Description="them")
    [rule] = api.call(INGRESS, GroupId=peered.group_id, IpPermissions=[permission])["SecurityGroupRules"]
    known = {
        "GroupId": peered.peer_group_id,
        "UserId": OTHER_ACCOUNT,
        "VpcId": peered.peer_id,
        "VpcPeeringConnectionId": peered.peering_id,
        "PeeringStatus": "active",
    }
    assert rule["ReferencedGroupInfo"] == known
    [group] = api.call("DescribeSecurityGroups", GroupIds=[peered.group_id])["SecurityGroups"]
    assert group["IpPermissions"][0]["UserIdGroupPairs"] == [{**known, "Description": "them"}]
    [stored] = [each for each in api.get(SecurityGroup, peered.group_id).rules if not each.egress]
    assert (stored.group_account, stored.peering_id) == (OTHER_ACCOUNT, peered.peering_id)
    by_owner = [{"Name": "ip-permission.user-id", "Values": [OTHER_ACCOUNT]}]
    assert len(api.call("DescribeSecurityGroups", Filters=by_owner)["SecurityGroups"]) == 1
    api.call("RevokeSecurityGroupIngress", GroupId=peered.group_id, IpPermissions=[permission])
    assert all(each.egress for each in api.get(SecurityGroup, peered.group_id).rules)


def test_a_rule_names_a_group_of_another_vpc_of_the_account(api: Api) -> None:
    own = Peered(api, api)
    with_peering = pair(own.peer_group_id, VpcPeeringConnectionId=own.peering_id, VpcId=own.peer_id)
    api.call(INGRESS, GroupId=own.group_id, IpPermissions=[with_peering])
    [stored] = [each for each in api.get(SecurityGroup, own.group_id).rules if not each.egress]
    assert (stored.group_account, stored.peering_id) == ("", own.peering_id)
    update = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2, "ReferencedGroupId": own.peer_group_id}
    rules = [{"SecurityGroupRuleId": stored.id, "SecurityGroupRule": update}]
    api.call("ModifySecurityGroupRules", GroupId=own.group_id, SecurityGroupRules=rules)
    [changed] = [each for each in api.get(SecurityGroup, own.group_id).rules if not each.egress]
    assert (changed.protocol, changed.peering_id) == ("tcp", own.peering_id)


def test_what_is_refused(api: Api, peered: Peered) -> None:
    def code(**members: str) -> str:
        given = {"group_id": peered.peer_group_id, "UserId": OTHER_ACCOUNT, **members}
        return api.refused(INGRESS, GroupId=peered.group_id, IpPermissions=[pair(**given)]).code

    assert code(UserId=ACCOUNT) == "InvalidGroup.NotFound"
    assert code(UserId="777788889999") == "InvalidGroup.NotFound"
    assert code(VpcPeeringConnectionId="pcx-00000000000000000") == "InvalidVpcPeeringConnectionID.NotFound"
    assert code(VpcPeeringConnectionId="x") == "InvalidVpcPeeringConnectionID.Malformed"
    assert code(VpcId=peered.vpc_id) == "InvalidParameterValue"
    own = {"group_id": peered.group_id, "UserId": ACCOUNT}
    assert code(**own, VpcPeeringConnectionId=peered.peering_id) == "InvalidParameterValue"
    far = make_group(api.within("us-west-2"), make_vpc(api.within("us-west-2")))
    assert code(group_id=far, UserId=ACCOUNT) == "InvalidGroup.NotFound"
    peered.end()
    assert code() == "InvalidGroup.NotFound"


def test_references_and_guards(api: Api, peered: Peered) -> None:
    api.call(INGRESS, GroupId=peered.group_id, IpPermissions=[pair(peered.peer_group_id, UserId=OTHER_ACCOUNT)])
    api.call(INGRESS, GroupId=peered.group_id, IpPermissions=[pair(peered.group_id)])
    asked = {"GroupId": [peered.peer_group_id]}
    expected = {
        "GroupId": peered.peer_group_id,
        "ReferencingVpcId": peered.vpc_id,
        "VpcPeeringConnectionId": peered.peering_id,
    }
    answer = peered.other.call("DescribeSecurityGroupReferences", **asked)
    assert answer["SecurityGroupReferenceSet"] == [expected]
    assert api.refused("DescribeSecurityGroupReferences", **asked).code == "InvalidGroup.NotFound"
    same = api.call("DescribeSecurityGroupReferences", GroupId=[peered.group_id])
    assert same["SecurityGroupReferenceSet"] == []
    used = peered.other.refused("DeleteSecurityGroup", GroupId=peered.peer_group_id)
    assert used.code == "DependencyViolation"
    peered.end()
    assert peered.other.call("DescribeSecurityGroupReferences", **asked)["SecurityGroupReferenceSet"] == []
    peered.other.call("DeleteSecurityGroup", GroupId=peered.peer_group_id)


def test_stale_rules(api: Api, peered: Peered) -> None:
    def stale() -> list[dict[str, Any]]:
        found = api.call("DescribeStaleSecurityGroups", VpcId=peered.vpc_id)["StaleSecurityGroupSet"]
        assert isinstance(found, list)
        return found

    permission = {**pair(peered.peer_group_id, UserId=OTHER_ACCOUNT), "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
    api.call(INGRESS, GroupId=peered.group_id, IpPermissions=[permission])
    assert stale() == []
    peered.end()
    [group] = stale()
    assert (group["GroupId"], group["VpcId"], group["StaleIpPermissionsEgress"]) == (
        peered.group_id,
        peered.vpc_id,
        [],
    )
    [shown] = group["StaleIpPermissions"]
    assert shown["IpRanges"] == [] and shown["IpProtocol"] == "-1"
    [named] = shown["UserIdGroupPairs"]
    assert (named["PeeringStatus"], named["UserId"]) == ("deleted", OTHER_ACCOUNT)
    peered.other.call("DeleteSecurityGroup", GroupId=peered.peer_group_id)
    assert "UserId" not in stale()[0]["StaleIpPermissions"][0]["UserIdGroupPairs"][0]
    [described] = api.call("DescribeSecurityGroups", GroupIds=[peered.group_id])["SecurityGroups"]
    assert described["IpPermissions"][0]["UserIdGroupPairs"][0]["PeeringStatus"] == "deleted"
    assert api.refused("DescribeStaleSecurityGroups", VpcId="vpc-1").code == "InvalidVpcID.Malformed"


def test_groups_for_a_vpc(api: Api) -> None:
    vpc_id = make_vpc(api)
    group_id = make_group(api, vpc_id)
    listed = api.call("GetSecurityGroupsForVpc", VpcId=vpc_id)["SecurityGroupForVpcs"]
    assert {group["GroupName"] for group in listed} == {"default", "web"}
    [found] = api.call("GetSecurityGroupsForVpc", VpcId=vpc_id, Filters=filters(group_id=group_id))[
        "SecurityGroupForVpcs"
    ]
    assert found == {
        "GroupId": group_id,
        "GroupName": "web",
        "Description": "d",
        "OwnerId": ACCOUNT,
        "PrimaryVpcId": vpc_id,
        "Tags": [],
    }
    assert api.by().refused("GetSecurityGroupsForVpc", VpcId=vpc_id).code == "InvalidVpcID.NotFound"


def test_groups_are_associated_with_no_other_vpc(api: Api) -> None:
    asked = "DescribeSecurityGroupVpcAssociations"
    assert api.call(asked, Filters=filters(group_id="x")) == {"SecurityGroupVpcAssociations": []}
    assert api.refused(asked, Filters=filters(colour="x")).code == "InvalidParameterValue"


def test_a_group_that_an_interface_uses_stays(api: Api) -> None:
    vpc_id = make_vpc(api)
    group_id = make_group(api, vpc_id)
    interface = put_interface(api, make_subnet(api, vpc_id), groups=(group_id,))
    assert api.refused("DeleteSecurityGroup", GroupId=group_id).code == "DependencyViolation"
    api.change(api.get(NetworkInterface, interface.id), groups=())
    api.call("DeleteSecurityGroup", GroupId=group_id)

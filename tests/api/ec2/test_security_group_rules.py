"""Security group rules: allowed, revoked, described anew, listed. Every change of what is allowed wakes the VPC."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.errors import EC2Error
from orchestrator.model.vpc import SecurityGroup, Vpc

from .conftest import ACCOUNT, Api
from .test_security_groups import default_vpc, make, other_vpc, woken

INGRESS, EGRESS = "AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress"
SSH: dict[str, Any] = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.0/24"}]}


def permission(protocol: str = "tcp", first: int | None = 22, last: int | None = 22, **peers: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"IpProtocol": protocol, **(peers or {"IpRanges": [{"CidrIp": "192.0.2.0/24"}]})}
    if first is not None:
        given["FromPort"] = first
    if last is not None:
        given["ToPort"] = last
    return given


def allow(api: Api, group_id: str, *permissions: dict[str, Any], action: str = INGRESS) -> list[dict[str, Any]]:
    answer = api.call(action, GroupId=group_id, IpPermissions=list(permissions))
    assert answer["Return"] is True
    rules = answer["SecurityGroupRules"]
    assert isinstance(rules, list)
    return rules


def refused(api: Api, group_id: str, *permissions: dict[str, Any], action: str = INGRESS) -> EC2Error:
    return api.refused(action, GroupId=group_id, IpPermissions=list(permissions))


def rules_of(api: Api, group_id: str, **params: Any) -> list[dict[str, Any]]:
    filters = [{"Name": "group-id", "Values": [group_id]}]
    rules = api.call("DescribeSecurityGroupRules", Filters=filters, **params)["SecurityGroupRules"]
    assert isinstance(rules, list)
    return rules


# --- authorise --------------------------------------------------------------------------------------------------------


def test_each_range_and_group_is_a_rule_of_its_own(api: Api) -> None:
    group_id = make(api)
    made = allow(
        api,
        group_id,
        {
            "IpProtocol": "tcp",
            "FromPort": 80,
            "ToPort": 81,
            "IpRanges": [{"CidrIp": "10.0.0.9/8", "Description": "inside"}, {"CidrIp": "192.0.2.1/32"}],
            "Ipv6Ranges": [{"CidrIpv6": "2001:DB8:0::1/32"}],
            "UserIdGroupPairs": [{"GroupId": group_id, "UserId": ACCOUNT, "Description": "itself"}],
        },
    )
    assert len({rule["SecurityGroupRuleId"] for rule in made}) == 4
    assert made[0] == {
        "SecurityGroupRuleId": made[0]["SecurityGroupRuleId"],
        "SecurityGroupRuleArn": f"arn:aws:ec2:us-east-1:{ACCOUNT}:security-group-rule/{made[0]['SecurityGroupRuleId']}",
        "GroupId": group_id,
        "GroupOwnerId": ACCOUNT,
        "IsEgress": False,
        "IpProtocol": "tcp",
        "FromPort": 80,
        "ToPort": 81,
        "CidrIpv4": "10.0.0.0/8",
        "Description": "inside",
        "Tags": [],
    }
    assert "Description" not in made[1] and made[1]["CidrIpv4"] == "192.0.2.1/32"
    assert made[2]["CidrIpv6"] == "2001:db8::/32"
    expected = {"GroupId": group_id, "UserId": ACCOUNT, "VpcId": default_vpc(api)}
    assert made[3]["ReferencedGroupInfo"] == expected and "CidrIpv4" not in made[3]
    listed = rules_of(api, group_id)
    assert [rule for rule in listed if not rule["IsEgress"]] == made
    assert woken(api) == [default_vpc(api)]


def test_tags_of_rules(api: Api) -> None:
    group_id = make(api)
    tags = [{"Key": "Name", "Value": "x"}]
    specification = [{"ResourceType": "security-group-rule", "Tags": tags}]
    answer = api.call(INGRESS, GroupId=group_id, IpPermissions=[SSH], TagSpecifications=specification)
    [rule] = answer["SecurityGroupRules"]
    assert rule["Tags"] == tags
    for filters in ([{"Name": "tag:Name", "Values": ["x"]}], [{"Name": "tag-key", "Values": ["Name"]}]):
        [found] = api.call("DescribeSecurityGroupRules", Filters=filters)["SecurityGroupRules"]
        assert found["SecurityGroupRuleId"] == rule["SecurityGroupRuleId"]
    wrong = [{"ResourceType": "security-group", "Tags": tags}]
    refused = api.refused(INGRESS, GroupId=group_id, IpPermissions=[permission(last=23)], TagSpecifications=wrong)
    assert refused.code == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("protocol", "first", "last", "shown"),
    [
        ("tcp", 0, 65535, ("tcp", 0, 65535)),
        ("6", 22, 22, ("tcp", 22, 22)),
        ("TCP", 22, 22, ("tcp", 22, 22)),
        ("17", 53, 53, ("udp", 53, 53)),
        ("icmp", -1, -1, ("icmp", -1, -1)),
        ("1", 8, 0, ("icmp", 8, 0)),
        ("icmp", 8, -1, ("icmp", 8, -1)),
        ("58", None, None, ("icmpv6", -1, -1)),
        ("-1", None, None, ("-1", -1, -1)),
        ("-1", 22, 22, ("-1", -1, -1)),
        ("50", None, None, ("50", -1, -1)),
    ],
)
def test_protocols_and_ports(
    api: Api, protocol: str, first: int | None, last: int | None, shown: tuple[str, int, int]
) -> None:
    [rule] = allow(api, make(api), permission(protocol, first, last))
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == shown


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (permission("sctp?"), "InvalidParameterValue"),
        (permission("256"), "InvalidParameterValue"),
        (permission("-2"), "InvalidParameterValue"),
        (permission(first=None), "InvalidParameterValue"),
        (permission(last=None), "InvalidParameterValue"),
        (permission(first=-1, last=-1), "InvalidParameterValue"),
        (permission(first=0, last=65536), "InvalidParameterValue"),
        (permission(first=23, last=22), "InvalidParameterValue"),
        (permission("icmp", None, None), "InvalidParameterValue"),
        (permission("icmp", 256, 0), "InvalidParameterValue"),
        (permission("icmp", -1, 0), "InvalidParameterValue"),
        (permission(IpRanges=[{"CidrIp": "10.0.0.0"}]), "InvalidParameterValue"),
        (permission(IpRanges=[{"CidrIp": "10.0.0.0/33"}]), "InvalidParameterValue"),
        (permission(IpRanges=[{"CidrIp": "10.0.0/8"}]), "InvalidParameterValue"),
        (permission(IpRanges=[{"CidrIp": "10.0.0.0/255.0.0.0"}]), "InvalidParameterValue"),
        (permission(IpRanges=[{"CidrIp": "::/0"}]), "InvalidParameterValue"),
        (permission(Ipv6Ranges=[{"CidrIpv6": "10.0.0.0/8"}]), "InvalidParameterValue"),
        (permission(Ipv6Ranges=[{"CidrIpv6": "fe80::%eth0/64"}]), "InvalidParameterValue"),
        (permission(IpRanges=[{"CidrIp": "10.0.0.0/8", "Description": "d" * 256}]), "InvalidParameterValue"),
        (permission(IpRanges=[{"CidrIp": "10.0.0.0/8", "Description": "what?"}]), "InvalidParameterValue"),
        (permission(IpRanges=[{"CidrIp": "10.0.0.0/8"}, {"CidrIp": "10.0.0.1/8"}]), "InvalidParameterValue"),
        (permission(IpRanges=[{"Description": "x"}]), "MissingParameter"),
        (permission(IpRanges=[]), "InvalidPermission.Malformed"),
        ({"FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}, "MissingParameter"),
        (permission(PrefixListIds=[{"PrefixListId": "pl-1"}]), "InvalidPrefixListID.Malformed"),
        (permission(PrefixListIds=[{"PrefixListId": "pl-00000000"}]), "InvalidPrefixListID.NotFound"),
        (permission(PrefixListIds=[{"Description": "x"}]), "MissingParameter"),
        (permission(UserIdGroupPairs=[{"GroupId": "sg-1"}]), "InvalidGroupId.Malformed"),
        (permission(UserIdGroupPairs=[{"GroupId": "sg-00000000000000000"}]), "InvalidGroup.NotFound"),
        (permission(UserIdGroupPairs=[{"GroupName": "gone"}]), "InvalidGroup.NotFound"),
        (permission(UserIdGroupPairs=[{"UserId": ACCOUNT}]), "MissingParameter"),
        (permission(UserIdGroupPairs=[{"UserId": "444455556666", "GroupName": "default"}]), "InvalidGroup.NotFound"),
        (
            permission(UserIdGroupPairs=[{"VpcPeeringConnectionId": "pcx-1", "GroupId": "sg-1"}]),
            "InvalidGroupId.Malformed",
        ),
    ],
)
def test_permissions_that_are_refused(api: Api, given: dict[str, Any], code: str) -> None:
    group_id = make(api)
    for action in (INGRESS, EGRESS):
        assert refused(api, group_id, given, action=action).code == code
    assert woken(api) == []


def test_a_call_with_one_wrong_permission_changes_nothing(api: Api) -> None:
    group_id = make(api)
    assert refused(api, group_id, SSH, permission("256")).code == "InvalidParameterValue"
    assert len(rules_of(api, group_id)) == 1


def test_duplicates(api: Api) -> None:
    group_id = make(api)
    allow(api, group_id, SSH)
    described = permission(IpRanges=[{"CidrIp": "192.0.2.77/24", "Description": "other words"}])
    error = refused(api, group_id, described)
    assert error.code == "InvalidPermission.Duplicate"
    assert "192.0.2.0/24, TCP, from port: 22" in error.message
    everything = permission("-1", None, None, IpRanges=[{"CidrIp": "0.0.0.0/0"}])
    assert refused(api, group_id, everything, action=EGRESS).code == "InvalidPermission.Duplicate"
    allow(api, group_id, everything)
    allow(api, group_id, SSH, action=EGRESS)


def test_at_most_60_rules_of_a_direction(api: Api) -> None:
    group_id = make(api)
    allow(api, group_id, permission(IpRanges=[{"CidrIp": f"10.0.{number}.0/24"} for number in range(60)]))
    assert refused(api, group_id, permission(last=23)).code == "RulesPerSecurityGroupLimitExceeded"
    outbound = permission(IpRanges=[{"CidrIp": f"10.0.{number}.0/24"} for number in range(60)])
    assert refused(api, group_id, outbound, action=EGRESS).code == "RulesPerSecurityGroupLimitExceeded"
    allow(api, group_id, SSH, action=EGRESS)


def test_the_flat_form(api: Api) -> None:
    make(api)
    web = make(api, "flat")
    answer = api.call(INGRESS, GroupName="flat", IpProtocol="tcp", FromPort=443, ToPort=443, CidrIp="0.0.0.0/0")
    [rule] = answer["SecurityGroupRules"]
    assert (rule["GroupId"], rule["FromPort"], rule["CidrIpv4"]) == (web, 443, "0.0.0.0/0")
    [rule] = api.call(INGRESS, GroupId=web, SourceSecurityGroupName="web")["SecurityGroupRules"]
    assert rule["IpProtocol"] == "-1" and rule["ReferencedGroupInfo"]["UserId"] == ACCOUNT
    same = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "CidrIp": "0.0.0.0/0"}
    assert api.refused(INGRESS, GroupId=web, **same).code == "InvalidPermission.Duplicate"
    assert api.refused(INGRESS, GroupId=web, IpPermissions=[SSH], **same).code == "InvalidParameterCombination"
    assert api.call(EGRESS, GroupId=web, **same)["SecurityGroupRules"][0]["IsEgress"] is True
    assert len(api.call("RevokeSecurityGroupIngress", GroupName="flat", **same)["RevokedSecurityGroupRules"]) == 1


def test_groups_that_are_missing(api: Api) -> None:
    group_id = make(api)
    assert api.refused(INGRESS, GroupId=group_id).code == "MissingParameter"
    assert api.refused(INGRESS, IpPermissions=[SSH]).code == "MissingParameter"
    assert api.refused(INGRESS, GroupName="gone", IpPermissions=[SSH]).code == "InvalidGroup.NotFound"
    assert refused(api.by(), group_id, SSH).code == "InvalidGroup.NotFound"
    assert refused(api.by(), group_id, SSH, action="RevokeSecurityGroupIngress").code == "InvalidGroup.NotFound"
    assert api.refused(INGRESS, GroupId=group_id, IpPermissions=[SSH], DryRun=True).code == "DryRunOperation"


def test_peers_are_of_the_same_vpc(api: Api) -> None:
    here, there = make(api), make(api, VpcId=other_vpc(api))
    for group_id, peer in ((here, there), (there, here)):
        assert refused(api, group_id, permission(UserIdGroupPairs=[{"GroupId": peer}])).code == "InvalidGroup.NotFound"


# --- revoke -----------------------------------------------------------------------------------------------------------


def test_revoke_by_permissions(api: Api) -> None:
    group_id = make(api)
    [rule, kept] = allow(api, group_id, SSH, permission(last=23))
    described = permission(IpRanges=[{"CidrIp": "192.0.2.9/24", "Description": "does not matter"}])
    answer = api.call("RevokeSecurityGroupIngress", GroupId=group_id, IpPermissions=[described])
    assert answer == {
        "Return": True,
        "RevokedSecurityGroupRules": [
            {
                "SecurityGroupRuleId": rule["SecurityGroupRuleId"],
                "GroupId": group_id,
                "IsEgress": False,
                "IpProtocol": "tcp",
                "FromPort": 22,
                "ToPort": 22,
                "CidrIpv4": "192.0.2.0/24",
            }
        ],
        "UnknownIpPermissions": [],
    }
    assert [rule for rule in rules_of(api, group_id) if not rule["IsEgress"]] == [kept]


def test_revoke_by_ids(api: Api) -> None:
    group_id = make(api)
    rules = allow(api, group_id, SSH, permission(last=23))
    wanted = [rule["SecurityGroupRuleId"] for rule in rules]
    [outbound] = [rule["SecurityGroupRuleId"] for rule in rules_of(api, group_id) if rule["IsEgress"]]

    def ask(action: str, rule_ids: list[str], **params: Any) -> str:
        return api.refused(action, GroupId=group_id, SecurityGroupRuleIds=rule_ids, **params).code

    not_found = "InvalidSecurityGroupRuleId.NotFound"
    assert ask("RevokeSecurityGroupIngress", [outbound]) == not_found
    assert ask("RevokeSecurityGroupEgress", [wanted[0]]) == not_found
    assert ask("RevokeSecurityGroupIngress", [wanted[0], "sgr-00000000000000000"]) == not_found
    assert ask("RevokeSecurityGroupIngress", [wanted[0], "sgr-1"]) == "InvalidSecurityGroupRuleId.Malformed"
    assert ask("RevokeSecurityGroupIngress", wanted, IpPermissions=[SSH]) == "InvalidParameterCombination"
    answer = api.call("RevokeSecurityGroupIngress", GroupId=group_id, SecurityGroupRuleIds=wanted)
    assert [rule["SecurityGroupRuleId"] for rule in answer["RevokedSecurityGroupRules"]] == wanted
    api.call("RevokeSecurityGroupEgress", GroupId=group_id, SecurityGroupRuleIds=[outbound])
    assert api.get(SecurityGroup, group_id).rules == ()


def test_revoking_what_is_not_there(api: Api) -> None:
    """An error outside a default VPC; in one, the answer names it."""
    other = make(api, VpcId=other_vpc(api))
    allow(api, other, permission(last=23))
    revoke = "RevokeSecurityGroupIngress"
    assert refused(api, other, permission(last=23), SSH, action=revoke).code == "InvalidPermission.NotFound"
    group_id = make(api)
    allow(api, group_id, permission(last=23))
    answer = api.call(revoke, GroupId=group_id, IpPermissions=[permission(last=23), SSH])
    assert len(answer["RevokedSecurityGroupRules"]) == 1
    [unknown] = answer["UnknownIpPermissions"]
    assert (unknown["FromPort"], unknown["IpRanges"]) == (22, [{"CidrIp": "192.0.2.0/24"}])


def test_a_rule_of_a_group_that_is_gone_can_be_revoked(api: Api) -> None:
    group_id, peer = make(api), make(api, "peer")
    given = permission(UserIdGroupPairs=[{"GroupId": peer}])
    allow(api, group_id, given)
    with api.store.write() as tx:
        tx.delete(api.get(SecurityGroup, peer))
    assert len(rules_of(api, group_id)) == 2
    answer = api.call("RevokeSecurityGroupIngress", GroupId=group_id, IpPermissions=[given])
    assert [rule["ReferencedGroupId"] for rule in answer["RevokedSecurityGroupRules"]] == [peer]


# --- change -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["Ingress", "Egress"])
def test_descriptions_anew(api: Api, direction: str) -> None:
    group_id = make(api)
    action = f"UpdateSecurityGroupRuleDescriptions{direction}"
    [first, second] = allow(api, group_id, SSH, permission(last=23), action=f"AuthorizeSecurityGroup{direction}")
    told = permission(IpRanges=[{"CidrIp": "192.0.2.0/24", "Description": "one"}])
    assert api.call(action, GroupId=group_id, IpPermissions=[told]) == {"Return": True}
    two = {"SecurityGroupRuleId": second["SecurityGroupRuleId"], "Description": "two"}
    api.call(action, GroupName="web", SecurityGroupRuleDescriptions=[two])
    found = {rule["SecurityGroupRuleId"]: rule.get("Description") for rule in rules_of(api, group_id)}
    assert found[first["SecurityGroupRuleId"]] == "one" and found[second["SecurityGroupRuleId"]] == "two"
    api.call(action, GroupId=group_id, IpPermissions=[SSH])
    found = {rule["SecurityGroupRuleId"]: rule.get("Description") for rule in rules_of(api, group_id)}
    assert found[first["SecurityGroupRuleId"]] is None

    assert api.refused(action, GroupId=group_id).code == "MissingParameter"
    both: dict[str, Any] = {"IpPermissions": [told], "SecurityGroupRuleDescriptions": [two]}
    assert api.refused(action, GroupId=group_id, **both).code == "InvalidParameterCombination"
    absent = refused(api, group_id, permission(last=24), action=action)
    assert absent.code == "InvalidPermission.NotFound"
    gone = {"SecurityGroupRuleId": "sgr-00000000000000000", "Description": "x"}
    error = api.refused(action, GroupId=group_id, SecurityGroupRuleDescriptions=[gone])
    assert error.code == "InvalidSecurityGroupRuleId.NotFound"


def test_modify(api: Api) -> None:
    group_id, peer = make(api), make(api, "peer")
    ranged, grouped = allow(api, group_id, SSH, permission(last=23, UserIdGroupPairs=[{"GroupId": peer}]))
    ranged_id, grouped_id = ranged["SecurityGroupRuleId"], grouped["SecurityGroupRuleId"]
    api.call("CreateTags", Resources=[ranged_id], Tags=[{"Key": "Name", "Value": "x"}])

    def change(rule_id: str, **rule: Any) -> dict[str, Any]:
        return {"SecurityGroupRuleId": rule_id, "SecurityGroupRule": rule}

    updates = [
        change(ranged_id, IpProtocol="udp", FromPort=1, ToPort=2, CidrIpv4="10.1.2.3/8", Description="new"),
        change(grouped_id, IpProtocol="-1", ReferencedGroupId=group_id),
    ]
    assert api.call("ModifySecurityGroupRules", GroupId=group_id, SecurityGroupRules=updates) == {"Return": True}
    found = {rule["SecurityGroupRuleId"]: rule for rule in rules_of(api, group_id)}
    assert found[ranged_id] == {
        **ranged,
        "IpProtocol": "udp",
        "FromPort": 1,
        "ToPort": 2,
        "CidrIpv4": "10.0.0.0/8",
        "Description": "new",
        "Tags": [{"Key": "Name", "Value": "x"}],
    }
    assert found[grouped_id]["ReferencedGroupInfo"]["GroupId"] == group_id

    def code(*given: dict[str, Any]) -> str:
        return api.refused("ModifySecurityGroupRules", GroupId=group_id, SecurityGroupRules=list(given)).code

    assert code(change(ranged_id, IpProtocol="-1", CidrIpv6="::/0")) == "InvalidParameterValue"
    assert code(change(ranged_id, IpProtocol="-1")) == "InvalidParameterValue"
    assert code(change(ranged_id, IpProtocol="-1", PrefixListId="pl-1")) == "InvalidParameterValue"
    assert code(change(ranged_id, IpProtocol="256", CidrIpv4="10.0.0.0/8")) == "InvalidParameterValue"
    assert code(change("sgr-00000000000000000", IpProtocol="-1")) == "InvalidSecurityGroupRuleId.NotFound"
    allow(api, group_id, SSH)
    same = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIpv4": "192.0.2.0/24"}
    assert code(change(ranged_id, **same)) == "InvalidPermission.Duplicate"


# --- lists ------------------------------------------------------------------------------------------------------------


def test_rules_by_id_and_in_pages(api: Api) -> None:
    group_id = make(api)
    made = allow(api, group_id, permission(IpRanges=[{"CidrIp": f"10.0.{number}.0/24"} for number in range(11)]))
    first = made[0]["SecurityGroupRuleId"]
    assert api.call("DescribeSecurityGroupRules", SecurityGroupRuleIds=[first])["SecurityGroupRules"] == made[:1]
    seen: list[str] = []
    more: dict[str, str] = {}
    while True:
        answer = api.call("DescribeSecurityGroupRules", MaxResults=5, **more)
        seen += [rule["SecurityGroupRuleId"] for rule in answer["SecurityGroupRules"]]
        if "NextToken" not in answer:
            break
        more = {"NextToken": answer["NextToken"]}
    assert len(seen) == len(set(seen)) == 11 + 1 + 2


def test_rules_that_are_not_there(api: Api) -> None:
    [rule] = allow(api, make(api), SSH)
    wanted = {"SecurityGroupRuleIds": [rule["SecurityGroupRuleId"]]}
    assert api.by().refused("DescribeSecurityGroupRules", **wanted).code == "InvalidSecurityGroupRuleId.NotFound"
    malformed = api.refused("DescribeSecurityGroupRules", SecurityGroupRuleIds=["sgr-1"])
    assert malformed.code == "InvalidSecurityGroupRuleId.Malformed"
    unknown = api.refused("DescribeSecurityGroupRules", Filters=[{"Name": "colour", "Values": ["x"]}])
    assert unknown.code == "InvalidParameterValue"


def test_a_change_of_words_wakes_nobody_and_of_rules_does(api: Api) -> None:
    group_id = make(api)
    [rule] = allow(api, group_id, SSH)
    [(kind, vpc_id, serial)] = [wake for wake in api.store.pending_wakes() if wake[0] == Vpc.KIND]
    api.store.wake_done(kind, vpc_id, serial)
    told = [{"SecurityGroupRuleId": rule["SecurityGroupRuleId"], "Description": "x"}]
    api.call("UpdateSecurityGroupRuleDescriptionsIngress", GroupId=group_id, SecurityGroupRuleDescriptions=told)
    api.call("CreateTags", Resources=[group_id], Tags=[{"Key": "Name", "Value": "x"}])
    assert woken(api) == []
    api.call("RevokeSecurityGroupIngress", GroupId=group_id, IpPermissions=[SSH])
    assert woken(api) == [vpc_id]

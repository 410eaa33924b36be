"""Managed prefix lists: versions, sizes, who refers to them; and those that come with a region."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.api.ec2 import prefix_lists
from orchestrator.model.route import MAX_ROUTES
from orchestrator.model.vpc import PrefixList, Route, RouteTable, SecurityGroup

from .conftest import ACCOUNT, Api
from .networks import default_vpc, filters, forget_wakes, make_group, make_vpc, put_table, woken

CREATE, MODIFY, DELETE = "CreateManagedPrefixList", "ModifyManagedPrefixList", "DeleteManagedPrefixList"
ENTRIES, RESTORE = "GetManagedPrefixListEntries", "RestoreManagedPrefixListVersion"


def entry(cidr: str, description: str = "") -> dict[str, str]:
    return {"Cidr": cidr, **({"Description": description} if description else {})}


def make(api: Api, *cidrs: str, **params: Any) -> str:
    given = {"PrefixListName": "mine", "AddressFamily": "IPv4", "MaxEntries": 5, **params}
    list_id = api.call(CREATE, Entries=[entry(cidr) for cidr in cidrs], **given)["PrefixList"]["PrefixListId"]
    assert isinstance(list_id, str)
    return list_id


def entries(api: Api, list_id: str, **params: Any) -> list[str]:
    return [each["Cidr"] for each in api.call(ENTRIES, PrefixListId=list_id, **params)["Entries"]]


def allow(api: Api, group_id: str, list_id: str, port: int = 443, action: str = "Ingress") -> dict[str, Any]:
    permission = {
        "IpProtocol": "tcp",
        "FromPort": port,
        "ToPort": port,
        "PrefixListIds": [{"PrefixListId": list_id, "Description": "those"}],
    }
    answer = api.call(f"AuthorizeSecurityGroup{action}", GroupId=group_id, IpPermissions=[permission])
    [rule] = answer["SecurityGroupRules"]
    assert isinstance(rule, dict)
    return rule


# --- versions ---------------------------------------------------------------------------------------------------------


def test_a_new_list(api: Api) -> None:
    tags = [{"Key": "Name", "Value": "x"}]
    shown = api.call(
        CREATE,
        PrefixListName="mine",
        AddressFamily="IPv4",
        MaxEntries=2,
        Entries=[entry("192.0.2.9/24", "office"), entry("198.51.100.0/24")],
        TagSpecifications=[{"ResourceType": "prefix-list", "Tags": tags}],
    )["PrefixList"]
    list_id = shown["PrefixListId"]
    assert shown == {
        "PrefixListId": list_id,
        "PrefixListArn": f"arn:aws:ec2:us-east-1:{ACCOUNT}:prefix-list/{list_id}",
        "PrefixListName": "mine",
        "OwnerId": ACCOUNT,
        "AddressFamily": "IPv4",
        "State": "create-complete",
        "MaxEntries": 2,
        "Version": 1,
        "Tags": tags,
    }
    assert api.call("DescribeManagedPrefixLists", PrefixListIds=[list_id])["PrefixLists"] == [shown]
    assert api.call(ENTRIES, PrefixListId=list_id)["Entries"] == [
        entry("192.0.2.0/24", "office"),
        entry("198.51.100.0/24"),
    ]
    assert entries(api, make(api, "2001:db8::1/32", AddressFamily="IPv6")) == ["2001:db8::/32"]


def test_entries_make_versions_and_names_do_not(api: Api) -> None:
    list_id = make(api, "192.0.2.0/24")
    changed = api.call(
        MODIFY,
        PrefixListId=list_id,
        CurrentVersion=1,
        AddEntries=[entry("198.51.100.0/24")],
        RemoveEntries=[{"Cidr": "192.0.2.0/24"}],
    )["PrefixList"]
    assert (changed["Version"], changed["State"]) == (2, "modify-complete")
    assert entries(api, list_id) == entries(api, list_id, TargetVersion=2) == ["198.51.100.0/24"]
    assert entries(api, list_id, TargetVersion=1) == ["192.0.2.0/24"]
    renamed = api.call(MODIFY, PrefixListId=list_id, PrefixListName="other")["PrefixList"]
    assert (renamed["Version"], renamed["PrefixListName"]) == (2, "other")
    told = api.call(MODIFY, PrefixListId=list_id, CurrentVersion=2, AddEntries=[entry("198.51.100.0/24", "why")])
    assert told["PrefixList"]["Version"] == 3
    assert api.call(ENTRIES, PrefixListId=list_id)["Entries"] == [entry("198.51.100.0/24", "why")]
    restored = api.call(RESTORE, PrefixListId=list_id, PreviousVersion=1, CurrentVersion=3)["PrefixList"]
    assert (restored["Version"], restored["State"]) == (4, "restore-complete")
    assert entries(api, list_id) == ["192.0.2.0/24"]
    for params in ({"CurrentVersion": 1, "AddEntries": [entry("10.0.0.0/8")]}, {"CurrentVersion": 9}):
        assert api.refused(MODIFY, PrefixListId=list_id, **params).code == "PrefixListVersionMismatch"
    stale = api.refused(RESTORE, PrefixListId=list_id, PreviousVersion=1, CurrentVersion=3)
    assert stale.code == "PrefixListVersionMismatch"
    unknown = api.refused(RESTORE, PrefixListId=list_id, PreviousVersion=9, CurrentVersion=4)
    assert unknown.code == "InvalidParameterValue"
    assert api.refused(ENTRIES, PrefixListId=list_id, TargetVersion=5).code == "InvalidParameterValue"


def test_the_oldest_versions_are_forgotten(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_lists, "MAX_VERSIONS", 2)
    list_id = make(api)
    for version in (1, 2):
        added = [entry(f"10.{version}.0.0/16")]
        api.call(MODIFY, PrefixListId=list_id, CurrentVersion=version, AddEntries=added)
    assert entries(api, list_id, TargetVersion=2) == ["10.1.0.0/16"]
    assert api.refused(ENTRIES, PrefixListId=list_id, TargetVersion=1).code == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"AddressFamily": "IPv5"}, "InvalidParameterValue"),
        ({"MaxEntries": 0}, "InvalidParameterValue"),
        ({"MaxEntries": 1001}, "InvalidParameterValue"),
        ({"MaxEntries": 1, "Entries": [entry("10.0.0.0/8"), entry("192.0.2.0/24")]}, "PrefixListMaxEntriesExceeded"),
        ({"PrefixListName": ""}, "MissingParameter"),
        ({"PrefixListName": "com.amazonaws.mine"}, "InvalidParameterValue"),
        ({"PrefixListName": "n" * 256}, "InvalidParameterValue"),
        ({"Entries": [entry("2001:db8::/32")]}, "InvalidParameterValue"),
        ({"Entries": [entry("10.0.0.0")]}, "InvalidParameterValue"),
        ({"Entries": [entry("10.0.0.0/8"), entry("10.1.0.0/8")]}, "InvalidParameterValue"),
        ({"Entries": [entry("10.0.0.0/8", "d" * 256)]}, "InvalidParameterValue"),
        ({"MaxEntries": 200, "Entries": [entry(f"10.{n}.0.0/16") for n in range(101)]}, "InvalidParameterValue"),
    ],
)
def test_lists_that_are_refused(api: Api, given: dict[str, Any], code: str) -> None:
    params = {"PrefixListName": "mine", "AddressFamily": "IPv4", "MaxEntries": 5, **given}
    assert api.refused(CREATE, **params).code == code


def test_changes_that_are_refused(api: Api) -> None:
    list_id = make(api, "192.0.2.0/24", MaxEntries=2)

    def code(**params: Any) -> str:
        return api.refused(MODIFY, PrefixListId=list_id, **params).code

    more = [entry("10.0.0.0/8"), entry("198.51.100.0/24")]
    assert code(AddEntries=more) == "MissingParameter"
    assert code(AddEntries=more, CurrentVersion=1) == "PrefixListMaxEntriesExceeded"
    assert code(AddEntries=more[:1], CurrentVersion=1, MaxEntries=9) == "InvalidParameterCombination"
    assert code(RemoveEntries=[{"Cidr": "10.0.0.0/8"}], CurrentVersion=1) == "InvalidParameterValue"
    same = [entry("192.0.2.0/24")]
    assert code(AddEntries=same, RemoveEntries=[{"Cidr": "192.0.2.0/24"}], CurrentVersion=1) == "InvalidParameterValue"
    api.call(MODIFY, PrefixListId=list_id, CurrentVersion=1, AddEntries=more[:1])
    assert code(MaxEntries=1) == "PrefixListMaxEntriesExceeded"
    assert api.by().refused(MODIFY, PrefixListId=list_id, PrefixListName="x").code == "InvalidPrefixListID.NotFound"


# --- who refers to one ------------------------------------------------------------------------------------------------


def test_rules_name_lists(api: Api) -> None:
    list_id, group_id = make(api, "192.0.2.0/24"), make_group(api, default_vpc(api))
    rule = allow(api, group_id, list_id)
    assert (rule["PrefixListId"], rule["Description"], rule["IsEgress"]) == (list_id, "those", False)
    [group] = api.call("DescribeSecurityGroups", GroupIds=[group_id])["SecurityGroups"]
    assert group["IpPermissions"][0]["PrefixListIds"] == [{"PrefixListId": list_id, "Description": "those"}]
    by_list = [{"Name": "ip-permission.prefix-list-id", "Values": [list_id]}]
    assert len(api.call("DescribeSecurityGroups", Filters=by_list)["SecurityGroups"]) == 1
    permission = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "PrefixListIds": [{"PrefixListId": list_id}]}
    again = api.refused("AuthorizeSecurityGroupIngress", GroupId=group_id, IpPermissions=[permission])
    assert again.code == "InvalidPermission.Duplicate"
    other = make(api, "198.51.100.0/24")
    update = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "PrefixListId": other}
    rules = [{"SecurityGroupRuleId": rule["SecurityGroupRuleId"], "SecurityGroupRule": update}]
    api.call("ModifySecurityGroupRules", GroupId=group_id, SecurityGroupRules=rules)
    [changed] = [each for each in api.get(SecurityGroup, group_id).rules if not each.egress]
    assert (changed.prefix_list_id, changed.from_port) == (other, 80)
    permission |= {"FromPort": 80, "ToPort": 80, "PrefixListIds": [{"PrefixListId": other}]}
    answer = api.call("RevokeSecurityGroupIngress", GroupId=group_id, IpPermissions=[permission])
    assert answer["RevokedSecurityGroupRules"][0]["PrefixListId"] == other


def test_a_list_in_use_stays_and_wakes_its_users(api: Api) -> None:
    list_id = make(api, "192.0.2.0/24")
    with_group, with_table, neither = make_vpc(api), make_vpc(api), make_vpc(api)
    group_id = make_group(api, with_group)
    rule = allow(api, group_id, list_id)
    table = put_table(api, with_table, Route(destination=list_id, target="eni-00000000000000001"))
    forget_wakes(api)
    api.call(MODIFY, PrefixListId=list_id, CurrentVersion=1, AddEntries=[entry("10.0.0.0/8")])
    assert woken(api) == {with_group, with_table} and neither not in woken(api)
    api.call(MODIFY, PrefixListId=list_id, PrefixListName="other")
    assert woken(api) == set()
    api.call(RESTORE, PrefixListId=list_id, PreviousVersion=1, CurrentVersion=2)
    assert woken(api) == {with_group, with_table}
    associations = api.call("GetManagedPrefixListAssociations", PrefixListId=list_id)["PrefixListAssociations"]
    assert associations == [
        {"ResourceId": group_id, "ResourceOwner": ACCOUNT},
        {"ResourceId": table.id, "ResourceOwner": ACCOUNT},
    ]
    refused = api.refused(DELETE, PrefixListId=list_id)
    assert refused.code == "DependencyViolation" and group_id in refused.message
    rule_ids = [rule["SecurityGroupRuleId"]]
    api.call("RevokeSecurityGroupIngress", GroupId=group_id, SecurityGroupRuleIds=rule_ids)
    assert api.refused(DELETE, PrefixListId=list_id).code == "DependencyViolation"
    api.change(table, routes=())
    assert api.call(DELETE, PrefixListId=list_id)["PrefixList"]["State"] == "delete-complete"
    gone = api.refused("DescribeManagedPrefixLists", PrefixListIds=[list_id])
    assert gone.code == "InvalidPrefixListID.NotFound"


def test_a_list_counts_as_its_size(api: Api) -> None:
    group_id = make_group(api, default_vpc(api))
    large, small = make(api, MaxEntries=59), make(api, MaxEntries=1)
    allow(api, group_id, large)
    allow(api, group_id, small)
    permission = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "IpRanges": [{"CidrIp": "192.0.2.0/24"}]}
    full = api.refused("AuthorizeSecurityGroupIngress", GroupId=group_id, IpPermissions=[permission])
    assert full.code == "RulesPerSecurityGroupLimitExceeded"
    api.call("AuthorizeSecurityGroupEgress", GroupId=group_id, IpPermissions=[permission])
    too_large = api.refused(MODIFY, PrefixListId=small, MaxEntries=2)
    assert too_large.code == "RulesPerSecurityGroupLimitExceeded" and group_id in too_large.message
    api.call(MODIFY, PrefixListId=large, MaxEntries=58)
    assert api.call(MODIFY, PrefixListId=small, MaxEntries=2)["PrefixList"]["MaxEntries"] == 2


def test_a_list_counts_as_its_size_in_route_tables_too(api: Api) -> None:
    vpc_id, target = make_vpc(api), "eni-00000000000000001"
    large, small = make(api, MaxEntries=MAX_ROUTES - 1), make(api, MaxEntries=1)
    table = put_table(api, vpc_id, *(Route(destination=each, target=target) for each in (large, small)))
    sixth = make(api, MaxEntries=MAX_ROUTES, AddressFamily="IPv6")
    too_large = api.refused(MODIFY, PrefixListId=small, MaxEntries=2)
    assert too_large.code == "RouteLimitExceeded" and table.id in too_large.message
    assert api.get(PrefixList, small).max_entries == 1, "what is refused is not kept"
    api.change(api.get(RouteTable, table.id), routes=(*table.routes, Route(destination=sixth, target=target)))
    api.call(MODIFY, PrefixListId=large, MaxEntries=MAX_ROUTES - 2)
    api.call(MODIFY, PrefixListId=small, MaxEntries=2)
    api.call(MODIFY, PrefixListId=small, CurrentVersion=1, AddEntries=[entry("10.0.0.0/8"), entry("192.0.2.0/24")])
    assert api.refused(MODIFY, PrefixListId=sixth, MaxEntries=MAX_ROUTES + 1).code == "RouteLimitExceeded"


def test_a_list_that_does_not_grow_may_change_in_a_full_table(api: Api) -> None:
    list_id = make(api, MaxEntries=MAX_ROUTES + 1)
    put_table(api, make_vpc(api), Route(destination=list_id, target="eni-00000000000000001"))
    api.call(MODIFY, PrefixListId=list_id, PrefixListName="other")
    api.call(MODIFY, PrefixListId=list_id, CurrentVersion=1, AddEntries=[entry("10.0.0.0/8")])
    api.call(MODIFY, PrefixListId=list_id, MaxEntries=MAX_ROUTES)


# --- lists ------------------------------------------------------------------------------------------------------------


def test_lists_that_come_with_a_region(api: Api) -> None:
    given = api.call("DescribePrefixLists")["PrefixLists"]
    names = [each["PrefixListName"] for each in given]
    assert sorted(names) == ["com.amazonaws.us-east-1.dynamodb", "com.amazonaws.us-east-1.s3"]
    s3 = given[names.index("com.amazonaws.us-east-1.s3")]
    assert len(s3["Cidrs"]) == 1
    assert api.by().call("DescribePrefixLists")["PrefixLists"] == given, "one list for everybody"
    west = api.within("us-west-2").call("DescribePrefixLists")["PrefixLists"]
    assert {each["PrefixListId"] for each in west}.isdisjoint(each["PrefixListId"] for each in given)
    by_name = filters(prefix_list_name="*.s3")
    assert api.call("DescribePrefixLists", Filters=by_name)["PrefixLists"] == [s3]
    assert api.call("DescribePrefixLists", PrefixListIds=[s3["PrefixListId"]])["PrefixLists"] == [s3]
    [managed] = api.call("DescribeManagedPrefixLists", Filters=by_name)["PrefixLists"]
    assert (managed["OwnerId"], managed["PrefixListArn"]) == (
        "AWS",
        f"arn:aws:ec2:us-east-1:aws:prefix-list/{s3['PrefixListId']}",
    )
    assert entries(api, s3["PrefixListId"]) == s3["Cidrs"]
    group_id = make_group(api, default_vpc(api))
    assert allow(api, group_id, s3["PrefixListId"], action="Egress")["PrefixListId"] == s3["PrefixListId"]
    for action in (DELETE, "GetManagedPrefixListAssociations"):
        assert api.refused(action, PrefixListId=s3["PrefixListId"]).code == "OperationNotPermitted"
    elsewhere = api.within("us-west-2").refused(ENTRIES, PrefixListId=s3["PrefixListId"])
    assert elsewhere.code == "InvalidPrefixListID.NotFound"


def test_a_deployment_from_before_gets_them_too(api: Api) -> None:
    default_vpc(api)
    with api.store.write() as tx:
        for each in api.store.all(PrefixList):
            tx.delete(each)
    assert len(api.call("DescribePrefixLists")["PrefixLists"]) == 2


def test_lists_of_others_are_not_there(api: Api) -> None:
    list_id = make(api)
    assert api.by().refused(ENTRIES, PrefixListId=list_id).code == "InvalidPrefixListID.NotFound"
    owned = filters(owner_id=ACCOUNT)
    assert len(api.call("DescribeManagedPrefixLists", Filters=owned)["PrefixLists"]) == 1
    assert api.by().call("DescribeManagedPrefixLists", Filters=owned)["PrefixLists"] == []
    assert api.refused("DescribePrefixLists", PrefixListIds=[list_id]).code == "InvalidPrefixListID.NotFound"


def test_entries_in_pages(api: Api) -> None:
    cidrs = [f"10.{number}.0.0/16" for number in range(5)]
    list_id = make(api, *cidrs)
    first = api.call(ENTRIES, PrefixListId=list_id, MaxResults=3)
    rest = api.call(ENTRIES, PrefixListId=list_id, MaxResults=3, NextToken=first["NextToken"])
    assert [each["Cidr"] for each in first["Entries"] + rest["Entries"]] == cidrs and "NextToken" not in rest

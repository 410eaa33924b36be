"""VPC peering connections: asked for, accepted, rejected, deleted, described by both sides, and their options."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.model.vpc import CidrAssociation, PeeringConnection, Vpc
from orchestrator.reconcile.peering import Peerings

from .conftest import OTHER_ACCOUNT, Api
from .networks import filters, forget_wakes, make_vpc, put_peering, woken


def create(api: Api, vpc_id: str, peer_vpc_id: str, **params: Any) -> dict[str, Any]:
    answer = api.call("CreateVpcPeeringConnection", VpcId=vpc_id, PeerVpcId=peer_vpc_id, **params)
    made = answer["VpcPeeringConnection"]
    assert isinstance(made, dict)
    return made


def describe(api: Api, peering_id: str) -> dict[str, Any]:
    answer = api.call("DescribeVpcPeeringConnections", VpcPeeringConnectionIds=[peering_id])
    [shown] = answer["VpcPeeringConnections"]
    assert isinstance(shown, dict)
    return shown


def state(api: Api, peering_id: str) -> str:
    code = describe(api, peering_id)["Status"]["Code"]
    assert isinstance(code, str)
    return code


def act(api: Api, verb: str, peering_id: str, **params: Any) -> dict[str, Any]:
    return api.call(f"{verb}VpcPeeringConnection", VpcPeeringConnectionId=peering_id, **params)


def refusal(api: Api, verb: str, peering_id: str) -> str:
    return api.refused(f"{verb}VpcPeeringConnection", VpcPeeringConnectionId=peering_id).code


def peering_wakes(api: Api) -> set[str]:
    return {row for kind, row, _ in api.store.pending_wakes() if kind == PeeringConnection.KIND}


@pytest.fixture
def pair(api: Api) -> tuple[str, str]:
    """Two VPCs of one account and region."""
    return make_vpc(api), make_vpc(api, "10.1.0.0/16")


@pytest.fixture
def across(api: Api) -> tuple[Api, str, str]:
    """Another account in another region, a VPC of this account, and a connection that it asked the other for."""
    other = api.by().within("us-west-2")
    mine, theirs = make_vpc(api), make_vpc(other, "10.1.0.0/16")
    made = create(api, mine, theirs, PeerOwnerId=OTHER_ACCOUNT, PeerRegion="us-west-2")
    return other, mine, made["VpcPeeringConnectionId"]


# --- create -----------------------------------------------------------------------------------------------------------


def test_asking_for_one(api: Api, pair: tuple[str, str]) -> None:
    one, other = pair
    forget_wakes(api)
    tags = [{"ResourceType": "vpc-peering-connection", "Tags": [{"Key": "Name", "Value": "x"}]}]
    made = create(api, one, other, TagSpecifications=tags)
    assert made["Status"] == {"Code": "pending-acceptance", "Message": f"Pending Acceptance by {api.account}"}
    assert made["ExpirationTime"] == api.now + timedelta(days=7)
    assert made["RequesterVpcInfo"] == {
        "OwnerId": api.account,
        "VpcId": one,
        "Region": "us-east-1",
        "CidrBlock": "10.0.0.0/16",
        "CidrBlockSet": [{"CidrBlock": "10.0.0.0/16"}],
        "Ipv6CidrBlockSet": [],
        "PeeringOptions": {
            "AllowDnsResolutionFromRemoteVpc": False,
            "AllowEgressFromLocalClassicLinkToRemoteVpc": False,
            "AllowEgressFromLocalVpcToRemoteClassicLink": False,
        },
    }
    assert made["AccepterVpcInfo"]["VpcId"] == other
    assert made["Tags"] == [{"Key": "Name", "Value": "x"}]
    assert peering_wakes(api) == {made["VpcPeeringConnectionId"]}
    assert describe(api, made["VpcPeeringConnectionId"]) == made


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"VpcId": "vpc-00000000000000000"}, "InvalidVpcID.NotFound"),
        ({"PeerVpcId": "vpc-00000000000000000"}, "InvalidVpcID.NotFound"),
        ({"PeerVpcId": "x"}, "InvalidVpcID.Malformed"),
        ({"PeerVpcId": None}, "MissingParameter"),
        ({"PeerOwnerId": "me"}, "InvalidParameterValue"),
        ({"PeerRegion": "mars-1"}, "InvalidParameterValue"),
        ({"RequesterPeeringConnectionOptions": {"AllowMultipathResilience": True}}, "UnsupportedOperation"),
        ({"TagSpecifications": [{"ResourceType": "vpc", "Tags": []}]}, "InvalidParameterValue"),
        ({"DryRun": True}, "DryRunOperation"),
    ],
)
def test_what_is_refused(api: Api, pair: tuple[str, str], params: dict[str, Any], code: str) -> None:
    wanted = {"VpcId": pair[0], "PeerVpcId": pair[1], **params}
    given = {name: value for name, value in wanted.items() if value is not None}
    assert api.refused("CreateVpcPeeringConnection", **given).code == code


def test_a_vpc_is_not_peered_with_itself(api: Api, pair: tuple[str, str]) -> None:
    error = api.refused("CreateVpcPeeringConnection", VpcId=pair[0], PeerVpcId=pair[0])
    assert error.code == "InvalidParameterValue" and pair[0] in error.message


@pytest.mark.parametrize("settled", ["pending-acceptance", "active"])
def test_a_pair_is_connected_once(api: Api, pair: tuple[str, str], settled: str) -> None:
    one, other = pair
    made = put_peering(api, one, api, other, settled)
    for vpc_id, peer in ((one, other), (other, one)):
        error = api.refused("CreateVpcPeeringConnection", VpcId=vpc_id, PeerVpcId=peer)
        assert error.code == "VpcPeeringConnectionAlreadyExists" and made in error.message
    api.change(api.get(PeeringConnection, made), state="deleted")
    assert create(api, one, other)["Status"]["Code"] == "pending-acceptance"


def test_overlapping_ranges_make_one_that_failed(api: Api) -> None:
    one, other = make_vpc(api), make_vpc(api, "10.0.128.0/17")
    made = create(api, one, other)
    assert made["Status"]["Code"] == "failed" and "overlapping" in made["Status"]["Message"]
    assert "ExpirationTime" not in made
    peering_id = made["VpcPeeringConnectionId"]
    assert peering_wakes(api) == {peering_id}
    for verb in ("Accept", "Reject", "Delete"):
        assert refusal(api, verb, peering_id) == "InvalidStateTransition"
    third = make_vpc(api, "10.2.0.0/16")
    api.call("AssociateVpcCidrBlock", VpcId=third, CidrBlock="10.0.0.0/20")
    assert create(api, third, one)["Status"]["Code"] == "failed", "a secondary range counts as well"


def test_anothers_vpc_that_is_not_there_makes_one_that_failed(api: Api) -> None:
    mine, theirs = make_vpc(api), make_vpc(api.by(), "10.1.0.0/16")
    for params in (
        {"PeerVpcId": "vpc-00000000000000000", "PeerOwnerId": OTHER_ACCOUNT},
        {"PeerVpcId": theirs, "PeerOwnerId": OTHER_ACCOUNT, "PeerRegion": "us-west-2"},
        {"PeerVpcId": theirs, "PeerOwnerId": "777788889999"},
    ):
        made = api.call("CreateVpcPeeringConnection", VpcId=mine, **params)["VpcPeeringConnection"]
        assert made["Status"]["Code"] == "failed"
    assert api.by().call("DescribeVpcPeeringConnections")["VpcPeeringConnections"] == []
    assert api.refused("CreateVpcPeeringConnection", VpcId=mine, PeerVpcId=theirs).code == "InvalidVpcID.NotFound"


# --- answer and end ---------------------------------------------------------------------------------------------------


def test_accepting(api: Api, pair: tuple[str, str]) -> None:
    peering_id = create(api, *pair)["VpcPeeringConnectionId"]
    forget_wakes(api)
    accepted = act(api, "Accept", peering_id)["VpcPeeringConnection"]
    assert accepted["Status"] == {"Code": "active", "Message": "Active"} and "ExpirationTime" not in accepted
    assert accepted["AccepterVpcInfo"]["CidrBlockSet"] == [{"CidrBlock": "10.1.0.0/16"}]
    assert woken(api) == set(pair)
    assert refusal(api, "Accept", peering_id) == refusal(api, "Reject", peering_id) == "InvalidStateTransition"


def test_rejecting(api: Api, pair: tuple[str, str]) -> None:
    peering_id = create(api, *pair)["VpcPeeringConnectionId"]
    forget_wakes(api)
    assert act(api, "Reject", peering_id) == {"Return": True}
    assert peering_wakes(api) == {peering_id}
    assert describe(api, peering_id)["Status"] == {"Code": "rejected", "Message": f"Rejected by {api.account}"}
    assert api.get(PeeringConnection, peering_id).ended_at == api.now
    for verb in ("Accept", "Reject", "Delete"):
        assert refusal(api, verb, peering_id) == "InvalidStateTransition"


@pytest.mark.parametrize("settled", ["pending-acceptance", "active"])
def test_deleting(api: Api, pair: tuple[str, str], settled: str) -> None:
    peering_id = put_peering(api, pair[0], api, pair[1], settled)
    forget_wakes(api)
    assert act(api, "Delete", peering_id) == {"Return": True}
    assert peering_wakes(api) == {peering_id} and woken(api) == set(pair)
    shown = describe(api, peering_id)
    assert shown["Status"] == {"Code": "deleted", "Message": f"Deleted by {api.account}"}
    assert "ExpirationTime" not in shown
    again = api.refused("DeleteVpcPeeringConnection", VpcPeeringConnectionId=peering_id)
    assert again.code == "InvalidStateTransition" and "from deleted to deleted" in again.message


def test_one_that_expired_cannot_be_accepted(api: Api, pair: tuple[str, str]) -> None:
    peering_id = create(api, *pair)["VpcPeeringConnectionId"]
    api.advance(7 * 24 * 3600)
    expired_at = api.now
    for _ in range(2):  # before the reconciler has looked at it, and after
        error = api.refused("AcceptVpcPeeringConnection", VpcPeeringConnectionId=peering_id)
        assert error.code == "InvalidStateTransition" and "from expired to active" in error.message
        assert refusal(api, "Reject", peering_id) == refusal(api, "Delete", peering_id) == "InvalidStateTransition"
        assert describe(api, peering_id)["Status"] == {"Code": "expired", "Message": "Expired"}
        assert describe(api, peering_id)["ExpirationTime"] == expired_at
        by_state = api.call("DescribeVpcPeeringConnections", Filters=filters(status_code="expired"))
        assert len(by_state["VpcPeeringConnections"]) == 1
        Peerings(api.store, lambda: api.now).step(peering_id)


def test_one_that_expired_is_not_in_the_way_of_another(api: Api, pair: tuple[str, str]) -> None:
    old = create(api, *pair)["VpcPeeringConnectionId"]
    api.advance(7 * 24 * 3600 - 1)
    again = {"VpcId": pair[0], "PeerVpcId": pair[1]}
    assert api.refused("CreateVpcPeeringConnection", **again).code == "VpcPeeringConnectionAlreadyExists"
    api.advance(1)
    new = create(api, *pair)["VpcPeeringConnectionId"]
    assert act(api, "Accept", new)["VpcPeeringConnection"]["Status"]["Code"] == "active"
    assert state(api, old) == "expired"


def test_a_range_that_overlaps_by_now_makes_it_fail(api: Api, pair: tuple[str, str]) -> None:
    peering_id = create(api, *pair)["VpcPeeringConnectionId"]
    api.change(api.get(Vpc, pair[1]), more_cidrs=(CidrAssociation(id="vpc-cidr-assoc-1", cidr="10.0.3.0/24"),))
    assert act(api, "Accept", peering_id)["VpcPeeringConnection"]["Status"]["Code"] == "failed"


# --- two accounts, two regions ----------------------------------------------------------------------------------------


def test_both_sides_see_it_each_in_its_region(api: Api, across: tuple[Api, str, str]) -> None:
    other, _, peering_id = across
    seen, theirs = describe(api, peering_id), describe(other, peering_id)
    assert "CidrBlock" not in seen["AccepterVpcInfo"], "not before it is accepted"
    assert theirs["AccepterVpcInfo"]["CidrBlock"] == "10.1.0.0/16"
    assert seen["AccepterVpcInfo"]["Region"] == "us-west-2" and seen["AccepterVpcInfo"]["OwnerId"] == OTHER_ACCOUNT
    for stranger in (api.within("us-west-2"), other.within("us-east-1"), api.by("777788889999")):
        assert stranger.call("DescribeVpcPeeringConnections")["VpcPeeringConnections"] == []
        wanted = {"VpcPeeringConnectionIds": [peering_id]}
        code = stranger.refused("DescribeVpcPeeringConnections", **wanted).code
        assert code == refusal(stranger, "Accept", peering_id) == "InvalidVpcPeeringConnectionID.NotFound"
    assert refusal(api, "Accept", "pcx-1") == "InvalidVpcPeeringConnectionID.Malformed"


def test_the_accepter_answers(api: Api, across: tuple[Api, str, str]) -> None:
    other, _, peering_id = across
    assert refusal(api, "Accept", peering_id) == refusal(api, "Reject", peering_id) == "OperationNotPermitted"
    assert refusal(other, "Delete", peering_id) == "OperationNotPermitted"
    act(other, "Accept", peering_id)
    assert state(api, peering_id) == state(other, peering_id) == "active"
    assert describe(api, peering_id)["AccepterVpcInfo"]["CidrBlock"] == "10.1.0.0/16"


def test_either_side_ends_one_that_is_active(api: Api, across: tuple[Api, str, str]) -> None:
    other, mine, peering_id = across
    act(other, "Accept", peering_id)
    forget_wakes(api)
    act(other, "Delete", peering_id)
    assert mine in woken(api) and state(api, peering_id) == "deleted"


def test_the_requester_takes_back_what_it_asked_for(api: Api, across: tuple[Api, str, str]) -> None:
    other, _, peering_id = across
    act(api, "Delete", peering_id)
    assert describe(other, peering_id)["Status"]["Message"] == f"Deleted by {api.account}"


def test_one_in_the_same_region_of_another_account(api: Api) -> None:
    other = api.by()
    mine, theirs = make_vpc(api), make_vpc(other, "10.1.0.0/16")
    peering_id = create(api, mine, theirs, PeerOwnerId=OTHER_ACCOUNT)["VpcPeeringConnectionId"]
    assert refusal(api, "Accept", peering_id) == "OperationNotPermitted"
    act(other, "Accept", peering_id)
    assert state(api, peering_id) == "active"


def test_each_side_has_tags_of_its_own(api: Api, across: tuple[Api, str, str]) -> None:
    other, _, peering_id = across
    for caller, value in ((api, "mine"), (other, "theirs")):
        caller.call("CreateTags", Resources=[peering_id], Tags=[{"Key": "whose", "Value": value}])
    for caller, value, wrong in ((api, "mine", "theirs"), (other, "theirs", "mine")):
        assert describe(caller, peering_id)["Tags"] == [{"Key": "whose", "Value": value}]
        for wanted, count in ((value, 1), (wrong, 0)):
            tagged = [{"Name": "tag:whose", "Values": [wanted]}]
            answer = caller.call("DescribeVpcPeeringConnections", Filters=tagged)
            assert len(answer["VpcPeeringConnections"]) == count


# --- options ----------------------------------------------------------------------------------------------------------

DNS = {"AllowDnsResolutionFromRemoteVpc": True}


def set_dns(api: Api, vpc_id: str, *, support: bool = True, hostnames: bool = True) -> None:
    api.change(api.get(Vpc, vpc_id), enable_dns_support=support, enable_dns_hostnames=hostnames)


def test_options_of_both_sides_in_one_account(api: Api, pair: tuple[str, str]) -> None:
    peering_id = put_peering(api, pair[0], api, pair[1])
    for vpc_id in pair:
        set_dns(api, vpc_id)
    forget_wakes(api)
    options = {"RequesterPeeringConnectionOptions": DNS, "AccepterPeeringConnectionOptions": DNS}
    answer = api.call("ModifyVpcPeeringConnectionOptions", VpcPeeringConnectionId=peering_id, **options)
    assert set(answer) == set(options)
    assert answer["RequesterPeeringConnectionOptions"]["AllowDnsResolutionFromRemoteVpc"] is True
    assert woken(api) == set(pair)
    row = api.get(PeeringConnection, peering_id)
    assert row.requester.allow_dns and row.accepter.allow_dns
    api.call("ModifyVpcPeeringConnectionOptions", VpcPeeringConnectionId=peering_id, **options)
    assert woken(api) == set(), "nothing changed"


def test_options_of_ones_own_side(api: Api, across: tuple[Api, str, str]) -> None:
    other, _, peering_id = across
    modify = "ModifyVpcPeeringConnectionOptions"
    peering = {"VpcPeeringConnectionId": peering_id}
    early = api.refused(modify, RequesterPeeringConnectionOptions=DNS, **peering)
    assert early.code == "OperationNotPermitted" and "not active" in early.message
    act(other, "Accept", peering_id)
    assert api.refused(modify, AccepterPeeringConnectionOptions=DNS, **peering).code == "OperationNotPermitted"
    assert other.refused(modify, RequesterPeeringConnectionOptions=DNS, **peering).code == "OperationNotPermitted"
    set_dns(other, api.get(PeeringConnection, peering_id).accepter.vpc_id)
    other.call(modify, AccepterPeeringConnectionOptions=DNS, **peering)
    shown = describe(api, peering_id)
    assert shown["AccepterVpcInfo"]["PeeringOptions"]["AllowDnsResolutionFromRemoteVpc"] is True
    assert shown["RequesterVpcInfo"]["PeeringOptions"]["AllowDnsResolutionFromRemoteVpc"] is False


def test_options_that_are_refused(api: Api, pair: tuple[str, str]) -> None:
    peering = {"VpcPeeringConnectionId": put_peering(api, pair[0], api, pair[1])}
    modify = "ModifyVpcPeeringConnectionOptions"
    assert api.refused(modify, **peering).code == "MissingParameter"
    classic = {"AllowEgressFromLocalClassicLinkToRemoteVpc": True}
    assert api.refused(modify, RequesterPeeringConnectionOptions=classic, **peering).code == "UnsupportedOperation"
    declined = dict.fromkeys(classic, False)
    api.call(modify, RequesterPeeringConnectionOptions=declined, **peering)


def test_names_are_offered_only_by_a_vpc_that_has_them(api: Api, pair: tuple[str, str]) -> None:
    peering = {"VpcPeeringConnectionId": put_peering(api, pair[0], api, pair[1])}
    modify = "ModifyVpcPeeringConnectionOptions"
    for support, hostnames in ((True, False), (False, False), (False, True)):
        set_dns(api, pair[0], support=support, hostnames=hostnames)
        error = api.refused(modify, RequesterPeeringConnectionOptions=DNS, **peering)
        assert error.code == "InvalidVpcPeeringConnectionState.DnsHostnamesDisabled" and pair[0] in error.message
    api.call(modify, RequesterPeeringConnectionOptions=dict.fromkeys(DNS, False), **peering)
    set_dns(api, pair[0])
    api.call(modify, RequesterPeeringConnectionOptions=DNS, **peering)
    set_dns(api, pair[0], hostnames=False)
    api.call(modify, RequesterPeeringConnectionOptions=DNS, **peering)  # as it is: nothing to check
    both = {"RequesterPeeringConnectionOptions": DNS, "AccepterPeeringConnectionOptions": DNS}
    half = api.refused(modify, **both, **peering)
    assert half.code == "InvalidVpcPeeringConnectionState.DnsHostnamesDisabled" and pair[1] in half.message


# --- describe and guards ----------------------------------------------------------------------------------------------


def test_filters_and_pages(api: Api, pair: tuple[str, str]) -> None:
    one, other = pair
    third = make_vpc(api, "10.3.0.0/16")
    first = put_peering(api, one, api, other)
    second = create(api, other, third)["VpcPeeringConnectionId"]

    def found(name: str, value: str) -> set[str]:
        answer = api.call("DescribeVpcPeeringConnections", Filters=[{"Name": name, "Values": [value]}])
        return {each["VpcPeeringConnectionId"] for each in answer["VpcPeeringConnections"]}

    assert found("status-code", "active") == found("status-message", "Active") == {first}
    assert found("requester-vpc-info.vpc-id", other) == found("accepter-vpc-info.vpc-id", third) == {second}
    assert (
        found("requester-vpc-info.cidr-block", "10.0.*") == found("accepter-vpc-info.cidr-block", "10.1.*") == {first}
    )
    assert found("requester-vpc-info.owner-id", api.account) == {first, second}
    assert found("accepter-vpc-info.owner-id", OTHER_ACCOUNT) == set()
    assert found("expiration-time", "2026-01-09T03:04:05.000Z") == {second}
    assert found("vpc-peering-connection-id", first) == {first}
    assert found("tag-key", "x") == set()
    refused = api.refused("DescribeVpcPeeringConnections", Filters=filters(colour="red"))
    assert refused.code == "InvalidParameterValue"
    for _ in range(5):
        put_peering(api, one, api, other, "deleted")
    page = api.call("DescribeVpcPeeringConnections", MaxResults=5)
    rest = api.call("DescribeVpcPeeringConnections", MaxResults=5, NextToken=page["NextToken"])
    assert (len(page["VpcPeeringConnections"]), len(rest["VpcPeeringConnections"])) == (5, 2)


def test_a_vpc_stays_while_it_is_peered_and_takes_requests_with_it(api: Api, pair: tuple[str, str]) -> None:
    one, other = pair
    peering_id = create(api, one, other)["VpcPeeringConnectionId"]
    act(api, "Accept", peering_id)
    error = api.refused("DeleteVpc", VpcId=other)
    assert error.code == "DependencyViolation" and peering_id in error.message
    act(api, "Delete", peering_id)
    asked = create(api, one, other)["VpcPeeringConnectionId"]
    api.call("DeleteVpc", VpcId=other)
    assert state(api, asked) == state(api, peering_id) == "deleted"
    assert "CidrBlock" not in describe(api, asked)["AccepterVpcInfo"]


@pytest.mark.parametrize(("verb", "hours"), [("Delete", 2), ("Reject", 2)])
def test_one_that_has_ended_is_shown_for_a_while(api: Api, pair: tuple[str, str], verb: str, hours: int) -> None:
    peering_id = create(api, *pair)["VpcPeeringConnectionId"]
    act(api, verb, peering_id)
    reconciler = Peerings(api.store, lambda: api.now)
    reconciler.step(peering_id)
    assert describe(api, peering_id)["Status"]["Code"] == {"Delete": "deleted", "Reject": "rejected"}[verb]
    api.advance(hours * 3600)
    reconciler.step(peering_id)
    wanted = {"VpcPeeringConnectionIds": [peering_id]}
    error = api.refused("DescribeVpcPeeringConnections", **wanted)
    assert error.code == "InvalidVpcPeeringConnectionID.NotFound"

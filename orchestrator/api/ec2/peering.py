"""VPC peering connections: one account asks for one, the other side takes it or not, either side ends it.

    CreateVpcPeeringConnection ──► pending-acceptance ──AcceptVpcPeeringConnection──► active
                   │                     │  └──RejectVpcPeeringConnection──► rejected    │
                   ▼                     └────DeleteVpcPeeringConnection──► deleted ◄────┘
                failed: ranges overlap, or there is no such VPC

A connection is one row, which both sides see, each in its own region. Those that nobody answers expire, and those that
have ended are forgotten, by the reconciler. Source: "VPC peering connection lifecycle" in the VPC peering guide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any, Final

from orchestrator.api.ec2.launch_options import Structure
from orchestrator.api.operation import Answer, Call, operation, show_page
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of, unsupported
from orchestrator.model.filters import FilterTable, Value, compile_filters
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import PeeringConnection, PeeringSide, Vpc

ANSWERED_WITHIN: Final = timedelta(days=7)
PENDING: Final = "pending-acceptance"
_ACCOUNT: Final = re.compile(r"[0-9]{12}")

# --- rows -------------------------------------------------------------------------------------------------------------


def find_peering(call: Call, peering_id: str) -> PeeringConnection:
    """One that the caller is a side of, in this region."""
    return _find_visible(call, [peering_id])[0]


def _find_visible(call: Call, peering_ids: Iterable[str]) -> list[PeeringConnection]:
    wanted = list(dict.fromkeys(ids.check("pcx", peering_id) for peering_id in peering_ids))
    found = [call.db.get(PeeringConnection, peering_id) for peering_id in wanted]
    visible = [peering.as_of(call.now) for peering in found if peering is not None and _sees(call, peering)]
    if len(visible) < len(wanted):
        have = {peering.id for peering in visible}
        raise ids.missing("pcx", [peering_id for peering_id in wanted if peering_id not in have])
    return visible


def _sees(call: Call, peering: PeeringConnection) -> bool:
    """What has failed never came to the accepter."""
    return _is_side(call, peering.requester) or (peering.state != "failed" and _is_side(call, peering.accepter))


def _is_side(call: Call, side: PeeringSide) -> bool:
    return (side.account, side.region) == (call.account, call.region)


def _check_state(peering: PeeringConnection, to: str, *allowed: str) -> None:
    if peering.state not in allowed:
        raise EC2Error(
            "InvalidStateTransition",
            f"Invalid state transition for {peering.id}, attempted to transition from {peering.state} to {to}",
        )


def _check_accepter(call: Call, peering: PeeringConnection, verb: str) -> None:
    side = peering.accepter
    if not _is_side(call, side):
        raise EC2Error(
            "OperationNotPermitted",
            f"User {call.account} cannot {verb} peering {peering.id} in {call.region}: {side.account} can, in "
            f"{side.region}",
        )


def _put(call: Call, peering: PeeringConnection) -> PeeringConnection:
    stored = call.tx.put(peering)
    call.tx.wake(stored)
    return stored


# --- create -----------------------------------------------------------------------------------------------------------


@operation("CreateVpcPeeringConnection", writes=True)
def create_vpc_peering_connection(
    call: Call,
    *,
    vpc_id: str,
    peer_vpc_id: str | None = None,
    peer_owner_id: str | None = None,
    peer_region: str | None = None,
    tag_specifications: list[Structure] | None = None,
) -> Answer:
    """Ranges that overlap, or another's VPC that is not there, make a connection that has failed, as in EC2."""
    tags = tags_at_creation(tag_specifications, "vpc-peering-connection")["vpc-peering-connection"]
    vpc = call.find(Vpc, "vpc", vpc_id)
    if not peer_vpc_id:
        raise missing_parameter("PeerVpcId")
    accepter = PeeringSide(
        account=_read_account(call, peer_owner_id),
        region=_read_region(call, peer_region),
        vpc_id=ids.check("vpc", peer_vpc_id),
    )
    if accepter.vpc_id == vpc.id:
        raise EC2Error("InvalidParameterValue", f"A VPC cannot be peered with itself: PeerVpcId is {vpc.id} as well")
    peer = _vpc_of(call, accepter)
    if peer is None and _is_side(call, accepter):
        raise ids.missing("vpc", [accepter.vpc_id])
    for other in call.tx.all(PeeringConnection, vpc_ids=vpc.id):
        standing = other.as_of(call.now).state in (PENDING, "active")
        if accepter.vpc_id in other.vpc_ids and standing and peer is not None:
            raise EC2Error(
                "VpcPeeringConnectionAlreadyExists",
                f"{other.id} connects {vpc.id} and {accepter.vpc_id}, and is {other.state}",
            )
    failed = peer is None or _overlap(vpc, peer)
    peering = PeeringConnection(
        id=ids.mint("pcx"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags,
        requester=PeeringSide(account=vpc.account, region=vpc.region, vpc_id=vpc.id),
        accepter=accepter,
        state="failed" if failed else PENDING,
        expires=None if failed else call.now + ANSWERED_WITHIN,
        ended_at=call.now if failed else None,
    )
    return {"VpcPeeringConnection": _show(call, _put(call, peering))}


def _read_account(call: Call, account: str | None) -> str:
    if account is None:
        return call.account
    if not _ACCOUNT.fullmatch(account):
        raise invalid_parameter("PeerOwnerId", account, "an account's 12 digits")
    return account


def _read_region(call: Call, region: str | None) -> str:
    if region is None or call.settings.any_region:
        return region or call.region
    return one_of("PeerRegion", region, dict.fromkeys((*call.settings.regions, call.region)))


def _vpc_of(call: Call, side: PeeringSide) -> Vpc | None:
    vpc = call.db.get(Vpc, side.vpc_id)
    return vpc if vpc is not None and (vpc.account, vpc.region) == (side.account, side.region) else None


def _overlap(one: Vpc, other: Vpc) -> bool:
    def ranges(vpc: Vpc) -> list[Any]:
        return [ip_network(cidr) for cidr in (*vpc.cidrs, *(each.cidr for each in vpc.ipv6_cidrs))]

    return any(mine.version == his.version and mine.overlaps(his) for mine in ranges(one) for his in ranges(other))


# --- answer and end ---------------------------------------------------------------------------------------------------


@operation("AcceptVpcPeeringConnection", writes=True)
def accept_vpc_peering_connection(call: Call, *, vpc_peering_connection_id: str) -> Answer:
    """A range that one of the VPCs got since, and that overlaps, makes it fail."""
    peering = find_peering(call, vpc_peering_connection_id)
    _check_accepter(call, peering, "accept")
    _check_state(peering, "active", PENDING)
    vpc, peer = _vpc_of(call, peering.requester), _vpc_of(call, peering.accepter)
    if vpc is None or peer is None or _overlap(vpc, peer):
        failed = _put(call, replace(peering, state="failed", expires=None, ended_at=call.now))
        return {"VpcPeeringConnection": _show(call, failed)}
    active = _put(call, replace(peering, state="active", expires=None))
    call.wake_vpcs(*active.vpc_ids)
    return {"VpcPeeringConnection": _show(call, active)}


@operation("RejectVpcPeeringConnection", writes=True)
def reject_vpc_peering_connection(call: Call, *, vpc_peering_connection_id: str) -> Answer:
    peering = find_peering(call, vpc_peering_connection_id)
    _check_accepter(call, peering, "reject")
    _check_state(peering, "rejected", PENDING)
    _put(call, replace(peering, state="rejected", message=f"Rejected by {call.account}", ended_at=call.now))
    return {"Return": True}


@operation("DeleteVpcPeeringConnection", writes=True)
def delete_vpc_peering_connection(call: Call, *, vpc_peering_connection_id: str) -> Answer:
    """Either side ends an active one; one that is not answered yet, its requester alone. Routes to it lead nowhere."""
    peering = find_peering(call, vpc_peering_connection_id)
    _check_state(peering, "deleted", PENDING, "active")
    if peering.state == PENDING and not _is_side(call, peering.requester):
        raise EC2Error(
            "OperationNotPermitted",
            f"User {call.account} cannot delete peering {peering.id}, which is {PENDING}: reject it",
        )
    _put(call, replace(peering, state="deleted", message=f"Deleted by {call.account}", ended_at=call.now))
    call.wake_vpcs(*peering.vpc_ids)
    return {"Return": True}


# --- options ----------------------------------------------------------------------------------------------------------

_DNS: Final = "AllowDnsResolutionFromRemoteVpc"
_DECLINED: Final = (
    "AllowEgressFromLocalClassicLinkToRemoteVpc",
    "AllowEgressFromLocalVpcToRemoteClassicLink",
    "AllowMultipathResilience",
)


@operation("ModifyVpcPeeringConnectionOptions", writes=True)
def modify_vpc_peering_connection_options(
    call: Call,
    *,
    vpc_peering_connection_id: str,
    requester_peering_connection_options: Structure | None = None,
    accepter_peering_connection_options: Structure | None = None,
) -> Answer:
    """One's own side's alone. Where both VPCs are of one account and region, that is both."""
    peering = find_peering(call, vpc_peering_connection_id)
    given = {"requester": requester_peering_connection_options, "accepter": accepter_peering_connection_options}
    if not any(options is not None for options in given.values()):
        raise missing_parameter("RequesterPeeringConnectionOptions or AccepterPeeringConnectionOptions")
    if peering.state != "active":
        raise EC2Error(
            "OperationNotPermitted",
            f"Peering {peering.id} is not active. Peering options can be added only to active peerings.",
        )
    answer: Answer = {}
    changed = peering
    for name, options in given.items():
        if options is None:
            continue
        member = f"{name.capitalize()}PeeringConnectionOptions"
        side: PeeringSide = getattr(peering, name)
        if not _is_side(call, side):
            raise EC2Error(
                "OperationNotPermitted",
                f"User {call.account} cannot modify {member} of {peering.id} in {call.region}: {side.account} can, in "
                f"{side.region}",
            )
        allow_dns = _read_options(member, options, side.allow_dns)
        if allow_dns and not side.allow_dns:
            _check_dns(call, side)
        side = replace(side, allow_dns=allow_dns)
        changed = replace(changed, **{name: side})  # type: ignore[arg-type]
        answer[member] = _show_options(side)
    if changed != peering:
        call.tx.put(changed)
        call.wake_vpcs(*changed.vpc_ids)
    return answer


def _read_options(member: str, options: Structure, allow_dns: bool) -> bool:
    for name, value in options.items():
        if name != _DNS and (name not in _DECLINED or value):
            raise unsupported(f"{member}.{name} is not offered here: {_DNS} is")
    allowed: bool = options.get(_DNS, allow_dns)
    return allowed


def _check_dns(call: Call, side: PeeringSide) -> None:
    """That there are names of this side's VPC which the other may resolve."""
    vpc = _vpc_of(call, side)
    if vpc is None or not (vpc.enable_dns_support and vpc.enable_dns_hostnames):
        raise EC2Error(
            "InvalidVpcPeeringConnectionState.DnsHostnamesDisabled",
            f"{_DNS} needs DNS hostnames and DNS support in {side.vpc_id}: enable them with ModifyVpcAttribute",
        )


def _show_options(side: PeeringSide) -> Answer:
    return {
        _DNS: side.allow_dns,
        "AllowEgressFromLocalClassicLinkToRemoteVpc": False,
        "AllowEgressFromLocalVpcToRemoteClassicLink": False,
    }


# --- describe ---------------------------------------------------------------------------------------------------------


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _expiration(peering: PeeringConnection) -> datetime | None:
    return peering.expires if peering.state in (PENDING, "expired") else None


def _message(peering: PeeringConnection) -> str:
    if peering.message:
        return peering.message
    if peering.state == PENDING:
        return f"Pending Acceptance by {peering.accepter.account}"
    if peering.state == "failed":
        return "Failed due to incorrect VPC-ID, Account ID, or overlapping CIDR range"
    return peering.state.capitalize()


def _shown_vpc(call: Call, peering: PeeringConnection, side: PeeringSide) -> Vpc | None:
    """The VPC whose ranges may be shown: the accepter's only to its own side, or when the connection is active."""
    if side is peering.accepter and peering.state != "active" and not _is_side(call, side):
        return None
    return _vpc_of(call, side)


def peering_filters(call: Call) -> FilterTable:
    def cidrs(name: str) -> Callable[[PeeringConnection], Value]:
        def value(peering: PeeringConnection) -> Value:
            vpc = _shown_vpc(call, peering, getattr(peering, name))
            return vpc.cidrs if vpc is not None else None

        return value

    def expiration(peering: PeeringConnection) -> Value:
        at = _expiration(peering)
        return _time(at) if at is not None else None

    return {
        "accepter-vpc-info.cidr-block": cidrs("accepter"),
        "accepter-vpc-info.owner-id": lambda peering: peering.accepter.account,
        "accepter-vpc-info.vpc-id": lambda peering: peering.accepter.vpc_id,
        "expiration-time": expiration,
        "requester-vpc-info.cidr-block": cidrs("requester"),
        "requester-vpc-info.owner-id": lambda peering: peering.requester.account,
        "requester-vpc-info.vpc-id": lambda peering: peering.requester.vpc_id,
        "status-code": lambda peering: peering.state,
        "status-message": _message,
        "vpc-peering-connection-id": lambda peering: peering.id,
    }


@operation("DescribeVpcPeeringConnections", listing=True)
def describe_vpc_peering_connections(call: Call, *, vpc_peering_connection_ids: list[str] | None = None) -> Answer:
    if vpc_peering_connection_ids:
        found = _find_visible(call, vpc_peering_connection_ids)
    else:
        found = [peering.as_of(call.now) for peering in call.db.all(PeeringConnection) if _sees(call, peering)]
    if filters := call.params.get("Filters"):
        test = compile_filters(
            filters, peering_filters(call), lambda peering: peering.tags_of(call.account, call.region)
        )
        found = [peering for peering in found if test(peering)]
    return show_page(call, "VpcPeeringConnections", found, lambda peering: _show(call, peering))


def _show(call: Call, peering: PeeringConnection) -> Answer:
    shown: Answer = {
        "VpcPeeringConnectionId": peering.id,
        "RequesterVpcInfo": _show_side(call, peering, peering.requester),
        "AccepterVpcInfo": _show_side(call, peering, peering.accepter),
        "Status": {"Code": peering.state, "Message": _message(peering)},
        "Tags": tag_set(peering.tags_of(call.account, call.region)),
    }
    expiration = _expiration(peering)
    if expiration is not None:
        shown["ExpirationTime"] = expiration
    return shown


def _show_side(call: Call, peering: PeeringConnection, side: PeeringSide) -> Answer:
    shown: Answer = {"OwnerId": side.account, "VpcId": side.vpc_id, "Region": side.region}
    vpc = _shown_vpc(call, peering, side)
    if vpc is not None:
        shown |= {
            "CidrBlock": vpc.cidr,
            "CidrBlockSet": [{"CidrBlock": cidr} for cidr in vpc.cidrs],
            "Ipv6CidrBlockSet": [{"Ipv6CidrBlock": each.cidr} for each in vpc.ipv6_cidrs],
            "PeeringOptions": _show_options(side),
        }
    return shown

"""CloudTrail's LookupEvents: an account's own events in a region, newest first.

The events are those of the audit log. An answer may have fewer events than asked for, or none, and still a token: a
call reads so much of the log and no more, so that a rare name does not hold others up.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import msgspec

from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import EC2Error
from orchestrator.store import Store

Event = dict[str, Any]

KEPT: Final = timedelta(days=90)  # how far back one can look, as on AWS
MOST_RESULTS: Final = 50
_MOST_READ: Final = 100_000  # events, by one call
_OUT_OF_ORDER: Final = timedelta(days=1)  # events of calls that took long, and of a clock that was set, come late

# CloudTrail's names of what ids stand for: AWS CloudFormation's resource types.
_TYPES: Final = {
    "i": "Instance",
    "ami": "Ami",
    "vol": "Volume",
    "snap": "Snapshot",
    "vpc": "VPC",
    "subnet": "Subnet",
    "sg": "SecurityGroup",
    "eni": "NetworkInterface",
    "igw": "InternetGateway",
    "eigw": "EgressOnlyInternetGateway",
    "rtb": "RouteTable",
    "acl": "NetworkAcl",
    "dopt": "DHCPOptions",
    "eipalloc": "EIP",
    "nat": "NatGateway",
    "pcx": "VPCPeeringConnection",
    "pl": "PrefixList",
    "vpce": "VPCEndpoint",
    "fl": "FlowLog",
    "key": "KeyPair",
}
_ID: Final = re.compile(r'"((' + "|".join(sorted(_TYPES, key=len, reverse=True)) + r')-(?:[0-9a-f]{17}|[0-9a-f]{8}))"')
_NAMED: Final = {
    "userName": "AWS::IAM::User",
    "roleName": "AWS::IAM::Role",
    "groupName": "AWS::IAM::Group",
    "policyArn": "AWS::IAM::Policy",
    "instanceProfileName": "AWS::IAM::InstanceProfile",
    "keyId": "AWS::KMS::Key",
    "keyName": "AWS::EC2::KeyPair",
}


@operation("LookupEvents", service="cloudtrail")
def lookup_events(
    call: Call,
    *,
    lookup_attributes: list[dict[str, Any]] | None = None,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
    event_category: str | None = None,
    max_results: int = MOST_RESULTS,
    next_token: str | None = None,
) -> Answer:
    if event_category is not None:
        raise EC2Error("InvalidEventCategoryException", "There are no insight events here: leave EventCategory out")
    if not 1 <= max_results <= MOST_RESULTS:
        raise EC2Error("InvalidMaxResultsException", f"MaxResults must be from 1 to {MOST_RESULTS}, not {max_results}")
    oldest = call.now - KEPT
    start, end = _utc(start_time) or oldest, _utc(end_time) or call.now + _OUT_OF_ORDER
    if start > end:
        raise EC2Error("InvalidTimeRangeException", "StartTime must not be after EndTime")
    start = max(start, oldest)
    parts, is_wanted = _attribute(lookup_attributes or [])
    own = (_json("recipientAccountId", call.account), _json("awsRegion", call.region))
    below = _read_token(call, next_token) if next_token else 0
    found: list[Answer] = []
    position, more = below, False
    for number, event in _read(call, below, (*own, *parts)):
        position = number
        if event is None:
            more = True
            break
        at = datetime.fromisoformat(event["eventTime"])
        if at < start - _OUT_OF_ORDER:
            break
        if start <= at <= end and is_wanted(event):
            found.append(_show(event, at))
            if len(found) == max_results:
                more = number > 1
                break
    answer: Answer = {"Events": found}
    if more:
        answer["NextToken"] = _make_token(call, position)
    return answer


def _read(call: Call, below: int, parts: Iterable[bytes]) -> Iterator[tuple[int, Event | None]]:
    """Numbers and events, newest first; None after the number below which another call is to go on."""
    if not isinstance(call.db, Store):
        raise TypeError(f"{call.action} only reads")
    reading = call.db.trail.newest(below, tuple(parts))
    for number, document in islice(reading, _MOST_READ):
        if document is not None:
            yield number, msgspec.json.decode(document)
    rest = next(reading, None)
    if rest is not None:
        yield rest[0] + 1, None


def _attribute(given: list[dict[str, Any]]) -> tuple[tuple[bytes, ...], Callable[[Event], bool]]:
    """What an event's JSON must contain, and what must be true of it then."""
    if not given:
        return (), lambda event: True
    if len(given) > 1:
        raise EC2Error("InvalidLookupAttributesException", "LookupAttributes can have one attribute, and no more")
    key, value = given[0]["AttributeKey"], given[0]["AttributeValue"]
    if key == "ReadOnly":
        if value not in ("true", "false"):
            raise EC2Error("InvalidLookupAttributesException", f"ReadOnly is true or false, not '{value[:64]}'")
        return (f'"readOnly":{value}'.encode(),), lambda event: bool(event["readOnly"]) is (value == "true")
    member = {"EventId": "eventID", "EventName": "eventName", "EventSource": "eventSource"}.get(key)
    if member is not None:
        return (_json(member, value),), lambda event: bool(event.get(member) == value)
    if key == "AccessKeyId":
        return (_json("accessKeyId", value),), lambda event: bool(event["userIdentity"].get("accessKeyId") == value)
    if key == "Username":
        return (), lambda event: _username(event) == value
    if key in ("ResourceName", "ResourceType"):
        parts = (json.dumps(value)[1:-1].encode(),) if key == "ResourceName" else ()
        return parts, lambda event: any(resource[key] == value for resource in _resources(event))
    raise EC2Error("InvalidLookupAttributesException", f"'{key[:64]}' is not an attribute to look events up by")


def _json(name: str, value: str) -> bytes:
    return b'"%s":%s' % (name.encode(), msgspec.json.encode(value))


def _show(event: Event, at: datetime) -> Answer:
    shown: Answer = {
        "EventId": event["eventID"],
        "EventName": event["eventName"],
        "ReadOnly": "true" if event["readOnly"] else "false",
        "EventTime": at,
        "EventSource": event["eventSource"],
        "Resources": _resources(event),
        "CloudTrailEvent": json.dumps(event, separators=(",", ":")),
    }
    if access_key := event["userIdentity"].get("accessKeyId"):
        shown["AccessKeyId"] = access_key
    if username := _username(event):
        shown["Username"] = username
    return shown


def _username(event: Event) -> str:
    identity = event["userIdentity"]
    if identity.get("type") == "Root":
        return "root"
    if identity.get("type") == "AssumedRole":
        return str(identity.get("arn", "")).rpartition("/")[2]
    return str(identity.get("userName", ""))


def _resources(event: Event) -> list[dict[str, str]]:
    """What an event names, once each: by its ids, and by the names that IAM and KMS go by."""
    if event["eventSource"] == "cloudtrail.amazonaws.com":
        return []  # it asks about them, and does nothing with them
    found: dict[str, str] = {}
    members = {name: event.get(name) for name in ("requestParameters", "responseElements")}
    for resource_id, prefix in _ID.findall(json.dumps(members)):
        found.setdefault(resource_id, f"AWS::EC2::{_TYPES[prefix]}")
    for name, value in (members["requestParameters"] or {}).items():
        if name in _NAMED and isinstance(value, str):
            security_group = name == "groupName" and event["eventSource"] == "ec2.amazonaws.com"
            found.setdefault(value, "AWS::EC2::SecurityGroup" if security_group else _NAMED[name])
    return [{"ResourceType": kind, "ResourceName": name} for name, kind in found.items()]


def _utc(given: datetime | None) -> datetime | None:
    return given if given is None or given.tzinfo else given.replace(tzinfo=UTC)


def _make_token(call: Call, below: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([_of_request(call), below]).encode()).decode()


def _read_token(call: Call, token: str) -> int:
    try:
        request, below = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, TypeError, RecursionError):
        request, below = "", 0
    if request != _of_request(call) or not isinstance(below, int) or below < 1:
        raise EC2Error("InvalidNextTokenException", "The token is not one that this request was given")
    return below


def _of_request(call: Call) -> str:
    """A token goes on with the request that it was given to."""
    same = {name: value for name, value in call.params.items() if name not in ("NextToken", "MaxResults")}
    text = json.dumps([call.account, call.region, same], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

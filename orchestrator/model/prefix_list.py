"""Prefix lists: named sets of ranges that rules and routes refer to.

A list's owner changes it, and each change of its entries is a new version; earlier ones stay readable. Those that come
with a region, AWS's own, are rows as well, of an id that follows from the name: they are the same in every deployment.
Their content is of a documentation range (RFC 5737), since no such service stands behind them.

Source: "Managed prefix lists" in the Amazon VPC user guide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final

from orchestrator.model.errors import EC2Error, invalid_parameter
from orchestrator.model.vpc import PrefixEntry, PrefixList

AWS: Final = "AWS"  # who owns the lists that come with a region
SERVICES: Final = {"s3": "198.51.100.0/25", "dynamodb": "198.51.100.128/25"}

MAX_ENTRIES: Final = 1000  # of one list
MAX_VERSIONS: Final = 1000  # of one list, the current one included; older ones are forgotten
MAX_CHANGES: Final = 100  # entries of one request
MAX_NAME: Final = 255
FAMILIES: Final = {"IPv4": IPv4Network, "IPv6": IPv6Network}


@cache
def service_list_name(region: str, service: str) -> str:
    return f"com.amazonaws.{region}.{service}"


@cache
def service_list_id(name: str) -> str:
    """Of the list that comes with a region; `name` is also that of the service: com.amazonaws.us-east-1.s3."""
    return "pl-" + hashlib.sha256(name.encode()).hexdigest()[:8]


def service_lists(region: str, now: datetime) -> list[PrefixList]:
    """What comes with a region."""
    return [
        PrefixList(
            id=service_list_id(service_list_name(region, service)),
            account=AWS,
            region=region,
            created=now,
            name=service_list_name(region, service),
            family="IPv4",
            max_entries=1,
            entries=(PrefixEntry(cidr=cidr),),
        )
        for service, cidr in SERVICES.items()
    ]


def read_entries(given: Iterable[Mapping[str, Any]], family: str) -> list[PrefixEntry]:
    """A request's entries in canonical form; none of them twice."""
    entries: list[PrefixEntry] = []
    for each in given:
        description = each.get("Description") or ""
        if len(description) > MAX_NAME:
            raise invalid_parameter("Description", description[:MAX_NAME], f"at most {MAX_NAME} characters")
        entries.append(PrefixEntry(cidr=read_entry(each.get("Cidr") or "", family), description=description))
    if len(entries) > MAX_CHANGES:
        raise invalid_parameter("Entries", f"{len(entries)} entries", f"at most {MAX_CHANGES} in one request")
    if len({entry.cidr for entry in entries}) < len(entries):
        raise EC2Error("InvalidParameterValue", "The same CIDR must not appear multiple times among the entries")
    return entries


def read_entry(text: str, family: str) -> str:
    address, slash, length = text.partition("/")
    try:
        if not slash or not (length.isascii() and length.isdigit()) or "%" in address:
            raise ValueError(text)
        return str(FAMILIES[family]((address, int(length)), strict=False))
    except ValueError:
        raise invalid_parameter("Cidr", text[:64], f"a range of {family} addresses, as the list is of") from None


def check_size(entries: int, max_entries: int) -> None:
    if entries > max_entries:
        raise EC2Error(
            "PrefixListMaxEntriesExceeded",
            f"The prefix list has room for {max_entries} entries; there would be {entries}",
        )

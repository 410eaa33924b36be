"""DHCP options: what the guests of a VPC are told besides their addresses. A set never changes; a VPC takes another."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from orchestrator.api.operation import Answer, Call, describe, operation
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, dependency_violation, invalid_parameter, missing_parameter
from orchestrator.model.filters import FilterTable
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import LONGEST_DHCP_OPTION, DhcpOptions, Vpc

NONE: Final = "default"  # associated: the VPC has no options
AMAZON: Final = "AmazonProvidedDNS"
NODE_TYPES: Final = ("1", "2", "4", "8")
LEASE_TIMES_S: Final = range(140, 2147483647 + 1)

_DOMAIN: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")


# --- what may be said -------------------------------------------------------------------------------------------------


def _addresses(key: str, values: Sequence[str], *, versions: tuple[int, ...], words: tuple[str, ...] = ()) -> None:
    """Up to four of each version."""
    found: list[int] = []
    for value in values:
        if value in words:
            continue
        try:
            if "%" in value:  # a zone may be any text, and names an interface of nobody's
                raise ValueError(value)
            found.append(ip_address(value).version)
        except ValueError:
            allowed = " or ".join((*(f"an IPv{version} address" for version in versions), *words))
            raise invalid_parameter(key, value, allowed) from None
        if found[-1] not in versions:
            raise invalid_parameter(key, value, " or ".join(f"an IPv{version} address" for version in versions))
    if any(found.count(version) > 4 for version in versions) or (words and len(values) > 4):
        raise invalid_parameter(key, ", ".join(values), "at most four addresses")


def _domain_name(key: str, values: Sequence[str]) -> None:
    """One value, of one name or several with spaces between them."""
    if len(values) > 1:
        raise invalid_parameter(key, ", ".join(values), "one value; names in it are separated by spaces")
    if len(values[0]) > LONGEST_DHCP_OPTION:
        raise invalid_parameter(key, f"{len(values[0])} characters", f"at most {LONGEST_DHCP_OPTION}: one DHCP option")
    for name in values[0].split():
        if not _DOMAIN.fullmatch(name):
            raise invalid_parameter(key, name, "a domain name, as in example.com")


def _node_type(key: str, values: Sequence[str]) -> None:
    if len(values) > 1 or values[0] not in NODE_TYPES:
        raise invalid_parameter(key, ", ".join(values), f"one of {', '.join(NODE_TYPES)}")


def _lease_time(key: str, values: Sequence[str]) -> None:
    single = values[0] if len(values) == 1 else ""
    if not (single.isascii() and single.isdigit() and len(single) <= 10 and int(single) in LEASE_TIMES_S):
        raise invalid_parameter(key, ", ".join(values), f"seconds, from {LEASE_TIMES_S[0]} to {LEASE_TIMES_S[-1]}")


CHECKS: Final[dict[str, Callable[[str, Sequence[str]], None]]] = {
    "domain-name": _domain_name,
    "domain-name-servers": lambda key, values: _addresses(key, values, versions=(4, 6), words=(AMAZON,)),
    "ntp-servers": lambda key, values: _addresses(key, values, versions=(4, 6)),
    "netbios-name-servers": lambda key, values: _addresses(key, values, versions=(4,)),
    "netbios-node-type": _node_type,
    "ipv6-address-preferred-lease-time": _lease_time,
}


def read_options(given: Sequence[Answer]) -> dict[str, tuple[str, ...]]:
    """A request's DhcpConfigurations. Several addresses may stand in one value, with commas between them."""
    options: dict[str, tuple[str, ...]] = {}
    for each in given:
        key = each.get("Key") or ""
        if key not in CHECKS:
            raise invalid_parameter("DhcpConfiguration.Key", key, f"one of {', '.join(CHECKS)}")
        if key in options:
            raise EC2Error("InvalidParameterValue", f"The DHCP option {key} is given twice")
        parts = (part for value in each.get("Values") or () for part in value.split(","))
        values = tuple(" ".join(part.split()) for part in parts if part.strip())  # no line ends stay between names
        if not values:
            raise missing_parameter(f"DhcpConfiguration.Values of {key}")
        CHECKS[key](key, values)
        options[key] = values
    if not options:
        raise missing_parameter("DhcpConfiguration")
    return options


# --- operations -------------------------------------------------------------------------------------------------------


@operation("CreateDhcpOptions", writes=True)
def create_dhcp_options(
    call: Call, *, dhcp_configurations: list[Answer], tag_specifications: list[Answer] | None = None
) -> Answer:
    options = DhcpOptions(
        id=ids.mint("dopt"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags_at_creation(tag_specifications, "dhcp-options")["dhcp-options"],
        options=read_options(dhcp_configurations),
    )
    return {"DhcpOptions": show_dhcp_options(call, call.tx.put(options))}


@operation("DeleteDhcpOptions", writes=True)
def delete_dhcp_options(call: Call, *, dhcp_options_id: str) -> Answer:
    options = call.find(DhcpOptions, "dopt", dhcp_options_id)
    if any(vpc.dhcp_options_id == options.id for vpc in call.mine(Vpc)):
        raise dependency_violation(f"The dhcpOptions '{options.id}' has dependencies and cannot be deleted.")
    call.tx.delete(options)
    return {}


@operation("AssociateDhcpOptions", writes=True)
def associate_dhcp_options(call: Call, *, dhcp_options_id: str, vpc_id: str) -> Answer:
    """`default` takes them away. A guest learns of it when it renews its lease."""
    chosen = "" if dhcp_options_id == NONE else call.find(DhcpOptions, "dopt", dhcp_options_id).id
    vpc = call.find(Vpc, "vpc", vpc_id)
    if vpc.dhcp_options_id != chosen:
        call.tx.wake(call.tx.put(replace(vpc, dhcp_options_id=chosen)))
    return {}


# --- lists ------------------------------------------------------------------------------------------------------------


DHCP_FILTERS: Final[FilterTable] = {
    "dhcp-options-id": lambda options: options.id,
    "key": lambda options: list(options.options),
    "value": lambda options: [value for values in options.options.values() for value in values],
    "owner-id": lambda options: options.account,
}


@describe(
    "DescribeDhcpOptions",
    kind=DhcpOptions,
    answer="DhcpOptions",
    ids_parameter="DhcpOptionsIds",
    prefix="dopt",
    filters=DHCP_FILTERS,
)
def show_dhcp_options(call: Call, options: DhcpOptions) -> Answer:
    return {
        "DhcpOptionsId": options.id,
        "OwnerId": options.account,
        "DhcpConfigurations": [
            {"Key": key, "Values": [{"Value": value} for value in values]} for key, values in options.options.items()
        ],
        "Tags": tag_set(options.tags),
    }

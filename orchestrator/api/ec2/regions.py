"""Regions and Availability Zones: those that the deployment was configured with, and AWS's own where any is taken.

All of them are on this host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeVar

from botocore.loaders import create_loader

from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.errors import EC2Error
from orchestrator.model.filters import FilterTable, compile_filters
from orchestrator.model.zone import zone_id

T = TypeVar("T")

OPTED_IN: Final = "opt-in-not-required"  # of every region and zone: none has to be enabled first


@dataclass(frozen=True, slots=True)
class Region:
    name: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class Zone:
    name: str
    region: str

    @property
    def id(self) -> str:
        return zone_id(self.name)

    @property
    def group(self) -> str:
        return f"{self.region}-zg-1"


@operation("DescribeRegions", listing=True)
def describe_regions(
    call: Call,
    *,
    region_names: list[str] | None = None,
    all_regions: bool = False,
) -> Answer:
    """Every region is enabled, so `all_regions` adds none."""
    names = dict.fromkeys((*call.settings.regions, call.region))
    if call.settings.any_region:
        names = dict.fromkeys((*names, *amazon_regions()))
    if region_names:
        unknown = [name for name in region_names if name not in names]
        if unknown:
            raise EC2Error("InvalidParameterValue", f"Invalid region names provided: '{', '.join(unknown)}'")
        names = dict.fromkeys(region_names)
    regions = [Region(name, f"ec2.{name}.amazonaws.com") for name in names]
    return {
        "Regions": [
            {"RegionName": region.name, "Endpoint": region.endpoint, "OptInStatus": OPTED_IN}
            for region in _filtered(call, regions, REGION_FILTERS)
        ]
    }


@cache
def amazon_regions() -> tuple[str, ...]:
    """The regions of AWS's commercial partition, as botocore knows them."""
    partitions = create_loader().load_data("endpoints")["partitions"]
    return tuple(name for partition in partitions if partition["partition"] == "aws" for name in partition["regions"])


REGION_FILTERS: Final[FilterTable] = {
    "endpoint": lambda region: region.endpoint,
    "opt-in-status": lambda region: OPTED_IN,
    "region-name": lambda region: region.name,
}


@operation("DescribeAvailabilityZones", listing=True)
def describe_availability_zones(
    call: Call,
    *,
    zone_names: list[str] | None = None,
    zone_ids: list[str] | None = None,
    all_availability_zones: bool = False,
) -> Answer:
    """The zones of the call's region; there are no Local Zones for `all_availability_zones` to add."""
    zones = [Zone(name, call.region) for name in call.zones]
    if zone_names:
        zones = _named(zones, zone_names, lambda zone: zone.name, "availability zone")
    if zone_ids:
        zones = _named(zones, zone_ids, lambda zone: zone.id, "availability zone id")
    return {"AvailabilityZones": [show_zone(zone) for zone in _filtered(call, zones, ZONE_FILTERS)]}


def _named(zones: list[Zone], wanted: list[str], name_of: Callable[[Zone], str], noun: str) -> list[Zone]:
    known = {name_of(zone) for zone in zones}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        message = f"Invalid {noun}: [{', '.join(unknown)}]. Expected some of {', '.join(sorted(known))}."
        raise EC2Error("InvalidParameterValue", message)
    return [zone for zone in zones if name_of(zone) in wanted]


def show_zone(zone: Zone) -> Answer:
    return {
        "ZoneName": zone.name,
        "ZoneId": zone.id,
        "ZoneType": "availability-zone",
        "State": "available",
        "RegionName": zone.region,
        "GroupName": zone.group,
        "GroupLongName": f"{zone.region} 1",
        "NetworkBorderGroup": zone.region,
        "OptInStatus": OPTED_IN,
        "Messages": [],
    }


ZONE_FILTERS: Final[FilterTable] = {
    "group-long-name": lambda zone: f"{zone.region} 1",
    "group-name": lambda zone: zone.group,
    "message": lambda zone: None,
    "opt-in-status": lambda zone: OPTED_IN,
    "parent-zone-id": lambda zone: None,
    "parent-zone-name": lambda zone: None,
    "region-name": lambda zone: zone.region,
    "state": lambda zone: "available",
    "zone-id": lambda zone: zone.id,
    "zone-name": lambda zone: zone.name,
    "zone-type": lambda zone: "availability-zone",
}


def _filtered(call: Call, values: Iterable[T], table: FilterTable) -> list[T]:
    filters = call.params.get("Filters")
    if not filters:
        return list(values)
    test = compile_filters(filters, table, None)
    return [value for value in values if test(value)]

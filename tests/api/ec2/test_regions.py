"""DescribeRegions and DescribeAvailabilityZones."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Api


def regions(api: Api, **params: Any) -> list[str]:
    return [region["RegionName"] for region in api.call("DescribeRegions", **params)["Regions"]]


def zones(api: Api, **params: Any) -> list[str]:
    return [zone["ZoneName"] for zone in api.call("DescribeAvailabilityZones", **params)["AvailabilityZones"]]


def test_regions_are_those_configured(api: Api) -> None:
    assert api.call("DescribeRegions", RegionNames=["us-west-2"])["Regions"] == [
        {
            "RegionName": "us-west-2",
            "Endpoint": "ec2.us-west-2.amazonaws.com",
            "OptInStatus": "opt-in-not-required",
        }
    ]
    assert regions(api) == regions(api, AllRegions=True) == ["us-east-1", "us-west-2"]
    error = api.refused("DescribeRegions", RegionNames=["us-east-1", "eu-west-1"])
    assert error.code == "InvalidParameterValue" and "eu-west-1" in error.message


def test_where_any_region_is_taken_amazons_are_there(api: Api) -> None:
    api.configure(any_region=True)
    assert {"us-east-1", "us-west-2", "eu-central-1", "ap-southeast-2"} <= set(regions(api))
    assert "xx-home-1" in regions(api.within("xx-home-1"))
    assert len(regions(api)) == len(set(regions(api)))


@pytest.mark.parametrize(
    ("name", "value"),
    [("region-name", "us-west-?"), ("endpoint", "*west*"), ("region-name", "us-west-2")],
)
def test_region_filters(api: Api, name: str, value: str) -> None:
    assert regions(api, Filters=[{"Name": name, "Values": [value]}]) == ["us-west-2"]


def test_opt_in_status_filter(api: Api) -> None:
    assert len(regions(api, Filters=[{"Name": "opt-in-status", "Values": ["opt-in-not-required", "opted-in"]}])) == 2
    assert regions(api, Filters=[{"Name": "opt-in-status", "Values": ["not-opted-in"]}]) == []


def test_zones_are_the_regions_own(api: Api) -> None:
    assert zones(api) == zones(api, AllAvailabilityZones=True) == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert api.within("us-west-2").call("DescribeAvailabilityZones")["AvailabilityZones"] == [
        {
            "ZoneName": "us-west-2a",
            "ZoneId": "usw2-az1",
            "ZoneType": "availability-zone",
            "State": "available",
            "RegionName": "us-west-2",
            "GroupName": "us-west-2-zg-1",
            "GroupLongName": "us-west-2 1",
            "NetworkBorderGroup": "us-west-2",
            "OptInStatus": "opt-in-not-required",
            "Messages": [],
        }
    ]


def test_zones_by_name_and_id(api: Api) -> None:
    assert zones(api, ZoneNames=["us-east-1c", "us-east-1a"]) == ["us-east-1a", "us-east-1c"]
    assert zones(api, ZoneIds=["use1-az2"]) == ["us-east-1b"]
    assert zones(api, ZoneNames=["us-east-1a"], Filters=[{"Name": "zone-id", "Values": ["use1-az2"]}]) == []
    assert api.refused("DescribeAvailabilityZones", ZoneNames=["us-west-2a"]).code == "InvalidParameterValue"
    assert api.refused("DescribeAvailabilityZones", ZoneIds=["use1-az9"]).code == "InvalidParameterValue"


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("zone-name", "*b", 1),
        ("zone-id", "use1-*", 3),
        ("state", "available", 3),
        ("state", "impaired", 0),
        ("zone-type", "local-zone", 0),
        ("opt-in-status", "opt-in-not-required", 3),
        ("group-name", "us-east-1-zg-1", 3),
        ("region-name", "us-east-1", 3),
        ("message", "*", 0),
    ],
)
def test_zone_filters(api: Api, name: str, value: str, found: int) -> None:
    assert len(zones(api, Filters=[{"Name": name, "Values": [value]}])) == found


def test_unknown_filters(api: Api) -> None:
    for action in ("DescribeRegions", "DescribeAvailabilityZones"):
        for name in ("colour", "tag:Name", "tag-key"):
            error = api.refused(action, Filters=[{"Name": name, "Values": ["x"]}])
            assert error.code == "InvalidParameterValue"
        assert api.refused(action, DryRun=True).code == "DryRunOperation"

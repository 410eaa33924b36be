"""DescribeAccountAttributes."""

from __future__ import annotations

from typing import Any

from orchestrator.model.vpc import Vpc

from .conftest import Api


def attributes(api: Api, **params: Any) -> dict[str, list[str]]:
    answer = api.call("DescribeAccountAttributes", **params)["AccountAttributes"]
    return {
        attribute["AttributeName"]: [value["AttributeValue"] for value in attribute["AttributeValues"]]
        for attribute in answer
    }


def test_all(api: Api) -> None:
    found = attributes(api)
    assert found["supported-platforms"] == ["VPC"]
    assert found["default-vpc"] == [vpc.id for vpc in api.store.all(Vpc)]
    assert set(found) == {
        "supported-platforms",
        "default-vpc",
        "max-instances",
        "max-elastic-ips",
        "vpc-max-elastic-ips",
        "vpc-max-security-groups-per-interface",
    }


def test_by_name(api: Api) -> None:
    assert list(attributes(api, AttributeNames=["supported-platforms", "default-vpc"])) == [
        "supported-platforms",
        "default-vpc",
    ]
    error = api.refused("DescribeAccountAttributes", AttributeNames=["colour"])
    assert error.code == "InvalidParameterValue" and "default-vpc" in error.message


def test_without_a_default_vpc(api: Api) -> None:
    api.call("DescribeAccountAttributes")
    [vpc] = api.store.all(Vpc)
    api.change(vpc, is_default=False)
    assert attributes(api, AttributeNames=["default-vpc"]) == {"default-vpc": ["none"]}

"""DHCP options: made, associated with VPCs, deleted."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.vpc import DhcpOptions, Vpc

from .conftest import ACCOUNT, Api
from .networks import forget_wakes, make_vpc, woken


def option(key: str, *values: str) -> dict[str, Any]:
    return {"Key": key, "Values": list(values)}


def make(api: Api, *options: dict[str, Any]) -> str:
    answer = api.call("CreateDhcpOptions", DhcpConfigurations=list(options or (option("domain-name", "example.com"),)))
    options_id = answer["DhcpOptions"]["DhcpOptionsId"]
    assert isinstance(options_id, str)
    return options_id


def test_new_options(api: Api) -> None:
    tags = [{"Key": "Name", "Value": "x"}]
    shown = api.call(
        "CreateDhcpOptions",
        DhcpConfigurations=[
            option("domain-name", "example.com example.org"),
            option("domain-name-servers", "10.0.0.5,10.0.0.6", "AmazonProvidedDNS"),
            option("ntp-servers", "192.0.2.1", "2001:db8::1"),
            option("netbios-name-servers", "192.0.2.2"),
            option("netbios-node-type", "2"),
            option("ipv6-address-preferred-lease-time", "140"),
        ],
        TagSpecifications=[{"ResourceType": "dhcp-options", "Tags": tags}],
    )["DhcpOptions"]
    assert (shown["OwnerId"], shown["Tags"]) == (ACCOUNT, tags)
    assert shown["DhcpConfigurations"][1] == {
        "Key": "domain-name-servers",
        "Values": [{"Value": "10.0.0.5"}, {"Value": "10.0.0.6"}, {"Value": "AmazonProvidedDNS"}],
    }
    assert api.call("DescribeDhcpOptions", DhcpOptionsIds=[shown["DhcpOptionsId"]])["DhcpOptions"] == [shown]
    assert api.get(DhcpOptions, shown["DhcpOptionsId"]).options["ntp-servers"] == ("192.0.2.1", "2001:db8::1")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], "MissingParameter"),
        ([option("domain-name")], "MissingParameter"),
        ([option("domain-name", "")], "MissingParameter"),
        ([option("domain-name", "a.b", "c.d")], "InvalidParameterValue"),
        ([option("domain-name", "-x.com")], "InvalidParameterValue"),
        ([option("domain-name", "a..b")], "InvalidParameterValue"),
        ([option("domain-name", " ".join(["example.com"] * 22))], "InvalidParameterValue"),  # 263 octets of 255
        ([option("domain-name", "a.b"), option("domain-name", "c.d")], "InvalidParameterValue"),
        ([option("colour", "red")], "InvalidParameterValue"),
        ([option("domain-name-servers", "ns.example.com")], "InvalidParameterValue"),
        ([option("domain-name-servers", *(f"10.0.0.{n}" for n in range(5)))], "InvalidParameterValue"),
        ([option("ntp-servers", "AmazonProvidedDNS")], "InvalidParameterValue"),
        ([option("ntp-servers", *(f"10.0.0.{n}" for n in range(5)))], "InvalidParameterValue"),
        ([option("netbios-name-servers", "2001:db8::1")], "InvalidParameterValue"),
        ([option("netbios-node-type", "3")], "InvalidParameterValue"),
        ([option("ipv6-address-preferred-lease-time", "139")], "InvalidParameterValue"),
        ([option("ipv6-address-preferred-lease-time", "1h")], "InvalidParameterValue"),
    ],
)
def test_options_that_are_refused(api: Api, options: list[dict[str, Any]], code: str) -> None:
    assert api.refused("CreateDhcpOptions", DhcpConfigurations=options).code == code


def test_a_vpc_takes_others_and_none(api: Api) -> None:
    vpc_id, options_id = make_vpc(api), make(api)
    forget_wakes(api)
    assert api.call("AssociateDhcpOptions", DhcpOptionsId=options_id, VpcId=vpc_id) == {}
    assert api.call("DescribeVpcs", VpcIds=[vpc_id])["Vpcs"][0]["DhcpOptionsId"] == options_id
    assert woken(api) == {vpc_id}
    used = api.refused("DeleteDhcpOptions", DhcpOptionsId=options_id)
    assert used.code == "DependencyViolation"
    api.call("AssociateDhcpOptions", DhcpOptionsId="default", VpcId=vpc_id)
    assert api.get(Vpc, vpc_id).dhcp_options_id == "" and woken(api) == {vpc_id}
    assert api.call("DescribeVpcs", VpcIds=[vpc_id])["Vpcs"][0]["DhcpOptionsId"] == "default"
    assert api.call("DeleteDhcpOptions", DhcpOptionsId=options_id) == {}
    assert api.refused("DeleteDhcpOptions", DhcpOptionsId=options_id).code == "InvalidDhcpOptionID.NotFound"


def test_what_association_refuses(api: Api) -> None:
    vpc_id, options_id = make_vpc(api), make(api)

    def code(caller: Api, options: str, vpc: str) -> str:
        return caller.refused("AssociateDhcpOptions", DhcpOptionsId=options, VpcId=vpc).code

    assert code(api, "dopt-00000000000000000", vpc_id) == "InvalidDhcpOptionID.NotFound"
    assert code(api, "x", vpc_id) == "InvalidDhcpOptionID.Malformed"
    assert code(api, options_id, "vpc-00000000000000000") == "InvalidVpcID.NotFound"
    assert code(api.by(), options_id, vpc_id) == "InvalidDhcpOptionID.NotFound"
    assert code(api.by(), "default", vpc_id) == "InvalidVpcID.NotFound"

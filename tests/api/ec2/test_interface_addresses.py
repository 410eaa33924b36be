"""AssignPrivateIpAddresses, UnassignPrivateIpAddresses, AssignIpv6Addresses, UnassignIpv6Addresses."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.addressing import FreeAddresses
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.vpc import NetworkInterface

from .conftest import Api
from .test_network_interfaces import create, subnet_of, woken


@pytest.fixture
def eni(api: Api) -> str:
    """An interface with 172.31.0.4, attached to nothing."""
    made: str = create(api)["NetworkInterfaceId"]
    return made


def row(api: Api, interface_id: str) -> NetworkInterface:
    return api.get(NetworkInterface, interface_id)


def assign(api: Api, interface_id: str, *addresses: str, **params: Any) -> list[str]:
    if addresses:
        params["PrivateIpAddresses"] = list(addresses)
    answer = api.call("AssignPrivateIpAddresses", NetworkInterfaceId=interface_id, **params)
    assert answer["NetworkInterfaceId"] == interface_id
    return [each["PrivateIpAddress"] for each in answer["AssignedPrivateIpAddresses"]]


def test_addresses(api: Api, eni: str) -> None:
    assert assign(api, eni, "172.31.0.50", "172.31.0.51") == ["172.31.0.50", "172.31.0.51"]
    assert assign(api, eni, SecondaryPrivateIpAddressCount=2) == ["172.31.0.5", "172.31.0.6"]
    assert assign(api, eni, "172.31.0.50", "172.31.0.52") == ["172.31.0.52"]  # the first it has
    assert row(api, eni).private_ips == (
        "172.31.0.4",
        "172.31.0.50",
        "172.31.0.51",
        "172.31.0.5",
        "172.31.0.6",
        "172.31.0.52",
    )
    assert row(api, eni).vpc_id in woken(api)
    api.call("UnassignPrivateIpAddresses", NetworkInterfaceId=eni, PrivateIpAddresses=["172.31.0.50", "172.31.0.5"])
    assert row(api, eni).private_ips == ("172.31.0.4", "172.31.0.51", "172.31.0.6", "172.31.0.52")


def test_prefixes(api: Api, eni: str) -> None:
    answer = api.call("AssignPrivateIpAddresses", NetworkInterfaceId=eni, Ipv4PrefixCount=1)
    assert answer["AssignedIpv4Prefixes"] == [{"Ipv4Prefix": "172.31.0.16/28"}]
    answer = api.call("AssignPrivateIpAddresses", NetworkInterfaceId=eni, Ipv4Prefixes=["172.31.0.64/28"])
    assert answer["AssignedIpv4Prefixes"] == [{"Ipv4Prefix": "172.31.0.64/28"}]
    assert row(api, eni).prefixes == ("172.31.0.16/28", "172.31.0.64/28")
    api.call("UnassignPrivateIpAddresses", NetworkInterfaceId=eni, Ipv4Prefixes=["172.31.0.16/28"])
    assert row(api, eni).prefixes == ("172.31.0.64/28",)


def test_an_address_moves_only_when_it_may_and_its_elastic_ip_with_it(api: Api, eni: str) -> None:
    assign(api, eni, "172.31.0.50", "172.31.0.51")
    address = api.call("AllocateAddress")
    api.call(
        "AssociateAddress",
        AllocationId=address["AllocationId"],
        NetworkInterfaceId=eni,
        PrivateIpAddress="172.31.0.50",
    )
    other = create(api)["NetworkInterfaceId"]
    asked = {"NetworkInterfaceId": other, "PrivateIpAddresses": ["172.31.0.50"]}
    assert api.refused("AssignPrivateIpAddresses", **asked).code == "InvalidIPAddress.InUse"
    assert assign(api, other, "172.31.0.50", "172.31.0.60", AllowReassignment=True) == ["172.31.0.50", "172.31.0.60"]
    assert row(api, eni).private_ips == ("172.31.0.4", "172.31.0.51")
    assert row(api, other).private_ips == ("172.31.0.5", "172.31.0.50", "172.31.0.60")
    elastic = api.get(ElasticIp, address["AllocationId"])
    assert (elastic.interface_id, elastic.private_ip) == (other, "172.31.0.50")
    primary = {"NetworkInterfaceId": other, "PrivateIpAddresses": ["172.31.0.4"], "AllowReassignment": True}
    assert api.refused("AssignPrivateIpAddresses", **primary).code == "InvalidIPAddress.InUse"


def test_an_elastic_ip_is_free_when_its_address_goes(api: Api, eni: str) -> None:
    assign(api, eni, "172.31.0.50")
    address = api.call("AllocateAddress")["AllocationId"]
    api.call("AssociateAddress", AllocationId=address, NetworkInterfaceId=eni, PrivateIpAddress="172.31.0.50")
    api.call("UnassignPrivateIpAddresses", NetworkInterfaceId=eni, PrivateIpAddresses=["172.31.0.50"])
    assert api.get(ElasticIp, address).interface_id == ""
    api.call("ReleaseAddress", AllocationId=address)


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "MissingParameter"),
        ({"PrivateIpAddresses": ["172.31.0.9"], "SecondaryPrivateIpAddressCount": 1}, "InvalidParameterCombination"),
        ({"Ipv4PrefixCount": 1, "SecondaryPrivateIpAddressCount": 1}, "InvalidParameterCombination"),
        ({"PrivateIpAddresses": ["172.31.16.9"]}, "InvalidParameterValue"),
        ({"PrivateIpAddresses": ["172.31.0.1"]}, "InvalidParameterValue"),
        ({"PrivateIpAddresses": ["172.31.0.5"]}, "InvalidIPAddress.InUse"),
        ({"PrivateIpAddresses": ["172.31.0.17"]}, "InvalidIPAddress.InUse"),
        ({"PrivateIpAddresses": ["172.31.0.17"], "AllowReassignment": True}, "InvalidIPAddress.InUse"),
        ({"Ipv4Prefixes": ["172.31.0.16/28"]}, "InvalidIPAddress.InUse"),
        ({"SecondaryPrivateIpAddressCount": -2}, "InvalidParameterValue"),
        ({"SecondaryPrivateIpAddressCount": 4000}, "PrivateIpAddressLimitExceeded"),
        ({"SecondaryPrivateIpAddressCount": 5000}, "InsufficientFreeAddressesInSubnet"),
        ({"Ipv4PrefixCount": 300}, "InsufficientCidrBlocks"),
    ],
)
def test_assignments_that_cannot_be(api: Api, eni: str, params: dict[str, Any], code: str) -> None:
    create(api)  # has 172.31.0.5
    create(api, Ipv4PrefixCount=1)  # has 172.31.0.16/28
    assert api.refused("AssignPrivateIpAddresses", NetworkInterfaceId=eni, **params).code == code


def test_the_types_limits(api: Api) -> None:
    [instance_id] = api.launch(InstanceType="t3.nano")  # two interfaces with two addresses each
    [interface] = api.store.all(NetworkInterface, instance_id=instance_id)
    api.call("AssignPrivateIpAddresses", NetworkInterfaceId=interface.id, SecondaryPrivateIpAddressCount=1)
    for params in ({"SecondaryPrivateIpAddressCount": 1}, {"Ipv4PrefixCount": 1}):
        error = api.refused("AssignPrivateIpAddresses", NetworkInterfaceId=interface.id, **params)
        assert error.code == "PrivateIpAddressLimitExceeded" and "t3.nano" in error.message
    subnet_of(api, ipv6=True)
    api.call("AssignIpv6Addresses", NetworkInterfaceId=interface.id, Ipv6AddressCount=2)
    error = api.refused("AssignIpv6Addresses", NetworkInterfaceId=interface.id, Ipv6AddressCount=1)
    assert error.code == "PrivateIpAddressLimitExceeded"


def test_none_is_drawn_of_more_than_an_interface_may_have(api: Api, eni: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subnet has room for any count, and they would be drawn while nobody else can write."""
    subnet_id = subnet_of(api, ipv6=True).id
    monkeypatch.setattr(FreeAddresses, "take_ipv6", lambda self: pytest.fail("an address was drawn"))
    for action, named in (
        ("AssignIpv6Addresses", {"NetworkInterfaceId": eni}),
        ("CreateNetworkInterface", {"SubnetId": subnet_id}),
    ):
        error = api.refused(action, **named, Ipv6AddressCount=2**31 - 1)
        assert error.code == "PrivateIpAddressLimitExceeded" and "2147483647" in error.message


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "MissingParameter"),
        ({"PrivateIpAddresses": ["172.31.0.4"]}, "InvalidParameterValue"),  # the primary one
        ({"PrivateIpAddresses": ["172.31.0.99"]}, "InvalidParameterValue"),
        ({"Ipv4Prefixes": ["172.31.0.16/28"]}, "InvalidParameterValue"),
    ],
)
def test_what_cannot_be_unassigned(api: Api, eni: str, params: dict[str, Any], code: str) -> None:
    assert api.refused("UnassignPrivateIpAddresses", NetworkInterfaceId=eni, **params).code == code


def test_ipv6(api: Api, eni: str) -> None:
    def assign(**params: Any) -> list[str]:
        answer = api.call("AssignIpv6Addresses", NetworkInterfaceId=eni, **params)
        assert answer["NetworkInterfaceId"] == eni
        assigned: list[str] = answer["AssignedIpv6Addresses"]
        return assigned

    def refused(action: str = "AssignIpv6Addresses", **params: Any) -> str:
        return api.refused(action, NetworkInterfaceId=eni, **params).code

    assert refused(Ipv6AddressCount=1) == "InvalidParameterValue"  # the subnet has no range
    subnet_of(api, ipv6=True)
    assert assign(Ipv6Addresses=["2001:DB8:EC00::A"]) == ["2001:db8:ec00::a"]
    [drawn] = assign(Ipv6AddressCount=1)
    assert assign(Ipv6Addresses=["2001:db8:ec00::a", "2001:db8:ec00::b"]) == ["2001:db8:ec00::b"]
    assert row(api, eni).ipv6_addresses == ("2001:db8:ec00::a", drawn, "2001:db8:ec00::b")
    assert refused() == "MissingParameter"
    assert refused(Ipv6Addresses=["2001:db8:ec00::c"], Ipv6AddressCount=1) == "InvalidParameterCombination"
    assert refused(Ipv6Addresses=["2001:db8::1"]) == "InvalidParameterValue"
    assert refused(Ipv6Addresses=["there"]) == "InvalidParameterValue"
    assert refused(Ipv6PrefixCount=1) == "UnsupportedOperation"
    assert refused(Ipv6AddressCount=500) == "PrivateIpAddressLimitExceeded"
    gone = api.call("UnassignIpv6Addresses", NetworkInterfaceId=eni, Ipv6Addresses=["2001:db8:ec00:0::a", drawn])
    assert gone["UnassignedIpv6Addresses"] == ["2001:db8:ec00::a", drawn]
    assert row(api, eni).ipv6_addresses == ("2001:db8:ec00::b",)
    assert refused("UnassignIpv6Addresses", Ipv6Addresses=[drawn]) == "InvalidParameterValue"
    assert refused("UnassignIpv6Addresses") == "MissingParameter"

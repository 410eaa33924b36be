"""What of a subnet is free: single addresses, /28 prefixes and IPv6 addresses, whatever is taken in whatever order."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model.addressing import FreeAddresses, addresses_of
from orchestrator.model.vpc import CidrAssociation, NetworkInterface, Subnet

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def subnet(cidr: str, ipv6: str = "") -> Subnet:
    ranges = (CidrAssociation(id="subnet-cidr-assoc-00000000000000001", cidr=ipv6),) if ipv6 else ()
    return Subnet(id="subnet-1", created=NOW, vpc_id="vpc-1", zone="a", cidr=cidr, ipv6_cidrs=ranges)


def interface(private_ip: str, *more: str, prefixes: tuple[str, ...] = ()) -> NetworkInterface:
    return NetworkInterface(
        id="eni-1",
        created=NOW,
        vpc_id="vpc-1",
        subnet_id="subnet-1",
        zone="a",
        mac="02:00:00:00:00:01",
        private_ip=private_ip,
        more_private_ips=more,
        prefixes=prefixes,
    )


def test_what_interfaces_have_is_taken() -> None:
    free = FreeAddresses(subnet("10.0.0.0/26"), [interface("10.0.0.4", "10.0.0.6", prefixes=("10.0.0.16/28",))])
    assert len(free) == 64 - 5 - 2 - 16
    assert [free.take() for _ in range(2)] == ["10.0.0.5", "10.0.0.7"]
    assert not free.take_this("10.0.0.20") and not free.take_this("10.0.0.6") and not free.take_this("10.0.0.63")
    assert free.take_this("10.0.0.8") and not free.take_this("10.0.0.8")
    assert free.take() == "10.0.0.9"
    assert free.take_prefix() == "10.0.0.32/28"
    assert free.take_prefix() is None  # the first has the reserved addresses, the last the broadcast one


def test_a_small_subnet() -> None:
    free = FreeAddresses(subnet("10.0.0.0/28"), [])
    assert [free.take() for _ in range(12)] == [*(f"10.0.0.{n}" for n in range(4, 15)), None]
    assert len(free) == 0 and free.take_prefix() is None


def test_each_range_is_looked_at_once() -> None:
    """A request may ask for any number of them, while nobody else can write."""
    looked_at: list[IPv4Network] = []

    class Watched(FreeAddresses):
        def take_this_prefix(self, block: IPv4Network) -> bool:
            looked_at.append(block)
            return super().take_this_prefix(block)

    free = Watched(subnet("10.0.0.0/22"), [interface("10.0.0.40")])
    taken = [free.take_prefix() for _ in range(70)]
    assert taken == [*(f"10.0.{n // 16}.{n % 16 * 16}/28" for n in range(1, 63) if n != 2), *[None] * 9]
    assert len(looked_at) == 64


def test_ipv6() -> None:
    free = FreeAddresses(subnet("10.0.0.0/28", "2001:db8::/64"), [])
    for kept in ("2001:db8::", "2001:db8::1", "2001:db8::3", "2001:db8::ffff:ffff:ffff:ffff"):
        assert free.is_reserved_ipv6(kept) and not free.take_this_ipv6(kept)
    assert free.take_this_ipv6("2001:db8::4") and not free.take_this_ipv6("2001:db8::4")
    drawn = {free.take_ipv6() for _ in range(50)}
    assert len(drawn) == 50 and all(IPv6Address(each) in free.ipv6_network for each in drawn)  # type: ignore[operator]


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["any", "this", "prefix", "block"]), st.integers(0, 127)), max_size=60))
def test_nothing_is_given_twice(steps: list[tuple[str, int]]) -> None:
    network = IPv4Network("10.0.0.0/25")
    free = FreeAddresses(subnet(str(network)), [])
    given: list[str] = []
    for kind, number in steps:
        before = len(free)
        got: list[str] = []
        if kind == "any":
            address = free.take()
            got = [address] if address else []
        elif kind == "this":
            address = str(network[number])
            got = [address] if free.take_this(address) else []
        elif kind == "prefix":
            block = free.take_prefix()
            got = addresses_of(IPv4Network(block)) if block else []
        else:
            block = f"10.0.0.{number & ~15}/28"
            got = addresses_of(IPv4Network(block)) if free.take_this_prefix(IPv4Network(block)) else []
        assert len(free) == before - len(got)
        given += got
    assert len(given) == len(set(given))
    kept = {0, 1, 2, 3, 127}
    assert all(int(IPv4Address(each)) & 127 not in kept for each in given)

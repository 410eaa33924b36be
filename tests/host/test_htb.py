"""Queues and classes as the kernel is told of them, beside what `tc` tells it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from orchestrator.host import HostError
from orchestrator.host.command import run
from orchestrator.host.htb import Limits, add_queue, put_class, remove_class, remove_queue, tell
from orchestrator.host.netlink import queue
from tests.host.stage import batch

pytestmark = pytest.mark.host

# Buckets that fill in whole microseconds: tc leaves out the rest.
EACH = {
    0x1: Limits(1_000_000, 1_500_000, 50_000_000, 150_000, 60_000),
    0xA: Limits(1_000, 131_072, 1_000, 131_072, 60_000),
    0x10A: Limits(4_000_000, 1_000_000_000, 625_000_000, 625_000, 60_000),
    0xFFFE: Limits(25_000_000_000, 125_000, 25_000_000_000, 25_000_000, 60_000),
}


def by_tc(link: str) -> None:
    def words(limits: Limits) -> str:
        rate, ceiling = limits.rate_bytes_s * 8, limits.ceiling_bytes_s * 8
        bursts = f"burst {limits.burst_bytes}b cburst {limits.ceiling_burst_bytes}b"
        return f"htb rate {rate}bit ceil {ceiling}bit {bursts} quantum {limits.quantum_bytes}"

    lines = [f"qdisc replace dev {link} root handle 1: htb default 0"]
    lines += [f"class replace dev {link} parent 1: classid 1:{minor:x} {words(each)}" for minor, each in EACH.items()]
    run(["tc", "-batch", "-"], "".join(f"{line}\n" for line in lines))


def shown(link: str) -> list[str]:
    told = run(["tc", "qdisc", "show", "dev", link]) + run(["tc", "-d", "class", "show", "dev", link])
    return sorted(told.replace(link, "LINK").splitlines())


@pytest.fixture
def links(stage: ExitStack) -> tuple[str, str]:
    batch("link add one type veth peer name far1", "link add two type veth peer name far2")
    return "one", "two"


def test_the_kernel_has_what_tc_would_give_it(links: tuple[str, str]) -> None:
    ours, theirs = links
    by_tc(theirs)
    tell([add_queue(ours), *(put_class(ours, minor, limits) for minor, limits in EACH.items())])
    assert shown(ours) == shown(theirs)
    assert len(shown(ours)) == 1 + len(EACH)
    found, other = queue(ours), queue(theirs)
    assert found is not None and other is not None
    assert (found.kind, found.handle) == (other.kind, other.handle)
    assert found.classes.keys() == other.classes.keys() == EACH.keys()


def test_a_class_is_changed_in_its_place_and_goes(links: tuple[str, str]) -> None:
    link, _ = links
    tell([add_queue(link), put_class(link, 1, EACH[0x1]), put_class(link, 2, EACH[0xA])])
    tell([put_class(link, 1, EACH[0x10A]), remove_class(link, 2)])
    [one] = [line for line in shown(link) if line.startswith("class")]
    assert "rate 32Mbit" in one and "ceil 5Gbit" in one
    tell([remove_queue(link)])
    assert queue(link) is None


def test_what_is_not_there_is_an_error_and_ends_the_list(links: tuple[str, str]) -> None:
    link, _ = links
    with pytest.raises(HostError, match="the queue of nowhere could not be changed: there is no such link"):
        tell([put_class("nowhere", 1, EACH[0x1])])
    with pytest.raises(HostError, match="a queue could not be changed"):
        tell([add_queue(link), remove_class(link, 7), put_class(link, 1, EACH[0x1])])
    found = queue(link)
    assert found is not None and not found.classes

"""What the kernel says: links as they change, and the queues that they send by."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from orchestrator.host import netlink
from orchestrator.host.command import run
from orchestrator.host.netlink import Links, links, queue
from tests.host.stage import batch

pytestmark = pytest.mark.host

CHANGES = (
    "link add br0 type bridge",
    "link add tap0 type veth peer name far0",
    "link set tap0 master br0",
    "link set tap0 up",
    "link set tap0 alias ours",
    "link set br0 up arp off",
    "link set tap0 address 02:00:00:00:00:0a",
    "link set tap0 down nomaster",
    "link set tap0 name tap1",
    "link set tap1 master br0",
    "link set br0 down",
    "link set br0 name br1",
    "link delete tap1",
    "link add tap1 type veth peer name far1",
    "link delete br1",
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One for each time that the kernel was asked for all links."""
    times: list[str] = []

    def counted() -> dict[str, netlink.Link]:
        times.append("")
        return links()

    monkeypatch.setattr(netlink, "links", counted)
    return times


def test_links_are_as_they_are_after_each_change(stage: ExitStack) -> None:
    kept = Links()
    assert kept.now() == links()
    for change in CHANGES:
        batch(change)
        assert kept.now() == links(), change
    kept.close()
    assert kept.now() == links()


def test_changes_are_told_and_not_asked_for(stage: ExitStack, asked: list[str]) -> None:
    kept = Links()
    before = kept.now()
    for change in CHANGES[:8]:
        batch(change)
        kept.now()
    assert len(asked) == 1
    assert "tap0" not in before
    assert kept.now()["br0"].has_arp is False


def test_what_is_too_much_to_be_told_is_asked_for(
    stage: ExitStack, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netlink, "_TOLD_BYTES", 1)  # the kernel makes a few kilobytes of it
    kept = Links()
    kept.now()
    batch(*(f"link add tap{number} type veth peer name far{number}" for number in range(50)))
    assert kept.now() == links()
    assert len(asked) == 2
    batch("link delete tap0")
    assert "tap0" not in kept.now()


def test_a_link_that_goes_to_another_namespace_is_gone(stage: ExitStack) -> None:
    kept = Links()
    assert "eth3" in kept.now()
    batch("netns add orctest-other", "link set eth3 netns orctest-other")
    stage.callback(run, ["ip", "netns", "delete", "orctest-other"])
    assert kept.now() == links()
    assert "eth3" not in kept.now()


def test_a_queue_is_told_with_its_classes(stage: ExitStack) -> None:
    def tc(*commands: str) -> None:
        run(["tc", "-batch", "-"], "".join(f"{command}\n" for command in commands))

    assert queue("eth0") is None
    assert queue("nowhere") is None
    tc(
        "qdisc replace dev eth0 root handle 1: htb default 0",
        "class replace dev eth0 parent 1: classid 1:a htb rate 8mbit",
        "class replace dev eth0 parent 1: classid 1:b htb rate 8mbit",
    )
    before = queue("eth0")
    assert before is not None
    assert (before.kind, before.handle, before.classes.keys()) == ("htb", 1 << 16, {0xA, 0xB})
    tc("class replace dev eth0 parent 1: classid 1:a htb rate 16mbit")
    after = queue("eth0")
    assert after is not None
    assert [number for number, told in after.classes.items() if told != before.classes[number]] == [0xA]
    tc("qdisc delete dev eth0 root")
    assert queue("eth0") is None

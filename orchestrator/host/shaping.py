"""What a port may send and receive, held by the kernel's token buckets (HTB).

    guest -- tap -- bridge -- plug ====== leg -- router -- leg ====== plug -- bridge -- tap -- guest
                              |                            |
                              sent: a class per port       received: a class per port

Both ends of a segment's cable have a queue with a class for each of its ports: what the guests of a segment send
leaves by the plug, what they receive leaves by the router's leg. So one place each holds all of a port's traffic, and
it is there before the guest's tap is. nftables says which class a packet is in (`meta priority`): on the plug by the
tap that it came from, on the leg by the address that it goes to. What belongs to no class passes as it is.

A class has two buckets, as EC2's allowance has: one fills at the baseline and holds the credit for bursts, the other
keeps bursts to the peak. Classes have no parent, so nobody borrows from anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network

from orchestrator.host import Port, Rate, Router, Segment
from orchestrator.host.htb import HANDLE, KIND, Limits, add_queue, put_class, remove_class, remove_queue, tell
from orchestrator.host.netlink import Queue, queue, queue_class

Classes = Mapping[int, Rate]  # by the minor number of the class: 1:MINOR

_QUANTUM_BYTES = 60_000  # sent in turn between classes that wait; unused without a parent, but HTB wants to know
_PEAK_S = 0.001  # the peak's own bucket: so long a burst may pass at the wire's speed
_SMALLEST_BUCKET_BYTES = 128 * 1024  # two of the largest packets that a guest hands over whole
_LARGEST_BUCKET_BYTES = 4_000_000_000  # buckets are 32 bits
_LONGEST_BUCKET_S = 250  # and their filling time is 32 bits of 64 ns


def minor(port: Port, segment: Segment) -> int:
    """The number of a port's class: where its address is in its segment. Ranges have at most 16 bits."""
    return _place(port.address, segment.cidr)


@lru_cache(maxsize=65536)  # plans are compiled again and again
def _place(address: str, cidr: str) -> int:
    return int(IPv4Address(address)) - int(IPv4Network(cidr).network_address)


def class_of(port: Port, segment: Segment) -> str:
    """As nftables writes it."""
    return f"1:{minor(port, segment):x}"


def classes(router: Router) -> dict[str, dict[int, Rate]]:
    """The classes of each segment, by its name. The same for both ends of its cable."""
    segments = {segment.name: segment for segment in router.segments}
    found: dict[str, dict[int, Rate]] = {segment.name: {} for segment in router.segments}
    for port in router.ports:
        if port.rate is not None and port.segment in segments:
            found[port.segment][minor(port, segments[port.segment])] = port.rate
    return found


def limits(rate: Rate) -> Limits:
    """A class's rates and buckets."""
    baseline, peak = max(1, rate.baseline_bps // 8), max(8, rate.peak_bps, rate.baseline_bps) // 8
    credit = min(max(rate.credit_bytes, _SMALLEST_BUCKET_BYTES), _LARGEST_BUCKET_BYTES, baseline * _LONGEST_BUCKET_S)
    ceiling = min(max(round(peak * _PEAK_S), _SMALLEST_BUCKET_BYTES), _LARGEST_BUCKET_BYTES)
    return Limits(baseline, credit, peak, ceiling, _QUANTUM_BYTES)


class Queues:
    """The queues of links, made what they should be.

    What the kernel told after a change is remembered, as for tables: links that are as they were left are left alone.
    """

    def __init__(self) -> None:
        self._left: dict[tuple[str, str], tuple[dict[int, Rate], Queue | None]] = {}

    def shape(self, namespace: str, wanted: Mapping[str, Classes], *, trust: bool = False) -> None:
        """`wanted` is by link; all are in this thread's namespace, whose name is given. With `trust`, links that this
        process has shaped are taken to be as it left them, and no more is asked than what it changes."""
        changes: list[bytes] = []
        changed: dict[str, Callable[[], Queue | None]] = {}
        for link, classes in wanted.items():
            before = self._left.get((namespace, link))
            trusted = before if trust else None
            found = trusted[1] if trusted is not None else _ours(link)
            if before == (classes, found):
                continue
            self._left.pop((namespace, link), None)
            known = {} if before is None else before[0]
            changes += _changes(link, classes, found, known)
            if trusted is not None and found is not None and classes:
                changed[link] = partial(_with_changes, link, found, known, classes)
            else:
                changed[link] = partial(_ours, link)
        if changes:
            tell(changes)
        for link, look in changed.items():
            self._left[namespace, link] = (dict(wanted[link]), look())

    def forget(self, namespace: str, links: Collection[str] | None = None) -> None:
        """These links are gone; without any, all of the namespace."""
        for key in [key for key in list(self._left) if key[0] == namespace and (links is None or key[1] in links)]:
            self._left.pop(key, None)


def _ours(link: str) -> Queue | None:
    """The queue of a link, where it is one that was made here."""
    found = queue(link)
    return found if found is not None and (found.kind, found.handle) == (KIND, HANDLE) else None


def _with_changes(link: str, found: Queue, before: Classes, wanted: Classes) -> Queue:
    """A queue as it was found, and what the kernel tells of the classes that have been changed."""
    classes = {number: told for number, told in found.classes.items() if number in wanted}
    for number, rate in wanted.items():
        if number not in found.classes or before.get(number) != rate:
            told = queue_class(link, HANDLE | number)
            if told is not None:
                classes[number] = told
    return Queue(found.kind, found.handle, classes)


def _changes(link: str, wanted: Classes, found: Queue | None, before: Classes) -> list[bytes]:
    if not wanted:
        return [remove_queue(link)] if found is not None else []
    present = found.classes.keys() if found is not None else set()
    changes = [add_queue(link)] if found is None else []
    changes += [remove_class(link, number) for number in sorted(present - wanted.keys())]
    changes += [
        put_class(link, number, limits(rate))
        for number, rate in sorted(wanted.items())
        if number not in present or before.get(number) != rate
    ]
    return changes

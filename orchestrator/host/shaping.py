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

import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network

from orchestrator.host import Port, Rate, Router, Segment
from orchestrator.host.command import run

Classes = Mapping[int, Rate]  # by the minor number of the class: 1:MINOR

ROOT = "1:"
_QUEUE = f"qdisc htb {ROOT}"
_QUANTUM_BYTES = 60_000  # sent in turn between classes that wait; unused without a parent, but HTB wants to know
_PEAK_S = 0.001  # the peak's own bucket: so long a burst may pass at the wire's speed
_SMALLEST_BUCKET_BYTES = 128 * 1024  # two of the largest packets that a guest hands over whole
_LARGEST_BUCKET_BYTES = 4_000_000_000  # buckets are 32 bits
_LONGEST_BUCKET_S = 250  # and their filling time is 32 bits of 64 ns


def minor(port: Port, segment: Segment) -> int:
    """The number of a port's class: where its address is in its segment. Ranges have at most 16 bits."""
    return int(IPv4Address(port.address)) - int(IPv4Network(segment.cidr).network_address)


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


def options(rate: Rate) -> str:
    """A class's rates and buckets, in tc's words."""
    baseline, peak = rate.baseline_bps // 8, max(rate.peak_bps, rate.baseline_bps) // 8
    credit = min(max(rate.credit_bytes, _SMALLEST_BUCKET_BYTES), _LARGEST_BUCKET_BYTES, baseline * _LONGEST_BUCKET_S)
    ceiling = min(max(round(peak * _PEAK_S), _SMALLEST_BUCKET_BYTES), _LARGEST_BUCKET_BYTES)
    return f"htb rate {baseline * 8}bit burst {credit}b ceil {peak * 8}bit cburst {ceiling}b quantum {_QUANTUM_BYTES}"


class Queues:
    """The queues of links, made what they should be.

    What the kernel told after a change is remembered, as for tables: links that are as they were left are left alone.
    """

    def __init__(self) -> None:
        self._left: dict[tuple[str, str], tuple[dict[int, Rate], list[str]]] = {}

    def shape(self, namespace: str, wanted: Mapping[str, Classes]) -> None:
        """`wanted` is by link; all are in this thread's namespace, whose name is given."""
        found = _listing(wanted)
        commands: list[str] = []
        changed = []
        for link, classes in wanted.items():
            before = self._left.get((namespace, link))
            if before is not None and before == (classes, found[link]):
                continue
            self._left.pop((namespace, link), None)
            commands += _commands(link, classes, found[link], {} if before is None else before[0])
            changed.append(link)
        if not changed:
            return
        if commands:
            run(["tc", "-batch", "-"], "".join(f"{command}\n" for command in commands))
        for link, lines in _listing(changed).items():
            self._left[namespace, link] = (dict(wanted[link]), lines)

    def forget(self, namespace: str) -> None:
        """The namespace is gone, and its links with it."""
        for key in [key for key in list(self._left) if key[0] == namespace]:
            self._left.pop(key, None)


def _commands(link: str, wanted: Classes, found: list[str], before: Classes) -> list[str]:
    is_ours = _QUEUE in found
    if not wanted:
        return [f"qdisc delete dev {link} root"] if is_ours else []
    present = {int(line.split()[2].partition(":")[2], 16) for line in found if line.startswith("class htb ")}
    commands = [] if is_ours else [f"qdisc replace dev {link} root handle {ROOT} htb default 0"]
    commands += [f"class delete dev {link} classid {ROOT}{number:x}" for number in sorted(present - wanted.keys())]
    commands += [
        f"class replace dev {link} parent {ROOT} classid {ROOT}{number:x} {options(rate)}"
        for number, rate in sorted(wanted.items())
        if number not in present or before.get(number) != rate
    ]
    return commands


def _listing(links: Iterable[str]) -> dict[str, list[str]]:
    """What the kernel has on each link, where that is a queue of ours: a line for it and one for each class."""
    found: dict[str, list[str]] = {link: [] for link in links}
    queues = json.loads(run(["tc", "-j", "qdisc", "show"]) or "[]")
    ours = [each["dev"] for each in queues if each["kind"] == "htb" and each["handle"] == ROOT and each["dev"] in found]
    if ours:
        questions = "".join(f"qdisc show dev {link}\nclass show dev {link}\n" for link in ours)
        links_left = iter(ours)
        for line in run(["tc", "-batch", "-"], questions).splitlines():
            if line.startswith("qdisc "):
                link = next(links_left)
                found[link].append(_QUEUE)
            elif line.strip():
                found[link].append(line.strip())
    return found

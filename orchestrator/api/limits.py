"""How many requests an account may send: a bucket of tokens per account, region and kind of action. And how many may
fail to say who sends them: a bucket per address.

A request takes a token; tokens come back at a steady rate, up to what the bucket holds. EC2 does so, with the same
kinds (in "Request throttling for the Amazon EC2 API"): what only reads, what changes, and what costs much.

Who has proven who it is takes nothing from its address's bucket, and is not refused because others there have emptied
it. An address of IPv6 stands for its /64, of which one machine can have every address.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv6Network, ip_address
from typing import Final

from orchestrator.model.errors import EC2Error
from orchestrator.model.rate import INTENSIVE, READ, UNPROVEN, WRITE, Rate

# Those that EC2 counts apart, as far as they cost more than others here too.
INTENSIVE_ACTIONS: Final = frozenset(
    {
        "AcceptVpcPeeringConnection",
        "AuthorizeSecurityGroupIngress",
        "CopyImage",
        "CopySnapshot",
        "CreateImage",
        "CreateKeyPair",
        "CreateSnapshot",
        "CreateSnapshots",
        "CreateVolume",
        "CreateVpcPeeringConnection",
        "DeleteVpcPeeringConnection",
        "ExportImage",
        "ImportImage",
        "ImportSnapshot",
        "RejectVpcPeeringConnection",
        "RevokeSecurityGroupIngress",
        "RunInstances",
        "StartInstances",
    }
)
_MOST_BUCKETS: Final = 10_000


def kind_of(action: str, *, writes: bool) -> str:
    return INTENSIVE if action in INTENSIVE_ACTIONS else WRITE if writes else READ


def block_of(address: str) -> str:
    """The addresses that count as one."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    mapped = found.ipv4_mapped
    return str(mapped) if mapped is not None else str(IPv6Network((int(found) >> 64 << 64, 64)))


class Limits:
    """All buckets of a deployment; `clock` gives seconds that only grow."""

    def __init__(self, rates: Mapping[str, Rate], clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = rates
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str, str], tuple[float, float]] = {}  # tokens, and as of when

    def take(self, account: str, region: str, kind: str) -> bool:
        """Whether there was a token."""
        rate = self._rates.get(kind)
        if rate is None:
            return True
        key = (account, region, kind)
        now = self._clock()
        with self._lock:
            tokens, since = self._buckets.get(key, (rate.burst, now))
            tokens = min(rate.burst, tokens + (now - since) * rate.per_s)
            granted = tokens >= 1
            self._buckets[key] = (tokens - 1 if granted else tokens, now)
            if len(self._buckets) > _MOST_BUCKETS:
                self._drop_full(now)
        return granted

    def take_unproven(self, address: str) -> bool:
        """Whether a call of this address that does not say who calls, or does not prove it, is answered as such."""
        return self.take(block_of(address), "", UNPROVEN)

    def _drop_full(self, now: float) -> None:
        """A full bucket is as good as none; if all are in use, those used longest ago go."""
        for key, (tokens, since) in list(self._buckets.items()):
            rate = self._rates[key[2]]
            if tokens + (now - since) * rate.per_s >= rate.burst:
                del self._buckets[key]
        for key in sorted(self._buckets, key=lambda key: self._buckets[key][1])[: -_MOST_BUCKETS // 2]:
            del self._buckets[key]


def refusal(service: str) -> EC2Error:
    """As each protocol family says it, so that its clients wait and try again."""
    if service == "ec2":
        return EC2Error("RequestLimitExceeded", "Request limit exceeded.", 503)
    code = "Throttling" if service in ("sts", "iam") else "ThrottlingException"
    return EC2Error(code, "Rate exceeded", 400)

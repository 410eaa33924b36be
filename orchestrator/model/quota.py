"""How much of each kind an account may have in a region. One table; a deployment may set each number.

    quotas = "instances=100 vpcs=5"        vpcs=none lifts it

They are checked in one place, where a transaction is about to be committed: whatever way a row came about, it counts.
Counting all that an account has would make creating dearer the more there is. So a number that is never too small and
costs nothing is looked at first (`at_most`), and things are counted only where that one is over the quota.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.errors import EC2Error
from orchestrator.model.instance import Instance
from orchestrator.model.instance_type import CATALOGUE
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import Resource
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface, SecurityGroup, Vpc

R = TypeVar("R", bound=Resource)


class Counted(Protocol):
    """A store or a transaction."""

    def get(self, kind: type[R], resource_id: str, /) -> R | None: ...

    def all(self, kind: type[R], /, **where: Any) -> list[R]: ...

    def at_most(self, kind: type[Resource], account: str) -> int: ...


@dataclass(frozen=True, slots=True)
class Quota:
    kind: type[Resource]
    most: int | None  # unless a deployment says otherwise; None: as many as there is room for
    code: str
    noun: str
    weigh: Callable[[Any], int] = lambda resource: 1


def _is_kept(instance: Instance) -> int:
    return int(instance.state is not State.TERMINATED)


def _vcpus(instance: Instance) -> int:
    """EC2 counts those of instances that run, or are about to."""
    kind = CATALOGUE.get(instance.instance_type)
    if kind is None or instance.state not in (State.PENDING, State.RUNNING):
        return 0
    return (instance.core_count or kind.cores) * (instance.threads_per_core or kind.threads_per_core)


# Codes: "Error codes for the Amazon EC2 API". Most numbers are above those that an account starts with on EC2.
QUOTAS: Final[Mapping[str, Quota]] = {
    "instances": Quota(Instance, 20_000, "InstanceLimitExceeded", "instances", _is_kept),
    "vcpus": Quota(Instance, None, "VcpuLimitExceeded", "vCPUs of running instances", _vcpus),
    "volumes": Quota(Volume, 50_000, "VolumeLimitExceeded", "volumes"),
    "snapshots": Quota(Snapshot, 100_000, "SnapshotLimitExceeded", "snapshots"),
    "vpcs": Quota(Vpc, 1_000, "VpcLimitExceeded", "VPCs"),
    "addresses": Quota(ElasticIp, 100, "AddressLimitExceeded", "Elastic IP addresses"),
    "security-groups": Quota(SecurityGroup, 2_500, "SecurityGroupLimitExceeded", "security groups"),
    "interfaces": Quota(NetworkInterface, 50_000, "NetworkInterfaceLimitExceeded", "network interfaces"),
}

Quotas = Mapping[str, int | None]  # what a deployment has set, by name


def parse_quotas(text: str) -> dict[str, int | None]:
    """`instances=100 vpcs=none`. ValueError for what is not so."""
    found: dict[str, int | None] = {}
    for part in text.replace(",", " ").split():
        name, equals, value = part.partition("=")
        if not equals or name not in QUOTAS:
            raise ValueError(f"'{part}' must be NAME=NUMBER or NAME=none, with a name of {', '.join(QUOTAS)}")
        if value != "none" and not (value.isdecimal() and value.isascii() and len(value) < 10):
            raise ValueError(f"'{part}' must give a number below a billion, or none")
        found[name] = None if value == "none" else int(value)
    return found


def most(quotas: Quotas, name: str) -> int | None:
    return quotas[name] if name in quotas else QUOTAS[name].most


def used(db: Counted, name: str, account: str, region: str) -> int:
    quota = QUOTAS[name]
    return sum(quota.weigh(each) for each in db.all(quota.kind, account=account) if each.region == region)


def check(db: Counted, quotas: Quotas, name: str, account: str, region: str, adding: int) -> None:
    """EC2's error for what would be over the quota with so many more."""
    if fit(db, quotas, name, account, region, adding) < 1:
        raise refusal(db, quotas, name, account, region, adding)


def fit(db: Counted, quotas: Quotas, name: str, account: str, region: str, each: int, wanted: int = 1) -> int:
    """For how many of those wanted there is room, when each of them adds so much."""
    limit = most(quotas, name)
    if limit is None or each <= 0:
        return wanted
    if name != "vcpus" and db.at_most(QUOTAS[name].kind, account) + each * wanted <= limit:
        return wanted
    return max(0, min(wanted, (limit - used(db, name, account, region)) // each))


def refusal(db: Counted, quotas: Quotas, name: str, account: str, region: str, adding: int) -> EC2Error:
    quota = QUOTAS[name]
    return EC2Error(
        quota.code,
        f"The maximum number of {quota.noun} has been reached: {most(quotas, name)} in {region}. "
        f"There are {used(db, name, account, region)}, and {adding} more were asked for",
    )


def check_changes(db: Counted, changed: Mapping[tuple[str, str], Resource | None], quotas: Quotas) -> None:
    """`changed` is what a transaction is about to write over the rows of `db`, by kind and id; None deletes."""
    growth: dict[tuple[str, str, str], int] = {}
    for (kind, resource_id), row in changed.items():
        for name in _BY_KIND.get(kind, ()):
            quota = QUOTAS[name]
            old = db.get(quota.kind, resource_id)
            adding = (quota.weigh(row) if row is not None else 0) - (quota.weigh(old) if old is not None else 0)
            place = row or old
            if adding and place is not None:
                key = (name, place.account, place.region)
                growth[key] = growth.get(key, 0) + adding
    for (name, account, region), adding in growth.items():
        if adding > 0:
            check(db, quotas, name, account, region, adding)


_BY_KIND: Final = {
    quota.kind.KIND: tuple(name for name, other in QUOTAS.items() if other.kind is quota.kind)
    for quota in QUOTAS.values()
}

"""Quotas: what is counted, and that most calls need not count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.model.errors import EC2Error
from orchestrator.model.instance import Goal, Instance
from orchestrator.model.lifecycle import State
from orchestrator.model.quota import QUOTAS, check, check_changes, fit, most, parse_quotas, used
from orchestrator.model.vpc import Vpc
from orchestrator.store import Store

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ME, HERE = "1" * 12, "us-east-1"


def vpc(number: int, account: str = ME, region: str = HERE) -> Vpc:
    return Vpc(id=f"vpc-{number:017x}", account=account, region=region, created=NOW, cidr="10.0.0.0/16")


def instance(number: int, state: State = State.RUNNING, kind: str = "t3.micro", **fields: Any) -> Instance:
    return Instance(
        id=f"i-{number:017x}",
        account=ME,
        region=HERE,
        created=NOW,
        instance_type=kind,
        state=state,
        goal=Goal(power=State.RUNNING, since=NOW),
        **{
            **dict.fromkeys(("reservation_id", "zone", "vpc_id", "subnet_id", "image_id", "architecture"), ""),
            "launched_at": NOW,
            **fields,
        },
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "orchestrator.db", durable=False)
    yield store
    store.close()


def put(store: Store, *rows: Any) -> None:
    with store.write() as tx:
        tx.put_all(rows)


def test_quotas_are_read_by_name() -> None:
    assert parse_quotas("instances=100, vpcs=5 vcpus=none") == {"instances": 100, "vpcs": 5, "vcpus": None}
    assert parse_quotas("") == {}
    for wrong in ("cars=1", "vpcs", "vpcs=", "vpcs=-1", "vpcs=1.5", "vpcs=many", "vpcs=10000000000"):
        with pytest.raises(ValueError, match="must"):
            parse_quotas(wrong)
    with pytest.raises(ValueError, match="security-groups"):
        parse_quotas("cars=1")


def test_each_account_and_region_has_its_own(store: Store) -> None:
    put(store, vpc(1), vpc(2), vpc(3, region="us-west-2"), vpc(4, account="2" * 12))
    assert used(store, "vpcs", ME, HERE) == 2
    check(store, {"vpcs": 3}, "vpcs", ME, HERE, 1)
    with pytest.raises(EC2Error, match=r"2 more were asked for") as caught:
        check(store, {"vpcs": 3}, "vpcs", ME, HERE, 2)
    assert caught.value.code == "VpcLimitExceeded"
    check(store, {"vpcs": 3}, "vpcs", "2" * 12, HERE, 2)


def test_terminated_instances_do_not_count_and_stopped_ones_have_no_vcpus(store: Store) -> None:
    put(store, instance(1), instance(2, State.STOPPED), instance(3, State.TERMINATED), instance(4, State.PENDING))
    assert used(store, "instances", ME, HERE) == 3
    assert used(store, "vcpus", ME, HERE) == 4  # t3.micro has two
    put(store, instance(5, kind="c5.large", core_count=1, threads_per_core=1))
    assert used(store, "vcpus", ME, HERE) == 5


def test_as_many_as_fit(store: Store) -> None:
    put(store, instance(1), instance(2))
    assert fit(store, {"instances": 5}, "instances", ME, HERE, 1, 10) == 3
    assert fit(store, {"instances": 1}, "instances", ME, HERE, 1, 10) == 0
    assert fit(store, {"vcpus": 9}, "vcpus", ME, HERE, 2, 10) == 2
    assert fit(store, {"vcpus": None}, "vcpus", ME, HERE, 2, 10) == 10
    assert fit(store, {}, "instances", ME, HERE, 1, 10) == 10


def test_a_transaction_is_judged_by_what_it_adds(store: Store) -> None:
    put(store, instance(1, State.STOPPED), vpc(1), vpc(2))
    quotas = {"vcpus": 1, "vpcs": 2, "instances": 1}

    def changed(*rows: Any, gone: Any = ()) -> dict[Any, Any]:
        return {(row.KIND, row.id): row for row in rows} | {(row.KIND, row.id): None for row in gone}

    check_changes(store, changed(replace(vpc(1), cidr="10.1.0.0/16")), quotas)
    check_changes(store, changed(vpc(3), gone=[vpc(1)]), quotas)
    with pytest.raises(EC2Error, match="VpcLimitExceeded"):
        check_changes(store, changed(vpc(3)), quotas)
    with pytest.raises(EC2Error, match="VcpuLimitExceeded"):
        check_changes(store, changed(instance(1, State.PENDING)), quotas)
    with pytest.raises(EC2Error, match="InstanceLimitExceeded"):
        check_changes(store, changed(instance(2, State.STOPPED)), quotas)
    # Lowered below what there is: nothing more, but all else goes on.
    check_changes(store, changed(replace(instance(1, State.STOPPED), key_name="k")), {"instances": 0})


def test_far_below_a_quota_nothing_is_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, vpc(1))
    monkeypatch.setattr(Store, "all", lambda *given, **named: pytest.fail("it was counted"))
    check_changes(store, {("vpc", "vpc-2"): vpc(2)}, {})


def test_every_quota_has_a_kind_that_is_indexed_by_account() -> None:
    assert all("account" in quota.kind.INDEXES for quota in QUOTAS.values())
    assert {most({}, name) is None for name in QUOTAS} == {True, False}

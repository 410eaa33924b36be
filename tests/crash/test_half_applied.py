"""Who reads while a commit is taken into the rows in memory sees some of them new and some as they were.

EC2 says nothing of how an instance and its volume are seen together, so an answer may mix them. But it answers: no
call fails by it, nothing that was there before and is there afterwards is missing meanwhile, and each is there once.
Every lifecycle is run once, and all that lists is called after each row that a commit puts or deletes, and each time
that one goes from a place in an index.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from orchestrator.api.operation import Call, Caller, Settings, dispatch
from orchestrator.controller import RealHostView
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.tables import Table
from tests.crash import networks, storage
from tests.crash.lifecycles import LIFECYCLES, Lifecycle
from tests.crash.points import Points
from tests.crash.test_points import begin
from tests.crash.world import ACCOUNT, REGIONS, World, bound

assert networks
assert storage

ALIVE = [state.value for state in State if state is not State.TERMINATED]
# Operation, its parameters, and the ids that an answer has. The kind whose rows it lists is the key.
LISTS: dict[str, tuple[str, dict[str, Any], Callable[[dict[str, Any]], list[str]]]] = {
    "instance": (
        "DescribeInstances",
        {},
        lambda answer: [each["InstanceId"] for each in _instances(answer)],
    ),
    "volume": ("DescribeVolumes", {}, lambda answer: [each["VolumeId"] for each in answer["Volumes"]]),
    "snapshot": (
        "DescribeSnapshots",
        {"OwnerIds": ["self"]},
        lambda answer: [each["SnapshotId"] for each in answer["Snapshots"]],
    ),
    "image": ("DescribeImages", {"Owners": ["self"]}, lambda answer: [each["ImageId"] for each in answer["Images"]]),
    "network-interface": (
        "DescribeNetworkInterfaces",
        {},
        lambda answer: [each["NetworkInterfaceId"] for each in answer["NetworkInterfaces"]],
    ),
    "security-group": (
        "DescribeSecurityGroups",
        {},
        lambda answer: [each["GroupId"] for each in answer["SecurityGroups"]],
    ),
    "elastic-ip": ("DescribeAddresses", {}, lambda answer: [each["AllocationId"] for each in answer["Addresses"]]),
    "natgateway": (
        "DescribeNatGateways",
        {},
        lambda answer: [each["NatGatewayId"] for each in answer["NatGateways"]],
    ),
}
CALLED_TOO = (
    "DescribeInstanceStatus",
    "DescribeVolumeStatus",
    "DescribeRouteTables",
    "DescribeSubnets",
    "DescribeVpcs",
)


def _instances(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for one in answer["Reservations"] for each in _built(_built(one)["Instances"])]


def _built(value: Any) -> Any:
    """Fragments of an answer, as they are written."""
    if isinstance(value, list):
        return [_built(each) for each in value]
    return value.build() if hasattr(value, "build") else value


class Reader:
    """Calls between the rows of each commit. What a commit makes or removes may be there or not meanwhile."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.looks = 0
        self._looking = False
        self._calm: dict[str, set[str]] = {}
        self._going: set[str] = set()

    def call(self, action: str, **params: Any) -> dict[str, Any]:
        process = self.world.process
        assert process is not None
        call = Call(
            service="ec2",
            action=action,
            caller=Caller(account=ACCOUNT, access_key="AKIAEXAMPLE", arn=f"arn:aws:iam::{ACCOUNT}:root"),
            region="us-east-1",
            params=params,
            db=process.store,
            now=self.world.clock(),
            request_id="look",
            source="192.0.2.7",
            settings=Settings(regions=REGIONS, import_dir=str(self.world.imports)),
            host=RealHostView(process.host, process.router, verify=process.files.verify),
            keys=process.keys,
        )
        return dispatch(process.store, bound()[1]["ec2", action], call)

    def lists(self) -> dict[str, list[str]]:
        return {kind: ids(self.call(action, **params)) for kind, (action, params, ids) in LISTS.items()}

    def look(self) -> None:
        """With a part of a commit still to come."""
        if self._looking or self.world.process is None:
            return
        self._looking = True
        try:
            self.looks += 1
            self._check(self.lists())
            for action in CALLED_TOO:
                self.call(action)
            self._check_instances()
        finally:
            self._looking = False

    def _check(self, found: dict[str, list[str]]) -> None:
        for kind, ids in found.items():
            assert len(ids) == len(set(ids)), f"{kind} twice: {ids}"
            missing = self._calm.get(kind, set()) - set(ids) - self._going
            assert not missing, f"{kind} {missing} is there before and afterwards, and not meanwhile"

    def _check_instances(self) -> None:
        process = self.world.process
        assert process is not None
        for instance in process.store.all(Instance, account=ACCOUNT):
            if instance.region != "us-east-1":
                continue
            answer = self.call("DescribeInstances", InstanceIds=[instance.id])
            [shown] = _instances(answer)
            assert shown["State"]["Name"] == instance.state.value
            if instance.state is not State.TERMINATED:
                by_state = self.call("DescribeInstances", Filters=[{"Name": "instance-state-name", "Values": ALIVE}])
                assert instance.id in [each["InstanceId"] for each in _instances(by_state)]

    def prepare(self, tx: Any) -> None:
        """Before a commit: what is listed and not about to go stays listed."""
        if self._looking or not tx.changed:
            return
        self._looking = True
        try:
            self._calm = {kind: set(ids) for kind, ids in self.lists().items()}
        finally:
            self._looking = False
        self._going = {row_id for (_, row_id), row in tx.changed.items() if row is None}
        self._going |= {row.id for row in tx.changed.values() if getattr(row, "recycled_at", None) is not None}


@pytest.mark.parametrize("lifecycle", LIFECYCLES, ids=str)
def test_nothing_is_missing_between_the_rows_of_a_commit(lifecycle: Lifecycle, tmp_path: Path) -> None:
    frozen = begin(lifecycle.prepare, tmp_path)
    world = World(tmp_path / "run", Points(counting=False), network_last=lifecycle.network_last)
    world.thaw(frozen)
    put, delete, unindex = Table.put, Table.delete, Table._unindex
    with world.alive():
        world.start()
        world.settle()
        world.points.counting = True
        reader = Reader(world)
        commit = type(world.store)._commit

        def watched_commit(store: Any, tx: Any) -> None:
            reader.prepare(tx)
            commit(store, tx)

        def watched(step: Callable[..., None]) -> Callable[..., None]:
            def run(*given: Any) -> None:
                step(*given)
                reader.look()

            return run

        with (
            mock.patch.object(Table, "put", watched(put)),
            mock.patch.object(Table, "delete", watched(delete)),
            mock.patch.object(Table, "_unindex", staticmethod(watched(unindex))),
            mock.patch.object(type(world.store), "_commit", watched_commit),
        ):
            lifecycle.run(world)
            world.settle()
        assert reader.looks

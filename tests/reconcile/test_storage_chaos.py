"""Anything asked in any order, while steps come as they come and the process ends at any effect: what settles is right.

A guest writes throughout: each disk's top is given what the guest has written so far, so that what a snapshot holds can
be told from what was written after it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator.host import HostError
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from tests.reconcile import volumes as v
from tests.reconcile.conftest import Deployment

SEEDS = int(os.environ.get("ORC_CHAOS_SEEDS", "40"))
LENGTH = int(os.environ.get("ORC_CHAOS_LENGTH", "40"))


class Killed(BaseException):
    pass


EFFECTS = (
    ("compute", ("start", "remove", "plug_in_disk", "unplug_disk", "switch_disks", "resize_disk", "limit_disk")),
    ("compute", ("flatten_disk", "stop_flattening", "ask_to_stop")),
    ("storage", ("create_layer", "copy_layer", "merge_layer", "remove_layer", "seal_layer", "unseal_layer")),
)


class Chaos:
    def __init__(self, deployment: Deployment, seed: int) -> None:
        self.deployment = deployment
        self.random = random.Random(seed)
        self.number = 0
        self.pending: set[str] = set()

    # --- what is asked ---

    def launch(self) -> None:
        if len(self.deployment.store.all(Instance)) < 4:
            self.number += 1
            instance = self.deployment.launch(self.number)
            with self.deployment.store.write() as tx:
                tx.wake(instance)

    def power(self) -> None:
        instance = self.some(Instance)
        if instance is None:
            return
        moves = {
            State.RUNNING: [(State.STOPPED, State.STOPPING), (State.TERMINATED, State.SHUTTING_DOWN)],
            State.STOPPED: [(State.RUNNING, State.PENDING), (State.TERMINATED, State.SHUTTING_DOWN)],
        }.get(instance.state)
        if moves:
            power, state = self.random.choice(moves if self.random.random() < 0.3 else moves[:1])
            self.deployment.ask(instance.id, power, state, forced=self.random.random() < 0.3)
            self.wake(self.deployment.instance(instance.id))

    def create(self) -> None:
        self.number += 1
        source = self.some(Snapshot, lambda row: row.state == "completed")
        below = source.layer_id if source and self.random.random() < 0.7 else ""
        how: dict[str, Any] = {"copy_of": below} if below and self.random.random() < 0.3 else {"parent": below}
        v.create(self.deployment, f"{self.number:017x}", size_gib=3, **how)

    def attach(self) -> None:
        row = self.some(Volume, lambda row: row.state == "available")
        instance = self.some(Instance, lambda row: row.state in (State.RUNNING, State.STOPPED))
        if row is not None and instance is not None:
            v.attach(self.deployment, row.id, instance, f"/dev/sd{self.random.choice('fghij')}")
            self.wake(v.volume(self.deployment, row.id))

    def detach(self) -> None:
        def can(row: Volume) -> bool:
            return bool(row.attachment and row.attachment.state == "attached" and row.attachment.device != "/dev/xvda")

        row = self.some(Volume, can)
        if row is not None:
            v.detach(self.deployment, row.id, forced=self.random.random() < 0.5)
            instance = self.deployment.store.get(Instance, row.instance_id)
            if instance is not None:
                self.wake(instance)

    def guest(self) -> None:
        """A guest that holds on to disks, or flattening that takes its time."""
        compute = self.deployment.host.compute
        if names := compute.names():
            self.random.choice([compute.hold_on, compute.flatten_slowly])(self.random.choice(names))

    def delete(self) -> None:
        row = self.some(Volume, lambda row: row.state in ("available", "error"))
        if row is not None:
            v.delete(self.deployment, row.id)

    def modify(self) -> None:
        def can(row: Volume) -> bool:
            settled = row.modification is None or row.modification.state in ("completed", "failed")
            return settled and row.state in ("available", "in-use")

        row = self.some(Volume, can)
        if row is not None:
            v.modify(self.deployment, row.id, size_gib=row.size_gib + 1)
            instance = self.deployment.store.get(Instance, row.instance_id)
            if instance is not None:
                self.wake(instance)

    def snapshot(self) -> None:
        row = self.some(Volume, lambda row: row.state in ("available", "in-use"))
        if row is None:
            return
        together = self.deployment.store.all(Volume, instance_id=row.instance_id) if row.instance_id else [row]
        if self.random.random() < 0.5:
            together = [row]
        ready = [each.id for each in together if each.state in ("available", "in-use")]
        v.snapshot(self.deployment, *ready, when=self.random.choice(["live", "frozen", "off"]))

    def delete_snapshot(self) -> None:
        row = self.some(Snapshot)
        if row is not None:
            v.delete_snapshot(self.deployment, row.id)

    def flattened(self) -> None:
        v.finish_flattening(self.deployment)

    def some(self, kind: type[Any], wanted: Callable[[Any], bool] = lambda row: True) -> Any:
        rows = sorted((row for row in self.deployment.store.all(kind) if wanted(row)), key=lambda row: row.id)
        return self.random.choice(rows) if rows else None

    def wake(self, row: Any) -> None:
        with self.deployment.store.write() as tx:
            tx.wake(row)

    # --- what happens ---

    def steps(self) -> None:
        """Some of what was woken has its turn, in any order."""
        deployment = self.deployment
        kinds: dict[str, Callable[[str], Any]] = {
            "instance": deployment.step,
            "layer": deployment.layers.step,
            "volume": deployment.volumes.step,
            "snapshot": deployment.snapshots.step,
        }
        for _ in range(self.random.randint(1, 12)):
            woken = [wake for wake in deployment.store.pending_wakes() if wake[0] in kinds]
            instances = [("instance", row.id, 0) for row in deployment.store.all(Instance)]
            if not woken + instances:
                return
            kind, name, serial = self.random.choice(woken + instances)
            try:
                result = kinds[kind](name)
            except HostError:
                continue
            if not hasattr(result, "after_s") and serial:
                deployment.store.wake_done(kind, name, serial)
            deployment.clock.pass_(seconds=self.random.choice([0, 0, 1, 5]))

    @contextmanager
    def killed_somewhere(self) -> Iterator[None]:
        room, names = self.random.choice(EFFECTS)
        name = self.random.choice(names)
        part = getattr(self.deployment.host, room)
        real = getattr(part, name)
        after = self.random.random() < 0.5

        def dies(*args: Any, **kwargs: Any) -> None:
            setattr(part, name, real)
            if after:
                real(*args, **kwargs)
            raise Killed

        setattr(part, name, dies)
        try:
            yield
        except Killed:
            self.deployment.restart()
        finally:
            setattr(part, name, real)

    @contextmanager
    def failing(self) -> Iterator[None]:
        room, names = self.random.choice(EFFECTS)
        chosen = self.random.choice(names)

        def fault(method: str, name: str) -> None:
            if method == chosen and self.random.random() < 0.5:
                raise HostError("not now", retryable=self.random.random() < 0.7)

        part = getattr(self.deployment.host, room)
        part.fault = fault
        try:
            yield
        finally:
            part.fault = lambda method, name: None

    def run(self, length: int) -> None:
        asked = [
            *(self.launch, self.power, self.create, self.attach, self.detach, self.guest),
            *(self.delete, self.modify, self.snapshot, self.snapshot, self.snapshot),
            *(self.delete_snapshot, self.delete_snapshot, self.flattened),
        ]
        for _ in range(length):
            for _ in range(self.random.randint(1, 4)):
                self.random.choice(asked)()
            how = self.random.random()
            if how < 0.3:
                with self.killed_somewhere():
                    self.steps()
            elif how < 0.45:
                with self.failing():
                    self.steps()
            else:
                self.steps()
            self.snapshots_are_whole()
        deployment = self.deployment
        deployment.restart()
        compute = deployment.host.compute
        compute._grasping.clear()
        compute._slow.clear()
        deployment.wake_everything()
        self.flattened()
        for name, known in compute._machines.items():
            for device in list(known.leaving):
                compute.guest_lets_go(name, device)
        v.settle_all(deployment, limit=400)
        v.check(deployment)

    def snapshots_are_whole(self) -> None:
        """Nothing writes to what a completed snapshot is made of."""
        compute = self.deployment.host.compute
        tops = {disk.layer for name in compute.names() for disk in compute.disks(name)}
        for taken in self.deployment.store.all(Snapshot):
            if taken.state == "completed":
                below: list[str] = []
                layer = self.deployment.store.get(Layer, taken.layer_id)
                while layer is not None:
                    below.append(layer.id)
                    layer = self.deployment.store.get(Layer, layer.parent_id)
                assert below
                assert not tops & set(below), f"a machine writes to what {taken.id} is made of"
                for each in below:
                    assert self.deployment.host.storage.observe_layer(each) is not None, f"{each} is lost"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_settles_is_right(deployment: Deployment, seed: int) -> None:
    Chaos(deployment, seed).run(LENGTH)

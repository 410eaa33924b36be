"""A deployment without an API: a store, the in-memory host, and reconcilers that a test steps by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from socket import socket

import pytest

from orchestrator.host import Router
from orchestrator.host.memory import MemoryHost
from orchestrator.host.memory_storage import MemoryStorage
from orchestrator.keys import KeyRing
from orchestrator.model.image import Image
from orchestrator.model.instance import Goal, Instance
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume, VolumeAttachment
from orchestrator.model.vpc import (
    InterfaceAttachment,
    NatGateway,
    NetworkInterface,
    PeeringConnection,
    SecurityGroup,
    Subnet,
    Vpc,
    default_network,
)
from orchestrator.reconcile.image import Images
from orchestrator.reconcile.instance import Instances, Limits
from orchestrator.reconcile.layer import LayerFiles, Layers
from orchestrator.reconcile.loop import Again, Done, Next
from orchestrator.reconcile.nat_gateway import NatGateways
from orchestrator.reconcile.network import Networks
from orchestrator.reconcile.peering import Peerings
from orchestrator.reconcile.snapshot import Snapshots
from orchestrator.reconcile.volume import Volumes
from orchestrator.store import Store
from tests.conftest import Clock

ACCOUNT = "1" * 12
MAX_DEPTH = 4
BASE_LAYER = "layer-0" + "b" * 16


class Doors:
    """Which VPCs the metadata server answers in."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.opened_ipv6: list[str] = []
        self.shut_: list[str] = []

    def open(self, vpc_id: str, listen: Callable[[], socket], listen_ipv6: Callable[[], socket] | None = None) -> None:
        listen().close()
        self.opened.append(vpc_id)
        if listen_ipv6 is not None:
            listen_ipv6().close()
            self.opened_ipv6.append(vpc_id)

    def shut(self, vpc_id: str) -> None:
        self.shut_.append(vpc_id)


class Deployment:
    def __init__(self, path: Path, clock: Clock) -> None:
        self.store = Store(path, durable=False)
        self.host = MemoryHost(storage=MemoryStorage(strict=True))
        self.clock = clock
        self.doors = Doors()
        self.keys = KeyRing(bytes(32))
        self.restart()
        self.host.storage.create_layer(BASE_LAYER, size_bytes=1 << 30)
        with self.store.write() as tx:
            tx.put_all(default_network(ACCOUNT, "us-east-1", ["us-east-1a", "us-east-1b"], clock()))
            tx.put(Layer(id=BASE_LAYER, account=ACCOUNT, created=clock(), size_bytes=1 << 30))
            tx.put(self._snapshot())

    def _snapshot(self) -> Snapshot:
        return Snapshot(id="snap-0" + "b" * 16, account=ACCOUNT, created=self.clock(), layer_id=BASE_LAYER, size_gib=1)

    def restart(self) -> None:
        """As when the controller ends and starts: what only the process knew is gone."""
        limits = Limits()
        self.appeared: list[tuple[str, float]] = []
        self.networks = Networks(self.store, self.host.network, self.doors, lambda *told: self.appeared.append(told))
        files = self.files = LayerFiles(self.store, self.host.storage, self.keys)
        self.instances = Instances(self.store, self.host, self.networks, files, self.clock, limits, MAX_DEPTH)
        self.layers = Layers(self.store, files)
        self.volumes = Volumes(self.store, files, self.clock, MAX_DEPTH)
        self.snapshots = Snapshots(self.store, files, self.clock)
        self.images = Images(self.store, self.host.storage)
        self.nat_gateways = NatGateways(self.store, self.clock)
        self.peerings = Peerings(self.store, self.clock)

    def watch_plans(self, monkeypatch: pytest.MonkeyPatch) -> list[Router | None]:
        """Which plan each one that is applied from now on follows; None: all is looked at."""
        apply, found = self.host.network.apply, list[Router | None]()

        def applied(router: Router, before: Router | None = None) -> None:
            found.append(before)
            apply(router, before)

        monkeypatch.setattr(self.host.network, "apply", applied)
        return found

    def launch(self, number: int = 1, **changes: object) -> Instance:
        """The rows that RunInstances writes."""
        digits = f"{number:017x}"
        [subnet] = [s for s in self.store.all(Subnet) if s.zone == "us-east-1a"]
        [group] = self.store.all(SecurityGroup, vpc_id=subnet.vpc_id)
        now = self.clock()
        owned = {"account": ACCOUNT, "region": "us-east-1", "created": now}
        instance = Instance(
            id="i-" + digits,
            reservation_id="r-" + digits,
            zone=subnet.zone,
            vpc_id=subnet.vpc_id,
            subnet_id=subnet.id,
            image_id="ami-" + digits,
            instance_type="t3.micro",
            launched_at=now,
            goal=Goal(since=now),
            timeline={"requested": now},
            **owned,  # type: ignore[arg-type]
        )
        layer = Layer(id="layer-" + digits, parent_id=BASE_LAYER, size_bytes=2 << 30, **owned)  # type: ignore[arg-type]
        volume = Volume(
            id="vol-" + digits,
            zone=subnet.zone,
            size_gib=2,
            layer_id=layer.id,
            attachment=VolumeAttachment(instance_id=instance.id, device="/dev/xvda", state="attaching"),
            **owned,  # type: ignore[arg-type]
        )
        interface = NetworkInterface(
            id="eni-" + digits,
            vpc_id=subnet.vpc_id,
            subnet_id=subnet.id,
            zone=subnet.zone,
            mac=f"0a:00:00:00:00:{number:02x}",
            private_ip=f"172.31.0.{number + 10}",
            public_ip=f"203.0.113.{number + 10}",
            groups=(group.id,),
            state="in-use",
            attachment=InterfaceAttachment(id="eni-attach-" + digits, instance_id=instance.id, device_index=0),
            **owned,  # type: ignore[arg-type]
        )
        with self.store.write() as tx:
            tx.put_all([replace(instance, **changes), layer, volume, interface])  # type: ignore[arg-type]
        return self.instance(instance.id)

    def instance(self, instance_id: str) -> Instance:
        found = self.store.get(Instance, instance_id)
        assert found is not None
        return found

    def change(self, instance_id: str, **changes: object) -> None:
        with self.store.write() as tx:
            tx.put(replace(self.instance(instance_id), **changes))  # type: ignore[arg-type]

    def ask(self, instance_id: str, power: State, state: State, **goal: object) -> None:
        """What a Start, Stop or Terminate request writes."""
        instance = self.instance(instance_id)
        asked = replace(instance.goal, power=power, since=self.clock(), **goal)  # type: ignore[arg-type]
        self.change(instance_id, goal=asked, state=state)

    def step(self, instance_id: str) -> Next:
        return self.instances.step(instance_id)

    def settle(self, instance_id: str, *, limit: int = 20) -> None:
        """Step until it wants to be left alone, and let what it woke have its turn."""
        for _ in range(limit):
            result = self.step(instance_id)
            self.others()
            if isinstance(result, Done) or (isinstance(result, Again) and result.after_s >= 60):
                return
            self.clock.pass_(seconds=result.after_s)
        raise AssertionError(f"{instance_id} does not settle: {self.store.get(Instance, instance_id)}")

    def wake_everything(self) -> None:
        """As a controller that starts looks at everything."""
        with self.store.write() as tx:
            for kind in (Volume, Snapshot, Layer, Image):
                for row in self.store.all(kind):
                    tx.wake(row)

    def others(self) -> None:
        """Step the networks, layers and gateways that were woken, and those that these wake."""
        steps: dict[str, Callable[[str], Next]] = {
            Vpc.KIND: self.networks.step,
            Layer.KIND: self.layers.step,
            Volume.KIND: self.volumes.step,
            Snapshot.KIND: self.snapshots.step,
            Image.KIND: self.images.step,
            NatGateway.KIND: self.nat_gateways.step,
            PeeringConnection.KIND: self.peerings.step,
        }
        for _ in range(50):
            woken = [wake for wake in self.store.pending_wakes() if wake[0] in steps]
            if not woken:
                return
            for kind, resource_id, serial in woken:
                self._step_until_done(steps[kind], resource_id)
                self.store.wake_done(kind, resource_id, serial)
        raise AssertionError(f"these wake each other: {woken}")

    def _step_until_done(self, step: Callable[[str], Next], resource_id: str) -> None:
        for _ in range(50):
            if not isinstance(result := step(resource_id), Again) or result.after_s > 1:
                return
        raise AssertionError(f"{resource_id} is not done")


@pytest.fixture
def deployment(tmp_path: Path, clock: Clock) -> Iterator[Deployment]:
    made = Deployment(tmp_path / "state.db", clock)
    yield made
    made.store.close()

"""`api`: EC2's operations over a temporary store, called as boto3 calls them, with no host behind them.

A call goes the whole way except HTTP: botocore's serialiser makes the form, our protocol reads it, `dispatch` answers,
our protocol writes the XML (an unknown member or a wrong type raises), and botocore's parser reads it. So a test gives
and sees what a boto3 user gives and sees. The one difference: no client token is made up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from botocore.parsers import EC2QueryParser
from botocore.serialize import create_serializer

from orchestrator.api import operations
from orchestrator.api.operation import Call, Caller, Operation, Settings, bind_operations, dispatch, provision
from orchestrator.api.protocol import Protocol, load_service, protocol_for
from orchestrator.keys import KeyRing
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.instance import Instance
from orchestrator.model.key_pair import KeyPair
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import EVERY_REGION, Resource
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface
from orchestrator.store import Store

R = TypeVar("R", bound=Resource)

ACCOUNT = "111122223333"
OTHER_ACCOUNT = "444455556666"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0 MyKeyPair"


class ClosedHost:
    """Stands for the host: what a test has not set must not be touched."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"an operation touched the host: {name}")

    def allow(self, **methods: Callable[..., Any]) -> None:
        """`allow(console=lambda instance_id: b"...")`"""
        self.__dict__.update(methods)


KEYS = KeyRing(bytes(32))


def policy_for(*accounts: str) -> str:
    """Of a key that these accounts, and not its own alone, may do everything with."""
    named = {"AWS": [f"arn:aws:iam::{account}:root" for account in accounts]}
    statement = {"Effect": "Allow", "Principal": named, "Action": "kms:*", "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@dataclass
class World:
    """What all views of one Api share."""

    store: Store
    settings: Settings
    operations: dict[tuple[str, str], Operation]
    protocol: Protocol
    host: ClosedHost = field(default_factory=ClosedHost)
    now: datetime = START
    requests: int = 0


@dataclass
class Api:
    """One caller in one region; `by` and `within` give others over the same store."""

    world: World
    account: str = ACCOUNT
    region: str = "us-east-1"

    # --- who, where, when ---

    @property
    def store(self) -> Store:
        return self.world.store

    @property
    def host(self) -> ClosedHost:
        return self.world.host

    @property
    def now(self) -> datetime:
        return self.world.now

    def advance(self, seconds: float) -> datetime:
        self.world.now += timedelta(seconds=seconds)
        return self.world.now

    def by(self, account: str = OTHER_ACCOUNT) -> Api:
        return replace(self, account=account)

    def within(self, region: str) -> Api:
        return replace(self, region=region)

    def configure(self, **settings: Any) -> None:
        """Change the deployment's settings, for example `processors=4`."""
        self.world.settings = replace(self.world.settings, **settings)

    # --- calls ---

    def call(self, action: str, **params: Any) -> dict[str, Any]:
        """The answer, as boto3 gives it without ResponseMetadata; raises EC2Error."""
        world = self.world
        model = world.protocol.model.operation_model(action)
        written = create_serializer("ec2", include_validation=True).serialize_to_request(params, model)["body"]
        form = {name: _wire(value) for name, value in written.items()}
        call = self._call(action, world.protocol.parse(model, form))
        answer = dispatch(world.store, world.operations["ec2", action], call)
        body, _ = world.protocol.serialise(model, answer, "request-id")
        parsed = EC2QueryParser().parse({"status_code": 200, "headers": {}, "body": body}, model.output_shape)
        parsed.pop("ResponseMetadata", None)
        return parsed

    def refused(self, action: str, **params: Any) -> EC2Error:
        """The error that a call is answered with; fails when there is none, or when the call changed anything."""
        provision(self.store, self._call(action, params))
        before = self.store._revision
        with pytest.raises(EC2Error) as caught:
            self.call(action, **params)
        rows = [row for table in self.store._tables.values() for row in table.rows.values()]
        changed = [row.id for row in rows if row.revision > before]
        assert not changed, f"{action} was refused ({caught.value}) but changed {changed}"
        return caught.value

    def run(self, action: str, **params: Any) -> dict[str, Any]:
        """As the handler answers, without the wire: for timings."""
        return dispatch(self.store, self.world.operations["ec2", action], self._call(action, params))

    def _call(self, action: str, params: dict[str, Any]) -> Call:
        self.world.requests += 1
        return Call(
            service="ec2",
            action=action,
            caller=Caller(account=self.account, access_key="AKIAEXAMPLE", arn=f"arn:aws:iam::{self.account}:root"),
            region=self.region,
            params=params,
            db=self.store,
            now=self.now,
            request_id=f"request-{self.world.requests}",
            source="127.0.0.1",
            settings=self.world.settings,
            host=self.host,  # type: ignore[arg-type]
            keys=KEYS,
        )

    # --- rows ---

    def put(self, *resources: Resource) -> None:
        with self.store.write() as tx:
            tx.put_all(resources)

    def get(self, kind: type[R], resource_id: str) -> R:
        found = self.store.get(kind, resource_id)
        assert found is not None, f"there is no {kind.KIND} {resource_id}"
        return found

    def change(self, resource: R, **changes: Any) -> R:
        """Write fields of a stored resource by hand; its new revision."""
        with self.store.write() as tx:
            return tx.put(replace(self.get(type(resource), resource.id), **changes))

    def make_image(self, name: str = "debian-12", *, size_gib: int = 8, **fields: Any) -> Image:
        """An image of the catalogue with its snapshot and layer."""
        mine = {"account": ACCOUNT, "region": EVERY_REGION, "created": self.now}
        layer = Layer(id=ids.mint("layer"), size_bytes=size_gib << 30, **mine)
        snapshot = Snapshot(id=ids.mint("snap"), layer_id=layer.id, size_gib=size_gib, **mine)
        root = fields.get("root_device", "/dev/xvda")
        image = Image(
            **{
                "id": ids.mint("ami"),
                **mine,
                "name": name,
                "login_user": "admin",
                "public": True,
                "block_devices": (BlockDevice(device=root, snapshot_id=snapshot.id, size_gib=size_gib),),
                **fields,
            }
        )
        self.put(layer, snapshot, image)
        return self.get(Image, image.id)

    def make_key_pair(self, name: str = "MyKeyPair") -> KeyPair:
        pair = KeyPair(
            id=ids.mint("key"),
            account=self.account,
            region=self.region,
            created=self.now,
            name=name,
            key_type="ed25519",
            fingerprint="SHA256:0",
            public_key=PUBLIC_KEY,
        )
        self.put(pair)
        return pair

    def launch(self, count: int = 1, *, settled: State | None = State.RUNNING, **params: Any) -> list[str]:
        """RunInstances of some image, and what a reconciler would have written since; the instance ids."""
        if "ImageId" not in params:
            images = self.store.all(Image)
            params["ImageId"] = images[0].id if images else self.make_image().id
        answer = self.call("RunInstances", MinCount=count, MaxCount=count, **params)
        made = [instance["InstanceId"] for instance in answer["Instances"]]
        if settled is not None:
            for instance_id in made:
                self.settle(instance_id, settled)
        return made

    def settle(self, instance_id: str, state: State) -> Instance:
        """Write the settled state, as a reconciler would."""
        with self.store.write() as tx:
            instance = self.get(Instance, instance_id)
            for volume in self.store.all(Volume, instance_id=instance_id):
                if volume.attachment is None:
                    continue
                if state is not State.TERMINATED:
                    attached = replace(volume.attachment, state="attached", attached_at=self.now)
                    tx.put(replace(volume, state="in-use", attachment=attached))
                elif volume.attachment.delete_on_termination:
                    tx.delete(volume)
                else:
                    tx.put(replace(volume, state="available", attachment=None))
            for interface in self.store.all(NetworkInterface, instance_id=instance_id):
                if state is State.TERMINATED:
                    tx.delete(interface)
                elif state is State.STOPPED:
                    tx.put(replace(interface, public_ip=""))
            ok = "ok" if state is State.RUNNING else "initializing"
            changes: dict[str, Any] = {"state": state, "system_status": ok, "instance_status": ok}
            if state is State.TERMINATED:
                changes["ended_at"] = self.now
            return tx.put(replace(instance, **changes))


def _wire(value: object) -> str:
    """As urlencoding writes a value of the serialiser's form."""
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture(scope="session")
def _bound() -> tuple[dict[tuple[str, str], Operation], Protocol]:
    operations.load()
    model = load_service("ec2")
    return bind_operations({"ec2": model}), protocol_for(model)


@contextmanager
def _open(path: Path) -> Iterator[Store]:
    store = Store(path, durable=False)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def api(tmp_path: Path, _bound: tuple[dict[tuple[str, str], Operation], Protocol]) -> Iterator[Api]:
    """Account 111122223333 in us-east-1 (zones a, b, c); us-west-2 has a."""
    regions = {"us-east-1": ("us-east-1a", "us-east-1b", "us-east-1c"), "us-west-2": ("us-west-2a",)}
    with _open(tmp_path / "store.sqlite") as store:
        yield Api(World(store, Settings(regions=regions), *_bound))

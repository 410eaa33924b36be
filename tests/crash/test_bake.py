"""`orc bake` is ended at each call that it makes, and the controller at points of a bake: the next bake of the recipe
works, and takes away what the first has left.

A command that is killed does nothing any more: no call, no file. A controller that ends stays away until the command
has ended too, so that this cannot clean up either. What is done in the guests, by ssh, is left out.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import click
import pytest

from orchestrator.api.operation import Call, Caller, Settings, dispatch
from orchestrator.api.protocol import protocol_for
from orchestrator.cli import bake as bake_module
from orchestrator.cli import bake_leftovers, wire
from orchestrator.cli.bake_leftovers import RUN_TAG
from orchestrator.cli.bake_recipe import read_recipe
from orchestrator.cli.client import APIError, Client, Unreachable
from orchestrator.cli.launch import BAKE_TAG
from orchestrator.cli.session import Endpoint
from orchestrator.controller import RealHostView
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import Image
from orchestrator.model.instance import Instance
from orchestrator.model.key_pair import KeyPair
from orchestrator.model.layer import Layer
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from tests.crash.agreement import check
from tests.crash.lifecycles import images
from tests.crash.points import End, Killed, Points
from tests.crash.test_points import begin
from tests.crash.world import ACCOUNT, REGIONS, World, bound

EACH = int(os.environ.get("ORC_CRASH_BAKE_EACH", "2"))  # of the controller's points, every so many; 1: all
RECIPE = """
name: web
source_ami: tiny
provisioners:
  - {type: shell, inline: [make it]}
checks: [try it]
versions_kept: 1
"""


class CommandKilled(BaseException):
    """`orc` is gone."""


class Deployment(Client):
    """What `orc` talks to. `ends` is the call at which it is killed, and whether that is after its answer was made."""

    def __init__(self, world: World, ends: End | None = None) -> None:
        super().__init__(Endpoint("http://nowhere", "us-east-1", "AKIAEXAMPLE", "secret"))
        self.world = world
        self.ends = ends
        self.called: list[str] = []
        self.dead = False

    def call(self, service: str, action: str, **parameters: Any) -> dict[str, Any]:
        if self.dead:
            raise CommandKilled
        number = len(self.called)
        self.called.append(action)
        if self.ends == End(number, after=False):
            self._die()
        answer = self._answer(service, action, parameters)
        if self.ends == End(number, after=True):
            self._die()
        return answer

    def _die(self) -> None:
        self.dead = True
        raise CommandKilled

    def _answer(self, service: str, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        world = self.world
        process = world.process
        if process is None:
            raise Unreachable("the controller has gone")
        models, operations = bound()
        process.actor = action
        call = Call(
            service=service,
            action=action,
            caller=Caller(account=ACCOUNT, access_key="AKIAEXAMPLE", arn=f"arn:aws:iam::{ACCOUNT}:root"),
            region="us-east-1",
            params=parameters,
            db=process.store,
            now=world.clock(),
            request_id="request",
            source="192.0.2.7",
            settings=Settings(regions=REGIONS, import_dir=str(world.imports)),
            host=RealHostView(process.host, process.router, verify=process.files.verify),
            keys=process.keys,
        )
        try:
            result = dispatch(process.store, operations[service, action], call)
        except EC2Error as error:
            raise APIError(error.code, error.message) from None
        except Killed:
            world.die()
            raise Unreachable("the controller has gone") from None
        written = protocol_for(models[service]).serialise(models[service].operation_model(action), result, "request")
        return wire.read_answer(service, action, written[0])

    def settle(self) -> None:
        """What is waited for comes, unless the controller ends meanwhile."""
        if self.dead:
            raise CommandKilled
        if self.world.process is None:
            raise Unreachable("the controller has gone")
        self.world.settle()

    def wait_for(self, look: Callable[[], Any], what: str, timeout_s: float) -> Any:
        self.settle()
        found = look()
        assert found is not None, f"{what} does not come"
        return found

    def wait_until(self, client: Client, ids: list[str], state: str, timeout_s: float) -> None:
        self.settle()
        now = {"ssh": "running"}.get(state, state)
        assert [each["State"]["Name"] for each in client.instances(ids)] == [now] * len(ids)


class Shop:
    """A directory with a recipe in it, and all that bakes of it leave there."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.data = directory / "data"
        self._runs = 0
        directory.mkdir(exist_ok=True)
        (directory / "bake.yaml").write_text(RECIPE)
        monkeypatch.setenv("ORC_DATA_DIR", str(self.data))

    def bake(self, client: Deployment, *, keep: bool = False) -> str:
        """Through `orc bake`'s own code, in another second than the one before."""
        self._runs += 1
        unlink, now = Path.unlink, client.world.clock()

        def until_dead(path: Path, missing_ok: bool = False) -> None:
            if client.dead:
                raise CommandKilled
            unlink(path, missing_ok=missing_ok)

        with ExitStack() as patches:
            for module in (bake_module, bake_leftovers):
                times = patches.enter_context(mock.patch.object(module, "datetime"))
                times.now.return_value = now.replace(microsecond=0, second=self._runs)
            patches.enter_context(mock.patch.object(Path, "unlink", until_dead))
            patches.enter_context(mock.patch.object(bake_module, "wait_for", client.wait_for))
            patches.enter_context(mock.patch.object(bake_module, "wait_until", client.wait_until))
            for name in ("_log_in", "_run", "_send"):
                patches.enter_context(mock.patch.object(bake_module.Bake, name))
            return bake_module._bake(
                client, read_recipe(self.directory), force=False, keep=keep, timeout_s=5.0, above=()
            )

    def files(self) -> list[str]:
        """Keys and known hosts; logs may stay."""
        return sorted(path.name for path in self.data.rglob("*") if path.is_file() and path.suffix != ".log")


def left(world: World) -> list[str]:
    """Of bakes, that is not their image."""
    store = world.store
    found = [f"{each.id} is {each.state}" for each in store.all(Instance) if each.state != "terminated"]
    found += [each.name for each in store.all(KeyPair)]
    found += [
        f"{each.id} {each.name}" for each in store.all(Image) if "untried" in each.name and each.state != "deregistered"
    ]
    found += [each.id for each in store.all(Volume)]
    kept = {snapshot for each in store.all(Image) for snapshot in each.snapshot_ids}
    found += [f"{each.id} of no image" for each in store.all(Snapshot) if each.id not in kept]
    return found


def baked(world: World) -> list[str]:
    return [each.id for each in world.store.all(Image) if BAKE_TAG in each.tags and each.state == "available"]


class Runs:
    """All from the same beginning: a deployment that has come up, with the catalogue's images."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self._monkeypatch = monkeypatch
        self._begin = begin(images, directory)
        self._number = 0

    def run(self, kill: End | None = None, end: End | None = None) -> tuple[list[str], list[str]]:
        """Bake with an end, and again without; the calls and the points that the first passed."""
        self._number += 1
        points = Points([end] if end else [])
        world = World(self.directory / f"world{self._number}", points)
        world.thaw(self._begin)
        shop = Shop(self.directory / f"shop{self._number}", self._monkeypatch)
        with world.alive():
            points.counting = False
            world.start()
            world.settle()
            layers = len(world.store.all(Layer))
            points.counting = True
            first = Deployment(world, kill)
            self._keep_away(world, points)
            try:
                shop.bake(first)
                ended = False
            except (CommandKilled, click.ClickException):
                ended = True
            points.counting = False
            if world.process is None:
                world.start()
            again = Deployment(world)
            image_id = shop.bake(again)
            world.settle()
            assert baked(world) == [image_id]
            assert left(world) == [] and shop.files() == []
            assert len(world.store.all(Layer)) == layers + 1
            check(world)
            third = Deployment(world)
            assert shop.bake(third) == image_id, "nothing has changed"
            assert ended == (kill is not None) or end is not None
            return first.called, points.passed

    def _keep_away(self, world: World, points: Points) -> None:
        """A controller that ends while it settles is not started again at once."""

        def restart() -> None:
            world.die()
            raise Unreachable("the controller has gone")

        world.restart = restart if points.ends else type(world).restart.__get__(world)  # type: ignore[method-assign]


def test_the_command_is_killed_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path, monkeypatch)
    called, _ = runs.run()
    assert called.count("RunInstances") == 2 and "CopyImage" in called
    for number, action in enumerate(called):
        for after in (False, True):
            try:
                runs.run(kill=End(number, after))
            except BaseException as error:
                error.add_note(f"killed {'after' if after else 'before'} {number}, {action}")
                raise


def test_the_controller_ends_at_points_of_a_bake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(tmp_path, monkeypatch)
    _, passed = runs.run()
    assert {"commit CreateImage", "commit CopyImage", "compute.start"} <= set(passed)
    ends = [End(number, after) for number in range(len(passed)) for after in (False, True)]
    chosen = random.Random(1).sample(ends, len(ends) // EACH)
    for end in sorted(chosen):
        try:
            runs.run(end=end)
        except BaseException as error:
            error.add_note(f"the controller ended {end}: {passed[end.number]}")
            raise


def test_what_is_kept_to_be_looked_at_is_not_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "world", Points(counting=False))
    world.thaw(begin(images, tmp_path))
    shop = Shop(tmp_path / "shop", monkeypatch)
    with world.alive():
        world.start()
        world.settle()
        with (
            mock.patch.object(bake_module.Bake, "_step", side_effect=bake_module.StepFailed("no")),
            pytest.raises(bake_module.StepFailed),
        ):
            shop.bake(Deployment(world), keep=True)
        [kept] = [each for each in world.store.all(Instance) if each.state == "running"]
        assert RUN_TAG not in kept.tags
        shop.bake(Deployment(world))
        assert world.get(Instance, kept.id).state == "running"
        assert [each.name for each in world.store.all(KeyPair)] == [kept.key_name]
        assert len(shop.files()) == 1


def test_a_bake_that_lives_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one of the same pipeline, in the middle of its work; and one of which nothing is known here."""
    world = World(tmp_path / "world", Points(counting=False))
    world.thaw(begin(images, tmp_path))
    shop = Shop(tmp_path / "shop", monkeypatch)
    with world.alive():
        world.start()
        world.settle()
        elsewhere = world.ask(
            "CreateKeyPair",
            KeyName="elsewhere",
            TagSpecifications=[{"ResourceType": "key-pair", "Tags": [{"Key": RUN_TAG, "Value": "web-elsewhere"}]}],
        )
        with bake_leftovers.begin_run("web") as run:
            tags = [{"ResourceType": "key-pair", "Tags": [{"Key": RUN_TAG, "Value": run.id}]}]
            world.ask("CreateKeyPair", KeyName="here", TagSpecifications=tags)
            shop.bake(Deployment(world))
            assert {each.name for each in world.store.all(KeyPair)} == {"here", "elsewhere"}
            run.left = True
        shop.bake(Deployment(world))
        assert [each.id for each in world.store.all(KeyPair)] == [elsewhere["KeyPairId"]]

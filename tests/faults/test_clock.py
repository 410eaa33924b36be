"""The host's clock jumps, back an hour or ahead a day: in the middle of each lifecycle, and under what has an end.

The loop waits by a clock that only runs forward, so what is due stays due. What is judged by the date (how long a guest
has been asked to shut down, when something is forgotten) is judged wrong once, and nothing else.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.metadata.tokens import MAX_TTL_S, Tokens
from orchestrator.model.errors import EC2Error
from orchestrator.model.instance import Instance
from tests.api.cloud import Cloud, Keys, allow, open_cloud, refused
from tests.conftest import Clock
from tests.crash.agreement import check
from tests.crash.lifecycles import LIFECYCLES, Lifecycle, running, state, stopped
from tests.crash.world import World
from tests.faults.test_effects import Fault, Faults, began, given_up, let_go

BACK, AHEAD = timedelta(hours=-1), timedelta(days=1)
JUMPS = pytest.mark.parametrize("jump", [BACK, AHEAD], ids=["back an hour", "ahead a day"])


def shift(world: World, jump: timedelta) -> None:
    """The date is another one; what is due is due when it would have been, as the loop's clock has not jumped."""
    world.clock.pass_(seconds=jump.total_seconds())
    process = world.process
    assert process is not None
    process._due = {key: due + jump for key, due in process._due.items()}
    process._heap = [(due + jump, order, key) for due, order, key in process._heap]
    heapq.heapify(process._heap)


class Jumps(Faults):
    """The clock jumps when so many points have been passed."""

    def __init__(self, at: int, shift: Callable[[], None]) -> None:
        super().__init__()
        self.at = at
        self.shift = shift

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        answer = super().around(name, call)
        if self.counting and len(self.passed) == self.at:
            self.shift()
        return answer


@JUMPS
@pytest.mark.parametrize("lifecycle", LIFECYCLES, ids=str)
def test_in_the_middle_of_a_lifecycle(lifecycle: Lifecycle, jump: timedelta, tmp_path: Path) -> None:
    worlds: list[World] = []
    points = Jumps(3, lambda: shift(worlds[0], jump))
    with began(lifecycle, tmp_path, points) as world:
        worlds.append(world)
        try:
            lifecycle.run(world)
        except (AssertionError, LookupError, EC2Error) as error:
            error.add_note(f"{lifecycle}")
            if jump == AHEAD or "does not settle" in str(error):
                pass  # it waits for a certain time, and finds that a day has gone by
            else:
                raise
        let_go(world)
        world.passes(hours=3)
        points.counting = False
        world.settle()
        assert len(points.passed) >= 3
        check(world)
        if lifecycle.name not in ("build_that_fails", "nat_gateway_that_fails", "launch_that_does_not_fit"):
            assert not given_up(world)


def test_a_deaf_guest_is_not_waited_for_an_hour_longer(tmp_path: Path) -> None:
    """Stop, and reboot: as long after the jump as it would have been without one, at the most."""
    for action in ("StopInstances", "RebootInstances"):
        points = Faults()
        with began(Lifecycle(action, running, lambda world: None), tmp_path / action, points) as world:
            instance = world.names["instance"]
            world.host.compute.ignore_power_button(instance)
            world.ask(action, InstanceIds=[instance])
            world.passes(seconds=10)
            shift(world, BACK)
            world.passes(minutes=5)
            if action == "StopInstances":
                assert state(world) == "stopped"
            else:
                assert points.done.count("compute.reset") == 1
                assert world.get(Instance, instance).reboots == 1


def test_a_launch_that_fails_is_tried_for_as_long_as_without_a_jump(tmp_path: Path) -> None:
    points = Faults("compute.start")
    with began(Lifecycle("start", stopped, lambda world: None), tmp_path, points) as world:
        points.fault = Fault("always", times=10_000)
        world.ask("StartInstances", InstanceIds=[world.names["instance"]])
        world.passes(minutes=1)
        shift(world, BACK)
        world.passes(minutes=4)
        assert state(world) == "pending"
        world.passes(minutes=3)
        assert state(world) == "stopped"
        reason = world.get(Instance, world.names["instance"]).reason
        assert reason is not None
        assert reason.code == "Server.InternalError"


@JUMPS
def test_what_has_terminated_is_forgotten_in_the_end(jump: timedelta, tmp_path: Path) -> None:
    with began(Lifecycle("end", running, lambda world: None), tmp_path, Faults()) as world:
        world.ask("TerminateInstances", InstanceIds=[world.names["instance"]])
        world.settle()
        shift(world, jump)
        world.passes(hours=3)
        assert world.store.all(Instance) == []


@JUMPS
def test_metadata_tokens(jump: timedelta, clock: Clock) -> None:
    """A guest asks for another when one has ended; back in time none lives longer than the hour that came back."""
    tokens = Tokens(bytes(32), clock)
    token = tokens.mint("i-1", MAX_TTL_S)
    clock.pass_(seconds=jump.total_seconds())
    assert tokens.check("i-1", token) is (jump == BACK)
    assert tokens.check("i-1", tokens.mint("i-1", 60))
    clock.pass_(seconds=MAX_TTL_S - jump.total_seconds())
    assert not tokens.check("i-1", token)


@pytest.fixture
def cloud(tmp_path: Path, clock: Clock) -> Any:
    with open_cloud(tmp_path, clock) as opened:
        yield opened


@JUMPS
def test_credentials_that_end(jump: timedelta, cloud: Cloud) -> None:
    """Those of a session end when the clock says so; keys that do not end work on, as requests are dated anew."""
    user = cloud.user("alice", allow("ec2:Describe*"), allow("sts:*"))
    session = Keys.of(cloud.client("sts", user).get_session_token(DurationSeconds=3600)["Credentials"])
    cloud.clock.pass_(seconds=jump.total_seconds())
    assert cloud.client("ec2", user).describe_regions()["Regions"]
    if jump == BACK:
        assert cloud.client("ec2", session).describe_regions()["Regions"]
        cloud.clock.pass_(seconds=7300)
    assert refused(cloud.client("ec2", session).describe_regions)[0] == "RequestExpired"

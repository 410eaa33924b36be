"""The controller killed at moments of a launch and of its end, and launches that cannot work: all come to rest."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.conftest import PACE, Deployment, Fleet, Guest, eventually

pytestmark = pytest.mark.live


def kill(deployment: Deployment, after_s: float) -> None:
    """SIGKILL, some time from now."""
    threading.Event().wait(after_s)
    assert deployment.end(signal.SIGKILL) == -signal.SIGKILL


def test_killed_during_launches_it_goes_on(deployment: Deployment, fleet: Fleet) -> None:
    """Killed at one moment after the other, while the next guests are asked for: those before run on, all arrive."""
    deployment.image("tiny")
    guests: list[Guest] = []
    for after_s in (0.0, 0.05, 0.15, 0.3):
        guests += fleet.launch(1 if guests else 3)
        kill(deployment, after_s)
        deployment.start()
    ids = [guest.id for guest in guests]
    deployment.ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=PACE)
    for guest in guests:
        guest.login(120)
        assert guest.http("GET", "/latest/meta-data/instance-id") == (200, guest.id)
    assert sorted(deployment.owned("Machines")) == sorted(ids)
    assert len({guest.private_ip for guest in guests}) == len(guests)
    for guest in guests:
        guest.logout()
    deployment.ec2.terminate_instances(InstanceIds=ids)
    for after_s in (0.0, 0.1):
        kill(deployment, after_s)
        deployment.start()
    deployment.ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig=PACE)
    leaves_nothing(deployment)


def test_guests_run_on_while_nobody_is_there(deployment: Deployment, fleet: Fleet) -> None:
    guest = fleet.one()
    before = guest.boot_id()
    uptime_s = float(guest.run("cat /proc/uptime").split()[0])
    deployment.end(signal.SIGKILL)
    # The connection of before and the network do not need the controller; metadata does.
    assert guest.boot_id() == before
    deployment.start()
    answer = eventually(lambda: guest.http("GET", "/latest/meta-data/instance-id"), 10, "metadata answers again")
    assert answer == (200, guest.id)
    assert guest.boot_id() == before
    assert float(guest.run("cat /proc/uptime").split()[0]) > uptime_s
    assert guest.state == "running"
    assert deployment.end(signal.SIGTERM) == 0
    guest.run("(sudo poweroff) >/dev/null 2>&1 &")
    guest.logout()
    pid = Path(f"/run/libvirt/qemu/{guest.id}.pid")
    eventually(lambda: not pid.exists(), 30, "it is off")
    deployment.start()
    assert guest.wait_state("stopped")["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


@contextmanager
def without(path: Path) -> Iterator[None]:
    """A time in which `path` is not there."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


def image_layer(deployment: Deployment) -> Path:
    return deployment.state_dir / "layers" / f"{image_kernel(deployment).parent.name}.qcow2"


def image_kernel(deployment: Deployment) -> Path:
    """Of tiny, which alone has one."""
    deployment.image("tiny")
    [directory] = (deployment.state_dir / "kernels").iterdir()
    return directory / "kernel"


@pytest.mark.parametrize("lost", [image_layer, image_kernel])
def test_a_launch_that_cannot_work(deployment: Deployment, fleet: Fleet, lost: Callable[[Deployment], Path]) -> None:
    """The disk is missed at once; the kernel when disk and network are made already."""
    with without(lost(deployment)):
        [guest] = fleet.launch()
        described = guest.wait_state("terminated")
    assert described["StateReason"]["Code"] == "Server.InternalError"
    assert described["StateTransitionReason"]
    leaves_nothing(deployment)


def leaves_nothing(deployment: Deployment) -> None:
    """No disk, address, volume or interface of an instance."""
    eventually(lambda: not any(deployment.owned(kind) for kind in ("Machines", "Routers", "Ports")), 30, "all is gone")
    assert deployment.ec2.describe_volumes()["Volumes"] == []
    assert deployment.ec2.describe_network_interfaces()["NetworkInterfaces"] == []
    images = {"layer-" + build["BuildId"].partition("-")[2] for build in deployment.orc("DescribeBuilds")["Builds"]}
    eventually(lambda: set(deployment.owned("Layers")) <= images, 30, "no layer but the images'")
    assert {path.name.removesuffix(".qcow2") for path in (deployment.state_dir / "layers").glob("layer-*")} <= images

"""What happens to a host happens to one here, in a box of the test's own: nothing is lost, and all comes back.

`docs/faults.md` has the table. Set ORC_MEASURE to a file to have what is measured written to it; ORC_FAULTS_AWAY_S is
for how long libvirtd is away, ORC_FAULTS_SILENT=1 adds the tests that wait for long deadlines.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from orchestrator.host.links import bridge_name
from tests.live.box import Box, BoxedDeployment, make_box
from tests.live.conftest import PACE, Guest, allow, eventually
from tests.measure import measured

pytestmark = pytest.mark.live

AWAY_S = float(os.environ.get("ORC_FAULTS_AWAY_S", "10"))
MENDED_S = 45.0  # networks are looked at every 30 s


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with make_box() as made:
        yield made


@pytest.fixture(scope="module")
def boxed(box: Box) -> Iterator[BoxedDeployment]:
    """Its image is built outside, since the box has no way out."""
    made = BoxedDeployment(box, "--cpu-overcommit", "32")  # guests that wait, or stand still, take no processor
    try:
        made.start()
        made.image("tiny")
        assert made.end() == 0
        box.boot()
        made.start()
        made.prepare()
        yield made
        assert made.end() == 0
    finally:
        if made.process is not None and made.process.poll() is None:
            made.end(signal.SIGKILL)
        made.close()


@pytest.fixture(scope="module")
def resident(boxed: BoxedDeployment) -> Guest:
    """Runs from the first test to the last."""
    [guest] = boxed.launch()
    guest.login()
    return guest


@contextlib.contextmanager
def launched(boxed: BoxedDeployment, count: int = 1, **more: Any) -> Iterator[list[Guest]]:
    guests = boxed.launch(count, **more)
    try:
        yield guests
    finally:
        for guest in guests:
            guest.logout()
        boxed.terminate([guest.id for guest in guests], deadline_s=120)


@pytest.fixture(autouse=True)
def _told(boxed: BoxedDeployment) -> Iterator[None]:
    """On standard output, which is shown when a test fails: what the controller had to say."""
    before = len(boxed.log_text)
    yield
    lines = boxed.log_text[before:].splitlines()
    print("\n".join(line for line in lines if " INFO " not in line)[-6000:])


def running(boxed: BoxedDeployment, guests: list[Guest], deadline_s: float = 90.0) -> None:
    """All of them, and the box has machines for those that run and no others."""
    ids = {guest.id for guest in guests}
    eventually(lambda: ids <= set(boxed.instances("running")), deadline_s, f"{ids} run", every_s=0.05)
    eventually(lambda: machines(boxed.box) == set(boxed.instances("running")), 30, "there are no other machines")


def machines(box: Box, *more: str) -> set[str]:
    """Those that run; with --all, also those that are off."""
    return set(box.run("virsh", "-c", "qemu:///system", "list", "--name", *more).split())


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def since(began: float) -> float:
    return time.monotonic() - began


def qemu_of(box: Box, guest: Guest) -> int:
    [found] = box.processes("qemu-system", f"guest={guest.id}")
    return found


def test_libvirtd_is_restarted_in_the_middle_of_launches(box: Box, boxed: BoxedDeployment, resident: Guest) -> None:
    before = resident.boot_id()
    with launched(boxed, 3) as guests:
        pause(0.1)
        box.restart_libvirtd()
        began = time.monotonic()
        running(boxed, [*guests, resident])
        measured("libvirtd restarted", "launches of before run", since(began))
        guests[-1].login()
    assert resident.boot_id() == before


def test_libvirtd_is_killed_and_away(box: Box, boxed: BoxedDeployment, resident: Guest) -> None:
    before = resident.boot_id()
    with launched(boxed, 2) as [to_stop, to_end]:
        running(boxed, [to_stop, to_end])
        box.kill_libvirtd()
        went = time.monotonic()
        with launched(boxed) as [late]:
            boxed.ec2.stop_instances(InstanceIds=[to_stop.id], Force=True)
            boxed.ec2.terminate_instances(InstanceIds=[to_end.id])
            slowest = 0.0
            while since(went) < AWAY_S:
                asked = time.monotonic()
                states = {guest.id: guest.state for guest in (late, to_stop, to_end)}
                slowest = max(slowest, since(asked) / 3)
                assert list(states.values()) == ["pending", "stopping", "shutting-down"]
                assert resident.boot_id() == before
                pause(0.5)
            assert slowest < 1.0
            # The network, the volumes and the metadata need no libvirtd.
            assert resident.http("GET", "/latest/meta-data/instance-id") == (200, resident.id)
            volume = boxed.ec2.create_volume(
                Size=1, AvailabilityZone=resident.describe()["Placement"]["AvailabilityZone"]
            )
            eventually(lambda: volume_state(boxed, volume["VolumeId"]) == "available", 10, "a volume is made")
            boxed.ec2.delete_volume(VolumeId=volume["VolumeId"])
            box.start_libvirtd()
            began = time.monotonic()
            running(boxed, [late, resident])
            to_stop.wait_state("stopped")
            to_end.wait_state("terminated")
            measured(
                f"libvirtd away for {since(went) - since(began):.0f} s", "all that was asked for is done", since(began)
            )
    assert resident.boot_id() == before


def volume_state(boxed: BoxedDeployment, volume_id: str) -> str:
    return str(boxed.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["State"])


def test_qemu_is_killed(box: Box, boxed: BoxedDeployment, resident: Guest) -> None:
    before = resident.boot_id()
    killed = qemu_of(box, resident)
    os.kill(killed, signal.SIGKILL)
    began = time.monotonic()
    resident.logout()
    name = f"guest={resident.id}"
    eventually(lambda: set(box.processes("qemu-system", name)) - {killed}, 60, "its machine runs again", every_s=0.05)
    measured("QEMU killed", "the machine runs again", since(began))
    eventually(lambda: resident.boot_id() != before, 60, "it runs again")
    measured("QEMU killed", "ssh answers again", since(began))
    assert resident.state == "running"


def test_a_guest_panics(boxed: BoxedDeployment, resident: Guest) -> None:
    """Its kernel stands still, and is reset; then it resets itself, after `panic=` seconds."""
    before = resident.boot_id()
    panic(resident, 0)
    began = time.monotonic()
    eventually(lambda: status_of(boxed, resident) == "impaired", 30, "it is impaired")
    measured("guest panics", "it is impaired", since(began))
    assert "Kernel panic" in resident.console()
    assert resident.state == "running"
    boxed.ec2.reboot_instances(InstanceIds=[resident.id])
    began = time.monotonic()
    eventually(lambda: status_of(boxed, resident) == "ok", 60, "it is well after a reset")
    measured("guest panics", "its status is ok, from the call that reboots it", since(began))
    eventually(lambda: resident.boot_id() != before, 60, "it runs again")

    again = resident.boot_id()
    panic(resident, 1)
    began = time.monotonic()
    eventually(lambda: resident.boot_id() != again, 60, "it runs again")
    measured("guest panics", "ssh answers again, of which its kernel waits 1 s", since(began))
    eventually(lambda: status_of(boxed, resident) == "ok", 60, "its status says so")
    assert resident.state == "running"


def panic(guest: Guest, timeout_s: int) -> None:
    words = f"echo {timeout_s} >/proc/sys/kernel/panic; (sleep 0.2; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &"
    guest.run(f"sudo sh -c '{words}'")
    guest.logout()


def test_a_guest_powers_itself_off(boxed: BoxedDeployment) -> None:
    with launched(boxed) as [guest]:
        guest.login()
        guest.run("(sudo poweroff) >/dev/null 2>&1 &")
        began = time.monotonic()
        guest.logout()
        assert guest.wait_state("stopped")["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
        measured("guest powers itself off", "its state is stopped", since(began))


def test_networks_are_taken_away(box: Box, boxed: BoxedDeployment, resident: Guest) -> None:
    """By hand, while the controller runs and nobody changes anything: dnsmasq, rules, a bridge, a namespace."""
    networks = [Network(boxed, number) for number in (1, 2)]
    with (
        launched(boxed, SubnetId=networks[0].subnet, SecurityGroupIds=[networks[0].group]) as [bridged],
        launched(boxed, SubnetId=networks[1].subnet, SecurityGroupIds=[networks[1].group]) as [spaced],
    ):
        for guest in (bridged, spaced, resident):
            guest.login()
            guest.logout()
        vpc, gone = resident.describe()["VpcId"], networks[1].vpc
        [dnsmasq] = box.processes("dnsmasq", vpc)
        os.kill(dnsmasq, signal.SIGKILL)
        box.run("ip", "netns", "exec", vpc, "nft", "flush", "ruleset")
        box.run("ip", "link", "delete", bridge_name(networks[0].subnet))
        box.run("ip", "netns", "delete", gone)
        faults: dict[str, Callable[[], object]] = {
            "dnsmasq killed": lambda: box.processes("dnsmasq", vpc),
            "rules flushed": lambda: "chain" in box.run("ip", "netns", "exec", vpc, "nft", "list", "ruleset"),
            "bridge deleted": bridged.boot_id,
            "namespace deleted": lambda: gone in box.run("ip", "netns", "list") and spaced.boot_id(),
        }
        began = time.monotonic()
        waiting = [threading.Thread(target=wait_for, args=(fault, is_so, began)) for fault, is_so in faults.items()]
        for thread in waiting:
            thread.start()
        for thread in waiting:
            thread.join(MENDED_S + 10)
        assert sorted(MENDED) == sorted(faults)
        resident.login()
        assert resident.http("GET", "/latest/meta-data/instance-id") == (200, resident.id)
    for network in networks:
        network.delete()


MENDED: dict[str, float] = {}


def wait_for(fault: str, is_so: Callable[[], object], began: float) -> None:
    eventually(is_so, MENDED_S, fault)
    MENDED[fault] = since(began)
    measured(fault, "all is back, nobody having changed anything", since(began))


class Network:
    """A VPC with one public subnet and a group that lets ssh in."""

    def __init__(self, boxed: BoxedDeployment, number: int) -> None:
        ec2 = self._ec2 = boxed.ec2
        self.vpc = ec2.create_vpc(CidrBlock=f"10.{number}.0.0/16")["Vpc"]["VpcId"]
        self.subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.{number}.1.0/24")["Subnet"]["SubnetId"]
        ec2.modify_subnet_attribute(SubnetId=self.subnet, MapPublicIpOnLaunch={"Value": True})
        self._way_out = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=self._way_out, VpcId=self.vpc)
        [table] = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [self.vpc]}])["RouteTables"]
        ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=self._way_out)
        self.group = ec2.create_security_group(GroupName="ssh", Description="ssh", VpcId=self.vpc)["GroupId"]
        ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[allow("tcp", 22)])

    def delete(self) -> None:
        self._ec2.detach_internet_gateway(InternetGatewayId=self._way_out, VpcId=self.vpc)
        self._ec2.delete_internet_gateway(InternetGatewayId=self._way_out)
        self._ec2.delete_security_group(GroupId=self.group)
        self._ec2.delete_subnet(SubnetId=self.subnet)
        self._ec2.delete_vpc(VpcId=self.vpc)


def test_room_on_the_disk_goes_away(box: Box, boxed: BoxedDeployment, resident: Guest) -> None:
    """Of layers and of the store alike. The guest stands still and loses nothing; a call that would change something is
    done or refused, and one that only asks is answered; then all goes on."""
    resident.login()
    before = resident.boot_id()
    ballast = box.place / "ballast"
    fill(ballast)
    began = time.monotonic()
    wrote = "head -c 24000000 /dev/urandom >file; sync; sha256sum file >/tmp/sum.new; mv /tmp/sum.new /tmp/sum"
    resident.run(f"(cd; {wrote}) >/dev/null 2>&1 &")
    resident.logout()
    eventually(lambda: power(box, resident) == "paused", 60, "it stands still")
    measured("disk full", "a guest that writes stands still", since(began))
    eventually(lambda: status_of(boxed, resident) == "impaired", 30, "the store has room for that")
    measured("disk full", "and is impaired", since(began))
    assert resident.state == "running"
    for number in range(20):  # the store has some room in what it has taken already
        try:
            boxed.ec2.create_security_group(GroupName=f"full-{number}", Description="d" * 255)
        except ClientError as error:
            unavailable = error.response
            break
    else:
        unavailable = None
    assert unavailable is None or unavailable["Error"]["Code"] == "Unavailable"
    assert len(boxed.ec2.describe_instances(InstanceIds=[resident.id])["Reservations"]) == 1
    ballast.unlink()
    began = time.monotonic()
    eventually(lambda: resident.boot_id() == before, 90, "it answers, and has not booted anew")
    measured("disk full", "the guest goes on, once there is room", since(began))
    eventually(lambda: resident.run("test -s /tmp/sum && echo done || true"), 60, "it has written all")
    resident.run("sync; echo 3 | sudo tee /proc/sys/vm/drop_caches; sha256sum -c /tmp/sum")
    eventually(lambda: status_of(boxed, resident) == "ok", 60, "its status says so")
    with launched(boxed) as guests:
        running(boxed, guests)


def power(box: Box, guest: Guest) -> str:
    """As libvirtd of the box has it."""
    return box.run("virsh", "-c", "qemu:///system", "domstate", guest.id).strip()


def fill(ballast: Path) -> None:
    """Take all room that there is on its file system."""
    with open(ballast, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def status_of(boxed: BoxedDeployment, guest: Guest) -> str:
    [status] = boxed.ec2.describe_instance_status(InstanceIds=[guest.id])["InstanceStatuses"]
    return str(status["InstanceStatus"]["Status"])


def test_the_host_goes_away_and_boots(box: Box, boxed: BoxedDeployment, resident: Guest) -> None:
    """What ran runs again; where that is not wanted, it is reported stopped, and why."""
    resident.run("echo kept >kept; sync")
    before = resident.boot_id()
    stopped = boxed.launch()[0]
    stopped.wait("instance_running")
    boxed.ec2.stop_instances(InstanceIds=[stopped.id], Force=True)
    stopped.wait_state("stopped")
    with launched(boxed) as [half]:  # on its way when the plug is pulled
        power_cycle(box, boxed)
        began = time.monotonic()
        eventually(lambda: resident.boot_id() != before, 90, "it runs again")
        measured("host boots", "ssh answers again, from the controller's start", since(began))
        assert resident.run("cat kept") == "kept\n"
        assert resident.http("GET", "/latest/meta-data/instance-id") == (200, resident.id)
        running(boxed, [resident, half])
        assert stopped.state == "stopped"

        power_cycle(box, boxed, "--instances-after-host-boot", "stop")
        began = time.monotonic()
        for guest in (resident, half):
            described = guest.wait_state("stopped")
            assert described["StateReason"]["Code"] == "Server.InternalError"
            assert "host has booted" in described["StateReason"]["Message"]
        measured("host boots, after_host_boot = stop", "instances are stopped", since(began))
        assert machines(box, "--all") == set()
        boxed.ec2.start_instances(InstanceIds=[resident.id, stopped.id])
        boxed.ec2.get_waiter("instance_running").wait(InstanceIds=[resident.id, stopped.id], WaiterConfig=PACE)
        resident.login()
        assert resident.run("cat kept") == "kept\n"
    boxed.terminate([stopped.id])


def power_cycle(box: Box, boxed: BoxedDeployment, *flags: str) -> None:
    box.crash()
    assert boxed.process is not None
    boxed.end(signal.SIGKILL)
    box.boot()
    kept, boxed.flags = boxed.flags, (*boxed.flags, *flags)
    boxed.start()
    boxed.flags = kept


if os.environ.get("ORC_FAULTS_SILENT"):

    def test_libvirtd_is_silent(box: Box, boxed: BoxedDeployment, resident: Guest) -> None:
        """Stopped, it takes connections and says nothing: the others' work goes on."""
        box.signal("libvirtd", signal.SIGSTOP)
        began = time.monotonic()
        try:
            with launched(boxed, 12) as guests:
                pause(40)
                zone = resident.describe()["Placement"]["AvailabilityZone"]
                volume = boxed.ec2.create_volume(Size=1, AvailabilityZone=zone)
                asked = time.monotonic()
                eventually(lambda: volume_state(boxed, volume["VolumeId"]) == "available", 30, "a volume is made")
                measured("libvirtd silent", "a volume is made meanwhile", since(asked))
                boxed.ec2.delete_volume(VolumeId=volume["VolumeId"])
                assert {guest.state for guest in guests} == {"pending"}
                box.signal("libvirtd", signal.SIGCONT)
                asked = time.monotonic()
                running(boxed, guests, 120)
                measured(f"libvirtd silent for {since(began) - since(asked):.0f} s", "12 launches run", since(asked))
        finally:
            box.signal("libvirtd", signal.SIGCONT)

    def test_machines_that_do_not_answer(box: Box, boxed: BoxedDeployment, resident: Guest) -> None:
        """More of them than there are workers: others are launched all the same, and they can be terminated."""
        with launched(boxed, 9) as guests:
            running(boxed, guests)
            ids = [guest.id for guest in guests]
            for guest in guests:
                os.kill(qemu_of(box, guest), signal.SIGSTOP)
            began = time.monotonic()
            boxed.ec2.reboot_instances(InstanceIds=ids)
            with launched(boxed) as [other]:
                running(boxed, [other], 180)
                measured("QEMU of 9 machines silent", "another launch runs", since(began))
            began = time.monotonic()
            boxed.terminate(ids, 200)
            measured("QEMU of 9 machines silent", "all are terminated", since(began))

"""What a reconciler may rely on, of both hosts: the one in memory, and libvirt with qcow2 files.

The libvirt one runs a guest of 512 bytes, a boot sector that is written out below. It says `ready` on its serial port,
echoes what it is sent, powers itself off when its power button is pressed or it is sent a `p`, resets on an `r`, on
an `e` lets go of the devices that it is asked to let go of, and on a `k` says that it panics.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.host import (
    CapacityError,
    Compute,
    Disk,
    HostError,
    LayerFile,
    Limits,
    Machine,
    MachineStatus,
    Nic,
    OffReason,
    Power,
    Storage,
)
from orchestrator.host.libvirt import LibvirtCompute, qemu_owner
from orchestrator.host.links import bridge_name
from orchestrator.host.memory import MemoryCompute
from orchestrator.host.memory_storage import MemoryStorage
from orchestrator.host.qcow2 import QcowStorage

URI = "qemu:///system"
GIB = 1 << 30

BOOT_SECTOR = (
    bytes.fromhex(
        "fc 31c0 8ed8"  # cld; xor ax, ax; mov ds, ax
        "ba0206 b80001 ef"  # out 0x602, 0x100: let ACPI report the power button
        "be857c"  # mov si, text
        "bafd03 ec a820 74fb"  # print: until the serial port takes a byte
        "ac 84c0 7406"  # lodsb; at the text's end jump to main
        "baf803 ee ebed"  # out 0x3f8, al; jump to print
        "ba0006 ed f6c401 751f"  # main: in ax, 0x600; was the power button pressed? jump to off
        "bafd03 ec a801 74ef"  # is there a byte on the serial port? else jump to main
        "baf803 ec"  # in al, 0x3f8
        "3c70 740f"  # p? jump to off
        "3c72 7414"  # r? jump to reset
        "3c65 7418"  # e? jump to eject
        "3c6b 7436"  # k? jump to panic
        "ee ebd8"  # out 0x3f8, al; jump to main
        "ba0406 b80020 ef ebfe"  # off: out 0x604, 0x2000: ACPI's S5
        "baf90c b006 ee ebfe"  # reset: out 0xcf9, 6
        "6631db"  # eject: xor ebx, ebx
        "bad00c 6689d8 66ef"  # next: out 0xcd0, ebx: the hot plug registers of this bus
        "bac40c 66ed"  # in eax, 0xcc4: the slots that are to be emptied
        "bac80c 6685c0 7402 66ef"  # out 0xcc8, eax: empty them, where there are any
        "43 83fb10 72e3"  # inc bx; below 16 jump to next
        "eba5"  # jump to main
        "ba0505 b001 ee eb9d"  # panic: out 0x505, 1: ring the panic device; jump to main
    )
    + b"ready\r\n\0"
).ljust(510, b"\0") + b"\x55\xaa"

RECIPE = """
description = "A boot sector"
root_device = "/dev/xvda"
user = "nobody"
boot = "disk"
"""
BUILD = """#!/bin/sh
echo "convert"
exec qemu-img convert -f raw -O qcow2 boot.raw "$1/disk.qcow2"
"""


class Rig:
    """A host to try, and what only tests do to it."""

    compute: Compute
    storage: Storage
    segment: str

    def __init__(self) -> None:
        self.name = f"i-{uuid.uuid4().hex[:17]}"
        self._changed = threading.Condition()
        self.woken: list[str] = []

    def wake(self, name: str) -> None:
        with self._changed:
            self.woken.append(name)
            self._changed.notify_all()

    def until(self, is_so: Callable[[], bool], deadline_s: float = 20) -> None:
        end = time.monotonic() + deadline_s
        while not is_so():
            assert time.monotonic() < end, "it did not come to pass"
            with self._changed:
                self._changed.wait(0.05)

    def until_power(self, power: Power) -> None:
        def is_so() -> bool:
            status = self.compute.observe(self.name)
            return status is not None and status.power is power

        self.until(is_so)

    def until_ready(self, boots: int = 1) -> None:
        """The guest listens; it has booted `boots` times in all."""
        self.until(lambda: self.compute.console(self.name).count(self.greeting) >= boots)

    def machine(self, **changes: object) -> Machine:
        values: dict[str, object] = {
            "name": self.name,
            "uuid": f"ec2{uuid.uuid5(uuid.NAMESPACE_OID, self.name).hex[3:]}",
            "vcpus": 1,
            "cores": 1,
            "threads": 1,
            "memory_mib": 64,
            "disks": (Disk(chain=(LayerFile("layer-top"), LayerFile("layer-base")), serial="vol1"),),
            "nics": (Nic(port=f"eni-{self.name[2:]}", segment=self.segment, mac="02:00:00:00:00:01"),),
            "product_name": "t3.nano",
            "asset_tag": self.name,
        }
        return Machine(**{**values, **changes})  # type: ignore[arg-type]

    greeting = b""

    def guest_powers_off(self) -> None: ...

    def guest_panics(self) -> None:
        """Its kernel says so."""

    def guest_resets_itself(self) -> None: ...

    def guest_echoes(self) -> None:
        """It sends back what is waiting on its serial port."""

    def guest_lets_go(self, device: str) -> None:
        """It takes out the interface or disk that it was asked to; until then it does not."""

    def nic(self, number: int) -> Nic:
        digits = self.name[2:14]  # a tap's name has fifteen characters
        return Nic(port=f"e{number:02}{digits}", segment=self.segment, mac=f"02:00:00:00:01:{number:02x}")

    def ports(self) -> tuple[str, ...]:
        status = self.compute.observe(self.name)
        return status.ports if status else ()

    def status(self) -> MachineStatus:
        status = self.compute.observe(self.name)
        assert status is not None
        return status

    def disk(self, number: int) -> Disk:
        """A disk of one layer, which is made."""
        self.storage.create_layer(f"layer-disk{number}", size_bytes=1 << 20)
        return Disk(chain=(LayerFile(f"layer-disk{number}"),), serial=f"vol{number}")

    def chains(self) -> dict[str, tuple[str, ...]]:
        status = self.compute.observe(self.name)
        return {disk.serial: disk.chain for disk in status.disks} if status else {}


class MemoryRig(Rig):
    greeting = b"login:"
    segment = "segment"

    def __init__(self) -> None:
        super().__init__()
        storage = MemoryStorage(strict=True)
        self.memory = MemoryCompute(memory_mib=1 << 20, storage=storage)
        self.compute, self.storage = self.memory, storage
        self.memory.hold_on(self.name)

    def guest_powers_off(self) -> None:
        self.memory.guest_powers_off(self.name)

    def guest_panics(self) -> None:
        self.memory.panic(self.name)

    def guest_resets_itself(self) -> None:
        self.memory.guest_resets_itself(self.name)

    def guest_echoes(self) -> None:
        self.memory.guest_writes(self.name, self.memory.guest_serial(self.name).recv(100))

    def guest_lets_go(self, device: str) -> None:
        self.memory.guest_lets_go(self.name, device)


class LibvirtRig(Rig):
    greeting = b"ready"

    def __init__(self, directory: Path, segment: str) -> None:
        super().__init__()
        self.segment = segment
        recipe = directory / "images" / "tiny"
        recipe.mkdir(parents=True)
        (recipe / "recipe.toml").write_text(RECIPE)
        (recipe / "boot.raw").write_bytes(BOOT_SECTOR.ljust(1 << 20, b"\0"))
        (recipe / "build").write_text(BUILD)
        (recipe / "build").chmod(0o755)
        files = QcowStorage(directory / "state", directory / "images", owner=qemu_owner(URI))
        self.storage = files
        self.compute = LibvirtCompute(
            uri=URI,
            deployment=f"contract-{self.name}",
            files=files,
            run_dir=directory / "run",
            console_dir=directory / "consoles",
            accelerator="tcg",
            validate=True,
        )

    def guest_powers_off(self) -> None:
        self.until_ready()
        with self.compute.console_socket(self.name) as serial:
            serial.sendall(b"p")
            self.until_power(Power.OFF)

    def guest_panics(self) -> None:
        with self.compute.console_socket(self.name) as serial:
            serial.sendall(b"k")
            self.until(lambda: self.status().panicked)

    def guest_resets_itself(self) -> None:
        resets = self.status().resets
        with self.compute.console_socket(self.name) as serial:
            serial.sendall(b"r")
            self.until(lambda: self.status().resets > resets)

    def guest_lets_go(self, device: str) -> None:
        with self.compute.console_socket(self.name) as serial:
            serial.sendall(b"e")
            self.until(lambda: device not in self.ports() and device not in self.chains())


def memory_rig() -> Iterator[Rig]:
    rig = MemoryRig()
    yield rig
    rig.compute.close()


def libvirt_rig() -> Iterator[Rig]:
    segment = f"subnet-{uuid.uuid4().hex[:17]}"
    bridge = bridge_name(segment)
    directory = Path(tempfile.mkdtemp(prefix="orc-"))
    directory.chmod(0o711)  # QEMU's user passes through
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", bridge, "up"], check=True)
    rig = LibvirtRig(directory, segment)
    try:
        yield rig
    finally:
        for name in rig.compute.names():
            rig.compute.remove(name)
        rig.compute.close()
        subprocess.run(["ip", "link", "delete", bridge], check=False)
        shutil.rmtree(directory)


@pytest.fixture(params=["memory", pytest.param("libvirt", marks=pytest.mark.host)])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rigs = libvirt_rig() if request.param == "libvirt" else memory_rig()
    rig = next(rigs)
    rig.storage.build_image("tiny", "layer-base", lambda line: None)
    rig.storage.create_layer("layer-top", size_bytes=2 * GIB, parent="layer-base")
    rig.compute.watch(rig.wake)
    yield rig
    with suppress(StopIteration):
        next(rigs)


# --- compute -------------------------------------------------------------------------------------------------------


def test_a_machine_lives(rig: Rig) -> None:
    compute = rig.compute
    assert compute.observe(rig.name) is None
    assert compute.names() == []

    compute.start(rig.machine())
    status = compute.observe(rig.name)
    assert status is not None
    assert (status.power, status.off_reason, status.resets) == (Power.RUNNING, None, 0)
    assert compute.names() == [rig.name]
    rig.until(lambda: rig.name in rig.woken)

    compute.start(rig.machine())  # runs already: nothing happens
    rig.until_ready()
    assert compute.console(rig.name).count(rig.greeting) == 1

    compute.remove(rig.name)
    assert compute.observe(rig.name) is None
    assert compute.names() == []
    compute.remove(rig.name)


def test_the_power_button_ends_in_off_by_the_guest_and_it_starts_again(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    rig.until_ready()
    rig.compute.ask_to_stop(rig.name)
    rig.until_power(Power.OFF)
    status = rig.compute.observe(rig.name)
    assert status is not None
    assert status.off_reason is OffReason.GUEST
    assert rig.compute.names() == [rig.name]
    rig.compute.ask_to_stop(rig.name)  # off already

    rig.compute.start(rig.machine(memory_mib=96))
    status = rig.compute.observe(rig.name)
    assert status is not None
    assert (status.power, status.off_reason) == (Power.RUNNING, None)
    rig.until_ready(boots=2)


def test_a_guest_that_powers_itself_off_is_noticed(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    rig.guest_powers_off()
    rig.until_power(Power.OFF)
    status = rig.compute.observe(rig.name)
    assert status is not None
    assert status.off_reason is OffReason.GUEST


@pytest.mark.parametrize("how", ["ask_to_reboot", "reset"])
def test_a_reboot_is_a_reset_that_is_counted(rig: Rig, how: str) -> None:
    rig.compute.start(rig.machine())
    rig.until_ready()
    rig.woken.clear()
    getattr(rig.compute, how)(rig.name)

    def counted() -> bool:
        status = rig.compute.observe(rig.name)
        return status is not None and status.resets == 1 and status.power is Power.RUNNING

    rig.until(counted)
    rig.until(lambda: rig.name in rig.woken)
    rig.until_ready(boots=2)


def test_a_guest_that_panics_is_noticed_and_runs_on(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    rig.until_ready()
    for boots in (1, 2):  # the second panic is noticed like the first
        rig.woken.clear()
        rig.guest_panics()
        rig.until(lambda: rig.name in rig.woken)
        status = rig.status()
        assert (status.power, status.panicked, status.reset_since) == (Power.RUNNING, True, False)
        rig.compute.start(rig.machine())  # it runs
        assert rig.status().panicked
        rig.compute.resume(rig.name)
        rig.until(lambda: not rig.status().panicked)
        assert rig.status().power is Power.RUNNING
        rig.guest_resets_itself()
        rig.until_ready(boots + 1)
        assert not rig.status().panicked
    rig.guest_panics()
    rig.guest_resets_itself()  # before anybody has looked
    assert (rig.status().panicked, rig.status().reset_since) == (True, True)
    rig.compute.resume(rig.name)
    rig.until(lambda: not rig.status().panicked)
    rig.until_ready(boots=4)
    rig.guest_powers_off()
    rig.until_power(Power.OFF)
    assert not rig.status().panicked


def test_what_is_not_there_or_off_needs_nothing(rig: Rig) -> None:
    for act in (rig.compute.ask_to_stop, rig.compute.ask_to_reboot, rig.compute.reset):
        act(rig.name)
    rig.compute.remove(rig.name)
    rig.compute.forget(rig.name)
    assert rig.compute.console(rig.name) == b""
    with pytest.raises(HostError):
        rig.compute.console_socket(rig.name)
    with pytest.raises(HostError):
        rig.compute.screenshot(rig.name)


def test_an_interface_comes_and_goes_while_the_guest_runs(rig: Rig) -> None:
    machine = rig.machine()
    [first] = machine.nics
    second, third = rig.nic(2), rig.nic(3)
    rig.compute.start(machine)
    rig.until_ready()
    assert rig.ports() == (first.port,)
    for nic in (first, second, third, second):  # what is there already is left alone
        rig.compute.plug_in(rig.name, nic)
    assert rig.ports() == (first.port, second.port, third.port)

    for _ in range(2):
        rig.compute.unplug(rig.name, second.port)
    assert rig.ports() == (first.port, second.port, third.port)  # the guest has not let go yet
    rig.woken.clear()
    rig.guest_lets_go(second.port)
    rig.until(lambda: rig.ports() == (first.port, third.port))
    rig.until(lambda: rig.name in rig.woken)
    rig.compute.unplug(rig.name, second.port)

    rig.compute.plug_in(rig.name, second)
    assert set(rig.ports()) == {first.port, second.port, third.port}
    rig.compute.remove(rig.name)
    rig.compute.start(machine)  # each start is a new one
    assert rig.ports() == (first.port,)


def test_a_reset_takes_out_what_the_guest_did_not_let_go_of(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    rig.until_ready()
    rig.compute.plug_in(rig.name, rig.nic(2))
    rig.compute.unplug(rig.name, rig.nic(2).port)
    rig.compute.reset(rig.name)
    rig.until(lambda: rig.nic(2).port not in rig.ports())


def test_what_does_not_run_takes_no_interface(rig: Rig) -> None:
    with pytest.raises(HostError, match="does not run"):
        rig.compute.plug_in(rig.name, rig.nic(2))
    rig.compute.unplug(rig.name, rig.nic(2).port)
    rig.compute.start(rig.machine())
    rig.guest_powers_off()
    rig.until_power(Power.OFF)
    with pytest.raises(HostError, match="does not run") as caught:
        rig.compute.plug_in(rig.name, rig.nic(2))
    assert caught.value.retryable
    rig.compute.unplug(rig.name, rig.machine().nics[0].port)
    assert rig.ports() == ()


def test_interfaces_find_no_slot_in_a_machine_that_is_full(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    for number in range(1, 32):
        rig.compute.plug_in(rig.name, rig.nic(number))
    assert len(rig.ports()) == 32
    with pytest.raises(CapacityError):
        rig.compute.plug_in(rig.name, rig.nic(32))
    rig.compute.plug_in(rig.name, rig.nic(31))  # is there already


def test_a_disk_comes_and_goes_while_the_guest_runs(rig: Rig) -> None:
    machine = rig.machine()
    second, third = rig.disk(2), rig.disk(3)
    rig.compute.start(machine)
    rig.until_ready()
    assert rig.chains() == {"vol1": ("layer-top", "layer-base")}
    for disk in (second, third, second):  # what is there already is left alone
        rig.compute.plug_in_disk(rig.name, disk)
    assert rig.chains() == {
        "vol1": ("layer-top", "layer-base"),
        "vol2": ("layer-disk2",),
        "vol3": ("layer-disk3",),
    }
    for _ in range(2):
        rig.compute.unplug_disk(rig.name, "vol2")
    assert "vol2" in rig.chains()  # the guest has not let go yet
    rig.woken.clear()
    rig.guest_lets_go("vol2")
    rig.until(lambda: list(rig.chains()) == ["vol1", "vol3"])
    rig.until(lambda: rig.name in rig.woken)
    rig.compute.unplug_disk(rig.name, "vol2")

    rig.compute.plug_in_disk(rig.name, second)
    assert set(rig.chains()) == {"vol1", "vol2", "vol3"}
    rig.compute.remove(rig.name)
    rig.compute.start(machine)  # each start is a new one
    assert set(rig.chains()) == {"vol1"}


def test_a_reset_takes_out_the_disk_that_the_guest_did_not_let_go_of(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    rig.until_ready()
    rig.compute.plug_in_disk(rig.name, rig.disk(2))
    rig.compute.unplug_disk(rig.name, "vol2")
    rig.compute.reset(rig.name)
    rig.until(lambda: "vol2" not in rig.chains())


def test_disks_find_no_slot_in_a_machine_that_is_full(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    for number in range(2, 33):
        rig.compute.plug_in_disk(rig.name, rig.disk(number))
    assert len(rig.chains()) == 32
    with pytest.raises(CapacityError):
        rig.compute.plug_in_disk(rig.name, rig.disk(33))
    rig.compute.plug_in_disk(rig.name, rig.disk(32))  # is there already


def test_disks_are_switched_together_and_flattened(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    rig.compute.plug_in_disk(rig.name, rig.disk(2))
    rig.storage.create_layer("layer-top2", size_bytes=2 * GIB, parent="layer-top")
    rig.storage.create_layer("layer-new2", size_bytes=1 << 20, parent="layer-disk2")
    tops = {"vol1": LayerFile("layer-top2"), "vol2": LayerFile("layer-new2")}
    for _ in range(2):  # again changes nothing
        assert rig.compute.switch_disks(rig.name, tops, freeze=True) is False
        assert rig.chains() == {
            "vol1": ("layer-top2", "layer-top", "layer-base"),
            "vol2": ("layer-new2", "layer-disk2"),
        }
    rig.storage.create_layer("layer-top3", size_bytes=2 * GIB, parent="layer-top2")
    for wrong in (
        {"vol1": LayerFile("layer-top3"), "vol2": LayerFile("layer-base")},  # lies on something else
        {"vol1": LayerFile("layer-top3"), "vol9": LayerFile("layer-new2")},
    ):
        with pytest.raises(HostError):
            rig.compute.switch_disks(rig.name, wrong)
        assert rig.chains()["vol1"][0] == "layer-top2"
    rig.compute.switch_disks(rig.name, {"vol1": LayerFile("layer-top3")})  # one of two
    assert {serial: chain[0] for serial, chain in rig.chains().items()} == {"vol1": "layer-top3", "vol2": "layer-new2"}

    rig.woken.clear()
    rig.compute.flatten_disk(rig.name, "vol1", "layer-base")
    rig.until(lambda: rig.chains()["vol1"] == ("layer-top3", "layer-base"))
    rig.until(lambda: rig.name in rig.woken)
    status = rig.storage.observe_layer("layer-top3")
    assert status is not None
    assert status.parent == "layer-base"  # so a later start finds what is so
    rig.compute.flatten_disk(rig.name, "vol2", "")
    rig.until(lambda: rig.chains()["vol2"] == ("layer-new2",))
    rig.compute.flatten_disk(rig.name, "vol2", "")
    with pytest.raises(HostError):
        rig.compute.flatten_disk(rig.name, "vol1", "layer-top")
    rig.compute.stop_flattening(rig.name, "vol1")


def test_a_disk_grows_and_its_layer_with_it(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    for size_bytes in (3 * GIB, GIB):  # it never shrinks
        rig.compute.resize_disk(rig.name, "vol1", size_bytes)
        status = rig.compute.observe(rig.name)
        assert status is not None
        assert [disk.size_bytes for disk in status.disks] == [3 * GIB]
        layer = rig.storage.observe_layer("layer-top")
        assert layer is not None
        assert layer.size_bytes == 3 * GIB
    rig.storage.create_layer("layer-top", size_bytes=3 * GIB, parent="layer-base")  # is so already
    rig.compute.limit_disk(rig.name, "vol1", Limits(iops=100, burst_iops=300, burst_s=30))
    rig.compute.limit_disk(rig.name, "vol1", None)


def test_what_does_not_run_has_no_disks_to_change(rig: Rig) -> None:
    disk = rig.disk(2)
    rig.compute.start(rig.machine())
    rig.guest_powers_off()
    rig.until_power(Power.OFF)
    assert rig.chains() == {}
    for change in (
        lambda: rig.compute.plug_in_disk(rig.name, disk),
        lambda: rig.compute.switch_disks(rig.name, {"vol1": LayerFile("layer-top")}),
        lambda: rig.compute.resize_disk(rig.name, "vol1", 3 * GIB),
        lambda: rig.compute.limit_disk(rig.name, "vol1", None),
        lambda: rig.compute.flatten_disk(rig.name, "vol1", ""),
    ):
        with pytest.raises(HostError, match="does not run") as caught:
            change()
        assert caught.value.retryable
    rig.compute.unplug_disk(rig.name, "vol1")
    rig.compute.stop_flattening(rig.name, "vol1")
    rig.compute.resume(rig.name)
    rig.compute.resume("i-nobody")
    rig.until_power(Power.OFF)


def test_a_chain_must_be_as_its_layers_say(rig: Rig) -> None:
    upside_down = Disk(chain=(LayerFile("layer-base"), LayerFile("layer-top")), serial="vol1")
    with pytest.raises(HostError, match="lies on"):
        rig.compute.start(rig.machine(disks=(upside_down,)))


def test_the_console_outlives_the_machine_until_it_is_forgotten(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    rig.until_ready()
    whole = rig.compute.console(rig.name)
    assert rig.greeting in whole
    assert rig.compute.console(rig.name, 5) == whole[-5:]
    rig.compute.remove(rig.name)
    assert rig.greeting in rig.compute.console(rig.name)
    rig.compute.forget(rig.name)
    assert rig.compute.console(rig.name) == b""


def test_the_serial_port_is_live_both_ways_and_what_is_written_is_kept(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    rig.until_ready()
    with rig.compute.console_socket(rig.name) as serial:
        serial.settimeout(20)
        serial.sendall(b"x")
        rig.guest_echoes()
        assert serial.recv(100) == b"x"
    rig.until(lambda: rig.compute.console(rig.name).endswith(b"x"))
    with rig.compute.console_socket(rig.name) as serial:  # and again, once the first has gone
        serial.settimeout(20)
        serial.sendall(b"y")
        rig.guest_echoes()
        assert serial.recv(100) == b"y"


def test_a_machine_that_can_never_fit_is_a_matter_of_capacity(rig: Rig) -> None:
    with pytest.raises(CapacityError) as caught:
        rig.compute.start(rig.machine(memory_mib=1 << 30))
    assert not caught.value.retryable
    status = rig.compute.observe(rig.name)
    assert status is None or status.power is Power.OFF


def test_the_screen_is_a_jpeg(rig: Rig) -> None:
    rig.compute.start(rig.machine())
    rig.until_ready()
    with Image.open(io.BytesIO(rig.compute.screenshot(rig.name))) as image:
        assert image.format == "JPEG"


def test_the_host_says_how_large_it_is(rig: Rig) -> None:
    processors, memory_mib = rig.compute.capacity()
    assert processors >= 1
    assert memory_mib >= 64
    assert rig.compute.accelerator() == "tcg"


# --- storage -------------------------------------------------------------------------------------------------------


def test_a_layer_lives(rig: Rig) -> None:
    storage = rig.storage
    storage.create_layer("layer-1", size_bytes=3 * GIB)
    status = storage.observe_layer("layer-1")
    assert status is not None
    assert (status.name, status.size_bytes, status.parent) == ("layer-1", 3 * GIB, "")
    assert "layer-1" in storage.layers()
    storage.create_layer("layer-1", size_bytes=3 * GIB)  # is so already

    storage.create_layer("layer-2", size_bytes=GIB, parent="layer-1")  # never smaller than its parent
    status = storage.observe_layer("layer-2")
    assert status is not None
    assert (status.size_bytes, status.parent) == (3 * GIB, "layer-1")

    for layer in ("layer-2", "layer-1", "layer-1"):
        storage.remove_layer(layer)
    assert storage.observe_layer("layer-1") is None
    assert storage.layers() == ["layer-base", "layer-top"]
    assert storage.free_bytes() > 0


def test_a_layer_grows_and_never_shrinks(rig: Rig) -> None:
    rig.storage.create_layer("layer-1", size_bytes=GIB)
    for asked, had in ((2 * GIB, 2 * GIB), (GIB, 2 * GIB)):
        rig.storage.create_layer("layer-1", size_bytes=asked)
        status = rig.storage.observe_layer("layer-1")
        assert status is not None
        assert status.size_bytes == had


def test_a_layer_needs_its_parent_and_keeps_it(rig: Rig) -> None:
    with pytest.raises(HostError) as caught:
        rig.storage.create_layer("layer-1", size_bytes=GIB, parent="layer-nobody")
    assert not caught.value.retryable
    with pytest.raises(HostError):
        rig.storage.create_layer("layer-top", size_bytes=GIB)
    with pytest.raises(HostError):
        rig.storage.create_layer("layer-1", size_bytes=0)
    assert rig.storage.layers() == ["layer-base", "layer-top"]


def test_a_copy_stands_alone_and_is_made_once(rig: Rig) -> None:
    storage, key = rig.storage, bytes(range(32))
    chain = [LayerFile("layer-top"), LayerFile("layer-base")]
    progress: list[float] = []
    storage.copy_layer("layer-1", chain, size_bytes=3 * GIB, secret=key, progress=progress.append)
    status = storage.observe_layer("layer-1")
    assert status is not None
    assert (status.size_bytes, status.parent) == (3 * GIB, "")
    assert progress[-1] == 1
    storage.copy_layer("layer-1", chain, size_bytes=GIB)
    with pytest.raises(HostError):  # it takes the secret to open it
        storage.copy_layer("layer-2", [LayerFile("layer-1", bytes(32))], size_bytes=GIB)
    storage.copy_layer("layer-2", [LayerFile("layer-1", key)], size_bytes=GIB)
    for wrong in (chain[:1], [LayerFile("layer-nobody")]):
        with pytest.raises(HostError) as caught:
            storage.copy_layer("layer-3", wrong, size_bytes=GIB)
        assert not caught.value.retryable
    assert storage.layers() == ["layer-1", "layer-2", "layer-base", "layer-top"]


def test_layers_are_merged_into_the_one_on_top(rig: Rig) -> None:
    storage = rig.storage
    storage.create_layer("layer-1", size_bytes=2 * GIB, parent="layer-top")
    chain = [LayerFile("layer-1"), LayerFile("layer-top"), LayerFile("layer-base")]
    with pytest.raises(HostError):
        storage.merge_layer(chain, "layer-nobody")
    for onto in ("layer-base", "layer-base"):
        storage.merge_layer(chain, onto)
        status = storage.observe_layer("layer-1")
        assert status is not None
        assert status.parent == onto
    storage.reparent_layer(chain[0], "layer-top")
    storage.merge_layer(chain, "")
    status = storage.observe_layer("layer-1")
    assert status is not None
    assert status.parent == ""


def test_a_sealed_layer_does_not_grow(rig: Rig) -> None:
    storage = rig.storage
    storage.create_layer("layer-1", size_bytes=GIB)
    storage.seal_layer("layer-1")
    storage.create_layer("layer-1", size_bytes=GIB)
    with pytest.raises(HostError):
        storage.create_layer("layer-1", size_bytes=2 * GIB)
    storage.create_layer("layer-2", size_bytes=GIB, parent="layer-1")
    with pytest.raises(HostError):
        storage.unseal_layer("layer-1")
    storage.remove_layer("layer-2")
    storage.unseal_layer("layer-1")
    storage.create_layer("layer-1", size_bytes=2 * GIB)
    for call in (storage.seal_layer, storage.unseal_layer):
        with pytest.raises(HostError):
            call("layer-nobody")


def test_what_is_wrong_with_a_layer_is_told(rig: Rig) -> None:
    chain = [LayerFile("layer-top"), LayerFile("layer-base")]
    assert rig.storage.verify_layer(chain) == []
    assert len(rig.storage.verify_layer(chain[:1])) == 1
    assert len(rig.storage.verify_layer([LayerFile("layer-top", bytes(32)), chain[1]])) == 1
    assert len(rig.storage.verify_layer([LayerFile("layer-nobody")])) == 1


def test_an_export_is_a_file_with_a_checksum(rig: Rig) -> None:
    chain = [LayerFile("layer-top"), LayerFile("layer-base")]
    exported = rig.storage.export_layer(chain, "vmdk", "prefix/disk.vmdk")
    assert exported.path.endswith("/prefix/disk.vmdk")
    assert exported.size_bytes > 0
    assert len(exported.sha256) == 64
    assert rig.storage.export_layer(chain, "vmdk", "prefix/disk.vmdk") == exported
    rig.storage.remove_export("prefix/disk.vmdk")
    with pytest.raises(HostError):
        rig.storage.export_layer(chain, "iso", "disk.iso")


def test_there_is_room_in_all_and_some_of_it_is_free(rig: Rig) -> None:
    assert 0 < rig.storage.free_bytes() <= rig.storage.total_bytes()


def test_an_image_is_built_from_a_recipe(rig: Rig) -> None:
    assert "tiny" in rig.storage.recipes()
    lines: list[str] = []
    built = rig.storage.build_image("tiny", "layer-1", lines.append)
    status = rig.storage.observe_layer("layer-1")
    assert status is not None
    assert (status.size_bytes, status.parent) == (built.size_bytes, "")
    assert len(built.sha512) == 128
    assert lines
    rig.storage.remove_kernel("layer-1")
    with pytest.raises(HostError):
        rig.storage.build_image("nothing", "layer-2", lines.append)


def test_an_uploaded_file_becomes_a_layer(rig: Rig) -> None:
    data = os.urandom(1 << 20)
    rig.storage.receive_upload("upload-0", iter([b"x"]), 10)
    rig.storage.remove_upload("upload-0")
    rig.storage.remove_upload("upload-0")
    with pytest.raises(HostError):
        rig.storage.import_image("upload-0", "raw", "layer-0", lambda line: None)
    sha512 = rig.storage.receive_upload("upload-1", iter([data[:1000], data[1000:]]), 1 << 20)
    assert len(sha512) == 128
    built = rig.storage.import_image("upload-1", "raw", "layer-1", lambda line: None)
    assert built.size_bytes == 1 << 20
    assert built.kernel_arguments is None
    status = rig.storage.observe_layer("layer-1")
    assert status is not None
    assert (status.size_bytes, status.parent) == (1 << 20, "")


def test_an_upload_has_a_limit_and_a_known_format(rig: Rig) -> None:
    with pytest.raises(HostError) as caught:
        rig.storage.receive_upload("upload-1", iter([b"x" * 600, b"y" * 600]), 1000)
    assert not caught.value.retryable
    with pytest.raises(HostError):
        rig.storage.import_image("upload-1", "raw", "layer-1", lambda line: None)
    rig.storage.receive_upload("upload-2", iter([b"x"]), 1000)
    with pytest.raises(HostError):
        rig.storage.import_image("upload-2", "iso", "layer-1", lambda line: None)
    assert rig.storage.observe_layer("layer-1") is None

"""The in-memory host: what `test_contract.py` does not say, since only a host in memory can do it."""

from __future__ import annotations

import socket
import time
from dataclasses import replace

import pytest

from orchestrator.host import (
    CapacityError,
    Disk,
    DiskStatus,
    Host,
    HostError,
    LayerFile,
    Machine,
    MachineStatus,
    Nic,
    OffReason,
    Port,
    Power,
    Router,
    Segment,
)
from orchestrator.host.memory import MemoryCompute, MemoryHost, memory_host


def machine(name: str = "i-1", memory_mib: int = 1024) -> Machine:
    return Machine(name=name, uuid="ec2", vcpus=1, cores=1, threads=1, memory_mib=memory_mib, disks=(), nics=())


def router(name: str = "vpc-1", ports: tuple[str, ...] = ()) -> Router:
    return Router(
        name=name,
        cidrs=("10.0.0.0/16",),
        segments=(Segment(name="subnet-1", cidr="10.0.0.0/24", gateway="10.0.0.1"),),
        ports=tuple(
            Port(name=port, segment="subnet-1", mac="02:00:00:00:00:01", address="10.0.0.9", host_name="h")
            for port in ports
        ),
        policies=(),
        domain="ec2.internal",
        resolver="10.0.0.2",
    )


@pytest.fixture
def host() -> MemoryHost:
    return memory_host()


def test_it_is_a_host(host: MemoryHost) -> None:
    same: Host = host  # as mypy sees it
    assert same.compute.capacity()[0] >= 1


def test_a_machine_runs_when_start_returns_and_each_change_wakes(host: MemoryHost) -> None:
    woken: list[tuple[str, MachineStatus | None]] = []
    host.compute.watch(lambda name: woken.append((name, host.compute.observe(name))))
    host.compute.start(machine())
    host.compute.ask_to_reboot("i-1")
    host.compute.guest_reboots("i-1")
    host.compute.crash("i-1")
    host.compute.remove("i-1")
    seen = [(s.power, s.off_reason, s.resets) if s else None for _, s in woken]
    assert seen == [
        (Power.RUNNING, None, 0),
        (Power.RUNNING, None, 1),
        (Power.RUNNING, None, 2),
        (Power.OFF, OffReason.CRASHED, 2),
        None,
    ]


def test_a_guest_can_be_deaf(host: MemoryHost) -> None:
    host.compute.start(machine())
    host.compute.ignore_power_button("i-1")
    host.compute.ask_to_stop("i-1")
    host.compute.ask_to_reboot("i-1")
    status = host.compute.observe("i-1")
    assert status is not None
    assert (status.power, status.resets) == (Power.RUNNING, 0)
    host.compute.reset("i-1")
    status = host.compute.observe("i-1")
    assert status is not None
    assert status.resets == 1


def test_an_interface_comes_and_goes(host: MemoryHost) -> None:
    first, second = (Nic(port=f"eni-{n}", segment="s", mac=f"02:00:00:00:00:0{n}", index=n) for n in range(2))
    host.compute.start(replace(machine(), nics=(first,)))
    host.compute.plug_in("i-1", second)
    assert host.compute.nics("i-1") == (first, second)
    woken: list[str] = []
    host.compute.watch(woken.append)
    host.compute.unplug("i-1", "eni-1")  # a guest lets go at once
    assert (host.compute.nics("i-1"), woken) == ((first,), ["i-1"])

    host.compute.plug_in("i-1", second)
    host.compute.hold_on("i-1")
    host.compute.unplug("i-1", "eni-1")
    assert host.compute.nics("i-1") == (first, second)
    with pytest.raises(LookupError):
        host.compute.guest_lets_go("i-1", "eni-0")
    host.compute.guest_lets_go("i-1", "eni-1")
    assert host.compute.nics("i-1") == (first,)


def disk(serial: str, *layers: str) -> Disk:
    return Disk(chain=tuple(map(LayerFile, layers)), serial=serial)


def test_a_disk_comes_and_goes_and_a_guest_may_hold_on(host: MemoryHost) -> None:
    first, second = disk("vol1", "layer-1"), disk("vol2", "layer-2")
    host.compute.start(replace(machine(), disks=(first,)))
    host.compute.plug_in_disk("i-1", second)
    assert host.compute.disks("i-1") == (first, second)
    host.compute.unplug_disk("i-1", "vol2")
    assert host.compute.disks("i-1") == (first,)
    host.compute.plug_in_disk("i-1", second)
    host.compute.hold_on("i-1")
    host.compute.unplug_disk("i-1", "vol2")
    assert host.compute.disks("i-1") == (first, second)
    host.compute.guest_lets_go("i-1", "vol2")
    assert host.compute.disks("i-1") == (first,)


def test_an_agent_freezes_and_without_one_nobody_does(host: MemoryHost) -> None:
    host.compute.start(replace(machine(), disks=(disk("vol1", "layer-1"), disk("vol2", "layer-2"))))
    assert host.compute.switch_disks("i-1", {"vol1": LayerFile("layer-3")}, freeze=True) is False
    host.compute.give_agent("i-1")
    assert host.compute.switch_disks("i-1", {"vol1": LayerFile("layer-4")}) is False
    tops = {"vol1": LayerFile("layer-5"), "vol2": LayerFile("layer-6")}
    assert host.compute.switch_disks("i-1", tops, freeze=True) is True
    assert host.compute.switches[-1] == ("i-1", frozenset({"vol1", "vol2"}), True)
    status = host.compute.observe("i-1")
    assert status is not None
    assert status.disks[0].chain == ("layer-5", "layer-4", "layer-3", "layer-1")


def test_a_disk_that_cannot_be_written_pauses_its_machine_until_it_is_resumed(host: MemoryHost) -> None:
    host.compute.start(replace(machine(), disks=(disk("vol1", "layer-1"),)))
    woken: list[str] = []
    host.compute.watch(woken.append)
    host.compute.disk_fails("i-1")
    host.compute.start(machine())  # leaves it as it is
    status = host.compute.observe("i-1")
    assert status is not None
    assert (status.power, status.disk_error, woken) == (Power.PAUSED, "no space", ["i-1"])
    host.compute.resume("i-1")
    status = host.compute.observe("i-1")
    assert status is not None
    assert (status.power, status.disk_error) == (Power.RUNNING, "")


def test_flattening_takes_its_time_if_a_test_wants_it(host: MemoryHost) -> None:
    host.storage.create_layer("layer-1", size_bytes=1)
    host.storage.create_layer("layer-2", size_bytes=1, parent="layer-1")
    host.storage.create_layer("layer-3", size_bytes=1, parent="layer-2")
    host.compute.start(replace(machine(), disks=(disk("vol1", "layer-3", "layer-2", "layer-1"),)))
    host.compute.flatten_slowly("i-1")

    def seen() -> DiskStatus:
        status = host.compute.observe("i-1")
        assert status is not None
        return status.disks[0]

    host.compute.flatten_disk("i-1", "vol1", "layer-1")
    assert (seen().flattening, len(seen().chain)) == (0.5, 3)
    host.compute.stop_flattening("i-1", "vol1")
    assert (seen().flattening, len(seen().chain)) == (None, 3)
    with pytest.raises(LookupError):
        host.compute.finish_flattening("i-1", "vol1")
    host.compute.flatten_disk("i-1", "vol1", "layer-1")
    host.compute.finish_flattening("i-1", "vol1")
    assert seen() == DiskStatus(serial="vol1", chain=("layer-3", "layer-1"), size_bytes=1)
    layer = host.storage.observe_layer("layer-3")
    assert layer is not None
    assert layer.parent == "layer-1"


def test_memory_is_given_and_taken_back() -> None:
    small = MemoryCompute(memory_mib=2048)
    small.start(machine("i-1"))
    small.start(machine("i-2"))
    with pytest.raises(CapacityError):
        small.start(machine("i-3"))
    small.guest_powers_off("i-1")
    small.start(machine("i-3"))
    small.remove("i-2")
    small.start(machine("i-1"))
    with pytest.raises(CapacityError):
        small.start(machine("i-2"))


def test_a_fault_fails_the_call_that_it_is_meant_for_before_anything_is_done(host: MemoryHost) -> None:
    def fault(method: str, name: str) -> None:
        if (method, name) == ("start", "i-2"):
            raise HostError("injected")

    host.compute.fault = fault
    host.compute.start(machine("i-1"))
    with pytest.raises(HostError, match="injected"):
        host.compute.start(machine("i-2"))
    assert host.compute.names() == ["i-1"]

    def no_disk(method: str, name: str) -> None:
        raise HostError(f"injected into {method} {name}")

    host.storage.fault = no_disk
    host.network.fault = no_disk
    with pytest.raises(HostError, match="create_layer layer-1"):
        host.storage.create_layer("layer-1", size_bytes=1)
    with pytest.raises(HostError, match="apply vpc-1"):
        host.network.apply(router())


def test_after_the_host_was_lost_machines_are_off_networks_gone_and_layers_there(host: MemoryHost) -> None:
    woken: list[str] = []
    host.compute.start(machine("i-1"))
    host.compute.start(machine("i-2"))
    host.compute.ask_to_stop("i-2")
    host.storage.create_layer("layer-1", size_bytes=1)
    host.network.apply(router())
    host.compute.watch(woken.append)
    host.lose_host()
    assert host.compute.observe("i-1") == MachineStatus("i-1", Power.OFF, OffReason.UNKNOWN, 0)
    assert host.network.routers() == []
    assert host.storage.layers() == ["layer-1"]
    assert woken == ["i-1"]
    host.compute.start(machine("i-1"))
    assert host.compute.observe("i-1") == MachineStatus("i-1", Power.RUNNING, None, 0)


def test_the_serial_port_goes_both_ways(host: MemoryHost) -> None:
    host.compute.start(machine())
    with host.compute.console_socket("i-1") as serial:
        serial.settimeout(5)
        host.compute.guest_writes("i-1", b"hello")
        assert serial.recv(100) == b"hello"
        serial.sendall(b"world")
        assert host.compute.guest_serial("i-1").recv(100) == b"world"
        host.compute.guest_powers_off("i-1")
        assert serial.recv(100) == b""
    assert host.compute.console("i-1").endswith(b"hello")


def test_a_parent_that_is_not_there_is_taken_as_it_comes(host: MemoryHost) -> None:
    host.storage.create_layer("layer-2", size_bytes=8 << 30, parent="layer-of-the-last-process")
    status = host.storage.observe_layer("layer-2")
    assert status is not None
    assert (status.size_bytes, status.parent) == (8 << 30, "layer-of-the-last-process")


def test_the_catalogue_is_what_can_be_built(host: MemoryHost) -> None:
    assert sorted(host.storage.catalogue()) == host.storage.recipes() == ["debian-12", "tiny"]
    for name, image in host.storage.catalogue().items():
        assert host.storage.build_image(name, f"layer-{name}", lambda line: None) == image


def test_networks_are_kept_and_what_nobody_owns_is_a_leak(host: MemoryHost) -> None:
    network = host.network
    network.apply(router("vpc-1", ("eni-1", "eni-2")))
    network.apply(router("vpc-2"))
    assert network.routers() == ["vpc-1", "vpc-2"]
    assert network.leaks({"vpc-1", "vpc-2"}, {"eni-1", "eni-2"}) == []
    assert network.leaks({"vpc-1"}, {"eni-1"}) == ["router vpc-2", "port eni-2"]
    network.remove_leaks({"vpc-1"}, {"eni-1"})
    assert network.leaks({"vpc-1"}, {"eni-1"}) == []
    assert [port.name for port in network.applied["vpc-1"].ports] == ["eni-1"]
    network.remove("vpc-1")
    network.remove("vpc-1")
    assert network.routers() == []


def test_a_connection_reaches_what_listens_and_nothing_else(host: MemoryHost) -> None:
    network = host.network
    with pytest.raises(HostError):
        network.listen("vpc-1", "169.254.169.254", 80)
    network.apply(router())
    with pytest.raises(ConnectionRefusedError):
        network.connect("vpc-1", "10.0.0.9", 22, 1)
    with network.listen("vpc-1", "169.254.169.254", 80) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        with network.connect("vpc-1", "169.254.169.254", 80, 5) as client:
            accepted, _ = listener.accept()
            with accepted:
                client.sendall(b"x")
                assert accepted.recv(1) == b"x"
    with socket.create_server(("127.0.0.1", 0)) as ssh:
        network.endpoints[("vpc-1", "10.0.0.9", 22)] = ssh.getsockname()
        network.connect("vpc-1", "10.0.0.9", 22, 5).close()
    network.remove("vpc-1")
    with pytest.raises(ConnectionRefusedError):
        network.connect("vpc-1", "10.0.0.9", 22, 1)


def test_ten_thousand_machines_cost_little(host: MemoryHost) -> None:
    began = time.process_time()
    for number in range(10_000):
        host.compute.start(machine(f"i-{number}", memory_mib=4096))
    assert len(host.compute.names()) == 10_000
    assert all(host.compute.observe(f"i-{number}") for number in range(10_000))
    host.lose_host()
    assert time.process_time() - began < 5

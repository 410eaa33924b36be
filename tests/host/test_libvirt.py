"""Compute by libvirt: what `test_contract.py` does not say, since only libvirt can do it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from orchestrator.host import Disk, HostError, LayerFile, Machine, Nic, OffReason, Power
from orchestrator.host.confine import hierarchies
from orchestrator.host.libvirt import LibvirtCompute, qemu_owner
from orchestrator.host.links import bridge_name
from orchestrator.host.qcow2 import QcowStorage
from orchestrator.host.xml import NAMESPACE

URI = "qemu:///system"

STRANGER = """
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  {metadata}
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices><memballoon model='none'/></devices>
</domain>
"""


class Place:
    """A directory that QEMU's user passes through, with one empty layer."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = QcowStorage(directory / "state", directory / "images", owner=qemu_owner(URI))
        self.files.create_layer("layer-1", size_bytes=1 << 20)
        self.name = f"i-{uuid.uuid4().hex[:17]}"
        self.uuid = f"ec2{uuid.uuid4().hex[3:8]}-{uuid.uuid4().hex[:4]}-4000-8000-{uuid.uuid4().hex[:12]}"

    def compute(self, deployment: str = "", uri: str = URI) -> LibvirtCompute:
        return LibvirtCompute(
            uri=uri,
            deployment=deployment or f"test-{self.name}",
            files=self.files,
            run_dir=self.directory / "run",
            console_dir=self.directory / "consoles",
            accelerator="tcg",
        )

    def machine(self, *layers: str, nics: tuple[Nic, ...] = ()) -> Machine:
        return Machine(
            name=self.name,
            uuid=self.uuid,
            vcpus=1,
            cores=1,
            threads=1,
            memory_mib=32,
            disks=(Disk(chain=tuple(map(LayerFile, layers or ("layer-1",))), serial="vol1"),),
            nics=nics,
        )

    def stranger(self, deployment: str = "") -> str:
        """XML of somebody else's domain of the same name, or of another deployment's."""
        metadata = f"<metadata><o:deployment xmlns:o='{NAMESPACE}' id='{deployment}'/></metadata>" if deployment else ""
        return STRANGER.format(name=self.name, uuid=self.uuid, metadata=metadata)


def until(is_so: Callable[[], bool], deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    tick = threading.Event()
    while not is_so():
        assert time.monotonic() < end, "it did not come to pass"
        tick.wait(0.02)


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="orc-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def place(directory: Path) -> Place:
    return Place(directory)


@pytest.fixture
def system() -> Iterator[libvirt.virConnect]:
    """libvirt as others see it."""
    connection = libvirt.open(URI)
    yield connection
    connection.close()


@pytest.fixture
def compute(place: Place, system: libvirt.virConnect) -> Iterator[LibvirtCompute]:
    compute = place.compute()
    yield compute
    with contextlib.suppress(libvirt.libvirtError):
        domain = system.lookupByName(place.name)
        if domain.isActive():
            domain.destroy()
        domain.undefine()
    compute.remove(place.name)
    compute.close()
    until(lambda: not list(Path("/sys/fs/cgroup").glob(f"**/*{place.name}*")))  # an empty cgroup stays for ever


@pytest.mark.host
@pytest.mark.parametrize("deployment", ["", "another"])
def test_a_strangers_domain_does_not_exist_and_is_left_alone(
    place: Place, compute: LibvirtCompute, system: libvirt.virConnect, deployment: str
) -> None:
    woken: list[str] = []
    compute.watch(woken.append)
    domain = system.defineXML(place.stranger(deployment))
    domain.create()
    assert compute.observe(place.name) is None
    assert compute.names() == []
    compute.ask_to_stop(place.name)
    compute.reset(place.name)
    compute.remove(place.name)
    assert domain.isActive()
    with pytest.raises(HostError, match="somebody else") as caught:
        compute.start(place.machine())
    assert not caught.value.retryable
    domain.destroy()
    domain.undefine()
    compute.start(place.machine())
    until(lambda: place.name in woken)
    compute.remove(place.name)


@pytest.mark.host
def test_two_deployments_on_one_host_have_their_own(place: Place, compute: LibvirtCompute) -> None:
    other = place.compute("another")
    try:
        compute.start(place.machine())
        assert compute.names() == [place.name]
        assert other.names() == []
        again = place.compute()  # the controller, started anew
        try:
            assert again.names() == [place.name]
            status = again.observe(place.name)
            assert status is not None
            assert status.power is Power.RUNNING
        finally:
            again.close()
    finally:
        other.close()


@pytest.mark.host
def test_half_made_machines_are_finished(place: Place, compute: LibvirtCompute, system: libvirt.virConnect) -> None:
    compute.start(place.machine())
    domain = system.lookupByName(place.name)
    domain.suspend()
    status = compute.observe(place.name)
    assert status is not None
    assert status.power is Power.PAUSED
    compute.start(place.machine())
    status = compute.observe(place.name)
    assert status is not None
    assert status.power is Power.RUNNING

    definition = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    domain.destroy()
    status = compute.observe(place.name)
    assert status is not None
    assert (status.power, status.off_reason) == (Power.OFF, OffReason.DESTROYED)
    domain.undefine()
    system.defineXML(definition)  # defined, and never started
    status = compute.observe(place.name)
    assert status is not None
    assert (status.power, status.off_reason) == (Power.OFF, OffReason.UNKNOWN)
    compute.start(place.machine())
    status = compute.observe(place.name)
    assert status is not None
    assert status.power is Power.RUNNING


@pytest.mark.host
def test_a_qemu_that_dies_has_crashed(place: Place, compute: LibvirtCompute) -> None:
    woken: list[str] = []
    compute.start(place.machine())
    compute.watch(woken.append)
    os.kill(int(Path(f"/run/libvirt/qemu/{place.name}.pid").read_text()), signal.SIGKILL)

    def is_off() -> bool:
        status = compute.observe(place.name)
        return status is not None and (status.power, status.off_reason) == (Power.OFF, OffReason.CRASHED)

    until(is_off)
    until(lambda: place.name in woken)


@pytest.mark.host
def test_a_start_that_fails_says_so_and_can_be_removed(place: Place, compute: LibvirtCompute) -> None:
    nowhere = Nic(port="eni-0123", segment="subnet-00000000000000000", mac="02:00:00:00:00:01")
    with pytest.raises(HostError) as caught:
        compute.start(place.machine(nics=(nowhere,)))
    assert caught.value.retryable
    status = compute.observe(place.name)
    assert status is not None
    assert (status.power, status.off_reason) == (Power.OFF, OffReason.FAILED)
    compute.start(place.machine())
    compute.remove(place.name)
    assert compute.observe(place.name) is None


@pytest.mark.host
def test_what_is_missing_or_cannot_be_is_named(place: Place, compute: LibvirtCompute) -> None:
    with pytest.raises(HostError, match="layer-9"):
        compute.start(place.machine("layer-9"))
    nic = Nic(port="e", segment="s", mac="not an address")
    with pytest.raises(HostError) as caught:
        compute.start(place.machine(nics=(nic,)))
    assert not caught.value.retryable
    assert compute.observe(place.name) is None
    long = LibvirtCompute(
        uri=URI,
        deployment="d",
        files=place.files,
        run_dir=place.directory / ("x" * 80),
        console_dir=place.directory / "consoles",
        accelerator="tcg",
    )
    with pytest.raises(HostError, match="too long") as caught:
        long.start(place.machine())
    assert not caught.value.retryable
    long.close()


@pytest.mark.host
def test_only_root_gets_at_sockets_and_consoles_and_only_qemu_at_disks(place: Place, compute: LibvirtCompute) -> None:
    place.files.create_layer("layer-2", size_bytes=1 << 20, parent="layer-1")
    compute.start(place.machine("layer-2", "layer-1"))
    user, group = qemu_owner(URI)

    def owners(path: Path) -> tuple[int, int, int]:
        status = path.stat()
        return status.st_uid, status.st_gid, status.st_mode & 0o777

    assert owners(place.directory / "run") == (0, 0, 0o700)
    assert owners(place.directory / "consoles") == (0, 0, 0o700)
    assert owners(place.files.layer_path("layer-2")) == (user, group, 0o600)
    assert owners(place.files.layer_path("layer-1")) == (0, group, 0o440)  # libvirt has not given it away
    compute.remove(place.name)
    assert list((place.directory / "run").iterdir()) == []


@pytest.fixture
def segment() -> Iterator[str]:
    name = f"subnet-{uuid.uuid4().hex[:17]}"
    subprocess.run(["ip", "link", "add", bridge_name(name), "type", "bridge"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", bridge_name(name)], check=True)


def nic(segment: str, number: int, **changes: object) -> Nic:
    values: dict[str, object] = {
        "port": f"e{number}-{segment[-8:]}-longer-than-a-tap",
        "segment": segment,
        "mac": f"02:00:00:00:00:{number:02x}",
        "index": number,
    }
    return Nic(**{**values, **changes})  # type: ignore[arg-type]


def slots(domain: libvirt.virDomain) -> dict[str, tuple[str | None, str | None]]:
    tree = ElementTree.fromstring(domain.XMLDesc(0))
    found = {}
    for interface in tree.iterfind("./devices/interface"):
        name, address = interface.find("alias"), interface.find("address")
        assert name is not None and address is not None
        found[name.get("name", "").removeprefix("ua-")] = (address.get("bus"), address.get("slot"))
    return found


@pytest.mark.host
def test_an_interface_is_known_to_whoever_comes_later_and_keeps_its_slot(
    place: Place, compute: LibvirtCompute, system: libvirt.virConnect, segment: str
) -> None:
    first, fourth = nic(segment, 0), nic(segment, 4)
    compute.start(place.machine(nics=(first,)))
    compute.plug_in(place.name, fourth)
    domain = system.lookupByName(place.name)
    plugged = slots(domain)
    assert fourth.port[:15] in os.listdir(f"/sys/class/net/{bridge_name(segment)}/brif")
    again = place.compute()  # the controller, started anew
    try:
        status = again.observe(place.name)
        assert status is not None
        assert status.ports == (first.port, fourth.port)
    finally:
        again.close()
    # What libvirtd reads when it is started anew is what it has written down of the running domain.
    assert f"ua-{fourth.port}" in Path(f"/run/libvirt/qemu/{place.name}.xml").read_text()

    compute.remove(place.name)
    compute.start(place.machine(nics=(first, fourth)))
    assert slots(system.lookupByName(place.name)) == plugged


@pytest.mark.host
def test_an_interface_that_cannot_be_plugged_in_says_why(place: Place, compute: LibvirtCompute, segment: str) -> None:
    compute.start(place.machine(nics=(nic(segment, 0), nic(segment, 1))))
    for wrong, word, retryable in (
        (nic(segment, 2, mac="not an address"), "mac address", False),
        (nic(segment, 2, index=0), "1 to 31", False),
        (nic(segment, 2, index=32), "1 to 31", False),
        (nic(segment, 2, index=1), "interface 1", True),  # while the one that is there goes away
        (nic("subnet-00000000000000000", 2), "sn-000000000000", True),
    ):
        with pytest.raises(HostError, match=word) as caught:
            compute.plug_in(place.name, wrong)
        assert caught.value.retryable is retryable, word
    status = compute.observe(place.name)
    assert status is not None
    assert status.ports == (nic(segment, 0).port, nic(segment, 1).port)


@pytest.mark.host
def test_a_strangers_domain_is_given_no_interface(
    place: Place, compute: LibvirtCompute, system: libvirt.virConnect, segment: str
) -> None:
    domain = system.defineXML(place.stranger("another"))
    domain.create()
    try:
        with pytest.raises(HostError, match="does not run"):
            compute.plug_in(place.name, nic(segment, 1))
        compute.unplug(place.name, nic(segment, 1).port)
        assert slots(domain) == {}
    finally:
        domain.destroy()
        domain.undefine()


@pytest.mark.host
def test_a_console_reaches_back_into_rotated_files(place: Place, compute: LibvirtCompute) -> None:
    log = place.directory / "consoles" / f"{place.name}.log"
    for path, text in ((log, b"gh"), (Path(f"{log}.0"), b"def"), (Path(f"{log}.1"), b"abc")):
        path.write_bytes(text)
    assert compute.console(place.name) == b"abcdefgh"
    assert compute.console(place.name, 4) == b"efgh"
    assert compute.console(place.name, 6) == b"cdefgh"
    compute.forget(place.name)
    assert compute.console(place.name) == b""


@pytest.mark.host
def test_what_qemu_had_to_say_goes_with_the_machine(place: Place, compute: LibvirtCompute) -> None:
    log = Path(f"/var/log/libvirt/qemu/{place.name}.log")
    compute.start(place.machine())
    compute.remove(place.name)
    assert log.exists()
    Path(f"{log}.0").touch()
    compute.forget(place.name)
    assert not log.exists() and not Path(f"{log}.0").exists()


@pytest.mark.host
def test_limits_are_there_from_the_start_and_follow_the_disks(
    place: Place, compute: LibvirtCompute, system: libvirt.virConnect
) -> None:
    compute.start(place.machine())
    domain = system.lookupByName(place.name)
    held = hierarchies().controllers

    def memory_mib() -> int:
        return int(domain.memoryParameters()["hard_limit"]) >> 10

    before = memory_mib() if "memory" in held else 0
    if "cpu" in held:
        assert domain.schedulerParameters()["cpu_shares"] == 100
    place.files.create_layer("layer-2", size_bytes=1 << 20)
    compute.plug_in_disk(place.name, Disk(chain=(LayerFile("layer-2"),), serial="vol2"))
    assert not before or memory_mib() == before + 32
    compute.remove(place.name)


# --- a libvirtd of the test's own ----------------------------------------------------------------------------------

NODE = f"""
<node>
  <domain type='test'>
    <name>i-0000000000000ours</name>
    <uuid>ec200000-0000-4000-8000-000000000001</uuid>
    <metadata><o:deployment xmlns:o='{NAMESPACE}' id='ours'/></metadata>
    <memory unit='MiB'>32</memory>
    <os><type>hvm</type></os>
    <on_reboot>destroy</on_reboot>
  </domain>
</node>
"""


class OwnDaemon:
    """A libvirtd that can be stopped: nobody's, with libvirt's test driver and one domain of the deployment `ours`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._node = directory / "node.xml"
        self._node.write_text(NODE)
        self._socket = directory / "run" / "libvirt" / "libvirt-sock"
        self.uri = f"test+unix://{self._node}?socket={self._socket}"
        for part in ("run", "home"):
            (directory / part).mkdir()
            shutil.chown(directory / part, "nobody")

    def start(self) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._directory / "home"),
            "XDG_RUNTIME_DIR": str(self._directory / "run"),
        }
        nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        with open(self._directory / "home" / "log", "ab") as log:
            self._process = subprocess.Popen(
                [*nobody, "libvirtd"], env=environment, cwd="/", stdout=log, stderr=subprocess.STDOUT
            )

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.unlink(missing_ok=True)


@pytest.fixture
def daemon() -> Iterator[OwnDaemon]:
    directory = Path(tempfile.mkdtemp(prefix="orc-"))
    directory.chmod(0o755)
    daemon = OwnDaemon(directory)
    yield daemon
    daemon.stop()
    shutil.rmtree(directory)


@pytest.mark.host
def test_a_libvirtd_that_was_started_anew_is_found_and_everything_is_woken(place: Place, daemon: OwnDaemon) -> None:
    ours = "i-0000000000000ours"
    compute = place.compute("ours", daemon.uri)
    woken: list[str] = []
    try:
        compute.watch(woken.append)  # before there is anybody to watch
        with pytest.raises(HostError) as caught:
            compute.names()
        assert caught.value.retryable

        for _ in range(2):
            daemon.start()
            until(lambda: ours in woken)
            assert compute.names() == [ours]
            status = compute.observe(ours)
            assert status is not None
            assert status.power is Power.RUNNING

            woken.clear()
            # Events come over a new connection. Each of this driver's has a host of its own.
            [events] = [line.connection for line in compute._connection._lines if line.events]
            events.lookupByName(ours).reboot(0)
            until(lambda: ours in woken)

            daemon.stop()
            with pytest.raises(HostError):
                compute.observe(ours)
            woken.clear()

        daemon.start()
        until(lambda: ours in woken)
    finally:
        compute.close()


@pytest.mark.host
def test_a_call_in_the_middle_of_a_restart_is_made_once_more(place: Place, daemon: OwnDaemon) -> None:
    compute = place.compute("ours", daemon.uri)
    try:
        daemon.start()

        def answers() -> bool:
            with contextlib.suppress(HostError):
                return compute.names() != []
            return False

        until(answers)
        daemon.stop()
        daemon.start()
        until(answers)
    finally:
        compute.close()


@pytest.mark.host
def test_what_is_closed_stays_closed(place: Place) -> None:
    compute = place.compute()
    compute.names()
    compute.close()
    compute.close()
    with pytest.raises(HostError) as caught:
        compute.names()
    assert not caught.value.retryable


def test_nobody_waits_for_a_serial_port_that_others_are_at(directory: Path) -> None:
    """As libvirt makes the socket, with a queue of one, and as QEMU serves it: one client, others when it has gone."""
    compute = LibvirtCompute(
        uri="test:///default",
        deployment=f"test-{uuid.uuid4().hex}",
        files=QcowStorage(directory / "state", directory / "images"),
        run_dir=directory / "run",
        console_dir=directory / "consoles",
        accelerator="tcg",
    )
    with contextlib.ExitStack() as stack:
        stack.callback(compute.close)
        qemu = stack.enter_context(socket.socket(socket.AF_UNIX))
        qemu.bind(str(directory / "run" / "i-1.serial"))
        qemu.listen(1)
        first = stack.enter_context(compute.console_socket("i-1"))
        assert first.gettimeout() is None, "who is there may be silent for as long as he likes"
        served, _ = qemu.accept()
        stack.enter_context(served)
        for _ in range(2):
            compute.console_socket("i-1").close()
        asked: Future[socket.socket] = Future()

        def ask() -> None:
            try:
                asked.set_result(compute.console_socket("i-1"))
            except BaseException as error:
                asked.set_exception(error)

        threading.Thread(target=ask, daemon=True).start()
        with pytest.raises(HostError, match="somebody else is at the serial port of i-1") as caught:
            asked.result(5)
        assert caught.value.retryable

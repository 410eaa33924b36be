"""What holds QEMU to its part of the host: how much that is, and what becomes of it where the host cannot."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import pytest

from orchestrator.host import confine
from orchestrator.host.confine import (
    Confinement,
    Hierarchies,
    block_weight,
    cgroups_of,
    cpu_shares,
    hierarchies,
    most_memory_mib,
    security_models,
    setting,
)

DISK = "<disk><source file='/a'/><backingStore><source file='/b'/><backingStore/></backingStore></disk>"


def tree(*disks: str, memory_mib: int = 512, vcpus: int = 2) -> ElementTree.Element:
    memory = f"<memory unit='KiB'>{memory_mib * 1024}</memory>"
    return ElementTree.fromstring(f"<domain>{memory}<vcpu>{vcpus}</vcpu><devices>{''.join(disks)}</devices></domain>")


# --- how much -------------------------------------------------------------------------------------------------------


def test_a_share_is_within_what_both_kinds_of_cgroup_take() -> None:
    assert cpu_shares(1, 100) == 100
    assert cpu_shares(2, 10) == 20
    assert cpu_shares(448, 100) == 10_000
    assert cpu_shares(1, 1) == 2


def test_a_weight_is_within_what_both_kinds_of_cgroup_take() -> None:
    assert [block_weight(vcpus) for vcpus in (1, 2, 8, 448)] == [50, 100, 400, 1000]


def test_memory_has_room_for_each_layer_and_for_translated_code() -> None:
    bare = most_memory_mib(tree(), accelerator="kvm")
    assert bare > 512 + 256
    assert most_memory_mib(tree(DISK), accelerator="kvm") == bare + 2 * 32
    assert most_memory_mib(tree(), accelerator="tcg") == bare + 1024
    assert most_memory_mib(tree(memory_mib=1024), accelerator="kvm") == bare + 512 + 8
    assert most_memory_mib(tree(vcpus=4), accelerator="kvm") > bare


@pytest.mark.parametrize(
    ("models", "found"),
    [(["none", "dac"], ()), (["apparmor", "dac"], ("apparmor",)), (["selinux", "dac"], ("selinux",)), ([], ())],
)
def test_what_libvirt_can_confine_guests_by(models: list[str], found: tuple[str, ...]) -> None:
    listed = "".join(f"<secmodel><model>{model}</model><doi>0</doi></secmodel>" for model in models)
    assert security_models(f"<capabilities><host>{listed}</host></capabilities>") == found


# --- where ----------------------------------------------------------------------------------------------------------


def test_where_controllers_are(tmp_path: Path) -> None:
    unified = tmp_path / "uni fied"
    unified.mkdir()
    (unified / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    mounts = tmp_path / "mounts"

    def found(*lines: str) -> Hierarchies:
        mounts.write_text("".join(f"{line} 0 0\n" for line in ("proc /proc proc rw", *lines)))
        return hierarchies(mounts)

    assert (found().version, found().controllers) == ("none", frozenset())
    new = found(f"cgroup2 {str(unified).replace(' ', chr(92) + '040')} cgroup2 rw,nosuid")
    assert (new.version, new.unified) == ("v2", unified)
    assert new.controllers == {"cpu", "blkio", "memory", "pids"}
    old = found(
        "cgroup /c/cpu cgroup rw,cpu,cpuacct", "cgroup /c/pids cgroup rw,pids", "cgroup /c/memory cgroup ro,memory"
    )
    assert (old.version, old.old) == ("v1", {"cpu": Path("/c/cpu"), "pids": Path("/c/pids")})
    assert old.mounts == (Path("/c/cpu"), Path("/c/pids"))


def test_settings_of_libvirt(tmp_path: Path) -> None:
    file = tmp_path / "qemu.conf"
    file.write_text(
        '#user = "root"\nuser = "+107"\ncgroup_controllers = [ "cpu",\n  "memory" ]\nseccomp_sandbox = 0 # why\n'
    )
    assert setting("user", file) == "+107"
    assert '"memory"' in setting("cgroup_controllers", file)
    assert setting("seccomp_sandbox", file) == "0"
    assert setting("group", file) == "" == setting("user", tmp_path / "nowhere")


def test_the_cgroups_of_a_process() -> None:
    assert all(path.startswith("/") for path in cgroups_of(os.getpid()).values())


# --- a host that cannot ---------------------------------------------------------------------------------------------


class Domain:
    """As libvirt's: each limit in `refused` is."""

    def __init__(self, *refused: str, active: bool = True) -> None:
        self.refused = refused
        self.active = active
        self.given: dict[str, int] = {}

    def name(self) -> str:
        return "i-0123"

    def isActive(self) -> bool:
        return self.active

    def _take(self, values: dict[str, int], flags: int) -> None:
        assert flags == libvirt.VIR_DOMAIN_AFFECT_LIVE
        if set(values) & set(self.refused):
            raise libvirt.libvirtError("the controller is not mounted")
        self.given |= values

    setSchedulerParametersFlags = setMemoryParameters = setBlkioParameters = _take


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


def nowhere() -> Hierarchies:
    return Hierarchies({}, None, frozenset())


def test_what_the_host_cannot_limit_is_said_once_and_the_rest_is_limited(
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(confine, "_PIDS", tmp_path)
    (tmp_path / "i-0123.pid").write_text(str(os.getpid()))
    confinement = Confinement("0f3c", "kvm", places=nowhere)
    domain = Domain("cpu_shares")
    for _ in range(2):
        confinement.hold(domain, tree(), 10)
        confinement.release()
    assert domain.given == {"hard_limit": most_memory_mib(tree(), accelerator="kvm") * 1024, "weight": 100}
    assert [line.partition(",")[0] for line in said()] == [
        "guests run without CPU shares",
        "guests run without numbers of threads",
    ]


def test_a_machine_that_has_ended_meanwhile_is_no_fault_of_the_host(
    said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(confine, "_PIDS", tmp_path)
    Confinement("0f3c", "kvm", places=nowhere).hold(
        Domain("cpu_shares", "hard_limit", "weight", active=False), tree(), 10
    )
    assert said() == []


# --- threads, in cgroups of the kernel's ----------------------------------------------------------------------------


@pytest.fixture
def process() -> Iterator[subprocess.Popen[Any]]:
    with subprocess.Popen(["sleep", "60"]) as started:
        yield started
        started.kill()


@pytest.mark.host
def test_a_process_that_shares_its_cgroup_gets_one_of_its_own_while_it_lives(
    process: subprocess.Popen[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the kernel's own files where controllers are mounted in version 1; else with directories that look so."""
    mount = hierarchies().old.get("pids", tmp_path / "pids")
    monkeypatch.setattr(confine, "_PIDS", tmp_path)
    (tmp_path / "i-0123.pid").write_text(str(process.pid))
    confinement = Confinement(
        f"test-{os.getpid()}", "kvm", places=lambda: Hierarchies({"pids": mount}, None, frozenset())
    )
    confinement.hold(Domain(), tree(), 10)
    own = mount / "machine" / f"orc-test-{os.getpid()}"
    assert (own / "i-0123" / "pids.max").read_text().strip() == "516"
    assert str(process.pid) in (own / "i-0123" / "cgroup.procs").read_text().split()
    if mount.is_relative_to("/sys"):
        assert cgroups_of(process.pid)["pids"] == f"/machine/{own.name}/i-0123"
        confinement.hold(Domain(), tree(), 10)
        confinement.release()
        assert (own / "i-0123").is_dir(), "it is in use"
        process.kill()
        process.wait()
        confinement.release()
        assert not own.exists()


@pytest.mark.host
def test_what_libvirt_has_left_of_a_machine_is_taken_away_when_it_has_ended(
    process: subprocess.Popen[Any], tmp_path: Path
) -> None:
    """As it does where QEMU is killed while libvirtd is away. Others' machines keep theirs."""
    name = f"i-{os.getpid()}"
    places = Hierarchies({}, None, frozenset(), (*hierarchies().old.values(), tmp_path))
    made = [mount / "machine" / f"qemu-7-{name}.libvirt-qemu" for mount in places.mounts]
    another = tmp_path / "machine" / "qemu-8-i-0.libvirt-qemu"
    for place in (*made, another):
        (place / "vcpu0").mkdir(parents=True)
    confinement = Confinement("0f3c", "kvm", places=lambda: places)
    if pids := hierarchies().old.get("pids"):
        inside = pids / "machine" / made[0].name
        (inside / "vcpu0" / "cgroup.procs").write_text(str(process.pid))
        confinement.bury(name)
        assert (inside / "vcpu0").is_dir(), "it is in use"
        process.kill()
        process.wait()
    confinement.bury(name)
    assert [place for place in made if place.exists()] == []
    assert another.exists()


def test_threads_are_limited_where_the_machine_has_a_cgroup_in_version_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(confine, "_PIDS", tmp_path)
    (tmp_path / "i-0123.pid").write_text("77")
    scope = tmp_path / "root" / "machine.slice" / "machine-qemu.scope"
    scope.mkdir(parents=True)
    for place, enabled in ((tmp_path / "root", "cpu pids"), (scope.parent, "cpu")):
        (place / "cgroup.subtree_control").write_text(enabled)
    monkeypatch.setattr(confine, "cgroups_of", lambda pid: {"": "/machine.slice/machine-qemu.scope/libvirt/emulator"})
    places = Hierarchies({}, tmp_path / "root", frozenset({"pids"}))
    Confinement("0f3c", "kvm", places=lambda: places).hold(Domain(), tree(), 10)
    assert (scope / "pids.max").read_text() == "516"
    assert (scope.parent / "cgroup.subtree_control").read_text() == "+pids"
    assert (tmp_path / "root" / "cgroup.subtree_control").read_text() == "cpu pids"

"""What each check makes of a host: programs, accelerators, libvirt, what holds guests, room and rights."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.host import checks, findings
from orchestrator.host.findings import Expectation, Standing
from orchestrator.host.probe import Trial, try_accelerator, try_kvm
from tests.host.answers import Answers

# --- versions and accelerators --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "standing"),
    [
        ((0, "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"), Standing.OK),
        ((0, "QEMU emulator version 10.0.2"), Standing.OK),
        ((0, "QEMU emulator version 5.2.0"), Standing.FAILURE),
        ((127, "qemu-system-x86_64 is not installed"), Standing.FAILURE),
    ],
)
def test_qemu(
    host_says: Callable[[Answers], list[str]], expected: Expectation, answer: tuple[int, str], standing: Standing
) -> None:
    host_says({"qemu-system-x86_64": answer})
    assert checks._check_qemu(expected).standing is standing


def test_kvm_that_hangs_is_reported_as_such_and_tcg_is_used(
    monkeypatch: pytest.MonkeyPatch, expected: Expectation, tmp_path: Path
) -> None:
    (tmp_path / "qemu-system-x86_64").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "qemu-system-x86_64").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (device := tmp_path / "kvm").touch()
    monkeypatch.setattr(checks, "try_kvm", lambda: try_kvm(device=device, deadline_s=0.1))
    finding = checks._check_kvm(expected)
    assert finding.standing is Standing.WARNING
    assert "hangs" in finding.text and "TCG" in finding.text


def test_kvm_is_not_tried_twice(monkeypatch: pytest.MonkeyPatch, expected: Expectation) -> None:
    monkeypatch.setattr(checks, "try_kvm", lambda: pytest.fail("tried again"))
    for accelerator, standing in (("kvm", Standing.OK), ("tcg", Standing.WARNING)):
        known = Expectation(state_dir=expected.state_dir, public_range="203.0.113.0/24", egress=True)
        known = Expectation(**{**_fields(known), "accelerator": accelerator})
        assert checks._check_kvm(known).standing is standing


def _fields(expected: Expectation) -> dict[str, Any]:
    return {name: getattr(expected, name) for name in Expectation.__dataclass_fields__}


@pytest.mark.host
def test_the_trial_runs_a_guest_and_tells_an_end_from_a_hang() -> None:
    assert try_accelerator("tcg", deadline_s=30.0) == Trial(True)
    hung = try_accelerator("tcg", deadline_s=0.01)
    assert not hung.works and "hangs" in hung.reason
    unknown = try_accelerator("nothing-of-that-name")
    assert not unknown.works and "nothing-of-that-name" in unknown.reason


@pytest.mark.parametrize(
    ("mode", "groups", "mend"),
    [
        (0o660, {36}, []),
        (0o666, set(), []),
        (0o600, {36}, ["chmod 660"]),
        (0o600, set(), ["usermod --append --groups kvm qemu", "chmod 660"]),
    ],
)
def test_kvm_must_be_open_to_the_user_that_qemu_runs_as(
    monkeypatch: pytest.MonkeyPatch, expected: Expectation, tmp_path: Path, mode: int, groups: set[int], mend: list[str]
) -> None:
    (device := tmp_path / "kvm").touch()
    device.chmod(mode)
    gid = device.stat().st_gid
    monkeypatch.setattr(checks, "KVM", device)
    monkeypatch.setattr(checks, "_qemu_user", lambda: ("qemu", {gid if group == 36 else group for group in groups}))
    monkeypatch.setattr(grp, "getgrnam", lambda name: grp.struct_group((name, "x", gid, [])))
    finding = checks._check_kvm_access(expected)
    assert [" ".join(command[:-1]) if command[0] == "chmod" else " ".join(command) for command in finding.mend] == mend
    assert finding.standing is (Standing.WARNING if mend else Standing.OK)


# --- libvirt --------------------------------------------------------------------------------------------------------


def test_a_libvirt_that_does_not_answer_is_started(
    monkeypatch: pytest.MonkeyPatch, host_says: Callable[[Answers], list[str]], expected: Expectation, tmp_path: Path
) -> None:
    host_says({"virsh": (1, "error: failed to connect to the hypervisor"), "systemctl cat libvirtd.service": (0, "")})
    monkeypatch.setattr(findings, "which", lambda program: None if program == "virtqemud" else f"/usr/bin/{program}")
    monkeypatch.setattr(checks, "_SYSTEMD", tmp_path / "not there")
    assert checks._check_libvirt(expected).mend == (("libvirtd", "-d"),)
    monkeypatch.setattr(checks, "_SYSTEMD", tmp_path)
    assert checks._check_libvirt(expected).mend == (("systemctl", "start", "libvirtd.service"),)
    host_says({"virsh": (1, "error"), "systemctl cat virtqemud.socket": (0, "")})
    monkeypatch.setattr(findings, "which", lambda program: f"/usr/bin/{program}")
    assert checks._check_libvirt(expected).mend == (("systemctl", "start", "virtqemud.socket"),)


def test_virtlogd_is_started_on_its_own(monkeypatch: pytest.MonkeyPatch, expected: Expectation, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(checks, "_SYSTEMD", tmp_path / "not there")
    monkeypatch.setattr(checks, "_VIRTLOGD_SOCKET", tmp_path / "socket")
    finding = checks._check_virtlogd(expected)
    assert (finding.standing, finding.mend) == (Standing.FAILURE, (("virtlogd", "-d"),))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        assert checks._check_virtlogd(expected).standing is Standing.OK
    # What a daemon that was killed leaves behind answers nobody.
    assert checks._check_virtlogd(expected).standing is Standing.FAILURE


# --- what holds guests ----------------------------------------------------------------------------------------------


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """libvirt's qemu.conf, on a host with every controller, AppArmor and a QEMU that can filter."""
    (tmp_path / "mounts").write_text("cgroup /c cgroup rw,cpu,memory,blkio,pids 0 0\n")
    (tmp_path / "apparmor").write_text("Y\n")
    (tmp_path / "qemu.conf").touch()
    monkeypatch.setattr(checks, "_MOUNTS", tmp_path / "mounts")
    monkeypatch.setattr(checks, "_APPARMOR", tmp_path / "apparmor")
    monkeypatch.setattr(checks, "_SELINUX", tmp_path / "selinux")
    monkeypatch.setattr(checks, "_LIBVIRT_CONFIGURATION", tmp_path / "qemu.conf")

    def configure(text: str) -> None:
        (tmp_path / "qemu.conf").write_text(text)

    return configure


@pytest.mark.parametrize(
    ("mounts", "configuration", "standing", "words"),
    [
        ("cgroup /c cgroup rw,cpu,memory,blkio,pids 0 0", "", Standing.OK, ["v1 with cpu"]),
        ("cgroup /c cgroup ro,cpu,memory,blkio,pids 0 0", "", Standing.WARNING, ["no cgroup", "processors and memory"]),
        ("proc /proc proc rw 0 0", "", Standing.WARNING, ["no cgroup"]),
        ("cgroup /c cgroup rw,cpu,blkio,pids 0 0", "", Standing.WARNING, ["without memory", "others' memory"]),
        (
            "cgroup /c cgroup rw,cpu,memory,blkio,pids 0 0",
            'cgroup_controllers = [ "memory", "blkio" ]',
            Standing.WARNING,
            ["without cpu", "cgroup_controllers"],
        ),
    ],
)
def test_controllers_that_are_missing_are_named(
    configured: Callable[[str], None],
    expected: Expectation,
    tmp_path: Path,
    mounts: str,
    configuration: str,
    standing: Standing,
    words: list[str],
) -> None:
    configured(configuration)
    (tmp_path / "mounts").write_text(mounts + "\n")
    finding = checks._check_cgroups(expected)
    assert finding.standing is standing
    assert all(word in finding.text for word in words), finding.text


@pytest.mark.parametrize(
    ("configuration", "apparmor", "help_text", "word"),
    [
        ("", "Y", "-sandbox on", ""),
        ("seccomp_sandbox = 1", "Y", "-sandbox on", ""),
        ("seccomp_sandbox = 0", "Y", "-sandbox on", "seccomp_sandbox"),
        ("", "Y", "", "without a seccomp filter"),
        ("", "N", "-sandbox on", "neither AppArmor nor SELinux"),
        ('user = "root"', "Y", "-sandbox on", "as root"),
        ('security_driver = "none"', "Y", "-sandbox on", "security_driver"),
    ],
)
def test_what_does_not_confine_guests_is_named(
    configured: Callable[[str], None],
    host_says: Callable[[Answers], list[str]],
    expected: Expectation,
    tmp_path: Path,
    configuration: str,
    apparmor: str,
    help_text: str,
    word: str,
) -> None:
    configured(configuration)
    (tmp_path / "apparmor").write_text(apparmor)
    host_says({"qemu-system-x86_64 -help": (0, help_text)})
    finding = checks._check_confinement(expected)
    assert finding.standing is (Standing.WARNING if word else Standing.OK)
    assert (word or "AppArmor and a user") in finding.text


# --- room and rights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free_gib", "standing"), [(100, Standing.OK), (5, Standing.WARNING), (1, Standing.FAILURE)])
def test_disk(
    monkeypatch: pytest.MonkeyPatch, expected: Expectation, tmp_path: Path, free_gib: int, standing: Standing
) -> None:
    places = []

    def usage(place: Path) -> Any:
        places.append(place)
        return type("usage", (), {"free": free_gib << 30})

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert checks._check_disk(expected).standing is standing
    assert places == [tmp_path]  # the state directory is not there yet


def test_qemu_must_reach_the_state_directory(
    monkeypatch: pytest.MonkeyPatch, expected: Expectation, tmp_path: Path
) -> None:
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(checks, "_qemu_user", lambda: ("nobody", {nobody.pw_gid}))
    for place in (tmp_path, *tmp_path.parents):
        if str(place).startswith("/tmp/") and place != Path("/tmp"):
            place.chmod(place.stat().st_mode | 0o011)
    assert checks._check_state_access(expected).standing is Standing.OK
    tmp_path.chmod(0o700)
    finding = checks._check_state_access(expected)
    assert finding.standing is Standing.FAILURE
    assert str(tmp_path) in finding.text and finding.mend == ()  # somebody else's directory is not opened
    expected.state_dir.mkdir(mode=0o700)
    tmp_path.chmod(0o711)
    assert checks._check_state_access(expected).mend == (("chmod", "o+x", str(expected.state_dir)),)

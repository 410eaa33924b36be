"""The doctor: what each check makes of a host, what is mended, and what counts as left over."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import closing
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from orchestrator import doctor
from orchestrator.config import Config
from orchestrator.controller import deployment_id, open_store
from orchestrator.host import Disk, Host, LayerFile, Machine, bpf, checks, ranges
from orchestrator.host.checks import Expectation, Finding, Standing
from orchestrator.host.memory import memory_host
from orchestrator.host.probe import Trial, boot_id, try_accelerator, try_kvm
from orchestrator.model.layer import Layer

Answers = dict[str, tuple[int, str]]


@pytest.fixture
def expected(tmp_path: Path) -> Expectation:
    return Expectation(
        state_dir=tmp_path / "state",
        public_range="203.0.113.0/24",
        egress=True,
        deployment="0a1b2c3d",
        router_ranges=("172.31.0.0/16",),
    )


@pytest.fixture
def host_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answers], list[str]]:
    """Answers by the beginning of a command line; what was asked is recorded. Nothing else is installed."""

    def say(answers: Answers) -> list[str]:
        asked: list[str] = []

        def run(*command: str, timeout_s: float = 0) -> tuple[int, str]:
            line = " ".join(command)
            asked.append(line)
            fitting = [start for start in answers if line.startswith(start)]
            return answers[max(fitting, key=len)] if fitting else (127, f"{command[0]} is not installed")

        monkeypatch.setattr(checks, "_run", run)
        monkeypatch.setattr(checks, "_BRIDGED_FRAMES_SEE_IPTABLES", Path("/nonexistent"))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        return asked

    return say


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
    monkeypatch.setattr(checks.grp, "getgrnam", lambda name: checks.grp.struct_group((name, "x", gid, [])))
    finding = checks._check_kvm_access(expected)
    assert [" ".join(command[:-1]) if command[0] == "chmod" else " ".join(command) for command in finding.mend] == mend
    assert finding.standing is (Standing.WARNING if mend else Standing.OK)


# --- libvirt --------------------------------------------------------------------------------------------------------


def test_a_libvirt_that_does_not_answer_is_started(
    monkeypatch: pytest.MonkeyPatch, host_says: Callable[[Answers], list[str]], expected: Expectation, tmp_path: Path
) -> None:
    host_says({"virsh": (1, "error: failed to connect to the hypervisor"), "systemctl cat libvirtd.service": (0, "")})
    monkeypatch.setattr(checks, "_which", lambda program: None if program == "virtqemud" else f"/usr/bin/{program}")
    monkeypatch.setattr(checks, "_SYSTEMD", tmp_path / "not there")
    assert checks._check_libvirt(expected).mend == (("libvirtd", "-d"),)
    monkeypatch.setattr(checks, "_SYSTEMD", tmp_path)
    assert checks._check_libvirt(expected).mend == (("systemctl", "start", "libvirtd.service"),)
    host_says({"virsh": (1, "error"), "systemctl cat virtqemud.socket": (0, "")})
    monkeypatch.setattr(checks, "_which", lambda program: f"/usr/bin/{program}")
    assert checks._check_libvirt(expected).mend == (("systemctl", "start", "virtqemud.socket"),)


def test_virtlogd_is_started_on_its_own(monkeypatch: pytest.MonkeyPatch, expected: Expectation, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(checks, "_SYSTEMD", tmp_path / "not there")
    monkeypatch.setattr(checks, "_VIRTLOGD_SOCKET", tmp_path / "socket")
    finding = checks._check_virtlogd(expected)
    assert (finding.standing, finding.mend) == (Standing.FAILURE, (("virtlogd", "-d"),))
    with checks.socket.socket(checks.socket.AF_UNIX) as listener:
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


# --- networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("routes", "standing", "word"),
    [
        ([], Standing.OK, "free"),
        ([{"dst": "default", "dev": "eth0"}], Standing.OK, "free"),
        ([{"dst": "203.0.113.0/24", "dev": "orc-0a1b2c3d"}], Standing.OK, "free"),
        ([{"dst": "203.0.113.0/24", "dev": "orc-ffffffff"}], Standing.FAILURE, "another deployment"),
        ([{"dst": "203.0.113.128/25", "dev": "eth1"}], Standing.FAILURE, "eth1"),
        ([{"dst": "203.0.112.0/22", "dev": "wg0"}], Standing.FAILURE, "wg0"),
        ([{"type": "local", "dst": "203.0.113.7", "dev": "eth1"}], Standing.FAILURE, "eth1"),
        ([{"type": "broadcast", "dst": "203.0.113.255", "dev": "eth1"}], Standing.OK, "free"),
        ([{"type": "unreachable", "dst": "203.0.113.0/24"}], Standing.FAILURE, "203.0.113.0/24"),
        ([{"dst": "172.31.16.0/20", "dev": "eth0"}], Standing.WARNING, "172.31.16.0/20"),
    ],
)
def test_ranges_that_clash(
    ip_answers: Callable[[str], None],
    expected: Expectation,
    routes: list[dict[str, str]],
    standing: Standing,
    word: str,
) -> None:
    ip_answers(json.dumps(routes))
    finding = checks._check_ranges(expected)
    assert finding.standing is standing
    assert word in finding.text


@pytest.fixture
def ip_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """What `ip` prints; nothing that the host talks to is in any range."""
    monkeypatch.setattr(ranges, "_needed_addresses", dict)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def answer(text: str) -> None:
        (tmp_path / "answer").write_text(text)
        (tmp_path / "ip").write_text(f"#!/bin/sh\ncat {tmp_path}/answer\n")
        (tmp_path / "ip").chmod(0o755)

    return answer


def test_routes_that_cannot_be_read_are_no_crash(ip_answers: Callable[[str], None], expected: Expectation) -> None:
    ip_answers("not JSON")
    assert checks._check_ranges(expected).standing is Standing.FAILURE


def test_a_range_that_holds_what_the_host_talks_to(
    monkeypatch: pytest.MonkeyPatch, ip_answers: Callable[[str], None], expected: Expectation
) -> None:
    ip_answers("[]")
    monkeypatch.setattr(ranges, "_needed_addresses", lambda: {IPv4Address("203.0.113.53"): "a name server"})
    finding = checks._check_ranges(expected)
    assert finding.standing is Standing.FAILURE and "a name server" in finding.text
    assert str(ranges.choose()) == "198.51.100.0/24"


def chains(*rows: tuple[str, str, str, str]) -> tuple[int, str]:
    entries = [
        {"chain": {"family": family, "table": table, "name": name, "hook": "forward", "policy": policy}}
        for family, table, name, policy in rows
    ]
    return 0, json.dumps(
        {"nftables": [{"metainfo": {}}, {"chain": {"family": "ip", "table": "x", "name": "y"}}, *entries]}
    )


DOCKER: Answers = {
    "nft -j list chains": chains(("ip", "filter", "FORWARD", "drop")),
    "iptables -S DOCKER-USER": (0, "-N DOCKER-USER"),
    "iptables -C": (1, ""),
}


def test_no_shortcuts(
    monkeypatch: pytest.MonkeyPatch,
    host_says: Callable[[Answers], list[str]],
    expected: Expectation,
    tmp_path: Path,
) -> None:
    host_says({})
    monkeypatch.setattr(bpf, "attached", lambda link: [])
    assert checks._check_shortcuts(expected).standing is Standing.OK

    def refuse(link: int) -> list[int]:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(bpf, "attached", refuse)
    finding = checks._check_shortcuts(expected)
    assert finding.standing is Standing.WARNING
    assert "br_netfilter" not in finding.text
    loaded = tmp_path / "bridge-nf-call-iptables"
    loaded.write_text("1\n")
    monkeypatch.setattr(checks, "_BRIDGED_FRAMES_SEE_IPTABLES", loaded)
    assert "br_netfilter" in checks._check_shortcuts(expected).text


@pytest.mark.parametrize(("known", "mend"), [("200", ()), ("201", ("net.ipv4.neigh.default.gc_thresh3=16384",))])
def test_room_for_neighbours(
    monkeypatch: pytest.MonkeyPatch, expected: Expectation, tmp_path: Path, known: str, mend: tuple[str, ...]
) -> None:
    """Places taken are told in hexadecimal digits, by processor; each line tells all of them."""
    monkeypatch.setattr(checks, "_NEIGHBOURS_KNOWN", str(tmp_path / "{}"))
    monkeypatch.setattr(checks, "_NEIGHBOURS_LIMIT", str(tmp_path / "{}"))
    (tmp_path / "arp_cache").write_text(f"entries  allocs\n{known} 00000000\n{known} 00000000\n")
    (tmp_path / "ipv4").write_text("1024\n")
    assert tuple(command[2] for command in checks._check_neighbours(expected).mend) == mend


def test_no_firewall(host_says: Callable[[Answers], list[str]], expected: Expectation) -> None:
    host_says({"nft -j list chains": chains(("ip", "filter", "FORWARD", "accept"))})
    assert checks._check_firewall(expected).standing is Standing.OK


def test_docker_drops_what_it_forwards(host_says: Callable[[Answers], list[str]], expected: Expectation) -> None:
    host_says(DOCKER)
    finding = checks._check_firewall(expected)
    assert finding.standing is Standing.WARNING
    assert [" ".join(command) for command in finding.mend] == [
        "iptables -I DOCKER-USER -s 203.0.113.0/24 -j ACCEPT",
        "iptables -I DOCKER-USER -d 203.0.113.0/24 -j ACCEPT",
    ]


def test_what_was_mended_is_not_mended_again(host_says: Callable[[Answers], list[str]], expected: Expectation) -> None:
    host_says({**DOCKER, "iptables -C DOCKER-USER -s 203.0.113.0/24": (0, "")})
    assert [command[3] for command in checks._check_firewall(expected).mend] == ["-d"]
    host_says({**DOCKER, "iptables -C": (0, "")})
    assert checks._check_firewall(expected).standing is Standing.OK


def test_egress_off_needs_no_firewall_to_let_guests_out(
    host_says: Callable[[Answers], list[str]], expected: Expectation
) -> None:
    host_says(DOCKER)
    closed = Expectation(**{**_fields(expected), "egress": False})
    assert checks._check_firewall(closed).standing is Standing.OK


def test_bridged_frames_that_docker_would_drop_leave_guests_without_a_network(
    monkeypatch: pytest.MonkeyPatch, host_says: Callable[[Answers], list[str]], expected: Expectation, tmp_path: Path
) -> None:
    (tmp_path / "on").write_text("1\n")
    host_says(DOCKER)
    monkeypatch.setattr(checks, "_BRIDGED_FRAMES_SEE_IPTABLES", tmp_path / "on")
    closed = Expectation(**{**_fields(expected), "egress": False})
    finding = checks._check_firewall(closed)
    assert finding.standing is Standing.FAILURE
    assert finding.mend == (("iptables", "-I", "DOCKER-USER", "-i", "sn-+", "-o", "sn-+", "-j", "ACCEPT"),)
    host_says({**DOCKER, "iptables -C": (0, "")})
    monkeypatch.setattr(checks, "_BRIDGED_FRAMES_SEE_IPTABLES", tmp_path / "on")
    assert checks._check_firewall(closed).standing is Standing.OK


def test_a_chain_of_the_hosts_own(host_says: Callable[[Answers], list[str]], expected: Expectation) -> None:
    listed = "chain forward { policy drop; ip saddr 203.0.113.0/24 accept }"
    host_says(
        {
            "nft -j list chains": chains(("inet", "filter", "forward", "drop")),
            "nft list chain inet filter forward": (0, listed),
        }
    )
    assert checks._check_firewall(expected).mend == (
        ("nft", "insert", "rule", "inet", "filter", "forward", "ip daddr 203.0.113.0/24", "accept"),
    )


def test_firewalld(host_says: Callable[[Answers], list[str]], expected: Expectation) -> None:
    firewalld: Answers = {"firewall-cmd --state": (0, "running"), "firewall-cmd --zone=trusted": (1, "no")}
    host_says(firewalld)
    assert "--add-source=203.0.113.0/24" in checks._check_firewall(expected).mend[0]
    host_says({**firewalld, "firewall-cmd --zone=trusted": (0, "yes")})
    assert checks._check_firewall(expected).standing is Standing.OK


def test_networking_names_the_part_that_does_not_work(
    host_says: Callable[[Answers], list[str]], expected: Expectation
) -> None:
    host_says(
        {
            "sh -c ip netns": (0, ""),
            "unshare": (0, ""),
            "unshare --net sh -c ip tuntap": (1, "open: No such file or directory\n"),
        }
    )
    finding = checks._check_networking(expected)
    assert finding.standing is Standing.FAILURE
    assert "/dev/net/tun" in finding.text and "No such file" in finding.text


@pytest.mark.host
def test_networking_works_here_and_leaves_nothing(expected: Expectation) -> None:
    before = subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout
    names = {link["ifname"] for link in json.loads(before)}
    assert checks._check_networking(expected).standing is Standing.OK
    left = {link["ifname"] for link in json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True).stdout)}
    assert not {name for name in left - names if name in ("b0", "v0", "v1", "t0")}
    assert not list(Path("/run/netns").glob("orc-try-*"))


# --- room and rights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free_gib", "standing"), [(100, Standing.OK), (5, Standing.WARNING), (1, Standing.FAILURE)])
def test_disk(
    monkeypatch: pytest.MonkeyPatch, expected: Expectation, tmp_path: Path, free_gib: int, standing: Standing
) -> None:
    places = []

    def usage(place: Path) -> Any:
        places.append(place)
        return type("usage", (), {"free": free_gib << 30})

    monkeypatch.setattr(checks.shutil, "disk_usage", usage)
    assert checks._check_disk(expected).standing is standing
    assert places == [tmp_path]  # the state directory is not there yet


def test_qemu_must_reach_the_state_directory(
    monkeypatch: pytest.MonkeyPatch, expected: Expectation, tmp_path: Path
) -> None:
    nobody = checks.pwd.getpwnam("nobody")
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


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(state_dir=tmp_path / "state")


def stub_findings(monkeypatch: pytest.MonkeyPatch, *rounds: list[Finding]) -> None:
    left = list(rounds)
    monkeypatch.setattr(doctor, "check_host", lambda expected: left.pop(0) if len(left) > 1 else left[0])


OK = Finding(check="one", standing=Standing.OK, text="fine")


def test_exit_code_and_json(
    monkeypatch: pytest.MonkeyPatch, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = Finding(check="two", standing=Standing.WARNING, text="slow", mend=(("true",),))
    stub_findings(monkeypatch, [OK, warning])
    assert doctor.doctor(config, None, fix=False, yes=False, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"check": "one", "standing": "ok", "text": "fine", "mend": []},
        {"check": "two", "standing": "warning", "text": "slow", "mend": [["true"]]},
    ]
    stub_findings(monkeypatch, [OK, Finding(check="two", standing=Standing.FAILURE, text="broken")])
    assert doctor.doctor(config, None, fix=False, yes=False, as_json=False) == 1
    assert "FAIL" in capsys.readouterr().out


def test_fix_runs_the_commands_in_order_and_looks_again(
    monkeypatch: pytest.MonkeyPatch, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = tmp_path / "made"
    mend = (("mkdir", str(made)), ("touch", str(made / "file")), ("false",), ("touch", str(made / "never")))
    stub_findings(monkeypatch, [Finding(check="one", standing=Standing.FAILURE, text="broken", mend=mend)], [OK])
    assert doctor.doctor(config, None, fix=True, yes=True, as_json=True) == 0
    assert [path.name for path in made.iterdir()] == ["file"]
    captured = capsys.readouterr()
    assert json.loads(captured.out)[0]["standing"] == "ok"
    assert "false ended with 1" in captured.err


def test_fix_without_yes_and_without_a_terminal_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    mend = (("touch", str(tmp_path / "file")),)
    stub_findings(monkeypatch, [Finding(check="one", standing=Standing.FAILURE, text="broken", mend=mend)])
    assert doctor.doctor(config, None, fix=True, yes=False, as_json=False) == 1
    assert not (tmp_path / "file").exists()
    assert "--yes" in capsys.readouterr().err


def test_examining_makes_no_state(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    seen: list[Expectation] = []

    def check(expected: Expectation) -> list[Finding]:
        seen.append(expected)
        return [OK]

    monkeypatch.setattr(doctor, "check_host", check)
    doctor.examine(config)
    assert seen[0].deployment == "" and seen[0].router_ranges == ("172.31.0.0/16",)
    assert not config.state_dir.exists()

    with closing(open_store(config)) as store:  # its lock is held meanwhile, as by a controller
        mark = deployment_id(store)
        store.set_meta("accelerator", f"{boot_id()} tcg")
        doctor.examine(config)
        assert seen[1].deployment == mark
        assert doctor.recorded_accelerator(config) == "tcg"
        store.set_meta("accelerator", "another-boot kvm")
        assert doctor.recorded_accelerator(config) == ""


def test_the_in_memory_host_needs_nothing(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    monkeypatch.setattr(doctor, "check_host", lambda expected: pytest.fail("looked at the host"))
    assert not doctor.fails(doctor.examine(Config(state_dir=config.state_dir, host="memory")))


# --- leaks ----------------------------------------------------------------------------------------------------------


def machine(name: str) -> Machine:
    return Machine(
        name=name,
        uuid="ec2e1916-9099-7caf-fd21-012345abcdef",
        vcpus=1,
        cores=1,
        threads=1,
        memory_mib=128,
        disks=(Disk(chain=(LayerFile(f"layer-of-{name}"),), serial="vol"),),
        nics=(),
    )


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host with a machine and a layer that may be somebody's."""
    host = memory_host()
    monkeypatch.setattr(doctor, "build_host", lambda config, deployment, accelerator: host)
    host.storage.create_layer("layer-of-i-1", size_bytes=1 << 30)
    host.compute.start(machine("i-1"))
    return host


def answering(**names: list[str]) -> doctor.Ask:
    return lambda action: {"Owned": {"Machines": [], "Layers": [], "Routers": [], "Ports": [], **names}}


def with_state(config: Config) -> Config:
    open_store(config).close()
    return config


def test_without_state_nothing_is_left_over_and_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "build_host", lambda *_: pytest.fail("touched the host"))
    assert doctor.leaks(config, None, fix=True, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert not config.state_dir.exists()


def test_what_the_controller_owns_is_no_leak(config: Config, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    with_state(config)
    ask = answering(Machines=["i-1"], Layers=["layer-of-i-1"])
    assert doctor.leaks(config, ask, fix=False, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_leaks_are_listed_and_left_alone(config: Config, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.leaks(with_state(config), answering(), fix=False, as_json=True) == 1
    assert json.loads(capsys.readouterr().out) == ["machine i-1", "layer layer-of-i-1"]
    assert host.compute.names() == ["i-1"]


def test_fix_removes_leaks_and_nothing_else(config: Config, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.storage.create_layer("layer-of-i-2", size_bytes=1 << 30)
    host.compute.start(machine("i-2"))
    ask = answering(Machines=["i-2"], Layers=["layer-of-i-2"])
    assert doctor.leaks(with_state(config), ask, fix=True, as_json=False) == 0
    assert host.compute.names() == ["i-2"]
    assert host.storage.layers() == ["layer-of-i-2"]
    assert "removed machine i-1" in capsys.readouterr().err


def test_the_store_is_read_when_no_controller_answers(
    config: Config, host: Host, clock: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(open_store(config)) as store, store.write() as tx:
        tx.put(Layer(id="layer-of-i-1", size_bytes=1 << 30, account="1", region="*", created=clock()))
    assert doctor.leaks(config, None, fix=False, as_json=True) == 1
    assert json.loads(capsys.readouterr().out) == ["machine i-1"]


def test_a_machine_that_is_started_while_we_look_is_no_leak(
    config: Config, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its row is there before it is; what was asked before that does not have it."""
    answers = iter([[], ["i-1"], ["i-1"], ["i-1"], ["i-1"], ["i-1"]])

    def ask(action: str) -> dict[str, Any]:
        return answering(Machines=next(answers), Layers=["layer-of-i-1"])(action)

    assert doctor.leaks(with_state(config), ask, fix=True, as_json=True) == 0
    assert host.compute.names() == ["i-1"]


def test_the_doctor_hints_at_leftovers(
    monkeypatch: pytest.MonkeyPatch, config: Config, host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    stub_findings(monkeypatch, [OK])
    assert doctor.doctor(with_state(config), answering(), fix=False, yes=False, as_json=True) == 0
    finding = json.loads(capsys.readouterr().out)[-1]
    assert finding["check"] == "leftovers" and finding["standing"] == "warning"
    assert "--leaks" in finding["text"]

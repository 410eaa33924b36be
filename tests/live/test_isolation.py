"""What a guest's QEMU may do on the host, as the host's kernel has it: looked at from outside, while the guest runs."""

from __future__ import annotations

import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from orchestrator.host.confine import Hierarchies, block_weight, cgroups_of, cpu_shares, hierarchies, most_threads
from tests.live.box import make_box
from tests.live.conftest import Deployment, Fleet, Guest, eventually

pytestmark = pytest.mark.live

MIB = 1 << 20
T3_NANO_PERCENT = 5  # of a vCPU: its baseline


def qemu(guest: Guest) -> int:
    return int(Path(f"/run/libvirt/qemu/{guest.id}.pid").read_text())


def status(place: Path) -> dict[str, str]:
    lines = (place / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_qemu_is_nobody_and_every_thread_of_it_is_filtered(shared: Guest) -> None:
    place = Path("/proc", str(qemu(shared)))
    threads = [status(thread) for thread in (place / "task").iterdir()]
    assert len(threads) > 2
    for thread in threads:
        assert "0" not in (*thread["Uid"].split(), *thread["Gid"].split(), *thread["Groups"].split())
        assert {int(thread[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Amb")} == {0}
        assert (thread["Seccomp"], thread["NoNewPrivs"]) == ("2", "1")
    words = (place / "cmdline").read_bytes().decode().split("\0")
    assert "spawn=deny" in words[words.index("-sandbox") + 1]
    assert (place / "ns" / "mnt").readlink() != Path("/proc/self/ns/mnt").readlink(), "a /dev of its own"
    assert not list((place / "root/dev").glob("sd*")) and not list((place / "root/dev").glob("vd*"))


def test_files_are_for_their_users_alone(deployment: Deployment, shared: Guest) -> None:
    state, run = deployment.state_dir, Path(f"/run/orc-{deployment.name}")
    qemu_group = Path("/proc", str(qemu(shared))).stat().st_gid
    seen = set()
    for place in (state, run / "serial"):
        for path in place.rglob("*"):
            seen.add(path.relative_to(place).parts[0])
            reach = [path, *(above for above in path.parents if above.is_relative_to(place))]
            assert (
                any(not stat.S_IMODE(each.stat().st_mode) & (stat.S_IROTH | stat.S_IXOTH) for each in reach)
                or path.is_dir()
            ), f"anyone gets at {path}"
            assert not path.stat().st_mode & stat.S_IWOTH or not place.stat().st_mode & stat.S_IXOTH, path
    assert {"layers", "kernels", "consoles", "orchestrator.db", "credentials.json"} <= seen
    kernels = (state / "kernels").stat()
    assert (stat.S_IMODE(kernels.st_mode), kernels.st_uid, kernels.st_gid) == (0o710, 0, qemu_group)
    for name in ("orchestrator.db", "credentials.json", f"consoles/{shared.id}.log"):
        assert ((state / name).stat().st_uid, stat.S_IMODE((state / name).stat().st_mode)) == (0, 0o600), name
    assert stat.S_IMODE((run / "serial").stat().st_mode) == 0o700
    assert (run / "serial" / f"{shared.id}.serial").is_socket()


def limits(guest: Guest) -> dict[str, str]:
    """What the kernel holds a guest's QEMU to, of the controllers that this host has."""
    places, paths = hierarchies(), cgroups_of(qemu(guest))

    def read(controller: str, old: str, new: str) -> str:
        if mount := places.old.get(controller):
            place, name = mount / paths[controller].lstrip("/"), old
        else:
            assert places.unified is not None
            place, name = places.unified / paths[""].lstrip("/"), new
        while place.name in ("emulator", "libvirt"):
            place = place.parent
        assert guest.id in str(place).replace("\\x2d", "-"), "a cgroup of its own"
        return (place / name).read_text().split()[-1] if (place / name).exists() else ""

    files = {
        "cpu": ("cpu.shares", "cpu.weight"),
        "memory": ("memory.limit_in_bytes", "memory.max"),
        "blkio": ("blkio.bfq.weight", "io.bfq.weight"),
        "pids": ("pids.max", "pids.max"),
    }
    return {name: value for name in places.controllers if (value := read(name, *files[name]))}


def test_the_kernel_holds_it_to_its_part_of_the_host(deployment: Deployment, shared: Guest) -> None:
    found = limits(shared)
    log = deployment.log_text
    lacking = {
        "cpu": "guests run without CPU shares",
        "memory": "guests run without limits of memory",
        "blkio": "guests run without weights of block I/O",
        "pids": "guests run without numbers of threads",
    }
    for name, words in lacking.items():
        assert log.count(words) <= 1, "it is said once"
        assert (words in log) == (name not in found), f"{name}: {found}"
    wanted = {"cpu": cpu_shares(2, T3_NANO_PERCENT), "blkio": block_weight(2), "pids": most_threads(2)}
    for name in wanted.keys() & found.keys():
        assert int(found[name]) == wanted[name], name
    if "memory" in found:
        assert 512 * MIB < int(found["memory"]) - 512 * MIB < 3072 * MIB  # of its own, and what QEMU may need


def test_its_limits_go_with_it(deployment: Deployment, fleet: Fleet) -> None:
    guest = fleet.one()
    places: Hierarchies = hierarchies()
    paths = cgroups_of(qemu(guest))
    own = [mount / paths[name].lstrip("/") for name, mount in places.old.items() if name in paths]
    if places.unified is not None:
        own.append(places.unified / paths[""].lstrip("/"))
    own = [place for place in own if guest.id in str(place)]
    assert own and all(place.is_dir() for place in own)
    deployment.terminate([guest.id])
    assert not [place for place in own if place.exists()]


WINDOW_S, WINDOWS = 2.0, 5  # of which the middle one counts: the kernel's balance is lost now and then for a moment
SPIN = "(setsid sh -c 'while :; do :; done & while :; do :; done & wait' >/dev/null 2>&1 & echo $! >/tmp/spins)"


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def part_of_the_first(guests: tuple[Guest, Guest]) -> float:
    """Of the processor time that two of them use within a window."""
    before = [cpu_ticks(qemu(guest)) for guest in guests]
    deadline = time.monotonic() + WINDOW_S
    pause = threading.Event()
    while time.monotonic() < deadline or sum(cpu_ticks(qemu(guest)) for guest in guests) - sum(before) < 100:
        assert time.monotonic() < deadline + 60, "they do not run"
        pause.wait(0.2)
    first, second = (cpu_ticks(qemu(guest)) - ticks for guest, ticks in zip(guests, before, strict=True))
    return first / (first + second)


@pytest.mark.timing
@pytest.mark.parametrize(("kind", "least", "most"), [("t3.nano", 0.4, 0.6), ("t3.small", 0.55, 0.9)])
def test_a_noisy_guest_takes_no_more_than_its_share(
    fleet: Fleet, shared: Guest, kind: str, least: float, most: float
) -> None:
    """Both want all processors. What a neighbour of the same type gets is half; one of a greater type, which is to have
    0.8 of them, gets more than half, for that alone is what a kernel without shares would give it. How exactly is
    benchmarks/noisy.py's to print."""
    neighbour = fleet.one(InstanceType=kind)
    both = (neighbour, shared)
    try:
        for guest in both:
            guest.run(SPIN)
        parts = sorted(part_of_the_first(both) for _ in range(WINDOWS))
    finally:
        for guest in both:
            guest.run("sudo kill -9 -$(cat /tmp/spins)")
    weighed = "cpu" in hierarchies().controllers
    assert (least if weighed else 0.4) <= parts[WINDOWS // 2] <= most, parts


WITHOUT = """
import logging, sys
from pathlib import Path
from tests.host.test_libvirt import Place
logging.basicConfig(stream=sys.stdout, format="%(message)s")
place = Place(Path(sys.argv[1]))
compute = place.compute()
for _ in range(2):
    compute.start(place.machine())
    print("power", compute.observe(place.name).power)
    compute.remove(place.name)
compute.close()
"""


def test_a_host_without_cgroups_runs_guests_and_says_once_what_it_lacks() -> None:
    """On a host of its own, where no cgroup is mounted."""
    with make_box() as box:
        box.boot()
        for place in (str(box.place / "cgroup"), "/sys", "/sys/fs/cgroup"):  # the box's, and what that lies on
            box.run("umount", "--lazy", "--recursive", place)
        box.run("mount", "-t", "sysfs", "sysfs", "/sys")
        assert "cgroup" not in box.run("cut", "-d ", "-f3", "/proc/self/mounts")
        box.restart_libvirtd()
        (machines := box.place / "machines").mkdir(mode=0o711)
        eventually(lambda: box.path("/run/libvirt/libvirt-sock").exists(), 30, "libvirtd listens")
        said = box.run(sys.executable, "-c", WITHOUT, str(machines), timeout_s=90).splitlines()
    assert said.count("power running") == 2
    lacking = [line.partition(", so")[0] for line in said if "guests run without" in line]
    assert sorted(lacking) == [
        "guests run without CPU shares",
        "guests run without limits of memory",
        "guests run without numbers of threads",
        "guests run without weights of block I/O",
    ], said

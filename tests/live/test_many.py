"""Eight guests in one call, and nothing left of them: the host is as it was."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PACE, Deployment, Fleet, Guest, eventually

pytestmark = pytest.mark.live

COUNT = 8


def test_eight_in_one_call_and_nothing_is_left(deployment: Deployment, fleet: Fleet) -> None:
    deployment.image("tiny")
    eventually(lambda: not deployment.owned("Machines"), 30, "nothing runs")
    guests = fleet.launch(COUNT)
    ids = [guest.id for guest in guests]
    assert len(set(ids)) == COUNT
    deployment.ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig=PACE)
    described = [guest.describe() for guest in guests]
    assert len({instance["PrivateIpAddress"] for instance in described}) == COUNT
    assert len({instance["PublicIpAddress"] for instance in described}) == COUNT

    def who(guest: Guest) -> str:
        guest.login(120)
        return guest.http("GET", "/latest/meta-data/instance-id")[1]

    with ThreadPoolExecutor(COUNT) as pool:
        assert list(pool.map(who, guests)) == ids  # each public address leads to the instance that has it
    marks = marks_of(deployment, described)
    kinds = {line.partition(" ")[0] for line in marked(marks)}
    assert kinds == {"link", "address", "route", "nft", "namespace", "domain", "process", "file"}
    fleet.end()
    assert deployment.owned("Machines") == deployment.owned("Ports") == deployment.owned("Routers") == []
    eventually(lambda: not marked(marks), 30, "nothing on the host is ours")
    images = {"layer-" + build["BuildId"].partition("-")[2] for build in deployment.orc("DescribeBuilds")["Builds"]}
    eventually(lambda: set(deployment.owned("Layers")) <= images, 30, "no layer but the images'")
    assert {path.name.removesuffix(".qcow2") for path in (deployment.state_dir / "layers").glob("layer-*")} <= images


def marks_of(deployment: Deployment, instances: list[dict[str, Any]]) -> set[str]:
    """Texts of which one is in whatever is made on the host for these instances, and in nothing else."""
    marks = {f"orc-{deployment.name}", f"orc_{deployment.name}"}
    for instance in instances:
        [interface] = instance["NetworkInterfaces"]
        marks |= {instance["InstanceId"], interface["NetworkInterfaceId"][:15], instance["PublicIpAddress"]}
        marks |= {interface["SubnetId"][7:19], instance["VpcId"][:15], interface["MacAddress"][2:]}
    return marks


def marked(marks: set[str]) -> set[str]:
    return {line for line in host_objects() if any(mark in line for mark in marks)}


def host_objects() -> set[str]:
    """A line for each link, address, route, nftables table, namespace, domain, process and file, whosever it is."""
    links = json.loads(output("ip", "-j", "address"))
    lines = {f"link {link['ifname']} {link.get('ifalias', '')}" for link in links}
    lines |= {f"address {link['ifname']} {address['local']}" for link in links for address in link.get("addr_info", ())}
    lines |= {f"route {line}" for line in output("ip", "-4", "route", "show", "table", "all").splitlines()}
    lines |= {f"nft {line}" for line in output("nft", "-s", "list", "tables").splitlines()}
    lines |= {f"namespace {line.split()[0]}" for line in output("ip", "netns", "list").splitlines()}
    lines |= {f"domain {name}" for name in output("virsh", "-c", "qemu:///system", "list", "--all", "--name").split()}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if command.startswith(("dnsmasq", "/usr/bin/qemu-system")):
            lines.add(f"process {command}")
    lines |= {f"file {path}" for path in Path("/run/libvirt/qemu").rglob("*")}
    lines |= {f"file {path}" for run_dir in Path("/run").glob("orc-*") for path in run_dir.glob("*/*")}
    return lines


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

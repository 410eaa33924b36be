"""One tiny guest: asked for by unmodified AWS tools, and what it sees and keeps through its life."""

from __future__ import annotations

import base64
import io
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import boto3
import pytest
from PIL import Image

from tests.live.conftest import COUNT_RUNS, PACE, Deployment, Fleet, Guest, allow, eventually, log_in, run_over

pytestmark = pytest.mark.live

AMI = "ami-0abcdef1234567890"  # as in Amazon's examples


def test_word_for_word_with_boto3(deployment: Deployment, fleet: Fleet) -> None:
    deployment.image("tiny")
    deployment.orc("MapImage", ImageId=AMI, Name="tiny")
    keys = json.loads((deployment.state_dir / "credentials.json").read_text())
    ec2: Any = boto3.resource(
        "ec2",
        endpoint_url=deployment.endpoint,
        region_name=keys["region"],
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
    )
    pair = ec2.create_key_pair(KeyName="MyKeyPair", KeyType="ed25519")
    [default] = ec2.security_groups.filter(GroupNames=["default"])
    default.authorize_ingress(IpPermissions=[allow("tcp", 22)])
    [instance] = ec2.create_instances(
        ImageId="ami-0abcdef1234567890", MinCount=1, MaxCount=1, InstanceType="t2.micro", KeyName="MyKeyPair"
    )
    guest = fleet.adopt(instance.id)
    assert instance.state["Name"] == "pending"
    instance.wait_until_running(WaiterConfig=PACE)
    guest.wait("instance_status_ok")
    described = guest.describe()
    assert (described["ImageId"], described["InstanceType"], described["KeyName"]) == (AMI, "t2.micro", "MyKeyPair")
    client = eventually(
        lambda: log_in(described["PublicIpAddress"], "ec2-user", pair.key_material), 60, "ssh to the public address"
    )
    with client:
        assert run_over(client, "hostname").strip() == described["PrivateDnsName"].partition(".")[0]
    instance.stop()
    instance.wait_until_stopped(WaiterConfig=PACE)
    instance.terminate()
    instance.wait_until_terminated(WaiterConfig=PACE)


def test_word_for_word_with_aws_cli(deployment: Deployment, fleet: Fleet) -> None:
    deployment.image("tiny")
    deployment.orc("MapImage", ImageId=AMI, Name="tiny")
    command = (
        "aws ec2 run-instances --image-id ami-0abcdef1234567890 --count 1 --instance-type t2.micro --key-name MyKeyPair"
    )
    program, *arguments = command.split()
    if not deployment.ec2.describe_key_pairs(Filters=[{"Name": "key-name", "Values": ["MyKeyPair"]}])["KeyPairs"]:
        deployment.ec2.create_key_pair(KeyName="MyKeyPair", KeyType="ed25519")

    def aws(*words: str) -> str:
        done = subprocess.run(
            [Path(sys.executable).parent / program, *words],
            capture_output=True,
            text=True,
            env=deployment.environment_of_aws(),
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    [instance] = json.loads(aws(*arguments))["Instances"]
    guest = fleet.adopt(instance["InstanceId"])
    assert instance["State"] == {"Code": 0, "Name": "pending"}
    aws("ec2", "wait", "instance-running", "--instance-ids", guest.id)
    eventually(lambda: "orc-tiny: ssh ready" in guest.console(), 60, "the guest is up")
    aws("ec2", "terminate-instances", "--instance-ids", guest.id)
    guest.wait_state("terminated")


def test_ssh_through_the_api_to_the_private_address(deployment: Deployment, shared: Guest) -> None:
    with (
        deployment.stream(f"/tunnel/{shared.id}/22") as tunnel,
        log_in(shared.private_ip, "ec2-user", deployment.key, through=tunnel) as client,
    ):
        assert run_over(client, "cat /proc/sys/kernel/random/boot_id").strip() == shared.boot_id()
        assert shared.private_ip in run_over(client, "ip -4 address show dev eth0")


def test_the_timeline_of_a_launch(deployment: Deployment, shared: Guest) -> None:
    shared.wait("instance_status_ok")

    def phases() -> list[str]:
        return [phase["Name"] for phase in deployment.orc("DescribeLaunch", InstanceId=shared.id)["Phases"]]

    wanted = {"requested", "volume", "network", "started", "address", "metadata", "user-data", "ssh"}
    eventually(lambda: wanted <= set(phases()), 20, "all phases are written down")


def test_metadata_of_both_versions(deployment: Deployment, shared: Guest) -> None:
    described = shared.describe()
    status, listing = shared.http("GET", "/latest/meta-data/")
    assert status == 200 and "instance-id" in listing.split() and "placement/" in listing.split()
    token = shared.token()
    seen = {
        path: shared.http("GET", f"/latest/meta-data/{path}", X_aws_ec2_metadata_token=token)
        for path in ("instance-id", "local-ipv4", "public-ipv4", "mac", "local-hostname", "public-keys/0/openssh-key")
    }
    assert {status for status, _ in seen.values()} == {200}
    assert seen["instance-id"][1] == shared.id
    assert seen["local-ipv4"][1] == described["PrivateIpAddress"]
    assert seen["public-ipv4"][1] == described["PublicIpAddress"]
    assert seen["mac"][1] == described["NetworkInterfaces"][0]["MacAddress"]
    assert seen["local-hostname"][1] == described["PrivateDnsName"]
    assert seen["public-keys/0/openssh-key"][1].startswith("ssh-ed25519 ")
    assert shared.http("GET", "/latest/user-data") == (200, COUNT_RUNS)
    assert shared.http("GET", "/latest/meta-data/nothing")[0] == 404
    status, text = shared.http("GET", "/latest/dynamic/instance-identity/document")
    document = json.loads(text)
    assert (status, document["instanceId"], document["instanceType"]) == (200, shared.id, "t3.nano")
    assert (document["privateIp"], document["imageId"]) == (described["PrivateIpAddress"], described["ImageId"])
    assert shared.http("GET", "/latest/dynamic/instance-identity/signature")[0] == 200


def test_metadata_options_change_while_it_runs(deployment: Deployment, shared: Guest) -> None:
    def options(**changes: Any) -> None:
        deployment.ec2.modify_instance_metadata_options(InstanceId=shared.id, **changes)

    token = shared.token()
    options(HttpTokens="required")
    assert shared.http("GET", "/latest/meta-data/instance-id")[0] == 401
    assert shared.http("GET", "/latest/meta-data/instance-id", X_aws_ec2_metadata_token="made-up")[0] == 401
    assert shared.http("GET", "/latest/meta-data/instance-id", X_aws_ec2_metadata_token=token) == (200, shared.id)
    options(HttpEndpoint="disabled")
    assert shared.http("GET", "/latest/meta-data/instance-id", X_aws_ec2_metadata_token=token)[0] == 403
    options(HttpEndpoint="enabled", HttpTokens="optional")
    assert shared.http("GET", "/latest/meta-data/instance-id") == (200, shared.id)


def test_the_hop_limit_is_the_ttl_of_the_token(deployment: Deployment, shared: Guest) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as tap:
        tap.bind((shared.interface[:15], 0))
        for limit in (1, 5):
            deployment.ec2.modify_instance_metadata_options(InstanceId=shared.id, HttpPutResponseHopLimit=limit)
            shared.token()
            assert ttls_of_answers(tap) == {limit}


def ttls_of_answers(tap: socket.socket) -> set[int]:
    """The IPv4 TTL of each packet with data from the metadata server that went over the tap up to now."""
    found = set()
    while select.select([tap], [], [], 0)[0]:
        frame = tap.recv(65536)
        if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
            continue
        packet = frame[14:]
        header_bytes = (packet[0] & 15) * 4
        (total_bytes,) = struct.unpack("!H", packet[2:4])
        segment = packet[header_bytes:total_bytes]
        if packet[12:16] == socket.inet_aton("169.254.169.254") and len(segment) > (segment[12] >> 4) * 4:
            found.add(packet[8])
    return found


def test_console_output_and_screenshot(deployment: Deployment, shared: Guest) -> None:
    eventually(lambda: "orc-tiny: user data done" in shared.console(), 30, "all lines are there")
    text = shared.console()
    assert "orc-tiny: init" in text and "user-data ran as root" in text
    answer = deployment.ec2.get_console_screenshot(InstanceId=shared.id)
    with Image.open(io.BytesIO(base64.b64decode(answer["ImageData"]))) as picture:
        assert picture.format == "JPEG"
        assert picture.width >= 640 and picture.height >= 350


def ran(guest: Guest) -> None:
    """Wait for COUNT_RUNS: ssh answers before user data is run."""
    eventually(lambda: guest.run("sudo cat /root/runs || true") == "ran\n", 60, "its user data has run")


def test_reboot_keeps_all_and_happens_once(deployment: Deployment, fleet: Fleet) -> None:
    guest = fleet.one(UserData=COUNT_RUNS)
    before, described = guest.boot_id(), guest.describe()
    ran(guest)
    guest.run("echo kept >file; sync")
    path = f"/console/{guest.id}"
    with deployment.stream(path) as console:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="400"), deployment.stream(path):
            pytest.fail("somebody is at the serial port already")
        deployment.ec2.reboot_instances(InstanceIds=[guest.id])
        live = b""
        while b"orc-tiny: ssh ready" not in live:
            data = console.recv(65536)
            assert data, live
            live += data
        console.sendall(b"\r")  # the tiny image has nobody who answers, but takes it
    assert live.count(b"orc-tiny: init") == 1
    after = eventually(lambda: (now := guest.boot_id()) != before and now, 60, "the guest has booted anew")
    assert guest.state == "running"
    now = guest.describe()
    assert (now["PublicIpAddress"], now["PrivateIpAddress"]) == (
        described["PublicIpAddress"],
        described["PrivateIpAddress"],
    )
    assert guest.run("cat file") == "kept\n"
    guest.wait("instance_status_ok")
    assert (guest.boot_id(), guest.run("sudo cat /root/runs")) == (after, "ran\n")


def test_stop_and_start(deployment: Deployment, fleet: Fleet) -> None:
    guest = fleet.one(UserData=COUNT_RUNS)
    before = guest.describe()
    ran(guest)
    guest.run("echo kept >file; sync")
    guest.logout()
    deployment.ec2.stop_instances(InstanceIds=[guest.id])
    guest.wait("instance_stopped")
    stopped = guest.describe()
    assert "PublicIpAddress" not in stopped
    assert stopped["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert "orc-tiny: poweroff" in guest.console()  # it was asked, not cut off
    deployment.ec2.start_instances(InstanceIds=[guest.id])
    guest.wait("instance_running")
    after = guest.describe()
    assert after["PrivateIpAddress"] == before["PrivateIpAddress"]
    assert after["PublicIpAddress"] != before["PublicIpAddress"]
    guest.login()
    assert guest.run("cat file") == "kept\n"
    assert guest.run("sudo cat /root/runs") == "ran\n"
    assert guest.http("GET", "/latest/meta-data/public-ipv4") == (200, after["PublicIpAddress"])


@pytest.mark.parametrize(("behavior", "state"), [("stop", "stopped"), ("terminate", "terminated")])
def test_poweroff_inside(fleet: Fleet, behavior: str, state: str) -> None:
    guest = fleet.one(InstanceInitiatedShutdownBehavior=behavior)
    guest.run("(sudo poweroff) >/dev/null 2>&1 &")
    guest.logout()
    described = guest.wait_state(state)
    assert described["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_guest_whose_qemu_dies_is_started_again(fleet: Fleet) -> None:
    guest = fleet.one()
    before = guest.boot_id()
    os.kill(int(Path(f"/run/libvirt/qemu/{guest.id}.pid").read_text()), signal.SIGKILL)
    guest.logout()
    eventually(lambda: guest.boot_id() != before, 60, "it runs again")
    assert guest.state == "running"

"""Debian 12 with its unmodified cloud-init, at home as on EC2; and KVM for real, in a guest whose processor has it."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from orchestrator.host import probe
from orchestrator.host.command import inside
from tests.live.conftest import PACE, Deployment, DualStack, Elastic, Fleet, Guest, eventually

pytestmark = [pytest.mark.live, pytest.mark.timeout(900)]

BOOT_DEADLINE_S = 240.0
ROOT_GIB = 3
USER_DATA = "#!/bin/sh\necho ran >>/root/runs\n"


@pytest.fixture(scope="module")
def debian(deployment: Deployment, dual_stack: DualStack) -> Iterator[Guest]:
    fleet = Fleet(deployment)
    [guest] = fleet.launch(
        image="debian-12",
        InstanceType="t3.small",
        SubnetId=dual_stack.subnet,
        SecurityGroupIds=[dual_stack.group],
        Ipv6AddressCount=1,
        UserData=USER_DATA,
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": ROOT_GIB}}],
    )
    guest.user = "admin"
    guest.wait_state("running")
    guest.login(BOOT_DEADLINE_S)
    guest.run("cloud-init status --wait", BOOT_DEADLINE_S)
    yield guest
    fleet.end()


def test_cloud_init_finds_ec2_with_no_wait_and_no_warning(debian: Guest) -> None:
    status = debian.run("cloud-init status --long")
    assert "status: done" in status and "DataSourceEc2" in status
    assert debian.run("cloud-id").strip() == "aws"
    log = debian.run("sudo cat /var/log/cloud-init.log")
    assert "Found preferred metadata version" in log
    complaints = ("WARNING", "ERROR", "CRITICAL", "Traceback", "' failed [", "Please wait", "giving up", "Timed out")
    assert [line for line in log.splitlines() if any(word in line for word in complaints)] == []
    assert "WARN" not in debian.run("cat /run/cloud-init/ds-identify.log")
    assert "Datasource DataSourceEc2" in debian.run("sudo cat /var/log/cloud-init-output.log")


def test_it_knows_who_it_is(debian: Guest) -> None:
    described = debian.describe()
    assert debian.run("hostname").strip() == described["PrivateDnsName"].partition(".")[0]
    assert debian.run("sudo cat /root/runs") == "ran\n"
    assert debian.run("cat /sys/class/dmi/id/product_name /sys/class/dmi/id/sys_vendor") == "t3.small\nAmazon EC2\n"
    assert debian.run("sudo cat /sys/class/dmi/id/product_uuid").startswith("ec2")
    name = f"{described['PrivateDnsName']}"
    assert described["PrivateIpAddress"] in debian.run(f"getent hosts {name}")
    assert debian.run("systemctl is-active qemu-guest-agent").strip() == "active"
    assert debian.run("systemctl --failed --plain --no-legend") == ""


def test_its_disk_is_the_volume_that_was_asked_for(debian: Guest) -> None:
    [mapping] = debian.describe()["BlockDeviceMappings"]
    serial = mapping["Ebs"]["VolumeId"].replace("-", "")
    assert debian.run("cat /sys/block/vda/serial").strip() == serial
    assert debian.run(f"readlink -f /dev/disk/by-id/virtio-{serial}").strip() == "/dev/vda"
    assert int(debian.run("sudo blockdev --getsize64 /dev/vda")) == ROOT_GIB << 30
    assert int(debian.run("df --output=size -B1 / | tail -1")) > 0.9 * (ROOT_GIB << 30)


def test_it_has_its_ipv6_address_by_dhcp(debian: Guest) -> None:
    [interface] = debian.describe()["NetworkInterfaces"]
    [address] = (entry["Ipv6Address"] for entry in interface["Ipv6Addresses"])
    assert f"{address}/128" in debian.run("ip -6 -brief address show scope global")


def test_an_interface_comes_and_goes(debian: Guest, deployment: Deployment, dual_stack: DualStack) -> None:
    before = debian.links()
    elastic = Elastic(deployment, dual_stack)
    try:
        elastic.attach(debian, 1)
        for address in elastic.addresses:
            # From the router: what comes back has left by the interface that was asked, or the guard had dropped it.
            eventually(partial(greets, dual_stack, address), 60, f"{address} answers")
        assert set(debian.links()) - set(before) == {elastic.mac}
        assert debian.run("systemctl --failed --plain --no-legend") == ""
        elastic.detach()
        eventually(lambda: debian.links() == before, 30, "it has gone")
        eventually(lambda: "100" not in debian.run("ip rule; ip -6 rule"), 30, "so have its rules")
    finally:
        elastic.delete()


def greets(network: DualStack, address: str) -> bool:
    """Does ssh answer at this address?"""

    def ask() -> bool:
        with socket.create_connection((address, 22), timeout=2.0) as connection:
            connection.settimeout(10.0)
            return connection.recv(3) == b"SSH"

    return inside(network.vpc, ask)


def test_an_image_of_it_while_it_runs(debian: Guest, deployment: Deployment, dual_stack: DualStack) -> None:
    """Its agent freezes the file system, so the copy is clean; what is launched of it is another machine."""
    ec2 = deployment.ec2
    before = debian.boot_id()
    debian.run("seq 100000 | sudo tee /etc/marker >/dev/null")  # and no sync
    image = ec2.create_image(InstanceId=debian.id, Name="debian-while-it-runs", NoReboot=True)["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image], WaiterConfig=PACE)
    assert debian.boot_id() == before
    [mapping] = ec2.describe_images(ImageIds=[image])["Images"][0]["BlockDeviceMappings"]
    snapshot = mapping["Ebs"]["SnapshotId"]
    [told] = deployment.orc("DescribeSnapshotDetails", SnapshotIds=[snapshot])["Snapshots"]
    assert told["Consistency"] == "frozen"
    fleet = Fleet(deployment)
    try:
        [twin] = fleet.launch(
            image=image, InstanceType="t3.small", SubnetId=dual_stack.subnet, SecurityGroupIds=[dual_stack.group]
        )
        volume = copied(deployment, debian, snapshot)
        try:
            disk = f"/dev/disk/by-id/virtio-{volume.replace('-', '')}-part1"
            eventually(lambda: debian.run(f"test -b {disk} && echo there || true"), 30, "the volume is there")
            features = debian.run(f"sudo dumpe2fs -h {disk} 2>/dev/null | grep '^Filesystem features'")
            assert "needs_recovery" not in features  # nothing to replay
        finally:
            ec2.detach_volume(VolumeId=volume)
            ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig=PACE)
            ec2.delete_volume(VolumeId=volume)
        twin.user = "admin"
        twin.wait_state("running")
        twin.login(BOOT_DEADLINE_S)
        assert twin.run("md5sum </etc/marker") == debian.run("md5sum </etc/marker")
        for own in ("cat /etc/machine-id", "cat /etc/ssh/ssh_host_ed25519_key.pub", "hostname"):
            assert twin.run(own) != debian.run(own), own
        assert [m["DeviceName"] for m in twin.describe()["BlockDeviceMappings"]] == [mapping["DeviceName"]]
    finally:
        fleet.end()
        ec2.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)


def copied(deployment: Deployment, guest: Guest, snapshot: str) -> str:
    """A volume of a snapshot, in a guest."""
    ec2, zone = deployment.ec2, guest.describe()["Placement"]["AvailabilityZone"]
    volume = str(ec2.create_volume(AvailabilityZone=zone, SnapshotId=snapshot)["VolumeId"])
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig=PACE)
    ec2.attach_volume(VolumeId=volume, InstanceId=guest.id, Device="/dev/sdf")
    ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume], WaiterConfig=PACE)
    return volume


def test_kvm_runs_the_probe_inside_it(debian: Guest) -> None:
    """The instructions that `probe.py` tries KVM with, under the kernel's KVM: they end at its exit port."""
    debian.run("sudo modprobe -a kvm_amd")
    program = KVM_PROGRAM.replace("BOOT_SECTOR", probe._BOOT_SECTOR.hex())
    encoded = base64.b64encode(program.encode()).decode()
    assert debian.run(f"echo {encoded} | base64 -d | sudo timeout 30 python3 -") == "io out 0xf4 0x10\n"


def test_a_reboot_runs_nothing_twice(debian: Guest, deployment: Deployment) -> None:
    before = debian.boot_id()
    deployment.ec2.reboot_instances(InstanceIds=[debian.id])
    eventually(lambda: debian.boot_id() != before, BOOT_DEADLINE_S, "it has booted anew", every_s=1.0)
    debian.run("cloud-init status --wait", BOOT_DEADLINE_S)
    assert debian.run("sudo cat /root/runs") == "ran\n"
    assert debian.run("sudo grep -c WARNING /var/log/cloud-init.log || true").strip() == "0"


# What /dev/kvm takes, by the kernel's Documentation/virt/kvm/api.rst: a machine of 2 MiB with the sector at 0x7c00.
KVM_PROGRAM = """
import ctypes, fcntl, mmap, os, struct

def ioctl(file, number, argument=0):
    return fcntl.ioctl(file, number, argument)

kvm = os.open("/dev/kvm", os.O_RDWR)
machine = ioctl(kvm, 0xAE01)  # KVM_CREATE_VM
memory = mmap.mmap(-1, 2 << 20)
memory[0x7C00:0x7E00] = bytes.fromhex("BOOT_SECTOR")
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
ioctl(machine, 0x4020AE46, struct.pack("<IIQQQ", 0, 0, 0, len(memory), address))  # KVM_SET_USER_MEMORY_REGION
processor = ioctl(machine, 0xAE41)  # KVM_CREATE_VCPU
features = bytearray(struct.pack("<II", 200, 0) + bytes(200 * 40))
ioctl(kvm, 0xC008AE05, features)  # KVM_GET_SUPPORTED_CPUID
ioctl(processor, 0x4008AE90, features)  # KVM_SET_CPUID2
special = bytearray(312)
ioctl(processor, 0x8138AE83, special)  # KVM_GET_SREGS
special[0:8] = bytes(8)  # the base of cs
special[12:14] = bytes(2)  # its selector
ioctl(processor, 0x4138AE84, special)  # KVM_SET_SREGS
ioctl(processor, 0x4090AE82, struct.pack("<18Q", *[0] * 16, 0x7C00, 2))  # KVM_SET_REGS
run = mmap.mmap(processor, ioctl(kvm, 0xAE04))  # KVM_GET_VCPU_MMAP_SIZE
ioctl(processor, 0xAE80)  # KVM_RUN
(reason,) = struct.unpack_from("<I", run, 8)
direction, size, port, count, offset = struct.unpack_from("<BBHIQ", run, 32)
print("io" if reason == 2 else reason, "out" if direction else "in", hex(port), hex(run[offset]))
"""

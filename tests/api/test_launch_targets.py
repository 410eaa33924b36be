"""What policies see of a launch: each volume and each interface that it makes, as it will be."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model import ids
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.vpc import Subnet
from tests.api.cloud import ACCOUNT, OTHER, Cloud, allow, deny, refused

REFUSED = "UnauthorizedOperation"
VOLUME, INTERFACE = "arn:aws:ec2:*:*:volume/*", "arn:aws:ec2:*:*:network-interface/*"


def add_snapshot(cloud: Cloud, size_gib: int, account: str = ACCOUNT, region: str = "us-east-1") -> str:
    mine: dict[str, Any] = {"account": account, "region": region, "created": cloud.clock()}
    layer = Layer(id=ids.mint("layer"), size_bytes=size_gib * GIB, **mine)
    snapshot = Snapshot(id=ids.mint("snap"), layer_id=layer.id, size_gib=size_gib, state="completed", **mine)
    with cloud.store.write() as tx:
        tx.put_all([layer, snapshot])
    return snapshot.id


@pytest.fixture
def image(cloud: Cloud) -> str:
    """A root device of 8 GiB, a gp3 device with IOPS of its own, and an instance store disk."""
    devices = (
        BlockDevice(device="/dev/xvda", snapshot_id=add_snapshot(cloud, 8, region=EVERY_REGION), size_gib=8),
        BlockDevice(device="/dev/sdf", size_gib=50, iops=6000, throughput_mib_s=500),
        BlockDevice(device="/dev/sdz", virtual_name="ephemeral0"),
    )
    image = Image(
        id=ids.mint("ami"),
        account=ACCOUNT,
        region=EVERY_REGION,
        created=cloud.clock(),
        name="debian-12",
        block_devices=devices,
    )
    with cloud.store.write() as tx:
        tx.put(image)
    return image.id


class Launcher:
    """Launches as users to whom everything is allowed but what a statement denies."""

    def __init__(self, cloud: Cloud, image: str) -> None:
        self._cloud, self._image, self._users = cloud, image, 0

    def as_user(self, *statements: dict[str, Any], **params: Any) -> str:
        """The error's code."""
        self._users += 1
        ec2 = self._cloud.client("ec2", self._cloud.user(f"user-{self._users}", *statements))
        given = {"ImageId": self._image, "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1, "DryRun": True}
        return refused(ec2.run_instances, **given, **params)[0]

    def denied(self, resource: str, params: dict[str, Any], **condition: Any) -> bool:
        code = self.as_user(allow("*"), deny("ec2:RunInstances", resource, **condition), **params)
        assert code in (REFUSED, "DryRunOperation")
        return code == REFUSED


@pytest.fixture
def launcher(cloud: Cloud, image: str) -> Launcher:
    cloud.client("ec2").describe_vpcs()  # the default VPC is there
    return Launcher(cloud, image)


def mapped(device: str = "/dev/sdb", **ebs: Any) -> dict[str, Any]:
    return {"BlockDeviceMappings": [{"DeviceName": device, "Ebs": ebs}]}


def numbered(name: str, at_least: int) -> dict[str, Any]:
    return {"NumericGreaterThanEquals": {name: str(at_least)}}


LARGE, FAST, BUSY = (numbered(f"ec2:Volume{name}", 100) for name in ("Size", "Throughput", "Iops"))
PLAIN = {"Bool": {"ec2:Encrypted": "false"}}
IO2 = {"StringEquals": {"ec2:VolumeType": "io2"}}


@pytest.mark.parametrize(
    ("condition", "params", "expected"),
    [
        (LARGE, {}, False),
        (LARGE, mapped(VolumeSize=100), True),
        (LARGE, mapped("/dev/sda", VolumeSize=100), True),
        (LARGE, mapped("xvda", VolumeSize=20), False),
        (IO2, mapped(VolumeSize=10, VolumeType="io2", Iops=200), True),
        (IO2, mapped(VolumeSize=10), False),
        (numbered("ec2:VolumeIops", 6000), {}, True),
        (numbered("ec2:VolumeIops", 6000), mapped("/dev/sdf", Iops=3000, Throughput=125), False),
        (numbered("ec2:VolumeIops", 6000), mapped("/dev/sdf", VolumeType="gp2"), False),
        (
            numbered("ec2:VolumeIops", 6000),
            {"BlockDeviceMappings": [{"DeviceName": "/dev/sdf", "NoDevice": ""}]},
            False,
        ),
        (BUSY, mapped("/dev/sdf", VolumeType="io1", Iops=200), True),
        (FAST, {}, True),
        (FAST, mapped("/dev/sdf", VolumeType="gp2"), False),
    ],
)
def test_a_volume_is_known_by_what_it_will_be(
    launcher: Launcher, condition: dict[str, Any], params: dict[str, Any], expected: bool
) -> None:
    assert launcher.denied(VOLUME, params, **condition) is expected


def test_every_volume_must_be_encrypted(cloud: Cloud, launcher: Launcher) -> None:
    mappings = [
        {"DeviceName": name, "Ebs": {"VolumeSize": 60, "Encrypted": True}}
        for name in ("/dev/xvda", "/dev/sdf", "/dev/sdb")
    ]
    assert not launcher.denied(VOLUME, {"BlockDeviceMappings": mappings}, **PLAIN)
    assert launcher.denied(VOLUME, {"BlockDeviceMappings": mappings[1:]}, **PLAIN), "the root's is not"
    mappings[2]["Ebs"] = {"VolumeSize": 60, "Encrypted": False}
    assert launcher.denied(VOLUME, {"BlockDeviceMappings": mappings}, **PLAIN)
    cloud.client("ec2").enable_ebs_encryption_by_default()
    assert not launcher.denied(VOLUME, {}, **PLAIN)


def test_a_volume_is_as_large_as_its_snapshot(cloud: Cloud, launcher: Launcher) -> None:
    assert launcher.denied(VOLUME, mapped(SnapshotId=add_snapshot(cloud, 100)), **LARGE)
    assert not launcher.denied(VOLUME, mapped(SnapshotId=add_snapshot(cloud, 99)), **LARGE)
    parent = add_snapshot(cloud, 1)
    of_parent = {"ArnEquals": {"ec2:ParentSnapshot": f"arn:aws:ec2:us-east-1::snapshot/{parent}"}}
    assert launcher.denied(VOLUME, mapped(SnapshotId=parent), **of_parent)


def test_nothing_is_told_of_anothers_snapshot(cloud: Cloud, launcher: Launcher) -> None:
    statements = (allow("*"), deny("ec2:RunInstances", VOLUME, **LARGE))
    said = {launcher.as_user(*statements, **mapped(SnapshotId=add_snapshot(cloud, size, OTHER))) for size in (1, 100)}
    assert said == {"InvalidSnapshot.NotFound"}


def test_volumes_that_are_too_many_are_not_looked_at(launcher: Launcher) -> None:
    mappings = [{"DeviceName": f"d{number}", "Ebs": {"VolumeSize": number}} for number in range(1, 1100)]
    assert launcher.as_user(allow("*"), BlockDeviceMappings=mappings) == "InvalidParameterValue"


def test_an_interface_is_known_by_its_place(cloud: Cloud, launcher: Launcher) -> None:
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    made = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone="us-east-1a")["Subnet"]
        for n in (0, 1)
    ]
    one, two = (subnet["SubnetId"] for subnet in made)
    of_vpc = {"ArnEquals": {"ec2:Vpc": f"arn:aws:ec2:us-east-1:{ACCOUNT}:vpc/{vpc}"}}
    of_two = {"ArnEquals": {"ec2:Subnet": made[1]["SubnetArn"]}}
    first, second = {"DeviceIndex": 0, "SubnetId": one}, {"DeviceIndex": 1, "SubnetId": two}
    for params, in_vpc, in_two in (
        ({}, False, False),
        ({"SubnetId": one}, True, False),
        ({"SubnetId": two}, True, True),
        ({"NetworkInterfaces": [first]}, True, False),
        ({"NetworkInterfaces": [first, second]}, True, True),
        ({"NetworkInterfaces": [{"DeviceIndex": 1}, {**second, "DeviceIndex": 0}]}, True, True),
    ):
        assert launcher.denied(INTERFACE, params, **of_vpc) is in_vpc, params
        assert launcher.denied(INTERFACE, params, **of_two) is in_two, params


def test_a_launch_that_names_no_subnet_may_be_in_any_default_one(cloud: Cloud, launcher: Launcher) -> None:
    defaults = [subnet for subnet in cloud.store.all(Subnet, account=ACCOUNT) if subnet.default_for_zone]
    for subnet in defaults:
        arn = f"arn:aws:ec2:us-east-1:{ACCOUNT}:subnet/{subnet.id}"
        assert launcher.denied(INTERFACE, {}, ArnEquals={"ec2:Subnet": arn})
        elsewhere = next(other.zone for other in defaults if other != subnet)
        there = {"Placement": {"AvailabilityZone": elsewhere}}
        assert not launcher.denied(INTERFACE, there, ArnEquals={"ec2:Subnet": arn})


def test_an_interface_is_known_by_whether_it_gets_a_public_address(cloud: Cloud, launcher: Launcher) -> None:
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    public = {"Bool": {"ec2:AssociatePublicIpAddress": "true"}}
    assert launcher.denied(INTERFACE, {}, **public), "default subnets give one"
    assert not launcher.denied(INTERFACE, {"SubnetId": subnet}, **public)
    for asked in (True, False):
        given = {"DeviceIndex": 0, "SubnetId": subnet, "AssociatePublicIpAddress": asked}
        assert launcher.denied(INTERFACE, {"NetworkInterfaces": [given]}, **public) is asked
    ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
    assert launcher.denied(INTERFACE, {"SubnetId": subnet}, **public)


def test_an_interface_that_is_there_is_not_made(cloud: Cloud, launcher: Launcher) -> None:
    ec2 = cloud.client("ec2")
    subnet = next(each for each in ec2.describe_subnets()["Subnets"] if each["DefaultForAz"])
    there = ec2.create_network_interface(SubnetId=subnet["SubnetId"])["NetworkInterface"]["NetworkInterfaceId"]
    attached = {"NetworkInterfaces": [{"DeviceIndex": 0, "NetworkInterfaceId": there}]}
    assert not launcher.denied(INTERFACE, attached, Null={"ec2:AssociatePublicIpAddress": "false"})
    assert launcher.denied(f"arn:aws:ec2:*:*:network-interface/{there}", attached)

"""RunInstances' BlockDeviceMappings, in every form."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.instance import Instance
from orchestrator.model.kms import Key, RegionSettings
from orchestrator.model.layer import Layer
from orchestrator.model.owned import instance_store
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.snapshot import FastRestore, Snapshot
from orchestrator.model.volume import Volume

from .conftest import KEYS, OTHER_ACCOUNT, Api, policy_for

DATA = "snap-00000000000000002"
KEY = "11111111-2222-3333-4444-555555555555"

Mappings = list[dict[str, Any]]


def device(name: str, **ebs: Any) -> Mappings:
    return [{"DeviceName": name, "Ebs": ebs}]


def root(**ebs: Any) -> Mappings:
    return device("/dev/xvda", **ebs)


def keep_snapshot(api: Api, snapshot_id: str = DATA, *, size_gib: int = 2, **fields: Any) -> Snapshot:
    """A snapshot of the account's with its layer, which the snapshot's key encrypts."""
    mine: dict[str, Any] = {"account": api.account, "region": api.region, "created": api.now}
    key = api.store.get(Key, fields.get("key_id", ""))
    layer = Layer(
        id="layer-" + snapshot_id.partition("-")[2],
        size_bytes=size_gib << 30,
        key_id=key.id if key else "",
        data_key="wrapped" if key else "",
        **mine,
    )
    snapshot = Snapshot(**{"id": snapshot_id, "layer_id": layer.id, "size_gib": size_gib, **mine, **fields})
    api.put(layer, snapshot)
    return snapshot


def keep_key(api: Api, key_id: str = KEY, **fields: Any) -> Key:
    key = Key(
        id=key_id,
        account=api.account,
        region=api.region,
        created=api.now,
        material=KEYS.new_material(),
        **{"aliases": ("alias/mine",), **fields},
    )
    api.put(key)
    return key


@pytest.fixture
def image(api: Api) -> Image:
    """A root of 8 GiB, data of 2 GiB on /dev/sdb, an empty disk on /dev/sdc, and an instance store disk."""
    keep_snapshot(api)
    image = api.make_image()
    devices = (
        BlockDevice(device="/dev/sdb", snapshot_id=DATA, volume_type="gp2", delete_on_termination=False),
        BlockDevice(device="/dev/sdc", size_gib=5),
        BlockDevice(device="/dev/sdd", virtual_name="ephemeral0"),
        *image.block_devices,
    )
    return api.change(image, block_devices=devices)


@pytest.fixture
def launch(api: Api, image: Image) -> Any:
    """Launch one; its volumes by device."""

    def call(*mappings: Mappings, by: Api = api, **params: Any) -> dict[str, Volume]:
        given = {"InstanceType": "t3.micro", **params}
        if mappings:
            given["BlockDeviceMappings"] = [each for mapping in mappings for each in mapping]
        (instance_id,) = by.launch(ImageId=image.id, **given)
        volumes = api.store.all(Volume, instance_id=instance_id)
        return {volume.attachment.device: volume for volume in volumes if volume.attachment}

    return call


def test_the_images_devices(api: Api, launch: Any, image: Image) -> None:
    volumes = launch()
    assert set(volumes) == {"/dev/xvda", "/dev/sdb", "/dev/sdc"}
    data, empty = volumes["/dev/sdb"], volumes["/dev/sdc"]
    assert (data.size_gib, data.volume_type, data.iops, data.snapshot_id) == (2, "gp2", 100, DATA)
    assert (data.attachment.delete_on_termination, api.get(Layer, data.layer_id).parent_id) == (
        False,
        api.get(Snapshot, DATA).layer_id,
    )
    assert (empty.size_gib, empty.volume_type, empty.snapshot_id) == (5, "gp3", "")
    assert api.get(Layer, empty.layer_id).parent_id == ""
    (reservation,) = api.call("DescribeInstances")["Reservations"]
    (shown,) = reservation["Instances"]
    assert [each["DeviceName"] for each in shown["BlockDeviceMappings"]] == ["/dev/xvda", "/dev/sdb", "/dev/sdc"]
    assert {each["Ebs"]["VolumeId"] for each in shown["BlockDeviceMappings"]} == {v.id for v in volumes.values()}


def test_the_root_changes(api: Api, launch: Any) -> None:
    volume = launch(root(VolumeSize=30, VolumeType="io2", Iops=5000, DeleteOnTermination=False, Encrypted=False))[
        "/dev/xvda"
    ]
    assert (volume.size_gib, volume.volume_type, volume.iops, volume.throughput_mib_s) == (30, "io2", 5000, 0)
    assert volume.attachment.delete_on_termination is False
    assert api.get(Layer, volume.layer_id).size_bytes == 30 << 30


def test_more_volumes(api: Api, launch: Any) -> None:
    other = "snap-00000000000000003"
    keep_snapshot(api, other, size_gib=4)
    volumes = launch(
        device("/dev/sdf", VolumeSize=10),
        device("xvdg", SnapshotId=other, VolumeType="gp3", Throughput=250, DeleteOnTermination=False),
        device("/dev/xvdb", VolumeSize=9, SnapshotId=other, VolumeInitializationRate=200),
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}],
    )
    assert set(volumes) == {"/dev/xvda", "/dev/sdb", "/dev/sdc", "/dev/sdf", "xvdg"}
    empty, restored, instead = volumes["/dev/sdf"], volumes["xvdg"], volumes["/dev/sdb"]
    assert (empty.size_gib, empty.volume_type, empty.attachment.delete_on_termination) == (10, "gp2", True)
    assert (restored.size_gib, restored.throughput_mib_s, restored.attachment.delete_on_termination) == (4, 250, False)
    # By its other name it is the image's device, of another snapshot.
    assert (instead.size_gib, instead.snapshot_id, instead.initialization_rate_mib_s) == (9, other, 200)
    assert all(volume.tags == {"a": "b"} for volume in volumes.values())


def test_a_device_is_left_out(launch: Any) -> None:
    volumes = launch([{"DeviceName": "/dev/sdb", "NoDevice": ""}, {"DeviceName": "/dev/sdz", "NoDevice": ""}])
    assert set(volumes) == {"/dev/xvda", "/dev/sdc"}


def test_instance_store_disks(api: Api, launch: Any) -> None:
    """Mapped where the type has some that need it; ignored elsewhere."""

    def mapped(kind: str, *mappings: Mappings) -> tuple[dict[str, str], list[str]]:
        """As the instance keeps it, and the numbers of the disks that its machine has."""
        volumes = launch(*mappings, InstanceType=kind)
        assert "/dev/sdd" not in volumes
        instance = api.get(Instance, volumes["/dev/xvda"].instance_id)
        return instance.ephemeral_devices, [name[-1] for name, _ in instance_store(instance)]

    second = [{"DeviceName": "/dev/sde", "VirtualName": "ephemeral1"}]
    beyond = [{"DeviceName": "/dev/sdf", "VirtualName": "ephemeral2"}]
    assert mapped("t3.micro", second) == ({}, [])
    assert mapped("m5d.xlarge", second) == ({}, ["0"])
    assert mapped("c3.large", second, beyond) == ({"ephemeral0": "/dev/sdd", "ephemeral1": "/dev/sde"}, ["0", "1"])
    assert mapped("m3.xlarge", second) == ({"ephemeral1": "/dev/sde"}, ["1"])
    assert launch([{"DeviceName": "/dev/sdb", "VirtualName": "ephemeral1"}]).keys() == {"/dev/xvda", "/dev/sdc"}
    assert "/dev/sdd" in launch(device("/dev/sdd", VolumeSize=1))


@pytest.mark.parametrize(
    ("mappings", "code"),
    [
        (root(VolumeSize=7), "InvalidBlockDeviceMapping"),
        (root(SnapshotId=DATA), "InvalidBlockDeviceMapping"),
        (root(VolumeType="fast"), "InvalidParameterValue"),
        (root(VolumeType="st1", VolumeSize=200), "InvalidParameterValue"),
        (root(VolumeType="gp2", Iops=300), "InvalidParameterCombination"),
        (root(VolumeType="io1"), "MissingParameter"),
        (root(KmsKeyId="alias/mine"), "InvalidParameterDependency"),
        (root(Encrypted=True, KmsKeyId="alias/other"), "InvalidKmsKeyId.NotFound"),
        (root(OutpostArn="arn:aws:outposts:::outpost/op-1"), "UnsupportedOperation"),
        (root(EbsCardIndex=1), "UnsupportedOperation"),
        ([*root(), *root()], "InvalidBlockDeviceMapping"),
        ([*device("/dev/sdf", VolumeSize=1), *device("xvdf", VolumeSize=1)], "InvalidBlockDeviceMapping"),
        ([{"Ebs": {"VolumeSize": 10}}], "MissingParameter"),
        ([{"DeviceName": "/dev/sdf"}], "MissingParameter"),
        (device("/dev/sdf"), "MissingParameter"),
        (device("/dev/nvme1n1", VolumeSize=1), "InvalidParameterValue"),
        (device("/dev/sdf", VolumeSize=0), "InvalidParameterValue"),
        (device("/dev/sdf", VolumeSize=1, SnapshotId=DATA), "InvalidBlockDeviceMapping"),
        (device("/dev/sdf", SnapshotId="snap-00000000000000000"), "InvalidSnapshot.NotFound"),
        (device("/dev/sdf", VolumeSize=1, VolumeInitializationRate=100), "InvalidParameterCombination"),
        (device("/dev/sdf", SnapshotId=DATA, VolumeInitializationRate=99), "InvalidParameterValue"),
        ([{"DeviceName": "/dev/xvda", "NoDevice": ""}], "InvalidBlockDeviceMapping"),
        ([{"DeviceName": "/dev/xvda", "VirtualName": "ephemeral0"}], "InvalidBlockDeviceMapping"),
        ([{"DeviceName": "/dev/sdf", "VirtualName": "ephemeral24"}], "InvalidBlockDeviceMapping"),
        (
            [{"DeviceName": "/dev/sdf", "VirtualName": "ephemeral0", "Ebs": {"VolumeSize": 1}}],
            "InvalidBlockDeviceMapping",
        ),
    ],
)
def test_disks_that_cannot_be(api: Api, image: Image, mappings: Mappings, code: str) -> None:
    refused = api.refused(
        "RunInstances",
        MinCount=1,
        MaxCount=1,
        ImageId=image.id,
        InstanceType="t3.micro",
        BlockDeviceMappings=mappings,
    )
    assert refused.code == code, refused


def test_two_devices_for_one_instance_store_disk(api: Api, image: Image) -> None:
    mappings = [{"DeviceName": "/dev/sdf", "VirtualName": "ephemeral0"}]
    refused = api.refused("RunInstances", MinCount=1, MaxCount=1, ImageId=image.id, BlockDeviceMappings=mappings)
    assert refused.code == "InvalidBlockDeviceMapping"


def test_more_volumes_than_the_type_can_have(api: Api, image: Image) -> None:
    def ask(kind: str, count: int) -> dict[str, Any]:
        names = [f"/dev/xvd{first}{second}" for first in "bc" for second in "abcdefghijklmnopqrstuvwxyz"][:count]
        mappings = [mapping for name in names for mapping in device(name, VolumeSize=1)]
        return {"ImageId": image.id, "InstanceType": kind, "BlockDeviceMappings": mappings}

    api.launch(**ask("t3.micro", 24))
    for kind, count in (("t3.micro", 25), ("d3en.12xlarge", 1), ("m1.small", 30), ("i3.16xlarge", 22)):
        code = api.refused("RunInstances", MinCount=1, MaxCount=1, **ask(kind, count)).code
        assert code == "AttachmentLimitExceeded"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"state": "pending"}, "IncorrectState"),
        ({"state": "error"}, "IncorrectState"),
        ({"tier": "archive"}, "IncorrectState"),
        ({"recycled_at": "now"}, "InvalidSnapshot.NotFound"),
    ],
)
def test_an_image_whose_snapshot_cannot_be_used(api: Api, image: Image, fields: dict[str, Any], code: str) -> None:
    given = {name: api.now if value == "now" else value for name, value in fields.items()}
    api.change(api.get(Snapshot, DATA), **given)
    asked = {"MinCount": 1, "MaxCount": 1, "ImageId": image.id, "InstanceType": "t3.micro"}
    assert api.refused("RunInstances", **asked).code == code
    api.call("RunInstances", **asked, BlockDeviceMappings=[{"DeviceName": "/dev/sdb", "NoDevice": ""}])


def test_an_image_whose_snapshot_is_gone(api: Api, image: Image) -> None:
    with api.store.write() as tx:
        tx.delete(api.get(Snapshot, DATA))
    refused = api.refused("RunInstances", MinCount=1, MaxCount=1, ImageId=image.id)
    assert refused.code == "InvalidSnapshot.NotFound"


def test_who_may_use_which_snapshot(api: Api, launch: Any) -> None:
    """An image's are for all who may launch it; others must be shared, or public."""
    other = api.by(OTHER_ACCOUNT)
    keep_snapshot(api, "snap-00000000000000004")
    asked = device("/dev/sdf", SnapshotId="snap-00000000000000004")
    assert launch(by=other)["/dev/sdb"].snapshot_id == DATA
    image_id = api.store.all(Image)[0].id
    params = {"MinCount": 1, "MaxCount": 1, "ImageId": image_id, "InstanceType": "t3.micro"}
    assert other.refused("RunInstances", **params, BlockDeviceMappings=asked).code == "InvalidSnapshot.NotFound"
    for shared in ({"shared_with": (OTHER_ACCOUNT,)}, {"shared_with": (), "public": True}):
        api.change(api.get(Snapshot, "snap-00000000000000004"), **shared)
        assert launch(asked, by=other)["/dev/sdf"].account == OTHER_ACCOUNT


# --- encryption -------------------------------------------------------------------------------------------------------


def test_unencrypted_becomes_encrypted_by_a_copy(api: Api, launch: Any) -> None:
    key = keep_key(api)
    volume = launch(root(Encrypted=True, KmsKeyId="alias/mine"))["/dev/xvda"]
    layer = api.get(Layer, volume.layer_id)
    assert (volume.key_id, layer.key_id, layer.parent_id) == (key.id, key.id, "")
    assert layer.copy_of == api.get(Snapshot, volume.snapshot_id).layer_id
    assert layer.data_key


def test_encryption_by_default(api: Api, launch: Any) -> None:
    api.put(
        RegionSettings(
            id=f"{api.account}:{api.region}",
            account=api.account,
            region=api.region,
            created=api.now,
            encrypt_by_default=True,
        )
    )
    volumes = launch()
    (key,) = api.store.all(Key)
    assert {volume.key_id for volume in volumes.values()} == {key.id}


def test_an_encrypted_snapshot_keeps_its_key(api: Api, launch: Any) -> None:
    key = keep_key(api)
    api.change(api.get(Layer, "layer-00000000000000002"), key_id=key.id, data_key="wrapped")
    api.change(api.get(Snapshot, DATA), key_id=key.id)
    volume = launch()["/dev/sdb"]
    layer = api.get(Layer, volume.layer_id)
    assert (volume.key_id, layer.parent_id, layer.data_key) == (key.id, "layer-00000000000000002", "wrapped")
    code = api.refused(
        "RunInstances",
        MinCount=1,
        MaxCount=1,
        ImageId=api.store.all(Image)[0].id,
        BlockDeviceMappings=device("/dev/sdb", Encrypted=False),
    ).code
    assert code == "InvalidParameterCombination"
    # What others make of it by the key's leave is encrypted by a key of their own.
    api.change(key, policy=policy_for(api.account, OTHER_ACCOUNT))
    theirs = launch(by=api.by(OTHER_ACCOUNT))["/dev/sdb"]
    assert theirs.key_id not in ("", key.id)
    assert api.get(Layer, theirs.layer_id).copy_of == "layer-00000000000000002"


def test_an_image_that_says_that_its_volumes_are_encrypted(api: Api, launch: Any, image: Image) -> None:
    key = keep_key(api)
    api.change(
        image,
        block_devices=(
            BlockDevice(device="/dev/sdc", size_gib=1, encrypted=True, key_id=key.id),
            BlockDevice(device="/dev/sdd", size_gib=1, encrypted=True),
            *(each for each in image.block_devices if each.device == image.root_device),
        ),
    )
    volumes = launch()
    assert (volumes["/dev/sdc"].key_id, volumes["/dev/xvda"].key_id) == (key.id, "")
    assert volumes["/dev/sdd"].key_id not in ("", key.id)


def test_fast_restore_is_of_a_zone(api: Api, launch: Any, image: Image) -> None:
    api.change(
        api.get(Snapshot, DATA), fast_restores=(FastRestore(zone="us-east-1b", account=api.account, since=api.now),)
    )

    def fast(zone: str) -> bool:
        return bool(launch(Placement={"AvailabilityZone": zone})["/dev/sdb"].fast_restored)

    assert (fast("us-east-1a"), fast("us-east-1b")) == (False, True)


def test_the_catalogue_is_in_every_region(api: Api) -> None:
    image = api.make_image()
    west = api.within("us-west-2")
    (instance_id,) = west.launch(ImageId=image.id)
    (volume,) = api.store.all(Volume, instance_id=instance_id)
    assert (volume.region, volume.zone, image.region) == ("us-west-2", "us-west-2a", EVERY_REGION)

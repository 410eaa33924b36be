"""CreateImage, RegisterImage and CopyImage: what an image is made of, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.model import ids
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import Image
from orchestrator.model.instance import Instance
from orchestrator.model.kms import Key, RegionSettings
from orchestrator.model.layer import Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume, VolumeAttachment

from .conftest import ACCOUNT, KEYS, OTHER_ACCOUNT, Api, policy_for


def add_volume(api: Api, instance_id: str, device: str, **fields: Any) -> Volume:
    """A volume that is attached to the instance."""
    owned = {"account": api.account, "region": api.region, "created": api.now}
    layer = Layer(id=ids.mint("layer"), size_bytes=4 << 30, key_id=fields.get("key_id", ""), **owned)
    volume = Volume(
        id=ids.mint("vol"),
        zone="us-east-1a",
        size_gib=4,
        layer_id=layer.id,
        state="in-use",
        attachment=VolumeAttachment(instance_id=instance_id, device=device, delete_on_termination=False),
        **owned,
        **fields,
    )
    api.put(layer, volume)
    return volume


def add_snapshot(api: Api, **fields: Any) -> Snapshot:
    owned = {"account": api.account, "region": api.region, "created": api.now}
    layer = Layer(id=ids.mint("layer"), size_bytes=4 << 30, key_id=fields.get("key_id", ""), **owned)
    snapshot = Snapshot(**{"id": ids.mint("snap"), "layer_id": layer.id, "size_gib": 4, **owned, **fields})
    api.put(layer, snapshot)
    return snapshot


def add_key(api: Api, **fields: Any) -> Key:
    key = Key(
        **{
            "id": f"00000000-0000-4000-8000-{api.world.requests:012}",
            "account": api.account,
            "region": api.region,
            "created": api.now,
            "material": KEYS.new_material(),
            **fields,
        }
    )
    api.put(key)
    return key


def create(api: Api, instance_id: str, name: str = "baked", **params: Any) -> Image:
    return api.get(Image, api.call("CreateImage", InstanceId=instance_id, Name=name, **params)["ImageId"])


def register(api: Api, snapshot: Snapshot, **params: Any) -> Image:
    given = {
        "Name": "registered",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot.id}}],
        **params,
    }
    return api.get(Image, api.call("RegisterImage", **given)["ImageId"])


def woken(api: Api) -> set[tuple[str, str]]:
    return {(kind, row) for kind, row, _ in api.store.pending_wakes()}


# --- CreateImage ------------------------------------------------------------------------------------------------------


def test_an_image_of_an_instance_has_a_snapshot_of_each_volume_of_one_moment(api: Api) -> None:
    source = api.make_image("tiny", kernel_id="aki-00000000", kernel_arguments="console=ttyS0", imds_v2_required=True)
    [instance_id] = api.launch(ImageId=source.id)
    data = add_volume(api, instance_id, "/dev/sdf", volume_type="gp2", iops=100, throughput_mib_s=0)
    image = create(
        api,
        instance_id,
        Description="baked",
        TagSpecifications=[
            {"ResourceType": "image", "Tags": [{"Key": "a", "Value": "1"}]},
            {"ResourceType": "snapshot", "Tags": [{"Key": "b", "Value": "2"}]},
        ],
    )
    assert (image.state, image.description, image.tags) == ("pending", "baked", {"a": "1"})
    assert (image.source_instance_id, image.source_image_id, image.source_region) == (
        instance_id,
        source.id,
        "us-east-1",
    )
    for inherited in ("architecture", "root_device", "login_user", "kernel_id", "kernel_arguments", "imds_v2_required"):
        assert getattr(image, inherited) == getattr(source, inherited), inherited
    root, second = image.block_devices
    assert (root.device, root.size_gib, root.volume_type, root.delete_on_termination) == ("/dev/xvda", 8, "gp3", True)
    assert (second.device, second.size_gib, second.volume_type, second.iops) == ("/dev/sdf", 4, "gp2", 0)
    assert not second.delete_on_termination
    snapshots = [api.get(Snapshot, snapshot_id) for snapshot_id in image.snapshot_ids]
    assert [snapshot.state for snapshot in snapshots] == ["pending", "pending"]
    assert [snapshot.tags for snapshot in snapshots] == [{"b": "2"}, {"b": "2"}]
    assert snapshots[1].layer_id == data.layer_id
    tops = [api.get(Layer, api.get(Volume, snapshot.volume_id).layer_id) for snapshot in snapshots]
    assert [top.parent_id for top in tops] == [snapshot.layer_id for snapshot in snapshots]
    assert len({top.moment for top in tops}) == 1
    assert ("image", image.id) in woken(api)


@pytest.mark.parametrize(
    ("state", "no_reboot", "when"),
    [
        (State.RUNNING, False, "off"),
        (State.RUNNING, True, "frozen"),
        (State.STOPPED, False, "live"),
        (State.STOPPED, True, "live"),
    ],
)
def test_how_the_volumes_are_frozen(api: Api, state: State, no_reboot: bool, when: str) -> None:
    [instance_id] = api.launch(settled=state)
    image = create(api, instance_id, NoReboot=no_reboot)
    snapshot = api.get(Snapshot, image.snapshot_ids[0])
    assert api.get(Layer, api.get(Volume, snapshot.volume_id).layer_id).when == when


@pytest.mark.parametrize("state", [State.PENDING, State.STOPPING, State.SHUTTING_DOWN, State.TERMINATED])
def test_an_instance_must_be_running_or_stopped(api: Api, state: State) -> None:
    [instance_id] = api.launch()
    api.change(api.get(Instance, instance_id), state=state)
    error = api.refused("CreateImage", InstanceId=instance_id, Name="baked")
    assert error.code == "IncorrectInstanceState"


def test_only_ones_own_instances(api: Api) -> None:
    [instance_id] = api.launch()
    assert api.by().refused("CreateImage", InstanceId=instance_id, Name="x-1").code == "InvalidInstanceID.NotFound"
    assert api.refused("CreateImage", InstanceId=instance_id, Name="baked", DryRun=True).code == "DryRunOperation"


def test_names(api: Api) -> None:
    [instance_id] = api.launch()
    for name in ("semi;colon", "ümlaut", "tab\tbed"):
        error = api.refused("CreateImage", InstanceId=instance_id, Name=name)
        assert error.code == "InvalidAMIName.Malformed", name
    for name in ("ab", "x" * 129):  # botocore itself does not send these
        with pytest.raises(EC2Error, match=r"InvalidAMIName\.Malformed"):
            api.run("CreateImage", InstanceId=instance_id, Name=name)
    first = create(api, instance_id, "a (b) [c] ./-'@_ 9")
    error = api.refused("CreateImage", InstanceId=instance_id, Name="a (b) [c] ./-'@_ 9")
    assert error.code == "InvalidAMIName.Duplicate" and first.id in error.message
    api.change(first, state="failed")
    create(api, instance_id, "a (b) [c] ./-'@_ 9")
    assert api.refused("CreateImage", InstanceId=instance_id, Name="long", Description="x" * 256).code == (
        "InvalidParameterValue"
    )


def test_the_same_name_in_another_region_and_of_another_account(api: Api) -> None:
    for caller in (api, api.within("us-west-2"), api.by()):
        register(caller, add_snapshot(caller), Name="same")


def test_mappings_change_what_the_image_makes(api: Api) -> None:
    [instance_id] = api.launch()
    add_volume(api, instance_id, "/dev/sdf")
    add_volume(api, instance_id, "/dev/sdg")
    other = add_snapshot(api)
    image = create(
        api,
        instance_id,
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 20, "VolumeType": "io1", "Iops": 200}},
            {"DeviceName": "/dev/xvdf", "Ebs": {"DeleteOnTermination": True}},
            {"DeviceName": "/dev/sdg", "NoDevice": ""},
            {"DeviceName": "/dev/sdh", "Ebs": {"VolumeSize": 3, "Encrypted": True}},
            {"DeviceName": "/dev/sdi", "Ebs": {"SnapshotId": other.id}},
            {"DeviceName": "/dev/sdj", "VirtualName": "ephemeral0"},
        ],
    )
    devices = {device.device: device for device in image.block_devices}
    assert list(devices) == ["/dev/xvda", "/dev/sdf", "/dev/sdh", "/dev/sdi", "/dev/sdj"]
    root = devices["/dev/xvda"]
    assert (root.size_gib, root.volume_type, root.iops, root.throughput_mib_s) == (20, "io1", 200, 0)
    assert devices["/dev/sdf"].delete_on_termination
    assert (devices["/dev/sdh"].snapshot_id, devices["/dev/sdh"].encrypted) == ("", True)
    assert (devices["/dev/sdi"].snapshot_id, devices["/dev/sdi"].size_gib) == (other.id, 4)
    assert devices["/dev/sdj"].virtual_name == "ephemeral0"
    pending = [s for s in api.store.all(Snapshot) if s.state == "pending"]
    assert len(pending) == 2  # a volume that is left out is not frozen either
    shown = api.call("DescribeImages", ImageIds=[image.id])["Images"][0]["BlockDeviceMappings"]
    assert shown[-1] == {"DeviceName": "/dev/sdj", "VirtualName": "ephemeral0"}


@pytest.mark.parametrize(
    ("mapping", "code", "says"),
    [
        ({"DeviceName": "/dev/xvda", "NoDevice": ""}, "InvalidBlockDeviceMapping", "root"),
        ({"DeviceName": "/dev/xvda", "VirtualName": "ephemeral0"}, "InvalidBlockDeviceMapping", "volume"),
        ({"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 7}}, "InvalidBlockDeviceMapping", "expect size>= 8GB"),
        ({"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True}}, "InvalidBlockDeviceMapping", "encrypted"),
        ({"DeviceName": "/dev/xvda", "Ebs": {"VolumeType": "st1", "VolumeSize": 500}}, "InvalidParameterValue", "root"),
        ({"DeviceName": "/dev/xvda", "Ebs": {"VolumeType": "gp9"}}, "InvalidParameterValue", "gp9"),
        ({"DeviceName": "/dev/sdb"}, "InvalidBlockDeviceMapping", "one of Ebs"),
        ({"DeviceName": "/dev/sdb", "NoDevice": "", "VirtualName": "ephemeral0"}, "InvalidBlockDeviceMapping", "2"),
        ({"DeviceName": "/dev/sdb", "VirtualName": "ephemeral24"}, "InvalidBlockDeviceMapping", "ephemeral23"),
        ({"DeviceName": "/dev/sdb", "Ebs": {"VolumeType": "gp3"}}, "MissingParameter", "VolumeSize"),
        ({"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": "snap-00000000"}}, "InvalidSnapshot.NotFound", "snap-0"),
        ({"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1, "KmsKeyId": "x"}}, "InvalidParameterDependency", "Encr"),
        ({"DeviceName": "nonsense device", "NoDevice": ""}, "InvalidParameterValue", "nonsense"),
        ({"NoDevice": ""}, "MissingParameter", "DeviceName"),
    ],
)
def test_mappings_that_are_refused(api: Api, mapping: dict[str, Any], code: str, says: str) -> None:
    [instance_id] = api.launch()
    error = api.refused("CreateImage", InstanceId=instance_id, Name="baked", BlockDeviceMappings=[mapping])
    assert error.code == code and says in error.message, error


def test_a_device_is_mapped_once(api: Api) -> None:
    [instance_id] = api.launch()
    twice = [{"DeviceName": name, "VirtualName": "ephemeral0"} for name in ("/dev/sdb", "/dev/xvdb")]
    error = api.refused("CreateImage", InstanceId=instance_id, Name="baked", BlockDeviceMappings=twice)
    assert error.code == "InvalidBlockDeviceMapping"


def test_where_there_are_no_local_zones_and_no_uefi(api: Api) -> None:
    [instance_id] = api.launch()
    assert create(api, instance_id, SnapshotLocation="regional").state == "pending"
    error = api.refused("CreateImage", InstanceId=instance_id, Name="other", SnapshotLocation="local")
    assert error.code == "InvalidParameterValue"
    error = api.refused("CreateImage", InstanceId=instance_id, Name="other", BootModeOverride="uefi")
    assert error.code == "UnsupportedOperation"


def test_an_instance_without_its_root(api: Api) -> None:
    [instance_id] = api.launch(settled=State.STOPPED)
    [root] = api.store.all(Volume, instance_id=instance_id)
    api.change(root, attachment=None, state="available")
    error = api.refused("CreateImage", InstanceId=instance_id, Name="baked")
    assert error.code == "IncorrectInstanceState" and "/dev/xvda" in error.message


def test_a_pending_image_is_not_launched(api: Api) -> None:
    [instance_id] = api.launch()
    image = create(api, instance_id)
    error = api.refused("RunInstances", ImageId=image.id, MinCount=1, MaxCount=1)
    assert error.code == "InvalidAMIID.Unavailable"
    for snapshot_id in image.snapshot_ids:
        api.change(api.get(Snapshot, snapshot_id), state="completed")
    api.change(image, state="available")
    api.launch(ImageId=image.id)
    assert api.get(Image, image.id).last_launched_at == api.now


# --- RegisterImage ----------------------------------------------------------------------------------------------------


def test_an_image_is_registered_of_a_snapshot(api: Api) -> None:
    snapshot = add_snapshot(api)
    data = add_snapshot(api, shared_with=(ACCOUNT,), account=OTHER_ACCOUNT)
    image = register(
        api,
        snapshot,
        Description="mine",
        Architecture="x86_64",
        BootMode="uefi-preferred",
        ImdsSupport="v2.0",
        EnaSupport=True,
        VirtualizationType="hvm",
        SriovNetSupport="simple",
        TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "1"}]}],
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": data.id, "VolumeSize": 9, "VolumeType": "gp3"}},
            {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot.id}},
            {"DeviceName": "/dev/sdc", "NoDevice": ""},
            {"DeviceName": "/dev/sdd", "Ebs": {"VolumeSize": 2}},
        ],
    )
    [shown] = api.call("DescribeImages", ImageIds=[image.id])["Images"]
    assert (shown["State"], shown["BootMode"], shown["ImdsSupport"], shown["EnaSupport"]) == (
        "available",
        "uefi-preferred",
        "v2.0",
        True,
    )
    assert shown["Tags"] == [{"Key": "a", "Value": "1"}]
    assert [
        (m["DeviceName"], m["Ebs"].get("SnapshotId"), m["Ebs"]["VolumeSize"], m["Ebs"]["VolumeType"])
        for m in shown["BlockDeviceMappings"]
    ] == [
        ("/dev/xvda", snapshot.id, 4, "gp2"),
        ("/dev/sdb", data.id, 9, "gp3"),
        ("/dev/sdd", None, 2, "gp2"),
    ]
    assert not register(api, snapshot, Name="plain").ena_support


def test_what_is_registered_keeps_the_kernel_and_the_user_of_what_it_began_as(api: Api) -> None:
    source = api.make_image("tiny", kernel_id="aki-00000001", ramdisk_id="ari-00000001", kernel_arguments="quiet")
    [instance_id] = api.launch(ImageId=source.id)
    [volume] = api.store.all(Volume, instance_id=instance_id)
    snapshot = add_snapshot(api, layer_id=volume.layer_id)
    image = register(api, snapshot)
    assert (image.kernel_id, image.ramdisk_id, image.kernel_arguments, image.login_user) == (
        "aki-00000001",
        "ari-00000001",
        "quiet",
        "admin",
    )
    plain = register(api, add_snapshot(api), Name="plain", KernelId="aki-00000001", RamdiskId="ari-00000001")
    assert (plain.kernel_id, plain.kernel_arguments) == ("aki-00000001", "quiet")


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"RootDeviceName": "/dev/sda1"}, "InvalidBlockDeviceMapping"),
        ({"BlockDeviceMappings": []}, "InvalidBlockDeviceMapping"),
        ({"BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 4}}]}, "InvalidBlockDeviceMapping"),
        ({"Architecture": "x86_64_mac"}, "InvalidParameterValue"),
        ({"BootMode": "uefi"}, "InvalidParameterValue"),
        ({"VirtualizationType": "paravirtual"}, "InvalidParameterValue"),
        ({"TpmSupport": "v2.0"}, "UnsupportedOperation"),
        ({"UefiData": "AAAA"}, "UnsupportedOperation"),
        ({"ImageLocation": "bucket/manifest.xml"}, "UnsupportedOperation"),
        ({"KernelId": "aki-00000009"}, "InvalidAKIID.NotFound"),
        ({"KernelId": "kernel"}, "InvalidAKIID.Malformed"),
        ({"RamdiskId": "ari-00000009"}, "InvalidParameterCombination"),
        ({"Name": "x;y"}, "InvalidAMIName.Malformed"),
        ({"TagSpecifications": [{"ResourceType": "snapshot", "Tags": []}]}, "InvalidParameterValue"),
    ],
)
def test_registrations_that_are_refused(api: Api, params: dict[str, Any], code: str) -> None:
    snapshot = add_snapshot(api)
    given = {
        "Name": "registered",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot.id}}],
        **params,
    }
    assert api.refused("RegisterImage", **given).code == code


def test_snapshots_that_cannot_be_registered(api: Api) -> None:
    def refused(snapshot: Snapshot, **ebs: Any) -> str:
        mapping = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot.id, **ebs}}
        return api.refused(
            "RegisterImage", Name="registered", RootDeviceName="/dev/xvda", BlockDeviceMappings=[mapping]
        ).code

    assert refused(add_snapshot(api, state="pending")) == "IncorrectState"
    assert refused(add_snapshot(api, account=OTHER_ACCOUNT)) == "InvalidSnapshot.NotFound"
    assert refused(add_snapshot(api, region="us-west-2")) == "InvalidSnapshot.NotFound"
    assert refused(add_snapshot(api, recycled_at=api.now)) == "InvalidSnapshot.NotFound"
    assert refused(add_snapshot(api), VolumeSize=3) == "InvalidBlockDeviceMapping"
    assert refused(add_snapshot(api), Encrypted=True) == "InvalidBlockDeviceMapping"


def test_an_encrypted_snapshot_makes_an_encrypted_device(api: Api) -> None:
    key = add_key(api)
    image = register(
        api,
        add_snapshot(api, key_id=key.id),
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": add_snapshot(api, key_id=key.id).id}},
            {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1, "Encrypted": True, "KmsKeyId": key.arn}},
        ],
    )
    [shown] = api.call("DescribeImages", ImageIds=[image.id])["Images"]
    root, data = (mapping["Ebs"] for mapping in shown["BlockDeviceMappings"])
    assert root["Encrypted"] and "KmsKeyId" not in root
    assert data["Encrypted"] and data["KmsKeyId"] == key.arn


# --- CopyImage --------------------------------------------------------------------------------------------------------


def copied(api: Api, source: Image, region: str = "us-east-1", **params: Any) -> Image:
    given = {"Name": "copy", "SourceImageId": source.id, "SourceRegion": region, **params}
    return api.get(Image, api.call("CopyImage", **given)["ImageId"])


def test_a_copy_in_another_region_needs_no_bytes(api: Api) -> None:
    snapshot = add_snapshot(api)
    source = register(
        api,
        snapshot,
        TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "1"}]}],
    )
    source = api.change(source, public=True, shared_with=(OTHER_ACCOUNT,), protected="enabled-without-cooldown")
    west = api.within("us-west-2")
    copy = copied(west, source, Description="there")
    assert (copy.region, copy.name, copy.description, copy.state) == ("us-west-2", "copy", "there", "pending")
    assert (copy.source_image_id, copy.source_region) == (source.id, "us-east-1")
    assert (copy.public, copy.shared_with, copy.protected, copy.tags) == (False, (), "", {})
    [made] = [api.get(Snapshot, snapshot_id) for snapshot_id in copy.snapshot_ids]
    assert (made.layer_id, made.region, made.state, made.source_snapshot_id) == (
        snapshot.layer_id,
        "us-west-2",
        "pending",
        snapshot.id,
    )
    assert ("image", copy.id) in woken(api)
    tagged = copied(
        west,
        source,
        Name="tagged",
        CopyImageTags=True,
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "b", "Value": "2"}]}],
    )
    assert tagged.tags == {"a": "1"}
    assert api.get(Snapshot, tagged.snapshot_ids[0]).tags == {"b": "2"}
    assert copied(west.by(), source, CopyImageTags=True).tags == {}


def test_a_copy_of_the_catalogue(api: Api) -> None:
    source = api.make_image("debian-12")
    copy = copied(api.by(), source)
    assert (copy.account, copy.region, copy.login_user) == (OTHER_ACCOUNT, "us-east-1", "admin")
    assert source.region == EVERY_REGION


def test_a_copy_can_be_encrypted(api: Api) -> None:
    source = register(api, add_snapshot(api))
    key = add_key(api)
    copy = copied(api, source, Encrypted=True, KmsKeyId=key.id)
    made = api.get(Snapshot, copy.snapshot_ids[0])
    assert (made.key_id, copy.block_devices[0].encrypted) == (key.id, True)
    assert api.get(Layer, made.layer_id).copy_of == api.get(Snapshot, source.snapshot_ids[0]).layer_id
    by_default = copied(api, source, Name="by default", Encrypted=True)
    assert api.get(Key, api.get(Snapshot, by_default.snapshot_ids[0]).key_id).manager == "AWS"


def test_a_copy_is_encrypted_where_the_region_says_so(api: Api) -> None:
    settings = RegionSettings(
        id=f"{ACCOUNT}:us-east-1", account=ACCOUNT, region="us-east-1", created=api.now, encrypt_by_default=True
    )
    source = register(api, add_snapshot(api))
    api.put(settings)
    assert copied(api, source).block_devices[0].encrypted


def test_a_copy_does_not_lose_its_encryption(api: Api) -> None:
    source = register(api, add_snapshot(api, key_id=add_key(api).id))
    error = api.refused("CopyImage", Name="copy", SourceImageId=source.id, SourceRegion="us-east-1", Encrypted=False)
    assert error.code == "InvalidParameterCombination"
    assert copied(api, source).block_devices[0].encrypted


def test_what_a_default_key_of_another_account_encrypts_cannot_be_copied(api: Api) -> None:
    default = add_key(api, manager="AWS", aliases=("alias/aws/ebs",))
    bound = api.change(register(api, add_snapshot(api, key_id=default.id)), shared_with=(OTHER_ACCOUNT,))
    error = api.by().refused("CopyImage", Name="copy", SourceImageId=bound.id, SourceRegion="us-east-1")
    assert error.code == "InvalidRequest"
    assert copied(api, bound).block_devices[0].encrypted
    lent = add_key(api, policy=policy_for(api.account, OTHER_ACCOUNT))
    named = register(api, add_snapshot(api, key_id=lent.id), Name="named")
    named = api.change(named, shared_with=(OTHER_ACCOUNT,))
    copy = copied(api.by(), named)
    assert api.get(Key, api.get(Snapshot, copy.snapshot_ids[0]).key_id).account == OTHER_ACCOUNT


def test_copies_that_are_refused(api: Api) -> None:
    source = register(api, add_snapshot(api))

    def code(**params: Any) -> str:
        given = {"Name": "copy", "SourceImageId": source.id, "SourceRegion": "us-east-1", **params}
        return api.refused("CopyImage", **given).code

    assert code(SourceRegion="mars-1") == "InvalidParameterValue"
    assert code(SourceRegion="us-west-2") == "InvalidAMIID.NotFound"
    assert code(Name="registered") == "InvalidAMIName.Duplicate"
    assert code(SnapshotCopyCompletionDurationMinutes=20) == "InvalidParameterValue"
    assert code(DestinationOutpostArn="arn:aws:outposts:x") == "UnsupportedOperation"
    assert api.by().refused("CopyImage", Name="x-1", SourceImageId=source.id, SourceRegion="us-east-1").code == (
        "InvalidAMIID.NotFound"
    )
    api.put(replace(api.get(Image, source.id), state="pending"))
    assert code() == "InvalidAMIID.Unavailable"


def test_a_client_token_copies_once(api: Api) -> None:
    source = register(api, add_snapshot(api))
    given = {"Name": "copy", "SourceImageId": source.id, "SourceRegion": "us-east-1", "ClientToken": "once"}
    assert api.call("CopyImage", **given) == api.call("CopyImage", **given)

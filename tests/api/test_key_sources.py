"""What is made of an encrypted snapshot asks that snapshot's key, and what is attached its volume's, named or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.keys import KeyRing
from orchestrator.model import ids
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.instance import Instance
from orchestrator.model.kms import Key
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.lifecycle import State
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from tests.api.cloud import ACCOUNT, OTHER, Cloud, Keys, allow, deny, document, refused
from tests.api.test_key_access import policy, root, says, user_arn

REFUSED = "UnauthorizedOperation"
USES = ["kms:CreateGrant", "kms:Decrypt", "kms:ReEncryptFrom"]
Restore = Callable[..., Any]


@pytest.fixture
def kms(cloud: Cloud) -> Any:
    return cloud.client("kms")


@pytest.fixture
def arn(kms: Any) -> str:
    found: str = kms.create_key()["KeyMetadata"]["Arn"]
    return found


@pytest.fixture
def image(cloud: Cloud, arn: str) -> Image:
    """One whose only snapshot is encrypted by the key; both are shared with the other account."""
    key = cloud.store.get(Key, arn.rpartition("/")[2])
    assert key is not None
    mine: dict[str, Any] = {"account": ACCOUNT, "region": "us-east-1", "created": cloud.clock()}
    data_key = KeyRing(bytes(32)).new_data_key(key)
    layer = Layer(id=ids.mint("layer"), size_bytes=GIB, key_id=key.id, data_key=data_key, **mine)
    snapshot = Snapshot(
        id=ids.mint("snap"),
        layer_id=layer.id,
        size_gib=1,
        key_id=key.id,
        state="completed",
        shared_with=(OTHER,),
        **mine,
    )
    device = BlockDevice(device="/dev/xvda", snapshot_id=snapshot.id, size_gib=1, encrypted=True)
    image = Image(id=ids.mint("ami"), name="sealed", block_devices=(device,), shared_with=(OTHER,), **mine)
    with cloud.store.write() as tx:
        tx.put_all([layer, snapshot, image])
    return image


def _volume(ec2: Any, image: Image, **more: Any) -> Any:
    return ec2.create_volume(SnapshotId=image.snapshot_ids[0], AvailabilityZone="us-east-1a", **more)


def _launch(ec2: Any, image: Image, **more: Any) -> Any:
    given: dict[str, Any] = {"MinCount": 1, "MaxCount": 1, "InstanceType": "t3.micro"}
    mappings = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 2, **more}}]
    return ec2.run_instances(ImageId=image.id, BlockDeviceMappings=mappings, **given)


def _copy(ec2: Any, image: Image, **more: Any) -> Any:
    return ec2.copy_snapshot(SourceSnapshotId=image.snapshot_ids[0], SourceRegion="us-east-1", **more)


def _copy_image(ec2: Any, image: Image, **more: Any) -> Any:
    return ec2.copy_image(Name=ids.mint("ami"), SourceImageId=image.id, SourceRegion="us-east-1", **more)


RESTORES: list[Restore] = [_volume, _launch, _copy, _copy_image]


def restores(client: Any, image: Image, **more: Any) -> None:
    for restore in RESTORES:
        restore(client, image, **more)


def refusals(client: Any, image: Image, **more: Any) -> set[str]:
    return {refused(restore, client, image, **more)[0] for restore in RESTORES}


def made(cloud: Cloud) -> int:
    return sum(len(cloud.store.all(kind)) for kind in (Volume, Snapshot, Layer, Image))


def user_of(cloud: Cloud, account: str, name: str, *statements: dict[str, Any]) -> Keys:
    iam = cloud.client("iam", cloud.root(account))
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document(*statements))
    return Keys.of(iam.create_access_key(UserName=name)["AccessKey"])


# --- the same account -------------------------------------------------------------------------------------------------


def test_what_is_denied_to_a_user_is_denied_by_ec2(cloud: Cloud, kms: Any, arn: str, image: Image) -> None:
    alice, bob = (cloud.client("ec2", cloud.user(name, allow(["ec2:*", "kms:*"]))) for name in ("alice", "bob"))
    before = made(cloud)
    for action in ("kms:CreateGrant", "kms:Decrypt"):
        kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Deny", user_arn("alice"), action)))
        for restore in RESTORES:
            code, message = refused(restore, alice, image)
            assert (code, action in message, arn in message) == (REFUSED, True, True), message
    assert made(cloud) == before
    restores(bob, image)


def test_a_users_own_policies_count(cloud: Cloud, arn: str, image: Image) -> None:
    for name, statements in (("none", []), ("denied", [allow("kms:*"), deny("kms:Decrypt", arn)])):
        keys = cloud.user(name, allow("ec2:*"), *statements)
        assert refusals(cloud.client("ec2", keys), image) == {REFUSED}, name
    enough = cloud.user("enough", allow("ec2:*"), allow(["kms:CreateGrant", "kms:Decrypt"]))
    restores(cloud.client("ec2", enough), image)


def test_the_root_is_shut_out_as_well(cloud: Cloud, kms: Any, arn: str, image: Image) -> None:
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Deny", "*", "kms:Decrypt")))
    assert refusals(cloud.client("ec2"), image) == {REFUSED}
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root())))
    restores(cloud.client("ec2"), image)


def test_another_key_does_not_help(cloud: Cloud, kms: Any, arn: str, image: Image) -> None:
    """To name a key of one's own is no way around the snapshot's."""
    alice = cloud.client("ec2", cloud.user("alice", allow(["ec2:*", "kms:*"])))
    second = kms.create_key()["KeyMetadata"]["Arn"]
    for action in USES:
        kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Deny", user_arn("alice"), action)))
        assert refusals(alice, image, Encrypted=True, KmsKeyId=second) == {REFUSED}, action
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root())))
    restores(alice, image, Encrypted=True, KmsKeyId=second)


def test_a_copy_into_another_region_asks_the_key_of_the_first(cloud: Cloud, kms: Any, arn: str, image: Image) -> None:
    alice = cloud.user("alice", allow(["ec2:*", "kms:*"]))
    there = {"StringEquals": {"kms:ViaService": "ec2.us-east-1.amazonaws.com"}}
    denied = says("Deny", user_arn("alice"), "kms:ReEncryptFrom", Condition=there)
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), denied))
    far = cloud.client("ec2", alice, region="us-west-2")
    given = {"SourceSnapshotId": image.snapshot_ids[0], "SourceRegion": "us-east-1"}
    assert refused(far.copy_snapshot, **given)[0] == REFUSED
    cloud.client("ec2", alice).copy_snapshot(**given)  # under the same key: nothing is encrypted anew


def test_the_key_that_an_account_has_chosen_for_what_names_none(cloud: Cloud, kms: Any, arn: str) -> None:
    alice = cloud.client("ec2", cloud.user("alice", allow(["ec2:*", "kms:*"])))
    cloud.client("ec2").modify_ebs_default_kms_key_id(KmsKeyId=arn)
    kms.put_key_policy(
        KeyId=arn, Policy=policy(says("Allow", root()), says("Deny", user_arn("alice"), "kms:CreateGrant"))
    )
    volume = {"Size": 1, "AvailabilityZone": "us-east-1a"}
    assert refused(alice.create_volume, **volume, Encrypted=True)[0] == REFUSED
    alice.create_volume(**volume)
    cloud.client("ec2").reset_ebs_default_kms_key_id()
    alice.create_volume(**volume, Encrypted=True)  # the service's own key is asked for nothing


def test_a_dry_run_says_the_same(cloud: Cloud, kms: Any, arn: str, image: Image) -> None:
    alice = cloud.client("ec2", cloud.user("alice", allow("ec2:*")))
    assert refused(_volume, alice, image, DryRun=True)[0] == REFUSED
    assert refused(_volume, cloud.client("ec2"), image, DryRun=True)[0] == "DryRunOperation"


def test_whoever_has_a_volume_attached_or_started_needs_its_key(cloud: Cloud, kms: Any, arn: str, image: Image) -> None:
    ec2 = cloud.client("ec2")
    alice, bob = (cloud.client("ec2", cloud.user(name, allow(["ec2:*", "kms:*"]))) for name in ("alice", "bob"))
    volume_id = _volume(ec2, image)["VolumeId"]
    instance_id = _launch(ec2, image)["Instances"][0]["InstanceId"]
    _settle(cloud, instance_id, volume_id)
    kms.put_key_policy(
        KeyId=arn, Policy=policy(says("Allow", root()), says("Deny", user_arn("alice"), "kms:CreateGrant"))
    )
    attached = {"InstanceId": instance_id, "VolumeId": volume_id, "Device": "/dev/sdf"}
    started = {"InstanceIds": [instance_id]}
    for refuse, given in ((alice.attach_volume, attached), (alice.start_instances, started)):
        code, message = refused(refuse, **given)
        assert (code, "kms:CreateGrant" in message, arn in message) == (REFUSED, True, True), message
    found = cloud.store.get(Instance, instance_id)
    assert found is not None and found.state is State.STOPPED
    assert bob.attach_volume(**attached)["State"] == "attaching"
    assert bob.start_instances(**started)["StartingInstances"][0]["CurrentState"]["Name"] == "pending"


def _settle(cloud: Cloud, instance_id: str, volume_id: str) -> None:
    """As reconcilers do: the volume is there, and the instance is off."""
    with cloud.store.write() as tx:
        volume, instance = tx.get(Volume, volume_id), tx.get(Instance, instance_id)
        assert volume is not None and instance is not None
        tx.put(replace(volume, state="available"))
        tx.put(replace(instance, state=State.STOPPED, goal=replace(instance.goal, power=State.STOPPED)))


# --- another account --------------------------------------------------------------------------------------------------


def test_a_shared_snapshot_without_its_key_is_of_no_use(cloud: Cloud, kms: Any, arn: str, image: Image) -> None:
    theirs = cloud.client("ec2", cloud.root(OTHER))
    before = made(cloud)
    for restore in RESTORES:
        code, message = refused(restore, theirs, image)
        assert code == REFUSED and arn not in message, "of another account's key nothing is told"
    for missing in USES:
        uses = [action for action in USES if action != missing]
        kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Allow", root(OTHER), uses)))
        assert refusals(theirs, image) == {REFUSED}, missing
    assert made(cloud) == before
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Allow", root(OTHER), USES)))
    restores(theirs, image)


def test_there_a_user_needs_its_own_accounts_leave_too(cloud: Cloud, kms: Any, arn: str, image: Image) -> None:
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Allow", root(OTHER), USES)))
    for name, statements in (("none", []), ("denied", [allow("kms:*"), deny("kms:Decrypt", arn)])):
        keys = user_of(cloud, OTHER, name, allow("ec2:*"), *statements)
        assert refusals(cloud.client("ec2", keys), image) == {REFUSED}, name
    restores(cloud.client("ec2", user_of(cloud, OTHER, "eve", allow("ec2:*"), allow(USES, arn))), image)


def test_a_grant_is_leave_as_well(cloud: Cloud, kms: Any, arn: str, image: Image) -> None:
    theirs = cloud.client("ec2", cloud.root(OTHER))
    kms.create_grant(
        KeyId=arn, GranteePrincipal=root(OTHER), Operations=["CreateGrant", "Decrypt", "ReEncryptFrom", "DescribeKey"]
    )
    _volume(theirs, image)


def test_a_key_that_cannot_be_used(cloud: Cloud, kms: Any, arn: str, image: Image) -> None:
    """An error at once, as of a named key, and whoever asks: there would be nothing to read."""
    kms.put_key_policy(KeyId=arn, Policy=policy(says("Allow", root()), says("Allow", root(OTHER), USES)))
    kms.disable_key(KeyId=arn)
    for client in (cloud.client("ec2"), cloud.client("ec2", cloud.root(OTHER))):
        assert refusals(client, image) == {"InvalidKmsKeyId.InvalidState"}

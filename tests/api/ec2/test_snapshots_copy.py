"""CopySnapshot: which layer a copy is of, which key encrypts it, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.kms import EBS_ALIAS, Key, RegionSettings
from orchestrator.model.layer import Layer
from orchestrator.model.snapshot import Snapshot

from .conftest import ACCOUNT, KEYS, OTHER_ACCOUNT, Api, policy_for
from .test_snapshots import LAYER, SNAPSHOT, keep, woken


def make_key(api: Api, number: int = 1, **fields: Any) -> Key:
    key_id = f"00000000-0000-0000-0000-{number:012x}"
    owned = {"account": api.account, "region": api.region, "created": api.now}
    api.put(Key(id=key_id, material=KEYS.new_material(), **{**owned, **fields}))
    return api.get(Key, key_id)


def make_source(api: Api, key: Key | None = None, **fields: Any) -> Snapshot:
    key_id, data_key = (key.id, KEYS.new_data_key(key)) if key else ("", "")
    owned = {"account": api.account, "region": api.region, "created": api.now}
    api.put(Layer(id=LAYER, size_bytes=8 << 30, key_id=key_id, data_key=data_key, **owned))
    return keep(api, layer_id=LAYER, key_id=key_id, consistency="frozen", tags={"a": "b"}, **fields)


def copy(api: Api, source_region: str = "us-east-1", **more: Any) -> tuple[Snapshot, Layer]:
    made = api.call("CopySnapshot", SourceRegion=source_region, SourceSnapshotId=SNAPSHOT, **more)
    snapshot = api.get(Snapshot, made["SnapshotId"])
    assert snapshot.id in woken(api)
    return snapshot, api.get(Layer, snapshot.layer_id)


def test_as_it_is_no_byte_is_copied(api: Api) -> None:
    make_source(api)
    made = api.call(
        "CopySnapshot",
        SourceRegion="us-east-1",
        SourceSnapshotId=SNAPSHOT,
        Description="again",
        DestinationRegion="us-east-1",
        PresignedUrl="https://ec2.us-east-1.amazonaws.com/",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "Name", "Value": "copy"}]}],
    )
    assert made["Tags"] == [{"Key": "Name", "Value": "copy"}]
    snapshot = api.get(Snapshot, made["SnapshotId"])
    assert (snapshot.layer_id, snapshot.state, snapshot.progress_percent) == (LAYER, "pending", 0)
    assert (snapshot.source_snapshot_id, snapshot.consistency, snapshot.volume_id) == (SNAPSHOT, "frozen", "")
    assert (snapshot.description, snapshot.tags) == ("again", {"Name": "copy"})
    [shown] = api.call("DescribeSnapshots", SnapshotIds=[snapshot.id])["Snapshots"]
    assert (shown["VolumeId"], shown["TransferType"]) == ("vol-ffffffff", "standard")


def test_into_another_region(api: Api) -> None:
    make_source(api)
    west = api.within("us-west-2")
    snapshot, layer = copy(west)
    assert (snapshot.region, layer.id) == ("us-west-2", LAYER)
    assert [one["SnapshotId"] for one in west.call("DescribeSnapshots")["Snapshots"]] == [snapshot.id]
    refused = api.refused("CopySnapshot", SourceRegion="us-west-2", SourceSnapshotId=SNAPSHOT)
    assert refused.code == "InvalidSnapshot.NotFound"


def test_from_plain_to_encrypted(api: Api) -> None:
    make_source(api)
    snapshot, layer = copy(api, Encrypted=True)
    [key] = api.store.all(Key)
    assert key.aliases == (EBS_ALIAS,)
    assert (snapshot.key_id, layer.key_id, layer.copy_of, layer.parent_id) == (key.id, key.id, LAYER, "")
    assert len(KEYS.unwrap(key, layer.data_key)) == 32
    named = make_key(api, aliases=("alias/mine",))
    snapshot, layer = copy(api, Encrypted=True, KmsKeyId="alias/mine")
    assert (snapshot.key_id, layer.copy_of) == (named.id, LAYER)


def test_encrypted_by_default(api: Api) -> None:
    make_source(api)
    settings = RegionSettings(
        id=f"{ACCOUNT}:us-east-1", account=ACCOUNT, region="us-east-1", created=api.now, encrypt_by_default=True
    )
    api.put(settings)
    snapshot, layer = copy(api)
    assert snapshot.encrypted and layer.copy_of == LAYER


def test_the_same_key_is_the_same_layer(api: Api) -> None:
    key = make_key(api)
    make_source(api, key)
    for more in ({}, {"Encrypted": True, "KmsKeyId": key.id}, {"KmsKeyId": key.arn}):
        snapshot, layer = copy(api, **more)
        assert (snapshot.key_id, layer.id) == (key.id, LAYER), more
    other = make_key(api, 2)
    snapshot, layer = copy(api, KmsKeyId=other.id)
    assert (snapshot.key_id, layer.copy_of, layer.key_id) == (other.id, LAYER, other.id)


def test_another_region_has_keys_of_its_own(api: Api) -> None:
    make_source(api, make_key(api))
    west = api.within("us-west-2")
    snapshot, layer = copy(west)
    made = api.get(Key, snapshot.key_id)
    assert (made.region, made.aliases, layer.copy_of) == ("us-west-2", (EBS_ALIAS,), LAYER)


def test_a_shared_one_gets_the_callers_key(api: Api) -> None:
    lent = make_key(api, policy=policy_for(api.account, OTHER_ACCOUNT))
    make_source(api, lent, shared_with=(OTHER_ACCOUNT,))
    snapshot, layer = copy(api.by())
    made = api.get(Key, snapshot.key_id)
    assert (snapshot.account, made.account, layer.copy_of, layer.account) == (
        OTHER_ACCOUNT,
        OTHER_ACCOUNT,
        LAYER,
        OTHER_ACCOUNT,
    )
    assert snapshot.tags == {} and not snapshot.shared_with


def test_time_based(api: Api) -> None:
    make_source(api)
    snapshot, _ = copy(api, CompletionDurationMinutes=30)
    [shown] = api.call("DescribeSnapshots", SnapshotIds=[snapshot.id])["Snapshots"]
    assert (shown["TransferType"], shown["CompletionDurationMinutes"]) == ("time-based", 30)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"Encrypted": False}, "InvalidParameterCombination"),
        ({"KmsKeyId": "alias/none", "Encrypted": True}, "InvalidKmsKeyId.NotFound"),
        ({"SourceRegion": "mars-1"}, "InvalidParameterValue"),
        ({"DestinationRegion": "us-west-2"}, "InvalidParameterValue"),
        ({"CompletionDurationMinutes": 20}, "InvalidParameterValue"),
        ({"CompletionDurationMinutes": 2895}, "InvalidParameterValue"),
        ({"SourceSnapshotId": "snap-0000000000000dead"}, "InvalidSnapshot.NotFound"),
        ({"DestinationAvailabilityZone": "us-east-1-lax-1a"}, "UnsupportedOperation"),
    ],
)
def test_refused(api: Api, more: dict[str, Any], code: str) -> None:
    make_source(api, make_key(api))
    given = {"SourceRegion": "us-east-1", "SourceSnapshotId": SNAPSHOT, **more}
    assert api.refused("CopySnapshot", **given).code == code


def test_not_of_what_is_not_there_yet(api: Api) -> None:
    make_source(api, state="pending")
    refused = api.refused("CopySnapshot", SourceRegion="us-east-1", SourceSnapshotId=SNAPSHOT)
    assert refused.code == "IncorrectState"

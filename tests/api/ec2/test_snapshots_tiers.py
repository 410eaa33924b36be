"""The archive tier, locks and fast restores."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.snapshot import FastRestore, Snapshot

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api
from .test_snapshots import SNAPSHOT, VOLUME, code_of, ids_of, keep

DAY_S = 86400.0

# --- the archive ----------------------------------------------------------------------------------------------------


def tier(api: Api) -> dict[str, Any]:
    [shown] = api.call("DescribeSnapshotTierStatus")["SnapshotTierStatuses"]
    found: dict[str, Any] = shown
    return found


def archive(api: Api) -> None:
    answer = api.call("ModifySnapshotTier", SnapshotId=SNAPSHOT, StorageTier="archive")
    assert answer == {"SnapshotId": SNAPSHOT, "TieringStartTime": api.now}


def test_archive_and_back_for_good(api: Api) -> None:
    fast = FastRestore(zone="us-east-1a", account=ACCOUNT, since=api.now)
    keep(api, shared_with=(OTHER_ACCOUNT,), public=True, fast_restores=(fast,))
    assert tier(api) == {
        "SnapshotId": SNAPSHOT,
        "VolumeId": VOLUME,
        "Status": "completed",
        "OwnerId": ACCOUNT,
        "Tags": [],
        "StorageTier": "standard",
    }
    archived = api.advance(60)
    archive(api)
    assert tier(api) == {
        "SnapshotId": SNAPSHOT,
        "VolumeId": VOLUME,
        "Status": "completed",
        "OwnerId": ACCOUNT,
        "Tags": [],
        "StorageTier": "archive",
        "LastTieringStartTime": archived,
        "LastTieringProgress": 100,
        "LastTieringOperationStatus": "archival-completed",
        "ArchivalCompleteTime": archived,
    }
    assert code_of(api) == "IncorrectState"
    assert ids_of(api, Filters=[{"Name": "storage-tier", "Values": ["archive"]}]) == {SNAPSHOT}
    row = api.get(Snapshot, SNAPSHOT)
    assert not row.shared_with and not row.public and not row.fast_restores
    api.advance(60)
    answer = api.call("RestoreSnapshotTier", SnapshotId=SNAPSHOT, PermanentRestore=True)
    assert answer == {"SnapshotId": SNAPSHOT, "RestoreStartTime": api.now, "IsPermanentRestore": True}
    assert tier(api)["LastTieringOperationStatus"] == "permanent-restore-completed"
    assert (tier(api)["StorageTier"], tier(api)["ArchivalCompleteTime"]) == ("standard", archived)
    assert code_of(api) == ""


def test_restored_for_some_days(api: Api) -> None:
    keep(api)
    archive(api)
    answer = api.call("RestoreSnapshotTier", SnapshotId=SNAPSHOT, TemporaryRestoreDays=3)
    assert answer == {
        "SnapshotId": SNAPSHOT,
        "RestoreStartTime": api.now,
        "RestoreDuration": 3,
        "IsPermanentRestore": False,
    }
    over = api.now + timedelta(days=3)
    assert tier(api)["LastTieringOperationStatus"] == "temporary-restore-completed"
    assert tier(api)["RestoreExpiryTime"] == over
    [shown] = api.call("DescribeSnapshots")["Snapshots"]
    assert (shown["RestoreExpiryTime"], shown["StorageTier"], code_of(api)) == (over, "standard", "")
    api.advance(3 * DAY_S)
    assert tier(api)["LastTieringOperationStatus"] == "archival-completed"
    assert code_of(api) == "IncorrectState"
    api.call("RestoreSnapshotTier", SnapshotId=SNAPSHOT, TemporaryRestoreDays=1)
    api.call("RestoreSnapshotTier", SnapshotId=SNAPSHOT, TemporaryRestoreDays=9)
    assert tier(api)["RestoreExpiryTime"] == api.now + timedelta(days=9)


def test_tier_filters(api: Api) -> None:
    keep(api)
    keep(api, "snap-00000000000000002", volume_id="")
    archive(api)
    for name, value in (
        ("snapshot-id", SNAPSHOT),
        ("volume-id", VOLUME),
        ("last-tiering-operation", "archival-completed"),
    ):
        found = api.call("DescribeSnapshotTierStatus", Filters=[{"Name": name, "Values": [value]}])
        assert [one["SnapshotId"] for one in found["SnapshotTierStatuses"]] == [SNAPSHOT], name


@pytest.mark.parametrize("state", ["available", "disabled"])
def test_an_image_is_disabled_first(api: Api, state: str) -> None:
    keep(api)
    image = Image(
        id="ami-00000000000000001",
        account=ACCOUNT,
        region=api.region,
        created=api.now,
        name="web",
        state=state,
        block_devices=(BlockDevice(device="/dev/xvda", snapshot_id=SNAPSHOT, size_gib=8),),
    )
    api.put(image)
    if state == "disabled":
        archive(api)
    else:
        refused = api.refused("ModifySnapshotTier", SnapshotId=SNAPSHOT, StorageTier="archive")
        assert refused.code == "InvalidSnapshot.InUse"


def test_tiers_refuse(api: Api) -> None:
    keep(api, state="pending")
    about = {"SnapshotId": SNAPSHOT}
    assert api.refused("ModifySnapshotTier", **about, StorageTier="archive").code == "IncorrectState"
    assert api.refused("ModifySnapshotTier", **about).code == "MissingParameter"
    assert api.refused("ModifySnapshotTier", **about, StorageTier="standard").code == "InvalidParameterValue"
    api.change(api.get(Snapshot, SNAPSHOT), state="completed")
    restore = "RestoreSnapshotTier"
    assert api.refused(restore, **about, PermanentRestore=True).code == "IncorrectState"
    archive(api)
    assert api.refused("ModifySnapshotTier", **about, StorageTier="archive").code == "IncorrectState"
    assert api.refused(restore, **about).code == "MissingParameter"
    assert api.refused(restore, **about, TemporaryRestoreDays=0).code == "InvalidParameterValue"
    assert api.refused(restore, **about, TemporaryRestoreDays=181).code == "InvalidParameterValue"
    both = {"TemporaryRestoreDays": 1, "PermanentRestore": True}
    assert api.refused(restore, **about, **both).code == "InvalidParameterCombination"


# --- locks ----------------------------------------------------------------------------------------------------------


def lock(api: Api, **given: Any) -> dict[str, Any]:
    return api.call("LockSnapshot", SnapshotId=SNAPSHOT, **given)


def lock_refused(api: Api, **given: Any) -> str:
    return api.refused("LockSnapshot", SnapshotId=SNAPSHOT, **given).code


def locked(api: Api, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.call("DescribeLockedSnapshots", **params)["Snapshots"]
    return found


def test_governance(api: Api) -> None:
    keep(api)
    shown = lock(api, LockMode="governance", LockDuration=2)
    assert shown == {
        "SnapshotId": SNAPSHOT,
        "LockState": "governance",
        "LockDuration": 2,
        "LockCreatedOn": api.now,
        "LockDurationStartTime": api.now,
        "LockExpiresOn": api.now + timedelta(days=2),
    }
    assert locked(api) == [{"OwnerId": ACCOUNT, **shown}]
    assert api.refused("DeleteSnapshot", SnapshotId=SNAPSHOT).code == "SnapshotLocked"
    lock(api, LockMode="governance", LockDuration=1)
    assert api.call("UnlockSnapshot", SnapshotId=SNAPSHOT) == {"SnapshotId": SNAPSHOT}
    assert locked(api) == []
    assert api.refused("UnlockSnapshot", SnapshotId=SNAPSHOT).code == "SnapshotNotLocked"
    api.call("DeleteSnapshot", SnapshotId=SNAPSHOT)


def test_compliance_after_its_cooling_off(api: Api) -> None:
    keep(api)
    shown = lock(api, LockMode="compliance", LockDuration=10, CoolOffPeriod=4)
    assert (shown["LockState"], shown["CoolOffPeriod"]) == ("compliance-cooloff", 4)
    assert shown["CoolOffPeriodExpiresOn"] == api.now + timedelta(hours=4)
    lock(api, LockMode="compliance", LockDuration=5, CoolOffPeriod=4)
    api.advance(4 * 3600)
    assert locked(api)[0]["LockState"] == "compliance"
    assert api.refused("UnlockSnapshot", SnapshotId=SNAPSHOT).code == "SnapshotLocked"
    assert lock_refused(api, LockMode="governance", LockDuration=50) == "SnapshotLocked"
    assert lock_refused(api, LockMode="compliance", LockDuration=1) == "SnapshotLocked"
    assert lock_refused(api, LockMode="compliance", LockDuration=9, CoolOffPeriod=1) == "SnapshotLocked"
    lock(api, LockMode="compliance", LockDuration=6)
    api.advance(6 * DAY_S)
    by_state = [{"Name": "lock-state", "Values": ["expired"]}]
    assert [one["LockState"] for one in locked(api, Filters=by_state)] == ["expired"]
    lock(api, LockMode="governance", LockDuration=1)


def test_until_a_date(api: Api) -> None:
    keep(api, state="pending")
    until = api.now + timedelta(days=2, hours=1)
    shown = lock(api, LockMode="governance", ExpirationDate=until)
    assert (shown["LockExpiresOn"], shown["LockDuration"]) == (until, 3)
    assert [one["SnapshotId"] for one in locked(api, SnapshotIds=[SNAPSHOT])] == [SNAPSHOT]


def test_locks_refuse(api: Api) -> None:
    keep(api)
    later = api.now + timedelta(days=1)
    assert lock_refused(api, LockMode="iron", LockDuration=1) == "InvalidParameterValue"
    assert lock_refused(api, LockMode="governance") == "MissingParameter"
    assert lock_refused(api, LockMode="governance", LockDuration=36501) == "InvalidParameterValue"
    both = {"LockDuration": 1, "ExpirationDate": later}
    assert lock_refused(api, LockMode="governance", **both) == "InvalidParameterCombination"
    assert lock_refused(api, LockMode="governance", ExpirationDate=api.now) == "InvalidParameterValue"
    assert lock_refused(api, LockMode="governance", LockDuration=1, CoolOffPeriod=1) == "InvalidParameterCombination"
    assert lock_refused(api, LockMode="compliance", LockDuration=1, CoolOffPeriod=73) == "InvalidParameterValue"
    api.change(api.get(Snapshot, SNAPSHOT), state="error")
    assert lock_refused(api, LockMode="governance", LockDuration=1) == "IncorrectState"
    assert api.by().refused("UnlockSnapshot", SnapshotId=SNAPSHOT).code == "InvalidSnapshot.NotFound"


# --- fast restores --------------------------------------------------------------------------------------------------


def test_fast_restores(api: Api) -> None:
    keep(api, shared_with=(OTHER_ACCOUNT,))
    zones = ["us-east-1a", "us-east-1b"]
    absent = "snap-0000000000000dead"
    answer = api.call("EnableFastSnapshotRestores", SourceSnapshotIds=[SNAPSHOT, absent], AvailabilityZones=zones)
    one = {
        "SnapshotId": SNAPSHOT,
        "AvailabilityZone": "us-east-1a",
        "AvailabilityZoneId": "use1-az1",
        "State": "enabled",
        "StateTransitionReason": "Client.UserInitiated - Lifecycle state transition",
        "OwnerId": ACCOUNT,
        "EnablingTime": api.now,
        "OptimizingTime": api.now,
        "EnabledTime": api.now,
    }
    assert answer["Successful"][0] == one
    assert [each["AvailabilityZone"] for each in answer["Successful"]] == zones
    [failed] = answer["Unsuccessful"]
    assert failed["SnapshotId"] == absent
    assert {each["Error"]["Code"] for each in failed["FastSnapshotRestoreStateErrors"]} == {"InvalidSnapshot.NotFound"}

    other = api.by()
    other.call("EnableFastSnapshotRestores", SourceSnapshotIds=[SNAPSHOT], AvailabilityZoneIds=["use1-az1"])
    assert [one["OwnerId"] for one in shown(other)] == [OTHER_ACCOUNT]
    assert shown(api)[0] == one
    by_zone = [{"Name": "availability-zone", "Values": ["us-east-1b"]}]
    assert [each["AvailabilityZone"] for each in shown(api, Filters=by_zone)] == ["us-east-1b"]
    assert len(shown(api, Filters=[{"Name": "state", "Values": ["enabled"]}])) == 2

    answer = api.call(
        "DisableFastSnapshotRestores",
        SourceSnapshotIds=[SNAPSHOT],
        AvailabilityZones=["us-east-1a", "us-east-1c"],
    )
    [gone] = answer["Successful"]
    assert (gone["AvailabilityZone"], gone["State"]) == ("us-east-1a", "disabled")
    [failed] = answer["Unsuccessful"]
    assert [each["AvailabilityZone"] for each in failed["FastSnapshotRestoreStateErrors"]] == ["us-east-1c"]
    assert [each["AvailabilityZone"] for each in shown(api)] == ["us-east-1b"]
    assert len(shown(other)) == 1


def shown(api: Api, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.call("DescribeFastSnapshotRestores", **params)["FastSnapshotRestores"]
    return found


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "MissingParameter"),
        ({"AvailabilityZones": ["us-east-1z"]}, "InvalidParameterValue"),
        ({"AvailabilityZoneIds": ["use1-az9"]}, "InvalidParameterValue"),
        ({"AvailabilityZones": ["us-east-1a"], "AvailabilityZoneIds": ["use1-az1"]}, "InvalidParameterCombination"),
    ],
)
def test_fast_restores_refuse(api: Api, given: dict[str, Any], code: str) -> None:
    keep(api)
    for action in ("EnableFastSnapshotRestores", "DisableFastSnapshotRestores"):
        assert api.refused(action, SourceSnapshotIds=[SNAPSHOT], **given).code == code

"""ModifyVolume and DescribeVolumesModifications."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.model.lifecycle import State
from orchestrator.model.volume import Volume

from .conftest import Api


def make(api: Api, **params: Any) -> Volume:
    given = {"AvailabilityZone": "us-east-1a", "Size": 10, "VolumeType": "gp3", **params}
    made = api.call("CreateVolume", **given)
    return api.change(api.get(Volume, made["VolumeId"]), state="available")


def modify(api: Api, volume: Volume, **params: Any) -> dict[str, Any]:
    answer: dict[str, Any] = api.call("ModifyVolume", VolumeId=volume.id, **params)["VolumeModification"]
    return answer


def settle(api: Api, volume: Volume, state: str = "completed") -> Volume:
    """As a reconciler would write it."""
    found = api.get(Volume, volume.id)
    assert found.modification is not None
    ended = replace(found.modification, state=state, progress_percent=100, ended_at=api.now, message="it broke")
    return api.change(found, modification=ended)


def test_larger_and_faster(api: Api) -> None:
    volume = make(api)
    started = api.advance(60)
    shown = modify(api, volume, Size=20, Iops=6000, Throughput=500)
    assert shown == {
        "VolumeId": volume.id,
        "ModificationState": "modifying",
        "Progress": 0,
        "StartTime": started,
        "OriginalSize": 10,
        "OriginalVolumeType": "gp3",
        "OriginalIops": 3000,
        "OriginalThroughput": 125,
        "OriginalMultiAttachEnabled": False,
        "TargetSize": 20,
        "TargetVolumeType": "gp3",
        "TargetIops": 6000,
        "TargetThroughput": 500,
        "TargetMultiAttachEnabled": False,
    }
    changed = api.get(Volume, volume.id)
    assert (changed.size_gib, changed.iops, changed.throughput_mib_s, changed.state) == (20, 6000, 500, "available")
    assert ("volume", volume.id) in {(kind, name) for kind, name, _ in api.store.pending_wakes()}


def test_of_a_volume_in_use_wakes_its_instance(api: Api) -> None:
    (instance_id,) = api.launch()
    (root,) = api.store.all(Volume, instance_id=instance_id)
    for kind, name, _ in api.store.pending_wakes():
        api.store.wake_done(kind, name, api.store.wake_serial(kind, name))
    modify(api, root, Size=30)
    assert {(kind, name) for kind, name, _ in api.store.pending_wakes()} == {
        ("volume", root.id),
        ("instance", instance_id),
    }
    assert api.get(Volume, root.id).state == "in-use"
    settle(api, root)
    refused = api.refused("ModifyVolume", VolumeId=root.id, VolumeType="st1", Size=200)
    assert (refused.code, "root" in refused.message) == ("InvalidParameterValue", True)
    api.settle(instance_id, State.STOPPED)
    modify(api, root, VolumeType="gp2")


@pytest.mark.parametrize(
    ("before", "asked", "after"),
    [
        ({}, {"VolumeType": "gp2"}, ("gp2", 100, 0)),
        ({"VolumeType": "gp2"}, {"VolumeType": "gp3"}, ("gp3", 3000, 125)),
        ({"VolumeType": "gp2"}, {"Size": 1000}, ("gp2", 3000, 0)),
        ({"Iops": 4000, "Throughput": 300}, {"Size": 11}, ("gp3", 4000, 300)),
        ({"VolumeType": "io1", "Iops": 200}, {"Size": 11}, ("io1", 200, 0)),
        ({"VolumeType": "io1", "Iops": 200}, {"VolumeType": "io2"}, ("io2", 3000, 0)),
        ({"Size": 200}, {"VolumeType": "sc1"}, ("sc1", 0, 0)),
        ({"VolumeType": "standard"}, {"VolumeType": "gp3"}, ("gp3", 3000, 125)),
    ],
)
def test_what_is_not_said_stays_or_is_the_types(
    api: Api, before: dict[str, Any], asked: dict[str, Any], after: tuple[str, int, int]
) -> None:
    volume = make(api, **before)
    modify(api, volume, **asked)
    changed = api.get(Volume, volume.id)
    assert (changed.volume_type, changed.iops, changed.throughput_mib_s) == after


def test_nothing_changes(api: Api) -> None:
    volume = make(api)
    for kind, name, _ in api.store.pending_wakes():
        api.store.wake_done(kind, name, api.store.wake_serial(kind, name))
    shown = modify(api, volume, Size=10)
    assert (shown["ModificationState"], shown["Progress"], shown["EndTime"]) == ("completed", 100, api.now)
    assert api.store.pending_wakes() == []


def test_one_at_a_time(api: Api) -> None:
    volume = make(api)
    modify(api, volume, Size=20)
    for state in ("modifying", "optimizing"):
        settle(api, volume, state)
        assert api.refused("ModifyVolume", VolumeId=volume.id, Size=30).code == "IncorrectModificationState"
    for size_gib, state in ((30, "completed"), (40, "failed")):
        settle(api, volume, state)
        assert modify(api, volume, Size=size_gib)["TargetSize"] == size_gib


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "InvalidParameterCombination"),
        ({"Size": 9}, "InvalidParameterValue"),
        ({"Size": 70000}, "InvalidParameterValue"),
        ({"VolumeType": "gp9"}, "InvalidParameterValue"),
        ({"VolumeType": "st1"}, "InvalidParameterValue"),
        ({"VolumeType": "io1"}, "InvalidParameterCombination"),  # 3,000 IOPS are too many for 10 GiB
        ({"Iops": 2999}, "InvalidParameterValue"),
        ({"Iops": 5001}, "InvalidParameterCombination"),
        ({"Throughput": 2001}, "InvalidParameterValue"),
        ({"VolumeType": "gp2", "Throughput": 125}, "InvalidParameterCombination"),
        ({"VolumeType": "gp2", "Iops": 100}, "InvalidParameterCombination"),
        ({"VolumeType": "io2", "Iops": 100, "MultiAttachEnabled": True}, "Unsupported"),
        ({"MultiAttachEnabled": True}, "InvalidParameterCombination"),
    ],
)
def test_modifications_that_cannot_be(api: Api, params: dict[str, Any], code: str) -> None:
    volume = make(api)
    refused = api.refused("ModifyVolume", VolumeId=volume.id, **params)
    assert refused.code == code, refused


def test_volumes_that_cannot_be_modified(api: Api) -> None:
    volume = make(api)
    for state in ("creating", "deleting", "error"):
        api.change(volume, state=state)
        assert api.refused("ModifyVolume", VolumeId=volume.id, Size=20).code == "IncorrectState"
    assert api.refused("ModifyVolume", VolumeId="vol-00000000000000000", Size=20).code == "InvalidVolume.NotFound"


# --- shown ------------------------------------------------------------------------------------------------------------


def described(api: Api, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.call("DescribeVolumesModifications", **params)["VolumesModifications"]
    return found


def test_described(api: Api) -> None:
    volume, never = make(api), make(api)
    assert described(api) == []
    modify(api, volume, Size=20)
    api.advance(5)
    settle(api, volume, "failed")
    (shown,) = described(api, VolumeIds=[volume.id])
    assert (shown["ModificationState"], shown["StatusMessage"], shown["Progress"]) == ("failed", "it broke", 100)
    assert shown["EndTime"] - shown["StartTime"] == timedelta(seconds=5)
    refused = api.refused("DescribeVolumesModifications", VolumeIds=[volume.id, never.id])
    assert (refused.code, never.id in refused.message) == ("InvalidVolumeModification.NotFound", True)
    refused = api.refused("DescribeVolumesModifications", VolumeIds=["vol-00000000000000000"])
    assert refused.code == "InvalidVolume.NotFound"
    assert described(api.by()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("modification-state", "modifying"),
        ("original-iops", "3000"),
        ("original-size", "10"),
        ("original-volume-type", "gp3"),
        ("originalMultiAttachEnabled", "false"),
        ("start-time", "2026-01-02T03:04:05.000Z"),
        ("target-iops", "6000"),
        ("target-size", "20"),
        ("target-volume-type", "gp?"),
        ("targetMultiAttachEnabled", "false"),
        ("volume-id", "vol-*"),
    ],
)
def test_filters(api: Api, name: str, value: str) -> None:
    modify(api, make(api), Size=20, Iops=6000)
    make(api)
    assert len(described(api, Filters=[{"Name": name, "Values": [value]}])) == 1
    assert described(api, Filters=[{"Name": name, "Values": ["no" + value]}]) == []


def test_pages(api: Api) -> None:
    wanted = set()
    for _ in range(7):
        volume = make(api)
        modify(api, volume, Size=20)
        wanted.add(volume.id)
    first = api.call("DescribeVolumesModifications", MaxResults=5)
    second = api.call("DescribeVolumesModifications", MaxResults=5, NextToken=first["NextToken"])
    seen = [one["VolumeId"] for page in (first, second) for one in page["VolumesModifications"]]
    assert (len(seen), set(seen), "NextToken" in second) == (7, wanted, False)

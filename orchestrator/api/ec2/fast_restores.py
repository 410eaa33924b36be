"""Fast snapshot restore: a volume of any snapshot is there at once, so enabling it only has to be remembered.

Whoever may use a snapshot can enable it, zone by zone, for itself. Source: "Amazon EBS fast snapshot restore" in the
EBS user guide.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from orchestrator.api.ec2.snapshots import sees_snapshot, usable_snapshot
from orchestrator.api.operation import Answer, Call, operation, show_page
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter
from orchestrator.model.filters import FilterTable, compile_filters
from orchestrator.model.snapshot import FastRestore, Snapshot
from orchestrator.model.zone import zone_id

ENABLED_BECAUSE: Final = "Client.UserInitiated - Lifecycle state transition"
LARGEST_GIB: Final = 16384


class Enabled(NamedTuple):
    snapshot: Snapshot
    restore: FastRestore


@operation("EnableFastSnapshotRestores", writes=True)
def enable_fast_snapshot_restores(
    call: Call,
    *,
    source_snapshot_ids: list[str],
    availability_zones: list[str] | None = None,
    availability_zone_ids: list[str] | None = None,
) -> Answer:
    zones = _zones(call, availability_zones, availability_zone_ids)
    successful: list[Answer] = []
    unsuccessful: list[Answer] = []
    for snapshot_id in dict.fromkeys(source_snapshot_ids):
        try:
            snapshot = usable_snapshot(call, snapshot_id)
            if snapshot.size_gib > LARGEST_GIB:
                raise invalid_parameter("SourceSnapshotId", snapshot_id, f"a snapshot of at most {LARGEST_GIB} GiB")
        except EC2Error as error:
            unsuccessful.append(_failed(snapshot_id, zones, error))
            continue
        have = {restore.zone for restore in snapshot.fast_restores if restore.account == call.account}
        added = tuple(
            FastRestore(zone=zone, account=call.account, since=call.now) for zone in zones if zone not in have
        )
        snapshot = call.tx.put(replace(snapshot, fast_restores=(*snapshot.fast_restores, *added)))
        successful += [_show(one) for one in _enabled(call, [snapshot]) if one.restore.zone in zones]
    return {"Successful": successful, "Unsuccessful": unsuccessful}


@operation("DisableFastSnapshotRestores", writes=True)
def disable_fast_snapshot_restores(
    call: Call,
    *,
    source_snapshot_ids: list[str],
    availability_zones: list[str] | None = None,
    availability_zone_ids: list[str] | None = None,
) -> Answer:
    zones = _zones(call, availability_zones, availability_zone_ids)
    successful: list[Answer] = []
    unsuccessful: list[Answer] = []
    for snapshot_id in dict.fromkeys(source_snapshot_ids):
        snapshot = call.tx.get(Snapshot, snapshot_id)
        enabled = {one.restore.zone: one for one in _enabled(call, [snapshot] if snapshot else [])}
        if absent := [zone for zone in zones if zone not in enabled]:
            error = EC2Error("InvalidFastSnapshotRestore.NotFound", "Fast snapshot restore is not enabled there")
            unsuccessful.append(_failed(snapshot_id, absent, error))
        gone = [enabled[zone].restore for zone in zones if zone in enabled]
        if snapshot is not None and gone:
            call.tx.put(replace(snapshot, fast_restores=tuple(x for x in snapshot.fast_restores if x not in gone)))
            successful += [
                {
                    **_show(Enabled(snapshot, restore)),
                    "State": "disabled",
                    "DisablingTime": call.now,
                    "DisabledTime": call.now,
                }
                for restore in gone
            ]
    return {"Successful": successful, "Unsuccessful": unsuccessful}


def _zones(call: Call, names: list[str] | None, zone_ids: list[str] | None) -> list[str]:
    if names and zone_ids:
        raise EC2Error("InvalidParameterCombination", "AvailabilityZones cannot be used with AvailabilityZoneIds")
    if not names and not zone_ids:
        raise missing_parameter("AvailabilityZones or AvailabilityZoneIds")
    known = {zone_id(zone): zone for zone in call.zones}
    for given in zone_ids or ():
        if given not in known:
            raise invalid_parameter("AvailabilityZoneId", given, f"one of {', '.join(known)}")
    for given in names or ():
        if given not in call.zones:
            raise invalid_parameter("AvailabilityZone", given, f"one of {', '.join(call.zones)}")
    return list(dict.fromkeys(names or [known[given] for given in zone_ids or ()]))


def _failed(snapshot_id: str, zones: list[str], error: EC2Error) -> Answer:
    return {
        "SnapshotId": snapshot_id,
        "FastSnapshotRestoreStateErrors": [
            {
                "AvailabilityZone": zone,
                "AvailabilityZoneId": zone_id(zone),
                "Error": {"Code": error.code, "Message": error.message},
            }
            for zone in zones
        ],
    }


def _enabled(call: Call, snapshots: list[Snapshot]) -> list[Enabled]:
    """What the caller has enabled, of snapshots that it still sees."""
    return [
        Enabled(snapshot, restore)
        for snapshot in snapshots
        for restore in snapshot.fast_restores
        if restore.account == call.account and sees_snapshot(call, snapshot)
    ]


@operation("DescribeFastSnapshotRestores", listing=True)
def describe_fast_snapshot_restores(call: Call) -> Answer:
    found = _enabled(call, [snapshot for snapshot in call.db.all(Snapshot) if snapshot.fast_restores])
    if filters := call.params.get("Filters"):
        test = compile_filters(filters, RESTORE_FILTERS, None)
        found = [one for one in found if test(one)]
    return show_page(
        call,
        "FastSnapshotRestores",
        found,
        _show,
        smallest=1,
        largest=200,
        key=lambda one: f"{one.snapshot.id}/{one.restore.zone}",
    )


RESTORE_FILTERS: Final[FilterTable] = {
    "availability-zone": lambda one: one.restore.zone,
    "availability-zone-id": lambda one: zone_id(one.restore.zone),
    "owner-id": lambda one: one.restore.account,
    "snapshot-id": lambda one: one.snapshot.id,
    "state": lambda one: "enabled",
}


def _show(one: Enabled) -> Answer:
    since = one.restore.since
    return {
        "SnapshotId": one.snapshot.id,
        "AvailabilityZone": one.restore.zone,
        "AvailabilityZoneId": zone_id(one.restore.zone),
        "State": "enabled",
        "StateTransitionReason": ENABLED_BECAUSE,
        "OwnerId": one.restore.account,
        "EnablingTime": since,
        "OptimizingTime": since,
        "EnabledTime": since,
    }

"""New volumes, of CreateVolume and of launches: what each is to be, checked, and then its rows.

    request, image ──► plan_volume() ──► VolumePlan ──► new_volume() ──► Volume + Layer

A launch plans once, and makes one for each instance. The reconciler makes the layer's file; until then the volume is
`creating`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from orchestrator.api.ec2.encryption import check_source, choose_key, new_layer
from orchestrator.api.operation import Call
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter
from orchestrator.model.kms import Key
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
from orchestrator.model.volume_type import Performance, performance

DEFAULT_TYPE: Final = "gp2"  # EC2's own
INITIALIZATION_RATES_MIB_S: Final = range(100, 301)


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumePlan:
    snapshot: Snapshot | None
    size_gib: int
    volume_type: str
    performance: Performance
    key: Key | None
    initialization_rate_mib_s: int


def plan_volume(
    call: Call,
    *,
    snapshot: Snapshot | None,
    size_gib: int | None,
    volume_type: str = DEFAULT_TYPE,
    iops: int | None = None,
    throughput_mib_s: int | None = None,
    encrypted: bool | None = None,
    key_name: str | None = None,
    source_key_id: str = "",
    initialization_rate_mib_s: int | None = None,
    too_small: str = "InvalidParameterValue",
) -> VolumePlan:
    """`source_key_id` encrypts what it is made of, if not the snapshot's own key does. `too_small` is the code of the
    error when the snapshot does not fit."""
    if size_gib is None:
        if snapshot is None:
            raise missing_parameter("size or snapshotId")
        size_gib = snapshot.size_gib
    if snapshot is not None and size_gib < snapshot.size_gib:
        raise EC2Error(
            too_small,
            f"Volume of size {size_gib}GB is smaller than snapshot '{snapshot.id}', "
            f"expect size>= {snapshot.size_gib}GB",
        )
    if initialization_rate_mib_s is not None:
        if snapshot is None:
            raise EC2Error(
                "InvalidParameterCombination", "VolumeInitializationRate is for volumes that are made of a snapshot"
            )
        if initialization_rate_mib_s not in INITIALIZATION_RATES_MIB_S:
            raise invalid_parameter("VolumeInitializationRate", initialization_rate_mib_s, "100 to 300 MiB/s")
    key = choose_key(
        call,
        encrypted=encrypted,
        named=key_name,
        source_key_id=source_key_id or (snapshot.key_id if snapshot else ""),
    )
    if snapshot is not None:
        check_source(call, snapshot, key)
    return VolumePlan(
        snapshot=snapshot,
        size_gib=size_gib,
        volume_type=volume_type,
        performance=performance(volume_type, size_gib, iops or 0, throughput_mib_s or 0),
        key=key,
        initialization_rate_mib_s=initialization_rate_mib_s or 0,
    )


def new_volume(call: Call, plan: VolumePlan, zone: str, *, tags: dict[str, str], **fields: Any) -> Volume:
    """Written with its layer. Who makes the file is woken by the caller: the volume, or the instance that it is for."""
    snapshot = plan.snapshot
    layer = new_layer(call, size_gib=plan.size_gib, source=snapshot, key=plan.key)
    return call.tx.put(
        Volume(
            id=ids.mint("vol"),
            account=call.account,
            region=call.region,
            created=call.now,
            tags=tags,
            zone=zone,
            size_gib=plan.size_gib,
            volume_type=plan.volume_type,
            iops=plan.performance.iops,
            throughput_mib_s=plan.performance.throughput_mib_s,
            key_id=plan.key.id if plan.key else "",
            snapshot_id=snapshot.id if snapshot else "",
            layer_id=layer.id,
            fast_restored=bool(snapshot and zone in snapshot.fast_restore_zones),
            initialization_rate_mib_s=plan.initialization_rate_mib_s,
            **fields,
        )
    )

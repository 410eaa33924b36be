"""Volume types: sizes and speeds that each allows, and those it has when nobody chooses.

    gp2       3 IOPS a GiB, from 100 to 16,000
    gp3       3,000 IOPS and 125 MiB/s; more of both can be bought, 500 IOPS a GiB and 4 IOPS a MiB/s at most
    io1 io2   IOPS as provisioned, which the call must say
    st1 sc1   throughput by size; cannot hold a root device
    standard  magnetic

Source: "CreateVolume" and "EbsBlockDevice" in the EC2 API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of

GP3_IOPS: Final = 3000
GP3_THROUGHPUT_MIB_S: Final = 125
GP3_MAX_THROUGHPUT_MIB_S: Final = 2000
GP3_IOPS_PER_MIB_S: Final = 4


@dataclass(frozen=True, slots=True)
class VolumeType:
    name: str
    min_size_gib: int
    max_size_gib: int
    min_iops: int = 0  # 0: IOPS cannot be chosen
    max_iops: int = 0
    iops_per_gib: int = 0
    bootable: bool = True


VOLUME_TYPES: Final[Mapping[str, VolumeType]] = {
    kind.name: kind
    for kind in (
        VolumeType("standard", 1, 1024),
        VolumeType("io1", 4, 16384, 100, 64000, 50),
        VolumeType("io2", 4, 65536, 100, 256000, 1000),
        VolumeType("gp2", 1, 16384),
        VolumeType("sc1", 125, 16384, bootable=False),
        VolumeType("st1", 125, 16384, bootable=False),
        VolumeType("gp3", 1, 65536, GP3_IOPS, 80000, 500),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    iops: int
    throughput_mib_s: int


def performance(volume_type: str, size_gib: int, iops: int = 0, throughput_mib_s: int = 0) -> Performance:
    """What a volume of this size and type does, or EC2's error; 0 means that the caller did not choose."""
    kind = VOLUME_TYPES[one_of("VolumeType", volume_type, VOLUME_TYPES)]
    if not kind.min_size_gib <= size_gib <= kind.max_size_gib:
        raise invalid_parameter(
            "VolumeSize", size_gib, f"{kind.min_size_gib} to {kind.max_size_gib} GiB for a {volume_type} volume"
        )
    if throughput_mib_s and volume_type != "gp3":
        raise EC2Error(
            "InvalidParameterCombination", f"The parameter throughput is not supported for {volume_type} volumes"
        )
    if not kind.max_iops:
        if iops:
            raise EC2Error(
                "InvalidParameterCombination", f"The parameter iops is not supported for {volume_type} volumes"
            )
        return Performance(iops=_inherent_iops(volume_type, size_gib), throughput_mib_s=0)
    chosen = iops or (GP3_IOPS if volume_type == "gp3" else 0)
    if not chosen:
        raise missing_parameter(f"iops, as {volume_type} volumes need it")
    if not kind.min_iops <= chosen <= kind.max_iops:
        raise invalid_parameter("Iops", chosen, f"{kind.min_iops} to {kind.max_iops} for a {volume_type} volume")
    if chosen > kind.min_iops and chosen > size_gib * kind.iops_per_gib:
        raise EC2Error(
            "InvalidParameterCombination",
            f"Iops to volume size ratio of {chosen / size_gib:.0f} is too high; "
            f"the most for a {volume_type} volume is {kind.iops_per_gib}",
        )
    if volume_type != "gp3":
        return Performance(iops=chosen, throughput_mib_s=0)
    return Performance(iops=chosen, throughput_mib_s=_gp3_throughput(chosen, throughput_mib_s))


def _inherent_iops(volume_type: str, size_gib: int) -> int:
    return max(100, min(16000, 3 * size_gib)) if volume_type == "gp2" else 0


def _gp3_throughput(iops: int, asked_mib_s: int) -> int:
    chosen = asked_mib_s or GP3_THROUGHPUT_MIB_S
    if not GP3_THROUGHPUT_MIB_S <= chosen <= GP3_MAX_THROUGHPUT_MIB_S:
        raise invalid_parameter("Throughput", chosen, f"{GP3_THROUGHPUT_MIB_S} to {GP3_MAX_THROUGHPUT_MIB_S} MiB/s")
    if chosen * GP3_IOPS_PER_MIB_S > iops and chosen > GP3_THROUGHPUT_MIB_S:
        raise EC2Error(
            "InvalidParameterCombination",
            f"Throughput to iops ratio is too high: {chosen} MiB/s needs {chosen * GP3_IOPS_PER_MIB_S} iops",
        )
    return chosen


# --- what a volume's disk is held to ---

_MIB: Final = 1 << 20
_GP2_BURST_IOPS: Final = 3000
_GP2_CREDITS: Final = 5_400_000  # operations, in a full bucket


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Operations and bytes a second; more of either, `burst_...`, for `burst_s` in one go. An operation of more than
    `operation_bytes` counts as several. 0: no limit, or no burst."""

    iops: int = 0
    bytes_per_s: int = 0
    burst_iops: int = 0
    burst_bytes_per_s: int = 0
    burst_s: int = 0
    operation_bytes: int = 256 << 10


def limits(volume_type: str, size_gib: int, iops: int = 0, throughput_mib_s: int = 0) -> Speed:
    """How fast a volume's disk is. Source: "Amazon EBS volume types" in the EBS user guide."""
    match volume_type:
        case "gp2":
            throughput = (128 if size_gib <= 170 else 250) * _MIB
            sustained = max(100, min(16000, 3 * size_gib))
            if sustained >= _GP2_BURST_IOPS:
                return Speed(iops=sustained, bytes_per_s=throughput)
            burst_s = _GP2_CREDITS // (_GP2_BURST_IOPS - sustained)
            return Speed(iops=sustained, bytes_per_s=throughput, burst_iops=_GP2_BURST_IOPS, burst_s=burst_s)
        case "gp3":
            return Speed(iops=iops or GP3_IOPS, bytes_per_s=(throughput_mib_s or GP3_THROUGHPUT_MIB_S) * _MIB)
        case "io1":
            # 256 KiB an operation up to 500 MiB/s; above 32,000 IOPS 16 KiB each.
            return Speed(iops=iops, bytes_per_s=min(iops << 18, 500 * _MIB) if iops <= 32000 else iops << 14)
        case "io2":
            return Speed(iops=iops, bytes_per_s=min(iops << 18, 4000 * _MIB))
        case "st1":
            return _by_size(size_gib, sustained=40, most_sustained=500, burst=250, most=500)
        case "sc1":
            return _by_size(size_gib, sustained=12, most_sustained=192, burst=80, most=250)
        case _:
            # Magnetic: about 100 operations on average, and hundreds for a while.
            return Speed(iops=100, bytes_per_s=90 * _MIB, burst_iops=300, burst_s=60, operation_bytes=1 << 20)


def _by_size(size_gib: int, *, sustained: int, most_sustained: int, burst: int, most: int) -> Speed:
    """Throughputs in MiB/s for each TiB. A full bucket has as many credits as the volume has bytes."""
    slow = min(size_gib * sustained * _MIB // 1024, most_sustained * _MIB)
    fast = min(size_gib * burst * _MIB // 1024, most * _MIB)
    if fast <= slow:
        return Speed(bytes_per_s=slow, operation_bytes=1 << 20)
    burst_s = (size_gib << 30) // (fast - slow)
    return Speed(bytes_per_s=slow, burst_bytes_per_s=fast, burst_s=burst_s, operation_bytes=1 << 20)

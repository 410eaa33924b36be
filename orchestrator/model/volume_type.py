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

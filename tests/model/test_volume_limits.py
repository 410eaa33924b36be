"""How fast a volume's disk is, by EBS's tables."""

from __future__ import annotations

import pytest

from orchestrator.model.volume_type import Speed, limits

MIB = 1 << 20
SSD, HDD = 256 << 10, 1 << 20


@pytest.mark.parametrize(
    ("volume_type", "size_gib", "iops", "throughput", "expected"),
    [
        ("gp2", 8, 0, 0, Speed(iops=100, bytes_per_s=128 * MIB, burst_iops=3000, burst_s=1862)),
        ("gp2", 100, 0, 0, Speed(iops=300, bytes_per_s=128 * MIB, burst_iops=3000, burst_s=2000)),
        ("gp2", 500, 0, 0, Speed(iops=1500, bytes_per_s=250 * MIB, burst_iops=3000, burst_s=3600)),
        ("gp2", 1000, 0, 0, Speed(iops=3000, bytes_per_s=250 * MIB)),
        ("gp2", 16384, 0, 0, Speed(iops=16000, bytes_per_s=250 * MIB)),
        ("gp3", 8, 3000, 125, Speed(iops=3000, bytes_per_s=125 * MIB)),
        ("gp3", 100, 16000, 1000, Speed(iops=16000, bytes_per_s=1000 * MIB)),
        ("io1", 100, 1000, 0, Speed(iops=1000, bytes_per_s=250 * MIB)),
        ("io1", 1000, 32000, 0, Speed(iops=32000, bytes_per_s=500 * MIB)),
        ("io1", 2000, 64000, 0, Speed(iops=64000, bytes_per_s=1000 * MIB)),
        ("io2", 1000, 256000, 0, Speed(iops=256000, bytes_per_s=4000 * MIB)),
        (
            "st1",
            1024,
            0,
            0,
            Speed(bytes_per_s=40 * MIB, burst_bytes_per_s=250 * MIB, burst_s=4993, operation_bytes=HDD),
        ),
        ("st1", 16384, 0, 0, Speed(bytes_per_s=500 * MIB, operation_bytes=HDD)),
        (
            "sc1",
            1024,
            0,
            0,
            Speed(bytes_per_s=12 * MIB, burst_bytes_per_s=80 * MIB, burst_s=15420, operation_bytes=HDD),
        ),
        (
            "sc1",
            16384,
            0,
            0,
            Speed(bytes_per_s=192 * MIB, burst_bytes_per_s=250 * MIB, burst_s=289262, operation_bytes=HDD),
        ),
        ("standard", 10, 0, 0, Speed(iops=100, bytes_per_s=90 * MIB, burst_iops=300, burst_s=60, operation_bytes=HDD)),
    ],
)
def test_limits_of_each_type(volume_type: str, size_gib: int, iops: int, throughput: int, expected: Speed) -> None:
    assert limits(volume_type, size_gib, iops, throughput) == expected


def test_an_operation_of_an_ssd_is_256_kib() -> None:
    assert limits("gp3", 8).operation_bytes == SSD

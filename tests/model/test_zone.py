from __future__ import annotations

import pytest

from orchestrator.model.zone import zone_id


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        ("us-east-1a", "use1-az1"),
        ("us-west-2d", "usw2-az4"),
        ("eu-central-1b", "euc1-az2"),
        ("ap-southeast-2c", "apse2-az3"),
        ("ap-northeast-1a", "apne1-az1"),
        ("sa-east-1a", "sae1-az1"),
        ("us-gov-west-1a", "usgw1-az1"),
    ],
)
def test_a_zone_id_abbreviates_the_region(zone: str, expected: str) -> None:
    assert zone_id(zone) == expected

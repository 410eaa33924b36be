from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.errors import EC2Error
from orchestrator.model.volume_type import VOLUME_TYPES, performance


@pytest.mark.parametrize(
    ("given", "iops", "throughput"),
    [
        (("gp2", 8), 100, 0),
        (("gp2", 100), 300, 0),
        (("gp2", 16000), 16000, 0),
        (("gp3", 1), 3000, 125),
        (("gp3", 100, 4000, 1000), 4000, 1000),
        (("io1", 100, 5000), 5000, 0),
        (("standard", 8), 0, 0),
        (("st1", 125), 0, 0),
    ],
)
def test_what_a_volume_does(given, iops, throughput):
    found = performance(*given)
    assert (found.iops, found.throughput_mib_s) == (iops, throughput)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (("nvme", 8), "InvalidParameterValue"),
        (("st1", 8), "InvalidParameterValue"),
        (("standard", 2000), "InvalidParameterValue"),
        (("gp2", 8, 100), "InvalidParameterCombination"),
        (("gp2", 8, 0, 125), "InvalidParameterCombination"),
        (("io2", 8), "MissingParameter"),
        (("gp3", 8, 2999), "InvalidParameterValue"),
        (("gp3", 8, 4001), "InvalidParameterCombination"),
        (("io1", 10, 501), "InvalidParameterCombination"),
        (("gp3", 8, 0, 124), "InvalidParameterValue"),
        (("gp3", 8, 3000, 751), "InvalidParameterCombination"),
    ],
)
def test_what_cannot_be(given, code):
    with pytest.raises(EC2Error) as caught:
        performance(*given)
    assert caught.value.code == code


@given(st.sampled_from(sorted(VOLUME_TYPES)), st.integers(-10, 70000), st.integers(0, 300000), st.integers(0, 3000))
def test_what_is_granted_was_allowed(name, size_gib, iops, throughput_mib_s):
    kind = VOLUME_TYPES[name]
    try:
        found = performance(name, size_gib, iops, throughput_mib_s)
    except EC2Error:
        return
    assert kind.min_size_gib <= size_gib <= kind.max_size_gib
    assert found.iops == iops or not iops
    assert found.throughput_mib_s == throughput_mib_s or not throughput_mib_s
    assert found.iops <= max(kind.max_iops, 16000)

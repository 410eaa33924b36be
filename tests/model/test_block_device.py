"""Device names, and how many disks an instance can have."""

from __future__ import annotations

import pytest

from orchestrator.model import instance_type
from orchestrator.model.block_device import (
    MACHINE_DISKS,
    check_device,
    check_disk_count,
    ephemeral_number,
    mapped_disks,
    place,
)
from orchestrator.model.errors import EC2Error


@pytest.mark.parametrize("name", ["/dev/sdf", "sdf", "/dev/xvdf", "xvdf"])
def test_one_device_has_several_names(name: str) -> None:
    assert (check_device(name), place(name)) == (name, "f")


def test_a_partition_and_two_letters_are_devices_of_their_own() -> None:
    assert len({place(name) for name in ("/dev/sda", "/dev/sda1", "/dev/sda15", "/dev/xvdaa")}) == 4


@pytest.mark.parametrize(
    "name", ["", "/dev/sd", "/dev/sdaa", "/dev/sda0", "/dev/sda16", "/dev/xvda1", "/dev/sdf\n", "f"]
)
def test_names_that_no_device_has(name: str) -> None:
    with pytest.raises(EC2Error, match="not a valid EBS device name"):
        check_device(name)


def test_numbers_of_instance_store_disks() -> None:
    assert [ephemeral_number(f"ephemeral{number}") for number in (0, 9, 10, 23)] == [0, 9, 10, 23]
    for name in ("ephemeral", "ephemeral24", "ephemeral00", "ephemeral-1", "swap"):
        with pytest.raises(EC2Error, match="Invalid virtual name"):
            ephemeral_number(name)


@pytest.mark.parametrize(("kind", "count"), [("m1.small", 1), ("c3.large", 2), ("m5d.large", 0), ("t3.micro", 0)])
def test_only_disks_that_are_not_nvme_need_a_mapping(kind: str, count: int) -> None:
    assert mapped_disks(instance_type.get(kind)) == count


@pytest.mark.parametrize(
    ("kind", "interfaces", "mapped", "most"),
    [
        ("t3.micro", 1, 0, 27),
        ("t3.micro", 3, 0, 25),
        ("m7i.large", 3, 0, MACHINE_DISKS),
        ("m1.small", 2, 1, MACHINE_DISKS - 1),
        ("c3.large", 1, 0, MACHINE_DISKS),
        ("i3.16xlarge", 1, 0, MACHINE_DISKS - 8),
        ("d3en.12xlarge", 1, 0, 3),
    ],
)
def test_how_many_volumes(kind: str, interfaces: int, mapped: int, most: int) -> None:
    found = instance_type.get(kind)
    check_disk_count(found, volumes=most, interfaces=interfaces, mapped=mapped)
    with pytest.raises(EC2Error) as caught:
        check_disk_count(found, volumes=most + 1, interfaces=interfaces, mapped=mapped)
    assert caught.value.code == "AttachmentLimitExceeded"

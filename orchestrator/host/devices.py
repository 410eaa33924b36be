"""Interfaces and disks in the XML of a domain that libvirt prints: which are ours, where they sit, what is free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

from orchestrator.host import CapacityError, HostError
from orchestrator.host.xml import device_of

Address = tuple[int, int]  # bus and slot


def parse(domain: Any) -> ElementTree.Element:
    """The XML of a domain as it runs now, or as it would start."""
    return ElementTree.fromstring(domain.XMLDesc(0))  # noqa: S314  # as libvirt prints it


def name_of(device: ElementTree.Element) -> str:
    """The port or the serial number of a device of ours; empty for another."""
    name = device.find("alias")
    return device_of(name.get("name", "")) if name is not None else ""


def address_of(device: ElementTree.Element) -> Address:
    address = device.find("address")
    return (int(address.get("bus", ""), 16), int(address.get("slot", ""), 16)) if address is not None else (-1, -1)


def nics(tree: ElementTree.Element) -> dict[str, Address]:
    """Where each interface sits, by port, in the order of their numbers."""
    found = {name: address_of(nic) for nic in tree.iterfind("./devices/interface") if (name := name_of(nic))}
    return dict(sorted(found.items(), key=lambda nic: nic[1]))


def choose_number(
    machine: str,
    kind: str,
    device: str,
    wanted: int,
    present: Mapping[str, Address],
    *,
    most: int,
    address: Callable[[int], Address],
) -> int:
    """The number at which `device` is plugged in, `wanted` or, below 0, the first that is free: any but 0, which has a
    place that cannot be plugged. Raises HostError, and CapacityError when all are taken."""
    taken = {place: name for name, place in present.items()}
    free = [number for number in range(1, most) if address(number) not in taken]
    if not free:
        raise CapacityError(f"{machine} has {most - 1} {kind}s besides its first, so {device} finds no slot")
    if wanted < 0:
        return free[0]
    if not 1 <= wanted < most:
        raise HostError(
            f"{device} cannot be plugged in as {kind} {wanted}: 1 to {most - 1} are allowed", retryable=False
        )
    if wanted not in free:
        raise HostError(f"{device} cannot be {kind} {wanted} of {machine}: {taken[address(wanted)]} is")
    return wanted

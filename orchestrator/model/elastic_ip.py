"""Elastic IPs, and which public addresses an interface has.

An interface's auto-assigned public address stands in its own row. An Elastic IP is a row that names the interface and
the private address that it stands for; nothing is written on the interface. `public_addresses` puts both together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from orchestrator.model.resource import Resource, Rows
from orchestrator.model.vpc import NetworkInterface

AUTO_ASSIGNED = "amazon"  # who owns a public address that is no Elastic IP


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticIp(Resource):
    """`id` is the allocation's."""

    KIND: ClassVar[str] = "elastic-ip"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "public_ip", "interface_id", "has_name")

    public_ip: str
    interface_id: str = ""
    private_ip: str = ""  # of the interface
    association_id: str = ""
    ended_association_id: str = ""  # the last one that was ended: ending it again is no error
    pool: str = "amazon"
    domain_name: str = ""  # what its address resolves back to, where the owner chose a name

    @property
    def has_name(self) -> bool:
        return bool(self.domain_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicAddress:
    public_ip: str
    owner: str  # an account, or AUTO_ASSIGNED
    allocation_id: str = ""
    association_id: str = ""


def public_addresses(rows: Rows, interface: NetworkInterface) -> dict[str, PublicAddress]:
    """Private address -> the public one that stands for it. An Elastic IP takes the place of an auto-assigned one."""
    found: dict[str, PublicAddress] = {}
    if interface.public_ip:
        found[interface.private_ip] = PublicAddress(public_ip=interface.public_ip, owner=AUTO_ASSIGNED)
    for address in sorted(rows.all(ElasticIp, interface_id=interface.id), key=lambda address: address.id):
        found[address.private_ip or interface.private_ip] = PublicAddress(
            public_ip=address.public_ip,
            owner=address.account,
            allocation_id=address.id,
            association_id=address.association_id,
        )
    return found


def parted(address: ElasticIp) -> ElasticIp:
    """The row of an Elastic IP that no interface has any more."""
    return replace(
        address,
        interface_id="",
        private_ip="",
        association_id="",
        ended_association_id=address.association_id or address.ended_association_id,
    )


def has_auto_address(rows: Rows, interface: NetworkInterface) -> bool:
    """Whether an interface is to have an auto-assigned public address while its instance runs: one was asked for, it
    is the instance's only interface, and no Elastic IP stands for it.

    Source: "Public IPv4 addresses" in "Amazon EC2 instance IP addressing".
    """
    if not interface.auto_public_ip or interface.attachment is None or interface.attachment.device_index != 0:
        return False
    return len(rows.all(NetworkInterface, instance_id=interface.instance_id)) == 1 and not rows.all(
        ElasticIp, interface_id=interface.id
    )

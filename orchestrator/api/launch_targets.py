"""What RunInstances is about besides what it names: where its instances go, and the volumes and interfaces it makes.

    default subnets and groups    where the request names none; whichever it may be, it must be allowed
    volume/*                      for each device of the image, as the request changes it, and each that it adds
    network-interface/*           for each that is not there already, in each subnet in which it may be

Whether there can be such a launch is found out later: `ec2/launch_disks.py` and `ec2/launch_network.py` go by the same
rules, and refuse what breaks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from orchestrator.api.ec2.images import find_image
from orchestrator.api.ec2.owners import may_use
from orchestrator.api.facts import Facts, Target, arn_of, target_of, text_of
from orchestrator.api.operation import Call
from orchestrator.model.block_device import place
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.kms import RegionSettings
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.vpc import NetworkInterface, SecurityGroup, Subnet, Vpc

Structure = Mapping[str, Any]

_NOTHING: Final = BlockDevice(device="", volume_type="gp2")  # what a device that the image does not have starts from


# --- where ------------------------------------------------------------------------------------------------------------


def places(call: Call) -> Iterator[Target]:
    """Where a launch goes that does not say where: whichever default subnet it may be, it must be allowed."""
    interfaces = call.params.get("NetworkInterfaces") or [{}]
    if not call.params.get("SubnetId") and any(
        not each.get("SubnetId") and not each.get("NetworkInterfaceId") for each in interfaces
    ):
        yield from [target_of(call, each) for each in _default_subnets(call)] or [Target(arn_of(call, "subnet", "*"))]
    if (
        not call.params.get("SecurityGroupIds")
        and not call.params.get("SecurityGroups")
        and any(not each.get("Groups") and not each.get("NetworkInterfaceId") for each in interfaces)
    ):
        vpcs = {vpc.id for vpc in call.mine(Vpc) if vpc.is_default}
        for subnet_id in [call.params.get("SubnetId"), *(each.get("SubnetId") for each in interfaces)]:
            subnet = call.db.get(Subnet, subnet_id) if subnet_id else None
            if subnet is not None and call.sees(subnet):
                vpcs = {subnet.vpc_id}
        groups = [g for vpc_id in vpcs for g in call.db.all(SecurityGroup, vpc_id=vpc_id) if g.name == "default"]
        yield from [target_of(call, each) for each in groups] or [Target(arn_of(call, "security-group", "*"))]


def _default_subnets(call: Call) -> list[Subnet]:
    zone = (call.params.get("Placement") or {}).get("AvailabilityZone")
    return [each for each in call.mine(Subnet) if each.default_for_zone and zone in (None, "", each.zone)]


# --- volumes ----------------------------------------------------------------------------------------------------------


def _volumes(call: Call) -> Iterator[Facts]:
    image = _image(call)
    own = {place(each.device): each for each in image.block_devices} if image is not None else {}
    given = {place(each.get("DeviceName") or ""): each for each in call.params.get("BlockDeviceMappings") or ()}
    for name in sorted({*own, *given}):
        mapping, device = given.get(name, {}), own.get(name, _NOTHING)
        if "NoDevice" in mapping or mapping.get("VirtualName", "" if "Ebs" in mapping else device.virtual_name):
            continue
        yield _volume(call, device, mapping.get("Ebs") or {})


def _image(call: Call) -> Image | None:
    try:
        return find_image(call, call.params.get("ImageId") or "")
    except EC2Error:
        return None


def _volume(call: Call, device: BlockDevice, ebs: Structure) -> Facts:
    """As it will be, whether the request says so, or the image, the snapshot or the region's settings do."""
    snapshot_id = ebs.get("SnapshotId") or device.snapshot_id
    of_image = snapshot_id == device.snapshot_id
    snapshot = call.db.get(Snapshot, snapshot_id) if snapshot_id else None
    if snapshot is not None and not of_image and not _sees(call, snapshot):
        snapshot = None
    settings = call.db.get(RegionSettings, f"{call.account}:{call.region}")
    encrypted = (
        ebs.get("Encrypted", device.encrypted)
        or bool(ebs.get("KmsKeyId"))
        or (of_image and device.key_id != "")
        or (snapshot is not None and snapshot.encrypted)
        or (settings is not None and settings.encrypt_by_default)
    )
    volume_type = ebs.get("VolumeType", device.volume_type)
    same_type = volume_type == device.volume_type
    of_source = (of_image and device.size_gib) or (snapshot.size_gib if snapshot is not None else 0)
    facts: Facts = {"ec2:encrypted": (text_of(encrypted),), "ec2:volumetype": (volume_type,)}
    for key, number in (
        ("ec2:volumesize", ebs.get("VolumeSize", of_source)),
        ("ec2:volumeiops", ebs.get("Iops", device.iops if same_type else 0)),
        ("ec2:volumethroughput", ebs.get("Throughput", device.throughput_mib_s if same_type else 0)),
    ):
        if number:
            facts[key] = (text_of(number),)
    if snapshot_id:
        facts["ec2:parentsnapshot"] = (arn_of(call, "snapshot", snapshot_id),)
    return facts


def _sees(call: Call, snapshot: Snapshot) -> bool:
    """Of what is another account's, nothing is told, unless that shares it, or an image that has it."""
    images = call.db.all(Image, snapshot_ids=snapshot.id)
    return may_use(call, snapshot) or any(may_use(call, each) for each in images if each.account == snapshot.account)


# --- interfaces -------------------------------------------------------------------------------------------------------


def _interfaces(call: Call) -> Iterator[Facts]:
    given = call.params.get("NetworkInterfaces") or [{"SubnetId": call.params.get("SubnetId")}]
    primary = _subnets(call, min(given, key=lambda each: int(each.get("DeviceIndex") or 0)))
    for each in given:
        if each.get("NetworkInterfaceId"):
            continue
        asked = each.get("AssociatePublicIpAddress")
        if not (subnets := _subnets(call, each) if each.get("SubnetId") else primary):
            yield {"ec2:associatepublicipaddress": (text_of(bool(asked)),)}
        for subnet in subnets:
            public = len(given) == 1 and (subnet.map_public_ip_on_launch if asked is None else asked)
            yield {
                "ec2:associatepublicipaddress": (text_of(public),),
                "ec2:availabilityzone": (subnet.zone,),
                "ec2:subnet": (arn_of(call, "subnet", subnet.id),),
                "ec2:vpc": (arn_of(call, "vpc", subnet.vpc_id),),
            }


def _subnets(call: Call, interface: Structure) -> list[Subnet]:
    """Those in which an interface may be that the request describes so, as far as they are the caller's."""
    there = call.db.get(NetworkInterface, interface.get("NetworkInterfaceId") or "")
    named = interface.get("SubnetId") or (there.subnet_id if there is not None else "")
    if not named:
        return _default_subnets(call)
    subnet = call.db.get(Subnet, named)
    return [subnet] if subnet is not None and call.sees(subnet) else []


MADE: Final[Mapping[str, Callable[[Call], Iterator[Facts]]]] = {
    "volume": _volumes,
    "network-interface": _interfaces,
}

"""What each Describe must answer: all that the caller has, as the reference knows it, and nothing else.

Show:  action, member of the answer ─┬─ told(shown resource)  ──> id and what is compared
                                     └─ known(reference, thing) ──> the same
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.model_based.reference import (
    Address,
    Answer,
    Attachment,
    Gateway,
    Group,
    Image,
    Instance,
    Interface,
    KeyPair,
    Nat,
    Params,
    Reference,
    Snapshot,
    Subnet,
    Table,
    Thing,
    Volume,
    Vpc,
)

Values = dict[str, Any]


@dataclass(frozen=True)
class Show:
    kind: type[Thing]
    member: str
    id: str
    told: Callable[[Answer], Values]
    known: Callable[[Reference, Any], Values]
    ids: str = ""  # the parameter that takes ids
    pages: int = 5  # the smallest MaxResults; 0: without pages
    more: Params = field(default_factory=dict)
    # Filter name -> what a thing has for it.
    filters: dict[str, Callable[[Any], str | list[str]]] = field(default_factory=dict)

    def resources(self, answer: Answer) -> list[Answer]:
        if self.member == "Instances":
            return [each for group in answer["Reservations"] for each in group["Instances"]]
        found: list[Answer] = answer[self.member]
        return found


def tags(shown: Answer, member: str = "Tags") -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in shown.get(member, ())}


def _sorted(values: Iterable[Any]) -> list[Any]:
    return sorted(values)


def _disk(volume: Volume) -> tuple[Any, ...]:
    assert volume.attachment is not None
    state = "detaching" if volume.attachment.state == "busy" else volume.attachment.state
    return volume.attachment.place, volume.id, state, volume.attachment.goes


def _known_instance(m: Reference, it: Instance) -> Values:
    there = it.state != "terminated"
    return {
        "state": it.state,
        "image": it.image,
        "type": it.type,
        "zone": it.zone,
        "subnet": it.subnet if there else None,
        "token": it.token,
        "tags": it.tags,
        "disks": _sorted(_disk(each) for each in m.volumes_of(it.id)) if there else [],
        "interfaces": _sorted(each.id for each in m.interfaces_of(it.id)) if there else [],
    }


def _told_instance(shown: Answer) -> Values:
    return {
        "state": shown["State"]["Name"],
        "image": shown["ImageId"],
        "type": shown["InstanceType"],
        "zone": shown["Placement"]["AvailabilityZone"],
        "subnet": shown.get("SubnetId"),
        "token": shown.get("ClientToken", ""),
        "tags": tags(shown),
        "disks": _sorted(
            (each["DeviceName"], each["Ebs"]["VolumeId"], each["Ebs"]["Status"], each["Ebs"]["DeleteOnTermination"])
            for each in shown["BlockDeviceMappings"]
        ),
        "interfaces": _sorted(each["NetworkInterfaceId"] for each in shown["NetworkInterfaces"]),
    }


def _at(at: Attachment | None) -> list[Any]:
    return [] if at is None else [at.instance, at.place, at.state, at.goes]


def _told_volume(shown: Answer) -> Values:
    return {
        "state": shown["State"],
        "size": shown["Size"],
        "type": shown["VolumeType"],
        "zone": shown["AvailabilityZone"],
        "snapshot": shown["SnapshotId"],
        "tags": tags(shown),
        "at": [
            value
            for each in shown["Attachments"]
            for value in (each["InstanceId"], each["Device"], each["State"], each["DeleteOnTermination"])
        ],
    }


def _told_interface(shown: Answer) -> Values:
    at: Answer = shown.get("Attachment", {})
    return {
        "state": shown["Status"],
        "subnet": shown["SubnetId"],
        "address": shown["PrivateIpAddress"],
        "groups": _sorted(each["GroupId"] for each in shown["Groups"]),
        "tags": tags(shown, "TagSet"),
        "at": [at["InstanceId"], str(at["DeviceIndex"]), at["Status"], at["DeleteOnTermination"]]
        if "InstanceId" in at
        else [],
    }


def _told_group(shown: Answer) -> Values:
    rules = []
    for member, egress in (("IpPermissions", False), ("IpPermissionsEgress", True)):
        for each in shown[member]:
            whom = [one["CidrIp"] for one in each["IpRanges"]] + [one["GroupId"] for one in each["UserIdGroupPairs"]]
            rules += [(egress, each["IpProtocol"], each.get("FromPort", -1), each.get("ToPort", -1), w) for w in whom]
    return {"name": shown["GroupName"], "vpc": shown["VpcId"], "rules": _sorted(rules), "tags": tags(shown)}


def _known_subnet(m: Reference, it: Subnet) -> Values:
    free = (1 << (32 - int(it.cidr.partition("/")[2]))) - 5 - sum(each.subnet == it.id for each in m.of(Interface))
    return {"vpc": it.vpc, "cidr": it.cidr, "zone": it.zone, "free": free, "tags": it.tags}


def _known_address(m: Reference, it: Address) -> Values:
    interface = m.get(Interface, it.interface)
    at = interface.attachment if interface else None
    return {
        "ip": it.ip,
        "interface": it.interface or None,
        "association": it.association or None,
        "instance": at.instance if at else None,
        "tags": it.tags,
    }


SHOWS: dict[str, Show] = {
    "DescribeInstances": Show(
        Instance,
        "Instances",
        "InstanceId",
        _told_instance,
        _known_instance,
        "InstanceIds",
        filters={
            "instance-state-name": lambda it: it.state,
            "instance-type": lambda it: it.type,
            "availability-zone": lambda it: it.zone,
            "tag:team": lambda it: it.tags.get("team", []),
            "image-id": lambda it: it.image,
        },
    ),
    "DescribeVolumes": Show(
        Volume,
        "Volumes",
        "VolumeId",
        _told_volume,
        lambda m, it: {
            "state": it.state,
            "size": it.size,
            "type": it.type,
            "zone": it.zone,
            "snapshot": it.snapshot,
            "tags": it.tags,
            "at": _at(it.attachment),
        },
        "VolumeIds",
        filters={
            "status": lambda it: it.state,
            "size": lambda it: str(it.size),
            "attachment.instance-id": lambda it: it.attachment.instance if it.attachment else [],
            "tag-key": lambda it: list(it.tags),
        },
    ),
    "DescribeSnapshots": Show(
        Snapshot,
        "Snapshots",
        "SnapshotId",
        lambda shown: {
            "state": shown["State"],
            "volume": shown["VolumeId"],
            "size": shown["VolumeSize"],
            "tags": tags(shown),
        },
        lambda m, it: {"state": it.state, "volume": it.volume or "vol-ffffffff", "size": it.size, "tags": it.tags},
        "SnapshotIds",
        more={"OwnerIds": ["self"]},
        filters={"status": lambda it: it.state, "volume-size": lambda it: str(it.size)},
    ),
    "DescribeImages": Show(
        Image,
        "Images",
        "ImageId",
        lambda shown: {
            "state": shown["State"],
            "name": shown["Name"],
            "devices": _sorted(
                (each["DeviceName"], each["Ebs"]["SnapshotId"], each["Ebs"]["VolumeSize"], each["Ebs"]["VolumeType"])
                for each in shown["BlockDeviceMappings"]
            ),
            "tags": tags(shown),
        },
        lambda m, it: {
            "state": it.state,
            "name": it.name,
            "devices": _sorted((device, *mapping[:3]) for device, mapping in it.devices.items()),
            "tags": it.tags,
        },
        "ImageIds",
        pages=1,
        more={"Owners": ["self"]},
        filters={"state": lambda it: it.state, "name": lambda it: it.name},
    ),
    "DescribeNetworkInterfaces": Show(
        Interface,
        "NetworkInterfaces",
        "NetworkInterfaceId",
        _told_interface,
        lambda m, it: {
            "state": it.state,
            "subnet": it.subnet,
            "address": it.address,
            "groups": _sorted(it.groups),
            "tags": it.tags,
            "at": _at(it.attachment),
        },
        "NetworkInterfaceIds",
        filters={"status": lambda it: it.state, "subnet-id": lambda it: it.subnet, "group-id": lambda it: [*it.groups]},
    ),
    "DescribeAddresses": Show(
        Address,
        "Addresses",
        "AllocationId",
        lambda shown: {
            "ip": shown["PublicIp"],
            "interface": shown.get("NetworkInterfaceId"),
            "association": shown.get("AssociationId"),
            "instance": shown.get("InstanceId"),
            "tags": tags(shown),
        },
        _known_address,
        "AllocationIds",
        pages=0,
    ),
    "DescribeSecurityGroups": Show(
        Group,
        "SecurityGroups",
        "GroupId",
        _told_group,
        lambda m, it: {"name": it.name, "vpc": it.vpc, "rules": _sorted(it.rules.values()), "tags": it.tags},
        "GroupIds",
        filters={"group-name": lambda it: it.name, "vpc-id": lambda it: it.vpc},
    ),
    "DescribeVpcs": Show(
        Vpc,
        "Vpcs",
        "VpcId",
        lambda shown: {"cidr": shown["CidrBlock"], "default": shown["IsDefault"], "tags": tags(shown)},
        lambda m, it: {"cidr": it.cidr, "default": it.is_default, "tags": it.tags},
        "VpcIds",
        filters={"is-default": lambda it: str(it.is_default).lower()},
    ),
    "DescribeSubnets": Show(
        Subnet,
        "Subnets",
        "SubnetId",
        lambda shown: {
            "vpc": shown["VpcId"],
            "cidr": shown["CidrBlock"],
            "zone": shown["AvailabilityZone"],
            "free": shown["AvailableIpAddressCount"],
            "tags": tags(shown),
        },
        _known_subnet,
        "SubnetIds",
        filters={"vpc-id": lambda it: it.vpc, "availability-zone": lambda it: it.zone},
    ),
    "DescribeRouteTables": Show(
        Table,
        "RouteTables",
        "RouteTableId",
        lambda shown: {
            "vpc": shown["VpcId"],
            "main": any(each["Main"] for each in shown["Associations"]),
            "serves": {e["RouteTableAssociationId"]: e["SubnetId"] for e in shown["Associations"] if not e["Main"]},
            "tags": tags(shown),
        },
        lambda m, it: {"vpc": it.vpc, "main": it.is_main, "serves": it.serves, "tags": it.tags},
        "RouteTableIds",
        filters={"association.subnet-id": lambda it: list(it.serves.values())},
    ),
    "DescribeInternetGateways": Show(
        Gateway,
        "InternetGateways",
        "InternetGatewayId",
        lambda shown: {"vpc": [each["VpcId"] for each in shown["Attachments"]], "tags": tags(shown)},
        lambda m, it: {"vpc": [it.vpc] if it.vpc else [], "tags": it.tags},
        "InternetGatewayIds",
    ),
    "DescribeNatGateways": Show(
        Nat,
        "NatGateways",
        "NatGatewayId",
        lambda shown: {"state": shown["State"], "subnet": shown["SubnetId"], "tags": tags(shown)},
        lambda m, it: {"state": it.state, "subnet": it.subnet, "tags": it.tags},
        "NatGatewayIds",
    ),
    "DescribeKeyPairs": Show(
        KeyPair,
        "KeyPairs",
        "KeyPairId",
        lambda shown: {"name": shown["KeyName"], "tags": tags(shown)},
        lambda m, it: {"name": it.name, "tags": it.tags},
        "KeyPairIds",
        pages=0,
        filters={"key-name": lambda it: it.name},
    ),
}


def expected(m: Reference, account: str, show: Show, params: Params) -> dict[str, Values]:
    """By id: what an answer without pages has in it."""
    wanted = params.get(show.ids)
    found = [each for each in m.of(show.kind, account) if wanted is None or each.id in wanted]
    for each_filter in params.get("Filters", ()):
        read = show.filters[each_filter["Name"]]
        found = [each for each in found if _values(read(each)) & set(each_filter["Values"])]
    return {each.id: show.known(m, each) for each in found}


def _values(value: str | list[str]) -> set[str]:
    return {value} if isinstance(value, str) else set(value)


def differences(told: dict[str, Values], known: dict[str, Values]) -> list[str]:
    found = [f"{each} is not told of" for each in known if each not in told]
    found += [f"{each} is told of, and not the caller's" for each in told if each not in known]
    for each in told:
        if each in known and told[each] != known[each]:
            odd = [name for name in known[each] if told[each].get(name) != known[each][name]]
            found += [f"{each}: {name} is told as {told[each].get(name)}, and is {known[each][name]}" for name in odd]
    return found

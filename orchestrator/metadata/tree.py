"""What a guest can read about itself, as a tree of folders and leaves. Pure: rows in, bytes out.

    /                         versions, and `latest`
    /VERSION/                 dynamic, meta-data, user-data
    /VERSION/meta-data/...    "Instance metadata categories" of the EC2 user guide
    /VERSION/dynamic/...      the identity document and its signatures

Every version shows the newest tree: Amazon has only ever added to it, so a client finds all that its version has.
Folders end with `/` in a listing, except in the two outermost ones. A folder may be asked for without its last slash;
a leaf may not be asked for with one.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import format_datetime
from typing import Protocol
from urllib.parse import unquote

from orchestrator.metadata.credentials import Granted, Vendor
from orchestrator.model.elastic_ip import public_addresses
from orchestrator.model.iam import profile_role
from orchestrator.model.instance import Instance
from orchestrator.model.volume import Volume
from orchestrator.model.vpc import NetworkInterface, SecurityGroup, Subnet, Vpc, private_dns_name, public_dns_name
from orchestrator.model.zone import zone_id
from orchestrator.store import Store

LATEST = "latest"
VERSIONS = (
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "2024-04-11",
    LATEST,
)
DOCUMENT_VERSION = "2017-09-30"

Leaf = bytes | Callable[[], bytes]  # called only when asked for, and perhaps slow


class Signer(Protocol):
    """Proofs of an identity document, in base64."""

    def signature(self, document: bytes) -> bytes: ...

    def pkcs7(self, document: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Plug:
    """One of the instance's interfaces with what surrounds it; None and left out where a row is gone."""

    interface: NetworkInterface
    subnet: Subnet | None
    vpc: Vpc | None
    groups: tuple[SecurityGroup, ...]
    public: tuple[tuple[str, str], ...] = ()  # (private, public), in the order of the private addresses


@dataclass(frozen=True, slots=True)
class Facts:
    """The rows that a tree shows. While they are equal, so are the trees."""

    instance: Instance
    plugs: tuple[Plug, ...]  # the primary interface first
    volumes: tuple[Volume, ...]  # by device
    granted: Granted | None = None  # of an instance that has a profile


def gather(store: Store, instance: Instance) -> Facts:
    interfaces = store.all(NetworkInterface, instance_id=instance.id)
    if len(interfaces) > 1:
        interfaces.sort(key=_device_index)
    volumes = store.all(Volume, instance_id=instance.id)
    if len(volumes) > 1:
        volumes.sort(key=_device)
    return Facts(
        instance,
        tuple(
            Plug(
                interface,
                store.get(Subnet, interface.subnet_id),
                store.get(Vpc, interface.vpc_id),
                tuple(group for name in interface.groups if (group := store.get(SecurityGroup, name)) is not None),
                _public(store, interface),
            )
            for interface in interfaces
        ),
        tuple(volumes),
        Granted(*profile_role(store, instance.profile.profile_id)) if instance.profile is not None else None,
    )


def _public(store: Store, interface: NetworkInterface) -> tuple[tuple[str, str], ...]:
    found = public_addresses(store, interface)
    return tuple((private, found[private].public_ip) for private in interface.private_ips if private in found)


@dataclass(frozen=True, slots=True)
class Folder:
    children: Mapping[str, Folder | Leaf]
    listing: bytes


@dataclass(frozen=True, slots=True)
class Found:
    body: Leaf
    topic: str  # meta-data, user-data, dynamic; empty for the listings above them


class Tree:
    def __init__(self, services: Folder, last_modified: str) -> None:
        self.last_modified = last_modified  # in HTTP's format
        self._root = _folder(dict.fromkeys(VERSIONS, services), mark_folders=False)

    def lookup(self, path: str) -> Found | None:
        """What is at `path`, which begins with a slash and is percent-encoded as a client sent it."""
        parts = [unquote(part) if "%" in part else part for part in path.split("/")[1:]]
        wants_folder = not parts or parts[-1] == ""
        if parts and parts[-1] == "":
            parts.pop()
        node: Folder | Leaf = self._root
        for part in parts:
            child = node.children.get(part) if isinstance(node, Folder) else None
            if child is None:
                return None
            node = child
        topic = parts[1] if len(parts) > 1 else ""
        if isinstance(node, Folder):
            return Found(node.listing, topic)
        return None if wants_folder else Found(node, topic)


def build(facts: Facts, signer: Signer, vendor: Vendor | None = None) -> Tree:
    """Without a `vendor`, an instance's profile does not show."""
    instance = facts.instance
    started = (instance.launched_at or instance.created).astimezone(UTC)
    services: dict[str, Folder | Leaf] = {"dynamic": _dynamic(facts, signer), "meta-data": _meta_data(facts, vendor)}
    user_data = _decode(instance.user_data)
    if user_data:
        services["user-data"] = user_data
    return Tree(_folder(services, mark_folders=False), format_datetime(started, usegmt=True))


def _folder(children: Mapping[str, Folder | Leaf | str | None], *, mark_folders: bool = True) -> Folder:
    """Children that are None are not there."""
    there = {
        name: node.encode() if isinstance(node, str) else node for name, node in children.items() if node is not None
    }
    names = (name + "/" if mark_folders and isinstance(there[name], Folder) else name for name in sorted(there))
    return Folder(there, "\n".join(names).encode())


def _meta_data(facts: Facts, vendor: Vendor | None) -> Folder:
    instance = facts.instance
    primary = facts.plugs[0] if facts.plugs else None
    interface = primary.interface if primary else None
    name = instance.private_name(interface.private_ip) if interface else None
    return _folder(
        {
            "ami-id": instance.image_id,
            "ami-launch-index": str(instance.launch_index),
            "ami-manifest-path": "(unknown)",
            "block-device-mapping": _block_devices(instance, facts.volumes),
            # A rebalance recommendation is listed only once there is one: crawlers take a listed leaf to be there.
            "events": _folder({"maintenance": _folder({"history": "[]", "scheduled": "[]"})}),
            "hostname": name,
            "iam": _iam(instance, facts.granted, vendor) if facts.granted and vendor else None,
            "instance-action": "none",
            "instance-id": instance.id,
            "instance-life-cycle": "on-demand",
            "instance-type": instance.instance_type,
            "ipv6": next(iter(interface.ipv6_addresses), None) if interface else None,
            "kernel-id": instance.kernel_id or None,
            "local-hostname": name,
            "local-ipv4": interface.private_ip if interface else None,
            "mac": interface.mac if interface else None,
            "metrics": _folder({"vhostmd": '<?xml version="1.0" encoding="UTF-8"?>'}),
            "network": _network(facts.plugs) if primary else None,
            "placement": _folder(
                {
                    "availability-zone": instance.zone,
                    "availability-zone-id": zone_id(instance.zone),
                    "region": instance.region,
                }
            ),
            "profile": "default-hvm",
            "public-hostname": _public_name(primary) if primary else None,
            "public-ipv4": (_public_address(primary) or None) if primary else None,
            "public-keys": _public_keys(instance),
            "ramdisk-id": instance.ramdisk_id or None,
            "reservation-id": instance.reservation_id,
            "security-groups": "\n".join(group.name for group in primary.groups) if primary else None,
            "services": _services(instance.region),
            "system": "nitro",
            "tags": _tags(instance),
        }
    )


def _iam(instance: Instance, granted: Granted, vendor: Vendor) -> Folder:
    role = granted.role
    roles: dict[str, Folder | Leaf | str | None] = {}
    if role is not None:
        roles[role.name] = lambda: vendor.credentials(instance, role)
    return _folder(
        {
            "info": lambda: vendor.info(instance, granted),
            "security-credentials": _folder(roles) if roles else None,
        }
    )


def _block_devices(instance: Instance, volumes: Sequence[Volume]) -> Folder:
    """Those that were there when the instance was last started, as on EC2, and of the instance store those that were
    mapped."""
    devices: dict[str, Folder | Leaf | str | None] = {"ami": instance.root_device, "root": instance.root_device}
    started = instance.launched_at or instance.created
    present = [v for v in volumes if v.attachment and (v.attachment.attached_at or started) <= started]
    others = [device for volume in present if (device := _device(volume)) != instance.root_device]
    mapped = {f"ebs{number}": device for number, device in enumerate(others, start=1)} | instance.ephemeral_devices
    return _folder(devices | {name: device.removeprefix("/dev/") for name, device in mapped.items()})


def _network(plugs: Sequence[Plug]) -> Folder:
    macs = _folder({plug.interface.mac: _interface(plug) for plug in plugs})
    return _folder({"interfaces": _folder({"macs": macs})})


def _interface(plug: Plug) -> Folder:
    """Where there are several of a thing, a line each."""
    interface, subnet, vpc = plug.interface, plug.subnet, plug.vpc
    return _folder(
        {
            "device-number": str(_device_index(interface)),
            "interface-id": interface.id,
            "ipv4-associations": _folder({public: private for private, public in plug.public}) if plug.public else None,
            "ipv4-prefix": _lines(interface.prefixes),
            "ipv6s": _lines(interface.ipv6_addresses),
            "local-hostname": private_dns_name(interface.private_ip, interface.region),
            "local-ipv4s": _lines(interface.private_ips),
            "mac": interface.mac,
            "network-card": "0",
            "owner-id": interface.account,
            "public-hostname": _public_name(plug),
            "public-ipv4s": _lines(public for _, public in plug.public),
            "security-group-ids": "\n".join(group.id for group in plug.groups),
            "security-groups": "\n".join(group.name for group in plug.groups),
            "subnet-id": interface.subnet_id,
            "subnet-ipv4-cidr-block": subnet.cidr if subnet else None,
            "subnet-ipv6-cidr-blocks": _lines(each.cidr for each in subnet.ipv6_cidrs) if subnet else None,
            "vpc-id": interface.vpc_id,
            "vpc-ipv4-cidr-block": vpc.cidr if vpc else None,
            "vpc-ipv4-cidr-blocks": _lines(vpc.cidrs) if vpc else None,
            "vpc-ipv6-cidr-blocks": _lines(each.cidr for each in vpc.ipv6_cidrs) if vpc else None,
        }
    )


def _lines(values: Iterable[str]) -> str | None:
    """None, and so not there, for none."""
    return "\n".join(values) or None


def _public_address(plug: Plug) -> str:
    """That of the primary private address."""
    return dict(plug.public).get(plug.interface.private_ip, "")


def _public_name(plug: Plug) -> str | None:
    """Empty where the VPC gives no DNS names, and not there without a public address, as on EC2."""
    address = _public_address(plug)
    if not address:
        return None
    return public_dns_name(address, plug.interface.region) if plug.vpc and plug.vpc.enable_dns_hostnames else ""


def _public_keys(instance: Instance) -> Folder | None:
    if not instance.public_key:
        return None
    name = instance.key_name or "key"
    line = instance.public_key.strip() + "\n"  # people append it to authorized_keys
    return Folder({"0": _folder({"openssh-key": line})}, f"0={name}".encode())


def _services(region: str) -> Folder:
    partition = next((f"aws-{name}" for name in ("cn", "us-gov") if region.startswith(name + "-")), "aws")
    return _folder({"domain": "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com", "partition": partition})


# Keys that can be path elements. Source: "View tags for your EC2 instances using instance metadata".
_TAG_KEY = re.compile(r"(?!(?:\.|\.\.|_index)\Z)[A-Za-z0-9+\-=.,_:@]+\Z")


def _tags(instance: Instance) -> Folder | None:
    if instance.metadata.instance_metadata_tags != "enabled":
        return None
    shown = {key: value for key, value in instance.tags.items() if _TAG_KEY.match(key)}
    return _folder({"instance": _folder(shown)}) if shown else None


def _dynamic(facts: Facts, signer: Signer) -> Folder:
    document = identity_document(facts)
    return _folder(
        {
            "fws": _folder({"instance-monitoring": "enabled"}) if facts.instance.monitoring else None,
            "instance-identity": _folder(
                {
                    "document": document,
                    "pkcs7": lambda: signer.pkcs7(document),
                    "rsa2048": lambda: signer.pkcs7(document),
                    "signature": lambda: signer.signature(document),
                }
            ),
        }
    )


def identity_document(facts: Facts) -> bytes:
    """Members and their order as "Instance identity documents" of the EC2 user guide has them."""
    instance = facts.instance
    pending = (instance.launched_at or instance.created).astimezone(UTC)
    document = {
        "accountId": instance.account,
        "architecture": instance.architecture,
        "availabilityZone": instance.zone,
        "billingProducts": None,
        "devpayProductCodes": None,
        "marketplaceProductCodes": None,
        "imageId": instance.image_id,
        "instanceId": instance.id,
        "instanceType": instance.instance_type,
        "kernelId": instance.kernel_id or None,
        "pendingTime": pending.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "privateIp": facts.plugs[0].interface.private_ip if facts.plugs else None,
        "ramdiskId": instance.ramdisk_id or None,
        "region": instance.region,
        "version": DOCUMENT_VERSION,
    }
    return json.dumps(document, indent=2, separators=(",", " : ")).encode()


def _decode(user_data: str) -> bytes:
    try:
        return base64.b64decode(user_data)
    except binascii.Error:  # the API takes none such; a guest's boot must not hang on a row from elsewhere
        return user_data.encode()


def _device(volume: Volume) -> str:
    return volume.attachment.device if volume.attachment else ""


def _device_index(interface: NetworkInterface) -> int:
    return interface.attachment.device_index if interface.attachment else 0

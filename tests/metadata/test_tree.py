"""The tree: every leaf of a complete instance, what is left out of others, and how paths are read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.metadata.tree import LATEST, VERSIONS, Facts, Plug, Tree, build, identity_document
from orchestrator.model.instance import Instance, MetadataOptions
from orchestrator.model.volume import Volume, VolumeAttachment
from orchestrator.model.vpc import CidrAssociation, InterfaceAttachment, NetworkInterface, SecurityGroup, Subnet, Vpc

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OWNED: dict[str, Any] = {"account": "111122223333", "region": "us-west-2", "created": NOW}
MAC = "02:5e:00:00:00:01"


class Seal:
    """Signs in a way that a test can see."""

    def signature(self, document: bytes) -> bytes:
        return b"signature of %d" % len(document)

    def pkcs7(self, document: bytes) -> bytes:
        return b"pkcs7 of %d" % len(document)


def volume(number: int, device: str) -> Volume:
    return Volume(
        id=f"vol-{number:017x}",
        **OWNED,
        zone="us-west-2c",
        size_gib=8,
        layer_id=f"layer-{number:017x}",
        attachment=VolumeAttachment(instance_id="i-00000000000000001", device=device),
    )


INSTANCE = Instance(
    id="i-00000000000000001",
    **OWNED,
    reservation_id="r-00000000000000001",
    launch_index=3,
    zone="us-west-2c",
    vpc_id="vpc-00000000000000001",
    subnet_id="subnet-00000000000000001",
    image_id="ami-00000000000000001",
    instance_type="m5.large",
    key_name="my key=1",
    public_key="ssh-ed25519 AAAA my key=1",
    user_data=base64.b64encode(b"\x00\xff raw").decode(),
    kernel_id="aki-00000000000000001",
    ramdisk_id="ari-00000000000000001",
    launched_at=NOW,
    monitoring=True,
    metadata=MetadataOptions(instance_metadata_tags="enabled"),
    tags={"Name": "wéb", "cost:center": "7", "with space": "x", "with/slash": "x", ".": "x", "_index": "x"},
)
GROUPS = tuple(
    SecurityGroup(id=f"sg-{n:017x}", **OWNED, name=name, description="", vpc_id=INSTANCE.vpc_id)
    for n, name in enumerate(("web", "ssh"))
)
INTERFACE = NetworkInterface(
    id="eni-00000000000000001",
    **OWNED,
    vpc_id=INSTANCE.vpc_id,
    subnet_id=INSTANCE.subnet_id,
    zone=INSTANCE.zone,
    mac=MAC,
    private_ip="172.31.5.6",
    public_ip="203.0.113.9",
    groups=tuple(group.id for group in GROUPS),
    attachment=InterfaceAttachment(id="eni-attach-00000000000000001", instance_id=INSTANCE.id, device_index=0),
)
SUBNET = Subnet(id=INSTANCE.subnet_id, **OWNED, vpc_id=INSTANCE.vpc_id, zone=INSTANCE.zone, cidr="172.31.0.0/20")
NETWORK = Vpc(id=INSTANCE.vpc_id, **OWNED, cidr="172.31.0.0/16", enable_dns_hostnames=True)
PLUG = Plug(INTERFACE, SUBNET, NETWORK, GROUPS, (("172.31.5.6", "203.0.113.9"),))
FACTS = Facts(INSTANCE, (PLUG,), (volume(2, "/dev/sdf"), volume(3, "/dev/sdg"), volume(1, "/dev/xvda")))

PRIVATE_NAME = "ip-172-31-5-6.us-west-2.compute.internal"
PUBLIC_NAME = "ec2-203-0-113-9.us-west-2.compute.amazonaws.com"
DOCUMENT = identity_document(FACTS)

EXPECTED: dict[str, bytes] = {
    "meta-data/ami-id": b"ami-00000000000000001",
    "meta-data/ami-launch-index": b"3",
    "meta-data/ami-manifest-path": b"(unknown)",
    "meta-data/block-device-mapping/ami": b"/dev/xvda",
    "meta-data/block-device-mapping/ebs1": b"sdf",
    "meta-data/block-device-mapping/ebs2": b"sdg",
    "meta-data/block-device-mapping/root": b"/dev/xvda",
    "meta-data/events/maintenance/history": b"[]",
    "meta-data/events/maintenance/scheduled": b"[]",
    "meta-data/hostname": PRIVATE_NAME.encode(),
    "meta-data/instance-action": b"none",
    "meta-data/instance-id": b"i-00000000000000001",
    "meta-data/instance-life-cycle": b"on-demand",
    "meta-data/instance-type": b"m5.large",
    "meta-data/kernel-id": b"aki-00000000000000001",
    "meta-data/local-hostname": PRIVATE_NAME.encode(),
    "meta-data/local-ipv4": b"172.31.5.6",
    "meta-data/mac": MAC.encode(),
    "meta-data/metrics/vhostmd": b'<?xml version="1.0" encoding="UTF-8"?>',
    f"meta-data/network/interfaces/macs/{MAC}/device-number": b"0",
    f"meta-data/network/interfaces/macs/{MAC}/interface-id": b"eni-00000000000000001",
    f"meta-data/network/interfaces/macs/{MAC}/ipv4-associations/203.0.113.9": b"172.31.5.6",
    f"meta-data/network/interfaces/macs/{MAC}/local-hostname": PRIVATE_NAME.encode(),
    f"meta-data/network/interfaces/macs/{MAC}/local-ipv4s": b"172.31.5.6",
    f"meta-data/network/interfaces/macs/{MAC}/mac": MAC.encode(),
    f"meta-data/network/interfaces/macs/{MAC}/network-card": b"0",
    f"meta-data/network/interfaces/macs/{MAC}/owner-id": b"111122223333",
    f"meta-data/network/interfaces/macs/{MAC}/public-hostname": PUBLIC_NAME.encode(),
    f"meta-data/network/interfaces/macs/{MAC}/public-ipv4s": b"203.0.113.9",
    f"meta-data/network/interfaces/macs/{MAC}/security-group-ids": b"sg-00000000000000000\nsg-00000000000000001",
    f"meta-data/network/interfaces/macs/{MAC}/security-groups": b"web\nssh",
    f"meta-data/network/interfaces/macs/{MAC}/subnet-id": b"subnet-00000000000000001",
    f"meta-data/network/interfaces/macs/{MAC}/subnet-ipv4-cidr-block": b"172.31.0.0/20",
    f"meta-data/network/interfaces/macs/{MAC}/vpc-id": b"vpc-00000000000000001",
    f"meta-data/network/interfaces/macs/{MAC}/vpc-ipv4-cidr-block": b"172.31.0.0/16",
    f"meta-data/network/interfaces/macs/{MAC}/vpc-ipv4-cidr-blocks": b"172.31.0.0/16",
    "meta-data/placement/availability-zone": b"us-west-2c",
    "meta-data/placement/availability-zone-id": b"usw2-az3",
    "meta-data/placement/region": b"us-west-2",
    "meta-data/profile": b"default-hvm",
    "meta-data/public-hostname": PUBLIC_NAME.encode(),
    "meta-data/public-ipv4": b"203.0.113.9",
    "meta-data/public-keys/0/openssh-key": b"ssh-ed25519 AAAA my key=1\n",
    "meta-data/ramdisk-id": b"ari-00000000000000001",
    "meta-data/reservation-id": b"r-00000000000000001",
    "meta-data/security-groups": b"web\nssh",
    "meta-data/services/domain": b"amazonaws.com",
    "meta-data/services/partition": b"aws",
    "meta-data/system": b"nitro",
    "meta-data/tags/instance/Name": "wéb".encode(),
    "meta-data/tags/instance/cost:center": b"7",
    "dynamic/fws/instance-monitoring": b"enabled",
    "dynamic/instance-identity/document": DOCUMENT,
    "dynamic/instance-identity/pkcs7": b"pkcs7 of %d" % len(DOCUMENT),
    "dynamic/instance-identity/rsa2048": b"pkcs7 of %d" % len(DOCUMENT),
    "dynamic/instance-identity/signature": b"signature of %d" % len(DOCUMENT),
    "user-data": b"\x00\xff raw",
}


def tree(**changes: Any) -> Tree:
    """The tree of INSTANCE with some fields changed."""
    return build(replace(FACTS, instance=replace(INSTANCE, **changes)), Seal())


def plugged(**changes: Any) -> Tree:
    """The tree of an instance whose interface has some fields changed."""
    return build(replace(FACTS, plugs=(replace(PLUG, interface=replace(INTERFACE, **changes)),)), Seal())


def read(tree: Tree, path: str) -> bytes | None:
    found = tree.lookup(path)
    if found is None:
        return None
    return found.body if isinstance(found.body, bytes) else found.body()


def walk(tree: Tree, folder: str) -> Iterator[tuple[str, bytes]]:
    """Every leaf below `folder`, by nothing but listings."""
    listing = read(tree, folder)
    assert listing is not None, folder
    for line in listing.decode().splitlines():
        name = line.partition("=")[0] + "/" if folder.endswith("/public-keys/") else line
        if folder.count("/") == 2 and name in ("meta-data", "dynamic"):
            name += "/"
        if name.endswith("/"):
            yield from walk(tree, folder + name)
        else:
            body = read(tree, folder + name)
            assert body is not None, folder + name
            yield folder + name, body


@pytest.mark.parametrize("version", ["latest", "2009-04-04", "2021-03-23"])
def test_a_walk_finds_every_leaf_and_no_other(version: str) -> None:
    prefix = f"/{version}/"
    assert {path.removeprefix(prefix): body for path, body in walk(tree(), prefix)} == EXPECTED


def test_an_instance_that_is_named_by_its_id() -> None:
    whole = tree(host_name_type="resource-name")
    for leaf in ("hostname", "local-hostname"):
        assert read(whole, f"/latest/meta-data/{leaf}") == b"i-00000000000000001.us-west-2.compute.internal"


def test_listings_mark_folders_except_in_the_outermost_two() -> None:
    whole = tree()
    assert read(whole, "/") == "\n".join(VERSIONS).encode() and VERSIONS[-1] == LATEST
    assert list(VERSIONS) == sorted(VERSIONS)
    assert read(whole, "/latest/") == b"dynamic\nmeta-data\nuser-data"
    assert read(whole, "/latest/dynamic/") == b"fws/\ninstance-identity/"
    assert read(whole, "/latest/meta-data/block-device-mapping/") == b"ami\nebs1\nebs2\nroot"
    assert read(whole, "/latest/meta-data/network/interfaces/macs/") == f"{MAC}/".encode()
    assert read(whole, "/latest/meta-data/public-keys/") == b"0=my key=1"
    assert read(whole, "/latest/meta-data/public-keys/0/") == b"openssh-key"


@pytest.mark.parametrize("folder", ["/latest", "/latest/meta-data", "/latest/meta-data/public-keys/0"])
def test_a_folder_needs_no_last_slash(folder: str) -> None:
    assert read(tree(), folder) == read(tree(), folder + "/") is not None


@pytest.mark.parametrize(
    "path",
    [
        "/latest/meta-data/instance-id/",
        "/latest/user-data/",
        "/latest/meta-data/instance-id/x",
        "/latest/meta-data/nothing",
        "/latest/meta-data//instance-id",
        "//latest/meta-data",
        "/2009-04-05/meta-data/",
        "/latest/meta-data/iam/",
        "/latest/meta-data/spot/instance-action",
        "/latest/meta-data/product-codes",
        "/latest/meta-data/ancestor-ami-ids",
        "/latest/meta-data/events/recommendations/rebalance",
        "/latest/meta-data/../meta-data/instance-id",
        "/latest/meta-data/tags/instance/with%20space",
        "/latest/meta-data/tags/instance/with%2Fslash",
        "/latest/meta-data/tags/instance/_index",
    ],
)
def test_there_is_nothing_at(path: str) -> None:
    assert tree().lookup(path) is None


def test_percent_encoding_is_read() -> None:
    assert read(tree(), f"/latest/meta-data/network/interfaces/macs/{MAC.replace(':', '%3A')}/mac") == MAC.encode()
    assert read(tree(), "/latest/meta-data/tags/instance/cost%3acenter") == b"7"


@given(st.text())
def test_every_path_has_an_answer_or_none(path: str) -> None:
    WHOLE.lookup("/" + path)
    WHOLE.lookup("/latest/meta-data/" + path)


WHOLE = tree()


def test_topics() -> None:
    found = [tree().lookup(path) for path in ("/", "/latest/", "/latest/meta-data/mac", "/1.0/user-data")]
    assert [each.topic for each in found if each] == ["", "", "meta-data", "user-data"]


def test_what_an_instance_lacks_is_not_listed() -> None:
    bare = tree(user_data="", public_key="", key_name="", kernel_id="", ramdisk_id="", monitoring=False, tags={})
    assert read(bare, "/latest/") == b"dynamic\nmeta-data"
    assert read(bare, "/latest/dynamic/") == b"instance-identity/"
    listed = read(bare, "/latest/meta-data/")
    assert listed is not None
    assert not {b"public-keys/", b"kernel-id", b"ramdisk-id", b"tags/"} & set(listed.split(b"\n"))
    assert bare.lookup("/latest/user-data") is None


def test_block_devices_are_those_of_the_last_start() -> None:
    """What was attached since is not there; of the instance store, what was mapped is."""
    started = INSTANCE.launched_at or INSTANCE.created

    def attached(one: Volume, at: datetime) -> Volume:
        assert one.attachment is not None
        return replace(one, attachment=replace(one.attachment, attached_at=at))

    volumes = (
        attached(volume(1, "/dev/xvda"), started),
        attached(volume(2, "/dev/sdb"), started + timedelta(seconds=1)),
        attached(volume(3, "xvdf"), started),
    )
    instance = replace(INSTANCE, ephemeral_devices={"ephemeral0": "/dev/sdc"})
    found = build(replace(FACTS, instance=instance, volumes=volumes), Seal())
    folder = "/latest/meta-data/block-device-mapping"
    assert read(found, f"{folder}/") == b"ami\nebs1\nephemeral0\nroot"
    assert (read(found, f"{folder}/ebs1"), read(found, f"{folder}/ephemeral0")) == (b"xvdf", b"sdc")


def test_tags_are_shown_only_when_the_instance_says_so() -> None:
    assert tree(metadata=MetadataOptions()).lookup("/latest/meta-data/tags/instance/Name") is None


def test_without_a_public_address() -> None:
    private = build(replace(FACTS, plugs=(replace(PLUG, public=()),)), Seal())
    macs = f"/latest/meta-data/network/interfaces/macs/{MAC}"
    for path in ("/latest/meta-data/public-ipv4", "/latest/meta-data/public-hostname"):
        assert private.lookup(path) is None
    for name in ("public-ipv4s", "public-hostname", "ipv4-associations/"):
        assert private.lookup(f"{macs}/{name}") is None


def test_a_vpc_without_dns_names_leaves_the_public_one_empty() -> None:
    nameless = replace(PLUG, vpc=replace(NETWORK, enable_dns_hostnames=False))
    shown = build(replace(FACTS, plugs=(nameless,)), Seal())
    assert read(shown, "/latest/meta-data/public-hostname") == b""
    assert read(shown, "/latest/meta-data/public-ipv4") == b"203.0.113.9"


def test_rows_that_are_gone_are_left_out() -> None:
    lost = build(Facts(INSTANCE, (Plug(INTERFACE, None, None, ()),), ()), Seal())
    macs = f"/latest/meta-data/network/interfaces/macs/{MAC}"
    assert lost.lookup(f"{macs}/subnet-ipv4-cidr-block") is None
    assert read(lost, f"{macs}/subnet-id") == b"subnet-00000000000000001"
    alone = build(Facts(INSTANCE, (), ()), Seal())
    assert read(alone, "/latest/meta-data/instance-id") == b"i-00000000000000001"
    assert alone.lookup("/latest/meta-data/local-ipv4") is None


def test_other_interfaces_are_shown_after_the_primary_one() -> None:
    second = replace(
        INTERFACE,
        id="eni-00000000000000002",
        mac="02:5e:00:00:00:00",
        private_ip="172.31.5.7",
        public_ip="",
        attachment=replace(INTERFACE.attachment, device_index=1),  # type: ignore[type-var]
    )
    both = build(replace(FACTS, plugs=(PLUG, Plug(second, SUBNET, NETWORK, GROUPS))), Seal())
    assert read(both, "/latest/meta-data/mac") == MAC.encode()
    assert read(both, "/latest/meta-data/network/interfaces/macs/") == f"02:5e:00:00:00:00/\n{MAC}/".encode()
    assert read(both, "/latest/meta-data/network/interfaces/macs/02:5e:00:00:00:00/device-number") == b"1"


def test_an_interface_with_several_of_everything() -> None:
    """A line each, as cloud-init reads them."""
    interface = replace(
        INTERFACE,
        more_private_ips=("172.31.5.20", "172.31.5.21"),
        prefixes=("172.31.6.16/28", "172.31.6.32/28"),
        ipv6_addresses=("2001:db8:ec00:101::4", "2001:db8:ec00:101::5"),
    )
    subnet = replace(SUBNET, ipv6_cidrs=(CidrAssociation(id="subnet-cidr-assoc-1", cidr="2001:db8:ec00:101::/64"),))
    vpc = replace(
        NETWORK,
        more_cidrs=(CidrAssociation(id="vpc-cidr-assoc-1", cidr="10.9.0.0/16"),),
        ipv6_cidrs=(CidrAssociation(id="vpc-cidr-assoc-2", cidr="2001:db8:ec00:100::/56"),),
    )
    public = (("172.31.5.6", "203.0.113.9"), ("172.31.5.21", "203.0.113.21"))
    shown = build(replace(FACTS, plugs=(Plug(interface, subnet, vpc, GROUPS, public),)), Seal())
    macs = f"/latest/meta-data/network/interfaces/macs/{MAC}"
    expected = {
        "local-ipv4s": b"172.31.5.6\n172.31.5.20\n172.31.5.21",
        "public-ipv4s": b"203.0.113.9\n203.0.113.21",
        "ipv4-associations/": b"203.0.113.21\n203.0.113.9",
        "ipv4-associations/203.0.113.21": b"172.31.5.21",
        "ipv4-prefix": b"172.31.6.16/28\n172.31.6.32/28",
        "ipv6s": b"2001:db8:ec00:101::4\n2001:db8:ec00:101::5",
        "subnet-ipv6-cidr-blocks": b"2001:db8:ec00:101::/64",
        "vpc-ipv4-cidr-block": b"172.31.0.0/16",
        "vpc-ipv4-cidr-blocks": b"172.31.0.0/16\n10.9.0.0/16",
        "vpc-ipv6-cidr-blocks": b"2001:db8:ec00:100::/56",
    }
    assert {name: read(shown, f"{macs}/{name}") for name in expected} == expected
    assert shown.lookup(f"{macs}/ipv6-prefix") is None
    assert read(shown, "/latest/meta-data/ipv6") == b"2001:db8:ec00:101::4"
    assert read(shown, "/latest/meta-data/local-ipv4") == b"172.31.5.6"


def test_a_public_address_of_a_secondary_one_is_not_the_instances() -> None:
    secondary = replace(PLUG, public=(("172.31.5.20", "203.0.113.20"),))
    shown = build(replace(FACTS, plugs=(secondary,)), Seal())
    assert shown.lookup("/latest/meta-data/public-ipv4") is None
    assert read(shown, f"/latest/meta-data/network/interfaces/macs/{MAC}/public-ipv4s") == b"203.0.113.20"


@pytest.mark.parametrize(
    ("region", "partition", "domain"),
    [
        ("eu-north-1", b"aws", b"amazonaws.com"),
        ("us-gov-west-1", b"aws-us-gov", b"amazonaws.com"),
        ("cn-north-1", b"aws-cn", b"amazonaws.com.cn"),
    ],
)
def test_partitions(region: str, partition: bytes, domain: bytes) -> None:
    there = tree(region=region, zone=region + "a")
    assert read(there, "/latest/meta-data/services/partition") == partition
    assert read(there, "/latest/meta-data/services/domain") == domain


def test_the_identity_document_has_amazons_members_in_their_order() -> None:
    assert DOCUMENT.decode().splitlines()[:3] == [
        "{",
        '  "accountId" : "111122223333",',
        '  "architecture" : "x86_64",',
    ]
    assert list(json.loads(DOCUMENT).items()) == [
        ("accountId", "111122223333"),
        ("architecture", "x86_64"),
        ("availabilityZone", "us-west-2c"),
        ("billingProducts", None),
        ("devpayProductCodes", None),
        ("marketplaceProductCodes", None),
        ("imageId", "ami-00000000000000001"),
        ("instanceId", "i-00000000000000001"),
        ("instanceType", "m5.large"),
        ("kernelId", "aki-00000000000000001"),
        ("pendingTime", "2026-01-02T03:04:05Z"),
        ("privateIp", "172.31.5.6"),
        ("ramdiskId", "ari-00000000000000001"),
        ("region", "us-west-2"),
        ("version", "2017-09-30"),
    ]
    assert identity_document(replace(FACTS, instance=replace(INSTANCE, tags={}, revision=9))) == DOCUMENT


def test_last_modified_is_the_last_start() -> None:
    assert tree().last_modified == "Fri, 02 Jan 2026 03:04:05 GMT"

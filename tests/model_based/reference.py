"""The reference: EC2 as a few dictionaries of small things, written for the test and without a look at how it is done.

What a request is to do is in `compute_rules` and `network_rules`, and what may happen without one, as time passes, in
`laws`. A thing is what a user can know of a resource; `seen(row)` is the thing that a row of the store stands for.

    a call     rule(reference, who, parameters) ──> Refused(codes), or an effect that its answer will have
    a step     law(reference, old thing, new thing) ──> fine, or what is wrong with that
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from orchestrator.model.resource import Resource

Params = dict[str, Any]
Answer = dict[str, Any]
Rows = Mapping[tuple[str, str], "Resource | None"]  # what a commit wrote, by kind and id
Effect = Callable[[Answer, Rows], None]
After = Mapping[str, "Thing | None"]  # what a commit made of things, by id
Law = Callable[["Reference", "Thing", "Thing | None", After], bool]  # whether that may happen by itself
T = TypeVar("T", bound="Thing")

KEPT = timedelta(hours=1)  # terminated instances and deleted NAT gateways can still be seen
QUOTAS = {"instances": 9, "volumes": 24, "snapshots": 16, "vpcs": 4, "addresses": 5, "security-groups": 10}
QUOTAS |= {"interfaces": 20}
MAX_PENDING_SNAPSHOTS = 5
ROOT = "/dev/xvda"
MAX_INTERFACES = {"t3.micro": 2, "m5.large": 3}
NO_ACCOUNT = "999900001111"  # whose images all may use


class Refused(Exception):
    """A call must be refused with one of these codes."""

    def __init__(self, *codes: str, effect: Effect | None = None) -> None:
        super().__init__(" or ".join(codes))
        self.codes = codes
        self.effect = effect  # what it does even so


class Broken(AssertionError):
    """A law does not hold."""


# --- things -----------------------------------------------------------------------------------------------------------


@dataclass
class Attachment:
    instance: str
    place: str  # the device, or the device index
    state: str
    goes: bool  # when the instance is terminated
    id: str = ""


@dataclass
class Thing:
    id: str
    account: str
    tags: dict[str, str]


@dataclass
class Instance(Thing):
    state: str
    image: str
    type: str
    zone: str
    vpc: str
    subnet: str
    keeps_on: bool  # disableApiTermination
    keeps_running: bool  # disableApiStop
    at_shutdown: str
    token: str
    wanted: str = field(default="running", compare=False)
    asked_at: int = field(default=0, compare=False)  # the count of faults when it was
    ended_at: datetime | None = field(default=None, compare=False)
    has_run: bool = field(default=False, compare=False)


@dataclass
class Volume(Thing):
    state: str
    size: int
    type: str
    zone: str
    snapshot: str
    attachment: Attachment | None
    change: str  # the newest modification's state
    original: tuple[int, str] = field(default=(0, ""), compare=False)
    asked_at: int = field(default=0, compare=False)


@dataclass
class Snapshot(Thing):
    state: str
    volume: str
    size: int
    asked_at: int = field(default=0, compare=False)


@dataclass
class Image(Thing):
    state: str
    name: str
    devices: dict[str, tuple[str, int, str, bool]]  # device -> snapshot, size, type, whether it goes


@dataclass
class Interface(Thing):
    state: str
    vpc: str
    subnet: str
    zone: str
    address: str
    groups: tuple[str, ...]
    attachment: Attachment | None
    nat: bool
    public: bool = field(default=False, compare=False)  # has an auto-assigned address: follows from more than is told
    wants_public: bool = field(default=False, compare=False)


@dataclass
class Address(Thing):
    ip: str
    interface: str
    association: str
    ended: str = field(default="", compare=False)


@dataclass
class Group(Thing):
    name: str
    vpc: str
    rules: dict[str, tuple[bool, str, int, int, str]]  # id -> egress, protocol, ports, and whom


@dataclass
class Vpc(Thing):
    cidr: str
    is_default: bool


@dataclass
class Subnet(Thing):
    vpc: str
    zone: str
    cidr: str
    default: bool


@dataclass
class Table(Thing):
    vpc: str
    is_main: bool
    serves: dict[str, str]  # association -> subnet


@dataclass
class Gateway(Thing):
    vpc: str


@dataclass
class KeyPair(Thing):
    name: str


@dataclass
class Nat(Thing):
    state: str
    vpc: str
    subnet: str
    interface: str
    internet: bool  # it needs an internet gateway
    ended_at: datetime | None = field(default=None, compare=False)


def _attachment(row: Any, place: str) -> Attachment | None:
    it = row.attachment
    if it is None:
        return None
    return Attachment(
        it.instance_id, str(getattr(it, place)), it.state, it.delete_on_termination, getattr(it, "id", "")
    )


def _whom(rule: Any) -> str:
    return str(rule.cidr_ipv4 or rule.cidr_ipv6 or rule.prefix_list_id or rule.group_id)


READERS: dict[str, Callable[[Any, dict[str, Any]], Thing]] = {
    "instance": lambda row, base: Instance(
        **base,
        state=str(row.state),
        image=row.image_id,
        type=row.instance_type,
        zone=row.zone,
        vpc=row.vpc_id,
        subnet=row.subnet_id,
        keeps_on=row.disable_api_termination,
        keeps_running=row.disable_api_stop,
        at_shutdown=row.shutdown_behavior,
        token=row.client_token,
        ended_at=row.ended_at,
    ),
    "volume": lambda row, base: Volume(
        **base,
        state=row.state,
        size=row.size_gib,
        type=row.volume_type,
        zone=row.zone,
        snapshot=row.snapshot_id,
        attachment=_attachment(row, "device"),
        change=row.modification.state if row.modification else "",
        original=(row.modification.original.size_gib, row.modification.original.volume_type)
        if row.modification
        else (0, ""),
    ),
    "snapshot": lambda row, base: Snapshot(**base, state=row.state, volume=row.volume_id, size=row.size_gib),
    "image": lambda row, base: Image(
        **base,
        state=row.state,
        name=row.name,
        devices={
            each.device: (each.snapshot_id, each.size_gib, each.volume_type, each.delete_on_termination)
            for each in row.block_devices
        },
    ),
    "network-interface": lambda row, base: Interface(
        **base,
        state=row.state,
        vpc=row.vpc_id,
        subnet=row.subnet_id,
        zone=row.zone,
        address=row.private_ip,
        groups=row.groups,
        attachment=_attachment(row, "device_index"),
        nat=row.interface_type == "nat_gateway",
        public=bool(row.public_ip),
        wants_public=row.auto_public_ip,
    ),
    "elastic-ip": lambda row, base: Address(
        **base,
        ip=row.public_ip,
        interface=row.interface_id,
        association=row.association_id,
        ended=row.ended_association_id,
    ),
    "security-group": lambda row, base: Group(
        **base,
        name=row.name,
        vpc=row.vpc_id,
        rules={each.id: (each.egress, each.protocol, each.from_port, each.to_port, _whom(each)) for each in row.rules},
    ),
    "vpc": lambda row, base: Vpc(**base, cidr=row.cidr, is_default=row.is_default),
    "subnet": lambda row, base: Subnet(
        **base, vpc=row.vpc_id, zone=row.zone, cidr=row.cidr, default=row.default_for_zone
    ),
    "route-table": lambda row, base: Table(
        **base, vpc=row.vpc_id, is_main=bool(row.main_association_id), serves=dict(row.associations)
    ),
    "internet-gateway": lambda row, base: Gateway(**base, vpc=row.vpc_id),
    "key-pair": lambda row, base: KeyPair(**base, name=row.name),
    "natgateway": lambda row, base: Nat(
        **base,
        state=row.state,
        vpc=row.vpc_id,
        subnet=row.subnet_id,
        interface=row.interface_id,
        internet=row.connectivity == "public",
        ended_at=row.deleted_at,
    ),
}


def seen(row: Resource) -> Thing:
    return READERS[row.KIND](row, {"id": row.id, "account": row.account, "tags": dict(row.tags)})


# EC2's NotFound codes, and the kinds' classes.
KINDS: dict[type[Thing], tuple[str, str]] = {
    Instance: ("i", "InvalidInstanceID.NotFound"),
    Volume: ("vol", "InvalidVolume.NotFound"),
    Snapshot: ("snap", "InvalidSnapshot.NotFound"),
    Image: ("ami", "InvalidAMIID.NotFound"),
    Interface: ("eni", "InvalidNetworkInterfaceID.NotFound"),
    Address: ("eipalloc", "InvalidAllocationID.NotFound"),
    Group: ("sg", "InvalidGroup.NotFound"),
    Vpc: ("vpc", "InvalidVpcID.NotFound"),
    Subnet: ("subnet", "InvalidSubnetID.NotFound"),
    Table: ("rtb", "InvalidRouteTableID.NotFound"),
    Gateway: ("igw", "InvalidInternetGatewayID.NotFound"),
    KeyPair: ("key", "InvalidKeyPair.NotFound"),
    Nat: ("nat", "NatGatewayNotFound"),
}


@dataclass(frozen=True)
class Actor:
    account: str
    user: bool = False  # of limited policy; else the account's root


# What the user of each account may do; of what has a power button, only what is tagged `team: blue`.
USER_MAY = ("CreateVolume", "CreateSnapshot", "CreateTags", "DeleteTags", "AllocateAddress", "CreateSecurityGroup")
USER_MAY_BLUE = ("StartInstances", "StopInstances", "RebootInstances")


class Reference:
    def __init__(self, laws: Mapping[type[Thing], Law]) -> None:
        self._laws = laws
        self.things: dict[str, Thing] = {}
        self.tokens: dict[tuple[str, str, str], tuple[str, Answer]] = {}  # account, action, token
        self.faults = 0  # that the host has had so far
        self.powered_off: set[str] = set()  # guests that switched themselves off
        self.now = datetime.min

    # --- looking ---

    def of(self, kind: type[T], account: str = "") -> Iterator[T]:
        for thing in self.things.values():
            if isinstance(thing, kind) and account in ("", thing.account):
                yield thing

    def get(self, kind: type[T], thing_id: str) -> T | None:
        thing = self.things.get(thing_id)
        return thing if isinstance(thing, kind) else None

    def need(self, who: Actor, kind: type[T], thing_id: str) -> T:
        """The caller's own, or the refusal."""
        thing = self.get(kind, thing_id)
        if thing is None or thing.account != who.account:
            raise Refused(KINDS[kind][1])
        return thing

    def need_image(self, who: Actor, image_id: str) -> Image:
        image = self.get(Image, image_id)
        if image is None or image.account not in (who.account, NO_ACCOUNT):
            raise Refused("InvalidAMIID.NotFound")
        return image

    def need_snapshot(self, who: Actor, snapshot_id: str) -> Snapshot:
        """One that something can be made of."""
        snapshot = self.get(Snapshot, snapshot_id)
        if snapshot is None or snapshot.account not in (who.account, NO_ACCOUNT):
            raise Refused("InvalidSnapshot.NotFound")
        if snapshot.state != "completed":
            raise Refused("IncorrectState")
        return snapshot

    def volumes_of(self, instance_id: str) -> list[Volume]:
        return [each for each in self.of(Volume) if each.attachment and each.attachment.instance == instance_id]

    def interfaces_of(self, instance_id: str) -> list[Interface]:
        return [each for each in self.of(Interface) if each.attachment and each.attachment.instance == instance_id]

    def images_of(self, snapshot_id: str) -> list[Image]:
        return [each for each in self.of(Image) if any(d[0] == snapshot_id for d in each.devices.values())]

    def used(self, quota: str, account: str) -> int:
        if quota == "instances":
            return sum(each.state != "terminated" for each in self.of(Instance, account))
        kinds: dict[str, type[Thing]] = {
            "volumes": Volume,
            "snapshots": Snapshot,
            "vpcs": Vpc,
            "addresses": Address,
            "security-groups": Group,
            "interfaces": Interface,
        }
        return sum(1 for _ in self.of(kinds[quota], account))

    def check_quota(self, who: Actor, **more: int) -> None:
        """Each by the quota's name with _ for -."""
        codes = {
            "volumes": "VolumeLimitExceeded",
            "snapshots": "SnapshotLimitExceeded",
            "vpcs": "VpcLimitExceeded",
            "addresses": "AddressLimitExceeded",
            "security-groups": "SecurityGroupLimitExceeded",
            "interfaces": "NetworkInterfaceLimitExceeded",
        }
        names = {name.replace("_", "-"): count for name, count in more.items()}
        over = [codes[name] for name, count in names.items() if self.used(name, who.account) + count > QUOTAS[name]]
        if over:
            raise Refused(*over)

    # --- who may ---

    def check_may(self, who: Actor, action: str, params: Params) -> None:
        if not who.user or action.startswith("Describe") or action in USER_MAY:
            return
        named = [self.things.get(each) for each in params.get("InstanceIds", ())]
        blue = [each is not None and each.account == who.account and each.tags.get("team") == "blue" for each in named]
        if action not in USER_MAY_BLUE or not blue or not all(blue):
            raise Refused("UnauthorizedOperation")

    # --- what a commit wrote ---

    def put(self, thing: Thing) -> None:
        self.things[thing.id] = thing

    def drop(self, thing: Thing) -> None:
        del self.things[thing.id]

    def check_call(self, rows: Rows) -> None:
        """After a call's effect: its commit has written just what it was to write."""
        for (kind, thing_id), row in rows.items():
            if kind not in READERS:
                continue
            mine = self.things.get(thing_id)
            found = seen(row) if row is not None else None
            if mine != found:
                raise Broken(f"{thing_id} is now\n  {found}\nand should be\n  {mine}")
            if mine is not None and found is not None:
                _take_over(mine, found)
        if None in rows.values():
            self.check_references()

    def check_step(self, rows: Rows) -> None:
        """No call wrote this: it is the course of things."""
        before = dict(self.things)
        after = {thing_id: seen(row) if row else None for (kind, thing_id), row in rows.items() if kind in READERS}
        for thing_id, new in after.items():
            old = before.get(thing_id)
            if old is None:
                raise Broken(f"nobody asked for {new or thing_id}")
            if new is not None:
                _keep(new, old)
            law = self._laws.get(type(old))
            if law is None or not law(self, old, new, after):
                raise Broken(f"that must not happen by itself:\n  {old}\nbecame\n  {new}\nwith {list(after)}")
            if new is None:
                self.drop(old)
            else:
                self.put(new)
        if None in rows.values():
            self.check_references()

    def check_references(self) -> None:
        """Nothing refers to what is gone."""
        for thing in self.things.values():
            gone = [each for each in _references(thing) if each and each not in self.things]
            if gone:
                raise Broken(f"{thing} refers to {gone}, which is gone")


def _references(thing: Thing) -> list[str]:
    match thing:
        case Volume():
            return [thing.attachment.instance] if thing.attachment else []
        case Interface():
            at = [thing.attachment.instance] if thing.attachment else []
            return [thing.vpc, thing.subnet, *thing.groups, *at]
        case Address():
            return [thing.interface]
        case Image():
            return [snapshot for snapshot, *_ in thing.devices.values()]
        case Group():
            return [thing.vpc, *(whom for *_, whom in thing.rules.values() if whom.startswith("sg-"))]
        case Subnet() | Gateway():
            return [thing.vpc]
        case Table():
            return [thing.vpc, *thing.serves.values()]
        case Nat() if thing.state in ("pending", "available"):
            return [thing.vpc, thing.subnet, thing.interface]
    return []


def _take_over(mine: Thing, found: Thing) -> None:
    """What is not compared, since it follows from more than is told here."""
    for name in ("public", "wants_public", "ended", "original", "ended_at"):
        if hasattr(mine, name):
            setattr(mine, name, getattr(found, name))


def _keep(new: Thing, old: Thing) -> None:
    """What no row says."""
    for name in ("wanted", "asked_at", "has_run"):
        if hasattr(new, name):
            setattr(new, name, getattr(old, name))

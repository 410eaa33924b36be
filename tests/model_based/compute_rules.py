"""What calls about instances, volumes, snapshots and images must do: refused with which codes, or with which effect.

A rule is asked before the call is run, at the same instant; its effect is applied once the call has committed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.model_based.reference import (
    KINDS,
    MAX_PENDING_SNAPSHOTS,
    QUOTAS,
    READERS,
    ROOT,
    Actor,
    Answer,
    Attachment,
    Broken,
    Effect,
    Group,
    Image,
    Instance,
    Interface,
    KeyPair,
    Params,
    Reference,
    Refused,
    Rows,
    Snapshot,
    Subnet,
    T,
    Thing,
    Volume,
    Vpc,
    seen,
)

Rule = Callable[[Reference, Actor, Params], Effect]
RULES: dict[str, Rule] = {}
ZONES = ("us-east-1a", "us-east-1b")


def rule(made: Rule) -> Rule:
    """By the name of its action."""
    RULES[made.__name__] = made
    return made


def tags_of(params: Params, kind: str) -> dict[str, str]:
    for each in params.get("TagSpecifications", ()):
        if each["ResourceType"] == kind:
            return {tag["Key"]: tag["Value"] for tag in each["Tags"]}
    return {}


def fresh(m: Reference, rows: Rows, kind: type[T]) -> list[T]:
    """What a commit has made of a kind."""
    found = (seen(row) for (name, _), row in rows.items() if row is not None and name in READERS)
    return [each for each in found if isinstance(each, kind) and each.id not in m.things]


def all_of(*checks: Callable[[], object]) -> None:
    """Refused with the code of any that fails: which is looked at first is nobody's business."""
    codes: list[str] = []
    for check in checks:
        try:
            check()
        except Refused as refused:
            codes += refused.codes
    if codes:
        raise Refused(*codes)


def only(found: list[T]) -> T:
    if len(found) != 1:
        raise Broken(f"one was asked for, and there are {found}")
    return found[0]


# --- instances --------------------------------------------------------------------------------------------------------


def free_addresses(m: Reference, subnet: Subnet) -> int:
    size = 1 << (32 - int(subnet.cidr.partition("/")[2]))
    return size - 5 - sum(each.subnet == subnet.id for each in m.of(Interface))


def find_groups(m: Reference, who: Actor, vpc: str, group_ids: list[str]) -> tuple[str, ...]:
    if not group_ids:
        return tuple(each.id for each in m.of(Group, who.account) if each.vpc == vpc and each.name == "default")
    groups = [m.need(who, Group, each) for each in dict.fromkeys(group_ids)]
    if any(each.vpc != vpc for each in groups):
        raise Refused("InvalidParameter")
    return tuple(each.id for each in groups)


@rule
def RunInstances(m: Reference, who: Actor, p: Params) -> Effect:
    if p["MinCount"] > p["MaxCount"]:
        raise Refused("InvalidParameterCombination")
    image = m.need_image(who, p["ImageId"])
    if image.state != "available":
        raise Refused("InvalidAMIID.Unavailable")
    subnet = _launch_subnet(m, who, p)
    disks: dict[str, tuple[str, int, str, bool]] = {}
    all_of(
        lambda: find_groups(m, who, subnet.vpc, p.get("SecurityGroupIds", [])),
        lambda: disks.update(_launch_disks(m, who, image, p)),
        lambda: _check_key(m, who, p),
    )
    groups = find_groups(m, who, subnet.vpc, p.get("SecurityGroupIds", []))
    least, room = p["MinCount"], QUOTAS["instances"] - m.used("instances", who.account)
    codes = ["InstanceLimitExceeded"] if room < least else []
    codes += ["InsufficientFreeAddressesInSubnet"] if free_addresses(m, subnet) < least else []
    if codes:
        raise Refused(*codes)
    count = min(p["MaxCount"], room, free_addresses(m, subnet))
    m.check_quota(who, volumes=count * len(disks), interfaces=count)

    def effect(answer: Answer, rows: Rows) -> None:
        made = [each["InstanceId"] for each in answer["Instances"]]
        volumes, interfaces = fresh(m, rows, Volume), fresh(m, rows, Interface)
        if len(set(made)) != count or len(volumes) != count * len(disks) or len(interfaces) != count:
            raise Broken(f"{count} instances with {len(disks)} disks each were asked for: {made}, {volumes}")
        for instance_id in made:
            m.put(
                Instance(
                    id=instance_id,
                    account=who.account,
                    tags=tags_of(p, "instance"),
                    state="pending",
                    image=p["ImageId"],
                    type=p["InstanceType"],
                    zone=subnet.zone,
                    vpc=subnet.vpc,
                    subnet=subnet.id,
                    keeps_on=p.get("DisableApiTermination", False),
                    keeps_running=p.get("DisableApiStop", False),
                    at_shutdown=p.get("InstanceInitiatedShutdownBehavior", "stop"),
                    token=p.get("ClientToken", ""),
                    asked_at=m.faults,
                )
            )
            for volume in volumes:
                if volume.attachment and volume.attachment.instance == instance_id:
                    device = volume.attachment.place
                    snapshot, size, kind, goes = disks[device]
                    m.put(
                        Volume(
                            id=volume.id,
                            account=who.account,
                            tags=tags_of(p, "volume"),
                            state="creating",
                            size=size,
                            type=kind,
                            zone=subnet.zone,
                            snapshot=snapshot,
                            attachment=Attachment(instance_id, device, "attaching", goes),
                            change="",
                            asked_at=m.faults,
                        )
                    )
            if sorted(each.attachment.place for each in m.volumes_of(instance_id) if each.attachment) != sorted(disks):
                raise Broken(f"{instance_id} has other disks than {disks}: {m.volumes_of(instance_id)}")
            interface = only(
                [each for each in interfaces if each.attachment and each.attachment.instance == instance_id]
            )
            assert interface.attachment is not None
            m.put(
                Interface(
                    id=interface.id,
                    account=who.account,
                    tags=tags_of(p, "network-interface"),
                    state="in-use",
                    vpc=subnet.vpc,
                    subnet=subnet.id,
                    zone=subnet.zone,
                    address=new_address(m, subnet, interface.address),
                    groups=groups,
                    attachment=Attachment(instance_id, "0", "attached", True, interface.attachment.id),
                    nat=False,
                )
            )

    return effect


def new_address(m: Reference, subnet: Subnet, address: str) -> str:
    if any(each.subnet == subnet.id and each.address == address for each in m.of(Interface)):
        raise Broken(f"{address} of {subnet.id} is given twice")
    return address


def _launch_subnet(m: Reference, who: Actor, p: Params) -> Subnet:
    if p.get("SubnetId"):
        return m.need(who, Subnet, p["SubnetId"])
    home = next((each.id for each in m.of(Vpc, who.account) if each.is_default), "")
    choices = [each for each in m.of(Subnet, who.account) if each.default and each.vpc == home]
    if not choices:
        raise Refused("MissingInput" if home else "VPCIdNotSpecified")
    return min(choices, key=lambda each: each.zone)


def _check_key(m: Reference, who: Actor, p: Params) -> None:
    if p.get("KeyName") and all(each.name != p["KeyName"] for each in m.of(KeyPair, who.account)):
        raise Refused("InvalidKeyPair.NotFound")


def _launch_disks(m: Reference, who: Actor, image: Image, p: Params) -> dict[str, tuple[str, int, str, bool]]:
    disks = dict(image.devices)
    for mapping in p.get("BlockDeviceMappings", ()):
        device, ebs = mapping["DeviceName"], mapping["Ebs"]
        snapshot_id, size, kind, goes = disks.get(device, ("", 0, "gp2", True))
        own = "SnapshotId" in ebs and ebs["SnapshotId"] != snapshot_id
        if own:
            snapshot_id, size = ebs["SnapshotId"], 0
            m.need_snapshot(who, snapshot_id)
        snapshot = m.get(Snapshot, snapshot_id)
        least = snapshot.size if snapshot else 1
        size = ebs.get("VolumeSize", size or least)
        if size < least:
            raise Refused("InvalidBlockDeviceMapping")
        disks[device] = (snapshot_id, size, ebs.get("VolumeType", kind), ebs.get("DeleteOnTermination", goes))
    return disks


def _instances(m: Reference, who: Actor, p: Params) -> list[Instance]:
    return [m.need(who, Instance, each) for each in dict.fromkeys(p["InstanceIds"])]


def _deny(found: list[Instance], *states: str) -> None:
    if any(each.state in states for each in found):
        raise Refused("IncorrectInstanceState")


def _ask(m: Reference, instance: Instance, state: str, wanted: str) -> None:
    instance.state, instance.wanted, instance.asked_at = state, wanted, m.faults


@rule
def StartInstances(m: Reference, who: Actor, p: Params) -> Effect:
    found = _instances(m, who, p)
    _deny(found, "shutting-down", "terminated", "stopping")
    starting = [each for each in found if each.state == "stopped"]
    for each in starting:
        if all(not volume.attachment or volume.attachment.place != ROOT for volume in m.volumes_of(each.id)):
            raise Refused("InvalidParameterValue")

    def effect(answer: Answer, rows: Rows) -> None:
        check_changes(answer["StartingInstances"], found, starting, "pending")
        for each in starting:
            _ask(m, each, "pending", "running")

    return effect


def check_changes(shown: list[Answer], found: list[Instance], changed: list[Instance], state: str) -> None:
    """PreviousState and CurrentState of an answer."""
    told = {each["InstanceId"]: (each["PreviousState"]["Name"], each["CurrentState"]["Name"]) for each in shown}
    right = {each.id: (each.state, state if each in changed else each.state) for each in found}
    if told != right:
        raise Broken(f"the answer says {told}, and it is {right}")


@rule
def StopInstances(m: Reference, who: Actor, p: Params) -> Effect:
    found = _instances(m, who, p)
    _deny(found, "pending", "shutting-down", "terminated")
    if any(each.keeps_running and each.state != "stopped" for each in found):
        raise Refused("OperationNotPermitted")
    stopping = [each for each in found if each.state == "running"]

    def effect(answer: Answer, rows: Rows) -> None:
        check_changes(answer["StoppingInstances"], found, stopping, "stopping")
        for each in stopping:
            _ask(m, each, "stopping", "stopped")

    return effect


@rule
def RebootInstances(m: Reference, who: Actor, p: Params) -> Effect:
    _deny(_instances(m, who, p), "pending", "shutting-down", "terminated", "stopping", "stopped")
    return nothing


def nothing(answer: Answer, rows: Rows) -> None:
    """Nothing that is told of."""


@rule
def TerminateInstances(m: Reference, who: Actor, p: Params) -> Effect:
    found = _instances(m, who, p)
    ending = [each for each in found if each.state not in ("shutting-down", "terminated")]
    kept = {each.zone for each in ending if each.keeps_on}
    going = [each for each in ending if each.zone not in kept]

    def effect(answer: Answer, rows: Rows) -> None:
        if not kept:
            check_changes(answer["TerminatingInstances"], found, going, "shutting-down")
        for each in going:
            _ask(m, each, "shutting-down", "terminated")

    if kept:
        raise Refused("OperationNotPermitted", effect=effect)
    return effect


@rule
def ModifyInstanceAttribute(m: Reference, who: Actor, p: Params) -> Effect:
    instance = m.need(who, Instance, p["InstanceId"])
    _deny([instance], "shutting-down", "terminated")

    def effect(answer: Answer, rows: Rows) -> None:
        if "DisableApiTermination" in p:
            instance.keeps_on = p["DisableApiTermination"]["Value"]
        elif "DisableApiStop" in p:
            instance.keeps_running = p["DisableApiStop"]["Value"]
        else:
            instance.at_shutdown = p["InstanceInitiatedShutdownBehavior"]["Value"]

    return effect


# --- volumes ----------------------------------------------------------------------------------------------------------


@rule
def CreateVolume(m: Reference, who: Actor, p: Params) -> Effect:
    if p["AvailabilityZone"] not in ZONES:
        raise Refused("InvalidZone.NotFound")
    snapshot = m.need_snapshot(who, p["SnapshotId"]) if "SnapshotId" in p else None
    size = p.get("Size", snapshot.size if snapshot else 0)
    if snapshot is not None and size < snapshot.size:
        raise Refused("InvalidParameterValue")
    m.check_quota(who, volumes=1)

    def effect(answer: Answer, rows: Rows) -> None:
        m.put(
            Volume(
                id=answer["VolumeId"],
                account=who.account,
                tags=tags_of(p, "volume"),
                state="creating",
                size=size,
                type=p.get("VolumeType", "gp2"),
                zone=p["AvailabilityZone"],
                snapshot=p.get("SnapshotId", ""),
                attachment=None,
                change="",
                asked_at=m.faults,
            )
        )

    return effect


@rule
def DeleteVolume(m: Reference, who: Actor, p: Params) -> Effect:
    volume = m.need(who, Volume, p["VolumeId"])
    if volume.attachment is not None:
        raise Refused("VolumeInUse")
    if volume.state not in ("available", "error", "deleting"):
        raise Refused("IncorrectState")

    def effect(answer: Answer, rows: Rows) -> None:
        volume.state = "deleting"

    return effect


@rule
def AttachVolume(m: Reference, who: Actor, p: Params) -> Effect:
    volume, instance = m.need(who, Volume, p["VolumeId"]), m.need(who, Instance, p["InstanceId"])
    if volume.attachment is not None:
        raise Refused("VolumeInUse")
    if volume.state != "available" or instance.state not in ("running", "stopped"):
        raise Refused("IncorrectState")
    if volume.zone != instance.zone:
        raise Refused("InvalidVolume.ZoneMismatch")
    if any(each.attachment and each.attachment.place == p["Device"] for each in m.volumes_of(instance.id)):
        raise Refused("InvalidParameterValue")

    def effect(answer: Answer, rows: Rows) -> None:
        state = "attaching" if instance.state == "running" else "attached"
        volume.state, volume.attachment = "in-use", Attachment(instance.id, p["Device"], state, False)

    return effect


@rule
def DetachVolume(m: Reference, who: Actor, p: Params) -> Effect:
    volume = m.need(who, Volume, p["VolumeId"])
    at = volume.attachment
    if at is None:
        raise Refused("IncorrectState")
    instance = m.get(Instance, at.instance)
    assert instance is not None, f"{volume} is attached to what is not there"
    if at.place == ROOT and instance.state != "stopped":
        raise Refused("OperationNotPermitted")
    if instance.state not in ("running", "stopped") or (at.state == "attaching" and not p.get("Force")):
        raise Refused("IncorrectState")

    def effect(answer: Answer, rows: Rows) -> None:
        if instance.state == "running":
            at.state = "detaching"
        else:
            volume.state, volume.attachment = "available", None

    return effect


@rule
def ModifyVolume(m: Reference, who: Actor, p: Params) -> Effect:
    volume = m.need(who, Volume, p["VolumeId"])
    if volume.state not in ("available", "in-use"):
        raise Refused("IncorrectState")
    if volume.change in ("modifying", "optimizing"):
        raise Refused("IncorrectModificationState")
    size, kind = p.get("Size", volume.size), p.get("VolumeType", volume.type)
    if size < volume.size:
        raise Refused("InvalidParameterValue")

    def effect(answer: Answer, rows: Rows) -> None:
        same = (size, kind) == (volume.size, volume.type)
        volume.size, volume.type, volume.asked_at = size, kind, m.faults
        volume.change = "completed" if same else "modifying"

    return effect


# --- snapshots --------------------------------------------------------------------------------------------------------


def _check_freezable(m: Reference, volume: Volume) -> None:
    if volume.state not in ("available", "in-use"):
        raise Refused("IncorrectState")
    pending = [each for each in m.of(Snapshot) if each.volume == volume.id and each.state == "pending"]
    if len(pending) >= MAX_PENDING_SNAPSHOTS:
        raise Refused("ConcurrentSnapshotLimitExceeded")


def _snapshot(m: Reference, who: Actor, snapshot_id: str, volume: str, size: int, tags: dict[str, str]) -> Snapshot:
    made = Snapshot(
        id=snapshot_id, account=who.account, tags=tags, state="pending", volume=volume, size=size, asked_at=m.faults
    )
    m.put(made)
    return made


@rule
def CreateSnapshot(m: Reference, who: Actor, p: Params) -> Effect:
    volume = m.need(who, Volume, p["VolumeId"])
    _check_freezable(m, volume)
    m.check_quota(who, snapshots=1)

    def effect(answer: Answer, rows: Rows) -> None:
        _snapshot(m, who, answer["SnapshotId"], volume.id, volume.size, tags_of(p, "snapshot"))

    return effect


@rule
def DeleteSnapshot(m: Reference, who: Actor, p: Params) -> Effect:
    snapshot = m.get(Snapshot, p["SnapshotId"])
    if snapshot is not None and snapshot.account not in (who.account,) and m.images_of(snapshot.id):
        raise Refused("AuthFailure", "InvalidSnapshot.NotFound")
    snapshot = m.need(who, Snapshot, p["SnapshotId"])
    if m.images_of(snapshot.id):
        raise Refused("InvalidSnapshot.InUse")
    return lambda answer, rows: m.drop(snapshot)


@rule
def CopySnapshot(m: Reference, who: Actor, p: Params) -> Effect:
    source = m.need_snapshot(who, p["SourceSnapshotId"])
    m.check_quota(who, snapshots=1)

    def effect(answer: Answer, rows: Rows) -> None:
        _snapshot(m, who, answer["SnapshotId"], "", source.size, tags_of(p, "snapshot"))

    return effect


# --- images -----------------------------------------------------------------------------------------------------------


def _check_name(m: Reference, who: Actor, name: str) -> None:
    if any(each.name == name and each.state != "failed" for each in m.of(Image, who.account)):
        raise Refused("InvalidAMIName.Duplicate")


@rule
def CreateImage(m: Reference, who: Actor, p: Params) -> Effect:
    _check_name(m, who, p["Name"])
    instance = m.need(who, Instance, p["InstanceId"])
    _deny([instance], "pending", "shutting-down", "terminated", "stopping")
    volumes = [each for each in m.volumes_of(instance.id) if each.attachment and each.attachment.state != "detaching"]
    if all(each.attachment and each.attachment.place != ROOT for each in volumes):
        raise Refused("IncorrectInstanceState")
    all_of(*(partial(_check_freezable, m, each) for each in volumes))
    m.check_quota(who, snapshots=len(volumes))

    def effect(answer: Answer, rows: Rows) -> None:
        made = {each.volume: each for each in fresh(m, rows, Snapshot)}
        if sorted(made) != sorted(each.id for each in volumes):
            raise Broken(f"snapshots of {[each.id for each in volumes]} were asked for: {made}")
        devices = {}
        for each in volumes:
            assert each.attachment is not None
            snapshot = _snapshot(m, who, made[each.id].id, each.id, each.size, {})
            devices[each.attachment.place] = (snapshot.id, each.size, each.type, each.attachment.goes)
        m.put(Image(answer["ImageId"], who.account, tags_of(p, "image"), "pending", p["Name"], devices))

    return effect


@rule
def RegisterImage(m: Reference, who: Actor, p: Params) -> Effect:
    _check_name(m, who, p["Name"])
    snapshot = m.need_snapshot(who, p["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])

    def effect(answer: Answer, rows: Rows) -> None:
        devices = {p["RootDeviceName"]: (snapshot.id, snapshot.size, "gp2", True)}
        m.put(Image(answer["ImageId"], who.account, tags_of(p, "image"), "available", p["Name"], devices))

    return effect


@rule
def CopyImage(m: Reference, who: Actor, p: Params) -> Effect:
    _check_name(m, who, p["Name"])
    source = m.need_image(who, p["SourceImageId"])
    if source.state != "available":
        raise Refused("InvalidAMIID.Unavailable")
    m.check_quota(who, snapshots=len(source.devices))

    def effect(answer: Answer, rows: Rows) -> None:
        made = fresh(m, rows, Snapshot)
        image = only(fresh(m, rows, Image))
        if len(made) != len(source.devices):
            raise Broken(f"copies of {source.devices} were asked for: {made}")
        sizes = {each.id: each.size for each in made}
        devices = {}
        for device, (snapshot_id, size, kind, goes) in source.devices.items():
            origin, copied = m.things[snapshot_id], image.devices[device][0]
            if not isinstance(origin, Snapshot) or sizes.get(copied) != origin.size:
                raise Broken(f"{copied} is no copy of {origin}")
            _snapshot(m, who, copied, "", origin.size, {})
            devices[device] = (copied, size, kind, goes)
        m.put(Image(answer["ImageId"], who.account, tags_of(p, "image"), "pending", p["Name"], devices))

    return effect


@rule
def DeregisterImage(m: Reference, who: Actor, p: Params) -> Effect:
    image = m.need_image(who, p["ImageId"])
    if image.account != who.account:
        raise Refused("AuthFailure")
    return lambda answer, rows: m.drop(image)


# --- tags -------------------------------------------------------------------------------------------------------------


def kind_of(thing_id: str) -> type[Thing]:
    return next(kind for kind, (prefix, _) in KINDS.items() if thing_id.rpartition("-")[0] == prefix)


@rule
def CreateTags(m: Reference, who: Actor, p: Params) -> Effect:
    found = [m.need(who, kind_of(each), each) for each in p["Resources"]]

    def effect(answer: Answer, rows: Rows) -> None:
        for thing in found:
            thing.tags.update({tag["Key"]: tag["Value"] for tag in p["Tags"]})

    return effect


@rule
def DeleteTags(m: Reference, who: Actor, p: Params) -> Effect:
    found = [m.need(who, kind_of(each), each) for each in p["Resources"]]

    def effect(answer: Answer, rows: Rows) -> None:
        for thing in found:
            for tag in p["Tags"]:
                if tag.get("Value") in (None, thing.tags.get(tag["Key"])):
                    thing.tags.pop(tag["Key"], None)

    return effect

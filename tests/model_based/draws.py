"""What clients ask for: actions and parameters, drawn from what the reference knows, mostly sensible and sometimes not.

A draw names a thing of the caller's own where there is one; now and then it is somebody else's, or one that is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from tests.model_based.reference import (
    KINDS,
    NO_ACCOUNT,
    ROOT,
    Address,
    Gateway,
    Group,
    Image,
    Instance,
    Interface,
    Nat,
    Params,
    Reference,
    Snapshot,
    Subnet,
    T,
    Table,
    Thing,
    Volume,
    Vpc,
)

NAMES = ("alpha", "beta", "gamma", "delta")
DEVICES = ("/dev/sdf", "/dev/sdg", "/dev/sdh")
CIDRS = ("10.0.0.0/24", "10.0.1.0/28", "10.0.1.0/24", "10.0.2.0/28", "192.168.0.0/24")


class Nothing(Exception):
    """The caller has nothing to ask about."""


class Draw:
    """One caller's choices."""

    def __init__(self, chance: Random, reference: Reference, account: str, recent: deque[str]) -> None:
        self.chance = chance
        self.reference = reference
        self.account = account
        self.recent = recent  # ids that were named last

    def note(self, thing_id: str) -> str:
        self.recent.append(thing_id)
        return thing_id

    def id(self, kind: type[T], *fitting: Callable[[T], bool]) -> str:
        """Of one of the caller's own, if possible one that fits."""
        luck = self.chance.random()
        prefix = KINDS[kind][0]
        if luck < 0.02:
            return f"{prefix}-0{self.chance.getrandbits(64):016x}"
        others = [each for each in self.reference.of(kind) if each.account not in (self.account, NO_ACCOUNT)]
        if luck < 0.06 and others:
            return self.chance.choice(others).id
        own = list(self.reference.of(kind, self.account))
        good = [each for each in own if all(fits(each) for fits in fitting)]
        hot = [each for each in good if each.id in self.recent]
        if hot and luck < 0.6:  # what was just touched is still under way
            return self.note(self.chance.choice(hot).id)
        if good and luck < 0.88:
            return self.note(self.chance.choice(good).id)
        if not own:
            raise Nothing
        return self.chance.choice(own).id

    def ids(self, kind: type[T], *fitting: Callable[[T], bool]) -> list[str]:
        return [self.id(kind, *fitting) for _ in range(self.chance.choice((1, 1, 1, 2, 3)))]

    def one(self, *choices: object) -> object:
        return self.chance.choice(choices)

    def maybe(self, likelihood: float) -> bool:
        return self.chance.random() < likelihood

    def tags(self) -> list[dict[str, str]]:
        keys = self.chance.sample(("team", "Name", "stage"), self.chance.randint(1, 2))
        return [{"Key": key, "Value": self.chance.choice(("blue", "red", ""))} for key in keys]

    def tagged(self, params: Params, *kinds: str) -> Params:
        if self.maybe(0.3):
            params["TagSpecifications"] = [
                {"ResourceType": kind, "Tags": self.tags()} for kind in kinds if self.maybe(0.7)
            ] or [{"ResourceType": kinds[0], "Tags": self.tags()}]
        return params


Drawn = Callable[[Draw], Params]


def _is(*states: str) -> Callable[[Thing], bool]:
    return lambda each: getattr(each, "state", "") in states


def _run(d: Draw) -> Params:
    least = d.chance.choice((1, 1, 1, 2, 3))
    params: Params = {
        "ImageId": _image(d),
        "MinCount": least,
        "MaxCount": max(1, least + d.chance.choice((0, 0, 1, 2, -1))),
        "InstanceType": d.one("t3.micro", "m5.large"),
    }
    if d.maybe(0.6):
        params["SubnetId"] = d.id(Subnet)
        subnet = d.reference.get(Subnet, params["SubnetId"])
        if d.maybe(0.4):
            params["SecurityGroupIds"] = [d.id(Group, lambda each: bool(subnet) and each.vpc == subnet.vpc)]  # type: ignore[union-attr]
    if d.maybe(0.3):
        params["BlockDeviceMappings"] = [_mapping(d, device) for device in DEVICES[: d.chance.randint(1, 2)]]
    if d.maybe(0.15):
        params["DisableApiTermination"] = True
    if d.maybe(0.15):
        params["DisableApiStop"] = True
    if d.maybe(0.2):
        params["InstanceInitiatedShutdownBehavior"] = "terminate"
    if d.maybe(0.15):
        params["KeyName"] = d.one(*NAMES)
    return d.tagged(params, "instance", "volume", "network-interface")


def _image(d: Draw) -> str:
    catalogue = [each.id for each in d.reference.of(Image, NO_ACCOUNT)]
    return d.chance.choice(catalogue) if d.maybe(0.6) else d.id(Image, _is("available"))


def _snapshot(d: Draw) -> str:
    return d.id(Snapshot, _is("completed"))


def _mapping(d: Draw, device: str) -> Params:
    ebs: Params = {"VolumeSize": d.chance.randint(1, 4)}
    if d.maybe(0.3):
        ebs["SnapshotId"] = _snapshot(d)
        if d.maybe(0.5):
            del ebs["VolumeSize"]
    if d.maybe(0.5):
        ebs["DeleteOnTermination"] = d.maybe(0.5)
    return {"DeviceName": device, "Ebs": ebs}


def _volume(d: Draw) -> Params:
    params: Params = {"AvailabilityZone": d.one("us-east-1a", "us-east-1a", "us-east-1b")}
    if d.maybe(0.03):
        params["AvailabilityZone"] = "us-east-1z"
    if d.maybe(0.4):
        params["SnapshotId"] = _snapshot(d)
    if "SnapshotId" not in params or d.maybe(0.5):
        params["Size"] = d.chance.randint(1, 4)
    if d.maybe(0.4):
        params["VolumeType"] = d.one("gp3", "gp2", "standard")
    return d.tagged(params, "volume")


def _attach(d: Draw) -> Params:
    volume_id = d.id(Volume, _is("available"))
    volume = d.reference.get(Volume, volume_id)
    zone = volume.zone if volume else ""
    instance = d.id(Instance, _is("running", "stopped"), lambda each: each.zone == zone)
    return {"VolumeId": volume_id, "InstanceId": instance, "Device": d.one(*DEVICES)}


def _detach(d: Draw) -> Params:
    params: Params = {"VolumeId": d.id(Volume, lambda each: bool(each.attachment) and each.attachment.place != ROOT)}  # type: ignore[union-attr]
    return {**params, "Force": True} if d.maybe(0.4) else params


def _modify(d: Draw) -> Params:
    params: Params = {"VolumeId": d.id(Volume, _is("available", "in-use"))}
    volume = d.reference.get(Volume, params["VolumeId"])
    if d.maybe(0.8):
        params["Size"] = max(1, (volume.size if volume else 1) + d.chance.choice((1, 1, 2, 0, -1)))
    if d.maybe(0.3) or "Size" not in params:
        params["VolumeType"] = d.one("gp2", "gp3")
    return params


def _attribute(d: Draw) -> Params:
    params: Params = {"InstanceId": d.id(Instance, _is("running", "stopped"))}
    name = d.chance.choice(("DisableApiTermination", "DisableApiStop", "InstanceInitiatedShutdownBehavior"))
    on = d.maybe(0.3)
    params[name] = {"Value": ("terminate" if on else "stop") if name.startswith("Instance") else on}
    return params


def _register(d: Draw) -> Params:
    mapping = {"DeviceName": ROOT, "Ebs": {"SnapshotId": _snapshot(d)}}
    params = {"Name": _name(d), "RootDeviceName": ROOT, "BlockDeviceMappings": [mapping], "VirtualizationType": "hvm"}
    return d.tagged(params, "image")


def _name(d: Draw) -> str:
    return f"image-{d.chance.randint(1, 12)}"


def _interface(d: Draw) -> Params:
    params: Params = {"SubnetId": d.id(Subnet)}
    subnet = d.reference.get(Subnet, params["SubnetId"])
    if d.maybe(0.4):
        params["Groups"] = [d.id(Group, lambda each: bool(subnet) and each.vpc == subnet.vpc)]  # type: ignore[union-attr]
    return d.tagged(params, "network-interface")


def _attach_interface(d: Draw) -> Params:
    interface_id = d.id(Interface, _is("available"))
    interface = d.reference.get(Interface, interface_id)
    zone = interface.zone if interface else ""
    instance = d.id(Instance, _is("running", "stopped"), lambda each: each.zone == zone)
    return {"NetworkInterfaceId": interface_id, "InstanceId": instance, "DeviceIndex": d.one(1, 1, 2, 0)}


def _detach_interface(d: Draw) -> Params:
    found = [each.attachment for each in d.reference.of(Interface) if each.attachment]
    own = [at for each in d.reference.of(Interface, d.account) if (at := each.attachment) and at.place != "0"]
    if not found:
        raise Nothing
    params: Params = {"AttachmentId": d.chance.choice(own if own and d.maybe(0.9) else found).id}
    return {**params, "Force": True} if d.maybe(0.4) else params


def _associate(d: Draw) -> Params:
    params: Params = {"AllocationId": d.id(Address)}
    if d.maybe(0.5):
        params["NetworkInterfaceId"] = d.id(Interface)
    else:
        params["InstanceId"] = d.id(Instance, _is("running", "stopped"))
    return {**params, "AllowReassociation": False} if d.maybe(0.2) else params


def _disassociate(d: Draw) -> Params:
    owner = d.account if d.maybe(0.9) else ""
    found = [
        each.association or each.ended for each in d.reference.of(Address, owner) if each.association or each.ended
    ]
    gone = f"eipassoc-0{d.chance.getrandbits(64):016x}"
    return {"AssociationId": d.chance.choice(found) if found and d.maybe(0.95) else gone}


def _group(d: Draw) -> Params:
    params: Params = {"GroupName": d.one(*NAMES), "Description": "of the test", "VpcId": d.id(Vpc)}
    return d.tagged(params, "security-group")


def _authorize(d: Draw) -> Params:
    group_id = d.id(Group)
    group = d.reference.get(Group, group_id)
    port = d.chance.choice((22, 80, 443))
    permission: Params = {"IpProtocol": d.one("tcp", "udp"), "FromPort": port, "ToPort": port}
    if d.maybe(0.5):
        permission["IpRanges"] = [{"CidrIp": d.one("0.0.0.0/0", "10.0.0.0/8")}]
    else:
        peer = d.id(Group, lambda each: bool(group) and each.vpc == group.vpc)  # type: ignore[union-attr]
        permission["UserIdGroupPairs"] = [{"GroupId": peer}]
    return {"GroupId": group_id, "IpPermissions": [permission]}


def _revoke(d: Draw) -> Params:
    group_id = d.id(Group, lambda each: len(each.rules) > 1)
    group = d.reference.get(Group, group_id)
    rules = [each for each, rule in group.rules.items() if not rule[0]] if group else []
    gone = f"sgr-0{d.chance.getrandbits(64):016x}"
    return {"GroupId": group_id, "SecurityGroupRuleIds": [d.chance.choice(rules) if rules and d.maybe(0.95) else gone]}


def _vpc_of_ones_own(d: Draw) -> str:
    return d.id(Vpc, lambda each: not each.is_default)


def _subnet(d: Draw) -> Params:
    params: Params = {"VpcId": _vpc_of_ones_own(d), "CidrBlock": d.one(*CIDRS)}
    return d.tagged({**params, "AvailabilityZone": d.one("us-east-1a", "us-east-1b")}, "subnet")


def _associate_table(d: Draw) -> Params:
    table_id = d.id(Table, lambda each: not each.is_main)
    table = d.reference.get(Table, table_id)
    subnet = d.id(Subnet, lambda each: bool(table) and each.vpc == table.vpc)  # type: ignore[union-attr]
    return {"RouteTableId": table_id, "SubnetId": subnet}


def _disassociate_table(d: Draw) -> Params:
    found = [each for table in d.reference.of(Table, d.account if d.maybe(0.9) else "") for each in table.serves]
    gone = f"rtbassoc-0{d.chance.getrandbits(64):016x}"
    return {"AssociationId": d.chance.choice(found) if found and d.maybe(0.95) else gone}


def _gateway_and_vpc(d: Draw) -> Params:
    served = {each.vpc for each in d.reference.of(Gateway)}
    vpc_id = d.id(Vpc, lambda each: each.id not in served)
    return {"InternetGatewayId": d.id(Gateway, lambda each: not each.vpc), "VpcId": vpc_id}


def _attached_gateway(d: Draw) -> Params:
    gateway_id = d.id(Gateway, lambda each: bool(each.vpc))
    gateway = d.reference.get(Gateway, gateway_id)
    return {"InternetGatewayId": gateway_id, "VpcId": gateway.vpc if gateway and gateway.vpc else d.id(Vpc)}


def _nat(d: Draw) -> Params:
    params: Params = {"SubnetId": d.id(Subnet)}
    if d.maybe(0.5):
        params["ConnectivityType"] = "private"
    else:
        params["AllocationId"] = d.id(Address, lambda each: not each.interface)
    return d.tagged(params, "natgateway")


def _resources(d: Draw) -> Params:
    kinds = [d.chance.choice(list(KINDS)) for _ in range(d.chance.randint(1, 2))]
    return {"Resources": [d.id(kind) for kind in kinds], "Tags": d.tags()}


def _untagged(d: Draw) -> Params:
    params = _resources(d)
    if d.maybe(0.5):
        params["Tags"] = [{"Key": each["Key"]} for each in params["Tags"]]
    return params


# Action: how often, and with what.
DRAWS: dict[str, tuple[int, Drawn]] = {
    "RunInstances": (18, _run),
    "StartInstances": (14, lambda d: {"InstanceIds": d.ids(Instance, _is("stopped", "running"))}),
    "StopInstances": (14, lambda d: {"InstanceIds": d.ids(Instance, _is("running"))}),
    "RebootInstances": (7, lambda d: {"InstanceIds": d.ids(Instance, _is("running"))}),
    "TerminateInstances": (11, lambda d: {"InstanceIds": d.ids(Instance)}),
    "ModifyInstanceAttribute": (5, _attribute),
    "CreateVolume": (9, _volume),
    "DeleteVolume": (6, lambda d: {"VolumeId": d.id(Volume, _is("available"))}),
    "AttachVolume": (20, _attach),
    "DetachVolume": (16, _detach),
    "ModifyVolume": (9, _modify),
    "CreateSnapshot": (14, lambda d: d.tagged({"VolumeId": d.id(Volume, _is("available", "in-use"))}, "snapshot")),
    "DeleteSnapshot": (7, lambda d: {"SnapshotId": d.id(Snapshot, lambda s: not d.reference.images_of(s.id))}),
    "CopySnapshot": (4, lambda d: {"SourceRegion": "us-east-1", "SourceSnapshotId": _snapshot(d)}),
    "CreateImage": (
        8,
        lambda d: {
            "InstanceId": d.id(Instance, _is("running", "stopped")),
            "Name": _name(d),
            **({"NoReboot": True} if d.maybe(0.5) else {}),
        },
    ),
    "RegisterImage": (3, _register),
    "CopyImage": (3, lambda d: {"SourceImageId": _image(d), "SourceRegion": "us-east-1", "Name": _name(d)}),
    "DeregisterImage": (4, lambda d: {"ImageId": d.id(Image)}),
    "CreateNetworkInterface": (6, _interface),
    "DeleteNetworkInterface": (4, lambda d: {"NetworkInterfaceId": d.id(Interface, _is("available"))}),
    "AttachNetworkInterface": (14, _attach_interface),
    "DetachNetworkInterface": (10, _detach_interface),
    "AllocateAddress": (4, lambda d: d.tagged({"Domain": "vpc"}, "elastic-ip")),
    "ReleaseAddress": (3, lambda d: {"AllocationId": d.id(Address, lambda each: not each.interface)}),
    "AssociateAddress": (9, _associate),
    "DisassociateAddress": (4, _disassociate),
    "CreateSecurityGroup": (4, _group),
    "DeleteSecurityGroup": (3, lambda d: {"GroupId": d.id(Group)}),
    "AuthorizeSecurityGroupIngress": (5, _authorize),
    "RevokeSecurityGroupIngress": (3, _revoke),
    "CreateVpc": (3, lambda d: d.tagged({"CidrBlock": "10.0.0.0/16"}, "vpc")),
    "DeleteVpc": (3, lambda d: {"VpcId": _vpc_of_ones_own(d)}),
    "CreateSubnet": (6, _subnet),
    "DeleteSubnet": (2, lambda d: {"SubnetId": d.id(Subnet, lambda each: not each.default)}),
    "CreateRouteTable": (3, lambda d: d.tagged({"VpcId": d.id(Vpc)}, "route-table")),
    "DeleteRouteTable": (2, lambda d: {"RouteTableId": d.id(Table)}),
    "AssociateRouteTable": (3, _associate_table),
    "DisassociateRouteTable": (2, _disassociate_table),
    "CreateInternetGateway": (2, lambda d: d.tagged({}, "internet-gateway")),
    "AttachInternetGateway": (3, _gateway_and_vpc),
    "DetachInternetGateway": (2, _attached_gateway),
    "DeleteInternetGateway": (1, lambda d: {"InternetGatewayId": d.id(Gateway, lambda each: not each.vpc)}),
    "CreateNatGateway": (3, _nat),
    "DeleteNatGateway": (3, lambda d: {"NatGatewayId": d.id(Nat)}),
    "CreateKeyPair": (2, lambda d: {"KeyName": d.one(*NAMES), "KeyType": "ed25519"}),
    "DeleteKeyPair": (1, lambda d: {"KeyName": d.one(*NAMES)}),
    "CreateTags": (7, _resources),
    "DeleteTags": (4, _untagged),
}
# Whose calls can be repeated safely.
WITH_TOKEN = (
    "RunInstances",
    "CreateVolume",
    "CreateNetworkInterface",
    "CreateNatGateway",
    "CopyImage",
    "CreateRouteTable",
)

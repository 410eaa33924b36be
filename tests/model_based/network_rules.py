"""What calls about networks, addresses, groups and key pairs must do."""

from __future__ import annotations

from ipaddress import IPv4Network

from tests.model_based.compute_rules import (
    find_groups,
    free_addresses,
    fresh,
    new_address,
    nothing,
    only,
    rule,
    tags_of,
)
from tests.model_based.reference import (
    MAX_INTERFACES,
    Actor,
    Address,
    Answer,
    Attachment,
    Broken,
    Effect,
    Gateway,
    Group,
    Instance,
    Interface,
    KeyPair,
    Nat,
    Params,
    Reference,
    Refused,
    Rows,
    Subnet,
    Table,
    Vpc,
)

MAX_NATS = 5  # of an account in a zone
ALL_OUT = (True, "-1", -1, -1, "0.0.0.0/0")


# --- interfaces -------------------------------------------------------------------------------------------------------


@rule
def CreateNetworkInterface(m: Reference, who: Actor, p: Params) -> Effect:
    subnet = m.need(who, Subnet, p["SubnetId"])
    groups = find_groups(m, who, subnet.vpc, p.get("Groups", []))
    if free_addresses(m, subnet) < 1:
        raise Refused("InsufficientFreeAddressesInSubnet")
    m.check_quota(who, interfaces=1)

    def effect(answer: Answer, rows: Rows) -> None:
        made = answer["NetworkInterface"]
        m.put(
            Interface(
                id=made["NetworkInterfaceId"],
                account=who.account,
                tags=tags_of(p, "network-interface"),
                state="available",
                vpc=subnet.vpc,
                subnet=subnet.id,
                zone=subnet.zone,
                address=new_address(m, subnet, made["PrivateIpAddress"]),
                groups=groups,
                attachment=None,
                nat=False,
            )
        )

    return effect


@rule
def DeleteNetworkInterface(m: Reference, who: Actor, p: Params) -> Effect:
    interface = m.need(who, Interface, p["NetworkInterfaceId"])
    if interface.attachment or interface.nat:
        raise Refused("InvalidParameterValue")

    def effect(answer: Answer, rows: Rows) -> None:
        for address in m.of(Address):
            if address.interface == interface.id:
                address.interface = address.association = ""
        m.drop(interface)

    return effect


def _interface(m: Reference, who: Actor, interface_id: str) -> Interface:
    interface = m.need(who, Interface, interface_id)
    if interface.nat:
        raise Refused("AuthFailure")
    return interface


@rule
def AttachNetworkInterface(m: Reference, who: Actor, p: Params) -> Effect:
    instance = m.need(who, Instance, p["InstanceId"])
    interface = _interface(m, who, p["NetworkInterfaceId"])
    others = m.interfaces_of(instance.id)
    if instance.state not in ("running", "stopped"):
        raise Refused("IncorrectInstanceState")
    if interface.attachment is not None:
        raise Refused("InvalidNetworkInterface.InUse")
    most = MAX_INTERFACES[instance.type]
    if interface.zone != instance.zone or str(p["DeviceIndex"]) in {e.attachment.place for e in others if e.attachment}:
        raise Refused("InvalidParameterValue")
    if len(others) >= most:
        raise Refused("AttachmentLimitExceeded")
    if p["DeviceIndex"] >= most:
        raise Refused("InvalidParameterValue")

    def effect(answer: Answer, rows: Rows) -> None:
        state = "attaching" if instance.state == "running" else "attached"
        at = Attachment(instance.id, str(p["DeviceIndex"]), state, False, answer["AttachmentId"])
        interface.state, interface.attachment = "in-use", at

    return effect


@rule
def DetachNetworkInterface(m: Reference, who: Actor, p: Params) -> Effect:
    found = [e for e in m.of(Interface, who.account) if e.attachment and e.attachment.id == p["AttachmentId"]]
    if not found:
        raise Refused("InvalidAttachmentID.NotFound")
    interface, at = found[0], found[0].attachment
    assert at is not None
    if at.place == "0":
        raise Refused("OperationNotPermitted")
    instance = m.get(Instance, at.instance)
    assert instance is not None, f"{interface} is attached to what is not there"
    if instance.state not in ("running", "stopped"):
        raise Refused("IncorrectInstanceState")
    if at.state == "attaching" and not p.get("Force"):
        raise Refused("IncorrectState")

    def effect(answer: Answer, rows: Rows) -> None:
        if instance.state == "running":
            at.state = "detaching"
        else:
            interface.state, interface.attachment = "available", None

    return effect


# --- public addresses -------------------------------------------------------------------------------------------------


@rule
def AllocateAddress(m: Reference, who: Actor, p: Params) -> Effect:
    m.check_quota(who, addresses=1)

    def effect(answer: Answer, rows: Rows) -> None:
        if any(each.ip == answer["PublicIp"] for each in m.of(Address)):
            raise Broken(f"{answer['PublicIp']} is given twice")
        m.put(Address(answer["AllocationId"], who.account, tags_of(p, "elastic-ip"), answer["PublicIp"], "", ""))

    return effect


@rule
def ReleaseAddress(m: Reference, who: Actor, p: Params) -> Effect:
    address = m.need(who, Address, p["AllocationId"])
    if address.interface:
        raise Refused("InvalidIPAddress.InUse")
    return lambda answer, rows: m.drop(address)


@rule
def AssociateAddress(m: Reference, who: Actor, p: Params) -> Effect:
    address = m.need(who, Address, p["AllocationId"])
    interface = _target(m, who, p)
    earlier = next((each for each in m.of(Address) if each.interface == interface.id), None)
    if earlier is address:
        return lambda answer, rows: _same_association(answer, address)
    holder = m.get(Interface, address.interface)
    if holder is not None and holder.nat:
        raise Refused("AuthFailure")
    if not p.get("AllowReassociation", True) and (address.association or earlier):
        raise Refused("Resource.AlreadyAssociated")
    if all(each.vpc != interface.vpc for each in m.of(Gateway)):
        raise Refused("Gateway.NotAttached")

    def effect(answer: Answer, rows: Rows) -> None:
        if earlier is not None:
            earlier.interface = earlier.association = ""
        address.interface, address.association = interface.id, answer["AssociationId"]

    return effect


def _same_association(answer: Answer, address: Address) -> None:
    if answer["AssociationId"] != address.association:
        raise Broken(f"{address} is associated already, and the answer is {answer}")


def _target(m: Reference, who: Actor, p: Params) -> Interface:
    if "NetworkInterfaceId" in p:
        interface = _interface(m, who, p["NetworkInterfaceId"])
        instance = m.get(Instance, interface.attachment.instance) if interface.attachment else None
        if instance is not None and instance.state == "pending":
            raise Refused("IncorrectInstanceState")
        return interface
    instance = m.need(who, Instance, p["InstanceId"])
    interfaces = m.interfaces_of(instance.id)
    if instance.state in ("pending", "shutting-down", "terminated") or len(interfaces) != 1:
        raise Refused("InvalidInstanceID")
    return interfaces[0]


@rule
def DisassociateAddress(m: Reference, who: Actor, p: Params) -> Effect:
    wanted = p["AssociationId"]
    found = [each for each in m.of(Address, who.account) if wanted in (each.association, each.ended)]
    if not found:
        raise Refused("InvalidAssociationID.NotFound")
    current = [each for each in found if each.association == wanted]
    if not current:
        return nothing
    address = current[0]
    holder = m.get(Interface, address.interface)
    if holder is not None and holder.nat:
        raise Refused("AuthFailure")

    def effect(answer: Answer, rows: Rows) -> None:
        address.interface = address.association = ""

    return effect


# --- security groups --------------------------------------------------------------------------------------------------


@rule
def CreateSecurityGroup(m: Reference, who: Actor, p: Params) -> Effect:
    vpc = m.need(who, Vpc, p["VpcId"])
    if any(each.name == p["GroupName"] and each.vpc == vpc.id for each in m.of(Group)):
        raise Refused("InvalidGroup.Duplicate")
    m.check_quota(who, security_groups=1)

    def effect(answer: Answer, rows: Rows) -> None:
        made = only(fresh(m, rows, Group))
        if list(made.rules.values()) != [ALL_OUT]:
            raise Broken(f"a new group lets all out and nothing in: {made}")
        m.put(Group(answer["GroupId"], who.account, tags_of(p, "security-group"), p["GroupName"], vpc.id, made.rules))

    return effect


@rule
def DeleteSecurityGroup(m: Reference, who: Actor, p: Params) -> Effect:
    group = m.need(who, Group, p["GroupId"])
    if group.name == "default":
        raise Refused("CannotDelete")
    named = any(group.id == rule[4] for each in m.of(Group) if each is not group for rule in each.rules.values())
    if named or any(group.id in each.groups for each in m.of(Interface)):
        raise Refused("DependencyViolation")
    return lambda answer, rows: m.drop(group)


@rule
def AuthorizeSecurityGroupIngress(m: Reference, who: Actor, p: Params) -> Effect:
    group = m.need(who, Group, p["GroupId"])
    [permission] = p["IpPermissions"]
    if "UserIdGroupPairs" in permission:
        peer = m.need(who, Group, permission["UserIdGroupPairs"][0]["GroupId"])
        if peer.vpc != group.vpc:
            raise Refused("InvalidGroup.NotFound")
        whom = peer.id
    else:
        whom = permission["IpRanges"][0]["CidrIp"]
    wanted = (False, permission["IpProtocol"], permission["FromPort"], permission["ToPort"], whom)
    if wanted in group.rules.values():
        raise Refused("InvalidPermission.Duplicate")

    def effect(answer: Answer, rows: Rows) -> None:
        [made] = answer["SecurityGroupRules"]
        group.rules[made["SecurityGroupRuleId"]] = wanted

    return effect


@rule
def RevokeSecurityGroupIngress(m: Reference, who: Actor, p: Params) -> Effect:
    group = m.need(who, Group, p["GroupId"])
    wanted = p["SecurityGroupRuleIds"]
    if any(each not in group.rules or group.rules[each][0] for each in wanted):
        raise Refused("InvalidSecurityGroupRuleId.NotFound")

    def effect(answer: Answer, rows: Rows) -> None:
        for each in dict.fromkeys(wanted):
            del group.rules[each]

    return effect


# --- VPCs, subnets, route tables, gateways ----------------------------------------------------------------------------


@rule
def CreateVpc(m: Reference, who: Actor, p: Params) -> Effect:
    m.check_quota(who, vpcs=1, security_groups=1)

    def effect(answer: Answer, rows: Rows) -> None:
        vpc_id = answer["Vpc"]["VpcId"]
        m.put(Vpc(vpc_id, who.account, tags_of(p, "vpc"), p["CidrBlock"], False))
        group, table = only(fresh(m, rows, Group)), only(fresh(m, rows, Table))
        inside = (False, "-1", -1, -1, group.id)
        if sorted(group.rules.values()) != sorted([ALL_OUT, inside]):
            raise Broken(f"a default group lets all out and itself in: {group}")
        m.put(Group(group.id, who.account, {}, "default", vpc_id, group.rules))
        m.put(Table(table.id, who.account, {}, vpc_id, True, {}))

    return effect


@rule
def DeleteVpc(m: Reference, who: Actor, p: Params) -> Effect:
    vpc = m.need(who, Vpc, p["VpcId"])
    left = [each for each in m.things.values() if getattr(each, "vpc", "") == vpc.id]
    own: list[Group | Table] = []
    for each in left:
        if (isinstance(each, Group) and each.name == "default") or (isinstance(each, Table) and each.is_main):
            own.append(each)
        elif not (isinstance(each, Nat) and each.state in ("deleted", "failed")) and not isinstance(each, Instance):
            raise Refused("DependencyViolation")

    def effect(answer: Answer, rows: Rows) -> None:
        for each in (*own, vpc):
            m.drop(each)

    return effect


@rule
def CreateSubnet(m: Reference, who: Actor, p: Params) -> Effect:
    vpc = m.need(who, Vpc, p["VpcId"])
    wanted = IPv4Network(p["CidrBlock"])
    if not wanted.subnet_of(IPv4Network(vpc.cidr)):
        raise Refused("InvalidSubnet.Range")
    if any(wanted.overlaps(IPv4Network(each.cidr)) for each in m.of(Subnet) if each.vpc == vpc.id):
        raise Refused("InvalidSubnet.Conflict")

    def effect(answer: Answer, rows: Rows) -> None:
        made = answer["Subnet"]["SubnetId"]
        zone = p["AvailabilityZone"]
        m.put(Subnet(made, who.account, tags_of(p, "subnet"), vpc.id, zone, p["CidrBlock"], False))

    return effect


@rule
def DeleteSubnet(m: Reference, who: Actor, p: Params) -> Effect:
    subnet = m.need(who, Subnet, p["SubnetId"])
    if any(each.subnet == subnet.id for each in m.of(Interface)):
        raise Refused("DependencyViolation")

    def effect(answer: Answer, rows: Rows) -> None:
        for table in m.of(Table):
            table.serves = {each: served for each, served in table.serves.items() if served != subnet.id}
        m.drop(subnet)

    return effect


@rule
def CreateRouteTable(m: Reference, who: Actor, p: Params) -> Effect:
    vpc = m.need(who, Vpc, p["VpcId"])

    def effect(answer: Answer, rows: Rows) -> None:
        m.put(Table(answer["RouteTable"]["RouteTableId"], who.account, tags_of(p, "route-table"), vpc.id, False, {}))

    return effect


@rule
def DeleteRouteTable(m: Reference, who: Actor, p: Params) -> Effect:
    table = m.need(who, Table, p["RouteTableId"])
    if table.is_main or table.serves:
        raise Refused("DependencyViolation")
    return lambda answer, rows: m.drop(table)


@rule
def AssociateRouteTable(m: Reference, who: Actor, p: Params) -> Effect:
    table, subnet = m.need(who, Table, p["RouteTableId"]), m.need(who, Subnet, p["SubnetId"])
    if table.vpc != subnet.vpc:
        raise Refused("InvalidParameterValue")
    already = subnet.id in table.serves.values()
    if not already and any(subnet.id in each.serves.values() for each in m.of(Table)):
        raise Refused("Resource.AlreadyAssociated")

    def effect(answer: Answer, rows: Rows) -> None:
        if already and table.serves.get(answer["AssociationId"]) != subnet.id:
            raise Broken(f"{table} serves {subnet} already, and the answer is {answer}")
        table.serves[answer["AssociationId"]] = subnet.id

    return effect


@rule
def DisassociateRouteTable(m: Reference, who: Actor, p: Params) -> Effect:
    found = [each for each in m.of(Table, who.account) if p["AssociationId"] in each.serves]
    if not found:
        raise Refused("InvalidAssociationID.NotFound")

    def effect(answer: Answer, rows: Rows) -> None:
        del found[0].serves[p["AssociationId"]]

    return effect


@rule
def CreateInternetGateway(m: Reference, who: Actor, p: Params) -> Effect:
    def effect(answer: Answer, rows: Rows) -> None:
        made = answer["InternetGateway"]["InternetGatewayId"]
        m.put(Gateway(made, who.account, tags_of(p, "internet-gateway"), ""))

    return effect


@rule
def AttachInternetGateway(m: Reference, who: Actor, p: Params) -> Effect:
    gateway, vpc = m.need(who, Gateway, p["InternetGatewayId"]), m.need(who, Vpc, p["VpcId"])
    if gateway.vpc:
        raise Refused("Resource.AlreadyAssociated")
    if any(each.vpc == vpc.id for each in m.of(Gateway)):
        raise Refused("InvalidParameterValue")

    def effect(answer: Answer, rows: Rows) -> None:
        gateway.vpc = vpc.id

    return effect


@rule
def DetachInternetGateway(m: Reference, who: Actor, p: Params) -> Effect:
    gateway, vpc = m.need(who, Gateway, p["InternetGatewayId"]), m.need(who, Vpc, p["VpcId"])
    if gateway.vpc != vpc.id:
        raise Refused("Gateway.NotAttached")
    elastic = {each.interface for each in m.of(Address)}
    if any(each.vpc == vpc.id and (each.public or each.id in elastic) for each in m.of(Interface)):
        raise Refused("DependencyViolation")

    def effect(answer: Answer, rows: Rows) -> None:
        gateway.vpc = ""

    return effect


@rule
def DeleteInternetGateway(m: Reference, who: Actor, p: Params) -> Effect:
    gateway = m.need(who, Gateway, p["InternetGatewayId"])
    if gateway.vpc:
        raise Refused("DependencyViolation")
    return lambda answer, rows: m.drop(gateway)


@rule
def CreateNatGateway(m: Reference, who: Actor, p: Params) -> Effect:
    subnet = m.need(who, Subnet, p["SubnetId"])
    address = m.need(who, Address, p["AllocationId"]) if "AllocationId" in p else None
    if address is not None and address.interface:
        raise Refused("Resource.AlreadyAssociated")
    standing = [each for each in m.of(Nat, who.account) if each.state not in ("deleted", "failed")]
    zones = [place.zone for each in standing if (place := m.get(Subnet, each.subnet)) is not None]
    if zones.count(subnet.zone) >= MAX_NATS:
        raise Refused("NatGatewayLimitExceeded")
    if free_addresses(m, subnet) < 1:
        raise Refused("InsufficientFreeAddressesInSubnet")
    m.check_quota(who, interfaces=1)

    def effect(answer: Answer, rows: Rows) -> None:
        made = answer["NatGateway"]["NatGatewayId"]
        found = only(fresh(m, rows, Interface))
        place = new_address(m, subnet, found.address)
        m.put(
            Interface(
                found.id, who.account, {}, "in-use", subnet.vpc, subnet.id, subnet.zone, place, (), None, nat=True
            )
        )
        m.put(
            Nat(made, who.account, tags_of(p, "natgateway"), "pending", subnet.vpc, subnet.id, found.id, bool(address))
        )
        if address is not None:
            address.interface = found.id
            address.association = answer["NatGateway"]["NatGatewayAddresses"][0]["AssociationId"]

    return effect


@rule
def DeleteNatGateway(m: Reference, who: Actor, p: Params) -> Effect:
    nat = m.need(who, Nat, p["NatGatewayId"])

    def effect(answer: Answer, rows: Rows) -> None:
        if nat.state != "deleted":
            nat.state = "deleting"

    return effect


# --- key pairs --------------------------------------------------------------------------------------------------------


@rule
def CreateKeyPair(m: Reference, who: Actor, p: Params) -> Effect:
    if any(each.name == p["KeyName"] for each in m.of(KeyPair, who.account)):
        raise Refused("InvalidKeyPair.Duplicate")
    return lambda answer, rows: m.put(KeyPair(answer["KeyPairId"], who.account, tags_of(p, "key-pair"), p["KeyName"]))


@rule
def DeleteKeyPair(m: Reference, who: Actor, p: Params) -> Effect:
    def effect(answer: Answer, rows: Rows) -> None:
        for each in list(m.of(KeyPair, who.account)):
            if each.name == p["KeyName"]:
                m.drop(each)

    return effect

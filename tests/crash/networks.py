"""Lifecycles of what is between machines: addresses, groups, gateways, peerings, flow logs."""

from __future__ import annotations

from typing import Any

from orchestrator.host import Flow
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.vpc import NatGateway, NetworkInterface, PeeringConnection, SecurityGroup, Vpc
from tests.crash.lifecycles import images, launch, lifecycle, running
from tests.crash.world import ACCOUNT, OTHER, World

# --- what there is when they begin --------------------------------------------------------------------------------


def two_instances(w: World) -> None:
    images(w)
    w.names["instance"], w.names["other"] = launch(w, 2)
    w.settle()
    w.names["interface"], w.names["other interface"] = (interface_of(w, each) for each in ("instance", "other"))


def two_vpcs(w: World) -> None:
    """Each with an instance."""
    running(w)
    vpc = w.ask("CreateVpc", CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = w.ask("CreateSubnet", VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone="us-east-1a")
    w.names |= {"other vpc": vpc, "other subnet": subnet["Subnet"]["SubnetId"]}
    [w.names["other"]] = launch(w, SubnetId=w.names["other subnet"])
    w.settle()


def interface_of(w: World, name: str) -> str:
    [interface] = w.store.all(NetworkInterface, instance_id=w.names[name])
    return interface.id


def main_table(w: World, vpc_id: str) -> str:
    tables = w.ask("DescribeRouteTables", Filters=[{"Name": "vpc-id", "Values": [vpc_id]}])["RouteTables"]
    return str(tables[0]["RouteTableId"])


def port(w: World, interface_id: str, vpc: str = "vpc") -> Any:
    [found] = [each for each in w.host.network.applied[w.names[vpc]].ports if each.name == interface_id]
    return found


# --- lifecycles ---------------------------------------------------------------------------------------------------


@lifecycle(two_instances)
def security_groups(w: World) -> None:
    interface = w.names["interface"]
    group = w.ask("CreateSecurityGroup", GroupName="web", Description="d", VpcId=w.names["vpc"])["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    w.ask("AuthorizeSecurityGroupIngress", GroupId=group, IpPermissions=[rule])
    w.ask("ModifyNetworkInterfaceAttribute", NetworkInterfaceId=interface, Groups=[group])
    w.settle()
    assert port(w, interface).policies == (group,)
    [policy] = [each for each in w.host.network.applied[w.names["vpc"]].policies if each.name == group]
    assert [allow.from_port for allow in policy.inbound] == [80]
    w.ask("RevokeSecurityGroupIngress", GroupId=group, IpPermissions=[rule])
    w.settle()
    [policy] = [each for each in w.host.network.applied[w.names["vpc"]].policies if each.name == group]
    assert policy.inbound == ()
    [default] = [each for each in w.store.all(SecurityGroup, vpc_id=w.names["vpc"]) if each.name == "default"]
    w.ask("ModifyNetworkInterfaceAttribute", NetworkInterfaceId=interface, Groups=[default.id])
    w.ask("DeleteSecurityGroup", GroupId=group)
    w.settle()


@lifecycle(two_instances)
def elastic_ip_that_moves(w: World) -> None:
    address = w.ask("AllocateAddress")
    allocation = address["AllocationId"]
    for name in ("instance", "other"):
        asked = {"AllocationId": allocation, "InstanceId": w.names[name], "AllowReassociation": True}
        associated = w.ask("AssociateAddress", **asked)["AssociationId"]
        w.settle()
        there = {"instance": "interface", "other": "other interface"}[name]
        assert w.get(ElasticIp, allocation).interface_id == w.names[there]
        assert address["PublicIp"] in {public for _, public in port(w, w.names[there]).public}
    assert address["PublicIp"] not in {public for _, public in port(w, w.names["interface"]).public}
    w.ask("DisassociateAddress", AssociationId=associated)
    w.ask("ReleaseAddress", AllocationId=allocation)
    w.settle()
    assert w.store.get(ElasticIp, allocation) is None


@lifecycle(two_instances)
def elastic_ip_of_an_instance_that_ends(w: World) -> None:
    allocation = w.ask("AllocateAddress")["AllocationId"]
    w.ask("AssociateAddress", AllocationId=allocation, InstanceId=w.names["instance"])
    w.ask("TerminateInstances", InstanceIds=[w.names["instance"]])
    w.settle()
    assert w.get(ElasticIp, allocation).interface_id == ""


@lifecycle(running)
def nat_gateway(w: World) -> None:
    allocation = w.ask("AllocateAddress")["AllocationId"]
    asked = {"SubnetId": w.names["subnet"], "AllocationId": allocation}
    gateway = w.ask("CreateNatGateway", **asked)["NatGateway"]["NatGatewayId"]
    w.settle()
    assert w.get(NatGateway, gateway).state == "available"
    assert port(w, w.get(NatGateway, gateway).interface_id).translator
    w.ask("DeleteNatGateway", NatGatewayId=gateway)
    w.settle()
    assert w.get(NatGateway, gateway).state == "deleted"
    assert w.get(ElasticIp, allocation).interface_id == ""
    w.passes(hours=2)
    assert w.store.get(NatGateway, gateway) is None


@lifecycle(running)
def nat_gateway_that_fails(w: World) -> None:
    """No internet gateway is there when it is made."""
    allocation = w.ask("AllocateAddress")["AllocationId"]
    vpc = w.ask("CreateVpc", CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = w.ask("CreateSubnet", VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    gateway = w.ask("CreateNatGateway", SubnetId=subnet, AllocationId=allocation)["NatGateway"]["NatGatewayId"]
    w.settle()
    assert w.get(NatGateway, gateway).state == "failed"
    assert w.store.all(NetworkInterface, vpc_id=vpc) == []


@lifecycle(two_vpcs)
def peering(w: World) -> None:
    one, two = w.names["vpc"], w.names["other vpc"]
    made = w.ask("CreateVpcPeeringConnection", VpcId=one, PeerVpcId=two)["VpcPeeringConnection"]
    name = made["VpcPeeringConnectionId"]
    w.ask("AcceptVpcPeeringConnection", VpcPeeringConnectionId=name)
    for near, far in ((one, "10.0.0.0/16"), (two, "172.31.0.0/16")):
        table = main_table(w, near)
        w.ask("CreateRoute", RouteTableId=table, DestinationCidrBlock=far, VpcPeeringConnectionId=name)
    w.settle()
    assert w.get(PeeringConnection, name).state == "active"
    for vpc in (one, two):
        assert [each.name for each in w.host.network.applied[vpc].peerings] == [name]
    w.ask("DeleteVpcPeeringConnection", VpcPeeringConnectionId=name)
    w.settle()
    for vpc in (one, two):
        assert w.host.network.applied[vpc].peerings == ()
    w.passes(hours=3)
    assert w.store.get(PeeringConnection, name) is None


@lifecycle(two_vpcs)
def peering_between_accounts(w: World) -> None:
    [theirs] = [each for each in w.store.all(Vpc) if each.account == OTHER]
    asked = {"VpcId": w.names["other vpc"], "PeerVpcId": theirs.id, "PeerOwnerId": OTHER}
    name = w.ask("CreateVpcPeeringConnection", **asked)["VpcPeeringConnection"]["VpcPeeringConnectionId"]
    w.settle()
    w.ask("RejectVpcPeeringConnection", account=OTHER, VpcPeeringConnectionId=name)
    w.settle()
    assert w.get(PeeringConnection, name).state == "rejected"


@lifecycle(images)
def vpc_from_beginning_to_end(w: World) -> None:
    vpc = w.ask("CreateVpc", CidrBlock="10.0.0.0/16", AmazonProvidedIpv6CidrBlock=True)["Vpc"]["VpcId"]
    subnet = w.ask("CreateSubnet", VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    way_out = w.ask("CreateInternetGateway")["InternetGateway"]["InternetGatewayId"]
    w.ask("AttachInternetGateway", InternetGatewayId=way_out, VpcId=vpc)
    table = w.ask("CreateRouteTable", VpcId=vpc)["RouteTable"]["RouteTableId"]
    w.ask("CreateRoute", RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=way_out)
    associated = w.ask("AssociateRouteTable", RouteTableId=table, SubnetId=subnet)["AssociationId"]
    [made] = launch(w, SubnetId=subnet)
    w.settle()
    assert vpc in w.host.network.routers()
    w.ask("TerminateInstances", InstanceIds=[made])
    w.settle()
    assert vpc not in w.host.network.routers()
    w.ask("DisassociateRouteTable", AssociationId=associated)
    w.ask("DeleteRouteTable", RouteTableId=table)
    w.ask("DetachInternetGateway", InternetGatewayId=way_out, VpcId=vpc)
    w.ask("DeleteInternetGateway", InternetGatewayId=way_out)
    w.ask("DeleteSubnet", SubnetId=subnet)
    w.ask("DeleteVpc", VpcId=vpc)
    w.settle()
    assert w.store.get(Vpc, vpc) is None


@lifecycle(running)
def first_visit_to_a_region(w: World) -> None:
    """An account finds a default VPC there."""
    there = {"account": OTHER, "region": "us-west-2"}
    w.ask("AllocateAddress", **there)
    vpcs = w.ask("DescribeVpcs", **there)["Vpcs"]
    assert [each["IsDefault"] for each in vpcs] == [True]
    w.settle()


@lifecycle(running)
def flow_log(w: World) -> None:
    asked: dict[str, Any] = {"ResourceIds": [w.names["vpc"]], "ResourceType": "VPC", "TrafficType": "ALL"}
    asked |= {"MaxAggregationInterval": 60, "LogGroupName": "flows", "DeliverLogsPermissionArn": ROLE}
    [log] = w.ask("CreateFlowLogs", **asked)["FlowLogIds"]
    w.settle()
    [interface] = w.store.all(NetworkInterface, instance_id=w.names["instance"])
    flow = Flow(
        port=interface.id,
        outbound=True,
        accepted=True,
        protocol=6,
        source=interface.private_ip,
        source_port=40000,
        destination="192.0.2.7",
        destination_port=443,
        packets=10,
        octets=840,
    )
    w.host.network.flowed[w.names["vpc"]] = [flow]
    w.passes(seconds=150)
    w.ask("DeleteFlowLogs", FlowLogIds=[log])
    w.settle()


ROLE = f"arn:aws:iam::{ACCOUNT}:role/flow-logs"

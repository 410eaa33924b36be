"""Internet gateways: made, attached to a VPC, listed, deleted.

    made, detached  --AttachInternetGateway-->  attached to one VPC  --DetachInternetGateway-->  detached, deleted

A VPC has one at most. Routes to a gateway that is detached lead nowhere, and do again when it is back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from orchestrator.api.operation import Answer, Call, describe, operation
from orchestrator.model import ids
from orchestrator.model.elastic_ip import public_addresses
from orchestrator.model.errors import EC2Error, dependency_violation
from orchestrator.model.filters import FilterTable
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import InternetGateway, NetworkInterface, Vpc


@operation("CreateInternetGateway", writes=True)
def create_internet_gateway(call: Call, *, tag_specifications: list[Answer] | None = None) -> Answer:
    gateway = InternetGateway(
        id=ids.mint("igw"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags_at_creation(tag_specifications, "internet-gateway")["internet-gateway"],
    )
    return {"InternetGateway": show_internet_gateway(call, call.tx.put(gateway))}


@operation("AttachInternetGateway", writes=True)
def attach_internet_gateway(call: Call, *, internet_gateway_id: str, vpc_id: str) -> Answer:
    gateway = call.find(InternetGateway, "igw", internet_gateway_id)
    vpc = call.find(Vpc, "vpc", vpc_id)
    if gateway.vpc_id:
        raise EC2Error(
            "Resource.AlreadyAssociated", f"resource {gateway.id} is already attached to network {gateway.vpc_id}"
        )
    if call.tx.all(InternetGateway, vpc_id=vpc.id):
        raise EC2Error("InvalidParameterValue", f"Network {vpc.id} already has an internet gateway attached")
    call.tx.put(replace(gateway, vpc_id=vpc.id))
    call.tx.wake(vpc)
    return {}


@operation("DetachInternetGateway", writes=True)
def detach_internet_gateway(call: Call, *, internet_gateway_id: str, vpc_id: str) -> Answer:
    """Not while an interface of the VPC has a public address, a NAT gateway's included."""
    gateway = call.find(InternetGateway, "igw", internet_gateway_id)
    vpc = call.find(Vpc, "vpc", vpc_id)
    if gateway.vpc_id != vpc.id:
        raise EC2Error("Gateway.NotAttached", f"resource {gateway.id} is not attached to network {vpc.id}")
    if any(public_addresses(call.tx, interface) for interface in call.tx.all(NetworkInterface, vpc_id=vpc.id)):
        raise dependency_violation(
            f"Network {vpc.id} has some mapped public address(es). "
            "Please unmap those public address(es) before detaching the gateway."
        )
    call.tx.put(replace(gateway, vpc_id=""))
    call.tx.wake(vpc)
    return {}


@operation("DeleteInternetGateway", writes=True)
def delete_internet_gateway(call: Call, *, internet_gateway_id: str) -> Answer:
    gateway = call.find(InternetGateway, "igw", internet_gateway_id)
    if gateway.vpc_id:
        raise dependency_violation(f"The internetGateway '{gateway.id}' has dependencies and cannot be deleted.")
    call.tx.delete(gateway)
    return {}


GATEWAY_FILTERS: Final[FilterTable] = {
    "attachment.state": lambda gateway: "available" if gateway.vpc_id else None,
    "attachment.vpc-id": lambda gateway: gateway.vpc_id or None,
    "internet-gateway-id": lambda gateway: gateway.id,
    "owner-id": lambda gateway: gateway.account,
}


@describe(
    "DescribeInternetGateways",
    kind=InternetGateway,
    answer="InternetGateways",
    ids_parameter="InternetGatewayIds",
    prefix="igw",
    filters=GATEWAY_FILTERS,
)
def show_internet_gateway(call: Call, gateway: InternetGateway) -> Answer:
    return {
        "InternetGatewayId": gateway.id,
        "OwnerId": gateway.account,
        "Attachments": [{"VpcId": gateway.vpc_id, "State": "available"}] if gateway.vpc_id else [],
        "Tags": tag_set(gateway.tags),
    }

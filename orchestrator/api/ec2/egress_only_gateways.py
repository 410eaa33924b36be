"""Egress-only internet gateways: the way out for IPv6 alone. One is of its VPC from the beginning to the end."""

from __future__ import annotations

from orchestrator.api.operation import Answer, Call, choose, operation, show_page, with_client_token
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import EgressOnlyInternetGateway, Vpc

RESOURCE_TYPE = "egress-only-internet-gateway"


@operation("CreateEgressOnlyInternetGateway", writes=True)
def create_egress_only_internet_gateway(
    call: Call, *, vpc_id: str, tag_specifications: list[Answer] | None = None
) -> Answer:
    vpc = call.find(Vpc, "vpc", vpc_id)
    for other in call.tx.all(EgressOnlyInternetGateway, vpc_id=vpc.id):
        raise EC2Error("Resource.AlreadyAssociated", f"The vpc '{vpc.id}' already has the gateway {other.id}")
    gateway = EgressOnlyInternetGateway(
        id=ids.mint("eigw"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags_at_creation(tag_specifications, RESOURCE_TYPE)[RESOURCE_TYPE],
        vpc_id=vpc.id,
    )
    answer: Answer = {"EgressOnlyInternetGateway": _show(call.tx.put(gateway))}
    call.tx.wake(vpc)
    return with_client_token(call, answer)


@operation("DeleteEgressOnlyInternetGateway", writes=True)
def delete_egress_only_internet_gateway(call: Call, *, egress_only_internet_gateway_id: str) -> Answer:
    """Routes to it lead nowhere from now on."""
    gateway = call.find(EgressOnlyInternetGateway, "eigw", egress_only_internet_gateway_id)
    call.tx.delete(gateway)
    call.wake_vpcs(gateway.vpc_id)
    return {"ReturnCode": True}


@operation("DescribeEgressOnlyInternetGateways", listing=True)
def describe_egress_only_internet_gateways(
    call: Call, *, egress_only_internet_gateway_ids: list[str] | None = None
) -> Answer:
    """An id that is not there is left out, as EC2 does for this kind; tools look for that."""
    found = call.mine(EgressOnlyInternetGateway)
    if egress_only_internet_gateway_ids:
        wanted = {ids.check("eigw", gateway_id) for gateway_id in egress_only_internet_gateway_ids}
        found = [gateway for gateway in found if gateway.id in wanted]
    return show_page(call, "EgressOnlyInternetGateways", choose(call, found, {}), _show, largest=255)


def _show(gateway: EgressOnlyInternetGateway) -> Answer:
    return {
        "EgressOnlyInternetGatewayId": gateway.id,
        "Attachments": [{"VpcId": gateway.vpc_id, "State": "attached"}],
        "Tags": tag_set(gateway.tags),
    }

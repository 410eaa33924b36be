"""VPC endpoints of the gateway kind: routes to a service's addresses, in the route tables that one names.

    endpoint vpce-… ──route_table_ids──► table ──► route: the service's prefix list pl-… to vpce-…

An endpoint's routes come and go with it, and with its hold on a table. No such service stands behind them here, so that
packets to its ranges, which are documentation ranges, end there. Source: "Gateway endpoints" in the AWS PrivateLink
guide.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from orchestrator.api.ec2.launch_options import Structure
from orchestrator.api.operation import Answer, Call, describe, operation, show_page, with_client_token
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter, missing_parameter, one_of, unsupported
from orchestrator.model.filters import FilterTable, compile_filters
from orchestrator.model.prefix_list import SERVICES, service_list_id, service_list_name
from orchestrator.model.route import check_count
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import Route, RouteTable, Vpc, VpcEndpoint

GATEWAY: Final = "Gateway"
MAX_POLICY: Final = 20480  # characters
MAX_DELETED: Final = 25  # endpoints of one request
FULL_ACCESS: Final = json.dumps(
    {"Version": "2008-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}]}
)

# --- create and change ------------------------------------------------------------------------------------------------


@operation("CreateVpcEndpoint", writes=True)
def create_vpc_endpoint(
    call: Call,
    *,
    vpc_id: str,
    vpc_endpoint_type: str = GATEWAY,
    service_name: str | None = None,
    service_region: str | None = None,
    route_table_ids: list[str] | None = None,
    policy_document: str | None = None,
    private_dns_enabled: bool = False,
    ip_address_type: str = "ipv4",
    tag_specifications: list[Structure] | None = None,
) -> Answer:
    tags = tags_at_creation(tag_specifications, "vpc-endpoint")["vpc-endpoint"]
    if vpc_endpoint_type != GATEWAY:
        raise unsupported(
            f"VpcEndpointType must be {GATEWAY} here, not {vpc_endpoint_type}: endpoints are for "
            f"{' and '.join(_service_names(call))}"
        )
    _decline_options(private_dns_enabled, ip_address_type)
    vpc = call.find(Vpc, "vpc", vpc_id)
    if not service_name:
        raise missing_parameter("ServiceName")
    if service_region not in (None, call.region):
        raise invalid_parameter("ServiceRegion", service_region, f"{call.region}: a gateway endpoint leads to no other")
    _check_service(call, [service_name])
    endpoint = VpcEndpoint(
        id=ids.mint("vpce"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags,
        vpc_id=vpc.id,
        service=service_name,
        policy=_read_policy(policy_document),
    )
    endpoint = call.tx.put(_hold(call, endpoint, route_table_ids or ()))
    answer: Answer = {"VpcEndpoint": show_vpc_endpoint(call, endpoint)}
    return with_client_token(call, answer)


@operation("ModifyVpcEndpoint", writes=True)
def modify_vpc_endpoint(
    call: Call,
    *,
    vpc_endpoint_id: str,
    add_route_table_ids: list[str] | None = None,
    remove_route_table_ids: list[str] | None = None,
    policy_document: str | None = None,
    reset_policy: bool = False,
    private_dns_enabled: bool = False,
    ip_address_type: str = "ipv4",
) -> Answer:
    endpoint = call.find(VpcEndpoint, "vpce", vpc_endpoint_id)
    _decline_options(private_dns_enabled, ip_address_type)
    if reset_policy and policy_document:
        raise EC2Error("InvalidParameterCombination", "PolicyDocument and ResetPolicy may not be specified together")
    if both := set(add_route_table_ids or ()) & set(remove_route_table_ids or ()):
        raise EC2Error("InvalidParameter", f"{', '.join(sorted(both))} cannot be added and removed at once")
    endpoint = _let_go(call, endpoint, remove_route_table_ids or ())
    endpoint = _hold(call, endpoint, add_route_table_ids or ())
    if reset_policy or policy_document:
        endpoint = replace(endpoint, policy=_read_policy(policy_document))
    call.tx.put(endpoint)
    return {"Return": True}


def _decline_options(private_dns: bool, ip_address_type: str) -> None:
    if private_dns:
        raise EC2Error(
            "InvalidParameter", "Private DNS can't be enabled because it is not supported by Gateway endpoints"
        )
    one_of("IpAddressType", ip_address_type, ["ipv4"])


def _read_policy(document: str | None) -> str:
    """As it is given; empty for the one that allows everything. Nothing here is asked for by it."""
    if not document:
        return ""
    if len(document) > MAX_POLICY:
        raise invalid_parameter("PolicyDocument", f"{len(document)} characters", f"at most {MAX_POLICY}")
    try:
        policy = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise EC2Error("InvalidPolicyDocument", f"The policy is not JSON: {error}") from None
    if not isinstance(policy, dict) or not isinstance(policy.get("Statement"), list | dict):
        raise EC2Error("InvalidPolicyDocument", "The policy must be a JSON object that has a Statement")
    return document


# --- tables -----------------------------------------------------------------------------------------------------------


def _find_tables(call: Call, table_ids: Iterable[str], vpc_id: str) -> list[RouteTable]:
    """EC2 writes the code of a table that is not there in its own way for endpoints."""
    found = []
    for table_id in dict.fromkeys(table_ids):
        table = call.tx.get(RouteTable, ids.check("rtb", table_id))
        if table is None or not call.sees(table):
            raise EC2Error("InvalidRouteTableId.NotFound", f"The routeTable ID '{table_id}' does not exist")
        if table.vpc_id != vpc_id:
            raise EC2Error("InvalidParameter", f"Route table {table.id} is in {table.vpc_id}, the endpoint in {vpc_id}")
        found.append(table)
    return found


def _hold(call: Call, endpoint: VpcEndpoint, table_ids: Iterable[str]) -> VpcEndpoint:
    """With a route in each of these tables as well."""
    tables = _find_tables(call, table_ids, endpoint.vpc_id)
    destination = service_list_id(endpoint.service)
    for table in tables:
        if any(route.destination == destination for route in table.routes):
            raise EC2Error(
                "RouteAlreadyExists",
                f"route table {table.id} already has a route with destination-prefix-list-id {destination}",
            )
        route = Route(destination=destination, target=endpoint.id, origin="CreateRoute")
        changed = call.tx.put(replace(table, routes=(*table.routes, route)))
        check_count(call.tx, changed, destination)
    if tables:
        call.wake_vpcs(endpoint.vpc_id)
    return replace(endpoint, route_table_ids=(*endpoint.route_table_ids, *(table.id for table in tables)))


def _let_go(call: Call, endpoint: VpcEndpoint, table_ids: Sequence[str]) -> VpcEndpoint:
    """Without a route in any of these tables."""
    for table_id in table_ids:
        ids.check("rtb", table_id)
        if table_id not in endpoint.route_table_ids:
            raise EC2Error("InvalidParameter", f"Route table {table_id} is not associated with {endpoint.id}")
    for table_id in table_ids:
        table = call.tx.get(RouteTable, table_id)
        if table is not None:
            call.tx.put(replace(table, routes=tuple(each for each in table.routes if each.target != endpoint.id)))
    if table_ids:
        call.wake_vpcs(endpoint.vpc_id)
    kept = tuple(table_id for table_id in endpoint.route_table_ids if table_id not in table_ids)
    return replace(endpoint, route_table_ids=kept)


# --- delete -----------------------------------------------------------------------------------------------------------


@operation("DeleteVpcEndpoints", writes=True)
def delete_vpc_endpoints(call: Call, *, vpc_endpoint_ids: list[str]) -> Answer:
    """Those that are there are deleted; the others are told in the answer."""
    if not vpc_endpoint_ids:
        raise missing_parameter("VpcEndpointId")
    if len(vpc_endpoint_ids) > MAX_DELETED:
        raise EC2Error(
            "InvalidParameter",
            f"Maximum number of VPC endpoints to delete was exceeded. You can provide up to {MAX_DELETED} of them.",
        )
    unsuccessful: list[Answer] = []
    for endpoint_id in dict.fromkeys(vpc_endpoint_ids):
        endpoint = call.tx.get(VpcEndpoint, ids.check("vpce", endpoint_id))
        if endpoint is None or not call.sees(endpoint):
            message = f"The VPC endpoint ID '{endpoint_id}' does not exist"
            error = {"Code": "InvalidVpcEndpoint.NotFound", "Message": message}
            unsuccessful.append({"ResourceId": endpoint_id, "Error": error})
            continue
        _let_go(call, endpoint, endpoint.route_table_ids)
        call.tx.delete(endpoint)
    return {"Unsuccessful": unsuccessful}


# --- describe ---------------------------------------------------------------------------------------------------------

VPC_ENDPOINT_FILTERS: Final[FilterTable] = {
    "ip-address-type": lambda endpoint: "ipv4",
    "service-name": lambda endpoint: endpoint.service,
    "service-region": lambda endpoint: endpoint.region,
    "vpc-endpoint-id": lambda endpoint: endpoint.id,
    "vpc-endpoint-state": lambda endpoint: endpoint.state,
    "vpc-endpoint-type": lambda endpoint: GATEWAY,
    "vpc-id": lambda endpoint: endpoint.vpc_id,
}


@describe(
    "DescribeVpcEndpoints",
    kind=VpcEndpoint,
    answer="VpcEndpoints",
    ids_parameter="VpcEndpointIds",
    prefix="vpce",
    filters=VPC_ENDPOINT_FILTERS,
)
def show_vpc_endpoint(call: Call, endpoint: VpcEndpoint) -> Answer:
    return {
        "VpcEndpointId": endpoint.id,
        "VpcEndpointType": GATEWAY,
        "VpcId": endpoint.vpc_id,
        "ServiceName": endpoint.service,
        "ServiceRegion": endpoint.region,
        "State": endpoint.state,
        "PolicyDocument": endpoint.policy or FULL_ACCESS,
        "RouteTableIds": list(endpoint.route_table_ids),
        "SubnetIds": [],
        "Groups": [],
        "IpAddressType": "ipv4",
        "PrivateDnsEnabled": False,
        "RequesterManaged": False,
        "NetworkInterfaceIds": [],
        "DnsEntries": [],
        "CreationTimestamp": endpoint.created,
        "OwnerId": endpoint.account,
        "Tags": tag_set(endpoint.tags),
    }


# --- services ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Service:
    name: str  # com.amazonaws.us-east-1.s3
    domain_name: str
    region: str
    tags: dict[str, str] = field(default_factory=dict)


def _services(call: Call) -> list[_Service]:
    return [
        _Service(service_list_name(call.region, each), f"{each}.{call.region}.amazonaws.com", call.region)
        for each in sorted(SERVICES)
    ]


def _service_names(call: Call) -> list[str]:
    return [service.name for service in _services(call)]


def _check_service(call: Call, names: Iterable[str]) -> None:
    known = _service_names(call)
    if unknown := [name for name in names if name not in known]:
        raise EC2Error(
            "InvalidServiceName",
            f"The Vpc Endpoint Service '{', '.join(unknown)}' does not exist. There are {', '.join(known)}",
        )


SERVICE_FILTERS: Final[FilterTable] = {
    "owner": lambda service: "amazon",
    "service-name": lambda service: service.name,
    "service-region": lambda service: service.region,
    "service-type": lambda service: GATEWAY,
    "supported-ip-address-types": lambda service: "ipv4",
}


@operation("DescribeVpcEndpointServices", listing=True)
def describe_vpc_endpoint_services(
    call: Call, *, service_names: list[str] | None = None, service_regions: list[str] | None = None
) -> Answer:
    """Those of this region: there are none that can be reached from another."""
    _check_service(call, service_names or ())
    found = [service for service in _services(call) if not service_names or service.name in service_names]
    if service_regions:
        found = [service for service in found if service.region in service_regions]
    if filters := call.params.get("Filters"):
        test = compile_filters(filters, SERVICE_FILTERS, lambda service: service.tags)
        found = [service for service in found if test(service)]
    answer = show_page(
        call,
        "ServiceDetails",
        found,
        lambda service: _show_service(call, service),
        smallest=1,
        key=lambda service: service.name,
    )
    return {"ServiceNames": [detail["ServiceName"] for detail in answer["ServiceDetails"]], **answer}


def _show_service(call: Call, service: _Service) -> Answer:
    return {
        "ServiceName": service.name,
        "ServiceId": "vpce-svc-0" + hashlib.sha256(service.name.encode()).hexdigest()[:16],
        "ServiceType": [{"ServiceType": GATEWAY}],
        "ServiceRegion": service.region,
        "AvailabilityZones": list(call.zones),
        "Owner": "amazon",
        "BaseEndpointDnsNames": [service.domain_name],
        "VpcEndpointPolicySupported": True,
        "AcceptanceRequired": False,
        "ManagesVpcEndpoints": False,
        "Tags": [],
        "SupportedIpAddressTypes": ["ipv4"],
    }

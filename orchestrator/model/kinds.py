"""Every kind of resource that is stored."""

from __future__ import annotations

from orchestrator.model.account import AccessKey, Account
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.image import Build, Image, ImageAlias, Layer, Snapshot, Volume
from orchestrator.model.instance import Instance
from orchestrator.model.key_pair import KeyPair
from orchestrator.model.resource import Resource
from orchestrator.model.vpc import (
    DhcpOptions,
    EgressOnlyInternetGateway,
    FlowLog,
    InterfacePermission,
    InternetGateway,
    NatGateway,
    NetworkAcl,
    NetworkInterface,
    PeeringConnection,
    PrefixList,
    RouteTable,
    SecurityGroup,
    Subnet,
    Vpc,
    VpcEndpoint,
)

KINDS: tuple[type[Resource], ...] = (
    Account,
    AccessKey,
    KeyPair,
    Layer,
    Snapshot,
    Image,
    ImageAlias,
    Build,
    Volume,
    Vpc,
    Subnet,
    SecurityGroup,
    NetworkInterface,
    InterfacePermission,
    ElasticIp,
    RouteTable,
    InternetGateway,
    EgressOnlyInternetGateway,
    NatGateway,
    PeeringConnection,
    PrefixList,
    VpcEndpoint,
    NetworkAcl,
    DhcpOptions,
    FlowLog,
    Instance,
)

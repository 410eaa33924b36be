"""Every kind of resource that is stored."""

from __future__ import annotations

from orchestrator.model.account import AccessKey, Account
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.iam import Group, InstanceProfile, Policy, Role, User
from orchestrator.model.image import Build, ExportTask, Image, ImageAlias, ImportTask, RetentionRule
from orchestrator.model.instance import Instance
from orchestrator.model.key_pair import KeyPair
from orchestrator.model.kms import Key, RegionSettings
from orchestrator.model.layer import Layer
from orchestrator.model.resource import Resource
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume
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
    User,
    Group,
    Role,
    Policy,
    InstanceProfile,
    KeyPair,
    Layer,
    Snapshot,
    Image,
    ImageAlias,
    Build,
    ImportTask,
    ExportTask,
    RetentionRule,
    Key,
    RegionSettings,
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

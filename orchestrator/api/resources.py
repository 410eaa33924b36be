"""What a request is about, as policies see it: ARNs, and what is known of each (tags, type, VPC, ...).

    Call ──► targets ──► Target(arn:aws:ec2:REGION:ACCOUNT:volume/vol-…, {"aws:resourcetag/team": ("web",)}) …
                         Target(arn:aws:ec2:REGION:ACCOUNT:instance/*, {"aws:requesttag/team": ("web",)})

Every id that a request names is a target, by its prefix; what the request makes is one as `*` of its kind; a request
that is about nothing in particular is about `*`. A caller must be allowed the request on each. Some requests ask for
more than themselves: leave to tag what they make, or to pass a role to an instance.

How one resource is seen is in `facts.py`, what a launch is about in `launch_targets.py`. Rules: "Actions, resources,
and condition keys for Amazon EC2" (and of IAM, KMS) in the Service Authorization Reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from orchestrator.api import launch_targets
from orchestrator.api.ec2.images import find_image
from orchestrator.api.ec2.security_groups import find_named_group
from orchestrator.api.ec2.tags import TAGGABLE
from orchestrator.api.facts import Facts, Target, arn_of, target_of, text_of
from orchestrator.api.kms.crypto import key_id_of
from orchestrator.api.kms.lookup import find_grant
from orchestrator.api.operation import Call
from orchestrator.model import ids
from orchestrator.model.account import AccessKey
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import EC2_SERVICE, Group, InstanceProfile, Policy, Role, User
from orchestrator.model.instance import Instance
from orchestrator.model.key_pair import KeyPair
from orchestrator.model.kms import Key, find_elsewhere, find_named
from orchestrator.model.resource import Resource
from orchestrator.model.vpc import (
    InterfacePermission,
    NetworkAcl,
    NetworkInterface,
    PeeringConnection,
    RouteTable,
    SecurityGroup,
    Subnet,
    Vpc,
)

ANYTHING: Final = Target()


def targets(call: Call) -> list[Target]:
    found = list(_SERVICES.get(call.service, _nothing)(call))
    return found or [ANYTHING]


def _nothing(_: Call) -> Iterator[Target]:
    return iter(())


# --- EC2 --------------------------------------------------------------------------------------------------------------

# What calls make, as in ARNs; all others are about what they name.
CREATES: Final[Mapping[str, tuple[str, ...]]] = {
    "AllocateAddress": ("elastic-ip",),
    "CopyImage": ("image", "snapshot"),
    "CopySnapshot": ("snapshot",),
    "CreateDefaultSubnet": ("subnet",),
    "CreateDefaultVpc": ("vpc",),
    "CreateDhcpOptions": ("dhcp-options",),
    "CreateEgressOnlyInternetGateway": ("egress-only-internet-gateway",),
    "CreateFlowLogs": ("vpc-flow-log",),
    "CreateImage": ("image", "snapshot"),
    "CreateInternetGateway": ("internet-gateway",),
    "CreateKeyPair": ("key-pair",),
    "CreateManagedPrefixList": ("prefix-list",),
    "CreateNatGateway": ("natgateway",),
    "CreateNetworkAcl": ("network-acl",),
    "CreateNetworkInterface": ("network-interface",),
    "CreateRouteTable": ("route-table",),
    "CreateSecurityGroup": ("security-group",),
    "CreateSnapshot": ("snapshot",),
    "CreateSnapshots": ("snapshot",),
    "CreateSubnet": ("subnet",),
    "CreateVolume": ("volume",),
    "CreateVpc": ("vpc",),
    "CreateVpcEndpoint": ("vpc-endpoint",),
    "CreateVpcPeeringConnection": ("vpc-peering-connection",),
    "ExportImage": ("export-image-task",),
    "ImportImage": ("image", "import-image-task"),
    "ImportKeyPair": ("key-pair",),
    "ImportSnapshot": ("snapshot", "import-snapshot-task"),
    "RegisterImage": ("image",),
    "RunInstances": ("instance", "volume", "network-interface"),
}
MAX_NAMED: Final = 1000  # resources of one call; what is more would only take time to look at
MAX_PARTS: Final = 200  # each is searched for
# Members in which an id is only a word.
_WORDS: Final = frozenset(
    {"Filters", "TagSpecifications", "Tags", "UserData", "Description", "ClientToken", "NextToken", "Name", "DryRun"}
    | {"UserIdGroupPairs"}  # whom a rule lets in is not what the rule is made on
)

Find = Callable[[Call, str], Resource | None]


def _holding(kind: type[Resource], *attributes: str) -> Find:
    """Whichever of the caller's has that id in one of these attributes."""

    def find(call: Call, part: str) -> Resource | None:
        return next(
            (each for each in call.mine(kind) if any(_has(getattr(each, name), part) for name in attributes)), None
        )

    return find


def _has(value: Any, part: str) -> bool:
    if value is None or isinstance(value, str):
        return bool(value == part)
    if isinstance(value, tuple | dict):
        return any(_has(each, part) for each in value)
    return bool(getattr(value, "id", None) == part)


# Ids of what is a part of something else.
_PARTS: Final[Mapping[str, Find]] = {
    "sgr": _holding(SecurityGroup, "rules"),
    "eipassoc": _holding(ElasticIp, "association_id"),
    "eni-attach": _holding(NetworkInterface, "attachment"),
    "eni-perm": lambda call, part: _of_permission(call, part),
    "rtbassoc": _holding(RouteTable, "associations", "main_association_id"),
    "aclassoc": _holding(NetworkAcl, "associations"),
    "vpc-cidr-assoc": _holding(Vpc, "more_cidrs", "ipv6_cidrs"),
    "subnet-cidr-assoc": _holding(Subnet, "ipv6_cidrs"),
    "iip-assoc": _holding(Instance, "profile"),
}
# Members that name what they mean by something else than an id.
_NAMES: Final[Mapping[str, Find]] = {
    "KeyName": _holding(KeyPair, "name"),
    "KeyNames": _holding(KeyPair, "name"),
    "GroupName": lambda call, name: _group_named(call, name),
    "SecurityGroups": lambda call, name: _group_named(call, name),
    "PublicIp": _holding(ElasticIp, "public_ip"),
}


def _group_named(call: Call, name: str) -> Resource | None:
    """The one that operations take: another VPC may have a group of the same name."""
    try:
        return find_named_group(call, name)
    except EC2Error:
        return None


def _of_permission(call: Call, permission_id: str) -> Resource | None:
    permission = call.db.get(InterfacePermission, permission_id)
    return call.db.get(NetworkInterface, permission.interface_id) if permission is not None else None


def _ec2(call: Call) -> Iterator[Target]:
    if call.action.startswith(("Describe", "List")) and not call.action.endswith("Attribute"):
        return
    asked = _asked_tags(call)
    seen: set[str] = set()
    looked = 0
    for member, value in _strings(call.params):
        target = _named(call, member, value)
        looked += value.rpartition("-")[0] in _PARTS
        if len(seen) >= MAX_NAMED or looked > MAX_PARTS:
            raise EC2Error(
                "InvalidParameterValue", f"A request names at most {MAX_NAMED} resources, and {MAX_PARTS} parts of some"
            )
        if target is not None and target.arn not in seen:
            seen.add(target.arn)
            if call.action in ("CreateTags", "DeleteTags"):
                target.context.update(_tag_facts(call.params.get("Tags") or ()))
            yield target
    if call.action == "RunInstances":
        yield from (target for target in launch_targets.places(call) if target.arn not in seen)
    for kind in CREATES.get(call.action, ()):
        for facts in _made_facts(call, kind):
            yield Target(arn_of(call, kind, "*"), {**asked.get(kind, {}), **facts})
    for kind, context in asked.items():
        yield Target(arn_of(call, kind, "*"), {**context, "ec2:createaction": (call.action,)}, "ec2:CreateTags")
    yield from _passed_role(call)
    yield from _used_keys(call)


def _strings(params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(member, value) of all that may name something, however deep."""
    waiting: list[tuple[str, Any]] = list(params.items())
    while waiting:
        member, value = waiting.pop()
        if member in _WORDS:
            continue
        if isinstance(value, str):
            yield member, value
        elif isinstance(value, Mapping):
            waiting += value.items()
        elif isinstance(value, list | tuple):
            waiting += [(member, each) for each in value]


def _named(call: Call, member: str, value: str) -> Target | None:
    prefix = value.rpartition("-")[0]
    if prefix in ids.KINDS and ids.is_well_formed(prefix, value):
        if prefix in _PARTS:
            whole = _PARTS[prefix](call, value)
            return target_of(call, whole) if whole is not None else None
        if prefix == "ami":
            try:
                return target_of(call, find_image(call, value))
            except EC2Error:
                return Target(arn_of(call, "image", value))
        if prefix in TAGGABLE:
            row = call.db.get(TAGGABLE[prefix].kind, value)
            # Of what is another account's, nothing is told, nor that it is there.
            if row is not None and (call.sees(row) or _shared(call, row)):
                return target_of(call, row)
            return Target(arn_of(call, TAGGABLE[prefix].resource_type, value))
        return None
    if member in _NAMES:
        row = _NAMES[member](call, value)
        if row is not None:
            return target_of(call, row)
        if member in ("KeyName", "KeyNames"):
            return Target(arn_of(call, "key-pair", value))
    return None


def _shared(call: Call, row: Resource) -> bool:
    return isinstance(row, PeeringConnection) and row.is_of(call.account, call.region)


# (kind that is made, condition key) -> where the request says it
_REQUESTED: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("instance", "ec2:instancetype"): ("InstanceType",),
    ("instance", "ec2:tenancy"): ("Placement", "Tenancy"),
    ("instance", "ec2:availabilityzone"): ("Placement", "AvailabilityZone"),
    ("instance", "ec2:metadatahttptokens"): ("MetadataOptions", "HttpTokens"),
    ("instance", "ec2:metadatahttpendpoint"): ("MetadataOptions", "HttpEndpoint"),
    ("instance", "ec2:metadatahttpputresponsehoplimit"): ("MetadataOptions", "HttpPutResponseHopLimit"),
    ("instance", "ec2:ebsoptimized"): ("EbsOptimized",),
    ("volume", "ec2:volumetype"): ("VolumeType",),
    ("volume", "ec2:volumesize"): ("Size",),
    ("volume", "ec2:volumeiops"): ("Iops",),
    ("volume", "ec2:volumethroughput"): ("Throughput",),
    ("volume", "ec2:encrypted"): ("Encrypted",),
    ("volume", "ec2:availabilityzone"): ("AvailabilityZone",),
    ("subnet", "ec2:availabilityzone"): ("AvailabilityZone",),
    ("network-interface", "ec2:authorizedservice"): ("AwsService",),
}
_REQUEST_DEFAULTS: Final[Mapping[tuple[str, str], str]] = {
    ("RunInstances", "ec2:instancetype"): "m1.small",
    ("RunInstances", "ec2:tenancy"): "default",
    ("RunInstances", "ec2:ebsoptimized"): "false",
    ("CreateVolume", "ec2:volumetype"): "gp2",
    ("CreateVolume", "ec2:encrypted"): "false",
}


def _made_facts(call: Call, kind: str) -> list[Facts]:
    """What is known of what a call makes: of a launch for each volume and interface that is not as another."""
    if call.action == "RunInstances" and kind in launch_targets.MADE:
        found = {tuple(sorted(facts.items())): facts for facts in launch_targets.MADE[kind](call)}
        if len(found) > MAX_NAMED:
            raise EC2Error("InvalidParameterValue", f"A request makes at most {MAX_NAMED} resources of a kind")
        return list(found.values())
    facts: Facts = {}
    for (made, key), path in _REQUESTED.items():
        if made != kind:
            continue
        value: Any = call.params
        for member in path:
            value = value.get(member) if isinstance(value, Mapping) else None
        if value is None:
            value = _REQUEST_DEFAULTS.get((call.action, key))
        if value is not None:
            facts[key] = (text_of(value),)
    if kind == "instance":
        profile = _profile(call)
        if profile is not None:
            facts["ec2:instanceprofile"] = (profile.arn,)
    for member, key, linked in (("VpcId", "ec2:vpc", "vpc"), ("SubnetId", "ec2:subnet", "subnet")):
        if isinstance(call.params.get(member), str):
            facts[key] = (arn_of(call, linked, call.params[member]),)
    return [facts]


def _asked_tags(call: Call) -> dict[str, Facts]:
    """What TagSpecifications put on what the call makes, by kind."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for specification in call.params.get("TagSpecifications") or ():
        kind = specification.get("ResourceType") or CREATES.get(call.action, ("*",))[0]
        if specification.get("Tags"):
            found.setdefault(kind, []).extend(specification["Tags"])
    return {kind: _tag_facts(tags) for kind, tags in found.items()}


def _tag_facts(tags: Any) -> Facts:
    facts: Facts = {f"aws:requesttag/{tag.get('Key') or ''}".lower(): (tag.get("Value") or "",) for tag in tags}
    keys = tuple(tag.get("Key") or "" for tag in tags)
    return {**facts, "aws:tagkeys": keys} if keys else facts


def _profile(call: Call) -> InstanceProfile | None:
    given = call.params.get("IamInstanceProfile")
    if not isinstance(given, Mapping):
        return None
    return next(
        (
            each
            for each in call.mine(InstanceProfile)
            if each.name == given.get("Name") or (given.get("Arn") and each.arn == given["Arn"])
        ),
        None,
    )


def _passed_role(call: Call) -> Iterator[Target]:
    profile = _profile(call)
    role = call.db.get(Role, profile.role_id) if profile is not None and profile.role_id else None
    if role is not None:
        yield _pass(role)


def _pass(role: Role) -> Target:
    return Target(role.arn, {"iam:passedtoservice": (EC2_SERVICE,), **_iam_tags(role)}, "iam:PassRole")


def key_targets(call: Call) -> Iterator[Target]:
    """The keys that a request is about; others than those of `targets` only in that no policy needs to be asked."""
    if call.service == "kms":
        yield from _kms(call)
    elif call.service == "orc":
        yield from _shredded(call)
    elif call.service == "ec2" and not call.action.startswith(("Describe", "Get", "List")):
        yield from _used_keys(call)


def _shredded(call: Call) -> Iterator[Target]:
    """What destroys a key at once asks no less than what destroys it after a week."""
    named = call.params.get("KeyId")
    key = find_named(call.db, call.account, call.region, named) if isinstance(named, str) else None
    if key is not None:
        action = "kms:ScheduleKeyDeletion" if call.action == "ShredKey" else "kms:DescribeKey"
        yield Target(key.arn, _key_facts(call, key), action, key)


def _used_keys(call: Call) -> Iterator[Target]:
    """Those that a request names. What it uses without a name is asked for where that is known: `ec2/encryption.py`."""
    for named in {value for member, value in _strings(call.params) if member == "KmsKeyId"}:
        key = find_named(call.db, call.account, call.region, named)
        if key is not None and key.manager != "AWS":
            yield key_use(call, key)


def key_use(call: Call, key: Key, action: str = "kms:CreateGrant") -> Target:
    """EC2 uses a customer's key by a grant, which its caller must be able to make; its own default key needs none."""
    facts = {**_key_facts(call, key), "kms:viaservice": (f"ec2.{key.region}.amazonaws.com",)}
    if action == "kms:CreateGrant":
        facts["kms:grantisforawsresource"] = ("true",)
    return Target(key.arn, facts, action, key)


# --- IAM --------------------------------------------------------------------------------------------------------------

# The first of these that a request has names what it is about.
_IAM_MEMBERS: Final[tuple[tuple[str, type[InstanceProfile | Group | Role | User]], ...]] = (
    ("InstanceProfileName", InstanceProfile),
    ("GroupName", Group),
    ("RoleName", Role),
    ("UserName", User),
)
_OWN_USER: Final = frozenset({"GetUser", "ListAccessKeys", "CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey"})


def _iam_tags(row: Resource) -> Facts:
    facts: Facts = {}
    for key, value in row.tags.items():
        facts[f"aws:resourcetag/{key}".lower()] = facts[f"iam:resourcetag/{key}".lower()] = (value,)
    return facts


def _iam(call: Call) -> Iterator[Target]:
    asked = _tag_facts(call.params.get("Tags") or ())
    for member, key in (("PolicyArn", "iam:policyarn"), ("PermissionsBoundary", "iam:permissionsboundary")):
        if isinstance(call.params.get(member), str):
            asked[key] = (call.params[member],)
    if call.params.get("TagKeys"):
        asked["aws:tagkeys"] = tuple(call.params["TagKeys"])
    for member, kind in _IAM_MEMBERS:
        name = call.params.get(member)
        if not isinstance(name, str):
            continue
        noun = "instance-profile" if kind is InstanceProfile else kind.KIND
        row = next((each for each in call.db.all(kind, name=name) if each.account == call.account), None)
        path = row.path if row is not None else call.params.get("Path") or "/"
        yield _iam_target(row, f"arn:aws:iam::{call.account}:{noun}{path}{name}", asked)
        new_name, new_path = call.params.get(f"New{member}"), call.params.get("NewPath")
        if new_name or new_path:
            yield Target(f"arn:aws:iam::{call.account}:{noun}{new_path or path}{new_name or name}", asked)
        break
    else:
        if call.action in _OWN_USER or call.action == "GetAccessKeyLastUsed":
            user = _key_user(call) if call.action == "GetAccessKeyLastUsed" else _calling_user(call)
            if user is not None:
                yield Target(user.arn, _iam_tags(user))
        elif call.action == "CreatePolicy":
            path = call.params.get("Path") or "/"
            yield Target(f"arn:aws:iam::{call.account}:policy{path}{call.params.get('PolicyName')}", asked)
        elif isinstance(call.params.get("PolicyArn"), str):
            arn = call.params["PolicyArn"]
            rows = [row for row in call.db.all(Policy, arn=arn) if row.account == call.account]
            yield Target(arn, {**asked, **(_iam_tags(rows[0]) if rows else {})})
        elif isinstance(call.params.get("PolicySourceArn"), str):
            yield Target(call.params["PolicySourceArn"], asked)
    if call.action == "AddRoleToInstanceProfile":
        role = next((each for each in call.mine(Role) if each.name == call.params.get("RoleName")), None)
        if role is not None:
            yield _pass(role)


def _iam_target(row: InstanceProfile | Group | Role | User | None, arn: str, asked: Facts) -> Target:
    if row is None:
        return Target(arn, asked)
    context = {**asked, **_iam_tags(row)}
    if isinstance(row, User | Role) and row.boundary:
        context.setdefault("iam:permissionsboundary", (row.boundary,))
    return Target(arn, context)


def _calling_user(call: Call) -> User | None:
    principal = call.caller.principal
    return principal.identity if principal is not None and isinstance(principal.identity, User) else None


def _key_user(call: Call) -> User | None:
    key = call.db.get(AccessKey, call.params.get("AccessKeyId") or "")
    return call.db.get(User, key.user) if key is not None and key.account == call.account else None


# --- KMS --------------------------------------------------------------------------------------------------------------


def _key_facts(call: Call, key: Key) -> Facts:
    facts: Facts = {
        "kms:calleraccount": (call.account,),
        "kms:keyspec": ("SYMMETRIC_DEFAULT",),
        "kms:keyusage": ("ENCRYPT_DECRYPT",),
        "kms:keyorigin": ("AWS_KMS",),
        "kms:multiregion": ("false",),
    }
    if key.aliases:
        facts["kms:resourcealiases"] = key.aliases
    return {**facts, **{f"aws:resourcetag/{tag}".lower(): (value,) for tag, value in key.tags.items()}}


# member with the key, member with the context in which it is used, as what: where it is not KeyId and the call itself
_KEY_USES: Final[Mapping[str, tuple[tuple[str, str, str], ...]]] = {
    "ReEncrypt": (
        ("SourceKeyId", "SourceEncryptionContext", "kms:ReEncryptFrom"),
        ("DestinationKeyId", "DestinationEncryptionContext", "kms:ReEncryptTo"),
    ),
    "CreateAlias": (("TargetKeyId", "", ""),),
    "UpdateAlias": (("TargetKeyId", "", ""),),
}
_OF_CIPHERTEXT: Final = ("KeyId", "SourceKeyId")
_GRANT_FACTS: Final[Mapping[str, str]] = {
    "GranteePrincipal": "kms:granteeprincipal",
    "RetiringPrincipal": "kms:retiringprincipal",
    "Operations": "kms:grantoperations",
    "Constraints": "kms:grantconstrainttype",
}


def _kms(call: Call) -> Iterator[Target]:
    for member, context, action in _KEY_USES.get(call.action, (("KeyId", "EncryptionContext", ""),)):
        facts = {**_context_facts(call.params.get(context)), **_request_facts(call)}
        sealed = call.params.get("CiphertextBlob") if member in _OF_CIPHERTEXT else None
        named = call.params.get(member)
        if isinstance(sealed, bytes):
            key = call.db.get(Key, key_id_of(sealed) or "")  # what it says itself, whatever else is named
            if key is not None and key.region == call.region:
                yield Target(key.arn, {**facts, **_key_facts(call, key)}, action, key)
        if call.action == "RetireGrant" and isinstance(call.params.get("GrantToken"), str):
            found = find_grant(call.db, call.region, call.params["GrantToken"])
            if found is not None:
                yield Target(found.arn, {**facts, **_key_facts(call, found)}, action, found)
        elif isinstance(named, str):
            yield _named_key(call, named, facts, action)
    alias = call.params.get("AliasName")
    if isinstance(alias, str):
        yield Target(f"arn:aws:kms:{call.region}:{call.account}:{alias}")
        held = find_named(call.db, call.account, call.region, alias)
        if held is not None and alias.startswith("alias/") and call.action in ("UpdateAlias", "DeleteAlias"):
            yield Target(held.arn, _key_facts(call, held), "", held)


def _named_key(call: Call, named: str, facts: Facts, action: str) -> Target:
    key = find_named(call.db, call.account, call.region, named) or find_elsewhere(
        call.db, call.account, call.region, named
    )
    if named.partition(":alias/")[1] or named.startswith("alias/"):
        facts = {**facts, "kms:requestalias": ("alias/" + named.partition("alias/")[2],)}
    if key is not None:
        return Target(key.arn, {**facts, **_key_facts(call, key)}, action, key)
    parts = named.split(":", 5)
    if len(parts) == 6 and parts[2] == "kms" and parts[4] != call.account:
        return Target(named, facts, action, elsewhere=True)
    return Target(named if len(parts) == 6 else f"arn:aws:kms:{call.region}:{call.account}:key/{named}", facts, action)


def _context_facts(context: Any) -> Facts:
    """Of an encryption context: for conditions, and as it is for the constraints of grants."""
    if not isinstance(context, Mapping) or not context:
        return {}
    facts: Facts = {"kms:encryptioncontextkeys": tuple(context)}
    for name, value in context.items():
        facts[f"kms:encryptioncontext:{name}".lower()] = facts[f"grant-context:{name}"] = (str(value),)
    return facts


def _request_facts(call: Call) -> Facts:
    facts: Facts = {}
    if call.action == "CreateGrant":
        facts["kms:grantisforawsresource"] = ("false",)
        for member, key in _GRANT_FACTS.items():
            value = call.params.get(member)
            if isinstance(value, str):
                facts[key] = (value,)
            elif value:
                facts[key] = tuple(value)
    if "BypassPolicyLockoutSafetyCheck" in call.params:
        facts["kms:bypasspolicylockoutsafetycheck"] = (text_of(call.params["BypassPolicyLockoutSafetyCheck"]),)
    tags = [{"Key": tag.get("TagKey"), "Value": tag.get("TagValue")} for tag in call.params.get("Tags") or ()]
    return {**facts, **_tag_facts(tags)}


_SERVICES: Final[Mapping[str, Callable[[Call], Iterator[Target]]]] = {
    "ec2": _ec2,
    "orc": _ec2,
    "iam": _iam,
    "kms": _kms,
}

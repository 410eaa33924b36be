"""No account reaches another's by any service beside EC2 (which has a walk of its own, in `ec2/test_tenancy.py`).

Every operation that names anything is called by one account with what is another's, one member at a time, all others
being the caller's own. It must be refused for that, or answer without a word of the other account; and nothing that the
other account has may change. An operation, or a member, that is added fails here until the walk knows it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import pytest

from orchestrator.api import operations
from orchestrator.api.authorisation import encode_message
from orchestrator.api.callers import root
from orchestrator.api.gateway import load_models
from orchestrator.api.operation import _DECLARED, HostView, dispatch, provision
from orchestrator.model import ids
from orchestrator.model.account import AccessKey, Account
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import Build, Image, ImageAlias, RetentionRule
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.session import make_deployment_secret
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.vpc import Subnet, Vpc
from tests.api.cloud import ACCOUNT, OTHER, Cloud, allow, document

operations.load()
MODELS: Final = load_models()
TRUST: Final = document({"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"})

# member -> what of `furnish` it names
MEMBERS: Final[Mapping[str, str]] = {
    "UserName": "user",
    "GroupName": "group",
    "RoleName": "role",
    "InstanceProfileName": "profile",
    "PolicyArn": "policy",
    "PermissionsBoundary": "policy",
    "AccessKeyId": "access key",
    "RoleArn": "role arn",
    "EncodedMessage": "message",
    "KeyId": "key",
    "TargetKeyId": "key",
    "SourceKeyId": "key",
    "DestinationKeyId": "key",
    "CiphertextBlob": "ciphertext",
    "AliasName": "alias",
    "GrantId": "grant",
    "GrantToken": "grant token",
    "RetiringPrincipal": "user arn",
    "AccountId": "account",
    "ChildId": "account",
    "ResourceId": "account",
    "CreateAccountRequestId": "request",
    "BuildIds": "build",
    "InstanceId": "instance",
    "VpcId": "vpc",
    "SnapshotIds": "snapshot",
    "ImageId": "mapped",
    "LayerId": "layer",
    "RuleId": "rule",
    "RuleIds": "rule",
    "Source": "instance",
    "Destination": "instance",
}
# What names nothing that is there, or is any text.
FREE: Final = re.compile(
    r"Path|NewPath|PathPrefix|Description|PolicyName|PolicyDocument|AssumeRolePolicyDocument|Policy|Status|Marker|Scope"
    r"|NextToken|EntityFilter|PolicyUsageFilter|VersionId|New(User|Group)Name|Name|Key(Usage|Spec)|Origin"
    r"|CustomerMasterKeySpec|\w*EncryptionAlgorithm|Format|LoginUser|Protocol|ResourceType|UploadId|EventCategory|Email"
    r"|AccountName|IamUserAccessToBilling|RoleSessionName|ExternalId"
)
LISTS: Final = re.compile(r"Tags|TagKeys|ResourceTags|Operations|GrantTokens|LookupAttributes|PolicyArns")
# To whom something may be given is whoever one likes.
ANYBODY: Final = {
    ("CreateGrant", "GranteePrincipal"),
    ("ListGrants", "GranteePrincipal"),
    ("CreateGrant", "RetiringPrincipal"),
}
# New names are the caller's own, whoever else has one like it.
NEW: Final = {
    ("CreateUser", "UserName"),
    ("CreateGroup", "GroupName"),
    ("CreateRole", "RoleName"),
    ("CreateInstanceProfile", "InstanceProfileName"),
    ("CreateAlias", "AliasName"),
    ("CreateAccount", "RoleName"),
}
FILL: Final[Mapping[str, Any]] = {
    "PolicyDocument": document(allow("ec2:*")),
    "AssumeRolePolicyDocument": TRUST,
    "Policy": json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Principal": {"AWS": OTHER}, "Action": "kms:*", "Resource": "*"},
            ],
        }
    ),
    "PolicyName": "p",
    "VersionId": "v1",
    "Status": "Active",
    "Description": "d",
    "Name": "n",
    "Email": "someone@example.com",
    "AccountName": "a",
    "RoleSessionName": "session",
    "Tags": [{"Key": "a", "Value": "b"}],
    "TagKeys": ["a"],
    "Operations": ["Encrypt"],
    "Plaintext": b"x",
    "Format": "raw",
    "UploadId": "upload-" + "0" * 17,
    "ResourceType": "EBS_SNAPSHOT",
    "RetentionDays": 3,
}
EXTRA: Final[Mapping[str, Mapping[str, Any]]] = {
    "TagResource": {"Tags": [{"TagKey": "a", "TagValue": "b"}]},
    "GenerateDataKey": {"KeySpec": "AES_256"},
    "GenerateDataKeyWithoutPlaintext": {"KeySpec": "AES_256"},
    "CreateGrant": {"GranteePrincipal": OTHER},
    "PutKeyPolicy": {"PolicyName": "default"},
    "GetKeyPolicy": {"PolicyName": "default"},
    "MapImage": {"Name": "open"},
    "CreateUser": {"UserName": "another"},
    "CreateRole": {"RoleName": "another"},
    "TracePacket": {"Source": "192.0.2.1", "Destination": "192.0.2.1"},
}
DENIED: Final = re.compile(
    r"NoSuchEntity|AccessDenied(Exception)?|NotFoundException|\w+(\.|)NotFound(Exception)?|Invalid\w+\.NotFound"
    r"|InvalidAuthorizationMessageException|InvalidGrantTokenException|InvalidGrantIdException"
)
# What is refused for another reason that is just as good.
OTHERWISE: Final[Mapping[str, str]] = {
    "orc.MapImage-ImageId": "InvalidParameterValue",  # somebody has mapped it
    "kms.ListRetirableGrants-RetiringPrincipal": "ValidationException",  # it must be of the caller's account
}
# AWS says of any access key whose it is.
SHARED: Final = {"sts.GetAccessKeyInfo-AccessKeyId"}


@dataclass(frozen=True)
class Walk:
    service: str
    operation: str
    member: str

    def __str__(self) -> str:
        return f"{self.service}.{self.operation}-{self.member}"


def walks() -> Iterator[Walk]:
    for (service, name), declared in sorted(_DECLARED.items()):
        if service == "ec2":
            continue
        for member in declared.bind(MODELS[service]).names:
            if member in MEMBERS and (name, member) not in NEW | ANYBODY:
                yield Walk(service, name, member)


def test_every_member_is_known_to_the_walk() -> None:
    unknown = []
    for (service, name), declared in _DECLARED.items():
        shape = declared.bind(MODELS[service]).model.input_shape  # type: ignore[union-attr]
        for member in declared.bind(MODELS[service]).names if service != "ec2" else ():
            kind = shape.members[member].type_name  # type: ignore[union-attr]
            if member in MEMBERS or (name, member) in ANYBODY or kind in ("boolean", "integer", "long", "timestamp"):
                continue
            known = (
                FREE.fullmatch(member) if kind == "string" else LISTS.fullmatch(member) or kind in ("map", "structure")
            )
            if not known and member != "Plaintext":
                unknown.append(f"{service}.{name}.{member} ({kind})")
    assert not unknown


# --- what there is ----------------------------------------------------------------------------------------------------


class Host:
    """As much of a host as is asked about."""

    def recipes(self) -> list[str]:
        return ["n"]

    def network_plan(self, vpc_id: str) -> str:
        return f"plan of {vpc_id}"

    def storage(self) -> list[Any]:
        return []

    def storage_room(self) -> tuple[int, int]:
        return 1, 2

    def verify_layer(self, layer_id: str) -> list[str]:
        return []


def run(cloud: Cloud, account: str, service: str, action: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """As the gateway runs a call of the account's root, without the wire."""
    gateway = cloud.gateway
    call = gateway.call(service, action, root(account, f"AKIAROOT{account}"), "us-east-1", "request", "192.0.2.1")
    call.params.update(params)
    gateway.authorise(call)
    return dispatch(cloud.store, gateway._operations[service, action], call)


def furnish(cloud: Cloud, account: str, word: str) -> dict[str, Any]:
    """One of everything of an account, by the names in MEMBERS."""

    def iam(action: str, **params: Any) -> dict[str, Any]:
        return run(cloud, account, "iam", action, params)

    user = iam("CreateUser", UserName=f"{word}-user")["User"]
    role = iam("CreateRole", RoleName=f"{word}-role", AssumeRolePolicyDocument=TRUST.replace(ACCOUNT, account))["Role"]
    iam("CreateGroup", GroupName=f"{word}-group")
    iam("CreateInstanceProfile", InstanceProfileName=f"{word}-profile")
    policy = iam("CreatePolicy", PolicyName=f"{word}-policy", PolicyDocument=FILL["PolicyDocument"])["Policy"]
    key = run(cloud, account, "kms", "CreateKey", {})["KeyMetadata"]
    run(cloud, account, "kms", "CreateAlias", {"AliasName": f"alias/{word}", "TargetKeyId": key["KeyId"]})
    grant = run(
        cloud,
        account,
        "kms",
        "CreateGrant",
        {"KeyId": key["KeyId"], "GranteePrincipal": account, "Operations": ["Encrypt"]},
    )
    sealed = run(cloud, account, "kms", "Encrypt", {"KeyId": key["KeyId"], "Plaintext": b"x"})
    make_deployment_secret(cloud.store)
    caller = cloud.gateway.call("ec2", "DescribeVpcs", root(account, ""), "us-east-1", "r", "192.0.2.1")
    provision(cloud.store, caller)
    here: dict[str, Any] = {"account": account, "region": "us-east-1", "created": cloud.clock()}
    everywhere = {**here, "region": EVERY_REGION}
    [vpc] = cloud.store.all(Vpc, account=account)
    subnet = cloud.store.all(Subnet, account=account)[0]
    layer = Layer(id=ids.mint("layer"), size_bytes=1 << 30, **everywhere)
    snapshot = Snapshot(id=ids.mint("snap"), layer_id=layer.id, size_gib=1, **here)
    rows = [
        layer,
        snapshot,
        Image(id=ids.mint("ami"), name=f"{word}-image", **everywhere),
        Image(id=ids.mint("ami"), name="open", public=True, **everywhere),
        ImageAlias(id=ids.mint("ami"), name="open", **everywhere),
        Build(id=ids.mint("build"), name=f"{word}-build", **everywhere),
        RetentionRule(
            id=ids.mint("rule"),
            resource_type="EBS_SNAPSHOT",
            retention_days=3,
            description="",
            resource_tags={},
            **here,
        ),
        Instance(
            id=ids.mint("i"),
            reservation_id=ids.mint("r"),
            image_id=ids.mint("ami"),
            instance_type="t3.micro",
            vpc_id=vpc.id,
            subnet_id=subnet.id,
            zone="us-east-1a",
            **here,
        ),
        AccessKey(id=f"AKIA{word.upper()}", secret="s" * 40, user=user["UserId"], **here),
    ]
    with cloud.store.write() as tx:
        tx.put_all(rows)
        known = tx.get(Account, account)
        assert known is not None
    by_kind = {row.KIND: row.id for row in rows}
    return {
        "user": f"{word}-user",
        "user arn": user["Arn"],
        "group": f"{word}-group",
        "role": f"{word}-role",
        "role arn": role["Arn"],
        "profile": f"{word}-profile",
        "policy": policy["Arn"],
        "access key": f"AKIA{word.upper()}",
        "message": encode_message(cloud.store, account, {"allowed": False, "told": f"{word}-told"}),
        "key": key["Arn"],
        "ciphertext": sealed["CiphertextBlob"],
        "alias": f"alias/{word}",
        "grant": grant["GrantId"],
        "grant token": grant["GrantToken"],
        "account": account,
        "request": f"car-{word}",
        "build": by_kind["build"],
        "instance": by_kind["instance"],
        "vpc": vpc.id,
        "snapshot": snapshot.id,
        "mapped": by_kind[ImageAlias.KIND],
        "layer": layer.id,
        "rule": by_kind[RetentionRule.KIND],
    }


@pytest.fixture
def two(cloud: Cloud) -> tuple[Cloud, dict[str, Any], dict[str, Any]]:
    """What the deployment's first account has; what the second has, who calls."""
    cloud.gateway.host = cast(HostView, Host())
    cloud.store.set_meta("account", ACCOUNT)
    return cloud, furnish(cloud, ACCOUNT, "theirs"), furnish(cloud, OTHER, "mine")


def fill(walk: Walk, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> dict[str, Any]:
    """The request: the walk's member names what is theirs, all others what is mine."""
    bound = _DECLARED[walk.service, walk.operation].bind(MODELS[walk.service])
    shape = bound.model.input_shape  # type: ignore[union-attr]
    params: dict[str, Any] = {}
    wanted = {*shape.required_members, walk.member, *EXTRA.get(walk.operation, {})}  # type: ignore[union-attr]
    if walk.operation == "RetireGrant" and walk.member == "KeyId":
        wanted.add("GrantId")
    if walk.operation == "RetireGrant" and walk.member == "GrantId":
        wanted.add("KeyId")
    if walk.operation in ("Decrypt", "ReEncrypt"):
        wanted.add("CiphertextBlob")
    for member in wanted:
        is_list = shape.members[member].type_name == "list"  # type: ignore[union-attr]
        if member == walk.member:
            value = theirs[MEMBERS[member]]
            params[member] = [value] if is_list else value
        elif member in EXTRA.get(walk.operation, {}):
            params[member] = EXTRA[walk.operation][member]
        elif member in MEMBERS:
            value = mine[MEMBERS[member]]
            params[member] = [value] if is_list else value
        else:
            params[member] = FILL[member]
    return params


def owned(cloud: Cloud, account: str) -> dict[str, int]:
    rows = (row for table in cloud.store._tables.values() for row in table.rows.values())
    return {row.id: row.revision for row in rows if row.account == account}


def tells(answer: Any, theirs: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What an answer says of the other account that the caller did not say itself."""
    text = str(answer)
    said = str(asked)
    return [what for what, value in theirs.items() if str(value) in text and str(value) not in said]


def test_nothing_of_another_account_can_be_named(two: tuple[Cloud, dict[str, Any], dict[str, Any]]) -> None:
    cloud, theirs, mine = two
    wrong = []
    walked = list(walks())
    for walk in walked:
        params = fill(walk, theirs, mine)
        before = owned(cloud, ACCOUNT)
        try:
            answer: Any = run(cloud, OTHER, walk.service, walk.operation, params)
        except EC2Error as error:
            if not DENIED.fullmatch(error.code) and error.code != OTHERWISE.get(str(walk)):
                wrong.append(f"{walk}: {error}  {params}")
            answer = error.message
        except Exception as error:
            wrong.append(f"{walk}: {type(error).__name__} {error}  {params}")
            continue
        else:
            if str(walk) not in SHARED:
                wrong.append(f"{walk} answered {str(answer)[:200]}  {params}")
        if str(walk) not in SHARED and (told := tells(answer, theirs, params)):
            wrong.append(f"{walk} tells of {told}: {str(answer)[:300]}")
        if before != owned(cloud, ACCOUNT):
            wrong.append(f"{walk} changed what is theirs")
            break
    assert not wrong, "\n".join([f"{len(wrong)} of {len(walked)}", *wrong])
    assert len(walked) > 90


def test_lists_tell_of_nothing_of_another_account(two: tuple[Cloud, dict[str, Any], dict[str, Any]]) -> None:
    cloud, theirs, _ = two
    wrong = []
    for (service, name), declared in sorted(_DECLARED.items()):
        shape = declared.bind(MODELS[service]).model.input_shape  # type: ignore[union-attr]
        reads = name.startswith(("List", "Describe", "Get", "Lookup"))
        if service == "ec2" or not reads or (shape is not None and shape.required_members):
            continue
        try:
            answer: Any = run(cloud, OTHER, service, name, {})
        except EC2Error as error:
            answer = error.message
        if service == "organizations" and name == "DescribeOrganization":
            continue  # each account may know whose organization it is in
        if told := tells(answer, theirs, {}):
            wrong.append(f"{service}.{name} tells of {told}: {str(answer)[:300]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("by", ["EventName", "AccessKeyId", "ResourceName", "Username"])
def test_the_log_of_calls_tells_an_account_of_its_own(cloud: Cloud, by: str) -> None:
    cloud.client("ec2").create_key_pair(KeyName="planted")
    value = {"EventName": "CreateKeyPair", "AccessKeyId": cloud.root().access_key, "ResourceName": "planted"}.get(
        by, "root"
    )
    asked = {"LookupAttributes": [{"AttributeKey": by, "AttributeValue": value}]}
    assert "planted" in str(run(cloud, ACCOUNT, "cloudtrail", "LookupEvents", asked))
    assert "planted" not in str(run(cloud, OTHER, "cloudtrail", "LookupEvents", asked))

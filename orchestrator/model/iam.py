"""Users, groups, roles, policies and instance profiles. All of them are of an account, in every region.

    User ──────┐                                  AccessKey.user ──► User
    Group ─────┼─ inline documents, and           User.groups ─────► Group
    Role ──────┘  ARNs of attached Policies       InstanceProfile.role_id ──► Role ◄── sessions (session.py)

An `id` is IAM's unique id (AIDA..., AROA...): what refers to a row does so by it, so a name may change or be used anew
without anybody gaining what its earlier bearer had. Policies are referred to by ARN, as everywhere in IAM.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar, Final

from orchestrator.model.resource import EVERY_REGION, Resource, Rows
from orchestrator.model.session import Session

_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
EC2_SERVICE: Final = "ec2.amazonaws.com"


def mint_id(prefix: str) -> str:
    """`mint_id("AIDA")` is the unique id of a user."""
    return prefix + "".join(secrets.choice(_LETTERS) for _ in range(17))


def mint_access_key_id() -> str:
    return "AKIA" + "".join(secrets.choice(_LETTERS) for _ in range(16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity(Resource):
    """What users, groups and roles have in common."""

    INDEXES: ClassVar[tuple[str, ...]] = ("account", "name", "attached")
    PREFIX: ClassVar[str] = ""
    NOUN: ClassVar[str] = ""  # in ARNs

    region: str = EVERY_REGION
    name: str
    path: str = "/"
    inline: dict[str, str] = field(default_factory=dict)  # name -> document
    attached: tuple[str, ...] = ()  # ARNs of policies
    boundary: str = ""  # the ARN of the policy beyond which none of the others reach

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:{self.NOUN}{self.path}{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Identity):
    KIND: ClassVar[str] = "user"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "name", "attached", "groups")
    PREFIX: ClassVar[str] = "AIDA"
    NOUN: ClassVar[str] = "user"

    groups: tuple[str, ...] = ()  # ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Group(Identity):
    KIND: ClassVar[str] = "group"
    PREFIX: ClassVar[str] = "AGPA"
    NOUN: ClassVar[str] = "group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Role(Identity):
    KIND: ClassVar[str] = "role"
    PREFIX: ClassVar[str] = "AROA"
    NOUN: ClassVar[str] = "role"

    trust: str  # the document that says who may assume it
    trust_bearers: dict[str, str] = field(default_factory=dict)  # ARN in it -> id of who bore it, where one was kept
    description: str = ""
    max_session_s: int = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    number: int
    document: str
    created: datetime

    @property
    def id(self) -> str:
        return f"v{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy(Resource):
    KIND: ClassVar[str] = "policy"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "name", "arn")

    region: str = EVERY_REGION
    name: str
    path: str = "/"
    description: str = ""
    versions: tuple[PolicyVersion, ...]  # oldest first
    default_number: int = 1
    last_number: int = 1  # ever given: one is not given twice
    updated: datetime

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:policy{self.path}{self.name}"

    @property
    def document(self) -> str:
        """The one that counts."""
        return next(each.document for each in self.versions if each.number == self.default_number)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceProfile(Resource):
    """What an instance is given a role by; it has one role at most."""

    KIND: ClassVar[str] = "instance-profile"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "name", "role_id")

    region: str = EVERY_REGION
    name: str
    path: str = "/"
    role_id: str = ""

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:instance-profile{self.path}{self.name}"


# --- Amazon's own policies --------------------------------------------------------------------------------------------

_READS: Final = ["ec2:Describe*", "ec2:Get*", "ec2:List*", "ec2:Search*"]
_READ_ALL: Final = [
    *_READS,
    "iam:Get*",
    "iam:List*",
    "kms:Describe*",
    "kms:Get*",
    "kms:List*",
    "orc:Describe*",
    "orc:Get*",
    "orc:List*",
    "organizations:Describe*",
    "organizations:List*",
    "sts:GetAccessKeyInfo",
    "sts:GetCallerIdentity",
    "sts:GetSessionToken",
]
# What these say of the services that are offered here.
_MANAGED: Final[dict[str, tuple[str, list[dict[str, object]]]]] = {
    "AdministratorAccess": ("Everything", [{"Effect": "Allow", "Action": "*", "Resource": "*"}]),
    "PowerUserAccess": (
        "Everything but accounts, users, groups and roles",
        [{"Effect": "Allow", "NotAction": ["iam:*", "organizations:*", "orc:CreateAccount"]}],
    ),
    "ReadOnlyAccess": ("Looking at everything", [{"Effect": "Allow", "Action": _READ_ALL}]),
    "AmazonEC2FullAccess": ("All of EC2", [{"Effect": "Allow", "Action": "ec2:*"}]),
    "AmazonEC2ReadOnlyAccess": ("Looking at EC2", [{"Effect": "Allow", "Action": _READS}]),
    "IAMFullAccess": ("All of IAM", [{"Effect": "Allow", "Action": "iam:*"}]),
    "IAMReadOnlyAccess": ("Looking at IAM", [{"Effect": "Allow", "Action": ["iam:Get*", "iam:List*"]}]),
}
_MANAGED_SINCE: Final = datetime(2015, 2, 6, 18, 39, tzinfo=UTC)


@lru_cache(maxsize=1)
def managed_policies() -> dict[str, Policy]:
    """By ARN."""
    found = {}
    for number, (name, (description, statements)) in enumerate(_MANAGED.items()):
        whole = [{**statement, "Resource": "*"} for statement in statements]
        document = json.dumps({"Version": "2012-10-17", "Statement": whole})
        policy = Policy(
            id=f"ANPA{number:017d}",
            account="aws",
            created=_MANAGED_SINCE,
            name=name,
            description=description,
            versions=(PolicyVersion(number=1, document=document, created=_MANAGED_SINCE),),
            updated=_MANAGED_SINCE,
        )
        found[policy.arn] = policy
    return found


# --- looking up -------------------------------------------------------------------------------------------------------


def find_policy(rows: Rows, account: str, arn: str) -> Policy | None:
    """An account's own policy of that ARN, or one of Amazon's."""
    if arn.startswith("arn:aws:iam::aws:"):
        return managed_policies().get(arn)
    return next((policy for policy in rows.all(Policy, arn=arn) if policy.account == account), None)


def documents_of(rows: Rows, identity: User | Group | Role) -> Iterator[str]:
    """The documents of all policies that speak for it: its own, those attached, and its groups'."""
    holders: list[User | Group | Role] = [identity]
    if isinstance(identity, User):
        groups = (rows.get(Group, group_id) for group_id in identity.groups)
        holders += [group for group in groups if group is not None]
    for holder in holders:
        yield from holder.inline.values()
        for arn in holder.attached:
            policy = find_policy(rows, holder.account, arn)
            if policy is not None:
                yield policy.document


def profile_role(rows: Rows, profile_id: str) -> tuple[InstanceProfile | None, Role | None]:
    """The profile of that id and its role, as far as they are there."""
    profile = rows.get(InstanceProfile, profile_id) if profile_id else None
    role = rows.get(Role, profile.role_id) if profile is not None and profile.role_id else None
    return profile, role


# --- who calls --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A caller that is not its account's root by a key of its own. `identity` is None for the root's sessions."""

    identity: User | Role | None
    session: Session | None = None

    @property
    def arn(self) -> str:
        """As aws:PrincipalArn has it: of a role's session, that of the role."""
        if self.identity is not None:
            return self.identity.arn
        return f"arn:aws:iam::{self.session.account if self.session else ''}:root"

    @property
    def limits(self) -> tuple[str, ...]:
        """Documents beyond which the session does not reach."""
        return self.session.policies if self.session else ()

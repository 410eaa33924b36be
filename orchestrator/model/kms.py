"""Keys that encrypt volumes, in the words of AWS KMS, and what an account has chosen for a region.

    master key (a file for root alone, or made of a passphrase)
        wraps  Key.material                one for each named key, which never leaves the process
            wraps  Layer.data_key          one for each volume made anew, shared by what is made of it
                encrypts  the qcow2 file

Whoever has the store alone can read none of it.

    Enabled <--> Disabled        ScheduleKeyDeletion, from either: PendingDeletion --its day, or ShredKey--> Destroyed
                    ^--------------------------- CancelKeyDeletion <---+

A key without material is gone for ever, and with it all that it wraps. KMS knows it no longer; its row stays, so that
what it made unreadable can say why.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import ClassVar, Protocol

from orchestrator.model.resource import Resource, Rows

EBS_ALIAS = "alias/aws/ebs"  # of the default key, which is made when it is first needed
ENABLED, DISABLED, PENDING, DESTROYED = "Enabled", "Disabled", "PendingDeletion", "Destroyed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Who may do what with a key by another's leave. `grantee_id` and `retirer_id` are the unique ids of the users or
    roles that the ARNs meant when the grant was made: who bears the name later is somebody else."""

    id: str
    token: str = field(repr=False)
    created: datetime
    name: str = ""
    grantee: str
    grantee_id: str = ""
    retirer: str = ""
    retirer_id: str = ""
    operations: tuple[str, ...]
    constraints: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    at: datetime
    kind: str  # AUTOMATIC | ON_DEMAND


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Resource):
    """`id` is the key id, a UUID."""

    KIND: ClassVar[str] = "key"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "aliases", "state")

    material: str = field(default="", repr=False)  # wrapped, base64; empty once it is destroyed
    earlier_materials: tuple[str, ...] = field(default=(), repr=False)  # still unwrap what they wrapped; newest first
    aliases: tuple[str, ...] = ()  # alias/aws/ebs, alias/...
    alias_times: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)  # when made, and last changed
    description: str = ""
    manager: str = "CUSTOMER"  # CUSTOMER | AWS: made by the service, as the default key is
    state: str = ENABLED  # Enabled | Disabled | PendingDeletion | Destroyed
    delete_at: datetime | None = None
    policy: str = ""  # the document that was given; empty: `default_policy`
    policy_bearers: dict[str, str] = field(default_factory=dict)  # ARN in it -> id of who bore it, where one was kept
    grants: tuple[Grant, ...] = ()
    rotation_days: int = 0  # 0: not rotated
    rotate_at: datetime | None = None
    rotations: tuple[Rotation, ...] = ()

    @property
    def arn(self) -> str:
        return f"arn:aws:kms:{self.region}:{self.account}:key/{self.id}"


def default_policy(key: Key) -> str:
    """The account may do all with it, and so leaves it to its users' policies."""
    statement = {
        "Sid": "Enable IAM User Permissions",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{key.account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }
    return json.dumps({"Version": "2012-10-17", "Id": "key-default-1", "Statement": [statement]}, indent=2)


def destroyed(key: Key) -> Key:
    """What is left of a key: its name in what it made unreadable."""
    return replace(
        key,
        material="",
        earlier_materials=(),
        aliases=(),
        alias_times={},
        state=DESTROYED,
        delete_at=None,
        grants=(),
        rotation_days=0,
        rotate_at=None,
    )


def rotated(key: Key, material: str, rotation: Rotation) -> Key:
    """`key` with new material. What the earlier ones wrapped is still read by them."""
    earlier = (key.material, *key.earlier_materials)
    return replace(key, material=material, earlier_materials=earlier, rotations=(*key.rotations, rotation))


def find_named(rows: Rows, account: str, region: str, named: str) -> Key | None:
    """The account's key that an id, an ARN, an alias or an alias' ARN names in a region; None also for an ARN that is
    of elsewhere."""
    name = named
    if named.startswith("arn:"):
        parts = named.split(":", 5)
        if len(parts) != 6 or parts[2:5] != ["kms", region, account]:
            return None
        name = parts[5]
        if not name.startswith(("key/", "alias/")):
            return None
        name = name.removeprefix("key/")
    if name.startswith("alias/"):
        found = rows.all(Key, aliases=name)
    else:
        key = rows.get(Key, name)
        found = [key] if key is not None else []
    return next((key for key in found if (key.account, key.region) == (account, region)), None)


def find_elsewhere(rows: Rows, account: str, region: str, named: str) -> Key | None:
    """The key of another account that an ARN names in a region."""
    parts = named.split(":", 5)
    if len(parts) != 6 or parts[4] == account:
        return None
    return find_named(rows, parts[4], region, named)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSettings(Resource):
    """What an account has chosen for a region. `id` is ACCOUNT:REGION."""

    KIND: ClassVar[str] = "region-settings"

    encrypt_by_default: bool = False
    default_key_id: str = ""  # empty: the key of EBS_ALIAS
    snapshot_block_public: str = "unblocked"  # block-all-sharing | block-new-sharing | unblocked
    image_block_public: str = "unblocked"  # block-new-sharing | unblocked


class KeyUnavailable(Exception):
    """The key is disabled, waits for its deletion, or is gone; or the ciphertext is not of this key."""


class Keys(Protocol):
    """What is done with keys. Values in, values out: it keeps nothing but the master key."""

    def new_material(self) -> str:
        """For a new Key, wrapped."""

    def new_data_key(self, key: Key) -> str:
        """For a new Layer, wrapped. Raises KeyUnavailable."""

    def unwrap(self, key: Key, data_key: str) -> bytes:
        """The 32 bytes that encrypt a layer. Raises KeyUnavailable."""

    def encrypt(self, key: Key, plaintext: bytes, context: Mapping[str, str]) -> bytes:
        """Raises KeyUnavailable."""

    def decrypt(self, key: Key, ciphertext: bytes, context: Mapping[str, str]) -> bytes:
        """Raises KeyUnavailable, also when the context is another than at encryption."""

"""Which key encrypts a volume, a snapshot or a copy, and the layers that are made for them.

Rules ("Amazon EBS encryption" in the EBS guide): what is made of something encrypted is encrypted, by the same key
unless another is named; what is made of something that is not is encrypted when the call says so, or the region's
default does. Nothing encrypted becomes unencrypted.

The caller needs every key that is used, whoever names it:

    what encrypts              kms:CreateGrant; of a key that the request names, the gateway asks before
    a volume that is attached, kms:CreateGrant of the volume's key
    or whose instance starts
    what is made of a snapshot kms:CreateGrant and kms:Decrypt of the snapshot's key, and kms:ReEncryptFrom where
                               another key encrypts what is made

The service's own key (alias/aws/ebs) serves its account without being asked, and nobody else. What EBS finds out later,
and shows as a volume in error, is an error at once here, as a named key's state is.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from orchestrator.api.key_access import check
from orchestrator.api.operation import Call
from orchestrator.api.resources import key_use
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error
from orchestrator.model.kms import EBS_ALIAS, Key, KeyUnavailable, RegionSettings, find_named
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume


def region_settings(call: Call) -> RegionSettings:
    """What the caller has chosen for this region, or what holds without a choice."""
    settings_id = f"{call.account}:{call.region}"
    known = call.db.get(RegionSettings, settings_id)
    return known or RegionSettings(id=settings_id, account=call.account, region=call.region, created=call.now)


def find_key(call: Call, named: str) -> Key:
    """The key that an id, an ARN, an alias or an alias' ARN names; it can be used."""
    if named in (EBS_ALIAS, f"arn:aws:kms:{call.region}:{call.account}:{EBS_ALIAS}"):
        return service_key(call)
    found = find_named(call.db, call.account, call.region, named)
    if found is None:
        raise EC2Error("InvalidKmsKeyId.NotFound", f"The key '{named}' does not exist in {call.region}")
    return _usable(found)


def default_key(call: Call) -> Key:
    """The one that encrypts where none is named: the account's choice for the region, or else the service's."""
    chosen = region_settings(call).default_key_id
    return find_key(call, chosen) if chosen else service_key(call)


def service_key(call: Call) -> Key:
    """The key of alias/aws/ebs, made at first use."""
    known = find_named(call.db, call.account, call.region, EBS_ALIAS)
    if known is not None:
        return _usable(known)
    return call.tx.put(
        Key(
            id=str(uuid4()),
            account=call.account,
            region=call.region,
            created=call.now,
            material=call.keys.new_material(),
            aliases=(EBS_ALIAS,),
            description="Default key that protects my EBS volumes when no other key is defined",
            manager="AWS",
        )
    )


def _usable(key: Key) -> Key:
    if key.state != "Enabled":
        raise EC2Error("InvalidKmsKeyId.InvalidState", f"The key '{key.id}' cannot be used: it is {key.state}")
    return key


def key_arn(call: Call, encrypted: Volume | Snapshot) -> str:
    """Of what encrypts it. A key that is gone leaves its name on what it encrypted."""
    key = call.db.get(Key, encrypted.key_id)
    return key.arn if key else f"arn:aws:kms:{encrypted.region}:{encrypted.account}:key/{encrypted.key_id}"


def choose_key(call: Call, *, encrypted: bool | None, named: str | None, source_key_id: str = "") -> Key | None:
    """The key of what is to be made of something that `source_key_id` encrypts (empty: nothing does, or it is made
    empty), or None for no encryption. `encrypted` and `named` are the request's Encrypted and KmsKeyId."""
    if encrypted is False and (source_key_id or named):
        about = "a key is named" if named else "its source is encrypted"
        raise EC2Error("InvalidParameterCombination", f"The parameter encrypted cannot be false when {about}")
    if named:
        if encrypted is None and not source_key_id and not region_settings(call).encrypt_by_default:
            raise EC2Error("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted")
        return find_key(call, named)
    source_key = call.db.get(Key, source_key_id) if source_key_id else None
    if source_key is not None and call.sees(source_key):
        key = _usable(source_key)
    elif source_key_id or encrypted or region_settings(call).encrypt_by_default:
        key = default_key(call)
    else:
        return None
    _ask(call, key, "kms:CreateGrant")
    return key


def check_source(call: Call, source: Snapshot, key: Key | None) -> None:
    """The caller may have the content of `source`, to be encrypted by `key`: UnauthorizedOperation where the key of the
    snapshot does not let it, InvalidKmsKeyId.InvalidState where that key cannot be used."""
    source_key = call.db.get(Key, source.key_id) if source.key_id else None
    if source_key is None:
        return
    _ask(call, source_key, "kms:CreateGrant", "kms:Decrypt")
    if key is None or key.id != source_key.id:
        _ask(call, source_key, "kms:ReEncryptFrom")
    _usable(source_key)


def check_attached(call: Call, volume: Volume) -> None:
    """The caller may have an instance read and write `volume`: UnauthorizedOperation where its key does not let it."""
    key = call.db.get(Key, volume.key_id) if volume.key_id else None
    if key is not None:
        _ask(call, key, "kms:CreateGrant")


def _ask(call: Call, key: Key, *actions: str) -> None:
    if key.manager == "AWS" and key.account == call.account:
        return
    for action in actions:
        check(call, key, key_use(call, key, action))


def new_layer(call: Call, *, size_gib: int, source: Snapshot | None = None, key: Key | None = None) -> Layer:
    """The layer of a new volume or of a copy: empty, on top of a snapshot's, or, where the key is another, a copy."""
    below = call.tx.get(Layer, source.layer_id) if source else None
    size_bytes = size_gib * GIB
    made: dict[str, Any] = {}
    if below is not None and below.key_id == (key.id if key else ""):
        made = {"parent_id": below.id, "key_id": below.key_id, "data_key": below.data_key}
    else:
        if below is not None:
            made["copy_of"] = below.id
        if key is not None:
            try:
                made |= {"key_id": key.id, "data_key": call.keys.new_data_key(key)}
            except KeyUnavailable as error:
                raise EC2Error("InvalidKmsKeyId.InvalidState", str(error)) from error
    layer = Layer(
        id=ids.mint("layer"),
        account=call.account,
        region=call.region,
        created=call.now,
        size_bytes=max(size_bytes, below.size_bytes if below else 0),
        **made,
    )
    return call.tx.put(layer)

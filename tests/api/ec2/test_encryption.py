"""Which key encrypts what, a region's defaults, and a key's end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from orchestrator.api.ec2.encryption import choose_key, new_layer
from orchestrator.api.operation import Call
from orchestrator.api.orc.keys import describe_key_use, shred_key
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.kms import DESTROYED, EBS_ALIAS, Key, KeyUnavailable, RegionSettings
from orchestrator.model.layer import GIB, Layer
from orchestrator.model.snapshot import Snapshot
from orchestrator.model.volume import Volume, VolumeAttachment
from orchestrator.store import Store
from tests.api.ec2.conftest import ACCOUNT, KEYS, OTHER_ACCOUNT, Api

T = TypeVar("T")


def within(api: Api, act: Callable[[Call], T], action: str = "CreateVolume") -> T:
    """What an operation does in its transaction."""
    with api.store.write() as tx:
        return act(replace(api._call(action, {}), db=tx))


def make_key(api: Api, *aliases: str, **fields: Any) -> Key:
    made = {"id": f"{len(api.store.all(Key)):08}-0000-0000-0000-000000000000", "account": api.account} | fields
    key = Key(region=api.region, created=api.now, material=KEYS.new_material(), aliases=aliases, **made)
    api.put(key)
    return api.get(Key, key.id)


def chosen(api: Api, **given: Any) -> Key | None:
    asked = {"encrypted": None, "named": None} | given
    return within(api, lambda call: choose_key(call, **asked))


def refusal(api: Api, **given: Any) -> str:
    with pytest.raises(EC2Error) as caught:
        chosen(api, **given)
    return caught.value.code


# --- defaults ---------------------------------------------------------------------------------------------------------


def test_encryption_by_default_is_a_choice_of_an_account_in_a_region(api: Api) -> None:
    def states(each: Api) -> tuple[bool, str]:
        answer = each.call("GetEbsEncryptionByDefault")
        return answer["EbsEncryptionByDefault"], answer["SseType"]

    assert states(api) == (False, "none")
    assert api.call("EnableEbsEncryptionByDefault") == {"EbsEncryptionByDefault": True}
    assert states(api) == (True, "sse-kms")
    assert states(api.by()) == states(api.within("us-west-2")) == (False, "none")
    assert api.refused("DisableEbsEncryptionByDefault", DryRun=True).code == "DryRunOperation"
    assert states(api) == (True, "sse-kms")
    assert api.call("DisableEbsEncryptionByDefault") == {"EbsEncryptionByDefault": False}
    assert states(api) == (False, "none")


def test_the_default_key_is_chosen_and_given_back(api: Api) -> None:
    key = make_key(api, "alias/mine")
    assert api.call("GetEbsDefaultKmsKeyId") == {"KmsKeyId": EBS_ALIAS}
    for name in (key.id, key.arn, "alias/mine", f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/mine"):
        assert api.call("ModifyEbsDefaultKmsKeyId", KmsKeyId=name) == {"KmsKeyId": key.arn}
    assert api.call("GetEbsDefaultKmsKeyId") == {"KmsKeyId": key.arn}
    assert api.within("us-west-2").call("GetEbsDefaultKmsKeyId") == {"KmsKeyId": EBS_ALIAS}
    assert chosen(api, encrypted=True) == key
    named = chosen(api, encrypted=True, named=EBS_ALIAS)
    assert named is not None and named.manager == "AWS", "the alias means the service's key, whatever the default is"
    api.change(key, state="Disabled")
    assert refusal(api, encrypted=True) == "InvalidKmsKeyId.InvalidState"
    assert api.call("ResetEbsDefaultKmsKeyId") == {"KmsKeyId": EBS_ALIAS}
    assert api.call("GetEbsDefaultKmsKeyId") == {"KmsKeyId": EBS_ALIAS}
    assert chosen(api, encrypted=True) == named


def test_a_default_key_must_be_usable(api: Api) -> None:
    disabled, theirs = make_key(api, state="Disabled"), make_key(api, "alias/theirs", account=OTHER_ACCOUNT)
    for name, code in (
        ("none", "NotFound"),
        ("alias/none", "NotFound"),
        (theirs.id, "NotFound"),
        (theirs.arn, "NotFound"),
        ("alias/theirs", "NotFound"),
        (f"arn:aws:kms:us-west-2:{ACCOUNT}:key/{disabled.id}", "NotFound"),
        (disabled.id, "InvalidState"),
    ):
        assert api.refused("ModifyEbsDefaultKmsKeyId", KmsKeyId=name).code == f"InvalidKmsKeyId.{code}"
    assert api.store.all(RegionSettings) == []


# --- which key --------------------------------------------------------------------------------------------------------


def test_what_is_asked_for(api: Api) -> None:
    key = make_key(api)
    assert chosen(api) is None
    assert chosen(api, encrypted=False) is None
    assert chosen(api, encrypted=True, named=key.id) == key
    default = chosen(api, encrypted=True)
    assert default is not None and default.aliases == (EBS_ALIAS,)
    assert chosen(api, encrypted=True) == default, "it is made once"
    assert refusal(api, named=key.id) == "InvalidParameterDependency"
    assert refusal(api, encrypted=False, named=key.id) == "InvalidParameterCombination"
    api.call("EnableEbsEncryptionByDefault")
    assert chosen(api) == chosen(api, encrypted=False) == default, "nobody can turn the region's default off by a call"
    assert chosen(api, named=key.id) == key


def test_what_is_encrypted_stays_so_by_its_own_key(api: Api) -> None:
    key, other = make_key(api), make_key(api)
    theirs = make_key(api, account=OTHER_ACCOUNT)
    assert chosen(api, source_key_id=key.id) == key
    assert chosen(api, source_key_id=key.id, named=other.id) == other
    assert refusal(api, source_key_id=key.id, encrypted=False) == "InvalidParameterCombination"
    mine = chosen(api, source_key_id=theirs.id)
    assert mine is not None and mine.aliases == (EBS_ALIAS,), "a shared snapshot's key is not the caller's to use"
    api.change(key, state=DESTROYED, material="")
    assert refusal(api, source_key_id=key.id) == "InvalidKmsKeyId.InvalidState"


def test_layers_share_a_data_key_as_long_as_they_share_a_key(api: Api) -> None:
    key, other = make_key(api), make_key(api)
    first = within(api, lambda call: new_layer(call, size_gib=4, key=key))
    snapshot = Snapshot(
        id=ids.mint("snap"), layer_id=first.id, size_gib=4, key_id=key.id, account=ACCOUNT, created=api.now
    )
    api.put(snapshot)
    child = within(api, lambda call: new_layer(call, size_gib=8, source=snapshot, key=key))
    assert (child.parent_id, child.data_key, child.size_bytes) == (first.id, first.data_key, 8 * GIB)
    copy = within(api, lambda call: new_layer(call, size_gib=4, source=snapshot, key=other))
    assert (copy.parent_id, copy.copy_of, copy.key_id) == ("", first.id, other.id)
    assert KEYS.unwrap(other, copy.data_key) != KEYS.unwrap(key, first.data_key)
    with pytest.raises(KeyUnavailable):
        KEYS.unwrap(key, copy.data_key)


# --- the end of a key -------------------------------------------------------------------------------------------------


def family(api: Api, key: Key) -> dict[str, Any]:
    """An encrypted volume in use, its snapshot, an image of that, a copy that is under way, and one that is not."""
    mine: dict[str, Any] = {"account": api.account, "region": api.region, "created": api.now}
    first = within(api, lambda call: new_layer(call, size_gib=1, key=key))
    top = Layer(
        id=ids.mint("layer"), size_bytes=GIB, parent_id=first.id, key_id=key.id, data_key=first.data_key, **mine
    )
    copying = Layer(id=ids.mint("layer"), size_bytes=GIB, copy_of=first.id, key_id="another", **mine)
    plain = Layer(id=ids.mint("layer"), size_bytes=GIB, **mine)
    snapshot = Snapshot(id=ids.mint("snap"), layer_id=first.id, size_gib=1, key_id=key.id, **mine)
    at = VolumeAttachment(instance_id="i-00000000000000001", device="/dev/sdf")
    volume = {"zone": "us-east-1a", "size_gib": 1, **mine}
    rows = {
        "used": Volume(id=ids.mint("vol"), layer_id=top.id, key_id=key.id, attachment=at, **volume),
        "copied": Volume(id=ids.mint("vol"), layer_id=copying.id, key_id="another", **volume),
        "plain": Volume(id=ids.mint("vol"), layer_id=plain.id, **volume),
        "snapshot": snapshot,
        "image": Image(
            id=ids.mint("ami"),
            name="sealed",
            login_user="admin",
            block_devices=(BlockDevice(device="/dev/xvda", snapshot_id=snapshot.id, size_gib=1),),
            **mine,
        ),
    }
    api.put(top, copying, plain, *rows.values())
    return rows


def orc(api: Api, handler: Callable[..., dict[str, Any]], key_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = within(api, lambda call: handler(call, key_id=key_id))["KeyUse"]
    return answer


def test_a_key_tells_what_hangs_on_it(api: Api) -> None:
    key = make_key(api, "alias/mine")
    rows = family(api, key)
    api.make_image()
    use = orc(api, describe_key_use, "alias/mine")
    assert use == {
        "KeyId": key.id,
        "KeyState": "Enabled",
        "Volumes": sorted([rows["used"].id, rows["copied"].id]),
        "Snapshots": [rows["snapshot"].id],
        "Images": [rows["image"].id],
        "Instances": ["i-00000000000000001"],
    }
    with pytest.raises(EC2Error, match=r"InvalidKmsKeyId\.NotFound"):
        orc(api.by(), describe_key_use, key.id)


def test_a_shredded_key_is_gone_at_once_and_leaves_no_trace(api: Api) -> None:
    key = make_key(api, "alias/mine")
    layer = api.get(Layer, family(api, key)["used"].layer_id)
    assert KEYS.unwrap(key, layer.data_key)
    assert key.material.encode() in files_of(api.store)
    assert orc(api, shred_key, key.id)["KeyState"] == DESTROYED
    assert key.material.encode() not in files_of(api.store)
    gone = api.get(Key, key.id)
    assert (gone.state, gone.material, gone.aliases) == (DESTROYED, "", ())
    with pytest.raises(KeyUnavailable, match="destroyed"):
        KEYS.unwrap(gone, layer.data_key)
    assert orc(api, describe_key_use, key.id)["Instances"] == ["i-00000000000000001"]
    assert orc(api, shred_key, key.id)["KeyState"] == DESTROYED, "it may be asked for again"


def test_a_default_key_that_was_shredded_is_made_anew(api: Api) -> None:
    first = chosen(api, encrypted=True)
    assert first is not None
    orc(api, shred_key, EBS_ALIAS)
    second = chosen(api, encrypted=True)
    assert second is not None and second.id != first.id


def files_of(store: Store) -> bytes:
    return b"".join(path.read_bytes() for path in store.path.parent.iterdir())


def test_a_kept_answer_of_a_call_has_no_wrapped_key_in_it(api: Api) -> None:
    """Client tokens and audit events are of another table than keys, and outlive them."""
    api.call("EnableEbsEncryptionByDefault")
    api.call("CreateVolume", AvailabilityZone="us-east-1a", Size=1, ClientToken="once")
    [layer] = [layer for layer in api.store.all(Layer) if layer.key_id]
    [key] = api.store.all(Key)
    rows = api.store._database.query("SELECT answer FROM token UNION ALL SELECT document FROM audit")
    assert rows
    for (document,) in rows:
        assert layer.data_key.encode() not in document and key.material.encode() not in document

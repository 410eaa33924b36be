"""Permissions of snapshots, and a region's bar on public ones."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.model.kms import EBS_ALIAS
from orchestrator.model.snapshot import Snapshot

from .conftest import ACCOUNT, OTHER_ACCOUNT, Api
from .test_snapshots import SNAPSHOT, ids_of, keep
from .test_snapshots_copy import make_key

ADD_OTHER = {"CreateVolumePermission": {"Add": [{"UserId": OTHER_ACCOUNT}]}}
ADD_ALL = {"CreateVolumePermission": {"Add": [{"Group": "all"}]}}


def modify(api: Api, **given: Any) -> None:
    api.call("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **given)


def permissions(api: Api) -> list[dict[str, str]]:
    given = {"Attribute": "createVolumePermission", "SnapshotId": SNAPSHOT}
    answer = api.call("DescribeSnapshotAttribute", **given)
    assert answer["SnapshotId"] == SNAPSHOT
    found: list[dict[str, str]] = answer["CreateVolumePermissions"]
    return found


def test_shared_with_accounts_and_everybody(api: Api) -> None:
    keep(api)
    assert permissions(api) == []
    modify(api, **ADD_OTHER)
    modify(api, **ADD_OTHER)
    modify(api, Attribute="createVolumePermission", OperationType="add", UserIds=["777788889999"], GroupNames=["all"])
    assert permissions(api) == [{"UserId": OTHER_ACCOUNT}, {"UserId": "777788889999"}, {"Group": "all"}]
    assert ids_of(api.by("123412341234")) == {SNAPSHOT}
    modify(api, CreateVolumePermission={"Remove": [{"Group": "all"}, {"UserId": "777788889999"}]})
    assert permissions(api) == [{"UserId": OTHER_ACCOUNT}]
    assert (ids_of(api.by()), ids_of(api.by("123412341234"))) == ({SNAPSHOT}, set())
    modify(api, OperationType="remove", UserIds=[OTHER_ACCOUNT])
    assert permissions(api) == []
    modify(api, **ADD_ALL)
    api.call("ResetSnapshotAttribute", SnapshotId=SNAPSHOT, Attribute="createVolumePermission")
    assert permissions(api) == []


def test_product_codes_are_none(api: Api) -> None:
    keep(api)
    answer = api.call("DescribeSnapshotAttribute", SnapshotId=SNAPSHOT, Attribute="productCodes")
    assert answer == {"SnapshotId": SNAPSHOT, "ProductCodes": []}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "MissingParameter"),
        ({"UserIds": [OTHER_ACCOUNT]}, "MissingParameter"),
        ({"OperationType": "add"}, "MissingParameter"),
        ({"OperationType": "give", "UserIds": [OTHER_ACCOUNT]}, "InvalidParameterValue"),
        ({"Attribute": "productCodes", **ADD_OTHER}, "InvalidParameterValue"),
        ({**ADD_OTHER, "OperationType": "add"}, "InvalidParameterCombination"),
        (
            {"CreateVolumePermission": {"Add": [{"UserId": OTHER_ACCOUNT}], "Remove": [{"Group": "all"}]}},
            "InvalidParameterCombination",
        ),
        ({"CreateVolumePermission": {"Add": [{"UserId": "bob"}]}}, "InvalidParameterValue"),
        ({"CreateVolumePermission": {"Add": [{"Group": "some"}]}}, "InvalidParameterValue"),
        ({"CreateVolumePermission": {"Add": [{"Group": "all", "UserId": ACCOUNT}]}}, "InvalidParameterCombination"),
        ({"OperationType": "add", "UserIds": [f"{number:012}" for number in range(501)]}, "InvalidParameterValue"),
    ],
)
def test_modify_is_refused(api: Api, given: dict[str, Any], code: str) -> None:
    keep(api)
    assert api.refused("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **given).code == code


def test_none_but_the_owner(api: Api) -> None:
    keep(api, shared_with=(OTHER_ACCOUNT,))
    other = api.by()
    assert other.refused("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **ADD_ALL).code == "AuthFailure"
    about = {"SnapshotId": SNAPSHOT, "Attribute": "createVolumePermission"}
    assert other.refused("DescribeSnapshotAttribute", **about).code == "AuthFailure"
    assert other.refused("ResetSnapshotAttribute", **about).code == "AuthFailure"


def test_an_encrypted_one_is_never_public(api: Api) -> None:
    key = make_key(api)
    keep(api, key_id=key.id)
    assert api.refused("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **ADD_ALL).code == "OperationNotPermitted"
    modify(api, **ADD_OTHER)
    assert permissions(api) == [{"UserId": OTHER_ACCOUNT}]


def test_one_of_the_default_key_stays(api: Api) -> None:
    key = make_key(api, aliases=(EBS_ALIAS,), manager="AWS")
    keep(api, key_id=key.id)
    assert api.refused("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **ADD_OTHER).code == "OperationNotPermitted"


# --- a region's bar -------------------------------------------------------------------------------------------------


def test_block_new_sharing(api: Api) -> None:
    keep(api, public=True)
    assert api.call("GetSnapshotBlockPublicAccessState") == {"State": "unblocked", "ManagedBy": "account"}
    assert api.call("EnableSnapshotBlockPublicAccess", State="block-new-sharing") == {"State": "block-new-sharing"}
    assert api.call("GetSnapshotBlockPublicAccessState")["State"] == "block-new-sharing"
    assert ids_of(api.by()) == {SNAPSHOT}
    assert api.refused("ModifySnapshotAttribute", SnapshotId=SNAPSHOT, **ADD_ALL).code == "OperationNotPermitted"
    modify(api, **ADD_OTHER)
    assert api.within("us-west-2").call("GetSnapshotBlockPublicAccessState")["State"] == "unblocked"
    assert api.by().call("GetSnapshotBlockPublicAccessState")["State"] == "unblocked"


def test_block_all_sharing_hides_what_is_public(api: Api) -> None:
    keep(api, public=True)
    api.call("EnableSnapshotBlockPublicAccess", State="block-all-sharing")
    assert (ids_of(api.by()), ids_of(api, RestorableByUserIds=["all"])) == (set(), set())
    assert permissions(api) == [{"Group": "all"}]
    assert api.call("DisableSnapshotBlockPublicAccess") == {"State": "unblocked"}
    assert ids_of(api.by()) == {SNAPSHOT}
    assert api.refused("EnableSnapshotBlockPublicAccess", State="unblocked").code == "InvalidParameterValue"
    assert api.get(Snapshot, SNAPSHOT).public

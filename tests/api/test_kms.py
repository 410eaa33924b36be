"""KMS as boto3 sees it: its requests go through the whole gateway, without a socket in between."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from orchestrator.api.gateway import Gateway, Request
from orchestrator.api.operation import HostView, Settings
from orchestrator.keys import KeyRing
from orchestrator.model.kms import DESTROYED, Key
from orchestrator.reconcile.key import KeyCalendar
from orchestrator.reconcile.loop import Again
from orchestrator.store import Store
from tests.conftest import Clock

ACCOUNT, OTHER = "111122223333", "444455556666"
SECRET = b"planted-plaintext-9f2c"
ROOT = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "kms:*", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [ROOT], "Id": "mine"})


class _Body:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        yield self._content


@dataclass
class Cloud:
    """One deployment; `client` gives boto3 clients of it."""

    gateway: Gateway
    store: Store
    clock: Clock
    calendar: KeyCalendar

    def client(self, service: str = "kms", *, region: str = "us-east-1", account: str = ACCOUNT) -> Any:
        session = boto3.Session(account, "x", region_name=region)
        client = session.client(service, endpoint_url="http://127.0.0.1:1")  # type: ignore[call-overload]
        client.meta.events.register("before-send.*", self._send)
        return client

    def _send(self, request: Any, **_: Any) -> AWSResponse:
        parts = urlsplit(request.url)
        headers = {name: value if isinstance(value, str) else value.decode() for name, value in request.headers.items()}
        body = request.body.encode() if isinstance(request.body, str) else request.body or b""
        answer = self.gateway.answer(Request(request.method, parts.path, parts.query, headers, body, "127.0.0.1"))
        headers = {"Content-Type": answer.content_type, **answer.headers}
        return AWSResponse(request.url, answer.status, cast(Any, headers), cast(Any, _Body(answer.body)))

    def pass_(self, **duration: float) -> None:
        """Time, with all that reconcilers do in it."""
        self.clock.pass_(**duration)
        for key_id in self.calendar.due():
            self.calendar.step(key_id)


@pytest.fixture
def cloud(tmp_path: Path, clock: Clock) -> Iterator[Cloud]:
    store = Store(tmp_path / "state" / "orchestrator.db", durable=False)
    settings = Settings(regions={"us-east-1": ("us-east-1a",), "us-west-2": ("us-west-2a",)})
    ring = KeyRing(bytes(32))
    gateway = Gateway(store, settings, cast(HostView, None), ring, clock, any_credentials=True)
    yield Cloud(gateway, store, clock, KeyCalendar(store, ring, clock))
    store.close()


@pytest.fixture
def kms(cloud: Cloud) -> Any:
    return cloud.client()


@pytest.fixture
def key_id(kms: Any) -> str:
    made: str = kms.create_key()["KeyMetadata"]["KeyId"]
    return made


def code_of(call: Callable[..., Any], **params: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**params)
    code: str = caught.value.response["Error"]["Code"]
    return code


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_as_it_was_made(kms: Any, clock: Clock) -> None:
    made = kms.create_key(Description="mine", Policy=POLICY, Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"]
    assert (
        made
        == kms.describe_key(KeyId=made["Arn"])["KeyMetadata"]
        == kms.describe_key(KeyId=made["KeyId"])["KeyMetadata"]
    )
    assert made["Arn"] == f"arn:aws:kms:us-east-1:{ACCOUNT}:key/{made['KeyId']}"
    assert (made["KeyState"], made["Enabled"], made["Description"]) == ("Enabled", True, "mine")
    assert (made["KeySpec"], made["KeyUsage"], made["KeyManager"]) == (
        "SYMMETRIC_DEFAULT",
        "ENCRYPT_DECRYPT",
        "CUSTOMER",
    )
    assert made["CreationDate"] == clock()
    assert "DeletionDate" not in made
    kms.update_key_description(KeyId=made["KeyId"], Description="")
    assert kms.describe_key(KeyId=made["KeyId"])["KeyMetadata"]["Description"] == ""


@pytest.mark.parametrize(
    "given",
    [
        {"KeySpec": "RSA_2048"},
        {"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"},
        {"KeyUsage": "SIGN_VERIFY"},
        {"Origin": "EXTERNAL"},
        {"MultiRegion": True},
        {"XksKeyId": "x"},
    ],
)
def test_other_kinds_of_keys_are_refused(kms: Any, given: dict[str, Any]) -> None:
    with pytest.raises(kms.exceptions.UnsupportedOperationException):
        kms.create_key(**given)
    assert kms.list_keys()["Keys"] == []


def test_keys_are_of_one_account_and_region(cloud: Cloud, kms: Any, key_id: str) -> None:
    arn = kms.describe_key(KeyId=key_id)["KeyMetadata"]["Arn"]
    for elsewhere in (cloud.client(region="us-west-2"), cloud.client(account=OTHER)):
        with pytest.raises(elsewhere.exceptions.NotFoundException):
            elsewhere.describe_key(KeyId=key_id)
        assert elsewhere.list_keys()["Keys"] == []
    with pytest.raises(ClientError, match="NotFoundException"):
        cloud.client(region="us-west-2").describe_key(KeyId=arn)
    said = []
    for name in (arn, arn[:-12] + "0" * 12, arn.replace("key/", "alias/")):
        with pytest.raises(ClientError, match="AccessDeniedException") as caught:
            cloud.client(account=OTHER).describe_key(KeyId=name)
        said.append(str(caught.value))
    assert len(set(said)) == 1, "whether another account has a key is not told"
    for name in ("no-such", "alias/none", arn[:-1] + "x", "arn:aws:s3:::x", arn.replace("key/", "")):
        with pytest.raises(kms.exceptions.NotFoundException):
            kms.describe_key(KeyId=name)


def test_lists_come_in_pages(kms: Any) -> None:
    made = sorted(kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(7))
    pages = list(kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 3}))
    assert [len(page["Keys"]) for page in pages] == [3, 3, 1]
    assert [key["KeyId"] for page in pages for key in page["Keys"]] == made
    assert [page["Truncated"] for page in pages] == [True, True, False]
    with pytest.raises(kms.exceptions.InvalidMarkerException):
        kms.list_keys(Marker="nonsense")
    assert code_of(kms.list_aliases, Limit=500) == "ValidationException"


def test_a_disabled_key_is_used_for_nothing(kms: Any, key_id: str) -> None:
    blob = kms.encrypt(KeyId=key_id, Plaintext=SECRET)["CiphertextBlob"]
    kms.disable_key(KeyId=key_id)
    for call, params in (
        (kms.encrypt, {"KeyId": key_id, "Plaintext": SECRET}),
        (kms.decrypt, {"CiphertextBlob": blob}),
        (kms.generate_data_key, {"KeyId": key_id, "KeySpec": "AES_256"}),
        (kms.re_encrypt, {"CiphertextBlob": blob, "DestinationKeyId": key_id}),
        (kms.enable_key_rotation, {"KeyId": key_id}),
    ):
        with pytest.raises(kms.exceptions.DisabledException):
            call(**params)
    kms.enable_key(KeyId=key_id)
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == SECRET


# --- deletion ---------------------------------------------------------------------------------------------------------


def test_a_key_waits_for_its_deletion_and_can_be_kept(cloud: Cloud, kms: Any, key_id: str) -> None:
    blob = kms.encrypt(KeyId=key_id, Plaintext=SECRET)["CiphertextBlob"]
    for days in (1, 6, 31):
        assert code_of(kms.schedule_key_deletion, KeyId=key_id, PendingWindowInDays=days) == "ValidationException"
    answer = kms.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
    assert (answer["KeyState"], answer["PendingWindowInDays"]) == ("PendingDeletion", 7)
    assert answer["DeletionDate"] == cloud.clock() + timedelta(days=7)
    assert kms.describe_key(KeyId=key_id)["KeyMetadata"]["DeletionDate"] == answer["DeletionDate"]
    for call, params in (
        (kms.decrypt, {"CiphertextBlob": blob}),
        (kms.enable_key, {"KeyId": key_id}),
        (kms.schedule_key_deletion, {"KeyId": key_id}),
        (kms.create_alias, {"AliasName": "alias/a", "TargetKeyId": key_id}),
        (kms.tag_resource, {"KeyId": key_id, "Tags": []}),
    ):
        with pytest.raises(kms.exceptions.KMSInvalidStateException, match="is pending deletion"):
            call(**params)
    cloud.pass_(days=6.9)
    kms.cancel_key_deletion(KeyId=key_id)
    with pytest.raises(kms.exceptions.KMSInvalidStateException, match="not pending"):
        kms.cancel_key_deletion(KeyId=key_id)
    assert kms.describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"] == "Disabled"
    cloud.pass_(days=60)
    kms.enable_key(KeyId=key_id)
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == SECRET


def test_a_key_whose_time_has_come_is_gone_from_kms_and_from_the_disk(cloud: Cloud, kms: Any, key_id: str) -> None:
    kms.create_alias(AliasName="alias/mine", TargetKeyId=key_id)
    blob = kms.encrypt(KeyId=key_id, Plaintext=SECRET)["CiphertextBlob"]
    row = cloud.store.get(Key, key_id)
    assert row is not None
    kms.schedule_key_deletion(KeyId=key_id)
    assert isinstance(cloud.calendar.step(key_id), Again)
    cloud.pass_(days=30)
    with pytest.raises(kms.exceptions.NotFoundException):
        kms.describe_key(KeyId=key_id)
    assert kms.list_keys()["Keys"] == []
    assert code_of(kms.decrypt, CiphertextBlob=blob) == "AccessDeniedException"
    assert [alias["AliasName"] for alias in kms.list_aliases()["Aliases"]] == ["alias/aws/ebs"]
    left = cloud.store.get(Key, key_id)
    assert left is not None and (left.state, left.material) == (DESTROYED, "")
    directory = cloud.store.path.parent
    assert not [path for path in directory.iterdir() if row.material.encode() in path.read_bytes()]
    assert cloud.calendar.due() == []


# --- use --------------------------------------------------------------------------------------------------------------


def test_a_secret_comes_back_in_its_own_context_only(kms: Any, key_id: str) -> None:
    context = {"app": "x", "stage": "test"}
    sealed = kms.encrypt(KeyId=key_id, Plaintext=SECRET, EncryptionContext=context)
    assert sealed["KeyId"].endswith(key_id)
    blob = sealed["CiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=blob, EncryptionContext=dict(reversed(context.items())))
    assert (opened["Plaintext"], opened["KeyId"]) == (SECRET, sealed["KeyId"])
    for wrong in ({}, {"app": "x"}, {**context, "stage": "production"}):
        with pytest.raises(kms.exceptions.InvalidCiphertextException):
            kms.decrypt(CiphertextBlob=blob, EncryptionContext=wrong)
    for damaged in (b"x", blob[:-1], blob + b"x", b"\x02" + blob[1:], blob[:-1] + bytes([blob[-1] ^ 1])):
        with pytest.raises(kms.exceptions.InvalidCiphertextException):
            kms.decrypt(CiphertextBlob=damaged, EncryptionContext=context)


def test_a_ciphertext_knows_its_key(cloud: Cloud, kms: Any, key_id: str) -> None:
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key_id, Plaintext=SECRET)["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob, KeyId=key_id)["Plaintext"] == SECRET
    with pytest.raises(kms.exceptions.IncorrectKeyException):
        kms.decrypt(CiphertextBlob=blob, KeyId=other)
    assert code_of(cloud.client(account=OTHER).decrypt, CiphertextBlob=blob) == "AccessDeniedException"
    moved = kms.re_encrypt(CiphertextBlob=blob, DestinationKeyId=other, DestinationEncryptionContext={"a": "b"})
    assert (moved["SourceKeyId"][-36:], moved["KeyId"][-36:]) == (key_id, other)
    again = kms.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext={"a": "b"})
    assert (again["Plaintext"], again["KeyId"][-36:]) == (SECRET, other)
    with pytest.raises(kms.exceptions.InvalidKeyUsageException):
        kms.encrypt(KeyId=key_id, Plaintext=SECRET, EncryptionAlgorithm="RSAES_OAEP_SHA_1")


@pytest.mark.parametrize(
    ("asked", "size"), [({"KeySpec": "AES_256"}, 32), ({"KeySpec": "AES_128"}, 16), ({"NumberOfBytes": 1024}, 1024)]
)
def test_data_keys(kms: Any, key_id: str, asked: dict[str, Any], size: int) -> None:
    made = kms.generate_data_key(KeyId=key_id, EncryptionContext={"a": "b"}, **asked)
    opened = kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext={"a": "b"})
    assert opened["Plaintext"] == made["Plaintext"] and len(made["Plaintext"]) == size
    hidden = kms.generate_data_key_without_plaintext(KeyId=key_id, **asked)
    assert "Plaintext" not in hidden
    assert len(kms.decrypt(CiphertextBlob=hidden["CiphertextBlob"])["Plaintext"]) == size


def test_what_cannot_be_asked_for(kms: Any, key_id: str) -> None:
    for params in ({}, {"KeySpec": "AES_256", "NumberOfBytes": 32}, {"KeySpec": "AES_512"}):
        assert code_of(kms.generate_data_key, KeyId=key_id, **params) == "ValidationException"
    assert code_of(kms.encrypt, KeyId=key_id, Plaintext=b"x" * 4097) == "ValidationException"
    assert kms.encrypt(KeyId=key_id, Plaintext=b"x" * 4096)["CiphertextBlob"]
    assert len(kms.generate_random(NumberOfBytes=24)["Plaintext"]) == 24
    assert code_of(kms.generate_random) == "ValidationException"
    assert code_of(kms.get_public_key, KeyId=key_id) == "UnsupportedOperationException"
    with pytest.raises(kms.exceptions.DryRunOperationException):
        kms.encrypt(KeyId=key_id, Plaintext=SECRET, DryRun=True)


def test_no_secret_is_in_a_file_an_event_or_a_log(
    cloud: Cloud, kms: Any, key_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="orchestrator")
    blob = kms.encrypt(KeyId=key_id, Plaintext=SECRET)["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == SECRET
    data_key = kms.generate_data_key(KeyId=key_id, KeySpec="AES_256")["Plaintext"]
    kms.create_grant(KeyId=key_id, GranteePrincipal=ACCOUNT, Operations=["Decrypt"], GrantTokens=["planted-token-77aa"])
    for _ in range(2):
        with pytest.raises(ClientError):
            kms.encrypt(KeyId="none", Plaintext=SECRET)
    row = cloud.store.get(Key, key_id)
    assert row is not None
    files = b"".join(path.read_bytes() for path in cloud.store.path.parent.iterdir())
    events = json.dumps(cloud.store.events())
    assert '"CreateGrant"' in events and "Encrypt" in caplog.text
    for hidden in (SECRET.decode(), "planted-token-77aa", data_key.hex()):
        assert hidden.encode() not in files
        assert hidden not in events + caplog.text
    assert data_key not in files and row.material not in events + caplog.text


# --- aliases ----------------------------------------------------------------------------------------------------------


def test_aliases_name_keys_and_move(cloud: Cloud, kms: Any, key_id: str) -> None:
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    made = cloud.clock()
    kms.create_alias(AliasName="alias/app/one", TargetKeyId=key_id)
    cloud.clock.pass_(hours=1)
    arn = f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/app/one"
    blob = kms.encrypt(KeyId="alias/app/one", Plaintext=SECRET)["CiphertextBlob"]
    assert kms.decrypt(CiphertextBlob=blob, KeyId=arn)["Plaintext"] == SECRET
    with pytest.raises(kms.exceptions.AlreadyExistsException):
        kms.create_alias(AliasName="alias/app/one", TargetKeyId=other)
    kms.update_alias(AliasName="alias/app/one", TargetKeyId=other)
    assert kms.describe_key(KeyId=arn)["KeyMetadata"]["KeyId"] == other
    assert kms.list_aliases(KeyId=key_id)["Aliases"] == []
    assert kms.list_aliases(KeyId=other)["Aliases"] == [
        {
            "AliasName": "alias/app/one",
            "AliasArn": arn,
            "TargetKeyId": other,
            "CreationDate": made,
            "LastUpdatedDate": made + timedelta(hours=1),
        }
    ]
    assert code_of(cloud.client(region="us-west-2").describe_key, KeyId="alias/app/one") == "NotFoundException"
    kms.delete_alias(AliasName="alias/app/one")
    for call, params in (
        (kms.delete_alias, {}),
        (kms.update_alias, {"TargetKeyId": key_id}),
    ):
        with pytest.raises(kms.exceptions.NotFoundException, match="alias/app/one"):
            call(AliasName="alias/app/one", **params)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("mine", "ValidationException"),
        ("alias/", "InvalidAliasNameException"),
        ("alias/a:b", "InvalidAliasNameException"),
        ("alias/ä", "InvalidAliasNameException"),
        ("alias/aws/mine", "InvalidAliasNameException"),
    ],
)
def test_names_that_cannot_be(kms: Any, key_id: str, name: str, code: str) -> None:
    assert code_of(kms.create_alias, AliasName=name, TargetKeyId=key_id) == code
    assert kms.list_aliases(KeyId=key_id)["Aliases"] == []


def test_the_services_own_key_is_made_when_it_is_asked_for_and_left_alone(cloud: Cloud, kms: Any) -> None:
    [alias] = kms.list_aliases()["Aliases"]
    assert alias == {"AliasName": "alias/aws/ebs", "AliasArn": f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/aws/ebs"}
    key = kms.describe_key(KeyId="alias/aws/ebs")["KeyMetadata"]
    assert key == kms.describe_key(KeyId=alias["AliasArn"])["KeyMetadata"]
    assert key["KeyManager"] == "AWS"
    [alias] = kms.list_aliases()["Aliases"]
    assert alias["TargetKeyId"] == key["KeyId"]
    for call in (kms.disable_key, kms.schedule_key_deletion, kms.enable_key_rotation):
        assert code_of(call, KeyId=key["KeyId"]) == "AccessDeniedException"
    assert len(kms.list_keys()["Keys"]) == 1


# --- what Terraform reads ---------------------------------------------------------------------------------------------


def test_policies_are_kept_as_they_were_given(kms: Any, key_id: str) -> None:
    default = json.loads(kms.get_key_policy(KeyId=key_id, PolicyName="default")["Policy"])
    assert default["Statement"][0]["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    kms.put_key_policy(KeyId=key_id, PolicyName="default", Policy=POLICY)
    assert kms.get_key_policy(KeyId=key_id)["Policy"] == POLICY
    assert kms.list_key_policies(KeyId=key_id)["PolicyNames"] == ["default"]
    for wrong in ("no json", "[]", "{}", '"x"'):
        with pytest.raises(kms.exceptions.MalformedPolicyDocumentException):
            kms.put_key_policy(KeyId=key_id, Policy=wrong)
    with pytest.raises(kms.exceptions.NotFoundException):
        kms.get_key_policy(KeyId=key_id, PolicyName="other")


def test_tags(kms: Any, key_id: str) -> None:
    kms.tag_resource(KeyId=key_id, Tags=[{"TagKey": "a", "TagValue": "1"}, {"TagKey": "b", "TagValue": ""}])
    kms.tag_resource(KeyId=key_id, Tags=[{"TagKey": "a", "TagValue": "2"}])
    assert kms.list_resource_tags(KeyId=key_id)["Tags"] == [
        {"TagKey": "a", "TagValue": "2"},
        {"TagKey": "b", "TagValue": ""},
    ]
    kms.untag_resource(KeyId=key_id, TagKeys=["a", "none"])
    assert [tag["TagKey"] for tag in kms.list_resource_tags(KeyId=key_id)["Tags"]] == ["b"]
    with pytest.raises(kms.exceptions.TagException):
        kms.tag_resource(KeyId=key_id, Tags=[{"TagKey": "aws:x", "TagValue": ""}])
    with pytest.raises(kms.exceptions.LimitExceededException):
        kms.tag_resource(KeyId=key_id, Tags=[{"TagKey": str(n), "TagValue": ""} for n in range(50)])


def test_rotation_is_real(cloud: Cloud, kms: Any, key_id: str) -> None:
    def status() -> dict[str, Any]:
        answer = kms.get_key_rotation_status(KeyId=key_id)
        return {name: answer.get(name) for name in ("KeyRotationEnabled", "RotationPeriodInDays", "NextRotationDate")}

    begun = cloud.clock()
    assert status()["KeyRotationEnabled"] is False
    kms.enable_key_rotation(KeyId=key_id)
    assert status() == {
        "KeyRotationEnabled": True,
        "RotationPeriodInDays": 365,
        "NextRotationDate": begun + timedelta(days=365),
    }
    kms.enable_key_rotation(KeyId=key_id, RotationPeriodInDays=90)
    blob = kms.encrypt(KeyId=key_id, Plaintext=SECRET)["CiphertextBlob"]
    cloud.pass_(days=89)
    assert kms.list_key_rotations(KeyId=key_id)["Rotations"] == []
    cloud.pass_(days=1)
    kms.rotate_key_on_demand(KeyId=key_id)
    kinds = [each["RotationType"] for each in kms.list_key_rotations(KeyId=key_id)["Rotations"]]
    assert kinds == ["AUTOMATIC", "ON_DEMAND"]
    row = cloud.store.get(Key, key_id)
    assert row is not None and len({row.material, *row.earlier_materials}) == 3
    assert status()["NextRotationDate"] == begun + timedelta(days=180)
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == SECRET
    kms.schedule_key_deletion(KeyId=key_id)
    assert status()["KeyRotationEnabled"] is False
    kms.cancel_key_deletion(KeyId=key_id)
    assert status()["KeyRotationEnabled"] is True
    kms.enable_key(KeyId=key_id)
    kms.disable_key_rotation(KeyId=key_id)
    cloud.pass_(days=900)
    assert len(kms.list_key_rotations(KeyId=key_id)["Rotations"]) == 2


def test_grants_are_kept_and_shown(cloud: Cloud, kms: Any, key_id: str) -> None:
    asked = {
        "KeyId": key_id,
        "GranteePrincipal": f"arn:aws:iam::{OTHER}:role/app",
        "RetiringPrincipal": f"arn:aws:iam::{ACCOUNT}:root",
        "Operations": ["Encrypt", "Decrypt"],
        "Constraints": {"EncryptionContextEquals": {"a": "b"}},
        "Name": "app",
    }
    made = kms.create_grant(**asked)
    cloud.clock.pass_(hours=1)
    assert kms.create_grant(**asked)["GrantId"] == made["GrantId"]
    [shown] = kms.list_grants(KeyId=key_id)["Grants"]
    assert {name: shown[name] for name in asked if name != "KeyId"} == {k: v for k, v in asked.items() if k != "KeyId"}
    retirable = kms.list_retirable_grants(RetiringPrincipal=asked["RetiringPrincipal"])["Grants"]
    assert [grant["GrantId"] for grant in retirable] == [made["GrantId"]]
    kms.retire_grant(GrantToken=made["GrantToken"])
    assert kms.list_grants(KeyId=key_id)["Grants"] == []
    with pytest.raises(kms.exceptions.InvalidGrantTokenException):
        kms.retire_grant(GrantToken=made["GrantToken"])
    second = kms.create_grant(**asked)["GrantId"]
    kms.revoke_grant(KeyId=key_id, GrantId=second)
    with pytest.raises(kms.exceptions.NotFoundException):
        kms.revoke_grant(KeyId=key_id, GrantId=second)
    assert code_of(kms.create_grant, **{**asked, "Operations": ["Sign"]}) == "ValidationException"


def test_the_clock_of_a_wait_is_in_utc(kms: Any, key_id: str) -> None:
    at = kms.schedule_key_deletion(KeyId=key_id)["DeletionDate"].astimezone(UTC)
    assert at == datetime(2026, 2, 1, 3, 4, 5, tzinfo=UTC)

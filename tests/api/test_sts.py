"""STS GetCallerIdentity, over the wire as botocore reads it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.parsers import create_parser

from orchestrator.api import operations
from orchestrator.api.operation import Call, Caller, HostView, Settings, bind_operations, dispatch
from orchestrator.api.protocol import load_service, protocol_for, read_form
from orchestrator.model.account import AccessKey
from orchestrator.store import Store

ACCOUNT = "111122223333"
SETTINGS = Settings(regions={"us-east-1": ("us-east-1a",)})
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def ask(store: Store, caller: Caller) -> dict[str, Any]:
    model = load_service("sts")
    operation = model.operation_model("GetCallerIdentity")
    protocol = protocol_for(model)
    call = Call(
        service="sts",
        action="GetCallerIdentity",
        caller=caller,
        region="us-east-1",
        params=protocol.parse(operation, read_form(b"Action=GetCallerIdentity&Version=2011-06-15")),
        db=store,
        now=NOW,
        request_id="request",
        source="127.0.0.1",
        settings=SETTINGS,
        host=cast(HostView, None),
    )
    operations.load()
    answer = dispatch(store, bind_operations({"sts": model})["sts", "GetCallerIdentity"], call)
    body, _ = protocol.serialise(operation, answer, "request")
    assert operation.output_shape is not None
    read: dict[str, Any] = create_parser("query").parse(
        {"body": body, "headers": {}, "status_code": 200}, operation.output_shape
    )
    read.pop("ResponseMetadata")
    return read


@pytest.mark.parametrize(
    ("user", "user_id", "arn"),
    [
        ("", ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root"),
        ("alice", "AIDAEXAMPLE", f"arn:aws:iam::{ACCOUNT}:user/alice"),
    ],
)
def test_who_is_calling(tmp_path: Path, user: str, user_id: str, arn: str) -> None:
    key = AccessKey(id="AKIAEXAMPLE", account=ACCOUNT, created=NOW, secret="s", user=user)
    caller = Caller(account=ACCOUNT, access_key=key.id, arn=key.arn, user_id=user_id if user else "")
    store = Store(tmp_path / "store.sqlite", durable=False)
    try:
        assert ask(store, caller) == {"UserId": user_id, "Account": ACCOUNT, "Arn": arn}
    finally:
        store.close()

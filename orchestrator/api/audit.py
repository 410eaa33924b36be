"""One call as an event of the audit log, in CloudTrail's format; nothing secret gets into one.

Format: "CloudTrail record contents" in the CloudTrail user guide. What a request carries and an answer gives is shown
by the service's model: names begin in lower case, members that the model calls sensitive or that are listed here are
said to have been there and no more, and what is too large is left out with its size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import msgspec
from botocore.model import ListShape, MapShape, OperationModel, Shape, StructureShape

from orchestrator.model.iam import Role

if TYPE_CHECKING:
    from orchestrator.api.operation import Caller

VERSION: Final = "1.11"
REMOVED: Final = "<sensitiveDataRemoved>"
# What a request may carry, or an answer give, that no log should, beyond what the models call sensitive.
UNRECORDED: Final = frozenset(
    {
        "UserData",
        "PublicKeyMaterial",
        "KeyMaterial",
        "PasswordData",
        "Password",
        "OldPassword",
        "NewPassword",
        "SecretAccessKey",
        "SessionToken",
        "Plaintext",
        "CiphertextBlob",
        "CiphertextForRecipient",
        "PrivateKeyPlaintext",
        "PrivateKeyCiphertextBlob",
        "GrantToken",
        "GrantTokens",
        "SAMLAssertion",
        "WebIdentityToken",
        "TokenCode",
        "SSHPublicKeyBody",
        "PrivateKey",
        "EncodedMessage",
        "DecodedMessage",
    }
)
_MOST_BYTES: Final = 16 << 10  # of what was asked, and of what was answered
_MOST_CHARACTERS: Final = 1024  # of a text that a caller made up
_READS: Final = ("Describe", "Get", "List", "Lookup", "Simulate", "Search")
_ACTION: Final = re.compile(rb"(?:^|[?&])Action=([A-Za-z0-9]{1,128})")


@dataclass(slots=True)
class Note:
    """What is known of one call so far. `recorded` once its event is committed with what it wrote."""

    at: datetime
    request_id: str
    source: str
    user_agent: str = ""
    service: str = "ec2"
    action: str = "Unknown"
    region: str = ""
    caller: Caller | None = None
    claimed_key: str = ""  # the access key of a caller who did not prove to have it, and its account
    claimed_account: str = ""
    model: OperationModel | None = None
    read_only: bool | None = None
    params: Mapping[str, Any] | None = None
    answer: Mapping[str, Any] | None = None
    code: str = ""
    message: str = ""
    status: int = 200
    recorded: bool = False

    def refuse(self, code: str, message: str, status: int) -> None:
        self.code, self.message, self.status, self.answer = code, message, status, None

    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = {
            "eventVersion": VERSION,
            "userIdentity": self._identity(),
            "eventTime": self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "eventSource": f"{self.service}.amazonaws.com",
            "eventName": self.action,
            "awsRegion": self.region,
            "sourceIPAddress": self.source,
            "userAgent": self.user_agent[:_MOST_CHARACTERS],
        }
        if self.code:
            # EC2 says on whose side the fault is.
            side = ("Server." if self.status >= 500 else "Client.") if self.service == "ec2" else ""
            event["errorCode"] = side + self.code
            event["errorMessage"] = self.message[:_MOST_CHARACTERS]
        read_only = self.action.startswith(_READS) if self.read_only is None else self.read_only
        model = self.model
        return {
            **event,
            "requestParameters": _shown(model.input_shape if model else None, self.params, "requestParameters"),
            "responseElements": None
            if read_only or self.code
            else _shown(model.output_shape if model else None, self.answer, "responseElements"),
            "requestID": self.request_id,
            "eventID": str(uuid4()),
            "readOnly": read_only,
            "eventType": "AwsApiCall",
            "managementEvent": True,
            "recipientAccountId": self.caller.account if self.caller else self.claimed_account,
            "eventCategory": "Management",
        }

    def _identity(self) -> dict[str, Any]:
        caller = self.caller
        if caller is None:
            return {"type": "Unknown", "accountId": self.claimed_account, "accessKeyId": self.claimed_key}
        identity: dict[str, Any] = {
            "type": "Root",
            "principalId": caller.user_id or caller.account,
            "arn": caller.arn,
            "accountId": caller.account,
            "accessKeyId": caller.access_key,
        }
        principal = caller.principal
        if principal is None:
            return identity
        who, session = principal.identity, principal.session
        if who is not None and not isinstance(who, Role):
            identity |= {"type": "IAMUser", "userName": who.name}
        if session is not None:
            context: dict[str, Any] = {
                "attributes": {
                    "creationDate": session.issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "mfaAuthenticated": "false",
                }
            }
            if isinstance(who, Role):
                identity["type"] = "AssumedRole"
                context["sessionIssuer"] = {
                    "type": "Role",
                    "principalId": who.id,
                    "arn": who.arn,
                    "accountId": who.account,
                    "userName": who.name,
                }
            identity["sessionContext"] = context
        return identity


def action_of(target: str, query: str, body: bytes) -> str:
    """The action that a request names, for one that was refused before it was read."""
    if target:
        name = target.rpartition(".")[2]
        return name[:128] if name.isalnum() and name.isascii() else "Unknown"
    found = _ACTION.search(body[: 64 << 10]) or _ACTION.search(query.encode("utf-8", "replace")[: 64 << 10])
    return found[1].decode() if found else "Unknown"


def _shown(shape: Shape | None, value: Mapping[str, Any] | None, member: str) -> Any:
    if not value:
        return None
    if shape is None:
        return {name[:1].lower() + name[1:]: str(each)[:_MOST_CHARACTERS] for name, each in value.items()}
    if value.get("Attribute") == "userData":
        value = {**value, "Value": REMOVED} if "Value" in value else value
    shown = _tell(shape, value)
    try:
        size = len(msgspec.json.encode(shown))
    except (ValueError, OverflowError, TypeError):
        size = len(repr(shown))
    if size > _MOST_BYTES:
        return {"omitted": True, "originalSize": size, "reason": f"{member} too large"}
    return shown or None


def _tell(shape: Shape, value: Any) -> Any:
    if isinstance(shape, StructureShape):
        told: dict[str, Any] = {}
        members = shape.members
        for name, each in value.items():
            member = members.get(name)
            if member is None or each is None:
                continue
            hidden = name in UNRECORDED or member.metadata.get("sensitive")
            told[name[:1].lower() + name[1:]] = REMOVED if hidden else _tell(member, each)
        return told
    if isinstance(shape, ListShape):
        hidden = shape.member.metadata.get("sensitive")
        return [REMOVED if hidden else _tell(shape.member, each) for each in value]
    if isinstance(shape, MapShape):
        hidden = shape.value.metadata.get("sensitive")
        return {str(name): REMOVED if hidden else _tell(shape.value, each) for name, each in value.items()}
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return value.isoformat() if isinstance(value, datetime) else str(value)

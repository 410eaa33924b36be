"""Whether a caller may do what is asked, and what is said when not.

The account's root may do all that the account may, and is not held up here. A user, and a session of a role, may do
what policies allow:

    own, attached and groups' policies   allow it,
    the boundary, where there is one,    allows it too,
    the session's policies, likewise,    allow it too,     and none of all these denies it.

A refusal carries an encoded message for sts:DecodeAuthorizationMessage: who may not see why a call was refused, does
not learn it from the refusal. The message is encrypted, and bound to the account.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import zlib
from collections.abc import Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orchestrator.api.facts import Facts, Target
from orchestrator.api.operation import Call
from orchestrator.api.resources import targets
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import Principal, Role, User, documents_of, find_policy
from orchestrator.model.policy import Decision, Document, PolicyError, Request, Statement, Verdict, evaluate, parse
from orchestrator.model.resource import Rows
from orchestrator.model.session import derive, make_deployment_secret
from orchestrator.store import Store

# What needs no policy. AssumeRole asks the role's trust policy too, and so is decided where it is done.
_FREE: Final = frozenset({("sts", "GetCallerIdentity"), ("sts", "GetSessionToken"), ("sts", "AssumeRole")})
# What a session of GetSessionToken, which says nothing of who holds it now, may ask of these.
_SESSION_MAY: Final = frozenset({("sts", "GetCallerIdentity"), ("sts", "AssumeRole")})
MAX_WORD: Final = 4096
_NONCE_BYTES: Final = 12
_PURPOSE: Final = b"authorization message"


def authorise(call: Call) -> None:
    """Raise UnauthorizedOperation or AccessDenied unless the caller may do this."""
    principal = call.caller.principal
    if principal is None:
        return
    if principal.session is not None and not isinstance(principal.identity, Role):
        asked = (call.service, call.action)
        if call.service in ("iam", "sts") and asked not in _SESSION_MAY:
            raise _denied(call, f"{call.caller.arn} cannot call {call.action} with credentials of GetSessionToken")
    if principal.identity is None or (call.service, call.action) in _FREE:
        return
    facts = caller_facts(call, principal)
    for target in targets(call):
        if target.key is not None or target.elsewhere:
            continue  # where the key has a say too: `key_access.py`
        action = target.action or f"{call.service}:{call.action}"
        request = Request(action, target.arn, {**facts, **target.context})
        verdict = decide(call.db, principal, request)
        if verdict.decision is not Decision.ALLOWED:
            raise refusal(call, request, verdict)


def allowed(call: Call, action: str, target: Target) -> Verdict:
    """What the caller's own policies say of something."""
    principal = call.caller.principal
    if principal is None or principal.identity is None:
        return Verdict(Decision.ALLOWED)
    facts = caller_facts(call, principal)
    return decide(call.db, principal, Request(action, target.arn, {**facts, **target.context}))


def decide(rows: Rows, principal: Principal, request: Request) -> Verdict:
    identity = principal.identity
    if identity is None:
        return Verdict(Decision.ALLOWED)
    if max(len(request.resource), *(len(each) for values in request.context.values() for each in values)) > MAX_WORD:
        return Verdict(Decision.IMPLICIT_DENY)  # nothing valid is as long, and to match it would take time
    layers = [read_all(documents_of(rows, identity))]
    if identity.boundary:
        policy = find_policy(rows, identity.account, identity.boundary)
        layers.append(read_all([policy.document] if policy is not None else []))
    if principal.limits:
        layers.append(read_all(principal.limits))
    verdicts = [evaluate(documents, request) for documents in layers]
    for decision in (Decision.EXPLICIT_DENY, Decision.IMPLICIT_DENY):
        for verdict in verdicts:
            if verdict.decision is decision:
                return verdict
    return verdicts[0]


def read_all(texts: Any) -> list[Document]:
    """Documents are checked when they are taken; one that cannot be read since denies everything."""
    found = []
    for text in texts:
        try:
            found.append(parse(text))
        except PolicyError:
            found.append(Document((Statement(allows=False, actions=("*",), resources=("*",)),)))
    return found


def caller_facts(call: Call, principal: Principal) -> Facts:
    """What conditions can ask of the caller and the moment."""
    identity, session = principal.identity, principal.session
    facts: Facts = {
        "aws:sourceip": (call.source,),
        "aws:requestedregion": (call.region,),
        "ec2:region": (call.region,),
        "aws:currenttime": (call.now.isoformat(),),
        "aws:epochtime": (str(int(call.now.timestamp())),),
        "aws:principalarn": (principal.arn if identity is not None else call.caller.arn,),
        "aws:principalaccount": (call.account,),
        "aws:userid": (call.caller.user_id,),
        "aws:viaawsservice": ("false",),
        "aws:securetransport": ("true" if call.settings.endpoint.startswith("https:") else "false",),
        "aws:principaltype": (_principal_type(identity),),
    }
    if isinstance(identity, User):
        facts["aws:username"] = (identity.name,)
    if identity is not None:
        for key, value in identity.tags.items():
            facts[f"aws:principaltag/{key}".lower()] = (value,)
    if session is not None:
        facts["aws:tokenissuetime"] = (session.issued_at.isoformat(),)
        facts["aws:multifactorauthpresent"] = ("false",)
        if session.instance:
            facts["ec2:sourceinstancearn"] = (f"arn:aws:ec2:{call.region}:{call.account}:instance/{session.instance}",)
    return facts


def _principal_type(identity: User | Role | None) -> str:
    if identity is None:
        return "Account"
    return "User" if isinstance(identity, User) else "AssumedRole"


# --- refusing ---------------------------------------------------------------------------------------------------------


def refusal(call: Call, request: Request, verdict: Verdict) -> EC2Error:
    explicit = verdict.decision is Decision.EXPLICIT_DENY
    because = "with an explicit deny" if explicit else f"because no policy allows the {request.action} action"
    who = f"User: {call.caller.arn} is not authorized to perform: {request.action} on resource: {request.resource}"
    said = "You are not authorized to perform this operation. " if call.service == "ec2" else ""
    message = encode_message(_store(call), call.account, _explain(call, request, verdict))
    return _denied(call, f"{said}{who} {because}. Encoded authorization failure message: {message}")


def _denied(call: Call, message: str) -> EC2Error:
    if call.service in ("kms", "orc", "organizations"):
        return EC2Error("AccessDeniedException", message, 400)
    if call.service == "ec2":
        return EC2Error("UnauthorizedOperation", message, 403)
    return EC2Error("AccessDenied", message, 403)


def _explain(call: Call, request: Request, verdict: Verdict) -> dict[str, Any]:
    """Members as DecodeAuthorizationMessage documents them."""
    statement = verdict.statement
    matched = [{"statementId": statement.sid, "effect": "ALLOW" if statement.allows else "DENY"}] if statement else []
    conditions = [
        {"key": key, "values": {"items": [{"value": value} for value in values]}}
        for key, values in sorted(request.context.items())
    ]
    return {
        "allowed": False,
        "explicitDeny": verdict.decision is Decision.EXPLICIT_DENY,
        "matchedStatements": {"items": matched},
        "failures": {"items": []},
        "context": {
            "principal": {"id": call.caller.user_id, "arn": call.caller.arn},
            "action": request.action,
            "resource": request.resource,
            "conditions": {"items": conditions},
        },
    }


def encode_message(store: Store, account: str, explanation: dict[str, Any]) -> str:
    packed = zlib.compress(json.dumps(explanation).encode(), 9)
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return base64.urlsafe_b64encode(nonce + _cipher(store).encrypt(nonce, packed, account.encode())).decode()


def decode_message(store: Store, account: str, encoded: str) -> str:
    """The explanation's JSON, or InvalidAuthorizationMessageException."""
    try:
        raw = base64.b64decode(encoded, altchars=b"-_", validate=True)
        packed = _cipher(store).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], account.encode())
    except (binascii.Error, ValueError, InvalidTag):
        raise EC2Error(
            "InvalidAuthorizationMessageException",
            "The message is not one that this account was refused with, or was changed on its way",
        ) from None
    return zlib.decompress(packed).decode()


def _cipher(store: Store) -> AESGCM:
    return AESGCM(derive(make_deployment_secret(store), "messages", _PURPOSE))


def _store(call: Call) -> Store:
    return call.db if isinstance(call.db, Store) else call.db.store


def session_policies(call: Call, account: str, inline: str | None, arns: Sequence[str]) -> tuple[str, ...]:
    """The documents that a session is limited to, or EC2's error. None of them: no limit."""
    found = [inline] if inline is not None else []
    for arn in arns:
        policy = find_policy(call.db, account, arn)
        if policy is None:
            raise EC2Error("NoSuchEntity", f"The policy '{arn}' does not exist", 404)
        found.append(policy.document)
    return tuple(found)

"""STS: who the caller is, and credentials that expire.

AssumeRole asks two: the role's trust policy, and the caller's own policies.

    trust policy names the caller itself, in the role's account   its word is enough
    it names the caller's account                                 the caller's own policies must allow it too
    either denies                                                 denied

Rules: "Policies and permissions", "Cross-account resource access", and the STS API reference.
"""

from __future__ import annotations

import re
from typing import Any, Final

from orchestrator.api.authorisation import allowed, caller_facts, decode_message, session_policies
from orchestrator.api.facts import Target
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.api.principals import names, root_arn
from orchestrator.model.account import AccessKey
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import Principal, Role
from orchestrator.model.policy import Decision, PolicyError, Request, evaluate_trust, parse, parse_trust
from orchestrator.model.session import Credentials, Session, make_deployment_secret, new_access_key_id, seal
from orchestrator.store import Store

_ROLE_ARN: Final = re.compile(r"arn:aws:iam::(\d{12}):role(/(?:[\x21-\x7e]+/)?)([\w+=,.@-]{1,64})", re.ASCII)
_SESSION_NAME: Final = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_ACCESS_KEY: Final = re.compile(r"\w{16,128}", re.ASCII)
MAX_POLICY_CHARACTERS: Final = 2048
MAX_POLICIES: Final = 10
MAX_TOKEN_CHARACTERS: Final = 6000  # it goes in a header, of which servers take some 8 KiB
LEAST_S: Final = 900
CHAINED_S: Final = 3600  # at most, of a role assumed by a role
SESSION_TOKEN_S: Final = (43200, 129600)  # as a rule, and at most
ROOT_TOKEN_S: Final = 3600  # at most, for the account's root


@operation("GetCallerIdentity", service="sts")
def get_caller_identity(call: Call) -> Answer:
    """UserId is the account's number for its root, as on AWS."""
    return {"UserId": call.caller.user_id or call.account, "Account": call.account, "Arn": call.caller.arn}


@operation("GetAccessKeyInfo", service="sts")
def get_access_key_info(call: Call, *, access_key_id: str) -> Answer:
    key = call.db.get(AccessKey, access_key_id)
    if key is None:
        if not _ACCESS_KEY.fullmatch(access_key_id):
            raise _invalid(f"'{access_key_id[:128]}' is no access key id: that has 16 to 128 letters and digits")
        raise EC2Error("InvalidParameterValue", f"The access key {access_key_id} is not one of this deployment's")
    return {"Account": key.account}


@operation("DecodeAuthorizationMessage", service="sts")
def decode_authorization_message(call: Call, *, encoded_message: str) -> Answer:
    return {"DecodedMessage": decode_message(_store(call), call.account, encoded_message)}


@operation("GetSessionToken", service="sts")
def get_session_token(call: Call, *, duration_seconds: int | None = None) -> Answer:
    principal = call.caller.principal
    if principal is not None and principal.session is not None:
        raise EC2Error("AccessDenied", "Cannot call GetSessionToken with session credentials", 403)
    user = principal.identity if principal is not None else None
    usual, most = SESSION_TOKEN_S
    if user is None:
        usual = most = ROOT_TOKEN_S
    seconds = usual if duration_seconds is None else duration_seconds
    if not LEAST_S <= seconds <= SESSION_TOKEN_S[1]:
        raise _invalid(f"DurationSeconds is from {LEAST_S} to {SESSION_TOKEN_S[1]}, not {seconds}")
    made = _give(call, principal=user.id if user else "", seconds=min(seconds, most))
    return {"Credentials": _show(made)}


@operation("AssumeRole", service="sts")
def assume_role(
    call: Call,
    *,
    role_arn: str,
    role_session_name: str,
    policy: str | None = None,
    policy_arns: list[Any] | None = None,
    duration_seconds: int | None = None,
    external_id: str | None = None,
) -> Answer:
    if not _SESSION_NAME.fullmatch(role_session_name):
        raise _invalid("RoleSessionName is 2 to 64 letters, digits and +=,.@_-")
    role = _find_role(call, role_arn)
    if role is None or not _may_assume(call, role, external_id):
        # Of a role that is not there, no more is said than of one that may not be assumed.
        raise EC2Error(
            "AccessDenied",
            f"User: {call.caller.arn} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
            403,
        )
    seconds = _duration(call, role, duration_seconds)
    arns = [each.get("arn") or "" for each in policy_arns or ()]
    if len(arns) > MAX_POLICIES:
        raise _invalid(f"At most {MAX_POLICIES} PolicyArns can be given, not {len(arns)}")
    if policy is not None:
        _check_policy(policy)
    limits = session_policies(call, role.account, policy, arns)
    made = _give(call, principal=role.id, account=role.account, seconds=seconds, name=role_session_name, limits=limits)
    answer: Answer = {
        "Credentials": _show(made),
        "AssumedRoleUser": {
            "AssumedRoleId": f"{role.id}:{role_session_name}",
            "Arn": f"arn:aws:sts::{role.account}:assumed-role/{role.name}/{role_session_name}",
        },
    }
    if limits:
        answer["PackedPolicySize"] = max(1, sum(map(len, limits)) * 100 // (MAX_POLICY_CHARACTERS * MAX_POLICIES))
    return answer


def _invalid(message: str) -> EC2Error:
    return EC2Error("ValidationError", message)


def _check_policy(document: str) -> None:
    if len(document) > MAX_POLICY_CHARACTERS:
        raise _invalid(f"Policy has at most {MAX_POLICY_CHARACTERS} characters, not {len(document)}")
    try:
        parse(document)
    except PolicyError as error:
        raise EC2Error("MalformedPolicyDocument", str(error)) from None


def _find_role(call: Call, arn: str) -> Role | None:
    found = _ROLE_ARN.fullmatch(arn)
    if found is None:
        raise _invalid(f"{arn[:200]} is invalid: a role's ARN is arn:aws:iam::ACCOUNT:role/NAME")
    account, path, name = found.groups()
    rows = (role for role in call.db.all(Role, name=name) if role.account == account and role.path == path)
    return next(rows, None)


def _may_assume(call: Call, role: Role, external_id: str | None) -> bool:
    principal = call.caller.principal
    facts = dict(caller_facts(call, principal or Principal(identity=None)))
    facts["sts:rolesessionname"] = (call.params["RoleSessionName"],)
    facts |= {f"aws:resourcetag/{key}".lower(): (value,) for key, value in role.tags.items()}
    if external_id is not None:
        facts["sts:externalid"] = (external_id,)
    request = Request("sts:AssumeRole", role.arn, facts)
    own = allowed(call, "sts:AssumeRole", Target(role.arn, facts)).decision
    itself, account = names(call, role.trust_bearers), root_arn(call.account)
    trust = parse_trust(role.trust)
    by_name = evaluate_trust(trust, request, arns=itself, account=account, by_name=True).decision
    by_account = evaluate_trust(trust, request, arns=itself, account=account).decision
    if Decision.EXPLICIT_DENY in (own, by_account) or by_account is not Decision.ALLOWED:
        return False
    identity = principal.identity if principal is not None else None
    limited = principal is not None and (principal.limits or (identity is not None and identity.boundary))
    if by_name is Decision.ALLOWED and role.account == call.account and not limited:
        return True
    return own is Decision.ALLOWED


def _duration(call: Call, role: Role, asked: int | None) -> int:
    principal = call.caller.principal
    chained = principal is not None and isinstance(principal.identity, Role)
    most = min(CHAINED_S, role.max_session_s) if chained else role.max_session_s
    seconds = 3600 if asked is None else asked
    if seconds < LEAST_S:
        raise _invalid(f"DurationSeconds is at least {LEAST_S}, not {seconds}")
    if seconds > most:
        why = "the 1 hour session limit for roles assumed by role chaining" if chained else "MaxSessionDuration"
        raise _invalid(f"The requested DurationSeconds exceeds {why}: {most} set for this role")
    return seconds


def _give(
    call: Call, *, principal: str, seconds: int, account: str = "", name: str = "", limits: tuple[str, ...] = ()
) -> Credentials:
    issued = int(call.now.timestamp())
    session = Session(
        access_key=new_access_key_id(),
        account=account or call.account,
        principal=principal,
        name=name,
        issued=issued,
        expires=issued + seconds,
        policies=limits,
    )
    made = seal(make_deployment_secret(_store(call)), session)
    if len(made.token) > MAX_TOKEN_CHARACTERS:
        raise EC2Error("PackedPolicyTooLarge", "The session's policies take more room than a session token has")
    return made


def _show(made: Credentials) -> Answer:
    return {
        "AccessKeyId": made.session.access_key,
        "SecretAccessKey": made.secret_key,
        "SessionToken": made.token,
        "Expiration": made.session.expires_at,
    }


def _store(call: Call) -> Store:
    return call.db if isinstance(call.db, Store) else call.db.store

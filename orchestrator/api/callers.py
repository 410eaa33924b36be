"""Whose credentials a request claims: a key of the root's, a user's, or those of a session with its token.

    access key id ──row──────────────────────► secret key, root or user
    access key id + session token ──opened───► secret key, user or role, until when

What is found here is a claim until the signature has been verified with the secret key. So a claim that does not hold
is not refused at once: it is given a secret key that nobody has, and its error is raised after the signature was looked
at, which takes as long as for one that holds.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from orchestrator.api.operation import Caller
from orchestrator.api.signature import Credential
from orchestrator.model.account import AccessKey, Account
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import Principal, Role, User
from orchestrator.model.session import Session, TokenError, open_token
from orchestrator.store import Store

log = logging.getLogger("orchestrator.api")

_NOTED_EVERY: Final = timedelta(minutes=15)

_UNKNOWN: Final = {
    "iam": ("InvalidClientTokenId", 403),
    "sts": ("InvalidClientTokenId", 403),
    "kms": ("UnrecognizedClientException", 400),
    "organizations": ("UnrecognizedClientException", 400),
}
_EXPIRED: Final = {
    "ec2": ("RequestExpired", 400),
    "kms": ("ExpiredTokenException", 400),
    "organizations": ("ExpiredTokenException", 400),
    "orc": ("ExpiredTokenException", 400),
}


@dataclass(frozen=True, slots=True)
class Claim:
    secret_key: str
    caller: Caller | None = None
    error: EC2Error | None = None  # why it does not hold
    known: bool = True  # whether the secret key is really that of these credentials


def look_up(store: Store, deployment_secret: bytes, credential: Credential, now: datetime) -> Claim:
    if credential.session_token is not None:
        return _of_session(store, deployment_secret, credential, credential.session_token, now)
    key = store.get(AccessKey, credential.access_key)
    if key is None:
        return _nobody(unknown_key(credential.service))
    caller = of_key(store, key)
    if caller is None or not key.active:
        return Claim(key.secret, error=unknown_key(credential.service))
    return Claim(key.secret, caller)


def of_key(store: Store, key: AccessKey) -> Caller | None:
    """Whom a key acts for; None when its user is gone."""
    if not key.user:
        return root(key.account, key.id)
    user = store.get(User, key.user)
    if user is None:
        return None
    return Caller(
        account=key.account,
        access_key=key.id,
        arn=user.arn,
        user_id=user.id,
        principal=Principal(identity=user),
    )


def root(account: str, access_key: str) -> Caller:
    return Caller(account=account, access_key=access_key, arn=f"arn:aws:iam::{account}:root", user_id=account)


def _of_session(store: Store, deployment_secret: bytes, credential: Credential, token: str, now: datetime) -> Claim:
    try:
        found = open_token(deployment_secret, token)
    except TokenError:
        return _nobody(unknown_key(credential.service))
    session = found.session
    caller = _session_caller(store, session)
    if caller is None or session.access_key != credential.access_key:
        return Claim(found.secret_key, error=unknown_key(credential.service))
    if now >= session.expires_at:
        code, status = _EXPIRED.get(credential.service, ("ExpiredToken", 403))
        message = "Request has expired." if code == "RequestExpired" else "The security token has expired"
        return Claim(found.secret_key, error=EC2Error(code, message, status))
    return Claim(found.secret_key, caller)


def _session_caller(store: Store, session: Session) -> Caller | None:
    """None when the role or the user is gone, or the account, and with it all its sessions."""
    if store.get(Account, session.account) is None:
        return None
    if not session.principal:
        caller = root(session.account, session.access_key)
        return replace(caller, principal=Principal(identity=None, session=session))
    identity = store.get(Role, session.principal) or store.get(User, session.principal)
    if identity is None:
        return None
    arn, user_id = identity.arn, identity.id
    if isinstance(identity, Role):
        arn = f"arn:aws:sts::{session.account}:assumed-role/{identity.name}/{session.name}"
        user_id = f"{identity.id}:{session.name}"
    return Caller(
        account=session.account,
        access_key=session.access_key,
        arn=arn,
        user_id=user_id,
        principal=Principal(identity=identity, session=session),
    )


def unknown_key(service: str) -> EC2Error:
    code, status = _UNKNOWN.get(service, ("AuthFailure", 401))
    return EC2Error(
        code, "AWS was not able to validate the provided access credentials: the access key is unknown", status
    )


def _nobody(error: EC2Error) -> Claim:
    return Claim(secrets.token_hex(20), error=error, known=False)


def note_use(store: Store, credential: Credential, caller: Caller, now: datetime) -> None:
    """Keep when a user's key was last used, to within a quarter of an hour. The call does not depend on it."""
    if caller.principal is None or caller.principal.session is not None:
        return
    key = store.get(AccessKey, caller.access_key)
    if key is None or (
        key.used_at is not None and now - key.used_at < _NOTED_EVERY and key.used_service == credential.service
    ):
        return
    try:
        with store.write() as tx:
            current = tx.get(AccessKey, key.id)
            if current is not None:
                tx.put(replace(current, used_at=now, used_service=credential.service, used_region=credential.region))
    except Exception:
        log.warning("it was not kept that %s was used", key.id, exc_info=True)

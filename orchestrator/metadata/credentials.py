"""What a guest reads of its instance profile: `iam/info`, and the credentials of its role.

Nothing is written for it: the credentials follow from the role, the instance, the time, and the deployment's secret
(model/session.py), so every reading within an hour finds the same ones, and the next hour's finds new ones, while the
old ones are good for hours yet. Members are those that AWS's SDKs read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from orchestrator.model.iam import EC2_SERVICE, InstanceProfile, Role
from orchestrator.model.instance import Instance
from orchestrator.model.policy import Decision, PolicyError, Request, evaluate_trust, parse_trust
from orchestrator.model.session import deployment_secret, instance_credentials
from orchestrator.store import Store


@dataclass(frozen=True, slots=True)
class Granted:
    """The rows behind an instance's profile; None where one is gone."""

    profile: InstanceProfile | None
    role: Role | None


class Vendor:
    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    def info(self, instance: Instance, granted: Granted) -> bytes:
        association = instance.profile
        if association is None or granted.profile is None:
            arn = association.arn if association is not None else ""
            return self._refuse("InstanceProfileNotFound", f"The instance profile {arn} cannot be found.")
        found = {
            "Code": "Success",
            "LastUpdated": _time(association.since),
            "InstanceProfileArn": association.arn,
            "InstanceProfileId": association.profile_id,
        }
        return _write(found)

    def credentials(self, instance: Instance, role: Role) -> bytes:
        if not may_be_assumed(role):
            return self._refuse(
                "AssumeRoleUnauthorizedAccess",
                f"EC2 cannot assume the role {role.name}: its trust policy does not allow it to {EC2_SERVICE}.",
            )
        secret = deployment_secret(self._store)
        if secret is None:
            return self._refuse("Failed", "Credentials cannot be made before the API has been started.")
        made = instance_credentials(secret, role.account, role.id, instance.id, self._clock())
        found = {
            "Code": "Success",
            "LastUpdated": _time(made.session.issued_at),
            "Type": "AWS-HMAC",
            "AccessKeyId": made.session.access_key,
            "SecretAccessKey": made.secret_key,
            "Token": made.token,
            "Expiration": _time(made.session.expires_at),
        }
        return _write(found)

    def _refuse(self, code: str, message: str) -> bytes:
        return _write({"Code": code, "Message": message, "LastUpdated": _time(self._clock())})


def may_be_assumed(role: Role) -> bool:
    """Whether its trust policy lets EC2 have it."""
    try:
        verdict = evaluate_trust(parse_trust(role.trust), Request("sts:AssumeRole", role.arn), service=EC2_SERVICE)
    except PolicyError:
        return False
    return verdict.decision is Decision.ALLOWED


def _write(found: dict[str, str]) -> bytes:
    return json.dumps(found, indent=2, separators=(",", " : ")).encode()


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")

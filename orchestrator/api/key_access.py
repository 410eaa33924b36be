"""Who may use a key of KMS: what its policy, its grants and the caller's own policies say together.

    key's policy names the caller, or a grant does          enough, in the key's own account
    it, or a grant, names the caller's account              the caller's own policies must allow it too
    the key is another account's                            both that account's key and the caller's policies must
    anything denies                                         denied

A key whose policy was never set trusts its account. An account's root needs no policies of its own, but a key's policy
that does not name its account shuts the root out as well.

Rules: "Key access and permissions", "Grants in AWS KMS" and "Troubleshooting key access" of the KMS developer guide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from orchestrator.api.authorisation import allowed, caller_facts, refusal
from orchestrator.api.facts import Facts, Target
from orchestrator.api.operation import Call
from orchestrator.api.principals import is_named, names, root_arn
from orchestrator.api.resources import key_targets
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import Principal
from orchestrator.model.kms import Grant, Key, default_policy
from orchestrator.model.policy import (
    Decision,
    Document,
    PolicyError,
    Request,
    Verdict,
    evaluate_trust,
    parse_key_policy,
)

# What a grant may allow -> the action that policies call it by.
GRANTABLE: Final[Mapping[str, str]] = {
    name: f"kms:{name}"
    for name in (
        "Decrypt",
        "Encrypt",
        "GenerateDataKey",
        "GenerateDataKeyWithoutPlaintext",
        "ReEncryptFrom",
        "ReEncryptTo",
        "CreateGrant",
        "RetireGrant",
        "DescribeKey",
        "GenerateDataKeyPair",
        "GenerateDataKeyPairWithoutPlaintext",
    )
}
_OPERATIONS: Final = {action: name for name, action in GRANTABLE.items()}
_FREE_OF_CONTEXT: Final = ("CreateGrant", "RetireGrant", "DescribeKey")  # which constraints do not concern


def authorise(call: Call) -> None:
    """Raise AccessDenied (or its like) unless the caller may do this with every key that the request is about."""
    for target in key_targets(call):
        if target.key is not None:
            check(call, target.key, target)
        elif target.elsewhere:
            raise _elsewhere(call, target)


def check(call: Call, key: Key, target: Target) -> None:
    """Raise AccessDenied (or its like) unless the caller may do with `key` what `target` says."""
    action = target.action or f"{call.service}:{call.action}"
    verdict = judge(call, key, action, target.context)
    if verdict.decision is Decision.ALLOWED or _may_retire(call, key, action):
        return
    if key.account != call.account:
        raise _elsewhere(call, target)
    raise refusal(call, Request(action, key.arn, target.context), verdict)


def judge(call: Call, key: Key, action: str, context: Facts, *, grants: bool = True) -> Verdict:
    """What is said of `action` on `key`; without its `grants`, by policies alone."""
    principal = call.caller.principal
    facts = {**caller_facts(call, principal or Principal(identity=None)), **context}
    request = Request(action, key.arn, facts)
    own = allowed(call, action, Target(key.arn, context))
    if own.decision is Decision.EXPLICIT_DENY:
        return own
    policy = _policy(key)
    itself, account = names(call, key.policy_bearers), root_arn(call.account)
    by_account = evaluate_trust(policy, request, arns=itself, account=account)
    if by_account.decision is Decision.EXPLICIT_DENY:
        return by_account
    by_name = evaluate_trust(policy, request, arns=itself, account=account, by_name=True)
    granted = _granted(call, key, action, context) if grants else ""
    trusted = own.decision is Decision.ALLOWED
    if key.account == call.account and not _limited(principal):
        if by_name.decision is Decision.ALLOWED:
            return by_name
        if granted == "name":
            return Verdict(Decision.ALLOWED)
    if trusted and (by_account.decision is Decision.ALLOWED or granted):
        return by_account if by_account.decision is Decision.ALLOWED else Verdict(Decision.ALLOWED)
    return Verdict(Decision.IMPLICIT_DENY)


def _policy(key: Key) -> Document:
    try:
        return parse_key_policy(key.policy or default_policy(key))
    except PolicyError:
        return parse_key_policy(default_policy(key))  # kept by a version that did not judge them


def _limited(principal: Principal | None) -> bool:
    """Whether there are documents beyond which the caller does not reach, whatever a key says."""
    return principal is not None and bool(principal.limits or (principal.identity and principal.identity.boundary))


# --- grants -----------------------------------------------------------------------------------------------------------


def _granted(call: Call, key: Key, action: str, context: Facts) -> str:
    """`name` or `account`, as a grant of this calls the caller; empty when none does."""
    operation = _OPERATIONS.get(action, "")
    found = ""
    for grant in key.grants:
        if operation not in grant.operations or not _fits(grant, operation, context):
            continue
        if is_named(call, grant.grantee, grant.grantee_id):
            return "name"
        if grant.grantee in (root_arn(call.account), call.account):
            found = "account"
    return found


def _fits(grant: Grant, operation: str, context: Facts) -> bool:
    if operation in _FREE_OF_CONTEXT:
        return True
    given = {name.removeprefix(_CONTEXT): values[0] for name, values in context.items() if name.startswith(_CONTEXT)}
    equals, subset = grant.constraints.get("EncryptionContextEquals"), grant.constraints.get("EncryptionContextSubset")
    if equals is not None and given != equals:
        return False
    return subset is None or all(given.get(name) == value for name, value in subset.items())


_CONTEXT: Final = "grant-context:"  # with its letters as they are, where condition keys have them in lower case


def covering_grant(call: Call, key: Key, operations: list[str], constraints: Mapping[str, Mapping[str, str]]) -> bool:
    """Whether a grant by which the caller may make grants allows all of these, and under no more than these
    constraints: a grant gives away no more than it has."""
    for grant in key.grants:
        if "CreateGrant" not in grant.operations or not set(operations) <= set(grant.operations):
            continue
        whole = (root_arn(call.account), call.account)
        if grant.grantee not in whole and not is_named(call, grant.grantee, grant.grantee_id):
            continue
        equals, subset = constraints.get("EncryptionContextEquals"), constraints.get("EncryptionContextSubset") or {}
        own_equals, own_subset = (grant.constraints.get(f"EncryptionContext{kind}") for kind in ("Equals", "Subset"))
        if own_equals is not None and equals != own_equals:
            continue
        known = {**subset, **(equals or {})}
        if own_subset is not None and any(known.get(name) != value for name, value in own_subset.items()):
            continue
        return True
    return False


def _may_retire(call: Call, key: Key, action: str) -> bool:
    """A grant is retired by whoever it names for that, by its grantee if it says so, and by the key's account."""
    if action != "kms:RetireGrant":
        return False
    token, grant_id = call.params.get("GrantToken"), call.params.get("GrantId")
    for grant in key.grants:
        if grant.id != grant_id and not (token and grant.token == token):
            continue
        if is_named(call, grant.retirer, grant.retirer_id):
            return True
        if "RetireGrant" in grant.operations and is_named(call, grant.grantee, grant.grantee_id):
            return True
        if grant.retirer == root_arn(call.account) and call.caller.principal is None:
            return True
    return False


def _elsewhere(call: Call, target: Target) -> EC2Error:
    """Of another account's key no more is told than of one that is not there."""
    action = target.action or f"{call.service}:{call.action}"
    return EC2Error(
        "AccessDeniedException" if call.service != "ec2" else "UnauthorizedOperation",
        f"User: {call.caller.arn} is not authorized to perform: {action} on the resource that it names, because that "
        "does not exist in this Region, no resource-based policies allow access, or one explicitly denies access",
        400 if call.service != "ec2" else 403,
    )

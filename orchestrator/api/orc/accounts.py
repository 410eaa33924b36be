"""A new account with a key of its root, for which AWS Organizations has no action: there an account is told none."""

from __future__ import annotations

from orchestrator.api.accounts import check_first, make_root_key, open_account
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.api.organizations import check_name


@operation("CreateAccount", service="orc", writes=True)
def create_account(call: Call, *, name: str) -> Answer:
    """The secret is told once."""
    check_first(call)
    account = open_account(call, check_name(name), tags={})
    key = make_root_key(call, account)
    return {
        "AccountId": account.id,
        "Name": account.name,
        "AccessKeyId": key.id,
        "SecretAccessKey": key.secret,
    }

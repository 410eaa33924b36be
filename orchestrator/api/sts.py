"""STS: who the caller is."""

from __future__ import annotations

from orchestrator.api.operation import Answer, Call, operation


@operation("GetCallerIdentity", service="sts")
def get_caller_identity(call: Call) -> Answer:
    """UserId is the account's number for its root, as on AWS."""
    return {"UserId": call.caller.user_id or call.account, "Account": call.account, "Arn": call.caller.arn}

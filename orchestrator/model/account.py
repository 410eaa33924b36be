"""Accounts and the access keys that act for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from orchestrator.model.resource import Resource

ANONYMOUS_ACCOUNT = "000000000000"  # the account behind credentials that nobody checks (auth = "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Resource):
    """`id` is the 12-digit account number; `regions` are those whose default VPC has been made."""

    KIND: ClassVar[str] = "account"

    name: str = ""
    regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey(Resource):
    """`id` is the access key id; `user` is empty for the account's root."""

    KIND: ClassVar[str] = "access-key"

    secret: str
    user: str = ""
    active: bool = True

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:{'user/' + self.user if self.user else 'root'}"

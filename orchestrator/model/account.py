"""Accounts and the access keys that act for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from orchestrator.model.resource import Resource

ANONYMOUS_ACCOUNT = "000000000000"  # the account behind credentials that nobody checks (auth = "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Resource):
    """`id` is the 12-digit account number; `regions` are those whose default VPC has been made."""

    KIND: ClassVar[str] = "account"

    name: str = ""
    email: str = ""
    request_id: str = ""  # of the request that opened it, as AWS Organizations has it; empty for the first
    regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey(Resource):
    """`id` is the access key id; `user` is the id of its user, empty for the account's root."""

    KIND: ClassVar[str] = "access-key"
    INDEXES: ClassVar[tuple[str, ...]] = ("account", "user")

    secret: str
    user: str = ""
    active: bool = True
    used_at: datetime | None = None  # to within a quarter of an hour; a user's keys only
    used_service: str = ""
    used_region: str = ""

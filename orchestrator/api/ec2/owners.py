"""Who owns an image or a snapshot, and who else may use it: accounts that it is shared with, or everybody.

The catalogue is in every region, and is everybody's. What lies in the recycle bin is nobody's.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from orchestrator.api.operation import Call
from orchestrator.model.image import Image
from orchestrator.model.kms import RegionSettings
from orchestrator.model.resource import EVERY_REGION, Resource
from orchestrator.model.snapshot import Snapshot

AMAZON: Final = "amazon"  # who owns the catalogue, in the words of code that was written for AWS
OWNER_ALIASES: Final = (AMAZON, "aws-marketplace", "aws-backup-vault")


def may_use(call: Call, shared: Image | Snapshot, *, region: str = "") -> bool:
    """Whether it is in a region, the caller's if none is named, and the caller's own, shared with it, or public."""
    if not is_here(call, shared, region=region):
        return False
    return shared.account == call.account or call.account in shared.shared_with or is_public(call, shared)


def is_here(call: Call, shared: Image | Snapshot, *, region: str = "") -> bool:
    return shared.recycled_at is None and shared.region in (region or call.region, EVERY_REGION)


def is_public(call: Call, shared: Image | Snapshot) -> bool:
    """Its owner can say that no snapshot of a region is, whatever the snapshots themselves say."""
    if shared.region == EVERY_REGION:
        return True
    if isinstance(shared, Snapshot) and shared.public:
        settings = call.db.get(RegionSettings, f"{shared.account}:{shared.region}")
        return settings is None or settings.snapshot_block_public != "block-all-sharing"
    return shared.public


def is_shared_with(call: Call, shared: Image | Snapshot, users: Collection[str]) -> bool:
    """Whether one of these accounts, or `all`, was given leave to use it; owners have no need of it."""
    return bool(set(users) & set(shared.shared_with)) or ("all" in users and is_public(call, shared))


def owner_alias(resource: Resource) -> str:
    return AMAZON if resource.region == EVERY_REGION else ""


def is_account(text: str) -> bool:
    return len(text) == 12 and text.isascii() and text.isdigit()

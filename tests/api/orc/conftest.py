"""The `api` of EC2's tests: what it makes is what our own service tells of. Its account is the deployment's first."""

from __future__ import annotations

import pytest

from tests.api.ec2.conftest import ACCOUNT, Api, _bound, api

__all__ = ["_bound", "api"]


@pytest.fixture(autouse=True)
def _first(api: Api) -> None:
    api.store.set_meta("account", ACCOUNT)

"""The `api` of EC2's tests: what it makes is what our own service tells of."""

from __future__ import annotations

from tests.api.ec2.conftest import _bound, api

__all__ = ["_bound", "api"]

"""`cloud`: two accounts behind a gateway that checks signatures and policies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.cloud import Cloud, open_cloud
from tests.conftest import Clock


@pytest.fixture
def cloud(tmp_path: Path, clock: Clock) -> Iterator[Cloud]:
    with open_cloud(tmp_path, clock) as opened:
        yield opened

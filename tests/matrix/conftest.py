"""EC2's API over a temporary store, the country that the matrix is about, and a network that plays the host."""

from __future__ import annotations

import pytest

from tests.api.ec2.conftest import Api, _bound, api
from tests.host.conftest import stage
from tests.matrix.scenario import PUBLIC_RANGE, Country, found_country

__all__ = ["_bound", "api", "stage"]


@pytest.fixture
def country(api: Api) -> Country:
    api.configure(public_range=PUBLIC_RANGE)
    return found_country(api)

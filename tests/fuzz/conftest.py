"""`deployment`: a furnished controller, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from unittest import mock

import pytest

from orchestrator.api import patience
from tests.fuzz.deployment import Deployment, furnish
from tests.fuzz.generator import Generator


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = Deployment(tmp_path_factory.mktemp("fuzz") / "state")
    with mock.patch.multiple(patience, SILENCE_S=0.8, BODY_S=0.4, LINGER_S=0.1):
        made.start()
        try:
            furnish(made, Generator(0))
            yield made
        finally:
            made.stop()
            made.store.close()


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Deployment]]:
    """Start one of the test's own, after it has changed what it wants changed."""
    started: list[Deployment] = []

    def begin() -> Deployment:
        made = Deployment(tmp_path_factory.mktemp("fuzz") / "state")
        made.start()
        started.append(made)
        made.enrol("111122223333")
        return made

    yield begin
    for made in started:
        made.stop()
        made.store.close()

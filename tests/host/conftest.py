"""Networks to play on, and hosts to look at, for the tests that need them."""

from tests.host.answers import expected, host_says
from tests.host.stage import internet, network, plan, stage

__all__ = ["expected", "host_says", "internet", "network", "plan", "stage"]

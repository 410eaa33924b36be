"""Networks to play on, for the tests that need them."""

from tests.host.stage import internet, network, plan, stage

__all__ = ["internet", "network", "plan", "stage"]

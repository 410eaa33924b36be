"""What tools are told besides their commands."""

from __future__ import annotations

import pytest

from orchestrator.host.command import environment, run


def test_tools_get_no_settings_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """dnsmasq outlives the controller, is another user and reads what guests send."""
    for name in ("ORC_STORE_URL", "PGPASSWORD", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "planted")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    told = run(["env"])
    assert "planted" not in told
    assert "HTTPS_PROXY=http://proxy.test:3128" in told and "LC_ALL=C" in told
    assert environment("PGPASSWORD")["PGPASSWORD"] == "planted"

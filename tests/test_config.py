"""Where a value comes from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config import KEYS, Config, ConfigError, load


def test_flags_beat_the_environment_beats_the_file_beats_defaults(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('port = 1\nauth = "any"\nworkers = 3\n[network]\negress = "off"\n')
    config, sources = load({"port": "3", "auth": None}, {"ORC_PORT": "2", "ORC_WORKERS": "4"}, file)
    assert (config.port, config.workers, config.auth, config.network_egress) == (3, 4, "any", "off")
    assert sources["port"] == "--port"
    assert sources["workers"] == "ORC_WORKERS"
    assert sources["network_egress"] == str(file)
    assert sources["state_dir"] == "default"


def test_names_follow_one_rule() -> None:
    egress = next(key for key in KEYS if key.attribute == "network_egress")
    assert (egress.name, egress.variable, egress.flag) == ("network.egress", "ORC_NETWORK_EGRESS", "--network-egress")
    assert len({key.name for key in KEYS}) == len(KEYS)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"ORC_PORT": "many"}, ["ORC_PORT", "many", "int"]),
        ({"ORC_PORT": "70000"}, ["port", "70000", "65535"]),
        ({"ORC_AUTH": "none"}, ["ORC_AUTH", "verify", "any"]),
        ({"ORC_REGIONS": "us-east-1"}, ["regions", "us-east-1:a,b"]),
        ({"ORC_NETWORK_PUBLIC_RANGE": "203.0.113.1/24"}, ["network.public_range"]),
        ({"ORC_NETWORK_PUBLIC_RANGE": "203.0.113.0/30"}, ["/16 to a /28"]),
        ({"ORC_ADDRESS": "0.0.0.0"}, ["beyond loopback", "tls.certificate", "remote"]),
        ({"ORC_ADDRESS": "0.0.0.0", "ORC_AUTH": "any", "ORC_REMOTE": "true"}, ["loopback"]),
        ({"ORC_ADDRESS": "here"}, ["'here'", "IP address"]),
        ({"ORC_TLS_KEY": "k.pem"}, ["tls.certificate", "tls.key"]),
        ({"ORC_WORKERS": "0"}, ["workers", "above 0"]),
        ({"ORC_CPU_OVERCOMMIT": "0"}, ["cpu_overcommit", "above 0"]),
        ({"ORC_CPU_OVERCOMMIT": "nan"}, ["cpu_overcommit", "nan", "above 0 and at most 1000000"]),
        ({"ORC_MEMORY_OVERCOMMIT": "inf"}, ["memory_overcommit", "inf", "at most 1000000"]),
        ({"ORC_MEMORY_OVERCOMMIT": "nan"}, ["memory_overcommit", "nan", "at most 1000000"]),
        ({"ORC_MEMORY_OVERCOMMIT": "1e308"}, ["memory_overcommit", "1e+308", "at most 1000000"]),
        ({"ORC_API_RATE_READ": "inf/1"}, ["api.rate_read", "inf/1", "BURST/PER_SECOND"]),
        ({"ORC_API_RATE_READ": "1/nan"}, ["api.rate_read", "1/nan", "BURST/PER_SECOND"]),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(environment: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, environment)
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_was_named_must_exist_and_have_known_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load({}, {"ORC_CONFIG": str(tmp_path / "none.toml")})
    file = tmp_path / "config.toml"
    file.write_text("prot = 1\n")
    with pytest.raises(ConfigError, match="unknown key 'prot'"):
        load({}, {}, file)
    file.write_text("port = = 1\n")
    with pytest.raises(ConfigError, match="not TOML"):
        load({}, {}, file)


def test_regions_are_zones_by_region() -> None:
    assert Config().region_zones() == {
        "us-east-1": ("us-east-1a", "us-east-1b", "us-east-1c"),
        "us-west-2": ("us-west-2a",),
    }

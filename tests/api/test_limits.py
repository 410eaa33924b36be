"""Request rates and quotas: as callers meet them."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client import generate_latest

from orchestrator.api import operations
from orchestrator.api.gateway import Gateway, Request, Response
from orchestrator.api.limits import INTENSIVE_ACTIONS, Limits, block_of, kind_of
from orchestrator.api.operation import Settings, bind_operations
from orchestrator.api.protocol import load_service
from orchestrator.api.signature import sign
from orchestrator.config import Config, ConfigError, load
from orchestrator.keys import KeyRing
from orchestrator.model.rate import Rate, parse_rate
from orchestrator.store import Store
from tests.api.cloud import Cloud, Keys, refused
from tests.conftest import Serving


@dataclass
class Watch:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Door:
    """A gateway with no host behind it, asked as the wire would."""

    store: Store
    settings: Settings
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        keys, host = KeyRing(bytes(32)), object()
        self.gateway = Gateway(
            self.store,
            self.settings,
            host,  # type: ignore[arg-type]
            keys,
            lambda: datetime.now(UTC),
            any_credentials=True,
        )
        self.gateway._limits = Limits(self.settings.rates, self.watch)

    def ask(self, body: str, *, account: str = "1" * 12, service: str = "ec2", target: str = "") -> Response:
        scope = f"{account}/20260102/us-east-1/{service}/aws4_request"
        authorization = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={'0' * 64}"
        headers = {"Authorization": authorization, "X-Amz-Date": "20260102T030405Z", "Host": "x"}
        if target:
            headers["X-Amz-Target"] = target
        return self.gateway.answer(Request("POST", "/", "", headers, body.encode(), "127.0.0.1"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "orchestrator.db", durable=False)
    yield store
    store.close()


def settings(**given: Any) -> Settings:
    return Settings(regions={"us-east-1": ("us-east-1a",), "us-west-2": ("us-west-2a",)}, **given)


RATES = {"read": Rate(3, 1), "write": Rate(2, 0.5), "intensive": Rate(1, 0.1)}


# --- buckets ----------------------------------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    watch = Watch()
    limits = Limits({"read": Rate(3, 2)}, watch)
    assert [limits.take("a", "r", "read") for _ in range(4)] == [True, True, True, False]
    watch.now += 0.5
    assert [limits.take("a", "r", "read") for _ in range(2)] == [True, False]
    watch.now += 1000
    assert [limits.take("a", "r", "read") for _ in range(4)] == [True, True, True, False]
    assert limits.take("b", "r", "read") and limits.take("a", "other", "read")
    assert all(limits.take("a", "r", "write") for _ in range(1000))


def test_refused_calls_take_nothing() -> None:
    watch = Watch()
    limits = Limits({"read": Rate(1, 1)}, watch)
    assert limits.take("a", "r", "read")
    for _ in range(10):
        watch.now += 0.09
        assert not limits.take("a", "r", "read")
    watch.now += 0.11
    assert limits.take("a", "r", "read")


def test_buckets_of_many_accounts_do_not_pile_up() -> None:
    watch = Watch()
    limits = Limits({"read": Rate(2, 1)}, watch)
    for number in range(50_000):
        watch.now += 0.001
        limits.take(str(number), "r", "read")
    assert len(limits._buckets) <= 10_001


def test_kinds_are_those_of_ec2() -> None:
    assert kind_of("DescribeInstances", writes=False) == "read"
    assert kind_of("CreateVpc", writes=True) == "write"
    assert kind_of("RunInstances", writes=True) == "intensive"
    operations.load()
    known = bind_operations({"ec2": load_service("ec2")})
    assert {name for _, name in known} >= INTENSIVE_ACTIONS


def test_rates_are_read() -> None:
    assert parse_rate("100/20") == Rate(100, 20) and parse_rate("1/0.5") == Rate(1, 0.5) and parse_rate("off") is None
    for wrong in ("", "100", "0/1", "1/0", "-1/1", "a/b", "nan/1", "inf/1", "1/inf"):
        with pytest.raises(ValueError, match="BURST/PER_SECOND"):
            parse_rate(wrong)


def test_configured() -> None:
    config, _ = load({"rate_read": "off", "rate_write": "5/1", "quotas": "vpcs=5"}, {})
    others = {kind: parse_rate(getattr(Config(), f"rate_{kind}")) for kind in ("intensive", "unproven")}
    assert config.rates() == {"write": Rate(5, 1), **others}
    assert config.quota_table() == {"vpcs": 5}
    for wrong in ({"rate_read": "5"}, {"quotas": "cars=5"}, {"audit_kept": 10}, {"connections_per_address": 0}):
        with pytest.raises(ConfigError):
            load(wrong, {})


# --- at the door ------------------------------------------------------------------------------------------------------


def test_ec2_says_request_limit_exceeded(store: Store) -> None:
    door = Door(store, settings(rates=RATES))
    answers = [door.ask("Action=DescribeVpcs") for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 200, 503]
    assert b"<Code>RequestLimitExceeded</Code>" in answers[-1].body
    assert door.ask("Action=CreateVpc&CidrBlock=10.0.0.0/16").status == 200, "another kind has another bucket"
    assert door.ask("Action=DescribeVpcs", account="2" * 12).status == 200
    door.watch.now += 1
    assert door.ask("Action=DescribeVpcs").status == 200
    refused = [event for event in store.events() if event.get("errorCode")]
    assert [event["errorCode"] for event in refused] == ["Server.RequestLimitExceeded"]


def test_a_refused_write_changes_nothing(store: Store) -> None:
    door = Door(store, settings(rates=RATES))
    body = "Action=CreateKeyPair&KeyName={}&KeyType=ed25519"
    assert [door.ask(body.format(number)).status for number in range(3)] == [200, 503, 503]
    assert door.ask("Action=DescribeKeyPairs").body.count(b"<keyName>") == 1


def test_other_services_say_it_in_their_words(store: Store) -> None:
    door = Door(store, settings(rates={"read": Rate(1, 0.001)}))
    assert door.ask("{}", service="kms", target="TrentService.ListKeys").status == 200
    answer = door.ask("{}", service="kms", target="TrentService.ListKeys")
    assert answer.status == 400 and b"ThrottlingException" in answer.body
    answer = door.ask("Action=GetCallerIdentity&Version=2011-06-15", service="sts")
    assert b"<Code>Throttling</Code>" in answer.body


def test_a_store_that_cannot_be_written_is_unavailable_and_reads_go_on(store: Store) -> None:
    door = Door(store, settings())
    assert door.ask("Action=DescribeVpcs").status == 200
    store._database.query("PRAGMA query_only=ON")
    answer = door.ask("Action=CreateVpc&CidrBlock=10.0.0.0/16")
    assert answer.status == 503 and b"<Code>Unavailable</Code>" in answer.body and b"readonly" not in answer.body
    assert door.ask("Action=DescribeVpcs").body.count(b"<vpcId>") == 1
    store._database.query("PRAGMA query_only=OFF")
    assert door.ask("Action=CreateVpc&CidrBlock=10.0.0.0/16").status == 200
    outcome = [(event["eventName"], event.get("errorCode")) for event in store.events()]
    assert ("CreateVpc", "Server.Unavailable") in outcome and ("CreateVpc", None) in outcome


# --- quotas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quota", "body", "code"),
    [
        ("vpcs", "Action=CreateVpc&CidrBlock=10.0.0.0/16", "VpcLimitExceeded"),
        ("addresses", "Action=AllocateAddress", "AddressLimitExceeded"),
        ("volumes", "Action=CreateVolume&Size=1&AvailabilityZone=us-east-1a", "VolumeLimitExceeded"),
        (
            "security-groups",
            "Action=CreateSecurityGroup&GroupName=web&GroupDescription=d",
            "SecurityGroupLimitExceeded",
        ),
    ],
)
def test_what_is_over_a_quota_is_refused(store: Store, quota: str, body: str, code: str) -> None:
    first = Door(store, settings())
    first.ask("Action=DescribeVpcs")  # the default VPC and group come about
    here = {"vpcs": 1, "security-groups": 1}.get(quota, 0)
    refused = Door(store, settings(quotas={quota: here})).ask(body)
    assert refused.status == 400 and f"<Code>{code}</Code>".encode() in refused.body
    assert (
        f"<Code>{code}</Code>".encode() in Door(store, settings(quotas={quota: here})).ask(body + "&DryRun=true").body
    )
    allowed = Door(store, settings(quotas={quota: here + 1}))
    assert allowed.ask(body).status == 200
    assert allowed.ask(body.replace("web", "more")).status == 400


def test_account_attributes_say_the_quotas(store: Store) -> None:
    answer = Door(store, settings(quotas={"addresses": 7, "instances": None})).ask("Action=DescribeAccountAttributes")
    assert b"<attributeValue>7<" in answer.body and b"<attributeValue>2147483647<" in answer.body


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
    ],
)
def test_which_addresses_count_as_one(address: str, block: str) -> None:
    assert block_of(address) == block


def test_who_fails_to_say_who_calls_is_held_up_by_address_and_nobody_else(cloud: Cloud) -> None:
    watch = Watch()
    cloud.gateway._limits = Limits({"unproven": Rate(3, 1)}, watch)
    ec2 = cloud.client("ec2")
    wrong = cloud.client("ec2", Keys(cloud.root().access_key, "wrong"))
    unknown = cloud.client("kms", Keys("AKIAUNKNOWNUNKNOWN11", "wrong"))
    codes = [refused(wrong.describe_vpcs)[0] for _ in range(5)]
    assert codes == ["SignatureDoesNotMatch"] * 3 + ["RequestLimitExceeded"] * 2
    assert refused(unknown.list_keys)[0] == "ThrottlingException"
    assert all(ec2.describe_vpcs()["Vpcs"] for _ in range(10)), "who proves to be somebody is not held up"
    cloud.source = "192.0.2.8"
    assert refused(wrong.describe_vpcs)[0] == "SignatureDoesNotMatch"
    cloud.source = "192.0.2.7"
    watch.now += 1
    assert refused(wrong.describe_vpcs)[0] == "SignatureDoesNotMatch"
    recorded = [event["errorCode"] for event in cloud.store.events() if event.get("errorCode")]
    assert recorded == ["Client.SignatureDoesNotMatch"] * 5, "a flood does not fill the log of calls"


def ask(where: tuple[str, int], said: bytes) -> bytes:
    with socket.create_connection(where, timeout=10) as connection:
        connection.sendall(said)
        return connection.recv(4096)


def test_an_address_has_so_many_connections_and_no_more(serving: Callable[..., Serving]) -> None:
    flags = ("--api-connections-per-address", "5", "--api-rate-unproven", "4/0.01")
    controller = serving("--host", "memory", *flags)
    parts = urlsplit(controller.endpoint)
    where = (str(parts.hostname), int(parts.port or 0))
    healthy = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    held = [socket.create_connection(where, timeout=10) for _ in range(5)]
    try:
        for _ in range(3):
            with suppress(ConnectionError):
                assert ask(where, healthy) == b"", "the sixth is hung up on"
    finally:
        for each in held:
            each.close()
    deadline = time.monotonic() + 20
    while True:
        with suppress(ConnectionError):
            if b"200 OK" in ask(where, healthy):
                break
        assert time.monotonic() < deadline, "connections that ended still count"
    nobody = b"GET /?Action=DescribeVpcs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    metrics = nobody.replace(b"/?Action=DescribeVpcs", b"/metrics")
    answers = [ask(where, nobody) for _ in range(6)]
    assert [b"MissingAuthenticationToken" in answer for answer in answers] == [True] * 4 + [False] * 2
    assert b"503" in answers[-1] and b"RequestLimitExceeded" in answers[-1]
    assert b" 429 " in ask(where, metrics) and b"200 OK" in ask(where, healthy)
    assert controller.client("ec2").describe_vpcs()["Vpcs"]


def test_what_callers_make_up_is_counted_together(cloud: Cloud) -> None:
    """Each name that metrics know stays in memory as long as the process."""
    keys = cloud.user("nobody")
    signing = {"access_key": keys.access_key, "secret_key": keys.secret_key, "region": "us-east-1"}
    for number in range(20):
        service, action = f"made-up-{number}", f"Action=Made{number}".encode()
        for each in (service, "ec2"):
            headers = {"Host": "x"}
            headers |= sign("POST", "http://x/", headers, action, service=each, now=cloud.clock(), **signing)
            cloud.gateway.answer(Request("POST", "/", "", headers, action, "192.0.2.1"))
    told = generate_latest(cloud.gateway.registry).decode()
    assert "made-up" not in told and "Made" not in told
    assert 'action="other"' in told and 'service="other"' in told

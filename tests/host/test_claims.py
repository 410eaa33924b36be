"""Deployments that run on one host at the same time have public ranges of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from orchestrator.config import Config
from orchestrator.controller import deployment_id, settle_public_range
from orchestrator.host import claims, ranges
from orchestrator.host.links import edge_name
from orchestrator.model.elastic_ip import ElasticIp
from orchestrator.store import Store

_ANOTHER = """
import sys
from ipaddress import IPv4Network
from pathlib import Path
from orchestrator.config import Config
from orchestrator.controller import settle_public_range
from orchestrator.host import claims, ranges
from orchestrator.store import Store
claims.PLACE = Path(sys.argv[1])
ranges._needed_addresses = dict
ranges.routes = list
"""
CLAIMS = 'claims.claim(IPv4Network(sys.argv[2]), "orc-ffffffff"); print("there", flush=True); sys.stdin.read()'
SETTLES = """
store = Store(Path(sys.argv[2]), durable=False)
print(settle_public_range(Config(host="libvirt"), store).public_range, flush=True)
sys.stdin.read()
"""
FIRST, SECOND = (str(each) for each in ranges.CANDIDATES[:2])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where claims are; the host has no routes, and talks to nobody."""
    monkeypatch.setattr(claims, "PLACE", tmp_path / "ranges")
    monkeypatch.setattr(claims, "_held", {})
    monkeypatch.setattr(ranges, "_needed_addresses", dict)
    monkeypatch.setattr(ranges, "routes", list)
    claims.PLACE.mkdir()
    return claims.PLACE


Another = Callable[[str, str], subprocess.Popen[str]]


@pytest.fixture
def another(place: Path) -> Iterator[Another]:
    """Another process, that does something and stays."""
    with ExitStack() as stack:

        def begin(code: str, argument: str) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", _ANOTHER + code, str(place), argument]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "own.db", durable=False)
    yield store
    store.close()


def holds(another: Another, network: str) -> subprocess.Popen[str]:
    process = another(CLAIMS, network)
    assert process.stdout is not None and process.stdout.readline() == "there\n"
    return process


def settled(store: Store, public_range: str = "auto") -> str:
    return settle_public_range(Config(host="libvirt", public_range=public_range), store).public_range


def test_a_range_is_held_as_long_as_its_process_lives(another: Another, place: Path) -> None:
    holder = holds(another, FIRST)
    assert claims.claimed() == {IPv4Network(FIRST): "orc-ffffffff"}
    assert str(ranges.choose()) == SECOND
    reason = ranges.clash(IPv4Network(FIRST), own_device="orc-0a1b2c3d")
    assert reason is not None and "another deployment that runs on this host (orc-ffffffff)" in reason
    assert ranges.clash(IPv4Network(FIRST), own_device="orc-ffffffff") is None
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    assert claims.claimed() == {}
    assert str(ranges.choose()) == FIRST
    claims.claim(IPv4Network(SECOND), "orc-0a1b2c3d")
    assert [path.name.partition("-")[2] for path in place.glob("[0-9]*")] == [SECOND.replace("/", "_")]


def test_a_range_of_another_network_namespace_is_nobodys(another: Another, monkeypatch: pytest.MonkeyPatch) -> None:
    holds(another, FIRST)
    monkeypatch.setattr(claims, "_namespace", lambda: "1")
    assert claims.claimed() == {}


def test_deployments_that_start_together_choose_different_ranges(another: Another, tmp_path: Path) -> None:
    processes = [another(SETTLES, str(tmp_path / f"{number}.db")) for number in range(5)]
    chosen = [process.stdout.readline().strip() for process in processes if process.stdout is not None]
    assert sorted(chosen) == sorted(str(each) for each in ranges.CANDIDATES[:5])


def test_a_deployment_keeps_its_range(another: Another, store: Store) -> None:
    assert settled(store) == settled(store) == FIRST
    assert claims.claimed() == {IPv4Network(FIRST): edge_name(deployment_id(store))}


def test_a_range_that_another_has_taken_meanwhile_is_left_to_it_while_nobody_was_told_of_it(
    another: Another, store: Store
) -> None:
    store.set_meta("public_range", FIRST)
    holds(another, FIRST)
    assert settled(store) == SECOND == store.meta("public_range")


def test_a_range_with_addresses_that_somebody_has_is_not_given_up(another: Another, store: Store) -> None:
    store.set_meta("public_range", FIRST)
    with store.write() as tx:
        tx.put(
            ElasticIp(
                id="eipalloc-1",
                account="1" * 12,
                region="us-east-1",
                created=datetime.now(UTC),
                public_ip=str(IPv4Network(FIRST)[9]),
            )
        )
    holder = holds(another, FIRST)
    with pytest.raises(OSError, match=r"another deployment that runs on this host \(orc-ffffffff\): end that one, or"):
        settled(store)
    holder.kill()
    holder.wait(10)
    assert settled(store) == FIRST


def test_a_range_that_was_asked_for_is_had_or_refused(another: Another, store: Store) -> None:
    holds(another, "198.51.100.0/25")
    with pytest.raises(OSError, match=r"set network\.public_range"):
        settled(store, "198.51.100.0/24")
    assert settled(store, "198.51.100.128/25") == "198.51.100.128/25"

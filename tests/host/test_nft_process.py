"""The process that loads nftables: what it does where, and what is left when it, or its user, ends."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from orchestrator.host import HostError
from orchestrator.host.command import inside, run
from orchestrator.host.nft_process import HANDLES, NUMBERS, STATELESS, NftProcess
from tests.host.stage import PATIENCE_S

pytestmark = pytest.mark.host

LISTED = "table ip t {\n\tchain c {\n\t\ttcp dport 22 counter accept\n\t}\n}\n"


@pytest.fixture
def nft(stage: ExitStack) -> NftProcess:
    nft = NftProcess()
    stage.callback(nft.close)
    return nft


def process_of(nft: NftProcess) -> int:
    nft.run("list tables")
    assert nft._running is not None
    return nft._running.process.pid


def namespace_of(process: int) -> int:
    return os.stat(f"/proc/{process}/ns/net").st_ino


def gone(process: int) -> bool:
    deadline, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        pause.wait(0.01)
    return not Path(f"/proc/{process}").exists()


def test_it_lists_what_the_program_lists(nft: NftProcess) -> None:
    nft.run(LISTED)
    assert nft.run("list table ip t", NUMBERS | STATELESS) == LISTED
    told = nft.run("list table ip t", NUMBERS | HANDLES | STATELESS)
    assert told == run(["nft", "-n", "-a", "-s", "list", "table", "ip", "t"])
    assert "# handle" in told
    assert nft.run("list tables") == run(["nft", "list", "tables"]) == "table ip t\n"


def test_it_works_where_its_caller_is_and_keeps_no_namespace(nft: NftProcess) -> None:
    name = f"orctest-{secrets.token_hex(4)}"
    run(["ip", "netns", "add", name])
    try:
        there = inside(name, lambda: os.stat("/proc/thread-self/ns/net").st_ino)
        inside(name, lambda: nft.run("add table ip there"))
        nft.run("add table ip here")
        assert run(["nft", "list", "tables"]) == "table ip here\n"
        assert inside(name, lambda: run(["nft", "list", "tables"])) == "table ip there\n"
        here = os.stat("/proc/thread-self/ns/net").st_ino
        assert namespace_of(process_of(nft)) not in (here, there)
    finally:
        run(["ip", "netns", "delete", name])


def test_what_it_refuses_is_told_and_leaves_nothing(nft: NftProcess) -> None:
    with pytest.raises(HostError, match=r"nft failed: .*No such file") as failed:
        nft.run("add table ip t\nadd rule ip t nowhere accept")
    assert failed.value.retryable
    with pytest.raises(HostError, match="syntax error"):
        nft.run("add tabel ip t")
    assert nft.run("list tables") == ""


def test_a_text_of_megabytes(nft: NftProcess) -> None:
    addresses = ", ".join(f"10.{each >> 16}.{each >> 8 & 255}.{each & 255}" for each in range(100_000))
    nft.run(f"table ip t {{\n set s {{ type ipv4_addr; elements = {{ {addresses} }}; }}\n}}\n")
    assert nft.run("list set ip t s").count(",") == 99_999


def test_it_begins_anew_when_it_was_killed(nft: NftProcess) -> None:
    before = process_of(nft)
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    nft.run("add table ip t")
    assert process_of(nft) != before and gone(before)


def test_one_that_hangs_is_ended_at_its_deadline(stage: ExitStack) -> None:
    nft = NftProcess(deadline_s=0.2)
    stage.callback(nft.close)
    before = process_of(nft)
    os.kill(before, signal.SIGSTOP)
    with pytest.raises(HostError, match=r"more than 0\.2 s") as failed:
        nft.run("add table ip t")
    assert failed.value.retryable and gone(before)
    assert nft.run("list tables") == ""


def test_one_that_ends_while_it_is_asked_is_told_of(nft: NftProcess) -> None:
    before = process_of(nft)
    os.kill(before, signal.SIGSTOP)
    killing = threading.Timer(0.1, os.kill, (before, signal.SIGKILL))
    killing.start()
    with pytest.raises(HostError, match="nft's process ended") as failed:
        nft.run("add table ip t")
    killing.join()
    assert failed.value.retryable and gone(before)


def test_it_ends_with_its_user(stage: ExitStack) -> None:
    nft = NftProcess()
    closed = process_of(nft)
    nft.close()
    assert gone(closed)
    forgotten = process_of(nft)
    del nft
    assert gone(forgotten)


def test_ctrl_c_is_not_for_it(nft: NftProcess) -> None:
    process = process_of(nft)
    os.kill(process, signal.SIGINT)
    assert process_of(nft) == process


def test_threads_wait_for_their_turn(nft: NftProcess) -> None:
    nft.run("add table ip t")
    chains = [f"c{number}" for number in range(40)]
    failed: list[HostError] = []

    def add(chain: str) -> None:
        try:
            nft.run(f"add chain ip t {chain}")
        except HostError as error:
            failed.append(error)

    threads = [threading.Thread(target=add, args=(chain,)) for chain in chains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    told = nft.run("list table ip t")
    assert all(f"chain {chain} {{" in told for chain in chains)

"""Nobody waits for ever on libvirt: a libvirtd that is silent, and a call that does not end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from orchestrator.host import HostError
from orchestrator.host.connection import Connection, ask_once
from tests.host.test_libvirt import OwnDaemon, daemon, until

__all__ = ["daemon"]

DRIVER = "test:///default"


class Watcher:
    """A connection, and what it has told."""

    def __init__(self, uri: str, *, call_s: float = 60.0, open_s: float = 0.5) -> None:
        self.back: list[set[str]] = []
        self.free: list[str] = []
        self.connection = Connection(
            uri,
            has_changed=lambda domain: None,
            was_reset=lambda name: None,
            came_back=self._came_back,
            is_free=self.free.append,
            call_s=call_s,
            open_s=open_s,
        )

    def _came_back(self, missed: Any) -> None:
        self.names()
        self.back.append(set(missed))

    def names(self) -> list[str]:
        return self.connection.call("list", lambda known: [each.name() for each in known.listAllDomains(0)])

    def answers(self) -> bool:
        try:
            return bool(self.names())
        except HostError:
            return False


@contextmanager
def watching(uri: str, **deadlines: float) -> Iterator[Watcher]:
    watcher = Watcher(uri, **deadlines)
    try:
        yield watcher
    finally:
        watcher.connection.close()


def took_s(work: Any, match: str) -> float:
    began = time.monotonic()
    with pytest.raises(HostError, match=match) as caught:
        work()
    assert caught.value.retryable
    return time.monotonic() - began


def test_a_call_that_does_not_end_is_not_waited_for() -> None:
    """Others go on; of the same machine nobody asks more until the call has ended, save who removes it."""
    with watching(DRIVER, call_s=0.2) as watcher:
        call = watcher.connection.call
        release = threading.Event()
        assert took_s(lambda: call("look at i-1", lambda known: release.wait(20), name="i-1"), "no answer in 0.2 s") < 2
        assert took_s(lambda: call("look at i-1", lambda known: 1, name="i-1"), "has not answered an earlier") < 0.1
        assert call("look at i-2", lambda known: 2, name="i-2") == 2
        assert call("remove i-1", lambda known: 3, name="i-1", anyway=True) == 3
        assert watcher.free == []
        release.set()
        until(lambda: watcher.free == ["i-1"])
        assert call("look at i-1", lambda known: 4, name="i-1") == 4


def test_calls_that_do_not_end_take_no_room_from_others() -> None:
    """Each has a connection of its own, since libvirtd works on few calls of one at a time."""
    with watching(DRIVER) as watcher:
        call = watcher.connection.call
        release, lock = threading.Event(), threading.Lock()
        held: list[Any] = []

        def hang(known: Any) -> None:
            with lock:
                held.append(known)
            release.wait(20)

        hanging = [
            threading.Thread(target=lambda name=f"i-{number}": call("look", hang, name=name)) for number in range(9)
        ]
        for thread in hanging:
            thread.start()
        until(lambda: len(held) == 9)
        free = call("look at another", lambda known: known)
        assert len(set(map(id, held))) == 9
        assert free not in held
        release.set()
        for thread in hanging:
            thread.join(20)
        before = len(set(map(id, held)))
        for number in range(20):  # what is free again is used
            held.append(call("look", lambda known: known, name=f"i-{number}"))
        assert len(set(map(id, held))) <= before + 1


def test_one_event_that_cannot_be_passed_on_is_the_only_one(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    def pass_on(domain: Any) -> None:
        told.append(domain.name())
        if len(told) == 1:
            raise ValueError("not this one")

    with watching(DRIVER) as watcher:
        watcher.connection._has_changed = pass_on
        watcher.connection.call("reboot", lambda known: known.lookupByName("test").destroy())
        until(lambda: told == ["test"])
        watcher.connection.call("start", lambda known: known.lookupByName("test").create())
        until(lambda: told == ["test", "test"])
    assert "could not be passed on" in caplog.text and "not this one" in caplog.text


def test_who_cannot_be_told_that_libvirtd_is_back_is_told_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries: list[str] = []

    def came_back(missed: Any) -> None:
        tries.append("")
        if len(tries) == 1:
            raise ValueError("not now")

    with watching(DRIVER) as watcher:
        watcher.connection._came_back = came_back
        watcher.connection._reconnect_soon()
        until(lambda: len(tries) == 2)
    assert "nobody could be told" in caplog.text and "not now" in caplog.text


@pytest.mark.host
def test_a_libvirtd_that_takes_connections_and_is_silent(daemon: OwnDaemon) -> None:
    with watching(daemon.uri) as watcher:
        daemon.start()
        until(watcher.answers)
        daemon.signal(signal.SIGSTOP)
        try:
            assert took_s(lambda: ask_once(daemon.uri, lambda known: known.getURI(), deadline_s=0.3), "not answer") < 2
            with watching(daemon.uri) as late:  # as a controller that starts meanwhile
                assert took_s(late.names, "does not answer") < 3
                assert took_s(late.names, "does not answer") < 0.1  # once is enough for all
        finally:
            daemon.signal(signal.SIGCONT)
        until(watcher.answers)


@pytest.mark.host
def test_who_was_asked_for_in_vain_is_named_when_libvirtd_is_back(daemon: OwnDaemon) -> None:
    with watching(daemon.uri) as watcher:
        daemon.start()
        until(watcher.answers)
        daemon.stop()
        call = watcher.connection.call
        took_s(lambda: call("start i-3", lambda known: known.listAllDomains(0), name="i-3"), "libvirt does not answer")
        daemon.start()
        until(lambda: {"i-3"} in watcher.back)

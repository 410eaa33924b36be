"""A connection to libvirt that is there again when libvirtd is, and on which nobody waits for ever.

    (none) --first call, or watch--> opening --> open --libvirtd ends, or is silent--> lost --next call,
                                       ^                                                 |    or the thread that waits
                                       +-------------------------------------------------+

One thread runs libvirt's event loop for the whole process, and one of ours passes the events on, since libvirt's must
not wait for libvirt. When libvirtd is started anew, the next call connects again, and so does a thread that watches for
the loss; what was missed meanwhile nobody knows, so then `came_back` is called once.

Whatever asks libvirt does so in a thread of its own, and is waited for until its deadline. libvirtd that takes a
connection and says nothing is no longer waited for after OPEN_S; one that falls silent is given up by its keep-alive.
A machine whose QEMU does not answer holds the call that asked for it: nobody else asks that machine until the call
ends, save who pulls its plug, so that a few such machines do not hold all who ask. libvirtd works on five calls of one
connection at a time, and a call over a connection on which another waits for ever was seen to wait too: so each call
has a line of its own while it lasts, and events have one.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt

from orchestrator.host import HostError

log = logging.getLogger(__name__)

T = TypeVar("T")

CALL_S = 60.0  # a machine starts in a fraction of it, also when the host is busy with fifty others
OPEN_S = 10.0
_CLOSE_S = 2.0
_KEEPALIVE_S = 5
_KEEPALIVE_MISSED = 3  # silent for 20 s, libvirtd is given up
_LINES_MOST = 20  # for calls: libvirtd has as many workers (max_workers), so more would be of no use
_RECONNECT_FIRST_S = 0.1
_RECONNECT_MOST_S = 5.0

_CHANGES = (
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
    libvirt.VIR_DOMAIN_EVENT_ID_IO_ERROR,
    libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
)
# What the same call will meet again, however often it is made.
_LASTING_ERRORS = frozenset(
    {
        libvirt.VIR_ERR_INVALID_ARG,
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_CONF_SYNTAX,
        libvirt.VIR_ERR_XML_ERROR,
        libvirt.VIR_ERR_XML_DETAIL,
        libvirt.VIR_ERR_XML_INVALID_SCHEMA,
        libvirt.VIR_ERR_OPERATION_DENIED,
        libvirt.VIR_ERR_ACCESS_DENIED,
    }
)


@dataclass(slots=True, eq=False)
class _Line:
    """One of the connections that there are to a libvirtd."""

    connection: Any
    events: bool
    calls: int = 0  # that are under way


class Connection:
    """To `uri`. `was_reset` and `has_panicked` are called on libvirt's thread, in the order in which it happened, and
    must not ask libvirt anything; `has_changed` (also of those domains), `came_back` (with the machines that calls
    could not reach) and `is_free` (with a machine that answers again) are called on threads of ours. `came_back` raises
    HostError when libvirtd has gone again."""

    def __init__(
        self,
        uri: str,
        *,
        has_changed: Callable[[Any], None],
        was_reset: Callable[[str], None],
        has_panicked: Callable[[str], None] = lambda name: None,
        came_back: Callable[[Collection[str]], None],
        is_free: Callable[[str], None],
        call_s: float = CALL_S,
        open_s: float = OPEN_S,
    ) -> None:
        self._uri = uri
        self._has_changed = has_changed
        self._was_reset = was_reset
        self._has_panicked = has_panicked
        self._came_back = came_back
        self._is_free = is_free
        self._call_s = call_s
        self._open_s = open_s
        self._lock = threading.RLock()
        self._lines: list[_Line] = []
        self._opening: tuple[float, Future[None]] | None = None  # until when it is waited for
        self._overdue: Counter[str] = Counter()  # calls about a machine that have outlived their deadline
        self._missed: set[str] = set()  # machines that somebody asked for while libvirtd was away
        self._closing = threading.Event()
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        run_event_loop()
        threading.Thread(target=self._pass_on, name="libvirt-wake", daemon=True).start()

    def call(self, about: str, work: Callable[[Any], T], *, name: str = "", anyway: bool = False) -> T:
        """Do `work` with the connection; once more when the connection turns out to be lost.

        `name` is the machine that it is about. While an earlier call about that one is overdue, this raises HostError
        at once, unless it is to be made `anyway`.
        """
        with self._lock:
            if self._overdue[name] and name and not anyway:
                raise HostError(f"{about}: QEMU has not answered an earlier call yet")
        settled = threading.Event()
        given_up = False
        outcome: Future[T] = Future()

        def do() -> None:
            try:
                outcome.set_result(self._try_twice(about, work, name))
            except BaseException as error:
                outcome.set_exception(error)
            with self._lock:
                settled.set()
                if not given_up or not name:
                    return
                self._overdue -= Counter([name])
            self._is_free(name)

        threading.Thread(target=do, name="libvirt-call", daemon=True).start()
        if not settled.wait(self._call_s):
            with self._lock:
                given_up = not settled.is_set()
                if given_up and name:
                    self._overdue[name] += 1
            if given_up:
                raise HostError(f"{about}: no answer in {self._call_s:g} s")
        return outcome.result()

    def _try_twice(self, about: str, work: Callable[[Any], T], name: str) -> T:
        try:
            with self._line() as connection:
                try:
                    return work(connection)
                except libvirt.libvirtError as error:
                    if _is_alive(connection):
                        raise _host_error(about, error) from error
            with self._line() as connection:
                try:
                    return work(connection)
                except libvirt.libvirtError as error:
                    if not _is_alive(connection):
                        self._miss(name)
                    raise _host_error(about, error) from error
        except _Away:
            self._miss(name)
            raise

    def _miss(self, name: str) -> None:
        with self._lock:
            if name:
                self._missed.add(name)

    def watch(self) -> None:
        """Be connected from now on, so that events come, also without a call."""
        try:
            with self._line():
                pass
        except HostError:
            self._reconnect_soon()

    def close(self) -> None:
        self._closing.set()
        self._events.put(None)
        with self._lock:
            lines, self._lines = self._lines, []
        if lines:
            closing = threading.Thread(target=_close, args=(lines,), name="libvirt-close", daemon=True)
            closing.start()
            closing.join(_CLOSE_S)  # a libvirtd that is silent is not waited for

    @contextlib.contextmanager
    def _line(self) -> Iterator[Any]:
        """A connection for one call."""
        line = self._take_line()
        try:
            yield line.connection
        finally:
            with self._lock:
                line.calls -= 1

    def _take_line(self) -> _Line:
        while True:
            with self._lock:
                if self._closing.is_set():
                    raise HostError("the connection to libvirt is closed", retryable=False)
                self._lines = [line for line in self._lines if _is_alive(line.connection)]
                events = any(line.events for line in self._lines)
                line = min((line for line in self._lines if not line.events), key=lambda line: line.calls, default=None)
                if events and line and (line.calls == 0 or len(self._lines) > _LINES_MOST):
                    line.calls += 1
                    return line
                if self._opening is None:
                    self._opening = (time.monotonic() + self._open_s, Future())
                    threading.Thread(
                        target=self._open_for_all,
                        args=(self._opening[1], not events),
                        name="libvirt-open",
                        daemon=True,
                    ).start()
                until, opening = self._opening
            try:
                opening.result(max(0.0, until - time.monotonic()))
            except TimeoutError as error:
                raise _Away(f"libvirt takes connections at {self._uri} and does not answer") from error

    def _open_for_all(self, opening: Future[None], events: bool) -> None:
        """It may take for ever: libvirt has no deadline for it."""
        try:
            line = _Line(self._open(events), events)
        except BaseException as error:
            with self._lock:
                self._opening = None
            opening.set_exception(error)
            return
        with self._lock:
            self._opening = None
            closed = self._closing.is_set()
            if not closed:
                self._lines.append(line)
        if closed:
            _close([line])
        opening.set_result(None)

    def _open(self, events: bool) -> Any:
        try:
            connection = libvirt.open(self._uri)
            with contextlib.suppress(libvirt.libvirtError):  # a driver inside this process has no keep-alive
                connection.setKeepAlive(_KEEPALIVE_S, _KEEPALIVE_MISSED)
            if not events:
                return connection
            connection.registerCloseCallback(self._on_close, None)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot, None)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_life, None)
            for event in _CHANGES:
                connection.domainEventRegisterAny(None, event, self._on_change, None)
        except libvirt.libvirtError as error:
            raise _Away(f"libvirt does not answer at {self._uri}: {error}") from error
        return connection

    def _on_close(self, _connection: Any, _reason: int, _opaque: Any) -> None:
        self._reconnect_soon()

    def _on_change(self, _connection: Any, domain: Any, *_details: Any) -> None:
        self._events.put(domain)

    def _on_reboot(self, _connection: Any, domain: Any, _opaque: Any) -> None:
        self._was_reset(domain.name())
        self._events.put(domain)

    def _on_life(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        # A kernel that was loaded for the case of a crash (kdump) takes over: that one is no panic of the guest's.
        if (event, detail) == (libvirt.VIR_DOMAIN_EVENT_CRASHED, libvirt.VIR_DOMAIN_EVENT_CRASHED_PANICKED):
            self._has_panicked(domain.name())
        self._events.put(domain)

    def _pass_on(self) -> None:
        while (domain := self._events.get()) is not None:
            try:
                self._has_changed(domain)
            except libvirt.libvirtError:
                pass  # it has gone
            except Exception:  # whatever it is: there are others to tell of
                log.exception("an event of libvirt's could not be passed on")

    def _reconnect_soon(self) -> None:
        if not self._closing.is_set():
            threading.Thread(target=self._reconnect, name="libvirt-reconnect", daemon=True).start()

    def _reconnect(self) -> None:
        pause_s = _RECONNECT_FIRST_S
        while not self._closing.wait(pause_s):
            with self._lock:
                missed = self._missed.copy()
            try:
                self._came_back(missed)
            except Exception as error:
                if not isinstance(error, HostError):
                    log.exception("libvirt is back, and nobody could be told")
                pause_s = min(2 * pause_s, _RECONNECT_MOST_S)
                continue
            with self._lock:
                self._missed -= missed
            return


class _Away(HostError):
    """libvirtd is not there."""


def _close(lines: Collection[_Line]) -> None:
    for line in lines:
        if line.events:
            with contextlib.suppress(libvirt.libvirtError):
                line.connection.unregisterCloseCallback()
        with contextlib.suppress(libvirt.libvirtError):
            line.connection.close()


def ask_once(uri: str, work: Callable[[Any], T], *, deadline_s: float = OPEN_S) -> T:
    """Do `work` with a connection for reading that is closed again. Raises HostError."""
    run_event_loop()
    outcome: Future[T] = Future()

    def ask() -> None:
        try:
            connection = libvirt.openReadOnly(uri)
            try:
                outcome.set_result(work(connection))
            finally:
                connection.close()
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=ask, name="libvirt-ask", daemon=True).start()
    try:
        return outcome.result(deadline_s)
    except TimeoutError as error:
        raise HostError(f"libvirt takes connections at {uri} and does not answer") from error
    except libvirt.libvirtError as error:
        raise HostError(f"libvirt does not answer at {uri}: {error}") from error


_loop_lock = threading.Lock()
_loop_runs = False


def run_event_loop() -> None:
    """Once per process, and before the first connection: libvirt's rule."""
    global _loop_runs
    with _loop_lock:
        if _loop_runs:
            return
        libvirt.registerErrorHandler(_say_nothing, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_loop, name="libvirt-events", daemon=True).start()
        _loop_runs = True


def _loop() -> None:
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


def _say_nothing(_opaque: Any, _error: Any) -> None:
    """libvirt would write each error to stderr; they are raised as well."""


def _is_alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False


def _host_error(about: str, error: Any) -> HostError:
    return HostError(f"{about}: {error}", retryable=error.get_error_code() not in _LASTING_ERRORS)

"""A connection to libvirt that is there again when libvirtd is.

    (none) --first call, or watch--> open --libvirtd ends--> lost --next call, or the thread that waits--> open

One thread runs libvirt's event loop for the whole process, and one of ours passes the events on, since libvirt's must
not wait for libvirt. When libvirtd is started anew, the next call connects again, and so does a thread that watches for
the loss; what was missed meanwhile nobody knows, so then `came_back` is called once.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import libvirt

from orchestrator.host import HostError

T = TypeVar("T")

_KEEPALIVE_S = 5
_KEEPALIVE_MISSED = 6
_RECONNECT_FIRST_S = 0.1
_RECONNECT_MOST_S = 5.0

_CHANGES = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
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


class Connection:
    """To `uri`. `was_reset` is called on libvirt's thread and must not ask libvirt anything; `has_changed` (also of a
    domain that was reset) and `came_back` are called on threads of ours. `came_back` raises HostError when libvirtd has
    gone again."""

    def __init__(
        self,
        uri: str,
        *,
        has_changed: Callable[[Any], None],
        was_reset: Callable[[str], None],
        came_back: Callable[[], None],
    ) -> None:
        self._uri = uri
        self._has_changed = has_changed
        self._was_reset = was_reset
        self._came_back = came_back
        self._lock = threading.RLock()
        self._connection: Any = None
        self._closing = threading.Event()
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        run_event_loop()
        threading.Thread(target=self._pass_on, name="libvirt-wake", daemon=True).start()

    def call(self, about: str, work: Callable[[Any], T]) -> T:
        """Do `work` with the connection; once more when the connection turns out to be lost."""
        connection = self._connected()
        try:
            return work(connection)
        except libvirt.libvirtError as error:
            if _is_alive(connection):
                raise _host_error(about, error) from error
        try:
            return work(self._connected())
        except libvirt.libvirtError as error:
            raise _host_error(about, error) from error

    def watch(self) -> None:
        """Be connected from now on, so that events come, also without a call."""
        try:
            self._connected()
        except HostError:
            self._reconnect_soon()

    def close(self) -> None:
        self._closing.set()
        self._events.put(None)
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                connection.unregisterCloseCallback()
            with contextlib.suppress(libvirt.libvirtError):
                connection.close()

    def _connected(self) -> Any:
        with self._lock:
            if self._closing.is_set():
                raise HostError("the connection to libvirt is closed", retryable=False)
            if self._connection is None or not _is_alive(self._connection):
                self._connection = self._open()
            return self._connection

    def _open(self) -> Any:
        try:
            connection = libvirt.open(self._uri)
            connection.registerCloseCallback(self._on_close, None)
            with contextlib.suppress(libvirt.libvirtError):  # a driver inside this process has no keep-alive
                connection.setKeepAlive(_KEEPALIVE_S, _KEEPALIVE_MISSED)
            connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, self._on_reboot, None)
            for event in _CHANGES:
                connection.domainEventRegisterAny(None, event, self._on_change, None)
        except libvirt.libvirtError as error:
            raise HostError(f"libvirt does not answer at {self._uri}: {error}") from error
        return connection

    def _on_close(self, _connection: Any, _reason: int, _opaque: Any) -> None:
        self._reconnect_soon()

    def _on_change(self, _connection: Any, domain: Any, *_details: Any) -> None:
        self._events.put(domain)

    def _on_reboot(self, _connection: Any, domain: Any, _opaque: Any) -> None:
        self._was_reset(domain.name())
        self._events.put(domain)

    def _pass_on(self) -> None:
        while (domain := self._events.get()) is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._has_changed(domain)

    def _reconnect_soon(self) -> None:
        if not self._closing.is_set():
            threading.Thread(target=self._reconnect, name="libvirt-reconnect", daemon=True).start()

    def _reconnect(self) -> None:
        pause_s = _RECONNECT_FIRST_S
        while not self._closing.wait(pause_s):
            try:
                self._came_back()
            except HostError:
                pause_s = min(2 * pause_s, _RECONNECT_MOST_S)
                continue
            return


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

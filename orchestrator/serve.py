"""`orc serve`: from a Config to a running Controller, and from an error to a sentence that says what to do."""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import resource
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

from orchestrator import heap
from orchestrator.config import Config
from orchestrator.controller import Controller, build_host, deployment_id, open_store, settle_public_range
from orchestrator.host import Host, HostError
from orchestrator.keys import KeyFileError
from orchestrator.store import Store, StoreError

log = logging.getLogger(__name__)

DESCRIPTORS = 65536
_PR_SET_DUMPABLE = 4  # <linux/prctl.h>
# After how long a thread that computes lets others run. Python's own 5 ms are what whoever holds the store's lock waits
# for after each statement: with a tenth of that, a third more launches a second are taken, for the same CPU time.
SWITCH_S = 0.0005
_EXTRA = ("request_id", "action", "code", "account")


class JSONLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in _EXTRA if hasattr(record, name)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def set_up_logging(config: Config) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JSONLines() if config.log_format == "json" else text)
    logging.basicConfig(level=config.log_level.upper(), handlers=[handler], force=True)
    for noisy in ("aiohttp.access", "botocore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name in ("aiohttp.server", "asyncio"):
        logging.getLogger(name).addFilter(is_our_fault)


def is_our_fault(record: logging.LogRecord) -> bool:
    """What is no HTTP is the caller's affair: it is answered, or hung up on, and not logged. Nor is a host in the
    request's target that is no name, at which yarl raises UnicodeError."""
    error = record.exc_info[1] if record.exc_info else None
    by_target = record.name == "asyncio" and isinstance(error, UnicodeError)
    return not (by_target or isinstance(error, HttpProcessingError | RequestPayloadError))


def serve(config: Config, build: Callable[[Config, str, Callable[[], str]], Host] = build_host) -> int:
    """Serve until SIGTERM or SIGINT; the process's exit code. `build` makes the host, of the configuration, the
    deployment's id and what finds the accelerator."""
    set_up_logging(config)
    keep_secrets_in_memory()
    heap.keep_small()
    sys.setswitchinterval(SWITCH_S)
    if config.host == "libvirt" and os.geteuid() != 0:
        click.echo("orc serve needs root for real machines: use sudo, or --host memory for the API alone", err=True)
        return 2
    if config.auth == "any":
        click.echo("auth = any: every credential is taken; for development on this machine only", err=True)
    try:
        store = open_store(config)
    except (StoreError, OSError) as error:
        click.echo(f"the state cannot be opened: {error}", err=True)
        return 1
    try:
        config = settle_public_range(config, store)
        host = build(config, deployment_id(store), lambda: accelerator(config, store))
    except (HostError, OSError) as error:
        click.echo(f"{error}\nRun `orc doctor` to see what is missing.", err=True)
        store.close()
        return 1
    except StoreError as error:
        click.echo(str(error), err=True)
        store.close()
        return 1
    try:
        controller = Controller(config, store, host)
        asyncio.run(controller.run(lambda endpoint: click.echo(f"orchestrator is serving on {endpoint}")))
    except KeyFileError as error:
        click.echo(f"the key store cannot be opened: {error}", err=True)
        return 1
    except OSError as error:
        click.echo(f"{config.endpoint} cannot be served: {error.strerror or error}", err=True)
        return 1
    except StoreError as error:
        click.echo(str(error), err=True)
        return 1
    finally:
        host.compute.close()
        host.network.close()
        store.close()
    if store.lost:
        click.echo(store.lost, err=True)
        return 1
    return 0


def keep_secrets_in_memory() -> None:
    """No core file of this process or of what it starts, and nobody but root may trace it: there are keys in it. And as
    many descriptors as `api.connections_per_address` and guests' consoles may need."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        log.warning("the kernel keeps this process dumpable: %s", os.strerror(ctypes.get_errno()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def accelerator(config: Config, store: Store) -> str:
    """kvm or tcg. KVM is tried by running something under it, once per boot of the host."""
    if config.accelerator != "auto":
        return config.accelerator
    from orchestrator.host.probe import boot_id, try_kvm

    boot = boot_id()
    known, _, verdict = (store.meta("accelerator") or "").partition(" ")
    if known == boot and verdict:
        return verdict
    found = try_kvm()
    if not found.works:
        click.echo(f"KVM cannot be used ({found.reason}): guests run under TCG, which is slower", err=True)
    verdict = "kvm" if found.works else "tcg"
    store.set_meta("accelerator", f"{boot} {verdict}")
    return verdict

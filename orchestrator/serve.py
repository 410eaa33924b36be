"""`orc serve`: from a Config to a running Controller, and from an error to a sentence that says what to do."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

import click
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

from orchestrator.config import Config
from orchestrator.controller import Controller, build_host, deployment_id, open_store, settle_public_range
from orchestrator.host import HostError
from orchestrator.keys import KeyFileError
from orchestrator.store import Store, StoreError

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


def serve(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; the process's exit code."""
    set_up_logging(config)
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
        host = build_host(config, deployment_id(store), lambda: accelerator(config, store))
    except (HostError, OSError) as error:
        click.echo(f"{error}\nRun `orc doctor` to see what is missing.", err=True)
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
    finally:
        host.compute.close()
        host.network.close()
        store.close()
    return 0


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

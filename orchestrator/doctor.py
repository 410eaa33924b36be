"""`orc doctor`: what is wrong with this host, why that matters, and how to mend it.

`--leaks` compares what bears this deployment's mark on the host with what the store says should be there.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import click

from orchestrator import database
from orchestrator.config import Config
from orchestrator.controller import build_host, deployment_id, open_store
from orchestrator.host import Host, HostError, ranges
from orchestrator.host.checks import check_host
from orchestrator.host.findings import Expectation, Finding, Standing
from orchestrator.host.probe import boot_id
from orchestrator.model.owned import Owned, owned
from orchestrator.model.vpc import DEFAULT_VPC_CIDR, Vpc
from orchestrator.store import StoreError

_MARKS = {Standing.OK: ("ok", "green"), Standing.WARNING: ("warn", "yellow"), Standing.FAILURE: ("FAIL", "red")}

Ask = Callable[[str], dict[str, Any]]  # an action of the service orc -> its answer


# --- the host -------------------------------------------------------------------------------------------------------


def doctor(config: Config, ask: Ask | None, *, fix: bool, yes: bool, as_json: bool) -> int:
    """Print the findings, mend what can be mended when asked to; exit code 1 when instances cannot run."""
    findings = examine(config)
    if fix and mend(findings, yes=yes):
        findings = examine(config)
    findings += _look_for_leftovers(config, ask)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            show(finding)
        if any(finding.mend for finding in findings):
            click.echo("`orc doctor --fix` runs the commands that mend, each after asking", err=True)
    return int(fails(findings))


def examine(config: Config, *, accelerator: str = "") -> list[Finding]:
    """Every finding. `accelerator` is what a trial of KVM said before; without it KVM is tried now."""
    found = _check_store(config)
    if config.host == "memory":
        text = "the in-memory host needs nothing of this one"
        return [*found, Finding(check="host", standing=Standing.OK, text=text)]
    state = recorded(config)
    expected = Expectation(
        state_dir=config.state_dir,
        public_range=_public_range(config, state),
        egress=config.network_egress == "on",
        public_bridge=config.public_bridge,
        deployment=state.deployment,
        router_ranges=state.vpc_ranges or (DEFAULT_VPC_CIDR,),
        accelerator=accelerator,
    )
    return [*found, *check_host(expected)]


def _check_store(config: Config) -> list[Finding]:
    """Whether a database at a URL can be used; a file of our own says so when it is opened."""
    if not config.store_url:
        return []
    try:
        text, risks = database.check_server(config.store_url)
    except StoreError as error:
        return [Finding(check="store", standing=Standing.FAILURE, text=str(error))]
    standing = Standing.WARNING if risks else Standing.OK
    return [Finding(check="store", standing=standing, text="; ".join([text, *risks]))]


def _public_range(config: Config, state: Recorded) -> str:
    """As configured, as chosen before, or as it would be chosen now."""
    if config.public_range != "auto":
        return config.public_range
    try:
        return state.public_range or str(ranges.choose())
    except OSError:
        return str(ranges.CANDIDATES[0])  # the check of the ranges says what it clashes with


def fails(findings: list[Finding]) -> bool:
    return any(finding.standing is Standing.FAILURE for finding in findings)


def show(finding: Finding) -> None:
    mark, colour = _MARKS[finding.standing]
    click.echo(f"{click.style(mark.ljust(5), fg=colour)} {finding.check.ljust(12)} {finding.text}")
    for command in finding.mend:
        click.echo(f"{' ' * 19}mend: {shlex.join(command)}")


def mend(findings: list[Finding], *, yes: bool) -> bool:
    """Run the commands that mend, each after asking unless `yes` (or CI); whether any was run."""
    yes = yes or bool(os.environ.get("CI"))
    ran = False
    for finding in findings:
        if finding.mend and not yes:
            click.echo(f"{finding.check}: {finding.text}", err=True)
        for command in finding.mend:
            line = shlex.join(command)
            if not yes and not _confirm(f"Run {line}?"):
                break
            click.echo(f"running {line}", err=True)
            ran = True
            code = _run(command)
            if code:
                click.echo(f"{command[0]} ended with {code}; what comes after it is left out", err=True)
                break
    return ran


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        click.echo(f"{question} Nobody is there to ask: run again with --yes", err=True)
        return False
    return click.confirm(question, err=True)


def _run(command: tuple[str, ...]) -> int:
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    whole = command if os.geteuid() == 0 else ("sudo", *command)
    try:
        return subprocess.run(whole, check=False, env=environment, stdout=2).returncode
    except OSError:
        return 127


def _look_for_leftovers(config: Config, ask: Ask | None) -> list[Finding]:
    if config.host == "memory" or os.geteuid() != 0 or not state_exists(config):
        return []
    try:
        found = find_leaks(config, ask)
    except (StoreError, HostError, OSError) as error:
        text = f"leftovers cannot be looked for: {error}"
        return [Finding(check="leftovers", standing=Standing.WARNING, text=text)]
    if not found:
        return [Finding(check="leftovers", standing=Standing.OK, text="nothing is left over")]
    some = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
    text = f"{len(found)} left over ({some}): `orc doctor --leaks` lists them, with --fix it removes them"
    return [Finding(check="leftovers", standing=Standing.WARNING, text=text)]


# --- what the state says, without its lock --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is read of a store whose lock a running controller may hold; empty where there is none yet."""

    deployment: str = ""
    accelerator: str = ""  # as tried since this host booted
    vpc_ranges: tuple[str, ...] = ()
    public_range: str = ""  # as chosen at the first start


def recorded(config: Config) -> Recorded:
    if not state_exists(config):
        return Recorded()
    try:
        with database.reading(config.state_dir / database.FILE, config.store_url) as rows:
            meta = {row[0]: row[1] for row in rows.table("meta")}
            documents = rows.documents(Vpc.KIND)
    except StoreError:
        return Recorded()  # opening it for real will say what is wrong with it
    boot, _, verdict = meta.get("accelerator", "").partition(" ")
    vpc_ranges = {json.loads(document)["cidr"] for document in documents}
    return Recorded(
        deployment=meta.get("deployment", ""),
        accelerator=verdict if boot == boot_id() else "",
        vpc_ranges=tuple(sorted(vpc_ranges)),
        public_range=meta.get("public_range", ""),
    )


def recorded_accelerator(config: Config) -> str:
    """What was found since this host booted, or what is configured; empty when nobody has tried."""
    return config.accelerator if config.accelerator != "auto" else recorded(config).accelerator


def state_exists(config: Config) -> bool:
    return database.exists(config.state_dir, config.store_url)


# --- leaks ----------------------------------------------------------------------------------------------------------


def leaks(config: Config, ask: Ask | None, *, fix: bool, as_json: bool) -> int:
    """List leftovers, and remove them with `fix`; exit code 1 when some are left.

    `ask` is a running controller's API; without it the store is opened. Where there is no state nothing is made.
    """
    found: list[str] = []
    if state_exists(config) and config.host != "memory":
        try:
            with _leftovers(config, ask) as left:
                found = left.lines()
                if found and fix:
                    left.remove()
                    removed, found = found, left.lines()
                    for line in removed:
                        if line not in found:
                            click.echo(f"removed {line}", err=True)
        except (StoreError, HostError, OSError) as error:
            click.echo(f"leftovers cannot be looked for: {error}", err=True)
            return 1
    if as_json:
        click.echo(json.dumps(found))
    else:
        for line in found:
            click.echo(line)
        if not found:
            click.echo("nothing is left over", err=True)
    return int(bool(found))


def find_leaks(config: Config, ask: Ask | None) -> list[str]:
    """A line for each. Raises StoreError, HostError or OSError when it cannot be known."""
    with _leftovers(config, ask) as left:
        return left.lines()


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What bears a deployment's mark on `host` and is not among what `rightful` answers at that moment."""

    host: Host
    rightful: Callable[[], Owned]

    def lines(self) -> list[str]:
        """A line for each. What comes or goes while we look is asked about again, before anybody calls it a leak."""
        first = self._against(self.rightful())
        return [line for line in self._against(self.rightful()) if line in first] if first else []

    def _against(self, right: Owned) -> list[str]:
        machines = sorted(set(self.host.compute.names()) - right.machines)
        layers = sorted(set(self.host.storage.layers()) - right.layers)
        network = self.host.network.leaks(set(right.routers), set(right.ports))
        return [*(f"machine {name}" for name in machines), *(f"layer {name}" for name in layers), *network]

    def remove(self) -> None:
        certain = set(self.lines())
        for name in self.host.compute.names():
            if f"machine {name}" in certain:
                self.host.compute.remove(name)
                self.host.compute.forget(name)
        for name in self.host.storage.layers():
            if f"layer {name}" in certain:
                self.host.storage.remove_layer(name)
                self.host.storage.remove_kernel(name)
        right = self.rightful()
        self.host.network.remove_leaks(set(right.routers), set(right.ports))


@contextmanager
def _leftovers(config: Config, ask: Ask | None) -> Iterator[Leftovers]:
    if ask is None:
        with closing(open_store(config)) as store, _host_to_look_at(config, deployment_id(store)) as host:
            yield Leftovers(host, lambda: owned(store))
    else:
        with _host_to_look_at(config, recorded(config).deployment) as host:
            yield Leftovers(host, lambda: owned_by_answer(ask("DescribeOwned")))


@contextmanager
def _host_to_look_at(config: Config, deployment: str) -> Iterator[Host]:
    config = replace(config, public_range=_public_range(config, recorded(config)))
    host = build_host(config, deployment, lambda: "tcg")
    try:
        yield host
    finally:
        host.compute.close()
        host.network.close()


def owned_by_answer(answer: dict[str, Any]) -> Owned:
    """What a running controller says should be there."""
    names = answer["Owned"]
    return Owned(*(frozenset(names.get(name) or ()) for name in ("Machines", "Layers", "Routers", "Ports")))

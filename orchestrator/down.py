"""`orc down`: ends everything of a deployment, and looks that nothing of it stays on the host.

instances -> leftovers -> controller -> (with --purge) the state: its directory, its tables on a server

What says that a directory is a state directory goes last, so that a purge which was cut off can be run again.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from orchestrator import database, doctor
from orchestrator.background import Background, BackgroundError
from orchestrator.config import Config
from orchestrator.controller import open_store, run_directory
from orchestrator.host import HostError
from orchestrator.model.instance import Instance
from orchestrator.model.lifecycle import State
from orchestrator.progress import Progress
from orchestrator.quickstart import Api, Connect, connector, instances
from orchestrator.store import StoreError

TERMINATE_DEADLINE_S = 300.0
LEAKS_DEADLINE_S = 30.0
_POLL_S = 0.25
_ALIVE = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped", "shutting-down"]}]


class DownError(click.ClickException):
    """What could not be ended, and what to do next."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How far `orc down` goes."""

    yes: bool = False
    keep_controller: bool = False
    purge: bool = False


class Down:
    def __init__(self, config: Config, extent: Extent, connect: Connect, progress: Progress) -> None:
        self.config = config
        self.extent = extent
        self.progress = progress
        self.background = Background(config)
        self._connect = connect

    def run(self) -> int:
        if not doctor.state_exists(self.config) and self.background.pid() is None:
            self._check_store_is_named()
            self.progress.say(f"There is nothing in {self.config.state_dir} to end.")
            return 0
        if self.config.host != "memory" and os.geteuid() != 0:
            raise DownError("virtual machines need root: run it with sudo")
        api = self._api_if_needed()
        if api is not None:
            self._terminate_all(api)
        if self.config.host != "memory":
            self._look_for_leftovers(api)
        if not self.extent.keep_controller:
            with self.progress.step("controller", "ending") as say:
                try:
                    say("ended" if self.background.stop() else "none was running")
                except (BackgroundError, OSError) as error:
                    raise DownError(str(error)) from error
            self._clear_run_directory()
        if self.extent.purge:
            self._purge()
        return 0

    def _api_if_needed(self) -> Api | None:
        """The API of the controller; one is started when none runs and instances are there to be ended."""
        if self.background.pid() is None:
            try:
                with closing(open_store(self.config)) as store:
                    alive = [i for i in store.all(Instance) if i.state != State.TERMINATED]
            except StoreError as error:
                if self.extent.purge and self._nothing_but_mark():
                    return None
                again = (
                    "\nNothing was ended or removed. Run it again once the server answers"
                    if self.config.store_url
                    else ""
                )
                raise DownError(f"the state cannot be opened: {error}{again}") from error
            if not alive:
                return None
        with self.progress.step("controller", "looking") as say:
            if not self.background.answers():
                say(f"waiting for it; its log is {self.background.where_log()}")
                try:
                    self.background.start()
                except (BackgroundError, OSError) as error:
                    raise DownError(str(error)) from error
            say("answers")
        return self._connect("")

    def _terminate_all(self, api: Api) -> None:
        alive: dict[str, list[dict[str, Any]]] = {}
        for region in api.call("ec2", "DescribeRegions")["Regions"]:
            name = region["RegionName"]
            found = instances(self._connect(name), Filters=_ALIVE)
            if found:
                alive[name] = found
        ids = [instance["InstanceId"] for found in alive.values() for instance in found]
        with self.progress.step("instances", "looking") as say:
            if not ids:
                say("none is there")
                return
            names = ", ".join(_title(instance) for found in alive.values() for instance in found)
            say(f"{len(ids)} to be terminated: {names}")
        if not self._confirm(f"Terminate {len(ids)} instances and lose what is on their disks?"):
            raise DownError("nothing was ended")
        with self.progress.step("instances", "terminating") as say:
            for region, found in alive.items():
                there = self._connect(region)
                asked = [instance["InstanceId"] for instance in found]
                try:
                    there.call("ec2", "TerminateInstances", InstanceIds=asked)
                except click.ClickException as error:
                    raise DownError(
                        f"{error.message}\nProtection is lifted with: aws --region {region} ec2 "
                        "modify-instance-attribute --no-disable-api-termination --instance-id ID"
                    ) from error
            deadline = time.monotonic() + TERMINATE_DEADLINE_S
            while left := [i for region in alive for i in instances(self._connect(region), Filters=_ALIVE)]:
                if time.monotonic() > deadline:
                    titles = ", ".join(_title(instance) for instance in left)
                    raise DownError(
                        f"{titles} did not end in {TERMINATE_DEADLINE_S:g} s; see {self.background.where_log()}"
                    )
                say(f"{len(ids) - len(left)} of {len(ids)} are terminated")
                time.sleep(_POLL_S)
            say(f"{len(ids)} terminated")

    def _look_for_leftovers(self, api: Api | None) -> None:
        """What the reconcilers still have in hand goes by itself; whatever stays is a leak."""
        ask = None if api is None else lambda action: api.call("orc", action)
        with self.progress.step("leftovers", "looking") as say:
            deadline = time.monotonic() + LEAKS_DEADLINE_S
            while True:
                try:
                    found = doctor.find_leaks(self.config, ask)
                except (StoreError, HostError, OSError) as error:
                    say(f"cannot be looked for: {error}")
                    return
                if not found:
                    break
                if time.monotonic() > deadline:
                    raise DownError(f"left over on the host: {', '.join(found)}\n`orc doctor --leaks --fix` removes it")
                say(f"{len(found)} are still going")
                time.sleep(_POLL_S)
            others = api.call("orc", "DescribeOwned")["Owned"].get("Machines") if api is not None else None
            if others:
                raise DownError(
                    f"instances of other accounts still run: {', '.join(others)}; terminate them with their own keys"
                )
            say("none")

    def _clear_run_directory(self) -> None:
        """Of what the controller and the doctor made there nothing is left but empty directories."""
        deployment = doctor.recorded(self.config).deployment
        if deployment and self.config.host != "memory":
            for place, _, _ in os.walk(run_directory(deployment), topdown=False):
                with suppress(OSError):
                    os.rmdir(place)

    def _purge(self) -> None:
        """Only what is known to be a state directory is removed, and only once nobody uses it."""
        directory = self.config.state_dir.absolute()
        if self.background.pid() is not None:
            raise DownError(f"a controller still uses {directory}: leave --keep-controller out to purge")
        url = self.config.store_url
        if not database.exists(directory, url) or directory.is_symlink():
            wanted = database.MARK if url else database.FILE
            raise DownError(f"{directory} does not look like a state directory (no {wanted}); left alone")
        tables = f", and what the controller has in {database.shown(url)}" if url else ""
        if not self._confirm(f"Remove {directory} with all images, volumes and credentials in it{tables}?"):
            raise DownError(f"{directory} is left as it is")
        with self.progress.step("state", f"removing {directory}") as say:
            try:
                with database.removing(directory, url, may_be_gone=self._nothing_but_mark()):
                    _empty(directory, but=_last_files(url))
            except StoreError as error:
                raise DownError(f"{error}\n{directory} is not removed: run it again once that is mended") from error
            shutil.rmtree(directory)
            left = f", and its tables in {database.shown(url)}; the database itself is left" if url else ""
            say(f"{directory} is removed{left}")

    def _nothing_but_mark(self) -> bool:
        """Whether all that is left of the state directory is what goes last."""
        directory, last = self.config.state_dir, _last_files(self.config.store_url)
        return directory.is_dir() and {path.name for path in directory.iterdir()} <= last

    def _check_store_is_named(self) -> None:
        """What is in the state directory may be a store of the other sort."""
        url, directory = self.config.store_url, self.config.state_dir
        if url and database.exists(directory):
            raise DownError(f"{directory} has a store of its own ({database.FILE}): leave store.url out")
        if not url and (directory / database.MARK).is_file():
            raise DownError(f"the state of {directory} is in a PostgreSQL database: set store.url")

    def _confirm(self, question: str) -> bool:
        if self.extent.yes or os.environ.get("CI"):
            return True
        if not sys.stdin.isatty():
            raise DownError(f"{question} Nobody is there to ask: run again with --yes")
        return click.confirm(question)


def _last_files(url: str) -> frozenset[str]:
    """What says that a directory is a state directory, and what comes with opening it."""
    lock = str(Path(database.FILE).with_suffix(".lock"))
    return frozenset({lock, database.MARK} if url else {lock, *(database.FILE + end for end in ("", "-wal", "-shm"))})


def _empty(directory: Path, *, but: frozenset[str]) -> None:
    for path in directory.iterdir():
        if path.name in but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _title(instance: dict[str, Any]) -> str:
    name = next((tag["Value"] for tag in instance.get("Tags", []) if tag["Key"] == "Name"), "")
    return f"{instance['InstanceId']} ({name})" if name else str(instance["InstanceId"])


def down(config: Config, extent: Extent) -> int:
    return Down(config, extent, connector(config), Progress(Console(highlight=False))).run()

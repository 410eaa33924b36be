"""What a bake leaves that ended before it could clean up (kill -9, a power cut, a controller that had gone), and its
removal by the next bake of the pipeline.

    a run        its log, DATA_DIR/bakes/NAME-TIME-PID.log, which it holds locked as long as it lives
    its things   key pair, builder, tester, untried image: all have the run's name as the tag `orc:bake-run`

Only a run whose log is here and not locked is known to have ended. What a bake on another machine makes is left alone.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import click

from orchestrator.cli.client import APIError, Client, NotFound
from orchestrator.cli.launch import BAKE_TAG
from orchestrator.cli.output import note
from orchestrator.cli.session import data_dir, key_file, known_hosts_file

RUN_TAG = "orc:bake-run"
_RUNS_LOOKED_AT = 200  # the newest; a filter takes no more values


def _folder() -> Path:
    return data_dir() / "bakes"


@dataclass(slots=True)
class Run:
    log: IO[str]
    left: bool = False  # something that it has made is still there

    @property
    def id(self) -> str:
        return Path(self.log.name).stem


@contextmanager
def begin_run(pipeline: str) -> Iterator[Run]:
    """With a file for what the steps say. It goes when all has gone well; otherwise something may be left, which is
    known by it (an answer that did not arrive may have been to a launch), and an error says where it is."""
    _folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    path = _folder() / f"{pipeline}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}.log"
    with path.open("x", encoding="utf-8") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        run = Run(log)
        try:
            yield run
        except click.ClickException:
            note(f"the log is {path}")
            raise
        if run.left:
            note(f"{pipeline}: what is left of this bake goes with the next one")
            return
    path.unlink()


def _ended_runs(pipeline: str) -> list[str]:
    """Newest first. Those of pipelines with a longer name may be among them."""
    ended = []
    for path in sorted(_folder().glob(f"{pipeline}-*.log"), key=lambda path: path.stem[-30:], reverse=True):
        try:
            with path.open() as log:
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            continue  # it lives, or it has just gone
        ended.append(path.stem)
    return ended[:_RUNS_LOOKED_AT]


def remove_leftovers(client: Client, pipeline: str) -> bool:
    """Take away what ended runs of a pipeline have left; whether there are such runs."""
    runs = _ended_runs(pipeline)
    if not runs:
        return False
    theirs = [{"Name": f"tag:{RUN_TAG}", "Values": runs}]
    for reservation in client.pages("DescribeInstances", "Reservations", Filters=theirs):
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] not in ("shutting-down", "terminated"):
                _remove(
                    client, pipeline, instance["InstanceId"], "TerminateInstances", InstanceIds=[instance["InstanceId"]]
                )
            known_hosts_file(instance["InstanceId"]).unlink(missing_ok=True)
    failed = [{"Name": f"tag:{BAKE_TAG}", "Values": [pipeline]}, {"Name": "state", "Values": ["failed"]}]
    for filters in (theirs, failed):
        for image in client.pages("DescribeImages", "Images", Owners=["self"], Filters=filters):
            image_id = image["ImageId"]
            _remove(client, pipeline, image_id, "DeregisterImage", ImageId=image_id, DeleteAssociatedSnapshots=True)
    for pair in client.ec2("DescribeKeyPairs", Filters=theirs)["KeyPairs"]:
        key_file(pair["KeyName"]).unlink(missing_ok=True)
        _remove(client, pipeline, pair["KeyName"], "DeleteKeyPair", KeyName=pair["KeyName"])
    return True


def _remove(client: Client, pipeline: str, what: str, action: str, **parameters: Any) -> None:
    note(f"{pipeline}: {what}, which a bake has left, goes")
    try:
        client.ec2(action, **parameters)
    except (APIError, NotFound) as error:
        if not getattr(error, "code", "").endswith((".NotFound", ".Unavailable")):
            raise

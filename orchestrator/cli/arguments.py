"""Arguments that several commands take: the client, instances by name, tags as KEY=VALUE, and shell completion."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import click

from orchestrator.cli.client import ALIVE, Client, escape
from orchestrator.cli.output import name_of
from orchestrator.cli.session import session_of

COMPLETION_TIMEOUT_S = 1.0
COMPLETION_LIMIT = 200


def with_client(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command a Client as its first argument."""

    def invoke(*arguments: Any, **options: Any) -> Any:
        return command(session_of(click.get_current_context()).connect(), *arguments, **options)

    return update_wrapper(invoke, command)


def complete_instance(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names and ids of living instances. A shell waits for it, so it asks once, briefly, and never complains."""
    try:
        client = Client(session_of(context).resolve(), timeout_s=COMPLETION_TIMEOUT_S)
        by_id = incomplete.startswith("i-")
        filters = [("instance-state-name", list(ALIVE))]
        if incomplete:
            filters.append(("instance-id" if by_id else "tag:Name", [escape(incomplete) + "*"]))
        answer = client.ec2(
            "DescribeInstances",
            MaxResults=COMPLETION_LIMIT,
            Filters=[{"Name": name, "Values": values} for name, values in filters],
        )
    except (click.ClickException, OSError):
        return []
    found = [one for reservation in answer["Reservations"] for one in reservation.get("Instances", [])]
    names = [] if by_id else [name_of(one) for one in found]
    ids = [one["InstanceId"] for one in found if by_id or not incomplete]
    return sorted({name for name in names if name and " " not in name}) + ids


def instance_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("instance", metavar="INSTANCE", shell_complete=complete_instance)(command)


def instances_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument(
        "instances", metavar="INSTANCE...", nargs=-1, required=True, shell_complete=complete_instance
    )(command)


def timeout_option(default_s: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--timeout",
        "timeout_s",
        metavar="SECONDS",
        type=click.FloatRange(min=0),
        default=default_s,
        show_default=True,
        help="how long to wait",
    )


def read_tag(word: str) -> dict[str, str]:
    """KEY=VALUE; the value may be empty."""
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise click.UsageError(f"'{word}' is no tag: expected KEY=VALUE")
    return {"Key": key, "Value": value}


def read_filter(word: str) -> tuple[str, list[str]]:
    """NAME=VALUE[,VALUE...], EC2's name of a filter."""
    name, equals, values = word.partition("=")
    if not equals or not name or not values:
        raise click.UsageError(f"'{word}' is no filter: expected NAME=VALUE[,VALUE...], for example tag:stage=test")
    return name, values.split(",")


def filters_of(words: tuple[str, ...]) -> list[dict[str, Any]]:
    """As the Describe calls take them."""
    return [{"Name": name, "Values": values} for name, values in map(read_filter, words)]


filter_option = click.option(
    "--filter",
    "filter_words",
    metavar="NAME=VALUE[,VALUE...]",
    multiple=True,
    help="only those that match, by EC2's filter names; several must all match",
)

"""What is printed: tables for people, documents for programs.

A listing is a list of EC2's own documents and a list of columns over them. `table` shows the main columns, `wide` all
of them; `json` and `yaml` print the documents as they came, so nothing that a column leaves out is lost.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click

Document = dict[str, Any]

FORMATS = ("table", "wide", "json", "yaml")
NOTHING = "-"

_COLOURS = {
    **dict.fromkeys(("running", "available", "ok", "in-use", "completed", "active"), "green"),
    **dict.fromkeys(("pending", "stopping", "shutting-down", "initializing", "creating"), "yellow"),
    **dict.fromkeys(("terminated", "failed", "impaired", "error"), "red"),
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Column:
    """`cell` gives a row's value; None and empty are shown as a dash. A `wide` column is left out of `table`."""

    title: str
    cell: Callable[[Document], Any]
    wide: bool = False
    coloured: bool = False


def output_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`-o table|wide|json|yaml`, as the parameter `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        help="tables for people, documents for programs  [default: table]",
    )(command)


def print_listing(rows: Sequence[Document], columns: Iterable[Column], output: str, *, nothing: str = "") -> None:
    """Print a listing; `nothing` is said, beside the output, when a table would be empty."""
    if output in ("json", "yaml"):
        print_document(list(rows), output)
        return
    if not rows:
        if nothing:
            click.echo(nothing, err=True)
        return
    shown = [column for column in columns if output == "wide" or not column.wide]
    cells = [[text(column.cell(row)) for column in shown] for row in rows]
    print_table([column.title for column in shown], cells, shown)


def print_table(titles: Sequence[str], cells: Sequence[Sequence[str]], columns: Sequence[Column] = ()) -> None:
    widths = [max(len(title), *(len(row[at]) for row in cells)) for at, title in enumerate(titles)]
    click.echo("  ".join(title.ljust(width) for title, width in zip(titles, widths, strict=True)).rstrip())
    coloured = [bool(columns) and columns[at].coloured for at in range(len(titles))]
    for row in cells:
        line = "  ".join(
            click.style(cell.ljust(width), fg=_COLOURS.get(cell)) if colour else cell.ljust(width)
            for cell, width, colour in zip(row, widths, coloured, strict=True)
        )
        click.echo(line.rstrip())


def print_document(document: Any, output: str) -> None:
    """As JSON or YAML."""
    if output == "json":
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    import yaml

    click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=False).rstrip("\n"))


def print_facts(facts: Iterable[tuple[str, Any]], *, indent: int = 0) -> None:
    """Name and value, line by line; what has no value is left out."""
    shown = [(name, value) for name, value in facts if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        click.echo(f"{' ' * indent}{name.ljust(width)}  {text(value)}")


def text(value: Any) -> str:
    """A value in a cell. Names and tags are anybody's words: what steers a terminal is taken out of them."""
    if value is None or value == "" or value == []:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(text(item) for item in value)
    return _CONTROL.sub("?", str(value))


def tags(document: Document) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in document.get("Tags", [])}


def name_of(document: Document) -> str:
    return tags(document).get("Name", "")


def all_tags(document: Document) -> str:
    return ",".join(f"{key}={value}" for key, value in tags(document).items())


def moment(stamp: str) -> datetime | None:
    """A time of the API's."""
    try:
        return datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    except ValueError:
        return None


def age(stamp: str | None, now: datetime | None = None) -> str:
    """How long ago, in its largest unit: 42s, 17m, 5h, 12d."""
    at = moment(stamp or "")
    if at is None:
        return ""
    return duration(max(0.0, ((now or datetime.now(UTC)) - at).total_seconds()))


def duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def note(words: str) -> None:
    """Said to whoever watches; never part of the output."""
    click.echo(words, err=True)


def on_terminal() -> bool:
    return sys.stderr.isatty()

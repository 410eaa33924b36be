"""Composition root: the `orc` command. Client commands speak the HTTP API; these put the rooms together themselves.

What only `serve`, `doctor`, `quickstart` and `down` need is imported when they run, so that `orc ls` starts at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from orchestrator import __version__
from orchestrator.cli import cli
from orchestrator.cli.session import Session
from orchestrator.config import KEYS, Config, ConfigError, load


def _with_keys(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for every configuration key."""
    for key in reversed(KEYS):
        if key.allowed:
            kind: Any = click.Choice(key.allowed)
        elif isinstance(key.default, bool):
            kind = click.BOOL
        else:
            kind = str
        option = click.option(key.flag, key.attribute, type=kind, default=None, help=key.about)
        command = option(command)
    return command


def _load(context: click.Context, flags: dict[str, Any]) -> tuple[Config, dict[str, str]]:
    named = context.find_root().params.get("config_file")
    try:
        return load(flags, file=Path(named) if named else None)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


@cli.command()
@_with_keys
@click.pass_context
def serve(context: click.Context, /, **flags: Any) -> None:
    """Run the controller."""
    from orchestrator.serve import serve as run

    config, _ = _load(context, flags)
    context.exit(run(config))


@cli.command("config")
@_with_keys
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="for people or programs")
@click.pass_context
def show_config(context: click.Context, /, output: str, **flags: Any) -> None:
    """Show every key, its effective value, and where it came from."""
    config, sources = _load(context, flags)
    rows = [(key.name, str(getattr(config, key.attribute)), sources[key.attribute], key.about) for key in KEYS]
    if output == "json":
        import json

        document = {name: {"value": value, "source": source, "about": about} for name, value, source, about in rows}
        click.echo(json.dumps(document, indent=1))
        return
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())


@cli.command()
@click.option("--fix", is_flag=True, help="run the commands that mend, each after asking")
@click.option("--yes", "-y", is_flag=True, help="with --fix, do not ask")
@click.option("--leaks", is_flag=True, help="list what is on the host and belongs to nobody; --fix removes it")
@click.option("--json", "as_json", is_flag=True, help="for programs")
@_with_keys
@click.pass_context
def doctor(context: click.Context, /, fix: bool, yes: bool, leaks: bool, as_json: bool, **flags: Any) -> None:
    """Check this host, and explain what is wrong and how it is mended."""
    from orchestrator import doctor as rooms
    from orchestrator.quickstart import asker

    config, _ = _load(context, flags)
    if leaks:
        context.exit(rooms.leaks(config, asker(config), fix=fix, as_json=as_json))
    context.exit(rooms.doctor(config, asker(config), fix=fix, yes=yes, as_json=as_json))


@cli.command()
@click.option("--yes", "-y", is_flag=True, help="mend the host without asking")
@click.option("--image", default="debian-12", show_default=True, help="the image to run; built when it is not there")
@click.option("--type", "instance_type", default="t3.micro", show_default=True, help="the instance type")
@click.option("--name", default="quickstart", show_default=True, help="of the instance, its key pair and its group")
@_with_keys
@click.pass_context
def quickstart(context: click.Context, /, yes: bool, image: str, instance_type: str, name: str, **flags: Any) -> None:
    """From this host to a login: controller, image, instance, ssh. Run again, it makes only what is missing."""
    from orchestrator import quickstart as rooms

    config, _ = _load(context, flags)
    wanted = rooms.Wanted(image=image, type=instance_type, name=name, yes=yes)
    context.exit(_interruptible(lambda: rooms.quickstart(config, wanted), "orc quickstart"))


@cli.command()
@click.option("--yes", "-y", is_flag=True, help="do not ask")
@click.option("--keep-controller", is_flag=True, help="let the controller run on")
@click.option("--purge", is_flag=True, help="also remove the state directory: images, volumes, credentials")
@_with_keys
@click.pass_context
def down(context: click.Context, /, yes: bool, keep_controller: bool, purge: bool, **flags: Any) -> None:
    """Terminate all instances, see that nothing is left over, and end the controller."""
    from orchestrator import down as rooms

    if keep_controller and purge:
        raise click.UsageError("--purge removes what the controller runs on: leave --keep-controller out")
    config, _ = _load(context, flags)
    extent = rooms.Extent(yes=yes, keep_controller=keep_controller, purge=purge)
    context.exit(_interruptible(lambda: rooms.down(config, extent), "orc down"))


def _interruptible(run: Callable[[], int], command: str) -> int:
    """130 after Ctrl-C, as shells have it."""
    try:
        return run()
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"\ninterrupted; `{command}` goes on from here", err=True)
        return 130


def session(config_file: str | None) -> Session:
    """What client commands are handed: where the credentials are, and nothing else of the configuration."""
    config, _ = load(file=Path(config_file) if config_file else None)
    return Session(credentials_path=config.state_dir / "credentials.json", version=__version__)


def main() -> None:
    cli(prog_name="orc", obj=session)


if __name__ == "__main__":
    main()

"""Composition root: the `orc` command. Client commands speak the HTTP API; these put the rooms together themselves.

What only `serve`, `doctor`, `quickstart` and `down` need is imported when they run, so that `orc ls` starts at once.
"""

from __future__ import annotations

import os
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
    rows = [(key.name, key.shown(getattr(config, key.attribute)), sources[key.attribute], key.about) for key in KEYS]
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
@click.option("--purge", is_flag=True, help="also remove the state: images, volumes, credentials")
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


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--layers", is_flag=True, help="with the disks; the controller and the instances must be stopped")
@click.option("--no-keys", is_flag=True, help="without the master key, which is then to be kept elsewhere")
@_with_keys
@click.pass_context
def backup(context: click.Context, /, file: Path, layers: bool, no_keys: bool, **flags: Any) -> None:
    """Write the deployment's state to FILE, while the controller runs.

    FILE has the store, the audit log and the master key: keep it as you keep those. Without --layers, the disks are
    only referred to.
    """
    from orchestrator import backup as rooms

    config, _ = _load(context, flags)
    try:
        made = rooms.backup(config, file, layers=layers, keys=not no_keys)
    except rooms.BackupError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{file}: {made.resources} resources, {made.events} events, {made.layers} layers, {made.bytes} bytes")
    _mention(made.referred, "not in it: copy STATE_DIR/layers too, or use --layers")


@cli.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_with_keys
@click.pass_context
def restore(context: click.Context, /, file: Path, **flags: Any) -> None:
    """Make the state directory, which must be empty, of the backup in FILE: all of it or nothing."""
    from orchestrator import backup as rooms

    config, _ = _load(context, flags)
    owner = None
    if config.host == "libvirt" and os.geteuid() == 0:
        from orchestrator.host import HostError
        from orchestrator.host.libvirt import qemu_owner

        try:
            owner = qemu_owner(config.libvirt_uri)
        except HostError as error:
            raise click.ClickException(str(error)) from error
    try:
        made = rooms.restore(config, file, owner)
    except rooms.BackupError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{config.state_dir}: {made.resources} resources, {made.events} events, {made.layers} layers")
    _mention(made.referred, f"not in the backup: copy them to {config.state_dir / 'layers'} before `orc serve`")


def _mention(layers: tuple[str, ...], about: str) -> None:
    if layers:
        click.echo(f"{len(layers)} layers are {about}", err=True)


@cli.group()
def audit() -> None:
    """Read and verify the log of every call."""


@audit.command("verify")
@click.option(
    "--also", multiple=True, type=click.Path(path_type=Path, exists=True), help="a folder with older segments"
)
@click.option("--head", "heads", multiple=True, metavar="NUMBER:HASH", help="what an earlier verify or the log printed")
@_with_keys
@click.pass_context
def verify_audit(context: click.Context, /, also: tuple[Path, ...], heads: tuple[str, ...], **flags: Any) -> None:
    """Find any change, gap or other order in the audit log; prints its head, for --head of another time."""
    from orchestrator import trail
    from orchestrator.model.audit import parse_head
    from orchestrator.store import StoreError

    config, _ = _load(context, flags)
    try:
        known = [parse_head(head) for head in heads]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        verifier = trail.verify(config.state_dir, *also, url=config.store_url, known=known)
    except (StoreError, OSError) as error:
        raise click.ClickException(f"the audit log of {config.state_dir} cannot be read: {error}") from error
    for problem in verifier.problems:
        click.echo(problem, err=True)
    click.echo(f"{verifier.head.number} events, head {verifier.head}")
    if verifier.problems:
        raise click.ClickException("the audit log is not as it was written")


@audit.command("ls")
@click.option("--event", help="only calls of this action, such as RunInstances")
@click.option("--user", help="only callers whose ARN contains this")
@click.option("--account", help="only what this account sees")
@click.option("--access-key", help="only calls with this access key")
@click.option("--source", help="only calls from this address")
@click.option("--error", is_flag=True, help="only calls that were refused or failed")
@click.option("--write", is_flag=True, help="only calls that change something")
@click.option("--since", type=click.DateTime(), help="not before this time, in UTC")
@click.option("--until", type=click.DateTime(), help="not after this time, in UTC")
@click.option("-n", "--last", default=50, show_default=True, help="so many, the newest; 0: all")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", help="for people or programs")
@_with_keys
@click.pass_context
def list_audit(context: click.Context, /, last: int, output: str, **flags: Any) -> None:
    """List calls of all accounts, oldest first."""
    from orchestrator import trail
    from orchestrator.store import StoreError

    names = ("event", "user", "account", "access_key", "source", "error", "write", "since", "until")
    wanted = trail.Wanted(**{name: flags.pop(name) for name in names})
    config, _ = _load(context, flags)
    try:
        found = trail.select(config.state_dir, wanted, last, config.store_url)
    except (StoreError, OSError) as error:
        raise click.ClickException(f"the audit log of {config.state_dir} cannot be read: {error}") from error
    for event in found:
        click.echo(trail.as_json(event) if output == "json" else trail.as_line(event))


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--remove", is_flag=True, help="protect the master key by its file's mode alone")
@_with_keys
@click.pass_context
def passphrase(context: click.Context, /, file: Path | None, remove: bool, **flags: Any) -> None:
    """Have the passphrase in FILE protect the master key from now on.

    The one that protects it until now, if any does, is read from keys.passphrase_file. A controller that runs goes on;
    before it starts again, keys.passphrase_file must name FILE (or nothing, after --remove).
    """
    from orchestrator.controller import passphrase_file
    from orchestrator.keys import KeyFileError, change_passphrase

    if (file is None) == (not remove):
        raise click.UsageError("name the FILE that has the new passphrase, or say --remove")
    config, _ = _load(context, flags)
    try:
        change_passphrase(config.state_dir / "keys", passphrase_file(config), file)
    except (KeyFileError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if file is None:
        click.echo("no passphrase protects the master key now: take keys.passphrase_file out of the configuration")
    else:
        click.echo(f"protected: set keys.passphrase_file to {file.resolve()}")


cli.extend("key-store", passphrase)


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

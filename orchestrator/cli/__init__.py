"""The `orc` client commands. They speak only the HTTP API; `__main__` adds those that put a controller together.

A command's module is imported when the command runs (or is asked for its help), so `orc ls` loads click, the client and
itself. Exit codes: 0 done; 1 the API refused; 2 wrong usage; 3 not found; 4 waited too long; 5 no controller or no
credentials; 130 interrupted.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from orchestrator.cli.session import EXIT_INTERRUPTED

# Command -> the module that has it, and the line that `orc --help` shows, which would otherwise import them all.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("launch:run", "Launch instances."),
    "ls": ("instances:ls", "List instances."),
    "show": ("instances:show", "Show all about one instance, and the timeline of its launch."),
    "ssh": ("guest:ssh", "Log into an instance."),
    "exec": ("guest:exec_", "Run a command in an instance."),
    "cp": ("copy:cp", "Copy files from and to an instance."),
    "tunnel": ("guest:tunnel", "Connect standard input and output to a port of an instance."),
    "console": ("console:console", "Talk to an instance's serial console."),
    "logs": ("console:logs", "Print what an instance wrote to its console."),
    "screenshot": ("console:screenshot", "Take a picture of an instance's screen."),
    "start": ("power:start", "Start stopped instances."),
    "stop": ("power:stop", "Stop instances; their volumes stay."),
    "reboot": ("power:reboot", "Reboot instances."),
    "terminate": ("power:terminate", "End instances for good."),
    "wait": ("power:wait", "Wait until instances are in a state."),
    "image": ("images:image", "Images: list, build, create, import, copy, share, map, remove."),
    "bake": ("bake:bake", "Bake an image of a recipe: launch, provision, try, name."),
    "key": ("keys:key", "Key pairs, and where their private halves are kept."),
    "key-store": ("key_store:key_store", "Keys that encrypt volumes."),
    "tag": ("tags:tag", "Tags of any resource."),
    "type": ("types:type_", "Instance types."),
    "group": ("groups:group", "Security groups and their rules."),
    "sg": ("groups:sg", "The same as group."),
    "vpc": ("networks:vpc", "VPCs: list, draw, and what the host is told of them."),
    "subnet": ("networks:subnet", "Subnets."),
    "rtb": ("interfaces:rtb", "Route tables."),
    "eni": ("interfaces:eni", "Network interfaces."),
    "eip": ("interfaces:eip", "Elastic IPs."),
    "trace": ("trace:trace", "Tell why a packet would pass, or not."),
    "volume": ("volumes:volume", "Volumes: list, create, attach, detach, modify, remove."),
    "snapshot": ("snapshots:snapshot", "Snapshots, and the recycle bin."),
    "storage": ("storage:storage", "Layers: the tree of them, where space goes, what could be freed."),
    "account": ("accounts:account", "Accounts of this deployment: list, create, remove."),
    "env": ("environment:env", "Print export lines for AWS tools."),
    "configure-aws": ("environment:configure_aws", "Write a profile for AWS tools."),
    "whoami": ("environment:whoami", "Show who calls, and where."),
    "completion": ("environment:completion", "Print a shell's completion script."),
}


class OrcGroup(click.Group):
    """Commands by name, each imported when it is needed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._more: dict[str, list[click.Command]] = {}

    def extend(self, name: str, command: click.Command) -> None:
        """Give the group of that name one more command, when it is imported."""
        self._more.setdefault(name, []).append(command)

    def list_commands(self, context: click.Context) -> list[str]:
        return [*COMMANDS, *(name for name in super().list_commands(context) if name not in COMMANDS)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS or name in self.commands:
            return super().get_command(context, name)
        module, _, attribute = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
        if isinstance(command, click.Group):
            for more in self._more.get(name, ()):
                command.add_command(more)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [
            (name, COMMANDS[name][1] if name in COMMANDS else self.commands[name].get_short_help_str(100))
            for name in self.list_commands(context)
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (KeyboardInterrupt, click.Abort):
            click.echo(err=True)  # the terminal stands behind ^C
            context.exit(EXIT_INTERRUPTED)


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from orchestrator.cli.session import session_of

        click.echo(f"orc {session_of(context).version}".rstrip())
        context.exit()


@click.group(cls=OrcGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--endpoint", metavar="URL", help="the API's address, for example http://127.0.0.1:8773")
@click.option("--region", metavar="REGION", help="the region to work in")
@click.option("--profile", metavar="NAME", help="a profile of AWS tools that has an endpoint_url")
@click.option("--config", "config_file", metavar="FILE", help="the configuration file instead of the usual ones")
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="show the version"
)
def cli(endpoint: str | None, region: str | None, profile: str | None, config_file: str | None) -> None:
    """EC2 on your own Linux box, with real virtual machines.

    Wherever an instance is meant, its id, the beginning of its id or its name (the tag Name) will do.

    \b
    Exit codes: 0 done, 1 the API refused, 2 wrong usage, 3 not found, 4 waited too long,
    5 no controller or no credentials, 130 interrupted.
    """

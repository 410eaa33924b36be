"""`orc trace`: why a packet passes or not, decision by decision."""

from __future__ import annotations

import shutil
import textwrap

import click

from orchestrator.cli.arguments import complete_instance, with_client
from orchestrator.cli.client import Client
from orchestrator.cli.output import Document, output_option, print_document, text
from orchestrator.cli.session import EXIT_REFUSED

WIDTH = 100  # where there is no terminal to ask
_DECISION = 20


@click.command()
@click.argument("source", shell_complete=complete_instance)
@click.argument("destination", shell_complete=complete_instance)
@click.argument("port", type=click.IntRange(0, 65535), required=False)
@click.option(
    "--protocol",
    type=click.Choice(["tcp", "udp", "icmp", "icmpv6"]),
    help="of the packet  [default: tcp with a port, icmp without]",
)
@click.option("--live", is_flag=True, help="also send such a packet on the host, and tell what its rules do")
@output_option
@with_client
def trace(
    client: Client, source: str, destination: str, port: int | None, protocol: str | None, live: bool, output: str
) -> None:
    """Tell why a packet from SOURCE would reach DESTINATION, or not, and its answer come back.

    Either is an instance (by name or id), the id of a network interface, an address of one, or an address outside.
    Exits with 1 when the packet does not pass.

    \b
    orc trace web db 5432
    orc trace web 8.8.8.8
    orc trace 198.51.100.7 web 443
    orc trace 10.0.1.4 10.0.2.5 53 --protocol udp --live
    """
    if port is None and protocol in ("tcp", "udp"):
        raise click.UsageError(f"{protocol} needs a PORT")
    parameters: dict[str, object] = {"Source": source, "Destination": destination}
    parameters |= {"Protocol": protocol} if protocol else {}
    parameters |= {"Port": port} if port is not None else {}
    parameters |= {"Live": True} if live else {}
    found = client.orc("TracePacket", **parameters)
    if output in ("json", "yaml"):
        print_document(found, output)
    else:
        _print(found)
    if not found["Passed"]:
        click.get_current_context().exit(EXIT_REFUSED)


def _print(found: Document) -> None:
    steps = found.get("Steps") or []
    places = max((len(step["Where"]) for step in steps), default=0)
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    answering = False
    for step in steps:
        if step.get("Answer") and not answering:
            click.echo("and back")
            answering = True
        head = f"  {text(step['Where']).ljust(places)}  {step['Decision'].ljust(_DECISION)}"
        room = max(24, width - len(head))
        first, *more = textwrap.wrap(text(step["Detail"]), room) or [""]
        click.secho(f"{head}{first}".rstrip(), fg=None if step["Passed"] else "red")
        for line in more:
            click.secho(" " * len(head) + line, fg=None if step["Passed"] else "red")
    if found["Passed"]:
        click.secho("passes", fg="green")
    else:
        last = steps[-1] if steps else {"Where": "", "Decision": ""}
        way = "the answer does not come back" if last.get("Answer") else "does not pass"
        click.secho(f"{way}: {text(last['Where'])}, {last['Decision']}", fg="red")
    lines = found.get("Live") or []
    if lines:
        click.echo("\non the host")
        for line in lines:
            click.echo(f"  {text(line)}")
        if found.get("HostAgrees") is True:
            click.secho("the host does the same", fg="green")
        elif found.get("HostAgrees") is False:
            click.secho("the host does something else: `orc vpc plan` shows what it was told", fg="red")

"""Security groups and their rules, in a line each: `orc group allow web tcp/443 --from 0.0.0.0/0`."""

from __future__ import annotations

import ipaddress
from typing import Any

import click

from orchestrator.cli.arguments import filter_option, filters_of, with_client
from orchestrator.cli.client import Client
from orchestrator.cli.launch import find_groups
from orchestrator.cli.output import (
    NOTHING,
    Column,
    Document,
    all_tags,
    output_option,
    print_document,
    print_facts,
    print_listing,
    print_table,
)

_SOURCES = (
    ("IpRanges", "CidrIp"),
    ("Ipv6Ranges", "CidrIpv6"),
    ("UserIdGroupPairs", "GroupId"),
    ("PrefixListIds", "PrefixListId"),
)


@click.group()
def group() -> None:
    """Security groups and their rules. A group is given by its id, or by its name in the default VPC."""


COLUMNS = (
    Column("NAME", lambda one: one["GroupName"]),
    Column("ID", lambda one: one["GroupId"]),
    Column("VPC", lambda one: one.get("VpcId")),
    Column("IN", lambda one: [_words(rule) for rule in one.get("IpPermissions", [])]),
    Column("OUT", lambda one: [_words(rule) for rule in one.get("IpPermissionsEgress", [])], wide=True),
    Column("DESCRIPTION", lambda one: one.get("Description"), wide=True),
    Column("TAGS", all_tags, wide=True),
)


def _words(rule: Document) -> str:
    """A rule's protocol and ports, as `allow` takes them."""
    protocol = rule["IpProtocol"]
    first, last = rule.get("FromPort"), rule.get("ToPort")
    if protocol == "-1":
        return "all"
    if protocol not in ("tcp", "udp") or first is None or first == -1:
        return str(protocol)
    return f"{protocol}/{first}" if first == last else f"{protocol}/{first}-{last}"


@group.command()
@filter_option
@output_option
@with_client
def ls(client: Client, filter_words: tuple[str, ...], output: str) -> None:
    """List security groups."""
    found = client.pages("DescribeSecurityGroups", "SecurityGroups", Filters=filters_of(filter_words))
    print_listing(found, COLUMNS, output, nothing="no security group matches")


@group.command()
@click.argument("name", metavar="GROUP")
@output_option
@with_client
def show(client: Client, name: str, output: str) -> None:
    """Show a security group and its rules."""
    one = client.ec2("DescribeSecurityGroups", GroupIds=find_groups(client, (name,)))["SecurityGroups"][0]
    if output in ("json", "yaml"):
        print_document(one, output)
        return
    print_facts(
        [
            ("id", one["GroupId"]),
            ("name", one["GroupName"]),
            ("description", one.get("Description")),
            ("VPC", one.get("VpcId")),
            ("tags", all_tags(one)),
        ]
    )
    rows = [
        [direction, _words(rule), source[value], source.get("Description") or NOTHING]
        for direction, rules in (("in", "IpPermissions"), ("out", "IpPermissionsEgress"))
        for rule in one.get(rules, [])
        for kind, value in _SOURCES
        for source in rule.get(kind, [])
    ]
    click.echo()
    if rows:
        print_table(["DIRECTION", "PORTS", "PEER", "DESCRIPTION"], rows)
    else:
        click.echo("no rules: nothing may come in or go out")


@group.command()
@click.argument("name")
@click.option("--description", help="what it is for  [default: its name]")
@click.option("--vpc", "vpc_id", metavar="ID", help="the VPC, if not the default one")
@with_client
def create(client: Client, name: str, description: str | None, vpc_id: str | None) -> None:
    """Make a security group. Nothing may come in yet, everything may go out."""
    parameters = {"GroupName": name, "Description": description or name}
    if vpc_id:
        parameters["VpcId"] = vpc_id
    click.echo(client.ec2("CreateSecurityGroup", **parameters)["GroupId"])


def rule_arguments(command: Any) -> Any:
    command = click.option("--out", "outward", is_flag=True, help="what may go out, instead of what may come in")(
        command
    )
    command = click.option(
        "--from",
        "--to",
        "peers",
        metavar="CIDR|GROUP",
        multiple=True,
        help="who: addresses, or the members of a group  [default: 0.0.0.0/0]",
    )(command)
    command = click.argument("ports", metavar="PORTS...", nargs=-1, required=True)(command)
    return click.argument("name", metavar="GROUP")(command)


@group.command()
@rule_arguments
@click.option("--description", help="what the rules are for")
@with_client
def allow(
    client: Client, name: str, ports: tuple[str, ...], peers: tuple[str, ...], outward: bool, description: str | None
) -> None:
    """Allow PORTS: 22, tcp/80-90, udp/53, icmp, all.

    \b
    orc group allow web 80 443
    orc group allow db tcp/5432 --from web
    """
    action = f"AuthorizeSecurityGroup{'Egress' if outward else 'Ingress'}"
    _change(client, action, name, ports, peers, description)


@group.command()
@rule_arguments
@with_client
def revoke(client: Client, name: str, ports: tuple[str, ...], peers: tuple[str, ...], outward: bool) -> None:
    """Take back what was allowed, in the same words."""
    _change(client, f"RevokeSecurityGroup{'Egress' if outward else 'Ingress'}", name, ports, peers, None)


@group.command()
@click.argument("name", metavar="GROUP")
@with_client
def rm(client: Client, name: str) -> None:
    """Delete a security group that nothing uses."""
    client.ec2("DeleteSecurityGroup", GroupId=find_groups(client, (name,))[0])


def _change(
    client: Client, action: str, name: str, ports: tuple[str, ...], peers: tuple[str, ...], description: str | None
) -> None:
    (group_id,) = find_groups(client, (name,))
    sources = _sources(client, peers or ("0.0.0.0/0",), description)
    client.ec2(action, GroupId=group_id, IpPermissions=[{**read_ports(word), **sources} for word in ports])


def _sources(client: Client, peers: tuple[str, ...], description: str | None) -> dict[str, list[dict[str, str]]]:
    sources: dict[str, list[dict[str, str]]] = {}
    words = {"Description": description} if description else {}
    for peer in peers:
        try:
            network = ipaddress.ip_network(peer)
        except ValueError as error:
            if "/" in peer:
                raise click.UsageError(f"'{peer}' is no range of addresses: {error}") from None
            (group_id,) = find_groups(client, (peer,))
            sources.setdefault("UserIdGroupPairs", []).append({"GroupId": group_id, **words})
            continue
        if network.version == 4:
            sources.setdefault("IpRanges", []).append({"CidrIp": str(network), **words})
        else:
            sources.setdefault("Ipv6Ranges", []).append({"CidrIpv6": str(network), **words})
    return sources


def read_ports(word: str) -> dict[str, Any]:
    """22, 80-90, tcp/22, udp/53, icmp, all -> IpProtocol, FromPort and ToPort."""
    if word == "all":
        return {"IpProtocol": "-1"}
    if word in ("icmp", "icmpv6"):
        return {"IpProtocol": word, "FromPort": -1, "ToPort": -1}
    protocol, _, ports = word.rpartition("/")
    first, _, last = ports.partition("-")
    last = last or first
    if protocol in ("", "tcp", "udp") and first.isdecimal() and last.isdecimal():
        low, high = int(first), int(last)
        if 0 <= low <= high <= 65535:
            return {"IpProtocol": protocol or "tcp", "FromPort": low, "ToPort": high}
    raise click.UsageError(f"'{word}' are no ports: expected 22, tcp/80-90, udp/53, icmp or all")


sg = click.Group("sg", commands=group.commands, help=group.help)

"""VPCs and subnets: what there is, and all about one VPC."""

from __future__ import annotations

import click

from orchestrator.cli.arguments import filter_option, filters_of, with_client
from orchestrator.cli.client import Client, NotFound, escape
from orchestrator.cli.output import (
    Column,
    Document,
    all_tags,
    name_of,
    note,
    output_option,
    print_document,
    print_listing,
)


@click.group()
def vpc() -> None:
    """VPCs."""


@vpc.command("ls")
@filter_option
@output_option
@with_client
def list_vpcs(client: Client, filter_words: tuple[str, ...], output: str) -> None:
    """List VPCs."""
    columns = (
        Column("NAME", name_of),
        Column("ID", lambda one: one["VpcId"]),
        Column("CIDR", lambda one: one.get("CidrBlock")),
        Column("STATE", lambda one: one.get("State"), coloured=True),
        Column("DEFAULT", lambda one: one.get("IsDefault")),
        Column("TENANCY", lambda one: one.get("InstanceTenancy"), wide=True),
        Column("TAGS", all_tags, wide=True),
    )
    found = client.pages("DescribeVpcs", "Vpcs", Filters=filters_of(filter_words))
    print_listing(found, columns, output, nothing="no VPC matches")


@vpc.command("show")
@click.argument("reference", metavar="VPC")
@output_option
@with_client
def show_vpc(client: Client, reference: str, output: str) -> None:
    """Draw a VPC as a tree: its gateways, routes, subnets and interfaces. VPC is an id, a name, or `default`."""
    from orchestrator.cli.vpc_tree import draw, gather

    found = gather(client, find_vpc(client, reference))
    if output in ("json", "yaml"):
        print_document(found, output)
    else:
        draw(found)


@vpc.command("plan")
@click.argument("reference", metavar="VPC")
@with_client
def plan_vpc(client: Client, reference: str) -> None:
    """Print what the host is told of a VPC: its rules, routes and addresses."""
    vpc_id = find_vpc(client, reference)["VpcId"]
    plan = client.orc("DescribeNetworkPlan", VpcId=vpc_id).get("Plan", "")
    if plan:
        click.echo(plan.rstrip("\n"))
    else:
        note(f"nothing of {vpc_id} is on the host: no instance runs in it")


def find_vpc(client: Client, reference: str) -> Document:
    """A VPC by its id, its name, or the word `default`."""
    if reference.startswith("vpc-"):
        found: list[Document] = client.ec2("DescribeVpcs", VpcIds=[reference])["Vpcs"]
    else:
        name = ("is-default", "true") if reference == "default" else ("tag:Name", escape(reference))
        found = client.pages("DescribeVpcs", "Vpcs", Filters=[{"Name": name[0], "Values": [name[1]]}])
    if not found:
        raise NotFound(f"there is no VPC '{reference}' in {client.region}; `orc vpc ls` shows those that are there")
    if len(found) > 1:
        listed = ", ".join(one["VpcId"] for one in found)
        raise click.UsageError(f"'{reference}' may be any of {listed}: say which by its id")
    return found[0]


@click.group()
def subnet() -> None:
    """Subnets."""


@subnet.command("ls")
@filter_option
@output_option
@with_client
def list_subnets(client: Client, filter_words: tuple[str, ...], output: str) -> None:
    """List subnets."""
    columns = (
        Column("NAME", name_of),
        Column("ID", lambda one: one["SubnetId"]),
        Column("CIDR", lambda one: one.get("CidrBlock")),
        Column("ZONE", lambda one: one.get("AvailabilityZone")),
        Column("FREE", lambda one: one.get("AvailableIpAddressCount")),
        Column("VPC", lambda one: one.get("VpcId")),
        Column("PUBLIC IP", lambda one: one.get("MapPublicIpOnLaunch"), wide=True),
        Column("DEFAULT", lambda one: one.get("DefaultForAz"), wide=True),
        Column("TAGS", all_tags, wide=True),
    )
    found = client.pages("DescribeSubnets", "Subnets", Filters=filters_of(filter_words))
    found.sort(key=lambda one: (one.get("VpcId", ""), one.get("AvailabilityZone", "")))
    print_listing(found, columns, output, nothing="no subnet matches")

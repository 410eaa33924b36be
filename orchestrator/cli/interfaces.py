"""Network interfaces, Elastic IPs and route tables: what there is."""

from __future__ import annotations

import click

from orchestrator.cli.arguments import filter_option, filters_of, with_client
from orchestrator.cli.client import Client
from orchestrator.cli.output import Column, Document, all_tags, name_of, output_option, print_listing


def _addresses(one: Document) -> list[str]:
    found = [each["PrivateIpAddress"] for each in one.get("PrivateIpAddresses", [])]
    return found + [each.get("Ipv4Prefix", "") for each in one.get("Ipv4Prefixes", [])]


def _public(one: Document) -> list[str]:
    held = [each.get("Association", {}).get("PublicIp") for each in one.get("PrivateIpAddresses", [])]
    return [each for each in held if each]


def _tagged(one: Document) -> Document:
    """With its tags where every other kind has them."""
    return {"Tags": one.get("TagSet", [])}


@click.group()
def eni() -> None:
    """Network interfaces."""


@eni.command("ls")
@filter_option
@output_option
@with_client
def list_interfaces(client: Client, filter_words: tuple[str, ...], output: str) -> None:
    """List network interfaces."""
    columns = (
        Column("NAME", lambda one: name_of(_tagged(one))),
        Column("ID", lambda one: one["NetworkInterfaceId"]),
        Column("STATE", lambda one: one.get("Status"), coloured=True),
        Column("PRIVATE IP", _addresses),
        Column("PUBLIC IP", _public),
        Column("INSTANCE", lambda one: one.get("Attachment", {}).get("InstanceId")),
        Column("DEVICE", lambda one: one.get("Attachment", {}).get("DeviceIndex"), wide=True),
        Column("SUBNET", lambda one: one.get("SubnetId"), wide=True),
        Column("ZONE", lambda one: one.get("AvailabilityZone"), wide=True),
        Column("MAC", lambda one: one.get("MacAddress"), wide=True),
        Column("IPV6", lambda one: [each["Ipv6Address"] for each in one.get("Ipv6Addresses", [])], wide=True),
        Column("GROUPS", lambda one: [each.get("GroupName") for each in one.get("Groups", [])], wide=True),
        Column("CHECK", lambda one: one.get("SourceDestCheck"), wide=True),
        Column("TYPE", lambda one: one.get("InterfaceType"), wide=True),
        Column("DESCRIPTION", lambda one: one.get("Description"), wide=True),
        Column("TAGS", lambda one: all_tags(_tagged(one)), wide=True),
    )
    found = client.pages("DescribeNetworkInterfaces", "NetworkInterfaces", Filters=filters_of(filter_words))
    found.sort(key=lambda one: (one.get("VpcId", ""), one.get("SubnetId", ""), one["NetworkInterfaceId"]))
    print_listing(found, columns, output, nothing="no network interface matches")


@click.group()
def eip() -> None:
    """Elastic IPs."""


@eip.command("ls")
@filter_option
@output_option
@with_client
def list_addresses(client: Client, filter_words: tuple[str, ...], output: str) -> None:
    """List Elastic IPs."""
    columns = (
        Column("NAME", name_of),
        Column("ADDRESS", lambda one: one.get("PublicIp")),
        Column("ID", lambda one: one.get("AllocationId")),
        Column("INSTANCE", lambda one: one.get("InstanceId")),
        Column("INTERFACE", lambda one: one.get("NetworkInterfaceId")),
        Column("PRIVATE IP", lambda one: one.get("PrivateIpAddress")),
        Column("ASSOCIATION", lambda one: one.get("AssociationId"), wide=True),
        Column("POOL", lambda one: one.get("PublicIpv4Pool"), wide=True),
        Column("TAGS", all_tags, wide=True),
    )
    found = client.ec2("DescribeAddresses", Filters=filters_of(filter_words))["Addresses"]
    print_listing(found, columns, output, nothing="no Elastic IPs")


@click.group()
def rtb() -> None:
    """Route tables."""


@rtb.command("ls")
@filter_option
@output_option
@with_client
def list_tables(client: Client, filter_words: tuple[str, ...], output: str) -> None:
    """List route tables."""
    from orchestrator.cli.vpc_tree import routes

    columns = (
        Column("NAME", name_of),
        Column("ID", lambda one: one["RouteTableId"]),
        Column("VPC", lambda one: one.get("VpcId")),
        Column("MAIN", lambda one: any(each.get("Main") for each in one.get("Associations", []))),
        Column("SUBNETS", lambda one: [each["SubnetId"] for each in one.get("Associations", []) if "SubnetId" in each]),
        Column("ROUTES", routes, wide=True),
        Column("TAGS", all_tags, wide=True),
    )
    found = client.pages("DescribeRouteTables", "RouteTables", Filters=filters_of(filter_words))
    print_listing(found, columns, output, nothing="no route table matches")

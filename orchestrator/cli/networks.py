"""VPCs, subnets and volumes: what there is."""

from __future__ import annotations

import click

from orchestrator.cli.arguments import filter_option, filters_of, with_client
from orchestrator.cli.client import Client
from orchestrator.cli.output import Column, Document, age, all_tags, name_of, output_option, print_listing


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


@click.group()
def volume() -> None:
    """Volumes."""


def _attached(one: Document) -> list[str]:
    return [f"{at['InstanceId']}:{at['Device']}" for at in one.get("Attachments", [])]


@volume.command("ls")
@filter_option
@output_option
@with_client
def list_volumes(client: Client, filter_words: tuple[str, ...], output: str) -> None:
    """List volumes."""
    columns = (
        Column("NAME", name_of),
        Column("ID", lambda one: one["VolumeId"]),
        Column("STATE", lambda one: one.get("State"), coloured=True),
        Column("GIB", lambda one: one.get("Size")),
        Column("TYPE", lambda one: one.get("VolumeType")),
        Column("ATTACHED TO", _attached),
        Column("AGE", lambda one: age(one.get("CreateTime"))),
        Column("ZONE", lambda one: one.get("AvailabilityZone"), wide=True),
        Column("IOPS", lambda one: one.get("Iops"), wide=True),
        Column("SNAPSHOT", lambda one: one.get("SnapshotId"), wide=True),
        Column("TAGS", all_tags, wide=True),
    )
    found = client.pages("DescribeVolumes", "Volumes", Filters=filters_of(filter_words))
    print_listing(found, columns, output, nothing="no volumes")

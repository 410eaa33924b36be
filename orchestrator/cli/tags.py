"""Tags of any resource."""

from __future__ import annotations

import re

import click

from orchestrator.cli.arguments import filter_option, filters_of, read_tag, with_client
from orchestrator.cli.client import Client
from orchestrator.cli.output import Column, output_option, print_listing

_OTHER_ID = re.compile(r"[a-z]+-[0-9a-f]{8,17}", re.ASCII)


@click.group()
def tag() -> None:
    """Tags of any resource: instances by name or id, everything else by id."""


COLUMNS = (
    Column("RESOURCE", lambda one: one["ResourceId"]),
    Column("KIND", lambda one: one.get("ResourceType")),
    Column("KEY", lambda one: one["Key"]),
    Column("VALUE", lambda one: one.get("Value")),
)


def resource_id(client: Client, reference: str) -> str:
    if _OTHER_ID.fullmatch(reference) and not reference.startswith("i-"):
        return reference
    return client.find_one(reference, terminated=True)


@tag.command()
@click.argument("resource", required=False)
@filter_option
@output_option
@with_client
def ls(client: Client, resource: str | None, filter_words: tuple[str, ...], output: str) -> None:
    """List tags, of all resources or of one."""
    filters = filters_of(filter_words)
    if resource:
        filters.append({"Name": "resource-id", "Values": [resource_id(client, resource)]})
    found = client.pages("DescribeTags", "Tags", Filters=filters)
    found.sort(key=lambda one: (one["ResourceId"], one["Key"]))
    print_listing(found, COLUMNS, output, nothing="no tags")


@tag.command()
@click.argument("resource")
@click.argument("words", metavar="KEY=VALUE...", nargs=-1, required=True)
@with_client
def add(client: Client, resource: str, words: tuple[str, ...]) -> None:
    """Set tags; a key that is there gets the new value."""
    tags = [read_tag(word) for word in words]
    client.ec2("CreateTags", Resources=[resource_id(client, resource)], Tags=tags)


@tag.command()
@click.argument("resource")
@click.argument("keys", metavar="KEY...", nargs=-1, required=True)
@with_client
def rm(client: Client, resource: str, keys: tuple[str, ...]) -> None:
    """Remove tags by their keys."""
    client.ec2("DeleteTags", Resources=[resource_id(client, resource)], Tags=[{"Key": key} for key in keys])

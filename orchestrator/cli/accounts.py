"""Accounts of a deployment: listed, made with a key of their root, and removed. For callers of its first account."""

from __future__ import annotations

import json
from dataclasses import replace

import click

from orchestrator.cli.arguments import with_client
from orchestrator.cli.client import Client
from orchestrator.cli.environment import write_profile
from orchestrator.cli.output import Column, Document, age, note, output_option, print_listing


@click.group()
def account() -> None:
    """Accounts: what one has is not seen by another. Only the first account may list, make and remove them."""


COLUMNS = (
    Column("ID", lambda one: one["Id"]),
    Column("NAME", lambda one: one.get("Name")),
    Column("STATE", lambda one: one.get("State")),
    Column("AGE", lambda one: age(one.get("JoinedTimestamp"))),
    Column("EMAIL", lambda one: one.get("Email"), wide=True),
)


@account.command()
@output_option
@with_client
def ls(client: Client, output: str) -> None:
    """List accounts; the first is the one that the controller made at its first start."""
    found: list[Document] = []
    more: dict[str, str] = {}
    while True:
        answer = client.call("organizations", "ListAccounts", **more)
        found += answer["Accounts"]
        if not answer.get("NextToken"):
            break
        more = {"NextToken": answer["NextToken"]}
    found.sort(key=lambda one: (str(one.get("JoinedTimestamp")), one["Id"]))
    print_listing(found, COLUMNS, output, nothing="no accounts")


@account.command()
@click.argument("name")
@click.option("--profile", "profile", help="write its key as this profile of AWS tools instead of printing it")
@with_client
def create(client: Client, name: str, profile: str | None) -> None:
    """Make an account with an access key of its root. The key is told this once.

    Its default VPC comes about when it is first used, as that of the first account did.
    """
    made = client.orc("CreateAccount", Name=name)
    if profile is None:
        click.echo(json.dumps(made, indent=1))
        note("this is all that will ever be seen of the secret")
        return
    key = {"access_key_id": made["AccessKeyId"], "secret_access_key": made["SecretAccessKey"], "session_token": None}
    click.echo(made["AccountId"])
    try:
        write_profile(profile, replace(client.endpoint, **key))
    except click.ClickException:
        click.echo(json.dumps(made, indent=1))  # or nobody would ever have it
        raise


@account.command()
@click.argument("account_id", metavar="ACCOUNT")
@click.option("-y", "--yes", is_flag=True, help="do not ask")
@with_client
def rm(client: Client, account_id: str, yes: bool) -> None:
    """Remove an account with its keys, users and networks. What it runs and keeps must be gone before."""
    if not yes and not click.confirm(f"Remove the account {account_id}?", err=True):
        note("it stays")
        return
    client.call("organizations", "CloseAccount", AccountId=account_id)
    click.echo(f"removed {account_id}")

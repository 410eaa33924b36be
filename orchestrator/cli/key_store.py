"""Named keys that encrypt volumes: made, shown with what hangs on them, disabled, and shredded."""

from __future__ import annotations

import re
from typing import Any

import click

from orchestrator.cli.arguments import with_client
from orchestrator.cli.client import APIError, Client, NotFound
from orchestrator.cli.output import (
    Column,
    Document,
    age,
    note,
    output_option,
    print_document,
    print_facts,
    print_listing,
)

_KEY_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_USES = ("Volumes", "Snapshots", "Images", "Instances")


@click.group()
def key_store() -> None:
    """Keys that encrypt volumes. A key is given by its name, its id, or the word `default`."""


COLUMNS = (
    Column("NAME", lambda one: one["Names"]),
    Column("ID", lambda one: one["KeyId"]),
    Column("STATE", lambda one: one["KeyState"]),
    Column("AGE", lambda one: age(one.get("CreationDate"))),
    Column("DELETED ON", lambda one: one.get("DeletionDate"), wide=True),
    Column("MADE BY", lambda one: "orchestrator" if one.get("KeyManager") == "AWS" else "you", wide=True),
    Column("DESCRIPTION", lambda one: one.get("Description"), wide=True),
)


@key_store.command()
@output_option
@with_client
def ls(client: Client, output: str) -> None:
    """List keys."""
    names = _names(client)
    found = [
        {**client.call("kms", "DescribeKey", KeyId=each["KeyId"])["KeyMetadata"], "Names": names.get(each["KeyId"], [])}
        for each in _pages(client, "ListKeys", "Keys")
    ]
    found.sort(key=lambda one: (one["Names"], one["KeyId"]))
    print_listing(
        found, COLUMNS, output, nothing="no keys; `orc key-store create NAME` makes one, and the first encrypted volume"
    )


@key_store.command()
@click.argument("name")
@click.option("--description", help="what it is for")
@with_client
def create(client: Client, name: str, description: str | None) -> None:
    """Make a key of that name."""
    if any(name in taken for taken in _names(client).values()):
        raise click.UsageError(f"there is a key '{name}' already: `orc key-store show {name}`")
    words = {"Description": description} if description else {}
    key_id = client.call("kms", "CreateKey", **words)["KeyMetadata"]["KeyId"]
    try:
        client.call("kms", "CreateAlias", AliasName=f"alias/{name}", TargetKeyId=key_id)
    except APIError:
        client.orc("ShredKey", KeyId=key_id)  # nobody would know it
        raise
    click.echo(key_id)


@key_store.command()
@click.argument("name", metavar="KEY")
@output_option
@with_client
def show(client: Client, name: str, output: str) -> None:
    """Show a key, and what cannot be read without it."""
    use = _use(client, name)
    facts: Document = {"KeyId": use["KeyId"], "KeyState": use["KeyState"]}
    if use["KeyState"] != "Destroyed":
        facts |= client.call("kms", "DescribeKey", KeyId=use["KeyId"])["KeyMetadata"]
    facts |= {"Names": _names(client).get(use["KeyId"], []), **{kind: use.get(kind, []) for kind in _USES}}
    if output in ("json", "yaml"):
        print_document(facts, output)
        return
    print_facts(
        [
            ("name", facts["Names"]),
            ("id", facts["KeyId"]),
            ("state", facts["KeyState"]),
            ("deleted on", facts.get("DeletionDate")),
            ("ARN", facts.get("Arn")),
            ("description", facts.get("Description")),
            ("made", facts.get("CreationDate")),
            *((kind.lower(), facts[kind]) for kind in _USES),
        ]
    )


@key_store.command()
@click.argument("name", metavar="KEY")
@with_client
def disable(client: Client, name: str) -> None:
    """Let nothing use a key until it is enabled. Instances that run go on, and cannot start again."""
    client.call("kms", "DisableKey", KeyId=_use(client, name)["KeyId"])


@key_store.command()
@click.argument("name", metavar="KEY")
@with_client
def enable(client: Client, name: str) -> None:
    """Let a disabled key be used again."""
    client.call("kms", "EnableKey", KeyId=_use(client, name)["KeyId"])


@key_store.command()
@click.argument("name", metavar="KEY")
@click.option("-y", "--yes", is_flag=True, help="do not ask")
@with_client
def shred(client: Client, name: str, yes: bool) -> None:
    """Destroy a key at once. What it encrypts can never be read again."""
    use = _use(client, name)
    lost = [(kind.lower(), use.get(kind, [])) for kind in _USES if kind != "Instances" and use.get(kind)]
    if lost:
        note("without this key nobody can read, ever again:")
        for kind, found in lost:
            note(f"  {kind}  {', '.join(found)}")
    else:
        note("nothing is encrypted by this key")
    if use.get("Instances"):
        note(f"instances that have such volumes go on until they stop: {', '.join(use['Instances'])}")
    if not yes and not click.confirm(f"Shred {name} ({use['KeyId']})?", err=True):
        note("the key stays")
        return
    client.orc("ShredKey", KeyId=use["KeyId"])
    click.echo(f"shredded {use['KeyId']}")


def _use(client: Client, name: str) -> Document:
    """The key of that name, and what hangs on it."""
    if name == "default":
        reference = "alias/aws/ebs"
    elif _KEY_ID.fullmatch(name) or name.startswith(("arn:", "alias/")):
        reference = name
    else:
        reference = f"alias/{name}"
    try:
        found: Document = client.orc("DescribeKeyUse", KeyId=reference)["KeyUse"]
    except APIError as error:
        if error.code != "InvalidKmsKeyId.NotFound":
            raise
        raise NotFound(
            f"there is no key '{name}' in {client.region}; `orc key-store ls` shows those that are there"
        ) from None
    return found


def _names(client: Client) -> dict[str, list[str]]:
    """Key id -> its names."""
    names: dict[str, list[str]] = {}
    for alias in _pages(client, "ListAliases", "Aliases"):
        if "TargetKeyId" in alias:
            names.setdefault(alias["TargetKeyId"], []).append(alias["AliasName"].removeprefix("alias/"))
    return names


def _pages(client: Client, action: str, member: str) -> list[Document]:
    """All pages of one of KMS' lists."""
    found: list[Document] = []
    more: dict[str, Any] = {}
    while True:
        answer = client.call("kms", action, **more)
        found += answer[member]
        if not answer.get("Truncated"):
            return found
        more = {"Marker": answer["NextMarker"]}

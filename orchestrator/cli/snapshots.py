"""Snapshots of volumes, and the recycle bin that deleted ones go into: `orc snapshot create web-1`."""

from __future__ import annotations

import re
from typing import Any

import click

from orchestrator.cli.arguments import filter_option, filters_of, read_tag, timeout_option, with_client
from orchestrator.cli.client import APIError, Client, NotFound, escape
from orchestrator.cli.output import (
    Column,
    Document,
    age,
    all_tags,
    name_of,
    note,
    output_option,
    print_document,
    print_facts,
    print_listing,
)
from orchestrator.cli.session import EXIT_REFUSED
from orchestrator.cli.volumes import find_volume
from orchestrator.cli.waiting import progress, wait_for

WAIT_TIMEOUT_S = 600.0
TYPES = {"snapshots": "EBS_SNAPSHOT", "images": "EC2_IMAGE"}

_ID = re.compile(r"snap-(?:[0-9a-f]{8}|[0-9a-f]{17})", re.ASCII)
_VOLUME_ID = re.compile(r"vol-(?:[0-9a-f]{8}|[0-9a-f]{17})", re.ASCII)
_IMAGE_ID = re.compile(r"ami-(?:[0-9a-f]{8}|[0-9a-f]{17})", re.ASCII)


@click.group()
def snapshot() -> None:
    """Snapshots, and the recycle bin. One is given by its id, or by its name (the tag Name; the newest of several)."""


def _find(client: Client, reference: str) -> str:
    if _ID.fullmatch(reference):
        return reference
    named = client.pages(
        "DescribeSnapshots",
        "Snapshots",
        OwnerIds=["self"],
        Filters=[{"Name": "tag:Name", "Values": [escape(reference)]}],
    )
    if not named:
        raise NotFound(f"there is no snapshot '{reference}'; `orc snapshot ls` shows those that are there")
    newest = max(named, key=lambda one: (one.get("StartTime", ""), one["SnapshotId"]))
    return str(newest["SnapshotId"])


COLUMNS = (
    Column("NAME", name_of),
    Column("ID", lambda one: one["SnapshotId"]),
    Column("STATE", lambda one: one.get("State"), coloured=True),
    Column("DONE", lambda one: one.get("Progress")),
    Column("GIB", lambda one: one.get("VolumeSize")),
    Column("VOLUME", lambda one: _source(one)),
    Column("CONTENT", lambda one: one.get("Consistency")),
    Column("AGE", lambda one: age(one.get("StartTime"))),
    Column("ENCRYPTED", lambda one: one.get("Encrypted"), wide=True),
    Column("TIER", lambda one: one.get("StorageTier"), wide=True),
    Column("OWNER", lambda one: one.get("OwnerId"), wide=True),
    Column("DESCRIPTION", lambda one: one.get("Description"), wide=True),
    Column("MESSAGE", lambda one: one.get("StateMessage"), wide=True),
    Column("TAGS", all_tags, wide=True),
)


def _source(one: Document) -> str:
    """The volume, or the snapshot that it is a copy of."""
    volume_id = str(one.get("VolumeId", ""))
    return str(one.get("SourceSnapshotId") or "") if volume_id == "vol-ffffffff" else volume_id


@snapshot.command()
@click.option("-a", "--all", "everything", is_flag=True, help="those of others too: shared, public, of the catalogue")
@filter_option
@output_option
@with_client
def ls(client: Client, everything: bool, filter_words: tuple[str, ...], output: str) -> None:
    """List snapshots, oldest first.

    CONTENT says how it was taken: `off` while no machine wrote, `frozen` with the guest's file systems at rest, `crash`
    as after a power cut, from which a journal recovers.
    """
    owners = {} if everything else {"OwnerIds": ["self"]}
    found = client.pages("DescribeSnapshots", "Snapshots", Filters=filters_of(filter_words), **owners)
    found.sort(key=lambda one: (one.get("StartTime", ""), one["SnapshotId"]))
    if found:
        wanted = [one["SnapshotId"] for one in found]
        try:
            details = client.orc("DescribeSnapshotDetails", SnapshotIds=wanted)["Snapshots"]
        except APIError as error:
            if error.code != "InvalidSnapshot.NotFound":  # one of them went meanwhile
                raise
            details = []
        found = _joined(found, details)
    nothing = "no snapshot matches" if filter_words else "no snapshots; `orc snapshot create VOLUME` makes one"
    print_listing(found, COLUMNS, output, nothing=nothing)


def _joined(found: list[Document], details: list[Document]) -> list[Document]:
    by_id = {one["SnapshotId"]: one for one in details}
    return [{**one, **_known(by_id.get(one["SnapshotId"], {}))} for one in found]


def _known(details: Document) -> Document:
    return {name: value for name, value in details.items() if value not in (None, "", [])}


@snapshot.command()
@click.argument("reference", metavar="SNAPSHOT")
@output_option
@with_client
def show(client: Client, reference: str, output: str) -> None:
    """Show all about one snapshot."""
    snapshot_id = _find(client, reference)
    found = client.ec2("DescribeSnapshots", SnapshotIds=[snapshot_id])["Snapshots"]
    [one] = _joined(found, client.orc("DescribeSnapshotDetails", SnapshotIds=[snapshot_id])["Snapshots"])
    if output in ("json", "yaml"):
        print_document(one, output)
        return
    print_facts(
        (
            ("id", one["SnapshotId"]),
            ("name", name_of(one)),
            ("state", one.get("State")),
            ("message", one.get("StateMessage")),
            ("progress", one.get("Progress")),
            ("volume", one.get("VolumeId")),
            ("copy of", one.get("SourceSnapshotId")),
            ("content", one.get("Consistency")),
            ("size", f"{one.get('VolumeSize')} GiB"),
            ("description", one.get("Description")),
            ("owner", one.get("OwnerId")),
            ("encrypted", one.get("Encrypted")),
            ("key", one.get("KmsKeyId")),
            ("tier", one.get("StorageTier")),
            ("restored until", one.get("RestoreExpiryTime")),
            ("fast in", one.get("FastRestoreZones")),
            ("started", one.get("StartTime")),
            ("completed", one.get("CompletionTime")),
            ("layer", one.get("LayerId")),
            ("tags", all_tags(one)),
        )
    )


# --- make -----------------------------------------------------------------------------------------------------------


def _making_options(command: Any) -> Any:
    command = timeout_option(WAIT_TIMEOUT_S)(command)
    command = click.option("--no-wait", is_flag=True, help="until it is asked for, not until it is completed")(command)
    command = click.option("--tag", "tag_words", multiple=True, metavar="KEY=VALUE", help="a tag for it")(command)
    command = click.option("--name", help="its name: the tag Name")(command)
    return click.option("--description", metavar="TEXT", help="what it is")(command)


def _given(name: str | None, tag_words: tuple[str, ...], description: str | None) -> dict[str, Any]:
    tags = [{"Key": "Name", "Value": name}] if name else []
    tags += [read_tag(word) for word in tag_words]
    given: dict[str, Any] = {}
    if tags:
        given["TagSpecifications"] = [{"ResourceType": "snapshot", "Tags": tags}]
    if description:
        given["Description"] = description
    return given


def _what(client: Client, source: str) -> tuple[str, str]:
    """The instance or the volume that is meant, by its id; the other one is empty. A name is an instance's first."""
    if _VOLUME_ID.fullmatch(source):
        return "", source
    try:
        return client.find_one(source), ""
    except NotFound:
        try:
            return "", find_volume(client, source)["VolumeId"]
        except NotFound:
            raise NotFound(
                f"there is no instance and no volume '{source}'; `orc ls` and `orc volume ls` show them"
            ) from None


@snapshot.command()
@click.argument("source", metavar="VOLUME|INSTANCE")
@click.option("--data-only", is_flag=True, help="of an instance: leave its root volume out")
@_making_options
@with_client
def create(
    client: Client,
    source: str,
    data_only: bool,
    description: str | None,
    name: str | None,
    tag_words: tuple[str, ...],
    no_wait: bool,
    timeout_s: float,
) -> None:
    """Make a snapshot of a volume, or of all volumes of an instance at one instant. The guest goes on."""
    given = _given(name, tag_words, description)
    instance_id, volume_id = _what(client, source)
    if volume_id:
        if data_only:
            raise click.UsageError("--data-only is for an instance: this is a volume")
        made = [client.ec2("CreateSnapshot", VolumeId=volume_id, **given)]
    else:
        specification = {"InstanceId": instance_id, "ExcludeBootVolume": data_only}
        made = client.ec2("CreateSnapshots", InstanceSpecification=specification, **given)["Snapshots"]
    _report(client, [one["SnapshotId"] for one in made], no_wait, timeout_s)


@snapshot.command("copy")
@click.argument("reference", metavar="SNAPSHOT")
@click.option(
    "--from", "source_region", metavar="REGION", help="the region that it is in  [default: the one of --region]"
)
@click.option("--encrypt", is_flag=True, help="encrypt the copy, by the default key if none is named")
@click.option("--key", metavar="KEY", help="the key that encrypts the copy: an id, an ARN or an alias")
@_making_options
@with_client
def copy_(
    client: Client,
    reference: str,
    source_region: str | None,
    encrypt: bool,
    key: str | None,
    description: str | None,
    name: str | None,
    tag_words: tuple[str, ...],
    no_wait: bool,
    timeout_s: float,
) -> None:
    """Copy a snapshot into the region of --region, as it is or under another key.

    \b
    orc --region us-west-2 snapshot copy snap-0123456789abcdef0 --from us-east-1
    """
    if source_region and not _ID.fullmatch(reference):
        raise click.UsageError("--from needs the snapshot's id: names are looked up in the region of --region")
    given = _given(name, tag_words, description)
    if encrypt or key:
        given["Encrypted"] = True
    if key:
        given["KmsKeyId"] = key
    made = client.ec2(
        "CopySnapshot",
        SourceRegion=source_region or client.region,
        SourceSnapshotId=_find(client, reference),
        **given,
    )
    _report(client, [made["SnapshotId"]], no_wait, timeout_s)


def _report(client: Client, snapshot_ids: list[str], no_wait: bool, timeout_s: float) -> None:
    """Until all are completed; prints their ids."""
    if not no_wait:
        with progress("snapshot" if len(snapshot_ids) == 1 else f"{len(snapshot_ids)} snapshots") as say:

            def look() -> list[Document] | None:
                now = client.ec2("DescribeSnapshots", SnapshotIds=snapshot_ids)["Snapshots"]
                say(", ".join(one.get("Progress") or one["State"] for one in now))
                return now if all(one["State"] in ("completed", "error") for one in now) else None

            done = wait_for(look, "the snapshot", timeout_s)
        if failed := [one for one in done if one["State"] == "error"]:
            for one in failed:
                note(f"{one['SnapshotId']} was not made: {one.get('StateMessage') or 'no reason is known'}")
            raise SystemExit(EXIT_REFUSED)
    for snapshot_id in snapshot_ids:
        click.echo(snapshot_id)


@snapshot.command()
@click.argument("references", metavar="SNAPSHOT...", nargs=-1, required=True)
@with_client
def rm(client: Client, references: tuple[str, ...]) -> None:
    """Delete snapshots. What a rule of the recycle bin is about can be restored for a while."""
    for snapshot_id in [_find(client, reference) for reference in references]:
        client.ec2("DeleteSnapshot", SnapshotId=snapshot_id)
        click.echo(f"removed {snapshot_id}")


# --- the recycle bin ------------------------------------------------------------------------------------------------


@snapshot.group("bin")
def bin_() -> None:
    """The recycle bin: what it holds, and what it keeps."""


@bin_.command("ls")
@output_option
@with_client
def bin_ls(client: Client, output: str) -> None:
    """List deleted snapshots and images that can still be restored."""
    found = [
        {"ResourceId": one.get("SnapshotId") or one.get("ImageId"), **one}
        for one in [
            *client.pages("ListSnapshotsInRecycleBin", "Snapshots"),
            *client.pages("ListImagesInRecycleBin", "Images"),
        ]
    ]
    columns = (
        Column("ID", lambda one: one["ResourceId"]),
        Column("NAME", lambda one: one.get("Name")),
        Column("DELETED", lambda one: age(one.get("RecycleBinEnterTime"))),
        Column("UNTIL", lambda one: one.get("RecycleBinExitTime")),
        Column("DESCRIPTION", lambda one: one.get("Description"), wide=True),
    )
    print_listing(
        found, columns, output, nothing="the recycle bin is empty; `orc snapshot bin rules` shows what it keeps"
    )


@bin_.command()
@click.argument("resource_ids", metavar="ID...", nargs=-1, required=True)
@with_client
def restore(client: Client, resource_ids: tuple[str, ...]) -> None:
    """Take snapshots and images out of the recycle bin, in the order given: an image's snapshots before it."""
    for resource_id in resource_ids:
        if _IMAGE_ID.fullmatch(resource_id):
            client.ec2("RestoreImageFromRecycleBin", ImageId=resource_id)
        else:
            client.ec2("RestoreSnapshotFromRecycleBin", SnapshotId=resource_id)
        click.echo(f"restored {resource_id}")


@bin_.command()
@output_option
@with_client
def rules(client: Client, output: str) -> None:
    """List the rules by which deleted snapshots and images are kept. Of several the longest holds."""
    words = {value: name for name, value in TYPES.items()}
    columns = (
        Column("ID", lambda one: one["RuleId"]),
        Column("KEEPS", lambda one: words.get(one["ResourceType"], one["ResourceType"])),
        Column("DAYS", lambda one: one.get("RetentionDays")),
        Column("WITH A TAG OF", lambda one: [f"{tag['Key']}={tag.get('Value', '')}" for tag in one["ResourceTags"]]),
        Column("DESCRIPTION", lambda one: one.get("Description")),
    )
    found = client.orc("DescribeRetentionRules")["RetentionRules"]
    print_listing(
        found, columns, output, nothing="no rules: what is deleted is gone; `orc snapshot bin keep` makes one"
    )


@bin_.command()
@click.argument("what", type=click.Choice(sorted(TYPES)))
@click.argument("days", metavar="DAYS", type=click.IntRange(1, 365))
@click.option("--tag", "tag_words", multiple=True, metavar="KEY=VALUE", help="only what has one of these tags")
@click.option("--description", metavar="TEXT", help="what the rule is for")
@with_client
def keep(client: Client, what: str, days: int, tag_words: tuple[str, ...], description: str | None) -> None:
    """Keep what is deleted from now on for some days.

    \b
    orc snapshot bin keep snapshots 7
    orc snapshot bin keep images 30 --tag stage=production
    """
    given: dict[str, Any] = {"ResourceTags": [read_tag(word) for word in tag_words]} if tag_words else {}
    if description:
        given["Description"] = description
    made = client.orc("CreateRetentionRule", ResourceType=TYPES[what], RetentionDays=days, **given)
    click.echo(made["RetentionRule"]["RuleId"])


@bin_.command()
@click.argument("rule_ids", metavar="RULE...", nargs=-1, required=True)
@with_client
def forget(client: Client, rule_ids: tuple[str, ...]) -> None:
    """Delete rules. What is in the recycle bin already stays as long as it was to."""
    for rule_id in rule_ids:
        client.orc("DeleteRetentionRule", RuleId=rule_id)
        click.echo(f"removed {rule_id}")

"""Volumes: made, attached, changed and removed: `orc volume attach data web-1`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import click

from orchestrator.cli.arguments import (
    complete_instance,
    filter_option,
    filters_of,
    read_tag,
    timeout_option,
    with_client,
)
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
from orchestrator.cli.waiting import progress, wait_for

WAIT_TIMEOUT_S = 300.0
TYPES = ("gp3", "gp2", "io2", "io1", "st1", "sc1", "standard")
DEVICES = tuple(
    f"/dev/sd{letter}" for letter in "fghijklmnopqrstuvwxyz"
)  # those that EC2 recommends for data, and more

_ID = re.compile(r"vol-(?:[0-9a-f]{8}|[0-9a-f]{17})", re.ASCII)


@click.group()
def volume() -> None:
    """Volumes. One is given by its id, or by its name (the tag Name)."""


def find_volume(client: Client, reference: str) -> Document:
    if _ID.fullmatch(reference):
        found: list[Document] = client.ec2("DescribeVolumes", VolumeIds=[reference])["Volumes"]
    else:
        named = [{"Name": "tag:Name", "Values": [escape(reference)]}]
        found = client.pages("DescribeVolumes", "Volumes", Filters=named)
    if not found:
        raise NotFound(f"there is no volume '{reference}'; `orc volume ls` shows those that are there")
    if len(found) > 1:
        listed = ", ".join(f"{one['VolumeId']} ({one.get('State')})" for one in found)
        raise click.UsageError(f"'{reference}' may be any of {listed}: say which by its id")
    return found[0]


def _attached(one: Document) -> list[str]:
    return [f"{at['InstanceId']}:{at['Device']}" for at in one.get("Attachments", [])]


def _state(one: Document) -> str:
    """That of the attachment, while it changes, says more."""
    moving = [at["State"] for at in one.get("Attachments", []) if at.get("State") not in ("attached", None)]
    return str(moving[0] if moving else one.get("State", ""))


COLUMNS = (
    Column("NAME", name_of),
    Column("ID", lambda one: one["VolumeId"]),
    Column("STATE", _state, coloured=True),
    Column("GIB", lambda one: one.get("Size")),
    Column("TYPE", lambda one: one.get("VolumeType")),
    Column("ATTACHED TO", _attached),
    Column("AGE", lambda one: age(one.get("CreateTime"))),
    Column("ZONE", lambda one: one.get("AvailabilityZone"), wide=True),
    Column("IOPS", lambda one: one.get("Iops"), wide=True),
    Column("MIB/S", lambda one: one.get("Throughput"), wide=True),
    Column("ENCRYPTED", lambda one: one.get("Encrypted"), wide=True),
    Column("SNAPSHOT", lambda one: one.get("SnapshotId"), wide=True),
    Column("TAGS", all_tags, wide=True),
)


@volume.command()
@filter_option
@output_option
@with_client
def ls(client: Client, filter_words: tuple[str, ...], output: str) -> None:
    """List volumes."""
    found = client.pages("DescribeVolumes", "Volumes", Filters=filters_of(filter_words))
    print_listing(found, COLUMNS, output, nothing="no volumes")


@volume.command()
@click.argument("reference", metavar="VOLUME")
@output_option
@with_client
def show(client: Client, reference: str, output: str) -> None:
    """Show all about one volume: also whether it is well, and how far its newest modification is."""
    one = find_volume(client, reference)
    status = client.ec2("DescribeVolumeStatus", VolumeIds=[one["VolumeId"]])["VolumeStatuses"]
    changed = _modification(client, one["VolumeId"])
    if output in ("json", "yaml"):
        print_document({**one, "Status": status[0] if status else None, "Modification": changed}, output)
        return
    health = status[0] if status else {}
    print_facts(
        (
            ("id", one["VolumeId"]),
            ("name", name_of(one)),
            ("state", _state(one)),
            ("status", health.get("VolumeStatus", {}).get("Status")),
            ("because", [event.get("Description") for event in health.get("Events", [])]),
            ("size", f"{one.get('Size')} GiB"),
            ("type", one.get("VolumeType")),
            ("IOPS", one.get("Iops")),
            ("throughput", f"{one['Throughput']} MiB/s" if "Throughput" in one else None),
            ("zone", one.get("AvailabilityZone")),
            ("attached to", _attached(one)),
            ("goes with it", [at.get("DeleteOnTermination") for at in one.get("Attachments", [])]),
            ("snapshot", one.get("SnapshotId")),
            ("encrypted", one.get("Encrypted")),
            ("key", one.get("KmsKeyId")),
            ("modification", _words(changed) if changed else None),
            ("created", one.get("CreateTime")),
            ("tags", all_tags(one)),
        )
    )


def _modification(client: Client, volume_id: str) -> Document | None:
    """The newest, if there was one."""
    mine = [{"Name": "volume-id", "Values": [volume_id]}]
    found = client.pages("DescribeVolumesModifications", "VolumesModifications", Filters=mine)
    return found[0] if found else None


def _words(changed: Document) -> str:
    """`modifying 40%, size 8 -> 20`"""
    parts = [f"{changed.get('ModificationState')} {changed.get('Progress', 0)}%"]
    for name, member in (("size", "Size"), ("type", "VolumeType"), ("IOPS", "Iops"), ("MiB/s", "Throughput")):
        before, after = changed.get(f"Original{member}"), changed.get(f"Target{member}")
        if before != after:
            parts.append(f"{name} {before or '-'} -> {after or '-'}")
    if changed.get("StatusMessage"):
        parts.append(str(changed["StatusMessage"]))
    return ", ".join(parts)


# --- make and remove --------------------------------------------------------------------------------------------------


def _waiting_options(command: Any) -> Any:
    command = timeout_option(WAIT_TIMEOUT_S)(command)
    return click.option("--no-wait", is_flag=True, help="until it is asked for, not until it is done")(command)


@volume.command()
@click.argument("size_gib", metavar="[GIB]", type=click.IntRange(min=1), required=False)
@click.option("--snapshot", "snapshot_id", metavar="ID", help="what is on it; as large as it, if no size is given")
@click.option("--zone", help="the Availability Zone, or its letter  [default: the first]")
@click.option("--for", "instance", metavar="INSTANCE", shell_complete=complete_instance, help="in its zone")
@click.option("-t", "--type", "volume_type", type=click.Choice(TYPES), default="gp3", show_default=True)
@click.option("--iops", type=click.IntRange(min=1), help="operations a second, for gp3, io1 and io2")
@click.option("--throughput", type=click.IntRange(min=1), metavar="MIB/S", help="for gp3")
@click.option("--encrypted", is_flag=True, help="by the account's default key, or --key")
@click.option("--key", metavar="KEY", help="the key that encrypts it: id, ARN or alias/NAME")
@click.option("-n", "--name", help="its name: the tag Name")
@click.option("--tag", "tag_words", multiple=True, metavar="KEY=VALUE", help="a tag for it")
@_waiting_options
@with_client
def create(client: Client, *, no_wait: bool, timeout_s: float, **options: Any) -> None:
    """Make a volume: empty, or of a snapshot.

    \b
    orc volume create 10 --name data --for web-1
    orc volume create --snapshot snap-0123456789abcdef0 --encrypted
    """
    if options["size_gib"] is None and not options["snapshot_id"]:
        raise click.UsageError("say how large it is, in GiB, or --snapshot")
    tags = [{"Key": "Name", "Value": options["name"]}] if options["name"] else []
    tags += [read_tag(word) for word in options["tag_words"]]
    parameters = {
        "AvailabilityZone": _zone(client, options["zone"], options["instance"]),
        "Size": options["size_gib"],
        "SnapshotId": options["snapshot_id"],
        "VolumeType": options["volume_type"],
        "Iops": options["iops"],
        "Throughput": options["throughput"],
        "Encrypted": True if options["encrypted"] or options["key"] else None,
        "KmsKeyId": options["key"],
        "TagSpecifications": [{"ResourceType": "volume", "Tags": tags}] if tags else None,
        # A request that is sent twice, for whatever reason, makes one.
        "ClientToken": os.urandom(16).hex(),
    }
    given = {name: value for name, value in parameters.items() if value is not None}
    made = client.ec2("CreateVolume", **given)["VolumeId"]
    if not no_wait:
        _wait(client, made, "available", lambda one: one.get("State") == "available", timeout_s)
    click.echo(made)


def _zone(client: Client, zone: str | None, instance: str | None) -> str:
    if instance:
        if zone:
            raise click.UsageError("give --zone or --for, not both")
        return str(client.describe(instance)["Placement"]["AvailabilityZone"])
    if zone:
        return client.region + zone if len(zone) == 1 else zone
    return min(str(one["ZoneName"]) for one in client.ec2("DescribeAvailabilityZones")["AvailabilityZones"])


@volume.command()
@click.argument("references", metavar="VOLUME...", nargs=-1, required=True)
@with_client
def rm(client: Client, references: tuple[str, ...]) -> None:
    """Delete volumes that are not attached. Their snapshots stay."""
    wanted = list(dict.fromkeys(find_volume(client, reference)["VolumeId"] for reference in references))
    refused = False
    for volume_id in wanted:
        try:
            client.ec2("DeleteVolume", VolumeId=volume_id)
        except APIError as error:
            if len(wanted) == 1:
                raise
            note(f"{volume_id}: {error.format_message()}")
            refused = True
    if refused:
        raise SystemExit(EXIT_REFUSED)


# --- attach and detach ------------------------------------------------------------------------------------------------


@volume.command()
@click.argument("reference", metavar="VOLUME")
@click.argument("instance", metavar="INSTANCE", shell_complete=complete_instance)
@click.argument("device", required=False)
@_waiting_options
@with_client
def attach(client: Client, reference: str, instance: str, device: str | None, no_wait: bool, timeout_s: float) -> None:
    """Attach a volume to an instance of its zone, as DEVICE or the first that is free from /dev/sdf on.

    The guest finds it as /dev/disk/by-id/virtio-VOLUME, its id without the dash.
    """
    one = find_volume(client, reference)
    target = client.describe(instance)
    chosen = device or _free_device(target)
    volume_id = one["VolumeId"]
    client.ec2("AttachVolume", VolumeId=volume_id, InstanceId=target["InstanceId"], Device=chosen)
    if not no_wait:
        _wait(client, volume_id, "attached", lambda one: _attachment_state(one) == "attached", timeout_s)
    click.echo(chosen)


def _free_device(instance: Document) -> str:
    letters = {mapping["DeviceName"].rpartition("/")[2] for mapping in instance.get("BlockDeviceMappings", [])}
    for device in DEVICES:
        name = device.rpartition("/")[2]
        if not {name, "xvd" + name[2:]} & letters:
            return device
    raise click.UsageError(f"all of {DEVICES[0]} to {DEVICES[-1]} are in use: name another DEVICE, such as /dev/xvdba")


@volume.command()
@click.argument("reference", metavar="VOLUME")
@click.option("--force", is_flag=True, help="after some seconds without the guest's consent: it may lose data")
@_waiting_options
@with_client
def detach(client: Client, reference: str, force: bool, no_wait: bool, timeout_s: float) -> None:
    """Detach a volume from its instance; unmount it there first. A root volume leaves a stopped instance only."""
    volume_id = find_volume(client, reference)["VolumeId"]
    client.ec2("DetachVolume", VolumeId=volume_id, **({"Force": True} if force else {}))
    if not no_wait:
        _wait(client, volume_id, "detached", lambda one: not one.get("Attachments"), timeout_s)


def _attachment_state(one: Document) -> str:
    return next((str(at.get("State")) for at in one.get("Attachments", [])), "")


# --- change -----------------------------------------------------------------------------------------------------------


@volume.command()
@click.argument("reference", metavar="VOLUME")
@click.option("--size", "size_gib", type=click.IntRange(min=1), metavar="GIB", help="larger; never smaller")
@click.option("-t", "--type", "volume_type", type=click.Choice(TYPES), help="another type")
@click.option("--iops", type=click.IntRange(min=1), help="operations a second, for gp3, io1 and io2")
@click.option("--throughput", type=click.IntRange(min=1), metavar="MIB/S", help="for gp3")
@_waiting_options
@with_client
def modify(
    client: Client,
    reference: str,
    size_gib: int | None,
    volume_type: str | None,
    iops: int | None,
    throughput: int | None,
    no_wait: bool,
    timeout_s: float,
) -> None:
    """Change a volume while it is used. The guest sees the new size at once; its file system is the guest's to grow."""
    given = {"Size": size_gib, "VolumeType": volume_type, "Iops": iops, "Throughput": throughput}
    wanted = {name: value for name, value in given.items() if value is not None}
    if not wanted:
        raise click.UsageError("say what to change: --size, --type, --iops or --throughput")
    volume_id = find_volume(client, reference)["VolumeId"]
    changed = client.ec2("ModifyVolume", VolumeId=volume_id, **wanted)["VolumeModification"]
    if not no_wait:
        with progress(volume_id) as say:

            def look() -> Document | None:
                now = _modification(client, volume_id) or changed
                say(f"{now.get('ModificationState')} {now.get('Progress', 0)}%")
                # What comes after `modifying` happens in the background: the volume has its new shape.
                return None if now.get("ModificationState") == "modifying" else now

            changed = wait_for(look, f"the modification of {volume_id}", timeout_s)
    if changed.get("ModificationState") == "failed":
        raise click.ClickException(f"{volume_id} was not modified: {changed.get('StatusMessage') or 'it failed'}")
    click.echo(_words(changed))


def _wait(client: Client, volume_id: str, what: str, done: Callable[[Document], bool], timeout_s: float) -> None:
    def look() -> bool | None:
        one = find_volume(client, volume_id)
        if one.get("State") == "error":
            raise click.ClickException(f"{volume_id} is in error, so it will not be {what}")
        return done(one) or None

    with progress(volume_id) as say:
        say(f"waiting until it is {what}")
        wait_for(look, f"{volume_id} to be {what}", timeout_s)

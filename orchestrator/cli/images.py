"""Images: built from recipes, made of instances, imported from files, copied, shared, and mapped to the AMI ids of code
that was written for AWS.

    recipe --build------------------------------------>+
    file or URL --download, checksum, upload--import-->+--> image --share, deprecate, disable, rm-->
    instance --create--------------------------------->+
    image of any region --copy------------------------>+

A download is checked here, before anybody opens it; what is in the file is for the controller to distrust.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from orchestrator.cli.arguments import (
    filter_option,
    filters_of,
    instance_argument,
    read_tag,
    timeout_option,
    with_client,
)
from orchestrator.cli.client import Client, escape
from orchestrator.cli.launch import find_image
from orchestrator.cli.output import (
    Column,
    Document,
    age,
    all_tags,
    duration,
    moment,
    note,
    output_option,
    print_listing,
)
from orchestrator.cli.waiting import progress, transfer, wait_for

FORMATS = ("qcow2", "raw", "vmdk", "vhd", "vhdx", "ova")
BUILD_TIMEOUT_S = 3600.0
MAX_GIB = 32
CHUNK_BYTES = 1 << 20
DOWNLOAD_TIMEOUT_S = 60.0


@click.group()
def image() -> None:
    """Images: list, build, create, import, copy, share, map, remove."""


def _size_gib(one: Document) -> int | None:
    sizes = [mapping.get("Ebs", {}).get("VolumeSize") for mapping in one.get("BlockDeviceMappings", [])]
    return sizes[0] if sizes else None


COLUMNS = (
    Column("NAME", lambda one: one.get("Name")),
    Column("ID", lambda one: one["ImageId"]),
    Column("STATE", lambda one: one.get("State"), coloured=True),
    Column("ARCHITECTURE", lambda one: one.get("Architecture")),
    Column("GIB", _size_gib),
    Column("AGE", lambda one: age(one.get("CreationDate"))),
    Column("PUBLIC", lambda one: one.get("Public"), wide=True),
    Column("DEPRECATED", lambda one: one.get("DeprecationTime"), wide=True),
    Column("PROTECTION", lambda one: one.get("DeregistrationProtection"), wide=True),
    Column("ROOT", lambda one: one.get("RootDeviceName"), wide=True),
    Column("OWNER", lambda one: one.get("OwnerId"), wide=True),
    Column("DESCRIPTION", lambda one: one.get("Description"), wide=True),
    Column("TAGS", all_tags, wide=True),
)


@image.command()
@click.option("-a", "--all", "everything", is_flag=True, help="deprecated and disabled ones too")
@filter_option
@output_option
@with_client
def ls(client: Client, everything: bool, filter_words: tuple[str, ...], output: str) -> None:
    """List images."""
    asked = {"IncludeDeprecated": True, "IncludeDisabled": True} if everything else {}
    found = client.pages("DescribeImages", "Images", Filters=filters_of(filter_words), **asked)
    found.sort(key=lambda one: (one.get("Name", ""), one.get("CreationDate", "")))
    print_listing(found, COLUMNS, output, nothing="no images; `orc image recipes` shows what can be built")


@image.command()
@output_option
@with_client
def recipes(client: Client, output: str) -> None:
    """List the recipes that `orc image build` can run."""
    found = [{"Name": name} for name in client.orc("ListRecipes")["Recipes"]]
    print_listing(found, [Column("NAME", lambda one: one["Name"])], output, nothing="no recipes")


def _took(one: Document) -> str:
    began, ended = moment(one.get("Started", "")), moment(one.get("Finished", ""))
    return duration((ended - began).total_seconds()) if began and ended else ""


@image.command()
@output_option
@with_client
def builds(client: Client, output: str) -> None:
    """List builds and imports, newest first."""
    columns = (
        Column("ID", lambda one: one["BuildId"]),
        Column("NAME", lambda one: one.get("Name")),
        Column("FROM", lambda one: one.get("Source")),
        Column("STATE", lambda one: one.get("State"), coloured=True),
        Column("PHASE", lambda one: one.get("Phase")),
        Column("IMAGE", lambda one: one.get("ImageId")),
        Column("AGE", lambda one: age(one.get("Started"))),
        Column("TOOK", _took, wide=True),
        Column("MESSAGE", lambda one: one.get("Message"), wide=True),
    )
    print_listing(client.orc("DescribeBuilds")["Builds"], columns, output, nothing="nothing was built or imported yet")


def _waiting_options(command: Any) -> Any:
    command = timeout_option(BUILD_TIMEOUT_S)(command)
    return click.option("--no-wait", is_flag=True, help="leave it to the controller, and do not watch")(command)


@image.command()
@click.argument("name")
@_waiting_options
@with_client
def build(client: Client, name: str, no_wait: bool, timeout_s: float) -> None:
    """Run a recipe. The image of that name is replaced when it is done; instances of the old one go on."""
    _watch(client, client.orc("BuildImage", Name=name)["Build"], no_wait=no_wait, timeout_s=timeout_s)


def _watch(client: Client, begun: Document, *, no_wait: bool, timeout_s: float) -> None:
    """Until a build or import is done; prints the image's id."""
    build_id, name = begun["BuildId"], begun["Name"]
    if no_wait:
        click.echo(build_id)
        return
    try:
        with progress(f"image {name}") as say:

            def look() -> Document | None:
                now: Document = client.orc("DescribeBuilds", BuildIds=[build_id])["Builds"][0]
                say(now.get("Phase") or now["State"])
                return now if now["State"] in ("available", "failed") else None

            done = wait_for(look, f"the image {name}", timeout_s)
    except KeyboardInterrupt:
        note("\nit goes on without us: `orc image builds` shows how far it is")
        raise
    if done["State"] == "failed":
        raise click.ClickException(f"the image {name} was not made: {done.get('Message') or 'no reason is known'}")
    click.echo(done.get("ImageId", ""))


@image.command("import")
@click.argument("source", metavar="FILE|URL")
@click.option("--sha512", metavar="HEX", help="what the file's SHA-512 must be; a URL must have one")
@click.option("--name", help="the image's name  [default: after the file]")
@click.option("--format", "file_format", type=click.Choice(FORMATS), help="what it is  [default: by its ending]")
@click.option("--user", metavar="USER", help="who logs in  [default: ec2-user]")
@click.option("--max-size", "max_gib", type=click.IntRange(min=1), default=MAX_GIB, show_default=True, metavar="GIB")
@_waiting_options
@with_client
def import_(
    client: Client,
    source: str,
    sha512: str | None,
    name: str | None,
    file_format: str | None,
    user: str | None,
    max_gib: int,
    no_wait: bool,
    timeout_s: float,
) -> None:
    """Make an image of a disk image file, for example a distribution's cloud image.

    The file is read as the stated format only, never by what it claims to be.

    \b
    orc image import debian-12-genericcloud-amd64.qcow2 --name debian --user debian
    """
    is_url = source.startswith(("http://", "https://"))
    file_name = Path(unquote(urlsplit(source).path)).name if is_url else Path(source).name
    if sha512 is not None and not re.fullmatch(r"[0-9a-fA-F]{128}", sha512):
        raise click.UsageError("--sha512: expected 128 hexadecimal digits, as sha512sum prints them")
    if is_url and sha512 is None:
        raise click.UsageError("a URL needs --sha512, as its publisher states it: what comes over the net is checked")
    file_format = file_format or _format_of(file_name)
    name = name or _name_of(file_name)
    with _fetched(source, max_gib << 30) if is_url else _opened(source) as path:
        digest = _hash(path, file_name)
        if sha512 is not None and digest != sha512.lower():
            removed = "; what was downloaded is removed" if is_url else ""
            raise click.ClickException(f"{file_name} has the SHA-512 {digest}, not {sha512.lower()}{removed}")
        answer = _upload(client, path, file_name)
    if answer["Sha512"] != digest:
        raise click.ClickException(f"{file_name} arrived damaged, with the SHA-512 {answer['Sha512']}: try again")
    parameters = {"Name": name, "UploadId": answer["UploadId"], "Format": file_format}
    if user:
        parameters["LoginUser"] = user
    _watch(client, client.orc("ImportImage", **parameters)["Build"], no_wait=no_wait, timeout_s=timeout_s)


def _format_of(file_name: str) -> str:
    ending = file_name.rpartition(".")[2].lower()
    if ending not in FORMATS:
        raise click.UsageError(f"--format: what '{file_name}' is cannot be told by its ending: {', '.join(FORMATS)}")
    return ending


def _name_of(file_name: str) -> str:
    name = re.sub(r"[^a-z0-9.-]+", "-", file_name.rpartition(".")[0].lower() or file_name.lower()).strip("-.")[:63]
    if not name:
        raise click.UsageError(f"--name: '{file_name}' gives no name for the image")
    return name


@contextmanager
def _opened(source: str) -> Iterator[Path]:
    path = Path(source)
    if not path.is_file():
        raise click.UsageError(f"there is no file '{source}'")
    yield path


@contextmanager
def _fetched(url: str, limit_bytes: int) -> Iterator[Path]:
    """The file behind a URL, which is gone at the end. It is written where temporary files are: TMPDIR moves it."""
    import tempfile
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    with tempfile.NamedTemporaryFile(prefix="orc-import-") as kept:
        try:
            with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_S) as answer:  # noqa: S310 - http(s) only
                stated = answer.headers.get("Content-Length", "")
                total = int(stated) if stated.isdecimal() else None
                if total is not None and total > limit_bytes:
                    raise _too_large(url, limit_bytes)
                got = 0
                with transfer(f"download {url.rpartition('/')[2]}", total) as advance:
                    while data := answer.read(CHUNK_BYTES):
                        got += len(data)
                        if got > limit_bytes:
                            raise _too_large(url, limit_bytes)
                        kept.write(data)
                        advance(len(data))
            if total is not None and got != total:
                raise click.ClickException(f"{url} ended after {got} of {total} bytes: try again")
        except urllib.error.HTTPError as error:
            error.close()
            raise click.ClickException(f"{url} cannot be downloaded: HTTP {error.code} {error.reason}") from None
        except (OSError, ValueError, HTTPException) as error:  # a chunked answer that is cut off is the last
            raise click.ClickException(f"{url} cannot be downloaded: {error}") from None
        kept.flush()
        yield Path(kept.name)


def _too_large(url: str, limit_bytes: int) -> click.ClickException:
    return click.ClickException(f"{url} is larger than {limit_bytes >> 30} GiB; --max-size allows more")


def _hash(path: Path, name: str) -> str:
    digest = hashlib.sha512()
    with path.open("rb") as file, transfer(f"checksum {name}", path.stat().st_size) as advance:
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
            advance(len(data))
    return digest.hexdigest()


class _Told:
    """A file that tells how far it was read."""

    def __init__(self, file: Any, advance: Any) -> None:
        self._file = file
        self._advance = advance

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = self._file.read(size)
        self._advance(len(data))
        return data


def _upload(client: Client, path: Path, name: str) -> dict[str, Any]:
    size_bytes = path.stat().st_size
    with path.open("rb") as file, transfer(f"upload {name}", size_bytes) as advance:
        return client.upload(_Told(file, advance), size_bytes)


# --- of instances, and of other images --------------------------------------------------------------------------------


@image.command()
@instance_argument
@click.argument("name")
@click.option("--no-reboot", is_flag=True, help="do not shut it down for this: its guest agent is asked to hold still")
@click.option("--description", metavar="TEXT", help="what it is")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="a tag for the image and its snapshots")
@_waiting_options
@with_client
def create(
    client: Client,
    instance: str,
    name: str,
    no_reboot: bool,
    description: str | None,
    tags: tuple[str, ...],
    no_wait: bool,
    timeout_s: float,
) -> None:
    """Make an image of an instance: of all its volumes, at one moment.

    A running instance is shut down for it, and started again. With --no-reboot it goes on; without a guest agent what
    it had not written yet is then missing, as after a power cut.

    \b
    orc image create web-1 web-2026-05
    """
    parameters: Document = {"InstanceId": client.find_one(instance), "Name": name, "NoReboot": no_reboot}
    answer = client.ec2("CreateImage", **parameters, **_described(description, tags))
    made = _await(client, answer["ImageId"], name, no_wait=no_wait, timeout_s=timeout_s)
    if made is not None and no_reboot:
        _tell_consistency(client, made)


@image.command()
@click.argument("source", metavar="IMAGE")
@click.argument("name")
@click.option("--from", "region", metavar="REGION", help="the region that it is in  [default: this one]")
@click.option("--encrypt", is_flag=True, help="encrypt its disks, with the default key if no other is named")
@click.option("--key", metavar="KEY", help="the key that encrypts them: its id, ARN or alias")
@click.option("--description", metavar="TEXT", help="what it is")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="a tag for the image and its snapshots")
@click.option("--copy-tags", is_flag=True, help="give it the tags of the image too")
@_waiting_options
@with_client
def copy(
    client: Client,
    source: str,
    name: str,
    region: str | None,
    encrypt: bool,
    key: str | None,
    description: str | None,
    tags: tuple[str, ...],
    copy_tags: bool,
    no_wait: bool,
    timeout_s: float,
) -> None:
    """Copy an image into this region. Under the same key that takes no time, however large it is.

    \b
    orc --region eu-west-1 image copy debian-12 mine --from us-east-1
    orc image copy debian-12 debian-12-secret --encrypt
    """
    there = client if region is None else Client(replace(client.endpoint, region=region))
    parameters: Document = {
        "SourceImageId": find_image(there, source)["ImageId"],
        "SourceRegion": there.region,
        "Name": name,
        "CopyImageTags": copy_tags,
        "ClientToken": os.urandom(16).hex(),
    }
    if encrypt or key:
        parameters["Encrypted"] = True
    if key:
        parameters["KmsKeyId"] = key
    answer = client.ec2("CopyImage", **parameters, **_described(description, tags))
    _await(client, answer["ImageId"], name, no_wait=no_wait, timeout_s=timeout_s)


def _described(description: str | None, words: tuple[str, ...]) -> Document:
    tags = [read_tag(word) for word in words]
    found: Document = {"Description": description} if description else {}
    if tags:
        found["TagSpecifications"] = [{"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")]
    return found


def _await(client: Client, image_id: str, name: str, *, no_wait: bool, timeout_s: float) -> Document | None:
    """Until an image can be launched; prints its id."""
    made: Document | None = None
    if not no_wait:
        with progress(f"image {name}") as say:

            def look() -> Document | None:
                now: Document = client.ec2("DescribeImages", ImageIds=[image_id])["Images"][0]
                say(now["State"])
                return None if now["State"] == "pending" else now

            made = wait_for(look, f"the image {name} ({image_id})", timeout_s)
        if made["State"] == "failed":
            reason = made.get("StateReason", {}).get("Message") or "no reason is known"
            raise click.ClickException(f"the image {name} ({image_id}) was not made: {reason}")
    click.echo(image_id)
    return made


def _tell_consistency(client: Client, made: Document) -> None:
    devices = [device.get("Ebs", {}) for device in made.get("BlockDeviceMappings", [])]
    snapshots = [device["SnapshotId"] for device in devices if "SnapshotId" in device]
    details = client.orc("DescribeSnapshotDetails", SnapshotIds=snapshots)["Snapshots"]
    if any(one.get("Consistency") == "crash" for one in details):
        note("no guest agent held the file systems still: the disks are as after a power cut")


# --- who may launch it, and whether -----------------------------------------------------------------------------------


def _own_image(client: Client, name: str) -> Document:
    """An image of whatever state to be changed: the one with an id, the caller's newest of a name."""
    if not name.startswith("ami-"):
        filters = [{"Name": "name", "Values": [escape(name)]}]
        own = client.pages("DescribeImages", "Images", Owners=["self"], IncludeDisabled=True, Filters=filters)
        if own:
            return max(own, key=lambda one: str(one.get("CreationDate", "")))
    return find_image(client, name)


@image.command()
@click.argument("name", metavar="IMAGE")
@click.argument("accounts", metavar="[ACCOUNT|all]...", nargs=-1)
@click.option("--remove", is_flag=True, help="take the permission back")
@with_client
def share(client: Client, name: str, accounts: tuple[str, ...], remove: bool) -> None:
    """Let accounts, or all, launch an image. Without an account, show who may.

    \b
    orc image share web-2026-05 444455556666
    orc image share web-2026-05 all --remove
    """
    image_id = _own_image(client, name)["ImageId"]
    if accounts:
        named = [{"Group": account} if account == "all" else {"UserId": account} for account in accounts]
        side = "Remove" if remove else "Add"
        client.ec2("ModifyImageAttribute", ImageId=image_id, LaunchPermission={side: named})
    answer = client.ec2("DescribeImageAttribute", ImageId=image_id, Attribute="launchPermission")
    permitted = [one.get("UserId") or one.get("Group", "") for one in answer.get("LaunchPermissions", [])]
    click.echo(f"{image_id}  shared with {', '.join(permitted) or 'nobody'}")


@image.command()
@click.argument("name", metavar="IMAGE")
@click.argument("date", metavar="DATE", required=False)
@click.option("--never", is_flag=True, help="take it back")
@with_client
def deprecate(client: Client, name: str, date: str | None, never: bool) -> None:
    """List an image for nobody but its owner from a date on: 2027-01-31, or 2027-01-31T12:00 in UTC.

    Who knows its id can go on launching it.
    """
    if never == bool(date):
        raise click.UsageError("expected a DATE, or --never")
    image_id = _own_image(client, name)["ImageId"]
    if date is None:
        client.ec2("DisableImageDeprecation", ImageId=image_id)
        click.echo(f"{image_id}  is not deprecated")
        return
    try:
        at = datetime.fromisoformat(date.replace("Z", "+00:00"))
    except ValueError:
        raise click.UsageError(f"'{date}' is no date: expected 2027-01-31 or 2027-01-31T12:00") from None
    at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    client.ec2("EnableImageDeprecation", ImageId=image_id, DeprecateAt=f"{at:%Y-%m-%dT%H:%M:%SZ}")
    click.echo(f"{image_id}  is deprecated from {at:%Y-%m-%d %H:%M} UTC")


@image.command()
@click.argument("name", metavar="IMAGE")
@with_client
def disable(client: Client, name: str) -> None:
    """Let nobody launch an image, nor see it but its owner. Whom it was shared with loses it."""
    image_id = _own_image(client, name)["ImageId"]
    client.ec2("DisableImage", ImageId=image_id)
    click.echo(f"{image_id}  disabled")


@image.command()
@click.argument("name", metavar="IMAGE")
@with_client
def enable(client: Client, name: str) -> None:
    """Let a disabled image be launched again."""
    image_id = _own_image(client, name)["ImageId"]
    client.ec2("EnableImage", ImageId=image_id)
    click.echo(f"{image_id}  available")


@image.command()
@click.argument("name", metavar="IMAGE")
@click.option("--cooldown", is_flag=True, help="and for a day after it is taken back")
@click.option("--off", is_flag=True, help="take it back")
@with_client
def protect(client: Client, name: str, cooldown: bool, off: bool) -> None:
    """Refuse to remove an image."""
    image_id = _own_image(client, name)["ImageId"]
    if off:
        answer = client.ec2("DisableImageDeregistrationProtection", ImageId=image_id)
    else:
        answer = client.ec2("EnableImageDeregistrationProtection", ImageId=image_id, WithCooldown=cooldown)
    click.echo(f"{image_id}  protection {answer['Return']}")


@image.command()
@click.argument("name", metavar="IMAGE")
@click.option("-y", "--yes", is_flag=True, help="do not ask")
@click.option("--keep-snapshots", is_flag=True, help="leave its snapshots where they are")
@with_client
def rm(client: Client, name: str, yes: bool, keep_snapshots: bool) -> None:
    """Remove an image (the newest of a name, or the one with an id) and its snapshots. Instances of it go on."""
    found = _own_image(client, name)
    if not yes and sys.stdin.isatty() and not click.confirm(f"Remove {found.get('Name')} ({found['ImageId']})?"):
        note("nothing was removed")
        return
    answer = client.ec2("DeregisterImage", ImageId=found["ImageId"], DeleteAssociatedSnapshots=not keep_snapshots)
    for result in answer.get("DeleteSnapshotResults", []):
        if result.get("ReturnCode") not in ("success", None):
            note(f"{result['SnapshotId']} stays: {result['ReturnCode']}")
    click.echo(f"removed {found['ImageId']}")


@image.command("map")
@click.argument("image_id", metavar="AMI")
@click.argument("name", metavar="IMAGE")
@with_client
def map_(client: Client, image_id: str, name: str) -> None:
    """Let an AMI id of existing code mean the newest image of a name, in every region.

    \b
    orc image map ami-0abcdef1234567890 debian-12
    """
    client.orc("MapImage", ImageId=image_id, Name=name)
    click.echo(f"{image_id} -> {name}")


@image.command()
@output_option
@with_client
def maps(client: Client, output: str) -> None:
    """List what `orc image map` said."""
    columns = (Column("ID", lambda one: one["ImageId"]), Column("IMAGE", lambda one: one.get("Name")))
    print_listing(client.orc("DescribeImageMaps")["ImageMaps"], columns, output, nothing="no AMI ids are mapped")


@image.command()
@click.argument("image_id", metavar="AMI")
@with_client
def unmap(client: Client, image_id: str) -> None:
    """Forget what `orc image map` said of an AMI id."""
    client.orc("UnmapImage", ImageId=image_id)


@image.command()
@click.argument("name", metavar="IMAGE")
@click.option("--format", "file_format", type=click.Choice(("vmdk", "raw", "vhd")), default="vmdk", show_default=True)
@click.option("--bucket", default="exports", show_default=True, help="the folder, as S3 has buckets")
@click.option("--prefix", default="", help="what its path in the folder begins with: machines/")
@_waiting_options
@with_client
def export(
    client: Client, name: str, file_format: str, bucket: str, prefix: str, no_wait: bool, timeout_s: float
) -> None:
    """Write an image's disk to a file on the controller's host, and print where it is.

    \b
    orc image export debian-12-web --format vmdk
    """
    found = find_image(client, name)
    location = {"S3Bucket": bucket} | ({"S3Prefix": prefix} if prefix else {})
    asked = {"ImageId": found["ImageId"], "DiskImageFormat": file_format.upper(), "S3ExportLocation": location}
    task_id = client.ec2("ExportImage", **asked)["ExportImageTaskId"]
    if no_wait:
        click.echo(task_id)
        return
    with progress(f"export {name}") as say:

        def look() -> Document | None:
            now: Document = client.ec2("DescribeExportImageTasks", ExportImageTaskIds=[task_id])["ExportImageTasks"][0]
            if now["Status"] == "active":
                say(f"{now.get('StatusMessage', 'active')}, {now.get('Progress', '0')} %")
            return now if now["Status"] in ("completed", "deleted") else None

        try:
            done = wait_for(look, f"the export of {name}", timeout_s)
        except KeyboardInterrupt:
            client.ec2("CancelExportTask", ExportTaskId=task_id)
            note("\nthe export is cancelled")
            raise
    if done["Status"] != "completed":
        raise click.ClickException(f"{name} was not exported: {done.get('StatusMessage') or 'no reason is known'}")
    click.echo(done["StatusMessage"])

"""Images: built from recipes, imported from files, mapped to the AMI ids of code that was written for AWS.

    recipe --build-->                                  +--> image
    file or URL --download, checksum, upload--import-->+

A download is checked here, before anybody opens it; what is in the file is for the controller to distrust.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from orchestrator.cli.arguments import filter_option, filters_of, timeout_option, with_client
from orchestrator.cli.client import Client
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

FORMATS = ("qcow2", "raw", "vmdk", "vhd", "vhdx")
BUILD_TIMEOUT_S = 3600.0
MAX_GIB = 32
CHUNK_BYTES = 1 << 20
DOWNLOAD_TIMEOUT_S = 60.0


@click.group()
def image() -> None:
    """Images: list, build, import, map, remove."""


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
    Column("ROOT", lambda one: one.get("RootDeviceName"), wide=True),
    Column("OWNER", lambda one: one.get("OwnerId"), wide=True),
    Column("DESCRIPTION", lambda one: one.get("Description"), wide=True),
    Column("TAGS", all_tags, wide=True),
)


@image.command()
@filter_option
@output_option
@with_client
def ls(client: Client, filter_words: tuple[str, ...], output: str) -> None:
    """List images."""
    found = client.pages("DescribeImages", "Images", Filters=filters_of(filter_words))
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
        except (OSError, ValueError) as error:
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


@image.command()
@click.argument("name", metavar="IMAGE")
@click.option("-y", "--yes", is_flag=True, help="do not ask")
@with_client
def rm(client: Client, name: str, yes: bool) -> None:
    """Remove an image (the newest of a name, or the one with an id) and its snapshots. Instances of it go on."""
    found = find_image(client, name)
    if not yes and sys.stdin.isatty() and not click.confirm(f"Remove {found.get('Name')} ({found['ImageId']})?"):
        note("nothing was removed")
        return
    answer = client.ec2("DeregisterImage", ImageId=found["ImageId"], DeleteAssociatedSnapshots=True)
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

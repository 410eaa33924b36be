"""Key pairs, and the key store: private halves, one file each, readable by their owner only."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.arguments import filter_option, filters_of, with_client
from orchestrator.cli.client import APIError, Client
from orchestrator.cli.output import Column, Document, age, all_tags, note, output_option, print_listing
from orchestrator.cli.session import key_file, write_private


@click.group()
def key() -> None:
    """Key pairs, and where their private halves are kept."""


def _kept(pair: Document) -> str:
    path = key_file(pair["KeyName"])
    return str(path) if path.exists() else ""


COLUMNS = (
    Column("NAME", lambda pair: pair["KeyName"]),
    Column("TYPE", lambda pair: pair.get("KeyType")),
    Column("PRIVATE KEY", _kept),
    Column("AGE", lambda pair: age(pair.get("CreateTime"))),
    Column("ID", lambda pair: pair.get("KeyPairId"), wide=True),
    Column("FINGERPRINT", lambda pair: pair.get("KeyFingerprint"), wide=True),
    Column("TAGS", all_tags, wide=True),
)


@key.command()
@filter_option
@output_option
@with_client
def ls(client: Client, filter_words: tuple[str, ...], output: str) -> None:
    """List key pairs."""
    pairs = client.ec2("DescribeKeyPairs", Filters=filters_of(filter_words))["KeyPairs"]
    print_listing(pairs, COLUMNS, output, nothing="no key pairs; `orc key create NAME` makes one")


@key.command()
@click.argument("name")
@click.option("--type", "key_type", type=click.Choice(["ed25519", "rsa"]), default="ed25519", show_default=True)
@with_client
def create(client: Client, name: str, key_type: str) -> None:
    """Make a key pair, and keep its private half in the key store."""
    path = key_file(name)
    if path.exists() or path.is_symlink():
        raise click.UsageError(f"{path} is there already: remove it (`orc key rm {name}`) or take another name")
    made = client.ec2("CreateKeyPair", KeyName=name, KeyType=key_type)
    try:
        write_private(path, made["KeyMaterial"])
    except OSError as error:
        client.ec2("DeleteKeyPair", KeyName=name)  # nobody would ever have its private half
        raise click.ClickException(f"{path} cannot be written ({error.strerror}), so no key pair was made") from None
    click.echo(path)


@key.command("import")
@click.argument("name")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@with_client
def import_(client: Client, name: str, file: Path) -> None:
    """Make a key pair of the public key in FILE, for example ~/.ssh/id_ed25519.pub.

    When the private half lies beside it, `orc ssh` will use it where it is.
    """
    private = file.with_suffix("") if file.suffix == ".pub" else file
    public = file if file.suffix == ".pub" else file.with_name(file.name + ".pub")
    if not public.is_file():
        public = file
    material = public.read_bytes()
    if b"PRIVATE KEY" in material:
        raise click.UsageError(
            f"{file} is a private key, which stays with you. `ssh-keygen -y -f {file} > {file}.pub` makes its public "
            f"half; then import {file}.pub"
        )
    client.ec2("ImportKeyPair", KeyName=name, PublicKeyMaterial=material)
    path = key_file(name)
    is_private = private != public and private.is_file() and b"PRIVATE KEY" in private.read_bytes()
    if is_private and not path.exists() and not path.is_symlink():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.symlink_to(private.resolve())
        click.echo(f"{path} -> {private.resolve()}")
    elif not path.exists():
        note(f"its private half is not known here: `orc ssh` will need -i FILE, or put it at {path}")


@key.command()
@click.argument("name")
@click.option("--keep-file", is_flag=True, help="leave the private half in the key store")
@with_client
def rm(client: Client, name: str, keep_file: bool) -> None:
    """Delete a key pair, and its private half in the key store. Instances that know it still take it."""
    path = key_file(name)
    known = True
    try:
        client.ec2("DescribeKeyPairs", KeyNames=[name])
    except APIError as error:
        # EC2 deletes what is not there without a word; a person has mistyped.
        if error.code != "InvalidKeyPair.NotFound" or not path.exists():
            raise
        known = False
    if known:
        client.ec2("DeleteKeyPair", KeyName=name)
    if not keep_file and (path.exists() or path.is_symlink()):
        path.unlink()
        click.echo(f"removed {path}")

"""For other tools: credentials as export lines and as a profile, a shell's completion, and who calls at all."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from orchestrator.cli.arguments import with_client
from orchestrator.cli.client import Client
from orchestrator.cli.output import output_option, print_document, print_facts
from orchestrator.cli.session import Endpoint, aws_files, session_of, write_private

VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "ORC_ENDPOINT",
)


@click.command()
@click.option("--unset", is_flag=True, help="lines that take it back")
@click.pass_context
def env(context: click.Context, unset: bool) -> None:
    """Print export lines, for orc and AWS tools in this shell.

    \b
    eval "$(orc env)"          with root's credentials: eval "$(sudo orc env)"
    eval "$(orc env --unset)"
    """
    if unset:
        click.echo(f"unset {' '.join(VARIABLES)}")
        return
    values = _variables(session_of(context).resolve())
    left_over = [name for name in VARIABLES if name not in values]
    click.echo(f"unset {' '.join(left_over)}")
    for name, value in values.items():
        click.echo(f"export {name}={shlex.quote(value)}")


def _variables(endpoint: Endpoint) -> dict[str, str]:
    values = {
        "AWS_ACCESS_KEY_ID": endpoint.access_key_id,
        "AWS_SECRET_ACCESS_KEY": endpoint.secret_access_key,
        "AWS_DEFAULT_REGION": endpoint.region,
        "AWS_REGION": endpoint.region,
        "AWS_ENDPOINT_URL": endpoint.url,
        "ORC_ENDPOINT": endpoint.url,
    }
    return values | ({"AWS_SESSION_TOKEN": endpoint.session_token} if endpoint.session_token else {})


@click.command("configure-aws")
@click.option("--profile", "name", default="orc", show_default=True, help="the profile to write")
@click.pass_context
def configure_aws(context: click.Context, name: str) -> None:
    """Write a profile for AWS tools: `aws --profile orc ec2 describe-instances`. What else is in their files stays."""
    write_profile(name, session_of(context).resolve())


def write_profile(name: str, endpoint: Endpoint) -> None:
    """Under that name in AWS tools' own files, and say so."""
    config_path, credentials_path = aws_files(os.environ)
    section = "default" if name == "default" else f"profile {name}"
    _rewrite(config_path, section, {"region": endpoint.region, "endpoint_url": endpoint.url})
    secret = {"aws_access_key_id": endpoint.access_key_id, "aws_secret_access_key": endpoint.secret_access_key}
    if endpoint.session_token:
        secret["aws_session_token"] = endpoint.session_token
    _rewrite(credentials_path, name, secret)
    click.echo(f"wrote the profile '{name}' to {config_path} and {credentials_path}")
    click.echo(f"try: aws --profile {shlex.quote(name)} ec2 describe-instances")


def _rewrite(path: Path, section: str, values: dict[str, str]) -> None:
    try:
        before = path.read_bytes().decode() if path.exists() else ""
        # Through a link, which people have who keep their dot files elsewhere.
        write_private(path.resolve(), with_section(before, section, values))
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} cannot be written: {error}") from None


def with_section(text: str, section: str, values: dict[str, str]) -> str:
    """An INI text in which `section` has exactly these values for these names; every other line as it was."""
    lines = text.splitlines(keepends=True)
    end_of_line = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    fresh = [f"{name} = {value}{end_of_line}" for name, value in values.items()]
    at = next((number for number, line in enumerate(lines) if _heading(line) == section), None)
    if at is None:
        gap = [end_of_line] if lines and lines[-1].strip() else []
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += end_of_line
        return "".join([*lines, *gap, f"[{section}]{end_of_line}", *fresh])
    end = next((n for n in range(at + 1, len(lines)) if _heading(lines[n]) is not None), len(lines))
    kept, dropping = [], False
    for line in lines[at + 1 : end]:
        if line[:1] in (" ", "\t"):  # goes on from the line before, or belongs to it
            if dropping:
                continue
        else:
            dropping = line.partition("=")[0].strip().lower() in values and "=" in line
        if not dropping:
            kept.append(line)
    heading = lines[at] if lines[at].endswith("\n") else lines[at] + end_of_line
    return "".join([*lines[:at], heading, *fresh, *kept, *lines[end:]])


def _heading(line: str) -> str | None:
    """What stands in the brackets of a section's first line."""
    words = line.strip()
    if not words.startswith("[") or "]" not in words:
        return None
    return " ".join(words[1 : words.index("]")].replace('"', "").split())


@click.command()
@output_option
@with_client
def whoami(client: Client, output: str) -> None:
    """Show who calls, and where."""
    identity = client.call("sts", "GetCallerIdentity")
    at = client.endpoint
    if output in ("json", "yaml"):
        print_document({**identity, "Endpoint": at.url, "Region": at.region, "AccessKeyId": at.access_key_id}, output)
        return
    print_facts(
        [
            ("account", identity.get("Account")),
            ("arn", identity.get("Arn")),
            ("access key", at.access_key_id),
            ("endpoint", at.url),
            ("region", at.region),
        ]
    )


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a shell's completion script, which completes commands and the names of instances.

    \b
    bash: eval "$(orc completion bash)"           in ~/.bashrc
    zsh:  eval "$(orc completion zsh)"            in ~/.zshrc
    fish: orc completion fish | source            in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    # Not .source(), which would first run bash to ask for its version.
    made = found(context.find_root().command, {}, "orc", "_ORC_COMPLETE")
    click.echo(made.source_template % made.source_vars())

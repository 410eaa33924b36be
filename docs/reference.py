"""Writes docs/reference/ from the code: commands, configuration keys, API operations.

.venv/bin/python docs/reference.py            write the pages
.venv/bin/python docs/reference.py --check    exit 1 when a page is not what the code says
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

import click

from orchestrator.api import operations
from orchestrator.api.gateway import load_models
from orchestrator.api.operation import bind_operations
from orchestrator.config import KEYS

PAGES = Path(__file__).parent / "reference"
NOTE = "<!-- Written by docs/reference.py: change the code and run it again. -->\n"


def prose(help_text: str) -> str:
    """A command's help as Markdown; paragraphs that click is told not to wrap (after a backspace) are fenced."""
    paragraphs = inspect.cleandoc(help_text).split("\n\n")
    fenced = [f"```\n{text[2:]}\n```" if text.startswith("\b\n") else text for text in paragraphs]
    return "\n\n".join(fenced)


def commands() -> str:
    from orchestrator.__main__ import cli

    lines = ["# Commands", "", NOTE, "Exit codes: see [the guide](../guide.md#exit-codes).", ""]
    context = click.Context(cli, info_name="orc")

    def walk(command: click.Command, parent: click.Context) -> None:
        if isinstance(command, click.Group):
            for name in command.list_commands(parent):
                below = command.get_command(parent, name)
                if below is not None and not below.hidden:
                    walk(below, click.Context(below, info_name=name, parent=parent))
            return
        lines.extend([f"## {parent.command_path}", "", prose(command.help or ""), ""])
        usage = " ".join(command.collect_usage_pieces(parent))
        lines.extend(["```", f"{parent.command_path} {usage}".strip(), "```", ""])
        rows = [parameter.get_help_record(parent) for parameter in command.get_params(parent)]
        shown = [row for row in rows if row is not None and row[0] != "--help"]
        if shown:
            lines.extend(["| option | meaning |", "|---|---|"])
            lines.extend(f"| `{option.replace('|', chr(92) + '|')}` | {about} |" for option, about in shown)
            lines.append("")

    walk(cli, context)
    return "\n".join(lines).rstrip() + "\n"


def configuration() -> str:
    lines = [
        "# Configuration",
        "",
        NOTE,
        "Defaults, then a file (TOML; `--config`, `ORC_CONFIG`, `/etc/orchestrator/config.toml` or "
        "`~/.config/orchestrator/config.toml`), then the environment, then flags. A key `a.b` is `b` in the file's "
        "`[a]` table. `orc config` shows the effective values and where each came from.",
        "",
        "| key | environment | flag | default | meaning |",
        "|---|---|---|---|---|",
    ]
    for key in KEYS:
        default = str(key.default) or "(empty)"
        about = key.about + (f" ({', '.join(key.allowed)})" if key.allowed else "")
        lines.append(f"| `{key.name}` | `{key.variable}` | `{key.flag}` | `{default}` | {about} |")
    return "\n".join(lines) + "\n"


def api_operations() -> str:
    models = load_models()
    operations.load()
    bound = bind_operations(models)
    lines = [
        "# Operations",
        "",
        NOTE,
        "Every other operation of these services answers `UnsupportedOperation`. A parameter that is not listed is "
        "refused, naming it. `DryRun` and `ClientToken` are taken wherever the service's model has them; operations "
        "that list resources take `Filters`, `MaxResults` and `NextToken` where it has them.",
        "",
    ]
    for service in models:
        lines.extend([f"## {service}", "", "| operation | parameters |", "|---|---|"])
        for (owner, name), operation in sorted(bound.items()):
            if owner == service:
                parameters = ", ".join(f"`{member}`" for member in operation.names) or "none"
                lines.append(f"| `{name}` | {parameters} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def pages() -> dict[str, str]:
    return {"commands.md": commands(), "configuration.md": configuration(), "operations.md": api_operations()}


def main() -> int:
    stale = []
    for name, text in pages().items():
        path = PAGES / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                PAGES.mkdir(exist_ok=True)
                path.write_text(text)
    for name in stale:
        print(f"docs/reference/{name} {'is not what the code says' if '--check' in sys.argv else 'written'}")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())

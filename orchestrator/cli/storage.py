"""`orc storage`: the tree of layers, where the space goes, whether the files are well, and what could be freed."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import click
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from orchestrator.cli.arguments import with_client
from orchestrator.cli.client import Client
from orchestrator.cli.output import Document, note, output_option, print_document, print_facts
from orchestrator.cli.session import EXIT_REFUSED
from orchestrator.cli.waiting import progress

WIDTH = 120  # where there is no terminal to ask
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@click.group(invoke_without_command=True)
@click.option("--graph", is_flag=True, help="as a drawing for Graphviz: orc storage --graph | dot -Tsvg")
@output_option
@click.pass_context
def storage(context: click.Context, graph: bool, output: str) -> None:
    """Layers: the tree of them, what each is needed for, and where the space goes.

    \b
    orc storage
    orc storage verify
    orc storage gc
    """
    if context.invoked_subcommand is None:
        context.invoke(show, graph=graph, output=output)


@click.command(hidden=True)
@with_client
def show(client: Client, graph: bool, output: str) -> None:
    found = client.orc("DescribeStorage")
    if output in ("json", "yaml"):
        print_document(found, output)
    elif graph:
        click.echo("\n".join(drawing(found["Layers"])))
    else:
        draw(found)


def draw(found: Document) -> None:
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    layers = found["Layers"]
    for root in trees(layers):
        console.print(root)
    own = sum(layer["OwnBytes"] for layer in layers)
    users = users_below(layers)
    shared = sum(layer["OwnBytes"] for layer in layers if len(users[layer["LayerId"]]) > 1)
    loose = [layer for layer in layers if layer["State"] == "leftover"]
    facts = [
        ("layers", f"{len(layers)}, {size(own)} on the disk"),
        ("of which shared", size(shared)),
        ("as guests see it", size(sum(layer["VirtualBytes"] for layer in layers if _is_top(layer)))),
        ("could be freed", f"{size(sum(layer['OwnBytes'] for layer in loose))}: `orc storage gc`" if loose else ""),
        ("free", f"{size(found['FreeBytes'])} of {size(found['TotalBytes'])}"),
    ]
    print_facts(facts)


def trees(layers: Sequence[Document]) -> Iterator[Tree]:
    """One for each layer that lies on no other, oldest first."""
    known = {layer["LayerId"] for layer in layers}
    below = _by_parent(layers)
    for layer in sorted(layers, key=_age):
        if layer.get("ParentId", "") not in known:
            root = Tree(_line(layer))
            _grow(root, layer, below)
            yield root


def _grow(tree: Tree, layer: Document, below: Mapping[str, list[Document]]) -> None:
    for child in sorted(below[layer["LayerId"]], key=_age):
        _grow(tree.add(_line(child)), child, below)


def _line(layer: Document) -> Text:
    words = Text(layer["LayerId"], style="cyan")
    words.append(f"  {size(layer['OwnBytes'])} of {size(layer['VirtualBytes'])}", style="default")
    if layer.get("Encrypted"):
        words.append("  encrypted", style="green")
    if layer["State"] != "present":
        words.append(f"  {layer['State']}", style="red")
    if users := layer.get("UsedBy"):
        words.append("  " + " ".join(users), style="dim")
    return words


def drawing(layers: Sequence[Document]) -> Iterator[str]:
    """In the language of Graphviz: an arrow from each layer to the one that it lies on, and from its users to it."""
    yield "digraph layers {"
    yield "  rankdir=BT; node [fontname=monospace fontsize=10];"
    users: set[str] = set()
    for layer in layers:
        shape = "dashed" if layer["State"] != "present" else "filled"
        label = f"{layer['LayerId']}\\n{size(layer['OwnBytes'])} of {size(layer['VirtualBytes'])}"
        yield f'  "{layer["LayerId"]}" [shape=box style={shape} fillcolor=lightgrey label="{label}"];'
        if parent := layer.get("ParentId"):
            yield f'  "{layer["LayerId"]}" -> "{parent}";'
        for user in layer.get("UsedBy", []):
            if user.startswith("ami-"):
                continue  # it is its snapshot that needs the layer
            if user not in users:
                users.add(user)
                yield f'  "{user}" [shape={"ellipse" if user.startswith("vol-") else "folder"}];'
            yield f'  "{user}" -> "{layer["LayerId"]}" [style=dotted];'
    yield "}"


def _by_parent(layers: Sequence[Document]) -> Mapping[str, list[Document]]:
    found: dict[str, list[Document]] = defaultdict(list)
    for layer in layers:
        found[layer.get("ParentId", "")].append(layer)
    return found


def users_below(layers: Sequence[Document]) -> Mapping[str, set[str]]:
    """Who needs a layer, for itself or for one that lies on it, by layer."""
    parents = {layer["LayerId"]: layer.get("ParentId", "") for layer in layers}
    found: dict[str, set[str]] = defaultdict(set)
    for layer in layers:
        at = layer["LayerId"]
        while at:
            found[at] |= {user for user in layer.get("UsedBy", []) if not user.startswith("ami-")}
            at = parents.get(at, "")
    return found


def _is_top(layer: Document) -> bool:
    return any(user.startswith("vol-") for user in layer.get("UsedBy", []))


def _age(layer: Document) -> tuple[str, str]:
    return str(layer.get("Created", "")), layer["LayerId"]


def size(count: int) -> str:
    """Bytes in their largest unit: 3.5 GiB."""
    amount = float(count)
    for unit in _UNITS:
        if amount < 1024 or unit == _UNITS[-1]:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable")


@storage.command()
@click.argument("layers", metavar="[LAYER]...", nargs=-1)
@with_client
@click.pass_context
def verify(context: click.Context, client: Client, layers: tuple[str, ...]) -> None:
    """Check the files of all layers, or of some: their structure, and the content of those that nothing writes to."""
    wanted = layers or tuple(each["LayerId"] for each in _present(client))
    bad = 0
    with progress("verify") as say:
        for at, layer_id in enumerate(wanted, 1):
            say(f"{at} of {len(wanted)}: {layer_id}")
            for problem in client.orc("VerifyLayer", LayerId=layer_id)["Problems"]:
                bad += 1
                click.echo(f"{layer_id}: {problem}")
    note(f"{len(wanted)} layers, {bad or 'no'} problem{'' if bad == 1 else 's'}")
    context.exit(EXIT_REFUSED if bad else 0)


def _present(client: Client) -> list[Document]:
    found: list[Document] = client.orc("DescribeStorage")["Layers"]
    return [layer for layer in found if layer["State"] == "present" and layer["LayerId"].startswith("layer-")]


@storage.command()
@click.option("-y", "--yes", is_flag=True, help="do it; without, only what would go is shown")
@with_client
def gc(client: Client, yes: bool) -> None:
    """Delete the files that nothing refers to. First only shown: -y deletes them."""
    found = client.orc("CollectStorage", Preview=not yes)["Collected"]
    for layer in found:
        click.echo(f"{layer['LayerId']}  {size(layer['OwnBytes'])}")
    total = size(sum(layer["OwnBytes"] for layer in found))
    if not found:
        note("everything that is there is needed")
    elif yes:
        note(f"{len(found)} layers go, {total} come back")
    else:
        note(f"{len(found)} layers, {total}, are needed by nothing: -y deletes them")

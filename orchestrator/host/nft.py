"""One nftables table as a value: its sets and chains, the text that loads it, and the text that turns one into another.

    Ruleset --text()--------------> the table made anew, as a whole
    old, new --difference(old, new)-> the least that makes new of old

Either text is one transaction: the kernel changes over in one moment, or not at all. A difference leaves alone what is
the same on both sides, so the contents of dynamic sets live on, and a member that comes or goes touches one element.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

Table = tuple[str, str]  # family and name
Part = Mapping[str, frozenset[str]]  # elements, by set


@dataclass(frozen=True, slots=True)
class Set:
    """A set, or with ` : ` in its `type` a map. `elements` are written as nft prints them ("10.0.0.1 . 22"), those of a
    map with their value ("10.0.0.1 : jump x"). `settings` are further lines of its declaration."""

    type: str  # as after the word type, or "typeof ..."
    elements: frozenset[str] = frozenset()
    flags: str = ""
    settings: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        return "map" if " : " in self.type else "set"

    @property
    def head(self) -> tuple[str, ...]:
        """All but the elements."""
        kind = self.type if self.type.startswith("typeof ") else f"type {self.type}"
        flags = (f"flags {self.flags}",) if self.flags else ()
        return (self.word, kind, *flags, *self.settings)


def _declaration(name: str, each: Set, elements: str = "") -> str:
    word, *lines = each.head
    body = "".join(f" {line};" for line in lines)
    return f"\t{word} {name} {{{body}{f' elements = {{ {elements} }};' if elements else ''} }}\n"


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What one table is. A chain is its rules; that of a base chain begins with its `type ... hook ...` line.

    `parts` are further elements of its sets, by set, of which no two parts have one in common: what a large table has
    of each of many owners. A difference looks at those parts alone that are not the very ones that there were.
    """

    family: str
    table: str
    sets: Mapping[str, Set] = field(default_factory=dict)
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def key(self) -> Table:
        return self.family, self.table

    def elements(self, name: str) -> frozenset[str]:
        """All of a set."""
        own = self.sets[name].elements
        return own.union(*(part[name] for part in self.parts.values() if name in part)) if self.parts else own

    def text(self) -> str:
        """The table made anew, whether it was there or not."""
        name = f"{self.family} {self.table}"
        sets = "".join(
            _declaration(each, value, _listed(self.elements(each))) for each, value in sorted(self.sets.items())
        )
        chains = "".join(_chain(each, lines) for each, lines in self.chains.items())
        return f"table {name}\ndelete table {name}\ntable {name} {{\n{sets}{chains}}}\n"


def difference(old: Ruleset, new: Ruleset) -> str:
    """The transaction that makes `new` of `old`; empty when they are the same.

    What is new is declared first and what has vanished deleted last, since nft checks references line by line. Where a
    set changed its type or a base chain its hook, it is the whole of `new`.
    """
    if old.key != new.key:
        raise ValueError(f"{' '.join(old.key)} cannot become {' '.join(new.key)}")
    kept = old.sets.keys() & new.sets.keys()
    stay = old.chains.keys() & new.chains.keys()
    if any(old.sets[each].head != new.sets[each].head for each in kept) or any(
        _hook(old.chains[each]) != _hook(new.chains[each]) for each in stay
    ):
        return new.text()
    name = f"{new.family} {new.table}"
    added = sorted(new.sets.keys() - kept)
    gone = sorted(old.sets.keys() - kept)
    fresh = [each for each in new.chains if each not in stay]
    dead = [each for each in old.chains if each not in stay]
    changed = [each for each in new.chains if each in stay and old.chains[each] != new.chains[each]]
    text = [_declaration(each, new.sets[each]) for each in added]
    text += [_chain(each, _hook(new.chains[each])) for each in fresh]
    text = [f"table {name} {{\n", *text, "}\n"] if text else []
    text += [f"flush chain {name} {each}\n" for each in (*changed, *dead)]
    for each, (less, more) in sorted(_element_changes(old, new, kept).items()):
        if "interval" in new.sets[each].flags and (less or more):  # what goes may overlap what comes
            text += [f"flush {new.sets[each].word} {name} {each}\n"]
            less, more = set(), set(new.elements(each))
        text += [_elements("delete", name, each, (element.partition(" : ")[0] for element in less))] if less else []
        text += [_elements("add", name, each, more)] if more else []
    text += [_elements("add", name, each, held) for each in added if (held := new.elements(each))]
    rules = [_chain(each, new.chains[each][len(_hook(new.chains[each])) :]) for each in (*fresh, *changed)]
    text += [f"table {name} {{\n", *rules, "}\n"] if rules else []
    text += [f"delete {old.sets[each].word} {name} {each}\n" for each in gone]
    text += [f"delete chain {name} {each}\n" for each in dead]
    return "".join(text)


def _element_changes(old: Ruleset, new: Ruleset, names: AbstractSet[str]) -> dict[str, tuple[set[str], set[str]]]:
    """What goes and what comes, of each of these sets."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for name in names:
        was, becomes = old.sets[name].elements, new.sets[name].elements
        found[name] = set(was - becomes), set(becomes - was)
    for owner in old.parts.keys() | new.parts.keys():
        before, after = old.parts.get(owner, {}), new.parts.get(owner, {})
        if before is not after:
            for name in names & (before.keys() | after.keys()):
                was, becomes = before.get(name, frozenset()), after.get(name, frozenset())
                found[name][0].update(was - becomes)
                found[name][1].update(becomes - was)
    return {name: (less - more, more - less) for name, (less, more) in found.items()}


def _elements(verb: str, table: str, name: str, elements: Iterable[str]) -> str:
    return f"{verb} element {table} {name} {{ {_listed(elements)} }}\n"


def _listed(elements: Iterable[str]) -> str:
    return ", ".join(sorted(elements))


def _chain(name: str, lines: Iterable[str]) -> str:
    return f"\tchain {name} {{\n{''.join(f'{chr(9)}{chr(9)}{line}{chr(10)}' for line in lines)}\t}}\n"


def _hook(lines: tuple[str, ...]) -> tuple[str, ...]:
    """The line that makes a base chain of it, if it is one."""
    return lines[:1] if lines and lines[0].startswith("type ") else ()

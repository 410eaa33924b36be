"""What `orc bake` reads: a recipe in YAML, in the words that users of Packer know.

    name: debian-12-web                      # of the pipeline: `orc run debian-12-web` takes its newest image
    source_ami: debian-12                    # an image's id or name, a pipeline, or another recipe's folder
    instance_type: t3.small
    provisioners:
      - type: file
        source: site.conf                    # beside the recipe
        destination: /tmp/site.conf
      - type: packages
        install: [nginx]
      - type: shell
        sudo: true
        environment_vars: [STAGE=test]
        inline: [mv /tmp/site.conf /etc/nginx/sites-enabled/]
      - type: ansible
        playbook_file: site.yml
    checks:                                  # in an instance of the new image; all must end with 0
      - curl --fail http://localhost/
    versions_kept: 3

A recipe is known by its content: the hash of what it says, of the files that it names and of the image that it starts
from. The same hash means the same image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml

FILE_NAME = "bake.yaml"  # of the recipe in a folder

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One provisioner. What its type does not have is empty."""

    type: str
    inline: tuple[str, ...] = ()
    scripts: tuple[str, ...] = ()
    environment_vars: tuple[str, ...] = ()
    sudo: bool = False
    source: str = ""
    destination: str = ""
    install: tuple[str, ...] = ()
    playbook_file: str = ""
    extra_arguments: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """What it reads, beside the recipe."""
        return tuple(name for name in (*self.scripts, self.source, self.playbook_file) if name)

    @property
    def title(self) -> str:
        about = self.install or self.files or (self.inline[0],)
        return f"{self.type} {' '.join(about)}"[:72]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    folder: Path
    name: str
    source_ami: str
    description: str = ""
    instance_type: str = "t3.micro"
    ssh_username: str = ""  # empty: the image's login user
    volume_size: int = 0  # GiB; 0: as the source has it
    user_data_file: str = ""
    provisioners: tuple[Step, ...] = ()
    checks: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    versions_kept: int = 3  # 0: all

    @property
    def source_recipe(self) -> Path | None:
        """The recipe that it builds on, if its source is one."""
        path = self.folder / self.source_ami
        if path.is_dir() and (path / FILE_NAME).is_file():
            return path / FILE_NAME
        return path if path.suffix in (".yaml", ".yml") and path.is_file() else None

    @property
    def source_name(self) -> str:
        """The image that it starts from: its id or its name. The folder of a recipe that the host builds (images/NAME)
        stands for the image of that name."""
        path = self.folder / self.source_ami
        return path.resolve().name if (path / "recipe.toml").is_file() else self.source_ami

    def digest(self, source_image_id: str) -> str:
        """Of everything that the image follows from. Not of what is done with it once it is there."""
        said = asdict(self)
        for name in ("folder", "versions_kept", "tags"):
            del said[name]
        said["source_ami"] = source_image_id
        named = [name for step in self.provisioners for name in step.files] + [self.user_data_file]
        said["contents"] = {name: _digest_of(self.folder / name) for name in named if name}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def read_recipe(place: Path) -> Recipe:
    """The recipe in a file, or in a folder. Raises UsageError, which names what is wrong and what is allowed."""
    path = place / FILE_NAME if place.is_dir() else place
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} is no YAML: {error}") from None
    if not isinstance(document, dict):
        raise click.UsageError(f"{path}: a recipe is a mapping with name, source_ami and provisioners")
    recipe = Recipe(
        folder=path.parent.resolve(), **_fields(document, _RECIPE, str(path), needed=("name", "source_ami"))
    )
    if not _NAME.fullmatch(recipe.name):
        raise click.UsageError(
            f"{path}: name '{recipe.name}' must be lower case letters, digits, '.' and '-', at most 100"
        )
    for name in (name for step in recipe.provisioners for name in step.files):
        if not (recipe.folder / name).exists():
            raise click.UsageError(f"{path}: there is no {name} beside it")
    if recipe.user_data_file and not (recipe.folder / recipe.user_data_file).is_file():
        raise click.UsageError(f"{path}: there is no {recipe.user_data_file} beside it")
    return recipe


# --- how it is read ------------------------------------------------------------------------------------------------

_Read = Callable[[Any, str], Any]


def _text(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise click.UsageError(f"{where} must be text")
    return str(value)


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise click.UsageError(f"{where} must be a list of texts")
    return tuple(_text(each, f"{where}[{at}]") for at, each in enumerate(value))


def _number(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise click.UsageError(f"{where} must be a number, 0 or above")
    return value


def _yes_or_no(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise click.UsageError(f"{where} must be true or false")
    return value


def _tags(value: Any, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise click.UsageError(f"{where} must be a mapping of texts")
    return {str(key): _text(each, f"{where}.{key}") for key, each in value.items()}


def _variables(value: Any, where: str) -> tuple[str, ...]:
    said = _texts(value, where)
    for each in said:
        if not _VARIABLE.fullmatch(each):
            raise click.UsageError(f"{where}: '{each}' must be NAME=VALUE")
    return said


def _script(value: Any, where: str) -> tuple[str, ...]:
    return (_text(value, where),)


def _steps(value: Any, where: str) -> tuple[Step, ...]:
    if not isinstance(value, list):
        raise click.UsageError(f"{where} must be a list")
    return tuple(_step(each, f"{where}[{at}]") for at, each in enumerate(value))


_RECIPE: dict[str, tuple[str, _Read]] = {
    "name": ("name", _text),
    "source_ami": ("source_ami", _text),
    "ami_description": ("description", _text),
    "instance_type": ("instance_type", _text),
    "ssh_username": ("ssh_username", _text),
    "volume_size": ("volume_size", _number),
    "user_data_file": ("user_data_file", _text),
    "provisioners": ("provisioners", _steps),
    "checks": ("checks", _texts),
    "tags": ("tags", _tags),
    "versions_kept": ("versions_kept", _number),
}

_SHELL: dict[str, tuple[str, _Read]] = {
    "inline": ("inline", _texts),
    "script": ("scripts", _script),
    "scripts": ("scripts", _texts),
    "environment_vars": ("environment_vars", _variables),
    "sudo": ("sudo", _yes_or_no),
}

# Type -> its words, and of which of them one at least is needed, and all are.
_STEPS: dict[str, tuple[dict[str, tuple[str, _Read]], tuple[str, ...], tuple[str, ...]]] = {
    "shell": (_SHELL, ("inline", "script", "scripts"), ()),
    "file": ({"source": ("source", _text), "destination": ("destination", _text)}, (), ("source", "destination")),
    "packages": ({"install": ("install", _texts)}, (), ("install",)),
    "ansible": (
        {"playbook_file": ("playbook_file", _text), "extra_arguments": ("extra_arguments", _texts)},
        (),
        ("playbook_file",),
    ),
}


def _step(value: Any, where: str) -> Step:
    if not isinstance(value, dict):
        raise click.UsageError(f"{where} must be a mapping with a type: one of {', '.join(_STEPS)}")
    kind = value.get("type")
    if kind not in _STEPS:
        raise click.UsageError(f"{where}: type '{kind}' is not known; known are {', '.join(_STEPS)}")
    words, one_of, needed = _STEPS[kind]
    said = {name: each for name, each in value.items() if name != "type"}
    if one_of and sum(name in said for name in one_of) != 1:
        raise click.UsageError(f"{where}: one of {', '.join(one_of)} is needed")
    step = Step(type=kind, **_fields(said, words, where, needed=needed))
    if not (step.inline or step.files or step.install):
        raise click.UsageError(f"{where} has nothing to do")
    return step


def _fields(
    said: dict[Any, Any], words: dict[str, tuple[str, _Read]], where: str, *, needed: tuple[str, ...]
) -> dict[str, Any]:
    for name in said:
        if name not in words:
            raise click.UsageError(f"{where}: '{name}' is not known; known are {', '.join(words)}")
    for name in needed:
        if name not in said:
            raise click.UsageError(f"{where}: {name} is missing")
    return {words[name][0]: words[name][1](value, f"{where}: {name}") for name, value in said.items()}


def _digest_of(path: Path) -> str:
    """Of a file, or of all that is in a folder: names, what they may do, and contents."""
    digest = hashlib.sha256()
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    for each in files:
        runs = os.access(each, os.X_OK)
        digest.update(f"{each.relative_to(path) if each != path else ''}\0{runs}\0{each.stat().st_size}\0".encode())
        with each.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()

"""Recipes of `orc bake`: what is read, what is refused and how that is said, and what their identity follows from."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from orchestrator.cli.bake_recipe import read_recipe

RECIPE = """
name: web
source_ami: debian-12
provisioners:
  - type: file
    source: site.conf
    destination: /tmp/site.conf
  - type: packages
    install: [nginx]
  - type: shell
    sudo: true
    environment_vars: [STAGE=test]
    inline: [mv /tmp/site.conf /etc/nginx/]
  - type: shell
    script: setup.sh
checks: [curl localhost]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bake.yaml").write_text(RECIPE)
    (tmp_path / "site.conf").write_text("server {}")
    (tmp_path / "setup.sh").write_text("#!/bin/sh\n")
    return tmp_path


def test_a_recipe_is_read_from_its_folder_or_its_file(folder: Path) -> None:
    recipe = read_recipe(folder)
    assert recipe == read_recipe(folder / "bake.yaml")
    assert (recipe.name, recipe.source_ami, recipe.instance_type, recipe.versions_kept) == (
        "web",
        "debian-12",
        "t3.micro",
        3,
    )
    assert [step.title for step in recipe.provisioners] == [
        "file site.conf",
        "packages nginx",
        "shell mv /tmp/site.conf /etc/nginx/",
        "shell setup.sh",
    ]
    assert recipe.provisioners[2].sudo and recipe.provisioners[2].environment_vars == ("STAGE=test",)
    assert recipe.source_recipe is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: web", "", "name is missing"),
        ("name: web", "name: Web!", "lower case letters"),
        ("source_ami: debian-12", "source: debian-12", "'source' is not known; known are name, source_ami"),
        ("type: packages", "type: package", "type 'package' is not known; known are shell, file, packages, ansible"),
        ("install: [nginx]", "install: nginx", "provisioners[1]: install must be a list of texts"),
        ("sudo: true", "sudo: please", "provisioners[2]: sudo must be true or false"),
        ("STAGE=test", "STAGE", "'STAGE' must be NAME=VALUE"),
        ("script: setup.sh", "script: absent.sh", "there is no absent.sh beside it"),
        ("script: setup.sh", "sudo: true", "provisioners[3]: one of inline, script, scripts is needed"),
        ("script: setup.sh", "inline: []", "provisioners[3] has nothing to do"),
        ("checks: [curl localhost]", "versions_kept: -1", "versions_kept must be a number, 0 or above"),
        ("name: web", "name: [", "is no YAML"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, old: str, new: str, said: str) -> None:
    assert old in RECIPE
    (folder / "bake.yaml").write_text(RECIPE.replace(old, new))
    with pytest.raises(click.UsageError) as refused:
        read_recipe(folder)
    assert said in refused.value.message
    assert str(folder / "bake.yaml") in refused.value.message


def test_its_identity_is_its_content(folder: Path) -> None:
    before = read_recipe(folder).digest("ami-1")
    assert before == read_recipe(folder).digest("ami-1") != read_recipe(folder).digest("ami-2")
    (folder / "bake.yaml").write_text(f"{RECIPE}versions_kept: 7\ntags: {{a: b}}\n")
    assert read_recipe(folder).digest("ami-1") == before  # what is done with it afterwards
    (folder / "bake.yaml").write_text(RECIPE.replace("curl", "wget"))
    assert read_recipe(folder).digest("ami-1") != before
    (folder / "bake.yaml").write_text(RECIPE)
    (folder / "setup.sh").chmod(0o755)
    runnable = read_recipe(folder).digest("ami-1")
    assert runnable != before
    (folder / "site.conf").write_text("server { }")
    assert read_recipe(folder).digest("ami-1") not in (before, runnable)


def test_a_folder_that_is_sent_counts_with_all_that_is_in_it(folder: Path) -> None:
    (folder / "site.conf").unlink()
    (folder / "site.conf" / "inner").mkdir(parents=True)
    (folder / "site.conf" / "inner" / "a").write_text("1")
    before = read_recipe(folder).digest("ami-1")
    (folder / "site.conf" / "inner" / "a").rename(folder / "site.conf" / "inner" / "b")
    assert read_recipe(folder).digest("ami-1") != before


def test_a_recipe_builds_on_another(folder: Path) -> None:
    other = folder / "other"
    other.mkdir()
    (other / "bake.yaml").write_text("name: other\nsource_ami: ..\n")
    assert read_recipe(other).source_recipe == other.resolve() / ".." / "bake.yaml"


def test_a_recipe_that_the_host_builds_stands_for_its_image(folder: Path) -> None:
    built = folder / "debian-12"
    built.mkdir()
    assert read_recipe(folder).source_name == "debian-12"
    (built / "recipe.toml").write_text("")
    (folder / "web").mkdir()
    (folder / "web" / "bake.yaml").write_text("name: web\nsource_ami: ../debian-12\n")
    recipe = read_recipe(folder / "web")
    assert recipe.source_name == "debian-12" and recipe.source_recipe is None


def test_the_one_that_comes_along_can_be_read() -> None:
    recipe = read_recipe(Path(__file__).parents[2] / "images" / "debian-12-web")
    assert (recipe.name, recipe.source_name) == ("debian-12-web", "debian-12")

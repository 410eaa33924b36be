"""The house rules, run as tests: imports, types, lint, shell scripts, and pages that the code writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
SCRIPTS = ["bin/orc", "bin/prepare", "bin/test", ".ci/run", "images/debian-archive"]


def run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}{done.stderr}"


def test_every_room_imports_only_what_it_may() -> None:
    run(BIN / "lint-imports", "--no-cache")


def test_types_are_strict() -> None:
    run(sys.executable, "-m", "mypy")


def test_lint_and_format() -> None:
    run(sys.executable, "-m", "ruff", "check", ".")
    run(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_shell_scripts() -> None:
    recipes = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("images/*/build"))]
    assert recipes
    run("shellcheck", *SCRIPTS, *recipes)


def test_the_reference_is_what_the_code_says() -> None:
    run(sys.executable, "docs/reference.py", "--check")


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/**/*.md")) + sorted(ROOT.glob("*.md")), ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    import re

    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"


def test_every_recipe_says_what_it_is() -> None:
    for build in ROOT.glob("images/*/build"):
        assert (build.parent / "recipe.toml").is_file()
        assert (build.parent / "README.md").is_file()
        assert build.stat().st_mode & 0o100

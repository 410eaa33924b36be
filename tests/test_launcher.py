"""The scripts: what they say before they do anything, and that shellcheck has nothing to say about them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTED = ("bin", ".ci", "images")
_SHELL = re.compile(rb"#!\s*(/usr/bin/env (ba|da)?sh|/bin/(ba|da)?sh|/bin/busybox sh)\b")


def shell_scripts() -> list[Path]:
    files = [path for place in SCRIPTED for path in sorted((ROOT / place).rglob("*")) if path.is_file()]
    return [path for path in files if _SHELL.match(path.read_bytes()[:64])]


def test_the_scripts_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in shell_scripts()}
    assert {"bin/orc", "bin/prepare", "bin/test", "images/tiny/build", "images/debian-12/build"} <= names


@pytest.mark.parametrize("script", shell_scripts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    # busybox's shell is ash, which shellcheck calls busybox only from version 0.10 on; dash is the nearest before.
    dialect = ["--shell=dash"] if b"busybox" in script.read_bytes().splitlines()[0] else []
    done = subprocess.run(
        ["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", *dialect, str(script)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["bin/orc", "bin/prepare", "bin/test", ".ci/run"])
def test_scripts_that_users_call_can_be_run(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=240
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts alone, with nothing installed."""
    shutil.copytree(ROOT / "bin", tmp_path / "checkout" / "bin")
    return tmp_path / "checkout"


def test_a_command_in_a_fresh_checkout_says_what_to_run_first(checkout: Path) -> None:
    done = run(checkout / "bin/orc", "ls", cwd=checkout)
    assert done.returncode == 1
    assert "bin/orc quickstart" in done.stderr


def test_the_launcher_ignores_what_lies_in_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "orchestrator").mkdir()
    (tmp_path / "orchestrator" / "__main__.py").write_text("print('not me')\n")
    (tmp_path / "click.py").write_text("raise SystemExit('nor me')\n")
    python = ROOT / ".venv/bin/python"
    linked = tmp_path / "checkout"
    shutil.copytree(ROOT / "bin", linked / "bin")
    (linked / ".venv/bin").mkdir(parents=True)
    (linked / ".venv/bin/python").symlink_to(python if python.exists() else sys.executable)
    (linked / "orchestrator").mkdir()
    (linked / "orchestrator" / "__init__.py").touch()
    (linked / "orchestrator" / "__main__.py").write_text("import sys; print('me', *sys.argv[1:])\n")
    done = run(linked / "bin/orc", "ls", "-o", "json", cwd=tmp_path)
    assert done.stdout == "me ls -o json\n", done.stderr


def test_prepare_names_what_it_does_not_know(checkout: Path) -> None:
    done = run(checkout / "bin/prepare", "--yse", cwd=checkout)
    assert done.returncode == 2
    assert "--yse" in done.stderr and "--yes" in done.stderr


def test_prepare_asks_before_it_installs(checkout: Path) -> None:
    script = (checkout / "bin/prepare").read_text()
    lacking = script.replace("needs=(\n", 'needs=(\n    "no-such-program|no-such-package|no-such-package"\n', 1)
    assert lacking != script
    (checkout / "bin/prepare").write_text(lacking)
    done = run(checkout / "bin/prepare", cwd=checkout)
    assert done.returncode == 1
    assert "no-such-package" in done.stdout
    assert "--yes" in done.stderr
    assert not (checkout / ".venv").exists()


def test_the_unit_leaves_guests_alone() -> None:
    unit = (ROOT / "bin/orchestrator.service").read_text().splitlines()
    for line in ("Type=exec", "Restart=on-failure", "KillMode=process"):
        assert line in unit


@pytest.mark.host
def test_an_installed_package_brings_templates_and_images(tmp_path: Path) -> None:
    """The wheel, in an environment of its own that sees the dependencies of this one."""
    source = tmp_path / "source"
    listed = ("orchestrator", "templates", "images")
    for name in listed:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    (source / "README.md").touch()
    built = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, source, cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    wheel = next(tmp_path.glob("orchestrator-*.whl"))

    venv.create(tmp_path / "venv", with_pip=False)
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    here = Path(pytest.__file__).parent.parent
    (site / "dependencies.pth").write_text(f"{here}\n")
    python = tmp_path / "venv/bin/python"
    into = ("--no-deps", "--no-index", "--ignore-installed", "--prefix", tmp_path / "venv", wheel)
    installed = run(python, "-m", "pip", "install", "-q", *into, cwd=tmp_path)
    assert installed.returncode == 0, installed.stderr

    asked = run(tmp_path / "venv/bin/orc", "--help", cwd=tmp_path)
    assert asked.returncode == 0 and "quickstart" in asked.stdout, asked.stderr
    show = (
        "from orchestrator.config import Config; from orchestrator.controller import images_dir;"
        "from orchestrator.host import xml; print(images_dir(Config())); print(xml.__file__)"
    )
    found = run(python, "-c", show, cwd=tmp_path)
    images, module = (Path(line) for line in found.stdout.splitlines())
    assert module.is_relative_to(site), found.stderr
    assert (images / "tiny/build").is_file() and images.is_relative_to(site)
    assert os.access(images / "tiny/build", os.X_OK)
    assert (site / "orchestrator/_templates/domain.xml.j2").is_file()


@pytest.mark.parametrize(
    ("family", "system", "wanted"),
    [
        ("debian", "ID=debian VERSION_ID=12", {"libvirt-dev", "libc6-dev", "python3", "python3-venv", "python3-dev"}),
        ("debian", "ID=ubuntu VERSION_ID=22.04", {"libvirt-dev", "python3.11", "python3.11-venv", "python3.11-dev"}),
        ("fedora", "ID=fedora VERSION_ID=42", {"libvirt-devel", "gcc", "python3", "python3-devel"}),
        ("fedora", "ID=rocky VERSION_ID=9.4", {"libvirt-devel", "python3.11", "python3.11-devel"}),
    ],
)
def test_packages_of_a_machine_with_nothing(tmp_path: Path, family: str, system: str, wanted: set[str]) -> None:
    functions, found, _ = (ROOT / "bin/prepare").read_text().partition("\ninstall_packages\n")
    assert found
    (tmp_path / "prepare").write_text(
        f"{functions}\n{system}\nhas() {{ return 1; }}\nsystem_python() {{ :; }}\n"
        f"python3() {{ return 127; }}\npython3.11() {{ return 127; }}\nmissing {family}\n"
    )
    done = run("bash", tmp_path / "prepare", cwd=tmp_path)
    packages = set(done.stdout.split())
    assert wanted <= packages, done.stderr
    assert not {name for name in packages if ".so" in name or "*" in name}

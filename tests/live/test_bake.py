"""`orc bake` with real guests: a recipe becomes an image that has been tried, once; what fails leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.conftest import Deployment, Fleet, eventually

pytestmark = pytest.mark.live

RECIPE = """
name: {name}
source_ami: {source}
instance_type: t3.nano
provisioners:
  - type: file
    source: greeting
    destination: /tmp/greeting
  - type: shell
    sudo: true
    environment_vars: ["WHOM=all of you"]
    inline:
      - printf '%s, %s' "$(cat /tmp/greeting)" "$WHOM" >/etc/greeting
      - echo 'this is said while it is done'
checks:
  - grep -q 'all of you' /etc/greeting
versions_kept: 1
"""


class Kitchen:
    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.deployment = deployment
        self.folder = folder

    def write(self, name: str, source: str = "tiny", greeting: str = "hello", **changes: str) -> Path:
        place = self.folder / name
        place.mkdir(exist_ok=True)
        recipe = RECIPE.format(name=name, source=source)
        for old, new in changes.items():
            assert old in recipe
            recipe = recipe.replace(old, new)
        (place / "bake.yaml").write_text(recipe)
        (place / "greeting").write_text(greeting)
        return place

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        at = self.deployment
        environment = {**os.environ, "ORC_STATE_DIR": str(at.state_dir), "ORC_DATA_DIR": str(self.folder / "data")}
        line = [sys.executable, "-m", "orchestrator", "bake", *arguments]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    def bake(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """What it prints, and what it tells."""
        process = self.begin(*arguments)
        try:
            printed, told = process.communicate(timeout=240)
        finally:
            process.kill()
        assert process.returncode == code, told
        return printed.strip(), told

    def left(self) -> list[str]:
        """What of a bake is still there besides images that have been tried."""
        ec2 = self.deployment.ec2
        filters = [
            {"Name": "tag-key", "Values": ["orc:baking"]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
        ]
        found = [
            i["InstanceId"] for r in ec2.describe_instances(Filters=filters)["Reservations"] for i in r["Instances"]
        ]
        found += [p["KeyName"] for p in ec2.describe_key_pairs()["KeyPairs"] if p["KeyName"].startswith("bake-")]
        images = ec2.describe_images(Owners=["self"], Filters=[{"Name": "tag-key", "Values": ["orc:untried"]}])[
            "Images"
        ]
        return found + [image["ImageId"] for image in images] + self.kept("keys") + self.kept("known_hosts")

    def kept(self, what: str) -> list[str]:
        folder = self.folder / "data" / what
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def images(self, name: str) -> list[str]:
        found = self.deployment.ec2.describe_images(Filters=[{"Name": "tag:orc:bake", "Values": [name]}])["Images"]
        return [image["ImageId"] for image in found]


@pytest.fixture
def kitchen(deployment: Deployment, tmp_path: Path) -> Iterator[Kitchen]:
    deployment.image("tiny")
    yield Kitchen(deployment, tmp_path)
    baked = deployment.ec2.describe_images(Owners=["self"], Filters=[{"Name": "tag-key", "Values": ["orc:bake"]}])
    for image in baked["Images"]:
        deployment.ec2.deregister_image(ImageId=image["ImageId"], DeleteAssociatedSnapshots=True)


def test_a_recipe_becomes_an_image_once(kitchen: Kitchen, deployment: Deployment, fleet: Fleet) -> None:
    web = kitchen.write("web")
    first, told = kitchen.bake(str(web))
    assert "this is said while it is done" in told and "check grep" in told
    assert kitchen.images("web") == [first]
    assert kitchen.left() == [] == kitchen.kept("bakes")
    guest = fleet.one(image=first)
    assert guest.run("cat /etc/greeting; ls /tmp/greeting 2>/dev/null || true") == "hello, all of you"
    again, told = kitchen.bake(str(web))
    assert again == first and "nothing has changed" in told and "launch" not in told

    kitchen.write("web", greeting="good day")
    second, told = kitchen.bake(str(web))
    assert second != first and "1 versions are kept" in told
    assert kitchen.images("web") == [second]

    more = "checks:\n  - grep -q 'good day' /etc/greeting"
    above = kitchen.write("above", source="../web", **{">/etc/greeting": ">/etc/other", "checks:": more})
    third, told = kitchen.bake(str(above))
    assert "web: nothing has changed" in told
    assert kitchen.images("above") == [third]
    assert kitchen.left() == []


def test_a_step_that_fails_leaves_its_log_and_nothing_else(kitchen: Kitchen, deployment: Deployment) -> None:
    broken = kitchen.write("broken", **{"- echo 'this is said while it is done'": "- echo so far; false"})
    _, told = kitchen.bake(str(broken), code=1)
    assert "it ended with 1" in told
    [log] = kitchen.kept("bakes")
    assert "so far" in (kitchen.folder / "data" / "bakes" / log).read_text()
    assert eventually(lambda: not kitchen.left(), 30, "nothing is left")
    assert kitchen.images("broken") == []

    untrue = kitchen.write("untrue", **{"grep -q 'all of you' /etc/greeting": "grep -q nobody /etc/greeting"})
    _, told = kitchen.bake(str(untrue), code=1)
    assert "check 'grep -q nobody" in told
    assert eventually(lambda: not kitchen.left(), 30, "nothing is left")
    assert kitchen.images("untrue") == []


def test_a_builder_is_kept_to_be_looked_at(kitchen: Kitchen, deployment: Deployment, fleet: Fleet) -> None:
    broken = kitchen.write("kept", **{"- echo 'this is said while it is done'": "- exit 3"})
    _, told = kitchen.bake(str(broken), "--keep", code=1)
    # The instance, and what is known of its host key.
    instances = {each for each in kitchen.left() if each.startswith("i-")}
    guests = [fleet.adopt(each) for each in instances]
    [pair] = kitchen.kept("keys")
    deployment.ec2.delete_key_pair(KeyName=pair.removesuffix(".pem"))
    assert [guest.state for guest in guests] == ["running"]
    assert f"orc ssh {guests[0].id}" in told


def test_ctrl_c_takes_everything_away(kitchen: Kitchen) -> None:
    slow = kitchen.write("slow", **{"- echo 'this is said while it is done'": "- echo begun; sleep 300"})
    process = kitchen.begin(str(slow))
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.rstrip().endswith("begun"):
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert eventually(lambda: not kitchen.left(), 30, "nothing is left")
    assert kitchen.images("slow") == []

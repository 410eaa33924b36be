"""`orc bake`: a recipe becomes an image that has been tried.

    recipe --digest--> is there an image of it? ---- yes ----> nothing to do
                              | no
      builder: launch, provision, clean, stop -----> image, under a name of its own
                                                       |
      tester:  launch, run the checks -----------------+---> the image gets its name and tags; old versions go
                                                       |
                                                       +---> a check fails: it is removed

Whatever happens, Ctrl-C too, the builder, the tester, their key pair and the half-made image are gone at the end. A
step that fails leaves its log, and with --keep also the machines, to log into. What could not be taken away, since the
bake was killed or the controller had gone, the next bake of the pipeline takes away (`bake_leftovers.py`).

An image is found again by its tags: `orc:bake` names the pipeline, `orc:recipe` is the recipe's digest.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.arguments import with_client
from orchestrator.cli.bake_leftovers import RUN_TAG, Run, begin_run, remove_leftovers
from orchestrator.cli.bake_recipe import Recipe, Step, read_recipe
from orchestrator.cli.client import Client
from orchestrator.cli.guest import own_command
from orchestrator.cli.launch import BAKE_TAG, find_image
from orchestrator.cli.output import note, text
from orchestrator.cli.power import wait_until
from orchestrator.cli.session import key_file, known_hosts_file, write_private
from orchestrator.cli.waiting import wait_for

if TYPE_CHECKING:
    import paramiko

RECIPE_TAG = "orc:recipe"
STEP_TIMEOUT_S = 3600.0
BOOT_TIMEOUT_S = 600.0
LOGIN_TIMEOUT_S = 120.0  # from the first answer of the guest's ssh until it knows the key
IMAGE_TIMEOUT_S = 900.0

# What belongs to one machine, or tells of it, stays out of the image; and what the file system does not use, too.
CLEAN = r"""
if command -v cloud-init >/dev/null; then cloud-init clean --logs >/dev/null; rm -rf /var/lib/cloud; fi
rm -rf /var/lib/tiny/* /var/lib/dhcp/*.leases /var/lib/dbus/machine-id /var/lib/systemd/random-seed /var/lib/amazon/ssm
[ ! -w /etc/machine-id ] || truncate -s 0 /etc/machine-id # read-only where it is made anew at each boot
rm -f /etc/ssh/ssh_host_*_key* /etc/dropbear/*key* /etc/dropbear/ed25519 /etc/udev/rules.d/70-persistent-net.rules
rm -f /root/.*history /home/*/.*history /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys
if command -v apt-get >/dev/null; then apt-get clean; rm -rf /var/lib/apt/lists/*; fi
if command -v dnf >/dev/null; then dnf -q clean all >/dev/null; fi
if command -v journalctl >/dev/null; then journalctl -q --rotate --vacuum-time=1s >/dev/null 2>&1; fi
find /var/log -type f -exec sh -c 'for f; do : >"$f"; done' sh {} + 2>/dev/null
rm -rf /tmp/* /var/tmp/*
sync
command -v fstrim >/dev/null && fstrim / 2>/dev/null
sync
"""

INSTALL = (
    "if command -v apt-get >/dev/null; then export DEBIAN_FRONTEND=noninteractive; apt-get -q update && "
    "apt-get -q -y --no-install-recommends install {0}; elif command -v dnf >/dev/null; then dnf -q -y install {0}; "
    "elif command -v apk >/dev/null; then apk add {0}; else echo 'neither apt-get, dnf nor apk is here' >&2; exit 1; fi"
)


class StepFailed(click.ClickException):
    """A step of a bake: the message says which, and where the log is."""


@click.command()
@click.argument("recipe", metavar="RECIPE", type=click.Path(exists=True, path_type=Path))
@click.option("--force", is_flag=True, help="bake even if an image of the same recipe is there")
@click.option("--keep", is_flag=True, help="when a step fails, leave the builder running, to log into")
@click.option("--validate", is_flag=True, help="only read the recipe, and say what would be done")
@click.option(
    "--timeout",
    "timeout_s",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    default=STEP_TIMEOUT_S,
    show_default=True,
    help="how long each step may take",
)
@with_client
def bake(client: Client, recipe: Path, force: bool, keep: bool, validate: bool, timeout_s: float) -> None:
    """Bake an image: launch, provision, clean, try it, name it. RECIPE is a YAML file, or a folder with a bake.yaml.

    A recipe whose image is there already, of the same content and source, is not baked again.

    \b
    orc bake web/bake.yaml
    orc run debian-12-web
    """
    if validate:
        _validate(client, recipe)
        return
    click.echo(_bake(client, read_recipe(recipe), force=force, keep=keep, timeout_s=timeout_s, above=()))


def _validate(client: Client, place: Path) -> None:
    recipe = read_recipe(place)
    if recipe.source_recipe is not None:
        _validate(client, recipe.source_recipe)
    else:
        source = find_image(client, recipe.source_name)
        known = _baked(client, recipe, recipe.digest(source["ImageId"]))
        note(f"{recipe.name}: {'baked already, as ' + known['ImageId'] if known else 'would be baked'}")
    for step in recipe.provisioners:
        note(f"  {step.title}")


def _bake(client: Client, recipe: Recipe, *, force: bool, keep: bool, timeout_s: float, above: tuple[Path, ...]) -> str:
    """The image's id. A recipe that this one builds on is baked first, where it has changed."""
    if recipe.folder in above:
        raise click.UsageError(f"{recipe.folder / recipe.source_ami}: recipes build on one another in a circle")
    if recipe.source_recipe is not None:
        below = read_recipe(recipe.source_recipe)
        source_id = _bake(client, below, force=False, keep=keep, timeout_s=timeout_s, above=(*above, recipe.folder))
        source = find_image(client, source_id)
    else:
        source = find_image(client, recipe.source_name)
    digest = recipe.digest(source["ImageId"])
    cut_off = remove_leftovers(client, recipe.name)
    known = None if force else _known(client, recipe, digest)
    if known is not None:
        if cut_off:
            _forget_old(client, recipe)
        note(f"{recipe.name}: nothing has changed since {known['Name']}")
        return str(known["ImageId"])
    with (
        begin_run(recipe.name) as run,
        Bake(client, recipe, source, run, keep=keep, timeout_s=timeout_s) as baking,
    ):
        image_id = baking.bake(digest)
        _forget_old(client, recipe)
    return image_id


def _known(client: Client, recipe: Recipe, digest: str) -> dict[str, Any] | None:
    """The image of exactly this recipe. One that is still being made, by a bake that was killed after it had asked for
    that or by another one, is waited for."""
    made = [each for each in _versions(client, recipe, "pending") if _tag(each, RECIPE_TAG) == digest]
    if made:
        note(f"{recipe.name}: {made[-1]['Name']} is being made")
        with suppress(StepFailed):
            wait_for_image(client, recipe, made[-1]["ImageId"])
    return _baked(client, recipe, digest)


def wait_for_image(client: Client, recipe: Recipe, image_id: str) -> None:
    def look() -> bool | None:
        [image] = client.ec2("DescribeImages", ImageIds=[image_id])["Images"]
        if image["State"] in ("pending", "available"):
            return True if image["State"] == "available" else None
        reason = image.get("StateReason", {}).get("Message", "no reason is known")
        raise StepFailed(f"{recipe.name}: the image {image_id} is {image['State']}: {reason}")

    wait_for(look, f"the image {image_id}", IMAGE_TIMEOUT_S)


def _baked(client: Client, recipe: Recipe, digest: str) -> dict[str, Any] | None:
    """The newest image of exactly this recipe."""
    found = [each for each in _versions(client, recipe) if _tag(each, RECIPE_TAG) == digest]
    return found[-1] if found else None


def _versions(client: Client, recipe: Recipe, state: str = "available") -> list[dict[str, Any]]:
    """The images of a pipeline, oldest first."""
    filters = [{"Name": f"tag:{BAKE_TAG}", "Values": [recipe.name]}, {"Name": "state", "Values": [state]}]
    found = client.pages("DescribeImages", "Images", Owners=["self"], Filters=filters)
    return sorted(found, key=lambda image: (str(image["CreationDate"]), image["Name"]))


def _tag(document: dict[str, Any], name: str) -> str:
    return next((tag["Value"] for tag in document.get("Tags", []) if tag["Key"] == name), "")


def _forget_old(client: Client, recipe: Recipe) -> None:
    """All versions but the newest. Instances of them run on."""
    if not recipe.versions_kept:
        return
    for old in _versions(client, recipe)[: -recipe.versions_kept]:
        note(f"{recipe.name}: {old['Name']} goes: {recipe.versions_kept} versions are kept")
        client.ec2("DeregisterImage", ImageId=old["ImageId"], DeleteAssociatedSnapshots=True)


@dataclass(frozen=True, slots=True)
class Machine:
    """An instance of a bake, and how to get into it."""

    id: str
    user: str
    key: Path


class Bake:
    """One run of a recipe. Leaving it takes away whatever it has made that is not to stay."""

    def __init__(
        self, client: Client, recipe: Recipe, source: dict[str, Any], run: Run, *, keep: bool, timeout_s: float
    ) -> None:
        self._client = client
        self._recipe = recipe
        self._source = source
        self._this = run
        self._log = run.log
        self._keep = keep
        self._timeout_s = timeout_s
        self._began = time.monotonic()
        self._leaving = ExitStack()
        self._name = f"{recipe.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        self._pair = f"bake-{self._name}-{os.urandom(3).hex()}"
        self._run_tag = {RUN_TAG: run.id}
        self._made: list[str] = []

    def __enter__(self) -> Bake:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, click.ClickException) and self._keep:
            self._leaving.pop_all()
            # The next bake is not to take away what somebody looks at.
            self._quietly("DeleteTags", Resources=self._made, Tags=[{"Key": RUN_TAG}])
            return
        self._leaving.close()

    def bake(self, digest: str) -> str:
        recipe, client = self._recipe, self._client
        self._make_key()
        builder = self._launch(self._source["ImageId"], "builder")
        for step in recipe.provisioners:
            self._step(builder, step)
        self._say("clean")
        # Without the key nobody gets in again; the rest is asked of the API.
        self._run(builder, "clean", _as_root(CLEAN))
        self._say("stop the builder")
        client.ec2("StopInstances", InstanceIds=[builder.id])
        wait_until(client, [builder.id], "stopped", self._timeout_s)
        self._say("make the image")
        made = client.ec2(
            "CreateImage",
            InstanceId=builder.id,
            Name=f"{self._name} (untried)",
            Description=recipe.description,
            TagSpecifications=_tags("image", {"orc:untried": recipe.name, **self._run_tag}),
        )["ImageId"]
        self._made.append(made)
        self._leaving.callback(self._quietly, "DeregisterImage", ImageId=made, DeleteAssociatedSnapshots=True)
        wait_for_image(client, recipe, made)
        if recipe.checks:
            tester = self._launch(made, "tester")
            for line in recipe.checks:
                self._say(f"check {line}")
                self._run(tester, f"check '{line}'", line)
        self._say(f"name it {self._name}")
        tags = {BAKE_TAG: recipe.name, RECIPE_TAG: digest, "orc:source": self._source["ImageId"], **recipe.tags}
        named = client.ec2(
            "CopyImage",
            SourceImageId=made,
            SourceRegion=client.region,
            Name=self._name,
            Description=recipe.description,
            TagSpecifications=_tags("image", {"Name": recipe.name, **tags}),
        )["ImageId"]
        with ExitStack() as undo:
            undo.callback(self._quietly, "DeregisterImage", ImageId=named, DeleteAssociatedSnapshots=True)
            wait_for_image(client, recipe, named)
            undo.pop_all()
        self._say(f"done: {named}")
        return str(named)

    # --- its machines ---

    def _make_key(self) -> None:
        pair = self._client.ec2(
            "CreateKeyPair",
            KeyName=self._pair,
            KeyType="ed25519",
            TagSpecifications=_tags("key-pair", self._run_tag),
        )
        self._made.append(pair["KeyPairId"])
        self._leaving.callback(self._quietly, "DeleteKeyPair", KeyName=self._pair)
        write_private(key_file(self._pair), pair["KeyMaterial"])
        self._leaving.callback(key_file(self._pair).unlink, missing_ok=True)

    def _launch(self, image_id: str, role: str) -> Machine:
        client, recipe = self._client, self._recipe
        self._say(f"launch a {role} of {image_id}")
        asked: dict[str, Any] = {
            "ImageId": image_id,
            "InstanceType": recipe.instance_type,
            "MinCount": 1,
            "MaxCount": 1,
            "KeyName": self._pair,
            "ClientToken": os.urandom(16).hex(),
            "TagSpecifications": _tags(
                "instance", {"Name": f"{role} of {recipe.name}", "orc:baking": recipe.name, **self._run_tag}
            ),
        }
        if recipe.volume_size and role == "builder":
            device = self._source.get("RootDeviceName", "/dev/xvda")
            asked["BlockDeviceMappings"] = [{"DeviceName": device, "Ebs": {"VolumeSize": recipe.volume_size}}]
        if recipe.user_data_file and role == "builder":
            from base64 import b64encode

            asked["UserData"] = b64encode((recipe.folder / recipe.user_data_file).read_bytes()).decode()
        instance_id = client.ec2("RunInstances", **asked)["Instances"][0]["InstanceId"]
        self._made.append(instance_id)
        self._leaving.callback(known_hosts_file(instance_id).unlink, missing_ok=True)
        self._leaving.callback(self._quietly, "TerminateInstances", InstanceIds=[instance_id])
        wait_until(client, [instance_id], "ssh", BOOT_TIMEOUT_S)
        user = recipe.ssh_username or client.orc("DescribeLaunch", InstanceId=instance_id).get("LoginUser")
        machine = Machine(instance_id, user or "ec2-user", key_file(self._pair))
        self._log_in(machine)
        self._run(
            machine, f"start the {role}", "! command -v cloud-init >/dev/null || cloud-init status --wait >/dev/null"
        )
        return machine

    def _log_in(self, machine: Machine) -> None:
        """A guest's ssh answers before it knows who may come in."""

        def look() -> bool | None:
            try:
                with self._transport(machine):
                    return True
            except click.ClickException:
                return None

        wait_for(look, f"{machine.id} to let {machine.user} in", LOGIN_TIMEOUT_S)

    @contextmanager
    def _transport(self, machine: Machine) -> Iterator[paramiko.Transport]:
        from orchestrator.cli.login import Login, logged_in

        with logged_in(self._client, Login(machine.id, machine.user, machine.key)) as transport:
            yield transport

    # --- its steps ---

    def _step(self, builder: Machine, step: Step) -> None:
        self._say(step.title)
        folder = self._recipe.folder
        if step.type == "file":
            self._send(builder, folder / step.source, step.destination)
        elif step.type == "packages":
            self._run(builder, step.title, _as_root(INSTALL.format(shlex.join(step.install))))
        elif step.type == "ansible":
            self._play(builder, folder / step.playbook_file, step)
        elif step.inline:
            self._run(builder, step.title, _shell("set -e\n" + "\n".join(step.inline), step))
        else:
            for script in step.scripts:
                place = f"/tmp/bake-{os.urandom(6).hex()}"  # noqa: S108  # in the guest
                self._send(builder, folder / script, place)
                self._run(
                    builder, script, _shell(f"chmod +x {place} && {place}; code=$?; rm -f {place}; exit $code", step)
                )

    def _send(self, machine: Machine, source: Path, destination: str) -> None:
        from orchestrator.cli.copy import closing_files, upload

        with self._transport(machine) as transport, closing_files(transport) as files:
            try:
                upload(files, str(source), destination, recursive=True, many=False)
            except OSError as error:
                raise self._failed(machine, f"file {source.name}", error.strerror or str(error)) from None

    def _play(self, machine: Machine, playbook: Path, step: Step) -> None:
        program = shutil.which("ansible-playbook")
        if program is None:
            raise self._failed(machine, step.title, "ansible-playbook is not installed here")
        proxy = shlex.join([*own_command(), "tunnel", machine.id, "22"]).replace("%", "%%")
        options = f"-o ProxyCommand={shlex.quote(proxy)} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
        line = [program, "-i", f"{machine.id},", "-u", machine.user, "--private-key", str(machine.key)]
        line += ["--ssh-common-args", options, *step.extra_arguments, str(playbook)]
        play = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert play.stdout is not None
        with play:
            for said in play.stdout:
                self._tell(said)
        if play.returncode != 0:
            raise self._failed(machine, step.title, f"it ended with {play.returncode}")

    def _run(self, machine: Machine, what: str, line: str) -> None:
        """A line in the guest's shell, its output told as it comes. Raises StepFailed unless it ends with 0."""
        deadline = time.monotonic() + self._timeout_s
        with self._transport(machine) as transport, transport.open_session() as channel:
            channel.set_combine_stderr(True)
            channel.settimeout(self._timeout_s)
            channel.exec_command(line)
            channel.shutdown_write()
            try:
                for said in channel.makefile("rb"):
                    self._tell(said.decode(errors="replace"))
                    if time.monotonic() > deadline:
                        raise TimeoutError
            except TimeoutError:
                raise self._failed(machine, what, f"it took longer than {self._timeout_s:g} s") from None
            code = channel.recv_exit_status()
        if code != 0:
            raise self._failed(machine, what, f"it ended with {code}" if code > 0 else "the guest went away")

    # --- what is told ---

    def _say(self, words: str) -> None:
        line = f"[{time.monotonic() - self._began:6.1f} s] {self._recipe.name}: {words}"
        note(click.style(line, bold=True))
        self._log.write(line + "\n")
        self._log.flush()

    def _tell(self, said: str) -> None:
        line = f"[{time.monotonic() - self._began:6.1f} s]   {text(said.rstrip())}" if said.strip() else ""
        if line:
            note(line)
            self._log.write(line + "\n")

    def _failed(self, machine: Machine, what: str, why: str) -> StepFailed:
        self._say(f"failed: {what}: {why}")
        message = f"{self._recipe.name}: {what}: {why}"
        if self._keep:
            pair = f"-i {machine.key}"
            message += (
                f"\n{machine.id} stays: `orc ssh {machine.id}` logs in ({pair} elsewhere). When you have seen enough: "
                f"`orc terminate {machine.id}`, `orc key rm {self._pair}`"
            )
        return StepFailed(message)

    def _quietly(self, action: str, **parameters: Any) -> None:
        """On the way out: what is gone already is as it should be, and another error must not hide the first."""
        try:
            self._client.ec2(action, **parameters)
        except click.ClickException as error:
            if not getattr(error, "code", "").endswith((".NotFound", ".Unavailable")):
                self._this.left = True
                note(f"{action}: {error.format_message()}")


def _shell(script: str, step: Step) -> str:
    settings = [shlex.quote(each) for each in step.environment_vars]
    line = f"env {' '.join(settings)} sh -c {shlex.quote(script)}" if settings else f"sh -c {shlex.quote(script)}"
    return f'if [ "$(id -u)" = 0 ]; then {line}; else sudo -n {line}; fi' if step.sudo else line


def _as_root(script: str) -> str:
    return _shell(script, replace(Step(type="shell"), sudo=True))


def _tags(kind: str, tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]

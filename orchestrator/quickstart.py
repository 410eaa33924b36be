"""`orc quickstart`: from a host to a login, one step after the other. `orc down` is the way back.

    host -> controller -> image -> key pair -> security group -> instance -> ssh -> who is there

Each step looks first and makes only what is missing, so that what an interrupted run left is picked up by the next
one, and a run where everything is there changes nothing.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click
import paramiko
from rich.console import Console

from orchestrator import doctor
from orchestrator.background import Background, BackgroundError
from orchestrator.cli.session import Session, key_file, write_private
from orchestrator.config import KEYS, Config, ConfigError, load
from orchestrator.controller import credentials_file
from orchestrator.host.findings import Standing
from orchestrator.progress import Progress

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # it tells of each guest that is not there yet

LAUNCH_DEADLINE_S = 900.0  # a distribution's first boot under TCG on a busy host
SSH_PORT = 22
_POLL_S = 0.25
_CONNECT_TIMEOUT_S = 1.0  # an address that nobody has yet does not refuse, it says nothing
_SSH_TIMEOUT_S = 30.0  # of each exchange with a guest that is slow, not absent
_ASK_TIMEOUT_S = 120.0  # of all of them

_PHASES = {  # what DescribeLaunch calls a phase -> what has happened then, and what is waited for next
    "requested": "accepted, making its volume",
    "volume": "volume made, making its network",
    "network": "network made, starting",
    "started": "started, booting",
    "address": "it has its address",
    "metadata": "it has read its metadata",
    "user-data": "its user data is done",
    "ssh": "ssh answers",
}

# Shown by any guest with a POSIX shell: curl and python3 are in most images, busybox's nc in the smallest.
_WHO = r"""
line() { echo "$1=$2"; }
line hostname "$(hostname)"
line kernel "$(uname -sr)"
line system "$(. /etc/os-release 2>/dev/null; echo "$PRETTY_NAME")"
line uptime "$(cut -d ' ' -f 1 /proc/uptime)"
imds=http://169.254.169.254/latest
ttl=X-aws-ec2-metadata-token-ttl-seconds
if command -v curl >/dev/null; then
    token=$(curl -s -m 5 -X PUT -H "$ttl: 60" $imds/api/token)
    get() { curl -s -m 5 -H "X-aws-ec2-metadata-token: $token" "$imds/$1"; }
elif command -v python3 >/dev/null; then
    get() { python3 -c '
import sys, urllib.request as u
imds, ttl, path = sys.argv[1:]
token = u.urlopen(u.Request(imds + "/api/token", method="PUT", headers={ttl: "60"}), timeout=5).read().decode()
print(u.urlopen(u.Request(imds + path, headers={"X-aws-ec2-metadata-token": token}), timeout=5).read().decode())
' "$imds" "$ttl" "/$1"; }
else
    # nc takes the end of its input for the end of the session, so that must wait for the answer.
    send() { { printf "$@"; sleep 1; } | nc 169.254.169.254 80 | tr -d '\r' | sed '1,/^$/d'; }
    token=$(send 'PUT /latest/api/token HTTP/1.0\r\nHost: imds\r\n%s: 60\r\nContent-Length: 0\r\n\r\n' "$ttl")
    get() { send 'GET /latest/%s HTTP/1.0\r\nHost: imds\r\nX-aws-ec2-metadata-token: %s\r\n\r\n' "$1" "$token"; }
fi
line instance-id "$(get meta-data/instance-id)"
line instance-type "$(get meta-data/instance-type)"
"""


class Api(Protocol):
    """A controller's API, by EC2's names on both sides; raises click.ClickException with the code and message."""

    def call(self, service: str, action: str, **parameters: Any) -> dict[str, Any]: ...


Connect = Callable[[str], Api]  # a region, or nothing for the deployment's own -> the API as seen there


class QuickstartError(click.ClickException):
    """What did not work, and what to do next."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the flags of `orc quickstart` say."""

    image: str = "debian-12"
    type: str = "t3.micro"
    name: str = "quickstart"
    yes: bool = False


class Quickstart:
    """`connect` gives the API once a controller answers."""

    def __init__(self, config: Config, wanted: Wanted, connect: Connect, progress: Progress) -> None:
        self.config = config
        self.wanted = wanted
        self.progress = progress
        self.background = Background(config)
        self._connect = connect
        self._key_file = key_file(wanted.name)  # where the other commands look for it
        self._in_memory = config.host == "memory"

    def run(self) -> int:
        if not self._in_memory and os.geteuid() != 0:
            raise QuickstartError(
                "virtual machines need root: run it with sudo (or with --host memory for the API alone)"
            )
        self._prepare_host()
        try:
            return self._launch()
        except QuickstartError:
            raise
        except click.ClickException as error:
            raise QuickstartError(
                f"{error.format_message()}\n"
                f"The controller's log is {self.background.where_log()}; run again, quickstart goes on from here"
            ) from error

    def _launch(self) -> int:
        api = self._start_controller()
        image_id = self._find_or_build_image(api)
        self._make_key_pair(api)
        group_id = self._make_security_group(api)
        instance = self._run_instance(api, image_id, group_id)
        user = api.call("orc", "DescribeLaunch", InstanceId=instance["InstanceId"])["LoginUser"]
        if self._in_memory:
            self.progress.say("Nothing to log into: the in-memory host runs no guests.")
        else:
            self._log_in(instance, user)
        self._explain(instance, user)
        return 0

    # --- the steps ---------------------------------------------------------------------------------------------------

    def _prepare_host(self) -> None:
        findings = doctor.examine(self.config, accelerator=doctor.recorded_accelerator(self.config))
        if any(finding.mend for finding in findings):
            doctor.mend(findings, yes=self.wanted.yes)
            findings = doctor.examine(self.config, accelerator=doctor.recorded_accelerator(self.config))
        for finding in findings:
            if finding.standing is not Standing.OK:
                doctor.show(finding)
        if doctor.fails(findings):
            raise QuickstartError("instances cannot run on this host as it is; see FAIL above, and `orc doctor --fix`")
        warnings = sum(finding.standing is Standing.WARNING for finding in findings)
        text = {0: "ready", 1: "ready, with a warning"}.get(warnings, f"ready, with {warnings} warnings")
        with self.progress.step("host", text):
            pass

    def _start_controller(self) -> Api:
        with self.progress.step("controller", "looking") as say:
            if not self.background.answers():
                say(f"starting; its log is {self.background.where_log()}")
                try:
                    self.background.start()
                except (BackgroundError, OSError) as error:
                    raise QuickstartError(str(error)) from error
            api = self._connect("")
            say("answers")
        return api

    def _find_or_build_image(self, api: Api) -> str:
        name = self.wanted.image
        with self.progress.step("image", f"looking for {name}") as say:
            image_id = find_image(api, name)
            if image_id:
                say(f"{name} is {image_id}")
                return image_id
            recipes = api.call("orc", "ListRecipes")["Recipes"]
            if name not in recipes:
                known = ", ".join(recipes) or "none"
                raise QuickstartError(f"there is no image '{name}' and no recipe of that name; recipes: {known}")
            build_id = api.call("orc", "BuildImage", Name=name)["Build"]["BuildId"]
            while True:
                build = api.call("orc", "DescribeBuilds", BuildIds=[build_id])["Builds"][0]
                if build["State"] == "failed":
                    raise QuickstartError(
                        f"{name} could not be built: {build.get('Message', '')}\n"
                        f"The whole story is in {self.background.where_log()}; `orc quickstart` tries again"
                    )
                if build["State"] == "available":
                    say(f"{name} is built: {build['ImageId']}")
                    return str(build["ImageId"])
                say(build.get("Phase") or f"building {name}")
                time.sleep(_POLL_S)

    def _make_key_pair(self, api: Api) -> None:
        name, path = self.wanted.name, self._key_file
        with self.progress.step("key pair", name) as say:
            found = api.call(
                "ec2", "DescribeKeyPairs", Filters=[{"Name": "key-name", "Values": [name]}], IncludePublicKey=True
            ).get("KeyPairs", [])
            public = public_half(path)
            if found and public and found[0].get("PublicKey", "").split()[:2] == public.split()[:2]:
                say(f"{name}, kept in {path}")
                return
            if found:
                api.call("ec2", "DeleteKeyPair", KeyName=name)
            if public:
                api.call("ec2", "ImportKeyPair", KeyName=name, PublicKeyMaterial=public.encode())
            else:
                made = api.call("ec2", "CreateKeyPair", KeyName=name, KeyType="ed25519")
                try:
                    write_private(path, made["KeyMaterial"])
                except OSError as error:
                    api.call("ec2", "DeleteKeyPair", KeyName=name)  # nobody would ever have its private half
                    raise QuickstartError(f"{path} cannot be written: {error.strerror}") from None
            say(f"{name}, kept in {path}")

    def _make_security_group(self, api: Api) -> str:
        name = self.wanted.name
        with self.progress.step("security group", name) as say:
            vpcs = api.call("ec2", "DescribeVpcs", Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
            if not vpcs:
                raise QuickstartError("there is no default VPC in this region; `aws ec2 create-default-vpc` makes one")
            vpc_id = vpcs[0]["VpcId"]
            filters = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc_id]}]
            groups = api.call("ec2", "DescribeSecurityGroups", Filters=filters).get("SecurityGroups", [])
            if groups:
                group_id, rules = groups[0]["GroupId"], groups[0].get("IpPermissions", [])
            else:
                made = api.call(
                    "ec2", "CreateSecurityGroup", GroupName=name, Description="ssh from anywhere", VpcId=vpc_id
                )
                group_id, rules = made["GroupId"], []
            if not any(rule.get("FromPort") == SSH_PORT for rule in rules):
                ssh = {
                    "IpProtocol": "tcp",
                    "FromPort": SSH_PORT,
                    "ToPort": SSH_PORT,
                    "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "ssh"}],
                }
                api.call("ec2", "AuthorizeSecurityGroupIngress", GroupId=group_id, IpPermissions=[ssh])
            say(f"{name} is {group_id}, with port {SSH_PORT} open")
            return str(group_id)

    def _run_instance(self, api: Api, image_id: str, group_id: str) -> dict[str, Any]:
        wanted = self.wanted
        with self.progress.step("instance", f"looking for {wanted.name}") as say:
            instance_id = ""
            deadline = time.monotonic() + LAUNCH_DEADLINE_S
            while True:
                instance = describe(api, instance_id) if instance_id else find_named(api, wanted.name)
                state = instance["State"]["Name"] if instance else ""
                if instance is None:
                    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": wanted.name}]}]
                    answer = api.call(
                        "ec2",
                        "RunInstances",
                        ImageId=image_id,
                        InstanceType=wanted.type,
                        KeyName=wanted.name,
                        SecurityGroupIds=[group_id],
                        MinCount=1,
                        MaxCount=1,
                        TagSpecifications=tags,
                    )
                    instance_id = answer["Instances"][0]["InstanceId"]
                    say(f"{instance_id} is asked for")
                elif state == "stopped":
                    instance_id = instance["InstanceId"]
                    say(f"{instance_id} is stopped, starting it")
                    api.call("ec2", "StartInstances", InstanceIds=[instance_id])
                elif state in ("terminated", "shutting-down"):
                    reason = instance.get("StateReason", {}).get("Message", "")
                    raise QuickstartError(
                        f"{instance['InstanceId']} is {state}: {reason}\n"
                        f"`orc show {instance['InstanceId']}` and {self.background.where_log()} tell more"
                    )
                elif state == "running":
                    say(f"{instance['InstanceId']} is running")
                    return instance
                else:
                    instance_id = instance["InstanceId"]
                    say(f"{instance_id} is {state}: {launch_phase(api, instance_id)}")
                self._keep_waiting(deadline, f"{instance_id} to run", instance_id)

    def _log_in(self, instance: dict[str, Any], user: str) -> None:
        """Wait until ssh answers at the public address, log in, and show who is there."""
        instance_id, address = instance["InstanceId"], instance.get("PublicIpAddress", "")
        api = self._connect("")
        with self.progress.step("ssh", f"waiting for {user}@{address}") as say:
            deadline = time.monotonic() + LAUNCH_DEADLINE_S
            while True:
                now = describe(api, instance_id)
                state = now["State"]["Name"] if now else "gone"
                if state != "running":
                    raise QuickstartError(
                        f"{instance_id} is {state} before anybody could log in; "
                        f"`orc logs {instance_id}` shows its console"
                    )
                try:
                    told = ask_who(address, user, self._key_file)
                    break
                except paramiko.AuthenticationException as error:
                    # A guest may open its port before the key is there; one made with another key never lets us in.
                    say(f"{address} answers, but does not take the key yet")
                    hint = f"; if it was launched with another key: `orc terminate {instance_id}`, then run this again"
                    self._keep_waiting(
                        deadline, f"{user}@{address} to take {self._key_file} ({error}){hint}", instance_id
                    )
                except (OSError, paramiko.SSHException, EOFError):
                    say(f"{launch_phase(api, instance_id)}, waiting for ssh at {address}")
                    self._keep_waiting(deadline, f"ssh at {address}", instance_id)
            say(f"logged in as {user}@{address}")
        self.progress.say("The guest says:")
        for name, value in told.items():
            unit = " s" if name == "uptime" else ""
            self.progress.say(f"    {name:<14} {value}{unit}")
        if told.get("instance-id") != instance_id:
            raise QuickstartError(
                f"the guest at {address} says that it is '{told.get('instance-id')}', not {instance_id}; "
                f"`orc logs {instance_id}` shows its console"
            )

    def _keep_waiting(self, deadline: float, what: str, instance_id: str) -> None:
        if time.monotonic() > deadline:
            raise QuickstartError(
                f"waited {LAUNCH_DEADLINE_S:.0f} s for {what}. `orc logs {instance_id}` shows its console, `orc show "
                f"{instance_id}` how far it came; the controller's log is {self.background.where_log()}"
            )
        time.sleep(_POLL_S)

    def _explain(self, instance: dict[str, Any], user: str) -> None:
        name, address = self.wanted.name, instance.get("PublicIpAddress", "")
        orc = command_name()
        lines = [
            "",
            f"Ready after {self.progress.elapsed_s:.0f} s. {instance['InstanceId']} has the public address {address}.",
        ]
        if by_flag := given_by_flags(self.config):
            lines += ["For the commands below, what was given as flags:", f"    export {by_flag}"]
        if not self._in_memory:
            lines += [
                "To log in:",
                f"    {orc} ssh {name}",
                f"    ssh -i {shlex.quote(str(self._key_file))} {user}@{address}",
            ]
        lines += [
            "With aws-cli:",
            f'    eval "$({orc} env)"',
            f"    aws ec2 describe-instances --filters Name=tag:Name,Values={name}",
            "With boto3, after the same eval:",
            "    python3 -c 'import boto3; print([i.id for i in boto3.resource(\"ec2\").instances.all()])'",
            "To stop everything:",
            f"    {orc} down",
        ]
        for line in lines:
            self.progress.say(line)


# --- what the steps ask ---------------------------------------------------------------------------------------------


def find_image(api: Api, name: str) -> str:
    """The id of the newest image of that name; empty when there is none."""
    filters = [{"Name": "name", "Values": [name]}, {"Name": "state", "Values": ["available"]}]
    images = api.call("ec2", "DescribeImages", Filters=filters).get("Images", [])
    newest = max(images, key=lambda image: str(image.get("CreationDate", "")), default=None)
    return str(newest["ImageId"]) if newest else ""


def instances(api: Api, **parameters: Any) -> list[dict[str, Any]]:
    answer = api.call("ec2", "DescribeInstances", **parameters)
    return [instance for reservation in answer.get("Reservations", []) for instance in reservation["Instances"]]


def describe(api: Api, instance_id: str) -> dict[str, Any] | None:
    return next(iter(instances(api, InstanceIds=[instance_id])), None)


def find_named(api: Api, name: str) -> dict[str, Any] | None:
    """The instance of that name that is alive; the one nearest to running when there are several."""
    order = ("running", "pending", "stopping", "stopped")
    filters = [
        {"Name": "tag:Name", "Values": [name]},
        {"Name": "instance-state-name", "Values": list(order)},
    ]
    return min(
        instances(api, Filters=filters),
        key=lambda instance: (order.index(instance["State"]["Name"]), instance["InstanceId"]),
        default=None,
    )


def launch_phase(api: Api, instance_id: str) -> str:
    phases = api.call("orc", "DescribeLaunch", InstanceId=instance_id).get("Phases") or []
    return _PHASES.get(phases[-1]["Name"], phases[-1]["Name"]) if phases else "waiting for its turn"


def public_half(path: Path) -> str:
    """The public key of the private one at `path`, in OpenSSH's form; empty when there is none to read."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_private_key,
        load_ssh_private_key,
    )

    try:
        text = path.read_bytes()
        load = load_ssh_private_key if b"OPENSSH" in text else load_pem_private_key
        key = load(text, None)
        return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return ""


def ask_who(address: str, user: str, key_file: Path) -> dict[str, str]:
    """Log in and let the guest say who it is. Raises OSError or paramiko's errors while it cannot be done."""
    with socket.create_connection((address, SSH_PORT), timeout=_CONNECT_TIMEOUT_S) as connection:
        transport = paramiko.Transport(connection)
        transport.banner_timeout = transport.auth_timeout = _SSH_TIMEOUT_S
        too_long = threading.Timer(_ASK_TIMEOUT_S, transport.close)  # paramiko waits for ever for some answers
        too_long.daemon = True
        too_long.start()
        try:
            transport.start_client(timeout=_SSH_TIMEOUT_S)
            transport.auth_publickey(user, paramiko.PKey.from_path(key_file))
            channel = transport.open_session(timeout=_SSH_TIMEOUT_S)
            channel.settimeout(_SSH_TIMEOUT_S)
            channel.exec_command(_WHO)
            channel.shutdown_write()
            text = channel.makefile("rb").read().decode(errors="replace")
        finally:
            too_long.cancel()
            transport.close()
    told = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name: value.strip() for name, value in told.items()}


def given_by_flags(config: Config) -> str:
    """As variables, what neither a file nor the environment says."""
    try:
        plain, _ = load({})
    except ConfigError:
        return ""
    changed = [key for key in KEYS if getattr(plain, key.attribute) != getattr(config, key.attribute)]
    return " ".join(f"{key.variable}={shlex.quote(str(getattr(config, key.attribute)))}" for key in changed)


def command_name() -> str:
    """How the user calls us: `orc` where that is in the path, else this checkout's launcher."""
    launcher = Path(__file__).resolve().parent.parent / "bin" / "orc"
    if shutil.which("orc") or not launcher.exists():
        return "orc"
    here = Path.cwd()
    return str(launcher.relative_to(here)) if launcher.is_relative_to(here) else str(launcher)


def connector(config: Config) -> Connect:
    """The API of this deployment's own controller, whatever endpoint the environment names."""

    def connect(region: str) -> Api:
        from orchestrator.cli.client import Client

        return Client(Session(credentials_path=credentials_file(config), region=region).resolve({}))

    return connect


def asker(config: Config) -> doctor.Ask | None:
    """A running controller's service orc, for the doctor; None when none answers."""
    if not Background(config).answers():
        return None
    api = connector(config)("")
    return lambda action: api.call("orc", action)


def quickstart(config: Config, wanted: Wanted) -> int:
    return Quickstart(config, wanted, connector(config), Progress(Console(highlight=False))).run()

"""Logging in without the system's ssh: paramiko through the tunnel, for `orc exec` and `orc cp`.

Host keys are kept one file per instance id, in OpenSSH's format and shared with `orc ssh`: an address that is used
again by another instance is never mistaken for it, and a guest that changes its key is noticed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import paramiko

from orchestrator.cli.client import Client
from orchestrator.cli.session import key_file, make_known_hosts_file
from orchestrator.cli.streams import open_tunnel

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what fails is told in our own words

LOGIN_TIMEOUT_S = 60.0  # a guest under TCG takes its time for the key exchange
SSH_PORT = 22


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs into which instance, with which key; without one, what the user's agent offers is tried."""

    instance_id: str
    user: str
    key: Path | None


def login_for(client: Client, instance: dict[str, Any], user: str | None, identity: str | None) -> Login:
    """The image's login user and the key pair's private half, unless others are named."""
    instance_id = instance["InstanceId"]
    if user is None:
        user = client.orc("DescribeLaunch", InstanceId=instance_id).get("LoginUser") or "ec2-user"
    return Login(instance_id, user, private_key(instance, identity))


def private_key(instance: dict[str, Any], identity: str | None) -> Path | None:
    if identity is not None:
        path = Path(identity).expanduser()
        if not path.is_file():
            raise click.UsageError(f"--identity: there is no file {path}")
        return path
    kept = key_file(instance["KeyName"]) if instance.get("KeyName") else None
    return kept if kept is not None and kept.exists() else None


def read_key(path: Path) -> paramiko.PKey:
    """A private key; a person is asked for its passphrase."""
    passphrase: Any = None  # bytes, whatever paramiko's signature says
    while True:
        try:
            return paramiko.PKey.from_path(path, passphrase)
        except (paramiko.PasswordRequiredException, TypeError):
            if passphrase is not None:
                raise
            passphrase = str(click.prompt(f"Passphrase of {path}", hide_input=True, err=True)).encode()
        except (OSError, ValueError, paramiko.SSHException) as error:
            raise click.UsageError(f"{path} cannot be used as a private key: {error}") from None


class _KeepFirst(paramiko.MissingHostKeyPolicy):
    """ssh's accept-new: the key that an instance shows at the first login is the one it must show from then on."""

    def __init__(self, hosts: Path) -> None:
        self._hosts = hosts

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        with self._hosts.open("a") as file:
            file.write(f"{hostname} {key.get_name()} {key.get_base64()}\n")


@contextmanager
def logged_in(client: Client, login: Login) -> Iterator[paramiko.Transport]:
    """A Transport that has logged in; closed at the end. Raises click's errors, which say what to do."""
    hosts = make_known_hosts_file(login.instance_id)
    hosts.touch(mode=0o600)
    ssh = paramiko.SSHClient()
    ssh.load_host_keys(str(hosts))
    ssh.set_missing_host_key_policy(_KeepFirst(hosts))
    tunnel = open_tunnel(client, login.instance_id, SSH_PORT)
    try:
        ssh.connect(
            login.instance_id,
            SSH_PORT,
            login.user,
            pkey=read_key(login.key) if login.key else None,
            sock=tunnel,
            look_for_keys=False,
            allow_agent=login.key is None,
            timeout=LOGIN_TIMEOUT_S,
            banner_timeout=LOGIN_TIMEOUT_S,
            auth_timeout=LOGIN_TIMEOUT_S,
        )
        transport = ssh.get_transport()
        if transport is None:
            raise click.ClickException(f"{login.instance_id} closed the connection")
        yield transport
    except paramiko.BadHostKeyException:
        raise click.ClickException(
            f"{login.instance_id} shows another host key than before. If you know why, remove {hosts} and try again"
        ) from None
    except paramiko.AuthenticationException as error:
        raise click.ClickException(refused(login, str(error))) from None
    except (paramiko.SSHException, EOFError) as error:
        raise click.ClickException(
            f"{login.instance_id} does not talk ssh: {error or 'it closed the connection'}. "
            f"`orc wait {login.instance_id} ssh` waits until it does, `orc logs {login.instance_id}` shows its console"
        ) from None
    finally:
        ssh.close()
        tunnel.close()  # where no session has begun, nobody else does


def refused(login: Login, reason: str) -> str:
    how = f"with {login.key}" if login.key else "and the key store has no private key for it: give one with -i FILE"
    return f"{login.instance_id} does not let {login.user} in {how} ({reason.rstrip('.')}); -l USER logs in as another"

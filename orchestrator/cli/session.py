"""Who calls, and where: the endpoint and the credentials of a command.

    flags  >  a profile  >  the environment  >  the controller's credentials.json

Credentials never leave the place that they belong to: those of the environment are used with the endpoint of the
environment (ORC_ENDPOINT or AWS_ENDPOINT_URL) and with no other, those of a profile with its endpoint_url, those of
credentials.json with the endpoint in it. So nobody's real AWS keys are shown to a local box, nor its keys to others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import click

if TYPE_CHECKING:
    from orchestrator.cli.client import Client

CREDENTIALS_PATH = Path("/var/lib/orchestrator/credentials.json")

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_TIMEOUT = 4
EXIT_UNREACHABLE = 5
EXIT_INTERRUPTED = 130


class NoCredentials(click.ClickException):
    """There is nobody to call as; the message says how that is mended."""

    exit_code = EXIT_UNREACHABLE


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is, and as whom to call it."""

    url: str
    region: str
    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """What a command is handed. `endpoint`, `region` and `profile` are flags, empty when they were not given."""

    credentials_path: Path = CREDENTIALS_PATH
    version: str = ""
    endpoint: str = ""
    region: str = ""
    profile: str = ""

    def resolve(self, environment: Mapping[str, str] | None = None) -> Endpoint:
        """The Endpoint to use. Raises NoCredentials."""
        environment = os.environ if environment is None else environment
        if self.profile:
            found = _from_profile(self.profile, self.endpoint, environment)
        else:
            found = _from_environment(self.endpoint, environment) or self._from_file(environment)
        return replace(found, region=self.region) if self.region else found

    def connect(self) -> Client:
        """A client of the API. Nothing is sent before the first call."""
        from orchestrator.cli.client import Client

        return Client(self.resolve())

    def _from_file(self, environment: Mapping[str, str]) -> Endpoint:
        wanted = self.endpoint or _endpoint_variable(environment)
        path = self.credentials_path
        try:
            kept = json.loads(path.read_text())
            found = Endpoint(
                url=kept["endpoint"],
                region=kept["region"],
                access_key_id=kept["access_key_id"],
                secret_access_key=kept["secret_access_key"],
            )
        except PermissionError:
            raise NoCredentials(
                f'{path} is for root only: use sudo, or once per shell: eval "$(sudo orc env)"'
            ) from None
        except FileNotFoundError:
            if wanted:
                raise NoCredentials(_nobody_at(wanted)) from None
            raise NoCredentials(
                f"there is no {path}: no controller has been started yet. `orc quickstart` starts one, and so does "
                "`sudo orc serve`; for another one set ORC_ENDPOINT, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoCredentials(f"{path} cannot be used ({error!r}); the controller writes it anew at start") from None
        if wanted and not _same_place(wanted, found.url):
            raise NoCredentials(f"{_nobody_at(wanted)}; the ones in {path} are for {found.url}")
        return replace(found, url=wanted) if wanted else found


def _nobody_at(url: str) -> str:
    return (
        f"there are no credentials for {url}: set ORC_ENDPOINT={url} with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "or name a profile that has it as endpoint_url with --profile"
    )


def _endpoint_variable(environment: Mapping[str, str]) -> str:
    return environment.get("ORC_ENDPOINT") or environment.get("AWS_ENDPOINT_URL") or ""


def _from_environment(flag: str, environment: Mapping[str, str]) -> Endpoint | None:
    url = _endpoint_variable(environment)
    access_key_id = environment.get("AWS_ACCESS_KEY_ID", "")
    secret_access_key = environment.get("AWS_SECRET_ACCESS_KEY", "")
    if not (url and access_key_id and secret_access_key) or (flag and not _same_place(flag, url)):
        return None
    return Endpoint(
        url=_checked(flag or url),
        region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        access_key_id=access_key_id,
        secret_access_key=secret_access_key,
        session_token=environment.get("AWS_SESSION_TOKEN") or None,
    )


def _from_profile(profile: str, flag: str, environment: Mapping[str, str]) -> Endpoint:
    config_path, credentials_path = aws_files(environment)
    config = _read_ini(config_path, "default" if profile == "default" else f"profile {profile}")
    secret = _read_ini(credentials_path, profile)
    merged = {**config, **secret}
    url = config.get("endpoint_url", "")
    if not url:
        raise NoCredentials(
            f"the profile '{profile}' in {config_path} has no endpoint_url; `orc configure-aws --profile {profile}` "
            "writes one that has"
        )
    if flag and not _same_place(flag, url):
        raise NoCredentials(f"the profile '{profile}' is for {url}, not for {flag}")
    if not (merged.get("aws_access_key_id") and merged.get("aws_secret_access_key")):
        raise NoCredentials(f"the profile '{profile}' has no aws_access_key_id and aws_secret_access_key")
    return Endpoint(
        url=_checked(url),
        region=merged.get("region", "us-east-1"),
        access_key_id=merged["aws_access_key_id"],
        secret_access_key=merged["aws_secret_access_key"],
        session_token=merged.get("aws_session_token"),
    )


def aws_files(environment: Mapping[str, str]) -> tuple[Path, Path]:
    """AWS tools' own config and credentials files."""
    config = environment.get("AWS_CONFIG_FILE") or "~/.aws/config"
    credentials = environment.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
    return Path(config).expanduser(), Path(credentials).expanduser()


def _read_ini(path: Path, section: str) -> dict[str, str]:
    from configparser import Error, RawConfigParser

    parser = RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (Error, UnicodeDecodeError) as error:
        raise NoCredentials(f"{path} cannot be read: {error}") from None
    return dict(parser[section]) if parser.has_section(section) else {}


def _checked(url: str) -> str:
    _place(url)
    return url.rstrip("/")


def _same_place(one: str, other: str) -> bool:
    return _place(one) == _place(other)


def _place(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
        raise click.UsageError(f"'{url}' is no endpoint: expected http://HOST:PORT or https://HOST:PORT")
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80)


def session_of(context: click.Context) -> Session:
    """The Session of a command, with the flags of `orc` itself.

    The root's `obj` is a Session, or a callable that makes one from the path of a configuration file (which may be
    None): completion and `--help` then need no configuration.
    """
    root = context.find_root()
    known: Session | None = root.meta.get(__name__)
    if known is None:
        given: Any = root.obj or Session()
        made: Session = given(root.params.get("config_file")) if callable(given) else given
        flags = {name: root.params.get(name) for name in ("endpoint", "region", "profile")}
        known = replace(made, **{name: value for name, value in flags.items() if value})
        root.meta[__name__] = known
    return known


# --- what is kept for the person who calls ---


_LONGEST_NAME = 200  # of 255, with room for what a file is called while it is written


def data_dir() -> Path:
    """Private keys and known hosts: ORC_DATA_DIR, or `orchestrator` in XDG's place for data."""
    if named := os.environ.get("ORC_DATA_DIR"):
        return Path(named)
    place = os.environ.get("XDG_DATA_HOME", "")
    # XDG's specification: a relative path is to be ignored.
    if place.startswith("/"):
        return Path(place) / "orchestrator"
    try:
        return Path.home() / ".local" / "share" / "orchestrator"
    except RuntimeError:
        raise click.ClickException("this user has no home: ORC_DATA_DIR is to name a place for keys") from None


def key_file(key_name: str) -> Path:
    """Where the private half of a key pair is kept. A name may be longer than a file's."""
    name = quote(key_name, safe=" @+=,")
    kept = data_dir() / "keys" / f"{name}.pem"
    if len(name) <= _LONGEST_NAME:
        return kept
    with suppress(OSError):  # an earlier version wrote longer names, as far as the file system takes them
        kept.lstat()
        return kept
    return kept.with_name(f"{name[: _LONGEST_NAME - 65]}-{sha256(key_name.encode()).hexdigest()}.pem")


def known_hosts_file(instance_id: str) -> Path:
    """The host keys of one instance. By its id, since addresses are used again."""
    return data_dir() / "known_hosts" / instance_id


def make_known_hosts_file(instance_id: str) -> Path:
    """The same, with the directory that it is in."""
    path = known_hosts_file(instance_id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise click.ClickException(
            f"{path.parent} is for host keys and cannot be made ({error.strerror}): ORC_DATA_DIR names another place"
        ) from None
    return path


def write_private(path: Path, content: str | bytes) -> None:
    """Whole or not at all, and never readable by others; folders above it too."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)

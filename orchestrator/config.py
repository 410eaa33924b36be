"""One frozen Config: defaults < file < environment < flags. Only `__main__` reads it; values are passed down.

A key `network.egress` is `egress` in the file's `[network]` table, `ORC_NETWORK_EGRESS` in the environment and
`--network-egress` among the flags. `orc config` prints every key, its value and where that came from.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from orchestrator.model.rate import KINDS, Rate, parse_rate

DEFAULT_FILES = (Path("/etc/orchestrator/config.toml"), Path("~/.config/orchestrator/config.toml"))
DEFAULT_REGIONS = "us-east-1:a,b,c us-west-2:a"
MAX_OVERCOMMIT = 1_000_000  # beyond all sense, but a number that can be reckoned with


class ConfigError(Exception):
    """A key or value that cannot be used; the message names it and says what is allowed."""


def _key(default: Any, about: str, *, allowed: tuple[str, ...] = (), name: str = "", secret: bool = False) -> Any:
    metadata = {"about": about, "allowed": allowed, "name": name, "secret": secret}
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    state_dir: Path = _key(Path("/var/lib/orchestrator"), "where everything is kept; one controller per directory")
    store_url: str = _key(
        "",
        "a PostgreSQL database for the state, postgresql://USER@HOST/DATABASE; empty: a SQLite file in state_dir",
        name="store.url",
        secret=True,
    )
    host: str = _key(
        "libvirt", "what runs the instances: real machines, or none (API only)", allowed=("libvirt", "memory")
    )
    address: str = _key("127.0.0.1", "the address that the API listens on")
    port: int = _key(8773, "the port that the API listens on")
    remote: bool = _key(False, "allow an address beyond loopback without TLS")
    tls_certificate: str = _key("", "a PEM file; the API then speaks HTTPS", name="tls.certificate")
    tls_key: str = _key("", "the PEM file of its private key", name="tls.key")
    auth: str = _key("verify", "check signatures, or take any credentials (loopback only)", allowed=("verify", "any"))
    regions: str = _key(DEFAULT_REGIONS, "regions and their zones' letters: 'us-east-1:a,b us-west-2:a'")
    images_dir: str = _key("", "the image recipes; empty: those that come with orchestrator")
    libvirt_uri: str = _key("qemu:///system", "the libvirt connection", name="libvirt.uri")
    accelerator: str = _key(
        "auto",
        "auto tries KVM by running something under it",
        allowed=("auto", "kvm", "tcg"),
        name="libvirt.accelerator",
    )
    cpu_overcommit: float = _key(8.0, "how many vCPUs of running instances per processor of the host")
    memory_overcommit: float = _key(1.0, "how much memory of running instances per memory of the host")
    public_range: str = _key(
        "auto",
        "public addresses, routed from this host; auto is 203.0.113.0/24, or the next that the host does not need",
        name="network.public_range",
    )
    ipv6_range: str = _key(
        "2001:db8:ec00::/40",
        "IPv6 addresses, of which a VPC gets a /56 when it asks for one; routed from this host",
        name="network.ipv6_range",
    )
    public_bridge: str = _key(
        "",
        "an existing bridge (of a LAN, or libvirt's) on which public addresses answer; empty: on this host alone",
        name="network.public_bridge",
    )
    network_egress: str = _key(
        "on", "whether guests may reach beyond this host", allowed=("on", "off"), name="network.egress"
    )
    import_dir: str = _key(
        "",
        "a folder below which anyone with an account can import files (file:///...); empty: none",
        name="storage.import_dir",
    )
    passphrase_file: str = _key(
        "",
        "a file that only its owner may read, with the passphrase that protects the key store's master key",
        name="keys.passphrase_file",
    )
    max_depth: int = _key(
        16, "how many layers a volume may lie on, itself included, before they are merged", name="storage.max_depth"
    )
    stop_timeout_s: int = _key(120, "how long a guest may take to shut down before its plug is pulled")
    reboot_timeout_s: int = _key(240, "how long a guest may take to reboot before it is reset")
    after_host_boot: str = _key(
        "start",
        "what becomes of instances that ran when the host went down: started again, or stopped and left so",
        allowed=("start", "stop"),
        name="instances.after_host_boot",
    )
    quotas: str = _key(
        "", "how much an account may have in a region, where not as usual: 'instances=100 vpcs=5 vcpus=none'"
    )
    rate_read: str = _key(
        "2000/1000",
        "calls that only read, per account and region: how many at once, and how many a second; or off",
        name="api.rate_read",
    )
    rate_write: str = _key("1000/500", "calls that change something", name="api.rate_write")
    rate_intensive: str = _key(
        "1000/400", "calls that cost most, such as RunInstances and CreateSnapshot", name="api.rate_intensive"
    )
    rate_unproven: str = _key(
        "200/2",
        "calls of one address that fail authentication; those that do not are not held up",
        name="api.rate_unproven",
    )
    connections_per_address: int = _key(
        1024, "how many connections one address may have to the API at once", name="api.connections_per_address"
    )
    audit_kept: int = _key(
        20_000,
        "how many events of the audit log stay in the store; older ones are moved to files",
        name="audit.kept",
    )
    terminated_kept_s: int = _key(3600, "how long terminated instances stay visible")
    workers: int = _key(8, "how many resources are worked on at once")
    log_level: str = _key("info", "how much is logged", allowed=("debug", "info", "warning", "error"), name="log.level")
    log_format: str = _key(
        "text", "one line per event, for people or for machines", allowed=("text", "json"), name="log.format"
    )

    def region_zones(self) -> dict[str, tuple[str, ...]]:
        """Region -> its zones' full names, in order."""
        table: dict[str, tuple[str, ...]] = {}
        for part in self.regions.split():
            region, _, letters = part.partition(":")
            zones = tuple(region + letter for letter in letters.split(",") if letter)
            if not region or not zones:
                raise ConfigError(f"regions: '{part}' must be REGION:LETTER[,LETTER...], for example us-east-1:a,b")
            table[region] = zones
        if not table:
            raise ConfigError("regions: at least one is needed, for example us-east-1:a,b")
        return table

    def quota_table(self) -> dict[str, int | None]:
        """Name -> number, None for none, of those that are set."""
        if not self.quotas:
            return {}
        from orchestrator.model.quota import parse_quotas  # knows every kind of resource: too slow for each command

        try:
            return parse_quotas(self.quotas)
        except ValueError as error:
            raise ConfigError(f"quotas: {error}") from None

    def rates(self) -> dict[str, Rate]:
        """Of requests, by kind of action; one that is not limited is not there."""
        found = {}
        for kind in KINDS:
            try:
                rate = parse_rate(getattr(self, f"rate_{kind}"))
            except ValueError as error:
                raise ConfigError(f"api.rate_{kind}: {error}") from None
            if rate is not None:
                found[kind] = rate
        return found

    @property
    def endpoint(self) -> str:
        scheme = "https" if self.tls_certificate else "http"
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Key:
    """One key under its names, for flags, for `orc config` and for the reference."""

    attribute: str
    name: str  # network.egress
    default: Any
    about: str
    allowed: tuple[str, ...]
    secret: bool = False  # a URL that may have a password

    def shown(self, value: Any) -> str:
        """`value` for people to see."""
        return without_password(str(value)) if self.secret else str(value)

    @property
    def variable(self) -> str:
        return "ORC_" + self.name.replace(".", "_").upper()

    @property
    def flag(self) -> str:
        return "--" + self.name.replace(".", "-").replace("_", "-")


KEYS: tuple[Key, ...] = tuple(
    Key(
        f.name,
        f.metadata["name"] or f.name,
        f.default,
        f.metadata["about"],
        f.metadata["allowed"],
        f.metadata["secret"],
    )
    for f in fields(Config)
)


def load(
    flags: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> tuple[Config, dict[str, str]]:
    """The effective Config, and for each attribute where it came from: default, a file's path, a variable or a flag.

    `flags` maps attributes to values, None for those not given. A file that was named must exist.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    sources = {key.attribute: "default" for key in KEYS}
    path = _find_file(environment, file)
    if path is not None:
        by_name = {key.name: key for key in KEYS}
        for name, value in _flatten(_read(path)).items():
            if name not in by_name:
                raise ConfigError(f"{path}: unknown key '{name}'; known are {', '.join(sorted(by_name))}")
            values[by_name[name].attribute] = _convert(by_name[name], value, str(path))
            sources[by_name[name].attribute] = str(path)
    for key in KEYS:
        if key.variable in environment:
            values[key.attribute] = _convert(key, environment[key.variable], key.variable)
            sources[key.attribute] = key.variable
        if flags and flags.get(key.attribute) is not None:
            if key.secret and key.shown(flags[key.attribute]) != str(flags[key.attribute]):
                raise ConfigError(
                    f"{key.flag}: everybody on this machine sees a password on a command line: put it into the "
                    f"configuration file, {key.variable} or the file that PGPASSFILE names"
                )
            values[key.attribute] = _convert(key, flags[key.attribute], key.flag)
            sources[key.attribute] = key.flag
    config = Config(**values)
    _check(config)
    return config, sources


def without_password(url: str) -> str:
    """With `***` in the place of each password."""
    hidden = re.sub(r"^([a-z]+://[^:/?#@]*:).*@", r"\1***@", url)
    return re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1***", hidden)


def _find_file(environment: Mapping[str, str], file: Path | None) -> Path | None:
    named = file or (Path(environment["ORC_CONFIG"]) if environment.get("ORC_CONFIG") else None)
    if named is not None:
        if not named.is_file():
            raise ConfigError(f"the configuration file {named} does not exist")
        return named
    # Without a home, os.path leaves `~` as it is, and there is no such file.
    places = [Path(os.path.expanduser(path)) for path in DEFAULT_FILES]
    return next((path for path in places if path.is_file()), None)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _convert(key: Key, value: Any, source: str) -> Any:
    text = str(value).strip()
    kind = type(key.default)
    try:
        if kind is bool:
            converted: Any = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}[
                text.lower()
            ]
        elif kind is str:
            converted = {"true": "on", "false": "off"}.get(text.lower(), text) if "on" in key.allowed else text
        else:
            converted = kind(text)
    except (KeyError, ValueError):
        wanted = "true or false" if kind is bool else f"a value of type {kind.__name__}"
        raise ConfigError(f"{source}: '{text}' is not right for {key.name}: expected {wanted}") from None
    if key.allowed and converted not in key.allowed:
        raise ConfigError(f"{source}: '{text}' is not right for {key.name}: expected one of {', '.join(key.allowed)}")
    return converted


def _check(config: Config) -> None:
    config.region_zones()
    if config.store_url and not config.store_url.startswith(("postgresql://", "postgres://")):
        raise ConfigError("store.url: expected postgresql://[USER@]HOST[:PORT]/DATABASE, or nothing")
    if not 0 <= config.port <= 65535:
        raise ConfigError(f"port: {config.port} is not between 0 (any free one) and 65535")
    for name, value in (("cpu_overcommit", config.cpu_overcommit), ("memory_overcommit", config.memory_overcommit)):
        if not 0 < value <= MAX_OVERCOMMIT:  # nan is neither
            raise ConfigError(f"{name}: {value} must be above 0 and at most {MAX_OVERCOMMIT}")
    if config.workers <= 0:
        raise ConfigError(f"workers: {config.workers} must be above 0")
    if config.import_dir and not Path(config.import_dir).is_absolute():
        raise ConfigError(f"storage.import_dir: '{config.import_dir}' must be an absolute path")
    if config.audit_kept < 1000:
        raise ConfigError(f"audit.kept: {config.audit_kept} must be at least 1000")
    config.quota_table()
    config.rates()
    if config.connections_per_address < 1:
        raise ConfigError(f"api.connections_per_address: {config.connections_per_address} must be at least 1")
    if config.max_depth < 2:
        raise ConfigError(f"storage.max_depth: {config.max_depth} must be at least 2: a volume and what it is made of")
    if config.public_bridge and config.public_range == "auto":
        raise ConfigError(
            f"network.public_bridge: with '{config.public_bridge}', set network.public_range to a part of the bridge's "
            "LAN that nobody else uses, such as 192.168.1.128/25"
        )
    try:
        ipv6 = ipaddress.IPv6Network(config.ipv6_range)
    except ValueError as error:
        raise ConfigError(f"network.ipv6_range: {error}") from error
    if not 16 <= ipv6.prefixlen <= 52:
        raise ConfigError(f"network.ipv6_range: {ipv6} must be a /16 to a /52: a VPC gets a /56 of it")
    if config.public_range != "auto":
        try:
            public = ipaddress.IPv4Network(config.public_range)
        except ValueError as error:
            raise ConfigError(f"network.public_range: {error}") from error
        if not 16 <= public.prefixlen <= 28:
            raise ConfigError(f"network.public_range: {public} must be a /16 to a /28")
    try:
        loopback = config.address == "localhost" or ipaddress.ip_address(config.address).is_loopback
    except ValueError:
        raise ConfigError(f"address: '{config.address}' is not an IP address") from None
    if bool(config.tls_certificate) != bool(config.tls_key):
        raise ConfigError("tls.certificate and tls.key go together: set both or neither")
    if not loopback and config.auth == "any":
        raise ConfigError("auth = any takes any credentials, so it is for loopback addresses only")
    if not loopback and not config.tls_certificate and not config.remote:
        raise ConfigError(
            f"address: {config.address} is beyond loopback: configure tls.certificate and tls.key, or set remote = true"
        )

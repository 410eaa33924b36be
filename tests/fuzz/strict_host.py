"""The in-memory host, grown suspicious: what it is handed is rendered as a real host would, and looked at.

What reconcilers hand down ends up in XML, in nft's and dnsmasq's languages, in the words of a command, and in file
names. Here each such text is made, by the code that makes it on a real host, and must say what was meant and no more.
Faults are noted and not raised: a reconciler would try again.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from orchestrator.host import Disk, LayerFile, Machine, Nic, Router, dnsmasq, routing, ruleset, translator
from orchestrator.host.links import UPLINK, leg_name, peer_name
from orchestrator.host.memory import MemoryCompute, MemoryHost
from orchestrator.host.memory_network import MemoryNetwork
from orchestrator.host.memory_storage import MemoryStorage
from orchestrator.host.xml import DomainFiles, DomainTemplate, KernelFiles

TEMPLATE = DomainTemplate()
PUBLIC_RANGE = IPv4Network("198.18.0.0/16")

# What may stand in a value of these: nothing that separates words, ends lines or begins an option.
_WORD = re.compile(r"[A-Za-z0-9:_][A-Za-z0-9._:/{}-]*\Z|-1\Z|\Z", re.ASCII)
_WORDS = re.compile(r"[A-Za-z0-9._ -]*\Z", re.ASCII)  # several names
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9./_-]*\Z", re.ASCII)  # below a folder whose own path is absolute
_ARGUMENTS = re.compile(r"[ -~]*\Z")  # of a kernel: from a recipe
_SPACED = {"domain"}
# Every line of dnsmasq.conf begins so; a line that a value brought would be another.
_OPTIONS = {
    *("user", "pid-file", "bind-dynamic", "no-poll", "cache-size", "no-resolv", "no-hosts", "interface"),
    *("except-interface", "dhcp-authoritative", "dhcp-lease-max", "leasefile-ro", "no-ping", "dhcp-hostsfile"),
    *("dhcp-option", "enable-ra", "dhcp-range", "addn-hosts", "local", "domain-needed", "bogus-priv", "local-ttl"),
    *("synth-domain", "server", "address", "port"),
}


class Faults:
    """What was wrong, each once; and how often something was looked at."""

    def __init__(self) -> None:
        self.found: dict[str, None] = {}
        self.looks = 0
        self._lock = threading.Lock()

    def note(self, what: str) -> None:
        with self._lock:
            self.found[what] = None

    def look(self, check: Callable[[], None], about: str) -> None:
        self.looks += 1
        try:
            check()
        except Exception as error:
            self.note(f"{about}: {type(error).__name__}: {error}"[:500])


class StrictCompute(MemoryCompute):
    def __init__(self, faults: Faults, storage: MemoryStorage) -> None:
        super().__init__(storage=storage)
        self.faults = faults

    def start(self, machine: Machine) -> None:
        self.faults.look(lambda: check_machine(machine), f"start {machine.name!r}")
        super().start(machine)

    def plug_in(self, name: str, nic: Nic) -> None:
        def check() -> None:
            element = _element(TEMPLATE.render_interface(nic, max(1, nic.index)))
            _same(element.find("mac"), "address", nic.mac)

        self.faults.look(check, f"plug {nic!r} into {name!r}")
        super().plug_in(name, nic)

    def plug_in_disk(self, name: str, disk: Disk) -> None:
        def check() -> None:
            element = _element(TEMPLATE.render_disk(disk, max(1, disk.index), _paths((disk,)), deployment="0f3c"))
            _check_disk(element, disk)

        self.faults.look(check, f"plug {disk!r} into {name!r}")
        super().plug_in_disk(name, disk)

    def switch_disks(self, name: str, tops: Mapping[str, LayerFile], *, freeze: bool = False) -> bool:
        def check() -> None:
            for serial, layer in tops.items():
                _file_name(serial)
                _file_name(layer.layer)

        self.faults.look(check, f"switch {dict(tops)!r} of {name!r}")
        return super().switch_disks(name, tops, freeze=freeze)


class StrictNetwork(MemoryNetwork):
    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.faults = faults

    def apply(self, router: Router, before: Router | None = None) -> None:
        self.faults.look(lambda: check_router(router), f"apply {router.name!r}")
        super().apply(router, before)


def _guarded(name: str) -> Any:
    """A method of Storage whose texts become file names and arguments of qemu-img."""

    def method(self: StrictStorage, *arguments: Any, **named: Any) -> Any:
        def check() -> None:
            for text in _texts((arguments, named)):
                if name == "export_layer" and "/" in text:
                    assert not text.startswith("/") and ".." not in text.split("/"), f"{text!r} leads elsewhere"
                    assert _PATH.match(text), f"{text!r} is no plain path"
                elif text:
                    _file_name(text)

        self.faults.look(check, f"{name}{arguments!r}{named!r}")
        return getattr(MemoryStorage, name)(self, *arguments, **named)

    return method


class StrictStorage(MemoryStorage):
    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.faults = faults

    create_layer = _guarded("create_layer")
    copy_layer = _guarded("copy_layer")
    merge_layer = _guarded("merge_layer")
    reparent_layer = _guarded("reparent_layer")
    seal_layer = _guarded("seal_layer")
    verify_layer = _guarded("verify_layer")
    export_layer = _guarded("export_layer")
    remove_export = _guarded("remove_export")
    remove_layer = _guarded("remove_layer")
    build_image = _guarded("build_image")
    remove_upload = _guarded("remove_upload")


def strict_host(faults: Faults) -> MemoryHost:
    storage = StrictStorage(faults)
    return MemoryHost(compute=StrictCompute(faults, storage), storage=storage, network=StrictNetwork(faults))


# --- what is looked at ---


def check_machine(machine: Machine) -> None:
    """Its XML is well-formed, and says of each value what the value is."""
    files = DomainFiles(
        layers=_paths(machine.disks),
        kernel=KernelFiles(kernel=Path("/state/kernel"), initrd=None),
        serial_socket=Path("/run/serial"),
        console_log=Path("/state/console"),
    )
    domain = _element(TEMPLATE.render(machine, files, deployment="0f3c", accelerator="tcg"))
    for path, value in (("name", machine.name), ("uuid", machine.uuid), ("memory", str(machine.memory_mib))):
        assert domain.findtext(path) == value, f"{path} is {domain.findtext(path)!r}, not {value!r}"
        assert _WORD.match(value), f"{path}: {value!r}"
    entries = {entry.get("name"): entry.text for entry in domain.iterfind("sysinfo/*/entry")}
    for name, value in (("product", machine.product_name), ("asset", machine.asset_tag)):
        assert entries.get(name, "") == value and _WORD.match(value), f"{name}: {value!r}"
    if machine.kernel is not None:
        _file_name(machine.kernel.layer)
        assert domain.findtext("os/cmdline", "") == machine.kernel.arguments, machine.kernel.arguments
        assert _ARGUMENTS.match(machine.kernel.arguments), machine.kernel.arguments
    disks, nics = domain.findall("devices/disk"), domain.findall("devices/interface")
    assert (len(disks), len(nics)) == (len(machine.disks), len(machine.nics))
    for element, disk in zip(disks, machine.disks, strict=True):
        _check_disk(element, disk)
    for element, nic in zip(nics, machine.nics, strict=True):
        _same(element.find("mac"), "address", nic.mac)


def check_router(router: Router) -> None:
    """No value of it can end a word or a line where it is written, and no line is there that none of them meant."""
    for name, text in _named_texts(router):
        assert (_WORDS if name in _SPACED else _WORD).match(text), f"{name} is {text!r}"
    for kind, text in router_texts(router).items():
        assert (text.isascii() and text.isprintable()) or set(re.sub(r"[ -~]", "", text)) <= {"\n", "\t"}, kind
    configuration = router_texts(router)["dnsmasq.conf"]
    for line in configuration.splitlines():
        assert line.partition("=")[0] in _OPTIONS, f"dnsmasq.conf has {line!r}"
    machines = [port for port in router.ports if not port.translator]
    assert len(dnsmasq.hosts(router).splitlines()) == len(machines)
    assert len(dnsmasq.names(router).splitlines()) == len(router.records)


def router_texts(router: Router) -> dict[str, str]:
    """All that a real host would write for it."""
    links = {
        UPLINK,
        *(leg_name(segment.name) for segment in router.segments),
        *(peer_name(peering.name) for peering in router.peerings),
    }
    gateway = str(ruleset.UPLINK_RANGE[0]) if router.uplink else ""
    return {
        "nft": ruleset.router(router).text(),
        "guard": ruleset.guard_elements("0f3c", router),
        **{f"nft of {port.name}": ruleset.translator(port).text() for port, _ in translator.translators(router)},
        "ip": routing.wanted(router, links, gateway).text,
        "dnsmasq.conf": dnsmasq.configuration(
            router, Path("/run/orc/router"), user="dnsmasq", upstream="", public_range=PUBLIC_RANGE
        ),
        "hosts": dnsmasq.hosts(router),
        "names": dnsmasq.names(router),
    }


def _check_disk(element: ElementTree.Element, disk: Disk) -> None:
    assert element.findtext("serial") == disk.serial, disk.serial
    for layer in disk.chain:
        _file_name(layer.layer)


def _paths(disks: tuple[Disk, ...]) -> dict[str, Path]:
    return {layer.layer: Path(f"/state/layers/{layer.layer}.qcow2") for disk in disks for layer in disk.chain}


def _element(xml: str) -> ElementTree.Element:
    return ElementTree.fromstring(xml)


def _same(element: ElementTree.Element | None, attribute: str, value: str) -> None:
    assert element is not None and element.get(attribute) == value, f"{attribute} is not {value!r}"


def _file_name(text: str) -> None:
    assert _FILE.match(text), f"{text!r} is no plain file name"


def _texts(value: Any) -> Iterator[str]:
    """Those in names of layers and files; a progress function is none, nor is a secret."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, LayerFile):
        yield value.layer
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))


def _named_texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    elif is_dataclass(value):
        for each in fields(value):
            yield from _named_texts(getattr(value, each.name), each.name)
    elif isinstance(value, tuple):
        for each in value:
            yield from _named_texts(each, name)

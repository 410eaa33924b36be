"""Instance types: what a name says, and what each published type offers.

A name is `FAMILY GENERATION CAPABILITIES . SIZE`, and `parse` takes it apart without asking whether such a type exists:

    r5dn.8xlarge            u7i-12tb.224xlarge          m7i-flex.large
    | |||  +-- size         || +-- 12 TB of memory      || +-- flex: a share of the CPU, at a lower price
    | ||+-- n: network      |+-- i: Intel               |+-- i: Intel
    | |+-- d: local disks   +-- generation 7            +-- generation 7
    | +-- generation 5
    +-- family

`CATALOGUE` has the figures that Amazon publishes, one `InstanceType` per name. They are kept as text in
`instance_types_table`, a line per type; that module's docstring is the key to its columns. The text is indexed by name
when this module is imported and a line is read when its type is first asked for, so that starting costs little.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from orchestrator.model.errors import EC2Error
from orchestrator.model.instance_types_table import TABLE

FAMILIES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("t", "m", "a", "mac"), "general purpose"),
    **dict.fromkeys(("c", "cc"), "compute optimized"),
    **dict.fromkeys(("r", "x", "u", "z", "cr"), "memory optimized"),
    **dict.fromkeys(("p", "g", "gr", "inf", "trn", "f", "vt", "dl", "cg"), "accelerated computing"),
    **dict.fromkeys(("i", "d", "h", "im", "is", "hi", "hs"), "storage optimized"),
    "hpc": "high performance computing",
}

CAPABILITIES: Final[Mapping[str, str]] = {
    "a": "AMD processors",
    "b": "block storage optimization",
    "d": "instance store volumes",
    "e": "extra storage, memory or GPU memory",
    "f": "fractional GPUs",
    "g": "AWS Graviton processors",
    "h": "high performance fabric",
    "i": "Intel processors",
    "n": "network optimization",
    "q": "Qualcomm inference accelerators",
    "s": "smaller configuration",
    "u": "part of an UltraServer",
    "z": "high CPU frequency",
    "flex": "flexible CPU performance",
}

_NAME = re.compile(r"([a-z]+?)(\d+)?([a-z]*)(?:-([a-z0-9]+))?\.([a-z0-9-]+)")
_SIZE = re.compile(r"nano|micro|small|medium|large|([1-9]\d*)?xlarge|metal(-[1-9]\d*xl)?")
_TERABYTES = re.compile(r"([1-9]\d*tb)(\d*)")  # u7i-12tb; the older u-6tb1 has its generation here
_CHIP = re.compile(r"[a-z]+\d+[a-z]*")  # mac2-m1ultra, p6-b200


@dataclass(frozen=True, slots=True)
class TypeName:
    """An instance type's name, taken apart. `generation` is None where the name has none (mac-m4.metal)."""

    family: str
    generation: int | None
    capabilities: tuple[str, ...]  # letters, then words: ("i", "flex"), ("6tb",), ("m2",)
    size: str

    @property
    def category(self) -> str:
        return FAMILIES[self.family]

    @property
    def bare_metal(self) -> bool:
        return self.size.startswith("metal")


def parse(name: str) -> TypeName:
    """Take the name of an instance type apart; ValueError says which part is not as expected."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{name!r} is not an instance type: expected FAMILY, GENERATION, CAPABILITIES, a dot and SIZE, "
            "as in r5dn.8xlarge"
        )
    family, generation, letters, word, size = match.groups()
    if generation is None:  # the letters all belong to the family, as in u-6tb1 and mac-m4
        family, letters = family + letters, ""
    if family not in FAMILIES:
        raise ValueError(f"{name!r} has no known family {family!r}: expected one of {', '.join(sorted(FAMILIES))}")
    for letter in letters:
        if letter not in CAPABILITIES:
            known = ", ".join(c for c in CAPABILITIES if len(c) == 1)
            raise ValueError(f"{name!r} has no known capability {letter!r}: expected letters of {known}")
    capabilities = tuple(letters)
    if word is not None:
        terabytes = _TERABYTES.fullmatch(word)
        if terabytes:
            word, generation = terabytes[1], generation or terabytes[2] or None
        elif word not in CAPABILITIES and not _CHIP.fullmatch(word):
            raise ValueError(
                f"{name!r} has no known capability {word!r}: expected flex, a size of memory as in u7i-12tb, "
                "or the name of a chip as in mac2-m2"
            )
        capabilities += (word,)
    if generation is None and (word is None or not _CHIP.fullmatch(word)):
        raise ValueError(f"{name!r} has no generation: expected a number after {family!r}, as in {family}5.large")
    if not _SIZE.fullmatch(size):
        raise ValueError(
            f"{name!r} has no known size {size!r}: expected nano, micro, small, medium, large, xlarge, "
            "a multiple as in 8xlarge, metal, or metal-48xl"
        )
    return TypeName(family, int(generation) if generation else None, capabilities, size)


@dataclass(frozen=True, slots=True)
class Disks:
    """Instance store volumes of one size."""

    count: int
    size_gb: int


@dataclass(frozen=True, slots=True)
class NetworkCard:
    performance: str  # "Up to 25 Gigabit"
    baseline_gbps: float
    peak_gbps: float  # above the baseline: for bursts
    max_interfaces: int
    efa: bool
    ena_queues: int  # of an interface, unless asked otherwise
    max_ena_queues_per_interface: int | None = None
    max_ena_queues: int | None = None  # of all the card's interfaces together
    flexible_interfaces: int | None = None  # interfaces beyond max_interfaces, with fewer queues; None: no such choice


@dataclass(frozen=True, slots=True)
class EbsBandwidth:
    """What an EBS-optimised type can move; throughput in MB/s is an eighth of the bandwidth."""

    baseline_mbps: float
    maximum_mbps: float
    baseline_iops: int
    maximum_iops: int


@dataclass(frozen=True, slots=True)
class Accelerator:
    """Devices of one model. `count` is a fraction where guests share one GPU."""

    kind: str  # gpu | fpga | inference | media | neuron
    count: float
    manufacturer: str
    name: str
    memory_mib: int  # of one device, or of the share
    cores: int = 0  # Neuron cores of one device
    core_version: int = 0
    workloads: tuple[str, ...] = ()

    @property
    def total_memory_mib(self) -> int:
        return self.memory_mib * math.ceil(self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceType:
    """What one type offers. Words in string fields are EC2's own (`required`, `supported`, `unsupported`, ...)."""

    name: str
    # processor and memory
    manufacturer: str
    architectures: tuple[str, ...]
    clock_ghz: float | None
    processor_features: tuple[str, ...]
    cores: int
    threads_per_core: int
    valid_cores: tuple[int, ...]  # empty: cores and threads cannot be chosen
    memory_mib: int
    credits_per_hour: float | None  # of CPU; None: not burstable. One credit is one vCPU for a minute
    # platform
    hypervisor: str | None  # xen | nitro; None: bare metal
    virtualization_types: tuple[str, ...]
    root_device_types: tuple[str, ...]
    boot_modes: tuple[str, ...]
    usage_classes: tuple[str, ...]
    placement_strategies: tuple[str, ...]
    # network
    network_performance: str
    network_cards: tuple[NetworkCard, ...]
    max_efa_interfaces: int
    ipv4_addresses_per_interface: int
    ipv6_addresses_per_interface: int
    ena_support: str
    bandwidth_weightings: tuple[str, ...]
    tcp_established_timeout_s: int  # how long an idle connection stays tracked
    # storage
    ebs_optimized: str  # unsupported | supported | default
    ebs_nvme: str
    ebs_bandwidth: EbsBandwidth | None
    max_ebs_volumes: int
    ebs_attachment_limit: str  # dedicated | shared with interfaces and instance store
    ebs_cards: int
    disks: tuple[Disks, ...]
    disk_kind: str  # ssd | hdd
    disk_nvme: str
    disk_encryption: str

    accelerators: tuple[Accelerator, ...]
    # yes or no
    current_generation: bool
    free_tier: bool
    auto_recovery: bool
    reboot_migration: bool
    dedicated_hosts: bool
    hibernation: bool
    enclaves: bool
    tpm: bool
    precise_clock: bool  # a PTP hardware clock
    encryption_in_transit: bool
    ena_express: bool
    flexible_ena_queues: bool

    @property
    def vcpus(self) -> int:
        return self.cores * self.threads_per_core

    @property
    def valid_threads_per_core(self) -> tuple[int, ...]:
        return tuple(range(1, self.threads_per_core + 1)) if self.valid_cores else ()

    @property
    def bare_metal(self) -> bool:
        return self.hypervisor is None

    @property
    def burstable(self) -> bool:
        return self.credits_per_hour is not None

    @property
    def max_credits(self) -> float | None:
        """The most CPU credits that an instance can save up: those of a day."""
        return None if self.credits_per_hour is None else round(self.credits_per_hour * 24, 1)

    @property
    def baseline_cpu_percent(self) -> float:
        """The share of each vCPU that an instance has without spending credits; 100 when it is not burstable."""
        return 100.0 if self.credits_per_hour is None else round(self.credits_per_hour * 100 / (60 * self.vcpus), 2)

    @property
    def launch_credits(self) -> int:
        """CPU credits given at launch: 30 per vCPU to T2, none to later types, which may run into debt instead."""
        return 30 * self.vcpus if self.burstable and self.default_cpu_credits == "standard" else 0

    @property
    def default_cpu_credits(self) -> str | None:
        """EC2's credit specification of an instance whose launch names none."""
        if self.credits_per_hour is None:
            return None
        return "standard" if self.name.startswith("t2.") else "unlimited"

    @property
    def max_interfaces(self) -> int:
        return sum(card.max_interfaces for card in self.network_cards)

    @property
    def instance_storage_gb(self) -> int:
        return sum(disks.count * disks.size_gb for disks in self.disks)


_DEFAULTS: Final[Mapping[str, str]] = {
    "arch": "x86_64",
    "hypervisor": "nitro",
    "virt": "hvm",
    "root": "ebs",
    "boot": "legacy-bios,uefi",
    "usage": "on-demand,spot",
    "placement": "cluster,partition,spread",
    "ebs": "default",
    "nvme": "required",
    "ena": "required",
    "tcp": "432000",
    "disk": "ssd",
    "disk-nvme": "required",
    "disk-encryption": "required",
    "devices": "1",
    **dict.fromkeys(("current", "dedicated", "transit", "tpm", "recovery", "migration"), "yes"),
}
_NOT_ON_METAL: Final = ("hypervisor", "features", "hibernation", "enclaves", "tpm", "own-ebs-slots")


def _apply(words: Iterable[str], settings: dict[str, str]) -> None:
    """`key=value`, `word` (yes) and `-word` (no), as the table's docstring explains."""
    for word in words:
        key, _, value = word.partition("=")
        if key.startswith("-") or value == "none":
            settings.pop(key.removeprefix("-"), None)
        else:
            settings[key] = value or "yes"


def _repeated(text: str) -> Iterator[str]:
    """`2*8+7` is 8, 8, 7."""
    for part in text.split("+"):
        count, star, value = part.rpartition("*")
        for _ in range(int(count) if star else 1):
            yield value


def _stepped(text: str) -> tuple[int, ...]:
    """`1-4,6-24/3` is 1, 2, 3, 4, 6, 9, ... 24; `-` is nothing."""
    numbers: list[int] = []
    for part in text.split(",") if text != "-" else ():
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1, int(step or 1)))
    return tuple(numbers)


def _span(text: str) -> tuple[float, float]:
    """`0.75-10` is from 0.75 to 10; `25` is from 25 to 25."""
    low, _, high = text.partition("-")
    return float(low), float(high or low)


def _words(settings: Mapping[str, str], key: str) -> tuple[str, ...]:
    return tuple(settings[key].split(",")) if key in settings else ()


def _in_words(settings: Mapping[str, str], key: str) -> str | None:
    return settings[key].replace("_", " ") if key in settings else None


def _gigabit(baseline: float, peak: float, shown: float) -> str:
    return f"{'' if baseline == peak else 'Up to '}{shown:g} Gigabit"


def _network_cards(
    interfaces: str, bandwidth: str, queues: str, settings: Mapping[str, str]
) -> tuple[str, tuple[NetworkCard, ...]]:
    """The performance of all cards together, in words, and the cards."""
    spans = [_span(span) for span in _repeated(bandwidth)]
    total = _in_words(settings, "perf") or _gigabit(
        *spans[0], math.floor(100 * sum(peak for _, peak in spans) + 1e-9) / 100
    )
    performance = _in_words(settings, "card-perf") or (_in_words(settings, "perf") if len(spans) == 1 else None)
    flexible = int(settings.get("flexible", 0)) if "flexible-queues" in settings else None
    ena_queues, per_interface, per_card = (*(int(n) for n in queues.split("/")), None, None)[:3]
    efa_cards = int(settings.get("efa", "0").rpartition("/")[2])
    full_bandwidth = spans[-1]
    return total, tuple(
        NetworkCard(
            performance=performance or _gigabit(baseline, peak, round(peak, 2)),
            baseline_gbps=baseline,
            peak_gbps=peak,
            max_interfaces=int(count),
            efa=efa_cards > 0 and (baseline, peak) == full_bandwidth,  # a lesser first card (p6-b300) has none
            ena_queues=ena_queues or 1,
            max_ena_queues_per_interface=per_interface,
            max_ena_queues=per_card,
            flexible_interfaces=flexible,
        )
        for (baseline, peak), count in zip(spans, _repeated(interfaces), strict=True)
    )


def _accelerators(settings: Mapping[str, str]) -> Iterator[Accelerator]:
    count = float(settings["devices"])
    for kind in ("gpu", "fpga", "inference", "media"):
        if kind in settings:
            manufacturer, name, memory = settings[kind].split("/")
            workloads = _words(settings, "workloads") if kind == "gpu" else ()
            yield Accelerator(kind, count, manufacturer, name.replace("_", " "), int(memory), workloads=workloads)
    if "neuron" in settings:
        name, cores, memory = settings["neuron"].split("/")
        core_count, _, version = cores.partition("v")
        yield Accelerator("neuron", count, "AWS", name, int(memory), int(core_count), int(version))


def _ebs_bandwidth(text: str) -> EbsBandwidth | None:
    if text == "-":
        return None
    (baseline_mbps, maximum_mbps), (baseline_iops, maximum_iops) = (_span(span) for span in text.split(":"))
    return EbsBandwidth(baseline_mbps, maximum_mbps, int(baseline_iops), int(maximum_iops))


def _read(family_line: str, type_line: str) -> InstanceType:
    """One type from its family's line and its own."""
    family, *family_words = family_line.split()
    size, cores, memory, valid_cores, interfaces, bandwidth, queues, ebs, volumes, disks, *words = type_line.split()
    settings = dict(_DEFAULTS)
    _apply(family_words, settings)
    if size.startswith("metal"):
        _apply((f"-{key}" for key in _NOT_ON_METAL), settings)
        settings["boot"] = settings["boot"].removesuffix(",uefi")
    _apply(words, settings)
    core_count, _, threads = cores.partition("x")
    interfaces, _, addresses = interfaces.rpartition("x")
    performance, cards = _network_cards(interfaces, bandwidth, queues, settings)
    return InstanceType(
        name=f"{family}.{size}",
        manufacturer=settings["cpu"],
        architectures=_words(settings, "arch"),
        clock_ghz=float(settings["clock"]) if "clock" in settings else None,
        processor_features=_words(settings, "features"),
        cores=int(core_count),
        threads_per_core=int(threads),
        valid_cores=_stepped(valid_cores),
        memory_mib=int(memory[:-1]) if memory.endswith("M") else int(float(memory) * 1024),
        credits_per_hour=float(settings["credits"]) if "credits" in settings else None,
        hypervisor=settings.get("hypervisor"),
        virtualization_types=_words(settings, "virt"),
        root_device_types=_words(settings, "root"),
        boot_modes=_words(settings, "boot"),
        usage_classes=_words(settings, "usage"),
        placement_strategies=_words(settings, "placement"),
        network_performance=performance,
        network_cards=cards,
        max_efa_interfaces=int(settings.get("efa", "0").partition("/")[0]),
        ipv4_addresses_per_interface=int(addresses),
        ipv6_addresses_per_interface=int(settings.get("ipv6", addresses)),
        ena_support=settings["ena"],
        bandwidth_weightings=_words(settings, "weighting"),
        tcp_established_timeout_s=int(settings["tcp"]),
        ebs_optimized=settings["ebs"],
        ebs_nvme=settings["nvme"],
        ebs_bandwidth=_ebs_bandwidth(ebs),
        max_ebs_volumes=int(volumes),
        ebs_attachment_limit="dedicated" if "own-ebs-slots" in settings else "shared",
        ebs_cards=int(settings.get("ebs-cards", 1)),
        disks=tuple(Disks(*map(int, group.split("x"))) for group in disks.split("+") if group != "-"),
        disk_kind=settings["disk"],
        disk_nvme=settings["disk-nvme"],
        disk_encryption=settings["disk-encryption"],
        accelerators=tuple(_accelerators(settings)),
        current_generation="current" in settings,
        free_tier="free-tier" in settings,
        auto_recovery="recovery" in settings,
        reboot_migration="migration" in settings,
        dedicated_hosts="dedicated" in settings,
        hibernation="hibernation" in settings,
        enclaves="enclaves" in settings,
        tpm="tpm" in settings,
        precise_clock="phc" in settings,
        encryption_in_transit="transit" in settings,
        ena_express="ena-express" in settings,
        flexible_ena_queues="flexible-queues" in settings,
    )


class _Catalogue(Mapping[str, InstanceType]):
    """The table by name, in its order: family, then size. A type is read when it is first looked up."""

    def __init__(self, table: str) -> None:
        self._lines: dict[str, tuple[str, str]] = {}
        self._read: dict[str, InstanceType] = {}
        family_line = family = ""
        for line in table.replace("\n    ", " ").splitlines():
            if line.startswith(" "):
                self._lines[f"{family}.{line.split(maxsplit=1)[0]}"] = (family_line, line)
            else:
                family_line, family = line, line.partition(" ")[0]

    def __getitem__(self, name: str) -> InstanceType:
        found = self._read.get(name)
        if found is None:
            found = self._read[name] = _read(*self._lines[name])
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


CATALOGUE: Final[Mapping[str, InstanceType]] = _Catalogue(TABLE)


def get(name: str) -> InstanceType:
    """The type that a launch or a change of type names; else InvalidParameterValue, as RunInstances answers."""
    if name not in CATALOGUE:
        raise EC2Error("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.")
    return CATALOGUE[name]


def get_all(names: Iterable[str]) -> list[InstanceType]:
    """The types that a Describe call names, each once; else InvalidInstanceType with every name that is unknown."""
    asked = list(dict.fromkeys(names))
    unknown = [name for name in asked if name not in CATALOGUE]
    if unknown:
        raise EC2Error(
            "InvalidInstanceType", f"The following supplied instance types do not exist: [{', '.join(unknown)}]"
        )
    return [CATALOGUE[name] for name in asked]

"""The catalogue of instance types, against figures from Amazon's pages, and the grammar of their names."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model import instance_types_table
from orchestrator.model.errors import EC2Error
from orchestrator.model.instance_type import (
    CAPABILITIES,
    CATALOGUE,
    FAMILIES,
    Disks,
    InstanceType,
    TypeName,
    _Catalogue,
    get,
    get_all,
    parse,
)

TABLE = instance_types_table.TABLE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("r5dn.8xlarge", TypeName("r", 5, ("d", "n"), "8xlarge")),
        ("t2.micro", TypeName("t", 2, (), "micro")),
        ("u-6tb1.metal", TypeName("u", 1, ("6tb",), "metal")),
        ("u-12tb1.112xlarge", TypeName("u", 1, ("12tb",), "112xlarge")),
        ("u7i-12tb.224xlarge", TypeName("u", 7, ("i", "12tb"), "224xlarge")),
        ("u7inh-32tb.480xlarge", TypeName("u", 7, ("i", "n", "h", "32tb"), "480xlarge")),
        ("m7i-flex.large", TypeName("m", 7, ("i", "flex"), "large")),
        ("m7i.metal-48xl", TypeName("m", 7, ("i",), "metal-48xl")),
        ("mac1.metal", TypeName("mac", 1, (), "metal")),
        ("mac2-m2.metal", TypeName("mac", 2, ("m2",), "metal")),
        ("mac2-m1ultra.metal", TypeName("mac", 2, ("m1ultra",), "metal")),
        ("mac-m4.metal", TypeName("mac", None, ("m4",), "metal")),
        ("c6gn.16xlarge", TypeName("c", 6, ("g", "n"), "16xlarge")),
        ("x2iedn.32xlarge", TypeName("x", 2, ("i", "e", "d", "n"), "32xlarge")),
        ("im4gn.xlarge", TypeName("im", 4, ("g", "n"), "xlarge")),
        ("is4gen.medium", TypeName("is", 4, ("g", "e", "n"), "medium")),
        ("trn1n.32xlarge", TypeName("trn", 1, ("n",), "32xlarge")),
        ("vt1.3xlarge", TypeName("vt", 1, (), "3xlarge")),
        ("dl1.24xlarge", TypeName("dl", 1, (), "24xlarge")),
        ("p4de.24xlarge", TypeName("p", 4, ("d", "e"), "24xlarge")),
        ("p6e-gb200.36xlarge", TypeName("p", 6, ("e", "gb200"), "36xlarge")),
        ("hpc7g.16xlarge", TypeName("hpc", 7, ("g",), "16xlarge")),
        ("z1d.metal", TypeName("z", 1, ("d",), "metal")),
    ],
)
def test_a_name_is_taken_apart(name: str, expected: TypeName) -> None:
    assert parse(name) == expected


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "expected FAMILY, GENERATION, CAPABILITIES, a dot and SIZE"),
        ("t3", "a dot and SIZE"),
        ("t3.", "a dot and SIZE"),
        (".micro", "a dot and SIZE"),
        ("T3.micro", "a dot and SIZE"),
        ("t3.micro.large", "a dot and SIZE"),
        ("t3.micro\n", "a dot and SIZE"),
        ("y5.large", "no known family 'y'"),
        ("m.large", "no generation"),
        ("m-flex.large", "no generation"),
        ("m5y.large", "no known capability 'y'"),
        ("m7i-turbo.large", "no known capability 'turbo'"),
        ("t3.huge", "no known size 'huge'"),
        ("m5.0xlarge", "no known size '0xlarge'"),
        ("m5.metal-48", "no known size 'metal-48'"),
    ],
)
def test_a_malformed_name_is_refused_with_what_is_expected(name: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        parse(name)


@given(st.text(alphabet="abdgmnrtuxz-.0123456789elai", max_size=24))
def test_any_text_is_either_a_name_of_known_parts_or_a_value_error(text: str) -> None:
    try:
        name = parse(text)
    except ValueError:
        return
    assert name.family in FAMILIES
    assert text.startswith(name.family) and text.endswith("." + name.size)
    assert all(letter in CAPABILITIES for letter in name.capabilities if len(letter) == 1)


def test_every_name_of_the_catalogue_can_be_taken_apart() -> None:
    names = {name: parse(name) for name in CATALOGUE}
    assert all(names[name].bare_metal == CATALOGUE[name].bare_metal for name in names)
    assert names["r5dn.8xlarge"].category == "memory optimized"
    graviton = {name for name, parts in names.items() if "g" in parts.capabilities}
    assert graviton <= {name for name, kind in CATALOGUE.items() if kind.architectures == ("arm64",)}
    assert {n for n, parts in names.items() if "d" in parts.capabilities} <= {
        n for n in CATALOGUE if CATALOGUE[n].disks
    }


SIZES = {
    "t2": "nano micro small medium large xlarge 2xlarge",
    "t3": "nano micro small medium large xlarge 2xlarge",
    "t3a": "nano micro small medium large xlarge 2xlarge",
    "t4g": "nano micro small medium large xlarge 2xlarge",
    "m5": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge metal",
    "m5a": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge",
    "m5d": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge metal",
    "m6i": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge metal",
    "m6g": "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal",
    "m7i": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge metal-24xl metal-48xl",
    "m7g": "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal",
    "c5": "large xlarge 2xlarge 4xlarge 9xlarge 12xlarge 18xlarge 24xlarge metal",
    "c5d": "large xlarge 2xlarge 4xlarge 9xlarge 12xlarge 18xlarge 24xlarge metal",
    "c5n": "large xlarge 2xlarge 4xlarge 9xlarge 18xlarge metal",
    "c6i": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge metal",
    "c6g": "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal",
    "c7g": "medium large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal",
    "c7i": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge metal-24xl metal-48xl",
    "r5": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge metal",
    "r5d": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge metal",
    "r5n": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge metal",
    "r5dn": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge metal",
    "r6i": "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge metal",
    "x1": "16xlarge 32xlarge",
    "x1e": "xlarge 2xlarge 4xlarge 8xlarge 16xlarge 32xlarge",
    "i3": "large xlarge 2xlarge 4xlarge 8xlarge 16xlarge metal",
    "i3en": "large xlarge 2xlarge 3xlarge 6xlarge 12xlarge 24xlarge metal",
    "d3": "xlarge 2xlarge 4xlarge 8xlarge",
    "g4dn": "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge metal",
    "g5": "xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge",
    "p3": "2xlarge 8xlarge 16xlarge",
    "z1d": "large xlarge 2xlarge 3xlarge 6xlarge 12xlarge metal",
}


@pytest.mark.parametrize("family", SIZES)
def test_a_family_has_all_its_sizes_smallest_first(family: str) -> None:
    listed = [name.partition(".")[2] for name in CATALOGUE if name.startswith(family + ".")]
    assert listed == SIZES[family].split()


@pytest.mark.parametrize(
    ("name", "vcpus", "memory_gib", "performance", "interfaces", "addresses"),
    [
        ("t2.micro", 1, 1, "Low to Moderate", 2, 2),
        ("t3.micro", 2, 1, "Up to 5 Gigabit", 2, 2),
        ("t4g.nano", 2, 0.5, "Up to 5 Gigabit", 2, 2),
        ("m5.large", 2, 8, "Up to 10 Gigabit", 3, 10),
        ("c5.18xlarge", 72, 144, "25 Gigabit", 15, 50),
        ("c5n.9xlarge", 36, 96, "50 Gigabit", 8, 30),
        ("c6g.16xlarge", 64, 128, "25 Gigabit", 15, 50),
        ("r5dn.8xlarge", 32, 256, "25 Gigabit", 8, 30),
        ("r5dn.24xlarge", 96, 768, "100 Gigabit", 15, 50),
        ("x1.32xlarge", 128, 1952, "25 Gigabit", 8, 30),
        ("i3.metal", 72, 512, "25 Gigabit", 15, 50),
        ("d3.8xlarge", 32, 256, "25 Gigabit", 3, 20),
        ("g4dn.xlarge", 4, 16, "Up to 25 Gigabit", 3, 10),
        ("p3.16xlarge", 64, 488, "25 Gigabit", 8, 30),
        ("z1d.12xlarge", 48, 384, "25 Gigabit", 15, 50),
    ],
)
def test_published_figures(
    name: str, vcpus: int, memory_gib: float, performance: str, interfaces: int, addresses: int
) -> None:
    kind = CATALOGUE[name]
    assert (kind.vcpus, kind.memory_mib / 1024) == (vcpus, memory_gib)
    assert kind.network_performance == performance
    assert (kind.max_interfaces, kind.ipv4_addresses_per_interface) == (interfaces, addresses)


def test_one_type_in_full() -> None:
    kind = CATALOGUE["r5dn.8xlarge"]
    assert (kind.manufacturer, kind.architectures, kind.clock_ghz) == ("Intel", ("x86_64",), 3.1)
    assert (kind.cores, kind.threads_per_core) == (16, 2)
    assert kind.valid_cores == (2, 4, 6, 8, 10, 12, 14, 16)
    assert kind.valid_threads_per_core == (1, 2)
    assert (kind.hypervisor, kind.virtualization_types, kind.root_device_types) == ("nitro", ("hvm",), ("ebs",))
    assert kind.boot_modes == ("legacy-bios", "uefi")
    assert kind.placement_strategies == ("cluster", "partition", "spread")
    assert kind.ebs_bandwidth is not None
    assert (kind.ebs_bandwidth.baseline_mbps, kind.ebs_bandwidth.maximum_iops) == (6800, 30000)
    assert (kind.disks, kind.disk_kind, kind.disk_nvme) == ((Disks(2, 600),), "ssd", "required")
    assert kind.instance_storage_gb == 1200
    assert (kind.enclaves, kind.hibernation, kind.dedicated_hosts, kind.burstable) == (True, False, True, False)


def test_what_differs_between_kinds_of_machine() -> None:
    xen, metal, arm = CATALOGUE["t2.micro"], CATALOGUE["m5.metal"], CATALOGUE["c7g.large"]
    assert (xen.hypervisor, xen.boot_modes, xen.ena_support, xen.ebs_bandwidth) == (
        "xen", ("legacy-bios",), "unsupported", None
    )  # fmt: skip
    assert xen.architectures == ("i386", "x86_64")
    assert (metal.bare_metal, metal.hypervisor, metal.valid_cores, metal.enclaves) == (True, None, (), False)
    assert (arm.architectures, arm.boot_modes, arm.threads_per_core) == (("arm64",), ("uefi",), 1)
    assert CATALOGUE["mac1.metal"].architectures == ("x86_64_mac",)
    assert CATALOGUE["i3.16xlarge"].boot_modes == ("legacy-bios",)


def test_accelerators() -> None:
    [v100] = CATALOGUE["p3.16xlarge"].accelerators
    assert (v100.kind, v100.count, v100.manufacturer, v100.name) == ("gpu", 8, "NVIDIA", "V100")
    assert (v100.memory_mib, v100.total_memory_mib) == (16384, 8 * 16384)
    [eighth] = CATALOGUE["g6f.large"].accelerators
    assert (eighth.count, eighth.total_memory_mib) == (0.125, 2861)
    assert [device.kind for device in CATALOGUE["inf1.6xlarge"].accelerators] == ["inference", "neuron"]
    assert CATALOGUE["g7e.2xlarge"].accelerators[0].name == "RTX PRO Server 6000"


def test_several_network_cards() -> None:
    kind = CATALOGUE["p5.48xlarge"]
    assert (len(kind.network_cards), kind.max_interfaces, kind.max_efa_interfaces) == (32, 64, 32)
    assert (kind.network_performance, kind.network_cards[31].performance) == ("3200 Gigabit", "100 Gigabit")
    uneven = CATALOGUE["p6-b300.48xlarge"].network_cards
    assert [card.peak_gbps for card in uneven] == [350.0] + 16 * [400.0]
    assert [card.efa for card in uneven] == [False] + 16 * [True]


# vCPUs, credits an hour, most credits, baseline of each vCPU in percent: "CPU credits and baseline utilization"
CREDITS = {
    "t2.nano": (1, 3, 72, 5),
    "t2.micro": (1, 6, 144, 10),
    "t2.small": (1, 12, 288, 20),
    "t2.medium": (2, 24, 576, 20),
    "t2.large": (2, 36, 864, 30),
    "t2.xlarge": (4, 54, 1296, 22.5),
    "t2.2xlarge": (8, 81.6, 1958.4, 17),
    "t3.nano": (2, 6, 144, 5),
    "t3.micro": (2, 12, 288, 10),
    "t3.small": (2, 24, 576, 20),
    "t3.medium": (2, 24, 576, 20),
    "t3.large": (2, 36, 864, 30),
    "t3.xlarge": (4, 96, 2304, 40),
    "t3.2xlarge": (8, 192, 4608, 40),
}


@pytest.mark.parametrize("name", CREDITS)
def test_cpu_credits(name: str) -> None:
    kind = CATALOGUE[name]
    assert (kind.vcpus, kind.credits_per_hour, kind.max_credits, kind.baseline_cpu_percent) == CREDITS[name]
    assert kind.burstable


def test_t3a_and_t4g_earn_what_t3_earns_and_others_nothing() -> None:
    earns = {name: kind.credits_per_hour for name, kind in CATALOGUE.items() if kind.burstable}
    for size in SIZES["t3"].split():
        assert earns[f"t3a.{size}"] == earns[f"t4g.{size}"] == earns[f"t3.{size}"]
    assert {name.partition(".")[0] for name in earns} == {"t2", "t3", "t3a", "t4g"}
    assert (CATALOGUE["m5.large"].baseline_cpu_percent, CATALOGUE["m5.large"].max_credits) == (100.0, None)


def test_credits_at_launch() -> None:
    assert (CATALOGUE["t2.large"].default_cpu_credits, CATALOGUE["t2.large"].launch_credits) == ("standard", 60)
    assert (CATALOGUE["t3.large"].default_cpu_credits, CATALOGUE["t3.large"].launch_credits) == ("unlimited", 0)
    assert (CATALOGUE["c5.large"].default_cpu_credits, CATALOGUE["c5.large"].launch_credits) == (None, 0)


def test_every_type_makes_sense() -> None:
    for name, kind in CATALOGUE.items():
        assert kind.name == name
        assert kind.memory_mib > 0 and kind.architectures and kind.boot_modes, name
        assert not kind.valid_cores or max(kind.valid_cores) == kind.cores, name
        assert list(kind.valid_cores) == sorted(set(kind.valid_cores)), name
        assert all(0 < card.baseline_gbps <= card.peak_gbps for card in kind.network_cards), name
        assert (kind.ebs_bandwidth is None) == (kind.ebs_optimized == "unsupported"), name
        if kind.ebs_bandwidth:
            ebs = kind.ebs_bandwidth
            assert ebs.baseline_mbps <= ebs.maximum_mbps and ebs.baseline_iops <= ebs.maximum_iops, name
        assert kind.bare_metal == (kind.hypervisor not in ("xen", "nitro")), name
        assert 0 < kind.baseline_cpu_percent <= 100, name
        words = {kind.ena_support, kind.ebs_nvme, kind.disk_nvme, kind.disk_encryption}
        assert words <= {"required", "supported", "unsupported"}, name


def _table_lines() -> Iterator[str]:
    return iter(TABLE.replace("\n    ", " ").splitlines())


def test_the_table_uses_only_settings_that_its_key_explains() -> None:
    key = (instance_types_table.__doc__ or "").partition("A setting is")[2]
    explained = set(re.findall(r"[a-z0-9-]+", key))
    used: set[str] = set()
    for line in _table_lines():
        settings = line.split()[10:] if line.startswith(" ") else line.split()[1:]
        used.update(word.partition("=")[0].removeprefix("-") for word in settings)
    assert used <= explained


def test_the_table_names_each_type_and_family_once() -> None:
    types = sum(line.startswith(" ") for line in _table_lines())
    families = [line.partition(" ")[0] for line in _table_lines() if not line.startswith(" ")]
    assert types == len(CATALOGUE) == len(list(CATALOGUE))
    assert len(families) == len(set(families))
    assert len(TABLE) < 150_000


def test_indexing_the_table_is_quick() -> None:
    def once() -> float:
        start = time.process_time()
        _Catalogue(TABLE)
        return time.process_time() - start

    assert min(once() for _ in range(5)) < 0.030


def test_a_type_is_a_value_read_once() -> None:
    kind = CATALOGUE["m5.large"]
    assert CATALOGUE["m5.large"] is kind
    assert isinstance(kind, InstanceType) and hash(kind) == hash(dataclasses.replace(kind))
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind.memory_mib = 1  # type: ignore[misc]


def test_an_unknown_type_at_launch() -> None:
    assert get("t3.micro") is CATALOGUE["t3.micro"]
    with pytest.raises(EC2Error) as refused:
        get("t3.gigantic")
    assert refused.value.code == "InvalidParameterValue"
    assert refused.value.message == "Invalid value 't3.gigantic' for InstanceType."


def test_unknown_types_in_a_describe_are_all_named() -> None:
    assert [kind.name for kind in get_all(["m5.large", "t2.micro", "m5.large"])] == ["m5.large", "t2.micro"]
    with pytest.raises(EC2Error) as refused:
        get_all(["m5.large", "m5.tiny", "nonsense"])
    assert refused.value.code == "InvalidInstanceType"
    assert refused.value.message == "The following supplied instance types do not exist: [m5.tiny, nonsense]"

"""The domain XML against files that people have read. With ORC_REGENERATE=1 in the environment they are made anew."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jinja2
import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.host import DirectKernel, Disk, LayerFile, Limits, Machine, Nic
from orchestrator.host.xml import (
    MAX_DISKS,
    MAX_NICS,
    DomainFiles,
    DomainTemplate,
    KernelFiles,
    device_of,
    iotune,
    secret_uuid,
    templates_dir,
)

GOLDEN = Path(__file__).parent / "golden"
TEMPLATE = DomainTemplate()


def machine(**changes: object) -> Machine:
    values: dict[str, object] = {
        "name": "i-0123456789abcdef0",
        "uuid": "ec2a1b2c-0000-4000-8000-0123456789ab",
        "vcpus": 2,
        "cores": 1,
        "threads": 2,
        "memory_mib": 1024,
        "disks": (Disk(chain=(LayerFile("layer-0aaa"),), serial="vol0123456789abcdef0"),),
        "nics": (Nic(port="eni-0123456789a", segment="subnet-0123456", mac="02:aa:bb:cc:dd:ee"),),
        "product_name": "t3.micro",
        "asset_tag": "i-0123456789abcdef0",
    }
    return Machine(**{**values, **changes})  # type: ignore[arg-type]


def paths(*layers: LayerFile) -> dict[str, Path]:
    return {layer.layer: Path(f"/state/layers/{layer.layer}.qcow2") for layer in layers}


def files(of: Machine, *, initrd: bool = True) -> DomainFiles:
    return DomainFiles(
        layers=paths(*(layer for disk in of.disks for layer in disk.chain)),
        kernel=KernelFiles(
            kernel=Path("/state/kernels/layer-0bbb/kernel"),
            initrd=Path("/state/kernels/layer-0bbb/initrd") if initrd else None,
        ),
        serial_socket=Path(f"/run/orc/{of.name}.serial"),
        console_log=Path(f"/state/consoles/{of.name}.log"),
        security_models=("apparmor",) if of.product_name == "m5.24xlarge" else (),
    )


def render(of: Machine, *, accelerator: str = "tcg", initrd: bool = True) -> str:
    return TEMPLATE.render(of, files(of, initrd=initrd), deployment="0f3c", accelerator=accelerator)


KERNEL = DirectKernel(layer="layer-0bbb", arguments="console=ttyS0 root=/dev/vda quiet")
SECRET = bytes(range(32))
CHAIN = (LayerFile("layer-0top", SECRET), LayerFile("layer-0mid", SECRET), LayerFile("layer-0low"))
MACHINES = {
    "disk-kvm": (machine(), {"accelerator": "kvm"}),
    "disk-tcg": (machine(), {}),
    "kernel": (machine(kernel=KERNEL, cpu_share_percent=20), {}),
    "kernel-without-ramdisk": (machine(kernel=KERNEL), {"initrd": False}),
    "bare": (machine(disks=(), nics=(), product_name="", asset_tag="", vcpus=1, threads=1, memory_mib=512), {}),
    "chain": (
        machine(
            disks=(
                Disk(chain=CHAIN, serial="vol-a"),
                Disk(
                    chain=(LayerFile("layer-0eph"),),
                    serial="AWS0123456789abcdef0",
                    index=27,
                    limits=Limits(
                        iops=300,
                        bytes_per_s=128 << 20,
                        burst_iops=3000,
                        burst_bytes_per_s=250 << 20,
                        burst_s=1800,
                        operation_bytes=256 << 10,
                    ),
                ),
                Disk(chain=(LayerFile("layer-0dat"),), serial="vol-b", index=2, limits=Limits(iops=100)),
            )
        ),
        {},
    ),
    "large": (
        machine(
            vcpus=96,
            cores=48,
            memory_mib=384 << 10,
            product_name="m5.24xlarge",
            disks=tuple(Disk(chain=(LayerFile(f"layer-{n:02}"),), serial=f"vol{n:02}") for n in range(14)),
            nics=tuple(Nic(port=f"eni-{n:02}", segment="subnet-0a", mac=f"02:00:00:00:00:{n:02x}") for n in range(3)),
        ),
        {"accelerator": "kvm"},
    ),
}


PARTS = {
    "switch": TEMPLATE.render_switch(
        {"vda": CHAIN[0], "vdc": CHAIN[2]}, ["vdb"], paths(CHAIN[0], CHAIN[2]), deployment="0f3c"
    ),
    "secret": TEMPLATE.render_secret("layer-0top", deployment="0f3c"),
}


@pytest.mark.parametrize("name", [*MACHINES, *PARTS])
def test_the_xml_is_what_was_read_and_agreed_to(name: str) -> None:
    if name in PARTS:
        xml = PARTS[name]
    else:
        of, how = MACHINES[name]
        xml = render(of, **how)  # type: ignore[arg-type]
    golden = GOLDEN / f"{name}.xml"
    if os.environ.get("ORC_REGENERATE"):
        golden.write_text(xml, encoding="utf-8")
    assert xml == golden.read_text(encoding="utf-8")


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.xml")} == {*MACHINES, *PARTS}


def sources() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted(templates_dir().glob("*.xml.j2")))


def printed(xml: str) -> set[tuple[str, str, str]]:
    """(element, attribute, value) of all that is there, with '' for the element alone."""
    found: set[tuple[str, str, str]] = set()
    for tag, attributes in re.findall(r"<([\w:]+)((?:\s+[\w:]+='[^']*')*)\s*/?>", xml):
        found.add((tag, "", ""))
        found |= {(tag, name, value) for name, value in re.findall(r"([\w:]+)='([^']*)'", attributes)}
    return found


def test_whatever_the_template_can_print_is_in_a_golden_file() -> None:
    source = sources()
    tags = len(re.findall(r"<[\w:]+", source))
    template = printed(source)
    assert len(re.findall(r"<([\w:]+)((?:\s+[\w:]+='[^']*')*)\s*/?>", source)) == tags  # all of it is understood
    golden: set[tuple[str, str, str]] = set()
    for path in GOLDEN.glob("*.xml"):
        golden |= printed(path.read_text(encoding="utf-8"))
    named = {(tag, attribute) for tag, attribute, _ in golden}
    missing = {
        (tag, attribute, value)
        for tag, attribute, value in template
        if ((tag, attribute) not in named if "{{" in value else (tag, attribute, value) not in golden)
    }
    assert not missing


def test_each_branch_of_the_template_is_taken_both_ways() -> None:
    """A golden file with the branch, and one without it: each conditional's first element tells."""
    source = sources()
    texts = [path.read_text(encoding="utf-8") for path in GOLDEN.glob("*.xml")]
    for marked in re.findall(r"{% (?:if|for) [^%]*%}\n\s*(<[\w:]+(?:\s+\w+='[^'{]*')?)", source):
        holders = [marked in text for text in texts]
        assert any(holders), marked
        assert not all(holders), marked


def test_values_cannot_become_markup() -> None:
    hostile = "console=ttyS0 </cmdline><devices/> & \"'"
    tree = ElementTree.fromstring(render(machine(kernel=DirectKernel(layer="layer-0bbb", arguments=hostile))))
    assert tree.findtext("./os/cmdline") == hostile
    assert len(tree.findall("devices")) == 1


def test_an_undefined_value_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "domain.xml.j2").write_text("<domain>{{ nobody_passes_this }}</domain>")
    for part in ("interface", "disk", "switch", "secret"):
        (tmp_path / f"{part}.xml.j2").write_text("<part/>")
    with pytest.raises(jinja2.UndefinedError):
        DomainTemplate(tmp_path).render(machine(), files(machine()), deployment="d", accelerator="tcg")


@given(st.integers(1, MAX_DISKS), st.integers(0, MAX_NICS))
def test_no_two_devices_share_an_address(disks: int, nics: int) -> None:
    of = machine(
        disks=tuple(Disk(chain=(LayerFile(f"layer-{n}"),), serial=f"vol{n}") for n in range(disks)),
        nics=tuple(Nic(port=f"eni-{n}", segment="s", mac="02:00:00:00:00:01") for n in range(nics)),
    )
    tree = ElementTree.fromstring(render(of))
    places = [place(a) for a in tree.iter("address")]
    assert len(places) == len(set(places)) == disks + nics + 7
    assert all(1 <= slot <= 31 for bus, slot, _ in places if bus not in (1, 2))  # root ports have slot 0 alone
    buses = {int(c.get("index", "")) for c in tree.iterfind("./devices/controller[@type='pci']")}
    assert {bus for bus, _, _ in places} <= {0} | buses


def place(address: ElementTree.Element | None) -> tuple[int, int, int]:
    """Bus, slot and function."""
    assert address is not None
    return int(address.get("bus", "")), int(address.get("slot", "")), int(address.get("function", ""))


def test_devices_keep_their_places_when_others_come_and_go() -> None:
    def disks(count: int) -> list[tuple[int, int, int]]:
        of = machine(disks=tuple(Disk(chain=(LayerFile(f"l{n}"),), serial=f"s{n}") for n in range(count)))
        return [place(disk.find("address")) for disk in ElementTree.fromstring(render(of)).iter("disk")]

    def nics(*numbers: int) -> list[tuple[int, int, int]]:
        of = machine(nics=tuple(Nic(port=f"e{n}", segment="s", mac="m", index=n) for n in numbers))
        return [place(nic.find("address")) for nic in ElementTree.fromstring(render(of)).iter("interface")]

    assert disks(30)[:3] == disks(3)
    assert nics(0, 1, 4) == [*nics(0, 1), *nics(4)]
    assert nics(0, -1) == nics(0, 1)


def test_an_interface_that_is_plugged_in_is_as_it_would_have_been_from_the_start() -> None:
    nic = Nic(port="eni-0fedcba9876543210", segment="subnet-0a", mac="02:00:00:00:00:02", index=3)
    [*_, present] = ElementTree.fromstring(render(machine(nics=(*machine().nics, nic)))).iter("interface")
    alone = ElementTree.fromstring(TEMPLATE.render_interface(nic, 3))
    assert ElementTree.canonicalize(ElementTree.tostring(alone), strip_text=True) == ElementTree.canonicalize(
        ElementTree.tostring(present), strip_text=True
    )
    name = alone.find("alias")
    assert name is not None
    assert device_of(name.get("name", "")) == nic.port
    assert device_of("net0") == ""


def test_a_disk_that_is_plugged_in_is_as_it_would_have_been_from_the_start() -> None:
    disk = Disk(chain=CHAIN, serial="vol-c", limits=Limits(iops=100, burst_iops=200))
    with_it = machine(disks=(*machine().disks, replace(disk, index=7)))
    [_, present] = ElementTree.fromstring(render(with_it)).iter("disk")
    alone = ElementTree.fromstring(TEMPLATE.render_disk(disk, 7, paths(*CHAIN), deployment="0f3c"))
    assert ElementTree.canonicalize(ElementTree.tostring(alone), strip_text=True) == ElementTree.canonicalize(
        ElementTree.tostring(present), strip_text=True
    )


def test_a_chain_is_stated_down_to_its_end_and_no_secret_is_in_it() -> None:
    xml = render(machine(disks=(Disk(chain=CHAIN, serial="vol-a"),)))
    layer = ElementTree.fromstring(xml).find("./devices/disk")
    seen = []
    while layer is not None and (source := layer.find("source")) is not None:
        secret = source.find("./encryption/secret")
        seen.append((Path(source.get("file", "")).stem, secret.get("uuid") if secret is not None else None))
        layer = layer.find("backingStore")
    assert layer is not None and not list(layer)  # an empty one: nothing is below
    assert seen == [(file.layer, secret_uuid(file.layer, deployment="0f3c") if file.secret else None) for file in CHAIN]
    assert SECRET.hex() not in xml
    assert secret_uuid("layer-0top", deployment="another") != secret_uuid("layer-0top", deployment="0f3c")


def test_libvirt_is_told_no_burst_that_it_would_refuse() -> None:
    assert set(iotune(None).values()) == {0}
    burst = iotune(Limits(iops=100, burst_iops=100, burst_bytes_per_s=5, burst_s=9))
    assert {name: value for name, value in burst.items() if value} == {"total_iops_sec": 100}
    burst = iotune(Limits(iops=100, burst_iops=3000, burst_s=60))
    assert (burst["total_iops_sec_max"], burst["total_iops_sec_max_length"]) == (3000, 58)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"vcpus": 3}, "3 vCPUs"),
        ({"nics": tuple(Nic(port=f"e{n}", segment="s", mac="m") for n in range(MAX_NICS + 1))}, "number 32"),
        ({"nics": (Nic(port="e", segment="s", mac="m", index=MAX_NICS),)}, "number 32"),
        ({"nics": tuple(Nic(port=p, segment="s", mac="m", index=i) for p, i in (("e", 1), ("f", -1)))}, "same number"),
        (
            {"disks": tuple(Disk(chain=(LayerFile(f"l{n}"),), serial=f"s{n}") for n in range(MAX_DISKS + 1))},
            "number 32 of its disks",
        ),
        ({"disks": (Disk(chain=(LayerFile("l"),), serial="x" * 21),)}, "serial"),
        ({"disks": (Disk(chain=(LayerFile("l"),), serial="a b"),)}, "serial"),
        ({"disks": (Disk(chain=(), serial="a"),)}, "no layer"),
        ({"disks": tuple(Disk(chain=(LayerFile("l"),), serial="a") for _ in range(2))}, "same serial"),
        ({"disks": tuple(Disk(chain=(LayerFile("l"),), serial=s, index=3) for s in "ab")}, "same number"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        render(machine(**changes))


@pytest.mark.host
@pytest.mark.parametrize("name", MACHINES)
def test_libvirt_defines_it_and_its_schema_knows_every_word(name: str) -> None:
    own = uuid.uuid4()
    xml = (GOLDEN / f"{name}.xml").read_text(encoding="utf-8")
    for before, after in (
        ("<name>i-0123456789abcdef0<", f"<name>i-schema-{own.hex[:8]}<"),
        ("ec2a1b2c-0000-4000-8000-0123456789ab", str(own)),
        ("<domain type='kvm'", "<domain type='qemu'"),  # so that it can be defined where KVM is not
        ("<cpu mode='host-passthrough'", "<cpu mode='maximum'"),
    ):
        xml = xml.replace(before, after)
    connection = libvirt.open("qemu:///system")
    try:
        domain = connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        domain.undefine()
    finally:
        connection.close()

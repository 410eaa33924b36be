"""The header reader against images that mean harm. The good ones are made here too, and qemu-img's own are tried."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.host import HostError
from orchestrator.host.imagefile import FORMATS, GIB, ImageRefused, inspect
from orchestrator.host.sandbox import convert

MIB = 1 << 20


def qcow2(
    *,
    magic: bytes = b"QFI\xfb",
    version: int = 3,
    backing: bytes = b"",
    backing_at: int = 0,
    backing_length: int | None = None,
    cluster_bits: int = 16,
    size: int = 100 * MIB,
    encryption: int = 0,
    l1_entries: int = 1,
    l1_at: int = 3 << 16,
    refcount_at: int = 1 << 16,
    refcount_clusters: int = 1,
    snapshots: int = 0,
    snapshots_at: int = 0,
    incompatible: int = 0,
    refcount_order: int = 4,
    header_bytes: int = 104,
    extensions: bytes = bytes(8),
    total: int = 4 << 16,
) -> bytes:
    head = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        magic,
        version,
        backing_at,
        len(backing) if backing_length is None else backing_length,
        cluster_bits,
        size,
        encryption,
        l1_entries,
        l1_at,
        refcount_at,
        refcount_clusters,
        snapshots,
        snapshots_at,
        incompatible,
        0,
        0,
        refcount_order,
        header_bytes,
    )
    if version == 2:
        head = head[:72]
    data = head + extensions
    if backing_at:
        data = data.ljust(backing_at, b"\0") + backing
    return data.ljust(total, b"\0")[:total]


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0") + bytes(8)


VMDK_TEXT = """# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="monolithicSparse"

# Extent description
RW 20480 SPARSE "disk.vmdk"

# The Disk Data Base
ddb.adapterType = "ide"
"""


def vmdk(
    *,
    text: str = VMDK_TEXT,
    magic: bytes = b"KDMV",
    version: int = 1,
    flags: int = 3,
    capacity: int = 20480,
    grain: int = 128,
    descriptor_at: int = 1,
    descriptor_sectors: int = 20,
    per_table: int = 512,
    directory: int = 26,
    compression: int = 0,
    total: int = MIB,
) -> bytes:
    fields = (
        magic,
        version,
        flags,
        capacity,
        grain,
        descriptor_at,
        descriptor_sectors,
        per_table,
        21,
        directory,
        128,
        0,
    )
    head = struct.pack("<4sIIQQQQIQQQB4sH", *fields, b"\n \r\n", compression).ljust(512, b"\0")
    body = text.encode().ljust(descriptor_sectors * 512, b"\0") if descriptor_sectors < 1000 else text.encode()
    return (head.ljust(descriptor_at * 512, b"\0") + body).ljust(total, b"\0")[:total]


def checksummed(sector: bytearray, at: int) -> bytes:
    sector[at : at + 4] = bytes(4)
    struct.pack_into(">I", sector, at, ~sum(sector) & 0xFFFFFFFF)
    return bytes(sector)


def vhd_footer(*, kind: int = 3, size: int = 10 * MIB, data_at: int = 512, version: int = 0x00010000) -> bytes:
    geometry = (size // 512 // (4 * 17)) << 16 | 4 << 8 | 17
    fields = (
        b"conectix",
        2,
        version,
        data_at,
        0,
        b"qemu",
        0x50003,
        b"Wi2k",
        size,
        size,
        geometry,
        kind,
        0,
        bytes(16),
        0,
    )
    return checksummed(bytearray(struct.pack(">8sIIQI4sI4sQQIII16sB", *fields).ljust(512, b"\0")), 64)


def vhd(
    *,
    footer: bytes | None = None,
    entries: int = 5,
    block: int = 2 * MIB,
    table_at: int = 1536,
    parent: bytes = bytes(16),
    version: int = 0x00010000,
    cookie: bytes = b"cxsparse",
) -> bytes:
    footer = vhd_footer() if footer is None else footer
    fields = (cookie, 2**64 - 1, table_at, version, entries, block, 0, parent)
    header = checksummed(bytearray(struct.pack(">8sQQIIII16s", *fields).ljust(1024, b"\0")), 36)
    return footer + header + b"\xff" * 512 + footer


ITEMS = {
    "caa16737-fa36-4d43-b3b6-33f0aa44e76b": struct.pack("<II", MIB, 0),
    "2fa54224-cd1b-4876-b211-5dbed83bf4b8": struct.pack("<Q", 10 * MIB),
    "beca12ab-b2e6-4523-93ef-c309e000c746": bytes(16),
    "8141bf1d-a96f-4709-ba47-f233a8faab5f": struct.pack("<I", 512),
    "cda348c7-445d-4471-9cc9-e9885251c556": struct.pack("<I", 512),
}
BAT, METADATA = "2dc27766-f623-4200-9d64-115e9bfd4a08", "8b7ca206-4790-4b9a-b8fe-575f050f886e"


def vhdx(
    *,
    items: dict[str, bytes] | None = None,
    regions: tuple[tuple[str, int, int, int], ...] = ((BAT, 3 * MIB, MIB, 1), (METADATA, 2 * MIB, MIB, 1)),
    log: bytes = bytes(16),
    version: int = 1,
    total: int = 4 * MIB,
) -> bytes:
    items = ITEMS if items is None else items
    image = bytearray(total)
    image[:8] = b"vhdxfile"
    for offset in (64 << 10, 128 << 10):
        struct.pack_into("<4sIQ16s16s16sHH", image, offset, b"head", 0, 1, bytes(16), bytes(16), log, 0, version)
    for offset in (192 << 10, 256 << 10):
        struct.pack_into("<4sII", image, offset, b"regi", 0, len(regions))
        for index, (kind, start, length, required) in enumerate(regions):
            struct.pack_into("<16sQII", image, offset + 16 + 32 * index, UUID(kind).bytes_le, start, length, required)
    struct.pack_into("<8s2xH", image, 2 * MIB, b"metadata", len(items))
    at = 64 << 10
    for index, (kind, data) in enumerate(items.items()):
        struct.pack_into("<16sIII", image, 2 * MIB + 32 + 32 * index, UUID(kind).bytes_le, at, len(data), 4)
        image[2 * MIB + at : 2 * MIB + at + len(data)] = data
        at += len(data)
    return bytes(image)


GOOD: dict[str, tuple[str, bytes, int]] = {
    "raw": ("raw", b"x" * 1000, 1024),
    "raw that looks like qcow2": ("raw", qcow2(backing=b"/etc/shadow", backing_at=200), 4 << 16),
    "qcow2": ("qcow2", qcow2(), 100 * MIB),
    "qcow2 of version 2": ("qcow2", qcow2(version=2), 100 * MIB),
    "qcow2 with named features": ("qcow2", qcow2(extensions=extension(0x6803F857, b"x" * 48)), 100 * MIB),
    "qcow2 left dirty": ("qcow2", qcow2(incompatible=1), 100 * MIB),
    "qcow2 with subclusters": ("qcow2", qcow2(incompatible=16), 100 * MIB),
    "qcow2 with zstd": (
        "qcow2",
        qcow2(incompatible=8, header_bytes=112, extensions=b"\1" + bytes(15)),
        100 * MIB,
    ),
    "vmdk": ("vmdk", vmdk(), 10 * MIB),
    "vhd": ("vhd", vhd(), 10 * MIB),
    "vhd of fixed size": ("vhd", bytes(10 * MIB) + vhd_footer(kind=2, data_at=2**64 - 1), 10 * MIB),
    "vhdx": ("vhdx", vhdx(), 10 * MIB),
}

BAD: dict[str, tuple[str, bytes, str]] = {
    "empty": ("raw", b"", "empty"),
    "an unknown format": ("iso", b"x", "not a format"),
    "qcow2: other bytes": ("qcow2", b"\0" * 65536, "no qcow2"),
    "qcow2: cut in the header": ("qcow2", qcow2()[:50], "cut off"),
    "qcow2: cut in the second header": ("qcow2", qcow2()[:90], "cut off"),
    "qcow2: version 1": ("qcow2", qcow2(version=1), "version"),
    "qcow2: a backing file": ("qcow2", qcow2(backing=b"/etc/shadow", backing_at=200), "backing file"),
    "qcow2: a backing file by protocol": (
        "qcow2",
        qcow2(backing=b'json:{"driver":"nbd"}', backing_at=200),
        "backing file",
    ),
    "qcow2: a backing format alone": ("qcow2", qcow2(extensions=extension(0xE2792ACA, b"raw")), "backing file"),
    "qcow2: a backing name of nothing": ("qcow2", qcow2(backing_length=4), "at no place"),
    "qcow2: a backing name without end": ("qcow2", qcow2(backing=b"x", backing_at=200, backing_length=2000), "name"),
    "qcow2: an external data file": ("qcow2", qcow2(incompatible=4), "another file"),
    "qcow2: a data file's name": ("qcow2", qcow2(extensions=extension(0x44415441, b"/etc/passwd")), "another file"),
    "qcow2: encrypted with AES": ("qcow2", qcow2(encryption=1), "encrypted"),
    "qcow2: encrypted with LUKS": ("qcow2", qcow2(extensions=extension(0x0537BE77, bytes(16))), "encrypted"),
    "qcow2: corrupt": ("qcow2", qcow2(incompatible=2), "corrupt"),
    "qcow2: an unknown feature": ("qcow2", qcow2(incompatible=1 << 5), "not known"),
    "qcow2: a far unknown feature": ("qcow2", qcow2(incompatible=1 << 63), "not known"),
    "qcow2: an unknown extension": ("qcow2", qcow2(extensions=extension(0x12345678, b"x")), "not known"),
    "qcow2: an extension without end": (
        "qcow2",
        qcow2(extensions=struct.pack(">II", 0x6803F857, 1 << 31)),
        "extension",
    ),
    "qcow2: compression without its feature": (
        "qcow2",
        qcow2(header_bytes=112, extensions=b"\1" + bytes(15)),
        "compression",
    ),
    "qcow2: tiny clusters": ("qcow2", qcow2(cluster_bits=8), "clusters"),
    "qcow2: huge clusters": ("qcow2", qcow2(cluster_bits=63), "clusters"),
    "qcow2: a huge L1 table": ("qcow2", qcow2(l1_entries=1 << 31), "L1"),
    "qcow2: an L1 table that is too small": ("qcow2", qcow2(size=GIB, l1_entries=1), "L1"),
    "qcow2: an L1 table outside": ("qcow2", qcow2(l1_at=1 << 50), "L1"),
    "qcow2: an L1 table in the header": ("qcow2", qcow2(l1_at=0), "L1"),
    "qcow2: an L1 table astray": ("qcow2", qcow2(l1_at=(3 << 16) + 8), "L1"),
    "qcow2: a huge reference count table": ("qcow2", qcow2(refcount_clusters=1 << 30), "reference count"),
    "qcow2: no reference count table": ("qcow2", qcow2(refcount_clusters=0), "reference count"),
    "qcow2: a reference count table outside": ("qcow2", qcow2(refcount_at=1 << 40), "reference count"),
    "qcow2: huge reference counts": ("qcow2", qcow2(refcount_order=7), "reference counts"),
    "qcow2: snapshots": ("qcow2", qcow2(snapshots=1, snapshots_at=2 << 16), "snapshots"),
    "qcow2: snapshots without end": ("qcow2", qcow2(snapshots=0xFFFFFFFF, snapshots_at=1 << 63), "snapshots"),
    "qcow2: a short header": ("qcow2", qcow2(header_bytes=80), "header has"),
    "qcow2: a long header": ("qcow2", qcow2(header_bytes=1 << 30), "header has"),
    "qcow2: no size": ("qcow2", qcow2(size=0), "no size"),
    "qcow2: 2^60 bytes": ("qcow2", qcow2(size=1 << 60, l1_entries=1 << 22), "L1"),
    "qcow2: more than is allowed": ("qcow2", qcow2(size=2 << 40, l1_entries=4096), "at most 1024 GiB"),
    "vmdk: a descriptor alone": ("vmdk", VMDK_TEXT.encode().ljust(1024, b"\0"), "in other files"),
    "vmdk: the old format": ("vmdk", b"COWD".ljust(MIB, b"\0"), "no sparse vmdk"),
    "vmdk: no capacity": ("vmdk", vmdk(capacity=0), "capacity"),
    "vmdk: an absurd capacity": ("vmdk", vmdk(capacity=1 << 62), "capacity"),
    "vmdk: absurd grains": ("vmdk", vmdk(grain=1 << 40), "grains"),
    "vmdk: absurd grain tables": ("vmdk", vmdk(per_table=1 << 31), "grain tables"),
    "vmdk: a directory outside": ("vmdk", vmdk(directory=1 << 40), "directory"),
    "vmdk: unknown features": ("vmdk", vmdk(flags=1 << 20), "not known"),
    "vmdk: an unknown version": ("vmdk", vmdk(version=4), "version"),
    "vmdk: unknown compression": ("vmdk", vmdk(flags=3 | 1 << 16, compression=2), "compression"),
    "vmdk: no descriptor": ("vmdk", vmdk(descriptor_sectors=0), "descriptor"),
    "vmdk: a huge descriptor": ("vmdk", vmdk(descriptor_sectors=1 << 40), "descriptor"),
    "vmdk: a descriptor outside": ("vmdk", vmdk(total=4096, directory=2), "descriptor"),
    "vmdk: no footer": ("vmdk", vmdk(directory=2**64 - 1), "footer"),
    "vmdk: a flat extent": (
        "vmdk",
        vmdk(text=VMDK_TEXT.replace('SPARSE "disk.vmdk"', 'FLAT "/etc/shadow" 0')),
        "extents",
    ),
    "vmdk: a second extent": (
        "vmdk",
        vmdk(text=VMDK_TEXT + 'RW 20480 SPARSE "/etc/shadow"\n'),
        "extents",
    ),
    "vmdk: another kind": ("vmdk", vmdk(text=VMDK_TEXT.replace("monolithicSparse", "twoGbMaxExtentSparse")), "type"),
    "vmdk: a parent": ("vmdk", vmdk(text=VMDK_TEXT.replace("ffffffff", "12345678")), "parent"),
    "vmdk: a parent's name": ("vmdk", vmdk(text=VMDK_TEXT + 'parentFileNameHint="/etc/shadow"\n'), "parent"),
    "vmdk: a second descriptor where QEMU looks for a parent": (
        "vmdk",
        vmdk(descriptor_at=30)[:512] + b'parentFileNameHint="/etc/shadow"\n'.ljust(29 * 512, b"\0") + vmdk()[512:],
        "parent",
    ),
    "vmdk: a line that is none": ("vmdk", vmdk(text=VMDK_TEXT + "RW 1 VMFSRDM x\n"), "not understood"),
    "vmdk: text behind the end": ("vmdk", vmdk(text=VMDK_TEXT + "\0RW 1 FLAT"), "after its end"),
    "vhd: too short": ("vhd", b"x" * 100, "cut off"),
    "vhd: no footer": ("vhd", bytes(4096), "no footer"),
    "vhd: differencing": ("vhd", vhd(footer=vhd_footer(kind=4)), "parent"),
    "vhd: another type": ("vhd", vhd(footer=vhd_footer(kind=9)), "type"),
    "vhd: another version": ("vhd", vhd(footer=vhd_footer(version=0x00020000)), "version"),
    "vhd: a wrong checksum": ("vhd", vhd()[:65] + b"\x99" + vhd()[66:], "checksum"),
    "vhd: a size that is none": ("vhd", vhd(footer=vhd_footer(size=0)), "0 bytes"),
    "vhd: larger than its file": ("vhd", bytes(MIB) + vhd_footer(kind=2), "does not"),
    "vhd: dynamic, at the end only": ("vhd", bytes(512) + vhd()[512:], "no copy"),
    "vhd: no dynamic header": ("vhd", vhd(cookie=b"xxxxxxxx"), "is none"),
    "vhd: a dynamic header outside": ("vhd", vhd(footer=vhd_footer(data_at=1 << 60)), "outside"),
    "vhd: a parent's id": ("vhd", vhd(parent=b"p" * 16), "parent"),
    "vhd: a huge table": ("vhd", vhd(entries=0xFFFFFFFF), "block table"),
    "vhd: too small a table": ("vhd", vhd(entries=1), "block table"),
    "vhd: a table outside": ("vhd", vhd(table_at=1 << 60), "outside"),
    "vhd: no blocks": ("vhd", vhd(block=0), "blocks"),
    "vhdx: other bytes": ("vhdx", bytes(MIB), "no vhdx"),
    "vhdx: cut off": ("vhdx", vhdx()[: 100 << 10], "cut off"),
    "vhdx: a log": ("vhdx", vhdx(log=b"l" * 16), "log"),
    "vhdx: another version": ("vhdx", vhdx(version=2), "version"),
    "vhdx: a parent": (
        "vhdx",
        vhdx(items={**ITEMS, "caa16737-fa36-4d43-b3b6-33f0aa44e76b": struct.pack("<II", MIB, 2)}),
        "parent",
    ),
    "vhdx: a parent locator": (
        "vhdx",
        vhdx(items={**ITEMS, "a8d35f2d-b30b-454d-abf7-d3d84834ab0c": bytes(20)}),
        "not known",
    ),
    "vhdx: no size": (
        "vhdx",
        vhdx(items={k: v for k, v in ITEMS.items() if not k.startswith("2fa5")}),
        "incomplete",
    ),
    "vhdx: a size of nothing": (
        "vhdx",
        vhdx(items={**ITEMS, "2fa54224-cd1b-4876-b211-5dbed83bf4b8": bytes(8)}),
        "0 bytes",
    ),
    "vhdx: a size beyond its table": (
        "vhdx",
        vhdx(items={**ITEMS, "2fa54224-cd1b-4876-b211-5dbed83bf4b8": struct.pack("<Q", 1 << 50)}),
        "too short",
    ),
    "vhdx: no blocks": (
        "vhdx",
        vhdx(items={**ITEMS, "caa16737-fa36-4d43-b3b6-33f0aa44e76b": struct.pack("<II", 0, 0)}),
        "blocks",
    ),
    "vhdx: a region outside": ("vhdx", vhdx(regions=((BAT, 1 << 40, MIB, 1), (METADATA, 2 * MIB, MIB, 1))), "nonsense"),
    "vhdx: no metadata": ("vhdx", vhdx(regions=((BAT, 3 * MIB, MIB, 1),)), "lacks"),
    "vhdx: an unknown region": (
        "vhdx",
        vhdx(regions=((str(UUID(int=7)), 3 * MIB, MIB, 1), (METADATA, 2 * MIB, MIB, 1))),
        "not known",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_image_is_read(tmp_path: Path, name: str) -> None:
    file_format, data, size = GOOD[name]
    path = tmp_path / "image"
    path.write_bytes(data)
    assert inspect(path, file_format) == size


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_refused_and_the_reason_named(tmp_path: Path, name: str) -> None:
    file_format, data, reason = BAD[name]
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(ImageRefused, match=reason) as caught:
        inspect(path, file_format, max_virtual_bytes=1024 * GIB)
    assert not caught.value.retryable


def test_a_format_is_never_guessed(tmp_path: Path) -> None:
    path = tmp_path / "image"
    for file_format, data, _ in GOOD.values():
        path.write_bytes(data)
        for other in FORMATS:
            if other == "raw":
                assert inspect(path, "raw") == -(-len(data) // 512) * 512
            elif other != file_format and file_format != "raw":
                with pytest.raises(ImageRefused):
                    inspect(path, other)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(OSError):
        inspect(tmp_path / "link", "raw")


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bytes_do_more_than_be_refused(tmp_path: Path, data: st.DataObject) -> None:
    """A good image with some of its bytes changed, and perhaps cut, is read or refused; nothing else may happen."""
    name = data.draw(st.sampled_from([name for name in GOOD if not name.startswith("raw") and "fixed" not in name]))
    file_format, image, _ = GOOD[name]
    changed = bytearray(image)
    places = [st.integers(0, 200), st.integers(0, 2047), st.integers(0, len(image) - 1)]
    if file_format == "vhdx":
        places += [
            st.integers(start, start + 200) for start in (64 << 10, 192 << 10, 256 << 10, 2 * MIB, (2 * MIB) + 65536)
        ]
    for at, value in data.draw(st.lists(st.tuples(st.one_of(places), st.binary(min_size=1, max_size=8)), max_size=6)):
        changed[at : at + len(value)] = value
    path = tmp_path / "image"
    path.write_bytes(changed[: data.draw(st.one_of(st.just(len(changed)), st.integers(1, len(changed))))])
    try:
        size = inspect(path, file_format, max_virtual_bytes=1024 * GIB)
    except ImageRefused:
        return
    assert 0 < size <= 1024 * GIB


# --- with qemu-img -------------------------------------------------------------------------------------------------


@pytest.fixture
def open_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="orc-"))
    yield path
    shutil.rmtree(path)


QEMU_MADE = {
    "raw": ("raw", ()),
    "qcow2": ("qcow2", ()),
    "qcow2, version 2": ("qcow2", ("-o", "compat=0.10")),
    "qcow2, small clusters": ("qcow2", ("-o", "cluster_size=512")),
    "qcow2, subclusters and zstd": ("qcow2", ("-o", "extended_l2=on,compression_type=zstd")),
    "vmdk": ("vmdk", ()),
    "vmdk, stream": ("vmdk", ("-o", "subformat=streamOptimized")),
    "vhd": ("vhd", ("-o", "force_size=on")),
    "vhd, fixed": ("vhd", ("-o", "force_size=on,subformat=fixed")),
    "vhdx": ("vhdx", ()),
    "vhdx, fixed": ("vhdx", ("-o", "subformat=fixed")),
}


@pytest.mark.host
@pytest.mark.parametrize("name", QEMU_MADE)
def test_what_qemu_img_writes_is_read_and_comes_through_the_sandbox_whole(open_dir: Path, name: str) -> None:
    file_format, options = QEMU_MADE[name]
    content = os.urandom(3 * MIB) + bytes(5 * MIB) + os.urandom(2 * MIB)
    raw, image, made, back = (open_dir / part for part in ("raw", "image", "made", "back"))
    raw.write_bytes(content)
    qemu_img("convert", "-f", "raw", "-O", FORMATS[file_format], *options, raw, image)
    size = inspect(image, file_format)
    assert size == len(content)
    before = image.stat()
    convert(image, file_format, made, virtual_bytes=size)
    qemu_img("convert", "-f", "qcow2", "-O", "raw", made, back)
    assert back.read_bytes() == content
    assert (image.stat().st_uid, image.stat().st_mode) == (before.st_uid, before.st_mode)
    assert {path.name for path in open_dir.iterdir()} == {"raw", "image", "made", "back"}


@pytest.mark.host
@pytest.mark.parametrize("name", [name for name in BAD if name.startswith("vmdk: a flat")])
def test_qemu_img_shut_in_cannot_read_another_file_either(open_dir: Path, name: str) -> None:
    """Should the header reader fail, a file that root alone may read is still out of reach."""
    image = open_dir / "image"
    secret = open_dir / "secret"
    secret.write_bytes(b"s" * MIB)
    secret.chmod(0o600)
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", image)
    with pytest.raises(HostError, match="qemu-img cannot convert it"):
        convert(image, "qcow2", open_dir / "made", virtual_bytes=MIB)
    assert not (open_dir / "made").exists()


@pytest.mark.host
def test_a_conversion_that_grows_beyond_its_size_is_stopped(open_dir: Path) -> None:
    image = open_dir / "image"
    image.write_bytes(os.urandom(40 * MIB))
    with pytest.raises(HostError):
        convert(image, "raw", open_dir / "made", virtual_bytes=MIB)
    assert not (open_dir / "made").exists()


@pytest.mark.host
def test_a_conversion_ends_when_its_time_is_up(open_dir: Path) -> None:
    image = open_dir / "image"
    image.write_bytes(os.urandom(20 * MIB))
    with pytest.raises(HostError, match="took too long"):
        convert(image, "raw", open_dir / "made", virtual_bytes=40 * MIB, timeout_s=0)
    assert {path.name for path in open_dir.iterdir()} == {"image"}


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)

"""Images that mean harm, as whole files: none reads another file, crashes a reader, or takes memory, time or disk
without bound. What headers say is tried case by case in test_imagefile.py; here are the archive, the fuzzer, and what
comes out of the storage at the end.

ORC_FUZZ_EXAMPLES lets the fuzzer run longer: 3000 take eight seconds, 1000000 an hour.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import shutil
import struct
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.host import CapacityError, HostError, sandbox
from orchestrator.host.imagefile import GIB, ImageRefused, inspect, read_qcow2
from orchestrator.host.qcow2 import QcowStorage
from orchestrator.host.qcow2_header import write_qcow2
from orchestrator.host.sandbox import convert
from tests.host.test_imagefile import BAD, GOOD, MIB, VMDK_TEXT, extension, qcow2, vmdk

FUZZ_EXAMPLES = int(os.environ.get("ORC_FUZZ_EXAMPLES", "3000"))
HEADER_BYTES = 4 << 20  # more than any honest header needs, less than anybody would notice

OVF = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References>
    <File ovf:id="file2" ovf:href="data.vmdk"/>
    <File ovf:id="file1" ovf:href="{href}"{file}/>
  </References>
  <DiskSection>
    <Info>disks</Info>
    <Disk ovf:diskId="disk2" ovf:fileRef="file2" ovf:capacity="20480"/>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="20480"{disk}/>
    <Disk ovf:diskId="scratch" ovf:capacity="20480"/>
  </DiskSection>
  <VirtualSystem ovf:id="machine"><VirtualHardwareSection>
    <Item><rasd:HostResource>ovf:/disk/scratch</rasd:HostResource></Item>
    <Item><rasd:HostResource>ovf:/disk/disk1</rasd:HostResource></Item>
    <Item><rasd:HostResource>ovf:/disk/disk2</rasd:HostResource></Item>
  </VirtualHardwareSection></VirtualSystem>
</Envelope>
"""


def ovf(*, href: str = "boot.vmdk", file: str = "", disk: str = "", also: str = "") -> bytes:
    return OVF.format(href=href, file=file, disk=disk).replace("</References>", f"{also}</References>").encode()


def tar(*members: tuple[str, bytes], **changed: object) -> bytes:
    """A ustar archive; `changed` goes for every member but the first."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for index, (name, data) in enumerate(members):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            for key, value in changed.items() if index else ():
                setattr(about, key, value)
            archive.addfile(about, io.BytesIO(data))
    return output.getvalue()


def ova(
    *, description: bytes | None = None, boot: bytes | None = None, more: tuple[tuple[str, bytes], ...] = ()
) -> bytes:
    disk = vmdk() if boot is None else boot
    small = vmdk(capacity=8192, text=VMDK_TEXT.replace("20480", "8192"))
    return tar(
        ("machine.ovf", ovf() if description is None else description), ("data.vmdk", small), ("boot.vmdk", disk), *more
    )


def patched(image: bytes, at: int, data: bytes) -> bytes:
    """A tar whose first header is changed, with a checksum that is right."""
    header = bytearray(image[:512])
    header[at : at + len(data)] = data
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + image[512:]


def pax(records: bytes) -> bytes:
    whole = patched(tar(("x", records)), 156, b"x")
    return whole[: 512 + -(-len(records) // 512) * 512] + ova()


LAUGHS = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 12))

GOOD_ARCHIVES = {
    "the disk that the machine has first": (ova(), 10 * MIB),
    "with a manifest and a certificate": (ova(more=(("machine.mf", b"SHA1"), ("machine.cert", b"x"))), 10 * MIB),
    "its size is stated": (ova(description=ovf(file=f' ovf:size="{MIB}"')), 10 * MIB),
    "no hardware: the first of the disks": (
        ova(description=re.sub(rb"<VirtualSystem.*</VirtualSystem>", b"", ovf(), flags=re.DOTALL)),
        4 * MIB,
    ),
    "with times of pax": (pax(b"20 mtime=1700000000\n"), 10 * MIB),
    "with ./ before names": (
        tar(("./machine.ovf", ovf()), ("./data.vmdk", vmdk()), ("./boot.vmdk", vmdk())),
        10 * MIB,
    ),
    "a disk exported for shipping": (ova(boot=vmdk(text=VMDK_TEXT.replace("RW 20480", "RDONLY 20480"))), 10 * MIB),
}

BAD_ARCHIVES: dict[str, tuple[bytes, str]] = {
    "no tar": (b"PK\3\4" * 1000, "no tar archive"),
    "nothing in it": (bytes(10240), "no members"),
    "a compressed tar": (zlib.compress(ova()), "no tar archive"),
    "cut off": (ova()[:200_000], "cut off"),
    "cut in the first header": (ova()[:300], "no members"),
    "no description": (tar(("boot.vmdk", vmdk())), "0 .ovf"),
    "two descriptions": (ova(more=(("other.ovf", ovf()),)), "2 .ovf"),
    "a path upwards": (tar(("machine.ovf", ovf()), ("../../etc/cron.d/x", b"x")), "names without folders"),
    "an absolute path": (tar(("machine.ovf", ovf()), ("/etc/passwd", b"x")), "names without folders"),
    "a path in a folder": (tar(("machine.ovf", ovf()), ("disks/boot.vmdk", vmdk())), "names without folders"),
    "a path in the prefix": (patched(ova(), 345, b"../../etc"), "names without folders"),
    "a name of dots": (tar(("machine.ovf", ovf()), ("..", b"x")), "names without folders"),
    "a name with a line's end": (tar(("machine.ovf", ovf()), ("a\nb", b"x")), "names without folders"),
    "a name that is no text": (patched(ova(), 0, b"\xff\xfe.ovf\0"), "not UTF-8"),
    "no name": (patched(ova(), 0, bytes(100)), "names without folders"),
    "one name twice": (ova(more=(("boot.vmdk", vmdk()),)), "two members"),
    "a symbolic link": (
        tar(("machine.ovf", ovf()), ("boot.vmdk", b""), type=tarfile.SYMTYPE, linkname="/etc/shadow"),
        "symbolic link",
    ),
    "a hard link": (tar(("machine.ovf", ovf()), ("boot.vmdk", b""), type=tarfile.LNKTYPE, linkname="x"), "hard link"),
    "a file with a link's target": (
        tar(("machine.ovf", ovf()), ("boot.vmdk", b""), linkname="/etc/shadow"),
        "a member is a link",
    ),
    "a folder": (tar(("machine.ovf", ovf()), ("boot.vmdk", b""), type=tarfile.DIRTYPE), "folder"),
    "a device": (tar(("machine.ovf", ovf()), ("boot.vmdk", b""), type=tarfile.BLKTYPE), "of type"),
    "a sparse member": (tar(("machine.ovf", ovf()), ("boot.vmdk", b""), type=tarfile.GNUTYPE_SPARSE), "of type"),
    "a long name": (tar(("machine.ovf", ovf()), ("x", b""), type=tarfile.GNUTYPE_LONGNAME), "of type"),
    "a wrong checksum": (b"n" + ova()[1:], "checksum"),
    "a checksum that is none": (ova()[:148] + b"xxxxxxxx" + ova()[156:], "no number"),
    "a huge member": (patched(ova(), 124, b"77777777777\0"), "outside of the file"),
    "a member of 2^95 bytes": (patched(ova(), 124, b"\x80" + b"\xff" * 11), "outside of the file"),
    "a size that is none": (patched(ova(), 124, b"-1         \0"), "no number"),
    "many members": (ova(more=tuple((f"m{n}", b"") for n in range(100))), "more than 64"),
    "a huge description": (ova(description=ovf() + b" " * (2 * MIB)), "description has"),
    "pax: another path": (pax(b"24 path=../../etc/shadow\n"), "states the 'path'"),
    "pax: another size": (pax(b"12 size=999\n"), "states the 'size'"),
    "pax: a hole in it": (pax(b"22 GNU.sparse.major=1\n"), "states the 'GNU.sparse"),
    "pax: nonsense": (pax(b"99999 mtime=1\n"), "pax header is none"),
    "pax: no length": (pax(b"mtime=1\n"), "pax header is none"),
    "pax: a huge header": (pax(b"20 mtime=1700000000\n" * 1000), "pax header has"),
    "no XML": (ova(description=b"machine: 1"), "no XML"),
    "XML cut off": (ova(description=ovf()[:500]), "no XML"),
    "an unknown encoding": (ova(description=b'<?xml version="1.0" encoding="x-none"?><a/>'), "no XML"),
    "a thousand million laughs": (
        ova(description=b'<!DOCTYPE x [<!ENTITY l0 "ha">' + LAUGHS + b"]><x>&l11;</x>"),
        "document type",
    ),
    "an entity that is a file": (
        ova(description=b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/shadow">]><x>&f;</x>'),
        "document type",
    ),
    "laughs in UTF-16": (
        ova(description='<!DOCTYPE x [<!ENTITY l0 "ha">]><x>&l0;</x>'.encode("utf-16")),
        "document type",
    ),
    "elements without end": (ova(description=b"<a>" * 100_000), "too many elements"),
    "many elements": (ova(description=b"<a>" + b"<b/>" * 100_000 + b"</a>"), "too many elements"),
    "no disks": (ova(description=b"<Envelope/>"), "no disk with content"),
    "a disk in another file": (ova(description=ovf(href="/etc/shadow")), "no member"),
    "a disk over the network": (ova(description=ovf(href="http://example.com/boot.vmdk")), "no member"),
    "a disk in no file": (ova(description=ovf(disk="").replace(b'fileRef="file1"', b'fileRef="x"')), "does not have"),
    "a disk with a parent": (ova(description=ovf(disk=' ovf:parentRef="disk2"')), "has a parent"),
    "a compressed disk": (ova(description=ovf(file=' ovf:compression="gzip"')), "compressed"),
    "a disk in pieces": (ova(description=ovf(file=' ovf:chunkSize="1000"')), "several files"),
    "a size that is not so": (ova(description=ovf(file=' ovf:size="1"')), "not '1'"),
    "two files of one id": (ova(description=ovf(also='<File ovf:id="file1" ovf:href="x"/>')), "two of one id"),
    "a file without an id": (ova(description=ovf(also='<File ovf:href="x"/>')), "without an id"),
    "a disk of another format": (ova(boot=qcow2(backing=b"/etc/shadow", backing_at=200)), "no sparse vmdk"),
    "a disk of extents": (
        ova(boot=vmdk(text=VMDK_TEXT.replace('SPARSE "disk.vmdk"', 'FLAT "/etc/shadow" 0'))),
        "extents",
    ),
    "a disk that is a description of extents": (ova(boot=VMDK_TEXT.encode().ljust(1024, b"\0")), "in other files"),
}

# Further headers, found while the readers were read.
MORE_BAD: dict[str, tuple[str, bytes, str]] = {
    "qcow2: as many extensions as fit": (
        "qcow2",
        qcow2(
            cluster_bits=21,
            extensions=struct.pack(">II", 0x6803F857, 0) * 200_000,
            refcount_at=2 << 20,
            l1_at=6 << 20,
            total=8 << 20,
        ),
        "twice",
    ),
    "qcow2: LUKS": ("qcow2", qcow2(encryption=2, extensions=extension(0x0537BE77, bytes(16))), "encrypted"),
    "qcow2: LUKS without its header": ("qcow2", qcow2(encryption=2), "not as its header says"),
    "qcow2: an unknown encryption": ("qcow2", qcow2(encryption=9), "not known"),
    "qcow2: a backing chain": ("qcow2", qcow2(backing=b"layer-0123.qcow2", backing_at=200), "backing file"),
    "qcow2: a long backing format": ("qcow2", qcow2(extensions=extension(0xE2792ACA, b"x" * 2000)), "at most 64"),
    "qcow2: one extension twice": (
        "qcow2",
        qcow2(extensions=struct.pack(">II8s", 0x6803F857, 8, b"x" * 8) * 2 + bytes(8)),
        "twice",
    ),
    "vmdk: a capacity of five thousand digits": (
        "vmdk",
        vmdk(text=VMDK_TEXT.replace("RW 20480", "RW " + "9" * 5000)),
        "not understood",
    ),
    "vmdk: an extent of another size": ("vmdk", vmdk(text=VMDK_TEXT.replace("RW 20480", "RW 20481")), "extents"),
    "vhdx: no header that is one": (
        "vhdx",
        GOOD["vhdx"][1].replace(b"head", b"dead"),
        "neither of its two headers",
    ),
}


@pytest.mark.parametrize("name", GOOD_ARCHIVES)
def test_a_good_archive_is_read(tmp_path: Path, name: str) -> None:
    data, size = GOOD_ARCHIVES[name]
    path = tmp_path / "image"
    path.write_bytes(data)
    assert inspect(path, "ova") == size


@pytest.mark.parametrize("name", BAD_ARCHIVES)
def test_a_bad_archive_is_refused_and_the_reason_named(tmp_path: Path, name: str) -> None:
    data, reason = BAD_ARCHIVES[name]
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(ImageRefused, match=re.escape(reason)) as caught:
        inspect(path, "ova")
    assert not caught.value.retryable
    assert len(str(caught.value)) < 400
    assert [entry.name for entry in tmp_path.iterdir()] == ["image"], "nothing is unpacked"


@pytest.mark.parametrize("name", MORE_BAD)
def test_more_bad_headers_are_refused(tmp_path: Path, name: str) -> None:
    file_format, data, reason = MORE_BAD[name]
    path = tmp_path / "image"
    path.write_bytes(data)
    with pytest.raises(ImageRefused, match=reason):
        inspect(path, file_format)


def test_a_file_that_vanishes_under_the_reader_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image"
    path.write_bytes(qcow2())
    monkeypatch.setattr(os, "pread", lambda file, length, offset: b"")
    with pytest.raises(ImageRefused, match="cut off"):
        inspect(path, "qcow2")


def test_huge_sparse_files_take_no_longer_than_small_ones(tmp_path: Path) -> None:
    """Of each format one of 8 TiB, as far as the file system takes it, whose header leads to its far end."""
    path = tmp_path / "image"
    for file_format, head in (("qcow2", qcow2(l1_at=1 << 42)), ("vmdk", vmdk()), ("vhd", b"x"), ("vhdx", b"x")):
        path.write_bytes(head)
        os.truncate(path, 8 << 40)
        began = time.monotonic()
        with contextlib.suppress(ImageRefused):
            assert inspect(path, file_format) < GIB
        assert time.monotonic() - began < 1
    with pytest.raises(ImageRefused, match="at most 2048 GiB"):
        inspect(path, "raw", max_virtual_bytes=2048 * GIB)


# --- the fuzzer -----------------------------------------------------------------------------------------------------

SAMPLES: list[tuple[str, bytes]] = [
    *((file_format, data) for file_format, data, _ in GOOD.values() if file_format != "raw" and len(data) < 8 * MIB),
    *(("ova", data) for data, _ in GOOD_ARCHIVES.values()),
    *((file_format, data) for file_format, data, _ in BAD.values() if file_format in ("qcow2", "vmdk", "vhd")),
]
EDGES = st.sampled_from(
    [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 62, 1 << 63, (1 << 64) - 1]
)
NUMBERS = st.builds(
    lambda value, code: struct.pack(code, value & ((1 << 8 * struct.calcsize(code)) - 1)),
    EDGES,
    st.sampled_from([">H", "<H", ">I", "<I", ">Q", "<Q"]),
)
# Where the formats have something to say; the rest is anywhere.
PLACES = st.one_of(
    st.integers(0, 240),
    st.integers(0, 4096),
    st.sampled_from([64 << 10, 128 << 10, 192 << 10, 256 << 10, 2 * MIB, 2 * MIB + (64 << 10)]).flatmap(
        lambda start: st.integers(start, start + 240)
    ),
    st.integers(0, 4 * MIB),
)
CHANGES = st.lists(st.tuples(PLACES, st.one_of(NUMBERS, st.binary(min_size=1, max_size=12))), max_size=8)
CUTS = st.one_of(st.none(), st.integers(0, 4096), st.integers(0, 4 * MIB))


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes the readers asked of the file, in its one element."""
    asked = [0]
    pread = os.pread

    def counted(file: int, length: int, offset: int) -> bytes:
        asked[0] += length
        return pread(file, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    return asked


@pytest.mark.timeout(60 + FUZZ_EXAMPLES // 20)
@settings(
    max_examples=FUZZ_EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.sampled_from(SAMPLES), CHANGES, CUTS, st.booleans())
def test_whatever_bytes_come_they_are_read_or_refused(
    tmp_path: Path,
    meter: list[int],
    sample: tuple[str, bytes],
    changes: list[tuple[int, bytes]],
    cut: int | None,
    repaired: bool,
) -> None:
    """Nothing but ImageRefused may come out, after a bounded number of bytes. Half of the archives get the checksums of
    their headers right again: else hardly any would get past those."""
    file_format, image = sample
    changed = bytearray(image)
    for at, value in changes:
        at %= max(1, len(changed))
        changed[at : at + len(value)] = value
    if repaired and file_format == "ova":
        changed[148:156] = b" " * 8
        changed[148:156] = b"%06o\0 " % sum(changed[:512])
    path = tmp_path / "image"
    path.write_bytes(changed[:cut])
    meter[0] = 0
    with contextlib.suppress(ImageRefused):
        assert 0 < inspect(path, file_format, max_virtual_bytes=1024 * GIB) <= 1024 * GIB
    assert meter[0] < HEADER_BYTES


# --- with qemu-img ---------------------------------------------------------------------------------------------------


@pytest.fixture
def open_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="orc-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def storage(open_dir: Path) -> QcowStorage:
    return QcowStorage(open_dir / "state", open_dir / "images")


def upload(storage: QcowStorage, data: bytes, name: str = "upload-1") -> str:
    storage.receive_upload(name, iter([data]), 1 << 40)
    return name


def qemu_img(*arguments: str | Path) -> str:
    command = ["qemu-img", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def content(storage: QcowStorage, layer: str, directory: Path) -> bytes:
    raw = directory / "content"
    qemu_img("convert", "-f", "qcow2", "-O", "raw", storage.layer_path(layer), raw)
    data = raw.read_bytes()
    raw.unlink()
    return data


ALL_BAD = {
    **{name: (file_format, data) for name, (file_format, data, _) in {**BAD, **MORE_BAD}.items()},
    **{f"ova: {name}": ("ova", data) for name, (data, _) in BAD_ARCHIVES.items()},
}


QEMU_MADE: dict[str, tuple[str, ...]] = {
    "a backing file": ("-b", "{secret}", "-F", "raw"),
    "a backing file by json:": (
        *("-b", 'json:{{"driver":"raw","file":{{"driver":"file","filename":"{secret}"}}}}'),
        *("-F", "raw"),
    ),
    "an external data file": ("-o", "data_file={secret}.data"),
    "internal snapshots": (),
}


@pytest.mark.host
def test_none_of_the_corpus_leaves_anything_behind(storage: QcowStorage, open_dir: Path) -> None:
    for name, (file_format, data) in ALL_BAD.items():
        upload(storage, data)
        limit = {"max_virtual_bytes": 1024 * GIB}
        try:
            inspect(open_dir / "state" / "uploads" / "upload-1", file_format, **limit)
        except ImageRefused:
            pass
        else:
            raise AssertionError(f"{name} was read")
        if name == "qcow2: more than is allowed":  # by the test's limit, not by the storage's
            continue
        with pytest.raises(ImageRefused):
            storage.import_image("upload-1", file_format, "layer-1", lambda line: None)
        assert storage.layers() == [], name
        left = [path.name for path in (open_dir / "state").rglob("*") if path.is_file()]
        assert left == [], f"{name} left {left}"


@pytest.mark.host
@pytest.mark.parametrize("made", QEMU_MADE)
def test_what_qemu_img_itself_makes_of_the_kind_is_refused(open_dir: Path, made: str) -> None:
    image, secret = open_dir / "image", open_dir / "secret"
    secret.write_bytes(b"root:secret\n".ljust(MIB, b"s"))
    options = [option.format(secret=secret) for option in QEMU_MADE[made]]
    qemu_img("create", "-q", "-f", "qcow2", *options, image, "1M")
    if made == "internal snapshots":
        qemu_img("snapshot", "-c", "one", image)
    with pytest.raises(ImageRefused):
        inspect(image, "qcow2")


def test_an_encrypted_layer_of_our_own_is_no_image_to_import(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("w+b") as file:
        write_qcow2(file.fileno(), size_bytes=MIB, backing_file="", passphrase="x" * 64)
    with pytest.raises(ImageRefused, match="encrypted"):
        inspect(image, "qcow2")
    assert read_qcow2(image).encrypted


@pytest.mark.host
def test_a_chain_of_images_is_refused_at_its_top(open_dir: Path) -> None:
    below = open_dir / "image0"
    qemu_img("create", "-q", "-f", "qcow2", below, "1M")
    for number in range(1, 5):
        qemu_img("create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", open_dir / f"image{number}")
        below = open_dir / f"image{number}"
        with pytest.raises(ImageRefused, match="backing file"):
            inspect(below, "qcow2")


@pytest.mark.host
def test_differencing_images_are_refused(open_dir: Path) -> None:
    """Those of vhd and vhdx, which qemu-img cannot make, are among the headers."""
    below, above = open_dir / "below", open_dir / "above"
    qemu_img("create", "-q", "-f", "vmdk", below, "1M")
    qemu_img("create", "-q", "-f", "vmdk", "-b", below, "-F", "vmdk", above)
    with pytest.raises(ImageRefused, match="parent"):
        inspect(above, "vmdk")
    for subformat in ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"):
        qemu_img("create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", open_dir / f"{subformat}.vmdk", "1M")
        with pytest.raises(ImageRefused, match="in other files"):
            inspect(open_dir / f"{subformat}.vmdk", "vmdk")


@pytest.mark.host
@pytest.mark.parametrize("inner", ["qcow2", "vmdk", "vhdx"])
def test_a_raw_disk_that_looks_like_an_image_stays_a_raw_disk(storage: QcowStorage, open_dir: Path, inner: str) -> None:
    """A guest wrote an image's header over its first sectors, with another file in it: that is data, and stays so."""
    image = open_dir / "inner"
    (open_dir / "secret").write_bytes(b"s" * MIB)
    backing = ("-b", open_dir / "secret", "-F", "raw") if inner == "qcow2" else ()
    qemu_img("create", "-q", "-f", inner, *backing, image, "1M")
    disk = image.read_bytes().ljust(8 * MIB, b"\0")
    built = storage.import_image(upload(storage, disk), "raw", "layer-1", lambda line: None)
    assert built.size_bytes == len(disk)
    assert content(storage, "layer-1", open_dir) == disk
    status = storage.observe_layer("layer-1")
    assert status is not None and status.parent == ""
    # What lies on it is stated to be qcow2 on qcow2, down to the bottom.
    storage.create_layer("layer-2", size_bytes=len(disk), parent="layer-1")
    about = qemu_img("info", "-U", "-f", "qcow2", "--backing-chain", "--output=json", storage.layer_path("layer-2"))
    assert re.findall(r'"backing-filename-format": "(\w+)"', about) == ["qcow2"]
    assert about.count('"backing-filename"') == 1
    assert "secret" not in about
    assert content(storage, "layer-2", open_dir) == disk


@pytest.mark.host
def test_an_archive_becomes_its_first_disk(storage: QcowStorage, open_dir: Path) -> None:
    disks = {}
    for name in ("boot", "data"):
        raw = open_dir / name
        raw.write_bytes(os.urandom(MIB) + bytes(MIB) + os.urandom(MIB))
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, f"{raw}.vmdk")
        disks[name] = raw.read_bytes()
    archive = tar(
        ("machine.ovf", ovf()),
        *((f"{name}.vmdk", (open_dir / f"{name}.vmdk").read_bytes()) for name in ("data", "boot")),
    )
    shares: list[float] = []
    built = storage.import_image(upload(storage, archive), "ova", "layer-1", lambda line: None, shares.append)
    assert built.size_bytes == 3 * MIB
    assert content(storage, "layer-1", open_dir) == disks["boot"]
    assert shares and shares == sorted(shares) and shares[-1] == 1
    assert list((open_dir / "state" / "uploads").iterdir()) == []
    assert list((open_dir / "state" / "making").iterdir()) == []


def compressed_bomb(clusters: int) -> bytes:
    """A qcow2 of `clusters` of 2 MiB, all of which are one compressed cluster of ones at the end of the file."""
    bits = 21
    cluster = 1 << bits
    packer = zlib.compressobj(9, zlib.DEFLATED, -12)
    packed = packer.compress(b"\xff" * cluster) + packer.flush()
    at = 5 * cluster
    sectors = (at + len(packed)) // 512 - at // 512
    entry = 1 << 62 | sectors << (62 - (bits - 8)) | at
    image = bytearray(
        qcow2(
            cluster_bits=bits,
            size=clusters * cluster,
            l1_entries=-(-clusters * 8 // cluster),
            l1_at=3 * cluster,
            refcount_at=cluster,
            total=5 * cluster,
        )
    )
    struct.pack_into(">Q", image, cluster, 2 * cluster)
    struct.pack_into(">Q", image, 3 * cluster, 4 * cluster | 1 << 63)
    image[4 * cluster : 4 * cluster + 8 * clusters] = struct.pack(">Q", entry) * clusters
    return bytes(image) + packed.ljust(4096, b"\0")


@pytest.mark.host
def test_a_small_file_that_says_it_is_a_large_disk_of_ones_may_not_fill_the_disk(
    open_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11 MiB that become 256 GiB, where 300 MiB are free and 200 are for others."""
    image = open_dir / "image"
    image.write_bytes(compressed_bomb(128 << 10))
    size = inspect(image, "qcow2")
    assert size == 256 * GIB
    usage = shutil.disk_usage(open_dir)
    monkeypatch.setattr(sandbox, "_MOST_KEPT_FREE", 200 * MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(total=1 << 40, free=300 * MIB))
    with pytest.raises(CapacityError, match="no room"):
        convert(image, "qcow2", open_dir / "made", virtual_bytes=size, timeout_s=60)
    assert {path.name for path in open_dir.iterdir()} == {"image"}


@pytest.mark.host
def test_without_room_an_import_does_not_begin(open_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = open_dir / "image"
    image.write_bytes(qcow2())
    usage = shutil.disk_usage(open_dir)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(total=20 * GIB, free=GIB // 2))
    with pytest.raises(CapacityError, match="512 MiB are free"):
        convert(image, "qcow2", open_dir / "made", virtual_bytes=MIB)


@pytest.mark.host
def test_a_conversion_that_is_given_up_leaves_nothing(open_dir: Path) -> None:
    """By an exception of whoever is told how far it is: so a task is cancelled."""
    image = open_dir / "image"
    image.write_bytes(os.urandom(64 * MIB))

    def give_up(done: float) -> None:
        if done > 0:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        convert(image, "raw", open_dir / "made", virtual_bytes=64 * MIB, progress=give_up)
    assert {path.name for path in open_dir.iterdir()} == {"image"}


@pytest.mark.host
@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([sample for sample in SAMPLES if len(sample[1]) < 5 * MIB]), CHANGES)
def test_what_the_reader_lets_through_qemu_img_survives(
    sample: tuple[str, bytes], changes: list[tuple[int, bytes]]
) -> None:
    """The converter, in its box, ends with a result or with an error that is ours, whatever it was shown."""
    file_format, image = sample
    changed = bytearray(image)
    for at, value in changes:
        at %= len(changed)
        changed[at : at + len(value)] = value
    with tempfile.TemporaryDirectory(prefix="orc-") as name:
        path = Path(name, "image")
        path.write_bytes(changed)
        try:
            size = inspect(path, file_format, max_virtual_bytes=64 * MIB)
            convert(path, file_format, Path(name, "made"), virtual_bytes=size, timeout_s=60)
        except HostError:
            assert not Path(name, "made").exists()


def test_the_reader_takes_little_memory(tmp_path: Path) -> None:
    """The whole corpus, read one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "image"
    for file_format, data in ALL_BAD.values():
        path.write_bytes(data)
        with pytest.raises(ImageRefused):
            inspect(path, file_format, max_virtual_bytes=1024 * GIB)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB

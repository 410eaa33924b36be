"""Reads the headers of disk images that nobody vouches for.

A disk image is a small program for whoever opens it: it can name other files to read (backing files, data files,
extents), and sizes that exhaust the reader. Everything here reads one open file, at stated offsets, a bounded number of
bytes, as the format that was stated. A format is never guessed: a raw image whose first bytes look like qcow2 is a raw
image. What is not understood is refused, and only what passes is shown to qemu-img, in `sandbox.py`.

    raw      any content; its size is the disk's size
    qcow2    versions 2 and 3 (the qcow2 specification in QEMU's docs/interop)
    vmdk     one file with its descriptor inside: monolithicSparse, streamOptimized (VMware's Virtual Disk Format 5.0)
    vhd      fixed and dynamic (Microsoft's Virtual Hard Disk Image Format)
    vhdx     without a parent and without a log to replay (MS-VHDX)
    ova      a tar with a description and vmdk files, of which the first disk is read (`ova.py`)
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from orchestrator.host.ova import find_disk
from orchestrator.host.window import SECTOR, ImageRefused, Window

__all__ = [
    "FORMATS",
    "GIB",
    "MAX_VIRTUAL_BYTES",
    "SECTOR",
    "ImageRefused",
    "Qcow2Header",
    "disk_within",
    "inspect",
    "read_qcow2",
]

GIB: Final = 1 << 30
MAX_VIRTUAL_BYTES: Final = 64 << 40  # what EBS allows for its largest volumes

# What we call it -> what qemu-img calls it.
FORMATS: Final = {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vhd": "vpc", "vhdx": "vhdx"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2Header:
    """The fields of a qcow2 header that matter here; `backing_format` is empty where the file does not state it."""

    version: int
    virtual_bytes: int
    cluster_bits: int
    backing_file: str = ""
    backing_format: str = ""
    encrypted: bool = False  # by LUKS


def inspect(path: Path, file_format: str, *, max_virtual_bytes: int = MAX_VIRTUAL_BYTES) -> int:
    """The virtual size in bytes of the untrusted file at `path`, read as `file_format`. Raises ImageRefused."""
    readers: dict[str, Callable[[Window], int]] = {
        "raw": _read_raw,
        "qcow2": _read_qcow2_alone,
        "vmdk": _read_vmdk,
        "vhd": _read_vhd,
        "vhdx": _read_vhdx,
        "ova": _read_ova,
    }
    if file_format not in readers:
        raise ImageRefused(f"'{file_format}' is not a format that is read; {', '.join(readers)} are")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        window = Window(file)
        if window.size == 0:
            raise ImageRefused("it is empty")
        virtual_bytes = readers[file_format](window)
    if virtual_bytes <= 0:
        raise ImageRefused("its disk has no size")
    if virtual_bytes > max_virtual_bytes:
        raise ImageRefused(f"its disk has {virtual_bytes} bytes; at most {max_virtual_bytes // GIB} GiB are allowed")
    return virtual_bytes


def read_qcow2(path: Path) -> Qcow2Header:
    """The header of a qcow2 file, which may have a backing file and be encrypted. Raises ImageRefused."""
    with open(path, "rb") as file:
        return _read_qcow2(Window(file))


def disk_within(path: Path) -> tuple[int, int]:
    """Where the disk of an OVA lies in its file: offset and length in bytes. Raises ImageRefused."""
    with open(path, "rb") as file:
        return find_disk(Window(file))


def _read_raw(window: Window) -> int:
    return -(-window.size // SECTOR) * SECTOR


# --- qcow2 ---------------------------------------------------------------------------------------------------------

_QCOW2 = struct.Struct(">4sIQIIQIIQQIIQ")  # the 72 bytes that both versions have
_QCOW2_V3 = struct.Struct(">QQQII")
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_EXTENSION_END = 0
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_FEATURE_NAMES = 0x6803F857
_EXTENSION_BITMAPS = 0x23852875
_EXTENSION_ENCRYPTION = 0x0537BE77
_EXTENSION_DATA_FILE = 0x44415441
_EXTENSIONS = {  # those that are read, and how long each may be
    _EXTENSION_BACKING_FORMAT: 64,
    _EXTENSION_FEATURE_NAMES: 48 * 192,
    _EXTENSION_BITMAPS: 64,
    _EXTENSION_ENCRYPTION: 16,
}
_LUKS = 2
_MAX_L1_BYTES = 32 << 20
_MAX_REFCOUNT_TABLE_BYTES = 8 << 20
_MAX_BACKING_NAME = 1023


def _read_qcow2_alone(window: Window) -> int:
    """A qcow2 file that is one file. Raises ImageRefused for one that needs another."""
    header = _read_qcow2(window)
    if header.backing_file or header.backing_format:
        raise ImageRefused("it has a backing file; only an image of one file is read (qemu-img convert makes one)")
    if header.encrypted:
        raise ImageRefused("it is encrypted")
    return header.virtual_bytes


def _read_qcow2(window: Window) -> Qcow2Header:
    (
        magic,
        version,
        backing_offset,
        backing_length,
        cluster_bits,
        virtual_bytes,
        encryption,
        l1_entries,
        l1_offset,
        refcount_offset,
        refcount_clusters,
        snapshots,
        snapshots_offset,
    ) = _QCOW2.unpack(window.read(0, _QCOW2.size, "header"))
    if magic != b"QFI\xfb":
        raise ImageRefused("it is no qcow2 image: its first bytes are others")
    if version not in (2, 3):
        raise ImageRefused(f"its qcow2 version is {version}; 2 and 3 are read")
    if not 9 <= cluster_bits <= 21:
        raise ImageRefused(f"its clusters have 2^{cluster_bits} bytes; 2^9 to 2^21 are allowed")
    if encryption not in (0, _LUKS):
        raise ImageRefused(f"it is encrypted in a way that is not known here ({encryption})")
    cluster = 1 << cluster_bits

    header_bytes = _QCOW2.size
    incompatible = 0
    if version == 3:
        incompatible, _compatible, _autoclear, refcount_order, header_bytes = _QCOW2_V3.unpack(
            window.read(_QCOW2.size, _QCOW2_V3.size, "header")
        )
        if refcount_order > 6:
            raise ImageRefused(f"its reference counts have 2^{refcount_order} bits; at most 2^6 are allowed")
        if header_bytes < _QCOW2.size + _QCOW2_V3.size or header_bytes % 8 or header_bytes > cluster:
            raise ImageRefused(f"its header has {header_bytes} bytes")
        _check_qcow2_features(window, incompatible, header_bytes)

    mapped = cluster // (16 if incompatible & _EXTENDED_L2 else 8)  # clusters that one L2 table maps
    needed = -(-virtual_bytes // (cluster * mapped))
    if l1_entries * 8 > _MAX_L1_BYTES or l1_entries < needed:
        raise ImageRefused(f"its L1 table has {l1_entries} entries for {virtual_bytes} bytes")
    if l1_entries:
        _check_qcow2_table(window, l1_offset, l1_entries * 8, cluster, "L1 table")
    if not refcount_clusters or refcount_clusters * cluster > _MAX_REFCOUNT_TABLE_BYTES:
        raise ImageRefused(f"its reference count table has {refcount_clusters} clusters")
    _check_qcow2_table(window, refcount_offset, refcount_clusters * cluster, cluster, "reference count table")
    if snapshots or snapshots_offset % cluster:
        raise ImageRefused("it has internal snapshots; only the disk itself is read (qemu-img convert drops them)")

    extensions = _read_qcow2_extensions(window, header_bytes, backing_offset or cluster, cluster)
    backing_format = extensions.get(_EXTENSION_BACKING_FORMAT, b"").decode("latin-1")
    if (encryption == _LUKS) != (_EXTENSION_ENCRYPTION in extensions):
        raise ImageRefused("it is encrypted, and not as its header says")
    backing_file = ""
    if backing_offset:
        if not 0 < backing_length <= _MAX_BACKING_NAME or backing_offset + backing_length > cluster:
            raise ImageRefused(f"its backing file's name has {backing_length} bytes at {backing_offset}")
        name = window.read(backing_offset, backing_length, "backing file's name")
        backing_file = name.decode("utf-8", "surrogateescape")
    elif backing_length:
        raise ImageRefused(f"its backing file's name has {backing_length} bytes at no place")
    return Qcow2Header(
        version=version,
        virtual_bytes=virtual_bytes,
        cluster_bits=cluster_bits,
        backing_file=backing_file,
        backing_format=backing_format,
        encrypted=encryption == _LUKS,
    )


def _check_qcow2_features(window: Window, incompatible: int, header_bytes: int) -> None:
    if incompatible & _DATA_FILE:
        raise ImageRefused("its data are in another file; only an image of one file is read")
    if incompatible & _CORRUPT:
        raise ImageRefused("it is marked as corrupt")
    unknown = incompatible & ~(_DIRTY | _COMPRESSION | _EXTENDED_L2)
    if unknown:
        raise ImageRefused(f"it needs features that are not known here ({unknown:#x})")
    # The compression type (0 zlib, 1 zstd) is the byte after the 104 that every version 3 header has.
    compression = window.read(104, 1, "header")[0] if header_bytes > 104 else 0
    if compression > 1 or bool(compression) != bool(incompatible & _COMPRESSION):
        raise ImageRefused(f"its compression type is {compression}")


def _check_qcow2_table(window: Window, offset: int, length: int, cluster: int, what: str) -> None:
    if offset % cluster or offset < cluster or offset + length > window.size:
        raise ImageRefused(f"its {what} lies at {offset}: outside of the file, or where none can be")


def _read_qcow2_extensions(window: Window, offset: int, end: int, cluster: int) -> dict[int, bytes]:
    """What the extensions say, by kind. They lie between the header and the backing file's name."""
    found: dict[int, bytes] = {}
    end = min(end, cluster, window.size)
    while offset + 8 <= end:
        kind, length = struct.unpack(">II", window.read(offset, 8, "header extension"))
        offset += 8
        if kind == _EXTENSION_END:
            break
        if length > end - offset:
            raise ImageRefused(f"its header extension {kind:#x} has {length} bytes")
        if kind == _EXTENSION_DATA_FILE:
            raise ImageRefused("it names another file for its data; only an image of one file is read")
        if kind not in _EXTENSIONS:
            raise ImageRefused(f"it has a header extension that is not known here ({kind:#x})")
        if kind in found:
            raise ImageRefused(f"it has the header extension {kind:#x} twice")
        most = _EXTENSIONS[kind]
        if length > most:
            raise ImageRefused(f"its header extension {kind:#x} has {length} bytes; at most {most} are allowed")
        found[kind] = window.read(offset, length, "header extension")
        offset += -(-length // 8) * 8
    return found


# --- vmdk ----------------------------------------------------------------------------------------------------------

# magic, version, flags, capacity, grain size, descriptor offset and size, entries per grain table,
# redundant and primary grain directory, overhead, unclean, characters that a text transfer would break, compression
_VMDK = struct.Struct("<4sIIQQQQIQQQB4sH")
_VMDK_TEXT = b"# Disk DescriptorFile"
_VMDK_AT_END = 0xFFFFFFFFFFFFFFFF
_VMDK_COMPRESSED, _VMDK_MARKERS = 1 << 16, 1 << 17
_VMDK_KNOWN_FLAGS = 0b111 | _VMDK_COMPRESSED | _VMDK_MARKERS
_VMDK_MAX_DESCRIPTOR_SECTORS = 128
_VMDK_EXTENT = re.compile(r'(RW|RDONLY|NOACCESS)\s+([0-9]{1,20})\s+(\w+)(?:\s+"([^"]*)"(?:\s+[0-9]+)?)?')
_VMDK_KEYS = {"monolithicsparse", "streamoptimized"}


def _read_vmdk(window: Window) -> int:
    if window.size >= len(_VMDK_TEXT) and window.read(0, len(_VMDK_TEXT), "header") == _VMDK_TEXT:
        raise ImageRefused(
            "it is a vmdk descriptor, whose disk is in other files (its extents); only an image of one file is read: "
            "monolithicSparse or streamOptimized"
        )
    fields = _vmdk_header(window, 0, "header")
    capacity, grain, descriptor_sector, descriptor_sectors, directory = (
        fields[3],
        fields[4],
        fields[5],
        fields[6],
        fields[9],
    )
    flags = fields[2]
    if directory == _VMDK_AT_END:
        # QEMU takes everything from the copy at the end: footer's marker, footer, end-of-stream marker.
        if window.size < 3 * SECTOR:
            raise ImageRefused("its footer is cut off")
        footer = _vmdk_header(window, window.size - 2 * SECTOR, "footer")
        same = all(footer[field] == fields[field] for field in (1, 2, 3, 4, 5, 6, 7))
        if not same or footer[9] == _VMDK_AT_END:
            raise ImageRefused("its footer contradicts its header")
        directory = footer[9]
    if not 0 < capacity <= MAX_VIRTUAL_BYTES // SECTOR:
        raise ImageRefused(f"its capacity is {capacity} sectors")
    if grain < 8 or grain & (grain - 1) or grain > 128 << 10:
        raise ImageRefused(f"its grains have {grain} sectors")
    if fields[7] not in (512, 1024, 2048, 4096):
        raise ImageRefused(f"its grain tables have {fields[7]} entries")
    if not 0 < directory * SECTOR < window.size:
        raise ImageRefused("its grain directory lies outside of the file")
    if not 1 <= descriptor_sectors <= _VMDK_MAX_DESCRIPTOR_SECTORS or not descriptor_sector:
        raise ImageRefused("it has no descriptor inside; only an image of one file is read")
    if bool(flags & _VMDK_COMPRESSED) != bool(fields[13]) or fields[13] > 1:
        raise ImageRefused(f"its compression is {fields[13]}")
    descriptor = window.read(descriptor_sector * SECTOR, descriptor_sectors * SECTOR, "descriptor")
    _check_vmdk_descriptor(descriptor, capacity)
    # QEMU looks for a parent from the second sector on, wherever the header says that the descriptor is.
    if b"parentfilenamehint" in window.read(SECTOR, min(20 * SECTOR, window.size - SECTOR), "descriptor").lower():
        raise ImageRefused("it has a parent; only an image of one file is read")
    return int(capacity) * SECTOR


def _read_ova(window: Window) -> int:
    return _read_vmdk(window.part(*find_disk(window)))


def _vmdk_header(window: Window, offset: int, what: str) -> tuple[Any, ...]:
    fields = _VMDK.unpack(window.read(offset, SECTOR, what)[: _VMDK.size])
    if fields[0] != b"KDMV":
        raise ImageRefused(f"it is no sparse vmdk image: its {what} begins otherwise")
    if fields[1] not in (1, 2, 3):
        raise ImageRefused(f"its vmdk version is {fields[1]}; 1 to 3 are read")
    if fields[2] & ~_VMDK_KNOWN_FLAGS:
        raise ImageRefused(f"it needs features that are not known here ({fields[2]:#x})")
    return fields


def _check_vmdk_descriptor(descriptor: bytes, capacity: int) -> None:
    text, _, rest = descriptor.partition(b"\0")
    if rest.strip(b"\0"):
        raise ImageRefused("its descriptor goes on after its end")
    extents: list[re.Match[str]] = []
    settings: dict[str, str] = {}
    for line in (raw.strip() for raw in text.decode("latin-1").splitlines()):
        if not line or line.startswith("#"):
            continue
        if found := _VMDK_EXTENT.fullmatch(line):
            extents.append(found)
            continue
        key, equals, value = line.partition("=")
        key = key.strip().lower()
        if not equals or key in settings:
            raise ImageRefused(f"its descriptor has a line that is not understood: {line[:80]!r}")
        settings[key] = value.strip().strip('"')
    if "parentfilenamehint" in settings or settings.get("parentcid", "").lower() not in ("ffffffff", ""):
        raise ImageRefused("it has a parent; only an image of one file is read")
    if settings.get("createtype", "").lower() not in _VMDK_KEYS:
        raise ImageRefused(
            f"its type is {settings.get('createtype', '')[:40]!r}; monolithicSparse and streamOptimized are read"
        )
    # A stream is RDONLY where it was exported to be shipped.
    usable = [each for each in extents if each[1] in ("RW", "RDONLY") and each[3] == "SPARSE"]
    if len(extents) != 1 or len(usable) != 1 or int(usable[0][2]) != capacity:
        raise ImageRefused("it is made of extents; only an image of one file is read")


# --- vhd -----------------------------------------------------------------------------------------------------------

# cookie, features, version, data offset, time, creator and its version, its system, original size, current size,
# geometry, type, checksum, id, saved state
_VHD = struct.Struct(">8sIIQI4sI4sQQIII16sB")
# cookie, data offset, table offset, version, table entries, block size, checksum, parent's id
_VHD_DYNAMIC = struct.Struct(">8sQQIIII16s")
_VHD_FIXED, _VHD_DYNAMIC_TYPE, _VHD_DIFFERENCING = 2, 3, 4
_VHD_MAX_TABLE_ENTRIES = 32 << 20
_VHD_CHECKSUM_AT = 64
_VHD_LARGEST_GEOMETRY = (65535, 16, 255)


def _read_vhd(window: Window) -> int:
    if window.size < SECTOR:
        raise ImageRefused("its footer is cut off")
    tail = window.read(window.size - SECTOR, SECTOR, "footer")
    head = window.read(0, SECTOR, "header")
    # QEMU believes the first sector where that is a footer, and the last one else.
    footer, first = (head, True) if head.startswith(b"conectix") else (tail, False)
    fields = _VHD.unpack(footer[: _VHD.size])
    if fields[0] != b"conectix":
        raise ImageRefused("it is no vhd image: it has no footer")
    _check_vhd_checksum(footer, _VHD_CHECKSUM_AT, "footer")
    if fields[2] >> 16 != 1:
        raise ImageRefused(f"its vhd version is {fields[2] >> 16}; 1 is read")
    kind, size, cylinders = fields[11], fields[9], fields[10] >> 16
    heads, sectors = fields[10] >> 8 & 0xFF, fields[10] & 0xFF
    by_geometry = cylinders * heads * sectors * SECTOR  # some writers' size, and so QEMU's for those
    if (cylinders, heads, sectors) == _VHD_LARGEST_GEOMETRY:
        by_geometry = 0  # it says only that the disk is larger than a geometry can say
    if size % SECTOR or not size:
        raise ImageRefused(f"its disk has {size} bytes")
    if kind == _VHD_FIXED:
        if first or size > window.size - SECTOR or by_geometry > window.size:
            raise ImageRefused(f"its disk has {size} bytes, which the file does not")
    elif kind == _VHD_DYNAMIC_TYPE:
        if not first:
            raise ImageRefused("its first sector is no copy of its footer")
        _check_vhd_table(window, fields[3], max(size, by_geometry))
    elif kind == _VHD_DIFFERENCING:
        raise ImageRefused("it has a parent; only an image of one file is read")
    else:
        raise ImageRefused(f"its vhd type is {kind}; 2 (fixed) and 3 (dynamic) are read")
    return int(max(size, by_geometry))


def _check_vhd_table(window: Window, offset: int, size: int) -> None:
    header = window.read(offset, 1024, "dynamic disk header")
    cookie, _next, table_offset, version, entries, block, _checksum, parent = _VHD_DYNAMIC.unpack(
        header[: _VHD_DYNAMIC.size]
    )
    if cookie != b"cxsparse" or version != 0x00010000:
        raise ImageRefused("its dynamic disk header is none")
    _check_vhd_checksum(header, 36, "dynamic disk header")
    if parent.strip(b"\0") or header[64:].strip(b"\0"):
        raise ImageRefused("it names a parent; only an image of one file is read")
    if block < SECTOR or block & (block - 1) or block > 256 << 20:
        raise ImageRefused(f"its blocks have {block} bytes")
    if entries > _VHD_MAX_TABLE_ENTRIES or entries * block < size:
        raise ImageRefused(f"its block table has {entries} entries for {size} bytes")
    if table_offset % SECTOR or table_offset + entries * 4 > window.size:
        raise ImageRefused("its block table lies outside of the file")


def _check_vhd_checksum(sector: bytes, at: int, what: str) -> None:
    (stated,) = struct.unpack_from(">I", sector, at)
    counted = ~(sum(sector) - sum(sector[at : at + 4])) & 0xFFFFFFFF
    if stated != counted:
        raise ImageRefused(f"the checksum of its {what} is wrong")


# --- vhdx ----------------------------------------------------------------------------------------------------------

_VHDX_HEADERS = (64 << 10, 128 << 10)
_VHDX_REGIONS = (192 << 10, 256 << 10)
_VHDX_BAT = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
_VHDX_METADATA = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_VHDX_FILE_PARAMETERS = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_VHDX_DISK_SIZE = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_VHDX_PAGE83 = UUID("beca12ab-b2e6-4523-93ef-c309e000c746")
_VHDX_LOGICAL_SECTOR = UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
_VHDX_PHYSICAL_SECTOR = UUID("cda348c7-445d-4471-9cc9-e9885251c556")
_VHDX_ITEMS = {  # each must be there, with its length
    _VHDX_FILE_PARAMETERS: 8,
    _VHDX_DISK_SIZE: 8,
    _VHDX_PAGE83: 16,
    _VHDX_LOGICAL_SECTOR: 4,
    _VHDX_PHYSICAL_SECTOR: 4,
}
_VHDX_MAX_METADATA = 1 << 20


def _read_vhdx(window: Window) -> int:
    if window.read(0, 8, "file identifier") != b"vhdxfile":
        raise ImageRefused("it is no vhdx image: its first bytes are others")
    whole = 0
    for offset in _VHDX_HEADERS:
        header = window.read(offset, 80, "header")
        if header[:4] != b"head":
            continue  # one of the two may be torn
        log, version = header[48:64], struct.unpack_from("<H", header, 66)[0]
        if log.strip(b"\0"):
            raise ImageRefused("it has a log to replay: it was not closed properly")
        if version != 1:
            raise ImageRefused(f"its vhdx version is {version}; 1 is read")
        whole += 1
    if not whole:
        raise ImageRefused("neither of its two headers is one")
    tables = [_vhdx_regions(window, offset) for offset in _VHDX_REGIONS]
    if tables[0] != tables[1]:
        raise ImageRefused("its two region tables differ")
    regions = tables[0]
    offset, length = regions[_VHDX_METADATA]
    if not 64 << 10 <= length <= _VHDX_MAX_METADATA:
        raise ImageRefused(f"its metadata region has {length} bytes")
    items = _vhdx_items(window, offset, length)
    block, bits = struct.unpack("<II", items[_VHDX_FILE_PARAMETERS])
    (virtual_bytes,) = struct.unpack("<Q", items[_VHDX_DISK_SIZE])
    (sector,) = struct.unpack("<I", items[_VHDX_LOGICAL_SECTOR])
    if bits & 2:
        raise ImageRefused("it has a parent; only an image of one file is read")
    if bits & ~3:
        raise ImageRefused(f"it needs features that are not known here ({bits:#x})")
    if sector not in (512, 4096) or virtual_bytes % sector or not virtual_bytes:
        raise ImageRefused(f"its disk has {virtual_bytes} bytes in sectors of {sector}")
    if block < 1 << 20 or block & (block - 1) or block > 256 << 20:
        raise ImageRefused(f"its blocks have {block} bytes")
    # A sector bitmap follows each chunk of blocks in the table, needed or not: MS-VHDX 2.5.
    blocks = -(-virtual_bytes // block)
    chunk = max(1, (sector << 23) // block)
    if (blocks + (blocks - 1) // chunk) * 8 > regions[_VHDX_BAT][1]:
        raise ImageRefused("its block table is too short for its disk")
    return int(virtual_bytes)


def _vhdx_regions(window: Window, offset: int) -> dict[UUID, tuple[int, int]]:
    table = window.read(offset, 64 << 10, "region table")
    magic, _checksum, count = struct.unpack_from("<4sII", table)
    if magic != b"regi" or count > 2047:
        raise ImageRefused("its region table is none")
    regions: dict[UUID, tuple[int, int]] = {}
    for index in range(count):
        kind, start, length, required = struct.unpack_from("<16sQII", table, 16 + index * 32)
        identifier = UUID(bytes_le=kind)
        if identifier not in (_VHDX_BAT, _VHDX_METADATA):
            if required & 1:
                raise ImageRefused(f"it needs a region that is not known here ({identifier})")
            continue
        if identifier in regions or start < 1 << 20 or start % (1 << 20) or not length or start + length > window.size:
            raise ImageRefused("its region table is nonsense")
        regions[identifier] = (start, length)
    if len(regions) != 2:
        raise ImageRefused("its region table lacks the metadata or the block table")
    return regions


def _vhdx_items(window: Window, offset: int, length: int) -> dict[UUID, bytes]:
    table = window.read(offset, 64 << 10, "metadata table")
    magic, count = struct.unpack_from("<8s2xH", table)
    if magic != b"metadata" or count > 2047:
        raise ImageRefused("its metadata table is none")
    items: dict[UUID, bytes] = {}
    for index in range(count):
        kind, start, size, _bits = struct.unpack_from("<16sIII", table, 32 + index * 32)
        identifier = UUID(bytes_le=kind)
        if identifier not in _VHDX_ITEMS:
            raise ImageRefused(f"it has an item of metadata that is not known here ({identifier})")
        if identifier in items or size != _VHDX_ITEMS[identifier] or start < 64 << 10 or start + size > length:
            raise ImageRefused("its metadata table is nonsense")
        items[identifier] = window.read(offset + start, size, "metadata")
    if len(items) != len(_VHDX_ITEMS):
        raise ImageRefused("its metadata are incomplete")
    return items

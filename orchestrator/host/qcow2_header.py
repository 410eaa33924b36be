"""The head of a layer's file: written here, in a millisecond, and read back.

    cluster 0       header, and the name of the file below
            1, 2    reference count table, and its first block
            3 ...   L1 table, empty
            then    the LUKS header, of a layer that is encrypted

This reader is for our own files; one of unknown origin is read by `imagefile.py`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

from orchestrator.host.imagefile import MAX_VIRTUAL_BYTES, ImageRefused
from orchestrator.host.luks import LUKS_BYTES, make_luks

_CLUSTER_BITS = 16
_MAGIC = b"QFI\xfb"
_LUKS = 2
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_ENCRYPTION = 0x0537BE77
_HEADER_BYTES = 104
_READ_BYTES = 4096  # QEMU and this writer put the name right behind the header and its extensions


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerHeader:
    virtual_bytes: int
    backing_file: str
    encrypted: bool


def write_qcow2(file: int, *, size_bytes: int, backing_file: str, passphrase: str = "") -> None:
    """Write an empty qcow2 (version 3) of `size_bytes` to the open `file`, on `backing_file` (itself qcow2) or on none.

    It is what `qemu-img create -f qcow2 -F qcow2 -b ...` writes, without the ten milliseconds of starting a program,
    and the seconds that it takes for encryption.
    """
    cluster = 1 << _CLUSTER_BITS
    l1_entries = -(-size_bytes // (cluster * cluster // 8))
    l1_clusters = max(1, -(-l1_entries * 8 // cluster))
    luks_cluster = 3 + l1_clusters
    clusters = luks_cluster
    extensions = b""
    if backing_file:
        extensions += struct.pack(">II8s", _EXTENSION_BACKING_FORMAT, len("qcow2"), b"qcow2")
    if passphrase:
        extensions += struct.pack(">IIQQ", _EXTENSION_ENCRYPTION, 16, luks_cluster * cluster, LUKS_BYTES)
        clusters += -(-LUKS_BYTES // cluster)
    extensions += bytes(8)
    name = backing_file.encode()
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        _MAGIC,
        3,
        _HEADER_BYTES + len(extensions) if name else 0,
        len(name),
        _CLUSTER_BITS,
        size_bytes,
        _LUKS if passphrase else 0,
        l1_entries,
        3 * cluster,
        cluster,
        1,
        0,  # no snapshots
        0,
        0,  # no features
        0,
        0,
        4,  # 16-bit reference counts
        _HEADER_BYTES,
    )
    os.ftruncate(file, clusters * cluster)
    _write_at(file, 0, header + extensions + name)
    _write_at(file, cluster, struct.pack(">Q", 2 * cluster))
    _write_at(file, 2 * cluster, struct.pack(">H", 1) * clusters)
    if passphrase:
        _write_at(file, luks_cluster * cluster, make_luks(passphrase))


def read_header(file: int) -> LayerHeader:
    """Of the open `file`. Raises ImageRefused for one that is no layer."""
    data = os.pread(file, _READ_BYTES, 0)
    if len(data) < _HEADER_BYTES or data[:4] != _MAGIC:
        raise ImageRefused("it is no qcow2 image: its first bytes are others")
    version, name_offset, name_bytes, _, virtual_bytes, encryption = struct.unpack_from(">IQIIQI", data, 4)
    if version not in (2, 3):
        raise ImageRefused(f"its qcow2 version is {version}; 2 and 3 are read")
    if encryption not in (0, _LUKS):
        raise ImageRefused(f"its encryption is {encryption}; none (0) and LUKS (2) are read")
    if virtual_bytes > MAX_VIRTUAL_BYTES:
        raise ImageRefused(f"its disk has {virtual_bytes} bytes; at most {MAX_VIRTUAL_BYTES} are allowed")
    backing_file = ""
    if name_offset:
        name = data[name_offset : name_offset + name_bytes]
        if len(name) != name_bytes or not name:
            raise ImageRefused(f"its backing file's name has {name_bytes} bytes at {name_offset}")
        backing_file = name.decode("utf-8", "surrogateescape")
    return LayerHeader(virtual_bytes=virtual_bytes, backing_file=backing_file, encrypted=encryption == _LUKS)


def _write_at(file: int, offset: int, data: bytes) -> None:
    """All of it: of a disk that is nearly full the kernel takes what fits, and says so."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written

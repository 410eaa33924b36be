"""Reads the tar archive that a virtual machine is shipped in, far enough to find its first disk.

    OVA = tar: NAME.ovf, a description in XML; NAME.mf and NAME.cert, not read; disks, streamOptimized vmdk files

Nothing is unpacked and no name in it is ever used as a path: what is found is where the disk's bytes lie in the file.
So a member has a plain name and is a plain file, or the archive is refused. Sources: DMTF DSP0243 (OVF), POSIX ustar.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from orchestrator.host.window import ImageRefused, Window

BLOCK: Final = 512
_MAX_MEMBERS = 64
_MAX_DESCRIPTION_BYTES = 1 << 20
_MAX_RECORD_BYTES = 8 << 10  # of pax, in front of a member
_MAX_ELEMENTS = 10_000
_MAX_DEPTH = 64
_MAX_TEXT = 1024  # of an element that is looked at
_NAME = re.compile(r"[^\x00-\x1f/\\\x7f]{1,255}")
_FILE_TYPES = (b"0", b"\0")
_PAX = b"x"
_PAX_HARMLESS = {"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment", "charset"}
_HOST_RESOURCE = re.compile(r"(?:ovf:)?/disk/(.+)")


def find_disk(window: Window) -> tuple[int, int]:
    """Where the first disk of an OVA lies: offset and length in bytes. Raises ImageRefused."""
    members = _members(window)
    descriptions = [name for name in members if name.lower().endswith(".ovf")]
    if len(descriptions) != 1:
        raise ImageRefused(f"it has {len(descriptions)} .ovf descriptions; an ova has one")
    offset, length = members[descriptions[0]]
    if length > _MAX_DESCRIPTION_BYTES:
        raise ImageRefused(f"its description has {length} bytes; at most {_MAX_DESCRIPTION_BYTES} are allowed")
    name = _first_disk(window.read(offset, length, "description"), members)
    return members[name]


# --- tar -----------------------------------------------------------------------------------------------------------


def _members(window: Window) -> dict[str, tuple[int, int]]:
    """Name -> offset and length of its bytes."""
    members: dict[str, tuple[int, int]] = {}
    position = 0
    while position + BLOCK <= window.size:
        header = window.read(position, BLOCK, "tar header")
        if not header.strip(b"\0"):
            break
        kind, length = _check_header(header)
        begin = position + BLOCK
        if begin + length > window.size:
            raise ImageRefused(f"a member of {length} bytes lies outside of the file, or is cut off")
        position = begin + -(-length // BLOCK) * BLOCK
        if kind == _PAX:
            _check_pax(window, begin, length)
            continue
        name = _name(header)
        if name in members:
            raise ImageRefused(f"it has two members {name!r}")
        if len(members) >= _MAX_MEMBERS:
            raise ImageRefused(f"it has more than {_MAX_MEMBERS} members")
        members[name] = (begin, length)
    if not members:
        raise ImageRefused("it is no ova: it has no members")
    return members


def _check_header(header: bytes) -> tuple[bytes, int]:
    """What kind of member it is, and of how many bytes."""
    if not header[257:263].startswith(b"ustar"):
        raise ImageRefused("it is no ova: it is no tar archive (ustar)")
    stated = _number(header[148:156], "checksum")
    if stated != sum(header[:148]) + sum(header[156:]) + 8 * ord(" "):
        raise ImageRefused("the checksum of a tar header is wrong")
    kind = header[156:157]
    if kind not in (*_FILE_TYPES, _PAX):
        what = {b"1": "a hard link", b"2": "a symbolic link", b"5": "a folder"}.get(kind, f"of type {kind!r}")
        raise ImageRefused(f"a member is {what}; an ova has plain files with short names only")
    if kind != _PAX and header[157:257].strip(b"\0"):
        raise ImageRefused("a member is a link; an ova has plain files only")
    return kind, _number(header[124:136], "size")


def _number(digits: bytes, what: str) -> int:
    """Octal digits, or GNU's binary where those are too few."""
    if digits[0] & 0x80:
        return int.from_bytes(bytes([digits[0] & 0x7F]) + digits[1:], "big")
    text = digits.strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,12}", text):
        raise ImageRefused(f"the {what} of a member is no number")
    return int(text, 8)


def _name(header: bytes) -> str:
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    raw = header[:100].partition(b"\0")[0]
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ImageRefused("a member's name is not UTF-8") from None
    name = name.removeprefix("./")
    if prefix or name in (".", "..") or not _NAME.fullmatch(name):
        raise ImageRefused(f"a member is called {(prefix + raw)[:120]!r}; names without folders are allowed")
    return name


def _check_pax(window: Window, offset: int, length: int) -> None:
    """Records in front of a member may say when it was changed and whose it is, but not what it is or how long."""
    if length > _MAX_RECORD_BYTES:
        raise ImageRefused(f"a pax header has {length} bytes; at most {_MAX_RECORD_BYTES} are allowed")
    data = window.read(offset, length, "pax header")
    while data:
        stated, space, _ = data.partition(b" ")
        if not space or not re.fullmatch(rb"[0-9]{1,5}", stated) or not len(stated) + 3 <= int(stated) <= len(data):
            raise ImageRefused("a pax header is none")
        key = data[len(stated) + 1 : int(stated)].partition(b"=")[0].decode("latin-1")
        if key not in _PAX_HARMLESS and not key.startswith(("LIBARCHIVE.", "SCHILY.")):
            raise ImageRefused(f"a pax header states the {key[:40]!r} of a member, which is not read")
        data = data[int(stated) :]


# --- the description -----------------------------------------------------------------------------------------------


@dataclass
class _Description:
    """The few elements of an OVF that lead to a disk, by local name: what is said about the machine is not read."""

    files: dict[str, dict[str, str]] = field(default_factory=dict)
    disks: dict[str, dict[str, str]] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)  # ids of disks, in the order in which the machine has them
    elements: int = 0
    depth: int = 0
    text: str | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.elements += 1
        self.depth += 1
        if self.elements > _MAX_ELEMENTS or self.depth > _MAX_DEPTH:
            raise ImageRefused("its description has too many elements")
        local = name.rpartition(" ")[2]
        said = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
        if local == "File":
            _add(self.files, said, "id", "file")
        elif local == "Disk":
            _add(self.disks, said, "diskId", "disk")
        self.text = "" if local == "HostResource" else None

    def end(self, name: str) -> None:
        self.depth -= 1
        if self.text is not None and (found := _HOST_RESOURCE.fullmatch(self.text.strip())):
            self.used.append(found[1])
        self.text = None

    def characters(self, text: str) -> None:
        if self.text is not None and len(self.text) < _MAX_TEXT:
            self.text += text


def _add(table: dict[str, dict[str, str]], said: dict[str, str], key: str, what: str) -> None:
    name = said.get(key, "")
    if not name or name in table:
        raise ImageRefused(f"its description has a {what} without an id, or two of one id")
    table[name] = said


def _first_disk(data: bytes, members: dict[str, tuple[int, int]]) -> str:
    """The member that holds the disk which the machine has first; where it says nothing of that, the first there is."""
    about = _parse(data)
    filled = [disk for disk, said in about.disks.items() if said.get("fileRef")]
    in_order = [disk for disk in about.used if disk in filled] or filled
    if not in_order:
        raise ImageRefused("its description has no disk with content")
    disk = about.disks[in_order[0]]
    if disk.get("parentRef"):
        raise ImageRefused("its disk has a parent; only a disk of one file is read")
    file = about.files.get(disk["fileRef"])
    if file is None:
        raise ImageRefused("its disk is in a file that its description does not have")
    if file.get("compression", "identity") not in ("", "identity"):
        raise ImageRefused(
            f"its disk is compressed ({file['compression'][:20]!r}); a streamOptimized vmdk is read as it is"
        )
    if file.get("chunkSize"):
        raise ImageRefused("its disk is cut into several files; only a disk of one file is read")
    name = file.get("href", "")
    if name not in members:
        raise ImageRefused(f"its disk is in {name[:120]!r}, which is no member of it")
    if file.get("size") and file["size"] != str(members[name][1]):
        raise ImageRefused(
            f"its disk has {members[name][1]} bytes, and not {file['size'][:20]!r} as its description says"
        )
    return name


def _parse(data: bytes) -> _Description:
    about = _Description()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    parser.StartElementHandler = about.start
    parser.EndElementHandler = about.end
    parser.CharacterDataHandler = about.characters
    parser.StartDoctypeDeclHandler = _no_doctype
    parser.EntityDeclHandler = _no_doctype
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise ImageRefused(f"its description is no XML: {str(error)[:120]}") from None
    return about


def _no_doctype(*_: object) -> None:
    """Entities are how a small XML file becomes a large one, or reads another."""
    raise ImageRefused("its description declares a document type, which an ovf has not")

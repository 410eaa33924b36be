"""How a file that nobody vouches for is read: at stated offsets, and never much of it."""

from __future__ import annotations

import os
from typing import BinaryIO, Final

from orchestrator.host import HostError

SECTOR: Final = 512
MOST_BYTES: Final = 16 << 20  # read of one file; no header that is honest comes near
MOST_READS: Final = 4096


class ImageRefused(HostError):
    """The file is not what it was said to be, or asks for what no image may have. Trying again is of no use."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the image is refused: {reason}", retryable=False)
        self.reason = reason


class Window:
    """Bounded reads of one file, or of a part of it: `size` bytes from `start` on."""

    def __init__(self, file: BinaryIO, start: int = 0, size: int | None = None) -> None:
        self._file = file
        self._start = start
        self.size = os.fstat(file.fileno()).st_size - start if size is None else size
        self._bytes_left = MOST_BYTES
        self._reads_left = MOST_READS

    def part(self, start: int, size: int) -> Window:
        """A part of this one, which must hold it."""
        if start < 0 or size < 0 or start + size > self.size:
            raise ImageRefused("a part of it lies outside of the file, or is cut off")
        return Window(self._file, self._start + start, size)

    def read(self, offset: int, length: int, what: str) -> bytes:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ImageRefused(f"its {what} lies outside of the file, or is cut off")
        self._bytes_left -= length
        self._reads_left -= 1
        if self._bytes_left < 0 or self._reads_left < 0:
            raise ImageRefused(f"its headers go on for too long, at its {what}")
        data = os.pread(self._file.fileno(), length, self._start + offset)
        if len(data) != length:
            raise ImageRefused(f"its {what} is cut off")
        return data

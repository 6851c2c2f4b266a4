"""Reading deflated DICOM objects as far as they are needed, within the budget of decoded bytes.

Own code, because pydicom inflates a whole object at once, whatever its size.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from dxseg.data.readers.budget import TooLargeError, decoded_limit

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

_HEADER_BYTES = 2**24
"""Elements beside the pixels may take this much."""
_BLOCK = 2**16
_PIXELS, _PIXEL_DATA = 0x7FE00008, 0x7FE00010
"""The first and the last tag of pixels; what comes after them is never inflated."""


def read_deflated(stream: IO[bytes], path: Path, meta: Dataset, *, pixels: bool) -> FileDataset:
    """Read an object whose data set is deflated; each byte is inflated once.

    Args:
        stream: The file, at the start of the deflated data.
        path: The file named in the error.
        meta: Its file meta information.
        pixels: Whether to read the pixel data too.

    Raises:
        TooLargeError: Its header inflates beyond 16 MiB, or its pixels beyond the budget.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.filereader import read_dataset

    limit = _HEADER_BYTES + (decoded_limit() if pixels else 0)
    found = read_dataset(
        cast("BinaryIO", InflatedStream(stream, path, limit)),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag > _PIXEL_DATA if pixels else tag >= _PIXELS,
    )
    return FileDataset(
        str(path),
        found,
        file_meta=FileMetaDataset(meta),
        is_implicit_VR=False,
        is_little_endian=True,
    )


class InflatedStream:
    """A deflated stream as a file to read and seek in; keeps what was inflated so far."""

    def __init__(self, stream: IO[bytes], path: Path, limit: int) -> None:
        """Start at the stream's position.

        Args:
            stream: The deflated bytes.
            path: The file named in the error.
            limit: Inflated bytes at most.
        """
        self.name = str(path)
        self._stream, self._path = stream, path
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._limit = limit
        self._inflated, self._place = bytearray(), 0

    def read(self, size: int = -1) -> bytes:
        """Read bytes from the current place; fewer at the end."""
        end = self._place + size if size >= 0 else self._limit + 1
        self._inflate(end)
        found = bytes(memoryview(self._inflated)[self._place : end])
        self._place += len(found)
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place: from the start (0), from here (1) or from the end (2)."""
        if whence == 2:
            self._inflate(self._limit + 1)
        start = (0, self._place, len(self._inflated))[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """The current place."""
        return self._place

    def _inflate(self, end: int) -> None:
        """Inflate up to a place."""
        while len(self._inflated) < end and not self._inflater.eof:
            block = self._inflater.unconsumed_tail or self._stream.read(_BLOCK)
            if not block:
                return
            self._inflated += self._inflater.decompress(block, _BLOCK)
            if len(self._inflated) > self._limit:
                raise TooLargeError(
                    f"{self._path}: inflates beyond {self._limit} bytes; expected less"
                )

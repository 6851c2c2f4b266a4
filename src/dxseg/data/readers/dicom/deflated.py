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
_PIXEL_DATA = (0x7FE00008, 0x7FE00009, 0x7FE00010)


def read_deflated(stream: IO[bytes], path: Path, meta: Dataset, *, pixels: bool) -> FileDataset:
    """Read an object whose data set is deflated; each byte is inflated once.

    Args:
        stream: The file, at the start of the deflated data.
        path: The file named in the error.
        meta: Its file meta information.
        pixels: Whether to read the pixel data too.

    Raises:
        TooLargeError: It inflates beyond the budget.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.filereader import read_dataset

    found = read_dataset(
        cast("BinaryIO", InflatedStream(stream, path)),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=None if pixels else lambda tag, _vr, _length: tag in _PIXEL_DATA,
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

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        """Start at the stream's position.

        Args:
            stream: The deflated bytes.
            path: The file named in the error.
        """
        self.name = str(path)
        self._stream, self._path = stream, path
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._limit = decoded_limit() + _HEADER_BYTES
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

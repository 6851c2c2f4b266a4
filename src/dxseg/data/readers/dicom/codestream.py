"""The size of compressed frames, read without decoding them.

Own code, because decoders allocate the size in the compressed stream, not the one in the header
that was checked, and none of the libraries reads the size alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dxseg.data.readers.dicom.objects import PixelLayout
from dxseg.errors import DxsegError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def check_codestream(ds: FileDataset, index: int, layout: PixelLayout, path: Path) -> None:
    """Compare the size in a compressed frame with the header's: decoders use the former.

    Args:
        ds: An object opened with its pixels.
        index: The frame, from 0.
        layout: Its pixel layout.
        path: Its file.

    Raises:
        DxsegError: They differ, so that decoding might take any amount of memory.
    """
    from pydicom.encaps import get_frame
    from pydicom.uid import UID, RLELossless

    syntax = UID(layout.syntax)
    if not syntax.is_encapsulated or syntax == RLELossless:
        return
    code = get_frame(ds.PixelData, index, number_of_frames=layout.frames)
    size = _jpeg2000_size(code) or _jpeg_size(code)
    if size != (layout.rows, layout.columns):
        raise DxsegError(
            f"{path}: the size of its compressed pixels is {size or 'unreadable'}, in the header "
            f"{(layout.rows, layout.columns)} (height, width); expected the same; export it again"
        )


def _jpeg2000_size(code: bytes) -> tuple[int, int] | None:
    """Read (height, width) from the SIZ marker (ISO/IEC 15444-1, A.5.1)."""
    # A codestream may be wrapped in a JP2 file, whose boxes come first.
    start = code.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(code) < start + 24:
        return None
    wide, high, left, top = (
        int.from_bytes(code[start + at : start + at + 4], "big") for at in (8, 12, 16, 20)
    )
    return high - top, wide - left


def _jpeg_size(code: bytes) -> tuple[int, int] | None:
    """Read (height, width) from the start of frame of JPEG or JPEG-LS (ISO/IEC 10918-1, B.2.2)."""
    at = 2
    while code.startswith(b"\xff\xd8") and at + 9 <= len(code):
        marker = code[at + 1]
        if code[at] != 0xFF:
            return None
        if marker == 0xFF:
            at += 1
        elif marker in _FRAME_MARKERS:
            return int.from_bytes(code[at + 5 : at + 7]), int.from_bytes(code[at + 7 : at + 9])
        else:
            at += 2 + int.from_bytes(code[at + 2 : at + 4])
    return None
